/* A graph's digest changes with everything that decides what the graph computes, one thing at a time, and with nothing else. */
#include "op/op.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };
/* What differs: nothing, a label, the order in which nodes are made, and then each thing that counts. */
enum { NOTHING, LABEL, ORDER, OP, KIND, NUMBER, INPUT, SHAPE, NAME, INIT, INIT_NUMBER, INIT_ROW, TABLE, ROWS, TRAILING, BODY, CHUNK, OUTPUT, N_CHANGE };

static Graph *body(int what)
{
    Builder *b = mdr_ir_builder();
    Value c = mdr_ir_input(b, "c", mdr_shape2(1, 6), DT_REAL, BOTH), x = mdr_ir_input(b, "x", mdr_shape2(1, 6), DT_REAL, BOTH);
    Value next = what == BODY ? mdr_op_mul(b, c, x) : mdr_op_add(b, c, x);
    mdr_ir_output(b, next);
    mdr_ir_output(b, next);
    Graph *g;
    assert_null(mdr_ir_finish(b, &g));
    return g;
}
static Graph *graph(int what)
{
    const double start[6] = {1, 2, 3, 4, 5, what == INIT_ROW ? 7 : 6};
    double data[6] = {0.5, 1, 1, 1, 1, what == TABLE ? 2 : 1};
    if (what == LABEL) data[0] += 1e-15;                                    /* a library's last bit: the same float              */
    Builder *b = mdr_ir_builder();
    mdr_ir_where(b, what == LABEL ? "layer 2" : "layer 1");
    if (what == ORDER) mdr_ir_const(b, mdr_shape1(6), data);
    Value x = mdr_ir_input(b, "x", mdr_shape2(6, 6), DT_REAL, BOTH), s[2];
    const Init init = {what == INIT ? INIT_UNIFORM : INIT_NORMAL, what == INIT_NUMBER ? 0.2 : 0.1, 0, NULL};
    Value w = mdr_ir_param(b, what == NAME ? "v" : "w", mdr_shape2(6, 6), init);
    Value table = mdr_ir_param(b, "t", mdr_shape1(6), (Init){INIT_TABLE, 0, 0, start});
    Value y = mdr_op_matmul(b, x, w, table);
    y = what == OP ? mdr_op_rmsnorm(b, y, table, 1e-5) : mdr_op_layernorm(b, y, table, table, what == NUMBER ? 1e-6 : 1e-5);
    y = mdr_op_unary(b, what == KIND ? UN_SIGMOID : UN_SILU, 0.0, y);
    y = mdr_op_mul(b, y, mdr_ir_const(b, mdr_shape1(6), data));
    if (what == SHAPE) y = mdr_ir_reshape(b, mdr_ir_reshape(b, y, mdr_shape1(36)), mdr_shape2(6, 6));
    mdr_ir_scan(b, body(what), (ScanAttr){.n_carry = 1, .n_xs = 1, .n_ys = 1, .length = 6, .chunk = what == CHUNK ? 2 : 3},
                (Value[]){mdr_ir_rows(b, y, what == ROWS ? 1 : 0, 1), what == INPUT ? x : y}, s);
    mdr_ir_output(b, s[what == OUTPUT ? 0 : 1]);
    mdr_ir_output(b, mdr_ir_expand(b, table, 6, what == TRAILING));
    Graph *g;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    return g;
}
static void digest(int what, char hex[65])
{
    Graph *g = graph(what);
    mdr_ir_digest(g, hex);
    mdr_ir_graph_free(g);
}

static void each_thing_counts(void **state)
{
    (void)state;
    static char hex[N_CHANGE][65];
    for (int i = 0; i < N_CHANGE; i++) digest(i, hex[i]);
    assert_string_equal(hex[NOTHING], hex[LABEL]);
    assert_string_equal(hex[NOTHING], hex[ORDER]);
    for (int i = OP; i < N_CHANGE; i++)
        for (int k = ORDER; k < i; k++)
            if (strcmp(hex[i], hex[k]) == 0) fail_msg("changes %d and %d have one digest", i, k);
}
/* Fixed by definition of the text that is hashed: the same with every compiler and on every machine of this byte order. */
static void it_is_the_same_everywhere(void **state)
{
    (void)state;
    char hex[65];
    digest(NOTHING, hex);
    assert_memory_equal(hex, "9ee20b7d6de250cb", 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_thing_counts), cmocka_unit_test(it_is_the_same_everywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
