/* mamba: selective state space (Gu and Dao 2023, arXiv 2312.00752).
 *   x, z = u Win;   x = silu(conv_short x);   dt, B, C = x Wx;   delta = softplus(dt Wdt + bias)
 *   h[t] = exp(delta A) h[t-1] + delta B x;   y = C h + D x;   out = (y * silu z) Wout;    A = -exp(A_log)
 * The step carries h and the last d_conv - 1 inputs of the convolution. */
#include "layer/layer.h"
#include "base/real_math.h"

typedef struct MambaParams { int32_t d_state, d_conv, expand, dt_rank; } MambaParams;
static const Param params[] = {
    {"d_state", MDR_INT, offsetof(MambaParams, d_state), 4, 1, 1024, NULL, "states of each channel"},
    {"d_conv", MDR_INT, offsetof(MambaParams, d_conv), 4, 1, 8, NULL, "taps of the short convolution"},
    {"expand", MDR_INT, offsetof(MambaParams, expand), 2, 1, 64, NULL, "channels, in widths of the model"},
    {"dt_rank", MDR_INT, offsetof(MambaParams, dt_rank), 0, 0, 1 << 16, NULL, "rank of the step size; 0 = width / 16, rounded up"},
    {0}};

typedef struct Sizes { int32_t channels, states, rank; } Sizes;
static Sizes sizes(const LayerContext *c) {
    const MambaParams *p = c->params;
    return (Sizes){p->expand * c->dim, p->d_state, p->dt_rank ? p->dt_rank : (c->dim + 15) / 16};
}

static Err *check(const void *params_, int32_t dim, int32_t max_length) {
    const MambaParams *p = params_;
    (void)max_length;
    if ((int64_t)p->expand * dim * p->d_state > INT32_MAX / 64)
        return MDR_ERR_USER("`expand` %d and `d_state` %d are too many states for width %d", p->expand, p->d_state, dim);
    return NULL;
}

typedef struct ConvWeights { Value weight, bias; } ConvWeights;
static ConvWeights conv_weights(LayerContext *c, Sizes s) {
    int32_t taps = ((const MambaParams *)c->params)->d_conv;
    double reach = 1.0 / sqrt((double)taps);
    Init init = {INIT_UNIFORM, -reach, reach, NULL};
    ConvWeights w = {mdr_layer_param(c, "conv.weight", mdr_shape2(taps, s.channels), init), MDR_ABSENT};
    w.bias = mdr_layer_param(c, "conv.bias", mdr_shape1(s.channels), init);
    return w;
}

/* What both forms share: delta, B, C from the convolved x; A and D. Weight of dt: U(+-rank^-1/2), which is what a linear map of
 * that fan-in gets. */
typedef struct Ssm { Value delta, bm, cm, a, d; } Ssm;
static Ssm ssm(LayerContext *c, Sizes s, Value x) {
    const int32_t part[3] = {s.rank, s.states, s.states};
    Value v[3];
    Ssm r;
    mdr_ir_split(c->b, mdr_layer_linear(c, "x", x, s.rank + 2 * s.states, false), 3, part, v);
    Value w = mdr_layer_param(c, "dt.weight", mdr_shape2(s.rank, s.channels), (Init){INIT_LINEAR, s.rank, 0, NULL});
    Value bias = mdr_layer_param(c, "dt.bias", mdr_shape1(s.channels), (Init){INIT_DT_BIAS, 1e-3, 0.1, NULL});
    r.delta = mdr_op_unary(c->b, UN_SOFTPLUS, 0.0, mdr_op_matmul(c->b, v[0], w, bias));
    r.bm = v[1];
    r.cm = v[2];
    double *log_n = mdr_alloc((size_t)s.channels * (size_t)s.states * sizeof *log_n);
    for (int32_t i = 0; i < s.channels * s.states; i++) log_n[i] = d_log(i % s.states + 1.0);
    Value a_log = mdr_layer_param(c, "A_log", mdr_shape2(s.channels, s.states), (Init){INIT_TABLE, 0, 0, log_n});
    mdr_free(log_n);
    r.a = mdr_op_unary(c->b, UN_NEG, 0.0, mdr_op_unary(c->b, UN_EXP, 0.0, a_log));
    r.d = mdr_layer_param(c, "D", mdr_shape1(s.channels), (Init){INIT_CONST, 1.0, 0, NULL});
    return r;
}

