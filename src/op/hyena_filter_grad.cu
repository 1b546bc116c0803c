/* hyena_filter_grad on CUDA, in bf16: reads z and dy, recomputes u and dc (cuda_hyena_grad.h) and correlates them on tensor cores.
 *   dh[j] = sum over sequences and t of dc[t] u[t-j]: products of 16 rows of dc by 8 of u, contracted over 8 sequences, for which sums of
 * the short convolutions are operands as they come. All products at one distance of their corners go to the same 16 x 8 sums in
 * registers, for all sequences of a chunk; only at the end their diagonals are added up.
 * At most 128 rows: a block has 8 warps, each with two channels c0 + k gap of one c0 (there are not registers for more). The next group of
 * sequences is on its way while one is worked on.
 * More rows: u and dc are made first, in scratch memory, in the order in which lanes want them; then a block has one channel, all sequences
 * and 8 warps, each with a window of 128 places of h. Products are contracted over 16 sequences at a time. */
#include "op/cuda_hyena_grad.h"

enum { IN_Z, IN_W, IN_B, IN_DY };
static constexpr int PAIR = 2, THREADS = 32 * EIGHT, DISTANCES = BLOCK / 8;
/* Shared memory, in words. */
static constexpr int AT_Z = 0, AT_DY = AT_Z + COLS_Z * EIGHT * PLANE, AT_RAW = AT_DY + PAIR * EIGHT * PLANE, AT_W = AT_RAW + (COLS_Z + PAIR) * RAW * 4,
                     SHARED = AT_W + PAIR * ROLES * EIGHT * TABLE<BAND>;

struct FilterGrad {
    Panel z, dy;
    Arg w, b;
    Arg to;                                                /* dh, or partial sums: a chunk is a sequence                             */
    const int32_t *n_seq;
    int32_t rows, gap, taps, chunk, group;                 /* sequences of a chunk, of a group                                       */
};

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

/* ---- more rows ---- */
/* Words of u, then of dc, of a channel and group of 8 sequences: [tile][lane][2]. */
struct LongFilterGrad {
    FilterGrad f;
    uint2 *words;                                          /* [member][channel][group][u, dc][tile][lane]                            */
    int32_t blocks, groups, add;                           /* of 128 rows; of sequences                                              */
};
static __device__ __forceinline__ int64_t words_at(const LongFilterGrad &a, int32_t m, int32_t channel, int32_t group)
{
    return (((int64_t)m * TURNS * a.f.gap + channel) * a.groups + group) * 2 * a.blocks * TILES * 32;
}
static __device__ __forceinline__ uint4 read_row(const Panel &p, const Group &w, int32_t s, int32_t t, int32_t col)
{
    if (s >= w.end || t < 0 || t >= w.rows) return make_uint4(0, 0, 0, 0);
    const int64_t at = arg_row(p.a, w.m, s, t) + col;
    if (p.wide && p.a.size == 2) return *(const uint4 *)((const bf16 *)p.a.data + at);
    return make_uint4(pack_bf16(arg_get(p.a, at), arg_get(p.a, at + 1)), pack_bf16(arg_get(p.a, at + 2), arg_get(p.a, at + 3)),
                      pack_bf16(arg_get(p.a, at + 4), arg_get(p.a, at + 5)), pack_bf16(arg_get(p.a, at + 6), arg_get(p.a, at + 7)));
}
static __device__ __forceinline__ void read_columns(uint32_t *planes, const Panel &p, const Group &w, int32_t row0, int32_t col)
{
    uint4 row[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int id = i / 2 * THREADS + my_number();
        row[i] = read_row(p, w, w.s + id / (BLOCK / 2), row0 + id % (BLOCK / 2) * 2 + i % 2, col);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int id = i * THREADS + my_number();
        put_pair(planes + id / (BLOCK / 2) * LINE + PAD + id % (BLOCK / 2), row[2 * i], row[2 * i + 1]);
    }
}
static constexpr int LONG_RAW = AT_DY + EIGHT * PLANE, LONG_W = LONG_RAW + RAW * 4, LONG_SHARED = LONG_W + TURNS * ROLES * EIGHT * TABLE<BAND>;
static __global__ __launch_bounds__(THREADS, 2) void make_words(LongFilterGrad a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, shared);
    const int32_t m = (int32_t)blockIdx.z, n = a.f.n_seq[m], c0 = (int32_t)blockIdx.x / a.blocks * EIGHT, block = (int32_t)blockIdx.x % a.blocks;
    const Group w = {m, (int32_t)blockIdx.y * EIGHT, n, a.f.rows};
    if (w.s >= n) return;
    const Group below = {m, w.s, n, a.f.rows - block * BLOCK};
    Panel dy = a.f.dy;                                     /* from the block's first row on                                          */
    dy.a.data = (char *)dy.a.data + (int64_t)block * BLOCK * dy.a.ld * dy.a.size;
    copy_columns<THREADS, 1>((uint4 *)(shared + LONG_RAW), dy, below, c0);
    copy_commit();
