/* conv_direct and conv_direct_dh with AVX2: tiles of eight positions by eight channels over the Toeplitz matrix.
 * Rows are copied to the scratch as the tiles come to them (columns of a wide matrix would fall on few lines of the
 * cache); the transpose and dh are the same product with time turned round. Every element is one chain of multiply-
 * adds in the order of s, so its bits depend on nothing but its own sequence. Equations: conv_direct.c. */
#include "op/avx2.h"
#include "op/op.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8, SPAN = 2 * LANES,                    /* channels of a vector; of a unit: a line of the cache */
       TILE = 8 };                                     /* positions of a tile: so many accumulators */

/* n <= 8 neighbouring columns of a matrix; p: the row that is first in time, step: to the next in time. */
typedef struct Strip { float *p; int64_t step; int32_t rows, n; } Strip;

INLINE bool whole(Strip x, int32_t t) { return x.n >= LANES && t + TILE <= x.rows; }
/* Rows t .. t+7 of x to z and back; rows and columns that are not there read as 0 and are not written. */
INLINE void copy_in(Strip x, int32_t t, float *z) {
    const float *from = x.p + t * x.step;
    if (whole(x, t))
        for (int i = 0; i < TILE; i++, from += x.step) _mm256_store_ps(z + i * LANES, _mm256_loadu_ps(from));
    else
        for (int i = 0; i < TILE; i++, from += x.step)
            _mm256_store_ps(z + i * LANES,
                            t + i < x.rows ? _mm256_maskload_ps(from, v_mask(x.n)) : _mm256_setzero_ps());
}
INLINE void copy_out(const float *z, Strip y, int32_t t) {
    for (int i = 0; i < TILE && t + i < y.rows; i++)
        _mm256_maskstore_ps(y.p + (t + i) * y.step, v_mask(y.n), _mm256_load_ps(z + i * LANES));
}

/* y[t .. t+8): the steps s = 0..t have all eight products, of which h[t+i-s] for i < 4 wait in registers and move up
 * one output a step; i >= 4 come from the cache. Then the triangle s = t+1 .. t+7. The fences keep the compiler from
 * holding more of h in registers than there are. */
#define FENCE __asm__ volatile("" ::: "memory")
#define FMA(i, v) a##i = _mm256_fmadd_ps(v, x, a##i)
#define AT(i) _mm256_load_ps(hs + (i) * LANES)
#define NEXT FENCE; x = _mm256_load_ps(us); us += LANES
#define STEP(w0, w1, w2, w3)                                                                                           \
    NEXT; w0 = AT(0);                                                                                                  \
    FMA(0, w0); FMA(1, w1); FMA(2, w2); FMA(3, w3);                                                                    \
    FMA(4, AT(4)); FMA(5, AT(5)); FMA(6, AT(6)); FMA(7, AT(7));                                                        \
    hs -= LANES
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
INLINE void tile(const float *us, const float *h, Strip y, int32_t t, bool add) {
    __m256 a0, a1, a2, a3, a4, a5, a6, a7, x, w0, w1, w2, w3;
    float *to = y.p + t * y.step, part[TILE * LANES] __attribute__((aligned(32)));
    const bool direct = whole(y, t);
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = _mm256_setzero_ps();
    if (add) {
        if (!direct) copy_in(y, t, part);
#define START(i) a##i = direct ? _mm256_loadu_ps(to + (i) * y.step) : _mm256_load_ps(part + (i) * LANES);
        EACH(START)
    }
    const float *hs = h + t * LANES;
    w3 = AT(3), w2 = AT(2), w1 = AT(1);
    for (int32_t s = 0; s < t; s += 4) {
        STEP(w0, w1, w2, w3);
        STEP(w3, w0, w1, w2);
        STEP(w2, w3, w0, w1);
        STEP(w1, w2, w3, w0);
    }
    STEP(w0, w1, w2, w3);
    hs += LANES;                                       /* back to h[0] */
    NEXT; FMA(7, AT(6)); FMA(6, AT(5)); FMA(5, AT(4)); FMA(4, AT(3)); FMA(3, AT(2)); FMA(2, AT(1)); FMA(1, AT(0));
    NEXT; FMA(7, AT(5)); FMA(6, AT(4)); FMA(5, AT(3)); FMA(4, AT(2)); FMA(3, AT(1)); FMA(2, AT(0));
    NEXT; FMA(7, AT(4)); FMA(6, AT(3)); FMA(5, AT(2)); FMA(4, AT(1)); FMA(3, AT(0));
    NEXT; FMA(7, AT(3)); FMA(6, AT(2)); FMA(5, AT(1)); FMA(4, AT(0));
    NEXT; FMA(7, AT(2)); FMA(6, AT(1)); FMA(5, AT(0));
    NEXT; FMA(7, AT(1)); FMA(6, AT(0));
    NEXT; FMA(7, AT(0));
#define STORE(i) _mm256_storeu_ps(to + (i) * y.step, a##i);
#define KEEP(i) _mm256_store_ps(part + (i) * LANES, a##i);
    if (direct) { EACH(STORE) }
    else { EACH(KEEP) copy_out(part, y, t); }
}
/* y (+)= the causal product of u and h, for one or two strips side by side: a line of the cache is touched by both
 * in turn. zu, zh: [rows + TILE][8] each, `half` apart; zh holds h already unless `fresh`. */
