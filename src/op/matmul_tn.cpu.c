/* matmul_tn, fast: z += x^T y, the gradient of a weight. Tiles of 6 rows of z by a panel of 16 columns, one FMA chain an element
 * in the order of the rows of x and y, starting from what z holds (call->add) or from zero; so the chunks of rows, which
 * keep both operands in the caches, leave no trace in the bits: a partial sum rests in z, exactly.
 * y's panel is copied together by the first tile that reads it (rows 512 to 2816 bytes apart would share a few cache sets of L1);
 * x is read where it lies, from L2: at one line every six cycles the processor hides that; copying it too was measured slower.
 * See matmul_tile.h for the arithmetic. */
#include "op/op.h"
#include "op/matmul_tile.h"
#include <string.h>

TILES(BY_COL, TileFn)
TILES(COPY, TileCopyFn)

enum { CHUNK = 256 };                 /* rows at a time                                                                   */
static const float zeros[8 * TILE_MAX_VECTORS];

static size_t scratch(const Node *n, Extent e) {
    (void)n; (void)e;
    return (size_t)CHUNK * 8 * TILE_MAX_VECTORS * sizeof(float);
}

/* A panel that is not whole, filled up with zeros. */
static void pack_edge(int64_t rows, const float *y, int64_t ld, int64_t have, int64_t width, float *to) {
    for (int64_t m = 0; m < rows; m++) {
        for (int64_t j = 0; j < have; j++) to[m * width + j] = y[m * ld + j];
        for (int64_t j = have; j < width; j++) to[m * width + j] = 0.0f;
    }
}

static void edge_tile(TileFn *tile, int64_t tall, int64_t rows, const float *x, int64_t ld_x, const float *panel, bool add, float *z,
                      int64_t ld_z, int64_t cols) {
    enum { WIDTH = 8 * TILE_MAX_VECTORS };
    float buffer[TILE_MAX_ROWS * WIDTH] = {0};
    for (int64_t r = 0; r < tall && add; r++)
        for (int64_t j = 0; j < cols; j++) buffer[r * WIDTH + j] = z[r * ld_z + j];
    tile(rows, x, ld_x, panel, buffer, WIDTH, buffer, WIDTH);
    for (int64_t r = 0; r < tall; r++)
        for (int64_t j = 0; j < cols; j++) z[r * ld_z + j] = buffer[r * WIDTH + j];
}

/* One chunk: all of x's columns by the panels [p0, p1). add: z holds the sum so far. */
static void chunk(const Call *c, int64_t rows, const float *x, int64_t ld_x, const float *y, int64_t ld_y, bool add, float *z, int64_t p0,
                  int64_t p1) {
    const int64_t k = mdr_cols(c->node->in_type[0].shape), cols = mdr_cols(c->node->in_type[1].shape), ld_z = c->out[0].ld;
    float *panel = c->scratch;
    for (int64_t p = p0; p < p1; p++) {
        const int vectors = panel_vectors(cols, p);
        const int64_t at = 16 * p, width = 8 * vectors, have = cols - at;
        if (have < width) pack_edge(rows, y + at, ld_y, have, width, panel);
        for (int64_t i = 0, tall; i < k; i += tall) {
            tall = tile_next(k - i, tile_rows[vectors]);
            float *to = z + i * ld_z + at;
            for (int64_t r = i + tall; r < i + 2 * tall && r < k; r++) __builtin_prefetch(z + r * ld_z + at, 1);
            const float *from = add ? to : zeros;
            const int64_t ld_from = add ? ld_z : 0;
            if (have < width) edge_tile(tile_BY_COL[vectors][tall], tall, rows, x + i, ld_x, panel, add, to, ld_z, have);
            else if (i == 0) tile_COPY[vectors][tall](rows, x, ld_x, panel, y + at, ld_y, from, ld_from, to, ld_z);
            else tile_BY_COL[vectors][tall](rows, x + i, ld_x, panel, from, ld_from, to, ld_z);
        }
    }
}

static void run(const Call *c, int64_t unit0, int64_t unit1) {
    const Arg *x = &c->in[0], *y = &c->in[1], *z = &c->out[0];
    const bool sum = c->add & 1u;
    int64_t rows = mdr_rows(c->node->in_type[0].shape), n_seq = c->extent.n_seq;
    if (sum && x->seq == rows * x->ld && y->seq == rows * y->ld) {       /* one tall matrix                              */
        rows *= n_seq;
        n_seq = 1;
    }
    for (int64_t s = 0; s < n_seq; s++)
        for (int64_t r = 0; r < rows; r += CHUNK)
            chunk(c, rows - r < CHUNK ? rows - r : CHUNK, (const float *)x->data + s * x->seq + r * x->ld, x->ld,
                  (const float *)y->data + s * y->seq + r * y->ld, y->ld, sum || r > 0, (float *)z->data + s * z->seq, unit0, unit1);
}
static int64_t units(const Node *n, Extent e) {
    (void)e;
    return panel_count(mdr_cols(n->in_type[1].shape));
}

const CpuRow mdr_cpu_rows_matmul_tn[] = {{.op = "matmul_tn", .kernel = {.run = run, .units = units, .scratch = scratch}}, {0}};
