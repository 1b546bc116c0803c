/* From architecture to graph: what a forward graph promises, the loss against a computation written out
 * here, its gradient against differences, starting values, and messages that name the layer. */
#include "exec/exec.h"
#include "model/model.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 11, MOST = 128 };

static ArchList parse(const char *text) {
    ArchList l;
    Err *e = mdr_model_parse(text, 0, NULL, &l);
    if (e) fail_msg("%s: %s", text, mdr_err_text(e));
    return l;
}
static ModelSpec spec(const Arch *a, int32_t dim, int32_t vocab, int32_t length) {
    ModelSpec s = {.arch = a, .vocab = vocab, .rows = length, .max_length = length};
    mdr_params_default(mdr_model_params, &s.params);
    s.params.dim = dim;
    s.params.backbone = BACKBONE_LM;
    return s;
}
static void promises(void **state) {
    (void)state;
    ArchList l = parse("(mh-attention hyena)*2 mamba+mlp");
    ModelSpec s = spec(l.arch[0], 32, 10, 9);
    s.rows = 8;
    Graph *g, *joint;
    assert_null(mdr_model_graph(&s, &g));
    int32_t node[MOST], n = mdr_ir_inputs(g, node, MOST);
    static const char *const name[] = {"tokens", "targets", "inv_count"};
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++) assert_string_equal(((const InputAttr *)g->node[node[i]].attr)->name, name[i]);
    assert_int_equal(g->n_output, 2);
    for (int i = 0; i < 2; i++) {
        const Type *t = &g->node[g->output[i].node].out[g->output[i].out];
        assert_int_equal(t->phase, PH_POST);
        assert_int_equal(t->dtype, DT_SUM);
        assert_true(mdr_shape_equal(t->shape, i ? mdr_shape2(3, 10) : mdr_shape1(1)));
    }
    Err *e = mdr_model_lower(g, mdr_exec_has, NULL, (void *)(uintptr_t)&mdr_exec_ref64, true, &joint);
    if (e) fail_msg("%s", mdr_err_text(e));
    n = mdr_ir_params(g, node, MOST);
    assert_int_equal(joint->n_output, 1 + n);
    int32_t again[MOST];
    assert_int_equal(mdr_ir_params(joint, again, MOST), n);
    for (int32_t i = 0; i < n; i++) {
        const ParamAttr *a = g->node[node[i]].attr, *b = joint->node[again[i]].attr;
        const Type *t = &joint->node[joint->output[1 + i].node].out[joint->output[1 + i].out];
        assert_string_equal(a->name, b->name);
        assert_true(mdr_shape_equal(t->shape, a->shape));
        assert_int_equal(t->phase, PH_POST);
        for (int32_t k = 0; k < i; k++) assert_string_not_equal(a->name, ((const ParamAttr *)g->node[node[k]].attr)->name);
    }
    mdr_ir_graph_free(joint);
    assert_null(mdr_model_lower(g, mdr_exec_has, NULL, (void *)(uintptr_t)&mdr_exec_ref64, false, &joint));
    assert_int_equal(joint->n_output, 2);
    mdr_ir_graph_free(joint);
    mdr_ir_graph_free(g);
    mdr_model_archs_free(&l);
}

static void refusals(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"mlp attention(n_heads=3)", "layer 2 attention: `n_heads` is 3, which does not divide the width 32"},
        {"mh-attention(n_heads=32)", "layer 1 mh-attention: 32 heads of width 1"},
        {"mlp+hyena(proj_groups=7)", "layer 1.2 hyena: `proj_groups` is 7"}};
    for (int i = 0; i < MDR_COUNT(bad); i++) {
        ArchList l = parse(bad[i][0]);
        ModelSpec s = spec(l.arch[0], 32, 10, 8);
        Graph *g;
        Err *e = mdr_model_graph(&s, &g);
        assert_non_null(e);
        assert_null(g);
        if (!strstr(mdr_err_text(e), bad[i][1])) fail_msg("%s: %s", bad[i][0], mdr_err_text(e));
        assert_int_equal(mdr_err_code(e), MDR_USER);
        mdr_err_free(e);
        mdr_model_archs_free(&l);
    }
    ArchList l = parse("mlp");
    ModelSpec s = spec(l.arch[0], 32, 10, 8);
    s.params.backbone = BACKBONE_TASK;
    Graph *g;
    Err *e = mdr_model_graph(&s, &g);
    assert_non_null(e);
    mdr_err_free(e);
    mdr_model_archs_free(&l);
}

