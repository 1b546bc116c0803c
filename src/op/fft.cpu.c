/* The transform of fft.h with AVX2 and FMA, lanes = 8 channels. The first level (radix R, real rows in) and the last (real
 * rows out) are small dense products with constants; the others are radix-4 butterflies, depth first, so that all levels
 * below some hundred points run in the first cache, where the two innermost of F and of F^H meet around the product with
 * the filter. Every butterfly of a block has the same two factors (r and r^2 for z^m - r^4), so a table is about M
 * numbers. Not here: strides of sequences, sums over them (conv_fft.cpu.c). */
#include "op/avx2.h"
#include "op/fft.h"
#include "base/real_math.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
enum { TW = 4,                                        /* numbers of a block: r, r^2                                        */
       ROOT = FFT_MAX_RADIX * FFT_MAX_RADIX * FFT_POINT };

typedef struct Cx { __m256 re, im; } Cx;
INLINE Cx get(const float *p) { return (Cx){_mm256_loadu_ps(p), _mm256_loadu_ps(p + FFT_LANES)}; }
INLINE void put(float *p, Cx a) { _mm256_storeu_ps(p, a.re); _mm256_storeu_ps(p + FFT_LANES, a.im); }
INLINE Cx same(const float *p) { return (Cx){_mm256_broadcast_ss(p), _mm256_broadcast_ss(p + 1)}; }
INLINE Cx add(Cx a, Cx b) { return (Cx){_mm256_add_ps(a.re, b.re), _mm256_add_ps(a.im, b.im)}; }
INLINE Cx sub(Cx a, Cx b) { return (Cx){_mm256_sub_ps(a.re, b.re), _mm256_sub_ps(a.im, b.im)}; }
INLINE Cx add_i(Cx a, Cx b) { return (Cx){_mm256_sub_ps(a.re, b.im), _mm256_add_ps(a.im, b.re)}; }         /* a + i b      */
INLINE Cx sub_i(Cx a, Cx b) { return (Cx){_mm256_add_ps(a.re, b.im), _mm256_sub_ps(a.im, b.re)}; }         /* a - i b      */
INLINE Cx mul(Cx a, Cx w) {
    return (Cx){_mm256_fmsub_ps(a.re, w.re, _mm256_mul_ps(a.im, w.im)), _mm256_fmadd_ps(a.re, w.im, _mm256_mul_ps(a.im, w.re))};
}
INLINE Cx mul_conj(Cx a, Cx w) {                      /* a conj(w)                                                         */
    return (Cx){_mm256_fmadd_ps(a.re, w.re, _mm256_mul_ps(a.im, w.im)), _mm256_fmsub_ps(a.im, w.re, _mm256_mul_ps(a.re, w.im))};
}

/* ---- tables: R x R constants of the root, each 8 times over; then for each of the R sub-transforms its blocks as a heap: the
 * four parts of block i are 4 i + 1 .. 4 i + 4 */
static int32_t blocks(FftSize s) { return (s.sub - 1) / 3; }
size_t mdr_op_fft_floats(FftSize s) { return ROOT + (size_t)TW * (size_t)(s.radix * blocks(s)) + (size_t)s.sub + 16; }

typedef struct Turn { double re, im; } Turn;
static Turn turn(double turns) {
    Turn w;
    d_sincos(6.283185307179586477 * turns, &w.im, &w.re);
    return w;
}

void mdr_op_fft_table(FftSize s, float *table) {
    for (int32_t k = 0; k < s.radix; k++)
        for (int32_t q = 0; q < s.radix; q++) {
            Turn w = turn((k + 0.25) / s.radix * q);
            float *to = table + (k * s.radix + q) * FFT_POINT;
            for (int i = 0; i < FFT_LANES; i++) to[i] = (float)w.re, to[FFT_LANES + i] = (float)w.im;
        }
    float *to = table + ROOT;
    /* e[j] = quarter turns times the reversed bits of j as a binary fraction, by doubling */
    Turn *e = (Turn *)(void *)(to + ((size_t)TW * (size_t)(s.radix * blocks(s)) + 7) / 8 * 8);
    e[0] = (Turn){1.0, 0.0};
    double step = 0.125;
    for (int32_t n = 1; n < s.sub / 4; n *= 2, step /= 2) {
        Turn w = turn(step);
        for (int32_t j = 0; j < n; j++)
            e[n + j] = (Turn){e[j].re * w.re - e[j].im * w.im, e[j].re * w.im + e[j].im * w.re};
    }
    for (int32_t k = 0; k < s.radix; k++)
        for (int32_t n = 1; n < s.sub; n *= 4) {
            Turn w = turn((k + 0.25) / s.radix / (4.0 * n));
            for (int32_t j = 0; j < n; j++, to += TW) {
                double re = e[j].re * w.re - e[j].im * w.im, im = e[j].re * w.im + e[j].im * w.re;
                to[0] = (float)re, to[1] = (float)im;
                to[2] = (float)(re * re - im * im), to[3] = (float)(2.0 * re * im);
            }
        }
}

