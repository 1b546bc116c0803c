/* conv_short and its gradients on CUDA. All are bound by memory: a thread slides over rows of 8 (dx: 4) neighbouring columns with the rows
 * that its taps meet in registers.
 *   y   reads x once (its tiles' threads stand side by side: all but the first find it in a cache), writes y once, or silu(y): then it
 *       is conv_short_silu (conv_short_silu.cu has its gradient)
 *   dx  reads dy once and a part of its rows again, from a cache; all rows that a thread wants of a tile at once
 *   dw  reads x and dy once; chunks of rows, added up by a second stage (cuda_chunks.h)
 * y and dw have some rows ahead on their way. */
#include "op/cuda_eight.h"
#include "op/cuda_rows.h"

enum { Y_ROWS = 32, THREADS = 128 };
struct Short {
    Arg x, w, bias, y;                                     /* y: or dy                                                               */
    const int32_t *n_seq;
    int32_t rows, cols, cols_x, taps, pieces;              /* pieces: of rows, of one sequence                                       */
    bool wide_w;                                           /* w and bias may be read by 16 bytes, as floats                          */
};

/* A row of a thread's columns as it lies in memory. */
template <int SIZE> struct RowOf { typedef any_real type; };
template <> struct RowOf<2> { typedef bf16 type; };
template <> struct RowOf<4> { typedef float type; };
template <int SIZE, int N> using Row = Piece<typename RowOf<SIZE>::type, N>;
/* Index of row t where the sequence begins at `at`; a sequence has fewer than 2^31 elements. */
static __device__ __forceinline__ int64_t row_from(int64_t at, int32_t t, const Arg &a) { return at + (int64_t)t * (int32_t)a.ld; }

