/* rmsnorm and layernorm on the GPU, and their gradients (norm.c says what is computed). Some lanes of a warp hold a row in registers:
 * every value is read once. rmsnorm is layernorm without mean and bias (CENTRED false). Not here: the gradient of the bias
 * (sum_rows). */
#include "op/cuda_rows.h"

enum { ROUNDS = 4, DW_AT_ONCE = 4, DW_PIECES = 32, LEAST_ROWS = 64, MOST_CHUNKS = 128 };

struct Normed { const int32_t *n_seq; uint32_t rows, cols, pieces, lanes; float eps; };
/* Gains are floats, but in rows that are not held. */
template <int N> struct Weights { typedef float type; };
template <> struct Weights<0> { typedef any_real type; };
#define WIDTH(N) ((N) > 0 ? 8 : 1)
template <int N> using HeldWeight = Held<typename Weights<N>::type, WIDTH(N), N>;

template <typename T, int N, bool CENTRED>
static __device__ __forceinline__ void norm_row(const Held<T, WIDTH(N), N> &h, const Tall &x, const HeldWeight<N> *weight, const Tall &gain,
                                                const Tall &bias, const Tall &y, const Tall &mean, const Tall &rstd, const Normed &s, int64_t m,
                                                uint32_t q, bool there)
{
    constexpr int W = WIDTH(N);
    const uint32_t lanes = s.lanes, lane = threadIdx.x % lanes, pieces = there ? s.pieces : 0;
    const int64_t at = there ? tall_at(x, m, q) : 0;
    const float part = 1.0f / (float)s.cols;
    float v[W], mu = 0.0f, sum = 0.0f;
    if (CENTRED) {
        FOR_PIECES(i, k, pieces) {
            take(h, x.a, at, i, k, v);
            for (int j = 0; j < W; j++) mu += v[j];
        }
        mu = lanes_sum(mu, lanes) * part;
    }
    FOR_PIECES(i, k, pieces) {
        take(h, x.a, at, i, k, v);
        for (int j = 0; j < W; j++) sum += (v[j] - mu) * (v[j] - mu);
    }
    const float r = 1.0f / sqrtf(lanes_sum(sum, lanes) * part + s.eps);
    if (!there) return;
    if (y.a.data) {
        const int64_t to = tall_at(y, m, q), gain_at = tall_at(gain, m, q), bias_at = CENTRED ? tall_at(bias, m, q) : 0;
        FOR_PIECES(i, k, pieces) {
            float g[W], b[W];
            take(h, x.a, at, i, k, v);
            take(weight[0], gain.a, gain_at, i, k, g);
            if (CENTRED) take(weight[1], bias.a, bias_at, i, k, b);
            for (int j = 0; j < W; j++) v[j] = CENTRED ? (v[j] - mu) * r * g[j] + b[j] : v[j] * r * g[j];
            write<T, W>(y.a, to + (int64_t)k * W, v);
        }
    }
    if (lane != 0) return;
    if (CENTRED && mean.a.data) arg_put(mean.a, tall_at(mean, m, q), mu);
    if (rstd.a.data) arg_put(rstd.a, tall_at(rstd, m, q), r);
}

