/* selective_scan: the recurrence of Mamba (Gu and Dao 2023), every channel with N states of its own:
 *   h[t,c,n] = exp(delta[t,c] a[c,n]) h[t-1,c,n] + delta[t,c] B[t,n] u[t,c];   y[t,c] = sum_n C[t,n] h[t,c,n] + d[c] u[t,c]
 * The second output keeps h before every 16th token, [chunks, N*C] with n slowest, from which the gradient recomputes the
 * rest. h is rounded to a real at those tokens, so that both see the same numbers. Not here: softplus, gate, projections. */
#include "op/reference.h"
#include "op/selective_scan.h"

MDR_REF(selective_scan) {
    const int32_t rows = IN_SHAPE(IN_U).d[0], cols = IN_SHAPE(IN_U).d[1], n_state = IN_SHAPE(IN_A).d[1];
    acc *h = c->scratch;
    FOR_SEQUENCES(c) {
        const real *u = IN(real, IN_U), *delta = IN(real, IN_DELTA), *a = IN(real, IN_A), *bm = IN(real, IN_B),
                   *cm = IN(real, IN_C), *d = IN(real, IN_D);
        real *y = OUT(real, OUT_Y), *states = HAS_OUT(OUT_STATES) ? OUT(real, OUT_STATES) : NULL;
        for (int32_t k = 0; k < cols; k++) {
            for (int32_t n = 0; n < n_state; n++) h[n] = 0.0;
            for (int32_t t = 0; t < rows; t++) {
                real ut = u[t * LD_IN(IN_U) + k], dt = delta[t * LD_IN(IN_DELTA) + k];
                acc sum = (acc)d[k] * (acc)ut, du = (acc)dt * (acc)ut;
                for (int32_t n = 0; n < n_state; n++) {
                    if (t % SCAN_CHUNK == 0) {
                        h[n] = (acc)(real)h[n];
                        if (states) states[t / SCAN_CHUNK * LD_OUT(OUT_STATES) + (int64_t)n * cols + k] = (real)h[n];
                    }
                    h[n] = (acc)r_exp(dt * a[k * LD_IN(IN_A) + n]) * h[n] + du * (acc)bm[t * LD_IN(IN_B) + n];
                    sum += (acc)cm[t * LD_IN(IN_C) + n] * h[n];
                }
                y[t * LD_OUT(OUT_Y) + k] = (real)sum;
            }
        }
    }
}

