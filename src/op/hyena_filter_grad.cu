/* hyena_filter_grad on CUDA, in bf16: reads z and dy, recomputes u and dc (cuda_hyena_grad.h) and correlates them on tensor cores.
 *   dh[j] = sum over sequences and t of dc[t] u[t-j]: products of 16 rows of dc by 8 of u, contracted over 8 sequences, for which sums of
 * the short convolutions are operands as they come. All products at one distance of their corners go to the same 16 x 8 sums in
 * registers, for all sequences of a chunk; only at the end their diagonals are added up.
 * This is for 128 rows at most: a block has 8 warps, each with two channels c0 + k gap of one c0 (there are not registers for more). The next
 * group of sequences is on its way while one is worked on. For more rows: cuda_filter_grad.h. */
#include "op/cuda_filter_grad.h"

enum { IN_Z, IN_W, IN_B, IN_DY };
static constexpr int PAIR = 2, THREADS = 32 * EIGHT, DISTANCES = BLOCK / 8;
/* Shared memory, in words. */
static constexpr int AT_Z = 0, AT_DY = AT_Z + COLS_Z * EIGHT * PLANE, AT_RAW = AT_DY + PAIR * EIGHT * PLANE, AT_W = AT_RAW + (COLS_Z + PAIR) * RAW * 4,
                     SHARED = AT_W + PAIR * ROLES * EIGHT * TABLE<BAND>;

/* What a warp works with: planes of the three roles' columns and of dy, tables of the bands. */
struct Work { const uint32_t *z[ROLES], *dy, *band[ROLES]; };
static __device__ __forceinline__ Work my_work(const uint32_t *shared, int at_dy, int at_band, int turn0, int k)
{
    const int warp = my_number() / 32;
    Work w;
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        w.z[r] = shared + AT_Z + ((turn0 + k + r) % COLS_Z * EIGHT + warp) * PLANE;
        w.band[r] = shared + at_band + ((k * ROLES + r) * EIGHT + warp) * TABLE<BAND>;
    }
    w.dy = shared + at_dy + warp * PLANE;
    return w;
}
/* The bands of a turn. */
struct Bands { Band f[ROLES]; float bias[ROLES][4]; };
static __device__ __forceinline__ Bands my_bands(const Work &w)
{
    Bands b;
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        b.f[r] = make_band(w.band[r], lane_word<BAND>());
        make_bias(b.bias[r], w.band[r]);
    }
    return b;
}
/* u and dc of tile i as operands: rows 0-7, 8-15. */
static __device__ __forceinline__ void gate(uint32_t u[2], uint32_t dc[2], const Work &w, const Bands &b, int i)
{
    const int lane = my_number() % 32, here = lane / 4 * LINE + lane % 4 + PAD + 8 * i;
    float s[ROLES][4], v[4];
    uint32_t dy[2];
    ldmatrix<2, true>(dy, w.dy + lane % 8 * LINE + lane / 8 % 2 * 4 + PAD + 8 * i);
    open(v, dy);
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        const uint32_t *z = w.z[r] + here, now[2] = {z[0], z[4]};
        convolve_short(s[r], b.bias[r], b.f[r], now, z[-4]);
    }
    dc[0] = pack_bf16(v[0] * s[0][0], v[1] * s[0][1]);
    dc[1] = pack_bf16(v[2] * s[0][2], v[3] * s[0][3]);
    u[0] = pack_bf16(s[1][0] * s[2][0], s[1][1] * s[2][1]);
    u[1] = pack_bf16(s[1][2] * s[2][2], s[1][3] * s[2][3]);
}
/* sum[i]: distance 8 (i - 1). */
static __device__ __forceinline__ void correlate(float (*sum)[4], const Work &w)
{
    const Bands b = my_bands(w);
    uint32_t u[2 * TILES];
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        uint32_t dc[2];
        gate(u + 2 * i, dc, w, b, i);
#pragma unroll
        for (int j = 0; j < 2 * i + 2; j++) mma_1688(sum[2 * i - j + 1], dc, u[j]);
    }
}

