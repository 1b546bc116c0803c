/* Autodiff's own rules, apart from the ops': what meets is added whatever its number, a weight gets one sum over the batch, what
 * nothing depends on gets nothing, and what cannot be differentiated is refused. Slopes are compared with central differences. */
#include "graph_harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { SEED = 7, BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER, N_SEQ = 3 };
static const Init zero = {INIT_CONST, 0, 0, NULL};

static Value seq(Builder *b, Shape s) { return mdr_ir_input(b, "x", s, DT_REAL, BOTH); }
static Value weight(Builder *b, Shape s) { return mdr_ir_param(b, "w", s, zero); }
static Value scale(Builder *b, double a, Value x) { return mdr_op_unary(b, UN_SCALE, a, x); }
static Value constant(Builder *b, Shape s, double a)
{
    return mdr_ir_reshape(b, mdr_ir_expand(b, mdr_ir_const(b, mdr_shape1(1), &a), (int32_t)mdr_numel(s), false), s);
}
/* Any number of terms, the first giving the shape. */
static Value sum(Builder *b, int n, const Value *term)
{
    Value acc = term[0];
    for (int i = 1; i < n; i++) acc = mdr_op_add(b, acc, term[i]);
    return acc;
}
static void ok(Err *e, const char *name)
{
    if (e) fail_msg("%s: %s (%s)", name, mdr_err_text(e), mdr_err_born(e));
}
static int count(const Graph *g, const OpDef *op, int32_t *last)
{
    int n = 0;
    for (int32_t i = 0; i < g->n_node; i++)
        if (g->node[i].op == op) { *last = i; n++; }
    return n;
}

/* ---- against differences ---- */
typedef Value Make(Builder *b);
static int slopes(const char *name, Make *make)
{
    Builder *b = mdr_ir_builder();
    Rng r = mdr_rng(SEED, mdr_hash64(name));
    Probe p;
    char buf[256];
    mdr_ir_where(b, "%s", name);
    Value y = make(b);
    Err *e = probe_make(b, 1, &y, N_SEQ, 0.5, 1.5, 0, &r, &p);
    int bad = e != NULL;
    if (e) print_error("%s: %s\n", name, mdr_err_text(e));
    mdr_err_free(e);
    if (!bad && mdr_ir_verify(p.g)) fail_msg("%s: the graph with its gradient does not verify", name);
    for (int i = 0; !bad && i < p.n_x; i++) {
        const char *c = probe_direction(&p, i, &r, 1e-4, 1e-7, buf);
        if (!c) continue;
        print_error("%s: %s\n", name, c);
        bad = 1;
    }
    probe_free(&p);
    return bad;
}

