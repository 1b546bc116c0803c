/* selective_scan and its gradient: every kernel against the double reference over many sizes, the reference's gradient
 * against central differences, the contract (bits in pieces, slices), causality, outputs nobody reads, the composition. */
#include "op_harness.h"
#include "op/selective_scan.h"

typedef struct Size { int32_t rows, cols, n_state; } Size;

static OpCase case_of(Size z, bool grad) {
    int32_t l = z.rows, c = z.cols, n = z.n_state;
    OpCase k = {.name = grad ? "gradient" : "forward", .n_in = grad ? 8 : 6, .lo = -1, .hi = 1,
                .in = {{2, {l, c}}, {2, {l, c}}, {2, {c, n}}, {2, {l, n}}, {2, {l, n}}, {1, {c}}},
                .in_axes = {0, 0, 1 + MDR_AXIS_MEMBER, 0, 0, 1 + MDR_AXIS_MEMBER}};
    if (grad) {
        k.in[IN_STATES] = mdr_shape2((l + SCAN_CHUNK - 1) / SCAN_CHUNK, n * c);
        k.in[IN_DY] = mdr_shape2(l, c);
    }
    return k;
}
static int64_t numel(const OpTest *t, int i) { return mdr_numel(t->n.in_type[i].shape) * OP_MEMBERS * OP_SEQS; }

/* As Mamba has them: delta in (0, 0.5), a = -(1 .. N) or so, the rest in (-1, 1). */
static void open_mamba(OpTest *t, Size z, bool grad, int32_t pad) {
    OpCase k = case_of(z, grad);
    const OpRow *row = mdr_op_find(grad ? "selective_scan_grad" : "selective_scan");
    assert_non_null(row);
    op_open(t, row->def, &k, pad);
    for (int64_t i = 0; i < numel(t, IN_DELTA); i++) t->in[IN_DELTA][i] = (double)(float)(0.25 + 0.249 * t->in[IN_DELTA][i]);
    for (int64_t i = 0; i < numel(t, IN_A); i++)
        t->in[IN_A][i] = (double)(float)(-(double)(i % z.n_state + 1) * (1.0 + 0.3 * t->in[IN_A][i]));
}

/* The gradient's inputs are forward's, its saved states (of the double reference, rounded to float) and some dy. */
static void open_grad(OpTest *g, Size z, int32_t pad) {
    OpTest f;
    open_mamba(&f, z, false, 0);
    open_mamba(g, z, true, pad);
    for (int i = 0; i < 6; i++) memcpy(g->in[i], f.in[i], (size_t)numel(&f, i) * sizeof(double));
    int64_t n = mdr_numel(f.n.out[OUT_STATES].shape) * OP_SEQS;
    for (int32_t m = 0; m < OP_MEMBERS; m++) {
        OpOut o = op_run(&f, &mdr_op_find("selective_scan")->ref64,
                         (OpHow){.real = 8, .member0 = m, .n_member = 1, .n_seq = OP_SEQS});
        for (int64_t i = 0; i < n; i++) g->in[IN_STATES][m * n + i] = (double)(float)o.v[OUT_STATES][i];
        op_free(&o);
    }
    op_close(&f);
}

static const Size sizes[] = {{1, 1, 1}, {16, 8, 4}, {17, 9, 2}, {37, 24, 4}, {50, 72, 8}, {33, 70, 3}, {31, 5, 5},
                             {48, 16, 16}, {20, 13, 17}, {15, 3, 6}, {128, 64, 4}, {300, 20, 16}};

static void test_cases(void **state) {
    (void)state;
    op_check_cases("selective_scan", 37);
    op_check_cases("selective_scan_grad", 37 * 24);
}
static void test_sizes(void **state) {
    (void)state;
    for (int i = 0; i < MDR_COUNT(sizes); i++)
        for (int32_t pad = 0; pad <= 3; pad += 3) {
            OpTest f, g;
            open_mamba(&f, sizes[i], false, pad);
            op_check(&f, sizes[i].rows);
            op_close(&f);
            open_grad(&g, sizes[i], pad);
            op_check(&g, (int64_t)sizes[i].rows * sizes[i].n_state + sizes[i].cols);
            op_close(&g);
        }
}

