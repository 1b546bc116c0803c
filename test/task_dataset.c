/* Data sets: the table of tasks, defaults, canonical text, streams, every refusal with its sentence, and golden
 * sequences that notice any change of a task's law or of its draws. */
#include "task_harness.h"
#include <pthread.h>

static void table(void **state) {
    (void)state;
    static const char *const name[] = {"compression", "fuzzy-in-context-recall", "in-context-recall", "memorization",
                                       "noisy-in-context-recall", "selective-copying"};
    for (int32_t i = 0; i < MDR_COUNT(name); i++) {
        const TaskDef *t = mdr_task_at(i);
        assert_non_null(t);
        assert_string_equal(t->name, name[i]);
        assert_ptr_equal(mdr_task_find(name[i]), t);
        assert_string_equal(t->backbone, i == 0 ? "autoencoder" : "language-model");
    }
    assert_null(mdr_task_at(MDR_COUNT(name)));
    assert_null(mdr_task_at(-1));
    assert_null(mdr_task_find("recall"));
}

/* The baselines of the published benchmark, as canonical text. */
static void defaults(void **state) {
    (void)state;
    static const char *const text[] = {"compression num_test_examples=1280 num_train_examples=12800 seq_len=32 "
                                       "vocab_size=16",
                                       "fuzzy-in-context-recall fuzzy_in_loop=true k_motif_size=3 multi_query=true "
                                       "num_test_examples=1280 num_train_examples=12800 "
                                       "seq_len=128 v_motif_size=3 vocab_size=16",
                                       "in-context-recall multi_query=true num_test_examples=1280 "
                                       "num_train_examples=12800 seq_len=128 vocab_size=16",
                                       "memorization num_test_examples=1280 num_train_examples=256 seq_len=32 "
                                       "vocab_size=256",
                                       "noisy-in-context-recall frac_noise=0.2 multi_query=true noise_vocab_size=16 "
                                       "num_test_examples=1280 num_train_examples=12800 "
                                       "seq_len=128 vocab_size=32",
                                       "selective-copying num_test_examples=1280 num_tokens_to_copy=16 "
                                       "num_train_examples=12800 seq_len=256 vocab_size=16"};
    for (int32_t i = 0; i < MDR_COUNT(text); i++) {
        TaskParams p;
        Text t = {0};
        mdr_task_defaults(mdr_task_at(i), &p);
        mdr_task_text(mdr_task_at(i), &p, &t);
        assert_string_equal(mdr_text_str(&t), text[i]);
        must(mdr_task_check(mdr_task_at(i), &p));
        mdr_text_free(&t);
    }
}

static void refused(const char *sentence, const char *name, const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, name, words);
    Dataset *d;
    Err *e = mdr_task_open(t, &p, SPLIT_TRAIN, SEED, &d);
    if (!e) fail_msg("accepted: %s", sentence);
    assert_null(d);
    assert_string_equal(mdr_err_text(e), sentence);
    assert_int_equal(mdr_err_code(e), MDR_USER);
    mdr_err_free(e);
}
#define REFUSED(sentence, name, ...) refused(sentence, name, (const char *const[]){__VA_ARGS__, NULL})

