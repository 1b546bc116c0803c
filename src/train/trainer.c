/* The population trainer: one plan for training, one for evaluation (forward only, batches of 128), members side by side. */
#include "base/real_math.h"
#include "train/internal.h"
#include <math.h>
#include <string.h>

enum { EVAL_BATCH = 128 };
static const double STOP_ACCURACY = 0.999;

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

/* Members must share everything that shapes the graph and the walk through the data. */
static Err *same_shape(const TrialSpec *a, const TrialSpec *b)
{
    Text ta = {0}, tb = {0};
    mdr_model_hashed(a->arch, &ta);
    mdr_model_hashed(b->arch, &tb);
    bool same = strcmp(mdr_text_str(&ta), mdr_text_str(&tb)) == 0 && a->task->rows(&a->setting) == b->task->rows(&b->setting) &&
                a->setting.vocab_size == b->setting.vocab_size && a->setting.seq_len == b->setting.seq_len &&
                a->setting.num_train_examples == b->setting.num_train_examples &&
                a->setting.num_test_examples == b->setting.num_test_examples && memcmp(&a->model, &b->model, sizeof a->model) == 0 &&
                a->train.batch_size == b->train.batch_size && a->train.epochs == b->train.epochs && a->train.steps == b->train.steps &&
                a->train.optimizer == b->train.optimizer && a->composed == b->composed;
    mdr_text_free(&ta);
    mdr_text_free(&tb);
    return same ? NULL : MDR_ERR_USER("members of a population must share architecture, shapes, batch size, numbers of examples and steps");
}

static void init_member(Trainer *t, int32_t m)
{
    const TrialSpec *s = t->member[m].spec;
    uint64_t seed = stream_seed(s, "init", true);
    for (int32_t i = 0; i < mdr_exec_info(t->plan).n_param; i++) {
        const ParamAttr *a = mdr_exec_param(t->plan, i);
        int64_t n = mdr_numel(a->shape);
        double *x = mdr_alloc((size_t)n * sizeof *x);
        mdr_model_init(a, a->shape, s->model.init, s->model.backbone, seed, x);
        float *to = (float *)t->pop->param + m * t->pop->stride + mdr_exec_param_offset(t->plan, i);
        for (int64_t k = 0; k < n; k++) to[k] = (float)x[k];
        mdr_free(x);
    }
    const TrainParams *p = &s->train;
    t->pop->hyper[m] = (Hyper){p->lr, p->weight_decay, p->beta1, p->beta2, p->eps, p->clip, 0};
}

static Err *open_graphs(Trainer *t)
{
    const TrialSpec *s = t->first;
    const DeviceDef *device = &mdr_exec_cpu;
    ModelSpec m = {s->arch, s->model, s->setting.vocab_size, t->rows, s->setting.seq_len};
    HasOp *has = s->composed ? mdr_exec_has_composed : mdr_exec_has;
    void *ctx = (void *)(uintptr_t)device;
    MDR_TRY(mdr_model_graph(&m, &t->forward));
    MDR_TRY(mdr_model_lower(t->forward, has, ctx, true, &t->joint));
    MDR_TRY(mdr_model_lower(t->forward, has, ctx, false, &t->eval));
    const char *update = s->train.optimizer == OPTIMIZER_ADAMW ? "adamw" : "sgd";
    PlanSpec train = {.device = device, .batch = t->batch, .first_grad = 2, .update = update};
    PlanSpec eval = {.device = device, .batch = t->eval_batch, .first_grad = -1};
    MDR_TRY(mdr_exec_plan(t->joint, &train, &t->plan));
    MDR_TRY(mdr_exec_plan(t->eval, &eval, &t->eval_plan));
    MDR_TRY(mdr_exec_open(t->plan, t->pool, t->n, &t->exec));
    MDR_TRY(mdr_exec_open(t->eval_plan, t->pool, t->n, &t->eval_exec));
    return mdr_exec_population_new(t->plan, t->n, &t->pop);
}

