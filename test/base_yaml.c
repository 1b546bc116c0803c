/* YAML into trees: values, places, every refusal with file, line and column. */
#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static Err *parse(Arena *a, const char *text, Yaml **y) { return mdr_yaml_parse(a, text, strlen(text), "c.yml", y); }

static const char good[] =
    "# a study of mad-lab's form\n"
    "task: in-context-recall\n"
    "lr: [1e-4, 5e-4]\n"
    "train:\n"
    "  epochs: 200\n"
    "  \"quoted key\": 'it''s'\n"
    "layers:\n"
    "  - hyena\n"
    "  - {mixer: swiglu, dim: 128}\n"
    "empty:\n";

static void test_tree(void **state) {
    (void)state;
    Arena *a = mdr_arena_new();
    Yaml *y;
    Err *e = parse(a, good, &y);
    if (e) fail_msg("%s", mdr_err_text(e));
    assert_int_equal(y->kind, MDR_YAML_MAP);
    assert_int_equal(y->n, 5);
    assert_string_equal(y->key[0], "task");
    assert_string_equal(mdr_yaml_get(y, "task")->text, "in-context-recall");
    assert_int_equal(mdr_yaml_get(y, "task")->line, 2);
    assert_int_equal(mdr_yaml_get(y, "task")->column, 7);
    const Yaml *lr = mdr_yaml_get(y, "lr");
    assert_int_equal(lr->kind, MDR_YAML_SEQ);
    assert_int_equal(lr->n, 2);
    assert_string_equal(lr->item[1]->text, "5e-4");
    assert_int_equal(lr->item[1]->column, 12);
    const Yaml *train = mdr_yaml_get(y, "train");
    assert_string_equal(mdr_yaml_get(train, "quoted key")->text, "it's");
    assert_int_equal(mdr_yaml_get(train, "epochs")->line, 5);
    const Yaml *layers = mdr_yaml_get(y, "layers");
    assert_string_equal(layers->item[0]->text, "hyena");
    assert_string_equal(mdr_yaml_get(layers->item[1], "dim")->text, "128");
    assert_string_equal(mdr_yaml_get(y, "empty")->text, "");
    assert_null(mdr_yaml_get(y, "absent"));
    assert_null(mdr_yaml_get(lr, "task"));
    assert_null(mdr_yaml_get(NULL, "task"));
    e = parse(a, "just text", &y);
    assert_null(e);
    assert_int_equal(y->kind, MDR_YAML_SCALAR);
    assert_null(parse(a, "--- {}\n", &y));
    assert_int_equal(y->n, 0);
    mdr_arena_free(a);
}

static void refused(const char *text, size_t n, const char *sentence) {
    Arena *a = mdr_arena_new();
    Yaml *y = (Yaml *)a;
    Err *e = mdr_yaml_parse(a, text, n, "c.yml", &y);
    if (!e) fail_msg("accepted, wanted: %s", sentence);
    assert_null(y);
    assert_int_equal(mdr_err_code(e), MDR_USER);
    if (strncmp(mdr_err_text(e), sentence, strlen(sentence)) != 0) fail_msg("`%s`, wanted `%s`", mdr_err_text(e), sentence);
    mdr_err_free(e);
    mdr_arena_free(a);
}
#define REFUSED(text, sentence) refused(text, sizeof(text) - 1, sentence)

