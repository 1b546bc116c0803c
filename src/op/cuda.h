/* What every src/op/NAME.cu stands on. A .cu file holds the CUDA kernels of one op or family and ends with
 *     extern "C" const CudaRow mdr_cuda_rows_NAME[] = {{"op", {.run = ...}, ...}, {}};
 * It is C-like C++: templates over the element type are welcome, classes are not; nothing but the row is exported.
 *
 * THE CUDA KERNEL CONTRACT (rules 3, 5, 6 and 7 of op.h hold; the rest is replaced)
 *  1. run(call, 0, 0) only enqueues on (cudaStream_t)call->stream, by MDR_LAUNCH: no allocation, no waiting, no state. It is
 *     recorded once and replayed every step, so grids, arguments and branches of the host depend on node and extent only.
 *  2. Pointers are device memory. Members are a grid axis (blockIdx.z by custom, at most 65,535). call->n_seq[m] is how many
 *     sequences member m has this time, 0 <= n_seq[m] <= extent.n_seq: read it on the device. A block of a member with 0 returns
 *     at once; sequences from n_seq[m] on are not read into any sum and need not be computed. For values without the SEQ axis
 *     extent.n_seq is 1 and n_seq[m] 1, or 0 for a member that rests.
 *  3. What a member gets depends on its own data, the node and extent.n_seq, never on n_member, its place or other members:
 *     member alone = member in any population, bit for bit. No floating-point atomics. A sum over rows is cut into chunks of rows
 *     that depend on node and extent.n_seq only; partial sums (scratch) are added in order by a second stage.
 *  4. Elements: Arg.size says what lies there. DT_REAL is float (4) or, in plans of precision bf16, bf16 (2) for values with the
 *     SEQ axis; masks full_in and full_out of the row keep single values float. Parameters, STEP and POST values, lanes and
 *     gradients of parameters are always float. A kernel must take any mix that its masks allow (fast paths for the common ones).
 *     Arithmetic, statistics and sums are float (double where noted); only the operands of products may be rounded to bf16.
 *  5. scratch(node, extent): device memory for the whole call, all members (extent.n_member of them).
 *  6. Prep.run sees all members at once; every in[] is set; out[0] has size 4, its member stride in floats; elements() counts
 *     floats. In plans of bf16 in[0].size is 2. It has no scratch and does not ask call->n_seq: who rests may not be known yet.
 *     Where call->images is set it may leave its work on that list instead of enqueueing it (enqueue_image in op/cuda_product.h): exec
 *     does so before what reads out[0]. A Prep of no input (in -1) runs once, among the constants: n_member 1, member stride 0.
 *  7. Every __global__ function begins with mdr_begin(), see there: a recorded step lets a kernel's blocks in while the kernel before
 *     still runs.
 *
 * Compiled by nvcc; for tests also by g++ with -DMDR_CUDA_EMULATED against test/emulator, which runs threads as fibers, so a file
 * may use only what that offers (its cuda_runtime.h lists it). Only op/cuda.h and op/cuda_mma.h hold PTX. */
#ifndef MDR_CUDA_H
#define MDR_CUDA_H
#include "op/op.h"
#include <cuda_runtime.h>

