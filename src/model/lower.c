/* Lowering a forward graph for a device, adding the gradient of every parameter, fusing. Lowering comes first: a composed op is
 * differentiated through its composition and never meets the gradient op of its fused form; fusing last: it finds both directions. */
#include "model/model.h"

static Err *add_gradients(Builder *b, const Graph *forward, const CopyMap *map) {
    int32_t n = mdr_ir_params(forward, NULL, 0);
    int32_t *node = mdr_alloc((size_t)n * sizeof *node + 1);
    Value *x = mdr_alloc((size_t)n * 2 * sizeof *x + 1), *dx = x + n;
    mdr_ir_params(forward, node, n);
    for (int32_t i = 0; i < n; i++) x[i] = mdr_ir_copied(map, (Value){node[i], 0});
    /* What is differentiated is the loss of one sequence, before its sum over the batch. */
    Value one_loss = mdr_ir_copied(map, forward->node[forward->output[0].node].in[0]);
    double one = 1.0;
    Value seed = mdr_ir_const(b, mdr_shape1(1), &one);
    mdr_ir_grad(b, 1, &one_loss, &seed, n, x, dx);
    Err *e = NULL;
    for (int32_t i = 0; i < n && !e && !mdr_ir_failed(b); i++) {
        if (!mdr_ir_has(dx[i]))
            e = MDR_ERR_USER("the parameter `%s` has no influence on the loss", ((const ParamAttr *)forward->node[node[i]].attr)->name);
        else
            mdr_ir_output(b, dx[i]);
    }
    mdr_free(node);
    mdr_free(x);
    return e;
}

Err *mdr_model_lower(const Graph *forward, HasOp *has, FuseOps *fuse, void *ctx, bool with_grad, Graph **out) {
    *out = NULL;
    Builder *b = mdr_ir_builder();
    CopyMap map = {mdr_alloc((size_t)forward->n_node * sizeof *map.out + 1)};
    mdr_ir_copy(b, forward, has, ctx, &map);
    Err *e = NULL;
    if (!mdr_ir_failed(b)) {
        const int32_t n = with_grad ? 1 : forward->n_output;          /* a training step has no use for scores                */
        for (int32_t i = 0; i < n; i++) mdr_ir_output(b, mdr_ir_copied(&map, forward->output[i]));
        if (with_grad) e = add_gradients(b, forward, &map);
        if (fuse && !e) fuse(b, ctx);
    }
    mdr_free(map.out);
    if (e) {
        mdr_ir_builder_free(b);
        return e;
    }
    return mdr_ir_finish(b, out);
}
