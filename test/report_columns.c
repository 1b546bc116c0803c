/* Text in columns: padding by UTF-8 widths, counts with commas, wrapping. */
#include "study_harness.h"
#include "report/internal.h"

static void counts(void **state) {
    (void)state;
    static const struct { int64_t n; const char *want;
    } c[] = {{0, "0"},
             {7, "7"},
             {999, "999"},
             {1000, "1,000"},
             {123456, "123,456"},
             {1234567, "1,234,567"},
             {-123, "-123"},
             {-1234, "-1,234"},
             {INT64_MIN, "-9,223,372,036,854,775,808"}};
    for (int i = 0; i < MDR_COUNT(c); i++) {
        Text t = {0};
        mdr_report_count(&t, c[i].n);
        assert_string_equal(mdr_text_str(&t), c[i].want);
        mdr_text_free(&t);
    }
}

static void padding(void **state) {
    (void)state;
    Text t = {0};
    mdr_report_pad(&t, "±1.2", 6, true);
    mdr_report_pad(&t, "–", 3, false);
    mdr_report_pad(&t, "toolong", 3, true);
    assert_string_equal(mdr_text_str(&t), "  ±1.2–  toolong");
    mdr_text_free(&t);
}

static void wrapping(void **state) {
    (void)state;
    Text t = {0};
    mdr_report_wrap(&t, "one two three äöüß five", 10, 4, 2);
    assert_string_equal(mdr_text_str(&t), "one\n  two\n  three\n  äöüß\n  five\n");
    mdr_text_clear(&t);
    mdr_report_wrap(&t, "longerthanthecolumns x", 8, 0, 0);
    assert_string_equal(mdr_text_str(&t), "longerthanthecolumns\nx\n");
    mdr_text_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts), cmocka_unit_test(padding), cmocka_unit_test(wrapping)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