/* ---- a model on numbers ---- */
typedef struct Model { ArchList l; ModelSpec s; Graph *forward, *joint; double *w; int64_t n_w; double *tokens, *targets, inv_count; int32_t n_seq; } Model;

static Model model(const char *text, int32_t dim, int32_t vocab, int32_t length, int32_t backbone, int32_t norm, int32_t tied) {
    Model m = {.l = parse(text), .n_seq = 3};
    m.s = spec(m.l.arch[0], dim, vocab, length);
    m.s.params.backbone = backbone;
    m.s.params.norm = norm;
    m.s.params.tied = tied;
    Err *e = mdr_model_graph(&m.s, &m.forward);
    if (!e) e = mdr_model_lower(m.forward, mdr_exec_has, NULL, (void *)(uintptr_t)&mdr_exec_ref64, true, &m.joint);
    if (e) fail_msg("%s: %s", text, mdr_err_text(e));
    int32_t node[MOST], n = mdr_ir_params(m.forward, node, MOST);
    m.w = mdr_alloc(1 << 20);
    for (int32_t i = 0; i < n; i++) {                        /* starting values, and a little on all: no bias is zero      */
        const ParamAttr *a = m.forward->node[node[i]].attr;
        mdr_model_init(a, a->shape, INIT_MAD_LAB, BACKBONE_LM, SEED, m.w + m.n_w);
        Rng r = mdr_rng(SEED + 1, mdr_hash64(a->name));
        for (int64_t k = 0; k < mdr_numel(a->shape); k++) m.w[m.n_w++] += 0.1 * mdr_rng_normal(&r);
    }
    Rng r = mdr_rng(SEED, 5);
    m.tokens = mdr_alloc((size_t)(m.n_seq * length) * sizeof(double));
    m.targets = mdr_alloc((size_t)(m.n_seq * length) * sizeof(double));
    int wanted = 0;
    for (int i = 0; i < m.n_seq * length; i++) {
        m.tokens[i] = mdr_rng_below(&r, (uint32_t)vocab);
        m.targets[i] = (double)mdr_rng_below(&r, (uint32_t)vocab + 1) - 1;     /* some are ignored                        */
        wanted += m.targets[i] >= 0;
    }
    m.inv_count = 1.0 / wanted;
    return m;
}
static void model_free(Model *m) {
    mdr_ir_graph_free(m->joint);
    mdr_ir_graph_free(m->forward);
    mdr_model_archs_free(&m->l);
    mdr_free(m->w);
    mdr_free(m->tokens);
    mdr_free(m->targets);
}
static double loss(const Model *m, double **grad) {
    double *out[MOST + 1];
    const double *in[3] = {m->tokens, m->targets, &m->inv_count};
    EvalSpec e = {.device = &mdr_exec_ref64, .n_member = 1, .n_seq = m->n_seq, .input = in, .param = m->w};
    Err *err = mdr_exec_eval(m->joint, &e, out);
    if (err) fail_msg("%s", mdr_err_text(err));
    double y = out[0][0], *at = grad ? (*grad = mdr_alloc((size_t)m->n_w * sizeof **grad)) : NULL;
    for (int32_t i = 0; i < m->joint->n_output; i++) {
        Value v = m->joint->output[i];
        int64_t n = mdr_numel(m->joint->node[v.node].out[v.out].shape);
        if (i >= 1 && at) {
            memcpy(at, out[i], (size_t)n * sizeof *at);
            at += n;
        }
        mdr_free(out[i]);
    }
    return y;
}

