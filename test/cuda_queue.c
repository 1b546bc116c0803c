/* The queue of trials: a trial gets the same results, to the last bit, alone and among others, whatever the population, whoever sat
 * in its slot before and whatever becomes of its neighbours; they are close to the CPU's. Memory that runs out, a device that
 * fails and a stop lose nothing that had ended. */
#include "queue_harness.h"
#include "train/queue_device.h"

/* Five trials of one graph that differ in everything a population may differ in. */
static void five(const ArchList *a, int32_t precision, TrialSpec s[5], const TrialSpec *spec[5])
{
    static const int32_t examples[] = {16, 20, 9, 16, 8};
    for (int i = 0; i < 5; i++) {
        s[i] = spec_of(a, "noisy-in-context-recall", examples[i]);
        s[i].train.precision = precision;
        s[i].seed = (uint64_t)i / 2;
        spec[i] = &s[i];
    }
    s[1].train.lr = 2e-2;
    s[1].train.scheduler = SCHEDULER_COSINE_STEP;
    s[1].train.warmup_steps = 2;
    s[2].setting.frac_noise = 0.4;
    s[2].setting.num_test_examples = 130;
    s[3].train.weight_decay = 0.5;
    s[3].train.clip = 0.1;
    s[3].train.steps = 3;                                 /* ends within its second epoch                                    */
    s[4].train.epochs = 3;
}

static Seen cpu(const TrialSpec *spec)
{
    TrialSpec here = *spec;
    here.train.precision = PRECISION_FLOAT32;
    spec = &here;
    Seen s = {0};
    Pool *pool = NULL;
    Trainer *t = NULL;
    TrainWatch w = {0};
    ok(mdr_pool_open(1, &pool));
    ok(mdr_train_open(&spec, 1, pool, &t));
    ok(mdr_train_run(t, &w));
    ok(on_done(&s, 0, mdr_train_result(t, 0)));
    mdr_train_close(t);
    mdr_pool_close(pool);
    return s;
}

static void near(double x, double y, double tol, const char *what)
{
    if (!(fabs(x - y) <= tol * fabs(y))) fail_msg("%s: %.9g here, %.9g on the CPU", what, x, y);
}

static void alone_equals_among_others(int32_t precision, const char *arch)
{
    ArchList list = arch_of(arch);
    TrialSpec s[5];
    const TrialSpec *spec[5];
    Seen two = {0}, all = {0};
    five(&list, precision, s, spec);
    ok(queue(spec, 5, 2, &two));
    ok(queue(spec, 5, 5, &all));
    for (int32_t i = 0; i < 5; i++) {
        Seen one = {0};
        ok(queue(&spec[i], 1, 0, &one));
        same(&two, i, &one, 0, "2 slots");
        same(&all, i, &one, 0, "5 slots");
        assert_int_equal(two.epochs[i], two.n_epoch[i]);
        assert_int_equal(two.n_epoch[i], i == 4 ? 3 : 2);
        assert_int_equal(two.status[i], TRIAL_DONE);
        Seen c = cpu(spec[i]);
        near(two.epoch[i][1].valid.loss, c.epoch[0][1].valid.loss, precision == PRECISION_BF16 ? 2e-2 : 1e-4, "validation loss");
    }
    assert_true(two.most_running <= 2 && two.said == 1);
    assert_int_equal(two.epoch[3][1].step, 3);
    if (memcmp(&two.epoch[0][1], &two.epoch[4][1], sizeof(EpochScore)) == 0) fail_msg("trials do not differ");
    mdr_model_archs_free(&list);
}
static void float32_alone_equals_among_others(void **state)
{
    (void)state;
    alone_equals_among_others(PRECISION_FLOAT32, "mh-attention(n_heads=2) swiglu(dim_inner=16)");
}
static void bf16_alone_equals_among_others(void **state)
{
    (void)state;
    alone_equals_among_others(PRECISION_BF16, "mh-attention(n_heads=2) swiglu(dim_inner=16)");
}

