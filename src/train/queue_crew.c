/* One population of a queue: its memory on the device, its two recorded steps, and who sits in which slot. A trial that sits down
 * brings its starting values, the order of its first epoch and descriptions of its data; nothing of whom it follows is left.
 *
 * The recorded training step: [take the drawn batch; which rate; which batch next] -> step, beside it [draw the next], beside its update [add up the loss].
 * So a round of steps runs without the host; only its first batch waits to be drawn. Evaluation is the same, adding up
 * scores, for twice as many members: each on the valid and on the test split. One after the other, either may leave half of a GPU idle. */
#include "train/queue.h"
#include <string.h>

/* ---- memory ---- */
static void *carve(char **at, int64_t bytes)
{
    char *p = *at;
    *at += (bytes + 255) / 256 * 256;
    return p;
}

static int64_t lay_out(Crew *c, char *memory)
{
    char *at = memory;
    const int64_t n = c->n, sequences = n * (c->batch > 2 * MDR_EVAL_BATCH ? c->batch : 2 * MDR_EVAL_BATCH);
    const int64_t work = mdr_cuda_draw_work(c->n, c->batch, c->rows), eval_work = mdr_cuda_draw_work(2 * c->n, MDR_EVAL_BATCH, c->rows);
    c->state = carve(&at, n * (int64_t)sizeof *c->state);
    c->eval_state = carve(&at, 2 * n * (int64_t)sizeof *c->eval_state);
    c->rate = carve(&at, n * MDR_QUEUE_ROUND * (int64_t)sizeof *c->rate);
    c->to_draw = (QueueNext){carve(&at, 2 * n * (int64_t)sizeof(int32_t)), carve(&at, 2 * n * (int64_t)sizeof(int32_t)), c->batch};
    c->eval_to_draw = (QueueNext){c->to_draw.first, c->to_draw.n_seq, MDR_EVAL_BATCH};
    c->drawn.tokens = carve(&at, sequences * c->rows * (int64_t)sizeof(int32_t));
    c->drawn.targets = carve(&at, sequences * c->rows * (int64_t)sizeof(int32_t));
    c->drawn.inv_count = carve(&at, 2 * n * (int64_t)sizeof(float));
    c->drawn.n_seq = carve(&at, 2 * n * (int64_t)sizeof(int32_t));
    c->order = carve(&at, n * c->examples * (int64_t)sizeof *c->order);
    c->work = carve(&at, work > eval_work ? work : eval_work);
    c->draw = carve(&at, n * (int64_t)sizeof *c->draw);
    c->eval_draw = carve(&at, 2 * n * (int64_t)sizeof *c->eval_draw);
    c->size = carve(&at, 2 * n * (int64_t)sizeof *c->size);
    c->score = carve(&at, 2 * n * (int64_t)sizeof *c->score);
    return at - memory;
}

int64_t mdr_train_crew_bytes(const TrainGraphs *g, const TrialSpec *s, int32_t n, int64_t examples)
{
    Crew c = {.n = n, .examples = examples, .batch = s->train.batch_size, .rows = s->task->rows(&s->setting)};
    return mdr_exec_accel_bytes(g->plan, n) + mdr_exec_accel_bytes(g->eval_plan, 2 * n) + lay_out(&c, NULL);
}

static void host_memory(Crew *c)
{
    size_t n = (size_t)c->n;
    c->slot = mdr_alloc(n * sizeof *c->slot);
    c->host_state = mdr_alloc(2 * n * sizeof *c->host_state);
    c->host_rate = mdr_alloc(n * MDR_QUEUE_ROUND * sizeof *c->host_rate);
    c->host_order = mdr_alloc(n * (size_t)c->examples * sizeof *c->host_order);
    c->order_epoch = mdr_alloc(n * sizeof *c->order_epoch);
    c->host_draw = mdr_alloc(n * SPLIT_COUNT * sizeof *c->host_draw);
    c->host_score = mdr_alloc(2 * n * sizeof *c->host_score);
    c->host_size = mdr_alloc(2 * n * sizeof *c->host_size);
    c->ctx = mdr_alloc(n * sizeof *c->ctx);
    c->ctx_bytes = mdr_alloc(n * sizeof *c->ctx_bytes);
}

