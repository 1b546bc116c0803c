/* Parameter tables: one row of Param feeds parsing, defaults, bounds, canonical text and messages. */
#include "base/base.h"
#include <string.h>

static int32_t *as_int(const Param *p, void *dst) { return (int32_t *)(void *)((char *)dst + p->offset); }
static double *as_real(const Param *p, void *dst) { return (double *)(void *)((char *)dst + p->offset); }

static void store(const Param *p, void *dst, double v) {
    if (p->type == MDR_REAL) *as_real(p, dst) = v;
    else *as_int(p, dst) = (int32_t)v;
}

void mdr_params_default(const Param *t, void *dst) {
    for (; t->name; t++) store(t, dst, t->def);
}

const Param *mdr_params_find(const Param *t, const char *name) {
    for (; t->name; t++)
        if (strcmp(t->name, name) == 0) return t;
    return NULL;
}

double mdr_params_get(const Param *p, const void *src) {
    const char *at = (const char *)src + p->offset;
    if (p->type == MDR_REAL) {
        double v;
        memcpy(&v, at, sizeof v);
        return v;
    }
    int32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

/* The i-th of "a|b|c": its start and length; NULL past the end. */
static const char *word_at(const char *words, int i, size_t *n) {
    for (; i > 0; i--) {
        words = strchr(words, '|');
        if (!words) return NULL;
        words++;
    }
    *n = strcspn(words, "|");
    return words;
}

void mdr_params_text(const Param *p, const void *src, Text *t) {
    double v = mdr_params_get(p, src);
    char buf[32];
    size_t n = 0;
    const char *w;
    switch (p->type) {
    case MDR_INT: mdr_text_printf(t, "%d", (int)v); break;
    case MDR_REAL: mdr_text_printf(t, "%s", mdr_text_real(v, buf)); break;
    case MDR_BOOL: mdr_text_printf(t, "%s", v != 0 ? "true" : "false"); break;
    case MDR_WORD:
        w = v >= 0 ? word_at(p->words, (int)v, &n) : NULL;
        if (w) mdr_text_add(t, w, n);
        else mdr_text_printf(t, "%d", (int)v);
        break;
    }
}

static Err *unknown(const Param *t, const char *key, const char *what) {
    int n = 0;
    while (t[n].name) n++;
    if (n == 0) return MDR_ERR_USER("%s: has no parameters, got `%s`", what, key);
    const char **names = mdr_alloc(((size_t)n + 1) * sizeof *names);
    for (int i = 0; i < n; i++) names[i] = t[i].name;
    Text front = {0};
    mdr_text_printf(&front, "%s: unknown parameter", what);
    Err *e = MDR_ERR_UNKNOWN(mdr_text_str(&front), key, names, NULL);
    mdr_text_free(&front);
    mdr_free(names);
    return e;
}

/* "1..64"; a bound that is infinite is left out. */
static Err *out_of_bounds(const Param *p, const char *value, const char *what) {
    char lo[32], hi[32];
    mdr_text_real(p->lo, lo);
    mdr_text_real(p->hi, hi);
    if (strcmp(hi, "inf") == 0) return MDR_ERR_USER("%s: `%s` must be at least %s, got %s", what, p->name, lo, value);
    if (strcmp(lo, "-inf") == 0) return MDR_ERR_USER("%s: `%s` must be at most %s, got %s", what, p->name, hi, value);
    return MDR_ERR_USER("%s: `%s` must be %s..%s, got %s", what, p->name, lo, hi, value);
}

static Err *set_number(const Param *p, void *dst, const char *value, const char *what) {
    double v;
    if (p->type == MDR_INT) {
        int64_t i;
        if (!mdr_text_to_int(value, &i)) {
            if (!mdr_text_to_real(value, &v))
                return MDR_ERR_USER("%s: `%s` must be a whole number, got `%s`", what, p->name, value);
            if (v != (double)(int32_t)(v > -2e9 && v < 2e9 ? v : 0.5))
                return MDR_ERR_USER("%s: `%s` must be a whole number, got %s", what, p->name, value);
            i = (int64_t)v;                          /* "64.0" is whole                                                   */
        }
        if (i < INT32_MIN || i > INT32_MAX) return out_of_bounds(p, value, what);
        v = (double)i;
    } else if (!mdr_text_to_real(value, &v)) {
        return MDR_ERR_USER("%s: `%s` must be a finite decimal number, got `%s`", what, p->name, value);
    }
    if (!(v >= p->lo && v <= p->hi)) return out_of_bounds(p, value, what);
    store(p, dst, v);
    return NULL;
}

static Err *set_bool(const Param *p, void *dst, const char *value, const char *what) {
    static const char *const yes[] = {"true", "True", "yes", "on", "1"}, *const no[] = {"false", "False", "no", "off", "0"};
    for (int i = 0; i < MDR_COUNT(yes); i++)
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            store(p, dst, strcmp(value, yes[i]) == 0);
            return NULL;
        }
    return MDR_ERR_USER("%s: `%s` must be true or false, got `%s`", what, p->name, value);
}

static Err *set_word(const Param *p, void *dst, const char *value, const char *what) {
    size_t n = 0, len = strlen(value);
    const char *w;
    for (int i = 0; (w = word_at(p->words, i, &n)); i++)
        if (n == len && memcmp(w, value, n) == 0) {
            store(p, dst, i);
            return NULL;
        }
    Arena *a = mdr_arena_new();
    const char *names[65] = {NULL};
    for (int i = 0; i < 64 && (w = word_at(p->words, i, &n)); i++) names[i] = mdr_arena_printf(a, "%.*s", (int)n, w);
    const char *front = mdr_arena_printf(a, "%s: `%s` must be one of %s, got", what, p->name, p->words);
    Err *e = MDR_ERR_UNKNOWN(front, value, names, "");
    mdr_arena_free(a);
    return e;
}

Err *mdr_params_set(const Param *t, void *dst, const char *key, const char *value, const char *what) {
    const Param *p = mdr_params_find(t, key);
    if (!p) return unknown(t, key, what);
    if (p->type == MDR_BOOL) return set_bool(p, dst, value, what);
    if (p->type == MDR_WORD) return set_word(p, dst, value, what);
    return set_number(p, dst, value, what);
}
