/* Rows on the GPU, for *.cu that work row by row or element by element and are bound by memory: where rows lie (Tall), neighbouring
 * elements moved by one access (Piece), a row held in registers by some lanes (Held), elements dealt to threads (Spread). Not here: sums
 * over rows (cuda_chunks.h), products of matrices (cuda_tile.h). */
#ifndef MDR_CUDA_ROWS_H
#define MDR_CUDA_ROWS_H
#include "op/cuda_chunks.h"

static constexpr int ROW_THREADS = 256;

/* ---- where rows lie ---- */
/* The rows of all sequences of a member one below the other; fewer than 2^32. A value that all rows of a sequence share has ld 0. */
struct Tall {
    Arg a;
    uint32_t rows;                    /* of one sequence                                                                    */
    bool flat;                        /* row q lies at q * ld                                                               */
};
static inline Tall tall(const Arg &a, int64_t rows, int32_t n_seq)
{
    return Tall{a, (uint32_t)rows, n_seq == 1 || a.seq == rows * a.ld};
}
/* A vector whose element r belongs to row r. */
static inline Tall tall_column(Arg a, int64_t rows, int32_t n_seq)
{
    a.ld = 1;
    return tall(a, rows, n_seq);
}
/* A vector that belongs to every row. */
static inline Tall tall_shared(Arg a, int64_t rows, int32_t n_seq)
{
    a.ld = 0;
    return tall(a, rows, n_seq);
}
/* Index of the first element of row q of member m. */
static __device__ __forceinline__ int64_t tall_at(const Tall &t, int64_t m, uint32_t q)
{
    if (t.flat) return m * t.a.member + q * t.a.ld;
    const uint32_t s = q / t.rows;
    return m * t.a.member + s * t.a.seq + (q - s * t.rows) * t.a.ld;
}

/* ---- W neighbouring elements, as they lie in memory ---- */
struct any_real {};                   /* of the size that the Arg says: W is 1                                              */
template <typename T, int W> struct Piece { float x[W]; };
template <int W> struct Piece<bf16, W> { uint32_t x[W / 2]; };