static void gradients(void **state) {
    (void)state;
    static const struct { const char *text; int32_t backbone, norm, tied; } c[] = {
        {"mlp", BACKBONE_LM, NORM_RMS, 0},
        {"attention swiglu", BACKBONE_LM, NORM_LAYER, 0},
        {"mh-attention(n_heads=4)+mamba hyena", BACKBONE_LM, NORM_RMS, 1},
        {"hyena mlp", BACKBONE_AUTOENCODER, NORM_RMS, 0},
        {"mamba", BACKBONE_AUTOENCODER, NORM_LAYER, 1}};
    for (int i = 0; i < MDR_COUNT(c); i++) {
        Model m = model(c[i].text, 16, 7, 6, c[i].backbone, c[i].norm, c[i].tied);
        double *g;
        loss(&m, &g);
        Rng r = mdr_rng(SEED, 9);
        for (int k = 0; k < 3; k++) {
            double want = 0, size = 0, h = 1e-5, *u = mdr_alloc((size_t)m.n_w * sizeof *u);
            for (int64_t j = 0; j < m.n_w; j++) {
                u[j] = mdr_rng_normal(&r);
                want += u[j] * g[j];
                size += g[j] * g[j];
                m.w[j] += h * u[j];
            }
            double up = loss(&m, NULL);
            for (int64_t j = 0; j < m.n_w; j++) m.w[j] -= 2 * h * u[j];
            double down = loss(&m, NULL), got = (up - down) / (2 * h);
            for (int64_t j = 0; j < m.n_w; j++) m.w[j] += h * u[j];
            if (!(fabs(got - want) <= 1e-6 + 1e-5 * sqrt(size))) fail_msg("%s: derivative %.10g, by differences %.10g", c[i].text, want, got);
            mdr_free(u);
        }
        mdr_free(g);
        model_free(&m);
    }
}

/* ---- the same by hand: `mlp` with D = 6, V = 5, L = 4 ---- */
enum { D = 6, V = 5, L = 4, INNER = 24 };
static const double *linear(const double *x, const double *w, int in, int out, bool bias, double *y) {
    for (int j = 0; j < out; j++) {
        y[j] = bias ? w[in * out + j] : 0;
        for (int i = 0; i < in; i++) y[j] += x[i] * w[i * out + j];
    }
    return w + in * out + (bias ? out : 0);
}
static const double *rms(const double *x, const double *gain, double *y) {
    double s = 0;
    for (int i = 0; i < D; i++) s += x[i] * x[i] / D;
    for (int i = 0; i < D; i++) y[i] = x[i] / sqrt(s + 1e-5) * gain[i];
    return gain + D;
}
static double by_hand(const Model *m, bool autoencoder) {
    double sum = 0;
    for (int q = 0; q < m->n_seq; q++) {
        double x[L][D], h[D], a[INNER], y[D], logit[V];
        const double *w = m->w, *head = NULL;
        for (int t = 0; t < L; t++) {
            w = m->w + V * D;
            for (int i = 0; i < D; i++) x[t][i] = m->w[(int)m->tokens[q * L + t] * D + i];
            w = rms(x[t], w, h);
            w = linear(h, w, D, INNER, false, a);
            for (int i = 0; i < INNER; i++) a[i] = 0.5 * a[i] * (1 + tanh(0.7978845608028654 * (a[i] + 0.044715 * a[i] * a[i] * a[i])));
            head = linear(a, w, INNER, D, false, y);
            for (int i = 0; i < D; i++) x[t][i] += y[i];
        }
        for (int t = 0; t < L; t++) {
            w = head;
            double z[D];
            for (int i = 0; i < D; i++) {
                double angle = t * pow(10000.0, -(double)(i % (D / 2)) / (D / 2 - 1));
                z[i] = autoencoder ? x[L - 1][i] + (i < D / 2 ? sin(angle) : cos(angle)) : x[t][i];
            }
            for (int k = 0; k < 2 && autoencoder; k++) {
                w = rms(z, w, h);
                w = linear(h, w, D, D, true, z);
                for (int i = 0; i < D; i++) z[i] *= 0.5 * (1 + erf(z[i] / sqrt(2.0)));
            }
            w = rms(z, w, h);
            w = linear(h, w, D, V, true, logit);
            double total = 0;
            for (int i = 0; i < V; i++) total += exp(logit[i]);
            int want = (int)m->targets[q * L + t];
            if (want >= 0) sum += log(total) - logit[want];
        }
        assert_int_equal(w - m->w, m->n_w);
    }
    return sum * m->inv_count;
}
static void values(void **state) {
    (void)state;
    for (int a = 0; a < 2; a++) {
        Model m = model("mlp", D, V, L, a ? BACKBONE_AUTOENCODER : BACKBONE_LM, NORM_RMS, 0);
        double got = loss(&m, NULL), want = by_hand(&m, a);
        if (!(fabs(got - want) < 1e-10)) fail_msg("backbone %d: loss %.12g, by hand %.12g", a, got, want);
        model_free(&m);
    }
}

