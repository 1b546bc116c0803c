/* Populations side by side on one GPU: a trial gets the same results, to the last bit, alone and beside other populations, however many
 * there are, and however little memory. A device that fails and a stop lose nothing that had ended. */
#include "queue_harness.h"

enum { GRAPHS = 10, TRIALS = 12 };
/* Trials of ten graphs, which differ in architecture, length, vocabulary or task; the last two are of the first two's. */
static void ten(const ArchList *a, const ArchList *b, int32_t precision, TrialSpec s[TRIALS], const TrialSpec *spec[TRIALS])
{
    for (int i = 0; i < TRIALS; i++) {
        int g = i % GRAPHS;
        s[i] = spec_of(g % 2 ? a : b, g < 6 ? "in-context-recall" : g < 8 ? "memorization" : "noisy-in-context-recall", 8 * (1 + i % 3));
        s[i].setting.vocab_size = 24 + 8 * (g % 3) + (g < 8 ? 0 : 4);
        s[i].setting.num_test_examples = 8 + 8 * (i % 2);
        if (g == 3 || g == 4) s[i].setting.seq_len = 24;
        s[i].train.precision = precision;
        s[i].train.epochs = 4 + i % 3;
        s[i].seed = (uint64_t)i;
        spec[i] = &s[i];
    }
}

static void as_alone(const TrialSpec *const *spec, int32_t n, Seen *alone)
{
    for (int32_t i = 0; i < n; i++) {
        alone[i] = (Seen){0};
        ok(queue(&spec[i], 1, 0, &alone[i]));
    }
}

static void beside_others(int32_t precision)
{
    ArchList a = arch_of("mh-attention(n_heads=2) swiglu(dim_inner=16)"), b = arch_of("mlp(dim_inner=16)");
    TrialSpec s[TRIALS];
    const TrialSpec *spec[TRIALS];
    Seen all = {0}, alone[TRIALS];
    ten(&a, &b, precision, s, spec);
    ok(queue(spec, TRIALS, 0, &all));
    as_alone(spec, TRIALS, alone);
    for (int32_t i = 0; i < TRIALS; i++) {
        same(&all, i, &alone[i], 0, "beside other populations");
        assert_int_equal(all.n_epoch[i], s[i].train.epochs);
        assert_int_equal(all.epochs[i], s[i].train.epochs);
    }
    assert_int_equal(all.said, GRAPHS);
    assert_true(all.early >= 4);                          /* so many had begun before the first trial ended                  */
    mdr_model_archs_free(&a);
    mdr_model_archs_free(&b);
}
static void four_graphs(const ArchList *a, TrialSpec s[4], const TrialSpec *spec[4])
{
    for (int i = 0; i < 4; i++) {
        s[i] = spec_of(a, "in-context-recall", 16);
        s[i].setting.vocab_size = 16 + 8 * i;
        s[i].train.epochs = 3;
        s[i].setting.num_test_examples = 8;
        spec[i] = &s[i];
    }
}

