/* What attention.cu and attention_grad.cu share. bf16: the heads of a block lie side by side in shared memory, a head padded with
 * zeros to D columns (8, 16, 32, 64 or 128), and products run on tensor cores. Anything else (float32, wider heads, mixtures): one
 * row a thread or a group of `lanes` threads, in float ("plain").
 * Tiles: rows of RC chunks of 16 bytes (8 bf16), a head is D/8 of them; the chunks of a row are permuted (tile_at) so that
 * ldmatrix, which reads one chunk of 8 consecutive rows, meets every bank once. */
#ifndef MDR_CUDA_ATTENTION_H
#define MDR_CUDA_ATTENTION_H
#include "op/cuda.h"
#include "op/cuda_mma.h"

#define LOG2E 1.44269504088896340736f
#define LN2 0.69314718055994530942f

/* unit: scores to powers of two; groups: blocks of heads in a sequence; blocks: blocks of rows; lanes, tile: plain kernels;
 * vectors: every tensor may be read 16 bytes at a time */
typedef struct AttentionShape { int32_t rows, heads, d, window, groups, blocks, lanes, tile; float scale, unit; bool vectors; } AttentionShape;
typedef struct Spot { int32_t member, seq, group, block; } Spot;

static inline AttentionShape attention_shape(const Call *c)
{
    const AttentionAttr *a = (const AttentionAttr *)c->node->attr;
    const Shape *q = &c->node->in_type[0].shape;
    AttentionShape s = {};
    s.rows = q->d[0];
    s.heads = a->n_heads;
    s.d = q->d[1] / a->n_heads;
    s.window = a->window;
    s.scale = (float)(1.0 / sqrt((double)s.d));
    s.unit = s.scale * LOG2E;
    s.vectors = s.d % 8 == 0;
    s.lanes = 1;
    return s;
}
static inline bool present(const Arg &a) { return a.data != NULL; }
/* Absent, or bf16; clears `vectors` where 16-byte accesses would not be aligned. */
static inline bool is_bf16(const Arg &a, AttentionShape *s)
{
    if (!present(a)) return true;
    if (((uintptr_t)a.data & 15) || (a.member | a.seq | a.ld) & 7) s->vectors = false;
    return a.size == 2;
}
static inline dim3 attention_grid(const Call *c, const AttentionShape &s)
{
    return mdr_grid((int64_t)c->extent.n_seq * s.groups * s.blocks, 1, c->extent.n_member);
}
/* False: a block without work. */
static __device__ __forceinline__ bool find_spot(const AttentionShape &s, const int32_t *n_seq, Spot *at)
{
    const int32_t x = (int32_t)blockIdx.x;
    at->member = (int32_t)blockIdx.z;
    at->block = x % s.blocks;
    at->group = x / s.blocks % s.groups;
    at->seq = x / s.blocks / s.groups;
    return at->seq < n_seq[at->member];
}
/* Is anything of keys k .. k+nk-1 seen from rows q .. q+nq-1, and is anything not? */
static __device__ __forceinline__ bool any_seen(int q, int nq, int k, int nk, int window)
{
    return k <= q + nq - 1 && (window == 0 || k + nk - 1 >= q - window);
}
static __device__ __forceinline__ bool any_hidden(int q, int nq, int k, int nk, int window)
{
    return k + nk - 1 > q || (window != 0 && k < q + nq - 1 - window);
}
static __device__ __forceinline__ bool seen(int q, int k, int window) { return k <= q && (window == 0 || k >= q - window); }

/* ---- tiles ---- */
template <int RC> static __device__ __forceinline__ int tile_at(int row, int chunk)
{
    if constexpr (RC >= 8) return row * RC + (chunk ^ (row & 7));
    else return row * RC + (chunk ^ ((row / (8 / RC)) & (RC - 1)));
}

/* Rows first .. first + n_rows - 1 of the heads h0 .. of one sequence into a tile, zeros where there is none. Asynchronous (copy_commit and
 * copy_wait are the caller's) unless elements must be taken one by one. */
