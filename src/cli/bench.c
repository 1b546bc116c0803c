/* madras bench: architectures on a protocol's tasks. Trials found in the store are not run again; every trial is stored as it
 * ends; Ctrl-C loses at most the trials under way. */
#include "cli/bench.h"
#include <string.h>

static const OptionDef options[] = {
    {"protocol", OPT_TEXT, "NAME|FILE", "settings, budget, grid (default: taste)", 0, 0, false},
    MDR_CLI_CONFIG,
    {"tasks", OPT_TEXT, "LIST", "only these tasks, commas between", 0, 0, false},
    {"seeds", OPT_INT, "N", "replicates; intervals from 3 on (default: protocol's)", 1, 64, false},
    MDR_CLI_SET,
    MDR_CLI_LAYERS,
    MDR_CLI_STORE,
    MDR_CLI_DEVICE,
    {"settings", OPT_FLAG, NULL, "each task's settings one by one, too (always in --json)", 0, 0, false},
    {"stored", OPT_FLAG, NULL, "run nothing: the table of what the store has", 0, 0, false},
    {"dry-run", OPT_FLAG, NULL, "say what would run and how long; run no trial", 0, 0, false},
    MDR_CLI_THREADS,
    MDR_CLI_JSON,
    {0}};

static Err *make_jobs(Bench *b, const ArchList *archs)
{
    b->n_job = archs->n;
    b->job = mdr_alloc((size_t)archs->n * sizeof *b->job);
    for (int32_t i = 0; i < archs->n; i++) {
        Job *j = &b->job[i];
        j->arch = archs->arch[i];
        mdr_study_trials(b->p, j->arch, &j->n, &j->spec);
        j->result = mdr_alloc((size_t)(j->n + 1) * sizeof *j->result);
        j->done = mdr_alloc((size_t)(j->n + 1) * sizeof *j->done);
        j->cost = mdr_alloc((size_t)(j->n + 1) * sizeof *j->cost);
        for (int32_t k = 0; k < j->n; k++) {      /* grid points and seeds of a setting build the same graph                */
            const TrialSpec *s = &j->spec[k], *last = k ? s - 1 : NULL;
            if (last && last->task == s->task && memcmp(&last->setting, &s->setting, sizeof s->setting) == 0) {
                j->cost[k] = j->cost[k - 1];
                continue;
            }
            Err *e = mdr_train_check(s);
            if (!e) e = mdr_train_cost(s, &j->cost[k]);
            if (e) return mdr_err_wrap(e, "%s on %s", mdr_cli_bench_name(j->arch), s->task->name);
        }
    }
    return NULL;
}

static Err *look_up_all(Bench *b)
{
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            MDR_TRY(mdr_cli_bench_look_up(b, &b->job[i], k));
            if (b->job[i].done[k]) { b->stored++; continue; }
            b->total += b->job[i].cost[k].flops;
            b->left++;
        }
    return NULL;
}

/* A newer program makes other bits, so it finds nothing in a store that its user knows to be full: that wants a word. */
static Err *say_outdated(const Bench *b)
{
    int32_t all = 0;
    int64_t latest = 0;
    for (int32_t i = 0; b->store && b->left && i < b->n_job; i++) {
        Text arch = {0};
        int32_t n;
        int64_t version;
        mdr_model_print(b->job[i].arch, &arch);
        Err *e = mdr_store_outdated(b->store, mdr_text_str(&arch), mdr_study_class(b->p), &n, &version);
        mdr_text_free(&arch);
        MDR_TRY(e);
        all += n;
        if (version > latest) latest = version;
    }
    if (all) mdr_cli_note("madras: %s has %d %s of numerics version %lld; this program's is %d, and they do not count here", mdr_store_path(b->store), all,
                          all == 1 ? "trial" : "trials", (long long)latest, MDR_NUMERICS);
    return NULL;
}

/* FLOP/s this machine reaches on these models: real training steps of the first trial that would run. */
static Err *measured_rate(Bench *b, double *rate)
{
    int32_t i = 0, k = 0;
    if (b->accel) return mdr_cli_bench_gpu_rate(b, rate);
    while (b->left && b->job[i].done[k])
        if (++k == b->job[i].n) i++, k = 0;
    const TrialSpec *s = &b->job[i].spec[k];
    const TrialCost *c = &b->job[i].cost[k];
    Trainer *t = NULL;
    double begin = 0;
    int steps = 0;
    Err *e = mdr_train_open(&s, 1, b->pool, &t);
    if (!e) e = mdr_train_step(t);
    for (begin = mdr_clock(); !e && !mdr_train_finished(t) && (steps < 2 || mdr_clock() - begin < 0.5); steps++) e = mdr_train_step(t);
    if (!e) *rate = c->flops / (double)c->steps * steps / (mdr_clock() - begin);
    mdr_train_close(t);
    return e;
}

