/* hyena_mix_grad on CUDA, in bf16: everything between dy and dz of Hyena's mixer in one pass that reads z and dy, writes dz and recomputes
 * the rest. A warp has one c0 (cuda_hyena_grad.h), 8 sequences and all their rows, at most 128, and takes its channels c0 + k gap by turns:
 *   1. x1, x2, v from z (bands on tensor cores), u = v x2 and dc = dy x1 become operands (32 registers); dskip's products
 *   2. c + skip u = (T + skip) u, then dx1; du = (T + skip)^T dc
 *   3. x2 and v once more; dx2, dv; their part of dz by the bands transposed, of dw and db
 * Sums over rows of products of two values are products of matrices [sequence x row] [row x sequence] whose diagonal counts: of 16 rows of
 * sums, 8 belong to z, 8 to z one row later; of another 16 8 to z two rows later and 8 to ones (db). dz stays in registers for all turns.
 * A block has 8 warps and a chunk of groups of 8 sequences, of which the next one is on its way while one is worked on. */
#include "op/cuda_hyena_grad.h"

enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP, IN_DY };
enum { OUT_DZ, OUT_DW, OUT_DB, OUT_DSKIP };
static constexpr int HALF = TILES / 2, MOST_TAPS = 3, THREADS = 32 * EIGHT;
static constexpr int SUMS = ROLES * (MOST_TAPS + 1) + 1;  /* of a channel: dw and db of three, dskip                               */
/* Shared memory, in words. */
static constexpr int AT_Z = 0, AT_DY = AT_Z + COLS_Z * EIGHT * PLANE, AT_RAW = AT_DY + EIGHT * PLANE, AT_H = AT_RAW + (COLS_Z + TURNS) * RAW * 4,
                     AT_W = AT_H + TURNS * EIGHT * TABLE<BLOCK>, AT_SUMS = AT_W + TURNS * ROLES * EIGHT * TABLE<BAND>,
                     SHARED = AT_SUMS + EIGHT * TURNS * SUMS * EIGHT;

struct MixGrad {
    Panel z, dy, dz;
    Arg w, b, h, skip;
    float *dw, *db, *dskip;                                /* partial sums: [member][chunk][..]                                     */
    uint32_t *tables;                                      /* of long filters: [member][channel][LONG_TABLE]                         */
    const int32_t *n_seq;
    int32_t rows, gap, taps, chunk, group;                 /* sequences of a chunk, of a group                                      */
};

/* h at a place, with skip; 0 outside. */
static __device__ __forceinline__ float filter_at(const MixGrad &a, int32_t m, int32_t c, int32_t at)
{
    const float h = at >= 0 && at < a.rows ? ((const float *)a.h.data)[m * a.h.member + at * a.h.ld + c] : 0.0f;
    return at == 0 ? h + ((const float *)a.skip.data)[m * a.skip.member + c] : h;
}
static __device__ __forceinline__ void fill_filters(uint32_t *table, const MixGrad &a, int32_t m, int32_t c0)
{
    for (int32_t i = (int32_t)threadIdx.x; i < TURNS * EIGHT * (BLOCK / 2 + BEFORE); i += THREADS) {
        const int32_t of = i % (EIGHT * TURNS), c = of / EIGHT * a.gap + c0 + of % EIGHT, j = i / (EIGHT * TURNS) - BEFORE;
        float v[3];
#pragma unroll
        for (int x = 0; x < 3; x++) v[x] = filter_at(a, m, c, 2 * j - 1 + x);
        put_words<BLOCK>(table + of * TABLE<BLOCK>, j, v[0], v[1], v[2]);
    }
}

/* What a turn of a warp works with: planes of the three roles' columns and of dy, the lane's word of the filter, tables of the bands. */
struct Turn { const uint32_t *z[ROLES], *h, *band[ROLES]; uint32_t *dy; };
static __device__ __forceinline__ Turn my_turn(uint32_t *shared, int at_band, int k)
{
    const int warp = my_number() / 32;
    Turn t;
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        t.z[r] = shared + AT_Z + ((k + r) % COLS_Z * EIGHT + warp) * PLANE;
        t.band[r] = shared + at_band + ((k * ROLES + r) * EIGHT + warp) * TABLE<BAND>;
    }
    t.dy = shared + AT_DY + warp * PLANE;
    t.h = NULL;
    return t;
}

