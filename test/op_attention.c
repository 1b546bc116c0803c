/* attention and attention_grad: every kernel against the double reference over heads, head sizes, windows and
 * lengths; the equation written once more; the gradient against central differences; what a row may see; prefixes;
 * one packed buffer. */
#include "op_harness.h"

static OpHow run_of(int real, int32_t n_member, int32_t n_seq) {
    return (OpHow){.real = real, .n_member = n_member, .n_seq = n_seq};
}

typedef struct Size { int32_t rows, heads, d, window; } Size;

static OpCase case_y(Size z, AttentionAttr *attr) {
    const Shape x = {2, {z.rows, z.heads * z.d}};
    *attr = (AttentionAttr){z.heads, z.window};
    return (OpCase){.name = "sizes", .attr = attr, .n_in = 3, .in = {x, x, x}, .lo = -2, .hi = 2};
}
static OpCase case_grad(Size z, AttentionAttr *attr, bool dlse) {
    const Shape x = {2, {z.rows, z.heads * z.d}}, l = {2, {z.rows, z.heads}}, none = {0, {0}};
    *attr = (AttentionAttr){z.heads, z.window};
    return (OpCase){.name = "sizes", .attr = attr, .n_in = 7, .in = {x, x, x, x, l, x, dlse ? l : none}, .lo = -2,
        .hi = 2};
}
static const OpRow *forward(void) { return mdr_op_find("attention"); }
static const OpRow *backward(void) { return mdr_op_find("attention_grad"); }

/* y and lse of the gradient's inputs as the forward op gives them, for all members and sequences */
static void make_consistent(OpTest *t, Size z) {
    AttentionAttr attr;
    OpTest f;
    OpCase k = case_y(z, &attr);
    op_open(&f, forward()->def, &k, 0);
    for (int i = 0; i < 3; i++)
        memcpy(f.in[i], t->in[i], (size_t)mdr_numel(k.in[i]) * OP_MEMBERS * OP_SEQS * sizeof(double));
    OpOut y = op_run(&f, &forward()->ref64, run_of(8, OP_MEMBERS, OP_SEQS));
    for (int i = 0; i < 2; i++)
        for (int64_t e = 0; e < y.n[i]; e++) t->in[3 + i][e] = (double)(float)y.v[i][e];
    op_free(&y);
    op_close(&f);
}

static void test_cases(void **state) {
    (void)state;
    op_check_cases("attention", 128);
    op_check_cases("attention_grad", 128);
}

static void test_sizes(void **state) {
    (void)state;
    static const Size size[] = {
        {1, 16, 8, 0},  {2, 2, 16, 1},  {31, 2, 8, 0},  {33, 1, 128, 0},  {127, 16, 8, 0}, {127, 2, 16, 32}, {127, 1,
            5, 1},
        {128, 2, 8, 0}, {24, 1, 8, 32}, {25, 1, 24, 7}, {193, 2, 8, 100}, {230, 1, 8, 0},  {97, 1, 64, 0},   {130, 2,
            32, 32},
        {48, 1, 8, 23}, {49, 1, 8, 24}, {50, 1, 8, 25}, {121, 1, 40, 0},  {33, 2, 3, 32},  {200, 1, 16, 1}};
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int32_t pad = 0; pad <= 5; pad += 5) {
            AttentionAttr attr;
            OpTest t;
            OpCase k = case_y(size[i], &attr);
            op_open(&t, forward()->def, &k, pad);
            op_check(&t, size[i].rows);
            op_close(&t);
            k = case_grad(size[i], &attr, i % 2);
            op_open(&t, backward()->def, &k, pad);
            /* one row: the gradient of q would be 0, and every error large */
            if (size[i].rows > 1) make_consistent(&t, size[i]);
            op_check(&t, size[i].rows + size[i].d);
            op_close(&t);
        }
}

