/* matmul on CUDA: y = x w (+ bias). In float: cuda_tile.h. Where an operand or the result is bf16: products on tensor cores
 * (cuda_product.h says how), two kernels:
 *   held      K = 32, 64, 128: each warp keeps its 32 rows of x in registers and walks through the columns of y; x and y cross device
 *             memory once, w streams from the L2 cache through shared memory.
 *   streamed  any K: tiles of 128 rows by 64 or 128 columns, x and w stream through shared memory.
 * Which of the two depends on the node and on how its values lie, never on the number of members. */
#include "op/cuda_product.h"

/* ---- held: KC pieces of 32 of k in registers; blocks of 4 warps of 32 rows; `groups` groups of 32 columns a block (y) ---- */
static constexpr int HELD_ROWS = 128, HELD_BLOCKS = 4;     /* blocks: of a processor                                              */
/* x [.., 32 KC], y and bias are wide, x and y flat, y is of T, bias float; the image's numbers are counted in 32 bits, which with all sums
 * of 8 columns one after the other lets 4 blocks into the registers. */
template <int KC, typename T>
static __global__ __launch_bounds__(HELD_ROWS, HELD_BLOCKS) void held(Panel x, Panel y, Panel bias, Image w, Job job, int32_t groups)
{
    mdr_begin();
    MDR_SHARED(unsigned char, ring);
    x.flat = y.flat = true;                                /* known: what the compiler sees, it need not branch on                */
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, row0 = (int32_t)blockIdx.x * HELD_ROWS + (int)threadIdx.x / 32 * 32 + g;
    const int32_t n0 = (int32_t)blockIdx.y * groups * 32, n1 = n0 + groups * 32 < y.cols ? n0 + groups * 32 : y.cols;
    const int32_t left = job.n_seq[m] * job.rows - row0;   /* rows from this thread's first one on                                */
    if (left + row0 <= (int32_t)blockIdx.x * HELD_ROWS) return;
    const bf16 *image = w.data + m * w.member;
    int32_t piece = (n0 + (int)threadIdx.x / (4 * KC)) * w.ld + (int)threadIdx.x % (4 * KC) * 8;
#pragma unroll 1
    for (int q = 0; q < HELD_STAGES - 1; q++, piece += 32 * w.ld) {
        if (n0 + 32 * q < n1) held_copy<KC>(ring + q * KC * HELD_CHUNK, image + piece, w.ld);
        copy_commit();
    }
    Rows a[KC][2];
    const uint4 *from[4];
#pragma unroll
    for (int i = 0; i < 4; i++)                            /* rows beyond the last: any number, they are not stored                */
        from[i] = (const uint4 *)((const bf16 *)x.a.data + row_at(x, m, 0, 8 * i < left ? row0 + 8 * i : 0) + 8 * t);
#pragma unroll
    for (int c = 0; c < KC; c++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 u = from[2 * i][4 * c], v = from[2 * i + 1][4 * c];
            a[c][i] = Rows{{{u.x, v.x, u.y, v.y}, {u.z, v.z, u.w, v.w}}};
        }
    int stage = 0;
    T *to = (T *)y.a.data + row_at(y, m, 0, row0) + n0 + 8 * t;
#pragma unroll 1
    for (int32_t n = n0; n < n1; n += 32, to += 32) {
        float acc[2][4][4], b[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        copy_wait<HELD_STAGES - 2>();
        __syncthreads();
        const int next = stage == 0 ? HELD_STAGES - 1 : stage - 1;
        if (n + 32 * (HELD_STAGES - 1) < n1) held_copy<KC>(ring + next * KC * HELD_CHUNK, image + piece, w.ld);
        piece += 32 * w.ld;
        copy_commit();
        if (bias.a.data && n + 8 * t < n1) read_wide_8((const float *)bias.a.data + m * bias.a.member + n + 8 * t, b);
        begin<2>(acc, b);
        const unsigned char *mine = ring + stage * KC * HELD_CHUNK + dealt(g, 0) * 64 + t * 16;
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int c = 0; c < KC; c++) {
                const uint4 u = *(const uint4 *)(mine + c * HELD_CHUNK + 2 * j * 64);
                const uint32_t b4[4] = {u.x, u.y, u.z, u.w};
                multiply<2>(acc, j, a[c], b4);
            }
        stage = stage == HELD_STAGES - 1 ? 0 : stage + 1;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * i < left && n + 8 * t < n1) store_piece(to + 8 * i * y.a.ld, acc[i / 2], i % 2);
    }
}

/* ---- streamed: blocks of 4 warps, WN of them side by side, each MT * 16 rows by 64 columns; 64 of k at a time ---- */
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
    mdr_begin();
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

/* ---- choosing ---- */
static int32_t is_turned(const Node *n) { return ((const MatmulAttr *)n->attr)->transposed != 0; }
static int64_t image_size(const Node *n) { return image_floats(mdr_cols(n->in_type[0].shape), mdr_cols(n->out[0].shape)); }
static void prepare(const Call *c, int64_t, int64_t)
{
    enqueue_image(c, 1, c->in[0].size, mdr_cols(c->node->in_type[0].shape), mdr_cols(c->node->out[0].shape), is_turned(c->node) != 0);
}
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
template <int KC, typename T> static void run_held(const Product &p)
{
    const int64_t tiles = mdr_ceil_div(p.tall, HELD_ROWS), all = mdr_ceil_div(p.cols, 32);
    const int64_t want = HELD_BLOCKS * PROCESSORS / (tiles * p.members), parts = want < 1 ? 1 : want < all ? want : all;
    const int32_t groups = (int32_t)mdr_ceil_div(all, parts);
    const size_t bytes = HELD_STAGES * KC * HELD_CHUNK;
    MDR_ALLOW_SHARED((held<KC, T>), bytes);
    MDR_LAUNCH((held<KC, T>), mdr_grid(tiles, mdr_ceil_div(all, groups), p.members), HELD_ROWS, bytes, p.stream, p.x, p.y, p.bias, p.image,
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
    p.image = image_of(c, in[0].size, p.inner, p.cols);
    const bool fast = p.image.data && plain_bf16(p.x);
    const bool direct = fast && p.y.wide && p.y.flat && (!has_bias || (p.bias.wide && in[2].size == 4)) && (int64_t)p.cols * p.inner < 1 << 30;
    if (in[0].size != 2 && in[1].size != 2 && c->out[0].size != 2) run_float(p);
    else if (direct && p.inner == 32) (p.y.a.size == 2 ? run_held<1, bf16> : run_held<1, float>)(p);
    else if (direct && p.inner == 64) (p.y.a.size == 2 ? run_held<2, bf16> : run_held<2, float>)(p);
    else if (direct && p.inner == 128) (p.y.a.size == 2 ? run_held<4, bf16> : run_held<4, float>)(p);
    else if (fast && p.cols > 64) run_streamed<4, 2, true>(p);
    else if (fast) run_streamed<2, 1, true>(p);
    else run_streamed<2, 1, false>(p);
}

/* The second row serves a w of each sequence, of which no image can be made. */
extern "C" const CudaRow mdr_cuda_rows_matmul[] = {
    {"matmul", {run, NULL, NULL, {prepare, 1, image_size, NULL}}, NULL, 0, 0}, {"matmul", {run, NULL, NULL, {}}, NULL, 0, 0}, {}};
