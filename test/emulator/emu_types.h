/* Qualifiers, vector types and built-in variables of CUDA (cuda_runtime.h). */
#ifndef EMU_TYPES_H
#define EMU_TYPES_H
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __noinline__              /* empty: the headers of C++ use it as an attribute's name */
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
/* Blocks run one after another: one copy will do. Nothing else here is thread_local, so its segment is shared memory. */
#define __shared__ static thread_local
#define __builtin_assume(condition) ((void)0)

struct dim3;
#define EMU_VECTOR(T, name, align1, align2, align4)                                                                    \
    struct name##1 { T x; };                                                                                           \
    struct __attribute__((aligned(align2))) name##2 { T x, y; };                                                       \
    struct name##3 { T x, y, z; };                                                                                     \
    struct __attribute__((aligned(align4))) name##4 { T x, y, z, w; };                                                 \
    static inline name##1 make_##name##1(T x) { return name##1{x}; }                                                   \
    static inline name##2 make_##name##2(T x, T y) { return name##2{x, y}; }                                           \
    static inline name##3 make_##name##3(T x, T y, T z) { return name##3{x, y, z}; }                                   \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4{x, y, z, w}; }
EMU_VECTOR(signed char, char, 1, 2, 4)
EMU_VECTOR(unsigned char, uchar, 1, 2, 4)
EMU_VECTOR(short, short, 2, 4, 8)
EMU_VECTOR(unsigned short, ushort, 2, 4, 8)
EMU_VECTOR(int, int, 4, 8, 16)
EMU_VECTOR(unsigned, uint, 4, 8, 16)
EMU_VECTOR(long long, longlong, 8, 16, 16)
EMU_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
EMU_VECTOR(float, float, 4, 8, 16)
EMU_VECTOR(double, double, 8, 16, 16)
#undef EMU_VECTOR

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;
#endif
