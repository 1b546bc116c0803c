/* Selection and scores by hand-made results, quantiles of t against tables, coverage of the intervals by simulation. */
#include "study_harness.h"

enum { SEED = 20240318 };

static Protocol *settle(const char *tasks, int32_t seeds, const char *one, const char *two) {
    const char *set[] = {one, two};
    SettleSpec s = {.protocol = "madras", .tasks = tasks, .seeds = seeds, .set = set, .n_set = one ? two ? 2 : 1 : 0};
    Protocol *p;
    must(mdr_study_settle(&s, &p));
    return p;
}

static EpochScore at(int32_t n, double valid, double valid_loss, double test, double test_loss) {
    return (EpochScore){n, 100 * n, 1.0, 1.0, {valid_loss, valid - 0.01, valid, exp(valid_loss)}, {test_loss, test - 0.02, test, exp(test_loss)}};
}

static void epochs(void **state) {
    (void)state;
    double nan = (double)NAN;
    EpochScore e[] = {at(1, .5, 2., .9, .9), at(2, .7, 1.5, .3, .8), at(3, .7, 1.2, .4, .8), at(4, .7, 1.2, .6, .8),
                      at(5, nan, 1., nan, .1)};
    TrialResult r = {.n_epoch = 5, .epoch = e};
    assert_int_equal(mdr_study_select_epoch(&r, false), 2); /* accuracy, then loss, then earlier             */
    assert_int_equal(mdr_study_select_epoch(&r, true), 3);  /* lowest test perplexity, then accuracy         */
    e[0].test.ppl = 2; /* a few bad batches may turn the order of losses */
    assert_int_equal(mdr_study_select_epoch(&r, true), 0);
    e[0].test.ppl = (double)INFINITY; /* a finite loss still counts                    */
    r.n_epoch = 1;
    assert_int_equal(mdr_study_select_epoch(&r, true), 0);
    r.n_epoch = 1;
    assert_int_equal(mdr_study_select_epoch(&r, true), 0);
    r.n_epoch = 0;
    assert_int_equal(mdr_study_select_epoch(&r, false), -1);
    TrialResult lost = {.n_epoch = 1, .epoch = &e[4]};
    assert_int_equal(mdr_study_select_epoch(&lost, false), -1);
}

typedef struct Case {
    Protocol *p;
    TrialSpec *spec;
    TrialResult *result;
    const TrialResult **pointer;
    int32_t n;
    Arena *a;
    ArchScore score;
    ArchList arch;
} Case;

static void open_case(Case *c, Protocol *p) {
    *c = (Case){.p = p, .a = mdr_arena_new()};
    must(mdr_model_parse("mlp", 0, NULL, &c->arch));
    mdr_study_trials(p, c->arch.arch[0], &c->n, &c->spec);
    c->result = mdr_arena_alloc(c->a, (size_t)c->n * sizeof *c->result);
    c->pointer = mdr_arena_alloc(c->a, (size_t)c->n * sizeof *c->pointer);
    for (int32_t i = 0; i < c->n; i++) {
        c->result[i] = (TrialResult){TRIAL_DONE, 1, mdr_arena_alloc(c->a, 2 * sizeof(EpochScore)), 1};
        c->result[i].epoch[0] = at(1, .2, 3, .2, 3);
        c->pointer[i] = &c->result[i];
    }
}
static void score(Case *c) { mdr_study_score(c->p, c->arch.arch[0], c->spec, c->pointer, c->n, c->a, &c->score); }
static void close_case(Case *c) {
    mdr_free(c->spec);
    mdr_arena_free(c->a);
    mdr_study_protocol_free(c->p);
    mdr_model_archs_free(&c->arch);
}
static void near(double got, double want, double tol) {
    if (!(fabs(got - want) <= tol)) fail_msg("%.12g, not %.12g", got, want);
}

