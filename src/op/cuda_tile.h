/* What the matrix products on CUDA share: rows of a matrix as kernels see them (Panel), how the work of a product is dealt to
 * blocks (Job), and the product in plain float. matmul.cu and matmul_tn.cu add the products of bf16 on tensor cores.
 *
 * Every element of a product is one chain of sums in the order of the contracted index, whatever the size of the tile, the number of
 * members or their place; so a launch may choose its tiles by how many blocks there are to fill the processors with. */
#ifndef MDR_CUDA_TILE_H
#define MDR_CUDA_TILE_H
#include "op/cuda.h"

enum { PROCESSORS = 132 };            /* of the GPUs we tune for: only tile sizes depend on it, never bits                   */

/* A matrix of each member and sequence, or of all sequences of a member one below the other (then too fewer than 2^31 rows). */
struct Panel {
    Arg a;
    int32_t rows, cols;               /* of one sequence                                                                   */
    bool wide;                        /* 8 columns at a multiple of 8 may be read and written as 16 aligned bytes (float: twice) */
    bool flat;                        /* row r of all sequences together lies at r * ld                                     */
};
static inline bool in_pieces(int64_t elements, int64_t size) { return elements * size % 16 == 0; }
/* together: rows are counted through all sequences of a member, else within one. */
static inline Panel panel(const Arg &a, int64_t rows, int64_t cols, int32_t n_seq, bool together)
{
    Panel p = {a, (int32_t)rows, (int32_t)cols, false, !together || n_seq == 1 || a.seq == rows * a.ld};
    p.wide = a.data && cols % 8 == 0 && (uintptr_t)a.data % 16 == 0 && in_pieces(a.member, a.size) && in_pieces(a.ld, a.size) &&
             (n_seq == 1 || in_pieces(a.seq, a.size));
    return p;
}
static inline bool plain_bf16(const Panel &p) { return p.a.size == 2 && p.wide && p.flat; }

