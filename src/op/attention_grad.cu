/* attention_grad on the GPU (attention.c: the equations). With p = exp(s - lse) made anew and D = dy.y - dlse,
 *   ds = p (dy.v - D);   dv = p^T dy,   dk = d^-1/2 ds^T q,   dq = d^-1/2 ds k
 * scores are made transposed, [keys][queries], so that p and ds, as a product leaves them, are operands of the products that give dv and dk;
 * only dq wants ds turned round. Heads of 8, up to HEAD_ROWS rows: one pass (cuda_attention_grad.h). Others: a warp owns keys and walks the
 * queries that see them, and a second kernel makes dq, with the scores once more. No atomics anywhere. Dao et al. 2022.
 * rope_attention_grad is the same with the rotation of q and k before and its inverse on dq and dk behind, for the first kind of heads. */
#include "op/cuda_attention_grad_long.h"
#include "op/cuda_attention_grad_short.h"

/* What a query row needs besides q and dy: lse in powers of two, and D. Rows past the end: p = 0. */
static __device__ __forceinline__ float2 row_stat(const GradArgs &a, const AttentionShape &s, const Spot &at, int row, int head, float lse,
                                                  float product)
{
    if (row >= s.rows || head >= s.heads) return make_float2(1e30f, 0.0f);
    if (a.dlse.data) product -= arg_get(a.dlse, arg_row(a.dlse, at.member, at.seq, row) + head);
    return make_float2(lse * LOG2E, product);
}
static __device__ __forceinline__ float row_lse(const GradArgs &a, const AttentionShape &s, const Spot &at, int row, int head)
{
    return row < s.rows && head < s.heads ? arg_get(a.lse, arg_row(a.lse, at.member, at.seq, row) + head) : 0.0f;
}

/* ---- keys ---- */
/* D: padded head; G heads a block, 4 warps a head, each 16 keys; SPLIT: registers do not hold dk and dv at once, half of the blocks make
 * one and half the other. TILE: keys, QUERIES: query rows in shared memory at a time. */
template <int D_, int G_> struct KeysPlan {
    static constexpr int D = D_, G = G_, W = 4, CH = D / 8, RC = G * CH, THREADS = 32 * G * W, TILE = W * 16, QUERIES = D == 128 ? 32 : 64,
                         S = D <= 16 ? D : 32, PARTS = D / S, PAIRS = (QUERIES * G + THREADS - 1) / THREADS, PER_SM = THREADS == 512 || D == 128 ? 1 : 2;
    static constexpr bool SPLIT = D == 128;
    static constexpr size_t BYTES = 32 * (size_t)TILE * RC + 96 * (size_t)QUERIES * RC + sizeof(float2) * G * QUERIES;
};

template <class P> struct KeyRows {
    Frag<P::S> k, v;
    float dk[P::CH][4], dv[P::SPLIT ? 1 : P::CH][4];                  /* SPLIT: dk is either */
};

template <class P> static __device__ __forceinline__ void begin_keys(KeyRows<P> &r, const uint4 *K, const uint4 *V, int row, int chunk0, int lane)
{
    if constexpr (P::PARTS == 1) {
        load_frag<P::S, P::RC, false>(r.k, K, row, chunk0, lane);
        load_frag<P::S, P::RC, false>(r.v, V, row, chunk0, lane);
    }
#pragma unroll
    for (int e = 0; e < P::CH; e++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            r.dk[e][i] = 0.0f;
            if constexpr (!P::SPLIT) r.dv[e][i] = 0.0f;
        }
}

