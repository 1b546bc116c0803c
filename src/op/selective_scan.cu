/* selective_scan and gated_scan on the GPU (their .c files say what they compute): a thread takes one or two channels of one sequence and
 * walks through time with their states in registers. Numbers of states other than 4, 8 and 16 go through a slower kernel that keeps them
 * in scratch. Per call at N = 4 it moves u, delta and y (gated: and z) once and the saved states: memory and exponentials bind about equally. */
#include "op/selective_scan_cuda.h"

struct Forward {
    Arg u, delta, a, bm, cm, d, z, y, states;                                 /* gated: delta is what softplus makes it of */
    const int32_t *n_seq;
    int32_t rows, cols, n_state;
    float *h;                         /* any number of states: [member][sequence][block][n_state][THREADS]                */
};
enum { THREADS = SCAN_THREADS };

/* The tile of tokens from t0 on: [u, delta, z][SCAN_CHUNK][W]. */
template <bool GATED, int W, typename T>
static __device__ __forceinline__ void bring(T *to, const Forward &f, const int64_t *start, int32_t t0, int32_t k0)
{
    stage<W>(to, f.u, start[0], t0, f.rows, k0, f.cols);
    stage<W>(to + SCAN_CHUNK * W, f.delta, start[1], t0, f.rows, k0, f.cols);
    if (GATED) stage<W>(to + 2 * SCAN_CHUNK * W, f.z, start[2], t0, f.rows, k0, f.cols);
    copy_commit();
}

/* One token: y of u, delta and z as they lie in the tile, `apart` from each other, and of its rates. */
template <typename T, int N, int CH, bool GATED>
static __device__ __forceinline__ void step(const T *u, int32_t apart, const float *rb, const float *rc, const float (&a)[CH][N], const float (&d)[CH],
                                            float (&h)[CH][N], float (&y)[CH])
{
    using P = Pack<T, CH>;
    float ut[CH], given[CH], zt[CH], b[N], c[N];
    open((const P *)u, ut);
    open((const P *)(u + apart), given);
    if (GATED) open((const P *)(u + 2 * apart), zt);
    broadcast<N>(b, rb);
    broadcast<N>(c, rc);
#pragma unroll
    for (int j = 0; j < CH; j++) {
        const float dt = GATED ? scan_softplus(given[j]) : given[j], du = dt * ut[j];
        y[j] = d[j] * ut[j];
#pragma unroll
        for (int n = 0; n < N; n++) {
            h[j][n] = fast_exp2(dt * a[j][n]) * h[j][n] + du * b[n];
            y[j] += c[n] * h[j][n];
        }
        if (GATED) y[j] *= zt[j] * fast_sigmoid(zt[j]);
    }
}

