/* hyena_mix on CUDA, in bf16, of 129 to 1,024 rows: y = (conv_long(u, h) + skip u) x1 in one pass that reads z and writes y once. As in
 * hyena_mix_grad.cu a warp has one c0 (cuda_hyena_grad.h), the 1,024 rows that 8 lines hold, and takes its channels c0 + k gap by turns:
 *   1. x2, v from z (bands on tensor cores), u = v x2 to lines
 *   2. c + skip u takes the place of u
 *   3. x1 from z, y takes the place of c; all 8 warps' lines go to memory as pieces of rows
 * Two blocks share a processor: one loads z or writes y while the other multiplies. Filters lie in memory as lines of bf16; a warp makes its
 * tables of them, which come as it makes u. */
#include "op/cuda_hyena_turn.h"

enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP };
static constexpr int THREADS = 32 * EIGHT;

#ifndef V_REGISTERS
#define V_REGISTERS true
#endif
#ifndef V_WAVES
#define V_WAVES 8
#endif
static constexpr bool IN_REGISTERS = V_REGISTERS;
struct MixLong {
    Panel z, y;
    Arg w, b, h, skip;
    uint32_t *lines;                                       /* filters: [member][channel][word of two places]                         */
    const int32_t *n_seq;
    int32_t rows, gap, taps, chunk, group;                 /* sequences of a chunk, of a group                                      */
};
/* Shared memory, in words: z comes where lines and tables are not yet. */
template <int LINES> struct At {
    static constexpr int Z = 0, WORKS = COLS_Z * EIGHT * PLANE, H = WORKS + EIGHT * PLANE, TABLES = EIGHT * LONG_TABLE<LINES>,
                         RAWS = COLS_Z * RAW * 4, BANDS = WORKS + (H + TABLES - WORKS > RAWS ? H + TABLES - WORKS : RAWS),
                         EACH_BAND = ROLES * EIGHT * TABLE<BAND>, WORDS = BANDS + 2 * EACH_BAND;
};

template <int LINES> static __global__ void make_lines(MixLong a)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, channels = TURNS * a.gap, i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), c = i % channels;
    const int32_t j = i / channels;
    if (a.n_seq[m] == 0 || j >= BLOCK * LINES / 2) return;
    const float *h = (const float *)a.h.data + m * a.h.member + 2 * j * a.h.ld + c;
    const float skip = LINES == 2 && IN_REGISTERS && j == 0 ? ((const float *)a.skip.data)[m * a.skip.member + c] : 0.0f;
    a.lines[((int64_t)m * channels + c) * (LINES * BLOCK / 2) + j] = pack_bf16((2 * j < a.rows ? h[0] : 0.0f) + skip, 2 * j + 1 < a.rows ? h[a.h.ld] : 0.0f);
}

