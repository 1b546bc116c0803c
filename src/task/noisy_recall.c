/* noisy-in-context-recall: in-context-recall with pairs of noise symbols in between (Poli et al. 2024). The law
 * stands in recall.c. */
#include "task/internal.h"

static const Param params[] = {
    TASK_INT(vocab_size, 32, 2, TASK_MAX_VOCAB, "symbols: the noise's; of the others half are keys, the rest values"),
    TASK_INT(seq_len, 128, 4, TASK_MAX_LENGTH, "length: half as many pairs"),
    TASK_EXAMPLES(12800),
    TASK_BOOL(multi_query, 1, "ask for every key seen before, not the last one only"),
    TASK_INT(noise_vocab_size, 16, 0, TASK_MAX_VOCAB, "symbols of the vocabulary that are noise"),
    TASK_REAL(frac_noise, 0.2, 0, 1, "probability that a pair is noise"),
    TASK_END,
};

const TaskDef mdr_tasks_noisy_recall[] = {
    {"noisy-in-context-recall", "recall the value of a key seen before, with noise in between", params,
     "language-model", mdr_recall_check, mdr_recall_rows, NULL, mdr_recall_generate, mdr_recall_oracle,
     mdr_recall_levels, mdr_recall_text},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
