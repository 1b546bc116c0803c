/* matmul: y = x w (+ b), and matmul_tn: z = x^T y, which is the gradient of w. Both are each other's gradients, so everything
 * linear in this program comes down to them. Heads, convolutions and attention are not here.
 *   matmul     y[i, n] = b[n] + sum_k x[i, k] w[k, n]      w [K, N], or [N, K] with attr.transposed (no copy is made)
 *   matmul_tn  z[k, n] = sum_i x[i, k] y[i, n]             in sums: over all sequences of a slice where asked
 * The references sum in double, one chain an element in the order of k (of the rows), from the bias (from what z holds) and round once;
 * the fast kernels (matmul.cpu.c, matmul_tn.cpu.c) keep the order and sum in float. */
#include "op/reference.h"

enum { WIDE = 32 };                   /* columns summed at once                                                           */

/* in: x [.., K], w, b [N] or absent; out: y [.., N] */
MDR_REF(matmul) {
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0)), inner = mdr_cols(IN_SHAPE(0));
    const bool transposed = ((const MatmulAttr *)c->node->attr)->transposed != 0;
    const int64_t step_k = transposed ? 1 : LD_IN(1), step_n = transposed ? LD_IN(1) : 1;
    FOR_SEQUENCES(c) {
        const real *x = IN(real, 0), *w = IN(real, 1), *bias = HAS_IN(2) ? IN(real, 2) : NULL;
        real *y = OUT(real, 0);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t n0 = 0, wide; n0 < cols; n0 += wide) {
                acc sum[WIDE];
                wide = cols - n0 < WIDE ? cols - n0 : WIDE;
                for (int64_t j = 0; j < wide; j++) sum[j] = bias ? (acc)bias[n0 + j] : 0.0;
                for (int64_t k = 0; k < inner; k++) {
                    const acc v = (acc)x[i * LD_IN(0) + k];
                    const real *row = w + k * step_k + n0 * step_n;
                    for (int64_t j = 0; j < wide; j++) sum[j] += v * (acc)row[j * step_n];
                }
                for (int64_t j = 0; j < wide; j++) y[i * LD_OUT(0) + n0 + j] = (real)sum[j];
            }
    }
}

/* Columns [n0, n0 + wide) of row k of one member's z, over the sequences [s0, s1). */
static void sum_rows_of(const Call *c, int32_t m, int32_t s0, int32_t s1, int64_t k, int64_t n0, int64_t wide, acc *sum) {
    const int64_t rows = mdr_rows(IN_SHAPE(0));
    for (int32_t s = s0; s < s1; s++) {
        const real *x = IN(real, 0), *y = IN(real, 1);
        for (int64_t i = 0; i < rows; i++) {
            const acc v = (acc)x[i * LD_IN(0) + k];
            for (int64_t j = 0; j < wide; j++) sum[j] += v * (acc)y[i * LD_IN(1) + n0 + j];
        }
    }
}

/* in: x [.., K], y [.., N]; out: z [K, N] */
MDR_REF(matmul_tn) {
    (void)unit0; (void)unit1;
    const int64_t inner = OUT_SHAPE(0).d[0], cols = OUT_SHAPE(0).d[1];
    const int32_t n_seq = c->extent.n_seq, together = ADDS(0) ? n_seq : 1;
    for (int32_t m = 0; m < c->extent.n_member; m++)
        for (int32_t s = 0; s < n_seq; s += together) {
            real *z = OUT(real, 0);
            for (int64_t k = 0; k < inner; k++)
                for (int64_t n0 = 0, wide; n0 < cols; n0 += wide) {
                    acc sum[WIDE];
                    real *to = z + k * LD_OUT(0) + n0;
                    wide = cols - n0 < WIDE ? cols - n0 : WIDE;
                    for (int64_t j = 0; j < wide; j++) sum[j] = ADDS(0) ? (acc)to[j] : 0.0;
                    sum_rows_of(c, m, s, s + together, k, n0, wide, sum);
                    for (int64_t j = 0; j < wide; j++) to[j] = (real)sum[j];
                }
        }
}

#ifdef MDR_DECLARE
static Err *all_real(const Node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].node >= 0 && n->in_type[i].dtype != DT_REAL) return mdr_ir_shape_error(n, "input %d is not real", i);
    return NULL;
}

