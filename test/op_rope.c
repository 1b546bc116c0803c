/* rope: every kernel against the double reference; angles at long distance against libm in long double; the
 * inverse; that products of rotated rows depend on the distance alone; the derivative's sign. */
#include "op_harness.h"

static OpHow run_of(int real, int32_t n_member, int32_t n_seq) {
    return (OpHow){.real = real, .n_member = n_member, .n_seq = n_seq};
}

static OpCase case_of(int32_t rows, int32_t heads, int32_t d, int32_t sign, RopeAttr *attr) {
    *attr = (RopeAttr){heads, sign, 10000.0};
    return (OpCase){.name = "sizes", .attr = attr, .n_in = 1, .in = {{2, {rows, heads * d}}}, .lo = -1, .hi = 1};
}
static const OpRow *row(void) { return mdr_op_find("rope"); }

static void test_cases(void **state) {
    (void)state;
    op_check_cases("rope", 2);
}
static void test_sizes(void **state) {
    (void)state;
    const int32_t d[] = {2, 4, 6, 8, 10, 16, 18, 40, 64, 128}, rows[] = {1, 63, 64, 65, 200};
    for (int i = 0; i < MDR_COUNT(d); i++)
        for (int k = 0; k < MDR_COUNT(rows); k++) {
            RopeAttr attr;
            OpCase c = case_of(rows[k], 1 + k, d[i], k % 2 ? 1 : -1, &attr);
            op_check_case("rope", &c, 2);
        }
}

/* x = (1, 0) in every pair: y = (cos, sin) of the angle, here to 30,000 rows. */
static void test_angles(void **state) {
    (void)state;
    RopeAttr attr;
    OpTest t;
    OpCase k = case_of(30000, 1, 8, 1, &attr);
    op_open(&t, row()->def, &k, 0);
    for (int64_t e = 0; e < 30000 * 8; e++) t.in[0][e] = e % 8 < 4;
    const Kernel *kernel[3] = {&row()->ref32, &row()->ref64, mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL};
    for (int i = 0; i < 3 && kernel[i]; i++) {
        OpOut y = op_run(&t, kernel[i], run_of(i == 1 ? 8 : 4, 1, 1));
        double worst = 0;
        for (int32_t row_at = 0; row_at < 30000; row_at++)
            for (int32_t p = 0; p < 4; p++) {
                long double angle = row_at * powl(10000.0L, -2.0L * p / 8);
                double e1 = fabs(y.v[0][row_at * 8 + p] - (double)cosl(angle)),
                    e2 = fabs(y.v[0][row_at * 8 + 4 + p] - (double)sinl(angle));
                if (!(e1 <= worst)) worst = e1;
                if (!(e2 <= worst)) worst = e2;
            }
        if (!(worst <= (i == 1 ? 2e-11 : 6.1e-8))) fail_msg("kernel %d: an angle is wrong by %g", i, worst);
        op_free(&y);
    }
    op_close(&t);
}

/* sign -1 after sign 1 is the identity; <rope(x)[t], rope(x')[s]> depends on t-s alone. */
static void test_rotation(void **state) {
    (void)state;
    RopeAttr attr, back;
    OpTest t, u;
    OpCase k = case_of(130, 2, 12, 1, &attr), kb = case_of(130, 2, 12, -1, &back);
    const OpHow how = run_of(8, 1, 1);
    op_open(&t, row()->def, &k, 0);
    op_open(&u, row()->def, &kb, 0);
    /* every row alike */
    for (int64_t e = 24; e < 130 * 24; e++) t.in[0][e] = t.in[0][e % 24];
    OpOut y = op_run(&t, &row()->ref64, how);
    memcpy(u.in[0], y.v[0], (size_t)y.n[0] * sizeof(double));
    OpOut x = op_run(&u, &row()->ref64, how);
    assert_true(op_error(x.v[0], t.in[0], x.n[0]) <= 1e-14);
    double first = 0, far = 0, other = 0;
    for (int e = 0; e < 12; e++) {
        first += y.v[0][e] * y.v[0][7 * 24 + e];
        far += y.v[0][120 * 24 + e] * y.v[0][127 * 24 + e];
        other += y.v[0][e] * y.v[0][9 * 24 + e];
    }
    assert_true(fabs(first - far) <= 1e-12);
    assert_true(fabs(first - other) > 1e-3);
    op_free(&x);
    op_free(&y);
    op_close(&t);
    op_close(&u);
}

static void test_vjp(void **state) {
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(10, 16), DT_REAL, MDR_AXIS_SEQ), dy = mdr_ir_input(b, "dy",
        mdr_shape2(10, 16), DT_REAL, MDR_AXIS_SEQ);
    Value y = mdr_op_rope(b, x, 2, 10000.0), dx;
    mdr_ir_grad(b, 1, &y, &dy, 1, &x, &dx);
    const Node *n = mdr_ir_node_at(b, dx.node);
    assert_true(n->op == row()->def && n->in[0].node == dy.node && ((const RopeAttr *)n->attr)->sign == -1);
    mdr_ir_output(b, dx);
    Graph *g = NULL;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    mdr_ir_graph_free(g);
    b = mdr_ir_builder();
    mdr_op_rope(b, mdr_ir_input(b, "x", mdr_shape2(10, 15), DT_REAL, MDR_AXIS_SEQ), 3, 10000.0);
    e = mdr_ir_finish(b, &g);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "even"));
    mdr_err_free(e);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_angles),
                                       cmocka_unit_test(test_rotation), cmocka_unit_test(test_vjp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
