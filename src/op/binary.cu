/* binary on the GPU: sub, mul, div, element by element; y as large as x, its trailing dimensions or one element (binary.c). Its
 * derivatives are made of the same op, so there is no other kernel here. */
#include "op/cuda_rows.h"

enum { AT_ONCE = 2 };
/* y: row q of x meets row q, or with x_rows > 0 row r of x in its sequence meets row r mod t.rows. single: one element a row. */
struct Other {
    Tall t;
    uint32_t x_rows;
    bool single;
};
static __device__ __forceinline__ int64_t other_at(const Other &o, int64_t m, uint32_t q)
{
    if (o.x_rows == 0) return tall_at(o.t, m, q);
    const uint32_t s = q / o.x_rows, r = q - s * o.x_rows;
    return m * o.t.a.member + s * o.t.a.seq + r % o.t.rows * o.t.a.ld;
}
template <int W> static __device__ __forceinline__ void combine(int32_t kind, float x[W], const float y[W])
{
    if (kind == BIN_SUB) {
#pragma unroll
        for (int j = 0; j < W; j++) x[j] -= y[j];
    } else if (kind == BIN_MUL) {
#pragma unroll
        for (int j = 0; j < W; j++) x[j] *= y[j];
    } else {
#pragma unroll
        for (int j = 0; j < W; j++) x[j] /= y[j];
    }
}

/* T: x and z; Y: y. z may be x. */
template <typename T, typename Y, int W>
static __global__ void __launch_bounds__(ROW_THREADS) binary(Tall x, Other y, Tall z, Spread s, int32_t kind)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t count = spread_count(s, m), first = blockIdx.x * AT_ONCE * ROW_THREADS + threadIdx.x;
    Piece<T, W> px[AT_ONCE];
    Piece<Y, W> py[AT_ONCE] = {};
    float one[AT_ONCE] = {};
    uint32_t row[AT_ONCE], piece[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        spread_at(s, first + u * ROW_THREADS, &row[u], &piece[u]);
        read(px[u], x.a, tall_at(x, m, row[u]) + (int64_t)piece[u] * W);
        if (y.single) one[u] = arg_get(y.t.a, other_at(y, m, row[u]));
        else read(py[u], y.t.a, other_at(y, m, row[u]) + (int64_t)piece[u] * W);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        float v[W], w[W];
        open(px[u], v);
        open(py[u], w);
#pragma unroll
        for (int j = 0; j < W; j++) w[j] = y.single ? one[u] : w[j];
        combine<W>(kind, v, w);
        write<T, W>(z.a, tall_at(z, m, row[u]) + (int64_t)piece[u] * W, v);
    }
}

typedef void BinaryFn(Tall x, Other y, Tall z, Spread s, int32_t kind);
/* Where nothing has gaps y is taken as one row, and x and z as rows of its length. */
static void run(const Call *c, int64_t, int64_t)
{
    const Shape shape = c->node->out[0].shape, y_shape = c->node->in_type[1].shape;
    const int32_t n = c->extent.n_seq;
    Arg big[] = {c->in[0], c->out[0]}, y = c->in[1];
    int64_t rows = mdr_rows(shape), cols = mdr_cols(shape), y_rows = mdr_rows(y_shape);
    const int64_t y_cols = mdr_cols(y_shape);
    const bool single = y_rows * y_cols == 1;
    const bool dense = without_gaps(tall(big[0], rows, n), cols) && without_gaps(tall(big[1], rows, n), cols) && (y_rows == 1 || y.ld == y_cols);
    if (dense) {
        big[0].ld = big[1].ld = cols = single ? rows * cols : y_rows * y_cols;
        rows = mdr_numel(shape) / cols;
        y_rows = 1;
    }
    if (y_rows == 1) y.ld = 0;
    const Other other = {tall(y, y_rows == 1 ? rows : y_rows, n), y_rows == 1 || y_rows == rows ? 0 : (uint32_t)rows, single};
    const bool linear = dense && rows == 1 && (n == 1 || y.seq == (single ? 0 : cols));
    const bool fits = single || (in_pieces(y, 8) && (y.size == 4 || y.size == big[0].size));
    const Kind kind = fits ? kind_of(cols, 8, 2, big) : ANY;
    const Spread s = {c->n_seq, (uint32_t)rows, (uint32_t)(cols / (kind == ANY ? 1 : 8)), linear};
    BinaryFn *const kernel = kind == ANY ? binary<any_real, any_real, 1> : kind == FLOAT ? binary<float, float, 8> :
                             y.size == 4 ? binary<bf16, float, 8> : binary<bf16, bf16, 8>;
    MDR_LAUNCH(kernel, spread_grid(c, s, AT_ONCE), ROW_THREADS, 0, c->stream, tall(big[0], rows, n), other, tall(big[1], rows, n), s,
               ((const BinaryAttr *)c->node->attr)->kind);
}

extern "C" const CudaRow mdr_cuda_rows_binary[] = {{"binary", {run, NULL, NULL, {}}, NULL, 0, 0}, {}};
