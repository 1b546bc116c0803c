/* hyena_mix on CUDA: y = (conv_long(u, h) + skip u) x1 with u = v x2 and x1, x2, v = conv_short(z, w, b). Reads z, writes y.
 *
 * A block of threads has 16 neighbouring channels (32 bytes of a row: what the L2 cache moves at a time) and takes SEQS sequences at a
 * time, all their rows at once: u goes to shared memory, the products are made, y comes out. Blocks that need the same rows of z run side
 * by side and find them in the L2 cache.
 * Rows come and go by pairs of channels: thread i has pair i % 8, so 8 threads share a row's 32 bytes, and a run of rows of one sequence,
 * along which the taps' rows stay in registers.
 * Plane of a channel: [sequence][row], bf16, with zeros up to whole groups of rows.
 * Products, of one channel by one warp; of 129 to 1,024 rows see "where a sequence has LINES lines", else:
 * Y^T = U^T T, T[t', t] = h[t - t']. The 16 lines of an operand U^T are SEQS sequences by 16 / SEQS phases: line p SEQS + s is sequence s
 * from row e + 32 p on. It meets the sums of rows GROUP r + 32 p + 8 j at a distance that does not depend on p: so 16 lines share a piece of
 * T though there are few sequences. Where e + 32 p < 0, zeros stand for u.
 * A piece of T, of 8 t' by 8 t, depends on the distance d of its corners alone: f(d) = the words (h[d+g-2q], h[d+g-2q-1]) of lanes (g, q);
 * a step of 16 t' by 8 t takes f(d) and f(d - 8). They come from two tables a channel, words that begin at an even and at an odd place.
 * Sums of GROUPS groups of rows stay in registers; the last rows come first, so their results may take the place of u.
 * Two or three blocks share a processor, and one loads while another multiplies; of more than 1,024 rows shared memory holds one. Rows are
 * asked for 128 bytes of each at a time, which blocks side by side want: 6 % of the time at 1,024 rows. */
#include "op/cuda_mma.h"

enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP };
enum { CHANNELS = 16, PAIRS = CHANNELS / 2, PHASE = 32, STEP = 64 };     /* rows from phase to phase; rows t' multiplied at a time     */
enum { BEFORE = 16, GAP = 2, ZEROS = 4 };                 /* words of a table before place 0; channels' tables are 2 banks apart      */
template <int SEQS> constexpr int GROUP = PHASE * 16 / SEQS;              /* rows of all phases                                        */

struct Mix {
    Arg z, w, b, h, skip, y;
    const int32_t *n_seq;
    int32_t rows, cols, cols_z, taps;
    int32_t room, per;                                    /* rows of planes, a multiple of GROUP; sequences of a block                 */
};

/* x, of which the compiler forgets that it knew it: what follows from it is computed anew where it would have kept registers that the
 * products need. */
