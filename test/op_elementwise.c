/* Element-wise and structural ops: kernel contract over their cases and over awkward shapes; copies against plain
 * loops; accuracy of the vector functions; NaN. */
#include "op_harness.h"

static void test_unary(void **state) { (void)state; op_check_cases("unary", 1); op_check_cases("unary_grad", 1); }
static void test_binary(void **state) { (void)state; op_check_cases("binary", 1); }
static void test_swiglu(void **state)
{
    (void)state;
    op_check_cases("swiglu_act", 1);
    op_check_cases("swiglu_act_grad", 1);
}
static void test_gather(void **state)
{
    (void)state;
    op_check_cases("gather_rows", 1);
    op_check_cases("scatter_rows", 40);
}

static void test_add(void **state) {
    (void)state;
    const OpCase c[] = {
        {.name = "two", .n_in = 2, .in = {{2, {37, 24}}, {2, {37, 24}}}, .lo = -1, .hi = 1},
        {.name = "five, odd", .n_in = 5, .in = {{2, {70, 13}}, {2, {70, 13}}, {1, {13}}, {1, {1}}, {2, {70, 13}}},
         .in_axes = {0, 0, 1 + MDR_AXIS_MEMBER, 1, 0}, .lo = -1, .hi = 1},
        {.name = "trailing two dimensions", .n_in = 2, .in = {{3, {4, 3, 5}}, {2, {3, 5}}}, .lo = -1, .hi = 1},
        {.name = "vectors", .n_in = 3, .in = {{1, {37}}, {1, {37}}, {1, {37}}}, .lo = -1, .hi = 1},
        {.name = "a table under all", .n_in = 2, .in = {{2, {65, 16}}, {2, {65, 16}}}, .in_axes = {1, 0}, .lo = -1,
             .hi = 1},
        {.name = "losses", .n_in = 2, .in = {{1, {1}}, {1, {1}}}, .in_dtype = {DT_SUM, DT_SUM}, .lo = -1, .hi = 1}};
    for (int i = 0; i < MDR_COUNT(c); i++) op_check_case("add", &c[i], 4);
}

static void test_sums(void **state) {
    (void)state;
    const OpCase c[] = {
        {.name = "odd", .n_in = 1, .in = {{2, {37, 13}}}, .lo = -1, .hi = 1},
        {.name = "slabs", .n_in = 1, .in = {{3, {35, 2, 84}}}, .lo = -1, .hi = 1},
        {.name = "a vector", .n_in = 1, .in = {{1, {9}}}, .lo = -1, .hi = 1},
        {.name = "one column", .n_in = 1, .in = {{2, {129, 1}}}, .lo = -1, .hi = 1},
        {.name = "doubles", .n_in = 1, .in = {{2, {5, 3}}}, .in_dtype = {DT_SUM}, .lo = -1, .hi = 1}};
    for (int i = 0; i < MDR_COUNT(c); i++) {
        op_check_case("sum_rows", &c[i], 3 * mdr_rows(c[i].in[0]));
        op_check_case("sum_cols", &c[i], mdr_cols(c[i].in[0]));
    }
}

static void test_chains(void **state) {
    (void)state;
    const char *const name[] = {"sum_rows", "scatter_rows", "rmsnorm_dw", "layernorm_dw", "ce", "class_counts"};
    const OpCase rows = {.name = "odd", .n_in = 1, .in = {{2, {37, 93}}}, .lo = -1, .hi = 1};
    for (int i = 0; i < MDR_COUNT(name); i++)
        for (int32_t pad = 0; pad <= 3; pad += 3)
            for (const OpCase *c = i ? mdr_op_find(name[i])->def->cases : &rows; c->name; c++) {
                op_check_chain(name[i], c, pad);
                if (i == 0) break;
            }
}

/* Every function over ordinary and extreme arguments against the double reference: |error| <= rel |y| + abs. */
static const double arg[] = {0, 1e-30, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.62, 0.63, 0.7, 0.8, 0.99, 1, 1.01, 1.4, 1.5,
    2, 2.5, 3, 3.9, 4, 4.1,
                            5, 7, 9, 12, 15, 20, 30, 50, 80, 86, 88, 95, 1000, 30000};
