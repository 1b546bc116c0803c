/* attention: causal softmax attention, heads side by side in the columns, with an optional window, and its gradient.
 *   s[t,k] = d^-1/2 q[t].k[k]   for k in t-w .. t (w = 0: 0 .. t),   lse[t] = log sum_k exp s[t,k]
 *   p[t,k] = exp(s[t,k] - lse[t]),   y[t] = sum_k p[t,k] v[k]
 * Gradient, with p made anew from lse and D[t] = dy[t].y[t] - dlse[t]:   ds = p (dy[t].v[k] - D[t]),
 *   dq[t] = d^-1/2 sum_k ds k[k],   dk[k] = d^-1/2 sum_t ds q[t],   dv[k] = sum_t p dy[t]
 * Not here: rotary embedding (rope), several query heads for one key head. Vaswani et al. 2017; lse: Dao et al. 2022.
 * */
#include "op/reference.h"

#define HEADS(c) (((const AttentionAttr *)(c)->node->attr)->n_heads)
#define FIRST_KEY(c, t) (mdr_first_key(((const AttentionAttr *)(c)->node->attr)->window, t))
static inline int32_t mdr_first_key(int32_t window, int32_t t) { return window > 0 && t > window ? t - window : 0; }

static acc dot(int32_t n, const real *a, const real *b) {
    acc sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += (acc)a[i] * (acc)b[i];
    return sum;
}

/* in: q, k, v [L, H*d]; out: y [L, H*d], lse [L, H] */
MDR_REF(attention) {
    const int32_t rows = IN_SHAPE(0).d[0], heads = HEADS(c), d = IN_SHAPE(0).d[1] / heads;
    const acc scale = 1.0 / sqrt((double)d);
    acc *p = c->scratch;
    FOR_SEQUENCES(c) {
        const real *q = IN(real, 0), *k = IN(real, 1), *v = IN(real, 2);
        for (int32_t i = 0; i < rows * heads; i++) {
            const int32_t t = i / heads, h = i % heads, first = FIRST_KEY(c, t);
            acc most = -(acc)INFINITY, sum = 0.0;
            for (int32_t j = first; j <= t; j++) {
                p[j] = scale * dot(d, q + t * LD_IN(0) + h * d, k + j * LD_IN(1) + h * d);
                if (!(p[j] <= most)) most = p[j];
            }
            for (int32_t j = first; j <= t; j++) sum += p[j] = (acc)r_exp((real)(p[j] - most));
            if (HAS_OUT(1)) (OUT(real, 1))[t * LD_OUT(1) + h] = (real)(most + (acc)r_log((real)sum));
            if (!HAS_OUT(0)) continue;
            for (int32_t e = 0; e < d; e++) {
                acc y = 0.0;
                for (int32_t j = first; j <= t; j++) y += p[j] * (acc)v[j * LD_IN(2) + h * d + e];
                (OUT(real, 0))[t * LD_OUT(0) + h * d + e] = (real)(y / sum);
            }
        }
    }
}

static void put(real *out, int64_t ld, int32_t rows, int32_t d, const acc *from) {
    for (int32_t t = 0; t < rows; t++)
        for (int32_t e = 0; e < d; e++) out[t * ld + e] = (real)from[t * d + e];
}

