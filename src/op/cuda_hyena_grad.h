/* What the kernels of Hyena's gradient share on the GPU (hyena_mix_grad.cu). A warp has one channel and 8 sequences:
 * values lie as words of two neighbouring rows in a plane [sequence][row], 8 x 8 pieces of which are operands of mma (sequences are its
 * n). Everything linear in time is a product with a Toeplitz matrix made of pieces f(d), d the distance of their corners:
 *   f(d): lane (g, q) holds (h[d+g-2q], h[d+g-2q-1]),     transposed: (h[d+2q-g], h[d+2q+1-g])
 * The short convolution is one, too: a band, of which f(0) and f(8) are all. Sums come as (row g, sequences 2q, 2q+1); packed and transposed
 * (movmatrix) they are operands again.
 * Sequences of more than 128 rows take 2, 4 or 8 lines of a plane instead of one: every line is 128 rows, LINES of them a sequence.
 * Channel c of C = 4 gap reads columns c + k gap of z's 3 gap ones: channels c0 + k gap, k = 0..3, and z's columns c0, c0 + gap,
 * c0 + 2 gap are a world of their own. A block has 8 neighbouring c0. */
#ifndef MDR_CUDA_HYENA_GRAD_H
#define MDR_CUDA_HYENA_GRAD_H
#include "op/cuda_chunks.h"
#include "op/cuda_mma.h"
#include "op/cuda_tile.h"

static constexpr int TURNS = 4, COLS_Z = 3, ROLES = 3;    /* k; columns of z, and of what the short convolution makes, a channel  */
static constexpr int MOST_TAPS = 3, EIGHT = 8, PAD = 4, BLOCK = 128, TILES = BLOCK / 16;
/* In words. Before a plane's line stand the rows before it, zeros before the first one. */
static constexpr int LINE = BLOCK / 2 + PAD, PLANE = EIGHT * LINE;
static constexpr int BEFORE = 4;                           /* tables begin with word -4                                            */
template <int PLACES> constexpr int OTHER = PLACES / 2 + 16;          /* from the even table to the odd one, 16 banks apart        */
template <int PLACES> constexpr int TABLE = OTHER<PLACES> + PLACES / 2 + BEFORE;
static constexpr int BAND = 16;                            /* places of a band's table; in the gap between its halves:             */
static constexpr int AT_BIAS = BAND / 2 + BEFORE, AT_ZERO = AT_BIAS + 1;

/* This thread's number, of which the compiler forgets that it knew it: what follows from it is computed anew where it would have kept
 * registers that sums need. */
static __device__ __forceinline__ int my_number(void)
{
    unsigned x = threadIdx.x;
    asm volatile("" : "+r"(x));
    return (int)x;
}

/* ---- Toeplitz matrices ---- */
/* The lane's word of f(0), from the beginning of a table; f(d) is d / 2 further. */
template <int PLACES> static __device__ __forceinline__ int lane_word(void)
{
    const int lane = my_number() % 32, g = lane / 4, q = lane % 4;
    return (g % 2 ? OTHER<PLACES> : 0) + g / 2 - q + BEFORE;
}
/* Word j of both tables of a filter whose place x is v(x): (v[2j], v[2j-1]) and (v[2j+1], v[2j]). */
template <int PLACES> static __device__ __forceinline__ void put_words(uint32_t *table, int j, float before, float here, float next)
{
    table[j + BEFORE] = pack_bf16(here, before);
    table[j + BEFORE + OTHER<PLACES>] = pack_bf16(next, here);
}
/* A band's operands: for the 16 rows of a tile, for the 8 before; transposed: the 8 after. mma wants words side by side: each of them is
 * read for itself (volatile), or the compiler puts copies side by side before every product. table: the band's, at: lane_word. */
