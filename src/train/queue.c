/* Many trials on one GPU. Trials of one graph form a group; a group trains as one population whose slots are filled from the
 * group's queue, so that the device stays full to its last few trials. Here: groups, their order, how many trials at a time.
 *
 * How many: what fits in memory, but no more than keep the device busy: beyond that a step only takes longer, and more would be
 * lost when a run is cut short. Out of memory halves it; the trials under way begin again, which changes nothing but time. */
#include "train/queue.h"
#include <stdlib.h>

enum { FULL_ROWS = 1 << 20, LEAST_FULL = 8, MOST_WORKERS = 16 };   /* rows of a step that fill a GPU (64 members of 128 x 128)   */

typedef struct Group { QueueTrial **trial; int32_t n; double flops; } Group;

/* ---- order ---- */
/* Small groups first: a sitting that is cut short keeps every trial that ended, so most should end soon. */
static int by_flops(const void *a, const void *b)
{
    double x = ((const Group *)a)->flops, y = ((const Group *)b)->flops;
    if (x != y) return x > y ? 1 : -1;
    return ((const Group *)a)->trial[0]->index - ((const Group *)b)->trial[0]->index;
}

/* Long epochs first: epochs of one length end together, and what is left for the end is short. */
static int by_length(const void *a, const void *b)
{
    const QueueTrial *x = *(QueueTrial *const *)a, *y = *(QueueTrial *const *)b;
    if (x->walk.epoch_steps != y->walk.epoch_steps) return x->walk.epoch_steps < y->walk.epoch_steps ? 1 : -1;
    if (x->walk.total != y->walk.total) return x->walk.total < y->walk.total ? 1 : -1;
    return x->index - y->index;
}

static int32_t find_groups(Queue *q)
{
    int32_t n = 0;
    for (int32_t i = 0; i < q->n; i++) {
        QueueTrial *t = &q->trial[i];
        t->group = n;
        for (int32_t k = i - 1; k >= 0; k--)              /* the nearest first: trials of one setting lie side by side           */
            if ((k == i - 1 || q->trial[k].group != q->trial[k + 1].group) && mdr_train_same_graph(t->spec, q->trial[k].spec)) {
                t->group = q->trial[k].group;
                break;
            }
        n += t->group == n;
    }
    return n;
}

static void fill_groups(Queue *q, Group *group, int32_t n_group)
{
    for (int32_t g = 0; g < n_group; g++) {
        group[g].trial = mdr_alloc((size_t)q->n * sizeof *group[g].trial);
        for (int32_t i = 0; i < q->n; i++) {
            QueueTrial *t = &q->trial[i];
            if (t->group != g) continue;
            group[g].trial[group[g].n++] = t;
            group[g].flops += t->step_flops * (double)t->walk.total;
        }
        qsort(group[g].trial, (size_t)group[g].n, sizeof *group[g].trial, by_length);
    }
    qsort(group, (size_t)n_group, sizeof *group, by_flops);
}

/* ---- how many at a time ---- */
static int64_t most_examples(const Group *g)
{
    int64_t most = 0;
    for (int32_t i = 0; i < g->n; i++)
        if (g->trial[i]->spec->setting.num_train_examples > most) most = g->trial[i]->spec->setting.num_train_examples;
    return most;
}

static int32_t population(const Queue *q, const TrainGraphs *graphs, const Group *g)
{
    const TrialSpec *s = g->trial[0]->spec;
    int64_t rows = (int64_t)s->train.batch_size * s->task->rows(&s->setting), full = (FULL_ROWS + rows - 1) / rows, examples = most_examples(g);
    int64_t room = mdr_accel_free_memory(q->accel), most = full < LEAST_FULL ? LEAST_FULL : full;
    if (q->watch->most_members > 0) most = q->watch->most_members;
    if (most > g->n) most = g->n;
    room -= room / 16;                                    /* the driver's own: recorded steps, modules                           */
    int64_t fits = 1, over = most + 1;
    while (over - fits > 1) {
        int64_t mid = fits + (over - fits) / 2;
        if (mdr_train_crew_bytes(graphs, s, (int32_t)mid, examples) <= room) fits = mid;
        else over = mid;
    }
    int64_t turns = (g->n + fits - 1) / fits;             /* as many at the end as at the beginning                              */
    return (int32_t)((g->n + turns - 1) / turns);
}

static void say(const Queue *q, Text *t)
{
    if (q->watch->say) q->watch->say(q->watch->ctx, mdr_text_str(t));
    mdr_text_free(t);
}

