/* matmul_tn_sum: the gradients of a linear map's weight and bias together, which both sum over the rows of y:
 *   z = x^T y,   s = sum_rows(y).   matmul_tn and sum_rows of the same y in one kernel. */
#include "op/reference.h"

#ifdef MDR_DECLARE
static Err *shape(Node *n)
{
    MDR_TRY(mdr_op_find("matmul_tn")->def->shape(n));
    n->out[1].shape = mdr_shape1(n->out[0].shape.d[1]);
    return NULL;
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    out[0] = mdr_op_matmul_tn(b, in[0], in[1]);
    out[1] = mdr_ir_sum_rows(b, in[1]);
}
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const bool last_is_sum = mdr_ir_is(b, (Value){root, 0}, "sum_rows");
    if (!last_is_sum && !mdr_ir_is(b, (Value){root, 0}, "matmul_tn")) return false;
    const Value y = mdr_ir_node_at(b, root)->in[last_is_sum ? 0 : 1];
    const int32_t product = mdr_ir_found(b, u, y, "matmul_tn", 1), sum = mdr_ir_found(b, u, y, "sum_rows", 0);
    if (product < 0 || sum < 0 || root != (product > sum ? product : sum)) return false;
    f->n_in = 2;
    f->in[0] = mdr_ir_node_at(b, product)->in[0];
    f->in[1] = y;
    f->out[0] = (Value){product, 0};
    f->out[1] = (Value){sum, 0};
    return true;
}
static Cost cost(const Node *n)
{
    Cost c = mdr_op_find("matmul_tn")->def->cost(n);
    c.flops += (double)mdr_numel(n->in_type[1].shape);
    c.bytes += 4.0 * (double)mdr_numel(n->out[1].shape);
    return c;
}

static const OpCase cases[] = {
    {.name = "unembedding", .n_in = 2, .in = {{2, {127, 128}}, {2, {127, 16}}}, .lo = -1, .hi = 1},
    {.name = "more rows and columns than a tile", .n_in = 2, .in = {{2, {141, 136}}, {2, {141, 200}}}, .lo = -1, .hi = 1},
    {.name = "several chunks", .n_in = 2, .in = {{2, {900, 8}}, {2, {900, 72}}}, .lo = -1, .hi = 1},
    {.name = "one row", .n_in = 2, .in = {{1, {16}}, {1, {24}}}, .lo = -1, .hi = 1},
    {.name = "blocks of two rows of warps", .n_in = 2, .in = {{2, {170, 72}}, {2, {170, 2120}}}, .lo = -1, .hi = 1},
    {.name = "blocks of four rows of warps", .n_in = 2, .in = {{2, {170, 264}}, {2, {170, 1352}}}, .lo = -1, .hi = 1},
    {.name = "rank 3", .n_in = 2, .in = {{3, {5, 3, 8}}, {3, {5, 3, 8}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "matmul_tn_sum", .equation = "z[k,n] = sum_i x[i,k] y[i,n], s[n] = sum_i y[i,n]", .min_in = 2, .max_in = 2,
    .n_out = 2, .sums = 3, .shape = shape, .compose = compose, .match = match, .cost = cost, .cases = cases};

const OpRow mdr_op_rows_matmul_tn_sum[] = {{&def, {0}, {0}}, {0}};
#endif