template <int D, int RC> static __device__ __forceinline__ void load_tile(uint4 *tile, const Arg &a, const AttentionShape &s, const Spot &at,
                                                                          int first, int n_rows)
{
    constexpr int CH = D / 8;
    const int h0 = at.group * (RC / CH);
    const bf16 *from = (const bf16 *)a.data + arg_row(a, at.member, at.seq, first);
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < n_rows * RC; i += (int)blockDim.x) {
        const int row = i / RC, chunk = i % RC, head = h0 + chunk / CH, c = chunk % CH * 8;
        const bool there = first + row < s.rows && head < s.heads && c < s.d;
        uint4 *to = tile + tile_at<RC>(row, chunk);
        const bf16 *p = there ? from + row * a.ld + head * s.d + c : (const bf16 *)a.data;
        if (s.vectors) copy_16(to, p, there);
        else {
            uint32_t w[4];
            for (int e = 0; e < 4; e++) {
                const uint32_t lo = there && c + 2 * e < s.d ? p[2 * e].u : 0u, hi = there && c + 2 * e + 1 < s.d ? p[2 * e + 1].u : 0u;
                w[e] = lo | hi << 16;
            }
            *to = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}
/* Eight columns of bf16 from column c of a head. */
static __device__ __forceinline__ void store_chunk(const Arg &a, const AttentionShape &s, const Spot &at, int row, int head, int c, uint4 x)
{
    if (row >= s.rows || head >= s.heads || c >= s.d) return;
    bf16 *p = (bf16 *)a.data + arg_row(a, at.member, at.seq, row) + head * s.d + c;
    if (s.vectors) {
        *(uint4 *)p = x;
        return;
    }
    const uint32_t w[4] = {x.x, x.y, x.z, x.w};
    for (int e = 0; e < 8; e++)
        if (c + e < s.d) p[e].u = (uint16_t)(w[e / 2] >> (e % 2 * 16));
}
template <int D, int RC> static __device__ __forceinline__ void store_tile(const Arg &a, const uint4 *tile, const AttentionShape &s, const Spot &at,
                                                                           int first, int n_rows)
{
    constexpr int CH = D / 8;
    for (int i = (int)threadIdx.x; i < n_rows * RC; i += (int)blockDim.x) {
        const int row = i / RC, chunk = i % RC;
        store_chunk(a, s, at, first + row, at.group * (RC / CH) + chunk / CH, chunk % CH * 8, tile[tile_at<RC>(row, chunk)]);
    }
}
/* Sum over a head's columns of a[row] b[row]. */
template <int D, int RC> static __device__ __forceinline__ float row_product(const uint4 *a, const uint4 *b, int row, int chunk0)
{
    float sum = 0.0f;
#pragma unroll 4
    for (int c = 0; c < D / 8; c++) {
        const uint4 x = a[tile_at<RC>(row, chunk0 + c)], y = b[tile_at<RC>(row, chunk0 + c)];
        sum += low_bf16(x.x) * low_bf16(y.x) + high_bf16(x.x) * high_bf16(y.x) + low_bf16(x.y) * low_bf16(y.y) + high_bf16(x.y) * high_bf16(y.y);
        sum += low_bf16(x.z) * low_bf16(y.z) + high_bf16(x.z) * high_bf16(y.z) + low_bf16(x.w) * low_bf16(y.w) + high_bf16(x.w) * high_bf16(y.w);
    }
    return sum;
}

/* ---- fragments: 16 rows by S columns (8, 16 or 32) of a tile, S/4 words a lane. Words 4c .. 4c+3 hold the columns 16c .. 16c+15 as four 8x8
 * matrices in the order (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15): an A operand as it is. ---- */
template <int S> struct Frag { uint32_t w[S / 4]; };

template <int S, int RC, bool TRANSPOSED> static __device__ __forceinline__ void load_frag(Frag<S> &f, const uint4 *tile, int row0, int chunk0,
                                                                                           int lane)
{
    const int row = row0 + (lane & 15);
    if constexpr (S == 8) ldmatrix<2, TRANSPOSED>(f.w, tile + tile_at<RC>(row, chunk0));
    else
#pragma unroll
        for (int c = 0; c < S / 16; c++) ldmatrix<4, TRANSPOSED>(f.w + 4 * c, tile + tile_at<RC>(row, chunk0 + 2 * c + (lane >> 4)));
}
/* s[16 rows of a][16 rows of b] += a b^T; s[j]: rows 8j .. 8j+7 of b */
template <int S> static __device__ __forceinline__ void add_product(float (&s)[2][4], const Frag<S> &a, const Frag<S> &b)
{
    if constexpr (S == 8) {
        mma_1688(s[0], a.w, b.w[0]);
        mma_1688(s[1], a.w, b.w[1]);
    } else
#pragma unroll
        for (int c = 0; c < S / 16; c++) {
            const uint32_t lo[2] = {b.w[4 * c], b.w[4 * c + 2]}, hi[2] = {b.w[4 * c + 1], b.w[4 * c + 3]};
            mma_16816(s[0], a.w + 4 * c, lo);
            mma_16816(s[1], a.w + 4 * c, hi);
        }
}
/* acc[16][S] += p[16][16 rows of b] b; b loaded TRANSPOSED; acc[e]: columns 8e .. 8e+7 */
template <int S> static __device__ __forceinline__ void add_weighted(float (*acc)[4], const uint32_t p[4], const Frag<S> &b)
{
#pragma unroll
    for (int e = 0; e < S / 8; e++) mma_16816(acc[e], p, b.w + 2 * e);
}
/* Values laid out as the D of two products become the A of the next one. */
static __device__ __forceinline__ void pack_operand(uint32_t p[4], const float (&s)[2][4])
{
    p[0] = pack_bf16(s[0][0], s[0][1]);
    p[1] = pack_bf16(s[0][2], s[0][3]);
    p[2] = pack_bf16(s[1][0], s[1][1]);
    p[3] = pack_bf16(s[1][2], s[1][3]);
}
/* 16 rows of a head, as accumulated, times a factor for rows g and one for rows g+8, into a tile. */
template <int D, int RC> static __device__ __forceinline__ void write_rows(uint4 *tile, const float (&acc)[D / 8][4], float low, float high,
                                                                           int row0, int chunk0, int lane)
{
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int e = 0; e < D / 8; e++) {
        ((uint32_t *)(tile + tile_at<RC>(row0 + g, chunk0 + e)))[t] = pack_bf16(acc[e][0] * low, acc[e][1] * low);
        ((uint32_t *)(tile + tile_at<RC>(row0 + g + 8, chunk0 + e)))[t] = pack_bf16(acc[e][2] * high, acc[e][3] * high);
    }
}

