/* The generator of compression.c, which holds its law; for both C and CUDA (base/both.h). */
#ifndef MDR_COMPRESSION_GEN_H
#define MDR_COMPRESSION_GEN_H
#include "base/rng.h"
#include "task/task.h"

MDR_BOTH void compression_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work,
                                   int32_t *tokens, int32_t *targets) {
    (void)ctx, (void)split, (void)work;
    for (int32_t t = 0; t + 1 < p->seq_len; t++)
        targets[t] = tokens[t] = (int32_t)rng_below(r, (uint32_t)p->vocab_size - 1);
    targets[p->seq_len - 1] = tokens[p->seq_len - 1] = p->vocab_size - 1;
}
#endif
