/* conv_long and conv_long_dh on CUDA. In bf16, where one filter serves all sequences: products on tensor cores (mma.m16n8k16), sums in
 * float. Else: cuda_conv.h.
 *   y: for each channel, Y^T [sequences x t] = U^T [sequences x t'] T with T[t', t] = h[t - t']. A piece of T, of 8 t' by 8 t, depends on
 *      the distance d of its corners alone: f(d) = the words (h[d+g-2q], h[d+g-2q-1]) of lanes (g, q); a step of 16 t' by 8 t takes f(d) and
 *      f(d - 8). They come from two tables a channel, words that begin at an even and at an odd place of h.
 *   dh: steps of 16 t by 8 t' of dY U^T, contracted over 16 sequences; all those at one distance go to the same sums, of which each covers
 *      23 diagonals; these are added up at the end only. A block has 16 distances: 128 places of h.
 * A block of 16 warps has 16 neighbouring channels, one a warp, and takes tiles of 16 sequences by 64 rows. Channels are neighbours in
 * device memory, rows are what operands want as neighbours: a thread takes 8 channels of two rows (16 bytes each), pairs the rows
 * channel by channel and stores words into the channels' planes [sequence][row]; y goes back the same way. What a thread takes it has
 * copied into shared memory itself, one tile earlier: nothing but sums and operands has to stay in registers. Half of the warps
 * rearrange the next tile before they work on this one, the others after. Anticausal: rows backwards. */
#include "op/cuda_conv.h"
#include "op/cuda_mma.h"

enum { CHANNELS = 16, SEQS = 16, TILE = 64, BLOCK = 128, LONG_THREADS = 32 * CHANNELS };
/* In words. Rows of 8 sequences meet different banks, as do the planes of channels c and c + 8. */
enum { LINE = TILE / 2 + 4, PLANE = SEQS * LINE, ASIDE = 16, BUFFER = CHANNELS * PLANE + ASIDE };
/* A table's words begin with number -4; it is 16 banks from the other one, and channels are 2 apart. */
enum { BEFORE = 4, TABLE = 16, GAP = 2 };
enum { DISTANCES = 16, SPAN = 8 * DISTANCES + 16 };       /* of dh: distances of a block, diagonals they touch (the last is none) */
/* Places of h that tables hold, what shared memory leaves room for; they serve so many rows of tiles. */
enum { MOST_PLACES = 1280, REACH = MOST_PLACES - BLOCK };

static __device__ __forceinline__ int plane_at(int channel) { return channel * PLANE + channel / 8 * ASIDE; }

/* x, of which the compiler forgets that it knew it: what follows from it is computed anew, once a tile, where it would have kept
 * registers that the products need. */
static __device__ __forceinline__ unsigned fresh(unsigned x)
{
    asm volatile("" : "+r"(x));
    return x;
}
/* Which part of a tile a thread carries: 8 channels from 8 half on, rows 2 pair and 2 pair + 1, sequences seq and seq + 4. */
struct Lot { int half, pair, seq, id; };
static __device__ __forceinline__ Lot my_lot(void)
{
    const unsigned id = fresh(threadIdx.x), warp = id / 32;
    return Lot{(int)(id % 2), (int)(warp % 8 * 4 + id / 2 % 4), (int)(warp / 8 * 8 + id / 8 % 4), (int)id};
}
/* What a block of threads has: a member, channels from c on, rows from `row` on and before `rows`, sequences before `end`. */
struct Range { int32_t m, c, row, rows, cols, end; };
/* Its rows as a thread sees them: from its own first row and sequence on, so many sequences and rows are there. */
struct Source {
    const bf16 *from;
    int32_t seqs, rows;
};
static __device__ __forceinline__ Source source(const Arg &a, const Lot &l, const Range &r)
{
    const int32_t row = r.row + 2 * l.pair, c = r.c + 8 * l.half;
    return Source{(const bf16 *)a.data + r.m * a.member + l.seq * a.seq + row * a.ld + c, c < r.cols ? r.end - l.seq : 0, r.rows - row};
}
/* Where a tile begins, and the one after it; `last`: rows before this one, counted from the range's first. */
struct Step { int32_t s, t; };
static __device__ __forceinline__ Step after(const Step &a, int32_t last) { return a.t + TILE < last ? Step{a.s, a.t + TILE} : Step{a.s + SEQS, 0}; }

