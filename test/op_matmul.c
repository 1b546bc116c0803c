/* matmul and matmul_tn: the fast kernels against a scalar chain of fmaf, bit by bit (which is what makes their bits those of
 * any compiler), against the double reference, and under every cut that an executor may make of the work. */
#include "op/op.h"
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 20261, GAP = 7, MARK = 77 };                   /* GAP: elements between rows and sequences that are not ours */
typedef struct Block { float *f; double *d; int64_t n, rows, cols, ld, seq; } Block;
typedef struct Problem {
    int64_t rows, k, n;
    int32_t n_seq, transposed, bias, tall;                   /* tall: no gaps between sequences; 2: of x only           */
    bool own_w, one_x;                                       /* a w for each sequence; one x for all                      */
} Problem;

static const struct { int64_t rows, k, n; } size[] = {
    {1, 1, 1}, {1, 9, 12}, {7, 1, 16}, {13, 10, 1}, {5, 11, 17}, {6, 4, 8}, {127, 128, 48}, {31, 20, 23}, {2, 33, 7}, {3, 3, 3}, {4, 5, 24},
    {9, 8, 256}, {130, 256, 24}, {25, 7, 25}, {29, 13, 32}, {47, 16, 33}, {8, 6, 40}, {50, 65, 39}, {241, 19, 31}, {121, 2, 15}, {14, 352, 20}, {530, 3, 20}};

static uint32_t bits(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }
static float *at(const Block *b, int32_t s, int64_t r) { return b->f + s * b->seq + r * b->ld; }
static Arg arg_f(const Block *b) { return (Arg){b->f, 0, b->seq, b->ld, 4}; }
static Arg arg_d(const Block *b) { return (Arg){b->d, 0, b->seq, b->ld, 8}; }

static Block block(Rng *rng, int64_t rows, int64_t cols, int32_t n_seq, bool tall, bool shared) {
    Block b = {.rows = rows, .cols = cols, .ld = cols + GAP};
    b.seq = shared ? 0 : rows * b.ld + (tall ? 0 : GAP);
    b.n = (shared ? 1 : n_seq) * (rows * b.ld + GAP);
    b.f = mdr_alloc((size_t)b.n * sizeof *b.f);
    b.d = mdr_alloc((size_t)b.n * sizeof *b.d);
    for (int64_t i = 0; i < b.n; i++) b.f[i] = MARK;
    for (int32_t s = 0; s < (shared ? 1 : n_seq); s++)
        for (int64_t i = 0; i < rows * cols && rng; i++) at(&b, s, i / cols)[i % cols] = (float)(2 * mdr_rng_unit(rng) - 1);
    for (int64_t i = 0; i < b.n; i++) b.d[i] = (double)b.f[i];
    return b;
}
static void drop(Block *b) { mdr_free(b->f); mdr_free(b->d); }
/* What is not an element of the block still holds its mark. */
static void assert_gaps(const Block *b, int32_t n_seq) {
    char *ours = mdr_alloc((size_t)b->n);
    for (int32_t s = 0; s < (b->seq ? n_seq : 1); s++)
        for (int64_t i = 0; i < b->rows * b->cols; i++) ours[s * b->seq + i / b->cols * b->ld + i % b->cols] = 1;
    for (int64_t i = 0; i < b->n; i++)
        if (!ours[i] && !(b->f[i] == (float)MARK)) fail_msg("element %lld of %lld x %lld was written", (long long)i, (long long)b->rows, (long long)b->cols);
    mdr_free(ours);
}
static void assert_same(const Block *a, const Block *b, const char *what) {
    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++)
        if (bits(a->f[i]) != bits(b->f[i])) fail_msg("%s: element %lld: %a, %a", what, (long long)i, (double)a->f[i], (double)b->f[i]);
}

/* Runs [0, n) in pieces of the given size, from the last to the first; 0: all at once. */
static void run_units(KernelFn *run, const Call *c, int64_t n, int64_t piece) {
    if (piece == 0) { run(c, 0, n); return; }
    for (int64_t u = (n - 1) / piece * piece; u >= 0; u -= piece) run(c, u, u + piece < n ? u + piece : n);
}
static void run_kernel(const Kernel *k, Call *c, int64_t piece) {
    const Node *n = c->node;
    void *scratch = NULL, *packed = NULL;
    const size_t bytes = k->scratch ? k->scratch(n, c->extent) : 0;
    Err *e = mdr_alloc_big(bytes + 64, &scratch);
    assert_null(e);
    c->scratch = scratch;
    c->prep = (Arg){0};
    if (k->prep.run) {
        e = mdr_alloc_big((size_t)k->prep.elements(n) * sizeof(float), &packed);
        assert_null(e);
        Call prep = *c;
        prep.out[0] = (Arg){.data = packed};
        run_units(k->prep.run, &prep, k->prep.units(n), piece);
        c->prep = (Arg){.data = packed};
    }
    run_units(k->run, c, k->units ? k->units(n, c->extent) : 1, piece);
    mdr_free_big(packed);
    mdr_free_big(scratch);
}