/* ---- plain: a row is spread over `lanes` neighbouring threads, float4 by float4; tiles are [rows][DM * lanes] floats ---- */
enum { PLAIN_THREADS = 128 };
typedef struct PlainRow { int row, head, lane, warp_first, warp_last, first, last; } PlainRow;

static inline void plain_shape(AttentionShape *s, int dm)
{
    while (dm * s->lanes < s->d) s->lanes *= 2;
    const int padded = dm * s->lanes, per_block = PLAIN_THREADS / s->lanes;
    s->tile = padded >= 512 ? 8 : padded <= 32 ? 128 : 4096 / padded;
    s->groups = s->heads;
    s->blocks = (int32_t)mdr_ceil_div(s->rows, per_block);
}
static inline size_t plain_bytes(const AttentionShape &s, int dm) { return 2 * sizeof(float) * (size_t)(s.tile * dm * s.lanes + s.tile); }

static __device__ __forceinline__ PlainRow plain_row(const AttentionShape &s, const Spot &at)
{
    const int per_block = PLAIN_THREADS / s.lanes, tid = (int)threadIdx.x, first = at.block * per_block;
    PlainRow r;
    r.row = first + tid / s.lanes;
    r.head = at.group;
    r.lane = tid % s.lanes;
    r.warp_first = first + (tid & ~31) / s.lanes;
    r.warp_last = first + (tid | 31) / s.lanes;
    r.first = first;
    r.last = first + per_block - 1 < s.rows - 1 ? first + per_block - 1 : s.rows - 1;
    return r;
}
/* Columns of a lane's float4 number i. */
static __device__ __forceinline__ int plain_column(int i, int lanes, int lane) { return (i * lanes + lane) * 4; }

