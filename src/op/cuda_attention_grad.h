/* attention's gradient for heads of up to 8, all rows of a head in one block (attention_grad.cu: the equations), with or without the
 * rotation of q and k inside it. Scores are made once, transposed, [keys][queries], so that p and ds, as a product leaves them, are operands of
 * the products that give dv and dk; only dq wants ds turned round. q goes in times d^-1/2 log2 e, and -lse and -D are inside the sums of the
 * products: a score costs one product, one exponential, one multiplication.
 * Up to 128 rows a warp has a head: it walks the tiles of 16 queries, with dk and dv of all keys in registers, and a tile's dq never leaves them.
 * Beyond, W warps share a head. A warp takes 32 keys at a time, with their k, v, dk and dv in registers, and walks the queries that see them
 * from the last down; -lse and -D, three bf16 each, are columns of the products, against ones beside the keys. dq grows in shared memory, where
 * each tile takes the shares of the groups of keys in ascending order: a group follows the one before it down the queries, by a word in which
 * that one says how far it is. Groups are dealt out to and fro, so that all warps have as much to do. */
#ifndef MDR_CUDA_ATTENTION_GRAD_H
#define MDR_CUDA_ATTENTION_GRAD_H
#include "op/cuda_attention.h"
#include <math.h>

typedef struct GradArgs { Arg q, k, v, y, lse, dy, dlse, dq, dk, dv; } GradArgs;

/* G: heads of a block. 8 warps: 128 registers a thread and 112 KB a block at most, two on a processor. */
template <bool TURNED_> struct ShortPlan {
    static constexpr int G = 8, THREADS = 32 * G, BLOCKS = 8, ROWS = 16 * BLOCKS, PER_SM = 2;
    static constexpr bool TURNED = TURNED_, COLUMNS = false;
    static constexpr size_t BYTES = 16 * (size_t)G * (5 * ROWS + 1);
};
template <int W_, bool TURNED_> struct LongPlan {
    static constexpr int W = W_, G = W < 8 ? 8 / W : 1, THREADS = 32 * G * W, KEYS = 32, ROWS = 128 * W, GROUPS = ROWS / KEYS, PER_SM = W > 8 ? 1 : 2;
    static constexpr bool TURNED = TURNED_, COLUMNS = true;
    static constexpr size_t BYTES = 16 * ((size_t)G * 7 * ROWS + 2) + sizeof(int) * G * GROUPS;
};

/* ---- the rotation: a head of 8 is four pairs (column i, column i + 4); table[2 row + i/2]: cos, sin of pair i and of pair i + 1 ---- */
static __global__ void __launch_bounds__(128) make_angles(float2 *table, int count, double log_base)
{
    mdr_begin();
    const int i = (int)(blockIdx.x * 128 + threadIdx.x);
    if (i >= count) return;
    const double angle = i / 4 * exp(-(i % 4) * log_base * 0.25);
    table[i] = make_float2((float)cos(angle), (float)sin(angle));
}
static __device__ __forceinline__ void turn_head(float x[8], const float4 z[2])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float c = i % 2 ? z[i / 2].z : z[i / 2].x, s = i % 2 ? z[i / 2].w : z[i / 2].y, x1 = x[i], x2 = x[i + 4];
        x[i] = x1 * c - x2 * s;
        x[i + 4] = x2 * c + x1 * s;
    }
}
/* Back, where lane t of four holds columns 2t, 2t+1; `mate`: how far the lane with the other halves is. */
static __device__ __forceinline__ float2 turn_back(float2 x, const float4 *table, int row, int t, int mate)
{
    const float other0 = __shfl_xor_sync(0xffffffffu, x.x, mate), other1 = __shfl_xor_sync(0xffffffffu, x.y, mate);
    const float4 z = table[2 * row + t % 2];
    const float s0 = t < 2 ? z.y : -z.y, s1 = t < 2 ? z.w : -z.w;
    return make_float2(x.x * z.x + other0 * s0, x.y * z.z + other1 * s1);
}

