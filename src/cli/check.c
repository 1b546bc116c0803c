/* madras check: does a GPU here compute what the double reference computes? Every op's cases, every primitive, both backbones, value
 * and gradient, in both precisions. */
#include "cli/internal.h"
#include "model/agree.h"
#include <string.h>

static const OptionDef options[] = {
    {"device", OPT_TEXT, "DEVICE", "cuda or cuda:N (default: cuda)", 0, 0, false},
    {"precision", OPT_TEXT, "P", "only float32 or only bf16 (default: both)", 0, 0, false},
    MDR_CLI_JSON,
    {0}};

typedef struct Check { json_t *rows; const char *precision; int32_t passed, failed; Err *err; } Check;

static void each(void *ctx, const Agreement *a)
{
    Check *c = ctx;
    bool ok = !a->why[0];
    c->passed += ok;
    c->failed += !ok;
    if (c->rows) {
        json_t *o = json_object();
        json_object_set_new(o, "precision", json_string(c->precision));
        json_object_set_new(o, "kind", json_string(a->kind));
        json_object_set_new(o, "name", json_string(a->name));
        json_object_set_new(o, "cases", json_integer(a->cases));
        json_object_set_new(o, "worst", mdr_report_real(a->worst));
        json_object_set_new(o, "ok", json_boolean(ok));
        json_object_set_new(o, "why", ok ? json_null() : json_string(a->why));
        json_array_append_new(c->rows, o);
        return;
    }
    Text t = {0};
    mdr_text_printf(&t, "%-7s  %-9s %-22s %3d cases  %5.2f of the allowed error%s%s\n", c->precision, a->kind, a->name, a->cases, a->worst,
                    ok ? "" : "\n         FAILED ", a->why);
    if (!c->err) c->err = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
}

static Err *check(Check *c, Accel *accel, const char *only)
{
    static const struct { const char *name; const DeviceDef *device; } precision[] = {{"float32", &mdr_exec_cuda}, {"bf16", &mdr_exec_cuda_bf16}};
    for (int i = 0; i < MDR_COUNT(precision); i++) {
        if (only && strcmp(only, precision[i].name) != 0) continue;
        c->precision = precision[i].name;
        MDR_TRY(mdr_model_agree(precision[i].device, accel, each, c));
        if (c->err) return c->err;
    }
    return NULL;
}

static Err *print_end(Check *c, const AccelInfo *g)
{
    if (c->rows) {
        json_t *o = mdr_report_json_head("madras.check/1", NULL);
        json_object_set_new(o, "device", json_string(g->name));
        json_object_set_new(o, "class", json_string(g->class_name));
        json_object_set_new(o, "passed", json_integer(c->passed));
        json_object_set_new(o, "failed", json_integer(c->failed));
        json_object_set_new(o, "rows", c->rows);
        return mdr_cli_print_json(o, JSON_INDENT(1));
    }
    Text t = {0};
    mdr_text_printf(&t, "%s (%s) beside the double reference: %d passed, %d failed\n", g->name, g->class_name, c->passed, c->failed);
    Err *e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}

static Err *run(const Args *a)
{
    const OptionValue *device = mdr_cli_option(a, "device"), *precision = mdr_cli_option(a, "precision");
    StudyDevice kind = DEVICE_CUDA;
    int32_t gpu = 0;
    Accel *accel = NULL;
    if (a->n_word) return MDR_ERR_USER("check takes no operand, got \"%s\"", a->word[0]);
    if (device->given) MDR_TRY(mdr_err_wrap(mdr_study_device(device->text, &kind, &gpu), "--device"));
    if (kind != DEVICE_CUDA) return MDR_ERR_USER("check compares a GPU with the reference: --device cuda or cuda:N, got \"%s\"", device->text);
    if (precision->given && strcmp(precision->text, "float32") != 0 && strcmp(precision->text, "bf16") != 0)
        return MDR_ERR_USER("--precision must be float32 or bf16, got \"%s\"", precision->text);
    MDR_TRY(mdr_accel_open(gpu, &accel));
    Check c = {.rows = mdr_cli_option(a, "json")->given ? json_array() : NULL};
    Err *e = check(&c, accel, precision->given ? precision->text : NULL);
    if (!e) e = print_end(&c, mdr_accel_about(accel));
    else json_decref(c.rows);
    mdr_accel_close(accel);
    if (!e && c.failed) e = MDR_ERR_MACHINE("the GPU differs from the reference in %d of %d", c.failed, c.failed + c.passed);
    return e;
}

const CommandDef mdr_commands_check[] = {
    {"check", "[--device cuda[:N]]", "compare a GPU's results with the reference",
     "Every op's cases, every primitive and both backbones, value and gradient, two\n"
     "members at once and one alone, in float32 and bf16, beside the reference in\n"
     "double. Exit code 1 where something differs by more than its type and the\n"
     "length of its sums allow.\n", options, run},
    {0}};
