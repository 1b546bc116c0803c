/* conv_short: depthwise causal convolution with at most 8 taps, "tiled": output channel c reads column c mod Cx of x.
 *   y[t,c] = b[c] + sum_j w[taps-1-j, c] x[t-j, c mod Cx],  j = 0 .. min(t, taps-1)
 * Its gradients: conv_short_dx (the transpose, summed over the tiles), conv_short_dw (in sums), sum_rows for the bias.
 * Not here: long filters (conv_direct, conv_fft). Used by Hyena (Poli et al. 2023, 3 taps) and Mamba (Gu and Dao 2023, 4). */
#include "op/reference.h"

/* in: x [L, Cx], w [taps, C], b [C] or absent; out: y [L, C] */
MDR_REF(conv_short) {
    const int32_t cols_x = IN_SHAPE(0).d[1], rows = OUT_SHAPE(0).d[0], cols = OUT_SHAPE(0).d[1], taps = IN_SHAPE(1).d[0];
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *w = IN(real, 1), *bias = HAS_IN(2) ? IN(real, 2) : NULL;
        real *y = OUT(real, 0);
        for (int32_t t = 0; t < rows; t++)
            for (int32_t k = 0; k < cols; k++) {
                acc sum = bias ? (acc)bias[k] : 0.0;
                for (int32_t j = 0; j < taps && j <= t; j++)
                    sum += (acc)w[(taps - 1 - j) * LD_IN(1) + k] * (acc)x[(t - j) * LD_IN(0) + k % cols_x];
                y[t * LD_OUT(0) + k] = (real)sum;
            }
    }
}

/* in: dy [L, C], w [taps, C]; out: dx [L, Cx] */
MDR_REF(conv_short_dx) {
    const int32_t cols_x = OUT_SHAPE(0).d[1], rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1], taps = IN_SHAPE(1).d[0];
    FOR_SEQUENCES(c) {
        const real *dy = IN(real, 0), *w = IN(real, 1);
        real *dx = OUT(real, 0);
        for (int32_t t = 0; t < rows; t++)
            for (int32_t k = 0; k < cols_x; k++) {
                acc sum = 0.0;
                for (int32_t tile = k; tile < cols; tile += cols_x)
                    for (int32_t j = 0; j < taps && t + j < rows; j++)
                        sum += (acc)w[(taps - 1 - j) * LD_IN(1) + tile] * (acc)dy[(t + j) * LD_IN(0) + tile];
                dx[t * LD_OUT(0) + k] = (real)sum;
            }
    }
}

/* in: x [L, Cx], dy [L, C]; out: dw [taps, C], in sums */
MDR_REF(conv_short_dw) {
    const int32_t cols_x = IN_SHAPE(0).d[1], rows = IN_SHAPE(1).d[0], cols = IN_SHAPE(1).d[1], taps = OUT_SHAPE(0).d[0];
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *dy = IN(real, 1);
        real *dw = OUT(real, 0);
        for (int32_t j = 0; j < taps; j++)
            for (int32_t k = 0; k < cols; k++) {
                real *to = dw + (taps - 1 - j) * LD_OUT(0) + k;
                acc sum = 0.0;
                for (int32_t t = j; t < rows; t++) sum += (acc)dy[t * LD_IN(1) + k] * (acc)x[(t - j) * LD_IN(0) + k % cols_x];
                *to = ADDS(0) ? (real)((acc)*to + sum) : (real)sum;
            }
    }
}

#ifdef MDR_DECLARE
enum { MAX_TAPS = 8 };
typedef struct DxAttr { int32_t cols_x; } DxAttr;
typedef struct DwAttr { int32_t taps; } DwAttr;

static Err *shape_y(Node *n) {
    Shape x = n->in_type[0].shape, w = n->in_type[1].shape;
    char p[64], q[64];
    if (x.rank != 2 || w.rank != 2 || w.d[1] % x.d[1] != 0)
        return mdr_ir_shape_error(n, "x is %s and w %s, expected [L, Cx] and [taps, a multiple of Cx]", mdr_shape_text(x, p),
                                  mdr_shape_text(w, q));
    if (w.d[0] > MAX_TAPS) return mdr_ir_shape_error(n, "w is %s, at most %d taps are possible", mdr_shape_text(w, p), MAX_TAPS);
    if (n->in[2].node >= 0 && !mdr_shape_equal(n->in_type[2].shape, mdr_shape1(w.d[1])))
        return mdr_ir_shape_error(n, "the bias is %s, w is %s", mdr_shape_text(n->in_type[2].shape, p), mdr_shape_text(w, q));
    n->out[0].shape = mdr_shape2(x.d[0], w.d[1]);
    return NULL;
}
static Err *shape_dx(Node *n) {
    n->out[0].shape = mdr_shape2(n->in_type[0].shape.d[0], ((const DxAttr *)n->attr)->cols_x);
    return NULL;
}
static Err *shape_dw(Node *n) {
    n->out[0].shape = mdr_shape2(((const DwAttr *)n->attr)->taps, n->in_type[1].shape.d[1]);
    return NULL;
}

