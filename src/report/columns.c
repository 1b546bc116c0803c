/* Text in columns: widths, padding, wrapping, and the plain table. */
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

/* Numbers as people write them in tables: "12,345", "94.1±0.5", "1e-03", "94.1%", "–". */
static bool looks_like_number(const char *s) {
    if (!*s || !strcmp(s, "-") || !strcmp(s, "–")) return true;
    if (!strchr("+-.0123456789", *s)) return false;
    for (const char *p = s; *p; p++)
        if (!strchr("0123456789+-.,eE%*\xc2\xb1", *p)) return false;
    return true;
}

typedef struct Column { int32_t width; bool right; } Column;

/* s, cut to the column with an ellipsis if it is wider. */
static void cell(Text *out, const char *s, const Column *c, bool last) {
    if (mdr_report_width(s) <= c->width) {
        if (last && !c->right) mdr_text_printf(out, "%s", s);
        else mdr_report_pad(out, s, c->width, c->right);
        return;
    }
    int32_t n = 0;
    for (; *s; s++) {
        if (((unsigned char)*s & 0xc0) != 0x80 && ++n >= c->width) break;
        mdr_text_add(out, s, 1);
    }
    mdr_text_printf(out, "…");
}

static void measure(const char *const *cells, int32_t rows, int32_t cols, int32_t most, Column *c) {
    int32_t total = 2 * (cols - 1), widest = -1;
    for (int32_t k = 0; k < cols; k++) {
        c[k] = (Column){0, rows > 1};
        for (int32_t i = 0; i < rows; i++) {
            const char *s = cells[i * cols + k];
            if (mdr_report_width(s) > c[k].width) c[k].width = mdr_report_width(s);
            if (i > 0) c[k].right = c[k].right && looks_like_number(s);
        }
        total += c[k].width;
        if (!c[k].right && (widest < 0 || c[k].width > c[widest].width)) widest = k;
    }
    if (total > most && widest >= 0) { /* the widest column of text gives way, but not below a few letters    */
        int32_t width = c[widest].width - (total - most);
        c[widest].width = width > 8 ? width : c[widest].width < 8 ? c[widest].width : 8;
    }
}

void mdr_report_table(const char *const *cells, int32_t rows, int32_t cols, const ReportStyle *style, Text *out) {
    if (rows < 1 || cols < 1) return;
    Column *c = mdr_alloc((size_t)cols * sizeof *c);
    measure(cells, rows, cols, style->columns, c);
    for (int32_t i = 0; i < rows; i++) {
        if (i == 0 && style->colour) mdr_text_printf(out, "\033[1m");
        for (int32_t k = 0; k < cols; k++) {
            if (k) mdr_text_printf(out, "  ");
            cell(out, cells[i * cols + k], &c[k], k == cols - 1);
        }
        if (i == 0 && style->colour) mdr_text_printf(out, "\033[0m");
        mdr_text_printf(out, "\n");
    }
    mdr_free(c);
}