/* The diagonals of the sums, from -15 on, to `line`; box: 16 rows of 9. */
static constexpr int BOX = 16 * 9, DIAGONALS = BLOCK + 17;
static __device__ __forceinline__ void add_diagonals(float *box, float *line, const float (*sum)[4])
{
    const int lane = my_number() % 32;
    float *to = box + lane / 4 * 9 + lane % 4 * 2;
    for (int k = lane; k < DIAGONALS; k += 32) line[k] = 0.0f;
#pragma unroll
    for (int i = 0; i < DISTANCES; i++) {
        __syncwarp();
        to[0] = sum[i][0];
        to[1] = sum[i][1];
        to[8 * 9] = sum[i][2];
        to[8 * 9 + 1] = sum[i][3];
        __syncwarp();
        float v = 0.0f;
#pragma unroll
        for (int col = 0; col < 8; col++) {
            const int row = lane - 7 + col;
            if (row >= 0 && row < 16) v += box[row * 9 + col];
        }
        if (lane < 23) line[8 * i + lane] += v;
    }
}

static __device__ __forceinline__ void copy_group(uint4 *raw, const FilterGrad &a, const Group &w, int32_t c0, int turn0)
{
    if (w.s < w.end) {
#pragma unroll 1
        for (int r = 0; r < COLS_Z; r++) copy_columns<THREADS, 1>(raw + r * RAW, a.z, w, r * a.gap + c0);
#pragma unroll 1
        for (int k = 0; k < PAIR; k++) copy_columns<THREADS, 1>(raw + (COLS_Z + k) * RAW, a.dy, w, (turn0 + k) * a.gap + c0);
    }
    copy_commit();
}

static __global__ __launch_bounds__(THREADS, 1) void filter_grad(FilterGrad a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, shared);
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m], c0 = (int32_t)blockIdx.x / PAIR * EIGHT, first = (int32_t)blockIdx.y * a.chunk;
    const int32_t last = first + a.chunk < n ? first + a.chunk : n;
    const int turn0 = (int)blockIdx.x % PAIR * PAIR;
    if (first >= last) return;
    uint4 *raw = (uint4 *)(shared + AT_RAW);
    Group now = {m, first, last, a.rows};
    copy_group(raw, a, now, c0, turn0);
    for (int i = (int)threadIdx.x; i < (COLS_Z + PAIR) * EIGHT * EIGHT * PAD; i += THREADS) shared[AT_Z + i / PAD * LINE + i % PAD] = 0;
    fill_bands(shared + AT_W, Taps{a.w, a.b, a.taps, a.gap}, m, c0, turn0, PAIR);
    __syncthreads();
    float sum[PAIR][DISTANCES][4];
#pragma unroll
    for (int k = 0; k < PAIR; k++)
#pragma unroll
        for (int i = 0; i < DISTANCES; i++) sum[k][i][0] = sum[k][i][1] = sum[k][i][2] = sum[k][i][3] = 0.0f;
#pragma unroll 1
    for (; now.s < last; now.s += a.group) {
        copy_wait<0>();
#pragma unroll 1
        for (int r = 0; r < COLS_Z + PAIR; r++) rearrange<THREADS, 1>(shared + AT_Z + r * EIGHT * PLANE, raw + r * RAW);
        copy_group(raw, a, Group{m, now.s + a.group, last, a.rows}, c0, turn0);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < PAIR; k++) correlate(sum[k], my_work(shared, AT_DY + k * EIGHT * PLANE, AT_W, turn0, k));
        __syncthreads();
    }
    float *box = (float *)(shared + AT_RAW), *line = box + EIGHT * BOX;
