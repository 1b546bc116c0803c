/* conv_short and its gradients on CUDA. All are bound by memory: a thread slides over rows of 8 neighbouring columns with the rows that
 * its taps meet in registers.
 *   y   reads x once (its tiles' threads stand side by side: all but the first find it in a cache), writes y once
 *   dx  reads dy once and a part of its rows again, from a cache
 *   dw  reads x and dy once; chunks of rows, added up by a second stage (cuda_chunks.h) */
#include "op/cuda_chunks.h"
#include "op/cuda_eight.h"

enum { Y_ROWS = 32, THREADS = 128 };
struct Short {
    Arg x, w, bias, y;                                     /* y: or dy                                                               */
    const int32_t *n_seq;
    int32_t rows, cols, cols_x, taps, pieces;              /* pieces: of rows, of one sequence                                       */
};

/* w[j][..]: what meets the row j back; 0 past the last tap. */
template <int SIZE, int TAPS> static __device__ __forceinline__ void load_taps(const Short &a, int32_t m, int32_t s, int32_t c, float (*w)[COLUMNS<SIZE>])
{
#pragma unroll
    for (int j = 0; j < TAPS; j++)
#pragma unroll
        for (int i = 0; i < COLUMNS<SIZE>; i++) w[j][i] = j < a.taps ? arg_get(a.w, arg_row(a.w, m, s, a.taps - 1 - j) + c + i) : 0.0f;
}
/* This thread's sequence, piece of rows and first column, out of `cols` columns; false: none. */
struct Part { int32_t s, piece, c; };
template <int SIZE> static __device__ __forceinline__ bool find_part(const Short &a, int32_t cols, Part *p)
{
    const uint32_t wide = (uint32_t)cols / COLUMNS<SIZE>, i = blockIdx.x * blockDim.x + threadIdx.x, q = i / wide;
    p->c = (int32_t)(i - q * wide) * COLUMNS<SIZE>;
    p->s = (int32_t)(q / (uint32_t)a.pieces);
    p->piece = (int32_t)q - p->s * a.pieces;
    return p->s < a.n_seq[blockIdx.z];
}

template <int SIZE, int TAPS> static __global__ __launch_bounds__(THREADS) void short_y(Short a)
{
    constexpr int N = COLUMNS<SIZE>, BATCH = TAPS > 4 ? 1 : 4;
    const int32_t m = (int32_t)blockIdx.z;
    Part p;
    if (!find_part<SIZE>(a, a.cols, &p)) return;
    float w[TAPS][N], bias[N], x[TAPS - 1 + BATCH][N];
    load_taps<SIZE, TAPS>(a, m, p.s, p.c, w);
#pragma unroll
    for (int i = 0; i < N; i++) bias[i] = a.bias.data ? arg_get(a.bias, m * a.bias.member + p.s * a.bias.seq + p.c + i) : 0.0f;
    const int32_t t0 = p.piece * Y_ROWS, t1 = t0 + Y_ROWS < a.rows ? t0 + Y_ROWS : a.rows;
    const int64_t from = arg_row(a.x, m, p.s, 0) + p.c % a.cols_x, to = arg_row(a.y, m, p.s, 0) + p.c;
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) {
        zero<N>(x[k]);
        if (t0 - TAPS + 1 + k >= 0) load<SIZE>(a.x, from + (t0 - TAPS + 1 + k) * a.x.ld, x[k]);
    }
    for (int32_t t = t0; t < t1; t += BATCH) {
#pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (t + b < t1) load<SIZE>(a.x, from + (t + b) * a.x.ld, x[TAPS - 1 + b]);
            else zero<N>(x[TAPS - 1 + b]);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            float v[N];
#pragma unroll
            for (int i = 0; i < N; i++) {
                v[i] = bias[i];
#pragma unroll
                for (int j = 0; j < TAPS; j++) v[i] = fmaf(w[j][i], x[TAPS - 1 + b - j][i], v[i]);
            }
            if (t + b < t1) store<SIZE>(a.y, to + (t + b) * a.y.ld, v);
        }
#pragma unroll
        for (int k = 0; k < TAPS - 1; k++)
#pragma unroll
            for (int i = 0; i < N; i++) x[k][i] = x[k + BATCH][i];
    }
}

