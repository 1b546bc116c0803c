/* Gradient of selective_scan and of gated_scan on the GPU (the formulas stand in their .c files). A thread keeps 8 states: two channels at
 * N = 4, one at 8, half a channel at 16. It goes through the tiles of SCAN_CHUNK tokens from the last to the first: once forward from the
 * saved states, leaving a mark every SUB tokens, then by SUB tokens backward, their states and decays in registers. delta is made float
 * (gated: by softplus) on the first way and kept in shared memory. Gated, y is made again of the states, and so is not saved.
 *
 * dB and dC are sums over channels. bf16: tensor cores add. A product's right operand has a column for every four lanes, in which four
 * numbers of each stand; ones on the left in the place of one of the four make a row of the result that number's sums over such lanes.
 * That leaves eight columns, two a lane, and four lanes. Terms are rounded to bf16, sums are float.
 * float: 32 of a thread's terms and the 32 lanes of a warp change places while they are added, so that a lane ends up with one sum (31
 * shuffles for 32 sums). The warps' sums are added in order, and where a block is not all channels, the blocks'.
 *
 * da, dd and dbias are sums over time, one a sequence; gated they may be wanted over the batch: a second stage adds them. */
#include "op/cuda_chunks.h"
#include "op/cuda_scan_grad_any.h"

enum { SUB = 4, MARKS = 3, KEPT = 8 };
static_assert((MARKS + 1) * SUB == (int)SCAN_CHUNK);

/* What a kernel is compiled for: the type of what moves, states, channels of a thread, threads of a channel. */
template <typename T_, int N_, int CH_, int G_, bool GATED_> struct Kind {
    using T = T_;
    static constexpr int N = N_, CH = CH_, G = G_, NT = N / G, W = THREADS * CH / G, TILE = SCAN_CHUNK * W, SUMS = 2 * SCAN_CHUNK * N;
    static constexpr bool GATED = GATED_, TWO = sizeof(T) == 2;               /* of u two tiles: with floats one, lest fewer blocks fit */
    static constexpr bool OPENED = TWO || GATED;                              /* delta as floats in a tile of their own                 */
    static constexpr bool MMA = TWO && G == 1;                                /* who adds dB and dC                                     */
    static constexpr int BLOCKS = MMA && GATED ? 3 : 2;                             /* on a processor; trading wants more registers           */
    static_assert(CH * NT == KEPT);
};
/* Shared memory, in bytes. */
enum { STARTS = 9 };
template <typename K> constexpr size_t shared_bytes(void)
{
    return sizeof(typename K::T) * K::TILE * ((K::TWO ? 2 : 1) + 2 + (K::GATED ? 1 : 0)) +
           sizeof(float) * (size_t)((K::OPENED ? K::TILE : 0) + MARKS * KEPT * THREADS + (2 + WARPS) * K::SUMS) + STARTS * sizeof(int64_t) + 32 * sizeof(uint4);
}

/* The left operand: row r has its ones where the number r % 4 of a lane's four stands. It is read from shared memory, where its
 * words stand side by side as products want them: the compiler, knowing them alike, would keep two and copy them for each. */
static __device__ __forceinline__ void put_ones(uint32_t *to, int lane)
{
    const int at = lane / 4 % 4;
    const uint32_t one = at & 1 ? 0x3f800000u : 0x3f80u;
    *(uint4 *)(to + lane * 4) = at < 2 ? make_uint4(one, one, 0, 0) : make_uint4(0, 0, one, one);
}
/* Of four numbers of every lane: lane l gets the sum of number l / 4 % 4 over eight lanes; four neighbours make all 32. */
static __device__ __forceinline__ float eighth(const uint4 &ones, const float v[4])
{
    const uint32_t a[4] = {ones.x, ones.y, ones.z, ones.w}, b[2] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])};
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_16816(sum, a, b);
    return sum[0] + sum[1];
}
/* Sums of 16 numbers over the warp, s[j] as eighth made it of the four from 4 j on, to memory: upper lanes take the upper half. */
static __device__ __forceinline__ void put_16(float *to, const float s[4], int lane)
{
    const bool upper = lane & 16, odd = lane & 1;
    const float even_j = upper ? s[2] : s[0], odd_j = upper ? s[3] : s[1];
    float all = (odd ? odd_j : even_j) + __shfl_xor_sync(0xffffffffu, odd ? even_j : odd_j, 1);
    all += __shfl_xor_sync(0xffffffffu, all, 2);
    if ((lane & 2) == 0) to[lane / 16 * 8 + (lane & 1) * 4 + lane / 4 % 4] = all;
}

