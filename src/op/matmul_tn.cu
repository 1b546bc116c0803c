/* matmul_tn on CUDA: z = x^T y, the gradient of a weight: a sum over all rows of a member's batch. The rows are cut into
 * pieces, `each` neighbouring pieces are a group: products are summed within a piece, pieces in order within a group, groups in order
 * and to what z holds. Pieces and groups depend on the node and the batch alone: pieces are enough blocks for one member to occupy the
 * GPU, groups so few that their parts cost little beside x and y. With few members a block sums one tile of z over a piece (here) and
 * `add_parts` does the rest; with many it takes a group and adds the pieces itself (cuda_tn_groups.h): the same sums in the same order.
 * In float: cuda_tile.h. Where an operand is bf16: tensor cores (mma.m16n8k16, float sums). Rows of x and y go to shared memory as they
 * are, 16 bytes at column piece c of row r at place c ^ (r % 8), which ldmatrix reads transposed without bank conflicts. Rows beyond the
 * member's sequences become zeros there and are never read.
 * matmul_tn_sum also sums y's rows, the gradient of a bias: where the tile is of z's first rows, y times ones costs one more product in
 * eight, and y need not be read again. A chunk's sums are one more row of its part. */
#include "op/cuda_chunks.h"
#include "op/cuda_tn_groups.h"

enum { DEPTH = 32, STAGES = 6 };
template <int T> constexpr int STAGE = 2 * DEPTH * T * 2;                          /* bytes: T columns of x, T of y                */
/* What is not plain bf16 comes in groups too: totals of pieces in shared memory. */
template <int T, bool FAST> constexpr int SHARED = STAGES * STAGE<T> + (FAST ? 0 : T * T * 4);

static __device__ __forceinline__ int place_of(int pitch, int r, int c) { return r * pitch + ((c ^ (r & 7)) << 4); }

/* A stage's rows of one operand, T columns from col0: thread: column piece threadIdx % (T/8) of every 1024/T-th row. 128 threads. */
template <int T> static __device__ __forceinline__ int piece_at(int i)
{
    return place_of(2 * T, (int)threadIdx.x / (T / 8) + i * 1024 / T, (int)threadIdx.x % (T / 8));
}
/* Of plain bf16: walks along the rows. left: rows from the thread's first on, none beyond the last column. */
struct Feed { const bf16 *from; int32_t left; };
template <int T> static __device__ __forceinline__ Feed feed_from(const Panel &p, const Spot &w, int32_t r0, int32_t r1, int32_t col0)
{
    const int32_t row = r0 + (int)threadIdx.x / (T / 8), col = col0 + (int)threadIdx.x % (T / 8) * 8;
    return Feed{(const bf16 *)p.a.data + row_at(p, w.m, w.s, row) + col, col < p.cols ? r1 - row : 0};
}
template <int T> static __device__ __forceinline__ void feed(unsigned char *to, Feed *f, int64_t ld)
{
#pragma unroll
    for (int i = 0; i < DEPTH * T / 1024; i++) copy_16(to + piece_at<T>(i), f->from + i * 1024 / T * ld, i * 1024 / T < f->left);
    f->from += DEPTH * ld;
    f->left -= DEPTH;
}
template <int T>
static __device__ __forceinline__ void feed_any(unsigned char *to, const Panel &p, const Spot &w, int32_t r0, int32_t r1, int32_t col0)
{
    const int32_t row0 = r0 + (int)threadIdx.x / (T / 8), col = col0 + (int)threadIdx.x % (T / 8) * 8;
    for (int i = 0; i < DEPTH * T / 1024; i++) {
        const int32_t row = row0 + i * 1024 / T;
        const bool there = row < r1 && col < p.cols;
        const int64_t at = row_at(p, w.m, w.s, there ? row : 0);
        if (p.a.size == 2 && p.wide) {
            copy_16(to + piece_at<T>(i), (const bf16 *)p.a.data + at + (there ? col : 0), there);
        } else {
            float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
            if (there) read_8(p, at, col, v);
            *(uint4 *)(to + piece_at<T>(i)) = pack_8(v);
        }
    }
}

/* Blocks of 4 warps, 2 by 2, each T/2 by T/2 of a tile T by T: acc[i][j] 16 by 8. SUMS, and total wanted: total[j][0] and [2] are the
 * sums of y's columns 16 j + lane / 4 and 8 further on; y's fragments, turned, are the left operand and ones the right one. */
