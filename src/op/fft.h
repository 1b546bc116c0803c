/* What the files of conv_fft share: the transform and where its values lie.
 *
 * A real sequence x[0..L) is a polynomial; its transform is the values of it at the M points with z^M = i:
 *   X[kappa] = sum_n x[n] e^{2 pi i n (kappa + 1/4) / M},   M >= L.
 * Products of polynomials are then taken modulo z^M - i: what a real product has at and above M wraps into the
 * imaginary part, so the real part is the linear convolution. One complex transform of L points serves one real
 * sequence: no padding to 2L, no second sequence to pair it with, and no mixing of frequencies k and -k ("right-
 * angle" convolution: Crandall and Pomerance, Prime Numbers, section 9.5). The transpose has conj(H) for H.
 *
 * z^M - i splits into R factors z^m - w, m = M/R = 4^a, and each of them by halves down to z - w. The order of the
 * points follows: number k*m + p, 0 <= k < R, 0 <= p < m, holds kappa = k + R * reverse(p), the bits of p reversed.
 * A spectrum of [L, C] is a matrix [ceil(C/8), 16 M]: a row for 8 channels, which has 8 real parts and then 8
 * imaginary parts for each point; channels past C are 0. */
#ifndef MDR_FFT_H
#define MDR_FFT_H
#include <stddef.h>
#include <stdint.h>

enum { FFT_LANES = 8, FFT_POINT = 2 * FFT_LANES, FFT_MAX_RADIX = 8 };   /* FFT_POINT: numbers a point of 8 channels */

typedef struct FftAttr { int32_t conj; } FftAttr;                       /* of conv_fft                              */
typedef struct FftSize { int32_t radix, sub, size; } FftSize;           /* R, m, M                                  */

/* The smallest R 4^a >= rows, R one of 4, 5, 6, 8. */
static inline FftSize fft_size(int32_t rows) {
    static const int32_t radix[4] = {4, 5, 6, 8};
    for (int32_t sub = 4;; sub *= 4)
        for (int i = 0; i < 4; i++)
            if (radix[i] * sub >= rows) return (FftSize){radix[i], sub, radix[i] * sub};
}
static inline int32_t fft_blocks(int32_t cols) { return (cols + FFT_LANES - 1) / FFT_LANES; }

/* ---- fft.cpu.c: the transform of 8 channels at a time. z, g: buffers of fft_buffer numbers, 32-byte aligned; the R
 * parts stand a little apart, else one point of each would fall on the same lines of the cache. h, d: spectra. ---- */
enum { FFT_APART = 4 };
static inline int64_t fft_part(FftSize s) { return (int64_t)(s.sub + FFT_APART) * FFT_POINT; }
static inline int64_t fft_buffer(FftSize s) { return s.radix * fft_part(s); }
typedef struct FftColumns { float *p; int64_t ld; int32_t n; } FftColumns;   /* n <= 16 neighbouring columns, row 0 */
size_t mdr_op_fft_floats(FftSize s);                                    /* numbers of a table of roots                */
void mdr_op_fft_table(FftSize s, float *table);                         /* 32-byte aligned                            */
/* First level of F: rows of x to z (columns 0..7) and z2 (columns 8..15, if there are any). */
void mdr_op_fft_begin(FftSize s, const float *table, FftColumns x, int32_t rows, float *z, float *z2);
/* Last level of F^H, real parts only. */
void mdr_op_fft_end(FftSize s, const float *table, const float *z, const float *z2, FftColumns y, int32_t rows);
/* The levels between: z := F z;  z := F^H z;  z := F^H (h . F z), or conj(h);  d := (d if add) + conj(F z) . F g. */
void mdr_op_fft_forward(FftSize s, const float *table, float *z);
void mdr_op_fft_inverse(FftSize s, const float *table, float *z);
void mdr_op_fft_filter(FftSize s, const float *table, float *z, const float *h, int32_t conj);
void mdr_op_fft_correlate(FftSize s, const float *table, float *z, float *g, float *d, int32_t add);
#endif