static Cost cost(double rows, double cols, double cols_x, double taps) {
    return (Cost){.flops = 2 * rows * cols * taps, .bytes = 4 * (rows * (cols + cols_x) + cols * taps)};
}
static Cost cost_y(const Node *n) {
    return cost(n->out[0].shape.d[0], n->out[0].shape.d[1], n->in_type[0].shape.d[1], n->in_type[1].shape.d[0]);
}
static Cost cost_dx(const Node *n) {
    return cost(n->in_type[0].shape.d[0], n->in_type[0].shape.d[1], n->out[0].shape.d[1], n->in_type[1].shape.d[0]);
}
static Cost cost_dw(const Node *n) {
    return cost(n->in_type[1].shape.d[0], n->in_type[1].shape.d[1], n->in_type[0].shape.d[1], n->out[0].shape.d[0]);
}

static const OpCase cases_dx[] = {
    {.name = "tiled", .attr = &(const DxAttr){24}, .n_in = 2, .in = {{2, {37, 96}}, {2, {3, 96}}}, .lo = -1, .hi = 1},
    {.name = "odd", .attr = &(const DxAttr){13}, .n_in = 2, .in = {{2, {11, 26}}, {2, {7, 26}}}, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_dw[] = {
    {.name = "tiled", .attr = &(const DwAttr){3}, .n_in = 2, .in = {{2, {37, 24}}, {2, {37, 96}}}, .lo = -1, .hi = 1},
    {.name = "odd", .attr = &(const DwAttr){6}, .n_in = 2, .in = {{2, {11, 13}}, {2, {11, 26}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_dx = {.name = "conv_short_dx", .equation = "dx[t,k] = sum_{c mod Cx = k} sum_j w[taps-1-j,c] dy[t+j,c]",
    .attr_size = sizeof(DxAttr), .min_in = 2, .max_in = 2, .n_out = 1, .shape = shape_dx, .cost = cost_dx, .cases = cases_dx};
static const OpDef def_dw = {.name = "conv_short_dw", .equation = "dw[taps-1-j,c] = sum_t dy[t,c] x[t-j,c mod Cx]",
    .attr_size = sizeof(DwAttr), .min_in = 2, .max_in = 2, .n_out = 1, .sums = 1, .shape = shape_dw,
    .cost = cost_dw, .cases = cases_dw};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)out;
    DxAttr dx = {n->in_type[0].shape.d[1]};
    DwAttr dw = {n->in_type[1].shape.d[0]};
    Value with_w[2] = {dout[0], in[1]}, with_x[2] = {in[0], dout[0]};
    din[0] = mdr_ir_node(b, &def_dx, &dx, 2, with_w);
    din[1] = mdr_ir_node(b, &def_dw, &dw, 2, with_x);
    if (n->in[2].node >= 0) din[2] = mdr_ir_sum_rows(b, dout[0]);
}

static const OpCase cases[] = {
    {.name = "hyena, tiled", .n_in = 3, .in = {{2, {37, 24}}, {2, {3, 96}}, {1, {96}}}, .lo = -1, .hi = 1},
    {.name = "mamba", .n_in = 3, .in = {{2, {33, 40}}, {2, {4, 40}}, {1, {40}}}, .lo = -1, .hi = 1},
    {.name = "no bias, shared weights", .n_in = 3, .in = {{2, {20, 16}}, {2, {3, 32}}, {0, {0}}},
     .in_axes = {0, 1 + MDR_AXIS_MEMBER, 0}, .lo = -1, .hi = 1},
    {.name = "odd columns", .n_in = 3, .in = {{2, {19, 13}}, {2, {2, 39}}, {1, {39}}}, .lo = -1, .hi = 1},
    {.name = "eight taps, fewer rows", .n_in = 3, .in = {{2, {5, 9}}, {2, {8, 9}}, {1, {9}}}, .lo = -1, .hi = 1},
    {.name = "one tap, one row", .n_in = 3, .in = {{2, {1, 3}}, {2, {1, 6}}, {1, {6}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "conv_short", .equation = "y[t,c] = b[c] + sum_j w[taps-1-j,c] x[t-j,c mod Cx]",
    .min_in = 3, .max_in = 3, .n_out = 1, .optional = 1u << 2, .shape = shape_y, .vjp = vjp, .cost = cost_y, .cases = cases};

Value mdr_op_conv_short(Builder *b, Value x, Value w, Value bias) {
    Value in[3] = {x, w, bias};
    return mdr_ir_node(b, &def, NULL, 3, in);
}

const OpRow mdr_op_rows_conv_short[] = {{&def, MDR_REFS(conv_short)},
                                        {&def_dx, MDR_REFS(conv_short_dx)},
                                        {&def_dw, MDR_REFS(conv_short_dw)},
                                        {0}};
#endif
