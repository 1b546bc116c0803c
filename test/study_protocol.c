/* The shipped protocols are what the paper and the released code say; YAML of protocols, and every refusal of it. */
#include "study_harness.h"

static Protocol *settle(const char *protocol) {
    SettleSpec s = {.protocol = protocol};
    Protocol *p = NULL;
    must(mdr_study_settle(&s, &p));
    return p;
}

/* One line a setting: what differs from the task's defaults is of no matter here, all is printed. */
static void print(const Protocol *p, const char *task, Text *out) {
    for (int32_t i = 0; i < p->n_setting; i++)
        if (strcmp(p->setting[i].task->name, task) == 0) {
            const TaskParams *x = &p->setting[i].params;
            mdr_text_printf(out, "%d/%d/%d/%d/%g ", x->vocab_size, x->seq_len, x->num_train_examples,
                            x->num_tokens_to_copy, x->frac_noise);
        }
}

/* MAD.md section 2, setting by setting: V / L / train / copy / noise. */
static void paper_is_the_paper(void **state) {
    (void)state;
    static const char *const want[][2] = {
        {"compression",
         "16/32/12800/0/0 32/32/12800/0/0 64/32/12800/0/0 128/32/12800/0/0 16/64/12800/0/0 16/128/12800/0/0 "
         "16/256/12800/0/0 16/32/6400/0/0 16/32/3200/0/0 16/32/1600/0/0 16/32/800/0/0 "},
        {"fuzzy-in-context-recall",
         "16/128/12800/0/0 32/128/12800/0/0 64/128/12800/0/0 128/128/12800/0/0 16/256/12800/0/0 "
         "16/512/12800/0/0 16/1024/12800/0/0 16/128/6400/0/0 16/128/3200/0/0 16/128/1600/0/0 16/128/800/0/0 "},
        {"in-context-recall",
         "16/128/12800/0/0 32/128/12800/0/0 64/128/12800/0/0 128/128/12800/0/0 16/256/12800/0/0 "
         "16/512/12800/0/0 16/1024/12800/0/0 16/128/6400/0/0 16/128/3200/0/0 16/128/1600/0/0 16/128/800/0/0 "},
        {"memorization",
         "256/32/256/0/0 512/32/256/0/0 1024/32/256/0/0 2048/32/256/0/0 4096/32/256/0/0 8192/32/256/0/0 "},
        {"noisy-in-context-recall", "32/128/12800/0/0.2 48/128/12800/0/0.2 80/128/12800/0/0.2 144/128/12800/0/0.2 "
                                    "32/256/12800/0/0.2 32/512/12800/0/0.2 "
                                    "32/1024/12800/0/0.2 32/128/6400/0/0.2 32/128/3200/0/0.2 32/128/1600/0/0.2 "
                                    "32/128/800/0/0.2 32/128/12800/0/0.4 "
                                    "32/128/12800/0/0.6 32/128/12800/0/0.8 "},
        {"selective-copying",
         "16/256/12800/16/0 32/256/12800/16/0 64/256/12800/16/0 128/256/12800/16/0 16/512/12800/16/0 "
         "16/1024/12800/16/0 16/256/6400/16/0 16/256/3200/16/0 16/256/1600/16/0 16/256/800/16/0 "
         "16/256/12800/32/0 16/256/12800/64/0 16/256/12800/96/0 "}};
    static const char *const name[] = {"paper", "mad-lab", "madras"};
    for (int k = 0; k < MDR_COUNT(name); k++) {
        Protocol *p = settle(name[k]);
        int32_t n;
        TrialSpec *t;
        mdr_study_trials(p, NULL, &n, &t);
        assert_int_equal(p->n_setting, 66);
        assert_int_equal(p->n_lr * p->n_decay, 6);
        assert_int_equal(n, 396);
        int64_t steps = 0;
        for (int32_t i = 0; i < n; i++) steps += mdr_train_total_steps(&t[i]);
        assert_true(steps > 5300000 && steps < 5500000); /* 5.4 M                                         */
        for (int i = 0; i < MDR_COUNT(want); i++) {
            Text out = {0};
            print(p, want[i][0], &out);
            assert_string_equal(mdr_text_str(&out), want[i][1]);
            mdr_text_free(&out);
        }
        mdr_free(t);
        mdr_study_protocol_free(p);
    }
}

