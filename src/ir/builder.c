/* Building a graph: nodes in SSA order, types derived as each node is made, the first error sticking to the Builder. */
#include "ir/internal.h"
#include <stdarg.h>
#include <string.h>

Builder *mdr_ir_builder(void)
{
    Builder *b = mdr_alloc(sizeof *b);
    b->arena = mdr_arena_new();
    b->where = "";
    return b;
}

static void free_bodies(const Node *n)
{
    /* scan owns its body; scan_grad only borrows that body and owns body_grad. */
    if (n->op == &mdr_ir_op_scan) mdr_ir_graph_free((Graph *)(uintptr_t)n->body);
    if (n->op == &mdr_ir_op_scan_grad) mdr_ir_graph_free((Graph *)(uintptr_t)n->body_grad);
}

void mdr_ir_builder_free(Builder *b)
{
    if (!b) return;
    for (int32_t i = 0; i < b->n_node; i++) free_bodies(b->node[i]);
    mdr_free(b->node);
    mdr_free(b->output);
    mdr_err_free(b->err);
    mdr_arena_free(b->arena);
    mdr_free(b);
}

Arena *mdr_ir_arena(Builder *b) { return b->arena; }
bool mdr_ir_failed(const Builder *b) { return b->err != NULL; }
int32_t mdr_ir_n_node(const Builder *b) { return b->n_node; }
const Node *mdr_ir_node_at(const Builder *b, int32_t i) { return b->node[i]; }

void mdr_ir_where(Builder *b, const char *fmt, ...)
{
    char buf[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    b->where = mdr_arena_strdup(b->arena, buf);
}

void mdr_ir_fail(Builder *b, Err *e)
{
    if (!b->err) b->err = e;
    else mdr_err_free(e);
}

Type mdr_ir_type(const Builder *b, Value v)
{
    if (v.node < 0 || v.node >= b->n_node) return (Type){0};
    return b->node[v.node]->out[v.out];
}

Err *mdr_ir_derive(Node *n)
{
    if (n->op == &mdr_ir_op_param) { n->out[0].axes = MDR_AXIS_MEMBER; n->out[0].phase = PH_STEP; return NULL; }
    if (n->op == &mdr_ir_op_input) {
        uint8_t axes = (uint8_t)((const InputAttr *)n->attr)->axes;
        n->out[0].axes = axes;
        n->out[0].phase = (axes & MDR_AXIS_SEQ) ? PH_SEQ : PH_STEP;
        return NULL;
    }
    uint8_t axes = 0, phase = PH_CONST;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i].node < 0) continue;
        axes |= n->in_type[i].axes;
        if (n->in_type[i].phase > phase) phase = n->in_type[i].phase;
    }
    if (n->op == &mdr_ir_op_sum_batch) {
        for (int i = 0; i < n->n_in; i++)
            if (n->in_type[i].phase != PH_SEQ || !(n->in_type[i].axes & MDR_AXIS_SEQ))
                return mdr_ir_shape_error(n, "input %d is not a value of each sequence", i);
        axes &= (uint8_t)~MDR_AXIS_SEQ;
        phase = PH_POST;
    } else if (phase == PH_POST && (axes & MDR_AXIS_SEQ)) {
        return mdr_ir_shape_error(n, "reads a sum over the batch while computing one sequence; what couples the sequences of "
                                     "a step (batch normalisation, a loss over the batch) cannot be part of a layer");
    }
    for (int i = 0; i < n->n_out; i++) { n->out[i].axes = axes; n->out[i].phase = phase; }
    return NULL;
}

Err *mdr_ir_check_arity(const Node *n)
{
    const OpDef *op = n->op;
    if (n->n_in < op->min_in || n->n_in > op->max_in)
        return mdr_ir_shape_error(n, "takes %d to %d inputs, got %d", op->min_in, op->max_in, n->n_in);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].node < 0 && !((op->optional >> i) & 1u)) return mdr_ir_shape_error(n, "input %d is absent", i);
    return NULL;
}

static Err *check_inputs(const Builder *b, const Node *n)
{
    MDR_TRY(mdr_ir_check_arity(n));
    for (int i = 0; i < n->n_in; i++) {
        Value v = n->in[i];
        if (v.node >= 0 && (v.node >= b->n_node || v.out < 0 || v.out >= b->node[v.node]->n_out))
            return mdr_ir_shape_error(n, "input %d names a value that does not exist", i);
    }
    return NULL;
}

