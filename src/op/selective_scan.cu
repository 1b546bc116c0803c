/* selective_scan on the GPU (selective_scan.c says what it computes): a thread takes one or two channels of one sequence and walks
 * through time with their states in registers. Numbers of states other than 4, 8 and 16 go through a slower kernel that keeps them in
 * scratch. Per call at N = 4 it moves u, delta and y once and the saved states: memory and exponentials bind about equally. */
#include "op/selective_scan_cuda.h"

struct Forward {
    Arg u, delta, a, bm, cm, d, y, states;
    const int32_t *n_seq;
    int32_t rows, cols, n_state;
    float *h;                         /* any number of states: [member][sequence][block][n_state][THREADS]                */
};
enum { THREADS = 128 };

template <typename T, int N, int CH> static __global__ void __launch_bounds__(THREADS) forward(Forward f)
{
    MDR_SHARED(unsigned char, shared);
    const int64_t m = blockIdx.z, s = blockIdx.y;
    if (s >= f.n_seq[m]) return;
    const int32_t width = (int32_t)blockDim.x * CH, k0 = (int32_t)blockIdx.x * width, at = (int32_t)threadIdx.x * CH, k = k0 + at;
    const bool live = k < f.cols;
    T *tile = (T *)shared;                                                    /* [2][u, delta][SCAN_CHUNK][width]       */
    const int32_t tile_size = SCAN_CHUNK * width;
    float *rates = (float *)(tile + 4 * tile_size);                           /* [2][B, C][SCAN_CHUNK][N]               */
    const int64_t base_u = arg_row(f.u, m, s, 0), base_delta = arg_row(f.delta, m, s, 0), base_b = arg_row(f.bm, m, s, 0),
                  base_c = arg_row(f.cm, m, s, 0);
    float h[CH][N], a[CH][N], d[CH];
    for (int j = 0; j < CH; j++) {
        d[j] = live ? arg_get(f.d, arg_row(f.d, m, s, 0) + k + j) : 0.0f;
        for (int n = 0; n < N; n++) {
            a[j][n] = live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, k + j) + n) : 0.0f;
            h[j][n] = 0.0f;
        }
    }
    Rates<N> next;
    stage(tile, f.u, base_u, f.u.ld, 0, SCAN_CHUNK, f.rows, k0, width, f.cols);
    stage(tile + tile_size, f.delta, base_delta, f.delta.ld, 0, SCAN_CHUNK, f.rows, k0, width, f.cols);
    copy_commit();
    fetch<N>(next, f.bm, f.cm, base_b, base_c, 0, f.rows);
    keep<N>(next, rates, f.bm, f.cm, base_b, base_c, 0, f.rows);
    for (int32_t q = 0; q * SCAN_CHUNK < f.rows; q++) {
        const int32_t t0 = q * SCAN_CHUNK, t1 = t0 + SCAN_CHUNK, other = (q + 1) & 1;
        const T *u = tile + (q & 1) * 2 * tile_size + at, *delta = u + tile_size;
        const float *rb = rates + (q & 1) * 2 * SCAN_CHUNK * N, *rc = rb + SCAN_CHUNK * N;
        copy_wait<0>();
        __syncthreads();                              /* tile q is there, and nobody reads the one before any more            */
        if (t1 < f.rows) {
            stage(tile + other * 2 * tile_size, f.u, base_u, f.u.ld, t1, SCAN_CHUNK, f.rows, k0, width, f.cols);
            stage(tile + other * 2 * tile_size + tile_size, f.delta, base_delta, f.delta.ld, t1, SCAN_CHUNK, f.rows, k0, width, f.cols);
            copy_commit();
            fetch<N>(next, f.bm, f.cm, base_b, base_c, t1, f.rows);
        }
        if (f.states.data && live) {
            const int64_t to = arg_row(f.states, m, s, q) + k;
            for (int j = 0; j < CH; j++)
                for (int n = 0; n < N; n++) arg_put(f.states, to + (int64_t)n * f.cols + j, h[j][n]);
        }
        T *y = (T *)f.y.data + arg_row(f.y, m, s, t0) + k;
#pragma unroll 4
        for (int i = 0; i < SCAN_CHUNK; i++, y += f.y.ld) {                   /* beyond the last token delta is 0: h stays       */
            const Pack<T, CH> pu = *(const Pack<T, CH> *)(u + i * width), pd = *(const Pack<T, CH> *)(delta + i * width);
            Pack<T, CH> py;
            float b[N], c[N];
            broadcast<N>(b, rb + i * N);
            broadcast<N>(c, rc + i * N);
#pragma unroll
            for (int j = 0; j < CH; j++) {
                const float ut = to_float(pu.x[j]), dt = to_float(pd.x[j]), du = dt * ut;
                float sum = d[j] * ut;
#pragma unroll
                for (int n = 0; n < N; n++) {
                    h[j][n] = fast_exp2(dt * a[j][n]) * h[j][n] + du * b[n];
                    sum += c[n] * h[j][n];
                }
                put(&py.x[j], sum);
            }
            if (live && t0 + i < f.rows) *(Pack<T, CH> *)y = py;
        }
        if (t1 < f.rows) keep<N>(next, rates + other * 2 * SCAN_CHUNK * N, f.bm, f.cm, base_b, base_c, t1, f.rows);
    }
}

