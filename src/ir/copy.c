/* Copying a graph onto a Builder, with ops that a device lacks replaced by their composition (lowering). A composition is built
 * in a Builder of its own and copied in turn, so compositions of compositions need no care. */
#include "ir/internal.h"
#include <string.h>

Value mdr_ir_copied(const CopyMap *map, Value v) { return v.node < 0 ? MDR_ABSENT : map->out[v.node][v.out]; }

static void map_outputs(CopyMap *map, int32_t node, int n_out, Value first)
{
    for (int k = 0; k < n_out; k++) map->out[node][k] = mdr_ir_out(first, k);
}

static void copy_composed(Builder *b, const Node *n, HasOp *has, void *ctx, const Value *in, Value *out)
{
    Builder *s = mdr_ir_builder();
    Value inner[MDR_MAX_IN], made[MDR_MAX_OUT];
    Value bound[MDR_MAX_IN];
    int n_bound = 0;
    s->where = mdr_arena_strdup(s->arena, n->where);
    for (int i = 0; i < n->n_in; i++) {
        inner[i] = MDR_ABSENT;
        if (!mdr_ir_has(n->in[i])) continue;
        inner[i] = mdr_ir_input(s, "x", n->in_type[i].shape, n->in_type[i].dtype, n->in_type[i].axes);
        bound[n_bound++] = in[i];
    }
    for (int k = 0; k < n->n_out; k++) made[k] = MDR_ABSENT;
    n->op->compose(s, n, inner, made);
    for (int k = 0; k < n->n_out; k++)
        if (mdr_ir_has(made[k])) mdr_ir_output(s, made[k]);
    Graph *g = NULL;
    Err *e = mdr_ir_finish(s, &g);
    if (e) { mdr_ir_fail(b, e); return; }
    CopyMap map = {mdr_alloc((size_t)g->n_node * sizeof *map.out + 1)};
    mdr_ir_copy_bound(b, g, has, ctx, bound, &map);
    for (int k = 0, o = 0; k < n->n_out; k++) out[k] = mdr_ir_has(made[k]) ? mdr_ir_copied(&map, g->output[o++]) : MDR_ABSENT;
    mdr_free(map.out);
    mdr_ir_graph_free(g);
}

static Graph *lowered_body(Builder *b, const Graph *body, HasOp *has, void *ctx);
static bool has_all(const OpDef *op, void *ctx) { (void)op; (void)ctx; return true; }

Graph *mdr_ir_clone(const Graph *g)
{
    Builder *s = mdr_ir_builder();
    Graph *out = lowered_body(s, g, has_all, NULL);
    mdr_ir_builder_free(s);
    return out;
}

static Graph *lowered_body(Builder *b, const Graph *body, HasOp *has, void *ctx)
{
    Builder *s = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)body->n_node * sizeof *map.out + 1)};
    Graph *g = NULL;
    mdr_ir_copy(s, body, has, ctx, &map);
    for (int32_t i = 0; i < body->n_output; i++) mdr_ir_output(s, mdr_ir_copied(&map, body->output[i]));
    Err *e = mdr_ir_finish(s, &g);
    if (e) mdr_ir_fail(b, e);
    mdr_free(map.out);
    return g;
}

void mdr_ir_copy_bound(Builder *b, const Graph *g, HasOp *has, void *ctx, const Value *bound, CopyMap *map)
{
    for (int32_t i = 0; i < g->n_node && !b->err; i++) {
        const Node *n = &g->node[i];
        Value in[MDR_MAX_IN];
        for (int k = 0; k < n->n_in; k++) in[k] = mdr_ir_copied(map, n->in[k]);
        b->where = mdr_arena_strdup(b->arena, n->where);
        if (n->op == &mdr_ir_op_input && bound) {
            map->out[i][0] = bound[((const InputAttr *)n->attr)->index];
        } else if (n->op == &mdr_ir_op_input) {
            const InputAttr *a = n->attr;
            map->out[i][0] = mdr_ir_input(b, a->name, a->shape, (DType)a->dtype, (unsigned)a->axes);
        } else if (n->op == &mdr_ir_op_param) {
            const ParamAttr *a = n->attr;
            map->out[i][0] = mdr_ir_param(b, a->name, a->shape, a->init);
        } else if (n->op == &mdr_ir_op_const) {
            const ConstAttr *a = n->attr;
            map->out[i][0] = mdr_ir_const(b, a->shape, a->data);
        } else if (n->op == &mdr_ir_op_scan) {
            Graph *body = lowered_body(b, n->body, has, ctx);
            if (body) map_outputs(map, i, n->n_out, mdr_ir_node_bodies(b, n->op, n->attr, n->n_in, in, body, NULL));
        } else if (n->op == &mdr_ir_op_scan_grad) {
            mdr_ir_fail(b, mdr_ir_shape_error(n, "cannot be copied: lower a graph before its gradient is taken"));
        } else if (has(n->op, ctx)) {
            map_outputs(map, i, n->n_out, mdr_ir_node(b, n->op, n->attr, n->n_in, in));
        } else if (n->op->compose) {
            copy_composed(b, n, has, ctx, in, map->out[i]);
        } else {
            mdr_ir_fail(b, mdr_ir_shape_error(n, "this device has no kernel for it and it has no composition"));
        }
    }
}

void mdr_ir_copy(Builder *b, const Graph *g, HasOp *has, void *ctx, CopyMap *map)
{
    mdr_ir_copy_bound(b, g, has, ctx, NULL, map);
}
