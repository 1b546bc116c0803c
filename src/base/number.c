/* Numbers to text and back, in the C locale whatever the process has set: decimal only, a point for a point, '_' between digits;
 * hexadecimal, "nan", "inf", spaces and commas are refused. */
#include "base/base.h"
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 400 };              /* characters of a number                                                             */
typedef struct Shape10 { char text[LONGEST + 1]; bool fraction, exponent, nonzero; } Shape10;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Copies a run of digits, dropping single '_' between them; false if there is none or a '_' stands at an end. */
static bool digits(const char **s, Shape10 *x, size_t *n, bool mantissa) {
    if (!is_digit(**s)) return false;
    while (is_digit(**s) || (**s == '_' && is_digit((*s)[1]))) {
        if (**s != '_') {
            if (*n >= LONGEST) return false;
            if (mantissa && **s != '0') x->nonzero = true;
            x->text[(*n)++] = **s;
        }
        (*s)++;
    }
    return **s != '_';
}

/* [+-] digits [. digits] [e [+-] digits], also ".5" and "5."; the cleaned text in x. */
static bool scan(const char *s, Shape10 *x) {
    size_t n = 0;
    *x = (Shape10){.text = ""};
    if (*s == '+' || *s == '-') x->text[n++] = *s++;
    bool whole = is_digit(*s);
    if (whole && !digits(&s, x, &n, true)) return false;
    if (*s == '.') {
        s++;
        x->fraction = true;
        if (n >= LONGEST) return false;
        x->text[n++] = '.';
        if (is_digit(*s)) {
            if (!digits(&s, x, &n, true)) return false;
        } else if (!whole) return false;
    } else if (!whole) return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        x->exponent = true;
        if (n + 2 >= LONGEST) return false;
        x->text[n++] = 'e';
        if (*s == '+' || *s == '-') x->text[n++] = *s++;
        if (!digits(&s, x, &n, false)) return false;
    }
    x->text[n] = 0;
    return *s == 0;
}

/* strtod and snprintf follow the thread's locale: a library must not trust that nobody has set one. */
static locale_t enter_c(locale_t *c) {
    *c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return *c ? uselocale(*c) : (locale_t)0;
}
static void leave_c(locale_t c, locale_t old) {
    if (!c) return;
    uselocale(old);
    freelocale(c);
}

bool mdr_text_to_real(const char *s, double *v) {
    Shape10 x;
    if (!s || !scan(s, &x)) return false;
    locale_t c, old = enter_c(&c);
    char *end = NULL;
    double d = strtod(x.text, &end);
    leave_c(c, old);
    if (*end != 0 || !isfinite(d) || (d == 0.0 && x.nonzero)) return false;   /* neither over- nor underflow               */
    *v = d;
    return true;
}

/* Digits, then zeros by a positive exponent: exact, not by way of a double. */
bool mdr_text_to_int(const char *s, int64_t *v) {
    Shape10 x;
    if (!s || !scan(s, &x) || x.fraction) return false;
    const char *p = x.text;
    bool minus = *p == '-';
    if (*p == '+' || *p == '-') p++;
    uint64_t n = 0, limit = (uint64_t)INT64_MAX + (minus ? 1u : 0u);
    for (; is_digit(*p); p++) {
        uint64_t d = (uint64_t)(*p - '0');
        if (n > (limit - d) / 10) return false;
        n = n * 10 + d;
    }
    if (*p == 'e') {
        p++;
        if (*p == '-') return false;
        if (*p == '+') p++;
        int e = 0;
        for (; is_digit(*p); p++)
            if (e < 100) e = e * 10 + (*p - '0');
        for (; e > 0 && n > 0; e--) {
            if (n > limit / 10) return false;
            n *= 10;
        }
    }
    *v = minus ? (int64_t)(0u - n) : (int64_t)n;
    return true;
}

/* The fewest digits that read back, written as Python's repr does (1e-05, 0.0001, 123456.5, 1e+16), whole numbers without ".0". */
const char *mdr_text_real(double v, char buf[32]) {
    if (!isfinite(v)) return strcpy(buf, v != v ? "nan" : v > 0 ? "inf" : "-inf");
    locale_t c, old = enter_c(&c);
    int p = 0;
    for (; p < 17; p++) {
        snprintf(buf, 32, "%.*e", p, v);
        if (strtod(buf, NULL) == v) break;
    }
    int e = atoi(strchr(buf, 'e') + 1);
    if (e >= -4 && e < 16) snprintf(buf, 32, "%.*f", p > e ? p - e : 0, v);
    leave_c(c, old);
    return buf;
}