template <typename T, int N, int CH, bool GATED> static __global__ void __launch_bounds__(THREADS, 4) forward(Forward f)
{
    mdr_begin();
    constexpr int W = THREADS * CH, TILE = (GATED ? 3 : 2) * SCAN_CHUNK * W, RATES = 2 * SCAN_CHUNK * N;
    MDR_SHARED(unsigned char, shared);
    const int64_t m = blockIdx.z, s = blockIdx.y;
    if (s >= f.n_seq[m]) return;
    const int32_t k0 = (int32_t)blockIdx.x * W, at = (int32_t)threadIdx.x * CH, k = k0 + at;
    const bool live = k < f.cols;
    T *tile = (T *)shared;                                                    /* [2][TILE]                              */
    float *rates = (float *)(tile + 2 * TILE);                                /* [2][B, C][SCAN_CHUNK][N]               */
    const int64_t start[3] = {scan_start(f.u, m, s), scan_start(f.delta, m, s), GATED ? scan_start(f.z, m, s) : 0};
    const int64_t start_b = scan_start(f.bm, m, s), start_c = scan_start(f.cm, m, s);
    float h[CH][N], a[CH][N], d[CH];
#pragma unroll
    for (int j = 0; j < CH; j++) {
        d[j] = live ? arg_get(f.d, arg_row(f.d, m, s, 0) + k + j) : 0.0f;
#pragma unroll
        for (int n = 0; n < N; n++) {
            a[j][n] = live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, k + j) + n) : 0.0f;
            h[j][n] = 0.0f;
        }
    }
    Rates<N> next;
    bring<GATED, W>(tile, f, start, 0, k0);
    fetch<N>(next, f.bm, f.cm, start_b, start_c, 0, f.rows);
    keep<N>(next, rates);
    for (int32_t q = 0; q * SCAN_CHUNK < f.rows; q++) {
        const int32_t t0 = q * SCAN_CHUNK, t1 = t0 + SCAN_CHUNK, other = (q + 1) & 1;
        const T *u = tile + (q & 1) * TILE + at;
        const float *rb = rates + (q & 1) * RATES, *rc = rb + RATES / 2;
        copy_wait<0>();
        __syncthreads();                              /* tile q is there, and nobody reads the one before any more            */
        if (t1 < f.rows) {
            bring<GATED, W>(tile + other * TILE, f, start, t1, k0);
            fetch<N>(next, f.bm, f.cm, start_b, start_c, t1, f.rows);
        }
        if (f.states.data && live) {
            float *to = (float *)f.states.data + arg_row(f.states, m, s, q) + k;
#pragma unroll
            for (int n = 0; n < N; n++) {
                Pack<float, CH> mark;
                for (int j = 0; j < CH; j++) mark.x[j] = h[j][n];
                *(Pack<float, CH> *)(to + (int64_t)n * f.cols) = mark;
            }
        }
        T *y = (T *)f.y.data + arg_row(f.y, m, s, t0) + k;
#pragma unroll 4
        for (int i = 0; i < SCAN_CHUNK; i++, y += f.y.ld) {                   /* what h is beyond the last token, nobody sees     */
            float v[CH];
            step<T, N, CH, GATED>(u + i * W, SCAN_CHUNK * W, rb + i * N, rc + i * N, a, d, h, v);
            if (live && t0 + i < f.rows) close((Pack<T, CH> *)y, v);
        }
        if (t1 < f.rows) keep<N>(next, rates + other * RATES);
    }
}

/* Any number of states and any types: one state after another over a tile of tokens. */
template <bool GATED> static __global__ void __launch_bounds__(THREADS) forward_any(Forward f)
{
    mdr_begin();
    const int64_t m = blockIdx.z, s = blockIdx.y;
    const int32_t k = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (s >= f.n_seq[m] || k >= f.cols) return;
    float *h = f.h + ((m * gridDim.y + s) * gridDim.x + blockIdx.x) * f.n_state * THREADS + threadIdx.x;
    const float d = arg_get(f.d, arg_row(f.d, m, s, 0) + k);
    for (int32_t t0 = 0; t0 < f.rows; t0 += SCAN_CHUNK) {
        float dt[SCAN_CHUNK], du[SCAN_CHUNK], y[SCAN_CHUNK];
#pragma unroll
        for (int i = 0; i < SCAN_CHUNK; i++) {
            const bool there = t0 + i < f.rows;
            const float ut = there ? arg_get(f.u, arg_row(f.u, m, s, t0 + i) + k) : 0.0f;
            const float given = there ? arg_get(f.delta, arg_row(f.delta, m, s, t0 + i) + k) : 0.0f;
            dt[i] = GATED ? scan_softplus(given) : given;
            du[i] = dt[i] * ut;
            y[i] = d * ut;
        }
        for (int32_t n = 0; n < f.n_state; n++) {
            const float a = SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, k) + n);
            float now = t0 ? h[n * THREADS] : 0.0f;
            if (f.states.data) arg_put(f.states, arg_row(f.states, m, s, t0 / SCAN_CHUNK) + (int64_t)n * f.cols + k, now);
#pragma unroll
            for (int i = 0; i < SCAN_CHUNK; i++) {
                if (t0 + i >= f.rows) continue;
                now = fast_exp2(dt[i] * a) * now + du[i] * arg_get(f.bm, arg_row(f.bm, m, s, t0 + i) + n);
                y[i] += arg_get(f.cm, arg_row(f.cm, m, s, t0 + i) + n) * now;
            }
            h[n * THREADS] = now;
        }