/* in-context-recall, one setting, the grid of six. Order of trials: lr, decay. */
static void grid(void **state) {
    (void)state;
    Case c;
    static const char *const set[] = {"vocab_size=8", "seq_len=32"};
    SettleSpec s = {.protocol = "taste", .tasks = "in-context-recall", .set = set, .n_set = 2};
    Protocol *p;
    must(mdr_study_settle(&s, &p));
    p->n_lr = 3, p->lr[0] = 1e-4, p->lr[1] = 5e-4, p->lr[2] = 1e-3;
    p->n_decay = 2, p->decay[0] = 0, p->decay[1] = 0.1;
    p->mean_allowed = true;
    open_case(&c, p);
    c.result[3].epoch[0] = at(1, .8, 1, .61, 2.); /* the best on validation                        */
    c.result[4].epoch[0] = at(1, .7, 1, .95, .5); /* the best on test                              */
    score(&c);
    near(c.score.task[0].macro.value, .61, 1e-15);
    near(c.score.task[0].plain.value, .59, 1e-15);
    near(c.score.mad_lab, .95, 1e-15);
    assert_true(c.score.task[0].macro.half == -1 && c.score.task[0].macro.n == 1 && !c.score.task[0].at_chance);
    assert_true(c.score.params > 0);
    near(c.score.task[0].setting[0].macro.value, .61, 1e-15);
    assert_true(c.score.task[0].setting[0].setting == &p->setting[0] && c.score.task[0].setting[0].macro.half == -1);
    c.result[2].epoch[0] = at(1, .8, .9, .62, 2.); /* tie: lower loss                               */
    score(&c);
    near(c.score.task[0].macro.value, .62, 1e-15);
    c.result[5].epoch[0] = at(1, .8, .9, .63, 2.); /* tie to the loss: the lower rate stays         */
    score(&c);
    near(c.score.task[0].macro.value, .62, 1e-15);
    c.result[3].epoch[0] = at(1, .8, .9, .64, 2.); /* and the lower decay                           */
    score(&c);
    near(c.score.task[0].macro.value, .62, 1e-15);
    c.result[2].status = TRIAL_DIVERGED; /* out; the next tie                             */
    score(&c);
    near(c.score.task[0].macro.value, .64, 1e-15);
    c.result[3].epoch[0] = at(1, .95, .1, .9991, .1); /* counts as one, but not for mad-lab            */
    score(&c);
    assert_true(c.score.task[0].macro.value == 1 && c.score.mean.value == 1);
    near(c.score.mad_lab, .9991, 1e-15);
    for (int i = 0; i < 6; i++) c.result[i].status = TRIAL_DIVERGED;
    score(&c);
    near(c.score.task[0].macro.value, .25, 1e-15); /* 4 values of V 8                               */
    assert_int_equal(c.score.task[0].macro.n_diverged, 1);
    assert_true(c.score.task[0].at_chance);
    c.pointer[1] = NULL; /* not run: the setting is left out              */
    score(&c);
    assert_true(isnan(c.score.task[0].macro.value) && c.score.task[0].macro.n == 0 && c.score.task[0].n_left_out == 1);
    assert_true(isnan(c.score.task[0].setting[0].macro.value));
    assert_true(isnan(c.score.mean.value) && isnan(c.score.mad_lab) && !c.score.task[0].at_chance);
    p->mean_allowed = false;
    c.pointer[1] = &c.result[1];
    score(&c);
    assert_true(isnan(c.score.mean.value) && c.score.mean.half == -1);
    close_case(&c);
}

/* Three seeds, two tasks with one and two settings: the formulas by hand. */
static void interval(void **state) {
    (void)state;
    Case c;
    Protocol *p = settle("in-context-recall,memorization", 3, "lr=1e-3", "weight_decay=0");
    p->setting[1] = p->setting[11]; /* keep three of the settings                    */
    p->setting[2] = p->setting[12];
    p->n_setting = 3;
    open_case(&c, p);
    static const double y[3][3] = {{.5, .6, .7}, {.9995, .9999, 1}, {.3, .3, .3}};
    for (int i = 0; i < 9; i++) c.result[i].epoch[0] = at(1, y[i / 3][i % 3], 1, y[i / 3][i % 3], 1);
    score(&c);
    double floor1 = (1280 * 1.0 + .5) / 1281, floor2 = (1280 * .3 + .5) / 1281;
    floor1 = floor1 * (1 - floor1) / 1280, floor2 = floor2 * (1 - floor2) / 1280;
    double v[3] = {.25 * .01 / 3, .0625 * floor1 / 3, .0625 * floor2 / 3}, sum = v[0] + v[1] + v[2];
    double df = sum * sum / ((v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) / 2);
    near(c.score.mean.value, .5 * .6 + .25 * 1 + .25 * .3, 1e-14);
    near(c.score.mean.df, df, 1e-9);
    near(c.score.mean.half, mdr_study_t_quantile(df, .975) * sqrt(sum), 1e-12);
    near(c.score.task[0].macro.half, 4.302652729911275 * .1 / sqrt(3), 1e-9); /* df 2                          */
    near(c.score.task[0].macro.df, 2, 1e-9);
    near(c.score.task[1].macro.value, .65, 1e-14);
    near(c.score.task[1].setting[0].macro.value, 1, 1e-14);
    near(c.score.task[1].setting[1].macro.value, .3, 1e-14);
    near(c.score.task[0].setting[0].macro.half, c.score.task[0].macro.half, 1e-12);
    assert_true(c.score.task[1].n_setting == 2 && c.score.task[0].n_setting == 1);
    /* a setting with one trial missing leaves its task's mean to the others */
    c.pointer[4] = NULL;
    score(&c);
    near(c.score.mean.value, .5 * .6 + .5 * .3, 1e-14);
    assert_true(c.score.task[1].n_setting == 1 && c.score.task[1].n_left_out == 1);
    close_case(&c);
    p = settle("in-context-recall", 2, "lr=1e-3", "weight_decay=0"); /* two seeds have no interval                    */
    open_case(&c, p);
    score(&c);
    assert_true(c.score.task[0].macro.half == -1 && c.score.task[0].macro.n == 2 && c.score.mean.half == -1);
    close_case(&c);
}

