/* adamw and sgd: against formulas written from the papers in double over many steps, the fast kernels against the float
 * reference bit by bit, and any cut of the range. */
#include "op/op.h"
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 20262, N = 67, STEPS = 12 };
typedef struct State { float p[N], m[N], v[N]; } State;
static const Hyper hyper[] = {{.lr = 1e-3, .decay = 0.1, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8},
                              {.lr = 5e-2, .decay = 0.0, .beta1 = 0.0, .beta2 = 0.5, .eps = 1e-3},
                              {.lr = 0.3, .decay = 1.0, .beta1 = 0.95, .beta2 = 0.999, .eps = 1e-12}};

static float draw(Rng *r) { return (float)(mdr_rng_normal(r)); }
static void gradient(int step, float *g) {
    Rng r = mdr_rng(SEED, (uint64_t)step);
    for (int i = 0; i < N; i++) g[i] = i == 5 ? 0.0f : draw(&r);     /* element 5 never has a gradient: decay still moves it  */
}
static State start(void) {
    State s = {0};
    Rng r = mdr_rng(SEED, 999);
    for (int i = 0; i < N; i++) s.p[i] = draw(&r);
    return s;
}
static Hyper at_step(const Hyper *h, int step) {
    Hyper r = *h;
    r.step = step;
    return r;
}
static void run32(UpdateFn *f, const Hyper *h, double scale, State *s) {
    float g[N];
    for (int t = 1; t <= STEPS; t++) {
        Hyper now = at_step(h, t);
        gradient(t, g);
        f(&now, scale, N, s->p, s->m, s->v, g);
    }
}

/* The algorithm as its paper has it: bias-corrected moments by pow, one element at a time. */
static void test_adamw_paper(void **state) {
    (void)state;
    const UpdateDef *u = mdr_op_update("adamw");
    assert_int_equal(u->n_state, 2);
    for (int k = 0; k < MDR_COUNT(hyper); k++) {
        const Hyper *h = &hyper[k];
        const double scale = 0.25;
        State s = start();
        double p[N], m[N] = {0}, v[N] = {0}, p64[N], m64[N] = {0}, v64[N] = {0}, g64[N];
        float g[N];
        for (int i = 0; i < N; i++) p[i] = p64[i] = (double)s.p[i];
        for (int t = 1; t <= STEPS; t++) {
            Hyper now = at_step(h, t);
            gradient(t, g);
            u->ref32(&now, scale, N, s.p, s.m, s.v, g);
            for (int i = 0; i < N; i++) g64[i] = (double)g[i];
            u->ref64(&now, scale, N, p64, m64, v64, g64);
            for (int i = 0; i < N; i++) {
                const double gi = scale * g64[i];
                m[i] = h->beta1 * m[i] + (1 - h->beta1) * gi;
                v[i] = h->beta2 * v[i] + (1 - h->beta2) * gi * gi;
                const double mh = m[i] / (1 - pow(h->beta1, t)), vh = v[i] / (1 - pow(h->beta2, t));
                p[i] -= h->lr * (mh / (sqrt(vh) + h->eps) + h->decay * p[i]);
            }
        }
        for (int i = 0; i < N; i++) {
            const double size = fabs(p[i]) + fabs((double)start().p[i]) + STEPS * h->lr;
            if (!(fabs(p64[i] - p[i]) <= 1e-13 * size)) fail_msg("hyper %d, element %d: double %.17g, paper %.17g", k, i, p64[i], p[i]);
            if (!(fabs((double)s.p[i] - p[i]) <= 4 * STEPS * (double)FLT_EPSILON * size))
                fail_msg("hyper %d, element %d: float %.9g, paper %.17g", k, i, (double)s.p[i], p[i]);
        }
        assert_true(s.m[5] == 0.0f && (s.p[5] == start().p[5]) == !(h->decay > 0));
    }
}

static void test_sgd(void **state) {
    (void)state;
    const UpdateDef *u = mdr_op_update("sgd");
    assert_int_equal(u->n_state, 0);
    for (int k = 0; k < MDR_COUNT(hyper); k++) {
        double p[N], q[N], g64[N];
        float g[N], p32[N];
        State s = start();
        gradient(1, g);
        for (int i = 0; i < N; i++) {
            p32[i] = s.p[i];
            p[i] = (double)s.p[i];
            g64[i] = (double)g[i];
            q[i] = p[i] - hyper[k].lr * (0.5 * g64[i] + hyper[k].decay * p[i]);
        }
        u->ref64(&hyper[k], 0.5, N, p, NULL, NULL, g64);
        u->ref32(&hyper[k], 0.5, N, p32, NULL, NULL, g);
        for (int i = 0; i < N; i++) {
            if (!(fabs(p[i] - q[i]) <= 1e-15 * (1 + fabs(q[i])))) fail_msg("element %d: %.17g, expected %.17g", i, p[i], q[i]);
            if (!(fabs((double)p32[i] - q[i]) <= 4 * (double)FLT_EPSILON * (fabs((double)s.p[i]) + fabs(g64[i]))))
                fail_msg("element %d: %.9g, expected %.17g", i, (double)p32[i], q[i]);
        }
    }
}

static const char *const names[] = {"adamw", "sgd", NULL};

/* Fast = float reference, and one call = many calls over pieces of every length, nothing beyond the range touched. */
static void test_bits(void **state) {
    (void)state;
    for (const char *const *name = names; *name; name++) {
        const UpdateDef *u = mdr_op_update(*name);
        for (int k = 0; k < MDR_COUNT(hyper); k++) {
            State a = start(), b = start();
            run32(u->ref32, &hyper[k], 1.0, &a);
            UpdateFn *f = u->fast && mdr_cpu_avx2() ? u->fast : u->ref32;
            run32(f, &hyper[k], 1.0, &b);
            if (memcmp(&a, &b, sizeof a) != 0) fail_msg("%s: the fast kernel's bits differ from the reference's", *name);
            for (int piece = 1; piece <= 19; piece++) {
                State c = start();
                float g[N];
                for (int t = 1; t <= STEPS; t++) {
                    const Hyper now = at_step(&hyper[k], t);
                    gradient(t, g);
                    for (int i = (N - 1) / piece * piece; i >= 0; i -= piece)
                        f(&now, 1.0, i + piece < N ? piece : N - i, c.p + i, c.m + i, c.v + i, g + i);
                }
                if (memcmp(&b, &c, sizeof b) != 0) fail_msg("%s: pieces of %d have other bits", *name, piece);
            }
        }
    }
}

static void test_late_step(void **state) {
    (void)state;
    const UpdateDef *u = mdr_op_update("adamw");
    Hyper h = hyper[0];
    h.step = INT64_C(1) << 40;                               /* the corrections are 1; nothing loops over the steps         */
    double p = 1, m = 0.5, v = 0.25, g = 0.5;
    u->ref64(&h, 1.0, 1, &p, &m, &v, &g);
    assert_true(fabs(p - (1 - h.lr * h.decay - h.lr * 0.5 / (0.5 + h.eps))) <= 1e-15);
}

static void test_names(void **state) {
    (void)state;
    for (const char *const *name = names; *name; name++) assert_string_equal(mdr_op_update(*name)->name, *name);
    assert_null(mdr_op_update("adam"));
    assert_null(mdr_op_update(""));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_adamw_paper), cmocka_unit_test(test_sgd), cmocka_unit_test(test_bits),
                                       cmocka_unit_test(test_late_step), cmocka_unit_test(test_names)};
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
