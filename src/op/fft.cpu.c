/* The transform of fft.h with AVX2 and FMA, lanes = 8 channels. The first level (radix R, real rows in) and the last
 * (real rows out) are small dense products with constants; the others are radix-4 butterflies, depth first, so that
 * all levels below some hundred points run in the first cache, where the two innermost of F and of F^H meet around
 * the product with the filter. Every butterfly of a block has the same three factors (r, r^2, r^3 for z^m - r^4), so
 * a table is about 2 M numbers. Not here: strides of sequences, sums over them (conv_fft.cpu.c). */
#include "op/avx2.h"
#include "op/fft.h"
#include "base/real_math.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
enum { AHEAD = 16,                                    /* rows fetched ahead: rows of a wide matrix are pages apart */
       TW = 6,                                        /* numbers of a block: r, r^2, r^3 */
       ROOT = FFT_MAX_RADIX * FFT_MAX_RADIX * FFT_POINT };

typedef struct Cx { __m256 re, im; } Cx;
INLINE Cx get(const float *p) { return (Cx){_mm256_loadu_ps(p), _mm256_loadu_ps(p + FFT_LANES)}; }
INLINE void put(float *p, Cx a) { _mm256_storeu_ps(p, a.re); _mm256_storeu_ps(p + FFT_LANES, a.im); }
INLINE Cx same(const float *p) { return (Cx){_mm256_broadcast_ss(p), _mm256_broadcast_ss(p + 1)}; }
INLINE Cx add(Cx a, Cx b) { return (Cx){_mm256_add_ps(a.re, b.re), _mm256_add_ps(a.im, b.im)}; }
INLINE Cx sub(Cx a, Cx b) { return (Cx){_mm256_sub_ps(a.re, b.re), _mm256_sub_ps(a.im, b.im)}; }
INLINE Cx add_i(Cx a, Cx b) { return (Cx){_mm256_sub_ps(a.re, b.im), _mm256_add_ps(a.im, b.re)}; }         /* a + i b */
INLINE Cx sub_i(Cx a, Cx b) { return (Cx){_mm256_add_ps(a.re, b.im), _mm256_sub_ps(a.im, b.re)}; }         /* a - i b */
INLINE Cx mul(Cx a, Cx w) {
    return (Cx){_mm256_fmsub_ps(a.re, w.re, _mm256_mul_ps(a.im, w.im)),
                _mm256_fmadd_ps(a.re, w.im, _mm256_mul_ps(a.im, w.re))};
}
INLINE Cx mul_conj(Cx a, Cx w) {                      /* a conj(w) */
    return (Cx){_mm256_fmadd_ps(a.re, w.re, _mm256_mul_ps(a.im, w.im)),
                _mm256_fmsub_ps(a.im, w.re, _mm256_mul_ps(a.re, w.im))};
}

/* ---- tables: R x R constants of the root, each 8 times over; then for each of the R sub-transforms its blocks as a
 * heap: the four parts of block i are 4 i + 1 .. 4 i + 4 */
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
                double re2 = re * re - im * im, im2 = 2.0 * re * im;
                to[2] = (float)re2, to[3] = (float)im2;
                to[4] = (float)(re * re2 - im * im2), to[5] = (float)(re * im2 + im * re2);
            }
        }
}

/* ---- root: z^M - i into R factors. Both halves of a row's 16 columns in turn, so that a line of the cache is
 * touched once. `whole`: two halves without a mask, the usual case ---- */
typedef struct Halves { float *z[2]; __m256i mask[2]; int n; } Halves;