template <typename T, int N, bool CENTRED>
static __global__ void __launch_bounds__(ROW_THREADS) norm(Tall x, Tall gain, Tall bias, Tall y, Tall mean, Tall rstd, Normed s)
{
    mdr_begin();
    constexpr int W = WIDTH(N), AT_ONCE = N == 2 ? 2 : 1;
    const int64_t m = blockIdx.z;
    const uint32_t lane = threadIdx.x % s.lanes, teams = ROW_THREADS / s.lanes, end = (uint32_t)s.n_seq[m] * s.rows;
    const uint32_t first = blockIdx.x * ROUNDS * teams;
    if (first >= end) return;
    HeldWeight<N> weight[CENTRED ? 2 : 1];
    hold(weight[0], gain.a, m * gain.a.member, lane, s.lanes, s.pieces);
    if (CENTRED) hold(weight[CENTRED], bias.a, m * bias.a.member, lane, s.lanes, s.pieces);
    for (uint32_t q = first + threadIdx.x / s.lanes, round = 0; round < ROUNDS; round += AT_ONCE, q += AT_ONCE * teams) {
        Held<T, W, N> h[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
            if (q + u * teams < end) hold(h[u], x.a, tall_at(x, m, q + u * teams), lane, s.lanes, s.pieces);
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
            norm_row<T, N, CENTRED>(h[u], x, weight, gain, bias, y, mean, rstd, s, m, q + u * teams, q + u * teams < end);
    }
}

/* With d = g dy and xh = (x - mean) r: dx = r (d - mean(d) - xh mean(d xh)); rmsnorm has no mean(d). */
template <typename T, int N, bool CENTRED>
static __global__ void __launch_bounds__(ROW_THREADS, N ? 1 : 4) norm_grad(Tall x, Tall gain, Tall mean, Tall rstd, Tall dy, Tall dx, Normed s)
{
    mdr_begin();
    constexpr int W = WIDTH(N);
    const int64_t m = blockIdx.z;
    const uint32_t lanes = s.lanes, lane = threadIdx.x % lanes, teams = ROW_THREADS / lanes, end = (uint32_t)s.n_seq[m] * s.rows;
    const uint32_t first = blockIdx.x * ROUNDS * teams;
    const float part = 1.0f / (float)s.cols;
    if (first >= end) return;
    HeldWeight<N> weight;
    hold(weight, gain.a, m * gain.a.member, lane, lanes, s.pieces);
    for (uint32_t q = first + threadIdx.x / lanes, round = 0; round < ROUNDS; round++, q += teams) {
        const bool there = q < end;
        const uint32_t pieces = there ? s.pieces : 0;
        const int64_t x_at = there ? tall_at(x, m, q) : 0, dy_at = there ? tall_at(dy, m, q) : 0, gain_at = there ? tall_at(gain, m, q) : 0;
        Held<T, W, N> hx, hd;
        hold(hx, x.a, x_at, lane, lanes, pieces);
        hold(hd, dy.a, dy_at, lane, lanes, pieces);
        const float r = there ? arg_get(rstd.a, tall_at(rstd, m, q)) : 0.0f, mu = CENTRED && there ? arg_get(mean.a, tall_at(mean, m, q)) : 0.0f;
        float v[W], d[W], g[W], dot = 0.0f, sum = 0.0f;
        FOR_PIECES(i, k, pieces) {
            take(hx, x.a, x_at, i, k, v);
            take(hd, dy.a, dy_at, i, k, d);
            take(weight, gain.a, gain_at, i, k, g);
            for (int j = 0; j < W; j++) {
                dot += g[j] * d[j] * ((v[j] - mu) * r);
                sum += g[j] * d[j];
            }
        }
        dot = lanes_sum(dot, lanes) * part;
        sum = CENTRED ? lanes_sum(sum, lanes) * part : 0.0f;
        if (!there) continue;
        const int64_t to = tall_at(dx, m, q);
        FOR_PIECES(i, k, pieces) {
            take(hx, x.a, x_at, i, k, v);
            take(hd, dy.a, dy_at, i, k, d);
            take(weight, gain.a, gain_at, i, k, g);
            for (int j = 0; j < W; j++) v[j] = r * (g[j] * d[j] - sum - (v[j] - mu) * r * dot);
            write<T, W>(dx.a, to + (int64_t)k * W, v);
        }
    }
}

/* Sums over a chunk of rows: a thread has one piece of the columns and every slots-th row; blockIdx.y: the slab of columns, at most
 * DW_PIECES pieces wide. part: [member][chunk][cols]. */
struct Slabs { uint32_t pieces, wide; };
template <typename T, int W, bool CENTRED>
static __global__ void __launch_bounds__(ROW_THREADS) norm_dw(Tall x, Tall mean, Tall rstd, Tall dy, Cut cut, const int32_t *n_seq, Slabs slabs, float *part)
{
    mdr_begin();
    MDR_SHARED(float, shared);                                        /* [slots][wide W]                                    */
    const int64_t m = blockIdx.z;
    const uint32_t lane = threadIdx.x % slabs.wide, slot = threadIdx.x / slabs.wide, slots = ROW_THREADS / slabs.wide;
    const uint32_t piece = blockIdx.y * slabs.wide + lane, cols = slabs.pieces * W, wide = slabs.wide * W;
    const bool works = slot < slots && piece < slabs.pieces;
    uint32_t from, to;
    if (!cut_range(cut, n_seq, m, blockIdx.x, &from, &to)) return;
    float sum[W] = {};
    for (uint32_t q = from + slot; works && q < to; q += DW_AT_ONCE * slots) {
        Piece<T, W> px[DW_AT_ONCE], pd[DW_AT_ONCE];
        float r[DW_AT_ONCE], mu[DW_AT_ONCE];
#pragma unroll
        for (int u = 0; u < DW_AT_ONCE; u++) {
            const uint32_t row = q + u * slots < to ? q + u * slots : q;             /* beyond the end: read, not added    */
            read(px[u], x.a, tall_at(x, m, row) + piece * W);
            read(pd[u], dy.a, tall_at(dy, m, row) + piece * W);
            r[u] = arg_get(rstd.a, tall_at(rstd, m, row));
            mu[u] = CENTRED ? arg_get(mean.a, tall_at(mean, m, row)) : 0.0f;
        }
#pragma unroll
        for (int u = 0; u < DW_AT_ONCE; u++) {
            if (q + u * slots >= to) break;
            float v[W], d[W];
            open(px[u], v);
            open(pd[u], d);
#pragma unroll
            for (int j = 0; j < W; j++) sum[j] += d[j] * ((v[j] - mu[u]) * r[u]);
        }
    }
    if (slot < slots)
        for (int j = 0; j < W; j++) shared[slot * wide + lane * W + j] = sum[j];
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < wide && blockIdx.y * wide + k < cols; k += ROW_THREADS) {
        float total = 0.0f;
        for (uint32_t i = 0; i < slots; i++) total += shared[i * wide + k];
        part[(m * cut.count + blockIdx.x) * cols + blockIdx.y * wide + k] = total;
    }
}

