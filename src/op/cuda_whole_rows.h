/* Products of bf16 for ops that go on with whole rows of the result, where w's image (cuda_product.h) fits into shared memory: it lies
 * there as a whole, blocks stay, and each warp makes tile after tile of 32 rows and NG groups of 32 columns, all in its registers.
 * Whatever a tile needs, x and rows beside it alike, passes in stages of 32 rows by 32 columns through a ring in shared memory: thread
 * (g, t) copies and reads piece t of rows g + 8 i and nobody else's. So no warp waits for another, and what the next tile needs is under
 * way while this one is finished. Operands lie as in `held`; a stage has the shape of a group of the result, too: 8 neighbours of 4 rows
 * a thread. A slot is filled anew as soon as it is read: its copy comes from device memory, long after. A block asks for its first
 * stages, then for the image in pieces of k, which count as those stages: its first product begins when the first piece is there. */
#ifndef MDR_CUDA_WHOLE_ROWS_H
#define MDR_CUDA_WHOLE_ROWS_H
#include "op/cuda_product.h"

enum { WHOLE_WARPS = 8, WHOLE_STAGE = 32 * 64, WHOLE_SHARED = 232448 };
template <int NG> constexpr int WHOLE_CHUNK = NG * 32 * 64 + 64;         /* 32 of k of the image                                */

