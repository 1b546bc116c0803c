/* madras bench, running: one trial after another on the CPU; all of them as one queue on a GPU. Every trial is stored as it ends. */
#include "cli/bench.h"
#include <string.h>

const char *mdr_cli_bench_name(const Arch *a) { return a->label && a->label[0] ? a->label : a->text; }

/* What the store knows of a trial. Asked again before it runs: the same architecture may stand twice, another process may share the store. */
Err *mdr_cli_bench_look_up(Bench *b, Job *j, int32_t k)
{
    char key[65];
    StoreTrial *t = NULL;
    if (!b->store) return NULL;
    mdr_train_key(&j->spec[k], key);
    MDR_TRY(mdr_store_get(b->store, b->arena, key, &t));
    if (t) j->done[k] = &t->result;
    return NULL;
}

static bool on_step(void *ctx, const Trainer *t)
{
    Bench *b = ctx;
    double share = (double)mdr_train_steps_done(t) / (double)b->now_cost.steps;
    mdr_cli_progress(b->finished + b->now_cost.flops * share, b->total, mdr_clock() - b->begin, "%s, %s, loss %.3f", b->now->task->name,
                     mdr_cli_bench_name(b->now->arch), mdr_train_loss(t, 0));
    return !mdr_cli_stop_asked();
}

static Err *keep(Bench *b, const TrialSpec *s, const TrialCost *cost, const TrialResult *r)
{
    Text spec = {0}, arch = {0};
    char key[65];
    mdr_train_key(s, key);
    mdr_train_spec_text(s, &spec);
    mdr_model_print(s->arch, &arch);
    StoreTrial t = {.key = key, .spec = mdr_text_str(&spec), .architecture = mdr_text_str(&arch), .label = s->arch->label ? s->arch->label : "",
                    .task = s->task->name, .class_name = mdr_train_class(s), .numerics = MDR_NUMERICS, .seed = (int64_t)s->seed,
                    .params = cost->params, .state = cost->state, .flops = cost->flops, .result = *r};
    Err *e = mdr_store_put(b->store, &t);
    mdr_text_free(&spec);
    mdr_text_free(&arch);
    return e;
}

/* A trial's result becomes the job's and the store's. */
static Err *end(Bench *b, Job *j, int32_t k, const TrialResult *r)
{
    j->result[k] = *r;
    j->result[k].epoch = mdr_alloc((size_t)r->n_epoch * sizeof *r->epoch + 1);
    if (r->n_epoch) memcpy(j->result[k].epoch, r->epoch, (size_t)r->n_epoch * sizeof *r->epoch);
    j->done[k] = &j->result[k];
    return keep(b, &j->spec[k], &j->cost[k], r);
}

static Err *run_one(Bench *b, Job *j, int32_t k)
{
    const TrialSpec *s = &j->spec[k];
    Trainer *t = NULL;
    TrainWatch watch = {.ctx = b, .step = on_step};
    b->now = s;
    b->now_cost = j->cost[k];
    Err *e = mdr_train_open(&s, 1, b->pool, &t);
    if (!e) e = mdr_train_run(t, &watch);
    if (!e) e = end(b, j, k, mdr_train_result(t, 0));
    mdr_train_close(t);
    return e;
}

static Err *run_on_cpu(Bench *b)
{
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            Job *j = &b->job[i];
            if (j->done[k]) continue;
            if (mdr_cli_stop_asked()) return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped");
            MDR_TRY(mdr_cli_bench_look_up(b, j, k));
            if (!j->done[k]) MDR_TRY(run_one(b, j, k));
            b->finished += j->cost[k].flops;
        }
    return NULL;
}

/* ---- on a GPU ---- */
typedef struct Queue { Bench *b; const TrialSpec **spec; Job **job; int32_t *trial, n; char (*key)[65]; } Queue;