static Value fan_out(Builder *b)                               /* x three ways, and through a value used twice             */
{
    Value x = seq(b, mdr_shape2(3, 4)), s = mdr_op_unary(b, UN_SIN, 0, x), q = mdr_op_mul(b, s, s);
    return mdr_ir_add(b, 4, (Value[]){mdr_op_mul(b, x, q), s, x, x});
}
static Value uses(Builder *b, int n, bool direct, bool step)   /* n uses of a weight and of an input                       */
{
    Value x = seq(b, mdr_shape2(3, 4)), w = weight(b, mdr_shape1(4)), term[200];
    int k = 0;
    for (int i = 0; i < n; i++) {
        double a = 1 + 0.1 * i;
        if (direct) term[k++] = scale(b, a, mdr_op_mul(b, x, w));
        if (step) term[k++] = mdr_op_mul(b, mdr_op_unary(b, UN_TANH, 0, scale(b, a / n, x)), mdr_op_unary(b, UN_SIN, 0, scale(b, a / n, w)));
    }
    return sum(b, k, term);
}
#define USES(name, n, direct, step) static Value name(Builder *b) { return uses(b, n, direct, step); }
USES(uses_2, 2, true, false)
USES(uses_31, 31, true, false)
USES(uses_32, 32, true, false)
USES(uses_33, 33, true, false)
USES(uses_63, 63, true, false)
USES(uses_64, 64, true, false)
USES(uses_65, 65, true, false)
USES(uses_80, 80, true, false)
USES(step_80, 80, false, true)
USES(mixed_80, 80, true, true)
static Value same_operand(Builder *b)                          /* one value as every input of a node                       */
{
    Value x = seq(b, mdr_shape2(3, 4)), w = weight(b, mdr_shape1(4)), in[MDR_MAX_IN];
    for (int i = 0; i < MDR_MAX_IN; i++) in[i] = i == 0 || i % 2 ? x : w;
    return mdr_op_mul(b, mdr_ir_add(b, MDR_MAX_IN, in), x);
}
static Value step_only(Builder *b)                             /* a weight of a weight, 40 times, then one SEQ op          */
{
    Value w = weight(b, mdr_shape1(4)), v = weight(b, mdr_shape1(4)), term[40];
    for (int i = 0; i < 40; i++) term[i] = mdr_op_mul(b, w, scale(b, 0.1 * i, v));
    return mdr_op_mul(b, seq(b, mdr_shape2(3, 4)), sum(b, 40, term));
}
static Value weight_twice(Builder *b)
{
    Value x = seq(b, mdr_shape2(3, 4)), w = weight(b, mdr_shape2(4, 4));
    return mdr_op_matmul(b, mdr_op_matmul(b, x, w, MDR_ABSENT), w, MDR_ABSENT);
}
static Value broadcasts(Builder *b)
{
    Value x = seq(b, mdr_shape3(2, 3, 4)), one = weight(b, mdr_shape1(1)), row = weight(b, mdr_shape1(4)), block = weight(b, mdr_shape2(3, 4)),
          own = seq(b, mdr_shape1(4));
    Value y = mdr_ir_add(b, 5, (Value[]){x, one, row, block, own});
    return mdr_op_mul(b, mdr_op_mul(b, y, y), y);
}
static Value structure(Builder *b)                             /* every structural op, one part of the split unused        */
{
    const int32_t size[3] = {1, 2, 3};
    Value x = seq(b, mdr_shape2(4, 6)), w = weight(b, mdr_shape2(4, 6)), part[3], y = mdr_op_mul(b, x, w);
    mdr_ir_split(b, y, 3, size, part);
    Value j = mdr_ir_join(b, 2, (Value[]){part[2], part[0]});                          /* [4, 4]                          */
    Value cut = mdr_ir_pad_rows(b, mdr_ir_rows(b, mdr_op_mul(b, j, j), 1, 2), 1, 4);    /* rows 1 and 2 where they were    */
    Value cube = mdr_ir_reshape(b, mdr_ir_expand(b, mdr_op_add(b, cut, j), 2, false), mdr_shape3(2, 2, 8));
    Value wide = mdr_ir_expand(b, cube, 3, true);                                      /* [2, 2, 8, 3]                    */
    Value cols = mdr_ir_sum_cols(b, mdr_op_mul(b, wide, mdr_ir_sum_rows(b, wide)));    /* [2, 2, 8]                       */
    return mdr_op_mul(b, mdr_ir_sum_rows(b, cols), mdr_ir_sum_cols(b, mdr_ir_sum_rows(b, cols)));
}
static Value join_many(Builder *b)                             /* more columns to part again than a split has outputs      */
{
    Value x = seq(b, mdr_shape2(2, 3)), in[30];
    for (int i = 0; i < 30; i++) in[i] = scale(b, 1 + i, x);
    Value j = mdr_ir_join(b, 30, in);
    return mdr_op_mul(b, j, j);
}
static Value loop(Builder *b)                                  /* a weight used 40 times in a body, and outside of it      */
{
    Builder *s = mdr_ir_builder();
    Value c = seq(s, mdr_shape2(1, 3)), x = seq(s, mdr_shape2(1, 3)), w = mdr_ir_input(s, "w", mdr_shape1(3), DT_REAL, MDR_AXIS_MEMBER), term[40];
    for (int i = 0; i < 40; i++) term[i] = mdr_op_unary(s, UN_TANH, 0, scale(s, 0.02 * (i + 1), mdr_op_mul(s, c, w)));
    Value next = scale(s, 0.1, mdr_op_add(s, sum(s, 40, term), x));
    mdr_ir_output(s, next);
    mdr_ir_output(s, mdr_op_mul(s, next, x));
    Graph *g = NULL;
    ok(mdr_ir_finish(s, &g), "loop");
    Value in[3] = {seq(b, mdr_shape2(1, 3)), seq(b, mdr_shape2(7, 3)), weight(b, mdr_shape1(3))}, out[2];
    mdr_ir_scan(b, g, (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 1, .n_ys = 1, .length = 7, .reverse = true}, in, out);
    return mdr_op_mul(b, mdr_op_add(b, out[1], mdr_ir_reshape(b, out[0], mdr_shape1(3))), in[2]);
}

