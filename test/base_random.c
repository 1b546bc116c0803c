/* Philox: Random123's known answers, streams, and the laws of what is drawn from it. */
#include "base/base.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* kat_vectors of Random123 1.09, philox4x32-10: counter words 0..3, key words 0..1, result. */
static void test_known(void **state) {
    (void)state;
    static const struct { uint32_t c[4], k[2], r[4]; } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (int i = 0; i < MDR_COUNT(kat); i++) {
        uint32_t out[4];
        mdr_rng_block((uint64_t)kat[i].k[1] << 32 | kat[i].k[0], (uint64_t)kat[i].c[3] << 32 | kat[i].c[2],
                      (uint64_t)kat[i].c[1] << 32 | kat[i].c[0], out);
        assert_memory_equal(out, kat[i].r, sizeof out);
    }
}

static void test_sequence(void **state) {
    (void)state;
    Rng r = mdr_rng(12345, 9), again = mdr_rng(12345, 9), other = mdr_rng(12345, 10), seed = mdr_rng(12346, 9);
    int same_stream = 0, same_seed = 0;
    for (uint64_t b = 0; b < 50; b++) {
        uint32_t block[4];
        mdr_rng_block(12345, 9, b, block);
        for (int i = 0; i < 4; i++) {
            uint32_t x = mdr_rng_u32(&r);
            assert_int_equal(x, block[i]);
            assert_int_equal(x, mdr_rng_u32(&again));
            same_stream += x == mdr_rng_u32(&other);
            same_seed += x == mdr_rng_u32(&seed);
        }
    }
    assert_true(same_stream < 3 && same_seed < 3);
}

/* chi^2 over n classes with n-1 degrees of freedom stays below mean + 6 standard deviations. */
static void check_uniform(const int *count, int n, int total) {
    double chi = 0, want = (double)total / n;
    for (int i = 0; i < n; i++) chi += (count[i] - want) * (count[i] - want) / want;
    if (!(chi < n - 1 + 6 * sqrt(2.0 * (n - 1)))) fail_msg("chi^2 %g for %d classes", chi, n);
}

static void test_below(void **state) {
    (void)state;
    print_message("# seed 3\n");
    Rng r = mdr_rng(3, 0);
    static const uint32_t sizes[] = {2, 3, 7, 10, 64, 97};
    for (int k = 0; k < MDR_COUNT(sizes); k++) {
        int count[97] = {0};
        for (int i = 0; i < 40000; i++) {
            uint32_t x = mdr_rng_below(&r, sizes[k]);
            assert_true(x < sizes[k]);
            count[x]++;
        }
        check_uniform(count, (int)sizes[k], 40000);
    }
    for (int i = 0; i < 100; i++) assert_int_equal(mdr_rng_below(&r, 1), 0);
    int thirds[3] = {0};                             /* n = 3/4 2^32: without rejection a third would get double its share  */
    for (int i = 0; i < 30000; i++) thirds[mdr_rng_below(&r, 0xc0000000u) >> 30]++;
    check_uniform(thirds, 3, 30000);
}

static void test_unit(void **state) {
    (void)state;
    Rng r = mdr_rng(4, 0);
    int count[50] = {0};
    for (int i = 0; i < 50000; i++) {
        double u = mdr_rng_unit(&r);
        assert_true(u >= 0 && u < 1);
        count[(int)(u * 50)]++;
    }
    check_uniform(count, 50, 50000);
}

static void test_normal(void **state) {
    (void)state;
    Rng r = mdr_rng(5, 0);
    enum { N = 200000 };
    double s1 = 0, s2 = 0, s3 = 0, s4 = 0;
    int inside = 0;
    for (int i = 0; i < N; i++) {
        double x = mdr_rng_normal(&r);
        assert_true(isfinite(x));
        s1 += x, s2 += x * x, s3 += x * x * x, s4 += x * x * x * x;
        inside += fabs(x) < 1;
    }
    double six = 6 / sqrt(N);                        /* six standard errors of each moment                                 */
    assert_true(fabs(s1 / N) < six);
    assert_true(fabs(s2 / N - 1) < six * sqrt(2));
    assert_true(fabs(s3 / N) < six * sqrt(15));
    assert_true(fabs(s4 / N - 3) < six * sqrt(96));
    assert_true(fabs((double)inside / N - 0.6826894921) < six * 0.47);
}

/* Bits of the first numbers of one stream: they must be the same with every compiler and libm. */
static void test_normal_bits(void **state) {
    (void)state;
    Rng r = mdr_rng(12345, 0);
    Text t = {0};
    for (int i = 0; i < 1000; i++) {
        double x = mdr_rng_normal(&r);
        mdr_text_add(&t, (const char *)&x, sizeof x);
    }
    char hex[65];
    mdr_sha256(t.s, t.n, hex);
    mdr_text_free(&t);
    assert_string_equal(hex, "e75b970260faa47d52d97a7e6e7ac1ce171a9b26cdb0a7cf03a9d5c0fe73ef86");
}

static void test_shuffle(void **state) {
    (void)state;
    Rng r = mdr_rng(6, 0);
    int count[24] = {0};
    for (int i = 0; i < 24000; i++) {
        int32_t v[4] = {0, 1, 2, 3};
        mdr_rng_shuffle(&r, v, 4);
        int seen = 0, code = 0;
        for (int k = 0; k < 4; k++) seen |= 1 << v[k];
        assert_int_equal(seen, 15);
        for (int k = 0; k < 3; k++) {                /* Lehmer code: which of the 24 orders                                */
            int less = 0;
            for (int j = k + 1; j < 4; j++) less += v[j] < v[k];
            code = code * (4 - k) + less;
        }
        count[code]++;
    }
    check_uniform(count, 24, 24000);
    int32_t one = 5;
    mdr_rng_shuffle(&r, &one, 1);
    mdr_rng_shuffle(&r, NULL, 0);
    assert_int_equal(one, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_sequence), cmocka_unit_test(test_below),
                                       cmocka_unit_test(test_unit), cmocka_unit_test(test_normal), cmocka_unit_test(test_normal_bits),
                                       cmocka_unit_test(test_shuffle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
