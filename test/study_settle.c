/* Protocol -> config file -> tasks -> --set: the order, the forms of mad-lab's files, the refusals. */
#include "study_harness.h"

static Err *try_settle(SettleSpec s, Protocol **p, int n, ...) {
    const char *set[8];
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++) set[i] = va_arg(ap, const char *);
    va_end(ap);
    s.set = set;
    s.n_set = n;
    return mdr_study_settle(&s, p);
}

/* The files of mad-lab's configs/tasks, as they are (Apache-2.0). */
static const char *const file[][2] = {
    {"compression", "baseline:\n  vocab_size: 16\n  seq_len: 32\n  num_train_examples: 12800\n\nchanges:\n  "
                    "vocab_size: [32, 64, 128]\n"
                    "  seq_len: [64, 128, 256] \n  num_train_examples: [6400, 3200, 1600, 800]"},
    {"fuzzy-in-context-recall", "baseline:\n  vocab_size: 16\n  seq_len: 128\n  num_train_examples: 12800\n  "
                                "multi_query: True\n  k_motif_size: 3\n  v_motif_size: 3\n\n"
                                "changes:\n  vocab_size: [32, 64, 128]\n  seq_len: [256, 512, 1024]\n  "
                                "num_train_examples: [6400, 3200, 1600, 800]"},
    {"in-context-recall",
     "baseline:\n  vocab_size: 16\n  seq_len: 128\n  num_train_examples: 12800\n  multi_query: True\n\nchanges:\n"
     "  vocab_size: [32, 64, 128]\n  seq_len: [256, 512, 1024]\n  num_train_examples: [6400, 3200, 1600, 800]"},
    {"memorization", "baseline:\n  vocab_size: 256 \n  seq_len: 32\n  num_train_examples: 256\n\nchanges:\n"
                     "  vocab_size: [512, 1024, 2048, 4096, 8192]\n"},
    {"noisy-in-context-recall",
     "baseline:\n  vocab_size: 32\n  noise_vocab_size: 16\n  seq_len: 128\n  num_train_examples: 12800\n  multi_query: "
     "True\n  frac_noise: 0.2\n\n"
     "changes:\n  vocab_size: [48, 80, 144] # adding 16 for noise vocab!\n  seq_len: [256, 512, 1024]\n"
     "  num_train_examples: [6400, 3200, 1600, 800]\n  frac_noise: [0.4, 0.6, 0.8]"},
    {"selective-copying",
     "baseline:\n  vocab_size: 16\n  seq_len: 256\n  num_tokens_to_copy: 16\n  num_train_examples: 12800\n\nchanges:\n"
     "  vocab_size: [32, 64, 128]\n  seq_len: [512, 1024]\n  num_train_examples: [6400, 3200, 1600, 800]\n"
     "  num_tokens_to_copy: [32, 64, 96]"}};

/* Each file over the shipped protocol says what the protocol says already. */
static void mad_lab_files(void **state) {
    (void)state;
    for (int i = 0; i < MDR_COUNT(file); i++) {
        char name[64], path[512];
        snprintf(name, sizeof name, "%s.yml", file[i][0]);
        write_text(path_of(path, sizeof path, name), file[i][1]);
        Protocol *own, *shipped;
        must(try_settle((SettleSpec){.protocol = "mad-lab", .config = path}, &own, 0));
        must(try_settle((SettleSpec){.protocol = "mad-lab", .tasks = file[i][0]}, &shipped, 0));
        assert_int_equal(own->n_setting, shipped->n_setting);
        for (int32_t k = 0; k < own->n_setting; k++) {
            assert_ptr_equal(own->setting[k].task, shipped->setting[k].task);
            assert_memory_equal(&own->setting[k].params, &shipped->setting[k].params, sizeof(TaskParams));
            assert_memory_equal(&own->setting[k].train, &shipped->setting[k].train, sizeof(TrainParams));
            assert_string_equal(own->setting[k].change, shipped->setting[k].change);
        }
        mdr_study_protocol_free(own);
        mdr_study_protocol_free(shipped);
    }
    char path[512];
    Protocol *p;
    write_text(path_of(path, sizeof path, "memorisation.yml"), file[3][1]);
    must_hold(try_settle((SettleSpec){.config = path}, &p, 0), MDR_USER,
              "a file of baseline and changes is named after its task: there is no task `memorisation`; did you mean "
              "`memorization`?");
    write_text(path_of(path, sizeof path, "config.yml"), "base: paper\n");
    must_hold(try_settle((SettleSpec){.config = path}, &p, 0), MDR_USER, "config.yml:1:7: base belongs to a protocol");
    must_hold(try_settle((SettleSpec){.config = "/nowhere/x.yml"}, &p, 0), MDR_USER,
              "/nowhere/x.yml: cannot be opened");
}

