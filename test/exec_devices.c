/* What must hold for any device. A fake one runs whole batches and populations by strides, as a GPU will (its kernels are the
 * references, its memory is poisoned): a member alone equals the member among three, bit for bit; a second step's calls equal
 * the first's byte for byte, only the data they point at having changed; it agrees with the CPU device. And on the CPU: slices
 * cut elsewhere agree within tolerance, poisoned memory changes no bit. */
#include "graph_harness.h"
#include "model/model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { B = 5, L = 9, V = 7, P = 3, MAX_CALL = 4096 };
static const char *const arch_text[] = {"mh-attention(n_heads=2) swiglu(dim_inner=12)", "hyena mlp", "mamba mamba", "mamba+attention mlp"};

typedef struct Seen { const Node *node; Extent e; uint32_t add; Arg in[MDR_MAX_IN], out[MDR_MAX_OUT]; } Seen;
static Seen seen[MAX_CALL];
static int n_seen;

static void record(const Call *c, int64_t u0, int64_t u1)
{
    if (n_seen < MAX_CALL) {
        Seen *s = &seen[n_seen++];
        memset(s, 0, sizeof *s);
        s->node = c->node;
        s->e = c->extent;
        s->add = c->add;
        memcpy(s->in, c->in, (size_t)c->node->n_in * sizeof(Arg));
        memcpy(s->out, c->out, (size_t)c->node->n_out * sizeof(Arg));
    }
    mdr_op_kernel(c->node, DEV_REF32)->run(c, u0, u1);
}
static const Kernel recorder = {.run = record};
static const Kernel *fake_kernel(const Node *n) { return mdr_op_kernel(n, DEV_REF32) ? &recorder : NULL; }
static const DeviceDef fake = {.name = "fake", .whole = true, .kernel = fake_kernel};

static void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}

typedef struct Net { ArchList arch; Graph *forward, *joint; } Net;
static void net_open(Net *n, const char *text, const DeviceDef *d, bool composed)
{
    ok(mdr_model_parse(text, 0, NULL, &n->arch));
    ModelSpec s = {n->arch.arch[0], {.dim = 8, .backbone = BACKBONE_LM}, V, L, L + 1};
    ok(mdr_model_graph(&s, &n->forward));
    ok(mdr_model_lower(n->forward, composed ? mdr_exec_has_composed : mdr_exec_has, composed ? NULL : mdr_exec_fuse, (void *)(uintptr_t)d, true, &n->joint));
}
static void net_close(Net *n)
{
    mdr_ir_graph_free(n->joint);
    mdr_ir_graph_free(n->forward);
    mdr_model_archs_free(&n->arch);
}

/* Parameters of a member and its data are functions of its number. */
static void fill(const Plan *p, Population *pop, int32_t at, int32_t member, int32_t *tokens, int32_t *targets, float *inv)
{
    for (int32_t i = 0; i < mdr_exec_info(p).n_param; i++) {
        const ParamAttr *a = mdr_exec_param(p, i);
        double x[4096];
        assert_true(mdr_numel(a->shape) <= 4096);
        mdr_model_init(a, a->shape, INIT_MAD_LAB, BACKBONE_LM, (uint64_t)member + 1, x);
        float *to = (float *)pop->param + at * pop->stride + mdr_exec_param_offset(p, i);
        for (int64_t k = 0; k < mdr_numel(a->shape); k++) to[k] = (float)x[k];
    }
    pop->hyper[at] = (Hyper){1e-1 * (member + 1), 0.1, 0.9, 0.999, 1e-8, 0, 1};
    Rng r = mdr_rng(99, (uint64_t)member);
    for (int k = 0; k < B * L; k++) {
        tokens[at * B * L + k] = (int32_t)mdr_rng_below(&r, V);
        targets[at * B * L + k] = k % 3 ? (int32_t)mdr_rng_below(&r, V) : -100;
    }
    inv[at] = 1.0f / (B * L);
}

typedef struct Run { float *param; double loss[P], moved; int64_t stride; } Run;
/* Two steps of members [first, first + n) on a device; checks that the second step's calls are the first's. moved: the largest
 * change of a parameter. sgd, where parameters are to be compared within a tolerance: they move as their gradients are. */