/* ---- a row of a head: 16 bytes of bf16, zeros where there is none ---- */
static __device__ __forceinline__ uint4 get_head(const Arg &a, const AttentionShape &s, const Spot &at, int row, int head)
{
    if (row >= s.rows || head >= s.heads) return make_uint4(0, 0, 0, 0);
    const int64_t from = arg_row(a, at.member, at.seq, row) + head * s.d;
    if (s.vectors) return *(const uint4 *)((const bf16 *)a.data + from);
    return get_elements(a.data, (int)a.size, from, s.d);
}
static __device__ __forceinline__ void put_head(const Arg &a, const AttentionShape &s, const Spot &at, int row, int head, uint4 x)
{
    if (!a.data || head >= s.heads) return;
    const int64_t to = arg_row(a, at.member, at.seq, row) + head * s.d;
    if (s.vectors) {
        *(uint4 *)((bf16 *)a.data + to) = x;
        return;
    }
    const uint32_t w[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < s.d) arg_put(a, to + i, i % 2 ? high_bf16(w[i / 2]) : low_bf16(w[i / 2]));
}
static __device__ __forceinline__ void spread(float x[8], uint4 u)
{
    const uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = low_bf16(w[i]);
        x[2 * i + 1] = high_bf16(w[i]);
    }
}
template <bool TURNED> static __device__ __forceinline__ uint4 operand(uint4 u, float factor, const float4 z[2])
{
    float x[8];
    spread(x, u);
    if constexpr (TURNED) turn_head(x, z);
    return make_uint4(pack_bf16(x[0] * factor, x[1] * factor), pack_bf16(x[2] * factor, x[3] * factor), pack_bf16(x[4] * factor, x[5] * factor),
                      pack_bf16(x[6] * factor, x[7] * factor));
}

/* Where the two of row 2r of head h stand that sums of products begin with: -lse in powers of two, and -D, each for rows 2r, 2r+1, 2r, 2r+1:
 * what a lane's four sums want, ready in registers that follow each other. COLUMNS: a row has them as six bf16 instead. */
template <class P> static __device__ __forceinline__ int begin_at(int h, int row) { return h * (P::ROWS + 1) + row; }

static __device__ __forceinline__ float to_bf16(float x) { return low_bf16(pack_bf16(x, 0.0f)); }
/* x and y, as three bf16 each: they are taken up by ones beside k and, three columns on, beside v. */
static __device__ __forceinline__ uint4 as_columns(float x, float y)
{
    const float x0 = to_bf16(x), x1 = to_bf16(x - x0), y0 = to_bf16(y), y1 = to_bf16(y - y0);
    return make_uint4(pack_bf16(x0, x1), pack_bf16(x - x0 - x1, y0), pack_bf16(y1, y - y0 - y1), 0);
}
static __device__ __forceinline__ void put_ones(uint4 *ones)
{
    ones[0] = make_uint4(0x3f803f80u, 0x3f80u, 0, 0);
    ones[1] = make_uint4(0, 0x3f800000u, 0x3f803f80u, 0);
}

/* All rows of the block's heads into shared memory: k, v, q, dy, and where sums begin. Rows past the end: p = 0. */
template <class P>
static __device__ __forceinline__ void load_heads(uint4 *K, float4 *begin, const GradArgs &a, const float4 *table, const AttentionShape &s, const Spot &at,
                                                  int tiles)
{
    constexpr int AT_ONCE = 2, ALL = P::ROWS * P::G;
    const int h = (int)threadIdx.x % P::G, head = at.group * P::G + h;
    for (int row0 = (int)threadIdx.x / P::G; row0 < 16 * tiles; row0 += AT_ONCE * P::THREADS / P::G) {
        uint4 q[AT_ONCE], k[AT_ONCE], v[AT_ONCE], y[AT_ONCE], dy[AT_ONCE];
        float lse[AT_ONCE], dlse[AT_ONCE];
        float4 z[AT_ONCE][2];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            const int row = row0 + n * P::THREADS / P::G;
            const bool there = row < s.rows && head < s.heads;
            q[n] = get_head(a.q, s, at, row, head);
            k[n] = get_head(a.k, s, at, row, head);
            v[n] = get_head(a.v, s, at, row, head);
            y[n] = get_head(a.y, s, at, row, head);
            dy[n] = get_head(a.dy, s, at, row, head);
            lse[n] = there ? arg_get(a.lse, arg_row(a.lse, at.member, at.seq, row) + head) : 1e30f;
            dlse[n] = there && a.dlse.data ? arg_get(a.dlse, arg_row(a.dlse, at.member, at.seq, row) + head) : 0.0f;
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (P::TURNED && row < 16 * tiles) z[n][i] = table[2 * row + i];
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            const int row = row0 + n * P::THREADS / P::G;
            if (row >= 16 * tiles) break;
            uint4 *to = K + tile_at<P::G>(row, h);
            float one[8], other[8], sum = dlse[n];
            to[0] = operand<P::TURNED>(k[n], 1.0f, z[n]);
            to[ALL] = v[n];
            to[2 * ALL] = operand<P::TURNED>(q[n], s.unit, z[n]);
            to[3 * ALL] = dy[n];
            spread(one, y[n]);
            spread(other, dy[n]);
#pragma unroll
            for (int e = 0; e < 8; e++) sum -= one[e] * other[e];
            if constexpr (P::COLUMNS) to[4 * ALL] = as_columns(-LOG2E * lse[n], sum);
            else {
                float *first = (float *)(begin + begin_at<P>(h, row & ~1)) + row % 2;
                first[0] = first[2] = -LOG2E * lse[n];
                first[4] = first[6] = sum;
            }
        }
    }
}

