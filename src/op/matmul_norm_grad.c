/* matmul_norm_grad: the gradient of a norm whose result goes into a product, from the product's result on, for devices that fuse (op.h,
 * ir.h): with y = rmsnorm(x) gain w and dy at hand
 *   e = dy w^T,  dx = dres + rmsnorm_grad(x, gain, rstd, e),  dgain = rmsnorm_dw(x, rstd, e)        (in sums)
 * where dres, if there, is the gradient that reaches x past the norm, along the residual. e is nobody else's. */
#include "op/reference.h"

#ifdef MDR_DECLARE
/* in: dy [.., K], w [N, K], x [.., N], gain [N], rstd [rows], dres [.., N] or absent; out: dx [.., N], dgain [N] */
static Err *shape(Node *n)
{
    const Shape dy = n->in_type[0].shape, w = n->in_type[1].shape, x = n->in_type[2].shape, vector = mdr_shape1(w.d[0]);
    char p[64], q[64];
    if (w.rank != 2 || mdr_cols(dy) != w.d[1] || mdr_cols(x) != w.d[0] || mdr_rows(dy) != mdr_rows(x))
        return mdr_ir_shape_error(n, "dy is %s and x %s, expected [.., K] and [.., N]", mdr_shape_text(dy, p), mdr_shape_text(x, q));
    if (!mdr_shape_equal(n->in_type[3].shape, vector) || !mdr_shape_equal(n->in_type[4].shape, mdr_shape1((int32_t)mdr_rows(x))))
        return mdr_ir_shape_error(n, "the gain is %s, rstd %s", mdr_shape_text(n->in_type[3].shape, p), mdr_shape_text(n->in_type[4].shape, q));
    if (n->in[5].node >= 0 && !mdr_shape_equal(n->in_type[5].shape, x))
        return mdr_ir_shape_error(n, "dres is %s, x %s", mdr_shape_text(n->in_type[5].shape, p), mdr_shape_text(x, q));
    n->out[0].shape = x;
    n->out[1].shape = vector;
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    const Value e = mdr_op_matmul_t(b, in[0], in[1]);
    const Value grad[4] = {in[2], in[3], in[4], e}, dw[3] = {in[2], in[4], e};
    out[0] = mdr_ir_node(b, mdr_op_find("rmsnorm_grad")->def, NULL, 4, grad);
    if (mdr_ir_has(in[5])) out[0] = mdr_op_add(b, in[5], out[0]);
    out[1] = mdr_ir_node(b, mdr_op_find("rmsnorm_dw")->def, NULL, 3, dw);
}

static Cost cost(const Node *n)
{
    const double rows = (double)mdr_rows(n->out[0].shape), inner = (double)mdr_cols(n->in_type[0].shape), cols = (double)mdr_cols(n->out[0].shape);
    const double wide = n->in[5].node >= 0 ? 3 : 2;
    return (Cost){.flops = 2 * rows * inner * cols, .bytes = 4 * (rows * inner + inner * cols + rows * (wide * cols + 1)), .whole = true};
}

/* The sum of two that takes v and nothing else of v's readers does: its node, or -1. */
static int32_t added(const Builder *b, const Uses *u, Value v)
{
    const int32_t i = mdr_ir_only_user(u, v);
    if (i < 0 || !mdr_ir_is(b, (Value){i, 0}, "add")) return -1;
    const Node *n = mdr_ir_node_at(b, i);
    return n->n_in == 2 && mdr_shape_equal(n->in_type[0].shape, n->in_type[1].shape) ? i : -1;
}
/* The product's gradient that the pattern around node i has in its middle. */
static Value middle(const Builder *b, const Uses *u, int32_t i)
{
    const Node *n = mdr_ir_node_at(b, i);
    if (mdr_ir_is(b, (Value){i, 0}, "rmsnorm_dw")) return n->in[2];
    if (mdr_ir_is(b, (Value){i, 0}, "rmsnorm_grad")) return n->in[3];
    for (int k = 0; mdr_ir_is(b, (Value){i, 0}, "add") && k < n->n_in; k++)
        if (mdr_ir_is(b, n->in[k], "rmsnorm_grad") && added(b, u, n->in[k]) == i) {
            const Value e = mdr_ir_node_at(b, n->in[k].node)->in[3];
            if (mdr_ir_is(b, e, "matmul")) return e;
        }
    return MDR_ABSENT;
}

