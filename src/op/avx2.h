/* Vector mathematics for the fast kernels (AVX2 and FMA, eight floats): one text for all of them, so that an exponential has
 * the same bits wherever it stands. NaN in, NaN out. Include from *.cpu.c only (compiled with -mavx2 -mfma). */
#ifndef MDR_AVX2_H
#define MDR_AVX2_H
#include <immintrin.h>

/* e^x, relative error < 2.5e-7; 0 below -86.9, inf above 88.7. 2^n * p(r), r = x - n ln2 in two parts. */
static inline __m256 v_exp(__m256 x) {
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256 c = _mm256_max_ps(_mm256_set1_ps(-87.0f), _mm256_min_ps(_mm256_set1_ps(88.8f), x));
    __m256 t = _mm256_fmadd_ps(c, _mm256_set1_ps(1.44269504f), magic), n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 720.0f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    /* 2^n by the exponent field; n in [-125, 128], applied as 2^(n-1) * 2 so that 128 does not overflow the field */
    __m256i e = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_castps_si256(t), _mm256_castps_si256(magic)), 23);
    __m256 half = _mm256_mul_ps(p, _mm256_set1_ps(2.0f));
    __m256 y = _mm256_mul_ps(half, _mm256_castsi256_ps(_mm256_add_epi32(e, _mm256_set1_epi32(126 << 23))));
    y = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-86.9f), _CMP_LT_OQ), y);
    return y;
}
static inline float h_sum(__m256 v) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
static inline __m256i v_mask(int n) {                  /* first n of eight lanes                                          */
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif
