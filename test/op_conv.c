/* conv_direct, conv_fft and their gradient ops: every kernel against the double reference over many lengths and
 * widths, the transform against its definition, both convolutions against each other and against the laws of a
 * convolution (impulse, shift, linearity, causality, adjoint), gradients through the graph's own vjp against
 * differences. */
#include "op_harness.h"
#include "op/fft.h"

static const OpHow once64 = {.real = 8, .n_member = 1, .n_seq = 1}, once32 = {.real = 4, .n_member = 1, .n_seq = 1};
enum { SHARED = 1 + MDR_AXIS_MEMBER };

static const OpDef *def_of(const char *name) { return mdr_op_find(name)->def; }
static Shape spectrum_shape(Shape x) { return mdr_shape2(fft_blocks(x.d[1]), FFT_POINT * fft_size(x.d[0]).size); }
static OpCase case_of(const char *name, const void *attr, Shape a, Shape b) {
    return (OpCase){.name = name, .attr = attr, .n_in = b.rank ? 2 : 1, .in = {a, b}, .lo = -1, .hi = 1};
}
/* One op over given doubles; out: malloc'd, numel of its output. fast: the float kernel of this machine. */
static double *apply(const char *op, const void *attr, Shape a, const double *x, Shape b, const double *y, bool fast) {
    OpCase k = case_of("laws", attr, a, b);
    OpTest t;
    op_open(&t, def_of(op), &k, 0);
    memcpy(t.in[0], x, (size_t)mdr_numel(a) * sizeof *x);
    if (y) memcpy(t.in[1], y, (size_t)mdr_numel(b) * sizeof *y);
    const Kernel *kernel = fast ? mdr_op_fast(&t.n) : &mdr_op_find(op)->ref64;
    assert_non_null(kernel);
    OpOut o = op_run(&t, kernel, fast ? once32 : once64);
    op_close(&t);
    return o.v[0];
}
static double *draw(Shape s, uint64_t stream) {
    Rng r = mdr_rng(OP_SEED, stream);
    double *v = malloc((size_t)mdr_numel(s) * sizeof *v);
    for (int64_t i = 0; i < mdr_numel(s); i++) v[i] = (double)(float)(2 * mdr_rng_unit(&r) - 1);
    return v;
}
static double dot(const double *a, const double *b, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}
/* Both ways to the same function; way 0 direct, 1 FFT. Gradients of h through the spectrum. */
static double *conv(int way, bool turned, Shape x, const double *u, const double *h, bool fast) {
    const ConvAttr a = {turned};
    const FftAttr f = {turned};
    if (way == 0) return apply("conv_direct", &a, x, u, x, h, fast);
    double *spectrum = apply("spectrum", NULL, x, h, (Shape){0}, NULL, fast);
    double *y = apply("conv_fft", &f, x, u, spectrum_shape(x), spectrum, fast);
    free(spectrum);
    return y;
}
static double *filter_grad(int way, Shape x, const double *u, const double *dy, bool fast) {
    if (way == 0) return apply("conv_direct_dh", NULL, x, u, x, dy, fast);
    const int32_t attr[2] = {x.d[0], x.d[1]};
    double *d = apply("conv_fft_dh", NULL, x, u, x, dy, fast);
    double *dh = apply("spectrum_adj", attr, spectrum_shape(x), d, (Shape){0}, NULL, fast);
    free(d);
    return dh;
}
static bool have_fast(void) {
    if (!mdr_cpu_avx2()) print_message("no AVX2 here: only the references are tested\n");
    return mdr_cpu_avx2();
}

static void test_cases(void **state) {
    (void)state;
    static const char *const names[] = {"conv_direct", "conv_direct_dh", "spectrum", "spectrum_adj",
                                        "conv_fft", "conv_fft_dh"};
    for (int i = 0; i < MDR_COUNT(names); i++) op_check_cases(names[i], 128);
}
/* The whole contract (slices, pieces, add, members, strides) over sizes at and beside every border: tiles of 8 rows,
 * spans of 16 channels, each radix with full and with missing rows. */
