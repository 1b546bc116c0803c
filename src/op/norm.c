/* rmsnorm and layernorm over the last dimension, with their gradients.
 *   rmsnorm   (Zhang and Sennrich 2019): r = 1/sqrt(mean(x^2) + eps), y = g r x
 *             dx = r (g dy - x r^2 mean(g dy x)),  dg = sum_rows dy x r
 *   layernorm (Ba, Kiros and Hinton 2016): xh = (x - mean) r, r = 1/sqrt(var + eps), y = g xh + b
 *             dx = r (g dy - mean(g dy) - xh mean(g dy xh)),  dg = sum_rows dy xh,  db = sum_rows dy
 * The statistics r and mean are outputs, [rows], kept for the gradients. Batch statistics are not here (ir.h says
 * why). */
#include "op/reference.h"

#define ROWS(i) mdr_rows(IN_SHAPE(i))
#define COLS(i) mdr_cols(IN_SHAPE(i))

/* in: x, gain; out: y, rstd */
MDR_REF(rmsnorm) {
    const NormAttr *a = c->node->attr;
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *gain = IN(real, 1);
        for (int64_t r = 0; r < rows; r++) {
            const real *x = IN(real, 0) + r * LD_IN(0);
            real *y = OUT(real, 0) + r * LD_OUT(0);
            acc sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += (acc)x[k] * (acc)x[k];
            acc rstd = 1.0 / sqrt(sum / (acc)cols + a->eps);
            for (int64_t k = 0; k < cols; k++) y[k] = (real)((acc)x[k] * rstd * (acc)gain[k]);
            if (HAS_OUT(1)) OUT(real, 1)[r] = (real)rstd;
        }
    }
}

/* in: x, gain, rstd, dy; out: dx */
MDR_REF(rmsnorm_grad) {
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *gain = IN(real, 1);
        for (int64_t r = 0; r < rows; r++) {
            const real *x = IN(real, 0) + r * LD_IN(0), *dy = IN(real, 3) + r * LD_IN(3);
            real *dx = OUT(real, 0) + r * LD_OUT(0);
            acc rstd = (acc)IN(real, 2)[r], dot = 0;
            for (int64_t k = 0; k < cols; k++) dot += (acc)gain[k] * (acc)dy[k] * (acc)x[k];
            dot *= rstd * rstd / (acc)cols;
            for (int64_t k = 0; k < cols; k++) dx[k] = (real)(rstd * ((acc)gain[k] * (acc)dy[k] - (acc)x[k] * dot));
        }
    }
}

/* in: x, rstd, dy; out: dgain, in sums */
MDR_REF(rmsnorm_dw) {
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *rstd = IN(real, 1), *dy = IN(real, 2);
        real *dg = OUT(real, 0);
        for (int64_t k = 0; k < cols; k++) {
            acc sum = ADDS(0) ? (acc)dg[k] : 0;
            for (int64_t r = 0; r < rows; r++)
                sum += (acc)dy[r * LD_IN(2) + k] * (acc)x[r * LD_IN(0) + k] * (acc)rstd[r];
            dg[k] = (real)sum;
        }
    }
}

/* in: x, gain, bias; out: y, mean, rstd */
MDR_REF(layernorm) {
    const NormAttr *a = c->node->attr;
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *gain = IN(real, 1), *bias = IN(real, 2);
        for (int64_t r = 0; r < rows; r++) {
            const real *x = IN(real, 0) + r * LD_IN(0);
            real *y = OUT(real, 0) + r * LD_OUT(0);
            acc sum = 0, squares = 0;
            for (int64_t k = 0; k < cols; k++) sum += (acc)x[k];
            acc mean = sum / (acc)cols;
            for (int64_t k = 0; k < cols; k++) squares += ((acc)x[k] - mean) * ((acc)x[k] - mean);
            acc rstd = 1.0 / sqrt(squares / (acc)cols + a->eps);
            for (int64_t k = 0; k < cols; k++) y[k] = (real)(((acc)x[k] - mean) * rstd * (acc)gain[k] + (acc)bias[k]);
            if (HAS_OUT(1)) OUT(real, 1)[r] = (real)mean;
            if (HAS_OUT(2)) OUT(real, 2)[r] = (real)rstd;
        }
    }
}

