/* memorization: one map for all splits, uniform keys, the ceiling set by what training shows. */
#include "task_harness.h"

static Draw w;

static int32_t key_count(const TaskParams *p) { return (p->vocab_size - 1) / 2; }

/* Reads the map off a split into map[], -1 where a key was not seen; checks the form; counts keys. */
static void read_map(const TaskParams *p, Split split, uint64_t seed, int32_t n, int32_t *map, double *count) {
    const TaskDef *t = mdr_task_find("memorization");
    int32_t keys = key_count(p);
    for (int32_t k = 0; k < keys; k++) map[k] = -1;
    draw_open(&w, t, p, split, seed);
    assert_int_equal(w.rows, p->seq_len / 2 * 2);
    for (int32_t i = 0; i < n; i++) {
        draw(&w, i);
        for (int32_t s = 0; s < w.rows; s += 2) {
            int32_t k = w.tokens[s], v = w.targets[s + 1];
            assert_in_range(k, 0, keys - 1);
            assert_in_range(v, keys, p->vocab_size - 2);
            assert_int_equal(w.tokens[s + 1], p->vocab_size - 1);
            assert_int_equal(w.targets[s], MDR_IGNORE);
            if (map[k] >= 0) assert_int_equal(map[k], v);
            map[k] = v;
            if (count) count[k]++;
        }
    }
    draw_close(&w);
}

static void law(void **state) {
    (void)state;
    static const char *const word[][2] = {{"vocab_size=256", "seq_len=32"},
                                          {"vocab_size=3", "seq_len=2"},
                                          {"vocab_size=4", "seq_len=7"},
                                          {"vocab_size=16", "seq_len=33"}};
    for (int32_t r = 0; r < MDR_COUNT(word); r++) {
        TaskParams p;
        SETTING(&p, "memorization", word[r][0], word[r][1]);
        int32_t n = example_count(), keys = key_count(&p), map[SPLIT_COUNT][256], used[256] = {0};
        double count[256] = {0};
        print_message("# seed %d, %d sequences\n", SEED + 3, n);
        for (int32_t s = 0; s < SPLIT_COUNT; s++) read_map(&p, (Split)s, SEED + 3, n, map[s], s ? NULL : count);
        assert_memory_equal(map[SPLIT_TRAIN], map[SPLIT_TEST], (size_t)keys * sizeof(int32_t));
        assert_memory_equal(map[SPLIT_TRAIN], map[SPLIT_VALID], (size_t)keys * sizeof(int32_t));
        for (int32_t k = 0; k < keys; k++) {
            count4("a key", count[k], (double)n * (p.seq_len / 2), 1.0 / keys);
            assert_int_equal(used[map[0][k]]++, 0);   /* every key has its own value */
        }
    }
}

/* The map is a uniform choice over seeds: key 0 has each of the 4 values equally often. It does not move with the
 * sizes. */
static void map_and_seed(void **state) {
    (void)state;
    TaskParams p;
    SETTING(&p, "memorization", "vocab_size=8");
    double value[8] = {0};
    int32_t seeds = 4000, map[8];
    for (int32_t s = 0; s < seeds; s++) {
        read_map(&p, SPLIT_TRAIN, (uint64_t)s, 3, map, NULL);
        if (map[0] >= 0) value[map[0]]++;
    }
    double all = value[3] + value[4] + value[5] + value[6];
    for (int32_t v = 3; v < 7; v++) count4("the value of key 0 over seeds", value[v], all, 0.25);
    SETTING(&p, "memorization", "vocab_size=256");
    int32_t a[256], b[256];
    read_map(&p, SPLIT_TRAIN, 5, 300, a, NULL);
    p.num_train_examples = 800, p.num_test_examples = 17;
    read_map(&p, SPLIT_TRAIN, 5, 300, b, NULL);
    assert_memory_equal(a, b, 127 * sizeof(int32_t));
    read_map(&p, SPLIT_TRAIN, 6, 300, b, NULL);
    assert_memory_not_equal(a, b, 127 * sizeof(int32_t));
}

/* The oracle knows exactly the keys that the training set shows. */
static void oracle_knows_training(void **state) {
    (void)state;
    static const int32_t vocab[] = {256, 1024, 8192};
    for (int32_t r = 0; r < MDR_COUNT(vocab); r++) {
        TaskParams p;
        const TaskDef *t = SETTING(&p, "memorization", "seq_len=32");
        p.vocab_size = vocab[r];
        int32_t *map = malloc((size_t)p.vocab_size * sizeof *map);
        read_map(&p, SPLIT_TRAIN, SEED, p.num_train_examples, map, NULL);
        draw_open(&w, t, &p, SPLIT_TEST, SEED);
        for (int32_t i = 0; i < 2000; i++) {
            draw_and_answer(&w, i);
            for (int32_t s = 0; s < w.rows; s++) assert_int_equal(w.answer[s], s % 2 ? map[w.tokens[s - 1]] : -1);
        }
        draw_close(&w);
        free(map);
    }
}

/* The six published sizes show these shares of the keys on average; the realised share scatters with the training set:
 * Var(unseen) = K q + K(K-1)(1 - 2/K)^m - K^2 q^2, q = (1 - 1/K)^m. */
static void ceiling(void **state) {
    (void)state;
    static const struct { int32_t vocab; double ceiling; } row[] = {{256, 1}, {512, 1}, {1024, .9997},
                                                                     {2048, .9818}, {4096, .8649}, {8192, .6323}};
    for (int32_t r = 0; r < MDR_COUNT(row); r++) {
        TaskParams p;
        TaskLevels l;
        const TaskDef *t = SETTING(&p, "memorization", "seq_len=32");
        p.vocab_size = row[r].vocab;
        t->levels(&p, &l);
        if (!(fabs(l.ceiling - row[r].ceiling) < 5e-5)) fail_msg("V %d: ceiling %g", p.vocab_size, l.ceiling);
        double keys = key_count(&p), m = p.num_train_examples * 16.0, q = pow(1 - 1 / keys, m);
        double var = keys * q + keys * (keys - 1) * pow(1 - 2 / keys, m) - keys * keys * q * q;
        check_levels(t, &p, SEED + 1, example_count() / 4, sqrt(fmax(0, var)) / keys + 1e-12);
    }
}

/* Few draws: 3 sequences of 2 keys over 5; the mean over many seeds meets the expectation. */
static void ceiling_over_seeds(void **state) {
    (void)state;
    TaskParams p;
    TaskLevels l;
    const TaskDef *t = SETTING(&p, "memorization", "vocab_size=11", "seq_len=4", "num_train_examples=3");
    t->levels(&p, &l);
    assert_true(fabs(l.ceiling - (1 - pow(0.8, 6))) < 1e-12);
    double sum = 0, square = 0;
    int32_t seeds = 5000, tests = 8;
    for (int32_t s = 0; s < seeds; s++) {
        double right = 0;
        draw_open(&w, t, &p, SPLIT_TEST, (uint64_t)s);
        for (int32_t i = 0; i < tests; i++) {
            draw_and_answer(&w, i);
            for (int32_t j = 1; j < w.rows; j += 2) right += w.answer[j] == w.targets[j];
        }
        draw_close(&w);
        right /= tests * 2;
        sum += right, square += right * right;
    }
    double mean = sum / seeds;
    within4("mean ceiling", mean, l.ceiling, sqrt((square / seeds - mean * mean) / seeds));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(law),     cmocka_unit_test(map_and_seed),       cmocka_unit_test(oracle_knows_training),
        cmocka_unit_test(ceiling), cmocka_unit_test(ceiling_over_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
