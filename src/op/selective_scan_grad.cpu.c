/* Gradient of selective_scan with AVX2: a unit is one sequence. Chunks of 16 tokens go from last to first; within one, for
 * every eight channels and four states, h and the decays are recomputed from the saved state into the cache, then time
 * runs back with dh and da in registers. dB and dC, sums over channels, gather as eight partial sums (one a lane) over the
 * blocks of channels and are added up at the end of the chunk, always in the same order. */
#include "op/selective_scan_avx2.h"

enum { BLOCK = SCAN_CHUNK * 8 };                   /* floats of a chunk of eight channels                                 */

/* Working memory; width = channels rounded up to 8, padded = states rounded up to 4. */
typedef struct Work {
    int64_t width, padded;
    float *a, *dh, *da;                            /* [width / 8][N][8]                                                   */
    float *dd;                                     /* [width]                                                             */
    float *db, *dc;                                /* [SCAN_CHUNK][padded][8]                                             */
    float *h, *decay;                              /* [SCAN_CHUNK + 1][4][8], [SCAN_CHUNK][4][8]                          */
    float *x, *delta, *du, *dy;                    /* delta log2(e), delta, delta u, dy: [SCAN_CHUNK][8], as the next     */
    float *inject, *exponent;                      /* sum_n dh B; sum_n g h[t-1] a                                        */
    float *state;                                  /* [N][8]                                                              */
} Work;
/* Of a sequence and a chunk: row 0 of B and C, and the tokens. */
typedef struct Shared { Strip bm, cm; int len; } Shared;

INLINE void recompute(const Work *w, const Shared *z, const int group, int n0, int64_t at) {
    const float *bm = z->bm.p + n0, *e = w->decay, *du = w->du, *from = w->state + n0 * 8;
    float *to = w->h;
    const int64_t ld_b = z->bm.ld;
    const int len = z->len;
    decays(w->x, w->a + at, group, len, w->decay);
    __m256 h[4];
#define LOAD(i) h[i] = _mm256_load_ps(from + i * 8); _mm256_store_ps(to + i * 8, h[i]);
    EACH_STATE(LOAD);
    for (int t = 0; t < len; t++, bm += ld_b, e += 32, du += 8) {
        __m256 v = _mm256_load_ps(du);
        to += 32;
#define STEP(i)                                                                                                        \
        h[i] = _mm256_fmadd_ps(_mm256_load_ps(e + i * 8), h[i], _mm256_mul_ps(v, _mm256_broadcast_ss(bm + i)));         \
        _mm256_store_ps(to + i * 8, h[i]);
        EACH_STATE(STEP);
    }
}

INLINE void back(const Work *w, const Shared *z, const int group, int n0, int64_t at) {
    const int64_t ld_b = z->bm.ld, ld_c = z->cm.ld, ld_d = w->padded * 8, last = z->len - 1;
    const float *bm = z->bm.p + last * ld_b + n0, *cm = z->cm.p + last * ld_c + n0;
    const float *h = w->h + last * 32, *e = w->decay + last * 32;
    const float *from_a = w->a + at, *from_delta = w->delta, *from_du = w->du, *from_dy = w->dy;
    float *db = w->db + last * ld_d + n0 * 8, *dc = w->dc + last * ld_d + n0 * 8;
    float *to_inject = w->inject, *to_exponent = w->exponent;
    float *to_dh = w->dh + at, *to_da = w->da + at;
    __m256 dh[4], da[4], a[4];
#define LOAD_BACK(i)                                                                                                   \
    a[i] = _mm256_load_ps(from_a + i * 8);                                                                         \
    dh[i] = _mm256_load_ps(to_dh + i * 8);                                                                         \
    da[i] = _mm256_load_ps(to_da + i * 8);
    EACH_STATE(LOAD_BACK);
    for (int64_t t = last; t >= 0; t--, bm -= ld_b, cm -= ld_c, h -= 32, e -= 32, db -= ld_d, dc -= ld_d) {
        __m256 delta = _mm256_load_ps(from_delta + t * 8), dy = _mm256_load_ps(from_dy + t * 8);
        __m256 du = _mm256_load_ps(from_du + t * 8), gh;
        __m256 inject = n0 ? _mm256_load_ps(to_inject + t * 8) : _mm256_setzero_ps();
        __m256 exponent = n0 ? _mm256_load_ps(to_exponent + t * 8) : _mm256_setzero_ps();
#define STEP_BACK(i)                                                                                                   \
        dh[i] = _mm256_fmadd_ps(dy, _mm256_broadcast_ss(cm + i), dh[i]);                                               \
        _mm256_store_ps(dc + i * 8, _mm256_fmadd_ps(dy, _mm256_load_ps(h + 32 + i * 8), _mm256_load_ps(dc + i * 8)));   \
        _mm256_store_ps(db + i * 8, _mm256_fmadd_ps(dh[i], du, _mm256_load_ps(db + i * 8)));                           \
        inject = _mm256_fmadd_ps(dh[i], _mm256_broadcast_ss(bm + i), inject);                                          \
        dh[i] = _mm256_mul_ps(dh[i], _mm256_load_ps(e + i * 8));                                                       \
        gh = _mm256_mul_ps(dh[i], _mm256_load_ps(h + i * 8));                                                          \
        exponent = _mm256_fmadd_ps(gh, a[i], exponent);                                                                \
        da[i] = _mm256_fmadd_ps(gh, delta, da[i]);
        EACH_STATE(STEP_BACK);
        _mm256_store_ps(to_inject + t * 8, inject);
        _mm256_store_ps(to_exponent + t * 8, exponent);
    }
#define STORE_BACK(i)                                                                                                  \
    _mm256_store_ps(to_dh + i * 8, dh[i]);                                                                         \
    _mm256_store_ps(to_da + i * 8, da[i]);
    EACH_STATE(STORE_BACK);
}
#define GROUP(size)                                                                                                    \
    static __attribute__((noinline)) void group_##size(const Work *w, const Shared *z, int n0, int64_t at) {          \
        recompute(w, z, size, n0, at);                                                                                \
        back(w, z, size, n0, at);                                                                                     \
    }
