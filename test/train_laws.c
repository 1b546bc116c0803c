/* Laws of training, bit for bit: 1, 2, 3 and 7 workers; a member alone and in a population of 6; resumed and straight; last
 * batches of 64 and of 1; a diverged member leaves the others untouched. And that a model learns at all. */
#include "train/train.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const arch_text[] = {"(mh-attention swiglu)*2", "hyena mlp", "mamba*2", "mh-sliding-attention+mamba swiglu"};

static TrialSpec spec_of(const ArchList *a, int32_t seq_len, int32_t examples)
{
    TrialSpec s = {.arch = a->arch[0], .task = mdr_task_find("in-context-recall"), .seed = 7};
    mdr_task_defaults(s.task, &s.setting);
    mdr_params_default(mdr_model_params, &s.model);
    mdr_params_default(mdr_train_params, &s.train);
    s.model.backbone = BACKBONE_LM;
    s.model.dim = 32;
    s.setting.seq_len = seq_len;
    s.setting.num_train_examples = examples;
    s.setting.num_test_examples = 130;
    s.train.batch_size = 128;
    s.train.lr = 1e-3;
    s.train.steps = 4;
    s.train.early_stop = STOP_NONE;
    return s;
}

static void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}

/* Trains specs to the end; returns the members' parameters and results. */
typedef struct Outcome { float *param; int64_t stride; double loss[8]; EpochScore last[8]; TrialStatus status[8]; } Outcome;
static Outcome train(const TrialSpec *const *specs, int32_t n, int workers, const char *checkpoint, int64_t stop_at)
{
    Outcome o = {0};
    Pool *pool = NULL;
    Trainer *t = NULL;
    ok(mdr_pool_open(workers, &pool));
    ok(mdr_train_open(specs, n, pool, &t));
    if (checkpoint && access(checkpoint, F_OK) == 0) ok(mdr_train_load(t, checkpoint));
    while (!mdr_train_finished(t) && mdr_train_steps_done(t) != stop_at) {
        ok(mdr_train_step(t));
        if (mdr_train_epoch_ends(t) && !mdr_train_finished(t)) ok(mdr_train_evaluate(t));
    }
    if (checkpoint) ok(mdr_train_save(t, checkpoint));
    const Population *p = mdr_train_population(t);
    o.stride = p->stride;
    o.param = malloc((size_t)(n * p->stride) * 4);
    memcpy(o.param, p->param, (size_t)(n * p->stride) * 4);
    for (int32_t m = 0; m < n; m++) {
        const TrialResult *r = mdr_train_result(t, m);
        o.loss[m] = mdr_train_loss(t, m);
        o.status[m] = r->status;
        if (r->n_epoch) o.last[m] = r->epoch[r->n_epoch - 1];
    }
    mdr_train_close(t);
    mdr_pool_close(pool);
    return o;
}
static void same(const Outcome *a, int32_t i, const Outcome *b, int32_t k, const char *what)
{
    if (a->stride != b->stride || memcmp(a->param + i * a->stride, b->param + k * b->stride, (size_t)a->stride * 4) != 0)
        fail_msg("%s: parameters differ", what);
    if (a->loss[i] != b->loss[k] || memcmp(&a->last[i].valid, &b->last[k].valid, 2 * sizeof(SplitScore)) != 0) fail_msg("%s: losses or scores differ", what);
}

