/* The table of a bench. One row an architecture (a second one with its intervals), one column a task, then the mean
 * where the protocol allows one; rows of chance and ceiling; a legend; and what may and may not be read off it. Nothing
 * is ranked here. */
#include "report/internal.h"
#include <math.h>
#include <string.h>

enum { LONGEST_NAME = 24, MOST_COLUMNS = 80 };
static const char MARK = '*';

/* Headings as the field's tables have them; another task's name is cut. */
static const char *const heading[][2] = {{"compression", "compress"},          {"fuzzy-in-context-recall", "fuzzy"},
                                         {"in-context-recall", "recall"},      {"memorization", "memorize"},
                                         {"noisy-in-context-recall", "noisy"}, {"selective-copying", "copy"}};

typedef struct Table {
    const Protocol *p;
    const ArchScore *score;
    int32_t n, n_task, name_width, columns;
    int32_t width[MOST_COLUMNS]; /* of a column's value; a mark and a space come after and before      */
    bool mean, interval, colour;
    Arena *a;
    const char **name; /* of the rows                                                        */
    Text *out;
} Table;

static const char *head(const Table *t, const TaskDef *task) {
    for (int i = 0; i < MDR_COUNT(heading); i++)
        if (strcmp(heading[i][0], task->name) == 0) return heading[i][1];
    return mdr_arena_printf(t->a, "%.8s", task->name);
}

static const char *letters(Arena *a, int32_t i) {
    return i < 26 ? mdr_arena_printf(a, "%c", 'A' + i) : mdr_arena_printf(a, "%c%c", 'A' + i / 26 - 1, 'A' + i % 26);
}

static const char *percent(Arena *a, double x, const char *sign) {
    return isfinite(x) ? mdr_arena_printf(a, "%s%.1f", sign, 100 * x) : "–";
}

/* The text without its label. */
static const char *stack_text(const Arch *a) {
    const char *eq = a->label && a->label[0] ? strchr(a->text, '=') : NULL;
    if (!eq || strncmp(a->text, a->label, strlen(a->label)) != 0) return a->text;
    return eq + 1 + strspn(eq + 1, " ");
}

static const char *own_name(const ArchScore *s) { return s->arch->label && s->arch->label[0] ? s->arch->label : s->arch->text; }
const char **mdr_report_names(const ArchScore *score, int32_t n, int32_t room, Arena *a) {
    const char **out = mdr_arena_alloc(a, (size_t)n * sizeof *out + 1);
    for (int32_t i = 0; i < n; i++) {
        const char *name = own_name(&score[i]);
        bool fits = mdr_report_width(name) <= room;
        for (int32_t k = 0; fits && k < n; k++) fits = k == i || strcmp(name, own_name(&score[k])) != 0;
        out[i] = fits ? name : letters(a, i);
    }
    return out;
}
static void name_rows(Table *t) {
    int32_t room = t->columns - 1;
    for (int32_t k = 0; k < t->n_task + 2 * t->mean; k++) room -= t->width[k] + 3;
    t->name = mdr_report_names(t->score, t->n, room > LONGEST_NAME ? LONGEST_NAME : room, t->a);
    t->name_width = 7; /* "ceiling"                                                          */
    for (int32_t i = 0; i < t->n; i++)
        if (mdr_report_width(t->name[i]) > t->name_width) t->name_width = mdr_report_width(t->name[i]);
}

/* One line: cells[k], marked where mark says so. */
static void line(const Table *t, const char *name, const char *const *cell, const bool *mark, const char *colour) {
    Text row = {0};
    mdr_report_pad(&row, name, t->name_width, false);
    for (int32_t k = 0; k < t->n_task + 2 * t->mean; k++) {
        mdr_text_printf(&row, "  ");
        mdr_report_pad(&row, cell[k], t->width[k], true);
        mdr_text_printf(&row, "%c", mark && mark[k] ? MARK : ' ');
    }
    while (row.n && row.s[row.n - 1] == ' ') row.s[--row.n] = 0;
    bool paint = t->colour && colour[0];
    mdr_text_printf(t->out, "%s%s%s\n", paint ? colour : "", mdr_text_str(&row), paint ? "\033[0m" : "");
    mdr_text_free(&row);
}

