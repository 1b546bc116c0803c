/* Training and evaluating one population, piece by piece. A round: R training steps enqueued at once, R = up to the next border of any
 * trial (the end of its epoch or budget), at most what makes progress visible a few times a second. Then trials at a border are evaluated
 * on both splits at once while the others rest, their epochs are written down, and free slots are filled or given up. While a piece is under
 * way the host waits for none: other populations have their turns. What a trial gets depends on none of this: rounds only cut its steps into
 * pieces. */
#include "train/queue.h"

static int64_t to_border(const Walk *w)
{
    int64_t epoch = w->epoch_steps - w->step % w->epoch_steps, total = w->total - w->step;
    return epoch < total ? epoch : total;
}
static bool at_border(const Walk *w) { return w->step > 0 && (w->step % w->epoch_steps == 0 || w->step >= w->total); }

static Err *replay(Exec *e, int64_t n)
{
    for (int64_t i = 0; i < n; i++) MDR_TRY(mdr_exec_replay(e));
    return NULL;
}

/* A piece of work lies between marks 0 and 1; it begins as it is enqueued, since nothing else is on its stream. */
bool mdr_train_crew_reached(const Crew *c) { return mdr_accel_reached(c->accel, 1); }

/* It has ended. Time in which several populations kept the device at work counts once. */
static Err *worked(const Crew *c, double *seconds)
{
    Queue *q = c->q;
    MDR_TRY(mdr_accel_elapsed(c->accel, 0, 1, seconds));
    double begin = c->begun > q->covered ? c->begun : q->covered, end = c->begun + *seconds;
    if (end <= begin) return NULL;
    q->device += end - begin;
    q->covered = end;
    return NULL;
}
static Err *begin_piece(Crew *c)
{
    c->begun = mdr_clock();
    return mdr_accel_mark(c->accel, 0);
}

/* ---- training ---- */
static int64_t round_steps(const Crew *c)
{
    int64_t most = MDR_QUEUE_ROUND / c->q->taken, n = c->left < most ? c->left : most;      /* a full queue would hold the host up       */
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m] && to_border(&c->slot[m]->walk) < n) n = to_border(&c->slot[m]->walk);
    return n;
}

static Err *send_round(Crew *c, int64_t steps)
{
    for (int32_t m = 0; m < c->n; m++) {
        const QueueTrial *t = c->slot[m];
        c->host_state[m] = (QueueState){0};
        if (!t) continue;
        const Walk *w = &t->walk;
        int64_t in_epoch = w->step % w->epoch_steps;
        c->host_state[m] = (QueueState){.batch = (int32_t)in_epoch, .left = (int32_t)steps, .size = t->spec->setting.num_train_examples,
                                        .step = w->step, .epoch_loss = in_epoch ? t->x.epoch_loss : 0};
        for (int64_t i = 0; i < steps; i++)
            c->host_rate[i * c->n + m] = mdr_train_rate(&t->spec->train, w->step + i, w->total, w->epoch_steps);
    }
    Accel *a = c->accel;
    MDR_TRY(mdr_accel_upload(a, c->rate, c->host_rate, steps * c->n * (int64_t)sizeof *c->rate));
    MDR_TRY(mdr_accel_upload(a, mdr_exec_accel_hyper(c->exec), c->pop->hyper, c->n * (int64_t)sizeof *c->pop->hyper));
    return mdr_accel_upload(a, c->state, c->host_state, c->n * (int64_t)sizeof *c->state);
}

/* What became of the round; whoever diverged leaves. */
static Err *take_round(Crew *c)
{
    Queue *q = c->q;
    for (int32_t m = 0; m < c->n; m++) {
        QueueTrial *t = c->slot[m];
        const QueueState *s = &c->host_state[m];
        if (!t) continue;
        q->now.flops += t->step_flops * (double)(s->step - t->walk.step);
        q->now.member_steps += s->step - t->walk.step;
        t->walk.step = s->step;
        t->x.loss = s->loss;
        t->x.epoch_loss = s->epoch_loss;
        if (!s->diverged) continue;
        mdr_train_retire(&t->x, TRIAL_DIVERGED, mdr_clock() - t->began);
        MDR_TRY(mdr_train_crew_leave(c, m));
    }
    return NULL;
}

static Err *begin_round(Crew *c)
{
    int64_t steps = round_steps(c);
    c->evaluates = false;
    c->steps = steps;
    MDR_TRY(send_round(c, steps));
    MDR_TRY(begin_piece(c));
    MDR_TRY(mdr_train_crew_begin_round(c));
    MDR_TRY(replay(c->exec, steps));
    MDR_TRY(mdr_accel_mark(c->accel, 1));
    for (int32_t m = 0; m < c->n; m++) {              /* while the device works: the next epochs' orders                     */
        const Walk *w = c->slot[m] ? &c->slot[m]->walk : NULL;
        if (w && to_border(w) == steps && w->step + steps < w->total) mdr_train_crew_order(c, m, (w->step + steps) / w->epoch_steps);
    }
    return NULL;
}