static __device__ __forceinline__ int fresh(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* ---- z through the short convolution ---- */
/* Two neighbouring columns of a row: a word of bf16, or any numbers. */
static __device__ __forceinline__ void fetch(const char *from, int64_t, uint32_t *x) { *x = read_line_word(from); }
static __device__ __forceinline__ void fetch(const char *from, int64_t size, float2 *x)
{
    const Arg a = {(void *)from, 0, 0, 0, size};
    *x = make_float2(arg_get(a, 0), arg_get(a, 1));
}
static __device__ __forceinline__ float2 both(uint32_t x) { return make_float2(low_bf16(x), high_bf16(x)); }
static __device__ __forceinline__ float2 both(float2 x) { return x; }

/* What a thread carries: channels c and c + 1 of a sequence, rows [row, end). */
struct Lot { int32_t m, c, line, row, end; };
template <int SEQS, int THREADS> static __device__ __forceinline__ Lot my_lot(const Mix &a)
{
    const int id = fresh((int)threadIdx.x), run = a.room / (THREADS / PAIRS / SEQS), first = id / PAIRS / SEQS * run;
    return Lot{fresh((int)blockIdx.z), fresh((int)blockIdx.x) * CHANNELS + id % PAIRS * 2, id / PAIRS % SEQS, first, first + run};
}
/* What the pairs of a block need of the short convolution, in shared memory: for part (0 x1, 1 x2, 2 v) and pair. */
template <int TAPS> struct Weights {
    float2 w[3][PAIRS][TAPS], bias[3][PAIRS];             /* w[..][i] meets the row i back, 0 past the last                            */
    int32_t column[3][PAIRS];                             /* of z, in bytes                                                            */
};
template <int TAPS> static __device__ __forceinline__ void fill_weights(Weights<TAPS> *k, const Mix &a, int32_t m, int32_t c0)
{
    const int i = (int)threadIdx.x, part = i / PAIRS, pair = i % PAIRS;
    const int32_t c = c0 + 2 * pair, j = part * a.cols + c;
    if (part >= 3 || c >= a.cols) return;
    k->column[part][pair] = (int32_t)(j % a.cols_z * a.z.size);
    k->bias[part][pair] = make_float2(0.0f, 0.0f);
    if (a.b.data) k->bias[part][pair] = make_float2(arg_get(a.b, m * a.b.member + j), arg_get(a.b, m * a.b.member + j + 1));
    for (int t = 0; t < TAPS; t++) {
        const int64_t at = arg_row(a.w, m, 0, a.taps - 1 - t) + j;
        k->w[part][pair][t] = t < a.taps ? make_float2(arg_get(a.w, at), arg_get(a.w, at + 1)) : make_float2(0.0f, 0.0f);
    }
}
/* Row t of z, of the lot's sequence, or the last one where there is no t. */
static __device__ __forceinline__ const char *row_of(const Mix &a, const Lot &l, int32_t s, int32_t t)
{
    return (const char *)a.z.data + arg_row(a.z, l.m, s + l.line, t < a.rows ? t : a.rows - 1) * a.z.size;
}
static __device__ __forceinline__ int32_t bytes_of_row(const Arg &a) { return (int32_t)(a.ld * a.size); }
/* N rows from t on; `from` goes on, but not past the last row. y: a second pair, so many bytes beside the first. */
template <int N, bool ALL, typename PAIR>
static __device__ __forceinline__ void fetch_rows(PAIR *x, PAIR *y, const char **from, int32_t other, const Mix &a, int32_t t)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        fetch(*from, a.z.size, x + i);
        if (y) fetch(*from + other, a.z.size, y + i);
        *from += ALL || t + i + 1 < a.rows ? bytes_of_row(a.z) : 0;
    }
}
template <int N, typename PAIR>
static __device__ __forceinline__ void fetch_rows(PAIR *x, PAIR *y, const char **from, int32_t other, const Mix &a, int32_t t)
{
    if (t + N < a.rows) fetch_rows<N, true>(x, y, from, other, a, t);
    else fetch_rows<N, false>(x, y, from, other, a, t);
}
/* A pair in one of the parts, and z's rows before the next one, which is where `from` points to. */
template <int TAPS> struct Slide { float2 w[TAPS], bias, back[TAPS]; };
template <typename PAIR, int TAPS>
static __device__ __forceinline__ void start(Slide<TAPS> *k, const Weights<TAPS> &w, const Mix &a, const Lot &l, int part, const char *from)
{
    const int pair = l.c % CHANNELS / 2;
    const int32_t row = l.row < a.rows ? l.row : a.rows - 1;
    k->bias = w.bias[part][pair];
#pragma unroll
    for (int i = 0; i < TAPS; i++) {
        k->w[i] = w.w[part][pair][i];
        k->back[i] = make_float2(0.0f, 0.0f);
        if (row - 1 - i < 0 || i == TAPS - 1) continue;
        PAIR x;
        fetch(from - (i + 1) * bytes_of_row(a.z), a.z.size, &x);
        k->back[i] = both(x);
    }
}
/* s of the next row, which is x. */
template <int TAPS> static __device__ __forceinline__ float2 slide(Slide<TAPS> *k, float2 x)
{
#pragma unroll
    for (int i = TAPS - 1; i > 0; i--) k->back[i] = k->back[i - 1];
    k->back[0] = x;
    float2 v = k->bias;
#pragma unroll
    for (int i = 0; i < TAPS; i++) {
        v.x = fmaf(k->w[i].x, k->back[i].x, v.x);
        v.y = fmaf(k->w[i].y, k->back[i].y, v.y);
    }
    return v;
}