static void score_rows(const Table *t, int32_t i) {
    const ArchScore *s = &t->score[i];
    const char *value[MOST_COLUMNS + 2], *half[MOST_COLUMNS + 2];
    bool mark[MOST_COLUMNS + 2] = {false};
    for (int32_t k = 0; k < t->n_task; k++) {
        const Score *x = &s->task[k].macro;
        value[k] = percent(t->a, x->value, "");
        half[k] = x->half >= 0 ? percent(t->a, x->half, "±") : "";
        mark[k] = isfinite(x->value) && s->task[k].at_chance;
    }
    value[t->n_task] = percent(t->a, s->mean.value, "");
    half[t->n_task] = s->mean.half >= 0 ? percent(t->a, s->mean.half, "±") : "";
    value[t->n_task + 1] = percent(t->a, s->mad_lab, "");
    half[t->n_task + 1] = "";
    line(t, t->name[i], value, mark, "");
    if (t->interval) line(t, "", half, NULL, "");
}

/* Chance and ceiling belong to the settings scored: taken from the first architecture that has the task. */
static void level_row(const Table *t, const char *name, bool ceiling) {
    const char *cell[MOST_COLUMNS + 2];
    double sum = 0;
    for (int32_t k = 0; k < t->n_task; k++) {
        double x = (double)NAN;
        for (int32_t i = 0; i < t->n && !isfinite(x); i++) {
            const TaskScore *s = &t->score[i].task[k];
            if (s->n_setting > 0) x = ceiling ? s->levels.ceiling_macro : s->levels.chance_macro;
        }
        cell[k] = percent(t->a, x, "");
        sum += x / t->n_task;
    }
    cell[t->n_task] = percent(t->a, sum, "");
    cell[t->n_task + 1] = "";
    line(t, name, cell, NULL, "\033[2m");
}

static void header(Table *t) {
    const char *cell[MOST_COLUMNS + 2];
    for (int32_t k = 0; k < t->n_task; k++) {
        cell[k] = head(t, t->score[0].task[k].task);
        t->width[k] = mdr_report_width(cell[k]) > 5 ? mdr_report_width(cell[k]) : 5;
    }
    cell[t->n_task] = "mean";
    cell[t->n_task + 1] = "mad-lab";
    t->width[t->n_task] = 5;
    t->width[t->n_task + 1] = 7;
    name_rows(t);
    line(t, "", cell, NULL, "\033[1m");
}

static void legend(const Table *t) {
    mdr_text_printf(t->out, "\n");
    for (int32_t i = 0; i < t->n; i++) {
        const ArchScore *s = &t->score[i];
        Text words = {0};
        const char *text = stack_text(s->arch);
        bool same = strcmp(t->name[i], text) == 0;
        mdr_report_pad(t->out, t->name[i], t->name_width, false);
        mdr_text_printf(t->out, "  ");
        mdr_text_printf(&words, "%s%s", same ? "" : text, same ? "" : "; ");
        mdr_report_count(&words, s->params);
        mdr_text_printf(&words, " parameters, state ");
        mdr_report_count(&words, s->state);
        if (s->n_task > 0) mdr_text_printf(&words, " (%s)", s->task[0].task->name);
        mdr_report_wrap(t->out, mdr_text_str(&words), t->columns, t->name_width + 2, t->name_width + 2);
        mdr_text_free(&words);
    }
    mdr_text_printf(t->out, "\n");
}

static void say(const Table *t, Text *words) {
    mdr_report_wrap(t->out, mdr_text_str(words), t->columns, 0, 0);
    mdr_text_clear(words);
}

static void range(Text *w, int64_t lo, int64_t hi) {
    mdr_report_count(w, lo);
    if (hi > lo) mdr_text_printf(w, "-"), mdr_report_count(w, hi);
}

