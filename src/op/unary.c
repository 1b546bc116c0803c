/* unary: y = f(x), element by element, for a table of functions f; unary_grad: dx = dy f'(x), computed from x or
 * from y, whichever is cheaper (the other input is absent, so that it need not be kept). First order only. GELU:
 * Hendrycks and Gimpel 2016 (both forms); SiLU: Elfwing et al. 2018. */
#include "op/reference.h"

static real f_neg(real x, real a) { (void)a; return -x; }
static real f_exp(real x, real a) { (void)a; return r_exp(x); }
static real f_log(real x, real a) { (void)a; return r_log(x); }
static real f_sin(real x, real a) { (void)a; return r_sin(x); }
static real f_cos(real x, real a) { (void)a; return r_cos(x); }
static real f_sigmoid(real x, real a) { (void)a; return r_sigmoid(x); }
static real f_tanh(real x, real a) { (void)a; return r_tanh(x); }
static real f_relu(real x, real a) { (void)a; return x < 0 ? (real)0 : x; }
static real f_sqrt(real x, real a) { (void)a; return r_sqrt(x); }
static real f_recip(real x, real a) { (void)a; return (real)1 / x; }
static real f_softplus(real x, real a) { (void)a; return r_softplus(x); }
static real f_silu(real x, real a) { (void)a; return x * r_sigmoid(x); }
static real f_square(real x, real a) { (void)a; return x * x; }
static real f_scale(real x, real a) { return a * x; }
static real f_shift(real x, real a) { return x + a; }
/* x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
static real f_gelu_tanh(real x, real a)
{
    (void)a;
    return x * r_sigmoid((real)1.5957691216057308 * (x + (real)0.044715 * x * x * x));
}
static real f_gelu_erf(real x, real a)
{
    (void)a;
    return (real)0.5 * x * ((real)1 + r_erf(x * (real)0.70710678118654752));
}

/* v is x or y as the table below says */
static real d_neg(real v, real a) { (void)v; (void)a; return (real)-1; }
static real d_scale(real v, real a) { (void)v; return a; }
static real d_shift(real v, real a) { (void)v; (void)a; return (real)1; }
static real d_exp_y(real y, real a) { (void)a; return y; }
static real d_recip_x(real x, real a) { (void)a; return (real)1 / x; }
static real d_cos_x(real x, real a) { (void)a; return r_cos(x); }
static real d_sin_x(real x, real a) { (void)a; return -r_sin(x); }
static real d_sigmoid_y(real y, real a) { (void)a; return y * ((real)1 - y); }
static real d_tanh_y(real y, real a) { (void)a; return (real)1 - y * y; }
static real d_relu_x(real x, real a) { (void)a; return x > 0 ? (real)1 : (real)0; }
static real d_sqrt_y(real y, real a) { (void)a; return (real)0.5 / y; }
static real d_recip_y(real y, real a) { (void)a; return -y * y; }
static real d_softplus_x(real x, real a) { (void)a; return r_sigmoid(x); }
static real d_silu_x(real x, real a)
{
    (void)a;
    real s = r_sigmoid(x);
    return s * ((real)1 + x * ((real)1 - s));
}
static real d_square_x(real x, real a) { (void)a; return x + x; }
static real d_gelu_tanh_x(real x, real a)
{
    (void)a;
    real s = r_sigmoid((real)1.5957691216057308 * (x + (real)0.044715 * x * x * x));
    return s + x * s * ((real)1 - s) * (real)1.5957691216057308 * ((real)1 + (real)0.134145 * x * x);
}
static real d_gelu_erf_x(real x, real a)
{
    (void)a;
    real density = (real)0.39894228040143268 * r_exp((real)-0.5 * x * x);
    return (real)0.5 * ((real)1 + r_erf(x * (real)0.70710678118654752)) + x * density;
}

