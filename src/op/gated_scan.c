/* gated_scan: what stands between Mamba's projections, as one op: out = y silu(z), y = selective_scan(u, softplus(p), a, B, C, d).
 * Of y, softplus(p) and silu(z) nothing goes to memory. The second output is selective_scan's: states, for the gradient. Matched where a
 * binary mul joins the two halves; whoever else reads y keeps selective_scan beside it. */
#include "op/reference.h"

#ifdef MDR_DECLARE
enum { IN_U, IN_P, IN_A, IN_B, IN_C, IN_D, IN_Z, N_IN };
enum { OUT, OUT_STATES };


static Err *shape(Node *n)
{
    if (!mdr_shape_equal(n->in_type[IN_Z].shape, n->in_type[IN_U].shape)) return mdr_ir_shape_error(n, "z and u must be of one shape");
    return mdr_op_def("selective_scan")->shape(n);
}

static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    (void)n;
    Value y = mdr_op_selective_scan(b, in[IN_U], mdr_op_unary(b, UN_SOFTPLUS, 0.0, in[IN_P]), in[IN_A], in[IN_B], in[IN_C], in[IN_D]);
    out[OUT] = mdr_op_mul(b, y, mdr_op_unary(b, UN_SILU, 0.0, in[IN_Z]));
    out[OUT_STATES] = mdr_ir_out(y, OUT_STATES);
}

static bool match(const Builder *b, const Uses *u, int32_t root, Fusion *f)
{
    (void)u;
    const Node *mul = mdr_ir_node_at(b, root);
    if (!mdr_ir_is(b, (Value){root, 0}, "binary") || ((const BinaryAttr *)mul->attr)->kind != BIN_MUL) return false;
    const int scan_at = mdr_ir_is(b, mul->in[0], "selective_scan") ? 0 : 1;
    const Value y = mul->in[scan_at];
    if (!mdr_ir_is(b, y, "selective_scan") || y.out != 0) return false;
    const Node *scan = mdr_ir_node_at(b, y.node), *softplus = mdr_op_unary_of(b, scan->in[IN_P], UN_SOFTPLUS),
               *silu = mdr_op_unary_of(b, mul->in[1 - scan_at], UN_SILU);
    if (!softplus || !silu || !mdr_shape_equal(silu->out[0].shape, scan->out[0].shape)) return false;
    f->n_in = N_IN;
    for (int i = 0; i < IN_Z; i++) f->in[i] = scan->in[i];
    f->in[IN_P] = softplus->in[0];
    f->in[IN_Z] = silu->in[0];
    f->out[OUT] = (Value){root, 0};
    f->out[OUT_STATES] = (Value){y.node, OUT_STATES};
    return true;
}

/* selective_scan's, and element by element: softplus 2, silu 1, the product. */
static Cost cost(const Node *n)
{
    Cost r = mdr_op_def("selective_scan")->cost(n);
    r.exps += 3.0 * (double)mdr_numel(n->in_type[IN_U].shape);
    return r;
}

#define SHAPES(L, C, N) {{2, {L, C}}, {2, {L, C}}, {2, {C, N}}, {2, {L, N}}, {2, {L, N}}, {1, {C}}, {2, {L, C}}}
#define PARAMETERS {0, 0, 1 + MDR_AXIS_MEMBER, 0, 0, 1 + MDR_AXIS_MEMBER}
static const OpCase cases[] = {
    {.name = "mamba", .n_in = N_IN, .in = SHAPES(37, 24, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "more than a block", .n_in = N_IN, .in = SHAPES(7, 264, 4), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "eight states", .n_in = N_IN, .in = SHAPES(19, 16, 8), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "sixteen states", .n_in = N_IN, .in = SHAPES(33, 16, 16), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "odd sizes", .n_in = N_IN, .in = SHAPES(19, 11, 7), .in_axes = PARAMETERS, .lo = -0.8, .hi = 0.8},
    {.name = "steep", .n_in = N_IN, .in = SHAPES(17, 8, 4), .in_axes = PARAMETERS, .lo = -6, .hi = 0.1},
    {0}};

static const OpDef def = {.name = "gated_scan", .equation = "out = selective_scan(u, softplus(p), a, B, C, d) silu(z)", .min_in = N_IN, .max_in = N_IN,
    .n_out = 2, .aux = 1u << OUT_STATES, .shape = shape, .compose = compose, .cost = cost, .cases = cases, .match = match};

const OpRow mdr_op_rows_gated_scan[] = {{&def, {0}, {0}}, {0}};
#endif
