/* attention, fast: a unit is one head of one sequence. 24 queries as lanes meet blocks of keys that stay in the
 * first-level cache: S = K Q^T (keys broadcast), row maximum, P = 2^(S - max), O = V^T P; a running maximum joins
 * the blocks (Milakov and Gimelshein 2018). Keys that no query of the tile sees are never touched; the diagonal is
 * cut in steps of 8 keys. Block borders depend on the tile and the window only: the slice changes no bit (nor,
 * without a window, does L). Scratch is O(L d). The gradient stands in attention_grad.cpu.c. */
#include "op/attention_tile.h"

/* keys in a block: S, K and V for head size 8 take half of the cache */
enum { BLOCK = 96 };

typedef struct Work { float *k, *v, *qt, *o, *s; } Work;
/* the queries at hand */
typedef struct Tile {
    /* lane sees key j if lo < j < hi */
    __m256i lo[3], hi[3];
    __m256 most[3], sum[3];
    int32_t q0, nv;
    /* keys seen..q0-1 are seen by every lane */
    int32_t seen;
} Tile;

static size_t scratch(const Node *n, Extent e) {
    (void)e;
    const Head h = head_of(n);
    return sizeof(float) * ((size_t)h.dp * (size_t)(2 * h.padded + 2 * TILE) + BLOCK * TILE);
}
static int64_t units(const Node *n, Extent e) { return (int64_t)e.n_seq * ((const AttentionAttr *)n->attr)->n_heads; }

/* ---- scores of n keys; the unmasked ones take the maximum along ------------------------------------------------- */
#define MOST(v) _mm256_max_ps(_mm256_max_ps(a0##v, a1##v), _mm256_max_ps(a2##v, a3##v))
INL void scores(int nv, int32_t d, int32_t n, const float *k, const float *qt, float *to, __m256 *most) {
    __m256 m0 = most[0], m1 = nv > 1 ? most[1] : m0, m2 = nv > 2 ? most[2] : m0;
    for (int32_t j = 0; j < n; j += 4, k += 4 * d, to += 4 * TILE) {
        FOUR(TILE_ZERO)
        TILE_PRODUCT(d, k, d, 1, qt)
        FOUR(TILE_STORE)
        m0 = _mm256_max_ps(m0, MOST(0));
        if (nv > 1) m1 = _mm256_max_ps(m1, MOST(1));
        if (nv > 2) m2 = _mm256_max_ps(m2, MOST(2));
    }
    most[0] = m0;
    if (nv > 1) most[1] = m1;
    if (nv > 2) most[2] = m2;
}
static __m256 masked_most(__m256 most, __m256i lo, __m256i hi, int32_t j0, int32_t n, const float *s) {
    for (int32_t j = 0; j < n; j++)
        most = _mm256_max_ps(most, _mm256_blendv_ps(most, _mm256_load_ps(s + j * TILE), v_keep(j0 + j, lo, hi)));
    return most;
}

/* ---- s = 2^(s - most), sum += s --------------------------------------------------------------------------------- */
#define EXP_STEP(v) { const __m256 p = v_exp2(_mm256_sub_ps(_mm256_load_ps(s + 8 * (v)), m##v));                       \
    _mm256_store_ps(s + 8 * (v), p);                                                                                   \
    l##v = _mm256_add_ps(l##v, p); }
INL void exps(int nv, int32_t d, int32_t n, float *s, const __m256 *most, __m256 *sum) {
    (void)d;
    const __m256 m0 = most[0], m1 = nv > 1 ? most[1] : m0, m2 = nv > 2 ? most[2] : m0;
    __m256 l0 = sum[0], l1 = nv > 1 ? sum[1] : l0, l2 = nv > 2 ? sum[2] : l0;
    for (int32_t j = 0; j < n; j++, s += TILE) {
        EXP_STEP(0)
        if (nv > 1) EXP_STEP(1)
        if (nv > 2) EXP_STEP(2)
    }
    sum[0] = l0;
    if (nv > 1) sum[1] = l1;
    if (nv > 2) sum[2] = l2;
}
static __m256 masked_exps(__m256 sum, __m256 most, __m256i lo, __m256i hi, int32_t j0, int32_t n, float *s) {
    for (int32_t j = 0; j < n; j++, s += TILE) {
        const __m256 p = _mm256_and_ps(v_keep(j0 + j, lo, hi), v_exp2(_mm256_sub_ps(_mm256_load_ps(s), most)));
        _mm256_store_ps(s, p);
        sum = _mm256_add_ps(sum, p);
    }
    return sum;
}

/* The keys [j, next) have one shape: left edge of the window, seen by all, or 8 keys of the diagonal, which the
 * registers below v0 do not see. Registers v0 .. v1-1 need the mask. */
static int32_t segment(const Tile *t, int32_t j, int32_t end, int *v0, int *v1) {
    const bool edge = j < t->seen;
    *v0 = j > t->q0 ? (j - t->q0) / 8 : 0;
    *v1 = edge ? t->nv : j >= t->q0 ? *v0 + 1 : *v0;
    if (j >= t->q0) return at_most(end, j + 8);
    return at_most(end, edge ? at_most(t->seen, t->q0) : t->q0);
}