/* in: q, k, v, y [L, H*d], lse [L, H], dy [L, H*d], dlse [L, H] or absent; out: dq, dk, dv [L, H*d] */
MDR_REF(attention_grad) {
    const int32_t rows = IN_SHAPE(0).d[0], heads = HEADS(c), d = IN_SHAPE(0).d[1] / heads;
    const acc scale = 1.0 / sqrt((double)d);
    const size_t n = (size_t)rows * (size_t)d;
    acc *dq = c->scratch, *dk = dq + n, *dv = dk + n;
    FOR_SEQUENCES(c) for (int32_t h = 0; h < heads; h++) {
        const real *q = IN(real, 0) + h * d, *k = IN(real, 1) + h * d, *v = IN(real, 2) + h * d, *y = IN(real,
            3) + h * d;
        const real *lse = IN(real, 4) + h, *dy = IN(real, 5) + h * d, *dlse = HAS_IN(6) ? IN(real, 6) + h : NULL;
        memset(dq, 0, 3 * n * sizeof *dq);
        for (int32_t t = 0; t < rows; t++) {
            const real *qt = q + t * LD_IN(0), *dyt = dy + t * LD_IN(5);
            const acc total = dot(d, dyt, y + t * LD_IN(3)) - (dlse ? (acc)dlse[t * LD_IN(6)] : 0.0);
            for (int32_t j = FIRST_KEY(c, t); j <= t; j++) {
                const real *kj = k + j * LD_IN(1), *vj = v + j * LD_IN(2);
                const acc p = (acc)r_exp((real)(scale * dot(d, qt, kj) - (acc)lse[t * LD_IN(4)]));
                const acc ds = scale * p * (dot(d, dyt, vj) - total);
                for (int32_t e = 0; e < d; e++) {
                    dq[t * d + e] += ds * (acc)kj[e];
                    dk[j * d + e] += ds * (acc)qt[e];
                    dv[j * d + e] += p * (acc)dyt[e];
                }
            }
        }
        if (HAS_OUT(0)) put(OUT(real, 0) + h * d, LD_OUT(0), rows, d, dq);
        if (HAS_OUT(1)) put(OUT(real, 1) + h * d, LD_OUT(1), rows, d, dk);
        if (HAS_OUT(2)) put(OUT(real, 2) + h * d, LD_OUT(2), rows, d, dv);
    }
}

#ifdef MDR_DECLARE
static size_t scratch_y(const Node *n, Extent e) { (void)e; return (size_t)n->in_type[0].shape.d[0] * sizeof(acc); }
static size_t scratch_grad(const Node *n, Extent e) {
    (void)e;
    return 3 * sizeof(acc) * (size_t)(mdr_numel(n->in_type[0].shape) / ((const AttentionAttr *)n->attr)->n_heads);
}

/* q, k, v alike, [L, a multiple of the heads] */
static Err *check(const Node *n) {
    const AttentionAttr *a = n->attr;
    Shape q = n->in_type[0].shape;
    char x[64], y[64];
    if (a->n_heads < 1 || q.rank != 2 || q.d[1] % a->n_heads != 0)
        return mdr_ir_shape_error(n, "q is %s, expected [L, a multiple of %d heads]", mdr_shape_text(q, x), a->n_heads);
    if (a->window < 0) return mdr_ir_shape_error(n, "the window is %d, expected 0 (none) or more", a->window);
    for (int i = 1; i < 3; i++)
        if (!mdr_shape_equal(q, n->in_type[i].shape))
            return mdr_ir_shape_error(n, "%s is %s, q is %s", i == 1 ? "k" : "v", mdr_shape_text(n->in_type[i].shape,
                y),
                                      mdr_shape_text(q, x));
    return NULL;
}
static Err *shape_y(Node *n) {
    MDR_TRY(check(n));
    n->out[0].shape = n->in_type[0].shape;
    n->out[1].shape = mdr_shape2(n->in_type[0].shape.d[0], ((const AttentionAttr *)n->attr)->n_heads);
    return NULL;
}
static Err *shape_grad(Node *n) {
    MDR_TRY(check(n));
    Shape q = n->in_type[0].shape, lse = mdr_shape2(q.d[0], ((const AttentionAttr *)n->attr)->n_heads);
    char x[64], y[64];
    for (int i = 3; i < 7; i++) {
        Shape want = i == 4 || i == 6 ? lse : q;
        if (n->in[i].node >= 0 && !mdr_shape_equal(want, n->in_type[i].shape))
            return mdr_ir_shape_error(n, "input %d is %s, expected %s", i, mdr_shape_text(n->in_type[i].shape, y),
                                      mdr_shape_text(want, x));
    }
    for (int i = 0; i < 3; i++) n->out[i].shape = q;
    return NULL;
}

/* flops of the pairs (t, k) that are really seen: a product of length d for the scores and one for the values */
static Cost cost(const Node *n, double times, double tensors) {
    const AttentionAttr *a = n->attr;
    const double rows = n->in_type[0].shape.d[0], cols = n->in_type[0].shape.d[1], w = a->window;
    const double pairs = w > 0 && w < rows ? (w + 1) * w / 2 + (rows - w) * (w + 1) : rows * (rows + 1) / 2;
    return (Cost){.flops = times * 4 * pairs * cols, .bytes = 4 * rows * (tensors * cols + a->n_heads),
                  .exps = pairs * a->n_heads};
}
static Cost cost_y(const Node *n) { return cost(n, 1, 4); }
static Cost cost_grad(const Node *n) { return cost(n, 2, 8); }

