/* rope_attention: causal softmax attention with the rotation of q and k (rope) before it: y, lse = attention(rope(q), rope(k), v).
 * Fused (ir/fuse.c) from the two rotations and attention where a GPU has a kernel for it (attention.cu). */
#include "op/reference.h"

#ifdef MDR_DECLARE

/* in: q, k, v [L, H*d]; out: y [L, H*d], lse [L, H] */
static Err *shape(Node *n)
{
    const RopeAttentionAttr *a = n->attr;
    const Shape q = n->in_type[0].shape;
    char x[64], y[64];
    if (a->attention.n_heads < 1 || q.rank != 2 || q.d[1] % (2 * a->attention.n_heads) != 0)
        return mdr_ir_shape_error(n, "q is %s, expected [L, %d heads of an even size]", mdr_shape_text(q, x), a->attention.n_heads);
    if (a->attention.window < 0 || !(a->base > 1.0))
        return mdr_ir_shape_error(n, "the window is %d and base %g, expected 0 (none) or more and base > 1", a->attention.window, a->base);
    for (int i = 1; i < 3; i++)
        if (!mdr_shape_equal(q, n->in_type[i].shape))
            return mdr_ir_shape_error(n, "%s is %s, q is %s", i == 1 ? "k" : "v", mdr_shape_text(n->in_type[i].shape, y), mdr_shape_text(q, x));
    n->out[0].shape = q;
    n->out[1].shape = mdr_shape2(q.d[0], a->attention.n_heads);
    return NULL;
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    const RopeAttentionAttr *a = n->attr;
    const Value q = mdr_op_rope(b, in[0], a->attention.n_heads, a->base), k = mdr_op_rope(b, in[1], a->attention.n_heads, a->base);
    out[0] = mdr_op_attention(b, q, k, in[2], a->attention);
    out[1] = mdr_ir_out(out[0], 1);
}

/* attention's, and two rotations of a tensor. */
static Cost cost(const Node *n)
{
    Cost c = mdr_op_find("attention")->def->cost(n);
    const double size = (double)mdr_numel(n->in_type[0].shape);
    c.bytes += 2 * 8 * size;
    c.exps += 2 * size / ((const RopeAttentionAttr *)n->attr)->attention.n_heads;
    return c;
}

static const RopeAttr *rotation(const Builder *b, Value v)
{
    const RopeAttr *r = mdr_ir_is(b, v, "rope") ? mdr_ir_node_at(b, v.node)->attr : NULL;
    return r && r->sign == 1 ? r : NULL;
}
/* The root is attention; the rotations may have other readers, as its gradient is until it is fused itself. */
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    (void)u;
    const Value y = {root, 0};
    if (!mdr_ir_is(b, y, "attention")) return false;
    const Node *n = mdr_ir_node_at(b, root);
    const AttentionAttr *a = n->attr;
    const RopeAttr *q = rotation(b, n->in[0]), *k = rotation(b, n->in[1]);
    if (!q || !k || q->n_heads != a->n_heads || k->n_heads != a->n_heads || q->base != k->base) return false;
    memcpy(f->attr, &(const RopeAttentionAttr){*a, q->base}, sizeof(RopeAttentionAttr));
    f->n_in = 3;
    for (int i = 0; i < 2; i++) f->in[i] = mdr_ir_node_at(b, n->in[i].node)->in[0];
    f->in[2] = n->in[2];
    f->out[0] = y;
    f->out[1] = mdr_ir_out(y, 1);
    return true;
}

#define CASE(text, rows, heads, w, base, most)                                                                         \
    {.name = text, .attr = &(const RopeAttentionAttr){{heads, w}, base}, .n_in = 3, .lo = -(most), .hi = most,         \
     .in = {{2, {rows, (heads) * 8}}, {2, {rows, (heads) * 8}}, {2, {rows, (heads) * 8}}}}
static const OpCase cases[] = {
    CASE("16 heads", 127, 16, 0, 10000.0, 2), CASE("3 heads, 7 rows", 7, 3, 0, 10000.0, 2), CASE("one row", 1, 2, 0, 10000.0, 2),
    CASE("17 heads, 65 rows, another base", 65, 17, 0, 500.0, 2), CASE("two warps a head", 250, 5, 0, 10000.0, 2),
    CASE("four warps a head", 263, 3, 0, 10000.0, 2), CASE("eight warps a head", 527, 1, 0, 10000.0, 2),
    CASE("sixteen warps a head", 1043, 1, 0, 10000.0, 2), CASE("window 1", 33, 2, 1, 10000.0, 2), CASE("window 17, two warps a head", 141, 5, 17, 10000.0, 2),
    CASE("window 32", 127, 2, 32, 10000.0, 2), CASE("window 80", 263, 2, 80, 10000.0, 2), CASE("long keys", 127, 3, 0, 10000.0, 12),
    CASE("long keys, window 19", 141, 1, 19, 10000.0, 12),
    {.name = "keys of all sequences", .attr = &(const RopeAttentionAttr){{3, 0}, 10000.0}, .n_in = 3, .lo = -2, .hi = 2,
     .in = {{2, {67, 24}}, {2, {67, 24}}, {2, {67, 24}}}, .in_axes = {0, 1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER}},
    {.name = "one for all sequences", .attr = &(const RopeAttentionAttr){{3, 5}, 10000.0}, .n_in = 3, .lo = -2, .hi = 2,
     .in = {{2, {37, 24}}, {2, {37, 24}}, {2, {37, 24}}}, .in_axes = {1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER, 1 + MDR_AXIS_MEMBER}},
    {0}};
static const OpDef def = {.name = "rope_attention", .equation = "y, lse = attention(rope(q), rope(k), v)", .attr_size = sizeof(RopeAttentionAttr),
    .min_in = 3, .max_in = 3, .n_out = 2, .shape = shape, .compose = compose, .cost = cost, .cases = cases, .match = match};

const OpRow mdr_op_rows_rope_attention[] = {{&def, {0}, {0}}, {0}};
#endif
