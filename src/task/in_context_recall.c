/* in-context-recall: look up the value of a key seen before in the sequence (Poli et al. 2024). The law stands in
 * recall.c. */
#include "task/internal.h"

static const Param params[] = {
    TASK_INT(vocab_size, 16, 2, TASK_MAX_VOCAB, "symbols: half are keys, the rest values"),
    TASK_INT(seq_len, 128, 4, TASK_MAX_LENGTH, "length: half as many pairs of key and value"),
    TASK_EXAMPLES(12800),
    TASK_BOOL(multi_query, 1, "ask for every key seen before, not the last one only"),
    TASK_END,
};

const TaskDef mdr_tasks_in_context_recall[] = {
    {"in-context-recall", "recall the value of a key seen before in the sequence", params, "language-model",
     mdr_recall_check, mdr_recall_rows, NULL, mdr_recall_generate, mdr_recall_oracle, mdr_recall_levels,
     mdr_recall_text},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
