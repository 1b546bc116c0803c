/* ce, ce_grad and class_counts on the GPU (ce.c says what is computed). A team of lanes, or a block, holds a row of logits in
 * registers; rows too long or odd for that are read again. Logits are floats; losses are summed as doubles, counts as integers. */
#include "op/cuda_rows.h"

static constexpr int ROUNDS = 2, WARPS = ROW_THREADS / 32, LEAST_ROWS = 64, MOST_CHUNKS = 128, CLASSES = 8192;

/* N, BLOCK: N pieces of four logits a lane, of a team or of the whole block; N = 0: a warp reads one by one. */
#define WIDTH(N) ((N) > 0 ? 4 : 1)
template <int N> struct Logits { typedef float type; };
template <> struct Logits<0> { typedef any_real type; };
template <int N> using Row = Held<typename Logits<N>::type, WIDTH(N), N>;

struct Classes { const int32_t *n_seq; uint32_t rows, cols, pieces, lanes; };

template <bool BLOCK> static __device__ __forceinline__ float team_max(float x, uint32_t lanes, float *shared)
{
    for (uint32_t d = (BLOCK ? 32 : lanes) / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, (int)d));
    if (!BLOCK) return x;
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) x = fmaxf(x, shared[i]);
    return x;
}
template <bool BLOCK> static __device__ __forceinline__ float team_sum(float x, uint32_t lanes, float *shared)
{
    x = lanes_sum(x, BLOCK ? 32 : lanes);
    if (!BLOCK) return x;
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0f;
    for (int i = 0; i < WARPS; i++) x += shared[i];
    return x;
}
/* The largest logit of a row and the sum of exp(x - largest). */
template <int N, bool BLOCK>
static __device__ __forceinline__ void soften(const Row<N> &h, const Arg &x, int64_t at, uint32_t pieces, uint32_t lane, uint32_t lanes, float *shared,
                                              float *top, float *sum)
{
    constexpr int W = WIDTH(N);
    float v[W], most = -INFINITY, all = 0.0f;
    FOR_PIECES(i, k, pieces) {
        take(h, x, at, i, k, v);
        for (int j = 0; j < W; j++) most = fmaxf(most, v[j]);
    }
    most = team_max<BLOCK>(most, lanes, shared);
    FOR_PIECES(i, k, pieces) {
        take(h, x, at, i, k, v);
        for (int j = 0; j < W; j++) all += expf(v[j] - most);
    }
    *sum = team_sum<BLOCK>(all, lanes, shared);
    *top = most;
}

template <int N, bool BLOCK>
static __global__ void __launch_bounds__(ROW_THREADS) ce(Tall x, Tall target, Tall inv, Classes s, Cut cut, double *part)
{
    mdr_begin();
    MDR_SHARED(double, shared);                                       /* [WARPS]                                            */
    const int64_t m = blockIdx.z;
    const uint32_t lanes = BLOCK ? ROW_THREADS : s.lanes, lane = threadIdx.x % lanes, teams = ROW_THREADS / lanes;
    double loss = 0.0;
    uint32_t from, to;
    if (!cut_range(cut, s.n_seq, m, blockIdx.x, &from, &to)) return;
    for (uint32_t q0 = from; q0 < to; q0 += teams) {
        const uint32_t q = q0 + threadIdx.x / lanes, pieces = q < to ? s.pieces : 0;
        const int64_t at = q < to ? tall_at(x, m, q) : 0;
        const int32_t wanted = q < to ? ((const int32_t *)target.a.data)[tall_at(target, m, q)] : -1;
        float top, sum;
        Row<N> h;
        if (BLOCK && wanted < 0) continue;
        hold(h, x.a, at, lane, lanes, pieces);
        soften<N, BLOCK>(h, x.a, at, pieces, lane, lanes, (float *)shared, &top, &sum);
        if (wanted < 0 || lane != 0) continue;
        loss += (log((double)sum) + (double)top - (double)arg_get(x.a, at + wanted)) * (double)arg_get(inv.a, tall_at(inv, m, q));
    }
    for (int d = 16; d > 0; d /= 2) loss += __shfl_xor_sync(0xffffffffu, loss, d);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = loss;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < WARPS; i++) loss += shared[i];
    part[m * cut.count + blockIdx.x] = loss;
}

