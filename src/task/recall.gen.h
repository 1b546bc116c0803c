/* The generator of recall.c, which holds its law; for both C and CUDA (base/both.h). */
#ifndef MDR_RECALL_GEN_H
#define MDR_RECALL_GEN_H
#include "base/rng.h"
#include "task/shown.h"
#include "task/task.h"

typedef struct RecallLaw { int32_t keys, values, noise, pairs; } RecallLaw;

MDR_BOTH RecallLaw recall_law(const TaskParams *p) {
    int32_t usable = p->vocab_size - p->noise_vocab_size - (p->multi_query ? 0 : 1);
    RecallLaw w = {usable / 2, usable - usable / 2, p->noise_vocab_size, p->seq_len / 2};
    return w;
}
MDR_BOTH int32_t recall_rows(const TaskParams *p) { return p->multi_query ? p->seq_len - 1 : p->seq_len; }

/* The table of keys shown, then the places of the distinct ones. */
MDR_BOTH int64_t recall_work(const TaskParams *p) {
    RecallLaw w = recall_law(p);
    return shown_slots(w.keys, w.pairs) + w.pairs;
}

/* All pairs but the last; targets in test form. Returns the number of distinct keys, whose places it lists in
 * first[]. */
MDR_BOTH int32_t recall_pairs(const TaskParams *p, const RecallLaw *w, const ShownTable *shown, int32_t *first, Rng *r,
                              int32_t *tokens, int32_t *targets) {
    int32_t distinct = 0;
    bool noisy = p->frac_noise > 0;
    int32_t spared = noisy ? (int32_t)rng_below(r, (uint32_t)w->pairs) : -1;
    for (int32_t i = 0; i < w->pairs - 1; i++) {
        int32_t at = 2 * i, *key = tokens + at;
        targets[at] = targets[at + 1] = MDR_IGNORE;
        if (noisy && i != spared && rng_unit(r) < p->frac_noise) {
            for (int32_t j = 0; j < 2; j++) key[j] = w->keys + w->values + (int32_t)rng_below(r, (uint32_t)w->noise);
            continue;
        }
        key[0] = (int32_t)rng_below(r, (uint32_t)w->keys);
        Shown *s = shown_find(shown, tokens, key, 1);
        if (s->at) {
            key[1] = tokens[s->at];   /* at - 1 is the key's place, so this is its value */
            if (p->multi_query) targets[at] = key[1];
        } else {
            key[1] = w->keys + (int32_t)rng_below(r, (uint32_t)w->values);
            shown_put(s, at + 1, 1, 1);
            first[distinct++] = at;
        }
    }
    return distinct;
}

MDR_BOTH void recall_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work,
                              int32_t *tokens, int32_t *targets) {
    (void)ctx;
    RecallLaw w = recall_law(p);
    int64_t slots = shown_slots(w.keys, w.pairs);
    int32_t *first = work + slots, distinct = 0;
    while (distinct == 0) {
        ShownTable shown = shown_clear(work, slots);
        distinct = recall_pairs(p, &w, &shown, first, r, tokens, targets);
    }
    int32_t probe = first[rng_below(r, (uint32_t)distinct)], rows = recall_rows(p);
    if (!p->multi_query) {
        tokens[rows - 2] = p->vocab_size - 1;
        targets[rows - 2] = MDR_IGNORE;
    }
    tokens[rows - 1] = tokens[probe];
    targets[rows - 1] = tokens[probe + 1];
    if (split == SPLIT_TRAIN)
        for (int32_t t = 0; t + 1 < rows; t++) targets[t] = tokens[t + 1];
}
#endif
