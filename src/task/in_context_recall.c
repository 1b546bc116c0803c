/* in-context-recall: look up the value of a key seen before in the sequence (Poli et al. 2024). The law stands in
 * recall.c. */
#include "task/internal.h"
#include "task/recall.gen.h"

static const Param params[] = {
    TASK_INT(vocab_size, 16, 2, TASK_MAX_VOCAB, "symbols: half are keys, the rest values"),
    TASK_INT(seq_len, 128, 4, TASK_MAX_LENGTH, "length: half as many pairs of key and value"),
    TASK_EXAMPLES(12800),
    TASK_BOOL(multi_query, 1, "ask for every key seen before, not the last one only"),
    TASK_END,
};

const TaskDef mdr_tasks_in_context_recall[] = {
    {.name = "in-context-recall", .help = "recall the value of a key seen before in the sequence", .params = params,
     .backbone = "language-model", .check = mdr_recall_check, .rows = recall_rows, .work = recall_work,
     .generate = recall_generate, .on_device = DRAW_RECALL, .oracle = mdr_recall_oracle, .levels = mdr_recall_levels,
     .token_text = mdr_recall_text},
    {.name = NULL},
};