#pragma unroll
        for (int i = 0; i < SCAN_CHUNK; i++) {
            if (t0 + i >= f.rows) continue;
            const float zt = GATED ? arg_get(f.z, arg_row(f.z, m, s, t0 + i) + k) : 0.0f;
            arg_put(f.y, arg_row(f.y, m, s, t0 + i) + k, GATED ? y[i] * (zt * fast_sigmoid(zt)) : y[i]);
        }
    }
}

static bool own_kernel(int32_t n_state) { return n_state == 4 || n_state == 8 || n_state == 16; }
static size_t scratch(const Node *n, Extent e)
{
    const int64_t cols = n->in_type[IN_U].shape.d[1];
    return sizeof(float) * (size_t)(scan_round(cols, THREADS) * n->in_type[IN_A].shape.d[1] * e.n_seq * e.n_member);
}

template <typename T, int N, int CH, bool GATED> static void launch(const Call *c, const Forward &f)
{
    const int32_t width = THREADS * CH;
    const size_t bytes = sizeof(T) * (GATED ? 6 : 4) * SCAN_CHUNK * (size_t)width + sizeof(float) * 4 * SCAN_CHUNK * N;
    MDR_ALLOW_SHARED((forward<T, N, CH, GATED>), bytes);
    MDR_LAUNCH((forward<T, N, CH, GATED>), mdr_grid(mdr_ceil_div(f.cols, width), c->extent.n_seq, c->extent.n_member), dim3(THREADS), bytes, c->stream, f);
}
template <bool GATED> static void launch_any(const Call *c, const Forward &f)
{
    MDR_LAUNCH((forward_any<GATED>), mdr_grid(mdr_ceil_div(f.cols, THREADS), c->extent.n_seq, c->extent.n_member), dim3(THREADS), 0, c->stream, f);
}
static Forward arguments(const Call *c, const Arg &z)
{
    const Shape u = c->node->in_type[IN_U].shape;
    return {c->in[IN_U], c->in[IN_DELTA], c->in[IN_A], c->in[IN_B], c->in[IN_C], c->in[IN_D], z, c->out[OUT_Y], c->out[OUT_STATES],
            c->n_seq, u.d[0], u.d[1], c->node->in_type[IN_A].shape.d[1], (float *)c->scratch};
}
/* The size of what moves, if a fast kernel can move it. */
static int64_t fast_size(const Forward &f)
{
    const Arg *const wide[] = {&f.u, &f.delta, &f.z, &f.y}, *const saved[] = {&f.states};
    if (!own_kernel(f.n_state) || (f.states.data && scan_size(f.rows, f.cols, 1, saved) != 4)) return 0;
    return scan_size(f.rows, f.cols, 4, wide);
}

static void run(const Call *c, int64_t, int64_t)
{
    const Forward f = arguments(c, {});
    const int64_t size = fast_size(f);
    if (size == 2 && f.n_state == 4) launch<bf16, 4, 2, false>(c, f);
    else if (size == 2 && f.n_state == 8) launch<bf16, 8, 2, false>(c, f);
    else if (size == 2) launch<bf16, 16, 1, false>(c, f);
    else if (size == 4 && f.n_state == 4) launch<float, 4, 2, false>(c, f);
    else if (size == 4 && f.n_state == 8) launch<float, 8, 2, false>(c, f);
    else if (size == 4) launch<float, 16, 1, false>(c, f);
    else launch_any<false>(c, f);
}
static void run_gated(const Call *c, int64_t, int64_t)
{
    const Forward f = arguments(c, c->in[IN_Z]);
    const int64_t size = fast_size(f);
    if (size == 2 && f.n_state == 4) launch<bf16, 4, 2, true>(c, f);
    else if (size == 2 && f.n_state == 8) launch<bf16, 8, 2, true>(c, f);
    else if (size == 2) launch<bf16, 16, 1, true>(c, f);
    else launch_any<true>(c, f);
}

/* The saved states are where the gradient starts again: they stay float. */
extern "C" const CudaRow mdr_cuda_rows_selective_scan[] = {
    {"selective_scan", {.run = run, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 0, 1u << OUT_STATES},
    {"gated_scan", {.run = run_gated, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 0, 1u << OUT_STATES}, {}};
