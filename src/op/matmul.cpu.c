/* matmul, fast: y = x w (+ b). x's rows are read where they lie (row stride ld, so column splits cost nothing); w is packed
 * into column panels, once a step by Prep, or into scratch at each call where w is a value of a sequence. Every element of y is
 * one FMA chain in k order from the bias: its bits do not depend on the rows around it. The loops are cut for L1 and L2 only.
 * See matmul_tile.h for the arithmetic, matmul_tn.cpu.c for the gradient of w. */
#include "op/op.h"
#include "op/matmul_tile.h"
#include <string.h>

TILES(BY_ROW, TileFn)

enum {
    UNIT_ROWS = 24,                   /* rows of a unit: whole tiles of any width                                         */
    BLOCK_ROWS = 48                   /* rows that meet one panel after the other: x's block stays in L2, the panel in L1  */
};
static const float zeros[8 * TILE_MAX_VECTORS];

static int64_t inner(const Node *n) { return mdr_cols(n->in_type[0].shape); }
static int64_t outer(const Node *n) { return mdr_cols(n->out[0].shape); }
static int64_t panel_end(int64_t cols) {
    int64_t last = panel_count(cols) - 1;
    return 16 * last + 8 * panel_vectors(cols, last);
}

/* ---- packing -------------------------------------------------------------------------------------------------------- */
/* Panel p of w, columns beyond the last zero. w is [K, cols], or [cols, K] if transposed. */
static void pack_panel(const float *w, int64_t ld, bool transposed, int64_t k, int64_t cols, int64_t p, float *to) {
    const int64_t width = 8 * panel_vectors(cols, p), first = 16 * p;
    const int64_t have = cols - first < width ? cols - first : width;
    if (!transposed) {
        for (int64_t i = 0; i < k; i++) {
            memcpy(to + i * width, w + i * ld + first, (size_t)have * sizeof *to);
            for (int64_t j = have; j < width; j++) to[i * width + j] = 0.0f;
        }
        return;
    }
    enum { BLOCK = 16 };              /* a square at a time: one cache line of each row of w                               */
    for (int64_t i0 = 0; i0 < k; i0 += BLOCK) {
        const int64_t i1 = i0 + BLOCK < k ? i0 + BLOCK : k;
        for (int64_t j = 0; j < have; j++)
            for (int64_t i = i0; i < i1; i++) to[i * width + j] = w[(first + j) * ld + i];
        for (int64_t j = have; j < width; j++)
            for (int64_t i = i0; i < i1; i++) to[i * width + j] = 0.0f;
    }
}

static int64_t prep_elements(const Node *n) { return inner(n) * panel_end(outer(n)); }
static int64_t prep_units(const Node *n) { return panel_count(outer(n)); }
static void prep_run(const Call *c, int64_t unit0, int64_t unit1) {
    const int64_t k = inner(c->node), cols = outer(c->node);
    const bool transposed = ((const MatmulAttr *)c->node->attr)->transposed != 0;
    for (int64_t p = unit0; p < unit1; p++)
        pack_panel(c->in[1].data, c->in[1].ld, transposed, k, cols, p, (float *)c->out[0].data + 16 * p * k);
}

/* ---- multiplying ---------------------------------------------------------------------------------------------------- */
/* A panel that is not whole goes through a buffer: the tile writes all of it, only the columns that exist are copied out. */
static void edge_tile(TileFn *tile, int64_t rows, int64_t k, const float *x, int64_t ld_x, const float *w, const float *from, float *y,
                      int64_t ld_y, int64_t cols) {
    enum { WIDTH = 8 * TILE_MAX_VECTORS };
    float first[WIDTH] = {0}, buffer[TILE_MAX_ROWS * WIDTH];
    for (int64_t j = 0; j < cols; j++) first[j] = from[j];
    tile(k, x, ld_x, w, first, 0, buffer, WIDTH);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < cols; j++) y[r * ld_y + j] = buffer[r * WIDTH + j];
}