static const struct { double rel, abs; bool positive; } bound[UN_COUNT] = {
    [UN_EXP] = {5e-7, 2e-38, false}, [UN_LOG] = {4e-7, 0, true}, [UN_SIN] = {0, 4e-7, false}, [UN_COS] = {0, 4e-7,
        false},
    [UN_SIGMOID] = {8e-7, 2e-38, false}, [UN_TANH] = {4e-7, 0, false}, [UN_SQRT] = {2e-7, 0, true}, [UN_RECIP] = {2e-7,
        0, true},
    [UN_SOFTPLUS] = {8e-7, 2e-38, false}, [UN_SILU] = {8e-7, 1e-35, false}, [UN_GELU_TANH] = {1e-6, 1e-6, false},
    [UN_GELU_ERF] = {1e-6, 1e-6, false}, [UN_SQUARE] = {2e-7, 2e-38, false}, [UN_SCALE] = {2e-7, 0, false},
        [UN_SHIFT] = {2e-7, 0, false}};
static void test_accuracy(void **state) {
    (void)state;
    enum { N = 2 * MDR_COUNT(arg) };
    const OpRow *row = mdr_op_find("unary");
    for (int kind = 0; kind < UN_COUNT; kind++) {
        OpTest t;
        UnaryAttr a = {.kind = kind, .a = -0.75};
        const OpCase c = {.name = "accuracy", .attr = &a, .n_in = 1, .in = {{1, {N}}}};
        op_open(&t, row->def, &c, 0);
        for (int k = 0; k < N; k++) {
            double x = (double)(float)arg[k / 2];
            t.in[0][k] = bound[kind].positive ? (x > 0 ? x : 1e-20f) * (k % 2 ? 1 : 1.1f) : k % 2 ? x : -x;
            t.in[0][k] = (double)(float)t.in[0][k];
        }
        const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL, *all[2] = {&row->ref32, fast};
        OpOut want = op_run(&t, &row->ref64, (OpHow){8, 0, 1, 0, 1, 0, false, NULL});
        for (int i = 0; i < 2 && all[i]; i++) {
            OpOut o = op_run(&t, all[i], (OpHow){4, 0, 1, 0, 1, 0, false, NULL});
            /* r_softplus rounds 1 + e^x */
            double slack = bound[kind].abs + (i == 0 && kind == UN_SOFTPLUS ? 1.2e-7 : 0);
            for (int k = 0; k < N; k++) {
                double got = o.v[0][k], y = want.v[0][k];
                if (fabs(y) > 3.4e38 ? !(got == (y > 0 ? INFINITY : -INFINITY))
                    : !(fabs(got - y) <= bound[kind].rel * fabs(y) + slack))
                    fail_msg("function %d (%s): f(%.9g) is %.9g, expected %.9g", kind, i ? "fast" : "reference",
                        t.in[0][k], got, y);
            }
            op_free(&o);
        }
        op_free(&want);
        op_close(&t);
    }
}
/* NaN in, NaN out, in every lane and in the tail, and nowhere else. */
static void test_nan(void **state) {
    (void)state;
    const OpRow *row = mdr_op_find("unary");
    for (int kind = 0; kind < UN_COUNT; kind++) {
        UnaryAttr a = {.kind = kind, .a = 2};
        const OpCase c = {.name = "NaN", .attr = &a, .n_in = 1, .in = {{1, {21}}}, .lo = 0.5, .hi = 1};
        OpTest t;
        op_open(&t, row->def, &c, 0);
        for (int k = 0; k < 21; k += 2) t.in[0][k] = (double)NAN;
        const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL, *all[2] = {&row->ref32, fast};
        for (int i = 0; i < 2 && all[i]; i++) {
            OpOut o = op_run(&t, all[i], (OpHow){4, 0, 1, 0, 1, 0, false, NULL});
            for (int k = 0; k < 21; k++)
                if (isnan(o.v[0][k]) != (k % 2 == 0))
                    fail_msg("function %d (%s), element %d: %g", kind, i ? "fast" : "reference", k, o.v[0][k]);
            op_free(&o);
        }
        op_close(&t);
    }
}

