/* Text that is C in a .c file and CUDA in a .cu: a function marked MDR_BOTH is written once and gives the same bits on both. It must
 * be plain code: no libm, no calls of libc, no compound literals; every product that goes into a sum is a d_mul. */
#ifndef MDR_BOTH_H
#define MDR_BOTH_H
#ifdef __CUDACC__
#define MDR_BOTH static __host__ __device__ __forceinline__
#else
#define MDR_BOTH static inline
#endif

/* Before a loop of a few turns, which nvcc would otherwise write out at every place it is inlined to. */
#ifdef __CUDA_ARCH__
#define MDR_ROLLED _Pragma("unroll 1")
#else
#define MDR_ROLLED
#endif

/* a b, rounded by itself: nvcc would fuse it with the sum (everything else is compiled with -ffp-contract=off). */
MDR_BOTH double d_mul(double a, double b) {
#ifdef __CUDA_ARCH__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}
#endif