/* With g = dh * decay, the gradient that goes to h[t-1]:  ddelta = sum g h[t-1] a + dh B u,  da = sum g h[t-1] delta. */
MDR_REF(selective_scan_grad) {
    const int32_t rows = IN_SHAPE(IN_U).d[0], cols = IN_SHAPE(IN_U).d[1], n_state = IN_SHAPE(IN_A).d[1];
    const size_t per_token = (size_t)rows * (size_t)n_state;
    acc *db = c->scratch, *dc = db + per_token, *h = dc + per_token, *dh = h + (SCAN_CHUNK + 1) * n_state, *da = dh + n_state;
    FOR_SEQUENCES(c) {
        const real *u = IN(real, IN_U), *delta = IN(real, IN_DELTA), *a = IN(real, IN_A), *bm = IN(real, IN_B),
                   *cm = IN(real, IN_C), *d = IN(real, IN_D), *states = IN(real, IN_STATES), *dy = IN(real, IN_DY);
        for (size_t i = 0; i < 2 * per_token; i++) db[i] = 0.0;
        for (int32_t k = 0; k < cols; k++) {
            acc dd = 0.0;
            for (int32_t n = 0; n < n_state; n++) dh[n] = da[n] = 0.0;
            for (int32_t chunk = (rows - 1) / SCAN_CHUNK; chunk >= 0; chunk--) {
                int32_t t0 = chunk * SCAN_CHUNK, len = rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK;
                for (int32_t n = 0; n < n_state; n++) h[n] = (acc)states[chunk * LD_IN(IN_STATES) + (int64_t)n * cols + k];
                for (int32_t i = 0; i < len; i++) {
                    real dt = delta[(t0 + i) * LD_IN(IN_DELTA) + k];
                    acc du = (acc)dt * (acc)u[(t0 + i) * LD_IN(IN_U) + k];
                    for (int32_t n = 0; n < n_state; n++)
                        h[(i + 1) * n_state + n] = (acc)r_exp(dt * a[k * LD_IN(IN_A) + n]) * h[i * n_state + n] +
                                                   du * (acc)bm[(t0 + i) * LD_IN(IN_B) + n];
                }
                for (int32_t i = len - 1; i >= 0; i--) {
                    int32_t t = t0 + i;
                    real dt = delta[t * LD_IN(IN_DELTA) + k];
                    acc ut = (acc)u[t * LD_IN(IN_U) + k], dyt = (acc)dy[t * LD_IN(IN_DY) + k], d_inject = 0.0, d_exponent = 0.0;
                    for (int32_t n = 0; n < n_state; n++) {
                        acc an = (acc)a[k * LD_IN(IN_A) + n], *now = h + (i + 1) * n_state + n, before = h[i * n_state + n];
                        dh[n] += dyt * (acc)cm[t * LD_IN(IN_C) + n];
                        dc[t * n_state + n] += dyt * *now;
                        db[t * n_state + n] += dh[n] * (acc)dt * ut;
                        d_inject += dh[n] * (acc)bm[t * LD_IN(IN_B) + n];
                        dh[n] *= (acc)r_exp(dt * a[k * LD_IN(IN_A) + n]);
                        d_exponent += dh[n] * before * an;
                        da[n] += dh[n] * before * (acc)dt;
                    }
                    dd += dyt * ut;
                    if (HAS_OUT(OUT_DU))
                        OUT(real, OUT_DU)[t * LD_OUT(OUT_DU) + k] = (real)(dyt * (acc)d[k] + d_inject * (acc)dt);
                    if (HAS_OUT(OUT_DDELTA))
                        OUT(real, OUT_DDELTA)[t * LD_OUT(OUT_DDELTA) + k] = (real)(d_exponent + d_inject * ut);
                }
            }
            for (int32_t n = 0; n < n_state && HAS_OUT(OUT_DA); n++) OUT(real, OUT_DA)[k * LD_OUT(OUT_DA) + n] = (real)da[n];
            if (HAS_OUT(OUT_DD)) OUT(real, OUT_DD)[k] = (real)dd;
        }
        for (int32_t t = 0; t < rows; t++)
            for (int32_t n = 0; n < n_state; n++) {
                if (HAS_OUT(OUT_DB)) OUT(real, OUT_DB)[t * LD_OUT(OUT_DB) + n] = (real)db[t * n_state + n];
                if (HAS_OUT(OUT_DC)) OUT(real, OUT_DC)[t * LD_OUT(OUT_DC) + n] = (real)dc[t * n_state + n];
            }
    }
}

#ifdef MDR_DECLARE
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return sizeof(acc) * (size_t)n->in_type[IN_A].shape.d[1];
}
static size_t scratch_grad(const Node *n, Extent e) {
    (void)e;
    return sizeof(acc) * (size_t)n->in_type[IN_A].shape.d[1] * (2 * (size_t)n->in_type[IN_U].shape.d[0] + SCAN_CHUNK + 3);
}