static void fields(void **state) {
    (void)state;
    static const char *const name[] = {"paper", "mad-lab", "madras", "taste"};
    for (int k = 0; k < 3; k++) {
        Protocol *p = settle(name[k]);
        bool paper = k == 0, mad_lab = k == 1;
        assert_true(p->mean_allowed);
        assert_int_equal(p->select_on_test, mad_lab);
        assert_int_equal(p->n_seed, 1);
        assert_int_equal(p->seed[0], mad_lab ? 12345 : 1);
        assert_true(p->n_lr == 3 && p->lr[0] == 1e-4 && p->lr[1] == 5e-4 && p->lr[2] == 1e-3);
        assert_true(p->n_decay == 2 && p->decay[0] == 0 && p->decay[1] == 0.1);
        assert_int_equal(p->n_default, paper ? 1 : 0);
        if (paper) {
            assert_string_equal(p->layer_default[0].layer, "swiglu");
            assert_string_equal(p->layer_default[0].key, "dim_inner");
            assert_string_equal(p->layer_default[0].value, "512");
        }
        for (int32_t i = 0; i < p->n_setting; i++) {
            const Setting *s = &p->setting[i];
            const TrainParams *t = &s->train;
            bool compression = strcmp(s->task->name, "compression") == 0,
                 fuzzy = strncmp(s->task->name, "fuzzy", 5) == 0;
            assert_int_equal(s->model.backbone, compression ? BACKBONE_AUTOENCODER : BACKBONE_LM);
            assert_int_equal(s->model.init, paper ? INIT_PAPER : INIT_MAD_LAB);
            assert_true(s->model.dim == 128 && s->model.norm == NORM_RMS && s->model.tied == 0);
            assert_true(t->beta1 == 0.9 && t->beta2 == (paper ? 0.98 : 0.999) && t->eps == 1e-8 && t->clip == 0 &&
                        t->warmup_steps == 0);
            assert_int_equal(t->scheduler, paper ? SCHEDULER_COSINE : SCHEDULER_CONSTANT);
            assert_true(t->min_lr == 1e-6 && t->epochs == 200 && t->steps == 0 && t->batch_size == 128);
            assert_int_equal(t->early_stop, paper ? STOP_NONE : mad_lab ? STOP_TEST : STOP_VALID);
            assert_int_equal(s->params.num_test_examples, 1280);
            if (fuzzy) assert_int_equal(s->params.fuzzy_in_loop, k == 2);
        }
        mdr_study_protocol_free(p);
    }
    Protocol *taste = settle("taste");
    assert_false(taste->mean_allowed);
    assert_int_equal(taste->n_setting, 6);
    assert_int_equal(taste->n_lr * taste->n_decay * taste->n_seed, 1);
    for (int32_t i = 0; i < 6; i++) {
        assert_true(taste->setting[i].train.steps > 0);
        assert_int_equal(taste->setting[i].train.early_stop, STOP_NONE);
    }
    mdr_study_protocol_free(taste);
    for (int i = 0; mdr_study_protocol_at(i); i++) mdr_study_protocol_free(settle(mdr_study_protocol_at(i)->name));
    assert_null(mdr_study_protocol_at(-1));
}

/* A file over a base: what it says replaces, what it does not say stays. */
static void file_over_base(void **state) {
    (void)state;
    char path[512], sub[512];
    write_text(path_of(sub, sizeof sub, "ground.yml"),
               "base: madras\nseeds: [7, 9]\ntrain: {lr: 2e-3, epochs: 3}\nlayers: {swiglu: {dim_inner: 64}}\n");
    write_text(
        path_of(path, sizeof path, "mine.yml"),
        "base: ground.yml\nhelp: of mine\nmean: false\ngrid: {weight_decay: [0.2]}\nlayers: {swiglu: {dim_inner: 96}}\n"
        "tasks:\n  memorization:\n  in-context-recall: {baseline: {vocab_size: 8, seq_len: 32}, changes: {seq_len: "
        "[64, 128]}, train: {steps: 17}}\n"
        "  compression: {baseline: {seq_len: 16}}\n");
    Protocol *p = settle(path);
    assert_string_equal(p->name, "mine");
    assert_string_equal(p->help, "of mine");
    assert_false(p->mean_allowed);
    assert_true(p->n_seed == 2 && p->seed[0] == 7 && p->seed[1] == 9);
    assert_true(p->n_lr == 1 && p->lr[0] == 2e-3 && p->n_decay == 1 && p->decay[0] == 0.2);
    assert_true(p->n_default == 1 && !strcmp(p->layer_default[0].value, "96"));
    assert_int_equal(p->n_setting, 1 + 3 + 6); /* compression's own ladder is empty; memorization's is the base's    */
    assert_string_equal(p->setting[0].task->name, "compression");
    assert_true(p->setting[0].params.seq_len == 16 && p->setting[0].params.vocab_size == 16 &&
                p->setting[0].train.steps == 0);
    assert_string_equal(p->setting[1].change, "");
    assert_string_equal(p->setting[3].change, "seq_len=128");
    assert_true(p->setting[3].params.seq_len == 128 && p->setting[3].params.vocab_size == 8 &&
                p->setting[3].train.steps == 17);
    assert_true(p->setting[4].train.epochs == 3 && p->setting[9].params.vocab_size == 8192);
    mdr_study_protocol_free(p);
}