/* <y(x + e v) - y(x - e v), dy> / 2e along a random v of one input at a time against <gradient, v>, with sign. */
static void test_gradient(void **state) {
    (void)state;
    const Size z = {37, 5, 3};
    const double eps = 1e-5;
    const OpHow how = {.real = 8, .n_member = 1, .n_seq = 1};
    const Kernel *forward = &mdr_op_find("selective_scan")->ref64;
    OpTest f, g;
    open_mamba(&f, z, false, 0);
    open_mamba(&g, z, true, 0);
    OpOut y = op_run(&f, forward, how);
    for (int i = 0; i < 6; i++) memcpy(g.in[i], f.in[i], (size_t)numel(&f, i) * sizeof(double));
    memcpy(g.in[IN_STATES], y.v[OUT_STATES], (size_t)y.n[OUT_STATES] * sizeof(double));
    OpOut grad = op_run(&g, &mdr_op_find("selective_scan_grad")->ref64, how);
    Rng r = mdr_rng(OP_SEED, 7);
    for (int i = 0; i < 6; i++) {
        int64_t n = mdr_numel(f.n.in_type[i].shape);
        double *x = malloc((size_t)n * sizeof *x), *v = malloc((size_t)n * sizeof *v), want = 0, got = 0;
        memcpy(x, f.in[i], (size_t)n * sizeof *x);
        for (int64_t k = 0; k < n; k++) { v[k] = mdr_rng_normal(&r); want += grad.v[i][k] * v[k]; }
        for (int sign = 1; sign >= -1; sign -= 2) {
            for (int64_t k = 0; k < n; k++) f.in[i][k] = x[k] + sign * eps * v[k];
            OpOut moved = op_run(&f, forward, how);
            for (int64_t k = 0; k < moved.n[OUT_Y]; k++) got += sign * moved.v[OUT_Y][k] * g.in[IN_DY][k] / (2 * eps);
            op_free(&moved);
        }
        if (!(fabs(got - want) <= 1e-7 * fabs(want) + 1e-9) || !(fabs(want) > 1e-3))
            fail_msg("input %d: gradient %.12g, differences %.12g", i, want, got);
        memcpy(f.in[i], x, (size_t)n * sizeof *x);
        free(x);
        free(v);
    }
    op_free(&y);
    op_free(&grad);
    op_close(&f);
    op_close(&g);
}

/* Later rows of u, delta, B, C move no earlier row of y, bit for bit, and do move later ones. */
static void test_causal(void **state) {
    (void)state;
    const Size z = {40, 20, 5};
    const int timed[] = {IN_U, IN_DELTA, IN_B, IN_C};
    OpTest t;
    open_mamba(&t, z, false, 0);
    const OpRow *row = mdr_op_find("selective_scan");
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
    const Kernel *kernel[3] = {&row->ref32, &row->ref64, fast};
    for (int k = 0; k < 3; k++)
        for (int32_t t0 = 1; t0 < z.rows && kernel[k]; t0 += 6) {
            OpHow how = {.real = k == 1 ? 8 : 4, .n_member = 1, .n_seq = 1};
            OpOut before = op_run(&t, kernel[k], how);
            for (int i = 0; i < 4; i++) {
                int64_t cols = mdr_cols(t.n.in_type[timed[i]].shape);
                for (int64_t e = t0 * cols; e < z.rows * cols; e++) t.in[timed[i]][e] += 0.125;
            }
            OpOut after = op_run(&t, kernel[k], how);
            size_t early = (size_t)(t0 * z.cols);
            assert_memory_equal(before.v[OUT_Y], after.v[OUT_Y], early * sizeof(double));
            assert_memory_not_equal(before.v[OUT_Y] + early, after.v[OUT_Y] + early, (size_t)z.cols * sizeof(double));
            op_free(&before);
            op_free(&after);
        }
    op_close(&t);
}

/* One sequence, dense; output `absent` has no memory (-1: all are there). Returns the outputs that are there as floats. */
static void run_without(const OpTest *t, const Kernel *k, int absent, float *out[MDR_MAX_OUT]) {
    OpHow how = {.real = 4, .n_member = 1, .n_seq = 1};
    Call c = {.node = &t->n, .extent = {1, 1}};
    for (int i = 0; i < t->n.n_in; i++) c.in[i] = op_input(t, i, &how);
    for (int i = 0; i < t->n.n_out; i++) {
        c.out[i] = op_arg(t, &t->n.out[i], 4, 1, 1, true, true);
        if (i == absent) { free(c.out[i].data); c.out[i].data = NULL; }
        out[i] = c.out[i].data;
    }
    Err *e = mdr_alloc_big(k->scratch(&t->n, c.extent), &c.scratch);
    if (e) fail_msg("%s", mdr_err_text(e));
    k->run(&c, 0, k->units ? k->units(&t->n, c.extent) : 1);
    mdr_free_big(c.scratch);
    for (int i = 0; i < t->n.n_in; i++) free(c.in[i].data);
}
static void test_unread(void **state) {
    (void)state;
    for (int grad = 0; grad < 2; grad++) {
        OpTest t;
        open_mamba(&t, (Size){37, 13, 6}, grad, 0);
        const OpRow *row = mdr_op_find(t.n.op->name);
        const Kernel *kernel[2] = {&row->ref32, mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL};
        for (int k = 0; k < 2 && kernel[k]; k++) {
            float *all[MDR_MAX_OUT], *some[MDR_MAX_OUT];
            run_without(&t, kernel[k], -1, all);
            for (int absent = grad ? 0 : OUT_STATES; absent < t.n.n_out; absent++) {
                run_without(&t, kernel[k], absent, some);
                for (int i = 0; i < t.n.n_out; i++) {
                    if (i != absent)
                        assert_memory_equal(some[i], all[i], (size_t)mdr_numel(t.n.out[i].shape) * sizeof(float));
                    free(some[i]);
                }
            }
            for (int i = 0; i < t.n.n_out; i++) free(all[i]);
        }
        op_close(&t);
    }
}

