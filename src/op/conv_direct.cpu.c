/* conv_direct and conv_direct_dh with AVX2: tiles of eight positions by eight channels over the Toeplitz matrix.
 * Rows are copied to the scratch as the tiles come to them (columns of a wide matrix would fall on few lines of the
 * cache); the transpose and dh are the same product with time turned round. Every element is one chain of multiply-
 * adds in the order of s, so its bits depend on nothing but its own sequence. Equations: conv_direct.c. */
#include "op/avx2.h"
#include "op/op.h"
#include <string.h>

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
/* One unit's product, for the one or two strips of a span: a line of the cache is touched by both in turn. */
typedef struct Job { Strip u[2], h[2], y[2]; int n; bool fresh; } Job;         /* fresh: h is not in the scratch yet */
typedef struct Room { float *u, *h; int64_t half; } Room;                      /* of the scratch: [2][rows + 8][8] each */

INLINE void fetch(Strip x, int32_t t) {
    for (int32_t i = t; i < t + TILE && i < x.rows; i++) _mm_prefetch((const char *)(x.p + i * x.step), _MM_HINT_T1);
}
/* y (+)= the causal product of u and h. The next job's rows are fetched on the way. */
static void product(const Job *j, const Job *next, Room z, bool add) {
    for (int32_t t = 0; t < j->u->rows; t += TILE) {
        for (int k = 0; k < j->n; k++) copy_in(j->u[k], t, z.u + k * z.half + t * LANES);
        for (int k = 0; k < j->n && j->fresh; k++) copy_in(j->h[k], t, z.h + k * z.half + t * LANES);
        fetch(next->u[0], t), fetch(next->y[0], t);
        if (next->fresh) fetch(next->h[0], t);
        for (int k = 0; k < j->n; k++) tile(z.u + k * z.half, z.h + k * z.half, j->y[k], t, add);
    }
}

static Shape shape_of(const Node *n) { return n->in_type[0].shape; }
static int64_t half_of(Shape x) { return ((int64_t)x.d[0] + TILE) * LANES; }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return 2 * 2 * sizeof(float) * (size_t)half_of(shape_of(n));
}
static Room room(const Call *c) {
    const int64_t half = half_of(shape_of(c->node));
    return (Room){c->scratch, (float *)c->scratch + 2 * half, half};
}
/* The strips of one span of a value; returns how many. */
static int strips(const Call *c, const Arg *a, int64_t seq, int64_t span, bool turned, Strip to[2]) {
    const Shape x = shape_of(c->node);
    const int32_t first = (int32_t)span * SPAN, left = x.d[1] - first;
    float *p = (float *)a->data + seq * a->seq + first + (turned ? (x.d[0] - 1) * a->ld : 0);
    to[0] = (Strip){p, turned ? -a->ld : a->ld, x.d[0], left < LANES ? left : LANES};
    if (left <= LANES) return 1;
    to[1] = (Strip){p + LANES, to->step, x.d[0], left < SPAN ? left - LANES : LANES};
    return 2;
}
static int64_t spans(const Node *n) { return (shape_of(n).d[1] + SPAN - 1) / SPAN; }

/* unit = span * n_seq + sequence: neighbours share the filter */
static int64_t units(const Node *n, Extent e) { return spans(n) * e.n_seq; }
static Job job(const Call *c, int64_t unit, bool first) {
    const bool turned = ((const ConvAttr *)c->node->attr)->anticausal;
    const int64_t span = unit / c->extent.n_seq, seq = unit % c->extent.n_seq;
    Job j = {.fresh = first || seq == 0 || c->in[1].seq != 0};
    strips(c, &c->in[0], seq, span, turned, j.u);
    strips(c, &c->in[1], seq, span, false, j.h);
    j.n = strips(c, &c->out[0], seq, span, turned, j.y);
    return j;
}
static void conv_direct(const Call *c, int64_t unit0, int64_t unit1) {
    Job now, next = job(c, unit0, true);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        now = next;
        if (unit + 1 < unit1) next = job(c, unit + 1, false);
        product(&now, &next, room(c), false);
    }
}

/* dh is the transpose applied to dy with u for a filter. */
static int64_t units_dh(const Node *n, Extent e) {
    (void)e;
    return spans(n);
}
static Job job_dh(const Call *c, int64_t i) {             /* i = span * n_seq + sequence */
    const int64_t span = i / c->extent.n_seq, seq = i % c->extent.n_seq;
    Job j = {.fresh = true};
    strips(c, &c->in[1], seq, span, true, j.u);
    strips(c, &c->in[0], seq, span, false, j.h);
    j.n = strips(c, &c->out[0], seq, span, true, j.y);
    return j;
}
static void conv_direct_dh(const Call *c, int64_t unit0, int64_t unit1) {
    const int64_t end = unit1 * c->extent.n_seq;
    Job now, next = job_dh(c, unit0 * c->extent.n_seq);
    for (int64_t i = unit0 * c->extent.n_seq; i < end; i++) {
        now = next;
        if (i + 1 < end) next = job_dh(c, i + 1);
        product(&now, &next, room(c), c->add & 1u);
    }
}

const CpuRow mdr_cpu_rows_conv_direct[] = {
    {.op = "conv_direct", .kernel = {.run = conv_direct, .units = units, .scratch = scratch}},
    {.op = "conv_direct_dh", .kernel = {.run = conv_direct_dh, .units = units_dh, .scratch = scratch}},
    {0}};
