/* madras bench: architectures on a protocol's tasks. Trials found in the store are not run again; every trial is stored as it
 * ends; Ctrl-C loses at most the trials under way. */
#include "cli/internal.h"
#include <string.h>

static const OptionDef options[] = {
    {"protocol", OPT_TEXT, "NAME|FILE", "settings, budget, grid (default: taste)", 0, 0, false},
    MDR_CLI_CONFIG,
    {"tasks", OPT_TEXT, "LIST", "only these tasks, commas between", 0, 0, false},
    {"seeds", OPT_INT, "N", "replicates; intervals from 3 on (default: protocol's)", 1, 64, false},
    MDR_CLI_SET,
    MDR_CLI_LAYERS,
    MDR_CLI_STORE,
    {"dry-run", OPT_FLAG, NULL, "say what would run and how long; run no trial", 0, 0, false},
    MDR_CLI_THREADS,
    MDR_CLI_JSON,
    {0}};

typedef struct Job {                              /* everything of one architecture                                        */
    const Arch *arch;
    TrialSpec *spec;
    TrialCost *cost;                              /* [n]                                                                   */
    TrialResult *result;
    const TrialResult **done;                     /* [n]: NULL until its result is known                                   */
    int32_t n;
} Job;
typedef struct Bench {
    const Protocol *p;
    Job *job;
    int32_t n_job;
    Store *store;
    Pool *pool;
    Arena *arena;
    double total, finished, begin;                /* FLOPs to run now, done so far                                         */
    const TrialSpec *now;
    TrialCost now_cost;
    int32_t left, stored;
} Bench;

static const char *short_name(const Arch *a) { return a->label && a->label[0] ? a->label : a->text; }

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
            if (e) return mdr_err_wrap(e, "%s on %s", short_name(j->arch), s->task->name);
        }
    }
    return NULL;
}

/* What the store knows of a trial. Asked again before it runs: the same architecture may stand twice, another process may share the store. */
static Err *look_up(Bench *b, Job *j, int32_t k)
{
    char key[65];
    StoreTrial *t = NULL;
    if (!b->store) return NULL;
    mdr_train_key(&j->spec[k], key);
    MDR_TRY(mdr_store_get(b->store, b->arena, key, &t));
    if (t) j->done[k] = &t->result;
    return NULL;
}

static Err *look_up_all(Bench *b)
{
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            MDR_TRY(look_up(b, &b->job[i], k));
            if (b->job[i].done[k]) { b->stored++; continue; }
            b->total += b->job[i].cost[k].flops;
            b->left++;
        }
    return NULL;
}

static bool on_step(void *ctx, const Trainer *t)
{
    Bench *b = ctx;
    double share = (double)mdr_train_steps_done(t) / (double)b->now_cost.steps;
    mdr_cli_progress(b->finished + b->now_cost.flops * share, b->total, mdr_clock() - b->begin, "%s, %s, loss %.3f", b->now->task->name,
                     short_name(b->now->arch), mdr_train_loss(t, 0));
    return !mdr_cli_stop_asked();
}

static Err *keep(Bench *b, const TrialSpec *s, const TrialResult *r)
{
    Text spec = {0}, arch = {0};
    char key[65];
    mdr_train_key(s, key);
    mdr_train_spec_text(s, &spec);
    mdr_model_print(s->arch, &arch);
    StoreTrial t = {.key = key, .spec = mdr_text_str(&spec), .architecture = mdr_text_str(&arch), .label = s->arch->label ? s->arch->label : "",
                    .task = s->task->name, .class_name = mdr_cpu_class(), .numerics = MDR_NUMERICS, .seed = (int64_t)s->seed,
                    .params = b->now_cost.params, .state = b->now_cost.state, .flops = b->now_cost.flops, .result = *r};
    Err *e = mdr_store_put(b->store, &t);
    mdr_text_free(&spec);
    mdr_text_free(&arch);
    return e;
}

