/* Gradient of selective_scan on the GPU (selective_scan.c: formulas). A thread keeps 8 states: two channels at N = 4, one at 8, half a
 * channel at 16. It goes through the tiles of SCAN_CHUNK tokens from the last to the first: once forward from the saved states, leaving
 * a mark every SUB tokens, then by SUB tokens backward, their states and decays in registers.
 *
 * dB and dC are sums over channels: 32 of a thread's terms and the 32 lanes of a warp change places while they are added, so that a
 * lane ends up with one sum (31 shuffles for 32 sums); the warps' sums are added in order, and where a block is not all channels,
 * the blocks'. da and dd are sums over time only, one a sequence. */
#include "op/selective_scan_cuda.h"

struct Backward {
    Arg u, delta, a, bm, cm, d, states, dy, du, ddelta, da, db, dc, dd;
    const int32_t *n_seq;
    int32_t rows, cols, n_state;
    float *part;                      /* more than one block a sequence: [member][sequence][block][rows][B, C][n_state]     */
    float *h;                         /* any number of states: [member][sequence][block][dh, da][n_state][THREADS]          */
};
enum { SUB = 4, MARKS = 3, KEPT = 8, THREADS = 128 };
static_assert((MARKS + 1) * SUB == (int)SCAN_CHUNK);
/* Tiles in shared memory: with floats one, lest fewer blocks fit. */
template <typename T> constexpr int32_t STAGES = sizeof(T) == 2 ? 2 : 1;

/* Sums of v[0..32) over the lanes that agree in the bits below G, each in a fixed order: lane l gets those of index (l & -G) + 0 .. G. */
template <int G, int HALF = 16> static __device__ __forceinline__ void trade(float v[32], int lane)
{
    const bool upper = lane & HALF;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float give = upper ? v[i] : v[i + HALF], stay = upper ? v[i + HALF] : v[i];
        v[i] = stay + __shfl_xor_sync(0xffffffffu, give, HALF);
    }
    if constexpr (HALF > G) trade<G, HALF / 2>(v, lane);
}

/* Shared memory of a block, and where its thread stands in it. */
template <typename T, int N, int CH, int G> struct Block {
    T *tile;                          /* [STAGES][u, delta, dy][SCAN_CHUNK][width]                                          */
    float *start, *mark;              /* [STAGES][N][width]; [MARKS][KEPT][threads], this thread's first                    */
    float *rates, *sums;              /* [2][B, C][SCAN_CHUNK][N]; [warps][B, C][SCAN_CHUNK][N]                             */
    int64_t *base;                    /* where the sequence begins in u, delta, dy, states, B, C, du, ddelta: not in registers */
    int32_t threads, width, k0, at, group;
    bool live;
};
/* What a thread holds all the way: dh, the gradient that comes from later tokens; the sums da and dd. a is times log2 e. */
template <int N, int CH, int G> struct Held { float a[CH][N / G], dh[CH][N / G], da[CH][N / G], d[CH], dd[CH]; };
/* One tile: of this thread's channels and states. */
template <typename T> struct Tile {
    const T *u, *delta, *dy;          /* rows of width                                                                      */
    const float *b, *c, *start;       /* rows of N; of width                                                                */
};