static Err *open_trainer(Trainer *t)
{
    const TrialSpec *s = t->first;
    for (int32_t m = 0; m < t->n; m++) {
        Member *x = &t->member[m];
        MDR_TRY(mdr_task_check(x->spec->task, &x->spec->setting));
        MDR_TRY(same_shape(s, x->spec));
        x->training = true;
        x->order_seed = stream_seed(x->spec, "order", false);
        t->own_data = t->own_data || x->order_seed != t->member[0].order_seed;
        for (int k = 0; k < SPLIT_COUNT; k++)
            MDR_TRY(mdr_task_open(x->spec->task, &x->spec->setting, (Split)k, x->spec->seed, &x->data[k]));
    }
    t->rows = mdr_task_rows(t->member[0].data[SPLIT_TRAIN]);
    t->batch = s->train.batch_size;
    t->eval_batch = s->setting.num_test_examples < EVAL_BATCH ? s->setting.num_test_examples : EVAL_BATCH;
    t->epoch_steps = (s->setting.num_train_examples + t->batch - 1) / t->batch;
    t->total = mdr_train_total_steps(s);
    t->order_epoch = -1;
    int64_t most = t->batch > t->eval_batch ? t->batch : t->eval_batch, copies = t->own_data ? t->n : 1;
    void *big = NULL;
    size_t cells = (size_t)(copies * most * t->rows);
    MDR_TRY(mdr_alloc_big((2 * cells + (size_t)copies * (size_t)s->setting.num_train_examples) * sizeof(int32_t), &big));
    t->tokens = big;
    t->targets = t->tokens + cells;
    t->order = t->targets + cells;
    t->inv_count = mdr_alloc((size_t)t->n * sizeof(float));
    MDR_TRY(open_graphs(t));
    for (int32_t m = 0; m < t->n; m++) init_member(t, m);
    t->clock_start = mdr_clock();
    return NULL;
}

Err *mdr_train_open(const TrialSpec *const *specs, int32_t n, Pool *pool, Trainer **out)
{
    Trainer *t = mdr_alloc(sizeof *t);
    *out = NULL;
    t->first = specs[0];
    t->n = n;
    t->pool = pool;
    t->member = mdr_alloc((size_t)n * sizeof *t->member);
    for (int32_t m = 0; m < n; m++) t->member[m].spec = specs[m];
    Err *e = open_trainer(t);
    if (e) { mdr_train_close(t); return e; }
    *out = t;
    return NULL;
}

void mdr_train_close(Trainer *t)
{
    if (!t) return;
    for (int32_t m = 0; m < t->n; m++) {
        for (int k = 0; k < SPLIT_COUNT; k++) mdr_task_close(t->member[m].data[k]);
        mdr_train_result_free(&t->member[m].result);
    }
    mdr_exec_close(t->exec);
    mdr_exec_close(t->eval_exec);
    mdr_exec_plan_free(t->plan);
    mdr_exec_plan_free(t->eval_plan);
    mdr_ir_graph_free(t->forward);
    mdr_ir_graph_free(t->joint);
    mdr_ir_graph_free(t->eval);
    mdr_exec_population_free(t->pop);
    mdr_free_big(t->tokens);
    mdr_free(t->inv_count);
    mdr_free(t->member);
    mdr_free(t);
}

static void inputs(const Trainer *t, int32_t batch, StepInput in[3])
{
    int64_t member = t->own_data ? (int64_t)batch * t->rows : 0;
    in[0] = (StepInput){t->tokens, member};
    in[1] = (StepInput){t->targets, member};
    in[2] = (StepInput){t->inv_count, 1};
}

static double seconds(const Trainer *t) { return t->clock_before + mdr_clock() - t->clock_start; }

static void retire(Trainer *t, int32_t m, TrialStatus status)
{
    t->member[m].training = t->pop->alive[m] = false;
    t->member[m].result.status = status;
    t->member[m].result.seconds = seconds(t);
}

Err *mdr_train_step(Trainer *t)
{
    StepInput in[3];
    if (mdr_train_finished(t)) return MDR_ERR_MACHINE("the trial has ended");
    int32_t n_seq = mdr_train_batch(t, SPLIT_TRAIN, t->step % t->epoch_steps);
    inputs(t, t->batch, in);
    for (int32_t m = 0; m < t->n; m++) {
        t->pop->hyper[m].lr = mdr_train_rate(&t->member[m].spec->train, t->step, t->total, t->epoch_steps);
        t->pop->hyper[m].step = t->step + 1;
    }
    MDR_TRY(mdr_exec_step(t->exec, t->pop, in, n_seq, true));
    if (t->step % t->epoch_steps == 0)
        for (int32_t m = 0; m < t->n; m++) t->member[m].epoch_loss = 0;
    t->step++;
    for (int32_t m = 0; m < t->n; m++) {
        if (!t->member[m].training) continue;
        t->member[m].loss = *(const double *)mdr_exec_output(t->exec, m, 0);
        t->member[m].epoch_loss += t->member[m].loss;
        if (!mdr_exec_out(t->exec, m)->finite) retire(t, m, TRIAL_DIVERGED);
    }
    return NULL;
}

