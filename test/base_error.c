/* Errors as values: text, code, birth place, wrapping. */
#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static Err *inner(int fail) { return fail ? MDR_ERR_USER("order must be 1..64, got %d", fail) : NULL; }
static Err *outer(int fail) {
    MDR_TRY(inner(fail));
    return MDR_ERR_MACHINE("reached");
}
static void test_new(void **state) {
    (void)state;
    Err *e = outer(99);
    assert_non_null(e);
    assert_int_equal(mdr_err_code(e), MDR_USER);
    assert_string_equal(mdr_err_text(e), "order must be 1..64, got 99");
    assert_memory_equal(mdr_err_born(e), "test/base_error.c:", 18);
    mdr_err_free(e);
    e = outer(0);
    assert_int_equal(mdr_err_code(e), MDR_MACHINE);
    assert_string_equal(mdr_err_text(e), "reached");
    mdr_err_free(e);
    mdr_err_free(NULL);
}
static void test_wrap(void **state) {
    (void)state;
    assert_null(mdr_err_wrap(NULL, "layer %d", 3));
    Err *e = mdr_err_wrap(inner(7), "layer %d `%s`", 3, "hyena");
    assert_string_equal(mdr_err_text(e), "layer 3 `hyena`: order must be 1..64, got 7");
    assert_int_equal(mdr_err_code(e), MDR_USER);
    assert_non_null(strstr(mdr_err_born(e), "base_error.c"));
    mdr_err_free(e);
}
static void test_long(void **state) {
    (void)state;
    char word[5001];
    memset(word, 'x', 5000);
    word[5000] = 0;
    Err *e = mdr_err_wrap(MDR_ERR_USER("%s", word), "%s", word);
    assert_int_equal(strlen(mdr_err_text(e)), 10002);
    mdr_err_free(e);
}
int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_new), cmocka_unit_test(test_wrap), cmocka_unit_test(test_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
