/* Attention's gradient for heads of up to 8, over 128 rows (cuda_attention_grad.h): W warps share a head. A warp takes 32 keys at a time, with
 * their k, v, dk and dv in registers, and walks the queries that see them from the last down; -lse and -D, three bf16 each, are columns of the
 * products, against ones beside the keys. dq grows in shared memory, where each tile takes the shares of the groups of keys in ascending order:
 * a group follows the one before it down the queries, by a word in which that one says how far it is. Groups are dealt out to and fro, so that
 * all warps have as much to do. */
#ifndef MDR_CUDA_ATTENTION_GRAD_LONG_H
#define MDR_CUDA_ATTENTION_GRAD_LONG_H
#include "op/cuda_attention_grad.h"

/* G: heads of a block, EACH: rows that a thread loads and stores. All of a processor's shared memory is 16 warps', at 128 registers a thread: two
 * blocks or, of many rows, one. */
template <int W_, bool TURNED_> struct LongPlan {
    static constexpr int W = W_, WARPS = W < 8 ? 8 : 16, G = WARPS / W, THREADS = 32 * WARPS, PER_SM = 16 / WARPS, KEYS = 32, ROWS = 128 * W,
                         GROUPS = ROWS / KEYS, EACH = ROWS * G / THREADS;
    static constexpr bool TURNED = TURNED_;
    static constexpr size_t BYTES = 16 * ((size_t)G * 7 * ROWS + 2) + sizeof(int) * G * GROUPS;
};

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

static __device__ __forceinline__ const bf16 *head_of(const Arg &a, const AttentionShape &s, const Spot &at, int row, int head)
{
    return (const bf16 *)a.data + arg_row(a, at.member, at.seq, row) + head * s.d;
}
/* A thread's rows as they are, under way, each a group of copies. */
template <class P>
static __device__ __forceinline__ void copy_rows(uint4 *K, uint4 *Y, const GradArgs &a, const AttentionShape &s, const Spot &at, int row0, int h)
{
    constexpr int ALL = P::ROWS * P::G, STEP = P::THREADS / P::G;      /* a multiple of 8: a thread's chunks lie alike in their rows */
    const int head = at.group * P::G + h;
    uint4 *to = K + tile_at<P::G>(row0, h), *to_y = Y + row0 * P::G + h;
    if (!s.vectors) {
#pragma unroll 1
        for (int row = row0; row < P::ROWS; row += STEP, to += STEP * P::G, to_y += STEP * P::G) {
            to[0] = get_head(a.k, s, at, row, head);
            to[ALL] = get_head(a.v, s, at, row, head);
            to[2 * ALL] = get_head(a.q, s, at, row, head);
            to[3 * ALL] = get_head(a.dy, s, at, row, head);
            *to_y = get_head(a.y, s, at, row, head);
        }
        return;
    }
    const bf16 *k = head_of(a.k, s, at, row0, head), *v = head_of(a.v, s, at, row0, head), *q = head_of(a.q, s, at, row0, head),
               *dy = head_of(a.dy, s, at, row0, head), *y = head_of(a.y, s, at, row0, head);
#pragma unroll 1
    for (int row = row0; row < P::ROWS; row += STEP, to += STEP * P::G, to_y += STEP * P::G) {
        const bool there = row < s.rows && head < s.heads;
        copy_16(to, k, there);
        copy_16(to + ALL, v, there);
        copy_16(to + 2 * ALL, q, there);
        copy_16(to + 3 * ALL, dy, there);
        copy_16(to_y, y, there);
        copy_commit();
        k += STEP * a.k.ld;
        v += STEP * a.v.ld;
        q += STEP * a.q.ld;
        dy += STEP * a.dy.ld;
        y += STEP * a.y.ld;
    }
}
/* Until row n of a thread's is there. */
template <class P> static __device__ __forceinline__ void await_row(int n)
{
    static_assert(P::EACH == 4, "a case a row");
    if (n == 0) copy_wait<3>();
    if (n == 1) copy_wait<2>();
    if (n == 2) copy_wait<1>();
    if (n == 3) copy_wait<0>();
}
/* All rows of the block's heads into shared memory: k, v, q, dy, and columns with -lse and -D. Rows past the end: p = 0. A thread has all its rows
 * under way at once and works on them where they lie; y waits where dq will grow, zeroed here behind it. */