/* Twice a batch, one more than one, one; the batch more than an evaluation's 128, and than its two splits together. */
static void large_batches(int32_t batch)
{
    const int32_t examples[] = {2 * batch, batch + 1, batch};
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[3];
    const TrialSpec *spec[3];
    for (int i = 0; i < 3; i++) {
        s[i] = spec_of(&list, "in-context-recall", examples[i]);
        s[i].train.batch_size = batch;
        s[i].train.epochs = 2;
        s[i].setting.num_test_examples = 130 + i;
        s[i].seed = (uint64_t)i;
        spec[i] = &s[i];
    }
    Seen all = {0};
    ok(queue(spec, 3, 3, &all));
    for (int32_t i = 0; i < 3; i++) {
        Seen one = {0}, c = cpu(spec[i]);
        ok(queue(&spec[i], 1, 0, &one));
        same(&all, i, &one, 0, "large batches");
        for (int32_t k = 0; k < 2; k++) {
            near(all.epoch[i][k].train_loss, c.epoch[0][k].train_loss, 1e-4, "training loss");
            near(all.epoch[i][k].test.loss, c.epoch[0][k].test.loss, 1e-4, "test loss");
        }
    }
    mdr_model_archs_free(&list);
}
static void batches_beyond_evaluation(void **state)
{
    (void)state;
    large_batches(160);
    large_batches(288);
}

/* The walk through data and rates is the CPU trainer's: same batches, same order, same schedule, same metrics. */
static void close_to_the_cpu(void **state)
{
    (void)state;
    ArchList list = arch_of("mh-attention(n_heads=2) swiglu(dim_inner=16)");
    TrialSpec s[5];
    const TrialSpec *spec[5];
    five(&list, PRECISION_FLOAT32, s, spec);
    Seen gpu = {0};
    ok(queue(spec, 5, 3, &gpu));
    for (int32_t i = 0; i < 5; i++) {
        Seen c = cpu(spec[i]);
        assert_int_equal(gpu.n_epoch[i], c.n_epoch[0]);
        assert_int_equal(gpu.status[i], c.status[0]);
        for (int32_t k = 0; k < c.n_epoch[0]; k++) {
            const EpochScore *x = &gpu.epoch[i][k], *y = &c.epoch[0][k];
            assert_int_equal(x->epoch, y->epoch);
            assert_int_equal(x->step, y->step);
            near(x->train_loss, y->train_loss, 1e-4, "training loss");
            near(x->valid.loss, y->valid.loss, 1e-4, "validation loss");
            near(x->test.loss, y->test.loss, 1e-4, "test loss");
            near(x->test.ppl, y->test.ppl, 1e-3, "perplexity");
            near(x->valid.acc + 1, y->valid.acc + 1, 0.02, "accuracy");
            near(x->valid.acc_macro + 1, y->valid.acc_macro + 1, 0.02, "macro accuracy");
        }
    }
    mdr_model_archs_free(&list);
}

/* Tasks, lengths and architectures of several graphs in one queue: each in its group, all to their end. */
static void several_graphs(void **state)
{
    (void)state;
    ArchList a = arch_of("swiglu(dim_inner=16)"), b = arch_of("mlp(dim_inner=16)");
    TrialSpec s[6] = {spec_of(&a, "in-context-recall", 8), spec_of(&b, "memorization", 8), spec_of(&a, "selective-copying", 8),
                      spec_of(&a, "in-context-recall", 16), spec_of(&a, "compression", 8), spec_of(&b, "memorization", 8)};
    const TrialSpec *spec[6];
    s[1].setting.vocab_size = s[5].setting.vocab_size = 32;
    s[2].setting.num_tokens_to_copy = 4;
    s[4].model.backbone = BACKBONE_AUTOENCODER;
    s[5].seed = 9;
    for (int i = 0; i < 6; i++) {
        s[i].train.epochs = 1;
        spec[i] = &s[i];
    }
    Seen seen = {0};
    ok(queue(spec, 6, 0, &seen));
    assert_int_equal(seen.said, 4);                       /* two of six share a graph, twice                                 */
    for (int32_t i = 0; i < 6; i++) {
        Seen c = cpu(spec[i]);
        assert_int_equal(seen.done[i], 1);
        near(seen.epoch[i][0].train_loss, c.epoch[0][0].train_loss, 1e-4, s[i].task->name);
        near(seen.epoch[i][0].test.loss, c.epoch[0][0].test.loss, 1e-4, s[i].task->name);
    }
    mdr_model_archs_free(&a);
    mdr_model_archs_free(&b);
}

