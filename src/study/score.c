/* From trials to scores. For each (setting, replicate): the epoch, then the grid point, that the selection rule picks;
 * y = test accuracy there, above .999 counts as 1, a diverged trial scores chance (and is picked only where every grid
 * point diverged).
 *   Y = sum_s w_s mean_r y,   w_s = 1 / (tasks * settings of its task)
 *   v_s = w_s^2 max(var_r y, floor) / R,   floor = p (1-p) / n_test,   p = (n_test ybar + 1/2) / (n_test + 1)
 *   SE = sqrt(sum v_s),   df = (sum v_s)^2 / sum(v_s^2 / (R-1))  (Satterthwaite 1946),   Y +- t(df, .975) SE
 * Settings define the score, they are no sample: only replicates spread. A setting with a trial missing is left out.
 * Not here: comparisons between architectures. */
#include "study/study.h"
#include <math.h>
#include <string.h>

enum { LEAST_FOR_INTERVAL = 3 };
static const double SATURATED = 0.999;

static double acc(const EpochScore *e, bool on_test) { return on_test ? e->test.acc_macro : e->valid.acc_macro; }
/* mad-lab watches perplexity, the mean of exp(batch loss): it is no function of the mean loss. */
static double loss(const EpochScore *e, bool on_test) { return on_test ? e->test.ppl : e->valid.loss; }
static bool usable(const EpochScore *e, bool on_test) {
    return isfinite(acc(e, on_test)) && isfinite(on_test ? e->test.loss : e->valid.loss) && !isnan(loss(e, on_test));
}

int32_t mdr_study_select_epoch(const TrialResult *r, bool on_test) {
    int32_t best = -1;
    for (int32_t i = 0; i < r->n_epoch; i++) {
        const EpochScore *e = &r->epoch[i];
        if (!usable(e, on_test)) continue;
        const EpochScore *b = best < 0 ? NULL : &r->epoch[best];
        bool better;
        if (!b) better = true;
        else if (on_test)
            better = loss(e, true) < loss(b, true) || (loss(e, true) == loss(b, true) && acc(e, true) > acc(b, true));
        else
            better =
                acc(e, false) > acc(b, false) || (acc(e, false) == acc(b, false) && loss(e, false) < loss(b, false));
        if (better) best = i;
    }
    return best;
}

/* What one (setting, replicate) contributes. */
typedef struct Pick { double macro, plain; bool diverged; } Pick;

typedef struct Study {
    const Protocol *p;
    const TrialSpec *spec;
    const TrialResult *const *result;
    int32_t grid; /* points                                                            */
} Study;

static int32_t trial(const Study *s, int32_t setting, int32_t point, int32_t r) {
    return (setting * s->grid + point) * s->p->n_seed + r;
}

static bool is_before(const TrialSpec *a, const TrialSpec *b) {
    return a->train.lr < b->train.lr || (a->train.lr == b->train.lr && a->train.weight_decay < b->train.weight_decay);
}

static Pick pick(const Study *s, int32_t setting, int32_t r, const TaskLevels *levels, bool on_test) {
    const EpochScore *best = NULL;
    const TrialSpec *best_spec = NULL;
    for (int32_t g = 0; g < s->grid; g++) {
        int32_t i = trial(s, setting, g, r);
        const TrialResult *x = s->result[i];
        int32_t k = x->status == TRIAL_DIVERGED ? -1 : mdr_study_select_epoch(x, on_test);
        if (k < 0) continue;
        const EpochScore *e = &x->epoch[k];
        double a = acc(e, on_test), l = loss(e, on_test); /* perplexities may be infinite: never subtracted         */
        if (!best || a > acc(best, on_test) ||
            (a == acc(best, on_test) &&
             (l < loss(best, on_test) || (l == loss(best, on_test) && is_before(&s->spec[i], best_spec)))))
            best = e, best_spec = &s->spec[i];
    }
    if (!best) return (Pick){levels->chance_macro, levels->chance, true};
    return (Pick){best->test.acc_macro, best->test.acc, false};
}

static double saturate(double y) { return y > SATURATED ? 1 : y; }

/* Sums over settings; finish() makes the score of them. */
typedef struct Sum { double value, v, v2; int32_t diverged; } Sum;

/* y: n replicates of one setting. */
static void add_setting(Sum *sum, double w, const double *y, int32_t n, double n_test) {
    double mean = 0, var = 0;
    for (int32_t i = 0; i < n; i++) mean += y[i] / n;
    for (int32_t i = 0; i < n; i++) var += n > 1 ? (y[i] - mean) * (y[i] - mean) / (n - 1) : 0;
    double p = (n_test * mean + 0.5) / (n_test + 1), floor = p * (1 - p) / n_test;
    double v = w * w * (var > floor ? var : floor) / n;
    sum->value += w * mean;
    sum->v += v;
    sum->v2 += n > 1 ? v * v / (n - 1) : 0;
}

