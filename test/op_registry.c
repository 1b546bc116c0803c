/* Over every registered op and each of its cases: the reference runs; its derivative agrees with central differences along
 * random directions, with sign; a composition equals it in value and gradient; the fast kernel equals it. An op without a reference
 * kernel is tested through its composition, and its own gradient, lowered afterwards, equals that of the composition. An op without a
 * case fails, so the suite cannot pass having tested nothing. */
#include "graph_harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { N_SEQ = 2 };
static const uint64_t SEED = 20260101;

static Value build_case(Builder *b, const OpDef *d, const OpCase *c)
{
    Value in[MDR_MAX_IN];
    for (int i = 0; i < c->n_in; i++) {
        unsigned axes = c->in_axes[i] ? (unsigned)c->in_axes[i] - 1 : MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
        in[i] = c->in[i].rank ? mdr_ir_input(b, "x", c->in[i], (DType)c->in_dtype[i], axes) : MDR_ABSENT;
    }
    return mdr_ir_node(b, d, c->attr, c->n_in, in);
}

static bool differentiable(const OpDef *d) { return d->vjp != NULL; }

static bool has_cpu(const OpDef *op, void *ctx)
{
    (void)ctx;
    return mdr_exec_has(op, (void *)(uintptr_t)&mdr_exec_cpu);
}
static bool has_but(const OpDef *op, void *ctx) { return op != ctx && mdr_exec_has(op, (void *)(uintptr_t)&mdr_exec_ref64); }

/* The forward graph of a case, lowered through `has`; its outputs in y. */
static int forward(Builder *b, const OpDef *d, const OpCase *c, HasOp *has, void *ctx, Value *y)
{
    Builder *s = mdr_ir_builder();
    Value v = build_case(s, d, c);
    if (!mdr_ir_has(v)) { Graph *none; Err *e = mdr_ir_finish(s, &none); mdr_ir_fail(b, e); return 0; }
    int n = mdr_ir_node_at(s, v.node)->n_out;
    for (int i = 0; i < n; i++) mdr_ir_output(s, mdr_ir_out(v, i));
    Graph *g = NULL;
    Err *e = mdr_ir_finish(s, &g);
    if (e) { mdr_ir_fail(b, e); return 0; }
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out)};
    mdr_ir_copy(b, g, has, ctx, &map);
    for (int i = 0; i < n; i++) y[i] = mdr_ir_copied(&map, g->output[i]);
    mdr_free(map.out);
    mdr_ir_graph_free(g);
    return n;
}

/* Only outputs that the composition makes are compared; without a gradient only values. */
static Err *make(const OpDef *d, const OpCase *c, HasOp *has, void *ctx, const bool *keep, uint64_t seed, Probe *p)
{
    Builder *b = mdr_ir_builder();
    Value y[MDR_MAX_OUT], kept[MDR_MAX_OUT];
    Rng r = mdr_rng(seed, 1);
    int n = forward(b, d, c, has, ctx, y), k = 0;
    for (int i = 0; i < n; i++)
        if (mdr_ir_has(y[i]) && (keep ? keep[i] : !((d->aux >> i) & 1u))) kept[k++] = y[i];
    if (!differentiable(d)) {                            /* values only: no gradient graph                                   */
        memset(p, 0, sizeof *p);
    }
    return probe_make(b, k, kept, N_SEQ, c->lo, c->hi, c->hi_int ? c->hi_int : 2, &r, p);
}

