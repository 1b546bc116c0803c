/* task: generators of token sequences with targets, one file a task (src/task/NAME.c defines
 * `const TaskDef mdr_tasks_NAME[]`, ended by name == NULL). Exactly MAD's six tasks (Poli et al. 2024, section 3 and appendix);
 * where the released code differs from the paper the parameter `fuzzy_in_loop` or the protocol says so.
 * A generator writes ONE example and draws from the Rng it is given: example i of a split is a function of
 * (task, parameters, split, seed, i) alone. It knows nothing of batches, models or scores. */
#ifndef MDR_TASK_H
#define MDR_TASK_H
#include "base/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All tasks share one flat set of keys (mad-lab's names); each task uses those in its own table. */
typedef struct TaskParams {
    int32_t vocab_size, seq_len, num_train_examples, num_test_examples;
    int32_t noise_vocab_size, num_tokens_to_copy, k_motif_size, v_motif_size;
    int32_t multi_query, fuzzy_in_loop;   /* fuzzy_in_loop 0: the probe's position may fall after the loop's end (mad-lab, paper) */
    double frac_noise;
} TaskParams;

enum { TASK_MAX_VOCAB = 65536, TASK_MAX_LENGTH = 65536, TASK_MAX_MOTIF = 8 };   /* bounds of any task's values           */

typedef enum Split { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST, SPLIT_COUNT } Split;   /* valid has test's form, its own stream */
enum { MDR_IGNORE = -100 };               /* an ignored target                                                           */

/* Chance levels of the best constant guess, in test form: plain = the largest class share; macro = 1 / classes wanted.
 * Ceilings: the best possible score (1 unless some targets cannot be known: fuzzy recall's never-shown probes,
 * memorization's keys that a training set of this size never showed). */
typedef struct TaskLevels { double chance, chance_macro, ceiling, ceiling_macro; } TaskLevels;

/* The generators, each the text of NAME.gen.h on the CPU and on a GPU (draw.cu). */
typedef enum DrawKind { DRAW_COMPRESSION, DRAW_FUZZY_RECALL, DRAW_MEMORIZATION, DRAW_RECALL, DRAW_SELECTIVE_COPYING } DrawKind;

typedef struct TaskDef {
    const char *name, *help;
    const Param *params;                  /* rows of TaskParams this task has, with ITS defaults (MAD.md section 2)      */
    const char *backbone;                 /* "language-model" or "autoencoder": what the task asks for                   */
    Err *(*check)(const TaskParams *p);   /* impossible combinations (bounds of one value are in params)                 */
    int32_t (*rows)(const TaskParams *p); /* length of inputs and targets (recall multi-query: seq_len - 1)              */
    /* ctx: what setup made (memorization's map), else NULL. tokens[rows], targets[rows] (class or MDR_IGNORE). */
    void *(*setup)(const TaskParams *p, uint64_t seed);           /* NULL: none; freed with mdr_free                    */
    int64_t (*ctx_bytes)(const TaskParams *p);                    /* NULL without setup; for copies of ctx               */
    int64_t (*work)(const TaskParams *p);                         /* generate's working memory in int32_t; NULL: none    */
    void (*generate)(const TaskParams *p, const void *ctx, Split split, Rng *r, int32_t *work, int32_t *tokens, int32_t *targets);
    DrawKind on_device;                                           /* the same text there                                 */
    /* The best answer that knows the rules (and, for memorization, the training set), read off the tokens: answer[t] where
     * targets[t] is wanted, or -1 where it cannot be known. It must not look at targets' values. */
    void (*oracle)(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets, int32_t *answer);
    void (*levels)(const TaskParams *p, TaskLevels *l);           /* computed from the law, not by drawing              */
    /* One line for a person: what token t is ("k3", "v7", "copy", "." ...). */
    void (*token_text)(const TaskParams *p, int32_t token, char buf[16]);
} TaskDef;

MDR_API const TaskDef *mdr_task_at(int i);               /* NULL past the end; sorted by name                            */
MDR_API const TaskDef *mdr_task_find(const char *name);
MDR_API void mdr_task_defaults(const TaskDef *t, TaskParams *p);
MDR_API Err *mdr_task_check(const TaskDef *t, const TaskParams *p);

/* A data set: one split of a setting. Streams: seed of the stream = hash(task name, canonical parameters but the two numbers of
 * examples, split, seed); example i has stream number i. Immutable after opening; safe to draw from many threads. */
typedef struct Dataset Dataset;
MDR_API Err *mdr_task_open(const TaskDef *t, const TaskParams *p, Split split, uint64_t seed, Dataset **d);
MDR_API void mdr_task_close(Dataset *d);
MDR_API int32_t mdr_task_rows(const Dataset *d);
MDR_API int64_t mdr_task_size(const Dataset *d);         /* number of examples of the split                              */
MDR_API void mdr_task_example(const Dataset *d, int64_t i, int32_t *tokens, int32_t *targets);
MDR_API void mdr_task_text(const TaskDef *t, const TaskParams *p, Text *out);   /* canonical "key=value ..." of all its parameters */
#ifdef __cplusplus
}
#endif
#include "task/draw.h"                    /* batches drawn on a GPU                                                      */
#endif