/* One query tile (16 rows from `row` of the stage, q0 in the sequence) against the warp's keys (from key_row of the tile, k0 in the sequence). */
template <class P>
static __device__ __forceinline__ void add_queries(KeyRows<P> &r, const uint4 *K, const uint4 *V, int key_row, const uint4 *Q, const uint4 *DY,
                                                   const float2 *stat, int row, int chunk0, int lane, int q0, int k0, const AttentionShape &s, bool values)
{
    constexpr int S = P::S, RC = P::RC;
    if constexpr (P::PARTS > 1) asm volatile("" : "+r"(lane));         /* the addresses of wide heads are made anew: no room for them */
    Frag<S> q, dy, q_turned, dy_turned;
    if constexpr (P::PARTS == 1) {
        load_frag<S, RC, false>(q, Q, row, chunk0, lane);
        load_frag<S, RC, false>(dy, DY, row, chunk0, lane);
        load_frag<S, RC, true>(q_turned, Q, row, chunk0, lane);
        load_frag<S, RC, true>(dy_turned, DY, row, chunk0, lane);
    }
    /* of queries 2t, 2t+1 (and 8 on): lse, D, lse, D */
    const float4 z[2] = {*(const float4 *)(stat + row + lane % 4 * 2), *(const float4 *)(stat + row + 8 + lane % 4 * 2)};
    const int behind = k0 + lane / 4 - q0 - lane % 4 * 2;
    float p[2][4] = {}, ds[2][4] = {{-z[0].y, -z[0].w, -z[0].y, -z[0].w}, {-z[1].y, -z[1].w, -z[1].y, -z[1].w}};
#pragma unroll(P::PARTS > 4 ? 2 : P::PARTS)
    for (int c = 0; c < P::PARTS; c++)
        if constexpr (P::PARTS == 1) {
            add_product<S>(p, r.k, q);
            add_product<S>(ds, r.v, dy);
        } else {
            Frag<S> a;
            load_frag<S, RC, false>(a, K, key_row, chunk0 + c * S / 8, lane);
            load_frag<S, RC, false>(q, Q, row, chunk0 + c * S / 8, lane);
            add_product<S>(p, a, q);
            if (P::SPLIT && values) continue;
            load_frag<S, RC, false>(a, V, key_row, chunk0 + c * S / 8, lane);
            load_frag<S, RC, false>(dy, DY, row, chunk0 + c * S / 8, lane);
            add_product<S>(ds, a, dy);
        }
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[j][i] = fast_exp2(p[j][i] * s.unit - (i % 2 ? z[j].z : z[j].x));
    if (any_hidden(q0, 16, k0, 16, s.window))
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!seen(8 * j + i % 2 - i / 2 * 8, behind, s.window)) p[j][i] = 0.0f;
    uint32_t operand[4];
    pack_operand(operand, p);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) ds[j][i] *= p[j][i];
    if constexpr (!P::SPLIT)
#pragma unroll
        for (int c = 0; c < P::PARTS; c++) {
            if constexpr (P::PARTS > 1) load_frag<S, RC, true>(dy_turned, DY, row, chunk0 + c * S / 8, lane);
            add_weighted<S>(r.dv + c * S / 8, operand, dy_turned);
        }
    if (!P::SPLIT || !values) pack_operand(operand, ds);
#pragma unroll
    for (int c = 0; c < P::PARTS; c++) {
        if constexpr (P::PARTS > 1) load_frag<S, RC, true>(q_turned, P::SPLIT && values ? DY : Q, row, chunk0 + c * S / 8, lane);
        add_weighted<S>(r.dk + c * S / 8, operand, q_turned);
    }
}