static Err *shape_scan(Node *n) {
    Shape u = n->in_type[IN_U].shape, a = n->in_type[IN_A].shape;
    if (u.rank != 2 || a.rank != 2) return mdr_ir_shape_error(n, "u and a must have two dimensions");
    const Shape per_token = mdr_shape2(u.d[0], a.d[1]);
    const Shape want[6] = {u, u, mdr_shape2(u.d[1], a.d[1]), per_token, per_token, mdr_shape1(u.d[1])};
    char p[64], q[64];
    for (int i = 0; i < 6; i++)
        if (!mdr_shape_equal(n->in_type[i].shape, want[i]))
            return mdr_ir_shape_error(n, "input %d (of u, delta, a, B, C, d) is %s, expected %s", i,
                                      mdr_shape_text(n->in_type[i].shape, p), mdr_shape_text(want[i], q));
    if ((int64_t)a.d[0] * a.d[1] > INT32_MAX) return mdr_ir_shape_error(n, "a is %s: too many states", mdr_shape_text(a, p));
    n->out[OUT_Y].shape = u;
    n->out[OUT_STATES].shape = mdr_shape2((u.d[0] + SCAN_CHUNK - 1) / SCAN_CHUNK, a.d[0] * a.d[1]);
    return NULL;
}
static Err *shape_grad(Node *n) {
    for (int i = 0; i < 6; i++) n->out[i].shape = n->in_type[i].shape;
    return NULL;
}

/* Counted: 4 flops a token, channel and state forward, 8 backward; the recomputation of h adds its exponentials only. */
static Cost cost(const Node *n, double flops) {
    double rows = n->in_type[IN_U].shape.d[0], cols = n->in_type[IN_U].shape.d[1], n_state = n->in_type[IN_A].shape.d[1];
    Cost r = {.flops = flops * rows * cols * n_state, .exps = rows * cols * n_state};
    for (int i = 0; i < n->n_in; i++) r.bytes += 4.0 * (double)mdr_numel(n->in_type[i].shape);
    for (int i = 0; i < n->n_out; i++) r.bytes += 4.0 * (double)mdr_numel(n->out[i].shape);
    return r;
}
static Cost cost_scan(const Node *n) { return cost(n, 4.0); }
static Cost cost_grad(const Node *n) { return cost(n, 8.0); }

#define SHAPES(L, C, N) {{2, {L, C}}, {2, {L, C}}, {2, {C, N}}, {2, {L, N}}, {2, {L, N}}, {1, {C}}}
#define PARAMETERS {0, 0, 1 + MDR_AXIS_MEMBER, 0, 0, 1 + MDR_AXIS_MEMBER}
static const OpCase cases[] = {                       /* the kernels hold for either sign of delta and a                   */
    {.name = "mamba", .n_in = 6, .in = SHAPES(37, 24, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "sixteen states", .n_in = 6, .in = SHAPES(33, 16, 16), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "odd sizes", .n_in = 6, .in = SHAPES(19, 11, 7), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "one of each", .n_in = 6, .in = SHAPES(1, 1, 1), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "a of each sequence", .n_in = 6, .in = SHAPES(17, 8, 2), .lo = -0.8, .hi = 0.8},
    {0}};
#define SHAPES_GRAD(L, C, N) {{2, {L, C}}, {2, {L, C}}, {2, {C, N}}, {2, {L, N}}, {2, {L, N}}, {1, {C}}, \
                              {2, {(L + SCAN_CHUNK - 1) / SCAN_CHUNK, N * C}}, {2, {L, C}}}
static const OpCase cases_grad[] = {
    {.name = "mamba", .n_in = 8, .in = SHAPES_GRAD(37, 24, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "odd sizes", .n_in = 8, .in = SHAPES_GRAD(19, 11, 7), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {0}};

static const OpDef def_grad = {.name = "selective_scan_grad",
    .equation = "gradient of selective_scan, recomputed by chunks of 16",
    .min_in = 8, .max_in = 8, .n_out = 6, .shape = shape_grad, .cost = cost_grad, .cases = cases_grad};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)n;
    if (!mdr_ir_has(dout[OUT_Y])) return;                        /* nothing else of this op is for use                     */
    Value v[8];
    for (int i = 0; i < 6; i++) v[i] = in[i];
    v[IN_STATES] = out[OUT_STATES];
    v[IN_DY] = dout[OUT_Y];
    Value g = mdr_ir_node(b, &def_grad, NULL, 8, v);
    for (int i = 0; i < 6; i++) din[i] = mdr_ir_out(g, i);
}