template <int T, bool SUMS>
static __device__ __forceinline__ void multiply(float (*acc)[T / 16][4], float (*total)[4], bool wanted, const unsigned char *x, const unsigned char *y,
                                                int wm, int wn)
{
    const int l = (int)threadIdx.x % 8, q = (int)threadIdx.x % 32 / 8;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t a[T / 32][4];
#pragma unroll
        for (int i = 0; i < T / 32; i++) ldmatrix<4, true>(a[i], x + place_of(2 * T, k + (q >> 1) * 8 + l, wm / 8 + 2 * i + (q & 1)));
#pragma unroll
        for (int j = 0; j < T / 16; j += 2) {
            uint32_t b[4];
            ldmatrix<4, true>(b, y + place_of(2 * T, k + (q & 1) * 8 + l, wn / 8 + j + (q >> 1)));
#pragma unroll
            for (int i = 0; i < T / 32; i++) {
                mma_16816(acc[i][j], a[i], b);
                mma_16816(acc[i][j + 1], a[i], b + 2);
            }
            if (SUMS && wanted) {
                const uint32_t turned[4] = {b[0], b[2], b[1], b[3]}, ones[2] = {0x3f803f80u, 0x3f803f80u};
                mma_16816(total[j / 2], turned, ones);
            }
        }
    }
}
/* A piece of a group ends: what this thread has is added to the total of the pieces before, which is kept unless this is the last one. */
template <int T, bool LAST> static __device__ __forceinline__ void end_piece(float (*acc)[T / 16][4], float4 *kept, bool first)
{
#pragma unroll
    for (int i = 0; i < T / 32; i++)
#pragma unroll
        for (int j = 0; j < T / 16; j++) {
            float4 *at = kept + (i * (T / 16) + j) * 128, v = make_float4(acc[i][j][0], acc[i][j][1], acc[i][j][2], acc[i][j][3]);
            if (!first) {
                const float4 old = *at;
                v = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
            }
            if (!LAST) *at = v;
            acc[i][j][0] = LAST ? v.x : 0.0f; acc[i][j][1] = LAST ? v.y : 0.0f; acc[i][j][2] = LAST ? v.z : 0.0f; acc[i][j][3] = LAST ? v.w : 0.0f;
        }
}
/* sum: where y's sums go, its sequences are z's. FAST: of plain bf16, and a block's chunk is a piece; else perhaps a group of them. */
template <int T, bool FAST, bool SUMS>
static __global__ __launch_bounds__(128, 2) void tensor_product(Panel x, Panel y, Panel z, Arg sum, Job job, int32_t piece, int32_t part, int32_t add)
{
    mdr_begin();
    constexpr int BYTES = STAGE<T>, half = BYTES / 2;
    MDR_SHARED(unsigned char, ring);
    Spot w;
    if (FAST) x.flat = y.flat = true;                      /* what the compiler sees, it need not branch on                          */
    if (!find_spot(job, &w)) return;
    const int32_t r0 = w.chunk * job.chunk, r1 = r0 + job.chunk < w.rows ? r0 + job.chunk : w.rows, k0 = w.tile_m * T, n0 = w.tile_n * T;
    if (r0 >= r1) return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, wm = warp / 2 * (T / 2), wn = warp % 2 * (T / 2);
    const bool idle = k0 + wm >= x.cols || n0 + wn >= y.cols;              /* only copies                                               */
    const bool sums = SUMS && k0 + wm == 0;
    float acc[T / 32][T / 16][4], total[T / 32][4];
    float4 *kept = (float4 *)(ring + STAGES * BYTES) + threadIdx.x;
    Feed fx = {NULL, 0}, fy = {NULL, 0};
    if (FAST) {
        fx = feed_from<T>(x, w, r0, r1, k0);
        fy = feed_from<T>(y, w, r0, r1, n0);
    }
    auto load = [&](int to, int32_t r) {
        if (r < r1 && FAST) {
            feed<T>(ring + to * BYTES, &fx, x.a.ld);
            feed<T>(ring + to * BYTES + half, &fy, y.a.ld);
        } else if (r < r1) {
            feed_any<T>(ring + to * BYTES, x, w, r, r1, k0);
            feed_any<T>(ring + to * BYTES + half, y, w, r, r1, n0);
        }
        copy_commit();
    };
    for (int q = 0; q < STAGES - 1; q++) load(q, r0 + DEPTH * q);
#pragma unroll
    for (int i = 0; i < T / 32; i++)
#pragma unroll
        for (int j = 0; j < T / 16; j++) acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0.0f;
#pragma unroll
    for (int j = 0; j < T / 32; j++) total[j][0] = total[j][1] = total[j][2] = total[j][3] = 0.0f;
    int stage = 0;
    bool first = true;
    int32_t end = r0 + piece;
    for (int32_t r = r0; r < r1; r += DEPTH) {
        if (!FAST && r == end) {
            end_piece<T, false>(acc, kept, first);
            first = false;
            end += piece;
        }
        copy_wait<STAGES - 2>();
        __syncthreads();
        load(stage ? stage - 1 : STAGES - 1, r + DEPTH * (STAGES - 1));
        if (!idle) multiply<T, SUMS>(acc, total, sums, ring + stage * BYTES, ring + stage * BYTES + half, wm, wn);
        stage = stage + 1 < STAGES ? stage + 1 : 0;
    }
    if (!FAST && !first) end_piece<T, true>(acc, kept, false);
#pragma unroll
    for (int i = 0; i < T / 16; i++) {
        const int32_t row = k0 + wm + 8 * i + lane / 4;
        if (row >= x.cols) continue;
        const int64_t at = row_at(z, w.m, part ? w.chunk : w.s, row);
#pragma unroll
        for (int j = 0; j < T / 16; j++) {
            const int32_t col = n0 + wn + 8 * j + lane % 4 * 2;
            if (col < z.cols) put_2(z, at, col, acc[i / 2][j][2 * (i % 2)], acc[i / 2][j][2 * (i % 2) + 1], part, add);
        }
    }
    if (SUMS && sums && lane % 4 == 0) {
#pragma unroll
        for (int j = 0; j < T / 16; j++) {
            const int32_t col = n0 + wn + 8 * j + lane / 4;
            const int64_t at = w.m * sum.member + (part ? w.chunk : w.s) * sum.seq + col;
            if (col < y.cols) arg_put(sum, at, total[j / 2][2 * (j % 2)] + (add ? arg_get(sum, at) : 0.0f));
        }
    }
}

