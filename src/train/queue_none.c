/* What a build without CUDA has instead of the kernels of a queue. Never reached: without an Accel mdr_train_queue refuses. */
#include "train/queue.h"
#ifndef MDR_CUDA

void mdr_cuda_queue_begin(void *stream, int32_t n_member, QueueState *state, QueueNext next)
{
    (void)stream, (void)n_member, (void)state, (void)next;
}
void mdr_cuda_queue_before(void *stream, int32_t n_member, int32_t rows, QueueState *state, const double *rate, Hyper *hyper, DrawBatch drawn,
                           DrawBatch taken, int32_t *one, QueueNext next)
{
    (void)stream, (void)n_member, (void)rows, (void)state, (void)rate, (void)hyper, (void)drawn, (void)taken, (void)one, (void)next;
}
void mdr_cuda_queue_after(void *stream, int32_t n_member, QueueState *state, const int32_t *n_seq, const double *loss, int64_t loss_member,
                          const double *norm, const Hyper *hyper)
{
    (void)stream, (void)n_member, (void)state, (void)n_seq, (void)loss, (void)loss_member, (void)norm, (void)hyper;
}
int64_t mdr_cuda_draw_work(int32_t n_member, int32_t batch, int32_t rows) { (void)n_member, (void)batch, (void)rows; return 0; }
void mdr_cuda_draw(void *stream, int32_t n_member, int32_t batch, int32_t rows, const DrawMember *members, const int32_t *first,
                   const int32_t *n_seq, DrawBatch out, int32_t *work)
{
    (void)stream, (void)n_member, (void)batch, (void)rows, (void)members, (void)first, (void)n_seq, (void)out, (void)work;
}
void mdr_cuda_score(void *stream, int32_t n_member, const int32_t *n_seq, int32_t classes, const int32_t *vocab, const double *loss,
                    int64_t loss_stride, const double *counts, int64_t counts_stride, const int64_t *size, SplitScore *score)
{
    (void)stream, (void)n_member, (void)n_seq, (void)classes, (void)vocab, (void)loss, (void)loss_stride, (void)counts, (void)counts_stride;
    (void)size, (void)score;
}
#endif
