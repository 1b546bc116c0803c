/* madras list: primitives, tasks, protocols, ops: parameters, defaults, bounds, one line each; ops --measure times them. */
#include "cli/internal.h"
#include <string.h>

static const OptionDef options[] = {
    {"show", OPT_TEXT, "NAME", "protocols: print that protocol's file", 0, 0, false},
    {"measure", OPT_FLAG, NULL, "ops: time each in training steps, beside its bound", 0, 0, false},
    MDR_CLI_THREADS,
    MDR_CLI_JSON,
    {0}};

/* Text in columns [indent, 80), the first line already there up to indent. */
static void wrapped(Text *t, const char *s, int indent)
{
    int at = indent;
    for (bool first = true; *s; first = false) {
        size_t n = strcspn(s, " ");
        if (!first && at + 1 + (int)n > 80) { mdr_text_printf(t, "\n%*s", indent, ""); at = indent; }
        else if (!first) { mdr_text_add(t, " ", 1); at++; }
        mdr_text_add(t, s, n);
        at += (int)n;
        s += n + (s[n] == ' ');
    }
    mdr_text_printf(t, "\n");
}

/* The shorter of 1048576 and 1.04858e+06; of 100000000 and 1e+08. */
static void bound(double v, char buf[32])
{
    char other[32];
    double back;
    mdr_text_real(v, buf);
    snprintf(other, sizeof other, "%g", v);
    if (strlen(other) < strlen(buf) && mdr_text_to_real(other, &back) && !(back < v) && !(back > v)) memcpy(buf, other, sizeof other);
}

static void range(const Param *p, Text *t)
{
    char lo[32], hi[32];
    bound(p->lo, lo);
    bound(p->hi, hi);
    if (p->type == MDR_WORD) mdr_text_printf(t, "%s", p->words);
    else if (p->type == MDR_BOOL) mdr_text_printf(t, "true|false");
    else mdr_text_printf(t, "%s .. %s", lo, hi);
}

static void default_text(const Param *one, Text *t)
{
    Param table[2] = {*one, {0}};
    double box[64] = {0};
    table[0].offset = 0;
    mdr_params_default(table, box);
    mdr_params_text(&table[0], box, t);
}

static void params_text(const Param *p, Text *t)
{
    for (; p->name; p++) {
        Text def = {0}, bounds = {0};
        char left[80];
        default_text(p, &def);
        range(p, &bounds);
        snprintf(left, sizeof left, "%s=%s", p->name, mdr_text_str(&def));
        mdr_text_printf(t, bounds.n > 13 ? "    %-25s %s\n%44s" : "    %-25s %-13s %s", left, mdr_text_str(&bounds), "");
        wrapped(t, p->help, 44);
        mdr_text_free(&def);
        mdr_text_free(&bounds);
    }
}
static json_t *params_json(const Param *p)
{
    json_t *list = json_array();
    for (; p->name; p++) {
        Text def = {0}, bounds = {0};
        json_t *o = json_object();
        default_text(p, &def);
        range(p, &bounds);
        json_object_set_new(o, "name", json_string(p->name));
        json_object_set_new(o, "default", json_string(mdr_text_str(&def)));
        json_object_set_new(o, "range", json_string(mdr_text_str(&bounds)));
        json_object_set_new(o, "help", json_string(p->help));
        json_array_append_new(list, o);
        mdr_text_free(&def);
        mdr_text_free(&bounds);
    }
    return list;
}

/* One row of any listing. */
static void row(Text *t, json_t *rows, const char *name, const char *help, const Param *params)
{
    if (!rows) {
        mdr_text_printf(t, "%s\n    ", name);
        wrapped(t, help, 4);
        if (params) params_text(params, t);
        return;
    }
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "help", json_string(help));
    if (params) json_object_set_new(o, "params", params_json(params));
    json_array_append_new(rows, o);
}

