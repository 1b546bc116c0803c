/* Copying and lowering: ops that are not had give way to their composition, to any depth; what is neither had nor composed is an
 * error; bodies of scans are copied and lowered too. And what a scan refuses as its body. */
#include "exec/exec.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };

/* ---- ops of this test: outer(x, b?) = inner(x) + b, spare; inner(x) = x + x ---- */
static Err *shape_same(Node *n)
{
    for (int i = 0; i < n->n_out; i++) n->out[i].shape = n->in_type[0].shape;
    return NULL;
}
static void compose_inner(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_op_add(b, in[0], in[0]);
}
static const OpDef inner = {.name = "inner", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same, .compose = compose_inner};
static void compose_outer(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_ir_node(b, &inner, NULL, 1, in);
    if (mdr_ir_has(in[1])) out[0] = mdr_op_add(b, out[0], in[1]);       /* out[1] is not made                              */
}
static const OpDef outer = {.name = "outer", .min_in = 1, .max_in = 2, .n_out = 2, .optional = 2, .shape = shape_same, .compose = compose_outer};
static const OpDef bare = {.name = "bare", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same};
static void compose_bare(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_ir_node(b, &bare, NULL, 1, in);
}
static const OpDef over_bare = {.name = "over_bare", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same, .compose = compose_bare};
static void compose_wrong(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_ir_reshape(b, in[0], mdr_shape1(1));
}
static const OpDef wrong = {.name = "wrong", .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_same, .compose = compose_wrong};

/* ctx: the one op of this test that is had, besides add and the rest of the product. */
static bool has(const OpDef *op, void *ctx)
{
    return op == ctx || !(op == &inner || op == &outer || op == &bare || op == &over_bare || op == &wrong);
}
static Value node(Builder *b, const OpDef *op, Value x, Value y) { return mdr_ir_node(b, op, NULL, op == &outer ? 2 : 1, (Value[]){x, y}); }
static Value seq(Builder *b, Shape s) { return mdr_ir_input(b, "x", s, DT_REAL, BOTH); }

static Err *lower(const Graph *g, const OpDef *had, Graph **out)
{
    Builder *b = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out)};
    mdr_ir_copy(b, g, has, (void *)(uintptr_t)had, &map);
    for (int32_t i = 0; i < g->n_output && !mdr_ir_failed(b); i++) mdr_ir_output(b, mdr_ir_copied(&map, g->output[i]));
    mdr_free(map.out);
    return mdr_ir_finish(b, out);
}
static Graph *finish(Builder *b)
{
    Graph *g;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
    return g;
}
static Graph *lowered(const Graph *g, const OpDef *had)
{
    Graph *out;
    Err *e = lower(g, had, &out);
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
    assert_null(mdr_ir_verify(out));
    return out;
}
static void refused(Err *e, const char *test, const char *want, const char *also)
{
    if (!e) fail_msg("%s: accepted, expected `%s`", test, want);
    if (!strstr(mdr_err_text(e), want) || !strstr(mdr_err_text(e), also)) fail_msg("%s: `%s` does not say `%s`, `%s`", test, mdr_err_text(e), want, also);
    mdr_err_free(e);
}
static int count(const Graph *g, const OpDef *op)
{
    int n = 0;
    for (int32_t i = 0; i < g->n_node; i++) n += g->node[i].op == op;
    return n;
}