/* x: where dx goes. */
template <int TAPS> constexpr int DX_ROWS = TAPS > 4 ? 4 : 8;
template <int SIZE, int TAPS> static __global__ __launch_bounds__(THREADS) void short_dx(Short a)
{
    constexpr int N = COLUMNS<SIZE>, R = DX_ROWS<TAPS>;
    const int32_t m = (int32_t)blockIdx.z;
    Part p;
    if (!find_part<SIZE>(a, a.cols_x, &p)) return;
    const int32_t t0 = p.piece * R;
    float sum[R][N];
#pragma unroll
    for (int r = 0; r < R; r++) zero<N>(sum[r]);
    for (int32_t c = p.c; c < a.cols; c += a.cols_x) {
        float w[TAPS][N];
        load_taps<SIZE, TAPS>(a, m, p.s, c, w);
        const int64_t from = arg_row(a.y, m, p.s, t0) + c;
#pragma unroll
        for (int r = 0; r < R + TAPS - 1; r++) {
            float dy[N];
            zero<N>(dy);
            if (t0 + r < a.rows) load<SIZE>(a.y, from + r * a.y.ld, dy);
#pragma unroll
            for (int j = 0; j < TAPS; j++) {
                if (r - j < 0 || r - j >= R) continue;
#pragma unroll
                for (int i = 0; i < N; i++) sum[r - j][i] = fmaf(w[j][i], dy[i], sum[r - j][i]);
            }
        }
    }
    const int64_t to = arg_row(a.x, m, p.s, t0) + p.c;
#pragma unroll
    for (int r = 0; r < R; r++)
        if (t0 + r < a.rows) store<SIZE>(a.x, to + r * a.x.ld, sum[r]);
}

/* Rows [t0, t1) of one sequence into sum[j] = sum_t dy[t] x[t - j]. */
template <int SIZE, int TAPS>
static __device__ __forceinline__ void add_rows(const Short &a, int64_t x_at, int64_t dy_at, int32_t t0, int32_t t1, float (*sum)[COLUMNS<SIZE>])
{
    constexpr int N = COLUMNS<SIZE>, BATCH = TAPS > 4 ? 1 : 4;
    float x[TAPS - 1 + BATCH][N], dy[BATCH][N];
#pragma unroll
    for (int k = 0; k < TAPS - 1; k++) {
        zero<N>(x[k]);
        if (t0 - TAPS + 1 + k >= 0) load<SIZE>(a.x, x_at + (t0 - TAPS + 1 + k) * a.x.ld, x[k]);
    }
    for (int32_t t = t0; t < t1; t += BATCH) {
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            zero<N>(x[TAPS - 1 + b]);
            zero<N>(dy[b]);
            if (t + b >= t1) continue;
            load<SIZE>(a.x, x_at + (t + b) * a.x.ld, x[TAPS - 1 + b]);
            load<SIZE>(a.y, dy_at + (t + b) * a.y.ld, dy[b]);
        }
#pragma unroll
        for (int b = 0; b < BATCH; b++)
#pragma unroll
            for (int j = 0; j < TAPS; j++)
#pragma unroll
                for (int i = 0; i < N; i++) sum[j][i] = fmaf(dy[b][i], x[TAPS - 1 + b - j][i], sum[j][i]);
#pragma unroll
        for (int k = 0; k < TAPS - 1; k++)
#pragma unroll
            for (int i = 0; i < N; i++) x[k][i] = x[k + BATCH][i];
    }
}
/* Block: 32 times N columns, a chunk of rows that its 8 slots share. part: [member][chunk][taps][cols]. */
template <int SIZE, int TAPS> static __global__ __launch_bounds__(WIDE *SLOTS) void short_dw(Short a, Cut k, float *part)
{
    MDR_SHARED(float, shared);
    constexpr int N = COLUMNS<SIZE>;
    const int32_t m = (int32_t)blockIdx.z, c0 = (int32_t)blockIdx.x * WIDE * N, c = c0 + (int32_t)threadIdx.x % WIDE * N;
    uint32_t begin, end;
    if (!cut_range(k, a.n_seq, m, blockIdx.y, &begin, &end)) return;
    int64_t first = begin, last = end;
    const int64_t share = (last - first + SLOTS - 1) / SLOTS;
    first += share * (threadIdx.x / WIDE);
    if (first + share < last) last = first + share;
    float sum[TAPS][N];
#pragma unroll
    for (int j = 0; j < TAPS; j++) zero<N>(sum[j]);
    while (c < a.cols && first < last) {
        const int32_t s = (int32_t)(first / a.rows), t0 = (int32_t)(first - (int64_t)s * a.rows);
        const int32_t t1 = t0 + (last - first) < a.rows ? (int32_t)(t0 + (last - first)) : a.rows;
        add_rows<SIZE, TAPS>(a, arg_row(a.x, m, s, 0) + c % a.cols_x, arg_row(a.y, m, s, 0) + c, t0, t1, sum);
        first += t1 - t0;
    }
    const int32_t mine = c0 + (int32_t)threadIdx.x;
    float *to = part + (((int64_t)m * k.count + blockIdx.y) * a.taps) * a.cols + mine;
#pragma unroll
    for (int j = 0; j < TAPS; j++) {
        const float v = add_slots<SIZE>(shared, sum[j]);
        if (j < a.taps && (int)threadIdx.x < WIDE * N && mine < a.cols) to[(int64_t)(a.taps - 1 - j) * a.cols] = v;
    }
}