static Err *shape_y(Node *n) {
    const Shape x = n->in_type[0].shape, w = n->in_type[1].shape, bias = n->in_type[2].shape;
    const int32_t transposed = ((const MatmulAttr *)n->attr)->transposed != 0;
    char p[64], q[64];
    MDR_TRY(all_real(n));
    if (x.rank < 1 || w.rank != 2 || mdr_cols(x) != w.d[transposed])
        return mdr_ir_shape_error(n, "x is %s and w %s, expected [.., K] and %s", mdr_shape_text(x, p), mdr_shape_text(w, q),
                                  transposed ? "[N, K]" : "[K, N]");
    const int32_t cols = w.d[1 - transposed];
    if (n->n_in > 2 && n->in[2].node >= 0 && !mdr_shape_equal(bias, mdr_shape1(cols)))
        return mdr_ir_shape_error(n, "the bias is %s, w is %s, expected [%d]", mdr_shape_text(bias, p), mdr_shape_text(w, q), cols);
    n->out[0].shape = x;
    n->out[0].shape.d[x.rank - 1] = cols;
    return NULL;
}
static Err *shape_z(Node *n) {
    const Shape x = n->in_type[0].shape, y = n->in_type[1].shape;
    char p[64], q[64];
    MDR_TRY(all_real(n));
    if (x.rank < 1 || y.rank < 1 || mdr_rows(x) != mdr_rows(y))
        return mdr_ir_shape_error(n, "x is %s and y %s: rows differ", mdr_shape_text(x, p), mdr_shape_text(y, q));
    n->out[0].shape = mdr_shape2((int32_t)mdr_cols(x), (int32_t)mdr_cols(y));
    return NULL;
}

static Cost cost_of(int64_t rows, int64_t inner, int64_t cols) {
    const double m = (double)rows, k = (double)inner, n = (double)cols;
    return (Cost){.flops = 2 * m * k * n, .bytes = 4 * (m * k + k * n + m * n), .whole = true};
}
static Cost cost_y(const Node *n) {
    return cost_of(mdr_rows(n->out[0].shape), mdr_cols(n->in_type[0].shape), mdr_cols(n->out[0].shape));
}
static Cost cost_z(const Node *n) {
    return cost_of(mdr_rows(n->in_type[0].shape), mdr_cols(n->in_type[0].shape), mdr_cols(n->in_type[1].shape));
}

static const OpDef def, def_tn;
static Value product(Builder *b, Value x, Value w, int32_t transposed) {
    const MatmulAttr a = {transposed};
    const Value in[3] = {x, w, MDR_ABSENT};
    return mdr_ir_node(b, &def, &a, 3, in);
}

static void vjp_y(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)out;
    const int32_t transposed = ((const MatmulAttr *)n->attr)->transposed != 0;
    din[0] = product(b, dout[0], in[1], !transposed);
    din[1] = transposed ? mdr_op_matmul_tn(b, dout[0], in[0]) : mdr_op_matmul_tn(b, in[0], dout[0]);
    if (mdr_ir_has(in[2])) din[2] = mdr_ir_sum_rows(b, dout[0]);
}
static void vjp_z(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)out;
    Value dx = product(b, in[1], dout[0], 1), dy = product(b, in[0], dout[0], 0);
    din[0] = mdr_shape_equal(mdr_ir_type(b, dx).shape, n->in_type[0].shape) ? dx : mdr_ir_reshape(b, dx, n->in_type[0].shape);
    din[1] = mdr_shape_equal(mdr_ir_type(b, dy).shape, n->in_type[1].shape) ? dy : mdr_ir_reshape(b, dy, n->in_type[1].shape);
}

