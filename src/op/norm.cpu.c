/* rmsnorm, layernorm and gradients with AVX2. Along a row: four sums of eight lanes, folded in a fixed order. Over
 * rows: one chain of additions a column, starting from the accumulator, so that a slice of three sequences gives
 * the bits of three. */
#include "op/avx2.h"
#include "op/rows.h"
#include <math.h>

typedef struct Sum4 { __m256 a[4]; } Sum4;
static inline Sum4 sum4(void)
{
    return (Sum4){{_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()}};
}
static inline float sum4_fold(const Sum4 *s)
{
    return h_sum(_mm256_add_ps(_mm256_add_ps(s->a[0], s->a[1]), _mm256_add_ps(s->a[2], s->a[3])));
}
/* for (i over eights, lane = i/8 mod 4): whole groups of four without a mask, then the rest */
#define EACH8(n, body) \
    do { \
        int64_t i = 0; \
        for (; i + 32 <= (n); i += 32) { \
            { enum { lane = 0 }; const int64_t at = i, left = 8; body } \
            { enum { lane = 1 }; const int64_t at = i + 8, left = 8; body } \
            { enum { lane = 2 }; const int64_t at = i + 16, left = 8; body } \
            { enum { lane = 3 }; const int64_t at = i + 24, left = 8; body } \
        } \
        for (int lane = 0; i < (n); i += 8, lane++) { const int64_t at = i, left = (n) - i; body } \
    } while (0)

static inline float *stat_at(const Call *c, bool out, int k, const Walk *w) {
    const Arg *a = out ? &c->out[k] : &c->in[k];
    return (float *)a->data + w->s * a->seq + w->q;
}

static void rmsnorm(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], shape), gain = rows_of(&c->in[1], c->node->in_type[1].shape),
        y = rows_of(&c->out[0], shape);
    const int64_t n = x.cols;
    const double eps = ((const NormAttr *)c->node->attr)->eps;
    for (Walk w = walk(shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *xr = rows_at(&x, w.s, w.q), *g = rows_at(&gain, w.s, 0);
        float *yr = rows_at(&y, w.s, w.q);
        Sum4 sum = sum4();
        EACH8(n, __m256 v = v_load(xr + at, left); sum.a[lane] = _mm256_fmadd_ps(v, v, sum.a[lane]););
        const float rstd = (float)(1.0 / sqrt((double)sum4_fold(&sum) / (double)n + eps));
        const __m256 r = _mm256_set1_ps(rstd);
        EACH8(n, (void)lane; v_store(yr + at, left, _mm256_mul_ps(_mm256_mul_ps(v_load(xr + at, left), r),
            v_load(g + at, left))););
        if (c->out[1].data) *stat_at(c, true, 1, &w) = rstd;
    }
}

static void rmsnorm_grad(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], shape), gain = rows_of(&c->in[1], c->node->in_type[1].shape),
        dy = rows_of(&c->in[3], shape);
    const Rows dx = rows_of(&c->out[0], shape);
    const int64_t n = x.cols;
    for (Walk w = walk(shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *xr = rows_at(&x, w.s, w.q), *g = rows_at(&gain, w.s, 0), *d = rows_at(&dy, w.s, w.q);
        const float rstd = *stat_at(c, false, 2, &w);
        float *to = rows_at(&dx, w.s, w.q);
        Sum4 sum = sum4();
        EACH8(n, __m256 gd = _mm256_mul_ps(v_load(g + at, left), v_load(d + at, left));
              sum.a[lane] = _mm256_fmadd_ps(gd, v_load(xr + at, left), sum.a[lane]););
        const __m256 r = _mm256_set1_ps(rstd), dot = _mm256_set1_ps(sum4_fold(&sum) * (rstd * rstd / (float)n));
        EACH8(n, (void)lane; __m256 gd = _mm256_mul_ps(v_load(g + at, left), v_load(d + at, left));
              v_store(to + at, left, _mm256_mul_ps(r, _mm256_fnmadd_ps(v_load(xr + at, left), dot, gd))););
    }
}

static void layernorm(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], shape), y = rows_of(&c->out[0], shape);
    const Rows gain = rows_of(&c->in[1], c->node->in_type[1].shape), bias = rows_of(&c->in[2],
        c->node->in_type[2].shape);
    const int64_t n = x.cols;
    const double eps = ((const NormAttr *)c->node->attr)->eps;
    for (Walk w = walk(shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *xr = rows_at(&x, w.s, w.q), *g = rows_at(&gain, w.s, 0), *b = rows_at(&bias, w.s, 0);
        float *yr = rows_at(&y, w.s, w.q);
        Sum4 sum = sum4(), squares = sum4();
        EACH8(n, sum.a[lane] = _mm256_add_ps(v_load(xr + at, left), sum.a[lane]););
        const float mean = sum4_fold(&sum) / (float)n;
        const __m256 m = _mm256_set1_ps(mean);
        /* lanes beyond the row must not count as -mean */
        EACH8(n, __m256 v = _mm256_sub_ps(v_load(xr + at, left), m);
              if (left < 8) v = _mm256_and_ps(v, _mm256_castsi256_ps(v_mask((int)left)));
              squares.a[lane] = _mm256_fmadd_ps(v, v, squares.a[lane]););
        const float rstd = (float)(1.0 / sqrt((double)sum4_fold(&squares) / (double)n + eps));
        const __m256 r = _mm256_set1_ps(rstd);
        EACH8(n, (void)lane; __m256 h = _mm256_mul_ps(_mm256_sub_ps(v_load(xr + at, left), m), r);
              v_store(yr + at, left, _mm256_fmadd_ps(h, v_load(g + at, left), v_load(b + at, left))););
        if (c->out[1].data) *stat_at(c, true, 1, &w) = mean;
        if (c->out[2].data) *stat_at(c, true, 2, &w) = rstd;
    }
}