/* Shared memory of a block, and where its thread stands in it. */
template <typename K> struct Block {
    typename K::T *u, *delta, *dy, *z;                                        /* [TWO][TILE], [TILE] each               */
    float *dt;                        /* [SCAN_CHUNK][W]                                                                    */
    float *mark;                      /* [MARKS][KEPT / 4][THREADS][4], this thread's first                                 */
    float *rates, *sums;              /* [2][B, C][SCAN_CHUNK][N]; [WARPS][SCAN_CHUNK][B, C][N]                             */
    int64_t *start;                   /* where a sequence begins in u, delta, dy, z, B, C, states, dB, dC: not in registers */
    uint32_t *ones;                   /* [32][4]                                                                            */
    int32_t k0, at, group;
    bool live;
};
/* What a thread holds all the way: dh, the gradient that comes from later tokens; the sums da, dd and dbias; where the next token's
 * gradients go. a is times log2 e. */
template <typename K> struct Held {
    float a[K::CH][K::NT], dh[K::CH][K::NT], da[K::CH][K::NT], d[K::CH], dd[K::CH], dbias[K::CH];
    unsigned char *du, *ddelta, *dz;
};
/* Some tokens of a tile, from one on, and of these this thread's channels and states. */
template <typename K> struct Tile {
    const typename K::T *u, *delta;   /* rows of W; behind delta's tile stand dy's and z's                                  */
    float *dt;
    const float *b;                   /* rows of N; c: behind it                                                            */
};
template <typename K> static __device__ __forceinline__ Tile<K> later(const Tile<K> &x, int tokens)
{
    return {x.u + tokens * K::W, x.delta + tokens * K::W, x.dt + tokens * K::W, x.b + tokens * K::N};
}