#ifdef MDR_CUDA_EMULATED
/* Arguments are converted and copied when the launch is enqueued, as a real one does. */
#define MDR_LAUNCH(kernel, grid, block, shared, stream, ...)                                                           \
    emu_launch(#kernel, (kernel), grid, block, shared, (cudaStream_t)(stream))(__VA_ARGS__)
#define MDR_SHARED(type, name) type *name = (type *)emu_shared()
#define MDR_ALLOW_SHARED(kernel, bytes) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#else
/* kernel: a function or, with template arguments, in parentheses: MDR_LAUNCH((k<float, 8>), grid, block, bytes, stream, args..) */
#define MDR_LAUNCH(kernel, grid, block, shared, stream, ...)                                                           \
    (kernel)<<<grid, block, shared, (cudaStream_t)(stream)>>>(__VA_ARGS__)
/* Dynamic shared memory, 128-byte aligned, once a kernel. */
#define MDR_SHARED(type, name)                                                                                         \
    extern __shared__ __align__(128) unsigned char mdr_dynamic_shared[];                                               \
    type *name = (type *)mdr_dynamic_shared
/* Before a launch with more than 48 KiB of dynamic shared memory. Never lowered: recorded steps of other shapes may have the same kernel. */
#define MDR_ALLOW_SHARED(kernel, bytes) mdr_allow_shared((kernel), (size_t)(bytes))
template <typename F> static inline void mdr_allow_shared(F *kernel, size_t bytes)
{
    cudaFuncAttributes now;
    if (cudaFuncGetAttributes(&now, kernel) == cudaSuccess && (size_t)now.maxDynamicSharedSizeBytes < bytes)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}
#endif
/* Before launching a small kernel that runs beside a step. A processor divides its memory between L1 and shared as the kernel on it prefers, and
 * anew only once it is empty: kernels that want much shared memory would wait for one that does not to end. Not for kernels of the step:
 * those that read through L1 are slower so (populations of 24 by 3 %). */
#define MDR_DIVIDE_AS_LARGE(kernel) cudaFuncSetAttribute((kernel), cudaFuncAttributePreferredSharedMemoryCarveout, 100)

/* In a recorded step (exec/accel.cu) the blocks of a kernel may be placed while the kernel before it, of the same stream, still runs;
 * here they wait until it has ended and what it wrote can be seen. Each thread of each block does so before it reads or writes memory
 * of the device and before it can return: then a kernel that has ended means that all before it have, and whoever waits for one (the
 * next kernel, a copy, the host) has waited for all. The first statement of every kernel: the linter and the emulator insist. */
static __device__ __forceinline__ void mdr_begin(void)
{
#ifdef MDR_CUDA_EMULATED
    emu_begin();
#else
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- bf16: the upper half of a float, rounded to nearest even ---- */
typedef struct bf16 { uint16_t u; } bf16;
static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((uint32_t)x.u << 16); }
/* Two floats as one word, lo in the low half: what mma operands are made of. */
static __device__ __forceinline__ uint32_t pack_bf16(float lo, float hi)
{
#ifdef MDR_CUDA_EMULATED
    return emu_pack_bf16(lo, hi);
#else
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
#endif
}
static __device__ __forceinline__ float low_bf16(uint32_t p) { return __uint_as_float(p << 16); }
static __device__ __forceinline__ float high_bf16(uint32_t p) { return __uint_as_float(p & 0xffff0000u); }
static __device__ __forceinline__ void put(float *p, float x) { *p = x; }
static __device__ __forceinline__ void put(bf16 *p, float x) { p->u = (uint16_t)(pack_bf16(x, 0.0f) & 0xffffu); }

/* ---- an argument in a kernel: pass Arg by value ---- */
/* Element `at` (member, sequence, row and column strides applied) whatever its size; the branch is the same for all threads. */
static __device__ __forceinline__ float arg_get(const Arg &a, int64_t at)
{
    return a.size == 2 ? to_float(((const bf16 *)a.data)[at]) : ((const float *)a.data)[at];
}
static __device__ __forceinline__ void arg_put(const Arg &a, int64_t at, float x)
{
    if (a.size == 2) put((bf16 *)a.data + at, x);
    else ((float *)a.data)[at] = x;
}
/* Index of row r of sequence s of member m. */
static __device__ __forceinline__ int64_t arg_row(const Arg &a, int64_t m, int64_t s, int64_t r) { return m * a.member + s * a.seq + r * a.ld; }

/* 2^x on the special function unit (relative error 2^-22); exp as 2^(x log2 e). */
static __device__ __forceinline__ float fast_exp2(float x)
{
#ifdef MDR_CUDA_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* 1 / (1 + e^-x) to about 1e-6 relative; 0 far below, where the exponential is infinite. */
static __device__ __forceinline__ float fast_sigmoid(float x) { return __fdividef(1.0f, 1.0f + fast_exp2(-1.44269504f * x)); }
/* Over four neighbouring lanes, the same in each. */
static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* The call of a run's last stage, which only adds scratch to these outputs: while they are the step's sums nobody waits for them, so where
 * exec lends a side (the scratch is this call's own then) it runs beside the kernels that follow. */
static inline Call mdr_beside(const Call *c, uint32_t outs)
{
    Call last = *c;
    if (!c->side || (c->add & outs) != outs) return last;
    cudaEventRecord((cudaEvent_t)c->side->event, (cudaStream_t)c->stream);
    cudaStreamWaitEvent((cudaStream_t)c->side->stream, (cudaEvent_t)c->side->event, 0);
    c->side->out = true;
    last.stream = c->side->stream;
    return last;
}

static inline int64_t mdr_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* A grid of x by y by members. */
static inline dim3 mdr_grid(int64_t x, int64_t y, int32_t members) { return dim3((unsigned)x, (unsigned)y, (unsigned)members); }
#endif