/* Copies a tile, if there is one: 4 pieces a thread, to be rearranged by it. */
enum { RAW = 4 * LONG_THREADS };                           /* pieces of 16 bytes                                                     */
static __device__ __forceinline__ void copy_tile(uint4 *raw, const Arg &a, const Lot &l, const Range &r, const Step &at)
{
    const Source p = source(a, l, r);
    if (at.s < r.end) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool there = at.s + i / 2 * 4 < p.seqs && at.t + i % 2 < p.rows;
            copy_16(raw + i * LONG_THREADS + l.id, p.from + (at.s + i / 2 * 4) * a.seq + (at.t + i % 2) * a.ld, there);
        }
    }
    copy_commit();
}
static __device__ __forceinline__ void rearrange(uint32_t *buffer, const uint4 *raw, const Lot &l)
{
    uint32_t *to = buffer + plane_at(8 * l.half) + l.seq * LINE + l.pair;
#pragma unroll
    for (int i = 0; i < 4; i += 2, to += 4 * LINE) {
        const uint4 p = raw[i * LONG_THREADS + l.id], q = raw[(i + 1) * LONG_THREADS + l.id];
        const uint32_t a[4] = {p.x, p.y, p.z, p.w}, b[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            to[2 * j * PLANE] = __byte_perm(a[j], b[j], 0x5410);
            to[(2 * j + 1) * PLANE] = __byte_perm(a[j], b[j], 0x7632);
        }
    }
}
/* The tile at `at`, which was copied, goes to a buffer, the one after it on its way. */
static __device__ __forceinline__ void advance(uint32_t *to, uint4 *raw, const Arg &a, const Range &r, const Step &at, int32_t last)
{
    const Lot l = my_lot();
    copy_wait<0>();
    if (at.s < r.end) rearrange(to, raw, l);
    copy_tile(raw, a, l, r, after(at, last));
}
static __device__ __forceinline__ void clear(float (*sum)[4])
{
#pragma unroll
    for (int i = 0; i < 16; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
}
static __device__ __forceinline__ bool rearranges_first(void) { return threadIdx.x / 128 % 2 == 0; }

/* ---- y ---- */
struct Long {
    Arg u, y, h;
    const int32_t *n_seq;
    int32_t rows, cols, groups, blocks, per;               /* groups of channels, blocks of rows, groups of sequences a block has    */
    int32_t places;                                        /* of h that the tables hold at a time                                    */
};
static __host__ __device__ __forceinline__ int table_words(int32_t places) { return places + 2 * TABLE + GAP; }

/* The first place that the tables hold while a block at row0 meets the tile at t. */
static __device__ __forceinline__ int32_t table_base(const Long &a, int32_t row0, int32_t t)
{
    const int32_t base = row0 + BLOCK - a.places - t / REACH * REACH;
    return base > 0 ? base : 0;
}
/* Word j of channel c's tables: (h[2j], h[2j-1]) and (h[2j+1], h[2j]) from place `base` on; zeros outside of h. */
static __device__ __forceinline__ void fill_tables(uint32_t *table, const Long &a, int32_t m, int32_t c0, int32_t base, int32_t places)
{
    const float *h = (const float *)a.h.data + m * a.h.member;
    const int words = table_words(a.places), other = a.places / 2 + TABLE;
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < CHANNELS * (places / 2 + BEFORE); i += LONG_THREADS) {
        const int c = i % CHANNELS;
        const int32_t j = i / CHANNELS - BEFORE;
        float v[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            const int32_t x = base + 2 * j - 1 + k;
            v[k] = x >= 0 && x < a.rows && c0 + c < a.cols ? h[x * a.h.ld + c0 + c] : 0.0f;
        }
        uint32_t *to = table + c * words + j + BEFORE;
        to[0] = pack_bf16(v[1], v[0]);
        to[other] = pack_bf16(v[2], v[1]);
    }
}

/* sum[n] (16 sequences by the 8 rows 8 n of the block) += tile times T. table: of channel 0, for the distance of block and tile. Pieces
 * n, t with n - 2t < LOW lie above the diagonal: T is 0 there. */
