/* The tables and the JSON of a bench, exactly. */
#include "study_harness.h"
#include "report/report.h"
#include <jansson.h>

typedef struct Case { Protocol *p; ArchList arch; ArchScore score[12]; TaskScore task[12][6]; int32_t n; } Case;

static void open_case(Case *c, const char *protocol, const char *tasks, int32_t seeds, const char *text) {
    *c = (Case){.n = 0};
    SettleSpec s = {.protocol = protocol, .tasks = tasks, .seeds = seeds};
    must(mdr_study_settle(&s, &c->p));
    must(mdr_model_parse(text, 0, NULL, &c->arch));
    c->n = c->arch.n;
    for (int32_t i = 0; i < c->n; i++) {
        ArchScore *a = &c->score[i];
        *a = (ArchScore){.arch = c->arch.arch[i], .task = c->task[i], .params = 111696 + i, .state = 8192, .mad_lab = .75, .mean = {.value = .72, .half = -1}};
        for (int32_t k = 0; k < c->p->n_setting; k++) {
            const TaskDef *t = c->p->setting[k].task;
            if (a->n_task && c->task[i][a->n_task - 1].task == t) continue;
            TaskScore *x = &c->task[i][a->n_task++];
            *x = (TaskScore){.task = t, .n_setting = 1, .levels = {.1, .0625, .99, .98}};
            x->macro = (Score){.value = .5 + .07 * a->n_task + .01 * i, .half = seeds >= 3 ? .0123 : -1, .df = 2.5, .n = c->p->n_seed};
            x->plain = x->macro;
            x->plain.value -= .125;
        }
    }
}
static void close_case(Case *c) {
    mdr_study_protocol_free(c->p);
    mdr_model_archs_free(&c->arch);
}
static void lines_fit(const char *s, int32_t columns) {
    for (; *s; s += strcspn(s, "\n"), s += *s == '\n') {
        int32_t n = 0;
        for (const char *p = s; *p && *p != '\n'; p++) n += ((unsigned char)*p & 0xc0) != 0x80;
        if (n > columns) fail_msg("%d columns: %.*s", n, (int)strcspn(s, "\n"), s);
    }
}
/* The class of the machine stands in the caption: put back to a word of one length. */
static void report_is(Case *c, const char *want) {
    Text t = {0};
    ReportStyle style = {80, false};
    mdr_report_bench(c->p, c->score, c->n, &style, &t);
    lines_fit(mdr_text_str(&t), 80);
    char *at = strstr(t.s, mdr_cpu_class());
    assert_non_null(at);
    Text u = {0};
    mdr_text_printf(&u, "%.*sCLASS%s", (int)(at - t.s), t.s, at + strlen(mdr_cpu_class()));
    assert_string_equal(mdr_text_str(&u), want);
    mdr_text_free(&t);
    mdr_text_free(&u);
}

static void taste(void **state) {
    (void)state;
    Case c;
    open_case(&c, "taste", NULL, 0, "(mh-attention|hyena swiglu)*2" + 0);
    close_case(&c);
    open_case(&c, "taste", "memorization,selective-copying", 0, "X = mlp(dim_inner=8|16)");
    c.task[1][0].at_chance = true;
    c.p->setting[0].train.steps = 250;
    c.p->setting[1].train.steps = 4000;
    report_is(&c, "");
    close_case(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(taste)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
