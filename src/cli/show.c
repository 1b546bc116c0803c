/* madras show: what the store holds. */
#include "cli/internal.h"
#include <math.h>
#include <string.h>
#include <time.h>

static const OptionDef options[] = {
    MDR_CLI_STORE,
    {"all", OPT_FLAG, NULL, "every trial, one a line", 0, 0, false},
    {"csv", OPT_FLAG, NULL, "comma-separated, one row a trial", 0, 0, false},
    MDR_CLI_JSON,
    {0}};

/* By the split that could end the trial: what was stopped on test, as mad-lab does, is scored there. */
static const EpochScore *chosen(const StoreTrial *t)
{
    int32_t k = mdr_study_select_epoch(&t->result, strstr(t->spec, "train.early_stop test\n") != NULL);
    return k < 0 ? NULL : &t->result.epoch[k];
}

/* Lines become one, a semicolon and a space between. */
static void csv_text(const char *s, Text *t)
{
    mdr_text_printf(t, "\"");
    for (; *s; s++) {
        if (*s == '\n') mdr_text_printf(t, "%s", s[1] ? "; " : "");
        else mdr_text_printf(t, *s == '"' ? "\"\"" : "%c", *s);
    }
    mdr_text_printf(t, "\"");
}

static void csv_real(double x, Text *t)
{
    char buf[32];
    mdr_text_printf(t, ",%s", isfinite(x) ? mdr_text_real(x, buf) : "");
}

static void print_csv(StoreTrial **all, int32_t n, Text *t)
{
    mdr_text_printf(t, "key,architecture,task,seed,class,numerics,status,epochs,params,state,flops,seconds,valid_loss,valid_ppl,valid_acc,"
                       "valid_acc_macro,test_loss,test_ppl,test_acc,test_acc_macro,spec\n");
    for (int32_t i = 0; i < n; i++) {
        const StoreTrial *x = all[i];
        const EpochScore *e = chosen(x);
        mdr_text_printf(t, "%s,", x->key);
        csv_text(x->architecture, t);
        mdr_text_printf(t, ",%s,%lld,%s,%lld,%s,%d,%lld,%lld", x->task, (long long)x->seed, x->class_name, (long long)x->numerics,
                        mdr_train_status_name(x->result.status), x->result.n_epoch, (long long)x->params, (long long)x->state);
        csv_real(x->flops, t);
        csv_real(x->result.seconds, t);
        const SplitScore *s[2] = {e ? &e->valid : NULL, e ? &e->test : NULL};
        for (int k = 0; k < 2; k++) {
            csv_real(s[k] ? s[k]->loss : NAN, t);
            csv_real(s[k] ? s[k]->ppl : NAN, t);
            csv_real(s[k] ? s[k]->acc : NAN, t);
            csv_real(s[k] ? s[k]->acc_macro : NAN, t);
        }
        mdr_text_printf(t, ",");
        csv_text(x->spec, t);
        mdr_text_printf(t, "\n");
    }
}

static json_t *trial_json(const StoreTrial *x, bool epochs)
{
    json_t *o = json_object();
    json_object_set_new(o, "key", json_string(x->key));
    json_object_set_new(o, "architecture", json_string(x->architecture));
    json_object_set_new(o, "label", json_string(x->label));
    json_object_set_new(o, "task", json_string(x->task));
    json_object_set_new(o, "seed", json_integer(x->seed));
    json_object_set_new(o, "class", json_string(x->class_name));
    json_object_set_new(o, "numerics", json_integer(x->numerics));
    json_object_set_new(o, "status", json_string(mdr_train_status_name(x->result.status)));
    json_object_set_new(o, "params", json_integer(x->params));
    json_object_set_new(o, "state", json_integer(x->state));
    json_object_set_new(o, "flops", mdr_report_real(x->flops));
    json_object_set_new(o, "seconds", mdr_report_real(x->result.seconds));
    json_object_set_new(o, "spec", json_string(x->spec));
    json_t *list = json_array();
    for (int32_t i = 0; i < x->result.n_epoch; i++) {
        const EpochScore *e = &x->result.epoch[i];
        if (!epochs && e != chosen(x)) continue;
        json_t *r = json_object();
        mdr_report_json_epoch(r, e);
        json_array_append_new(list, r);
    }
    json_object_set_new(o, "epochs", list);
    return o;
}