/* ---- recorded steps ---- */
static Err *take(Crew *c, int32_t n, Exec *e, void *stream, QueueState *state, const double *rate, Hyper *hyper, QueueNext next)
{
    int64_t stride;
    DrawBatch taken = {.n_seq = mdr_exec_accel_n_seq(e)};
    taken.tokens = mdr_exec_accel_input(e, 0, &stride);
    taken.targets = mdr_exec_accel_input(e, 1, &stride);
    taken.inv_count = mdr_exec_accel_input(e, 2, &stride);
    mdr_cuda_queue_before(stream, n, c->rows, state, rate, hyper, c->drawn, taken, mdr_exec_accel_one(e), next);
    return mdr_accel_launched(c->accel);
}
static Err *draw(Crew *c, int32_t n, void *stream, const DrawMember *members, QueueNext next)
{
    mdr_cuda_draw(stream, n, next.batch, c->rows, members, next.first, next.n_seq, c->drawn, c->work);
    return mdr_accel_launched(c->accel);
}
static Err *draw_first(Crew *c, int32_t n, QueueState *state, const DrawMember *members, QueueNext next)
{
    void *stream = mdr_accel_stream(c->accel);
    mdr_cuda_queue_begin(stream, n, state, next);
    return draw(c, n, stream, members, next);
}
Err *mdr_train_crew_begin_round(Crew *c) { return draw_first(c, c->n, c->state, c->draw, c->to_draw); }
Err *mdr_train_crew_begin_splits(Crew *c) { return draw_first(c, 2 * c->n, c->eval_state, c->eval_draw, c->eval_to_draw); }

static Err *before_step(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    return take(c, c->n, e, stream, c->state, c->rate, mdr_exec_accel_hyper(e), c->to_draw);
}
static Err *draw_step(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    (void)e;
    return draw(c, c->n, stream, c->draw, c->to_draw);
}
static Err *after_step(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    int64_t member;
    const double *loss = mdr_exec_accel_sum(e, 0, &member);
    mdr_cuda_queue_after(stream, c->n, c->state, mdr_exec_accel_n_seq(e), loss, member, mdr_exec_accel_norm(e), mdr_exec_accel_hyper(e));
    return mdr_accel_launched(c->accel);
}
static Err *before_eval(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    return take(c, 2 * c->n, e, stream, c->eval_state, NULL, NULL, c->eval_to_draw);
}
static Err *draw_eval(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    (void)e;
    return draw(c, 2 * c->n, stream, c->eval_draw, c->eval_to_draw);
}
static Err *after_eval(void *ctx, Exec *e, void *stream)
{
    Crew *c = ctx;
    int64_t loss_member, count_member;
    const double *loss = mdr_exec_accel_sum(e, 0, &loss_member), *counts = mdr_exec_accel_sum(e, 1, &count_member);
    mdr_cuda_score(stream, 2 * c->n, mdr_exec_accel_n_seq(e), c->vocab, NULL, loss, loss_member, counts, count_member, c->size, c->score);
    return mdr_accel_launched(c->accel);
}

static Err *open_device(Crew *c)
{
    Accel *a = c->accel;
    int64_t bytes = lay_out(c, NULL);
    MDR_TRY(mdr_exec_population_new(c->graphs->plan, a, c->n, &c->pop));
    MDR_TRY(mdr_exec_open_accel(c->graphs->plan, a, c->n, &c->exec));
    MDR_TRY(mdr_exec_population_new(c->graphs->eval_plan, a, 2 * c->n, &c->splits));
    MDR_TRY(mdr_exec_open_accel(c->graphs->eval_plan, a, 2 * c->n, &c->eval));
    MDR_TRY(mdr_accel_alloc(a, bytes, &c->memory));
    lay_out(c, c->memory);
    MDR_TRY(mdr_accel_fill(a, c->memory, 0, bytes));
    /* Whether norms are computed is fixed by the recording: they are if any trial of the graph clips. */
    for (int32_t i = 0; i < c->n_trial; i++)
        if (c->trial[i]->spec->train.clip > 0) c->pop->hyper[0].clip = 1;
    return mdr_train_crew_record(c);
}

