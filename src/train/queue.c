/* Many trials on one GPU. Trials of one graph form a group; a group trains as one population whose slots are filled from the group's
 * queue, so that the device stays full to its last few trials. A population that does not fill it gets others beside it, each in a lane
 * with a stream of its own: their kernels fill one another's gaps. One thread serves all lanes: it enqueues pieces of work and takes up
 * whichever is over first. What a trial gets depends on none of this.
 *
 * Out of memory: a population that cannot start beside others waits until one of them ends; alone it is halved. The trials under way
 * begin again, which changes nothing but time. */
#include "train/queue.h"
#include <time.h>

/* With so many rows of a step in work (some 25 members of 128 x 128) no other population starts, since more gain little and more would be
 * lost when a run is cut short; nor does one with which they would be more than fill a GPU, where small ones would wait for a large one. */
enum { ENOUGH_ROWS = 25 << 14, MOST_WORKERS = 16 };
static const struct timespec NAP = {.tv_nsec = 50 * 1000};

void mdr_train_queue_say(const Queue *q, Text *t)
{
    if (q->watch->say) q->watch->say(q->watch->ctx, mdr_text_str(t));
    mdr_text_free(t);
}

Err *mdr_train_queue_tick(Queue *q)
{
    double now = mdr_clock(), sum = 0;
    int32_t n = 0;
    if (!q->watch->tick || now - q->ticked < MDR_QUEUE_TICK * 0.8) return NULL;
    q->ticked = now;
    for (int32_t i = 0; i < MDR_QUEUE_LANES; i++) {
        const Crew *c = &q->lane[i].crew;
        for (int32_t m = 0; q->lane[i].group && m < c->n; m++) {
            const QueueTrial *t = c->slot[m];
            if (!t || t->walk.step == 0) continue;        /* no step yet, no loss                                                */
            const TrialResult *r = &t->x.result;
            sum += r->n_epoch ? r->epoch[r->n_epoch - 1].train_loss : t->x.loss;
            n++;
        }
    }
    q->now.loss = n ? sum / n : 0;
    q->now.seconds = now - q->begin;
    q->now.busy = q->now.seconds > 0 ? q->device / q->now.seconds : 0;
    if (q->watch->tick(q->watch->ctx, &q->now)) return NULL;
    q->outside = true;
    return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped");
}

/* ---- lanes ---- */
static int64_t rows_in_work(const Queue *q)
{
    int64_t rows = 0;
    for (int32_t i = 0; i < MDR_QUEUE_LANES; i++) {
        const Crew *c = &q->lane[i].crew;
        for (int32_t m = 0; q->lane[i].group && m < c->n; m++)
            if (c->slot[m]) rows += (int64_t)c->batch * c->rows;
    }
    return rows;
}

static void leave_lane(Queue *q, Lane *l)
{
    mdr_train_crew_close(&l->crew);
    mdr_train_graphs_close(&l->graphs);
    mdr_train_group_drop_ended(l->group);
    l->group->state = l->group->n > 0 ? GROUP_WAITS : GROUP_ENDED;
    l->group = NULL;
    q->taken--;
}

/* A population that ran out of memory has left its lane: it waits for others to end, or tries again with half as many slots. */
static Err *out_of_memory(Queue *q, Group *g, Err *e)
{
    Text t = {0};
    q->tight = q->taken > 0;
    if (!q->tight && g->at_once <= 1) return e;
    if (!q->tight) {
        g->at_once /= 2;
        mdr_text_printf(&t, "%s: %d at a time from here on", mdr_err_text(e), g->at_once);
        mdr_train_queue_say(q, &t);
    }
    mdr_err_free(e);
    return NULL;
}

