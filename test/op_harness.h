/* Running one op's kernels on random inputs through a hand-filled Call: no graph, no executor. Everything is kept
 * as double (a float converts exactly), so "the same bits" is memcmp. Buffers have exactly the size the contract
 * promises; unused columns of inputs are NaN and those of outputs are guarded. op_check_case() is the whole kernel
 * contract over one case. */
#ifndef OP_HARNESS_H
#define OP_HARNESS_H
#include "op/op.h"
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { OP_SEQS = 3, OP_MEMBERS = 2, OP_SEED = 20240601 };
static const double OP_GUARD = 12345.0;                                                             /* exact in float */
typedef struct OpTest {
    Node n;
    int32_t pad;                                                                   /* every value has ld = cols + pad */
    double *in[MDR_MAX_IN];                                              /* [OP_MEMBERS][OP_SEQS or 1][numel], floats */
} OpTest;
typedef struct OpHow {
    int real;                                                                                               /* 4 or 8 */
    int32_t member0, n_member, seq0, n_seq;
    uint32_t add;
    bool pieces;                                                                       /* one unit a call, last first */
    const struct OpOut *start;                            /* what outputs with an add bit hold before; NULL: OP_GUARD */
} OpHow;
typedef struct OpOut { double *v[MDR_MAX_OUT]; int64_t n[MDR_MAX_OUT]; } OpOut;      /* [n_member][n_seq or 1][numel] */