#pragma unroll 1
    for (int r = 0; r < COLS_Z; r++) read_columns(shared + AT_Z + r * EIGHT * PLANE, a.f.z, w, block * BLOCK, r * a.f.gap + c0);
    if (threadIdx.x < COLS_Z * EIGHT * PAD) {              /* the rows before                                                        */
        const int r = (int)threadIdx.x / (EIGHT * PAD), s = (int)threadIdx.x / PAD % EIGHT, p = (int)threadIdx.x % PAD;
        const int32_t t = block * BLOCK + 2 * (p - PAD);
        put_pair(shared + AT_Z + r * EIGHT * PLANE + s * LINE + p, read_row(a.f.z, w, w.s + s, t, r * a.f.gap + c0),
                 read_row(a.f.z, w, w.s + s, t + 1, r * a.f.gap + c0));
    }
    fill_bands(shared + LONG_W, Taps{a.f.w, a.f.b, a.f.taps, a.f.gap}, m, c0, 0, TURNS);
#pragma unroll 1
    for (int k = 0; k < TURNS; k++) {
        copy_wait<0>();
        rearrange<THREADS, 1>(shared + AT_DY, (uint4 *)(shared + LONG_RAW));
        if (k + 1 < TURNS) copy_columns<THREADS, 1>((uint4 *)(shared + LONG_RAW), dy, below, (k + 1) * a.f.gap + c0);
        copy_commit();
        __syncthreads();
        const Work work = my_work(shared, AT_DY, LONG_W, 0, k);
        const Bands b = my_bands(work);
        uint2 *to = a.words + words_at(a, m, k * a.f.gap + c0 + my_number() / 32, (int32_t)blockIdx.y) + block * TILES * 32 + my_number() % 32;
#pragma unroll 2
        for (int i = 0; i < TILES; i++) {
            uint32_t u[2], dc[2];
            gate(u, dc, work, b, i);
            to[i * 32] = make_uint2(u[0], u[1]);
            to[(a.blocks * TILES + i) * 32] = make_uint2(dc[0], dc[1]);
        }
        __syncthreads();
    }
}

