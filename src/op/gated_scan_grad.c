/* gated_scan_grad: gradient of gated_scan, as one op: of out = y silu(z), y = selective_scan(u, softplus(p), a, B, C, d), dout is given;
 * du, dp, da, dB, dC, dd, dz come out, and dbias, the sum of dp's rows, for the bias of the product that made p. `states` is
 * gated_scan's second output, from which y is made again: neither it nor anything else of the inside is kept. da, dd and dbias are in sums.
 *
 * Matched at the selective_scan_grad behind a gate; the op stands there, ahead of the nodes that would make dp and dbias. */
#include "op/reference.h"
#include "op/selective_scan.h"

#ifdef MDR_DECLARE
enum { P = IN_DELTA, Z = 6, STATES, DOUT, N_INPUT };
enum { DU, DP, DA, DB, DC, DD, DZ, DBIAS, N_OUTPUT };


static Err *shape(Node *n)
{
    const Shape u = n->in_type[IN_U].shape, a = n->in_type[IN_A].shape;
    char p[64], q[64];
    if (u.rank != 2 || a.rank != 2) return mdr_ir_shape_error(n, "u and a must have two dimensions");
    const Shape rate = mdr_shape2(u.d[0], a.d[1]), states = mdr_shape2((u.d[0] + SCAN_CHUNK - 1) / SCAN_CHUNK, a.d[0] * a.d[1]);
    const Shape want[N_INPUT] = {u, u, mdr_shape2(u.d[1], a.d[1]), rate, rate, mdr_shape1(u.d[1]), u, states, u};
    for (int i = 0; i < N_INPUT; i++)
        if (!mdr_shape_equal(n->in_type[i].shape, want[i]))
            return mdr_ir_shape_error(n, "input %d (of u, p, a, B, C, d, z, states, dout) is %s, expected %s", i,
                                      mdr_shape_text(n->in_type[i].shape, p), mdr_shape_text(want[i], q));
    for (int i = 0; i <= DZ; i++) n->out[i].shape = want[i];
    n->out[DBIAS].shape = mdr_shape1(u.d[1]);
    return NULL;
}

/* ---- the composition ---- */
static Value gradient(Builder *b, UnaryKind kind, Value x, Value dy)
{
    const UnaryAttr a = {.kind = (int32_t)kind};
    const Value in[3] = {x, MDR_ABSENT, dy};
    return mdr_ir_node(b, mdr_op_def("unary_grad"), &a, 3, in);
}
/* y of the states, chunk by chunk. A row of states is [N, C]: the identity turns it. */
static Value remade(Builder *b, const Node *n, const Value *in, Value delta)
{
    const int32_t rows = n->in_type[IN_U].shape.d[0], cols = n->in_type[IN_U].shape.d[1], n_state = n->in_type[IN_A].shape.d[1];
    double *one = mdr_alloc((size_t)n_state * (size_t)n_state * sizeof *one);
    for (int32_t i = 0; i < n_state; i++) one[i * n_state + i] = 1.0;
    Value identity = mdr_ir_const(b, mdr_shape2(n_state, n_state), one), y = MDR_ABSENT;
    mdr_free(one);
    for (int32_t q = 0; q * SCAN_CHUNK < rows; q++) {
        const int32_t t0 = q * SCAN_CHUNK, len = rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK;
        Graph *body = mdr_scan_token(b, n, cols, n_state);
        if (!body) return y;
        Value h = mdr_op_matmul_tn(b, mdr_ir_reshape(b, mdr_ir_rows(b, in[STATES], q, 1), mdr_shape2(n_state, cols)), identity), to[2];
        Value from[7] = {h, mdr_ir_rows(b, in[IN_U], t0, len), mdr_ir_rows(b, delta, t0, len), mdr_ir_rows(b, in[IN_B], t0, len),
                         mdr_ir_rows(b, in[IN_C], t0, len), in[IN_A], in[IN_D]};
        mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 4, .n_const = 2, .n_ys = 1, .length = len}, from, to);
        Value part = mdr_ir_pad_rows(b, to[1], t0, rows);
        y = mdr_ir_has(y) ? mdr_op_add(b, y, part) : part;
    }
    return y;
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    Value delta = mdr_op_unary(b, UN_SOFTPLUS, 0.0, in[P]);
    Value v[8] = {in[IN_U], delta, in[IN_A], in[IN_B], in[IN_C], in[IN_D], in[STATES], mdr_op_mul(b, in[DOUT], mdr_op_unary(b, UN_SILU, 0.0, in[Z]))};
    Value g = mdr_ir_node(b, mdr_op_def("selective_scan_grad"), NULL, 8, v);
    for (int i = DU; i <= DD; i++) out[i] = mdr_ir_out(g, i);
    out[DP] = gradient(b, UN_SOFTPLUS, in[P], out[DP]);
    out[DBIAS] = mdr_ir_sum_rows(b, out[DP]);
    out[DZ] = gradient(b, UN_SILU, in[Z], mdr_op_mul(b, in[DOUT], remade(b, n, in, delta)));
}