/* ---- matmul --------------------------------------------------------------------------------------------------------- */
typedef struct Sides { Block x, w, bias, y; } Sides;
static Sides sides(const Problem *p, uint64_t stream) {
    Rng rng = mdr_rng(SEED, stream);
    return (Sides){block(&rng, p->rows, p->k, p->n_seq, p->tall, p->one_x),
                   block(&rng, p->transposed ? p->n : p->k, p->transposed ? p->k : p->n, p->n_seq, p->tall, !p->own_w),
                   block(&rng, 1, p->n, p->n_seq, p->tall, true), block(NULL, p->rows, p->n, p->n_seq, p->tall == 1, false)};
}
static void drop_sides(Sides *s) { drop(&s->x); drop(&s->w); drop(&s->bias); drop(&s->y); }

static Node node_of(const Problem *p, MatmulAttr *a) {
    *a = (MatmulAttr){p->transposed};
    const OpRow *row = mdr_op_find("matmul");
    assert_non_null(row);
    Node n = {.op = row->def, .attr = a, .in = {{0, 0}, {1, 0}, {p->bias ? 2 : -1, 0}}, .n_in = 3, .n_out = 1};
    n.in_type[0] = (Type){.shape = mdr_shape2((int32_t)p->rows, (int32_t)p->k), .phase = PH_SEQ};
    n.in_type[1] = (Type){.shape = p->transposed ? mdr_shape2((int32_t)p->n, (int32_t)p->k) : mdr_shape2((int32_t)p->k, (int32_t)p->n),
                          .phase = p->own_w ? PH_SEQ : PH_STEP};
    n.in_type[2] = (Type){.shape = p->bias ? mdr_shape1((int32_t)p->n) : (Shape){0}, .phase = PH_STEP};
    Err *e = row->def->shape(&n);
    if (e) fail_msg("%s", mdr_err_text(e));
    return n;
}
static void fast(const Problem *p, const Sides *s, int64_t piece) {
    MatmulAttr a;
    Node n = node_of(p, &a);
    const Kernel *k = mdr_op_fast(&n);
    assert_non_null(k);
    assert_int_equal(k->prep.run != NULL, !p->own_w);
    Call c = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_f(&s->x), arg_f(&s->w), p->bias ? arg_f(&s->bias) : (Arg){0}}, .out = {arg_f(&s->y)}};
    run_kernel(k, &c, piece);
}
static double term(const Problem *p, const Sides *s, int32_t q, int64_t r, int64_t k, int64_t j, float *x, float *w) {
    *x = at(&s->x, q, r)[k];
    *w = p->transposed ? at(&s->w, q, j)[k] : at(&s->w, q, k)[j];
    return (double)*x * (double)*w;
}
/* The error a chain of k float FMAs may have: it is a random walk of roundings of partial sums. */
static double tolerance(int64_t k, double square, double first) { return 4 * (double)FLT_EPSILON * sqrt((double)k + 1) * (sqrt(square) + fabs(first)); }

