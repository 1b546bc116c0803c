/* conv_direct: causal long convolution, one filter a channel, by direct products.
 *   y[t,c] = sum_{s<=t} h[t-s, c] u[s, c];   anticausal, its transpose:  y[t,c] = sum_{s>=t} h[s-t, c] u[s, c]
 * The gradient of u is the transpose; that of h is conv_direct_dh (in sums):  dh[j,c] = sum_{t>=j} dy[t,c] u[t-j,c].
 * Not here: the FFT (conv_fft), which overtakes it from a few hundred rows, and filters of a few taps (conv_short).
 * Used by Hyena (Poli et al. 2023). */
#include "op/reference.h"

/* in: u, h [L, C]; out: y [L, C] */
MDR_REF(conv_direct) {
    const int32_t rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1];
    const bool anticausal = ((const ConvAttr *)c->node->attr)->anticausal;
    FOR_SEQUENCES(c) {
        const real *u = IN(real, 0), *h = IN(real, 1);
        real *y = OUT(real, 0);
        for (int32_t t = 0; t < rows; t++)
            for (int32_t k = 0; k < cols; k++) {
                acc sum = 0.0;
                for (int32_t i = anticausal ? t : 0; i < (anticausal ? rows : t + 1); i++)
                    sum += (acc)h[(anticausal ? i - t : t - i) * LD_IN(1) + k] * (acc)u[i * LD_IN(0) + k];
                y[t * LD_OUT(0) + k] = (real)sum;
            }
    }
}

/* in: u, dy [L, C]; out: dh [L, C], in sums */
MDR_REF(conv_direct_dh) {
    const int32_t rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1];
    FOR_SEQUENCES(c) {
        const real *u = IN(real, 0), *dy = IN(real, 1);
        real *dh = OUT(real, 0);
        for (int32_t j = 0; j < rows; j++)
            for (int32_t k = 0; k < cols; k++) {
                real *to = dh + j * LD_OUT(0) + k;
                acc sum = 0.0;
                for (int32_t t = j; t < rows; t++) sum += (acc)dy[t * LD_IN(1) + k] * (acc)u[(t - j) * LD_IN(0) + k];
                *to = ADDS(0) ? (real)((acc)*to + sum) : (real)sum;
            }
    }
}

#ifdef MDR_DECLARE
static Err *shape(Node *n) {
    Shape a = n->in_type[0].shape, b = n->in_type[1].shape;
    char p[64], q[64];
    if (a.rank != 2 || !mdr_shape_equal(a, b))
        return mdr_ir_shape_error(n, "its inputs are %s and %s, expected [L, C] twice", mdr_shape_text(a, p),
                                  mdr_shape_text(b, q));
    n->out[0].shape = a;
    return NULL;
}

/* The products really made: one for each pair s <= t. */
static Cost cost(const Node *n) {
    double rows = n->in_type[0].shape.d[0], cols = n->in_type[0].shape.d[1];
    return (Cost){.flops = rows * (rows + 1) * cols, .bytes = 3 * 4 * rows * cols};
}

static const OpCase cases_dh[] = {
    {.name = "odd", .n_in = 2, .in = {{2, {37, 13}}, {2, {37, 13}}}, .lo = -1, .hi = 1},
    {.name = "one row", .n_in = 2, .in = {{2, {1, 3}}, {2, {1, 3}}}, .lo = -1, .hi = 1},
    {.name = "whole blocks", .n_in = 2, .in = {{2, {64, 32}}, {2, {64, 32}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_dh = {.name = "conv_direct_dh", .equation = "dh[j,c] = sum_{t>=j} dy[t,c] u[t-j,c]", .min_in = 2,
    .max_in = 2, .n_out = 1, .sums = 1, .shape = shape, .cost = cost, .cases = cases_dh};

static const OpDef def;
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)out;
    const bool anticausal = ((const ConvAttr *)n->attr)->anticausal;
    const ConvAttr turned = {!anticausal};
    Value with_h[2] = {dout[0], in[1]}, both[2] = {anticausal ? dout[0] : in[0], anticausal ? in[0] : dout[0]};
    din[0] = mdr_ir_node(b, &def, &turned, 2, with_h);
    din[1] = mdr_ir_node(b, &def_dh, NULL, 2, both);
}

enum { SHARED = 1 + MDR_AXIS_MEMBER };
static const OpCase cases[] = {
    {.name = "causal", .attr = &(const ConvAttr){0}, .n_in = 2, .in = {{2, {37, 24}}, {2, {37, 24}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "anticausal, odd", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {29, 13}}, {2, {29, 13}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "a filter a sequence", .attr = &(const ConvAttr){0}, .n_in = 2, .in = {{2, {16, 8}}, {2, {16, 8}}},
     .lo = -1, .hi = 1},
    {.name = "one row", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {1, 3}}, {2, {1, 3}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "conv_direct", .equation = "y[t,c] = sum_{s<=t} h[t-s,c] u[s,c]",
    .attr_size = sizeof(ConvAttr), .min_in = 2, .max_in = 2, .n_out = 1, .shape = shape, .vjp = vjp, .cost = cost,
    .cases = cases};

Value mdr_op_conv_direct(Builder *b, Value u, Value h) {
    const ConvAttr a = {0};
    Value in[2] = {u, h};
    return mdr_ir_node(b, &def, &a, 2, in);
}

const OpRow mdr_op_rows_conv_direct[] = {{&def, MDR_REFS(conv_direct)}, {&def_dh, MDR_REFS(conv_direct_dh)}, {0}};
#endif