/* in: x, gain, mean, rstd, dy; out: dx */
MDR_REF(layernorm_grad) {
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *gain = IN(real, 1);
        for (int64_t r = 0; r < rows; r++) {
            const real *x = IN(real, 0) + r * LD_IN(0), *dy = IN(real, 4) + r * LD_IN(4);
            real *dx = OUT(real, 0) + r * LD_OUT(0);
            acc mean = (acc)IN(real, 2)[r], rstd = (acc)IN(real, 3)[r], dot = 0, sum = 0;
            for (int64_t k = 0; k < cols; k++) {
                acc d = (acc)gain[k] * (acc)dy[k];
                sum += d;
                dot += d * ((acc)x[k] - mean) * rstd;
            }
            sum /= (acc)cols;
            dot /= (acc)cols;
            for (int64_t k = 0; k < cols; k++)
                dx[k] = (real)(rstd * ((acc)gain[k] * (acc)dy[k] - sum - ((acc)x[k] - mean) * rstd * dot));
        }
    }
}

/* in: x, mean, rstd, dy; out: dgain, in sums */
MDR_REF(layernorm_dw) {
    const int64_t rows = ROWS(0), cols = COLS(0);
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *mean = IN(real, 1), *rstd = IN(real, 2), *dy = IN(real, 3);
        real *dg = OUT(real, 0);
        for (int64_t k = 0; k < cols; k++) {
            acc sum = ADDS(0) ? (acc)dg[k] : 0;
            for (int64_t r = 0; r < rows; r++)
                sum += (acc)dy[r * LD_IN(3) + k] * ((acc)x[r * LD_IN(0) + k] - (acc)mean[r]) * (acc)rstd[r];
            dg[k] = (real)sum;
        }
    }
}

#ifdef MDR_DECLARE
/* Inputs vectors.. of x's columns at `vector` (bits), statistics [rows] at `stat`, x's own shape at `whole`. */
static Err *check(const Node *n, unsigned vector, unsigned stat, unsigned whole)
{
    Shape x = n->in_type[0].shape;
    char p[64], q[64];
    for (int i = 1; i < n->n_in; i++) {
        Shape s = n->in_type[i].shape, want = x;
        if ((vector >> i) & 1u) want = mdr_shape1((int32_t)mdr_cols(x));
        else if ((stat >> i) & 1u) want = mdr_shape1((int32_t)mdr_rows(x));
        else if (!((whole >> i) & 1u)) continue;
        if (!mdr_shape_equal(s, want))
            return mdr_ir_shape_error(n, "input %d is %s, x is %s", i, mdr_shape_text(s, p), mdr_shape_text(x, q));
    }
    return NULL;
}
static Err *shape_norm(Node *n)               /* both: gain and bias are vectors; the outputs behind y are statistics */
{
    MDR_TRY(check(n, 6, 0, 0));
    n->out[0].shape = n->in_type[0].shape;
    for (int i = 1; i < n->n_out; i++) n->out[i].shape = mdr_shape1((int32_t)mdr_rows(n->in_type[0].shape));
    return NULL;
}
static Err *shape_rms_grad(Node *n)
{
    n->out[0].shape = n->in_type[0].shape;
    return check(n, 1u << 1, 1u << 2, 1u << 3);
}
static Err *shape_rms_dw(Node *n)
{
    n->out[0].shape = mdr_shape1((int32_t)mdr_cols(n->in_type[0].shape));
    return check(n, 0, 1u << 1, 1u << 2);
}
static Err *shape_layer_grad(Node *n)
{
    n->out[0].shape = n->in_type[0].shape;
    return check(n, 1u << 1, 3u << 2, 1u << 4);
}
static Err *shape_layer_dw(Node *n)
{
    n->out[0].shape = mdr_shape1((int32_t)mdr_cols(n->in_type[0].shape));
    return check(n, 0, 3u << 1, 1u << 3);
}

