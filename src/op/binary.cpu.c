/* binary (sub, mul, div) with AVX2; y in full, by rows, or one element. */
#include "op/avx2.h"
#include "op/rows.h"

typedef __m256 Fn(__m256 x, __m256 y);
static inline __m256 f_sub(__m256 x, __m256 y) { return _mm256_sub_ps(x, y); }
static inline __m256 f_mul(__m256 x, __m256 y) { return _mm256_mul_ps(x, y); }
static inline __m256 f_div(__m256 x, __m256 y) { return _mm256_div_ps(x, y); }

static inline __attribute__((always_inline)) void map(int64_t n, const float *x, const float *y, bool one, float *z,
    Fn *f) {
    if (one) {
        const __m256 all = _mm256_set1_ps(*y);
        for (int64_t i = 0; i < n; i += 8) v_store(z + i, n - i, f(v_load(x + i, n - i), all));
    } else {
        for (int64_t i = 0; i < n; i += 8) v_store(z + i, n - i, f(v_load(x + i, n - i), v_load(y + i, n - i)));
    }
}
static void span(int32_t kind, int64_t n, const float *x, const float *y, bool one, float *z) {
    if (kind == BIN_SUB) map(n, x, y, one, z, f_sub);
    else if (kind == BIN_MUL) map(n, x, y, one, z, f_mul);
    else map(n, x, y, one, z, f_div);
}

static void binary(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t kind = ((const BinaryAttr *)c->node->attr)->kind;
    const Shape s = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[0], s), y = rows_of(&c->in[1], c->node->in_type[1].shape), z = rows_of(&c->out[0], s);
    const bool one = y.rows * y.cols == 1;
    const bool merge = rows_flat(&x) && rows_flat(&z) && (one || (y.rows == x.rows && rows_flat(&y)));
    for (Walk w = walk(s, c->extent, unit0, unit1, merge); walk_next(&w);)
        span(kind, w.n * z.cols, rows_at(&x, w.s, w.q), rows_at(&y, w.s, w.q), one, rows_at(&z, w.s, w.q));
}

const CpuRow mdr_cpu_rows_binary[] = {{"binary", {.run = binary, .units = rows_tiles_out}, NULL}, {0}};
