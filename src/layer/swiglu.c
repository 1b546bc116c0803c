/* swiglu: gated linear unit with a swish gate (Shazeer 2020):   y = (silu(x Wg) * (x Wu)) Wd.
 * The inner width is, unless given, 2/3 of four times the model's, rounded up to a multiple of 16: 352 at width 128. Gate and up
 * projections are one matrix, gate first. Each position alone; remembers nothing. */
#include "layer/layer.h"

typedef struct SwigluParams { int32_t dim_inner, bias; } SwigluParams;
static const Param params[] = {
    {"dim_inner", MDR_INT, offsetof(SwigluParams, dim_inner), 0, 0, 1 << 20, NULL,
     "inner width; 0 = 8/3 of the model's, rounded up to a multiple of 16 (352 at width 128)"},
    {"bias", MDR_BOOL, offsetof(SwigluParams, bias), 0, 0, 1, NULL, "the linear maps have a bias"},
    {0}};

static Value build(LayerContext *c, Value x) {
    const SwigluParams *p = c->params;
    int32_t inner = p->dim_inner ? p->dim_inner : (8 * c->dim / 3 + 15) / 16 * 16;
    Value h = mdr_op_swiglu_act(c->b, mdr_layer_linear(c, "gate_up", x, 2 * inner, p->bias));
    return mdr_layer_linear(c, "down", h, c->dim, p->bias);
}
static Value step(LayerContext *c, Value x, Value t, const Value *carry, Value *next) {
    (void)t; (void)carry; (void)next;
    return build(c, x);
}

const LayerDef mdr_layers_swiglu[] = {
    {.name = "swiglu", .help = "gated linear unit with a swish gate (Shazeer 2020, arXiv 2002.05202)", .params = params,
     .params_size = sizeof(SwigluParams), .build = build, .step = step},
    {0}};
