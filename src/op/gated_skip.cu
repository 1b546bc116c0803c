/* gated_skip and its gradient on CUDA, one pass over memory each: y reads three values and writes one, the gradient reads four and
 * writes three; db in chunks of rows, added up by a second stage (cuda_chunks.h). */
#include "op/cuda_chunks.h"
#include "op/cuda_eight.h"
#include "op/cuda_tile.h"

enum { IN_C, IN_U, IN_B, IN_X, IN_DY };
enum { OUT_DC, OUT_DU, OUT_DX, OUT_DB };
enum { Y_ROWS = 4, THREADS = 256 };

/* Rows of all sequences one below the other. SIZE > 0: flat, and b the same for all sequences. */
struct Skip {
    Panel c, u, x, dy, y, dc, du, dx;                      /* y: or dy's, where they are                                             */
    Arg b;
    const int32_t *n_seq;
    int32_t rows, cols;
};
template <int SIZE> static __device__ __forceinline__ void load_row(const Panel &p, int32_t m, int32_t r, int32_t col, float *v)
{
    load<SIZE>(p.a, (SIZE ? m * p.a.member + r * p.a.ld : row_at(p, m, 0, r)) + col, v);
}
template <int SIZE> static __device__ __forceinline__ void store_row(const Panel &p, int32_t m, int32_t r, int32_t col, const float *v)
{
    store<SIZE>(p.a, (SIZE ? m * p.a.member + r * p.a.ld : row_at(p, m, 0, r)) + col, v);
}
template <int SIZE> static __device__ __forceinline__ void load_b(const Skip &a, int32_t m, int32_t r, int32_t col, float *v)
{
    load<SIZE ? 4 : 0>(a.b, m * a.b.member + (SIZE ? 0 : r / a.rows * a.b.seq) + col, v);
}

template <int SIZE> static __global__ __launch_bounds__(THREADS) void skip_y(Skip a)
{
    mdr_begin();
    constexpr int N = COLUMNS<SIZE>;
    const uint32_t wide = (uint32_t)a.cols / N, i = blockIdx.x * blockDim.x + threadIdx.x, piece = i / wide;
    const int32_t m = (int32_t)blockIdx.z, r0 = (int32_t)piece * Y_ROWS, all = a.n_seq[m] * a.rows, col = (int32_t)(i - piece * wide) * N;
    if (r0 >= all) return;
    float b[N], c[Y_ROWS][N], u[Y_ROWS][N], x[Y_ROWS][N];
    load_b<SIZE>(a, m, r0, col, b);
#pragma unroll
    for (int k = 0; k < Y_ROWS; k++) {
        if (r0 + k >= all) break;
        load_row<SIZE>(a.c, m, r0 + k, col, c[k]);
        load_row<SIZE>(a.u, m, r0 + k, col, u[k]);
        load_row<SIZE>(a.x, m, r0 + k, col, x[k]);
    }
#pragma unroll
    for (int k = 0; k < Y_ROWS; k++) {
        if (r0 + k >= all) break;
        if (SIZE == 0) load_b<SIZE>(a, m, r0 + k, col, b);
#pragma unroll
        for (int j = 0; j < N; j++) c[k][j] = fmaf(b[j], u[k][j], c[k][j]) * x[k][j];
        store_row<SIZE>(a.y, m, r0 + k, col, c[k]);
    }
}

/* Block: 32 times N columns, a chunk of rows dealt to its 8 slots by turns. part: [member][chunk][cols]; NULL: nobody wants db. */
template <int SIZE> static __global__ __launch_bounds__(WIDE *SLOTS) void skip_grad(Skip a, Cut k, float *part)
{
    mdr_begin();
    MDR_SHARED(float, shared);
    constexpr int N = COLUMNS<SIZE>;
    const int32_t m = (int32_t)blockIdx.z, c0 = (int32_t)blockIdx.x * WIDE * N, col = c0 + (int32_t)threadIdx.x % WIDE * N;
    uint32_t first, last;
    if (!cut_range(k, a.n_seq, m, blockIdx.y, &first, &last)) return;
    float b[N], db[N];
    zero<N>(db);
    zero<N>(b);
    if (col < a.cols) load_b<SIZE>(a, m, (int32_t)first, col, b);
#pragma unroll 2
    for (int32_t r = (int32_t)first + (int32_t)threadIdx.x / WIDE; r < (int32_t)last; r += SLOTS) {
        float c[N], u[N], x[N], dy[N], g[N];
        if (col >= a.cols) break;
        load_row<SIZE>(a.c, m, r, col, c);
        load_row<SIZE>(a.u, m, r, col, u);
        load_row<SIZE>(a.x, m, r, col, x);
        load_row<SIZE>(a.dy, m, r, col, dy);
        if (SIZE == 0) load_b<SIZE>(a, m, r, col, b);
#pragma unroll
        for (int j = 0; j < N; j++) {
            g[j] = dy[j] * x[j];
            db[j] = fmaf(g[j], u[j], db[j]);
            c[j] = dy[j] * fmaf(b[j], u[j], c[j]);
            u[j] = g[j] * b[j];
        }
        if (a.dc.a.data) store_row<SIZE>(a.dc, m, r, col, g);
        if (a.du.a.data) store_row<SIZE>(a.du, m, r, col, u);
        if (a.dx.a.data) store_row<SIZE>(a.dx, m, r, col, c);
    }
    if (!part) return;
    const int32_t mine = c0 + (int32_t)threadIdx.x;
    const float v = add_slots<SIZE>(shared, db);
    if ((int)threadIdx.x < WIDE * N && mine < a.cols) part[((int64_t)m * k.count + blockIdx.y) * a.cols + mine] = v;
}