/* Copies u and dc of two groups, as they lie; the second one may not be there. */
static __device__ __forceinline__ void copy_words(uint32_t *to, const LongFilterGrad &a, int32_t m, int32_t channel, int32_t group, int32_t end)
{
    const int32_t each = a.blocks * TILES * 32;            /* pieces of 16 bytes, a group                                            */
    const uint4 *from = (const uint4 *)(a.words + words_at(a, m, channel, group));
    for (int32_t i = (int32_t)threadIdx.x; group < end && i < 2 * each; i += THREADS) copy_16((uint4 *)to + i, from + i, group + i / each < end);
    copy_commit();
}
/* Window w: sum[i] at distance 8 (16 w + i - 1), of 8 tiles from tile t on. Tile j of u is held in ring[j % 16]. */
static __device__ __forceinline__ void correlate_eight(float (*sum)[4], uint32_t (*ring)[2], const uint2 *u, const uint2 *dc, int32_t group, uint32_t mask)
{
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const uint2 u0 = u[32 * t], u1 = u[group + 32 * t], d0 = dc[32 * t], d1 = dc[group + 32 * t];
        const uint32_t a[4] = {d0.x & mask, d0.y & mask, d1.x & mask, d1.y & mask};
        ring[2 * t][0] = u0.x;
        ring[2 * t][1] = u1.x;
        ring[2 * t + 1][0] = u0.y;
        ring[2 * t + 1][1] = u1.y;
#pragma unroll
        for (int i = 0; i < DISTANCES; i++) mma_16816(sum[i], a, ring[(2 * t + 1 - i) & 15]);
    }
}
/* One block a channel (x), all sequences or, where sums are wanted of each, one (y). */
static __global__ __launch_bounds__(THREADS, 1) void long_filter_grad(LongFilterGrad a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, shared);
    const int32_t m = (int32_t)blockIdx.z, n = a.f.n_seq[m], channel = (int32_t)blockIdx.x, only = a.add ? -1 : (int32_t)blockIdx.y;
    if (n == 0 || only >= n) return;
    const int32_t first = a.add ? 0 : only / EIGHT, end = a.add ? (n + EIGHT - 1) / EIGHT : first + 1, tiles = a.blocks * TILES;
    const int32_t each = 4 * tiles * 32 * 2;               /* words of two groups                                                    */
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int window = warp < 4 ? warp : 11 - warp;        /* two of a processor's quarter have the same to do as two of any          */
    uint32_t mask = 0xffffffffu;
    if (!a.add) mask = lane % 4 != only % EIGHT / 2 ? 0 : only % 2 ? 0xffff0000u : 0xffffu;
    float sum[DISTANCES][4];
    uint32_t ring[2 * TILES][2];
#pragma unroll
    for (int i = 0; i < DISTANCES; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    copy_words(shared, a, m, channel, first, end);
    int turn = 0;
#pragma unroll 1
    for (int32_t group = first; group < end; group += 2, turn ^= 1) {
        copy_words(shared + (turn ^ 1) * each, a, m, channel, group + 2, end);
        copy_wait<1>();
        __syncthreads();
        const uint2 *u = (const uint2 *)(shared + turn * each) + lane, *dc = u + tiles * 32;
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) ring[i][0] = ring[i][1] = 0;
#pragma unroll 1
        for (int32_t b = window; b < a.blocks; b++)
            correlate_eight(sum, ring, u + (b - window) * TILES * 32, dc + b * TILES * 32, 2 * tiles * 32, mask);
        __syncthreads();
    }
    float *box = (float *)shared, *lines = box + EIGHT * BOX;
    add_diagonals(box + warp * BOX, lines + window * DIAGONALS, sum);
    __syncthreads();
    const int64_t to = arg_row(a.f.to, m, a.add ? 0 : only, 0) + channel;
    for (int32_t j = (int32_t)threadIdx.x; j < a.f.rows; j += THREADS) {
        const int32_t w = j / BLOCK, place = j % BLOCK + 15;
        float v = lines[w * DIAGONALS + place];
        if (place >= BLOCK && w + 1 < a.blocks) v += lines[(w + 1) * DIAGONALS + place - BLOCK];
        arg_put(a.f.to, to + j * a.f.to.ld, a.add ? arg_get(a.f.to, to + j * a.f.to.ld) + v : v);
    }
}

