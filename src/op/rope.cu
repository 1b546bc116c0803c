/* rope on the GPU: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), as in rope.c. A block makes the angles of a few rows once, in double,
 * and turns those rows of several sequences; a thread turns a vector of x1 and the one of x2, or, where a head is a single vector, its two
 * halves. Su et al. 2021. */
#include "op/cuda.h"
#include <math.h>

enum { THREADS = 256, AT_ONCE = 4 };
/* tile: rows of a block, 2^shift; seqs: its sequences; blocks: tiles in a sequence */
typedef struct RopeShape { int32_t rows, heads, d, half, sign, tile, shift, seqs, blocks; double log_base; } RopeShape;

/* rope.c's d_sincos: quadrant by three-part pi/2, Taylor to r^17. Good to |x| < 1e6. */
static __device__ float2 cos_sin(double x)
{
    double k = rint(x * 0.63661977236758134308);
    const double r = ((x - k * 1.5707963267341256) - k * 6.0771005065061922e-11) - k * 2.0222662487959506e-21, g = r * r;
    double s = 1.0 / 355687428096000.0, c = 1.0 / 20922789888000.0;
    s = s * g - 1.0 / 1307674368000.0;
    s = s * g + 1.0 / 6227020800.0;
    s = s * g - 1.0 / 39916800.0;
    s = s * g + 1.0 / 362880.0;
    s = s * g - 1.0 / 5040.0;
    s = s * g + 1.0 / 120.0;
    s = s * g - 1.0 / 6.0;
    s = r + r * g * s;
    c = c * g - 1.0 / 87178291200.0;
    c = c * g + 1.0 / 479001600.0;
    c = c * g - 1.0 / 3628800.0;
    c = c * g + 1.0 / 40320.0;
    c = c * g - 1.0 / 720.0;
    c = c * g + 1.0 / 24.0;
    c = c * g - 0.5;
    c = c * g + 1.0;
    const int q = (int)k & 3;
    const float sn = (float)(q == 0 ? s : q == 1 ? c : q == 2 ? -s : -c), cs = (float)(q == 0 ? c : q == 1 ? -s : q == 2 ? -c : s);
    return make_float2(cs, sn);
}

/* ---- vectors of N elements of T: 16 bytes; N == 1: of whatever Arg says ---- */
template <typename T, int N> struct Vector { T x[N]; };
template <typename T, int N> static __device__ __forceinline__ Vector<T, N> read(const Arg &a, int64_t at)
{
    Vector<T, N> v;
    if constexpr (N == 1) v.x[0] = arg_get(a, at);
    else {
        const uint4 w = *(const uint4 *)((const T *)a.data + at);
        static_assert(sizeof v == sizeof w, "16 bytes");
        memcpy(&v, &w, sizeof v);
    }
    return v;
}
template <typename T, int N> static __device__ __forceinline__ void write(const Arg &a, int64_t at, const Vector<T, N> &v)
{
    if constexpr (N == 1) arg_put(a, at, v.x[0]);
    else {
        uint4 w;
        memcpy(&w, &v, sizeof w);
        *(uint4 *)((T *)a.data + at) = w;
    }
}
template <typename T> static __device__ __forceinline__ void turn(T *a, T *b, float2 z)
{
    const float x1 = to_float(*a), x2 = to_float(*b);
    put(a, x1 * z.x - x2 * z.y);
    put(b, x2 * z.x + x1 * z.y);
}

