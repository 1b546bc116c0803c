/* See agree.h. Data is drawn from one fixed stream, so a failure can be seen again. */
#include "model/agree.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { MEMBERS = 2, SEQUENCES = 3, MOST = MDR_MAX_OUT + 64, MOST_IN = 64 };
static const uint64_t SEED = 20261125;

typedef struct Ask {
    const DeviceDef *device;
    Accel *accel;
    Agreement *row;
} Ask;

/* One graph on one device; outputs as mdr_exec_eval gives them. */
typedef struct Side { Graph *g; double *out[MOST]; } Side;
/* The data both sides see. */
typedef struct Data { double *input[MOST_IN], *param; int64_t n_param; int32_t n_input; } Data;

static void side_free(Side *s)
{
    for (int32_t i = 0; s->g && i < s->g->n_output && i < MOST; i++) mdr_free(s->out[i]);
    mdr_ir_graph_free(s->g);
    *s = (Side){0};
}
static void data_free(Data *d)
{
    for (int32_t i = 0; i < d->n_input; i++) mdr_free(d->input[i]);
    mdr_free(d->param);
}

static int64_t per_member(const Type *t) { return mdr_numel(t->shape) * ((t->axes & MDR_AXIS_SEQ) ? SEQUENCES : 1); }

/* Numbers that bf16 holds: what is compared is what a device makes of its inputs, not their rounding. */
static double between(Rng *r, double lo, double hi)
{
    const double x = lo + (hi - lo) * mdr_rng_unit(r);
    int exponent;
    const double part = frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(part, 8)), exponent - 8);
}
static void draw(const Graph *g, double lo, double hi, int32_t classes, Data *d)
{
    Rng r = mdr_rng(SEED, 1);
    int32_t node[MOST_IN];
    *d = (Data){.n_input = mdr_ir_inputs(g, node, MOST_IN)};
    for (int32_t i = 0; i < d->n_input; i++) {
        const Type *t = &g->node[node[i]].out[0];
        int64_t n = per_member(t) * ((t->axes & MDR_AXIS_MEMBER) ? MEMBERS : 1);
        bool seed = strcmp(((const InputAttr *)g->node[node[i]].attr)->name, "seed") == 0;
        d->input[i] = mdr_alloc((size_t)n * sizeof(double) + 8);
        for (int64_t k = 0; k < n; k++)
            d->input[i][k] = t->dtype == DT_I32 ? (double)mdr_rng_below(&r, (uint32_t)classes) : seed ? between(&r, -1, 1) : between(&r, lo, hi);
    }
    int32_t n = mdr_ir_params(g, NULL, 0), *param = mdr_alloc((size_t)n * sizeof *param + 4);
    mdr_ir_params(g, param, n);
    for (int32_t i = 0; i < n; i++) d->n_param += mdr_numel(g->node[param[i]].out[0].shape);
    d->param = mdr_alloc((size_t)(d->n_param * MEMBERS) * sizeof(double) + 8);
    for (int64_t k = 0; k < d->n_param * MEMBERS; k++) d->param[k] = between(&r, lo, hi);
    mdr_free(param);
}

static Err *run(const Side *s, const Data *d, const DeviceDef *device, Accel *accel, int32_t first, int32_t members, double **out)
{
    double *own[MOST_IN];
    int32_t node[MOST_IN];
    mdr_ir_inputs(s->g, node, MOST_IN);
    for (int32_t i = 0; i < d->n_input; i++) {
        const Type *t = &s->g->node[node[i]].out[0];
        own[i] = d->input[i] + ((t->axes & MDR_AXIS_MEMBER) ? first * per_member(t) : 0);
    }
    EvalSpec spec = {.device = device, .n_member = members, .n_seq = SEQUENCES, .input = (const double *const *)own,
                     .param = d->param + first * d->n_param, .accel = accel};
    return mdr_exec_eval(s->g, &spec, out);
}

/* The largest error over the largest value, and the same of root mean squares: one cannot hide behind one large value. */
typedef struct Off { double most, mean; } Off;
static Off off_by(const double *ref, const double *dev, int64_t n)
{
    double big = 1e-30, worst = 0, square = 1e-60, error = 0;
    for (int64_t k = 0; k < n; k++) {
        double diff = fabs(ref[k] - dev[k]);
        if (!(diff <= 1e150)) return (Off){INFINITY, INFINITY};
        if (diff > worst) worst = diff;
        if (fabs(ref[k]) > big) big = fabs(ref[k]);
        square += ref[k] * ref[k];
        error += diff * diff;
    }
    return (Off){worst / big, sqrt(error / square)};
}

