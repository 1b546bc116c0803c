/* attend_row on the GPU: softmax attention of one position over a cache of rows, the newest last (attend_row.c). A block is one head of one
 * sequence; the weights wait in shared memory. Simple rather than fast: recurrent tests are its only users. */
#include "op/cuda.h"
#include <math.h>

enum { THREADS = 128, MAX_ROWS = 50000 };
typedef struct RowShape { int32_t rows, heads, d; float scale; } RowShape;

/* Over the block, the same in every thread. */
template <bool MAX> static __device__ float block_join(float x, float *part)
{
    for (int d = 16; d > 0; d >>= 1) {
        const float other = __shfl_xor_sync(0xffffffffu, x, d);
        x = MAX ? fmaxf(x, other) : x + other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int w = 1; w < THREADS / 32; w++) x = MAX ? fmaxf(x, part[w]) : x + part[w];
    return x;
}

static __global__ void __launch_bounds__(THREADS) attend(Arg q, Arg k, Arg v, Arg t, Arg y, Arg weights, const int32_t *n_seq, RowShape s)
{
    mdr_begin();
    MDR_SHARED(float, part);
    float *p = part + THREADS / 32;
    const int m = (int)blockIdx.z, seq = (int)blockIdx.x / s.heads, head = (int)blockIdx.x % s.heads, thread = (int)threadIdx.x;
    if (seq >= n_seq[m]) return;
    /* rows before it are not filled yet; the newest always is */
    const float want = ceilf((float)(s.rows - 1) - arg_get(t, arg_row(t, m, seq, 0)));
    const int first = !(want > 0.0f) ? 0 : want > (float)(s.rows - 1) ? s.rows - 1 : (int)want;
    const int64_t from_q = arg_row(q, m, seq, 0) + head * s.d;
    float top = -INFINITY, sum = 0.0f;
    for (int j = first + thread; j < s.rows; j += THREADS) {
        const int64_t from_k = arg_row(k, m, seq, j) + head * s.d;
        float x = 0.0f;
        for (int i = 0; i < s.d; i++) x += arg_get(q, from_q + i) * arg_get(k, from_k + i);
        p[j] = x * s.scale;
        top = fmaxf(top, p[j]);
    }
    top = block_join<true>(top, part);
    for (int j = first + thread; j < s.rows; j += THREADS) {
        p[j] = expf(p[j] - top);
        sum += p[j];
    }
    sum = block_join<false>(sum, part);                               /* and every p is there for everybody */
    for (int j = thread; weights.data && j < s.rows; j += THREADS) arg_put(weights, arg_row(weights, m, seq, j) + head,
                                                                           j < first ? 0.0f : p[j] / sum);
    for (int i = thread; y.data && i < s.d; i += THREADS) {
        float x = 0.0f;
        for (int j = first; j < s.rows; j++) x += p[j] * arg_get(v, arg_row(v, m, seq, j) + head * s.d + i);
        arg_put(y, arg_row(y, m, seq, 0) + head * s.d + i, x / sum);
    }
}

static void run_attend_row(const Call *c, int64_t unit0, int64_t unit1)
{
    (void)unit0;
    (void)unit1;
    RowShape s = {};
    s.rows = c->node->in_type[1].shape.d[0];
    s.heads = ((const AttendRowAttr *)c->node->attr)->n_heads;
    s.d = c->node->in_type[1].shape.d[1] / s.heads;
    s.scale = (float)(1.0 / sqrt((double)s.d));
    const size_t bytes = sizeof(float) * (size_t)(s.rows + THREADS / 32);
    MDR_ALLOW_SHARED(attend, bytes);
    MDR_LAUNCH(attend, mdr_grid((int64_t)c->extent.n_seq * s.heads, 1, c->extent.n_member), THREADS, bytes, c->stream, c->in[0], c->in[1], c->in[2],
               c->in[3], c->out[0], c->out[1],
               c->n_seq, s);
}
static bool applies(const Node *n) { return n->in_type[1].shape.d[0] <= MAX_ROWS; }

extern "C" const CudaRow mdr_cuda_rows_attend_row[] = {{"attend_row", {run_attend_row, NULL, NULL, {}}, applies, 1u << 3, 1u << 1}, {}};