static __device__ __forceinline__ void begin_sum(float (&s)[4], float4 x)
{
    s[0] = x.x;
    s[1] = x.y;
    s[2] = x.z;
    s[3] = x.w;
}
/* Two columns of a row of dq or dk, from lane t of four, to their place in shared memory. */
template <class P>
static __device__ __forceinline__ void put_pair(uint4 *tile, float2 x, float factor, const float4 *table, int row, int h, int t, int mate)
{
    if constexpr (P::TURNED) x = turn_back(x, table, row, t, mate);
    ((uint32_t *)(tile + tile_at<P::G>(row, h)))[t] = pack_bf16(x.x * factor, x.y * factor);
}
/* dk and dv of the 16 keys from `row` on, in the place of their k and v. */
template <class P>
static __device__ __forceinline__ void put_keys(uint4 *K, uint4 *V, const float (&dk)[4], const float (&dv)[4], const float4 *table, int row, int h, int lane)
{
    row += lane >> 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        put_pair<P>(K, make_float2(dk[2 * i], dk[2 * i + 1]), LN2, table, row + 8 * i, h, lane & 3, 2);
        ((uint32_t *)(V + tile_at<P::G>(row + 8 * i, h)))[lane & 3] = pack_bf16(dv[2 * i], dv[2 * i + 1]);
    }
}

/* ---- up to 128 rows: a tile of 16 queries, in registers, against 16 keys at a time ---- */
struct QueryTile {
    uint32_t rows[4], turned[4];      /* q, dy: each 16 rows as two matrices                                              */
    float4 lse[2], product[2];
    float dq[4];
};
static __device__ __forceinline__ void load_queries(QueryTile &t, const uint4 *mine, const float4 *begin, int lane)
{
    ldmatrix<4, false>(t.rows, mine);
    ldmatrix<4, true>(t.turned, mine);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        t.lse[j] = begin[8 * j + (lane & 3) * 2];
        t.product[j] = begin[8 * j + (lane & 3) * 2 + 1];
        t.dq[2 * j] = t.dq[2 * j + 1] = 0.0f;
    }
}
/* The 16 keys at `mine`, `ahead` tiles before the queries. hidden: some key is hidden from some query. */
static __device__ __forceinline__ void add_keys_8(float (&dk)[4], float (&dv)[4], QueryTile &t, const uint4 *mine, bool hidden, int ahead, int window,
                                                  int lane)
{
    uint32_t keys[4], turned[2], p_words[4], ds_words[4], across[4];      /* keys: k, v */
    float p[2][4], ds[2][4];
    ldmatrix<4, false>(keys, mine);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        begin_sum(p[j], t.lse[j]);
        mma_1688(p[j], keys, t.rows[j]);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        begin_sum(ds[j], t.product[j]);
        mma_1688(ds[j], keys + 2, t.rows[2 + j]);
    }
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[j][i] = fast_exp2(p[j][i]);
    if (hidden) {
        asm volatile("" : "+r"(lane));                                 /* its parts are taken anew: no room for them */
        const int before = 16 * ahead + (lane & 3) * 2 - (lane >> 2);  /* rows from the lane's first key to its first query */
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!seen(before + 8 * j + i % 2 - i / 2 * 8, 0, window)) p[j][i] = 0.0f;
    }
    pack_operand(p_words, p);
    mma_16816(dv, p_words, t.turned + 2);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) ds[j][i] *= p[j][i];
    pack_operand(ds_words, ds);
    mma_16816(dk, ds_words, t.turned);
    ldmatrix<2, true>(turned, mine);
    across[0] = transpose_8x8(ds_words[0]);
    across[1] = transpose_8x8(ds_words[2]);
    across[2] = transpose_8x8(ds_words[1]);
    across[3] = transpose_8x8(ds_words[3]);
    mma_16816(t.dq, across, turned);
}