/* ---- starting values ---- */
static void moments(const Init *in, Shape s, int rule, int backbone, double *mean, double *sd, double *lo, double *hi) {
    ParamAttr a = {.name = "x", .init = *in, .shape = s};
    int64_t n = mdr_numel(s);
    double *v = mdr_alloc((size_t)n * sizeof *v);
    mdr_model_init(&a, s, rule, backbone, SEED, v);
    *mean = *sd = 0;
    *lo = *hi = v[0];
    for (int64_t i = 0; i < n; i++) {
        *mean += v[i] / (double)n;
        *lo = fmin(*lo, v[i]);
        *hi = fmax(*hi, v[i]);
    }
    for (int64_t i = 0; i < n; i++) *sd += (v[i] - *mean) * (v[i] - *mean) / (double)n;
    *sd = sqrt(*sd);
    mdr_free(v);
}
static void starting_values(void **state) {
    (void)state;
    const Shape s = mdr_shape2(100, 400);
    const Init linear_ = {INIT_LINEAR, 100, 0, NULL}, bias = {INIT_LINEAR_BIAS, 100, 0, NULL}, dt = {INIT_DT_BIAS, 1e-3, 0.1, NULL},
               embed = {INIT_NORMAL, 0.02, 0, NULL}, conv = {INIT_UNIFORM, -0.5, 0.5, NULL}, one = {INIT_CONST, 1, 0, NULL};
    double mean, sd, lo, hi;
    for (int k = 0; k < 4; k++) {
        int rule = k & 1 ? INIT_PAPER : INIT_MAD_LAB, backbone = k & 2 ? BACKBONE_AUTOENCODER : BACKBONE_LM;
        moments(&linear_, s, rule, backbone, &mean, &sd, &lo, &hi);
        if (k == 0) assert_true(lo >= -0.1 && hi <= 0.1 && lo < -0.0999 && hi > 0.0999 && fabs(sd - 0.1 / sqrt(3)) < 5e-4);
        else assert_true(fabs(sd - 0.02) < 2e-4 && hi > 0.06);
        assert_true(fabs(mean) < 1e-3);
        moments(&bias, s, rule, backbone, &mean, &sd, &lo, &hi);
        assert_true(lo == 0 && hi == 0);
        moments(&dt, s, rule, backbone, &mean, &sd, &lo, &hi);
        if (k == 0) assert_true(log1p(exp(lo)) > 0.999e-3 && log1p(exp(lo)) < 1.01e-3 && log1p(exp(hi)) < 0.10001 && log1p(exp(hi)) > 0.099);
        else assert_true(lo == 0 && hi == 0);
        moments(&embed, s, rule, backbone, &mean, &sd, &lo, &hi);
        assert_true(fabs(sd - 0.02) < 2e-4 && fabs(mean) < 5e-4);
        moments(&conv, s, rule, backbone, &mean, &sd, &lo, &hi);
        assert_true(lo >= -0.5 && hi < 0.5 && fabs(sd - 1 / sqrt(12)) < 2e-3);
        moments(&one, s, rule, backbone, &mean, &sd, &lo, &hi);
        assert_true(lo == 1 && hi == 1);
    }
    double a[4], b[4], c[4], d[4];
    ParamAttr x = {.name = "x", .init = embed}, y = {.name = "y", .init = embed};
    mdr_model_init(&x, mdr_shape1(4), 0, BACKBONE_LM, 1, a);
    mdr_model_init(&x, mdr_shape1(4), 0, BACKBONE_LM, 1, b);
    mdr_model_init(&y, mdr_shape1(4), 0, BACKBONE_LM, 1, c);
    mdr_model_init(&x, mdr_shape1(4), 0, BACKBONE_LM, 2, d);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < 4; i++) assert_true(a[i] != c[i] && a[i] != d[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(promises), cmocka_unit_test(refusals),
                                       cmocka_unit_test(gradients), cmocka_unit_test(values), cmocka_unit_test(starting_values)};
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
