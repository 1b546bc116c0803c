/* The few kernels that let a recorded step go on without the host: which batch a member takes now, at which rate; what became of
 * its loss. Only enqueue on the stream; all pointers are device memory. */
#ifndef MDR_TRAIN_QUEUE_DEVICE_H
#define MDR_TRAIN_QUEUE_DEVICE_H
#include "op/op.h"
#include "task/draw.h"

#ifdef __cplusplus
extern "C" {
#endif
typedef struct QueueState {               /* one slot's walk through an epoch of training or a split of evaluation        */
    int32_t batch, left;                  /* next batch to be drawn; steps it still makes in this round: 0 rests          */
    int32_t size, at;                     /* examples in the epoch; steps made in this round                              */
    int64_t step;                         /* of the trial, made                                                          */
    double loss, epoch_loss;              /* of the last step; summed over the epoch's steps                              */
    int32_t diverged, pad;                /* a loss (or the gradient's norm, where it clips) was not finite               */
} QueueState;

/* Which batch is to be drawn: first[m] and so many sequences of at most `batch`, 0 for who rests. */
typedef struct QueueNext { int32_t *first, *n_seq; int32_t batch; } QueueNext;
/* Before a round: its first batch. */
void mdr_cuda_queue_begin(void *stream, int32_t n_member, QueueState *state, QueueNext next);
/* A step begins: the drawn batch is taken (one[m]: has it sequences?), the state moves on, next is what to draw meanwhile. rows: of a
 * sequence; rate [round][n_member] and hyper may be NULL. */
void mdr_cuda_queue_before(void *stream, int32_t n_member, int32_t rows, QueueState *state, const double *rate, Hyper *hyper, DrawBatch drawn,
                           DrawBatch taken, int32_t *one, QueueNext next);
/* loss: loss_member doubles between members; norm [n_member] or NULL. A diverged member rests from the next step on. */
void mdr_cuda_queue_after(void *stream, int32_t n_member, QueueState *state, const int32_t *n_seq, const double *loss, int64_t loss_member,
                          const double *norm, const Hyper *hyper);
#ifdef __cplusplus
}
#endif
#endif
