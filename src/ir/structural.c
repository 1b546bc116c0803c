/* The structural ops: storage (param, input, const), aliases (reshape, split, rows), and what autodiff itself emits (join,
 * pad_rows, expand, add, sum_rows, sum_cols, sum_batch). Shape rules, derivatives and builders; kernels are in the op room. */
#include "ir/internal.h"
#include <string.h>

static Err *shape_param(Node *n)
{
    n->out[0].shape = ((const ParamAttr *)n->attr)->shape;
    return NULL;
}
static Err *shape_input(Node *n)
{
    const InputAttr *a = n->attr;
    n->out[0].shape = a->shape;
    n->out[0].dtype = (DType)a->dtype;
    return NULL;
}
static Err *shape_const(Node *n)
{
    n->out[0].shape = ((const ConstAttr *)n->attr)->shape;
    return NULL;
}
static Err *same_dtype(Node *n)
{
    for (int i = 0; i < n->n_out; i++) n->out[i].dtype = n->in_type[0].dtype;
    return NULL;
}

static Err *one_dtype(const Node *n)
{
    static const char *const name[] = {"real numbers", "token numbers", "sums"};
    for (int i = 1; i < n->n_in; i++)
        if (n->in_type[i].dtype != n->in_type[0].dtype)
            return mdr_ir_shape_error(n, "input %d holds %s, input 0 %s", i, name[n->in_type[i].dtype], name[n->in_type[0].dtype]);
    return NULL;
}

static Err *shape_reshape(Node *n)
{
    Shape s = ((const ReshapeAttr *)n->attr)->shape, x = n->in_type[0].shape;
    char p[64], q[64];
    if (mdr_numel(s) != mdr_numel(x))
        return mdr_ir_shape_error(n, "cannot view %s as %s", mdr_shape_text(x, p), mdr_shape_text(s, q));
    n->out[0].shape = s;
    return same_dtype(n);
}
static void vjp_reshape(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    din[0] = mdr_ir_reshape(b, dout[0], n->in_type[0].shape);
}

static Err *shape_split(Node *n)
{
    const SplitAttr *a = n->attr;
    Shape x = n->in_type[0].shape;
    int64_t sum = 0;
    n->n_out = a->n;
    for (int i = 0; i < a->n; i++) {
        sum += a->size[i];
        n->out[i].shape = x;
        n->out[i].shape.d[x.rank - 1] = a->size[i];
        if (a->size[i] < 1) return mdr_ir_shape_error(n, "part %d has %d columns", i, a->size[i]);
    }
    char p[64];
    if (sum != mdr_cols(x))
        return mdr_ir_shape_error(n, "parts have %lld columns together, %s has %lld", (long long)sum, mdr_shape_text(x, p),
                                  (long long)mdr_cols(x));
    return same_dtype(n);
}
static void vjp_split(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    Value part[MDR_MAX_OUT];
    for (int i = 0; i < n->n_out; i++) {
        part[i] = dout[i];
        if (mdr_ir_has(dout[i])) continue;
        double zero = 0.0;                         /* a part nobody used has gradient zero                                */
        Value z = mdr_ir_const(b, mdr_shape1(1), &zero);
        Shape s = n->out[i].shape;
        z = mdr_ir_expand(b, z, (int32_t)mdr_numel(s), false);
        part[i] = mdr_ir_reshape(b, z, s);
    }
    din[0] = mdr_ir_join(b, n->n_out, part);
}

static Err *shape_join(Node *n)
{
    Shape s = n->in_type[0].shape;
    int64_t cols = 0;
    char p[64], q[64];
    MDR_TRY(one_dtype(n));
    for (int i = 0; i < n->n_in; i++) {
        Shape x = n->in_type[i].shape;
        cols += mdr_cols(x);
        x.d[x.rank - 1] = s.d[s.rank - 1];
        if (!mdr_shape_equal(x, s))
            return mdr_ir_shape_error(n, "input %d is %s, input 0 is %s: rows differ", i, mdr_shape_text(n->in_type[i].shape, p),
                                      mdr_shape_text(n->in_type[0].shape, q));
    }
    s.d[s.rank - 1] = (int32_t)cols;
    n->out[0].shape = s;
    return same_dtype(n);
}
static void vjp_join(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    int32_t size[MDR_MAX_IN];
    for (int i = 0; i < n->n_in; i++) size[i] = (int32_t)mdr_cols(n->in_type[i].shape);
    mdr_ir_split(b, dout[0], n->n_in, size, din);
}