typedef struct Dry { double flops; int64_t steps; int32_t trials, stored; } Dry;
static Dry dry_sum(const Job *j)
{
    Dry d = {.trials = j->n};
    for (int32_t k = 0; k < j->n; k++) {
        if (j->done[k]) d.stored++;
        else d.flops += j->cost[k].flops, d.steps += j->cost[k].steps;
    }
    return d;
}

static json_t *dry_json(const char *arch, const Dry *d, double rate)
{
    json_t *o = json_object();
    json_object_set_new(o, "architecture", json_string(arch));
    json_object_set_new(o, "trials", json_integer(d->trials));
    json_object_set_new(o, "stored", json_integer(d->stored));
    json_object_set_new(o, "steps", json_integer(d->steps));
    json_object_set_new(o, "flops", mdr_report_real(d->flops));
    json_object_set_new(o, "seconds", mdr_report_real(d->flops / rate));
    return o;
}

static Err *print_dry(Bench *b, json_t *rows, Text *t)
{
    double rate = 1, all = 0;
    int32_t trials = 0;
    MDR_TRY(measured_rate(b, &rate));
    mdr_text_printf(t, "protocol %s, %s on %s\n\n", b->p->name, mdr_study_precision_name(b->p), mdr_study_class(b->p));
    for (int32_t i = 0; i < b->n_job; i++) {
        Text arch = {0};
        char time[32];
        Dry d = dry_sum(&b->job[i]);
        mdr_model_print(b->job[i].arch, &arch);
        mdr_cli_time_text(d.flops / rate, time);
        mdr_text_printf(t, "%s\n  %d trials, %d of them in the store; to run: %lld steps, %.3g FLOPs, %s\n", mdr_text_str(&arch), d.trials, d.stored,
                        (long long)d.steps, d.flops, time);
        json_array_append_new(rows, dry_json(mdr_text_str(&arch), &d, rate));
        mdr_text_free(&arch);
        all += d.flops;
        trials += d.trials - d.stored;
    }
    char time[32];
    mdr_cli_time_text(all / rate, time);
    mdr_text_printf(t, "\ntogether %d trials to run: %.3g FLOPs, %s at the %.1f GFLOP/s measured on the first\n"
                       "(upper bounds: a trial that reaches the stop accuracy ends sooner)\n", trials, all, time, rate / 1e9);
    return NULL;
}

static Err *dry_run(Bench *b, bool json)
{
    Text t = {0};
    json_t *o = mdr_report_json_head("madras.dry-run/1", b->p->name), *rows = json_array();
    json_object_set_new(o, "class", json_string(mdr_study_class(b->p)));
    json_object_set_new(o, "rows", rows);
    Err *e = print_dry(b, rows, &t);
    if (!e && json) e = mdr_cli_print_json(o, JSON_INDENT(1));
    else json_decref(o);
    if (!e && !json) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}

static Err *print_scores(Bench *b, bool json, bool settings)
{
    ArchScore *score = mdr_alloc((size_t)b->n_job * sizeof *score);
    for (int32_t i = 0; i < b->n_job; i++)
        mdr_study_score(b->p, b->job[i].arch, b->job[i].spec, b->job[i].done, b->job[i].n, b->arena, &score[i]);
    Text t = {0};
    ReportStyle style = mdr_cli_style();
    Err *e = NULL;
    if (json) e = mdr_report_bench_json(b->p, score, b->n_job, &t);
    else mdr_report_bench(b->p, score, b->n_job, &style, &t);
    if (!json && settings) mdr_report_settings(b->p, score, b->n_job, &style, &t);
    if (!e) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    mdr_free(score);
    return e;
}

static Err *print_stored(const Args *a, Bench *b)
{
    if (!b->stored) return MDR_ERR_USER("--stored: none of these %d trials is in %s", b->left, mdr_store_path(b->store));
    if (b->left) mdr_cli_note("madras: %d of %d trials are in %s", b->stored, b->stored + b->left, mdr_store_path(b->store));
    return print_scores(b, mdr_cli_option(a, "json")->given, mdr_cli_option(a, "settings")->given);
}

