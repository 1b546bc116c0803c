/* matmul_swiglu: SwiGLU's first linear map together with its activation, and the way back, for devices that fuse (op.h, ir.h):
 *   matmul_swiglu       gate_up = x w (+ b),  h = silu(gate) up                            gate | up: [.., I] each
 *   matmul_swiglu_grad  dh = dy w^T,  dgate = dh up s (1 + gate (1 - s)),  dup = dh gate s,  s = sigmoid(gate)
 * gate_up stays, for the derivative; where nobody reads it it is not made. dh is nobody else's. The w of the gradient is the second
 * map's. */
#include "op/reference.h"

#ifdef MDR_DECLARE
/* in: x [.., K], w [K, 2I], bias [2I] or absent; out: gate_up [.., 2I], h [.., I] */
static Err *shape(Node *n)
{
    const Shape x = n->in_type[0].shape, w = n->in_type[1].shape, bias = n->in_type[2].shape;
    char p[64], q[64];
    if (x.rank < 1 || w.rank != 2 || mdr_cols(x) != w.d[0] || w.d[1] % 2 != 0)
        return mdr_ir_shape_error(n, "x is %s and w %s, expected [.., K] and [K, 2I]", mdr_shape_text(x, p), mdr_shape_text(w, q));
    if (n->in[2].node >= 0 && !mdr_shape_equal(bias, mdr_shape1(w.d[1])))
        return mdr_ir_shape_error(n, "the bias is %s, w is %s", mdr_shape_text(bias, p), mdr_shape_text(w, q));
    n->out[0].shape = n->out[1].shape = x;
    n->out[0].shape.d[x.rank - 1] = w.d[1];
    n->out[1].shape.d[x.rank - 1] = w.d[1] / 2;
    return NULL;
}
/* in: dy [.., K], w [I, K], gate_up [.., 2I]; out: dgate_up [.., 2I] */
static Err *shape_grad(Node *n)
{
    const Shape dy = n->in_type[0].shape, w = n->in_type[1].shape, x = n->in_type[2].shape;
    char p[64], q[64];
    if (dy.rank < 1 || x.rank < 1 || w.rank != 2 || mdr_cols(dy) != w.d[1] || mdr_cols(x) != 2 * w.d[0] || mdr_rows(dy) != mdr_rows(x))
        return mdr_ir_shape_error(n, "dy is %s and gate_up %s, expected [.., K] and [.., 2I]", mdr_shape_text(dy, p), mdr_shape_text(x, q));
    n->out[0].shape = x;
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_op_matmul(b, in[0], in[1], in[2]);
    out[1] = mdr_op_swiglu_act(b, out[0]);
}
static void compose_grad(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    const Value grad[2] = {in[2], mdr_op_matmul_t(b, in[0], in[1])};
    out[0] = mdr_ir_node(b, mdr_op_find("swiglu_act_grad")->def, NULL, 2, grad);
}

static Cost cost(const Node *n)
{
    const double rows = (double)mdr_rows(n->out[0].shape), inner = (double)mdr_cols(n->in_type[0].shape), cols = (double)mdr_cols(n->out[0].shape);
    return (Cost){.flops = 2 * rows * inner * cols, .bytes = 4 * (rows * inner + inner * cols + rows * cols * 1.5), .exps = rows * cols / 2, .whole = true};
}
static Cost cost_grad(const Node *n)
{
    const double rows = (double)mdr_rows(n->out[0].shape), inner = (double)mdr_cols(n->in_type[0].shape), cols = (double)mdr_cols(n->out[0].shape);
    return (Cost){.flops = rows * inner * cols, .bytes = 4 * (rows * inner + inner * cols / 2 + rows * cols * 2), .exps = rows * cols / 2, .whole = true};
}

