/* matmul_norm_grad on CUDA (matmul_norm_grad.c says what is computed): whole rows of e = dy w^T stay in the registers of a warp
 * (cuda_whole_rows.h) and never see memory. A tile's stages: dy; x for the sums over a row and over rows; then x again (from
 * the L2 cache) and dres, group by group, for dx. A warp takes chunks of rows; its sums over them, of 8 rows by shuffles that halve what
 * each lane is left with, go to scratch memory (cuda_chunks.h). STAGES 0: for values of any kind and place, nothing under way. */
#include "op/cuda_chunks.h"
#include "op/cuda_whole_rows.h"

enum { LEAST_ROWS = 32, MOST_CHUNKS = 512, VECTORS = 1 };
struct Matrices { Panel dy, x, rstd, dres, dx; };
struct Rest { Arg gain; const int32_t *n_seq; int32_t rows, per, count, warps; float *part; };

/* Copies the next stage. */
template <int NG, int STAGES> static __device__ __forceinline__ void copy_stage(Stream *f, const Matrices &p, const Share &share)
{
    if (f->tile.row < f->tile.to) {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4, both = p.dres.a.data ? 1 : 0;
        const int32_t s = f->stage - (p.dy.cols + 31) / 32, k = s - NG;
        const bool product = s < 0, residual = both && k >= 0 && k % 2 == 1;
        const int32_t row = f->tile.row + g, col = 32 * (product ? f->stage : k < 0 ? s : k >> both) + 8 * t;
        const bf16 *data = (const bf16 *)(product ? p.dy.a.data : residual ? p.dres.a.data : p.x.a.data);
        const int64_t member = product ? p.dy.a.member : residual ? p.dres.a.member : p.x.a.member;
        const int64_t ld = product ? p.dy.a.ld : residual ? p.dres.a.ld : p.x.a.ld;
        copy_rows(f->slot, data + share.m * member + row * ld + col, ld, !product || col < p.dy.cols ? f->tile.to - row : 0);
        f->stage++;
        if (k + 1 == NG << both) {
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

/* Of 8 sums of each of the 8 lanes that share t the totals: lane g is left with that of its column, 4 (g/4) + 2 (g/2 % 2) + g % 2. */
static __device__ __forceinline__ float column_sum(const float c[8])
{
    const int g = (int)threadIdx.x % 32 / 4;
    float four[4], two[2];
#pragma unroll
    for (int j = 0; j < 4; j++) four[j] = (g & 4 ? c[j + 4] : c[j]) + __shfl_xor_sync(0xffffffffu, g & 4 ? c[j] : c[j + 4], 16);
#pragma unroll
    for (int j = 0; j < 2; j++) two[j] = (g & 2 ? four[j + 2] : four[j]) + __shfl_xor_sync(0xffffffffu, g & 2 ? four[j] : four[j + 2], 8);
    return (g & 1 ? two[1] : two[0]) + __shfl_xor_sync(0xffffffffu, g & 1 ? two[0] : two[1], 4);
}

/* acc becomes gain e; total: of this thread's columns the sum over the tile's rows is added; dot: of 4 rows rstd times the mean of
 * gain e x rstd. */
template <int NG, int STAGES>
static __device__ __forceinline__ void sum_up(float (*acc)[2][4][4], Stream *f, const Matrices &p, const float *gain, const Share &share, int32_t row,
                                              int32_t left, const float rstd[4], float dot[4], float *total)
{
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int q = 0; q < NG; q++) {
        float column[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}, e[8], v[8], w[8];
        uint4 u[4];
        if (STAGES > 0) take_rows<STAGES>(u, f->slot);
        read_wide_8(gain + 32 * q + 8 * t, w);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            open_row<(STAGES > 0)>(u[i], p.x, share.m, row + 8 * i, 32 * q + 8 * t, 8 * i < left, v);
            gather_8(e, acc[q][i / 2], i % 2);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float ex = e[j] * (v[j] * rstd[i]);
                column[j] += ex;
                dot[i] += w[j] * ex;
                e[j] *= w[j];
            }
            scatter_8(e, acc[q][i / 2], i % 2);
        }
        feed<NG, STAGES>(f, p, share);
        total[q] += column_sum(column);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) dot[i] = quad_sum(dot[i]) * (1.0f / (float)(32 * NG)) * rstd[i];
}
/* dx of the tile. */
template <int NG, int STAGES>
static __device__ __forceinline__ void finish(float (*acc)[2][4][4], Stream *f, const Matrices &p, const Share &share, int32_t row, int32_t left,
                                              const float rstd[4], const float dot[4])
{
    constexpr bool FAST = STAGES > 0;
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int q = 0; q < NG; q++) {
        const int32_t col = 32 * q + 8 * t;
        float e[8], v[8];
        uint4 x[4], d[4];
        if (FAST) take_rows<STAGES>(x, f->slot);
        feed<NG, STAGES>(f, p, share);
        if (p.dres.a.data) {
            if (FAST) take_rows<STAGES>(d, f->slot);
            feed<NG, STAGES>(f, p, share);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            open_row<FAST>(x[i], p.x, share.m, row + 8 * i, col, 8 * i < left, v);
            gather_8(e, acc[q][i / 2], i % 2);
#pragma unroll
            for (int j = 0; j < 8; j++) e[j] = rstd[i] * (e[j] - v[j] * dot[i]);
            if (p.dres.a.data) {
                open_row<FAST>(d[i], p.dres, share.m, row + 8 * i, col, 8 * i < left, v);
#pragma unroll
                for (int j = 0; j < 8; j++) e[j] += v[j];
            }
            if (p.dx.a.data && 8 * i < left) store_row<FAST>(p.dx, share.m, row + 8 * i, col, e);
        }
    }
}

