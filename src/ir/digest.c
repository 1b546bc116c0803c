/* A graph's digest: a hash of all that decides what it computes (ops, attributes, shapes, who reads whom, how parameters start), and of
 * nothing that does not (labels; the order of nodes, which compilers choose where calls are arguments of one call). A layer whose code
 * changes builds another graph, and so its trials get other keys. Kernels are not seen. */
#include "ir/ir.h"

static void real(Text *t, double v)
{
    char buf[32];
    mdr_text_printf(t, " %s", mdr_text_real(v, buf));
}
/* As kernels get them: in the last bits of a double libraries of mathematics may differ. */
static void table(Text *t, const double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float f = (float)v[i];
        mdr_text_add(t, (const char *)&f, sizeof f);
    }
}
static void shape(Text *t, Shape s)
{
    char buf[64];
    mdr_text_printf(t, " %s", mdr_shape_text(s, buf));
}

/* Attributes with pointers or padding field by field; sizes of split and reshape stand in the shapes of outputs. */
static void attribute(Text *t, const Node *n)
{
    if (n->op == &mdr_ir_op_param) {
        const ParamAttr *a = n->attr;
        mdr_text_printf(t, " %s %d", a->name, (int)a->init.kind);
        real(t, a->init.a);
        real(t, a->init.b);
        if (a->init.kind == INIT_TABLE) table(t, a->init.table, mdr_numel(a->shape));
    } else if (n->op == &mdr_ir_op_input) {
        mdr_text_printf(t, " %s %d", ((const InputAttr *)n->attr)->name, ((const InputAttr *)n->attr)->index);
    } else if (n->op == &mdr_ir_op_const) {
        const ConstAttr *a = n->attr;
        table(t, a->data, mdr_numel(a->shape));
    } else if (n->op == &mdr_ir_op_rows || n->op == &mdr_ir_op_pad_rows) {
        mdr_text_printf(t, " %d", ((const RowsAttr *)n->attr)->start);
    } else if (n->op == &mdr_ir_op_expand) {
        mdr_text_printf(t, " %d", ((const ExpandAttr *)n->attr)->trailing);
    } else if (n->op == &mdr_ir_op_scan || n->op == &mdr_ir_op_scan_grad) {
        const ScanAttr *a = n->attr;
        mdr_text_printf(t, " %d %d %d %d %d %d %d", a->n_carry, a->n_xs, a->n_const, a->n_ys, a->chunk, a->length, a->reverse);
    } else if (n->op != &mdr_ir_op_split && n->op != &mdr_ir_op_reshape) {
        mdr_text_add(t, n->attr, n->op->attr_size);
    }
}
/* A node's hash is of itself and of its inputs' hashes: it says all about the values that it makes. */
static void node(const Node *n, char (*of)[65], char hex[65])
{
    Text t = {0};
    mdr_text_printf(&t, "%s", n->op->name);
    for (int k = 0; k < n->n_in; k++) mdr_text_printf(&t, " %s.%d", n->in[k].node < 0 ? "absent" : of[n->in[k].node], n->in[k].out);
    for (int k = 0; k < n->n_out; k++) {
        shape(&t, n->out[k].shape);
        mdr_text_printf(&t, " %d %d", (int)n->out[k].dtype, n->out[k].axes);
    }
    attribute(&t, n);
    if (n->body) {
        char body[65];
        mdr_ir_digest(n->body, body);
        mdr_text_printf(&t, " %s", body);
    }
    mdr_sha256(t.s, t.n, hex);
    mdr_text_free(&t);
}

void mdr_ir_digest(const Graph *g, char hex[65])
{
    char (*of)[65] = mdr_alloc((size_t)g->n_node * sizeof *of + 1);
    Text t = {0};
    for (int32_t i = 0; i < g->n_node; i++) node(&g->node[i], of, of[i]);
    for (int32_t i = 0; i < g->n_output; i++) {
        const Value v = g->output[i];
        mdr_text_printf(&t, "%s.%d\n", v.node < 0 ? "absent" : of[v.node], v.out);
    }
    mdr_sha256(mdr_text_str(&t), t.n, hex);
    mdr_text_free(&t);
    mdr_free(of);
}