static __device__ __forceinline__ int my_place(void) { return my_number() % 32 / 4 * LINE + my_number() % 4; }
/* u and dc as operands; dskip's sums. */
static __device__ __forceinline__ void gate(uint32_t (*u)[2], uint32_t (*dc)[2], float dskip[4], const Turn &t)
{
    Band f[ROLES];
    float bias[ROLES][4];
    uint32_t before[ROLES];
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        f[r] = make_band(t.band[r], lane_word<BAND>());
        make_bias(bias[r], t.band[r]);
        before[r] = t.z[r][my_place()];
    }
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t z[ROLES][4], dy[4];
#pragma unroll
        for (int r = 0; r < ROLES; r++) read_rows<false>(z[r], t.z[r], p);
        read_rows<true>(dy, t.dy, p);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = 2 * p + half;
            float s[ROLES][4], d[4];
#pragma unroll
            for (int r = 0; r < ROLES; r++) {
                convolve_short(s[r], bias[r], f[r], z[r] + 2 * half, before[r]);
                before[r] = z[r][2 * half + 1];
            }
            open(d, dy + 2 * half);
#pragma unroll
            for (int x = 0; x < 4; x++) {
                d[x] *= s[0][x];
                s[1][x] *= s[2][x];
            }
            turn(dc[i], d);
            turn(u[i], s[1]);
            const uint32_t rows[4] = {u[i][0], 0, u[i][1], 0};
            mma_16816(dskip, rows, dc[i]);
        }
    }
}
static __device__ __forceinline__ void clear(float (*v)[4], int n)
{
#pragma unroll
    for (int i = 0; i < n; i++) v[i][0] = v[i][1] = v[i][2] = v[i][3] = 0.0f;
}
/* What a turn adds to and works with. dz of a role's column is the next turn's dz of the role before. */
struct Sums { float dz[ROLES][TILES][4], of[ROLES][2][4], bias[ROLES - 1][4]; Band f[ROLES - 1], back[ROLES]; uint32_t after[ROLES]; };
/* The 16 rows of tile i: dz, dw, db. after: ds of the first 8 rows that follow, then of this tile's. */
static __device__ __forceinline__ void spread(Sums *a, const float du[4], const Turn &t, int i)
{
    const int lane = my_number() % 32, at = lane / 4 * LINE + lane % 4 + PAD + 8 * i;
    const uint32_t ones = 0x3f803f80u;
    uint32_t z[ROLES][2], early[ROLES][2], ds[ROLES][2];
    float s[2][4], dz[ROLES][4];
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        z[r][0] = t.z[r][at];
        z[r][1] = t.z[r][at + 4];
        early[r][0] = t.z[r][at - 1];                      /* two rows before                                                        */
        early[r][1] = t.z[r][at + 3];
        if (r > 0) convolve_short(s[r - 1], a->bias[r - 1], a->f[r - 1], z[r], t.z[r][at - 4]);
    }
#pragma unroll
    for (int x = 0; x < 4; x++) {
        const float x2 = s[0][x];
        s[0][x] = du[x] * s[1][x];
        s[1][x] = du[x] * x2;
    }
    ds[0][0] = t.dy[at];
    ds[0][1] = t.dy[at + 4];
    turn(ds[1], s[0]);
    turn(ds[2], s[1]);
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        const uint32_t near[4] = {z[r][0], __byte_perm(early[r][0], z[r][0], 0x5432), z[r][1], __byte_perm(early[r][1], z[r][1], 0x5432)};
        const uint32_t far[4] = {early[r][0], ones, early[r][1], ones};
        mma_16816(a->of[r][0], near, ds[r]);
        mma_16816(a->of[r][1], far, ds[r]);
#pragma unroll
        for (int x = 0; x < 4; x++) dz[r][x] = a->dz[r][i][x];
        mma_16816(dz[r], a->back[r].here, ds[r]);
    }
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        float *to = a->dz[(r + 2) % ROLES][i];
#pragma unroll
        for (int x = 0; x < 4; x++) to[x] = dz[r][x];
        mma_1688(to, a->back[r].near, a->after[r]);
        a->after[r] = ds[r][0];
    }
}
/* Lane (g, g / 2) has the diagonal of its 8 rows of sums; to: this sequence's. */
static __device__ __forceinline__ void add_diagonal(float *to, float even, float odd)
{
    const int lane = my_number() % 32, g = lane / 4;
    if (lane % 4 == g / 2) to[g] += g % 2 ? odd : even;
}

