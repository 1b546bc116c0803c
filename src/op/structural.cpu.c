/* add, sum_rows, sum_cols, sum_batch with AVX2, for reals; copies by tiles of rows. Sums over rows and over the
 * batch run one chain a column, from the accumulator's value on, in the order of sequences: a slice of three gives
 * the bits of three of one. */
#include "op/avx2.h"
#include "op/rows.h"
#include <string.h>

/* in[] may be the same storage as y: each eight are read before they are written. step 0: one element for all. */
static void add_span(int n_in, int64_t n, const float *const *x, const int64_t *step, float *y) {
    if (n_in == 2 && step[1]) {
        for (int64_t i = 0; i < n; i += 8)
            v_store(y + i, n - i, _mm256_add_ps(v_load(x[0] + i, n - i), v_load(x[1] + i, n - i)));
        return;
    }
    for (int64_t i = 0; i < n; i += 8) {
        __m256 sum = v_load(x[0] + i, n - i);
        for (int k = 1; k < n_in; k++) sum = _mm256_add_ps(sum, step[k] ? v_load(x[k] + i, n - i)
            : _mm256_set1_ps(*x[k]));
        v_store(y + i, n - i, sum);
    }
}
static void add(const Call *c, int64_t unit0, int64_t unit1) {
    const Node *n = c->node;
    const Shape s = n->out[0].shape;
    const Rows y = rows_of(&c->out[0], s);
    Rows x[MDR_MAX_IN];
    int64_t step[MDR_MAX_IN];
    bool merge = rows_flat(&y);
    for (int k = 0; k < n->n_in; k++) {
        x[k] = rows_of(&c->in[k], n->in_type[k].shape);
        step[k] = k == 0 || x[k].rows * x[k].cols != 1;
        if (step[k] && !(x[k].rows == y.rows && rows_flat(&x[k]))) merge = false;
    }
    for (Walk w = walk(s, c->extent, unit0, unit1, merge); walk_next(&w);) {
        const float *row[MDR_MAX_IN];
        for (int k = 0; k < n->n_in; k++) row[k] = rows_at(&x[k], w.s, w.q);
        add_span(n->n_in, w.n * y.cols, row, step, rows_at(&y, w.s, w.q));
    }
}

static inline __attribute__((always_inline)) void rows_slab(const Rows *x, int32_t s, bool adds, float *to,
    int64_t col, int n_vec,
                                                           int64_t width) {
    __m256 sum[COL_SLAB / 8];
    for (int j = 0; j < n_vec; j++) sum[j] = adds ? v_load(to + 8 * j, width - 8 * j) : _mm256_setzero_ps();
    for (int64_t q = 0; q < x->rows; q++) {
        const float *row = rows_at(x, s, q) + col;
        for (int j = 0; j < n_vec; j++) sum[j] = _mm256_add_ps(sum[j], v_load(row + 8 * j, width - 8 * j));
    }
    for (int j = 0; j < n_vec; j++) v_store(to + 8 * j, width - 8 * j, sum[j]);
}
static void sum_rows(const Call *c, int64_t unit0, int64_t unit1) {
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape);
    for (int64_t u = unit0; u < unit1; u++) {
        const int64_t col = u * COL_SLAB, width = x.cols - col < COL_SLAB ? x.cols - col : COL_SLAB;
        for (int32_t s = 0; s < c->extent.n_seq; s++) {
            float *to = (float *)c->out[0].data + s * c->out[0].seq + col;
            if (width == COL_SLAB) rows_slab(&x, s, c->add & 1u, to, col, COL_SLAB / 8, COL_SLAB);
            else rows_slab(&x, s, c->add & 1u, to, col, (int)(width + 7) / 8, width);
        }
    }
}

static void sum_cols(const Call *c, int64_t unit0, int64_t unit1) {
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape), y = rows_of(&c->out[0], c->node->out[0].shape);
    for (Walk w = walk(c->node->in_type[0].shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *row = rows_at(&x, w.s, w.q);
        __m256 a = _mm256_setzero_ps(), b = a;
        int64_t i = 0;
        for (; i + 16 <= x.cols; i += 16) {
            a = _mm256_add_ps(a, _mm256_loadu_ps(row + i));
            b = _mm256_add_ps(b, _mm256_loadu_ps(row + i + 8));
        }
        for (; i < x.cols; i += 8) a = _mm256_add_ps(a, v_load(row + i, x.cols - i));
        rows_at(&y, w.s, w.q / y.cols)[w.q % y.cols] = h_sum(_mm256_add_ps(a, b));
    }
}

/* A unit is a tile of rows of the one output; inputs that their producer already added there have no data. */
static int64_t batch_units(const Node *n, Extent e) { (void)e; return rows_tiles(n->out[0].shape, (Extent){1, 1}); }
static void sum_batch(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows y = rows_of(&c->out[0], shape);
    for (Walk w = walk(shape, (Extent){1, 1}, unit0, unit1, false); walk_next(&w);) {
        float *to = rows_at(&y, 0, w.q);
        if (!(c->add & 1u)) memset(to, 0, (size_t)y.cols * sizeof(float));
        for (int32_t s = 0; s < c->extent.n_seq; s++)
            for (int k = 0; k < c->node->n_in; k++) {
                if (!c->in[k].data) continue;
                const Rows x = rows_of(&c->in[k], shape);
                const float *row = rows_at(&x, s, w.q);
                for (int64_t i = 0; i < y.cols; i += 8)
                    v_store(to + i, y.cols - i, _mm256_add_ps(v_load(to + i, y.cols - i), v_load(row + i, y.cols - i)));
            }
    }
}

static void join(const Call *c, int64_t unit0, int64_t unit1) {
    const Node *n = c->node;
    const Rows y = rows_of(&c->out[0], n->out[0].shape);
    for (Walk w = walk(n->out[0].shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        float *to = rows_at(&y, w.s, w.q);
        for (int k = 0; k < n->n_in; k++) {
            const Rows x = rows_of(&c->in[k], n->in_type[k].shape);
            memcpy(to, rows_at(&x, w.s, w.q), (size_t)x.cols * sizeof(float));
            to += x.cols;
        }
    }
}

static bool reals(const Node *n) { return n->out[0].dtype == DT_REAL && n->in_type[0].dtype == DT_REAL; }
static bool all_reals(const Node *n) {
    for (int k = 0; k < n->n_in; k++)
        if (n->in_type[k].dtype != DT_REAL) return false;
    return true;
}
const CpuRow mdr_cpu_rows_structural[] = {{"add", {.run = add, .units = rows_tiles_out}, all_reals},
                                          {"sum_rows", {.run = sum_rows, .units = rows_slabs}, reals},
                                          {"sum_cols", {.run = sum_cols, .units = rows_tiles_in}, reals},
                                          {"sum_batch", {.run = sum_batch, .units = batch_units}, all_reals},
                                          {"join", {.run = join, .units = rows_tiles_out}, all_reals},
                                          {0}};
