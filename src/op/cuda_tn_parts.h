/* z = x^T y in two stages (matmul_tn.cu): parts, each the sum of a piece or group of a member's rows, are written by the kernels of the first
 * one, the second adds them to z in order. part: [member][chunk][rows of z, then perhaps the sums of y's rows][columns padded to 8], float. */
#ifndef MDR_CUDA_TN_PARTS_H
#define MDR_CUDA_TN_PARTS_H
#include "op/cuda_mma.h"
#include "op/cuda_tile.h"

/* Two neighbours of a part, or of z where there are no parts. */
static __device__ __forceinline__ void put_2(const Panel &z, int64_t at, int32_t col, float v0, float v1, int32_t part, int32_t add)
{
    if (part) {
        *(float2 *)((float *)z.a.data + at + col) = make_float2(v0, v1);       /* rows of parts are padded                    */
        return;
    }
    arg_put(z.a, at + col, v0 + (add ? arg_get(z.a, at + col) : 0.0f));
    if (col + 1 < z.cols) arg_put(z.a, at + col + 1, v1 + (add ? arg_get(z.a, at + col + 1) : 0.0f));
}

/* z (+)= a member's groups, one by one. part: its sequences are the chunks; a last row that z has not is `sum`'s. 4 columns a thread. */
static __global__ void add_groups(Panel part, Panel z, Panel sum, Job job, int32_t add)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, rows = job.n_seq[m] * job.rows, n_chunk = (rows + job.chunk - 1) / job.chunk;
    const int32_t wide = (int32_t)part.a.ld / 4, id = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), row = id / wide, col = id % wide * 4;
    if (rows == 0 || row >= part.rows || col >= z.cols) return;
    const float *from = (const float *)part.a.data + row_at(part, m, 0, row) + col;
    auto gather = [&](const Panel &to, int64_t at) {
        float v[4];
#pragma unroll
        for (int q = 0; q < 4; q++) v[q] = add && col + q < to.cols ? arg_get(to.a, at + col + q) : 0.0f;
        for (int32_t c = 0; c < n_chunk; c += 6) {         /* 5 or 11 groups: all or half of them on their way at a time         */
            float4 p[6];
#pragma unroll
            for (int q = 0; q < 6; q++)
                if (c + q < n_chunk) p[q] = *(const float4 *)(from + (c + q) * part.a.seq);
#pragma unroll
            for (int q = 0; q < 6; q++)
                if (c + q < n_chunk) { v[0] += p[q].x; v[1] += p[q].y; v[2] += p[q].z; v[3] += p[q].w; }
        }
        write_4(to, at, col, v, 0);
    };
    if (row < z.rows) gather(z, row_at(z, m, 0, row));
    else gather(sum, m * sum.a.member);
}
/* The same for few members, of groups or, with PIECES, of `each` parts a group: blocks of 32 x 8 bring all parts of 128 neighbouring
 * elements to shared memory at once, where a thread an element adds them. */
enum { MEET = 72, MOST_EACH = 13 };   /* parts at a time; pieces a group                                                     */
template <bool PIECES>
static __global__ __launch_bounds__(256) void add_parts(Panel part, Panel z, Panel sum, Job job, int32_t each, int32_t add)
{
    mdr_begin();
    MDR_SHARED(float4, shared);
    const int32_t m = (int32_t)blockIdx.z, rows = job.n_seq[m] * job.rows, n_part = (rows + job.chunk - 1) / job.chunk;
    if (rows == 0) return;
    const int32_t x = (int32_t)threadIdx.x, y = (int32_t)threadIdx.y, id = y * 32 + x, first = (int32_t)blockIdx.x * 32;
    const int32_t wide = (int32_t)part.a.ld / 4, meet = PIECES ? MEET / each * each : MEET, row = (first + id / 4) / wide;
    const int32_t col = (first + id / 4) % wide * 4 + id % 4;
    const bool there = (first + x) / wide < part.rows, ends = id < 128 && row < part.rows && col < z.cols, is_z = row < z.rows;
    const float *from = (const float *)part.a.data + m * part.a.member + (first + x) * 4, *mine = (const float *)shared + id;
    const int64_t at = (is_z ? row_at(z, m, 0, row) : m * sum.a.member) + col;
    float v = 0.0f;
    for (int32_t base = 0; base < n_part; base += meet) {
        const int32_t here = n_part - base < meet ? n_part - base : meet;
        for (int32_t c = y; there && c < here; c += 8) copy_16(shared + c * 32 + x, from + (base + c) * part.a.seq, true);
        copy_commit();
        if (base == 0 && ends && add) v = is_z ? arg_get(z.a, at) : arg_get(sum.a, at);
        copy_wait<0>();
        __syncthreads();
        if (PIECES) {
            for (int32_t c = 0; ends && c < here; c += each) {
                float p[MOST_EACH];
#pragma unroll
                for (int q = 0; q < MOST_EACH; q++) p[q] = mine[(c + q < here ? c + q : here - 1) * 128];
#pragma unroll
                for (int q = 1; q < MOST_EACH; q++)
                    if (q < each && c + q < here) p[0] += p[q];
                v += p[0];
            }
        } else if (ends) {
#pragma unroll 8
            for (int32_t c = 0; c < here; c++) v += mine[c * 128];
        }
        if (base + meet < n_part) __syncthreads();
    }
    if (ends && is_z) arg_put(z.a, at, v);
    else if (ends) arg_put(sum.a, at, v);
}
#endif