static void check_matmul(const Problem *p, uint64_t stream) {
    Sides s = sides(p, stream), cut = sides(p, stream);
    fast(p, &s, 0);
    assert_gaps(&s.y, p->n_seq);
    for (int64_t piece = 1; piece <= 3; piece += 2) {
        fast(p, &cut, piece);
        assert_same(&s.y, &cut.y, "units in pieces, last first");
    }
    MatmulAttr a;
    Node n = node_of(p, &a);
    Call c = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_d(&s.x), arg_d(&s.w), p->bias ? arg_d(&s.bias) : (Arg){0}}, .out = {arg_d(&s.y)}};
    mdr_op_find("matmul")->ref64.run(&c, 0, 1);
    Call f = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_f(&s.x), arg_f(&s.w), p->bias ? arg_f(&s.bias) : (Arg){0}}, .out = {arg_f(&cut.y)}};
    mdr_op_find("matmul")->ref32.run(&f, 0, 1);
    assert_gaps(&cut.y, p->n_seq);
    for (int32_t q = 0; q < p->n_seq; q++)
        for (int64_t i = 0; i < p->rows * p->n; i++) {
            const int64_t r = i / p->n, j = i % p->n;
            float x, w, first = p->bias ? s.bias.f[j] : 0.0f, chain = first;
            double square = 0, plain = (double)first;
            for (int64_t k = 0; k < p->k; k++) {
                double t = term(p, &s, q, r, k, j, &x, &w);
                chain = fmaf(x, w, chain);
                plain += t;
                square += t * t;
            }
            const float y = at(&s.y, q, r)[j], y32 = at(&cut.y, q, r)[j];
            const double y64 = s.y.d[q * s.y.seq + r * s.y.ld + j], tol = tolerance(p->k, square, (double)first);
            if (bits(y) != bits(chain)) fail_msg("y[%lld,%lld] = %a, the chain gives %a", (long long)r, (long long)j, (double)y, (double)chain);
            if (!(fabs(y64 - plain) <= 1e-14 * (1 + fabs(plain)))) fail_msg("double reference: %.17g, expected %.17g", y64, plain);
            if (!(fabs((double)y - y64) <= tol)) fail_msg("y = %.9g, reference %.17g, tolerance %g", (double)y, y64, tol);
            if (bits(y32) != bits((float)plain)) fail_msg("float reference: %.9g, expected %.17g", (double)y32, plain);
        }
    drop_sides(&s);
    drop_sides(&cut);
}

static void test_matmul(void **state) {
    (void)state;
    print_message("seed %d\n", SEED);
    uint64_t stream = 0;
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int32_t v = 0; v < 16; v++) {
            if (size[i].rows * size[i].k > 5000 && v % 5 != 0) continue;          /* the large ones: a few of the variants   */
            Problem p = {size[i].rows, size[i].k, size[i].n, v & 8 ? 3 : 1, v & 1, (v >> 1) & 1, (v >> 2) & 1 ? 1 + (v & 1) : 0, false, false};
            check_matmul(&p, stream++);
            p.own_w = true;
            check_matmul(&p, stream++);
            p.own_w = false;
            p.one_x = true;
            check_matmul(&p, stream++);
        }
}

/* A row alone, in a shorter matrix, among the rows of other sequences: always the same bits. */
static void test_row_position(void **state) {
    (void)state;
    const Problem p = {61, 37, 41, 2, 0, 1, 1, false, false};
    Sides s = sides(&p, 9000);
    fast(&p, &s, 0);
    for (int64_t rows = 1; rows <= 30; rows += rows < 14 ? 1 : 5)
        for (int64_t first = 0; first + rows <= p.rows; first += 3) {
            Problem part = p;
            part.rows = rows;
            part.n_seq = 1;
            Sides t = sides(&part, 9001);
            for (int64_t r = 0; r < rows; r++) memcpy(at(&t.x, 0, r), at(&s.x, 1, first + r), (size_t)p.k * sizeof(float));
            memcpy(t.w.f, s.w.f, (size_t)s.w.n * sizeof(float));
            memcpy(t.bias.f, s.bias.f, (size_t)s.bias.n * sizeof(float));
            fast(&part, &t, 0);
            for (int64_t r = 0; r < rows; r++)
                if (memcmp(at(&t.y, 0, r), at(&s.y, 1, first + r), (size_t)p.n * sizeof(float)) != 0)
                    fail_msg("row %lld of %lld differs from row %lld of the whole", (long long)r, (long long)rows, (long long)(first + r));
            drop_sides(&t);
        }
    drop_sides(&s);
}

/* ---- matmul_tn ------------------------------------------------------------------------------------------------------ */
typedef struct Turned { Block x, y, z; } Turned;
static Turned turned(const Problem *p, uint64_t stream, bool add) {
    Rng rng = mdr_rng(SEED, stream);
    return (Turned){block(&rng, p->rows, p->k, p->n_seq, p->tall, p->one_x), block(&rng, p->rows, p->n, p->n_seq, p->tall == 1, false),
                    block(&rng, p->k, p->n, p->n_seq, false, add)};
}
static void drop_turned(Turned *t) { drop(&t->x); drop(&t->y); drop(&t->z); }
static Node node_tn(const Problem *p) {
    const OpRow *row = mdr_op_find("matmul_tn");
    assert_non_null(row);
    Node n = {.op = row->def, .in = {{0, 0}, {1, 0}}, .n_in = 2, .n_out = 1};
    n.in_type[0] = (Type){.shape = mdr_shape2((int32_t)p->rows, (int32_t)p->k), .phase = PH_SEQ};
    n.in_type[1] = (Type){.shape = mdr_shape2((int32_t)p->rows, (int32_t)p->n), .phase = PH_SEQ};
    Err *e = row->def->shape(&n);
    if (e) fail_msg("%s", mdr_err_text(e));
    return n;
}
static void fast_tn(const Problem *p, const Turned *t, bool add, int64_t piece) {
    Node n = node_tn(p);
    const Kernel *k = mdr_op_fast(&n);
    assert_non_null(k);
    Call c = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_f(&t->x), arg_f(&t->y)}, .out = {arg_f(&t->z)}, .add = add};
    run_kernel(k, &c, piece);
}

