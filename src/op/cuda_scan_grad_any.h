/* What the gradient of a scan reads and writes on the GPU (selective_scan_grad.cu), and its kernel for any number of states and any types:
 * one state after another over a tile of tokens, whose dh and da wait in scratch. */
#ifndef MDR_CUDA_SCAN_GRAD_ANY_H
#define MDR_CUDA_SCAN_GRAD_ANY_H
#include "op/selective_scan_cuda.h"

struct Backward {
    Arg u, delta, a, bm, cm, d, states, dy, z;                                /* gated: delta before softplus, dy of the output */
    Arg du, ddelta, da, db, dc, dd, dz, dbias;
    const int32_t *n_seq;
    int32_t rows, cols, n_state;
    int64_t next_du, next_ddelta, next_dz;                                    /* bytes from a row to the one before         */
    float *part;                      /* more than one block a sequence: [member][sequence][block][rows][B, C][n_state]     */
    float *h;                         /* any number of states: [member][sequence][block][dh, da][n_state][THREADS]          */
};
enum { THREADS = SCAN_THREADS, WARPS = THREADS / 32 };

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

/* A channel's tile: dt and u; dy behind the gate; y before it; what is injected into the state, and what moved its exponents. */
struct AnyTile { float dt[SCAN_CHUNK], u[SCAN_CHUNK], dy[SCAN_CHUNK], inject[SCAN_CHUNK], exponent[SCAN_CHUNK], y[SCAN_CHUNK]; };
/* Where: member, sequence, channel, first token; live: there is such a channel. */
struct AnyPlace { int64_t m, s; int32_t k, t0; bool live; };