/* ---- planes, in words: lines of 8 rows of an operand meet different banks, as do those of 8 pairs of channels ---- */
static __host__ __device__ __forceinline__ int line_words(int32_t room) { return room / 2 + 4; }
template <int SEQS> static __host__ __device__ __forceinline__ int plane_at(int channel, int32_t room)
{
    return channel * SEQS * line_words(room) + channel / 2 * 4;
}
template <int SEQS> static __device__ __forceinline__ uint4 *rows_of(uint32_t *planes, const Mix &a, const Lot &l, int32_t t)
{
    return (uint4 *)(planes + plane_at<SEQS>(l.c % CHANNELS, a.room) + l.line * line_words(a.room) + t / 2);
}
/* Four words of 8 rows from t on, zeros past the last row. */
static __device__ __forceinline__ uint4 rows_8(uint32_t w[4], int32_t t, int32_t rows)
{
    if (t + 8 > rows)
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = t + 2 * i + 1 < rows ? w[i] : t + 2 * i < rows ? w[i] & 0xffffu : 0;
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/* u of the lot; N rows are on their way while the N before them are worked on. */
template <int SEQS, int THREADS, int N, int TAPS, typename PAIR>
static __device__ __forceinline__ void put_u(uint32_t *planes, const Weights<TAPS> &w, const Mix &a, int32_t s, int32_t end)
{
    const Lot l = my_lot<SEQS, THREADS>(a);
    if (l.c >= a.cols || s + l.line >= end) return;
    Slide<TAPS> x2, v;
    PAIR next_x[N], next_y[N];
    const int32_t column = w.column[1][l.c % CHANNELS / 2], other = w.column[2][l.c % CHANNELS / 2] - column;
    const char *from = row_of(a, l, s, l.row) + column;
    start<PAIR>(&x2, w, a, l, 1, from);
    start<PAIR>(&v, w, a, l, 2, from + other);
    fetch_rows<N>(next_x, next_y, &from, other, a, l.row);
    uint4 *to = rows_of<SEQS>(planes, a, l, l.row);
#pragma unroll 1
    for (int32_t t = l.row; t < l.end; t += 8, to++) {
        uint32_t even[4], odd[4];
#pragma unroll
        for (int i = 0; i < 8; i += N) {
            PAIR x[N], y[N];
#pragma unroll
            for (int k = 0; k < N; k++) { x[k] = next_x[k]; y[k] = next_y[k]; }
            if (t + i + N < l.end) fetch_rows<N>(next_x, next_y, &from, other, a, t + i + N);
#pragma unroll
            for (int k = 0; k < N; k += 2) {
                float2 u[2];
#pragma unroll
                for (int q = 0; q < 2; q++) {
                    const float2 p = slide(&x2, both(x[k + q])), r = slide(&v, both(y[k + q]));
                    u[q] = make_float2(p.x * r.x, p.y * r.y);
                }
                even[(i + k) / 2] = pack_bf16(u[0].x, u[1].x);
                odd[(i + k) / 2] = pack_bf16(u[0].y, u[1].y);
            }
        }
        to[0] = rows_8(even, t, a.rows);
        to[SEQS * line_words(a.room) / 4] = rows_8(odd, t, a.rows);
    }
}
static __device__ __forceinline__ void join(float2 v, uint32_t *x) { *x = (uint32_t)fresh((int)pack_bf16(v.x, v.y)); }
static __device__ __forceinline__ void join(float2 v, float2 *x) { *x = v; }
static __device__ __forceinline__ void put_pair(char *to, int64_t, uint32_t x) { *(uint32_t *)to = x; }
static __device__ __forceinline__ void put_pair(char *to, int64_t size, float2 x)
{
    const Arg a = {to, 0, 0, 0, size};
    arg_put(a, 0, x.x);
    arg_put(a, 1, x.y);
}
/* y of the lot: planes times x1. */
template <int SEQS, int THREADS, int N, int TAPS, typename PAIR>
static __device__ __forceinline__ void put_y(uint32_t *planes, const Weights<TAPS> &w, const Mix &a, int32_t s, int32_t end)
{
    const Lot l = my_lot<SEQS, THREADS>(a);
    if (l.c >= a.cols || s + l.line >= end) return;
    Slide<TAPS> x1;
    PAIR next[N];
    const char *from = row_of(a, l, s, l.row) + w.column[0][l.c % CHANNELS / 2];
    start<PAIR>(&x1, w, a, l, 0, from);
    fetch_rows<N>(next, (PAIR *)NULL, &from, 0, a, l.row);
    char *to = (char *)a.y.data + (arg_row(a.y, l.m, s + l.line, l.row) + l.c) * a.y.size;
    const uint4 *plane = rows_of<SEQS>(planes, a, l, l.row);
#pragma unroll 1
    for (int32_t t = l.row; t < l.end; t += 8, plane++) {
        const uint4 p = plane[0], q = plane[SEQS * line_words(a.room) / 4];
        const uint32_t even[4] = {p.x, p.y, p.z, p.w}, odd[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < 8; i += N) {
            PAIR x[N];
#pragma unroll
            for (int k = 0; k < N; k++) x[k] = next[k];
            if (t + i + N < l.end) fetch_rows<N>(next, (PAIR *)NULL, &from, 0, a, t + i + N);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const float2 g = slide(&x1, both(x[k])), e = both(even[(i + k) / 2]), o = both(odd[(i + k) / 2]);
                join(k % 2 ? make_float2(e.y * g.x, o.y * g.y) : make_float2(e.x * g.x, o.x * g.y), x + k);   /* no branch may take it in       */
                if (t + i + k < a.rows) put_pair(to, a.y.size, x[k]);
                to += bytes_of_row(a.y);
            }
        }
    }
}

