/* matmul on CUDA: y = x w (+ bias). In float: cuda_tile.h. Where an operand or the result is bf16: products on tensor cores
 * (mma.m16n8k16), sums in float, two kernels:
 *   held      K = 32, 64, 128: each warp keeps its 32 rows of x in registers and walks through the columns of y; x and y cross device
 *             memory once, w streams from the L2 cache through shared memory.
 *   streamed  any K: tiles of 128 rows by 64 or 128 columns, x and w stream through shared memory.
 * Which of the two depends on the node and on how its values lie, never on the number of members. Both read w from its transpose in
 * bf16 (the image that Prep makes, once a step). Columns of y are dealt so that a thread ends with 8 neighbours: column p of the product
 * number j of a group of 32 is 8 (p/2) + 2j + p%2. So y is stored in 16 bytes a thread, 64 a row and more, straight from registers.
 * In `held` the order in which products of one element are summed is free: a thread's operands are 8 neighbours of a row of x, so one
 * load of 16 bytes serves two steps of 16 (PTX's columns 2t, 2t+1, 2t+8, 2t+9 stand for k = 8t + 4 step .. + 3), and of a row of the
 * image likewise. Shared memory is read 16 bytes a thread without bank conflicts everywhere; nothing is shuffled. */
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
static __device__ __forceinline__ void store_piece(unsigned char *to, int64_t size, const float (*acc)[4], int half)
{
    float v[8];
    gather_8(v, acc, half);
    if (size == 2) {
        *(uint4 *)to = pack_8(v);
    } else {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

/* ---- held: KC pieces of 32 of k in registers; blocks of 4 or 6 warps of 32 rows; `groups` groups of 32 columns a block (y) ---- */
enum { HELD_STAGES = 4, HELD_CHUNK = 32 * 64 + 64 };      /* the 64: copies of neighbouring pieces of k meet other banks       */

/* Thread: piece threadIdx % (4 KC) of every step-th row; from: this piece of row threadIdx / (4 KC). */
template <int KC> static __device__ __forceinline__ void held_copy(unsigned char *to, const bf16 *from, int32_t ld)
{
    const int k = (int)threadIdx.x % (4 * KC), step = (int)blockDim.x / (4 * KC);
    to += k / 4 * HELD_CHUNK + k % 4 * 16;
    for (int n = (int)threadIdx.x / (4 * KC); n < 32; n += step, from += step * ld) copy_16(to + n * 64, from, true);
}
/* x [.., 32 KC], y and bias are wide, x and y flat, bias is float. */
template <int KC> static __global__ __launch_bounds__(192, 2) void held(Panel x, Panel y, Panel bias, Image w, Job job, int32_t groups)
{
    MDR_SHARED(unsigned char, ring);
    x.flat = y.flat = true;                                /* known: what the compiler sees, it need not branch on                */
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, rows = job.n_seq[m] * job.rows, first = (int32_t)(blockIdx.x * blockDim.x);
    const int32_t row0 = first + (int)threadIdx.x / 32 * 32 + g;
    const int32_t n0 = (int32_t)blockIdx.y * groups * 32, n1 = n0 + groups * 32 < y.cols ? n0 + groups * 32 : y.cols;
    if (first >= rows) return;
    const bf16 *piece = w.data + m * w.member + (int64_t)(n0 + (int)threadIdx.x / (4 * KC)) * w.ld + (int)threadIdx.x % (4 * KC) * 8;
#pragma unroll 1
    for (int q = 0; q < HELD_STAGES - 1; q++, piece += 32 * w.ld) {
        if (n0 + 32 * q < n1) held_copy<KC>(ring + q * KC * HELD_CHUNK, piece, w.ld);
        copy_commit();
    }
    Rows a[KC][2];
    const uint4 *from[4];
#pragma unroll
    for (int i = 0; i < 4; i++)                            /* rows beyond the last: any number, they are not stored                */
        from[i] = (const uint4 *)((const bf16 *)x.a.data + row_at(x, m, 0, row0 + 8 * i < rows ? row0 + 8 * i : 0) + 8 * t);
#pragma unroll
    for (int c = 0; c < KC; c++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 u = from[2 * i][4 * c], v = from[2 * i + 1][4 * c];
            a[c][i] = Rows{{{u.x, v.x, u.y, v.y}, {u.z, v.z, u.w, v.w}}};
        }
    int stage = 0;
    const unsigned char *mine = ring + dealt(g, 0) * 64 + t * 16;
    unsigned char *to = (unsigned char *)y.a.data + (row_at(y, m, 0, row0) + n0 + 8 * t) * y.a.size;
#pragma unroll 1
    for (int32_t n = n0; n < n1; n += 32, to += 32 * y.a.size) {
        float acc[2][4][4], b[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        copy_wait<HELD_STAGES - 2>();
        __syncthreads();
        const int next = stage == 0 ? HELD_STAGES - 1 : stage - 1;
        if (n + 32 * (HELD_STAGES - 1) < n1) held_copy<KC>(ring + next * KC * HELD_CHUNK, piece, w.ld);
        piece += 32 * w.ld;
        copy_commit();
        if (bias.a.data && n + 8 * t < n1) read_wide_8((const float *)bias.a.data + m * bias.a.member + n + 8 * t, b);
        begin<2>(acc, b);
#pragma unroll
        for (int c = 0; c < KC; c++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint4 u = *(const uint4 *)(mine + (stage * KC + c) * HELD_CHUNK + 2 * j * 64);
                const uint32_t b4[4] = {u.x, u.y, u.z, u.w};
                multiply<2>(acc, j, a[c], b4);
            }
        stage = stage == HELD_STAGES - 1 ? 0 : stage + 1;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (row0 + 8 * i < rows && n + 8 * t < n1) store_piece(to + 8 * i * y.a.ld * y.a.size, y.a.size, acc[i / 2], i % 2);
    }
}

/* ---- streamed: blocks of 4 warps, WN of them side by side, each MT * 16 rows by 64 columns; 64 of k at a time ---- */
/* A stage: two times 32 of k of x's rows, then of w's. Piece c (of 4) of a row lies at c ^ .. so that ldmatrix meets no bank twice: it
 * reads 8 rows of x that follow each other, of w 8 that are dealt. Here k stands for itself: steps are 0 .. 15 and 16 .. 31. */
static __device__ __forceinline__ int x_place(int r, int c) { return r * 64 + ((c ^ (r >> 1 & 3)) << 4); }
static __device__ __forceinline__ int w_place(int n, int c) { return n * 64 + ((c ^ (n >> 3 & 3)) << 4); }
enum { STREAM_STAGES = 3, STREAM_ROWS = 128, STREAM_X = STREAM_ROWS * 64 + 64 };
template <int WN> constexpr int STREAM_W = 64 * WN * 64 + 64;
template <int WN> constexpr int STREAM_STAGE = 2 * (STREAM_X + STREAM_W<WN>);

/* 8 of k from row n of w's transpose, where there is no image. */
static __device__ __forceinline__ uint4 read_w(const Panel &w, const Spot &p, bool turned, int32_t n, int32_t k)
{
    float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    const int64_t at = p.m * w.a.member + p.s * w.a.seq;
    if (turned) {
        if (n < w.rows) read_8(w, at + n * w.a.ld, k, v);
    } else if (n < w.cols) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < w.rows) v[i] = arg_get(w.a, at + (k + i) * w.a.ld + n);
    }
    return pack_8(v);
}
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
template <int WN>
static __device__ __forceinline__ void feed_any(unsigned char *to, const Panel &x, const Panel &w, const Image &image, const Spot &p,
                                                bool turned, int32_t row0, int32_t n0, int32_t k0)
{
    const int r = (int)threadIdx.x / 8, c = (int)threadIdx.x % 8;
    const int32_t k = k0 + 8 * c;
    for (int i = 0; i < STREAM_ROWS / 16; i++) {
        const int32_t row = row0 + r + 16 * i;
        float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (row < p.rows) read_8(x, row_at(x, p.m, p.s, row), k, v);
        *(uint4 *)(to + c / 4 * STREAM_X + x_place(r + 16 * i, c % 4)) = pack_8(v);
    }
    to += 2 * STREAM_X + c / 4 * STREAM_W<WN>;
    for (int i = 0; i < 4 * WN; i++) {
        const int32_t n = n0 + r + 16 * i;
        const bool there = n < image.rows;
        unsigned char *place = to + w_place(r + 16 * i, c % 4);
        if (image.data) copy_16(place, image.data + p.m * image.member + (there ? (int64_t)n * image.ld + k : 0), there);
        else *(uint4 *)place = read_w(w, p, turned, n, k);
    }
}
template <int MT, int WN, bool FAST>
static __global__ __launch_bounds__(128, 2) void streamed(Panel x, Panel w, Panel y, Panel bias, Image image, Job job, int32_t turned)
{
    MDR_SHARED(unsigned char, ring);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    if (FAST) x.flat = true;
    const int wm = warp / WN * MT * 16, wn = warp % WN * 64;
    Spot p;
    if (!find_spot(job, &p)) return;
    const int32_t row0 = p.tile_m * STREAM_ROWS;
    const int32_t n0 = p.tile_n * 64 * WN, inner = x.cols, n_step = (inner + 63) / 64;
    if (row0 >= p.rows) return;
    float acc[2][MT][4][4];
    const int32_t r = (int)threadIdx.x / 8, k = (int)threadIdx.x % 8 * 8;
    Feed f = {NULL, image.data + p.m * image.member + (int64_t)(n0 + r) * image.ld + k, p.rows - row0 - r, image.rows - n0 - r, inner - k};
    if (FAST) f.x = (const bf16 *)x.a.data + row_at(x, p.m, p.s, row0 + r) + k;
#pragma unroll 1
    for (int q = 0; q < STREAM_STAGES - 1; q++) {
        if (q < n_step && FAST) feed<WN>(ring + q * STREAM_STAGE<WN>, &f, x.a.ld, image.ld);
        else if (q < n_step) feed_any<WN>(ring + q * STREAM_STAGE<WN>, x, w, image, p, turned, row0, n0, 64 * q);
        copy_commit();
    }
#pragma unroll
    for (int q = 0; q < 2; q++) {
        float b[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (bias.a.data) read_8(bias, p.m * bias.a.member + p.s * bias.a.seq, n0 + wn + 32 * q + 8 * t, b);
        begin<MT>(acc[q], b);
    }
    int stage = 0;
    for (int32_t step = 0; step < n_step; step++) {
        copy_wait<STREAM_STAGES - 2>();
        __syncthreads();
        const int next = stage == 0 ? STREAM_STAGES - 1 : stage - 1;
        const int32_t k_next = 64 * (step + STREAM_STAGES - 1);
        if (k_next < inner && FAST) feed<WN>(ring + next * STREAM_STAGE<WN>, &f, x.a.ld, image.ld);
        else if (k_next < inner) feed_any<WN>(ring + next * STREAM_STAGE<WN>, x, w, image, p, turned, row0, n0, k_next);
        copy_commit();
        const unsigned char *from = ring + stage * STREAM_STAGE<WN>;
        for (int c = 0; c < 2 && 64 * step + 32 * c < inner; c++) {
            Rows a[MT];
            const unsigned char *x_tile = from + c * STREAM_X + wm * 64, *w_tile = from + 2 * STREAM_X + c * STREAM_W<WN> + wn * 64;
#pragma unroll
            for (int i = 0; i < 2 * MT; i++)
                ldmatrix<4, false>(a[i / 2].step[i % 2], x_tile + i / 2 * 1024 + x_place(lane % 16, i % 2 * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < 8; j++) {
                uint32_t b4[4];
                ldmatrix<4, false>(b4, w_tile + j / 4 * 2048 + w_place(dealt(lane % 8, j % 4), lane / 8));
                multiply<MT>(acc[j / 4], j % 4, a, b4);
            }
        }
        stage = stage == STREAM_STAGES - 1 ? 0 : stage + 1;
    }
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int32_t row = row0 + wm + 8 * i + g;
        if (row >= p.rows) continue;
        const int64_t at = row_at(y, p.m, p.s, row);
#pragma unroll
        for (int q = 0; q < 2; q++) {
            const int32_t col = n0 + wn + 32 * q + 8 * t;
            float v[8];
            gather_8(v, acc[q][i / 2], i % 2);
            if (col < y.cols) write_8(y, at, col, v);
        }
    }
}

/* ---- the image of w ---- */
static __global__ void make_image(Arg w, Arg out, int32_t inner, int32_t cols, int32_t turned)       /* 32 by 32 a block of 32 x 8 */
{
    MDR_SHARED(float, tile);                               /* [32][33]: (k, n), or (n, k) where w is turned                    */
    const int32_t k0 = (int32_t)blockIdx.x * 32, n0 = (int32_t)blockIdx.y * 32, ld = image_ld(inner);
    const int32_t r0 = turned ? n0 : k0, c0 = turned ? k0 : n0, rows = turned ? cols : inner, width = turned ? inner : cols;
    bf16 *to = (bf16 *)((float *)out.data + blockIdx.z * out.member);
    const int tx = (int)threadIdx.x, ty = (int)threadIdx.y;
    for (int i = ty; i < 32; i += 8) {
        const bool there = r0 + i < rows && c0 + tx < width;
        tile[i * 33 + tx] = there ? arg_get(w, blockIdx.z * w.member + (r0 + i) * w.ld + c0 + tx) : 0.0f;
    }
    __syncthreads();
    for (int i = ty; i < 32; i += 8)
        put(to + (int64_t)(n0 + i) * ld + k0 + tx, turned ? tile[i * 33 + tx] : tile[tx * 33 + i]);
}
static int64_t image_floats(const Node *n)
{
    return (int64_t)image_rows((int32_t)mdr_cols(n->out[0].shape)) * image_ld((int32_t)mdr_cols(n->in_type[0].shape)) / 2;
}
static int32_t is_turned(const Node *n) { return ((const MatmulAttr *)n->attr)->transposed != 0; }
static void prepare(const Call *c, int64_t, int64_t)
{
    const Arg w = c->in[1], out = c->out[0];
    const int32_t inner = (int32_t)mdr_cols(c->node->in_type[0].shape), cols = (int32_t)mdr_cols(c->node->out[0].shape);
    if (c->in[0].size != 2) return;                        /* only x of bf16 meets the image                                   */
    MDR_LAUNCH(make_image, mdr_grid(image_ld(inner) / 32, image_rows(cols) / 32, out.member ? c->extent.n_member : 1), dim3(32, 8),
               32 * 33 * sizeof(float), c->stream, w, out, inner, cols, is_turned(c->node));
}

/* ---- choosing ---- */
struct Product { Panel x, w, y, bias; Image image; Job job; int32_t turned, members, n_seq, inner, cols; int64_t tall; void *stream; };

static void run_float(Product p)
{
    const int64_t big = mdr_ceil_div(p.tall, 128) * mdr_ceil_div(p.cols, 128) * p.members * p.n_seq;
    const bool plain = p.x.wide && p.x.flat && p.w.wide && p.y.wide && p.y.flat;
    const int64_t tile = plain && big >= PROCESSORS ? 128 : 64;      /* few large tiles would leave processors idle                 */
    p.job.tiles_m = (int32_t)mdr_ceil_div(p.tall, tile);
    p.job.tiles_n = (int32_t)mdr_ceil_div(p.cols, tile);
    const dim3 grid = mdr_grid((int64_t)p.job.tiles_m * p.job.tiles_n, p.n_seq, p.members);
    if (tile == 128 && p.turned)
        MDR_LAUNCH((float_product<8, false, true>), grid, 256, float_shared<8>(), p.stream, p.x, p.w, p.bias, p.y, p.job, 0, 0);
    else if (tile == 128)
        MDR_LAUNCH((float_product<8, false, false>), grid, 256, float_shared<8>(), p.stream, p.x, p.w, p.bias, p.y, p.job, 0, 0);
    else if (p.turned)
        MDR_LAUNCH((float_product<4, false, true>), grid, 256, float_shared<4>(), p.stream, p.x, p.w, p.bias, p.y, p.job, 0, 0);
    else
        MDR_LAUNCH((float_product<4, false, false>), grid, 256, float_shared<4>(), p.stream, p.x, p.w, p.bias, p.y, p.job, 0, 0);
}
template <int KC> static void run_held(const Product &p)
{
    const int threads = mdr_ceil_div(p.tall, 192) * p.members >= 2 * PROCESSORS ? 192 : 128;
    const int64_t tiles = mdr_ceil_div(p.tall, threads), all = mdr_ceil_div(p.cols, 32);
    const int64_t want = 2 * PROCESSORS / (tiles * p.members), parts = want < 1 ? 1 : want < all ? want : all;
    const int32_t groups = (int32_t)mdr_ceil_div(all, parts);
    const size_t bytes = HELD_STAGES * KC * HELD_CHUNK;
    MDR_ALLOW_SHARED(held<KC>, bytes);
    MDR_LAUNCH((held<KC>), mdr_grid(tiles, mdr_ceil_div(all, groups), p.members), threads, bytes, p.stream, p.x, p.y, p.bias, p.image,
               p.job, groups);
}
template <int MT, int WN, bool FAST> static void run_streamed(Product p)
{
    const size_t bytes = (size_t)STREAM_STAGES * STREAM_STAGE<WN>;
    p.job.tiles_m = (int32_t)mdr_ceil_div(p.tall, STREAM_ROWS);
    p.job.tiles_n = (int32_t)mdr_ceil_div(p.cols, 64 * WN);
    MDR_ALLOW_SHARED((streamed<MT, WN, FAST>), bytes);
    const dim3 grid = mdr_grid((int64_t)p.job.tiles_m * p.job.tiles_n, p.n_seq, p.members);
    MDR_LAUNCH((streamed<MT, WN, FAST>), grid, 128, bytes, p.stream, p.x, p.w, p.y, p.bias, p.image, p.job, p.turned);
}

static void run(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const int32_t n_seq = c->extent.n_seq;
    const int64_t rows = mdr_rows(n->out[0].shape);
    const Shape w = n->in_type[1].shape;
    const Arg *in = c->in;
    const bool has_bias = n->n_in > 2 && in[2].data != NULL;
    const bool together = n_seq == 1 || (in[1].seq == 0 && (!has_bias || in[2].seq == 0));
    Product p;
    p.inner = (int32_t)mdr_cols(n->in_type[0].shape);
    p.cols = (int32_t)mdr_cols(n->out[0].shape);
    p.x = panel(in[0], rows, p.inner, n_seq, together);
    p.w = panel(in[1], w.d[0], w.d[1], n_seq, false);
    p.bias = panel(has_bias ? in[2] : Arg(), 1, p.cols, n_seq, false);
    p.y = panel(c->out[0], rows, p.cols, n_seq, together);
    p.job = Job{c->n_seq, (int32_t)rows, 0, together, 1, 1};
    p.turned = is_turned(n);
    p.members = c->extent.n_member;
    p.n_seq = together ? 1 : n_seq;
    p.tall = together ? n_seq * rows : rows;
    p.stream = c->stream;
    p.image = Image{NULL, 0, image_rows(p.cols), image_ld(p.inner)};
    if (c->prep.data && in[0].size == 2 && (uintptr_t)c->prep.data % 16 == 0 && c->prep.member % 4 == 0) {
        p.image.data = (const bf16 *)c->prep.data;
        p.image.member = 2 * c->prep.member;
    }
    const bool fast = p.image.data && plain_bf16(p.x);
    const bool direct = fast && p.y.wide && p.y.flat && (!has_bias || (p.bias.wide && in[2].size == 4));
    if (in[0].size != 2 && in[1].size != 2 && c->out[0].size != 2) run_float(p);
    else if (direct && p.inner == 32) run_held<1>(p);
    else if (direct && p.inner == 64) run_held<2>(p);
    else if (direct && p.inner == 128) run_held<4>(p);
    else if (fast && p.cols > 64) run_streamed<4, 2, true>(p);
    else if (fast) run_streamed<2, 1, true>(p);
    else run_streamed<2, 1, false>(p);
}

/* The second row serves a w of each sequence, of which no image can be made. */
extern "C" const CudaRow mdr_cuda_rows_matmul[] = {
    {"matmul", {run, NULL, NULL, {prepare, 1, image_floats, NULL}}, NULL, 0, 0}, {"matmul", {run, NULL, NULL, {}}, NULL, 0, 0}, {}};