/* How many tiles back keys are seen, and up to how many nothing of them is hidden (but the queries' own). */
struct Reach { uint32_t back, clear; };

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_grad_short(GradArgs a, const float4 *table, Reach reach,
                                                                                                     const int32_t *n_seq, AttentionShape s)
{
    mdr_begin();
    constexpr int ALL = P::ROWS * P::G;
    MDR_SHARED(uint4, K);
    uint4 *V = K + ALL, *Q = V + ALL;
    float4 *begin = (float4 *)(K + 4 * ALL);
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    const int tiles = (s.rows + 15) / 16, lane = (int)threadIdx.x & 31, h = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);
    load_heads<P>(K, begin, a, table, s, at, tiles);
    __syncthreads();
    /* through a shuffle: so the compiler keeps the place and does not make it anew for each block of keys */
    const uint4 *mine = K + __shfl_sync(0xffffffffu, tile_at<P::G>(lane & 15, h) + (lane >> 4) * ALL, lane);
    float dk[P::BLOCKS][4] = {}, dv[P::BLOCKS][4] = {};
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        QueryTile t;
        load_queries(t, mine + 2 * ALL + tile * 16 * P::G, begin + begin_at<P>(h, tile * 16), lane);
#pragma unroll
        for (int n = 0; n < P::BLOCKS; n++) {
            const int ahead = tile - n;
            if ((uint32_t)ahead > reach.back) continue;
            add_keys_8(dk[n], dv[n], t, mine + n * 16 * P::G, (uint32_t)(ahead - 1) >= reach.clear, ahead, s.window, lane);
        }
        int l = lane;                                                  /* as in add_keys_8 */
        asm volatile("" : "+r"(l));
        __syncwarp();                                                  /* nobody else reads this tile of q: its place takes dq */
#pragma unroll
        for (int i = 0; i < 2; i++)
            put_pair<P>(Q, make_float2(t.dq[2 * i], t.dq[2 * i + 1]), s.scale, table, tile * 16 + (l >> 2) + 8 * i, h, l & 3, 2);
    }
    __syncwarp();                                                      /* nor its keys: theirs takes dk, dv */
#pragma unroll
    for (int n = 0; n < P::BLOCKS; n++)
        if (n < tiles) put_keys<P>(K, V, dk[n], dv[n], table, n * 16, h, lane);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < s.rows * P::G; i += P::THREADS) {
        const int row = i / P::G, in = tile_at<P::G>(row, i % P::G), head = at.group * P::G + i % P::G;
        put_head(a.dq, s, at, row, head, Q[in]);
        put_head(a.dk, s, at, row, head, K[in]);
        put_head(a.dv, s, at, row, head, V[in]);
    }
}

/* ---- more rows: 32 keys, in registers, against a tile of 16 queries at a time ---- */
/* A word by which one warp tells another how far it is: what lanes wrote before give_shared (and __syncwarp) is seen after the take_shared that
 * finds it. */
static __device__ __forceinline__ int take_shared(const int *at)
{
#ifdef MDR_CUDA_EMULATED
    emu_yield();
    return *at;
#else
    int x;
    asm volatile("ld.acquire.cta.shared.b32 %0, [%1];" : "=r"(x) : "r"((uint32_t)__cvta_generic_to_shared(at)) : "memory");
    return x;
#endif
}
static __device__ __forceinline__ void give_shared(int *at, int x)
{
#ifdef MDR_CUDA_EMULATED
    *at = x;
#else
    asm volatile("st.release.cta.shared.b32 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(at)), "r"(x) : "memory");
#endif
}

struct KeyGroup {
    uint32_t k[2][4], v[2][4], turned[2][2];      /* blocks of 16: k or v and ones; k turned                                   */
    float dk[2][4], dv[2][4];
    int *own, known, window;                      /* the tile done last; that of the group before, when looked at last        */
};
/* A tile of queries: this lane's places for ldmatrix in q and its columns, dy and its columns, q and dy turned; its part of dq. */
struct Walk {
    const uint4 *q, *dy, *turned;
    float4 *dq;
    int tile;
};
template <class P> static __device__ __forceinline__ void walk_down(Walk &at)
{
    at.tile--;
    at.q -= 16 * P::G;
    at.dy -= 16 * P::G;
    at.turned -= 16 * P::G;
    at.dq -= 32;
}
/* The first N blocks of the group's keys against a tile. ahead: tiles from the first block to it, where MASKED: something may be hidden. */
template <bool MASKED, int N> static __device__ __forceinline__ void add_queries_8(KeyGroup &key, const Walk &at, int ahead, int lane)
{
    uint32_t q[4], dy[4], turned[4], across[N][4];
    float p[N][2][4] = {}, ds[N][2][4] = {}, sum[4];
    ldmatrix<4, false>(q, at.q);
    ldmatrix<4, false>(dy, at.dy);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int n = 0; n < N; n++) mma_16816(p[n][j], key.k[n], q + 2 * j);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int n = 0; n < N; n++) mma_16816(ds[n][j], key.v[n], dy + 2 * j);
    ldmatrix<4, true>(turned, at.turned);
    __syncwarp();
    if (lane == 0) give_shared(key.own, at.tile + 1);                  /* the tile before: only now, when nothing of it is under way any more */
    while (key.known > at.tile) key.known = take_shared(key.own - 1);
    begin_sum(sum, *at.dq);