template <class P> static __device__ __forceinline__ void load_queries(uint4 *Q, uint4 *DY, uint4 *Y, float *lse, const GradArgs &a,
                                                                       const AttentionShape &s, const Spot &at, int first)
{
    load_tile<P::D, P::RC>(Q, a.q, s, at, first, P::QUERIES);
    load_tile<P::D, P::RC>(DY, a.dy, s, at, first, P::QUERIES);
    load_tile<P::D, P::RC>(Y, a.y, s, at, first, P::QUERIES);
    copy_commit();
#pragma unroll
    for (int i = 0; i < P::PAIRS; i++) {
        const int pair = (int)threadIdx.x + i * P::THREADS;
        lse[i] = pair < P::QUERIES * P::G ? row_lse(a, s, at, first + pair / P::G, at.group * P::G + pair % P::G) : 0.0f;
    }
}
template <class P> static __device__ __forceinline__ void make_stats(float2 *stat, const uint4 *DY, const uint4 *Y, const float *lse,
                                                                     const GradArgs &a, const AttentionShape &s, const Spot &at, int first)
{
#pragma unroll
    for (int i = 0; i < P::PAIRS; i++) {
        const int pair = (int)threadIdx.x + i * P::THREADS, row = pair / P::G, head = pair % P::G;
        if (pair < P::QUERIES * P::G)
            stat[head * P::QUERIES + row] = row_stat(a, s, at, first + row, at.group * P::G + head, lse[i], row_product<P::D, P::RC>(DY, Y, row,
                head * P::CH));
    }
}

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_grad_keys(GradArgs a, const int32_t *n_seq,
                                                                                                    AttentionShape s)
{
    mdr_begin();
    constexpr int RC = P::RC, STAGE = P::QUERIES * RC;
    MDR_SHARED(uint4, K);
    uint4 *V = K + P::TILE * RC, *Q = V + P::TILE * RC, *DY = Q + 2 * STAGE, *Y = DY + 2 * STAGE;
    float2 *stat = (float2 *)(Y + 2 * STAGE);
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    const int lane = (int)threadIdx.x % 32, head = (int)threadIdx.x / 32 / P::W, w = (int)threadIdx.x / 32 % P::W, chunk0 = head * P::CH;
    const bool values = P::SPLIT && blockIdx.y == 1;
    const Arg &d_keys = values ? a.dv : a.dk;
    if (P::SPLIT && !d_keys.data) return;
    const int first = at.block * P::TILE, key_row = w * 16, k0 = first + key_row;
    const int last = s.window && first + P::TILE - 1 + s.window < s.rows - 1 ? first + P::TILE - 1 + s.window : s.rows - 1;
    KeyRows<P> r;
    float lse[P::PAIRS];
    load_tile<P::D, RC>(K, a.k, s, at, first, P::TILE);
    load_tile<P::D, RC>(V, a.v, s, at, first, P::TILE);
    int stage = first / P::QUERIES, buffer = 0;
    load_queries<P>(Q, DY, Y, lse, a, s, at, stage * P::QUERIES);
    for (bool begin = true; stage * P::QUERIES <= last; stage++, buffer ^= 1, begin = false) {
        copy_wait<0>();
        __syncthreads();
        make_stats<P>(stat, DY + buffer * STAGE, Y + buffer * STAGE, lse, a, s, at, stage * P::QUERIES);
        if ((stage + 1) * P::QUERIES <= last) {
            const int next = (buffer ^ 1) * STAGE;
            load_queries<P>(Q + next, DY + next, Y + next, lse, a, s, at, (stage + 1) * P::QUERIES);
        }
        __syncthreads();
        if (begin) begin_keys<P>(r, K, V, key_row, chunk0, lane);
#pragma unroll 1
        for (int turn = 0; turn < P::QUERIES / 16; turn++) {
            const int row = (turn + w) % (P::QUERIES / 16) * 16, q0 = stage * P::QUERIES + row;
            if (q0 < s.rows && any_seen(q0, 16, k0, 16, s.window))
                add_queries<P>(r, K, V, key_row, Q + buffer * STAGE, DY + buffer * STAGE, stat + head * P::QUERIES, row, chunk0, lane, q0, k0, s, values);
        }
    }
    __syncwarp();                                                      /* these keys are this warp's alone: their place takes dk, dv */
    write_rows<P::D, RC>(K, r.dk, values ? 1.0f : s.scale, values ? 1.0f : s.scale, key_row, chunk0, lane);
    if constexpr (!P::SPLIT) write_rows<P::D, RC>(V, r.dv, 1.0f, 1.0f, key_row, chunk0, lane);
    __syncthreads();
    if (d_keys.data) store_tile<P::D, RC>(d_keys, K, s, at, first, P::TILE);
    if (!P::SPLIT && a.dv.data) store_tile<P::D, RC>(a.dv, V, s, at, first, P::TILE);
}

/* ---- queries: dq alone, a warp owns query rows and walks keys, as in attention.cu ---- */
template <int D_> struct QueriesPlan {
    static constexpr int D = D_, CH = D / 8, HEADS = D < 64 ? 64 / D : 1, RC = HEADS * CH, W = 8 / HEADS, NQ = D == 8 ? 4 : D == 16 ? 2 : 1,
                         ROWS = 16 * W * NQ, KEYS = D == 128 ? 32 : 64, S = D <= 16 ? D : D == 64 ? 16 : 32, PARTS = D / S,
                         THREADS = 256, PER_SM = D == 128 ? 1 : 2;
    static constexpr size_t BYTES = 16 * (size_t)RC * (3 * ROWS + 4 * KEYS) + sizeof(float2) * ROWS * HEADS;
};
template <class P> struct QueryRows {
    Frag<P::S> q[P::PARTS], dy[P::PARTS];
    float dq[P::CH][4];
    float2 stat[2];
};