/* ---- root: z^M - i into R factors ---- */
INLINE __m256 load(const float *p, __m256i mask, const int whole) {
    return whole ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask);
}
/* Points j0 <= j < j1 of every part; x[q] the row of part q at j = 0, rows step[q] apart (0: a row of zeros). */
INLINE void begin(const float *const *x, const int64_t *step, int32_t j0, int32_t j1, __m256i mask, const int whole, const float *table,
                  float *z, int32_t m, const int R) {
    const int half = R % 2 == 0 ? R / 2 : R;
    for (int32_t j = j0; j < j1; j++) {
        __m256 a[FFT_MAX_RADIX];
        UNROLL for (int q = 0; q < R; q++) a[q] = load(x[q] + j * step[q], mask, whole);
        UNROLL for (int k = 0; k < half; k++) {
            const float *w = table + k * R * FFT_POINT;
            Cx even = {a[0], _mm256_setzero_ps()}, odd = {_mm256_setzero_ps(), _mm256_setzero_ps()};
            UNROLL for (int q = 1; q < R; q++) {
                const Cx c = get(w + q * FFT_POINT);
                Cx *to = q % 2 ? &odd : &even;
                to->re = q == 1 ? _mm256_mul_ps(c.re, a[q]) : _mm256_fmadd_ps(c.re, a[q], to->re);
                to->im = q <= 2 ? _mm256_mul_ps(c.im, a[q]) : _mm256_fmadd_ps(c.im, a[q], to->im);
            }
            put(z + (k * m + j) * FFT_POINT, add(even, odd));
            if (half < R) put(z + ((k + half) * m + j) * FFT_POINT, sub(even, odd));
        }
    }
}
/* The other way: real parts of F^H's last level; y[q]: the row of part q at j = 0, for the first n_row parts. */
INLINE void end(const float *z, int32_t m, int32_t j0, int32_t j1, __m256i mask, const int whole, const float *table, float *const *y,
                int64_t ld, int32_t n_row, const int R) {
    const int half = R % 2 == 0 ? R / 2 : R;
    for (int32_t j = j0; j < j1; j++) {
        __m256 a[FFT_MAX_RADIX];
        UNROLL for (int k = 0; k < half; k++) {
            Cx p = get(z + (k * m + j) * FFT_POINT), n = p;
            if (half < R) {
                Cx other = get(z + ((k + half) * m + j) * FFT_POINT);
                n = sub(p, other);
                p = add(p, other);
            }
            UNROLL for (int q = 0; q < R; q++) {
                const Cx c = get(table + (k * R + q) * FFT_POINT), v = q % 2 ? n : p;
                if (q == 0) a[q] = k ? _mm256_add_ps(a[q], v.re) : v.re;
                else {
                    a[q] = k ? _mm256_fmadd_ps(c.re, v.re, a[q]) : _mm256_mul_ps(c.re, v.re);
                    a[q] = _mm256_fmadd_ps(c.im, v.im, a[q]);
                }
            }
        }
        UNROLL for (int q = 0; q < R; q++) {
            if (q >= n_row) break;
            if (whole) _mm256_storeu_ps(y[q] + j * ld, a[q]);
            else _mm256_maskstore_ps(y[q] + j * ld, mask, a[q]);
        }
    }
}
#define EACH_RADIX(R, X) do { switch (R) { case 4: X(4); break; case 5: X(5); break; case 6: X(6); break; default: X(8); } } while (0)

static const float zeros[2 * FFT_LANES];

