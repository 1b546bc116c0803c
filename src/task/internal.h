/* What the files of this room share and nobody else sees: rows of parameter tables, scratch memory for one example,
 * the seeds of streams, and what the recall tasks have in common. */
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

/* ---- scratch: on the caller's stack while small, so that drawing needs no lock and no allocation ---- */
typedef struct Scratch { int32_t fixed[4096]; int32_t *far; } Scratch;
int32_t *mdr_scratch_take(Scratch *s, int64_t n);   /* not cleared; once per Scratch */
void mdr_scratch_drop(Scratch *s);

/* ---- streams (dataset.c) ---- */
/* hash(name, parameters but the two numbers of examples, what, seed); what: "train", "valid", "test", or another
 * purpose. */
uint64_t mdr_task_stream(const TaskDef *t, const TaskParams *p, const char *what, uint64_t seed);
const char *mdr_task_split_name(Split s);

/* ---- recall of single symbols (recall.c): in-context-recall, noisy-in-context-recall ---- */
Err *mdr_recall_check(const TaskParams *p);
void mdr_recall_oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                       int32_t *answer);
void mdr_recall_levels(const TaskParams *p, TaskLevels *l);
void mdr_recall_text(const TaskParams *p, int32_t token, char buf[16]);

/* ---- recall of motifs (fuzzy_law.c) ---- */
/* Over test sequences: the chance that the probe was never shown, and the share of the wanted targets that this makes
 * unknowable. */
struct FuzzyLaw;
void mdr_fuzzy_unshown(const struct FuzzyLaw *f, double *sequences, double *targets);
#endif
