/* The filter's part of hyena_mix_grad on CUDA: dh[j] = sum over sequences and t of dc[t] u[t-j], from lines of u and dc that the kernel before
 * has left in memory (Handed). A warp has one channel and a chunk of sequences, all of its dh in registers, and goes its way alone: lines come
 * by asynchronous copies while those before are multiplied.
 *   With j = 8 p + b:  dh[8 p + b] = sum over t of dc[t + 8 p] u[t - b],
 * a product [16 p] x [8 b] contracted over t. Rows of dc's operand are 8 rows apart in time, so ldmatrix reads them from a line as it stands;
 * u's are words from u[t - b] on: of the line for even b, for odd b of a second one that a row has been put before. A tile of 128 t of dc
 * meets one of u in one sum, which has 128 places of h; with tiles that lie as far apart it meets the others: at 1,024 rows 8 loads of dc and
 * 16 words of u serve for 36 products. */
#ifndef MDR_CUDA_FILTER_GRAD_H
#define MDR_CUDA_FILTER_GRAD_H
#include "op/cuda_hyena_grad.h"

/* Channels of a block, by tiles a line. */
template <int N> constexpr int CHANNELS = N == 1 ? 8 : 16;
template <int N> constexpr int FILTER_THREADS = 32 * CHANNELS<N>;
/* In words. Before a line of u stand the rows that b reaches, behind one of dc those that p does: zeros. */
static constexpr int HEAD = 4, TAIL = 64;
/* What a warp has in shared memory, of N tiles a line: EACH lines of u and dc twice, of u one row later once. */
template <int N> struct Lines {
    static constexpr int EACH = N == 8 ? 1 : N == 1 ? 4 : 2, LINE_U = 64 * N + HEAD, LINE_DC = 64 * N + TAIL, U = (EACH * LINE_U + 31) / 32 * 32;
    static constexpr int AT_ODD = 2 * U + 16, AT_DC = 3 * U + 16, DC = EACH * LINE_DC, WORDS = AT_DC + 2 * DC;      /* 16 banks from even to odd */
};

struct FilterGrad {
    Handed from;
    Arg to;                                                /* dh, or partial sums: a chunk is a sequence                             */
    const int32_t *n_seq;
    int32_t rows, chunk;                                   /* sequences of a chunk                                                   */
};

