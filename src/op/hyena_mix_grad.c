/* hyena_mix_grad: the derivative of Hyena's mixer (Poli et al. 2023), from the gradient of its output down to those of the in-projection and
 * the filter, as an op that recomputes what lies between. With s = conv_short(z, w, b) in three parts x1, x2, v, u = v x2:
 *   y = (conv_long(u, h) + skip u) x1
 *   dc = dy x1,  dx1 = dy (conv_long(u, h) + skip u),  dskip = sum dc u,  du = conv_long^T(dc, h) + skip dc,  dv = du x2,  dx2 = du v
 *   dh[j] = sum_t dc[t] u[t-j],  dz, dw, db: what conv_short makes of dx1, dx2, dv
 * No op that a layer would build: it stands for others (mdr_ir_fuse). */
#include "op/reference.h"

#ifdef MDR_DECLARE
enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP, IN_DY, N_IN };
enum { OUT_DZ, OUT_DW, OUT_DB, OUT_DSKIP, OUT_DH, N_OUT };

static Value plain(Builder *b, const char *op, const void *attr, int n_in, const Value *in) { return mdr_ir_node(b, mdr_op_find(op)->def, attr, n_in, in); }
static bool is(const Builder *b, int32_t node, const char *op) { return node >= 0 && strcmp(mdr_ir_node_at(b, node)->op->name, op) == 0; }
static bool multiplies(const Builder *b, int32_t node) { return is(b, node, "binary") && ((const BinaryAttr *)mdr_ir_node_at(b, node)->attr)->kind == BIN_MUL; }
static bool convolves(const Builder *b, int32_t node, bool anticausal)
{
    return is(b, node, "conv_long") && (((const ConvAttr *)mdr_ir_node_at(b, node)->attr)->anticausal != 0) == anticausal;
}

static Err *shape(Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, w = n->in_type[IN_W].shape, dy = n->in_type[IN_DY].shape;
    char p[64], q[64];
    if (z.rank != 2 || w.rank != 2 || dy.rank != 2 || w.d[1] != 3 * dy.d[1] || dy.d[0] != z.d[0] || w.d[1] % z.d[1] != 0)
        return mdr_ir_shape_error(n, "z is %s, w %s, which does not fit", mdr_shape_text(z, p), mdr_shape_text(w, q));
    if (!mdr_shape_equal(n->in_type[IN_H].shape, dy) || !mdr_shape_equal(n->in_type[IN_SKIP].shape, mdr_shape1(dy.d[1])))
        return mdr_ir_shape_error(n, "dy is %s, h %s, which does not fit", mdr_shape_text(dy, p), mdr_shape_text(n->in_type[IN_H].shape, q));
    n->out[OUT_DZ].shape = z;
    n->out[OUT_DW].shape = w;
    n->out[OUT_DB].shape = mdr_shape1(w.d[1]);
    n->out[OUT_DSKIP].shape = n->in_type[IN_SKIP].shape;
    n->out[OUT_DH].shape = n->in_type[IN_H].shape;
    return NULL;
}

/* ---- as plain ops ---- */
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    const ConvAttr turned = {1};
    const int32_t cols_z = n->in_type[IN_Z].shape.d[1], taps = n->in_type[IN_W].shape.d[0];      /* the attributes of conv_short's gradients    */
    const int32_t c = n->in_type[IN_W].shape.d[1] / 3, third[3] = {c, c, c};
    Value part[3];
    mdr_ir_split(b, mdr_op_conv_short(b, in[IN_Z], in[IN_W], in[IN_B]), 3, third, part);
    Value u = mdr_op_mul(b, part[2], part[1]);
    Value skip[5] = {mdr_op_conv_long(b, u, in[IN_H]), u, in[IN_SKIP], part[0], in[IN_DY]};
    Value g = plain(b, "gated_skip_grad", NULL, 5, skip), with_h[2] = {g, in[IN_H]}, with_u[2] = {u, g};
    Value du = mdr_op_add(b, mdr_ir_out(g, 1), plain(b, "conv_long", &turned, 2, with_h));
    Value all[3] = {mdr_ir_out(g, 2), mdr_op_mul(b, du, part[2]), mdr_op_mul(b, du, part[1])};
    Value ds = mdr_ir_join(b, 3, all), with_w[2] = {ds, in[IN_W]}, with_z[2] = {in[IN_Z], ds};
    out[OUT_DZ] = plain(b, "conv_short_dx", &cols_z, 2, with_w);
    out[OUT_DW] = plain(b, "conv_short_dw", &taps, 2, with_z);
    out[OUT_DB] = mdr_ir_sum_rows(b, ds);
    out[OUT_DSKIP] = mdr_ir_out(g, 3);
    out[OUT_DH] = plain(b, "conv_long_dh", NULL, 2, with_u);
}
/* As executed: the forward's convolutions once more, then what the plain ops do. */
static Cost cost(const Node *n)
{
    const Shape dy = n->in_type[IN_DY].shape, z = n->in_type[IN_Z].shape;
    const double rows = dy.d[0], cols = dy.d[1], taps = n->in_type[IN_W].shape.d[0];
    return (Cost){.flops = 3 * rows * (rows + 1) * cols + 18 * rows * cols * taps + 10 * rows * cols, .bytes = 4 * rows * (2 * cols + 2 * z.d[1])};
}