static inline bool op_has_seq(const Type *t) { return (t->axes & MDR_AXIS_SEQ) != 0; }
static inline size_t op_size(int real, DType t) { return t == DT_REAL ? (size_t)real : t == DT_I32 ? 4 : 8; }
static inline double op_get(const void *p, size_t i, int real, DType t) {
    if (t == DT_I32) return ((const int32_t *)p)[i];
    return t == DT_SUM || real == 8 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static inline void op_put(void *p, size_t i, int real, DType t, double v) {
    if (t == DT_I32) ((int32_t *)p)[i] = v == v ? (int32_t)v : -99;
    else if (t == DT_SUM || real == 8) ((double *)p)[i] = v;
    else ((float *)p)[i] = (float)v;
}

/* Types from the case, shapes of the outputs from the op's own rule, inputs drawn; t->in may be changed afterwards. */
static inline void op_open(OpTest *t, const OpDef *def, const OpCase *c, int32_t pad) {
    memset(t, 0, sizeof *t);
    t->pad = pad;
    t->n.op = def;
    t->n.attr = c->attr;
    t->n.n_in = c->n_in;
    t->n.n_out = def->n_out;
    t->n.sums = def->sums;
    t->n.where = c->name;
    uint8_t axes = 0;
    for (int i = 0; i < c->n_in; i++) {
        bool have = c->in[i].rank > 0;
        t->n.in[i] = have ? (Value){i, 0} : MDR_ABSENT;
        if (!have) continue;
        uint8_t a = c->in_axes[i] ? (uint8_t)(c->in_axes[i] - 1) : MDR_AXIS_MEMBER | MDR_AXIS_SEQ;
        t->n.in_type[i] = (Type){c->in[i], (DType)c->in_dtype[i], a, a & MDR_AXIS_SEQ ? PH_SEQ : PH_STEP};
        axes |= a;
    }
    for (int i = c->n_in; i < MDR_MAX_IN; i++) t->n.in[i] = MDR_ABSENT;
    Err *e = def->shape(&t->n);
    if (e) fail_msg("%s", mdr_err_text(e));
    for (int i = 0; i < t->n.n_out; i++) {
        t->n.out[i].axes = axes;
        t->n.out[i].phase = axes & MDR_AXIS_SEQ ? PH_SEQ : PH_STEP;
    }
    Rng r = mdr_rng(OP_SEED, mdr_hash64(def->name));
    for (int i = 0; i < c->n_in; i++) {
        size_t n = (size_t)mdr_numel(c->in[i]) * OP_MEMBERS * OP_SEQS;
        if (!c->in[i].rank) continue;
        t->in[i] = malloc(n * sizeof(double));
        for (size_t k = 0; k < n; k++)
            t->in[i][k] = c->in_dtype[i] == DT_I32 ? (double)mdr_rng_below(&r, (uint32_t)(c->hi_int > 0 ? c->hi_int
                : 1))
                                                   : (double)(float)(c->lo + (c->hi - c->lo) * mdr_rng_unit(&r));
    }
}
static inline void op_close(OpTest *t) {
    for (int i = 0; i < t->n.n_in; i++) free(t->in[i]);
}
static inline void op_free(OpOut *o) {
    for (int i = 0; i < MDR_MAX_OUT; i++) free(o->v[i]);
}

/* Strides of one value and a buffer of exactly the elements that may be touched. */
static inline Arg op_arg(const OpTest *t, const Type *y, int real, int32_t n_member, int32_t n_seq, bool seq,
    bool member) {
    int64_t rows = mdr_rows(y->shape), ld = mdr_cols(y->shape) + t->pad;
    Arg a = {.ld = ld, .seq = seq ? rows * ld : 0};
    int64_t one = (seq ? n_seq : 1) * rows * ld;
    a.member = member ? one : 0;
    int64_t total = (member ? n_member : 1) * one - t->pad;                 /* the last row ends with its last column */
    a.data = malloc((size_t)total * op_size(real, y->dtype));
    for (int64_t k = 0; k < total; k++) op_put(a.data, (size_t)k, real, y->dtype, OP_GUARD);
    return a;
}
static inline size_t op_index(const Arg *a, const Type *y, int32_t m, int32_t s, int64_t k) {
    int64_t cols = mdr_cols(y->shape);
    return (size_t)(m * a->member + s * a->seq + k / cols * a->ld + k % cols);
}
static inline Arg op_input(const OpTest *t, int i, const OpHow *h) {
    const Type *y = &t->n.in_type[i];
    bool seq = op_has_seq(y), member = (y->axes & MDR_AXIS_MEMBER) != 0;
    Arg a = op_arg(t, y, h->real, h->n_member, h->n_seq, seq, member);
    int64_t n = mdr_numel(y->shape), total = (member ? h->n_member : 1) * (seq ? h->n_seq
        : 1) * mdr_rows(y->shape) * a.ld - t->pad;
    for (int64_t k = 0; k < total; k++) op_put(a.data, (size_t)k, h->real, y->dtype, (double)NAN);
    for (int32_t m = 0; m < (member ? h->n_member : 1); m++)
        for (int32_t s = 0; s < (seq ? h->n_seq : 1); s++)
            for (int64_t k = 0; k < n; k++) {
                int64_t from = ((member ? h->member0 + m : 0) * OP_SEQS + (seq ? h->seq0 + s : 0)) * n + k;
                op_put(a.data, op_index(&a, y, m, s, k), h->real, y->dtype, t->in[i][from]);
            }
    return a;
}
/* Output k as doubles; the guards between its rows must be as they were. */
static inline void op_output(const OpTest *t, int i, const OpHow *h, const Arg *a, OpOut *o) {
    const Type *y = &t->n.out[i];
    int32_t n_seq = a->seq ? h->n_seq : 1;
    int64_t n = mdr_numel(y->shape), at = 0, total = (int64_t)h->n_member * n_seq * mdr_rows(y->shape) * a->ld - t->pad;
    o->n[i] = n * n_seq * h->n_member;
    o->v[i] = malloc((size_t)o->n[i] * sizeof(double));
    for (int32_t m = 0; m < h->n_member; m++)
        for (int32_t s = 0; s < n_seq; s++)
            for (int64_t k = 0; k < n; k++) o->v[i][at++] = op_get(a->data, op_index(a, y, m, s, k), h->real, y->dtype);
    for (int64_t k = 0; k < total; k++)
        if (k % a->ld >= mdr_cols(y->shape)) assert_true(op_get(a->data, (size_t)k, h->real, y->dtype) == OP_GUARD);
}
static inline void op_prepare(const OpTest *t, const Kernel *k, Call *c) {
    if (!k->prep.run) return;
    Call p = {.node = &t->n, .extent = {1, 1}};
    p.in[k->prep.in] = c->in[k->prep.in];
    void *to = NULL;
    Err *e = mdr_alloc_big((size_t)k->prep.elements(&t->n) * sizeof(float) + 64, &to);
    if (e) fail_msg("%s", mdr_err_text(e));
    p.out[0].data = c->prep.data = to;
    k->prep.run(&p, 0, k->prep.units ? k->prep.units(&t->n) : 1);
}
static inline void op_start(const OpTest *t, const OpHow *h, const Call *c) {
    for (int i = 0; i < t->n.n_out && h->start; i++)
        for (int64_t k = 0; k < h->start->n[i] && ((h->add >> i) & 1u); k++)
            op_put(c->out[i].data, op_index(&c->out[i], &t->n.out[i], 0, 0, k), h->real, t->n.out[i].dtype,
                h->start->v[i][k]);
}
/* Outputs in sums with their add bit start from OP_GUARD (so that "added" shows) and have one value for all sequences.
 * */
static inline OpOut op_run(const OpTest *t, const Kernel *k, OpHow h) {
    OpOut o = {0};
    Call c = {.node = &t->n, .extent = {h.n_member, h.n_seq}, .add = h.add};
    Err *e = NULL;
    for (int i = 0; i < t->n.n_in; i++)
        if (t->in[i]) c.in[i] = op_input(t, i, &h);
    for (int i = 0; i < t->n.n_out; i++)
        c.out[i] = op_arg(t, &t->n.out[i], h.real, h.n_member, h.n_seq, !((h.add >> i) & 1u)
            && op_has_seq(&t->n.out[i]), true);
    size_t scratch = k->scratch ? k->scratch(&t->n, c.extent) : 0;
    if (scratch) e = mdr_alloc_big(scratch, &c.scratch);
    if (e) fail_msg("%s", mdr_err_text(e));
    op_start(t, &h, &c);
    op_prepare(t, k, &c);
    int64_t units = k->units ? k->units(&t->n, c.extent) : 1;
    if (h.pieces) for (int64_t u = units - 1; u >= 0; u--) k->run(&c, u, u + 1);
    else k->run(&c, 0, units);
    for (int i = 0; i < t->n.n_out; i++) op_output(t, i, &h, &c.out[i], &o);
    for (int i = 0; i < t->n.n_in; i++) free(c.in[i].data);
    for (int i = 0; i < t->n.n_out; i++) free(c.out[i].data);
    if (scratch) mdr_free_big(c.scratch);
    if (c.prep.data) mdr_free_big(c.prep.data);
    return o;
}

/* The tolerance of every float kernel against the double reference, relative to the largest element: rounding grows
 * like a random walk with the length of the reduction. */
static inline double op_tol(int64_t length) { return (double)FLT_EPSILON * (16.0 + 4.0 * sqrt((double)length)); }
/* Largest |a - b| / largest |b|; NaN if anything is NaN. */
static inline double op_error(const double *a, const double *b, int64_t n) {
    double top = 1e-30, err = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        if (!(d == d)) return (double)NAN;
        if (d > err) err = d;
        if (fabs(b[i]) > top) top = fabs(b[i]);
    }
    return err / top;
}
static inline void op_near(const OpTest *t, const OpOut *a, const OpOut *b, double tol, const char *what) {
    for (int i = 0; i < t->n.n_out; i++) {
        double err = op_error(a->v[i], b->v[i], b->n[i]);
        if (a->n[i] != b->n[i] || !(err <= tol))
            fail_msg("%s, %s, pad %d: output %d %s: error %g, tolerance %g", t->n.op->name, t->n.where, t->pad, i,
                what, err, tol);
    }
}
static inline void op_same(const OpTest *t, const OpOut *a, const OpOut *b, const char *what) {
    for (int i = 0; i < t->n.n_out; i++)
        if (a->n[i] != b->n[i] || memcmp(a->v[i], b->v[i], (size_t)a->n[i] * sizeof(double)) != 0)
            fail_msg("%s, %s, pad %d: output %d %s: other bits", t->n.op->name, t->n.where, t->pad, i, what);
}