static void refused_file(const char *text, const char *sentence) {
    char path[512];
    Protocol *p;
    write_text(path_of(path, sizeof path, "bad.yml"), text);
    SettleSpec s = {.protocol = path};
    must_hold(mdr_study_settle(&s, &p), MDR_USER, sentence);
    assert_null(p);
}
static void refusals(void **state) {
    (void)state;
    char path[512];
    write_text(path_of(path, sizeof path, "ring.yml"), "base: ./bad.yml\n");
    refused_file("base: ring.yml\n", "bad.yml:1:7: ");
    refused_file("base: ring.yml\n", "ring.yml:1:7: protocol `./bad.yml` is its own base");
    refused_file("base: madras\ntask: {}\n", "bad.yml:2:7: unknown key `task`; did you mean `tasks`?");
    refused_file("base: madrs\n",
                 "bad.yml:1:7: there is no file and no protocol `madrs`; did you mean `madras`?");
    refused_file("base: bad.yml\n", "bad.yml:1:7: protocol `bad.yml` is its own base");
    refused_file("help: nothing\n", "protocol `bad` has no tasks");
    refused_file("base: madras\ntrain: {epoch: 3}\n",
                 "bad.yml:2:16: unknown parameter `epoch`; did you mean `epochs`?");
    refused_file("base: madras\ntrain: {epochs: 0}\n", "bad.yml:2:17: `epochs` must be 1..");
    refused_file("base: madras\ntrain: 3\n", "bad.yml:2:8: train must be a map of keys and values");
    refused_file("base: madras\nseeds: 0\n", "there must be 1..64 seeds");
    refused_file("base: madras\nseeds: 65\n", "there must be 1..64 seeds");
    refused_file("base: madras\nseeds: [3, 3]\n", "seed 3 stands twice");
    refused_file("base: madras\nseeds: some\n", "seeds must be a number or a list, got `some`");
    refused_file("base: madras\nselect: train\n", "`select` must be one of valid|test, got `train`");
    refused_file("base: madras\ngrid: {lr: []}\n", "lr must have 1..16 values");
    refused_file("base: madras\ngrid: {lr: [1e-3, 0.001]}\n", "stands twice in the grid");
    refused_file("base: madras\ngrid: {beta1: [0.9]}\n", "a grid has lr and weight_decay, not `beta1`");
    refused_file("base: madras\nlayers: {swigl: {dim_inner: 3}}\n",
                 "there is no layer `swigl`; did you mean `swiglu`?");
    refused_file("base: madras\nlayers: {swiglu: {dim_iner: 3}}\n",
                 "unknown parameter `dim_iner`; did you mean `dim_inner`?");
    refused_file("base: madras\ntasks: {memorisation: }\n",
                 "there is no task `memorisation`; did you mean `memorization`?");
    refused_file("base: madras\ntasks: {memorization: {base: {}}}\n",
                 "a task has baseline, changes and train, not `base`");
    refused_file("base: madras\ntasks: {memorization: {baseline: {frac_noise: 0.5}}}\n",
                 "memorization: unknown parameter `frac_noise`");
    refused_file("base: madras\ntasks: {memorization: {changes: {seq_len: 64}}}\n", "seq_len must be a list");
    refused_file("base: madras\ntasks: {memorization: {changes: {seq_len: [64, 32]}}}\n",
                 "memorization, seq_len=32: is the same setting as the baseline");
    refused_file("base: madras\ntasks: {memorization: {train: {lr: 1}}}\n", "lr is of the grid, which all tasks share");
    refused_file("base: madras\ntasks: {selective-copying: {changes: {seq_len: [33]}}}\n",
                 "seq_len=33: task selective-copying: seq_len 33 is too short");
    refused_file("- a\n", "a protocol must be a map of keys and values");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(paper_is_the_paper), cmocka_unit_test(fields),
                                       cmocka_unit_test(file_over_base), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