static void differences(void **state)
{
    (void)state;
    static const struct { const char *name; Make *make; } cases[] = {
        {"fan-out", fan_out}, {"2 uses", uses_2}, {"31 uses", uses_31}, {"32 uses", uses_32}, {"33 uses", uses_33}, {"63 uses", uses_63},
        {"64 uses", uses_64}, {"65 uses", uses_65}, {"80 uses", uses_80}, {"80 uses through a value of the step", step_80},
        {"80 of each", mixed_80}, {"same operand", same_operand}, {"step only", step_only}, {"weight twice", weight_twice},
        {"broadcasts", broadcasts}, {"structure", structure}, {"join of 30", join_many}, {"loop", loop}};
    int bad = 0;
    for (int i = 0; i < MDR_COUNT(cases); i++) bad += slopes(cases[i].name, cases[i].make);
    assert_int_equal(bad, 0);
}

/* ---- 80 uses once more, to the last digit: d/dw of sum_i a_i x w is (sum_i a_i) x ---- */
static void eighty_exactly(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b, mdr_shape2(1, 2)), w = weight(b, mdr_shape1(2)), term[80], d[2];
    for (int i = 0; i < 80; i++) term[i] = scale(b, i, mdr_op_mul(b, x, w));
    Value y = sum(b, 80, term), seed = mdr_ir_input(b, "seed", mdr_shape2(1, 2), DT_REAL, BOTH);
    mdr_ir_grad(b, 1, &y, &seed, 2, (Value[]){w, x}, d);
    for (int i = 0; i < 2; i++) mdr_ir_output(b, d[i]);
    Graph *g;
    ok(mdr_ir_finish(b, &g), "80");
    const double xs[6] = {1, 2, 3, 4, 5, 6}, one[6] = {1, 1, 1, 1, 1, 1}, param[2] = {2, 5}, *in[2] = {xs, one}, total = 79 * 80 / 2;
    double *out[2];
    ok(mdr_exec_eval(g, &(EvalSpec){&mdr_exec_ref64, 1, N_SEQ, in, param, NULL}, out), "80");
    assert_true(out[0][0] == total * (1 + 3 + 5) && out[0][1] == total * (2 + 4 + 6));
    for (int i = 0; i < 6; i++) assert_true(out[1][i] == total * param[i % 2]);
    mdr_free(out[0]);
    mdr_free(out[1]);
    mdr_ir_graph_free(g);
}

