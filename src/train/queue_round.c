/* Training and evaluating one population. A round: R training steps enqueued at once, R = up to the next border of any trial (the
 * end of its epoch or budget), at most what makes progress visible a few times a second; then one wait. Trials at a border are
 * evaluated on both splits while the others rest, their epochs are written down, and free slots are filled. What a trial gets
 * depends on none of this: rounds only cut its steps into pieces. */
#include "train/queue.h"

static const double TICK = 0.25;                      /* seconds between looks at the watch                                  */

static int64_t to_border(const Walk *w)
{
    int64_t epoch = w->epoch_steps - w->step % w->epoch_steps, total = w->total - w->step;
    return epoch < total ? epoch : total;
}
static bool at_border(const Walk *w) { return w->step > 0 && (w->step % w->epoch_steps == 0 || w->step >= w->total); }

static Err *tick(Crew *c)
{
    Queue *q = c->q;
    double now = mdr_clock(), sum = 0;
    int32_t n = 0;
    if (!q->watch->tick || now - q->ticked < TICK * 0.8) return NULL;
    q->ticked = now;
    for (int32_t m = 0; m < c->n; m++) {
        const QueueTrial *t = c->slot[m];
        if (!t) continue;
        const TrialResult *r = &t->x.result;
        sum += r->n_epoch ? r->epoch[r->n_epoch - 1].train_loss : t->x.loss;
        n++;
    }
    q->now.loss = n ? sum / n : 0;
    q->now.seconds = now - q->begin;
    q->now.busy = q->now.seconds > 0 ? q->device / q->now.seconds : 0;
    if (q->watch->tick(q->watch->ctx, &q->now)) return NULL;
    q->outside = true;
    return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped");
}

/* Enqueues n steps between two marks. */
static Err *replay(Crew *c, Exec *e, int64_t n)
{
    MDR_TRY(mdr_accel_mark(c->q->accel, 0));
    for (int64_t i = 0; i < n; i++) MDR_TRY(mdr_exec_replay(e));
    return mdr_accel_mark(c->q->accel, 1);
}
static Err *worked(Crew *c, double *seconds)
{
    MDR_TRY(mdr_accel_elapsed(c->q->accel, 0, 1, seconds));
    c->q->device += *seconds;
    return NULL;
}

/* ---- training ---- */
static int64_t round_steps(const Crew *c)
{
    int64_t n = c->left < MDR_QUEUE_ROUND ? c->left : MDR_QUEUE_ROUND;
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
    Accel *a = c->q->accel;
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

static Err *train_round(Crew *c)
{
    int64_t steps = round_steps(c);
    double begin = mdr_clock(), seconds = 0;
    MDR_TRY(send_round(c, steps));
    MDR_TRY(replay(c, c->exec, steps));
    for (int32_t m = 0; m < c->n; m++) {              /* while the device works: the next epochs' orders                     */
        const Walk *w = c->slot[m] ? &c->slot[m]->walk : NULL;
        if (w && to_border(w) == steps && w->step + steps < w->total) mdr_train_crew_order(c, m, (w->step + steps) / w->epoch_steps);
    }
    MDR_TRY(mdr_accel_download(c->q->accel, c->host_state, c->state, c->n * (int64_t)sizeof *c->state));
    MDR_TRY(worked(c, &seconds));
    double pace = (mdr_clock() - begin) / (double)steps, left = TICK / (pace > 1e-6 ? pace : 1e-6);
    c->left = left < 1 ? 1 : left > MDR_QUEUE_ROUND ? MDR_QUEUE_ROUND : (int32_t)left;
    return take_round(c);
}

/* ---- evaluation ---- */
static Err *score_split(Crew *c, Split split, SplitScore *score)
{
    Accel *a = c->q->accel;
    int64_t most = 0, n = c->n;
    double seconds;
    for (int32_t m = 0; m < c->n; m++) {
        const QueueTrial *t = c->slot[m];
        c->host_state[m] = (QueueState){0};
        if (!t || !at_border(&t->walk)) continue;
        int32_t size = t->spec->setting.num_test_examples, batches = (size + MDR_EVAL_BATCH - 1) / MDR_EVAL_BATCH;
        c->host_state[m] = (QueueState){.left = batches, .size = size};
        c->host_size[m] = size;
        if (batches > most) most = batches;
    }
    MDR_TRY(mdr_accel_upload(a, c->state, c->host_state, n * (int64_t)sizeof *c->state));
    MDR_TRY(mdr_accel_upload(a, c->eval_draw, c->host_draw + split * n, n * (int64_t)sizeof *c->eval_draw));
    MDR_TRY(mdr_accel_upload(a, c->size, c->host_size, n * (int64_t)sizeof *c->size));
    MDR_TRY(mdr_accel_fill(a, c->score, 0, n * (int64_t)sizeof *c->score));
    MDR_TRY(replay(c, c->eval, most));
    MDR_TRY(mdr_accel_download(a, score, c->score, n * (int64_t)sizeof *score));
    return worked(c, &seconds);
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

static Err *evaluate(Crew *c)
{
    MDR_TRY(score_split(c, SPLIT_VALID, c->host_score));
    MDR_TRY(score_split(c, SPLIT_TEST, c->host_score + c->n));
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m] && at_border(&c->slot[m]->walk)) MDR_TRY(end_epoch(c, m));
    return NULL;
}

static bool all_free(const Crew *c)
{
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m]) return false;
    return true;
}

Err *mdr_train_crew_run(Crew *c)
{
    MDR_TRY(mdr_train_crew_admit(c));
    while (!all_free(c)) {
        MDR_TRY(train_round(c));
        bool border = any_at_border(c);
        if (border) MDR_TRY(evaluate(c));
        MDR_TRY(tick(c));
        /* Not before a border, so that epochs of one length go on ending together and are evaluated together. */
        if (border || all_free(c)) MDR_TRY(mdr_train_crew_admit(c));
    }
    return NULL;
}