template <int W> static __device__ __forceinline__ void read(Piece<any_real, W> &p, const Arg &a, int64_t at) { p.x[0] = arg_get(a, at); }
template <int W> static __device__ __forceinline__ void read(Piece<float, W> &p, const Arg &a, int64_t at)
{
    static_assert(W % 4 == 0);
#pragma unroll
    for (int i = 0; i < W; i += 4) {
        const float4 v = *(const float4 *)((const float *)a.data + at + i);
        p.x[i] = v.x; p.x[i + 1] = v.y; p.x[i + 2] = v.z; p.x[i + 3] = v.w;
    }
}
template <int W> static __device__ __forceinline__ void read(Piece<bf16, W> &p, const Arg &a, int64_t at)
{
    static_assert(W == 4 || W == 8);
    const bf16 *from = (const bf16 *)a.data + at;
    if constexpr (W == 8) {
        const uint4 v = *(const uint4 *)from;
        p.x[0] = v.x; p.x[1] = v.y; p.x[2] = v.z; p.x[3] = v.w;
    } else {
        const uint2 v = *(const uint2 *)from;
        p.x[0] = v.x; p.x[1] = v.y;
    }
}
template <typename T, int W> static __device__ __forceinline__ void open(const Piece<T, W> &p, float v[W])
{
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = p.x[i];
}
template <int W> static __device__ __forceinline__ void open(const Piece<bf16, W> &p, float v[W])
{
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = i % 2 ? high_bf16(p.x[i / 2]) : low_bf16(p.x[i / 2]);
}
template <typename T, int W> static __device__ __forceinline__ void write(const Arg &a, int64_t at, const float v[W])
{
    if constexpr (__is_same(T, any_real)) {
        arg_put(a, at, v[0]);
    } else if constexpr (__is_same(T, float)) {
#pragma unroll
        for (int i = 0; i < W; i += 4) *(float4 *)((float *)a.data + at + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    } else if constexpr (W == 8) {
        *(uint4 *)((bf16 *)a.data + at) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    } else {
        *(uint2 *)((bf16 *)a.data + at) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
    }
}

/* May rows of `cols` columns of all these be moved in pieces of w elements, and of which type? Absent ones (data NULL) do not count. */
enum Kind { ANY, BF16, FLOAT };
static inline bool in_pieces(const Arg &a, int64_t w)
{
    const int64_t bytes = w * a.size < 16 ? w * a.size : 16;
    return !a.data || ((uintptr_t)a.data | (uintptr_t)(a.member * a.size) | (uintptr_t)(a.seq * a.size) | (uintptr_t)(a.ld * a.size)) % (uintptr_t)bytes == 0;
}
static inline Kind kind_of(int64_t cols, int64_t w, int n, const Arg *a)
{
    int64_t size = 0;
    for (int i = 0; i < n; i++) {
        if (!a[i].data) continue;
        if (size == 0) size = a[i].size;
        if (a[i].size != size || !in_pieces(a[i], w)) return ANY;
    }
    return cols % w != 0 ? ANY : size == 2 ? BF16 : size == 4 ? FLOAT : ANY;
}

/* ---- a row in the registers of `lanes` lanes: pieces lane, lane + lanes, .. N of them each; N = 0: nothing is held, a row is read
 * again whenever it is wanted ---- */
template <typename T, int W, int N> struct Held { Piece<T, W> p[N ? N : 1]; };
template <typename T, int W, int N>
static __device__ __forceinline__ void hold(Held<T, W, N> &h, const Arg &a, int64_t at, uint32_t lane, uint32_t lanes, uint32_t pieces)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (lane + i * lanes < pieces) read(h.p[i], a, at + (int64_t)(lane + i * lanes) * W);
}
/* Its piece i, which is piece k of the row. */
template <typename T, int W, int N>
static __device__ __forceinline__ void take(const Held<T, W, N> &h, const Arg &a, int64_t at, uint32_t i, uint32_t k, float v[W])
{
    if constexpr (N > 0) {
        open(h.p[i], v);
    } else {
        Piece<T, W> p;
        read(p, a, at + (int64_t)k * W);
        open(p, v);
    }
}
/* i, k: as in take(). In scope: N, lane, lanes. */
#define FOR_PIECES(i, k, pieces)                                                                                       \
    _Pragma("unroll (N ? N : 1)") for (uint32_t i = 0, k = lane; N ? i < (uint32_t)N : k < (pieces); i++, k += lanes)  \
        if (k < (pieces))

/* Sum over `lanes` (a power of two, at most 32) neighbouring lanes of a warp whose threads are all here. */
static __device__ __forceinline__ float lanes_sum(float x, uint32_t lanes)
{
    for (uint32_t d = lanes / 2; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, (int)d);
    return x;
}
/* Fewest lanes, a power of two, that hold so many pieces n each; 32 at most. */
static inline uint32_t lanes_for(int64_t pieces, int64_t n)
{
    uint32_t lanes = 1;
    while (lanes < 32 && lanes * n < pieces) lanes *= 2;
    return lanes;
}

/* ---- elements dealt to threads: piece j of all pieces of a member ---- */
struct Spread {
    const int32_t *n_seq;
    uint32_t rows, pieces;            /* of a sequence, of a row                                                            */
    bool linear;                      /* all values lie without gaps: row 0 holds everything                                */
};
static inline bool without_gaps(const Tall &t, int64_t cols) { return !t.a.data || (t.flat && t.a.ld == cols); }
static __device__ __forceinline__ uint32_t spread_count(const Spread &s, int64_t m) { return (uint32_t)s.n_seq[m] * s.rows * s.pieces; }
static __device__ __forceinline__ void spread_at(const Spread &s, uint32_t j, uint32_t *row, uint32_t *piece)
{
    *row = s.linear ? 0 : j / s.pieces;
    *piece = s.linear ? j : j - *row * s.pieces;
}
static inline dim3 spread_grid(const Call *c, const Spread &s, int at_once)
{
    return mdr_grid(mdr_ceil_div((int64_t)c->extent.n_seq * s.rows * s.pieces, ROW_THREADS * at_once), 1, c->extent.n_member);
}

/* 1 / (1 + e^-x) to about 2^-22 relative, without overflow. */
static __device__ __forceinline__ float sigmoid(float x)
{
    const float e = expf(-fabsf(x)), d = __fdividef(1.0f, 1.0f + e);
    return x < 0.0f ? e * d : d;
}
#endif