/* rows of x times all panels; the rows lie ld apart in x and in y. */
static void multiply(const Node *n, int64_t rows, const float *x, int64_t ld_x, const float *packed, const float *bias, float *y,
                     int64_t ld_y) {
    const int64_t k = inner(n), cols = outer(n), panels = panel_count(cols);
    for (int64_t block = 0, size; block < rows; block += size) {
        size = tile_next(rows - block, BLOCK_ROWS);
        for (int64_t p = 0; p < panels; p++) {
            const int vectors = panel_vectors(cols, p);
            const int64_t at = 16 * p, have = cols - at;
            const float *from = bias ? bias + at : zeros;
            for (int64_t r = 0, m; r < size; r += m) {
                m = tile_next(size - r, tile_rows[vectors]);
                TileFn *tile = tile_BY_ROW[vectors][m];
                const float *row = x + (block + r) * ld_x;
                float *to = y + (block + r) * ld_y + at;
                if (have >= 8 * vectors) tile(k, row, ld_x, packed + at * k, from, 0, to, ld_y);
                else edge_tile(tile, m, k, row, ld_x, packed + at * k, from, to, ld_y, have);
            }
        }
    }
}

/* Rows [row0, row1) of the slice. Where sequences do not follow each other at the row stride they are taken one by one. */
static void run(const Call *c, int64_t unit0, int64_t unit1) {
    const Node *n = c->node;
    const int64_t rows = mdr_rows(n->out[0].shape), all = rows * c->extent.n_seq;
    const Arg *x = &c->in[0], *bias = &c->in[2], *y = &c->out[0];
    const bool tall = x->seq == rows * x->ld && y->seq == rows * y->ld && (!bias->data || bias->seq == 0);
    const int64_t end = unit1 * UNIT_ROWS < all ? unit1 * UNIT_ROWS : all;
    for (int64_t row = unit0 * UNIT_ROWS, m; row < end; row += m) {
        const int64_t s = tall ? 0 : row / rows, r = row - s * rows;
        m = tall || rows - r > end - row ? end - row : rows - r;
        multiply(n, m, (const float *)x->data + s * x->seq + r * x->ld, x->ld, c->prep.data,
                 bias->data ? (const float *)bias->data + s * bias->seq : NULL, (float *)y->data + s * y->seq + r * y->ld, y->ld);
    }
}
static int64_t units(const Node *n, Extent e) { return (mdr_rows(n->out[0].shape) * e.n_seq + UNIT_ROWS - 1) / UNIT_ROWS; }

/* w belongs to a sequence (a composed attention, the body of a scan): packed here. */
static void run_packing(const Call *c, int64_t unit0, int64_t unit1) {
    (void)unit0; (void)unit1;
    const Node *n = c->node;
    const int64_t k = inner(n), cols = outer(n), panels = panel_count(cols);
    const bool transposed = ((const MatmulAttr *)n->attr)->transposed != 0;
    for (int64_t s = 0; s < c->extent.n_seq; s++) {
        const Arg *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *y = &c->out[0];
        for (int64_t p = 0; p < panels && (s == 0 || w->seq != 0); p++)
            pack_panel((const float *)w->data + s * w->seq, w->ld, transposed, k, cols, p, (float *)c->scratch + 16 * p * k);
        multiply(n, mdr_rows(n->out[0].shape), (const float *)x->data + s * x->seq, x->ld, c->scratch,
                 bias->data ? (const float *)bias->data + s * bias->seq : NULL, (float *)y->data + s * y->seq, y->ld);
    }
}
static size_t scratch_packing(const Node *n, Extent e) {
    (void)e;
    return (size_t)prep_elements(n) * sizeof(float);
}

const CpuRow mdr_cpu_rows_matmul[] = {
    {.op = "matmul", .kernel = {.run = run, .units = units,
                                .prep = {.run = prep_run, .in = 1, .elements = prep_elements, .units = prep_units}}},
    {.op = "matmul", .kernel = {.run = run_packing, .scratch = scratch_packing}},
    {0}};
