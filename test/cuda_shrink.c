/* A population shrinks as its trials end and none waits: its steps are recorded anew for those that are left, who get the same results, to the
 * last bit, wherever they sat and wherever they move to. One population is served by hand here, so that its slots can be counted. */
#include "queue_harness.h"
#include "train/queue.h"

enum { TRIALS = 7, SLOTS = 5 };

/* Seven trials of one graph. With five slots: trial 5 follows trial 0, 6 follows 2; then 4 and 5 end together, 1, 3, 6. Trials 3 and 6 have
 * longer epochs than the others and move in the middle of one, 3 to where somebody has had its next one; 0 and 4 alone clip. */
static void seven(const ArchList *a, const char *task, int32_t precision, TrialSpec s[TRIALS], const TrialSpec *spec[TRIALS])
{
    static const int32_t examples[TRIALS] = {16, 9, 16, 56, 16, 16, 20};
    static const int32_t epochs[TRIALS] = {1, 4, 2, 2, 3, 2, 4};
    for (int i = 0; i < TRIALS; i++) {
        s[i] = spec_of(a, task, examples[i]);
        s[i].train.precision = precision;
        s[i].train.epochs = epochs[i];
        s[i].seed = (uint64_t)i;
        spec[i] = &s[i];
    }
    s[0].train.clip = s[4].train.clip = 0.1;
    s[1].train.weight_decay = 0.5;
    s[3].setting.num_test_examples = 130;
    s[6].train.scheduler = SCHEDULER_COSINE_STEP;
}

/* A crew as a lane has it. */
typedef struct Served {
    Seen seen;
    QueueWatch watch;
    Queue q;
    QueueTrial trial[TRIALS], *order[TRIALS];
    TrainGraphs graphs;
    Crew crew;
    int32_t n_slots, slots[TRIALS + 1];                   /* as they were one after another                                   */
} Served;

static void open_crew(Served *s, const TrialSpec *const *spec, int32_t n, int32_t slots)
{
    *s = (Served){.seen = {.n = n}};
    s->watch = (QueueWatch){.ctx = &s->seen, .tick = on_tick, .done = on_done, .epoch = on_epoch};
    s->q = (Queue){.n = n, .watch = &s->watch, .begin = mdr_clock(), .taken = 1, .now = {.waiting = n}};
    for (int32_t i = 0; i < n; i++) {
        s->trial[i] = (QueueTrial){.spec = spec[i], .index = i, .walk = mdr_train_walk(spec[i])};
        s->order[i] = &s->trial[i];
    }
    ok(mdr_pool_open(2, &s->q.pool));
    ok(mdr_accel_open(0, &s->q.accel));
    const DeviceDef *device = spec[0]->train.precision == PRECISION_BF16 ? &mdr_exec_cuda_bf16 : &mdr_exec_cuda;
    ok(mdr_train_graphs_open(spec[0], device, MDR_EVAL_BATCH, &s->graphs));
    ok(mdr_train_crew_open(&s->q, s->q.accel, &s->graphs, s->order, n, slots, &s->crew));
}
static void close_crew(Served *s)
{
    mdr_train_crew_close(&s->crew);
    mdr_train_graphs_close(&s->graphs);
    mdr_accel_close(s->q.accel);
    mdr_pool_close(s->q.pool);
}
static void look(Served *s)
{
    int32_t n = s->crew.n;
    if (s->n_slots > 0 && s->slots[s->n_slots - 1] == n) return;
    assert_true(s->n_slots <= TRIALS);
    s->slots[s->n_slots++] = n;
}
static void serve(Served *s)
{
    ok(mdr_train_crew_start(&s->crew));
    for (look(s); !mdr_train_crew_over(&s->crew); look(s)) ok(mdr_train_crew_go_on(&s->crew));
}

static int64_t device_memory(void)
{
    AccelInfo info;
    ok(mdr_accel_info(0, &info));
    return info.free;
}

