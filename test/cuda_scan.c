/* scan and scan_grad on a device with its own memory (emulated): a body with state, rows, consts of each sequence and of none, a table
 * of its own (and what follows from it), and columns of a wider value, forwards and backwards in time, chunks of several lengths,
 * three members. Values and gradients equal the double reference's; a member alone has the bits it has among others; a batch that
 * is not full gives its own sums. selective_scan composed of basis ops, which is a scan, equals its own kernel's reference. */
#include "exec/exec.h"
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { L = 9, D = 5, N = 4, P = 3, S = 4, MOST = 16, SEED = 411 };
static const unsigned SEQ = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
typedef struct Variant { bool reverse; int32_t chunk; } Variant;
static const Variant variant[] = {{false, 0}, {true, 0}, {false, 1}, {true, 4}, {false, L}};

/* h' = tanh(h a + x + c);  y = (h' g + 1/4 h') + s, where s sums both parts of x */
static Graph *body(void)
{
    Builder *b = mdr_ir_builder();
    double half = 0.5;
    Value h = mdr_ir_input(b, "h", mdr_shape1(D), DT_REAL, SEQ), x = mdr_ir_input(b, "x", mdr_shape2(1, D), DT_REAL, SEQ);
    Value w = mdr_ir_input(b, "w", mdr_shape2(1, 2), DT_REAL, SEQ);
    Value a = mdr_ir_input(b, "a", mdr_shape1(D), DT_REAL, MDR_AXIS_MEMBER), c = mdr_ir_input(b, "c", mdr_shape1(D), DT_REAL, MDR_AXIS_MEMBER);
    Value g = mdr_ir_input(b, "g", mdr_shape1(D), DT_REAL, SEQ);
    Value v[3] = {mdr_op_mul(b, h, mdr_op_mul(b, a, a)), mdr_ir_reshape(b, x, mdr_shape1(D)), c};
    Value quarter = mdr_op_unary(b, UN_SQUARE, 0, mdr_ir_const(b, mdr_shape1(1), &half));
    Value next = mdr_op_unary(b, UN_TANH, 0, mdr_ir_add(b, 3, v));
    Value some = mdr_op_add(b, mdr_op_mul(b, next, g), mdr_op_mul(b, next, quarter));
    mdr_ir_output(b, next);
    mdr_ir_output(b, mdr_ir_reshape(b, mdr_op_add(b, some, mdr_ir_sum_cols(b, mdr_ir_reshape(b, w, mdr_shape1(2)))), mdr_shape2(1, D)));
    Graph *graph = NULL;
    Err *e = mdr_ir_finish(b, &graph);
    if (e) fail_msg("%s", mdr_err_text(e));
    return graph;
}

/* Outputs: the last state, all rows, then gradients of the inputs and parameters. */
static Graph *graph_of(Variant v)
{
    Builder *b = mdr_ir_builder();
    const int32_t part[2] = {D, 2};
    Value wide = mdr_ir_input(b, "wide", mdr_shape2(L, D + 2), DT_REAL, SEQ), h = mdr_ir_input(b, "h", mdr_shape1(D), DT_REAL, SEQ);
    Value g = mdr_ir_input(b, "g", mdr_shape1(D), DT_REAL, SEQ), x[5] = {wide, h, g}, dx[5], xs[2], out[2], dy[2];
    x[3] = mdr_ir_param(b, "a", mdr_shape1(D), (Init){0});
    x[4] = mdr_ir_param(b, "c", mdr_shape1(D), (Init){0});
    mdr_ir_split(b, mdr_op_unary(b, UN_SIN, 0, wide), 2, part, xs);
    Value in[6] = {h, xs[0], xs[1], x[3], x[4], g};
    mdr_ir_scan(b, body(), (ScanAttr){.n_carry = 1, .n_xs = 2, .n_const = 3, .n_ys = 1, .length = L, .chunk = v.chunk, .reverse = v.reverse}, in, out);
    for (int i = 0; i < 2; i++) {
        mdr_ir_output(b, out[i]);
        dy[i] = mdr_ir_input(b, "seed", mdr_ir_type(b, out[i]).shape, DT_REAL, SEQ);
    }
    mdr_ir_grad(b, 2, out, dy, 5, x, dx);
    for (int i = 0; i < 5; i++) mdr_ir_output(b, dx[i]);
    Graph *graph = NULL;
    Err *e = mdr_ir_finish(b, &graph);
    if (e) fail_msg("%s", mdr_err_text(e));
    return graph;
}

