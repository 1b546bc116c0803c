/* Rows of a slice, for *.cpu.c: a slice of s sequences is one tall matrix (op.h rule 3), cut into tiles of rows for
 * row-wise ops and into slabs of columns for sums over rows. Where a run of rows is contiguous it is handed out as
 * one long row. */
#ifndef MDR_ROWS_H
#define MDR_ROWS_H
#include "op/op.h"

enum { ROW_TILE = 64, COL_SLAB = 64 };

/* One operand of a row-wise op. rows: its own rows of a sequence; fewer than the op's: repeated (broadcast). */
typedef struct Rows { char *data; int64_t seq, ld, rows, cols; } Rows;                            /* strides in bytes */

static inline Rows rows_of(const Arg *a, Shape s) {
    return (Rows){a->data, a->seq * 4, a->ld * 4, mdr_rows(s), mdr_cols(s)};
}
/* Row q of sequence s, in all columns of a float matrix. */
static inline float *rows_at(const Rows *r, int64_t s, int64_t q) {
    return (float *)(void *)(r->data + s * r->seq + (q < r->rows ? q : q % r->rows) * r->ld);
}
static inline bool rows_flat(const Rows *r) { return r->ld == r->cols * 4; }
static inline int64_t rows_tiles(Shape s, Extent e) { return (e.n_seq * mdr_rows(s) + ROW_TILE - 1) / ROW_TILE; }
static inline int64_t rows_tiles_out(const Node *n, Extent e) { return rows_tiles(n->out[0].shape, e); }
static inline int64_t rows_tiles_in(const Node *n, Extent e) { return rows_tiles(n->in_type[0].shape, e); }
static inline int64_t rows_slabs(const Node *n, Extent e) {
    (void)e;
    return (mdr_cols(n->out[0].shape) + COL_SLAB - 1) / COL_SLAB;
}

/* The rows of the tiles [unit0, unit1), one by one or in contiguous runs: for (Walk w = ..; walk_next(&w);) use w.s,
 * w.q, w.n */
typedef struct Walk { int64_t at, end, rows, s, q, n; bool merge; } Walk;
static inline Walk walk(Shape shape, Extent e, int64_t unit0, int64_t unit1, bool merge) {
    int64_t rows = mdr_rows(shape), all = e.n_seq * rows, end = unit1 * ROW_TILE;
    return (Walk){.at = unit0 * ROW_TILE, .end = end < all ? end : all, .rows = rows, .merge = merge};
}
static inline bool walk_next(Walk *w) {
    w->at += w->n;
    if (w->at >= w->end) return false;
    w->s = w->at / w->rows;
    w->q = w->at % w->rows;
    w->n = 1;
    if (w->merge) w->n = w->rows - w->q < w->end - w->at ? w->rows - w->q : w->end - w->at;
    return true;
}
#endif