static void order(void **state) {
    (void)state;
    char path[512];
    Protocol *p;
    write_text(path_of(path, sizeof path, "over.yml"), "train: {epochs: 5, batch_size: 32}\nmodel: {dim: 32}\n");
    must(try_settle((SettleSpec){.protocol = "taste", .config = path, .tasks = "selective-copying,in-context-recall"},
                    &p, 4, "epochs=6", "dim=48", "dim=16", "steps=11"));
    assert_int_equal(p->n_setting, 2);
    assert_string_equal(p->setting[0].task->name, "in-context-recall"); /* the table's order            */
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(p->setting[i].train.epochs, 6);
        assert_int_equal(p->setting[i].train.batch_size, 32);
        assert_int_equal(p->setting[i].train.steps, 11); /* over a task's own too        */
        assert_int_equal(p->setting[i].model.dim, 16);
    }
    mdr_study_protocol_free(p);
}

/* 600 steps, of memorization its own 100. Whoever gives epochs later means epochs. */
static void steps_are(SettleSpec s, int n, const char *one, const char *two, int32_t copying, int32_t memorization, int32_t epochs) {
    Protocol *p;
    s.tasks = "selective-copying,memorization";
    must(try_settle(s, &p, n, one, two));
    assert_string_equal(p->setting[0].task->name, "memorization");
    const TrainParams *last = &p->setting[p->n_setting - 1].train;
    assert_int_equal(p->setting[0].train.steps, memorization);
    assert_int_equal(last->steps, copying);
    assert_int_equal(last->epochs, epochs);
    mdr_study_protocol_free(p);
}
static void epochs_or_steps(void **state) {
    (void)state;
    char path[512], ground[512];
    write_text(path_of(ground, sizeof ground, "ground.yml"),
               "base: madras\ntrain: {steps: 600}\ntasks: {selective-copying: , memorization: {train: {steps: 100}}}\n");
    SettleSpec base = {.protocol = ground};
    steps_are(base, 0, NULL, NULL, 600, 100, 200);
    steps_are(base, 1, "epochs=3", NULL, 0, 0, 3);
    steps_are(base, 2, "epochs=3", "steps=9", 9, 9, 3);
    steps_are(base, 2, "steps=9", "epochs=3", 9, 9, 3); /* one place                    */
    steps_are(base, 1, "steps=9", NULL, 9, 9, 200);
    path_of(path, sizeof path, "later.yml");
    SettleSpec config = {.protocol = ground, .config = path}, over = {.protocol = path};
    write_text(path, "train: {epochs: 4}\n");
    steps_are(config, 0, NULL, NULL, 0, 0, 4);
    steps_are(config, 1, "steps=9", NULL, 9, 9, 4);
    write_text(path, "train: {epochs: 4, steps: 7}\n");
    steps_are(config, 0, NULL, NULL, 7, 100, 4); /* a task's own stay            */
    write_text(path, "train: {steps: 7}\n");
    steps_are(config, 1, "epochs=5", NULL, 0, 0, 5);
    write_text(path, "base: ground.yml\ntrain: {epochs: 4}\n"
                     "tasks: {selective-copying: {train: {steps: 11}}, memorization: {train: {batch_size: 32}}}\n");
    steps_are(over, 0, NULL, NULL, 11, 0, 4);
    write_text(path, "base: ground.yml\ntrain: {steps: 5}\n"
                     "tasks: {selective-copying: {train: {epochs: 6}}, memorization: {train: {epochs: 6, steps: 3}}}\n");
    steps_are(over, 0, NULL, NULL, 0, 3, 6);
}

static void ladder(void **state) {
    (void)state;
    Protocol *p;
    must(try_settle((SettleSpec){.tasks = "in-context-recall"}, &p, 1, "vocab_size=32"));
    assert_int_equal(p->n_setting, 11 - 3); /* its changes are gone         */
    for (int32_t i = 0; i < p->n_setting; i++) assert_int_equal(p->setting[i].params.vocab_size, 32);
    mdr_study_protocol_free(p);
    must(try_settle((SettleSpec){.tasks = "in-context-recall,memorization"}, &p, 3, "lr=3e-3", "weight_decay=0.5",
                    "backbone=autoencoder"));
    assert_true(p->n_lr == 1 && p->lr[0] == 3e-3 && p->n_decay == 1 && p->decay[0] == 0.5);
    assert_int_equal(p->setting[0].model.backbone, BACKBONE_AUTOENCODER);
    mdr_study_protocol_free(p);
    /* a key that one of the tasks chosen has */
    must(try_settle((SettleSpec){.tasks = "selective-copying,memorization"}, &p, 1, "num_tokens_to_copy=8"));
    assert_int_equal(p->n_setting, 6 + 10);
    mdr_study_protocol_free(p);
}