void mdr_op_fft_begin(FftSize s, const float *table, FftColumns x, int32_t rows, float *z, float *z2) {
    for (int32_t col = 0; col < x.n; col += FFT_LANES, z = z2) {
        const __m256i mask = v_mask(x.n - col);
        const float *row[FFT_MAX_RADIX];
        int64_t step[FFT_MAX_RADIX];
        /* Rows of part q exist for j < rows - q m: all parts up to one border, one part fewer behind it. */
        const int32_t full = rows / s.sub, border = rows % s.sub;
        for (int part = 0; part < 2; part++) {
            const int32_t j0 = part ? border : 0, j1 = part ? s.sub : border, n = part ? full : full + 1;
            for (int32_t q = 0; q < s.radix; q++) {
                row[q] = q < n ? x.p + (int64_t)q * s.sub * x.ld + col : zeros;
                step[q] = q < n ? x.ld : 0;
            }
#define BEGIN(R)                                                                                                       \
            if (x.n - col >= FFT_LANES) begin(row, step, j0, j1, mask, 1, table, z, s.sub, R);                         \
            else begin(row, step, j0, j1, mask, 0, table, z, s.sub, R)
            if (j0 < j1) EACH_RADIX(s.radix, BEGIN);
        }
    }
}
void mdr_op_fft_end(FftSize s, const float *table, const float *z, const float *z2, FftColumns y, int32_t rows) {
    for (int32_t col = 0; col < y.n; col += FFT_LANES, z = z2) {
        const __m256i mask = v_mask(y.n - col);
        float *row[FFT_MAX_RADIX];
        const int32_t full = rows / s.sub, border = rows % s.sub;
        for (int32_t q = 0; q < s.radix; q++) row[q] = q * s.sub < rows ? y.p + (int64_t)q * s.sub * y.ld + col : NULL;
        for (int part = 0; part < 2; part++) {
            const int32_t j0 = part ? border : 0, j1 = part ? s.sub : border, n = part ? full : full + 1;
#define END(R)                                                                                                         \
            if (y.n - col >= FFT_LANES) end(z, s.sub, j0, j1, mask, 1, table, row, y.ld, n, R);                  \
            else end(z, s.sub, j0, j1, mask, 0, table, row, y.ld, n, R)
            if (j0 < j1) EACH_RADIX(s.radix, END);
        }
    }
}

/* ---- radix 4: z^(4q) - r^4 into z^q - r, z^q + r, z^q - i r, z^q + i r ---- */
INLINE void split(Cx v[4], Cx r, Cx r2) {
    Cx p = mul(v[2], r2), q = mul(v[3], r2), a = add(v[0], p), b = sub(v[0], p), c = mul(add(v[1], q), r), d = mul(sub(v[1], q), r);
    v[0] = add(a, c), v[1] = sub(a, c), v[2] = add_i(b, d), v[3] = sub_i(b, d);
}
INLINE void unsplit(Cx v[4], Cx r, Cx r2) {           /* its conjugate transpose                                           */
    Cx a = add(v[0], v[1]), c = mul_conj(sub(v[0], v[1]), r), b = add(v[2], v[3]), d = mul_conj(sub(v[2], v[3]), r);
    v[0] = add(a, b), v[2] = mul_conj(sub(a, b), r2), v[1] = sub_i(c, d), v[3] = mul_conj(add_i(c, d), r2);
}
INLINE void get4(Cx v[4], const float *z, int32_t q) {
    v[0] = get(z), v[1] = get(z + q * FFT_POINT), v[2] = get(z + 2 * q * FFT_POINT), v[3] = get(z + 3 * q * FFT_POINT);
}
INLINE void put4(const Cx v[4], float *z, int32_t q) {
    put(z, v[0]), put(z + q * FFT_POINT, v[1]), put(z + 2 * q * FFT_POINT, v[2]), put(z + 3 * q * FFT_POINT, v[3]);
}
INLINE void down(float *z, int32_t q, const float *tw) {
    const Cx r = same(tw), r2 = same(tw + 2);
    for (int32_t j = 0; j < q; j++, z += FFT_POINT) {
        Cx v[4];
        get4(v, z, q);
        split(v, r, r2);
        put4(v, z, q);
    }
}
INLINE void up(float *z, int32_t q, const float *tw) {
    const Cx r = same(tw), r2 = same(tw + 2);
    for (int32_t j = 0; j < q; j++, z += FFT_POINT) {
        Cx v[4];
        get4(v, z, q);
        unsplit(v, r, r2);
        put4(v, z, q);
    }
}

