/* adamw and sgd, fast: the equations of update.c, eight elements at a time by the same operations in the same order, so the
 * bits are those of the float reference and do not depend on where a range is cut. The last elements go through masked
 * loads into the same code. */
#include "op/update.h"
#include "op/avx2.h"

UpdateFn mdr_update_adamw_cpu, mdr_update_sgd_cpu;

typedef struct Adamw { __m256 keep, blend1, keep2, blend2, rate, root, eps, scale; } Adamw;
static inline void adamw_8(const Adamw *a, __m256 g, __m256 *p, __m256 *m, __m256 *v) {
    g = _mm256_mul_ps(g, a->scale);
    *m = _mm256_add_ps(*m, _mm256_mul_ps(a->blend1, _mm256_sub_ps(g, *m)));
    *v = _mm256_add_ps(_mm256_mul_ps(*v, a->keep2), _mm256_mul_ps(a->blend2, _mm256_mul_ps(g, g)));
    const __m256 below = _mm256_add_ps(_mm256_mul_ps(_mm256_sqrt_ps(*v), a->root), a->eps);
    *p = _mm256_sub_ps(_mm256_mul_ps(*p, a->keep), _mm256_mul_ps(a->rate, _mm256_div_ps(*m, below)));
}

void mdr_update_adamw_cpu(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad) {
    const AdamwFactors f = adamw_factors(h);
    const Adamw a = {_mm256_set1_ps((float)f.keep), _mm256_set1_ps((float)f.blend1), _mm256_set1_ps((float)f.keep2),
                     _mm256_set1_ps((float)f.blend2), _mm256_set1_ps((float)f.rate), _mm256_set1_ps((float)f.root),
                     _mm256_set1_ps((float)h->eps), _mm256_set1_ps((float)scale)};
    float *p = param, *m1 = m, *m2 = v;
    const float *g = grad;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 pi = _mm256_loadu_ps(p + i), mi = _mm256_loadu_ps(m1 + i), vi = _mm256_loadu_ps(m2 + i);
        adamw_8(&a, _mm256_loadu_ps(g + i), &pi, &mi, &vi);
        _mm256_storeu_ps(p + i, pi);
        _mm256_storeu_ps(m1 + i, mi);
        _mm256_storeu_ps(m2 + i, vi);
    }
    if (i == n) return;
    const __m256i mask = v_mask((int)(n - i));
    __m256 pi = _mm256_maskload_ps(p + i, mask), mi = _mm256_maskload_ps(m1 + i, mask), vi = _mm256_maskload_ps(m2 + i, mask);
    adamw_8(&a, _mm256_maskload_ps(g + i, mask), &pi, &mi, &vi);
    _mm256_maskstore_ps(p + i, mask, pi);
    _mm256_maskstore_ps(m1 + i, mask, mi);
    _mm256_maskstore_ps(m2 + i, mask, vi);
}

static inline __m256 sgd_8(__m256 rate, __m256 decay, __m256 scale, __m256 p, __m256 g) {
    return _mm256_sub_ps(p, _mm256_mul_ps(rate, _mm256_add_ps(_mm256_mul_ps(g, scale), _mm256_mul_ps(decay, p))));
}

void mdr_update_sgd_cpu(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad) {
    (void)m; (void)v;
    const __m256 rate = _mm256_set1_ps((float)h->lr), decay = _mm256_set1_ps((float)h->decay), s = _mm256_set1_ps((float)scale);
    float *p = param;
    const float *g = grad;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(p + i, sgd_8(rate, decay, s, _mm256_loadu_ps(p + i), _mm256_loadu_ps(g + i)));
    if (i == n) return;
    const __m256i mask = v_mask((int)(n - i));
    _mm256_maskstore_ps(p + i, mask, sgd_8(rate, decay, s, _mm256_maskload_ps(p + i, mask), _mm256_maskload_ps(g + i, mask)));
}
