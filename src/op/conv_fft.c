/* conv_fft: causal long convolution through the transform of fft.h, cut at the spectrum of the filter:
 *   H = spectrum(h) = F h / M                    once a step
 *   y = conv_fft(u, H) = Re F^H (F u . H)        conj: with conj(H), the transpose
 *   dH = conv_fft_dh(u, dy) = conj(F u) . F dy   in sums: gradients are added up in the spectrum,
 *   dh = spectrum_adj(dH) = Re F^H dH / M        and come back once a step
 * The reference transforms one channel at a time by plain halving in double. Not here: direct products (conv_direct).
 * Used by Hyena (Poli et al. 2023). */
#include "op/reference.h"
#include "op/fft.h"

typedef struct Complex { acc re, im; } Complex;
static Complex unit(acc turns) {                      /* e^{2 pi i turns} */
    Complex w;
    d_sincos(6.283185307179586477 * turns, &w.im, &w.re);
    return w;
}
static Complex times(Complex a, Complex b) { return (Complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static Complex conj_of(Complex a) { return (Complex){a.re, -a.im}; }

/* z mod (x^m - e^{2 pi i turns}) to its values at the m roots, by halves. */
static void halve(Complex *z, int32_t m, acc turns) {
    if (m == 1) return;
    const Complex w = unit(turns / 2);
    for (int32_t j = 0; j < m / 2; j++) {
        Complex a = z[j], b = times(w, z[j + m / 2]);
        z[j] = (Complex){a.re + b.re, a.im + b.im};
        z[j + m / 2] = (Complex){a.re - b.re, a.im - b.im};
    }
    halve(z, m / 2, turns / 2);
    halve(z + m / 2, m / 2, turns / 2 + 0.5);
}
/* The conjugate transpose of halve. */
static void unhalve(Complex *z, int32_t m, acc turns) {
    if (m == 1) return;
    unhalve(z, m / 2, turns / 2);
    unhalve(z + m / 2, m / 2, turns / 2 + 0.5);
    const Complex w = conj_of(unit(turns / 2));
    for (int32_t j = 0; j < m / 2; j++) {
        Complex a = z[j], b = z[j + m / 2];
        z[j] = (Complex){a.re + b.re, a.im + b.im};
        z[j + m / 2] = times(w, (Complex){a.re - b.re, a.im - b.im});
    }
}
/* F: one column of x, `rows` of them, to z[0..M). */
static void transform(FftSize s, const real *x, int32_t rows, int64_t ld, Complex *z) {
    for (int32_t k = 0; k < s.radix; k++) {
        Complex *to = z + k * s.sub;
        for (int32_t j = 0; j < s.sub; j++) to[j] = (Complex){0.0, 0.0};
        for (int32_t q = 0; q * s.sub < rows; q++) {
            const Complex w = unit((k + 0.25) / s.radix * q);
            for (int32_t j = 0; j < s.sub && q * s.sub + j < rows; j++) {
                acc v = (acc)x[(q * s.sub + j) * ld];
                to[j].re += v * w.re, to[j].im += v * w.im;
            }
        }
        halve(to, s.sub, (k + 0.25) / s.radix);
    }
}
/* Re F^H times scale: z (destroyed) to one column. */
static void adjoint(FftSize s, Complex *z, acc scale, real *x, int32_t rows, int64_t ld) {
    for (int32_t k = 0; k < s.radix; k++) unhalve(z + k * s.sub, s.sub, (k + 0.25) / s.radix);
    for (int32_t q = 0; q * s.sub < rows; q++) {
        Complex w[FFT_MAX_RADIX];
        for (int32_t k = 0; k < s.radix; k++) w[k] = unit((k + 0.25) / s.radix * q);
        for (int32_t j = 0; j < s.sub && q * s.sub + j < rows; j++) {
            acc sum = 0.0;
            for (int32_t k = 0; k < s.radix; k++) sum += z[k * s.sub + j].re * w[k].re + z[k * s.sub + j].im * w[k].im;
            x[(q * s.sub + j) * ld] = (real)(scale * sum);
        }
    }
}
static int64_t re_at(int32_t k, int32_t point, int64_t ld) {
    return k / FFT_LANES * ld + point * FFT_POINT + k % FFT_LANES;
}

/* in: h [L, C]; out: H [C/8, 16 M] */
MDR_REF(spectrum) {
    const int32_t rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1];
    const FftSize size = fft_size(rows);
    Complex *z = c->scratch;
    FOR_SEQUENCES(c) {
        real *to = OUT(real, 0);
        for (int32_t k = 0; k < fft_blocks(cols) * FFT_LANES; k++) {
            if (k < cols) transform(size, IN(real, 0) + k, rows, LD_IN(0), z);
            for (int32_t p = 0; p < size.size; p++) {
                real *at = to + re_at(k, p, LD_OUT(0));
                at[0] = k < cols ? (real)(z[p].re / size.size) : (real)0;
                at[FFT_LANES] = k < cols ? (real)(z[p].im / size.size) : (real)0;
            }
        }
    }
}
/* in: dH [C/8, 16 M]; out: dh [L, C] */
MDR_REF(spectrum_adj) {
    const int32_t rows = OUT_SHAPE(0).d[0], cols = OUT_SHAPE(0).d[1];
    const FftSize size = fft_size(rows);
    Complex *z = c->scratch;
    FOR_SEQUENCES(c) {
        for (int32_t k = 0; k < cols; k++) {
            for (int32_t p = 0; p < size.size; p++) {
                const real *at = IN(real, 0) + re_at(k, p, LD_IN(0));
                z[p] = (Complex){(acc)at[0], (acc)at[FFT_LANES]};
            }
            adjoint(size, z, 1.0 / size.size, OUT(real, 0) + k, rows, LD_OUT(0));
        }
    }
}
/* in: u [L, C], H [C/8, 16 M]; out: y [L, C] */
MDR_REF(conv_fft) {
    const int32_t rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1];
    const FftSize size = fft_size(rows);
    const bool conj = ((const FftAttr *)c->node->attr)->conj;
    Complex *z = c->scratch;
    FOR_SEQUENCES(c) {
        for (int32_t k = 0; k < cols; k++) {
            transform(size, IN(real, 0) + k, rows, LD_IN(0), z);
            for (int32_t p = 0; p < size.size; p++) {
                const real *at = IN(real, 1) + re_at(k, p, LD_IN(1));
                Complex h = {(acc)at[0], (acc)at[FFT_LANES]};
                z[p] = times(z[p], conj ? conj_of(h) : h);
            }
            adjoint(size, z, 1.0, OUT(real, 0) + k, rows, LD_OUT(0));
        }
    }
}
/* in: u, dy [L, C]; out: dH [C/8, 16 M], in sums */
MDR_REF(conv_fft_dh) {
    const int32_t rows = IN_SHAPE(0).d[0], cols = IN_SHAPE(0).d[1];
    const FftSize size = fft_size(rows);
    Complex *z = c->scratch, *g = z + size.size;
    FOR_SEQUENCES(c) {
        for (int32_t k = 0; k < fft_blocks(cols) * FFT_LANES; k++) {
            if (k < cols) {
                transform(size, IN(real, 0) + k, rows, LD_IN(0), z);
                transform(size, IN(real, 1) + k, rows, LD_IN(1), g);
            }
            for (int32_t p = 0; p < size.size; p++) {
                real *at = OUT(real, 0) + re_at(k, p, LD_OUT(0));
                Complex d = k < cols ? times(conj_of(z[p]), g[p]) : (Complex){0.0, 0.0};
                at[0] = (real)((ADDS(0) ? (acc)at[0] : 0.0) + d.re);
                at[FFT_LANES] = (real)((ADDS(0) ? (acc)at[FFT_LANES] : 0.0) + d.im);
            }
        }
    }
}