template <class P> static __device__ __forceinline__ void add_keys(QueryRows<P> &r, const uint4 *K, const uint4 *V, int key, int chunk0, int lane,
                                                                   int q0, int k0, const AttentionShape &s)
{
    constexpr int S = P::S, RC = P::RC;
    if constexpr (P::PARTS > 1) asm volatile("" : "+r"(lane));
    const int ahead = q0 + lane / 4 - k0 - lane % 4 * 2;
    const float low = -r.stat[0].y, high = -r.stat[1].y;
    float p[2][4] = {}, ds[2][4] = {{low, low, high, high}, {low, low, high, high}};
#pragma unroll
    for (int c = 0; c < P::PARTS; c++) {
        Frag<S> f;
        load_frag<S, RC, false>(f, K, key, chunk0 + c * S / 8, lane);
        add_product<S>(p, r.q[c], f);
        load_frag<S, RC, false>(f, V, key, chunk0 + c * S / 8, lane);
        add_product<S>(ds, r.dy[c], f);
    }
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[j][i] = fast_exp2(p[j][i] * s.unit - r.stat[i / 2].x);
    if (any_hidden(q0, 16, k0, 16, s.window))
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!seen(ahead, 8 * j + i % 2 - i / 2 * 8, s.window)) p[j][i] = 0.0f;
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) ds[j][i] *= p[j][i];
    uint32_t operand[4];
    pack_operand(operand, ds);
#pragma unroll
    for (int c = 0; c < P::PARTS; c++) {
        Frag<S> f;
        load_frag<S, RC, true>(f, K, key, chunk0 + c * S / 8, lane);
        add_weighted<S>(r.dq + c * S / 8, operand, f);
    }
}
template <class P> static __device__ __forceinline__ void load_keys(uint4 *K, uint4 *V, const GradArgs &a, const AttentionShape &s, const Spot &at,
                                                                    int tile)
{
    load_tile<P::D, P::RC>(K + tile % 2 * P::KEYS * P::RC, a.k, s, at, tile * P::KEYS, P::KEYS);
    load_tile<P::D, P::RC>(V + tile % 2 * P::KEYS * P::RC, a.v, s, at, tile * P::KEYS, P::KEYS);
    copy_commit();
}

template <class P> static __global__ void __launch_bounds__(P::THREADS, P::PER_SM) attend_grad_queries(GradArgs a, const int32_t *n_seq,
                                                                                                       AttentionShape s)
{
    mdr_begin();
    constexpr int RC = P::RC;
    MDR_SHARED(uint4, Q);
    uint4 *DY = Q + P::ROWS * RC, *Y = DY + P::ROWS * RC, *K = Y + P::ROWS * RC, *V = K + 2 * P::KEYS * RC;
    float2 *stat = (float2 *)(V + 2 * P::KEYS * RC);
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    at.block = s.blocks - 1 - at.block;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, head = warp / P::W, w = warp % P::W, chunk0 = head * P::CH,
        row0 = at.block * P::ROWS;
    const int last_row = row0 + P::ROWS - 1 < s.rows - 1 ? row0 + P::ROWS - 1 : s.rows - 1,
        first_tile = s.window && row0 > s.window ? (row0 - s.window) / P::KEYS : 0;
    load_tile<P::D, RC>(Q, a.q, s, at, row0, P::ROWS);
    load_tile<P::D, RC>(DY, a.dy, s, at, row0, P::ROWS);
    load_tile<P::D, RC>(Y, a.y, s, at, row0, P::ROWS);
    load_keys<P>(K, V, a, s, at, first_tile);
    copy_wait<0>();
    __syncthreads();
    for (int i = (int)threadIdx.x; i < P::ROWS * P::HEADS; i += P::THREADS) {
        const int row = i / P::HEADS, h = at.group * P::HEADS + i % P::HEADS;
        stat[i] = row_stat(a, s, at, row0 + row, h, row_lse(a, s, at, row0 + row, h), row_product<P::D, RC>(DY, Y, row, i % P::HEADS * P::CH));
    }
    __syncthreads();
    QueryRows<P> r[P::NQ];
#pragma unroll
    for (int n = 0; n < P::NQ; n++) {
        const int mine = (n * P::W + (n % 2 ? P::W - 1 - w : w)) * 16;
#pragma unroll
        for (int c = 0; c < P::PARTS; c++) {
            load_frag<P::S, RC, false>(r[n].q[c], Q, mine, chunk0 + c * P::S / 8, lane);
            load_frag<P::S, RC, false>(r[n].dy[c], DY, mine, chunk0 + c * P::S / 8, lane);
        }
        for (int i = 0; i < 2; i++) r[n].stat[i] = stat[(mine + lane / 4 + 8 * i) * P::HEADS + head];
        for (int e = 0; e < P::CH; e++) r[n].dq[e][0] = r[n].dq[e][1] = r[n].dq[e][2] = r[n].dq[e][3] = 0.0f;
    }
    for (int tile = first_tile; tile * P::KEYS <= last_row; tile++) {
        copy_wait<0>();
        __syncthreads();
        if ((tile + 1) * P::KEYS <= last_row) load_keys<P>(K, V, a, s, at, tile + 1);
#pragma unroll
        for (int n = 0; n < P::NQ; n++) {
            const int q0 = row0 + (n * P::W + (n % 2 ? P::W - 1 - w : w)) * 16;
#pragma unroll 1
            for (int key = 0; key < P::KEYS; key += 16)
                if (q0 < s.rows && any_seen(q0, 16, tile * P::KEYS + key, 16, s.window))
                    add_keys<P>(r[n], K + tile % 2 * P::KEYS * RC, V + tile % 2 * P::KEYS * RC, key, chunk0, lane, q0, tile * P::KEYS + key, s);
        }
    }
#pragma unroll
    for (int n = 0; n < P::NQ; n++) write_rows<P::D, RC>(Q, r[n].dq, s.scale, s.scale, (n * P::W + (n % 2 ? P::W - 1 - w : w)) * 16, chunk0, lane);
    __syncthreads();
    store_tile<P::D, RC>(a.dq, Q, s, at, row0, P::ROWS);
}