static void check_tn(const Problem *p, uint64_t stream, bool add) {
    Turned t = turned(p, stream, add), cut = turned(p, stream, add), before = turned(p, stream, add);
    fast_tn(p, &t, add, 0);
    assert_gaps(&t.z, p->n_seq);
    fast_tn(p, &cut, add, 1);
    assert_same(&t.z, &cut.z, "units one by one, last first");
    Node n = node_tn(p);
    Call c = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_d(&t.x), arg_d(&t.y)}, .out = {arg_d(&t.z)}, .add = add};
    mdr_op_find("matmul_tn")->ref64.run(&c, 0, 1);
    memcpy(cut.z.f, before.z.f, (size_t)before.z.n * sizeof(float));
    Call f = {.node = &n, .extent = {1, p->n_seq}, .in = {arg_f(&t.x), arg_f(&t.y)}, .out = {arg_f(&cut.z)}, .add = add};
    mdr_op_find("matmul_tn")->ref32.run(&f, 0, 1);
    assert_gaps(&cut.z, p->n_seq);
    for (int32_t q = 0; q < (add ? 1 : p->n_seq); q++)
        for (int64_t i = 0; i < p->k * p->n; i++) {
            const int64_t k = i / p->n, j = i % p->n;
            const float first = add ? at(&before.z, q, k)[j] : 0.0f;
            float chain = first;
            double square = 0, plain = (double)first;
            for (int32_t s = add ? 0 : q; s < (add ? p->n_seq : q + 1); s++)
                for (int64_t r = 0; r < p->rows; r++) {
                    const float x = at(&t.x, s, r)[k], y = at(&t.y, s, r)[j];
                    const double v = (double)x * (double)y;
                    chain = fmaf(x, y, chain);
                    plain += v;
                    square += v * v;
                }
            const float z = at(&t.z, q, k)[j], z32 = at(&cut.z, q, k)[j];
            const double z64 = t.z.d[q * t.z.seq + k * t.z.ld + j], tol = tolerance(p->rows * p->n_seq, square, (double)first);
            if (bits(z) != bits(chain)) fail_msg("z[%lld,%lld] = %a, the chain gives %a", (long long)k, (long long)j, (double)z, (double)chain);
            if (!(fabs(z64 - plain) <= 1e-14 * (1 + fabs(plain)))) fail_msg("double reference: %.17g, expected %.17g", z64, plain);
            if (!(fabs((double)z - z64) <= tol)) fail_msg("z = %.9g, reference %.17g, tolerance %g", (double)z, z64, tol);
            if (bits(z32) != bits((float)plain)) fail_msg("float reference: %.9g, expected %.17g", (double)z32, plain);
        }
    drop_turned(&t);
    drop_turned(&cut);
    drop_turned(&before);
}

static void test_matmul_tn(void **state) {
    (void)state;
    uint64_t stream = 20000;
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int32_t v = 0; v < 32; v++) {
            if (size[i].rows * size[i].k > 5000 && v % 5 != 0) continue;
            const Problem p = {size[i].rows, size[i].k, size[i].n, v & 4 ? 3 : 1, 0, 0, (v >> 1) & 1 ? 1 + (v >> 4) : 0, false, (v & 8) != 0};
            check_tn(&p, stream++, v & 1);
        }
}