/* Values alone, lowered for a device. */
static Err *values(const OpDef *d, const OpCase *c, const DeviceDef *dev, double **out, int *n_out, int64_t *n)
{
    Builder *b = mdr_ir_builder();
    Value y[MDR_MAX_OUT];
    Rng r = mdr_rng(SEED, 1);
    double *in[MDR_MAX_IN] = {0};
    *n_out = forward(b, d, c, mdr_exec_has, (void *)(uintptr_t)dev, y);
    int k = 0, n_node = mdr_ir_n_node(b);
    for (int i = 0; i < n_node; i++) {
        const Node *x = mdr_ir_node_at(b, i);
        if (x->op != &mdr_ir_op_input) continue;
        int64_t all = mdr_numel(x->out[0].shape) * ((x->out[0].axes & MDR_AXIS_SEQ) ? N_SEQ : 1);
        in[k] = mdr_alloc((size_t)all * 8);
        uint32_t classes = (uint32_t)(c->hi_int ? c->hi_int : 2);
        for (int64_t j = 0; j < all; j++)
            in[k][j] = x->out[0].dtype == DT_I32 ? (double)mdr_rng_below(&r, classes) : c->lo + (c->hi - c->lo) * mdr_rng_unit(&r);
        k++;
    }
    for (int i = 0; i < *n_out; i++) {
        Type t = mdr_ir_type(b, y[i]);
        n[i] = mdr_numel(t.shape) * ((t.axes & MDR_AXIS_SEQ) ? N_SEQ : 1);
        mdr_ir_output(b, y[i]);
    }
    Graph *g = NULL;
    Err *e = mdr_ir_finish(b, &g);
    EvalSpec s = {.device = dev, .n_member = 1, .n_seq = N_SEQ, .input = (const double *const *)in};
    if (!e) e = mdr_exec_eval(g, &s, out);
    mdr_ir_graph_free(g);
    for (int i = 0; i < k; i++) mdr_free(in[i]);
    return e;
}

static int complaints;
static void complain(const OpDef *d, const OpCase *c, const char *text)
{
    print_message("  %s / %s: %s\n", d->name, c ? c->name : "-", text);
    complaints++;
}
static bool failed(const OpDef *d, const OpCase *c, Err *e)
{
    if (!e) return false;
    complain(d, c, mdr_err_text(e));
    mdr_err_free(e);
    return true;
}

static void derivative(const OpDef *d, const OpCase *c)
{
    Probe p;
    char buf[256];
    void *ref = (void *)(uintptr_t)&mdr_exec_ref64;
    if (!differentiable(d) || failed(d, c, make(d, c, mdr_exec_has, ref, NULL, SEED, &p))) return;
    Rng r = mdr_rng(SEED, 2);
    bool skip[64] = {false};
    for (int i = 0, x = 0; i < c->n_in; i++)
        if (c->in[i].rank && c->in_dtype[i] == DT_REAL) skip[x++] = (d->no_grad >> i) & 1u;
    for (int i = 0; i < p.n_x; i++)
        for (int k = 0; k < 2 && !skip[i]; k++) {
            const char *bad = probe_direction(&p, i, &r, 1e-5, 2e-7, buf);
            if (bad) complain(d, c, bad);
        }
    probe_free(&p);
}

static void compare(const OpDef *d, const OpCase *c, HasOp *has_a, void *ctx_a, const DeviceDef *dev_a, HasOp *has_b, void *ctx_b,
                    const DeviceDef *dev_b, double eps, const char *what)
{
    Probe a, b;
    double *oa[MDR_MAX_OUT + 64], *ob[MDR_MAX_OUT + 64];
    bool keep[MDR_MAX_OUT] = {false};
    char buf[128];
    Builder *s = mdr_ir_builder();
    Value y[MDR_MAX_OUT];
    int n = forward(s, d, c, has_b, ctx_b, y);           /* what the second side makes decides what is compared             */
    for (int i = 0; i < n; i++) keep[i] = mdr_ir_has(y[i]) && mdr_ir_type(s, y[i]).dtype != DT_I32 && !((d->aux >> i) & 1u);
    mdr_ir_builder_free(s);
    if (failed(d, c, make(d, c, has_a, ctx_a, keep, SEED, &a))) return;
    if (failed(d, c, make(d, c, has_b, ctx_b, keep, SEED, &b))) { probe_free(&a); return; }
    if (!failed(d, c, probe_run(&a, dev_a, oa))) {
        if (!failed(d, c, probe_run(&b, dev_b, ob))) {
            int64_t longest = 1;
            for (int i = 0; i < c->n_in; i++)
                if (c->in[i].rank && mdr_numel(c->in[i]) > longest) longest = mdr_numel(c->in[i]);
            double diff = outs_differ(&a, oa, ob, 0, a.n_y + a.n_x), tol = tol_sum(eps, longest);
            if (!(diff <= tol)) {
                snprintf(buf, sizeof buf, "%s: differ by %.3g, tolerance %.3g", what, diff, tol);
                complain(d, c, buf);
            }
            outs_free(&b, ob);
        }
        outs_free(&a, oa);
    }
    probe_free(&a);
    probe_free(&b);
}

