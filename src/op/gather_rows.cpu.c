/* gather_rows by tiles of rows; scatter_rows by slabs of columns, so that rows are added in order whoever runs which
 * slab. */
#include "op/avx2.h"
#include "op/rows.h"
#include <string.h>

static void gather(const Call *c, int64_t unit0, int64_t unit1) {
    const Rows table = rows_of(&c->in[0], c->node->in_type[0].shape), y = rows_of(&c->out[0], c->node->out[0].shape);
    const int32_t *ids = c->in[1].data;
    for (Walk w = walk(c->node->out[0].shape, c->extent, unit0, unit1, false); walk_next(&w);)
        memcpy(rows_at(&y, w.s, w.q), rows_at(&table, w.s, ids[w.s * c->in[1].seq + w.q]),
            (size_t)y.cols * sizeof(float));
}

static void scatter(const Call *c, int64_t unit0, int64_t unit1) {
    const Rows dy = rows_of(&c->in[0], c->node->in_type[0].shape), to = rows_of(&c->out[0], c->node->out[0].shape);
    const int64_t col0 = unit0 * COL_SLAB, col1 = unit1 * COL_SLAB < to.cols ? unit1 * COL_SLAB : to.cols;
    for (int32_t s = 0; s < c->extent.n_seq; s++) {
        const int32_t *ids = (const int32_t *)c->in[1].data + s * c->in[1].seq;
        for (int64_t v = 0; v < to.rows && !(c->add & 1u); v++)
            memset(rows_at(&to, s, v) + col0, 0, (size_t)(col1 - col0) * sizeof(float));
        for (int64_t t = 0; t < dy.rows; t++) {
            const float *from = rows_at(&dy, s, t);
            float *sum = rows_at(&to, s, ids[t]);
            for (int64_t i = col0; i < col1; i += 8)
                v_store(sum + i, col1 - i, _mm256_add_ps(v_load(sum + i, col1 - i), v_load(from + i, col1 - i)));
        }
    }
}

const CpuRow mdr_cpu_rows_gather_rows[] = {{"gather_rows", {.run = gather, .units = rows_tiles_out}, NULL},
                                           {"scatter_rows", {.run = scatter, .units = rows_slabs}, NULL},
                                           {0}};
