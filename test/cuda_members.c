/* A member alone = that member among others, bit for bit, where members have as many sequences as they please: models whose products,
 * mixers and scans are fused, run by one, by six, by six that were nine before, and by many, each with its own weights, data and number of
 * sequences (some none). Gradients are compared as what one step of plain descent leaves of the weights; the loss as it is. Alone, they agree
 * with the double reference. */
#include "exec/exec.h"
#include "model/model.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BATCH = 9, KINDS = 6, MOST = 60, VOCAB = 7 };
static const int32_t sequences[KINDS] = {9, 4, 0, 1, 8, 7};
static const double RATE = 1048576.0;                     /* a power of two: weights become multiples of gradients                    */

typedef struct Kinds { int32_t rows, n_param; int64_t n_weight; float *weight; int32_t *token, *target; } Kinds;
typedef struct Ran { float *after[MOST]; double loss[MOST]; int64_t stride; } Ran;

static void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}

static Graph *lowered(const ModelSpec *m, const DeviceDef *d)
{
    Graph *forward = NULL, *joint = NULL;
    ok(mdr_model_graph(m, &forward));
    ok(mdr_model_lower(forward, mdr_exec_has, mdr_exec_fuse, (void *)(uintptr_t)d, true, &joint));
    mdr_ir_graph_free(forward);
    return joint;
}

/* Weights as training starts them, gains and biases moved off their constants so that every gradient counts. */
static Kinds draw(const Graph *g, const ModelSpec *m)
{
    int32_t n = mdr_ir_params(g, NULL, 0), *node = mdr_alloc((size_t)n * sizeof *node);
    mdr_ir_params(g, node, n);
    Kinds k = {.rows = m->rows, .n_param = n};
    for (int32_t i = 0; i < n; i++) k.n_weight += mdr_numel(g->node[node[i]].out[0].shape);
    k.weight = mdr_alloc((size_t)(KINDS * k.n_weight) * sizeof *k.weight);
    k.token = mdr_alloc((size_t)(2 * KINDS * BATCH * m->rows) * sizeof *k.token);
    k.target = k.token + KINDS * BATCH * m->rows;
    double *w = mdr_alloc((size_t)k.n_weight * sizeof *w);
    float *to = k.weight;
    Rng r = mdr_rng(5, 8);
    for (uint64_t kind = 0; kind < KINDS; kind++)
        for (int32_t i = 0; i < n; i++) {
            const ParamAttr *p = g->node[node[i]].attr;
            mdr_model_init(p, p->shape, m->params.init, m->params.backbone, 100 + kind, w);
            for (int64_t j = 0; j < mdr_numel(p->shape); j++)
                *to++ = (float)(w[j] + (p->init.kind == INIT_CONST ? 0.6 * mdr_rng_unit(&r) - 0.3 : 0.0));
        }
    for (int32_t i = 0; i < KINDS * BATCH * m->rows; i++) {
        k.token[i] = (int32_t)mdr_rng_below(&r, VOCAB);
        k.target[i] = i % 5 == 2 ? -100 : (int32_t)mdr_rng_below(&r, VOCAB);
    }
    mdr_free(w);
    mdr_free(node);
    return k;
}

