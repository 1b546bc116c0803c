/* noisy-in-context-recall: in-context-recall with pairs of noise symbols in between (Poli et al. 2024). The law
 * stands in recall.c. */
#include "task/internal.h"
#include "task/recall.gen.h"

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
    {.name = "noisy-in-context-recall", .help = "recall the value of a key seen before, with noise in between", .params = params,
     .backbone = "language-model", .check = mdr_recall_check, .rows = recall_rows, .work = recall_work,
     .generate = recall_generate, .on_device = DRAW_RECALL, .oracle = mdr_recall_oracle, .levels = mdr_recall_levels,
     .token_text = mdr_recall_text},
    {.name = NULL},
};