/* Any number of states and any types: one state after another over a tile of tokens. */
static __global__ void __launch_bounds__(THREADS) forward_any(Forward f)
{
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
            dt[i] = there ? arg_get(f.delta, arg_row(f.delta, m, s, t0 + i) + k) : 0.0f;
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
        for (int i = 0; i < SCAN_CHUNK; i++)
            if (t0 + i < f.rows) arg_put(f.y, arg_row(f.y, m, s, t0 + i) + k, y[i]);
    }
}

static bool own_kernel(int32_t n_state) { return n_state == 4 || n_state == 8 || n_state == 16; }
static size_t scratch(const Node *n, Extent e)
{
    const int64_t cols = n->in_type[IN_U].shape.d[1];
    return sizeof(float) * (size_t)(scan_round(cols, THREADS) * n->in_type[IN_A].shape.d[1] * e.n_seq * e.n_member);
}

template <typename T, int N, int CH> static void launch(const Call *c, const Forward &f)
{
    const int32_t need = (int32_t)scan_round(mdr_ceil_div(f.cols, CH), 32), threads = need < THREADS ? need : THREADS;
    const size_t bytes = sizeof(T) * 4 * SCAN_CHUNK * (size_t)(threads * CH) + sizeof(float) * 4 * SCAN_CHUNK * N;
    MDR_ALLOW_SHARED((forward<T, N, CH>), bytes);
    MDR_LAUNCH((forward<T, N, CH>), mdr_grid(mdr_ceil_div(f.cols, threads * CH), c->extent.n_seq, c->extent.n_member), dim3((unsigned)threads), bytes,
               c->stream, f);
}

static void run(const Call *c, int64_t, int64_t)
{
    const Shape u = c->node->in_type[IN_U].shape;
    const int32_t n_state = c->node->in_type[IN_A].shape.d[1];
    const Forward f = {c->in[IN_U], c->in[IN_DELTA], c->in[IN_A], c->in[IN_B], c->in[IN_C], c->in[IN_D], c->out[OUT_Y], c->out[OUT_STATES],
                       c->n_seq, u.d[0], u.d[1], n_state, (float *)c->scratch};
    const Arg *const wide[] = {&f.u, &f.delta, &f.y};
    const int64_t size = own_kernel(n_state) ? scan_size(u.d[1], 3, wide) : 0;
    if (size == 2 && n_state == 4) launch<bf16, 4, 2>(c, f);
    else if (size == 2 && n_state == 8) launch<bf16, 8, 2>(c, f);
    else if (size == 2) launch<bf16, 16, 1>(c, f);
    else if (size == 4 && n_state == 4) launch<float, 4, 2>(c, f);
    else if (size == 4 && n_state == 8) launch<float, 8, 2>(c, f);
    else if (size == 4) launch<float, 16, 1>(c, f);
    else MDR_LAUNCH(forward_any, mdr_grid(mdr_ceil_div(f.cols, THREADS), c->extent.n_seq, c->extent.n_member), dim3(THREADS), 0, c->stream, f);
}

/* The saved states are where the gradient starts again: they stay float. */
extern "C" const CudaRow mdr_cuda_rows_selective_scan[] = {
    {"selective_scan", {.run = run, .units = nullptr, .scratch = scratch, .prep = {}}, nullptr, 0, 1u << OUT_STATES}, {}};