static Halves halves(const float *z, const float *z2, int32_t cols) {
    return (Halves){{(float *)z, (float *)z2}, {v_mask(cols), v_mask(cols - FFT_LANES)}, cols > FFT_LANES ? 2 : 1};
}
/* Points j0 <= j < j1 of every part; x[q] the row of part q at j = 0, rows step[q] apart (0: a row of zeros). */
INLINE void begin(Halves to, const float *const *x, const int64_t *step, int32_t j0, int32_t j1, const float *table,
                  int64_t part, const int whole, const int R) {
    const int half = R % 2 == 0 ? R / 2 : R;
    for (int32_t j = j0; j < j1; j++) {
        UNROLL for (int q = 0; q < R; q++) _mm_prefetch((const char *)(x[q] + (j + AHEAD) * step[q]), _MM_HINT_T1);
        for (int i = 0; i < (whole ? 2 : to.n); i++) {
            __m256 a[FFT_MAX_RADIX];
            UNROLL for (int q = 0; q < R; q++) {
                const float *from = x[q] + j * step[q] + i * FFT_LANES;
                a[q] = whole ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, to.mask[i]);
            }
            UNROLL for (int k = 0; k < half; k++) {
                Cx even = {a[0], _mm256_setzero_ps()}, odd = {_mm256_setzero_ps(), _mm256_setzero_ps()};
                UNROLL for (int q = 1; q < R; q++) {
                    const Cx c = get(table + (k * R + q) * FFT_POINT);
                    Cx *sum = q % 2 ? &odd : &even;
                    sum->re = q == 1 ? _mm256_mul_ps(c.re, a[q]) : _mm256_fmadd_ps(c.re, a[q], sum->re);
                    sum->im = q <= 2 ? _mm256_mul_ps(c.im, a[q]) : _mm256_fmadd_ps(c.im, a[q], sum->im);
                }
                put(to.z[i] + k * part + j * FFT_POINT, add(even, odd));
                if (half < R) put(to.z[i] + (k + half) * part + j * FFT_POINT, sub(even, odd));
            }
        }
    }
}
/* The other way: real parts of F^H's last level; y[q]: the row of part q at j = 0, for the first n_row parts. */
INLINE void end(Halves from, float *const *y, int64_t ld, int32_t n_row, int32_t j0, int32_t j1, const float *table,
                int64_t part, const int whole, const int R) {
    const int half = R % 2 == 0 ? R / 2 : R;
    for (int32_t j = j0; j < j1; j++) {
        UNROLL for (int q = 0; q < R; q++)
            if (q < n_row) _mm_prefetch((const char *)(y[q] + (j + AHEAD) * ld), _MM_HINT_T1);
        for (int i = 0; i < (whole ? 2 : from.n); i++) {
            __m256 a[FFT_MAX_RADIX];
            UNROLL for (int k = 0; k < half; k++) {
                Cx even = get(from.z[i] + k * part + j * FFT_POINT), odd = even;
                if (half < R) {
                    Cx other = get(from.z[i] + (k + half) * part + j * FFT_POINT);
                    odd = sub(even, other);
                    even = add(even, other);
                }
                a[0] = k ? _mm256_add_ps(a[0], even.re) : even.re;
                UNROLL for (int q = 1; q < R; q++) {
                    const Cx c = get(table + (k * R + q) * FFT_POINT), v = q % 2 ? odd : even;
                    a[q] = k ? _mm256_fmadd_ps(c.re, v.re, a[q]) : _mm256_mul_ps(c.re, v.re);
                    a[q] = _mm256_fmadd_ps(c.im, v.im, a[q]);
                }
            }
            UNROLL for (int q = 0; q < R; q++) {
                if (q >= n_row) break;
                if (whole) _mm256_storeu_ps(y[q] + j * ld + i * FFT_LANES, a[q]);
                else _mm256_maskstore_ps(y[q] + j * ld + i * FFT_LANES, from.mask[i], a[q]);
            }
        }
    }
}
#define EACH_RADIX(R, X)                                                                                              \
    do { switch (R) { case 4: X(4); break; case 5: X(5); break; case 6: X(6); break; default: X(8); } } while (0)

static const float zeros[2 * FFT_LANES];

/* Part q has a row j if j < rows - q m: all parts up to one border, one part fewer behind it. */
void mdr_op_fft_begin(FftSize s, const float *table, FftColumns x, int32_t rows, float *z, float *z2) {
    const Halves to = halves(z, z2, x.n);
    const float *row[FFT_MAX_RADIX];
    int64_t step[FFT_MAX_RADIX];
    const int32_t full = rows / s.sub, border = rows % s.sub;
    for (int behind = 0; behind < 2; behind++) {
        const int32_t j0 = behind ? border : 0, j1 = behind ? s.sub : border, n = behind ? full : full + 1;
        for (int32_t q = 0; q < s.radix; q++) {
            row[q] = q < n ? x.p + (int64_t)q * s.sub * x.ld : zeros;
            step[q] = q < n ? x.ld : 0;
        }
#define BEGIN(R)                                                                                                       \
        if (x.n == 2 * FFT_LANES) begin(to, row, step, j0, j1, table, fft_part(s), 1, R); \
        else begin(to, row, step, j0, j1, table, fft_part(s), 0, R)
        if (j0 < j1) EACH_RADIX(s.radix, BEGIN);
    }
}
void mdr_op_fft_end(FftSize s, const float *table, const float *z, const float *z2, FftColumns y, int32_t rows) {
    const Halves from = halves(z, z2, y.n);
    float *row[FFT_MAX_RADIX];
    const int32_t full = rows / s.sub, border = rows % s.sub;
    for (int32_t q = 0; q < s.radix; q++) row[q] = q * s.sub < rows ? y.p + (int64_t)q * s.sub * y.ld : NULL;
    for (int behind = 0; behind < 2; behind++) {
        const int32_t j0 = behind ? border : 0, j1 = behind ? s.sub : border, n = behind ? full : full + 1;
#define END(R)                                                                                                         \
        if (y.n == 2 * FFT_LANES) end(from, row, y.ld, n, j0, j1, table, fft_part(s), 1, R); \
        else end(from, row, y.ld, n, j0, j1, table, fft_part(s), 0, R)
        if (j0 < j1) EACH_RADIX(s.radix, END);
    }
}

