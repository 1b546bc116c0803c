/* unary on the GPU, and its gradient (unary.c has the functions and says which of x and y a derivative is made of): one kernel each,
 * the function a number that all threads share. */
#include "op/cuda_rows.h"

enum { TURNS = 4 };
static const float GELU_SLOPE = 1.5957691216057308f, GELU_CUBE = 0.044715f;

#define EACH(expression)                                                                                               \
    _Pragma("unroll") for (int j = 0; j < W; j++)                                                                      \
    {                                                                                                                  \
        const float x = v[j];                                                                                          \
        v[j] = (expression);                                                                                           \
    }                                                                                                                  \
    break
#define FILL(constant)                                                                                                 \
    _Pragma("unroll") for (int j = 0; j < W; j++) v[j] = (constant);                                                   \
    break

template <int W> static __device__ __forceinline__ void value(int32_t kind, float a, float v[W])
{
    switch (kind) {
    case UN_NEG: EACH(-x);
    case UN_EXP: EACH(expf(x));
    case UN_LOG: EACH(logf(x));
    case UN_SIN: EACH(sinf(x));
    case UN_COS: EACH(cosf(x));
    case UN_SIGMOID: EACH(sigmoid(x));
    case UN_TANH: EACH(tanhf(x));
    case UN_RELU: EACH(x < 0.0f ? 0.0f : x);
    case UN_SQRT: EACH(sqrtf(x));
    case UN_RECIP: EACH(1.0f / x);
    case UN_SOFTPLUS: EACH(x > 30.0f ? x : log1pf(expf(x)));
    case UN_SILU: EACH(x * sigmoid(x));
    case UN_GELU_TANH: EACH(x * sigmoid(GELU_SLOPE * (x + GELU_CUBE * x * x * x)));
    case UN_GELU_ERF: EACH(0.5f * x * (1.0f + erff(x * 0.70710678f)));
    case UN_SQUARE: EACH(x * x);
    case UN_SCALE: EACH(a * x);
    case UN_SHIFT: EACH(x + a);
    }
}

static __device__ __forceinline__ float silu_slope(float x)
{
    const float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}
static __device__ __forceinline__ float gelu_tanh_slope(float x)
{
    const float s = sigmoid(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
    return s + x * s * (1.0f - s) * GELU_SLOPE * (1.0f + 3.0f * GELU_CUBE * x * x);
}
/* v: what the derivative is made of; becomes the derivative. That of exp is y as it is. */
template <int W> static __device__ __forceinline__ void slope(int32_t kind, float a, float v[W])
{
    switch (kind) {
    case UN_NEG: FILL(-1.0f);
    case UN_SCALE: FILL(a);
    case UN_SHIFT: FILL(1.0f);
    case UN_LOG: EACH(1.0f / x);
    case UN_SIN: EACH(cosf(x));
    case UN_COS: EACH(-sinf(x));
    case UN_SIGMOID: EACH(x * (1.0f - x));
    case UN_TANH: EACH(1.0f - x * x);
    case UN_RELU: EACH(x > 0.0f ? 1.0f : 0.0f);
    case UN_SQRT: EACH(0.5f / x);
    case UN_RECIP: EACH(-x * x);
    case UN_SOFTPLUS: EACH(sigmoid(x));
    case UN_SILU: EACH(silu_slope(x));
    case UN_GELU_TANH: EACH(gelu_tanh_slope(x));
    case UN_GELU_ERF: EACH(0.5f * (1.0f + erff(x * 0.70710678f)) + x * (0.39894228f * expf(-0.5f * x * x)));
    case UN_SQUARE: EACH(x + x);
    }
}

/* A thread takes pieces j, j + ROW_THREADS, ..; the next one is on its way while this one is computed. */
template <typename T, int W> static __global__ void __launch_bounds__(ROW_THREADS) unary(Tall x, Tall y, Spread s, int32_t kind, float a)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t all = spread_count(s, m), begin = blockIdx.x * TURNS * ROW_THREADS, full = begin + TURNS * ROW_THREADS, end = full < all ? full : all;
    uint32_t j = begin + threadIdx.x, row, piece;
    Piece<T, W> now, next = {};
    if (j >= end) return;
    spread_at(s, j, &row, &piece);
    read(next, x.a, tall_at(x, m, row) + (int64_t)piece * W);
#pragma unroll 1
    while (j < end) {
        const int64_t to = tall_at(y, m, row) + (int64_t)piece * W;
        float v[W];
        now = next;
        j += ROW_THREADS;
        if (j < end) {
            spread_at(s, j, &row, &piece);
            read(next, x.a, tall_at(x, m, row) + (int64_t)piece * W);
        }
        open(now, v);
        value<W>(kind, a, v);
        write<T, W>(y.a, to, v);
    }
}

