/* hyena_mix_grad on CUDA, in bf16: everything between dy and dz of Hyena's mixer in one pass that reads z and dy, writes dz and recomputes
 * the rest. A warp has one c0 (cuda_hyena_grad.h), 8 sequences and all their rows, at most 128, and takes its channels c0 + k gap by turns:
 *   1. x1, x2, v from z (bands on tensor cores), u = v x2 and dc = dy x1 become operands (32 registers); dskip's products
 *   2. c + skip u = (T + skip) u, then dx1; du = (T + skip)^T dc
 *   3. x2 and v once more; dx2, dv; their part of dz by the bands transposed, of dw and db
 * Sums over rows of products of two values are products of matrices [sequence x row] [row x sequence] whose diagonal counts: of 16 rows of
 * sums, 8 belong to z, 8 to z one row later; of another 16 8 to z two rows later and 8 to ones (db). dz stays in registers for all turns.
 * A block has 8 warps and a chunk of groups of 8 sequences, of which the next one is on its way while one is worked on.
 * u and dc go to memory as well, by lines, for a second kernel that makes dh (cuda_filter_grad.h): making them twice took longer. */
#include "op/cuda_filter_grad.h"
#include "op/cuda_hyena_turn.h"

enum { IN_Z, IN_W, IN_B, IN_H, IN_SKIP, IN_DY };
enum { OUT_DZ, OUT_DW, OUT_DB, OUT_DSKIP, OUT_DH };
static constexpr int THREADS = 32 * EIGHT;
/* Shared memory, in words. */
static constexpr int AT_Z = 0, AT_DY = AT_Z + COLS_Z * EIGHT * PLANE, AT_RAW = AT_DY + EIGHT * PLANE, AT_H = AT_RAW + (COLS_Z + TURNS) * RAW * 4,
                     AT_W = AT_H + TURNS * EIGHT * TABLE<BLOCK>, AT_SUMS = AT_W + TURNS * ROLES * EIGHT * TABLE<BAND>,
                     SHARED = AT_SUMS + EIGHT * TURNS * SUMS * EIGHT;

struct MixGrad {
    Panel z, dy, dz;
    Arg w, b, h, skip;
    float *dw, *db, *dskip;                                /* partial sums: [member][chunk][..]                                     */
    uint32_t *filters;                                     /* long ones: [member][channel][word of two places]                      */
    const int32_t *n_seq;
    int32_t rows, gap, taps, chunk, group;                 /* sequences of a chunk, of a group                                      */
    Handed to;                                             /* what dh is made of                                                     */
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

template <int LINES> static __device__ __forceinline__ Turn my_turn(uint32_t *shared, int at_band, const MixGrad &a, const Group &w, int32_t c0, int k)
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
    const int64_t line = handed_line<LINES>(a.to, w.m, w.s, k * a.gap + c0 + warp);
    t.u = a.to.u ? a.to.u + line : NULL;
    t.dc = a.to.dc + line;
    t.left = w.end - w.s;
    t.far = a.to.channels * (LINES * BLOCK / 2);
    return t;
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
        if (x.s < w.end) put_pair_of_rows(p, arg_row(p.a, w.m, x.s, x.t), col, v, w.rows - x.t);
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
    mdr_begin();
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
            Turn t = my_turn<1>(shared, AT_W, a, now, c0, k);
            t.h = shared + AT_H + (k * EIGHT + my_number() / 32) * TABLE<BLOCK> + lane_word<BLOCK>();
            take_turn(&of, sums + (my_number() / 32 * TURNS + k) * SUMS * EIGHT, t);
        }
        end_group<1>(shared, a, &of, now, c0);
    }
    put_sums(a, sums, c0);
}