/* The equation with a plain softmax, window and scale spelt out. */
static void test_equation(void **state) {
    (void)state;
    const Size z = {9, 2, 4, 3};
    AttentionAttr attr;
    OpTest t;
    OpCase k = case_y(z, &attr);
    op_open(&t, forward()->def, &k, 0);
    OpOut y = op_run(&t, &forward()->ref64, run_of(8, 1, 1));
    for (int32_t i = 0; i < 9; i++)
        for (int32_t c = 0; c < 8; c++) {
            double sum = 0, want = 0;
            for (int32_t j = i > 3 ? i - 3 : 0; j <= i; j++) {
                double s = 0;
                for (int32_t e = c / 4 * 4; e < c / 4 * 4 + 4; e++) s += t.in[0][i * 8 + e] * t.in[1][j * 8 + e];
                sum += exp(s / 2);
                want += exp(s / 2) * t.in[2][j * 8 + c];
            }
            assert_true(fabs(want / sum - y.v[0][i * 8 + c]) <= 1e-13);
            assert_true(fabs(log(sum) - y.v[1][i * 2 + c / 4]) <= 1e-13);
        }
    op_free(&y);
    op_close(&t);
}

/* <y, dy> + <lse, dlse> differenced along random directions of q, k and v */
static void check_gradient(Size z) {
    const double eps = 1e-4;
    const OpHow how = run_of(8, 1, 1);
    AttentionAttr attr;
    OpTest f, g;
    OpCase kf = case_y(z, &attr), kg = case_grad(z, &attr, true);
    const size_t n = (size_t)(z.rows * z.heads * z.d), n_lse = (size_t)(z.rows * z.heads);
    op_open(&f, forward()->def, &kf, 0);
    op_open(&g, backward()->def, &kg, 0);
    for (int i = 0; i < 3; i++) memcpy(g.in[i], f.in[i], n * sizeof(double));
    OpOut y = op_run(&f, &forward()->ref64, how);
    memcpy(g.in[3], y.v[0], n * sizeof(double));
    memcpy(g.in[4], y.v[1], n_lse * sizeof(double));
    op_free(&y);
    OpOut grad = op_run(&g, &backward()->ref64, how);
    Rng r = mdr_rng(OP_SEED, 5);
    for (int i = 0; i < 3; i++) {
        double *x = malloc(n * sizeof *x), *v = malloc(n * sizeof *v), want = 0, got = 0;
        memcpy(x, f.in[i], n * sizeof *x);
        for (size_t e = 0; e < n; e++) { v[e] = mdr_rng_normal(&r); want += v[e] * grad.v[i][e]; }
        for (int sign = 1; sign >= -1; sign -= 2) {
            for (size_t e = 0; e < n; e++) f.in[i][e] = x[e] + sign * eps * v[e];
            y = op_run(&f, &forward()->ref64, how);
            for (size_t e = 0; e < n; e++) got += sign * y.v[0][e] * g.in[5][e] / (2 * eps);
            for (size_t e = 0; e < n_lse; e++) got += sign * y.v[1][e] * g.in[6][e] / (2 * eps);
            op_free(&y);
        }
        if (!(fabs(got - want) <= 2e-6 * fabs(want)) || !(fabs(want) > 1e-2))
            fail_msg("input %d, window %d: gradient %.12g, differences %.12g", i, z.window, want, got);
        memcpy(f.in[i], x, n * sizeof *x);
        free(x);
        free(v);
    }
    op_free(&grad);
    op_close(&f);
    op_close(&g);
}
static void test_gradient(void **state) {
    (void)state;
    check_gradient((Size){21, 2, 4, 0});
    check_gradient((Size){21, 2, 6, 3});
}

/* Rows t0.. of q, k, v changed: rows before t0 keep their bits, later rows change; with a window, rows past t0+n+w
 * too keep theirs. */