static void test_sizes(void **state) {
    (void)state;
    static const int32_t size[][2] = {
        {1, 1},   {2, 9},   {7, 8},   {8, 16},  {9, 17},   {15, 31},  {16, 5},   {17, 24},  {31, 16}, {33, 33},
        {63, 16}, {65, 12}, {80, 16}, {81, 7},  {95, 16},  {127, 40}, {128, 16}, {129, 20}, {257, 8}};
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int32_t turned = 0; turned < 2; turned++) {
            const Shape x = mdr_shape2(size[i][0], size[i][1]), z = spectrum_shape(x);
            const int32_t rows_cols[2] = {x.d[0], x.d[1]};
            const int64_t length = 4 * fft_size(x.d[0]).size;
            OpCase direct = case_of("size", &turned, x, x), dh = case_of("size", NULL, x, x);
            OpCase fft = case_of("size", &turned, x, z);
            OpCase spectrum = case_of("size", NULL, x, (Shape){0}), adj = case_of("size", rows_cols, z, (Shape){0});
            direct.in_axes[1] = fft.in_axes[1] = i % 2 ? SHARED : 0;
            op_check_case("conv_direct", &direct, length);
            op_check_case("conv_fft", &fft, length);
            if (turned) continue;
            op_check_case("conv_direct_dh", &dh, length);
            op_check_case("conv_fft_dh", &dh, length);
            op_check_case("spectrum", &spectrum, length);
            op_check_case("spectrum_adj", &adj, length);
        }
}
/* X[kappa] of fft.h term by term, at its row, for every radix. */
static void test_definition(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 5, 16, 17, 23, 61, 70, 90, 128};
    for (int i = 0; i < MDR_COUNT(rows); i++) {
        const Shape x = mdr_shape2(rows[i], 3);
        const FftSize s = fft_size(rows[i]);
        assert_true(s.size >= rows[i] && s.radix * s.sub == s.size);
        double *h = draw(x, 1), *spectrum = apply("spectrum", NULL, x, h, (Shape){0}, NULL, false);
        for (int32_t k = 0; k < s.radix; k++)
            for (int32_t p = 0; p < s.sub; p++) {
                int32_t reversed = 0;
                for (int32_t bit = 1; bit < s.sub; bit *= 2) reversed = 2 * reversed + (p & bit ? 1 : 0);
                for (int32_t c = 0; c < 8; c++) {
                    double re = 0, im = 0;
                    for (int32_t n = 0; n < rows[i] && c < 3; n++) {
                        double angle = 2 * 3.14159265358979323846 * n * (k + s.radix * reversed + 0.25) / s.size;
                        re += h[n * 3 + c] * cos(angle), im += h[n * 3 + c] * sin(angle);
                    }
                    const double *at = spectrum + (k * s.sub + p) * FFT_POINT + c;
                    assert_true(fabs(at[0] * s.size - re) <= 1e-12 && fabs(at[FFT_LANES] * s.size - im) <= 1e-12);
                }
            }
        free(h);
        free(spectrum);
    }
}
/* The equation, written once more, for the direct reference; then everything against everything. */
static void test_same_function(void **state) {
    (void)state;
    const bool fast = have_fast();
    static const int32_t rows[] = {1, 2, 13, 40, 100, 256, 300};
    for (int i = 0; i < MDR_COUNT(rows); i++)
        for (int turned = 0; turned < 2; turned++) {
            const Shape x = mdr_shape2(rows[i], 10);
            const int64_t n = mdr_numel(x);
            double *u = draw(x, 2), *h = draw(x, 3), *want = calloc((size_t)n, sizeof *want);
            for (int32_t s = 0; s < rows[i]; s++)
                for (int32_t j = 0; j < rows[i]; j++) {
                    const int32_t t = turned ? s - j : s + j;
                    for (int32_t c = 0; c < 10 && t >= 0 && t < rows[i]; c++)
                        want[t * 10 + c] += h[j * 10 + c] * u[s * 10 + c];
                }
            for (int way = 0; way < 4; way++) {
                if (way >= 2 && !fast) break;
                double *y = conv(way % 2, turned, x, u, h, way >= 2), err = op_error(y, want, n);
                if (!(err <= (way >= 2 ? op_tol(rows[i]) : 1e-13)))
                    fail_msg("%d rows, turned %d, way %d: error %g", rows[i], turned, way, err);
                free(y);
            }
            free(u);
            free(h);
            free(want);
        }
}
/* <conv(u), v> = <u, transposed(v)> = <h, filter_grad(u, v)>. */
static void test_adjoint(void **state) {
    (void)state;
    const bool fast = have_fast();
    static const int32_t rows[] = {3, 64, 77, 200, 500};
    for (int i = 0; i < MDR_COUNT(rows); i++)
        for (int way = 0; way < 4; way++) {
            if (way >= 2 && !fast) break;
            const Shape x = mdr_shape2(rows[i], 16);
            const int64_t n = mdr_numel(x);
            double *u = draw(x, 4), *h = draw(x, 5), *v = draw(x, 6), *y = conv(way % 2, false, x, u, h, way >= 2);
            double *back = conv(way % 2, true, x, v, h, way >= 2), *dh = filter_grad(way % 2, x, u, v, way >= 2);
            const double a = dot(y, v, n), b = dot(u, back, n), c = dot(h, dh, n);
            const double scale = sqrt(dot(y, y, n) * dot(v, v, n)), tol = way >= 2 ? 1e-6 : 1e-14;
            if (!(fabs(a - b) <= tol * scale) || !(fabs(a - c) <= tol * scale))
                fail_msg("%d rows, way %d: %.17g, %.17g, %.17g (scale %g)", rows[i], way, a, b, c, scale);
            double *const all[] = {u, h, v, y, back, dh};
            for (int k = 0; k < MDR_COUNT(all); k++) free(all[k]);
        }
}
/* An impulse at p gives h shifted by p; a later input never changes an earlier output (FFT: only by rounding, which
 * is bounded by the size of the input, not by that of the output); outputs are linear. */