static Err *run_and_score(const Args *a, Bench *b)
{
    const char *store = mdr_store_path(b->store);
    if (b->stored) mdr_cli_note("madras: %d of %d trials are in %s", b->stored, b->stored + b->left, store);
    mdr_cli_catch_stop();
    Err *e = mdr_cli_bench_run(b);
    if (e && mdr_err_code(e) == MDR_STOPPED) {
        mdr_err_free(e);
        return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped; every finished trial is in %s and the same command goes on from there", store);
    }
    return e ? e : print_scores(b, mdr_cli_option(a, "json")->given, mdr_cli_option(a, "settings")->given);
}

static Err *bench(const Args *a, Bench *b, const ArchList *archs)
{
    bool dry = mdr_cli_option(a, "dry-run")->given, stored = mdr_cli_option(a, "stored")->given;
    const char *store = mdr_cli_option(a, "store")->text;
    MDR_TRY(make_jobs(b, archs));
    if (!b->store && (!dry || mdr_store_exists(store))) MDR_TRY(mdr_store_open(store, !dry, &b->store));
    MDR_TRY(look_up_all(b));
    MDR_TRY(say_outdated(b));
    if (stored) return print_stored(a, b);
    if (!b->accel) MDR_TRY(mdr_cli_pool(a, &b->pool));
    return dry ? dry_run(b, mdr_cli_option(a, "json")->given) : run_and_score(a, b);
}

static Err *device(const Args *a, Protocol *p, Bench *b)
{
    if (!mdr_cli_option(a, "stored")->given) return mdr_cli_device(a, p, &b->accel);
    if (mdr_cli_option(a, "dry-run")->given) return MDR_ERR_USER("--stored does not go with --dry-run, which says what is in the store, too");
    if (mdr_cli_option(a, "threads")->given) return MDR_ERR_USER("--threads does not go with --stored, which runs nothing");
    MDR_TRY(mdr_store_open(mdr_cli_option(a, "store")->text, false, &b->store));
    return mdr_cli_stored_device(a, p, b->store, b->arena);
}

static Err *run(const Args *a)
{
    const OptionValue *layers = mdr_cli_option(a, "layers"), *tasks = mdr_cli_option(a, "tasks");
    Bench b = {.arena = mdr_arena_new()};
    Protocol *p = NULL;
    ArchList archs = {0};
    Err *e = a->n_word || layers->given ? NULL : MDR_ERR_USER("bench wants an architecture, as madras bench '(mh-attention swiglu)*2'");
    if (!e) e = mdr_cli_settle(a, false, tasks->text, "taste", &p);
    if (!e) e = device(a, p, &b);
    if (!e && b.accel && mdr_cli_option(a, "threads")->given) e = MDR_ERR_USER("--threads does not go with a GPU: it wants --device cpu");
    if (!e) e = mdr_cli_archs(p, a->word, a->n_word, layers, &archs);
    b.p = p;
    if (!e) e = bench(a, &b, &archs);
    for (int32_t i = 0; i < b.n_job; i++) {
        for (int32_t k = 0; k < b.job[i].n; k++) mdr_train_result_free(&b.job[i].result[k]);
        mdr_free(b.job[i].spec);
        mdr_free(b.job[i].cost);
        mdr_free(b.job[i].result);
        mdr_free(b.job[i].done);
    }
    mdr_free(b.job);
    mdr_pool_close(b.pool);
    mdr_accel_close(b.accel);
    mdr_store_close(b.store);
    mdr_model_archs_free(&archs);
    mdr_study_protocol_free(p);
    mdr_arena_free(b.arena);
    return e;
}

const CommandDef mdr_commands_bench[] = {
    {"bench", "ARCH... [options]", "score architectures on a protocol's tasks",
     "An architecture is one word: '(mh-attention swiglu)*2'. 'mamba(d_state=2|4|8)*4'\n"
     "is three of them; 'NAME=mamba*4' has a label. Trials in the store are not run\n"
     "again; after Ctrl-C the same command goes on, --stored prints what there is so\n"
     "far (of a GPU's trials on any machine). Protocols: madras list protocols;\n"
     "taste is a first impression: one setting a task, one seed, no mean and no rank.\n"
     "Keys of --set: madras list tasks, list model and list training.\n"
     "Example: madras bench --tasks compression '(mh-attention swiglu)*2' 'mamba*4'\n",
     options, run},
    {0}};
