/* The gradient of conv_short_silu on CUDA (conv_short.cu has the values): one pass over x, du and du2, and dx is written once.
 * A warp slides down a share of a sequence's rows, a thread with 4 neighbouring columns. Of the last TAPS rows it has x in registers,
 * from which it makes the value before the activation again, and the unfinished rows of dx; it goes on TAPS - 1 rows beyond its share to
 * finish its own, and begins with the x of as many rows before. While TAPS rows are worked on the next ones are copied to shared memory,
 * 16 bytes at a time: the two threads whose columns those are take the rows in turns.
 * dw and db: sums of a block's 4 warps, a part for each piece of a sequence, added up by a second stage (cuda_chunks.h). */
#include "op/cuda_mma.h"
#include "op/cuda_rows.h"

enum { IN_X, IN_W, IN_B, IN_DU, IN_DU2 };
enum { LANES = 32, WARPS = 4, THREADS = LANES * WARPS };
struct Grad {
    Arg x, w, bias, du, du2, dx;
    const int32_t *n_seq;
    float *dw, *db;                                        /* [member][piece][taps][cols], [member][piece][cols]                     */
    int32_t rows, cols, taps, pieces, per, tiles;          /* per: rows of a piece; tiles: of 32 times W columns                     */
    int32_t count;                                         /* pieces of all sequences                                                */
};

/* A turn's rows for the threads of a block, 8 bytes for each at [row of TAPS][x, du, du2][thread]; two turns. W = 1 needs none. Half the
 * banks are skipped between rows: a warp's copies go to two rows at once. */
enum { OF_ONE = THREADS * 8, OF_ROW = 3 * OF_ONE + 64 };
template <int TAPS> constexpr int TURN = TAPS * OF_ROW;

/* Index of row t where the sequence begins at `at`; a sequence has fewer than 2^31 elements. */
static __device__ __forceinline__ int64_t row_from(int64_t at, int32_t t, const Arg &a) { return at + (int64_t)t * (int32_t)a.ld; }
/* Where a thread's columns of its sequence begin; its rows are [t0, t1), from `end` on it sees zeros, from `keep` on it writes no dx. */
struct Share { int64_t x, du, du2, dx; int32_t t0, t1, end, keep; };
template <int W> static __device__ __forceinline__ void zeros(float *v)
{
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = 0.0f;
}

template <typename T, int W> static __device__ __forceinline__ void read_row(const Arg &a, int64_t at, int32_t t, bool there, float *v)
{
    Piece<T, W> p = {};
    if (there) read(p, a, row_from(at, t, a));
    open(p, v);
}
static __device__ __forceinline__ void read_copied(const unsigned char *at, float *v)
{
    const uint2 u = *(const uint2 *)at;
    v[0] = low_bf16(u.x); v[1] = high_bf16(u.x);
    v[2] = low_bf16(u.y); v[3] = high_bf16(u.y);
}
/* x of row t and the gradient of u there. */
template <typename T, int W>
static __device__ __forceinline__ void take_row(const Grad &a, const unsigned char *at, const Share &p, int32_t t, float *x, float *d)
{
    float d2[W];
    if constexpr (W > 1) {
        read_copied(at, x);
        read_copied(at + OF_ONE, d);
        if (a.du2.data) read_copied(at + 2 * OF_ONE, d2);
    } else {
        read_row<T, W>(a.x, p.x, t, t < p.end, x);
        read_row<T, W>(a.du, p.du, t, t < p.end, d);
        if (a.du2.data) read_row<T, W>(a.du2, p.du2, t, t < p.end, d2);
    }
#pragma unroll
    for (int i = 0; i < W; i++)
        if (a.du2.data) d[i] += d2[i];
}
/* Every second of the rows from t on, for this thread and its neighbour; `to`: the pair's place. */
template <int TAPS> static __device__ __forceinline__ void copy_rows(const Grad &a, unsigned char *to, const Share &p, int32_t t)
{
    const int odd = (int)threadIdx.x % 2, left = 4 * odd;
    to += odd * OF_ROW;
#pragma unroll
    for (int b = 0; b < TAPS; b += 2, to += 2 * OF_ROW) {
        const int32_t r = t + b + odd;
        copy_16(to, (const bf16 *)a.x.data + row_from(p.x, r, a.x) - left, r < p.end);
        copy_16(to + OF_ONE, (const bf16 *)a.du.data + row_from(p.du, r, a.du) - left, r < p.end);
        if (a.du2.data) copy_16(to + 2 * OF_ONE, (const bf16 *)a.du2.data + row_from(p.du2, r, a.du2) - left, r < p.end);
    }
    copy_commit();
}
/* d silu'(z) */
static __device__ __forceinline__ float silu_grad(float z, float d)
{
    const float s = fast_sigmoid(z);
    return d * (s * fmaf(z, 1.0f - s, 1.0f));
}

