/* The tables and the JSON of a bench, exactly. */
#include "study_harness.h"
#include "report/report.h"
#include <jansson.h>

typedef struct Case { Protocol *p; ArchList arch; ArchScore score[12]; TaskScore task[12][6]; SettingScore setting[12][6][11]; int32_t n; } Case;

static void open_case(Case *c, const char *protocol, const char *tasks, int32_t seeds, const char *text) {
    *c = (Case){.n = 0};
    SettleSpec s = {.protocol = protocol, .tasks = tasks, .seeds = seeds};
    must(mdr_study_settle(&s, &c->p));
    must(mdr_model_parse(text, 0, NULL, &c->arch));
    c->n = c->arch.n;
    for (int32_t i = 0; i < c->n; i++) {
        ArchScore *a = &c->score[i];
        *a = (ArchScore){.arch = c->arch.arch[i],
                         .task = c->task[i],
                         .params = 111696 + i,
                         .state = 8192,
                         .mad_lab = .75,
                         .mean = {.value = .72, .half = -1}};
        for (int32_t k = 0; k < c->p->n_setting; k++) {
            const TaskDef *t = c->p->setting[k].task;
            if (a->n_task && c->task[i][a->n_task - 1].task == t) continue;
            TaskScore *x = &c->task[i][a->n_task++];
            *x = (TaskScore){.task = t, .n_setting = 1, .levels = {.1, .0625, .99, .98}};
            x->macro = (Score){
                .value = .5 + .07 * a->n_task + .01 * i, .half = seeds >= 3 ? .0123 : -1, .df = 2.5, .n = c->p->n_seed};
            x->plain = x->macro;
            x->plain.value -= .125;
            x->setting = c->setting[i][a->n_task - 1];
            x->setting[0] = (SettingScore){&c->p->setting[k], x->macro};
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

/* Setting by setting: what is left out, what fits side by side, and what a column is called. */
static void settings(void **state) {
    (void)state;
    Case c;
    open_case(&c, "madras", "memorization", 3, "(mh-attention(n_heads=4|8|16) swiglu)*2");
    for (int32_t i = 0; i < c.n; i++) {
        TaskScore *x = &c.task[i][0];
        x->n_left_out = 1;
        for (int32_t k = 0; k < 2; k++)
            x->setting[k] = (SettingScore){&c.p->setting[k], {.value = k && i == 1 ? (double)NAN : .5 + .1 * i + .01 * k, .half = k ? -1 : .0123}};
    }
    Text t = {0};
    ReportStyle style = {40, false};
    mdr_report_settings(c.p, c.score, c.n, &style, &t);
    lines_fit(mdr_text_str(&t), 40);
    assert_string_equal(mdr_text_str(&t), "\n"
                                          "memorization              A            B\n"
                                          "baseline          50.0 ±1.2    60.0 ±1.2\n"
                                          "vocab_size=512         51.0            –\n"
                                          "\n"
                                          "memorization              C\n"
                                          "baseline          70.0 ±1.2\n"
                                          "vocab_size=512         71.0\n");
    mdr_text_free(&t);
    close_case(&c);
}

/* One seed: no mean, no rank, and that is said. */
static void taste(void **state) {
    (void)state;
    Case c;
    open_case(&c, "taste", "memorization,selective-copying", 0, "X = mlp(dim_inner=8|16)");
    c.task[1][0].at_chance = true;
    c.p->setting[0].train.steps = 250;
    c.p->setting[1].train.steps = 4000;
    report_is(&c, "         memorize    copy\n"
              "A            57.0    64.0\n"
              "B            58.0*   65.0\n"
              "chance        6.2     6.2\n"
              "ceiling      98.0    98.0\n"
              "\n"
              "A        mlp(dim_inner=8); 111,696 parameters, state 8,192 (memorization)\n"
              "B        mlp(dim_inner=16); 111,697 parameters, state 8,192 (memorization)\n"
              "\n"
              "Test accuracy in per cent, mean over classes; epoch chosen on the validation\n"
              "split. Protocol taste, float32, CLASS.\n"
              "Budget: 250-4,000 steps of 64 sequences; 2 settings x 1 grid point x 1 seed an\n"
              "architecture.\n"
              "One seed, no interval: this table ranks nothing. *: not told apart from chance.\n");
    close_case(&c);
}

/* One architecture under its own text. */
static void one(void **state) {
    (void)state;
    Case c;
    open_case(&c, "taste", "in-context-recall", 0, "ours = (mh-attention swiglu)*2");
    c.score[0].params = 1234567;
    c.p->setting[0].train.steps = 300;
    report_is(&c, "         recall\n"
              "ours       57.0\n"
              "chance      6.2\n"
              "ceiling    98.0\n"
              "\n"
              "ours     (mh-attention swiglu)*2; 1,234,567 parameters, state 8,192\n"
              "         (in-context-recall)\n"
              "\n"
              "Test accuracy in per cent, mean over classes; epoch chosen on the validation\n"
              "split. Protocol taste, float32, CLASS.\n"
              "Budget: 300 steps of 64 sequences; 1 setting x 1 grid point x 1 seed an\n"
              "architecture.\n"
              "One seed, no interval: a first look.\n");
    close_case(&c);
}

/* Three seeds: intervals, a mean, everything that can be missing. */
static void intervals(void **state) {
    (void)state;
    Case c;
    open_case(&c, "madras", NULL, 3, "(mh-attention(n_heads=4|8|16) swiglu)*2");
    c.task[1][2].at_chance = true;
    c.task[2][3].macro.n_diverged = 2;
    c.task[2][4].n_left_out = 3;
    c.task[2][5].n_setting = 0;
    c.task[2][5].macro = (Score){.value = (double)NAN, .half = -1};
    c.score[2].mean.value = c.score[2].mad_lab = (double)NAN;
    c.score[0].mean.half = .0111;
    report_is(&c, "         compress   fuzzy   recall   memorize   noisy    copy    mean   mad-lab\n"
              "A            57.0    64.0     71.0       78.0    85.0    92.0    72.0      75.0\n"
              "             ±1.2    ±1.2     ±1.2       ±1.2    ±1.2    ±1.2    ±1.1\n"
              "B            58.0    65.0     72.0*      79.0    86.0    93.0    72.0      75.0\n"
              "             ±1.2    ±1.2     ±1.2       ±1.2    ±1.2    ±1.2\n"
              "C            59.0    66.0     73.0       80.0    87.0       –       –         –\n"
              "             ±1.2    ±1.2     ±1.2       ±1.2    ±1.2\n"
              "chance        6.2     6.2      6.2        6.2     6.2     6.2     6.2\n"
              "ceiling      98.0    98.0     98.0       98.0    98.0    98.0    98.0\n"
              "\n"
              "A        mh-attention(n_heads=4) swiglu mh-attention(n_heads=4) swiglu; 111,696\n"
              "         parameters, state 8,192 (compression)\n"
              "B        mh-attention(n_heads=8) swiglu mh-attention(n_heads=8) swiglu; 111,697\n"
              "         parameters, state 8,192 (compression)\n"
              "C        mh-attention swiglu mh-attention swiglu; 111,698 parameters, state\n"
              "         8,192 (compression)\n"
              "\n"
              "Test accuracy in per cent, mean over classes; epoch and grid point chosen on the\n"
              "validation split. Protocol madras, float32, CLASS.\n"
              "Budget: 400-20,000 steps of 128 sequences; 66 settings x 6 grid points x 3 seeds\n"
              "an architecture.\n"
              "±: 95 % interval over 3 seeds, for these settings. *: the interval includes\n"
              "chance.\n"
              "mean: over the 6 tasks. mad-lab: the same chosen on the test split, as\n"
              "published; it enters no comparison.\n"
              "C: 2 of 3 runs of memorization diverged and count as chance.\n"
              "C: 3 of 4 settings of noisy-in-context-recall were not run and are left out.\n");
    close_case(&c);
}

/* mad-lab: chosen on test; --tasks with one task has no mean over tasks. */
static void on_test(void **state) {
    (void)state;
    Case c;
    open_case(&c, "mad-lab", "memorization", 0, "mlp");
    report_is(&c, "         memorize\n"
              "mlp          57.0\n"
              "chance        6.2\n"
              "ceiling      98.0\n"
              "\n"
              "mlp      111,696 parameters, state 8,192 (memorization)\n"
              "\n"
              "Test accuracy in per cent, mean over classes; epoch and grid point chosen on the\n"
              "test split. Protocol mad-lab, float32, CLASS.\n"
              "Budget: 400 steps of 128 sequences; 6 settings x 6 grid points x 1 seed an\n"
              "architecture.\n"
              "One seed, no interval: a first look.\n");
    close_case(&c);
}

/* Ten architectures stay within 80 columns, whatever their texts (report_is looks), and a terminal of 60 is kept to
 * where words allow. */
static void ten(void **state) {
    (void)state;
    Case c;
    open_case(&c, "madras", NULL, 3, "(mh-attention(n_heads=1|2|4|8|16) mlp(dim_inner=16|32) swiglu hyena swiglu)*2");
    assert_int_equal(c.n, 10);
    for (int32_t i = 0; i < c.n; i++)
        for (int32_t k = 0; k < 6; k++)
            c.task[i][k].macro.value = 1, c.task[i][k].macro.half = .25, c.task[i][k].at_chance = true;
    Text t = {0};
    ReportStyle style = {80, false};
    mdr_report_bench(c.p, c.score, c.n, &style, &t);
    lines_fit(mdr_text_str(&t), 80);
    assert_non_null(strstr(mdr_text_str(&t),
                           "\nJ           100.0*  100.0*   100.0*     100.0*  100.0*  100.0*   72.0      75.0\n"));
    mdr_text_free(&t);
    close_case(&c);
}

static void colour(void **state) {
    (void)state;
    Case c;
    open_case(&c, "taste", NULL, 0, "mlp");
    Text plain = {0}, painted = {0}, bare = {0};
    ReportStyle style = {80, false}, bright = {80, true};
    mdr_report_bench(c.p, c.score, c.n, &style, &plain);
    mdr_report_bench(c.p, c.score, c.n, &bright, &painted);
    assert_null(strchr(mdr_text_str(&plain), '\033'));
    for (const char *s = mdr_text_str(&painted); *s; s++) { /* without its colours it is the plain one       */
        if (*s == '\033') s = strchr(s, 'm');
        else mdr_text_add(&bare, s, 1);
    }
    assert_true(painted.n > plain.n);
    assert_string_equal(mdr_text_str(&bare), mdr_text_str(&plain));
    mdr_text_free(&plain), mdr_text_free(&painted), mdr_text_free(&bare);
    close_case(&c);
}

/* Names are a promise. */
static void json(void **state) {
    (void)state;
    Case c;
    open_case(&c, "madras", "memorization,selective-copying", 3, "X = mlp");
    c.task[0][1].n_setting = 0;
    c.task[0][1].macro = c.task[0][1].plain = (Score){.value = (double)NAN, .half = -1};
    c.score[0].mean = (Score){.value = .5, .half = .25, .df = 4, .n = 3, .n_diverged = 1};
    Text t = {0};
    must(mdr_report_bench_json(c.p, c.score, c.n, &t));
    json_error_t error;
    json_t *o = json_loads(mdr_text_str(&t), JSON_REJECT_DUPLICATES, &error);
    if (!o) fail_msg("%s", error.text);
    assert_string_equal(json_string_value(json_object_get(o, "class")), mdr_cpu_class());
    json_object_set_new(o, "class", json_string("CLASS"));
    assert_int_equal(json_integer_value(json_object_get(o, "numerics")), MDR_NUMERICS);
    json_object_set_new(o, "numerics", json_string("N"));
    /* every digit: what is read back is the number that was written */
    const json_t *first = json_array_get(json_object_get(o, "rows"), 0);
    assert_true(json_real_value(json_object_get(first, "test_acc_macro")) == c.task[0][0].macro.value);
    assert_true(json_real_value(json_array_get(json_object_get(first, "interval"), 1)) ==
                c.task[0][0].macro.value + c.task[0][0].macro.half);
    char *got = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(12));
    assert_string_equal(
        got, "{\"schema\":\"madras.bench/1\",\"madras\":\"0.1.0\",\"protocol\":\"madras\",\"select\":\"valid\","
             "\"precision\":\"float32\",\"class\":\"CLASS\",\"numerics\":\"N\",\"seeds\":[1,2,3],\"grid_points\":6,"
             "\"rows\":[{\"architecture\":\"X=mlp\",\"label\":\"X\",\"params\":111696,\"state\":8192,\"task\":"
             "\"memorization\","
             "\"settings\":1,\"settings_left_out\":0,\"seeds\":3,\"diverged\":0,\"test_acc_macro\":0.57,\"interval\":["
             "0.5577,0.5823],"
             "\"df\":2.5,\"chance_macro\":0.0625,\"ceiling_macro\":0.98,\"test_acc\":0.445,\"test_acc_interval\":[0."
             "4327,0.4573],"
             "\"chance\":0.1,\"ceiling\":0.99,\"at_chance\":false,\"by_setting\":[{\"setting\":\"baseline\",\"test_acc_macro\":0.57,"
             "\"interval\":[0.5577,0.5823],\"diverged\":0}]},{\"architecture\":\"X=mlp\",\"label\":\"X\","
             "\"params\":111696,"
             "\"state\":8192,\"task\":\"selective-copying\",\"settings\":0,\"settings_left_out\":0,\"seeds\":0,"
             "\"diverged\":0,"
             "\"test_acc_macro\":null,\"interval\":null,\"df\":null,\"chance_macro\":null,\"ceiling_macro\":null,"
             "\"test_acc\":null,"
             "\"test_acc_interval\":null,\"chance\":null,\"ceiling\":null,\"at_chance\":null,\"by_setting\":[]}],\"means\":[{"
             "\"architecture\":\"X=mlp\","
             "\"label\":\"X\",\"params\":111696,\"state\":8192,\"tasks\":2,\"seeds\":3,\"diverged\":1,\"test_acc_"
             "macro\":0.5,"
             "\"interval\":[0.25,0.75],\"df\":4.0,\"mad_lab\":0.75}]}");
    free(got);
    json_decref(o);
    mdr_text_free(&t);
    close_case(&c);
    open_case(&c, "taste", NULL, 0, "mlp");
    must(mdr_report_bench_json(c.p, c.score, c.n, &t));
    assert_non_null(strstr(mdr_text_str(&t), "\"means\": []")); /* taste has no mean                            */
    mdr_text_free(&t);
    close_case(&c);
}

/* What is not finite, and what there is none of. */
static void metrics(void **state) {
    (void)state;
    EpochScore e = {2, 9, .1, 1, {1. / 3, .5, .25, (double)INFINITY}, {(double)NAN, 1, 0, 5e-324}};
    json_t *list = json_array(), *o = json_object(), *none = json_object(), *head = mdr_report_json_head("madras.x/1", NULL);
    mdr_report_json_epoch(o, &e);
    mdr_report_json_epoch(none, NULL);
    json_array_append_new(list, head), json_array_append_new(list, o), json_array_append_new(list, none);
    Text t = {0};
    must(mdr_report_json(list, JSON_COMPACT, &t));
    assert_string_equal(mdr_text_str(&t),
                        "[{\"schema\":\"madras.x/1\",\"madras\":\"" MDR_VERSION "\",\"protocol\":null},"
                        "{\"epoch\":2,\"step\":9,\"train_loss\":0.10000000000000001,\"valid_loss\":0.33333333333333331,"
                        "\"valid_ppl\":null,\"valid_acc\":0.5,\"valid_acc_macro\":0.25,\"test_loss\":null,"
                        "\"test_ppl\":4.9406564584124654e-324,\"test_acc\":1.0,\"test_acc_macro\":0.0},"
                        "{\"epoch\":null,\"step\":null,\"train_loss\":null,\"valid_loss\":null,\"valid_ppl\":null,"
                        "\"valid_acc\":null,\"valid_acc_macro\":null,\"test_loss\":null,\"test_ppl\":null,\"test_acc\":null,"
                        "\"test_acc_macro\":null}]\n");
    mdr_text_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(taste),   cmocka_unit_test(one), cmocka_unit_test(intervals),
                                       cmocka_unit_test(on_test), cmocka_unit_test(ten), cmocka_unit_test(colour),
                                       cmocka_unit_test(json), cmocka_unit_test(settings), cmocka_unit_test(metrics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
