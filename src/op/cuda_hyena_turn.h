/* One turn of one warp of hyena_mix_grad.cu: from planes of z and dy to what it adds to dz, dw, db and dskip, for one channel and the 1,024
 * rows that its lines hold. A line is a sequence, or a sequence has 2, 4 or 8 lines. */
#ifndef MDR_CUDA_HYENA_TURN_H
#define MDR_CUDA_HYENA_TURN_H
#include "op/cuda_hyena_grad.h"

static constexpr int HALF = TILES / 2;
static constexpr int SUMS = ROLES * (MOST_TAPS + 1) + 1;  /* of a channel: dw and db of three, dskip                               */

/* What a turn of a warp works with: planes of the three roles' columns and of dy, the filter (the lane's word of f(0); of many rows:
 * its line in memory), tables of the bands. */
struct Turn {
    const uint32_t *z[ROLES], *h, *band[ROLES];
    uint32_t *dy, *u, *dc;                                 /* u, dc: lines of the first sequence, for the filter's gradient, or NULL */
    int32_t left, far;                                     /* sequences that are there, words from one's line to the next's          */
};
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
/* Words of rows 16 i on to a line: neighbouring lanes change one of two words, and four write 32 bytes. */
static __device__ __forceinline__ void hand_on(uint32_t *to, bool there, const uint32_t (*x)[2])
{
    const int q = my_number() % 4;
    to += q % 2 * 4 + q / 2 * 2;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, q % 2 ? x[i][0] : x[i][1], 1);
        const uint2 word = q % 2 ? make_uint2(other, x[i][1]) : make_uint2(x[i][0], other);
        if (there) *(uint2 *)(to + 8 * i) = word;
    }
}
static __device__ __forceinline__ void take_turn(Sums *a, float *sums, const Turn &t)
{
    float dskip[1][4];
    uint32_t dc[TILES][2], u[TILES][2];
    clear(dskip, 1);
    gate(u, dc, dskip[0], t);
    add_diagonal(sums + (SUMS - 1) * EIGHT, dskip[0][0], dskip[0][1]);
    if (t.u) {
        const int g = my_number() % 32 / 4;
        hand_on(t.u + g * t.far, g < t.left, u);
        hand_on(t.dc + g * t.far, g < t.left, dc);
    }
    gate_grad<HALF>(u, t);
    gate_grad<0>(u, t);
    __syncwarp();
    begin_sums(a, t);
    spread_half<HALF>(a, dc, t);
    spread_half<0>(a, dc, t);
    end_sums(a, sums);
}

/* ---- a turn where a sequence has several lines ----
 * y = T u, a product [16 p] x [8 b] contracted over time for each line of 128 rows: with rows 8 p + b of a line,
 *   y[8 p + b] = sum over s of u[8 p + s] h[b - s].
 * Rows of u's operand are 8 rows apart in time, so ldmatrix reads them from lines as they stand; h's are words of its table, the same for
 * all sequences. A window of 128 s, which ends 8 rows after a line's beginning, meets all lines of its sequence from there on: at 1,024 rows 8
 * loads of u and 16 words of h serve for 36 products. Sums are words of a line as they come. T^T dc is the same with time reversed. */
static constexpr int EARLY = 16;                           /* tables of long filters begin with word -16: zeros                     */
template <int LINES> constexpr int LONG_TABLE = 2 * OTHER<BLOCK * LINES>;
static __device__ __forceinline__ uint32_t swapped(uint32_t word) { return __byte_perm(word, 0, 0x1032); }
/* The filter of a warp's channel, a line of words of two places in memory: a lane's pieces on their way, then its tables. */
template <int LINES> struct Pieces { uint4 of[LINES / 2]; };
template <int LINES> static __device__ __forceinline__ void read_filter(Pieces<LINES> *p, const uint32_t *line)
{
#pragma unroll
    for (int i = 0; i < LINES / 2; i++) p->of[i] = *(const uint4 *)(line + 128 * i + my_number() % 32 * 4);
}
template <int LINES> static __device__ __forceinline__ void put_tables(uint32_t *table, const Pieces<LINES> &p)
{
    const int lane = my_number() % 32;
    uint32_t *to = table + EARLY + 4 * lane, last = 0;
    table[lane / 16 * OTHER<BLOCK * LINES> + lane % 16] = 0;
#pragma unroll
    for (int i = 0; i < LINES / 2; i++) {
        const uint4 v = p.of[i];
        const uint32_t before = __shfl_up_sync(0xffffffffu, v.w, 1), x = lane > 0 ? before : last;
        last = __shfl_sync(0xffffffffu, v.w, 31);
        *(uint4 *)(to + 128 * i) = make_uint4(__byte_perm(x, v.x, 0x3254), __byte_perm(v.x, v.y, 0x3254), __byte_perm(v.y, v.z, 0x3254),
                                              __byte_perm(v.z, v.w, 0x3254));
        *(uint4 *)(to + 128 * i + OTHER<BLOCK * LINES>) = make_uint4(swapped(v.x), swapped(v.y), swapped(v.z), swapped(v.w));
    }
}