static Err *shape_rows(Node *n)
{
    const RowsAttr *a = n->attr;
    Shape x = n->in_type[0].shape;
    char p[64];
    if (x.rank < 1 || a->start < 0 || a->count < 1 || a->start > x.d[0] - a->count)
        return mdr_ir_shape_error(n, "rows %lld to %lld of %s", (long long)a->start, (long long)a->start + a->count,
                                  mdr_shape_text(x, p));
    x.d[0] = a->count;
    n->out[0].shape = x;
    return same_dtype(n);
}
static void vjp_rows(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    const RowsAttr *a = n->attr;
    din[0] = mdr_ir_pad_rows(b, dout[0], a->start, n->in_type[0].shape.d[0]);
}
static Err *shape_pad_rows(Node *n)
{
    const RowsAttr *a = n->attr;
    Shape x = n->in_type[0].shape;
    char p[64];
    if (a->start < 0 || a->start > a->total - x.d[0])
        return mdr_ir_shape_error(n, "%s at row %d does not fit %d rows", mdr_shape_text(x, p), a->start, a->total);
    x.d[0] = a->total;
    n->out[0].shape = x;
    return same_dtype(n);
}
static void vjp_pad_rows(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    const RowsAttr *a = n->attr;
    din[0] = mdr_ir_rows(b, dout[0], a->start, n->in_type[0].shape.d[0]);
}

static Err *shape_expand(Node *n)
{
    const ExpandAttr *a = n->attr;
    Shape x = n->in_type[0].shape, s = {.rank = x.rank + 1};
    if (x.rank >= MDR_MAX_RANK) return mdr_ir_shape_error(n, "rank %d is the highest possible", MDR_MAX_RANK);
    for (int i = 0; i < x.rank; i++) s.d[i + (a->trailing ? 0 : 1)] = x.d[i];
    s.d[a->trailing ? x.rank : 0] = a->n;
    n->out[0].shape = s;
    return same_dtype(n);
}
static void vjp_expand(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    const ExpandAttr *a = n->attr;
    Shape x = n->in_type[0].shape;
    if (a->trailing) {
        din[0] = mdr_ir_sum_cols(b, dout[0]);
    } else {
        Value flat = mdr_ir_reshape(b, dout[0], mdr_shape2(a->n, (int32_t)mdr_numel(x)));
        din[0] = mdr_ir_reshape(b, mdr_ir_sum_rows(b, flat), x);
    }
}

/* Gradient of an operand that was broadcast over leading dimensions: sum them away. */
static Value unbroadcast(Builder *b, Value dy, Shape big, Shape small)
{
    if (mdr_shape_equal(big, small)) return dy;
    int64_t n = mdr_numel(small);
    Value flat = mdr_ir_reshape(b, dy, mdr_shape2((int32_t)(mdr_numel(big) / n), (int32_t)n));
    return mdr_ir_reshape(b, mdr_ir_sum_rows(b, flat), small);
}
static bool broadcasts(Shape big, Shape small)
{
    if (mdr_numel(small) == 1) return true;
    if (small.rank > big.rank) return false;
    for (int i = 0; i < small.rank; i++)
        if (small.d[small.rank - 1 - i] != big.d[big.rank - 1 - i]) return false;
    return true;
}
static Err *shape_add(Node *n)
{
    char p[64], q[64];
    MDR_TRY(one_dtype(n));
    for (int i = 1; i < n->n_in; i++)
        if (!broadcasts(n->in_type[0].shape, n->in_type[i].shape))
            return mdr_ir_shape_error(n, "input %d is %s, input 0 is %s", i, mdr_shape_text(n->in_type[i].shape, p),
                                      mdr_shape_text(n->in_type[0].shape, q));
    n->out[0].shape = n->in_type[0].shape;
    return same_dtype(n);
}
static void vjp_add(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    for (int i = 0; i < n->n_in; i++) din[i] = unbroadcast(b, dout[0], n->out[0].shape, n->in_type[i].shape);
}