/* The gradient by the op's own derivative, lowered only then, against that of its composition. */
static bool has_all(const OpDef *op, void *ctx) { (void)op; (void)ctx; return true; }
static void own_gradient(const OpDef *d, const OpCase *c)
{
    Probe own, other;
    Graph *lowered = NULL;
    double *a[MDR_MAX_OUT + 64], *b[MDR_MAX_OUT + 64];
    char buf[128];
    void *ref = (void *)(uintptr_t)&mdr_exec_ref64;
    if (failed(d, c, make(d, c, has_all, NULL, NULL, SEED, &own))) return;
    if (failed(d, c, make(d, c, mdr_exec_has, ref, NULL, SEED, &other))) { probe_free(&own); return; }
    Builder *s = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)own.g->n_node * sizeof *map.out)};
    mdr_ir_copy(s, own.g, mdr_exec_has, ref, &map);
    for (int i = 0; i < own.g->n_output && !mdr_ir_failed(s); i++) mdr_ir_output(s, mdr_ir_copied(&map, own.g->output[i]));
    mdr_free(map.out);
    Err *e = mdr_ir_finish(s, &lowered);
    mdr_ir_graph_free(own.g);
    own.g = lowered;
    if (!failed(d, c, e) && !failed(d, c, probe_run(&own, &mdr_exec_ref64, a))) {
        if (!failed(d, c, probe_run(&other, &mdr_exec_ref64, b))) {
            double diff = outs_differ(&own, a, b, 0, own.n_y + own.n_x);
            if (!(diff <= 1e-12)) {
                snprintf(buf, sizeof buf, "its own gradient differs from its composition's by %.3g", diff);
                complain(d, c, buf);
            }
            outs_free(&other, b);
        }
        outs_free(&own, a);
    }
    probe_free(&own);
    probe_free(&other);
}

static void fast_values(const OpDef *d, const OpCase *c)
{
    double *a[MDR_MAX_OUT], *b[MDR_MAX_OUT];
    int64_t n[MDR_MAX_OUT];
    int n_out;
    if (failed(d, c, values(d, c, &mdr_exec_ref64, a, &n_out, n))) return;
    if (failed(d, c, values(d, c, &mdr_exec_cpu, b, &n_out, n))) return;
    int64_t longest = 1;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].rank && mdr_numel(c->in[i]) > longest) longest = mdr_numel(c->in[i]);
    for (int i = 0; i < n_out; i++) {
        double big = 1e-30, diff = 0;
        for (int64_t k = 0; a[i] && k < n[i]; k++) {
            double x = fabs(a[i][k] - b[i][k]);
            if (!(x <= 1e300)) x = INFINITY;
            if (x > diff) diff = x;
            if (fabs(a[i][k]) > big) big = fabs(a[i][k]);
        }
        if (!(diff / big <= tol_sum(FLT_EPSILON, longest))) complain(d, c, "the CPU device differs from the double reference");
        mdr_free(a[i]);
        mdr_free(b[i]);
    }
}

