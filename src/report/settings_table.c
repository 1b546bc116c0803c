/* A bench setting by setting: a table for each task, a row for each of its settings, a column for each architecture; as many columns side
 * by side as fit. How a score falls as a task gets harder says more than its mean. */
#include "report/internal.h"
#include <math.h>

enum { WIDEST = 24, LEAST_VALUE = 5, WITH_INTERVAL = 11 };     /* "100.0", "100.0 ±12.3"                                           */

typedef struct Rungs {
    const ArchScore *score;
    const char **name;                                 /* of the columns                                                       */
    int32_t n, columns, setting_width;
    bool interval, colour;
    Text *out;
} Rungs;

static const char *setting_name(const SettingScore *s) { return s->setting->change[0] ? s->setting->change : "baseline"; }

static int32_t width(const Rungs *r, int32_t i)
{
    const int32_t value = r->interval ? WITH_INTERVAL : LEAST_VALUE, name = mdr_report_width(r->name[i]);
    return name > value ? name : value;
}
static void cell(const Rungs *r, const Score *s, int32_t at, Text *row)
{
    Text t = {0};
    if (isfinite(s->value)) mdr_text_printf(&t, "%.1f", 100 * s->value);
    else mdr_text_printf(&t, "–");
    if (isfinite(s->value) && s->half >= 0) mdr_text_printf(&t, " ±%.1f", 100 * s->half);
    mdr_text_printf(row, "  ");
    mdr_report_pad(row, mdr_text_str(&t), width(r, at), true);
    mdr_text_free(&t);
}
static void end_line(const Rungs *r, Text *row, const char *colour)
{
    const bool paint = r->colour && colour[0];
    mdr_text_printf(r->out, "%s%s%s\n", paint ? colour : "", mdr_text_str(row), paint ? "\033[0m" : "");
    mdr_text_clear(row);
}

/* Architectures from `first` to `end` on task k. */
static void part(const Rungs *r, int32_t k, int32_t first, int32_t end)
{
    const TaskScore *task = &r->score[0].task[k];
    Text row = {0};
    mdr_text_printf(r->out, "\n");
    mdr_report_pad(&row, task->task->name, r->setting_width, false);
    for (int32_t i = first; i < end; i++) {
        mdr_text_printf(&row, "  ");
        mdr_report_pad(&row, r->name[i], width(r, i), true);
    }
    end_line(r, &row, "\033[1m");
    for (int32_t s = 0; s < task->n_setting + task->n_left_out; s++) {
        mdr_report_pad(&row, setting_name(&task->setting[s]), r->setting_width, false);
        for (int32_t i = first; i < end; i++) cell(r, &r->score[i].task[k].setting[s].macro, i, &row);
        end_line(r, &row, "");
    }
    mdr_text_free(&row);
}

void mdr_report_settings(const Protocol *p, const ArchScore *score, int32_t n, const ReportStyle *style, Text *out)
{
    if (n < 1) return;
    Arena *a = mdr_arena_new();
    Rungs r = {.score = score, .n = n, .columns = style->columns > 0 ? style->columns : 80, .interval = p->n_seed >= 3, .colour = style->colour, .out = out};
    r.name = mdr_report_names(score, n, WIDEST, a);
    for (int32_t k = 0; k < score[0].n_task; k++) {
        const TaskScore *task = &score[0].task[k];
        r.setting_width = mdr_report_width(task->task->name);
        for (int32_t s = 0; s < task->n_setting + task->n_left_out; s++) {
            const int32_t w = mdr_report_width(setting_name(&task->setting[s]));
            r.setting_width = w > r.setting_width ? w : r.setting_width;
        }
        for (int32_t first = 0, end; first < n; first = end) {
            int32_t room = r.columns - r.setting_width;
            for (end = first; end < n && (end == first || room >= width(&r, end) + 2); end++) room -= width(&r, end) + 2;
            part(&r, k, first, end);
        }
    }
    mdr_arena_free(a);
}