/* dx may be x: a lane has read what it overwrites. */
template <typename T, int N, bool BLOCK>
static __global__ void __launch_bounds__(ROW_THREADS) ce_grad(Tall x, Tall target, Tall inv, Tall dloss, Tall dx, Classes s)
{
    mdr_begin();
    constexpr int W = WIDTH(N);
    MDR_SHARED(float, shared);                                        /* [WARPS]                                            */
    const int64_t m = blockIdx.z;
    const uint32_t lanes = BLOCK ? ROW_THREADS : s.lanes, lane = threadIdx.x % lanes, teams = ROW_THREADS / lanes;
    const uint32_t end = (uint32_t)s.n_seq[m] * s.rows, first = blockIdx.x * ROUNDS * teams;
    for (uint32_t q0 = first; q0 < end && q0 < first + ROUNDS * teams; q0 += teams) {
        const uint32_t q = q0 + threadIdx.x / lanes, pieces = q < end ? s.pieces : 0;
        const int64_t at = q < end ? tall_at(x, m, q) : 0, to = q < end ? tall_at(dx, m, q) : 0;
        const int32_t wanted = q < end ? ((const int32_t *)target.a.data)[tall_at(target, m, q)] : -1;
        float top = 0.0f, sum = 1.0f, v[W];
        Row<N> h;
        if (!BLOCK || wanted >= 0) {
            hold(h, x.a, at, lane, lanes, pieces);
            soften<N, BLOCK>(h, x.a, at, pieces, lane, lanes, shared, &top, &sum);
        }
        const float scale = wanted >= 0 ? arg_get(inv.a, tall_at(inv, m, q)) * arg_get(dloss.a, tall_at(dloss, m, q)) : 0.0f, share = 1.0f / sum;
        FOR_PIECES(i, k, pieces) {
            if (wanted >= 0) take(h, x.a, at, i, k, v);
            for (int j = 0; j < W; j++) v[j] = wanted < 0 ? 0.0f : (expf(v[j] - top) * share - (k * W + j == (uint32_t)wanted ? 1.0f : 0.0f)) * scale;
            write<T, W>(dx.a, to + (int64_t)k * W, v);
        }
    }
}

/* The first largest logit of a row, in every lane; 0 if there is none (NaNs). */
struct Best { float top; uint32_t at; };
static __device__ __forceinline__ void better(Best *a, float top, uint32_t at)
{
    if (top > a->top || (top == a->top && at < a->at)) *a = Best{top, at};
}
template <int N, bool BLOCK>
static __device__ __forceinline__ uint32_t predict(const Row<N> &h, const Arg &x, int64_t at, uint32_t pieces, uint32_t lane, uint32_t lanes, Best *shared)
{
    constexpr int W = WIDTH(N);
    Best best = {-INFINITY, UINT32_MAX};
    float v[W];
    FOR_PIECES(i, k, pieces) {
        take(h, x, at, i, k, v);
        for (int j = 0; j < W; j++)
            if (v[j] > best.top) best = Best{v[j], k * W + j};
    }
    for (uint32_t d = (BLOCK ? 32 : lanes) / 2; d > 0; d /= 2) {
        const float top = __shfl_xor_sync(0xffffffffu, best.top, (int)d);
        better(&best, top, __shfl_xor_sync(0xffffffffu, best.at, (int)d));
    }
    if (BLOCK) {
        __syncthreads();
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
        __syncthreads();
        for (int i = 0; i < WARPS; i++) better(&best, shared[i].top, shared[i].at);
    }
    return best.at == UINT32_MAX ? 0 : best.at;
}

