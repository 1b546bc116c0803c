/* The plain table: alignment by what a column holds, UTF-8 widths, cutting, and the counts with commas. */
#include "study_harness.h"
#include "report/internal.h"

static void table_is(const char *const *cells, int32_t rows, int32_t cols, int32_t columns, const char *want) {
    Text t = {0};
    ReportStyle style = {columns, false};
    mdr_report_table(cells, rows, cols, &style, &t);
    assert_string_equal(mdr_text_str(&t), want);
    mdr_text_free(&t);
}

static void alignment(void **state) {
    (void)state;
    static const char *const cells[] = {"task", "acc",  "steps", "note", "memorization", "94.1±0.5", "1,200",
                                        "fine", "copy", "–",     "7",    "a b"};
    table_is(cells, 3, 4, 80,
             "task               acc  steps  note\n"
             "memorization  94.1±0.5  1,200  fine\n"
             "copy                 –      7  a b\n");
    static const char *const mixed[] = {"v", "1", "1x", "10", "-3e-05", "22"};
    table_is(mixed, 3, 2, 80, "v        1\n1x      10\n-3e-05  22\n");
    static const char *const only[] = {"head", "er"};
    table_is(only, 1, 2, 80, "head  er\n");
    table_is(only, 0, 2, 80, "");
}

static void cutting(void **state) {
    (void)state;
    static const char *const cells[] = {"architecture", "n", "mh-attention swiglu äöü hyena swiglu", "12", "mlp", "3"};
    table_is(cells, 3, 2, 24, "architecture           n\nmh-attention swiglu…  12\nmlp                    3\n");
    table_is(cells, 3, 2, 27,
             "architecture              n\nmh-attention swiglu äö…  12\nmlp                       3\n");
    table_is(cells, 3, 2, 4, "archite…   n\nmh-atte…  12\nmlp        3\n");          /* never to nothing             */
}

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
    const struct CMUnitTest tests[] = {cmocka_unit_test(alignment), cmocka_unit_test(cutting), cmocka_unit_test(counts),
                                       cmocka_unit_test(wrapping)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
