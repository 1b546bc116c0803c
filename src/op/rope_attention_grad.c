/* rope_attention_grad: what attention_grad gives when the rotation of q and k (rope) stands before attention: q and k come in as they were
 * before it, dq and dk are the gradients of these.
 *   dq, dk, dv = attention_grad(rope(q), rope(k), v, y, lse, dy, dlse);   dq, dk turned back
 * Fused (ir/fuse.c) from the four rotations and attention_grad where a GPU has a kernel for it (attention_grad.cu). */
#include "op/reference.h"

#ifdef MDR_DECLARE


static Err *shape(Node *n)
{
    const RopeAttentionAttr *a = n->attr;
    Shape q = n->in_type[0].shape, lse = mdr_shape2(q.d[0], a->attention.n_heads);
    char x[64], y[64];
    if (a->attention.n_heads < 1 || q.rank != 2 || q.d[1] % (2 * a->attention.n_heads) != 0)
        return mdr_ir_shape_error(n, "q is %s, expected [L, %d heads of an even size]", mdr_shape_text(q, x), a->attention.n_heads);
    if (a->attention.window < 0 || !(a->base > 1.0))
        return mdr_ir_shape_error(n, "the window is %d and base %g, expected 0 (none) or more and base > 1", a->attention.window, a->base);
    for (int i = 1; i < 7; i++) {
        Shape want = i == 4 || i == 6 ? lse : q;
        if (n->in[i].node >= 0 && !mdr_shape_equal(want, n->in_type[i].shape))
            return mdr_ir_shape_error(n, "input %d is %s, expected %s", i, mdr_shape_text(n->in_type[i].shape, y), mdr_shape_text(want, x));
    }
    for (int i = 0; i < 3; i++) n->out[i].shape = q;
    return NULL;
}

static Value turned(Builder *b, const RopeAttentionAttr *a, Value x, int32_t sign)
{
    const RopeAttr r = {a->attention.n_heads, sign, a->base};
    return mdr_ir_node(b, mdr_op_def("rope"), &r, 1, &x);
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    const RopeAttentionAttr *a = n->attr;
    Value with[7] = {turned(b, a, in[0], 1), turned(b, a, in[1], 1), in[2], in[3], in[4], in[5], in[6]};
    Value g = mdr_ir_node(b, mdr_op_def("attention_grad"), &a->attention, 7, with);
    out[0] = turned(b, a, g, -1);
    out[1] = turned(b, a, mdr_ir_out(g, 1), -1);
    out[2] = mdr_ir_out(g, 2);
}

/* attention_grad's, and four rotations of a tensor. */
static Cost cost(const Node *n)
{
    Cost c = mdr_op_def("attention_grad")->cost(n);
    const double size = (double)mdr_numel(n->in_type[0].shape);
    c.bytes += 4 * 8 * size;
    c.exps += 4 * size / ((const RopeAttentionAttr *)n->attr)->attention.n_heads;
    return c;
}

static const RopeAttr *rotation(const Builder *b, Value v, int32_t sign)
{
    const RopeAttr *r = mdr_ir_is(b, v, "rope") ? mdr_ir_node_at(b, v.node)->attr : NULL;
    return r && r->sign == sign ? r : NULL;
}
static bool alike(const RopeAttr *r, const RopeAttr *s) { return r && s && r->n_heads == s->n_heads && r->base == s->base; }

/* The root is the later of the two rotations back. */
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Node *last = mdr_ir_node_at(b, root);
    const RopeAttr *r = rotation(b, (Value){root, 0}, -1);
    if (!r || !mdr_ir_is(b, last->in[0], "attention_grad") || last->in[0].out > 1) return false;
    const int32_t g = last->in[0].node;
    const Node *grad = mdr_ir_node_at(b, g);
    const AttentionAttr *a = grad->attr;
    const Value dv = {g, 2};
    if (r->n_heads != a->n_heads || (mdr_ir_n_users(u, dv) > 0 && mdr_ir_user(u, dv, 0) < root)) return false;
    for (int i = 0; i < 2; i++) {
        const int32_t back = mdr_ir_only_user(u, (Value){g, i});
        if (back < 0 || back > root || !alike(r, rotation(b, (Value){back, 0}, -1)) || !alike(r, rotation(b, grad->in[i], 1))) return false;
        f->in[i] = mdr_ir_node_at(b, grad->in[i].node)->in[0];
        f->out[i] = (Value){back, 0};
    }
    for (int i = 2; i < 7; i++) f->in[i] = grad->in[i];
    f->out[2] = dv;
    f->n_in = 7;
    memcpy(f->attr, &(const RopeAttentionAttr){*a, r->base}, sizeof(RopeAttentionAttr));
    return true;
}

#define CASE(text, rows, heads, w, dlse)                                                                               \
    {.name = text, .attr = &(const RopeAttentionAttr){{heads, w}, 10000.0}, .n_in = 7, .lo = -1, .hi = 1,          \
     .in = {{2, {rows, (heads) * 8}}, {2, {rows, (heads) * 8}}, {2, {rows, (heads) * 8}}, {2, {rows, (heads) * 8}},    \
            {2, {rows, heads}}, {2, {rows, (heads) * 8}}, {(dlse) ? 2 : 0, {rows, heads}}}}
static const OpCase cases[] = {
    CASE("16 heads", 127, 16, 0, 0), CASE("3 heads, 7 rows", 7, 3, 0, 1), CASE("window 32", 141, 5, 32, 0), CASE("window 1", 33, 1, 1, 1),
    CASE("window 17, two warps a head", 250, 3, 17, 0), CASE("four warps a head", 263, 2, 0, 0), CASE("eight warps a head, two heads a block", 527, 3, 0, 0),
    CASE("one row", 1, 2, 0, 1), {0}};
static const OpDef def = {.name = "rope_attention_grad",
    .equation = "dq, dk, dv = attention_grad(rope(q), rope(k), v, y, lse, dy, dlse), dq and dk turned back",
    .attr_size = sizeof(RopeAttentionAttr), .min_in = 7, .max_in = 7, .n_out = 3, .optional = 1u << 6, .shape = shape, .compose = compose,
    .cost = cost, .cases = cases, .match = match};

const OpRow mdr_op_rows_rope_attention_grad[] = {{&def, {0}, {0}}, {0}};
#endif
