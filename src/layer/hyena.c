/* hyena: gated long convolution with an implicit filter (Poli et al. 2023, arXiv 2302.10866), order 2, as mad-lab builds it.
 *   x1, x2, v = conv_short(tile(x Win));   u = v * x2;   y = ((h conv u) + bias * u) * x1 Wout
 * h is made of parameters alone, once a step: a trained table of positions (initialised to t, cos, -sin) goes through three
 * linear maps with sin(freq * .) after each, a last one without bias, and a fixed window exp(-t |delta|) of each channel's own
 * length. The in-projection is 1/proj_groups as wide as the convolution's channels and is repeated. No step: the filter
 * remembers everything. Not here: orders above 2, heads (mh-hyena). */
#include "layer/layer.h"
#include "base/real_math.h"

typedef struct HyenaParams { int32_t inner_factor, proj_groups, short_order, filter_order; } HyenaParams;
static const Param params[] = {
    {"inner_factor", MDR_INT, offsetof(HyenaParams, inner_factor), 4, 1, 64, NULL, "channels of the long convolution, in widths of the model"},
    {"proj_groups", MDR_INT, offsetof(HyenaParams, proj_groups), 4, 1, 192, NULL, "times the in-projection is repeated"},
    {"short_filter_order", MDR_INT, offsetof(HyenaParams, short_order), 3, 1, 8, NULL, "taps of the short convolution"},
    {"filter_order", MDR_INT, offsetof(HyenaParams, filter_order), 4, 1, 1024, NULL, "width of the network that makes the filter"},
    {0}};
enum { FEATURES = 3, INNER_MAPS = 3 };                /* t, cos, sin; maps with a sine behind them                         */

static Err *check(const void *params_, int32_t dim, int32_t max_length) {
    const HyenaParams *p = params_;
    (void)max_length;
    int64_t width = 3 * (int64_t)p->inner_factor * dim;
    if (width > INT32_MAX / 64) return MDR_ERR_USER("`inner_factor` is %d: too wide for a model of width %d", p->inner_factor, dim);
    if (width % p->proj_groups != 0)
        return MDR_ERR_USER("`proj_groups` is %d, which does not divide the %d channels", p->proj_groups, (int)width);
    return NULL;
}

static Value position_table(LayerContext *c) {
    const double turn = 6.283185307179586;
    int32_t n = c->max_length;
    double *z = mdr_alloc((size_t)n * FEATURES * sizeof *z);
    for (int32_t i = 0; i < n; i++) {
        double sn, cs;
        d_sincos(1e-4 * turn * i / n, &sn, &cs);
        z[i * FEATURES] = n > 1 ? (double)i / (n - 1) : 0.0;
        z[i * FEATURES + 1] = cs;
        z[i * FEATURES + 2] = -sn;
    }
    Value v = mdr_layer_param(c, "filter.positions", mdr_shape2(n, FEATURES), (Init){INIT_TABLE, 0, 0, z});
    mdr_free(z);
    return v;
}

/* Decay per channel, from ln(.01)/1.5 (slow) to ln(.01)/.3 over the longest sequence. */
static Value window(LayerContext *c, int32_t channels) {
    double *w = mdr_alloc((size_t)c->length * (size_t)channels * sizeof *w);
    const double slow = d_log(0.01) / 1.5, fast = d_log(0.01) / 0.3;
    for (int32_t i = 0; i < c->length; i++)
        for (int32_t k = 0; k < channels; k++) {
            double delta = channels > 1 ? slow + (fast - slow) * k / (channels - 1) : slow;
            w[(int64_t)i * channels + k] = d_exp((c->max_length > 1 ? (double)i / (c->max_length - 1) : 0.0) * delta);
        }
    Value v = mdr_ir_const(c->b, mdr_shape2(c->length, channels), w);
    mdr_free(w);
    return v;
}

static Value filter(LayerContext *c, int32_t channels) {
    static const char *const map[INNER_MAPS] = {"filter.map1", "filter.map2", "filter.map3"};
    int32_t width = ((const HyenaParams *)c->params)->filter_order;
    Value h = mdr_ir_rows(c->b, position_table(c), 0, c->length);
    Value freq = mdr_layer_param(c, "filter.freq", mdr_shape1(width), (Init){INIT_CONST, 1.0, 0, NULL});
    for (int i = 0; i < INNER_MAPS; i++)
        h = mdr_op_unary(c->b, UN_SIN, 0.0, mdr_op_mul(c->b, mdr_layer_linear(c, map[i], h, width, true), freq));
    return mdr_op_mul(c->b, mdr_layer_linear(c, "filter.out", h, channels, false), window(c, channels));
}

static Value build(LayerContext *c, Value x) {
    const HyenaParams *p = c->params;
    int32_t channels = p->inner_factor * c->dim;
    const int32_t third[3] = {channels, channels, channels};
    double reach = 1.0 / sqrt((double)p->short_order);
    Value w = mdr_layer_param(c, "short.weight", mdr_shape2(p->short_order, 3 * channels), (Init){INIT_UNIFORM, -reach, reach, NULL});
    Value b = mdr_layer_param(c, "short.bias", mdr_shape1(3 * channels), (Init){INIT_UNIFORM, -reach, reach, NULL});
    Value part[3];
    Value z = mdr_layer_linear(c, "in", x, 3 * channels / p->proj_groups, true);
    mdr_ir_split(c->b, mdr_op_conv_short(c->b, z, w, b), 3, third, part);
    Value u = mdr_op_mul(c->b, part[2], part[1]);
    Value skip = mdr_layer_param(c, "bias", mdr_shape1(channels), (Init){INIT_NORMAL, 1.0, 0, NULL});
    Value y = mdr_ir_has(u) ? mdr_op_conv_long(c->b, u, filter(c, channels)) : MDR_ABSENT;
    y = mdr_op_gated_skip(c->b, y, u, skip, part[0]);
    return mdr_layer_linear(c, "out", y, c->dim, true);
}

static int64_t state(const void *params_, int32_t dim, int32_t length) {
    const HyenaParams *p = params_;
    (void)length;
    return (int64_t)p->inner_factor * dim * p->filter_order;
}

const LayerDef mdr_layers_hyena[] = {
    {.name = "hyena", .help = "gated long convolution with an implicit filter (Poli et al. 2023, arXiv 2302.10866)", .params = params,
     .params_size = sizeof(HyenaParams), .mixes = true, .check = check, .build = build, .state = state},
    {0}};
