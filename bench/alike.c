/* Do devices and precisions learn alike? Trials of stores, paired by everything but device and precision (architecture, task, setting, rate,
 * seed): test accuracy at the epoch chosen on the validation split, one class less another, in points; the mean over the pairs and half of
 * its 99 % interval (Student's t). A star marks a mean that lies beyond its interval.
 *
 *   build/bench/alike STORE...      e.g. after  madras bench --seeds 10 ... , once with --precision bf16, once on the CPU */
#include "store/store.h"
#include "study/study.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CLASSES = 8 };
typedef struct Row { const char *what, *architecture, *task; char name[64]; double accuracy; } Row;     /* name: class and precision */
typedef struct Rows { Row *row; int32_t n; Arena *arena; } Rows;

static const char PRECISION[] = "train.precision ";

/* The spec without its line of the precision, which goes to `precision` (cut to fit). */
static const char *without_precision(Arena *a, const char *spec, char precision[16])
{
    char *s = mdr_arena_strdup(a, spec), *line = strstr(s, PRECISION);
    char *end = line ? strchr(line, '\n') : NULL;
    snprintf(precision, 16, "?");
    if (!end) return s;
    snprintf(precision, 16, "%.*s", (int)(end - line - (ptrdiff_t)strlen(PRECISION)), line + strlen(PRECISION));
    memmove(line, end + 1, strlen(end + 1) + 1);
    return s;
}

static Err *read_store(const char *path, Rows *rows)
{
    Store *s = NULL;
    StoreTrial **t = NULL;
    int32_t n = 0;
    MDR_TRY(mdr_store_open(path, false, &s));
    Err *e = mdr_store_list(s, rows->arena, "", &n, &t);
    if (!e) rows->row = mdr_realloc(rows->row, (size_t)(rows->n + n + 1) * sizeof *rows->row);
    for (int32_t i = 0; i < n && !e; i++) {
        const int32_t at = mdr_study_select_epoch(&t[i]->result, false);
        if (t[i]->result.status == TRIAL_DIVERGED || at < 0) continue;
        char precision[16];
        Row *r = &rows->row[rows->n++];
        *r = (Row){without_precision(rows->arena, t[i]->spec, precision), t[i]->architecture, t[i]->task, "", 100 * t[i]->result.epoch[at].test.acc_macro};
        snprintf(r->name, sizeof r->name, "%s %s", t[i]->class_name, precision);
    }
    mdr_store_close(s);
    return e;
}

/* Differences of the pairs of two classes for one architecture and task. */
static void cell(const Rows *rows, const char *one, const char *other, const char *architecture, const char *task)
{
    double sum = 0, square = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < rows->n; i++)
        for (int32_t k = 0; k < rows->n; k++) {
            const Row *a = &rows->row[i], *b = &rows->row[k];
            if (strcmp(a->name, one) || strcmp(b->name, other) || strcmp(a->task, task) || strcmp(a->architecture, architecture)) continue;
            if (strcmp(a->what, b->what) != 0) continue;
            const double d = a->accuracy - b->accuracy;
            sum += d;
            square += d * d;
            n++;
        }
    if (n < 2) {
        printf("  %12s", n ? "one pair" : "-");
        return;
    }
    const double mean = sum / n, var = fmax(0.0, (square - sum * mean) / (n - 1));
    const double half = mdr_study_t_quantile(n - 1, 0.995) * sqrt(var / n);
    char text[32];
    snprintf(text, sizeof text, "%+.1f ±%.1f%s", mean, half, fabs(mean) > half ? "*" : "");
    printf("  %*s", 13, text);                                        /* ± is two bytes wide                                  */
}

/* Names that occur, in order of their first row; field 0 class, 1 architecture, 2 task. */
static int32_t names(const Rows *rows, int field, const char **out, int32_t most)
{
    int32_t n = 0;
    for (int32_t i = 0; i < rows->n; i++) {
        const Row *r = &rows->row[i];
        const char *name = field == 0 ? r->name : field == 1 ? r->architecture : r->task;
        int32_t k = 0;
        while (k < n && strcmp(out[k], name) != 0) k++;
        if (k == n && n < most) out[n++] = name;
    }
    return n;
}

int main(int argc, char **argv)
{
    Rows rows = {.arena = mdr_arena_new()};
    const char *class_name[MOST_CLASSES], *architecture[16], *task[16];
    Err *e = argc > 1 ? NULL : MDR_ERR_USER("usage: alike STORE...");
    for (int i = 1; i < argc && !e; i++) e = read_store(argv[i], &rows);
    const int32_t n_class = names(&rows, 0, class_name, MOST_CLASSES), n_arch = names(&rows, 1, architecture, 16), n_task = names(&rows, 2, task, 16);
    for (int32_t a = 0; a < n_class && !e; a++)
        for (int32_t b = 0; b < a; b++) {
            printf("%s less %s, points of test accuracy, mean ± half of the paired 99 %% interval\n", class_name[a], class_name[b]);
            for (int32_t k = 0; k < n_task; k++) printf("  %12.12s", task[k]);
            printf("\n");
            for (int32_t i = 0; i < n_arch; i++) {
                for (int32_t k = 0; k < n_task; k++) cell(&rows, class_name[a], class_name[b], architecture[i], task[k]);
                printf("  %s\n", architecture[i]);
            }
        }
    mdr_free(rows.row);
    mdr_arena_free(rows.arena);
    if (!e) return 0;
    fprintf(stderr, "%s\n", mdr_err_text(e));
    mdr_err_free(e);
    return 1;
}
