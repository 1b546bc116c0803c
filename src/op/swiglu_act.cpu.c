/* swiglu_act and its gradient with AVX2, row by row: gate and up are the halves of a row. */
#include "op/avx2.h"
#include "op/rows.h"

static void act(const Call *c, int64_t unit0, int64_t unit1) {
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape), y = rows_of(&c->out[0], c->node->out[0].shape);
    for (Walk w = walk(c->node->out[0].shape, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *gate = rows_at(&x, w.s, w.q), *up = gate + y.cols;
        float *to = rows_at(&y, w.s, w.q);
        for (int64_t i = 0; i < y.cols; i += 8) {
            __m256 g = v_load(gate + i, y.cols - i), u = v_load(up + i, y.cols - i);
            v_store(to + i, y.cols - i, _mm256_mul_ps(_mm256_mul_ps(g, v_sigmoid(g)), u));
        }
    }
}

static void act_grad(const Call *c, int64_t unit0, int64_t unit1) {
    const Shape half = c->node->in_type[1].shape;
    const Rows x = rows_of(&c->in[0], c->node->in_type[0].shape), dy = rows_of(&c->in[1], half);
    const Rows dx = rows_of(&c->out[0], c->node->out[0].shape);
    const __m256 one = _mm256_set1_ps(1.0f);
    for (Walk w = walk(half, c->extent, unit0, unit1, false); walk_next(&w);) {
        const float *gate = rows_at(&x, w.s, w.q), *up = gate + dy.cols, *from = rows_at(&dy, w.s, w.q);
        float *to = rows_at(&dx, w.s, w.q);
        for (int64_t i = 0; i < dy.cols; i += 8) {
            const int64_t n = dy.cols - i;
            __m256 g = v_load(gate + i, n), u = v_load(up + i, n), d = v_load(from + i, n), s = v_sigmoid(g);
            __m256 slope = _mm256_mul_ps(s, _mm256_fmadd_ps(g, _mm256_sub_ps(one, s), one));
            v_store(to + i, n, _mm256_mul_ps(_mm256_mul_ps(d, u), slope));
            v_store(to + dy.cols + i, n, _mm256_mul_ps(d, _mm256_mul_ps(g, s)));
        }
    }
}

const CpuRow mdr_cpu_rows_swiglu_act[] = {{"swiglu_act", {.run = act, .units = rows_tiles_out}, NULL},
                                          {"swiglu_act_grad", {.run = act_grad, .units = rows_tiles_out}, NULL},
                                          {0}};