static void product(const Strip *u, const Strip *h, const Strip *y, int n, float *zu, float *zh, int64_t half,
                    bool fresh, bool add) {
    for (int32_t t = 0; t < u->rows; t += TILE) {
        for (int k = 0; k < n; k++) copy_in(u[k], t, zu + k * half + t * LANES);
        for (int k = 0; k < n && fresh; k++) copy_in(h[k], t, zh + k * half + t * LANES);
        for (int k = 0; k < n; k++) tile(zu + k * half, zh + k * half, y[k], t, add);
    }
}

static Shape shape_of(const Node *n) { return n->in_type[0].shape; }
static int64_t half_of(Shape x) { return ((int64_t)x.d[0] + TILE) * LANES; }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return 2 * 2 * sizeof(float) * (size_t)half_of(shape_of(n));
}
/* The strips of one span of a value; returns how many. */
static int strips(const Call *c, const Arg *a, int64_t seq, int64_t span, bool turned, Strip to[2]) {
    const Shape x = shape_of(c->node);
    const int32_t first = (int32_t)span * SPAN, left = x.d[1] - first;
    float *p = (float *)a->data + seq * a->seq + first + (turned ? (x.d[0] - 1) * a->ld : 0);
    to[0] = (Strip){p, turned ? -a->ld : a->ld, x.d[0], left < LANES ? left : LANES};
    to[1] = (Strip){p + LANES, to->step, x.d[0], left < SPAN ? left - LANES : LANES};
    return left > LANES ? 2 : 1;
}
static int64_t spans(const Node *n) { return (shape_of(n).d[1] + SPAN - 1) / SPAN; }

/* unit = span * n_seq + sequence: neighbours share the filter */
static int64_t units(const Node *n, Extent e) { return spans(n) * e.n_seq; }
static void conv_direct(const Call *c, int64_t unit0, int64_t unit1) {
    const bool turned = ((const ConvAttr *)c->node->attr)->anticausal;
    const int64_t half = half_of(shape_of(c->node)), n_seq = c->extent.n_seq;
    float *zu = c->scratch, *zh = zu + 2 * half;
    Strip u[2], h[2], y[2];
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t span = unit / n_seq, seq = unit % n_seq;
        const bool fresh = unit == unit0 || seq == 0 || c->in[1].seq != 0;
        strips(c, &c->in[0], seq, span, turned, u);
        strips(c, &c->in[1], seq, span, false, h);
        const int n = strips(c, &c->out[0], seq, span, turned, y);
        product(u, h, y, n, zu, zh, half, fresh, false);
    }
}

/* dh is the transpose applied to dy with u for a filter. */
static int64_t units_dh(const Node *n, Extent e) {
    (void)e;
    return spans(n);
}
static void conv_direct_dh(const Call *c, int64_t unit0, int64_t unit1) {
    const int64_t half = half_of(shape_of(c->node));
    float *zy = c->scratch, *zu = zy + 2 * half;
    Strip u[2], dy[2], dh[2];
    for (int64_t span = unit0; span < unit1; span++)
        for (int64_t seq = 0; seq < c->extent.n_seq; seq++) {
            strips(c, &c->in[0], seq, span, false, u);
            strips(c, &c->in[1], seq, span, true, dy);
            const int n = strips(c, &c->out[0], seq, span, true, dh);
            product(dy, u, dh, n, zy, zu, half, true, c->add & 1u);
        }
}

const CpuRow mdr_cpu_rows_conv_direct[] = {
    {.op = "conv_direct", .kernel = {.run = conv_direct, .units = units, .scratch = scratch}},
    {.op = "conv_direct_dh", .kernel = {.run = conv_direct_dh, .units = units_dh, .scratch = scratch}},
    {0}};