/* The last node is the gain's gradient, x's or the sum of that and dres. */
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Value e = middle(b, u, root);
    if (!mdr_ir_is(b, e, "matmul") || mdr_ir_n_users(u, e) != 2) return false;
    const Node *product = mdr_ir_node_at(b, e.node);
    const int32_t grad = mdr_ir_found(b, u, e, "rmsnorm_grad", 3), dw = mdr_ir_found(b, u, e, "rmsnorm_dw", 2);
    if (!((const MatmulAttr *)product->attr)->transposed || (product->n_in > 2 && mdr_ir_has(product->in[2])) || grad < 0 || dw < 0) return false;
    const Node *g = mdr_ir_node_at(b, grad), *d = mdr_ir_node_at(b, dw);
    if (!mdr_ir_same(g->in[0], d->in[0]) || !mdr_ir_same(g->in[2], d->in[1])) return false;
    const int32_t sum = added(b, u, (Value){grad, 0});
    f->n_in = 6;
    f->in[0] = product->in[0];
    f->in[1] = product->in[1];
    for (int k = 0; k < 3; k++) f->in[2 + k] = g->in[k];
    f->out[0] = (Value){sum < 0 ? grad : sum, 0};
    f->out[1] = (Value){dw, 0};
    if (sum >= 0) {
        const Node *a = mdr_ir_node_at(b, sum);
        f->in[5] = a->in[a->in[0].node == grad ? 1 : 0];
    }
    const int32_t last = f->out[0].node > dw ? f->out[0].node : dw;
    return root == last && mdr_ir_user(u, f->out[0], 0) > root && mdr_ir_user(u, f->out[1], 0) > root;
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
#define AXES {0, SHARED, 0, SHARED}
static const OpCase cases[] = {
    {.name = "attention's projections", .n_in = 6, .in = {{2, {19, 384}}, {2, {128, 384}}, {2, {19, 128}}, {1, {128}}, {1, {19}}, {2, {19, 128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "long rows", .n_in = 6, .in = {{2, {127, 704}}, {2, {128, 704}}, {2, {127, 128}}, {1, {128}}, {1, {127}}, {2, {127, 128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 16, no residual", .n_in = 6, .in = {{2, {70, 16}}, {2, {128, 16}}, {2, {70, 128}}, {1, {128}}, {1, {70}}, {0, {0}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "64 columns", .n_in = 6, .in = {{2, {130, 40}}, {2, {64, 40}}, {2, {130, 64}}, {1, {64}}, {1, {130}}, {2, {130, 64}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "32 columns, rank 3", .n_in = 6, .in = {{3, {5, 7, 24}}, {2, {32, 24}}, {3, {5, 7, 32}}, {1, {32}}, {1, {35}}, {3, {5, 7, 32}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 13", .n_in = 6, .in = {{2, {37, 13}}, {2, {128, 13}}, {2, {37, 128}}, {1, {128}}, {1, {37}}, {2, {37, 128}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "K = 13, no residual", .n_in = 6, .in = {{2, {33, 13}}, {2, {64, 13}}, {2, {33, 64}}, {1, {64}}, {1, {33}}, {0, {0}}},
     .in_axes = AXES, .lo = -1, .hi = 1},
    {.name = "one row", .n_in = 6, .in = {{1, {9}}, {2, {32, 9}}, {1, {32}}, {1, {32}}, {1, {1}}, {1, {32}}}, .in_axes = AXES, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "matmul_norm_grad", .equation = "e = dy w^T, dx = dres + r (g e - x r^2 mean(g e x)), dg = sum_rows e x r",
    .min_in = 6, .max_in = 6, .n_out = 2, .optional = 1u << 5, .sums = 1u << 1, .shape = shape, .compose = compose, .cost = cost, .cases = cases,
    .match = match};

const OpRow mdr_op_rows_matmul_norm_grad[] = {{&def, {0}, {0}}, {0}};
#endif