#pragma unroll
    for (int k = 0; k < PAIR; k++) {
        const int warp = (int)threadIdx.x / 32;
        add_diagonals(box + warp * BOX, line + (k * EIGHT + warp) * DIAGONALS, sum[k]);
    }
    __syncthreads();
    const int64_t to = arg_row(a.to, m, blockIdx.y, 0) + turn0 * a.gap + c0;
    for (int i = (int)threadIdx.x; i < PAIR * EIGHT * a.rows; i += THREADS) {
        const int other = i % (PAIR * EIGHT), j = i / (PAIR * EIGHT);
        arg_put(a.to, to + j * a.to.ld + other / EIGHT * a.gap + other % EIGHT, line[other * DIAGONALS + j + 15]);
    }
}

/* ---- choosing ---- */
static bool applies(const Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, dy = n->in_type[IN_DY].shape;
    return dy.d[0] <= MOST_ROWS && dy.d[1] % (TURNS * EIGHT) == 0 && z.d[1] == dy.d[1] / TURNS * COLS_Z && n->in_type[IN_W].shape.d[0] <= MOST_TAPS &&
           !((n->in_type[IN_W].axes | n->in_type[IN_B].axes) & MDR_AXIS_SEQ);
}
/* Chunks of groups of 8 sequences, few enough to keep what stands before and after them small. One sequence a chunk where sums are wanted of
 * each. */
static Cut cut(int32_t rows, int32_t n_seq, bool together) { return cut_groups(n_seq, together, rows <= BLOCK ? 4 : 2); }
static size_t scratch(const Node *n, Extent e)
{
    const Shape s = n->out[0].shape;
    return sizeof(float) * (size_t)mdr_numel(s) * cut(s.d[0], e.n_seq, true).count * (size_t)e.n_member;
}
template <int N> static void launch_long(const Call *c, const FilterGrad &a, const Cut &k)
{
    const size_t bytes = Lines<N>::SHARED * sizeof(uint32_t);
    MDR_ALLOW_SHARED(long_filter_grad<N>, bytes);
    MDR_LAUNCH((long_filter_grad<N>), mdr_grid(mdr_ceil_div(a.gap, CHANNELS) * TURNS, k.count, c->extent.n_member), LONG_THREADS, bytes, c->stream, a);
}
static void launch_short(const Call *c, const FilterGrad &a, const Cut &k)
{
    MDR_ALLOW_SHARED(filter_grad, SHARED * sizeof(uint32_t));
    MDR_LAUNCH(filter_grad, mdr_grid((int64_t)a.gap / EIGHT * PAIR, k.count, c->extent.n_member), THREADS, SHARED * sizeof(uint32_t), c->stream, a);
}
static void hyena_filter_grad(const Call *c, int64_t, int64_t)
{
    const Shape z = c->node->in_type[IN_Z].shape, dy = c->node->in_type[IN_DY].shape;
    const int32_t n = c->extent.n_seq;
    const Cut k = cut(dy.d[0], n, (c->add & 1u) != 0);
    const Arg part = {c->scratch, k.count * mdr_numel(dy), mdr_numel(dy), dy.d[1], 4};
    const FilterGrad a = {panel(c->in[IN_Z], z.d[0], z.d[1], n, false), panel(c->in[IN_DY], dy.d[0], dy.d[1], n, false), c->in[IN_W], c->in[IN_B],
                          k.together ? part : c->out[0], c->n_seq, dy.d[0], dy.d[1] / TURNS, c->node->in_type[IN_W].shape.d[0],
                          (int32_t)k.per, k.together ? EIGHT : 1, 0};
    if (a.rows <= BLOCK) launch_short(c, a, k);
    else if (a.rows <= 2 * TILE) launch_long<2>(c, a, k);
    else if (a.rows <= 4 * TILE) launch_long<4>(c, a, k);
    else launch_long<8>(c, a, k);
    if (k.together) enqueue_add_chunks(c, (const float *)c->scratch, k, mdr_numel(dy), dy.d[1]);
}

extern "C" const CudaRow mdr_cuda_rows_hyena_filter_grad[] = {{"hyena_filter_grad", {hyena_filter_grad, NULL, scratch, {}}, applies, 0, 0}, {}};
