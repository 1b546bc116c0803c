/* matmul_norm on CUDA (matmul_norm.c says what is computed): the product is summed onto the residual, whole rows of it in the registers of
 * a warp (cuda_whole_rows.h), so that the row's statistics are a few shuffles away and s and n are stored as they come.
 * Every value crosses device memory once. A tile's stages: the residual's groups of columns, which the sums start from, then x.
 * Statistics and n are of s as it is stored. STAGES 0: for values of any kind and place, nothing under way. */
#include "op/cuda_whole_rows.h"

struct Matrices { Panel x, residual, s, y, rstd; };
struct Rest { Arg bias, gain; const int32_t *n_seq; int32_t rows, warps; float eps; };

/* Copies the next stage. */
template <int NG, int STAGES> static __device__ __forceinline__ void copy_stage(Stream *f, const Matrices &p, const Share &share)
{
    if (f->tile.row < f->tile.to) {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
        const bool first = f->stage < NG;
        const int32_t row = f->tile.row + g, col = 32 * (first ? f->stage : f->stage - NG) + 8 * t;
        const bf16 *data = (const bf16 *)(first ? p.residual.a.data : p.x.a.data);
        const int64_t member = first ? p.residual.a.member : p.x.a.member, ld = first ? p.residual.a.ld : p.x.a.ld;
        copy_rows(f->slot, data + share.m * member + row * ld + col, ld, first || col < p.x.cols ? f->tile.to - row : 0);
        if (32 * (++f->stage - NG) >= p.x.cols) {
            f->stage = 0;
            next_tile(share, &f->tile);
        }
    }
    next_slot<STAGES>(f);
}
/* The same, into the slot just read. */
template <int NG, int STAGES> static __device__ __forceinline__ void feed(Stream *f, const Matrices &p, const Share &share)
{
    if (STAGES == 0) return;
    copy_stage<NG, STAGES>(f, p, share);
    copy_commit();
}

/* From the product to s, n and rstd. */
template <int NG, bool FAST>
static __device__ __forceinline__ void finish(float (*acc)[2][4][4], const Matrices &p, const float *gain, int32_t m, int32_t row, int32_t left, float eps)
{
    const int t = (int)threadIdx.x % 4;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, v[8], w[8];
    const bool rounded = FAST || p.s.a.size == 2;
#pragma unroll
    for (int q = 0; q < NG; q++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            gather_8(v, acc[q][i / 2], i % 2);
            if (p.s.a.data && 8 * i < left) store_row<FAST>(p.s, m, row + 8 * i, 32 * q + 8 * t, v);
            if (rounded) {
                open_8(pack_8(v), v);
                scatter_8(v, acc[q][i / 2], i % 2);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) sum[i] += v[j] * v[j];
        }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[i] = 1.0f / sqrtf(quad_sum(sum[i]) * (1.0f / (float)(32 * NG)) + eps);
        if (p.rstd.a.data && t == 0 && 8 * i < left) ((float *)p.rstd.a.data)[row_at(p.rstd, m, 0, row + 8 * i)] = sum[i];
    }
    if (!p.y.a.data) return;
#pragma unroll
    for (int q = 0; q < NG; q++) {
        read_wide_8(gain + 32 * q + 8 * t, w);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            gather_8(v, acc[q][i / 2], i % 2);
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] = v[j] * sum[i] * w[j];
            if (8 * i < left) store_row<FAST>(p.y, m, row + 8 * i, 32 * q + 8 * t, v);
        }
    }
}

/* The sums before the product: the residual and the bias. */
template <int NG, int STAGES>
static __device__ __forceinline__ void start(float (*acc)[2][4][4], Stream *f, const Matrices &p, const float *bias, const Share &share, int32_t row,
                                             int32_t left)
{
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int q = 0; q < NG; q++) {
        uint4 u[4];
        float v[8], b[8];
        if (STAGES > 0) take_rows<STAGES>(u, f->slot);
        read_wide_8(bias + 32 * q + 8 * t, b);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            open_row<(STAGES > 0)>(u[i], p.residual, share.m, row + 8 * i, 32 * q + 8 * t, 8 * i < left, v);
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] += b[j];
            scatter_8(v, acc[q][i / 2], i % 2);
        }
        feed<NG, STAGES>(f, p, share);
    }
}