static void check_reach(const Kernel *kernel, int real, Size z, int32_t t0, int32_t n_changed) {
    AttentionAttr attr;
    OpTest t;
    OpCase k = case_y(z, &attr);
    op_open(&t, forward()->def, &k, 0);
    const int32_t cols = z.heads * z.d;
    const OpHow how = run_of(real, 1, 1);
    OpOut a = op_run(&t, kernel, how);
    for (int i = 0; i < 3; i++)
        for (int32_t e = t0 * cols; e < (t0 + n_changed) * cols; e++) t.in[i][e] = 3.0 - t.in[i][e];
    OpOut b = op_run(&t, kernel, how);
    for (int32_t row = 0; row < z.rows; row++) {
        const bool sees = row >= t0 && (z.window == 0 || row <= t0 + n_changed - 1 + z.window);
        bool y = memcmp(a.v[0] + row * cols, b.v[0] + row * cols, (size_t)cols * sizeof(double)) == 0;
        bool lse = memcmp(a.v[1] + row * z.heads, b.v[1] + row * z.heads, (size_t)z.heads * sizeof(double)) == 0;
        if (y == sees || lse == sees) fail_msg("rows %d from %d changed, window %d: row %d %s", n_changed, t0,
            z.window, row,
                                               sees ? "has the same bits" : "has other bits");
    }
    op_free(&a);
    op_free(&b);
    op_close(&t);
}
static void test_reach(void **state) {
    (void)state;
    for (int32_t window = 0; window <= 40; window += 10)
        for (int32_t t0 = 0; t0 < 127; t0 += 9) {
            const Size z = {127, 2, 8, window};
            AttentionAttr attr;
            OpTest t;
            OpCase k = case_y(z, &attr);
            op_open(&t, forward()->def, &k, 0);
            const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
            const int32_t n = window ? 1 : 127 - t0;
            check_reach(&forward()->ref32, 4, z, t0, n);
            check_reach(&forward()->ref64, 8, z, t0, n);
            if (fast) check_reach(fast, 4, z, t0, n);
            op_close(&t);
        }
}

/* A longer sequence that begins alike gives the same first rows, forward and (with dy = 0 beyond) backward. */
static void test_prefix(void **state) {
    (void)state;
    if (!mdr_cpu_avx2()) skip();
    const OpHow how = run_of(4, 1, 1);
    for (int32_t rows = 1; rows < 230; rows += 19) {
        AttentionAttr attr;
        OpTest t[2], g[2];
        OpOut y[2], d[2];
        const Size z[2] = {{rows, 1, 8, 0}, {230, 1, 8, 0}};
        for (int i = 0; i < 2; i++) {
            OpCase k = case_y(z[i], &attr);
            op_open(&t[i], forward()->def, &k, 0);
            k = case_grad(z[i], &attr, false);
            op_open(&g[i], backward()->def, &k, 0);
        }
        const size_t n = (size_t)rows * 8 * sizeof(double);
        for (int i = 0; i < 3; i++) memcpy(t[1].in[i], t[0].in[i], n);
        for (int i = 0; i < 6; i++) memcpy(g[1].in[i], g[0].in[i], i == 4 ? n / 8 : n);
        for (int32_t e = rows * 8; e < 230 * 8; e++) g[1].in[5][e] = g[1].in[3][e] = 0;
        for (int i = 0; i < 2; i++) {
            y[i] = op_run(&t[i], mdr_op_fast(&t[i].n), how);
            d[i] = op_run(&g[i], mdr_op_fast(&g[i].n), how);
        }
        assert_memory_equal(y[0].v[0], y[1].v[0], n);
        assert_memory_equal(y[0].v[1], y[1].v[1], n / 8);
        for (int i = 0; i < 3; i++) assert_memory_equal(d[0].v[i], d[1].v[i], n);
        for (int i = 0; i < 2; i++) { op_free(&y[i]); op_free(&d[i]); op_close(&t[i]); op_close(&g[i]); }
    }
}