/* ---- plain: floats; a thread (or `lanes` of them) owns a query row, or in the second kernel a key row ---- */
static __device__ __forceinline__ float plain_p(float product, float lse,
                                                const AttentionShape &s) { return fast_exp2((product * s.scale - lse) * LOG2E); }

template <int DM> static __global__ void __launch_bounds__(PLAIN_THREADS, 2) attend_grad_queries_plain(GradArgs a, const int32_t *n_seq,
                                                                                                       AttentionShape s)
{
    mdr_begin();
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    at.block = s.blocks - 1 - at.block;
    MDR_SHARED(float, K);
    const int padded = DM * s.lanes;
    float *V = K + s.tile * padded;
    const PlainRow r = plain_row(s, at);
    const float lse = row_lse(a, s, at, r.row, r.head);
    float q[DM], dy[DM], dq[DM], product = 0.0f;
    plain_load<DM>(dq, a.y, s, at, r);
    plain_load<DM>(dy, a.dy, s, at, r);
    plain_load<DM>(q, a.q, s, at, r);
#pragma unroll
    for (int i = 0; i < DM; i++) {
        product += dq[i] * dy[i];
        dq[i] = 0.0f;
    }
    const float d = row_stat(a, s, at, r.row, r.head, lse, lanes_sum(product, s.lanes)).y;
    for (int tile = s.window && r.first > s.window ? (r.first - s.window) / s.tile * s.tile : 0; tile <= r.last; tile += s.tile) {
        __syncthreads();
        plain_tile(K, padded, a.k, s, at, tile);
        plain_tile(V, padded, a.v, s, at, tile);
        __syncthreads();
        for (int j = 0; j < s.tile && tile + j <= r.warp_last && tile + j < s.rows; j++) {
            if (!any_seen(r.warp_first, r.warp_last - r.warp_first + 1, tile + j, 1, s.window)) continue;
            const float p = plain_p(plain_dot<DM>(q, K + j * padded, s.lanes, r.lane), lse, s), dp = plain_dot<DM>(dy, V + j * padded, s.lanes,
                r.lane);
            if (seen(r.row, tile + j, s.window)) plain_add<DM>(dq, p * (dp - d), K + j * padded, s.lanes, r.lane);
        }
    }
    plain_store<DM>(a.dq, dq, s.scale, s, at, r);
}

