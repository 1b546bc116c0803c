/* What attention's two fast kernels share: tiles of TILE positions side by side (queries forward, keys backward; three
 * registers), one micro-kernel for every product, masks, the exponential, and packing between rows and lanes.
 * Every element of every product is ONE chain of FMAs in the order of the row it sums over, so no cut changes a bit.
 * Unrolled by macros, not pragmas: clang 14 ignores gcc's and then runs at half the speed. */
#ifndef MDR_ATTENTION_TILE_H
#define MDR_ATTENTION_TILE_H
#include "op/avx2.h"
#include "op/op.h"
#include <math.h>
#include <string.h>

#define INL static inline __attribute__((always_inline))
enum { TILE = 24, NO_WINDOW = 1 << 30 };
#define LOG2E 1.4426950408889634

/* padded, dp: rows and d up to a multiple of 8 */
typedef struct Head { int32_t rows, padded, d, dp, heads, window; } Head;
static inline int32_t up8(int32_t n) { return (n + 7) & ~7; }
static inline int32_t at_most(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t at_least(int32_t a, int32_t b) { return a > b ? a : b; }
static inline Head head_of(const Node *n) {
    const AttentionAttr *a = n->attr;
    const Shape q = n->in_type[0].shape;
    const int32_t d = q.d[1] / a->n_heads;
    const int32_t window = a->window > 0 ? at_most(a->window, NO_WINDOW) : NO_WINDOW;
    return (Head){q.d[0], up8(q.d[0]), d, up8(d), a->n_heads, window};
}

/* 2^x for x < 128 (scores carry the factor log2 e): relative error 1.7e-7, NaN stays NaN, below 2^-125 it is
 * 2^-125. Half the multiplications of v_exp, whose range and zeros nobody needs here; it is a third of the forward's
 * time at head size 8. The magic number leaves round(x) + 127 in the low bits, which shifted up are the float 2^round(x). */
INL __m256 v_exp2(__m256 x) {
    const __m256 magic = _mm256_set1_ps(12582912.0f + 127.0f);
    x = _mm256_max_ps(_mm256_set1_ps(-125.0f), x);
    const __m256 t = _mm256_add_ps(x, magic), r = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0.00132647271f), r, _mm256_set1_ps(0.00967151265f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0555073374f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240222421f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693146978f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

/* ---- the micro-kernel: a[r][v] += sum over s of x[r * xr + s * xs] * y[s * TILE + 8 v], r < 4, v < nv ----------- */
#define FOUR(M) M(0) M(1) M(2) M(3)
#define TILE_ZERO(r) __m256 a##r##0 = _mm256_setzero_ps(), a##r##1 = a##r##0, a##r##2 = a##r##0;
#define TILE_FMA(r) {                                                                                                  \
    const __m256 b = _mm256_broadcast_ss(x_ + (r) * xr_);                                                              \
    a##r##0 = _mm256_fmadd_ps(b, c0, a##r##0);                                                                         \
    if (nv > 1) a##r##1 = _mm256_fmadd_ps(b, c1, a##r##1);                                                             \
    if (nv > 2) a##r##2 = _mm256_fmadd_ps(b, c2, a##r##2); }
#define TILE_PRODUCT(steps, x, xr, xs, y) {                                                                            \
    const float *x_ = (x), *y_ = (y);                                                                                  \
    const int64_t xr_ = (xr);                                                                                          \
    for (int64_t s_ = 0; s_ < (steps); s_++, x_ += (xs), y_ += TILE) {                                                 \
        const __m256 c0 = _mm256_load_ps(y_), c1 = nv > 1 ? _mm256_load_ps(y_ + 8) : c0,                               \
                     c2 = nv > 2 ? _mm256_load_ps(y_ + 16) : c0;                                                       \
        FOUR(TILE_FMA)                                                                                                 \
    } }
#define TILE_LOAD(r) __m256 a##r##0 = _mm256_load_ps(to + (r) * TILE),                                                 \
    a##r##1 = nv > 1 ? _mm256_load_ps(to + (r) * TILE + 8) : a##r##0,                                                  \
    a##r##2 = nv > 2 ? _mm256_load_ps(to + (r) * TILE + 16) : a##r##0;
#define TILE_STORE(r) _mm256_store_ps(to + (r) * TILE, a##r##0);                                                       \
    if (nv > 1) _mm256_store_ps(to + (r) * TILE + 8, a##r##1);                                                         \
    if (nv > 2) _mm256_store_ps(to + (r) * TILE + 16, a##r##2);
/* A constant number of registers and, for the small heads, of features: the compiler makes one loop of each. */
#define BY_REGISTERS(nv, f, ...) switch (nv) {                                                                         \
    case 1: f(1, __VA_ARGS__); break;                                                                                  \
    case 2: f(2, __VA_ARGS__); break;                                                                                  \
    default: f(3, __VA_ARGS__); }
#define BY_SHAPE(nv, d, f, ...) do {                                                                                   \
    if ((d) == 8) BY_REGISTERS(nv, f, 8, __VA_ARGS__)                                                                  \
    else BY_REGISTERS(nv, f, d, __VA_ARGS__) } while (0)

/* to[f][lanes] += sum over n rows of x[row][f] * p[row][lanes]: y, dv and dk, features down, lanes across */
INL void tile_gather(int nv, int32_t d, int32_t n, const float *x, const float *p, float *to) {
    for (int32_t f = 0; f < d; f += 4, to += 4 * TILE) {
        FOUR(TILE_LOAD)
        TILE_PRODUCT(n, x + f, 1, d, p)
        FOUR(TILE_STORE)
    }
}

/* ---- masks: row j sees the lanes with lo < j < hi --------------------------------------------------------------- */
INL __m256 v_keep(int32_t j, __m256i lo, __m256i hi) {
    const __m256i row = _mm256_set1_epi32(j);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(row, lo), _mm256_cmpgt_epi32(hi, row)));
}
INL __m256i v_count(int32_t from) {
    return _mm256_add_epi32(_mm256_set1_epi32(from), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */
INL void transpose8(__m256 v[8]) {
    const __m256 a0 = _mm256_unpacklo_ps(v[0], v[1]), a1 = _mm256_unpackhi_ps(v[0], v[1]);
    const __m256 a2 = _mm256_unpacklo_ps(v[2], v[3]), a3 = _mm256_unpackhi_ps(v[2], v[3]);
    const __m256 a4 = _mm256_unpacklo_ps(v[4], v[5]), a5 = _mm256_unpackhi_ps(v[4], v[5]);
    const __m256 a6 = _mm256_unpacklo_ps(v[6], v[7]), a7 = _mm256_unpackhi_ps(v[6], v[7]);
    const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
    const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
    const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
    const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
    v[0] = _mm256_permute2f128_ps(b0, b4, 0x20); v[1] = _mm256_permute2f128_ps(b1, b5, 0x20);
    v[2] = _mm256_permute2f128_ps(b2, b6, 0x20); v[3] = _mm256_permute2f128_ps(b3, b7, 0x20);
    v[4] = _mm256_permute2f128_ps(b0, b4, 0x31); v[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
    v[6] = _mm256_permute2f128_ps(b2, b6, 0x31); v[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
}
/* to[row][dp] = from[row][d] * scale; zeros beyond d and in the rows up to h->padded */
static inline void pack_rows(const Head *h, const float *from, int64_t ld, float scale, float *to) {
    if (h->d == 8)
        for (int32_t t = 0; t < h->rows; t++) _mm256_store_ps(to + 8 * t,
            _mm256_mul_ps(_mm256_loadu_ps(from + t * ld), _mm256_set1_ps(scale)));
    else for (int32_t t = 0; t < h->rows; t++)
        for (int32_t f = 0; f < h->dp; f += 8)
            _mm256_store_ps(to + (int64_t)t * h->dp + f, _mm256_mul_ps(v_load(from + t * ld + f, h->d - f),
                _mm256_set1_ps(scale)));
    memset(to + (int64_t)h->rows * h->dp, 0, (size_t)(h->padded - h->rows) * (size_t)h->dp * sizeof *to);
}
/* to[f][lane] = from[lane][f], nv * 8 rows of dp floats */
static inline void rows_to_lanes(int32_t dp, int nv, const float *from, float scale, float *to) {
    for (int v = 0; v < nv; v++)
        for (int32_t f = 0; f < dp; f += 8) {
            __m256 m[8];
            for (int i = 0; i < 8; i++) m[i] = _mm256_mul_ps(_mm256_load_ps(from + (8 * v + i) * dp + f),
                _mm256_set1_ps(scale));
            transpose8(m);
            for (int i = 0; i < 8; i++) _mm256_store_ps(to + (f + i) * TILE + 8 * v, m[i]);
        }
}
/* rows t < n of to (d columns, row stride ld) = from[f][lane t] * scale[lane t] */
static inline void lanes_to_rows(const Head *h, int32_t n, const float *from, const __m256 scale[3], float *to,
    int64_t ld) {
    for (int32_t t = 0; t < n; t += 8)
        for (int32_t f = 0; f < h->d; f += 8) {
            __m256 m[8];
            for (int i = 0; i < 8; i++) m[i] = _mm256_mul_ps(_mm256_load_ps(from + (f + i) * TILE + t), scale[t / 8]);
            transpose8(m);
            for (int i = 0; i < 8 && t + i < n; i++) v_store(to + (t + i) * ld + f, h->d - f, m[i]);
        }
}
#endif