/* ---- lowering ---- */
static Graph *composed(void)
{
    Builder *b = mdr_ir_builder();
    const double two[2] = {2, 3};
    mdr_ir_param(b, "first", mdr_shape1(1), (Init){INIT_CONST, 7, 0, NULL});
    Value bias = mdr_ir_param(b, "second", mdr_shape1(2), (Init){INIT_TABLE, 0, 0, two}), ids = mdr_ir_input(b, "ids", mdr_shape1(3), DT_I32, MDR_AXIS_SEQ),
          x = seq(b, mdr_shape2(3, 2)), c = mdr_ir_const(b, mdr_shape1(2), two);
    mdr_ir_where(b, "layer 2 odd");
    Value y = node(b, &outer, node(b, &outer, x, bias), MDR_ABSENT);       /* 2 (2x + bias)                                   */
    mdr_ir_where(b, "end");
    mdr_ir_output(b, mdr_op_add(b, y, c));
    mdr_ir_output(b, ids);
    mdr_ir_output(b, MDR_ABSENT);
    return finish(b);
}
static void composition(void **state)
{
    (void)state;
    Graph *g = composed(), *kept = lowered(g, &outer), *half = lowered(g, &inner), *basis = lowered(g, NULL);
    assert_int_equal(kept->n_node, g->n_node);
    assert_int_equal(count(kept, &outer), 2);
    assert_int_equal(count(half, &outer), 0);
    assert_int_equal(count(half, &inner), 2);
    assert_int_equal(count(half, &mdr_ir_op_add), 2);
    assert_int_equal(count(basis, &inner) + count(basis, &outer), 0);
    assert_int_equal(count(basis, &mdr_ir_op_add), 4);
    assert_int_equal(count(basis, &mdr_ir_op_input), 2);                   /* the compositions' own inputs are gone           */
    mdr_ir_graph_free(kept);
    mdr_ir_graph_free(half);
    for (int i = 0, p = 0; i < basis->n_node; i++) {
        const Node *n = &basis->node[i];
        if (n->op == &mdr_ir_op_add) assert_string_equal(n->where, ++p < 4 ? "layer 2 odd" : "end");
    }
    int32_t w[2];
    assert_int_equal(mdr_ir_params(basis, w, 2), 2);
    mdr_ir_graph_free(g);                                                  /* what follows lives on in the copy               */
    const ParamAttr *a = basis->node[w[0]].attr, *second = basis->node[w[1]].attr;
    assert_string_equal(a->name, "first");
    assert_true(a->init.kind == INIT_CONST && a->init.a == 7 && a->index == 0);
    assert_string_equal(second->name, "second");
    assert_true(second->index == 1 && second->init.table[1] == 3);
    assert_int_equal(basis->n_output, 3);
    const Type *t = &basis->node[basis->output[0].node].out[0], *ids = &basis->node[basis->output[1].node].out[0];
    assert_true(t->axes == BOTH && t->phase == PH_SEQ && mdr_shape_equal(t->shape, mdr_shape2(3, 2)));
    assert_true(ids->axes == MDR_AXIS_SEQ && ids->dtype == DT_I32);
    assert_true(basis->output[2].node < 0);
    const double ids_at[3] = {0}, x[6] = {1, 2, 3, 4, 5, 6}, param[3] = {0, 10, 20}, *in[2] = {ids_at, x};
    double *out[3];
    assert_null(mdr_exec_eval(basis, &(EvalSpec){&mdr_exec_ref64, 1, 1, in, param, NULL}, out));
    for (int i = 0; i < 6; i++) assert_true(out[0][i] == 4 * x[i] + 2 * param[1 + i % 2] + 2 + i % 2);
    for (int i = 0; i < 3; i++) mdr_free(out[i]);
    mdr_ir_graph_free(basis);
}
static Graph *one(const OpDef *op, int out)
{
    Builder *b = mdr_ir_builder();
    mdr_ir_where(b, "layer 5 odd");
    Value v = mdr_ir_out(node(b, op, seq(b, mdr_shape2(3, 2)), MDR_ABSENT), out);
    mdr_ir_where(b, "reader");
    mdr_ir_output(b, mdr_op_add(b, v, v));
    return finish(b);
}
static void impossible(void **state)
{
    (void)state;
    static const struct { const OpDef *op; int out; const char *want, *also; } bad[] = {
        {&bare, 0, "layer 5 odd: bare: ", "no composition"}, {&over_bare, 0, "layer 5 odd: bare: ", "no composition"},
        {&wrong, 0, "layer 5 odd: reshape: ", "[3, 2] as [1]"}, {&outer, 1, "reader: add: ", "absent"}};
    for (int i = 0; i < MDR_COUNT(bad); i++) {
        Graph *g = one(bad[i].op, bad[i].out), *out;
        refused(lower(g, NULL, &out), bad[i].op->name, bad[i].want, bad[i].also);
        assert_null(out);
        mdr_ir_graph_free(g);
    }
}

