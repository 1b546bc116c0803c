/* The generator of memorization.c, which holds its law and makes its map; for both C and CUDA (base/both.h). */
#ifndef MDR_MEMORIZATION_GEN_H
#define MDR_MEMORIZATION_GEN_H
#include "base/rng.h"
#include "task/task.h"

MDR_BOTH int32_t memorization_keys(const TaskParams *p) { return (p->vocab_size - 1) / 2; }
MDR_BOTH int32_t memorization_key(const TaskParams *p, Rng *r) {
    return (int32_t)rng_below(r, (uint32_t)memorization_keys(p));
}

/* ctx: the value of each key (more follows, which only the oracle reads). */
MDR_BOTH void memorization_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work,
                                    int32_t *tokens, int32_t *targets) {
    (void)split, (void)work;
    const int32_t *value = (const int32_t *)ctx;
    for (int32_t t = 0; t + 1 < p->seq_len; t += 2) {
        int32_t key = memorization_key(p, r);
        tokens[t] = key;
        tokens[t + 1] = p->vocab_size - 1;
        targets[t] = MDR_IGNORE;
        targets[t + 1] = value[key];
    }
}
#endif