static void diverged_trial_disturbs_nobody(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    for (int i = 0; i < 4; i++) {
        s[i] = spec_of(&list, "in-context-recall", i == 1 ? 320 : 16);
        s[i].train.optimizer = OPTIMIZER_SGD;
        s[i].train.epochs = 3;
        s[i].seed = (uint64_t)i;
        spec[i] = &s[i];
    }
    s[1].train.lr = 1e6;
    s[1].train.weight_decay = 10;
    Seen all = {0};
    ok(queue(spec, 4, 2, &all));
    assert_int_equal(all.status[1], TRIAL_DIVERGED);
    assert_int_equal(all.n_epoch[1], 0);                  /* seen where it happens, not at the epoch's end                   */
    for (int32_t i = 0; i < 4; i++) {
        Seen one = {0};
        ok(queue(&spec[i], 1, 0, &one));
        same(&all, i, &one, 0, "beside a diverged trial");
        if (i != 1) assert_int_equal(all.status[i], TRIAL_DONE);
    }
    mdr_model_archs_free(&list);
}

/* The batch of the next step is drawn when a loss turns out to be no number: it is not trained on. */
static void a_diverged_one_rests_at_once(void **state)
{
    (void)state;
    enum { BATCH = 2, ROWS = 3, CELLS = BATCH * ROWS };
    struct Memory {
        QueueState state;
        int32_t first, next, drawn_n, taken_n, one, tokens[CELLS], targets[CELLS], taken_tokens[CELLS], taken_targets[CELLS];
        float inv, taken_inv;
        double loss, rate[4];
        Hyper hyper;
    } host = {.state = {.left = 4, .size = 8}, .loss = 1}, *m;
    Accel *a = NULL;
    void *device = NULL;
    ok(mdr_accel_open(0, &a));
    ok(mdr_accel_alloc(a, sizeof host, &device));
    ok(mdr_accel_upload(a, device, &host, sizeof host));
    m = device;
    const DrawBatch drawn = {m->tokens, m->targets, &m->inv, &m->drawn_n}, taken = {m->taken_tokens, m->taken_targets, &m->taken_inv, &m->taken_n};
    const QueueNext next = {&m->first, &m->next, BATCH};
    void *stream = mdr_accel_stream(a);
    mdr_cuda_queue_begin(stream, 1, &m->state, next);
    for (int step = 0; step < 3; step++) {
        const double loss = step == 1 ? (double)INFINITY : 1;
        ok(mdr_accel_copy(a, &m->drawn_n, 4, &m->next, 4, 4, 1));        /* as if drawn                                         */
        mdr_cuda_queue_before(stream, 1, ROWS, &m->state, m->rate, &m->hyper, drawn, taken, &m->one, next);
        ok(mdr_accel_upload(a, &m->loss, &loss, sizeof loss));
        mdr_cuda_queue_after(stream, 1, &m->state, &m->taken_n, &m->loss, 1, NULL, &m->hyper);
        ok(mdr_accel_download(a, &host, device, sizeof host));
        assert_int_equal(host.taken_n, step < 2 ? BATCH : 0);
        assert_int_equal(host.one, step < 2);
        assert_int_equal(host.state.step, step < 2 ? step + 1 : 2);
        assert_int_equal(host.state.diverged, step > 0);
        assert_int_equal(host.next, step < 2 ? BATCH : 0);
    }
    mdr_accel_free(a, device);
    mdr_accel_close(a);
}

static void four(const ArchList *list, TrialSpec s[4], const TrialSpec *spec[4])
{
    for (int i = 0; i < 4; i++) {
        s[i] = spec_of(list, "in-context-recall", 16);
        s[i].seed = (uint64_t)i;
        s[i].train.epochs = 1;
        spec[i] = &s[i];
    }
}