Err *mdr_train_crew_record(Crew *c)
{
    MDR_TRY(mdr_exec_record(c->exec, c->pop, true, &(ExecHooks){before_step, draw_step, after_step, c}));
    return mdr_exec_record(c->eval, c->splits, false, &(ExecHooks){before_eval, draw_eval, after_eval, c});
}

Err *mdr_train_crew_open(Queue *q, Accel *a, const TrainGraphs *g, QueueTrial **trial, int32_t n_trial, int32_t n, Crew *c)
{
    const TrialSpec *s = trial[0]->spec;
    *c = (Crew){.q = q, .accel = a, .graphs = g, .trial = trial, .n_trial = n_trial, .n = n, .n_first = n,
                .batch = s->train.batch_size, .vocab = s->setting.vocab_size, .rows = s->task->rows(&s->setting), .left = 8};
    for (int32_t i = 0; i < n_trial; i++)
        if (trial[i]->spec->setting.num_train_examples > c->examples) c->examples = trial[i]->spec->setting.num_train_examples;
    host_memory(c);
    return open_device(c);
}

/* A trial that did not end goes back as if it had never begun: it is a function of its spec. */
static void put_back(Crew *c, QueueTrial *t)
{
    c->q->now.flops -= t->step_flops * (double)t->walk.step;
    c->q->now.member_steps -= t->walk.step;
    c->q->now.running--;
    c->q->now.waiting++;
    t->walk.step = 0;
    mdr_train_member_close(&t->x);
}

void mdr_train_crew_close(Crew *c)
{
    if (c->accel) mdr_err_free(mdr_accel_sync(c->accel)); /* steps may be under way yet                                          */
    for (int32_t m = 0; m < c->n; m++)
        if (c->slot[m]) put_back(c, c->slot[m]);
    for (int32_t m = 0; m < c->n_first; m++) mdr_accel_free(c->accel, c->ctx[m]);
    mdr_exec_close(c->exec);
    mdr_exec_close(c->eval);
    mdr_exec_population_free(c->pop);
    mdr_exec_population_free(c->splits);
    mdr_accel_free(c->accel, c->memory);
    mdr_free(c->slot);
    mdr_free(c->host_state);
    mdr_free(c->host_rate);
    mdr_free(c->host_order);
    mdr_free(c->order_epoch);
    mdr_free(c->host_draw);
    mdr_free(c->host_score);
    mdr_free(c->host_size);
    mdr_free(c->ctx);
    mdr_free(c->ctx_bytes);
    *c = (Crew){0};
}

/* ---- sitting down and leaving ---- */
void mdr_train_crew_order(Crew *c, int32_t m, int64_t epoch)
{
    const QueueTrial *t = c->slot[m];
    if (c->order_epoch[m] == epoch) return;
    mdr_train_order(t->x.order_seed, epoch, t->spec->setting.num_train_examples, c->host_order + m * c->examples);
    c->order_epoch[m] = epoch;
}

Err *mdr_train_crew_send_order(Crew *c, int32_t m)
{
    int64_t at = m * c->examples, bytes = c->slot[m]->spec->setting.num_train_examples * (int64_t)sizeof *c->order;
    return mdr_accel_upload(c->accel, c->order + at, c->host_order + at, bytes);
}

typedef struct Starts { Crew *c; const int32_t *slot; int32_t n, workers; float *param; } Starts;
static void start_job(void *ctx, int worker)
{
    Starts *s = ctx;
    if (worker >= s->n) return;
    int32_t m = s->slot[worker];
    mdr_train_start(s->c->graphs->plan, s->c->slot[m]->spec, s->param + worker * s->c->pop->stride);
    mdr_train_crew_order(s->c, m, 0);
}

