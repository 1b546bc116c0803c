/* Gradient of selective_scan with AVX2: a unit is one sequence. Chunks of 16 tokens go from last to first; within one, for
 * every eight channels and four states, h and the decays are recomputed from the saved state into the cache, then time
 * runs back with dh and da in registers. dB and dC, sums over channels, gather as eight partial sums (one a lane) over the
 * blocks of channels and are added up at the end of the chunk, always in the same order. */
#include "op/selective_scan_avx2.h"

enum { BLOCK = SCAN_CHUNK * 8 };                   /* floats of a chunk of eight channels                                 */

/* Working memory, [..][8] throughout; width = channels rounded up to 8, padded = states rounded up to 4. */
typedef struct Work {
    int64_t width, padded;
    float *a, *dh, *da;                            /* [N][width]                                                          */
    float *dd;                                     /* [width]                                                             */
    float *db, *dc;                                /* [SCAN_CHUNK][padded][8]                                             */
    float *h, *decay;                              /* [SCAN_CHUNK + 1][4][8], [SCAN_CHUNK][4][8]                          */
    float *inject, *exponent;                      /* sum_n dh B; sum_n g h[t-1] a: [SCAN_CHUNK][8]                        */
    float *stage;                                  /* five blocks for the incomplete last channels                        */
} Work;

typedef struct Block {
    Rows u, delta, dy, du, ddelta;
    const float *bm, *cm, *state;                  /* state: [N][cols] at this block, lanes contiguous                    */
    int64_t ld_b, ld_c, ld_state;
    int32_t col;
    int len;
    __m256 d;
} Block;

INLINE void recompute(const Block *k, const Work *w, const int group, int n0) {
    decays(k->delta, w->a + n0 * w->width + k->col, w->width, group, k->len, w->decay);
    __m256 h[4];
#define LOAD(i) h[i] = _mm256_loadu_ps(k->state + (n0 + i) * k->ld_state); _mm256_store_ps(w->h + i * 8, h[i]);
    EACH_STATE(LOAD);
    const Rows ru = k->u, rd = k->delta;                           /* in registers: a store might change *k              */
    const float *bm = k->bm + n0, *e = w->decay;
    const int64_t ld_b = k->ld_b;
    float *to = w->h + 32;
    for (int t = 0, len = k->len; t < len; t++, bm += ld_b, e += 32, to += 32) {
        __m256 du = _mm256_mul_ps(row(rd, t), row(ru, t));
#define STEP(i)                                                                                                        \
        h[i] = _mm256_fmadd_ps(_mm256_load_ps(e + i * 8), h[i], _mm256_mul_ps(du, _mm256_broadcast_ss(bm + i)));        \
        _mm256_store_ps(to + i * 8, h[i]);
        EACH_STATE(STEP);
    }
}

INLINE void back(const Block *k, const Work *w, const int group, int n0) {
    __m256 dh[4], da[4], a[4];
#define LOAD_BACK(i)                                                                                                   \
    a[i] = _mm256_load_ps(w->a + (n0 + i) * w->width + k->col);                                                        \
    dh[i] = _mm256_load_ps(w->dh + (n0 + i) * w->width + k->col);                                                      \
    da[i] = _mm256_load_ps(w->da + (n0 + i) * w->width + k->col);
    EACH_STATE(LOAD_BACK);
    const Rows ru = k->u, rd = k->delta, ry = k->dy;
    const int64_t ld_b = k->ld_b, ld_c = k->ld_c, ld_d = w->padded * 8;
    const int len = k->len;
    const float *bm = k->bm + (len - 1) * ld_b + n0, *cm = k->cm + (len - 1) * ld_c + n0, *h = w->h + (len - 1) * 32;
    const float *e = w->decay + (len - 1) * 32;
    float *db = w->db + (len - 1) * ld_d + n0 * 8, *dc = w->dc + (len - 1) * ld_d + n0 * 8;
    float *to_inject = w->inject, *to_exponent = w->exponent;
    for (int t = len - 1; t >= 0; t--, bm -= ld_b, cm -= ld_c, h -= 32, e -= 32, db -= ld_d, dc -= ld_d) {
        __m256 delta = row(rd, t), dy = row(ry, t), du = _mm256_mul_ps(delta, row(ru, t)), gh;
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
    _mm256_store_ps(w->dh + (n0 + i) * w->width + k->col, dh[i]);                                                      \
    _mm256_store_ps(w->da + (n0 + i) * w->width + k->col, da[i]);
    EACH_STATE(STORE_BACK);
}
#define GROUP(size)                                                                                                    \
    static __attribute__((noinline)) void group_##size(const Block *k, const Work *w, int n0) {                        \
        recompute(k, w, size, n0);                                                                                     \
        back(k, w, size, n0);                                                                                          \
    }
GROUP(4)
GROUP(2)
GROUP(1)

static void all_states(const Block *k, const Work *w, int n_state) {
    int n = 0;
    for (; n + 4 <= n_state; n += 4) group_4(k, w, n);
    if (n + 2 <= n_state) { group_2(k, w, n); n += 2; }
    if (n < n_state) group_1(k, w, n);
}