/* Outputs of the device beside those of the reference. */
static void compare(const Ask *a, const Side *ref, const Side *dev, int64_t longest, const char *name)
{
    double e = a->device->half ? 0x1p-8 : FLT_EPSILON, allowed = (a->device->half ? 2 : 8) * e * sqrt((double)longest + 16);
    if (allowed > 0.25) allowed = 0.25;
    const double chain = strcmp(a->row->kind, "op") == 0 ? 8 : 12;     /* rounded values one behind another: errors add as squares          */
    const double allowed_mean = a->device->half ? chain * e : 8 * chain * e;
    for (int32_t i = 0; i < ref->g->n_output; i++) {
        Value v = ref->g->output[i];
        if (!ref->out[i] || !dev->out[i]) {
            if (ref->out[i] != dev->out[i]) snprintf(a->row->why, sizeof a->row->why, "%s: output %d is missing on one side", name, i);
            continue;
        }
        Off off = off_by(ref->out[i], dev->out[i], per_member(&ref->g->node[v.node].out[v.out]) * MEMBERS);
        double share = fmax(off.most / allowed, off.mean / allowed_mean);
        if (share > a->row->worst) {
            a->row->worst = share;
            a->row->at = name;
        }
        if (!(off.most <= allowed) && !a->row->why[0])
            snprintf(a->row->why, sizeof a->row->why, "%s: output %d differs by %.3g, allowed %.3g", name, i, off.most, allowed);
        if (!(off.mean <= allowed_mean) && !a->row->why[0])
            snprintf(a->row->why, sizeof a->row->why, "%s: output %d differs by %.3g in the mean, allowed %.3g", name, i, off.mean, allowed_mean);
    }
}

static bool same_bytes(const double *a, const double *b, int64_t n) { return memcmp(a, b, (size_t)n * sizeof *a) == 0; }

/* The last member alone has the bits it has beside the first. */
static Err *alone(const Ask *a, const Side *dev, const Data *d, const char *name)
{
    double *out[MOST] = {0};
    MDR_TRY(run(dev, d, a->device, a->accel, MEMBERS - 1, 1, out));
    for (int32_t i = 0; i < dev->g->n_output; i++) {
        Value v = dev->g->output[i];
        if (v.node >= 0 && out[i]) {
            int64_t n = per_member(&dev->g->node[v.node].out[v.out]);
            if (!same_bytes(out[i], dev->out[i] + (MEMBERS - 1) * n, n) && !a->row->why[0])
                snprintf(a->row->why, sizeof a->row->why, "%s: output %d of a member alone has other bits than among %d", name, i, MEMBERS);
        }
        mdr_free(out[i]);
    }
    return NULL;
}

static Err *judge(const Ask *a, Side *ref, Side *dev, const Data *d, int64_t longest, const char *name)
{
    a->row->cases++;
    if (ref->g->n_output > MOST || dev->g->n_output > MOST) return MDR_ERR_MACHINE("%s: more than %d outputs", name, MOST);
    Err *e = run(ref, d, &mdr_exec_ref64, NULL, 0, MEMBERS, ref->out);
    if (!e) e = run(dev, d, a->device, a->accel, 0, MEMBERS, dev->out);
    if (!e) {
        compare(a, ref, dev, longest, name);
        e = alone(a, dev, d, name);
    }
    return mdr_err_wrap(e, "%s %s, %s", a->row->kind, a->row->name, name);
}

/* ---- ops ---- */
static Err *forward(const OpDef *d, const OpCase *c, Graph **g, int32_t *n_out)
{
    Builder *b = mdr_ir_builder();
    Value in[MDR_MAX_IN];
    for (int i = 0; i < c->n_in; i++) {
        unsigned axes = c->in_axes[i] ? (unsigned)c->in_axes[i] - 1 : MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
        in[i] = c->in[i].rank ? mdr_ir_input(b, "x", c->in[i], (DType)c->in_dtype[i], axes) : MDR_ABSENT;
    }
    Value v = mdr_ir_node(b, d, c->attr, c->n_in, in);
    *n_out = mdr_ir_has(v) ? mdr_ir_node_at(b, v.node)->n_out : 0;
    for (int32_t i = 0; i < *n_out; i++) mdr_ir_output(b, mdr_ir_out(v, i));
    return mdr_ir_finish(b, g);
}