/* One slice of three sequences against three slices of one, without add: bit for bit. */
static inline void op_check_slices(const OpTest *t, const Kernel *k, int real, const OpOut *all) {
    for (int32_t s = 0; s < OP_SEQS; s++) {
        OpOut one = op_run(t, k, (OpHow){real, 0, 1, s, 1, 0, false, NULL}), part = *all;
        for (int i = 0; i < t->n.n_out; i++) {
            if (!op_has_seq(&t->n.out[i])) continue;
            part.n[i] = one.n[i];
            part.v[i] = all->v[i] + s * one.n[i];
        }
        op_same(t, &one, &part, "of one sequence alone");
        op_free(&one);
    }
}
/* add: guard + sum over the sequences of what is written without it. */
static inline void op_check_add(const OpTest *t, const Kernel *k, int real, const OpOut *all, double tol) {
    if (!t->n.sums) return;
    OpOut sum = op_run(t, k, (OpHow){real, 0, 1, 0, OP_SEQS, t->n.sums, false, NULL});
    OpOut pieces = op_run(t, k, (OpHow){real, 0, 1, 0, OP_SEQS, t->n.sums, true, NULL}), want = {0};
    for (int i = 0; i < t->n.n_out; i++) {
        int64_t n = sum.n[i];
        want.n[i] = n;
        want.v[i] = malloc((size_t)n * sizeof(double));
        if (!((t->n.sums >> i) & 1u)) memcpy(want.v[i], all->v[i], (size_t)n * sizeof(double));
        for (int64_t e = 0; e < n && ((t->n.sums >> i) & 1u); e++) {
            want.v[i][e] = OP_GUARD;
            for (int32_t s = 0; s < all->n[i] / n; s++) want.v[i][e] += all->v[i][s * n + e];
        }
    }
    op_near(t, &sum, &want, tol, "with add");
    op_same(t, &sum, &pieces, "with add, in pieces");
    op_free(&sum);
    op_free(&pieces);
    op_free(&want);
}
/* Stronger than rule 5, kept by kernels with one chain of additions an element: with add, one slice of three
 * sequences and three slices of one, in order, give the same bits. Not part of op_check. */
