/* madras bench: architectures on a protocol's tasks. Trials found in the store are not run again; every trial is stored as it
 * ends; Ctrl-C loses at most the trials under way. */
#include "cli/internal.h"
#include <string.h>

static const OptionDef options[] = {
    {"protocol", OPT_TEXT, "NAME|FILE", "settings, budget, grid (default: taste)", 0, 0, false},
    {"config", OPT_TEXT, "FILE", "YAML read after the protocol", 0, 0, false},
    {"tasks", OPT_TEXT, "LIST", "only these tasks, commas between", 0, 0, false},
    {"seeds", OPT_INT, "N", "replicates; from 3 on with intervals", 1, 64, false},
    {"set", OPT_LIST, "KEY=VALUE", "one value, over protocol and config", 0, 0, false},
    {"layers", OPT_LIST, "LAYER", "mad-lab's spelling: --layers a b c d", 0, 0, true},
    {"store", OPT_TEXT, "FILE", "where trials are kept", 0, 0, false},
    {"dry-run", OPT_FLAG, NULL, "say what would run and cost, run nothing", 0, 0, false},
    {0}};

typedef struct Job {                              /* everything of one architecture                                        */
    const Arch *arch;
    TrialSpec *spec;
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
    int32_t left;
} Bench;

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
        const TrialSpec *last = NULL;
        for (int32_t k = 0; k < j->n; k++) {      /* grid points and seeds of a setting build the same graph                */
            if (last && last->task == j->spec[k].task && memcmp(&last->setting, &j->spec[k].setting, sizeof last->setting) == 0) continue;
            MDR_TRY(mdr_train_check(&j->spec[k]));
            last = &j->spec[k];
        }
    }
    return NULL;
}

static Err *look_up(Bench *b)
{
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++) {
            Job *j = &b->job[i];
            char key[65];
            StoreTrial *t = NULL;
            mdr_train_key(&j->spec[k], key);
            if (b->store) MDR_TRY(mdr_store_get(b->store, b->arena, key, &t));
            if (t) { j->done[k] = &t->result; continue; }
            TrialCost c;
            MDR_TRY(mdr_train_cost(&j->spec[k], &c));
            b->total += c.flops;
            b->left++;
        }
    return NULL;
}

static bool on_step(void *ctx, const Trainer *t)
{
    Bench *b = ctx;
    int64_t total = mdr_train_total_steps(b->now), step = mdr_train_steps_done(t);
    TrialCost c = {0};
    Err *e = mdr_train_cost(b->now, &c);
    mdr_err_free(e);
    mdr_cli_progress(b->finished + c.flops * (double)step / (double)total, b->total, mdr_clock() - b->begin, "%s, %s, loss %.3f",
                     b->now->task->name, b->now->arch->label && b->now->arch->label[0] ? b->now->arch->label : b->now->arch->text, mdr_train_loss(t, 0));
    return !mdr_cli_stop_asked();
}

static Err *keep(Bench *b, const TrialSpec *s, const TrialResult *r, const TrialCost *c)
{
    Text spec = {0}, arch = {0};
    char key[65];
    mdr_train_key(s, key);
    mdr_train_spec_text(s, &spec);
    mdr_model_print(s->arch, &arch);
    StoreTrial t = {.key = key, .spec = mdr_text_str(&spec), .architecture = mdr_text_str(&arch), .label = s->arch->label ? s->arch->label : "",
                    .task = s->task->name, .class_name = mdr_cpu_class(), .numerics = MDR_NUMERICS, .seed = (int64_t)s->seed,
                    .params = c->params, .state = c->state, .flops = c->flops, .result = *r};
    Err *e = mdr_store_put(b->store, &t);
    mdr_text_free(&spec);
    mdr_text_free(&arch);
    return e;
}

static Err *run_one(Bench *b, Job *j, int32_t k)
{
    const TrialSpec *s = &j->spec[k];
    Trainer *t = NULL;
    TrialCost c;
    TrainWatch watch = {.ctx = b, .step = on_step};
    b->now = s;
    MDR_TRY(mdr_train_cost(s, &c));
    Err *e = mdr_train_open(&s, 1, b->pool, &t);
    if (!e) e = mdr_train_run(t, &watch);
    if (!e) {
        const TrialResult *r = mdr_train_result(t, 0);
        j->result[k] = *r;
        j->result[k].epoch = mdr_alloc((size_t)r->n_epoch * sizeof *r->epoch + 1);
        if (r->n_epoch) memcpy(j->result[k].epoch, r->epoch, (size_t)r->n_epoch * sizeof *r->epoch);
        j->done[k] = &j->result[k];
        e = keep(b, s, r, &c);
        b->finished += c.flops;
    }
    mdr_train_close(t);
    return e;
}

static Err *run_all(Bench *b)
{
    b->begin = mdr_clock();
    for (int32_t i = 0; i < b->n_job; i++)
        for (int32_t k = 0; k < b->job[i].n; k++)
            if (!b->job[i].done[k]) MDR_TRY(run_one(b, &b->job[i], k));
    mdr_cli_progress_end();
    return NULL;
}