template <typename T, int N, int CH, int G>
static __device__ __forceinline__ void enter(Block<T, N, CH, G> &z, const Backward &f, int64_t m, int64_t s, unsigned char *shared)
{
    const int32_t tid = (int32_t)threadIdx.x;
    z.threads = (int32_t)blockDim.x;
    z.width = z.threads * CH / G;
    z.k0 = (int32_t)blockIdx.x * z.width;
    z.group = tid & (G - 1);
    z.at = tid / G * CH;
    z.live = z.k0 + z.at < f.cols;
    z.tile = (T *)shared;
    z.start = (float *)(z.tile + STAGES<T> * 3 * SCAN_CHUNK * z.width);
    z.mark = z.start + STAGES<T> * N * z.width + tid;
    z.rates = z.mark - tid + MARKS * KEPT * z.threads;
    z.sums = z.rates + 4 * SCAN_CHUNK * N;
    z.base = (int64_t *)(z.sums + z.threads / 32 * 2 * SCAN_CHUNK * N);
    if (tid == 0) {
        z.base[0] = arg_row(f.u, m, s, 0);
        z.base[1] = arg_row(f.delta, m, s, 0);
        z.base[2] = arg_row(f.dy, m, s, 0);
        z.base[3] = arg_row(f.states, m, s, 0);
        z.base[4] = arg_row(f.bm, m, s, 0);
        z.base[5] = arg_row(f.cm, m, s, 0);
        z.base[6] = arg_row(f.du, m, s, 0) + z.k0;
        z.base[7] = arg_row(f.ddelta, m, s, 0) + z.k0;
    }
    __syncthreads();
}
template <typename T, int N, int CH, int G> static __device__ __forceinline__ void bring(const Block<T, N, CH, G> &z, const Backward &f, int32_t q)
{
    const int32_t t0 = q * SCAN_CHUNK, size = SCAN_CHUNK * z.width;
    T *to = z.tile + q % STAGES<T> * 3 * size;
    stage(to, f.u, z.base[0], f.u.ld, t0, SCAN_CHUNK, f.rows, z.k0, z.width, f.cols);
    stage(to + size, f.delta, z.base[1], f.delta.ld, t0, SCAN_CHUNK, f.rows, z.k0, z.width, f.cols);
    stage(to + 2 * size, f.dy, z.base[2], f.dy.ld, t0, SCAN_CHUNK, f.rows, z.k0, z.width, f.cols);
    stage(z.start + q % STAGES<T> * N * z.width, f.states, z.base[3] + q * f.states.ld, f.cols, 0, N, N, z.k0, z.width, f.cols);
    copy_commit();
}

/* h over token t of a tile; KEEP: its decay is kept. */
template <int N, int CH, int G, bool KEEP, typename T>
static __device__ __forceinline__ void advance(const Tile<T> &x, int32_t width, int t, const float (&a)[CH][N / G], float (&h)[CH][N / G],
                                               float (*decay)[CH][N / G])
{
    const Pack<T, CH> pu = *(const Pack<T, CH> *)(x.u + t * width), pd = *(const Pack<T, CH> *)(x.delta + t * width);
    float b[N / G];
    broadcast<N / G>(b, x.b + t * N);
#pragma unroll
    for (int j = 0; j < CH; j++) {
        const float dt = to_float(pd.x[j]), du = dt * to_float(pu.x[j]);
#pragma unroll
        for (int n = 0; n < N / G; n++) {
            const float e = fast_exp2(dt * a[j][n]);
            h[j][n] = e * h[j][n] + du * b[n];
            if (KEEP) (*decay)[j][n] = e;
        }
    }
}

/* Token t backward: terms of dB and dC go to v[2 n], v[2 n + 1], du and ddelta to memory where `there`. */
template <int N, int CH, int G, typename T>
static __device__ __forceinline__ void retreat(const Block<T, N, CH, G> &z, const Tile<T> &x, const Backward &f, Held<N, CH, G> &own, int32_t t0, int t,
                                               const float (&decay)[CH][N / G], const float (&before)[CH][N / G], const float (&after)[CH][N / G], float *v)
{
    const Pack<T, CH> pu = *(const Pack<T, CH> *)(x.u + t * z.width), pd = *(const Pack<T, CH> *)(x.delta + t * z.width),
                      py = *(const Pack<T, CH> *)(x.dy + t * z.width);
    Pack<T, CH> du, ddelta;
    float b[N / G], c[N / G];
    broadcast<N / G>(b, x.b + t * N);
    broadcast<N / G>(c, x.c + t * N);
#pragma unroll
    for (int j = 0; j < CH; j++) {
        const float ut = to_float(pu.x[j]), dt = to_float(pd.x[j]), dyt = to_float(py.x[j]), dtu = dt * ut;
        float inject = 0.0f, exponent = 0.0f;
#pragma unroll
        for (int n = 0; n < N / G; n++) {
            const float now = own.dh[j][n] + dyt * c[n];
            v[2 * n] = j ? v[2 * n] + now * dtu : now * dtu;
            v[2 * n + 1] = j ? v[2 * n + 1] + dyt * after[j][n] : dyt * after[j][n];
            inject += now * b[n];
            own.dh[j][n] = now * decay[j][n];
            const float g = own.dh[j][n] * before[j][n];
            exponent += g * own.a[j][n];
            own.da[j][n] += g * dt;
        }
        own.dd[j] += dyt * ut;
#pragma unroll
        for (int g = 1; g < G; g *= 2) {
            inject += __shfl_xor_sync(0xffffffffu, inject, g);
            exponent += __shfl_xor_sync(0xffffffffu, exponent, g);
        }
        put(&du.x[j], dyt * own.d[j] + inject * dt);
        put(&ddelta.x[j], SCAN_LN2 * exponent + inject * ut);
    }
    if (!z.live || t0 + t >= f.rows) return;
    if (f.du.data && z.group == 0) *(Pack<T, CH> *)((T *)f.du.data + z.base[6] + (t0 + t) * f.du.ld + z.at) = du;
    if (f.ddelta.data && z.group == G - 1) *(Pack<T, CH> *)((T *)f.ddelta.data + z.base[7] + (t0 + t) * f.ddelta.ld + z.at) = ddelta;
}