/* ---- tables of h, 16 banks from one to the other ---- */
static __host__ __device__ __forceinline__ int table_words(int32_t room) { return room + 2 * BEFORE + GAP; }
/* Word j of channel c's tables: (h[2j], h[2j-1]) and (h[2j+1], h[2j]); zeros outside of h. */
static __device__ __forceinline__ void fill_tables(uint32_t *table, const Mix &a, int32_t m, int32_t c0)
{
    const float *h = (const float *)a.h.data + m * a.h.member + c0;
    const int words = table_words(a.room), other = a.room / 2 + BEFORE;
#pragma unroll 2
    for (int32_t i = (int32_t)threadIdx.x; i < CHANNELS * (a.room / 2 + BEFORE); i += (int32_t)blockDim.x) {
        const int32_t c = i % CHANNELS, j = i / CHANNELS - BEFORE;
        float v[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            const int32_t x = 2 * j - 1 + k;
            v[k] = x >= 0 && x < a.rows && c0 + c < a.cols ? h[x * a.h.ld + c] : 0.0f;
        }
        uint32_t *to = table + c * words + j + BEFORE;
        to[0] = pack_bf16(v[1], v[0]);
        to[other] = pack_bf16(v[2], v[1]);
    }
}

/* ---- products ---- */
/* What a lane gives to ldmatrix, half of 16 rows of its line: where they are if e = 0, and what e is added to. */
struct Line { const uint32_t *from; int32_t row; };
/* sum[4 i + j]: rows 8 j of each phase of group i. Adds what rows [e, e + 64) of all phases bring to the groups from FIRST on. f: this
 * lane's words, for group 0 and this e. */
