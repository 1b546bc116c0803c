/* Recall of single symbols, as in-context-recall and noisy-in-context-recall have it (Poli et al. 2024).
 *
 * S = V - noise symbols (- 1, the copy prefix, in single-query form). Keys are 0 .. S/2 - 1, values S/2 .. S - 1,
 * then the noise symbols, then the prefix. A sequence is n = L/2 pairs. In all but the last, a key is drawn with
 * replacement; its value is drawn at first sight and kept. One index of 0 .. n - 1 is protected; each other pair
 * becomes two noise symbols with probability frac_noise. The last pair repeats a key drawn from the distinct ones
 * shown. If none was shown (the index n - 1 was protected and all pairs are noise, (2/L) frac_noise^(n-1)) the
 * original crashes; here the sequence is drawn again. Test targets: the value, wanted at its key, of a key seen
 * before (single-query: of the last pair). Training: the next token.
 *
 * Chance: nothing tells values apart, so every class has the share 1 / values, and a constant guess recalls one class
 * of all. */
#include "task/internal.h"

typedef struct Law { int32_t keys, values, noise, pairs; } Law;

static Law law(const TaskParams *p) {
    int32_t usable = p->vocab_size - p->noise_vocab_size - (p->multi_query ? 0 : 1);
    return (Law){usable / 2, usable - usable / 2, p->noise_vocab_size, p->seq_len / 2};
}

Err *mdr_recall_check(const TaskParams *p) {
    if (p->seq_len % 2)
        return MDR_ERR_USER("seq_len %d is odd: pairs of a key and its value fill it, so it must be even", p->seq_len);
    int32_t special = p->noise_vocab_size + (p->multi_query ? 0 : 1);
    char noise[64] = "";
    if (p->noise_vocab_size > 0) snprintf(noise, sizeof noise, ", noise_vocab_size %d", p->noise_vocab_size);
    if (p->vocab_size < special + 2)
        return MDR_ERR_USER("vocab_size %d is too small: a key, a value%s%s need at least %d", p->vocab_size, noise,
                            p->multi_query ? "" : " and the copy prefix", special + 2);
    if (!(p->frac_noise < 1))
        return MDR_ERR_USER("frac_noise 1 makes noise of every pair: it must be under 1");
    if (p->frac_noise > 0 && p->noise_vocab_size == 0)
        return MDR_ERR_USER("frac_noise is over 0 but noise_vocab_size is 0: it must be at least 1");
    return NULL;
}

int32_t mdr_recall_rows(const TaskParams *p) { return p->multi_query ? p->seq_len - 1 : p->seq_len; }

/* All pairs but the last; targets in test form. Returns the number of distinct keys, whose places it lists in
 * first[]. */
static int32_t draw_pairs(const TaskParams *p, const Law *w, const ShownTable *shown, int32_t *first, Rng *r,
                          int32_t *tokens, int32_t *targets) {
    int32_t distinct = 0;
    bool noisy = p->frac_noise > 0;
    int32_t spared = noisy ? (int32_t)mdr_rng_below(r, (uint32_t)w->pairs) : -1;
    for (int32_t i = 0; i < w->pairs - 1; i++) {
        int32_t at = 2 * i, *key = tokens + at;
        targets[at] = targets[at + 1] = MDR_IGNORE;
        if (noisy && i != spared && mdr_rng_unit(r) < p->frac_noise) {
            for (int32_t j = 0; j < 2; j++)
                key[j] = w->keys + w->values + (int32_t)mdr_rng_below(r, (uint32_t)w->noise);
            continue;
        }
        key[0] = (int32_t)mdr_rng_below(r, (uint32_t)w->keys);
        Shown *s = mdr_shown_find(shown, tokens, key, 1);
        if (s->at) {
            key[1] = tokens[s->at];   /* at - 1 is the key's place, so this is its value */
            if (p->multi_query) targets[at] = key[1];
        } else {
            key[1] = w->keys + (int32_t)mdr_rng_below(r, (uint32_t)w->values);
            *s = (Shown){at + 1, 1, 1};
            first[distinct++] = at;
        }
    }
    return distinct;
}

void mdr_recall_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *tokens, int32_t *targets) {
    (void)ctx;
    Law w = law(p);
    size_t slots = mdr_shown_slots(w.keys, w.pairs);
    Scratch scratch;
    int32_t *memory = mdr_scratch_take(&scratch, 3 * slots + (size_t)w.pairs);
    int32_t *first = memory + 3 * slots, distinct = 0;
    ShownTable shown;
    do {
        mdr_shown_clear(&shown, memory, slots);
        distinct = draw_pairs(p, &w, &shown, first, r, tokens, targets);
    } while (distinct == 0);
    int32_t probe = first[mdr_rng_below(r, (uint32_t)distinct)], rows = mdr_recall_rows(p);
    if (!p->multi_query) {
        tokens[rows - 2] = p->vocab_size - 1;
        targets[rows - 2] = MDR_IGNORE;
    }
    tokens[rows - 1] = tokens[probe];
    targets[rows - 1] = tokens[probe + 1];
    if (split == SPLIT_TRAIN)
        for (int32_t t = 0; t + 1 < rows; t++) targets[t] = tokens[t + 1];
    mdr_scratch_drop(&scratch);
}

void mdr_recall_oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                       int32_t *answer) {
    (void)ctx, (void)targets;
    Law w = law(p);
    size_t slots = mdr_shown_slots(w.keys, w.pairs);
    Scratch scratch;
    ShownTable shown;
    mdr_shown_clear(&shown, mdr_scratch_take(&scratch, 3 * slots), slots);
    int32_t rows = mdr_recall_rows(p);
    for (int32_t t = 0; t < rows; t++) {
        answer[t] = -1;
        if (tokens[t] >= w.keys) continue;
        Shown *s = mdr_shown_find(&shown, tokens, tokens + t, 1);
        if (s->at) answer[t] = tokens[s->at];
        else if (t + 1 < rows) *s = (Shown){t + 1, 1, 1};
    }
    mdr_scratch_drop(&scratch);
}

void mdr_recall_levels(const TaskParams *p, TaskLevels *l) {
    Law w = law(p);
    *l = (TaskLevels){1.0 / w.values, 1.0 / w.values, 1, 1};
}

void mdr_recall_text(const TaskParams *p, int32_t token, char buf[16]) {
    Law w = law(p);
    if (token < w.keys) snprintf(buf, 16, "k%d", token);
    else if (token < w.keys + w.values) snprintf(buf, 16, "v%d", token - w.keys);
    else if (token < w.keys + w.values + w.noise) snprintf(buf, 16, "n%d", token - w.keys - w.values);
    else snprintf(buf, 16, "copy");
}
