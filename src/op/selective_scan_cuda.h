/* What selective_scan.cu and selective_scan_grad.cu share: tiles of SCAN_CHUNK tokens brought to shared memory while the tile before
 * is worked on. A warp's lanes are neighbouring channels, so every access to such a tile is free of bank conflicts. */
#ifndef MDR_SELECTIVE_SCAN_CUDA_H
#define MDR_SELECTIVE_SCAN_CUDA_H
#include "op/cuda_mma.h"
#include "op/selective_scan.h"

/* gated_scan and its gradient: what they read and make beside selective_scan's. */
enum { IN_Z = 6, GATED_STATES, GATED_DOUT };
enum { OUT_DZ = 6, OUT_DBIAS };

#define SCAN_LOG2E 1.4426950408889634f
#define SCAN_LN2 0.6931471805599453f
enum { SCAN_THREADS = 128 };          /* of every block                                                                     */

/* CH neighbouring channels of one token, moved by one access. */
template <typename T, int CH> struct alignas(sizeof(T) * CH) Pack { T x[CH]; };
template <typename T, int CH> static __device__ __forceinline__ void open(const Pack<T, CH> *p, float v[CH])
{
    if constexpr (sizeof(T) == 2 && CH == 2) {
        const uint32_t word = *(const uint32_t *)p;
        v[0] = low_bf16(word);
        v[1] = high_bf16(word);
    } else {
        const Pack<T, CH> x = *p;
#pragma unroll
        for (int j = 0; j < CH; j++) v[j] = to_float(x.x[j]);
    }
}
template <typename T, int CH> static __device__ __forceinline__ void close(Pack<T, CH> *p, const float v[CH])
{
    if constexpr (sizeof(T) == 2 && CH == 2) {
        *(uint32_t *)p = pack_bf16(v[0], v[1]);
    } else {
        Pack<T, CH> x;
#pragma unroll
        for (int j = 0; j < CH; j++) put(&x.x[j], v[j]);
        *p = x;
    }
}

/* Where an argument's sequence begins, in bytes. */
static __device__ __forceinline__ int64_t scan_start(const Arg &a, int64_t m, int64_t s) { return arg_row(a, m, s, 0) * a.size; }

/* Rows [t0, t0 + SCAN_CHUNK) and columns [k0, k0 + W) of the sequence of an argument that begins at `start`, into [SCAN_CHUNK][W]; what lies
 * outside rows and cols becomes zeros. A thread keeps to one column. Followed by copy_commit. */
template <int W, typename T>
static __device__ __forceinline__ void stage(T *to, const Arg &a, int64_t start, int32_t t0, int32_t rows, int32_t k0, int32_t cols)
{
    constexpr int V = 16 / (int)sizeof(T), PER = W / V, AT_ONCE = SCAN_THREADS / PER;
    static_assert(SCAN_THREADS % PER == 0 && (int)SCAN_CHUNK % AT_ONCE == 0);
    const int32_t r = (int32_t)threadIdx.x / PER, k = (int32_t)threadIdx.x % PER * V;
    const int32_t left = k0 + k < cols ? rows - t0 - r : 0, ld = (int32_t)a.ld;
    const T *from = (const T *)((const unsigned char *)a.data + start) + ((t0 + r) * ld + k0 + k);
    to += r * W + k;
#pragma unroll
    for (int i = 0; i < (int)SCAN_CHUNK; i += AT_ONCE, from += AT_ONCE * ld) copy_16(to + i * W, from, i < left);
}

/* Rows of B and of C, which may be columns of some projection: [2][SCAN_CHUNK][N]. Each thread holds its values in registers from fetch
 * to keep, so that their way from memory overlaps the work between the two. */
template <int N> struct Rates { float x[N / 4]; };
template <int N>
static __device__ __forceinline__ void fetch(Rates<N> &r, const Arg &bm, const Arg &cm, int64_t start_b, int64_t start_c, int32_t t0, int32_t rows)
{
    static_assert(2 * SCAN_CHUNK * N == N / 4 * SCAN_THREADS);
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        const int32_t i = (int32_t)threadIdx.x + j * SCAN_THREADS, t = t0 + i / N % SCAN_CHUNK;
        const bool of_c = i >= SCAN_CHUNK * N;
        const unsigned char *from = (const unsigned char *)(of_c ? cm.data : bm.data) + (of_c ? start_c : start_b);
        const int32_t at = t * (int32_t)(of_c ? cm.ld : bm.ld) + i % N;
        r.x[j] = t >= rows ? 0.0f : (of_c ? cm.size : bm.size) == 2 ? to_float(((const bf16 *)from)[at]) : ((const float *)from)[at];
    }
}
template <int N> static __device__ __forceinline__ void keep(const Rates<N> &r, float *to)
{
#pragma unroll
    for (int j = 0; j < N / 4; j++) to[(int32_t)threadIdx.x + j * SCAN_THREADS] = r.x[j];
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

/* What the gated ops do to their inputs. softplus: max(p, 0) + log(1 + e), e = exp(-|p|) <= 1; log(1 + e) / e is a polynomial to 6e-5,
 * far below what p was rounded to: the special function unit, which also makes every decay, is as busy as the rest. */
static __device__ __forceinline__ float scan_softplus(float p)
{
    const float e = fast_exp2(-SCAN_LOG2E * fabsf(p));
    float q = 0.0406634376f;
    q = fmaf(q, e, -0.156029527f);
    q = fmaf(q, e, 0.305399977f);
    q = fmaf(q, e, -0.496788748f);
    q = fmaf(q, e, 0.999936822f);
    return fmaf(q, e, fmaxf(p, 0.0f));
}

/* May rows of all these be moved 16 bytes at once, places within a sequence counted by an int32_t, and are they of one size? Absent ones
 * (data NULL) do not count. Returns the size or 0. */
static inline int64_t scan_size(int64_t rows, int64_t cols, int n, const Arg *const *a)
{
    int64_t size = 0;
    for (int i = 0; i < n; i++) {
        const Arg *x = a[i];
        if (!x->data) continue;
        if (size == 0) size = x->size;
        const uintptr_t places = (uintptr_t)x->data | (uintptr_t)(x->member * size) | (uintptr_t)(x->seq * size) | (uintptr_t)(x->ld * size);
        if (x->size != size || places % 16 != 0 || (rows + SCAN_CHUNK) * x->ld > INT32_MAX) return 0;
    }
    return size && cols * size % 16 == 0 ? size : 0;
}
static inline int64_t scan_round(int64_t x, int64_t to) { return mdr_ceil_div(x, to) * to; }
#endif
