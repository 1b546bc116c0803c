/* Warp-wide tensor-core products, the copies that feed them and words between warps (sm_80 and later), for *.cu. Fragment layouts are PTX's:
 * lane l, g = l/4, t = l%4 (PTX ISA, "Matrix multiply-accumulate", m16n8k16 and m16n8k8):
 *   A 16x16  a0 = A[g][2t,2t+1]  a1 = A[g+8][2t..]  a2 = A[g][2t+8..]  a3 = A[g+8][2t+8..]      (row major, two bf16 a word)
 *   B 16x8   b0 = B[2t,2t+1][g]  b1 = B[2t+8,2t+9][g]                                             (pairs along k)
 *   D 16x8   d0 = D[g][2t]  d1 = D[g][2t+1]  d2 = D[g+8][2t]  d3 = D[g+8][2t+1]                    (float)
 *   m16n8k8: A a0 = A[g][2t..], a1 = A[g+8][2t..]; B b0 = B[2t,2t+1][g]. */
#ifndef MDR_CUDA_MMA_H
#define MDR_CUDA_MMA_H
#include "op/cuda.h"

/* d += A B */
static __device__ __forceinline__ void mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef MDR_CUDA_EMULATED
    emu_mma(d, a, b, 16);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
static __device__ __forceinline__ void mma_1688(float d[4], const uint32_t a[2], uint32_t b)
{
#ifdef MDR_CUDA_EMULATED
    emu_mma(d, a, &b, 8);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
#endif
}

/* n (1, 2, 4) 8x8 matrices of bf16 from shared memory: lane l gives the address of row l%8 of matrix l/8 (16 bytes, aligned); lane l
 * receives r[i] = M_i[l/4][2(l%4), 2(l%4)+1], transposed: r[i] = M_i[2(l%4), 2(l%4)+1][l/4]. */
template <int N, bool TRANSPOSED> static __device__ __forceinline__ void ldmatrix(uint32_t *r, const void *row)
{
#ifdef MDR_CUDA_EMULATED
    emu_ldmatrix(r, row, N, TRANSPOSED);
#else
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if constexpr (N == 4 && !TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
    else if constexpr (N == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
    else if constexpr (N == 2 && !TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
    else if constexpr (N == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
    else if constexpr (!TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
#endif
}

/* An 8x8 matrix of bf16, lane l holding M[l/4][2(l%4), 2(l%4)+1]: its transpose held alike. */
static __device__ __forceinline__ uint32_t transpose_8x8(uint32_t x)
{
#ifdef MDR_CUDA_EMULATED
    const int lane = (int)threadIdx.x % 32, from = lane % 4 * 8 + lane / 8, half = lane / 4 % 2 * 16;
    const uint32_t a = __shfl_sync(0xffffffffu, x, from), b = __shfl_sync(0xffffffffu, x, from + 4);
    return (a >> half & 0xffffu) | (b >> half & 0xffffu) << 16;
#else
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
#endif
}

/* Asynchronous copies of 16 aligned bytes from global to shared memory; where `there` is false 16 zero bytes are written and `from` is
 * not read. Groups end with copy_commit; copy_wait<n> waits until at most n groups of this thread are under way (then
 * __syncthreads for the other threads' copies). LINE: all of its 128 bytes will be wanted soon and come as far as the L2 cache at once:
 * rows copied 64 bytes at a time come a quarter faster. */
template <bool LINE = false> static __device__ __forceinline__ void copy_16(void *to, const void *from, bool there)
{
#ifdef MDR_CUDA_EMULATED
    emu_copy_16(to, from, there);
#else
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to), bytes = there ? 16 : 0;
    if constexpr (LINE) asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    else asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
#endif
}
static __device__ __forceinline__ void copy_commit(void)
{
#ifdef MDR_CUDA_EMULATED
    emu_copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> static __device__ __forceinline__ void copy_wait(void)
{
#ifdef MDR_CUDA_EMULATED
    emu_copy_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* A word that is written by nobody meanwhile, read here and not later (volatile); the 128 bytes around it, which will be wanted soon, come as
 * far as the L2 cache. */
static __device__ __forceinline__ uint32_t read_line_word(const void *from)
{
#ifdef MDR_CUDA_EMULATED
    return *(const uint32_t *)from;
#else
    uint32_t x;
    asm volatile("ld.global.L2::128B.b32 %0, [%1];" : "=r"(x) : "l"(from));
    return x;
#endif
}

/* A word of shared memory by which one warp tells another how far it is: what lanes wrote before give_shared (and __syncwarp) is seen after
 * the take_shared that finds it. */
static __device__ __forceinline__ int take_shared(const int *at)
{
#ifdef MDR_CUDA_EMULATED
    return emu_take(at);
#else
    int x;
    asm volatile("ld.acquire.cta.shared.b32 %0, [%1];" : "=r"(x) : "r"((uint32_t)__cvta_generic_to_shared(at)) : "memory");
    return x;
#endif
}
static __device__ __forceinline__ void give_shared(int *at, int x)
{
#ifdef MDR_CUDA_EMULATED
    emu_give(at, x);
#else
    asm volatile("st.release.cta.shared.b32 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(at)), "r"(x) : "memory");
#endif
}
#endif