/* ---- radix 4: z^(4q) - r^4 into z^q - r, z^q + r, z^q - i r, z^q + i r ---- */
typedef struct Roots { Cx r, r2, r3; } Roots;
INLINE Roots roots(const float *tw) { return (Roots){same(tw), same(tw + 2), same(tw + 4)}; }
INLINE void split(Cx v[4], Roots w) {
    Cx p = mul(v[1], w.r), q = mul(v[2], w.r2), s = mul(v[3], w.r3);
    Cx a = add(v[0], q), b = sub(v[0], q), c = add(p, s), d = sub(p, s);
    v[0] = add(a, c), v[1] = sub(a, c), v[2] = add_i(b, d), v[3] = sub_i(b, d);
}
INLINE void unsplit(Cx v[4], Roots w) {               /* its conjugate transpose */
    Cx a = add(v[0], v[1]), b = sub(v[0], v[1]), c = add(v[2], v[3]), d = sub(v[2], v[3]);
    v[0] = add(a, c), v[1] = mul_conj(sub_i(b, d), w.r);
    v[2] = mul_conj(sub(a, c), w.r2), v[3] = mul_conj(add_i(b, d), w.r3);
}
INLINE void get4(Cx v[4], const float *z, int32_t q) {
    v[0] = get(z), v[1] = get(z + q * FFT_POINT), v[2] = get(z + 2 * q * FFT_POINT), v[3] = get(z + 3 * q * FFT_POINT);
}
INLINE void put4(const Cx v[4], float *z, int32_t q) {
    put(z, v[0]), put(z + q * FFT_POINT, v[1]), put(z + 2 * q * FFT_POINT, v[2]), put(z + 3 * q * FFT_POINT, v[3]);
}
INLINE void down(float *z, int32_t q, const float *tw) {
    const Roots w = roots(tw);
    for (int32_t j = 0; j < q; j++, z += FFT_POINT) {
        Cx v[4];
        get4(v, z, q);
        split(v, w);
        put4(v, z, q);
    }
}
INLINE void up(float *z, int32_t q, const float *tw) {
    const Roots w = roots(tw);
    for (int32_t j = 0; j < q; j++, z += FFT_POINT) {
        Cx v[4];
        get4(v, z, q);
        unsplit(v, w);
        put4(v, z, q);
    }
}

/* What happens to the four points at the bottom. */
typedef enum Bottom { FORWARD, INVERSE, FILTER, FILTER_CONJ, CORRELATE, CORRELATE_ADD } Bottom;
INLINE void bottom(float *z, float *g, const float *h, float *d, const float *tw, const Bottom what) {
    const Roots w = roots(tw);
    Cx v[4];
    get4(v, z, 1);
    if (what != INVERSE) split(v, w);
    if (what == FILTER) UNROLL for (int i = 0; i < 4; i++) v[i] = mul(v[i], get(h + i * FFT_POINT));
    if (what == FILTER_CONJ) UNROLL for (int i = 0; i < 4; i++) v[i] = mul_conj(v[i], get(h + i * FFT_POINT));
    if (what == CORRELATE || what == CORRELATE_ADD) {
        put4(v, z, 1);
        get4(v, g, 1);
        split(v, w);
        UNROLL for (int i = 0; i < 4; i++) {
            Cx p = mul_conj(v[i], get(z + i * FFT_POINT));
            put(d + i * FFT_POINT, what == CORRELATE ? p : add(get(d + i * FFT_POINT), p));
        }
        return;
    }
    if (what != FORWARD) unsplit(v, w);
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
        const int64_t at = (int64_t)k * s.sub * FFT_POINT, z_at = k * fft_part(s);
        work(z + z_at, g ? g + z_at : NULL, h ? h + at : NULL, d ? d + at : NULL, s.sub,
             table + ROOT + k * blocks(s) * TW, 0);
    }
}
void mdr_op_fft_forward(FftSize s, const float *table, float *z) {
    each_part(s, table, node_forward, z, NULL, NULL, NULL);
}
void mdr_op_fft_inverse(FftSize s, const float *table, float *z) {
    each_part(s, table, node_inverse, z, NULL, NULL, NULL);
}
void mdr_op_fft_filter(FftSize s, const float *table, float *z, const float *h, int32_t conj) {
    each_part(s, table, conj ? node_filter_conj : node_filter, z, NULL, h, NULL);
}
void mdr_op_fft_correlate(FftSize s, const float *table, float *z, float *g, float *d, int32_t add_to) {
    each_part(s, table, add_to ? node_correlate_add : node_correlate, z, g, NULL, d);
}
