/* What tests of the queue share: trials so small that an emulated GPU trains them at once, and all that a queue told of them. */
#ifndef MDR_TEST_QUEUE_HARNESS_H
#define MDR_TEST_QUEUE_HARNESS_H
#include "train/train.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
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
    int32_t stop, stopped;                /* once steps were made and so many trials run, 0: never; ticks that said so   */
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
    bool stop = s->stop && p->running >= s->stop && p->member_steps > 0;
    s->stopped += stop;
    return !stop;
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

/* A queue in a process of its own, where the device fails at launch `after` (0: never); what it told comes back in shared memory. */
typedef struct Told { Seen seen; char text[512], name[128]; } Told;
static inline void apart(const TrialSpec *const *spec, int32_t n, int32_t most, int64_t after, Told *told)
{
    memset(told, 0, sizeof *told);
    pid_t child = fork();
    if (child == 0) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)after);
        if (after) setenv("MDR_EMU_FAIL_AFTER", text, 1);
        AccelInfo info = {0};
        Err *e = mdr_accel_info(0, &info);
        snprintf(told->name, sizeof told->name, "%s", info.name);
        if (!e) e = queue(spec, n, most, &told->seen);
        if (e) snprintf(told->text, sizeof told->text, "%d %s", mdr_err_code(e), mdr_err_text(e));
        mdr_err_free(e);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The device fails at launches from the first steps to the end: it is named, and what had ended is as without the failure. Returns how many
 * populations began before a trial ended. */
static inline int32_t fails_somewhere(const TrialSpec *const *spec, int32_t n, int32_t most)
{
    Told *told = mmap(NULL, 2 * sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(told != MAP_FAILED);
    Told *whole = &told[0], *part = &told[1];
    apart(spec, n, most, 0, whole);
    assert_string_equal(whole->text, "");
    int32_t some = 0, early = whole->seen.early;
    for (int64_t after = 20; ; after += after / 3) {
        apart(spec, n, most, after, part);
        if (!part->text[0]) break;
        if (!strstr(part->text, "the GPU failed") || part->text[0] != '1') fail_msg("%s", part->text);
        if (!strstr(part->text, whole->name)) fail_msg("%s: not by name", part->text);
        int32_t done = 0;
        for (int32_t i = 0; i < n; i++) {
            done += part->seen.done[i];
            if (part->seen.done[i]) same(&part->seen, i, &whole->seen, i, "before the device failed");
        }
        assert_int_equal(done, part->seen.ended);
        some += done > 0 && done < n;
    }
    assert_true(some > 0);
    munmap(told, 2 * sizeof *told);
    return early;
}
#endif
