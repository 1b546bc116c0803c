/* matmul_swiglu and its gradient on CUDA (matmul_swiglu.c says what is computed). Whatever is as long as x crosses device memory once:
 * a block keeps the image of w (cuda_product.h), or of its part of it, in shared memory and stays; each of its warps takes tiles of 32
 * rows (gradient: 16), holds their K = 32, 64 or 128 columns in registers and walks through groups of 32 of the I columns. No warp waits
 * for another.
 *   forward   group j of gate and group j of up one after the other: a thread ends with the same 8 neighbours of both, so h is at hand
 *   gradient  dy, gate and up pass through a ring of a warp's own, 128 columns of gate and up at a time, copied and read by the same
 *             thread: what the next tile needs is under way while this one is worked on; results leave through the ring, too
 * The activation takes gate and up as they are stored (bf16), as the derivative does. FAST: all values plain bf16; else of any kind and
 * place, and nothing is under way. */
#include "op/cuda_whole_rows.h"

static constexpr int UNIT = 1024 /* 16 rows by 32 columns */, RING_STAGE = 8 * UNIT, RING = 2 * RING_STAGE;

/* The block's groups of columns: all, or a part where the image of all does not fit or rows are few. */
struct Part { int32_t half, groups; };
struct Groups { int32_t first, n; };
static __device__ __forceinline__ Groups groups_of(const Part &p)
{
    const int32_t first = (int32_t)blockIdx.y * p.groups, left = (p.half + 31) / 32 - first;
    return Groups{first, left < p.groups ? left : p.groups};
}
/* n groups of 32 of the image's rows from row0 on; zeros beyond its last. A group's KC units lie together, `step` bytes from the next's. */
template <int KC> static __device__ __forceinline__ void copy_groups(unsigned char *to, int32_t step, const Image &w, int32_t m, int32_t row0, int32_t n)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n * 32 * 4 * KC; i += (int32_t)blockDim.x) {
        const int32_t r = i / (4 * KC), k = i % (4 * KC);
        const bool there = row0 + r < w.rows;
        copy_16(to + r / 32 * step + k / 4 * HELD_CHUNK + r % 32 * 64 + k % 4 * 16, w.data + m * w.member + (there ? row0 + r : 0) * w.ld + 8 * k, there);
    }
}
template <int KC, int MT>
static __device__ __forceinline__ void product(float (*acc)[4][4], const Rows (*x)[MT], const unsigned char *w, const float bias[8])
{
    begin<MT>(acc, bias);
#pragma unroll
    for (int c = 0; c < KC; c++) {
        uint4 b[4];
#pragma unroll
        for (int j = 0; j < 4; j++) b[j] = *(const uint4 *)(w + c * HELD_CHUNK + 2 * j * 64);
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t b2[2] = {s ? b[j].z : b[j].x, s ? b[j].w : b[j].y};
#pragma unroll
                for (int i = 0; i < MT; i++) mma_16816(acc[i][j], x[c][i].step[s], b2);
            }
    }
}
/* A chunk of 16 MT rows as mma takes them. zero is 0, but the compiler does not know: it would leave x as it was loaded and move four words
 * before every product. */
template <int MT> static __device__ __forceinline__ void arrange(Rows *x, const uint4 *u, uint32_t zero)
{
#pragma unroll
    for (int i = 0; i < MT; i++) {
        const uint4 a = u[2 * i], b = u[2 * i + 1];
        x[i] = Rows{{{a.x ^ zero, b.x ^ zero, a.y ^ zero, b.y ^ zero}, {a.z ^ zero, b.z ^ zero, a.w ^ zero, b.w ^ zero}}};
    }
}
template <int KC, int MT, bool FAST>
static __device__ __forceinline__ void read_tile(Rows (*x)[MT], const Panel &p, int32_t m, int32_t row, int32_t left, uint32_t zero)
{
    const int t = (int)threadIdx.x % 4;
    uint4 u[KC][2 * MT];
#pragma unroll
    for (int i = 0; FAST && i < 2 * MT; i++) {             /* rows beyond the last: any number, they are not stored               */
        const uint4 *from = (const uint4 *)((const bf16 *)p.a.data + row_at(p, m, 0, 8 * i < left ? row + 8 * i : 0) + 8 * t);
#pragma unroll
        for (int c = 0; c < KC; c++) u[c][i] = from[4 * c];
    }
#pragma unroll
    for (int c = 0; c < KC; c++) {
        if (!FAST) read_rows<2 * MT>(u[c], p, m, row, 32 * c + 8 * t, left);
        arrange<MT>(x[c], u[c], zero);
    }
}
/* Columns from col on of row `row`, if bf16 and flat; 8 of them are stored there or, where not FAST, wherever they belong. */
static __device__ __forceinline__ bf16 *place(const Panel &p, int32_t m, int32_t row, int32_t col) { return (bf16 *)p.a.data + row_at(p, m, 0, row) + col; }
template <bool FAST> static __device__ __forceinline__ void put_row(const Panel &p, bf16 *to, int32_t m, int32_t row, int32_t col, const float v[8])
{
    if (FAST) *(uint4 *)to = pack_8(v);
    else write_8(p, row_at(p, m, 0, row), col, v);
}