/* Lowered, outputs wanted by `keep`, and, where the op has one, the gradient of all real inputs for seeds of their own. */
static Err *with_gradient(const Graph *g, const OpDef *op, const DeviceDef *device, const bool *keep, Graph **out)
{
    Builder *b = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out)};
    Value y[MDR_MAX_OUT], dy[MDR_MAX_OUT], x[MDR_MAX_IN], dx[MDR_MAX_IN];
    int32_t node[MDR_MAX_IN], n_in = mdr_ir_inputs(g, node, MDR_MAX_IN), n_x = 0, n_y = 0;
    mdr_ir_copy(b, g, mdr_exec_has, (void *)(uintptr_t)device, &map);
    for (int32_t i = 0; i < n_in && !mdr_ir_failed(b); i++)
        if (g->node[node[i]].out[0].dtype == DT_REAL) x[n_x++] = mdr_ir_copied(&map, (Value){node[i], 0});
    for (int32_t i = 0; i < g->n_output && !mdr_ir_failed(b); i++)
        if (keep[i]) y[n_y++] = mdr_ir_copied(&map, g->output[i]);
    mdr_free(map.out);
    for (int32_t i = 0; i < n_y && !mdr_ir_failed(b); i++) mdr_ir_output(b, y[i]);
    for (int32_t i = 0; op->vjp && i < n_y && !mdr_ir_failed(b); i++) {
        Type t = mdr_ir_type(b, y[i]);
        dy[i] = t.dtype == DT_I32 ? MDR_ABSENT : mdr_ir_input(b, "seed", t.shape, DT_REAL, MDR_AXIS_MEMBER | (t.axes & (unsigned)MDR_AXIS_SEQ));
    }
    if (op->vjp && !mdr_ir_failed(b)) {
        mdr_ir_grad(b, n_y, y, dy, n_x, x, dx);
        for (int32_t i = 0; i < n_x; i++) mdr_ir_output(b, dx[i]);
    }
    return mdr_ir_finish(b, out);
}

/* What both devices make of an output: a composition leaves by-products out. */
static Err *kept(const Graph *g, const OpDef *op, const DeviceDef *device, bool *keep)
{
    Builder *b = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out)};
    mdr_ir_copy(b, g, mdr_exec_has, (void *)(uintptr_t)device, &map);
    for (int32_t i = 0; i < g->n_output && !mdr_ir_failed(b); i++)
        keep[i] = keep[i] && mdr_ir_has(mdr_ir_copied(&map, g->output[i])) && !((op->aux >> i) & 1u);
    mdr_free(map.out);
    Graph *none = NULL;
    Err *e = mdr_ir_failed(b) ? mdr_ir_finish(b, &none) : NULL;
    if (!e) mdr_ir_builder_free(b);
    return e;
}

static Err *one_case(const Ask *a, const OpDef *d, const OpCase *c)
{
    Graph *g = NULL;
    Side ref = {0}, dev = {0};
    Data data = {0};
    bool keep[MDR_MAX_OUT];
    int32_t n_out = 0;
    int64_t longest = 1;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].rank && mdr_numel(c->in[i]) > longest) longest = mdr_numel(c->in[i]);
    MDR_TRY(forward(d, c, &g, &n_out));
    for (int i = 0; i < MDR_MAX_OUT; i++) keep[i] = i < n_out;
    Err *e = kept(g, d, &mdr_exec_ref64, keep);
    if (!e) e = kept(g, d, a->device, keep);
    if (!e) e = with_gradient(g, d, &mdr_exec_ref64, keep, &ref.g);
    if (!e) e = with_gradient(g, d, a->device, keep, &dev.g);
    if (!e) {
        draw(ref.g, c->lo, c->hi, c->hi_int ? c->hi_int : 2, &data);
        e = judge(a, &ref, &dev, &data, longest * SEQUENCES, c->name);
    }
    side_free(&ref);
    side_free(&dev);
    data_free(&data);
    mdr_ir_graph_free(g);
    return e;
}

/* An error is the row's reason, except where the device itself is gone. */
static Err *settle(const Ask *a, Err *e)
{
    if (!e) return NULL;
    snprintf(a->row->why, sizeof a->row->why, "%.*s", (int)sizeof a->row->why - 1, mdr_err_text(e));
    mdr_err_free(e);
    return a->accel ? mdr_accel_sync(a->accel) : NULL;
}

/* ---- models ---- */
static Err *model_graphs(const ModelSpec *m, const Ask *a, Side *ref, Side *dev)
{
    Graph *g = NULL;
    MDR_TRY(mdr_model_graph(m, &g));
    Err *e = mdr_model_lower(g, mdr_exec_has, NULL, (void *)(uintptr_t)&mdr_exec_ref64, true, &ref->g);
    if (!e) e = mdr_model_lower(g, mdr_exec_has, mdr_exec_fuse, (void *)(uintptr_t)a->device, true, &dev->g);
    mdr_ir_graph_free(g);
    return e;
}