/* What member i, of kind kind[i], is given. */
static void give(const Plan *p, Exec *e, Population *pop, Accel *accel, const Kinds *k, int32_t i, int32_t kind)
{
    float *x = mdr_alloc((size_t)pop->stride * sizeof *x);
    const float *from = k->weight + kind * k->n_weight;
    for (int32_t j = 0; j < k->n_param; j++) {
        int64_t n = mdr_numel(mdr_exec_param(p, j)->shape);
        memcpy(x + mdr_exec_param_offset(p, j), from, (size_t)n * sizeof *x);
        from += n;
    }
    ok(mdr_exec_population_put(pop, POP_PARAM, i, x));
    mdr_free(x);
    const int64_t one = BATCH * k->rows, bytes = one * (int64_t)sizeof(int32_t);
    const float inv = 1.0f / (float)one;
    int64_t member;
    int32_t *to = mdr_exec_accel_input(e, 0, &member);
    ok(mdr_accel_upload(accel, to + i * member, k->token + kind * one, bytes));
    to = mdr_exec_accel_input(e, 1, &member);
    ok(mdr_accel_upload(accel, to + i * member, k->target + kind * one, bytes));
    float *count = mdr_exec_accel_input(e, 2, &member);
    ok(mdr_accel_upload(accel, count + i * member, &inv, sizeof inv));
    ok(mdr_accel_upload(accel, mdr_exec_accel_n_seq(e) + i, &sequences[kind], sizeof(int32_t)));
    const Hyper h = {.lr = RATE, .step = 1};
    pop->hyper[i] = h;
    ok(mdr_accel_upload(accel, mdr_exec_accel_hyper(e) + i, &h, sizeof h));
}

static void step(const Plan *p, Exec *e, Population *pop, Accel *accel, const Kinds *k, const int32_t *kind)
{
    for (int32_t i = 0; i < pop->n; i++) give(p, e, pop, accel, k, i, kind[i]);
    ok(mdr_exec_record(e, pop, true, NULL));
    ok(mdr_exec_replay(e));
}
/* n members, after a step of `first` of them in the same memory if those are more. */
static void run(const Plan *p, Accel *accel, const Kinds *k, int32_t first, int32_t n, const int32_t *kind, Ran *r)
{
    Exec *e = NULL;
    Population *pop = NULL;
    ok(mdr_exec_open_accel(p, accel, first, &e));
    ok(mdr_exec_population_new(p, accel, first, &pop));
    if (first > n) {
        step(p, e, pop, accel, k, kind);
        assert_true(mdr_exec_fits(e, n) && !mdr_exec_fits(e, first + 1));
        ok(mdr_exec_narrow(e, n));
        assert_int_equal(mdr_exec_launches(e), 0);
        Err *too_many = mdr_exec_record(e, pop, true, NULL);
        assert_non_null(too_many);
        mdr_err_free(too_many);
        pop->n = n;
    }
    step(p, e, pop, accel, k, kind);
    int64_t member;
    const double *loss = mdr_exec_accel_sum(e, 0, &member);
    r->stride = pop->stride;
    for (int32_t i = 0; i < n; i++) {
        r->after[i] = mdr_alloc((size_t)pop->stride * sizeof(float));
        ok(mdr_exec_population_get(pop, POP_PARAM, i, r->after[i]));
        ok(mdr_accel_download(accel, &r->loss[i], loss + i * member, sizeof(double)));
    }
    mdr_exec_population_free(pop);
    mdr_exec_close(e);
}

/* Of the reference the gradient of parameter j must be what the step took away: a sequence too many or too few would be off by far more than
 * what bf16 leaves of the least certain one (the positions of a filter). How exact each op is, cuda_agree asks. */
static void near_reference(const Graph *g, const Plan *p, const Kinds *k, int32_t kind, const float *after)
{
    const int64_t one = sequences[kind] * k->rows;
    double *token = mdr_alloc((size_t)(2 * one + k->n_weight) * sizeof *token), *target = token + one, *weight = target + one;
    const double inv = 1.0 / (BATCH * k->rows), *in[3] = {token, target, &inv};
    double *out[64] = {0};
    for (int64_t i = 0; i < one; i++) {
        token[i] = k->token[kind * BATCH * k->rows + i];
        target[i] = k->target[kind * BATCH * k->rows + i];
    }
    for (int64_t i = 0; i < k->n_weight; i++) weight[i] = (double)k->weight[kind * k->n_weight + i];
    assert_true(g->n_output <= 64);
    ok(mdr_exec_eval(g, &(EvalSpec){.device = &mdr_exec_ref64, .n_member = 1, .n_seq = sequences[kind], .input = in, .param = weight}, out));
    const double *before = weight;
    for (int32_t j = 0; j < k->n_param; j++) {
        const int64_t n = mdr_numel(mdr_exec_param(p, j)->shape);
        const float *now = after + mdr_exec_param_offset(p, j);
        double error = 0, all = 1e-60;
        for (int64_t i = 0; i < n; i++) {
            const double got = (*before++ - (double)now[i]) / RATE, want = out[1 + j][i];
            error += (got - want) * (got - want);
            all += want * want;
        }
        if (!(sqrt(error / all) <= 0.15)) fail_msg("the gradient of %s is off by %.3f", mdr_exec_param(p, j)->name, sqrt(error / all));
    }
    for (int32_t i = 0; i < g->n_output; i++) mdr_free(out[i]);
    mdr_free(token);
}