/* WHOLE: a vector is a head. Otherwise x1's vector lies half a head before x2's. */
template <typename T, int N, bool WHOLE> static __global__ void __launch_bounds__(THREADS) rotate(Arg x, Arg y, const int32_t *n_seq, RopeShape s)
{
    mdr_begin();
    constexpr int PAIRS = WHOLE ? N / 2 : N;
    MDR_SHARED(float2, table);                                        /* [tile][half]: cos, sin */
    const int m = (int)blockIdx.z, row0 = (int)blockIdx.x % s.blocks * s.tile, seq0 = (int)blockIdx.x / s.blocks * s.seqs;
    const int rows = s.rows - row0 < s.tile ? s.rows - row0 : s.tile, seqs = n_seq[m] - seq0 < s.seqs ? n_seq[m] - seq0 : s.seqs;
    if (seqs <= 0) return;
    for (int i = (int)threadIdx.x; i < rows * s.half; i += THREADS) {
        const float2 z = cos_sin((row0 + i / s.half) * exp(-(i % s.half) * s.log_base * 2.0 / s.d));
        table[i] = make_float2(z.x, s.sign < 0 ? -z.y : z.y);
    }
    __syncthreads();
    const int per_head = s.half / PAIRS, vectors = s.heads * per_head, wide = vectors < THREADS ? vectors : THREADS, step = THREADS / wide;
    const int first = (int)threadIdx.x / wide, count = seqs << s.shift;
    if (first >= step) return;
    for (int c = (int)threadIdx.x % wide; c < vectors; c += wide) {
        const int pair = c % per_head * PAIRS, column = c / per_head * s.d + pair;
        for (int i = first; i < count; i += step * AT_ONCE) {
            Vector<T, N> a[AT_ONCE], b[AT_ONCE];
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                const int j = i + n * step, row = j & (s.tile - 1);
                if (j >= count || row >= rows) continue;
                const int64_t from = arg_row(x, m, seq0 + (j >> s.shift), row0 + row) + column;
                a[n] = read<T, N>(x, from);
                if constexpr (!WHOLE) b[n] = read<T, N>(x, from + s.half);
            }
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                const int j = i + n * step, row = j & (s.tile - 1);
                if (j >= count || row >= rows) continue;
                const int64_t to = arg_row(y, m, seq0 + (j >> s.shift), row0 + row) + column;
#pragma unroll
                for (int e = 0; e < PAIRS; e++) turn(&a[n].x[e], WHOLE ? &a[n].x[PAIRS + e] : &b[n].x[e], table[row * s.half + pair + e]);
                write<T, N>(y, to, a[n]);
                if constexpr (!WHOLE) write<T, N>(y, to + s.half, b[n]);
            }
        }
    }
}

static bool aligned(const Arg &a, int32_t elements)
{
    return ((uintptr_t)a.data & 15) == 0 && a.member % elements == 0 && a.seq % elements == 0 && a.ld % elements == 0;
}
template <typename T, int N, bool WHOLE> static void enqueue(const Call *c, const RopeShape &s)
{
    const size_t bytes = sizeof(float2) * (size_t)s.tile * (size_t)s.half;
    MDR_ALLOW_SHARED((rotate<T, N, WHOLE>), bytes);
    MDR_LAUNCH((rotate<T, N, WHOLE>), mdr_grid(s.blocks * mdr_ceil_div(c->extent.n_seq, s.seqs), 1, c->extent.n_member), THREADS, bytes, c->stream,
               c->in[0], c->out[0], c->n_seq, s);
}

static void run_rope(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    const RopeAttr *a = (const RopeAttr *)c->node->attr;
    const Arg &x = c->in[0], &y = c->out[0];
    RopeShape s = {};
    s.rows = c->node->in_type[0].shape.d[0];
    s.heads = a->n_heads;
    s.d = c->node->in_type[0].shape.d[1] / a->n_heads;
    s.half = s.d / 2;
    s.sign = a->sign;
    s.log_base = log(a->base);
    while (s.shift < 4 && (s.half << s.shift) < 1024 && (1 << s.shift) < s.rows) s.shift++;
    s.tile = 1 << s.shift;
    s.blocks = (int32_t)mdr_ceil_div(s.rows, s.tile);
    s.seqs = 8;
    const int32_t n = x.size == 2 ? 8 : 4;
    const bool vectors = x.size == y.size && aligned(x, n) && aligned(y, n);
    if (vectors && n == 8 && s.d == 8) enqueue<bf16, 8, true>(c, s);
    else if (vectors && n == 8 && s.half % 8 == 0) enqueue<bf16, 8, false>(c, s);
    else if (vectors && n == 4 && s.half % 4 == 0) enqueue<float, 4, false>(c, s);
    else enqueue<float, 1, false>(c, s);
}

extern "C" const CudaRow mdr_cuda_rows_rope[] = {{"rope", {run_rope, NULL, NULL, {}}, NULL, 0, 0}, {}};
