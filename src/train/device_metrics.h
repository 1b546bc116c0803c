/* metrics.c on a GPU: the scores of a split grow there batch by batch, with the CPU's bits. Only enqueues; pointers are device
 * memory. */
#ifndef MDR_DEVICE_METRICS_H
#define MDR_DEVICE_METRICS_H
#include "train/train.h"

#ifdef __cplusplus
extern "C" {
#endif
/* One batch of each member with n_seq[m] > 0; the others' scores stay. Member m: mean loss loss[m loss_stride]; counts
 * (wanted, predicted, hit) at counts + m counts_stride, each of `classes` numbers, of which the first vocab[m] (NULL: all) exist; size[m]
 * examples in the split. score [n_member]: zero before a split's first batch. */
void mdr_cuda_score(void *stream, int32_t n_member, const int32_t *n_seq, int32_t classes, const int32_t *vocab, const double *loss,
                    int64_t loss_stride, const double *counts, int64_t counts_stride, const int64_t *size, SplitScore *score);
#ifdef __cplusplus
}
#endif
#endif
