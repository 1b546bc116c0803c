/* Attention's gradient for heads of up to 8, up to 128 rows (cuda_attention_grad.h): a warp has a head and walks the tiles of 16 queries, in
 * registers, against 16 keys at a time, with dk and dv of all keys in registers; a tile's dq never leaves them. */
#ifndef MDR_CUDA_ATTENTION_GRAD_SHORT_H
#define MDR_CUDA_ATTENTION_GRAD_SHORT_H
#include "op/cuda_attention_grad.h"

/* G: heads of a block. 8 warps: 128 registers a thread and 112 KB a block at most, two on a processor. */
template <bool TURNED_> struct ShortPlan {
    static constexpr int G = 8, THREADS = 32 * G, BLOCKS = 8, ROWS = 16 * BLOCKS, PER_SM = 2;
    static constexpr bool TURNED = TURNED_;
    static constexpr size_t BYTES = 16 * (size_t)G * (5 * ROWS + 1);
};

/* Where the two of row 2r of head h stand that sums of products begin with: -lse in powers of two, and -D, each for rows 2r, 2r+1, 2r, 2r+1:
 * what a lane's four sums want, ready in registers that follow each other. */
template <class P> static __device__ __forceinline__ int begin_at(int h, int row) { return h * (P::ROWS + 1) + row; }

/* All rows of the block's heads into shared memory: k, v, q, dy, and where sums begin. Rows past the end: p = 0. */
template <class P>
static __device__ __forceinline__ void load_short(uint4 *K, float4 *begin, const GradArgs &a, const float4 *table, const AttentionShape &s, const Spot &at,
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
            float *first = (float *)(begin + begin_at<P>(h, row & ~1)) + row % 2;
            first[0] = first[2] = -LOG2E * lse[n];
            first[4] = first[6] = sum;
        }
    }
}

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
    load_short<P>(K, begin, a, table, s, at, tiles);
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
        for (int i = 0; i < 2; i++) {
            const int row = tile * 16 + (l >> 2) + 8 * i;
            put_pair<P>(Q, make_float2(t.dq[2 * i], t.dq[2 * i + 1]), s.scale, angle_at<P>(table, row, l & 3), row, h, l & 3);
        }
    }
    __syncwarp();                                                      /* nor its keys: theirs takes dk, dv */
#pragma unroll
    for (int n = 0; n < P::BLOCKS; n++)
        if (n < tiles) {
            const int row = n * 16 + (lane >> 2);
            put_keys<P>(K, V, dk[n], dv[n], angle_at<P>(table, row, lane & 3), angle_at<P>(table, row + 8, lane & 3), n * 16, h, lane);
        }
    __syncthreads();
    put_heads<P>(K, a, s, at);
}

template <class P> static void enqueue_short(const Call *c, const GradArgs &a, AttentionShape s, const float4 *table)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = 1;
    const uint32_t window = (uint32_t)s.window, all = 0x7fffffffu;
    const Reach reach = {window ? (window + 15) / 16 : all, !window ? all : window < 15 ? 0 : (window - 15) / 16};
    MDR_ALLOW_SHARED(attend_grad_short<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_short<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, table, reach, c->n_seq, s);
}
#endif