struct Band { uint32_t here[4], near[2]; };
static __device__ __forceinline__ Band make_band(const volatile uint32_t *table, int at)
{
    return Band{{table[at], table[at + 4], table[AT_ZERO], table[at]}, {table[at + 4], table[AT_ZERO]}};
}
/* Of this one the compiler may put together what it likes: where it is used, sums have nearly all registers. */
static __device__ __forceinline__ Band make_band_back(const uint32_t *table, int at)
{
    const uint32_t a = transpose_8x8(table[at]), b = transpose_8x8(table[at + 4]);
    return Band{{a, 0, b, a}, {0, b}};
}
static __device__ __forceinline__ void make_bias(float bias[4], const volatile uint32_t *table)
{
#pragma unroll
    for (int i = 0; i < 4; i++) bias[i] = __uint_as_float(table[AT_BIAS]);
}
/* sum = bias + band times rows. */
static __device__ __forceinline__ void convolve_short(float sum[4], const float bias[4], const Band &f, const uint32_t now[2], uint32_t before)
{
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] = bias[i];
    mma_16816(sum, f.here, now);
    mma_1688(sum, f.near, before);
}
/* y[i - FIRST] += tile i of T x, TURNED: of T^T x, for i = FIRST .. FIRST + N - 1 of a block of 128 rows. f: the lane's word of f(0). */
template <bool TURNED, int FIRST, int N> static __device__ __forceinline__ void convolve(float (*y)[4], const uint32_t (*x)[2], const uint32_t *f)
{
    uint32_t last = 0;
#pragma unroll
    for (int e = 0; e < (TURNED ? TILES - FIRST : FIRST + N); e++) {
        const uint32_t here = TURNED ? transpose_8x8(f[8 * e]) : f[8 * e], next = TURNED ? transpose_8x8(f[8 * e + 4]) : f[8 * e + 4];
        const uint32_t a[4] = {here, TURNED ? last : next, TURNED ? next : last, here};
#pragma unroll
        for (int i = FIRST; i < FIRST + N; i++)
            if (TURNED ? i + e < TILES : i >= e) mma_16816(y[i - FIRST], a, x[TURNED ? i + e : i - e]);
        last = next;
    }
}

/* ---- u and dc on their way from one kernel to the next ---- */
/* Lines of words of two rows, as many as LINES 128 rows have: [member][sequence][channel][word]. u NULL: nobody wants them. */
struct Handed { uint32_t *u, *dc; int32_t n_seq, channels; };
template <int LINES> static __device__ __forceinline__ int64_t handed_line(const Handed &h, int32_t m, int32_t s, int32_t c)
{
    return (((int64_t)m * h.n_seq + s) * h.channels + c) * (LINES * BLOCK / 2);
}

/* ---- planes ---- */
/* Sums of two neighbouring sequences to words of two neighbouring rows: rows 0-7, 8-15. */
static __device__ __forceinline__ void turn(uint32_t word[2], const float v[4])
{
    word[0] = transpose_8x8(pack_bf16(v[0], v[1]));
    word[1] = transpose_8x8(pack_bf16(v[2], v[3]));
}
/* 32 rows from row 32 p on: word[2 i], word[2 i + 1] are rows 16 i on. TURNED: (row g, sequences 2q, 2q+1). */
template <bool TURNED> static __device__ __forceinline__ void read_rows(uint32_t word[4], const uint32_t *plane, int p)
{
    const int lane = my_number() % 32;
    ldmatrix<4, TURNED>(word, plane + lane % 8 * LINE + lane / 8 * 4 + PAD + 16 * p);
}
static __device__ __forceinline__ void open(float v[4], const uint32_t word[2])
{
    v[0] = low_bf16(word[0]); v[1] = high_bf16(word[0]);
    v[2] = low_bf16(word[1]); v[3] = high_bf16(word[1]);
}

/* 8 columns of 8 sequences on their way into planes: a thread copies rows 2 p and 2 p + 1 of a sequence into `raw` (16 bytes each), later
 * takes them from there, pairs them column by column and stores the words. Nobody else reads what it copied. */
static constexpr int RAW = EIGHT * BLOCK;                  /* pieces of 16 bytes                                                    */
struct Group { int32_t m, s, end, rows; };                 /* member, first sequence, beyond the last one, rows of a sequence        */
/* The sequence and first row of pair `id` of rows. */
struct Pair { int32_t s, t; };
template <int LINES> static __device__ __forceinline__ Pair pair_at(const Group &w, int id)
{
    const int line = id / (BLOCK / 2);
    return Pair{w.s + line / LINES, line % LINES * BLOCK + id % (BLOCK / 2) * 2};
}
template <int THREADS, int LINES> static __device__ __forceinline__ void copy_columns(uint4 *raw, const Panel &p, const Group &w, int32_t col)
{
    const int thread = my_number();
#pragma unroll
    for (int i = 0; i < RAW / 2 / THREADS; i++) {
        const Pair x = pair_at<LINES>(w, i * THREADS + thread);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            uint4 *to = raw + (2 * i + k) * THREADS + thread;
            const bool there = x.s < w.end && x.t + k < w.rows;
            const int64_t at = w.m * p.a.member + (there ? x.s * p.a.seq + (x.t + k) * p.a.ld : 0);
            if (p.wide && p.a.size == 2) {
                copy_16(to, (const bf16 *)p.a.data + at + col, there);
            } else {
#pragma unroll 1
                for (int j = 0; j < 8; j++) put((bf16 *)to + j, there ? arg_get(p.a, at + col + j) : 0.0f);
            }
        }
    }
}
/* 8 columns of two neighbouring rows to the 8 planes. */
static __device__ __forceinline__ void put_pair(uint32_t *to, const uint4 &p, const uint4 &q)
{
    const uint32_t a[4] = {p.x, p.y, p.z, p.w}, b[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        to[2 * j * PLANE] = __byte_perm(a[j], b[j], 0x5410);
        to[(2 * j + 1) * PLANE] = __byte_perm(a[j], b[j], 0x7632);
    }
}
/* Before a line that goes on with a sequence stand the last rows of the line before. */
template <int THREADS, int LINES> static __device__ __forceinline__ void rearrange(uint32_t *planes, const uint4 *raw)
{
    const int thread = my_number();
#pragma unroll
    for (int i = 0; i < RAW / 2 / THREADS; i++) {
        const int id = i * THREADS + thread;
        uint32_t *to = planes + id / (BLOCK / 2) * LINE + PAD + id % (BLOCK / 2);
        const uint4 p = raw[2 * i * THREADS + thread], q = raw[(2 * i + 1) * THREADS + thread];
        put_pair(to, p, q);
        if constexpr (LINES > 1)
            if (id % (BLOCK / 2) >= BLOCK / 2 - PAD && (id / (BLOCK / 2) + 1) % LINES) put_pair(to + PAD, p, q);
    }
}

