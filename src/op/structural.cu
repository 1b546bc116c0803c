/* The structural ops on the GPU: broadcasting addition, sums over rows, columns and the batch, and the copies for where a value cannot
 * be an alias. Addition of equal shapes (the residual stream) moves 16 bytes a thread. */
#include "op/cuda_rows.h"

/* An element of any type as a double: 8 bytes are DT_SUM. */
static __device__ __forceinline__ double any_get(const Arg &a, int64_t at) { return a.size == 8 ? ((const double *)a.data)[at] : (double)arg_get(a, at); }
static __device__ __forceinline__ void any_put(const Arg &a, int64_t at, double x)
{
    if (a.size == 8) ((double *)a.data)[at] = x;
    else arg_put(a, at, (float)x);
}

/* ---- add ---- */
struct Terms {
    Tall t[MDR_MAX_IN];
    int64_t numel[MDR_MAX_IN];        /* 1: one element for all                                                             */
    int32_t n;
};

/* N terms, or with N = 0 x.n of them. */
template <typename T, int W, int N> static __global__ void __launch_bounds__(ROW_THREADS) add_equal(Terms x, Tall y, Spread s)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t j = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (j >= spread_count(s, m)) return;
    uint32_t row, piece;
    Piece<T, W> p[N ? N : 1];
    float sum[W], v[W];
    spread_at(s, j, &row, &piece);
#pragma unroll
    for (int i = 0; i < N; i++) read(p[i], x.t[i].a, tall_at(x.t[i], m, row) + (int64_t)piece * W);
#pragma unroll(N ? N : 1)
    for (int i = 0; i < (N ? N : x.n); i++) {
        if (!N) read(p[0], x.t[i].a, tall_at(x.t[i], m, row) + (int64_t)piece * W);
        open(p[N ? i : 0], v);
#pragma unroll
        for (int k = 0; k < W; k++) sum[k] = i ? sum[k] + v[k] : v[k];
    }
    write<T, W>(y.a, tall_at(y, m, row) + (int64_t)piece * W, sum);
}

/* Rows of a smaller term repeat; every term has its own type. Eight columns a thread. */
static __device__ __forceinline__ void term_8(const Terms &x, int i, int64_t m, uint32_t s, uint32_t r, uint32_t k, float v[8])
{
    const Arg &a = x.t[i].a;
    if (x.numel[i] == 1) {
        const float one = arg_get(a, arg_row(a, m, s, 0));
        for (int j = 0; j < 8; j++) v[j] = one;
        return;
    }
    const int64_t at = arg_row(a, m, s, r % x.t[i].rows) + k;
    if (a.size == 2) {
        Piece<bf16, 8> p;
        read(p, a, at);
        open(p, v);
    } else {
        Piece<float, 8> p;
        read(p, a, at);
        open(p, v);
    }
}
static __global__ void __launch_bounds__(ROW_THREADS) add_mixed(Terms x, Arg y, const int32_t *n_seq, uint32_t rows, uint32_t pieces)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t j = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (j >= (uint32_t)n_seq[m] * rows * pieces) return;
    const uint32_t s = j / (rows * pieces), r = j / pieces % rows, k = j % pieces * 8;
    float sum[8], v[8];
    term_8(x, 0, m, s, r, k, sum);
    for (int i = 1; i < x.n; i++) {
        term_8(x, i, m, s, r, k, v);
#pragma unroll
        for (int e = 0; e < 8; e++) sum[e] += v[e];
    }
    const int64_t to = arg_row(y, m, s, r) + k;
    if (y.size == 2) write<bf16, 8>(y, to, sum);
    else write<float, 8>(y, to, sum);
}
static __global__ void __launch_bounds__(ROW_THREADS) add_any(Terms x, Arg y, const int32_t *n_seq, uint32_t rows, uint32_t cols)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t j = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (j >= (uint32_t)n_seq[m] * rows * cols) return;
    const uint32_t s = j / (rows * cols), r = j / cols % rows, k = j % cols;
    double sum = 0.0;
    for (int i = 0; i < x.n; i++) {
        const bool one = x.numel[i] == 1;
        sum += any_get(x.t[i].a, arg_row(x.t[i].a, m, s, one ? 0 : r % x.t[i].rows) + (one ? 0 : k));
    }
    any_put(y, arg_row(y, m, s, r) + k, sum);
}