/* Index of the first element of row r, counted from sequence s on. */
static __device__ __forceinline__ int64_t row_at(const Panel &p, int32_t m, int32_t s, int32_t r)
{
    const int64_t first = m * p.a.member + s * p.a.seq;
    if (p.flat) return first + r * p.a.ld;
    const uint32_t q = (uint32_t)r / (uint32_t)p.rows;
    return first + q * p.a.seq + (r - (int32_t)q * p.rows) * p.a.ld;
}
static __device__ __forceinline__ void read_wide_8(const float *x, float v[8])
{
    const float4 a = ((const float4 *)x)[0], b = ((const float4 *)x)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
/* Columns [col, col + 8) of the row at `at`; zeros beyond the last. col is a multiple of 8. */
static __device__ __forceinline__ void read_8(const Panel &p, int64_t at, int32_t col, float v[8])
{
    if (!p.wide || col >= p.cols) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = col + i < p.cols ? arg_get(p.a, at + col + i) : 0.0f;
    } else if (p.a.size == 2) {
        const uint4 u = *(const uint4 *)((const bf16 *)p.a.data + at + col);
        const uint32_t word[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
        for (int i = 0; i < 4; i++) { v[2 * i] = low_bf16(word[i]); v[2 * i + 1] = high_bf16(word[i]); }
    } else {
        read_wide_8((const float *)p.a.data + at + col, v);
    }
}
static __device__ __forceinline__ uint4 pack_8(const float v[8])
{
    return make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}
static __device__ __forceinline__ void write_8(const Panel &p, int64_t at, int32_t col, const float v[8])
{
    if (!p.wide || col >= p.cols) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (col + i < p.cols) arg_put(p.a, at + col + i, v[i]);
    } else if (p.a.size == 2) {
        *(uint4 *)((bf16 *)p.a.data + at + col) = pack_8(v);
    } else {
        float4 *to = (float4 *)((float *)p.a.data + at + col);
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

/* ---- who does what ---- */
/* Block (x, y, z): x = (chunk, tile of rows, tile of columns), columns fastest: blocks that read the same rows run side by side and
 * find them in the L2 cache; y: the sequence, unless all sequences of a member are taken together; z: the member. */
struct Job {
    const int32_t *n_seq;
    int32_t rows;                     /* of one sequence                                                                   */
    int32_t chunk;                    /* rows summed by one block, where rows are contracted                               */
    int32_t together, tiles_m, tiles_n;
};
struct Spot { int32_t m, s, rows, chunk, tile_m, tile_n; };       /* rows: of this member (together) or sequence       */
static __device__ __forceinline__ bool find_spot(const Job &j, Spot *p)
{
    const int32_t n = j.n_seq[blockIdx.z];
    int32_t x = (int32_t)blockIdx.x;
    p->m = (int32_t)blockIdx.z;
    p->s = (int32_t)blockIdx.y;
    p->rows = j.together ? n * j.rows : j.rows;
    p->tile_n = x % j.tiles_n;
    x /= j.tiles_n;
    p->tile_m = x % j.tiles_m;
    p->chunk = x / j.tiles_m;
    return j.together ? n > 0 : p->s < n;
}

/* ---- the product in float: out[i, j] = bias[j] + sum_k a(i, k) b(k, j) ---- */
static __device__ __forceinline__ float4 read_4(const Panel &p, int64_t at, int32_t col)
{
    const float *x = (const float *)p.a.data + at + col;
    if (p.wide) return *(const float4 *)x;
    return make_float4(x[0], col + 1 < p.cols ? x[1] : 0.0f, col + 2 < p.cols ? x[2] : 0.0f, col + 3 < p.cols ? x[3] : 0.0f);
}
static __device__ __forceinline__ void write_4(const Panel &p, int64_t at, int32_t col, const float *v, int32_t add)
{
    float4 *y = (float4 *)((float *)p.a.data + at + col);
    if (!p.wide || p.a.size != 4) {
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (col + q < p.cols) arg_put(p.a, at + col + q, v[q] + (add ? arg_get(p.a, at + col + q) : 0.0f));
    } else if (col < p.cols) {
        const float4 old = add ? *y : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        *y = make_float4(old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]);
    }
}
/* Of each of 256 threads one piece of 4: together 16 T outer indices from o0 by 64 / T contracted ones from k0 on. K_COLS: the panel's
 * columns are contracted, its rows end at `rows`; else its rows are contracted and end there. left: contracted indices from here to
 * the end, none where the outer index is beyond. T = 8 walks along a flat panel, else the place is found anew. */
struct Walk { const float *from; int32_t left, row, col; };
template <int T, bool K_COLS> static __device__ __forceinline__ Walk walk(const Panel &p, const Spot &w, int32_t o0, int32_t k0, int32_t rows)
{
    const int id = (int)threadIdx.x;
    Walk r = {NULL, 0, K_COLS ? o0 + id / (16 / T) : k0 + id / (4 * T), K_COLS ? k0 + id % (16 / T) * 4 : o0 + id % (4 * T) * 4};
    if (r.row < rows && r.col < p.cols) r.left = K_COLS ? p.cols - r.col : rows - r.row;
    if (T == 8) r.from = (const float *)p.a.data + row_at(p, w.m, w.s, r.left ? r.row : 0) + r.col;
    return r;
}
template <int T, bool K_COLS> static __device__ __forceinline__ float4 fetch(Walk *r, const Panel &p, const Spot &w)
{
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (T == 8) {
        if (r->left > 0) v = *(const float4 *)r->from;
        r->from += K_COLS ? 64 / T : 64 / T * p.a.ld;
    } else {
        if (r->left > 0) v = read_4(p, row_at(p, w.m, w.s, r->row), r->col);
        if (K_COLS) r->col += 64 / T;
        else r->row += 64 / T;
    }
    r->left -= 64 / T;
    return v;
}
template <int T, bool K_COLS> static __device__ __forceinline__ void stow(float *tile, float4 v)      /* tile [64 / T][16 T + 4] */
{
    const int id = (int)threadIdx.x, pitch = 16 * T + 4;
    if (K_COLS) {
        float *to = tile + id % (16 / T) * 4 * pitch + id / (16 / T);
        to[0] = v.x; to[pitch] = v.y; to[2 * pitch] = v.z; to[3 * pitch] = v.w;
    } else {
        *(float4 *)(tile + id / (4 * T) * pitch + id % (4 * T) * 4) = v;
    }
}
/* T values of row k of a tile for thread `lane` of 16: 4 from 4 lane, with T = 8 also 4 from 64 + 4 lane. */
template <int T> static __device__ __forceinline__ void take(const float *row, int lane, float *v)
{
#pragma unroll
    for (int i = 0; i < T / 4; i++) {
        const float4 f = *(const float4 *)(row + 64 * i + 4 * lane);
        v[4 * i] = f.x; v[4 * i + 1] = f.y; v[4 * i + 2] = f.z; v[4 * i + 3] = f.w;
    }
}
template <int T> constexpr size_t float_shared(void) { return (size_t)4 * 64 / T * (16 * T + 4) * sizeof(float); }

/* Blocks of 256 threads, tiles of 16 T by 16 T, T by T a thread. ROWS_K: rows are contracted, chunk by chunk (matmul_tn: a [rows, I],
 * b [rows, J]); else a is [rows, K] and b [K, J], or [J, K] with B_TURNED. Two tiles of each operand: one is read while the next one's
 * numbers, already on their way in registers, wait to be stowed. `part`: out's sequences are the chunks. T = 8: all but
 * bias wide, flat and float. */
template <int T, bool ROWS_K, bool B_TURNED>
static __global__ __launch_bounds__(256, 2) void float_product(Panel a, Panel b, Panel bias, Panel out, Job job, int32_t part, int32_t add)
{
    mdr_begin();
    MDR_SHARED(float, shared);
    const int deep = 64 / T, pitch = 16 * T + 4, half = deep * pitch, tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    Spot w;
    if (T == 8) {                                          /* what the compiler sees, it need not branch on                          */
        a.flat = b.flat = out.flat = a.wide = b.wide = out.wide = true;
        out.a.size = 4;
    }
    if (!find_spot(job, &w)) return;
    const int32_t i0 = w.tile_m * 16 * T, j0 = w.tile_n * 16 * T;
    const int32_t k0 = ROWS_K ? w.chunk * job.chunk : 0, end = ROWS_K ? (k0 + job.chunk < w.rows ? k0 + job.chunk : w.rows) : a.cols;
    const int32_t a_rows = ROWS_K ? end : w.rows, b_rows = ROWS_K ? end : b.rows;
    if (ROWS_K ? k0 >= end : i0 >= w.rows) return;
    float sum[T][T];
#pragma unroll
    for (int j = 0; j < T; j++) {
        const int32_t col = j0 + j / 4 * 64 + tx * 4 + j % 4;
        const float first = bias.a.data && col < out.cols ? arg_get(bias.a, w.m * bias.a.member + w.s * bias.a.seq + col) : 0.0f;
#pragma unroll
        for (int i = 0; i < T; i++) sum[i][j] = first;
    }
    Walk at_a = walk<T, !ROWS_K>(a, w, i0, k0, a_rows), at_b = walk<T, B_TURNED>(b, w, j0, k0, b_rows);
    float4 next_a = fetch<T, !ROWS_K>(&at_a, a, w), next_b = fetch<T, B_TURNED>(&at_b, b, w);
    int turn = 0;
    for (int32_t k = k0; k < end; k += deep, turn ^= 1) {
        float *tile_a = shared + 2 * turn * half, *tile_b = tile_a + half;
        stow<T, !ROWS_K>(tile_a, next_a);
        stow<T, B_TURNED>(tile_b, next_b);
        __syncthreads();
        if (k + deep < end) {
            next_a = fetch<T, !ROWS_K>(&at_a, a, w);
            next_b = fetch<T, B_TURNED>(&at_b, b, w);
        }
#pragma unroll 2
        for (int q = 0; q < deep; q++) {
            float va[T], vb[T];
            take<T>(tile_a + q * pitch, ty, va);
            take<T>(tile_b + q * pitch, tx, vb);
#pragma unroll
            for (int i = 0; i < T; i++)
#pragma unroll
                for (int j = 0; j < T; j++) sum[i][j] = fmaf(va[i], vb[j], sum[i][j]);
        }
    }
    const int32_t last = ROWS_K ? a.cols : w.rows;
#pragma unroll
    for (int i = 0; i < T; i++) {
        const int32_t row = i0 + i / 4 * 64 + ty * 4 + i % 4;
        if (row >= last) continue;
        const int64_t at = row_at(out, w.m, part ? w.chunk : w.s, row);
#pragma unroll
        for (int j = 0; j < T; j += 4) write_4(out, at, j0 + j / 4 * 64 + tx * 4, sum[i] + j, add);
    }
}
#endif