/* Sums of columns by themselves, whatever lies there: a thread a column, part [member][chunk][cols]. */
static __global__ void sum_columns(Panel y, Cut cut, const int32_t *n_seq, float *part)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, col = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    uint32_t from, to;
    if (col >= y.cols || !cut_range(cut, n_seq, m, blockIdx.y, &from, &to)) return;
    float sum = 0.0f;
#pragma unroll 4
    for (uint32_t r = from; r < to; r++) sum += arg_get(y.a, row_at(y, m, 0, (int32_t)r) + col);
    part[((int64_t)m * cut.count + blockIdx.y) * y.cols + col] = sum;
}

/* ---- choosing ---- */
/* Parts are written and read once, 8 bytes an element. For blocks of 64 by 64: as many groups as fill the GPU (256 tiles) where their parts
 * cost at most about a fifth of what x and y do in bf16; those of large tiles that do not fill it are cut into pieces that do. So one
 * member's blocks, and float's, are cut. Of the same pieces bf16 then makes fewer, longer groups, for many members: 5, with parts of a seventh
 * at most, or 11 of them. 6, 12, 24 or 64 members times 5 or 11 times the blocks of one group are little less than a multiple of 132. */
enum { LEAST_PIECE = 256, MOST_CUT = 8 };
enum { FULL = 128, ENOUGH = 100 };    /* blocks that fill the GPU; that large tiles are worth it for                          */
struct Order { int32_t piece, each, groups; };       /* rows a piece, pieces a group                                         */
static int64_t tiles(const Node *n, int64_t x, int64_t y) { return mdr_ceil_div(n->out[0].shape.d[0], x) * mdr_ceil_div(n->out[0].shape.d[1], y); }
static int64_t large_tiles(const Node *n) { return tiles(n, 128, 128); }
static bool takes_large(const Node *n) { return n->out[0].shape.d[0] > 64 && n->out[0].shape.d[1] > 64; }
static Order cut_into(int64_t rows, int64_t groups, int64_t each)
{
    const int64_t piece = mdr_ceil_div(mdr_ceil_div(rows, groups * each), 32) * 32;
    return Order{(int32_t)piece, (int32_t)each, (int32_t)mdr_ceil_div(rows, piece * each)};
}
static Order order(const Node *n, int32_t n_seq, bool floats)
{
    const int64_t inner = n->out[0].shape.d[0], cols = n->out[0].shape.d[1], rows = mdr_rows(n->in_type[0].shape) * n_seq;
    const int64_t cheap = rows * (inner + cols) / (20 * inner * cols), full = mdr_ceil_div(256, tiles(n, 64, 64));
    int64_t groups = cheap < full ? cheap : full, each = 1;
    if (groups > rows / 256) groups = rows / 256;
    if (groups < 1) groups = 1;
    if (takes_large(n)) each = FULL / (large_tiles(n) * groups);
    if (each > rows / (LEAST_PIECE * groups)) each = rows / (LEAST_PIECE * groups);
    if (each > MOST_CUT) each = MOST_CUT;
    if (each < 1) each = 1;
    if (floats || each == 1) return cut_into(rows, groups, each);
    const int64_t pieces = groups * each, few = rows * (inner + cols) / (28 * inner * cols), wanted = few >= 11 ? 11 : few >= 5 ? 5 : few;
    if (groups > wanted) groups = wanted > 1 ? wanted : 1;
    if (groups < mdr_ceil_div(pieces, MOST_EACH)) groups = mdr_ceil_div(pieces, MOST_EACH);
    return cut_into(rows, groups, (pieces + groups / 2) / groups);
}
/* Whether groups alone are blocks enough, if small ones. */
static bool by_groups(const Node *n, Extent e, Order o) { return o.each == 1 || tiles(n, 64, 128) * o.groups * e.n_member >= ENOUGH; }
static int64_t n_parts(const Node *n, Extent e)
{
    const Order o = order(n, e.n_seq, false);
    const int64_t floats = order(n, e.n_seq, true).groups;
    const int64_t parts = by_groups(n, e, o) ? o.groups : mdr_ceil_div(mdr_rows(n->in_type[0].shape) * e.n_seq, o.piece);
    return parts > floats ? parts : floats;
}
static int64_t part_ld(const Node *n) { return mdr_ceil_div(n->out[0].shape.d[1], 8) * 8; }
enum { SUM_LEAST = 64, SUM_MOST = 64 };
static size_t scratch_for(const Node *n, Extent e, int64_t more)
{
    const int64_t chunks = n_parts(n, e);
    return chunks == 1 ? 0 : (size_t)(e.n_member * chunks * (n->out[0].shape.d[0] + more) * part_ld(n)) * sizeof(float);
}
static size_t scratch(const Node *n, Extent e) { return scratch_for(n, e, 0); }
static size_t sum_scratch(const Node *n, Extent e)
{
    const size_t alone = (size_t)(cut_room(mdr_rows(n->in_type[1].shape), e, SUM_LEAST, SUM_MOST) * n->out[0].shape.d[1]) * sizeof(float);
    const size_t both = scratch_for(n, e, 1);
    return both > alone ? both : alone;
}