template <typename T, int W> static void add_same(const Call *c, const Terms &x, const Tall &y, const Spread &s)
{
    if (x.n == 2) MDR_LAUNCH((add_equal<T, W, 2>), spread_grid(c, s, 1), dim3(ROW_THREADS), 0, c->stream, x, y, s);
    else if (x.n == 3) MDR_LAUNCH((add_equal<T, W, 3>), spread_grid(c, s, 1), dim3(ROW_THREADS), 0, c->stream, x, y, s);
    else MDR_LAUNCH((add_equal<T, W, 0>), spread_grid(c, s, 1), dim3(ROW_THREADS), 0, c->stream, x, y, s);
}
static void add(const Call *c, int64_t, int64_t)
{
    const Shape shape = c->node->out[0].shape;
    const int64_t rows = mdr_rows(shape), cols = mdr_cols(shape), all_rows = c->extent.n_seq * rows;
    Terms x = {};
    Arg all[MDR_MAX_IN + 1] = {c->out[0]};
    bool equal = true, eight = cols % 8 == 0 && c->out[0].size < 8 && in_pieces(c->out[0], 8);
    x.n = c->node->n_in;
    for (int i = 0; i < x.n; i++) {
        const Shape of = c->node->in_type[i].shape;
        x.t[i] = tall(c->in[i], mdr_rows(of), c->extent.n_seq);
        x.numel[i] = mdr_numel(of);
        all[i + 1] = c->in[i];
        equal = equal && mdr_shape_equal(of, shape) && c->in[i].seq == c->in[0].seq;
        eight = eight && (x.numel[i] == 1 || in_pieces(c->in[i], 8));
    }
    const Tall y = tall(c->out[0], rows, c->extent.n_seq);
    const int w = c->out[0].size == 2 ? 8 : 4;
    const Kind kind = equal ? kind_of(cols, w, x.n + 1, all) : ANY;
    if (kind == ANY && eight) {
        MDR_LAUNCH(add_mixed, mdr_grid(mdr_ceil_div(all_rows * (cols / 8), ROW_THREADS), 1, c->extent.n_member), dim3(ROW_THREADS), 0, c->stream, x,
                   c->out[0], c->n_seq, (uint32_t)rows, (uint32_t)(cols / 8));
        return;
    }
    if (kind == ANY) {
        MDR_LAUNCH(add_any, mdr_grid(mdr_ceil_div(all_rows * cols, ROW_THREADS), 1, c->extent.n_member), dim3(ROW_THREADS), 0, c->stream, x, c->out[0],
                   c->n_seq, (uint32_t)rows, (uint32_t)cols);
        return;
    }
    Spread s = {c->n_seq, (uint32_t)rows, (uint32_t)(cols / w), without_gaps(y, cols)};
    for (int i = 0; i < x.n; i++) s.linear = s.linear && without_gaps(x.t[i], cols);
    if (kind == BF16) add_same<bf16, 8>(c, x, y, s);
    else add_same<float, 4>(c, x, y, s);
}

/* ---- sums ---- */
enum { CUT_LEAST = 64, CUT_MOST = 64 };

