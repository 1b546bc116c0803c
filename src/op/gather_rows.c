/* gather_rows: y[t] = table[ids[t]] (an embedding); scatter_rows: its transpose, dtable[ids[t]] += dy[t], rows
 * added in order of t, in sums. Row numbers are inside the table: tasks guarantee it, and the kernels do not look. */
#include "op/reference.h"

/* in: table [V, D], ids I32 [L]; out: y [L, D] */
MDR_REF(gather_rows) {
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        const real *table = IN(real, 0);
        const int32_t *ids = IN(int32_t, 1);
        for (int64_t t = 0; t < rows; t++)
            memcpy(OUT(real, 0) + t * LD_OUT(0), table + ids[t] * LD_IN(0), (size_t)cols * sizeof(real));
    }
}

/* in: dy [L, D], ids I32 [L]; out: dtable [V, D] */
MDR_REF(scatter_rows) {
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0)), n_table = mdr_rows(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        const int32_t *ids = IN(int32_t, 1);
        for (int64_t v = 0; v < n_table && !ADDS(0); v++) memset(OUT(real, 0) + v * LD_OUT(0), 0,
            (size_t)cols * sizeof(real));
        for (int64_t t = 0; t < rows; t++) {
            const real *dy = IN(real, 0) + t * LD_IN(0);
            real *to = OUT(real, 0) + ids[t] * LD_OUT(0);
            for (int64_t k = 0; k < cols; k++) to[k] += dy[k];
        }
    }
}

#ifdef MDR_DECLARE
typedef struct ScatterAttr { int32_t rows; } ScatterAttr;

static Err *shape_y(Node *n)
{
    Shape t = n->in_type[0].shape, ids = n->in_type[1].shape;
    char p[64], q[64];
    if (t.rank != 2 || ids.rank != 1 || n->in_type[1].dtype != DT_I32)
        return mdr_ir_shape_error(n, "table is %s, ids %s; expected [V, D] and integers [L]", mdr_shape_text(t, p),
            mdr_shape_text(ids, q));
    n->out[0].shape = mdr_shape2(ids.d[0], t.d[1]);
    return NULL;
}
static Err *shape_dtable(Node *n)
{
    Shape dy = n->in_type[0].shape, ids = n->in_type[1].shape;
    char p[64], q[64];
    if (dy.rank != 2 || ids.rank != 1 || dy.d[0] != ids.d[0] || n->in_type[1].dtype != DT_I32)
        return mdr_ir_shape_error(n, "dy is %s, ids %s; expected [L, D] and integers [L]", mdr_shape_text(dy, p),
            mdr_shape_text(ids, q));
    n->out[0].shape = mdr_shape2(((const ScatterAttr *)n->attr)->rows, dy.d[1]);
    return NULL;
}
static Cost cost(const Node *n)                            /* the table itself is touched only in the rows that occur */
{
    Shape s = n->in_type[1].shape;
    double cols = (double)mdr_cols(n->out[0].shape);
    return (Cost){.bytes = 4 * (double)s.d[0] * (2 * cols + 1)};
}

static const OpCase cases_dtable[] = {
    {.name = "few rows, many equal", .attr = &(const ScatterAttr){5}, .n_in = 2, .in = {{2, {37, 13}}, {1, {37}}},
     .in_dtype = {DT_REAL, DT_I32}, .lo = -1, .hi = 1, .hi_int = 5},
    {.name = "three slabs", .attr = &(const ScatterAttr){50}, .n_in = 2, .in = {{2, {20, 80}}, {1, {20}}},
     .in_dtype = {DT_REAL, DT_I32}, .lo = -1, .hi = 1, .hi_int = 50},
    {0}};
static const OpDef def_dtable = {.name = "scatter_rows", .equation = "dtable[ids[t]] += dy[t]",
    .attr_size = sizeof(ScatterAttr),
    .min_in = 2, .max_in = 2, .n_out = 1, .sums = 1, .shape = shape_dtable, .cost = cost, .cases = cases_dtable};

static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din)
{
    (void)out;
    ScatterAttr a = {n->in_type[0].shape.d[0]};
    Value v[2] = {dout[0], in[1]};
    din[0] = mdr_ir_node(b, &def_dtable, &a, 2, v);
}

static const OpCase cases[] = {
    {.name = "odd", .n_in = 2, .in = {{2, {5, 13}}, {1, {37}}}, .in_dtype = {DT_REAL, DT_I32},
         .in_axes = {1 + MDR_AXIS_MEMBER},
     .lo = -1, .hi = 1, .hi_int = 5},
    {.name = "two tiles", .n_in = 2, .in = {{2, {50, 24}}, {1, {70}}}, .in_dtype = {DT_REAL, DT_I32},
         .in_axes = {1 + MDR_AXIS_MEMBER},
     .lo = -1, .hi = 1, .hi_int = 50},
    {.name = "a table of each sequence", .n_in = 2, .in = {{2, {6, 8}}, {1, {9}}}, .in_dtype = {DT_REAL, DT_I32},
         .lo = -1, .hi = 1, .hi_int = 6},
    {0}};
static const OpDef def = {.name = "gather_rows", .equation = "y[t] = table[ids[t]]", .min_in = 2, .max_in = 2,
    .n_out = 1, .shape = shape_y, .vjp = vjp, .cost = cost, .cases = cases};

Value mdr_op_gather_rows(Builder *b, Value table, Value ids)
{
    Value in[2] = {table, ids};
    return mdr_ir_node(b, &def, NULL, 2, in);
}

const OpRow mdr_op_rows_gather_rows[] = {{&def, MDR_REFS(gather_rows)}, {&def_dtable, MDR_REFS(scatter_rows)}, {0}};
#endif