/* The table. exps: transcendental functions an element, forward and gradient; from: what f' is computed of. */
typedef enum From { FROM_NONE, FROM_X, FROM_Y } From;
typedef struct UnaryRow {
    const char *name;
    real (*f)(real x, real a), (*df)(real v, real a);
    From from;
    int exps, grad_exps;
} UnaryRow;
static const UnaryRow table[UN_COUNT] = {
    [UN_NEG] = {"neg", f_neg, d_neg, FROM_NONE, 0, 0},
    [UN_EXP] = {"exp", f_exp, d_exp_y, FROM_Y, 1, 0},
    [UN_LOG] = {"log", f_log, d_recip_x, FROM_X, 1, 0},
    [UN_SIN] = {"sin", f_sin, d_cos_x, FROM_X, 1, 1},
    [UN_COS] = {"cos", f_cos, d_sin_x, FROM_X, 1, 1},
    [UN_SIGMOID] = {"sigmoid", f_sigmoid, d_sigmoid_y, FROM_Y, 1, 0},
    [UN_TANH] = {"tanh", f_tanh, d_tanh_y, FROM_Y, 1, 0},
    [UN_RELU] = {"relu", f_relu, d_relu_x, FROM_X, 0, 0},
    [UN_SQRT] = {"sqrt", f_sqrt, d_sqrt_y, FROM_Y, 0, 0},
    [UN_RECIP] = {"recip", f_recip, d_recip_y, FROM_Y, 0, 0},
    [UN_SOFTPLUS] = {"softplus", f_softplus, d_softplus_x, FROM_X, 2, 1},
    [UN_SILU] = {"silu", f_silu, d_silu_x, FROM_X, 1, 1},
    [UN_GELU_TANH] = {"gelu_tanh", f_gelu_tanh, d_gelu_tanh_x, FROM_X, 1, 1},
    [UN_GELU_ERF] = {"gelu_erf", f_gelu_erf, d_gelu_erf_x, FROM_X, 1, 2},
    [UN_SQUARE] = {"square", f_square, d_square_x, FROM_X, 0, 0},
    [UN_SCALE] = {"scale", f_scale, d_scale, FROM_NONE, 0, 0},
    [UN_SHIFT] = {"shift", f_shift, d_shift, FROM_NONE, 0, 0},
};

MDR_REF(unary) {
    const UnaryAttr *at = c->node->attr;
    const UnaryRow *row = &table[at->kind];
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0);
        real *y = OUT(real, 0);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++) y[r * LD_OUT(0) + k] = row->f(x[r * LD_IN(0) + k], (real)at->a);
    }
}

/* in: x or absent, y or absent, dy */
MDR_REF(unary_grad) {
    const UnaryAttr *at = c->node->attr;
    const UnaryRow *row = &table[at->kind];
    const int of = row->from == FROM_X ? 0 : row->from == FROM_Y ? 1 : 2;
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        const real *v = IN(real, of), *dy = IN(real, 2);
        real *dx = OUT(real, 0);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++)
                dx[r * LD_OUT(0) + k] = dy[r * LD_IN(2) + k] * row->df(v[r * LD_IN(of) + k], (real)at->a);
    }
}

#ifdef MDR_DECLARE
static Err *check_kind(const Node *n)
{
    int32_t kind = ((const UnaryAttr *)n->attr)->kind;
    if (kind < 0 || kind >= UN_COUNT) return mdr_ir_shape_error(n, "there is no function number %d", kind);
    return NULL;
}
static Err *shape_y(Node *n)
{
    MDR_TRY(check_kind(n));
    if (n->in_type[0].dtype != DT_REAL)
        return mdr_ir_shape_error(n, "%s of integers or sums", table[((const UnaryAttr *)n->attr)->kind].name);
    n->out[0].shape = n->in_type[0].shape;
    return NULL;
}
static Err *shape_dx(Node *n)
{
    MDR_TRY(check_kind(n));
    const UnaryRow *row = &table[((const UnaryAttr *)n->attr)->kind];
    Shape dy = n->in_type[2].shape;
    char p[64], q[64];
    for (int i = 0; i < 2; i++) {
        bool need = row->from == (i == 0 ? FROM_X : FROM_Y);
        if (need && n->in[i].node < 0)
            return mdr_ir_shape_error(n, "the gradient of %s needs %s", row->name, i == 0 ? "x" : "y");
        if (n->in[i].node >= 0 && !mdr_shape_equal(n->in_type[i].shape, dy))
            return mdr_ir_shape_error(n, "%s is %s, dy is %s", i == 0 ? "x" : "y", mdr_shape_text(n->in_type[i].shape,
                p), mdr_shape_text(dy, q));
    }
    n->out[0].shape = dy;
    return NULL;
}
static Cost cost_y(const Node *n)
{
    double e = (double)mdr_numel(n->out[0].shape);
    return (Cost){.bytes = 8 * e, .exps = e * table[((const UnaryAttr *)n->attr)->kind].exps};
}
static Cost cost_dx(const Node *n)
{
    const UnaryRow *row = &table[((const UnaryAttr *)n->attr)->kind];
    double e = (double)mdr_numel(n->out[0].shape);
    return (Cost){.bytes = (row->from == FROM_NONE ? 8 : 12) * e, .exps = e * row->grad_exps};
}

#define GRAD_CASE(k, name_, lo_, hi_) {.name = name_, .attr = &(const UnaryAttr){.kind = k, .a = -0.75}, .n_in = 3, \
    .in = {{2, {5, 13}}, {2, {5, 13}}, {2, {5, 13}}}, .lo = lo_, .hi = hi_}