static __device__ __forceinline__ void begin_sums(Sums *a, const Turn &t)
{
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        clear(a->of[r], 2);
        a->back[r] = make_band_back(t.band[r], lane_word<BAND>());
        if (r > 0) a->f[r - 1] = make_band(t.band[r], lane_word<BAND>());
        if (r > 0) make_bias(a->bias[r - 1], t.band[r]);
        a->after[r] = 0;
    }
}
static __device__ __forceinline__ void end_sums(const Sums *a, float *sums)
{
#pragma unroll
    for (int r = 0; r < ROLES; r++)
#pragma unroll
        for (int k = 0; k < 4; k++) add_diagonal(sums + (r * 4 + k) * EIGHT, a->of[r][k / 2][k % 2 * 2], a->of[r][k / 2][k % 2 * 2 + 1]);
}

/* ---- a turn where a line is a sequence ---- */
/* dx1 = dy (c + skip u) of half a block's tiles takes dy's place. */
template <int FIRST> static __device__ __forceinline__ void gate_grad(const uint32_t (*u)[2], const Turn &t)
{
    float c[HALF][4];
    clear(c, HALF);
    convolve<false, FIRST, HALF>(c, u, t.h);
    const int lane = my_number() % 32;
    uint32_t dy[4], *to = t.dy + lane / 4 * LINE + lane % 4 + PAD + 8 * FIRST;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        uint32_t word[2];
        float d[4];
        if (i % 2 == 0) read_rows<true>(dy, t.dy, (FIRST + i) / 2);
        open(d, dy + i % 2 * 2);
#pragma unroll
        for (int x = 0; x < 4; x++) d[x] *= c[i][x];
        turn(word, d);
        if (i % 2 == 0) __syncwarp();                      /* all have read                                                          */
        to[8 * i] = word[0];
        to[8 * i + 4] = word[1];
    }
}
template <int FIRST> static __device__ __forceinline__ void spread_half(Sums *a, const uint32_t (*dc)[2], const Turn &t)
{
    float du[HALF][4];
    clear(du, HALF);
    convolve<true, FIRST, HALF>(du, dc, t.h);
#pragma unroll
    for (int i = FIRST + HALF - 1; i >= FIRST; i--) spread(a, du[i - FIRST], t, i);
}
static __device__ __forceinline__ void take_turn(Sums *a, float *sums, const Turn &t)
{
    float dskip[1][4];
    uint32_t dc[TILES][2], u[TILES][2];
    clear(dskip, 1);
    gate(u, dc, dskip[0], t);
    add_diagonal(sums + (SUMS - 1) * EIGHT, dskip[0][0], dskip[0][1]);
    gate_grad<HALF>(u, t);
    gate_grad<0>(u, t);
    __syncwarp();
    begin_sums(a, t);
    spread_half<HALF>(a, dc, t);
    spread_half<0>(a, dc, t);
    end_sums(a, sums);
}

/* ---- a turn where a sequence has several lines ----
 * Blocks of 32 rows take the place of sequences: y[32 a + i] = sum over d of (T's block at distance 32 d) times u[32 (a - d) + ..], for 8
 * neighbouring a at a time. What lies d = 8 D + e blocks back are operands read e blocks back, those of the D-th eight before. Operands of
 * dc and u stand in `work` as columns of 32 rows; sums go back to where they came from, as lines. */
static constexpr int COLUMN = 16 + 4, COLUMNS = 32, WORK = COLUMNS * COLUMN;
static constexpr int EARLY = 16;                           /* tables of long filters begin with word -16: zeros                     */
template <int LINES> constexpr int LONG_TABLE = 2 * OTHER<BLOCK * LINES>;