/* A block is blockDim.x pieces of W columns by blockDim.y rows; part: [member][chunk][cols]. Sums of reals: a thread's in float. */
template <typename T, int W> static __global__ void __launch_bounds__(ROW_THREADS) sum_chunk(Tall x, Cut cut, const int32_t *n_seq, uint32_t cols, double *part)
{
    mdr_begin();
    MDR_SHARED(float, shared);                        /* [blockDim.y][width]                                               */
    const int64_t m = blockIdx.z;
    const uint32_t width = blockDim.x * W, k0 = blockIdx.x * width, k = k0 + threadIdx.x * W;
    uint32_t from, to;
    if (!cut_range(cut, n_seq, m, blockIdx.y, &from, &to)) return;
    float sum[W], v[W];
    for (int i = 0; i < W; i++) sum[i] = 0.0f;
    if (k < cols)
#pragma unroll 4
        for (uint32_t q = from + threadIdx.y; q < to; q += blockDim.y) {
            Piece<T, W> p;
            read(p, x.a, tall_at(x, m, q) + k);
            open(p, v);
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += v[i];
        }
#pragma unroll
    for (int i = 0; i < W; i++) shared[threadIdx.y * width + threadIdx.x * W + i] = sum[i];
    __syncthreads();
    for (uint32_t i = threadIdx.y * blockDim.x + threadIdx.x; i < width && k0 + i < cols; i += ROW_THREADS) {
        double all = 0.0;
        for (uint32_t y = 0; y < blockDim.y; y++) all += (double)shared[y * width + i];
        part[(m * cut.count + blockIdx.y) * cols + k0 + i] = all;
    }
}
/* Sums of losses: a thread a column. */
static __global__ void __launch_bounds__(ROW_THREADS) sum_chunk_double(Tall x, Cut cut, const int32_t *n_seq, uint32_t cols, double *part)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t k = blockIdx.x * ROW_THREADS + threadIdx.x;
    uint32_t from, to;
    if (k >= cols || !cut_range(cut, n_seq, m, blockIdx.y, &from, &to)) return;
    double sum = 0.0;
    for (uint32_t q = from; q < to; q++) sum += any_get(x.a, tall_at(x, m, q) + k);
    part[(m * cut.count + blockIdx.y) * cols + k] = sum;
}
template <typename T, int W> static void sum_chunks(const Call *c, const Tall &x, const Cut &cut, int64_t cols)
{
    const uint32_t lanes = lanes_for(mdr_ceil_div(cols, W), 1);
    MDR_LAUNCH((sum_chunk<T, W>), mdr_grid(mdr_ceil_div(cols, lanes * W), cut.count, c->extent.n_member), dim3(lanes, ROW_THREADS / lanes),
               ROW_THREADS * W * sizeof(float), c->stream, x, cut, c->n_seq, (uint32_t)cols, (double *)c->scratch);
}
static void sum_rows(const Call *c, int64_t, int64_t)
{
    const int64_t rows = mdr_rows(c->node->in_type[0].shape), cols = mdr_cols(c->node->in_type[0].shape);
    const Cut cut = cut_rows(rows, c->extent.n_seq, c->add & 1u, CUT_LEAST, CUT_MOST);
    const Tall x = tall(c->in[0], rows, c->extent.n_seq);
    const Kind kind = kind_of(cols, c->in[0].size == 2 ? 8 : 4, 1, &c->in[0]);
    if (c->in[0].size == 8)
        MDR_LAUNCH(sum_chunk_double, mdr_grid(mdr_ceil_div(cols, ROW_THREADS), cut.count, c->extent.n_member), dim3(ROW_THREADS), 0, c->stream, x, cut,
                   c->n_seq, (uint32_t)cols, (double *)c->scratch);
    else if (kind == BF16) sum_chunks<bf16, 8>(c, x, cut, cols);
    else if (kind == FLOAT) sum_chunks<float, 4>(c, x, cut, cols);
    else sum_chunks<any_real, 1>(c, x, cut, cols);
    enqueue_add_chunks(c, (const double *)c->scratch, cut, cols, cols);
}
static size_t sum_rows_scratch(const Node *n, Extent e)
{
    const Shape s = n->in_type[0].shape;
    return (size_t)(cut_room(mdr_rows(s), e, CUT_LEAST, CUT_MOST) * mdr_cols(s)) * sizeof(double);
}

