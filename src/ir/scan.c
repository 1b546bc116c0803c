/* scan: the one structured loop over time. carry_{t+1}, y_t = body(carry_t, x_t, consts) for t = 0 .. L-1 (or backwards).
 * Outputs: final carries, ys [L, ..], then the carries at the start of every chunk (what the derivative recomputes from).
 *
 * Its derivative is one scan_grad node holding the gradient graph of the body (the same mdr_ir_grad). Inputs: carry0, xs,
 * consts as in scan, saved carries, d(final carries), d(ys) (absent = zero). Outputs: d(carry0), d(xs), d(consts). In the
 * body's gradient a const without the SEQ axis gets a sum_batch, whose accumulator runs over time and sequences alike.
 * The executor runs both; see src/exec/loop.c. */
#include "ir/internal.h"
#include <string.h>

static Err *body_mismatch(const Node *n, const char *what, int i, Shape got, Shape want)
{
    char p[64], q[64];
    return mdr_ir_shape_error(n, "%s %d is %s, the body has %s", what, i, mdr_shape_text(got, p), mdr_shape_text(want, q));
}

static Shape one_step(Shape s) { s.d[0] = 1; return s; }

static Err *shape_scan(Node *n)
{
    const ScanAttr *a = n->attr;
    int n_state = a->n_carry + a->n_xs + a->n_const;
    const Graph *body = n->body;
    if (!body) return mdr_ir_shape_error(n, "has no body");
    if (n->n_in != n_state || body->n_output != a->n_carry + a->n_ys)
        return mdr_ir_shape_error(n, "has %d inputs and a body of %d outputs, expected %d and %d", n->n_in, body->n_output,
                                  n_state, a->n_carry + a->n_ys);
    if (a->n_carry * 2 + a->n_ys > MDR_MAX_OUT || a->length < 1 || a->chunk < 1)
        return mdr_ir_shape_error(n, "%d carries and %d outputs over %d steps", a->n_carry, a->n_ys, a->length);
    for (int i = 0; i < body->n_output; i++) {
        Value v = body->output[i];
        if (v.node < 0) return mdr_ir_shape_error(n, "%s of the body is absent", i < a->n_carry ? "a next carry" : "an output");
        if (body->node[v.node].out[v.out].phase == PH_POST)
            return mdr_ir_shape_error(n, "output %d of the body is a sum over the batch, which would couple the sequences of a step", i);
    }
    int32_t input[MDR_MAX_IN];
    if (mdr_ir_inputs(body, input, MDR_MAX_IN) != n_state || mdr_ir_params(body, NULL, 0) != 0)
        return mdr_ir_shape_error(n, "the body must take exactly its carries, xs and consts as inputs, and have no parameters");
    for (int i = 0; i < n_state; i++) {
        const Type *in = &body->node[input[i]].out[0];
        bool xs = i >= a->n_carry && i < a->n_carry + a->n_xs;
        Shape given = n->in_type[i].shape;
        if (xs && given.d[0] != a->length) return mdr_ir_shape_error(n, "input %d has %d rows, expected %d", i, given.d[0], a->length);
        if (xs) given = one_step(given);
        if (!mdr_shape_equal(given, in->shape)) return body_mismatch(n, "input", i, given, in->shape);
        if ((n->in_type[i].axes & ~in->axes) || (i < a->n_carry + a->n_xs && !(in->axes & MDR_AXIS_SEQ)))
            return mdr_ir_shape_error(n, "input %d varies over axes that the body's input does not have", i);
        if (in->dtype != DT_REAL || n->in_type[i].dtype != DT_REAL) return mdr_ir_shape_error(n, "input %d is not of real numbers", i);
    }
    int32_t n_chunk = (a->length + a->chunk - 1) / a->chunk;
    n->n_out = a->n_carry * 2 + a->n_ys;
    for (int i = 0; i < a->n_carry; i++) {
        Shape s = body->node[input[i]].out[0].shape;
        Value v = body->output[i];
        if (!mdr_shape_equal(body->node[v.node].out[v.out].shape, s))
            return body_mismatch(n, "next carry", i, body->node[v.node].out[v.out].shape, s);
        n->out[i].shape = s;
        n->out[a->n_carry + a->n_ys + i].shape = mdr_shape2(n_chunk, (int32_t)mdr_numel(s));
    }
    for (int i = 0; i < a->n_ys; i++) {
        Value v = body->output[a->n_carry + i];
        Shape s = body->node[v.node].out[v.out].shape;
        if (s.d[0] != 1) return mdr_ir_shape_error(n, "output %d of the body has %d rows, expected 1", i, s.d[0]);
        s.d[0] = a->length;
        n->out[a->n_carry + i].shape = s;
    }
    return NULL;
}