#define ATTR(heads, window) (&(const AttentionAttr){heads, window})
#define CASE_Y(text, rows, heads, d, w)                                                                                \
    {.name = text, .attr = ATTR(heads, w), .n_in = 3, .lo = -2, .hi = 2,                                               \
     .in = {{2, {rows, (heads) * (d)}}, {2, {rows, (heads) * (d)}}, {2, {rows, (heads) * (d)}}}}
#define CASE_GRAD(text, rows, heads, d, w, dlse)                                                                       \
    {.name = text, .attr = ATTR(heads, w), .n_in = 7, .lo = -1, .hi = 1,                                               \
     .in = {{2, {rows, (heads) * (d)}}, {2, {rows, (heads) * (d)}}, {2, {rows, (heads) * (d)}}, {2, {rows,             \
         (heads) * (d)}},                                                                                              \
            {2, {rows, heads}}, {2, {rows, (heads) * (d)}}, {(dlse) ? 2 : 0, {rows, heads}}}}
static const OpCase cases_grad[] = {
    CASE_GRAD("16 heads of 8", 31, 16, 8, 0, 0), CASE_GRAD("window 32", 127, 2, 8, 32, 0), CASE_GRAD("window 1", 33,
        1, 16, 1, 1),
    CASE_GRAD("odd head", 33, 2, 5, 0, 0), CASE_GRAD("wide head", 31, 1, 128, 0, 0), CASE_GRAD("one row", 1, 2, 8, 0,
        1), {0}};
static const OpDef def_grad = {.name = "attention_grad",
    .equation = "p = exp(s - lse), ds = p (dy.v - dy.y + dlse); dq = d^-1/2 ds k, dk = d^-1/2 ds^T q, dv = p^T dy",
    .attr_size = sizeof(AttentionAttr), .min_in = 7, .max_in = 7, .n_out = 3, .optional = 1u << 6, .shape = shape_grad,
    .cost = cost_grad, .cases = cases_grad};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    Value dy = dout[0];
    /* only lse is used */
    if (!mdr_ir_has(dy)) {
        Shape s = n->out[0].shape;
        dy = mdr_ir_const(b, s, mdr_arena_alloc(mdr_ir_arena(b), (size_t)mdr_numel(s) * sizeof(double)));
    }
    Value g[7] = {in[0], in[1], in[2], out[0], out[1], dy, dout[1]};
    Value r = mdr_ir_node(b, &def_grad, n->attr, 7, g);
    for (int i = 0; i < 3; i++) din[i] = mdr_ir_out(r, i);
}

static const OpCase cases[] = {
    CASE_Y("16 heads of 8", 127, 16, 8, 0), CASE_Y("2 heads of 16", 33, 2, 16, 0), CASE_Y("odd head", 31, 2, 5, 0),
    CASE_Y("wide head", 33, 1, 128, 0), CASE_Y("window 1", 33, 2, 8, 1), CASE_Y("window 32", 127, 2, 16, 32),
    CASE_Y("window past the end", 31, 1, 8, 32), CASE_Y("one row", 1, 2, 8, 0), CASE_Y("two rows", 2, 1, 5, 1), {0}};
static const OpDef def = {.name = "attention",
    .equation = "s = d^-1/2 q k^T (causal, window), y = softmax(s) v, lse = log sum exp s",
    .attr_size = sizeof(AttentionAttr), .min_in = 3, .max_in = 3, .n_out = 2, .shape = shape_y, .vjp = vjp,
        .cost = cost_y,
    .cases = cases};

Value mdr_op_attention(Builder *b, Value q, Value k, Value v, AttentionAttr a) {
    Value in[3] = {q, k, v};
    return mdr_ir_node(b, &def, &a, 3, in);
}

const OpRow mdr_op_rows_attention[] = {
    {&def, {.run = attention_f32, .scratch = scratch_y}, {.run = attention_f64, .scratch = scratch_y}},
    {&def_grad, {.run = attention_grad_f32, .scratch = scratch_grad}, {.run = attention_grad_f64,
        .scratch = scratch_grad}},
    {0}};
#endif
