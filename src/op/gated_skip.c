/* gated_skip: what follows Hyena's long convolution (Poli et al. 2023): a skip through a per-channel bias, then the gate.
 *   y = (c + b u) x        c, u, x [L, C]; b [C]
 *   dc = dy x,  du = dy x b,  dx = dy (c + b u),  db = sum_rows dy x u
 * One pass over memory each way where the composition needs three: at long L these are bound by memory. */
#include "op/reference.h"

enum { IN_C, IN_U, IN_B, IN_X, IN_DY };
enum { OUT_DC, OUT_DU, OUT_DX, OUT_DB };

MDR_REF(gated_skip) {
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        const real *b = IN(real, IN_B);
        for (int64_t r = 0; r < rows; r++) {
            const real *v = IN(real, IN_C) + r * LD_IN(IN_C), *u = IN(real, IN_U) + r * LD_IN(IN_U);
            const real *x = IN(real, IN_X) + r * LD_IN(IN_X);
            real *y = OUT(real, 0) + r * LD_OUT(0);
            for (int64_t k = 0; k < cols; k++) y[k] = (v[k] + b[k] * u[k]) * x[k];
        }
    }
}

MDR_REF(gated_skip_grad) {
    const int64_t rows = mdr_rows(IN_SHAPE(IN_C)), cols = mdr_cols(IN_SHAPE(IN_C));
    FOR_SEQUENCES(c) {
        const real *b = IN(real, IN_B);
        real *db = HAS_OUT(OUT_DB) ? OUT(real, OUT_DB) : NULL;
        if (db && !ADDS(OUT_DB)) memset(db, 0, (size_t)cols * sizeof *db);
        for (int64_t r = 0; r < rows; r++) {
            const real *v = IN(real, IN_C) + r * LD_IN(IN_C), *u = IN(real, IN_U) + r * LD_IN(IN_U);
            const real *x = IN(real, IN_X) + r * LD_IN(IN_X), *dy = IN(real, IN_DY) + r * LD_IN(IN_DY);
            real *dc = HAS_OUT(OUT_DC) ? OUT(real, OUT_DC) + r * LD_OUT(OUT_DC) : NULL;
            real *du = HAS_OUT(OUT_DU) ? OUT(real, OUT_DU) + r * LD_OUT(OUT_DU) : NULL;
            real *dx = HAS_OUT(OUT_DX) ? OUT(real, OUT_DX) + r * LD_OUT(OUT_DX) : NULL;
            for (int64_t k = 0; k < cols; k++) {
                real g = dy[k] * x[k];
                if (dc) dc[k] = g;
                if (du) du[k] = g * b[k];
                if (dx) dx[k] = dy[k] * (v[k] + b[k] * u[k]);
                if (db) db[k] += g * u[k];
            }
        }
    }
}

#ifdef MDR_DECLARE
static Err *check(const Node *n, int last)
{
    Shape s = n->in_type[IN_C].shape;
    char p[64], q[64];
    for (int i = IN_U; i <= last; i++) {
        Shape want = i == IN_B ? mdr_shape1((int32_t)mdr_cols(s)) : s;
        if (!mdr_shape_equal(n->in_type[i].shape, want))
            return mdr_ir_shape_error(n, "input %d is %s, expected %s", i, mdr_shape_text(n->in_type[i].shape, p), mdr_shape_text(want, q));
    }
    return NULL;
}
static Err *shape_y(Node *n)
{
    MDR_TRY(check(n, IN_X));
    n->out[0].shape = n->in_type[IN_C].shape;
    return NULL;
}
static Err *shape_grad(Node *n)
{
    MDR_TRY(check(n, IN_DY));
    for (int i = OUT_DC; i <= OUT_DX; i++) n->out[i].shape = n->in_type[IN_C].shape;
    n->out[OUT_DB].shape = n->in_type[IN_B].shape;
    return NULL;
}

static const OpCase cases_grad[] = {
    {.name = "odd", .n_in = 5, .in = {{2, {7, 13}}, {2, {7, 13}}, {1, {13}}, {2, {7, 13}}, {2, {7, 13}}},
     .in_axes = {0, 0, 1 + MDR_AXIS_MEMBER}, .lo = -2, .hi = 2},
    {.name = "one row", .n_in = 5, .in = {{2, {1, 8}}, {2, {1, 8}}, {1, {8}}, {2, {1, 8}}, {2, {1, 8}}}, .lo = -2, .hi = 2},
    {0}};
static const OpDef def_grad = {.name = "gated_skip_grad", .equation = "dc = dy x, du = dc b, dx = dy (c + b u), db = sum_rows dc u", .min_in = 5,
    .max_in = 5, .n_out = 4, .sums = 1u << OUT_DB, .shape = shape_grad, .cases = cases_grad};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)n; (void)out;
    Value v[5] = {in[IN_C], in[IN_U], in[IN_B], in[IN_X], dout[0]};
    Value d = mdr_ir_node(b, &def_grad, NULL, 5, v);
    din[IN_C] = mdr_ir_out(d, OUT_DC);
    din[IN_U] = mdr_ir_out(d, OUT_DU);
    din[IN_X] = mdr_ir_out(d, OUT_DX);
    din[IN_B] = mdr_ir_out(d, OUT_DB);
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_op_mul(b, mdr_op_add(b, in[IN_C], mdr_op_mul(b, in[IN_U], in[IN_B])), in[IN_X]);
}
static const OpCase cases[] = {
    {.name = "odd", .n_in = 4, .in = {{2, {7, 13}}, {2, {7, 13}}, {1, {13}}, {2, {7, 13}}}, .in_axes = {0, 0, 1 + MDR_AXIS_MEMBER}, .lo = -2, .hi = 2},
    {.name = "two tiles", .n_in = 4, .in = {{2, {65, 24}}, {2, {65, 24}}, {1, {24}}, {2, {65, 24}}}, .in_axes = {0, 0, 1 + MDR_AXIS_MEMBER}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "gated_skip", .equation = "y = (c + b u) x", .min_in = 4, .max_in = 4, .n_out = 1, .inplace = 1u << IN_C,
    .shape = shape_y, .vjp = vjp, .compose = compose, .cases = cases};

Value mdr_op_gated_skip(Builder *b, Value c, Value u, Value bias, Value x)
{
    Value in[4] = {c, u, bias, x};
    return mdr_ir_node(b, &def, NULL, 4, in);
}

const OpRow mdr_op_rows_gated_skip[] = {{&def, MDR_REFS(gated_skip)}, {&def_grad, MDR_REFS(gated_skip_grad)}, {0}};
#endif
