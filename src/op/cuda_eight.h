/* Element-wise kernels on CUDA take 8 neighbouring columns a thread where they can: SIZE 2 (bf16, one access of 16 bytes) or 4 (float,
 * two); SIZE 0 is one column a thread, of any size and alignment. */
#ifndef MDR_CUDA_EIGHT_H
#define MDR_CUDA_EIGHT_H
#include "op/cuda.h"

template <int SIZE> constexpr int COLUMNS = SIZE == 0 ? 1 : 8;
template <int SIZE> static __device__ __forceinline__ void load(const Arg &a, int64_t at, float *v)
{
    if constexpr (SIZE == 2) {
        const uint4 u = *(const uint4 *)((const bf16 *)a.data + at);
        const uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
        for (int i = 0; i < 4; i++) { v[2 * i] = low_bf16(w[i]); v[2 * i + 1] = high_bf16(w[i]); }
    } else if constexpr (SIZE == 4) {
        const float4 *from = (const float4 *)((const float *)a.data + at), p = from[0], q = from[1];
        v[0] = p.x; v[1] = p.y; v[2] = p.z; v[3] = p.w;
        v[4] = q.x; v[5] = q.y; v[6] = q.z; v[7] = q.w;
    } else {
        v[0] = arg_get(a, at);
    }
}
template <int SIZE> static __device__ __forceinline__ void store(const Arg &a, int64_t at, const float *v)
{
    if constexpr (SIZE == 2) {
        *(uint4 *)((bf16 *)a.data + at) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    } else if constexpr (SIZE == 4) {
        float4 *to = (float4 *)((float *)a.data + at);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        arg_put(a, at, v[0]);
    }
}
template <int N> static __device__ __forceinline__ void zero(float *v)
{
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = 0.0f;
}

/* May all rows of a be accessed by 8 columns of elements of `size`? An absent argument may. */
static inline bool by_eight(const Arg &a, int64_t cols, int64_t size)
{
    const int64_t piece = size == 2 ? 8 : 4;
    return !a.data || (a.size == size && cols % 8 == 0 && (uintptr_t)a.data % 16 == 0 && a.member % piece == 0 && a.seq % piece == 0 && a.ld % piece == 0);
}

/* A block of 256 threads that sums over rows: 32 times COLUMNS columns by 8 slots of rows. Each thread's sums of its columns are added
 * through the slots in order; thread i ends with the sum of the block's column i, of those there are. shared: 256 * COLUMNS floats. */
enum { WIDE = 32, SLOTS = 8 };
template <int SIZE> static __device__ __forceinline__ float add_slots(float *shared, const float *v)
{
    constexpr int N = COLUMNS<SIZE>;
    const int id = (int)threadIdx.x;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) shared[id * N + i] = v[i];
    __syncthreads();
    float sum = 0.0f;
    if (id < WIDE * N)
        for (int s = 0; s < SLOTS; s++) sum += shared[s * WIDE * N + id];
    return sum;
}
#endif
