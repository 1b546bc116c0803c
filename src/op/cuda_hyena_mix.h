/* Hyena's mixer (hyena_mix.cu) where sequences have 65 to 128 rows and z has 3/4 as many columns as y. Channels c0 + k gap belong together
 * (cuda_hyena_grad.h): a block takes them for 8 neighbouring c0, so it reads z once for 4 channels, and rows come and go by 16 bytes. It has
 * 8 sequences at a time, a warp one c0 and its channels by turns: u by bands on tensor cores, the long convolution, x1 by bands once more;
 * y's planes gather what the warps made. Two blocks share a processor: one multiplies while the other reads or stores, and z of the next
 * sequences is on its way while the last results go. */
#ifndef MDR_CUDA_HYENA_MIX_H
#define MDR_CUDA_HYENA_MIX_H
#include "op/cuda_hyena_grad.h"

struct Mix {
    Arg z, w, b, h, skip, y;
    const int32_t *n_seq;
    int32_t rows, cols, cols_z, taps;
    int32_t room, per, gap;                               /* rows of planes, a multiple of GROUP; sequences of a block; cols / TURNS   */
};

/* x, of which the compiler forgets that it knew it: what follows from it is computed anew where it would have kept registers that the
 * products need. */
static __device__ __forceinline__ int fresh(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* Of `all` groups of sequences, how many a block takes: the shortest time, if a wave of blocks takes as long as its groups and two more, for
 * tables and what nothing runs beside. No bit depends on it. */
static int64_t best_share(int64_t all, int64_t each, int64_t side_by_side)
{
    int64_t best = 1, least = INT64_MAX;
    for (int64_t per = 1; per <= all; per++) {
        const int64_t time = mdr_ceil_div(each * mdr_ceil_div(all, per), side_by_side) * (per + 2);
        if (time <= least) { least = time; best = per; }
    }
    return best;
}
static constexpr int FOUR_THREADS = 32 * EIGHT, PARTS = RAW / 2 / FOUR_THREADS;            /* pairs of rows of a thread, of 8 columns  */
static constexpr int AT_Y = COLS_Z * EIGHT * PLANE, AT_H = AT_Y + EIGHT * PLANE, AT_BANDS = AT_H + TURNS * EIGHT * TABLE<BLOCK>,
                     AT_GROUP = AT_BANDS + TURNS * ROLES * EIGHT * TABLE<BAND>, FOUR_WORDS = AT_GROUP + EIGHT;

/* The block's place, found anew where it would have kept registers that sums need. */
static __device__ __forceinline__ int32_t my_member(void) { return fresh((int)blockIdx.z); }
static __device__ __forceinline__ int32_t my_column(void) { return fresh((int)blockIdx.x) * EIGHT; }
/* The block's group of 8 sequences, of which every warp has the number of the first in shared memory. */
static __device__ __forceinline__ int32_t *my_first(uint32_t *shared) { return (int32_t *)(shared + AT_GROUP) + my_number() / 32; }
static __device__ __forceinline__ Group my_group(const Mix &a, int32_t first)
{
    const int32_t m = my_member(), end = (fresh((int)blockIdx.y) + 1) * a.per, n = a.n_seq[m];
    return Group{m, first, end < n ? end : n, a.rows};
}
static __device__ __forceinline__ void read_group(uint4 (*raw)[PARTS][2], const Mix &a, int32_t first)
{
    const int thread = my_number();
    const Group w = my_group(a, first);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        const Pair x = pair_at<1>(w, i * FOUR_THREADS + thread);
        const bf16 *from = (const bf16 *)a.z.data + arg_row(a.z, w.m, x.s, x.t) + my_column();
#pragma unroll
        for (int r = 0; r < COLS_Z; r++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                raw[r][i][k] = make_uint4(0, 0, 0, 0);
                if (x.s < w.end && x.t + k < a.rows) raw[r][i][k] = *(const uint4 *)(from + k * a.z.ld + r * a.gap);
            }
    }
}
static __device__ __forceinline__ void put_group(uint32_t *planes, const uint4 (*raw)[PARTS][2])
{
    const int thread = my_number();
#pragma unroll
    for (int r = 0; r < COLS_Z; r++)
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            const int id = i * FOUR_THREADS + thread;
            put_pair(planes + r * EIGHT * PLANE + id / (BLOCK / 2) * LINE + PAD + id % (BLOCK / 2), raw[r][i][0], raw[r][i][1]);
        }
}
/* Channel c0 + k gap of this warp: u as operands, sums that begin with skip u. */
static __device__ __forceinline__ void make_u(uint32_t (*u)[2], float (*sum)[4], const uint32_t *const z[2], const uint32_t *const band[2], float skip)
{
    const int place = my_number() % 32 / 4 * LINE + my_number() % 4;
    Band f[2];
    float bias[2][4];
    uint32_t before[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        f[r] = make_band(band[r], lane_word<BAND>());
        make_bias(bias[r], band[r]);
        before[r] = z[r][place];
    }
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t rows[2][4];
#pragma unroll
        for (int r = 0; r < 2; r++) read_rows<false>(rows[r], z[r], p);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float s[2][4];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                convolve_short(s[r], bias[r], f[r], rows[r] + 2 * i, before[r]);
                before[r] = rows[r][2 * i + 1];
            }