GROUP(4)
GROUP(2)
GROUP(1)

/* sum over lanes of [len][padded][8] to an output [L, n_state]. */
static void sum_lanes(const Work *w, const float *from, const Arg *out, int64_t s, int32_t t0, int len, int32_t n_state) {
    if (!out->data) return;
    for (int t = 0; t < len; t++)
        for (int32_t n = 0; n < n_state; n += 4) {
            const float *p = from + (t * w->padded + n) * 8;
            __m256 lo = _mm256_hadd_ps(_mm256_load_ps(p), _mm256_load_ps(p + 8));
            __m256 hi = _mm256_hadd_ps(_mm256_load_ps(p + 16), _mm256_load_ps(p + 24)), q = _mm256_hadd_ps(lo, hi);
            float sum[4];
            _mm_storeu_ps(sum, _mm_add_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1)));
            memcpy((float *)out->data + s * out->seq + (t0 + t) * out->ld + n, sum,
                   sizeof(float) * (size_t)(n_state - n < 4 ? n_state - n : 4));
        }
}

/* What the sums over states give: du = dy d + inject delta, ddelta = exponent + inject u, dd += dy u. */
static void finish_block(const Call *c, const Work *w, int64_t s, int32_t t0, int len, int32_t col, int n) {
    const Strip u = strip(&c->in[IN_U], s, t0, col), du = strip(&c->out[OUT_DU], s, t0, col);
    const Strip ddelta = strip(&c->out[OUT_DDELTA], s, t0, col);
    const __m256 d = get(strip(&c->in[IN_D], s, 0, col).p, n);
    __m256 dd = _mm256_load_ps(w->dd + col);
    for (int t = 0; t < len; t++) {
        __m256 v = get(u.p + t * u.ld, n), dy = _mm256_load_ps(w->dy + t * 8), inject = _mm256_load_ps(w->inject + t * 8);
        if (du.p) put(du.p + t * du.ld, n, _mm256_fmadd_ps(inject, _mm256_load_ps(w->delta + t * 8), _mm256_mul_ps(dy, d)));
        if (ddelta.p) put(ddelta.p + t * ddelta.ld, n, _mm256_fmadd_ps(inject, v, _mm256_load_ps(w->exponent + t * 8)));
        dd = _mm256_fmadd_ps(dy, v, dd);
    }
    _mm256_store_ps(w->dd + col, dd);
}

/* Channels col .. col + 8 of one sequence, tokens t0 .. t0 + len, brought together first: rows a power of two apart would
 * push each other out of the cache while the states go by. */