static inline void op_check_chain(const char *name, const OpCase *c, int32_t pad) {
    OpTest t;
    op_open(&t, mdr_op_find(name)->def, c, pad);
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t.n) : NULL;
    if (fast) {
        OpOut all = op_run(&t, fast, (OpHow){4, 0, 1, 0, OP_SEQS, t.n.sums, false, NULL});
        OpOut sum = op_run(&t, fast, (OpHow){4, 0, 1, 0, 1, t.n.sums, false, NULL});
        for (int32_t s = 1; s < OP_SEQS; s++) {
            OpOut next = op_run(&t, fast, (OpHow){4, 0, 1, s, 1, t.n.sums, false, &sum});
            op_free(&sum);
            sum = next;
        }
        op_same(&t, &all, &sum, "added in three slices");
        op_free(&all);
        op_free(&sum);
    }
    op_close(&t);
}
static inline void op_check_members(const OpTest *t, const Kernel *k, int real) {
    OpOut both = op_run(t, k, (OpHow){real, 0, OP_MEMBERS, 0, OP_SEQS, 0, false, NULL});
    for (int32_t m = 0; m < OP_MEMBERS; m++) {
        OpOut one = op_run(t, k, (OpHow){real, m, 1, 0, OP_SEQS, 0, false, NULL}), part = both;
        for (int i = 0; i < t->n.n_out; i++) { part.n[i] = one.n[i]; part.v[i] = both.v[i] + m * one.n[i]; }
        op_same(t, &one, &part, "of one member alone");
        op_free(&one);
    }
    op_free(&both);
}
/* The kernel contract over one opened case: float reference and fast kernel (if there is one) against the double
 * reference, slices, pieces, members, add. length: of the reductions. */
static inline void op_check(const OpTest *t, int64_t length) {
    const OpRow *row = mdr_op_find(t->n.op->name);
    assert_non_null(row);
    const Kernel *fast = mdr_cpu_avx2() ? mdr_op_fast(&t->n) : NULL;
    double tol = op_tol(length);
    OpHow f = {4, 0, 1, 0, OP_SEQS, 0, false, NULL}, d = {8, 0, 1, 0, OP_SEQS, 0, false, NULL}, p = {4, 0, 1, 0,
        OP_SEQS, 0, true, NULL};
    OpOut r64 = op_run(t, &row->ref64, d), r32 = op_run(t, &row->ref32, f);
    op_near(t, &r32, &r64, tol, "float reference");
    op_check_slices(t, &row->ref32, 4, &r32);
    op_check_add(t, &row->ref32, 4, &r32, tol);
    op_check_add(t, &row->ref64, 8, &r64, 1e-12);
    op_check_members(t, &row->ref32, 4);
    op_check_members(t, &row->ref64, 8);
    if (fast) {
        OpOut y = op_run(t, fast, f), z = op_run(t, fast, p);
        op_near(t, &y, &r64, tol, "fast kernel");
        op_same(t, &y, &z, "in pieces");
        op_check_slices(t, fast, 4, &y);
        op_check_add(t, fast, 4, &y, tol);
        op_free(&y);
        op_free(&z);
    }
    op_free(&r64);
    op_free(&r32);
}
static inline void op_check_case(const char *name, const OpCase *c, int64_t length) {
    const OpRow *row = mdr_op_find(name);
    if (!row) fail_msg("no op %s", name);
    for (int32_t pad = 0; pad <= 3; pad += 3) {
        OpTest t;
        op_open(&t, row->def, c, pad);
        op_check(&t, length);
        op_close(&t);
    }
}
/* All the op's own cases. */
static inline void op_check_cases(const char *name, int64_t length) {
    const OpRow *row = mdr_op_find(name);
    if (!row) fail_msg("no op %s", name);
    for (const OpCase *c = row->def->cases; c && c->name; c++) op_check_case(name, c, length);
}
#endif