#define WEIGHTS {0, 1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER}
#define GAIN {0, 1 + MDR_AXIS_MEMBER}
static const OpCase cases_rms_grad[] = {
    {.name = "odd", .n_in = 4, .in = {{2, {7, 13}}, {1, {13}}, {1, {7}}, {2, {7, 13}}}, .in_axes = GAIN, .lo = -1,
         .hi = 1},
    {.name = "two tiles", .n_in = 4, .in = {{2, {70, 40}}, {1, {40}}, {1, {70}}, {2, {70, 40}}}, .in_axes = GAIN,
         .lo = -1, .hi = 1},
    {.name = "heads", .n_in = 4, .in = {{3, {5, 3, 8}}, {1, {8}}, {1, {15}}, {3, {5, 3, 8}}}, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_rms_dw[] = {
    {.name = "odd", .n_in = 3, .in = {{2, {7, 13}}, {1, {7}}, {2, {7, 13}}}, .lo = -1, .hi = 1},
    {.name = "two slabs", .n_in = 3, .in = {{2, {70, 40}}, {1, {70}}, {2, {70, 40}}}, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_layer_grad[] = {
    {.name = "odd", .n_in = 5, .in = {{2, {7, 13}}, {1, {13}}, {1, {7}}, {1, {7}}, {2, {7, 13}}}, .in_axes = GAIN,
         .lo = -1, .hi = 1},
    {.name = "two tiles", .n_in = 5, .in = {{2, {70, 40}}, {1, {40}}, {1, {70}}, {1, {70}}, {2, {70, 40}}},
         .in_axes = GAIN, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_layer_dw[] = {
    {.name = "odd", .n_in = 4, .in = {{2, {7, 13}}, {1, {7}}, {1, {7}}, {2, {7, 13}}}, .lo = -1, .hi = 1},
    {.name = "two slabs", .n_in = 4, .in = {{2, {70, 40}}, {1, {70}}, {1, {70}}, {2, {70, 40}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_rms_grad = {.name = "rmsnorm_grad", .equation = "dx = r (g dy - x r^2 mean(g dy x))",
    .min_in = 4, .max_in = 4, .n_out = 1, .shape = shape_rms_grad, .cases = cases_rms_grad};
static const OpDef def_rms_dw = {.name = "rmsnorm_dw", .equation = "dg = sum_rows dy x r", .min_in = 3, .max_in = 3,
    .n_out = 1, .sums = 1, .shape = shape_rms_dw, .cases = cases_rms_dw};
static const OpDef def_layer_grad = {.name = "layernorm_grad",
    .equation = "dx = r (g dy - mean(g dy) - xh mean(g dy xh))", .min_in = 5,
    .max_in = 5, .n_out = 1, .shape = shape_layer_grad, .cases = cases_layer_grad};
static const OpDef def_layer_dw = {.name = "layernorm_dw", .equation = "dg = sum_rows dy xh", .min_in = 4, .max_in = 4,
    .n_out = 1, .sums = 1, .shape = shape_layer_dw, .cases = cases_layer_dw};

static void vjp_rms(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    if (mdr_ir_has(dout[1])) { mdr_ir_fail(b, mdr_ir_shape_error(n, "has no derivative for its statistics")); return; }
    Value dx[4] = {in[0], in[1], out[1], dout[0]}, dw[3] = {in[0], out[1], dout[0]};
    din[0] = mdr_ir_node(b, &def_rms_grad, NULL, 4, dx);
    din[1] = mdr_ir_node(b, &def_rms_dw, NULL, 3, dw);
}
static void vjp_layer(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    if (mdr_ir_has(dout[1]) || mdr_ir_has(dout[2])) {
        mdr_ir_fail(b, mdr_ir_shape_error(n, "has no derivative for its statistics"));
        return;
    }
    Value dx[5] = {in[0], in[1], out[1], out[2], dout[0]}, dw[4] = {in[0], out[1], out[2], dout[0]};
    din[0] = mdr_ir_node(b, &def_layer_grad, NULL, 5, dx);
    din[1] = mdr_ir_node(b, &def_layer_dw, NULL, 4, dw);
    din[2] = mdr_ir_sum_rows(b, dout[0]);
}

static Value mean_cols(Builder *b, Value x, Shape s)
{
    return mdr_op_unary(b, UN_SCALE, 1.0 / (double)mdr_cols(s), mdr_ir_sum_cols(b, x));
}
/* [rows..] repeated along new columns, in x's shape */
static Value along_cols(Builder *b, Value v, Shape s)
{
    return mdr_ir_reshape(b, mdr_ir_expand(b, v, (int32_t)mdr_cols(s), true), s);
}
static Value rstd_of(Builder *b, Value x, Shape s, double eps)
{
    Value mean = mean_cols(b, mdr_op_unary(b, UN_SQUARE, 0, x), s);
    return mdr_op_unary(b, UN_RECIP, 0, mdr_op_unary(b, UN_SQRT, 0, mdr_op_unary(b, UN_SHIFT, eps, mean)));
}
static void compose_rms(Builder *b, const Node *n, const Value *in, Value *out)
{
    Shape s = n->in_type[0].shape;
    Value r = rstd_of(b, in[0], s, ((const NormAttr *)n->attr)->eps);
    out[0] = mdr_op_mul(b, mdr_op_mul(b, in[0], along_cols(b, r, s)), in[1]);
    out[1] = mdr_ir_reshape(b, r, mdr_shape1((int32_t)mdr_rows(s)));
}
static void compose_layer(Builder *b, const Node *n, const Value *in, Value *out)
{
    Shape s = n->in_type[0].shape;
    Value mean = mean_cols(b, in[0], s), centred = mdr_op_binary(b, BIN_SUB, in[0], along_cols(b, mean, s));
    Value r = rstd_of(b, centred, s, ((const NormAttr *)n->attr)->eps);
    out[0] = mdr_op_add(b, mdr_op_mul(b, mdr_op_mul(b, centred, along_cols(b, r, s)), in[1]), in[2]);
    out[1] = mdr_ir_reshape(b, mean, mdr_shape1((int32_t)mdr_rows(s)));
    out[2] = mdr_ir_reshape(b, r, mdr_shape1((int32_t)mdr_rows(s)));
}

static const NormAttr small = {1e-5}, large = {0.5};
static const OpCase cases_rms[] = {
    {.name = "odd", .attr = &small, .n_in = 2, .in = {{2, {7, 13}}, {1, {13}}}, .in_axes = GAIN, .lo = -1, .hi = 1},
    {.name = "two tiles", .attr = &large, .n_in = 2, .in = {{2, {70, 40}}, {1, {40}}}, .in_axes = GAIN, .lo = -1,
         .hi = 1},
    {.name = "heads", .attr = &small, .n_in = 2, .in = {{3, {5, 3, 8}}, {1, {8}}}, .in_axes = GAIN, .lo = -1, .hi = 1},
    {.name = "one row", .attr = &small, .n_in = 2, .in = {{1, {17}}, {1, {17}}}, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_layer[] = {
    {.name = "odd", .attr = &small, .n_in = 3, .in = {{2, {7, 13}}, {1, {13}}, {1, {13}}}, .in_axes = WEIGHTS,
         .lo = -1, .hi = 1},
    {.name = "two tiles", .attr = &large, .n_in = 3, .in = {{2, {70, 40}}, {1, {40}}, {1, {40}}}, .in_axes = WEIGHTS,
         .lo = -1, .hi = 1},
    {.name = "far from zero", .attr = &small, .n_in = 3, .in = {{2, {6, 24}}, {1, {24}}, {1, {24}}}, .lo = 3, .hi = 5},
    {0}};
static const OpDef def_rms = {.name = "rmsnorm", .equation = "y = g x / sqrt(mean(x^2) + eps)",
    .attr_size = sizeof(NormAttr), .min_in = 2,
    .max_in = 2, .n_out = 2, .aux = 1u << 1, .shape = shape_norm, .vjp = vjp_rms, .compose = compose_rms,
        .cases = cases_rms};
static const OpDef def_layer = {.name = "layernorm", .equation = "y = g (x - mean) / sqrt(var + eps) + b",
    .attr_size = sizeof(NormAttr),
    .min_in = 3, .max_in = 3, .n_out = 3, .aux = 3u << 1, .shape = shape_norm, .vjp = vjp_layer,
        .compose = compose_layer, .cases = cases_layer};

Value mdr_op_rmsnorm(Builder *b, Value x, Value gain, double eps)
{
    Value in[2] = {x, gain};
    return mdr_ir_node(b, &def_rms, &(NormAttr){eps}, 2, in);
}
Value mdr_op_layernorm(Builder *b, Value x, Value gain, Value bias, double eps)
{
    Value in[3] = {x, gain, bias};
    return mdr_ir_node(b, &def_layer, &(NormAttr){eps}, 3, in);
}

const OpRow mdr_op_rows_norm[] = {{&def_rms, MDR_REFS(rmsnorm)},
                                  {&def_rms_grad, MDR_REFS(rmsnorm_grad)},
                                  {&def_rms_dw, MDR_REFS(rmsnorm_dw)},
                                  {&def_layer, MDR_REFS(layernorm)},
                                  {&def_layer_grad, MDR_REFS(layernorm_grad)},
                                  {&def_layer_dw, MDR_REFS(layernorm_dw)},
                                  {0}};
#endif
