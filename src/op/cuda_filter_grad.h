/* hyena_filter_grad on CUDA, in bf16, of more than 128 rows: dh[j] = sum over sequences and t of dc[t] u[t-j], with u and dc recomputed from
 * z and dy.
 * A block has 16 neighbouring channels and a chunk of sequences, of which it takes two at a time: u and dc of both stand in shared memory as
 * words (one sequence, the other) for each t, a plane for each channel. A warp has one channel, and all of its dh in registers:
 *   with j = 16 q + p:  dh[16 q + p] = sum over t of dc[t + p] u[t - 16 q],
 * a product [16 p] x [q] contracted over sequences and t. Both operands are words of the planes just as they stand, for the halves of a word
 * are two sequences: at any distance t + p begins with a word. A tile of 128 t of dc meets one of u in one sum of [16 p] x [8 q], which has
 * 128 places of h; with tiles that lie as far apart it meets the others, so a few loads serve for many products: 20 for 18 of 16 x 8 x 16.
 * Products are as many as by the other way, rows of dc by rows of u (L^2 / 2 of a sequence and channel, and 1/8 for what sticks out of the
 * triangle). There 8 loads serve for 16 products, but a place of h is 16 sums, to be added up at last: one channel fills a processor's
 * registers, so u and dc, which come of 16 neighbouring channels, have to go to memory and come back, 0.5 GB a batch of 128 x 1,024 rows and
 * 512 channels. Here a place is one sum, 32 registers a lane for 1,024 rows, and u and dc are made where they are used.
 * While one half of the warps multiplies, the other makes the next u and dc, 512 rows of a pair of sequences (of more pairs where they are
 * shorter). Sequences of more rows are made and worked on in two halves. Reads are what takes longest: all that registers can hold
 * are asked for before the first is waited for. */
#ifndef MDR_CUDA_FILTER_GRAD_H
#define MDR_CUDA_FILTER_GRAD_H
#include "op/cuda_hyena_grad.h"

static constexpr int CHANNELS = 16, LONG_THREADS = 32 * CHANNELS, TILE = BLOCK, HALF = 4; /* tiles that are made at a time             */
/* In words. Before a line of u stand the rows before it, zeros before the first; behind one of dc as many as p may reach. After every 16
 * rows of u stand 4 words of nothing: rows 16 apart meet different banks. */
static constexpr int HEAD = 7 * 16, TAIL = 16;
static __host__ __device__ constexpr int place(int row) { return row + row / 16 * 4; }
static constexpr int TAPS = ROLES * (MOST_TAPS + 1);                                   /* of a channel, with its biases                */
enum { MOST_ROWS = 2 * HALF * TILE };
/* N tiles of rows. */
template <int N> struct Lines {
    static constexpr bool HALVES = N > HALF;
    static constexpr int EACH = HALVES ? HALF : N, PAIRS = HALF / EACH;            /* tiles of a line, lines that are made at a time  */
    static constexpr int U = place(HEAD + EACH * TILE), DC = EACH * TILE + TAIL;
    /* Neighbouring planes begin in different banks. */
    static constexpr int AT_DC = (HALVES ? 3 : 2 * PAIRS) * U, PLANE = ((AT_DC + 2 * PAIRS * DC) / 4 | 1) * 4, SHARED = CHANNELS * (PLANE + TAPS + 1) + 1;
};