/* Setup knows nothing of splits: one copy serves all three. */
static Err *send_data(Crew *c, int32_t m)
{
    Accel *a = c->accel;
    Dataset *const *data = c->slot[m]->x.data;
    int64_t bytes;
    const void *ctx = mdr_task_ctx(data[SPLIT_TRAIN], &bytes);
    if (bytes > c->ctx_bytes[m]) {
        mdr_accel_free(a, c->ctx[m]);
        c->ctx_bytes[m] = 0;
        MDR_TRY(mdr_accel_alloc(a, bytes, &c->ctx[m]));
        c->ctx_bytes[m] = bytes;
    }
    if (bytes > 0) MDR_TRY(mdr_accel_upload(a, c->ctx[m], ctx, bytes));
    for (int k = 0; k < SPLIT_COUNT; k++)
        mdr_task_draw_member(data[k], bytes > 0 ? c->ctx[m] : NULL, k == SPLIT_TRAIN ? c->order + m * c->examples : NULL,
                             &c->host_draw[k * c->n + m]);
    return NULL;
}

static Err *send_start(Crew *c, int32_t m, const float *param)
{
    int64_t bytes = c->pop->stride * (int64_t)sizeof *param;
    MDR_TRY(mdr_exec_population_put(c->pop, POP_PARAM, m, param));
    MDR_TRY(mdr_accel_fill(c->accel, (char *)c->pop->m + m * bytes, 0, bytes));
    MDR_TRY(mdr_accel_fill(c->accel, (char *)c->pop->v + m * bytes, 0, bytes));
    MDR_TRY(mdr_train_crew_send_order(c, m));
    return send_data(c, m);
}

/* Starting values of up to as many trials as there are workers, drawn side by side. */
static Err *start_some(Crew *c, const int32_t *slot, int32_t n)
{
    float *param = mdr_alloc((size_t)(n * c->pop->stride) * sizeof *param);
    Starts s = {.c = c, .slot = slot, .n = n, .param = param};
    mdr_pool_run(c->q->pool, start_job, &s);
    Err *e = NULL;
    for (int32_t i = 0; i < n && !e; i++) e = send_start(c, slot[i], param + i * c->pop->stride);
    Err *sent = mdr_accel_sync(c->accel);
    mdr_free(param);
    if (e) mdr_err_free(sent);
    else e = sent;
    return e;
}

static Err *sit_down(Crew *c, int32_t m)
{
    QueueTrial *t = c->trial[c->next++];
    c->slot[m] = t;
    c->order_epoch[m] = -1;
    c->pop->hyper[m] = mdr_train_hyper(&t->spec->train);
    t->began = mdr_clock();
    c->q->now.running++;
    c->q->now.waiting--;
    return mdr_train_member_open(&t->x, t->spec);
}

Err *mdr_train_crew_send_draws(Crew *c)
{
    int64_t bytes = c->n * (int64_t)sizeof *c->draw;
    MDR_TRY(mdr_accel_upload(c->accel, c->draw, c->host_draw + SPLIT_TRAIN * c->n, bytes));
    return mdr_accel_upload(c->accel, c->eval_draw, c->host_draw + SPLIT_VALID * c->n, 2 * bytes);
}

Err *mdr_train_crew_admit(Crew *c)
{
    int32_t workers = mdr_pool_size(c->q->pool), n = 0;
    int32_t *slot = mdr_alloc((size_t)workers * sizeof *slot);
    bool any = false;
    Err *e = NULL;
    for (int32_t m = 0; m < c->n && !e; m++) {
        if (!c->slot[m] && c->next < c->n_trial) {
            e = sit_down(c, m);
            slot[n++] = m;
            any = true;
        }
        if (!e && n > 0 && (n == workers || m == c->n - 1 || c->next == c->n_trial)) {
            e = start_some(c, slot, n);
            n = 0;
        }
    }
    mdr_free(slot);
    return !e && any ? mdr_train_crew_send_draws(c) : e;
}

Err *mdr_train_crew_leave(Crew *c, int32_t m)
{
    QueueTrial *t = c->slot[m];
    Queue *q = c->q;
    q->now.running--;
    q->now.ended++;
    q->now.total_flops -= t->step_flops * (double)(t->walk.total - t->walk.step);
    t->ended = true;
    c->slot[m] = NULL;
    Err *e = q->watch->done ? q->watch->done(q->watch->ctx, t->index, &t->x.result) : NULL;
    q->outside = e != NULL;
    mdr_train_member_close(&t->x);
    return e;
}
