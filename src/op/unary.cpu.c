/* unary and unary_grad with AVX2: one span function a kind, made from the vector functions of avx2.h. */
#include "op/avx2.h"
#include "op/rows.h"

typedef __m256 Fn(__m256 x, __m256 a);
#define V1(name, expression) \
    static inline __m256 name(__m256 x, __m256 a) { (void)x; (void)a; return expression; }
#define ONE _mm256_set1_ps(1.0f)

V1(f_neg, v_neg(x))
V1(f_exp, v_exp(x))
V1(f_log, v_ln(x))
V1(f_sin, v_sin(x))
V1(f_cos, v_cos(x))
V1(f_sigmoid, v_sigmoid(x))
V1(f_tanh, v_tanh(x))
V1(f_relu, _mm256_max_ps(_mm256_setzero_ps(), x))                           /* NaN is the second operand, so it stays */
V1(f_sqrt, _mm256_sqrt_ps(x))
V1(f_recip, _mm256_div_ps(ONE, x))
V1(f_softplus, v_softplus(x))
V1(f_silu, _mm256_mul_ps(x, v_sigmoid(x)))
V1(f_square, _mm256_mul_ps(x, x))
V1(f_scale, _mm256_mul_ps(a, x))
V1(f_shift, _mm256_add_ps(x, a))
static inline __m256 gelu_gate(__m256 x, __m256 g) {                      /* sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) */
    return v_sigmoid(_mm256_mul_ps(x, v_fma(g, _mm256_set1_ps(0.071354816f), 1.59576912f)));
}
V1(f_gelu_tanh, _mm256_mul_ps(x, gelu_gate(x, _mm256_mul_ps(x, x))))
static inline __m256 normal_cdf(__m256 x) {
    return v_fma(v_erf(_mm256_mul_ps(x, _mm256_set1_ps(0.707106781f))), _mm256_set1_ps(0.5f), 0.5f);
}
V1(f_gelu_erf, _mm256_mul_ps(x, normal_cdf(x)))

/* v is x or y, as in unary.c */
V1(d_log, _mm256_div_ps(ONE, x))
V1(d_cos, v_neg(v_sin(x)))
V1(d_sigmoid, _mm256_mul_ps(x, _mm256_sub_ps(ONE, x)))
V1(d_tanh, _mm256_fnmadd_ps(x, x, ONE))
V1(d_relu, _mm256_and_ps(ONE, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ)))
V1(d_sqrt, _mm256_div_ps(_mm256_set1_ps(0.5f), x))
V1(d_recip, v_neg(_mm256_mul_ps(x, x)))
V1(d_square, _mm256_add_ps(x, x))
V1(d_same, x)
V1(d_neg, _mm256_set1_ps(-1.0f))
V1(d_one, ONE)
static inline __m256 d_scale(__m256 x, __m256 a) { (void)x; return a; }
static inline __m256 d_silu(__m256 x, __m256 a) {
    (void)a;
    __m256 s = v_sigmoid(x);
    return _mm256_mul_ps(s, _mm256_fmadd_ps(x, _mm256_sub_ps(ONE, s), ONE));
}
static inline __m256 d_gelu_tanh(__m256 x, __m256 a) {
    (void)a;
    __m256 g = _mm256_mul_ps(x, x), s = gelu_gate(x, g), slope = v_fma(g, _mm256_set1_ps(0.214064449f), 1.59576912f);
    return _mm256_fmadd_ps(_mm256_mul_ps(x, slope), _mm256_mul_ps(s, _mm256_sub_ps(ONE, s)), s);
}
static inline __m256 d_gelu_erf(__m256 x, __m256 a) {
    (void)a;
    __m256 e = v_exp(_mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(-0.5f)));
    return _mm256_fmadd_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.398942280f)), e, normal_cdf(x));
}

typedef void Span(int64_t n, const float *x, const float *dy, float *y, __m256 a);
static inline __attribute__((always_inline)) void map(int64_t n, const float *x, float *y, __m256 a, Fn *f) {
    for (int64_t i = 0; i < n; i += 8) v_store(y + i, n - i, f(v_load(x + i, n - i), a));
}
static inline __attribute__((always_inline)) void map_grad(int64_t n, const float *v, const float *dy, float *dx,
    __m256 a, Fn *f) {
    for (int64_t i = 0; i < n; i += 8)
        v_store(dx + i, n - i, _mm256_mul_ps(v_load(dy + i, n - i), f(v_load(v + i, n - i), a)));
}
#define FORWARD(f) \
    static void s_##f(int64_t n, const float *x, const float *dy, float *y, __m256 a) { (void)dy; map(n, x, y, a, f); }