/* What a thread has of its columns. [j]: w, dw: of the tap that reaches j rows back; x, dx: of the rows t with (t - t0) % TAPS == j. */
template <int W, int TAPS> struct Columns { float w[TAPS][W], bias[W], x[TAPS][W], dx[TAPS][W], dw[TAPS][W], db[W]; };

/* TAPS rows from t on, which `at` has. SUMS: they count in dw and db. */
template <typename T, int W, int TAPS, bool SUMS>
static __device__ __forceinline__ void work(const Grad &a, const Share &p, const unsigned char *at, int32_t t, Columns<W, TAPS> &h)
{
#pragma unroll
    for (int b = 0; b < TAPS; b++, at += OF_ROW) {
        float d[W];
        take_row<T, W>(a, at, p, t + b, h.x[b], d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float z = h.bias[i];
#pragma unroll
            for (int j = 0; j < TAPS; j++) z = fmaf(h.w[j][i], h.x[(b - j + TAPS) % TAPS][i], z);
            const float g = silu_grad(z, d[i]);
            if (SUMS) h.db[i] += g;
            h.dx[b][i] = h.w[0][i] * g;
#pragma unroll
            for (int j = 0; j < TAPS; j++) {
                const int q = (b - j + TAPS) % TAPS;
                if (SUMS) h.dw[j][i] = fmaf(g, h.x[q][i], h.dw[j][i]);
                if (j > 0) h.dx[q][i] = fmaf(h.w[j][i], g, h.dx[q][i]);
            }
        }
        const int32_t done = t + b - TAPS + 1;
        if (done >= p.t0 && done < p.keep) write<T, W>(a.dx, row_from(p.dx, done, a.dx), h.dx[(b + 1) % TAPS]);
    }
}
/* The share's rows: a multiple of TAPS, or the sequence's last, then those of the last turn beyond t1 are zero. The lanes of a warp keep
 * step; those without columns see and write nothing. */
template <typename T, int W, int TAPS>
static __device__ __forceinline__ void slide(const Grad &a, unsigned char *ring, int32_t m, int32_t s, int32_t c, const Share &p, Columns<W, TAPS> &h)
{
    unsigned char *mine = ring + threadIdx.x * 8, *pair = ring + threadIdx.x / 2 * 16;
    if constexpr (W > 1) copy_rows<TAPS>(a, pair, p, p.t0);
#pragma unroll
    for (int j = 0; j < TAPS; j++) {
        zeros<W>(h.dx[j]);
        read_row<T, W>(a.x, p.x, p.t0 + j - TAPS, j > 0 && p.t0 + j - TAPS >= 0 && p.end > 0, h.x[j]);
#pragma unroll
        for (int i = 0; i < W; i++) h.w[j][i] = j < a.taps ? arg_get(a.w, arg_row(a.w, m, s, a.taps - 1 - j) + c + i) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < W; i++) h.bias[i] = a.bias.data ? arg_get(a.bias, m * a.bias.member + s * a.bias.seq + c + i) : 0.0f;
    int32_t t = p.t0, turn = 0;
#pragma unroll 1
    for (; t < p.t1; t += TAPS, turn = TURN<TAPS> - turn) {
        if constexpr (W > 1) {
            __syncwarp();                                  /* everybody has read the turn that is overwritten now                    */
            copy_rows<TAPS>(a, pair + (TURN<TAPS> - turn), p, t + TAPS);
            copy_wait<1>();
            __syncwarp();
        }
        work<T, W, TAPS, true>(a, p, mine + turn, t, h);
    }
    if constexpr (W > 1) {
        copy_wait<0>();
        __syncwarp();
    }
    work<T, W, TAPS, false>(a, p, mine + turn, t, h);
}