template <int SEQS, int GROUPS, int FIRST>
static __device__ __forceinline__ void multiply(float (*sum)[4], const Line &u, int32_t e, const uint32_t *f, const uint32_t *zeros)
{
    constexpr int K = GROUPS == 2 ? 2 : 4;                /* steps of 16 rows held in registers                                        */
#pragma unroll
    for (int k0 = 0; k0 < 4; k0 += K) {
        uint32_t a[K][4];
#pragma unroll
        for (int k = 0; k < K; k++) ldmatrix<4, false>(a[k], u.row + e + 16 * (k0 + k) >= 0 ? u.from + e / 2 + 8 * (k0 + k) : zeros);
#pragma unroll
        for (int i = FIRST; i < GROUPS; i++) {
            uint32_t w[2 * K + 3];                        /* w[2 K - 1 + x]: distance 8 x more                                         */
            __syncwarp();                                 /* else words of all groups come at once, too many for the registers         */
#pragma unroll
            for (int x = 0; x < 2 * K + 3; x++) w[x] = f[GROUP<SEQS> / 2 * i - 8 * k0 + 4 * (x - 2 * K + 1)];
#pragma unroll
            for (int k = 0; k < K; k++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const uint32_t b[2] = {w[2 * K - 1 + j - 2 * k], w[2 * K - 2 + j - 2 * k]};
                    mma_16816(sum[4 * i + j], a[k], b);
                }
        }
    }
}
/* While group r has rows that e is not behind of. */
template <int SEQS, int GROUPS, int FIRST>
static __device__ __forceinline__ void advance(float (*sum)[4], const Line &u, int32_t r, int32_t *e, const uint32_t *f, const uint32_t *zeros)
{
#pragma unroll 1
    for (; *e < GROUP<SEQS> * r + PHASE; *e += STEP) multiply<SEQS, GROUPS, FIRST>(sum, u, *e, f - *e / 2, zeros);
}
/* In the plane c + skip u takes the place of u, rows of group r from sums on. */
template <int SEQS> static __device__ __forceinline__ void put_group(const float (*sum)[4], uint32_t *plane, int32_t r, int32_t room, float skip)
{
    const int lane = fresh((int)threadIdx.x) % 32, g = lane / 4, q = lane % 4;
    uint32_t *to = plane + g % SEQS * line_words(room) + (GROUP<SEQS> * r + g / SEQS * PHASE) / 2 + q;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint32_t *x = to + 4 * j, *y = x + 8 / SEQS * PHASE / 2;
        *x = pack_bf16(fmaf(skip, low_bf16(*x), sum[j][0]), fmaf(skip, high_bf16(*x), sum[j][1]));
        *y = pack_bf16(fmaf(skip, low_bf16(*y), sum[j][2]), fmaf(skip, high_bf16(*y), sum[j][3]));
    }
}
/* Groups r .. r + GROUPS - 1 of one channel, by one warp; those below 0 are not there. */
template <int SEQS, int GROUPS>
static __device__ __forceinline__ void convolve(float (*sum)[4], const uint32_t *plane, const uint32_t *table, const uint32_t *zeros, int32_t r, int32_t room)
{
    const int lane = fresh((int)threadIdx.x) % 32, g = lane / 4, q = lane % 4, row = lane % 16 / SEQS * PHASE;
    const Line u = {plane + lane % SEQS * line_words(room) + row / 2 + lane / 16 * 4, row};
    const uint32_t *f = table + (g % 2 ? room / 2 + BEFORE : 0) + g / 2 - q + BEFORE + GROUP<SEQS> / 2 * r;
    int32_t e = PHASE - GROUP<SEQS>;                      /* the first one of which a phase is there                                   */
#pragma unroll
    for (int i = 0; i < 4 * GROUPS; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    advance<SEQS, GROUPS, 0>(sum, u, r, &e, f, zeros);
    if constexpr (GROUPS > 1) advance<SEQS, GROUPS, 1>(sum, u, r + 1, &e, f, zeros);
    if constexpr (GROUPS > 2) {
        static_assert(GROUPS == 4, "");
        advance<SEQS, 4, 2>(sum, u, r + 2, &e, f, zeros);
        advance<SEQS, 4, 3>(sum, u, r + 3, &e, f, zeros);
    }
}

/* ---- products where a sequence has LINES lines of 128 rows ----
 * y = T u of a sequence, a product [16 p] x [8 b] contracted over time for each line: with rows 8 p + b of a line,
 *   y[8 p + b] = sum over s of u[8 p + s] h[b - s].
 * Rows of u's operand are 8 rows apart in time, so ldmatrix reads them from the plane as it stands; h's are words of its tables. A window of
 * 128 s, which ends 8 rows after a line's beginning, meets all lines from there on: at 1,024 rows 8 loads of u and 16 words of h serve for 36
 * products. Sums are words of the plane as they come. */
/* y[line]: lane i has rows 2 i and 64 + 2 i on. f: the lane's word of f(0). */
template <int LINES> static __device__ __forceinline__ void sweep(float (*y)[4], const uint32_t *plane, const uint32_t *f, const uint32_t *zeros)
{
    const int lane = fresh((int)threadIdx.x) % 32, row = lane % 8 * 4 + lane / 8 % 2 * 32 + lane / 16 * 4 - 60;
#pragma unroll 1
    for (int k = 0; k < 8; k++) {
        uint32_t x[LINES][4], h[LINES][2];
        const int at = row + 8 * k;
#pragma unroll
        for (int d = 0; d < LINES; d++) {
            h[d][0] = f[64 * d + 60 - 8 * k];
            h[d][1] = f[64 * d + 56 - 8 * k];
        }
#pragma unroll
        for (int i = 0; i < LINES; i++) ldmatrix<4, false>(x[i], i > 0 || at >= 0 ? plane + at + 64 * i : zeros);
#pragma unroll
        for (int d = 0; d < LINES; d++)
#pragma unroll
            for (int i = 0; i + d < LINES; i++) mma_16816(y[i + d], x[i], h[d]);
    }
}
/* In the plane c + skip u takes the place of u. */
template <int LINES>
static __device__ __forceinline__ void sweep_in_place(uint32_t *plane, const uint32_t *table, const uint32_t *zeros, int32_t room, float skip)
{
    float y[LINES][4];
    const int lane = fresh((int)threadIdx.x) % 32, g = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < LINES; i++) y[i][0] = y[i][1] = y[i][2] = y[i][3] = 0.0f;
    sweep<LINES>(y, plane, table + (g % 2 ? room / 2 + BEFORE : 0) + g / 2 - q + BEFORE, zeros);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * LINES; i++) {
        uint32_t *x = plane + 32 * i + fresh(lane);
        *x = pack_bf16(fmaf(skip, low_bf16(*x), y[i / 2][i % 2 * 2]), fmaf(skip, high_bf16(*x), y[i / 2][i % 2 * 2 + 1]));
    }
    __syncwarp();
}