static void shrinks(const char *task, int32_t precision)
{
    static const int32_t slots[] = {5, 3, 2, 1};
    ArchList list = arch_of("mh-attention(n_heads=2) swiglu(dim_inner=16)");
    TrialSpec s[TRIALS];
    const TrialSpec *spec[TRIALS];
    seven(&list, task, precision, s, spec);
    Served *by_hand = mdr_alloc(sizeof *by_hand);
    const int64_t before = device_memory();
    open_crew(by_hand, spec, TRIALS, SLOTS);
    serve(by_hand);
    close_crew(by_hand);
    assert_int_equal(device_memory(), before);
    assert_int_equal(by_hand->n_slots, MDR_COUNT(slots));
    assert_memory_equal(by_hand->slots, slots, sizeof slots);
    for (int32_t i = 0; i < TRIALS; i++) {
        Seen one = {0};
        ok(queue(&spec[i], 1, 0, &one));
        same(&by_hand->seen, i, &one, 0, "shrinking");
        assert_int_equal(by_hand->seen.n_epoch[i], s[i].train.epochs);
    }
    mdr_free(by_hand);
    mdr_model_archs_free(&list);
}
static void float32_shrinks(void **state)
{
    (void)state;
    shrinks("noisy-in-context-recall", PRECISION_FLOAT32);
}
/* Trials of this task are set up with memory of their own on the device. */
static void bf16_shrinks(void **state)
{
    (void)state;
    shrinks("memorization", PRECISION_BF16);
}

/* When it is worth it: a quarter idles, or epochs are long; never while a trial waits. */
static void when(void **state)
{
    (void)state;
    QueueTrial t[8];
    QueueTrial *slot[8];
    Crew c = {.n = 8, .slot = slot, .batch = 128, .rows = 128};
    for (int i = 0; i < 8; i++) {
        t[i].walk = (Walk){0, 1 << 20, 2};
        slot[i] = &t[i];
    }
    assert_int_equal(mdr_train_crew_fewer(&c), 8);
    slot[3] = NULL;
    assert_int_equal(mdr_train_crew_fewer(&c), 8);
    slot[7] = NULL;
    assert_int_equal(mdr_train_crew_fewer(&c), 6);
    c.n_trial = 1;
    assert_int_equal(mdr_train_crew_fewer(&c), 8);
    c.next = 1;
    assert_int_equal(mdr_train_crew_fewer(&c), 6);
    slot[7] = &t[7];
    for (int i = 0; i < 8; i++) t[i].walk.epoch_steps = 128;
    assert_int_equal(mdr_train_crew_fewer(&c), 7);
    t[5].walk.epoch_steps = 127;
    assert_int_equal(mdr_train_crew_fewer(&c), 8);
    for (int i = 0; i < 8; i++) slot[i] = NULL;
    assert_int_equal(mdr_train_crew_fewer(&c), 8);
}

/* These two come first: launches are counted from the start of the process. */
static void a_device_that_fails(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[TRIALS];
    const TrialSpec *spec[TRIALS];
    seven(&list, "in-context-recall", PRECISION_FLOAT32, s, spec);
    assert_int_equal(fails_somewhere(spec, TRIALS, SLOTS), 1);
    mdr_model_archs_free(&list);
}

/* It fails while the population shrinks: who sits there goes back. */
static void fails_meanwhile(void **state)
{
    (void)state;
    ArchList list = arch_of("swiglu(dim_inner=16)");
    TrialSpec s[TRIALS];
    const TrialSpec *spec[TRIALS];
    seven(&list, "memorization", PRECISION_FLOAT32, s, spec);
    pid_t child = fork();
    if (child == 0) {
        Served *by_hand = mdr_alloc(sizeof *by_hand);
        Crew *c = &by_hand->crew;
        Err *e = NULL;
        open_crew(by_hand, spec, TRIALS, SLOTS);
        ok(mdr_train_crew_start(c));
        for (int32_t m = 0; m < 3; m++) ok(mdr_train_crew_leave(c, m));
        c->n_trial = c->next;
        setenv("MDR_EMU_FAIL_AFTER", "2000", 1);
        for (int i = 0; i < 2000 && !e; i++) e = mdr_accel_ones(by_hand->q.accel, 1, c->to_draw.first, c->to_draw.first);
        mdr_err_free(e);
        e = mdr_train_crew_shrink(c);
        close_crew(by_hand);
        const QueueProgress *now = &by_hand->q.now;
        _exit(!e || now->running != 0 || now->ended != 3 || now->waiting != TRIALS - 3);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    mdr_model_archs_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_device_that_fails), cmocka_unit_test(fails_meanwhile), cmocka_unit_test(float32_shrinks),
                                       cmocka_unit_test(bf16_shrinks), cmocka_unit_test(when)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
