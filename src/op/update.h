/* What update.c and update.cpu.c share: the factors of a step that no element enters, in double. */
#ifndef MDR_UPDATE_H
#define MDR_UPDATE_H
#include "op/op.h"
#include <math.h>

/* b^n by squaring: the bits of a step must not be libm's. */
static inline double power(double b, int64_t n) {
    double r = 1.0;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1) r *= b;
    return r;
}

typedef struct AdamwFactors { double keep, blend1, keep2, blend2, rate, root; } AdamwFactors;
static inline AdamwFactors adamw_factors(const Hyper *h) {
    return (AdamwFactors){.keep = 1.0 - h->lr * h->decay, .blend1 = 1.0 - h->beta1, .keep2 = h->beta2, .blend2 = 1.0 - h->beta2,
                          .rate = h->lr / (1.0 - power(h->beta1, h->step)), .root = 1.0 / sqrt(1.0 - power(h->beta2, h->step))};
}
#endif
