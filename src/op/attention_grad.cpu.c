/* attention_grad, fast: a unit is one head of one sequence. 24 keys as lanes meet blocks of queries: the scores
 * are made anew (queries broadcast), P = 2^(S - lse), dS = P (dY V^T - D); dV^T += dY^T P and dK^T += Q^T dS are
 * the same micro-kernel as the scores, dQ += dS K has the features as lanes. Keys as lanes, because then only one
 * of the three sums runs across lanes. Sums over queries and over keys run in their order, so neither L nor the
 * slice changes a bit. Scratch is O(L d). */
#include "op/attention_tile.h"

/* queries in a block: P, dS, Q, dY, dQ for head size 8 fit the cache */
enum { BLOCK = 96 };

typedef struct Work { float *q, *dy, *dq, *lse, *total, *k, *kt, *vt, *dkt, *dvt, *p, *ds; } Work;
/* queries k0+24 .. seen-1 see every lane */
typedef struct Tile { __m256i lo[3], hi[3]; int32_t k0, nv, seen, end; } Tile;

static size_t scratch(const Node *n, Extent e) {
    (void)e;
    const Head h = head_of(n);
    const size_t rows = (size_t)h.padded * (size_t)(3 * h.dp + 2), tiles = (size_t)(5 * h.dp + 2 * BLOCK) * TILE;
    return sizeof(float) * (rows + tiles);
}
static int64_t units(const Node *n, Extent e) { return (int64_t)e.n_seq * ((const AttentionAttr *)n->attr)->n_heads; }
static Work cut(const Head *h, float *p) {
    const int64_t rows = (int64_t)h->padded * h->dp, tile = (int64_t)h->dp * TILE;
    Work w = {.q = p, .dy = p + rows, .dq = p + 2 * rows, .lse = p + 3 * rows};
    w.total = w.lse + h->padded;
    w.k = w.total + h->padded;
    w.kt = w.k + tile;
    w.vt = w.kt + tile;
    w.dkt = w.vt + tile;
    w.dvt = w.dkt + tile;
    w.p = w.dvt + tile;
    w.ds = w.p + BLOCK * TILE;
    return w;
}

/* p = scores less lse, n queries */
#define LESS_LSE(r) { const __m256 b = _mm256_broadcast_ss(lse + j + (r));                                             \
    a##r##0 = _mm256_sub_ps(a##r##0, b); a##r##1 = _mm256_sub_ps(a##r##1, b); a##r##2 = _mm256_sub_ps(a##r##2, b); }
INL void scores(int nv, int32_t d, int32_t n, const float *q, const float *kt, const float *lse, float *to) {
    for (int32_t j = 0; j < n; j += 4, q += 4 * d, to += 4 * TILE) {
        FOUR(TILE_ZERO)
        TILE_PRODUCT(d, q, d, 1, kt)
        FOUR(LESS_LSE)
        FOUR(TILE_STORE)
    }
}
INL void exps(int nv, int32_t d, int32_t n, float *p) {
    (void)d;
    for (int32_t j = 0; j < n; j++, p += TILE) {
        _mm256_store_ps(p, v_exp2(_mm256_load_ps(p)));
        if (nv > 1) _mm256_store_ps(p + 8, v_exp2(_mm256_load_ps(p + 8)));
        if (nv > 2) _mm256_store_ps(p + 16, v_exp2(_mm256_load_ps(p + 16)));
    }
}
static void masked_exps(__m256i lo, __m256i hi, int32_t j0, int32_t n, float *p) {
    for (int32_t j = 0; j < n; j++, p += TILE)
        _mm256_store_ps(p, _mm256_and_ps(v_keep(j0 + j, lo, hi), v_exp2(_mm256_load_ps(p))));
}
/* ds = p (dy v^T - total), n queries */
#define TIMES_P(r) { const __m256 b = _mm256_broadcast_ss(total + j + (r));                                            \
    a##r##0 = _mm256_mul_ps(_mm256_sub_ps(a##r##0, b), _mm256_load_ps(p + (r) * TILE));                                \
    if (nv > 1) a##r##1 = _mm256_mul_ps(_mm256_sub_ps(a##r##1, b), _mm256_load_ps(p + (r) * TILE + 8));                \
    if (nv > 2) a##r##2 = _mm256_mul_ps(_mm256_sub_ps(a##r##2, b), _mm256_load_ps(p + (r) * TILE + 16)); }
INL void score_grads(int nv, int32_t d, int32_t n, const float *dy, const float *vt, const float *total,
    const float *p, float *to) {
    for (int32_t j = 0; j < n; j += 4, dy += 4 * d, p += 4 * TILE, to += 4 * TILE) {
        FOUR(TILE_ZERO)
        TILE_PRODUCT(d, dy, d, 1, vt)
        FOUR(TIMES_P)
        FOUR(TILE_STORE)
    }
}

/* dq[j][..] += sum over nk keys of ds[j][key] k[key][..], n queries: eight chains, 8 rows of 8 features or 4 rows of
 * 16 */