/* ---- choosing ---- */
static Skip arguments(const Call *c, bool grad)
{
    const Shape s = c->node->in_type[IN_C].shape;
    const int64_t rows = mdr_rows(s), cols = mdr_cols(s);
    const int32_t n = c->extent.n_seq;
    const Arg none = Arg();
    return Skip{panel(c->in[IN_C], rows, cols, n, true), panel(c->in[IN_U], rows, cols, n, true), panel(c->in[IN_X], rows, cols, n, true),
                panel(grad ? c->in[IN_DY] : none, rows, cols, n, true), panel(grad ? none : c->out[0], rows, cols, n, true),
                panel(grad ? c->out[OUT_DC] : none, rows, cols, n, true), panel(grad ? c->out[OUT_DU] : none, rows, cols, n, true),
                panel(grad ? c->out[OUT_DX] : none, rows, cols, n, true), c->in[IN_B], c->n_seq, (int32_t)rows, (int32_t)cols};
}
static bool plain(const Panel &p, int64_t size) { return !p.a.data || (by_eight(p.a, p.cols, size) && p.flat); }
static int64_t common_size(const Skip &a)
{
    const int64_t size = a.c.a.size;
    const bool fast = (size == 2 || size == 4) && plain(a.c, size) && plain(a.u, size) && plain(a.x, size) && plain(a.dy, size) && plain(a.y, size) &&
                      plain(a.dc, size) && plain(a.du, size) && plain(a.dx, size) && by_eight(a.b, a.cols, 4) && a.b.seq == 0;
    return fast ? size : 0;
}

template <int SIZE> static void launch_y(const Call *c, const Skip &a)
{
    const int64_t threads = a.cols / COLUMNS<SIZE> * mdr_ceil_div((int64_t)a.rows * c->extent.n_seq, Y_ROWS);
    MDR_LAUNCH((skip_y<SIZE>), mdr_grid(mdr_ceil_div(threads, THREADS), 1, c->extent.n_member), THREADS, 0, c->stream, a);
}
static void gated_skip(const Call *c, int64_t, int64_t)
{
    const Skip a = arguments(c, false);
    const int64_t size = common_size(a);
    if (size == 2) launch_y<2>(c, a);
    else if (size == 4) launch_y<4>(c, a);
    else launch_y<0>(c, a);
}

/* Chunks for some 1,000 blocks with a batch alone, of at least 32 rows. */
enum { GRAD_LEAST = 32 };
static int64_t grad_most(const Node *n) { return mdr_ceil_div(1024, mdr_ceil_div(mdr_cols(n->in_type[IN_C].shape), 8 * WIDE)); }
static size_t grad_scratch(const Node *n, Extent e)
{
    const Shape s = n->in_type[IN_C].shape;
    return sizeof(float) * (size_t)(mdr_cols(s) * cut_room(mdr_rows(s), e, GRAD_LEAST, grad_most(n)));
}
template <int SIZE> static void launch_grad(const Call *c, const Skip &a, const Cut &k)
{
    MDR_LAUNCH((skip_grad<SIZE>), mdr_grid(mdr_ceil_div(a.cols, WIDE * COLUMNS<SIZE>), k.count, c->extent.n_member), WIDE * SLOTS,
               WIDE * SLOTS * COLUMNS<SIZE> * sizeof(float), c->stream, a, k, c->out[OUT_DB].data ? (float *)c->scratch : (float *)NULL);
}
static void gated_skip_grad(const Call *c, int64_t, int64_t)
{
    const Skip a = arguments(c, true);
    const bool add = (c->add >> OUT_DB & 1u) != 0;
    const int64_t size = common_size(a);
    const Cut k = cut_rows(a.rows, c->extent.n_seq, add || !c->out[OUT_DB].data, GRAD_LEAST, grad_most(c->node));
    if (size == 2) launch_grad<2>(c, a, k);
    else if (size == 4) launch_grad<4>(c, a, k);
    else launch_grad<0>(c, a, k);
    if (c->out[OUT_DB].data) enqueue_add_chunks(c, c->out[OUT_DB], add, (const float *)c->scratch, k, a.cols, a.cols);
}

extern "C" const CudaRow mdr_cuda_rows_gated_skip[] = {{"gated_skip", {gated_skip, NULL, NULL, {}}, NULL, 0, 0},
                                                       {"gated_skip_grad", {gated_skip_grad, NULL, grad_scratch, {}}, NULL, 0, 0},
                                                       {}};