template <int LOW> static __device__ __forceinline__ void multiply(float (*sum)[4], const uint32_t *buffer, const uint32_t *table, int32_t places)
{
    const unsigned id = fresh(threadIdx.x);
    const int lane = (int)(id % 32), warp = (int)(id / 32);
    const uint32_t *from = buffer + plane_at(warp) + lane % 16 * LINE + lane / 16 * 4;
    const uint32_t *f = table + warp * table_words(places) + (lane / 4 % 2 ? places / 2 + TABLE : 0) + lane / 8 - lane % 4 + BEFORE;
    uint32_t w[24];                                        /* w[8 + i]: distance 8 i more                                            */
#pragma unroll
    for (int t = 0; t < TILE / 16; t++) {
        const int first = -2 * t;
        if (first + 15 < LOW) continue;
        __syncwarp();
#pragma unroll
        for (int i = first - 1; i < (t > 0 ? first + 1 : first + 16); i++) w[8 + i] = i >= LOW ? f[4 * i] : 0;
        uint32_t a[4];
        ldmatrix<4, false>(a, from + 8 * t);
#pragma unroll
        for (int i = first; i < first + 16; i++) {
            if (i < LOW) continue;
            const uint32_t b[2] = {w[8 + i], w[7 + i]};
            mma_16816(sum[i + 2 * t], a, b);
        }
    }
}

/* 8 channels of the first (0x5410) or second (0x7632) of two rows, from a word of both rows for each channel. */
template <unsigned HALVES> static __device__ __forceinline__ uint4 one_row(const uint32_t w[8])
{
    return make_uint4(__byte_perm(w[0], w[1], HALVES), __byte_perm(w[2], w[3], HALVES), __byte_perm(w[4], w[5], HALVES), __byte_perm(w[6], w[7], HALVES));
}
/* The block's sums by way of the warps' planes (rows 0..63 in `near`, the others in `far`) to y from sequence s on. */
static __device__ __forceinline__ void put_block(const float (*sum)[4], uint32_t *near, uint32_t *far, const Arg &a, const Range &r, int32_t s)
{
    const Lot l = my_lot();
    const Source y = source(a, l, r);
    const int lane = l.id % 32, g = lane / 4, q = lane % 4, mine = plane_at(l.id / 32) + g * LINE + q;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < 16; n++) {
        uint32_t *to = (n < 8 ? near : far) + mine + n % 8 * 4;
        to[0] = pack_bf16(sum[n][0], sum[n][1]);
        to[8 * LINE] = pack_bf16(sum[n][2], sum[n][3]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int seq = i % 2 * 4, row = i / 2 * TILE;
        const uint32_t *from = (i < 2 ? near : far) + plane_at(8 * l.half) + (l.seq + seq) * LINE + l.pair;
        uint32_t w[8];
#pragma unroll
        for (int j = 0; j < 8; j++) w[j] = from[j * PLANE];
        bf16 *to = (bf16 *)y.from + (s + seq) * a.seq + row * a.ld;
        if (s + seq < y.seqs && row < y.rows) *(uint4 *)to = one_row<0x5410>(w);
        if (s + seq < y.seqs && row + 1 < y.rows) *(uint4 *)(to + a.ld) = one_row<0x7632>(w);
    }
}

/* What the block has: rows from .row on. The longest first. */
static __device__ __forceinline__ Range my_range(const Long &a, int32_t end)
{
    const int32_t x = (int32_t)fresh(blockIdx.x), line = x / a.groups;
    return Range{(int32_t)blockIdx.z, (x - line * a.groups) * CHANNELS, (a.blocks - 1 - line) * BLOCK, a.rows, a.cols, end};
}
static __device__ __forceinline__ Range from_start(Range r) { r.row = 0; return r; }
/* Rows t' before this one. */
static __device__ __forceinline__ int32_t last_row(const Range &r) { return r.row + BLOCK < r.rows ? r.row + BLOCK : r.rows; }