/* ---- forward ---- */
struct Forth { Panel x, gate_up, h; Image image; Arg bias; const int32_t *n_seq; int32_t rows; uint32_t zero; Part part; };
template <int KC> constexpr int FORTH_GROUP = 2 * KC * HELD_CHUNK + 2 * 32 * (int)sizeof(float);        /* the image and the bias */

/* A thread's 8 columns of its row number i, rounded and, where wanted, stored. */
template <bool FAST>
static __device__ __forceinline__ uint4 round_row(const float (*acc)[4][4], int i, const Panel &p, bf16 *to, int32_t m, int32_t row, int32_t col, bool there)
{
    float v[8];
    gather_8(v, acc[i / 2], i % 2);
    const uint4 u = pack_8(v);
    if (!p.a.data || !there) return u;
    if (FAST) *(uint4 *)(to + 8 * i * p.a.ld) = u;
    else write_8(p, row_at(p, m, 0, row + 8 * i), col, v);
    return u;
}

template <int KC, bool FAST> static __global__ __launch_bounds__(32 * WHOLE_WARPS, 1) void matmul_swiglu(Forth p)
{
    mdr_begin();
    MDR_SHARED(unsigned char, image);                      /* of each group gate and up; then the bias alike                      */
    if (FAST) p.x.flat = p.gate_up.flat = p.h.flat = true; /* known: spares the compiler branches                                 */
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, rows = p.n_seq[m] * p.rows, half = p.part.half, warps = (int32_t)blockDim.x / 32;
    const Groups part = groups_of(p.part);
    float *bias = (float *)(image + part.n * 2 * KC * HELD_CHUNK);
    if ((int32_t)blockIdx.x * warps * 32 >= rows) return;
    copy_groups<KC>(image, 2 * KC * HELD_CHUNK, p.image, m, 32 * part.first, part.n);
    copy_groups<KC>(image + KC * HELD_CHUNK, 2 * KC * HELD_CHUNK, p.image, m, half + 32 * part.first, part.n);
    copy_commit();
    for (int i = (int)threadIdx.x; i < 64 * part.n; i += (int)blockDim.x) {
        const int32_t col = 32 * part.first + i / 64 * 32 + i % 32;
        bias[i] = p.bias.data && col < half ? arg_get(p.bias, m * p.bias.member + col + (i & 32 ? half : 0)) : 0.0f;
    }
    copy_wait<0>();
    __syncthreads();
    for (int32_t tile = ((int32_t)blockIdx.x * warps + (int32_t)threadIdx.x / 32) * 32; tile < rows; tile += (int32_t)gridDim.x * warps * 32) {
        const int32_t row = tile + g;
        const unsigned char *w = image + dealt(g, 0) * 64 + t * 16;
        Rows x[KC][2];
        read_tile<KC, 2, FAST>(x, p.x, m, row, rows - row, p.zero);
#pragma unroll 1
        for (int32_t q = 0; q < part.n; q++, w += 2 * KC * HELD_CHUNK) {
            const int32_t col = 32 * (part.first + q) + 8 * t, left = col < half ? rows - row : 0;
            float acc[2][4][4], b[8];
            uint4 gate[4];
            bf16 *to = place(p.gate_up, m, row, col), *to_h = place(p.h, m, row, col);
            read_wide_8(bias + 64 * q + 8 * t, b);
            product<KC, 2>(acc, x, w, b);
#pragma unroll
            for (int i = 0; i < 4; i++) gate[i] = round_row<FAST>(acc, i, p.gate_up, to, m, row, col, 8 * i < left);
            read_wide_8(bias + 64 * q + 32 + 8 * t, b);
            product<KC, 2>(acc, x, w + KC * HELD_CHUNK, b);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float v[8], y[8];
                open_8(gate[i], v);
                open_8(round_row<FAST>(acc, i, p.gate_up, to + half, m, row, half + col, 8 * i < left), y);
#pragma unroll
                for (int j = 0; j < 8; j++) y[j] *= v[j] * fast_sigmoid(v[j]);
                if (p.h.a.data && 8 * i < left) put_row<FAST>(p.h, to_h + 8 * i * p.h.a.ld, m, row + 8 * i, col, y);
            }
        }
    }
}