/* The 16 bytes of EACH lines that a lane has, piece i: line and word. */
template <int N> static __device__ __forceinline__ int piece_line(int i) { return N == 1 ? 2 * i + my_number() % 32 / 16 : i * 2 / N; }
template <int N> static __device__ __forceinline__ int piece_word(int i) { return N == 1 ? my_number() % 16 * 4 : i * 128 % (64 * N) + my_number() % 32 * 4; }
template <int N> static __device__ __forceinline__ void copy_lines(uint32_t *mine, int buffer, const Handed &from, int32_t s, int32_t end)
{
    typedef Lines<N> Is;
    if (s < end) {
        const int64_t first = handed_line<N>(from, (int32_t)blockIdx.z, s, (int32_t)blockIdx.x * CHANNELS<N> + my_number() / 32);
        const uint32_t *u = from.u + first, *dc = from.dc + first;
        const int32_t far = from.channels * (64 * N);
        uint32_t *to_u = mine + buffer * Is::U + HEAD, *to_dc = mine + Is::AT_DC + buffer * Is::DC;
#pragma unroll
        for (int i = 0; i < Is::EACH * N / 2; i++) {
            const int line = piece_line<N>(i), at = piece_word<N>(i);
            const bool there = Is::EACH == 1 || s + line < end;
            const int32_t by = (there ? line * far : 0) + at;
            copy_16(to_u + line * Is::LINE_U + at, u + by, there);
            copy_16(to_dc + line * Is::LINE_DC + at, dc + by, there);
        }
    }
    copy_commit();
}
/* Words (u[2w - 1], u[2w]). */
template <int N> static __device__ __forceinline__ void make_odd(uint32_t *odd, const uint32_t *even)
{
    typedef Lines<N> Is;
#pragma unroll
    for (int i = 0; i < Is::EACH * N / 2; i++) {
        const int at = piece_line<N>(i) * Is::LINE_U + HEAD + piece_word<N>(i);
        const uint4 v = *(const uint4 *)(even + at);
        *(uint4 *)(odd + at) = make_uint4(__byte_perm(even[at - 1], v.x, 0x5432), __byte_perm(v.x, v.y, 0x5432), __byte_perm(v.y, v.z, 0x5432),
                                          __byte_perm(v.z, v.w, 0x5432));
    }
}
/* All products of a line. u: the lane's word of the first tile's operand; dc: its row of dc's. */
template <int N> static __device__ __forceinline__ void multiply(float (*sum)[4], const uint32_t *u, const uint32_t *dc)
{
#pragma unroll
    for (int k = 0; k < BLOCK / 16; k++) {
        uint32_t x[N][4], y[N][2];
#pragma unroll
        for (int i = 0; i < N; i++) {
            ldmatrix<4, false>(x[i], dc + i * (BLOCK / 2) + 8 * k);
            y[i][0] = u[i * (BLOCK / 2) + 8 * k];
            y[i][1] = u[i * (BLOCK / 2) + 8 * k + 4];
        }
#pragma unroll
        for (int i = N - 1; i >= 0; i--)
#pragma unroll
            for (int n = 0; n <= i; n++) mma_16816(sum[n], x[i], y[i - n]);
    }
}
/* dh, as sums lie in lanes, by way of shared memory to where it goes. */
template <int N> static __device__ __forceinline__ void put_filters(const FilterGrad &a, float (*sum)[4], float *shared)
{
    constexpr int LINE_H = N * BLOCK + 2;
    const int lane = my_number() % 32, warp = my_number() / 32;
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int x = 0; x < 2; x++)
            *(float2 *)(shared + warp * LINE_H + n * BLOCK + x * 64 + 2 * lane) = make_float2(sum[n][2 * x], sum[n][2 * x + 1]);
    __syncthreads();
    const int c = (int)threadIdx.x % CHANNELS<N>;
    const int64_t to = arg_row(a.to, blockIdx.z, blockIdx.y, 0) + (int64_t)blockIdx.x * CHANNELS<N> + c;
    for (int j = (int)threadIdx.x / CHANNELS<N>; j < a.rows; j += 32) arg_put(a.to, to + j * a.to.ld, shared[c * LINE_H + j]);
}
template <int N> static __global__ __launch_bounds__(FILTER_THREADS<N>, 1) void filter_grad(FilterGrad a)
{
    mdr_begin();
    typedef Lines<N> Is;
    MDR_SHARED(uint32_t, shared);
    const int32_t n = a.n_seq[blockIdx.z], first = (int32_t)blockIdx.y * a.chunk, end = first + a.chunk < n ? first + a.chunk : n;
    if (first >= end) return;
    const int lane = (int)threadIdx.x % 32;
    uint32_t *mine = shared + (int)threadIdx.x / 32 * Is::WORDS, *odd = mine + Is::AT_ODD;
    for (int i = lane; i < Is::WORDS / 4; i += 32) ((uint4 *)mine)[i] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    float sum[N][4];
#pragma unroll
    for (int i = 0; i < N; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    copy_lines<N>(mine, 0, a.from, first, end);
    int buffer = 0;
#pragma unroll 1
    for (int32_t s = first; s < end; s += Is::EACH, buffer ^= 1) {
        __syncwarp();                                      /* all have read what came before                                         */
        copy_lines<N>(mine, buffer ^ 1, a.from, s + Is::EACH, end);
        copy_wait<1>();
        __syncwarp();
        make_odd<N>(odd, mine + buffer * Is::U);
        __syncwarp();
        const uint32_t *u = (lane / 4 % 2 ? odd : mine + buffer * Is::U) + HEAD + lane % 4 - lane / 8;
        const uint32_t *dc = mine + Is::AT_DC + buffer * Is::DC + lane % 8 * 4 + lane / 8 % 2 * 32 + lane / 16 * 4;
#pragma unroll
        for (int i = 0; i < Is::EACH; i++) multiply<N>(sum, u + i * Is::LINE_U, dc + i * Is::LINE_DC);
    }
    put_filters<N>(a, sum, (float *)shared);
}
#endif
