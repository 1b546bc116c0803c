/* conv_short_silu: Mamba's short convolution with its activation, and its gradient, where the value before the activation is made
 * again instead of being kept:
 *   z = conv_short(x, w, b),   u = silu(z)
 *   g = (du + du2) silu'(z),   dx = conv_short_dx(g, w),   dw = conv_short_dw(x, g),   db = sum_rows(g)
 * Every channel has its own input here (C = Cx). Used by Mamba (Gu and Dao 2023), whose u goes two ways: du and du2. */
#include "op/reference.h"

#ifdef MDR_DECLARE
enum { IN_X, IN_W, IN_B, IN_DU, IN_DU2 };

static Err *check(const Node *n)
{
    const Shape x = n->in_type[IN_X].shape, w = n->in_type[IN_W].shape;
    char p[64], q[64];
    if (x.rank != 2 || w.rank != 2 || x.d[1] != w.d[1])
        return mdr_ir_shape_error(n, "x is %s and w %s, expected [L, C] and [taps, C]", mdr_shape_text(x, p), mdr_shape_text(w, q));
    return NULL;
}
static Err *shape(Node *n)
{
    MDR_TRY(check(n));
    return mdr_op_def("conv_short")->shape(n);
}
static Err *shape_grad(Node *n)
{
    MDR_TRY(check(n));
    for (int i = IN_DU; i < n->n_in; i++)
        if (n->in[i].node >= 0 && !mdr_shape_equal(n->in_type[i].shape, n->in_type[IN_X].shape))
            return mdr_ir_shape_error(n, "x and the gradient of u differ in shape");
    MDR_TRY(mdr_op_def("conv_short")->shape(n));
    n->out[1].shape = n->in_type[IN_W].shape;
    n->out[2].shape = mdr_shape1(n->in_type[IN_W].shape.d[1]);
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_op_unary(b, UN_SILU, 0, mdr_op_conv_short(b, in[IN_X], in[IN_W], in[IN_B]));
}
static void compose_grad(Builder *b, const Node *n, const Value *in, Value *out)
{
    const UnaryAttr silu = {.kind = UN_SILU};
    const Value z = mdr_op_conv_short(b, in[IN_X], in[IN_W], in[IN_B]);
    Value g[3] = {z, MDR_ABSENT, n->n_in > IN_DU2 && mdr_ir_has(in[IN_DU2]) ? mdr_op_add(b, in[IN_DU], in[IN_DU2]) : in[IN_DU]};
    const Value slope = mdr_ir_node(b, mdr_op_def("unary_grad"), &silu, 3, g);
    const Value with_w[2] = {slope, in[IN_W]}, with_x[2] = {in[IN_X], slope};
    /* their attributes are one int32_t: columns of x, taps */
    out[0] = mdr_ir_node(b, mdr_op_def("conv_short_dx"), &n->in_type[IN_W].shape.d[1], 2, with_w);
    out[1] = mdr_ir_node(b, mdr_op_def("conv_short_dw"), &n->in_type[IN_W].shape.d[0], 2, with_x);
    out[2] = mdr_ir_sum_rows(b, slope);
}