/* u as operands, or to lines. */
template <bool KEPT> static __device__ __forceinline__ void make_u(uint32_t (*u)[2], uint32_t *work, const Turn &t)
{
    const int lane = my_number() % 32;
    uint32_t *to = work + work_line(lane / 4) + lane % 4;
    if (lane < PAD) work[lane] = 0;
    Band f[ROLES];
    float bias[ROLES][4];
    uint32_t before[ROLES];
#pragma unroll
    for (int r = 1; r < ROLES; r++) {
        f[r] = make_band(t.band[r], lane_word<BAND>());
        make_bias(bias[r], t.band[r]);
        before[r] = t.z[r][my_place()];
    }
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t z[ROLES][4];
#pragma unroll
        for (int r = 1; r < ROLES; r++) read_rows<false>(z[r], t.z[r], p);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float s[ROLES][4];
#pragma unroll
            for (int r = 1; r < ROLES; r++) {
                convolve_short(s[r], bias[r], f[r], z[r] + 2 * half, before[r]);
                before[r] = z[r][2 * half + 1];
            }
#pragma unroll
            for (int x = 0; x < 4; x++) s[1][x] *= s[2][x];
            uint32_t word[2];
            turn(word, s[1]);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                if (KEPT) u[2 * p + half][k] = word[k];
                else to[16 * p + 8 * half + 4 * k] = word[k];
            }
        }
    }
}
/* c + skip u takes the place of u. f: the lane's word of f(0). */
template <int LINES> static __device__ __forceinline__ void convolve_u(uint32_t *work, const uint32_t *f, float skip)
{
    float y[EIGHT][4];
    clear(y, EIGHT);
    convolve_lines<LINES>(y, work, f);
    __syncwarp();
    uint32_t *to = work + my_number() % 32;
#pragma unroll
    for (int i = 0; i < 2 * EIGHT; i++) {
        uint32_t *x = to + work_line(i / 2) + i % 2 * 32;
        *x = pack_bf16(fmaf(skip, low_bf16(*x), y[i / 2][i % 2 * 2]), fmaf(skip, high_bf16(*x), y[i / 2][i % 2 * 2 + 1]));
    }
    __syncwarp();
}
/* y takes the place of c. */
template <int LINES> static __device__ __forceinline__ void gate_lines(uint32_t *work, const Turn &t)
{
    const Band f = make_band(t.band[0], lane_word<BAND>());
    float bias[4];
    make_bias(bias, t.band[0]);
    uint32_t before = t.z[0][my_place()], *to = work + work_line(my_number() % 32 / 4) + my_number() % 4;
#pragma unroll
    for (int p = 0; p < TILES / 2; p++) {
        uint32_t z[4], c[4];
        read_rows<false>(z, t.z[0], p);
        read_lines(c, work, p);
        __syncwarp();                                      /* all have read                                                          */
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float s[4], v[4];
            uint32_t word[2];
            convolve_short(s, bias, f, z + 2 * half, before);
            before = z[2 * half + 1];
            open(v, c + 2 * half);
#pragma unroll
            for (int x = 0; x < 4; x++) v[x] *= s[x];
            turn(word, v);
            to[16 * p + 8 * half] = word[0];
            to[16 * p + 8 * half + 4] = word[1];
        }
    }
}
/* y of half the tiles, of two lines a sequence, from operands (convolve_half) to lines. */
template <int FIRST> static __device__ __forceinline__ void put_half(uint32_t *work, const uint32_t (*u)[2], const Turn &t, const uint32_t *filter)
{
    float c[HALF][4];
    convolve_half<false, FIRST, 2>(c, u, filter);
    const Band f = make_band(t.band[0], lane_word<BAND>());
    float bias[4];
    make_bias(bias, t.band[0]);
    uint32_t before = t.z[0][my_place() + 8 * FIRST], *to = work + work_line(my_number() % 32 / 4) + my_number() % 4 + 8 * FIRST;
#pragma unroll
    for (int p = 0; p < HALF / 2; p++) {
        uint32_t z[4];
        read_rows<false>(z, t.z[0], FIRST / 2 + p);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = 2 * p + half;
            float s[4];
            uint32_t word[2];
            convolve_short(s, bias, f, z + 2 * half, before);
            before = z[2 * half + 1];
#pragma unroll
            for (int x = 0; x < 4; x++) s[x] *= c[i][x];
            turn(word, s);
            to[8 * i] = word[0];
            to[8 * i + 4] = word[1];
        }
    }
}
/* Lines of 8 channels to rows of y. */
template <int LINES> static __device__ __forceinline__ void put_lines(const Panel &p, const uint32_t *works, const Group &w, int32_t col)
{
    const int thread = my_number();
#pragma unroll
    for (int i = 0; i < RAW / 2 / THREADS; i++) {
        const int id = i * THREADS + thread;
        const Pair x = pair_at<LINES>(w, id);
        const uint32_t *from = works + work_line(id / (BLOCK / 2)) + id % (BLOCK / 2);
        uint32_t v[EIGHT];
#pragma unroll
        for (int j = 0; j < EIGHT; j++) v[j] = from[j * PLANE];
        if (x.s < w.end) put_pair_of_rows(p, arg_row(p.a, w.m, x.s, x.t), col, v, w.rows - x.t);
    }
}

