/* Numbers from text and to text, in any locale. */
#include "base/base.h"
#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_int(void **state) {
    (void)state;
    static const struct { const char *s; int64_t v; } good[] = {
        {"0", 0}, {"-0", 0}, {"+7", 7}, {"128", 128}, {"12_800", 12800}, {"1_000_000", 1000000}, {"1e3", 1000}, {"2E+2", 200},
        {"-5e0", -5}, {"007", 7}, {"0e99999999999", 0}, {"9223372036854775807", INT64_MAX}, {"-9223372036854775808", INT64_MIN},
        {"9_223_372_036_854_775_807", INT64_MAX}, {"9e18", INT64_C(9000000000000000000)}};
    for (int i = 0; i < MDR_COUNT(good); i++) {
        int64_t v = -77;
        if (!mdr_text_to_int(good[i].s, &v) || v != good[i].v) fail_msg("%s gave %lld", good[i].s, (long long)v);
    }
    static const char *const bad[] = {"", " 1", "1 ", "+", "-", "--1", "1.0", "1.", "1e", "1e-1", "1e1.0", "0x10", "1__0", "_1", "1_",
                                      "12_", "1_e3", "nan", "inf", "abc", "12a", "9223372036854775808", "-9223372036854775809", "1e19",
                                      "99999999999999999999", "1,000", "\xd9\xa1", "1\n", "1e_3"};
    for (int i = 0; i < MDR_COUNT(bad); i++) {
        int64_t v = -77;
        if (mdr_text_to_int(bad[i], &v)) fail_msg("`%s` was taken for %lld", bad[i], (long long)v);
        assert_int_equal(v, -77);                    /* untouched on refusal                                               */
    }
    assert_false(mdr_text_to_int(NULL, &(int64_t){0}));
}

static void test_real(void **state) {
    (void)state;
    static const struct { const char *s; double v; } good[] = {
        {"0", 0}, {"0.5", .5}, {".5", .5}, {"5.", 5}, {"1e-4", 1e-4}, {"5e-4", 5e-4}, {"1E+3", 1e3}, {"-2.25", -2.25}, {"+3", 3},
        {"12_800.5", 12800.5}, {"0.1", 0.1}, {"1.7976931348623157e308", DBL_MAX}, {"4.9e-324", 4.9406564584124654e-324}, {"0e999", 0},
        {"0.000e-999", 0}};
    for (int i = 0; i < MDR_COUNT(good); i++) {
        double v = -77;
        if (!mdr_text_to_real(good[i].s, &v) || !(v == good[i].v)) fail_msg("%s gave %.17g", good[i].s, v);
    }
    static const char *const bad[] = {"", ".", "-.", "e5", "1e", "1e+", "nan", "NaN", "inf", "-inf", "infinity", "0x1p3", "0x10", "1,5",
                                      " 1", "1 ", "1.5.2", "1_", "1_.5", "1._5", "1e999", "-1e999", "1e-999", "1.5f", "1d3", "--1", "٣"};
    for (int i = 0; i < MDR_COUNT(bad); i++) {
        double v = -77;
        if (mdr_text_to_real(bad[i], &v)) fail_msg("`%s` was taken for %.17g", bad[i], v);
        assert_true(v == -77);
    }
    char longest[1000];
    memset(longest, '1', 999);
    longest[999] = 0;
    double v;
    assert_false(mdr_text_to_real(longest, &v));
    longest[300] = 0;
    assert_true(mdr_text_to_real(longest, &v) && v > 1.1e299);
    assert_false(mdr_text_to_real(NULL, &v));
}

static void test_print(void **state) {
    (void)state;
    static const struct { double v; const char *s; } want[] = {
        {0, "0"}, {-0.0, "-0"}, {1, "1"}, {12800, "12800"}, {0.5, "0.5"}, {5e-4, "0.0005"}, {1e-4, "0.0001"}, {1e-5, "1e-05"},
        {1e-6, "1e-06"}, {0.1, "0.1"}, {1.0 / 3, "0.3333333333333333"}, {123456.5, "123456.5"}, {1e15, "1000000000000000"},
        {1e16, "1e+16"}, {1.5e300, "1.5e+300"}, {-2.5e-7, "-2.5e-07"}, {DBL_MAX, "1.7976931348623157e+308"}, {5e-324, "5e-324"},
        {0.1 + 0.2, "0.30000000000000004"}, {(double)NAN, "nan"}, {(double)INFINITY, "inf"}, {-(double)INFINITY, "-inf"}};
    char buf[32];
    for (int i = 0; i < MDR_COUNT(want); i++) assert_string_equal(mdr_text_real(want[i].v, buf), want[i].s);
}

/* Random bit patterns and random short decimals: what is printed reads back to the same bits. */
static void test_round_trip(void **state) {
    (void)state;
    print_message("# seed 7\n");
    Rng r = mdr_rng(7, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = (uint64_t)mdr_rng_u32(&r) << 32 | mdr_rng_u32(&r);
        double v, w = 0;
        memcpy(&v, &bits, sizeof v);
        if (i % 2) v = (double)(mdr_rng_below(&r, 100000)) / 1000.0;
        if (!isfinite(v)) continue;
        char buf[32];
        mdr_text_real(v, buf);
        assert_true(strlen(buf) < 32);
        if (!mdr_text_to_real(buf, &w) || memcmp(&v, &w, sizeof v)) fail_msg("%.17g was printed as %s", v, buf);
    }
}

/* A process that has set a locale with a decimal comma reads and prints the same. Debian has C.UTF-8 only: then it is skipped. */
static void test_locale(void **state) {
    (void)state;
    static const char *const comma[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "fr_FR", "nl_NL.UTF-8"};
    const char *got = NULL;
    for (int i = 0; i < MDR_COUNT(comma) && !got; i++) got = setlocale(LC_NUMERIC, comma[i]);
    if (!got || strcmp(localeconv()->decimal_point, ",") != 0) skip();
    double v = 0;
    char buf[32];
    assert_true(mdr_text_to_real("0.5", &v) && v == .5);
    assert_false(mdr_text_to_real("0,5", &v));
    assert_string_equal(mdr_text_real(0.25, buf), "0.25");
    assert_string_equal(localeconv()->decimal_point, ",");           /* and the process keeps its own                      */
    setlocale(LC_NUMERIC, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_int), cmocka_unit_test(test_real), cmocka_unit_test(test_print),
                                       cmocka_unit_test(test_round_trip), cmocka_unit_test(test_locale)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