template <int NG, int STAGES>
static __global__ __launch_bounds__(32 * WHOLE_WARPS, 1) void matmul_norm_grad(Matrices p, Image image, Rest rest)
{
    mdr_begin();
    MDR_SHARED(unsigned char, shared);                     /* the image, gain, the rings                                          */
    constexpr bool FAST = STAGES > 0;
    if (FAST) p.dy.flat = p.x.flat = p.rstd.flat = p.dres.flat = p.dx.flat = true;       /* known: spares the compiler branches   */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int32_t m = (int32_t)blockIdx.z, first = (int32_t)blockIdx.x * rest.warps;
    Arrival image_at = arrival<STAGES>(p.dy.cols);
    const Share share = {m, rest.n_seq[m] * rest.rows, rest.per, (int32_t)gridDim.x * rest.warps};
    float *gain = (float *)(shared + image_at.chunks * WHOLE_CHUNK<NG>), total[NG] = {};
    unsigned char *ring = (unsigned char *)(gain + 32 * NG) + warp * STAGES * WHOLE_STAGE + lane * 16;
    if (first_tile(share, first).row >= share.rows) return;
    Tile tile = first_tile(share, first + warp);
    Stream stream = {ring, ring, tile, 0};
#pragma unroll 1
    for (int i = 0; i < STAGES; i++) copy_stage<NG, STAGES>(&stream, p, share);
    ask_image<NG, STAGES>(shared, image, m, image_at);
    for (int i = (int)threadIdx.x; i < 32 * NG; i += (int)blockDim.x) gain[i] = arg_get(rest.gain, m * rest.gain.member + i);
    begin_whole<STAGES>(&image_at);
    if (tile.row >= tile.to) see_all(&image_at, 0);
    while (tile.row < tile.to) {
        const int32_t row = tile.row + g, left = tile.to - row, chunk = tile.chunk;
        float acc[NG][2][4][4] = {}, rstd[4], dot[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < 4; i++) rstd[i] = 8 * i < left ? ((const float *)p.rstd.a.data)[row_at(p.rstd, m, 0, row + 8 * i)] : 0.0f;
        const unsigned char *w = shared + dealt(g, 0) * 64 + t * 16;
#pragma unroll 1
        for (int32_t c = 0; c < image_at.chunks; c++, w += WHOLE_CHUNK<NG>) {
            uint4 u[4];
            if (FAST) take_rows<STAGES>(u, stream.slot);
            else read_rows(u, p.dy, m, row, 32 * c + 8 * t, left);
            see(&image_at, c, c);
            multiply_group(acc[0], u, w);
            feed<NG, STAGES>(&stream, p, share);
#pragma unroll
            for (int q = 1; q < NG; q++) multiply_group(acc[q], u, w + 2048 * q);
        }
        sum_up<NG, STAGES>(acc, &stream, p, gain, share, row, left, rstd, dot, total);
        finish<NG, STAGES>(acc, &stream, p, share, row, left, rstd, dot);
        next_tile(share, &tile);
        if (tile.chunk == chunk && tile.row < tile.to) continue;
#pragma unroll
        for (int q = 0; q < NG; q++) {
            rest.part[((int64_t)m * rest.count + chunk) * (32 * NG) + 32 * q + 8 * t + g] = total[q];
            total[q] = 0.0f;
        }
    }
}

