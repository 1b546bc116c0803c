/* Batches drawn on a GPU: the bytes that mdr_task_example gives, from the same text. Members of one launch may differ in task,
 * parameters, split and seed as long as their sequences have the same number of rows. Functions named mdr_cuda_* are there where
 * CUDA was built in; they only enqueue on the stream, and unless said otherwise their pointers are device memory. */
#ifndef MDR_DRAW_H
#define MDR_DRAW_H
#include "task/task.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One member's data for one split. Holds no memory of its own. */
typedef struct DrawMember {
    TaskParams params;
    uint64_t seed;                        /* of the stream                                                               */
    Split split;
    DrawKind generator;
    const void *ctx;                      /* device: a copy of mdr_task_ctx                                              */
    const int32_t *order;                 /* device: number of the example at each place; NULL: its place                */
} DrawMember;

/* On the host. What a data set was set up with and its size; NULL and 0 if nothing. */
MDR_API const void *mdr_task_ctx(const Dataset *d, int64_t *bytes);
MDR_API void mdr_task_draw_member(const Dataset *d, const void *device_ctx, const int32_t *device_order, DrawMember *m);

/* A drawn batch, on the device: tokens, targets [n_member][batch][rows]; inv_count [n_member]: 1 / wanted targets, 0 if there are none;
 * n_seq [n_member]: its sequences. */
typedef struct DrawBatch { int32_t *tokens, *targets; float *inv_count; int32_t *n_seq; } DrawBatch;

/* Bytes of work that mdr_cuda_draw needs for any tasks of so many rows. */
MDR_API int64_t mdr_cuda_draw_work(int32_t n_member, int32_t batch, int32_t rows);
/* Sequence k < n_seq[m] of member m becomes the example at place first[m] + k; sequences from n_seq[m] on are left as they are.
 * out.n_seq[m] becomes n_seq[m]. A member that rests (n_seq[m] 0) may have any bytes in `members`. */
MDR_API void mdr_cuda_draw(void *stream, int32_t n_member, int32_t batch, int32_t rows, const DrawMember *members, const int32_t *first,
                           const int32_t *n_seq, DrawBatch out, int32_t *work);
#ifdef __cplusplus
}
#endif
#endif
