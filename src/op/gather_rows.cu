/* gather_rows and scatter_rows on the GPU (gather_rows.c says what is computed). A sum over equal row numbers is one thread's, in the
 * order of the rows: a block owns a span of row numbers, a slab of columns and a chunk of rows; each of its warps owns every WARPS-th
 * number of the span, lists the rows that have one of its numbers and adds them up in shared memory. */
#include "op/cuda_rows.h"

static constexpr int AT_ONCE = 2, WARPS = ROW_THREADS / 32, SPAN = 64, LIST = 256, ROWS_AT_ONCE = 8, MOST_CHUNKS = 64;

template <typename T, typename Table, int W>
static __global__ void __launch_bounds__(ROW_THREADS) gather_rows(Arg table, Tall ids, Tall y, Spread s)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t count = spread_count(s, m), first = blockIdx.x * AT_ONCE * ROW_THREADS + threadIdx.x;
    Piece<Table, W> p[AT_ONCE];
    uint32_t row[AT_ONCE], piece[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        spread_at(s, first + u * ROW_THREADS, &row[u], &piece[u]);
        const int32_t id = ((const int32_t *)ids.a.data)[tall_at(ids, m, row[u])];
        read(p[u], table, m * table.member + (table.seq ? row[u] / s.rows * table.seq : 0) + id * table.ld + piece[u] * W);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
        if (first + u * ROW_THREADS >= count) break;
        float v[W];
        open(p[u], v);
        write<T, W>(y.a, tall_at(y, m, row[u]) + piece[u] * W, v);
    }
}

/* What block blockIdx.x does: chunk, span and slab, slabs fastest. */
struct Share { uint32_t cols, numbers, spans, slabs; };

/* The warp's part of up to LIST rows from `base` on: place in the list's window << 8 | number in the span. */
static __device__ __forceinline__ uint32_t list_rows(uint32_t *list, const Tall &ids, int64_t m, uint32_t base, uint32_t to, int32_t first)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t n = 0;
    int32_t id[LIST / 32];
#pragma unroll
    for (int i = 0; i < LIST / 32; i++) {
        const uint32_t q = base + 32 * i + lane;
        id[i] = q < to ? ((const int32_t *)ids.a.data)[tall_at(ids, m, q)] - first : -1;
    }
#pragma unroll
    for (int i = 0; i < LIST / 32; i++) {
        const bool mine = id[i] >= 0 && id[i] < SPAN && (uint32_t)id[i] % WARPS == warp;
        const uint32_t all = __ballot_sync(0xffffffffu, mine);
        if (mine) list[n + __popc(all & ((1u << lane) - 1u))] = (32 * i + lane) << 8 | (uint32_t)id[i];
        n += __popc(all);
    }
    __syncwarp();
    return n;
}

static __device__ __forceinline__ void add_to(float *sum, const float (&v)[1]) { *sum += v[0]; }
static __device__ __forceinline__ void add_to(float *sum, const float (&v)[4])
{
    const float4 s = *(const float4 *)sum;
    *(float4 *)sum = make_float4(s.x + v[0], s.y + v[1], s.z + v[2], s.w + v[3]);
}

/* part: [member][chunk][numbers][cols]; NULL: chunks are of different sums, into out itself. */
template <typename T, int W>
static __global__ void __launch_bounds__(ROW_THREADS, 4)
scatter_rows(Tall dy, Tall ids, Cut cut, const int32_t *n_seq, Share share, float *part, Arg out, int32_t add)
{
    mdr_begin();
    MDR_SHARED(float, total);                                         /* [span][32 W], then the warps' lists                */
    const int64_t m = blockIdx.z;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, wide = 32 * W;
    const uint32_t slab = blockIdx.x % share.slabs * wide, span = blockIdx.x / share.slabs % share.spans * SPAN, chunk = blockIdx.x / share.slabs / share.spans;
    const uint32_t here = share.numbers - span < SPAN ? share.numbers - span : SPAN, col = slab + lane * W;
    uint32_t *list = (uint32_t *)(total + here * wide) + warp * LIST, from, to;
    if (!cut_range(cut, n_seq, m, chunk, &from, &to)) return;
    for (uint32_t k = threadIdx.x; k < here * wide; k += ROW_THREADS) total[k] = 0.0f;
    __syncthreads();
    for (uint32_t base = from; base < to; base += LIST) {
        const uint32_t n = list_rows(list, ids, m, base, to, (int32_t)span);
        for (uint32_t i = 0; i < n; i += ROWS_AT_ONCE) {
            Piece<T, W> p[ROWS_AT_ONCE];
            uint32_t entry[ROWS_AT_ONCE];
#pragma unroll
            for (int u = 0; u < ROWS_AT_ONCE; u++) {
                entry[u] = list[i + u < n ? i + u : i];
                if (col < share.cols && i + u < n) read(p[u], dy.a, tall_at(dy, m, base + (entry[u] >> 8)) + col);
            }
#pragma unroll
            for (int u = 0; u < ROWS_AT_ONCE; u++) {
                if (col >= share.cols || i + u >= n) break;
                float v[W];
                open(p[u], v);
                add_to(total + (entry[u] & 255u) * wide + lane * W, v);
            }
        }
        __syncwarp();
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < here * wide; k += ROW_THREADS) {
        const uint32_t number = span + k / wide, c = slab + k % wide;
        if (c >= share.cols) continue;
        const int64_t at = arg_row(out, m, cut.together ? 0 : chunk, number) + c;
        if (part) part[((m * cut.count + chunk) * share.numbers + number) * share.cols + c] = total[k];
        else arg_put(out, at, add ? arg_get(out, at) + total[k] : total[k]);
    }
}

