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
#include "task/internal.h"
#include <string.h>

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

FuzzyLaw mdr_fuzzy_law(const TaskParams *p) {
    bool multi = p->multi_query != 0;
    int32_t pad = p->vocab_size - (multi ? 1 : 2);   /* everything below the pad is usable */
    return (FuzzyLaw){pad / 2, pad - pad / 2, pad, multi ? -1 : p->vocab_size - 1, p->k_motif_size, p->v_motif_size,
                      p->seq_len, multi, p->fuzzy_in_loop != 0};
}

int32_t mdr_fuzzy_range(const FuzzyLaw *f, int32_t probe) {
    int32_t inside = f->length - probe - 2 * (f->key_motif + f->value_motif) + 1;
    return f->in_loop ? (inside > 1 ? inside : 1) : f->length - 2 * probe;
}

static Err *check(const TaskParams *p) {
    int32_t motifs = p->k_motif_size + p->v_motif_size;
    if (p->seq_len <= 2 * motifs)
        return MDR_ERR_USER("seq_len %d is too short for k_motif_size %d and v_motif_size %d: it must be over %d",
                            p->seq_len, p->k_motif_size, p->v_motif_size, 2 * motifs);
    FuzzyLaw f = mdr_fuzzy_law(p);
    int32_t usable = 2 * p->k_motif_size > 2 * p->v_motif_size - 1 ? 2 * p->k_motif_size : 2 * p->v_motif_size - 1;
    if (f.keys < f.key_motif || f.values < f.value_motif)
        return MDR_ERR_USER("vocab_size %d is too small for k_motif_size %d and v_motif_size %d, whose symbols do not "
                            "repeat "
                            "within a motif: it must be at least %d",
                            p->vocab_size, p->k_motif_size, p->v_motif_size, usable + p->vocab_size - f.pad);
    return NULL;
}

static int32_t rows(const TaskParams *p) { return p->seq_len; }

static int32_t draw_length(Rng *r, int32_t longest) { return 1 + (int32_t)mdr_rng_below(r, (uint32_t)longest); }

/* n of the symbols base .. base + symbols - 1, in order, without repetition: the j-th draw is a rank among those left
 * over. */
static void draw_motif(Rng *r, int32_t base, int32_t symbols, int32_t n, int32_t *out) {
    int32_t used[TASK_MAX_MOTIF];
    for (int32_t j = 0; j < n; j++) {
        int32_t v = (int32_t)mdr_rng_below(r, (uint32_t)(symbols - j)), at = 0;
        while (at < j && used[at] <= v) at++, v++;
        memmove(used + at + 1, used + at, (size_t)(j - at) * sizeof *used);
        used[at] = v;
        out[j] = base + v;
    }
}

typedef struct Pair { int32_t key[TASK_MAX_MOTIF], value[TASK_MAX_MOTIF], key_len, value_len; } Pair;

/* The sequence under construction; wanted[i]: symbol i if it is an answer, else MDR_IGNORE. */
typedef struct Body { int32_t *symbol, *wanted, n; ShownTable shown; } Body;

static void add_motif(Body *b, const int32_t *motif, int32_t n, bool wanted) {
    memcpy(b->symbol + b->n, motif, (size_t)n * sizeof *motif);
    for (int32_t i = 0; i < n; i++) b->wanted[b->n + i] = wanted ? motif[i] : MDR_IGNORE;
    b->n += n;
}

static void add_first(Body *b, Shown *s, const Pair *p) {
    *s = (Shown){b->n + 1, p->key_len, p->value_len};
    add_motif(b, p->key, p->key_len, false);
    add_motif(b, p->value, p->value_len, false);
}

/* A key by chance: known ones keep their value, the probe has its own, others draw one. */
static void add_pair(const FuzzyLaw *f, Body *b, Rng *r, const Pair *probe, Pair *pair) {
    draw_motif(r, 0, f->keys, pair->key_len, pair->key);
    Shown *s = mdr_shown_find(&b->shown, b->symbol, pair->key, pair->key_len);
    if (s->at) {
        add_motif(b, pair->key, pair->key_len, false);
        add_motif(b, b->symbol + s->at - 1 + s->key_len, s->value_len, f->multi);
    } else if (pair->key_len == probe->key_len &&
               memcmp(pair->key, probe->key, (size_t)probe->key_len * sizeof *probe->key) == 0) {
        add_first(b, s, probe);
    } else {
        draw_motif(r, f->keys, f->values, pair->value_len, pair->value);
        add_first(b, s, pair);
    }
}

