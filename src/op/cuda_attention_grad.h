/* attention's gradient for heads of up to 8, all rows of a head in one block (attention_grad.cu: the equations), with or without the
 * rotation of q and k inside it.
 * W warps share a head; each owns eight blocks of 16 keys, dealt out in turn so that all have about as much to do, and keeps their dk and dv
 * in registers. The warps walk the tiles of 16 queries from the first to the last: scores are made once, transposed, [keys][queries], so that p
 * and ds, as a product leaves them, are operands of the products that give dv and dk; only dq wants ds turned round. A query tile's dq is
 * whole once its warps are through with it: with one warp a head it never leaves registers, else the warps' shares are added in order, TURN
 * tiles at a time. q goes in times d^-1/2 log2 e, and -lse and -D are what the sums of the products begin with: a score costs one product, one
 * exponential, one multiplication. */
#ifndef MDR_CUDA_ATTENTION_GRAD_H
#define MDR_CUDA_ATTENTION_GRAD_H
#include "op/cuda_attention.h"
#include <math.h>

typedef struct GradArgs { Arg q, k, v, y, lse, dy, dlse, dq, dk, dv; } GradArgs;

/* G: heads of a block. 8 warps: 128 registers a thread and 112 KB a block, two on a processor. */
template <int W_, bool TURNED_> struct HeadPlan {
    static constexpr int W = W_, G = W < 8 ? 8 / W : 1, WARPS = G * W, THREADS = 32 * WARPS, BLOCKS = 8, ROWS = 16 * BLOCKS * W, TURN = 4,
                         PER_SM = 16 / WARPS, SHARE = TURN * WARPS * 32;
    static constexpr bool TURNED = TURNED_;
    static constexpr size_t BYTES = 16 * (size_t)G * (5 * ROWS + 1) + (W > 1 ? 2 * sizeof(float4) * SHARE : 0);
};

/* ---- the rotation: a head of 8 is four pairs (column i, column i + 4); table[2 row + i/2]: cos, sin of pair i and of pair i + 1 ---- */
static __global__ void __launch_bounds__(128) make_angles(float2 *table, int count, double log_base)
{
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
 * what a lane's four sums want, ready in registers that follow each other. */
template <class P> static __device__ __forceinline__ int begin_at(int h, int row) { return h * (P::ROWS + 1) + row; }

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
            float *first = (float *)(begin + begin_at<P>(h, row & ~1)) + row % 2, one[8], other[8], sum = dlse[n];
            to[0] = operand<P::TURNED>(k[n], 1.0f, z[n]);
            to[ALL] = v[n];
            to[2 * ALL] = operand<P::TURNED>(q[n], s.unit, z[n]);
            to[3 * ALL] = dy[n];
            spread(one, y[n]);
            spread(other, dy[n]);
#pragma unroll
            for (int e = 0; e < 8; e++) sum -= one[e] * other[e];
            first[0] = first[2] = -LOG2E * lse[n];
            first[4] = first[6] = sum;
        }
    }
}

