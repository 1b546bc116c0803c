/* attend_row: softmax attention of one position over a cache of rows, the newest last: what attention's recurrent step needs.
 *   p[j,h] = softmax_j(q_h . k[j,h] / sqrt d)  over the rows j >= W-1-t;   y_h = sum_j p[j,h] v[j,h]
 * Rows older than t have not been filled yet and are not seen. Correct rather than fast: reference kernel only. */
#include "op/reference.h"

enum { IN_Q, IN_K, IN_V, IN_T };
enum { OUT_Y, OUT_P };

MDR_REF(attend_row) {
    const int32_t rows = IN_SHAPE(IN_K).d[0], n_heads = ((const AttendRowAttr *)c->node->attr)->n_heads;
    const int32_t width = IN_SHAPE(IN_K).d[1] / n_heads;
    const acc scale = 1.0 / sqrt((double)width);
    acc *p = c->scratch;
    FOR_SEQUENCES(c) {
        const real *t = IN(real, IN_T);
        int32_t first = 0;
        while (first < rows - 1 && (acc)first + (acc)t[0] < (acc)(rows - 1)) first++;
        for (int32_t h = 0; h < n_heads; h++) {
            const real *q = IN(real, IN_Q) + h * width, *k = IN(real, IN_K) + h * width, *v = IN(real, IN_V) + h * width;
            acc top = 0.0, sum = 0.0;
            for (int32_t j = first; j < rows; j++) {
                p[j] = 0.0;
                for (int32_t i = 0; i < width; i++) p[j] += (acc)q[i] * (acc)k[j * LD_IN(IN_K) + i];
                p[j] *= scale;
                if (j == first || p[j] > top) top = p[j];
            }
            for (int32_t j = first; j < rows; j++) sum += p[j] = (acc)r_exp((real)(p[j] - top));
            for (int32_t j = 0; j < rows && HAS_OUT(OUT_P); j++)
                OUT(real, OUT_P)[j * LD_OUT(OUT_P) + h] = j < first ? (real)0 : (real)(p[j] / sum);
            for (int32_t i = 0; i < width && HAS_OUT(OUT_Y); i++) {
                acc y = 0.0;
                for (int32_t j = first; j < rows; j++) y += p[j] * (acc)v[j * LD_IN(IN_V) + i];
                OUT(real, OUT_Y)[h * width + i] = (real)(y / sum);
            }
        }
    }
}

#ifdef MDR_DECLARE
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return sizeof(acc) * (size_t)n->in_type[IN_K].shape.d[0];
}

static Err *shape(Node *n) {
    Shape q = n->in_type[IN_Q].shape, k = n->in_type[IN_K].shape;
    int32_t n_heads = ((const AttendRowAttr *)n->attr)->n_heads;
    char a[64], b[64];
    if (k.rank != 2 || !mdr_shape_equal(q, mdr_shape2(1, k.d[1])) || !mdr_shape_equal(n->in_type[IN_V].shape, k))
        return mdr_ir_shape_error(n, "q is %s and k %s, expected [1, D] and, like v, [W, D]", mdr_shape_text(q, a), mdr_shape_text(k, b));
    if (mdr_numel(n->in_type[IN_T].shape) != 1) return mdr_ir_shape_error(n, "t must be one number");
    if (n_heads < 1 || k.d[1] % n_heads != 0) return mdr_ir_shape_error(n, "%d heads do not divide %s", n_heads, mdr_shape_text(k, b));
    n->out[OUT_Y].shape = q;
    n->out[OUT_P].shape = mdr_shape2(k.d[0], n_heads);
    return NULL;
}

/* ds = p (v.dy - y.dy) / sqrt d;  dq = sum_j ds k,  dk = ds q,  dv = p dy: by basis ops, from the weights kept. */
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    if (!mdr_ir_has(dout[OUT_Y])) return;                     /* the weights are not for use                              */
    Shape k = n->in_type[IN_K].shape;
    const int32_t n_heads = ((const AttendRowAttr *)n->attr)->n_heads, width = k.d[1] / n_heads;
    const Shape by_head = mdr_shape3(k.d[0], n_heads, width);
    Value q = mdr_ir_reshape(b, in[IN_Q], mdr_shape1(k.d[1])), dy = mdr_ir_reshape(b, dout[OUT_Y], mdr_shape1(k.d[1]));
    Value p = out[OUT_P];
    Value wide = mdr_ir_reshape(b, mdr_ir_expand(b, p, width, true), k);
    Value dp = mdr_ir_sum_cols(b, mdr_ir_reshape(b, mdr_op_mul(b, in[IN_V], dy), by_head));
    Value y = mdr_ir_reshape(b, out[OUT_Y], mdr_shape1(k.d[1]));
    Value mean = mdr_ir_sum_cols(b, mdr_ir_reshape(b, mdr_op_mul(b, y, dy), mdr_shape2(n_heads, width)));
    Value ds = mdr_op_mul(b, p, mdr_op_binary(b, BIN_SUB, dp, mean));
    ds = mdr_op_unary(b, UN_SCALE, 1.0 / sqrt((double)width), ds);
    ds = mdr_ir_reshape(b, mdr_ir_expand(b, ds, width, true), k);
    din[IN_Q] = mdr_ir_reshape(b, mdr_ir_sum_rows(b, mdr_op_mul(b, ds, in[IN_K])), mdr_shape2(1, k.d[1]));
    din[IN_K] = mdr_op_mul(b, ds, q);
    din[IN_V] = mdr_op_mul(b, wide, dy);
}

static Cost cost(const Node *n) {
    double size = (double)mdr_numel(n->in_type[IN_K].shape), rows = n->in_type[IN_K].shape.d[0];
    double n_heads = ((const AttendRowAttr *)n->attr)->n_heads;
    return (Cost){.flops = 4 * size, .bytes = 8 * size, .exps = rows * n_heads};      /* two products over every row kept */
}

#define SHAPES(W, D) {{2, {1, D}}, {2, {W, D}}, {2, {W, D}}, {1, {1}}}
static const OpCase cases[] = {                               /* t between lo and hi: some rows are not seen               */
    {.name = "four heads", .attr = &(const AttendRowAttr){4}, .n_in = 4, .in = SHAPES(7, 32), .lo = -2.4, .hi = 2.4},
    {.name = "one row", .attr = &(const AttendRowAttr){1}, .n_in = 4, .in = SHAPES(1, 6), .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "attend_row", .equation = "y_h = softmax(q_h . k_h / sqrt d over the newest t+1 rows) v_h",
    .attr_size = sizeof(AttendRowAttr), .min_in = 4, .max_in = 4, .n_out = 2, .aux = 1u << 1, .no_grad = 1u << 3,
    .shape = shape, .vjp = vjp, .cost = cost, .cases = cases};

Value mdr_op_attend_row(Builder *b, Value q, Value k, Value v, Value t, int32_t n_heads) {
    Value in[4] = {q, k, v, t};
    AttendRowAttr a = {n_heads};
    return mdr_ir_node(b, &def, &a, 4, in);
}

const OpRow mdr_op_rows_attend_row[] = {
    {&def, {.run = attend_row_f32, .scratch = scratch}, {.run = attend_row_f64, .scratch = scratch}}, {0}};
#endif
