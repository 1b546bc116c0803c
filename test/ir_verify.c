/* The verifier finds what a pass may break: a finished graph is changed in one place and must no longer verify; changed back, it
 * must. */
#include "op/op.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };
/* Node numbers of the graph under test. */
enum { X, W, BIAS, IDS, PRODUCT, SPLIT, JOIN, BATCH, VIEW, SCAN_START, SCAN };

static Graph *accumulate(void)                                 /* c' = c + x w, y = c'                                     */
{
    Builder *b = mdr_ir_builder();
    Graph *g;
    Value c = mdr_ir_input(b, "c", mdr_shape2(1, 6), DT_REAL, BOTH), x = mdr_ir_input(b, "x", mdr_shape2(1, 6), DT_REAL, BOTH),
          w = mdr_ir_input(b, "w", mdr_shape1(6), DT_REAL, MDR_AXIS_MEMBER);
    Value next = mdr_op_add(b, c, mdr_op_mul(b, x, w));
    mdr_ir_output(b, next);
    mdr_ir_output(b, next);
    assert_null(mdr_ir_finish(b, &g));
    return g;
}
static Graph *graph(void)
{
    Builder *b = mdr_ir_builder();
    const int32_t half[2] = {2, 4};
    Value part[2], s[2];
    mdr_ir_where(b, "layer 4");
    Value x = mdr_ir_input(b, "x", mdr_shape2(5, 6), DT_REAL, BOTH), w = mdr_ir_param(b, "w", mdr_shape2(6, 6), (Init){INIT_CONST, 0, 0, NULL}),
          bias = mdr_ir_param(b, "b", mdr_shape1(6), (Init){INIT_CONST, 0, 0, NULL});
    mdr_ir_input(b, "ids", mdr_shape2(5, 6), DT_I32, BOTH);
    Value y = mdr_op_matmul(b, x, w, bias);
    mdr_ir_split(b, y, 2, half, part);
    Value j = mdr_ir_join(b, 2, part), p = mdr_ir_sum_batch(b, 1, &j), v = mdr_ir_reshape(b, p, mdr_shape1(30));
    Value start = mdr_ir_rows(b, y, 0, 1);
    mdr_ir_scan(b, accumulate(), (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 1, .n_ys = 1, .length = 5}, (Value[]){start, y, bias}, s);
    mdr_ir_output(b, v);
    mdr_ir_output(b, part[1]);
    mdr_ir_output(b, s[1]);
    Graph *g;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    static const char *const name[] = {"input", "param", "param", "input", "matmul", "split", "join", "sum_batch", "reshape", "rows", "scan"};
    assert_int_equal(g->n_node, MDR_COUNT(name));
    for (int i = 0; i < g->n_node; i++) assert_string_equal(g->node[i].op->name, name[i]);
    return g;
}

typedef void Tamper(Graph *g);
#define TAMPER(name, ...) static void name(Graph *g) { Node *n = g->node; (void)n; __VA_ARGS__; }
TAMPER(t_shape, n[PRODUCT].out[0].shape.d[1] = 7)
TAMPER(t_rank, n[PRODUCT].out[0].shape = mdr_shape3(1, 5, 6))
TAMPER(t_dtype, n[PRODUCT].out[0].dtype = DT_I32)
TAMPER(t_axes, n[PRODUCT].out[0].axes = MDR_AXIS_SEQ)
TAMPER(t_phase, n[PRODUCT].out[0].phase = PH_STEP)
TAMPER(t_second, n[SPLIT].out[1].shape.d[1] = 3)
TAMPER(t_last, n[VIEW].out[0].phase = PH_SEQ)
TAMPER(t_param, n[W].out[0].axes = BOTH)
TAMPER(t_input, n[X].out[0].phase = PH_POST)
TAMPER(t_forward, n[PRODUCT].in[0].node = JOIN)
TAMPER(t_itself, n[PRODUCT].in[0].node = PRODUCT)
TAMPER(t_outside, n[VIEW].in[0].node = 1000)
TAMPER(t_other_shape, n[PRODUCT].in[0].node = W)
TAMPER(t_other_dtype, n[PRODUCT].in[0].node = IDS)
TAMPER(t_out, n[JOIN].in[0].out = 2)
TAMPER(t_out_negative, n[JOIN].in[0].out = -1)
TAMPER(t_other_out, n[JOIN].in[0].out = 1)
TAMPER(t_absent, n[PRODUCT].in[1].node = -1)
TAMPER(t_in_shape, n[PRODUCT].in_type[0].shape.d[0] = 4)
TAMPER(t_in_dtype, n[PRODUCT].in_type[0].dtype = DT_SUM)
TAMPER(t_in_axes, n[PRODUCT].in_type[1].axes = 0)
TAMPER(t_in_phase, n[PRODUCT].in_type[1].phase = PH_CONST)
TAMPER(t_fewer_in, n[PRODUCT].n_in = 1)
TAMPER(t_more_in, n[VIEW].n_in = 2; n[VIEW].in[1] = (Value){BATCH, 0}; n[VIEW].in_type[1] = n[BATCH].out[0])
TAMPER(t_fewer_out, n[SCAN].n_out = 2)
TAMPER(t_attr, ((ReshapeAttr *)(uintptr_t)n[VIEW].attr)->shape = mdr_shape1(31))
TAMPER(t_split_attr, ((SplitAttr *)(uintptr_t)n[SPLIT].attr)->size[0] = 3)
TAMPER(t_sums, n[BATCH].sums = 0)
TAMPER(t_no_batch, n[VIEW].in[0] = (Value){JOIN, 0}; n[VIEW].in_type[0] = n[JOIN].out[0])
TAMPER(t_output_node, g->output[0].node = g->n_node)
TAMPER(t_output_out, g->output[0].out = 1)
TAMPER(t_output_negative, g->output[1].out = -1)
TAMPER(t_body_shape, ((Graph *)(uintptr_t)n[SCAN].body)->node[3].out[0].shape.d[1] = 7)
TAMPER(t_body_order, ((Graph *)(uintptr_t)n[SCAN].body)->node[3].in[0].node = 4)
TAMPER(t_body_output, ((Graph *)(uintptr_t)n[SCAN].body)->output[1].node = 99)
TAMPER(t_body_none, n[SCAN].body = NULL)
TAMPER(t_scan_length, ((ScanAttr *)(uintptr_t)n[SCAN].attr)->length = 4)