#pragma unroll
    for (int n = 0; n < N; n++) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                p[n][j][i] = fast_exp2(p[n][j][i]);
                if (MASKED && !seen(16 * (ahead - n) + (lane & 3) * 2 - (lane >> 2) + 8 * j + i % 2 - i / 2 * 8, 0, key.window)) p[n][j][i] = 0.0f;
                ds[n][j][i] *= p[n][j][i];
            }
        pack_operand(words, p[n]);
        mma_16816(key.dv[n], words, turned + 2);
        pack_operand(words, ds[n]);
        mma_16816(key.dk[n], words, turned);
        across[n][0] = transpose_8x8(words[0]);
        across[n][1] = transpose_8x8(words[2]);
        across[n][2] = transpose_8x8(words[1]);
        across[n][3] = transpose_8x8(words[3]);
    }
#pragma unroll
    for (int n = 0; n < N; n++) mma_16816(sum, across[n], key.turned[n]);
    *at.dq = make_float4(sum[0], sum[1], sum[2], sum[3]);
}
/* A row of dq of head h: its four pairs lie with four lanes. */
template <class P> static __device__ __forceinline__ uint4 take_dq(const float4 *dq, const float4 *table, int row, int h, float scale)
{
    const float2 *from = (const float2 *)(dq + (h * P::ROWS + row / 16 * 16) * 2 + row % 8 * 4) + row % 16 / 8;
    float x[8];
#pragma unroll
    for (int t = 0; t < 4; t++) {
        const float2 pair = from[2 * t];
        x[2 * t] = pair.x;
        x[2 * t + 1] = pair.y;
    }
    if constexpr (P::TURNED) {
        const float4 z[2] = {table[2 * row], table[2 * row + 1]};
        const float4 back[2] = {make_float4(z[0].x, -z[0].y, z[0].z, -z[0].w), make_float4(z[1].x, -z[1].y, z[1].z, -z[1].w)};
        turn_head(x, back);
    }
    return make_uint4(pack_bf16(x[0] * scale, x[1] * scale), pack_bf16(x[2] * scale, x[3] * scale), pack_bf16(x[4] * scale, x[5] * scale),
                      pack_bf16(x[6] * scale, x[7] * scale));
}
/* Group j of head h: down from the last query that sees one of its keys. */
template <class P> static __device__ __forceinline__ void walk_group(uint4 *K, const uint4 *ones, float4 *dq, int *progress, const float4 *table, int j, int h,
                                                                     int lane, int window)
{
    constexpr int ALL = P::ROWS * P::G;
    const uint4 *rows = K + tile_at<P::G>(lane & 15, h);
    KeyGroup key;
    key.own = progress + j;
    key.known = j ? 0x7fffffff : -1;
    key.window = window;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const uint4 *from = rows + (2 * j + n) * 16 * P::G;
        ldmatrix<4, false>(key.k[n], lane < 16 ? from : ones);
        ldmatrix<4, false>(key.v[n], lane < 16 ? from + ALL : ones + 1);
        ldmatrix<2, true>(key.turned[n], from);
#pragma unroll
        for (int i = 0; i < 4; i++) key.dk[n][i] = key.dv[n][i] = 0.0f;
    }
    const int clear = window ? (P::KEYS * j + window - 15) / 16 : 0x7fffffff, last = *key.own - 1;     /* up to tile `clear` the window hides nothing */
    const uint4 *halves = K + tile_at<P::G>((lane & 7) + (lane & 16) / 2, h) + last * 16 * P::G;
    Walk at = {halves + (lane & 8 ? 4 : 2) * ALL, halves + (lane & 8 ? 4 : 3) * ALL, rows + (2 + (lane >> 4)) * ALL + last * 16 * P::G, dq + last * 32, last};