static bool on_tick(void *ctx, const QueueProgress *p)
{
    const Queue *q = ctx;
    q->b->finished = p->flops;
    mdr_cli_progress(p->flops, p->total_flops, p->seconds, "%d of %d trials, %d running, loss %.3f, GPU %.0f %%", p->ended, q->n, p->running,
                     p->loss, 100 * p->busy);
    return !mdr_cli_stop_asked();
}
static Err *on_done(void *ctx, int32_t trial, const TrialResult *r)
{
    const Queue *q = ctx;
    return end(q->b, q->job[trial], q->trial[trial], r);
}
static void on_say(void *ctx, const char *sentence)
{
    (void)ctx;
    mdr_cli_progress_end();
    mdr_cli_note("madras: %s", sentence);
}

static bool queued(const Queue *q, const char *key)
{
    for (int32_t i = 0; i < q->n; i++)
        if (strcmp(key, q->key[i]) == 0) return true;
    return false;
}

/* What is not done yet, each once: the same architecture may be asked for twice. */
static void fill(Queue *q, bool *twice)
{
    Bench *b = q->b;
    char key[65];
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            if (b->job[i].done[k]) continue;
            mdr_train_key(&b->job[i].spec[k], key);
            if (i > 0 && queued(q, key)) { *twice = true; continue; }
            memcpy(q->key[q->n], key, sizeof key);
            q->spec[q->n] = &b->job[i].spec[k];
            q->job[q->n] = &b->job[i];
            q->trial[q->n++] = k;
        }
}

static void open_queue(Bench *b, Queue *q, bool *twice)
{
    size_t most = (size_t)b->left + 1;
    *q = (Queue){b, mdr_alloc(most * sizeof *q->spec), mdr_alloc(most * sizeof *q->job), mdr_alloc(most * sizeof *q->trial), 0,
                 mdr_alloc(most * sizeof *q->key)};
    fill(q, twice);
}
static void close_queue(Queue *q)
{
    mdr_free(q->spec);
    mdr_free(q->job);
    mdr_free(q->trial);
    mdr_free(q->key);
}

static Err *run_on_gpu(Bench *b)
{
    bool twice = false;
    Queue q;
    QueueWatch watch = {.ctx = &q, .tick = on_tick, .done = on_done, .say = on_say};
    open_queue(b, &q, &twice);
    Err *e = q.n ? mdr_train_queue(q.spec, q.n, b->accel, &watch) : NULL;
    for (int32_t i = 0; twice && !e && i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n && !e; k++)
            if (!b->job[i].done[k]) e = mdr_cli_bench_look_up(b, &b->job[i], k);
    close_queue(&q);
    return e;
}

/* The GPU's rate: the queue's first seconds, thrown away. */
typedef struct Taste { double flops, seconds; } Taste;
static bool taste(void *ctx, const QueueProgress *p)
{
    *(Taste *)ctx = (Taste){p->flops, p->seconds};
    return p->seconds < 5 && !mdr_cli_stop_asked();
}
static Err *thrown_away(void *ctx, int32_t trial, const TrialResult *r)
{
    (void)ctx, (void)trial, (void)r;
    return NULL;
}
Err *mdr_cli_bench_gpu_rate(Bench *b, double *rate)
{
    bool twice = false;
    Queue q;
    Taste t = {0};
    QueueWatch watch = {.ctx = &t, .tick = taste, .done = thrown_away};
    open_queue(b, &q, &twice);
    Err *e = q.n ? mdr_train_queue(q.spec, q.n, b->accel, &watch) : NULL;
    close_queue(&q);
    if (e && mdr_err_code(e) == MDR_STOPPED && !mdr_cli_stop_asked()) {
        mdr_err_free(e);
        e = NULL;
    }
    if (!e && t.seconds > 0) *rate = t.flops / t.seconds;
    return e;
}

Err *mdr_cli_bench_run(Bench *b)
{
    b->begin = mdr_clock();
    Err *e = b->accel ? run_on_gpu(b) : run_on_cpu(b);
    mdr_cli_progress_end();
    return e;
}
