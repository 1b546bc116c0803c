/* What selective_scan.cu and selective_scan_grad.cu share: tiles of SCAN_CHUNK tokens brought to shared memory while the tile before
 * is worked on. A warp's lanes are neighbouring channels, so every access to such a tile is free of bank conflicts. */
#ifndef MDR_SELECTIVE_SCAN_CUDA_H
#define MDR_SELECTIVE_SCAN_CUDA_H
#include "op/cuda_mma.h"
#include "op/selective_scan.h"

#define SCAN_LOG2E 1.4426950408889634f
#define SCAN_LN2 0.6931471805599453f

/* CH neighbouring channels of one token, moved by one access. */
template <typename T, int CH> struct alignas(sizeof(T) * CH) Pack { T x[CH]; };

/* Rows [t0, t0 + n) and columns [k0, k0 + width) of an argument whose sequence begins at `base`, into [n][width]; what lies outside
 * rows and cols becomes zeros. width is a multiple of 16 bytes. Followed by copy_commit. */
template <typename T>
static __device__ __forceinline__ void stage(T *to, const Arg &a, int64_t base, int64_t ld, int32_t t0, int32_t n, int32_t rows, int32_t k0, int32_t width,
                                             int32_t cols)
{
    constexpr int V = 16 / (int)sizeof(T);
    const int32_t per = width / V;
    for (int32_t i = (int32_t)threadIdx.x; i < n * per; i += (int32_t)blockDim.x) {
        const int32_t r = i / per, k = i % per * V;
        const bool there = t0 + r < rows && k0 + k < cols;
        copy_16(to + r * width + k, (const T *)a.data + (there ? base + (t0 + r) * ld + k0 + k : 0), there);
    }
}

/* Rows of B and of C, which may be columns of some projection: [2][SCAN_CHUNK][N]. Each thread holds its first few values in registers
 * from fetch to keep, so that their way from memory overlaps the work between the two. */
template <int N> struct Rates { float x[N / 4]; };
template <int N>
static __device__ __forceinline__ float rate(const Arg &bm, const Arg &cm, int64_t base_b, int64_t base_c, int32_t i, int32_t t0, int32_t rows)
{
    const int32_t which = i / (SCAN_CHUNK * N), t = t0 + i / N % SCAN_CHUNK, n = i % N;
    if (t >= rows) return 0.0f;
    return which ? arg_get(cm, base_c + t * cm.ld + n) : arg_get(bm, base_b + t * bm.ld + n);
}
template <int N>
static __device__ __forceinline__ void fetch(Rates<N> &r, const Arg &bm, const Arg &cm, int64_t base_b, int64_t base_c, int32_t t0, int32_t rows)
{
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        const int32_t i = (int32_t)threadIdx.x + j * (int32_t)blockDim.x;
        r.x[j] = i < 2 * SCAN_CHUNK * N ? rate<N>(bm, cm, base_b, base_c, i, t0, rows) : 0.0f;
    }
}
template <int N>
static __device__ __forceinline__ void keep(const Rates<N> &r, float *to, const Arg &bm, const Arg &cm, int64_t base_b, int64_t base_c, int32_t t0,
                                            int32_t rows)
{
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        const int32_t i = (int32_t)threadIdx.x + j * (int32_t)blockDim.x;
        if (i < 2 * SCAN_CHUNK * N) to[i] = r.x[j];
    }
    for (int32_t i = (int32_t)threadIdx.x + N / 4 * (int32_t)blockDim.x; i < 2 * SCAN_CHUNK * N; i += (int32_t)blockDim.x)
        to[i] = rate<N>(bm, cm, base_b, base_c, i, t0, rows);
}
/* n (a multiple of 4) floats that all lanes read, 16 bytes at once. */
template <int N> static __device__ __forceinline__ void broadcast(float *v, const float *from)
{
#pragma unroll
    for (int n = 0; n < N; n += 4) {
        const float4 x = *(const float4 *)(from + n);
        v[n] = x.x; v[n + 1] = x.y; v[n + 2] = x.z; v[n + 3] = x.w;
    }
}

/* May rows of all these be moved 16 bytes at once, and are they of one size? Absent ones (data NULL) do not count. Returns the size or 0. */
static inline int64_t scan_size(int64_t cols, int n, const Arg *const *a)
{
    int64_t size = 0;
    for (int i = 0; i < n; i++) {
        const Arg *x = a[i];
        if (!x->data) continue;
        if (size == 0) size = x->size;
        if (x->size != size || ((uintptr_t)x->data | (uintptr_t)(x->member * size) | (uintptr_t)(x->seq * size) | (uintptr_t)(x->ld * size)) % 16 != 0)
            return 0;
    }
    return size && cols * size % 16 == 0 ? size : 0;
}
static inline int64_t scan_round(int64_t x, int64_t to) { return mdr_ceil_div(x, to) * to; }
#endif
