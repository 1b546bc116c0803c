/* The generator of selective_copying.c, which holds its law; for both C and CUDA (base/both.h). */
#ifndef MDR_SELECTIVE_COPYING_GEN_H
#define MDR_SELECTIVE_COPYING_GEN_H
#include "base/rng.h"
#include "task/task.h"

MDR_BOTH void selective_copying_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work,
                                         int32_t *tokens, int32_t *targets) {
    (void)ctx, (void)split, (void)work;
    int32_t copy = p->num_tokens_to_copy, blank = p->vocab_size - 2, marker = p->seq_len - copy - 1;
    /* the gaps are counted where ignored targets go afterwards */
    int32_t *gap = targets, *out = targets + marker + 1;
    for (int32_t i = 0; i < copy; i++) {
        gap[i] = 0;
        out[i] = (int32_t)rng_below(r, (uint32_t)blank);
    }
    for (int32_t i = 0; i < marker - copy; i++) gap[rng_below(r, (uint32_t)copy)]++;
    int32_t t = 0;
    for (int32_t i = 0; i < copy; i++) {
        for (int32_t j = 0; j < gap[i]; j++) tokens[t++] = blank;
        tokens[t++] = out[i];
    }
    tokens[marker] = p->vocab_size - 1;
    for (t = 0; t <= marker; t++) targets[t] = MDR_IGNORE;
    for (t = marker + 1; t < p->seq_len; t++) tokens[t] = blank;
}
#endif
