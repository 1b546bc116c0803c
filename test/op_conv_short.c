/* conv_short, conv_short_dx, conv_short_dw: every kernel against the double reference for all numbers of taps, the gradients
 * against central differences, the contract (pieces, slices, add), causality, tiling. */
#include "op_harness.h"

typedef struct Size { int32_t rows, cols_x, tiles, taps; } Size;
static const char *const names[] = {"conv_short", "conv_short_dx", "conv_short_dw"};

/* The three ops over one size; which: index of names. attr lives in *attr. */
static OpCase case_of(Size z, int which, int32_t *attr) {
    Shape x = {2, {z.rows, z.cols_x}}, w = {2, {z.taps, z.cols_x * z.tiles}}, y = {2, {z.rows, z.cols_x * z.tiles}};
    OpCase k = {.name = names[which], .n_in = which ? 2 : 3, .lo = -1, .hi = 1, .attr = attr};
    *attr = which == 1 ? z.cols_x : z.taps;
    k.in[0] = which == 1 ? y : x;
    k.in[1] = which == 2 ? y : w;
    if (which < 2) k.in_axes[1] = 1 + MDR_AXIS_MEMBER;
    if (which == 0) k.in[2] = mdr_shape1(z.cols_x * z.tiles);
    return k;
}

static void test_cases(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) op_check_cases(names[i], 40);
}
static void test_sizes(void **state) {
    (void)state;
    for (int which = 0; which < 3; which++)
        for (int32_t taps = 1; taps <= 8; taps++) {
            const Size size[] = {{40, 24, 2, taps}, {7, 13, 3, taps}, {33, 72, 1, taps}, {taps > 1 ? taps - 1 : 1, 5, 2, taps}};
            for (int i = 0; i < MDR_COUNT(size); i++) {
                int32_t attr;
                OpCase k = case_of(size[i], which, &attr);
                op_check_case(names[which], &k, size[i].rows + taps * 3);
            }
        }
}

/* The equation itself, written once more with the tiling spelt out: y column c reads x column c mod Cx. */
static void test_equation(void **state) {
    (void)state;
    const Size z = {9, 4, 3, 3};
    int32_t attr;
    OpCase k = case_of(z, 0, &attr);
    OpTest t;
    op_open(&t, mdr_op_find("conv_short")->def, &k, 0);
    OpOut y = op_run(&t, &mdr_op_find("conv_short")->ref64, (OpHow){.real = 8, .n_member = 1, .n_seq = 1});
    for (int r = 0; r < 9; r++)
        for (int c = 0; c < 12; c++) {
            double x1 = r >= 1 ? t.in[0][(r - 1) * 4 + c % 4] : 0, x2 = r >= 2 ? t.in[0][(r - 2) * 4 + c % 4] : 0;
            double want = t.in[2][c] + t.in[1][24 + c] * t.in[0][r * 4 + c % 4] + t.in[1][12 + c] * x1 + t.in[1][c] * x2;
            assert_true(fabs(want - y.v[0][r * 12 + c]) <= 1e-14);
        }
    op_free(&y);
    op_close(&t);
}

