/* Text in columns: widths, padding, wrapping, counts. */
#include "report/internal.h"
#include <string.h>

int32_t mdr_report_width(const char *s) {
    int32_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void mdr_report_pad(Text *out, const char *s, int32_t width, bool right) {
    int32_t fill = width - mdr_report_width(s);
    if (fill < 0) fill = 0;
    mdr_text_printf(out, "%*s%s%*s", right ? fill : 0, "", s, right ? 0 : fill, "");
}

void mdr_report_count(Text *out, int64_t n) {
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)n);
    size_t len = strlen(digits), sign = digits[0] == '-';
    for (size_t i = 0; i < len; i++) {
        if (i > sign && (len - i) % 3 == 0) mdr_text_add(out, ",", 1);
        mdr_text_add(out, &digits[i], 1);
    }
}

void mdr_report_wrap(Text *out, const char *s, int32_t columns, int32_t first, int32_t indent) {
    int32_t at = first;
    for (bool begin = true; *s; begin = false) {
        size_t n = strcspn(s, " ");
        char *word = mdr_alloc(n + 1);
        memcpy(word, s, n);
        int32_t w = mdr_report_width(word);
        if (!begin && at + 1 + w > columns) {
            mdr_text_printf(out, "\n%*s", indent, "");
            at = indent;
        } else if (!begin) {
            mdr_text_add(out, " ", 1);
            at++;
        }
        mdr_text_add(out, word, n);
        at += w;
        mdr_free(word);
        s += n;
        s += strspn(s, " ");
    }
    mdr_text_add(out, "\n", 1);
}
