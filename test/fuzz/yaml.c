/* Fuzz target: YAML text of any bytes gives a tree that can be walked, or an error with a sentence; never a crash or a leak.
 * By libFuzzer:  clang -fsanitize=fuzzer,address ... test/fuzz/yaml.c;  by `make check`: the files of test/fuzz/yaml. */
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t walk(const Yaml *y, int depth) {
    if (depth > 32 || y->line < 1 || y->column < 1) abort();
    int64_t n = 1;
    if (y->kind == MDR_YAML_SCALAR) {
        int64_t i;
        double d;
        if (mdr_text_to_int(y->text, &i)) n++;
        if (mdr_text_to_real(y->text, &d)) {
            char buf[32];
            double again;
            if (!mdr_text_to_real(mdr_text_real(d, buf), &again) || memcmp(&d, &again, sizeof d) != 0) abort();
        }
        return n;
    }
    for (int32_t k = 0; k < y->n; k++) {
        if (y->kind == MDR_YAML_MAP && !mdr_yaml_get(y, y->key[k])) abort();
        n += walk(y->item[k], depth + 1);
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena *a = mdr_arena_new();
    Yaml *y = NULL;
    Err *e = mdr_yaml_parse(a, (const char *)data, size, "fuzz.yml", &y);
    if (e ? y != NULL || mdr_err_text(e)[0] == 0 : y == NULL || walk(y, 1) < 1) abort();
    mdr_err_free(e);
    mdr_arena_free(a);
    return 0;
}