template <int LINES> static __device__ __forceinline__ void read_z(uint32_t *shared, const MixLong &a, const Group &w, int32_t c0)
{
    uint4 *raw = (uint4 *)(shared + At<LINES>::WORKS);
#pragma unroll
    for (int r = 0; r < COLS_Z; r++) copy_columns<THREADS, LINES>(raw + r * RAW, a.z, w, r * a.gap + c0);
    copy_commit();
    copy_wait<0>();                                        /* a thread takes what it has copied                                      */
#pragma unroll
    for (int r = 0; r < COLS_Z; r++) rearrange<THREADS, LINES>(shared + At<LINES>::Z + r * EIGHT * PLANE, raw + r * RAW);
    __syncthreads();
}
template <int LINES> static __device__ __forceinline__ void fill_turn(uint32_t *shared, const MixLong &a, int32_t m, int32_t c0, int k)
{
    fill_bands(shared + At<LINES>::BANDS + k % 2 * At<LINES>::EACH_BAND, Taps{a.w, a.b, a.taps, a.gap}, m, c0, k, 1);
}
template <int LINES> static __device__ __forceinline__ Turn my_turn(uint32_t *shared, int k)
{
    const int warp = my_number() / 32;
    Turn t = {};
#pragma unroll
    for (int r = 0; r < ROLES; r++) {
        t.z[r] = shared + At<LINES>::Z + ((k + r) % COLS_Z * EIGHT + warp) * PLANE;
        t.band[r] = shared + At<LINES>::BANDS + k % 2 * At<LINES>::EACH_BAND + (r * EIGHT + warp) * TABLE<BAND>;
    }
    return t;
}
/* Blocks: (8 columns, a chunk of sequences, member). */
template <int LINES> static __global__ __launch_bounds__(THREADS, 2) void mix_long(MixLong a)
{
    mdr_begin();
    typedef At<LINES> Is;
    MDR_SHARED(uint32_t, shared);
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m], first = (int32_t)blockIdx.y * a.chunk, c0 = (int32_t)blockIdx.x * EIGHT;
    Group now = {m, first, first + a.chunk < n ? first + a.chunk : n, a.rows};
    if (now.s >= now.end) return;
    for (int i = (int)threadIdx.x; i < COLS_Z * EIGHT * EIGHT * PAD; i += THREADS) shared[Is::Z + i / PAD * LINE + i % PAD] = 0;
    fill_turn<LINES>(shared, a, m, c0, 0);
    __syncthreads();                                       /* not every line has zeros before it                                     */
    for (; now.s < now.end; now.s += a.group) {
        read_z<LINES>(shared, a, now, c0);
#pragma unroll 1
        for (int k = 0; k < TURNS; k++) {
            const int warp = my_number() / 32;
            const int32_t c = k * a.gap + c0 + warp;
            uint32_t *work = shared + Is::WORKS + warp * PLANE, *table = shared + Is::H + warp * LONG_TABLE<LINES>;
            const Turn t = my_turn<LINES>(shared, k);
            Pieces<LINES> filter;
            read_filter<LINES>(&filter, a.lines + ((int64_t)m * TURNS * a.gap + c) * (LINES * BLOCK / 2));
            const float skip = ((const float *)a.skip.data)[m * a.skip.member + c];
            {
                constexpr bool KEPT = LINES == 2 && IN_REGISTERS;
                const uint32_t *f = table + lane_word<BLOCK * LINES>() + EARLY - BEFORE;
                uint32_t u[TILES][2];
                make_u<KEPT>(u, work, t);
                put_tables<LINES>(table, filter);
                __syncwarp();
                if constexpr (KEPT) {
                    put_half<0>(work, u, t, f);
                    put_half<HALF>(work, u, t, f);
                } else {
                    convolve_u<LINES>(work, f, skip);
                    gate_lines<LINES>(work, t);
                }
            }
            fill_turn<LINES>(shared, a, m, c0, (k + 1) % TURNS);
            __syncthreads();
            put_lines<LINES>(a.y, shared + Is::WORKS, now, k * a.gap + c0);
            __syncthreads();
        }
    }
}