/* All products of a channel by one warp, of `left` sequences where they are swept. */
template <int SEQS, int LINES, int GROUPS>
static __device__ __forceinline__ void multiply_channel(uint32_t *plane, const uint32_t *table, const uint32_t *zeros, int32_t room, float skip, int32_t left)
{
    if constexpr (LINES > 0) {
#pragma unroll 1
        for (int s = 0; s < SEQS && s < left; s++) sweep_in_place<LINES>(plane + s * line_words(room), table, zeros, room, skip);
    } else {
#pragma unroll 1
        for (int32_t r = room / GROUP<SEQS> - GROUPS; r > -GROUPS; r -= GROUPS) {
            float sum[4 * GROUPS][4];
            convolve<SEQS, GROUPS>(sum, plane, table, zeros, r, room);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < GROUPS; i++)
                if (r + i >= 0) put_group<SEQS>(sum + 4 * i, plane, r + i, room, skip);
            __syncwarp();
        }
    }
}

/* Blocks: (group of channels, some sequences, member). N: rows of a pair of channels under way at a time. */
template <int SEQS, int LINES, int GROUPS, int THREADS, int N, int TAPS, typename PAIR>
static __global__ __launch_bounds__(THREADS, THREADS > 256 ? 1 : LINES > 2 || TAPS > 3 ? 2 : 3) void mix(Mix a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, planes);
    uint32_t *table = planes + plane_at<SEQS>(CHANNELS, a.room), *zeros = table + CHANNELS * table_words(a.room);
    Weights<TAPS> *w = (Weights<TAPS> *)(zeros + ZEROS);
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m], c0 = (int32_t)blockIdx.x * CHANNELS, s0 = (int32_t)blockIdx.y * a.per;
    const int32_t end = s0 + a.per < n ? s0 + a.per : n;
    if (s0 >= end) return;
    if (threadIdx.x < ZEROS) zeros[threadIdx.x] = 0;
    fill_weights(w, a, m, c0);
    fill_tables(table, a, m, c0);
    __syncthreads();
#pragma unroll 1
    for (int32_t s = s0; s < end; s += SEQS) {
        put_u<SEQS, THREADS, N, TAPS, PAIR>(planes, *w, a, s, end);   /* a thread writes where it has read                                         */
        __syncthreads();
#pragma unroll 1
        for (int c = (int)threadIdx.x / 32; c < CHANNELS && c0 + c < a.cols; c += THREADS / 32) {
            multiply_channel<SEQS, LINES, GROUPS>(planes + plane_at<SEQS>(c, a.room), table + c * table_words(a.room), zeros, a.room,
                                                  arg_get(a.skip, m * a.skip.member + c0 + c), end - s);
        }
        __syncthreads();
        put_y<SEQS, THREADS, N, TAPS, PAIR>(planes, *w, a, s, end);
    }
}