static void say_population(const Queue *q, const TrainGraphs *graphs, const Group *g, int32_t n)
{
    const TrialSpec *s = g->trial[0]->spec;
    Text t = {0}, arch = {0};
    mdr_model_print(s->arch, &arch);
    mdr_text_printf(&t, "%d %s of %s, %d rows, vocabulary %d: %d at a time in %.2f of %.2f GiB", g->n, g->n == 1 ? "trial" : "trials",
                    s->arch->label ? s->arch->label : mdr_text_str(&arch), s->task->rows(&s->setting), s->setting.vocab_size, n,
                    (double)mdr_train_crew_bytes(graphs, s, n, most_examples(g)) / 0x1p30, (double)mdr_accel_about(q->accel)->memory / 0x1p30);
    mdr_text_free(&arch);
    say(q, &t);
}

/* ---- running ---- */
static Err *run_crew(Queue *q, const TrainGraphs *graphs, const Group *g, int32_t n)
{
    Crew c;
    Err *e = mdr_train_crew_open(q, graphs, g->trial, g->n, n, &c);
    if (!e) e = mdr_train_crew_run(&c);
    mdr_train_crew_close(&c);
    return e;
}

static void drop_ended(Group *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n; i++)
        if (!g->trial[i]->ended) g->trial[n++] = g->trial[i];
    g->n = n;
}

static Err *run_group(Queue *q, Group *g)
{
    TrainGraphs graphs = {0};
    const TrialSpec *s = g->trial[0]->spec;
    const DeviceDef *device = s->train.precision == PRECISION_BF16 ? &mdr_exec_cuda_bf16 : &mdr_exec_cuda;
    Err *e = mdr_train_graphs_open(s, device, MDR_EVAL_BATCH, &graphs);
    for (int32_t n = e ? 0 : population(q, &graphs, g); !e && g->n > 0; drop_ended(g)) {
        if (n > g->n) n = g->n;
        say_population(q, &graphs, g, n);
        e = run_crew(q, &graphs, g, n);
        if (!mdr_accel_is_oom(e) || n == 1) continue;
        Text t = {0};
        n /= 2;
        mdr_text_printf(&t, "%s: %d at a time from here on", mdr_err_text(e), n);
        say(q, &t);
        mdr_err_free(e);
        e = NULL;
    }
    mdr_train_graphs_close(&graphs);
    return e;
}

static Err *open_trials(Queue *q, const TrialSpec *const *specs)
{
    TrialCost cost = {0};
    for (int32_t i = 0; i < q->n; i++) {
        QueueTrial *t = &q->trial[i];
        const TrialSpec *last = i ? specs[i - 1] : NULL;
        t->spec = specs[i];
        t->index = i;
        MDR_TRY(mdr_task_check(t->spec->task, &t->spec->setting));
        t->walk = mdr_train_walk(t->spec);
        const TaskParams *p = &t->spec->setting;
        bool known = last && last->setting.num_train_examples == p->num_train_examples && last->setting.num_test_examples == p->num_test_examples &&
                     t->walk.total == cost.steps && mdr_train_same_graph(last, t->spec);
        if (!known) MDR_TRY(mdr_train_cost(t->spec, &cost));
        t->step_flops = cost.flops / (double)cost.steps;
        q->now.total_flops += cost.flops;
    }
    return NULL;
}

static Err *run(Queue *q, const TrialSpec *const *specs)
{
    MDR_TRY(open_trials(q, specs));
    int32_t n = find_groups(q), workers = mdr_cpu_count();
    MDR_TRY(mdr_pool_open(workers > MOST_WORKERS ? MOST_WORKERS : workers, &q->pool));
    Group *group = mdr_alloc((size_t)(n + 1) * sizeof *group);
    Err *e = NULL;
    fill_groups(q, group, n);
    for (int32_t g = 0; g < n && !e; g++) e = run_group(q, &group[g]);
    for (int32_t g = 0; g < n; g++) mdr_free(group[g].trial);
    mdr_free(group);
    mdr_pool_close(q->pool);
    return e;
}

Err *mdr_train_queue(const TrialSpec *const *specs, int32_t n, Accel *accel, const QueueWatch *watch)
{
    Accel *none;
    if (!mdr_accel_built()) return mdr_accel_open(0, &none);                  /* its sentence                                        */
    Queue q = {.n = n, .accel = accel, .watch = watch, .begin = mdr_clock(), .now = {.waiting = n}};
    q.trial = mdr_alloc((size_t)(n + 1) * sizeof *q.trial);
    Err *e = run(&q, specs);
    mdr_free(q.trial);
    return !e || q.outside || mdr_err_code(e) == MDR_USER ? e : mdr_err_wrap(e, "%s, %d of %d trials had ended", mdr_accel_about(accel)->name, q.now.ended, n);
}