template <typename K> static __device__ __forceinline__ void enter(Block<K> &z, const Backward &f, int64_t m, int64_t s, unsigned char *shared)
{
    using T = typename K::T;
    const int32_t tid = (int32_t)threadIdx.x;
    z.k0 = (int32_t)blockIdx.x * K::W;
    z.group = tid & (K::G - 1);
    z.at = tid / K::G * K::CH;
    z.live = z.k0 + z.at < f.cols;
    z.u = (T *)shared;
    z.delta = z.u + (K::TWO ? 2 : 1) * K::TILE;
    z.dy = z.delta + K::TILE;
    z.z = z.dy + K::TILE;
    float *next = (float *)(K::GATED ? z.z + K::TILE : z.z);
    z.dt = K::OPENED ? next : (float *)z.delta;
    if (K::OPENED) next += K::TILE;
    z.mark = next + 4 * tid;
    z.rates = next + MARKS * KEPT * THREADS;
    z.sums = z.rates + 2 * K::SUMS;
    z.ones = (uint32_t *)(z.sums + WARPS * K::SUMS);
    z.start = (int64_t *)(z.ones + 32 * 4);
    if (tid < 32) put_ones(z.ones, tid);
    if (tid == 0) {
        z.start[0] = scan_start(f.u, m, s);
        z.start[1] = scan_start(f.delta, m, s);
        z.start[2] = scan_start(f.dy, m, s);
        z.start[3] = scan_start(f.z, m, s);
        z.start[4] = scan_start(f.bm, m, s);
        z.start[5] = scan_start(f.cm, m, s);
        z.start[6] = scan_start(f.states, m, s);
        z.start[7] = scan_start(f.db, m, s);
        z.start[8] = scan_start(f.dc, m, s);
    }
    __syncthreads();
}
/* Two parts, because the first is wanted earlier and given free earlier. */
template <typename K> static __device__ __forceinline__ void bring_first(const Block<K> &z, const Backward &f, int32_t q)
{
    stage<K::W>(z.u + (K::TWO ? (q & 1) * K::TILE : 0), f.u, z.start[0], q * SCAN_CHUNK, f.rows, z.k0, f.cols);
    stage<K::W>(z.delta, f.delta, z.start[1], q * SCAN_CHUNK, f.rows, z.k0, f.cols);
    copy_commit();
}
template <typename K> static __device__ __forceinline__ void bring_second(const Block<K> &z, const Backward &f, int32_t q)
{
    stage<K::W>(z.dy, f.dy, z.start[2], q * SCAN_CHUNK, f.rows, z.k0, f.cols);
    if (K::GATED) stage<K::W>(z.z, f.z, z.start[3], q * SCAN_CHUNK, f.rows, z.k0, f.cols);
    copy_commit();
}
/* The saved states before tile q. */
template <typename K>
static __device__ __forceinline__ void saved(const Block<K> &z, const Backward &f, int32_t q, float (&h)[K::CH][K::NT])
{
    using P = Pack<float, K::CH>;
    const int32_t first = q * (int32_t)f.states.ld + z.group * K::NT * f.cols + z.k0 + z.at;
    const float *from = (const float *)((const unsigned char *)f.states.data + z.start[6]) + first;
#pragma unroll
    for (int n = 0; n < K::NT; n++, from += f.cols) {
        P x = {};
        if (z.live) x = *(const P *)from;
#pragma unroll
        for (int j = 0; j < K::CH; j++) h[j][n] = x.x[j];
    }
}

/* delta of token t as floats: OPEN, made of what was given, else found where that left it. */
template <typename K, bool OPEN> static __device__ __forceinline__ Pack<float, K::CH> step_size(const Tile<K> &x, int t)
{
    Pack<float, K::CH> *kept = (Pack<float, K::CH> *)(x.dt + t * K::W), dt;
    if (!OPEN || !K::OPENED) return *kept;
    open((const Pack<typename K::T, K::CH> *)(x.delta + t * K::W), dt.x);
#pragma unroll
    for (int j = 0; j < K::CH; j++)
        if (K::GATED) dt.x[j] = scan_softplus(dt.x[j]);
    *kept = dt;                       /* by each of a channel's G lanes, the same                                           */
    return dt;
}
/* h over token t of a tile; KEEP: its decay is kept, and delta was opened before. */
template <typename K, bool KEEP>
static __device__ __forceinline__ void advance(const Tile<K> &x, int t, const float (&a)[K::CH][K::NT], float (&h)[K::CH][K::NT], float (*decay)[K::CH][K::NT])
{
    const Pack<float, K::CH> dt = step_size<K, !KEEP>(x, t);
    float ut[K::CH], b[K::NT];
    open((const Pack<typename K::T, K::CH> *)(x.u + t * K::W), ut);
    broadcast<K::NT>(b, x.b + t * K::N);
#pragma unroll
    for (int j = 0; j < K::CH; j++) {
        const float du = dt.x[j] * ut[j];
#pragma unroll
        for (int n = 0; n < K::NT; n++) {
            const float e = fast_exp2(dt.x[j] * a[j][n]);
            h[j][n] = e * h[j][n] + du * b[n];
            if (KEEP) (*decay)[j][n] = e;
        }
    }
}