static void every_op(void **state)
{
    (void)state;
    int n_case = 0, n_grad = 0, n_fast = 0, n_compose = 0;
    void *ref = (void *)(uintptr_t)&mdr_exec_ref64;
    for (int i = 0; mdr_op_at(i); i++) {
        const OpDef *d = mdr_op_at(i)->def;
        bool structural = d->shape == mdr_ir_op_add.shape || !d->cases;
        const bool own = mdr_op_at(i)->ref32.run && mdr_op_at(i)->ref64.run;
        if (!own && !d->compose) complain(d, NULL, "has neither a reference kernel nor a composition");
        if (!d->cases && !strstr(" add expand sum_rows sum_cols join split rows reshape pad_rows sum_batch ", d->name)) complain(d, NULL, "has no case");
        if (structural) continue;
        for (const OpCase *c = d->cases; c->name; c++) {
            n_case++;
            fast_values(d, c);
            if (differentiable(d)) { derivative(d, c); n_grad++; }
            Node probe = {.op = d, .attr = c->attr};
            if (differentiable(d) && mdr_op_fast(&probe)) {
                compare(d, c, has_cpu, NULL, &mdr_exec_cpu, mdr_exec_has, ref, &mdr_exec_ref64, FLT_EPSILON, "fast = reference, with gradients");
                n_fast++;
            }
            if (!own && differentiable(d)) { own_gradient(d, c); n_compose++; }
            else if (d->compose && differentiable(d)) {
                compare(d, c, mdr_exec_has, ref, &mdr_exec_ref64, has_but, (void *)(uintptr_t)d, &mdr_exec_ref64, 1e-12, "fused = composed");
                n_compose++;
            }
        }
    }
    print_message("seed %llu: %d cases, %d derivatives, %d fast, %d composed\n", (unsigned long long)SEED, n_case, n_grad, n_fast, n_compose);
    assert_true(n_case > 0 && n_grad > 0);
    assert_int_equal(complaints, 0);
}

/* The structural ops, by one graph each. */
static void structural_ops(void **state)
{
    (void)state;
    char buf[256];
    Builder *b = mdr_ir_builder();
    unsigned seq = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    Value x = mdr_ir_input(b, "x", mdr_shape2(5, 6), DT_REAL, seq), w = mdr_ir_param(b, "w", mdr_shape1(6), (Init){0});
    Value u = mdr_ir_param(b, "u", mdr_shape2(7, 6), (Init){0}), part[3], v[3];
    int32_t size[3] = {1, 2, 3};
    mdr_ir_split(b, x, 3, size, part);
    v[0] = part[2]; v[1] = part[0];
    Value y0 = mdr_ir_join(b, 2, v);                                 /* one part unused: its gradient is zero              */
    v[0] = x; v[1] = w; v[2] = mdr_ir_pad_rows(b, mdr_ir_rows(b, u, 2, 3), 1, 5);
    Value y1 = mdr_ir_add(b, 3, v);
    Value y2 = mdr_ir_sum_cols(b, y1), y3 = mdr_ir_sum_rows(b, x);
    Value y4 = mdr_ir_expand(b, y3, 3, true), y5 = mdr_ir_expand(b, y2, 2, false);
    Value y6 = mdr_ir_reshape(b, mdr_op_mul(b, y1, y1), mdr_shape3(2, 3, 5));
    Value y7 = mdr_ir_rows(b, x, 4, 1);
    Value y[] = {y0, y2, y4, y5, y6, y7};
    Probe p;
    Rng r = mdr_rng(SEED, 3);
    Err *e = probe_make(b, 6, y, 3, -1, 1, 2, &r, &p);
    if (e) fail_msg("%s", mdr_err_text(e));
    for (int i = 0; i < p.n_x; i++)
        if (probe_direction(&p, i, &r, 1e-5, 1e-8, buf)) fail_msg("%s", buf);
    double *a[64], *c[64];
    e = probe_run(&p, &mdr_exec_ref64, a);
    assert_null(e);
    e = probe_run(&p, &mdr_exec_cpu, c);
    assert_null(e);
    assert_true(outs_differ(&p, c, a, 0, p.n_y + p.n_x) <= tol_sum(FLT_EPSILON, 64));
    outs_free(&p, a);
    outs_free(&p, c);
    probe_free(&p);
}