#ifdef MDR_DECLARE
typedef struct AdjAttr { int32_t rows, cols; } AdjAttr;

static Shape spectrum_shape(int32_t rows, int32_t cols) {
    return mdr_shape2(fft_blocks(cols), FFT_POINT * fft_size(rows).size);
}
static size_t scratch1(const Node *n, Extent e) {
    (void)e;
    return sizeof(Complex) * (size_t)fft_size(n->in_type[0].shape.d[0]).size;
}
static size_t scratch2(const Node *n, Extent e) { return 2 * scratch1(n, e); }
static size_t scratch_adj(const Node *n, Extent e) {
    (void)e;
    return sizeof(Complex) * (size_t)fft_size(n->out[0].shape.d[0]).size;
}

static Err *check_rows(const Node *n, Shape s) {
    char p[64];
    if (s.rank != 2) return mdr_ir_shape_error(n, "an input is %s, expected [L, C]", mdr_shape_text(s, p));
    if (s.d[0] > 1 << 24) return mdr_ir_shape_error(n, "%d rows, at most 2^24 are possible", s.d[0]);
    return NULL;
}
static Err *shape_spectrum(Node *n) {
    Shape h = n->in_type[0].shape;
    MDR_TRY(check_rows(n, h));
    n->out[0].shape = spectrum_shape(h.d[0], h.d[1]);
    return NULL;
}
static Err *shape_adj(Node *n) {
    const AdjAttr *a = n->attr;
    char p[64], q[64];
    Shape want = spectrum_shape(a->rows, a->cols);
    if (!mdr_shape_equal(n->in_type[0].shape, want))
        return mdr_ir_shape_error(n, "the spectrum is %s, expected %s", mdr_shape_text(n->in_type[0].shape, p),
                                  mdr_shape_text(want, q));
    n->out[0].shape = mdr_shape2(a->rows, a->cols);
    return NULL;
}
static Err *shape_conv(Node *n) {
    Shape u = n->in_type[0].shape;
    MDR_TRY(check_rows(n, u));
    char p[64], q[64], r[64];
    Shape want = spectrum_shape(u.d[0], u.d[1]);
    if (!mdr_shape_equal(n->in_type[1].shape, want))
        return mdr_ir_shape_error(n, "u is %s and the spectrum %s, expected %s", mdr_shape_text(u, p),
                                  mdr_shape_text(n->in_type[1].shape, q), mdr_shape_text(want, r));
    n->out[0].shape = u;
    return NULL;
}
static Err *shape_dh(Node *n) {
    Shape u = n->in_type[0].shape;
    MDR_TRY(check_rows(n, u));
    char p[64], q[64];
    if (!mdr_shape_equal(u, n->in_type[1].shape))
        return mdr_ir_shape_error(n, "u is %s and dy %s", mdr_shape_text(u, p), mdr_shape_text(n->in_type[1].shape, q));
    n->out[0].shape = spectrum_shape(u.d[0], u.d[1]);
    return NULL;
}

