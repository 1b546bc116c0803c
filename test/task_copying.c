/* selective-copying and compression: their law by counting, oracle, chance. */
#include "task_harness.h"

static Draw w;

static double binomial(int32_t n, double q, int32_t k) {
    if (q >= 1) return k == n;
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(q) + (n - k) * log1p(-q));
}

/* Checks the form of one sequence exactly; gap[i]: blanks before symbol i. */
static void split(const TaskParams *p, int32_t *gap, int32_t *symbol) {
    int32_t copy = p->num_tokens_to_copy, marker = p->seq_len - copy - 1, found = 0, blanks = 0;
    assert_int_equal(w.rows, p->seq_len);
    for (int32_t t = 0; t < marker; t++) {
        assert_int_equal(w.targets[t], MDR_IGNORE);
        if (w.tokens[t] == p->vocab_size - 2) {
            blanks++;
        } else {
            assert_in_range(w.tokens[t], 0, p->vocab_size - 3);
            assert_true(found < copy);
            gap[found] = blanks, symbol[found++] = w.tokens[t];
            blanks = 0;
        }
    }
    assert_int_equal(found, copy);
    assert_int_equal(blanks, 0);   /* the last symbol touches the marker */
    assert_int_equal(w.tokens[marker], p->vocab_size - 1);
    assert_int_equal(w.targets[marker], MDR_IGNORE);
    for (int32_t i = 0; i < copy; i++) {
        assert_int_equal(w.tokens[marker + 1 + i], p->vocab_size - 2);
        assert_int_equal(w.targets[marker + 1 + i], symbol[i]);
    }
}

/* Gaps are multinomial: each is binomial(B, 1/copy), any two have covariance -B/copy^2. */
static void copying_law(const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, "selective-copying", words);
    int32_t n = example_count(), copy = p.num_tokens_to_copy, blanks = p.seq_len - 2 * copy - 1, gap[128], symbol[128];
    static double length[512], first[512], pair_sum;
    double symbols[64] = {0}, q = 1.0 / copy, pairs = 0;
    memset(length, 0, sizeof length), memset(first, 0, sizeof first), pair_sum = 0;
    print_message("# seed %d, %d sequences\n", SEED, n);
    draw_open(&w, t, &p, SPLIT_TRAIN, SEED);
    for (int32_t i = 0; i < n; i++) {
        draw(&w, i);
        split(&p, gap, symbol);
        for (int32_t j = 0; j < copy; j++) symbols[symbol[j]]++, length[gap[j]]++;
        first[gap[0]]++;
        if (copy > 1) pair_sum += (gap[0] - blanks * q) * (gap[copy - 1] - blanks * q), pairs++;
    }
    draw_close(&w);
    for (int32_t s = 0; s < p.vocab_size - 2; s++)
        count4("a symbol", symbols[s], (double)n * copy, 1.0 / (p.vocab_size - 2));
    for (int32_t g = 0; g <= blanks; g++) {
        double share = binomial(blanks, q, g);
        within4("the first gap", first[g], n * share, sqrt(n * share * (1 - share)) + 0.5);
        within4("gaps", length[g], n * share * copy, sqrt(n * share * copy * (copy > 1 ? 1 : 0)) + 0.5);
    }
    double var = blanks * q * (1 - q);   /* sd of a product of two near-normal gaps */
    if (copy > 1) within4("covariance of gaps", pair_sum / pairs, -blanks * q * q, 1.2 * var / sqrt(pairs) + 1e-3);
}
#define COPYING(...) copying_law((const char *const[]){__VA_ARGS__, NULL})

static void selective_copying(void **state) {
    (void)state;
    COPYING("vocab_size=16");
    COPYING("seq_len=12", "num_tokens_to_copy=3");
    COPYING("seq_len=200", "num_tokens_to_copy=96", "vocab_size=64");
}

static void smallest_copying(void **state) {
    (void)state;
    COPYING("vocab_size=3", "seq_len=4", "num_tokens_to_copy=1");
    COPYING("vocab_size=4", "seq_len=33", "num_tokens_to_copy=1");
    COPYING("vocab_size=4", "seq_len=34", "num_tokens_to_copy=16");
}

static void compression_law(const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, "compression", words);
    int32_t n = example_count();
    static double at[64][64], follows[64][64];
    memset(at, 0, sizeof at), memset(follows, 0, sizeof follows);
    draw_open(&w, t, &p, SPLIT_TRAIN, SEED);
    assert_int_equal(w.rows, p.seq_len);
    for (int32_t i = 0; i < n; i++) {
        draw(&w, i);
        for (int32_t s = 0; s < w.rows; s++) {
            assert_int_equal(w.tokens[s], w.targets[s]);
            at[s][w.tokens[s]]++;
            if (s > 0 && s + 1 < w.rows) follows[w.tokens[s - 1]][w.tokens[s]]++;
        }
        assert_int_equal(w.tokens[w.rows - 1], p.vocab_size - 1);
    }
    draw_close(&w);
    double symbols = p.vocab_size - 1;
    for (int32_t v = 0; v < p.vocab_size - 1; v++) {
        for (int32_t s = 0; s + 1 < p.seq_len; s++) count4("a symbol at a place", at[s][v], n, 1 / symbols);
        for (int32_t u = 0; u < p.vocab_size - 1 && p.seq_len > 2; u++)
            count4("a symbol after another", follows[v][u], n * (p.seq_len - 2.0), 1 / symbols / symbols);
    }
}
#define COMPRESSION(...) compression_law((const char *const[]){__VA_ARGS__, NULL})

static void compression(void **state) {
    (void)state;
    COMPRESSION("vocab_size=16");
    COMPRESSION("vocab_size=2", "seq_len=2");
    COMPRESSION("vocab_size=3", "seq_len=7");
}

static void levels(const char *name, const char *const *words) {
    TaskParams p;
    const TaskDef *t = setting(&p, name, words);
    check_levels(t, &p, SEED + 1, example_count() / 2, 0);
}
#define LEVELS(name, ...) levels(name, (const char *const[]){__VA_ARGS__, NULL})

static void oracle_and_chance(void **state) {
    (void)state;
    LEVELS("selective-copying", "vocab_size=16");
    LEVELS("selective-copying", "vocab_size=3", "seq_len=4", "num_tokens_to_copy=1");
    LEVELS("compression", "vocab_size=16");   /* a symbol is the best guess: 31/32/15 */
    LEVELS("compression", "vocab_size=128", "seq_len=32");   /* the compression token is: 1/32 */
    LEVELS("compression", "vocab_size=2", "seq_len=3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selective_copying), cmocka_unit_test(smallest_copying), cmocka_unit_test(compression),
        cmocka_unit_test(oracle_and_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