static bool is_silu(const Builder *b, Value v, const char *op)
{
    return mdr_ir_is(b, v, op) && ((const UnaryAttr *)mdr_ir_node_at(b, v.node)->attr)->kind == UN_SILU;
}
/* v = conv_short with a channel of x for each channel: its inputs. */
static bool is_conv(const Builder *b, Value v, Fusion *f)
{
    if (!mdr_ir_is(b, v, "conv_short")) return false;
    const Node *conv = mdr_ir_node_at(b, v.node);
    for (int i = 0; i < 3; i++) f->in[i] = conv->in[i];
    return conv->in_type[0].shape.d[1] == conv->in_type[1].shape.d[1];
}
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    (void)u;
    if (!is_silu(b, (Value){root, 0}, "unary") || !is_conv(b, mdr_ir_node_at(b, root)->in[0], f)) return false;
    f->n_in = 3;
    f->out[0] = (Value){root, 0};
    return true;
}
/* The last node is any of the three that read g. */
static bool match_grad(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const bool last_is_dw = mdr_ir_is(b, (Value){root, 0}, "conv_short_dw");
    if (!last_is_dw && !mdr_ir_is(b, (Value){root, 0}, "conv_short_dx") && !mdr_ir_is(b, (Value){root, 0}, "sum_rows")) return false;
    const Value g = mdr_ir_node_at(b, root)->in[last_is_dw];
    if (!is_silu(b, g, "unary_grad") || !is_conv(b, mdr_ir_node_at(b, g.node)->in[0], f)) return false;
    const int32_t dx = mdr_ir_found(b, u, g, "conv_short_dx", 0), dw = mdr_ir_found(b, u, g, "conv_short_dw", 1), db = mdr_ir_found(b, u, g, "sum_rows", 0);
    const bool bias = mdr_ir_has(f->in[IN_B]);
    if (dx < 0 || dw < 0 || bias != (db >= 0) || mdr_ir_n_users(u, g) != 2 + bias || root < dx || root < dw || root < db) return false;
    if (!mdr_ir_same(mdr_ir_node_at(b, dx)->in[1], f->in[IN_W]) || !mdr_ir_same(mdr_ir_node_at(b, dw)->in[0], f->in[IN_X])) return false;
    f->n_in = 5;
    f->in[IN_DU] = mdr_ir_node_at(b, g.node)->in[2];
    if (mdr_ir_is(b, f->in[IN_DU], "add") && mdr_ir_only_user(u, f->in[IN_DU]) == g.node) {
        const Node *add = mdr_ir_node_at(b, f->in[IN_DU].node);
        if (add->n_in == 2 && mdr_shape_equal(add->in_type[0].shape, add->in_type[1].shape)) {
            f->in[IN_DU] = add->in[0];
            f->in[IN_DU2] = add->in[1];
        }
    }
    f->out[0] = (Value){dx, 0};
    f->out[1] = (Value){dw, 0};
    if (bias) f->out[2] = (Value){db, 0};
    return true;
}

static Cost cost(const Node *n)
{
    Cost c = mdr_op_def("conv_short")->cost(n);
    c.exps += (double)mdr_numel(n->out[0].shape);
    return c;
}
static Cost cost_grad(const Node *n)
{
    const double elements = (double)mdr_numel(n->out[0].shape);
    Cost c = mdr_op_def("conv_short")->cost(n);
    c.flops *= 3;
    c.bytes += 4 * 2 * elements;
    c.exps += elements;
    return c;
}

#define CASE(name_, rows, cols, taps, with_bias) {.name = name_, .n_in = 3, .in = {{2, {rows, cols}}, {2, {taps, cols}}, {with_bias, {cols}}}, \
    .in_axes = {0, 1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER}, .lo = -2, .hi = 2}
#define GRAD_CASE(name_, rows, cols, taps, with_bias, two) {.name = name_, .n_in = 5, .in = {{2, {rows, cols}}, {2, {taps, cols}}, {with_bias, {cols}}, \
    {2, {rows, cols}}, {two, {rows, cols}}}, .in_axes = {0, 1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER}, .lo = -2, .hi = 2}
static const OpCase cases[] = {
    CASE("mamba", 127, 40, 4, 1), CASE("more columns than a warp", 19, 264, 4, 1), CASE("no bias, three taps", 70, 16, 3, 0),
    CASE("odd columns, eight taps, fewer rows", 5, 9, 8, 1), CASE("one tap, one row", 1, 8, 1, 1), {0}};
static const OpCase cases_grad[] = {
    GRAD_CASE("mamba", 127, 40, 4, 1, 2), GRAD_CASE("more columns than a warp", 19, 264, 4, 1, 2),
    GRAD_CASE("no bias, three taps, one gradient", 70, 16, 3, 0, 0),
    GRAD_CASE("long", 300, 8, 4, 1, 2), GRAD_CASE("odd columns, eight taps", 37, 9, 8, 1, 2), GRAD_CASE("fewer rows than taps", 3, 8, 4, 1, 2),
    GRAD_CASE("six taps, one gradient", 29, 16, 6, 1, 0), GRAD_CASE("one tap, one row", 1, 8, 1, 1, 2), {0}};

static const OpDef def = {.name = "conv_short_silu", .equation = "u = silu(conv_short(x, w, b))", .min_in = 3, .max_in = 3, .n_out = 1,
    .optional = 1u << IN_B, .shape = shape, .compose = compose, .match = match, .cost = cost, .cases = cases};
static const OpDef def_grad = {.name = "conv_short_silu_grad", .equation = "g = (du + du2) silu'(conv_short(x, w, b)), dx, dw, db = those of conv_short for g",
    .min_in = 5, .max_in = 5, .n_out = 3, .optional = 1u << IN_B | 1u << IN_DU2, .sums = 6, .shape = shape_grad, .compose = compose_grad,
    .match = match_grad, .cost = cost_grad, .cases = cases_grad};

const OpRow mdr_op_rows_conv_short_silu[] = {{&def, {0}, {0}}, {&def_grad, {0}, {0}}, {0}};
#endif