/* ---- a tile of 16 queries ---- */
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
static __device__ __forceinline__ void begin_sum(float (&s)[4], float4 x)
{
    s[0] = x.x;
    s[1] = x.y;
    s[2] = x.z;
    s[3] = x.w;
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

/* Two columns of a row of dq or dk, from lane t of four, to their place in shared memory. */
template <class P>
static __device__ __forceinline__ void put_pair(uint4 *tile, float2 x, float factor, const float4 *table, int row, int h, int t, int mate)
{
    if constexpr (P::TURNED) x = turn_back(x, table, row, t, mate);
    ((uint32_t *)(tile + tile_at<P::G>(row, h)))[t] = pack_bf16(x.x * factor, x.y * factor);
}
/* The dq of `count` query tiles from tile `first` on: the shares of the W warps, in order. */
template <class P> static __device__ __forceinline__ void add_shares(uint4 *Q, const float2 *share, const float4 *table, int first, int count, float scale)
{
    int i = (int)threadIdx.x;
    asm volatile("" : "+r"(i));                                        /* places are found anew each time: no room for them */
#pragma unroll 1
    for (; i < count * P::G * 64; i += P::THREADS) {
        const int x = i & 63, h = (i >> 6) % P::G, turn = (i >> 6) / P::G;
        const float2 *from = share + ((turn * P::G + h) * P::W) * 64 + x;
        float2 sum = from[0];
#pragma unroll
        for (int w = 1; w < P::W; w++) {
            sum.x += from[64 * w].x;
            sum.y += from[64 * w].y;
        }
        put_pair<P>(Q, sum, scale, table, (first + turn) * 16 + (x >> 3) + (x & 1) * 8, h, x >> 1 & 3, 4);
    }
}

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_grad_heads(GradArgs a, const float4 *table, Reach reach,
                                                                                                     const int32_t *n_seq, AttentionShape s)
{
    constexpr int ALL = P::ROWS * P::G, W = P::W;
    MDR_SHARED(uint4, K);
    uint4 *V = K + ALL, *Q = V + ALL;
    float4 *begin = (float4 *)(K + 4 * ALL), *share = begin + begin_at<P>(P::G, 0);
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    const int tiles = (s.rows + 15) / 16, lane = (int)threadIdx.x & 31, warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0), h = warp / W,
        own = (at.group * P::G + h) % 2 ? W - 1 - warp % W : warp % W;  /* its first block of keys; the first have most queries: other heads, other warps */
    load_heads<P>(K, begin, a, table, s, at, tiles);
    __syncthreads();
    /* through a shuffle: so the compiler keeps the place and does not make it anew for each block of keys */
    const uint4 *mine = K + __shfl_sync(0xffffffffu, tile_at<P::G>(lane & 15, h) + (lane >> 4) * ALL, lane), *keys = mine + own * 16 * P::G;
    float dk[P::BLOCKS][4] = {}, dv[P::BLOCKS][4] = {};
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        QueryTile t;
        load_queries(t, mine + 2 * ALL + tile * 16 * P::G, begin + begin_at<P>(h, tile * 16), lane);
#pragma unroll
        for (int n = 0; n < P::BLOCKS; n++) {
            const int ahead = tile - own - n * W;
            if ((uint32_t)ahead > reach.back) continue;
            add_keys_8(dk[n], dv[n], t, keys + n * W * 16 * P::G, (uint32_t)(ahead - 1) >= reach.clear, ahead, s.window, lane);
        }
        if constexpr (W == 1) {
            int l = lane;                                              /* as in add_keys_8 */
            asm volatile("" : "+r"(l));
            __syncwarp();                                              /* nobody else reads this tile of q: its place takes dq */
#pragma unroll
            for (int i = 0; i < 2; i++)
                put_pair<P>(Q, make_float2(t.dq[2 * i], t.dq[2 * i + 1]), s.scale, table, tile * 16 + (l >> 2) + 8 * i, h, l & 3, 2);
        } else {
            share[tile % (2 * P::TURN) * P::THREADS + (int)threadIdx.x] = make_float4(t.dq[0], t.dq[1], t.dq[2], t.dq[3]);
            if (tile % P::TURN < P::TURN - 1 && tile + 1 < tiles) continue;
            __syncthreads();
            add_shares<P>(Q, (const float2 *)(share + tile / P::TURN % 2 * P::SHARE), table, tile / P::TURN * P::TURN, tile % P::TURN + 1, s.scale);
        }
    }
    __syncwarp();                                                      /* nor its keys: theirs takes dk, dv */
#pragma unroll
    for (int n = 0; n < P::BLOCKS; n++) {
        const int block = n * W + own, row = block * 16 + (lane >> 2);
        if (block >= tiles) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            put_pair<P>(K, make_float2(dk[n][2 * i], dk[n][2 * i + 1]), LN2, table, row + 8 * i, h, lane & 3, 2);
            ((uint32_t *)(V + tile_at<P::G>(row + 8 * i, h)))[lane & 3] = pack_bf16(dv[n][2 * i], dv[n][2 * i + 1]);
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < s.rows * P::G; i += P::THREADS) {
        const int row = i / P::G, in = tile_at<P::G>(row, i % P::G), head = at.group * P::G + i % P::G;
        put_head(a.dq, s, at, row, head, Q[in]);
        put_head(a.dk, s, at, row, head, K[in]);
        put_head(a.dv, s, at, row, head, V[in]);
    }
}

/* ---- host ---- */

template <class P> static void enqueue_heads(const Call *c, const GradArgs &a, AttentionShape s, const float4 *table)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = 1;
    const uint32_t window = (uint32_t)s.window, all = 0x7fffffffu;
    const Reach reach = {window ? (window + 15) / 16 : all, !window ? all : window < 15 ? 0 : (window - 15) / 16};
    MDR_ALLOW_SHARED(attend_grad_heads<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_heads<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, table, reach, c->n_seq, s);
}
template <bool TURNED> static void enqueue_8(const Call *c, const GradArgs &a, const AttentionShape &s, const float4 *table)
{
    if (s.rows <= 128) enqueue_heads<HeadPlan<1, TURNED>>(c, a, s, table);
    else if (s.rows <= 256) enqueue_heads<HeadPlan<2, TURNED>>(c, a, s, table);
    else if (s.rows <= 512) enqueue_heads<HeadPlan<4, TURNED>>(c, a, s, table);
    else if (s.rows <= 1024) enqueue_heads<HeadPlan<8, TURNED>>(c, a, s, table);
    else enqueue_heads<HeadPlan<16, TURNED>>(c, a, s, table);
}
#endif