/* ---- choosing ---- */
typedef void GatherFn(Arg table, Tall ids, Tall y, Spread s);
static void run_gather(const Call *c, int64_t, int64_t)
{
    const Arg table = c->in[0], y = c->out[0];
    const int64_t rows = mdr_rows(c->node->out[0].shape), cols = mdr_cols(c->node->out[0].shape);
    const int32_t n = c->extent.n_seq;
    const Kind kind = table.size == 4 && in_pieces(table, 8) ? kind_of(cols, 8, 1, &y) : ANY;
    const Spread s = {c->n_seq, (uint32_t)rows, (uint32_t)(cols / (kind == ANY ? 1 : 8)), false};
    GatherFn *const kernel = kind == ANY ? gather_rows<any_real, any_real, 1> : kind == BF16 ? gather_rows<bf16, float, 8> : gather_rows<float, float, 8>;
    MDR_LAUNCH(kernel, spread_grid(c, s, AT_ONCE), ROW_THREADS, 0, c->stream, table, tall_column(c->in[1], rows, n), tall(y, rows, n), s);
}

/* Chunks so long that their sums, of all numbers, are a small part of what they read; few where many spans work on each. */
static int64_t least_rows(int64_t numbers) { return numbers < 16 ? 256 : numbers < SPAN ? 16 * numbers : 16 * SPAN; }
static int64_t most_chunks(int64_t numbers)
{
    const int64_t spans = mdr_ceil_div(numbers, SPAN);
    return spans < MOST_CHUNKS ? MOST_CHUNKS / spans : 1;
}
typedef void ScatterFn(Tall dy, Tall ids, Cut cut, const int32_t *n_seq, Share share, float *part, Arg out, int32_t add);
static void run_scatter(const Call *c, int64_t, int64_t)
{
    static ScatterFn *const kinds[] = {scatter_rows<any_real, 1>, scatter_rows<bf16, 4>, scatter_rows<float, 4>};
    const Arg dy = c->in[0], out = c->out[0];
    const int64_t rows = mdr_rows(c->node->in_type[0].shape), cols = mdr_cols(c->node->in_type[0].shape), numbers = mdr_rows(c->node->out[0].shape);
    const int32_t n = c->extent.n_seq;
    const Kind kind = kind_of(cols, 4, 1, &dy);
    const int64_t wide = kind == ANY ? 32 : 128, here = numbers < SPAN ? numbers : SPAN;
    const Share share = {(uint32_t)cols, (uint32_t)numbers, (uint32_t)mdr_ceil_div(numbers, SPAN), (uint32_t)mdr_ceil_div(cols, wide)};
    const Cut cut = cut_rows(rows, n, c->add & 1u, least_rows(numbers), most_chunks(numbers));
    float *part = cut.together && cut.count > 1 ? (float *)c->scratch : NULL;
    ScatterFn *const kernel = kinds[kind];
    MDR_LAUNCH(kernel, mdr_grid((int64_t)cut.count * share.spans * share.slabs, 1, c->extent.n_member), ROW_THREADS,
               (here * wide + WARPS * LIST) * sizeof(float), c->stream, tall(dy, rows, n), tall_column(c->in[1], rows, n), cut, c->n_seq, share, part, out,
               (int32_t)(c->add & 1u));
    if (part) enqueue_add_chunks(c, part, cut, numbers * cols, cols);
}
static size_t scatter_scratch(const Node *n, Extent e)
{
    const int64_t rows = mdr_rows(n->in_type[0].shape), numbers = mdr_rows(n->out[0].shape);
    const int64_t chunks = cut_rows(rows, e.n_seq, true, least_rows(numbers), most_chunks(numbers)).count;
    return chunks > 1 ? (size_t)(chunks * e.n_member * mdr_numel(n->out[0].shape)) * sizeof(float) : 0;
}

extern "C" const CudaRow mdr_cuda_rows_gather_rows[] = {
    {"gather_rows", {run_gather, NULL, NULL, {}}, NULL, 0, 0}, {"scatter_rows", {run_scatter, NULL, scatter_scratch, {}}, NULL, 0, 0}, {}};