static void refusals(void **state) {
    (void)state;
    REFUSED("task in-context-recall: seq_len 127 is odd: pairs of a key and its value fill it, so it must be even",
            "in-context-recall", "seq_len=127");
    REFUSED("task in-context-recall: vocab_size 2 is too small: a key, a value and the copy prefix need at least 3",
            "in-context-recall", "vocab_size=2", "multi_query=false");
    REFUSED("task noisy-in-context-recall: vocab_size 17 is too small: a key, a value, noise_vocab_size 16 need at "
            "least 18",
            "noisy-in-context-recall", "vocab_size=17");
    REFUSED("task noisy-in-context-recall: vocab_size 18 is too small: a key, a value, noise_vocab_size 16 and the "
            "copy prefix need "
            "at least 19",
            "noisy-in-context-recall", "vocab_size=18", "multi_query=false");
    REFUSED("task noisy-in-context-recall: frac_noise 1 makes noise of every pair: it must be under 1",
            "noisy-in-context-recall", "frac_noise=1");
    REFUSED("task noisy-in-context-recall: frac_noise is over 0 but noise_vocab_size is 0: it must be at least 1",
            "noisy-in-context-recall", "noise_vocab_size=0");
    REFUSED("task fuzzy-in-context-recall: seq_len 12 is too short for k_motif_size 3 and v_motif_size 3: it must be "
            "over 12",
            "fuzzy-in-context-recall", "seq_len=12");
    REFUSED("task fuzzy-in-context-recall: vocab_size 6 is too small for k_motif_size 3 and v_motif_size 3, whose "
            "symbols do not "
            "repeat within a motif: it must be at least 7",
            "fuzzy-in-context-recall", "vocab_size=6");
    REFUSED("task fuzzy-in-context-recall: vocab_size 8 is too small for k_motif_size 1 and v_motif_size 4, whose "
            "symbols do not "
            "repeat within a motif: it must be at least 9",
            "fuzzy-in-context-recall", "vocab_size=8", "k_motif_size=1", "v_motif_size=4", "multi_query=false");
    REFUSED("task selective-copying: seq_len 32 is too short to copy 16 tokens: it must be over 33",
            "selective-copying", "seq_len=32");
    REFUSED("task selective-copying: seq_len 33 is too short to copy 16 tokens: it must be over 33",
            "selective-copying", "seq_len=33");
}

/* What the sentences call enough is enough, and one less is not. */
static void just_enough(void **state) {
    (void)state;
    static const char *const word[][6] = {
        {"in-context-recall", "vocab_size=3", "multi_query=false"},
        {"noisy-in-context-recall", "vocab_size=18"},
        {"noisy-in-context-recall", "vocab_size=19", "multi_query=false"},
        {"fuzzy-in-context-recall", "seq_len=13"},
        {"fuzzy-in-context-recall", "vocab_size=7"},
        {"fuzzy-in-context-recall", "vocab_size=9", "k_motif_size=1", "v_motif_size=4", "multi_query=false"},
        {"selective-copying", "seq_len=34"},
    };
    for (int32_t i = 0; i < MDR_COUNT(word); i++) {
        TaskParams p;
        const TaskDef *t = setting(&p, word[i][0], word[i] + 1);
        must(mdr_task_check(t, &p));
    }
    TaskParams p;
    for (int32_t multi = 0; multi < 2; multi++)
        for (int32_t k = 1; k <= 8; k++)
            for (int32_t v = 1; v <= 8; v++) {   /* the smallest vocabulary named is the smallest accepted */
                const TaskDef *t = SETTING(&p, "fuzzy-in-context-recall", "seq_len=64");
                p.k_motif_size = k, p.v_motif_size = v, p.multi_query = multi, p.vocab_size = 3;
                Err *e = mdr_task_check(t, &p);
                if (!e) continue;
                const char *at = strstr(mdr_err_text(e), "at least ");
                assert_non_null(at);
                p.vocab_size = atoi(at + strlen("at least "));
                mdr_err_free(e);
                must(mdr_task_check(t, &p));
                p.vocab_size--;
                e = mdr_task_check(t, &p);
                assert_non_null(e);
                mdr_err_free(e);
            }
}