#define BACKWARD(f) \
    static void s_##f(int64_t n, const float *v, const float *dy, float *dx, __m256 a) { map_grad(n, v, dy, dx, a, f); }
FORWARD(f_neg) FORWARD(f_exp) FORWARD(f_log) FORWARD(f_sin) FORWARD(f_cos) FORWARD(f_sigmoid) FORWARD(f_tanh)
FORWARD(f_relu) FORWARD(f_sqrt) FORWARD(f_recip) FORWARD(f_softplus) FORWARD(f_silu) FORWARD(f_square) FORWARD(f_scale)
FORWARD(f_shift) FORWARD(f_gelu_tanh) FORWARD(f_gelu_erf)
static inline __m256 d_sin(__m256 x, __m256 a) { (void)a; return v_cos(x); }
static inline __m256 d_softplus(__m256 x, __m256 a) { (void)a; return v_sigmoid(x); }
BACKWARD(d_neg) BACKWARD(d_same) BACKWARD(d_log) BACKWARD(d_sin) BACKWARD(d_cos) BACKWARD(d_sigmoid)
BACKWARD(d_tanh) BACKWARD(d_relu) BACKWARD(d_sqrt) BACKWARD(d_recip) BACKWARD(d_softplus) BACKWARD(d_silu)
BACKWARD(d_square) BACKWARD(d_scale) BACKWARD(d_one) BACKWARD(d_gelu_tanh) BACKWARD(d_gelu_erf)

/* of: the input of unary_grad that f' is computed of (x 0, y 1, neither 2) */
static const struct { Span *f, *df; int of; } table[UN_COUNT] = {
    [UN_NEG] = {s_f_neg, s_d_neg, 2}, [UN_EXP] = {s_f_exp, s_d_same, 1}, [UN_LOG] = {s_f_log, s_d_log, 0},
    [UN_SIN] = {s_f_sin, s_d_sin, 0}, [UN_COS] = {s_f_cos, s_d_cos, 0}, [UN_SIGMOID] = {s_f_sigmoid, s_d_sigmoid, 1},
    [UN_TANH] = {s_f_tanh, s_d_tanh, 1}, [UN_RELU] = {s_f_relu, s_d_relu, 0}, [UN_SQRT] = {s_f_sqrt, s_d_sqrt, 1},
    [UN_RECIP] = {s_f_recip, s_d_recip, 1}, [UN_SOFTPLUS] = {s_f_softplus, s_d_softplus, 0}, [UN_SILU] = {s_f_silu,
        s_d_silu, 0},
    [UN_GELU_TANH] = {s_f_gelu_tanh, s_d_gelu_tanh, 0}, [UN_GELU_ERF] = {s_f_gelu_erf, s_d_gelu_erf, 0},
    [UN_SQUARE] = {s_f_square, s_d_square, 0}, [UN_SCALE] = {s_f_scale, s_d_scale, 2}, [UN_SHIFT] = {s_f_shift,
        s_d_one, 2},
};

static void spans(const Call *c, int of, int dy_of, Span *f, int64_t unit0, int64_t unit1) {
    const Shape s = c->node->out[0].shape;
    const Rows x = rows_of(&c->in[of], s), dy = rows_of(&c->in[dy_of], s), y = rows_of(&c->out[0], s);
    const __m256 a = _mm256_set1_ps((float)((const UnaryAttr *)c->node->attr)->a);
    for (Walk w = walk(s, c->extent, unit0, unit1, rows_flat(&x) && rows_flat(&dy) && rows_flat(&y)); walk_next(&w);)
        f(w.n * y.cols, rows_at(&x, w.s, w.q), rows_at(&dy, w.s, w.q), rows_at(&y, w.s, w.q), a);
}
static void unary(const Call *c, int64_t unit0, int64_t unit1) {
    spans(c, 0, 0, table[((const UnaryAttr *)c->node->attr)->kind].f, unit0, unit1);
}
static void unary_grad(const Call *c, int64_t unit0, int64_t unit1) {
    const int32_t kind = ((const UnaryAttr *)c->node->attr)->kind;
    spans(c, table[kind].of, 2, table[kind].df, unit0, unit1);
}

const CpuRow mdr_cpu_rows_unary[] = {{"unary", {.run = unary, .units = rows_tiles_out}, NULL},
                                     {"unary_grad", {.run = unary_grad, .units = rows_tiles_out}, NULL},
                                     {0}};
