/* attention and rope_attention for heads of up to 8, all rows of a head in one block (attention.cu, attention.c: the equations).
 * G heads a block, side by side, W warps a head. Keys and values of all rows lie in shared memory before the first score, so nobody waits for
 * anybody afterwards: a warp takes 32 query rows and walks their keys, 32 at a time. Besides products and rounding a score costs an
 * exponential and nothing else: q goes in times d^-1/2 log2 e, and there is no shift as long as |q| |k| <= LIMIT bounds every score in powers
 * of two (the largest lengths are known from loading). A block that does not hold that follows the largest scores instead, with more than
 * twice the instructions. A row's sum is one more product, with ones, of the rounded weights. One exponential of four is a polynomial: the
 * special function unit (16 a clock) is what bounds this kernel. q and k are rotated (rope.c) where they lie. */
#ifndef MDR_CUDA_ATTENTION_HEADS_H
#define MDR_CUDA_ATTENTION_HEADS_H
#include "op/cuda_attention.h"

/* LINES: rows that are rotated at a time, of half the heads a thread or, of a single head, of it */
template <int G_, int W_, bool WINDOW_> struct HeadPlan {
    static constexpr int G = G_, W = W_, WARPS = G * W, THREADS = 32 * WARPS, PER_SM = 32 / WARPS, LINES = G > 1 ? THREADS / 2 : THREADS;
    static constexpr bool WINDOW = WINDOW_;
    static size_t bytes(int rows) { return (3 * sizeof(uint4) + sizeof(float)) * (size_t)(G * rows) + sizeof(uint2) * WARPS; }
};
/* Of a turn of pair i from one row to the next, in 2^-32 of a whole turn: what row r has turned is r step, modulo 2^32, to 2^-22 and better. */
struct Turns { uint32_t step[4]; };
struct HeadArgs { Arg q, k, v, y, lse; };
struct Place { int member, seq, head, row; };                         /* of a thread's first row */
template <class P> static __device__ __forceinline__ Place find_place(const AttentionShape &s)
{
    int x = (int)blockIdx.x, thread = (int)threadIdx.x;
    asm volatile("" : "+r"(x), "+r"(thread));                          /* found twice: registers do not hold it meanwhile */
    return {(int)blockIdx.z, x / s.groups, x % s.groups * P::G + thread % P::G, thread / P::G};
}
enum { LIMIT = 80, ONES = 0x3f803f80 };

/* 2^x for |x| < 126 without the special function unit, to 2^-13.7: 2^(nearest integer) by the exponent, the rest by a cubic. */
static __device__ __forceinline__ float exp2_by_cubic(float x)
{
    const float magic = 12582912.0f, moved = x + magic, rest = x - (moved - magic);           /* 1.5 2^23: moved's low bits are the integer */
    float y = 0.0551716685295105f;
    y = fmaf(y, rest, 0.2426111251115799f);
    y = fmaf(y, rest, 0.6932609677314758f);
    y = fmaf(y, rest, 0.9999280571937561f);
    return __uint_as_float(__float_as_uint(y) + (__float_as_uint(moved) << 23));
}
/* Of each four one. */
static __device__ __forceinline__ void powers(float (&s)[4])
{
    s[0] = fast_exp2(s[0]);
    s[1] = fast_exp2(s[1]);
    s[2] = fast_exp2(s[2]);
    s[3] = exp2_by_cubic(s[3]);
}