static void workers_do_not_matter(void **state)
{
    (void)state;
    static const struct { int32_t examples; const char *what; } tail[] = {{256, "whole batches"}, {192, "a last batch of 64"}, {129, "a last batch of 1"}};
    for (int a = 0; a < MDR_COUNT(arch_text); a++)
        for (int k = 0; k < MDR_COUNT(tail); k++) {
            ArchList list = {0};
            ok(mdr_model_parse(arch_text[a], 0, NULL, &list));
            TrialSpec s = spec_of(&list, 32, tail[k].examples);
            const TrialSpec *spec = &s;
            Outcome one = train(&spec, 1, 1, NULL, -1);
            static const int workers[] = {2, 3, 7};
            for (int w = 0; w < MDR_COUNT(workers); w++) {
                Outcome more = train(&spec, 1, workers[w], NULL, -1);
                char what[128];
                snprintf(what, sizeof what, "%s, %s, %d workers", arch_text[a], tail[k].what, workers[w]);
                same(&one, 0, &more, 0, what);
                free(more.param);
            }
            assert_true(isfinite(one.loss[0]));
            free(one.param);
            mdr_model_archs_free(&list);
        }
}

static void member_alone_equals_member_in_population(void **state)
{
    (void)state;
    for (int a = 0; a < 3; a++)
        for (int own = 0; own < 2; own++) {               /* the same data, and data of their own                            */
            ArchList list = {0};
            ok(mdr_model_parse(arch_text[a], 0, NULL, &list));
            TrialSpec s[6];
            const TrialSpec *spec[6];
            for (int i = 0; i < 6; i++) {
                s[i] = spec_of(&list, 24, 192);
                s[i].train.lr = 2e-4 * (i + 1);
                s[i].train.weight_decay = i % 2 ? 0.1 : 0;
                if (own) s[i].seed = (uint64_t)i;
                spec[i] = &s[i];
            }
            Outcome all = train(spec, 6, 2, NULL, -1);
            for (int i = 0; i < 6; i += own ? 1 : 5) {
                Outcome one = train(&spec[i], 1, 2, NULL, -1);
                char what[128];
                snprintf(what, sizeof what, "%s, own data %d: member %d alone and in a population of 6", arch_text[a], own, i);
                same(&all, i, &one, 0, what);
                free(one.param);
            }
            if (memcmp(all.param, all.param + all.stride, (size_t)all.stride * 4) == 0) fail_msg("members do not differ");
            free(all.param);
            mdr_model_archs_free(&list);
        }
}

static void resumed_equals_straight(void **state)
{
    (void)state;
    char path[] = "/tmp/mdr_checkpoint_XXXXXX";
    int fd = mkstemp(path);
    close(fd);
    unlink(path);
    ArchList list = {0};
    ok(mdr_model_parse(arch_text[0], 0, NULL, &list));
    TrialSpec s[2] = {spec_of(&list, 24, 192), spec_of(&list, 24, 192)};
    s[1].train.lr = 3e-4;
    s[0].train.scheduler = s[1].train.scheduler = SCHEDULER_COSINE_STEP;
    s[0].train.warmup_steps = s[1].train.warmup_steps = 2;
    s[0].train.clip = 0.5;
    const TrialSpec *spec[2] = {&s[0], &s[1]};
    Outcome straight = train(spec, 2, 2, NULL, -1);
    for (int at = 1; at <= 3; at++) {
        Outcome part = train(spec, 2, 2, path, at);
        free(part.param);
        Outcome rest = train(spec, 2, 3, path, -1);
        same(&straight, 0, &rest, 0, "resumed");
        same(&straight, 1, &rest, 1, "resumed");
        free(rest.param);
        unlink(path);
    }
    /* A checkpoint that is damaged, cut or another trial's is refused and changes nothing. */
    Outcome part = train(spec, 2, 2, path, 2);
    char *text = NULL;
    size_t n = 0;
    ok(mdr_file_read(path, 1 << 30, &text, &n));
    Pool *pool = NULL;
    Trainer *t = NULL;
    ok(mdr_pool_open(1, &pool));
    ok(mdr_train_open(spec, 2, pool, &t));
    for (int k = 0; k < 4; k++) {
        size_t len = k == 0 ? n - 1 : k == 1 ? 10 : n;
        if (k == 2) text[n / 2] ^= 1;
        if (k == 3) { text[n / 2] ^= 1; s[0].seed = 99; }
        ok(mdr_file_write_atomic(path, text, len));
        Err *e = mdr_train_load(t, path);
        assert_non_null(e);
        assert_int_equal(mdr_err_code(e), MDR_USER);
        assert_int_equal(mdr_train_steps_done(t), 0);
        mdr_err_free(e);
    }
    mdr_train_close(t);
    mdr_pool_close(pool);
    mdr_free(text);
    free(part.param);
    free(straight.param);
    unlink(path);
    mdr_model_archs_free(&list);
}