#define EIGHT(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define DQ8_LOAD(r) __m256 b##r = _mm256_load_ps(dq + (r) * d);
#define DQ8_FMA(r) b##r = _mm256_fmadd_ps(_mm256_broadcast_ss(ds + (r) * TILE + i), x, b##r);
#define DQ8_STORE(r) _mm256_store_ps(dq + (r) * d, b##r);
#define DQ4_LOAD(r) __m256 b##r = _mm256_load_ps(dq + (r) * d + f), c##r = _mm256_load_ps(dq + (r) * d + f + 8);
#define DQ4_FMA(r) { const __m256 s = _mm256_broadcast_ss(ds + (r) * TILE + i);                                        \
    b##r = _mm256_fmadd_ps(s, x, b##r); c##r = _mm256_fmadd_ps(s, y, c##r); }
#define DQ4_STORE(r) _mm256_store_ps(dq + (r) * d + f, b##r); _mm256_store_ps(dq + (r) * d + f + 8, c##r);
static void query_grads8(int32_t d, int32_t n, int32_t nk, const float *ds, const float *k, float *dq) {
    for (int32_t j = 0; j < n; j += 8, ds += 8 * TILE, dq += 8 * d) {
        EIGHT(DQ8_LOAD)
        for (int32_t i = 0; i < nk; i++) {
            const __m256 x = _mm256_load_ps(k + i * d);
            EIGHT(DQ8_FMA)
        }
        EIGHT(DQ8_STORE)
    }
}
static void query_grads(int32_t d, int32_t n, int32_t nk, const float *ds, const float *k, float *dq) {
    for (int32_t j = 0; j < n; j += 4, ds += 4 * TILE, dq += 4 * d)
        for (int32_t f = 0; f + 8 < d; f += 16) {
            FOUR(DQ4_LOAD)
            for (int32_t i = 0; i < nk; i++) {
                const __m256 x = _mm256_load_ps(k + i * d + f), y = _mm256_load_ps(k + i * d + f + 8);
                FOUR(DQ4_FMA)
            }
            FOUR(DQ4_STORE)
        }
}

/* Queries [j, next) of one shape: 8 of the diagonal, seeing the first nv registers; seen by all; right edge of the
 * window.
 * Registers v0 .. nv-1 need the mask. */
static int32_t segment(const Tile *t, int32_t j, int32_t end, int *v0, int *nv) {
    const int32_t diagonal = t->k0 + 8 * t->nv;
    *nv = j < diagonal ? (j - t->k0) / 8 + 1 : t->nv;
    *v0 = j >= t->seen ? 0 : j < diagonal ? *nv - 1 : *nv;
    return at_most(end, j < diagonal ? j + 8 : j >= t->seen ? end : t->seen);
}

static void one_block(const Head *h, const Work *w, const Tile *t, int32_t begin, int32_t end) {
    for (int32_t j = begin, next; j < end; j = next) {
        int v0, nv;
        next = segment(t, j, end, &v0, &nv);
        const int32_t n = next - j, d = h->dp;
        const float *q = w->q + (int64_t)j * d, *dy = w->dy + (int64_t)j * d;
        float *dq = w->dq + (int64_t)j * d;
        BY_SHAPE(nv, d, scores, n, q, w->kt, w->lse + j, w->p);
        for (int v = v0; v < nv; v++) masked_exps(t->lo[v], t->hi[v], j, n, w->p + 8 * v);
        if (v0 > 0) BY_SHAPE(v0, 8, exps, n, w->p);
        BY_SHAPE(nv, d, score_grads, n, dy, w->vt, w->total + j, w->p, w->ds);
        BY_SHAPE(nv, d, tile_gather, n, dy, w->p, w->dvt);
        BY_SHAPE(nv, d, tile_gather, n, q, w->ds, w->dkt);
        if (d == 8) query_grads8(8, n, 8 * nv, w->ds, w->k, dq);
        else {
            query_grads(d, n, 8 * nv, w->ds, w->k, dq);
            if (d % 16) query_grads8(d, n, 8 * nv, w->ds, w->k + d - 8, dq + d - 8);
        }
    }
}

/* to[t] = a[t] . b[t]; a packed, b as it comes; eight rows at a time, summed across after a transposition */
static void row_dots(const Head *h, const float *a, const float *b, int64_t ld, float *to) {
    for (int32_t t = 0; t < h->padded; t += 8) {
        __m256 m[8];
        for (int i = 0; i < 8; i++) {
            m[i] = _mm256_setzero_ps();
            for (int32_t f = 0; f < h->dp && t + i < h->rows; f += 8)
                m[i] = _mm256_fmadd_ps(_mm256_load_ps(a + (int64_t)(t + i) * h->dp + f), v_load(b + (t + i) * ld + f,
                    h->d - f), m[i]);
        }
        transpose8(m);
        for (int i = 0; i < 4; i++) m[i] = _mm256_add_ps(m[i], m[i + 4]);
        _mm256_store_ps(to + t, _mm256_add_ps(_mm256_add_ps(m[0], m[2]), _mm256_add_ps(m[1], m[3])));
    }
}