/* Differences of <y, dy> along random directions of x and w against the two gradient ops. */
static void test_gradient(void **state) {
    (void)state;
    const Size z = {21, 6, 4, 4};
    const double eps = 1e-4;
    const OpHow how = {.real = 8, .n_member = 1, .n_seq = 1};
    OpTest t[3];
    int32_t attr[3];
    for (int i = 0; i < 3; i++) {
        OpCase k = case_of(z, i, &attr[i]);
        op_open(&t[i], mdr_op_find(names[i])->def, &k, 0);
    }
    size_t n_x = (size_t)(z.rows * z.cols_x), n_w = (size_t)(z.taps * z.cols_x * z.tiles), n_y = n_x * (size_t)z.tiles;
    memcpy(t[1].in[1], t[0].in[1], n_w * sizeof(double));
    memcpy(t[2].in[0], t[0].in[0], n_x * sizeof(double));
    memcpy(t[2].in[1], t[1].in[0], n_y * sizeof(double));
    const double *dy = t[1].in[0];
    Rng r = mdr_rng(OP_SEED, 3);
    for (int i = 0; i < 2; i++) {
        OpOut grad = op_run(&t[i + 1], &mdr_op_find(names[i + 1])->ref64, how);
        size_t n = i ? n_w : n_x;
        double *x = malloc(n * sizeof *x), *v = malloc(n * sizeof *v), want = 0, got = 0;
        memcpy(x, t[0].in[i], n * sizeof *x);
        for (size_t k = 0; k < n; k++) { v[k] = mdr_rng_normal(&r); want += v[k] * grad.v[0][k]; }
        for (int sign = 1; sign >= -1; sign -= 2) {
            for (size_t k = 0; k < n; k++) t[0].in[i][k] = x[k] + sign * eps * v[k];
            OpOut y = op_run(&t[0], &mdr_op_find(names[0])->ref64, how);
            for (size_t k = 0; k < n_y; k++) got += sign * y.v[0][k] * dy[k] / (2 * eps);
            op_free(&y);
        }
        if (!(fabs(got - want) <= 1e-8 * fabs(want)) || !(fabs(want) > 1e-3))
            fail_msg("input %d: gradient %.12g, differences %.12g", i, want, got);
        memcpy(t[0].in[i], x, n * sizeof *x);
        free(x);
        free(v);
        op_free(&grad);
    }
    for (int i = 0; i < 3; i++) op_close(&t[i]);
}

/* A NaN in row t0 of x reaches rows t0 .. t0+taps-1 of y and no other; in dy, rows t0-taps+1 .. t0 of dx. */
static void test_reach(void **state) {
    (void)state;
    const Size z = {80, 20, 2, 3};
    for (int which = 0; which < 2; which++)
        for (int32_t t0 = 0; t0 < z.rows; t0 += 7) {
            OpTest t;
            int32_t attr;
            OpCase k = case_of(z, which, &attr);
            const OpRow *row = mdr_op_find(names[which]);
            op_open(&t, row->def, &k, 0);
            int64_t cols = mdr_cols(t.n.in_type[0].shape), out_cols = mdr_cols(t.n.out[0].shape);
            for (int64_t c = 0; c < cols; c++) t.in[0][t0 * cols + c] = (double)NAN;
            const Kernel *kernel[3] = {&row->ref32, &row->ref64, mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL};
            for (int i = 0; i < 3 && kernel[i]; i++) {
                OpOut y = op_run(&t, kernel[i], (OpHow){.real = i == 1 ? 8 : 4, .n_member = 1, .n_seq = 1});
                for (int64_t e = 0; e < y.n[0]; e++) {
                    int64_t late = which ? t0 - e / out_cols : e / out_cols - t0;
                    assert_int_equal(y.v[0][e] != y.v[0][e], late >= 0 && late < z.taps);
                }
                op_free(&y);
            }
            op_close(&t);
        }
}

/* The vjp as autodiff uses it: gradients of shared weights are summed over the batch, x's is of each sequence. */
static void test_vjp(void **state) {
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(10, 8), DT_REAL, MDR_AXIS_SEQ);
    Value dy = mdr_ir_input(b, "dy", mdr_shape2(10, 32), DT_REAL, MDR_AXIS_SEQ);
    Value w = mdr_ir_param(b, "w", mdr_shape2(3, 32), (Init){.kind = INIT_CONST, .a = 1});
    Value bias = mdr_ir_param(b, "b", mdr_shape1(32), (Init){.kind = INIT_CONST, .a = 1});
    Value y = mdr_op_conv_short(b, x, w, bias), in[3] = {x, w, bias}, dx[3];
    mdr_ir_grad(b, 1, &y, &dy, 3, in, dx);
    for (int i = 0; i < 3; i++) {
        Type a = mdr_ir_type(b, in[i]), d = mdr_ir_type(b, dx[i]);
        assert_true(mdr_ir_has(dx[i]) && mdr_shape_equal(a.shape, d.shape));
        assert_int_equal(d.phase, i ? PH_POST : PH_SEQ);
        mdr_ir_output(b, dx[i]);
    }
    Graph *g = NULL;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    mdr_ir_graph_free(g);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases), cmocka_unit_test(test_sizes), cmocka_unit_test(test_equation),
        cmocka_unit_test(test_gradient), cmocka_unit_test(test_reach), cmocka_unit_test(test_vjp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
