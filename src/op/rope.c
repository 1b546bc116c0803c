/* rope: rotary position embedding over each whole head, in halves:
 *   (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin),   angle of row t and pair i = sign * t * base^(-2i/d), i < d/2
 * The angle is made in double: in float it would be wrong by more than a float's precision from a few hundred rows on.
 * The gradient is the same op with the other sign. Not here: offsets, partial rotation, scaling of the base. Su et
 * al. 2021. */
#include "op/reference.h"

/* in: x [L, H*d]; out: y [L, H*d] */
MDR_REF(rope) {
    const RopeAttr *a = c->node->attr;
    const int32_t rows = IN_SHAPE(0).d[0], d = IN_SHAPE(0).d[1] / a->n_heads, half = d / 2;
    FOR_SEQUENCES(c) for (int32_t i = 0; i < half; i++) {
        const double turn = d_exp(-i * d_log(a->base) * 2.0 / d);
        for (int32_t t = 0; t < rows; t++) {
            double sn, cs;
            d_sincos(t * turn, &sn, &cs);
            if (a->sign < 0) sn = -sn;
            for (int32_t h = 0; h < a->n_heads; h++) {
                const real *x = IN(real, 0) + t * LD_IN(0) + h * d + i;
                real *y = OUT(real, 0) + t * LD_OUT(0) + h * d + i;
                const acc x1 = (acc)x[0], x2 = (acc)x[half];
                y[0] = (real)(x1 * cs - x2 * sn);
                y[half] = (real)(x2 * cs + x1 * sn);
            }
        }
    }
}

#ifdef MDR_DECLARE
static Err *shape(Node *n) {
    const RopeAttr *a = n->attr;
    Shape x = n->in_type[0].shape;
    char p[64];
    if (a->n_heads < 1 || x.rank != 2 || x.d[1] % (2 * a->n_heads) != 0)
        return mdr_ir_shape_error(n, "x is %s, expected [L, %d heads of an even size]", mdr_shape_text(x, p),
            a->n_heads);
    if (!(a->base > 1.0) || (a->sign != 1 && a->sign != -1))
        return mdr_ir_shape_error(n, "base is %g and sign %d, expected base > 1 and sign 1 or -1", a->base, a->sign);
    n->out[0].shape = x;
    return NULL;
}
static Cost cost(const Node *n) {
    const double rows = n->in_type[0].shape.d[0], cols = n->in_type[0].shape.d[1];
    return (Cost){.bytes = 8 * rows * cols,
        .exps = rows * cols / ((const RopeAttr *)n->attr)->n_heads};
}
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)in; (void)out;
    RopeAttr a = *(const RopeAttr *)n->attr;
    a.sign = -a.sign;
    din[0] = mdr_ir_node(b, n->op, &a, 1, dout);
}

#define CASE(text, rows, heads, d, sign)                                                                               \
    {.name = text, .attr = &(const RopeAttr){heads, sign, 10000.0}, .n_in = 1, .in = {{2, {rows, (heads) * (d)}}},     \
     .lo = -1, .hi = 1}
static const OpCase cases[] = {
    CASE("16 heads of 8", 127, 16, 8, 1), CASE("back", 130, 3, 16, -1), CASE("one wide head", 65, 1, 128, 1),
    CASE("odd half", 33, 2, 6, 1), CASE("half of 12", 31, 2, 24, -1), CASE("one pair, one row", 1, 1, 2, 1), {0}};
static const OpDef def = {.name = "rope",
    .equation = "(y1, y2) = (x1 cos - x2 sin, x2 cos + x1 sin), angle sign t base^(-2i/d)",
    .attr_size = sizeof(RopeAttr), .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape, .vjp = vjp, .cost = cost,
        .cases = cases};

Value mdr_op_rope(Builder *b, Value x, int32_t n_heads, double base) {
    RopeAttr a = {n_heads, 1, base};
    return mdr_ir_node(b, &def, &a, 1, &x);
}

const OpRow mdr_op_rows_rope[] = {{&def, MDR_REFS(rope)}, {0}};
#endif