/* 4,096 rows: no error grows with the length beyond the one tolerance, and scratch stays O(L d). */
static void test_long(void **state) {
    (void)state;
    if (!mdr_cpu_avx2()) skip();
    const Size z = {2050, 1, 8, 0};
    AttentionAttr attr;
    OpTest t;
    OpCase k = case_grad(z, &attr, false);
    op_open(&t, backward()->def, &k, 0);
    make_consistent(&t, z);
    OpOut want = op_run(&t, &backward()->ref64, run_of(8, 1, 1));
    OpOut got = op_run(&t, mdr_op_fast(&t.n), run_of(4, 1, 1));
    op_near(&t, &got, &want, op_tol(z.rows), "long");
    assert_true(mdr_op_fast(&t.n)->scratch(&t.n, (Extent){1, 8}) < (size_t)z.rows * 8 * 6 * sizeof(float));
    op_free(&want);
    op_free(&got);
    op_close(&t);
    k = case_y((Size){4096, 1, 8, 0}, &attr);
    op_open(&t, forward()->def, &k, 0);
    want = op_run(&t, &forward()->ref64, run_of(8, 1, 1));
    got = op_run(&t, mdr_op_fast(&t.n), run_of(4, 1, 1));
    op_near(&t, &got, &want, op_tol(4096), "long");
    op_free(&want);
    op_free(&got);
    op_close(&t);
}

/* Scores of hundreds, where exp without the maximum would overflow, and a row whose keys shrink to nothing. */
static void test_large_scores(void **state) {
    (void)state;
    const Size z = {127, 2, 8, 0};
    AttentionAttr attr;
    OpTest t;
    OpCase k = case_y(z, &attr);
    k.lo = -20, k.hi = 20;
    op_open(&t, forward()->def, &k, 0);
    OpOut want = op_run(&t, &forward()->ref64, run_of(8, 1, OP_SEQS));
    const Kernel *kernel[2] = {&forward()->ref32, mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL};
    for (int i = 0; i < 2 && kernel[i]; i++) {
        OpOut got = op_run(&t, kernel[i], run_of(4, 1, OP_SEQS));
        /* a score of 1000 is known to 1000 eps */
        op_near(&t, &got, &want, 1000 * (double)FLT_EPSILON, "large scores");
        op_free(&got);
    }
    op_free(&want);
    op_close(&t);
}

/* q, k, v and dq, dk, dv as columns of packed buffers, and any set of outputs unwanted: the same bits as apart. */
static void check_packed(const Kernel *kernel, const OpTest *g, int64_t rows, int64_t cols, int64_t heads) {
    OpOut want = op_run(g, kernel, run_of(4, 1, 1));
    float *in[7] = {0}, *out = malloc((size_t)(rows * cols * 3) * sizeof *out);
    in[0] = malloc((size_t)(rows * cols * 3) * sizeof(float));
    in[1] = in[0] + cols;
    in[2] = in[1] + cols;
    Call c = {.node = &g->n, .extent = {1, 1}};
    for (int i = 0; i < 6; i++) {
        const int64_t w = i == 4 ? heads : cols, ld = i < 3 ? 3 * cols : w;
        if (i > 2) in[i] = malloc((size_t)(rows * w) * sizeof(float));
        for (int64_t e = 0; e < rows * w; e++) in[i][e / w * ld + e % w] = (float)g->in[i][e];
        c.in[i] = (Arg){in[i], 0, rows * ld, ld, 4};
    }
    Err *e = mdr_alloc_big(kernel->scratch(&g->n, c.extent), &c.scratch);
    if (e) fail_msg("%s", mdr_err_text(e));
    for (unsigned wanted = 1; wanted < 8; wanted++) {
        for (int64_t i = 0; i < rows * cols * 3; i++) out[i] = (float)OP_GUARD;
        for (int i = 0; i < 3; i++) c.out[i] = (Arg){(wanted >> i) & 1u ? out + i * cols : NULL, 0, rows * 3 * cols,
            3 * cols, 4};
        kernel->run(&c, 0, kernel->units ? kernel->units(&g->n, c.extent) : 1);
        for (int64_t i = 0; i < rows * cols * 3; i++) {
            const int64_t which = i / cols % 3;
            const double is = (wanted >> which) & 1u ? want.v[which][i / (3 * cols) * cols + i % cols] : OP_GUARD;
            assert_true((double)out[i] == is);
        }
    }
    mdr_free_big(c.scratch);
    free(out);
    free(in[0]);
    for (int i = 3; i < 6; i++) free(in[i]);
    op_free(&want);
}
static void test_packed(void **state) {
    (void)state;
    const Size size[] = {{127, 4, 8, 0}, {50, 2, 5, 9}};
    for (int i = 0; i < MDR_COUNT(size); i++) {
        AttentionAttr attr;
        OpTest t;
        OpCase k = case_grad(size[i], &attr, false);
        op_open(&t, backward()->def, &k, 0);
        make_consistent(&t, size[i]);
        check_packed(&backward()->ref32, &t, size[i].rows, size[i].heads * size[i].d, size[i].heads);
        if (mdr_cpu_avx2()) check_packed(mdr_op_fast(&t.n), &t, size[i].rows, size[i].heads * size[i].d, size[i].heads);
        op_close(&t);
    }
}