static Err *shape_sum_rows(Node *n)
{
    n->out[0].shape = mdr_shape1((int32_t)mdr_cols(n->in_type[0].shape));
    return same_dtype(n);
}
static void vjp_sum_rows(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    Shape x = n->in_type[0].shape;
    din[0] = mdr_ir_reshape(b, mdr_ir_expand(b, dout[0], (int32_t)mdr_rows(x), false), x);
}
static Err *shape_sum_cols(Node *n)
{
    Shape x = n->in_type[0].shape;
    if (x.rank == 1) x = mdr_shape1(1);
    else x.rank--;
    n->out[0].shape = x;
    return same_dtype(n);
}
static void vjp_sum_cols(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)in; (void)out;
    Shape x = n->in_type[0].shape;
    din[0] = mdr_ir_reshape(b, mdr_ir_expand(b, dout[0], (int32_t)mdr_cols(x), true), x);
}
static Err *shape_sum_batch(Node *n)
{
    char p[64], q[64];
    for (int i = 1; i < n->n_in; i++)
        if (!mdr_shape_equal(n->in_type[i].shape, n->in_type[0].shape) || n->in_type[i].dtype != n->in_type[0].dtype)
            return mdr_ir_shape_error(n, "input %d is %s, input 0 is %s", i, mdr_shape_text(n->in_type[i].shape, p),
                                      mdr_shape_text(n->in_type[0].shape, q));
    n->out[0].shape = n->in_type[0].shape;
    return same_dtype(n);
}