/* ---- the pattern ---- */
/* The reader of dy that is the gradient of such a function of x, or -1. */
static int32_t through(const Builder *b, const Uses *u, Value dy, UnaryKind kind, Value x)
{
    const int32_t r = mdr_ir_found(b, u, dy, "unary_grad", 2);
    if (r < 0) return -1;
    const Node *n = mdr_ir_node_at(b, r);
    return ((const UnaryAttr *)n->attr)->kind == (int32_t)kind && mdr_ir_same(n->in[0], x) ? r : -1;
}
static bool is_mul(const Node *n) { return ((const BinaryAttr *)n->attr)->kind == BIN_MUL; }
/* The reader of y that multiplies it by x, or absent. */
static Value product(const Builder *b, const Uses *u, Value y, Value x)
{
    for (int32_t i = 0; i < mdr_ir_n_users(u, y); i++) {
        const Value v = {mdr_ir_user(u, y, i), 0};
        if (v.node == INT32_MAX || !mdr_ir_is(b, v, "binary")) continue;
        const Node *n = mdr_ir_node_at(b, v.node);
        if (is_mul(n) && ((mdr_ir_same(n->in[0], y) && mdr_ir_same(n->in[1], x)) || (mdr_ir_same(n->in[0], x) && mdr_ir_same(n->in[1], y)))) return v;
    }
    return MDR_ABSENT;
}

static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    if (!mdr_ir_is(b, (Value){root, 0}, "selective_scan_grad")) return false;
    const Node *g = mdr_ir_node_at(b, root), *softplus = mdr_op_unary_of(b, g->in[IN_DELTA], UN_SOFTPLUS);
    const Value dy = g->in[IN_DY], states = g->in[IN_STATES];
    if (!softplus || !mdr_ir_is(b, states, "selective_scan") || !mdr_ir_is(b, dy, "binary")) return false;
    const Node *gate = mdr_ir_node_at(b, dy.node);
    const int silu_at = mdr_op_unary_of(b, gate->in[1], UN_SILU) ? 1 : 0;
    const Node *silu = mdr_op_unary_of(b, gate->in[silu_at], UN_SILU);
    if (!silu || !is_mul(gate) || !mdr_shape_equal(silu->out[0].shape, g->out[0].shape)) return false;
    const Value p = softplus->in[0], z = silu->in[0], dout = gate->in[1 - silu_at];
    const int32_t dz = through(b, u, product(b, u, (Value){states.node, OUT_Y}, dout), UN_SILU, z);
    const int32_t dp = through(b, u, (Value){root, OUT_DDELTA}, UN_SOFTPLUS, p);
    if (dz < 0 || dp < 0) return false;
    f->n_in = N_INPUT;
    for (int i = 0; i <= IN_D; i++) f->in[i] = g->in[i];
    f->in[P] = p;
    f->in[Z] = z;
    f->in[STATES] = states;
    f->in[DOUT] = dout;
    for (int i = DU; i <= DD; i++) f->out[i] = (Value){root, i};
    f->out[DP] = (Value){dp, 0};
    f->out[DZ] = (Value){dz, 0};
    f->out[DBIAS] = (Value){mdr_ir_found(b, u, f->out[DP], "sum_rows", 0), 0};
    return true;
}

/* selective_scan_grad's, y once more (2 flops a state), and element by element: softplus 2 and its slope 1, silu 1. */
static Cost cost(const Node *n)
{
    Cost r = mdr_op_def("selective_scan_grad")->cost(n);
    const double all = (double)mdr_numel(n->in_type[IN_U].shape);
    r.flops += 2.0 * all * (double)n->in_type[IN_A].shape.d[1];
    r.exps += 4.0 * all;
    return r;
}

#define SHAPES(L, C, N) {{2, {L, C}}, {2, {L, C}}, {2, {C, N}}, {2, {L, N}}, {2, {L, N}}, {1, {C}}, {2, {L, C}}, \
                         {2, {(L + SCAN_CHUNK - 1) / SCAN_CHUNK, N * C}}, {2, {L, C}}}
#define PARAMETERS {0, 0, 1 + MDR_AXIS_MEMBER, 0, 0, 1 + MDR_AXIS_MEMBER}
static const OpCase cases[] = {
    {.name = "mamba", .n_in = N_INPUT, .in = SHAPES(37, 24, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "more than a block", .n_in = N_INPUT, .in = SHAPES(7, 264, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "eight states", .n_in = N_INPUT, .in = SHAPES(19, 16, 8), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "sixteen states", .n_in = N_INPUT, .in = SHAPES(33, 16, 16), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "odd sizes", .n_in = N_INPUT, .in = SHAPES(19, 11, 7), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {0}};

static const OpDef def = {.name = "gated_scan_grad", .equation = "gradient of gated_scan, recomputed by chunks of 16", .min_in = N_INPUT, .max_in = N_INPUT,
    .n_out = N_OUTPUT, .sums = 1u << DA | 1u << DD | 1u << DBIAS, .shape = shape, .compose = compose, .cost = cost, .cases = cases, .match = match};

const OpRow mdr_op_rows_gated_scan_grad[] = {{&def, {0}, {0}}, {0}};
#endif