/* ---- several lines: a warp makes its filter's tables of a line that lies in memory ---- */
template <int LINES> struct Long {
    static constexpr int WORKS = AT_DY + EIGHT * PLANE, H = WORKS + EIGHT * 2 * PLANE, BANDS = H + EIGHT * LONG_TABLE<LINES>,
                         SUMMED = BANDS + TURNS * ROLES * EIGHT * TABLE<BAND>, RAWS = SUMMED + EIGHT * TURNS * SUMS * EIGHT,
                         SHARED_WORDS = RAWS + (COLS_Z + 1) * RAW * 4;
};
/* Words of all channels' filters: skip is part of them. */
template <int LINES> static __global__ void make_lines(MixGrad a)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, channels = TURNS * a.gap, i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), c = i % channels;
    const int32_t j = i / channels;
    if (a.n_seq[m] == 0 || j >= BLOCK * LINES / 2) return;
    a.filters[((int64_t)m * channels + c) * (BLOCK * LINES / 2) + j] = pack_bf16(filter_at(a, m, c, 2 * j), filter_at(a, m, c, 2 * j + 1));
}
/* Copies what a turn of the same or the next group reads first. */
template <int LINES> static __device__ __forceinline__ void copy_long_turn(uint4 *raw, const MixGrad &a, const Group &w, int32_t c0, int k)
{
    if (w.s < w.end) {
        for (int r = 0; r < COLS_Z && k == 0; r++) copy_columns<THREADS, LINES>(raw + (1 + r) * RAW, a.z, w, r * a.gap + c0);
        copy_columns<THREADS, LINES>(raw, a.dy, w, k * a.gap + c0);
    }
    copy_commit();
}
template <int LINES> static __device__ __forceinline__ void rearrange_long_turn(uint32_t *shared, const uint4 *raw, int k)
{
    copy_wait<0>();
    for (int r = 0; r < COLS_Z && k == 0; r++) rearrange<THREADS, LINES>(shared + AT_Z + r * EIGHT * PLANE, raw + (1 + r) * RAW);
    rearrange<THREADS, LINES>(shared + AT_DY, raw);
}
template <int LINES> static __global__ __launch_bounds__(THREADS, 1) void long_mix_grad(MixGrad a)
{
    mdr_begin();
    typedef Long<LINES> At;
    MDR_SHARED(uint32_t, shared);
    Group now;
    int32_t c0;
    if (!find_chunk(a, &now, &c0)) return;
    uint4 *raw = (uint4 *)(shared + At::RAWS);
    float *sums = (float *)(shared + At::SUMMED);
    copy_long_turn<LINES>(raw, a, now, c0, 0);
    begin_chunk(shared, At::SUMMED, At::BANDS, a, now.m, c0);
    if (threadIdx.x < 2 * EIGHT * PAD) shared[At::WORKS + threadIdx.x / PAD * PLANE + threadIdx.x % PAD] = 0;
    for (; now.s < now.end; now.s += a.group) {
        Sums of;
        begin_group(&of);
#pragma unroll 1
        for (int k = 0; k < TURNS; k++) {
            const Group next = {now.m, now.s + (k + 1 < TURNS ? 0 : a.group), now.end, now.rows};
            __syncthreads();                               /* not every line has zeros before it; the turn before has ended          */
            rearrange_long_turn<LINES>(shared, raw, k);
            copy_long_turn<LINES>(raw, a, next, c0, (k + 1) % TURNS);
            __syncthreads();
            const int warp = my_number() / 32;
            Turn t = my_turn<LINES>(shared, At::BANDS, a, now, c0, k);
            t.h = a.filters + (((int64_t)now.m * TURNS + k) * a.gap + c0 + warp) * (LINES * BLOCK / 2);
            float *mine = sums + (warp * TURNS + k) * SUMS * EIGHT;
            uint32_t *table = shared + At::H + warp * LONG_TABLE<LINES>;
            take_long_turn<LINES>(&of, mine, t, shared + At::WORKS + warp * 2 * PLANE, table);
        }
        end_group<LINES>(shared, a, &of, now, c0);
    }
    put_sums(a, sums, (int32_t)blockIdx.x * EIGHT);
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
/* The filter's gradient comes in chunks of its own; one sequence a chunk goes to dh at once. */
enum { FILTER_CHUNKS = 4 };
static Cut cut_filter(int32_t n_seq, bool together) { return cut_groups(n_seq, together, FILTER_CHUNKS); }
/* Scratch: partial sums of dw, db and dskip, long filters, partial sums of dh, u, dc; words that each takes. */
struct Room { int64_t sums, filters, dh, line; };
static Room room(const Node *n, Extent e)
{
    const Shape dy = n->in_type[IN_DY].shape;
    const int64_t lines = lines_of(dy.d[0]), line = lines > 1 ? lines * BLOCK / 2 : 0, channels = (int64_t)dy.d[1] * e.n_member;
    return Room{mdr_ceil_div(partial_words(n, e), 4) * 4, line * channels, mdr_ceil_div(channels * dy.d[0] * cut_filter(e.n_seq, true).count, 4) * 4,
                channels * e.n_seq * lines * (BLOCK / 2)};
}
static size_t scratch(const Node *n, Extent e)
{
    const Room r = room(n, e);
    return sizeof(uint32_t) * (size_t)(r.sums + r.filters + r.dh + 2 * r.line);
}

template <int LINES> static void launch(const Call *c, const MixGrad &a, const Cut &k)
{
    const dim3 grid = mdr_grid(a.gap / EIGHT, k.count, c->extent.n_member);
    if constexpr (LINES == 1) {
        MDR_ALLOW_SHARED(mix_grad, SHARED * sizeof(uint32_t));
        MDR_LAUNCH(mix_grad, grid, THREADS, SHARED * sizeof(uint32_t), c->stream, a);
    } else {
        const size_t bytes = Long<LINES>::SHARED_WORDS * sizeof(uint32_t);
        const int64_t words = (int64_t)(BLOCK * LINES / 2) * TURNS * a.gap;
        MDR_LAUNCH((make_lines<LINES>), mdr_grid(mdr_ceil_div(words, 256), 1, c->extent.n_member), 256, 0, c->stream, a);
        MDR_ALLOW_SHARED((long_mix_grad<LINES>), bytes);
        MDR_LAUNCH((long_mix_grad<LINES>), grid, THREADS, bytes, c->stream, a);
    }
}
template <int N> static void launch_filter(const Call *c, const FilterGrad &a, const Cut &k)
{
    const size_t bytes = CHANNELS<N> * Lines<N>::WORDS * sizeof(uint32_t);
    MDR_ALLOW_SHARED(filter_grad<N>, bytes);
    MDR_LAUNCH((filter_grad<N>), mdr_grid(a.from.channels / CHANNELS<N>, k.count, c->extent.n_member), FILTER_THREADS<N>, bytes, c->stream, a);
}
/* dh of what the kernel before has handed on; part: room for partial sums. */
static void put_filter(const Call *c, const Handed &from, int32_t rows, float *part)
{
    const bool add = (c->add >> OUT_DH & 1u) != 0;
    const Cut k = cut_filter(c->extent.n_seq, add);
    const int64_t width = (int64_t)rows * from.channels;
    const FilterGrad a = {from, k.together ? Arg{part, k.count * width, width, from.channels, 4} : c->out[OUT_DH], c->n_seq, rows, (int32_t)k.per};
    const int32_t lines = lines_of(rows);
    if (lines == 1) launch_filter<1>(c, a, k);
    else if (lines == 2) launch_filter<2>(c, a, k);
    else if (lines == 4) launch_filter<4>(c, a, k);
    else launch_filter<8>(c, a, k);
    if (k.together) enqueue_add_chunks(c, c->out[OUT_DH], add, part, k, width, from.channels);
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
    const Room r = room(c->node, c->extent);
    float *part = (float *)c->scratch, *dh = part + r.sums + r.filters;
    uint32_t *u = c->out[OUT_DH].data ? (uint32_t *)dh + r.dh : NULL;
    const MixGrad a = {panel(c->in[IN_Z], z.d[0], z.d[1], n, false), panel(c->in[IN_DY], dy.d[0], dy.d[1], n, false),
                       panel(c->out[OUT_DZ], z.d[0], z.d[1], n, false), c->in[IN_W], c->in[IN_B], c->in[IN_H], c->in[IN_SKIP],
                       part, part + chunks * dw, part + chunks * (dw + db), (uint32_t *)part + r.sums,
                       c->n_seq, dy.d[0], dy.d[1] / TURNS, c->node->in_type[IN_W].shape.d[0], (int32_t)k.per, k.together ? EIGHT / lines : 1,
                       Handed{u, (uint32_t *)dh + r.dh + r.line, n, dy.d[1]}};
    if (lines == 1) launch<1>(c, a, k);
    else if (lines == 2) launch<2>(c, a, k);
    else if (lines == 4) launch<4>(c, a, k);
    else launch<8>(c, a, k);
    if (u) put_filter(c, a.to, dy.d[0], dh);
    const struct { int32_t out; const float *from; int64_t width, cols; } sum[] = {
        {OUT_DW, a.dw, dw, db}, {OUT_DB, a.db, db, db}, {OUT_DSKIP, a.dskip, dskip, dskip}};
    for (const auto &s : sum) {
        Cut of = k;
        const bool add = (c->add >> s.out & 1u) != 0;
        if (add) of.together = true;
        if (c->out[s.out].data) enqueue_add_chunks(c, c->out[s.out], add, s.from, of, s.width, s.cols);
    }
}

extern "C" const CudaRow mdr_cuda_rows_hyena_mix_grad[] = {{"hyena_mix_grad", {hyena_mix_grad, NULL, scratch, {}}, applies, 0, 0}, {}};