static void diverged_member_is_dropped(void **state)
{
    (void)state;
    ArchList list = {0};
    ok(mdr_model_parse("mh-attention mlp", 0, NULL, &list));
    TrialSpec s[2] = {spec_of(&list, 24, 128), spec_of(&list, 24, 128)};
    s[0].train.lr = 10;                                   /* parameters explode within a few steps                           */
    s[0].train.steps = s[1].train.steps = 60;
    s[0].train.optimizer = s[1].train.optimizer = OPTIMIZER_SGD;
    s[0].train.lr = 10;
    s[0].train.weight_decay = 10;
    const TrialSpec *spec[2] = {&s[0], &s[1]}, *other = &s[1];
    Outcome both = train(spec, 2, 2, NULL, -1), alone = train(&other, 1, 2, NULL, -1);
    assert_int_equal(both.status[0], TRIAL_DIVERGED);
    assert_int_equal(both.status[1], TRIAL_DONE);
    same(&both, 1, &alone, 0, "beside a diverged member");
    free(both.param);
    free(alone.param);
    mdr_model_archs_free(&list);
}

/* Perplexity is the mean of exp(batch loss): exp(loss) of a split that is one batch, more of several (Jensen). */
static void perplexity(void **state)
{
    (void)state;
    ArchList list = {0};
    ok(mdr_model_parse("mlp", 0, NULL, &list));
    TrialSpec one = spec_of(&list, 24, 128), two = one;
    one.setting.num_test_examples = 100;
    two.setting.num_test_examples = 130;
    const TrialSpec *spec[2] = {&one, &two};
    for (int k = 0; k < 2; k++) {
        Outcome o = train(&spec[k], 1, 2, NULL, -1);
        const SplitScore *s[2] = {&o.last[0].valid, &o.last[0].test};
        for (int i = 0; i < 2; i++) {
            double least = exp(s[i]->loss);
            if (k == 0) assert_true(fabs(s[i]->ppl - least) <= 1e-12 * least);
            else assert_true(s[i]->ppl > least * (1 + 1e-9) && s[i]->ppl < 2 * least);
        }
        free(o.param);
    }
    mdr_model_archs_free(&list);
}

/* One small attention model learns a small setting: the whole chain from data to update is right. */
static void it_learns(void **state)
{
    (void)state;
    if (getenv("MDR_TEST_SMALL")) skip();                 /* sanitizers and valgrind: too slow to learn anything           */
    ArchList list = {0};
    ok(mdr_model_parse("(mh-attention(n_heads=4) swiglu(dim_inner=64))*2", 0, NULL, &list));
    TrialSpec s = spec_of(&list, 16, 12800);
    s.setting.vocab_size = 6;
    s.train.batch_size = 64;
    s.train.lr = 3e-3;
    s.train.steps = 400;
    const TrialSpec *spec = &s;
    Outcome o = train(&spec, 1, 2, NULL, -1);
    print_message("test accuracy after %d steps: %.3f\n", s.train.steps, o.last[0].test.acc_macro);
    assert_true(o.last[0].test.acc_macro > 0.9);          /* chance is 1/3                                               */
    free(o.param);
    mdr_model_archs_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(workers_do_not_matter), cmocka_unit_test(member_alone_equals_member_in_population),
                                       cmocka_unit_test(resumed_equals_straight), cmocka_unit_test(diverged_member_is_dropped),
                                       cmocka_unit_test(perplexity), cmocka_unit_test(it_learns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