static void primitives(Text *t, json_t *rows)
{
    for (int i = 0; mdr_layer_at(i); i++) row(t, rows, mdr_layer_at(i)->name, mdr_layer_at(i)->help, mdr_layer_at(i)->params);
}
static void tasks(Text *t, json_t *rows)
{
    for (int i = 0; mdr_task_at(i); i++) row(t, rows, mdr_task_at(i)->name, mdr_task_at(i)->help, mdr_task_at(i)->params);
}
static void ops(Text *t, json_t *rows)
{
    for (int i = 0; mdr_op_at(i); i++) {
        const OpDef *d = mdr_op_at(i)->def;
        Node n = {.op = d};
        if (!rows) {
            mdr_text_printf(t, "%-20s %-5s %-8s ", d->name, mdr_op_fast(&n) ? "avx2" : "", d->match ? "fused" : d->compose ? "composed" : "");
            wrapped(t, d->equation, 36);
        } else row(t, rows, d->name, d->equation, NULL);
    }
}
static void model(Text *t, json_t *rows) { row(t, rows, "model", "keys of --set and of model in a protocol's file", mdr_model_params); }
static void training(Text *t, json_t *rows) { row(t, rows, "training", "keys of --set and of train in a protocol's file", mdr_train_params); }
static void protocols(Text *t, json_t *rows)
{
    for (int i = 0; mdr_study_protocol_at(i); i++) {
        SettleSpec s = {.protocol = mdr_study_protocol_at(i)->name};
        Protocol *p = NULL;
        Err *e = mdr_study_settle(&s, &p);
        char help[400];
        if (e) snprintf(help, sizeof help, "%s", mdr_err_text(e));
        else snprintf(help, sizeof help, "%s (%d settings, %d trials an architecture)", p->help, p->n_setting,
                      p->n_setting * p->n_lr * p->n_decay * p->n_seed);
        row(t, rows, mdr_study_protocol_at(i)->name, help, NULL);
        mdr_err_free(e);
        mdr_study_protocol_free(p);
    }
}

static Err *show_protocol(const char *name, Text *out)
{
    const char *names[64];
    int n = 0;
    for (; mdr_study_protocol_at(n) && n < 63; n++) {
        names[n] = mdr_study_protocol_at(n)->name;
        if (strcmp(names[n], name) == 0) { mdr_text_printf(out, "%s", mdr_study_protocol_at(n)->text); return NULL; }
    }
    names[n] = NULL;
    return MDR_ERR_UNKNOWN("there is no shipped protocol", name, names, NULL);
}

static const struct { const char *name; void (*list)(Text *, json_t *); } kinds[] = {
    {"primitives", primitives}, {"layers", primitives}, {"tasks", tasks}, {"model", model}, {"training", training},
    {"protocols", protocols}, {"ops", ops}, {"devices", mdr_cli_list_devices}};
static const char kind_names[] = "primitives, tasks, model, training, protocols, ops, devices";

static Err *unknown(const char *name)
{
    const char *names[MDR_COUNT(kinds) + 1] = {NULL};
    for (int k = 0; k < MDR_COUNT(kinds); k++) names[k] = kinds[k].name;
    return MDR_ERR_UNKNOWN("cannot list", name, names, NULL);
}

static Err *run(const Args *a)
{
    const OptionValue *show = mdr_cli_option(a, "show");
    bool json = mdr_cli_option(a, "json")->given, measured = mdr_cli_option(a, "measure")->given;
    int k = 0;
    if (a->n_word != 1) return MDR_ERR_USER("list wants one of %s", kind_names);
    while (k < MDR_COUNT(kinds) && strcmp(kinds[k].name, a->word[0]) != 0) k++;
    if (k == MDR_COUNT(kinds)) return unknown(a->word[0]);
    if (show->given && kinds[k].list != protocols) return MDR_ERR_USER("--show goes with list protocols");
    if (measured && kinds[k].list != ops) return MDR_ERR_USER("--measure goes with list ops");
    if (mdr_cli_option(a, "threads")->given && !measured) return MDR_ERR_USER("--threads goes with --measure");
    if (json && show->given) return MDR_ERR_USER("--json does not go with --show");
    Text t = {0};
    Err *e = NULL;
    if (show->given) e = show_protocol(show->text, &t);
    else if (measured) e = mdr_cli_measure(a, json, &t);
    else if (json) {
        json_t *o = mdr_report_json_head("madras.list/1", NULL), *rows = json_array();
        kinds[k].list(NULL, rows);
        json_object_set_new(o, "rows", rows);
        mdr_text_free(&t);
        return mdr_cli_print_json(o, JSON_INDENT(1));
    } else kinds[k].list(&t, NULL);
    if (!e) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}

const CommandDef mdr_commands_list[] = {
    {"list", "primitives|tasks|model|training|protocols|ops|devices", "what there is: parameters, defaults, bounds",
     "layers is another word for primitives. A primitive's parameters go into the\n"
     "architecture, as mh-attention(n_heads=8); those of a task, of the model and of\n"
     "training after --set. Of an op: avx2 where it has a kernel of its own for AVX2,\n"
     "composed where others can do it; fused where it stands for a pattern of\n"
     "others, on a GPU in bf16; its equation.\n", options, run},
    {0}};