static void test_refusals(void **state) {
    (void)state;
    REFUSED("", "c.yml: is empty");
    REFUSED("# only a comment\n", "c.yml: is empty");
    REFUSED("lr: 1\ndim: 2\nlr: 3\n", "c.yml:3:1: key `lr` is given twice, first in line 1");
    REFUSED("a: {b: 1, c: 2, b: 3}", "c.yml:1:17: key `b` is given twice, first in line 1");
    REFUSED("a: &x 1\nb: 2\n", "c.yml:1:4: anchors are not read");
    REFUSED("a: &x [1]\n", "c.yml:1:4: anchors are not read");
    REFUSED("&k a: 1\n", "c.yml:1:1: anchors are not read");
    REFUSED("a: *x\n", "c.yml:1:4: aliases are not read");
    REFUSED("*x : 1\n", "c.yml:1:1: aliases are not read");
    REFUSED("a: !!int 1\n", "c.yml:1:4: tags are not read");
    REFUSED("a: !x {b: 1}\n", "c.yml:1:4: tags are not read");
    REFUSED("? [1, 2]\n: 3\n", "c.yml:1:3: a key must be plain text");
    REFUSED("? {a: 1}\n: 3\n", "c.yml:1:3: a key must be plain text");
    REFUSED("a: 1\n---\nb: 2\n", "c.yml:2:1: a second document");
    REFUSED("a: \"x\\0y\"\n", "c.yml:1:4: a NUL character in text");
    REFUSED("a: [1, 2\nb: 3\n", "c.yml:2:");
    REFUSED("a: 1\n\tb: 2\n", "c.yml:2:1: ");
    REFUSED("a: \"open\n", "c.yml:2:1: ");
    REFUSED("a: \xff\xfe\n", "c.yml: byte 3: ");
    REFUSED("a: 1\0b", "c.yml: byte 4: ");
}

static void test_limits(void **state) {
    (void)state;
    Text t = {0};
    for (int i = 0; i < 32; i++) mdr_text_add(&t, "[", 1);                       /* the 33rd level is the text             */
    mdr_text_add(&t, "x", 1);
    for (int i = 0; i < 32; i++) mdr_text_add(&t, "]", 1);
    refused(t.s, t.n, "c.yml:1:33: nested more than 32 deep");
    Arena *a = mdr_arena_new();
    Yaml *y;
    assert_null(mdr_yaml_parse(a, t.s + 1, t.n - 2, "c.yml", &y));
    mdr_text_clear(&t);
    for (int i = 0; i < 100000; i++) mdr_text_add(&t, "[", 1);                   /* no deep recursion before the refusal   */
    refused(t.s, t.n, "c.yml:1:33: nested more than 32 deep");
    mdr_text_clear(&t);
    for (int i = 0; i < 100000; i++) mdr_text_add(&t, "- 1\n", 4);
    refused(t.s, t.n, "c.yml:100000:3: more than 100000 values");
    assert_null(mdr_yaml_parse(a, t.s, t.n - 4, "c.yml", &y));
    assert_int_equal(y->n, 99999);
    assert_string_equal(y->item[99998]->text, "1");
    mdr_text_clear(&t);
    for (int i = 0; i < 1001; i++) mdr_text_printf(&t, "k%d: 1\n", i);
    refused(t.s, t.n, "c.yml:1001:1: more than 1000 keys in one map");
    mdr_text_clear(&t);
    mdr_text_printf(&t, "%*s", (1 << 20) + 1, "x");
    refused(t.s, t.n, "c.yml: is larger than 1048576 bytes");
    mdr_text_free(&t);
    mdr_arena_free(a);
}

static void test_load(void **state) {
    (void)state;
    const char *dir = getenv("MDR_TEST_DIR");
    Arena *a = mdr_arena_new();
    char *path = mdr_arena_printf(a, "%s/base_yaml.yml", dir ? dir : "/tmp");
    Yaml *y;
    assert_null(mdr_file_write_atomic(path, good, sizeof good - 1));
    assert_null(mdr_yaml_load(a, path, &y));
    assert_int_equal(y->n, 5);
    assert_null(mdr_file_write_atomic(path, "a: [", 4));
    Err *e = mdr_yaml_load(a, path, &y);
    assert_non_null(e);
    assert_memory_equal(mdr_err_text(e), path, strlen(path));
    mdr_err_free(e);
    remove(path);
    e = mdr_yaml_load(a, path, &y);
    assert_non_null(strstr(mdr_err_text(e), "No such file"));
    mdr_err_free(e);
    mdr_arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tree), cmocka_unit_test(test_refusals), cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