/* ---- one sum over the batch ---- */
static void one_sum_batch(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value y = weight_twice(b), w = {1, 0}, seed = seq(b, mdr_shape2(3, 4)), d[2];
    assert_ptr_equal(mdr_ir_node_at(b, 1)->op, &mdr_ir_op_param);
    mdr_ir_grad(b, 1, &y, &seed, 2, (Value[]){w, w}, d);       /* asked twice, answered with one value                     */
    assert_true(d[0].node == d[1].node && d[0].out == d[1].out);
    mdr_ir_output(b, d[0]);
    Graph *g;
    ok(mdr_ir_finish(b, &g), "twice");
    int32_t at = -1;
    assert_int_equal(count(g, &mdr_ir_op_sum_batch, &at), 1);
    assert_int_equal(g->node[at].n_in, 2);
    assert_int_equal(g->output[0].node, at);
    assert_int_equal(g->node[at].out[0].phase, PH_POST);
    assert_int_equal(g->node[at].out[0].axes, MDR_AXIS_MEMBER);
    mdr_ir_graph_free(g);
}

/* ---- what has no gradient ---- */
static void absent_gradients(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    const Shape s = mdr_shape2(3, 4);
    Value used = seq(b, s), unused = seq(b, s), beside = weight(b, mdr_shape1(4)), w = weight(b, mdr_shape1(4)), dead = mdr_op_mul(b, unused, beside),
          mid = mdr_op_mul(b, used, w), y = mdr_op_mul(b, mid, mid), seed = seq(b, s);
    mdr_op_add(b, dead, mid);                                  /* read by a value that is not differentiated               */
    Value x[7] = {used, unused, beside, w, mid, y, MDR_ABSENT}, d[7];
    mdr_ir_grad(b, 3, (Value[]){y, dead, MDR_ABSENT}, (Value[]){seed, MDR_ABSENT, seed}, 7, x, d);
    assert_false(mdr_ir_failed(b));
    const bool want[7] = {true, false, false, true, true, true, false};
    for (int i = 0; i < 7; i++)
        if (mdr_ir_has(d[i]) != want[i]) fail_msg("x[%d]: %s", i, want[i] ? "no gradient" : "has a gradient");
    assert_int_equal(d[5].node, seed.node);
    for (int i = 0; i < 6; i++)
        if (want[i]) assert_true(mdr_shape_equal(mdr_ir_type(b, d[i]).shape, mdr_ir_type(b, x[i]).shape));
    const int32_t n = mdr_ir_n_node(b);
    mdr_ir_grad(b, 1, &y, &(Value){-1, 0}, 4, x, d);           /* no seed: nothing, and nothing is added                   */
    for (int i = 0; i < 4; i++) assert_false(mdr_ir_has(d[i]));
    assert_int_equal(mdr_ir_n_node(b), n);
    mdr_ir_builder_free(b);
}

/* ---- refusals ---- */
static Err *shape_same(Node *n)
{
    n->out[0].shape = n->in_type[0].shape;
    return NULL;
}
static const OpDef opaque = {.name = "opaque", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same};
static void vjp_wrong(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)n; (void)in; (void)out;
    din[0] = mdr_ir_sum_rows(b, dout[0]);
}
static const OpDef crooked = {.name = "crooked", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same, .vjp = vjp_wrong};