/* Words of four columns' groups of 8, e blocks back (TURNED: ahead); zeros beyond the sequence. */
template <bool TURNED, int LINES> static __device__ __forceinline__ void read_columns(uint32_t (*x)[2][2], const uint32_t *work, int e)
{
    const int lane = my_number() % 32, g = lane / 4, at = TURNED ? g + e : g - e;
    const bool here = TURNED ? at < 8 : at >= 0;
    work += at * COLUMN + lane % 4;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
        const bool inside = here || j % (LINES / 2) != (TURNED ? LINES / 2 - 1 : 0);
#pragma unroll
        for (int k = 0; k < 4; k++) x[j][k / 2][k % 2] = inside ? work[j * 8 * COLUMN + 4 * k] : 0;
    }
}
/* y[i][j]: rows 16 i of blocks 8 j on. f: the lane's word of f(0). */
template <bool TURNED, int LINES> static __device__ __forceinline__ void convolve_lines(float (*y)[COLUMNS / 8][4], const uint32_t *work, const uint32_t *f)
{
#pragma unroll 1
    for (int e = 0; e < 8; e++) {
        uint32_t x[COLUMNS / 8][2][2];
        read_columns<TURNED, LINES>(x, work, e);
#pragma unroll
        for (int d = 0; d < LINES / 2; d++) {
            uint32_t w[7];                                 /* w[3 + k]: 8 k further                                                  */
#pragma unroll
            for (int k = 0; k < 7; k++) w[k] = TURNED ? transpose_8x8(f[128 * d + 16 * e + 4 * (k - 3)]) : f[128 * d + 16 * e + 4 * (k - 3)];
#pragma unroll
            for (int k = 0; k < 2; k++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int c = 3 + 2 * (TURNED ? k - i : i - k);
                    const uint32_t a[4] = {w[c], w[TURNED ? c - 1 : c + 1], w[TURNED ? c + 1 : c - 1], w[c]};
#pragma unroll
                    for (int j = 0; j < COLUMNS / 8; j++)
                        if (TURNED ? j % (LINES / 2) + d < LINES / 2 : j % (LINES / 2) >= d) mma_16816(y[i][j], a, x[TURNED ? j + d : j - d][k]);
                }
        }
    }
}
/* T x or T^T x takes the place of x, as lines. */
template <bool TURNED, int LINES> static __device__ __forceinline__ void convolve_in_place(uint32_t *work, const uint32_t *f)
{
    float y[2][COLUMNS / 8][4];
    clear(y[0], COLUMNS / 8);
    clear(y[1], COLUMNS / 8);
    __syncwarp();
    convolve_lines<TURNED, LINES>(y, work, f);
    __syncwarp();
    const int lane = my_number() % 32, g = lane / 4;
    uint32_t *to = work + g / 4 * LINE + PAD + g % 4 * 16 + lane % 4;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t word[2];
            turn(word, y[i][j]);
            to[2 * j * LINE + 8 * i] = word[0];
            to[2 * j * LINE + 8 * i + 4] = word[1];
        }
    __syncwarp();
}
/* dx1 takes dy's place, given c + skip u as lines. */
static __device__ __forceinline__ void gate_grad_lines(const uint32_t *c, const Turn &t)
{
    uint32_t *to = t.dy + my_place() + PAD;
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t dy[4], by[4];
        read_rows<true>(dy, t.dy, p);
        read_rows<true>(by, c, p);
        __syncwarp();                                      /* all have read                                                          */
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t word[2];
            float d[4], v[4];
            open(d, dy + 2 * half);
            open(v, by + 2 * half);
#pragma unroll
            for (int x = 0; x < 4; x++) d[x] *= v[x];
            turn(word, d);
            to[16 * p + 8 * half] = word[0];
            to[16 * p + 8 * half + 4] = word[1];
        }
    }
}
/* The last rows of a line have missed what the next line begins with. */
template <int LINES> static __device__ __forceinline__ void spread_over_lines(Sums *a)
{
    const int line = my_number() % 32 / 4;
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        const uint32_t next = __shfl_down_sync(0xffffffffu, a->after[r], 4);
        mma_1688(a->dz[(r + 2) % ROLES][TILES - 1], a->back[r].near, (line + 1) % LINES ? next : 0);
    }
}
template <int LINES> static __device__ __forceinline__ void take_long_turn(Sums *a, float *sums, const Turn &t, uint32_t *work)
{
    {
        float dskip[1][4];
        uint32_t dc[TILES][2], u[TILES][2];
        clear(dskip, 1);
        gate(u, dc, dskip[0], t);
        add_diagonal(sums + (SUMS - 1) * EIGHT, dskip[0][0], dskip[0][1]);
        uint32_t *to = work + my_number() % 32 / 4 * (BLOCK / 32) * COLUMN + my_number() % 4;
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                to[i / 2 * COLUMN + i % 2 * 8 + 4 * k] = u[i][k];
                to[i / 2 * COLUMN + i % 2 * 8 + 4 * k + WORK] = dc[i][k];
            }
    }
    convolve_in_place<false, LINES>(work, t.h);
    gate_grad_lines(work, t);
    convolve_in_place<true, LINES>(work + WORK, t.h);
    begin_sums(a, t);
#pragma unroll
    for (int p = TILES / 2 - 1; p >= 0; p--) {
        uint32_t word[4];
        read_rows<true>(word, work + WORK, p);
#pragma unroll
        for (int half = 1; half >= 0; half--) {
            float du[4];
            open(du, word + 2 * half);
            spread(a, du, t, 2 * p + half);
        }
    }
    spread_over_lines<LINES>(a);
    end_sums(a, sums);
}

