/* Errors as values: a code, the source line of birth and one sentence. */
#include "base/base.h"
#include <stdarg.h>
#include <string.h>

struct Err {
    ErrCode code;
    char *text, *born;
};

/* One printf into memory of its own. */
static char *format(const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) return mdr_strdup(fmt);               /* a broken format still says something                             */
    char *s = mdr_alloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

Err *mdr_err_new(ErrCode code, const char *file, int line, const char *fmt, ...) {
    Err *e = mdr_alloc(sizeof *e);
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    e->text = format(fmt, ap);
    va_end(ap);
    size_t n = strlen(file) + 16;
    e->born = mdr_alloc(n);
    snprintf(e->born, n, "%s:%d", file, line);
    return e;
}

Err *mdr_err_wrap(Err *e, const char *fmt, ...) {
    if (!e) return NULL;
    va_list ap;
    va_start(ap, fmt);
    char *front = format(fmt, ap);
    va_end(ap);
    size_t n = strlen(front) + strlen(e->text) + 3;
    char *whole = mdr_alloc(n);
    snprintf(whole, n, "%s: %s", front, e->text);
    mdr_free(front);
    mdr_free(e->text);
    e->text = whole;
    return e;
}

const char *mdr_err_text(const Err *e) { return e ? e->text : ""; }
ErrCode mdr_err_code(const Err *e) { return e ? e->code : MDR_OK; }
const char *mdr_err_born(const Err *e) { return e ? e->born : ""; }

void mdr_err_free(Err *e) {
    if (!e) return;
    mdr_free(e->text);
    mdr_free(e->born);
    mdr_free(e);
}