/* Token t backward: terms of dB go to v[n], of dC to v[NT + n]; du, ddelta and dz, where `there`, to memory. */
template <typename K>
static __device__ __forceinline__ void retreat(const Block<K> &z, const Tile<K> &x, const Backward &f, Held<K> &own, bool there, int t,
                                               const float (&decay)[K::CH][K::NT], const float (&before)[K::CH][K::NT],
                                               const float (&after)[K::CH][K::NT], float *v)
{
    using P = Pack<typename K::T, K::CH>;
    constexpr int NT = K::NT;
    const Pack<float, K::CH> dt = step_size<K, false>(x, t);
    float b[NT], c[NT], ut[K::CH], given[K::CH], zt[K::CH], du[K::CH], ddelta[K::CH], dz[K::CH];
    open((const P *)(x.u + t * K::W), ut);
    open((const P *)(x.delta + K::TILE + t * K::W), given);
    if (K::GATED) open((const P *)(x.delta + 2 * K::TILE + t * K::W), zt);
    broadcast<NT>(b, x.b + t * K::N);
    broadcast<NT>(c, x.b + (SCAN_CHUNK + t) * K::N);
#pragma unroll
    for (int j = 0; j < K::CH; j++) {
        const float dtu = dt.x[j] * ut[j], gate = K::GATED ? fast_sigmoid(zt[j]) : 1.0f, act = K::GATED ? zt[j] * gate : 1.0f, dyt = given[j] * act;
        float inject = 0.0f, exponent = 0.0f, y = 0.0f;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const float now = own.dh[j][n] + dyt * c[n];
            v[n] = j ? v[n] + now * dtu : now * dtu;
            v[NT + n] = j ? v[NT + n] + dyt * after[j][n] : dyt * after[j][n];
            if (K::GATED) y += c[n] * after[j][n];
            inject += now * b[n];
            own.dh[j][n] = now * decay[j][n];
            const float g = own.dh[j][n] * before[j][n];
            exponent += g * own.a[j][n];
            own.da[j][n] += g * dt.x[j];
        }
        own.dd[j] += dyt * ut[j];
#pragma unroll
        for (int g = 1; g < K::G; g *= 2) {
            inject += __shfl_xor_sync(0xffffffffu, inject, g);
            exponent += __shfl_xor_sync(0xffffffffu, exponent, g);
            if (K::GATED) y += __shfl_xor_sync(0xffffffffu, y, g);
        }
        du[j] = dyt * own.d[j] + inject * dt.x[j];
        ddelta[j] = SCAN_LN2 * exponent + inject * ut[j];
        if (!K::GATED) continue;
        ddelta[j] *= 1.0f - fast_exp2(-SCAN_LOG2E * dt.x[j]);                 /* softplus' = 1 - exp(-softplus)         */
        own.dbias[j] += ddelta[j];
        dz[j] = given[j] * (y + own.d[j] * ut[j]) * (gate + act * (1.0f - gate));                  /* (z s)' = s + z s (1 - s)               */
    }
    if (there) {
        if (z.group == 0) close((P *)own.du, du);
        if (z.group == K::G - 1) close((P *)own.ddelta, ddelta);
        if (K::GATED && z.group == 0) close((P *)own.dz, dz);
    }
    own.du += f.next_du;
    own.ddelta += f.next_ddelta;
    if (K::GATED) own.dz += f.next_dz;
}

/* Tokens [b SUB, (b + 1) SUB) of tile q, which x begins with: forward from their mark, then backward. */
template <typename K>
static __device__ __forceinline__ void part_of_tile(const Block<K> &z, const Tile<K> &x, const Backward &f, Held<K> &own, int32_t q, int b)
{
    constexpr int NT = K::NT, ROUND = (K::MMA ? 8 : 16) / NT;                 /* tokens whose terms are added together      */
    const int32_t left = z.live ? f.rows - q * SCAN_CHUNK - b * SUB : 0;
    const int32_t lane = (int32_t)threadIdx.x & 31;
    float h[SUB + 1][K::CH][NT], decay[SUB][K::CH][NT], v[2 * NT * (K::MMA ? 1 : ROUND)], s[4];
    const uint4 ones = *(const uint4 *)(z.ones + lane * 4);
    if (b == 0) saved(z, f, q, h[0]);
    else
#pragma unroll
        for (int k = 0; k < KEPT; k += 4) broadcast<4>(h[0][0] + k, z.mark + ((b - 1) * KEPT + k) * THREADS);
#pragma unroll
    for (int i = 0; i < SUB; i++) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) h[i + 1][k / NT][k % NT] = h[i][k / NT][k % NT];
        advance<K, true>(x, i, own.a, h[i + 1], &decay[i]);
    }