/* dz from registers to the warp's planes of z, from those to memory. */
static __device__ __forceinline__ void put_planes(uint32_t *z, const float (*dz)[TILES][4])
{
    const int lane = my_number() % 32, warp = my_number() / 32;
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROLES; r++)
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            uint32_t word[2], *to = z + ((TURNS + r) % COLS_Z * EIGHT + warp) * PLANE + lane / 4 * LINE + PAD + 8 * i + lane % 4;
            turn(word, dz[r][i]);
            to[0] = word[0];
            to[4] = word[1];
        }
}
static __device__ __forceinline__ void put_row(const Panel &p, int64_t at, int32_t col, const uint4 &row)
{
    if (p.wide && p.a.size == 2) {
        *(uint4 *)((bf16 *)p.a.data + at + col) = row;
    } else {
        const float v[8] = {low_bf16(row.x), high_bf16(row.x), low_bf16(row.y), high_bf16(row.y),
                            low_bf16(row.z), high_bf16(row.z), low_bf16(row.w), high_bf16(row.w)};
        write_8(p, at, col, v);
    }
}
template <int LINES> static __device__ __forceinline__ void put_columns(const Panel &p, const uint32_t *planes, const Group &w, int32_t col)
{
    const int thread = my_number();
#pragma unroll
    for (int i = 0; i < RAW / 2 / THREADS; i++) {
        const int id = i * THREADS + thread;
        const Pair x = pair_at<LINES>(w, id);
        const uint32_t *from = planes + id / (BLOCK / 2) * LINE + PAD + id % (BLOCK / 2);
        uint32_t v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = from[j * PLANE];
        if (x.s >= w.end || x.t >= w.rows) continue;
        const int64_t at = arg_row(p.a, w.m, x.s, x.t);
        put_row(p, at, col, make_uint4(__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[4], v[5], 0x5410),
                                       __byte_perm(v[6], v[7], 0x5410)));
        if (x.t + 1 >= w.rows) continue;
        put_row(p, at + p.a.ld, col, make_uint4(__byte_perm(v[0], v[1], 0x7632), __byte_perm(v[2], v[3], 0x7632), __byte_perm(v[4], v[5], 0x7632),
                                                __byte_perm(v[6], v[7], 0x7632)));
    }
}
/* The chunk's sums over its sequences, in order, to where the second stage wants them. */
static __device__ __forceinline__ void put_sums(const MixGrad &a, const float *sums, int32_t c0)
{
    const int32_t channels = TURNS * a.gap, wide = ROLES * channels;
    const int64_t chunk = (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
    for (int32_t i = (int32_t)threadIdx.x; i < EIGHT * TURNS * SUMS; i += THREADS) {
        const int32_t warp = i % EIGHT, k = i / EIGHT % TURNS, what = i / (EIGHT * TURNS), c = k * a.gap + c0 + warp;
        const float *from = sums + ((warp * TURNS + k) * SUMS + what) * EIGHT;
        float v = 0.0f;
#pragma unroll
        for (int s = 0; s < EIGHT; s++) v += from[s];
        if (what == SUMS - 1) a.dskip[chunk * channels + c] = v;
        else if (what % 4 == MOST_TAPS) a.db[chunk * wide + what / 4 * channels + c] = v;
        else if (what % 4 < a.taps) a.dw[(chunk * a.taps + a.taps - 1 - what % 4) * wide + what / 4 * channels + c] = v;
    }
}

/* The block's c0, member and chunk of sequences, or none. */
static __device__ __forceinline__ bool find_chunk(const MixGrad &a, Group *w, int32_t *c0)
{
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m], first = (int32_t)blockIdx.y * a.chunk;
    *c0 = (int32_t)blockIdx.x * EIGHT;
    *w = Group{m, first, first + a.chunk < n ? first + a.chunk : n, a.rows};
    return w->s < w->end;
}
/* Zeros before the lines, zeros to start sums from, tables of the bands. */
static __device__ __forceinline__ void begin_chunk(uint32_t *shared, int at_sums, int at_band, const MixGrad &a, int32_t m, int32_t c0)
{
    for (int i = (int)threadIdx.x; i < (COLS_Z + 1) * EIGHT * EIGHT * PAD; i += THREADS) shared[AT_Z + i / PAD * LINE + i % PAD] = 0;
    for (int i = (int)threadIdx.x; i < EIGHT * TURNS * SUMS * EIGHT; i += THREADS) shared[at_sums + i] = 0;
    fill_bands(shared + at_band, Taps{a.w, a.b, a.taps, a.gap}, m, c0, 0, TURNS);
}
static __device__ __forceinline__ void begin_group(Sums *of)
{
#pragma unroll
    for (int r = 0; r < ROLES; r++) clear(of->dz[r], TILES);
}
template <int LINES> static __device__ __forceinline__ void end_group(uint32_t *shared, const MixGrad &a, const Sums *of, const Group &now, int32_t c0)
{
    put_planes(shared + AT_Z, of->dz);
    __syncthreads();
    for (int r = 0; r < COLS_Z && a.dz.a.data; r++) put_columns<LINES>(a.dz, shared + AT_Z + r * EIGHT * PLANE, now, r * a.gap + c0);
    __syncthreads();
}