static void say_budget(const Table *t, Text *w) {
    const Protocol *p = t->p;
    int64_t lo = INT64_MAX, hi = 0, b_lo = INT64_MAX, b_hi = 0;
    for (int32_t i = 0; i < p->n_setting; i++) {
        TrialSpec s = {.task = p->setting[i].task, .setting = p->setting[i].params, .train = p->setting[i].train};
        int64_t steps = mdr_train_total_steps(&s), batch = s.train.batch_size;
        lo = steps < lo ? steps : lo, hi = steps > hi ? steps : hi;
        b_lo = batch < b_lo ? batch : b_lo, b_hi = batch > b_hi ? batch : b_hi;
    }
    mdr_text_printf(w, "Budget: ");
    range(w, lo, hi);
    mdr_text_printf(w, " steps of ");
    range(w, b_lo, b_hi);
    mdr_text_printf(w, " sequences; %d setting%s x %d grid point%s x %d seed%s an architecture.", p->n_setting,
                    p->n_setting == 1 ? "" : "s", p->n_lr * p->n_decay, p->n_lr * p->n_decay == 1 ? "" : "s", p->n_seed,
                    p->n_seed == 1 ? "" : "s");
    say(t, w);
}

static void say_spread(const Table *t, Text *w, bool at_chance) {
    int32_t n = t->p->n_seed;
    if (t->interval) {
        mdr_text_printf(w, "±: 95 %% interval over %d seeds, for these settings.", n);
        if (at_chance) mdr_text_printf(w, " %c: the interval includes chance.", MARK);
    } else {
        mdr_text_printf(w, "%s, no interval: %s.", n == 1 ? "One seed" : "Two seeds",
                        t->n > 1 ? "this table ranks nothing" : "a first look");
        if (at_chance) mdr_text_printf(w, " %c: not told apart from chance.", MARK);
    }
    say(t, w);
}

static void caption(const Table *t) {
    Text w = {0};
    const Protocol *p = t->p;
    bool at_chance = false;
    for (int32_t i = 0; i < t->n; i++)
        for (int32_t k = 0; k < t->n_task; k++)
            at_chance = at_chance || (isfinite(t->score[i].task[k].macro.value) && t->score[i].task[k].at_chance);
    mdr_text_printf(
        &w, "Test accuracy in per cent, mean over classes; epoch%s chosen on the %s split. Protocol %s, %s, %s.",
        p->n_lr * p->n_decay > 1 ? " and grid point" : "", p->select_on_test ? "test" : "validation", p->name,
        mdr_study_precision_name(p), mdr_study_class(p));
    say(t, &w);
    say_budget(t, &w);
    say_spread(t, &w, at_chance);
    if (t->mean) {
        mdr_text_printf(&w,
                        "mean: over the %d tasks. mad-lab: the same chosen on the test split, as published; it enters "
                        "no comparison.",
                        t->n_task);
        say(t, &w);
    }
    for (int32_t i = 0; i < t->n; i++)
        for (int32_t k = 0; k < t->n_task; k++) {
            const TaskScore *s = &t->score[i].task[k];
            if (s->n_left_out > 0) {
                mdr_text_printf(&w, "%s: %d of %d settings of %s were not run and are left out.", t->name[i],
                                s->n_left_out, s->n_left_out + s->n_setting, s->task->name);
                say(t, &w);
            }
            if (s->macro.n_diverged > 0) {
                mdr_text_printf(&w, "%s: %d of %d runs of %s diverged and count as chance.", t->name[i],
                                s->macro.n_diverged, s->n_setting * s->macro.n, s->task->name);
                say(t, &w);
            }
        }
    mdr_text_free(&w);
}

void mdr_report_bench(const Protocol *p, const ArchScore *score, int32_t n, const ReportStyle *style, Text *out) {
    if (n < 1) return;
    Table t = {.p = p,
               .score = score,
               .n = n,
               .columns = style->columns > 0 && style->columns < MOST_COLUMNS ? style->columns : MOST_COLUMNS,
               .colour = style->colour,
               .a = mdr_arena_new(),
               .out = out};
    t.n_task = score[0].n_task < MOST_COLUMNS - 2 ? score[0].n_task : MOST_COLUMNS - 2;
    t.mean = p->mean_allowed && t.n_task > 1;
    t.interval = p->n_seed >= 3;
    header(&t);
    for (int32_t i = 0; i < n; i++) score_rows(&t, i);
    level_row(&t, "chance", false);
    level_row(&t, "ceiling", true);
    legend(&t);
    caption(&t);
    mdr_arena_free(t.a);
}
