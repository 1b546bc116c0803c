/* hyena_mix: Hyena's mixer between its projections (Poli et al. 2023), as one op. With s = conv_short(z, w, b) in three parts x1, x2, v:
 *   u = v x2,  y = (conv_long(u, h) + skip u) x1          z [L, Cz]; w [taps, 3C]; b [3C] or absent; h [L, C]; skip [C]
 * Of s, u and the convolution nothing goes to memory. No op that a layer would build: it stands for others (mdr_ir_fuse). Its gradient,
 * hyena_mix_grad, reads no more than this does, so where both stand nothing between lives on. */
#include "op/reference.h"

#ifdef MDR_DECLARE
enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP, N_IN };


static Err *shape(Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, w = n->in_type[IN_W].shape, h = n->in_type[IN_H].shape;
    char p[64], q[64], r[64];
    if (z.rank != 2 || w.rank != 2 || h.rank != 2 || h.d[0] != z.d[0] || w.d[1] != 3 * h.d[1] || w.d[1] % z.d[1] != 0)
        return mdr_ir_shape_error(n, "z is %s, w %s and h %s, expected [L, Cz], [taps, 3C] and [L, C]", mdr_shape_text(z, p), mdr_shape_text(w, q),
                                  mdr_shape_text(h, r));
    if (!mdr_shape_equal(n->in_type[IN_SKIP].shape, mdr_shape1(h.d[1])))
        return mdr_ir_shape_error(n, "the skip's weight is %s, h %s", mdr_shape_text(n->in_type[IN_SKIP].shape, p), mdr_shape_text(h, q));
    n->out[0].shape = h;
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    const int32_t c = n->in_type[IN_H].shape.d[1], third[3] = {c, c, c};
    Value part[3];
    mdr_ir_split(b, mdr_op_conv_short(b, in[IN_Z], in[IN_W], in[IN_B]), 3, third, part);
    const Value u = mdr_op_mul(b, part[2], part[1]);
    out[0] = mdr_op_gated_skip(b, mdr_op_conv_long(b, u, in[IN_H]), u, in[IN_SKIP], part[0]);
}

/* If plain gradient ops read what lies between, it is made anyway and this op would only be more work: will hyena_mix_grad take their place? */
static bool gradient_fits(const Builder *b, const Fusion *f, int32_t root)
{
    const OpRow *grad = mdr_op_find("hyena_mix_grad");
    if (!grad) return false;
    Node n = {.op = grad->def, .n_in = N_IN + 1};
    for (int i = 0; i < N_IN; i++) {
        n.in[i] = f->in[i];
        n.in_type[i] = mdr_ir_type(b, f->in[i]);
    }
    n.in[N_IN] = (Value){root, 0};                        /* the gradient of y has y's type                                            */
    n.in_type[N_IN] = mdr_ir_type(b, n.in[N_IN]);
    return mdr_op_cuda(&n) != NULL;
}
static bool match(const Builder *b, const Uses *uses, int32_t root, Fusion *f)
{
    if (!mdr_ir_is(b, (Value){root, 0}, "gated_skip")) return false;
    const Node *skip = mdr_ir_node_at(b, root);
    const Value c = skip->in[0], u = skip->in[1], x1 = skip->in[3];
    if (!mdr_ir_is(b, c, "conv_long") || !mdr_ir_is(b, u, "binary") || !mdr_ir_is(b, x1, "split") || x1.out != 0) return false;
    const Node *conv = mdr_ir_node_at(b, c.node), *mul = mdr_ir_node_at(b, u.node), *split = mdr_ir_node_at(b, x1.node);
    if (((const ConvAttr *)conv->attr)->anticausal || !mdr_ir_same(conv->in[0], u) || ((const BinaryAttr *)mul->attr)->kind != BIN_MUL) return false;
    if (!mdr_ir_same(mul->in[0], mdr_ir_out(x1, 2)) || !mdr_ir_same(mul->in[1], mdr_ir_out(x1, 1))) return false;
    if (split->n_out != 3 || !mdr_ir_is(b, split->in[0], "conv_short")) return false;
    const Node *before = mdr_ir_node_at(b, split->in[0].node);
    f->n_in = N_IN;
    for (int i = IN_Z; i <= IN_B; i++) f->in[i] = before->in[i];
    f->in[IN_H] = conv->in[1];
    f->in[IN_SKIP] = skip->in[2];
    f->out[0] = (Value){root, 0};
    return mdr_ir_only_user(uses, c) == root || gradient_fits(b, f, root);
}

static Cost cost(const Node *n)
{
    const double rows = n->out[0].shape.d[0], cols = n->out[0].shape.d[1];
    return (Cost){.flops = rows * (rows + 1) * cols + 6 * rows * cols * n->in_type[IN_W].shape.d[0] + 4 * rows * cols,
                  .bytes = 4 * rows * (2 * cols + n->in_type[IN_Z].shape.d[1])};
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
#define CASE(label, rows, cols_z, cols, taps, bias)                                                                                           \
    {.name = label, .n_in = N_IN, .lo = -1, .hi = 1, .in_axes = {0, SHARED, SHARED, SHARED, SHARED},                                          \
     .in = {{2, {rows, cols_z}}, {2, {taps, 3 * (cols)}}, {bias, {3 * (cols) * (bias)}}, {2, {rows, cols}}, {1, {cols}}}}
static const OpCase cases[] = {
    CASE("few rows", 7, 24, 32, 3, 1), CASE("one row, half the channels", 1, 8, 8, 3, 1), CASE("odd rows", 127, 24, 24, 3, 1),
    CASE("a group of rows, no bias, two taps", 128, 48, 64, 2, 0), CASE("many taps", 19, 24, 16, 8, 1), CASE("two groups", 129, 48, 16, 3, 1),
    CASE("two registers' worth", 521, 24, 16, 3, 1), CASE("fewer sequences at a time", 1201, 24, 8, 3, 1),
    CASE("rows in halves", 700, 24, 8, 3, 1), CASE("four channels a column", 101, 48, 64, 3, 1),
    CASE("four channels a column, two lines", 201, 24, 32, 3, 1), CASE("four lines, no bias, two taps", 398, 24, 32, 2, 0),
    CASE("eight lines", 777, 24, 32, 3, 1), {0}};
static const OpDef def = {.name = "hyena_mix", .equation = "y = (conv_long(v x2, h) + skip v x2) x1, x1|x2|v = conv_short(z, w, b)", .min_in = N_IN,
    .max_in = N_IN, .n_out = 1, .optional = 1u << IN_B, .shape = shape, .compose = compose, .match = match, .cost = cost, .cases = cases};

const OpRow mdr_op_rows_hyena_mix[] = {{&def, {0}, {0}}, {0}};
#endif
