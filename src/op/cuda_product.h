/* Products of bf16 on tensor cores (mma.m16n8k16, sums in float) as matmul.cu makes them and ops that fuse with a product make theirs.
 *
 * w is read from its transpose in bf16 (the image that Prep makes, once a step: images.cu). Columns of y are dealt so that a thread ends with 8
 * neighbours: column p of the product number j of a group of 32 is 8 (p/2) + 2j + p%2. So y is stored in 16 bytes a thread, 64 a row
 * and more, straight from registers. Two ways of feeding a product:
 *   held      a warp keeps rows of x in registers (Rows) and walks through the columns; pieces of the image pass through a ring in shared
 *             memory (held_copy). The order in which products of one element are summed is free: a thread's operands are 8 neighbours of
 *             a row of x, so one load of 16 bytes serves two steps of 16 (PTX's columns 2t, 2t+1, 2t+8, 2t+9 stand for
 *             k = 8t + 4 step .. + 3), and of a row of the image likewise.
 *   streamed  64 of k at a time of x's rows and of the image pass through shared memory (feed), both read by ldmatrix.
 * Shared memory is read 16 bytes a thread without bank conflicts everywhere; nothing is shuffled. */
#ifndef MDR_CUDA_PRODUCT_H
#define MDR_CUDA_PRODUCT_H
#include "op/cuda_images.h"
#include "op/cuda_mma.h"
#include "op/cuda_tile.h"

/* The transpose of w as bf16, filled with zeros to whole groups: `rows` (N to 32s) rows of `ld` (K to 64s) numbers. */
struct Image { const bf16 *data; int64_t member; int32_t rows, ld; };
static __host__ __device__ inline int32_t image_rows(int32_t cols) { return (cols + 31) / 32 * 32; }
static __host__ __device__ inline int32_t image_ld(int32_t inner) { return (inner + 63) / 64 * 64; }

/* 16 rows of x by 32 of k, as mma_16816 takes them. */
struct Rows { uint32_t step[2][4]; };
/* acc[i][j] += 16 rows i of x times 8 columns j of w: b holds both steps of 16 of k. */
template <int MT> static __device__ __forceinline__ void multiply(float (*acc)[4][4], int j, const Rows *a, const uint32_t *b)
{
#pragma unroll
    for (int i = 0; i < MT; i++) mma_16816(acc[i][j], a[i].step[0], b);
#pragma unroll
    for (int i = 0; i < MT; i++) mma_16816(acc[i][j], a[i].step[1], b + 2);
}
/* The column of a group of 32 that is number p of its j-th 8: so a thread (g, t) of a warp ends with columns 8t .. 8t + 7. */
static __device__ __forceinline__ int dealt(int p, int j) { return 8 * (p >> 1) + 2 * j + (p & 1); }

