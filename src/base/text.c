/* Growing text, and the nearest of some names to a misspelt word, with the message that names it (optimal string alignment
 * distance: insertion, deletion, substitution, swap of neighbours; case and '-' against '_' cost nothing). */
#include "base/base.h"
#include <stdarg.h>
#include <string.h>

enum { LONGEST = 63 };               /* longer words are not compared                                                     */

static void reserve(Text *t, size_t more) {
    if (t->n + more + 1 <= t->cap) return;
    size_t cap = t->cap ? t->cap * 2 : 64;
    if (cap < t->n + more + 1) cap = t->n + more + 1;
    t->s = mdr_realloc(t->s, cap);
    t->cap = cap;
}

void mdr_text_add(Text *t, const char *s, size_t n) {
    reserve(t, n);
    if (n) memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

void mdr_text_printf(Text *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    reserve(t, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(t->s + t->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->n += (size_t)n;
}

void mdr_text_clear(Text *t) {
    t->n = 0;
    if (t->s) t->s[0] = 0;
}

void mdr_text_free(Text *t) {
    mdr_free(t->s);
    *t = (Text){0};
}

const char *mdr_text_str(const Text *t) { return t->s ? t->s : ""; }

static char plain(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '_' ? '-' : c; }

static int distance(const char *a, int na, const char *b, int nb) {
    int row[3][LONGEST + 1];
    int *before = row[0], *last = row[1], *now = row[2];
    for (int j = 0; j <= nb; j++) last[j] = j;
    for (int i = 1; i <= na; i++) {
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            char ca = plain(a[i - 1]), cb = plain(b[j - 1]);
            int d = last[j - 1] + (ca != cb);
            if (last[j] + 1 < d) d = last[j] + 1;
            if (now[j - 1] + 1 < d) d = now[j - 1] + 1;
            if (i > 1 && j > 1 && ca == plain(b[j - 2]) && plain(a[i - 2]) == cb && before[j - 2] + 1 < d)
                d = before[j - 2] + 1;
            now[j] = d;
        }
        int *t = before;
        before = last, last = now, now = t;
    }
    return last[nb];
}

const char *mdr_text_nearest(const char *word, const char *const *names) {
    size_t n = strlen(word);
    if (n == 0 || n > LONGEST) return NULL;
    const char *best = NULL;
    int best_d = LONGEST + 1;
    for (; *names; names++) {
        size_t m = strlen(*names);
        if (m == 0 || m > LONGEST) continue;
        int longer = (int)(m > n ? m : n), limit = longer <= 3 ? 1 : longer / 3;
        int d = distance(word, (int)n, *names, (int)m);
        if (longer <= 1 && d > 0) continue;          /* one letter is not near another                                    */
        if (n >= 4 && m > n && d > limit && strstr(*names, word)) d = limit;   /* "attention" is meant for "mh-attention" */
        if (d <= limit && d < best_d) best = *names, best_d = d;
    }
    return best;
}

Err *mdr_err_unknown(const char *file, int line, const char *what, const char *name, const char *const *names, const char *see) {
    const char *near = mdr_text_nearest(name, names);
    if (near) return mdr_err_new(MDR_USER, file, line, "%s `%s`; did you mean `%s`?", what, name, near);
    Text list = {0};
    for (int i = 0; !see && names[i]; i++) mdr_text_printf(&list, "%s%s", i ? ", " : "there are ", names[i]);
    const char *rest = see ? see : mdr_text_str(&list);
    Err *e = mdr_err_new(MDR_USER, file, line, "%s `%s`%s%s", what, name, rest[0] ? "; " : "", rest);
    mdr_text_free(&list);
    return e;
}