/* From far too little memory upwards until it is plenty. late: there seemed to be plenty, then somebody else took it. */
static void little_memory(const TrialSpec *const *spec, const Seen *plenty, bool late)
{
    int32_t ran = 0, fewer = 0, failed = 0;
    for (int64_t memory = 1 << 16; ran == 0 || fewer == ran; memory += memory / 4) {
        Seen seen = {.shrink = late ? memory : 0};
        if (!late) set_memory(memory);
        Err *e = queue(spec, 4, 0, &seen);
        unsetenv("MDR_EMU_MEMORY");
        if (e) {
            assert_non_null(strstr(mdr_err_text(e), "not enough GPU memory"));
            assert_int_equal(ran + seen.ended, 0);
            mdr_err_free(e);
            failed++;
            continue;
        }
        for (int32_t i = 0; i < 4; i++) same(&seen, i, plenty, i, "little memory");
        ran++;
        fewer += seen.least < 4;
        if (late ? seen.least < 4 && !seen.halved : seen.halved) fail_msg("%lld bytes: the estimate is wrong", (long long)memory);
    }
    assert_true(failed > 0 && fewer > 0);
}

static void out_of_memory_halves(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    Seen plenty = {0};
    four(&list, s, spec);
    ok(queue(spec, 4, 0, &plenty));
    assert_int_equal(plenty.least, 4);
    little_memory(spec, &plenty, false);
    little_memory(spec, &plenty, true);
    mdr_model_archs_free(&list);
}

/* First of the tests: launches are counted from the start of the process. */
static void a_device_that_fails(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    four(&list, s, spec);
    fails_somewhere(spec, 4, 1);
    mdr_model_archs_free(&list);
}

static void a_stop(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    four(&list, s, spec);
    Seen seen = {.stop = 2};
    for (int i = 0; i < 4; i++) s[i].train.epochs = 100000;
    Err *e = queue(spec, 4, 2, &seen);
    assert_non_null(e);
    assert_int_equal(mdr_err_code(e), MDR_STOPPED);
    assert_int_equal(seen.ended, 0);
    assert_int_equal(seen.stopped, 1);
    assert_true(seen.flops > 0 && seen.flops < seen.total_flops && seen.member_steps > 0 && seen.busy >= 0);
    mdr_err_free(e);
    mdr_model_archs_free(&list);
}

static Err *cannot_store(void *ctx, int32_t trial, const TrialResult *r)
{
    (void)trial, (void)r;
    ++*(int *)ctx;
    return MDR_ERR_USER("the disk is full");
}
static void an_error_of_the_caller(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    Accel *accel = NULL;
    int calls = 0;
    QueueWatch w = {.ctx = &calls, .done = cannot_store};
    four(&list, s, spec);
    ok(mdr_accel_open(0, &accel));
    Err *e = mdr_train_queue(spec, 4, accel, &w);
    assert_non_null(e);
    assert_string_equal(mdr_err_text(e), "the disk is full");
    assert_int_equal(calls, 1);
    mdr_err_free(e);
    mdr_accel_close(accel);
    mdr_model_archs_free(&list);
}

static void the_cpu_refuses_bf16(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s = spec_of(&list, "in-context-recall", 8);
    const TrialSpec *spec = &s;
    Trainer *t = NULL;
    Pool *pool = NULL;
    char a[65], b[65];
    mdr_train_key(&s, a);
    s.train.precision = PRECISION_BF16;
    mdr_train_key(&s, b);
    assert_string_not_equal(a, b);
    s.train.precision = PRECISION_FLOAT32;
    s.device_class = NULL;
    mdr_train_key(&s, b);
    assert_string_not_equal(a, b);
    s.train.precision = PRECISION_BF16;
    ok(mdr_pool_open(1, &pool));
    Err *e = mdr_train_open(&spec, 1, pool, &t);
    assert_non_null(e);
    assert_null(t);
    assert_string_equal(mdr_err_text(e), "precision bf16 needs a GPU: --device cuda");
    mdr_err_free(e);
    mdr_pool_close(pool);
    mdr_model_archs_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_device_that_fails), cmocka_unit_test(float32_alone_equals_among_others),
                                       cmocka_unit_test(bf16_alone_equals_among_others),
                                       cmocka_unit_test(close_to_the_cpu), cmocka_unit_test(batches_beyond_evaluation), cmocka_unit_test(several_graphs),
                                       cmocka_unit_test(diverged_trial_disturbs_nobody), cmocka_unit_test(a_diverged_one_rests_at_once),
                                       cmocka_unit_test(out_of_memory_halves),
                                       cmocka_unit_test(a_stop), cmocka_unit_test(an_error_of_the_caller), cmocka_unit_test(the_cpu_refuses_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