/* sum: where the sums of y's rows go, or their parts. each: parts of a group. */
struct Sum { Panel x, y, z; Arg sum; Job job; int32_t chunks, piece, each, n_seq, members, part, add; void *stream; };

static dim3 cut(Sum *s, int32_t x, int32_t y)
{
    s->job.tiles_m = (s->x.cols + x - 1) / x;
    s->job.tiles_n = (s->y.cols + y - 1) / y;
    return mdr_grid((int64_t)s->chunks * s->job.tiles_m * s->job.tiles_n, s->n_seq, s->members);
}
template <int T, bool FAST, bool SUMS> static void run_tensor(Sum s)
{
    const dim3 grid = cut(&s, T, T);
    MDR_ALLOW_SHARED((tensor_product<T, FAST, SUMS>), (SHARED<T, FAST>));
    MDR_LAUNCH((tensor_product<T, FAST, SUMS>), grid, 128, (SHARED<T, FAST>), s.stream, s.x, s.y, s.z, s.sum, s.job, s.piece, s.part, s.add);
}
template <int T> static void run_float(Sum s)
{
    const dim3 grid = cut(&s, 16 * T, 16 * T);
    const Panel none = {};
    MDR_LAUNCH((float_product<T, true, false>), grid, 256, float_shared<T>(), s.stream, s.x, s.y, none, s.z, s.job, s.part, s.add);
}