/* N values of w or the bias. */
template <int N> static __device__ __forceinline__ void load_weights(const Short &a, const Arg &from, int64_t at, float *v)
{
    if constexpr (N % 4 == 0) {
        if (a.wide_w) {
            Row<4, N> p;
            read(p, from, at);
            open(p, v);
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = arg_get(from, at + i);
}
/* w[j][..]: what meets the row j back; 0 past the last tap. */
template <int N, int TAPS> static __device__ __forceinline__ void load_taps(const Short &a, int32_t m, int32_t s, int32_t c, float (*w)[N])
{
#pragma unroll
    for (int j = 0; j < TAPS; j++) {
        zero<N>(w[j]);
        if (j < a.taps) load_weights<N>(a, a.w, arg_row(a.w, m, s, a.taps - 1 - j) + c, w[j]);
    }
}
/* This thread's sequence, piece of rows and first column, out of `cols` columns; false: none. */
struct Part { int32_t s, piece, c; };
template <int N> static __device__ __forceinline__ bool find_part(const Short &a, int32_t cols, Part *p)
{
    const uint32_t wide = (uint32_t)cols / N, i = blockIdx.x * blockDim.x + threadIdx.x, q = i / wide;
    p->c = (int32_t)(i - q * wide) * N;
    p->s = (int32_t)(q / (uint32_t)a.pieces);
    p->piece = (int32_t)q - p->s * a.pieces;
    return p->s < a.n_seq[blockIdx.z];
}

/* Rows ahead: a divisor of TAPS, as many as registers allow. */
template <int SIZE, int TAPS> constexpr int AHEAD = TAPS == 3 ? 3 : SIZE == 0 || (SIZE == 2 && TAPS == 4) ? 4 : 2;

/* x[..]: of the rows t with (t - t0) % TAPS there. */
template <int SIZE, int TAPS, bool SILU> static __global__ __launch_bounds__(THREADS) void short_y(Short a)
{
    mdr_begin();
    constexpr int N = COLUMNS<SIZE>, FAR = AHEAD<SIZE, TAPS>;
    const int32_t m = (int32_t)blockIdx.z;
    Part p;
    if (!find_part<N>(a, a.cols, &p)) return;
    float w[TAPS][N], bias[N], x[TAPS][N];
    Row<SIZE, N> ahead[FAR] = {};
    const int32_t t0 = p.piece * Y_ROWS, t1 = t0 + Y_ROWS < a.rows ? t0 + Y_ROWS : a.rows;
    const int64_t from = arg_row(a.x, m, p.s, 0) + p.c % a.cols_x, to = arg_row(a.y, m, p.s, 0) + p.c;
#pragma unroll
    for (int b = 0; b < FAR; b++)
        if (t0 + b < t1) read(ahead[b], a.x, row_from(from, t0 + b, a.x));
#pragma unroll
    for (int b = 1; b < TAPS; b++) {
        zero<N>(x[b]);
        if (t0 + b - TAPS >= 0) load<SIZE>(a.x, row_from(from, t0 + b - TAPS, a.x), x[b]);
    }
    load_taps<N, TAPS>(a, m, p.s, p.c, w);
    zero<N>(bias);
    if (a.bias.data) load_weights<N>(a, a.bias, arg_row(a.bias, m, p.s, 0) + p.c, bias);
#pragma unroll 1
    for (int32_t t = t0; t < t1; t += TAPS) {
#pragma unroll
        for (int b = 0; b < TAPS; b++) {
            float v[N];
            open(ahead[b % FAR], x[b]);
            if (t + b + FAR < t1) read(ahead[b % FAR], a.x, row_from(from, t + b + FAR, a.x));
#pragma unroll
            for (int i = 0; i < N; i++) {
                v[i] = bias[i];
#pragma unroll
                for (int j = 0; j < TAPS; j++) v[i] = fmaf(w[j][i], x[(b - j + TAPS) % TAPS][i], v[i]);
                if (SILU) v[i] *= fast_sigmoid(v[i]);
            }
            if (t + b < t1) store<SIZE>(a.y, row_from(to, t + b, a.y), v);
        }
    }
}

/* x: where dx goes. */
template <int SIZE> constexpr int DX_COLUMNS = SIZE == 0 ? 1 : 4;
template <int SIZE, int TAPS> constexpr int DX_ROWS = SIZE != 2 || TAPS > 4 ? 8 : TAPS == 4 ? 12 : 16;
template <int SIZE, int TAPS> static __global__ __launch_bounds__(THREADS, TAPS > 4 ? 2 : 3) void short_dx(Short a)
{
    mdr_begin();
    constexpr int N = DX_COLUMNS<SIZE>, R = DX_ROWS<SIZE, TAPS>;
    const int32_t m = (int32_t)blockIdx.z;
    Part p;
    if (!find_part<N>(a, a.cols_x, &p)) return;
    const int32_t t0 = p.piece * R;
    float sum[R][N];
#pragma unroll
    for (int r = 0; r < R; r++) zero<N>(sum[r]);
#pragma unroll 1
    for (int32_t c = p.c; c < a.cols; c += a.cols_x) {
        const int64_t from = arg_row(a.y, m, p.s, 0) + c;
        Row<SIZE, N> row[R + TAPS - 1] = {};
        float w[TAPS][N];
#pragma unroll
        for (int r = 0; r < R + TAPS - 1; r++)
            if (t0 + r < a.rows) read(row[r], a.y, row_from(from, t0 + r, a.y));
        load_taps<N, TAPS>(a, m, p.s, c, w);
#pragma unroll
        for (int r = 0; r < R + TAPS - 1; r++) {
            float dy[N];
            open(row[r], dy);
#pragma unroll
            for (int j = 0; j < TAPS; j++) {
                if (r - j < 0 || r - j >= R) continue;
#pragma unroll
                for (int i = 0; i < N; i++) sum[r - j][i] = fmaf(w[j][i], dy[i], sum[r - j][i]);
            }
        }
    }
    const int64_t to = arg_row(a.x, m, p.s, 0) + p.c;
#pragma unroll
    for (int r = 0; r < R; r++)
        if (t0 + r < a.rows) write<typename RowOf<SIZE>::type, N>(a.x, row_from(to, t0 + r, a.x), sum[r]);
}

/* Rows [t0, t1) of one sequence into sum[j] = sum_t dy[t] x[t - j]. x, dy: where its columns begin; at[..]: x of the rows t with
 * (t - t0) % TAPS there. */
template <int TAPS> constexpr int DW_AHEAD = TAPS == 3 ? 3 : TAPS == 4 ? 2 : 1;
template <int SIZE, int TAPS>
static __device__ __forceinline__ void add_rows(const Short &a, int64_t x, int64_t dy, int32_t t0, int32_t t1, float (*sum)[COLUMNS<SIZE>])
{
    constexpr int N = COLUMNS<SIZE>, FAR = DW_AHEAD<TAPS>;
    float at[TAPS][N], d[N];
    Row<SIZE, N> x_ahead[FAR] = {}, dy_ahead[FAR] = {};
#pragma unroll
    for (int b = 0; b < FAR; b++) {
        if (t0 + b >= t1) continue;
        read(x_ahead[b], a.x, row_from(x, t0 + b, a.x));
        read(dy_ahead[b], a.y, row_from(dy, t0 + b, a.y));
    }
#pragma unroll
    for (int b = 1; b < TAPS; b++) {
        zero<N>(at[b]);
        if (t0 + b - TAPS >= 0) load<SIZE>(a.x, row_from(x, t0 + b - TAPS, a.x), at[b]);
    }
#pragma unroll 1
    for (int32_t t = t0; t < t1; t += TAPS) {
#pragma unroll
        for (int b = 0; b < TAPS; b++) {
            open(x_ahead[b % FAR], at[b]);
            open(dy_ahead[b % FAR], d);
            if (t + b >= t1) zero<N>(d);
            if (t + b + FAR < t1) {
                read(x_ahead[b % FAR], a.x, row_from(x, t + b + FAR, a.x));
                read(dy_ahead[b % FAR], a.y, row_from(dy, t + b + FAR, a.y));
            }
#pragma unroll
            for (int j = 0; j < TAPS; j++)
#pragma unroll
                for (int i = 0; i < N; i++) sum[j][i] = fmaf(d[i], at[(b - j + TAPS) % TAPS][i], sum[j][i]);
        }
    }
}
/* Block: 32 times N columns, a chunk of rows that its 8 slots share. part: [member][chunk][taps][cols]. */
template <int SIZE, int TAPS> static __global__ __launch_bounds__(WIDE *SLOTS, SIZE > 0 && TAPS > 4 ? 1 : 2) void short_dw(Short a, Cut k, float *part)
{
    mdr_begin();
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
enum Of { OF_Y, OF_SILU, OF_DX, OF_DW };
template <int SIZE, int TAPS> static void launch(const Call *c, Of of, Short a, const Cut *k)
{
    const int32_t members = c->extent.n_member, n_seq = c->extent.n_seq;
    if (of == OF_DW) {
        MDR_LAUNCH((short_dw<SIZE, TAPS>), mdr_grid(mdr_ceil_div(a.cols, WIDE * COLUMNS<SIZE>), k->count, members), WIDE * SLOTS,
                   WIDE * SLOTS * COLUMNS<SIZE> * sizeof(float), c->stream, a, *k, (float *)c->scratch);
        return;
    }
    a.pieces = (int32_t)mdr_ceil_div(a.rows, of == OF_DX ? DX_ROWS<SIZE, TAPS> : (int)Y_ROWS);
    const int64_t all = (int64_t)(of == OF_DX ? a.cols_x / DX_COLUMNS<SIZE> : a.cols / COLUMNS<SIZE>) * a.pieces * n_seq;
    const dim3 grid = mdr_grid(mdr_ceil_div(all, THREADS), 1, members);
    if (of == OF_Y) MDR_LAUNCH((short_y<SIZE, TAPS, false>), grid, THREADS, 0, c->stream, a);
    else if (of == OF_SILU) MDR_LAUNCH((short_y<SIZE, TAPS, true>), grid, THREADS, 0, c->stream, a);
    else MDR_LAUNCH((short_dx<SIZE, TAPS>), grid, THREADS, 0, c->stream, a);
}
static void choose(const Call *c, Of of, Short a, const Cut *k)
{
    const int64_t size = a.x.size;
    const bool fast = (size == 2 || size == 4) && by_eight(a.x, a.cols_x, size) && by_eight(a.y, a.cols, size);
    a.wide_w = by_eight(a.w, a.cols, 4) && by_eight(a.bias, a.cols, 4);
    if (!fast) launch<0, 8>(c, of, a, k);
    else if (a.taps <= 3 && size == 2) launch<2, 3>(c, of, a, k);
    else if (a.taps <= 3) launch<4, 3>(c, of, a, k);
    else if (a.taps <= 4 && size == 2) launch<2, 4>(c, of, a, k);
    else if (a.taps <= 4) launch<4, 4>(c, of, a, k);
    else if (size == 2) launch<2, 8>(c, of, a, k);
    else launch<4, 8>(c, of, a, k);
}

static void values(const Call *c, Of of)
{
    const Shape x = c->node->in_type[0].shape, w = c->node->in_type[1].shape;
    choose(c, of, Short{c->in[0], c->in[1], c->node->n_in > 2 ? c->in[2] : Arg(), c->out[0], c->n_seq, x.d[0], w.d[1], x.d[1], w.d[0], 0, false}, NULL);
}
static void conv_short(const Call *c, int64_t, int64_t) { values(c, OF_Y); }
static void conv_short_silu(const Call *c, int64_t, int64_t) { values(c, OF_SILU); }
static void conv_short_dx(const Call *c, int64_t, int64_t)
{
    const Shape dy = c->node->in_type[0].shape, w = c->node->in_type[1].shape;
    choose(c, OF_DX, Short{c->out[0], c->in[1], Arg(), c->in[0], c->n_seq, dy.d[0], dy.d[1], c->node->out[0].shape.d[1], w.d[0], 0, false}, NULL);
}

/* Chunks for some 500 blocks with a batch alone, of at least 128 rows. */
enum { DW_LEAST = 128 };
static int64_t dw_most(const Node *n) { return mdr_ceil_div(512, mdr_ceil_div(n->in_type[1].shape.d[1], 8 * WIDE)); }
static size_t dw_scratch(const Node *n, Extent e)
{
    return sizeof(float) * (size_t)(mdr_numel(n->out[0].shape) * cut_room(n->in_type[1].shape.d[0], e, DW_LEAST, dw_most(n)));
}
static void conv_short_dw(const Call *c, int64_t, int64_t)
{
    const Shape x = c->node->in_type[0].shape, dy = c->node->in_type[1].shape, w = c->node->out[0].shape;
    const Cut k = cut_rows(dy.d[0], c->extent.n_seq, (c->add & 1u) != 0, DW_LEAST, dw_most(c->node));
    choose(c, OF_DW, Short{c->in[0], Arg(), Arg(), c->in[1], c->n_seq, x.d[0], dy.d[1], x.d[1], w.d[0], 0, false}, &k);
    enqueue_add_chunks(c, (const float *)c->scratch, k, mdr_numel(w), w.d[1]);
}

extern "C" const CudaRow mdr_cuda_rows_conv_short[] = {{"conv_short", {conv_short, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"conv_short_silu", {conv_short_silu, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"conv_short_dx", {conv_short_dx, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"conv_short_dw", {conv_short_dw, NULL, dw_scratch, {}}, NULL, 0, 0},
                                                       {}};
