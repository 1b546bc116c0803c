/* The population trainer: one plan for training, one for evaluation (forward only, batches of 128), members side by side. */
#include "train/internal.h"

/* Members must share everything that shapes the graph and the walk through the data. */
static Err *check_member(const TrialSpec *a, const TrialSpec *b)
{
    if (b->train.precision != PRECISION_FLOAT32)
        return MDR_ERR_USER("precision %s needs a GPU: --device cuda", mdr_train_precision_name(b));
    MDR_TRY(mdr_task_check(b->task, &b->setting));
    bool same = mdr_train_same_graph(a, b) && a->setting.num_train_examples == b->setting.num_train_examples &&
                a->setting.num_test_examples == b->setting.num_test_examples && a->train.epochs == b->train.epochs &&
                a->train.steps == b->train.steps;
    return same ? NULL : MDR_ERR_USER("members of a population must share architecture, shapes, batch size, numbers of examples and steps");
}

static Err *open_graphs(Trainer *t)
{
    MDR_TRY(mdr_train_graphs_open(t->first, &mdr_exec_cpu, t->eval_batch, &t->graphs));
    MDR_TRY(mdr_exec_open(t->graphs.plan, t->pool, t->n, &t->exec));
    MDR_TRY(mdr_exec_open(t->graphs.eval_plan, t->pool, t->n, &t->eval_exec));
    return mdr_exec_population_new(t->graphs.plan, NULL, t->n, &t->pop);
}

static Err *open_trainer(Trainer *t)
{
    const TrialSpec *s = t->first;
    for (int32_t m = 0; m < t->n; m++) {
        Member *x = &t->member[m];
        MDR_TRY(check_member(s, x->spec));
        MDR_TRY(mdr_train_member_open(x, x->spec));
        t->own_data = t->own_data || x->order_seed != t->member[0].order_seed;
    }
    t->rows = mdr_task_rows(t->member[0].data[SPLIT_TRAIN]);
    t->batch = s->train.batch_size;
    t->eval_batch = s->setting.num_test_examples < MDR_EVAL_BATCH ? s->setting.num_test_examples : MDR_EVAL_BATCH;
    t->walk = mdr_train_walk(s);
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
    for (int32_t m = 0; m < t->n; m++) {
        mdr_train_start(t->graphs.plan, t->member[m].spec, (float *)t->pop->param + m * t->pop->stride);
        t->pop->hyper[m] = mdr_train_hyper(&t->member[m].spec->train);
    }
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
    for (int32_t m = 0; m < t->n; m++) mdr_train_member_close(&t->member[m]);
    mdr_exec_close(t->exec);
    mdr_exec_close(t->eval_exec);
    mdr_train_graphs_close(&t->graphs);
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
    t->pop->alive[m] = false;
    mdr_train_retire(&t->member[m], status, seconds(t));
}

Err *mdr_train_step(Trainer *t)
{
    StepInput in[3];
    if (mdr_train_finished(t)) return MDR_ERR_MACHINE("the trial has ended");
    int32_t n_seq = mdr_train_batch(t, SPLIT_TRAIN, t->walk.step % t->walk.epoch_steps);
    inputs(t, t->batch, in);
    for (int32_t m = 0; m < t->n; m++) {
        t->pop->hyper[m].lr = mdr_train_rate(&t->member[m].spec->train, t->walk.step, t->walk.total, t->walk.epoch_steps);
        t->pop->hyper[m].step = t->walk.step + 1;
    }
    MDR_TRY(mdr_exec_step(t->exec, t->pop, in, n_seq, true));
    if (t->walk.step % t->walk.epoch_steps == 0)
        for (int32_t m = 0; m < t->n; m++) t->member[m].epoch_loss = 0;
    t->walk.step++;
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

bool mdr_train_epoch_ends(const Trainer *t) { return t->walk.step > 0 && (t->walk.step % t->walk.epoch_steps == 0 || t->walk.step >= t->walk.total); }
int64_t mdr_train_steps_done(const Trainer *t) { return t->walk.step; }
double mdr_train_loss(const Trainer *t, int32_t m) { return t->member[m].loss; }
const TrialResult *mdr_train_result(const Trainer *t, int32_t m) { return &t->member[m].result; }
Exec *mdr_train_exec(Trainer *t) { return t->exec; }
Exec *mdr_train_eval_exec(Trainer *t) { return t->eval_exec; }
const Plan *mdr_train_plan(const Trainer *t) { return t->graphs.plan; }
const Graph *mdr_train_graph(const Trainer *t) { return t->graphs.joint; }
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
            double loss = *(const double *)mdr_exec_output(t->eval_exec, m, 0);
            mdr_train_score(mdr_exec_output(t->eval_exec, m, 1), t->first->setting.vocab_size, loss, n_seq, size, &score[m]);
        }
    }
    return NULL;
}

Err *mdr_train_evaluate(Trainer *t)
{
    SplitScore *valid = mdr_alloc((size_t)t->n * sizeof *valid), *test = mdr_alloc((size_t)t->n * sizeof *test);
    Err *e = score_split(t, SPLIT_VALID, valid);
    if (!e) e = score_split(t, SPLIT_TEST, test);
    for (int32_t m = 0; !e && m < t->n; m++) {
        if (!t->member[m].training) continue;
        mdr_train_epoch_end(&t->member[m], &t->walk, seconds(t), &valid[m], &test[m]);
        t->pop->alive[m] = t->member[m].training;
    }
    mdr_free(valid);
    mdr_free(test);
    return e;
}
