/* exp, log, sin, cos, tanh, erf for the reference kernels and for drawing normal numbers. In double they are libm's; in float each is computed in double by
 * plain multiplications and additions written out here and rounded once, so the bits are the same with every libm and
 * compiler (no contraction) and the error is half a unit in the last place almost always. */
#ifndef MDR_REAL_MATH_H
#define MDR_REAL_MATH_H
#include "base/both.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

MDR_BOTH double d_from_bits(int64_t i) { double d; memcpy(&d, &i, sizeof d); return d; }
static inline int64_t d_to_bits(double d) { int64_t i; memcpy(&i, &d, sizeof i); return i; }

/* e^x: x = k ln2 + r, |r| <= ln2/2, Taylor to r^13 (error < 1e-17 relative). Also on a GPU (both.h), for metrics. */
MDR_BOTH double d_exp(double x) {
    if (!(x == x)) return x;
    if (x > 709.0) return (double)INFINITY;
    if (x < -708.0) return 0.0;
    double k = d_mul(x, 1.4426950408889634);
    k = (k + 6755399441055744.0) - 6755399441055744.0;          /* round to nearest even                               */
    double r = (x - d_mul(k, 0.693147180369123816490)) - d_mul(k, 1.90821492927058770002e-10);
    double p = 1.0 / 6227020800.0;
    p = d_mul(p, r) + 1.0 / 479001600.0; p = d_mul(p, r) + 1.0 / 39916800.0; p = d_mul(p, r) + 1.0 / 3628800.0;
    p = d_mul(p, r) + 1.0 / 362880.0; p = d_mul(p, r) + 1.0 / 40320.0; p = d_mul(p, r) + 1.0 / 5040.0;
    p = d_mul(p, r) + 1.0 / 720.0; p = d_mul(p, r) + 1.0 / 120.0; p = d_mul(p, r) + 1.0 / 24.0; p = d_mul(p, r) + 1.0 / 6.0;
    p = d_mul(p, r) + 0.5; p = d_mul(p, r) + 1.0; p = d_mul(p, r) + 1.0;
    return d_mul(p, d_from_bits(((int64_t)k + 1023) << 52));
}
/* ln x = k ln2 + 2 atanh((m-1)/(m+1)), m in [sqrt(1/2), sqrt 2). */
static inline double d_log(double x) {
    if (!(x > 0.0)) return x == 0.0 ? -(double)INFINITY : (double)NAN;
    if (x == (double)INFINITY) return x;
    int64_t bits = d_to_bits(x), k = 0;
    if (bits < ((int64_t)1 << 52)) { x *= 18014398509481984.0; bits = d_to_bits(x); k = -54; }
    k += (bits >> 52) - 1023;
    double m = d_from_bits((bits & 0xfffffffffffff) | ((int64_t)1023 << 52));
    if (m > 1.4142135623730951) { m *= 0.5; k++; }
    double f = (m - 1.0) / (m + 1.0), g = f * f, p = 1.0 / 23.0;
    p = p * g + 1.0 / 21.0; p = p * g + 1.0 / 19.0; p = p * g + 1.0 / 17.0; p = p * g + 1.0 / 15.0; p = p * g + 1.0 / 13.0;
    p = p * g + 1.0 / 11.0; p = p * g + 1.0 / 9.0; p = p * g + 1.0 / 7.0; p = p * g + 1.0 / 5.0; p = p * g + 1.0 / 3.0;
    return (double)k * 0.693147180369123816490 + ((double)k * 1.90821492927058770002e-10 + 2.0 * (f + f * g * p));
}
/* sin and cos: quadrant by three-part pi/2, Taylor to r^17. Good to |x| < 1e6, which no layer exceeds. */
static inline void d_sincos(double x, double *sn, double *cs) {
    double k = x * 0.63661977236758134308;
    k = (k + 6755399441055744.0) - 6755399441055744.0;
    double r = ((x - k * 1.5707963267341256) - k * 6.0771005065061922e-11) - k * 2.0222662487959506e-21;
    double g = r * r, s = 1.0 / 355687428096000.0, c = 1.0 / 20922789888000.0;
    s = s * g - 1.0 / 1307674368000.0; s = s * g + 1.0 / 6227020800.0; s = s * g - 1.0 / 39916800.0;
    s = s * g + 1.0 / 362880.0; s = s * g - 1.0 / 5040.0; s = s * g + 1.0 / 120.0; s = s * g - 1.0 / 6.0;
    s = r + r * g * s;
    c = c * g - 1.0 / 87178291200.0; c = c * g + 1.0 / 479001600.0; c = c * g - 1.0 / 3628800.0; c = c * g + 1.0 / 40320.0;
    c = c * g - 1.0 / 720.0; c = c * g + 1.0 / 24.0; c = c * g - 0.5; c = c * g + 1.0;
    int64_t q = (int64_t)k & 3;
    *sn = q == 0 ? s : q == 1 ? c : q == 2 ? -s : -c;
    *cs = q == 0 ? c : q == 1 ? -s : q == 2 ? -c : s;
}
static inline double d_tanh(double x) {
    double a = x < 0 ? -x : x;
    if (a > 20.0) return x < 0 ? -1.0 : 1.0;
    if (a < 1e-4) return x - x * x * x * (1.0 / 3.0);
    double e = d_exp(2.0 * a), t = (e - 1.0) / (e + 1.0);
    return x < 0 ? -t : t;
}
/* erf: series below 3, complementary continued fraction above; 1e-15. */
static inline double d_erf(double x) {
    double a = x < 0 ? -x : x, r;
    if (!(a == a)) return x;
    if (a > 6.0) r = 1.0;
    else if (a < 3.0) {
        double term = a, sum = a;
        for (int n = 1; n < 60; n++) { term *= -a * a / n; sum += term / (2 * n + 1); }
        r = 1.1283791670955126 * sum;
    } else {
        double f = a;
        for (int n = 60; n > 0; n--) f = a + 0.5 * n / f;
        r = 1.0 - d_exp(-a * a) / (f * 1.7724538509055160);
    }
    return x < 0 ? -r : r;
}
#ifdef REAL
#ifdef MDR_F32
#define R_LIBM(ours, libm, x) ((float)(ours)((double)(x)))
#else
#define R_LIBM(ours, libm, x) ((libm)(x))
#endif
static inline REAL r_exp(REAL x) { return R_LIBM(d_exp, exp, x); }
static inline REAL r_log(REAL x) { return R_LIBM(d_log, log, x); }
static inline REAL r_tanh(REAL x) { return R_LIBM(d_tanh, tanh, x); }
static inline REAL r_erf(REAL x) { return R_LIBM(d_erf, erf, x); }
static inline REAL r_sin(REAL x) {
#ifdef MDR_F32
    double s, c; d_sincos((double)x, &s, &c); (void)c; return (float)s;
#else
    return sin(x);
#endif
}
static inline REAL r_cos(REAL x) {
#ifdef MDR_F32
    double s, c; d_sincos((double)x, &s, &c); (void)s; return (float)c;
#else
    return cos(x);
#endif
}
static inline REAL r_sqrt(REAL x) { return (REAL)sqrt((double)x); }
static inline REAL r_sigmoid(REAL x) {
    REAL e = r_exp(x < 0 ? x : -x), d = (REAL)1 + e;
    return x < 0 ? e / d : (REAL)1 / d;
}
static inline REAL r_softplus(REAL x) {            /* log(1 + e^x)                                                        */
    if (x > (REAL)30) return x;
    REAL e = r_exp(x);
    return e < (REAL)1e-4 ? e - e * e / (REAL)2 : r_log((REAL)1 + e);
}
#endif
#endif
