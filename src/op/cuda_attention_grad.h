/* attention's gradient for heads of up to 8, all rows of a head in one block (attention_grad.cu: the equations), with or without the
 * rotation of q and k inside it. Scores are made once, transposed, [keys][queries], so that p and ds, as a product leaves them, are operands of
 * the products that give dv and dk; only dq wants ds turned round. q goes in times d^-1/2 log2 e, and -lse and -D are inside the sums of the
 * products: a score costs one product, one exponential, one multiplication.
 * Here is what both kinds of kernels want: up to 128 rows, cuda_attention_grad_short.h, and beyond, cuda_attention_grad_long.h. */
#ifndef MDR_CUDA_ATTENTION_GRAD_H
#define MDR_CUDA_ATTENTION_GRAD_H
#include "op/cuda_attention.h"
#include <math.h>

typedef struct GradArgs { Arg q, k, v, y, lse, dy, dlse, dq, dk, dv; } GradArgs;

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
/* Of a row of which lane t of four holds columns 2t, 2t+1: what that lane turns them back with. */
template <class P> static __device__ __forceinline__ const float4 *angle_at(const float4 *table, int row, int t)
{
    return P::TURNED ? table + 2 * row + t % 2 : NULL;
}
/* The result is rounded alike wherever it is made: the compiler is not asked which product to round. */
static __device__ __forceinline__ float2 turn_back(float2 x, const float4 &z, int t)
{
    const float other0 = __shfl_xor_sync(0xffffffffu, x.x, 2), other1 = __shfl_xor_sync(0xffffffffu, x.y, 2);
    const float s0 = t < 2 ? z.y : -z.y, s1 = t < 2 ? z.w : -z.w;
    return make_float2(fmaf(x.x, z.x, other0 * s0), fmaf(x.y, z.z, other1 * s1));
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

static __device__ __forceinline__ void begin_sum(float (&s)[4], float4 x)
{
    s[0] = x.x;
    s[1] = x.y;
    s[2] = x.z;
    s[3] = x.w;
}
/* Two columns of a row of dq or dk, from lane t of four, to their place in shared memory; z: the row's angle. */
template <class P> static __device__ __forceinline__ void put_pair(uint4 *tile, float2 x, float factor, const float4 *z, int row, int h, int t)
{
    if constexpr (P::TURNED) x = turn_back(x, *z, t);
    ((uint32_t *)(tile + tile_at<P::G>(row, h)))[t] = pack_bf16(x.x * factor, x.y * factor);
}
/* dk and dv of the rows lane/4 and lane/4 + 8 behind `row`, in the place of their k and v; z0, z1: the rows' angles. */
template <class P> static __device__ __forceinline__ void put_keys(uint4 *K, uint4 *V, const float (&dk)[4], const float (&dv)[4], const float4 *z0,
                                                                   const float4 *z1, int row, int h, int lane)
{
    row += lane >> 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        put_pair<P>(K, make_float2(dk[2 * i], dk[2 * i + 1]), LN2, i ? z1 : z0, row + 8 * i, h, lane & 3);
        ((uint32_t *)(V + tile_at<P::G>(row + 8 * i, h)))[lane & 3] = pack_bf16(dv[2 * i], dv[2 * i + 1]);
    }
}

/* dk, dv and dq from where k, v and q were. */
template <class P> static __device__ __forceinline__ void put_heads(const uint4 *K, const GradArgs &a, const AttentionShape &s, const Spot &at)
{
    constexpr int ALL = P::ROWS * P::G;
    for (int i = (int)threadIdx.x; i < s.rows * P::G; i += P::THREADS) {
        const int row = i / P::G, in = tile_at<P::G>(row, i % P::G), head = at.group * P::G + i % P::G;
        put_head(a.dq, s, at, row, head, K[in + 2 * ALL]);
        put_head(a.dk, s, at, row, head, K[in]);
        put_head(a.dv, s, at, row, head, K[in + ALL]);
    }
}
#endif