/* ---- choosing ---- */
/* Seven variants: rows that are not held; then of bf16 and of float in up to 2, 4 and 8 pieces a lane. */
static int variant(Kind kind, int64_t cols)
{
    const int64_t pieces = cols / 8;
    return kind == ANY || pieces > 256 ? 0 : (kind == BF16 ? 1 : 4) + (pieces <= 64 ? 0 : pieces <= 128 ? 1 : 2);
}
static Normed normed(const Call *c, int v)
{
    const Shape x = c->node->in_type[0].shape;
    const int64_t cols = mdr_cols(x), pieces = v ? cols / 8 : cols, held = v % 3 == 1 ? 2 : v % 3 == 2 ? 4 : 8;
    return Normed{c->n_seq, (uint32_t)mdr_rows(x), (uint32_t)cols, (uint32_t)pieces, v ? lanes_for(pieces, held) : 32, 0.0f};
}
static dim3 norm_grid(const Call *c, const Normed &s)
{
    return mdr_grid(mdr_ceil_div((int64_t)c->extent.n_seq * s.rows, ROUNDS * (ROW_THREADS / s.lanes)), 1, c->extent.n_member);
}
/* Can gains and biases be held? */
static bool plain_weight(const Arg &a) { return a.size == 4 && a.seq == 0 && (uintptr_t)a.data % 16 == 0 && a.member % 4 == 0; }

typedef void NormFn(Tall x, Tall gain, Tall bias, Tall y, Tall mean, Tall rstd, Normed s);
template <bool CENTRED> static void run_norm(const Call *c, int64_t, int64_t)
{
    static NormFn *const variants[] = {norm<any_real, 0, CENTRED>, norm<bf16, 2, CENTRED>, norm<bf16, 4, CENTRED>, norm<bf16, 8, CENTRED>,
                                       norm<float, 2, CENTRED>, norm<float, 4, CENTRED>, norm<float, 8, CENTRED>};
    const Arg none = {}, big[] = {c->in[0], c->out[0]}, bias = CENTRED ? c->in[2] : none, mean = CENTRED ? c->out[1] : none, rstd = c->out[CENTRED ? 2 : 1];
    const int64_t cols = mdr_cols(c->node->in_type[0].shape), rows = mdr_rows(c->node->in_type[0].shape);
    const int32_t n = c->extent.n_seq;
    const int v = plain_weight(c->in[1]) && (!CENTRED || plain_weight(bias)) ? variant(kind_of(cols, 8, 2, big), cols) : 0;
    Normed s = normed(c, v);
    s.eps = (float)((const NormAttr *)c->node->attr)->eps;
    NormFn *const kernel = variants[v];
    MDR_LAUNCH(kernel, norm_grid(c, s), ROW_THREADS, 0, c->stream, tall(big[0], rows, n), tall_shared(c->in[1], rows, n), tall_shared(bias, rows, n),
               tall(big[1], rows, n), tall_column(mean, rows, n), tall_column(rstd, rows, n), s);
}
template <bool CENTRED> static void run_norm_grad(const Call *c, int64_t, int64_t)
{
    static NormFn *const variants[] = {norm_grad<any_real, 0, CENTRED>, norm_grad<bf16, 2, CENTRED>, norm_grad<bf16, 4, CENTRED>, norm_grad<bf16, 8, CENTRED>,
                                       norm_grad<float, 2, CENTRED>, norm_grad<float, 4, CENTRED>, norm_grad<float, 8, CENTRED>};
    const Arg none = {}, big[] = {c->in[0], c->in[CENTRED ? 4 : 3], c->out[0]}, mean = CENTRED ? c->in[2] : none, rstd = c->in[CENTRED ? 3 : 2];
    const int64_t cols = mdr_cols(c->node->in_type[0].shape), rows = mdr_rows(c->node->in_type[0].shape);
    const int32_t n = c->extent.n_seq;
    const int v = plain_weight(c->in[1]) ? variant(kind_of(cols, 8, 3, big), cols) : 0;
    const Normed s = normed(c, v);
    NormFn *const kernel = variants[v];
    MDR_LAUNCH(kernel, norm_grid(c, s), ROW_THREADS, 0, c->stream, tall(big[0], rows, n), tall_shared(c->in[1], rows, n), tall_column(mean, rows, n),
               tall_column(rstd, rows, n), tall(big[1], rows, n), tall(big[2], rows, n), s);
}