/* A member's rows are cut into chunks of `per`, chunks into tiles of 32; a warp takes every stride-th chunk. */
struct Share { int32_t m, rows, per, stride; };
struct Tile { int32_t row, to, chunk; };                   /* row >= to: none left                                             */
static __device__ __forceinline__ Tile first_tile(const Share &s, int32_t chunk)
{
    const int32_t row = chunk < (s.rows + s.per - 1) / s.per ? chunk * s.per : s.rows;
    return Tile{row, s.rows - row < s.per ? s.rows : row + s.per, chunk};
}
static __device__ __forceinline__ void next_tile(const Share &s, Tile *p)
{
    p->row += 32;
    if (p->row >= p->to) *p = first_tile(s, p->chunk + s.stride);
}
/* A thread's ring: what will be copied next, and to where what is read next lies now. */
struct Stream { unsigned char *ring, *slot; Tile tile; int32_t stage; };
template <int STAGES> static __device__ __forceinline__ void next_slot(Stream *f)
{
    f->slot = f->slot == f->ring + (STAGES - 1) * WHOLE_STAGE ? f->ring : f->slot + WHOLE_STAGE;
}
/* The image of a member: `chunks` of 32 of k, `per` a piece, as many pieces as stages; chunks before `seen` are there for all threads. */
struct Arrival { int32_t chunks, per, seen; };
template <int STAGES> static __device__ __forceinline__ Arrival arrival(int32_t inner)
{
    const int32_t chunks = (inner + 31) / 32, pieces = STAGES > 0 ? STAGES : 1;
    return Arrival{chunks, (chunks + 2 * pieces - 1) / (2 * pieces) * 2, 0};
}
/* Piece i of the image of member m, by all threads: 128 bytes of a row by 8 of them. */
template <int NG> static __device__ __forceinline__ void copy_image(unsigned char *to, const Image &w, int32_t m, const Arrival &a, int32_t i)
{
    const int32_t k = (int32_t)threadIdx.x % 8, row = (int32_t)threadIdx.x / 8, end = (i + 1) * a.per < a.chunks ? (i + 1) * a.per : a.chunks;
    for (int32_t c = i * a.per + k / 4; c < end; c += 2) {
        const bf16 *from = w.data + m * w.member + 32 * c + k % 4 * 8;
        unsigned char *at = to + c * WHOLE_CHUNK<NG> + k % 4 * 16;
        for (int32_t n = row; n < 32 * NG; n += (int32_t)blockDim.x / 8) copy_16(at + n * 64, from + n * w.ld, true);
    }
}
/* All of the image, asked for in the order in which stages are waited for. */
template <int NG, int STAGES> static __device__ __forceinline__ void ask_image(unsigned char *to, const Image &w, int32_t m, const Arrival &a)
{
#pragma unroll 1
    for (int i = 0; i < STAGES || i < 1; i++) {
        copy_image<NG>(to, w, m, a, i);
        copy_commit();
    }
}
/* What was written beside the image (vectors) is there for all; without stages the image is, too. */
template <int STAGES> static __device__ __forceinline__ void begin_whole(Arrival *a)
{
    if (STAGES == 0) {
        copy_wait<0>();
        a->seen = a->chunks;
    }
    __syncthreads();
}
/* Before chunk c is read, by all warps of the block alike: this thread's copies up to stage number `stage` are there. */
static __device__ __forceinline__ void see(Arrival *a, int32_t c, int32_t stage)
{
    if (c < a->seen) return;
    __syncthreads();
    a->seen = (stage + 1) * a->per;
}
/* For a warp without a tile, in step with the others, whose first product begins with stage number `first`. */
static __device__ __forceinline__ void see_all(Arrival *a, int32_t first)
{
    copy_wait<0>();
    while (a->seen < a->chunks) see(a, a->seen, first + a->seen);
}
/* slot: this thread's place of a stage; from: its piece of its first row; there are `left` rows from there on. N: 8s of rows of a stage. */
template <int N = 4> static __device__ __forceinline__ void copy_rows(unsigned char *slot, const bf16 *from, int64_t ld, int32_t left)
{
#pragma unroll
    for (int i = 0; i < N; i++) copy_16<true>(slot + 512 * i, from + 8 * i * ld, 8 * i < left);
}
template <int STAGES, int N = 4> static __device__ __forceinline__ void take_rows(uint4 *u, const unsigned char *slot)
{
    copy_wait<(STAGES > 0 ? STAGES - 1 : 0)>();
#pragma unroll
    for (int i = 0; i < N; i++) u[i] = *(const uint4 *)(slot + 512 * i);
}
static __device__ __forceinline__ void open_8(const uint4 &u, float v[8])
{
    const uint32_t word[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) { v[2 * i] = low_bf16(word[i]); v[2 * i + 1] = high_bf16(word[i]); }
}
/* 8 neighbours: FAST of u, else of a row of any kind, read now; zeros where it is not there. */
template <bool FAST>
static __device__ __forceinline__ void open_row(const uint4 &u, const Panel &p, int32_t m, int32_t row, int32_t col, bool there, float v[8])
{
    if constexpr (FAST) {
        open_8(u, v);
    } else {
        const int64_t at = there ? row_at(p, m, 0, row) + col : 0;
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = there && col + j < p.cols ? arg_get(p.a, at + j) : 0.0f;
    }
}
/* What take_rows gives, of rows of any kind. */
template <int N = 4> static __device__ __forceinline__ void read_rows(uint4 *u, const Panel &p, int32_t m, int32_t row, int32_t col, int32_t left)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        float v[8];
        open_row<false>(u[i], p, m, row + 8 * i, col, 8 * i < left, v);
        u[i] = pack_8(v);
    }
}
template <bool FAST> static __device__ __forceinline__ void store_row(const Panel &p, int32_t m, int32_t row, int32_t col, const float v[8])
{
    const int64_t at = row_at(p, m, 0, row) + col;
    if (FAST) *(uint4 *)((bf16 *)p.a.data + at) = pack_8(v);
#pragma unroll
    for (int j = 0; j < 8 && !FAST; j++) arg_put(p.a, at + j, v[j]);
}
/* The sums of one group go on by 32 of k. w: where this thread reads the image's rows of this group. Neighbouring products are of
 * different sums: none waits for the one before. */