/* One after another, where the watch wants it so: the same results. */
static void one_after_another(void **state)
{
    (void)state;
    ArchList a = arch_of("mlp(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    Seen all = {.most_populations = 2}, one = {.most_populations = 1};
    four_graphs(&a, s, spec);
    ok(queue(spec, 4, 0, &all));
    ok(queue(spec, 4, 0, &one));
    for (int32_t i = 0; i < 4; i++) same(&all, i, &one, i, "one after another");
    assert_int_equal(all.early, 2);
    assert_int_equal(one.early, 1);
    mdr_model_archs_free(&a);
}
static void float32_beside_others(void **state)
{
    (void)state;
    beside_others(PRECISION_FLOAT32);
}
static void bf16_beside_others(void **state)
{
    (void)state;
    beside_others(PRECISION_BF16);
}

/* A population that fills the device gets no other beside it. */
static void large_ones_run_alone(void **state)
{
    (void)state;
    ArchList a = arch_of("mlp(dim_inner=16)");
    TrialSpec s[3];
    const TrialSpec *spec[3];
    for (int i = 0; i < 3; i++) {
        s[i] = spec_of(&a, "in-context-recall", 8);
        s[i].setting.vocab_size = 16 + 8 * i;
        s[i].setting.seq_len = 128;
        s[i].train.batch_size = 3300;                     /* by 127 rows: over 25 2^14                                       */
        s[i].train.epochs = 1;
        spec[i] = &s[i];
    }
    Seen seen = {0};
    ok(queue(spec, 3, 0, &seen));
    assert_true(seen.ended == 3 && seen.said == 3);
    assert_int_equal(seen.early, 1);
    mdr_model_archs_free(&a);
}

/* From too little memory for one upwards to plenty for all. late: somebody takes it as the second is about to begin. */
static void little_memory(const TrialSpec *const *spec, const Seen *alone, bool late)
{
    int32_t failed = 0, waited = 0, again = 0, early = 0;
    for (int64_t memory = 1 << 18; late ? memory < 1 << 22 : early < 4; memory += memory / 3) {
        Seen seen = {.shrink = late ? memory : 0, .shrink_at = 2};
        if (!late) set_memory(memory);
        Err *e = queue(spec, 4, 0, &seen);
        unsetenv("MDR_EMU_MEMORY");
        if (e) {
            assert_non_null(strstr(mdr_err_text(e), "not enough GPU memory"));
            assert_true(seen.ended >= late);              /* the first had begun before                                      */
            mdr_err_free(e);
            failed++;
            continue;
        }
        for (int32_t i = 0; i < 4; i++) same(&seen, i, &alone[i], 0, "little memory");
        assert_int_equal(seen.halved, 0);                 /* there is one trial each: nothing to halve                       */
        early = seen.early;
        waited += early < 4;
        again += seen.said > 4;
    }
    assert_true(failed > 0 && waited > 0 && (again > 0) == late);
}
static void out_of_memory_waits(void **state)
{
    (void)state;
    ArchList a = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    Seen alone[4];
    four_graphs(&a, s, spec);
    as_alone(spec, 4, alone);
    little_memory(spec, alone, false);
    little_memory(spec, alone, true);
    mdr_model_archs_free(&a);
}

/* First of the tests: launches are counted from the start of the process. */
static void a_device_that_fails(void **state)
{
    (void)state;
    ArchList a = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    four_graphs(&a, s, spec);
    for (int i = 0; i < 4; i++) s[i].train.epochs = 3 + i;
    assert_int_equal(fails_somewhere(spec, 4, 0), 4);     /* populations that had begun before a trial ended                 */
    mdr_model_archs_free(&a);
}

/* To ask whether a moment is over leaves no error behind. */
static void asking(void **state)
{
    (void)state;
    Accel *a = NULL, *b = NULL;
    int32_t asked = 1;
    ok(mdr_accel_open(0, &a));
    ok(mdr_accel_beside(a, &b));
    assert_ptr_not_equal(mdr_accel_stream(a), mdr_accel_stream(b));
    ok(mdr_accel_mark(b, 0));
    for (; !mdr_accel_reached(b, 0); asked++) ok(mdr_accel_launched(b));
    assert_true(asked > 1);
    ok(mdr_accel_launched(a));
    mdr_accel_close(b);
    mdr_accel_close(a);
}

static void a_stop(void **state)
{
    (void)state;
    ArchList a = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[4];
    const TrialSpec *spec[4];
    four_graphs(&a, s, spec);
    for (int i = 0; i < 4; i++) s[i].train.epochs = 100000;
    Seen seen = {.stop = 4};
    Err *e = queue(spec, 4, 0, &seen);
    assert_int_equal(mdr_err_code(e), MDR_STOPPED);
    assert_int_equal(seen.ended, 0);
    assert_int_equal(seen.stopped, 1);
    assert_int_equal(seen.most_running, 4);
    assert_true(seen.busy >= 0 && seen.busy <= 1);
    mdr_err_free(e);
    mdr_model_archs_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_device_that_fails), cmocka_unit_test(float32_beside_others),
                                       cmocka_unit_test(bf16_beside_others), cmocka_unit_test(one_after_another),
                                       cmocka_unit_test(large_ones_run_alone),
                                       cmocka_unit_test(out_of_memory_waits), cmocka_unit_test(asking),
                                       cmocka_unit_test(a_stop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
