/* attention: causal softmax attention with rotary positions (Vaswani et al. 2017; Su et al. 2021), in four names: one head or 16,
 * over everything before or over a window (each position sees itself and `window` before it; Beltagy et al. 2020).
 *   q, k, v = x Wq, x Wk, x Wv (+ biases);   y = softmax(rope(q) rope(k)^T / sqrt d + causal) v Wo
 * The step keeps keys (rotated) and values of the rows it can still see, the newest last. Not here: grouped keys, ALiBi. */
#include "layer/layer.h"
#include "base/real_math.h"

typedef struct AttentionParams { int32_t n_heads, window, bias; double base; } AttentionParams;
#define HEADS(n) {"n_heads", MDR_INT, offsetof(AttentionParams, n_heads), n, 1, 4096, NULL, "heads; they share the width out"}
#define WINDOW {"window", MDR_INT, offsetof(AttentionParams, window), 32, 1, 1 << 20, NULL, "positions seen before one's own"}
#define REST                                                                                                             \
    {"bias", MDR_BOOL, offsetof(AttentionParams, bias), 1, 0, 1, NULL, "the four projections have a bias"},               \
    {"base", MDR_REAL, offsetof(AttentionParams, base), 1e4, 2.0, 1e12, NULL, "longest wavelength of the rotary positions, over 2 pi"}
static const Param one_head[] = {HEADS(1), REST, {0}}, many_heads[] = {HEADS(16), REST, {0}},
                   one_sliding[] = {HEADS(1), WINDOW, REST, {0}}, many_sliding[] = {HEADS(16), WINDOW, REST, {0}};

static Err *check(const void *params, int32_t dim, int32_t max_length) {
    const AttentionParams *p = params;
    (void)max_length;
    if (dim % p->n_heads != 0) return MDR_ERR_USER("`n_heads` is %d, which does not divide the width %d", p->n_heads, dim);
    if (dim / p->n_heads % 2 != 0)
        return MDR_ERR_USER("%d heads of width %d: rotary positions need an even width of a head", p->n_heads, dim / p->n_heads);
    return NULL;
}

static Value build(LayerContext *c, Value x) {
    const AttentionParams *p = c->params;
    const int32_t third[3] = {c->dim, c->dim, c->dim};
    Value qkv[3];
    mdr_ir_split(c->b, mdr_layer_linear(c, "qkv", x, 3 * c->dim, p->bias), 3, third, qkv);
    Value q = mdr_op_rope(c->b, qkv[0], p->n_heads, p->base), k = mdr_op_rope(c->b, qkv[1], p->n_heads, p->base);
    Value y = mdr_op_attention(c->b, q, k, qkv[2], (AttentionAttr){p->n_heads, p->window});
    return mdr_layer_linear(c, "out", y, c->dim, p->bias);
}

static int64_t state_full(const void *params, int32_t dim, int32_t length) {
    (void)params;
    return 2 * (int64_t)length * dim;
}
static int64_t state_sliding(const void *params, int32_t dim, int32_t length) {
    int32_t window = ((const AttentionParams *)params)->window;
    return 2 * (int64_t)(window < length ? window : length) * dim;
}

/* Rows a step must keep, its own among them. */
static int32_t kept(const LayerContext *c) {
    int32_t window = ((const AttentionParams *)c->params)->window;
    return window && window + 1 < c->max_length ? window + 1 : c->max_length;
}
static int32_t carry(const LayerContext *c, Shape *shape) {
    shape[0] = shape[1] = mdr_shape2(kept(c), c->dim);
    return 2;
}

/* The rows move up by one and x becomes the last. */
static Value push(Builder *b, Value rows, Value x) {
    int32_t n = mdr_ir_type(b, rows).shape.d[0];
    if (n == 1) return x;
    return mdr_op_add(b, mdr_ir_pad_rows(b, mdr_ir_rows(b, rows, 1, n - 1), 0, n), mdr_ir_pad_rows(b, x, n - 1, n));
}

/* What rope does to row t, with t a value: x [1, H*d], cos and sin [d/2]. */
static Value rotate(Builder *b, Value x, int32_t n_heads, Value cs, Value sn) {
    int32_t dim = (int32_t)mdr_cols(mdr_ir_type(b, x).shape), half = dim / n_heads / 2;
    const int32_t halves[2] = {half, half};
    Value part[2], y[2];
    mdr_ir_split(b, mdr_ir_reshape(b, x, mdr_shape2(n_heads, 2 * half)), 2, halves, part);
    y[0] = mdr_op_binary(b, BIN_SUB, mdr_op_mul(b, part[0], cs), mdr_op_mul(b, part[1], sn));
    y[1] = mdr_op_add(b, mdr_op_mul(b, part[1], cs), mdr_op_mul(b, part[0], sn));
    return mdr_ir_reshape(b, mdr_ir_join(b, 2, y), mdr_shape2(1, dim));
}

static Value step(LayerContext *c, Value x, Value t, const Value *carried, Value *next) {
    const AttentionParams *p = c->params;
    const int32_t third[3] = {c->dim, c->dim, c->dim}, half = c->dim / p->n_heads / 2;
    Value qkv[3];
    double *turn = mdr_arena_alloc(mdr_ir_arena(c->b), (size_t)half * sizeof *turn);
    for (int32_t i = 0; i < half; i++) turn[i] = d_exp(-(double)i / half * d_log(p->base));
    Value angle = mdr_op_mul(c->b, mdr_ir_const(c->b, mdr_shape1(half), turn), t);
    Value cs = mdr_op_unary(c->b, UN_COS, 0.0, angle), sn = mdr_op_unary(c->b, UN_SIN, 0.0, angle);
    mdr_ir_split(c->b, mdr_layer_linear(c, "qkv", x, 3 * c->dim, p->bias), 3, third, qkv);
    next[0] = push(c->b, carried[0], rotate(c->b, qkv[1], p->n_heads, cs, sn));
    next[1] = push(c->b, carried[1], qkv[2]);
    Value y = mdr_op_attend_row(c->b, rotate(c->b, qkv[0], p->n_heads, cs, sn), next[0], next[1], t, p->n_heads);
    return mdr_layer_linear(c, "out", y, c->dim, p->bias);
}

#define ATTENTION(NAME, HELP, TABLE, STATE)                                                                              \
    {.name = NAME, .help = HELP, .params = TABLE, .params_size = sizeof(AttentionParams), .mixes = true, .check = check,  \
     .build = build, .state = STATE, .carry = carry, .step = step}
const LayerDef mdr_layers_attention[] = {
    ATTENTION("attention", "causal softmax attention, one head, rotary positions (Vaswani et al. 2017, arXiv 1706.03762)", one_head, state_full),
    ATTENTION("mh-attention", "attention with 16 heads", many_heads, state_full),
    ATTENTION("sliding-attention", "causal attention over a window, one head (Beltagy et al. 2020, arXiv 2004.05150)", one_sliding, state_sliding),
    ATTENTION("mh-sliding-attention", "sliding-attention with 16 heads", many_sliding, state_sliding),
    {0}};
