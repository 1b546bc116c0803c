/* swiglu_act on the GPU, and its gradient (swiglu_act.c says what is computed): element by element, every value moved once. */
#include "op/cuda_rows.h"

enum { AT_ONCE = 2 };

/* x: gate | up, `half` columns each. */
template <typename T, int W>
static __global__ void __launch_bounds__(ROW_THREADS) swiglu_act(Tall x, Tall y, Spread s, uint32_t half)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t count = spread_count(s, m), first = blockIdx.x * AT_ONCE * ROW_THREADS + threadIdx.x;
    Piece<T, W> gate[AT_ONCE], up[AT_ONCE];
    uint32_t row[AT_ONCE], piece[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        spread_at(s, first + u * ROW_THREADS, &row[u], &piece[u]);
        const int64_t at = tall_at(x, m, row[u]) + piece[u] * W;
        read(gate[u], x.a, at);
        read(up[u], x.a, at + half);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        float g[W], v[W];
        open(gate[u], g);
        open(up[u], v);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] = g[j] * sigmoid(g[j]) * v[j];
        write<T, W>(y.a, tall_at(y, m, row[u]) + piece[u] * W, v);
    }
}

/* dx may be x: a thread has read what it overwrites. */
template <typename T, int W>
static __global__ void __launch_bounds__(ROW_THREADS) swiglu_act_grad(Tall x, Tall dy, Tall dx, Spread s, uint32_t half)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t count = spread_count(s, m), first = blockIdx.x * AT_ONCE * ROW_THREADS + threadIdx.x;
    Piece<T, W> gate[AT_ONCE], up[AT_ONCE], back[AT_ONCE];
    uint32_t row[AT_ONCE], piece[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        spread_at(s, first + u * ROW_THREADS, &row[u], &piece[u]);
        const int64_t at = tall_at(x, m, row[u]) + piece[u] * W;
        read(gate[u], x.a, at);
        read(up[u], x.a, at + half);
        read(back[u], dy.a, tall_at(dy, m, row[u]) + piece[u] * W);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        const int64_t at = tall_at(dx, m, row[u]) + piece[u] * W;
        float g[W], v[W], d[W];
        open(gate[u], g);
        open(up[u], v);
        open(back[u], d);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const float sg = sigmoid(g[j]);
            v[j] = d[j] * v[j] * sg * (1.0f + g[j] * (1.0f - sg));
            d[j] = d[j] * g[j] * sg;
        }
        write<T, W>(dx.a, at, v);
        write<T, W>(dx.a, at + half, d);
    }
}

static Spread spread_of(const Call *c, int64_t rows, int64_t half, Kind kind)
{
    return Spread{c->n_seq, (uint32_t)rows, (uint32_t)(half / (kind == ANY ? 1 : 8)), false};
}
typedef void Forward(Tall x, Tall y, Spread s, uint32_t half);
typedef void Backward(Tall x, Tall dy, Tall dx, Spread s, uint32_t half);

static void run(const Call *c, int64_t, int64_t)
{
    static Forward *const kinds[] = {swiglu_act<any_real, 1>, swiglu_act<bf16, 8>, swiglu_act<float, 8>};
    const Arg big[] = {c->in[0], c->out[0]};
    const int64_t rows = mdr_rows(c->node->out[0].shape), half = mdr_cols(c->node->out[0].shape);
    const Kind kind = kind_of(half, 8, 2, big);
    const Spread s = spread_of(c, rows, half, kind);
    Forward *const kernel = kinds[kind];
    MDR_LAUNCH(kernel, spread_grid(c, s, AT_ONCE), ROW_THREADS, 0, c->stream, tall(big[0], rows, c->extent.n_seq), tall(big[1], rows, c->extent.n_seq), s,
               (uint32_t)half);
}
static void run_grad(const Call *c, int64_t, int64_t)
{
    static Backward *const kinds[] = {swiglu_act_grad<any_real, 1>, swiglu_act_grad<bf16, 8>, swiglu_act_grad<float, 8>};
    const Arg big[] = {c->in[0], c->in[1], c->out[0]};
    const int64_t rows = mdr_rows(c->node->in_type[1].shape), half = mdr_cols(c->node->in_type[1].shape);
    const int32_t n = c->extent.n_seq;
    const Kind kind = kind_of(half, 8, 3, big);
    const Spread s = spread_of(c, rows, half, kind);
    Backward *const kernel = kinds[kind];
    MDR_LAUNCH(kernel, spread_grid(c, s, AT_ONCE), ROW_THREADS, 0, c->stream, tall(big[0], rows, n), tall(big[1], rows, n), tall(big[2], rows, n), s,
               (uint32_t)half);
}

extern "C" const CudaRow mdr_cuda_rows_swiglu_act[] = {
    {"swiglu_act", {run, NULL, NULL, {}}, NULL, 0, 0}, {"swiglu_act_grad", {run_grad, NULL, NULL, {}}, NULL, 0, 0}, {}};