template <int DM> static __global__ void __launch_bounds__(PLAIN_THREADS, 2) attend_grad_keys_plain(GradArgs a, const int32_t *n_seq,
                                                                                                    AttentionShape s)
{
    mdr_begin();
    Spot at;
    if (!find_spot(s, n_seq, &at)) return;
    MDR_SHARED(float, Q);
    const int padded = DM * s.lanes;
    float *DY = Q + s.tile * padded;
    float2 *stat = (float2 *)(DY + s.tile * padded);                  /* lse and D of the tile's rows */
    const PlainRow r = plain_row(s, at);
    float k[DM], v[DM], dk[DM] = {}, dv[DM] = {};
    plain_load<DM>(k, a.k, s, at, r);
    plain_load<DM>(v, a.v, s, at, r);
    const int last = s.window && r.last + s.window < s.rows - 1 ? r.last + s.window : s.rows - 1;
    for (int tile = r.first / s.tile * s.tile; tile <= last; tile += s.tile) {
        __syncthreads();
        plain_tile(Q, padded, a.q, s, at, tile);
        plain_tile(DY, padded, a.dy, s, at, tile);
        for (int j = (int)threadIdx.x / s.lanes; j < s.tile; j += PLAIN_THREADS / s.lanes) {
            const PlainRow row = {tile + j, r.head, r.lane, 0, 0, 0, 0};
            float product = 0.0f;
            for (int c = r.lane; c < s.d && row.row < s.rows; c += s.lanes)
                product += arg_get(a.y, arg_row(a.y, at.member, at.seq, row.row) + r.head * s.d + c) * arg_get(a.dy, arg_row(a.dy, at.member, at.seq,
                    row.row) + r.head * s.d + c);
            const float lse = row_lse(a, s, at, row.row, r.head);
            stat[j] = make_float2(lse, row_stat(a, s, at, row.row, r.head, lse, lanes_sum(product, s.lanes)).y);
        }
        __syncthreads();
        for (int j = 0; j < s.tile && tile + j <= last; j++) {
            if (!any_seen(tile + j, 1, r.warp_first, r.warp_last - r.warp_first + 1, s.window)) continue;
            const float p = plain_p(plain_dot<DM>(k, Q + j * padded, s.lanes, r.lane), stat[j].x, s), dp = plain_dot<DM>(v, DY + j * padded, s.lanes,
                r.lane);
            if (!seen(tile + j, r.row, s.window)) continue;
            plain_add<DM>(dv, p, DY + j * padded, s.lanes, r.lane);
            plain_add<DM>(dk, p * (dp - stat[j].y), Q + j * padded, s.lanes, r.lane);
        }
    }
    plain_store<DM>(a.dk, dk, s.scale, s, at, r);
    plain_store<DM>(a.dv, dv, 1.0f, s, at, r);
}

/* ---- host ---- */
template <class P> static void enqueue_keys(const Call *c, const GradArgs &a, AttentionShape s)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::G);
    s.blocks = (int32_t)mdr_ceil_div(s.rows, P::TILE);
    MDR_ALLOW_SHARED(attend_grad_keys<P>, P::BYTES);
    dim3 grid = attention_grid(c, s);
    grid.y = P::SPLIT ? 2 : 1;
    MDR_LAUNCH((attend_grad_keys<P>), grid, P::THREADS, P::BYTES, c->stream, a, c->n_seq, s);
}
template <class P> static void enqueue_queries(const Call *c, const GradArgs &a, AttentionShape s)
{
    s.groups = (int32_t)mdr_ceil_div(s.heads, P::HEADS);
    s.blocks = (int32_t)mdr_ceil_div(s.rows, P::ROWS);
    MDR_ALLOW_SHARED(attend_grad_queries<P>, P::BYTES);
    MDR_LAUNCH((attend_grad_queries<P>), attention_grid(c, s), P::THREADS, P::BYTES, c->stream, a, c->n_seq, s);
}
template <int D, int G> static void enqueue_two(const Call *c, const GradArgs &a, const AttentionShape &s)
{
    if (a.dk.data || a.dv.data) enqueue_keys<KeysPlan<D, G>>(c, a, s);
    if (a.dq.data) enqueue_queries<QueriesPlan<D>>(c, a, s);
}
template <bool TURNED> static void enqueue_8(const Call *c, const GradArgs &a, const AttentionShape &s, const float4 *table)
{
    if (s.rows <= 128) enqueue_short<ShortPlan<TURNED>>(c, a, s, table);
    else if (s.rows <= 256) enqueue_long<LongPlan<2, TURNED>>(c, a, s, table);
    else if (s.rows <= 512) enqueue_long<LongPlan<4, TURNED>>(c, a, s, table);
    else if (s.rows <= 1024) enqueue_long<LongPlan<8, TURNED>>(c, a, s, table);
    else enqueue_long<LongPlan<16, TURNED>>(c, a, s, table);
}
static void enqueue_narrow(const Call *c, const GradArgs &a, const AttentionShape &s)
{
    if (s.rows <= HEAD_ROWS) enqueue_8<false>(c, a, s, NULL);
    else enqueue_two<8, 4>(c, a, s);
}
template <int DM> static void enqueue_plain(const Call *c, const GradArgs &a, const AttentionShape &of)
{
    AttentionShape s = of;
    plain_shape(&s, DM);
    const size_t bytes = plain_bytes(s, DM);
    MDR_ALLOW_SHARED(attend_grad_keys_plain<DM>, bytes);
    MDR_ALLOW_SHARED(attend_grad_queries_plain<DM>, bytes);
    if (a.dk.data || a.dv.data) MDR_LAUNCH((attend_grad_keys_plain<DM>), attention_grid(c, s), PLAIN_THREADS, bytes, c->stream, a, c->n_seq, s);
    if (a.dq.data) MDR_LAUNCH((attend_grad_queries_plain<DM>), attention_grid(c, s), PLAIN_THREADS, bytes, c->stream, a, c->n_seq, s);
}