static Err *run_one(Bench *b, Job *j, int32_t k)
{
    const TrialSpec *s = &j->spec[k];
    Trainer *t = NULL;
    TrainWatch watch = {.ctx = b, .step = on_step};
    b->now = s;
    b->now_cost = j->cost[k];
    Err *e = mdr_train_open(&s, 1, b->pool, &t);
    if (!e) e = mdr_train_run(t, &watch);
    if (!e) {
        const TrialResult *r = mdr_train_result(t, 0);
        j->result[k] = *r;
        j->result[k].epoch = mdr_alloc((size_t)r->n_epoch * sizeof *r->epoch + 1);
        if (r->n_epoch) memcpy(j->result[k].epoch, r->epoch, (size_t)r->n_epoch * sizeof *r->epoch);
        j->done[k] = &j->result[k];
        e = keep(b, s, r);
    }
    mdr_train_close(t);
    return e;
}

static Err *run_all(Bench *b)
{
    b->begin = mdr_clock();
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            Job *j = &b->job[i];
            if (j->done[k]) continue;
            if (mdr_cli_stop_asked()) return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped");
            MDR_TRY(look_up(b, j, k));
            if (!j->done[k]) MDR_TRY(run_one(b, j, k));
            b->finished += j->cost[k].flops;
        }
    mdr_cli_progress_end();
    return NULL;
}

/* FLOP/s this machine reaches on these models: real training steps of the first trial that would run. */
static Err *measured_rate(Bench *b, double *rate)
{
    int32_t i = 0, k = 0;
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
    mdr_text_printf(t, "protocol %s, float32 on %s\n\n", b->p->name, mdr_cpu_class());
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
    json_object_set_new(o, "class", json_string(mdr_cpu_class()));
    json_object_set_new(o, "rows", rows);
    Err *e = print_dry(b, rows, &t);
    if (!e && json) e = mdr_cli_print_json(o, JSON_INDENT(1));
    else json_decref(o);
    if (!e && !json) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}

static Err *print_scores(Bench *b, bool json)
{
    ArchScore *score = mdr_alloc((size_t)b->n_job * sizeof *score);
    for (int32_t i = 0; i < b->n_job; i++)
        mdr_study_score(b->p, b->job[i].arch, b->job[i].spec, b->job[i].done, b->job[i].n, b->arena, &score[i]);
    Text t = {0};
    ReportStyle style = mdr_cli_style();
    Err *e = NULL;
    if (json) e = mdr_report_bench_json(b->p, score, b->n_job, &t);
    else mdr_report_bench(b->p, score, b->n_job, &style, &t);
    if (!e) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    mdr_free(score);
    return e;
}

static Err *run_and_score(const Args *a, Bench *b)
{
    const char *store = mdr_store_path(b->store);
    if (b->stored) mdr_cli_note("madras: %d of %d trials are in %s", b->stored, b->stored + b->left, store);
    mdr_cli_catch_stop();
    Err *e = run_all(b);
    if (e && mdr_err_code(e) == MDR_STOPPED) {
        mdr_err_free(e);
        return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped; every finished trial is in %s and the same command goes on from there", store);
    }
    return e ? e : print_scores(b, mdr_cli_option(a, "json")->given);
}

static Err *bench(const Args *a, Bench *b, const ArchList *archs)
{
    bool dry = mdr_cli_option(a, "dry-run")->given;
    const char *store = mdr_cli_option(a, "store")->text;
    MDR_TRY(make_jobs(b, archs));
    if (!dry || mdr_store_exists(store)) MDR_TRY(mdr_store_open(store, !dry, &b->store));
    MDR_TRY(look_up_all(b));
    MDR_TRY(mdr_cli_pool(a, &b->pool));
    return dry ? dry_run(b, mdr_cli_option(a, "json")->given) : run_and_score(a, b);
}

static Err *run(const Args *a)
{
    const OptionValue *layers = mdr_cli_option(a, "layers"), *tasks = mdr_cli_option(a, "tasks");
    Bench b = {.arena = mdr_arena_new()};
    Protocol *p = NULL;
    ArchList archs = {0};
    Err *e = a->n_word || layers->given ? NULL : MDR_ERR_USER("bench wants an architecture, as madras bench '(mh-attention swiglu)*2'");
    if (!e) e = mdr_cli_settle(a, false, tasks->text, "taste", &p);
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
     "again; after Ctrl-C the same command goes on. Protocols: madras list protocols;\n"
     "taste is a first impression: one setting a task, one seed, no mean and no rank.\n"
     "Keys of --set: madras list tasks, list model and list training.\n"
     "Example: madras bench --tasks compression '(mh-attention swiglu)*2' 'mamba*4'\n",
     options, run},
    {0}};
