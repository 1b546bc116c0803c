/* conv_direct and conv_direct_dh with AVX2: tiles of eight positions by eight channels over the Toeplitz matrix. Columns are
 * copied to the scratch first (rows of a wide matrix fall on few lines of the cache), 16 channels at a time; the transpose
 * and dh are the same product with time turned round. Every element is one chain of multiply-adds in the order of s, so its
 * bits depend on nothing but its own sequence. Equations: conv_direct.c. */
#include "op/avx2.h"
#include "op/op.h"
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8, SPAN = 2 * LANES,                    /* channels of a vector and of a unit                              */
       TILE = 8 };                                     /* positions of a tile: so many accumulators                       */

typedef struct Columns { float *p; int64_t ld; int32_t rows, n; } Columns;      /* n <= 16 columns, row 0                 */

/* x to z[half][rows + TILE][8], turned: last row first. Rows and columns that are not there become 0. */
static void copy_in(Columns x, bool turned, float *z, int64_t half) {
    for (int32_t col = 0; col < x.n; col += LANES, z += half) {
        const int32_t n = x.n - col;
        const __m256i mask = v_mask(n);
        const float *from = x.p + col + (turned ? (x.rows - 1) * x.ld : 0);
        const int64_t step = turned ? -x.ld : x.ld;
        for (int32_t t = 0; t < x.rows; t++, from += step)
            _mm256_store_ps(z + t * LANES, n >= LANES ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, mask));
        for (int32_t t = x.rows; t < x.rows + TILE; t++) _mm256_store_ps(z + t * LANES, _mm256_setzero_ps());
    }
}
static void copy_out(const float *z, int64_t half, bool turned, Columns y) {
    for (int32_t col = 0; col < y.n; col += LANES, z += half) {
        const int32_t n = y.n - col;
        const __m256i mask = v_mask(n);
        float *to = y.p + col + (turned ? (y.rows - 1) * y.ld : 0);
        const int64_t step = turned ? -y.ld : y.ld;
        for (int32_t t = 0; t < y.rows; t++, to += step) {
            if (n >= LANES) _mm256_storeu_ps(to, _mm256_load_ps(z + t * LANES));
            else _mm256_maskstore_ps(to, mask, _mm256_load_ps(z + t * LANES));
        }
    }
}

/* y[0..8) of a tile at t: the steps s = 0..t have all eight products, of which h[t+i-s] for i < 4 wait in registers and move
 * up one output a step; i >= 4 come from the cache. Then the triangle s = t+1 .. t+7. */
#define FMA(i, v) a##i = _mm256_fmadd_ps(v, x, a##i)
#define AT(i) _mm256_load_ps(hs + (i) * LANES)
#define STEP(w0, w1, w2, w3)                                                                                           \
    x = _mm256_load_ps(us), us += LANES, w0 = AT(0);                                                                   \
    FMA(0, w0); FMA(1, w1); FMA(2, w2); FMA(3, w3);                                                                    \
    FMA(4, AT(4)); FMA(5, AT(5)); FMA(6, AT(6)); FMA(7, AT(7));                                                        \
    hs -= LANES
INLINE void tile(const float *u, const float *h, float *y, int32_t t, bool add) {
    __m256 a0, a1, a2, a3, a4, a5, a6, a7, x, w0, w1, w2, w3;
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = _mm256_setzero_ps();
    y += t * LANES;
    if (add) {
        a0 = _mm256_load_ps(y), a1 = _mm256_load_ps(y + 8), a2 = _mm256_load_ps(y + 16), a3 = _mm256_load_ps(y + 24);
        a4 = _mm256_load_ps(y + 32), a5 = _mm256_load_ps(y + 40), a6 = _mm256_load_ps(y + 48), a7 = _mm256_load_ps(y + 56);
    }
    const float *us = u, *hs = h + t * LANES;
    w3 = AT(3), w2 = AT(2), w1 = AT(1);
    int32_t s = 0;
    for (; s + 3 <= t; s += 4) {
        STEP(w0, w1, w2, w3);
        STEP(w3, w0, w1, w2);
        STEP(w2, w3, w0, w1);
        STEP(w1, w2, w3, w0);
    }
    for (; s <= t; s++) {
        STEP(w0, w1, w2, w3);
        w3 = w2, w2 = w1, w1 = w0;
    }
    hs += LANES;                                      /* now AT(i) is h[t + i - (s - 1)] = h[i]                            */
#define NEXT x = _mm256_load_ps(us), us += LANES
    NEXT; FMA(1, AT(0)); FMA(2, AT(1)); FMA(3, AT(2)); FMA(4, AT(3)); FMA(5, AT(4)); FMA(6, AT(5)); FMA(7, AT(6));
    NEXT; FMA(2, AT(0)); FMA(3, AT(1)); FMA(4, AT(2)); FMA(5, AT(3)); FMA(6, AT(4)); FMA(7, AT(5));
    NEXT; FMA(3, AT(0)); FMA(4, AT(1)); FMA(5, AT(2)); FMA(6, AT(3)); FMA(7, AT(4));
    NEXT; FMA(4, AT(0)); FMA(5, AT(1)); FMA(6, AT(2)); FMA(7, AT(3));
    NEXT; FMA(5, AT(0)); FMA(6, AT(1)); FMA(7, AT(2));
    NEXT; FMA(6, AT(0)); FMA(7, AT(1));
    NEXT; FMA(7, AT(0));
    _mm256_store_ps(y, a0), _mm256_store_ps(y + 8, a1), _mm256_store_ps(y + 16, a2), _mm256_store_ps(y + 24, a3);
    _mm256_store_ps(y + 32, a4), _mm256_store_ps(y + 40, a5), _mm256_store_ps(y + 48, a6), _mm256_store_ps(y + 56, a7);
}
/* y (+)= the causal product of u and h, all [rows + TILE][8]. */
static void product(const float *u, const float *h, float *y, int32_t rows, bool add) {
    for (int32_t t = 0; t < rows; t += TILE) tile(u, h, y, t, add);
}