template <typename T, int W, int TAPS> static __global__ __launch_bounds__(THREADS, 4) void short_silu_grad(Grad a)
{
    mdr_begin();
    MDR_SHARED(unsigned char, ring);
    constexpr int ACROSS = LANES * W;
    const int32_t m = (int32_t)blockIdx.z, tile = (int32_t)blockIdx.x % a.tiles, chunk = (int32_t)blockIdx.x / a.tiles, s = chunk / a.pieces;
    if (s >= a.n_seq[m]) return;
    const int32_t warp = (int32_t)threadIdx.x / LANES, column = (int32_t)threadIdx.x % LANES * W, c = tile * ACROSS + column;
    const int32_t first = (chunk - s * a.pieces) * a.per, last = first + a.per < a.rows ? first + a.per : a.rows;
    const int32_t share = (last - first + WARPS * TAPS - 1) / (WARPS * TAPS) * TAPS, t0 = first + warp * share, t1 = t0 + share < last ? t0 + share : last;
    const bool here = c < a.cols;
    const int32_t end = t1 + TAPS - 1 < a.rows ? t1 + TAPS - 1 : a.rows;
    const Share p = {arg_row(a.x, m, s, 0) + c, arg_row(a.du, m, s, 0) + c, arg_row(a.du2, m, s, 0) + c, arg_row(a.dx, m, s, 0) + c, t0, t1,
                     here ? end : 0, here && a.dx.data ? t1 : t0};
    Columns<W, TAPS> h;
    zeros<W>(h.db);
#pragma unroll
    for (int j = 0; j < TAPS; j++) zeros<W>(h.dw[j]);
    if (t0 < t1) slide<T, W, TAPS>(a, ring, m, s, here ? c : 0, p, h);
    __syncthreads();
    float *sums = (float *)ring;                           /* [warp][TAPS + 1][ACROSS]                                               */
#pragma unroll
    for (int i = 0; i < W; i++) {
#pragma unroll
        for (int j = 0; j < TAPS; j++) sums[(warp * (TAPS + 1) + j) * ACROSS + column + i] = h.dw[j][i];
        sums[(warp * (TAPS + 1) + TAPS) * ACROSS + column + i] = h.db[i];
    }
    __syncthreads();
    const int64_t part = (int64_t)m * a.count + chunk;
    for (int32_t k = (int32_t)threadIdx.x; k < (TAPS + 1) * ACROSS; k += THREADS) {
        const int32_t j = k / ACROSS, col = tile * ACROSS + k % ACROSS;
        float sum = 0.0f;
        for (int q = 0; q < WARPS; q++) sum += sums[q * (TAPS + 1) * ACROSS + k];
        if (col >= a.cols) continue;
        if (j < a.taps) a.dw[(part * a.taps + a.taps - 1 - j) * a.cols + col] = sum;
        else if (j == TAPS) a.db[part * a.cols + col] = sum;
    }
}

/* ---- choosing ---- */
/* Pieces of a sequence: enough for some 512 blocks with a batch alone, of at least 128 rows. */
static int32_t pieces_of(const Node *n, int32_t n_seq)
{
    const int64_t most = mdr_ceil_div(n->out[0].shape.d[0], 128), want = mdr_ceil_div(512, n_seq);
    return (int32_t)(want < most ? want : most);
}
static size_t scratch(const Node *n, Extent e)
{
    return sizeof(float) * (size_t)((mdr_numel(n->out[1].shape) + n->out[2].shape.d[0]) * pieces_of(n, e.n_seq) * e.n_seq * e.n_member);
}
static void run(const Call *c, int64_t, int64_t)
{
    const Shape x = c->node->in_type[IN_X].shape, w = c->node->in_type[IN_W].shape;
    const int32_t n_seq = c->extent.n_seq, members = c->extent.n_member;
    const bool add_w = (c->add & 2u) != 0, add_b = (c->add & 4u) != 0;
    const bool alone = n_seq > 1 && ((c->out[1].data && !add_w) || (c->out[2].data && !add_b));        /* sums of each sequence are wanted */
    const int32_t pieces = alone ? 1 : pieces_of(c->node, n_seq), per = (int32_t)mdr_ceil_div(mdr_ceil_div(x.d[0], pieces), 8) * 8, count = pieces * n_seq;
    float *dw = (float *)c->scratch, *db = dw + (int64_t)members * count * w.d[0] * w.d[1];
    Grad a = {c->in[IN_X], c->in[IN_W], c->in[IN_B], c->in[IN_DU], c->in[IN_DU2], c->out[0], c->n_seq, dw, db, x.d[0], x.d[1], w.d[0], pieces, per, 1, count};
    const Arg all[4] = {a.x, a.du, a.du2, a.dx};
    const bool fast = a.taps <= 4 && kind_of(a.cols, 8, 4, all) == BF16;
    a.tiles = (int32_t)mdr_ceil_div(a.cols, LANES * (fast ? 4 : 1));
    const dim3 grid = mdr_grid((int64_t)a.tiles * count, 1, members);
    if (fast) MDR_LAUNCH((short_silu_grad<bf16, 4, 4>), grid, THREADS, 2 * TURN<4>, c->stream, a);
    else MDR_LAUNCH((short_silu_grad<any_real, 1, 8>), grid, THREADS, (size_t)WARPS * 9 * LANES * sizeof(float), c->stream, a);
    const uint32_t rows = (uint32_t)pieces;                /* to the second stage pieces are rows, each a chunk                      */
    if (c->out[1].data)
        enqueue_add_chunks(c, c->out[1], add_w, (const float *)dw, Cut{rows, 1, (uint32_t)count, add_w || n_seq == 1}, mdr_numel(w), w.d[1]);
    if (c->out[2].data)
        enqueue_add_chunks(c, c->out[2], add_b, (const float *)db, Cut{rows, 1, (uint32_t)count, add_b || n_seq == 1}, w.d[1], w.d[1]);
}

extern "C" const CudaRow mdr_cuda_rows_conv_short_silu[] = {{"conv_short_silu_grad", {run, NULL, scratch, {}}, NULL, 0, 0}, {}};
