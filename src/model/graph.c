/* From an architecture to the forward graph of a model: embedding, layers as x + mixer(norm x) (mixers side by side are added),
 * and one of two heads. Language model: norm, linear map to the vocabulary at every position. Autoencoder (the compression
 * task): the encoder's last position plus a fixed code of each output position, through a position-wise decoder. */
#include "model/model.h"
#include "base/real_math.h"

#define EPS 1e-5
const Param mdr_model_params[] = {
    {"dim", MDR_INT, offsetof(ModelParams, dim), 128, 1, 1 << 16, NULL, "width of the model"},
    {"backbone", MDR_WORD, offsetof(ModelParams, backbone), BACKBONE_TASK, 0, 2, "task|language-model|autoencoder",
     "what stands around the layers; task: as the task wants it"},
    {"norm", MDR_WORD, offsetof(ModelParams, norm), NORM_RMS, 0, 1, "rmsnorm|layernorm", "the norm before every layer and before the unembedding"},
    {"init", MDR_WORD, offsetof(ModelParams, init), INIT_MAD_LAB, 0, 1, "mad-lab|paper", "rule of the starting weights"},
    {"tied", MDR_BOOL, offsetof(ModelParams, tied), 0, 0, 1, NULL, "the unembedding is the embedding, transposed"},
    {0}};

typedef struct Model { Builder *b; const ModelSpec *spec; Value embedding; } Model;

static Value param(Model *m, const char *owner, const char *name, Shape s, Init init) {
    return mdr_ir_param(m->b, mdr_arena_printf(mdr_ir_arena(m->b), "%s.%s", owner, name), s, init);
}
static Value norm(Model *m, const char *owner, Value x) {
    Shape s = mdr_shape1(m->spec->params.dim);
    Value gain = param(m, owner, "norm.gain", s, (Init){INIT_CONST, 1.0, 0, NULL});
    if (m->spec->params.norm == NORM_RMS) return mdr_op_rmsnorm(m->b, x, gain, EPS);
    return mdr_op_layernorm(m->b, x, gain, param(m, owner, "norm.bias", s, (Init){INIT_CONST, 0, 0, NULL}), EPS);
}
static Value linear(Model *m, const char *owner, Value x, int32_t out) {
    int32_t in = m->spec->params.dim;
    Value w = param(m, owner, "weight", mdr_shape2(in, out), (Init){INIT_LINEAR, in, 0, NULL});
    return mdr_op_matmul(m->b, x, w, param(m, owner, "bias", mdr_shape1(out), (Init){INIT_LINEAR_BIAS, in, 0, NULL}));
}

/* Norm, then the map to the vocabulary. */
static Value unembed(Model *m, Value x) {
    mdr_ir_where(m->b, "unembed");
    x = norm(m, "unembed", x);
    if (!m->spec->params.tied) return linear(m, "unembed", x, m->spec->vocab);
    Value bias = param(m, "unembed", "bias", mdr_shape1(m->spec->vocab), (Init){INIT_LINEAR_BIAS, m->spec->params.dim, 0, NULL});
    return mdr_op_add(m->b, mdr_op_matmul_t(m->b, x, m->embedding), bias);
}

static Value mixer(Model *m, const ArchMixer *mixer, const char *name, Value x) {
    const ModelSpec *s = m->spec;
    LayerContext c = {.b = m->b, .dim = s->params.dim, .length = s->rows, .max_length = s->max_length, .params = mixer->params, .name = name};
    if (mdr_ir_failed(m->b)) return MDR_ABSENT;
    if (mixer->def->check) {
        Err *e = mixer->def->check(mixer->params, c.dim, c.max_length);
        if (e) {
            mdr_ir_fail(m->b, mdr_err_wrap(e, "%s", name));
            return MDR_ABSENT;
        }
    }
    mdr_ir_where(m->b, "%s", name);
    Value y = mixer->def->build(&c, x);
    Shape got = mdr_ir_type(m->b, y).shape, want = mdr_shape2(s->rows, c.dim);
    char p[64], q[64];
    if (!mdr_ir_failed(m->b) && !mdr_shape_equal(got, want))
        mdr_ir_fail(m->b, MDR_ERR_USER("%s gives %s, expected %s", name, mdr_shape_text(got, p), mdr_shape_text(want, q)));
    return y;
}

