/* madras list ops --measure: every op where it works, in training steps of small models that between them use all of them, each
 * beside what this machine allows. */
#include "cli/internal.h"
#include <jansson.h>
#include <string.h>

enum { STEPS = 3 };
/* L 128 with the fast paths of each primitive, 512 for the FFT, the loop over time by itself, the other norm and backbone. */
static const struct Case { const char *arch; int32_t length; bool composed, layernorm, autoencoder; } cases[] = {
    {"(mh-attention swiglu)*2", 128, false, false, false},
    {"(hyena swiglu)*2", 128, false, false, false},
    {"(mamba swiglu)*2", 128, false, false, false},
    {"(hyena mlp)*2", 512, false, false, false},
    {"(mh-sliding-attention mlp)*2", 512, false, true, false},
    {"mamba*2", 32, true, false, false},
    {"(hyena swiglu)*2", 32, false, false, true}};

static Err *profile(const struct Case *c, Pool *pool, const Limits *l, double *seconds, int32_t *n, OpTime **row)
{
    ArchList archs = {0};
    TrialSpec s = {.task = mdr_task_find(c->autoencoder ? "compression" : "in-context-recall"), .seed = 1, .composed = c->composed};
    const TrialSpec *spec = &s;
    Trainer *t = NULL;
    Err *e = mdr_model_parse(c->arch, 0, NULL, &archs);
    if (e) return e;
    s.arch = archs.arch[0];
    mdr_task_defaults(s.task, &s.setting);
    mdr_params_default(mdr_model_params, &s.model);
    mdr_params_default(mdr_train_params, &s.train);
    s.model.backbone = c->autoencoder ? BACKBONE_AUTOENCODER : BACKBONE_LM;
    s.model.norm = c->layernorm ? NORM_LAYER : NORM_RMS;
    s.setting.seq_len = c->length;
    e = mdr_train_open(&spec, 1, pool, &t);
    if (!e) e = mdr_train_step(t);
    double begin = mdr_clock();
    if (!e) mdr_exec_profile(mdr_train_exec(t), true);
    for (int i = 0; !e && i < STEPS; i++) e = mdr_train_step(t);
    if (!e) {
        *seconds = mdr_clock() - begin;
        int32_t n_instr = mdr_exec_info(mdr_train_plan(t)).n_instr;
        OpProfile *p = mdr_alloc((size_t)n_instr * sizeof *p);
        *row = mdr_alloc((size_t)n_instr * sizeof **row);
        mdr_exec_profile_read(mdr_train_exec(t), p, n_instr);
        *n = mdr_report_op_times(p, n_instr, *seconds, mdr_pool_size(pool), l, *row);
        mdr_free(p);
    }
    mdr_train_close(t);
    mdr_model_archs_free(&archs);
    return e;
}

static void add_json(json_t *rows, const struct Case *c, const OpTime *row, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "architecture", json_string(c->arch));
        json_object_set_new(o, "seq_len", json_integer(c->length));
        json_object_set_new(o, "op", json_string(row[i].op));
        json_object_set_new(o, "phase", json_string(row[i].phase));
        json_object_set_new(o, "seconds_per_step", mdr_report_real(row[i].seconds / STEPS));
        json_object_set_new(o, "share", mdr_report_real(row[i].share));
        json_object_set_new(o, "flops_per_second", mdr_report_real(row[i].flops));
        json_object_set_new(o, "bytes_per_second", mdr_report_real(row[i].bytes));
        json_object_set_new(o, "share_of_bound", mdr_report_real(row[i].bound));
        json_array_append_new(rows, o);
    }
}

Err *mdr_cli_measure(const Args *a, bool json, Text *out)
{
    Pool *pool = NULL;
    Limits l;
    json_t *rows = json_array();
    Err *e = mdr_report_limits(&l);
    if (!e) e = mdr_cli_pool(a, &pool);
    if (!e && !json) mdr_text_printf(out, "one worker (%s): products %.1f GFLOP/s, copies in L2 %.1f GB/s, exponentials %.2f G/s\n",
                                     mdr_cpu_class(), l.flops / 1e9, l.bytes / 1e9, l.exps / 1e9);
    for (int i = 0; !e && i < MDR_COUNT(cases); i++) {
        const struct Case *c = &cases[i];
        OpTime *row = NULL;
        int32_t n = 0;
        double seconds = 0;
        mdr_cli_progress(i, MDR_COUNT(cases), 0, "%s, L %d", c->arch, c->length);
        e = profile(c, pool, &l, &seconds, &n, &row);
        if (!e && json) add_json(rows, c, row, n);
        else if (!e) {
            mdr_text_printf(out, "\n%s, L %d%s%s%s: %.1f ms a step\n", c->arch, c->length, c->composed ? ", composed" : "", c->layernorm ? ", layernorm" : "",
                            c->autoencoder ? ", autoencoder" : "", seconds / STEPS * 1e3);
            mdr_report_ops(row, n, STEPS, out);
        }
        mdr_free(row);
    }
    mdr_cli_progress_end();
    mdr_pool_close(pool);
    if (!e && json) {
        json_t *o = mdr_report_json_head("madras.ops/1", NULL);
        json_object_set(o, "rows", rows);
        e = mdr_report_json(o, JSON_INDENT(1), out);
    }
    json_decref(rows);
    return e;
}