struct FilterGrad {
    Panel z, dy;
    Arg w, b;
    Arg to;                                                /* dh, or partial sums: a chunk is a sequence                             */
    const int32_t *n_seq;
    int32_t rows, gap, taps, chunk, group;                 /* sequences of a chunk; 128 rows at most: of a group                      */
    uint32_t zero;                                         /* more: see read_dc                                                      */
};
/* x, of which the compiler forgets that it knew it: what follows from it is computed anew where it would have kept registers. */
static __device__ __forceinline__ int fresh(unsigned x)
{
    asm volatile("" : "+r"(x));
    return (int)x;
}
/* Of a block: member, turn, first channel of the turn, sequences before `end`. */
struct Range { int32_t m, turn, c, end; };
static __device__ __forceinline__ Range my_range(int32_t end)
{
    const int32_t x = fresh(blockIdx.x);
    return Range{(int32_t)blockIdx.z, x % TURNS, x / TURNS * CHANNELS, end};
}
/* Planes of channels 0, 2, .. 14, 1, 3, .. 15. */
static __device__ __forceinline__ int channel_of(int plane) { return plane % 8 * 2 + plane / 8; }

/* ---- u and dc ---- */
/* taps[channel][role]: the bias, then the weights of this row, the one before, .. */
static __device__ __forceinline__ void read_taps(float *taps, const FilterGrad &a, const Range &r)
{
    for (int i = (int)threadIdx.x; i < CHANNELS * TAPS; i += LONG_THREADS) {
        const int c = i / TAPS, role = i % TAPS / (MOST_TAPS + 1), back = i % (MOST_TAPS + 1) - 1;
        const int64_t channel = (role * TURNS + r.turn) * a.gap + r.c + c;
        float v = 0.0f;
        if (r.c + c < a.gap) {
            if (back >= 0 && back < a.taps) v = ((const float *)a.w.data)[r.m * a.w.member + (a.taps - 1 - back) * a.w.ld + channel];
            if (back < 0 && a.b.data) v = ((const float *)a.b.data)[r.m * a.b.member + channel];
        }
        taps[i] = v;
    }
}
/* What a lane makes its rows of: two channels of two sequences, from row `row` on. */
struct Source {
    const bf16 *z[2], *dy[2];
    int32_t row, left[2], ld_z, ld_dy, col[ROLES];         /* rows that each still has                                               */
};
/* Neighbouring blocks, which run at the same time, want the rest of the 128 bytes. Row i of both sequences of a role; INSIDE: all rows are there. */
template <bool INSIDE> static __device__ __forceinline__ void read_z(uint32_t (*z)[6], const Source &x, int role, int i)
{
    const int32_t at = i * x.ld_z + x.col[role];
#pragma unroll
    for (int k = 0; k < 2; k++) z[k][i + 2] = INSIDE || (i >= -x.row && i < x.left[k]) ? read_line_word(x.z[k] + at) : 0;
}
template <bool INSIDE> static __device__ __forceinline__ void read_dy(uint32_t (*dy)[4], const Source &x, int i)
{
#pragma unroll
    for (int k = 0; k < 2; k++) dy[k][i] = INSIDE || i < x.left[k] ? read_line_word(x.dy[k] + i * x.ld_dy) : 0;
}
/* Both channels of a word by the short convolution; z: this row and the two before it. */
static __device__ __forceinline__ void convolve(float v[2], const float (*tap)[4], const uint32_t *z)
{
    v[0] = tap[0][0];
    v[1] = tap[1][0];
#pragma unroll
    for (int back = 0; back < MOST_TAPS; back++) {
        v[0] = fmaf(tap[0][1 + back], low_bf16(z[-back]), v[0]);
        v[1] = fmaf(tap[1][1 + back], high_bf16(z[-back]), v[1]);
    }
}
static __device__ __forceinline__ void read_taps_of(float (*tap)[4], const float *taps, int c, int role)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float4 v = *(const float4 *)(taps + (c + i) * TAPS + role * 4);
        tap[i][0] = v.x, tap[i][1] = v.y, tap[i][2] = v.z, tap[i][3] = v.w;
    }
}
static __device__ __forceinline__ void put_words(uint32_t *to, int plane, const uint32_t (*word)[4])
{
#pragma unroll
    for (int j = 0; j < 2; j++) *(uint4 *)(to + j * 8 * plane) = make_uint4(word[j][0], word[j][1], word[j][2], word[j][3]);
}
static __device__ __forceinline__ void make_u(uint32_t (*word)[4], const uint32_t (*x)[6], const uint32_t (*y)[6], const float *taps, int c)
{
    float tap[2][2][4];
    read_taps_of(tap[0], taps, c, 1);
    read_taps_of(tap[1], taps, c, 2);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float v[2][2], w[2][2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            convolve(v[k], tap[0], x[k] + 2 + i);
            convolve(w[k], tap[1], y[k] + 2 + i);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) word[j][i] = pack_bf16(v[0][j] * w[0][j], v[1][j] * w[1][j]);
    }
}
static __device__ __forceinline__ void make_dc(uint32_t (*word)[4], const uint32_t (*x)[6], const uint32_t (*dy)[4], const float *taps, int c)
{
    float tap[2][4];
    read_taps_of(tap, taps, c, 0);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float v[2][2];
#pragma unroll
        for (int k = 0; k < 2; k++) convolve(v[k], tap, x[k] + 2 + i);
        word[0][i] = pack_bf16(v[0][0] * low_bf16(dy[0][i]), v[1][0] * low_bf16(dy[1][i]));
        word[1][i] = pack_bf16(v[0][1] * high_bf16(dy[0][i]), v[1][1] * high_bf16(dy[1][i]));
    }
}
/* Roles 1 and 2 of the next four rows. */
template <bool INSIDE> static __device__ __forceinline__ void read_next(uint32_t (*z)[2][6], Source *x)
{
    x->row += 4;
#pragma unroll
    for (int k = 0; k < 2; k++) x->left[k] -= 4, x->z[k] += 4 * x->ld_z, x->dy[k] += 4 * x->ld_dy;
#pragma unroll
    for (int i = 0; i < 4; i++) read_z<INSIDE>(z[1], *x, 1, i), read_z<INSIDE>(z[2], *x, 2, i);
}
static __device__ __forceinline__ void keep_last(uint32_t (*z)[6])
{
#pragma unroll
    for (int k = 0; k < 2; k++) z[k][0] = z[k][4], z[k][1] = z[k][5];
}
/* 32 rows of two sequences and where they go: lines of plane 0, from their row `at` on. */
struct Rows {
    int32_t s, row;
    uint32_t *u, *dc;
    int at;
};
/* A lane has two channels and 8 rows. */
template <int N, bool INSIDE> static __device__ __forceinline__ void make(const FilterGrad &a, const Range &r, const Rows &to, const float *taps)
{
    constexpr int PLANE = Lines<N>::PLANE;
    const int lane = my_number() % 32, c = lane % 8 * 2, at = to.at + lane / 8 * 8;
    const int32_t row = to.row + lane / 8 * 8;
    uint32_t *u = to.u + c / 2 * PLANE + place(HEAD + at), *dc = to.dc + c / 2 * PLANE + at;
    Source x = {{}, {}, row, {}, (int32_t)a.z.a.ld, (int32_t)a.dy.a.ld, {}};
    const bf16 *z0 = (const bf16 *)a.z.a.data + (arg_row(a.z.a, r.m, to.s, row) + r.c + c);
    const bf16 *dy0 = (const bf16 *)a.dy.a.data + (arg_row(a.dy.a, r.m, to.s, row) + r.turn * a.gap + r.c + c);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        x.z[k] = z0 + k * a.z.a.seq;
        x.dy[k] = dy0 + k * a.dy.a.seq;
        x.left[k] = r.c + c < a.gap && to.s + k < r.end ? a.rows - row : -MOST_TAPS;
    }