/* A warp a row; the sums of one sequence lie in rows of out_cols. */
static __global__ void __launch_bounds__(ROW_THREADS) sum_row(Arg x, Arg y, const int32_t *n_seq, uint32_t rows, uint32_t cols, uint32_t out_cols)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t q = blockIdx.x * (ROW_THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (q >= (uint32_t)n_seq[m] * rows) return;
    const uint32_t s = q / rows, r = q % rows;
    double sum = 0.0;
    for (uint32_t k = lane; k < cols; k += 32) sum += any_get(x, arg_row(x, m, s, r) + k);
    for (int d = 16; d > 0; d >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (lane == 0) any_put(y, arg_row(y, m, s, r / out_cols) + r % out_cols, sum);
}
static void sum_cols(const Call *c, int64_t, int64_t)
{
    const int64_t rows = mdr_rows(c->node->in_type[0].shape), cols = mdr_cols(c->node->in_type[0].shape);
    MDR_LAUNCH(sum_row, mdr_grid(mdr_ceil_div(c->extent.n_seq * rows, ROW_THREADS / 32), 1, c->extent.n_member), dim3(ROW_THREADS), 0, c->stream, c->in[0],
               c->out[0], c->n_seq, (uint32_t)rows, (uint32_t)cols, (uint32_t)mdr_cols(c->node->out[0].shape));
}

/* Sequences first, first + BATCH_ROWS, .. of one term. */
enum { BATCH_ROWS = 16 };
template <typename T, typename S> static __device__ __forceinline__ S sum_every(const Arg &a, int64_t at, int32_t first, int32_t n)
{
    const T *x = (const T *)a.data + at;
    S sum = 0;
#pragma unroll 4
    for (int32_t s = first; s < n; s += BATCH_ROWS) {
        if constexpr (__is_same(T, bf16)) sum += to_float(x[s * a.seq]);
        else sum += x[s * a.seq];
    }
    return sum;
}
/* 32 elements by BATCH_ROWS: a column of threads shares the sequences of one element. */
static __global__ void __launch_bounds__(32 * BATCH_ROWS) sum_sequences(Terms x, Arg y, const int32_t *n_seq, uint32_t numel, uint32_t cols, int32_t adds)
{
    mdr_begin();
    MDR_SHARED(double, shared);
    const int64_t m = blockIdx.z;
    const uint32_t j = blockIdx.x * 32 + threadIdx.x, r = j / cols, k = j % cols;
    const int32_t n = n_seq[m], first = (int32_t)threadIdx.y;
    double sum = 0.0;
    if (n == 0) return;
    for (int i = 0; i < x.n && j < numel; i++) {
        const Arg &a = x.t[i].a;
        const int64_t at = arg_row(a, m, 0, r) + k;
        if (a.size == 2) sum += (double)sum_every<bf16, float>(a, at, first, n);
        else if (a.size == 4) sum += (double)sum_every<float, float>(a, at, first, n);
        else sum += sum_every<double, double>(a, at, first, n);
    }
    shared[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || j >= numel) return;
    for (int i = 1; i < BATCH_ROWS; i++) sum += shared[i * 32 + threadIdx.x];
    const int64_t to = arg_row(y, m, 0, r) + k;
    any_put(y, to, adds ? any_get(y, to) + sum : sum);
}
static void sum_batch(const Call *c, int64_t, int64_t)
{
    const Shape shape = c->node->out[0].shape;
    Terms x = {};
    for (int i = 0; i < c->node->n_in; i++)           /* one that its producer already added has no data                     */
        if (c->in[i].data) x.t[x.n++] = tall(c->in[i], mdr_rows(shape), c->extent.n_seq);
    MDR_LAUNCH(sum_sequences, mdr_grid(mdr_ceil_div(mdr_numel(shape), 32), 1, c->extent.n_member), dim3(32, BATCH_ROWS),
               32 * BATCH_ROWS * sizeof(double), c->stream, x, c->out[0], c->n_seq, (uint32_t)mdr_numel(shape), (uint32_t)mdr_cols(shape),
               (int32_t)(c->add & 1u));
}

/* ---- copies ---- */
enum Way { BOX, REPEAT, FLAT };
struct Move {
    Way way;
    uint32_t rows, cols;              /* of what is written                                                                 */
    int32_t to_row, to_col;           /* BOX: where it goes in the output ...                                               */
    int32_t from_row, from_col;       /* ... and comes from; beyond the input's rows and columns: zeros                      */
    uint32_t in_rows, in_cols, each;  /* REPEAT: rows of the input again and again. FLAT: element i / each, in order         */
};
static __device__ __forceinline__ void copy_element(const Arg &y, int64_t to, const Arg &x, int64_t from)
{
    if (x.size != y.size) any_put(y, to, any_get(x, from));
    else if (x.size == 16) ((uint4 *)y.data)[to] = ((const uint4 *)x.data)[from];
    else if (x.size == 8) ((uint64_t *)y.data)[to] = ((const uint64_t *)x.data)[from];
    else if (x.size == 4) ((uint32_t *)y.data)[to] = ((const uint32_t *)x.data)[from];
    else ((uint16_t *)y.data)[to] = ((const uint16_t *)x.data)[from];
}
static __device__ __forceinline__ void zero_element(const Arg &y, int64_t to)
{
    if (y.size == 16) ((uint4 *)y.data)[to] = make_uint4(0, 0, 0, 0);
    else if (y.size == 8) ((uint64_t *)y.data)[to] = 0;
    else if (y.size == 4) ((uint32_t *)y.data)[to] = 0;
    else ((uint16_t *)y.data)[to] = 0;
}
static __global__ void __launch_bounds__(ROW_THREADS) move(Arg y, Arg x, Move v, const int32_t *n_seq)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t j = blockIdx.x * ROW_THREADS + threadIdx.x, one = v.rows * v.cols;
    if (j >= (uint32_t)n_seq[m] * one) return;
    const uint32_t s = j / one, i = j % one, r = i / v.cols, k = i % v.cols;
    const int64_t to = arg_row(y, m, s, (int64_t)r + v.to_row) + k + v.to_col;
    if (v.way == BOX) {
        const int64_t fr = (int64_t)r + v.from_row, fk = (int64_t)k + v.from_col;
        if (fr < 0 || fk < 0 || fr >= v.in_rows || fk >= v.in_cols) zero_element(y, to);
        else copy_element(y, to, x, arg_row(x, m, s, fr) + fk);
    } else if (v.way == REPEAT) {
        copy_element(y, to, x, arg_row(x, m, s, r % v.in_rows) + k);
    } else {
        const uint32_t f = i / v.each;
        copy_element(y, to, x, arg_row(x, m, s, f / v.in_cols) + f % v.in_cols);
    }
}
/* Sixteen bytes taken for one element, where everything is a multiple of them. */
static void widen(Arg *y, Arg *x, Move *v)
{
    const int64_t w = 16 / y->size;
    if (x->size != y->size || v->each > 1 || !in_pieces(*y, w) || !in_pieces(*x, w)) return;
    if (v->cols % w || v->in_cols % w || v->to_col % w || v->from_col % w) return;
    for (Arg *a : {y, x}) {
        a->member /= w;
        a->seq /= w;
        a->ld /= w;
        a->size = 16;
    }
    v->cols /= (uint32_t)w;
    v->in_cols /= (uint32_t)w;
    v->to_col /= (int32_t)w;
    v->from_col /= (int32_t)w;
}
static void enqueue(const Call *c, Arg y, Arg x, Move v)
{
    widen(&y, &x, &v);
    const int64_t all = (int64_t)c->extent.n_seq * v.rows * v.cols;
    if (all > 0)
        MDR_LAUNCH(move, mdr_grid(mdr_ceil_div(all, ROW_THREADS), 1, c->extent.n_member), dim3(ROW_THREADS), 0, c->stream, y, x, v, c->n_seq);
}
static Move move_of(Way way, Shape out, Shape in)
{
    return Move{way, (uint32_t)mdr_rows(out), (uint32_t)mdr_cols(out), 0, 0, 0, 0, (uint32_t)mdr_rows(in), (uint32_t)mdr_cols(in), 1};
}