/* FLOP/s this machine reaches on these models: a short real training step of the first trial. */
static Err *measured_rate(Bench *b, double *rate)
{
    const TrialSpec *s = &b->job[0].spec[0];
    Trainer *t = NULL;
    TrialCost c;
    MDR_TRY(mdr_train_cost(s, &c));
    Err *e = mdr_train_open(&s, 1, b->pool, &t);
    double begin = 0;
    int steps = 0;
    if (!e) e = mdr_train_step(t);
    for (begin = mdr_clock(); !e && !mdr_train_finished(t) && (steps < 2 || mdr_clock() - begin < 0.5); steps++) e = mdr_train_step(t);
    if (!e) *rate = c.flops / (double)c.steps * steps / (mdr_clock() - begin);
    mdr_train_close(t);
    return e;
}

static Err *dry_run(Bench *b)
{
    Text t = {0};
    double rate = 0, all = 0;
    int32_t trials = 0;
    MDR_TRY(measured_rate(b, &rate));
    mdr_text_printf(&t, "protocol %s, %s float32\n\n", b->p->name, mdr_cpu_class());
    for (int32_t i = 0; i < b->n_job; i++) {
        Text arch = {0};
        double flops = 0;
        int64_t steps = 0;
        int32_t stored = 0;
        for (int32_t k = 0; k < b->job[i].n; k++) {
            TrialCost c;
            MDR_TRY(mdr_train_cost(&b->job[i].spec[k], &c));
            if (b->job[i].done[k]) stored++;
            else flops += c.flops;
            steps += c.steps;
        }
        mdr_model_print(b->job[i].arch, &arch);
        mdr_text_printf(&t, "%s\n  %d trials, %d in the store, %lld steps at most; to run: %.3g FLOPs, %.1f hours here\n", mdr_text_str(&arch), b->job[i].n,
                        stored, (long long)steps, flops, flops / rate / 3600);
        mdr_text_free(&arch);
        all += flops;
        trials += b->job[i].n - stored;
    }
    mdr_text_printf(&t, "\ntogether %d trials to run, %.3g FLOPs, %.1f hours at the %.1f GFLOP/s measured on the first of them\n"
                        "(upper bounds: trials that reach the stop accuracy end sooner)\n", trials, all, all / rate / 3600, rate / 1e9);
    Err *e = mdr_cli_print(mdr_text_str(&t));
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
    if (json) mdr_report_bench_json(b->p, score, b->n_job, &t);
    else mdr_report_bench(b->p, score, b->n_job, &style, &t);
    Err *e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    mdr_free(score);
    return e;
}

static Err *bench(const Args *a, Bench *b, const ArchList *archs)
{
    bool dry = mdr_cli_option(a, "dry-run")->given;
    MDR_TRY(make_jobs(b, archs));
    MDR_TRY(mdr_store_open(mdr_cli_option(a, "store")->text, true, &b->store));
    MDR_TRY(look_up(b));
    MDR_TRY(mdr_cli_pool(a, &b->pool));
    if (dry) return dry_run(b);
    Err *e = run_all(b);
    if (e && mdr_err_code(e) == MDR_STOPPED)
        return mdr_err_wrap(e, "every finished trial is in %s; the same command goes on from there", mdr_store_path(b->store));
    return e ? e : print_scores(b, mdr_cli_option(a, "json")->given);
}

static Err *run(const Args *a)
{
    const OptionValue *layers = mdr_cli_option(a, "layers"), *tasks = mdr_cli_option(a, "tasks");
    Bench b = {.arena = mdr_arena_new()};
    Protocol *p = NULL;
    ArchList archs = {0};
    Err *e = a->n_word || layers->given ? NULL : MDR_ERR_USER("bench wants an architecture, as madras bench '(mh-attention swiglu)*2'");
    if (!e && mdr_cli_option(a, "dry-run")->given && mdr_cli_option(a, "json")->given) e = MDR_ERR_USER("--dry-run has no JSON form");
    if (!e) e = mdr_cli_settle(a, false, tasks->text, "taste", &p);
    if (!e) e = mdr_cli_archs(p, a->word, a->n_word, layers, &archs);
    b.p = p;
    if (!e) e = bench(a, &b, &archs);
    for (int32_t i = 0; i < b.n_job; i++) {
        for (int32_t k = 0; k < b.job[i].n; k++) mdr_train_result_free(&b.job[i].result[k]);
        mdr_free(b.job[i].spec);
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
     "An architecture is one word: '(mh-attention swiglu)*2'; 'mamba(d_state=2|4|8)*4' is\n"
     "three of them; NAME='...' labels it. Trials already in the store are not run again.\n"
     "Protocols: madras list protocols. taste is a first impression: one setting a task,\n"
     "one seed, no mean and no rank.\n",
     options, run},
    {0}};
