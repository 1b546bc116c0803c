/* What every way of running trials shares, so that a trial is the same one alone, in a population and in a queue: its graphs and
 * plans, its streams of random numbers, its start, the order of its epochs, and the rules by which an epoch is written down and
 * the trial ends. It runs nothing. */
#include "train/internal.h"
#include <math.h>
#include <string.h>

static const double STOP_ACCURACY = 0.999;

/* ---- graphs ---- */
bool mdr_train_same_graph(const TrialSpec *a, const TrialSpec *b)
{
    Text ta = {0}, tb = {0};
    mdr_model_hashed(a->arch, &ta);
    mdr_model_hashed(b->arch, &tb);
    bool same = strcmp(mdr_text_str(&ta), mdr_text_str(&tb)) == 0 && a->task->rows(&a->setting) == b->task->rows(&b->setting) &&
                a->setting.vocab_size == b->setting.vocab_size && a->setting.seq_len == b->setting.seq_len &&
                memcmp(&a->model, &b->model, sizeof a->model) == 0 && a->train.batch_size == b->train.batch_size &&
                a->train.optimizer == b->train.optimizer && a->train.precision == b->train.precision && a->composed == b->composed;
    mdr_text_free(&ta);
    mdr_text_free(&tb);
    return same;
}

Err *mdr_train_graphs_open(const TrialSpec *s, const DeviceDef *device, int32_t eval_batch, TrainGraphs *g)
{
    ModelSpec m = {s->arch, s->model, s->setting.vocab_size, s->task->rows(&s->setting), s->setting.seq_len};
    HasOp *has = s->composed ? mdr_exec_has_composed : mdr_exec_has;
    void *ctx = (void *)(uintptr_t)device;
    MDR_TRY(mdr_model_graph(&m, &g->forward));
    MDR_TRY(mdr_model_lower(g->forward, has, s->composed ? NULL : mdr_exec_fuse, ctx, true, &g->joint));
    MDR_TRY(mdr_model_lower(g->forward, has, s->composed ? NULL : mdr_exec_fuse, ctx, false, &g->eval));
    const char *update = s->train.optimizer == OPTIMIZER_ADAMW ? "adamw" : "sgd";
    PlanSpec train = {.device = device, .batch = s->train.batch_size, .first_grad = 1, .update = update};
    PlanSpec eval = {.device = device, .batch = eval_batch, .first_grad = -1};
    MDR_TRY(mdr_exec_plan(g->joint, &train, &g->plan));
    return mdr_exec_plan(g->eval, &eval, &g->eval_plan);
}

void mdr_train_graphs_close(TrainGraphs *g)
{
    mdr_exec_plan_free(g->plan);
    mdr_exec_plan_free(g->eval_plan);
    mdr_ir_graph_free(g->forward);
    mdr_ir_graph_free(g->joint);
    mdr_ir_graph_free(g->eval);
    *g = (TrainGraphs){0};
}

/* ---- streams and starts ---- */
static uint64_t stream_seed(const TrialSpec *s, const char *what, bool with_model)
{
    Text t = {0};
    mdr_text_printf(&t, "%s %s ", what, s->task->name);
    mdr_task_text(s->task, &s->setting, &t);
    if (with_model) {
        mdr_text_printf(&t, " ");
        mdr_model_hashed(s->arch, &t);
        char lr[32], decay[32];
        mdr_text_printf(&t, " lr %s weight_decay %s", mdr_text_real(s->train.lr, lr), mdr_text_real(s->train.weight_decay, decay));
    }
    mdr_text_printf(&t, " seed %llu", (unsigned long long)s->seed);
    uint64_t h = mdr_hash64(mdr_text_str(&t));
    mdr_text_free(&t);
    return h;
}

Err *mdr_train_member_open(Member *x, const TrialSpec *s)
{
    x->spec = s;
    x->training = true;
    x->order_seed = stream_seed(s, "order", false);
    for (int k = 0; k < SPLIT_COUNT; k++) MDR_TRY(mdr_task_open(s->task, &s->setting, (Split)k, s->seed, &x->data[k]));
    return NULL;
}

void mdr_train_member_close(Member *x)
{
    for (int k = 0; k < SPLIT_COUNT; k++) mdr_task_close(x->data[k]);
    mdr_train_result_free(&x->result);
    *x = (Member){0};
}

Walk mdr_train_walk(const TrialSpec *s)
{
    return (Walk){0, mdr_train_total_steps(s), (s->setting.num_train_examples + s->train.batch_size - 1) / s->train.batch_size};
}

void mdr_train_start(const Plan *p, const TrialSpec *s, float *param)
{
    uint64_t seed = stream_seed(s, "init", true);
    for (int32_t i = 0; i < mdr_exec_info(p).n_param; i++) {
        const ParamAttr *a = mdr_exec_param(p, i);
        int64_t n = mdr_numel(a->shape);
        double *x = mdr_alloc((size_t)n * sizeof *x);
        mdr_model_init(a, a->shape, s->model.init, s->model.backbone, seed, x);
        float *to = param + mdr_exec_param_offset(p, i);
        for (int64_t k = 0; k < n; k++) to[k] = (float)x[k];
        mdr_free(x);
    }
}

Hyper mdr_train_hyper(const TrainParams *p) { return (Hyper){p->lr, p->weight_decay, p->beta1, p->beta2, p->eps, p->clip, 0}; }

void mdr_train_order(uint64_t order_seed, int64_t epoch, int64_t size, int32_t *order)
{
    for (int64_t i = 0; i < size; i++) order[i] = (int32_t)i;
    Rng r = mdr_rng(order_seed, (uint64_t)epoch);
    mdr_rng_shuffle(&r, order, (int32_t)size);
}

/* ---- ends ---- */
void mdr_train_retire(Member *x, TrialStatus status, double seconds)
{
    x->training = false;
    x->result.status = status;
    x->result.seconds = seconds;
}

void mdr_train_epoch_end(Member *x, const Walk *w, double seconds, const SplitScore *valid, const SplitScore *test)
{
    TrialResult *r = &x->result;
    int64_t in_epoch = (w->step - 1) % w->epoch_steps + 1;
    r->epoch = mdr_realloc(r->epoch, (size_t)(r->n_epoch + 1) * sizeof *r->epoch);
    EpochScore *s = &r->epoch[r->n_epoch++];
    memset(s, 0, sizeof *s);                          /* its padding goes into checkpoints                                  */
    s->epoch = (int32_t)((w->step - 1) / w->epoch_steps + 1);
    s->step = w->step;
    s->train_loss = x->epoch_loss / (double)in_epoch;
    s->seconds = seconds;
    s->valid = *valid;
    s->test = *test;
    int stop = x->spec->train.early_stop;
    double acc = stop == STOP_TEST ? test->acc_macro : valid->acc_macro;
    if (!isfinite(valid->loss) || !isfinite(test->loss)) mdr_train_retire(x, TRIAL_DIVERGED, seconds);
    else if (stop != STOP_NONE && acc > STOP_ACCURACY) mdr_train_retire(x, TRIAL_STOPPED_EARLY, seconds);
    else if (w->step >= w->total) mdr_train_retire(x, TRIAL_DONE, seconds);
}