/* A NaN in row t0 of q, k or v shows in y and lse: nothing is hidden by a maximum or a clamp. */
static void test_nan(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int32_t t0 = 0; t0 < 127; t0 += 21) {
            AttentionAttr attr;
            OpTest t;
            OpCase k = case_y((Size){127, 1, 8, 0}, &attr);
            op_open(&t, forward()->def, &k, 0);
            t.in[i][t0 * 8 + 3] = (double)NAN;
            const Kernel *kernel[3] = {&forward()->ref32, &forward()->ref64, mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL};
            for (int which = 0; which < 3 && kernel[which]; which++) {
                OpOut y = op_run(&t, kernel[which], run_of(which == 1 ? 8 : 4, 1, 1));
                for (int32_t row = t0; row < (i ? 127 : t0 + 1); row++) assert_true(isnan(y.v[0][row * 8])
                    && isnan(y.v[1][row]));
                op_free(&y);
            }
            op_close(&t);
        }
}

static void test_cost(void **state) {
    (void)state;
    AttentionAttr attr;
    OpTest t;
    for (int32_t window = 0; window < 9; window++) {
        OpCase k = case_y((Size){7, 2, 4, window}, &attr);
        double pairs = 0;
        for (int32_t i = 0; i < 7; i++) pairs += i - (window && i > window ? i - window : 0) + 1;
        op_open(&t, forward()->def, &k, 0);
        assert_true(forward()->def->cost(&t.n).flops == 2 * pairs * 4 * 2 * 2);
        assert_true(forward()->def->cost(&t.n).exps == pairs * 2);
        op_close(&t);
    }
}

/* Autodiff: one gradient node for q, k, v; wrong shapes are refused with a sentence. */
static void test_vjp(void **state) {
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(10, 48), DT_REAL, MDR_AXIS_SEQ), in[3], dx[3];
    Value dy = mdr_ir_input(b, "dy", mdr_shape2(10, 16), DT_REAL, MDR_AXIS_SEQ);
    mdr_ir_split(b, x, 3, (const int32_t[]){16, 16, 16}, in);
    Value y = mdr_op_attention(b, in[0], in[1], in[2], (AttentionAttr){2, 0});
    mdr_ir_grad(b, 1, &y, &dy, 3, in, dx);
    for (int i = 0; i < 3; i++) {
        assert_true(mdr_ir_has(dx[i]) && dx[i].node == dx[0].node && dx[i].out == i);
        mdr_ir_output(b, dx[i]);
    }
    Graph *g = NULL;
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    mdr_ir_graph_free(g);
    b = mdr_ir_builder();
    x = mdr_ir_input(b, "x", mdr_shape2(10, 48), DT_REAL, MDR_AXIS_SEQ);
    mdr_op_attention(b, x, x, x, (AttentionAttr){5, 0});
    e = mdr_ir_finish(b, &g);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "[10, 48]"));
    mdr_err_free(e);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),  cmocka_unit_test(test_sizes), cmocka_unit_test(test_equation),
            cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_reach),  cmocka_unit_test(test_prefix), cmocka_unit_test(test_long),
            cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_packed), cmocka_unit_test(test_nan),   cmocka_unit_test(test_cost),
            cmocka_unit_test(test_vjp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