#pragma unroll
    for (int i = SUB - 1; i >= 0; i--) {
        float *to = z.sums + threadIdx.x / 32 * K::SUMS + (b * SUB + i) * 2 * K::N;
        retreat(z, x, f, own, i < left, i, decay[i], h[i], h[i + 1], K::MMA ? v : v + i % ROUND * 2 * NT);
        if constexpr (K::MMA) {
#pragma unroll
            for (int j = 0; j < NT / 2; j++) s[i % ROUND * NT / 2 + j] = eighth(ones, v + 4 * j);
            if (i % ROUND == 0) put_16(to, s, lane);
        } else if (i % ROUND == 0) {
            trade<K::G>(v, lane);
            if (K::G == 1) to[lane] = v[0];
            else
#pragma unroll
                for (int g = 0; g < K::G; g++) {                              /* of v[(token 2 + which) NT + state]         */
                    const int e = (lane & -K::G) + g;
                    to[e / NT * K::N + z.group * NT + e % NT] = v[g];
                }
        }
    }
}

/* The warps' sums of a tile, in order. */
template <typename K> static __device__ __forceinline__ void put_sums(const Block<K> &z, const Backward &f, int64_t m, int64_t s, int32_t t0)
{
#pragma unroll
    for (int32_t i = (int32_t)threadIdx.x; i < K::SUMS; i += THREADS) {
        const int32_t t = t0 + i / (2 * K::N), which = i / K::N & 1, n = i % K::N;
        float sum = z.sums[i];
#pragma unroll
        for (int32_t w = 1; w < WARPS; w++) sum += z.sums[w * K::SUMS + i];
        if (t >= f.rows) continue;
        if (gridDim.x > 1) f.part[((((m * gridDim.y + s) * gridDim.x + blockIdx.x) * f.rows + t) * 2 + which) * K::N + n] = sum;
        else if ((which ? f.dc : f.db).data) {
            unsigned char *to = (unsigned char *)(which ? f.dc : f.db).data + z.start[7 + which];
            const int32_t at = t * (int32_t)(which ? f.dc.ld : f.db.ld) + n;
            if ((which ? f.dc : f.db).size == 2) put((bf16 *)to + at, sum);
            else put((float *)to + at, sum);
        }
    }
}

