/* attention on the GPU: causal softmax attention, forward (attention_grad.cu is its gradient, attention.c says what is computed), and
 * rope_attention, which rotates q and k first. Heads of up to 8: cuda_attention_heads.h. Others, and more than HEAD_ROWS rows:
 * keys and values pass by in tiles of 64; a warp owns 16 to 64 query rows of one head and keeps their outputs, sums and shifts in
 * registers. Shifts are lazy: a row's exponents may grow to 2^8 before its sums are rescaled, which after the first keys almost
 * never happens (as in FlashAttention 4). Not here: score matrices in memory. Dao et al. 2022. */
#include "op/cuda_attention_heads.h"
#include <math.h>

enum { KEYS = 64, STEP = 32 };

/* D: padded head; RC: chunks of a tile's row; WQ: warps that share a head; NQ: tiles of 16 rows a warp owns */
template <int D> struct Plan {
    static constexpr int WARPS = 8, THREADS = 32 * WARPS, HEADS = D < 64 ? 64 / D : 1, RC = HEADS * D / 8, WQ = WARPS / HEADS,
                         NQ = D == 8 ? 4 : D == 16 ? 2 : 1, ROWS = 16 * WQ * NQ,
                         S = D < 32 ? D : 32, BLOCKS = D == 8 ? 3 : D <= 64 ? 2 : 1;
    static constexpr size_t BYTES = 16 * (size_t)RC * (ROWS + 4 * KEYS) + sizeof(float) * ROWS * HEADS;
};

/* 16 query rows: a lane has rows g and g+8. most: the shift, in powers of two; sum: of this lane's columns */
template <int D> struct Rows {
    float y[D / 8][4], most[2], sum[2];
};

template <int D> static __device__ __forceinline__ void raise_shift(Rows<D> &r, float top0, float top1)
{
    float top[2] = {top0, top1};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 1));
        top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 2));
        const float most = fmaxf(r.most[i], top[i]), factor = fast_exp2(r.most[i] - most);
        r.most[i] = most;
        r.sum[i] *= factor;
#pragma unroll
        for (int e = 0; e < D / 8; e++) {
            r.y[e][2 * i] *= factor;
            r.y[e][2 * i + 1] *= factor;
        }
    }
}

/* STEP keys from row `key` of the tiles; q0, k0: the first query's and key's place in the sequence. */
template <int D, bool MASKED>
static __device__ __forceinline__ void attend_step(Rows<D> &r, const Frag<Plan<D>::S> *q, const uint4 *K, const uint4 *V, int key, int chunk0,
                                                   int lane, int q0, int k0, const AttentionShape &shape)
{
    constexpr int S = Plan<D>::S, RC = Plan<D>::RC;
    const int ahead = q0 + lane / 4 - k0 - lane % 4 * 2;               /* of the lane's first query before its first key */
    float s[STEP / 16][2][4] = {};
#pragma unroll
    for (int n = 0; n < STEP / 16; n++)
#pragma unroll
        for (int c = 0; c < D / S; c++) {
            Frag<S> k;
            load_frag<S, RC, false>(k, K, key + 16 * n, chunk0 + c * S / 8, lane);
            add_product<S>(s[n], q[c], k);
        }
    if constexpr (MASKED) {
#pragma unroll
        for (int n = 0; n < STEP / 16; n++)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!seen(ahead, 16 * n + 8 * j + i % 2 - i / 2 * 8, shape.window)) s[n][j][i] = -INFINITY;
    }
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < STEP / 16; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            top[0] = fmaxf(top[0], fmaxf(s[n][j][0], s[n][j][1]));
            top[1] = fmaxf(top[1], fmaxf(s[n][j][2], s[n][j][3]));
        }
    top[0] *= shape.unit;
    top[1] *= shape.unit;
    if (__any_sync(0xffffffffu, top[0] > r.most[0] + 8.0f || top[1] > r.most[1] + 8.0f)) raise_shift<D>(r, top[0], top[1]);
#pragma unroll
    for (int n = 0; n < STEP / 16; n++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            /* beyond the diagonal: not worth the exponentials */
            const bool work = !MASKED || k0 + 16 * n + 8 * j <= q0 + 15;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][j][i] = work ? fast_exp2(s[n][j][i] * shape.unit - r.most[i / 2]) : 0.0f;
                r.sum[i / 2] += s[n][j][i];
            }
        }
        uint32_t p[4];
        pack_operand(p, s[n]);
#pragma unroll
        for (int c = 0; c < D / S; c++) {
            Frag<S> v;
            load_frag<S, RC, true>(v, V, key + 16 * n, chunk0 + c * S / 8, lane);
            add_weighted<S>(r.y + c * S / 8, p, v);
        }
    }
}

template <int D> static __device__ __forceinline__ void load_keys(uint4 *K, uint4 *V, const Arg &k, const Arg &v, const AttentionShape &s,
                                                                  const Spot &at, int tile)
{
    constexpr int RC = Plan<D>::RC, to = KEYS * RC;
    load_tile<D, RC>(K + tile % 2 * to, k, s, at, tile * KEYS, KEYS);
    load_tile<D, RC>(V + tile % 2 * to, v, s, at, tile * KEYS, KEYS);
    copy_commit();
}