static const MatmulAttr plain = {0}, turned = {1};
enum { SHARED = 1 + MDR_AXIS_MEMBER };
static const OpCase cases[] = {
    {.name = "bias", .attr = &plain, .n_in = 3, .in = {{2, {37, 24}}, {2, {24, 40}}, {1, {40}}}, .lo = -1, .hi = 1},
    {.name = "weights of a step", .attr = &plain, .n_in = 3, .in = {{2, {50, 33}}, {2, {33, 48}}, {0, {0}}}, .in_axes = {0, SHARED},
     .lo = -1, .hi = 1},
    {.name = "weights of a step, transposed, bias", .attr = &turned, .n_in = 3, .in = {{2, {31, 20}}, {2, {23, 20}}, {1, {23}}},
     .in_axes = {0, SHARED, SHARED}, .lo = -1, .hi = 1},
    {.name = "transposed", .attr = &turned, .n_in = 3, .in = {{2, {19, 17}}, {2, {30, 17}}, {0, {0}}}, .lo = -1, .hi = 1},
    {.name = "one row", .attr = &plain, .n_in = 3, .in = {{1, {9}}, {2, {9, 12}}, {1, {12}}}, .lo = -1, .hi = 1},
    {.name = "K = 1", .attr = &plain, .n_in = 3, .in = {{2, {7, 1}}, {2, {1, 16}}, {0, {0}}}, .lo = -1, .hi = 1},
    {.name = "N = 1", .attr = &plain, .n_in = 3, .in = {{2, {13, 10}}, {2, {10, 1}}, {1, {1}}}, .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "N = 17, rank 3", .attr = &plain, .n_in = 3, .in = {{3, {5, 3, 11}}, {2, {11, 17}}, {1, {17}}}, .lo = -1, .hi = 1},
    {.name = "a gradient in groups of pieces", .attr = &plain, .n_in = 3, .in = {{2, {342, 72}}, {2, {72, 3080}}, {0, {0}}}, .in_axes = {0, SHARED},
     .lo = -1, .hi = 1},
    {.name = "shared x", .attr = &plain, .n_in = 3, .in = {{2, {8, 6}}, {2, {6, 5}}, {0, {0}}}, .in_axes = {SHARED}, .lo = -1, .hi = 1},
    {0}};
static const OpCase cases_tn[] = {
    {.name = "a weight's gradient", .n_in = 2, .in = {{2, {50, 26}}, {2, {50, 40}}}, .lo = -1, .hi = 1},
    {.name = "one row", .n_in = 2, .in = {{1, {9}}, {1, {12}}}, .lo = -1, .hi = 1},
    {.name = "K = 1, N = 17", .n_in = 2, .in = {{2, {7, 1}}, {2, {7, 17}}}, .lo = -1, .hi = 1},
    {.name = "N = 1", .n_in = 2, .in = {{2, {13, 10}}, {2, {13, 1}}}, .lo = -1, .hi = 1},
    {.name = "rank 3, shared x", .n_in = 2, .in = {{3, {5, 3, 11}}, {3, {5, 3, 8}}}, .in_axes = {SHARED}, .lo = -1, .hi = 1},
    {.name = "blocks of several rows of warps", .n_in = 2, .in = {{2, {170, 136}}, {2, {170, 1800}}}, .lo = -1, .hi = 1},
    {.name = "blocks of one row of warps", .n_in = 2, .in = {{2, {170, 136}}, {2, {170, 1032}}}, .lo = -1, .hi = 1},
    {0}};

static const OpDef def = {.name = "matmul", .equation = "y[i,n] = b[n] + sum_k x[i,k] w[k,n]", .attr_size = sizeof(MatmulAttr),
    .min_in = 3, .max_in = 3, .n_out = 1, .optional = 1u << 2, .shape = shape_y, .vjp = vjp_y, .cost = cost_y, .cases = cases};
static const OpDef def_tn = {.name = "matmul_tn", .equation = "z[k,n] = sum_i x[i,k] y[i,n]", .min_in = 2, .max_in = 2, .n_out = 1,
    .sums = 1, .shape = shape_z, .vjp = vjp_z, .cost = cost_z, .cases = cases_tn};

Value mdr_op_matmul(Builder *b, Value x, Value w, Value bias) {
    const Value in[3] = {x, w, bias};
    return mdr_ir_node(b, &def, &plain, 3, in);
}
Value mdr_op_matmul_t(Builder *b, Value x, Value w) { return product(b, x, w, 1); }
Value mdr_op_matmul_tn(Builder *b, Value x, Value y) {
    const Value in[2] = {x, y};
    return mdr_ir_node(b, &def_tn, NULL, 2, in);
}

const OpRow mdr_op_rows_matmul[] = {{&def, MDR_REFS(matmul)}, {&def_tn, MDR_REFS(matmul_tn)}, {0}};
#endif