/* Every value is bounded on both sides, also when it did not come through the parser. */
static void bounds(void **state) {
    (void)state;
    for (int32_t i = 0; mdr_task_at(i); i++)
        for (const Param *row = mdr_task_at(i)->params; row->name; row++)
            for (int32_t way = 0; way < 2 && row->type != MDR_BOOL; way++) {
                TaskParams p;
                mdr_task_defaults(mdr_task_at(i), &p);
                if (row->type == MDR_REAL) *(double *)((char *)&p + row->offset) = way ? (double)NAN : row->lo - 0.5;
                else *(int32_t *)((char *)&p + row->offset) = (int32_t)(way ? row->hi + 1 : row->lo - 1);
                Err *e = mdr_task_check(mdr_task_at(i), &p);
                if (!e) fail_msg("%s: %s accepted", mdr_task_at(i)->name, row->name);
                assert_non_null(strstr(mdr_err_text(e), row->name));
                assert_non_null(strstr(mdr_err_text(e), mdr_task_at(i)->name));
                mdr_err_free(e);
            }
}

typedef struct Bytes { int32_t tokens[512], targets[512]; } Bytes;

static Dataset *open_default(int32_t task, Split split, uint64_t seed, int32_t train) {
    TaskParams p;
    Dataset *d;
    mdr_task_defaults(mdr_task_at(task), &p);
    if (train) p.num_train_examples = train;
    must(mdr_task_open(mdr_task_at(task), &p, split, seed, &d));
    return d;
}

static Bytes example(const Dataset *d, int64_t i) {
    Bytes b;
    memset(&b, 0, sizeof b);
    mdr_task_example(d, i, b.tokens, b.targets);
    return b;
}

static bool equal(const Bytes *a, const Bytes *b) { return memcmp(a, b, sizeof *a) == 0; }

/* Same seed, same bytes, whatever was asked before; another seed, split or index, other bytes; sizes leave examples
 * alone. */
static void streams(void **state) {
    (void)state;
    for (int32_t t = 0; mdr_task_at(t); t++) {
        Dataset *a = open_default(t, SPLIT_TRAIN, 7, 0), *b = open_default(t, SPLIT_TRAIN, 7, 100);
        Dataset *other[] = {open_default(t, SPLIT_TRAIN, 8, 0), open_default(t, SPLIT_VALID, 7, 0),
                            open_default(t, SPLIT_TEST, 7, 0)};
        Bytes first = example(a, 5);
        for (int64_t i = 0; i < 40; i++) example(a, i * 3);
        Bytes again = example(a, 5), same = example(b, 5), next = example(a, 6);
        assert_true(equal(&first, &again));
        assert_true(equal(&first, &same));
        assert_false(equal(&first, &next));
        for (int32_t o = 0; o < MDR_COUNT(other); o++) {
            Bytes x = example(other[o], 5);
            assert_memory_not_equal(x.tokens, first.tokens, sizeof x.tokens);
            mdr_task_close(other[o]);
        }
        assert_int_equal(mdr_task_size(b), 100);
        mdr_task_close(a), mdr_task_close(b);
        Dataset *v = open_default(t, SPLIT_VALID, 7, 100);
        assert_int_equal(mdr_task_size(v), 1280);
        mdr_task_close(v);
    }
    mdr_task_close(NULL);
}

typedef struct Job { const Dataset *d; Bytes got[500]; } Job;
static void *draw_many(void *arg) {
    Job *j = arg;
    for (int32_t i = 0; i < 500; i++) j->got[i] = example(j->d, i);
    return NULL;
}