/* Copies what a turn of the next group reads first. */
static __device__ __forceinline__ void copy_turn(uint4 *raw, const MixGrad &a, const Group &w, int32_t c0, int k)
{
    if (w.s < w.end) {
        for (int r = 0; r < COLS_Z && k == 0; r++) copy_columns<THREADS, 1>(raw + r * RAW, a.z, w, r * a.gap + c0);
        copy_columns<THREADS, 1>(raw + (COLS_Z + k) * RAW, a.dy, w, k * a.gap + c0);
    }
    copy_commit();
}
static __device__ __forceinline__ void rearrange_turn(uint32_t *shared, const uint4 *raw, int k)
{
    copy_wait<TURNS - 1>();
    for (int r = 0; r < COLS_Z && k == 0; r++) rearrange<THREADS, 1>(shared + AT_Z + r * EIGHT * PLANE, raw + r * RAW);
    rearrange<THREADS, 1>(shared + AT_DY, raw + (COLS_Z + k) * RAW);
}
static __global__ __launch_bounds__(THREADS, 1) void mix_grad(MixGrad a)
{
    MDR_SHARED(uint32_t, shared);
    Group now;
    int32_t c0;
    if (!find_chunk(a, &now, &c0)) return;
    uint4 *raw = (uint4 *)(shared + AT_RAW);
    float *sums = (float *)(shared + AT_SUMS);
    for (int k = 0; k < TURNS; k++) copy_turn(raw, a, now, c0, k);
    begin_chunk(shared, AT_SUMS, AT_W, a, now.m, c0);
    fill_filters(shared + AT_H, a, now.m, c0);
    for (; now.s < now.end; now.s += a.group) {
        const Group next = {now.m, now.s + a.group, now.end, now.rows};
        Sums of;
        begin_group(&of);
#pragma unroll 1
        for (int k = 0; k < TURNS; k++) {
            if (k > 0) __syncthreads();
            rearrange_turn(shared, raw, k);
            copy_turn(raw, a, next, c0, k);
            __syncthreads();
            Turn t = my_turn(shared, AT_W, k);
            t.h = shared + AT_H + (k * EIGHT + my_number() / 32) * TABLE<BLOCK> + lane_word<BLOCK>();
            take_turn(&of, sums + (my_number() / 32 * TURNS + k) * SUMS * EIGHT, t);
        }
        end_group<1>(shared, a, &of, now, c0);
    }
    put_sums(a, sums, c0);
}

/* ---- several lines: filters come as tables made before, one turn's at a time; z comes when a group begins ---- */
template <int LINES> struct Long {
    static constexpr int WORKS = AT_DY + EIGHT * PLANE, H = WORKS + EIGHT * 2 * WORK, TABLES = EIGHT * LONG_TABLE<LINES>, BANDS = H + 2 * TABLES,
                         SUMMED = BANDS + TURNS * ROLES * EIGHT * TABLE<BAND>, RAWS = SUMMED + EIGHT * TURNS * SUMS * EIGHT, SHARED_WORDS = RAWS + RAW * 4;
};
/* Words of all channels' tables: skip is part of the filter. */
template <int LINES> static __global__ void make_tables(MixGrad a)
{
    const int32_t m = (int32_t)blockIdx.z, channels = TURNS * a.gap, i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), c = i % channels;
    const int32_t j = i / channels - EARLY;
    if (a.n_seq[m] == 0 || j >= BLOCK * LINES / 2) return;
    float v[3];