/* What happens to the four points at the bottom. */
typedef enum Bottom { FORWARD, INVERSE, FILTER, FILTER_CONJ, CORRELATE, CORRELATE_ADD } Bottom;
INLINE void bottom(float *z, float *g, const float *h, float *d, const float *tw, const Bottom what) {
    const Cx r = same(tw), r2 = same(tw + 2);
    Cx v[4];
    get4(v, z, 1);
    if (what != INVERSE) split(v, r, r2);
    if (what == FILTER) UNROLL for (int i = 0; i < 4; i++) v[i] = mul(v[i], get(h + i * FFT_POINT));
    if (what == FILTER_CONJ) UNROLL for (int i = 0; i < 4; i++) v[i] = mul_conj(v[i], get(h + i * FFT_POINT));
    if (what == CORRELATE || what == CORRELATE_ADD) {
        put4(v, z, 1);
        get4(v, g, 1);
        split(v, r, r2);
        UNROLL for (int i = 0; i < 4; i++) {
            Cx p = mul_conj(v[i], get(z + i * FFT_POINT));
            put(d + i * FFT_POINT, what == CORRELATE ? p : add(get(d + i * FFT_POINT), p));
        }
        return;
    }
    if (what != FORWARD) unsplit(v, r, r2);
    put4(v, z, 1);
}
/* One block of m points, number i of the heap. g, h, d advance with z; NULL where `what` does not use them. */
#define NODE(name, what)                                                                                               \
    static void name(float *z, float *g, const float *h, float *d, int32_t m, const float *tw, int32_t i) {            \
        const int32_t q = m / 4;                                                                                       \
        if (m == 4) {                                                                                                  \
            bottom(z, g, h, d, tw + i * TW, what);                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
        if (what != INVERSE) down(z, q, tw + i * TW);                                                                  \
        if (what >= CORRELATE) down(g, q, tw + i * TW);                                                                \
        for (int32_t c = 0; c < 4; c++) {                                                                              \
            const int64_t at = (int64_t)c * q * FFT_POINT;                                                             \
            float *zc = z + at, *gc = what >= CORRELATE ? g + at : g, *dc = what >= CORRELATE ? d + at : d;            \
            const float *hc = what == FILTER || what == FILTER_CONJ ? h + at : h;                                      \
            if (q == 4) bottom(zc, gc, hc, dc, tw + (4 * i + 1 + c) * TW, what);                                       \
            else name(zc, gc, hc, dc, q, tw, 4 * i + 1 + c);                                                           \
        }                                                                                                              \
        if (what != FORWARD && what < CORRELATE) up(z, q, tw + i * TW);                                                \
    }
NODE(node_forward, FORWARD)
NODE(node_inverse, INVERSE)
NODE(node_filter, FILTER)
NODE(node_filter_conj, FILTER_CONJ)
NODE(node_correlate, CORRELATE)
NODE(node_correlate_add, CORRELATE_ADD)

typedef void Work(float *z, float *g, const float *h, float *d, int32_t m, const float *tw, int32_t i);
static void each_part(FftSize s, const float *table, Work *work, float *z, float *g, const float *h, float *d) {
    for (int32_t k = 0; k < s.radix; k++) {
        const int64_t at = (int64_t)k * s.sub * FFT_POINT;
        work(z + at, g ? g + at : NULL, h ? h + at : NULL, d ? d + at : NULL, s.sub, table + ROOT + k * blocks(s) * TW, 0);
    }
}
void mdr_op_fft_forward(FftSize s, const float *table, float *z) { each_part(s, table, node_forward, z, NULL, NULL, NULL); }
void mdr_op_fft_inverse(FftSize s, const float *table, float *z) { each_part(s, table, node_inverse, z, NULL, NULL, NULL); }
void mdr_op_fft_filter(FftSize s, const float *table, float *z, const float *h, int32_t conj) {
    each_part(s, table, conj ? node_filter_conj : node_filter, z, NULL, h, NULL);
}
void mdr_op_fft_correlate(FftSize s, const float *table, float *z, float *g, float *d, int32_t add_to) {
    each_part(s, table, add_to ? node_correlate_add : node_correlate, z, g, NULL, d);
}