const char *mdr_train_status_name(TrialStatus s)
{
    static const char *const name[] = {[TRIAL_DONE] = "done", [TRIAL_DIVERGED] = "diverged", [TRIAL_STOPPED_EARLY] = "stopped early"};
    return name[s];
}

bool mdr_train_epoch_ends(const Trainer *t) { return t->step > 0 && (t->step % t->epoch_steps == 0 || t->step >= t->total); }
int64_t mdr_train_steps_done(const Trainer *t) { return t->step; }
double mdr_train_loss(const Trainer *t, int32_t m) { return t->member[m].loss; }
const TrialResult *mdr_train_result(const Trainer *t, int32_t m) { return &t->member[m].result; }
Exec *mdr_train_exec(Trainer *t) { return t->exec; }
Exec *mdr_train_eval_exec(Trainer *t) { return t->eval_exec; }
const Plan *mdr_train_plan(const Trainer *t) { return t->plan; }
const Graph *mdr_train_graph(const Trainer *t) { return t->joint; }
const Population *mdr_train_population(const Trainer *t) { return t->pop; }

bool mdr_train_finished(const Trainer *t)
{
    for (int32_t m = 0; m < t->n; m++)
        if (t->member[m].training) return false;
    return true;
}

/* One split: means over its batches, weighted by their sequences. */
static Err *score_split(Trainer *t, Split split, SplitScore *score)
{
    int64_t size = mdr_task_size(t->member[0].data[split]), batches = (size + t->eval_batch - 1) / t->eval_batch;
    StepInput in[3];
    for (int32_t m = 0; m < t->n; m++) score[m] = (SplitScore){0};
    for (int64_t b = 0; b < batches; b++) {
        int32_t n_seq = mdr_train_batch(t, split, b);
        inputs(t, t->eval_batch, in);
        MDR_TRY(mdr_exec_step(t->eval_exec, t->pop, in, n_seq, false));
        for (int32_t m = 0; m < t->n; m++) {
            if (!t->member[m].training) continue;
            double plain, macro, weight = (double)n_seq / (double)size, loss = *(const double *)mdr_exec_output(t->eval_exec, m, 0);
            mdr_train_accuracy(mdr_exec_output(t->eval_exec, m, 1), t->first->setting.vocab_size, &plain, &macro);
            score[m].loss += weight * loss;
            score[m].ppl += weight * d_exp(loss);
            score[m].acc += weight * plain;
            score[m].acc_macro += weight * macro;
        }
    }
    return NULL;
}

static void append_epoch(Trainer *t, int32_t m, const SplitScore *valid, const SplitScore *test)
{
    Member *x = &t->member[m];
    TrialResult *r = &x->result;
    int64_t in_epoch = (t->step - 1) % t->epoch_steps + 1;
    r->epoch = mdr_realloc(r->epoch, (size_t)(r->n_epoch + 1) * sizeof *r->epoch);
    EpochScore *s = &r->epoch[r->n_epoch++];
    memset(s, 0, sizeof *s);                          /* its padding goes into checkpoints                                  */
    s->epoch = (int32_t)((t->step - 1) / t->epoch_steps + 1);
    s->step = t->step;
    s->train_loss = x->epoch_loss / (double)in_epoch;
    s->seconds = seconds(t);
    s->valid = *valid;
    s->test = *test;
    int stop = x->spec->train.early_stop;
    double acc = stop == STOP_TEST ? test->acc_macro : valid->acc_macro;
    if (!isfinite(valid->loss) || !isfinite(test->loss)) retire(t, m, TRIAL_DIVERGED);
    else if (stop != STOP_NONE && acc > STOP_ACCURACY) retire(t, m, TRIAL_STOPPED_EARLY);
    else if (t->step >= t->total) retire(t, m, TRIAL_DONE);
}

Err *mdr_train_evaluate(Trainer *t)
{
    SplitScore *valid = mdr_alloc((size_t)t->n * sizeof *valid), *test = mdr_alloc((size_t)t->n * sizeof *test);
    Err *e = score_split(t, SPLIT_VALID, valid);
    if (!e) e = score_split(t, SPLIT_TEST, test);
    for (int32_t m = 0; !e && m < t->n; m++)
        if (t->member[m].training) append_epoch(t, m, &valid[m], &test[m]);
    mdr_free(valid);
    mdr_free(test);
    return e;
}
