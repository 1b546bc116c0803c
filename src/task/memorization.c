/* memorization: learn a fixed map from keys to values that is nowhere in the sequence (Poli et al. 2024).
 *
 * V - 1 is the insert token. Of the other V - 1 symbols the first K = (V-1)/2 are keys, the rest values. A
 * permutation of the values, fixed by task, parameters and seed for all splits, gives each key its own value (if V -
 * 1 is odd one value is never used). A sequence is n = L/2 times (key drawn with replacement, insert); the target at
 * insert is the value. An odd L loses its last place.
 *
 * Chance: keys are uniform, so each of the K values used has the share 1/K, and K classes are wanted: 1/K both ways.
 * Ceiling: a key can be answered if training showed it; of N n independent draws none is it with probability (1 -
 * 1/K)^(N n), the same for every key, so the expected ceiling of both accuracies is 1 - (1 - 1/K)^(N n). (The
 * realised one scatters around it with the training set.) */
#include "task/internal.h"
#include "task/memorization.gen.h"
#include <math.h>

static const Param params[] = {
    TASK_INT(vocab_size, 256, 3, TASK_MAX_VOCAB,
             "symbols: the insert token; of the others half are keys, the rest values"),
    TASK_INT(seq_len, 32, 2, TASK_MAX_LENGTH, "length: half as many keys"),
    TASK_EXAMPLES(256),
    TASK_END,
};

extern const TaskDef mdr_tasks_memorization[];

/* The map is two arrays of K numbers: value[k], then known[k], the same where training shows key k, else -1. Values that
 * no key gets are dropped. */
static int64_t map_bytes(const TaskParams *p) { return 2 * (int64_t)memorization_keys(p) * (int64_t)sizeof(int32_t); }

static Err *check(const TaskParams *p) { (void)p; return NULL; }   /* the bounds of each value suffice */

static int32_t rows(const TaskParams *p) { return p->seq_len / 2 * 2; }

/* Which keys the training set shows is settled by drawing its keys again, until all have been seen: O(K log K) on
 * average. */
static void mark_known(const TaskParams *p, uint64_t stream, const int32_t *value, int32_t *known) {
    int32_t missing = memorization_keys(p);
    for (int32_t k = 0; k < memorization_keys(p); k++) known[k] = -1;
    for (int32_t i = 0; i < p->num_train_examples && missing > 0; i++) {
        Rng r = mdr_rng(stream, (uint64_t)i);
        for (int32_t j = 0; j < p->seq_len / 2; j++) {
            int32_t k = memorization_key(p, &r);
            if (known[k] < 0) missing--;
            known[k] = value[k];
        }
    }
}

static void *setup(const TaskParams *p, uint64_t seed) {
    int32_t keys = memorization_keys(p), values = p->vocab_size - 1 - keys;   /* keys, or one more */
    int32_t *value = mdr_alloc((size_t)map_bytes(p) + sizeof *value);
    for (int32_t i = 0; i < values; i++) value[i] = keys + i;
    Rng r = mdr_rng(mdr_task_stream(mdr_tasks_memorization, p, "map", seed), 0);
    mdr_rng_shuffle(&r, value, values);
    mark_known(p, mdr_task_stream(mdr_tasks_memorization, p, mdr_task_split_name(SPLIT_TRAIN), seed), value,
               value + keys);
    return value;
}

static void oracle(const TaskParams *p, const void *ctx, const int32_t *tokens, const int32_t *targets,
                   int32_t *answer) {
    (void)targets;
    const int32_t *known = (const int32_t *)ctx + memorization_keys(p);
    for (int32_t t = 0; t + 1 < p->seq_len; t += 2) {
        answer[t] = -1;
        answer[t + 1] = known[tokens[t]];
    }
}

static void levels(const TaskParams *p, TaskLevels *l) {
    double keys = memorization_keys(p), draws = (double)p->num_train_examples * (p->seq_len / 2);
    double ceiling = keys > 1 ? -expm1(draws * log1p(-1 / keys)) : 1;
    *l = (TaskLevels){1 / keys, 1 / keys, ceiling, ceiling};
}

static void token_text(const TaskParams *p, int32_t token, char buf[16]) {
    if (token == p->vocab_size - 1) snprintf(buf, 16, "insert");
    else if (token < memorization_keys(p)) snprintf(buf, 16, "k%d", token);
    else snprintf(buf, 16, "v%d", token - memorization_keys(p));
}

const TaskDef mdr_tasks_memorization[] = {
    {.name = "memorization", .help = "learn a fixed map from keys to values", .params = params,
     .backbone = "language-model", .check = check, .rows = rows, .setup = setup, .ctx_bytes = map_bytes,
     .generate = memorization_generate, .on_device = DRAW_MEMORIZATION, .oracle = oracle, .levels = levels,
     .token_text = token_text},
    {.name = NULL},
};
