/* conv_short and its two gradients with AVX2, lanes = channels. Rows go by tiles so that a tile's input and output rows stay
 * in the cache while all channels pass; within a tile the taps and the last rows of x stay in registers. The usual numbers
 * of taps (2, 3, 4) are compiled each, others share one text. Equations: conv_short.c. */
#include "op/avx2.h"
#include "op/op.h"
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* Rows of a tile: many save loads of weights, few keep rows that lie a power of two apart in the cache together. Measured. */
enum { TILE_Y = 12, TILE_W = 16, TILE_X = 8 /* one accumulator a row */, SPAN = 64 /* channels of a unit, dw */ };

/* j = 0 .. taps-1 without a loop: arrays indexed by constants stay in registers with every compiler. */
#define EACH_TAP(X) do { X(0) if (taps > 1) { X(1) } if (taps > 2) { X(2) } if (taps > 3) { X(3) } if (taps > 4) { X(4) }       \
                         if (taps > 5) { X(5) } if (taps > 6) { X(6) } if (taps > 7) { X(7) } } while (0)
#define SHIFT(x) do { x[7] = x[6]; x[6] = x[5]; x[5] = x[4]; x[4] = x[3]; x[3] = x[2]; x[2] = x[1]; x[1] = x[0]; } while (0)

/* The last, incomplete vector of a row goes through a mask; n >= 8: a whole one. */
INLINE __m256 get(const float *p, int n) {
    if (n >= 8) return _mm256_loadu_ps(p);
    return _mm256_maskload_ps(p, v_mask(n));
}
INLINE void put(float *p, int n, __m256 v) {
    if (n >= 8) _mm256_storeu_ps(p, v);
    else _mm256_maskstore_ps(p, v_mask(n), v);
}

/* One strip of eight columns (n of them real) of a matrix. */
typedef struct Strip { float *p; int64_t ld; } Strip;

/* y rows [t0, t1) of one strip; x, y: row 0 of it; w, bias: at its channels. */
INLINE void forward(Strip x, Strip w, const float *bias, Strip y, int32_t t0, int32_t t1, const int n, const int taps) {
    __m256 v[8] = {0}, f[8] = {0}, b = bias ? get(bias, n) : _mm256_setzero_ps();
#define WEIGHT(j) f[j] = get(w.p + (taps - 1 - j) * w.ld, n);
    EACH_TAP(WEIGHT);
#define BEFORE(j) if (j && t0 - j >= 0) v[j ? j - 1 : 0] = get(x.p + (t0 - j) * x.ld, n);
    EACH_TAP(BEFORE);
    for (int32_t t = t0; t < t1; t++) {
        SHIFT(v);
        v[0] = get(x.p + t * x.ld, n);
        __m256 sum = b;
#define PRODUCT(j) sum = _mm256_fmadd_ps(f[j], v[j], sum);
        EACH_TAP(PRODUCT);
        put(y.p + t * y.ld, n, sum);
    }
}

/* dx rows [t0, t0 + TILE_X) of one strip, over all tiles: dy and w at the strip's first tile, the others step columns on. Every
 * row of dy is loaded once and goes to the taps rows of dx that saw it. */
INLINE void transpose(Strip dy, Strip w, Strip dx, int32_t t0, int32_t rows, int32_t n_tile, int32_t step, const bool whole,
                      const int n, const int taps) {
    __m256 sum[TILE_X] = {0}, f[8] = {0}, d;
    for (int32_t k = 0; k < n_tile; k++, dy.p += step, w.p += step) {
        EACH_TAP(WEIGHT);
#define AT(i, j) sum[(i - j) & (TILE_X - 1)]
#define TO(i, j) if (j < taps && i >= j && i - j < TILE_X) AT(i, j) = _mm256_fmadd_ps(f[j], d, AT(i, j));
#define ROW(i)                                                                                                         \
        if (i < TILE_X + taps - 1 && (whole || t0 + i < rows)) {                                                       \
            d = get(dy.p + (t0 + i) * dy.ld, n);                                                                       \
            TO(i, 0) TO(i, 1) TO(i, 2) TO(i, 3) TO(i, 4) TO(i, 5) TO(i, 6) TO(i, 7)                                    \
        }
        ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7) ROW(8) ROW(9) ROW(10) ROW(11) ROW(12) ROW(13) ROW(14)
    }
#define OUT_ROW(i) if (whole || t0 + i < rows) put(dx.p + (t0 + i) * dx.ld, n, sum[i]);
    OUT_ROW(0) OUT_ROW(1) OUT_ROW(2) OUT_ROW(3) OUT_ROW(4) OUT_ROW(5) OUT_ROW(6) OUT_ROW(7)
}

/* dw += over rows [t0, t1) of one strip; dw: [8][SPAN] at its channels, by j. */
INLINE void weights(Strip x, Strip dy, float *dw, int32_t t0, int32_t t1, const int n, const int taps) {
    __m256 v[8] = {0}, sum[8] = {0}, d;
#define LOAD_SUM(j) sum[j] = _mm256_load_ps(dw + j * SPAN);
    EACH_TAP(LOAD_SUM);
    EACH_TAP(BEFORE);
    for (int32_t t = t0; t < t1; t++) {
        SHIFT(v);
        v[0] = get(x.p + t * x.ld, n);
        d = get(dy.p + t * dy.ld, n);
#define COLLECT(j) sum[j] = _mm256_fmadd_ps(d, v[j], sum[j]);
        EACH_TAP(COLLECT);
    }
#define STORE_SUM(j) _mm256_store_ps(dw + j * SPAN, sum[j]);
    EACH_TAP(STORE_SUM);
}