/* The same graph from basis ops only, if `composed`: y, then gradients of all inputs. */
static Graph *selective(bool composed)
{
    Builder *b = mdr_ir_builder(), *c = mdr_ir_builder();
    const Shape shape[6] = {mdr_shape2(L, D), mdr_shape2(L, D), mdr_shape2(D, N), mdr_shape2(L, N), mdr_shape2(L, N), mdr_shape1(D)};
    Value x[6], dx[6];
    for (int i = 0; i < 6; i++) x[i] = mdr_ir_input(b, "x", shape[i], DT_REAL, SEQ);
    mdr_ir_output(b, mdr_op_selective_scan(b, x[0], x[1], x[2], x[3], x[4], x[5]));
    Graph *plain = NULL, *graph = NULL;
    Err *e = mdr_ir_finish(b, &plain);
    if (e) fail_msg("%s", mdr_err_text(e));
    CopyMap map = {mdr_alloc((size_t)plain->n_node * sizeof *map.out)};
    mdr_ir_copy(c, plain, composed ? mdr_exec_has_composed : mdr_exec_has, (void *)(uintptr_t)&mdr_exec_ref64, &map);
    Value y = mdr_ir_copied(&map, plain->output[0]), dy = mdr_ir_input(c, "seed", mdr_shape2(L, D), DT_REAL, SEQ);
    for (int i = 0; i < 6; i++) x[i] = mdr_ir_copied(&map, x[i]);
    mdr_ir_output(c, y);
    mdr_ir_grad(c, 1, &y, &dy, 6, x, dx);
    for (int i = 0; i < 6; i++) mdr_ir_output(c, dx[i]);
    e = mdr_ir_finish(c, &graph);
    if (e) fail_msg("%s", mdr_err_text(e));
    mdr_free(map.out);
    mdr_ir_graph_free(plain);
    return graph;
}

typedef struct Data { double *input[MOST], *param; int32_t n; int64_t one[MOST]; } Data;      /* [P][S][one]                 */
static Data draw(const Graph *g)
{
    int32_t node[MOST];
    Data d = {.n = mdr_ir_inputs(g, node, MOST), .param = mdr_alloc(P * 2 * D * sizeof(double))};
    Rng r = mdr_rng(SEED, 1);
    for (int32_t i = 0; i < d.n; i++) {
        d.one[i] = mdr_numel(g->node[node[i]].out[0].shape);
        d.input[i] = mdr_alloc((size_t)(P * S * d.one[i]) * sizeof(double));
        for (int64_t k = 0; k < P * S * d.one[i]; k++) d.input[i][k] = 2 * mdr_rng_unit(&r) - 1;
    }
    for (int k = 0; k < P * 2 * D; k++) d.param[k] = 2 * mdr_rng_unit(&r) - 1;
    return d;
}
static void run(const Graph *g, const Data *d, const DeviceDef *device, Accel *accel, int first, int members, int n_seq, double **out)
{
    double *in[MOST];
    for (int32_t i = 0; i < d->n; i++) {
        in[i] = mdr_alloc((size_t)(members * n_seq * d->one[i]) * sizeof(double));
        for (int m = 0; m < members; m++)
            memcpy(in[i] + m * n_seq * d->one[i], d->input[i] + (first + m) * S * d->one[i], (size_t)(n_seq * d->one[i]) * sizeof(double));
    }
    EvalSpec s = {.device = device, .n_member = members, .n_seq = n_seq, .input = (const double *const *)in, .param = d->param + first * 2 * D, .accel = accel};
    Err *e = mdr_exec_eval(g, &s, out);
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
    for (int32_t i = 0; i < d->n; i++) mdr_free(in[i]);
}
static int64_t elements(const Graph *g, int i, int n_seq)
{
    const Type *t = &g->node[g->output[i].node].out[g->output[i].out];
    return mdr_numel(t->shape) * ((t->axes & MDR_AXIS_SEQ) ? n_seq : 1);
}