static Shape shape_of(const Node *n) { return n->in_type[0].shape; }
static int64_t half_of(Shape x) { return ((int64_t)x.d[0] + TILE) * LANES; }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return 3 * 2 * sizeof(float) * (size_t)half_of(shape_of(n)) + 64;
}
static Columns columns(const Call *c, const Arg *a, int64_t seq, int64_t span) {
    const Shape x = shape_of(c->node);
    const int32_t first = (int32_t)span * SPAN, left = x.d[1] - first;
    return (Columns){(float *)a->data + seq * a->seq + first, a->ld, x.d[0], left < SPAN ? left : SPAN};
}
static int64_t spans(const Node *n) { return (shape_of(n).d[1] + SPAN - 1) / SPAN; }

/* unit = span * n_seq + sequence: neighbours share the filter */
static int64_t units(const Node *n, Extent e) { return spans(n) * e.n_seq; }
static void conv_direct(const Call *c, int64_t unit0, int64_t unit1) {
    const bool turned = ((const ConvAttr *)c->node->attr)->anticausal;
    const int64_t half = half_of(shape_of(c->node)), n_seq = c->extent.n_seq;
    float *u = c->scratch, *h = u + 2 * half, *y = h + 2 * half;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t span = unit / n_seq, seq = unit % n_seq;
        const Columns x = columns(c, &c->in[0], seq, span);
        copy_in(x, turned, u, half);
        if (unit == unit0 || seq == 0 || c->in[1].seq) copy_in(columns(c, &c->in[1], seq, span), false, h, half);
        for (int32_t k = 0; k * LANES < x.n; k++) product(u + k * half, h + k * half, y + k * half, x.rows, false);
        copy_out(y, half, turned, columns(c, &c->out[0], seq, span));
    }
}

/* dh is the transpose applied to dy with u for a filter. */
static int64_t units_dh(const Node *n, Extent e) {
    (void)e;
    return spans(n);
}
static void conv_direct_dh(const Call *c, int64_t unit0, int64_t unit1) {
    const bool add = c->add & 1u;
    const int64_t half = half_of(shape_of(c->node)), n_seq = c->extent.n_seq;
    float *dy = c->scratch, *u = dy + 2 * half, *dh = u + 2 * half;
    for (int64_t span = unit0; span < unit1; span++) {
        if (add) copy_in(columns(c, &c->out[0], 0, span), true, dh, half);
        for (int64_t seq = 0; seq < n_seq; seq++) {
            const Columns x = columns(c, &c->in[0], seq, span);
            copy_in(x, false, u, half);
            copy_in(columns(c, &c->in[1], seq, span), true, dy, half);
            for (int32_t k = 0; k * LANES < x.n; k++) product(dy + k * half, u + k * half, dh + k * half, x.rows, add);
            if (!add) copy_out(dh, half, true, columns(c, &c->out[0], seq, span));
        }
        if (add) copy_out(dh, half, true, columns(c, &c->out[0], 0, span));
    }
}

const CpuRow mdr_cpu_rows_conv_direct[] = {
    {.op = "conv_direct", .kernel = {.run = conv_direct, .units = units, .scratch = scratch}},
    {.op = "conv_direct_dh", .kernel = {.run = conv_direct_dh, .units = units_dh, .scratch = scratch}},
    {0}};