/* Tokens [b SUB, (b + 1) SUB) of a tile: forward from their mark, then backward. */
template <int N, int CH, int G, typename T>
static __device__ __forceinline__ void part_of_tile(const Block<T, N, CH, G> &z, const Tile<T> &x, const Backward &f, Held<N, CH, G> &own, int32_t t0, int b)
{
    constexpr int NT = N / G, ROUND = 16 / NT;                                /* tokens whose terms make 32             */
    const int32_t lane = (int32_t)threadIdx.x & 31, pair = lane / 2;
    float h[SUB + 1][CH][NT], decay[SUB][CH][NT], v[32];
#pragma unroll
    for (int i = 0; i < KEPT; i++) h[0][i / NT][i % NT] = b ? z.mark[((b - 1) * KEPT + i) * z.threads] : x.start[i % NT * z.width + i / NT];
#pragma unroll
    for (int i = 0; i < SUB; i++) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) h[i + 1][k / NT][k % NT] = h[i][k / NT][k % NT];
        advance<N, CH, G, true>(x, z.width, b * SUB + i, own.a, h[i + 1], &decay[i]);
    }
#pragma unroll
    for (int i = SUB - 1; i >= 0; i--) {
        const int t = b * SUB + i;
        retreat(z, x, f, own, t0, t, decay[i], h[i], h[i + 1], v + i % ROUND * NT * 2);
        if (i % ROUND > 0) continue;
        trade<G>(v, lane);                            /* of v[(token NT + state) 2 + which]                                     */
        float *to = z.sums + threadIdx.x / 32 * 2 * SCAN_CHUNK * N + (t + pair / NT) * N + z.group * NT + pair % NT;
        if (G == 1) to[(lane & 1) * SCAN_CHUNK * N] = v[0];
        else { to[0] = v[0]; to[SCAN_CHUNK * N] = v[1]; }
    }
}

/* The warps' sums of a tile, in order. */
template <typename T, int N, int CH, int G>
static __device__ __forceinline__ void put_sums(const Block<T, N, CH, G> &z, const Backward &f, int64_t m, int64_t s, int32_t t0)
{
    for (int32_t i = (int32_t)threadIdx.x; i < 2 * SCAN_CHUNK * N; i += z.threads) {
        const int32_t which = i / (SCAN_CHUNK * N), t = t0 + i / N % SCAN_CHUNK, n = i % N;
        float sum = z.sums[i];
        for (int32_t w = 1; w < z.threads / 32; w++) sum += z.sums[w * 2 * SCAN_CHUNK * N + i];
        const Arg &out = which ? f.dc : f.db;
        if (t >= f.rows) continue;
        if (gridDim.x > 1) f.part[((((m * gridDim.y + s) * gridDim.x + blockIdx.x) * f.rows + t) * 2 + which) * N + n] = sum;
        else if (out.data) arg_put(out, arg_row(out, m, s, t) + n, sum);
    }
}

