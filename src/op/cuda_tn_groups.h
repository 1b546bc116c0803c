/* z = x^T y of plain bf16 where there are blocks enough for one to sum a whole group of rows (matmul_tn.cu says what pieces and groups are).
 * A warp keeps two times its part of z in registers, the sums of the piece at hand and those of the pieces before, so the end of a piece
 * costs one addition an element and no memory; 8 warps and 320 columns a block are what then goes into a processor. 64 rows of
 * X columns of x and Y of y a stage pass through a ring in shared memory. A row there is 2 (X + Y) bytes, 16 bytes at column piece c of
 * row r at place c ^ (r % 8), which ldmatrix reads transposed without bank conflicts. A piece may end in the middle of a stage. */
#ifndef MDR_CUDA_TN_GROUPS_H
#define MDR_CUDA_TN_GROUPS_H
#include "op/cuda_tn_parts.h"

/* WM by WN warps, each 16 I columns of x by 8 J of y. 4 warps leave room for a second block. */
template <int I, int WM> constexpr int GROUP_X = 16 * I * WM;
template <int J, int WN> constexpr int GROUP_Y = 8 * J * WN;
/* Rows of warps that share y's sums; blocks of one row want a second block for that: z has more than 64 rows. */
template <int WM> constexpr int GROUP_SHARE = WM == 1 ? 2 : WM;
template <int J, int WM> constexpr int GROUP_OWN = (J / 2 + GROUP_SHARE<WM> - 1) / GROUP_SHARE<WM>;      /* pairs of 8 columns a warp, at most  */
template <int WM, int WN> constexpr int GROUP_STAGES = WM * WN == 8 ? 4 : 3;
enum { GROUP_DEPTH = 64, GROUP_STEP = 32 };       /* rows a stage; pieces are multiples of the step                           */
template <int I, int J, int WM, int WN> constexpr int GROUP_BYTES = GROUP_DEPTH * 2 * (GROUP_X<I, WM> + GROUP_Y<J, WN>);
template <int I, int J, int WM, int WN, bool SUMS>
constexpr int GROUP_SHARED = GROUP_STAGES<WM, WN> * GROUP_BYTES<I, J, WM, WN> + (SUMS ? 2 * GROUP_OWN<J, WM> * 32 * WM * WN * 4 : 0);

/* What is read next. Thread: 16 bytes at piece threadIdx % 8 of every 64 columns of a row; x, y: there; left: rows from there on;
 * there: which of the groups of 64 columns this thread finds, a bit each. */
struct GroupFeed { const bf16 *x, *y; int32_t left; uint32_t there; };
template <int X, int Y, int THREADS>
static __device__ __forceinline__ void feed_group(unsigned char *to, GroupFeed *f, int64_t x_ld, int64_t y_ld)
{
    constexpr int PITCH = 2 * (X + Y), AT_ONCE = THREADS / 8;
#pragma unroll
    for (int i = 0; i < GROUP_DEPTH; i += AT_ONCE) {
#pragma unroll
        for (int c = 0; c < X + Y; c += 64)
            copy_16(to + i * PITCH + 2 * c, c < X ? f->x + i * x_ld + c : f->y + i * y_ld + c - X, i < f->left && (f->there >> c / 64 & 1));
    }
    f->x += GROUP_DEPTH * x_ld;
    f->y += GROUP_DEPTH * y_ld;
    f->left -= GROUP_DEPTH;
}

/* Where a lane reads the i-th 16 of a warp's 16 N columns: where N is a power of two it follows from the first, and needs no register. */
template <int N> static __device__ __forceinline__ int place_of_16(const int *at, int i) { return (N & (N - 1)) == 0 ? at[0] ^ i << 5 : at[i]; }

/* 32 rows. x, y: this lane's row and place of the warp's first columns, for ldmatrix. SUMS: of y's columns too, pair p of
 * 8 columns by the warps whose share is p % SHARE; y's fragments, turned, are the left operand and ones the right one. */
template <int I, int J, int SHARE, int PITCH, bool SUMS>
static __device__ __forceinline__ void multiply_group(float (*acc)[J][4], float (*total)[4], int share, const unsigned char *stage,
                                                      const int *x, const int *y)
{
#pragma unroll
    for (int k = 0; k < GROUP_STEP; k += 16) {
        uint32_t a[I][4];
#pragma unroll
        for (int i = 0; i < I; i++) ldmatrix<4, true>(a[i], stage + place_of_16<I>(x, i) + k * PITCH);
#pragma unroll
        for (int p = 0; p < J / 2; p++) {
            uint32_t b[4];
            ldmatrix<4, true>(b, stage + place_of_16<J / 2>(y, p) + k * PITCH);
#pragma unroll
            for (int i = 0; i < I; i++) {
                mma_16816(acc[i][2 * p], a[i], b);
                mma_16816(acc[i][2 * p + 1], a[i], b + 2);
            }
            if (SUMS && p % SHARE == share) {
                const uint32_t turned[4] = {b[0], b[2], b[1], b[3]}, ones[2] = {0x3f803f80u, 0x3f803f80u};
                mma_16816(total[p / SHARE], turned, ones);
            }
        }
    }
}