Graph *mdr_scan_token(Builder *b, const Node *n, int32_t cols, int32_t n_state) {
    const unsigned both = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    Builder *s = mdr_ir_builder();
    Value h = mdr_ir_input(s, "h", mdr_shape2(cols, n_state), DT_REAL, both);
    Value u = mdr_ir_input(s, "u", mdr_shape2(1, cols), DT_REAL, both);
    Value delta = mdr_ir_input(s, "delta", mdr_shape2(1, cols), DT_REAL, both);
    Value bm = mdr_ir_input(s, "B", mdr_shape2(1, n_state), DT_REAL, both);
    Value cm = mdr_ir_input(s, "C", mdr_shape2(1, n_state), DT_REAL, both);
    Value a = mdr_ir_input(s, "a", mdr_shape2(cols, n_state), DT_REAL, n->in_type[IN_A].axes | MDR_AXIS_MEMBER);
    Value d = mdr_ir_input(s, "d", mdr_shape1(cols), DT_REAL, n->in_type[IN_D].axes | MDR_AXIS_MEMBER);
    Value step = mdr_ir_expand(s, mdr_ir_reshape(s, delta, mdr_shape1(cols)), n_state, true);
    Value decay = mdr_op_unary(s, UN_EXP, 0.0, mdr_op_mul(s, step, a));
    Value du = mdr_ir_expand(s, mdr_ir_reshape(s, mdr_op_mul(s, delta, u), mdr_shape1(cols)), n_state, true);
    Value inject = mdr_op_mul(s, du, mdr_ir_reshape(s, bm, mdr_shape1(n_state)));
    Value next = mdr_op_add(s, mdr_op_mul(s, decay, h), inject);
    Value read = mdr_ir_sum_cols(s, mdr_op_mul(s, next, mdr_ir_reshape(s, cm, mdr_shape1(n_state))));
    Value y = mdr_op_add(s, mdr_ir_reshape(s, read, mdr_shape2(1, cols)), mdr_op_mul(s, u, d));
    mdr_ir_output(s, next);
    mdr_ir_output(s, y);
    Graph *g = NULL;
    Err *e = mdr_ir_finish(s, &g);
    if (e) mdr_ir_fail(b, e);
    return g;
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out) {
    Shape u = n->in_type[IN_U].shape, a = n->in_type[IN_A].shape;
    double zero = 0.0;
    Graph *body = mdr_scan_token(b, n, u.d[1], a.d[1]);
    if (!body) return;
    Value h = mdr_ir_expand(b, mdr_ir_const(b, mdr_shape1(1), &zero), u.d[1] * a.d[1], false);
    Value from[7] = {mdr_ir_reshape(b, h, a), in[IN_U], in[IN_DELTA], in[IN_B], in[IN_C], in[IN_A], in[IN_D]}, to[2];
    mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 4, .n_const = 2, .n_ys = 1, .length = u.d[0]}, from, to);
    out[OUT_Y] = to[1];
}

static const OpDef def = {.name = "selective_scan", .equation = "h[t] = exp(delta a) h[t-1] + delta B u; y = C . h + d u",
    .min_in = 6, .max_in = 6, .n_out = 2, .aux = 1u << OUT_STATES, .shape = shape_scan,
    .vjp = vjp, .compose = compose, .cost = cost_scan, .cases = cases};

Value mdr_op_selective_scan(Builder *b, Value u, Value delta, Value a, Value bm, Value cm, Value d) {
    Value in[6] = {u, delta, a, bm, cm, d};
    return mdr_ir_node(b, &def, NULL, 6, in);
}

const OpRow mdr_op_rows_selective_scan[] = {
    {&def, {.run = selective_scan_f32, .scratch = scratch}, {.run = selective_scan_f64, .scratch = scratch}},
    {&def_grad, {.run = selective_scan_grad_f32, .scratch = scratch_grad},
     {.run = selective_scan_grad_f64, .scratch = scratch_grad}},
    {0}};
#endif