/* ---- gradient: tiles of 16 rows ---- */
struct Back { Panel dy, gate_up, dx; Image image; const int32_t *n_seq; int32_t rows; uint32_t zero; Part part; };
/* What a warp copies next, to which half of its ring: stage 0 of a tile is dy, stage s the AT_ONCE groups from AT_ONCE (s - 1) on of gate,
 * then those of up. What becomes of them takes their places and is stored from there, 256 bytes of a row at a time: device memory takes
 * these a sixth faster than 64. */
struct Ahead { unsigned char *slot; int32_t tile, stage, turn; };
static constexpr int AT_ONCE = 4, HALF_STAGE = AT_ONCE * UNIT;

template <int KC> static __device__ __forceinline__ void feed(Ahead *f, const Back &p, int32_t m, int32_t rows, int32_t stride, const Groups &part)
{
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    unsigned char *to = f->slot + f->turn * RING_STAGE;
    if (f->tile < rows) {
        const int32_t row = f->tile + g, left = rows - row;
        if (f->stage == 0) {
            const bf16 *dy = (const bf16 *)p.dy.a.data + row_at(p.dy, m, 0, row) + 8 * t;
#pragma unroll
            for (int c = 0; c < KC; c++) copy_rows<2>(to + c * UNIT, dy + 32 * c, p.dy.a.ld, left);
        } else {
            const bf16 *x = (const bf16 *)p.gate_up.a.data + row_at(p.gate_up, m, 0, row);
#pragma unroll
            for (int e = 0; e < 2 * AT_ONCE; e++) {
                const int32_t q = AT_ONCE * (f->stage - 1) + e % AT_ONCE, col = 32 * (part.first + q) + 8 * t;
                copy_rows<2>(to + e * UNIT, x + (e < AT_ONCE ? 0 : p.part.half) + col, p.gate_up.a.ld, q < part.n && col < p.part.half ? left : 0);
            }
        }
        if (AT_ONCE * f->stage++ >= part.n) {
            f->stage = 0;
            f->tile += stride;
        }
    }
    copy_commit();
    f->turn ^= 1;
}

/* From dh of a group to dgate and dup of 2 rows. piece: where gate's lie and dgate's are left, up's and dup's HALF_STAGE beyond. */
template <bool FAST>
static __device__ __forceinline__ void finish(const float (*acc)[4], unsigned char *piece, const Back &p, int32_t m, int32_t row, int32_t col,
                                              int32_t left)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float d[8], v[8], y[8];
        uint4 gate = {}, up = {};
        if (FAST) {
            gate = *(const uint4 *)(piece + 512 * i);
            up = *(const uint4 *)(piece + HALF_STAGE + 512 * i);
        }
        open_row<FAST>(gate, p.gate_up, m, row + 8 * i, col, 8 * i < left, v);
        open_row<FAST>(up, p.gate_up, m, row + 8 * i, p.part.half + col, 8 * i < left, y);
        gather_8(d, acc, i);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float s = fast_sigmoid(v[j]), silu = v[j] * s, du = d[j] * y[j];
            y[j] = du * (s + silu * (1.0f - s));
            d[j] *= silu;
        }
        if (FAST) {
            *(uint4 *)(piece + 512 * i) = pack_8(y);
            *(uint4 *)(piece + HALF_STAGE + 512 * i) = pack_8(d);
        } else if (8 * i < left) {
            write_8(p.dx, row_at(p.dx, m, 0, row + 8 * i), col, y);
            write_8(p.dx, row_at(p.dx, m, 0, row + 8 * i), p.part.half + col, d);
        }
    }
}
/* What a warp has left in a stage, n groups from group q of the block's on, to the tile's rows: two of them at a time. */
static __device__ __forceinline__ void store_stage(const unsigned char *stage, const Back &p, int32_t m, int32_t tile, int32_t rows, int32_t q, int32_t n)
{
    const int lane = (int)threadIdx.x % 32, e = lane / 8;
    const int32_t row = tile + lane / 4 % 2, col = 32 * q + 32 * e + 8 * (lane % 4), left = e < n && col < p.part.half ? rows - row : 0;
    const unsigned char *from = stage + e * UNIT + lane % 8 * 16;
    bf16 *to = (bf16 *)p.dx.a.data + row_at(p.dx, m, 0, row) + col;
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (2 * i < left) *(uint4 *)(to + half * p.part.half + 2 * i * p.dx.a.ld) = *(const uint4 *)(from + half * HALF_STAGE + 128 * i);
    __syncwarp();
}