/* q, k and v of the block's heads into shared memory, zeros where there is none. */
template <class P> static __device__ __forceinline__ void load_rows(uint4 *tile, const HeadArgs &a, const AttentionShape &s, const Place &p)
{
    constexpr int STEP = P::THREADS / P::G;                            /* a multiple of 8: a thread's chunks lie alike in their rows */
    const int all = s.tile * P::G;
    const int64_t column = p.head * s.d;
    uint4 *to = tile + tile_at<P::G>(p.row, (int)threadIdx.x % P::G);
    if (s.vectors) {
        const bf16 *q = (const bf16 *)a.q.data + arg_row(a.q, p.member, p.seq, p.row) + column,
                   *k = (const bf16 *)a.k.data + arg_row(a.k, p.member, p.seq, p.row) + column,
                   *v = (const bf16 *)a.v.data + arg_row(a.v, p.member, p.seq, p.row) + column;
        for (int row = p.row; row < s.tile; row += STEP, to += STEP * P::G) {
            const bool there = row < s.rows && p.head < s.heads;
            copy_16(to, q, there);
            copy_16(to + all, k, there);
            copy_16(to + 2 * all, v, there);
            q += STEP * a.q.ld;
            k += STEP * a.k.ld;
            v += STEP * a.v.ld;
        }
    } else {
        for (int row = p.row; row < s.tile; row += STEP, to += STEP * P::G) {
            const int d = row < s.rows && p.head < s.heads ? s.d : 0;
            to[0] = get_elements(a.q.data, (int)a.q.size, arg_row(a.q, p.member, p.seq, row) + column, d);
            to[all] = get_elements(a.k.data, (int)a.k.size, arg_row(a.k, p.member, p.seq, row) + column, d);
            to[2 * all] = get_elements(a.v.data, (int)a.v.size, arg_row(a.v, p.member, p.seq, row) + column, d);
        }
    }
    copy_commit();
    copy_wait<0>();
    __syncthreads();
}

/* A row of a head, (x1, x2) -> (x1 c - x2 s, x2 c + x1 s); the square of its length, as the word of a float: positive ones have floats' order,
 * what is not a number is larger than any. */
static __device__ __forceinline__ uint32_t turn_row(uint4 *row, const float (&c)[4], const float (&s)[4])
{
    const uint4 u = *row;
    const uint32_t w[4] = {u.x, u.y, u.z, u.w};
    uint32_t y[4];
    float square[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float a1 = low_bf16(w[i]), a2 = low_bf16(w[i + 2]), b1 = high_bf16(w[i]), b2 = high_bf16(w[i + 2]);
        const float a[2] = {a1 * c[2 * i] - a2 * s[2 * i], a2 * c[2 * i] + a1 * s[2 * i]},
                    b[2] = {b1 * c[2 * i + 1] - b2 * s[2 * i + 1], b2 * c[2 * i + 1] + b1 * s[2 * i + 1]};
        y[i] = pack_bf16(a[0], b[0]);
        y[i + 2] = pack_bf16(a[1], b[1]);
#pragma unroll
        for (int e = 0; e < 2; e++) square[e] = fmaf(a[e], a[e], fmaf(b[e], b[e], square[e]));
    }
    *row = make_uint4(y[0], y[1], y[2], y[3]);
    return __float_as_uint(square[0] + square[1]) & 0x7fffffffu;
}
/* Rotates q and k in shared memory and scales q; does LIMIT bound all scores? */
template <class P> static __device__ __forceinline__ bool turn_heads(uint4 *tile, uint2 *most, const AttentionShape &s, const Turns &turns)
{
    constexpr int EACH = P::G > 1 ? P::G / 2 : 1;
    const int all = s.tile * P::G, first = (int)threadIdx.x / P::LINES * EACH;
    uint32_t most_q = 0, most_k = 0;
    for (int row = (int)threadIdx.x % P::LINES; row < s.tile; row += P::LINES) {
        float c[4], sn[4], scaled_c[4], scaled_s[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float angle = (float)(int32_t)((uint32_t)row * turns.step[i]) * 1.46291807926715968e-9f;      /* 2 pi / 2^32 */
            c[i] = __cosf(angle);
            sn[i] = __sinf(angle);
            scaled_c[i] = c[i] * s.unit;
            scaled_s[i] = sn[i] * s.unit;
        }
#pragma unroll
        for (int h = 0; h < EACH; h++) {
            uint4 *q = tile + tile_at<P::G>(row, first + h);
            most_q = max(most_q, turn_row(q, scaled_c, scaled_s));
            most_k = max(most_k, turn_row(q + all, c, sn));
        }
    }
    most_q = __reduce_max_sync(0xffffffffu, most_q);
    most_k = __reduce_max_sync(0xffffffffu, most_k);
    if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = make_uint2(most_q, most_k);
    __syncthreads();
#pragma unroll
    for (int w = 0; w < P::WARPS; w++) {
        most_q = max(most_q, most[w].x);
        most_k = max(most_k, most[w].y);
    }
    return __uint_as_float(most_q) * __uint_as_float(most_k) <= (float)(LIMIT * LIMIT);
}

/* 16 query rows: a lane has rows g and g+8. sum: both twice, from all columns */
struct HeadRows { uint32_t q[2]; float y[4], sum[4]; };