/* Calls f(.., n, taps) with both constant where it matters. */
#define BY_TAPS(f, n, taps, ...)                                                                                       \
    do switch (taps) {                                                                                                 \
        case 2: f(__VA_ARGS__, n, 2); break;                                                                           \
        case 3: f(__VA_ARGS__, n, 3); break;                                                                           \
        case 4: f(__VA_ARGS__, n, 4); break;                                                                           \
        default: f(__VA_ARGS__, n, taps);                                                                              \
    } while (0)

static Strip strip(const Arg *a, int64_t s, int32_t col) { return (Strip){(float *)a->data + s * a->seq + col, a->ld}; }
static Shape x_shape(const Node *n) { return n->in_type[0].shape; }

/* ---- forward: a unit is a tile of rows of a sequence ---- */
static int64_t row_tiles(int32_t rows, int32_t tile) { return (rows + tile - 1) / tile; }
static int64_t units_y(const Node *n, Extent e) { return e.n_seq * row_tiles(x_shape(n).d[0], TILE_Y); }
static void run_y(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t rows = x_shape(c->node).d[0], cols_x = x_shape(c->node).d[1], cols = c->node->out[0].shape.d[1];
    const int32_t taps = c->node->in_type[1].shape.d[0];
    const int64_t per_seq = row_tiles(rows, TILE_Y);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t s = unit / per_seq;
        const int32_t t0 = (int32_t)(unit % per_seq) * TILE_Y, t1 = t0 + TILE_Y < rows ? t0 + TILE_Y : rows;
        for (int32_t tile = 0; tile < cols; tile += cols_x)
            for (int32_t k = 0; k < cols_x; k += 8) {
                const float *bias = c->in[2].data ? strip(&c->in[2], s, tile + k).p : NULL;
                const int n = cols_x - k;
                Strip x = strip(&c->in[0], s, k), w = strip(&c->in[1], s, tile + k), y = strip(&c->out[0], s, tile + k);
                if (n >= 8) BY_TAPS(forward, 8, taps, x, w, bias, y, t0, t1);
                else forward(x, w, bias, y, t0, t1, n, taps);
            }
    }
}

/* ---- dx: a unit is TILE_X rows of a sequence ---- */
static int64_t units_dx(const Node *n, Extent e) { return e.n_seq * row_tiles(n->in_type[0].shape.d[0], TILE_X); }
static void run_dx(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t rows = c->node->in_type[0].shape.d[0], cols = c->node->in_type[0].shape.d[1];
    const int32_t cols_x = c->node->out[0].shape.d[1], taps = c->node->in_type[1].shape.d[0], n_tile = cols / cols_x;
    const int64_t per_seq = row_tiles(rows, TILE_X);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t s = unit / per_seq;
        const int32_t t0 = (int32_t)(unit % per_seq) * TILE_X;
        for (int32_t k = 0; k < cols_x; k += 8) {
            const int n = cols_x - k;
            Strip dy = strip(&c->in[0], s, k), w = strip(&c->in[1], s, k), dx = strip(&c->out[0], s, k);
            if (n >= 8 && t0 + TILE_X + taps - 1 <= rows)
                BY_TAPS(transpose, 8, taps, dy, w, dx, t0, rows, n_tile, cols_x, true);
            else
                transpose(dy, w, dx, t0, rows, n_tile, cols_x, false, n, taps);
        }
    }
}

/* ---- dw: a unit is at most SPAN channels of one tile of columns, over all rows of all sequences ---- */
static int64_t spans(const Node *n) { return (x_shape(n).d[1] + SPAN - 1) / SPAN; }
static int64_t units_dw(const Node *n, Extent e) {
    (void)e;
    return n->in_type[1].shape.d[1] / x_shape(n).d[1] * spans(n);
}
static size_t scratch_dw(const Node *n, Extent e) {
    (void)n; (void)e;
    return sizeof(float) * 8 * SPAN;
}
static void span_dw(const Call *c, int64_t s, int32_t tile, int32_t k0, int32_t k1) {
    const int32_t rows = x_shape(c->node).d[0], taps = c->node->out[0].shape.d[0];
    float *dw = c->scratch;
    memset(dw, 0, sizeof(float) * 8 * SPAN);
    for (int32_t t0 = 0; t0 < rows; t0 += TILE_W)
        for (int32_t k = k0; k < k1; k += 8) {
            const int32_t t1 = t0 + TILE_W < rows ? t0 + TILE_W : rows;
            const int n = k1 - k;
            Strip x = strip(&c->in[0], s, k), dy = strip(&c->in[1], s, tile + k);
            if (n >= 8) BY_TAPS(weights, 8, taps, x, dy, dw + k - k0, t0, t1);
            else weights(x, dy, dw + k - k0, t0, t1, n, taps);
        }
    for (int32_t j = 0; j < taps; j++) {
        float *to = strip(&c->out[0], s, tile).p + (taps - 1 - j) * c->out[0].ld;
        for (int32_t k = k0; k < k1; k++) to[k] = (c->add & 1u ? to[k] : 0.0f) + dw[j * SPAN + k - k0];
    }
}
static void run_dw(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t cols_x = x_shape(c->node).d[1];
    const int64_t per_tile = spans(c->node);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int32_t k0 = (int32_t)(unit % per_tile) * SPAN, k1 = k0 + SPAN < cols_x ? k0 + SPAN : cols_x;
        for (int64_t s = 0; s < c->extent.n_seq; s++) span_dw(c, s, (int32_t)(unit / per_tile) * cols_x, k0, k1);
    }
}

const CpuRow mdr_cpu_rows_conv_short[] = {
    {"conv_short", {.run = run_y, .units = units_y}, NULL},
    {"conv_short_dx", {.run = run_dx, .units = units_dx}, NULL},
    {"conv_short_dw", {.run = run_dw, .units = units_dw, .scratch = scratch_dw}, NULL},
    {0}};