/* ---- found in a graph ---- */
/* What u and x1 are made of: s = conv_short(z, w, b), split in three equal parts; u the product of the last one and the second. */
static bool find_parts(const Builder *b, Value u, Value x1, Value *z, Value *w, Value *bias)
{
    const Node *split = x1.node >= 0 && x1.out == 0 ? mdr_ir_node_at(b, x1.node) : NULL;
    if (!split || split->op != &mdr_ir_op_split || split->n_out != 3 || !multiplies(b, u.node)) return false;
    const Node *product = mdr_ir_node_at(b, u.node);
    const Shape s = split->out[0].shape;
    if (!mdr_ir_same(product->in[0], mdr_ir_out(x1, 2)) || !mdr_ir_same(product->in[1], mdr_ir_out(x1, 1))) return false;
    if (!mdr_ir_is(b, split->in[0], "conv_short") || !mdr_shape_equal(s, split->out[1].shape) || !mdr_shape_equal(s, split->out[2].shape)) return false;
    const Node *conv = mdr_ir_node_at(b, split->in[0].node);
    *z = conv->in[0];
    *w = conv->in[1];
    *bias = conv->in[2];
    return true;
}
/* The gated_skip_grad whose dc this is, if it stands behind conv_long(u, h) and u itself. */
static const Node *find_gate(const Builder *b, Value dc, Value *u, Value *h)
{
    if (!mdr_ir_is(b, dc, "gated_skip_grad") || dc.out != 0) return NULL;
    const Node *gate = mdr_ir_node_at(b, dc.node);
    if (!convolves(b, gate->in[0].node, false)) return NULL;
    const Node *conv = mdr_ir_node_at(b, gate->in[0].node);
    *u = gate->in[1];
    *h = conv->in[1];
    return mdr_ir_same(conv->in[0], *u) ? gate : NULL;
}

