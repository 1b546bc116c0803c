/* fuzzy-in-context-recall: recall where keys and values are motifs of several symbols (Poli et al. 2024).
 *
 * Multi-query: V - 1 is the pad; single-query: V - 1 the copy prefix, V - 2 the pad. Of the S others keys use the
 * first S/2, values the rest. A motif is an ordered selection without repetition: its length uniform in 1 .. the
 * longest (keys of valid and test: always the longest), then uniform among the selections of that length. A probe
 * pair is drawn first, of P symbols, and a place. Pairs are added while length < L - P - M, M = key_motif +
 * value_motif: the probe, once the length has passed its place, unless drawn by chance before; else a key drawn with
 * replacement and its value, drawn at first sight and kept. At the end the probe again (after the prefix in single-
 * query form). The whole is padded on the left to L + 1, then shifted by one: tokens and targets have L. Test
 * targets: the values of keys shown before and of the last pair (single-query: of the last pair only). Training: the
 * next token.
 *
 * The place is uniform in [0, L - 2 P) as released (fuzzy_in_loop 0): it may lie past the last length that the loop
 * sees, and the probe then was never shown. By default it is uniform in [0, max(1, L - P - 2 M + 1)): the loop's last
 * length is at least L - P - 2 M, so the probe is always shown.
 *
 * Chance: nothing tells the value symbols apart: 1 / values both ways. Ceiling: 1, or as computed in fuzzy_law.c. */
#include "task/fuzzy_recall.gen.h"
#include "task/internal.h"

static const Param params[] = {
    TASK_INT(vocab_size, 16, 3, TASK_MAX_VOCAB,
             "symbols: the pad; of the others half are for keys, the rest for values"),
    TASK_INT(seq_len, 128, 5, TASK_MAX_LENGTH, "length, padded on the left"),
    TASK_EXAMPLES(12800),
    TASK_BOOL(multi_query, 1, "ask for every key seen before, not the last one only"),
    TASK_INT(k_motif_size, 3, 1, TASK_MAX_MOTIF, "longest key, in symbols"),
    TASK_INT(v_motif_size, 3, 1, TASK_MAX_MOTIF, "longest value, in symbols"),
    TASK_BOOL(fuzzy_in_loop, 1, "the probe is always shown before it is asked for (false: as released)"),
    TASK_END,
};

static Err *check(const TaskParams *p) {
    int32_t motifs = p->k_motif_size + p->v_motif_size;
    if (p->seq_len <= 2 * motifs)
        return MDR_ERR_USER("seq_len %d is too short for k_motif_size %d and v_motif_size %d: it must be over %d",
                            p->seq_len, p->k_motif_size, p->v_motif_size, 2 * motifs);
    FuzzyLaw f = fuzzy_law(p);
    int32_t usable = 2 * p->k_motif_size > 2 * p->v_motif_size - 1 ? 2 * p->k_motif_size : 2 * p->v_motif_size - 1;
    if (f.keys < f.key_motif || f.values < f.value_motif)
        return MDR_ERR_USER("vocab_size %d is too small for k_motif_size %d and v_motif_size %d, whose symbols do not "
                            "repeat "
                            "within a motif: it must be at least %d",
                            p->vocab_size, p->k_motif_size, p->v_motif_size, usable + p->vocab_size - f.pad);
    return NULL;
}

static int32_t rows(const TaskParams *p) { return p->seq_len; }

static int32_t run_end(const int32_t *tokens, int32_t t, int32_t rows_, int32_t lo, int32_t hi) {
    while (t < rows_ && tokens[t] >= lo && tokens[t] < hi) t++;
    return t;
}

/* Runs of key symbols and runs of value symbols alternate, so pairs can be told apart. An answer stands one place
 * before its symbol. */
static void oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                   int32_t *answer) {
    (void)ctx, (void)targets;
    FuzzyLaw f = fuzzy_law(p);
    int64_t slots = fuzzy_slots(&f);
    Scratch scratch;
    ShownTable shown = shown_clear(mdr_scratch_take(&scratch, slots), slots);
    for (int32_t t = 0; t < f.length; t++) answer[t] = -1;
    for (int32_t t = 0; t < f.length;) {
        int32_t value = run_end(tokens, t, f.length, 0, f.keys);
        if (value == t) {   /* pad, or the prefix */
            t++;
            continue;
        }
        int32_t end = run_end(tokens, value, f.length, f.keys, f.pad);
        Shown *s = shown_find(&shown, tokens, tokens + t, value - t);
        if (s->at)
            for (int32_t i = 0; i < (int32_t)s->value_len; i++) answer[value - 1 + i] = tokens[s->at - 1 + s->key_len + i];
        else shown_put(s, t + 1, value - t, end - value);
        t = end;
    }
    mdr_scratch_drop(&scratch);
}

static void levels(const TaskParams *p, TaskLevels *l) {
    FuzzyLaw f = fuzzy_law(p);
    double sequences = 0, unknown = 0;
    if (!f.in_loop) mdr_fuzzy_unshown(&f, &sequences, &unknown);
    *l = (TaskLevels){1.0 / f.values, 1.0 / f.values, 1 - unknown, 1 - unknown};
}

static void token_text(const TaskParams *p, int32_t token, char buf[16]) {
    FuzzyLaw f = fuzzy_law(p);
    if (token < f.keys) snprintf(buf, 16, "k%d", token);
    else if (token < f.pad) snprintf(buf, 16, "v%d", token - f.keys);
    else snprintf(buf, 16, token == f.pad ? "pad" : "copy");
}

const TaskDef mdr_tasks_fuzzy_recall[] = {
    {.name = "fuzzy-in-context-recall", .help = "recall where keys and values are motifs of several symbols",
     .params = params, .backbone = "language-model", .check = check, .rows = rows, .work = fuzzy_work,
     .generate = fuzzy_generate, .on_device = DRAW_FUZZY_RECALL, .oracle = oracle, .levels = levels,
     .token_text = token_text},
    {.name = NULL},
};