static void among(const Plan *p, Accel *accel, const Kinds *k, const Ran *alone, int32_t first, int32_t n)
{
    int32_t kind[MOST];
    Ran r;
    for (int32_t i = 0; i < first; i++) kind[i] = (i * 5 + 1) % KINDS;
    run(p, accel, k, first, n, kind, &r);
    for (int32_t i = 0; i < n; i++) {
        assert_memory_equal(r.after[i], alone->after[kind[i]], (size_t)r.stride * sizeof(float));
        if (sequences[kind[i]]) assert_memory_equal(&r.loss[i], &alone->loss[kind[i]], sizeof(double));
        mdr_free(r.after[i]);
    }
}

static void model(const char *text, int32_t dim, int32_t rows, int32_t many)
{
    ArchList list = {0};
    Accel *accel = NULL;
    Plan *p = NULL;
    ok(mdr_model_parse(text, 0, NULL, &list));
    ModelSpec m = {.arch = list.arch[0], .vocab = VOCAB, .rows = rows, .max_length = rows + 1};
    mdr_params_default(mdr_model_params, &m.params);
    m.params.dim = dim;
    m.params.backbone = BACKBONE_LM;
    Graph *g = lowered(&m, &mdr_exec_cuda_bf16), *ref = lowered(&m, &mdr_exec_ref64);
    Kinds k = draw(g, &m);
    int32_t fused = 0;
    for (int32_t i = 0; i < g->n_node; i++) fused += g->node[i].op->match != NULL;
    assert_true(fused > 5);
    ok(mdr_accel_open(0, &accel));
    ok(mdr_exec_plan(g, &(PlanSpec){.device = &mdr_exec_cuda_bf16, .batch = BATCH, .first_grad = 1, .update = "sgd"}, &p));
    Ran alone;
    for (int32_t kind = 0; kind < KINDS; kind++) {
        Ran one;
        run(p, accel, &k, 1, 1, &kind, &one);
        alone.after[kind] = one.after[0];
        alone.loss[kind] = one.loss[0];
        if (sequences[kind]) near_reference(ref, p, &k, kind, one.after[0]);
        else assert_memory_equal(one.after[0] + mdr_exec_param_offset(p, 0), k.weight + kind * k.n_weight,
                                 (size_t)mdr_numel(mdr_exec_param(p, 0)->shape) * sizeof(float));
    }
    among(p, accel, &k, &alone, KINDS, KINDS);
    among(p, accel, &k, &alone, KINDS + 3, KINDS);
    among(p, accel, &k, &alone, many, many);
    for (int32_t kind = 0; kind < KINDS; kind++) mdr_free(alone.after[kind]);
    mdr_free(k.weight);
    mdr_free(k.token);
    mdr_exec_plan_free(p);
    mdr_accel_close(accel);
    mdr_ir_graph_free(g);
    mdr_ir_graph_free(ref);
    mdr_model_archs_free(&list);
}

static void attention(void **state) { (void)state, model("mh-attention(n_heads=8) swiglu", 64, 19, MOST); }
static void hyena(void **state) { (void)state, model("hyena swiglu", 32, 7, MOST); }
static void mamba(void **state) { (void)state, model("mamba swiglu", 32, 7, MOST); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention), cmocka_unit_test(hyena), cmocka_unit_test(mamba)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