static void threads(void **state) {
    (void)state;
    static Job job[3];
    for (int32_t t = 0; mdr_task_at(t); t++) {
        Dataset *d = open_default(t, SPLIT_TEST, 3, 0);
        pthread_t thread[2];
        for (int32_t i = 0; i < 3; i++) job[i].d = d;
        for (int32_t i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, draw_many, &job[i]), 0);
        draw_many(&job[2]);
        for (int32_t i = 0; i < 2; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
        for (int32_t i = 0; i < 2; i++) assert_memory_equal(job[i].got, job[2].got, sizeof job[2].got);
        mdr_task_close(d);
    }
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* No two of the baselines' training, validation and test sequences are the same (by a 64-bit hash of the tokens). */
static void splits_share_nothing(void **state) {
    (void)state;
    for (int32_t t = 0; mdr_task_at(t); t++) {
        static uint64_t hash[40000];
        int32_t n = 0;
        for (int32_t s = 0; s < SPLIT_COUNT; s++) {
            Dataset *d = open_default(t, (Split)s, SEED, 0);
            for (int64_t i = 0; i < mdr_task_size(d); i++) {
                Bytes b = example(d, i);
                uint64_t h = 1469598103934665603u;
                for (int32_t j = 0; j < mdr_task_rows(d); j++) h = (h ^ (uint64_t)b.tokens[j]) * 1099511628211u;
                hash[n++] = h;
            }
            mdr_task_close(d);
        }
        qsort(hash, (size_t)n, sizeof *hash, by_value);
        for (int32_t i = 1; i < n; i++) assert_true(hash[i] != hash[i - 1]);
    }
}

/* ---- golden: example 0, seed 1, training (in words) and test (in numbers, "-" ignored) ---- */
typedef struct Golden { const char *name, *word[6], *train, *test; } Golden;
static const Golden golden[] = {
    {"compression",
     {"vocab_size=8", "seq_len=10"},
     "s0 s3 s4 s6 s5 s3 s2 s2 s0 compress / 0 3 4 6 5 3 2 2 0 7",
     "5 6 3 3 2 6 3 1 3 7 / 5 6 3 3 2 6 3 1 3 7"},
    {"fuzzy-in-context-recall",
     {"vocab_size=10", "seq_len=26", "k_motif_size=2", "v_motif_size=2"},
     "pad pad pad k3 v4 k1 v4 v0 k0 k3 v1 k2 k1 v4 v2 k1 v4 v0 k1 v4 v0 k1 k0 v2 v0 k3 / 9 9 3 8 1 8 4 0 3 5 2 1 8 6 1 "
     "8 4 1 8 4 1 0 6 4 3 8",
     "9 9 9 9 2 1 8 3 0 5 4 1 2 6 4 1 2 6 4 3 2 8 5 3 2 8 / - - - - - - - - - - - - - - - - 6 4 - - - - - - 8 5"},
    {"fuzzy-in-context-recall",
     {"vocab_size=12", "seq_len=21", "k_motif_size=2", "v_motif_size=2", "multi_query=false"},
     "pad pad pad pad k3 k2 v1 k3 v2 k1 v4 k4 v4 k2 v1 v2 k2 k1 v2 copy k1 / 10 10 10 3 2 6 3 7 1 9 4 9 2 6 7 2 1 7 11 "
     "1 9",
     "10 0 1 9 7 4 1 7 4 1 7 0 2 6 4 0 9 7 11 0 2 / - - - - - - - - - - - - - - - - - - - - 6"},
    {"in-context-recall",
     {"vocab_size=8", "seq_len=16"},
     "k0 v3 k2 v3 k0 v3 k1 v3 k0 v3 k0 v3 k1 v3 k2 / 7 2 7 0 7 1 7 0 7 0 7 1 7 2 7",
     "2 6 0 6 2 6 0 6 3 4 3 4 3 4 3 / - - - - 6 - 6 - - - 4 - 4 - 4"},
    {"in-context-recall",
     {"vocab_size=8", "seq_len=12", "multi_query=false"},
     "k1 v1 k0 v0 k2 v0 k1 v1 k1 v1 copy k0 / 4 0 3 2 3 1 4 1 4 7 0 3",
     "1 6 2 3 1 6 2 3 1 6 7 2 / - - - - - - - - - - - 3"},
    {"memorization",
     {"vocab_size=12", "seq_len=9"},
     "k4 insert k2 insert k0 insert k4 insert / - 7 - 6 - 10 - 7",
     "3 11 4 11 4 11 4 11 / - 9 - 7 - 7 - 7"},
    {"noisy-in-context-recall",
     {"vocab_size=12", "seq_len=20", "noise_vocab_size=4", "frac_noise=0.4"},
     "k0 v2 k1 v2 k2 v0 k2 v0 k2 v0 k2 v0 n2 n0 n1 n0 k1 v2 k0 / 6 1 6 2 4 2 4 2 4 2 4 10 8 9 8 1 6 0 6",
     "3 4 11 11 1 7 0 6 2 7 3 4 11 11 2 7 1 7 3 / - - - - - - - - - - 4 - - - 7 - 7 - 4"},
    {"selective-copying",
     {"vocab_size=8", "seq_len=18", "num_tokens_to_copy=4"},
     "s3 . . . . . s5 . . . s1 . s0 copy . . . . / - - - - - - - - - - - - - - 3 5 1 0",
     "6 6 4 6 6 6 2 6 6 3 6 6 1 7 6 6 6 6 / - - - - - - - - - - - - - - 4 2 3 1"},
};

static void print_example(const TaskDef *t, const TaskParams *p, Split s, Text *out) {
    Dataset *d;
    must(mdr_task_open(t, p, s, 1, &d));
    Bytes b = example(d, 0);
    for (int32_t i = 0; i < mdr_task_rows(d); i++) {
        char buf[16];
        t->token_text(p, b.tokens[i], buf);
        if (s == SPLIT_TRAIN) mdr_text_printf(out, "%s%s", i ? " " : "", buf);
        else mdr_text_printf(out, "%s%d", i ? " " : "", b.tokens[i]);
    }
    mdr_text_printf(out, " /");
    for (int32_t i = 0; i < mdr_task_rows(d); i++) {
        if (b.targets[i] == MDR_IGNORE) mdr_text_printf(out, " -");
        else mdr_text_printf(out, " %d", b.targets[i]);
    }
    mdr_task_close(d);
}

static void golden_sequences(void **state) {
    (void)state;
    for (int32_t i = 0; i < MDR_COUNT(golden); i++) {
        TaskParams p;
        const TaskDef *t = setting(&p, golden[i].name, golden[i].word);
        Text train = {0}, test = {0};
        print_example(t, &p, SPLIT_TRAIN, &train);
        print_example(t, &p, SPLIT_TEST, &test);
        if (strcmp(mdr_text_str(&train), golden[i].train) || strcmp(mdr_text_str(&test), golden[i].test))
            fail_msg("%s:\n     \"%s\",\n     \"%s\"},", t->name, mdr_text_str(&train), mdr_text_str(&test));
        mdr_text_free(&train), mdr_text_free(&test);
    }
}

/* A core must make 20 million tokens a second; where machine or sanitizer is slower, drawing may at least not cost more
 * than 25 times its random numbers (some 71 a sequence), timed in turns. */
static void speed(void **state) {
    (void)state;
    Dataset *d = open_default(2, SPLIT_TRAIN, 1, 0);
    double best = 1e9, numbers = 1e9;
    uint32_t sum = 0;
    for (int32_t r = 0; r < 7; r++) {
        double start = mdr_clock();
        for (int64_t i = 0; i < 2000; i++) example(d, i);
        best = fmin(best, mdr_clock() - start);
        start = mdr_clock();
        for (uint64_t i = 0; i < 2000; i++) {
            Rng g = mdr_rng(1, i);
            for (int32_t j = 0; j < 71; j++) sum += mdr_rng_u32(&g);
        }
        numbers = fmin(numbers, mdr_clock() - start);
    }
    double rate = 2000 * 127 / best / 1e6;
    print_message("# in-context-recall: %.0f million tokens a second, %.1f times its random numbers (%u)\n", rate,
                  best / numbers, sum);
    if (!(rate >= 20 || best / numbers <= 25)) fail_msg("only %.2f million tokens a second", rate);
    mdr_task_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(defaults),
        cmocka_unit_test(refusals),
        cmocka_unit_test(just_enough),
        cmocka_unit_test(bounds),
        cmocka_unit_test(streams),
        cmocka_unit_test(threads),
        cmocka_unit_test(splits_share_nothing),
        cmocka_unit_test(golden_sequences),
        cmocka_unit_test(speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