template <bool GATED> static __device__ __forceinline__ void begin_any(AnyTile &x, float &dd, const Backward &f, const AnyPlace &p, float d)
{
#pragma unroll
    for (int i = 0; i < SCAN_CHUNK; i++) {
        const bool there = p.live && p.t0 + i < f.rows;
        const float given = there ? arg_get(f.delta, arg_row(f.delta, p.m, p.s, p.t0 + i) + p.k) : 0.0f;
        x.u[i] = there ? arg_get(f.u, arg_row(f.u, p.m, p.s, p.t0 + i) + p.k) : 0.0f;
        x.dt[i] = GATED ? scan_softplus(given) : given;
        x.dy[i] = there ? arg_get(f.dy, arg_row(f.dy, p.m, p.s, p.t0 + i) + p.k) : 0.0f;
        if (GATED && there) {
            const float zt = arg_get(f.z, arg_row(f.z, p.m, p.s, p.t0 + i) + p.k);
            x.dy[i] *= zt * fast_sigmoid(zt);
        }
        x.inject[i] = x.exponent[i] = 0.0f;
        x.y[i] = d * x.u[i];
        dd += x.dy[i] * x.u[i];
    }
}
template <bool GATED> static __device__ __forceinline__ void end_any(const AnyTile &x, float &dbias, const Backward &f, const AnyPlace &p, float d)
{
#pragma unroll
    for (int i = 0; i < SCAN_CHUNK; i++) {
        if (!p.live || p.t0 + i >= f.rows) continue;
        float change = SCAN_LN2 * x.exponent[i] + x.inject[i] * x.u[i];
        if (GATED) {
            change *= 1.0f - fast_exp2(-SCAN_LOG2E * x.dt[i]);
            dbias += change;
            const float zt = arg_get(f.z, arg_row(f.z, p.m, p.s, p.t0 + i) + p.k), gate = fast_sigmoid(zt);
            const float dout = arg_get(f.dy, arg_row(f.dy, p.m, p.s, p.t0 + i) + p.k);
            if (f.dz.data) arg_put(f.dz, arg_row(f.dz, p.m, p.s, p.t0 + i) + p.k, dout * x.y[i] * (gate + zt * gate * (1.0f - gate)));
        }
        if (f.du.data) arg_put(f.du, arg_row(f.du, p.m, p.s, p.t0 + i) + p.k, x.dy[i] * d + x.inject[i] * x.dt[i]);
        if (f.ddelta.data) arg_put(f.ddelta, arg_row(f.ddelta, p.m, p.s, p.t0 + i) + p.k, change);
    }
}
template <bool GATED> static __global__ void __launch_bounds__(THREADS) backward_any(Backward f)
{
    mdr_begin();
    MDR_SHARED(float, sums);                                                  /* [warps][32]                            */
    const int64_t m = blockIdx.z, s = blockIdx.y, block = (m * gridDim.y + s) * gridDim.x + blockIdx.x;
    const int32_t tid = (int32_t)threadIdx.x, lane = tid & 31, k = (int32_t)blockIdx.x * THREADS + tid;
    if (s >= f.n_seq[m]) return;
    const bool live = k < f.cols;
    float *dh = f.h + block * 2 * f.n_state * THREADS + tid, *da = dh + f.n_state * THREADS, dd = 0.0f, dbias = 0.0f;
    const float d = live ? arg_get(f.d, arg_row(f.d, m, s, 0) + k) : 0.0f;
    const int32_t last = (f.rows - 1) / SCAN_CHUNK;
    for (int32_t q = last; q >= 0; q--) {
        const int32_t t0 = q * SCAN_CHUNK;
        const AnyPlace here = {m, s, k, t0, live};
        AnyTile x;
        begin_any<GATED>(x, dd, f, here, d);
        for (int32_t n = 0; n < f.n_state; n++) {
            const float a = live ? SCAN_LOG2E * arg_get(f.a, arg_row(f.a, m, s, k) + n) : 0.0f;
            const bool begun = q < last && live;
            float h[SCAN_CHUNK + 1], v[32], now_h = begun ? dh[n * THREADS] : 0.0f, now_a = begun ? da[n * THREADS] : 0.0f;
            h[0] = live ? arg_get(f.states, arg_row(f.states, m, s, q) + (int64_t)n * f.cols + k) : 0.0f;
#pragma unroll
            for (int i = 0; i < SCAN_CHUNK; i++) {
                const float b = t0 + i < f.rows ? arg_get(f.bm, arg_row(f.bm, m, s, t0 + i) + n) : 0.0f;
                h[i + 1] = fast_exp2(x.dt[i] * a) * h[i] + x.dt[i] * x.u[i] * b;
            }
#pragma unroll
            for (int i = SCAN_CHUNK - 1; i >= 0; i--) {
                const bool there = t0 + i < f.rows;
                const float b = there ? arg_get(f.bm, arg_row(f.bm, m, s, t0 + i) + n) : 0.0f;
                const float c = there ? arg_get(f.cm, arg_row(f.cm, m, s, t0 + i) + n) : 0.0f;
                now_h += x.dy[i] * c;
                v[2 * i + 1] = x.dy[i] * h[i + 1];
                v[2 * i] = now_h * x.dt[i] * x.u[i];
                x.y[i] += c * h[i + 1];
                x.inject[i] += now_h * b;
                now_h *= fast_exp2(x.dt[i] * a);
                x.exponent[i] += now_h * h[i] * a;
                now_a += now_h * h[i] * x.dt[i];
            }
            if (live) { dh[n * THREADS] = now_h; da[n * THREADS] = now_a; }
            trade<1>(v, lane);
            sums[tid] = v[0];
            __syncthreads();
            if (tid < 32 && t0 + tid / 2 < f.rows) {
                float sum = sums[tid];
                for (int w = 1; w < WARPS; w++) sum += sums[w * 32 + tid];
                const Arg &out = tid & 1 ? f.dc : f.db;
                if (gridDim.x > 1) f.part[((block * f.rows + t0 + tid / 2) * 2 + (tid & 1)) * f.n_state + n] = sum;
                else if (out.data) arg_put(out, arg_row(out, m, s, t0 + tid / 2) + n, sum);
            }
            __syncthreads();
        }
        end_any<GATED>(x, dbias, f, here, d);
    }
    if (!live) return;
    for (int32_t n = 0; n < f.n_state && f.da.data; n++) arg_put(f.da, arg_row(f.da, m, s, k) + n, da[n * THREADS]);
    if (f.dd.data) arg_put(f.dd, arg_row(f.dd, m, s, 0) + k, dd);
    if (GATED && f.dbias.data) arg_put(f.dbias, arg_row(f.dbias, m, s, 0) + k, dbias);
}
#endif