/* Sums of the piece are added to those before it. */
template <int I, int J, int OWN, int THREADS>
static __device__ __forceinline__ void end_of_piece(float (*acc)[J][4], float (*kept)[J][4], float (*total)[4], float *kept_total)
{
#pragma unroll
    for (int i = 0; i < I; i++)
#pragma unroll
        for (int j = 0; j < J; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                kept[i][j][e] += acc[i][j][e];
                acc[i][j][e] = 0.0f;
            }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        kept_total[2 * i * THREADS] += total[i][0];
        kept_total[(2 * i + 1) * THREADS] += total[i][2];
        total[i][0] = total[i][1] = total[i][2] = total[i][3] = 0.0f;
    }
}
/* As tensor_product; a block's chunk is a group. */
template <int I, int J, int WM, int WN, bool SUMS>
static __global__ __launch_bounds__(32 * WM * WN, 8 / (WM * WN)) void group_product(Panel x, Panel y, Panel z, Arg sum, Job job, int32_t piece,
                                                                                    int32_t part, int32_t add)
{
    mdr_begin();
    constexpr int X = GROUP_X<I, WM>, Y = GROUP_Y<J, WN>, PITCH = 2 * (X + Y), BYTES = GROUP_BYTES<I, J, WM, WN>, STAGES = GROUP_STAGES<WM, WN>;
    constexpr int SHARE = GROUP_SHARE<WM>, OWN = SUMS ? GROUP_OWN<J, WM> : 0, THREADS = 32 * WM * WN;
    MDR_SHARED(unsigned char, ring);
    Spot w;
    x.flat = y.flat = true;
    if (!find_spot(job, &w)) return;
    const int32_t r0 = w.chunk * job.chunk, rows = job.chunk < w.rows - r0 ? job.chunk : w.rows - r0, k0 = w.tile_m * X, n0 = w.tile_n * Y;
    if (rows <= 0) return;
    const int tid = (int)threadIdx.x, lane = tid % 32, l = lane % 8, q = lane / 8, warp_row = tid / 32 / WN;
    const int wm = warp_row * 16 * I, wn = tid / 32 % WN * 8 * J;
    const int share = w.tile_m * WM + warp_row;
    const bool idle = (k0 + wm >= x.cols && !(SUMS && share < SHARE)) || n0 + wn >= y.cols;              /* only copies                 */
    GroupFeed f = {NULL, NULL, rows - tid / 8, 0};
    for (int c = 0; c < X + Y; c += 64) f.there |= (uint32_t)(c < X ? k0 + c + tid % 8 * 8 < x.cols : n0 + c - X + tid % 8 * 8 < y.cols) << c / 64;
    f.x = (const bf16 *)x.a.data + row_at(x, w.m, w.s, r0 + tid / 8) + k0 + tid % 8 * 8;
    f.y = (const bf16 *)y.a.data + row_at(y, w.m, w.s, r0 + tid / 8) + n0 + tid % 8 * 8;
    float *kept_total = (float *)(ring + STAGES * BYTES) + tid;
    unsigned char *to = ring + tid / 8 * PITCH + ((tid % 8 ^ (tid / 8 & 7)) << 4);
    auto load = [&](int at) {
        if (f.left > -(tid / 8)) feed_group<X, Y, THREADS>(to + at, &f, x.a.ld, y.a.ld);
        copy_commit();
    };
    for (int i = 0; i < STAGES - 1; i++) load(i * BYTES);
    int xs[I], ys[J / 2];
#pragma unroll
    for (int i = 0; i < I; i++) xs[i] = ((q >> 1) * 8 + l) * PITCH + (((wm / 8 + 2 * i + (q & 1)) ^ l) << 4);
#pragma unroll
    for (int p = 0; p < J / 2; p++) ys[p] = ((q & 1) * 8 + l) * PITCH + (((X / 8 + wn / 8 + 2 * p + (q >> 1)) ^ l) << 4);
    float acc[I][J][4] = {}, kept[I][J][4], total[OWN + 1][4] = {};       /* kept starts as -0: -0 + v is v, bit for bit  */
#pragma unroll
    for (int i = 0; i < I; i++)
#pragma unroll
        for (int j = 0; j < J; j++) kept[i][j][0] = kept[i][j][1] = kept[i][j][2] = kept[i][j][3] = -0.0f;
#pragma unroll
    for (int i = 0; i < 2 * OWN; i++) kept_total[i * THREADS] = -0.0f;
    int from = 0;
    int32_t end = piece;
#pragma unroll 1
    for (int32_t r = 0; r < rows; r += GROUP_STEP) {
        if (r % GROUP_DEPTH == 0) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            load(from ? from - BYTES : (STAGES - 1) * BYTES);
        }
        if (!idle) multiply_group<I, J, SHARE, PITCH, SUMS>(acc, total, share, ring + from, xs, ys);
        from = from + GROUP_STEP * PITCH < STAGES * BYTES ? from + GROUP_STEP * PITCH : 0;
        if (r + GROUP_STEP == end || r + GROUP_STEP >= rows) {
            end_of_piece<I, J, OWN, THREADS>(acc, kept, total, kept_total);
            end += piece;
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * I; i++) {
        const int32_t row = k0 + wm + 8 * i + lane / 4;
        if (row >= x.cols) continue;
        const int64_t at = row_at(z, w.m, part ? w.chunk : w.s, row);
#pragma unroll
        for (int j = 0; j < J; j++) {
            const int32_t col = n0 + wn + 8 * j + lane % 4 * 2;
            if (col < z.cols) put_2(z, at, col, kept[i / 2][j][2 * (i % 2)], kept[i / 2][j][2 * (i % 2) + 1], part, add);
        }
    }
    if (SUMS && lane % 4 == 0) {
#pragma unroll
        for (int i = 0; i < J; i++) {
            const int32_t col = n0 + wn + 8 * i + lane / 4;
            const int64_t at = w.m * sum.member + (part ? w.chunk : w.s) * sum.seq + col;
            const bool mine = i / 2 % SHARE == share && col < y.cols;
            if (mine) arg_put(sum, at, kept_total[(i / 2 / SHARE * 2 + i % 2) * THREADS] + (add ? arg_get(sum, at) : 0.0f));
        }
    }
}
#endif