static Value layers(Model *m, Value x) {
    const Arch *a = m->spec->arch;
    Arena *names = mdr_ir_arena(m->b);
    for (int32_t i = 0; i < a->n_layer && !mdr_ir_failed(m->b); i++) {
        const ArchLayer *l = &a->layer[i];
        Value sum[MDR_MAX_MIXERS + 1] = {x};
        const char *first = mdr_arena_printf(names, "layer %d", i + 1);
        mdr_ir_where(m->b, "%s", first);
        Value h = norm(m, first, x);
        for (int32_t k = 0; k < l->n_mixer; k++) {
            const char *name = l->n_mixer == 1 ? mdr_arena_printf(names, "layer %d %s", i + 1, l->mixer[k].def->name)
                                               : mdr_arena_printf(names, "layer %d.%d %s", i + 1, k + 1, l->mixer[k].def->name);
            sum[k + 1] = mixer(m, &l->mixer[k], name, h);
        }
        mdr_ir_where(m->b, "%s", first);
        x = mdr_ir_add(m->b, l->n_mixer + 1, sum);
    }
    return x;
}

/* Sines, then cosines, of position / 10000^(i / (half - 1)); an odd last column is zero. */
static Value position_code(Builder *b, int32_t rows, int32_t dim) {
    int32_t half = dim / 2;
    double *t = mdr_alloc((size_t)rows * (size_t)dim * sizeof *t);
    for (int32_t k = 0; k < half; k++) {
        double rate = half > 1 ? d_exp(-(double)k / (half - 1) * d_log(10000.0)) : 1.0;
        for (int32_t i = 0; i < rows; i++) d_sincos(i * rate, &t[(int64_t)i * dim + k], &t[(int64_t)i * dim + half + k]);
    }
    Value v = mdr_ir_const(b, mdr_shape2(rows, dim), t);
    mdr_free(t);
    return v;
}

static Value decoder(Model *m, Value x) {
    static const char *const part[2] = {"decoder 1", "decoder 2"};
    int32_t rows = m->spec->rows, dim = m->spec->params.dim;
    mdr_ir_where(m->b, "pooling");
    Value last = mdr_ir_reshape(m->b, mdr_ir_rows(m->b, x, rows - 1, 1), mdr_shape1(dim));
    x = mdr_op_add(m->b, mdr_ir_expand(m->b, last, rows, false), position_code(m->b, rows, dim));
    for (int i = 0; i < 2; i++) {
        mdr_ir_where(m->b, "%s", part[i]);
        x = mdr_op_unary(m->b, UN_GELU_ERF, 0.0, linear(m, part[i], norm(m, part[i], x), dim));
    }
    return x;
}

static Err *check_spec(const ModelSpec *s) {
    if (s->params.backbone == BACKBONE_TASK) return MDR_ERR_MACHINE("the model's backbone was never settled");
    if (s->vocab < 1 || s->rows < 1 || s->rows > s->max_length)
        return MDR_ERR_MACHINE("a model of %d symbols and %d rows of at most %d", s->vocab, s->rows, s->max_length);
    return NULL;
}

Err *mdr_model_graph(const ModelSpec *s, Graph **forward) {
    *forward = NULL;
    MDR_TRY(check_spec(s));
    const unsigned both = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    Model m = {.b = mdr_ir_builder(), .spec = s};
    Value tokens = mdr_ir_input(m.b, "tokens", mdr_shape1(s->rows), DT_I32, both);
    Value targets = mdr_ir_input(m.b, "targets", mdr_shape1(s->rows), DT_I32, both);
    Value inv_count = mdr_ir_input(m.b, "inv_count", mdr_shape1(1), DT_REAL, MDR_AXIS_MEMBER);
    mdr_ir_where(m.b, "embed");
    m.embedding = param(&m, "embed", "weight", mdr_shape2(s->vocab, s->params.dim), (Init){INIT_NORMAL, 0.02, 0, NULL});
    Value x = layers(&m, mdr_op_gather_rows(m.b, m.embedding, tokens));
    if (s->params.backbone == BACKBONE_AUTOENCODER) x = decoder(&m, x);
    x = unembed(&m, x);
    mdr_ir_where(m.b, "loss");
    Value loss = mdr_op_ce(m.b, x, targets, inv_count), counts = mdr_op_class_counts(m.b, x, targets);
    mdr_ir_output(m.b, mdr_ir_sum_batch(m.b, 1, &loss));
    mdr_ir_output(m.b, mdr_ir_sum_batch(m.b, 1, &counts));
    return mdr_ir_finish(m.b, forward);
}
