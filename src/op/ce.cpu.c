/* Cross entropy, its gradient and class counts with AVX2. A row's sum of exponentials has a fixed order of lanes;
 * rows are added in double, in order, from the accumulator's value. ce and class_counts are one unit: they have one
 * sum. */
#include "op/avx2.h"
#include "op/rows.h"
#include "base/real_math.h"

static const float low = -__builtin_inff();

static inline __m256 load_or_low(const float *p, int64_t n) {                  /* missing lanes are never the largest */
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_blendv_ps(_mm256_set1_ps(low), v_load(p, n),
        _mm256_castsi256_ps(v_mask((int)n)));
}
/* A NaN among the logits may be lost here, not in the sum of exponentials. */
static float row_top(const float *x, int64_t n) {
    __m256 a = _mm256_set1_ps(low), b = a;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        a = _mm256_max_ps(a, _mm256_loadu_ps(x + i));
        b = _mm256_max_ps(b, _mm256_loadu_ps(x + i + 8));
    }
    for (; i < n; i += 8) a = _mm256_max_ps(a, load_or_low(x + i, n - i));
    return h_max(_mm256_max_ps(a, b));
}
/* sum e^(x - top); the terms go to `to` if it is not NULL (to may be x) */
static inline __attribute__((always_inline)) float row_exps(const float *x, int64_t n, float top, float *to) {
    const __m256 t = _mm256_set1_ps(top);
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 2; j++) {
            __m256 e = v_exp(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * j), t));
            if (to) _mm256_storeu_ps(to + i + 8 * j, e);
            sum[j] = _mm256_add_ps(sum[j], e);
        }
    for (; i < n; i += 8) {
        __m256 e = v_exp(_mm256_sub_ps(v_load(x + i, n - i), t));
        if (n - i < 8) e = _mm256_and_ps(e, _mm256_castsi256_ps(v_mask((int)(n - i))));
        if (to) v_store(to + i, n - i, e);
        sum[0] = _mm256_add_ps(sum[0], e);
    }
    return h_sum(_mm256_add_ps(sum[0], sum[1]));
}

static void ce(const Call *c, int64_t unit0, int64_t unit1) {
    (void)unit0; (void)unit1;
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape);
    for (int32_t s = 0; s < c->extent.n_seq; s++) {
        const int32_t *target = (const int32_t *)c->in[1].data + s * c->in[1].seq;
        const double inv = (double)((const float *)c->in[2].data)[s * c->in[2].seq];
        double *loss = (double *)c->out[0].data + s * c->out[0].seq, sum = c->add & 1u ? *loss : 0.0;
        for (int64_t t = 0; t < x.rows; t++) {
            if (target[t] < 0) continue;
            const float *row = rows_at(&x, s, t), top = row_top(row, x.cols);
            sum += (d_log((double)row_exps(row, x.cols, top, NULL)) + (double)top - (double)row[target[t]]) * inv;
        }
        *loss = sum;
    }
}

static void ce_grad(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape shape = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], shape), dx = rows_of(&c->out[0], shape);
    for (Walk w = walk(shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const int32_t target = ((const int32_t *)c->in[1].data)[w.s * c->in[1].seq + w.q];
        const double scale = (double)((const float *)c->in[2].data)[w.s * c->in[2].seq] *
                             (double)((const float *)c->in[3].data)[w.s * c->in[3].seq];
        const float *row = rows_at(&x, w.s, w.q);
        float *to = rows_at(&dx, w.s, w.q);
        if (target < 0) {
            memset(to, 0, (size_t)x.cols * sizeof(float));
            continue;
        }
        const double sum = (double)row_exps(row, x.cols, row_top(row, x.cols), to);
        const float wanted = (float)(((double)to[target] / sum - 1.0) * scale);
        const __m256 f = _mm256_set1_ps((float)(scale / sum));
        for (int64_t i = 0; i < x.cols; i += 8)
            v_store(to + i, x.cols - i, _mm256_mul_ps(v_load(to + i, x.cols - i), f));
        to[target] = wanted;
    }
}

/* The first largest; strict comparison keeps the first in each lane, the fold keeps the first among lanes. */
static int32_t row_best(const float *x, int64_t n) {
    __m256 top = _mm256_set1_ps(low);
    __m256i best = _mm256_setzero_si256(), at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = load_or_low(x + i, n - i), more = _mm256_cmp_ps(v, top, _CMP_GT_OQ);
        top = _mm256_blendv_ps(top, v, more);
        best = _mm256_blendv_epi8(best, at, _mm256_castps_si256(more));
        at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
    }
    float v[8];
    int32_t k[8], first = 0;
    _mm256_storeu_ps(v, top);
    _mm256_storeu_si256((__m256i *)(void *)k, best);
    for (int j = 1; j < 8; j++)
        if (v[j] > v[first] || (v[j] == v[first] && k[j] < k[first])) first = j;
    return k[first];
}
static void class_counts(const Call *c, int64_t unit0, int64_t unit1) {
    (void)unit0; (void)unit1;
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape);
    for (int32_t s = 0; s < c->extent.n_seq; s++) {
        const int32_t *target = (const int32_t *)c->in[1].data + s * c->in[1].seq;
        double *wanted = (double *)c->out[0].data + s * c->out[0].seq, *predicted = wanted + c->out[0].ld,
            *hit = predicted + c->out[0].ld;
        for (int r = 0; r < 3 && !(c->add & 1u); r++)
            memset(wanted + r * c->out[0].ld, 0, (size_t)x.cols * sizeof(double));
        for (int64_t t = 0; t < x.rows; t++) {
            if (target[t] < 0) continue;
            const int32_t best = row_best(rows_at(&x, s, t), x.cols);
            wanted[target[t]] += 1;
            predicted[best] += 1;
            if (best == target[t]) hit[best] += 1;
        }
    }
}

const CpuRow mdr_cpu_rows_ce[] = {{"ce", {.run = ce}, NULL},
                                  {"ce_grad", {.run = ce_grad, .units = rows_tiles_out}, NULL},
                                  {"class_counts", {.run = class_counts}, NULL},
                                  {0}};