/* ---- scans ---- */
typedef struct Body { bool param, wide_carry, two_rows, i32, shared_carry, no_output, batch, absent; } Body;
static Graph *body_of(Body how, const OpDef *op)               /* c' = op(c, w) + x, y = c'                                */
{
    Builder *b = mdr_ir_builder();
    mdr_ir_where(b, "inside");
    Value c = mdr_ir_input(b, "c", mdr_shape2(1, 3), DT_REAL, how.shared_carry ? MDR_AXIS_MEMBER : BOTH),
          x = mdr_ir_input(b, "x", mdr_shape2(1, 3), how.i32 ? DT_I32 : DT_REAL, BOTH), w = mdr_ir_input(b, "w", mdr_shape2(1, 3), DT_REAL, MDR_AXIS_MEMBER);
    if (how.param) w = mdr_ir_param(b, "p", mdr_shape2(1, 3), (Init){INIT_CONST, 0, 0, NULL});
    Value y = mdr_ir_add(b, how.i32 ? 2 : 3, (Value[]){op ? node(b, op, c, w) : mdr_op_mul(b, c, w), c, x});
    if (how.batch) mdr_ir_output(b, mdr_ir_sum_batch(b, 1, &y));
    else mdr_ir_output(b, how.absent ? MDR_ABSENT : how.wide_carry ? mdr_ir_expand(b, y, 2, true) : y);
    if (!how.no_output) mdr_ir_output(b, how.two_rows ? mdr_ir_pad_rows(b, y, 0, 2) : y);
    return finish(b);
}
typedef struct Given { Shape carry, xs, konst; int n_ys, length, chunk; DType xs_type; unsigned const_axes; } Given;
static const Given right = {{2, {1, 3}}, {2, {4, 3}}, {2, {1, 3}}, 1, 4, 0, DT_REAL, MDR_AXIS_MEMBER};
static Err *scan_of(Graph *body, Given a, Graph **g)
{
    Builder *b = mdr_ir_builder();
    Value in[3], out[MDR_MAX_OUT];
    mdr_ir_where(b, "layer 6 loop");
    in[0] = mdr_ir_input(b, "c", a.carry, DT_REAL, BOTH);
    in[1] = mdr_ir_input(b, "x", a.xs, a.xs_type, BOTH);
    in[2] = mdr_ir_input(b, "w", a.konst, DT_REAL, a.const_axes);
    mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 1, .n_ys = a.n_ys, .length = a.length, .chunk = a.chunk}, in, out);
    for (int i = 0; i < 1 + a.n_ys; i++) mdr_ir_output(b, out[i]);
    return mdr_ir_finish(b, g);
}
/* A refusal that is missing shows as a line: all are tried before the verdict. */
static int odd(const char *name, Body how, Given a, const char *want)
{
    Graph *g;
    Err *e = scan_of(body_of(how, NULL), a, &g);
    const char *text = e ? mdr_err_text(e) : "accepted";
    const char place[] = "layer 6 loop: scan: ";
    int bad = !e || strncmp(text, place, strlen(place)) != 0 || !strstr(text, want);
    if (bad) print_error("%s: %s (expected `%s`)\n", name, text, want);
    mdr_err_free(e);
    mdr_ir_graph_free(g);
    return bad;
}
static void wrong_bodies(void **state)
{
    (void)state;
    const Body ok = {0};
    Graph *g;
    Given a = right;
    int bad = 0;
    assert_null(scan_of(body_of(ok, NULL), right, &g));
    const Node *n = &g->node[3];
    assert_int_equal(n->n_out, 3);                             /* the carry, ys, carries at the start of each chunk        */
    assert_true(mdr_shape_equal(n->out[1].shape, mdr_shape2(4, 3)) && mdr_shape_equal(n->out[2].shape, mdr_shape2(2, 3)));
    assert_true(n->out[0].axes == BOTH && n->out[1].phase == PH_SEQ);
    mdr_ir_graph_free(g);
    bad += odd("a parameter inside", (Body){.param = true}, right, "parameters");
    bad += odd("an output missing", (Body){.no_output = true}, right, "1 outputs");
    bad += odd("the next carry is wider", (Body){.wide_carry = true}, right, "next carry 0 is [1, 3, 2], the body has [1, 3]");
    bad += odd("two rows a step", (Body){.two_rows = true}, right, "output 0 of the body has 2 rows");
    bad += odd("integers inside", (Body){.i32 = true}, right, "input 1 is not of real numbers");
    bad += odd("a carry that all sequences share", (Body){.shared_carry = true}, right, "input 0");
    bad += odd("a carry summed over the batch", (Body){.batch = true}, right, "batch");
    a.xs_type = DT_I32;
    bad += odd("integers given", ok, a, "input 1 is not of real numbers");
    a = right; a.n_ys = 2;
    bad += odd("an output too many", ok, a, "2 outputs, expected 3 and 3");
    a = right; a.carry = mdr_shape2(1, 4);
    bad += odd("carry", ok, a, "input 0 is [1, 4], the body has [1, 3]");
    a = right; a.xs = mdr_shape2(4, 2);
    bad += odd("xs", ok, a, "input 1 is [1, 2], the body has [1, 3]");
    a = right; a.xs = mdr_shape2(5, 3);
    bad += odd("rows", ok, a, "input 1 has 5 rows, expected 4");
    a = right; a.konst = mdr_shape1(3);
    bad += odd("const", ok, a, "input 2 is [3], the body has [1, 3]");
    a = right; a.const_axes = BOTH;
    bad += odd("a const of each sequence", ok, a, "input 2 varies over axes");
    a = right; a.length = 0; a.xs.d[0] = 1;
    bad += odd("no steps", ok, a, "0 steps");
    a = right; a.chunk = -1;
    bad += odd("chunk", ok, a, "");
    Builder *b = mdr_ir_builder();
    Value v[2], x = seq(b, mdr_shape2(1, 3));
    mdr_ir_scan(b, NULL, (ScanAttr){.n_carry = 1, .n_ys = 1, .length = 1}, &x, v);
    assert_false(mdr_ir_has(v[0]) || mdr_ir_has(v[1]));
    refused(mdr_ir_finish(b, &g), "no body", "scan", "no body");
    assert_int_equal(bad, 0);
}
/* An output of the body that was never made (an absent value). */
static void absent_output(void **state)
{
    (void)state;
    assert_int_equal(odd("an absent next carry", (Body){.absent = true}, right, "carry"), 0);
}
static void lowered_body(void **state)
{
    (void)state;
    Graph *g, *with, *without;
    Err *e = scan_of(body_of((Body){0}, &outer), right, &g);   /* c' = (2c + w) + c + x = 3c + w + x                        */
    if (e) fail_msg("%s", mdr_err_text(e));
    with = lowered(g, &outer);
    without = lowered(g, NULL);
    assert_true(with->node[3].body != g->node[3].body && without->node[3].body != g->node[3].body);
    assert_int_equal(count(with->node[3].body, &outer), 1);
    assert_int_equal(count(without->node[3].body, &outer) + count(without->node[3].body, &inner), 0);
    assert_int_equal(count(without->node[3].body, &mdr_ir_op_add), 3);
    assert_string_equal(without->node[3].body->node[3].where, "inside");
    assert_int_equal(((const ScanAttr *)without->node[3].attr)->chunk, 2);
    mdr_ir_graph_free(with);
    mdr_ir_graph_free(g);                                      /* the copy has a body of its own                           */
    const double c[3] = {1, 2, 3}, x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, w[3] = {0.5, 0.25, 4}, *in[3] = {c, x, w};
    double *out[2], want[3] = {1, 2, 3};
    assert_null(mdr_exec_eval(without, &(EvalSpec){&mdr_exec_ref64, 1, 1, in, NULL, NULL}, out));
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 3; i++) {
            want[i] = 3 * want[i] + w[i] + x[3 * t + i];
            assert_true(out[1][3 * t + i] == want[i]);
        }
    for (int i = 0; i < 3; i++) assert_true(out[0][i] == want[i]);
    mdr_free(out[0]);
    mdr_free(out[1]);
    mdr_ir_graph_free(without);
    e = scan_of(body_of((Body){0}, &over_bare), right, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    refused(lower(g, NULL, &without), "no kernel in a body", "inside: bare: ", "no composition");
    mdr_ir_graph_free(g);
}
/* A gradient cannot be copied: lowering comes first. */
static void gradient_first(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value in[3] = {seq(b, right.carry), seq(b, right.xs), mdr_ir_param(b, "w", right.konst, (Init){INIT_CONST, 0, 0, NULL})}, out[2], d;
    mdr_ir_where(b, "layer 6 loop");
    mdr_ir_scan(b, body_of((Body){0}, NULL), (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 1, .n_ys = 1, .length = 4}, in, out);
    Value seed = seq(b, right.xs);
    mdr_ir_grad(b, 1, &out[1], &seed, 1, &in[2], &d);
    mdr_ir_output(b, d);
    Graph *g = finish(b), *copy;
    assert_int_equal(count(g, &mdr_ir_op_scan_grad), 1);
    refused(lower(g, NULL, &copy), "scan_grad", "layer 6 loop: scan_grad: ", "before its gradient");
    mdr_ir_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(composition), cmocka_unit_test(impossible), cmocka_unit_test(wrong_bodies),
                                       cmocka_unit_test(lowered_body), cmocka_unit_test(gradient_first), cmocka_unit_test(absent_output)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