template <int D>
static __global__ void __launch_bounds__(Plan<D>::THREADS, Plan<D>::BLOCKS) attend(Arg q, Arg k, Arg v, Arg y, Arg lse, const int32_t *n_seq,
                                                                                   AttentionShape shape)
{
    mdr_begin();
    using P = Plan<D>;
    MDR_SHARED(uint4, Q);
    uint4 *K = Q + P::ROWS * P::RC, *V = K + 2 * KEYS * P::RC;
    float *stat = (float *)(V + 2 * KEYS * P::RC);
    Spot at;
    if (!find_spot(shape, n_seq, &at)) return;
    at.block = shape.blocks - 1 - at.block;                           /* the longest first */
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, head = warp / P::WQ, w = warp % P::WQ, chunk0 = head * (D / 8);
    const int row0 = at.block * P::ROWS, last_row = row0 + P::ROWS - 1 < shape.rows - 1 ? row0 + P::ROWS - 1 : shape.rows - 1;
    const int first_key = shape.window && row0 > shape.window ? row0 - shape.window : 0;
    const bool idle = at.group * P::HEADS + head >= shape.heads;
    Rows<D> r[P::NQ];
    Frag<P::S> qf[P::NQ][D / P::S];
#pragma unroll
    for (int n = 0; n < P::NQ; n++) {
        for (int e = 0; e < D / 8; e++) r[n].y[e][0] = r[n].y[e][1] = r[n].y[e][2] = r[n].y[e][3] = 0.0f;
        r[n].most[0] = r[n].most[1] = -1e30f;                         /* finite: less minus less is not NaN */
        r[n].sum[0] = r[n].sum[1] = 0.0f;
    }
    load_tile<D, P::RC>(Q, q, shape, at, row0, P::ROWS);
    const int first_tile = first_key / KEYS;
    load_keys<D>(K, V, k, v, shape, at, first_tile);
    for (int tile = first_tile; tile * KEYS <= last_row; tile++) {
        copy_wait<0>();
        __syncthreads();
        if ((tile + 1) * KEYS <= last_row) load_keys<D>(K, V, k, v, shape, at, tile + 1);
        if (idle) continue;
        const uint4 *Kt = K + tile % 2 * KEYS * P::RC, *Vt = V + tile % 2 * KEYS * P::RC;
#pragma unroll
        for (int n = 0; n < P::NQ; n++) {
            const int mine = (n * P::WQ + (n % 2 ? P::WQ - 1 - w : w)) * 16, q0 = row0 + mine;
            if (tile == first_tile)
#pragma unroll
                for (int c = 0; c < D / P::S; c++) load_frag<P::S, P::RC, false>(qf[n][c], Q, mine, chunk0 + c * P::S / 8, lane);
#pragma unroll 1
            for (int key = 0; key < KEYS; key += STEP) {
                const int k0 = tile * KEYS + key;
                if (q0 >= shape.rows || !any_seen(q0, 16, k0, STEP, shape.window)) continue;
                if (any_hidden(q0, 16, k0, STEP, shape.window)) attend_step<D, true>(r[n], qf[n], Kt, Vt, key, chunk0, lane, q0, k0, shape);
                else attend_step<D, false>(r[n], qf[n], Kt, Vt, key, chunk0, lane, q0, k0, shape);
            }
        }
    }
    __syncwarp();                                                      /* only this warp read its rows of q: their place takes y */
#pragma unroll
    for (int n = 0; n < P::NQ; n++) {
        const int mine = (n * P::WQ + (n % 2 ? P::WQ - 1 - w : w)) * 16;
        const float sum[2] = {quad_sum(r[n].sum[0]), quad_sum(r[n].sum[1])};
        if (!idle) write_rows<D, P::RC>(Q, r[n].y, 1.0f / sum[0], 1.0f / sum[1], mine, chunk0, lane);
        if (lane % 4 == 0)
            for (int i = 0; i < 2; i++) stat[(mine + lane / 4 + 8 * i) * P::HEADS + head] = (r[n].most[i] + log2f(sum[i])) * LN2;
    }
    __syncthreads();
    if (y.data) store_tile<D, P::RC>(y, Q, shape, at, row0, P::ROWS);
    for (int i = (int)threadIdx.x; lse.data && i < P::ROWS * P::HEADS; i += P::THREADS) {
        const int row = row0 + i / P::HEADS, h = at.group * P::HEADS + i % P::HEADS;
        if (row < shape.rows && h < shape.heads) arg_put(lse, arg_row(lse, at.member, at.seq, row) + h, stat[i]);
    }
}

template <int D> static void enqueue(const Call *c, AttentionShape s)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, Plan<D>::HEADS);
    s.blocks = (int32_t)mdr_ceil_div(s.rows, Plan<D>::ROWS);
    MDR_ALLOW_SHARED(attend<D>, Plan<D>::BYTES);
    MDR_LAUNCH((attend<D>), attention_grid(c, s), Plan<D>::THREADS, Plan<D>::BYTES, c->stream, c->in[0], c->in[1], c->in[2], c->out[0], c->out[1],
               c->n_seq, s);
}

