/* See device_metrics.h. The quotients of a chunk of classes are taken side by side; one thread adds them, in order. */
#include "op/cuda.h"
#include "train/accuracy.h"
#include "train/device_metrics.h"

enum { CHUNK = 128 };

static __global__ void score_batch(const int32_t *n_seq, int32_t classes, const int32_t *vocab, const double *loss, int64_t loss_stride,
                                   const double *counts, int64_t counts_stride, const int64_t *size, SplitScore *score)
{
    mdr_begin();
    __shared__ ClassSums part[CHUNK];
    const int64_t m = blockIdx.z;
    if (n_seq[m] <= 0) return;
    const int32_t n = vocab ? vocab[m] : classes, i = (int32_t)threadIdx.x;
    const double *wanted = counts + m * counts_stride, *predicted = wanted + classes, *hit = predicted + classes;
    ClassSums all = {0, 0, 0, 0};
    for (int32_t from = 0; from < n; from += CHUNK) {
        int32_t c = from + i, here = n - from < CHUNK ? n - from : CHUNK;
        if (c < n) part[i] = accuracy_class(wanted[c], predicted[c], hit[c]);
        __syncthreads();
        for (int32_t k = 0; i == 0 && k < here; k++) accuracy_add(&all, &part[k]);
        __syncthreads();
    }
    if (i == 0) accuracy_score(&score[m], n_seq[m], size[m], loss[m * loss_stride], &all);
}

extern "C" void mdr_cuda_score(void *stream, int32_t n_member, const int32_t *n_seq, int32_t classes, const int32_t *vocab, const double *loss,
                               int64_t loss_stride, const double *counts, int64_t counts_stride, const int64_t *size, SplitScore *score)
{
    MDR_LAUNCH(score_batch, mdr_grid(1, 1, n_member), dim3(CHUNK), 0, stream, n_seq, classes, vocab, loss, loss_stride, counts, counts_stride,
               size, score);
}
