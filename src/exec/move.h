/* What a scan moves on an accelerator between the steps of its body (loop_accel.c), enqueued on a cudaStream_t. In move.cu. */
#ifndef MDR_EXEC_MOVE_H
#define MDR_EXEC_MOVE_H
#include "op/op.h"

#ifdef __cplusplus
extern "C" {
#endif
/* rows x cols of every member and of its first min(e.n_seq, n_seq[member]) sequences: to = from, with add to += from, zeros where
 * from->data is NULL. Sizes may differ (float, bf16). n_seq lies in device memory; nothing else of members where it is 0 is touched. */
MDR_API void mdr_cuda_move(void *stream, const int32_t *n_seq, Extent e, bool add, const Arg *to, const Arg *from, int64_t rows, int64_t cols);
/* n words of 4 bytes that the host has now. */
MDR_API void mdr_cuda_write(void *stream, void *to, const void *from, int64_t n);
#ifdef __cplusplus
}
#endif
#endif
