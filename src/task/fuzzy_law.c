/* How often fuzzy recall's probe was never shown, in test form, when its place may lie past the loop's end
 * (fuzzy_in_loop 0): computed from the law of fuzzy_recall.c, not by drawing.
 *
 * N = keys!/(keys - key_motif)! keys are equally likely at each draw. Give every key but the probe its value's length
 * beforehand: c_i of the N - 1 have length i, multinomial. Given c, the pairs' sizes are independent draws (size
 * key_motif + i with probability c_i/N, the probe with 1/N), and with a place uniform in [0, R) the loop is a Markov
 * chain on the sequence's length s, with the flag "probe shown". u(s) is the chance that s is visited with the probe
 * neither drawn nor placed, if it had no place; as s only grows, the place is still ahead at s with probability S(s)
 * = max(0, (R - 1 - s)/R). One pass over s gives the chances of ending unshown and the expected draws (walk). The
 * targets wanted of a key of class i are i (draws of it - [shown]); its expected draws are those of all / N, its
 * chance of never being shown comes from a walk that may not draw it.
 *
 * The mean over c is taken over all count vectors where N <= 100 and they are few, else over 2 value_motif of them,
 * which have the right moments up to the third: f(c) is smooth and c_i/N scatters by N^-1/2, so the error falls as
 * N^-2 (under 1e-6 at N = 210). */
#include "task/fuzzy_recall.gen.h"
#include "task/internal.h"
#include <math.h>

enum { WINDOW = 32, MOST_LISTED = 100 };   /* WINDOW: over the largest pair */
typedef struct Walk { double unshown, shown, draws, draws_shown; } Walk;
typedef struct Chain { int32_t end, probe, key, classes, range; double chance, size[TASK_MAX_MOTIF]; } Chain;

static double ahead(const Chain *c, int32_t s) { return s < c->range ? (double)(c->range - 1 - s) / c->range : 0; }

/* size[i]: probability of a pair of key + i + 1 symbols that is not the probe. May sum to less than 1 - chance. */
static Walk walk(const Chain *c) {
    double u[WINDOW] = {0}, placed[WINDOW] = {0}, g[WINDOW] = {0};   /* g: visited with the probe shown */
    Walk w = {0, 0, 0, 0};
    u[0] = 1;
    placed[0] = 1 - ahead(c, 0);
    for (int32_t s = 0; s < c->end; s++) {
        int32_t here = s % WINDOW;
        double path = u[here], now = placed[here], after = g[here], free_ = path * ahead(c, s);
        u[here] = placed[here] = g[here] = 0;
        w.draws += free_ + after;
        w.draws_shown += after;
        double to_probe = now + (free_ + after) * c->chance;
        if (s + c->probe < c->end) g[(s + c->probe) % WINDOW] += to_probe;
        else w.shown += to_probe;
        for (int32_t i = 0; i < c->classes; i++) {
            int32_t t = s + c->key + i + 1;
            if (t < c->end) {
                u[t % WINDOW] += path * c->size[i];
                placed[t % WINDOW] += path * c->size[i] * (ahead(c, s) - ahead(c, t));
                g[t % WINDOW] += after * c->size[i];
            } else {
                w.unshown += free_ * c->size[i];
                w.shown += after * c->size[i];
            }
        }
    }
    return w;
}

typedef struct Sums { double sequences, unknown, wanted; } Sums;

/* One count vector (real numbers are welcome), of weight w: all lengths of the probe's value are equally likely. */
static void add_counts(const FuzzyLaw *f, double all, const double *count, double w, Sums *sums) {
    Chain c = {0, 0, f->key_motif, f->value_motif, 0, 1 / all, {0}};
    w /= f->value_motif;
    for (int32_t j = 1; j <= f->value_motif; j++) {
        c.probe = f->key_motif + j;
        c.end = f->length - c.probe - f->key_motif - f->value_motif;
        c.range = fuzzy_range(f, c.probe);
        for (int32_t i = 0; i < f->value_motif; i++) c.size[i] = count[i] / all;
        Walk k = walk(&c);
        double repeats = j * k.draws_shown / all;
        if (f->multi && all < 1e12)   /* beyond, a repeated key is rarer than rounding */
            for (int32_t i = 0; i < f->value_motif; i++) {
                if (count[i] <= 0) continue;
                c.size[i] = fmax(0, count[i] - 1) / all;
                Walk without = walk(&c);
                c.size[i] = count[i] / all;
                repeats += count[i] * (i + 1) * (k.draws / all - (1 - without.unshown - without.shown));
            }
        sums->sequences += w * k.unshown;
        sums->unknown += w * j * k.unshown;
        sums->wanted += w * (j + (f->multi ? repeats : 0));
    }
}

/* All vectors of counts with sum n: left of them go to classes from `at` on, log_w is the weight so far. */
static void add_all(const FuzzyLaw *f, double all, double *count, int32_t at, int32_t left, double log_w,
                    const double *log_fact, Sums *sums) {
    if (at == f->value_motif - 1) {
        count[at] = left;
        add_counts(f, all, count, exp(log_w - log_fact[left]), sums);
        return;
    }
    for (int32_t c = 0; c <= left; c++) {
        count[at] = c;
        add_all(f, all, count, at + 1, left - c, log_w - log_fact[c], log_fact, sums);
    }
}

/* Mean n/k each, deviations a and -b along each class with weights b/(a+b), a/(a+b): ab = 1/n and a - b = 1/n make
 * the second and third moments those of n draws. Where that made a count negative, b is cut and only the second
 * moment is kept; then N is so small that chance shows the probe. */
static void add_few(const FuzzyLaw *f, double all, Sums *sums) {
    double k = f->value_motif, n = all - 1, a = (1 / n + sqrt(1 / (n * n) + 4 / n)) / 2, b = a - 1 / n;
    if (b > 1 / (k - 1)) {
        b = 1 / (k - 1);
        a = fmin(1, 1 / (n * b));
    }
    for (int32_t way = 0; way < 2; way++)
        for (int32_t i = 0; i < f->value_motif; i++) {
            double step = way ? -b : a, count[TASK_MAX_MOTIF];
            for (int32_t j = 0; j < f->value_motif; j++) count[j] = n * (1 / k + step * ((i == j) - 1 / k));
            add_counts(f, all, count, (way ? a : b) / (a + b) / k, sums);
        }
}

void mdr_fuzzy_unshown(const FuzzyLaw *f, double *sequences, double *targets) {
    double all = 1, vectors = 1, k = f->value_motif, count[TASK_MAX_MOTIF] = {0};
    for (int32_t i = 0; i < f->key_motif; i++) all *= f->keys - i;
    for (int32_t i = 1; i < f->value_motif; i++) vectors *= (all - 1 + i) / i;
    Sums s = {0, 0, 0};
    if (f->value_motif == 1) {
        count[0] = all - 1;
        add_counts(f, all, count, 1, &s);
    } else if (all <= MOST_LISTED && vectors * k * (f->multi ? k + 1 : 1) * f->length <= 5e7) {
        double log_fact[MOST_LISTED] = {0};
        int32_t n = (int32_t)all - 1;
        for (int32_t i = 1; i <= n; i++) log_fact[i] = log_fact[i - 1] + log(i);
        add_all(f, all, count, 0, n, log_fact[n] - n * log(k), log_fact, &s);
    } else {
        add_few(f, all, &s);
    }
    *sequences = s.sequences;
    *targets = s.unknown / s.wanted;
}