static Value gated_out(LayerContext *c, Value y, Value z) {
    return mdr_layer_linear(c, "out", mdr_op_mul(c->b, y, mdr_op_unary(c->b, UN_SILU, 0.0, z)), c->dim, false);
}

static Value build(LayerContext *c, Value x) {
    Sizes s = sizes(c);
    const int32_t half[2] = {s.channels, s.channels};
    Value v[2];
    mdr_ir_split(c->b, mdr_layer_linear(c, "in", x, 2 * s.channels, false), 2, half, v);
    ConvWeights w = conv_weights(c, s);
    Value u = mdr_op_unary(c->b, UN_SILU, 0.0, mdr_op_conv_short(c->b, v[0], w.weight, w.bias));
    Ssm m = ssm(c, s, u);
    return gated_out(c, mdr_op_selective_scan(c->b, u, m.delta, m.a, m.bm, m.cm, m.d), v[1]);
}

static int64_t state(const void *params_, int32_t dim, int32_t length) {
    const MambaParams *p = params_;
    (void)length;
    return (int64_t)p->expand * dim * p->d_state;
}

static int32_t carry(const LayerContext *c, Shape *shape) {
    Sizes s = sizes(c);
    int32_t taps = ((const MambaParams *)c->params)->d_conv;
    shape[0] = mdr_shape2(s.channels, s.states);
    if (taps > 1) shape[1] = mdr_shape2(taps - 1, s.channels);
    return taps > 1 ? 2 : 1;
}

/* The convolution at one position: the rows kept and x make one window of taps rows. */
static Value conv_step(LayerContext *c, Sizes s, Value x, const Value *carried, Value *next) {
    int32_t taps = ((const MambaParams *)c->params)->d_conv;
    ConvWeights w = conv_weights(c, s);
    Value rows = x;
    if (taps > 1) {
        rows = mdr_op_add(c->b, mdr_ir_pad_rows(c->b, carried[1], 0, taps), mdr_ir_pad_rows(c->b, x, taps - 1, taps));
        next[1] = mdr_ir_rows(c->b, rows, 1, taps - 1);
    }
    Value y = mdr_op_add(c->b, mdr_ir_sum_rows(c->b, mdr_op_mul(c->b, rows, w.weight)), w.bias);
    return mdr_ir_reshape(c->b, y, mdr_shape2(1, s.channels));
}

static Value step(LayerContext *c, Value x, Value t, const Value *carried, Value *next) {
    (void)t;
    Sizes s = sizes(c);
    const int32_t half[2] = {s.channels, s.channels};
    Builder *b = c->b;
    Value v[2];
    mdr_ir_split(b, mdr_layer_linear(c, "in", x, 2 * s.channels, false), 2, half, v);
    Value u = mdr_op_unary(b, UN_SILU, 0.0, conv_step(c, s, v[0], carried, next));
    Ssm m = ssm(c, s, u);
    Value each = mdr_ir_expand(b, mdr_ir_reshape(b, m.delta, mdr_shape1(s.channels)), s.states, true);
    Value decay = mdr_op_unary(b, UN_EXP, 0.0, mdr_op_mul(b, each, m.a));
    Value du = mdr_ir_expand(b, mdr_ir_reshape(b, mdr_op_mul(b, m.delta, u), mdr_shape1(s.channels)), s.states, true);
    Value inject = mdr_op_mul(b, du, mdr_ir_reshape(b, m.bm, mdr_shape1(s.states)));
    next[0] = mdr_op_add(b, mdr_op_mul(b, carried[0], decay), inject);
    Value read = mdr_ir_sum_cols(b, mdr_op_mul(b, next[0], mdr_ir_reshape(b, m.cm, mdr_shape1(s.states))));
    Value y = mdr_op_add(b, mdr_ir_reshape(b, read, mdr_shape2(1, s.channels)), mdr_op_mul(b, u, m.d));
    return gated_out(c, y, v[1]);
}

const LayerDef mdr_layers_mamba[] = {
    {.name = "mamba", .help = "selective state space, mixer and channel mixer in one (Gu and Dao 2023, arXiv 2312.00752)", .params = params,
     .params_size = sizeof(MambaParams), .mixes = true, .check = check, .build = build, .state = state, .carry = carry, .step = step},
    {0}};