static Err *print_json(StoreTrial **all, int32_t n, bool epochs)
{
    json_t *o = mdr_report_json_head("madras.show/1", NULL), *rows = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(rows, trial_json(all[i], epochs));
    json_object_set_new(o, "rows", rows);
    return mdr_cli_print_json(o, JSON_INDENT(1));
}

static void print_line(const StoreTrial *x, Text *t)
{
    const EpochScore *e = chosen(x);
    mdr_text_printf(t, "%.12s %-24s %4lld ", x->key, x->task, (long long)x->seed);
    if (e) mdr_text_printf(t, "%6.1f %%", 100 * e->test.acc_macro);
    else mdr_text_printf(t, "%8s", mdr_train_status_name(x->result.status));
    mdr_text_printf(t, "  %.*s%s\n", 24, x->architecture, strlen(x->architecture) > 24 ? ".." : "");
}

static void print_one(const StoreTrial *x, Text *t)
{
    char date[32] = "";
    time_t when = (time_t)x->created;
    struct tm tm;
    if (gmtime_r(&when, &tm)) strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &tm);
    mdr_text_printf(t, "trial %s\n%s, %s, %.1f s, %lld parameters, state %lld, %.3g FLOPs\n\n%s\n", x->key, mdr_train_status_name(x->result.status), date,
                    x->result.seconds, (long long)x->params, (long long)x->state, x->flops, x->spec);
    mdr_text_printf(t, "%6s %8s %10s %10s %9s %9s %9s\n", "epoch", "step", "train loss", "valid loss", "valid acc", "test acc", "plain");
    for (int32_t i = 0; i < x->result.n_epoch; i++) {
        const EpochScore *e = &x->result.epoch[i];
        mdr_text_printf(t, "%6d %8lld %10.4f %10.4f %9.4f %9.4f %9.4f%s\n", e->epoch, (long long)e->step, e->train_loss, e->valid.loss,
                        e->valid.acc_macro, e->test.acc_macro, e->test.acc, e == chosen(x) ? "  <" : "");
    }
}

static Err *run(const Args *a)
{
    bool all = mdr_cli_option(a, "all")->given, csv = mdr_cli_option(a, "csv")->given, json = mdr_cli_option(a, "json")->given;
    if (a->n_word > 1) return MDR_ERR_USER("show takes one trial, got %d", a->n_word);
    if (a->n_word && all) return MDR_ERR_USER("--all and a trial exclude each other");
    if (csv && json) return MDR_ERR_USER("--csv and --json exclude each other");
    Store *s = NULL;
    Arena *arena = mdr_arena_new();
    StoreTrial **t = NULL;
    int32_t n = 0;
    Text out = {0};
    Err *e = mdr_store_open(mdr_cli_option(a, "store")->text, false, &s);
    if (!e) e = mdr_store_list(s, arena, a->n_word ? a->word[0] : "", &n, &t);
    if (!e && a->n_word && n == 0) e = MDR_ERR_USER("no trial of %s has a key that begins with \"%s\"; see madras show", mdr_store_path(s), a->word[0]);
    if (!e) {
        int32_t shown = !a->n_word && !all && !csv && !json && n > 20 ? 20 : n;
        if (csv) print_csv(t, n, &out);
        else if (json) e = print_json(t, n, a->n_word > 0);
        else if (a->n_word && n == 1) print_one(t[0], &out);
        else for (int32_t i = n - shown; i < n; i++) print_line(t[i], &out);
        if (!csv && !json && n == 0 && !e) mdr_text_printf(&out, "%s holds no trial yet\n", mdr_store_path(s));
        if (shown < n) mdr_text_printf(&out, "the newest %d of %d; --all shows all\n", shown, n);
        if (!e) e = mdr_cli_print(mdr_text_str(&out));
    }
    mdr_text_free(&out);
    mdr_store_close(s);
    mdr_arena_free(arena);
    return e;
}

const CommandDef mdr_commands_show[] = {
    {"show", "[TRIAL] [options]", "what the store holds: the newest trials, or one of them",
     "TRIAL is the beginning of a key. With --json or --csv all trials of the store.\n"
     "A trial's accuracy is test's at the epoch chosen on the split that may end it\n(its early_stop; validation where that is none).\n", options, run},
    {0}};