static __device__ __forceinline__ void put_row(const Panel &p, int64_t at, int32_t col, const uint4 &row)
{
    if (p.wide && p.a.size == 2) {
        *(uint4 *)((bf16 *)p.a.data + at + col) = row;
    } else {
        const float v[8] = {low_bf16(row.x), high_bf16(row.x), low_bf16(row.y), high_bf16(row.y),
                            low_bf16(row.z), high_bf16(row.z), low_bf16(row.w), high_bf16(row.w)};
        write_8(p, at, col, v);
    }
}
/* Words of two rows of 8 columns, the first of them at `at`; left: rows that are there from it on. */
static __device__ __forceinline__ void put_pair_of_rows(const Panel &p, int64_t at, int32_t col, const uint32_t v[8], int32_t left)
{
    if (left <= 0) return;
    put_row(p, at, col, make_uint4(__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[4], v[5], 0x5410),
                                   __byte_perm(v[6], v[7], 0x5410)));
    if (left == 1) return;
    put_row(p, at + p.a.ld, col, make_uint4(__byte_perm(v[0], v[1], 0x7632), __byte_perm(v[2], v[3], 0x7632), __byte_perm(v[4], v[5], 0x7632),
                                            __byte_perm(v[6], v[7], 0x7632)));
}

/* ---- the short convolution of one channel ---- */
/* Tables of the taps of channels role C + k gap + c0 + i, in this order of k, role, i; k from `turn0` on. */
struct Taps { Arg w, b; int32_t taps, gap; };
static __device__ __forceinline__ void fill_bands(uint32_t *table, const Taps &a, int32_t m, int32_t c0, int32_t turn0, int32_t turns)
{
    for (int32_t i = (int32_t)threadIdx.x; i < turns * ROLES * EIGHT * (BAND / 2 + BEFORE); i += (int32_t)blockDim.x) {
        const int32_t c = i % EIGHT, role = i / EIGHT % ROLES, k = i / (EIGHT * ROLES) % turns, j = i / (EIGHT * ROLES * turns) - BEFORE;
        const int32_t channel = (role * TURNS + turn0 + k) * a.gap + c0 + c;
        uint32_t *to = table + ((k * ROLES + role) * EIGHT + c) * TABLE<BAND>;
        float v[3];
#pragma unroll
        for (int x = 0; x < 3; x++) {
            const int32_t back = 2 * j - 1 + x;
            v[x] = back >= 0 && back < a.taps ? ((const float *)a.w.data)[m * a.w.member + (a.taps - 1 - back) * a.w.ld + channel] : 0.0f;
        }
        put_words<BAND>(to, j, v[0], v[1], v[2]);
        if (j != 0) continue;
        to[AT_BIAS] = __float_as_uint(a.b.data ? ((const float *)a.b.data)[m * a.b.member + channel] : 0.0f);
        to[AT_ZERO] = 0;
    }
}

/* Chunks of whole groups of sequences, at most so many; of one sequence, and groups of one, where sums are wanted of each. */
static inline Cut cut_groups(int32_t n_seq, bool together, int64_t most)
{
    Cut k = cut_rows(1, n_seq, together, EIGHT, most);
    if (k.together) {
        k.per = (k.per + EIGHT - 1) / EIGHT * EIGHT;
        k.count = (uint32_t)mdr_ceil_div(n_seq, k.per);
    }
    return k;
}
#endif
