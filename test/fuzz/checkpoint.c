/* Fuzz target: a checkpoint of any bytes. mdr_train_load must refuse it with a sentence and change nothing, or take it and go on; it
 * must never crash. Bytes are tried as they are and, so that what lies behind the checksum is reached, with a right checksum put
 * over their last 64; what claims to be this trial gets its key. */
#include "train/train.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum { HEAD = 32, KEY = 64, SUM = 64 };

static void must(Err *e)
{
    if (!e) return;
    fprintf(stderr, "%s\n", mdr_err_text(e));
    abort();
}

typedef struct Bench { ArchList archs; TrialSpec spec; Pool *pool; Trainer *t; } Bench;

static void open_bench(Bench *b)
{
    must(mdr_model_parse("mlp(dim_inner=2)", 0, NULL, &b->archs));
    b->spec = (TrialSpec){.arch = b->archs.arch[0], .task = mdr_task_find("compression"), .seed = 1};
    mdr_task_defaults(b->spec.task, &b->spec.setting);
    mdr_params_default(mdr_model_params, &b->spec.model);
    mdr_params_default(mdr_train_params, &b->spec.train);
    b->spec.setting.vocab_size = 3;
    b->spec.setting.seq_len = 2;
    b->spec.setting.num_train_examples = b->spec.setting.num_test_examples = 2;
    b->spec.model.dim = 2;
    b->spec.model.backbone = BACKBONE_LM;
    b->spec.train.batch_size = 2;
    b->spec.train.epochs = 3;
    const TrialSpec *s = &b->spec;
    must(mdr_pool_open(1, &b->pool));
    must(mdr_train_open(&s, 1, b->pool, &b->t));
}

static void try_bytes(Bench *b, const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("checkpoint", 0);
    if (fd < 0) abort();
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fd, data + at, size - at);
        if (n <= 0) abort();
        at += (size_t)n;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int64_t before = mdr_train_steps_done(b->t);
    int32_t epochs = mdr_train_result(b->t, 0)->n_epoch;
    Err *e = mdr_train_load(b->t, path);
    if (e && (mdr_train_steps_done(b->t) != before || mdr_train_result(b->t, 0)->n_epoch != epochs || !mdr_err_text(e)[0])) abort();
    bool goes_on = !e && !mdr_train_finished(b->t);
    mdr_err_free(e);
    if (goes_on) mdr_err_free(mdr_train_step(b->t));
    if (goes_on && !mdr_train_finished(b->t) && mdr_train_epoch_ends(b->t)) mdr_err_free(mdr_train_evaluate(b->t));
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Bench b = {0};
    open_bench(&b);
    try_bytes(&b, data, size);
    if (size >= HEAD + SUM) {
        char hex[65];
        uint8_t *copy = mdr_alloc(size);
        memcpy(copy, data, size);
        for (int with_key = 0; with_key < 2; with_key++) {
            if (with_key && size < HEAD + KEY + SUM) break;
            if (with_key) {
                mdr_train_key(&b.spec, hex);
                memcpy(copy + HEAD, hex, KEY);
            }
            mdr_sha256(copy, size - SUM, hex);
            memcpy(copy + size - SUM, hex, SUM);
            try_bytes(&b, copy, size);
        }
        mdr_free(copy);
    }
    mdr_train_close(b.t);
    mdr_pool_close(b.pool);
    mdr_model_archs_free(&b.archs);
    return 0;
}
