/* Vector mathematics for the fast kernels (AVX2 and FMA, eight floats): one text for all of them, so that an
 * exponential has the same bits wherever it stands. NaN in, NaN out. Include from *.cpu.c only (compiled with
 * -mavx2 -mfma). */
#ifndef MDR_AVX2_H
#define MDR_AVX2_H
#include <immintrin.h>
#include <stdint.h>

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
static inline __m256i v_mask(int n) {                                                       /* first n of eight lanes */
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/* First n of eight floats (n >= 8: all); the other lanes are 0 and their memory is not touched. */
static inline __m256 v_load(const float *p, int64_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, v_mask((int)n));
}
static inline void v_store(float *p, int64_t n, __m256 v) {
    if (n >= 8) _mm256_storeu_ps(p, v);
    else _mm256_maskstore_ps(p, v_mask((int)n), v);
}
static inline __m256 v_abs(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline __m256 v_sign(__m256 x) { return _mm256_and_ps(_mm256_set1_ps(-0.0f), x); }
static inline __m256 v_neg(__m256 x) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x); }
static inline __m256 v_fma(__m256 a, __m256 b, float c) { return _mm256_fmadd_ps(a, b, _mm256_set1_ps(c)); }
static inline float h_max(__m256 v) {
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

/* 1 / (1 + e^-x): 4e-7 relative; 0 below -88. */
static inline __m256 v_sigmoid(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, v_exp(v_neg(x))));
}
/* Below 0.625 an odd polynomial (our own Chebyshev fit), above 1 - 2 / (e^2|x| + 1). 3e-7 relative. */
static inline __m256 v_tanh(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    __m256 a = v_abs(x), g = _mm256_mul_ps(x, x), p = _mm256_set1_ps(-6.104948028e-03f);
    p = v_fma(p, g, 2.100364124e-02f);
    p = v_fma(p, g, -5.385249747e-02f);
    p = v_fma(p, g, 1.333278226e-01f);
    p = v_fma(p, g, -3.333332910e-01f);
    __m256 low = _mm256_fmadd_ps(_mm256_mul_ps(p, g), x, x);
    __m256 high = _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(v_exp(_mm256_add_ps(a, a)), one)));
    high = _mm256_or_ps(high, v_sign(x));
    return _mm256_blendv_ps(low, high, _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_GE_OQ));
}
/* ln x = k ln2 + 2 atanh((m-1)/(m+1)), m in [sqrt(1/2), sqrt 2): 3e-7 relative or absolute. Denormals count as 0. */
static inline __m256 v_ln(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256i bits = _mm256_castps_si256(x);
    __m256i k = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3)), 23);         /* by sqrt(1/2) */
    __m256 m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(k, 23)));
    __m256 f = _mm256_sub_ps(m, one), s = _mm256_div_ps(f, _mm256_add_ps(m, one)), g = _mm256_mul_ps(s, s);
    __m256 p = v_fma(_mm256_set1_ps(1.0f / 9.0f), g, 1.0f / 7.0f), n = _mm256_cvtepi32_ps(k);
    p = v_fma(p, g, 1.0f / 5.0f);
    p = v_fma(p, g, 1.0f / 3.0f);
    p = _mm256_mul_ps(_mm256_mul_ps(p, g), _mm256_add_ps(s, s));
    /* 2s = f - s f: f is exact, so the rounding of s counts little */
    __m256 y = _mm256_add_ps(f, _mm256_fnmadd_ps(s, f, _mm256_fmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), p)));
    y = _mm256_fmadd_ps(n, _mm256_set1_ps(0.693359375f), y);
    const __m256 inf = _mm256_set1_ps(__builtin_inff());
    y = _mm256_blendv_ps(y, v_neg(inf), _mm256_cmp_ps(x, _mm256_set1_ps(1.17549435e-38f), _CMP_LT_OQ));
    y = _mm256_blendv_ps(y, _mm256_set1_ps(__builtin_nanf("")), _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, inf, _CMP_NLT_UQ));                                 /* inf and NaN */
}
/* ln(1 + e^x) = max(x, 0) + 2 atanh(e / (2 + e)), e = e^-|x|: no cancellation anywhere. */
static inline __m256 v_softplus(__m256 x) {
    __m256 e = v_exp(v_neg(v_abs(x))), s = _mm256_div_ps(e, _mm256_add_ps(e, _mm256_set1_ps(2.0f))),
        g = _mm256_mul_ps(s, s);
    __m256 p = v_fma(_mm256_set1_ps(1.0f / 15.0f), g, 1.0f / 13.0f);
    p = v_fma(p, g, 1.0f / 11.0f);
    p = v_fma(p, g, 1.0f / 9.0f);
    p = v_fma(p, g, 1.0f / 7.0f);
    p = v_fma(p, g, 1.0f / 5.0f);
    p = v_fma(p, g, 1.0f / 3.0f);
    __m256 t = _mm256_add_ps(s, s);
    return _mm256_add_ps(_mm256_max_ps(_mm256_setzero_ps(), x), _mm256_fmadd_ps(_mm256_mul_ps(p, g), t, t));
}
/* sin and cos: quadrant by a three-part pi/2, then Taylor to r^9 and r^10. Absolute 2e-7 for |x| < 1e5. */
static inline void v_sincos(__m256 x, __m256 *sine, __m256 *cosine) {
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(0.636619772f), magic), k = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(1.57079637f), x);
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(-4.37113883e-8f), r);
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(-1.71512489e-15f), r);
    __m256 g = _mm256_mul_ps(r, r);
    __m256 s = v_fma(_mm256_set1_ps(1.0f / 362880.0f), g, -1.0f / 5040.0f);
    s = v_fma(s, g, 1.0f / 120.0f);
    s = v_fma(s, g, -1.0f / 6.0f);
    s = _mm256_fmadd_ps(_mm256_mul_ps(s, g), r, r);
    __m256 c = v_fma(_mm256_set1_ps(-1.0f / 3628800.0f), g, 1.0f / 40320.0f);
    c = v_fma(c, g, -1.0f / 720.0f);
    c = v_fma(c, g, 1.0f / 24.0f);
    c = v_fma(c, g, -0.5f);
    c = v_fma(c, g, 1.0f);
    __m256i q = _mm256_castps_si256(t);                                         /* its last two bits are the quadrant */
    __m256 odd = _mm256_castsi256_ps(_mm256_slli_epi32(q, 31));
    __m256 flip_s = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_and_si256(q, _mm256_set1_epi32(2)), 30));
    __m256 flip_c = _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_and_si256(_mm256_add_epi32(q, _mm256_set1_epi32(1)), _mm256_set1_epi32(2)), 30));
    *sine = _mm256_xor_ps(_mm256_blendv_ps(s, c, odd), flip_s);
    *cosine = _mm256_xor_ps(_mm256_blendv_ps(c, s, odd), flip_c);
}
static inline __m256 v_sin(__m256 x) { __m256 s, c; v_sincos(x, &s, &c); return s; }
static inline __m256 v_cos(__m256 x) { __m256 s, c; v_sincos(x, &s, &c); return c; }
/* Below 1 an odd polynomial; above 1 - e^(-x^2) t Q(t), t = 1 / (1 + |x|/2); 1 from 4. Our own Chebyshev fits; 2e-7. */
static inline __m256 v_erf(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 a = _mm256_min_ps(_mm256_set1_ps(4.0f), v_abs(x)), g = _mm256_mul_ps(a, a),
        p = _mm256_set1_ps(7.882497121e-05f);
    p = v_fma(p, g, -8.018854996e-04f);
    p = v_fma(p, g, 5.189311943e-03f);
    p = v_fma(p, g, -2.685432880e-02f);
    p = v_fma(p, g, 1.128359746e-01f);
    p = v_fma(p, g, -3.761262690e-01f);
    p = v_fma(p, g, 1.128379166e+00f);
    __m256 t = _mm256_div_ps(one, v_fma(a, _mm256_set1_ps(0.5f), 1.0f)), q = _mm256_set1_ps(9.434162885e-02f);
    q = v_fma(q, t, -3.841040281e-01f);
    q = v_fma(q, t, 4.344718979e-01f);
    q = v_fma(q, t, 1.195269833e-03f);
    q = v_fma(q, t, 2.971277596e-01f);
    q = v_fma(q, t, 2.742441013e-01f);
    q = v_fma(q, t, 2.826126230e-01f);
    __m256 high = _mm256_fnmadd_ps(_mm256_mul_ps(q, t), v_exp(v_neg(g)), one);
    __m256 y = _mm256_blendv_ps(_mm256_mul_ps(p, a), high, _mm256_cmp_ps(a, one, _CMP_GE_OQ));
    return _mm256_or_ps(y, v_sign(x));
}
#endif
