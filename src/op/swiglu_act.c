/* swiglu_act: the gated activation between the two linear maps of a SwiGLU layer (Shazeer 2020).
 *   x = gate | up, each [.., I];  y = silu(gate) up,  silu(g) = g sigmoid(g)
 *   dgate = dy up s (1 + g (1 - s)),  dup = dy g s,  s = sigmoid(g)
 * Not here: the maps themselves (matmul). */
#include "op/reference.h"

MDR_REF(swiglu_act) {
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++) {
            const real *gate = IN(real, 0) + r * LD_IN(0), *up = gate + cols;
            real *y = OUT(real, 0) + r * LD_OUT(0);
            for (int64_t k = 0; k < cols; k++) y[k] = gate[k] * r_sigmoid(gate[k]) * up[k];
        }
    }
}

/* in: x [.., 2I], dy [.., I]; out: dx [.., 2I] */
MDR_REF(swiglu_act_grad) {
    const int64_t rows = mdr_rows(IN_SHAPE(1)), cols = mdr_cols(IN_SHAPE(1));
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++) {
            const real *gate = IN(real, 0) + r * LD_IN(0), *up = gate + cols, *dy = IN(real, 1) + r * LD_IN(1);
            real *dx = OUT(real, 0) + r * LD_OUT(0);
            for (int64_t k = 0; k < cols; k++) {
                real g = gate[k], u = up[k], d = dy[k], sg = r_sigmoid(g);                 /* read first: dx may be x */
                dx[k] = d * u * sg * ((real)1 + g * ((real)1 - sg));
                dx[cols + k] = d * g * sg;
            }
        }
    }
}

#ifdef MDR_DECLARE
static Err *shape_y(Node *n)
{
    Shape s = n->in_type[0].shape;
    char p[64];
    if (mdr_cols(s) % 2 != 0)
        return mdr_ir_shape_error(n, "x is %s, expected an even number of columns", mdr_shape_text(s, p));
    s.d[s.rank - 1] /= 2;
    n->out[0].shape = s;
    return NULL;
}
static Err *shape_dx(Node *n)
{
    Shape x = n->in_type[0].shape, dy = n->in_type[1].shape, half = x;
    char p[64], q[64];
    half.d[x.rank - 1] /= 2;
    if (mdr_cols(x) % 2 != 0 || !mdr_shape_equal(half, dy))
        return mdr_ir_shape_error(n, "x is %s, dy %s", mdr_shape_text(x, p), mdr_shape_text(dy, q));
    n->out[0].shape = x;
    return NULL;
}
static Cost cost_y(const Node *n)
{
    double e = (double)mdr_numel(n->out[0].shape);
    return (Cost){.bytes = 12 * e, .exps = e};
}
static Cost cost_dx(const Node *n)
{
    double e = (double)mdr_numel(n->in_type[1].shape);
    return (Cost){.bytes = 20 * e, .exps = e};
}

static const OpCase cases_dx[] = {
    {.name = "odd", .n_in = 2, .in = {{2, {7, 26}}, {2, {7, 13}}}, .lo = -4, .hi = 4},
    {.name = "two tiles", .n_in = 2, .in = {{2, {70, 48}}, {2, {70, 24}}}, .lo = -4, .hi = 4},
    {0}};
static const OpDef def_dx = {.name = "swiglu_act_grad", .equation = "dgate = dy up silu'(gate), dup = dy silu(gate)",
    .min_in = 2, .max_in = 2, .n_out = 1, .inplace = 1, .shape = shape_dx, .cost = cost_dx, .cases = cases_dx};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)n; (void)out;
    Value v[2] = {in[0], dout[0]};
    din[0] = mdr_ir_node(b, &def_dx, NULL, 2, v);
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    int32_t half = (int32_t)mdr_cols(n->out[0].shape), size[2] = {half, half};
    Value part[2];
    mdr_ir_split(b, in[0], 2, size, part);
    out[0] = mdr_op_mul(b, mdr_op_unary(b, UN_SILU, 0, part[0]), part[1]);
}

static const OpCase cases[] = {
    {.name = "odd", .n_in = 1, .in = {{2, {7, 26}}}, .lo = -4, .hi = 4},
    {.name = "two tiles", .n_in = 1, .in = {{2, {70, 48}}}, .lo = -4, .hi = 4},
    {.name = "one column", .n_in = 1, .in = {{2, {3, 2}}}, .lo = -20, .hi = 20},
    {0}};
static const OpDef def = {.name = "swiglu_act", .equation = "y = silu(gate) up", .min_in = 1, .max_in = 1, .n_out = 1,
    .shape = shape_y, .vjp = vjp, .compose = compose, .cost = cost_y, .cases = cases};

Value mdr_op_swiglu_act(Builder *b, Value gate_up) { return mdr_ir_node(b, &def, NULL, 1, &gate_up); }

const OpRow mdr_op_rows_swiglu_act[] = {{&def, MDR_REFS(swiglu_act)}, {&def_dx, MDR_REFS(swiglu_act_grad)}, {0}};
#endif
