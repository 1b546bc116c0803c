/* What a trial is, as text: the table of training values, the hashed spec, the key, what it costs. */
#include "train/train.h"
#include <string.h>

#define AT(f) offsetof(TrainParams, f)
const Param mdr_train_params[] = {
    {"lr", MDR_REAL, AT(lr), 5e-4, 0, 10, NULL, "learning rate"},
    {"weight_decay", MDR_REAL, AT(weight_decay), 0, 0, 10, NULL, "decoupled weight decay, on every parameter"},
    {"beta1", MDR_REAL, AT(beta1), 0.9, 0, 0.999999, NULL, "AdamW: decay of the first moment"},
    {"beta2", MDR_REAL, AT(beta2), 0.999, 0, 0.9999999, NULL, "AdamW: decay of the second moment"},
    {"eps", MDR_REAL, AT(eps), 1e-8, 0, 1, NULL, "AdamW: added to the root of the second moment"},
    {"optimizer", MDR_WORD, AT(optimizer), OPTIMIZER_ADAMW, 0, 0, "adamw|sgd", "update rule"},
    {"scheduler", MDR_WORD, AT(scheduler), SCHEDULER_CONSTANT, 0, 0, "constant|cosine|cosine-step", "learning rate over time"},
    {"min_lr", MDR_REAL, AT(min_lr), 1e-6, 0, 10, NULL, "where a cosine schedule ends"},
    {"warmup_steps", MDR_INT, AT(warmup_steps), 0, 0, 1e9, NULL, "steps of linear warm-up"},
    {"clip", MDR_REAL, AT(clip), 0, 0, 1e9, NULL, "largest global gradient norm; 0: no clipping"},
    {"epochs", MDR_INT, AT(epochs), 200, 1, 1e9, NULL, "passes over the training examples; in a later file or --set without steps beside it, it replaces them"},
    {"steps", MDR_INT, AT(steps), 0, 0, 2e9, NULL, "budget in steps, over any epochs; 0: by epochs"},
    {"batch_size", MDR_INT, AT(batch_size), 128, 1, 65536, NULL, "sequences of a training step"},
    {"early_stop", MDR_WORD, AT(early_stop), STOP_VALID, 0, 0, "none|valid|test", "split whose macro accuracy over 0.999 ends a trial"},
    {"precision", MDR_WORD, AT(precision), 0, 0, 0, "float32|bf16", "arithmetic of the trial; bf16 needs a GPU"},
    {0}};

static void table_text(const Param *t, const void *src, const char *prefix, Text *out)
{
    for (; t->name; t++) {
        mdr_text_printf(out, "%s.%s ", prefix, t->name);
        mdr_params_text(t, src, out);
        mdr_text_add(out, "\n", 1);
    }
}

const char *mdr_train_class(const TrialSpec *s) { return s->device_class ? s->device_class : mdr_cpu_class(); }

const char *mdr_train_precision_name(const TrialSpec *s)
{
    static const char *const name[] = {[PRECISION_FLOAT32] = "float32", [PRECISION_BF16] = "bf16"};
    return name[s->train.precision];
}

static ModelSpec model_of(const TrialSpec *s)
{
    return (ModelSpec){s->arch, s->model, s->setting.vocab_size, s->task->rows(&s->setting), s->setting.seq_len};
}

/* What the layers' code makes of the architecture: names and parameters say nothing of it. */
static void graph_text(const TrialSpec *s, Text *t)
{
    ModelSpec m = model_of(s);
    Graph *g = NULL;
    char hex[65] = "none";                                 /* mdr_train_check refuses such a trial                           */
    mdr_err_free(mdr_model_graph(&m, &g));
    if (g) mdr_ir_digest(g, hex);
    mdr_ir_graph_free(g);
    mdr_text_printf(t, "graph %.16s\n", hex);
}

void mdr_train_spec_text(const TrialSpec *s, Text *t)
{
    mdr_text_printf(t, "architecture ");
    mdr_model_hashed(s->arch, t);
    mdr_text_printf(t, "\n");
    graph_text(s, t);
    mdr_text_printf(t, "task %s\n", s->task->name);
    table_text(s->task->params, &s->setting, "task", t);
    table_text(mdr_model_params, &s->model, "model", t);
    table_text(mdr_train_params, &s->train, "train", t);
    mdr_text_printf(t, "seed %llu\ncomposed %d\n", (unsigned long long)s->seed, s->composed);
}

void mdr_train_key(const TrialSpec *s, char hex[65])
{
    Text t = {0};
    mdr_train_spec_text(s, &t);
    mdr_text_printf(&t, "numerics %d\nclass %s\n", MDR_NUMERICS, mdr_train_class(s));
    mdr_sha256(t.s, t.n, hex);
    mdr_text_free(&t);
}

int64_t mdr_train_total_steps(const TrialSpec *s)
{
    int64_t epoch = (s->setting.num_train_examples + s->train.batch_size - 1) / s->train.batch_size;
    return s->train.steps > 0 ? s->train.steps : epoch * s->train.epochs;
}

Err *mdr_train_check(const TrialSpec *s)
{
    MDR_TRY(mdr_task_check(s->task, &s->setting));
    if (s->model.backbone == BACKBONE_TASK) return MDR_ERR_MACHINE("the backbone of a trial was not settled");
    ModelSpec m = model_of(s);
    Graph *g = NULL;
    Err *e = mdr_model_graph(&m, &g);
    mdr_ir_graph_free(g);
    return e;
}

Err *mdr_train_cost(const TrialSpec *s, TrialCost *c)
{
    ModelSpec m = model_of(s);
    ModelCost one;
    MDR_TRY(mdr_model_cost(&m, &one));
    *c = (TrialCost){one.params, one.state, mdr_train_total_steps(s), 0};
    int64_t examples = s->setting.num_train_examples, epoch = (examples + s->train.batch_size - 1) / s->train.batch_size;
    double epochs = (double)c->steps / (double)epoch;
    c->flops = 3.0 * one.flops * epochs * (double)examples + one.flops * epochs * 2.0 * (double)s->setting.num_test_examples;
    return NULL;
}

void mdr_train_result_free(TrialResult *r)
{
    if (!r) return;
    mdr_free(r->epoch);
    *r = (TrialResult){0};
}
