/* Sums over rows on the GPU, in two stages whose order is fixed: blocks sum chunks of rows into scratch memory, then the chunks are added
 * in order, in double. Chunks depend on the node and extent.n_seq only (cuda.h rule 3). */
#ifndef MDR_CUDA_CHUNKS_H
#define MDR_CUDA_CHUNKS_H
#include "op/cuda.h"

/* Chunk b: rows [b per, (b+1) per) of all rows of a member. Together: into one value; else a chunk is a sequence. */
struct Cut {
    uint32_t rows, per, count;
    bool together;
};
static inline Cut cut_rows(int64_t rows, int32_t n_seq, bool add, int64_t least, int64_t most)
{
    const bool together = add || n_seq == 1;
    const int64_t all = rows * n_seq, even = mdr_ceil_div(all, most), per = !together ? rows : even > least ? even : least;
    return Cut{(uint32_t)rows, (uint32_t)per, (uint32_t)mdr_ceil_div(all, per), together};
}
/* Partial sums of all members that scratch must hold, whether or not it will be together. */
static inline int64_t cut_room(int64_t rows, Extent e, int64_t least, int64_t most)
{
    const int64_t a = cut_rows(rows, e.n_seq, true, least, most).count, b = e.n_seq;
    return (a > b ? a : b) * e.n_member;
}
static __device__ __forceinline__ bool cut_range(const Cut &c, const int32_t *n_seq, int64_t m, uint32_t b, uint32_t *from, uint32_t *to)
{
    const uint32_t all = (uint32_t)n_seq[m] * c.rows;
    *from = b * c.per;
    *to = all - *from < c.per ? all : *from + c.per;
    return *from < all;
}

/* The next N parts, all read before the first is added, or as many of them as are left. */
template <int N, bool ALL, typename S> static __device__ __forceinline__ void sum_some(double *sum, const S *part, uint32_t width, uint32_t left)
{
    S v[N];
#pragma unroll
    for (uint32_t i = 0; i < N; i++) v[i] = ALL || i < left ? part[(int64_t)i * width] : (S)0;
    __syncwarp();                     /* or the compiler lets the last of them wait for the first                            */
#pragma unroll
    for (int i = 0; i < N; i++) *sum += (double)v[i];
}
/* part: [member][chunk][width]; out: width elements in rows of cols, floats, bf16 or doubles. Blocks of 32 x 8: a column of threads
 * shares the chunks of one element, many of which are on their way at a time. */
template <typename S>
static __global__ void __launch_bounds__(256) add_chunks(const S *part, Arg out, Cut cut, const int32_t *n_seq, uint32_t width, uint32_t cols, int32_t add)
{
    mdr_begin();
    MDR_SHARED(double, shared);
    const int64_t m = blockIdx.z;
    const uint32_t k = blockIdx.x * 32 + threadIdx.x, n = (uint32_t)n_seq[m], used = (n * cut.rows + cut.per - 1) / cut.per;
    const uint32_t first = cut.together ? 0 : blockIdx.y, each = cut.together ? (used + 7) / 8 : 1;
    const uint32_t from = first + threadIdx.y * each, last = cut.together ? used : first + 1, to = from + each < last ? from + each : last;
    if (first >= used) return;
    const int64_t at = m * out.member + first * out.seq + k / cols * out.ld + k % cols;
    const bool old = add && threadIdx.y == 0 && k < width;       /* read now, widened at the end: what is under way holds nobody up */
    const double old_sum = old && out.size == 8 ? ((const double *)out.data)[at] : 0.0;
    const float old_value = old && out.size != 8 ? arg_get(out, at) : 0.0f;
    double sum = 0.0;
    part += m * cut.count * width + (k < width ? k : width - 1);
    uint32_t b = from;
    for (; b + 16 <= to; b += 16) sum_some<16, true>(&sum, part + (int64_t)b * width, width, 16);
    for (; b < to; b += 8) sum_some<8, false>(&sum, part + (int64_t)b * width, width, to - b);
    shared[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || k >= width) return;
    for (int i = 1; i < 8; i++) sum += shared[i * 32 + threadIdx.x];
    if (add) sum = (out.size == 8 ? old_sum : (double)old_value) + sum;
    if (out.size == 8) ((double *)out.data)[at] = sum;
    else arg_put(out, at, (float)sum);
}
/* The same of FEW chunks at most into one value: a thread has an element, and reads all that it adds at once. */
static constexpr uint32_t FEW = 8;
template <typename S>
static __global__ void __launch_bounds__(256) add_few_chunks(const S *part, Arg out, Cut cut, const int32_t *n_seq, uint32_t width, uint32_t cols, int32_t add)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t k = blockIdx.x * 256 + threadIdx.x, used = ((uint32_t)n_seq[m] * cut.rows + cut.per - 1) / cut.per;
    if (k >= width || used == 0) return;
    const int64_t at = m * out.member + k / cols * out.ld + k % cols;
    part += m * cut.count * width + k;
    S v[FEW];
#pragma unroll
    for (uint32_t i = 0; i < FEW; i++) v[i] = i < used ? part[(int64_t)i * width] : (S)0;
    const double old = !add ? 0.0 : out.size == 8 ? ((const double *)out.data)[at] : (double)arg_get(out, at);
    double sum = 0.0;
#pragma unroll
    for (uint32_t i = 0; i < FEW; i++) sum += (double)v[i];
    if (add) sum = old + sum;
    if (out.size == 8) ((double *)out.data)[at] = sum;
    else arg_put(out, at, (float)sum);
}
template <typename S>
static void enqueue_add_chunks(const Call *c, const Arg &out, bool add, const S *part, const Cut &cut, int64_t width, int64_t cols)
{
    if (cut.together && cut.count <= FEW)
        MDR_LAUNCH((add_few_chunks<S>), mdr_grid(mdr_ceil_div(width, 256), 1, c->extent.n_member), 256, 0, c->stream, part, out, cut, c->n_seq,
                   (uint32_t)width, (uint32_t)cols, (int32_t)add);
    else
        MDR_LAUNCH((add_chunks<S>), mdr_grid(mdr_ceil_div(width, 32), cut.together ? 1 : c->extent.n_seq, c->extent.n_member), dim3(32, 8),
                   256 * sizeof(double), c->stream, part, out, cut, c->n_seq, (uint32_t)width, (uint32_t)cols, (int32_t)add);
}
/* Into output 0. */
template <typename S> static void enqueue_add_chunks(const Call *c, const S *part, const Cut &cut, int64_t width, int64_t cols)
{
    enqueue_add_chunks(c, c->out[0], (c->add & 1u) != 0, part, cut, width, cols);
}
#endif