typedef void Ask(Builder *b);
static void grad(Builder *b, Value y, Value dy, Value x)
{
    Value d = {5, 5};
    mdr_ir_grad(b, 1, &y, &dy, 1, &x, &d);
    if (mdr_ir_failed(b)) assert_false(mdr_ir_has(d));
    else mdr_ir_output(b, d);
}
static const Shape S = {2, {3, 4}};
static void ask_opaque(Builder *b)
{
    Value x = seq(b, S), y = mdr_ir_node(b, &opaque, NULL, 1, &x);
    mdr_ir_where(b, "loss");
    grad(b, scale(b, 2, y), seq(b, S), x);
}
static void ask_opaque_beside(Builder *b)                      /* it lies on no way to x: fine                              */
{
    Value x = seq(b, S), z = seq(b, S), y = mdr_op_mul(b, x, mdr_ir_node(b, &opaque, NULL, 1, &z));
    grad(b, y, seq(b, S), x);
}
static void ask_crooked(Builder *b)
{
    Value x = seq(b, S);
    grad(b, mdr_ir_node(b, &crooked, NULL, 1, &x), seq(b, S), x);
}
static void ask_shared(Builder *b)                             /* y = x + w with dy = 1 for every sequence                  */
{
    Value w = weight(b, S), y = mdr_op_add(b, seq(b, S), w);
    mdr_ir_where(b, "loss");
    grad(b, y, constant(b, S, 1), w);
}
static void ask_shared_far(Builder *b)                         /* the same behind linear ops and a value of the step        */
{
    Value w = weight(b, mdr_shape1(4)), y = mdr_op_add(b, seq(b, S), mdr_op_unary(b, UN_EXP, 0, w));
    mdr_ir_where(b, "loss");
    Value z = mdr_ir_sum_cols(b, mdr_ir_sum_rows(b, scale(b, 3, y)));
    grad(b, z, constant(b, mdr_shape1(1), 1), w);
}
static void ask_shared_member(Builder *b)                      /* and with a seed of each member                            */
{
    Value w = weight(b, S), y = mdr_op_add(b, seq(b, S), w);
    grad(b, y, mdr_ir_input(b, "rate", S, DT_REAL, MDR_AXIS_MEMBER), w);
}
static void ask_met(Builder *b)                                /* y = x w: the seed meets x on its way                      */
{
    Value w = weight(b, S), y = mdr_op_mul(b, seq(b, S), w);
    grad(b, y, constant(b, S, 1), w);
}
static void ask_input(Builder *b)                              /* to an input of each sequence there is nothing to sum      */
{
    Value x = seq(b, S), y = mdr_op_add(b, x, weight(b, S));
    grad(b, y, constant(b, S, 1), x);
}
static void ask_twice(Builder *b)                              /* first order only                                          */
{
    Value x = seq(b, S), y = mdr_op_unary(b, UN_TANH, 0, x), seed = seq(b, S), d;
    mdr_ir_grad(b, 1, &y, &seed, 1, &x, &d);
    grad(b, d, seq(b, S), x);
}
static void refusals(void **state)
{
    (void)state;
    static const struct { const char *name; Ask *ask; const char *want; } cases[] = {
        {"no derivative", ask_opaque, "layer 2 odd: opaque: has no derivative"}, {"no derivative, beside", ask_opaque_beside, NULL},
        {"a derivative of the wrong shape", ask_crooked, "layer 2 odd: crooked: its derivative gives [4] for input 0 of shape [3, 4]"},
        {"a shared seed reaches a weight", ask_shared, "layer 2 odd: add: a gradient that is the same for every sequence reaches its input 1"},
        {"later", ask_shared_far, "layer 2 odd: add: a gradient that is the same for every sequence reaches its input 1"},
        {"a member's", ask_shared_member, "layer 2 odd: add: a gradient that is the same for every sequence"},
        {"a shared seed meets a sequence", ask_met, NULL}, {"a shared seed to an input", ask_input, NULL},
        {"second order", ask_twice, "has no derivative (gradients are first order only)"}};
    for (int i = 0; i < MDR_COUNT(cases); i++) {
        Builder *b = mdr_ir_builder();
        Graph *g;
        mdr_ir_where(b, "layer 2 odd");
        cases[i].ask(b);
        Err *e = mdr_ir_finish(b, &g);
        if (!cases[i].want != !e || (e && !strstr(mdr_err_text(e), cases[i].want)))
            fail_msg("%s: %s (expected `%s`)", cases[i].name, e ? mdr_err_text(e) : "accepted", cases[i].want ? cases[i].want : "fine");
        mdr_err_free(e);
        mdr_ir_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(differences), cmocka_unit_test(eighty_exactly), cmocka_unit_test(one_sum_batch),
                                       cmocka_unit_test(absent_gradients), cmocka_unit_test(refusals)};
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