static __device__ __forceinline__ void multiply_group(float (*acc)[4][4], const uint4 u[4], const unsigned char *w)
{
    const Rows a[2] = {{{{u[0].x, u[1].x, u[0].y, u[1].y}, {u[0].z, u[1].z, u[0].w, u[1].w}}},
                       {{{u[2].x, u[3].x, u[2].y, u[3].y}, {u[2].z, u[3].z, u[2].w, u[3].w}}}};
    uint4 b[4];
#pragma unroll
    for (int j = 0; j < 4; j++) b[j] = *(const uint4 *)(w + 2 * j * 64);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint32_t b2[2] = {b[j].x, b[j].y};
        mma_16816(acc[0][j], a[0].step[0], b2);
        mma_16816(acc[1][j], a[1].step[0], b2);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint32_t b2[2] = {b[j].z, b[j].w};
        mma_16816(acc[0][j], a[0].step[1], b2);
        mma_16816(acc[1][j], a[1].step[1], b2);
    }
}
/* The reverse of gather_8. */
static __device__ __forceinline__ void scatter_8(const float v[8], float (*acc)[4], int half)
{
#pragma unroll
    for (int j = 0; j < 8; j++) acc[j / 2][2 * half + j % 2] = v[j];
}

/* ---- host: x is input 0, the result output 0 ---- */
static inline int64_t inner_of(const Node *n) { return mdr_cols(n->in_type[0].shape); }
static inline int64_t cols_of(const Node *n) { return mdr_cols(n->out[0].shape); }
/* Absent, or the same for all sequences of a step. */
static inline bool of_a_step(const Node *n, int k) { return n->in[k].node < 0 || !(n->in_type[k].axes & MDR_AXIS_SEQ); }
static inline bool plain_or_absent(const Panel &p) { return !p.a.data || plain_bf16(p); }
/* launch<groups of columns, stages>; no stages: operands of any kind. */
#define WHOLE_LAUNCH(launch, cols, stages)                                                                             \
    ((cols) == 32 ? ((stages) ? launch<1, 6> : launch<1, 0>) : (cols) == 64 ? ((stages) ? launch<2, 6> : launch<2, 0>) : \
     (stages) == 12 ? launch<4, 12> : (stages) == 6 ? launch<4, 6> : (stages) == 3 ? launch<4, 3> : launch<4, 0>)

/* Shared memory: the image, `vectors` vectors of a column each, the rings. */
static inline int64_t whole_bytes(int64_t inner, int64_t cols, int vectors, int warps, int stages)
{
    return (inner + 31) / 32 * (cols * 64 + 64) + vectors * cols * 4 + (int64_t)warps * stages * WHOLE_STAGE;
}
/* Stages that fit: few warps have deep rings. 0: not even the image does, or no kernel is made for so many columns. */
static inline int whole_stages(int64_t inner, int64_t cols, int vectors, int warps)
{
    if (cols != 32 && cols != 64 && cols != 128) return 0;
    int stages = cols == 128 ? 12 : 6;
    while (stages > 0 && whole_bytes(inner, cols, vectors, warps, stages) > WHOLE_SHARED) stages = stages == 3 || cols < 128 ? 0 : stages / 2;
    return stages;
}
/* Warps of a block and blocks of a member for so many chunks: few rounds, processors idle in the last one only. Every block reads the
 * image, which counts as a quarter of a round; few warps take longer than their share. */
struct WholeGrid { int warps, blocks; };
static inline WholeGrid whole_grid(int64_t chunks, int64_t members)
{
    WholeGrid best = {1, 1};
    int64_t least = INT64_MAX;
    for (int warps = 2; warps <= WHOLE_WARPS; warps *= 2) {
        const int64_t all = mdr_ceil_div(chunks, warps), most = 4 * PROCESSORS / members + 1;
        for (int64_t n = 1; n <= all && n <= most; n++) {
            const int64_t time = mdr_ceil_div(n * members, PROCESSORS) * (4 * mdr_ceil_div(all, n) + 1) * (warps + 4);
            if (time < least) { least = time; best = WholeGrid{warps, (int)n}; }
        }
    }
    return best;
}
#endif