static Score finish(const Sum *sum, int32_t n) {
    Score s = {.value = sum->value, .half = -1, .n = n, .n_diverged = sum->diverged};
    if (n < LEAST_FOR_INTERVAL) return s;
    s.df = sum->v * sum->v / sum->v2;
    s.half = mdr_study_t_quantile(s.df, 0.975) * sqrt(sum->v);
    return s;
}

static bool complete(const Study *s, int32_t setting) {
    for (int32_t i = trial(s, setting, 0, 0); i < trial(s, setting + 1, 0, 0); i++)
        if (!s->result[i]) return false;
    return true;
}

/* All settings of one task, from `from` to `to`; adds to the sums over tasks with weight 1/n_task. */
static void score_task(const Study *s, int32_t from, int32_t to, int32_t n_task, TaskScore *t, Sum *all,
                       double *mad_lab) {
    const Protocol *p = s->p;
    Sum macro = {0}, plain = {0};
    double y[2][64];
    for (int32_t i = from; i < to; i++) t->n_setting += complete(s, i);
    t->n_left_out = to - from - t->n_setting;
    for (int32_t i = from; i < to; i++) {
        const Setting *x = &p->setting[i];
        TaskLevels level;
        Sum own = {0};
        t->setting[i - from] = (SettingScore){x, {.value = (double)NAN, .half = -1}};
        if (!complete(s, i)) continue;
        double w = 1.0 / t->n_setting, n_test = x->params.num_test_examples;
        x->task->levels(&x->params, &level);
        t->levels.chance += w * level.chance, t->levels.chance_macro += w * level.chance_macro;
        t->levels.ceiling += w * level.ceiling, t->levels.ceiling_macro += w * level.ceiling_macro;
        for (int32_t r = 0; r < p->n_seed; r++) {
            Pick k = pick(s, i, r, &level, p->select_on_test);
            y[0][r] = saturate(k.macro);
            y[1][r] = saturate(k.plain);
            own.diverged += k.diverged, macro.diverged += k.diverged, plain.diverged += k.diverged, all->diverged += k.diverged;
            *mad_lab += w / n_task / p->n_seed * pick(s, i, r, &level, true).macro;
        }
        add_setting(&own, 1, y[0], p->n_seed, n_test);
        t->setting[i - from].macro = finish(&own, p->n_seed);
        add_setting(&macro, w, y[0], p->n_seed, n_test);
        add_setting(&plain, w, y[1], p->n_seed, n_test);
        add_setting(all, w / n_task, y[0], p->n_seed, n_test);
    }
    t->macro = finish(&macro, p->n_seed);
    t->plain = finish(&plain, p->n_seed);
    /* one or two seeds: what the number of test sequences alone leaves open */
    double half = t->macro.half >= 0 ? t->macro.half : 3 * sqrt(macro.v);
    t->at_chance = t->n_setting > 0 && !(t->macro.value - half > t->levels.chance_macro);
}

static void nothing(Score *s) { *s = (Score){.value = (double)NAN, .half = -1}; }

static void first_cost(const TrialSpec *specs, int32_t n, ArchScore *out) {
    TrialCost cost = {0};
    Err *e = n > 0 ? mdr_train_cost(&specs[0], &cost) : NULL;
    if (!e) out->params = cost.params, out->state = cost.state;
    mdr_err_free(e);
}

void mdr_study_score(const Protocol *p, const Arch *a, const TrialSpec *specs, const TrialResult *const *results,
                     int32_t n, Arena *arena, ArchScore *out) {
    Study s = {p, specs, results, p->n_lr * p->n_decay};
    int32_t n_task = 0;
    for (int32_t i = 0; i < p->n_setting; i++) n_task += i == 0 || p->setting[i].task != p->setting[i - 1].task;
    *out = (ArchScore){.arch = a, .task = mdr_arena_alloc(arena, (size_t)n_task * sizeof *out->task), .n_task = n_task};
    first_cost(specs, n, out);
    Sum all = {0};
    bool whole = p->mean_allowed && n_task > 0;
    for (int32_t from = 0, to, k = 0; from < p->n_setting; from = to, k++) {
        TaskScore *t = &out->task[k];
        for (to = from + 1; to < p->n_setting && p->setting[to].task == p->setting[from].task;) to++;
        t->task = p->setting[from].task;
        t->setting = mdr_arena_alloc(arena, (size_t)(to - from) * sizeof *t->setting);
        score_task(&s, from, to, n_task, t, &all, &out->mad_lab);
        if (t->n_setting > 0) continue;
        nothing(&t->macro), nothing(&t->plain);
        whole = false; /* a mean without one of its tasks is another number                 */
    }
    out->mean = finish(&all, p->n_seed);
    if (!whole) nothing(&out->mean), out->mad_lab = (double)NAN;
}
