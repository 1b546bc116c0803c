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
#include "task/recall.gen.h"

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

void mdr_recall_oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                       int32_t *answer) {
    (void)ctx, (void)targets;
    RecallLaw w = recall_law(p);
    int64_t slots = shown_slots(w.keys, w.pairs);
    Scratch scratch;
    ShownTable shown = shown_clear(mdr_scratch_take(&scratch, slots), slots);
    int32_t rows = recall_rows(p);
    for (int32_t t = 0; t < rows; t++) {
        answer[t] = -1;
        if (tokens[t] >= w.keys) continue;
        Shown *s = shown_find(&shown, tokens, tokens + t, 1);
        if (s->at) answer[t] = tokens[s->at];
        else if (t + 1 < rows) shown_put(s, t + 1, 1, 1);
    }
    mdr_scratch_drop(&scratch);
}

void mdr_recall_levels(const TaskParams *p, TaskLevels *l) {
    RecallLaw w = recall_law(p);
    *l = (TaskLevels){1.0 / w.values, 1.0 / w.values, 1, 1};
}

void mdr_recall_text(const TaskParams *p, int32_t token, char buf[16]) {
    RecallLaw w = recall_law(p);
    if (token < w.keys) snprintf(buf, 16, "k%d", token);
    else if (token < w.keys + w.values) snprintf(buf, 16, "v%d", token - w.keys);
    else if (token < w.keys + w.values + w.noise) snprintf(buf, 16, "n%d", token - w.keys - w.values);
    else snprintf(buf, 16, "copy");
}
