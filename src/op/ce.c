/* Cross entropy from logits, its gradient, and what accuracies are counted from. Targets below zero are ignored.
 *   ce:       loss = inv_count sum_{t: target >= 0} (logsumexp(x[t]) - x[t, target])          (a double, in sums)
 *   ce_grad:  dx[t] = (softmax(x[t]) - onehot(target)) inv_count dloss, 0 on ignored rows
 *   class_counts: wanted, predicted and hit per class, [3, V]; the prediction is the first largest logit, NaN is never
 * largest. The softmax is recomputed for the gradient: one pass over logits that are in cache, instead of a value
 * kept. */
#include "op/reference.h"

/* in: logits [L, V], targets I32 [L], inv_count [1]; out: loss SUM [1] */
MDR_REF(ce) {
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        const int32_t *target = IN(int32_t, 1);
        const double inv = (double)IN(real, 2)[0];
        double *loss = OUT(double, 0), sum_rows = ADDS(0) ? *loss : 0.0;
        for (int64_t t = 0; t < rows; t++) {
            const real *x = IN(real, 0) + t * LD_IN(0);
            if (target[t] < 0) continue;
            real top = x[0];
            acc sum = 0;
            for (int64_t k = 1; k < cols; k++) top = x[k] > top ? x[k] : top;
            for (int64_t k = 0; k < cols; k++) sum += (acc)r_exp(x[k] - top);
            sum_rows += (d_log(sum) + (acc)top - (acc)x[target[t]]) * inv;
        }
        *loss = sum_rows;
    }
}

/* in: logits, targets, inv_count, dloss [1]; out: dlogits */
MDR_REF(ce_grad) {
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        const int32_t *target = IN(int32_t, 1);
        const acc scale = (acc)IN(real, 2)[0] * (acc)IN(real, 3)[0];
        for (int64_t t = 0; t < rows; t++) {
            const real *x = IN(real, 0) + t * LD_IN(0);
            real *dx = OUT(real, 0) + t * LD_OUT(0);
            if (target[t] < 0) {
                memset(dx, 0, (size_t)cols * sizeof *dx);
                continue;
            }
            real top = x[0];
            acc sum = 0;
            for (int64_t k = 1; k < cols; k++) top = x[k] > top ? x[k] : top;
            for (int64_t k = 0; k < cols; k++) {
                dx[k] = r_exp(x[k] - top);                                     /* dx may be x: read for the last time */
                sum += (acc)dx[k];
            }
            for (int64_t k = 0; k < cols; k++) dx[k] = (real)(((acc)dx[k] / sum - (k == target[t] ? 1.0
                : 0.0)) * scale);
        }
    }
}

/* in: logits, targets; out: counts SUM [3, V] */
MDR_REF(class_counts) {
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        const int32_t *target = IN(int32_t, 1);
        double *wanted = OUT(double, 0), *predicted = wanted + LD_OUT(0), *hit = predicted + LD_OUT(0);
        for (int r = 0; r < 3 && !ADDS(0); r++) memset(wanted + r * LD_OUT(0), 0, (size_t)cols * sizeof(double));
        for (int64_t t = 0; t < rows; t++) {
            const real *x = IN(real, 0) + t * LD_IN(0);
            if (target[t] < 0) continue;
            int64_t best = 0;
            real top = -(real)INFINITY;
            for (int64_t k = 0; k < cols; k++)
                if (x[k] > top) { top = x[k]; best = k; }
            wanted[target[t]] += 1;
            predicted[best] += 1;
            if (best == target[t]) hit[best] += 1;
        }
    }
}

#ifdef MDR_DECLARE
static Err *check(const Node *n)
{
    Shape x = n->in_type[0].shape, t = n->in_type[1].shape;
    char p[64], q[64];
    if (x.rank != 2 || t.rank != 1 || t.d[0] != x.d[0] || n->in_type[1].dtype != DT_I32)
        return mdr_ir_shape_error(n, "logits are %s, targets %s; expected [L, V] and integers [L]", mdr_shape_text(x,
            p), mdr_shape_text(t, q));
    for (int i = 2; i < n->n_in; i++)
        if (!mdr_shape_equal(n->in_type[i].shape, mdr_shape1(1)))
            return mdr_ir_shape_error(n, "input %d is %s, expected [1]", i, mdr_shape_text(n->in_type[i].shape, p));
    return NULL;
}
static Err *shape_ce(Node *n)
{
    n->out[0].shape = mdr_shape1(1);
    n->out[0].dtype = DT_SUM;
    return check(n);
}
static Err *shape_dx(Node *n)
{
    n->out[0].shape = n->in_type[0].shape;
    return check(n);
}
static Err *shape_counts(Node *n)
{
    n->out[0].shape = mdr_shape2(3, (int32_t)mdr_cols(n->in_type[0].shape));
    n->out[0].dtype = DT_SUM;
    return check(n);
}
static Cost cost_ce(const Node *n)
{
    double e = (double)mdr_numel(n->in_type[0].shape);
    return (Cost){.bytes = 4 * e, .exps = e};
}
static Cost cost_dx(const Node *n)
{
    double e = (double)mdr_numel(n->in_type[0].shape);
    return (Cost){.bytes = 8 * e, .exps = e};
}
static Cost cost_counts(const Node *n) { return (Cost){.bytes = 4 * (double)mdr_numel(n->in_type[0].shape)}; }