/* Lines in `work` stand as in planes; what is before the first one of a sequence are the zeros that `work` begins with. */
static __device__ __forceinline__ int work_line(int line) { return line * LINE + PAD; }
template <int LINES> static __device__ __forceinline__ int reversed_line(int line) { return work_line(line / LINES * LINES + LINES - 1 - line % LINES); }
/* y[line]: lane i has rows 2 i and 64 + 2 i on. f: the lane's word of f(0). */
template <int LINES> static __device__ __forceinline__ void convolve_lines(float (*y)[4], const uint32_t *work, const uint32_t *f)
{
    const int lane = my_number() % 32, row = lane % 8 * 4 + lane / 8 % 2 * 32 + lane / 16 * 4 - 60;
#pragma unroll 1
    for (int k = 0; k < BLOCK / 16; k++) {
        uint32_t x[EIGHT][4], h[LINES][2];
        const int at = row + 8 * k;
        const uint32_t *from = work + PAD + at + (at < 0 ? BLOCK / 2 - LINE : 0);
#pragma unroll
        for (int d = 0; d < LINES; d++) {
            h[d][0] = f[64 * d + 60 - 8 * k];
            h[d][1] = f[64 * d + 56 - 8 * k];
        }
#pragma unroll
        for (int i = 0; i < EIGHT; i++) ldmatrix<4, false>(x[i], i % LINES || at >= 0 ? from + i * LINE : work);
#pragma unroll
        for (int d = 0; d < LINES; d++)
#pragma unroll
            for (int i = 0; i < EIGHT; i++)
                if (i % LINES + d < LINES) mma_16816(y[i + d], x[i], h[d]);
    }
}
/* T x takes the place of x. REVERSED: x is, the result no more. */
template <bool REVERSED, int LINES> static __device__ __forceinline__ void convolve_in_place(uint32_t *work, const uint32_t *table)
{
    float y[EIGHT][4];
    clear(y, EIGHT);
    __syncwarp();
    convolve_lines<LINES>(y, work, table + lane_word<BLOCK * LINES>() + EARLY - BEFORE);
    __syncwarp();
    const int lane = my_number() % 32;
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float v = y[i][2 * k], w = y[i][2 * k + 1];
            if (REVERSED) work[reversed_line<LINES>(i) + 63 - 32 * k - lane] = pack_bf16(w, v);
            else work[work_line(i) + 32 * k + lane] = pack_bf16(v, w);
        }
    __syncwarp();
}
/* As read_rows<true>. */
static __device__ __forceinline__ void read_lines(uint32_t word[4], const uint32_t *work, int p)
{
    const int lane = my_number() % 32;
    ldmatrix<4, true>(word, work + work_line(lane % 8) + lane / 8 * 4 + 16 * p);
}
/* dx1 takes dy's place, given c + skip u as lines. */
static __device__ __forceinline__ void gate_grad_lines(const uint32_t *c, const Turn &t)
{
    uint32_t *to = t.dy + my_place() + PAD;
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t dy[4], by[4];
        read_rows<true>(dy, t.dy, p);
        read_lines(by, c, p);
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
/* u and dc, which is reversed, to memory. */
template <int LINES> static __device__ __forceinline__ void hand_on_lines(const Turn &t, const uint32_t *work)
{
    const int lane = my_number() % 32;
#pragma unroll
    for (int j = 0; j < EIGHT / 2; j++) {
        const int line = 2 * j + lane / 16, word = lane % 16 * 4, s = line / LINES, to = s * t.far + line % LINES * (BLOCK / 2) + word;
        if (s >= t.left) continue;
        const uint4 v = *(const uint4 *)(work + PLANE + reversed_line<LINES>(line) + 60 - word);
        *(uint4 *)(t.u + to) = *(const uint4 *)(work + work_line(line) + word);
        *(uint4 *)(t.dc + to) = make_uint4(swapped(v.w), swapped(v.z), swapped(v.y), swapped(v.x));
    }
}
template <int LINES> static __device__ __forceinline__ void take_long_turn(Sums *a, float *sums, const Turn &t, uint32_t *work, uint32_t *table)
{
    {
        float dskip[1][4];
        uint32_t dc[TILES][2], u[TILES][2];
        clear(dskip, 1);
        gate(u, dc, dskip[0], t);
        add_diagonal(sums + (SUMS - 1) * EIGHT, dskip[0][0], dskip[0][1]);
        Pieces<LINES> filter;
        read_filter<LINES>(&filter, t.h);
        const int lane = my_number() % 32;
        uint32_t *to = work + work_line(lane / 4) + lane % 4, *back = work + PLANE + reversed_line<LINES>(lane / 4) + 63 - lane % 4;
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                to[8 * i + 4 * k] = u[i][k];
                back[-8 * i - 4 * k] = swapped(dc[i][k]);
            }
        __syncwarp();
        if (t.u) hand_on_lines<LINES>(t, work);
        put_tables<LINES>(table, filter);
    }
    convolve_in_place<false, LINES>(work, table);
    gate_grad_lines(work, t);
    convolve_in_place<true, LINES>(work + PLANE, table);
    begin_sums(a, t);
#pragma unroll
    for (int p = TILES / 2 - 1; p >= 0; p--) {
        uint32_t word[4];
        read_lines(word, work + PLANE, p);
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
#endif
