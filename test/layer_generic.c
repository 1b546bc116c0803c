/* Every registered primitive, whatever it is, under a few settings of its parameters each: derivatives against central
 * differences, causality, the composed form against the fused, scan(step) against build in value and gradient, and the CPU's
 * kernels against the double reference. A new file in src/layer is tested here without being named. */
#include "exec/exec.h"
#include "layer/layer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 64, SEQS = 2, SEED = 20240 };
typedef struct Small { int32_t dim, length, max_length; } Small;

/* One layer of one setting as graphs: y = layer(x), and with gradients of sum y*r for x and every parameter. */
typedef struct Case {
    const LayerDef *def;
    void *params;
    char title[160];
    Small size;
} Case;
typedef struct Built {
    Graph *graph;                     /* outputs: y, and if asked for dx, then d of each parameter                        */
    int32_t n_param;
    const ParamAttr *param[MOST];     /* owned by the forward graph                                                       */
    Graph *forward;
} Built;
typedef struct Run { double *out[MOST + 2]; int n; } Run;

static void ok(Err *e, const char *where) {
    if (e) fail_msg("%s: %s", where, mdr_err_text(e));
}

static Graph *build_forward(const Case *c, bool by_scan) {
    Builder *b = mdr_ir_builder();
    mdr_ir_where(b, "%s", c->title);
    LayerContext ctx = {.b = b, .dim = c->size.dim, .length = c->size.length, .max_length = c->size.max_length,
                        .params = c->params, .name = "layer"};
    Value x = mdr_ir_input(b, "x", mdr_shape2(c->size.length, c->size.dim), DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER);
    mdr_ir_output(b, by_scan ? mdr_layer_scan(c->def, &ctx, x) : c->def->build(&ctx, x));
    Graph *g;
    ok(mdr_ir_finish(b, &g), c->title);
    return g;
}

/* The weights r of the scalar are an input, drawn the same for every form of the layer. */
static void add_grad(Builder *b, const Built *f, const CopyMap *map, Small s) {
    Value y = mdr_ir_copied(map, f->forward->output[0]);
    Value dy = mdr_ir_input(b, "r", mdr_shape2(s.length, s.dim), DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER);
    int32_t node[MOST], n_in = mdr_ir_inputs(f->forward, node, MOST);
    assert_int_equal(n_in, 1);
    Value x[MOST + 1] = {mdr_ir_copied(map, (Value){node[0], 0})}, dx[MOST + 1];
    mdr_ir_params(f->forward, node, MOST);
    for (int32_t i = 0; i < f->n_param; i++) x[i + 1] = mdr_ir_copied(map, (Value){node[i], 0});
    mdr_ir_grad(b, 1, &y, &dy, f->n_param + 1, x, dx);
    for (int32_t i = 0; i <= f->n_param; i++) mdr_ir_output(b, dx[i]);
}

static Built build(const Case *c, bool by_scan, HasOp *has, const DeviceDef *device, bool grad) {
    Built f = {.forward = build_forward(c, by_scan)};
    int32_t node[MOST];
    f.n_param = mdr_ir_params(f.forward, node, MOST);
    assert_in_range(f.n_param, 0, MOST);
    for (int32_t i = 0; i < f.n_param; i++) f.param[i] = f.forward->node[node[i]].attr;
    Builder *b = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)f.forward->n_node * sizeof *map.out)};
    mdr_ir_copy(b, f.forward, has, (void *)(uintptr_t)device, &map);
    if (!mdr_ir_failed(b)) {
        mdr_ir_output(b, mdr_ir_copied(&map, f.forward->output[0]));
        if (grad) add_grad(b, &f, &map, c->size);
    }
    mdr_free(map.out);
    ok(mdr_ir_finish(b, &f.graph), c->title);
    return f;
}
static void built_free(Built *f) {
    mdr_ir_graph_free(f->graph);
    mdr_ir_graph_free(f->forward);
}

static int64_t n_weight(const Built *f) {
    int64_t n = 0;
    for (int32_t i = 0; i < f->n_param; i++) n += mdr_numel(f->param[i]->shape);
    return n;
}