static Err *start(Queue *q, Lane *l, bool beside, bool *waits)
{
    Group *g = l->group;
    const TrialSpec *s = g->trial[0]->spec;
    const DeviceDef *device = s->train.precision == PRECISION_BF16 ? &mdr_exec_cuda_bf16 : &mdr_exec_cuda;
    if (!l->accel) MDR_TRY(mdr_accel_beside(q->accel, &l->accel));
    MDR_TRY(mdr_train_graphs_open(s, device, MDR_EVAL_BATCH, &l->graphs));
    int32_t slots = mdr_train_group_slots(q, &l->graphs, g);
    *waits = beside && g->bytes > mdr_train_group_room(q);
    if (*waits) return NULL;
    if (g->at_once == 0 || slots < g->at_once) g->at_once = slots;
    mdr_train_group_say(q, &l->graphs, g, g->at_once);
    MDR_TRY(mdr_train_crew_open(q, l->accel, &l->graphs, g->trial, g->n, g->at_once, &l->crew));
    return mdr_train_crew_start(&l->crew);
}

/* Takes a group into a free lane, unless it waits for memory. */
static Err *enter_lane(Queue *q, Group *g, bool *waits)
{
    Lane *l = q->lane;
    bool beside = q->taken > 0;
    while (l->group) l++;
    l->group = g;
    q->taken++;
    g->state = GROUP_RUNS;
    Err *e = start(q, l, beside, waits);
    if (!e && !*waits) return mdr_train_queue_tick(q);
    leave_lane(q, l);
    return mdr_accel_is_oom(e) ? out_of_memory(q, g, e) : e;
}

static bool may_start(const Queue *q, const Group *g)
{
    int32_t most = q->watch->most_populations;
    if (q->taken == 0) return true;
    if (q->tight || q->taken == MDR_QUEUE_LANES || (most > 0 && q->taken >= most)) return false;
    int64_t rows = rows_in_work(q);
    return rows < ENOUGH_ROWS && rows + mdr_train_group_rows(q, g) <= MDR_QUEUE_FULL && g->bytes <= mdr_train_group_room(q);
}
/* Starts the next group if it may. */
static Err *start_next(Queue *q, bool *started)
{
    Group *g = q->group, *end = q->group + q->n_group;
    bool waits = false;
    while (g < end && g->state != GROUP_WAITS) g++;
    *started = g < end && may_start(q, g);
    if (!*started) return NULL;
    MDR_TRY(enter_lane(q, g, &waits));
    *started = !waits;
    return NULL;
}

static Lane *reached_lane(Queue *q)
{
    for (int32_t i = 0; i < MDR_QUEUE_LANES; i++) {
        Lane *l = &q->lane[(q->turn + i) % MDR_QUEUE_LANES];
        if (!l->group || !mdr_train_crew_reached(&l->crew)) continue;
        q->turn = (int32_t)(l - q->lane) + 1;
        return l;
    }
    return NULL;
}
/* One lane needs no asking: its population waits for the device itself. */
static Lane *await_lane(Queue *q)
{
    Lane *l = q->lane;
    while (q->taken == 1 && !l->group) l++;
    if (q->taken == 1) return l;
    while (!(l = reached_lane(q))) nanosleep(&NAP, NULL);
    return l;
}

static Err *serve(Queue *q, Lane *l)
{
    Group *g = l->group;
    Err *e = mdr_train_crew_go_on(&l->crew);
    if (!e && !mdr_train_crew_over(&l->crew)) return NULL;
    q->tight = false;
    leave_lane(q, l);
    return mdr_accel_is_oom(e) ? out_of_memory(q, g, e) : e;
}

/* To start a group takes the host longest, so it comes when nobody waits for the host. */
static Err *run_lanes(Queue *q)
{
    for (;;) {
        bool started = false;
        Lane *l = reached_lane(q);
        if (!l) MDR_TRY(start_next(q, &started));
        if (started) continue;
        if (q->taken == 0) return NULL;
        MDR_TRY(serve(q, l ? l : await_lane(q)));
    }
}

static void close_lanes(Queue *q)
{
    for (int32_t i = 0; i < MDR_QUEUE_LANES; i++) {
        if (q->lane[i].group) leave_lane(q, &q->lane[i]);
        mdr_accel_close(q->lane[i].accel);
    }
}

/* ---- all of it ---- */
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
    int32_t workers = mdr_cpu_count();
    MDR_TRY(open_trials(q, specs));
    MDR_TRY(mdr_pool_open(workers > MOST_WORKERS ? MOST_WORKERS : workers, &q->pool));
    mdr_train_groups_open(q);
    Err *e = run_lanes(q);
    close_lanes(q);
    mdr_train_groups_close(q);
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