/* scan: h' = tanh(h*a + x + c), y = h' * c, against the same unrolled by hand; value and gradient, chunks, reversed. */
static Value scan_by(Builder *b, bool unrolled, bool reverse, int chunk)
{
    enum { L = 7, D = 3 };
    unsigned seq = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    Value x = mdr_ir_input(b, "x", mdr_shape2(L, D), DT_REAL, seq), h0 = mdr_ir_input(b, "h0", mdr_shape1(D), DT_REAL, seq);
    Value a = mdr_ir_param(b, "a", mdr_shape1(D), (Init){0}), c = mdr_ir_input(b, "c", mdr_shape1(D), DT_REAL, seq), out[3];
    if (unrolled) {
        Value h = h0, y[L];
        for (int i = 0; i < L; i++) {
            int t = reverse ? L - 1 - i : i;
            Value xt = mdr_ir_reshape(b, mdr_ir_rows(b, x, t, 1), mdr_shape1(D)), v[3] = {mdr_op_mul(b, h, a), xt, c};
            h = mdr_op_unary(b, UN_TANH, 0, mdr_ir_add(b, 3, v));
            y[t] = mdr_op_mul(b, h, c);
        }
        Value all = mdr_ir_join(b, L, y);
        out[1] = mdr_ir_reshape(b, all, mdr_shape2(L, D));
        out[0] = h;
    } else {
        Builder *s = mdr_ir_builder();
        Value h = mdr_ir_input(s, "h", mdr_shape1(D), DT_REAL, seq), xt = mdr_ir_input(s, "x", mdr_shape2(1, D), DT_REAL, seq);
        Value ab = mdr_ir_input(s, "a", mdr_shape1(D), DT_REAL, MDR_AXIS_MEMBER), cb = mdr_ir_input(s, "c", mdr_shape1(D), DT_REAL, seq);
        Value v[3] = {mdr_op_mul(s, h, ab), mdr_ir_reshape(s, xt, mdr_shape1(D)), cb};
        Value next = mdr_op_unary(s, UN_TANH, 0, mdr_ir_add(s, 3, v));
        mdr_ir_output(s, next);
        mdr_ir_output(s, mdr_ir_reshape(s, mdr_op_mul(s, next, cb), mdr_shape2(1, D)));
        Graph *body = NULL;
        Err *e = mdr_ir_finish(s, &body);
        if (e) fail_msg("%s", mdr_err_text(e));
        Value in[] = {h0, x, a, c};
        mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 2, .n_ys = 1, .length = L, .chunk = chunk, .reverse = reverse}, in, out);
    }
    Value f[2] = {mdr_ir_sum_rows(b, out[1]), out[0]};
    return mdr_ir_add(b, 2, f);
}

static void scan_equals_unrolled(void **state)
{
    (void)state;
    for (int k = 0; k < 6; k++) {
        Probe p[2];
        double *out[2][64];
        for (int side = 0; side < 2; side++) {
            Builder *b = mdr_ir_builder();
            Value y = scan_by(b, side == 0, k & 1, k / 2 == 0 ? 0 : k / 2 == 1 ? 1 : 7);
            Rng r = mdr_rng(SEED, 4);
            Err *e = probe_make(b, 1, &y, 3, -1, 1, 2, &r, &p[side]);
            if (e) fail_msg("%s", mdr_err_text(e));
            e = probe_run(&p[side], &mdr_exec_ref64, out[side]);
            if (e) fail_msg("%s", mdr_err_text(e));
        }
        double diff = outs_differ(&p[0], out[1], out[0], 0, p[0].n_y + p[0].n_x);
        if (!(diff <= 1e-13)) fail_msg("variant %d: scan and unrolled differ by %g", k, diff);
        for (int side = 0; side < 2; side++) { outs_free(&p[side], out[side]); probe_free(&p[side]); }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(structural_ops), cmocka_unit_test(scan_equals_unrolled), cmocka_unit_test(every_op)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
