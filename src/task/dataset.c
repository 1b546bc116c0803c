/* Data sets: one split of a setting, drawn example by example. Also the checks and the canonical text that all tasks
 * share.
 *
 * seed of a stream = first 64 bits of SHA-256("NAME key=value ... stream=WHAT seed=N"), keys sorted, the two numbers
 * of examples left out, so that a smaller training set is the beginning of a larger one. Example i = stream number i
 * of Philox. */
#include "task/internal.h"
#include <string.h>

enum { MAX_ROWS = 32 };

struct Dataset {
    const TaskDef *task;
    TaskParams params;
    Split split;
    uint64_t seed;   /* of the stream */
    void *ctx;
    int64_t work;    /* of generate */
    int32_t rows;
};

void mdr_task_defaults(const TaskDef *t, TaskParams *p) {
    memset(p, 0, sizeof *p);   /* what a task does not have is 0 and never read */
    mdr_params_default(t->params, p);
}

/* The parser's own bounds and sentences: the value is written and read back into a copy. */
static Err *check_bounds(const TaskDef *t, const Param *row, const TaskParams *p, const char *what) {
    Text value = {0};
    TaskParams copy = *p;
    mdr_params_text(row, p, &value);
    Err *e = mdr_params_set(t->params, &copy, row->name, mdr_text_str(&value), what);
    mdr_text_free(&value);
    return e;
}

Err *mdr_task_check(const TaskDef *t, const TaskParams *p) {
    Text what = {0};
    Err *e = NULL;
    mdr_text_printf(&what, "task %s", t->name);
    for (const Param *row = t->params; row->name && !e; row++) e = check_bounds(t, row, p, mdr_text_str(&what));
    if (!e) e = mdr_err_wrap(t->check(p), "%s", mdr_text_str(&what));
    mdr_text_free(&what);
    return e;
}

/* Name and parameters by ascending key; the two numbers of examples only if asked for. */
static void write_text(const TaskDef *t, const TaskParams *p, bool counts, Text *out) {
    const Param *sorted[MAX_ROWS];
    int n = 0;
    for (const Param *row = t->params; row->name && n < MAX_ROWS; row++) {
        int at = n++;
        for (; at > 0 && strcmp(sorted[at - 1]->name, row->name) > 0; at--) sorted[at] = sorted[at - 1];
        sorted[at] = row;
    }
    mdr_text_printf(out, "%s", t->name);
    for (int i = 0; i < n; i++) {
        bool count = strcmp(sorted[i]->name, "num_train_examples") == 0 || strcmp(sorted[i]->name, "num_test_"
                                                                                                   "examples") == 0;
        if (count && !counts) continue;
        mdr_text_printf(out, " %s=", sorted[i]->name);
        mdr_params_text(sorted[i], p, out);
    }
}

void mdr_task_text(const TaskDef *t, const TaskParams *p, Text *out) { write_text(t, p, true, out); }

uint64_t mdr_task_stream(const TaskDef *t, const TaskParams *p, const char *what, uint64_t seed) {
    Text text = {0};
    write_text(t, p, false, &text);
    mdr_text_printf(&text, " stream=%s seed=%llu", what, (unsigned long long)seed);
    uint64_t h = mdr_hash64(mdr_text_str(&text));
    mdr_text_free(&text);
    return h;
}

const char *mdr_task_split_name(Split s) {
    static const char *const names[SPLIT_COUNT] = {"train", "valid", "test"};
    return names[s];
}

Err *mdr_task_open(const TaskDef *t, const TaskParams *p, Split split, uint64_t seed, Dataset **d) {
    *d = NULL;
    MDR_TRY(mdr_task_check(t, p));
    Dataset *n = mdr_alloc(sizeof *n);
    *n = (Dataset){.task = t, .params = *p, .split = split, .rows = t->rows(p), .work = t->work ? t->work(p) : 0};
    n->seed = mdr_task_stream(t, p, mdr_task_split_name(split), seed);
    if (t->setup) n->ctx = t->setup(p, seed);
    *d = n;
    return NULL;
}

void mdr_task_close(Dataset *d) {
    if (!d) return;
    mdr_free(d->ctx);
    mdr_free(d);
}

int32_t mdr_task_rows(const Dataset *d) { return d->rows; }

int64_t mdr_task_size(const Dataset *d) {
    return d->split == SPLIT_TRAIN ? d->params.num_train_examples : d->params.num_test_examples;
}

void mdr_task_example(const Dataset *d, int64_t i, int32_t *tokens, int32_t *targets) {
    Rng r = mdr_rng(d->seed, (uint64_t)i);
    Scratch scratch;
    int32_t *work = mdr_scratch_take(&scratch, d->work);
    d->task->generate(&d->params, d->ctx, d->split, &r, work, tokens, targets);
    mdr_scratch_drop(&scratch);
}

const void *mdr_task_ctx(const Dataset *d, int64_t *bytes) {
    *bytes = d->ctx ? d->task->ctx_bytes(&d->params) : 0;
    return d->ctx;
}

void mdr_task_draw_member(const Dataset *d, const void *device_ctx, const int32_t *device_order, DrawMember *m) {
    *m = (DrawMember){.params = d->params, .seed = d->seed, .split = d->split, .generator = d->task->on_device,
                      .ctx = device_ctx, .order = device_order};
}