static void enqueue_narrow(const Call *c, AttentionShape s)
{
    if (s.rows <= HEAD_ROWS) enqueue_8(c, s, Turns{});                 /* no row turns */
    else enqueue<8>(c, s);
}

template <int DM> static __global__ void __launch_bounds__(PLAIN_THREADS, 3) attend_plain(Arg q, Arg k, Arg v, Arg y, Arg lse, const int32_t *n_seq,
                                                                                          AttentionShape s)
{
    mdr_begin();
    enum { AT_ONCE = 4 };
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    at.block = s.blocks - 1 - at.block;
    MDR_SHARED(float, K);
    const int padded = DM * s.lanes;
    float *V = K + s.tile * padded;
    const PlainRow r = plain_row(s, at);
    float mine[DM], acc[DM] = {}, most = -1e30f, sum = 0.0f;
    plain_load<DM>(mine, q, s, at, r);
    for (int tile = s.window && r.first > s.window ? (r.first - s.window) / s.tile * s.tile : 0; tile <= r.last; tile += s.tile) {
        __syncthreads();
        plain_tile(K, padded, k, s, at, tile);
        plain_tile(V, padded, v, s, at, tile);
        __syncthreads();
        for (int j = 0; j < s.tile && tile + j <= r.warp_last && tile + j < s.rows; j += AT_ONCE) {
            if (!any_seen(r.warp_first, r.warp_last - r.warp_first + 1, tile + j, AT_ONCE, s.window)) continue;
            float p[AT_ONCE], top = most;
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                p[n] = plain_dot<DM>(mine, K + (j + n) * padded, s.lanes, r.lane);
                if (!seen(r.row, tile + j + n, s.window)) p[n] = -INFINITY;
                top = fmaxf(top, p[n]);
            }
            if (top > most) {
                const float factor = fast_exp2((most - top) * s.unit);
                most = top;
                sum *= factor;
#pragma unroll
                for (int i = 0; i < DM; i++) acc[i] *= factor;
            }
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                p[n] = fast_exp2((p[n] - most) * s.unit);
                sum += p[n];
                plain_add<DM>(acc, p[n], V + (j + n) * padded, s.lanes, r.lane);
            }
        }
    }
    plain_store<DM>(y, acc, 1.0f / sum, s, at, r);
    if (lse.data && r.row < s.rows && r.lane == 0) arg_put(lse, arg_row(lse, at.member, at.seq, r.row) + r.head, most * s.scale + logf(sum));
}
template <int DM> static void enqueue_plain(const Call *c, AttentionShape s)
{
    plain_shape(&s, DM);
    MDR_ALLOW_SHARED(attend_plain<DM>, plain_bytes(s, DM));
    MDR_LAUNCH((attend_plain<DM>), attention_grid(c, s), PLAIN_THREADS, plain_bytes(s, DM), c->stream, c->in[0], c->in[1], c->in[2], c->out[0],
               c->out[1], c->n_seq, s);
}

static void run_attention(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    AttentionShape s = attention_shape(c);
    bool half = is_bf16(c->out[0], &s);
    for (int i = 0; i < 3; i++) half = is_bf16(c->in[i], &s) && half;
    typedef void Enqueue(const Call *, AttentionShape);
    static const struct { int32_t most; Enqueue *to; }
        products[] = {{8, enqueue_narrow}, {16, enqueue<16>}, {32, enqueue<32>}, {64, enqueue<64>}, {128, enqueue<128>}, {0, NULL}},
        plain[] = {{8, enqueue_plain<8>}, {16, enqueue_plain<16>}, {1024, enqueue_plain<32>}, {0, NULL}};
    for (int i = 0; half && products[i].to; i++)
        if (s.d <= products[i].most) return products[i].to(c, s);
    for (int i = 0; plain[i].to; i++)
        if (s.d <= plain[i].most) return plain[i].to(c, s);
}
static bool applies(const Node *n) { return n->in_type[0].shape.d[1] / ((const AttentionAttr *)n->attr)->n_heads <= 1024; }

/* ---- with the rotation inside; what is not bf16 is rounded as it comes ---- */

static void run_turned(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    AttentionShape s = attention_shape(c);
    bool half = is_bf16(c->out[0], &s);
    for (int i = 0; i < 3; i++) half = is_bf16(c->in[i], &s) && half;
    s.vectors = s.vectors && half;
    Turns turns;
    for (int i = 0; i < 4; i++) {
        const double turn = pow(((const RopeAttentionAttr *)c->node->attr)->base, -0.25 * i) / (2.0 * M_PI);
        turns.step[i] = (uint32_t)(int64_t)rint(turn * 4294967296.0);
    }
    enqueue_8(c, s, turns);
}

extern "C" const CudaRow mdr_cuda_rows_attention[] = {
    {"attention", {run_attention, NULL, NULL, {}}, applies, 0, 1u << 1},
    {"rope_attention", {run_turned, NULL, NULL, {}}, turned_applies, 0, 1u << 1},
    {}};