static const OpCase cases_dx[] = {
    GRAD_CASE(UN_NEG, "neg", -2, 2), GRAD_CASE(UN_EXP, "exp", -2, 2), GRAD_CASE(UN_LOG, "log", 0.2, 3),
    GRAD_CASE(UN_SIN, "sin", -20, 20), GRAD_CASE(UN_COS, "cos", -20, 20), GRAD_CASE(UN_SIGMOID, "sigmoid", 0, 1),
    GRAD_CASE(UN_TANH, "tanh", -1, 1), GRAD_CASE(UN_RELU, "relu", -2, 2), GRAD_CASE(UN_SQRT, "sqrt", 0.3, 3),
    GRAD_CASE(UN_RECIP, "recip", 0.3, 3), GRAD_CASE(UN_SOFTPLUS, "softplus", -5, 5), GRAD_CASE(UN_SILU, "silu", -5, 5),
    GRAD_CASE(UN_GELU_TANH, "gelu_tanh", -4, 4), GRAD_CASE(UN_GELU_ERF, "gelu_erf", -4, 4), GRAD_CASE(UN_SQUARE,
        "square", -2, 2),
    GRAD_CASE(UN_SCALE, "scale", -2, 2), GRAD_CASE(UN_SHIFT, "shift", -2, 2),
    {.name = "silu, x only", .attr = &(const UnaryAttr){.kind = UN_SILU}, .n_in = 3, .in = {{2, {70, 24}}, {0, {0}},
         {2, {70, 24}}}, .lo = -4, .hi = 4},
    {.name = "exp, y only", .attr = &(const UnaryAttr){.kind = UN_EXP}, .n_in = 3, .in = {{0, {0}}, {1, {37}}, {1,
         {37}}}, .lo = 0.1, .hi = 4},
    {0}};
static const OpDef def_dx = {.name = "unary_grad", .equation = "dx = dy f'(x)", .attr_size = sizeof(UnaryAttr),
    .min_in = 3,
    .max_in = 3, .n_out = 1, .optional = 3, .inplace = 7, .shape = shape_dx, .cost = cost_dx, .cases = cases_dx};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    const UnaryAttr *a = n->attr;
    const From from = table[a->kind].from;
    if (a->kind == UN_SHIFT) { din[0] = dout[0]; return; }
    /* linear: its own derivative */
    if (from == FROM_NONE) { din[0] = mdr_op_unary(b, (UnaryKind)a->kind, a->a, dout[0]); return; }
    Value v[3] = {from == FROM_X ? in[0] : MDR_ABSENT, from == FROM_Y ? out[0] : MDR_ABSENT, dout[0]};
    din[0] = mdr_ir_node(b, &def_dx, a, 3, v);
}

#define CASE(k, name_, lo_, hi_) {.name = name_, .attr = &(const UnaryAttr){.kind = k, .a = -0.75}, .n_in = 1, \
    .in = {{2, {5, 13}}}, \
    .lo = lo_, .hi = hi_}
static const OpCase cases[] = {
    CASE(UN_NEG, "neg", -2, 2), CASE(UN_EXP, "exp", -3, 3), CASE(UN_LOG, "log", 0.2, 3), CASE(UN_SIN, "sin", -20, 20),
    CASE(UN_COS, "cos", -20, 20), CASE(UN_SIGMOID, "sigmoid", -5, 5), CASE(UN_TANH, "tanh", -3, 3), CASE(UN_RELU,
        "relu", -2, 2),
    CASE(UN_SQRT, "sqrt", 0.3, 3), CASE(UN_RECIP, "recip", 0.3, 3), CASE(UN_SOFTPLUS, "softplus", -5, 5), CASE(UN_SILU,
        "silu", -5, 5),
    CASE(UN_GELU_TANH, "gelu_tanh", -4, 4), CASE(UN_GELU_ERF, "gelu_erf", -4, 4), CASE(UN_SQUARE, "square", -2, 2),
    CASE(UN_SCALE, "scale", -2, 2), CASE(UN_SHIFT, "shift", -2, 2),
    {.name = "many tiles", .attr = &(const UnaryAttr){.kind = UN_SILU}, .n_in = 1, .in = {{3, {35, 2, 24}}}, .lo = -4,
         .hi = 4},
    {.name = "a vector", .attr = &(const UnaryAttr){.kind = UN_EXP}, .n_in = 1, .in = {{1, {37}}},
         .in_axes = {1 + MDR_AXIS_MEMBER}, .lo = -1, .hi = 1},
    {.name = "one element", .attr = &(const UnaryAttr){.kind = UN_SIGMOID}, .n_in = 1, .in = {{1, {1}}}, .lo = -1,
         .hi = 1},
    {0}};
static const OpDef def = {.name = "unary", .equation = "y = f(x)", .attr_size = sizeof(UnaryAttr), .min_in = 1,
    .max_in = 1, .n_out = 1, .inplace = 1, .shape = shape_y, .vjp = vjp, .cost = cost_y, .cases = cases};

Value mdr_op_unary(Builder *b, UnaryKind kind, double a, Value x)
{
    UnaryAttr at = {.kind = (int32_t)kind, .a = a};
    return mdr_ir_node(b, &def, &at, 1, &x);
}

const OpRow mdr_op_rows_unary[] = {{&def, MDR_REFS(unary)}, {&def_dx, MDR_REFS(unary_grad)}, {0}};
#endif