template <int NG, int STAGES>
static __global__ __launch_bounds__(32 * WHOLE_WARPS, 1) void matmul_norm(Matrices p, Image image, Rest rest)
{
    mdr_begin();
    MDR_SHARED(unsigned char, shared);                     /* the image, bias, gain, the rings                                    */
    constexpr bool FAST = STAGES > 0;
    if (FAST) p.x.flat = p.residual.flat = p.s.flat = p.y.flat = p.rstd.flat = true;     /* known: spares the compiler branches   */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, first = (int32_t)blockIdx.x * rest.warps;
    Arrival image_at = arrival<STAGES>(p.x.cols);
    const Share share = {m, rest.n_seq[m] * rest.rows, 32, (int32_t)gridDim.x * rest.warps};
    float *bias = (float *)(shared + image_at.chunks * WHOLE_CHUNK<NG>), *gain = bias + 32 * NG;
    unsigned char *ring = (unsigned char *)(gain + 32 * NG) + warp * STAGES * WHOLE_STAGE + lane * 16;
    if (first_tile(share, first).row >= share.rows) return;
    Tile tile = first_tile(share, first + warp);
    Stream stream = {ring, ring, tile, 0};
#pragma unroll 1
    for (int i = 0; i < STAGES; i++) copy_stage<NG, STAGES>(&stream, p, share);
    ask_image<NG, STAGES>(shared, image, m, image_at);
    for (int i = (int)threadIdx.x; i < 32 * NG; i += (int)blockDim.x) {
        bias[i] = rest.bias.data ? arg_get(rest.bias, m * rest.bias.member + i) : 0.0f;
        gain[i] = arg_get(rest.gain, m * rest.gain.member + i);
    }
    begin_whole<STAGES>(&image_at);
    if (tile.row >= tile.to) see_all(&image_at, NG);
    for (; tile.row < tile.to; next_tile(share, &tile)) {
        const int32_t row = tile.row + g, left = tile.to - row;
        float acc[NG][2][4][4];
        start<NG, STAGES>(acc, &stream, p, bias, share, row, left);
        const unsigned char *w = shared + dealt(g, 0) * 64 + t * 16;
#pragma unroll 1
        for (int32_t c = 0; c < image_at.chunks; c++, w += WHOLE_CHUNK<NG>) {
            uint4 u[4];
            if (FAST) take_rows<STAGES>(u, stream.slot);
            else read_rows(u, p.x, m, row, 32 * c + 8 * t, left);
            see(&image_at, c, NG + c);
            multiply_group(acc[0], u, w);
            feed<NG, STAGES>(&stream, p, share);
#pragma unroll
            for (int q = 1; q < NG; q++) multiply_group(acc[q], u, w + 2048 * q);
        }
        finish<NG, FAST>(acc, p, gain, m, row, left, rest.eps);
    }
}

/* ---- choosing ---- */
enum { VECTORS = 2 };
static bool applies(const Node *n)
{
    return whole_stages(inner_of(n), cols_of(n), VECTORS, WHOLE_WARPS) > 0 && !of_a_step(n, 0) && of_a_step(n, 1) && of_a_step(n, 2) && of_a_step(n, 4);
}
static int64_t image_size(const Node *n) { return image_floats(inner_of(n), cols_of(n)); }
static void prepare(const Call *c, int64_t, int64_t) { enqueue_image(c, 1, 2, inner_of(c->node), cols_of(c->node), false); }

template <int NG, int STAGES> static void launch(const Call *c, const Matrices &p, const Rest &rest, const WholeGrid &grid)
{
    const int64_t inner = inner_of(c->node), cols = cols_of(c->node), bytes = whole_bytes(inner, cols, VECTORS, grid.warps, STAGES);
    MDR_ALLOW_SHARED((matmul_norm<NG, STAGES>), bytes);
    MDR_LAUNCH((matmul_norm<NG, STAGES>), mdr_grid(grid.blocks, 1, c->extent.n_member), 32 * grid.warps, (size_t)bytes, c->stream, p,
               image_of(c, 2, inner, cols), rest);
}
static void run(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const int64_t rows = mdr_rows(n->out[0].shape), cols = cols_of(n);
    const int32_t n_seq = c->extent.n_seq;
    const Arg *in = c->in;
    Arg column = c->out[2];
    column.ld = 1;
    const Matrices p = {panel(in[0], rows, inner_of(n), n_seq, true), panel(in[3], rows, cols, n_seq, true), panel(c->out[0], rows, cols, n_seq, true),
                        panel(c->out[1], rows, cols, n_seq, true), panel(column, rows, 1, n_seq, true)};
    const WholeGrid grid = whole_grid(mdr_ceil_div(n_seq * rows, 32), c->extent.n_member);
    const Rest rest = {in[2], in[4], c->n_seq, (int32_t)rows, grid.warps, (float)((const NormAttr *)n->attr)->eps};
    const bool fast = plain_bf16(p.x) && plain_bf16(p.residual) && plain_or_absent(p.s) && plain_or_absent(p.y) && (!column.data || p.rstd.flat);
    const int stages = fast ? whole_stages(inner_of(n), cols, VECTORS, grid.warps) : 0;
    WHOLE_LAUNCH(launch, cols, stages)(c, p, rest, grid);
}

extern "C" const CudaRow mdr_cuda_rows_matmul_norm[] = {{"matmul_norm", {run, NULL, NULL, {prepare, 1, image_size, NULL}}, applies, 0, 1u << 2}, {}};
