/* rope, fast: a unit is BLOCK rows of one sequence, the sequences of one block side by side, so that a table of
 * cosines and sines is made once for all of them. The table starts from exact angles at every block and then turns
 * row by row in double (64 turns lose 1e-14): no library, one multiplication of complex numbers a pair and row.
 * Bits depend on the row alone. */
#include "base/real_math.h"
#include "op/avx2.h"
#include "op/op.h"

enum { BLOCK = 64 };
/* [BLOCK][stride] each */
typedef struct Work { float *cs, *sn; int32_t half, stride; } Work;

static int32_t head_size(const Node *n) { return n->in_type[0].shape.d[1] / ((const RopeAttr *)n->attr)->n_heads; }
static int32_t stride_of(int32_t half) { return (half + 3) & ~3; }
static int64_t n_blocks(const Node *n) { return (n->in_type[0].shape.d[0] + BLOCK - 1) / BLOCK; }
static int64_t units(const Node *n, Extent e) { return n_blocks(n) * e.n_seq; }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return sizeof(float) * 2 * BLOCK * (size_t)stride_of(head_size(n) / 2);
}

/* cos and sin of row0 .. row0+rows-1 for all pairs, four pairs at a time */
static void make_table(const RopeAttr *a, const Work *w, int32_t row0, int32_t rows) {
    for (int32_t i = 0; i < w->half; i += 4) {
        double c[4], s[4], turn_c[4], turn_s[4];
        for (int32_t k = 0; k < 4; k++) {
            const double turn = d_exp(-(i + k) * d_log(a->base) * 2.0 / (2 * w->half));
            d_sincos(row0 * turn, &s[k], &c[k]);
            d_sincos(turn, &turn_s[k], &turn_c[k]);
            if (a->sign < 0) s[k] = -s[k], turn_s[k] = -turn_s[k];
        }
        __m256d vc = _mm256_loadu_pd(c), vs = _mm256_loadu_pd(s);
        const __m256d tc = _mm256_loadu_pd(turn_c), ts = _mm256_loadu_pd(turn_s);
        for (int32_t t = 0; t < rows; t++) {
            _mm_store_ps(w->cs + t * w->stride + i, _mm256_cvtpd_ps(vc));
            _mm_store_ps(w->sn + t * w->stride + i, _mm256_cvtpd_ps(vs));
            const __m256d next = _mm256_fmsub_pd(vc, tc, _mm256_mul_pd(vs, ts));
            vs = _mm256_fmadd_pd(vs, tc, _mm256_mul_pd(vc, ts));
            vc = next;
        }
    }
}

/* Heads of 8: both halves in one register, swapped by their 128-bit lanes. */
static void turn8(const float *cs, const float *sn, int32_t cols, const float *x, float *y) {
    const __m256 c = _mm256_broadcast_ps((const __m128 *)cs), plus = _mm256_broadcast_ps((const __m128 *)sn);
    const __m256 s = _mm256_xor_ps(plus, _mm256_setr_ps(-0.0f, -0.0f, -0.0f, -0.0f, 0.0f, 0.0f, 0.0f, 0.0f));
    for (int32_t i = 0; i < cols; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, c, _mm256_mul_ps(_mm256_permute2f128_ps(v, v, 1), s)));
    }
}
#define TURN(load, store)                                                                                              \
    const __m256 p = load(x1), q = load(x2), c = load(cs + i), s = load(sn + i);                                       \
    store(y1, _mm256_fmsub_ps(p, c, _mm256_mul_ps(q, s)));                                                             \
    store(y1 + half, _mm256_fmadd_ps(q, c, _mm256_mul_ps(p, s)));
#define LOAD_PART(from) _mm256_maskload_ps(from, mask)
#define STORE_PART(to, v) _mm256_maskstore_ps(to, mask, v)
static void turn_any(const float *cs, const float *sn, int32_t half, int32_t cols, const float *x, float *y) {
    const __m256i mask = v_mask(half % 8);
    for (int32_t h = 0; h < cols; h += 2 * half)
        for (int32_t i = 0; i < half; i += 8) {
            const float *x1 = x + h + i, *x2 = x1 + half;
            float *y1 = y + h + i;
            if (half - i >= 8) { TURN(_mm256_loadu_ps, _mm256_storeu_ps) }
            else { TURN(LOAD_PART, STORE_PART) }
        }
}

static void rope_fast(const Call *c, int64_t unit0, int64_t unit1) {
    const Node *n = c->node;
    const int32_t rows = n->in_type[0].shape.d[0], cols = n->in_type[0].shape.d[1], half = head_size(n) / 2,
        stride = stride_of(half);
    const Work w = {c->scratch, (float *)c->scratch + BLOCK * stride, half, stride};
    int64_t made = -1;
    for (int64_t u = unit0; u < unit1; u++) {
        const int64_t block = u / c->extent.n_seq, s = u % c->extent.n_seq;
        const int32_t row0 = (int32_t)block * BLOCK, count = rows - row0 < BLOCK ? rows - row0 : BLOCK;
        if (block != made) make_table(n->attr, &w, row0, count);
        made = block;
        for (int32_t t = 0; t < count; t++) {
            const float *x = (const float *)c->in[0].data + s * c->in[0].seq + (row0 + t) * c->in[0].ld;
            float *y = (float *)c->out[0].data + s * c->out[0].seq + (row0 + t) * c->out[0].ld;
            if (half == 4) turn8(w.cs + t * stride, w.sn + t * stride, cols, x, y);
            else turn_any(w.cs + t * stride, w.sn + t * stride, half, cols, x, y);
        }
    }
}

const CpuRow mdr_cpu_rows_rope[] = {{.op = "rope", .kernel = {.run = rope_fast, .units = units, .scratch = scratch}},
    {0}};