static void test_laws(void **state) {
    (void)state;
    const bool fast = have_fast();
    const int32_t rows = 150, cols = 16, at = 41;
    const Shape x = mdr_shape2(rows, cols);
    const int64_t n = mdr_numel(x);
    double *h = draw(x, 7), *u = draw(x, 8), *pulse = calloc((size_t)n, sizeof *pulse);
    double *both = malloc((size_t)n * sizeof *both), *later = malloc((size_t)n * sizeof *later);
    for (int32_t c = 0; c < cols; c++) pulse[at * cols + c] = 1;
    for (int64_t i = 0; i < n; i++) both[i] = u[i] + 4 * pulse[i], later[i] = i < at * cols ? u[i] : 1000;
    for (int way = 0; way < 4; way++) {
        if (way >= 2 && !fast) break;
        const bool f = way >= 2;
        const double tol = f ? 4e-6 : 1e-13;
        double *shifted = conv(way % 2, false, x, pulse, h, f), *y = conv(way % 2, false, x, u, h, f);
        double *sum = conv(way % 2, false, x, both, h, f), *changed = conv(way % 2, false, x, later, h, f);
        for (int64_t i = 0; i < n; i++) {
            const double want = i < at * cols ? 0 : h[i - at * cols];
            if (way % 2 == 0) assert_true(shifted[i] == want);
            assert_true(fabs(shifted[i] - want) <= tol);
            assert_true(fabs(sum[i] - (y[i] + 4 * shifted[i])) <= 20 * tol);
            if (i >= at * cols) continue;
            if (way % 2 == 0) assert_true(changed[i] == y[i]);
            assert_true(fabs(changed[i] - y[i]) <= tol * 1000 * 12);     /* 12 = sqrt(rows): the 2-norm of the input */
        }
        double *const all[] = {shifted, y, sum, changed};
        for (int k = 0; k < MDR_COUNT(all); k++) free(all[k]);
    }
    double *const all[] = {h, u, pulse, both, later};
    for (int k = 0; k < MDR_COUNT(all); k++) free(all[k]);
}
/* What direct promises beyond rounding: NaN after t leaves y[..t] alone; channels never meet, in the FFT neither. */
static void test_isolation(void **state) {
    (void)state;
    const bool fast = have_fast();
    const int32_t rows = 45, cols = 19;
    const Shape x = mdr_shape2(rows, cols);
    double *u = draw(x, 9), *h = draw(x, 10), *bad = draw(x, 9), *column = draw(x, 9);
    for (int32_t i = 0; i < rows * cols; i++) {
        if (i >= 20 * cols) bad[i] = (double)NAN;
        if (i % cols == 6) column[i] = (double)NAN;
    }
    for (int way = 0; way < 4; way++) {
        if (way >= 2 && !fast) break;
        double *y = conv(way % 2, false, x, u, h, way >= 2), *c = conv(way % 2, false, x, column, h, way >= 2);
        double *z = conv(way % 2, false, x, bad, h, way >= 2);
        for (int32_t i = 0; i < rows * cols; i++) {
            if (i % cols != 6) assert_true(c[i] == y[i]);
            else assert_true(c[i] != c[i]);
            if (way % 2 == 0 && i < 20 * cols) assert_true(z[i] == y[i]);
            if (i >= 20 * cols) assert_true(z[i] != z[i]);
        }
        free(y);
        free(c);
        free(z);
    }
    double *const all[] = {u, h, bad, column};
    for (int k = 0; k < MDR_COUNT(all); k++) free(all[k]);
}
/* Which ops a gradient uses, with which attribute and inputs, and that a shared filter meets one sum over the batch. */
static void test_graph(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        Builder *b = mdr_ir_builder();
        const Shape x = mdr_shape2(21, 6);
        Value u = mdr_ir_input(b, "u", x, DT_REAL, MDR_AXIS_SEQ), dy = mdr_ir_input(b, "dy", x, DT_REAL, MDR_AXIS_SEQ);
        Value h = mdr_ir_param(b, "h", x, (Init){.kind = INIT_CONST});
        Value y = way ? mdr_op_conv_fft(b, u, h) : mdr_op_conv_direct(b, u, h), wrt[2] = {u, h}, grad[2];
        mdr_ir_grad(b, 1, &y, &dy, 2, wrt, grad);
        for (int i = 0; i < 2; i++) mdr_ir_output(b, grad[i]);
        Graph *g = NULL;
        Err *e = mdr_ir_finish(b, &g);
        if (e) fail_msg("%s", mdr_err_text(e));
        int turned = 0, dh = 0, adj = 0, sums = 0;
        for (int32_t i = 0; i < g->n_node; i++) {
            const Node *n = &g->node[i];
            const char *op = n->op->name;
            const char *conv_name = way ? "conv_fft" : "conv_direct";
            if (strcmp(op, conv_name) == 0 && ((const ConvAttr *)n->attr)->anticausal) {
                turned++;
                assert_int_equal(n->in[0].node, dy.node);
            }
            if (strcmp(op, way ? "conv_fft_dh" : "conv_direct_dh") == 0) {
                dh++;
                assert_int_equal(n->in[0].node, u.node);
                assert_int_equal(n->in[1].node, dy.node);
            }
            if (strcmp(op, "spectrum_adj") == 0) {
                adj++;
                assert_int_equal(n->out[0].phase, PH_POST);
            }
            sums += n->op == &mdr_ir_op_sum_batch;
        }
        assert_int_equal(turned, 1);
        assert_int_equal(dh, 1);
        assert_int_equal(adj, way);
        assert_int_equal(sums, 1);
        mdr_ir_graph_free(g);
    }
}
static void test_refusals(void **state) {
    (void)state;
    for (int way = 0; way < 3; way++) {
        Builder *b = mdr_ir_builder();
        Value u = mdr_ir_input(b, "u", mdr_shape2(21, 6), DT_REAL, MDR_AXIS_SEQ);
        Value h = mdr_ir_param(b, "h", way == 2 ? mdr_shape1(21) : mdr_shape2(21, 9), (Init){.kind = INIT_CONST});
        mdr_ir_output(b, way ? mdr_op_conv_fft(b, u, h) : mdr_op_conv_direct(b, u, h));
        Graph *g = NULL;
        Err *e = mdr_ir_finish(b, &g);
        assert_non_null(e);
        assert_non_null(strstr(mdr_err_text(e), "[21"));
        mdr_err_free(e);
    }
}
int main(void) {
    print_message("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),   cmocka_unit_test(test_sizes),     cmocka_unit_test(test_definition),
        cmocka_unit_test(test_same_function), cmocka_unit_test(test_adjoint), cmocka_unit_test(test_laws),
        cmocka_unit_test(test_isolation), cmocka_unit_test(test_graph),   cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