/* The device's graph against the reference's; they may be one. */
static void compare(const Graph *ref, const Graph *g, const DeviceDef *device, Accel *accel, double tol, const char *name)
{
    Data d = draw(ref);
    double *want[MOST], *got[MOST], *one[MOST];
    run(ref, &d, &mdr_exec_ref64, NULL, 0, P, S, want);
    run(g, &d, device, accel, 0, P, S, got);
    run(g, &d, device, accel, 1, 1, S, one);
    for (int i = 0; i < g->n_output; i++) {
        int64_t n = elements(g, i, S);
        double big = 0, worst = 0;
        assert_non_null(got[i]);
        for (int64_t k = 0; k < P * n; k++) {
            double diff = fabs(got[i][k] - want[i][k]);
            if (!(diff <= worst)) worst = diff == diff ? diff : INFINITY;
            if (fabs(want[i][k]) > big) big = fabs(want[i][k]);
        }
        if (!(worst <= tol * big)) fail_msg("%s, output %d: differs by %g of %g", name, i, worst, big);
        assert_memory_equal(one[i], got[i] + n, (size_t)n * sizeof(double));
    }
    for (int i = 0; i < g->n_output; i++) { mdr_free(want[i]); mdr_free(got[i]); mdr_free(one[i]); }
    for (int32_t i = 0; i < d.n; i++) mdr_free(d.input[i]);
    mdr_free(d.param);
}
static void check(const DeviceDef *device, double tol)
{
    Accel *accel = NULL;
    char name[32];
    Err *e = mdr_accel_open(0, &accel);
    if (e) fail_msg("%s", mdr_err_text(e));
    for (int v = 0; v < MDR_COUNT(variant); v++) {
        Graph *g = graph_of(variant[v]);
        snprintf(name, sizeof name, "variant %d", v);
        compare(g, g, device, accel, tol, name);
        mdr_ir_graph_free(g);
    }
    Graph *plain = selective(false), *composed = selective(true);
    compare(plain, composed, device, accel, tol, "selective_scan");
    mdr_ir_graph_free(plain);
    mdr_ir_graph_free(composed);
    mdr_accel_close(accel);
}
static void float32(void **state) { (void)state, check(&mdr_exec_cuda, FLT_EPSILON * 64); }
static void bf16(void **state) { (void)state, check(&mdr_exec_cuda_bf16, 0.02); }

/* Fewer sequences than the plan has room for: the gradients of the parameters are those of these alone. The first
 * member rests. */
static void part_of_a_batch(void **state)
{
    (void)state;
    Accel *accel = NULL;
    Plan *p = NULL;
    Population *pop = NULL;
    Exec *exec = NULL;
    Graph *g = graph_of(variant[0]);
    Data d = draw(g);
    float *in[MOST], *vector;
    StepInput input[MOST];
    double *want[MOST];
    enum { FEW = 2 };
    Err *e = mdr_accel_open(0, &accel);
    if (!e) e = mdr_exec_plan(g, &(PlanSpec){.device = &mdr_exec_cuda, .batch = S, .first_grad = -1}, &p);
    if (!e) e = mdr_exec_population_new(p, accel, P, &pop);
    if (!e) e = mdr_exec_open_accel(p, accel, P, &exec);
    if (e) fail_msg("%s", mdr_err_text(e));
    vector = mdr_alloc((size_t)pop->stride * sizeof *vector);
    for (int m = 0; m < P && !e; m++) {
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < D; k++) vector[mdr_exec_param_offset(p, i) + k] = (float)d.param[(m * 2 + i) * D + k];
        e = mdr_exec_population_put(pop, POP_PARAM, m, vector);
    }
    for (int32_t i = 0; i < d.n; i++) {
        in[i] = mdr_alloc((size_t)(P * S * d.one[i]) * sizeof(float));
        for (int64_t k = 0; k < P * S * d.one[i]; k++) in[i][k] = (float)d.input[i][k];
        input[i] = (StepInput){in[i], S * d.one[i]};
    }
    pop->alive[0] = false;
    mdr_exec_poison(exec, true);
    if (!e) e = mdr_exec_step(exec, pop, input, FEW, false);
    if (e) fail_msg("%s", mdr_err_text(e));
    run(g, &d, &mdr_exec_ref64, NULL, 0, P, FEW, want);
    for (int m = 1; m < P; m++)
        for (int i = 5; i < 7; i++) {
            const float *got = mdr_exec_output(exec, m, i);
            assert_non_null(got);
            for (int k = 0; k < D; k++)
                if (!(fabs((double)got[k] - want[i][m * D + k]) <= 1e-5 * (1 + fabs(want[i][m * D + k]))))
                    fail_msg("member %d, gradient %d of parameter %d: %g, not %g", m, k, i - 5, (double)got[k], want[i][m * D + k]);
        }
    for (int32_t i = 0; i < d.n; i++) { mdr_free(in[i]); mdr_free(d.input[i]); }
    for (int i = 0; i < g->n_output; i++) mdr_free(want[i]);
    mdr_free(vector);
    mdr_free(d.param);
    mdr_exec_close(exec);
    mdr_exec_population_free(pop);
    mdr_exec_plan_free(p);
    mdr_ir_graph_free(g);
    mdr_accel_close(accel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(float32), cmocka_unit_test(bf16), cmocka_unit_test(part_of_a_batch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
