/* Checking a graph between passes, and reading it: verifier, lists of parameters and inputs, costs, printing, shapes. */
#include "ir/internal.h"
#include <stdarg.h>
#include <string.h>

bool mdr_shape_equal(Shape a, Shape b)
{
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++)
        if (a.d[i] != b.d[i]) return false;
    return true;
}

const char *mdr_shape_text(Shape s, char buf[64])
{
    int n = snprintf(buf, 64, "[");
    for (int i = 0; i < s.rank; i++) n += snprintf(buf + n, (size_t)(64 - n), i ? ", %d" : "%d", s.d[i]);
    snprintf(buf + n, (size_t)(64 - n), "]");
    return buf;
}

Err *mdr_ir_shape_error(const Node *n, const char *fmt, ...)
{
    char buf[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    return n->where && n->where[0] ? MDR_ERR_USER("%s: %s: %s", n->where, n->op->name, buf)
                                   : MDR_ERR_USER("%s: %s", n->op->name, buf);
}

static Err *verify_body(const Node *n, const Graph *body, const char *what)
{
    Err *e = body ? mdr_ir_verify(body) : MDR_ERR_MACHINE("is missing");
    return mdr_err_wrap(e, "%s%s%s: %s", n->where ? n->where : "", n->where && n->where[0] ? ": " : "", n->op->name, what);
}

static Err *verify_node(const Graph *g, int32_t i)
{
    const Node *n = &g->node[i];
    MDR_TRY(mdr_ir_check_arity(n));
    if (n->op == &mdr_ir_op_scan || n->op == &mdr_ir_op_scan_grad) MDR_TRY(verify_body(n, n->body, "its body"));
    if (n->op == &mdr_ir_op_scan_grad) MDR_TRY(verify_body(n, n->body_grad, "its body's gradient"));
    for (int k = 0; k < n->n_in; k++) {
        Value v = n->in[k];
        if (v.node < 0) continue;
        if (v.node >= i) return mdr_ir_shape_error(n, "node %d reads node %d, which comes later", i, v.node);
        if (v.out < 0 || v.out >= g->node[v.node].n_out) return mdr_ir_shape_error(n, "node %d: input %d names an output that does not exist", i, k);
        const Type *t = &g->node[v.node].out[v.out], *u = &n->in_type[k];
        if (!mdr_shape_equal(t->shape, u->shape) || t->dtype != u->dtype ||
            t->axes != u->axes || t->phase != u->phase)
            return mdr_ir_shape_error(n, "node %d: the type of input %d has changed", i, k);
    }
    Node again = *n;
    memset(again.out, 0, sizeof again.out);
    again.n_out = n->op->n_out;
    again.sums = n->op->sums;
    MDR_TRY(n->op->shape(&again));
    MDR_TRY(mdr_ir_check_sizes(&again));
    MDR_TRY(mdr_ir_derive(&again));
    if (again.n_out != n->n_out || again.sums != n->sums) return mdr_ir_shape_error(n, "node %d: its outputs are not what the op gives", i);
    for (int k = 0; k < n->n_out; k++) {
        const Type *t = &n->out[k], *u = &again.out[k];
        if (!mdr_shape_equal(t->shape, u->shape) || t->dtype != u->dtype || t->axes != u->axes || t->phase != u->phase)
            return mdr_ir_shape_error(n, "node %d: output %d is not what its inputs give", i, k);
    }
    return NULL;
}

Err *mdr_ir_verify(const Graph *g)
{
    for (int32_t i = 0; i < g->n_node; i++) MDR_TRY(verify_node(g, i));
    for (int32_t i = 0; i < g->n_output; i++)
        if (g->output[i].node >= g->n_node || (g->output[i].node >= 0 && (g->output[i].out < 0 || g->output[i].out >= g->node[g->output[i].node].n_out)))
            return MDR_ERR_MACHINE("output %d of the graph does not exist", i);
    return NULL;
}

static int32_t list(const Graph *g, const OpDef *op, int32_t *node, int32_t max)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_node; i++)
        if (g->node[i].op == op) {
            if (n < max) node[n] = i;
            n++;
        }
    return n;
}
int32_t mdr_ir_params(const Graph *g, int32_t *node, int32_t max) { return list(g, &mdr_ir_op_param, node, max); }
int32_t mdr_ir_inputs(const Graph *g, int32_t *node, int32_t max) { return list(g, &mdr_ir_op_input, node, max); }

Cost mdr_ir_cost(const Node *n)
{
    if (n->op->cost) return n->op->cost(n);
    Cost c = {.whole = true};
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k].node >= 0) c.bytes += 4.0 * (double)mdr_numel(n->in_type[k].shape);
    for (int k = 0; k < n->n_out; k++) c.bytes += 4.0 * (double)mdr_numel(n->out[k].shape);
    return c;
}

void mdr_ir_print(const Graph *g, Text *t)
{
    static const char *const phase[] = {"const", "step", "seq", "post"};
    char buf[64];
    for (int32_t i = 0; i < g->n_node; i++) {
        const Node *n = &g->node[i];
        mdr_text_printf(t, "%4d %-16s", i, n->op->name);
        for (int k = 0; k < n->n_out; k++) mdr_text_printf(t, " %s", mdr_shape_text(n->out[k].shape, buf));
        mdr_text_printf(t, " %s <-", phase[n->out[0].phase]);
        for (int k = 0; k < n->n_in; k++) mdr_text_printf(t, n->in[k].out ? " %d.%d" : " %d", n->in[k].node, n->in[k].out);
        mdr_text_printf(t, "  (%s)\n", n->where);
    }
    for (int32_t i = 0; i < g->n_output; i++) mdr_text_printf(t, "output %d: node %d.%d\n", i, g->output[i].node, g->output[i].out);
}
