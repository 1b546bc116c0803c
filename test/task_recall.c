/* in-context-recall and noisy-in-context-recall: their law by counting, oracle, chance. */
#include "task_harness.h"

static Draw w;

/* Counts of one setting, gathered from the tokens alone. Every statistic is a sum of independent or martingale terms,
 * so its variance is known. */
typedef struct Counts {
    double pairs, noise, firsts, distinct_sum, wanted, rank, rank_var, key[64], value[64], noise_symbol[64], real[256];
} Counts;

typedef struct Shape { int32_t keys, values, noise, n, multi; } Shape;

static Shape shape(const TaskParams *p) {
    int32_t usable = p->vocab_size - p->noise_vocab_size - !p->multi_query;
    return (Shape){usable / 2, usable - usable / 2, p->noise_vocab_size, p->seq_len / 2, p->multi_query};
}

/* Checks one sequence exactly where the law is exact and adds to the counts where it is random. */
static void count_sequence(const Shape *s, Counts *c) {
    int32_t value[64], order[64], distinct = 0, real = 0, wanted = 0;
    for (int32_t k = 0; k < s->keys; k++) value[k] = -1;
    for (int32_t i = 0; i < s->n - 1; i++) {
        int32_t k = w.tokens[2 * i], v = w.tokens[2 * i + 1], want = w.targets[2 * i];
        assert_int_equal(w.targets[2 * i + 1], MDR_IGNORE);
        c->pairs++;
        if (k >= s->keys) {   /* noise: two symbols above the values */
            assert_in_range(k, s->keys + s->values, s->keys + s->values + s->noise - 1);
            assert_in_range(v, s->keys + s->values, s->keys + s->values + s->noise - 1);
            assert_int_equal(want, MDR_IGNORE);
            c->noise++, c->noise_symbol[k - s->keys - s->values]++, c->noise_symbol[v - s->keys - s->values]++;
            continue;
        }
        real++, c->key[k]++;
        assert_in_range(v, s->keys, s->keys + s->values - 1);
        if (value[k] < 0) {
            value[k] = v, order[distinct++] = k;
            c->firsts++, c->value[v - s->keys]++;
            assert_int_equal(want, MDR_IGNORE);
        } else {
            assert_int_equal(v, value[k]);
            assert_int_equal(want, s->multi ? v : MDR_IGNORE);
            wanted += s->multi;
        }
    }
    int32_t last = w.rows - 1, probe = w.tokens[last], rank = 0;
    if (!s->multi) {
        assert_int_equal(w.rows, 2 * s->n);
        assert_int_equal(w.tokens[last - 1], s->keys + s->values + s->noise);
        assert_int_equal(w.targets[last - 1], MDR_IGNORE);
    } else {
        assert_int_equal(w.rows, 2 * s->n - 1);
    }
    while (rank < distinct && order[rank] != probe) rank++;
    assert_true(rank < distinct);
    assert_int_equal(w.targets[last], value[probe]);
    c->rank += (rank + 0.5) / distinct - 0.5;
    c->rank_var += (1 - 1.0 / distinct / distinct) / 12;
    c->distinct_sum += distinct, c->wanted += wanted + 1, c->real[real]++;
}

/* Probability of r real pairs: the protected one (unless it is the unused last) and those that escape noise; at least
 * one. */
static double real_pairs(int32_t n, double f, int32_t r) {
    if (r == 0) return 0;   /* drawn again */
    double q = 0;
    for (int32_t spared = 0; spared < 2; spared++) {
        int32_t m = n - 1 - spared, k = r - spared;
        if (k < 0 || k > m) continue;
        double log_c = lgamma(m + 1) - lgamma(k + 1) - lgamma(m - k + 1);
        double power = (f > 0 ? (m - k) * log(f) : m == k ? 0 : -INFINITY) + k * log1p(-f);
        q += (spared ? 1 - 1.0 / n : 1.0 / n) * exp(log_c + power);
    }
    return q / (1 - pow(f, n - 1) / n);
}