/* A complex transform of M points counts 5 M log2 M; products of spectra are element-wise and not counted. */
static Cost cost(const Node *n, Shape x, double transforms) {
    double m = fft_size(x.d[0]).size, cols = x.d[1];
    Cost r = {.flops = cols * m * 5 * transforms * log2(m)};
    for (int i = 0; i < n->n_in; i++) r.bytes += 4.0 * (double)mdr_numel(n->in_type[i].shape);
    r.bytes += 4.0 * (double)mdr_numel(n->out[0].shape);
    return r;
}
static Cost cost_spectrum(const Node *n) { return cost(n, n->in_type[0].shape, 1); }
static Cost cost_adj(const Node *n) { return cost(n, n->out[0].shape, 1); }
static Cost cost_conv(const Node *n) { return cost(n, n->in_type[0].shape, 2); }
static Cost cost_dh(const Node *n) { return cost(n, n->in_type[0].shape, 2); }

/* M by hand: 3 rows 16, 37 rows 64, 65 rows 80, 81 rows 96, 97 rows 128. */
enum { SHARED = 1 + MDR_AXIS_MEMBER };
static const OpCase cases_adj[] = {
    {.name = "odd", .attr = &(const AdjAttr){37, 13}, .n_in = 1, .in = {{2, {2, 16 * 64}}}, .lo = -1, .hi = 1},
    {.name = "radix 5", .attr = &(const AdjAttr){65, 24}, .n_in = 1, .in = {{2, {3, 16 * 80}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_adj = {.name = "spectrum_adj", .equation = "dh = Re F^H dH / M", .attr_size = sizeof(AdjAttr),
    .min_in = 1, .max_in = 1, .n_out = 1, .shape = shape_adj, .cost = cost_adj, .cases = cases_adj};
static void vjp_spectrum(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)in, (void)out;
    const AdjAttr a = {n->in_type[0].shape.d[0], n->in_type[0].shape.d[1]};
    din[0] = mdr_ir_node(b, &def_adj, &a, 1, dout);
}
static const OpCase cases_spectrum[] = {
    {.name = "odd", .n_in = 1, .in = {{2, {37, 13}}}, .lo = -1, .hi = 1},
    {.name = "radix 6", .n_in = 1, .in = {{2, {81, 5}}}, .lo = -1, .hi = 1},
    {.name = "three rows", .n_in = 1, .in = {{2, {3, 8}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_spectrum = {.name = "spectrum", .equation = "H = F h / M, z^M = i", .min_in = 1, .max_in = 1,
    .n_out = 1, .shape = shape_spectrum, .vjp = vjp_spectrum, .cost = cost_spectrum, .cases = cases_spectrum};

static const OpCase cases_dh[] = {
    {.name = "odd", .n_in = 2, .in = {{2, {37, 13}}, {2, {37, 13}}}, .lo = -1, .hi = 1},
    {.name = "radix 8", .n_in = 2, .in = {{2, {97, 8}}, {2, {97, 8}}}, .lo = -1, .hi = 1},
    {0}};
static const OpDef def_dh = {.name = "conv_fft_dh", .equation = "dH = conj(F u) . F dy", .min_in = 2, .max_in = 2,
    .n_out = 1, .sums = 1, .shape = shape_dh, .cost = cost_dh, .cases = cases_dh};

static const OpDef def;
static void vjp(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din) {
    (void)out;
    const bool conj = ((const FftAttr *)n->attr)->conj;
    const FftAttr turned = {!conj};
    Value with_h[2] = {dout[0], in[1]}, both[2] = {conj ? dout[0] : in[0], conj ? in[0] : dout[0]};
    din[0] = mdr_ir_node(b, &def, &turned, 2, with_h);
    din[1] = mdr_ir_node(b, &def_dh, NULL, 2, both);
}
static const OpCase cases[] = {
    {.name = "odd", .attr = &(const FftAttr){0}, .n_in = 2, .in = {{2, {37, 13}}, {2, {2, 16 * 64}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "transpose, radix 5", .attr = &(const FftAttr){1}, .n_in = 2, .in = {{2, {65, 24}}, {2, {3, 16 * 80}}},
     .in_axes = {0, SHARED}, .lo = -1, .hi = 1},
    {.name = "a spectrum a sequence", .attr = &(const FftAttr){0}, .n_in = 2, .in = {{2, {3, 8}}, {2, {1, 16 * 16}}},
     .lo = -1, .hi = 1},
    {0}};
static const OpDef def = {.name = "conv_fft", .equation = "y = Re F^H (F u . H), z^M = i", .attr_size = sizeof(FftAttr),
    .min_in = 2, .max_in = 2, .n_out = 1, .shape = shape_conv, .vjp = vjp, .cost = cost_conv, .cases = cases};

Value mdr_op_conv_fft(Builder *b, Value u, Value h) {
    const FftAttr a = {0};
    Value in[2] = {u, mdr_ir_node(b, &def_spectrum, NULL, 1, &h)};
    return mdr_ir_node(b, &def, &a, 2, in);
}

#define ROW(name, size) {.run = name##_f32, .scratch = size}, {.run = name##_f64, .scratch = size}
const OpRow mdr_op_rows_conv_fft[] = {{&def, ROW(conv_fft, scratch1)},
                                      {&def_dh, ROW(conv_fft_dh, scratch2)},
                                      {&def_spectrum, ROW(spectrum, scratch1)},
                                      {&def_adj, ROW(spectrum_adj, scratch_adj)},
                                      {0}};
#endif
