/* Bytes of an op: its sequences' operands once a sequence, weights and sums over sequences once a call. */
#include "study_harness.h"
#include "op/op.h"
#include "report/report.h"

static double bytes_of(const Builder *b, Value v, int64_t calls, int64_t sequences)
{
    const Node *n = mdr_ir_node_at(b, v.node);
    const OpProfile p = {n->op->name, "", n, 1.0, calls, sequences, PH_SEQ};
    const Limits limits = {1e9, 1e9, 1e9};
    OpTime row[1];
    assert_int_equal(mdr_report_op_times(&p, 1, 1.0, 1, &limits, row), 1);
    assert_string_equal(row[0].phase, "seq");
    return row[0].bytes;                                      /* in one second                                            */
}

static void bytes_a_call(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(5, 8), DT_REAL, MDR_AXIS_SEQ), w = mdr_ir_param(b, "w", mdr_shape2(8, 6), (Init){0});
    Value y = mdr_op_matmul(b, x, w, MDR_ABSENT), z = mdr_op_matmul_tn(b, x, y), s = mdr_op_add(b, x, x);
    assert_true(bytes_of(b, y, 3, 30) == 4.0 * (30 * (5 * 8 + 5 * 6) + 3 * 8 * 6));
    assert_true(bytes_of(b, z, 3, 30) == 4.0 * (30 * (5 * 8 + 5 * 6) + 3 * 8 * 6));
    assert_true(bytes_of(b, s, 3, 30) == 4.0 * 30 * 3 * 5 * 8);
    mdr_ir_builder_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_a_call)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