/* Shapes are int32_t and so are products of a few of their dimensions, here and in kernels. */
Err *mdr_ir_check_sizes(const Node *n)
{
    char p[64];
    for (int k = 0; k < n->n_out; k++) {
        Shape s = n->out[k].shape;
        int64_t numel = s.rank >= 1 && s.rank <= MDR_MAX_RANK ? 1 : 0;
        for (int i = 0; i < s.rank && numel > 0 && numel <= INT32_MAX; i++) numel = s.d[i] < 1 ? 0 : numel * s.d[i];
        if (numel < 1 || numel > INT32_MAX)
            return mdr_ir_shape_error(n, "output %d is %s: a value of one sequence holds 1 to %d numbers", k, mdr_shape_text(s, p), INT32_MAX);
    }
    return NULL;
}

Value mdr_ir_node_bodies(Builder *b, const OpDef *op, const void *attr, int n_in, const Value *in, const Graph *body,
                         const Graph *body_grad)
{
    Node *n = mdr_arena_alloc(b->arena, sizeof *n);
    n->op = op;
    n->where = b->where;
    n->n_out = op->n_out;
    n->sums = op->sums;
    n->n_in = n_in > MDR_MAX_IN ? MDR_MAX_IN + 1 : n_in;
    n->body = body;
    n->body_grad = body_grad;
    Err *e = b->err ? NULL : n_in > MDR_MAX_IN ? mdr_ir_shape_error(n, "has %d inputs, at most %d are possible", n_in, MDR_MAX_IN) : NULL;
    if (!b->err && !e) {
        for (int i = 0; i < n_in; i++) { n->in[i] = in[i]; n->in_type[i] = mdr_ir_type(b, in[i]); }
        if (op->attr_size) n->attr = mdr_arena_copy(b->arena, attr, op->attr_size);
        e = check_inputs(b, n);
        if (!e) e = op->shape(n);
        if (!e) e = mdr_ir_check_sizes(n);
        if (!e) e = mdr_ir_derive(n);
    }
    if (e) mdr_ir_fail(b, e);
    if (b->err) {
        free_bodies(n);
        return MDR_ABSENT;
    }
    if (b->n_node == b->cap_node) {
        b->cap_node = b->cap_node ? 2 * b->cap_node : 64;
        b->node = mdr_realloc(b->node, (size_t)b->cap_node * sizeof *b->node);
    }
    b->node[b->n_node] = n;
    return (Value){b->n_node++, 0};
}

Value mdr_ir_node(Builder *b, const OpDef *op, const void *attr, int n_in, const Value *in)
{
    return mdr_ir_node_bodies(b, op, attr, n_in, in, NULL, NULL);
}

void mdr_ir_output(Builder *b, Value v)
{
    if (b->n_output == b->cap_output) {
        b->cap_output = b->cap_output ? 2 * b->cap_output : 16;
        b->output = mdr_realloc(b->output, (size_t)b->cap_output * sizeof *b->output);
    }
    b->output[b->n_output++] = v;
}

Err *mdr_ir_finish(Builder *b, Graph **out)
{
    *out = NULL;
    if (b->err) {
        Err *e = b->err;
        b->err = NULL;
        mdr_ir_builder_free(b);
        return e;
    }
    Graph *g = mdr_arena_alloc(b->arena, sizeof *g);
    g->arena = b->arena;
    g->n_node = b->n_node;
    g->node = mdr_arena_alloc(b->arena, (size_t)b->n_node * sizeof *g->node + 1);
    for (int32_t i = 0; i < b->n_node; i++) g->node[i] = *b->node[i];
    g->n_output = b->n_output;
    g->output = mdr_arena_alloc(b->arena, (size_t)b->n_output * sizeof *g->output + 1);
    if (b->n_output) memcpy(g->output, b->output, (size_t)b->n_output * sizeof *g->output);
    mdr_free(b->node);
    mdr_free(b->output);
    mdr_free(b);
    Err *e = mdr_ir_verify(g);
    if (e) { mdr_ir_graph_free(g); return e; }
    *out = g;
    return NULL;
}

void mdr_ir_graph_free(Graph *g)
{
    if (!g) return;
    for (int32_t i = 0; i < g->n_node; i++) free_bodies(&g->node[i]);
    mdr_arena_free(g->arena);
}