/* Weights by name, so that forms that make them in another order get the same; no bias stays zero, no gain stays one. */
static double *draw_weights(const Built *f) {
    double *w = mdr_alloc((size_t)n_weight(f) * sizeof *w + 8), *at = w;
    for (int32_t i = 0; i < f->n_param; i++) {
        const Init *in = &f->param[i]->init;
        Rng r = mdr_rng(SEED, mdr_hash64(f->param[i]->name));
        double around = in->kind == INIT_CONST ? in->a : 0.0;
        double spread = in->kind == INIT_LINEAR ? 1.0 / sqrt(in->a) : in->kind == INIT_TABLE || in->kind == INIT_CONST ? 0.1 : 0.4;
        for (int64_t k = 0; k < mdr_numel(f->param[i]->shape); k++)
            *at++ = (in->table ? in->table[k] : around) + spread * mdr_rng_normal(&r);
    }
    return w;
}
static double *draw_x(Small s, uint64_t stream) {
    int64_t n = (int64_t)SEQS * s.length * s.dim;
    double *x = mdr_alloc((size_t)n * sizeof *x);
    Rng r = mdr_rng(SEED, stream);
    for (int64_t i = 0; i < n; i++) x[i] = mdr_rng_normal(&r);
    return x;
}

static Run run(const Built *f, const DeviceDef *device, Small s, const double *x, const double *w, const char *title) {
    Run r = {.n = f->graph->n_output};
    double *weight = draw_x(s, 1);
    const double *in[2] = {x, weight};
    EvalSpec spec = {.device = device, .n_member = 1, .n_seq = SEQS, .input = in, .param = w};
    ok(mdr_exec_eval(f->graph, &spec, r.out), title);
    mdr_free(weight);
    return r;
}
static void run_free(Run *r) {
    for (int i = 0; i < r->n; i++) mdr_free(r->out[i]);
}

/* ||a - b|| <= tol (||b|| + floor) */
static void close_to(const double *a, const double *b, int64_t n, double tol, double floor, const char *title, const char *what) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    if (!(sqrt(diff) <= tol * (sqrt(size) + floor))) fail_msg("%s: %s is off by %g of %g", title, what, sqrt(diff), sqrt(size));
}

static int32_t find_param(const Built *f, const char *name) {
    for (int32_t i = 0; i < f->n_param; i++)
        if (strcmp(f->param[i]->name, name) == 0) return i;
    return -1;
}
/* Every value and gradient of two forms of a layer. */
static void same(const Built *fa, const Run *a, const Built *fb, const Run *b, Small s, double tol, const char *title) {
    int64_t n = (int64_t)SEQS * s.length * s.dim;
    double all = 0;                                        /* a gradient that vanishes is judged beside the others        */
    for (int64_t k = 0; k < n; k++) all += b->out[1][k] * b->out[1][k];
    close_to(a->out[0], b->out[0], n, tol, 1e-12, title, "the value");
    close_to(a->out[1], b->out[1], n, tol, 1e-12, title, "the gradient of x");
    assert_int_equal(fa->n_param, fb->n_param);
    for (int32_t i = 0; i < fa->n_param; i++) {
        int32_t j = find_param(fb, fa->param[i]->name);
        if (j < 0) fail_msg("%s: one form has no parameter `%s`", title, fa->param[i]->name);
        assert_true(mdr_shape_equal(fa->param[i]->shape, fb->param[j]->shape));
        close_to(a->out[i + 2], b->out[j + 2], mdr_numel(fa->param[i]->shape), tol, 1e-3 * sqrt(all), title, fa->param[i]->name);
    }
}

/* ---- the laws ---- */
static double scalar(const Built *f, const double *x, const double *w, Small s, const char *title) {
    Run r = run(f, &mdr_exec_ref64, s, x, w, title);
    double *weight = draw_x(s, 1), sum = 0;
    for (int32_t i = 0; i < SEQS * s.length * s.dim; i++) sum += r.out[0][i] * weight[i];
    mdr_free(weight);
    run_free(&r);
    return sum;
}