/* sum_batch has one value for all sequences, always: its output lacks the axis. An input without data is skipped. */
static void sum_batch(const Kernel *k, int real, int32_t pad, DType dtype, bool pieces) {
    OpTest t;
    OpCase c = {.name = "three", .n_in = 3, .in = {{2, {5, 37}}, {2, {5, 37}}, {2, {5, 37}}}, .lo = -1, .hi = 1};
    for (int i = 0; i < 3; i++) c.in_dtype[i] = (uint8_t)dtype;
    op_open(&t, &mdr_ir_op_sum_batch, &c, pad);
    t.n.out[0].axes = MDR_AXIS_MEMBER;
    t.n.out[0].phase = PH_POST;
    free(t.in[1]);
    t.in[1] = NULL;
    for (uint32_t add = 0; add < 2; add++) {
        OpOut o = op_run(&t, k, (OpHow){real, 0, 1, 0, OP_SEQS, add, pieces, NULL});
        OpOut want = {.n = {5 * 37}};
        want.v[0] = calloc(5 * 37, sizeof(double));
        for (int e = 0; e < 5 * 37; e++) {
            want.v[0][e] = add ? OP_GUARD : 0;
            for (int s = 0; s < OP_SEQS; s++) want.v[0][e] += t.in[0][s * 5 * 37 + e] + t.in[2][s * 5 * 37 + e];
        }
        op_near(&t, &o, &want, real == 8 || dtype == DT_SUM ? 1e-14 : op_tol(6), "sum");
        op_free(&o);
        op_free(&want);
    }
    op_close(&t);
}
static void test_sum_batch(void **state) {
    (void)state;
    const OpRow *row = mdr_op_find("sum_batch");
    OpTest t;
    const OpCase c = {.name = "one", .n_in = 1, .in = {{2, {5, 37}}}, .lo = -1, .hi = 1};
    op_open(&t, &mdr_ir_op_sum_batch, &c, 0);
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
    op_close(&t);
    for (int32_t pad = 0; pad <= 3; pad += 3) {
        sum_batch(&row->ref32, 4, pad, DT_REAL, false);
        sum_batch(&row->ref64, 8, pad, DT_REAL, false);
        sum_batch(&row->ref32, 4, pad, DT_SUM, false);
        if (fast) { sum_batch(fast, 4, pad, DT_REAL, false); sum_batch(fast, 4, pad, DT_REAL, true); }
    }
}