/* The rows of q (scaled), dy, lse (in base 2) and D = dy.y - dlse; dq = 0. */
static void prepare(const Call *c, const Head *h, const Work *w, int64_t s, int64_t head) {
    const float *in[7];
    for (int i = 0; i < 7; i++)
        in[i] = !c->in[i].data ? NULL
                               : (const float *)c->in[i].data + s * c->in[i].seq + head * (i == 4 || i == 6 ? 1 : h->d);
    pack_rows(h, in[0], c->in[0].ld, (float)(LOG2E / sqrt((double)h->d)), w->q);
    pack_rows(h, in[5], c->in[5].ld, 1.0f, w->dy);
    memset(w->dq, 0, (size_t)h->padded * (size_t)h->dp * sizeof *w->dq);
    for (int32_t t = h->rows; t < h->padded; t++) w->lse[t] = 0.0f;
    row_dots(h, w->dy, in[3], c->in[3].ld, w->total);
    for (int32_t t = 0; t < h->rows; t++) w->lse[t] = (float)LOG2E * in[4][t * c->in[4].ld];
    for (int32_t t = 0; t < h->rows && in[6]; t++) w->total[t] -= in[6][t * c->in[6].ld];
}

/* Keys k0 .. of the head: rows in w->k, and both k and v with keys as lanes. */
static void load_keys(const Call *c, const Head *h, const Work *w, const float *k, const float *v, int32_t k0,
    Tile *t) {
    const int32_t n = at_most(TILE, h->rows - k0);
    const Head part = {.rows = n, .padded = up8(n), .d = h->d, .dp = h->dp};
    pack_rows(&part, v + k0 * c->in[2].ld, c->in[2].ld, 1.0f, w->k);
    rows_to_lanes(h->dp, part.padded / 8, w->k, 1.0f, w->vt);
    pack_rows(&part, k + k0 * c->in[1].ld, c->in[1].ld, 1.0f, w->k);
    rows_to_lanes(h->dp, part.padded / 8, w->k, 1.0f, w->kt);
    memset(w->dkt, 0, 2 * (size_t)h->dp * TILE * sizeof *w->dkt);
    t->k0 = k0;
    t->nv = part.padded / 8;
    t->seen = at_most(h->padded, (k0 + at_most(h->window, h->padded) + 1) & ~7);
    t->end = at_most(h->padded, up8(k0 + 8 * t->nv + at_most(h->window, h->padded)));
    for (int i = 0; i < t->nv; i++) {
        const __m256i key = v_count(k0 + 8 * i);
        t->lo[i] = _mm256_sub_epi32(key, _mm256_set1_epi32(1));
        t->hi[i] = _mm256_add_epi32(key, _mm256_set1_epi32(h->window + 1));
    }
}

static void attention_grad_fast(const Call *c, int64_t unit0, int64_t unit1) {
    const Head h = head_of(c->node);
    const Work w = cut(&h, c->scratch);
    const __m256 one = _mm256_set1_ps(1.0f), ln2 = _mm256_set1_ps((float)(1.0 / LOG2E));
    const __m256 ones[3] = {one, one, one}, ln2s[3] = {ln2, ln2, ln2},
        scale = _mm256_set1_ps((float)(1.0 / sqrt((double)h.d)));
    for (int64_t u = unit0; u < unit1; u++) {
        const int64_t s = u / h.heads, head = u % h.heads, col = head * h.d;
        const float *k = (const float *)c->in[1].data + s * c->in[1].seq + col,
            *v = (const float *)c->in[2].data + s * c->in[2].seq + col;
        float *out[3];
        for (int i = 0; i < 3; i++) out[i] = c->out[i].data ? (float *)c->out[i].data + s * c->out[i].seq + col : NULL;
        prepare(c, &h, &w, s, head);
        for (int32_t k0 = 0; k0 < h.rows; k0 += TILE) {
            Tile t;
            load_keys(c, &h, &w, k, v, k0, &t);
            for (int32_t j = k0; j < t.end; j += BLOCK) one_block(&h, &w, &t, j, at_most(t.end, j + BLOCK));
            const int32_t n = at_most(TILE, h.rows - k0);
            if (out[1]) lanes_to_rows(&h, n, w.dkt, ln2s, out[1] + k0 * c->out[1].ld, c->out[1].ld);
            if (out[2]) lanes_to_rows(&h, n, w.dvt, ones, out[2] + k0 * c->out[2].ld, c->out[2].ld);
        }
        for (int32_t t = 0; t < h.rows && out[0]; t++)
            for (int32_t f = 0; f < h.d; f += 8)
                v_store(out[0] + t * c->out[0].ld + f, h.d - f, _mm256_mul_ps(scale,
                    _mm256_load_ps(w.dq + (int64_t)t * h.dp + f)));
    }
}

const CpuRow mdr_cpu_rows_attention_grad[] = {
    {.op = "attention_grad", .kernel = {.run = attention_grad_fast, .units = units, .scratch = scratch}}, {0}};