/* Along a random direction in one tensor: (f(v + h u) - f(v - h u)) / 2h against <gradient, u>, sign included. */
static void direction(const Case *c, const Built *value, const double *x, const double *w, double *moving, int64_t n,
                      const double *gradient, uint64_t stream, const char *what) {
    const double h = 1e-5;
    double *u = mdr_alloc((size_t)n * sizeof *u), want = 0, size = 0;
    Rng r = mdr_rng(SEED, stream);
    for (int64_t i = 0; i < n; i++) {
        u[i] = mdr_rng_normal(&r);
        want += u[i] * gradient[i];
        size += gradient[i] * gradient[i];
    }
    for (int64_t i = 0; i < n; i++) moving[i] += h * u[i];
    double up = scalar(value, x, w, c->size, c->title);
    for (int64_t i = 0; i < n; i++) moving[i] -= 2 * h * u[i];
    double down = scalar(value, x, w, c->size, c->title);
    for (int64_t i = 0; i < n; i++) moving[i] += h * u[i];
    double got = (up - down) / (2 * h);
    if (!(fabs(got - want) <= 1e-6 * (1.0 + fabs(up)) + 1e-5 * sqrt(size)))
        fail_msg("%s: derivative by %s is %.9g, by differences %.9g", c->title, what, want, got);
    mdr_free(u);
}

static void check_gradient(const Case *c) {
    Built value = build(c, false, mdr_exec_has, &mdr_exec_ref64, false), full = build(c, false, mdr_exec_has, &mdr_exec_ref64, true);
    double *x = draw_x(c->size, 2), *w = draw_weights(&full);
    Run r = run(&full, &mdr_exec_ref64, c->size, x, w, c->title);
    for (uint64_t k = 0; k < 2; k++) {
        direction(c, &value, x, w, x, (int64_t)SEQS * c->size.length * c->size.dim, r.out[1], 100 + k, "x");
        double *at = w;
        for (int32_t i = 0; i < full.n_param; i++) {
            int64_t n = mdr_numel(full.param[i]->shape);
            if (!r.out[i + 2]) fail_msg("%s: no gradient for `%s`", c->title, full.param[i]->name);
            direction(c, &value, x, w, at, n, r.out[i + 2], 200 + 10 * (uint64_t)i + k, full.param[i]->name);
            at += n;
        }
    }
    run_free(&r);
    mdr_free(x);
    mdr_free(w);
    built_free(&value);
    built_free(&full);
}

/* Row t of x moves: no row before t does; some row of a mixer must move one behind it (not every: it may look
 * back several rows), none of a channel mixer may. Each sequence is alone. */
static void check_causal(const Case *c) {
    Built f = build(c, false, mdr_exec_has, &mdr_exec_ref64, false);
    double *x = draw_x(c->size, 2), *w = draw_weights(&f);
    const int32_t dim = c->size.dim, length = c->size.length;
    Run before = run(&f, &mdr_exec_ref64, c->size, x, w, c->title);
    double moved_behind = 0;
    for (int32_t t = 0; t < length; t += 2) {
        for (int32_t k = 0; k < dim; k++) x[t * dim + k] += 0.5 + 0.1 * k;
        Run after = run(&f, &mdr_exec_ref64, c->size, x, w, c->title);
        for (int32_t i = 0; i < SEQS * length; i++) {
            double moved = 0;
            for (int32_t k = 0; k < dim; k++) moved = fmax(moved, fabs(after.out[0][i * dim + k] - before.out[0][i * dim + k]));
            bool may = i >= t && i < (c->def->mixes ? length : t + 1);
            if (!may && !(moved <= 1e-10)) fail_msg("%s: row %d of x moves row %d of y by %g", c->title, t, i, moved);
            if (i == t && !(moved > 1e-8)) fail_msg("%s: row %d of y does not depend on its own x", c->title, t);
            if (i > t && i < length) moved_behind = fmax(moved_behind, moved);
        }
        for (int32_t k = 0; k < dim; k++) x[t * dim + k] -= 0.5 + 0.1 * k;
        run_free(&after);
    }
    if (c->def->mixes && length > 1 && !(moved_behind > 1e-8)) fail_msg("%s: no row moves anything behind it: .mixes is false", c->title);
    run_free(&before);
    mdr_free(x);
    mdr_free(w);
    built_free(&f);
}

/* Form `of` of the layer (by a scan, composed, on another device) against the fused double reference. */
static void check_same(const Case *c, bool by_scan, HasOp *has, const DeviceDef *device, double tol, const char *of) {
    Built a = build(c, by_scan, has, device, true), b = build(c, false, mdr_exec_has, &mdr_exec_ref64, true);
    double *x = draw_x(c->size, 2), *wa = draw_weights(&a), *wb = draw_weights(&b);
    char title[224];
    snprintf(title, sizeof title, "%s, %s", c->title, of);
    Run ra = run(&a, device, c->size, x, wa, title), rb = run(&b, &mdr_exec_ref64, c->size, x, wb, c->title);
    same(&a, &ra, &b, &rb, c->size, tol, title);
    run_free(&ra);
    run_free(&rb);
    mdr_free(x);
    mdr_free(wa);
    mdr_free(wb);
    built_free(&a);
    built_free(&b);
}