/* A group a block. */
template <int I, int J, int WM, int WN, bool SUMS> static void run_group(Sum s)
{
    const dim3 grid = cut(&s, GROUP_X<I, WM>, GROUP_Y<J, WN>);
    constexpr int shared = GROUP_SHARED<I, J, WM, WN, SUMS>;
    MDR_ALLOW_SHARED((group_product<I, J, WM, WN, SUMS>), shared);
    MDR_LAUNCH((group_product<I, J, WM, WN, SUMS>), grid, 32 * WM * WN, shared, s.stream, s.x, s.y, s.z, s.sum, s.job, s.piece, s.part, s.add);
}
struct GroupShape { int32_t x, y; void (*run)(Sum), (*run_sums)(Sum); };
#define SHAPE(I, J, WM, WN) {GROUP_X<I, WM>, GROUP_Y<J, WN>, run_group<I, J, WM, WN, false>, run_group<I, J, WM, WN, true>}
static const GroupShape group_shapes[] = {SHAPE(4, 4, 2, 4), SHAPE(4, 6, 2, 4), SHAPE(3, 8, 4, 2), SHAPE(4, 4, 1, 4), SHAPE(4, 6, 1, 4), SHAPE(3, 8, 4, 1)};
/* The shape whose busiest processor is ready first: products of a row of x and y, and 64 for each of its elements that is read. */
static void run_groups(const Sum &s, bool sums)
{
    const GroupShape *best = NULL;
    int64_t least = 0;
    for (const GroupShape &g : group_shapes) {
        const int64_t blocks = mdr_ceil_div(s.x.cols, g.x) * mdr_ceil_div(s.y.cols, g.y) * s.chunks * s.n_seq * s.members;
        const int64_t time = mdr_ceil_div(blocks, PROCESSORS) * (g.x * g.y + 64 * (g.x + g.y));
        if (best && time >= least) continue;
        best = &g;
        least = time;
    }
    if (sums) best->run_sums(s);
    else best->run(s);
}