#pragma unroll
    for (int role = 0; role < ROLES; role++) x.col[role] = (r.turn + role) % COLS_Z * a.gap;
    uint32_t z[ROLES][2][6], dy[2][4], word[2][4];
#pragma unroll
    for (int i = -2; i < 4; i++) read_z<INSIDE>(z[1], x, 1, i), read_z<INSIDE>(z[2], x, 2, i);
#pragma unroll
    for (int i = -2; i < 0; i++) read_z<INSIDE>(z[0], x, 0, i);
#pragma unroll 1
    for (int half = 0; half < 2; half++, u += 4, dc += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) read_z<INSIDE>(z[0], x, 0, i), read_dy<INSIDE>(dy, x, i);
        __syncwarp();                                      /* or the compiler reads late, and everything waits                       */
        make_u(word, z[1], z[2], taps, c);
        put_words(u, PLANE, word);
        keep_last(z[1]), keep_last(z[2]);
        if (half == 0) read_next<INSIDE>(z, &x);
        __syncwarp();
        make_dc(word, z[0], dy, taps, c);
        put_words(dc, PLANE, word);
        keep_last(z[0]);
    }
}
/* The same of values of any size, anywhere. */
template <int N> static __device__ __forceinline__ void make_slowly(const FilterGrad &a, const Range &r, const Rows &to, const float *taps)
{
    const int lane = my_number() % 32, c = lane % CHANNELS, plane = c / 2 + c % 2 * 8;
#pragma unroll 1
    for (int i = lane / CHANNELS; i < 32; i += 2) {
        const int32_t t = to.row + i;
        uint32_t word[2] = {0, 0};                         /* of u, of dc                                                            */
#pragma unroll 1
        for (int k = 0; k < 2; k++) {
            if (t >= a.rows || to.s + k >= r.end || r.c + c >= a.gap) continue;
            float x1 = 0.0f, u1 = 1.0f;
#pragma unroll 1
            for (int role = 0; role < ROLES; role++) {
                const float *tap = taps + c * TAPS + role * (MOST_TAPS + 1);
                float v = tap[0];
#pragma unroll 1
                for (int32_t back = 0; back < MOST_TAPS && back <= t; back++)
                    v = fmaf(tap[1 + back], arg_get(a.z.a, arg_row(a.z.a, r.m, to.s + k, t - back) + (r.turn + role) % COLS_Z * a.gap + r.c + c), v);
                if (role == 0) x1 = v;
                else u1 *= v;
            }
            x1 *= arg_get(a.dy.a, arg_row(a.dy.a, r.m, to.s + k, t) + r.turn * a.gap + r.c + c);
            word[0] |= pack_bf16(u1, 0.0f) << 16 * k;
            word[1] |= pack_bf16(x1, 0.0f) << 16 * k;
        }
        to.u[plane * Lines<N>::PLANE + place(HEAD + to.at + i)] = word[0];
        to.dc[plane * Lines<N>::PLANE + to.at + i] = word[1];
    }
}
/* The 32 rows that a warp makes in turn `turn`, of a pair of sequences. */
struct Mine { int32_t s, row; int pair, at; };
template <int N> static __device__ __forceinline__ Mine my_rows(int turn, int32_t s)
{
    typedef Lines<N> Is;
    const int id = my_number() / 32, warp = Is::PAIRS == 1 ? id : id % (4 * Is::EACH), pair = Is::PAIRS == 1 ? 0 : id / (4 * Is::EACH);
    return Mine{s + 2 * pair, ((Is::HALVES ? turn % 2 : 0) * HALF * TILE) + warp * 32, pair, warp * 32};
}
/* HALVES: first halves of pairs go to u's lines 0 and 1 by turns, second halves to line 2. */
template <int N> static __device__ __forceinline__ void make_rows(const FilterGrad &a, const Range &r, uint32_t *shared, int turn, int32_t s)
{
    typedef Lines<N> Is;
    const float *taps = (const float *)(shared + CHANNELS * Is::PLANE);
    const Mine x = my_rows<N>(turn, s);
    const int line_u = !Is::HALVES ? turn % 2 * Is::PAIRS + x.pair : turn % 2 ? 2 : turn / 2 % 2;
    const Rows to = {x.s, x.row, shared + line_u * Is::U, shared + Is::AT_DC + (turn % 2 * Is::PAIRS + x.pair) * Is::DC, x.at};
    if (!(a.z.wide && a.z.a.size == 2 && a.dy.wide && a.dy.a.size == 2)) make_slowly<N>(a, r, to, taps);
    else if (to.row == 0 || to.row + 32 > a.rows || to.s + 1 >= r.end || r.c + CHANNELS > a.gap) make<N, false>(a, r, to, taps);
    else make<N, true>(a, r, to, taps);
}
/* ---- the products ---- */
/* dc[t + p] of 16 places p by 8 times t: words t + p, t + 8 + p, t + 8 + p, t + 16 + p, of which the first is known. mma wants them side
 * by side; `zero` is 0, which the compiler does not know: two words that it took for the same it would bring side by side again for every
 * product. */