template <typename K> static __global__ void __launch_bounds__(THREADS, K::BLOCKS) backward(Backward f)
{
    mdr_begin();
    constexpr int N = K::N, NT = K::NT;
    MDR_SHARED(unsigned char, shared);
    const int64_t m = blockIdx.z, s = blockIdx.y;
    if (s >= f.n_seq[m]) return;
    Block<K> z;
    Held<K> own;
    Rates<N> next;
    enter(z, f, m, s, shared);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int j = i / NT, n = i % NT;
        own.a[j][n] = z.live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, z.k0 + z.at + j) + z.group * NT + n) : 0.0f;
        own.dh[j][n] = own.da[j][n] = 0.0f;
        if (n > 0) continue;
        own.d[j] = z.live ? arg_get(f.d, arg_row(f.d, m, s, 0) + z.k0 + z.at + j) : 0.0f;
        own.dd[j] = own.dbias[j] = 0.0f;
    }
    const int32_t last = (f.rows - 1) / SCAN_CHUNK, final = last * SCAN_CHUNK + SCAN_CHUNK - 1, k = z.k0 + z.at;
    own.du = (unsigned char *)f.du.data + (arg_row(f.du, m, s, final) + k) * (int64_t)sizeof(typename K::T);
    own.ddelta = (unsigned char *)f.ddelta.data + (arg_row(f.ddelta, m, s, final) + k) * (int64_t)sizeof(typename K::T);
    own.dz = (unsigned char *)f.dz.data + (arg_row(f.dz, m, s, final) + k) * (int64_t)sizeof(typename K::T);
    bring_first(z, f, last);
    bring_second(z, f, last);
    fetch<N>(next, f.bm, f.cm, z.start[4], z.start[5], last * SCAN_CHUNK, f.rows);
    keep<N>(next, z.rates + (last & 1) * K::SUMS);
    for (int32_t q = last; q >= 0; q--) {
        const int32_t t0 = q * SCAN_CHUNK;
        const float *b = z.rates + (q & 1) * K::SUMS + z.group * NT;
        Tile<K> x = {z.u + (K::TWO ? (q & 1) * K::TILE : 0) + z.at, z.delta + z.at, z.dt + z.at, b};
        float h[K::CH][NT];
        saved(z, f, q, h);
        copy_wait<1>();
        __syncthreads();                              /* u and delta are there                                                   */
        if (q > 0) fetch<N>(next, f.bm, f.cm, z.start[4], z.start[5], t0 - SCAN_CHUNK, f.rows);
#pragma unroll 1
        for (int i = 0; i < MARKS; i++) {
#pragma unroll
            for (int t = 0; t < SUB; t++) advance<K, false>(x, t, own.a, h, nullptr);
            x = later(x, SUB);
            const float *v = h[0];
#pragma unroll
            for (int k = 0; k < KEPT; k += 4) *(float4 *)(z.mark + (i * KEPT + k) * THREADS) = make_float4(v[k], v[k + 1], v[k + 2], v[k + 3]);
        }
#pragma unroll
        for (int t = 0; t < SUB; t++) step_size<K, true>(x, t);
        copy_wait<0>();
        __syncthreads();                              /* dy and z are there; delta is opened, and u's other tile long done with  */
        if (K::TWO && q > 0) bring_first(z, f, q - 1);
#pragma unroll 1
        for (int i = MARKS; i >= 0; i--, x = later(x, -SUB)) part_of_tile(z, x, f, own, q, i);
        if (q > 0) keep<N>(next, z.rates + ((q - 1) & 1) * K::SUMS);
        __syncthreads();                              /* nobody is still at this tile, and its sums are there                    */
        if (!K::TWO && q > 0) bring_first(z, f, q - 1);
        if (q > 0) bring_second(z, f, q - 1);
        put_sums(z, f, m, s, t0);
    }
    if (!z.live) return;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int j = i / NT, n = i % NT;
        const int64_t k = z.k0 + z.at + j;
        if (f.da.data) arg_put(f.da, arg_row(f.da, m, s, k) + z.group * NT + n, own.da[j][n]);
        if (z.group > 0 || n > 0) continue;
        if (f.dd.data) arg_put(f.dd, arg_row(f.dd, m, s, 0) + k, own.dd[j]);
        if (K::GATED && f.dbias.data) arg_put(f.dbias, arg_row(f.dbias, m, s, 0) + k, own.dbias[j]);
    }
}

/* dB and dC of sequences that several blocks shared. */
static __global__ void __launch_bounds__(THREADS) add_blocks(Backward f, int32_t blocks)
{
    mdr_begin();
    const int64_t m = blockIdx.z, s = blockIdx.y;
    const int32_t i = (int32_t)blockIdx.x * THREADS + (int32_t)threadIdx.x, n = i % f.n_state, which = i / f.n_state & 1, t = i / f.n_state / 2;
    const Arg &out = which ? f.dc : f.db;
    if (s >= f.n_seq[m] || t >= f.rows || !out.data) return;
    const int64_t one = (int64_t)f.rows * 2 * f.n_state;
    const float *part = f.part + (m * gridDim.y + s) * blocks * one + i;
    float sum = part[0];
    for (int32_t b = 1; b < blocks; b++) sum += part[b * one];
    arg_put(out, arg_row(out, m, s, t) + n, sum);
}