static Run run(const Net *net, const DeviceDef *d, int32_t first, int32_t n, int32_t slice_rows, bool poison, int workers, const char *update)
{
    PlanSpec ps = {.device = d, .batch = B, .first_grad = 1, .update = update, .slice_rows = slice_rows};
    Plan *p = NULL;
    Pool *pool = NULL;
    Exec *e = NULL;
    Population *pop = NULL;
    int32_t tokens[P * B * L], targets[P * B * L];
    float inv[P];
    ok(mdr_exec_plan(net->joint, &ps, &p));
    ok(mdr_pool_open(workers, &pool));
    ok(mdr_exec_open(p, pool, n, &e));
    ok(mdr_exec_population_new(p, NULL, n, &pop));
    mdr_exec_poison(e, poison);
    for (int32_t m = 0; m < n; m++) fill(p, pop, m, first + m, tokens, targets, inv);
    StepInput in[3] = {{tokens, B * L}, {targets, B * L}, {inv, 1}};
    Run r = {.stride = pop->stride};
    float *start = mdr_alloc((size_t)(n * pop->stride) * 4);
    memcpy(start, pop->param, (size_t)(n * pop->stride) * 4);
    for (int step = 1; step <= 2; step++) {
        static Seen before[MAX_CALL];
        int n_before = n_seen;
        memcpy(before, seen, sizeof seen);
        n_seen = 0;
        for (int32_t m = 0; m < n; m++) pop->hyper[m].step = step;
        ok(mdr_exec_step(e, pop, in, B, true));
        if (d != &fake || step == 1) continue;
        assert_true(n_seen > 0 && n_seen < MAX_CALL);
        /* the first step of this run also ran CONST nodes at opening, before counting began */
        assert_int_equal(n_seen, n_before);
        assert_memory_equal(seen, before, (size_t)n_seen * sizeof *seen);
    }
    r.param = mdr_alloc((size_t)(n * pop->stride) * 4);
    memcpy(r.param, pop->param, (size_t)(n * pop->stride) * 4);
    for (int64_t i = 0; i < n * pop->stride; i++) {
        double move = fabs((double)r.param[i] - (double)start[i]);
        if (!(move <= r.moved)) r.moved = move;
    }
    mdr_free(start);
    for (int32_t m = 0; m < n; m++) r.loss[m] = *(const double *)mdr_exec_output(e, m, 0);
    mdr_exec_population_free(pop);
    mdr_exec_close(e);
    mdr_pool_close(pool);
    mdr_exec_plan_free(p);
    n_seen = 0;
    return r;
}

/* An evaluation's population. */
static void parameters_alone_without_an_update(void **state)
{
    (void)state;
    Net net;
    net_open(&net, arch_text[0], &mdr_exec_ref32, false);
    const PlanSpec ps = {.device = &mdr_exec_ref32, .batch = B, .first_grad = 1};
    Plan *p = NULL;
    Population *pop = NULL;
    ok(mdr_exec_plan(net.joint, &ps, &p));
    ok(mdr_exec_population_new(p, NULL, 2, &pop));
    assert_true(pop->param && !pop->m && !pop->v);
    float *x = mdr_alloc((size_t)pop->stride * sizeof *x), *y = mdr_alloc((size_t)pop->stride * sizeof *y);
    for (int64_t i = 0; i < pop->stride; i++) x[i] = (float)i;
    ok(mdr_exec_population_put(pop, POP_PARAM, 0, x));
    ok(mdr_exec_population_move(pop, 0, 1));
    ok(mdr_exec_population_get(pop, POP_PARAM, 1, y));
    assert_memory_equal(x, y, (size_t)pop->stride * sizeof *x);
    Err *e[] = {mdr_exec_population_put(pop, POP_M, 0, x), mdr_exec_population_get(pop, POP_V, 0, y)};
    for (int i = 0; i < MDR_COUNT(e); i++) {
        assert_non_null(e[i]);
        assert_int_equal(mdr_err_code(e[i]), MDR_MACHINE);
        mdr_err_free(e[i]);
    }
    mdr_free(x);
    mdr_free(y);
    mdr_exec_population_free(pop);
    mdr_exec_plan_free(p);
    net_close(&net);
}

