/* See queue_device.h. One thread a member: these kernels cost a launch, nothing else. */
#include "train/queue_device.h"
#include "op/cuda.h"

static __global__ void before(int32_t n_member, int32_t batch, QueueState *state, const double *rate, Hyper *hyper, int32_t *first, int32_t *n_seq)
{
    mdr_begin();
    int32_t m = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (m >= n_member) return;
    QueueState s = state[m];
    first[m] = 0;
    n_seq[m] = 0;
    if (s.left <= 0 || s.diverged) return;
    int32_t at = s.batch * batch, rest = s.size - at;
    first[m] = at;
    n_seq[m] = rest < batch ? rest : batch;
    if (hyper) {
        hyper[m].lr = rate[(int64_t)s.at * n_member + m];
        hyper[m].step = s.step + 1;
    }
    state[m].batch = s.batch + 1;
    state[m].left = s.left - 1;
    state[m].at = s.at + 1;
    state[m].step = s.step + 1;
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

enum { THREADS = 128 };
static dim3 grid(int32_t n) { return dim3((unsigned)mdr_ceil_div(n, THREADS)); }

extern "C" void mdr_cuda_queue_before(void *stream, int32_t n_member, int32_t batch, QueueState *state, const double *rate, Hyper *hyper,
                                      int32_t *first, int32_t *n_seq)
{
    MDR_LAUNCH(before, grid(n_member), dim3(THREADS), 0, stream, n_member, batch, state, rate, hyper, first, n_seq);
}

extern "C" void mdr_cuda_queue_after(void *stream, int32_t n_member, QueueState *state, const int32_t *n_seq, const double *loss,
                                     int64_t loss_member, const double *norm, const Hyper *hyper)
{
    MDR_LAUNCH(after, grid(n_member), dim3(THREADS), 0, stream, n_member, state, n_seq, loss, loss_member, norm, hyper);
}