static bool own_kernel(int32_t n_state) { return n_state == 4 || n_state == 8 || n_state == 16; }
/* Scratch: sums of blocks; states of the slow kernel; sums over time of every sequence. In floats. */
struct Room { int64_t part, h, sums; };
static Room room(const Node *n, Extent e)
{
    const int64_t rows = n->in_type[IN_U].shape.d[0], cols = n->in_type[IN_U].shape.d[1], n_state = n->in_type[IN_A].shape.d[1];
    const int64_t blocks = mdr_ceil_div(cols, THREADS / 2), all = (int64_t)e.n_seq * e.n_member;   /* channels of a block: as few at 16 states */
    return {scan_round(blocks > 1 ? blocks * all * rows * 2 * n_state : 0, 64), scan_round(cols, THREADS) * n_state * 2 * all,
            n->sums ? cols * (n_state + 2) * all : 0};
}
static size_t scratch(const Node *n, Extent e)
{
    const Room r = room(n, e);
    return sizeof(float) * (size_t)(r.part + r.h + r.sums);
}

template <typename K> static int32_t launch(const Call *c, const Backward &f)
{
    const int32_t blocks = (int32_t)mdr_ceil_div(f.cols, K::W);
    MDR_ALLOW_SHARED((backward<K>), shared_bytes<K>());
    MDR_LAUNCH((backward<K>), mdr_grid(blocks, c->extent.n_seq, c->extent.n_member), dim3(THREADS), shared_bytes<K>(), c->stream, f);
    return blocks;
}
template <bool GATED> static int32_t launch_any(const Call *c, const Backward &f)
{
    const int32_t blocks = (int32_t)mdr_ceil_div(f.cols, THREADS);
    MDR_LAUNCH((backward_any<GATED>), mdr_grid(blocks, c->extent.n_seq, c->extent.n_member), dim3(THREADS), THREADS * sizeof(float), c->stream, f);
    return blocks;
}
/* The size of what moves, if a fast kernel can move it: that writes du and ddelta. */
static int64_t fast_size(const Backward &f)
{
    if (!f.du.data || !f.ddelta.data || (f.z.data && !f.dz.data)) return 0;
    const Arg *const wide[] = {&f.u, &f.delta, &f.dy, &f.z, &f.du, &f.ddelta, &f.dz}, *const saved[] = {&f.states};
    return own_kernel(f.n_state) && scan_size(f.rows, f.cols, 1, saved) == 4 ? scan_size(f.rows, f.cols, 7, wide) : 0;
}
static Backward arguments(const Call *c, const Arg &states, const Arg &dy, const Arg &z, const Arg &dz, const Arg &dbias)
{
    const Shape u = c->node->in_type[IN_U].shape;
    const Arg *const in = c->in, *const out = c->out;
    float *part = (float *)c->scratch;
    return {in[IN_U], in[IN_DELTA], in[IN_A], in[IN_B], in[IN_C], in[IN_D], states, dy, z, out[OUT_DU], out[OUT_DDELTA], out[OUT_DA], out[OUT_DB],
            out[OUT_DC], out[OUT_DD], dz, dbias, c->n_seq, u.d[0], u.d[1], c->node->in_type[IN_A].shape.d[1], -out[OUT_DU].ld * out[OUT_DU].size,
            -out[OUT_DDELTA].ld * out[OUT_DDELTA].size, -dz.ld * dz.size, part, part + room(c->node, c->extent).part};
}
static void finish(const Call *c, const Backward &f, int32_t blocks)
{
    if (blocks > 1 && (f.db.data || f.dc.data))
        MDR_LAUNCH(add_blocks, mdr_grid(mdr_ceil_div((int64_t)f.rows * 2 * f.n_state, THREADS), c->extent.n_seq, c->extent.n_member), dim3(THREADS), 0,
                   c->stream, f, blocks);
}