static void single(void **state) {
    (void)state;
    Protocol *p;
    must(try_settle((SettleSpec){.tasks = "in-context-recall", .single = true}, &p, 0));
    assert_true(p->n_setting == 1 && p->n_lr == 1 && p->n_decay == 1 && p->lr[0] == 5e-4 && p->decay[0] == 0 &&
                p->n_seed == 1);
    mdr_study_protocol_free(p);
    must(try_settle((SettleSpec){.protocol = "taste", .tasks = "in-context-recall", .single = true}, &p, 0));
    assert_true(p->lr[0] == 2e-3); /* the grid's first             */
    mdr_study_protocol_free(p);
    must(try_settle((SettleSpec){.tasks = "in-context-recall", .single = true}, &p, 1, "lr=1e-2"));
    assert_true(p->lr[0] == 1e-2 && p->setting[0].train.lr == 1e-2);
    mdr_study_protocol_free(p);
    char path[512];
    write_text(path_of(path, sizeof path, "seeds.yml"), "base: madras\nseeds: [7, 9, 11]\n");
    must(try_settle((SettleSpec){.protocol = path, .tasks = "in-context-recall", .single = true}, &p, 0));
    int32_t n;
    TrialSpec *t;
    mdr_study_trials(p, NULL, &n, &t);
    assert_true(n == 1 && t[0].seed == 7);
    mdr_free(t);
    mdr_study_protocol_free(p);
    must_say(try_settle((SettleSpec){.single = true}, &p, 0), MDR_USER, "one task must be named: one trial is trained");
}

static void seeds(void **state) {
    (void)state;
    Protocol *p;
    must(try_settle((SettleSpec){.protocol = "mad-lab", .seeds = 3}, &p, 0));
    assert_true(p->n_seed == 3 && p->seed[0] == 1 && p->seed[1] == 2 && p->seed[2] == 3);
    mdr_study_protocol_free(p);
    must(try_settle((SettleSpec){.protocol = "mad-lab", .seeds = 1}, &p, 0));
    assert_true(p->n_seed == 1 && p->seed[0] == 12345);
    mdr_study_protocol_free(p);
    must_say(try_settle((SettleSpec){.seeds = 65}, &p, 0), MDR_USER, "at most 64 seeds, got 65");
}

static void refusals(void **state) {
    (void)state;
    Protocol *p;
    must_say(try_settle((SettleSpec){.protocol = "papr"}, &p, 0), MDR_USER,
             "there is no file and no protocol `papr`; did you mean `paper`?");
    must_say(try_settle((SettleSpec){.tasks = "recal"}, &p, 0), MDR_USER,
             "there is no task `recal`; did you mean `in-context-recall`?");
    must_say(try_settle((SettleSpec){.tasks = "x"}, &p, 0), MDR_USER,
             "there is no task `x`; there are compression, fuzzy-in-context-recall, in-context-recall, memorization, "
             "noisy-in-context-recall, "
             "selective-copying");
    must_hold(try_settle((SettleSpec){.tasks = "memorization,"}, &p, 0), MDR_USER, "there is no task ``");
    must_say(try_settle((SettleSpec){0}, &p, 1, "lr"), MDR_USER, "--set wants key=value, got `lr`");
    must_say(try_settle((SettleSpec){0}, &p, 1, "=3"), MDR_USER, "--set wants key=value, got `=3`");
    must_say(try_settle((SettleSpec){0}, &p, 1, "vocabsize=3"), MDR_USER,
             "--set: there is no key `vocabsize`; did you mean `vocab_size`?");
    must_say(try_settle((SettleSpec){0}, &p, 1, "learning_rate=3"), MDR_USER,
             "--set: there is no key `learning_rate`; a layer's parameters stand in the architecture, the keys of "
             "tasks, models and training in "
             "`madras list`");
    must_say(try_settle((SettleSpec){.tasks = "memorization"}, &p, 1, "frac_noise=0.5"), MDR_USER,
             "--set: none of the tasks chosen has a key `frac_noise`; it belongs to noisy-in-context-recall");
    must_hold(try_settle((SettleSpec){0}, &p, 1, "lr=abc"), MDR_USER,
              "--set: `lr` must be a finite decimal number, got `abc`");
    must_hold(try_settle((SettleSpec){.tasks = "in-context-recall"}, &p, 1, "seq_len=33"), MDR_USER,
              "baseline: task in-context-recall: seq_len 33 is odd");
    assert_null(p);
}

/* settings x lr x decay x seeds, the last fastest. */
static void trials(void **state) {
    (void)state;
    Protocol *p;
    must(try_settle((SettleSpec){.tasks = "memorization", .seeds = 2}, &p, 0));
    int32_t n;
    TrialSpec *t;
    mdr_study_trials(p, NULL, &n, &t);
    assert_int_equal(n, 6 * 3 * 2 * 2);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(t[i].seed, i % 2 + 1);
        assert_true(t[i].train.weight_decay == (i / 2 % 2 ? 0.1 : 0));
        assert_true(t[i].train.lr == (i / 4 % 3 == 0 ? 1e-4 : i / 4 % 3 == 1 ? 5e-4 : 1e-3));
        assert_int_equal(t[i].setting.vocab_size, 256 << (i / 12));
        assert_ptr_equal(t[i].task, mdr_task_find("memorization"));
        assert_false(t[i].composed);
    }
    mdr_free(t);
    mdr_study_protocol_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mad_lab_files), cmocka_unit_test(order), cmocka_unit_test(epochs_or_steps), cmocka_unit_test(ladder), cmocka_unit_test(single),
        cmocka_unit_test(seeds),         cmocka_unit_test(refusals), cmocka_unit_test(trials)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