/* A decay of zero, of one and beyond what float holds: the fast exponential's ends, NaN included. */
static void test_extremes(void **state) {
    (void)state;
    const double exponent[] = {0.0, -1e-30, -50.0, -87.0, -200.0, -1e30, 80.0, 88.5, 89.0, 1e5, (double)NAN};
    OpCase k = case_of((Size){2, 8, 4}, false);
    const OpRow *row = mdr_op_find("selective_scan");
    for (int e = 0; e < MDR_COUNT(exponent); e++) {
        OpTest t;
        op_open(&t, row->def, &k, 0);
        for (int64_t i = 0; i < numel(&t, IN_DELTA); i++) t.in[IN_DELTA][i] = 1.0;
        for (int64_t i = 0; i < numel(&t, IN_A); i++) t.in[IN_A][i] = (double)(float)exponent[e];
        for (int i = IN_B; i <= IN_C; i++)
            for (int64_t m = 0; m < numel(&t, i); m++) t.in[i][m] = 1.0;
        for (int64_t i = 0; i < numel(&t, IN_U); i++) t.in[IN_U][i] = 0.25;
        const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : &row->ref32;
        OpHow how = {.real = 4, .n_member = 1, .n_seq = 1};
        OpOut want = op_run(&t, &row->ref32, how), got = op_run(&t, fast, how);
        for (int64_t i = 0; i < want.n[OUT_Y]; i++) {
            double a = got.v[OUT_Y][i], b = want.v[OUT_Y][i];
            if (b != b ? a == a : isinf(b) ? a != b : !(fabs(a - b) <= 2e-5 * fabs(b)))
                fail_msg("exponent %g, y[%d]: %g, expected %g", exponent[e], (int)i, a, b);
        }
        op_free(&want);
        op_free(&got);
        op_close(&t);
    }
}

static bool all_but_scan(const OpDef *op, void *ctx) {
    (void)ctx;
    return strcmp(op->name, "selective_scan") != 0;
}
/* Composed and differentiated the graph verifies: one scan, one scan_grad, gradients of the right shapes. */
static void test_compose(void **state) {
    (void)state;
    const Shape shape[6] = {mdr_shape2(20, 12), mdr_shape2(20, 12), mdr_shape2(12, 4),
                            mdr_shape2(20, 4), mdr_shape2(20, 4), mdr_shape1(12)};
    Builder *b = mdr_ir_builder(), *to = mdr_ir_builder();
    Value x[6], dx[6];
    for (int i = 0; i < 6; i++)
        x[i] = i == IN_A || i == IN_D ? mdr_ir_param(b, "p", shape[i], (Init){.kind = INIT_CONST, .a = 1})
                                      : mdr_ir_input(b, "x", shape[i], DT_REAL, MDR_AXIS_SEQ);
    mdr_ir_output(b, mdr_op_selective_scan(b, x[0], x[1], x[2], x[3], x[4], x[5]));
    Graph *g = NULL, *h = NULL;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out)};
    mdr_ir_copy(to, g, all_but_scan, NULL, &map);
    Value y = mdr_ir_copied(&map, g->output[0]), dy = mdr_ir_input(to, "dy", shape[0], DT_REAL, MDR_AXIS_SEQ);
    for (int i = 0; i < 6; i++) x[i] = mdr_ir_copied(&map, x[i]);
    mdr_ir_grad(to, 1, &y, &dy, 6, x, dx);
    for (int i = 0; i < 6 && !mdr_ir_failed(to); i++) {
        assert_true(mdr_ir_has(dx[i]) && mdr_shape_equal(mdr_ir_type(to, dx[i]).shape, shape[i]));
        mdr_ir_output(to, dx[i]);
    }
    e = mdr_ir_finish(to, &h);
    if (e) fail_msg("%s", mdr_err_text(e));
    int n_scan = 0, n_grad = 0;
    for (int32_t i = 0; i < h->n_node; i++) {
        n_scan += h->node[i].op == &mdr_ir_op_scan;
        n_grad += h->node[i].op == &mdr_ir_op_scan_grad;
    }
    assert_int_equal(n_scan, 1);
    assert_int_equal(n_grad, 1);
    mdr_free(map.out);
    mdr_ir_graph_free(h);
    mdr_ir_graph_free(g);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases), cmocka_unit_test(test_sizes), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_causal), cmocka_unit_test(test_unread), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_compose)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
