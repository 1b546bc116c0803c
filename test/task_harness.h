/* What the tests of tasks share: opening a setting, 4 sigma, and the three measurements every task must pass in test
 * form: the oracle scores the ceiling, the best constant guess scores chance, training targets have their form. */
#ifndef MDR_TASK_HARNESS_H
#define MDR_TASK_HARNESS_H
#include "task/task.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 20240317, ROOM = 4096 };   /* ROOM: tokens of the longest sequence tested through a Draw */

static inline int32_t example_count(void) { return getenv("MDR_TEST_SMALL") ? 20000 : 100000; }

static inline void must(Err *e) {
    if (e) fail_msg("%s", mdr_err_text(e));
}

/* NAME, then "key=value" words, ended by NULL. */
static inline const TaskDef *setting(TaskParams *p, const char *name, const char *const *words) {
    const TaskDef *t = mdr_task_find(name);
    if (!t) fail_msg("no task %s", name);
    mdr_task_defaults(t, p);
    for (; words && *words; words++) {
        char key[64], *value;
        snprintf(key, sizeof key, "%s", *words);
        value = strchr(key, '=');
        if (!value) fail_msg("%s is no key=value", *words);
        *value++ = 0;
        must(mdr_params_set(t->params, p, key, value, name));
    }
    return t;
}
#define SETTING(p, name, ...) setting(p, name, (const char *const[]){__VA_ARGS__, NULL})

typedef struct Draw {
    const TaskDef *task;
    TaskParams p;
    Dataset *d;
    void *ctx;   /* an own one for the oracle */
    int32_t rows, tokens[ROOM], targets[ROOM], answer[ROOM];
} Draw;

static inline void draw_open(Draw *w, const TaskDef *t, const TaskParams *p, Split split, uint64_t seed) {
    w->task = t;
    w->p = *p;
    must(mdr_task_open(t, p, split, seed, &w->d));
    w->ctx = t->setup ? t->setup(p, seed) : NULL;
    w->rows = mdr_task_rows(w->d);
    if (w->rows > ROOM) fail_msg("%d rows are too many for this test", w->rows);
}

static inline void draw_close(Draw *w) {
    mdr_task_close(w->d);
    mdr_free(w->ctx);
}

static inline void draw(Draw *w, int64_t i) { mdr_task_example(w->d, i, w->tokens, w->targets); }

static inline void draw_and_answer(Draw *w, int64_t i) {
    draw(w, i);
    w->task->oracle(&w->p, w->ctx, w->tokens, w->targets, w->answer);
}

/* One honest count in 16,000 lies outside 4 sigma by chance; the tests make some thousands, with seeds where none of
 * them does. got must lie within 4 standard deviations of want (and a rounding error). */
static inline void within4(const char *what, double got, double want, double sd) {
    if (!(fabs(got - want) <= 4 * sd + 1e-9 * fabs(want)))
        fail_msg("%s: %.8g, expected %.8g +- %.3g (%.1f sigma)", what, got, want, sd, (got - want) / sd);
}

/* count of n independent events of probability q. */
static inline void count4(const char *what, double count, double n, double q) {
    within4(what, count, n * q, sqrt(n * q * (1 - q)));
}

/* A ratio of sums over independent sequences, sum x / sum w, and its standard deviation (delta method). */
typedef struct Ratio { double x, w, xx, xw, ww; } Ratio;
static inline void ratio_add(Ratio *r, double x, double w) {
    r->x += x, r->w += w;
    r->xx += x * x, r->xw += x * w, r->ww += w * w;
}
static inline double ratio_value(const Ratio *r) { return r->x / r->w; }
static inline double ratio_sd(const Ratio *r) {
    double q = ratio_value(r), v = r->xx - 2 * q * r->xw + q * q * r->ww;
    return sqrt(v > 0 ? v : 0) / r->w;
}

/* Draws n test sequences and compares with the task's levels. Answers must be right wherever one is given. extra_sd:
 * how far the realised ceiling scatters by itself. */
static inline void check_levels(const TaskDef *t, const TaskParams *p, uint64_t seed, int32_t n, double extra_sd) {
    static Draw w;
    TaskLevels l;
    t->levels(p, &l);
    draw_open(&w, t, p, SPLIT_TEST, seed);
    Ratio right = {0}, *class_ = calloc((size_t)p->vocab_size, sizeof *class_);
    double *known = calloc((size_t)p->vocab_size, sizeof *known), macro = 0;
    int32_t *here = calloc((size_t)p->vocab_size, sizeof *here), classes = 0, best = 0;
    for (int32_t i = 0; i < n; i++) {
        draw_and_answer(&w, i);
        int32_t wanted = 0, correct = 0;
        for (int32_t s = 0; s < w.rows; s++) {
            int32_t want = w.targets[s];
            if (want == MDR_IGNORE) continue;
            assert_in_range(want, 0, p->vocab_size - 1);
            if (w.answer[s] >= 0) assert_int_equal(w.answer[s], want);
            wanted++, here[want]++;
            if (w.answer[s] == want) correct++, known[want]++;
        }
        assert_true(wanted > 0);
        ratio_add(&right, correct, wanted);
        for (int32_t c = 0; c < p->vocab_size && p->vocab_size <= 1024; c++)
            ratio_add(&class_[c], here[c], wanted), here[c] = 0;
        if (p->vocab_size > 1024)
            for (int32_t s = 0; s < w.rows; s++)   /* many classes: touch those that occurred */
                if (w.targets[s] >= 0) ratio_add(&class_[w.targets[s]], here[w.targets[s]], 0), here[w.targets[s]] = 0;
    }
    for (int32_t c = 0; c < p->vocab_size; c++)
        if (class_[c].x > 0) {
            classes++;
            macro += known[c] / class_[c].x;
            if (class_[c].x > class_[best].x) best = c;
        }
    assert_int_equal(classes, (int)(1 / l.chance_macro + 0.5));
    if (p->vocab_size <= 1024)
        within4("best constant guess", ratio_value(&class_[best]), l.chance, ratio_sd(&class_[best]));
    else within4("best constant guess", class_[best].x / right.w, l.chance, sqrt(l.chance / right.w) * 1.5);
    if (l.ceiling == 1) {
        assert_true(right.x == right.w);
        assert_true(l.ceiling_macro == 1);
    } else {
        double sd = sqrt(pow(ratio_sd(&right), 2) + extra_sd * extra_sd);
        within4("oracle", ratio_value(&right), l.ceiling, sd);
        within4("oracle, macro", macro / classes, l.ceiling_macro, sd);
    }
    print_message("# %s: %d sequences, %.0f targets, oracle %.5f of %.5f, constant guess %.5f of %.5f\n", t->name, n,
                  right.w, ratio_value(&right), l.ceiling, class_[best].x / right.w, l.chance);
    free(class_), free(known), free(here);
    draw_close(&w);
}

/* Training targets are the whole input shifted by one. */
static inline void check_dense(const TaskDef *t, const TaskParams *p, uint64_t seed) {
    static Draw w;
    draw_open(&w, t, p, SPLIT_TRAIN, seed);
    for (int32_t i = 0; i < 100; i++) {
        draw_and_answer(&w, i);
        for (int32_t s = 0; s + 1 < w.rows; s++) assert_int_equal(w.targets[s], w.tokens[s + 1]);
        assert_in_range(w.targets[w.rows - 1], 0, p->vocab_size - 1);
        assert_int_equal(w.answer[w.rows - 1], w.answer[w.rows - 1] < 0 ? -1 : w.targets[w.rows - 1]);
    }
    draw_close(&w);
}
#endif