#pragma unroll
    for (int x = 0; x < 3; x++) v[x] = filter_at(a, m, c, 2 * j - 1 + x);
    put_words<BLOCK * LINES>(a.tables + ((int64_t)m * channels + c) * LONG_TABLE<LINES> + EARLY - BEFORE, j, v[0], v[1], v[2]);
}
template <int LINES> static __device__ __forceinline__ void copy_long_turn(uint32_t *shared, const MixGrad &a, const Group &w, int32_t c0, int k)
{
    typedef Long<LINES> At;
    if (w.s < w.end) {
        const uint32_t *from = a.tables + ((int64_t)w.m * TURNS * a.gap + k * a.gap + c0) * LONG_TABLE<LINES>;
        copy_columns<THREADS, LINES>((uint4 *)(shared + At::RAWS), a.dy, w, k * a.gap + c0);
        for (int i = my_number(); i < At::TABLES / 4; i += THREADS) copy_16(shared + At::H + k % 2 * At::TABLES + 4 * i, from + 4 * i, true);
    }
    copy_commit();
}
/* z, and the first turn's dy, which has been copied. */
template <int LINES> static __device__ __forceinline__ void read_group(uint32_t *shared, const MixGrad &a, const Group &w, int32_t c0)
{
    typedef Long<LINES> At;
    uint4 *raw = (uint4 *)(shared + At::RAWS), *work = (uint4 *)(shared + At::WORKS);
    for (int r = 0; r < 2; r++) copy_columns<THREADS, LINES>(work + r * RAW, a.z, w, r * a.gap + c0);
    copy_commit();
    copy_wait<1>();
    rearrange<THREADS, LINES>(shared + AT_DY, raw);
    copy_columns<THREADS, LINES>(raw, a.z, w, 2 * a.gap + c0);
    copy_commit();
    copy_wait<1>();
    for (int r = 0; r < 2; r++) rearrange<THREADS, LINES>(shared + AT_Z + r * EIGHT * PLANE, work + r * RAW);
    copy_wait<0>();
    rearrange<THREADS, LINES>(shared + AT_Z + 2 * EIGHT * PLANE, raw);
    __syncthreads();
}
template <int LINES> static __global__ __launch_bounds__(THREADS, 1) void long_mix_grad(MixGrad a)
{
    typedef Long<LINES> At;
    MDR_SHARED(uint32_t, shared);
    Group now;
    int32_t c0;
    if (!find_chunk(a, &now, &c0)) return;
    float *sums = (float *)(shared + At::SUMMED);
    copy_long_turn<LINES>(shared, a, now, c0, 0);
    begin_chunk(shared, At::SUMMED, At::BANDS, a, now.m, c0);
    __syncthreads();                                       /* not every line has zeros before it                                     */
    for (; now.s < now.end; now.s += a.group) {
        Sums of;
        begin_group(&of);
        read_group<LINES>(shared, a, now, c0);
#pragma unroll 1
        for (int k = 0; k < TURNS; k++) {
            const Group next = {now.m, now.s + (k + 1 < TURNS ? 0 : a.group), now.end, now.rows};
            copy_long_turn<LINES>(shared, a, next, c0, (k + 1) % TURNS);
            const int warp = my_number() / 32;
            Turn t = my_turn(shared, At::BANDS, k);
            t.h = shared + At::H + (k % 2 * EIGHT + warp) * LONG_TABLE<LINES> + lane_word<BLOCK * LINES>() + EARLY - BEFORE;
            take_long_turn<LINES>(&of, sums + (warp * TURNS + k) * SUMS * EIGHT, t, shared + At::WORKS + warp * 2 * WORK);
            __syncthreads();
            if (k + 1 == TURNS) break;
            copy_wait<0>();
            rearrange<THREADS, LINES>(shared + AT_DY, (uint4 *)(shared + At::RAWS));
            __syncthreads();
        }
        end_group<LINES>(shared, a, &of, now, c0);
    }
    put_sums(a, sums, c0);
}