/* Copies: the expected output by an index map written a second way. */
typedef double Expect(const OpTest *t, int out, int64_t r, int64_t k, int32_t s);
static double at(const OpTest *t, int i, int32_t s, int64_t e)
{
    return t->in[i][s * mdr_numel(t->n.in_type[i].shape) + e];
}
static double e_leading(const OpTest *t, int o, int64_t r, int64_t k, int32_t s) {
    (void)o;
    return at(t, 0, s, (r * mdr_cols(t->n.out[0].shape) + k) % mdr_numel(t->n.in_type[0].shape));
}
static double e_trailing(const OpTest *t, int o, int64_t r, int64_t k, int32_t s)
{
    (void)o;
    (void)k;
    return at(t, 0, s, r);
}
static double e_join(const OpTest *t, int o, int64_t r, int64_t k, int32_t s) {
    (void)o;
    int i = 0;
    for (; k >= mdr_cols(t->n.in_type[i].shape); i++) k -= mdr_cols(t->n.in_type[i].shape);
    return at(t, i, s, r * mdr_cols(t->n.in_type[i].shape) + k);
}
static double e_split(const OpTest *t, int o, int64_t r, int64_t k, int32_t s) {
    for (int i = 0; i < o; i++) k += mdr_cols(t->n.out[i].shape);
    return at(t, 0, s, r * mdr_cols(t->n.in_type[0].shape) + k);
}
static double e_flat(const OpTest *t, int o, int64_t r, int64_t k, int32_t s) {        /* rows, pad_rows, reshape */
    (void)o;
    const RowsAttr *a = t->n.attr;
    int64_t e = r * mdr_cols(t->n.out[0].shape) + k, n = mdr_numel(t->n.in_type[0].shape);
    if (t->n.op == &mdr_ir_op_rows) e += a->start * (n / t->n.in_type[0].shape.d[0]);
    if (t->n.op == &mdr_ir_op_pad_rows) e -= a->start * (n / t->n.in_type[0].shape.d[0]);
    return e < 0 || e >= n ? 0.0 : at(t, 0, s, e);
}
static void copies(const Kernel *k, int real, const OpTest *t, Expect *f) {
    OpOut o = op_run(t, k, (OpHow){real, 0, 1, 0, OP_SEQS, 0, false, NULL});
    for (int i = 0; i < t->n.n_out; i++) {
        int64_t cols = mdr_cols(t->n.out[i].shape), rows = mdr_rows(t->n.out[i].shape);
        for (int32_t s = 0; s < OP_SEQS; s++)
            for (int64_t e = 0; e < rows * cols; e++) {
                double got = o.v[i][s * rows * cols + e], want = f(t, i, e / cols, e % cols, s);
                if (!(got == want))
                    fail_msg("%s, %s: output %d [%d][%d] is %g, expected %g", t->n.op->name, t->n.where, i, s, (int)e,
                        got, want);
            }
    }
    op_free(&o);
}
static void check_copies(const char *name, const OpCase *c, Expect *f) {
    const OpRow *row = mdr_op_find(name);
    assert_non_null(row);
    for (int32_t pad = 0; pad <= 3; pad += 3)
        for (int dtype = DT_REAL; dtype <= DT_SUM; dtype++) {
            OpTest t;
            OpCase typed = *c;
            for (int i = 0; i < c->n_in; i++) typed.in_dtype[i] = (uint8_t)dtype;
            op_open(&t, row->def, &typed, pad);
            copies(&row->ref32, 4, &t, f);
            copies(&row->ref64, 8, &t, f);
            const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
            if (fast) copies(fast, 4, &t, f);
            op_close(&t);
        }
    op_check_case(name, c, 1);
}
static void test_copies(void **state) {
    (void)state;
    const OpCase lead[] = {{.name = "leading", .attr = &(const ExpandAttr){4, false}, .n_in = 1, .in = {{2, {3, 13}}},
        .lo = -1, .hi = 1, .hi_int = 99},
                           {.name = "leading scalar", .attr = &(const ExpandAttr){70, false}, .n_in = 1, .in = {{1,
                                {1}}}, .lo = -1, .hi = 1, .hi_int = 99}};
    for (int i = 0; i < MDR_COUNT(lead); i++) check_copies("expand", &lead[i], e_leading);
    const OpCase trail = {.name = "trailing", .attr = &(const ExpandAttr){13, true}, .n_in = 1, .in = {{2, {35, 2}}},
        .lo = -1, .hi = 1, .hi_int = 99};
    check_copies("expand", &trail, e_trailing);
    const OpCase join = {.name = "three", .n_in = 3, .in = {{2, {70, 5}}, {2, {70, 16}}, {2, {70, 1}}}, .lo = -1,
        .hi = 1, .hi_int = 99};
    check_copies("join", &join, e_join);
    const OpCase split = {.name = "three", .attr = &(const SplitAttr){3, {5, 16, 1}}, .n_in = 1, .in = {{2, {70, 22}}},
        .lo = -1, .hi = 1, .hi_int = 99};
    check_copies("split", &split, e_split);
    const OpCase rows[] = {{.name = "middle", .attr = &(const RowsAttr){2, 4, 9}, .n_in = 1, .in = {{2, {9, 13}}},
        .lo = -1, .hi = 1, .hi_int = 99},
                           {.name = "rank 3", .attr = &(const RowsAttr){1, 2, 4}, .n_in = 1, .in = {{3, {4, 3, 5}}},
                                .lo = -1, .hi = 1, .hi_int = 99},
                           {.name = "rank 1", .attr = &(const RowsAttr){3, 4, 9}, .n_in = 1, .in = {{1, {9}}},
                                .lo = -1, .hi = 1, .hi_int = 99}};
    for (int i = 0; i < MDR_COUNT(rows); i++) check_copies("rows", &rows[i], e_flat);
    const OpCase pads[] = {{.name = "middle", .attr = &(const RowsAttr){2, 4, 9}, .n_in = 1, .in = {{2, {4, 13}}},
        .lo = -1, .hi = 1, .hi_int = 99},
                           {.name = "rank 3", .attr = &(const RowsAttr){1, 2, 4}, .n_in = 1, .in = {{3, {2, 3, 5}}},
                                .lo = -1, .hi = 1, .hi_int = 99},
                           {.name = "rank 1", .attr = &(const RowsAttr){3, 4, 9}, .n_in = 1, .in = {{1, {4}}},
                                .lo = -1, .hi = 1, .hi_int = 99}};
    for (int i = 0; i < MDR_COUNT(pads); i++) check_copies("pad_rows", &pads[i], e_flat);
    const OpCase shapes[] = {{.name = "finer", .attr = &(const ReshapeAttr){{3, {6, 5, 2}}}, .n_in = 1, .in = {{2, {6,
        10}}}, .lo = -1, .hi = 1, .hi_int = 99},
                             {.name = "across", .attr = &(const ReshapeAttr){{2, {4, 15}}}, .n_in = 1, .in = {{2, {6,
                                  10}}}, .lo = -1, .hi = 1, .hi_int = 99}};
    for (int i = 0; i < MDR_COUNT(shapes); i++) check_copies("reshape", &shapes[i], e_flat);
}

int main(void) {
    printf("seed %d\n", OP_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary), cmocka_unit_test(test_binary), cmocka_unit_test(test_swiglu),
            cmocka_unit_test(test_gather),
        cmocka_unit_test(test_add), cmocka_unit_test(test_sums), cmocka_unit_test(test_sum_batch),
            cmocka_unit_test(test_copies),
        cmocka_unit_test(test_chains), cmocka_unit_test(test_accuracy), cmocka_unit_test(test_nan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
