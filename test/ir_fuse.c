/* Fusing: a pattern gives way to its op where that op is accepted, readers follow, what nobody reads goes; a reader before the pattern's
 * end, an input that comes late, a second output, scans and patterns that feed one another are left right. */
#include "ir/ir.h"
#include "op/op.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };

/* ---- the op of this test: gated(x, y) -> silu(x) y, silu(x) ---- */
static Err *shape_gated(Node *n)
{
    n->out[0].shape = n->out[1].shape = n->in_type[0].shape;
    return NULL;
}
static bool match_gated(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Node *mul = mdr_ir_node_at(b, root);
    if (!mdr_ir_is(b, (Value){root, 0}, "binary") || !mdr_ir_is(b, mul->in[0], "unary")) return false;
    const Node *act = mdr_ir_node_at(b, mul->in[0].node);
    if (((const UnaryAttr *)act->attr)->kind != UN_SILU || mdr_ir_found(b, u, act->in[0], "unary", 0) < 0) return false;
    f->n_in = 2;
    f->in[0] = act->in[0];
    f->in[1] = mul->in[1];
    f->out[0] = (Value){root, 0};
    if (mdr_ir_n_users(u, mul->in[0]) > 1) f->out[1] = mul->in[0];
    return true;
}
static const OpDef gated = {.name = "gated", .min_in = 2, .max_in = 2, .n_out = 2, .shape = shape_gated, .match = match_gated};
static const OpDef *const rules[] = {&gated};
static bool yes(const Node *n) { return n->op == &gated; }
static bool no(const Node *n) { (void)n; return false; }

static int count(const Graph *g, const char *op)
{
    int k = 0;
    for (int32_t i = 0; i < g->n_node; i++) k += strcmp(g->node[i].op->name, op) == 0;
    return k;
}
static int32_t place(const Graph *g, const char *op)
{
    for (int32_t i = 0; i < g->n_node; i++)
        if (strcmp(g->node[i].op->name, op) == 0) return i;
    return -1;
}
static Value seq(Builder *b) { return mdr_ir_input(b, "x", mdr_shape2(5, 3), DT_REAL, BOTH); }
static Value silu(Builder *b, Value x) { return mdr_op_unary(b, UN_SILU, 0, x); }
static Graph *fused(Builder *b, bool (*accept)(const Node *))
{
    Graph *g = NULL;
    mdr_ir_fuse(b, 1, rules, accept);
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    assert_null(mdr_ir_verify(g));
    return g;
}

static void test_replaced(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), y = seq(b);
    mdr_ir_output(b, mdr_op_add(b, mdr_op_mul(b, silu(b, x), y), y));
    Graph *g = fused(b, yes);
    assert_int_equal(count(g, "gated"), 1);
    assert_int_equal(count(g, "unary") + count(g, "binary"), 0);
    const Node *last = &g->node[g->output[0].node];
    assert_string_equal(last->op->name, "add");
    assert_int_equal(last->in[0].node, place(g, "gated"));
    mdr_ir_graph_free(g);
}

static void test_refused(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), y = seq(b);
    mdr_ir_output(b, mdr_op_mul(b, silu(b, x), y));
    Graph *g = fused(b, no);
    assert_int_equal(count(g, "gated"), 0);
    assert_int_equal(g->n_node, 4);
    mdr_ir_graph_free(g);
}

/* silu(x) is read before the pattern ends and after it: the fused op stands in front of the first reader. */
static void test_early(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), y = seq(b), s = silu(b, x), before = mdr_op_unary(b, UN_NEG, 0, s), z = mdr_op_mul(b, s, y);
    mdr_ir_output(b, before);
    mdr_ir_output(b, mdr_op_unary(b, UN_EXP, 0, s));
    mdr_ir_output(b, z);
    mdr_ir_output(b, s);
    Graph *g = fused(b, yes);
    const int32_t it = place(g, "gated");
    assert_int_equal(count(g, "gated"), 1);
    assert_int_equal(count(g, "binary"), 0);
    assert_int_equal(count(g, "unary"), 2);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(g->node[g->output[k].node].in[0].node, it);
        assert_int_equal(g->node[g->output[k].node].in[0].out, 1);
    }
    assert_int_equal(g->output[2].node, it);
    assert_int_equal(g->output[3].node, it);
    assert_int_equal(g->output[3].out, 1);
    mdr_ir_graph_free(g);
}

/* An input comes after a first reader and before a second one, which stands before the pattern's end: the first keeps the old node. */
static void test_late_input(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), s = silu(b, x), before = mdr_op_unary(b, UN_NEG, 0, s), y = mdr_op_unary(b, UN_SIN, 0, x), after = mdr_op_unary(b, UN_EXP, 0, s);
    mdr_ir_output(b, mdr_op_mul(b, s, y));
    mdr_ir_output(b, before);
    mdr_ir_output(b, after);
    Graph *g = fused(b, yes);
    const int32_t it = place(g, "gated");
    assert_int_equal(count(g, "gated"), 1);
    assert_int_equal(count(g, "binary"), 0);
    assert_int_equal(count(g, "unary"), 4);
    assert_int_equal(g->output[0].node, it);
    assert_true(g->node[g->output[1].node].in[0].node < it);
    assert_int_equal(g->node[it].in[1].node, it - 1);
    assert_int_equal(g->node[g->output[2].node].in[0].node, it);
    mdr_ir_graph_free(g);
}

