/* Which trials of a queue train together: those of one graph. Their order, and how many at a time: what fits in memory, but no more than
 * keep the device busy: beyond that a step only takes longer, and more would be lost when a run is cut short. */
#include "train/queue.h"
#include <stdlib.h>

enum { LEAST_FULL = 8 };                                  /* slots, however many rows they have                                  */

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

void mdr_train_groups_open(Queue *q)
{
    q->n_group = find_groups(q);
    q->group = mdr_alloc((size_t)(q->n_group + 1) * sizeof *q->group);
    Group *group = q->group;
    for (int32_t g = 0; g < q->n_group; g++) {
        group[g].trial = mdr_alloc((size_t)q->n * sizeof *group[g].trial);
        for (int32_t i = 0; i < q->n; i++) {
            QueueTrial *t = &q->trial[i];
            if (t->group != g) continue;
            group[g].trial[group[g].n++] = t;
            group[g].flops += t->step_flops * (double)t->walk.total;
        }
        qsort(group[g].trial, (size_t)group[g].n, sizeof *group[g].trial, by_length);
    }
    qsort(group, (size_t)q->n_group, sizeof *group, by_flops);
}
void mdr_train_groups_close(Queue *q)
{
    for (int32_t g = 0; g < q->n_group; g++) mdr_free(q->group[g].trial);
    mdr_free(q->group);
}

void mdr_train_group_drop_ended(Group *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n; i++)
        if (!g->trial[i]->ended) g->trial[n++] = g->trial[i];
    g->n = n;
}

/* ---- how many at a time ---- */
static int64_t step_rows(const Group *g)              /* of one trial                                                        */
{
    const TrialSpec *s = g->trial[0]->spec;
    return (int64_t)s->train.batch_size * s->task->rows(&s->setting);
}
static int64_t wanted(const Queue *q, const Group *g)
{
    int64_t rows = step_rows(g), full = (MDR_QUEUE_FULL + rows - 1) / rows, most = full < LEAST_FULL ? LEAST_FULL : full;
    if (q->watch->most_members > 0) most = q->watch->most_members;
    return most > g->n ? g->n : most;
}
int64_t mdr_train_group_rows(const Queue *q, const Group *g) { return wanted(q, g) * step_rows(g); }

static int64_t most_examples(const Group *g)
{
    int64_t most = 0;
    for (int32_t i = 0; i < g->n; i++)
        if (g->trial[i]->spec->setting.num_train_examples > most) most = g->trial[i]->spec->setting.num_train_examples;
    return most;
}

/* A sixteenth is the driver's own: recorded steps, modules. */
int64_t mdr_train_group_room(const Queue *q) { return mdr_accel_free_memory(q->accel) - mdr_accel_about(q->accel)->memory / 16; }

int32_t mdr_train_group_slots(const Queue *q, const TrainGraphs *graphs, Group *g)
{
    const TrialSpec *s = g->trial[0]->spec;
    int64_t room = mdr_train_group_room(q), most = wanted(q, g), examples = most_examples(g), fits = 1, over = most + 1;
    while (over - fits > 1) {
        int64_t mid = fits + (over - fits) / 2;
        if (mdr_train_crew_bytes(graphs, s, (int32_t)mid, examples) <= room) fits = mid;
        else over = mid;
    }
    g->bytes = mdr_train_crew_bytes(graphs, s, (int32_t)most, examples);
    int64_t turns = (g->n + fits - 1) / fits;             /* as many at the end as at the beginning                              */
    return (int32_t)((g->n + turns - 1) / turns);
}

void mdr_train_group_say(const Queue *q, const TrainGraphs *graphs, const Group *g, int32_t n)
{
    const TrialSpec *s = g->trial[0]->spec;
    Text t = {0}, arch = {0};
    mdr_model_print(s->arch, &arch);
    mdr_text_printf(&t, "%d %s of %s, %d rows, vocabulary %d: %d at a time in %.2f of %.2f GiB", g->n, g->n == 1 ? "trial" : "trials",
                    s->arch->label ? s->arch->label : mdr_text_str(&arch), s->task->rows(&s->setting), s->setting.vocab_size, n,
                    (double)mdr_train_crew_bytes(graphs, s, n, most_examples(g)) / 0x1p30, (double)mdr_accel_about(q->accel)->memory / 0x1p30);
    mdr_text_free(&arch);
    mdr_train_queue_say(q, &t);
}