static __device__ __forceinline__ void weigh(HeadRows &r, const uint32_t p[4], const uint32_t *v)
{
    const uint32_t ones[2] = {ONES, ONES};
    mma_16816(r.y, p, v);
    mma_16816(r.sum, p, ones);
}
/* For the weights of a key that is `ahead` rows before the query and of the next key: all bits where it is seen. reach: the window, or any */
static __device__ __forceinline__ uint32_t seen_both(int ahead, uint32_t reach)
{
    return ((uint32_t)ahead <= reach ? 0xffffu : 0u) | ((uint32_t)(ahead - 1) <= reach ? 0xffff0000u : 0u);
}
/* 32 keys. MASKED: some may be hidden; ahead: how far the lane's first query is before its first key */
template <bool MASKED> static __device__ __forceinline__ void add_keys(HeadRows &r, const uint32_t k[4], const uint32_t v[4], int ahead, uint32_t reach)
{
    float s[2][2][4] = {};
#pragma unroll
    for (int j = 0; j < 4; j++) mma_1688(s[j / 2][j % 2], r.q, k[j]);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        powers(s[n][0]);
        powers(s[n][1]);
        uint32_t p[4];
        pack_operand(p, s[n]);
        if constexpr (MASKED) {
#pragma unroll
            for (int i = 0; i < 4; i++) p[i] &= seen_both(ahead + i % 2 * 8 - 16 * n - i / 2 * 8, reach);
        }
        weigh(r, p, v + 2 * n);
    }
}
/* The 16 keys of the query rows' own places. lower: what the lane sees of a square of 8 on the diagonal */
static __device__ __forceinline__ void add_own_keys(HeadRows &r, const uint32_t *k, const uint32_t *v, uint32_t lower)
{
    float s[2][4] = {};
    mma_1688(s[0], r.q, k[0]);
    mma_1688(s[1], r.q, k[1]);
    powers(s[0]);
    const uint32_t p[4] = {pack_bf16(s[0][0], s[0][1]) & lower, pack_bf16(s[0][2], s[0][3]), 0u,
                           pack_bf16(fast_exp2(s[1][2]), exp2_by_cubic(s[1][3])) & lower};
    weigh(r, p, v);
}
/* 16 keys all of which are seen. */
static __device__ __forceinline__ void add_16_keys(HeadRows &r, const uint32_t *k, const uint32_t *v)
{
    float s[2][4] = {};
    mma_1688(s[0], r.q, k[0]);
    mma_1688(s[1], r.q, k[1]);
    powers(s[0]);
    powers(s[1]);
    uint32_t p[4];
    pack_operand(p, s);
    weigh(r, p, v);
}
/* 32 keys where scores know no bound: most is the largest yet. */
static __device__ __forceinline__ void add_keys_shifted(HeadRows &r, float (&most)[2], const uint32_t k[4], const uint32_t v[4], int ahead, uint32_t reach)
{
    float s[2][2][4] = {}, top[2] = {most[0], most[1]};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        mma_1688(s[j / 2][j % 2], r.q, k[j]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float &x = s[j / 2][j % 2][i];
            if ((uint32_t)(ahead - 8 * j - i % 2 + i / 2 * 8) > reach) x = -INFINITY;
            top[i / 2] = fmaxf(top[i / 2], x);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (i % 2 == 0) {
            top[i / 2] = fmaxf(top[i / 2], __shfl_xor_sync(0xffffffffu, top[i / 2], 1));
            top[i / 2] = fmaxf(top[i / 2], __shfl_xor_sync(0xffffffffu, top[i / 2], 2));
        }
        const float factor = fast_exp2(most[i / 2] - top[i / 2]);
        r.y[i] *= factor;
        r.sum[i] *= factor;
    }
    most[0] = top[0];
    most[1] = top[1];
#pragma unroll
    for (int n = 0; n < 2; n++) {
        uint32_t p[4];
#pragma unroll
        for (int i = 0; i < 8; i++) s[n][i / 4][i % 4] = fast_exp2(s[n][i / 4][i % 4] - most[i / 2 % 2]);
        pack_operand(p, s[n]);
        weigh(r, p, v + 2 * n);
    }
}