static Sum prepare(const Call *c, bool together)
{
    const Node *n = c->node;
    const int32_t n_seq = c->extent.n_seq;
    const int64_t rows = mdr_rows(n->in_type[0].shape);
    Sum s = {};
    s.x = panel(c->in[0], rows, n->out[0].shape.d[0], n_seq, together);
    s.y = panel(c->in[1], rows, n->out[0].shape.d[1], n_seq, together);
    const bool floats = s.x.a.size == 4 && s.y.a.size == 4;                                       /* plain ones know no pieces   */
    const Order o = together ? order(n, n_seq, floats) : Order{(int32_t)rows, 1, 1};
    const bool groups = floats || by_groups(n, c->extent, o);
    const int32_t chunk = groups ? o.piece * o.each : o.piece;
    s.piece = o.piece;
    s.each = groups ? 1 : o.each;
    s.chunks = together ? (int32_t)mdr_ceil_div(rows * n_seq, chunk) : 1;
    s.job = Job{c->n_seq, (int32_t)rows, chunk, together, 1, 1};
    s.n_seq = together ? 1 : n_seq;
    s.members = c->extent.n_member;
    s.part = s.chunks > 1;
    s.add = s.part ? 0 : (int32_t)(c->add & 1u);
    s.stream = c->stream;
    return s;
}
/* The second stage: parts of `pieces` times 4 elements. */
static void add_all(const Sum &s, const Panel &z, const Panel &sum, int64_t pieces, int32_t add)
{
    const dim3 few = mdr_grid(mdr_ceil_div(pieces, 32), 1, s.members), many = mdr_grid(mdr_ceil_div(pieces, 256), 1, s.members);
    const size_t shared = (size_t)(s.chunks < MEET ? s.chunks : MEET) * 512;
    if (s.each > 1) MDR_LAUNCH((add_parts<true>), few, dim3(32, 8), shared, s.stream, s.z, z, sum, s.job, s.each, add);
    else if (many.x * many.z < PROCESSORS) MDR_LAUNCH((add_parts<false>), few, dim3(32, 8), shared, s.stream, s.z, z, sum, s.job, 1, add);
    else MDR_LAUNCH(add_groups, many, 256, 0, s.stream, s.z, z, sum, s.job, add);
}
/* sums: of y's rows too, into output 1; plain bf16 only. */
static void multiply_all(const Call *c, Sum s, bool sums)
{
    const Node *n = c->node;
    const int64_t inner = n->out[0].shape.d[0], cols = n->out[0].shape.d[1], rows = inner + sums;
    const Panel z = panel(c->out[0], inner, cols, c->extent.n_seq, false), sum = panel(sums ? c->out[1] : Arg(), 1, cols, c->extent.n_seq, false);
    s.z = z;
    s.sum = sum.a;
    if (s.part) {
        const Arg part = {c->scratch, s.chunks * rows * part_ld(n), rows * part_ld(n), part_ld(n), sizeof(float)};
        s.z = panel(part, rows, part_ld(n), s.chunks, false);
        if (sums) s.sum = Arg{(float *)c->scratch + inner * part_ld(n), part.member, part.seq, part.ld, part.size};
    }
    const bool large = takes_large(n) && large_tiles(n) * s.chunks * s.n_seq * s.members >= ENOUGH, grouped = s.job.chunk > s.piece;
    if (s.x.a.size == 4 && s.y.a.size == 4) {
        if (large && s.x.wide && s.x.flat && s.y.wide && s.y.flat && s.z.wide && s.z.a.size == 4) run_float<8>(s);
        else run_float<4>(s);
    }
    else if (!plain_bf16(s.x) || !plain_bf16(s.y)) run_tensor<64, false, false>(s);
    else if (grouped || (large && s.each == 1)) run_groups(s, sums);
    else if (large && sums) run_tensor<128, true, true>(s);
    else if (large) run_tensor<128, true, false>(s);
    else if (sums) run_tensor<64, true, true>(s);
    else run_tensor<64, true, false>(s);
    if (!s.part) return;
    s.stream = mdr_beside(c, sums ? 3u : 1u).stream;
    add_all(s, z, sum, rows * part_ld(n) / 4, (int32_t)(c->add & 1u));
}
static void run(const Call *c, int64_t, int64_t)
{
    multiply_all(c, prepare(c, c->extent.n_seq == 1 || (c->add & 1u)), false);    /* else a z of each sequence                       */
}

static void run_sum(const Call *c, int64_t, int64_t)
{
    const bool add = (c->add & 1u) != 0, add_sum = (c->add & 2u) != 0;
    const Sum s = prepare(c, c->extent.n_seq == 1 || add);
    const bool both = c->out[0].data && c->out[1].data && add == add_sum && plain_bf16(s.x) && plain_bf16(s.y);
    Call product = *c;
    if (!both) product.side = NULL;                        /* its scratch is wanted again                                          */
    if (c->out[0].data) multiply_all(&product, s, both);
    if (both || !c->out[1].data) return;
    const int64_t rows = mdr_rows(c->node->in_type[1].shape), cols = c->node->out[0].shape.d[1];
    const Cut k = cut_rows(rows, c->extent.n_seq, add_sum, SUM_LEAST, SUM_MOST);
    MDR_LAUNCH(sum_columns, mdr_grid(mdr_ceil_div(cols, 128), k.count, s.members), 128, 0, c->stream, panel(c->in[1], rows, cols, c->extent.n_seq, true), k,
               c->n_seq, (float *)c->scratch);
    enqueue_add_chunks(c, c->out[1], add_sum, (const float *)c->scratch, k, cols, cols);
}
/* Where tensor cores take both operands in pieces of 16 bytes, and there is a batch to sum over. */
static bool fast_sum(const Node *n)
{
    return mdr_cols(n->in_type[0].shape) % 8 == 0 && mdr_cols(n->in_type[1].shape) % 8 == 0 && (n->in_type[0].axes & MDR_AXIS_SEQ) &&
           (n->in_type[1].axes & MDR_AXIS_SEQ);
}

extern "C" const CudaRow mdr_cuda_rows_matmul_tn[] = {{"matmul_tn", {run, NULL, scratch, {}}, NULL, 0, 0},
                                                      {"matmul_tn_sum", {run_sum, NULL, sum_scratch, {}}, fast_sum, 0, 0},
                                                      {}};