/* ---- choosing ---- */
enum { MOST_ROWS = EIGHT * BLOCK };
static bool applies(const Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, dy = n->in_type[IN_DY].shape;
    return dy.d[0] <= MOST_ROWS && dy.d[1] % (TURNS * EIGHT) == 0 && z.d[1] == dy.d[1] / TURNS * COLS_Z && n->in_type[IN_W].shape.d[0] <= MOST_TAPS &&
           !((n->in_type[IN_W].axes | n->in_type[IN_B].axes) & MDR_AXIS_SEQ);
}
static int32_t blocks_of(int32_t rows) { return (rows + BLOCK - 1) / BLOCK; }
static int64_t groups_of(int32_t n_seq) { return mdr_ceil_div(n_seq, EIGHT); }
/* Few rows: chunks of groups of 8 sequences, 4 of them at most: some 128 blocks with a batch alone. One sequence a chunk where sums are
 * wanted of each. */
enum { MOST_CHUNKS = 4 };
static size_t scratch(const Node *n, Extent e)
{
    const Shape s = n->out[0].shape;
    if (s.d[0] > BLOCK) return sizeof(uint2) * 2 * TILES * 32 * (size_t)(blocks_of(s.d[0]) * groups_of(e.n_seq) * s.d[1] * e.n_member);
    return sizeof(float) * (size_t)mdr_numel(s) * cut_groups(e.n_seq, true, MOST_CHUNKS).count * (size_t)e.n_member;
}
static void run_long(const Call *c, const FilterGrad &f)
{
    const int32_t n = c->extent.n_seq, members = c->extent.n_member, blocks = blocks_of(f.rows), groups = (int32_t)groups_of(n);
    const bool add = (c->add & 1u) != 0 || n == 1;
    const LongFilterGrad a = {f, (uint2 *)c->scratch, blocks, groups, (int32_t)(c->add & 1u)};
    const size_t bytes = sizeof(uint32_t) * 2 * 4 * 2 * 32 * (size_t)(blocks * TILES);
    MDR_ALLOW_SHARED(make_words, LONG_SHARED * sizeof(uint32_t));
    MDR_LAUNCH(make_words, mdr_grid((int64_t)f.gap / EIGHT * blocks, groups, members), THREADS, LONG_SHARED * sizeof(uint32_t), c->stream, a);
    MDR_ALLOW_SHARED(long_filter_grad, bytes);
    MDR_LAUNCH(long_filter_grad, mdr_grid((int64_t)TURNS * f.gap, add ? 1 : n, members), THREADS, bytes, c->stream, a);
}
static void hyena_filter_grad(const Call *c, int64_t, int64_t)
{
    const Shape z = c->node->in_type[IN_Z].shape, dy = c->node->in_type[IN_DY].shape;
    const int32_t n = c->extent.n_seq, gap = dy.d[1] / TURNS;
    const Cut k = cut_groups(n, (c->add & 1u) != 0, MOST_CHUNKS);
    const Arg part = {c->scratch, k.count * mdr_numel(dy), mdr_numel(dy), dy.d[1], 4};
    const bool is_long = dy.d[0] > BLOCK;
    const FilterGrad a = {panel(c->in[IN_Z], z.d[0], z.d[1], n, false), panel(c->in[IN_DY], dy.d[0], dy.d[1], n, false), c->in[IN_W], c->in[IN_B],
                          k.together && !is_long ? part : c->out[0], c->n_seq, dy.d[0], gap, c->node->in_type[IN_W].shape.d[0],
                          (int32_t)k.per, k.together ? EIGHT : 1};
    if (is_long) {
        run_long(c, a);
        return;
    }
    MDR_ALLOW_SHARED(filter_grad, SHARED * sizeof(uint32_t));
    MDR_LAUNCH(filter_grad, mdr_grid((int64_t)gap / EIGHT * PAIR, k.count, c->extent.n_member), THREADS, SHARED * sizeof(uint32_t), c->stream, a);
    if (k.together) enqueue_add_chunks(c, (const float *)c->scratch, k, mdr_numel(dy), dy.d[1]);
}

extern "C" const CudaRow mdr_cuda_rows_hyena_filter_grad[] = {{"hyena_filter_grad", {hyena_filter_grad, NULL, scratch, {}}, applies, 0, 0}, {}};