/* The second pattern waits for what the first one makes, though a reader would have its other output sooner. */
static void test_early_chain(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), w = seq(b), s = silu(b, x), t = silu(b, w), early = mdr_op_unary(b, UN_NEG, 0, t), y = mdr_op_unary(b, UN_SIN, 0, x);
    Value one = mdr_op_mul(b, s, y), two = mdr_op_mul(b, t, one);
    mdr_ir_output(b, early);
    mdr_ir_output(b, mdr_op_unary(b, UN_EXP, 0, t));
    mdr_ir_output(b, two);
    Graph *g = fused(b, yes);
    assert_int_equal(count(g, "gated"), 2);
    assert_int_equal(count(g, "binary"), 0);
    const Node *last = &g->node[g->output[2].node];
    assert_string_equal(g->node[last->in[1].node].op->name, "gated");
    assert_true(last->in[1].node < g->output[2].node);
    assert_true(g->node[g->output[0].node].in[0].node < g->output[2].node);
    mdr_ir_graph_free(g);
}

/* One pattern's result is the next one's input; dead nodes make no pattern. */
static void test_chain(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), y = seq(b);
    Value one = mdr_op_mul(b, silu(b, x), y), two = mdr_op_mul(b, silu(b, one), y);
    mdr_op_mul(b, silu(b, two), y);
    mdr_ir_output(b, two);
    Graph *g = fused(b, yes);
    assert_int_equal(count(g, "gated"), 2);
    assert_int_equal(g->n_node, 4);
    const Node *last = &g->node[g->output[0].node];
    assert_string_equal(g->node[last->in[0].node].op->name, "gated");
    assert_string_equal(last->op->name, "gated");
    mdr_ir_graph_free(g);
}

/* What would get an axis that its readers do not know stays as it is. */
static void test_types(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(5, 3), DT_REAL, MDR_AXIS_MEMBER), y = seq(b), s = silu(b, x);
    mdr_ir_output(b, mdr_op_mul(b, s, y));
    mdr_ir_output(b, mdr_op_unary(b, UN_EXP, 0, s));
    Graph *g = fused(b, yes);
    assert_int_equal(count(g, "gated"), 0);
    mdr_ir_graph_free(g);
}

/* A scan and its gradient survive: the gradient borrows the body of the scan. */
static void test_scan(void **state)
{
    (void)state;
    Builder *s = mdr_ir_builder(), *b = mdr_ir_builder();
    Graph *body = NULL;
    Value c = mdr_ir_input(s, "c", mdr_shape1(3), DT_REAL, BOTH), x1 = mdr_ir_input(s, "x", mdr_shape2(1, 3), DT_REAL, BOTH);
    mdr_ir_output(s, mdr_op_mul(s, c, mdr_ir_reshape(s, x1, mdr_shape1(3))));
    mdr_ir_output(s, x1);
    assert_null(mdr_ir_finish(s, &body));
    Value x = seq(b), c0 = mdr_ir_input(b, "c", mdr_shape1(3), DT_REAL, BOTH), out[2], in[2] = {c0, x};
    mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 1, .n_ys = 1, .length = 5}, in, out);
    Value y = mdr_op_mul(b, silu(b, out[1]), x), seed = seq(b), dx;
    mdr_ir_grad(b, 1, &out[1], &seed, 1, &x, &dx);
    mdr_ir_output(b, y);
    mdr_ir_output(b, dx);
    Graph *g = fused(b, yes);
    assert_int_equal(count(g, "gated"), 1);
    assert_int_equal(count(g, "scan"), 1);
    assert_int_equal(count(g, "scan_grad"), 1);
    mdr_ir_graph_free(g);
}

/* What reads a fused node that stands early, before its plain maker, is not fused where that one is refused. */
static int32_t told;
static bool all_but_first(const Node *n)
{
    (void)n;
    return told++ > 0;
}
static void test_refused_chain(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b), w = seq(b), s = silu(b, x), t = silu(b, w), y = mdr_op_unary(b, UN_SIN, 0, x);
    mdr_ir_output(b, mdr_op_unary(b, UN_NEG, 0, s));
    mdr_ir_output(b, mdr_op_unary(b, UN_EXP, 0, t));
    Value one = mdr_op_mul(b, s, y), two = mdr_op_mul(b, t, one);
    mdr_ir_output(b, two);
    told = 0;
    Graph *g = fused(b, all_but_first);
    const Node *last = &g->node[g->output[2].node];
    assert_string_equal(g->node[last->in[1].node].op->name, "binary");
    mdr_ir_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaced), cmocka_unit_test(test_refused), cmocka_unit_test(test_early), cmocka_unit_test(test_late_input),
        cmocka_unit_test(test_chain), cmocka_unit_test(test_early_chain), cmocka_unit_test(test_types), cmocka_unit_test(test_scan),
        cmocka_unit_test(test_refused_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