/* v: x, y or, where the derivative is a constant, dy. */
template <typename T, int W> static __global__ void __launch_bounds__(ROW_THREADS) unary_grad(Tall v, Tall dy, Tall dx, Spread s, int32_t kind, float a)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t all = spread_count(s, m), begin = blockIdx.x * TURNS * ROW_THREADS, full = begin + TURNS * ROW_THREADS, end = full < all ? full : all;
    uint32_t j = begin + threadIdx.x, row, piece;
    Piece<T, W> of, back, next_of = {}, next_back = {};
    if (j >= end) return;
    spread_at(s, j, &row, &piece);
    read(next_of, v.a, tall_at(v, m, row) + (int64_t)piece * W);
    read(next_back, dy.a, tall_at(dy, m, row) + (int64_t)piece * W);
#pragma unroll 1
    while (j < end) {
        const int64_t to = tall_at(dx, m, row) + (int64_t)piece * W;
        float f[W], d[W];
        of = next_of;
        back = next_back;
        j += ROW_THREADS;
        if (j < end) {
            spread_at(s, j, &row, &piece);
            read(next_of, v.a, tall_at(v, m, row) + (int64_t)piece * W);
            read(next_back, dy.a, tall_at(dy, m, row) + (int64_t)piece * W);
        }
        open(of, f);
        open(back, d);
        slope<W>(kind, a, f);
#pragma unroll
        for (int i = 0; i < W; i++) d[i] *= f[i];
        write<T, W>(dx.a, to, d);
    }
}

/* ---- choosing ---- */
/* Values without gaps are one row of a sequence. */
struct Shaped { Tall t[3]; Spread s; Kind kind; };
static Shaped shaped(const Call *c, int n, const Arg *a)
{
    const Shape shape = c->node->out[0].shape;
    const int64_t rows = mdr_rows(shape), cols = mdr_cols(shape);
    Shaped r = {};
    bool linear = true;
    for (int i = 0; i < n; i++) {
        r.t[i] = tall(a[i], rows, c->extent.n_seq);
        linear = linear && without_gaps(r.t[i], cols);
    }
    const int64_t wide = linear ? rows * cols : cols;
    r.kind = kind_of(wide, 8, n, a);
    r.s = Spread{c->n_seq, (uint32_t)(linear ? 1 : rows), (uint32_t)(wide / (r.kind == ANY ? 1 : 8)), linear};
    return r;
}

typedef void Forward(Tall x, Tall y, Spread s, int32_t kind, float a);
typedef void Backward(Tall v, Tall dy, Tall dx, Spread s, int32_t kind, float a);
static void run(const Call *c, int64_t, int64_t)
{
    static Forward *const kinds[] = {unary<any_real, 1>, unary<bf16, 8>, unary<float, 8>};
    const UnaryAttr *at = (const UnaryAttr *)c->node->attr;
    const Arg big[] = {c->in[0], c->out[0]};
    const Shaped r = shaped(c, 2, big);
    Forward *const kernel = kinds[r.kind];
    MDR_LAUNCH(kernel, spread_grid(c, r.s, TURNS), ROW_THREADS, 0, c->stream, r.t[0], r.t[1], r.s, at->kind, (float)at->a);
}

/* The input that a derivative is made of: x, y or, if of neither, dy. */
static int made_of(int32_t kind)
{
    static const uint32_t of_y = 1u << UN_EXP | 1u << UN_SIGMOID | 1u << UN_TANH | 1u << UN_SQRT | 1u << UN_RECIP,
                          of_none = 1u << UN_NEG | 1u << UN_SCALE | 1u << UN_SHIFT;
    return of_none >> kind & 1u ? 2 : of_y >> kind & 1u ? 1 : 0;
}
static void run_grad(const Call *c, int64_t, int64_t)
{
    static Backward *const kinds[] = {unary_grad<any_real, 1>, unary_grad<bf16, 8>, unary_grad<float, 8>};
    const UnaryAttr *at = (const UnaryAttr *)c->node->attr;
    const Arg big[] = {c->in[made_of(at->kind)], c->in[2], c->out[0]};
    const Shaped r = shaped(c, 3, big);
    Backward *const kernel = kinds[r.kind];
    MDR_LAUNCH(kernel, spread_grid(c, r.s, TURNS), ROW_THREADS, 0, c->stream, r.t[0], r.t[1], r.t[2], r.s, at->kind, (float)at->a);
}

extern "C" const CudaRow mdr_cuda_rows_unary[] = {{"unary", {run, NULL, NULL, {}}, NULL, 0, 0}, {"unary_grad", {run_grad, NULL, NULL, {}}, NULL, 0, 0}, {}};