/* The last node is the activation. A reader of gate_up before it would keep the product alive. */
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Value h = {root, 0};
    if (!mdr_ir_is(b, h, "swiglu_act")) return false;
    const Value y = mdr_ir_node_at(b, root)->in[0];
    if (!mdr_ir_is(b, y, "matmul") || mdr_ir_user(u, y, 0) < root) return false;
    const Node *product = mdr_ir_node_at(b, y.node);
    if (((const MatmulAttr *)product->attr)->transposed) return false;
    f->n_in = 3;
    for (int k = 0; k < product->n_in; k++) f->in[k] = product->in[k];
    f->out[0] = y;
    f->out[1] = h;
    return true;
}
static bool match_grad(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Value dx = {root, 0};
    if (!mdr_ir_is(b, dx, "swiglu_act_grad")) return false;
    const Node *n = mdr_ir_node_at(b, root);
    const Value dh = n->in[1];
    if (!mdr_ir_is(b, dh, "matmul") || mdr_ir_only_user(u, dh) != root) return false;
    const Node *product = mdr_ir_node_at(b, dh.node);
    if (!((const MatmulAttr *)product->attr)->transposed || mdr_ir_has(product->in[2])) return false;
    f->n_in = 3;
    f->in[0] = product->in[0];
    f->in[1] = product->in[1];
    f->in[2] = n->in[0];
    f->out[0] = dx;
    return true;
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
#define AXES {0, SHARED, SHARED}
#define AXES_GRAD {0, SHARED, 0}
static const OpCase cases[] = {
    {.name = "as in the models", .n_in = 3, .in = {{2, {127, 128}}, {2, {128, 704}}, {0, {0}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "bias", .n_in = 3, .in = {{2, {19, 128}}, {2, {128, 192}}, {1, {192}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "two parts of w, I = 456", .n_in = 3, .in = {{2, {70, 128}}, {2, {128, 912}}, {1, {912}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 64, I = 40", .n_in = 3, .in = {{2, {7, 64}}, {2, {64, 80}}, {1, {80}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 32, I = 8, rank 3", .n_in = 3, .in = {{3, {5, 7, 32}}, {2, {32, 16}}, {0, {0}}}, .in_axes = AXES, .lo = -4, .hi = 4},
    {.name = "many tiles a warp", .n_in = 3, .in = {{2, {8500, 32}}, {2, {32, 144}}, {1, {144}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "large gates", .n_in = 3, .in = {{1, {32}}, {2, {32, 128}}, {1, {128}}}, .in_axes = AXES, .lo = -20, .hi = 20},
    {0}};
static const OpCase cases_grad[] = {
    {.name = "as in the models", .n_in = 3, .in = {{2, {127, 128}}, {2, {352, 128}}, {2, {127, 704}}}, .in_axes = AXES_GRAD, .lo = -1, .hi = 1},
    {.name = "two parts of w, I = 456", .n_in = 3, .in = {{2, {70, 128}}, {2, {456, 128}}, {2, {70, 912}}}, .in_axes = AXES_GRAD, .lo = -1, .hi = 1},
    {.name = "K = 64, I = 40", .n_in = 3, .in = {{2, {19, 64}}, {2, {40, 64}}, {2, {19, 80}}}, .in_axes = AXES_GRAD, .lo = -4, .hi = 4},
    {.name = "K = 32, I = 8, rank 3", .n_in = 3, .in = {{3, {5, 7, 32}}, {2, {8, 32}}, {3, {5, 7, 16}}}, .in_axes = AXES_GRAD, .lo = -4, .hi = 4},
    {.name = "many tiles a warp", .n_in = 3, .in = {{2, {8500, 32}}, {2, {72, 32}}, {2, {8500, 144}}}, .in_axes = AXES_GRAD, .lo = -1, .hi = 1},
    {.name = "large gates, shared", .n_in = 3, .in = {{1, {32}}, {2, {64, 32}}, {1, {128}}}, .in_axes = {0, SHARED, SHARED}, .lo = -20, .hi = 20},
    {0}};

static const OpDef def = {.name = "matmul_swiglu", .equation = "gate|up = x w + b, h = silu(gate) up", .min_in = 3, .max_in = 3, .n_out = 2,
    .optional = 1u << 2, .shape = shape, .compose = compose, .cost = cost, .cases = cases, .match = match};
static const OpDef def_grad = {.name = "matmul_swiglu_grad", .equation = "dh = dy w^T, dgate = dh up silu'(gate), dup = dh silu(gate)", .min_in = 3,
    .max_in = 3, .n_out = 1, .inplace = 1u << 2, .shape = shape_grad, .compose = compose_grad, .cost = cost_grad, .cases = cases_grad,
    .match = match_grad};

const OpRow mdr_op_rows_matmul_swiglu[] = {{&def, {0}, {0}}, {&def_grad, {0}, {0}}, {0}};
#endif