static __global__ __launch_bounds__(LONG_THREADS, 1) void convolve(Long a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, shared);                          /* two buffers, one more for y, the raw tile, the tables                  */
    const int32_t n = a.n_seq[blockIdx.z];
    Step now = {(int32_t)blockIdx.y * a.per * SEQS, 0};
    const int32_t end = now.s + a.per * SEQS < n ? now.s + a.per * SEQS : n;
    if (now.s >= end) return;
    uint4 *raw = (uint4 *)(shared + 3 * BUFFER);
    uint32_t *table = shared + 3 * BUFFER + 4 * RAW;
    {
        const Range r = my_range(a, end);
        copy_tile(raw, a.u, my_lot(), from_start(r), now);
        fill_tables(table, a, r.m, r.c, table_base(a, r.row, 0), r.row + BLOCK < a.places ? r.row + BLOCK : a.places);
        advance(shared, raw, a.u, from_start(r), now, last_row(r));
    }
    __syncthreads();
    float sum[16][4];
    clear(sum);
    for (int turn = 0; now.s < end; turn ^= 1) {
        const Range r = my_range(a, end);
        uint32_t *near = shared + turn * BUFFER, *far = shared + (turn ^ 1) * BUFFER;
        const int32_t d = r.row - now.t;
        if (rearranges_first()) advance(far, raw, a.u, from_start(r), after(now, last_row(r)), last_row(r));
        if (d > 0) multiply<-8>(sum, near, table + (d - table_base(a, r.row, now.t)) / 2, a.places);
        else if (d == 0) multiply<0>(sum, near, table, a.places);
        else multiply<TILE / 8>(sum, near, table - TILE / 2, a.places);
        const Range q = my_range(a, end);
        const Step next = after(now, last_row(q));
        if (!rearranges_first()) advance(far, raw, a.u, from_start(q), next, last_row(q));
        if (next.s != now.s) {
            put_block(sum, near, shared + 2 * BUFFER, a.y, q, now.s);
            clear(sum);
        }
        const int32_t base = table_base(a, q.row, next.t);
        if (base != table_base(a, q.row, now.t)) {         /* a filter longer than the tables                                        */
            __syncthreads();
            fill_tables(table, a, q.m, q.c, base, a.places);
        }
        now = next;
        __syncthreads();
    }
}
static size_t convolve_bytes(int32_t places)
{
    return sizeof(uint32_t) * (3 * (size_t)BUFFER + 4 * RAW + (size_t)CHANNELS * (size_t)table_words(places));
}

/* ---- dh ---- */
struct LongDh {
    Arg u, dy;
    float *part;                                           /* [member][chunk][window][SPAN][cols]                                    */
    const int32_t *n_seq;
    int32_t rows, cols, groups, windows, per, chunks;
};
/* The diagonals of the sums: sum[i] holds t - t' = first + 8 i + row - column, first + 7 the block's first place less 15. One channel a
 * warp, by way of shared memory. */
static __device__ __forceinline__ void put_diagonals(const float (*sum)[4], float *shared, const LongDh &a, int32_t m, int32_t window, int32_t c0)
{
    enum { PITCH = 9 };
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, q = lane % 4;
    float *box = shared + warp * (16 * PITCH + SPAN + 1), *line = box + 16 * PITCH;
    for (int k = lane; k < SPAN; k += 32) line[k] = 0.0f;
#pragma unroll
    for (int i = 0; i < DISTANCES; i++) {
        __syncwarp();
        box[g * PITCH + 2 * q] = sum[i][0];
        box[g * PITCH + 2 * q + 1] = sum[i][1];
        box[(g + 8) * PITCH + 2 * q] = sum[i][2];
        box[(g + 8) * PITCH + 2 * q + 1] = sum[i][3];
        __syncwarp();
        float v = 0.0f;
#pragma unroll
        for (int col = 0; col < 8; col++) {
            const int row = lane - 7 + col;
            if (row >= 0 && row < 16) v += box[row * PITCH + col];
        }
        if (lane < 23) line[8 * i + lane] += v;
    }
    __syncthreads();
    const int c = (int)threadIdx.x % CHANNELS;
    float *to = a.part + ((((int64_t)m * a.chunks + blockIdx.y) * a.windows + window) * SPAN) * a.cols + c0 + c;
    for (int k = (int)threadIdx.x / CHANNELS; k < SPAN; k += LONG_THREADS / CHANNELS)
        if (c0 + c < a.cols) to[(int64_t)k * a.cols] = shared[c * (16 * PITCH + SPAN + 1) + 16 * PITCH + k];
}

/* The four steps of 16 rows t of a tile. w: pieces of 8 t' of which 14 are there, the newest last; distance i meets the one that is i
 * before the newest. */