static void expand(const Call *c, int64_t, int64_t)
{
    const ExpandAttr *a = (const ExpandAttr *)c->node->attr;
    Move v = move_of(a->trailing ? FLAT : REPEAT, c->node->out[0].shape, c->node->in_type[0].shape);
    if (a->trailing) v.each = (uint32_t)a->n;
    enqueue(c, c->out[0], c->in[0], v);
}
static void reshape(const Call *c, int64_t, int64_t) { enqueue(c, c->out[0], c->in[0], move_of(FLAT, c->node->out[0].shape, c->node->in_type[0].shape)); }
static void join(const Call *c, int64_t, int64_t)
{
    int32_t at = 0;
    for (int i = 0; i < c->node->n_in; i++) {
        Move v = move_of(BOX, c->node->in_type[i].shape, c->node->in_type[i].shape);
        v.rows = (uint32_t)mdr_rows(c->node->out[0].shape);
        v.to_col = at;
        at += (int32_t)v.cols;
        enqueue(c, c->out[0], c->in[i], v);
    }
}
static void split(const Call *c, int64_t, int64_t)
{
    int32_t at = 0;
    for (int i = 0; i < c->node->n_out; i++) {
        Move v = move_of(BOX, c->node->out[i].shape, c->node->in_type[0].shape);
        v.from_col = at;
        at += (int32_t)v.cols;
        if (c->out[i].data) enqueue(c, c->out[i], c->in[0], v);
    }
}
/* A row of the first dimension may be several rows of columns; of a vector it is an element. */
static void rows(const Call *c, int64_t, int64_t)
{
    const RowsAttr *a = (const RowsAttr *)c->node->attr;
    const Shape in = c->node->in_type[0].shape;
    Move v = move_of(BOX, c->node->out[0].shape, in);
    if (in.rank == 1) v.from_col = a->start;
    else v.from_row = (int32_t)(a->start * (mdr_rows(in) / in.d[0]));
    enqueue(c, c->out[0], c->in[0], v);
}
static void pad_rows(const Call *c, int64_t, int64_t)
{
    const RowsAttr *a = (const RowsAttr *)c->node->attr;
    const Shape in = c->node->in_type[0].shape;
    Move v = move_of(BOX, c->node->out[0].shape, in);
    if (in.rank == 1) v.from_col = -a->start;
    else v.from_row = -(int32_t)(a->start * (mdr_rows(in) / in.d[0]));
    enqueue(c, c->out[0], c->in[0], v);
}

extern "C" const CudaRow mdr_cuda_rows_structural[] = {
    {"add", {add, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"expand", {expand, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"join", {join, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"pad_rows", {pad_rows, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"reshape", {reshape, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"rows", {rows, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"split", {split, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"sum_batch", {sum_batch, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"sum_cols", {sum_cols, nullptr, nullptr, {}}, nullptr, 0, 0},
    {"sum_rows", {sum_rows, nullptr, sum_rows_scratch, {}}, nullptr, 0, 0},
    {}};