/* ---- the settings: defaults, and each parameter alone at other values; those the layer refuses are left out ---- */
static int each_case(const LayerDef *def, Small size, bool only_defaults, void (*check)(const Case *c)) {
    Case c = {.def = def, .params = mdr_alloc(def->params_size + 8), .size = size};
    int n = 0;
    mdr_params_default(def->params, c.params);
    snprintf(c.title, sizeof c.title, "%s", def->name);
    Err *e = def->check ? def->check(c.params, size.dim, size.max_length) : NULL;
    ok(e, def->name);
    check(&c);
    n++;
    for (const Param *p = def->params; p->name && !only_defaults; p++) {
        static const char *const other[] = {"1", "2", "3", "true", "false", "0.5", "20"};
        for (int i = 0; i < MDR_COUNT(other); i++) {
            mdr_params_default(def->params, c.params);
            e = mdr_params_set(def->params, c.params, p->name, other[i], def->name);
            if (!e && mdr_params_get(p, c.params) == p->def) continue;
            if (!e && p->type == MDR_BOOL && i < 3) continue;                 /* "1" means true: once is enough            */
            if (!e && def->check) e = def->check(c.params, size.dim, size.max_length);
            snprintf(c.title, sizeof c.title, "%s(%s=%s)", def->name, p->name, other[i]);
            if (!e) {
                check(&c);
                n++;
            }
            mdr_err_free(e);
        }
    }
    mdr_free(c.params);
    return n;
}

static const Small small = {32, 7, 9}, full = {128, 100, 128};

static void check_composed(const Case *c) {
    check_same(c, false, mdr_exec_has_composed, &mdr_exec_ref64, 1e-9, "composed");
}
static void check_recurrent(const Case *c) {
    if (c->def->step) check_same(c, true, mdr_exec_has, &mdr_exec_ref64, 1e-9, "as scan(step)");
}
static void check_cpu(const Case *c) { check_same(c, false, mdr_exec_has, &mdr_exec_cpu, 1e-4, "on the CPU"); }

static void over_all(Small size, bool only_defaults, void (*check)(const Case *c)) {
    int n = 0;
    for (int i = 0; mdr_layer_at(i); i++) n += each_case(mdr_layer_at(i), size, only_defaults, check);
    assert_true(n >= 8);
}
static void gradients(void **state) { (void)state; over_all(small, false, check_gradient); }
static void causality(void **state) { (void)state; over_all(small, false, check_causal); }
static void composed(void **state) { (void)state; over_all(small, false, check_composed); }
static void recurrent(void **state) { (void)state; over_all(small, false, check_recurrent); }
static void one_row(void **state) { (void)state; over_all((Small){32, 1, 1}, false, check_recurrent); }
static void on_cpu(void **state) { (void)state; over_all(full, true, check_cpu); }

static void declarations(void **state) {
    (void)state;
    for (int i = 0; mdr_layer_at(i); i++) {
        const LayerDef *d = mdr_layer_at(i);
        if (i > 0 && strcmp(mdr_layer_at(i - 1)->name, d->name) == 0) fail_msg("two files of src/layer define a layer `%s`", d->name);
        assert_true(i == 0 || strcmp(mdr_layer_at(i - 1)->name, d->name) < 0);
        assert_ptr_equal(mdr_layer_find(d->name), d);
        assert_true(d->help && strlen(d->help) > 10 && strlen(d->help) < 110);
        assert_non_null(d->build);
        assert_non_null(d->params);
        for (const Param *p = d->params; p->name; p++) {
            assert_true(p->help && *p->help);
            assert_true(p->def >= p->lo && p->def <= p->hi);
            assert_true(p->offset < d->params_size);
        }
        assert_true(!d->carry || d->step);
    }
    assert_null(mdr_layer_find("nothing of this name"));
    assert_null(mdr_layer_at(-1));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(declarations), cmocka_unit_test(gradients), cmocka_unit_test(causality),
                                       cmocka_unit_test(composed), cmocka_unit_test(recurrent), cmocka_unit_test(one_row),
                                       cmocka_unit_test(on_cpu)};
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
