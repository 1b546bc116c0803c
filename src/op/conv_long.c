/* conv_long: the causal long convolution a layer calls, one filter a channel.
 *   y[t,c] = sum_{s<=t} h[t-s, c] u[s, c];   anticausal, its transpose:  y[t,c] = sum_{s>=t} h[s-t, c] u[s, c]
 * It has no kernel of its own but on GPUs (conv_long.cu: products on tensor cores, of any length). Everywhere else lowering replaces it
 * by what is fastest there: direct products (conv_direct) below MDR_CONV_FFT_FROM rows, FFT (conv_fft) from there; and because
 * lowering comes before autodiff, its gradient ops run on GPUs only: conv_long itself, turned, for u, and conv_long_dh (in sums)
 *   dh[j,c] = sum_{t>=j} dy[t,c] u[t-j,c]
 * whose reference is that of conv_direct_dh, the same sum. Used by Hyena (Poli et al. 2023). */
#include "op/reference.h"
#include "op/fft.h"

#ifdef MDR_DECLARE
KernelFn conv_direct_dh_f32, conv_direct_dh_f64;      /* conv_direct.c                                                    */

static bool is_short(const Node *n) { return n->in_type[0].shape.d[0] < MDR_CONV_FFT_FROM; }

static Err *shape(Node *n)
{
    Shape a = n->in_type[0].shape, b = n->in_type[1].shape;
    char p[64], q[64];
    if (a.rank != 2 || !mdr_shape_equal(a, b))
        return mdr_ir_shape_error(n, "its inputs are %s and %s, expected [L, C] twice", mdr_shape_text(a, p), mdr_shape_text(b, q));
    n->out[0].shape = a;
    return NULL;
}

/* Counted as what a CPU makes of it, whatever a GPU does: a spec's count does not depend on the device. */
static Cost cost(const Node *n) { return mdr_op_def(is_short(n) ? "conv_direct" : "conv_fft")->cost(n); }
static Cost cost_dh(const Node *n) { return mdr_op_def(is_short(n) ? "conv_direct_dh" : "conv_fft_dh")->cost(n); }

enum { SHARED = 1 + MDR_AXIS_MEMBER };
static const OpCase cases_dh[] = {
    {.name = "odd", .n_in = 2, .in = {{2, {37, 13}}, {2, {37, 13}}}, .lo = -1, .hi = 1},
    {.name = "one row", .n_in = 2, .in = {{2, {1, 3}}, {2, {1, 3}}}, .lo = -1, .hi = 1},
    {.name = "columns by 8", .n_in = 2, .in = {{2, {141, 24}}, {2, {141, 24}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_dh = {.name = "conv_long_dh", .equation = "dh[j,c] = sum_{t>=j} dy[t,c] u[t-j,c]", .min_in = 2,
    .max_in = 2, .n_out = 1, .sums = 1, .shape = shape, .cost = cost_dh, .cases = cases_dh};

static const OpDef def;
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)out;
    const bool anticausal = ((const ConvAttr *)n->attr)->anticausal;
    const ConvAttr turned = {!anticausal};
    Value with_h[2] = {dout[0], in[1]}, both[2] = {anticausal ? dout[0] : in[0], anticausal ? in[0] : dout[0]};
    din[0] = mdr_ir_node(b, &def, &turned, 2, with_h);
    din[1] = mdr_ir_node(b, &def_dh, NULL, 2, both);
}
static void compose(Builder *b, const Node *n, const Value *in, Value *out)
{
    const ConvAttr direct = *(const ConvAttr *)n->attr;
    const FftAttr fft = {direct.anticausal};
    if (is_short(n)) {
        out[0] = mdr_ir_node(b, mdr_op_def("conv_direct"), &direct, 2, in);
    } else {
        Value with[2] = {in[0], mdr_ir_node(b, mdr_op_def("spectrum"), NULL, 1, &in[1])};
        out[0] = mdr_ir_node(b, mdr_op_def("conv_fft"), &fft, 2, with);
    }
}

static const OpCase cases[] = {
    {.name = "causal", .attr = &(const ConvAttr){0}, .n_in = 2, .in = {{2, {37, 24}}, {2, {37, 24}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "anticausal, odd", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {29, 13}}, {2, {29, 13}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "anticausal, columns by 8", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {141, 16}}, {2, {141, 16}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "long", .attr = &(const ConvAttr){0}, .n_in = 2, .in = {{2, {263, 8}}, {2, {263, 8}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "long, anticausal, odd", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {257, 3}}, {2, {257, 3}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "a filter a sequence", .attr = &(const ConvAttr){0}, .n_in = 2, .in = {{2, {16, 8}}, {2, {16, 8}}}, .lo = -1, .hi = 1},
    {.name = "one row", .attr = &(const ConvAttr){1}, .n_in = 2, .in = {{2, {1, 3}}, {2, {1, 3}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "conv_long", .equation = "y[t,c] = sum_{s<=t} h[t-s,c] u[s,c]", .attr_size = sizeof(ConvAttr),
    .min_in = 2, .max_in = 2, .n_out = 1, .shape = shape, .vjp = vjp, .compose = compose, .cost = cost, .cases = cases};

Value mdr_op_conv_long(Builder *b, Value u, Value h)
{
    const ConvAttr a = {0};
    Value in[2] = {u, h};
    return mdr_ir_node(b, &def, &a, 2, in);
}

const OpRow mdr_op_rows_conv_long[] = {{&def, {0}, {0}}, {&def_dh, {.run = conv_direct_dh_f32}, {.run = conv_direct_dh_f64}}, {0}};
#endif
