/* Parameter tables: defaults, setting, bounds, canonical text, every refusal and its sentence. */
#include "base/base.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

typedef struct Hyena { int32_t order, gate; int32_t kind; double lr, free_value, at_most; } Hyena;
#define AT(f) offsetof(Hyena, f)
static const Param table[] = {
    {"filter_order", MDR_INT, AT(order), 64, 1, 256, NULL, "order of the filter"},
    {"gate", MDR_BOOL, AT(gate), 1, 0, 1, NULL, "gated?"},
    {"kind", MDR_WORD, AT(kind), 1, 0, 2, "none|silu|gelu", "activation"},
    {"lr", MDR_REAL, AT(lr), 5e-4, 0, 1, NULL, "learning rate"},
    {"free_value", MDR_REAL, AT(free_value), 2, 0, (double)INFINITY, NULL, "no upper bound"},
    {"at_most", MDR_REAL, AT(at_most), 2, -(double)INFINITY, 3, NULL, "no lower bound"},
    {0}};
static const Param empty[] = {{0}};

static void refused(const Param *t, const char *key, const char *value, const char *sentence) {
    Hyena h, before;
    memset(&h, 0, sizeof h);
    mdr_params_default(table, &h);
    before = h;
    Err *e = mdr_params_set(t, &h, key, value, "layer 3 `hyena`");
    if (!e) fail_msg("%s=%s was accepted", key, value);
    assert_string_equal(mdr_err_text(e), sentence);
    assert_int_equal(mdr_err_code(e), MDR_USER);
    assert_memory_equal(&h, &before, sizeof h);
    mdr_err_free(e);
}

static void set(Hyena *h, const char *key, const char *value, double want, const char *canonical) {
    Err *e = mdr_params_set(table, h, key, value, "x");
    if (e) fail_msg("%s=%s: %s", key, value, mdr_err_text(e));
    const Param *p = mdr_params_find(table, key);
    assert_true(mdr_params_get(p, h) == want);
    Text t = {0};
    mdr_params_text(p, h, &t);
    assert_string_equal(mdr_text_str(&t), canonical);
    Hyena again;
    memset(&again, 0, sizeof again);
    assert_null(mdr_params_set(table, &again, key, mdr_text_str(&t), "x"));      /* canonical text reads back              */
    assert_true(mdr_params_get(p, &again) == want);
    mdr_text_free(&t);
}

static void test_set(void **state) {
    (void)state;
    Hyena h;
    memset(&h, 0xff, sizeof h);
    mdr_params_default(table, &h);
    assert_int_equal(h.order, 64);
    assert_int_equal(h.gate, 1);
    assert_int_equal(h.kind, 1);
    assert_true(h.lr == 5e-4);
    set(&h, "filter_order", "16", 16, "16");
    set(&h, "filter_order", "1e2", 100, "100");
    set(&h, "filter_order", "64.0", 64, "64");
    set(&h, "filter_order", "2_5_6", 256, "256");
    set(&h, "lr", "1e-4", 1e-4, "0.0001");
    set(&h, "lr", "0.000001", 1e-6, "1e-06");
    set(&h, "lr", "1", 1, "1");
    set(&h, "free_value", "1e300", 1e300, "1e+300");
    set(&h, "at_most", "-1e300", -1e300, "-1e+300");
    set(&h, "gate", "false", 0, "false");
    set(&h, "gate", "True", 1, "true");
    set(&h, "gate", "off", 0, "false");
    set(&h, "gate", "1", 1, "true");
    set(&h, "kind", "none", 0, "none");
    set(&h, "kind", "gelu", 2, "gelu");
    assert_null(mdr_params_find(table, "order"));
    assert_ptr_equal(mdr_params_find(table, "lr"), &table[3]);
    h.kind = 9;                                      /* outside the words: shown as it is, never past the end              */
    Text t = {0};
    mdr_params_text(&table[2], &h, &t);
    assert_string_equal(mdr_text_str(&t), "9");
    mdr_text_free(&t);
}

static void test_refusals(void **state) {
    (void)state;
    refused(table, "filter_ordr", "3", "layer 3 `hyena`: unknown parameter `filter_ordr`; did you mean `filter_order`?");
    refused(table, "zebra", "3", "layer 3 `hyena`: unknown parameter `zebra`; there are filter_order, gate, kind, lr, "
                                 "free_value, at_most");
    refused(empty, "lr", "3", "layer 3 `hyena`: has no parameters, got `lr`");
    refused(table, "filter_order", "0", "layer 3 `hyena`: `filter_order` must be 1..256, got 0");
    refused(table, "filter_order", "257", "layer 3 `hyena`: `filter_order` must be 1..256, got 257");
    refused(table, "filter_order", "99999999999", "layer 3 `hyena`: `filter_order` must be 1..256, got 99999999999");
    refused(table, "filter_order", "2.5", "layer 3 `hyena`: `filter_order` must be a whole number, got 2.5");
    refused(table, "filter_order", "many", "layer 3 `hyena`: `filter_order` must be a whole number, got `many`");
    refused(table, "filter_order", "", "layer 3 `hyena`: `filter_order` must be a whole number, got ``");
    refused(table, "lr", "1.5", "layer 3 `hyena`: `lr` must be 0..1, got 1.5");
    refused(table, "lr", "-1e-9", "layer 3 `hyena`: `lr` must be 0..1, got -1e-9");
    refused(table, "lr", "nan", "layer 3 `hyena`: `lr` must be a finite decimal number, got `nan`");
    refused(table, "lr", "0,5", "layer 3 `hyena`: `lr` must be a finite decimal number, got `0,5`");
    refused(table, "free_value", "-1", "layer 3 `hyena`: `free_value` must be at least 0, got -1");
    refused(table, "at_most", "4", "layer 3 `hyena`: `at_most` must be at most 3, got 4");
    refused(table, "gate", "maybe", "layer 3 `hyena`: `gate` must be true or false, got `maybe`");
    refused(table, "kind", "sillu", "layer 3 `hyena`: `kind` must be one of none|silu|gelu, got `sillu`; did you mean `silu`?");
    refused(table, "kind", "softplus", "layer 3 `hyena`: `kind` must be one of none|silu|gelu, got `softplus`");
    refused(table, "kind", "non", "layer 3 `hyena`: `kind` must be one of none|silu|gelu, got `non`; did you mean `none`?");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_set), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