static Err *end_round(Crew *c)
{
    MDR_TRY(mdr_accel_download(c->accel, c->host_state, c->state, c->n * (int64_t)sizeof *c->state));
    double seconds;
    MDR_TRY(worked(c, &seconds));
    double pace = seconds / (double)c->steps, left = MDR_QUEUE_TICK / (pace > 1e-6 ? pace : 1e-6);
    c->left = left < 1 ? 1 : left > MDR_QUEUE_ROUND ? MDR_QUEUE_ROUND : (int32_t)left;
    return take_round(c);
}

/* ---- evaluation ---- */
static Err *send_evaluation(Crew *c, int64_t *most)
{
    const int32_t n = c->n;
    *most = 0;
    for (int32_t m = 0; m < 2 * n; m++) {
        const QueueTrial *t = c->slot[m % n];
        c->host_state[m] = (QueueState){0};
        if (!t || !at_border(&t->walk)) continue;
        int32_t size = t->spec->setting.num_test_examples, batches = (size + MDR_EVAL_BATCH - 1) / MDR_EVAL_BATCH;
        c->host_state[m] = (QueueState){.left = batches, .size = size};
        c->host_size[m] = size;
        if (batches > *most) *most = batches;
    }
    MDR_TRY(mdr_accel_upload(c->accel, c->eval_state, c->host_state, 2 * n * (int64_t)sizeof *c->eval_state));
    return mdr_accel_upload(c->accel, c->size, c->host_size, 2 * n * (int64_t)sizeof *c->size);
}

static Err *begin_evaluation(Crew *c)
{
    const int64_t one = c->pop->stride * c->pop->real_size;
    int64_t most;
    c->evaluates = true;
    MDR_TRY(send_evaluation(c, &most));
    MDR_TRY(begin_piece(c));
    for (int k = 0; k < 2; k++)                       /* valid, test                                                         */
        MDR_TRY(mdr_accel_copy(c->accel, (char *)c->splits->param + k * c->n * one, one, c->pop->param, one, one, c->n));
    MDR_TRY(mdr_accel_fill(c->accel, c->score, 0, 2 * c->n * (int64_t)sizeof *c->score));
    MDR_TRY(mdr_train_crew_begin_splits(c));
    MDR_TRY(replay(c->eval, most));
    return mdr_accel_mark(c->accel, 1);
}

static Err *end_epoch(Crew *c, int32_t m)
{
    QueueTrial *t = c->slot[m];
    mdr_train_epoch_end(&t->x, &t->walk, mdr_clock() - t->began, &c->host_score[m], &c->host_score[c->n + m]);
    if (c->q->watch->epoch) c->q->watch->epoch(c->q->watch->ctx, t->index, &t->x.result);
    if (!t->x.training) return mdr_train_crew_leave(c, m);
    mdr_train_crew_order(c, m, t->walk.step / t->walk.epoch_steps);
    return mdr_train_crew_send_order(c, m);
}

static bool any_at_border(const Crew *c)
{
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m] && at_border(&c->slot[m]->walk)) return true;
    return false;
}

static Err *end_evaluation(Crew *c)
{
    double seconds;
    MDR_TRY(mdr_accel_download(c->accel, c->host_score, c->score, 2 * c->n * (int64_t)sizeof *c->host_score));
    MDR_TRY(worked(c, &seconds));
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m] && at_border(&c->slot[m]->walk)) MDR_TRY(end_epoch(c, m));
    return NULL;
}

/* ---- from piece to piece ---- */
bool mdr_train_crew_over(const Crew *c)
{
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m]) return false;
    return true;
}

/* Orders of epochs have been sent that the host is about to write anew. */
static Err *next_round(Crew *c)
{
    MDR_TRY(mdr_accel_sync(c->accel));
    return begin_round(c);
}

Err *mdr_train_crew_start(Crew *c)
{
    MDR_TRY(mdr_train_crew_admit(c));
    return next_round(c);
}

Err *mdr_train_crew_go_on(Crew *c)
{
    bool border = c->evaluates;
    if (border) {
        MDR_TRY(end_evaluation(c));
    } else {
        MDR_TRY(end_round(c));
        if (any_at_border(c)) return begin_evaluation(c);
    }
    MDR_TRY(mdr_train_queue_tick(c->q));
    /* Not before a border, so that epochs of one length go on ending together and are evaluated together. */
    if (border || mdr_train_crew_over(c)) MDR_TRY(mdr_train_crew_admit(c));
    if (mdr_train_crew_over(c)) return NULL;
    if (border) MDR_TRY(mdr_train_crew_shrink(c));
    return border ? next_round(c) : begin_round(c);
}