/* The gradient of the body: inputs as the body's, then d(carry'), d(ys_t); outputs d(carry), d(xs_t), d(consts), possibly absent. */
static Graph *body_gradient(Builder *b, const Graph *body, const ScanAttr *a)
{
    Builder *s = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)body->n_node * sizeof *map.out + 1)};
    Value y[MDR_MAX_OUT], dy[MDR_MAX_OUT], x[MDR_MAX_IN], dx[MDR_MAX_IN];
    int32_t input[MDR_MAX_IN], n_in = mdr_ir_inputs(body, input, MDR_MAX_IN);
    int n_y = a->n_carry + a->n_ys;
    for (int32_t i = 0; i < body->n_node; i++) {          /* a plain copy: whatever the body holds has been lowered already */
        const Node *n = &body->node[i];
        Value in[MDR_MAX_IN];
        for (int k = 0; k < n->n_in; k++) in[k] = mdr_ir_copied(&map, n->in[k]);
        s->where = mdr_arena_strdup(s->arena, n->where);
        Graph *inner = n->op == &mdr_ir_op_scan ? mdr_ir_clone(n->body) : NULL;
        Value v = n->op == &mdr_ir_op_input
                      ? mdr_ir_input(s, ((const InputAttr *)n->attr)->name, n->out[0].shape, n->out[0].dtype, n->out[0].axes)
                      : mdr_ir_node_bodies(s, n->op, n->attr, n->n_in, in, inner, NULL);
        for (int k = 0; k < n->n_out; k++) map.out[i][k] = mdr_ir_out(v, k);
    }
    for (int i = 0; i < n_y; i++) {
        y[i] = mdr_ir_copied(&map, body->output[i]);
        dy[i] = mdr_ir_input(s, "dy", mdr_ir_type(s, y[i]).shape, DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER);
    }
    for (int i = 0; i < n_in; i++) x[i] = mdr_ir_copied(&map, (Value){input[i], 0});
    mdr_ir_grad(s, n_y, y, dy, n_in, x, dx);
    for (int i = 0; i < n_in; i++) mdr_ir_output(s, dx[i]);
    mdr_free(map.out);
    Graph *g = NULL;
    Err *e = mdr_ir_finish(s, &g);
    if (e) mdr_ir_fail(b, e);
    return g;
}

static void vjp_scan(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    const ScanAttr *a = n->attr;
    int n_state = a->n_carry + a->n_xs + a->n_const, k = 0;
    Graph *g = body_gradient(b, n->body, a);
    if (!g) return;
    Value v[MDR_MAX_IN];
    if (n_state + 2 * a->n_carry + a->n_ys > MDR_MAX_IN) {
        mdr_ir_graph_free(g);
        mdr_ir_fail(b, mdr_ir_shape_error(n, "captures too many values for its derivative (at most %d)", MDR_MAX_IN));
        return;
    }
    for (int i = 0; i < n_state; i++) v[k++] = in[i];
    for (int i = 0; i < a->n_carry; i++) v[k++] = out[a->n_carry + a->n_ys + i];
    for (int i = 0; i < a->n_carry + a->n_ys; i++) v[k++] = dout[i];
    Value dv = mdr_ir_node_bodies(b, &mdr_ir_op_scan_grad, a, k, v, n->body, g);
    for (int i = 0; i < n_state; i++)
        if (g->output[i].node >= 0) din[i] = mdr_ir_out(dv, i);
}

static Err *shape_scan_grad(Node *n)
{
    const ScanAttr *a = n->attr;
    int n_state = a->n_carry + a->n_xs + a->n_const;
    int32_t input[MDR_MAX_IN];
    mdr_ir_inputs(n->body, input, MDR_MAX_IN);
    n->n_out = n_state;
    n->sums = 0;
    for (int i = 0; i < n_state; i++) {
        n->out[i].shape = n->in_type[i].shape;
        /* A const the body shares between sequences: its gradient comes out summed over them. */
        if (!(n->body->node[input[i]].out[0].axes & MDR_AXIS_SEQ)) n->sums |= 1u << i;
    }
    return NULL;
}

/* The body's, over all steps; its gradient counts twice that, as everywhere (recomputation is not counted). */
static Cost cost_scan(const Node *n)
{
    const ScanAttr *a = n->attr;
    Cost c = {0};
    for (int32_t i = 0; i < n->body->n_node; i++) {
        Cost x = mdr_ir_cost(&n->body->node[i]);
        c.flops += x.flops * a->length;
        c.bytes += x.bytes * a->length;
        c.exps += x.exps * a->length;
    }
    return c;
}
static Cost cost_scan_grad(const Node *n)
{
    Cost c = cost_scan(n);
    return (Cost){.flops = 2 * c.flops, .bytes = 2 * c.bytes, .exps = 2 * c.exps};
}

const OpDef mdr_ir_op_scan = {.name = "scan", .equation = "c', y_t = body(c, x_t, consts)", .attr_size = sizeof(ScanAttr),
    .min_in = 1, .max_in = MDR_MAX_IN, .n_out = 1, .min_slice = 16, .shape = shape_scan, .vjp = vjp_scan, .cost = cost_scan};
const OpDef mdr_ir_op_scan_grad = {.name = "scan_grad", .equation = "gradient of scan, by chunks", .attr_size = sizeof(ScanAttr),
    .min_in = 1, .max_in = MDR_MAX_IN, .n_out = 1, .optional = 0xffffffffu, .min_slice = 16, .shape = shape_scan_grad,
    .cost = cost_scan_grad};

void mdr_ir_scan(Builder *b, Graph *body, ScanAttr given, const Value *in, Value *out)
{
    ScanAttr a;
    memset(&a, 0, sizeof a);
    a.n_carry = given.n_carry; a.n_xs = given.n_xs; a.n_const = given.n_const; a.n_ys = given.n_ys;
    a.length = given.length; a.chunk = given.chunk; a.reverse = given.reverse;
    for (int i = 0; i < a.n_carry + a.n_ys; i++) out[i] = MDR_ABSENT;
    if (!body) { mdr_ir_fail(b, MDR_ERR_MACHINE("scan: no body")); return; }
    if (a.chunk == 0)
        for (a.chunk = 1; (int64_t)a.chunk * a.chunk < a.length;) a.chunk++;
    Value v = mdr_ir_node_bodies(b, &mdr_ir_op_scan, &a, a.n_carry + a.n_xs + a.n_const, in, body, NULL);
    for (int i = 0; i < a.n_carry + a.n_ys; i++) out[i] = mdr_ir_out(v, i);
}