template <int DM> static __device__ __forceinline__ void plain_load(float (&x)[DM], const Arg &a, const AttentionShape &s, const Spot &at,
                                                                    const PlainRow &r)
{
    const int64_t from = arg_row(a, at.member, at.seq, r.row) + r.head * s.d;
#pragma unroll
    for (int i = 0; i < DM; i++) {
        const int c = plain_column(i / 4, s.lanes, r.lane) + i % 4;
        x[i] = r.row < s.rows && c < s.d ? arg_get(a, from + c) : 0.0f;
    }
}
template <int DM> static __device__ __forceinline__ void plain_store(const Arg &a, const float (&x)[DM], float factor, const AttentionShape &s,
                                                                     const Spot &at, const PlainRow &r)
{
    if (!a.data || r.row >= s.rows) return;
    const int64_t to = arg_row(a, at.member, at.seq, r.row) + r.head * s.d;
#pragma unroll
    for (int i = 0; i < DM; i++) {
        const int c = plain_column(i / 4, s.lanes, r.lane) + i % 4;
        if (c < s.d) arg_put(a, to + c, x[i] * factor);
    }
}
static __device__ __forceinline__ void plain_tile(float *tile, int padded, const Arg &a, const AttentionShape &s, const Spot &at, int first)
{
    const int64_t from = arg_row(a, at.member, at.seq, first) + at.group * s.d;
    for (int i = (int)threadIdx.x; i < s.tile * padded; i += PLAIN_THREADS) {
        const int row = i / padded, c = i % padded;
        tile[i] = first + row < s.rows && c < s.d ? arg_get(a, from + row * a.ld + c) : 0.0f;
    }
}
static __device__ __forceinline__ float lanes_sum(float x, int lanes)
{
    for (int d = lanes / 2; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}
template <int DM> static __device__ __forceinline__ float plain_dot(const float (&x)[DM], const float *tile_row, int lanes, int lane)
{
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < DM / 4; i++) {
        const float4 y = *(const float4 *)(tile_row + plain_column(i, lanes, lane));
        sum += x[4 * i] * y.x;
        sum += x[4 * i + 1] * y.y;
        sum += x[4 * i + 2] * y.z;
        sum += x[4 * i + 3] * y.w;
    }
    return lanes_sum(sum, lanes);
}
template <int DM> static __device__ __forceinline__ void plain_add(float (&x)[DM], float w, const float *tile_row, int lanes, int lane)
{
#pragma unroll
    for (int i = 0; i < DM / 4; i++) {
        const float4 y = *(const float4 *)(tile_row + plain_column(i, lanes, lane));
        x[4 * i] += w * y.x;
        x[4 * i + 1] += w * y.y;
        x[4 * i + 2] += w * y.z;
        x[4 * i + 3] += w * y.w;
    }
}

/* ---- heads of up to 8: all rows of a head in one block (cuda_attention_heads.h, cuda_attention_grad.h) ---- */
enum { HEAD_ROWS = 2048 };            /* beyond, shared memory does not hold them                                          */
/* Those that turn q and k themselves: a head of 8 is one piece of 16 bytes. */
static inline bool turned_applies(const Node *n)
{
    const Shape q = n->in_type[0].shape;
    return q.d[1] == 8 * ((const AttentionAttr *)n->attr)->n_heads && q.d[0] <= HEAD_ROWS;
}
/* A row of a head that does not lie as such a piece. */
static __device__ __noinline__ uint4 get_elements(const void *data, int size, int64_t from, int d)
{
    uint32_t w[4];
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = i >= d ? 0.0f : size == 2 ? to_float(((const bf16 *)data)[from + i]) : ((const float *)data)[from + i];
    for (int i = 0; i < 4; i++) w[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
    return make_uint4(w[0], w[1], w[2], w[3]);
}
#endif