/* ds is read by conv_short's gradients and nobody else; root is the last of them. */
static bool find_outputs(const Builder *b, const Uses *u, Value ds, int32_t root, Fusion *f)
{
    const int32_t dx = mdr_ir_found(b, u, ds, "conv_short_dx", 0), dw = mdr_ir_found(b, u, ds, "conv_short_dw", 1);
    const int32_t db = mdr_ir_found(b, u, ds, "sum_rows", 0), last = dx > dw ? dx : dw;
    if (dx < 0 || dw < 0 || (db > last ? db : last) != root || mdr_ir_n_users(u, ds) != 2 + (db >= 0)) return false;
    if (!mdr_ir_same(mdr_ir_node_at(b, dx)->in[1], f->in[IN_W]) || !mdr_ir_same(mdr_ir_node_at(b, dw)->in[0], f->in[IN_Z])) return false;
    if (!mdr_shape_equal(mdr_ir_node_at(b, dx)->out[0].shape, mdr_ir_type(b, f->in[IN_Z]).shape)) return false;
    if (!mdr_shape_equal(mdr_ir_node_at(b, dw)->out[0].shape, mdr_ir_type(b, f->in[IN_W]).shape)) return false;
    f->out[OUT_DZ] = (Value){dx, 0};
    f->out[OUT_DW] = (Value){dw, 0};
    if (db >= 0) f->out[OUT_DB] = (Value){db, 0};
    return true;
}
static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    const Node *n = mdr_ir_node_at(b, root);
    if (!is(b, root, "conv_short_dx") && !is(b, root, "conv_short_dw") && !is(b, root, "sum_rows")) return false;
    const Value ds = n->in[is(b, root, "conv_short_dw") ? 1 : 0];
    const Node *join = mdr_ir_is(b, ds, "join") ? mdr_ir_node_at(b, ds.node) : NULL;
    if (!join || join->n_in != 3 || !multiplies(b, join->in[1].node) || !multiplies(b, join->in[2].node)) return false;
    const Node *dx2 = mdr_ir_node_at(b, join->in[1].node), *dv = mdr_ir_node_at(b, join->in[2].node);
    const Node *sum = mdr_ir_is(b, dx2->in[0], "add") ? mdr_ir_node_at(b, dx2->in[0].node) : NULL;      /* du                     */
    if (!sum || sum->n_in != 2 || !mdr_ir_same(dx2->in[0], dv->in[0]) || !convolves(b, sum->in[1].node, true)) return false;
    const Node *conv = mdr_ir_node_at(b, sum->in[1].node);
    const Value dc = conv->in[0];
    Value from, h;
    const Node *gate = find_gate(b, dc, &from, &h);
    if (!gate || !mdr_ir_same(conv->in[1], h) || !mdr_ir_same(sum->in[0], mdr_ir_out(dc, 1)) || !mdr_ir_same(join->in[0], mdr_ir_out(dc, 2))) return false;
    const Value x1 = gate->in[3];
    if (!find_parts(b, from, x1, &f->in[IN_Z], &f->in[IN_W], &f->in[IN_B])) return false;
    if (!mdr_ir_same(dx2->in[1], mdr_ir_out(x1, 2)) || !mdr_ir_same(dv->in[1], mdr_ir_out(x1, 1))) return false;
    f->n_in = N_IN;
    f->in[IN_H] = h;
    f->in[IN_SKIP] = gate->in[2];
    f->in[IN_DY] = gate->in[4];
    f->out[OUT_DSKIP] = mdr_ir_out(dc, 3);
    const int32_t dh = mdr_ir_found(b, u, dc, "conv_long_dh", 1);
    if (dh >= 0 && mdr_ir_same(mdr_ir_node_at(b, dh)->in[0], from)) f->out[OUT_DH] = (Value){dh, 0};
    /* Nobody else may want what is to vanish. */
    if (mdr_ir_n_users(u, dx2->in[0]) != 2 || mdr_ir_n_users(u, mdr_ir_out(dc, 1)) != 1 || mdr_ir_n_users(u, mdr_ir_out(dc, 2)) != 1) return false;
    if (mdr_ir_only_user(u, join->in[1]) < 0 || mdr_ir_only_user(u, join->in[2]) < 0 || mdr_ir_only_user(u, sum->in[1]) < 0) return false;
    return find_outputs(b, u, ds, root, f);
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
#define GRAD_CASE(label, rows, gap, taps, bias)                                                                                     \
    {.name = label, .n_in = N_IN, .lo = -1, .hi = 1, .in_axes = {0, SHARED, SHARED, SHARED, SHARED},                                \
     .in = {{2, {rows, 3 * (gap)}}, {2, {taps, 12 * (gap)}}, {bias, {12 * (gap) * (bias)}}, {2, {rows, 4 * (gap)}}, {1, {4 * (gap)}}, \
            {2, {rows, 4 * (gap)}}}}
static const OpCase cases[] = {GRAD_CASE("few rows", 7, 8, 3, 1), GRAD_CASE("odd rows", 19, 16, 3, 1), GRAD_CASE("a block but one", 127, 8, 3, 1),
                               GRAD_CASE("a block, no bias, two taps", 128, 8, 2, 0), GRAD_CASE("two blocks", 251, 8, 3, 1),
                               GRAD_CASE("three blocks", 263, 8, 3, 1), GRAD_CASE("six blocks", 713, 8, 3, 1), {0}};
static const OpDef def = {.name = "hyena_mix_grad",
    .equation = "dz, dw, db, dskip, dh of y = (conv_long(v x2, h) + skip v x2) x1, x1|x2|v = conv_short(z, w, b)",
    .min_in = N_IN, .max_in = N_IN, .n_out = N_OUT, .optional = 1u << IN_B,
    .sums = 1u << OUT_DW | 1u << OUT_DB | 1u << OUT_DSKIP | 1u << OUT_DH, .shape = shape, .compose = compose, .match = match, .cost = cost, .cases = cases};

const OpRow mdr_op_rows_hyena_mix_grad[] = {{&def, {0}, {0}}, {0}};
#endif