static __device__ __forceinline__ void read_dc(uint32_t a[4], const uint32_t *dc, uint32_t zero)
{
    a[0] = a[3] ^ zero;
    a[1] = dc[8];
    a[2] = a[1] ^ zero;
    a[3] = dc[16];
}
/* From a line to this lane's row of u's operands: 8 rows 16 apart, of words t on and t + 8 on, of two tiles. */
static __device__ __forceinline__ int u_place(int lane) { return place(HEAD - lane % 8 * 16) + lane / 8 % 2 * 8 + lane / 16 * place(TILE); }

/* All products of a line of tiles or several; HALVES: of the first half, but the last 16 rows, for which dc's next are missing. */
template <int N> static __device__ __forceinline__ void multiply_lines(float (*sum)[4], const uint32_t *u, const uint32_t *dc, uint32_t zero)
{
    typedef Lines<N> Is;
    const int lane = my_number() % 32;
    u += u_place(lane);
    dc += lane / 4 + lane % 4;
#pragma unroll 1
    for (int e = 0; e < 2; e++, u += 4, dc += 4) {
        uint32_t x[HALF][4], y[HALF][2];
#pragma unroll
        for (int i = 0; i < HALF; i++) x[i][3] = dc[i / Is::EACH * Is::DC + i % Is::EACH * TILE];
#pragma unroll
        for (int k = 0; k < 8; k++) {
#pragma unroll
            for (int i = 0; i < HALF; i++) read_dc(x[i], dc + i / Is::EACH * Is::DC + i % Is::EACH * TILE + 16 * k, zero);
#pragma unroll
            for (int i = 0; i < HALF; i += 2) ldmatrix<4, false>(y[i], u + i / Is::EACH * Is::U + i % Is::EACH * place(TILE) + place(16 * k));
            const auto product = [&](int n, int i, int j) { if (!(Is::HALVES && k == 7 && i == 3)) mma_16816(sum[n], x[i], y[j]); };
            if constexpr (N >= HALF) {                 /* sums take turns                                                        */
                product(1, 1, 0), product(0, 0, 0), product(2, 2, 0), product(1, 2, 1), product(0, 1, 1);
                product(3, 3, 0), product(1, 3, 2), product(0, 2, 2), product(2, 3, 1), product(0, 3, 3);
            } else {
                product(0, 0, 0), product(2, 2, 2), product(1, 1, 0), product(3, 3, 2), product(0, 1, 1), product(2, 3, 3);
            }
        }
    }
}
/* The second half: u's first half (`early`) and its second one, dc's second half and the 16 rows before it. */
static __device__ __forceinline__ void multiply_second_half(float (*sum)[4], const uint32_t *early, const uint32_t *u, const uint32_t *dc,
                                                            uint32_t zero)
{
    const int lane = my_number() % 32;
    early += u_place(lane);
    u += u_place(lane);
    dc += lane / 4 + lane % 4;
#pragma unroll 1
    for (int e = 0; e < 2; e++, early += 4, u += 4, dc += 4) {
        uint32_t x[HALF][4], y[2 * HALF][2], at_last[4];
        at_last[3] = dc[-TAIL];
        read_dc(at_last, dc - TAIL, zero);
#pragma unroll
        for (int i = 0; i < HALF; i += 2) ldmatrix<4, false>(y[i], early + i * place(TILE) + place(TILE - TAIL));
#pragma unroll
        for (int i = 0; i < HALF; i++) mma_16816(sum[i], at_last, y[HALF - 1 - i]);
#pragma unroll
        for (int i = 0; i < HALF; i++) x[i][3] = dc[i * TILE];
#pragma unroll 2
        for (int k = 0; k < 8; k++) {
#pragma unroll
            for (int i = 0; i < HALF; i++) read_dc(x[i], dc + i * TILE + 16 * k, zero);
#pragma unroll
            for (int i = 0; i < HALF; i += 2) ldmatrix<4, false>(y[i], early + i * place(TILE) + place(16 * k));
#pragma unroll
            for (int i = 0; i < HALF; i += 2) ldmatrix<4, false>(y[HALF + i], u + i * place(TILE) + place(16 * k));
#pragma unroll
            for (int i = HALF - 1; i >= 0; i--)
#pragma unroll
                for (int n = 0; n < 2 * HALF; n++)
                    if (n <= HALF + i) mma_16816(sum[n], x[i], y[HALF + i - n]);
        }
    }
}

