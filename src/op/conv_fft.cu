/* conv_fft, conv_fft_dh, spectrum and spectrum_adj on CUDA (conv_fft.c has the equations, fft.h the layout): plain transforms, one a
 * block of threads in scratch memory. They are what conv_long expands to where compositions are asked for; its own kernels are the fast
 * ones. */
#include "op/cuda.h"
extern "C" {
#include "op/fft.h"
}

enum { THREADS = 256 };
constexpr int64_t MOST_BLOCKS = 512;
struct Fft {
    Arg a, b, out;
    const int32_t *n_seq;
    float2 *scratch;                                       /* two buffers a block                                                    */
    FftSize size;
    int32_t rows, cols, channels, seqs, add, conj;         /* channels: cols, rounded up to 8 where a spectrum is written; seqs: units a channel */
};

static __device__ __forceinline__ float2 unit(float half_turns)
{
    float2 w;
    sincospif(half_turns, &w.y, &w.x);
    return w;
}
static __device__ __forceinline__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
static __device__ __forceinline__ float2 conj_of(float2 a) { return make_float2(a.x, -a.y); }

/* Factor of butterfly i of the level of blocks of `length`, and the place of its first number. */
static __device__ __forceinline__ float2 butterfly(FftSize s, int32_t i, int32_t length, int32_t *at)
{
    const int32_t half = length / 2, k = i / (s.sub / 2), j = i % (s.sub / 2), block = j / half, blocks = s.sub / length;
    const uint32_t reversed = blocks > 1 ? __brev((uint32_t)block) >> (__clz(blocks) + 1) : 0;
    *at = k * s.sub + block * length + j % half;
    return unit(((k + 0.25f) / (float)s.radix + (float)reversed) / (float)blocks);
}
/* F: one column of x to z. */
static __device__ void transform(const Fft &f, const Arg &x, int64_t from, float2 *z)
{
    const FftSize s = f.size;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < s.size; i += THREADS) {
        const int32_t k = i / s.sub, j = i % s.sub;
        float2 sum = make_float2(0.0f, 0.0f);
        for (int32_t q = 0; q * s.sub + j < f.rows; q++) {
            const float v = arg_get(x, from + (q * s.sub + j) * x.ld);
            const float2 w = unit(2.0f * (k + 0.25f) / (float)s.radix * (float)q);
            sum.x = fmaf(v, w.x, sum.x);
            sum.y = fmaf(v, w.y, sum.y);
        }
        z[i] = sum;
    }
    for (int32_t length = s.sub; length > 1; length /= 2) {
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < s.size / 2; i += THREADS) {
            int32_t at;
            const float2 w = butterfly(s, i, length, &at), a = z[at], b = times(w, z[at + length / 2]);
            z[at] = make_float2(a.x + b.x, a.y + b.y);
            z[at + length / 2] = make_float2(a.x - b.x, a.y - b.y);
        }
    }
    __syncthreads();
}
/* Re F^H times scale: z to one column of y. */
static __device__ void adjoint(const Fft &f, float2 *z, float scale, const Arg &y, int64_t to)
{
    const FftSize s = f.size;
    for (int32_t length = 2; length <= s.sub; length *= 2) {
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < s.size / 2; i += THREADS) {
            int32_t at;
            const float2 w = conj_of(butterfly(s, i, length, &at)), a = z[at], b = z[at + length / 2];
            z[at] = make_float2(a.x + b.x, a.y + b.y);
            z[at + length / 2] = times(w, make_float2(a.x - b.x, a.y - b.y));
        }
    }
    __syncthreads();
    for (int32_t t = (int32_t)threadIdx.x; t < f.rows; t += THREADS) {
        float sum = 0.0f;
        for (int32_t k = 0; k < s.radix; k++) {
            const float2 w = unit(2.0f * (k + 0.25f) / (float)s.radix * (float)(t / s.sub)), v = z[k * s.sub + t % s.sub];
            sum += v.x * w.x + v.y * w.y;
        }
        arg_put(y, to + t * y.ld, scale * sum);
    }
    __syncthreads();
}
static __device__ __forceinline__ int64_t place(const Arg &spectrum, int32_t c, int32_t p)
{
    return c / FFT_LANES * spectrum.ld + p * FFT_POINT + c % FFT_LANES;
}
static __device__ __forceinline__ float2 get_point(const Arg &a, int64_t at) { return make_float2(arg_get(a, at), arg_get(a, at + FFT_LANES)); }
static __device__ __forceinline__ void put_point(const Arg &a, int64_t at, float2 v, bool add)
{
    arg_put(a, at, v.x + (add ? arg_get(a, at) : 0.0f));
    arg_put(a, at + FFT_LANES, v.y + (add ? arg_get(a, at + FFT_LANES) : 0.0f));
}