static void law(const char *name, const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, name, words);
    Shape s = shape(&p);
    Counts c = {0};
    int32_t n = example_count();
    print_message("# seed %d, %d sequences\n", SEED, n);
    draw_open(&w, t, &p, SPLIT_TEST, SEED);
    for (int32_t i = 0; i < n; i++) {
        draw(&w, i);
        count_sequence(&s, &c);
    }
    draw_close(&w);
    for (int32_t k = 0; k < s.keys; k++) count4("a key", c.key[k], c.pairs - c.noise, 1.0 / s.keys);
    for (int32_t v = 0; v < s.values; v++) count4("a value", c.value[v], c.firsts, 1.0 / s.values);
    for (int32_t v = 0; v < s.noise; v++) count4("a noise symbol", c.noise_symbol[v], 2 * c.noise, 1.0 / s.noise);
    within4("the probe among the keys shown", c.rank, 0, sqrt(c.rank_var));
    double mean = 0, mean_distinct = 0, var_distinct = 0, keys = s.keys;
    for (int32_t r = 0; r < s.n; r++) {
        double q = real_pairs(s.n, p.frac_noise, r), all = pow(1 - 1 / keys, r),
               two = keys > 1 ? pow(1 - 2 / keys, r) : 0;
        count4("sequences by real pairs", c.real[r], n, fmin(q, 1));
        double d = keys * (1 - all);
        mean += q * r;
        mean_distinct += q * d;
        var_distinct += q * (d * d + keys * (keys - 1) * two + keys * all - keys * keys * all * all);
    }
    var_distinct = fmax(0, var_distinct - mean_distinct * mean_distinct);
    within4("distinct keys", c.distinct_sum / n, mean_distinct, sqrt(var_distinct / n));
    if (s.multi) assert_true(c.wanted == c.pairs - c.noise - c.distinct_sum + n);
    else assert_true(c.wanted == n);
    print_message("# %s: real pairs %.3f (law %.3f), distinct keys %.4f (law %.4f)\n", name, (c.pairs - c.noise) / n,
                  mean, c.distinct_sum / n, mean_distinct);
}
#define LAW(name, ...) law(name, (const char *const[]){__VA_ARGS__, NULL})

static void in_context_law(void **state) {
    (void)state;
    LAW("in-context-recall", "seq_len=128");
    LAW("in-context-recall", "seq_len=16", "multi_query=false");
    LAW("in-context-recall", "vocab_size=33", "seq_len=20");
}

static void noisy_law(void **state) {
    (void)state;
    LAW("noisy-in-context-recall", "seq_len=128");
    LAW("noisy-in-context-recall", "seq_len=8", "frac_noise=0.8");   /* redrawn 1 time in 8 */
    LAW("noisy-in-context-recall", "vocab_size=24", "noise_vocab_size=5", "seq_len=12", "frac_noise=0.4",
        "multi_query=false");
    LAW("noisy-in-context-recall", "seq_len=10", "frac_noise=0");
}

static void smallest(void **state) {
    (void)state;
    LAW("in-context-recall", "vocab_size=2", "seq_len=4");
    LAW("in-context-recall", "vocab_size=3", "seq_len=4", "multi_query=false");
    LAW("noisy-in-context-recall", "vocab_size=3", "noise_vocab_size=1", "seq_len=4", "frac_noise=0.999");
    LAW("noisy-in-context-recall", "vocab_size=4", "noise_vocab_size=1", "seq_len=4", "frac_noise=0.5",
        "multi_query=false");
}

static void levels(const char *name, const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, name, words);
    check_levels(t, &p, SEED + 1, example_count() / 4, 0);
    check_dense(t, &p, SEED + 1);
}
#define LEVELS(name, ...) levels(name, (const char *const[]){__VA_ARGS__, NULL})

static void oracle_and_chance(void **state) {
    (void)state;
    LEVELS("in-context-recall", "vocab_size=16");
    LEVELS("in-context-recall", "vocab_size=64", "seq_len=32", "multi_query=false");
    LEVELS("noisy-in-context-recall", "frac_noise=0.2");
    LEVELS("noisy-in-context-recall", "frac_noise=0.8", "seq_len=16", "multi_query=false");
    LEVELS("in-context-recall", "vocab_size=2", "seq_len=4");
}

/* The table of shown keys is hashed when keys are many, and on the heap when the sequence is long. */
static void large(void **state) {
    (void)state;
    TaskParams p;
    const TaskDef *t = SETTING(&p, "in-context-recall", "vocab_size=65536", "seq_len=65536");
    Dataset *d;
    must(mdr_task_open(t, &p, SPLIT_TEST, SEED, &d));
    int32_t rows = mdr_task_rows(d), *m = malloc(3 * (size_t)rows * sizeof *m), wanted = 0;
    mdr_task_example(d, 99, m, m + rows);
    t->oracle(&p, NULL, m, m + rows, m + 2 * rows);
    for (int32_t s = 0; s < rows; s++)
        if (m[rows + s] >= 0) wanted++, assert_int_equal(m[rows + s], m[2 * rows + s]);
    double keys = 32768, draws = 32767, all = pow(1 - 1 / keys, draws), two = pow(1 - 2 / keys, draws);
    double sd = sqrt(keys * (keys - 1) * two + keys * all - keys * keys * all * all);
    within4("wanted of 65536 tokens", wanted, draws - keys * (1 - all) + 1, sd);
    mdr_task_close(d);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_context_law), cmocka_unit_test(noisy_law), cmocka_unit_test(smallest),
        cmocka_unit_test(oracle_and_chance), cmocka_unit_test(large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