/* ---- choosing ---- */
enum { MOST_ROWS = EIGHT * BLOCK };
static int32_t lines_of(int32_t rows) { return rows <= BLOCK ? 1 : rows <= 2 * BLOCK ? 2 : rows <= 4 * BLOCK ? 4 : 8; }
static bool applies(const Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, dy = n->in_type[IN_DY].shape;
    return dy.d[0] <= MOST_ROWS && dy.d[1] % (TURNS * EIGHT) == 0 && z.d[1] == dy.d[1] / TURNS * COLS_Z && n->in_type[IN_W].shape.d[0] <= MOST_TAPS &&
           !((n->in_type[IN_W].axes | n->in_type[IN_B].axes | n->in_type[IN_H].axes | n->in_type[IN_SKIP].axes) & MDR_AXIS_SEQ);
}
/* Chunks of groups of sequences, 8 of them at most: some 128 blocks with a batch alone. One sequence a chunk where sums are wanted of each. */
enum { MOST_CHUNKS = 8 };
static void widths(const Node *n, int64_t *dw, int64_t *db, int64_t *dskip)
{
    *dskip = n->in_type[IN_DY].shape.d[1];
    *db = ROLES * *dskip;
    *dw = *db * n->in_type[IN_W].shape.d[0];
}
static int64_t partial_words(const Node *n, Extent e)
{
    int64_t dw, db, dskip;
    widths(n, &dw, &db, &dskip);
    return (dw + db + dskip) * cut_room(1, e, EIGHT, MOST_CHUNKS);
}
static size_t scratch(const Node *n, Extent e)
{
    const Shape dy = n->in_type[IN_DY].shape;
    const int64_t lines = lines_of(dy.d[0]), table = lines > 1 ? lines * BLOCK + 2 * EARLY : 0;
    return sizeof(float) * (size_t)(mdr_ceil_div(partial_words(n, e), 4) * 4 + table * dy.d[1] * e.n_member);
}

template <int LINES> static void launch(const Call *c, const MixGrad &a, const Cut &k)
{
    const dim3 grid = mdr_grid(a.gap / EIGHT, k.count, c->extent.n_member);
    if constexpr (LINES == 1) {
        MDR_ALLOW_SHARED(mix_grad, SHARED * sizeof(uint32_t));
        MDR_LAUNCH(mix_grad, grid, THREADS, SHARED * sizeof(uint32_t), c->stream, a);
    } else {
        const size_t bytes = Long<LINES>::SHARED_WORDS * sizeof(uint32_t);
        MDR_LAUNCH((make_tables<LINES>), mdr_grid(mdr_ceil_div((int64_t)OTHER<BLOCK * LINES> * TURNS * a.gap, 256), 1, c->extent.n_member), 256, 0, c->stream, a);
        MDR_ALLOW_SHARED((long_mix_grad<LINES>), bytes);
        MDR_LAUNCH((long_mix_grad<LINES>), grid, THREADS, bytes, c->stream, a);
    }
}
static void hyena_mix_grad(const Call *c, int64_t, int64_t)
{
    const Shape z = c->node->in_type[IN_Z].shape, dy = c->node->in_type[IN_DY].shape;
    const int32_t n = c->extent.n_seq, lines = lines_of(dy.d[0]);
    bool together = true;
    for (int i = OUT_DW; i <= OUT_DSKIP; i++) together = together && (!c->out[i].data || (c->add >> i & 1u));
    const Cut k = cut_groups(n, together, MOST_CHUNKS);
    int64_t dw, db, dskip;
    widths(c->node, &dw, &db, &dskip);
    const int64_t chunks = (int64_t)k.count * c->extent.n_member;
    float *part = (float *)c->scratch;
    const MixGrad a = {panel(c->in[IN_Z], z.d[0], z.d[1], n, false), panel(c->in[IN_DY], dy.d[0], dy.d[1], n, false),
                       panel(c->out[OUT_DZ], z.d[0], z.d[1], n, false), c->in[IN_W], c->in[IN_B], c->in[IN_H], c->in[IN_SKIP],
                       part, part + chunks * dw, part + chunks * (dw + db), (uint32_t *)part + mdr_ceil_div(partial_words(c->node, c->extent), 4) * 4,
                       c->n_seq, dy.d[0], dy.d[1] / TURNS, c->node->in_type[IN_W].shape.d[0], (int32_t)k.per, k.together ? EIGHT / lines : 1};
    if (lines == 1) launch<1>(c, a, k);
    else if (lines == 2) launch<2>(c, a, k);
    else if (lines == 4) launch<4>(c, a, k);
    else launch<8>(c, a, k);
    const struct { int32_t out; const float *from; int64_t width, cols; } sum[] = {{OUT_DW, a.dw, dw, db}, {OUT_DB, a.db, db, db}, {OUT_DSKIP, a.dskip, dskip, dskip}};
    for (const auto &s : sum) {
        Cut of = k;
        const bool add = (c->add >> s.out & 1u) != 0;
        if (add) of.together = true;
        if (c->out[s.out].data) enqueue_add_chunks(c, c->out[s.out], add, s.from, of, s.width, s.cols);
    }
}

extern "C" const CudaRow mdr_cuda_rows_hyena_mix_grad[] = {{"hyena_mix_grad", {hyena_mix_grad, NULL, scratch, {}}, applies, 0, 0}, {}};