/* ---- choosing ---- */
static bool applies(const Node *n)
{
    return whole_stages(inner_of(n), cols_of(n), VECTORS, WHOLE_WARPS) > 0 && !of_a_step(n, 0) && of_a_step(n, 1) && of_a_step(n, 3);
}
static int64_t image_size(const Node *n) { return image_floats(inner_of(n), cols_of(n)); }
static void prepare(const Call *c, int64_t, int64_t) { enqueue_image(c, 1, 2, inner_of(c->node), cols_of(c->node), true); }
static size_t scratch(const Node *n, Extent e)
{
    return (size_t)(cut_room(mdr_rows(n->out[0].shape), e, LEAST_ROWS, MOST_CHUNKS) * cols_of(n)) * sizeof(float);
}

template <int NG, int STAGES> static void launch(const Call *c, const Matrices &p, const Rest &rest, const WholeGrid &grid)
{
    const int64_t inner = inner_of(c->node), cols = cols_of(c->node), bytes = whole_bytes(inner, cols, VECTORS, grid.warps, STAGES);
    MDR_ALLOW_SHARED((matmul_norm_grad<NG, STAGES>), bytes);
    MDR_LAUNCH((matmul_norm_grad<NG, STAGES>), mdr_grid(grid.blocks, 1, c->extent.n_member), 32 * grid.warps, (size_t)bytes, c->stream, p,
               image_of(c, 2, inner, cols), rest);
}
static void run(const Call *c, int64_t, int64_t)
{
    const Node *n = c->node;
    const int64_t rows = mdr_rows(n->out[0].shape), cols = cols_of(n);
    const int32_t n_seq = c->extent.n_seq;
    const bool add = (c->add & 2u) != 0;
    const Arg *in = c->in;
    Arg column = in[4];
    column.ld = 1;
    const Matrices p = {panel(in[0], rows, inner_of(n), n_seq, true), panel(in[2], rows, cols, n_seq, true), panel(column, rows, 1, n_seq, true),
                        panel(in[5], rows, cols, n_seq, true), panel(c->out[0], rows, cols, n_seq, true)};
    const Cut cut = cut_rows(rows, n_seq, add, LEAST_ROWS, MOST_CHUNKS);
    const WholeGrid grid = whole_grid(cut.count, c->extent.n_member);
    const Rest rest = {in[3], c->n_seq, (int32_t)rows, (int32_t)cut.per, (int32_t)cut.count, grid.warps, (float *)c->scratch};
    const bool fast = plain_bf16(p.dy) && plain_bf16(p.x) && plain_or_absent(p.dres) && plain_or_absent(p.dx) && p.rstd.flat;
    const int stages = fast ? whole_stages(inner_of(n), cols, VECTORS, grid.warps) : 0;
    WHOLE_LAUNCH(launch, cols, stages)(c, p, rest, grid);
    if (!c->out[1].data) return;
    const Call last = mdr_beside(c, 2);
    enqueue_add_chunks(&last, c->out[1], add, (const float *)c->scratch, cut, cols, cols);
}

/* dy w^T is summed in float whatever comes of it: rstd alone is asked for whole. */
extern "C" const CudaRow mdr_cuda_rows_matmul_norm_grad[] = {
    {"matmul_norm_grad", {run, NULL, scratch, {prepare, 1, image_size, NULL}}, applies, 1u << 4, 0}, {}};