/* blockIdx.y: a slab of CLASSES classes. part: [member][chunk][3][cols]. */
template <int N, bool BLOCK> static __global__ void __launch_bounds__(ROW_THREADS) class_counts(Tall x, Tall target, Classes s, Cut cut, uint32_t *part)
{
    mdr_begin();
    MDR_SHARED(Best, shared);                                         /* [WARPS], then the counts [3][here]                 */
    uint32_t *count = (uint32_t *)(shared + WARPS);
    const int64_t m = blockIdx.z;
    const uint32_t lanes = BLOCK ? ROW_THREADS : s.lanes, lane = threadIdx.x % lanes, teams = ROW_THREADS / lanes;
    const uint32_t first = blockIdx.y * CLASSES, here = s.cols - first < CLASSES ? s.cols - first : CLASSES;
    uint32_t from, to;
    if (!cut_range(cut, s.n_seq, m, blockIdx.x, &from, &to)) return;
    for (uint32_t k = threadIdx.x; k < 3 * here; k += ROW_THREADS) count[k] = 0;
    __syncthreads();
    for (uint32_t q0 = from; q0 < to; q0 += teams) {
        const uint32_t q = q0 + threadIdx.x / lanes, pieces = q < to ? s.pieces : 0;
        const int64_t at = q < to ? tall_at(x, m, q) : 0;
        const int32_t wanted = q < to ? ((const int32_t *)target.a.data)[tall_at(target, m, q)] : -1;
        Row<N> h;
        if (BLOCK && wanted < 0) continue;
        hold(h, x.a, at, lane, lanes, pieces);
        const uint32_t best = predict<N, BLOCK>(h, x.a, at, pieces, lane, lanes, shared) - first, want = (uint32_t)wanted - first;
        if (wanted < 0 || lane != 0) continue;
        if (want < here) atomicAdd(count + want, 1u);
        if (best < here) atomicAdd(count + here + best, 1u);
        if (best == want && best < here) atomicAdd(count + 2 * here + best, 1u);
    }
    __syncthreads();
    part += (m * cut.count + blockIdx.x) * 3 * s.cols + first;
    for (uint32_t k = threadIdx.x; k < 3 * here; k += ROW_THREADS) part[k / here * s.cols + k % here] = count[k];
}

/* ---- choosing ---- */
/* 0: rows that are not held; 1: a team, up to 128 classes; 2: a warp, up to 1,024; 3: a block, up to 8,192. */
static int variant(const Arg &x, int64_t cols)
{
    return kind_of(cols, 4, 1, &x) != FLOAT || cols > 8192 ? 0 : cols <= 128 ? 1 : cols <= 1024 ? 2 : 3;
}
static Classes classes(const Call *c, int v)
{
    const Shape x = c->node->in_type[0].shape;
    const int64_t cols = mdr_cols(x), pieces = v ? cols / 4 : cols;
    return Classes{c->n_seq, (uint32_t)mdr_rows(x), (uint32_t)cols, (uint32_t)pieces, v == 0 ? 32 : lanes_for(pieces, v == 1 ? 1 : 8)};
}

typedef void CeFn(Tall x, Tall target, Tall inv, Classes s, Cut cut, double *part);
static void run_ce(const Call *c, int64_t, int64_t)
{
    static CeFn *const variants[] = {ce<0, false>, ce<1, false>, ce<8, false>, ce<8, true>};
    const int v = variant(c->in[0], mdr_cols(c->node->in_type[0].shape));
    const Classes s = classes(c, v);
    const int32_t n = c->extent.n_seq;
    const Cut cut = cut_rows(s.rows, n, c->add & 1u, LEAST_ROWS, MOST_CHUNKS);
    double *part = (double *)c->scratch;
    CeFn *const kernel = variants[v];
    MDR_LAUNCH(kernel, mdr_grid(cut.count, 1, c->extent.n_member), ROW_THREADS, WARPS * sizeof(double), c->stream, tall(c->in[0], s.rows, n),
               tall_column(c->in[1], s.rows, n), tall_shared(c->in[2], s.rows, n), s, cut, part);
    const Call last = mdr_beside(c, 1);
    enqueue_add_chunks(&last, part, cut, 1, 1);
}
static size_t ce_scratch(const Node *n, Extent e)
{
    return (size_t)cut_room(mdr_rows(n->in_type[0].shape), e, LEAST_ROWS, MOST_CHUNKS) * sizeof(double);
}