/* What turn `turn` made. */
template <int N> static __device__ __forceinline__ void multiply(float (*sum)[4], uint32_t *shared, int turn, uint32_t zero)
{
    typedef Lines<N> Is;
    const uint32_t *u = shared + my_number() / 32 * Is::PLANE, *dc = u + Is::AT_DC + turn % 2 * Is::PAIRS * Is::DC;
    if constexpr (!Is::HALVES) {
        multiply_lines<N>(sum, u + turn % 2 * Is::PAIRS * Is::U, dc, zero);
    } else {
        u += turn / 2 % 2 * Is::U;
        if (turn % 2) multiply_second_half(sum, u, shared + my_number() / 32 * Is::PLANE + 2 * Is::U, dc, zero);
        else multiply_lines<N>(sum, u, dc, zero);
    }
}

/* ---- a chunk ---- */
/* dh of a channel, as sums lie in lanes, by way of shared memory to where it goes. */
template <int N> static __device__ __forceinline__ void put_sums(const FilterGrad &a, const Range &r, float (*sum)[4], float *shared)
{
    constexpr int LINE = N * TILE + 2;
    typedef Lines<N> Is;
    const int lane = my_number() % 32, warp = my_number() / 32;
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int x = 0; x < 4; x++) {
            float v = sum[n][x];
#pragma unroll
            for (int k = 1; k < Is::PAIRS; k++) v += sum[k * Is::EACH + n][x];
            shared[channel_of(warp) * LINE + n * TILE + lane % 4 * 32 + x % 2 * 16 + x / 2 * 8 + lane / 4] = v;
        }
    __syncthreads();
    const int64_t to = arg_row(a.to, r.m, blockIdx.y, 0) + r.turn * a.gap + r.c;
    const int c = (int)threadIdx.x % CHANNELS;
    for (int j = (int)threadIdx.x / CHANNELS; j < a.rows && r.c + c < a.gap; j += LONG_THREADS / CHANNELS)
        arg_put(a.to, to + j * a.to.ld + c, shared[c * LINE + j]);
}
/* Two of a processor's quarter's four warps make lines first, two multiply first. */
static __device__ __forceinline__ bool makes_first(void) { return threadIdx.x / 128 % 2 == 0; }