template <int KC, bool FAST> static __global__ __launch_bounds__(32 * WHOLE_WARPS, 1) void matmul_swiglu_grad(Back p)
{
    mdr_begin();
    MDR_SHARED(unsigned char, image);                      /* then the rings                                                      */
    if (FAST) p.dy.flat = p.gate_up.flat = p.dx.flat = true;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, rows = p.n_seq[m] * p.rows, warps = (int32_t)blockDim.x / 32;
    const int32_t stride = (int32_t)gridDim.x * warps * 16, tile0 = ((int32_t)blockIdx.x * warps + warp) * 16;
    const Groups part = groups_of(p.part);
    const float none[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    Ahead ahead = {image + part.n * KC * HELD_CHUNK + warp * RING + lane * 16, tile0, 0, 0};
    if ((int32_t)blockIdx.x * warps * 16 >= rows) return;
    copy_groups<KC>(image, KC * HELD_CHUNK, p.image, m, 32 * part.first, part.n);
    copy_commit();
    for (int i = 0; i < 2; i++)
        if (FAST) feed<KC>(&ahead, p, m, rows, stride, part);
    copy_wait<2>();
    if (!FAST) copy_wait<0>();
    __syncthreads();
    for (int32_t tile = tile0; tile < rows; tile += stride) {
        const int32_t row = tile + g;
        const unsigned char *w = image + dealt(g, 0) * 64 + t * 16;
        Rows dy[KC][1];
        if (FAST) {
#pragma unroll
            for (int c = 0; c < KC; c++) {
                uint4 u[2];
                take_rows<2, 2>(u, ahead.slot + ahead.turn * RING_STAGE + c * UNIT);
                arrange<1>(dy[c], u, p.zero);
            }
            feed<KC>(&ahead, p, m, rows, stride, part);
        } else {
            read_tile<KC, 1, false>(dy, p.dy, m, row, rows - row, p.zero);
        }
#pragma unroll 1
        for (int32_t q = 0; q < part.n; q += AT_ONCE) {
            const int32_t n = part.n - q < AT_ONCE ? part.n - q : AT_ONCE;
            unsigned char *stage = ahead.slot + ahead.turn * RING_STAGE;
            if (FAST) copy_wait<1>();
#pragma unroll 1
            for (int32_t e = 0; e < n; e++, w += KC * HELD_CHUNK) {
                const int32_t col = 32 * (part.first + q + e) + 8 * t;
                float acc[1][4][4];
                product<KC, 1>(acc, dy, w, none);
                finish<FAST>(acc[0], stage + e * UNIT, p, m, row, col, col < p.part.half ? rows - row : 0);
            }
            if (!FAST) continue;
            store_stage(stage - lane * 16, p, m, tile, rows, part.first + q, n);
            feed<KC>(&ahead, p, m, rows, stride, part);
        }
    }
}

/* ---- choosing ---- */
static int32_t half_of(const Node *n) { return (int32_t)mdr_cols(n->out[0].shape) / 2; }
static bool fits(const Node *n)
{
    const int64_t k = inner_of(n);
    return (k == 32 || k == 64 || k == 128) && half_of(n) % 8 == 0 && !of_a_step(n, 0) && of_a_step(n, 1);
}
static bool applies(const Node *n) { return fits(n) && of_a_step(n, 2); }
static int64_t image_size(const Node *n) { return image_floats(inner_of(n), 2 * half_of(n)); }
static int64_t image_size_grad(const Node *n) { return image_floats(inner_of(n), half_of(n)); }
static void prepare(const Call *c, int64_t, int64_t) { enqueue_image(c, 1, 2, inner_of(c->node), 2 * half_of(c->node), false); }
static void prepare_grad(const Call *c, int64_t, int64_t) { enqueue_image(c, 1, 2, inner_of(c->node), half_of(c->node), true); }

/* How a member's tiles of `height` rows and its groups are dealt: few rounds of blocks, no processor idle. A block's time: its groups of the
 * image, then of each tile the groups and x, the longer the more warps share a processor. */
struct Deal { int32_t groups, parts, warps, blocks; };
static Deal deal(const Call *c, int64_t rows, int64_t height, int64_t half, int64_t most)
{
    const int64_t tiles = mdr_ceil_div(c->extent.n_seq * rows, height), members = c->extent.n_member, groups = mdr_ceil_div(half, 32);
    Deal best = {1, (int32_t)groups, 4, 1};
    int64_t least = INT64_MAX;
    for (int64_t warps = 4; warps <= WHOLE_WARPS; warps += 4)
        for (int64_t parts = mdr_ceil_div(groups, most); parts <= groups; parts++) {
            const int64_t n = mdr_ceil_div(groups, parts), room = 8 * PROCESSORS / (members * parts) + 1, all = mdr_ceil_div(tiles, warps);
            for (int64_t blocks = 1; blocks <= all && blocks <= room; blocks++) {
                const int64_t rounds = mdr_ceil_div(blocks * parts * members, PROCESSORS);
                const int64_t time = rounds * (2 * n + 4 + mdr_ceil_div(tiles, blocks * warps) * (n + 1) * (warps + 4) * height / 32);
                if (time < least) { least = time; best = Deal{(int32_t)n, (int32_t)mdr_ceil_div(groups, n), (int32_t)warps, (int32_t)blocks}; }
            }
        }
    return best;
}
template <int KC, bool FAST> static void launch(const Call *c, Forth p)
{
    const Deal d = deal(c, p.rows, 32, p.part.half, WHOLE_SHARED / FORTH_GROUP<KC>);
    const size_t bytes = (size_t)d.groups * FORTH_GROUP<KC>;
    p.part.groups = d.groups;
    MDR_ALLOW_SHARED((matmul_swiglu<KC, FAST>), bytes);
    MDR_LAUNCH((matmul_swiglu<KC, FAST>), mdr_grid(d.blocks, d.parts, c->extent.n_member), 32 * d.warps, bytes, c->stream, p);
}
static void run(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const int32_t rows = (int32_t)mdr_rows(n->out[0].shape), inner = (int32_t)inner_of(n), half = half_of(n), n_seq = c->extent.n_seq;
    const Forth p = {panel(c->in[0], rows, inner, n_seq, true), panel(c->out[0], rows, 2 * half, n_seq, true), panel(c->out[1], rows, half, n_seq, true),
                     image_of(c, 2, inner, 2 * half), c->in[2], c->n_seq, rows, 0, {half, 0}};
    const bool fast = plain_bf16(p.x) && plain_or_absent(p.gate_up) && plain_or_absent(p.h);
    if (inner == 32) (fast ? launch<1, true> : launch<1, false>)(c, p);
    else if (inner == 64) (fast ? launch<2, true> : launch<2, false>)(c, p);
    else (fast ? launch<4, true> : launch<4, false>)(c, p);
}

template <int KC, bool FAST> static void launch_grad(const Call *c, Back p)
{
    const Deal d = deal(c, p.rows, 16, p.part.half, (WHOLE_SHARED - (int)WHOLE_WARPS * RING) / (KC * (int)HELD_CHUNK));
    const size_t bytes = (size_t)d.groups * KC * HELD_CHUNK + (size_t)d.warps * RING;
    p.part.groups = d.groups;
    MDR_ALLOW_SHARED((matmul_swiglu_grad<KC, FAST>), bytes);
    MDR_LAUNCH((matmul_swiglu_grad<KC, FAST>), mdr_grid(d.blocks, d.parts, c->extent.n_member), 32 * d.warps, bytes, c->stream, p);
}
static void run_grad(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const int32_t rows = (int32_t)mdr_rows(n->out[0].shape), inner = (int32_t)inner_of(n), half = half_of(n), n_seq = c->extent.n_seq;
    const Back p = {panel(c->in[0], rows, inner, n_seq, true), panel(c->in[2], rows, 2 * half, n_seq, true), panel(c->out[0], rows, 2 * half, n_seq, true),
                    image_of(c, 2, inner, half), c->n_seq, rows, 0, {half, 0}};
    const bool fast = plain_bf16(p.dy) && plain_bf16(p.gate_up) && plain_bf16(p.dx);
    if (inner == 32) (fast ? launch_grad<1, true> : launch_grad<1, false>)(c, p);
    else if (inner == 64) (fast ? launch_grad<2, true> : launch_grad<2, false>)(c, p);
    else (fast ? launch_grad<4, true> : launch_grad<4, false>)(c, p);
}

extern "C" const CudaRow mdr_cuda_rows_matmul_swiglu[] = {{"matmul_swiglu", {run, NULL, NULL, {prepare, 1, image_size, NULL}}, applies, 0, 0},
                                                          {"matmul_swiglu_grad", {run_grad, NULL, NULL, {prepare_grad, 1, image_size_grad, NULL}}, fits, 0, 0},
                                                          {}};
