/* Updates of a flat parameter vector by its gradient: adamw and sgd. Not nodes of a graph: the executor runs them behind the
 * fold, on any cut of the vector. g = grad * scale (scale < 1 where the gradient was clipped).
 *   adamw (Loshchilov and Hutter 2019; the order of torch.optim.AdamW: decay first, on every parameter):
 *     p = p (1 - lr decay);  m = m + (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
 *     p = p - (lr / (1 - beta1^t)) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *   sgd: p = p - lr (g + decay p)
 * What does not depend on the element is computed in double and rounded once; update.cpu.c does the same with the same order
 * of operations (+, *, /, sqrt, no FMA), so that its bits are those of this text. */
#include "op/reference.h"
#include "op/update.h"

void REF(mdr_update_adamw)(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad);
void REF(mdr_update_sgd)(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad);

#ifdef MDR_F32
#define SQRT(x) sqrtf(x)
#else
#define SQRT(x) sqrt(x)
#endif

void REF(mdr_update_adamw)(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad) {
    const AdamwFactors f = adamw_factors(h);
    const real keep = (real)f.keep, blend1 = (real)f.blend1, keep2 = (real)f.keep2, blend2 = (real)f.blend2, rate = (real)f.rate,
               root = (real)f.root, eps = (real)h->eps, s = (real)scale;
    real *p = param, *m1 = m, *m2 = v;
    const real *g = grad;
    for (int64_t i = 0; i < n; i++) {
        const real gi = g[i] * s;
        m1[i] = m1[i] + blend1 * (gi - m1[i]);
        m2[i] = m2[i] * keep2 + blend2 * (gi * gi);
        p[i] = p[i] * keep - rate * (m1[i] / (SQRT(m2[i]) * root + eps));
    }
}

void REF(mdr_update_sgd)(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad) {
    (void)m; (void)v;
    const real rate = (real)h->lr, decay = (real)h->decay, s = (real)scale;
    real *p = param;
    const real *g = grad;
    for (int64_t i = 0; i < n; i++) p[i] = p[i] - rate * (g[i] * s + decay * p[i]);
}

#ifdef MDR_DECLARE
UpdateFn mdr_update_adamw_f64, mdr_update_sgd_f64;
#if defined __x86_64__
UpdateFn mdr_update_adamw_cpu, mdr_update_sgd_cpu;
#define FAST(name) mdr_update_##name##_cpu
#else
#define FAST(name) NULL
#endif

static const UpdateDef table[] = {
    {"adamw", 2, mdr_update_adamw_f32, mdr_update_adamw_f64, FAST(adamw)},
    {"sgd", 0, mdr_update_sgd_f32, mdr_update_sgd_f64, FAST(sgd)}};

const UpdateDef *mdr_op_update(const char *name) {
    for (int i = 0; i < MDR_COUNT(table); i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}
#endif