static void layernorm_grad(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], shape), gain = rows_of(&c->in[1], c->node->in_type[1].shape),
        dy = rows_of(&c->in[4], shape);
    const Rows dx = rows_of(&c->out[0], shape);
    const int64_t n = x.cols;
    for (Walk w = walk(shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *xr = rows_at(&x, w.s, w.q), *g = rows_at(&gain, w.s, 0), *d = rows_at(&dy, w.s, w.q);
        const __m256 m = _mm256_set1_ps(*stat_at(c, false, 2, &w)), r = _mm256_set1_ps(*stat_at(c, false, 3, &w));
        float *to = rows_at(&dx, w.s, w.q);
        Sum4 sum = sum4(), dots = sum4();
        EACH8(n, __m256 gd = _mm256_mul_ps(v_load(g + at, left), v_load(d + at, left));
              __m256 h = _mm256_mul_ps(_mm256_sub_ps(v_load(xr + at, left), m), r);
              sum.a[lane] = _mm256_add_ps(sum.a[lane], gd);
              dots.a[lane] = _mm256_fmadd_ps(gd, h, dots.a[lane]););
        const __m256 mean = _mm256_set1_ps(sum4_fold(&sum) / (float)n),
            dot = _mm256_set1_ps(sum4_fold(&dots) / (float)n);
        EACH8(n, (void)lane; __m256 gd = _mm256_mul_ps(v_load(g + at, left), v_load(d + at, left));
              __m256 h = _mm256_mul_ps(_mm256_sub_ps(v_load(xr + at, left), m), r);
              v_store(to + at, left, _mm256_mul_ps(r, _mm256_fnmadd_ps(h, dot, _mm256_sub_ps(gd, mean)))););
    }
}

/* One slab of columns of sum_rows dy (x - mean) rstd; mean may be absent. w: vectors in the slab, last_n lanes in the
 * last. */
static inline __attribute__((always_inline)) void dw_slab(const Call *c, const Rows *x, const Rows *dy, int32_t s,
    const float *mean,
                                                         const float *rstd, float *to, int64_t col, int n_vec,
                                                             int64_t width) {
    (void)c;
    __m256 sum[COL_SLAB / 8];
    for (int j = 0; j < n_vec; j++) sum[j] = c->add & 1u ? v_load(to + 8 * j, width - 8 * j) : _mm256_setzero_ps();
    for (int64_t q = 0; q < x->rows; q++) {
        const float *xr = rows_at(x, s, q) + col, *d = rows_at(dy, s, q) + col;
        const __m256 r = _mm256_set1_ps(rstd[q]), m = _mm256_set1_ps(mean ? mean[q] : 0.0f);
        for (int j = 0; j < n_vec; j++) {
            __m256 h = v_load(xr + 8 * j, width - 8 * j);
            if (mean) h = _mm256_sub_ps(h, m);
            sum[j] = _mm256_fmadd_ps(v_load(d + 8 * j, width - 8 * j), _mm256_mul_ps(h, r), sum[j]);
        }
    }
    for (int j = 0; j < n_vec; j++) v_store(to + 8 * j, width - 8 * j, sum[j]);
}
static inline __attribute__((always_inline)) void dw(const Call *c, int mean_of, int rstd_of, int dy_of, int64_t unit0,
    int64_t unit1) {
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape), dy = rows_of(&c->in[dy_of],
        c->node->in_type[0].shape);
    for (int64_t u = unit0; u < unit1; u++) {
        const int64_t col = u * COL_SLAB, width = x.cols - col < COL_SLAB ? x.cols - col : COL_SLAB;
        for (int32_t s = 0; s < c->extent.n_seq; s++) {
            const float *mean = mean_of >= 0 ? (const float *)c->in[mean_of].data + s * c->in[mean_of].seq : NULL;
            const float *rstd = (const float *)c->in[rstd_of].data + s * c->in[rstd_of].seq;
            float *to = (float *)c->out[0].data + s * c->out[0].seq + col;
            if (width == COL_SLAB) dw_slab(c, &x, &dy, s, mean, rstd, to, col, COL_SLAB / 8, COL_SLAB);
            else dw_slab(c, &x, &dy, s, mean, rstd, to, col, (int)(width + 7) / 8, width);
        }
    }
}
static void rmsnorm_dw(const Call *c, int64_t unit0, int64_t unit1) { dw(c, -1, 1, 2, unit0, unit1); }
static void layernorm_dw(const Call *c, int64_t unit0, int64_t unit1) { dw(c, 1, 2, 3, unit0, unit1); }

const CpuRow mdr_cpu_rows_norm[] = {{"rmsnorm", {.run = rmsnorm, .units = rows_tiles_out}, NULL},
                                    {"rmsnorm_grad", {.run = rmsnorm_grad, .units = rows_tiles_out}, NULL},
                                    {"rmsnorm_dw", {.run = rmsnorm_dw, .units = rows_slabs}, NULL},
                                    {"layernorm", {.run = layernorm, .units = rows_tiles_out}, NULL},
                                    {"layernorm_grad", {.run = layernorm_grad, .units = rows_tiles_out}, NULL},
                                    {"layernorm_dw", {.run = layernorm_dw, .units = rows_slabs}, NULL},
                                    {0}};
