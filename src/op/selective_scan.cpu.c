/* Forward selective_scan with AVX2: lanes = channels, a unit is one sequence and 64 channels, time goes by chunks of 16
 * (where the states are saved). A chunk of eight channels is first brought together: rows a power of two apart would push
 * each other out of the cache while the states go by. */
#include "op/selective_scan_avx2.h"

enum { UNIT = 64 };
/* Working memory. a, h: [UNIT / 8][n_state][8]; x = delta log2(e), du = delta u, y: [SCAN_CHUNK][8]; decay [..][4][8]. */
typedef struct Work { float *a, *h, *x, *du, *y, *decay; } Work;
/* Of a sequence and a chunk: row 0 of B and C, and the tokens. */
typedef struct Shared { Strip bm, cm; int len; } Shared;

/* A chunk of eight channels and `group` states from n0 on, which stand at `at` in a and h. */
INLINE void advance(const Work *w, const Shared *z, const int group, int n0, int64_t at) {
    const int len = z->len;
    const float *a = w->a + at, *bm = z->bm.p + n0, *cm = z->cm.p + n0, *e = w->decay, *du = w->du;
    float *to = w->h + at, *y = w->y;
    const int64_t ld_b = z->bm.ld, ld_c = z->cm.ld;
    decays(w->x, a, group, len, w->decay);
    __m256 h[4];
#define LOAD(i) h[i] = _mm256_load_ps(to + i * 8);
    EACH_STATE(LOAD);
    for (int t = 0; t < len; t++, bm += ld_b, cm += ld_c, e += 32, du += 8, y += 8) {
        __m256 v = _mm256_load_ps(du), sum = _mm256_load_ps(y);
#define STEP(i)                                                                                                        \
        h[i] = _mm256_fmadd_ps(_mm256_load_ps(e + i * 8), h[i], _mm256_mul_ps(v, _mm256_broadcast_ss(bm + i)));         \
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(cm + i), h[i], sum);
        EACH_STATE(STEP);
        _mm256_store_ps(y, sum);
    }
#define STORE(i) _mm256_store_ps(to + i * 8, h[i]);
    EACH_STATE(STORE);
}
#define GROUP(size)                                                                                                    \
    static __attribute__((noinline)) void advance_##size(const Work *w, const Shared *z, int n0, int64_t at) {         \
        advance(w, z, size, n0, at);                                                                                   \
    }
GROUP(4)
GROUP(2)
GROUP(1)

/* Channels col .. col + 8 of one sequence (number k in the unit) and the chunk from t0 on. */
static void run_block(const Call *c, const Work *w, const Shared *z, int64_t s, int32_t t0, int32_t col, int k) {
    const int32_t cols = c->node->in_type[IN_U].shape.d[1], n_state = c->node->in_type[IN_A].shape.d[1];
    const int n = cols - col;
    const Strip u = strip(&c->in[IN_U], s, t0, col), delta = strip(&c->in[IN_DELTA], s, t0, col);
    const Strip y = strip(&c->out[OUT_Y], s, t0, col);
    const int64_t at = (int64_t)k * n_state;
    const __m256 d = get(strip(&c->in[IN_D], s, 0, col).p, n), log2e = _mm256_set1_ps(1.44269504f);
    for (int t = 0; t < z->len; t++) {
        __m256 v = get(u.p + t * u.ld, n), step = get(delta.p + t * delta.ld, n);
        /* the rows of the next chunk: strides of a page, which no prefetcher follows (at the end: harmless) */
        _mm_prefetch((const char *)(u.p + (t + SCAN_CHUNK) * u.ld), _MM_HINT_T0);
        _mm_prefetch((const char *)(delta.p + (t + SCAN_CHUNK) * delta.ld), _MM_HINT_T0);
        _mm256_store_ps(w->x + t * 8, _mm256_mul_ps(step, log2e));
        _mm256_store_ps(w->du + t * 8, _mm256_mul_ps(step, v));
        _mm256_store_ps(w->y + t * 8, _mm256_mul_ps(d, v));
    }
    const Strip states = strip(&c->out[OUT_STATES], s, t0 / SCAN_CHUNK, col);
    for (int32_t i = 0; states.p && i < n_state; i++)
        put(states.p + (int64_t)i * cols, n, _mm256_load_ps(w->h + at + i * 8));
    int i = 0;
    for (; i + 4 <= n_state; i += 4) advance_4(w, z, i, at + i * 8);
    if (i + 2 <= n_state) { advance_2(w, z, i, at + i * 8); i += 2; }
    if (i < n_state) advance_1(w, z, i, at + i * 8);
    for (int t = 0; t < z->len; t++) put(y.p + t * y.ld, n, _mm256_load_ps(w->y + t * 8));
}

static int64_t blocks(const Node *n) { return ((int64_t)n->in_type[IN_U].shape.d[1] + UNIT - 1) / UNIT; }
static int64_t units(const Node *n, Extent e) { return e.n_seq * blocks(n); }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return sizeof(float) * (2 * UNIT * (size_t)n->in_type[IN_A].shape.d[1] + (3 + 4) * SCAN_CHUNK * 8);
}

static void run(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t rows = c->node->in_type[IN_U].shape.d[0], cols = c->node->in_type[IN_U].shape.d[1];
    const int32_t n_state = c->node->in_type[IN_A].shape.d[1];
    const int64_t per_seq = blocks(c->node);
    Work w = {.a = c->scratch};
    w.h = w.a + (int64_t)n_state * UNIT;
    w.x = w.h + (int64_t)n_state * UNIT;
    w.du = w.x + SCAN_CHUNK * 8;
    w.y = w.du + SCAN_CHUNK * 8;
    w.decay = w.y + SCAN_CHUNK * 8;
    memset(w.x, 0, sizeof(float) * SCAN_CHUNK * 8);
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t s = unit / per_seq;
        const int32_t col = (int32_t)(unit % per_seq) * UNIT, n = cols - col < UNIT ? cols - col : UNIT;
        const Strip a = strip(&c->in[IN_A], s, col, 0);
        to_lanes(w.a, a.p, a.ld, n, n_state);
        memset(w.h, 0, sizeof(float) * UNIT * (size_t)n_state);
        for (int32_t t0 = 0; t0 < rows; t0 += SCAN_CHUNK) {
            const int len = rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK;
            const Shared z = {strip(&c->in[IN_B], s, t0, 0), strip(&c->in[IN_C], s, t0, 0), len};
            for (int32_t k = 0; k < n; k += 8) run_block(c, &w, &z, s, t0, col + k, k);
        }
    }
}

const CpuRow mdr_cpu_rows_selective_scan[] = {
    {"selective_scan", {.run = run, .units = units, .scratch = scratch}, NULL}, {0}};