/* ---- choosing ---- */
enum { MOST_SHARED = 227 * 1024, PROCESSORS = 132 };
enum { BLOCK = 128 };                                     /* rows of a line                                                            */
template <int SEQS, int LINES> static int32_t room_of(int32_t rows)
{
    return LINES > 0 ? LINES * BLOCK : (int32_t)mdr_ceil_div(rows, GROUP<SEQS>) * GROUP<SEQS>;
}
template <int SEQS, int LINES> static size_t bytes_of(int32_t rows)
{
    const int32_t room = room_of<SEQS, LINES>(rows);
    return sizeof(uint32_t) * (size_t)(plane_at<SEQS>(CHANNELS, room) + CHANNELS * table_words(room) + ZEROS) + sizeof(Weights<8>);
}
static bool by_pairs(const Arg &a) { return a.size == 2 && (uintptr_t)a.data % 4 == 0 && a.member % 2 == 0 && a.seq % 2 == 0 && a.ld % 2 == 0; }

/* Blocks with several groups of sequences make their tables once; some waves of blocks, for the last one is not full. No bit depends on it. */
template <int SEQS, int LINES, int GROUPS, int THREADS> static void launch(const Call *c, Mix a)
{
    const int64_t channels = mdr_ceil_div(a.cols, CHANNELS), each = channels * c->extent.n_member, all = mdr_ceil_div(c->extent.n_seq, SEQS);
    const int64_t parts = mdr_ceil_div(16 * PROCESSORS, each), per = mdr_ceil_div(all, parts < all ? parts : all);
    const size_t bytes = bytes_of<SEQS, LINES>(a.rows);
    constexpr int FEW = THREADS > 256 || LINES > 2 ? 8 : 4; /* three blocks side by side need fewer rows each                            */
    a.room = room_of<SEQS, LINES>(a.rows);
    a.per = (int32_t)per * SEQS;
    const dim3 grid = mdr_grid(channels, mdr_ceil_div(c->extent.n_seq, a.per), c->extent.n_member);
#define MIX(...)                                                                                                                               \
    do {                                                                                                                                       \
        MDR_ALLOW_SHARED((mix<SEQS, LINES, GROUPS, THREADS, __VA_ARGS__>), bytes);                                                             \
        MDR_LAUNCH((mix<SEQS, LINES, GROUPS, THREADS, __VA_ARGS__>), grid, THREADS, bytes, c->stream, a);                                      \
    } while (0)
    if (!by_pairs(a.z) || !by_pairs(a.y)) MIX(2, 8, float2);
    else if (a.taps > 3) MIX(4, 8, uint32_t);
    else MIX(FEW, 3, uint32_t);
#undef MIX
}
static void hyena_mix(const Call *c, int64_t, int64_t)
{
    const Shape z = c->node->in_type[IN_Z].shape, h = c->node->in_type[IN_H].shape;
    const Mix a = {c->in[IN_Z], c->in[IN_W], c->in[IN_B], c->in[IN_H], c->in[IN_SKIP], c->out[0], c->n_seq, h.d[0], h.d[1], z.d[1],
                   c->node->in_type[IN_W].shape.d[0], 0, 0};
    const int32_t lines = (int32_t)mdr_ceil_div(h.d[0], BLOCK);
    if (lines == 1) launch<8, 0, 2, 256>(c, a);
    else if (lines <= 2) launch<4, 2, 1, 256>(c, a);
    else if (lines <= 4) launch<2, 4, 1, 256>(c, a);
    else if (lines <= 8) launch<1, 8, 1, 256>(c, a);
    else if (bytes_of<4, 0>(h.d[0]) <= MOST_SHARED) launch<4, 0, 4, 512>(c, a);
    else launch<2, 0, 4, 512>(c, a);
}
static bool applies(const Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, h = n->in_type[IN_H].shape;
    for (int i = IN_W; i <= IN_SKIP; i++)
        if (n->in_type[i].axes & MDR_AXIS_SEQ) return false;
    return z.d[1] % 8 == 0 && h.d[1] % 8 == 0 && bytes_of<2, 0>(h.d[0]) <= MOST_SHARED;
}

extern "C" const CudaRow mdr_cuda_rows_hyena_mix[] = {{"hyena_mix", {hyena_mix, NULL, NULL, {}}, applies, 0, 0}, {}};
