/* Quantiles of Student's t, from the regularised incomplete beta function I_x(a, b) (its continued fraction, evaluated
 * by Lentz's method):
 *   P(T <= t) = 1 - I_{df/(df+t^2)}(df/2, 1/2) / 2   for t >= 0
 * Inverted by bisection: slow and certain. */
#include "study/study.h"
#include <math.h>

static double fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m < 100000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step = 1;
        for (int half = 0; half < 2; half++) {
            double k = half ? odd : even;
            d = 1 + k * d;
            c = 1 + k / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            step = c * d;
            h *= step;
        }
        if (fabs(step - 1) < 1e-16) break;
    }
    return h;
}

static double log_gamma(double x) {
    int sign;
    return lgamma_r(x, &sign);
}

static double incomplete_beta(double a, double b, double x) {
    if (!(x > 0)) return 0;
    if (!(x < 1)) return 1;
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * fraction(a, b, x) / a;
    return 1 - front * fraction(b, a, 1 - x) / b;
}

/* P(T > t), t >= 0 */
static double upper(double df, double t) { return 0.5 * incomplete_beta(0.5 * df, 0.5, df / (df + t * t)); }

double mdr_study_t_quantile(double df, double p) {
    if (!(df > 0) || !(p > 0) || !(p < 1)) return p == 0.5 && df > 0 ? 0 : (double)NAN;
    if (p < 0.5) return -mdr_study_t_quantile(df, 1 - p);
    double lo = 0, hi = 1, tail = 1 - p;
    while (upper(df, hi) > tail && hi < 1e300) hi *= 2;
    for (int i = 0; i < 200 && lo < hi; i++) {
        double mid = lo + 0.5 * (hi - lo);
        if (!(mid > lo) || !(mid < hi)) break;
        if (upper(df, mid) > tail) lo = mid;
        else hi = mid;
    }
    return lo + 0.5 * (hi - lo);
}
