/* Reverse-mode autodiff, graph to graph: walks the nodes backwards and lets each op's vjp append its gradient nodes.
 * One rule is here and not in the ops: a value that lacks the SEQ axis (a weight, a filter) and receives gradients of single
 * sequences gets ONE sum_batch over all of them; everything else that meets is added. First order only. */
#include "ir/internal.h"
#include <string.h>

typedef struct Contrib { Value v; int32_t next; } Contrib;          /* a linked list per value                            */
typedef struct Tape {
    Builder *b;
    int32_t n_node;                   /* nodes that existed before                                                        */
    int32_t *first;                   /* n_node x MDR_MAX_OUT: index + 1 into contrib, 0 = none; newest first             */
    Contrib *contrib;
    int32_t n_contrib, cap_contrib;
    bool *needed;                     /* the node depends on some x                                                       */
} Tape;

static int32_t *slot(Tape *t, Value v) { return &t->first[(size_t)v.node * MDR_MAX_OUT + (size_t)v.out]; }

static void contribute(Tape *t, Value v, Value d)
{
    if (t->n_contrib == t->cap_contrib) {
        t->cap_contrib = t->cap_contrib ? 2 * t->cap_contrib : 256;
        t->contrib = mdr_realloc(t->contrib, (size_t)t->cap_contrib * sizeof *t->contrib);
    }
    t->contrib[t->n_contrib] = (Contrib){d, *slot(t, v)};
    *slot(t, v) = ++t->n_contrib;
}

static Value add_all(Builder *b, int n, Value *v)
{
    while (n > MDR_MAX_IN) {                            /* more than one node can take: fold the head into one            */
        v[n - MDR_MAX_IN] = mdr_ir_add(b, MDR_MAX_IN, v + n - MDR_MAX_IN);
        n -= MDR_MAX_IN - 1;
    }
    return mdr_ir_add(b, n, v);
}

/* The whole gradient of v, from its contributions in the order they arrived. */
static Value total(Tape *t, Value v)
{
    int32_t n = 0, n_batch = 0, n_plain = 0;
    for (int32_t i = *slot(t, v); i; i = t->contrib[i - 1].next) n++;
    if (n == 0) return MDR_ABSENT;
    Value *all = mdr_alloc((size_t)(n * 3 + 1) * sizeof *all), *batch = all + n, *plain = batch + n;
    int32_t k = n;
    for (int32_t i = *slot(t, v); i; i = t->contrib[i - 1].next) all[--k] = t->contrib[i - 1].v;
    bool v_seq = mdr_ir_type(t->b, v).axes & MDR_AXIS_SEQ;
    for (int32_t i = 0; i < n; i++) {
        if (!v_seq && (mdr_ir_type(t->b, all[i]).axes & MDR_AXIS_SEQ)) batch[n_batch++] = all[i];
        else plain[n_plain++] = all[i];
    }
    Value r;
    if (n_batch > 0) {
        for (int32_t i = 0; i < n_batch; i += MDR_MAX_IN)
            plain[n_plain++] = mdr_ir_sum_batch(t->b, n_batch - i < MDR_MAX_IN ? n_batch - i : MDR_MAX_IN, batch + i);
    }
    r = n_plain == 1 ? plain[0] : add_all(t->b, n_plain, plain);
    mdr_free(all);
    *slot(t, v) = 0;
    contribute(t, v, r);
    return r;
}

static void mark_needed(Tape *t, int n_x, const Value *x)
{
    for (int i = 0; i < n_x; i++)
        if (mdr_ir_has(x[i])) t->needed[x[i].node] = true;
    for (int32_t i = 0; i < t->n_node; i++) {
        const Node *n = t->b->node[i];
        for (int j = 0; j < n->n_in && !t->needed[i]; j++)
            if (n->in[j].node >= 0 && t->needed[n->in[j].node]) t->needed[i] = true;
    }
}

static void back_node(Tape *t, int32_t i)
{
    Builder *b = t->b;
    const Node *n = b->node[i];
    Value out[MDR_MAX_OUT], dout[MDR_MAX_OUT], din[MDR_MAX_IN];
    bool any = false, feeds = false;
    for (int k = 0; k < n->n_in; k++) {
        din[k] = MDR_ABSENT;
        feeds = feeds || (n->in[k].node >= 0 && t->needed[n->in[k].node]);
    }
    if (!feeds) return;
    for (int k = 0; k < n->n_out; k++) {
        out[k] = (Value){i, k};
        dout[k] = *slot(t, out[k]) ? total(t, out[k]) : MDR_ABSENT;
        any = any || mdr_ir_has(dout[k]);
    }
    if (!any) return;
    b->where = n->where;
    if (!n->op->vjp) {
        mdr_ir_fail(b, mdr_ir_shape_error(n, "has no derivative (gradients are first order only)"));
        return;
    }
    n->op->vjp(b, n, n->in, out, dout, din);
    for (int k = 0; k < n->n_in && !b->err; k++) {
        if (!mdr_ir_has(din[k]) || n->in[k].node < 0 || !t->needed[n->in[k].node]) continue;
        char p[64], q[64];
        if (!mdr_shape_equal(mdr_ir_type(b, din[k]).shape, n->in_type[k].shape)) {
            mdr_ir_fail(b, mdr_ir_shape_error(n, "its derivative gives %s for input %d of shape %s",
                                              mdr_shape_text(mdr_ir_type(b, din[k]).shape, p), k,
                                              mdr_shape_text(n->in_type[k].shape, q)));
            return;
        }
        if ((n->out[0].axes & MDR_AXIS_SEQ) && n->op != &mdr_ir_op_sum_batch && !(n->in_type[k].axes & MDR_AXIS_SEQ) &&
            !(mdr_ir_type(b, din[k]).axes & MDR_AXIS_SEQ)) {
            mdr_ir_fail(b, mdr_ir_shape_error(n, "a gradient that is the same for every sequence reaches its input %d, which all "
                                                 "sequences share: give the seed the sequence axis", k));
            return;
        }
        contribute(t, n->in[k], din[k]);
    }
}

void mdr_ir_grad(Builder *b, int n_y, const Value *y, const Value *dy, int n_x, const Value *x, Value *dx)
{
    for (int i = 0; i < n_x; i++) dx[i] = MDR_ABSENT;
    if (b->err) return;
    Tape t = {.b = b, .n_node = b->n_node};
    t.first = mdr_alloc((size_t)b->n_node * MDR_MAX_OUT * sizeof *t.first);
    t.needed = mdr_alloc((size_t)b->n_node * sizeof *t.needed);
    mark_needed(&t, n_x, x);
    for (int i = 0; i < n_y; i++)
        if (mdr_ir_has(y[i]) && mdr_ir_has(dy[i])) contribute(&t, y[i], dy[i]);
    for (int32_t i = t.n_node - 1; i >= 0 && !b->err; i--)
        if (t.needed[i]) back_node(&t, i);
    for (int i = 0; i < n_x && !b->err; i++)
        if (mdr_ir_has(x[i])) dx[i] = total(&t, x[i]);
    mdr_free(t.first);
    mdr_free(t.needed);
    mdr_free(t.contrib);
}