static Slabs slabs_of(int64_t cols, int64_t w)
{
    const int64_t pieces = cols / w, n = mdr_ceil_div(pieces, DW_PIECES);
    return Slabs{(uint32_t)pieces, (uint32_t)mdr_ceil_div(pieces, n)};
}
typedef void DwFn(Tall x, Tall mean, Tall rstd, Tall dy, Cut cut, const int32_t *n_seq, Slabs slabs, float *part);
template <bool CENTRED> static void run_norm_dw(const Call *c, int64_t, int64_t)
{
    static DwFn *const kinds[] = {norm_dw<any_real, 1, CENTRED>, norm_dw<bf16, 8, CENTRED>, norm_dw<float, 8, CENTRED>};
    const Arg none = {}, big[] = {c->in[0], c->in[CENTRED ? 3 : 2]}, mean = CENTRED ? c->in[1] : none, rstd = c->in[CENTRED ? 2 : 1];
    const int64_t cols = mdr_cols(c->node->in_type[0].shape), rows = mdr_rows(c->node->in_type[0].shape);
    const int32_t n = c->extent.n_seq;
    const Kind kind = kind_of(cols, 8, 2, big);
    const int w = kind == ANY ? 1 : 8;
    const Slabs slabs = slabs_of(cols, w);
    const Cut cut = cut_rows(rows, n, c->add & 1u, LEAST_ROWS, MOST_CHUNKS);
    float *part = (float *)c->scratch;
    DwFn *const kernel = kinds[kind];
    MDR_LAUNCH(kernel, mdr_grid(cut.count, mdr_ceil_div(slabs.pieces, slabs.wide), c->extent.n_member), ROW_THREADS, ROW_THREADS * w * sizeof(float),
               c->stream, tall(big[0], rows, n), tall_column(mean, rows, n), tall_column(rstd, rows, n), tall(big[1], rows, n), cut, c->n_seq, slabs, part);
    const Call last = mdr_beside(c, 1);
    enqueue_add_chunks(&last, part, cut, cols, cols);
}
static size_t dw_scratch(const Node *n, Extent e)
{
    const Shape x = n->in_type[0].shape;
    return (size_t)(cut_room(mdr_rows(x), e, LEAST_ROWS, MOST_CHUNKS) * mdr_cols(x)) * sizeof(float);
}

extern "C" const CudaRow mdr_cuda_rows_norm[] = {
    {"rmsnorm", {run_norm<false>, NULL, NULL, {}}, NULL, 0, 1u << 1},
    {"rmsnorm_grad", {run_norm_grad<false>, NULL, NULL, {}}, NULL, 1u << 2, 0},
    {"rmsnorm_dw", {run_norm_dw<false>, NULL, dw_scratch, {}}, NULL, 1u << 1, 0},
    {"layernorm", {run_norm<true>, NULL, NULL, {}}, NULL, 0, 3u << 1},
    {"layernorm_grad", {run_norm_grad<true>, NULL, NULL, {}}, NULL, 3u << 2, 0},
    {"layernorm_dw", {run_norm_dw<true>, NULL, dw_scratch, {}}, NULL, 3u << 1, 0},
    {}};
