/* Forward selective_scan with AVX2: lanes = channels, a unit is one sequence and 64 channels, time goes by chunks of 16
 * (where the states are saved) so that the rows of a chunk serve all channels of the unit from the cache. */
#include "op/selective_scan_avx2.h"

enum { UNIT = 64 };

/* len tokens of eight channels; a, h: [n_state][UNIT] at this block. */
typedef struct Block {
    Rows u, delta, y;
    const float *bm, *cm;
    int64_t ld_b, ld_c;
    const float *a;
    float *h;
    __m256 d;
    int len;
} Block;

INLINE void advance(const Block *k, const int group, int n0) {
    _Alignas(32) float decay[SCAN_CHUNK * 32];
    decays(k->delta, k->a + n0 * UNIT, UNIT, group, k->len, decay);
    __m256 h[4];
#define LOAD(i) h[i] = _mm256_load_ps(k->h + (n0 + i) * UNIT);
    EACH_STATE(LOAD);
    const Rows ru = k->u, rd = k->delta, ry = k->y;                 /* in registers: a store might change *k              */
    const float *bm = k->bm + n0, *cm = k->cm + n0, *e = decay;
    const int64_t ld_b = k->ld_b, ld_c = k->ld_c;
    const __m256 d = k->d;
    for (int t = 0, len = k->len; t < len; t++, bm += ld_b, cm += ld_c, e += 32) {
        __m256 u = row(ru, t), du = _mm256_mul_ps(row(rd, t), u);
        __m256 y = n0 == 0 ? _mm256_mul_ps(d, u) : row(ry, t);
#define STEP(i)                                                                                                        \
        h[i] = _mm256_fmadd_ps(_mm256_load_ps(e + i * 8), h[i], _mm256_mul_ps(du, _mm256_broadcast_ss(bm + i)));        \
        y = _mm256_fmadd_ps(_mm256_broadcast_ss(cm + i), h[i], y);
        EACH_STATE(STEP);
        _mm256_storeu_ps(ry.p + t * ry.ld, y);
    }
#define STORE(i) _mm256_store_ps(k->h + (n0 + i) * UNIT, h[i]);
    EACH_STATE(STORE);
}
static __attribute__((noinline)) void advance_4(const Block *k, int n0) { advance(k, 4, n0); }
static __attribute__((noinline)) void advance_2(const Block *k, int n0) { advance(k, 2, n0); }
static __attribute__((noinline)) void advance_1(const Block *k, int n0) { advance(k, 1, n0); }

static void advance_all(const Block *k, int n_state) {
    int n = 0;
    for (; n + 4 <= n_state; n += 4) advance_4(k, n);
    if (n + 2 <= n_state) { advance_2(k, n); n += 2; }
    if (n < n_state) advance_1(k, n);
}

typedef struct Scratch { float *a, *h, *stage; } Scratch;    /* [N][UNIT], [N][UNIT], three of [SCAN_CHUNK][8]             */

/* Channels col .. col + n of one sequence, tokens t0 .. t0 + len. */
static void run_block(const Call *c, int64_t s, int32_t t0, int len, int32_t col, int32_t in_unit, const Scratch *w) {
    const int32_t cols = c->node->in_type[IN_U].shape.d[1], n_state = c->node->in_type[IN_A].shape.d[1];
    const int n = cols - col < 8 ? cols - col : 8;
#define AT(arg) {(float *)(arg).data + s * (arg).seq + t0 * (arg).ld + col, (arg).ld}
    Rows u = AT(c->in[IN_U]), delta = AT(c->in[IN_DELTA]), y = AT(c->out[OUT_Y]);
    Block k = {.u = u, .delta = delta, .y = y, .ld_b = c->in[IN_B].ld, .ld_c = c->in[IN_C].ld, .a = w->a + in_unit,
               .h = w->h + in_unit, .len = len};
    float d[8] = {0};
    memcpy(d, (const float *)c->in[IN_D].data + s * c->in[IN_D].seq + col, sizeof(float) * (size_t)n);
    k.d = _mm256_loadu_ps(d);
    k.bm = (const float *)c->in[IN_B].data + s * c->in[IN_B].seq + t0 * k.ld_b;
    k.cm = (const float *)c->in[IN_C].data + s * c->in[IN_C].seq + t0 * k.ld_c;
    if (n < 8) {
        k.u = stage_in(w->stage, u, len, n);
        k.delta = stage_in(w->stage + SCAN_CHUNK * 8, delta, len, n);
        k.y = (Rows){w->stage + 2 * SCAN_CHUNK * 8, 8};
    }
    if (c->out[OUT_STATES].data) {
        float *to = (float *)c->out[OUT_STATES].data + s * c->out[OUT_STATES].seq + t0 / SCAN_CHUNK * c->out[OUT_STATES].ld + col;
        for (int32_t i = 0; i < n_state; i++)
            memcpy(to + (int64_t)i * cols, k.h + (int64_t)i * UNIT, sizeof(float) * (size_t)n);
    }
    advance_all(&k, n_state);
    if (n < 8) stage_out(k.y.p, y, len, n);
}

static int64_t blocks(const Node *n) { return ((int64_t)n->in_type[IN_U].shape.d[1] + UNIT - 1) / UNIT; }
static int64_t units(const Node *n, Extent e) { return e.n_seq * blocks(n); }
static size_t scratch(const Node *n, Extent e) {
    (void)e;
    return sizeof(float) * (2 * UNIT * (size_t)n->in_type[IN_A].shape.d[1] + 3 * SCAN_CHUNK * 8);
}

static void run(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t rows = c->node->in_type[IN_U].shape.d[0], cols = c->node->in_type[IN_U].shape.d[1];
    const int32_t n_state = c->node->in_type[IN_A].shape.d[1];
    const int64_t per_seq = blocks(c->node);
    Scratch w = {.a = c->scratch};
    w.h = w.a + (int64_t)n_state * UNIT;
    w.stage = w.h + (int64_t)n_state * UNIT;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t s = unit / per_seq;
        const int32_t col = (int32_t)(unit % per_seq) * UNIT, n = cols - col < UNIT ? cols - col : UNIT;
        const Arg *a = &c->in[IN_A];
        states_to_lanes(w.a, UNIT, (const float *)a->data + s * a->seq + col * a->ld, a->ld, n, n_state);
        memset(w.h, 0, sizeof(float) * UNIT * (size_t)n_state);
        for (int32_t t0 = 0; t0 < rows; t0 += SCAN_CHUNK)
            for (int32_t k = 0; k < n; k += 8)
                run_block(c, s, t0, rows - t0 < SCAN_CHUNK ? rows - t0 : SCAN_CHUNK, col + k, k, &w);
    }
}

const CpuRow mdr_cpu_rows_selective_scan[] = {{"selective_scan", {.run = run, .units = units, .scratch = scratch}, NULL}, {0}};
