/* See queue_device.h. But for the copy of a batch one thread a member: these kernels cost a launch, nothing else. */
#include "train/queue_device.h"
#include "op/cuda.h"

static __device__ __forceinline__ void choose(QueueState *s, const QueueNext &next, int32_t m)
{
    const int32_t at = s->batch * next.batch, rest = s->size - at;
    const bool rests = s->left <= 0 || s->diverged;
    next.first[m] = rests ? 0 : at;
    next.n_seq[m] = rests ? 0 : min(rest, next.batch);
    s->batch += !rests;
}
static __global__ void begin(int32_t n_member, QueueState *state, QueueNext next)
{
    mdr_begin();
    const int32_t m = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (m < n_member) choose(state + m, next, m);
}

/* Every block of a member copies; its first one does the rest. */
static __global__ void before(int32_t rows, QueueState *state, const double *rate, Hyper *hyper, DrawBatch drawn, DrawBatch taken, int32_t *one,
                              QueueNext next)
{
    mdr_begin();
    const int32_t m = (int32_t)blockIdx.z, n = state[m].diverged ? 0 : drawn.n_seq[m];
    const int64_t from = (int64_t)m * next.batch * rows, size = (int64_t)n * rows, all = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += all) {
        taken.tokens[from + i] = drawn.tokens[from + i];
        taken.targets[from + i] = drawn.targets[from + i];
    }
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    QueueState *s = state + m;
    taken.n_seq[m] = n;
    taken.inv_count[m] = n > 0 ? drawn.inv_count[m] : 0.0f;
    one[m] = n > 0;
    if (n > 0) {
        if (hyper) {
            hyper[m].lr = rate[(int64_t)s->at * gridDim.z + m];
            hyper[m].step = s->step + 1;
        }
        s->left--;
        s->at++;
        s->step++;
    }
    choose(s, next, m);
}

static __global__ void after(int32_t n_member, QueueState *state, const int32_t *n_seq, const double *loss, int64_t loss_member, const double *norm,
                             const Hyper *hyper)
{
    mdr_begin();
    int32_t m = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (m >= n_member || n_seq[m] == 0) return;
    double x = loss[m * loss_member], g = norm && hyper[m].clip > 0 ? norm[m] : 0.0;
    state[m].loss = x;
    state[m].epoch_loss += x;
    if (x - x != 0.0 || g - g != 0.0) state[m].diverged = 1;          /* infinite or no number                              */
}

enum { THREADS = 128, EACH = 8 };                                 /* numbers that a thread copies                          */
static dim3 grid(int32_t n) { return dim3((unsigned)mdr_ceil_div(n, THREADS)); }

extern "C" void mdr_cuda_queue_begin(void *stream, int32_t n_member, QueueState *state, QueueNext next)
{
    MDR_LAUNCH(begin, grid(n_member), dim3(THREADS), 0, stream, n_member, state, next);
}

extern "C" void mdr_cuda_queue_before(void *stream, int32_t n_member, int32_t rows, QueueState *state, const double *rate, Hyper *hyper,
                                      DrawBatch drawn, DrawBatch taken, int32_t *one, QueueNext next)
{
    const int64_t blocks = mdr_ceil_div((int64_t)next.batch * rows, THREADS * EACH);
    MDR_LAUNCH(before, mdr_grid(blocks, 1, n_member), dim3(THREADS), 0, stream, rows, state, rate, hyper, drawn, taken, one, next);
}

extern "C" void mdr_cuda_queue_after(void *stream, int32_t n_member, QueueState *state, const int32_t *n_seq, const double *loss,
                                     int64_t loss_member, const double *norm, const Hyper *hyper)
{
    MDR_LAUNCH(after, grid(n_member), dim3(THREADS), 0, stream, n_member, state, n_seq, loss, loss_member, norm, hyper);
}