/* Starting values as training has them, each member its own; the mean over the targets of SEQUENCES sequences. */
static void start(const ModelSpec *m, const Graph *g, Data *d)
{
    int32_t n = mdr_ir_params(g, NULL, 0), *node = mdr_alloc((size_t)n * sizeof *node + 4);
    double *w = d->param;
    mdr_ir_params(g, node, n);
    for (uint64_t member = 1; member <= MEMBERS; member++)
        for (int32_t i = 0; i < n; i++) {
            const ParamAttr *p = g->node[node[i]].attr;
            mdr_model_init(p, p->shape, m->params.init, m->params.backbone, SEED + member, w);
            w += mdr_numel(p->shape);
        }
    for (int32_t i = 0; i < MEMBERS; i++) d->input[2][i] = 1.0 / (SEQUENCES * m->rows);
    mdr_free(node);
}

typedef struct Whole { const char *text; int32_t dim, rows, vocab, backbone, norm; bool tied; } Whole;
static Err *one_model(const Ask *a, const Whole *w, const char *name)
{
    ArchList list = {0};
    Side ref = {0}, dev = {0};
    Data data = {0};
    MDR_TRY(mdr_model_parse(w->text, 0, NULL, &list));
    ModelSpec m = {.arch = list.arch[0], .vocab = w->vocab, .rows = w->rows, .max_length = w->rows + 1};
    mdr_params_default(mdr_model_params, &m.params);
    m.params.dim = w->dim;
    m.params.backbone = w->backbone;
    m.params.norm = w->norm;
    m.params.tied = w->tied;
    Err *e = model_graphs(&m, a, &ref, &dev);
    if (!e) {
        draw(ref.g, -1, 1, w->vocab, &data);
        start(&m, ref.g, &data);
        e = judge(a, &ref, &dev, &data, 4 * w->dim, name);
    }
    side_free(&ref);
    side_free(&dev);
    data_free(&data);
    mdr_model_archs_free(&list);
    return e;
}

Err *mdr_model_agree(const DeviceDef *device, Accel *accel, AgreeFn *each, void *ctx)
{
    for (int i = 0; mdr_op_at(i); i++) {
        const OpDef *d = mdr_op_at(i)->def;
        Agreement row = {.kind = "op", .name = d->name, .at = ""};
        Ask a = {device, accel, &row};
        if (!d->cases || !(mdr_op_has_cuda(d) || d->compose)) continue;
        for (const OpCase *c = d->cases; c->name; c++) MDR_TRY(settle(&a, one_case(&a, d, c)));
        each(ctx, &row);
    }
    for (int i = 0; mdr_layer_at(i); i++) {
        Agreement row = {.kind = "primitive", .name = mdr_layer_at(i)->name, .at = ""};
        Ask a = {device, accel, &row};
        MDR_TRY(settle(&a, one_model(&a, &(Whole){row.name, 32, 19, 7, BACKBONE_LM, NORM_RMS, false}, "19 rows, width 32")));
        MDR_TRY(settle(&a, one_model(&a, &(Whole){row.name, 128, 127, 16, BACKBONE_LM, NORM_RMS, false}, "127 rows, width 128")));
        each(ctx, &row);
    }
    static const struct { const char *name; int32_t which; } backbone[] = {{"language-model", BACKBONE_LM}, {"autoencoder", BACKBONE_AUTOENCODER}};
    for (int i = 0; i < MDR_COUNT(backbone); i++) {
        Agreement row = {.kind = "backbone", .name = backbone[i].name, .at = ""};
        Ask a = {device, accel, &row};
        MDR_TRY(settle(&a, one_model(&a, &(Whole){"mh-attention(n_heads=4) swiglu", 48, 17, 33, backbone[i].which, NORM_RMS, false}, "17 rows, width 48")));
        MDR_TRY(settle(&a, one_model(&a, &(Whole){"mh-attention swiglu", 128, 32, 300, backbone[i].which, NORM_RMS, false},
                                     "32 rows, width 128, 300 symbols")));
        each(ctx, &row);
    }
    /* Where patterns of fused ops nearly stand: mixers side by side, layers that share weights, another norm, a tied unembedding. */
    static const struct { const char *name; Whole w; } odd[] = {
        {"side by side", {"mh-attention(n_heads=4)+hyena mamba+swiglu", 32, 19, 7, BACKBONE_LM, NORM_RMS, false}},
        {"shared layers", {"(mh-attention(n_heads=8) swiglu)@5", 64, 40, 7, BACKBONE_LM, NORM_RMS, false}},
        {"layernorm, tied", {"hyena(proj_groups=1) swiglu mamba(d_conv=3,d_state=5)", 64, 7, 9, BACKBONE_LM, NORM_LAYER, true}}};
    for (int i = 0; i < MDR_COUNT(odd); i++) {
        Agreement row = {.kind = "model", .name = odd[i].name, .at = ""};
        Ask a = {device, accel, &row};
        MDR_TRY(settle(&a, one_model(&a, &odd[i].w, odd[i].w.text)));
        each(ctx, &row);
    }
    return NULL;
}
