/* compression: carry a whole random sequence through one vector (Poli et al. 2024). The autoencoder around it is the
 * model's.
 *
 * L - 1 symbols drawn from V - 1, then the compression token V - 1. Targets = inputs, in training and in test.
 * Chance: the last target is always V - 1, the others are uniform: a constant guess is right with max(1/L, (L-1)/(L
 * (V-1))); all V classes are wanted, so macro chance is 1/V. Everything can be read off the input: the ceiling is 1. */
#include "task/compression.gen.h"
#include "task/internal.h"

static const Param params[] = {
    TASK_INT(vocab_size, 16, 2, TASK_MAX_VOCAB, "symbols, the compression token among them"),
    TASK_INT(seq_len, 32, 2, TASK_MAX_LENGTH, "length, the compression token at its end"),
    TASK_EXAMPLES(12800),
    TASK_END,
};

static Err *check(const TaskParams *p) { (void)p; return NULL; }   /* the bounds of each value suffice */

static int32_t rows(const TaskParams *p) { return p->seq_len; }

static void oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                   int32_t *answer) {
    (void)ctx, (void)targets;
    for (int32_t t = 0; t < p->seq_len; t++) answer[t] = tokens[t];
}

static void levels(const TaskParams *p, TaskLevels *l) {
    double n = p->seq_len, last = 1 / n, other = (n - 1) / n / (p->vocab_size - 1);
    *l = (TaskLevels){last > other ? last : other, 1.0 / p->vocab_size, 1, 1};
}

static void token_text(const TaskParams *p, int32_t token, char buf[16]) {
    if (token == p->vocab_size - 1) snprintf(buf, 16, "compress");
    else snprintf(buf, 16, "s%d", token);
}

const TaskDef mdr_tasks_compression[] = {
    {.name = "compression", .help = "reproduce a random sequence from one vector", .params = params,
     .backbone = "autoencoder", .check = check, .rows = rows, .generate = compression_generate,
     .on_device = DRAW_COMPRESSION, .oracle = oracle, .levels = levels, .token_text = token_text},
    {.name = NULL},
};