/* ---- choosing ---- */
enum Kind { KIND_Y, KIND_DX, KIND_DW };
template <int SIZE, int TAPS> static void launch(const Call *c, Kind kind, Short a, const Cut *k)
{
    const int32_t members = c->extent.n_member, n_seq = c->extent.n_seq;
    if (kind == KIND_DW) {
        MDR_LAUNCH((short_dw<SIZE, TAPS>), mdr_grid(mdr_ceil_div(a.cols, WIDE * COLUMNS<SIZE>), k->count, members), WIDE * SLOTS,
                   WIDE * SLOTS * COLUMNS<SIZE> * sizeof(float), c->stream, a, *k, (float *)c->scratch);
        return;
    }
    a.pieces = (int32_t)mdr_ceil_div(a.rows, kind == KIND_Y ? (int)Y_ROWS : DX_ROWS<TAPS>);
    const int64_t all = (int64_t)(kind == KIND_Y ? a.cols : a.cols_x) / COLUMNS<SIZE> * a.pieces * n_seq;
    const dim3 grid = mdr_grid(mdr_ceil_div(all, THREADS), 1, members);
    if (kind == KIND_Y) MDR_LAUNCH((short_y<SIZE, TAPS>), grid, THREADS, 0, c->stream, a);
    else MDR_LAUNCH((short_dx<SIZE, TAPS>), grid, THREADS, 0, c->stream, a);
}
static void choose(const Call *c, Kind kind, const Short &a, const Cut *k)
{
    const int64_t size = a.x.size;
    const bool fast = (size == 2 || size == 4) && by_eight(a.x, a.cols_x, size) && by_eight(a.y, a.cols, size);
    if (!fast) launch<0, 8>(c, kind, a, k);
    else if (a.taps <= 3 && size == 2) launch<2, 3>(c, kind, a, k);
    else if (a.taps <= 3) launch<4, 3>(c, kind, a, k);
    else if (a.taps <= 4 && size == 2) launch<2, 4>(c, kind, a, k);
    else if (a.taps <= 4) launch<4, 4>(c, kind, a, k);
    else if (size == 2) launch<2, 8>(c, kind, a, k);
    else launch<4, 8>(c, kind, a, k);
}

static void conv_short(const Call *c, int64_t, int64_t)
{
    const Shape x = c->node->in_type[0].shape, w = c->node->in_type[1].shape;
    choose(c, KIND_Y, Short{c->in[0], c->in[1], c->node->n_in > 2 ? c->in[2] : Arg(), c->out[0], c->n_seq, x.d[0], w.d[1], x.d[1], w.d[0], 0}, NULL);
}
static void conv_short_dx(const Call *c, int64_t, int64_t)
{
    const Shape dy = c->node->in_type[0].shape, w = c->node->in_type[1].shape;
    choose(c, KIND_DX, Short{c->out[0], c->in[1], Arg(), c->in[0], c->n_seq, dy.d[0], dy.d[1], c->node->out[0].shape.d[1], w.d[0], 0}, NULL);
}

/* Chunks for some 500 blocks with a batch alone, of at least 64 rows. */
enum { DW_LEAST = 64 };
static int64_t dw_most(const Node *n) { return mdr_ceil_div(512, mdr_ceil_div(n->in_type[1].shape.d[1], 8 * WIDE)); }
static size_t dw_scratch(const Node *n, Extent e)
{
    return sizeof(float) * (size_t)(mdr_numel(n->out[0].shape) * cut_room(n->in_type[1].shape.d[0], e, DW_LEAST, dw_most(n)));
}
static void conv_short_dw(const Call *c, int64_t, int64_t)
{
    const Shape x = c->node->in_type[0].shape, dy = c->node->in_type[1].shape, w = c->node->out[0].shape;
    const Cut k = cut_rows(dy.d[0], c->extent.n_seq, (c->add & 1u) != 0, DW_LEAST, dw_most(c->node));
    choose(c, KIND_DW, Short{c->in[0], Arg(), Arg(), c->in[1], c->n_seq, x.d[0], dy.d[1], x.d[1], w.d[0], 0}, &k);
    enqueue_add_chunks(c, (const float *)c->scratch, k, mdr_numel(w), w.d[1]);
}

extern "C" const CudaRow mdr_cuda_rows_conv_short[] = {{"conv_short", {conv_short, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"conv_short_dx", {conv_short_dx, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"conv_short_dw", {conv_short_dw, NULL, dw_scratch, {}}, NULL, 0, 0},
                                                       {}};
