/* The update on an accelerator: not a node but the last thing of a recorded step. Formulas: update.c. n_seq, hyper, norms and all
 * vectors lie in device memory; members with n_seq 0 are not touched. Only enqueues. */
#ifndef MDR_CUDA_UPDATE_H
#define MDR_CUDA_UPDATE_H
#include "op/op.h"

#ifdef __cplusplus
extern "C" {
#endif
/* name: "adamw", "sgd". param, m, v: [n_member][stride]; grad: grad_member floats between members; grad_norm [n_member], or NULL where
 * nobody clips. */
MDR_API void mdr_cuda_update(const char *name, void *stream, int32_t n_member, const int32_t *n_seq, const Hyper *hyper, int64_t stride,
                             float *param, float *m, float *v, const float *grad, int64_t grad_member, const double *grad_norm);
/* Global norms: partial sums of squares by blocks of 4096, added in order. partial: [n_member][stride / 4096 + 1]. */
MDR_API void mdr_cuda_grad_norm(void *stream, int32_t n_member, const int32_t *n_seq, int64_t stride, const float *grad, int64_t grad_member,
                                double *partial, double *norm);
#ifdef __cplusplus
}
#endif
#endif