enum Kind { CONV, CONV_DH, SPECTRUM, SPECTRUM_ADJ };
template <Kind KIND> static __device__ void one(const Fft &f, int32_t m, int32_t s, int32_t c, float2 *z, float2 *g)
{
    const int64_t a = m * f.a.member + s * f.a.seq, b = m * f.b.member + s * f.b.seq, out = m * f.out.member + (f.add ? 0 : s * f.out.seq);
    const bool there = c < f.cols;
    if (KIND != SPECTRUM_ADJ && there) transform(f, f.a, a + c, z);
    if (KIND == CONV_DH && there) transform(f, f.b, b + c, g);
    for (int32_t p = (int32_t)threadIdx.x; p < f.size.size; p += THREADS) {
        if constexpr (KIND == CONV) {
            const float2 h = get_point(f.b, b + place(f.b, c, p));
            z[p] = times(z[p], f.conj ? conj_of(h) : h);
        } else if constexpr (KIND == SPECTRUM_ADJ) {
            z[p] = get_point(f.a, a + place(f.a, c, p));
        } else {
            float2 v = make_float2(0.0f, 0.0f);
            if (there && KIND == CONV_DH) v = times(conj_of(z[p]), g[p]);
            if (there && KIND == SPECTRUM) v = make_float2(z[p].x / (float)f.size.size, z[p].y / (float)f.size.size);
            put_point(f.out, out + place(f.out, c, p), v, f.add);
        }
    }
    if (KIND == CONV || KIND == SPECTRUM_ADJ) adjoint(f, z, KIND == CONV ? 1.0f : 1.0f / (float)f.size.size, f.out, out + c);
}
template <Kind KIND> static __global__ __launch_bounds__(THREADS) void fft(Fft f)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, n = f.n_seq[m];
    float2 *z = f.scratch + ((int64_t)m * gridDim.x + blockIdx.x) * 2 * f.size.size;
    for (int32_t unit = (int32_t)blockIdx.x; unit < f.channels * f.seqs; unit += (int32_t)gridDim.x) {
        const int32_t c = unit % f.channels, s = unit / f.channels;
        if (!f.add && s < n) one<KIND>(f, m, s, c, z, z + f.size.size);
        for (int32_t q = 0; f.add && q < n; q++) one<KIND>(f, m, q, c, z, z + f.size.size);
    }
}

/* Rows and columns of the side that is no spectrum. */
static Shape plain_shape(const Node *n, Kind kind) { return kind == SPECTRUM_ADJ ? n->out[0].shape : n->in_type[0].shape; }
static int64_t units(const Node *n, Extent e, Kind kind, bool add)
{
    const int64_t cols = plain_shape(n, kind).d[1], channels = kind == CONV_DH || kind == SPECTRUM ? fft_blocks((int32_t)cols) * FFT_LANES : cols;
    return channels * (add ? 1 : e.n_seq);
}
template <Kind KIND> static size_t scratch(const Node *n, Extent e)
{
    const int64_t most = units(n, e, KIND, false), blocks = most < MOST_BLOCKS ? most : MOST_BLOCKS;
    return 2 * sizeof(float2) * (size_t)(fft_size(plain_shape(n, KIND).d[0]).size * blocks * e.n_member);
}
template <Kind KIND> static void run(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const Shape s = plain_shape(n, KIND);
    const int32_t add = (int32_t)(c->add & 1u), seqs = add ? 1 : c->extent.n_seq;
    const int64_t all = units(n, c->extent, KIND, add != 0);
    const int32_t conj = KIND == CONV ? ((const FftAttr *)n->attr)->conj : 0;
    Fft f = {c->in[0], n->n_in > 1 ? c->in[1] : Arg(), c->out[0], c->n_seq, (float2 *)c->scratch, fft_size(s.d[0]), s.d[0], s.d[1], (int32_t)(all / seqs),
             seqs, add, conj};
    MDR_LAUNCH((fft<KIND>), mdr_grid(all < MOST_BLOCKS ? all : MOST_BLOCKS, 1, c->extent.n_member), THREADS, 0, c->stream, f);
}

extern "C" const CudaRow mdr_cuda_rows_conv_fft[] = {{"conv_fft", {run<CONV>, NULL, scratch<CONV>, {}}, NULL, 0, 0},
                                                     {"conv_fft_dh", {run<CONV_DH>, NULL, scratch<CONV_DH>, {}}, NULL, 0, 0},
                                                     {"spectrum", {run<SPECTRUM>, NULL, scratch<SPECTRUM>, {}}, NULL, 0, 0},
                                                     {"spectrum_adj", {run<SPECTRUM_ADJ>, NULL, scratch<SPECTRUM_ADJ>, {}}, NULL, 0, 0},
                                                     {}};