template <typename T, int N, int CH, int G>
static __global__ void __launch_bounds__(THREADS, 3) backward(Backward f)
{
    constexpr int NT = N / G;
    MDR_SHARED(unsigned char, shared);
    const int64_t m = blockIdx.z, s = blockIdx.y;
    if (s >= f.n_seq[m]) return;
    Block<T, N, CH, G> z;
    Held<N, CH, G> own;
    Rates<N> next;
    enter(z, f, m, s, shared);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int j = i / NT, n = i % NT;
        own.a[j][n] = z.live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, z.k0 + z.at + j) + z.group * NT + n) : 0.0f;
        own.dh[j][n] = own.da[j][n] = 0.0f;
        if (n > 0) continue;
        own.d[j] = z.live ? arg_get(f.d, arg_row(f.d, m, s, 0) + z.k0 + z.at + j) : 0.0f;
        own.dd[j] = 0.0f;
    }
    const int32_t last = (f.rows - 1) / SCAN_CHUNK;
    bring(z, f, last);
    fetch<N>(next, f.bm, f.cm, z.base[4], z.base[5], last * SCAN_CHUNK, f.rows);
    keep<N>(next, z.rates + (last & 1) * 2 * SCAN_CHUNK * N, f.bm, f.cm, z.base[4], z.base[5], last * SCAN_CHUNK, f.rows);
    for (int32_t q = last; q >= 0; q--) {
        const int32_t t0 = q * SCAN_CHUNK;
        copy_wait<0>();
        __syncthreads();                              /* tile q is there, and nobody is still at the one behind it              */
        if (q > 0) {
            if (STAGES<T> == 2) bring(z, f, q - 1);
            fetch<N>(next, f.bm, f.cm, z.base[4], z.base[5], t0 - SCAN_CHUNK, f.rows);
        }
        const T *u = z.tile + q % STAGES<T> * 3 * SCAN_CHUNK * z.width + z.at;
        const float *b = z.rates + (q & 1) * 2 * SCAN_CHUNK * N + z.group * NT;
        const Tile<T> x = {u, u + SCAN_CHUNK * z.width, u + 2 * SCAN_CHUNK * z.width, b, b + SCAN_CHUNK * N,
                           z.start + (q % STAGES<T> * N + z.group * NT) * z.width + z.at};
        float h[CH][NT];
#pragma unroll
        for (int i = 0; i < KEPT; i++) h[i / NT][i % NT] = x.start[i % NT * z.width + i / NT];
#pragma unroll 1
        for (int i = 0; i < MARKS; i++) {
#pragma unroll
            for (int t = 0; t < SUB; t++) advance<N, CH, G, false>(x, z.width, i * SUB + t, own.a, h, nullptr);
#pragma unroll
            for (int k = 0; k < KEPT; k++) z.mark[(i * KEPT + k) * z.threads] = h[k / NT][k % NT];
        }
#pragma unroll 1
        for (int i = MARKS; i >= 0; i--) part_of_tile<N, CH, G>(z, x, f, own, t0, i);
        if (q > 0) keep<N>(next, z.rates + ((q - 1) & 1) * 2 * SCAN_CHUNK * N, f.bm, f.cm, z.base[4], z.base[5], t0 - SCAN_CHUNK, f.rows);
        __syncthreads();
        if (STAGES<T> == 1 && q > 0) bring(z, f, q - 1);
        put_sums(z, f, m, s, t0);
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int j = i / NT, n = i % NT;
        if (z.live && f.da.data) arg_put(f.da, arg_row(f.da, m, s, z.k0 + z.at + j) + z.group * NT + n, own.da[j][n]);
        if (z.live && f.dd.data && z.group == 0 && n == 0) arg_put(f.dd, arg_row(f.dd, m, s, 0) + z.k0 + z.at + j, own.dd[j]);
    }
}

