/* Reference kernels of the structural ops (declared in ir.h; shape rules and derivatives in src/ir/structural.c):
 * sums over rows, columns and the batch, broadcasting addition, and copies. Not here: param, input, const (storage)
 * and scan (exec). split, rows and reshape are aliases wherever the executor can make them so; these are the copies
 * for where it cannot. */
#include "op/reference.h"

/* Losses (DT_SUM) are double on every device, so the sums read and write by type. */
static acc load(const Arg *a, DType t, int64_t i)
{
    return t == DT_SUM ? ((const double *)a->data)[i] : (acc)((const real *)a->data)[i];
}
static void store(const Arg *a, DType t, int64_t i, acc v)
{
    if (t == DT_SUM) ((double *)a->data)[i] = v;
    else ((real *)a->data)[i] = (real)v;
}
static size_t size_of(DType t) { return t == DT_REAL ? sizeof(real) : t == DT_I32 ? sizeof(int32_t) : sizeof(double); }
/* Element number of row r of sequence s of member m. */
static int64_t row_at(const Arg *a, int32_t m, int32_t s, int64_t r) { return m * a->member + s * a->seq + r * a->ld; }
static void copy(const Arg *to, int64_t i, const Arg *from, int64_t j, int64_t n, size_t size)
{
    memcpy((char *)to->data + (size_t)i * size, (const char *)from->data + (size_t)j * size, (size_t)n * size);
}

/* in[1..] are as large as in[0], its trailing dimensions, or one element */
MDR_REF(add) {
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++) {
                acc sum = 0;
                for (int i = 0; i < c->node->n_in; i++) {
                    const Type *t = &c->node->in_type[i];
                    bool one = mdr_numel(t->shape) == 1;
                    sum += load(&c->in[i], t->dtype,
                                row_at(&c->in[i], m, s, one ? 0 : r % mdr_rows(t->shape)) + (one ? 0 : k));
                }
                store(&c->out[0], c->node->out[0].dtype, row_at(&c->out[0], m, s, r) + k, sum);
            }
    }
}

/* [.., D] -> [D]; in sums */
MDR_REF(sum_rows) {
    const DType t = c->node->in_type[0].dtype;
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t k = 0; k < cols; k++) {
            int64_t to = row_at(&c->out[0], m, s, 0) + k;
            acc sum = ADDS(0) ? load(&c->out[0], t, to) : 0;
            for (int64_t r = 0; r < rows; r++) sum += load(&c->in[0], t, row_at(&c->in[0], m, s, r) + k);
            store(&c->out[0], t, to, sum);
        }
    }
}

/* [.., D] -> [..]; the sums of one sequence lie in rows of the output's own shape */
MDR_REF(sum_cols) {
    const DType t = c->node->in_type[0].dtype;
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0)), out_cols = mdr_cols(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++) {
            acc sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += load(&c->in[0], t, row_at(&c->in[0], m, s, r) + k);
            store(&c->out[0], t, row_at(&c->out[0], m, s, r / out_cols) + r % out_cols, sum);
        }
    }
}

/* out += the sum over sequences and inputs; an input that its producer already added there has no data */
MDR_REF(sum_batch) {
    const DType t = c->node->out[0].dtype;
    const int64_t rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    (void)unit0; (void)unit1;
    for (int32_t m = 0; m < c->extent.n_member; m++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++) {
                int64_t to = row_at(&c->out[0], m, 0, r) + k;
                acc sum = ADDS(0) ? load(&c->out[0], t, to) : 0;
                for (int32_t s = 0; s < c->extent.n_seq; s++)
                    for (int i = 0; i < c->node->n_in; i++)
                        if (HAS_IN(i)) sum += load(&c->in[i], t, row_at(&c->in[i], m, s, r) + k);
                store(&c->out[0], t, to, sum);
            }
}

/* leading: [n, shape]; trailing: [shape, n] */
MDR_REF(expand) {
    const ExpandAttr *a = c->node->attr;
    const size_t size = size_of(c->node->in_type[0].dtype);
    const int64_t rows = mdr_rows(IN_SHAPE(0)), cols = mdr_cols(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t from = row_at(&c->in[0], m, s, r);
            if (!a->trailing) {
                for (int64_t i = 0; i < a->n; i++)
                    copy(&c->out[0], row_at(&c->out[0], m, s, i * rows + r), &c->in[0], from, cols, size);
                continue;
            }
            for (int64_t k = 0; k < cols; k++)
                for (int64_t i = 0; i < a->n; i++)
                    copy(&c->out[0], row_at(&c->out[0], m, s, r * cols + k) + i, &c->in[0], from + k, 1, size);
        }
    }
}