static void run(const Call *c, int64_t, int64_t)
{
    const Backward f = arguments(c, c->in[IN_STATES], c->in[IN_DY], {}, {}, {});
    const int64_t size = fast_size(f);
    int32_t blocks;
    if (size == 2 && f.n_state == 4) blocks = launch<Kind<bf16, 4, 2, 1, false>>(c, f);
    else if (size == 2 && f.n_state == 8) blocks = launch<Kind<bf16, 8, 1, 1, false>>(c, f);
    else if (size == 2) blocks = launch<Kind<bf16, 16, 1, 2, false>>(c, f);
    else if (size == 4 && f.n_state == 4) blocks = launch<Kind<float, 4, 2, 1, false>>(c, f);
    else if (size == 4 && f.n_state == 8) blocks = launch<Kind<float, 8, 1, 1, false>>(c, f);
    else if (size == 4) blocks = launch<Kind<float, 16, 1, 2, false>>(c, f);
    else blocks = launch_any<false>(c, f);
    finish(c, f, blocks);
}

/* Where an output is added to the sum over the batch, a sequence's own goes to scratch first: rows of ld floats. */
static Arg sequence_sums(const Call *c, int out, int64_t width, int64_t ld, float *to)
{
    const bool add = c->out[out].data && (c->add >> out & 1u);
    return add ? Arg{to, width * c->extent.n_seq, width, ld, sizeof(float)} : c->out[out];
}
static void run_gated(const Call *c, int64_t, int64_t)
{
    Backward f = arguments(c, c->in[GATED_STATES], c->in[GATED_DOUT], c->in[IN_Z], c->out[OUT_DZ], c->out[OUT_DBIAS]);
    const int64_t all = (int64_t)c->extent.n_seq * c->extent.n_member, width[3] = {(int64_t)f.cols * f.n_state, f.cols, f.cols};
    const int out[3] = {OUT_DA, OUT_DD, OUT_DBIAS};
    Arg *const arg[3] = {&f.da, &f.dd, &f.dbias};
    float *at = f.h + room(c->node, c->extent).h;
    for (int i = 0; i < 3; at += width[i] * all, i++) *arg[i] = sequence_sums(c, out[i], width[i], i == 0 ? f.n_state : f.cols, at);
    const int64_t size = fast_size(f);
    int32_t blocks;
    if (size == 2 && f.n_state == 4) blocks = launch<Kind<bf16, 4, 2, 1, true>>(c, f);
    else if (size == 2 && f.n_state == 8) blocks = launch<Kind<bf16, 8, 1, 1, true>>(c, f);
    else if (size == 2) blocks = launch<Kind<bf16, 16, 1, 2, true>>(c, f);
    else blocks = launch_any<true>(c, f);
    finish(c, f, blocks);
    for (int i = 0; i < 3; i++)
        if (arg[i]->data != c->out[out[i]].data)
            enqueue_add_chunks(c, c->out[out[i]], true, (const float *)arg[i]->data, Cut{1, 1, (uint32_t)c->extent.n_seq, true}, width[i],
                               i == 0 ? f.n_state : f.cols);
}

/* Saved states and the sums over time, one a sequence, stay float: what is added over the batch must not be rounded before. */
extern "C" const CudaRow mdr_cuda_rows_selective_scan_grad[] = {
    {"selective_scan_grad", {.run = run, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 1u << IN_STATES, 1u << OUT_DA | 1u << OUT_DD},
    {"gated_scan_grad", {.run = run_gated, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 1u << GATED_STATES,
     1u << OUT_DA | 1u << OUT_DD | 1u << OUT_DBIAS}, {}};