const OpDef mdr_ir_op_param = {.name = "param", .equation = "a parameter", .attr_size = sizeof(ParamAttr), .n_out = 1, .shape = shape_param};
const OpDef mdr_ir_op_input = {.name = "input", .equation = "data of the step", .attr_size = sizeof(InputAttr), .n_out = 1, .shape = shape_input};
const OpDef mdr_ir_op_const = {.name = "const", .equation = "a table", .attr_size = sizeof(ConstAttr), .n_out = 1, .shape = shape_const};
const OpDef mdr_ir_op_reshape = {.name = "reshape", .equation = "y = x, other shape", .attr_size = sizeof(ReshapeAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_reshape, .vjp = vjp_reshape};
const OpDef mdr_ir_op_split = {.name = "split", .equation = "y_i = columns of x", .attr_size = sizeof(SplitAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_split, .vjp = vjp_split};
const OpDef mdr_ir_op_join = {.name = "join", .equation = "y = [x_0 | x_1 | ..]",
    .min_in = 1, .max_in = MDR_MAX_IN, .n_out = 1, .shape = shape_join, .vjp = vjp_join};
const OpDef mdr_ir_op_rows = {.name = "rows", .equation = "y = x[start .. start+count)", .attr_size = sizeof(RowsAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_rows, .vjp = vjp_rows};
const OpDef mdr_ir_op_pad_rows = {.name = "pad_rows", .equation = "y = zeros, y[start ..] = x", .attr_size = sizeof(RowsAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_pad_rows, .vjp = vjp_pad_rows};
const OpDef mdr_ir_op_expand = {.name = "expand", .equation = "y[i, ..] = x or y[.., i] = x", .attr_size = sizeof(ExpandAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_expand, .vjp = vjp_expand};
const OpDef mdr_ir_op_add = {.name = "add", .equation = "y = x_0 + x_1 + ..",
    .min_in = 1, .max_in = MDR_MAX_IN, .n_out = 1, .inplace = 1, .shape = shape_add, .vjp = vjp_add};
const OpDef mdr_ir_op_sum_rows = {.name = "sum_rows", .equation = "y_j = sum_i x_ij",
    .min_in = 1, .max_in = 1, .n_out = 1, .sums = 1, .shape = shape_sum_rows, .vjp = vjp_sum_rows};
const OpDef mdr_ir_op_sum_cols = {.name = "sum_cols", .equation = "y_i = sum_j x_ij",
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_sum_cols, .vjp = vjp_sum_cols};
const OpDef mdr_ir_op_sum_batch = {.name = "sum_batch", .equation = "y = sum over sequences and inputs of x_i",
    .min_in = 1, .max_in = MDR_MAX_IN, .n_out = 1, .sums = 1, .shape = shape_sum_batch};

/* ---- builders ---- */
Value mdr_ir_param(Builder *b, const char *name, Shape s, Init init)
{
    ParamAttr a = {mdr_arena_strdup(b->arena, name), init, b->n_param, s};
    if (init.table) a.init.table = mdr_arena_copy(b->arena, init.table, (size_t)mdr_numel(s) * sizeof(double));
    Value v = mdr_ir_node(b, &mdr_ir_op_param, &a, 0, NULL);
    if (mdr_ir_has(v)) b->n_param++;
    return v;
}
Value mdr_ir_input(Builder *b, const char *name, Shape s, DType t, unsigned axes)
{
    InputAttr a = {mdr_arena_strdup(b->arena, name), b->n_input, (int32_t)axes, (int32_t)t, s};
    Value v = mdr_ir_node(b, &mdr_ir_op_input, &a, 0, NULL);
    if (mdr_ir_has(v)) b->n_input++;
    return v;
}
Value mdr_ir_const(Builder *b, Shape s, const double *data)
{
    ConstAttr a = {mdr_arena_copy(b->arena, data, (size_t)mdr_numel(s) * sizeof(double)), s};
    return mdr_ir_node(b, &mdr_ir_op_const, &a, 0, NULL);
}
Value mdr_ir_reshape(Builder *b, Value x, Shape s)
{
    if (!b->err && mdr_ir_has(x) && mdr_shape_equal(mdr_ir_type(b, x).shape, s)) return x;
    ReshapeAttr a = {s};
    return mdr_ir_node(b, &mdr_ir_op_reshape, &a, 1, &x);
}
void mdr_ir_split(Builder *b, Value x, int n, const int32_t *size, Value *out)
{
    SplitAttr a = {.n = n};
    for (int i = 0; i < n; i++) out[i] = MDR_ABSENT;
    if (n > MDR_MAX_OUT) {
        Node at = {.op = &mdr_ir_op_split, .where = b->where};
        mdr_ir_fail(b, mdr_ir_shape_error(&at, "%d parts, at most %d are possible", n, MDR_MAX_OUT));
        return;
    }
    for (int i = 0; i < n; i++) a.size[i] = size[i];
    Value v = mdr_ir_node(b, &mdr_ir_op_split, &a, 1, &x);
    for (int i = 0; i < n; i++) out[i] = mdr_ir_out(v, i);
}
Value mdr_ir_join(Builder *b, int n, const Value *in) { return n == 1 && !b->err ? in[0] : mdr_ir_node(b, &mdr_ir_op_join, NULL, n, in); }
Value mdr_ir_rows(Builder *b, Value x, int32_t start, int32_t count)
{
    Shape s = mdr_ir_type(b, x).shape;
    if (!b->err && mdr_ir_has(x) && start == 0 && count == s.d[0]) return x;
    RowsAttr a = {start, count, s.d[0]};
    return mdr_ir_node(b, &mdr_ir_op_rows, &a, 1, &x);
}
Value mdr_ir_pad_rows(Builder *b, Value x, int32_t start, int32_t total)
{
    RowsAttr a = {start, mdr_ir_type(b, x).shape.d[0], total};
    return mdr_ir_node(b, &mdr_ir_op_pad_rows, &a, 1, &x);
}
Value mdr_ir_expand(Builder *b, Value x, int32_t n, bool trailing)
{
    ExpandAttr a;
    memset(&a, 0, sizeof a);
    a.n = n;
    a.trailing = trailing;
    return mdr_ir_node(b, &mdr_ir_op_expand, &a, 1, &x);
}
Value mdr_ir_add(Builder *b, int n, const Value *in) { return n == 1 && !b->err ? in[0] : mdr_ir_node(b, &mdr_ir_op_add, NULL, n, in); }
Value mdr_ir_sum_rows(Builder *b, Value x) { return mdr_ir_node(b, &mdr_ir_op_sum_rows, NULL, 1, &x); }
Value mdr_ir_sum_cols(Builder *b, Value x) { return mdr_ir_node(b, &mdr_ir_op_sum_cols, NULL, 1, &x); }
Value mdr_ir_sum_batch(Builder *b, int n, const Value *in) { return mdr_ir_node(b, &mdr_ir_op_sum_batch, NULL, n, in); }
