/* selective-copying: repeat the symbols of the sequence in their order, leaving its blanks out (Poli et al. 2024; Gu
 * & Dao 2023).
 *
 * V - 1 is the copy marker, V - 2 the blank. `copy` symbols are drawn from the rest. Each of the B = L - 2 copy - 1
 * blanks picks one of them and goes before it: the gaps are multinomial(B, 1/copy), and the last symbol touches the
 * marker. Then the marker, then `copy` blanks whose targets are the symbols in order. Training and test have one
 * form. Chance: symbols are uniform over V - 2 classes, all wanted: 1 / (V - 2) both ways. The ceiling is 1. */
#include "task/internal.h"
#include "task/selective_copying.gen.h"

static const Param params[] = {
    TASK_INT(vocab_size, 16, 3, TASK_MAX_VOCAB, "symbols, the blank and the copy marker among them"),
    TASK_INT(seq_len, 256, 4, TASK_MAX_LENGTH, "length of the whole, the copy included"),
    TASK_EXAMPLES(12800),
    TASK_INT(num_tokens_to_copy, 16, 1, TASK_MAX_LENGTH / 2, "symbols to copy"),
    TASK_END,
};

static Err *check(const TaskParams *p) {
    if (p->seq_len <= 2 * p->num_tokens_to_copy + 1)
        return MDR_ERR_USER("seq_len %d is too short to copy %d token%s: it must be over %d", p->seq_len,
                            p->num_tokens_to_copy, p->num_tokens_to_copy == 1 ? "" : "s",
                            2 * p->num_tokens_to_copy + 1);
    return NULL;
}

static int32_t rows(const TaskParams *p) { return p->seq_len; }

static void oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                   int32_t *answer) {
    (void)ctx, (void)targets;
    int32_t next = p->seq_len - p->num_tokens_to_copy;
    for (int32_t t = 0; t < p->seq_len; t++) answer[t] = -1;
    for (int32_t t = 0; tokens[t] != p->vocab_size - 1; t++)
        if (tokens[t] < p->vocab_size - 2) answer[next++] = tokens[t];
}

static void levels(const TaskParams *p, TaskLevels *l) {
    *l = (TaskLevels){1.0 / (p->vocab_size - 2), 1.0 / (p->vocab_size - 2), 1, 1};
}

static void token_text(const TaskParams *p, int32_t token, char buf[16]) {
    if (token == p->vocab_size - 1) snprintf(buf, 16, "copy");
    else if (token == p->vocab_size - 2) snprintf(buf, 16, ".");
    else snprintf(buf, 16, "s%d", token);
}

const TaskDef mdr_tasks_selective_copying[] = {
    {.name = "selective-copying", .help = "repeat the symbols of a sequence in order, leaving its blanks out",
     .params = params, .backbone = "language-model", .check = check, .rows = rows,
     .generate = selective_copying_generate, .on_device = DRAW_SELECTIVE_COPYING, .oracle = oracle, .levels = levels,
     .token_text = token_text},
    {.name = NULL},
};