/* The stride of x, cache sets or not, is nothing to the bits. */
static void test_tn_strides(void **state) {
    (void)state;
    const Problem p = {150, 64, 40, 1, 0, 0, 1, false, false};
    Turned a = turned(&p, 30000, true), b = turned(&p, 30000, true);
    fast_tn(&p, &a, true, 0);
    for (int64_t ld = 64; ld <= 128; ld += 16) {
        float *x = mdr_alloc((size_t)(p.rows * ld) * sizeof *x);
        for (int64_t r = 0; r < p.rows; r++) memcpy(x + r * ld, at(&a.x, 0, r), (size_t)p.k * sizeof *x);
        Turned t = turned(&p, 30000, true);
        memcpy(b.z.f, t.z.f, (size_t)t.z.n * sizeof(float));
        Turned moved = {{.f = x, .ld = ld, .seq = p.rows * ld}, b.y, b.z};
        fast_tn(&p, &moved, true, 0);
        assert_same(&a.z, &b.z, "another stride");
        mdr_free(x);
        drop_turned(&t);
    }
    drop_turned(&a);
    drop_turned(&b);
}

/* Adding sequence by sequence, or slice by slice, is the one chain over all of them. */
static void test_tn_slices(void **state) {
    (void)state;
    const Problem all = {45, 26, 40, 5, 0, 0, 1, false, false};
    Turned whole = turned(&all, 31000, true), parts = turned(&all, 31000, true);
    fast_tn(&all, &whole, true, 0);
    for (int32_t s = 0; s < 5; s += 2) {
        Problem some = all;
        some.n_seq = s + 2 <= 5 ? 2 : 1;
        Turned t = parts;
        t.x.f += s * t.x.seq;
        t.y.f += s * t.y.seq;
        fast_tn(&some, &t, true, 0);
    }
    assert_same(&whole.z, &parts.z, "slices of two, two and one");
    drop_turned(&whole);
    drop_turned(&parts);
}

/* ---- declarations --------------------------------------------------------------------------------------------------- */
static void expect_refusal(Builder *b, const char *words) {
    assert_true(mdr_ir_failed(b));
    Graph *g;
    Err *e = mdr_ir_finish(b, &g);
    assert_non_null(e);
    if (!strstr(mdr_err_text(e), words)) fail_msg("\"%s\" does not say \"%s\"", mdr_err_text(e), words);
    mdr_err_free(e);
}
static void test_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        Builder *b = mdr_ir_builder();
        Value x = mdr_ir_input(b, "x", mdr_shape2(5, 8), DT_REAL, MDR_AXIS_SEQ), w = mdr_ir_param(b, "w", mdr_shape2(8, 6), (Init){0}),
              v = mdr_ir_param(b, "v", mdr_shape1(8), (Init){0}), ids = mdr_ir_input(b, "ids", mdr_shape2(5, 8), DT_I32, MDR_AXIS_SEQ);
        if (i == 0) { mdr_op_matmul_t(b, x, w); expect_refusal(b, "x is [5, 8] and w [8, 6], expected [.., K] and [N, K]"); }
        if (i == 1) { mdr_op_matmul(b, x, w, v); expect_refusal(b, "the bias is [8], w is [8, 6], expected [6]"); }
        if (i == 2) { mdr_op_matmul_tn(b, x, w); expect_refusal(b, "x is [5, 8] and y [8, 6]: rows differ"); }
        if (i == 3) { mdr_op_matmul(b, ids, w, MDR_ABSENT); expect_refusal(b, "input 0 is not real"); }
    }
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape3(5, 3, 8), DT_REAL, MDR_AXIS_SEQ), w = mdr_ir_param(b, "w", mdr_shape2(8, 6), (Init){0});
    Value y = mdr_op_matmul(b, x, w, MDR_ABSENT), z = mdr_op_matmul_tn(b, x, y);
    assert_true(mdr_shape_equal(mdr_ir_type(b, y).shape, mdr_shape3(5, 3, 6)));
    assert_true(mdr_shape_equal(mdr_ir_type(b, z).shape, mdr_shape2(8, 6)));
    assert_true(mdr_ir_cost(mdr_ir_node_at(b, y.node)).flops == 2.0 * 15 * 8 * 6);
    assert_true(mdr_ir_cost(mdr_ir_node_at(b, z.node)).flops == 2.0 * 15 * 8 * 6);
    mdr_ir_builder_free(b);
}

int main(void) {
    const struct CMUnitTest fast_tests[] = {cmocka_unit_test(test_matmul), cmocka_unit_test(test_row_position), cmocka_unit_test(test_matmul_tn),
                                            cmocka_unit_test(test_tn_strides), cmocka_unit_test(test_tn_slices)};
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes)};
    int failed = cmocka_run_group_tests_name("declarations", tests, NULL, NULL);
    if (!mdr_cpu_avx2()) {
        print_message("this machine has no AVX2: the fast kernels are not tested\n");
        return failed;
    }
    return failed + cmocka_run_group_tests_name("kernels", fast_tests, NULL, NULL);
}
