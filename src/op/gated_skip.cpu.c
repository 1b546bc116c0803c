/* gated_skip and its gradient with AVX2, row by row. db accumulates in place, rows in order, one chain a column. */
#include "op/avx2.h"
#include "op/rows.h"
#include <string.h>

enum { IN_C, IN_U, IN_B, IN_X, IN_DY };
enum { OUT_DC, OUT_DU, OUT_DX, OUT_DB };

static void skip(const Call *c, int64_t unit0, int64_t unit1)
{
    const Shape s = c->node->out[0].shape;
    const Rows v = rows_of(&c->in[IN_C], s), u = rows_of(&c->in[IN_U], s), x = rows_of(&c->in[IN_X], s), y = rows_of(&c->out[0], s);
    for (Walk w = walk(s, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *vr = rows_at(&v, w.s, w.q), *ur = rows_at(&u, w.s, w.q), *xr = rows_at(&x, w.s, w.q);
        const float *b = (const float *)c->in[IN_B].data + w.s * c->in[IN_B].seq;
        float *to = rows_at(&y, w.s, w.q);
        for (int64_t i = 0; i < y.cols; i += 8) {
            const int64_t n = y.cols - i;
            __m256 t = _mm256_fmadd_ps(v_load(b + i, n), v_load(ur + i, n), v_load(vr + i, n));
            v_store(to + i, n, _mm256_mul_ps(t, v_load(xr + i, n)));
        }
    }
}

static void grad_row(const float *v, const float *u, const float *b, const float *x, const float *dy, float *dc, float *du, float *dx,
                     float *db, int64_t cols)
{
    for (int64_t i = 0; i < cols; i += 8) {
        const int64_t n = cols - i;
        const __m256 d = v_load(dy + i, n), s = _mm256_mul_ps(d, v_load(x + i, n)), bias = v_load(b + i, n), ui = v_load(u + i, n);
        if (dx) v_store(dx + i, n, _mm256_mul_ps(d, _mm256_fmadd_ps(bias, ui, v_load(v + i, n))));
        if (dc) v_store(dc + i, n, s);
        if (du) v_store(du + i, n, _mm256_mul_ps(s, bias));
        if (db) v_store(db + i, n, _mm256_fmadd_ps(s, ui, v_load(db + i, n)));
    }
}

/* One unit: db sums over the rows that the other outputs are made of. */
static void skip_grad(const Call *c, int64_t unit0, int64_t unit1)
{
    const Shape s = c->node->in_type[IN_C].shape;
    const Rows v = rows_of(&c->in[IN_C], s), u = rows_of(&c->in[IN_U], s), x = rows_of(&c->in[IN_X], s), dy = rows_of(&c->in[IN_DY], s);
    Rows out[3];
    (void)unit0; (void)unit1;
    for (int k = OUT_DC; k <= OUT_DX; k++) out[k] = rows_of(&c->out[k], s);
    for (int64_t q = 0; q < c->extent.n_seq; q++) {
        const float *b = (const float *)c->in[IN_B].data + q * c->in[IN_B].seq;
        float *db = c->out[OUT_DB].data ? (float *)c->out[OUT_DB].data + q * c->out[OUT_DB].seq : NULL;
        if (db && !((c->add >> OUT_DB) & 1u)) memset(db, 0, (size_t)v.cols * sizeof *db);
        for (int64_t r = 0; r < v.rows; r++)
            grad_row(rows_at(&v, q, r), rows_at(&u, q, r), b, rows_at(&x, q, r), rows_at(&dy, q, r),
                     out[OUT_DC].data ? rows_at(&out[OUT_DC], q, r) : NULL, out[OUT_DU].data ? rows_at(&out[OUT_DU], q, r) : NULL,
                     out[OUT_DX].data ? rows_at(&out[OUT_DX], q, r) : NULL, db, v.cols);
    }
}

const CpuRow mdr_cpu_rows_gated_skip[] = {{"gated_skip", {.run = skip, .units = rows_tiles_out}, NULL},
                                          {"gated_skip_grad", {.run = skip_grad}, NULL},
                                          {0}};
