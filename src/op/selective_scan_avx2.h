/* What the two fast kernels of selective_scan share, so that the gradient recomputes the very bits of h that forward had.
 * Lanes are eight channels; states go by at most four at a time so that they stay in registers. From *.cpu.c only. */
#ifndef MDR_SELECTIVE_SCAN_AVX2_H
#define MDR_SELECTIVE_SCAN_AVX2_H
#include "op/avx2.h"
#include "op/op.h"
#include "op/selective_scan.h"
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* X(i) for the states of a group; `group` is a compile-time constant wherever this stands. */
#define EACH_STATE(X) do { X(0) if (group > 1) { X(1) } if (group > 2) { X(2) X(3) } } while (0)

/* 2^x for the decays exp(delta a) = 2^(delta log2(e) a): five multiplications fewer than v_exp, and half of this op is
 * exponentials. Relative error < 2.5e-7; inf from 128 on, not below 2^-126 (a state that decays so fast is gone). NaN in,
 * NaN out. Polynomial: minimax relative error on [-1/2, 1/2] by reweighted least squares, p(0) = 1. */
INLINE __m256 v_exp2(__m256 x) {
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256 c = _mm256_max_ps(_mm256_set1_ps(-126.0f), _mm256_min_ps(_mm256_set1_ps(128.0f), x));
    __m256 t = _mm256_add_ps(c, magic), r = _mm256_sub_ps(c, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_set1_ps(0.001326472847f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.009671512991f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.055507335811f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240222424268f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693147003650f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

/* One argument of a block of eight channels: where row t0 begins and how far the rows are apart. */
typedef struct Rows { float *p; int64_t ld; } Rows;
INLINE __m256 row(Rows r, int t) { return _mm256_loadu_ps(r.p + t * r.ld); }

/* Rows of the last, incomplete block: copied to a buffer [SCAN_CHUNK][8] with zeros, and back. */
static inline Rows stage_in(float *buffer, Rows from, int len, int n) {
    memset(buffer, 0, sizeof(float) * SCAN_CHUNK * 8);
    for (int t = 0; t < len; t++) memcpy(buffer + t * 8, from.p + t * from.ld, sizeof(float) * (size_t)n);
    return (Rows){buffer, 8};
}
static inline void stage_out(const float *buffer, Rows to, int len, int n) {
    for (int t = 0; t < len; t++) memcpy(to.p + t * to.ld, buffer + t * 8, sizeof(float) * (size_t)n);
}

/* [cols, n_state] to [n_state][width], channels beside each other, zeros behind. */
static inline void states_to_lanes(float *to, int64_t width, const float *from, int64_t ld, int32_t cols, int32_t n_state) {
    for (int32_t n = 0; n < n_state; n++) {
        for (int32_t k = 0; k < cols; k++) to[n * width + k] = from[k * ld + n];
        for (int64_t k = cols; k < width; k++) to[n * width + k] = 0.0f;
    }
}
#endif
