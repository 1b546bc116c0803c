/* matmul_norm: a product added to the residual, and the norm that the next layer starts with, for devices that fuse (op.h, ir.h):
 *   s = r + x w (+ b),  n = rmsnorm(s) gain,  with the norm's statistic beside them
 * w is not transposed; the product itself is nobody else's. s goes on as the next residual. */
#include "op/reference.h"

#ifdef MDR_DECLARE
/* in: x [.., K], w [K, N], bias [N] or absent, residual [.., N], gain [N]; out: s, n [.., N], rstd [rows] */
static Err *shape(Node *n)
{
    const Shape x = n->in_type[0].shape, w = n->in_type[1].shape, r = n->in_type[3].shape, vector = mdr_shape1(w.d[1]);
    char p[64], q[64];
    if (w.rank != 2 || mdr_cols(x) != w.d[0] || mdr_cols(r) != w.d[1] || mdr_rows(x) != mdr_rows(r))
        return mdr_ir_shape_error(n, "x is %s and the residual %s, expected [.., K] and [.., N]", mdr_shape_text(x, p), mdr_shape_text(r, q));
    if ((n->in[2].node >= 0 && !mdr_shape_equal(n->in_type[2].shape, vector)) || !mdr_shape_equal(n->in_type[4].shape, vector))
        return mdr_ir_shape_error(n, "the gain is %s, w %s", mdr_shape_text(n->in_type[4].shape, p), mdr_shape_text(w, q));
    n->out[0].shape = n->out[1].shape = r;
    n->out[2].shape = mdr_shape1((int32_t)mdr_rows(r));
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    out[0] = mdr_op_add(b, in[3], mdr_op_matmul(b, in[0], in[1], in[2]));
    out[1] = mdr_op_rmsnorm(b, out[0], in[4], ((const NormAttr *)n->attr)->eps);
    out[2] = mdr_ir_out(out[1], 1);
}

static Cost cost(const Node *n)
{
    const double rows = (double)mdr_rows(n->out[0].shape), inner = (double)mdr_cols(n->in_type[0].shape), cols = (double)mdr_cols(n->out[0].shape);
    return (Cost){.flops = 2 * rows * inner * cols, .bytes = 4 * (rows * inner + inner * cols + rows * (3 * cols + 1)), .whole = true};
}

/* The last node is the norm. */
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Value norm = {root, 0};
    if (!mdr_ir_is(b, norm, "rmsnorm")) return false;
    const Node *n = mdr_ir_node_at(b, root);
    const Value s = n->in[0];
    if (!mdr_ir_is(b, s, "add") || mdr_ir_user(u, s, 0) < root) return false;
    const Node *add = mdr_ir_node_at(b, s.node);
    if (add->n_in != 2 || !mdr_shape_equal(add->in_type[0].shape, add->in_type[1].shape)) return false;
    for (int k = 1; k >= 0; k--) {
        const Value y = add->in[k];
        if (!mdr_ir_is(b, y, "matmul") || mdr_ir_only_user(u, y) != s.node) continue;
        const Node *product = mdr_ir_node_at(b, y.node);
        if (((const MatmulAttr *)product->attr)->transposed) continue;
        memcpy(f->attr, n->attr, sizeof(NormAttr));
        f->n_in = 5;
        f->in[0] = product->in[0];
        f->in[1] = product->in[1];
        if (product->n_in > 2) f->in[2] = product->in[2];
        f->in[3] = add->in[1 - k];
        f->in[4] = n->in[1];
        f->out[0] = s;
        f->out[1] = norm;
        f->out[2] = mdr_ir_out(norm, 1);
        return true;
    }
    return false;
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
#define AXES {0, SHARED, SHARED, 0, SHARED}
static const NormAttr small = {1e-5}, large = {0.5};
static const OpCase cases[] = {
    {.name = "attention's output", .attr = &small, .n_in = 5, .in = {{2, {19, 128}}, {2, {128, 128}}, {1, {128}}, {2, {19, 128}}, {1, {128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "no bias", .attr = &large, .n_in = 5, .in = {{2, {127, 352}}, {2, {352, 128}}, {0, {0}}, {2, {127, 128}}, {1, {128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "long rows", .attr = &small, .n_in = 5, .in = {{2, {7, 704}}, {2, {704, 128}}, {0, {0}}, {2, {7, 128}}, {1, {128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "64 columns", .attr = &small, .n_in = 5, .in = {{2, {130, 40}}, {2, {40, 64}}, {1, {64}}, {2, {130, 64}}, {1, {64}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "32 columns, rank 3", .attr = &small, .n_in = 5, .in = {{3, {5, 7, 16}}, {2, {16, 32}}, {1, {32}}, {3, {5, 7, 32}}, {1, {32}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 13", .attr = &small, .n_in = 5, .in = {{2, {37, 13}}, {2, {13, 128}}, {1, {128}}, {2, {37, 128}}, {1, {128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "a shared residual", .attr = &small, .n_in = 5, .in = {{2, {20, 36}}, {2, {36, 64}}, {1, {64}}, {2, {20, 64}}, {1, {64}}},
     .in_axes = {0, SHARED, SHARED, SHARED, SHARED}, .lo = -1, .hi = 1},
    {.name = "one row", .attr = &small, .n_in = 5, .in = {{1, {9}}, {2, {9, 32}}, {1, {32}}, {1, {32}}, {1, {32}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "matmul_norm", .equation = "s = r + x w + b, n = g s / sqrt(mean(s^2) + eps)", .attr_size = sizeof(NormAttr),
    .min_in = 5, .max_in = 5, .n_out = 3, .optional = 1u << 2, .shape = shape, .compose = compose, .cost = cost, .cases = cases, .match = match};

const OpRow mdr_op_rows_matmul_norm[] = {{&def, {0}, {0}}, {0}};
#endif
