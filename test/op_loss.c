/* Cross entropy, its gradient, class counts: the kernel contract; ignored targets; one sure prediction; ties and
 * NaN; the gradient against differences of the loss. */
#include "op_harness.h"

static void test_cases(void **state) {
    (void)state;
    op_check_cases("ce", 64);
    op_check_cases("ce_grad", 64);
    op_check_cases("class_counts", 1);
}
static void test_sizes(void **state) {
    (void)state;
    const int32_t col[] = {2, 7, 8, 9, 16, 17, 31, 64, 100, 1027, 8192};
    const char *const name[] = {"ce", "ce_grad", "class_counts"};
    for (int i = 0; i < MDR_COUNT(name); i++)
        for (int k = 0; k < MDR_COUNT(col); k++) {
            OpCase c = mdr_op_find(name[i])->def->cases[0];
            c.hi_int = c.in[0].d[1] = col[k];
            c.in[0].d[0] = c.in[1].d[0] = 3;
            op_check_case(name[i], &c, col[k]);
        }
}
/* Every second target is ignored: the loss and counts are those of the other rows, the gradient there is zero. */
static void test_ignored(void **state) {
    (void)state;
    const char *const name[] = {"ce", "ce_grad", "class_counts"};
    for (int i = 0; i < 3; i++) {
        const OpRow *r = mdr_op_find(name[i]);
        OpTest t;
        op_open(&t, r->def, &r->def->cases[0], 0);
        for (int k = 0; k < 37 * OP_SEQS; k += 2) t.in[1][k] = k % 4 ? -1 : -100;
        op_check(&t, 64);
        OpOut o = op_run(&t, &r->ref32, (OpHow){4, 0, 1, 0, 1, 0, false, NULL});
        double counted = 0;
        for (int k = 0; k < 37 * 16 && i == 1; k++) assert_true((o.v[0][k] == 0) == ((k / 16) % 2 == 0));
        for (int k = 0; k < 16 && i == 2; k++) counted += o.v[0][k];
        if (i == 2) assert_true(counted == 18);
        op_free(&o);
        op_close(&t);
    }
}
static void set_row(OpTest *t, int row, int cols, const double *x, int target) {
    for (int k = 0; k < cols; k++) t->in[0][row * cols + k] = x[k];
    t->in[1][row] = target;
}
static void test_ties_and_nan(void **state) {
    (void)state;
    const OpRow *r = mdr_op_find("class_counts");
    const OpCase c = {.name = "by hand", .n_in = 2, .in = {{2, {4, 19}}, {1, {4}}}, .in_dtype = {DT_REAL, DT_I32},
        .lo = 0, .hi = 1, .hi_int = 19};
    OpTest t;
    op_open(&t, r->def, &c, 0);
    double x[4][19] = {{0}};
    x[0][8] = x[0][3] = 2;                                                         /* first of two in different lanes */
    x[1][8] = x[1][0] = 1;                                                                /* first of two in one lane */
    for (int k = 0; k < 19; k++) x[2][k] = (double)NAN;
    x[2][18] = -3;                                                                                 /* the only number */
    for (int k = 0; k < 19; k++) x[3][k] = -(double)INFINITY;
    const int target[4] = {3, 8, 18, 0}, best[4] = {3, 0, 18, 0};
    for (int k = 0; k < 4; k++) set_row(&t, k, 19, x[k], target[k]);
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL, *all[3] = {&r->ref32, &r->ref64, fast};
    for (int i = 0; i < 3; i++) {
        if (!all[i]) continue;
        OpOut o = op_run(&t, all[i], (OpHow){i == 1 ? 8 : 4, 0, 1, 0, 1, 0, false, NULL});
        double want[3][19] = {{0}};
        for (int k = 0; k < 4; k++) {
            want[0][target[k]]++;
            want[1][best[k]]++;
            want[2][best[k]] += best[k] == target[k];
        }
        assert_memory_equal(o.v[0], want, sizeof want);
        op_free(&o);
    }
    op_close(&t);
}
/* Logits of 1000: exp overflows unless the largest is taken off first. NaN in: NaN out, not a number that looks like a
 * loss. */
static void test_extremes(void **state) {
    (void)state;
    const OpRow *r = mdr_op_find("ce");
    OpCase c = r->def->cases[0];
    c.in[0] = mdr_shape2(1, 11);
    c.in[1].d[0] = 1;
    c.hi_int = 11;
    for (int bad = 0; bad < 2; bad++) {
        OpTest t;
        op_open(&t, r->def, &c, 0);
        double x[11];
        for (int k = 0; k < 11; k++) x[k] = k == 4 ? 1000 : -1000;
        if (bad) x[9] = (double)NAN;
        set_row(&t, 0, 11, x, 7);
        t.in[2][0] = 0.5;
        const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL, *all[3] = {&r->ref32, &r->ref64, fast};
        for (int i = 0; i < 3; i++) {
            if (!all[i]) continue;
            OpOut o = op_run(&t, all[i], (OpHow){i == 1 ? 8 : 4, 0, 1, 0, 1, 0, false, NULL});
            if (bad) assert_true(isnan(o.v[0][0]));
            else assert_true(o.v[0][0] == 1000);
            op_free(&o);
        }
        op_close(&t);
    }
}
static void test_gradient(void **state) {
    (void)state;
    const OpRow *ce = mdr_op_find("ce"), *grad = mdr_op_find("ce_grad");
    OpTest f, g;
    op_open(&f, ce->def, &ce->def->cases[0], 0);
    op_open(&g, grad->def, &grad->def->cases[0], 0);
    for (int i = 0; i < 3; i++) memcpy(g.in[i], f.in[i], (size_t)mdr_numel(f.n.in_type[i].shape) * sizeof(double));
    const double h = 1e-5, dloss = g.in[3][0];
    OpHow how = {8, 0, 1, 0, 1, 0, false, NULL};
    OpOut dx = op_run(&g, &grad->ref64, how);
    for (int k = 0; k < 37 * 16; k += 7) {
        double keep = f.in[0][k], l[2];
        for (int side = 0; side < 2; side++) {
            f.in[0][k] = keep + (side ? h : -h);
            OpOut o = op_run(&f, &ce->ref64, how);
            l[side] = o.v[0][0];
            op_free(&o);
        }
        f.in[0][k] = keep;
        double err = fabs((l[1] - l[0]) / (2 * h) * dloss - dx.v[0][k]);
        if (!(err <= 1e-7)) fail_msg("logit %d: difference %g", k, err);
    }
    op_free(&dx);
    op_close(&f);
    op_close(&g);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),        cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_ignored),      cmocka_unit_test(test_ties_and_nan),
                                       cmocka_unit_test(test_extremes),     cmocka_unit_test(test_gradient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