typedef void GradFn(Tall x, Tall target, Tall inv, Tall dloss, Tall dx, Classes s);
static void run_ce_grad(const Call *c, int64_t, int64_t)
{
    static GradFn *const variants[3][4] = {{ce_grad<any_real, 0, false>},
                                           {NULL, ce_grad<bf16, 1, false>, ce_grad<bf16, 8, false>, ce_grad<bf16, 8, true>},
                                           {NULL, ce_grad<float, 1, false>, ce_grad<float, 8, false>, ce_grad<float, 8, true>}};
    const Arg dx = c->out[0];
    const int64_t cols = mdr_cols(c->node->in_type[0].shape);
    const int32_t n = c->extent.n_seq;
    const Kind to = variant(c->in[0], cols) ? kind_of(cols, 4, 1, &dx) : ANY;
    const int v = to == ANY ? 0 : variant(c->in[0], cols);
    const Classes s = classes(c, v);
    const int64_t at_once = ROUNDS * (v == 3 ? 1 : ROW_THREADS / s.lanes);
    GradFn *const kernel = variants[to][v];
    MDR_LAUNCH(kernel, mdr_grid(mdr_ceil_div((int64_t)n * s.rows, at_once), 1, c->extent.n_member), ROW_THREADS, WARPS * sizeof(float), c->stream,
               tall(c->in[0], s.rows, n), tall_column(c->in[1], s.rows, n), tall_shared(c->in[2], s.rows, n), tall_shared(c->in[3], s.rows, n),
               tall(dx, s.rows, n), s);
}

typedef void CountFn(Tall x, Tall target, Classes s, Cut cut, uint32_t *part);
static void run_class_counts(const Call *c, int64_t, int64_t)
{
    static CountFn *const variants[] = {class_counts<0, false>, class_counts<1, false>, class_counts<8, false>, class_counts<8, true>};
    const int v = variant(c->in[0], mdr_cols(c->node->in_type[0].shape));
    const Classes s = classes(c, v);
    const int32_t n = c->extent.n_seq;
    const Cut cut = cut_rows(s.rows, n, c->add & 1u, LEAST_ROWS, MOST_CHUNKS);
    const size_t bytes = WARPS * sizeof(Best) + 3 * sizeof(uint32_t) * (s.cols < CLASSES ? s.cols : CLASSES);
    uint32_t *part = (uint32_t *)c->scratch;
    CountFn *const kernel = variants[v];
    MDR_ALLOW_SHARED(kernel, bytes);
    MDR_LAUNCH(kernel, mdr_grid(cut.count, mdr_ceil_div(s.cols, CLASSES), c->extent.n_member), ROW_THREADS, bytes, c->stream, tall(c->in[0], s.rows, n),
               tall_column(c->in[1], s.rows, n), s, cut, part);
    enqueue_add_chunks(c, part, cut, 3 * (int64_t)s.cols, s.cols);
}
static size_t counts_scratch(const Node *n, Extent e)
{
    return (size_t)(cut_room(mdr_rows(n->in_type[0].shape), e, LEAST_ROWS, MOST_CHUNKS) * 3 * mdr_cols(n->in_type[0].shape)) * sizeof(uint32_t);
}

extern "C" const CudaRow mdr_cuda_rows_ce[] = {{"ce", {run_ce, NULL, ce_scratch, {}}, NULL, 1u, 0},
                                               {"ce_grad", {run_ce_grad, NULL, NULL, {}}, NULL, 1u, 0},
                                               {"class_counts", {run_class_counts, NULL, counts_scratch, {}}, NULL, 1u, 0},
                                               {}};