#pragma unroll 1
    for (; at.tile > 2 * j + 1; walk_down<P>(at)) {
        if (at.tile > clear) add_queries_8<true, 2>(key, at, at.tile - 2 * j, lane);
        else add_queries_8<false, 2>(key, at, 0, lane);
    }
    if (at.tile > 2 * j) {
        add_queries_8<true, 2>(key, at, 1, lane);
        walk_down<P>(at);
    }
    add_queries_8<true, 1>(key, at, 0, lane);
    __syncwarp();                                                      /* nobody else reads these keys: their place takes dk, dv */
    if (lane == 0) give_shared(key.own, at.tile);
#pragma unroll
    for (int n = 0; n < 2; n++) put_keys<P>(K, K + ALL, key.dk[n], key.dv[n], table, P::KEYS * j + 16 * n, h, lane);
}

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_grad_long(GradArgs a, const float4 *table, const int32_t *n_seq,
                                                                                                    AttentionShape s)
{
    mdr_begin();
    constexpr int ALL = P::ROWS * P::G, W = P::W;
    MDR_SHARED(uint4, K);
    uint4 *ones = K + 5 * ALL;
    float4 *dq = (float4 *)(ones + 2);
    int *progress = (int *)(dq + 2 * ALL);
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    const int groups = (s.rows + P::KEYS - 1) / P::KEYS, tiles = (s.rows + 15) / 16, lane = (int)threadIdx.x & 31,
        warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0), h = warp / W, w = warp % W;
    load_heads<P>(K, NULL, a, table, s, at, P::KEYS / 16 * groups);
    if (threadIdx.x == 0) put_ones(ones);
    for (int i = (int)threadIdx.x; i < 2 * ALL; i += P::THREADS) dq[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int i = (int)threadIdx.x; i < P::GROUPS * P::G; i += P::THREADS) {   /* one past the last tile that sees the group */
        const int last = i % P::GROUPS * P::KEYS + P::KEYS - 1 + s.window;
        progress[i] = (s.window && last < s.rows ? last / 16 : tiles - 1) + 1;
    }
    __syncthreads();
#pragma unroll 1
    for (int round = 0; round * W < groups; round++) {
        const int j = round * W + (round % 2 ? W - 1 - w : w);
        if (j < groups) walk_group<P>(K, ones, dq + h * P::ROWS * 2 + lane, progress + h * P::GROUPS, table, j, h, lane, s.window);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < s.rows * P::G; i += P::THREADS) {
        const int row = i / P::G, in = tile_at<P::G>(row, i % P::G), head = at.group * P::G + i % P::G;
        put_head(a.dq, s, at, row, head, take_dq<P>(dq, table, row, i % P::G, s.scale));
        put_head(a.dk, s, at, row, head, K[in]);
        put_head(a.dv, s, at, row, head, K[in + ALL]);
    }
}

/* ---- host ---- */
template <class P> static void enqueue_short(const Call *c, const GradArgs &a, AttentionShape s, const float4 *table)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = 1;
    const uint32_t window = (uint32_t)s.window, all = 0x7fffffffu;
    const Reach reach = {window ? (window + 15) / 16 : all, !window ? all : window < 15 ? 0 : (window - 15) / 16};
    MDR_ALLOW_SHARED(attend_grad_short<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_short<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, table, reach, c->n_seq, s);
}
template <class P> static void enqueue_long(const Call *c, const GradArgs &a, AttentionShape s, const float4 *table)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = 1;
    MDR_ALLOW_SHARED(attend_grad_long<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_long<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, table, c->n_seq, s);
}
template <bool TURNED> static void enqueue_8(const Call *c, const GradArgs &a, const AttentionShape &s, const float4 *table)
{
    if (s.rows <= 128) enqueue_short<ShortPlan<TURNED>>(c, a, s, table);
    else if (s.rows <= 256) enqueue_long<LongPlan<2, TURNED>>(c, a, s, table);
    else if (s.rows <= 512) enqueue_long<LongPlan<4, TURNED>>(c, a, s, table);
    else if (s.rows <= 1024) enqueue_long<LongPlan<8, TURNED>>(c, a, s, table);
    else enqueue_long<LongPlan<16, TURNED>>(c, a, s, table);
}
#endif