#pragma unroll
            for (int x = 0; x < 4; x++) {
                s[0][x] *= s[1][x];
                sum[2 * p + i][x] = skip * s[0][x];
            }
            turn(u[2 * p + i], s[0]);
        }
    }
}
/* Sums times x1 to y's plane. */
static __device__ __forceinline__ void make_y(uint32_t *plane, const float (*sum)[4], const uint32_t *z, const uint32_t *band)
{
    const int place = my_number() % 32 / 4 * LINE + my_number() % 4;
    const Band f = make_band(band, lane_word<BAND>());
    float bias[4];
    make_bias(bias, band);
    uint32_t before = z[place], *to = plane + place + PAD;
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t rows[4];
        read_rows<false>(rows, z, p);
#pragma unroll
        for (int i = 0; i < 2; i++, to += 8) {
            float s[4];
            uint32_t word[2];
            convolve_short(s, bias, f, rows + 2 * i, before);
            before = rows[2 * i + 1];
#pragma unroll
            for (int x = 0; x < 4; x++) s[x] *= sum[2 * p + i][x];
            turn(word, s);
            to[0] = word[0];
            to[4] = word[1];
        }
    }
}
/* Planes of 8 columns to memory. */
static __device__ __forceinline__ void put_columns(const Mix &a, const uint32_t *planes, int32_t first, int k)
{
    const int thread = my_number(), col = my_column() + k * a.gap;
    const Group w = my_group(a, first);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        const int id = i * FOUR_THREADS + thread;
        const Pair x = pair_at<1>(w, id);
        const uint32_t *from = planes + id / (BLOCK / 2) * LINE + PAD + id % (BLOCK / 2);
        uint32_t v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = from[j * PLANE];
        if (x.s >= w.end || x.t >= a.rows) continue;
        bf16 *to = (bf16 *)a.y.data + arg_row(a.y, w.m, x.s, x.t) + col;
        *(uint4 *)to = make_uint4(__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[4], v[5], 0x5410),
                                  __byte_perm(v[6], v[7], 0x5410));
        if (x.t + 1 < a.rows)
            *(uint4 *)(to + a.y.ld) = make_uint4(__byte_perm(v[0], v[1], 0x7632), __byte_perm(v[2], v[3], 0x7632), __byte_perm(v[4], v[5], 0x7632),
                                                 __byte_perm(v[6], v[7], 0x7632));
    }
}
static __device__ __forceinline__ void fill_four(uint32_t *shared, const Mix &a)
{
    const int32_t m = my_member(), c0 = my_column();
    const float *h = (const float *)a.h.data + m * a.h.member + c0;
    for (int i = (int)threadIdx.x; i < COLS_Z * EIGHT * EIGHT * PAD; i += FOUR_THREADS) shared[i / PAD * LINE + i % PAD] = 0;
    fill_bands(shared + AT_BANDS, Taps{a.w, a.b, a.taps, a.gap}, m, c0, 0, TURNS);
#pragma unroll 3
    for (int32_t i = (int32_t)threadIdx.x; i < TURNS * EIGHT * (BLOCK / 2 + BEFORE); i += FOUR_THREADS) {
        const int32_t of = i % (EIGHT * TURNS), c = of / EIGHT * a.gap + of % EIGHT, j = i / (EIGHT * TURNS) - BEFORE;
        float v[3];
#pragma unroll
        for (int x = 0; x < 3; x++) {
            const int32_t at = 2 * j - 1 + x;
            v[x] = at >= 0 && at < a.rows ? h[at * a.h.ld + c] : 0.0f;
        }
        put_words<BLOCK>(shared + AT_H + of * TABLE<BLOCK>, j, v[0], v[1], v[2]);
    }
}
/* A turn of all warps, but for memory: y's planes hold channels c0 + k gap. */
static __device__ __forceinline__ void take_turn(uint32_t *shared, const Mix &a, int k)
{
    const int warp = my_number() / 32;
    const uint32_t *z[ROLES], *band[ROLES];
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        z[r] = shared + ((k + r) % COLS_Z * EIGHT + warp) * PLANE;
        band[r] = shared + AT_BANDS + ((k * ROLES + r) * EIGHT + warp) * TABLE<BAND>;
    }
    uint32_t u[TILES][2];
    float sum[TILES][4];
    make_u(u, sum, z + 1, band + 1, ((const float *)a.skip.data)[my_member() * a.skip.member + k * a.gap + my_column() + warp]);
    __syncthreads();                                       /* the turn before has left y's planes                                    */
    convolve<false, 0, TILES>(sum, u, shared + AT_H + (k * EIGHT + warp) * TABLE<BLOCK> + lane_word<BLOCK>());
    make_y(shared + AT_Y + warp * PLANE, sum, z[0], band[0]);
    __syncthreads();
}
/* Blocks: (8 neighbouring c0, a.per sequences, member). */
static __global__ __launch_bounds__(FOUR_THREADS, 2) void mix_four(Mix a)
{
    MDR_SHARED(uint32_t, shared);
    Group w = my_group(a, (int32_t)blockIdx.y * a.per);
    if (w.s >= w.end) return;
    uint4 raw[COLS_Z][PARTS][2];
    fill_four(shared, a);
    read_group(raw, a, w.s);
    *my_first(shared) = w.s;
#pragma unroll 1
    for (; w.s < w.end; w = my_group(a, *my_first(shared))) {
        put_group(shared, raw);
        __syncthreads();
#pragma unroll 1
        for (int k = 0; k < TURNS; k++) {
            take_turn(shared, a, k);
            if (k + 1 < TURNS) put_columns(a, shared + AT_Y, *my_first(shared), k);
        }
        const int32_t first = *my_first(shared);
        read_group(raw, a, first + EIGHT);                /* while the last results go                                             */
        put_columns(a, shared + AT_Y, first, TURNS - 1);
        __syncwarp();
        *my_first(shared) = first + EIGHT;
        __syncwarp();
    }
}

/* ---- choosing ---- */
static bool in_fours(const Mix &a, int32_t n_seq)
{
    const Panel z = panel(a.z, a.rows, a.cols_z, n_seq, false), y = panel(a.y, a.rows, a.cols, n_seq, false);
    return a.rows > BLOCK / 2 && a.rows <= BLOCK && a.cols % (TURNS * EIGHT) == 0 && a.cols_z == a.cols / TURNS * COLS_Z && a.taps <= MOST_TAPS &&
           z.wide && y.wide && z.a.size == 2 && y.a.size == 2 && a.skip.size == 4;
}
static void launch_four(const Call *c, Mix a)
{
    const int64_t each = a.cols / (TURNS * EIGHT);
    a.per = (int32_t)best_share(mdr_ceil_div(c->extent.n_seq, EIGHT), each * c->extent.n_member, 2 * PROCESSORS) * EIGHT;
    MDR_ALLOW_SHARED(mix_four, FOUR_WORDS * sizeof(uint32_t));
    MDR_LAUNCH(mix_four, mdr_grid(each, mdr_ceil_div(c->extent.n_seq, a.per), c->extent.n_member), FOUR_THREADS, FOUR_WORDS * sizeof(uint32_t), c->stream, a);
}
#endif