/* What the sums over states give: du = dy d + inject delta, ddelta = exponent + inject u, dd += dy u. */
static void finish_block(const Block *k, const Work *w) {
    __m256 dd = _mm256_load_ps(w->dd + k->col);
    for (int t = 0; t < k->len; t++) {
        __m256 u = row(k->u, t), dy = row(k->dy, t), inject = _mm256_load_ps(w->inject + t * 8);
        if (k->du.p)
            _mm256_storeu_ps(k->du.p + t * k->du.ld, _mm256_fmadd_ps(inject, row(k->delta, t), _mm256_mul_ps(dy, k->d)));
        if (k->ddelta.p)
            _mm256_storeu_ps(k->ddelta.p + t * k->ddelta.ld, _mm256_fmadd_ps(inject, u, _mm256_load_ps(w->exponent + t * 8)));
        dd = _mm256_fmadd_ps(dy, u, dd);
    }
    _mm256_store_ps(w->dd + k->col, dd);
}

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

static Rows rows_of(const Arg *a, int64_t s, int32_t t0, int32_t col) {
    return a->data ? (Rows){(float *)a->data + s * a->seq + t0 * a->ld + col, a->ld} : (Rows){NULL, 0};
}

static void run_block(const Call *c, const Work *w, int64_t s, int32_t t0, int len, int32_t col) {
    const int32_t cols = c->node->in_type[IN_U].shape.d[1], n_state = c->node->in_type[IN_A].shape.d[1];
    const int n = cols - col < 8 ? cols - col : 8;
    const Rows du = rows_of(&c->out[OUT_DU], s, t0, col), ddelta = rows_of(&c->out[OUT_DDELTA], s, t0, col);
    Block k = {.u = rows_of(&c->in[IN_U], s, t0, col), .delta = rows_of(&c->in[IN_DELTA], s, t0, col),
               .dy = rows_of(&c->in[IN_DY], s, t0, col), .du = du, .ddelta = ddelta, .col = col, .len = len,
               .bm = rows_of(&c->in[IN_B], s, t0, 0).p, .cm = rows_of(&c->in[IN_C], s, t0, 0).p, .ld_b = c->in[IN_B].ld,
               .ld_c = c->in[IN_C].ld, .ld_state = cols};
    float d[8] = {0};
    memcpy(d, rows_of(&c->in[IN_D], s, 0, col).p, sizeof(float) * (size_t)n);
    k.d = _mm256_loadu_ps(d);
    k.state = rows_of(&c->in[IN_STATES], s, t0 / SCAN_CHUNK, col).p;
    if (n < 8) {
        float *q = w->stage;
        k.u = stage_in(q, k.u, len, n);
        k.delta = stage_in(q + BLOCK, k.delta, len, n);
        k.dy = stage_in(q + 2 * BLOCK, k.dy, len, n);
        if (du.p) k.du = (Rows){q + 3 * BLOCK, 8};
        if (ddelta.p) k.ddelta = (Rows){q + 4 * BLOCK, 8};
        q += 5 * BLOCK;
        memset(q, 0, sizeof(float) * 8 * (size_t)n_state);
        for (int32_t i = 0; i < n_state; i++) memcpy(q + i * 8, k.state + (int64_t)i * cols, sizeof(float) * (size_t)n);
        k.state = q;
        k.ld_state = 8;
    }
    all_states(&k, w, n_state);
    finish_block(&k, w);
    if (n < 8 && du.p) stage_out(k.du.p, du, len, n);
    if (n < 8 && ddelta.p) stage_out(k.ddelta.p, ddelta, len, n);
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
        {&w->inject, BLOCK}, {&w->exponent, BLOCK}, {&w->stage, 5 * BLOCK + 8 * n_state}};
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
    for (int64_t s = unit0; s < unit1; s++) {
        states_to_lanes(w.a, w.width, rows_of(&c->in[IN_A], s, 0, 0).p, c->in[IN_A].ld, cols, n_state);
        memset(w.dh, 0, sizeof(float) * (size_t)(w.width * n_state));
        memset(w.da, 0, sizeof(float) * (size_t)(w.width * n_state));
        memset(w.dd, 0, sizeof(float) * (size_t)w.width);
        for (int32_t t0 = (rows - 1) / SCAN_CHUNK * SCAN_CHUNK; t0 >= 0; t0 -= SCAN_CHUNK) {
            const int len = rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK;
            memset(w.db, 0, sizeof(float) * (size_t)w.padded * BLOCK);
            memset(w.dc, 0, sizeof(float) * (size_t)w.padded * BLOCK);
            for (int32_t col = 0; col < cols; col += 8) run_block(c, &w, s, t0, len, col);
            sum_lanes(&w, w.db, &c->out[OUT_DB], s, t0, len, n_state);
            sum_lanes(&w, w.dc, &c->out[OUT_DC], s, t0, len, n_state);
        }
        Rows da = rows_of(&c->out[OUT_DA], s, 0, 0), dd = rows_of(&c->out[OUT_DD], s, 0, 0);
        for (int32_t k = 0; da.p && k < cols; k++)
            for (int32_t n = 0; n < n_state; n++) da.p[k * da.ld + n] = w.da[n * w.width + k];
        if (dd.p) memcpy(dd.p, w.dd, sizeof(float) * (size_t)cols);
    }
}

const CpuRow mdr_cpu_rows_selective_scan_grad[] = {
    {"selective_scan_grad", {.run = run, .units = units, .scratch = scratch}, NULL}, {0}};