/* The 32 query rows of `pair` against all that they see. Q, K: this lane's place for ldmatrix in the first 32 rows; all: from q to k, and to v */
template <class P>
static __device__ __forceinline__ void attend_pair(HeadRows (&r)[2], const uint4 *Q, int all, int pair, int lane, int window)
{
    constexpr int STEP = 32 * P::G;
    const int ahead = (lane >> 2) - (lane & 3) * 2;
    int step = P::WINDOW && 32 * pair > window ? (32 * pair - window) / 32 : 0;
    const int whole = P::WINDOW ? (32 * pair + 62 - window) / 32 : 0;           /* the first step of which the window hides nothing */
    const uint4 *K = Q + all + step * STEP;
    uint32_t k[4], v[4];
    if constexpr (P::WINDOW) {
#pragma unroll 1
        for (; step < pair && step < whole; step++, K += STEP) {
            ldmatrix<4, false>(k, K);
            ldmatrix<4, true>(v, K + all);
            int from = ahead + 32 * (pair - step);
            asm volatile("" : "+r"(from));
#pragma unroll
            for (int i = 0; i < 2; i++) add_keys<true>(r[i], k, v, from + 16 * i, (uint32_t)window);
        }
    }
#pragma unroll 1
    for (; step < pair; step++, K += STEP) {
        ldmatrix<4, false>(k, K);
        ldmatrix<4, true>(v, K + all);
#pragma unroll
        for (int i = 0; i < 2; i++) add_keys<false>(r[i], k, v, 0, 0);
    }
    ldmatrix<4, false>(k, K);
    ldmatrix<4, true>(v, K + all);
    if (P::WINDOW && pair < whole) {
#pragma unroll
        for (int i = 0; i < 2; i++) add_keys<true>(r[i], k, v, ahead + 16 * i, (uint32_t)window);
        return;
    }
    const uint32_t lower = seen_both(ahead, 32);
    add_own_keys(r[0], k, v, lower);
    add_16_keys(r[1], k, v);
    add_own_keys(r[1], k + 2, v + 2, lower);
}
/* 16 query rows from row0 on against all that they see, where scores know no bound. */
template <class P>
static __device__ __forceinline__ void attend_shifted(HeadRows &r, float (&most)[2], const uint4 *Q, int all, int row0, int lane, int window)
{
    const uint32_t reach = P::WINDOW ? (uint32_t)window : 0x7fffffffu;
#pragma unroll 1
    for (int key = P::WINDOW && row0 > window ? (row0 - window) / 32 * 32 : 0; key <= row0; key += 32) {
        uint32_t k[4], v[4];
        ldmatrix<4, false>(k, Q + all + key * P::G);
        ldmatrix<4, true>(v, Q + 2 * all + key * P::G);
        add_keys_shifted(r, most, k, v, row0 - key + (lane >> 2) - (lane & 3) * 2, reach);
    }
}
/* y to q's place, which nobody else reads. */
template <class P>
static __device__ __forceinline__ void put_rows(uint4 *tile, float *lse, const HeadRows &r, float most0, float most1, int row0, int h, int lane)
{
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = row0 + 8 * i + (lane >> 2);
        const float sum = r.sum[2 * i], part = __fdividef(1.0f, sum);
        ((uint32_t *)(tile + tile_at<P::G>(row, h)))[lane & 3] = pack_bf16(r.y[2 * i] * part, r.y[2 * i + 1] * part);
        if ((lane & 3) == 0) lse[row * P::G + h] = ((i ? most1 : most0) + __log2f(sum)) * LN2;
    }
}

