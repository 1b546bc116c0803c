/* The second stage of sums over rows on CUDA: a first kernel leaves one partial result for each chunk of rows in scratch memory,
 * [member][chunk][rows * cols] floats; fold adds the chunks in a fixed order into the output. Chunks depend on the node and
 * extent.n_seq only. Without the add bit of op.h rule 5 there is one chunk, and one output, for each sequence. */
#ifndef MDR_CUDA_FOLD_H
#define MDR_CUDA_FOLD_H
#include "op/cuda.h"

/* How the rows of a member's sequences, one below the other, are cut: `rows` of one sequence, `chunk` rows a chunk. */
struct Chunks {
    const int32_t *n_seq;
    int32_t rows, chunks, chunk;      /* chunk: fewer than 2^31 rows                                                       */
};
static inline Chunks chunks_of(const int32_t *n_seq, int64_t rows, int32_t n_seq_max, int64_t most, bool add)
{
    const int64_t all = rows * n_seq_max, cut = add ? mdr_ceil_div(all, most < 1 ? 1 : most) : rows;
    return Chunks{n_seq, (int32_t)rows, (int32_t)mdr_ceil_div(all, cut), (int32_t)cut};
}
/* Rows [*first, *last) of chunk q; false: none of a sequence that is there. */
static __device__ __forceinline__ bool chunk_rows(const Chunks &k, int32_t m, int32_t q, int64_t *first, int64_t *last)
{
    const int64_t all = (int64_t)k.n_seq[m] * k.rows;
    *first = (int64_t)q * k.chunk;
    *last = *first + k.chunk < all ? *first + k.chunk : all;
    return *first < *last;
}

enum { FOLD_WIDE = 32, FOLD_SLOTS = 8 };
/* Block: 32 neighbouring numbers of 8 slots, each of which adds its share of the chunks; then the slots are added in order.
 * blockIdx.y: the sequence, without the add bit. */
static __global__ __launch_bounds__(FOLD_WIDE *FOLD_SLOTS) void fold(const float *part, Arg out, int32_t cols, int64_t n, Chunks k, int32_t add)
{
    MDR_SHARED(float, sums);                               /* [FOLD_SLOTS][FOLD_WIDE]                                          */
    const int32_t m = (int32_t)blockIdx.z, tx = (int)threadIdx.x % FOLD_WIDE, slot = (int)threadIdx.x / FOLD_WIDE;
    const int64_t i = (int64_t)blockIdx.x * FOLD_WIDE + tx, all = (int64_t)k.n_seq[m] * k.rows;
    int32_t live = (int32_t)((all + k.chunk - 1) / k.chunk), first = (int32_t)blockIdx.y;
    if (first >= live) return;
    if (!add) live = first + 1;
    const float *from = part + (int64_t)m * k.chunks * n + i;
    const int32_t share = (live - first + FOLD_SLOTS - 1) / FOLD_SLOTS;
    const int32_t q0 = first + slot * share, q1 = q0 + share < live ? q0 + share : live;
    float sum = 0.0f;
    if (i < n) {
#pragma unroll 8
        for (int32_t q = q0; q < q1; q++) sum += from[q * n];
    }
    sums[(int)threadIdx.x] = sum;
    __syncthreads();
    if (slot > 0 || i >= n) return;
    for (int s = 1; s < FOLD_SLOTS; s++) sum += sums[s * FOLD_WIDE + tx];
    const int64_t at = arg_row(out, m, add ? 0 : first, i / cols) + i % cols;
    arg_put(out, at, add ? arg_get(out, at) + sum : sum);
}
static inline void run_fold(const Call *c, const float *part, const Arg &out, int64_t rows, int64_t cols, const Chunks &k, bool add)
{
    MDR_LAUNCH(fold, mdr_grid(mdr_ceil_div(rows * cols, FOLD_WIDE), add ? 1 : c->extent.n_seq, c->extent.n_member), FOLD_WIDE * FOLD_SLOTS,
               FOLD_WIDE * FOLD_SLOTS * sizeof(float), c->stream, part, out, (int32_t)cols, rows * cols, k, (int32_t)add);
}
#endif
