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

/* Four times 2^x for the decays exp(delta a) = 2^(delta log2(e) a): five multiplications fewer than v_exp, and half of this
 * op is exponentials. Step by step for all four: one alone is a chain of 40 cycles, and a core looks only about three such
 * chains ahead. Relative error < 2.5e-7; inf from 128 on, not below 2^-126 (a state that decays so fast is gone). NaN in,
 * NaN out. Polynomial: minimax relative error on [-1/2, 1/2] by reweighted least squares, p(0) = 1. */
#define FOUR(X) do { X(0) X(1) X(2) X(3) } while (0)
INLINE void v_exp2_four(__m256 x[4]) {
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256 t[4], p[4];
#define CLAMP(i) x[i] = _mm256_max_ps(_mm256_set1_ps(-126.0f), _mm256_min_ps(_mm256_set1_ps(128.0f), x[i]));
#define ROUND(i) t[i] = _mm256_add_ps(x[i], magic);
#define WHOLE(i) p[i] = _mm256_sub_ps(t[i], magic);
#define REST(i) x[i] = _mm256_sub_ps(x[i], p[i]);
#define FIRST(i) p[i] = _mm256_fmadd_ps(x[i], _mm256_set1_ps(0.001326472847f), _mm256_set1_ps(0.009671512991f));
#define TERM(i, c) p[i] = _mm256_fmadd_ps(p[i], x[i], _mm256_set1_ps(c));
#define TERM_3(i) TERM(i, 0.055507335811f)
#define TERM_2(i) TERM(i, 0.240222424268f)
#define TERM_1(i) TERM(i, 0.693147003650f)
#define TERM_0(i) TERM(i, 1.0f)
#define POWER(i) t[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t[i]), 23));
#define SCALE(i) x[i] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[i]), _mm256_castps_si256(t[i])));
    FOUR(CLAMP); FOUR(ROUND); FOUR(WHOLE); FOUR(REST); FOUR(FIRST); FOUR(TERM_3); FOUR(TERM_2); FOUR(POWER); FOUR(TERM_1);
    FOUR(TERM_0); FOUR(SCALE);
}

/* decay[t][4][8] of a group of states (1, 2 or 4) from x[t][8] = delta log2(e) and a[i][8]. It takes tokens by
 * 4 / group: len may be passed by three rows, so x has SCAN_CHUNK rows of some numbers. */
INLINE void decays(const float *x, const float *a, const int group, int len, float *decay) {
    for (int t0 = 0; t0 < len; t0 += 4 / group) {
        __m256 v[4];
#define EXPONENT(i)                                                                                                    \
        v[i] = _mm256_mul_ps(_mm256_load_ps(x + (t0 + i / group) * 8), _mm256_load_ps(a + i % group * 8));
        FOUR(EXPONENT);
        v_exp2_four(v);
#define KEEP(i) _mm256_store_ps(decay + ((t0 + i / group) * 4 + i % group) * 8, v[i]);
        FOUR(KEEP);
    }
}

/* Eight channels of a matrix, n of them real: the last block of a row goes through a mask. */
typedef struct Strip { float *p; int64_t ld; } Strip;
INLINE __m256 get(const float *p, int n) { return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, v_mask(n)); }
INLINE void put(float *p, int n, __m256 v) {
    if (n >= 8) _mm256_storeu_ps(p, v);
    else _mm256_maskstore_ps(p, v_mask(n), v);
}
static inline Strip strip(const Arg *a, int64_t s, int32_t t0, int32_t col) {
    return a->data ? (Strip){(float *)a->data + s * a->seq + t0 * a->ld + col, a->ld} : (Strip){NULL, 0};
}

/* Values of [cols, n_state] by blocks of eight channels, [block][n_state][8], zeros behind the last channel; and back. */
static inline void to_lanes(float *to, const float *from, int64_t ld, int32_t cols, int32_t n_state) {
    for (int32_t k = 0; k < (cols + 7) / 8 * 8; k++)
        for (int32_t n = 0; n < n_state; n++)
            to[((int64_t)k / 8 * n_state + n) * 8 + k % 8] = k < cols ? from[k * ld + n] : 0.0f;
}
static inline void from_lanes(float *to, int64_t ld, const float *from, int32_t cols, int32_t n_state) {
    for (int32_t k = 0; k < cols; k++)
        for (int32_t n = 0; n < n_state; n++) to[k * ld + n] = from[((int64_t)k / 8 * n_state + n) * 8 + k % 8];
}
#endif