static void tampering(void **state)
{
    (void)state;
    static const struct { const char *name; Tamper *apply; const char *want; } change[] = {
        {"shape of an output", t_shape, "matmul"}, {"rank of an output", t_rank, "matmul"}, {"dtype of an output", t_dtype, "matmul"},
        {"axes of an output", t_axes, "matmul"}, {"phase of an output", t_phase, "matmul"}, {"shape of a second output", t_second, "split"},
        {"phase of the last", t_last, "reshape"}, {"axes of a parameter", t_param, "param"}, {"phase of an input", t_input, "input"},
        {"reads a later node", t_forward, "later"}, {"reads itself", t_itself, "later"}, {"reads a node outside", t_outside, "reshape"},
        {"reads another shape", t_other_shape, "matmul"}, {"reads another dtype", t_other_dtype, "matmul"}, {"reads a third output of two", t_out, "output"},
        {"reads output -1", t_out_negative, "output"}, {"reads the other output", t_other_out, "join"}, {"a required input absent", t_absent, "matmul"},
        {"copied shape", t_in_shape, "matmul"}, {"copied dtype", t_in_dtype, "matmul"}, {"copied axes", t_in_axes, "matmul"},
        {"copied phase", t_in_phase, "matmul"}, {"an input fewer than the op takes", t_fewer_in, "matmul"},
        {"an input more than the op takes", t_more_in, "reshape"}, {"an output fewer", t_fewer_out, "scan"}, {"reshape's attribute", t_attr, "reshape"},
        {"split's attribute", t_split_attr, "split"}, {"sums", t_sums, "sum_batch"}, {"a sum over the batch bypassed", t_no_batch, "reshape"},
        {"an output's node", t_output_node, "output 0"}, {"an output's number", t_output_out, "output 0"},
        {"an output's number, -1", t_output_negative, "output 1"},
        {"shape inside a body", t_body_shape, "layer 4"}, {"order inside a body", t_body_order, "layer 4"}, {"output of a body", t_body_output, "layer 4"},
        {"no body", t_body_none, "scan"}, {"length of a scan", t_scan_length, "scan"}};
    int n_missed = 0;
    for (int i = 0; i < MDR_COUNT(change); i++) {              /* all are tried before the verdict                          */
        Graph *g = graph();
        const Graph *body = g->node[SCAN].body;
        assert_null(mdr_ir_verify(g));
        change[i].apply(g);
        Err *e = mdr_ir_verify(g);
        const char *text = e ? mdr_err_text(e) : "not noticed";
        if (!e || !strstr(text, change[i].want)) {
            print_error("%s: %s (expected `%s`)\n", change[i].name, text, change[i].want);
            n_missed++;
        }
        mdr_err_free(e);
        g->node[SCAN].body = body;
        mdr_ir_graph_free(g);
    }
    assert_int_equal(n_missed, 0);
}
/* Nothing is wrong with an absent output, and a change taken back leaves no trace. */
static void intact(void **state)
{
    (void)state;
    Graph *g = graph();
    g->output[0] = MDR_ABSENT;
    assert_null(mdr_ir_verify(g));
    t_shape(g);
    Err *e = mdr_ir_verify(g);
    assert_non_null(e);
    mdr_err_free(e);
    g->node[PRODUCT].out[0].shape.d[1] = 6;
    assert_null(mdr_ir_verify(g));
    mdr_ir_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tampering), cmocka_unit_test(intact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