static void one_block(const Head *h, const Work *w, Tile *t, int32_t begin, int32_t end, bool first) {
    __m256 old[3], most[3];
    int v0, v1;
    memcpy(old, t->most, sizeof old);
    for (int32_t j = begin, next; j < end; j = next) {
        next = segment(t, j, end, &v0, &v1);
        float *s = w->s + (j - begin) * TILE;
        memcpy(most, t->most, sizeof most);
        BY_SHAPE(t->nv - v0, h->dp, scores, next - j, w->k + (int64_t)j * h->dp, w->qt + 8 * v0, s + 8 * v0, most + v0);
        for (int v = v0; v < t->nv; v++)
            t->most[v] = v < v1 ? masked_most(t->most[v], t->lo[v], t->hi[v], j, next - j, s + 8 * v) : most[v];
    }
    for (int v = 0; v < t->nv && !first; v++) {
        const __m256 shrink = v_exp2(_mm256_sub_ps(old[v], t->most[v]));
        t->sum[v] = _mm256_mul_ps(t->sum[v], shrink);
        for (int32_t f = 0; f < h->dp; f++)
            _mm256_store_ps(w->o + f * TILE + 8 * v, _mm256_mul_ps(shrink, _mm256_load_ps(w->o + f * TILE + 8 * v)));
    }
    for (int32_t j = begin, next; j < end; j = next) {
        next = segment(t, j, end, &v0, &v1);
        float *s = w->s + (j - begin) * TILE;
        for (int v = v0; v < v1; v++)
            t->sum[v] = masked_exps(t->sum[v], t->most[v], t->lo[v], t->hi[v], j, next - j, s + 8 * v);
        if (v1 < t->nv) BY_SHAPE(t->nv - v1, 8, exps, next - j, s + 8 * v1, t->most + v1, t->sum + v1);
        BY_SHAPE(t->nv - v0, h->dp, tile_gather, next - j, w->v + (int64_t)j * h->dp, s + 8 * v0, w->o + 8 * v0);
    }
}

/* Rows of the next tile: one register alone would run at half the rate (four chains), so 32 rows are 16 + 16, not 24
 * + 8. */
static int32_t tile_rows(int32_t left) { return up8(left) == 32 ? 16 : at_most(TILE, left); }

static void one_tile(const Head *h, const Work *w, const float *q, int64_t ld_q, int32_t q0, int32_t n, Tile *t) {
    const int32_t end = q0 + up8(n);
    const __m256 scale = _mm256_set1_ps((float)(LOG2E / sqrt((double)h->d)));
    t->q0 = q0;
    t->nv = up8(n) / 8;
    t->seen = up8(at_least(0, end - 1 - h->window));
    for (int v = 0; v < t->nv; v++) {
        const __m256i row = v_count(q0 + 8 * v);
        t->lo[v] = _mm256_sub_epi32(row, _mm256_set1_epi32(h->window + 1));
        t->hi[v] = _mm256_add_epi32(row, _mm256_set1_epi32(1));
        t->most[v] = _mm256_set1_ps(-1e30f);
        t->sum[v] = _mm256_setzero_ps();
        for (int32_t f = 0; f < h->dp; f += 8) {
            __m256 m[8];
            for (int i = 0; i < 8; i++)
                m[i] = 8 * v + i < n ? _mm256_mul_ps(scale, v_load(q + (q0 + 8 * v + i) * ld_q + f,
                    h->d - f)) : _mm256_setzero_ps();
            transpose8(m);
            for (int i = 0; i < 8; i++) _mm256_store_ps(w->qt + (f + i) * TILE + 8 * v, m[i]);
        }
    }
    memset(w->o, 0, (size_t)h->dp * TILE * sizeof *w->o);
    const int32_t begin = at_least(0, q0 - h->window) & ~7;
    for (int32_t j = begin; j < end; j += BLOCK) one_block(h, w, t, j, at_most(end, j + BLOCK), j == begin);
}

static void attention_fast(const Call *c, int64_t unit0, int64_t unit1) {
    const Head h = head_of(c->node);
    Work w;
    w.k = c->scratch;
    w.v = w.k + (int64_t)h.padded * h.dp;
    w.qt = w.v + (int64_t)h.padded * h.dp;
    w.o = w.qt + h.dp * TILE;
    w.s = w.o + h.dp * TILE;
    for (int64_t u = unit0; u < unit1; u++) {
        const int64_t s = u / h.heads, head = u % h.heads, col = head * h.d;
        const float *in[3];
        for (int i = 0; i < 3; i++) in[i] = (const float *)c->in[i].data + s * c->in[i].seq + col;
        pack_rows(&h, in[1], c->in[1].ld, 1.0f, w.k);
        pack_rows(&h, in[2], c->in[2].ld, 1.0f, w.v);
        float *y = c->out[0].data ? (float *)c->out[0].data + s * c->out[0].seq + col : NULL;
        float *lse = c->out[1].data ? (float *)c->out[1].data + s * c->out[1].seq + head : NULL;
        for (int32_t q0 = 0, n; q0 < h.rows; q0 += n) {
            Tile t;
            n = tile_rows(h.rows - q0);
            one_tile(&h, &w, in[0], c->in[0].ld, q0, n, &t);
            __m256 inverse[3];
            for (int v = 0; v < t.nv; v++) inverse[v] = _mm256_div_ps(_mm256_set1_ps(1.0f), t.sum[v]);
            if (y) lanes_to_rows(&h, n, w.o, inverse, y + q0 * c->out[0].ld, c->out[0].ld);
            for (int v = 0; v < t.nv && lse; v++) {
                float row[8];
                _mm256_storeu_ps(row, _mm256_fmadd_ps(t.most[v], _mm256_set1_ps((float)(1.0 / LOG2E)), v_ln(t.sum[v])));
                for (int32_t i = 0; i < at_most(8, n - 8 * v); i++) lse[(q0 + 8 * v + i) * c->out[1].ld] = row[i];
            }
        }
    }
}

const CpuRow mdr_cpu_rows_attention[] = {
    {.op = "attention", .kernel = {.run = attention_fast, .units = units, .scratch = scratch}}, {0}};
