/* rmsnorm, layernorm and their gradients: the kernel contract, and a row that is one constant. */
#include "op_harness.h"

static const char *const name[] = {"rmsnorm", "rmsnorm_grad", "rmsnorm_dw", "layernorm", "layernorm_grad",
    "layernorm_dw"};

static void test_cases(void **state) {
    (void)state;
    for (int i = 0; i < MDR_COUNT(name); i++) op_check_cases(name[i], 256);
}
/* Every number of columns around the vector width, and one and many rows. */
static void test_sizes(void **state) {
    (void)state;
    const int32_t col[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 100, 129, 352}, row[] = {1, 66};
    for (int i = 0; i < MDR_COUNT(name); i++) {
        const OpRow *r = mdr_op_find(name[i]);
        for (int k = 0; k < MDR_COUNT(col) * MDR_COUNT(row); k++) {
            OpCase c = r->def->cases[0];                          /* its shapes [7, 13], [13], [7] with other numbers */
            for (int j = 0; j < c.n_in; j++)
                for (int d = 0; d < c.in[j].rank; d++) c.in[j].d[d] = c.in[j].d[d] == 13 ? col[k / 2] : row[k % 2];
            op_check_case(name[i], &c, 3 * row[k % 2] + col[k / 2]);
        }
    }
}
/* Outputs that nobody reads are absent. */
static void test_absent_outputs(void **state) {
    (void)state;
    for (int i = 0; i < 4; i += 3) {
        const OpRow *r = mdr_op_find(name[i]);
        OpTest t;
        op_open(&t, r->def, &r->def->cases[0], 0);
        float x[13], g[13], b[13], y[2][13];
        for (int k = 0; k < 13; k++) { x[k] = (float)t.in[0][k]; g[k] = (float)t.in[1][k]; b[k] = 0.5f; }
        t.n.in_type[0].shape.d[0] = t.n.out[0].shape.d[0] = 1;
        Call c = {.node = &t.n, .extent = {1, 1}, .in = {{x, 0, 13, 13, 4}, {g, 0, 0, 13, 4}, {b, 0, 0, 13, 4}}, .out = {{y[0],
            0, 13, 13, 4}}};
        r->ref32.run(&c, 0, 1);
        const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
        c.out[0].data = y[1];
        if (fast) fast->run(&c, 0, fast->units(&t.n, c.extent));
        for (int k = 0; k < 13 && fast; k++) assert_true(fabsf(y[0][k] - y[1][k]) <= 1e-5f);
        op_close(&t);
    }
}
/* Variance 0: eps alone stands under the root; layernorm gives the bias. */
static void test_constant_row(void **state) {
    (void)state;
    const OpRow *r = mdr_op_find("layernorm");
    OpTest t;
    op_open(&t, r->def, &r->def->cases[0], 0);
    for (int k = 0; k < 13; k++) t.in[0][k] = 3.25;
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL, *all[3] = {&r->ref32, &r->ref64, fast};
    for (int i = 0; i < 3; i++) {
        if (!all[i]) continue;
        OpOut o = op_run(&t, all[i], (OpHow){i == 1 ? 8 : 4, 0, 1, 0, 1, 0, false, NULL});
        for (int k = 0; k < 13; k++) assert_true(fabs(o.v[0][k] - t.in[2][k]) <= 1e-3);
        assert_true(fabs(o.v[2][0] - 1 / sqrt(1e-5)) <= 1e-3);
        op_free(&o);
    }
    op_close(&t);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_absent_outputs), cmocka_unit_test(test_constant_row)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
