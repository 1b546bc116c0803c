/* What the files of this room share and nobody else sees: rows of parameter tables, scratch memory for one example,
 * the seeds of streams, the table of motifs shown so far in a sequence, and the law of the recall tasks built of
 * single symbols. */
#ifndef MDR_TASK_INTERNAL_H
#define MDR_TASK_INTERNAL_H
#include "task/task.h"

/* ---- rows of parameter tables ---- */
#define TASK_INT(field, def, lo, hi, help) {#field, MDR_INT, offsetof(TaskParams, field), def, lo, hi, NULL, help}
#define TASK_BOOL(field, def, help) {#field, MDR_BOOL, offsetof(TaskParams, field), def, 0, 1, NULL, help}
#define TASK_REAL(field, def, lo, hi, help) {#field, MDR_REAL, offsetof(TaskParams, field), def, lo, hi, NULL, help}
#define TASK_END {NULL, MDR_INT, 0, 0, 0, 0, NULL, NULL}
#define TASK_EXAMPLES(train) \
    TASK_INT(num_train_examples, train, 1, 1e8, "sequences to train on"), \
    TASK_INT(num_test_examples, 1280, 1, 1e8, "sequences to test on, and as many to validate on")
enum { TASK_MAX_VOCAB = 65536, TASK_MAX_LENGTH = 65536, TASK_MAX_MOTIF = 8 };

/* ---- scratch: on the caller's stack while small, so that drawing needs no lock and no allocation ---- */
typedef struct Scratch { int32_t fixed[4096]; int32_t *far; } Scratch;
int32_t *mdr_scratch_take(Scratch *s, size_t n);   /* not cleared; once per Scratch */
void mdr_scratch_drop(Scratch *s);

/* ---- streams (dataset.c) ---- */
/* hash(name, parameters but the two numbers of examples, what, seed); what: "train", "valid", "test", or another
 * purpose. */
uint64_t mdr_task_stream(const TaskDef *t, const TaskParams *p, const char *what, uint64_t seed);
const char *mdr_task_split_name(Split s);

/* ---- motifs shown so far: open addressing on the symbols, which stay in the sequence itself ---- */
/* at: 1 + index of the key in the sequence; 0 = empty slot */
typedef struct Shown { int32_t at, key_len, value_len; } Shown;
typedef struct ShownTable { Shown *slot; uint32_t mask; } ShownTable;
size_t mdr_shown_slots(int64_t keys, int64_t pairs);   /* a power of two that keeps probing short */
void mdr_shown_clear(ShownTable *t, void *memory, size_t slots);
/* The slot of this key, or the empty slot where it belongs. */
Shown *mdr_shown_find(const ShownTable *t, const int32_t *sequence, const int32_t *key, int32_t key_len);

/* ---- recall of single symbols (recall.c): in-context-recall, noisy-in-context-recall ---- */
Err *mdr_recall_check(const TaskParams *p);
int32_t mdr_recall_rows(const TaskParams *p);
void mdr_recall_generate(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *tokens, int32_t *targets);
void mdr_recall_oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                       int32_t *answer);
void mdr_recall_levels(const TaskParams *p, TaskLevels *l);
void mdr_recall_text(const TaskParams *p, int32_t token, char buf[16]);

/* ---- recall of motifs (fuzzy_recall.c, its law in fuzzy_law.c) ---- */
typedef struct FuzzyLaw {
    int32_t keys, values, pad, prefix;   /* symbols; prefix -1: none */
    int32_t key_motif, value_motif, length;   /* longest motifs, seq_len */
    bool multi, in_loop;
} FuzzyLaw;
FuzzyLaw mdr_fuzzy_law(const TaskParams *p);
int32_t mdr_fuzzy_range(const FuzzyLaw *f, int32_t probe);   /* the probe's position is drawn from 0 .. range - 1 */
/* Over test sequences: the chance that the probe was never shown, and the share of the wanted targets that this makes
 * unknowable. */
void mdr_fuzzy_unshown(const FuzzyLaw *f, double *sequences, double *targets);
#endif