static void run_block(const Call *c, const Work *w, const Shared *z, int64_t s, int32_t t0, int32_t col) {
    const int32_t cols = c->node->in_type[IN_U].shape.d[1], n_state = c->node->in_type[IN_A].shape.d[1];
    const int n = cols - col;
    const Strip u = strip(&c->in[IN_U], s, t0, col), delta = strip(&c->in[IN_DELTA], s, t0, col);
    const Strip dy = strip(&c->in[IN_DY], s, t0, col);
    const Strip state = strip(&c->in[IN_STATES], s, t0 / SCAN_CHUNK, col);
    const __m256 log2e = _mm256_set1_ps(1.44269504f);
    for (int t = 0; t < z->len; t++) {
        __m256 step = get(delta.p + t * delta.ld, n);
        _mm256_store_ps(w->delta + t * 8, step);
        /* the rows of the chunk before: strides of a page, which no prefetcher follows (at the start: harmless) */
        _mm_prefetch((const char *)(u.p + (t - SCAN_CHUNK) * u.ld), _MM_HINT_T0);
        _mm_prefetch((const char *)(delta.p + (t - SCAN_CHUNK) * delta.ld), _MM_HINT_T0);
        _mm_prefetch((const char *)(dy.p + (t - SCAN_CHUNK) * dy.ld), _MM_HINT_T0);
        _mm256_store_ps(w->x + t * 8, _mm256_mul_ps(step, log2e));
        _mm256_store_ps(w->du + t * 8, _mm256_mul_ps(step, get(u.p + t * u.ld, n)));
        _mm256_store_ps(w->dy + t * 8, get(dy.p + t * dy.ld, n));
    }
    for (int32_t i = 0; i < n_state; i++) _mm256_store_ps(w->state + i * 8, get(state.p + (int64_t)i * cols, n));
    const int64_t at = (int64_t)col * n_state;
    int i = 0;
    for (; i + 4 <= n_state; i += 4) group_4(w, z, i, at + i * 8);
    if (i + 2 <= n_state) { group_2(w, z, i, at + i * 8); i += 2; }
    if (i < n_state) group_1(w, z, i, at + i * 8);
    finish_block(c, w, s, t0, z->len, col, n);
}

/* Lays the working memory out from p (NULL to learn its size); returns the floats it takes. */
static size_t lay_out(const Node *n, float *p, Work *w) {
    const size_t n_state = (size_t)n->in_type[IN_A].shape.d[1];
    const size_t width = ((size_t)n->in_type[IN_U].shape.d[1] + 7) / 8 * 8, padded = (n_state + 3) / 4 * 4;
    size_t at = 0;
    *w = (Work){.width = (int64_t)width, .padded = (int64_t)padded};
    const struct { float **to; size_t size; } piece[] = {
        {&w->a, n_state * width}, {&w->dh, n_state * width}, {&w->da, n_state * width}, {&w->dd, width},
        {&w->db, padded * BLOCK}, {&w->dc, padded * BLOCK}, {&w->h, (SCAN_CHUNK + 1) * 32}, {&w->decay, SCAN_CHUNK * 32},
        {&w->x, BLOCK}, {&w->delta, BLOCK}, {&w->du, BLOCK}, {&w->dy, BLOCK}, {&w->inject, BLOCK}, {&w->exponent, BLOCK},
        {&w->state, 8 * n_state}};
    for (int i = 0; i < MDR_COUNT(piece); i++) {
        if (p) *piece[i].to = p + at;
        at += piece[i].size;
    }
    return at;
}
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    Work w;
    return sizeof(float) * lay_out(n, NULL, &w);
}
static int64_t units(const Node *n, Extent e) {
    (void)n;
    return e.n_seq;
}

static void run(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t rows = c->node->in_type[IN_U].shape.d[0], cols = c->node->in_type[IN_U].shape.d[1];
    const int32_t n_state = c->node->in_type[IN_A].shape.d[1];
    Work w;
    lay_out(c->node, c->scratch, &w);
    memset(w.x, 0, sizeof(float) * BLOCK);
    for (int64_t s = unit0; s < unit1; s++) {
        to_lanes(w.a, strip(&c->in[IN_A], s, 0, 0).p, c->in[IN_A].ld, cols, n_state);
        memset(w.dh, 0, sizeof(float) * (size_t)(w.width * n_state));
        memset(w.da, 0, sizeof(float) * (size_t)(w.width * n_state));
        memset(w.dd, 0, sizeof(float) * (size_t)w.width);
        for (int32_t t0 = (rows - 1) / SCAN_CHUNK * SCAN_CHUNK; t0 >= 0; t0 -= SCAN_CHUNK) {
            const int len = rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK;
            const Shared z = {strip(&c->in[IN_B], s, t0, 0), strip(&c->in[IN_C], s, t0, 0), len};
            memset(w.db, 0, sizeof(float) * (size_t)w.padded * BLOCK);
            memset(w.dc, 0, sizeof(float) * (size_t)w.padded * BLOCK);
            for (int32_t col = 0; col < cols; col += 8) run_block(c, &w, &z, s, t0, col);
            sum_lanes(&w, w.db, &c->out[OUT_DB], s, t0, len, n_state);
            sum_lanes(&w, w.dc, &c->out[OUT_DC], s, t0, len, n_state);
        }
        Strip da = strip(&c->out[OUT_DA], s, 0, 0), dd = strip(&c->out[OUT_DD], s, 0, 0);
        if (da.p) from_lanes(da.p, da.ld, w.da, cols, n_state);
        if (dd.p) memcpy(dd.p, w.dd, sizeof(float) * (size_t)cols);
    }
}

const CpuRow mdr_cpu_rows_selective_scan_grad[] = {
    {"selective_scan_grad", {.run = run, .units = units, .scratch = scratch}, NULL}, {0}};