template <class P>
static __device__ __forceinline__ void load_long(uint4 *K, uint4 *Y, const GradArgs &a, const float4 *table, const AttentionShape &s, const Spot &at,
                                                 int tiles)
{
    constexpr int ALL = P::ROWS * P::G, STEP = P::THREADS / P::G;
    const int h = (int)threadIdx.x % P::G, head = at.group * P::G + h, row0 = (int)threadIdx.x / P::G;
    float lse[P::EACH], dlse[P::EACH];
    float4 z[P::EACH][2];
    /* always float: asking which would have each wait for the one before */
    const float *first_lse = (const float *)a.lse.data + arg_row(a.lse, at.member, at.seq, row0) + head,
                *first_dlse = (const float *)a.dlse.data + arg_row(a.dlse, at.member, at.seq, row0) + head;
    copy_rows<P>(K, Y, a, s, at, row0, h);
#pragma unroll
    for (int n = 0; n < P::EACH; n++) {
        const int row = row0 + n * STEP;
        const bool there = row < s.rows && head < s.heads;
        lse[n] = there ? first_lse[n * STEP * a.lse.ld] : 1e30f;
        dlse[n] = there && a.dlse.data ? first_dlse[n * STEP * a.dlse.ld] : 0.0f;
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (P::TURNED && row < 16 * tiles) z[n][i] = table[2 * row + i];
    }
#pragma unroll
    for (int n = 0; n < P::EACH; n++) {
        const int row = row0 + n * STEP;
        uint4 *to = K + tile_at<P::G>(row, h), *y = Y + row * P::G + h;
        await_row<P>(n);
        if (row < 16 * tiles) {                                        /* the same for all of a warp */
            float one[8], other[8], sum = dlse[n];
            to[0] = operand<P::TURNED>(to[0], 1.0f, z[n]);
            to[2 * ALL] = operand<P::TURNED>(to[2 * ALL], s.unit, z[n]);
            spread(one, *y);
            spread(other, to[3 * ALL]);
#pragma unroll
            for (int e = 0; e < 8; e++) sum -= one[e] * other[e];
            to[4 * ALL] = as_columns(-LOG2E * lse[n], sum);
        }
        y[0] = y[ALL] = make_uint4(0, 0, 0, 0);
    }
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
    __syncwarp();                                                      /* lanes may leave the loop one by one, products want them all */
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
template <class P> static __device__ __forceinline__ uint4 take_dq(const float4 *dq, const float4 (&z)[2], int row, int h, float scale)
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
    float4 z[4] = {};                                                  /* under way meanwhile */
#pragma unroll
    for (int i = 0; i < 4; i++)
        if constexpr (P::TURNED) z[i] = *angle_at<P>(table, P::KEYS * j + 8 * i + (lane >> 2), lane & 3);
    add_queries_8<true, 1>(key, at, 0, lane);
    __syncwarp();                                                      /* nobody else reads these keys: their place takes dk, dv */
    if (lane == 0) give_shared(key.own, at.tile);
#pragma unroll
    for (int n = 0; n < 2; n++) put_keys<P>(K, K + ALL, key.dk[n], key.dv[n], z + 2 * n, z + 2 * n + 1, P::KEYS * j + 16 * n, h, lane);
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
    load_long<P>(K, (uint4 *)dq, a, table, s, at, P::KEYS / 16 * groups);
    if (threadIdx.x == 0) put_ones(ones);
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
    const int mine = (int)threadIdx.x % P::G, row0 = (int)threadIdx.x / P::G;
    float4 z[P::EACH][2];
#pragma unroll
    for (int n = 0; n < P::EACH; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (P::TURNED && row0 + n * P::THREADS / P::G < s.rows) z[n][i] = table[2 * (row0 + n * P::THREADS / P::G) + i];
    __syncthreads();
#pragma unroll
    for (int n = 0; n < P::EACH; n++) {
        const int row = row0 + n * P::THREADS / P::G;
        if (row < s.rows) K[tile_at<P::G>(row, mine) + 2 * ALL] = take_dq<P>(dq, z[n], row, mine, s.scale);
    }
    put_heads<P>(K, a, s, at);
}

template <class P> static void enqueue_long(const Call *c, const GradArgs &a, AttentionShape s, const float4 *table)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = 1;
    MDR_ALLOW_SHARED(attend_grad_long<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_long<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, table, c->n_seq, s);
}
#endif