/* What the second half takes over of the first one: u's last rows before it, dc's last 16. */
static __device__ __forceinline__ void take_over(uint32_t *shared, int from_u)
{
    typedef Lines<2 * HALF> Is;
    constexpr int PIECES = (HEAD + TAIL) / 4;
    static_assert(CHANNELS * PIECES == LONG_THREADS);
    const int i = my_number(), row = i % PIECES * 4;
    uint32_t *u = shared + i / PIECES * Is::PLANE, *dc = u + Is::AT_DC + Is::DC - HEAD + row;
    const bool of_u = row < HEAD;
    *(uint4 *)(of_u ? u + 2 * Is::U + place(row) : dc - TAIL) = *(const uint4 *)(of_u ? u + from_u * Is::U + place(HALF * TILE + row) : dc - 2 * TAIL);
}
/* Zeros before u's lines and behind dc's. */
template <int N> static __device__ __forceinline__ void clear_ends(uint32_t *shared)
{
    typedef Lines<N> Is;
    constexpr int PIECES = (place(HEAD) + TAIL) / 4, LINES = 2 * Is::PAIRS;
    for (int i = (int)threadIdx.x; i < CHANNELS * LINES * PIECES; i += LONG_THREADS) {
        uint32_t *plane = shared + i / (LINES * PIECES) * Is::PLANE;
        const int line = i / PIECES % LINES, at = i % PIECES * 4;
        *(uint4 *)(plane + (at < place(HEAD) ? line * Is::U + at : Is::AT_DC + (line + 1) * Is::DC - TAIL + at - place(HEAD))) = make_uint4(0, 0, 0, 0);
    }
}
/* The first sequence of what a turn makes. HALVES: two turns a pair. */
template <int N> static __device__ __forceinline__ int32_t sequence_of(const FilterGrad &a, int turn)
{
    return fresh(blockIdx.y) * a.chunk + (Lines<N>::HALVES ? turn / 2 * 2 : turn * 2 * Lines<N>::PAIRS);
}
/* A turn works on what the one before made, in two steps. What is to be known between steps alone stands in shared memory: how many a warp
 * has taken, the end of the sequences. */