#define TYPES {DT_REAL, DT_I32, DT_REAL, DT_REAL}
#define AXES {0, 1 + MDR_AXIS_SEQ, 1, 1}
static const OpCase cases_dx[] = {
    {.name = "few classes", .n_in = 4, .in = {{2, {37, 16}}, {1, {37}}, {1, {1}}, {1, {1}}}, .in_dtype = TYPES,
         .in_axes = AXES,
     .lo = -3, .hi = 3, .hi_int = 16},
    {.name = "odd", .n_in = 4, .in = {{2, {70, 13}}, {1, {70}}, {1, {1}}, {1, {1}}}, .in_dtype = TYPES, .in_axes = AXES,
     .lo = -30, .hi = 30, .hi_int = 13},
    {.name = "many classes", .n_in = 4, .in = {{2, {5, 515}}, {1, {5}}, {1, {1}}, {1, {1}}}, .in_dtype = TYPES,
         .lo = -3, .hi = 3, .hi_int = 515},
    {0}};
static const OpDef def_dx = {.name = "ce_grad", .equation = "dx = (softmax(x) - onehot(target)) inv_count dloss",
    .min_in = 4, .max_in = 4, .n_out = 1, .inplace = 1, .shape = shape_dx, .cost = cost_dx, .cases = cases_dx};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)n; (void)out;
    Value v[4] = {in[0], in[1], in[2], dout[0]};
    din[0] = mdr_ir_node(b, &def_dx, NULL, 4, v);
}

static const OpCase cases_ce[] = {
    {.name = "few classes", .n_in = 3, .in = {{2, {37, 16}}, {1, {37}}, {1, {1}}}, .in_dtype = TYPES, .in_axes = AXES,
     .lo = -3, .hi = 3, .hi_int = 16},
    {.name = "odd", .n_in = 3, .in = {{2, {70, 13}}, {1, {70}}, {1, {1}}}, .in_dtype = TYPES, .in_axes = AXES,
         .lo = -30, .hi = 30, .hi_int = 13},
    {.name = "two classes", .n_in = 3, .in = {{2, {9, 2}}, {1, {9}}, {1, {1}}}, .in_dtype = TYPES, .lo = 0.5, .hi = 1,
         .hi_int = 2},
    {.name = "many classes", .n_in = 3, .in = {{2, {5, 515}}, {1, {5}}, {1, {1}}}, .in_dtype = TYPES, .lo = -3,
         .hi = 3, .hi_int = 515},
    {0}};
static const OpCase cases_counts[] = {
    {.name = "few classes", .n_in = 2, .in = {{2, {37, 16}}, {1, {37}}}, .in_dtype = TYPES, .lo = -3, .hi = 3,
         .hi_int = 16},
    {.name = "odd", .n_in = 2, .in = {{2, {70, 13}}, {1, {70}}}, .in_dtype = TYPES, .lo = -3, .hi = 3, .hi_int = 13},
    {.name = "three classes", .n_in = 2, .in = {{2, {9, 3}}, {1, {9}}}, .in_dtype = TYPES, .lo = -3, .hi = 3,
         .hi_int = 3},
    {0}};
static const OpDef def_ce = {.name = "ce", .equation = "loss = inv_count sum_t (logsumexp(x[t]) - x[t, target])",
    .min_in = 3, .max_in = 3,
    .n_out = 1, .sums = 1, .no_grad = 1u << 2, .shape = shape_ce, .vjp = vjp, .cost = cost_ce, .cases = cases_ce};
static const OpDef def_counts = {.name = "class_counts", .equation = "wanted, predicted, hit per class", .min_in = 2,
    .max_in = 2, .n_out = 1, .sums = 1, .shape = shape_counts, .cost = cost_counts, .cases = cases_counts};

Value mdr_op_ce(Builder *b, Value logits, Value targets, Value inv_count)
{
    Value in[3] = {logits, targets, inv_count};
    return mdr_ir_node(b, &def_ce, NULL, 3, in);
}
Value mdr_op_class_counts(Builder *b, Value logits, Value targets)
{
    Value in[2] = {logits, targets};
    return mdr_ir_node(b, &def_counts, NULL, 2, in);
}

const OpRow mdr_op_rows_ce[] = {{&def_ce, MDR_REFS(ce)}, {&def_dx, MDR_REFS(ce_grad)}, {&def_counts,
    MDR_REFS(class_counts)}, {0}};
#endif