/* Everything but the padding, at most L symbols. */
static void draw_body(const FuzzyLaw *f, bool train, Rng *r, Body *b) {
    Pair probe, pair;
    probe.key_len = train ? draw_length(r, f->key_motif) : f->key_motif;
    probe.value_len = draw_length(r, f->value_motif);
    draw_motif(r, 0, f->keys, probe.key_len, probe.key);
    draw_motif(r, f->keys, f->values, probe.value_len, probe.value);
    int32_t size = probe.key_len + probe.value_len, end = f->length - size - f->key_motif - f->value_motif;
    int32_t place = (int32_t)mdr_rng_below(r, (uint32_t)mdr_fuzzy_range(f, size));
    bool forced = false;
    while (b->n < end) {
        if (!forced && b->n >= place) {
            forced = true;   /* settled now, by force or because chance had shown it */
            Shown *s = mdr_shown_find(&b->shown, b->symbol, probe.key, probe.key_len);
            if (!s->at) {
                add_first(b, s, &probe);
                continue;
            }
        }
        pair.key_len = train ? draw_length(r, f->key_motif) : f->key_motif;
        pair.value_len = draw_length(r, f->value_motif);
        add_pair(f, b, r, &probe, &pair);
    }
    if (!f->multi) add_motif(b, &f->prefix, 1, false);
    add_motif(b, probe.key, probe.key_len, false);
    add_motif(b, probe.value, probe.value_len, true);
}

static int64_t most_pairs(const FuzzyLaw *f) { return f->length / 2 + 1; }   /* the shortest pair has two symbols */

static void generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *tokens, int32_t *targets) {
    (void)ctx;
    FuzzyLaw f = mdr_fuzzy_law(p);
    size_t slots = mdr_shown_slots(INT64_MAX, most_pairs(&f));
    Scratch scratch;
    Body b = {tokens, targets, 0, {NULL, 0}};
    mdr_shown_clear(&b.shown, mdr_scratch_take(&scratch, 3 * slots), slots);
    draw_body(&f, split == SPLIT_TRAIN, r, &b);
    mdr_scratch_drop(&scratch);
    int32_t pad = f.length + 1 - b.n, last = tokens[b.n - 1];
    memmove(tokens + pad, tokens, (size_t)(b.n - 1) * sizeof *tokens);
    for (int32_t t = 0; t < pad; t++) tokens[t] = f.pad;
    if (split == SPLIT_TRAIN) {
        for (int32_t t = 0; t + 1 < f.length; t++) targets[t] = tokens[t + 1];
        targets[f.length - 1] = last;
    } else {
        memmove(targets + pad - 1, targets, (size_t)b.n * sizeof *targets);
        for (int32_t t = 0; t < pad - 1; t++) targets[t] = MDR_IGNORE;
    }
}

static int32_t run_end(const int32_t *tokens, int32_t t, int32_t rows_, int32_t lo, int32_t hi) {
    while (t < rows_ && tokens[t] >= lo && tokens[t] < hi) t++;
    return t;
}

/* Runs of key symbols and runs of value symbols alternate, so pairs can be told apart. An answer stands one place
 * before its symbol. */
static void oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                   int32_t *answer) {
    (void)ctx, (void)targets;
    FuzzyLaw f = mdr_fuzzy_law(p);
    size_t slots = mdr_shown_slots(INT64_MAX, most_pairs(&f));
    Scratch scratch;
    ShownTable shown;
    mdr_shown_clear(&shown, mdr_scratch_take(&scratch, 3 * slots), slots);
    for (int32_t t = 0; t < f.length; t++) answer[t] = -1;
    for (int32_t t = 0; t < f.length;) {
        int32_t value = run_end(tokens, t, f.length, 0, f.keys);
        if (value == t) {   /* pad, or the prefix */
            t++;
            continue;
        }
        int32_t end = run_end(tokens, value, f.length, f.keys, f.pad);
        Shown *s = mdr_shown_find(&shown, tokens, tokens + t, value - t);
        if (s->at)
            for (int32_t i = 0; i < s->value_len; i++) answer[value - 1 + i] = tokens[s->at - 1 + s->key_len + i];
        else *s = (Shown){t + 1, value - t, end - value};
        t = end;
    }
    mdr_scratch_drop(&scratch);
}

static void levels(const TaskParams *p, TaskLevels *l) {
    FuzzyLaw f = mdr_fuzzy_law(p);
    double sequences = 0, unknown = 0;
    if (!f.in_loop) mdr_fuzzy_unshown(&f, &sequences, &unknown);
    *l = (TaskLevels){1.0 / f.values, 1.0 / f.values, 1 - unknown, 1 - unknown};
}

static void token_text(const TaskParams *p, int32_t token, char buf[16]) {
    FuzzyLaw f = mdr_fuzzy_law(p);
    if (token < f.keys) snprintf(buf, 16, "k%d", token);
    else if (token < f.pad) snprintf(buf, 16, "v%d", token - f.keys);
    else snprintf(buf, 16, token == f.pad ? "pad" : "copy");
}

const TaskDef mdr_tasks_fuzzy_recall[] = {
    {"fuzzy-in-context-recall", "recall where keys and values are motifs of several symbols", params, "language-model",
     check, rows, NULL, generate, oracle, levels, token_text},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