template <class P> static __device__ __forceinline__ void store_heads(const uint4 *tile, const float *lse, const HeadArgs &a, const AttentionShape &s,
                                                                      const Place &p)
{
    constexpr int STEP = P::THREADS / P::G;
    if (p.head >= s.heads) return;
    const uint4 *from = tile + tile_at<P::G>(p.row, (int)threadIdx.x % P::G);
    const float *stat = lse + threadIdx.x;
    int64_t to = arg_row(a.y, p.member, p.seq, p.row) + p.head * s.d, to_lse = arg_row(a.lse, p.member, p.seq, p.row) + p.head;
    for (int row = p.row; row < s.rows; row += STEP, from += STEP * P::G, stat += P::THREADS) {
        if (a.lse.data) arg_put(a.lse, to_lse, *stat);
        if (s.vectors && a.y.data) *(uint4 *)((bf16 *)a.y.data + to) = *from;
        else if (a.y.data)
            for (int i = 0; i < s.d; i++) arg_put(a.y, to + i, to_float(((const bf16 *)from)[i]));
        to += STEP * a.y.ld;
        to_lse += STEP * a.lse.ld;
    }
}

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_heads(HeadArgs a, Turns turns, const int32_t *n_seq,
                                                                                                AttentionShape s)
{
    mdr_begin();
    MDR_SHARED(uint4, tile);                                           /* q, k, v: [s.tile][G]; y takes q's place */
    const int all = s.tile * P::G, warp = (int)threadIdx.x / 32, h = warp / P::W, w = warp % P::W;
    float *lse = (float *)(tile + 3 * all);                            /* [s.tile][G] */
    const Place first = find_place<P>(s);
    if (first.seq >= n_seq[first.member]) return;
    load_rows<P>(tile, a, s, first);
    const bool bounded = turn_heads<P>(tile, (uint2 *)(lse + all), s, turns);
    int lane = (int)threadIdx.x % 32;
    const uint4 *mine = tile + tile_at<P::G>(lane, h);
    const bool idle = (int)blockIdx.x % s.groups * P::G + h >= s.heads;
#pragma unroll 1
    for (int pair = idle ? s.rows : w, on = 2 * (P::W - w) - 1; 32 * pair < s.rows; pair += on, on = 2 * P::W - on) {       /* to and fro: to all alike */
        const int row0 = 32 * pair;
        asm volatile("" : "+r"(lane));                                 /* what follows from it is made anew: no room for it either */
        uint32_t q[4];
        ldmatrix<4, false>(q, mine + row0 * P::G);
        if (bounded) {
            HeadRows r[2] = {{{q[0], q[1]}, {}, {}}, {{q[2], q[3]}, {}, {}}};
            attend_pair<P>(r, mine, all, pair, lane, s.window);
            put_rows<P>(tile, lse, r[0], 0.0f, 0.0f, row0, h, lane);
            put_rows<P>(tile, lse, r[1], 0.0f, 0.0f, row0 + 16, h, lane);
        } else {
#pragma unroll 1
            for (int i = 0; i < 2; i++) {
                HeadRows r = {{i ? q[2] : q[0], i ? q[3] : q[1]}, {}, {}};
                float most[2] = {-1e30f, -1e30f};                      /* finite: less minus less is not NaN */
                attend_shifted<P>(r, most, mine, all, row0 + 16 * i, lane, s.window);
                put_rows<P>(tile, lse, r, most[0], most[1], row0 + 16 * i, h, lane);
            }
        }
    }
    __syncthreads();
    store_heads<P>(tile, lse, a, s, find_place<P>(s));
}

template <int G, int W, bool WINDOW> static void enqueue_heads(const Call *c, AttentionShape s, const Turns &turns)
{
    using P = HeadPlan<G, W, WINDOW>;
    s.groups = (int32_t)mdr_ceil_div(s.heads, G);
    s.blocks = 1;
    s.tile = (int32_t)mdr_ceil_div(s.rows, 32) * 32;
    const HeadArgs a = {c->in[0], c->in[1], c->in[2], c->out[0], c->out[1]};
    MDR_ALLOW_SHARED(attend_heads<P>, P::bytes(s.tile));
    MDR_LAUNCH((attend_heads<P>), attention_grid(c, s), P::THREADS, P::bytes(s.tile), c->stream, a, turns, c->n_seq, s);
}
template <bool WINDOW> static void enqueue_rows(const Call *c, const AttentionShape &s, const Turns &turns)
{
    if (s.rows <= 128) enqueue_heads<8, 1, WINDOW>(c, s, turns);
    else if (s.rows <= 256) enqueue_heads<4, 2, WINDOW>(c, s, turns);
    else if (s.rows <= 512) enqueue_heads<2, 4, WINDOW>(c, s, turns);
    else if (s.rows <= 1024) enqueue_heads<1, 8, WINDOW>(c, s, turns);
    else enqueue_heads<1, 16, WINDOW>(c, s, turns);
}
static void enqueue_8(const Call *c, const AttentionShape &s, const Turns &turns)
{
    if (s.window && s.window < s.rows - 1) enqueue_rows<true>(c, s, turns);
    else enqueue_rows<false>(c, s, turns);
}
#endif
