/* Growing text, the nearest name, hashes. */
#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_text(void **state) {
    (void)state;
    Text t = {0};
    assert_string_equal(mdr_text_str(&t), "");
    mdr_text_clear(&t);
    mdr_text_printf(&t, "%d layers", 8);
    mdr_text_add(&t, ", 4 heads and more", 9);
    assert_string_equal(mdr_text_str(&t), "8 layers, 4 heads");
    assert_int_equal(t.n, 17);
    for (int i = 0; i < 1000; i++) mdr_text_printf(&t, " %d", i % 10);
    assert_int_equal(t.n, 2017);
    assert_int_equal(strlen(mdr_text_str(&t)), 2017);
    mdr_text_clear(&t);
    assert_string_equal(mdr_text_str(&t), "");
    mdr_text_add(&t, "a\0b", 3);
    assert_int_equal(t.n, 3);
    mdr_text_free(&t);
    assert_null(t.s);
    assert_string_equal(mdr_text_str(&t), "");
    mdr_text_free(&t);
}

static const char *const layers[] = {"attention", "mh-attention", "hyena", "mh-hyena", "mamba", "mlp", "moe-mlp", "swiglu",
                                     "gated-linear-attention", "rwkv5-time-mixer", NULL};
static void test_nearest(void **state) {
    (void)state;
    assert_string_equal(mdr_text_nearest("hyenna", layers), "hyena");
    assert_string_equal(mdr_text_nearest("hyean", layers), "hyena");             /* a swap is one step                      */
    assert_string_equal(mdr_text_nearest("atention", layers), "attention");
    assert_string_equal(mdr_text_nearest("Mamba", layers), "mamba");
    assert_string_equal(mdr_text_nearest("mh_attention", layers), "mh-attention");
    assert_string_equal(mdr_text_nearest("mpl", layers), "mlp");
    assert_string_equal(mdr_text_nearest("swiglu", layers), "swiglu");
    assert_string_equal(mdr_text_nearest("rwkv5", layers), "rwkv5-time-mixer"); /* a part of a name                        */
    assert_null(mdr_text_nearest("transformer", layers));
    assert_null(mdr_text_nearest("", layers));
    assert_null(mdr_text_nearest("x", layers));
    static const char *const none[] = {NULL}, *const letters[] = {"k", "v", NULL};
    assert_null(mdr_text_nearest("hyena", none));
    assert_null(mdr_text_nearest("x", letters));
    char word[300];
    memset(word, 'a', 299);
    word[299] = 0;
    const char *const long_names[] = {word, NULL};
    assert_null(mdr_text_nearest(word, layers));
    assert_null(mdr_text_nearest("aaaa", long_names));
}

/* FIPS 180-4 examples (NIST), and the empty message. */
static void test_sha256(void **state) {
    (void)state;
    char hex[65];
    mdr_sha256("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    mdr_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    mdr_sha256(two, strlen(two), hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = mdr_alloc(1000000);
    memset(million, 'a', 1000000);
    mdr_sha256(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    mdr_free(million);
    assert_true(mdr_hash64("abc") == UINT64_C(0xba7816bf8f01cfea));
    assert_true(mdr_hash64("") == UINT64_C(0xe3b0c44298fc1c14));
}

static void refused(Err *e, const char *sentence) {
    assert_non_null(e);
    assert_string_equal(mdr_err_text(e), sentence);
    assert_int_equal(mdr_err_code(e), MDR_USER);
    assert_non_null(strstr(mdr_err_born(e), "base_text.c:"));   /* where it was asked for, not the helper                 */
    mdr_err_free(e);
}
static void test_unknown(void **state) {
    (void)state;
    static const char *const names[] = {"train", "bench", NULL}, *const none[] = {NULL};
    refused(MDR_ERR_UNKNOWN("there is no command", "trian", names, NULL), "there is no command `trian`; did you mean `train`?");
    refused(MDR_ERR_UNKNOWN("there is no command", "x", names, NULL), "there is no command `x`; there are train, bench");
    refused(MDR_ERR_UNKNOWN("there is no command", "x", names, "see madras --help"), "there is no command `x`; see madras --help");
    refused(MDR_ERR_UNKNOWN("no command", "x", names, ""), "no command `x`");
    refused(MDR_ERR_UNKNOWN("no command", "x", none, NULL), "no command `x`");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_nearest), cmocka_unit_test(test_unknown),
                                       cmocka_unit_test(test_sha256)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
