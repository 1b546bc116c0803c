/* A bench as JSON, schema "madras.bench/1": `rows`, one for each architecture and task, and `means`, one an
 * architecture, where the protocol allows a mean. Accuracies are shares of one; `interval` is test_acc_macro's; what is
 * not finite or does not exist is null; params and state are of the first task's model. Names may be added to, never
 * changed. */
#include "report/report.h"
#include <math.h>

static json_t *interval(const Score *s) {
    if (!(s->half >= 0) || !isfinite(s->value)) return json_null();
    json_t *pair = json_array();
    json_array_append_new(pair, mdr_report_real(s->value - s->half));
    json_array_append_new(pair, mdr_report_real(s->value + s->half));
    return pair;
}

static void set(json_t *o, const char *key, json_t *v) { json_object_set_new(o, key, v); }

static json_t *of_arch(const ArchScore *s) {
    json_t *o = json_object();
    Text printed = {0};
    mdr_model_print(s->arch, &printed);
    set(o, "architecture", json_string(mdr_text_str(&printed)));
    set(o, "label", s->arch->label ? json_string(s->arch->label) : json_null());
    set(o, "params", json_integer(s->params));
    set(o, "state", json_integer(s->state));
    mdr_text_free(&printed);
    return o;
}

static json_t *by_setting(const TaskScore *t) {
    json_t *list = json_array();
    for (int32_t i = 0; i < t->n_setting + t->n_left_out; i++) {
        const SettingScore *s = &t->setting[i];
        json_t *o = json_object();
        set(o, "setting", json_string(s->setting->change[0] ? s->setting->change : "baseline"));
        set(o, "test_acc_macro", mdr_report_real(s->macro.value));
        set(o, "interval", interval(&s->macro));
        set(o, "diverged", json_integer(s->macro.n_diverged));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *task_row(const ArchScore *s, const TaskScore *t) {
    json_t *o = of_arch(s);
    bool scored = t->n_setting > 0;
    set(o, "task", json_string(t->task->name));
    set(o, "settings", json_integer(t->n_setting));
    set(o, "settings_left_out", json_integer(t->n_left_out));
    set(o, "seeds", json_integer(t->macro.n));
    set(o, "diverged", json_integer(t->macro.n_diverged));
    set(o, "test_acc_macro", mdr_report_real(t->macro.value));
    set(o, "interval", interval(&t->macro));
    set(o, "df", t->macro.half >= 0 ? mdr_report_real(t->macro.df) : json_null());
    set(o, "chance_macro", scored ? mdr_report_real(t->levels.chance_macro) : json_null());
    set(o, "ceiling_macro", scored ? mdr_report_real(t->levels.ceiling_macro) : json_null());
    set(o, "test_acc", mdr_report_real(t->plain.value));
    set(o, "test_acc_interval", interval(&t->plain));
    set(o, "chance", scored ? mdr_report_real(t->levels.chance) : json_null());
    set(o, "ceiling", scored ? mdr_report_real(t->levels.ceiling) : json_null());
    set(o, "at_chance", scored ? json_boolean(t->at_chance) : json_null());
    set(o, "by_setting", by_setting(t));
    return o;
}

static json_t *mean_row(const ArchScore *s) {
    json_t *o = of_arch(s);
    set(o, "tasks", json_integer(s->n_task));
    set(o, "seeds", json_integer(s->mean.n));
    set(o, "diverged", json_integer(s->mean.n_diverged));
    set(o, "test_acc_macro", mdr_report_real(s->mean.value));
    set(o, "interval", interval(&s->mean));
    set(o, "df", s->mean.half >= 0 ? mdr_report_real(s->mean.df) : json_null());
    set(o, "mad_lab", mdr_report_real(s->mad_lab));
    return o;
}

static json_t *seeds(const Protocol *p) {
    json_t *list = json_array();
    for (int32_t i = 0; i < p->n_seed; i++) json_array_append_new(list, json_integer((json_int_t)p->seed[i]));
    return list;
}

Err *mdr_report_bench_json(const Protocol *p, const ArchScore *score, int32_t n, Text *out) {
    json_t *o = mdr_report_json_head("madras.bench/1", p->name), *rows = json_array(), *means = json_array();
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = 0; k < score[i].n_task; k++)
            json_array_append_new(rows, task_row(&score[i], &score[i].task[k]));
        if (p->mean_allowed) json_array_append_new(means, mean_row(&score[i]));
    }
    set(o, "select", json_string(p->select_on_test ? "test" : "valid"));
    set(o, "precision", json_string(mdr_study_precision_name(p)));
    set(o, "class", json_string(mdr_study_class(p)));
    set(o, "numerics", json_integer(MDR_NUMERICS));
    set(o, "seeds", seeds(p));
    set(o, "grid_points", json_integer(p->n_lr * p->n_decay));
    set(o, "rows", rows);
    set(o, "means", means);
    return mdr_report_json(o, JSON_INDENT(1), out);
}
