/* What tests of the queue share: trials so small that an emulated GPU trains them at once, and all that a queue told of them. */
#ifndef MDR_TEST_QUEUE_HARNESS_H
#define MDR_TEST_QUEUE_HARNESS_H
#include "train/train.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_TRIALS = 16, MAX_EPOCHS = 8 };
static inline void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}

/* What a queue told of its trials. */
typedef struct Seen {
    int32_t n, done[MAX_TRIALS], epochs[MAX_TRIALS], n_epoch[MAX_TRIALS], ended, most_running, said, least, halved, ticks;
    int32_t early;                        /* populations begun before a trial ended                                      */
    TrialStatus status[MAX_TRIALS];
    EpochScore epoch[MAX_TRIALS][MAX_EPOCHS];
    int64_t member_steps;
    double flops, total_flops, busy;
    int64_t shrink;                       /* device memory from sentence number shrink_at on (0: the first)              */
    int32_t shrink_at, most_populations;
    bool stop;                            /* at the first tick after stop_after                                          */
    int32_t stop_after;
} Seen;

static inline bool on_tick(void *ctx, const QueueProgress *p)
{
    Seen *s = ctx;
    s->ticks++;
    s->member_steps = p->member_steps;
    s->flops = p->flops;
    s->total_flops = p->total_flops;
    s->busy = p->busy;
    if (p->running > s->most_running) s->most_running = p->running;
    assert_int_equal(p->running + p->waiting + p->ended, s->n);
    return !s->stop || s->ticks <= s->stop_after;
}
static inline Err *on_done(void *ctx, int32_t trial, const TrialResult *r)
{
    Seen *s = ctx;
    s->done[trial]++;
    s->ended++;
    s->status[trial] = r->status;
    s->n_epoch[trial] = r->n_epoch;
    assert_true(r->n_epoch <= MAX_EPOCHS);
    for (int32_t i = 0; i < r->n_epoch; i++) {
        s->epoch[trial][i] = r->epoch[i];
        s->epoch[trial][i].seconds = 0;
    }
    return NULL;
}
static inline void on_epoch(void *ctx, int32_t trial, const TrialResult *r)
{
    Seen *s = ctx;
    s->epochs[trial]++;
    assert_true(r->n_epoch > 0);
}
static inline void set_memory(int64_t bytes)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)bytes);
    setenv("MDR_EMU_MEMORY", text, 1);
}

static inline void on_say(void *ctx, const char *sentence)
{
    Seen *s = ctx;
    const char *at = strstr(sentence, " at a time in ");
    s->said++;
    if (strstr(sentence, "not enough GPU memory")) s->halved++;
    if (at) {                                             /* "..., vocabulary 16: 4 at a time in ..."                        */
        while (at[-1] >= '0' && at[-1] <= '9') at--;
        s->least = atoi(at);
        s->early += s->ended == 0;
    }
    if (s->shrink && s->said >= s->shrink_at) set_memory(s->shrink);
}

static inline Err *queue(const TrialSpec *const *specs, int32_t n, int32_t most, Seen *s)
{
    Accel *accel = NULL;
    QueueWatch w = {s, on_tick, on_done, on_epoch, on_say, most, s->most_populations};
    s->n = n;
    Err *e = mdr_accel_open(0, &accel);
    if (!e) e = mdr_train_queue(specs, n, accel, &w);
    mdr_accel_close(accel);
    return e;
}

static inline ArchList arch_of(const char *text)
{
    ArchList l = {0};
    ok(mdr_model_parse(text, 0, NULL, &l));
    return l;
}

static inline TrialSpec spec_of(const ArchList *a, const char *task, int32_t examples)
{
    TrialSpec s = {.arch = a->arch[0], .task = mdr_task_find(task), .seed = 5, .device_class = "cuda-test"};
    mdr_task_defaults(s.task, &s.setting);
    mdr_params_default(mdr_model_params, &s.model);
    mdr_params_default(mdr_train_params, &s.train);
    s.model.backbone = BACKBONE_LM;
    s.model.dim = 16;
    s.setting.seq_len = 16;
    s.setting.num_train_examples = examples;
    s.setting.num_test_examples = 24;
    s.train.batch_size = 8;
    s.train.lr = 5e-3;
    s.train.epochs = 2;
    s.train.early_stop = STOP_NONE;
    return s;
}

static inline void same(const Seen *a, int32_t i, const Seen *b, int32_t k, const char *what)
{
    assert_int_equal(a->done[i], 1);
    assert_int_equal(b->done[k], 1);
    if (a->status[i] != b->status[k] || a->n_epoch[i] != b->n_epoch[k]) fail_msg("%s: trial %d ends otherwise", what, i);
    if (memcmp(a->epoch[i], b->epoch[k], (size_t)a->n_epoch[i] * sizeof(EpochScore)) != 0) fail_msg("%s: trial %d has other results", what, i);
}
#endif