/* One seed: three binomial standard errors of 1,280 sequences. */
static void chance(void **state) {
    (void)state;
    Case c;
    Protocol *p = settle("in-context-recall", 1, "lr=1e-3", "weight_decay=0");
    p->n_setting = 1;
    open_case(&c, p);
    static const struct {
        double y;
        bool at_chance;
    } want[] = {{.125, true}, {.10, true}, {.15, true}, {.16, false}, {.9, false}};
    for (int i = 0; i < MDR_COUNT(want); i++) {
        c.result[0].epoch[0] = at(1, .5, 1, want[i].y, 1);
        score(&c);
        near(c.score.task[0].levels.chance_macro, .125, 1e-15);
        assert_int_equal(c.score.task[0].at_chance, want[i].at_chance);
    }
    close_case(&c);
}

/* Tables of Student's t. */
static void quantiles(void **state) {
    (void)state;
    static const struct { double df, p, t;
    } want[] = {{1, .975, 12.706204736174707},  {2, .975, 4.302652729911275},
                {3, .975, 3.182446305284263},   {4, .975, 2.776445105197793},
                {10, .975, 2.228138851964939},  {30, .975, 2.042272456301238},
                {120, .975, 1.979930405052777}, {1e6, .975, 1.959966},
                {5, .95, 2.015048372669157},    {1, .75, 1},
                {2, .995, 9.924843200918284},   {7, .5, 0}};
    for (int i = 0; i < MDR_COUNT(want); i++) {
        double tol = want[i].df == 1e6 ? 2e-6 : 1e-9 * (1 + want[i].t);
        near(mdr_study_t_quantile(want[i].df, want[i].p), want[i].t, tol);
        near(mdr_study_t_quantile(want[i].df, 1 - want[i].p), -want[i].t, tol);
    }
    for (double df = 1; df < 40; df += .37)
        assert_true(mdr_study_t_quantile(df, .975) > mdr_study_t_quantile(df + .37, .975));
    assert_true(isnan(mdr_study_t_quantile(0, .9)) && isnan(mdr_study_t_quantile(3, 1)) &&
                isnan(mdr_study_t_quantile((double)NAN, .9)));
}

/* 66 settings, 40 % of them saturated, 20 % all-or-nothing, the rest normal: how often Y +- half holds the true mean.
 */
typedef struct Truth { int kind; double mean, sd; } Truth;
static double draw(const Truth *t, Rng *r) {
    double y = t->kind == 0   ? 1
               : t->kind == 1 ? (mdr_rng_unit(r) < t->mean ? 1 : .1)
                              : t->mean + t->sd * mdr_rng_normal(r);
    return y < 0 ? 0 : y > 1 ? 1 : y;
}
static double coverage(int32_t seeds, int tables) {
    Case c;
    open_case(&c, settle(NULL, seeds, "lr=1e-3", "weight_decay=0"));
    Rng r = mdr_rng(SEED, (uint64_t)seeds);
    Truth truth[66];
    double want = 0;
    int hit = 0;
    for (int i = 0; i < 66; i++) {
        double u = mdr_rng_unit(&r);
        truth[i] = (Truth){u < .4 ? 0 : u < .6 ? 1 : 2, .3 + .4 * mdr_rng_unit(&r), .005 + .03 * mdr_rng_unit(&r)};
    }
    int32_t per_task[6] = {0}, task[66], k = 0;
    for (int i = 0; i < 66; i++) {
        if (i > 0 && c.p->setting[i].task != c.p->setting[i - 1].task) k++;
        task[i] = k;
        per_task[k]++;
    }
    for (int i = 0; i < 66; i++) {
        const Truth *t = &truth[i];
        double m = t->kind == 0 ? 1 : t->kind == 1 ? t->mean + .1 * (1 - t->mean) : t->mean;
        want += m / 6 / per_task[task[i]];
    }
    for (int n = 0; n < tables; n++) {
        for (int32_t i = 0; i < c.n; i++) {
            double y = draw(&truth[i / seeds], &r);
            c.result[i].epoch[0] = at(1, y, 1, y, 1);
        }
        score(&c);
        hit += fabs(c.score.mean.value - want) <= c.score.mean.half;
    }
    close_case(&c);
    return (double)hit / tables;
}
static void covers(void **state) {
    (void)state;
    enum { TABLES = 2000 };
    for (int32_t seeds = 3; seeds <= 10; seeds += seeds == 3 ? 2 : 5) {
        double got = coverage(seeds, TABLES);
        print_message("seed %d: %d replicates cover %.4f\n", (int)SEED, seeds, got);
        if (!(got >= .935 && got <= .985)) fail_msg("%d replicates cover %.4f, not .95", seeds, got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(epochs),    cmocka_unit_test(grid),
                                       cmocka_unit_test(interval),  cmocka_unit_test(chance),
                                       cmocka_unit_test(quantiles), cmocka_unit_test(covers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
