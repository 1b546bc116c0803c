/* mlp: the two-layer perceptron of the Transformer (Vaswani et al. 2017) with the tanh form of GELU (Hendrycks and Gimpel 2016):
 *   y = gelu(x W1) W2.   Each position alone; remembers nothing. */
#include "layer/layer.h"

typedef struct MlpParams { int32_t dim_inner, bias; } MlpParams;
static const Param params[] = {
    {"dim_inner", MDR_INT, offsetof(MlpParams, dim_inner), 0, 0, 1 << 20, NULL, "inner width; 0 = four times the model's"},
    {"bias", MDR_BOOL, offsetof(MlpParams, bias), 0, 0, 1, NULL, "both linear maps have a bias"},
    {0}};

static Value build(LayerContext *c, Value x) {
    const MlpParams *p = c->params;
    int32_t inner = p->dim_inner ? p->dim_inner : 4 * c->dim;
    Value h = mdr_op_unary(c->b, UN_GELU_TANH, 0.0, mdr_layer_linear(c, "in", x, inner, p->bias));
    return mdr_layer_linear(c, "out", h, c->dim, p->bias);
}
static Value step(LayerContext *c, Value x, Value t, const Value *carry, Value *next) {
    (void)t; (void)carry; (void)next;
    return build(c, x);
}

const LayerDef mdr_layers_mlp[] = {
    {.name = "mlp", .help = "two-layer perceptron with GELU (Vaswani et al. 2017, arXiv 1706.03762)", .params = params,
     .params_size = sizeof(MlpParams), .build = build, .step = step},
    {0}};