/* Sums start from the bias of a thread's 8 columns. */
template <int MT> static __device__ __forceinline__ void begin(float (*acc)[4][4], const float bias[8])
{
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            acc[i][j][0] = acc[i][j][2] = bias[2 * j];
            acc[i][j][1] = acc[i][j][3] = bias[2 * j + 1];
        }
}
/* A thread's 8 neighbours of row `half` (g, g + 8) of 16. */
static __device__ __forceinline__ void gather_8(float v[8], const float (*acc)[4], int half)
{
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = acc[j / 2][2 * half + j % 2];
}
template <typename T> static __device__ __forceinline__ void store_piece(T *to, const float (*acc)[4], int half)
{
    float v[8];
    gather_8(v, acc, half);
    if constexpr (sizeof(T) == 2) {
        *(uint4 *)to = pack_8(v);
    } else {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

/* ---- pieces of 32 of k by 32 columns of the image, for blocks that hold their rows of x ---- */
enum { HELD_STAGES = 4, HELD_CHUNK = 32 * 64 + 64 };      /* the 64: copies of neighbouring pieces of k meet other banks       */

/* Thread of 128: piece threadIdx % (4 KC) of every step-th row; from: this piece of row threadIdx / (4 KC). */
template <int KC> static __device__ __forceinline__ void held_copy(unsigned char *to, const bf16 *from, int32_t ld)
{
    constexpr int step = 128 / (4 * KC);
    const int k = (int)threadIdx.x % (4 * KC), n = (int)threadIdx.x / (4 * KC);
    to += k / 4 * HELD_CHUNK + k % 4 * 16 + n * 64;
#pragma unroll
    for (int i = 0; i < 32 / step; i++) copy_16(to + i * step * 64, from + i * step * ld, true);
}

/* ---- 64 of k at a time of 128 rows of x and 64 WN columns ---- */
/* A stage: two times 32 of k of x's rows, then of w's. Piece c (of 4) of a row lies at c ^ .. so that ldmatrix meets no bank twice: it
 * reads 8 rows of x that follow each other, of w 8 that are dealt. Here k stands for itself: steps are 0 .. 15 and 16 .. 31. */
static __device__ __forceinline__ int x_place(int r, int c) { return r * 64 + ((c ^ (r >> 1 & 3)) << 4); }
static __device__ __forceinline__ int w_place(int n, int c) { return n * 64 + ((c ^ (n >> 3 & 3)) << 4); }
enum { STREAM_STAGES = 3, STREAM_ROWS = 128, STREAM_X = STREAM_ROWS * 64 + 64 };
template <int WN> constexpr int STREAM_W = 64 * WN * 64 + 64;
template <int WN> constexpr int STREAM_STAGE = 2 * (STREAM_X + STREAM_W<WN>);

/* Thread: piece threadIdx % 8 of 64 of k, of rows threadIdx / 8 + 16 i. Where x is plain bf16 and there is an image, it walks: */
struct Feed { const bf16 *x, *w; int32_t x_rows, w_rows, x_left; };      /* rows from its first one on; of k from its piece on     */
template <int WN> static __device__ __forceinline__ void feed(unsigned char *to, Feed *f, int64_t x_ld, int64_t w_ld)
{
    const int c = (int)threadIdx.x % 8, r = (int)threadIdx.x / 8;
    const int32_t rows = f->x_left > 0 ? f->x_rows : 0;
#pragma unroll
    for (int i = 0; i < STREAM_ROWS / 16; i++)
        copy_16(to + c / 4 * STREAM_X + x_place(r + 16 * i, c % 4), f->x + 16 * i * x_ld, 16 * i < rows);
    to += 2 * STREAM_X + c / 4 * STREAM_W<WN>;
#pragma unroll
    for (int i = 0; i < 4 * WN; i++) copy_16(to + w_place(r + 16 * i, c % 4), f->w + 16 * i * w_ld, 16 * i < f->w_rows);
    f->x += 64;
    f->w += 64;
    f->x_left -= 64;
}

/* ---- the image of w ---- */
/* For Prep.run: the image of c->in[at] [inner, cols] (or turned), on the list where one is lent, else made at once. w is float: it has no SEQ
 * axis. Only products of x of bf16 (size 2) meet an image. */
static inline void enqueue_image(const Call *c, int at, int64_t x_size, int64_t inner, int64_t cols, bool turned)
{
    const Arg w = c->in[at], out = c->out[0];
    Images alone = {}, *list = c->images ? c->images : &alone;
    if (x_size != 2) return;
    if (list->n == MDR_IMAGES) mdr_cuda_images(c->stream, list);
    list->members = c->extent.n_member;
    list->first[list->n] = list->blocks;
    list->blocks += image_ld((int32_t)inner) / 32 * (image_rows((int32_t)cols) / 32);
    list->job[list->n++] = ImageJob{(const float *)w.data, (float *)out.data, w.member, out.member, (int32_t)w.ld, (int32_t)inner, (int32_t)cols, turned};
    if (list == &alone) mdr_cuda_images(c->stream, list);
}
/* Floats of the image of [inner, cols]; the image as kernels see it: data NULL without one. */
static inline int64_t image_floats(int64_t inner, int64_t cols) { return (int64_t)image_rows((int32_t)cols) * image_ld((int32_t)inner) / 2; }
static inline Image image_of(const Call *c, int64_t x_size, int64_t inner, int64_t cols)
{
    Image w = {NULL, 0, image_rows((int32_t)cols), image_ld((int32_t)inner)};
    if (c->prep.data && x_size == 2 && (uintptr_t)c->prep.data % 16 == 0 && c->prep.member % 4 == 0) {
        w.data = (const bf16 *)c->prep.data;
        w.member = 2 * c->prep.member;
    }
    return w;
}
#endif