MDR_REF(join) {
    const size_t size = size_of(c->node->out[0].dtype);
    const int64_t rows = mdr_rows(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        int64_t at = 0;
        for (int i = 0; i < c->node->n_in; i++) {
            int64_t cols = mdr_cols(IN_SHAPE(i));
            for (int64_t r = 0; r < rows; r++)
                copy(&c->out[0], row_at(&c->out[0], m, s, r) + at, &c->in[i], row_at(&c->in[i], m, s, r), cols, size);
            at += cols;
        }
    }
}

MDR_REF(split) {
    const size_t size = size_of(c->node->in_type[0].dtype);
    const int64_t rows = mdr_rows(IN_SHAPE(0));
    FOR_SEQUENCES(c) {
        int64_t at = 0;
        for (int i = 0; i < c->node->n_out; i++) {
            int64_t cols = mdr_cols(OUT_SHAPE(i));
            for (int64_t r = 0; r < rows && HAS_OUT(i); r++)
                copy(&c->out[i], row_at(&c->out[i], m, s, r), &c->in[0], row_at(&c->in[0], m, s, r) + at, cols, size);
            at += cols;
        }
    }
}

/* A row of the first dimension may be several rows of columns. */
MDR_REF(rows) {
    const RowsAttr *a = c->node->attr;
    const size_t size = size_of(c->node->in_type[0].dtype);
    const bool flat = IN_SHAPE(0).rank == 1;
    const int64_t each = flat ? 1 : mdr_rows(IN_SHAPE(0)) / IN_SHAPE(0).d[0];
    const int64_t cols = flat ? a->count : mdr_cols(IN_SHAPE(0));
    const int64_t count = flat ? 1 : a->count * each;
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < count; r++)
            copy(&c->out[0], row_at(&c->out[0], m, s, r), &c->in[0],
                 flat ? row_at(&c->in[0], m, s, 0) + a->start : row_at(&c->in[0], m, s, a->start * each + r), cols,
                     size);
    }
}

MDR_REF(pad_rows) {
    const RowsAttr *a = c->node->attr;
    const size_t size = size_of(c->node->in_type[0].dtype);
    const bool flat = IN_SHAPE(0).rank == 1;
    const int64_t in_rows = mdr_rows(IN_SHAPE(0)), rows = mdr_rows(OUT_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0));
    const int64_t start = flat ? 0 : a->start * (in_rows / IN_SHAPE(0).d[0]);
    FOR_SEQUENCES(c) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t to = row_at(&c->out[0], m, s, r);
            bool inside = r >= start && r < start + in_rows;
            if (!inside || flat) memset((char *)c->out[0].data + (size_t)to * size, 0, (size_t)cols * size);
            if (inside)
                copy(&c->out[0], to + (flat ? a->start : 0), &c->in[0], row_at(&c->in[0], m, s, r - start),
                    mdr_cols(IN_SHAPE(0)), size);
        }
    }
}

MDR_REF(reshape) {
    const size_t size = size_of(c->node->in_type[0].dtype);
    const int64_t in_cols = mdr_cols(IN_SHAPE(0)), cols = mdr_cols(OUT_SHAPE(0)), n = mdr_numel(OUT_SHAPE(0));
    FOR_SEQUENCES(c) {
        for (int64_t i = 0, run; i < n; i += run) {                                      /* as far as both rows reach */
            int64_t left_in = in_cols - i % in_cols, left = cols - i % cols;
            run = left < left_in ? left : left_in;
            copy(&c->out[0], row_at(&c->out[0], m, s, i / cols) + i % cols, &c->in[0],
                 row_at(&c->in[0], m, s, i / in_cols) + i % in_cols, run, size);
        }
    }
}

#ifdef MDR_DECLARE
const OpRow mdr_op_rows_structural[] = {{&mdr_ir_op_add, MDR_REFS(add)},
                                        {&mdr_ir_op_expand, MDR_REFS(expand)},
                                        {&mdr_ir_op_join, MDR_REFS(join)},
                                        {&mdr_ir_op_pad_rows, MDR_REFS(pad_rows)},
                                        {&mdr_ir_op_reshape, MDR_REFS(reshape)},
                                        {&mdr_ir_op_rows, MDR_REFS(rows)},
                                        {&mdr_ir_op_split, MDR_REFS(split)},
                                        {&mdr_ir_op_sum_batch, MDR_REFS(sum_batch)},
                                        {&mdr_ir_op_sum_cols, MDR_REFS(sum_cols)},
                                        {&mdr_ir_op_sum_rows, MDR_REFS(sum_rows)},
                                        {0}};
#endif
