/* binary: sub, mul, div, element by element; y is as large as x, its trailing dimensions, or one element.
 *   z = x - y, x y, x / y
 * The derivative is made of the same op and sum_rows; sums over sequences are autodiff's. Addition is the structural
 * `add`. */
#include "op/reference.h"

static real f_sub(real x, real y) { return x - y; }
static real f_mul(real x, real y) { return x * y; }
static real f_div(real x, real y) { return x / y; }

MDR_REF(binary) {
    static real (*const table[BIN_COUNT])(real, real) = {[BIN_SUB] = f_sub, [BIN_MUL] = f_mul, [BIN_DIV] = f_div};
    real (*f)(real, real) = table[((const BinaryAttr *)c->node->attr)->kind];
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0)), y_rows = mdr_rows(IN_SHAPE(1));
    const int64_t step = mdr_numel(IN_SHAPE(1)) == 1 ? 0 : 1;
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *y = IN(real, 1);
        real *z = OUT(real, 0);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++)
                z[r * LD_OUT(0) + k] = f(x[r * LD_IN(0) + k], y[step * (r % y_rows * LD_IN(1) + k)]);
    }
}

#ifdef MDR_DECLARE
static Err *shape(Node *n)
{
    Shape x = n->in_type[0].shape, y = n->in_type[1].shape;
    char p[64], q[64];
    int32_t kind = ((const BinaryAttr *)n->attr)->kind;
    if (kind < 0 || kind >= BIN_COUNT) return mdr_ir_shape_error(n, "there is no operation number %d", kind);
    bool fits = y.rank >= 1 && (mdr_numel(y) == 1 || y.rank <= x.rank);
    for (int i = 1; fits && mdr_numel(y) != 1 && i <= y.rank; i++) fits = y.d[y.rank - i] == x.d[x.rank - i];
    if (!fits) return mdr_ir_shape_error(n, "y is %s, x is %s", mdr_shape_text(y, p), mdr_shape_text(x, q));
    n->out[0].shape = x;
    return NULL;
}

/* The gradient of y from one of x's shape: the rows over which y was broadcast are summed. */
static Value reduce(Builder *b, Value d, Shape x, Shape y)
{
    int64_t n = mdr_numel(y);
    if (mdr_numel(x) == n) return mdr_ir_reshape(b, d, y);
    Value flat = mdr_ir_reshape(b, d, mdr_shape2((int32_t)(mdr_numel(x) / n), (int32_t)n));
    return mdr_ir_reshape(b, mdr_ir_sum_rows(b, flat), y);
}
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    const BinaryKind kind = (BinaryKind)((const BinaryAttr *)n->attr)->kind;
    Shape x = n->in_type[0].shape, y = n->in_type[1].shape;
    Value d;
    switch (kind) {
    case BIN_SUB:
        din[0] = dout[0];
        d = mdr_op_unary(b, UN_NEG, 0, dout[0]);
        break;
    case BIN_MUL:
        din[0] = mdr_op_binary(b, BIN_MUL, dout[0], in[1]);
        d = mdr_op_binary(b, BIN_MUL, dout[0], in[0]);
        break;
    default:                                                                                             /* -dz z / y */
        din[0] = mdr_op_binary(b, BIN_DIV, dout[0], in[1]);
        d = mdr_op_unary(b, UN_NEG, 0, mdr_op_binary(b, BIN_MUL, din[0], out[0]));
        break;
    }
    din[1] = reduce(b, d, x, y);
}

#define CASES(k, what) \
    {.name = what, .attr = &(const BinaryAttr){k}, .n_in = 2, .in = {{2, {5, 13}}, {2, {5, 13}}}, .lo = 0.3, .hi = 2}, \
    {.name = what " by a row", .attr = &(const BinaryAttr){k}, .n_in = 2, .in = {{2, {70, 24}}, {1, {24}}}, \
     .in_axes = {0, 1 + MDR_AXIS_MEMBER}, .lo = 0.3, .hi = 2}, \
    {.name = what " by one element", .attr = &(const BinaryAttr){k}, .n_in = 2, .in = {{2, {3, 9}}, {1, {1}}}, \
     .lo = 0.3, .hi = 2}
static const OpCase cases[] = {
    CASES(BIN_SUB, "sub"), CASES(BIN_MUL, "mul"), CASES(BIN_DIV, "div"),
    {.name = "trailing two dimensions", .attr = &(const BinaryAttr){BIN_MUL}, .n_in = 2, .in = {{3, {4, 3, 5}}, {2, {3,
         5}}}, .lo = -1, .hi = 1},
    {.name = "one constant for all", .attr = &(const BinaryAttr){BIN_MUL}, .n_in = 2, .in = {{2, {6, 16}}, {1, {1}}},
     .in_axes = {0, 1}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "binary", .equation = "z = x - y, x y or x / y", .attr_size = sizeof(BinaryAttr),
    .min_in = 2, .max_in = 2, .n_out = 1, .inplace = 1, .shape = shape, .vjp = vjp, .cases = cases};

Value mdr_op_binary(Builder *b, BinaryKind kind, Value x, Value y)
{
    BinaryAttr a = {(int32_t)kind};
    Value in[2] = {x, y};
    return mdr_ir_node(b, &def, &a, 2, in);
}

const OpRow mdr_op_rows_binary[] = {{&def, MDR_REFS(binary)}, {0}};
#endif