/* ---- choosing ---- */
enum { MOST_ROWS = EIGHT * BLOCK, WAVES = V_WAVES };
static int32_t lines_of(int32_t rows) { return rows <= 2 * BLOCK ? 2 : rows <= 4 * BLOCK ? 4 : 8; }
static bool applies(const Node *n)
{
    const Shape z = n->in_type[IN_Z].shape, h = n->in_type[IN_H].shape;
    return h.d[0] > BLOCK && h.d[0] <= MOST_ROWS && h.d[1] % (TURNS * EIGHT) == 0 && z.d[1] == h.d[1] / TURNS * COLS_Z &&
           n->in_type[IN_W].shape.d[0] <= MOST_TAPS &&
           !((n->in_type[IN_W].axes | n->in_type[IN_B].axes | n->in_type[IN_H].axes | n->in_type[IN_SKIP].axes) & MDR_AXIS_SEQ);
}
static size_t scratch(const Node *n, Extent e)
{
    const Shape h = n->in_type[IN_H].shape;
    return sizeof(uint32_t) * (size_t)(lines_of(h.d[0]) * (BLOCK / 2)) * (size_t)h.d[1] * (size_t)e.n_member;
}
template <int LINES> static void launch(const Call *c, MixLong a)
{
    const int64_t each = (int64_t)a.gap / EIGHT * c->extent.n_member, all = mdr_ceil_div(c->extent.n_seq, EIGHT / LINES);
    const int64_t parts = mdr_ceil_div(2 * WAVES * PROCESSORS, each);
    const int64_t words = (int64_t)BLOCK * LINES / 2 * TURNS * a.gap;
    const size_t bytes = At<LINES>::WORDS * sizeof(uint32_t);
    a.group = EIGHT / LINES;
    a.chunk = (int32_t)mdr_ceil_div(all, parts < all ? parts : all) * a.group;
    MDR_LAUNCH((make_lines<LINES>), mdr_grid(mdr_ceil_div(words, 256), 1, c->extent.n_member), 256, 0, c->stream, a);
    MDR_ALLOW_SHARED((mix_long<LINES>), bytes);
    MDR_LAUNCH((mix_long<LINES>), mdr_grid(a.gap / EIGHT, mdr_ceil_div(c->extent.n_seq, a.chunk), c->extent.n_member), THREADS, bytes, c->stream, a);
}
static void hyena_long(const Call *c, int64_t, int64_t)
{
    const Shape z = c->node->in_type[IN_Z].shape, h = c->node->in_type[IN_H].shape;
    const int32_t n = c->extent.n_seq, lines = lines_of(h.d[0]);
    const MixLong a = {panel(c->in[IN_Z], z.d[0], z.d[1], n, false), panel(c->out[0], h.d[0], h.d[1], n, false), c->in[IN_W], c->in[IN_B],
                       c->in[IN_H], c->in[IN_SKIP], (uint32_t *)c->scratch, c->n_seq, h.d[0], h.d[1] / TURNS,
                       c->node->in_type[IN_W].shape.d[0], 0, 0};
    if (lines == 2) launch<2>(c, a);
    else if (lines == 4) launch<4>(c, a);
    else launch<8>(c, a);
}

extern "C" const CudaRow mdr_cuda_rows_hyena_long[] = {{"hyena_mix", {hyena_long, NULL, scratch, {}}, applies, 0, 0}, {}};
