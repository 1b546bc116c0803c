/* Fuzz target: the text of an architecture. Any bytes must give either architectures, whose printed form reads back to the
 * same printed and hashed forms, or an error with a sentence. */
#include "model/model.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what, const char *text) {
    if (ok) return;
    fprintf(stderr, "%s: %s\n", what, text);
    abort();
}

static void print_and_reread(const Arch *a) {
    Text printed = {0}, hashed = {0}, again = {0};
    mdr_model_print(a, &printed);
    mdr_model_hashed(a, &hashed);
    ArchList l;
    Err *e = mdr_model_parse(mdr_text_str(&printed), 0, NULL, &l);
    must(!e && l.n == 1, e ? mdr_err_text(e) : "not one", mdr_text_str(&printed));
    mdr_model_print(l.arch[0], &again);
    must(strcmp(mdr_text_str(&printed), mdr_text_str(&again)) == 0, "printed forms differ", mdr_text_str(&again));
    mdr_text_clear(&again);
    mdr_model_hashed(l.arch[0], &again);
    must(strcmp(mdr_text_str(&hashed), mdr_text_str(&again)) == 0, "hashed forms differ", mdr_text_str(&again));
    mdr_model_archs_free(&l);
    mdr_text_free(&printed);
    mdr_text_free(&hashed);
    mdr_text_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    ArchList l;
    Err *e = mdr_model_parse(text, 0, NULL, &l);
    must(!e || (l.n == 0 && l.arch == NULL), "an error and a result", text);
    must(e || l.n > 0, "neither error nor result", text);
    for (int32_t i = 0; i < l.n && i < 4; i++) print_and_reread(l.arch[i]);
    for (const char *c = e ? mdr_err_text(e) : ""; *c; c++) must(*c >= ' ' && *c < 127, "a message with odd bytes", text);
    mdr_err_free(e);
    mdr_model_archs_free(&l);
    free(text);
    return 0;
}