template <int N> static __device__ __forceinline__ void sum_chunk(float (*sum)[4], const FilterGrad &a, uint32_t *shared)
{
    volatile int32_t *known = (int32_t *)(shared + CHANNELS * (Lines<N>::PLANE + TAPS));
    for (;;) {
        const int step = known[my_number() / 32], turn = step / 2;
        if (turn > 0 && sequence_of<N>(a, turn - 1) >= known[CHANNELS]) break;
        __syncwarp();
        if (my_number() % 32 == 0) known[my_number() / 32] = step + 1;
        if (step % 2 == 0) __syncthreads();
        if (Lines<N>::HALVES && turn % 2 && step % 2 == 0) take_over(shared, turn / 2 % 2);
        if (makes_first() == (step % 2 == 0)) {
            const Range r = my_range(known[CHANNELS]);
            const int32_t s = sequence_of<N>(a, turn);
            if (s < r.end) make_rows<N>(a, r, shared, turn, s);
        } else if (turn > 0) {
            multiply<N>(sum, shared, turn - 1, a.zero);
        }
        __syncwarp();
    }
}
template <int N> static __global__ __launch_bounds__(LONG_THREADS, 1) void long_filter_grad(FilterGrad a)
{
    mdr_begin();
    typedef Lines<N> Is;
    MDR_SHARED(uint32_t, shared);
    const int32_t n = a.n_seq[blockIdx.z], first = (int32_t)blockIdx.y * a.chunk, end = first + a.chunk < n ? first + a.chunk : n;
    if (first >= end) return;
    clear_ends<N>(shared);
    read_taps((float *)(shared + CHANNELS * Is::PLANE), a, my_range(end));
    if (threadIdx.x <= CHANNELS) shared[Is::SHARED - 1 - CHANNELS + threadIdx.x] = threadIdx.x < CHANNELS ? 0 : (uint32_t)end;
    __syncthreads();
    float sum[N < HALF ? HALF : N][4];
#pragma unroll
    for (int i = 0; i < (N < HALF ? HALF : N); i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    sum_chunk<N>(sum, a, shared);
    put_sums<N>(a, my_range(end), sum, (float *)shared);
}
#endif