static __device__ __forceinline__ void correlate(float (*sum)[4], uint32_t (*w)[2], const uint32_t *buffer)
{
    /* rows of 8 sequences, as ldmatrix takes them: of u (0-7, 8-15) by (t', t' + 8), of dy (t, t + 8) by (0-7, 8-15) */
    const unsigned id = fresh(threadIdx.x), lane = id % 32;
    const uint32_t *u = buffer + plane_at((int)(id / 32)) + lane % 16 * LINE + lane / 16 * 4;
    const uint32_t *dy = buffer + 2 * BUFFER + plane_at((int)(id / 32)) + (lane % 8 + lane / 16 * 8) * LINE + lane / 8 % 2 * 4;
#pragma unroll
    for (int t = 0; t < TILE / 16; t++) {
        uint32_t a[4];
        ldmatrix<4, true>(w[14 + 2 * t], u + 8 * t);
        ldmatrix<4, true>(a, dy + 8 * t);
#pragma unroll
        for (int i = 0; i < DISTANCES; i++) mma_16816(sum[i], a, w[15 + 2 * t - i]);
    }
}

static __global__ __launch_bounds__(LONG_THREADS, 1) void correlations(LongDh a)
{
    mdr_begin();
    MDR_SHARED(uint32_t, shared);                          /* two buffers of u, two of dy, the raw tiles                             */
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m], window = (int32_t)blockIdx.x / a.groups;
    Step now = {(int32_t)blockIdx.y * a.per * SEQS, 0};
    const int32_t end = now.s + a.per * SEQS < n ? now.s + a.per * SEQS : n, last = a.rows - window * BLOCK;
    if (now.s >= end) return;
    const Range r = {m, (int32_t)blockIdx.x % a.groups * CHANNELS, 0, a.rows, a.cols, end}, r_dy = {m, r.c, window * BLOCK, a.rows, a.cols, end};
    uint4 *raw = (uint4 *)(shared + 4 * BUFFER);
    copy_tile(raw, a.u, my_lot(), r, now);
    copy_tile(raw + RAW, a.dy, my_lot(), r_dy, now);
    float sum[DISTANCES][4];
    uint32_t w[22][2];
    clear(sum);
#pragma unroll
    for (int i = 0; i < 14; i++) w[i][0] = w[i][1] = 0;
    advance(shared, raw, a.u, r, now, last);
    advance(shared + 2 * BUFFER, raw + RAW, a.dy, r_dy, now, last);
    __syncthreads();
    for (int turn = 0; now.s < end; turn ^= 1) {
        uint32_t *far = shared + (turn ^ 1) * BUFFER;
        const Step next = after(now, last);
        if (rearranges_first()) {
            advance(far, raw, a.u, r, next, last);
            advance(far + 2 * BUFFER, raw + RAW, a.dy, r_dy, next, last);
        }
        correlate(sum, w, shared + turn * BUFFER);
        if (!rearranges_first()) {
            advance(far, raw, a.u, r, next, last);
            advance(far + 2 * BUFFER, raw + RAW, a.dy, r_dy, next, last);
        }
#pragma unroll
        for (int i = 0; i < 14; i++) {
            w[i][0] = next.s != now.s ? 0 : w[i + 8][0];
            w[i][1] = next.s != now.s ? 0 : w[i + 8][1];
        }
        now = next;
        __syncthreads();
    }
    put_diagonals(sum, (float *)shared, a, m, window, r.c);
}
/* dh[j] from the chunks in order, in each from one window or two: the diagonals before a window's first place are the next one's. */
static __global__ void gather_dh(LongDh a, Arg dh)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, n = a.n_seq[m];
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int32_t j = (int32_t)(i / a.cols), c = (int32_t)(i % a.cols), window = j / BLOCK, place = j % BLOCK + 15;
    if (n == 0 || j >= a.rows) return;
    const bool two = place >= BLOCK && window + 1 < a.windows;
    const float *from = a.part + (int64_t)m * a.chunks * a.windows * SPAN * a.cols + ((int64_t)window * SPAN + place) * a.cols + c;
    float sum = 0.0f;
    for (int32_t q = 0; q < a.chunks && q * a.per * SEQS < n; q++, from += (int64_t)a.windows * SPAN * a.cols) {
        sum += from[0];
        if (two) sum += from[((int64_t)SPAN - BLOCK) * a.cols];
    }
    const int64_t at = m * dh.member + j * dh.ld + c;
    arg_put(dh, at, arg_get(dh, at) + sum);
}