/* Any number of states and any types: one state after another over a tile of tokens; its dh and da wait in scratch. */
static __global__ void __launch_bounds__(THREADS) backward_any(Backward f)
{
    MDR_SHARED(float, sums);                                                  /* [warps][32]                            */
    const int64_t m = blockIdx.z, s = blockIdx.y, block = (m * gridDim.y + s) * gridDim.x + blockIdx.x;
    const int32_t tid = (int32_t)threadIdx.x, lane = tid & 31, k = (int32_t)blockIdx.x * THREADS + tid;
    if (s >= f.n_seq[m]) return;
    const bool live = k < f.cols;
    float *dh = f.h + block * 2 * f.n_state * THREADS + tid, *da = dh + f.n_state * THREADS, dd = 0.0f;
    const float d = live ? arg_get(f.d, arg_row(f.d, m, s, 0) + k) : 0.0f;
    const int32_t last = (f.rows - 1) / SCAN_CHUNK;
    for (int32_t q = last; q >= 0; q--) {
        const int32_t t0 = q * SCAN_CHUNK;
        float dt[SCAN_CHUNK], ut[SCAN_CHUNK], dyt[SCAN_CHUNK], inject[SCAN_CHUNK], exponent[SCAN_CHUNK];
#pragma unroll
        for (int i = 0; i < SCAN_CHUNK; i++) {
            const bool there = live && t0 + i < f.rows;
            ut[i] = there ? arg_get(f.u, arg_row(f.u, m, s, t0 + i) + k) : 0.0f;
            dt[i] = there ? arg_get(f.delta, arg_row(f.delta, m, s, t0 + i) + k) : 0.0f;
            dyt[i] = there ? arg_get(f.dy, arg_row(f.dy, m, s, t0 + i) + k) : 0.0f;
            inject[i] = exponent[i] = 0.0f;
            dd += dyt[i] * ut[i];
        }
        for (int32_t n = 0; n < f.n_state; n++) {
            const float a = live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, k) + n) : 0.0f;
            const bool begun = q < last && live;
            float h[SCAN_CHUNK + 1], v[32], now_h = begun ? dh[n * THREADS] : 0.0f, now_a = begun ? da[n * THREADS] : 0.0f;
            h[0] = live ? arg_get(f.states, arg_row(f.states, m, s, q) + (int64_t)n * f.cols + k) : 0.0f;
#pragma unroll
            for (int i = 0; i < SCAN_CHUNK; i++) {
                const float b = t0 + i < f.rows ? arg_get(f.bm, arg_row(f.bm, m, s, t0 + i) + n) : 0.0f;
                h[i + 1] = fast_exp2(dt[i] * a) * h[i] + dt[i] * ut[i] * b;
            }
#pragma unroll
            for (int i = SCAN_CHUNK - 1; i >= 0; i--) {
                const bool there = t0 + i < f.rows;
                const float b = there ? arg_get(f.bm, arg_row(f.bm, m, s, t0 + i) + n) : 0.0f;
                const float c = there ? arg_get(f.cm, arg_row(f.cm, m, s, t0 + i) + n) : 0.0f;
                now_h += dyt[i] * c;
                v[2 * i + 1] = dyt[i] * h[i + 1];
                v[2 * i] = now_h * dt[i] * ut[i];
                inject[i] += now_h * b;
                now_h *= fast_exp2(dt[i] * a);
                exponent[i] += now_h * h[i] * a;
                now_a += now_h * h[i] * dt[i];
            }
            if (live) { dh[n * THREADS] = now_h; da[n * THREADS] = now_a; }
            trade<1>(v, lane);
            sums[tid] = v[0];
            __syncthreads();
            if (tid < 32 && t0 + tid / 2 < f.rows) {
                float sum = sums[tid];
                for (int w = 1; w < THREADS / 32; w++) sum += sums[w * 32 + tid];
                const Arg &out = tid & 1 ? f.dc : f.db;
                if (gridDim.x > 1) f.part[((block * f.rows + t0 + tid / 2) * 2 + (tid & 1)) * f.n_state + n] = sum;
                else if (out.data) arg_put(out, arg_row(out, m, s, t0 + tid / 2) + n, sum);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < SCAN_CHUNK; i++) {
            if (!live || t0 + i >= f.rows) continue;
            if (f.du.data) arg_put(f.du, arg_row(f.du, m, s, t0 + i) + k, dyt[i] * d + inject[i] * dt[i]);
            if (f.ddelta.data) arg_put(f.ddelta, arg_row(f.ddelta, m, s, t0 + i) + k, SCAN_LN2 * exponent[i] + inject[i] * ut[i]);
        }
    }
    if (!live) return;
    for (int32_t n = 0; n < f.n_state && f.da.data; n++) arg_put(f.da, arg_row(f.da, m, s, k) + n, da[n * THREADS]);
    if (f.dd.data) arg_put(f.dd, arg_row(f.dd, m, s, 0) + k, dd);
}

