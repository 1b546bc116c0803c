/* The generator of fuzzy_recall.c, which holds its law; for both C and CUDA (base/both.h). */
#ifndef MDR_FUZZY_RECALL_GEN_H
#define MDR_FUZZY_RECALL_GEN_H
#include "base/rng.h"
#include "task/shown.h"
#include "task/task.h"

typedef struct FuzzyLaw {
    int32_t keys, values, pad, prefix;   /* symbols; prefix -1: none */
    int32_t key_motif, value_motif, length;   /* longest motifs, seq_len */
    bool multi, in_loop;
} FuzzyLaw;

MDR_BOTH FuzzyLaw fuzzy_law(const TaskParams *p) {
    bool multi = p->multi_query != 0;
    int32_t pad = p->vocab_size - (multi ? 1 : 2);   /* everything below the pad is usable */
    FuzzyLaw f = {pad / 2, pad - pad / 2, pad, multi ? -1 : p->vocab_size - 1, p->k_motif_size, p->v_motif_size,
                  p->seq_len, multi, p->fuzzy_in_loop != 0};
    return f;
}

/* The probe's position is drawn from 0 .. range - 1. */
MDR_BOTH int32_t fuzzy_range(const FuzzyLaw *f, int32_t probe) {
    int32_t inside = f->length - probe - 2 * (f->key_motif + f->value_motif) + 1;
    return f->in_loop ? (inside > 1 ? inside : 1) : f->length - 2 * probe;
}

/* The shortest pair has two symbols. */
MDR_BOTH int64_t fuzzy_slots(const FuzzyLaw *f) { return shown_slots(INT64_MAX, f->length / 2); }
MDR_BOTH int64_t fuzzy_work(const TaskParams *p) {
    FuzzyLaw f = fuzzy_law(p);
    return fuzzy_slots(&f);
}

typedef struct FuzzyPair { int32_t key[TASK_MAX_MOTIF], value[TASK_MAX_MOTIF], key_len, value_len; } FuzzyPair;

/* The sequence under construction; wanted[i]: symbol i if it is an answer, else MDR_IGNORE. */
typedef struct FuzzyBody { int32_t *symbol, *wanted, n; ShownTable shown; } FuzzyBody;

/* n of the symbols base .. base + symbols - 1, in order, without repetition: the j-th draw is a rank among those left
 * over. */
MDR_BOTH void fuzzy_motif(Rng *r, int32_t base, int32_t symbols, int32_t n, int32_t *out) {
    int32_t used[TASK_MAX_MOTIF];
    MDR_ROLLED for (int32_t j = 0; j < n; j++) {
        int32_t v = (int32_t)rng_below(r, (uint32_t)(symbols - j)), at = 0;
        MDR_ROLLED while (at < j && used[at] <= v) at++, v++;
        MDR_ROLLED for (int32_t i = j; i > at; i--) used[i] = used[i - 1];
        used[at] = v;
        out[j] = base + v;
    }
}

/* Draws the lengths of a pair; keys of valid and test always have the longest. */
MDR_BOTH void fuzzy_lengths(const FuzzyLaw *f, bool train, Rng *r, FuzzyPair *pair) {
    pair->key_len = train ? 1 + (int32_t)rng_below(r, (uint32_t)f->key_motif) : f->key_motif;
    pair->value_len = 1 + (int32_t)rng_below(r, (uint32_t)f->value_motif);
}

MDR_BOTH void fuzzy_add(FuzzyBody *b, const int32_t *motif, int32_t n, bool wanted) {
    MDR_ROLLED for (int32_t i = 0; i < n; i++) {
        b->symbol[b->n + i] = motif[i];
        b->wanted[b->n + i] = wanted ? motif[i] : MDR_IGNORE;
    }
    b->n += n;
}

MDR_BOTH void fuzzy_add_first(FuzzyBody *b, Shown *s, const FuzzyPair *p) {
    shown_put(s, b->n + 1, p->key_len, p->value_len);
    fuzzy_add(b, p->key, p->key_len, false);
    fuzzy_add(b, p->value, p->value_len, false);
}

/* A key by chance: known ones keep their value, the probe has its own, others draw one. */
MDR_BOTH void fuzzy_add_pair(const FuzzyLaw *f, FuzzyBody *b, Rng *r, const FuzzyPair *probe, FuzzyPair *pair) {
    fuzzy_motif(r, 0, f->keys, pair->key_len, pair->key);
    Shown *s = shown_find(&b->shown, b->symbol, pair->key, pair->key_len);
    if (s->at) {
        fuzzy_add(b, pair->key, pair->key_len, false);
        fuzzy_add(b, b->symbol + s->at - 1 + s->key_len, (int32_t)s->value_len, f->multi);
    } else if (pair->key_len == probe->key_len && same_symbols(pair->key, probe->key, probe->key_len)) {
        fuzzy_add_first(b, s, probe);
    } else {
        fuzzy_motif(r, f->keys, f->values, pair->value_len, pair->value);
        fuzzy_add_first(b, s, pair);
    }
}

/* Everything but the padding, at most L symbols. */
MDR_BOTH void fuzzy_body(const FuzzyLaw *f, bool train, Rng *r, FuzzyBody *b) {
    FuzzyPair probe, pair;
    fuzzy_lengths(f, train, r, &probe);
    fuzzy_motif(r, 0, f->keys, probe.key_len, probe.key);
    fuzzy_motif(r, f->keys, f->values, probe.value_len, probe.value);
    int32_t size = probe.key_len + probe.value_len, end = f->length - size - f->key_motif - f->value_motif;
    int32_t place = (int32_t)rng_below(r, (uint32_t)fuzzy_range(f, size));
    bool forced = false;
    while (b->n < end) {
        if (!forced && b->n >= place) {
            forced = true;   /* settled now, by force or because chance had shown it */
            Shown *s = shown_find(&b->shown, b->symbol, probe.key, probe.key_len);
            if (!s->at) {
                fuzzy_add_first(b, s, &probe);
                continue;
            }
        }
        fuzzy_lengths(f, train, r, &pair);
        fuzzy_add_pair(f, b, r, &probe, &pair);
    }
    if (!f->multi) fuzzy_add(b, &f->prefix, 1, false);
    fuzzy_add(b, probe.key, probe.key_len, false);
    fuzzy_add(b, probe.value, probe.value_len, true);
}

/* n numbers move up by `by` places, which may be fewer than n. */
MDR_BOTH void fuzzy_shift(int32_t *x, int32_t n, int32_t by) {
    for (int32_t i = n - 1; i >= 0; i--) x[i + by] = x[i];
}

MDR_BOTH void fuzzy_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work,
                             int32_t *tokens, int32_t *targets) {
    (void)ctx;
    FuzzyLaw f = fuzzy_law(p);
    FuzzyBody b = {tokens, targets, 0, shown_clear(work, fuzzy_slots(&f))};
    fuzzy_body(&f, split == SPLIT_TRAIN, r, &b);
    int32_t pad = f.length + 1 - b.n, last = tokens[b.n - 1];
    fuzzy_shift(tokens, b.n - 1, pad);
    for (int32_t t = 0; t < pad; t++) tokens[t] = f.pad;
    if (split == SPLIT_TRAIN) {
        for (int32_t t = 0; t + 1 < f.length; t++) targets[t] = tokens[t + 1];
        targets[f.length - 1] = last;
    } else {
        fuzzy_shift(targets, b.n, pad - 1);
        for (int32_t t = 0; t < pad - 1; t++) targets[t] = MDR_IGNORE;
    }
}
#endif