/* ---- choosing ---- */
static int32_t ceil32(int64_t a, int64_t b) { return (int32_t)mdr_ceil_div(a, b); }
static bool in_pieces(const Arg &a, int64_t cols)
{
    return a.size == 2 && cols % 8 == 0 && (uintptr_t)a.data % 16 == 0 && a.member % 8 == 0 && a.seq % 8 == 0 && a.ld % 8 == 0;
}

static void conv_long(const Call *c, int64_t, int64_t)
{
    const Shape s = c->node->out[0].shape;
    const int32_t rows = s.d[0], cols = s.d[1], blocks = ceil32(rows, BLOCK), groups = ceil32(cols, CHANNELS), all = ceil32(c->extent.n_seq, SEQS);
    const Arg u = c->in[0], h = c->in[1], y = c->out[0];
    const int32_t places = blocks * BLOCK < MOST_PLACES ? blocks * BLOCK : MOST_PLACES;
    const size_t bytes = convolve_bytes(places);
    if (!in_pieces(u, cols) || !in_pieces(y, cols) || h.size != 4 || h.seq != 0) {
        run_direct(c);
        return;
    }
    /* Blocks of threads with several groups of sequences load the next one early; enough of them to fill the GPU. No bit depends on it. */
    const int64_t each = (int64_t)groups * blocks * c->extent.n_member, most = all / 2 < 1 ? 1 : all / 2;
    int64_t parts = mdr_ceil_div(4 * 132, each);
    if (parts > most) parts = most;
    const bool turn = is_anticausal(c->node);
    Long a = {turn ? backwards(u, rows) : u, turn ? backwards(y, rows) : y, h, c->n_seq, rows, cols, groups, blocks, ceil32(all, parts), places};
    MDR_ALLOW_SHARED(convolve, bytes);
    MDR_LAUNCH(convolve, mdr_grid((int64_t)groups * blocks, ceil32(all, a.per), c->extent.n_member), LONG_THREADS, bytes, c->stream, a);
}

/* Groups of sequences a chunk: with a batch alone one block of threads for each processor. */
static int32_t dh_per(const Node *n, Extent e)
{
    const Shape s = n->out[0].shape;
    const int64_t each = (int64_t)ceil32(s.d[1], CHANNELS) * ceil32(s.d[0], BLOCK);
    const int32_t all = ceil32(e.n_seq, SEQS), parts = ceil32(128, each);
    return ceil32(all, parts < all ? parts : all);
}
static size_t dh_scratch(const Node *n, Extent e)
{
    const Shape s = n->out[0].shape;
    const size_t chunks = (size_t)mdr_ceil_div(mdr_ceil_div(e.n_seq, SEQS), dh_per(n, e));
    const size_t mine = sizeof(float) * chunks * (size_t)ceil32(s.d[0], BLOCK) * SPAN * (size_t)s.d[1] * (size_t)e.n_member;
    const size_t plain = direct_dh_scratch(n, e);
    return mine > plain ? mine : plain;
}
static void conv_long_dh(const Call *c, int64_t, int64_t)
{
    const Shape s = c->node->out[0].shape;
    const int32_t rows = s.d[0], cols = s.d[1], members = c->extent.n_member;
    if (!in_pieces(c->in[0], cols) || !in_pieces(c->in[1], cols) || !(c->add & 1u)) {
        run_direct_dh(c);
        return;
    }
    LongDh a = {c->in[0], c->in[1], (float *)c->scratch, c->n_seq, rows, cols, ceil32(cols, CHANNELS), ceil32(rows, BLOCK), dh_per(c->node, c->extent), 0};
    a.chunks = ceil32(ceil32(c->extent.n_seq, SEQS), a.per);
    const size_t bytes = sizeof(uint32_t) * (4 * (size_t)BUFFER + 8 * RAW);
    MDR_ALLOW_SHARED(correlations, bytes);
    MDR_LAUNCH(correlations, mdr_grid((int64_t)a.groups * a.windows, a.chunks, members), LONG_THREADS, bytes, c->stream, a);
    MDR_LAUNCH(gather_dh, mdr_grid(mdr_ceil_div((int64_t)rows * cols, 256), 1, members), 256, 0, c->stream, a, c->out[0]);
}

extern "C" const CudaRow mdr_cuda_rows_conv_long[] = {
    {"conv_long", {conv_long, NULL, NULL, {}}, NULL, 0, 0}, {"conv_long_dh", {conv_long_dh, NULL, dh_scratch, {}}, NULL, 0, 0}, {}};