/* dB and dC of sequences that several blocks shared. */
static __global__ void __launch_bounds__(THREADS) add_blocks(Backward f, int32_t blocks)
{
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
static int64_t part_elements(const Node *n, Extent e)
{
    const Shape u = n->in_type[IN_U].shape;
    const int64_t blocks = mdr_ceil_div(u.d[1], THREADS / 2);             /* channels of a block: as few at 16 states */
    return blocks > 1 ? blocks * e.n_member * e.n_seq * u.d[0] * 2 * n->in_type[IN_A].shape.d[1] : 0;
}
static size_t scratch(const Node *n, Extent e)
{
    const int64_t cols = scan_round(n->in_type[IN_U].shape.d[1], THREADS);
    return sizeof(float) * (size_t)(scan_round(part_elements(n, e), 64) + cols * n->in_type[IN_A].shape.d[1] * 2 * e.n_seq * e.n_member);
}

static void finish(const Call *c, const Backward &f, int32_t blocks)
{
    if (blocks > 1 && (f.db.data || f.dc.data))
        MDR_LAUNCH(add_blocks, mdr_grid(mdr_ceil_div((int64_t)f.rows * 2 * f.n_state, THREADS), c->extent.n_seq, c->extent.n_member), dim3(THREADS), 0,
                   c->stream, f, blocks);
}
template <typename T, int N, int CH, int G> static void launch(const Call *c, const Backward &f)
{
    const int32_t need = (int32_t)scan_round(mdr_ceil_div((int64_t)f.cols * G, CH), 32), threads = need < THREADS ? need : THREADS;
    const int32_t width = threads * CH / G, blocks = (int32_t)mdr_ceil_div(f.cols, width), stages = STAGES<T>;
    const size_t floats = (size_t)(stages * N * width + MARKS * KEPT * threads + (4 + threads / 32 * 2) * SCAN_CHUNK * N);
    const size_t bytes = sizeof(T) * 3 * SCAN_CHUNK * (size_t)(stages * width) + sizeof(float) * floats + 8 * sizeof(int64_t);
    MDR_ALLOW_SHARED((backward<T, N, CH, G>), bytes);
    MDR_LAUNCH((backward<T, N, CH, G>), mdr_grid(blocks, c->extent.n_seq, c->extent.n_member), dim3((unsigned)threads), bytes, c->stream, f);
    finish(c, f, blocks);
}

static void run(const Call *c, int64_t, int64_t)
{
    const Shape u = c->node->in_type[IN_U].shape;
    const int32_t n_state = c->node->in_type[IN_A].shape.d[1];
    float *part = (float *)c->scratch;
    const Backward f = {c->in[IN_U], c->in[IN_DELTA], c->in[IN_A], c->in[IN_B], c->in[IN_C], c->in[IN_D], c->in[IN_STATES], c->in[IN_DY],
                        c->out[OUT_DU], c->out[OUT_DDELTA], c->out[OUT_DA], c->out[OUT_DB], c->out[OUT_DC], c->out[OUT_DD], c->n_seq, u.d[0], u.d[1],
                        n_state, part, part + scan_round(part_elements(c->node, c->extent), 64)};
    const Arg *const wide[] = {&f.u, &f.delta, &f.dy, &f.du, &f.ddelta}, *const saved[] = {&f.states};
    const int64_t size = own_kernel(n_state) && scan_size(u.d[1], 1, saved) == 4 ? scan_size(u.d[1], 5, wide) : 0;
    if (size == 2 && n_state == 4) launch<bf16, 4, 2, 1>(c, f);
    else if (size == 2 && n_state == 8) launch<bf16, 8, 1, 1>(c, f);
    else if (size == 2) launch<bf16, 16, 1, 2>(c, f);
    else if (size == 4 && n_state == 4) launch<float, 4, 2, 1>(c, f);
    else if (size == 4 && n_state == 8) launch<float, 8, 1, 1>(c, f);
    else if (size == 4) launch<float, 16, 1, 2>(c, f);
    else {
        const int32_t blocks = (int32_t)mdr_ceil_div(f.cols, THREADS);
        MDR_LAUNCH(backward_any, mdr_grid(blocks, c->extent.n_seq, c->extent.n_member), dim3(THREADS), THREADS * sizeof(float), c->stream, f);
        finish(c, f, blocks);
    }
}

/* Saved states and the sums over time, one a sequence, stay float: what is added over the batch must not be rounded before. */
extern "C" const CudaRow mdr_cuda_rows_selective_scan_grad[] = {
    {"selective_scan_grad", {.run = run, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 1u << IN_STATES, 1u << OUT_DA | 1u << OUT_DD}, {}};
