/* The long convolution and the gradient of its filter by plain products, for *.cu: any shape, any strides, float or bf16, a filter of
 * all sequences or of each. A thread has one channel and DEEP neighbouring outputs; the factor that moves along with the output
 * slides through registers, so each product costs one fused multiply-add and an eighth of a load.
 * Both are one sum,  out[o] = sum_i a[i] b[shift + o - i]  over 0 <= i < L, 0 <= shift + o - i < L:
 *   y     a = u, b = h, shift 0;  anticausal: rows of u and y backwards (a negative ld)
 *   dh    a = u backwards, b = dy, shift L - 1; summed over the sequences */
#ifndef MDR_CUDA_CONV_H
#define MDR_CUDA_CONV_H
#include "op/cuda_chunks.h"

enum { DEEP = 16, DIRECT_WARPS = 4 };                      /* a block: 32 channels by 4 times 16 outputs                       */
struct Direct {
    Arg a, b, out;                                         /* out: of sequence, or chunk, blockIdx.y                           */
    const int32_t *n_seq;
    int32_t rows, cols, shift, seqs;                       /* seqs: sequences summed by a block                                */
    int32_t tiles;                                         /* of DEEP * DIRECT_WARPS outputs                                   */
};

template <typename A, typename B> static __global__ __launch_bounds__(32 * DIRECT_WARPS) void direct(Direct d)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, n = d.n_seq[m], s0 = (int32_t)blockIdx.y * d.seqs, s1 = s0 + d.seqs < n ? s0 + d.seqs : n;
    const int32_t c = (int32_t)blockIdx.x / d.tiles * 32 + (int)threadIdx.x % 32;
    const int32_t o = ((int32_t)blockIdx.x % d.tiles * DIRECT_WARPS + (int)threadIdx.x / 32) * DEEP, at = o + d.shift;
    if (s0 >= s1 || c >= d.cols || o >= d.rows) return;
    const int32_t first = at >= d.rows ? at - d.rows + 1 : 0, last = at + DEEP < d.rows ? at + DEEP : d.rows;
    float sum[DEEP], w[DEEP];
#pragma unroll
    for (int j = 0; j < DEEP; j++) sum[j] = 0.0f;
    for (int32_t s = s0; s < s1; s++) {
        const A *a = (const A *)d.a.data + arg_row(d.a, m, s, first) + c;
        const B *b = (const B *)d.b.data + arg_row(d.b, m, s, 0) + c;
        /* w[(j - i) % DEEP] = b[at + j - first - i] when the i-th product is made */
#pragma unroll
        for (int j = 0; j < DEEP; j++) w[j] = at + j - first < d.rows ? to_float(b[(at + j - first) * d.b.ld]) : 0.0f;
        b += (at - first - 1) * d.b.ld;
        for (int32_t i = first; i < last; i += DEEP) {
#pragma unroll
            for (int r = 0; r < DEEP; r++) {
                const float x = i + r < last ? to_float(a[r * d.a.ld]) : 0.0f;
#pragma unroll
                for (int j = 0; j < DEEP; j++) sum[j] = fmaf(x, w[(j - r + DEEP) % DEEP], sum[j]);
                w[DEEP - 1 - r] = i + r < at ? to_float(*b) : 0.0f;
                b -= d.b.ld;
            }
            a += DEEP * d.a.ld;
        }
    }
    const int64_t to = arg_row(d.out, m, (int64_t)blockIdx.y, o) + c;
#pragma unroll
    for (int j = 0; j < DEEP; j++)
        if (o + j < d.rows) arg_put(d.out, to + j * d.out.ld, sum[j]);
}
static inline void launch_direct(const Call *c, Direct d, int32_t blocks)
{
    d.tiles = (int32_t)mdr_ceil_div(d.rows, DEEP * DIRECT_WARPS);
    const dim3 grid = mdr_grid(mdr_ceil_div(d.cols, 32) * d.tiles, blocks, c->extent.n_member);
    if (d.a.size == 2 && d.b.size == 2) MDR_LAUNCH((direct<bf16, bf16>), grid, 32 * DIRECT_WARPS, 0, c->stream, d);
    else if (d.a.size == 2) MDR_LAUNCH((direct<bf16, float>), grid, 32 * DIRECT_WARPS, 0, c->stream, d);
    else if (d.b.size == 2) MDR_LAUNCH((direct<float, bf16>), grid, 32 * DIRECT_WARPS, 0, c->stream, d);
    else MDR_LAUNCH((direct<float, float>), grid, 32 * DIRECT_WARPS, 0, c->stream, d);
}

/* Rows last to first. */
static inline Arg backwards(Arg a, int32_t rows)
{
    a.data = (char *)a.data + (rows - 1) * a.ld * a.size;
    a.ld = -a.ld;
    return a;
}
static inline bool is_anticausal(const Node *n) { return ((const ConvAttr *)n->attr)->anticausal != 0; }

static inline void run_direct(const Call *c)
{
    const Shape s = c->node->out[0].shape;
    const bool turn = is_anticausal(c->node);
    Direct d = {turn ? backwards(c->in[0], s.d[0]) : c->in[0], c->in[1], turn ? backwards(c->out[0], s.d[0]) : c->out[0], c->n_seq,
                s.d[0], s.d[1], 0, 1, 0};
    launch_direct(c, d, c->extent.n_seq);
}

/* dh: chunks of whole sequences, so many that a batch alone fills a GPU. */
static inline int32_t direct_seqs(const Node *n, Extent e)
{
    const Shape s = n->out[0].shape;
    const int64_t tiles = mdr_ceil_div(s.d[1], 32) * mdr_ceil_div(s.d[0], DEEP * DIRECT_WARPS), want = mdr_ceil_div(1024, tiles);
    return (int32_t)mdr_ceil_div(e.n_seq, want < e.n_seq ? want : e.n_seq);
}
static inline size_t direct_dh_scratch(const Node *n, Extent e)
{
    return sizeof(float) * (size_t)(mdr_numel(n->out[0].shape) * mdr_ceil_div(e.n_seq, direct_seqs(n, e)) * e.n_member);
}
static inline void run_direct_dh(const Call *c)
{
    const Shape s = c->node->out[0].shape;
    const int64_t numel = mdr_numel(s);
    const bool add = (c->add & 1u) != 0;
    Direct d = {backwards(c->in[0], s.d[0]), c->in[1], c->out[0], c->n_seq, s.d[0], s.d[1], s.d[0] - 1, 1, 0};
    if (!add) {
        launch_direct(c, d, c->extent.n_seq);
        return;
    }
    d.seqs = direct_seqs(c->node, c->extent);
    const int32_t chunks = (int32_t)mdr_ceil_div(c->extent.n_seq, d.seqs);
    d.out = Arg{c->scratch, chunks * numel, numel, s.d[1], 4};
    launch_direct(c, d, chunks);
    enqueue_add_chunks(c, (const float *)c->scratch, Cut{(uint32_t)s.d[0], (uint32_t)(d.seqs * s.d[0]), (uint32_t)chunks, true}, mdr_numel(s), s.d[1]);
}
#endif