static void member_alone_on_the_fake_device(void **state)
{
    (void)state;
    for (int a = 0; a < MDR_COUNT(arch_text); a++)
        for (int composed = 0; composed < 2; composed++) {
            Net net;
            net_open(&net, arch_text[a], &fake, composed);
            Run all = run(&net, &fake, 0, P, 0, true, 1, "adamw");
            for (int32_t m = 0; m < P; m++) {
                Run one = run(&net, &fake, m, 1, 0, true, 1, "adamw");
                if (memcmp(one.param, all.param + m * all.stride, (size_t)all.stride * 4) != 0 || one.loss[0] != all.loss[m])
                    fail_msg("%s, composed %d: member %d alone differs from member %d of %d", arch_text[a], composed, m, m, P);
                assert_true(isfinite(one.loss[0]));
                mdr_free(one.param);
            }
            mdr_free(all.param);
            net_close(&net);
        }
}

/* Parameters after two steps of sgd: equal within the rounding of sums, measured by the largest move. */
static void close_to(const Run *a, const Run *b, int32_t n)
{
    double tol = tol_sum(FLT_EPSILON, 4096) * b->moved;
    assert_true(b->moved > 1e-4);
    for (int64_t i = 0; i < n * a->stride; i++) {
        double d = fabs((double)a->param[i] - (double)b->param[i]), slack = 4 * FLT_EPSILON * fabs((double)b->param[i]);
        if (!(d <= tol + slack)) fail_msg("parameter %lld differs by %g, the largest move is %g", (long long)i, d, b->moved);
    }
}

static void cpu_agrees_with_the_fake_device(void **state)
{
    (void)state;
    for (int a = 0; a < MDR_COUNT(arch_text); a++) {
        Net x, y;
        net_open(&x, arch_text[a], &fake, false);
        net_open(&y, arch_text[a], &mdr_exec_cpu, false);
        Run f = run(&x, &fake, 0, P, 0, true, 1, "sgd"), c = run(&y, &mdr_exec_cpu, 0, P, 0, true, 2, "sgd");
        close_to(&c, &f, P);
        for (int m = 0; m < P; m++) assert_true(fabs(f.loss[m] - c.loss[m]) <= tol_sum(FLT_EPSILON, B * L * V) * fabs(f.loss[m]));
        mdr_free(f.param);
        mdr_free(c.param);
        net_close(&x);
        net_close(&y);
    }
}

static void slices_and_poison(void **state)
{
    (void)state;
    for (int a = 0; a < MDR_COUNT(arch_text); a++) {
        Net net;
        net_open(&net, arch_text[a], &mdr_exec_cpu, false);
        Run one = run(&net, &mdr_exec_cpu, 0, 1, 0, false, 1, "sgd"), bad = run(&net, &mdr_exec_cpu, 0, 1, 0, true, 3, "sgd");
        assert_memory_equal(one.param, bad.param, (size_t)one.stride * 4);
        for (int rows = L; rows <= 4 * L; rows *= 2) {
            Run cut = run(&net, &mdr_exec_cpu, 0, 1, rows, true, 2, "sgd");
            assert_true(fabs(one.loss[0] - cut.loss[0]) <= tol_sum(FLT_EPSILON, B * L * V) * fabs(one.loss[0]));
            close_to(&cut, &one, 1);
            mdr_free(cut.param);
        }
        mdr_free(one.param);
        mdr_free(bad.param);
        net_close(&net);
    }
}

/* What couples the sequences of a step is refused with a sentence naming the node. */
static void batch_coupling_is_refused(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    mdr_ir_where(b, "layer 2 batchnorm");
    Value x = mdr_ir_input(b, "x", mdr_shape2(4, 3), DT_REAL, MDR_AXIS_SEQ), m = mdr_ir_sum_rows(b, x);
    Value mean = mdr_ir_sum_batch(b, 1, &m), y = mdr_op_binary(b, BIN_SUB, x, mean);
    Graph *g = NULL;
    assert_false(mdr_ir_has(y));
    Err *e = mdr_ir_finish(b, &g);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "layer 2 batchnorm: binary: reads a sum over the batch"));
    mdr_err_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(member_alone_on_the_fake_device), cmocka_unit_test(cpu_agrees_with_the_fake_device),
                                       cmocka_unit_test(slices_and_poison), cmocka_unit_test(batch_coupling_is_refused),
                                       cmocka_unit_test(parameters_alone_without_an_update)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