/* Can every tensor be read and written as bf16? Clears s->vectors where not 16 bytes at a time. */
static bool all_bf16(const GradArgs &a, AttentionShape *s)
{
    const Arg *tensors[] = {&a.q, &a.k, &a.v, &a.y, &a.dy, &a.dq, &a.dk, &a.dv};
    bool half = true;
    for (const Arg *t : tensors) half = is_bf16(*t, s) && half;
    return half;
}
static GradArgs grad_args(const Call *c)
{
    return GradArgs{c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5], c->in[6], c->out[0], c->out[1], c->out[2]};
}

static void run_attention_grad(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    AttentionShape s = attention_shape(c);
    const GradArgs a = grad_args(c);
    const bool half = all_bf16(a, &s);
    typedef void Enqueue(const Call *, const GradArgs &, const AttentionShape &);
    static const struct { int32_t most; Enqueue *to; }
        products[] = {{8, enqueue_narrow}, {16, enqueue_two<16, 2>}, {32, enqueue_two<32, 1>}, {64, enqueue_two<64, 1>}, {128, enqueue_two<128, 1>}, {0, NULL}},
        plain[] = {{8, enqueue_plain<8>}, {16, enqueue_plain<16>}, {1024, enqueue_plain<32>}, {0, NULL}};
    for (int i = 0; half && products[i].to; i++)
        if (s.d <= products[i].most) return products[i].to(c, a, s);
    for (int i = 0; plain[i].to; i++)
        if (s.d <= plain[i].most) return plain[i].to(c, a, s);
}
static bool applies(const Node *n) { return n->in_type[0].shape.d[1] / ((const AttentionAttr *)n->attr)->n_heads <= 1024; }

/* ---- with the rotation inside; what is not bf16 is rounded as it comes ---- */
static int32_t angle_count(const Node *n) { return (int32_t)mdr_ceil_div(n->in_type[0].shape.d[0], 32) * 128; }
static int64_t angle_floats(const Node *n) { return 2 * (int64_t)angle_count(n); }
static void run_angles(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    const int32_t count = angle_count(c->node);
    MDR_LAUNCH(make_angles, mdr_grid(mdr_ceil_div(count, 128), 1, 1), 128, 0, c->stream, (float2 *)c->out[0].data, count,
               log(((const RopeAttentionAttr *)c->node->attr)->base));
}
static void run_turned(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    AttentionShape s = attention_shape(c);
    const GradArgs a = grad_args(c);
    s.vectors = all_bf16(a, &s) && s.vectors;
    enqueue_8<true>(c, a, s, (const float4 *)c->prep.data);
}

extern "C" const CudaRow mdr_cuda_rows_attention_grad[] = {
    {"attention_grad", {run_attention_grad, NULL, NULL, {}}, applies, 1u << 4 | 1u << 6, 0},
    {"rope_attention_grad", {run_turned, NULL, NULL, {run_angles, -1, angle_floats, NULL}}, turned_applies, 1u << 4 | 1u << 6, 0},
    {}};
