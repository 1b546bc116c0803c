/* madras train: one trial, loss and accuracy as it goes. */
#include "cli/internal.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

static const OptionDef options[] = {
    {"task", OPT_TEXT, "TASK", "task to train on (madras list tasks)", 0, 0, false},
    {"arch", OPT_TEXT, "ARCH", "architecture, as '(mh-attention swiglu)*2'", 0, 0, false},
    MDR_CLI_LAYERS,
    {"protocol", OPT_TEXT, "NAME|FILE", "where values start from (default: madras)", 0, 0, false},
    MDR_CLI_CONFIG,
    MDR_CLI_SET,
    {"seed", OPT_INT, "S", "seed of data, order, start (default: protocol's first)", 0, 9e15, false},
    {"composed", OPT_FLAG, NULL, "run fused ops by their compositions", 0, 0, false},
    {"checkpoint", OPT_TEXT, "FILE", "written as it goes; the same command continues", 0, 0, false},
    {"every", OPT_INT, "N", "steps between checkpoints (default: an epoch)", 1, 1e12, false},
    {"plan", OPT_FLAG, NULL, "print the lowered graph and its plan; train nothing", 0, 0, false},
    {"trace", OPT_TEXT, "FILE", "what each worker did, for a trace viewer", 0, 0, false},
    MDR_CLI_DEVICE,
    MDR_CLI_THREADS,
    MDR_CLI_JSON,
    {0}};

typedef struct Watch { const TrialSpec *spec; bool json; int64_t total; double begin; int64_t from; int32_t printed; Err *err; TaskLevels levels; } Watch;

static Err *print_start(const Watch *w)
{
    char key[65];
    mdr_train_key(w->spec, key);
    Text spec = {0}, arch = {0}, line = {0};
    mdr_train_spec_text(w->spec, &spec);
    mdr_model_print(w->spec->arch, &arch);
    TrialCost cost;
    Err *e = mdr_train_cost(w->spec, &cost);
    if (!e && w->json) {
        json_t *o = json_object();
        json_object_set_new(o, "event", json_string("start"));
        json_object_set_new(o, "schema", json_string("madras.train/1"));
        json_object_set_new(o, "madras", json_string(MDR_VERSION));
        json_object_set_new(o, "numerics", json_integer(MDR_NUMERICS));
        json_object_set_new(o, "class", json_string(mdr_train_class(w->spec)));
        json_object_set_new(o, "precision", json_string(mdr_train_precision_name(w->spec)));
        json_object_set_new(o, "key", json_string(key));
        json_object_set_new(o, "architecture", json_string(mdr_text_str(&arch)));
        json_object_set_new(o, "task", json_string(w->spec->task->name));
        json_object_set_new(o, "spec", json_string(mdr_text_str(&spec)));
        json_object_set_new(o, "params", json_integer(cost.params));
        json_object_set_new(o, "state", json_integer(cost.state));
        json_object_set_new(o, "steps", json_integer(cost.steps));
        json_object_set_new(o, "flops", mdr_report_real(cost.flops));
        e = mdr_cli_print_json(o, JSON_COMPACT);
    } else if (!e) {
        mdr_text_printf(&line, "%s\n%s, seed %llu: %lld parameters, %lld steps, %.3g FLOPs\n%s %s, trial %.16s\n"
                               "Accuracies are macro: the mean over the classes.\n\n", mdr_text_str(&arch), w->spec->task->name,
                        (unsigned long long)w->spec->seed, (long long)cost.params, (long long)cost.steps, cost.flops, mdr_train_class(w->spec),
                        mdr_train_precision_name(w->spec), key);
        mdr_text_printf(&line, "%6s %8s %10s %10s %9s %9s %9s\n", "epoch", "step", "train loss", "valid loss", "valid acc", "test acc", "seconds");
        e = mdr_cli_print(mdr_text_str(&line));
    }
    mdr_text_free(&spec);
    mdr_text_free(&arch);
    mdr_text_free(&line);
    return e;
}

static void print_epochs(Watch *w, const TrialResult *r)
{
    for (; w->printed < r->n_epoch && !w->err; w->printed++) {
        const EpochScore *e = &r->epoch[w->printed];
        if (w->json) {
            json_t *o = json_object();
            json_object_set_new(o, "event", json_string("epoch"));
            mdr_report_json_epoch(o, e);
            json_object_set_new(o, "seconds", mdr_report_real(e->seconds));
            w->err = mdr_cli_print_json(o, JSON_COMPACT);
        } else {
            Text line = {0};
            mdr_text_printf(&line, "%6d %8lld %10.4f %10.4f %9.4f %9.4f %9.1f\n", e->epoch, (long long)e->step, e->train_loss, e->valid.loss,
                            e->valid.acc_macro, e->test.acc_macro, e->seconds);
            w->err = mdr_cli_print(mdr_text_str(&line));
            mdr_text_free(&line);
        }
    }
}

static void on_epoch(void *ctx, const Trainer *t) { print_epochs(ctx, mdr_train_result(t, 0)); }

static bool on_step(void *ctx, const Trainer *t)
{
    Watch *w = ctx;
    int64_t step = mdr_train_steps_done(t);
    if (w->from < 0) w->from = step - 1;           /* after a checkpoint only what was done since then took time          */
    double spent = (mdr_clock() - w->begin) * (double)step / (double)(step - w->from);
    mdr_cli_progress((double)step, (double)w->total, spent, "step %lld of %lld, loss %.4f", (long long)step,
                     (long long)w->total, mdr_train_loss(t, 0));
    return !mdr_cli_stop_asked() && !w->err;
}

static Err *print_end(const Watch *w, const TrialResult *r, int64_t steps)
{
    int32_t best = mdr_study_select_epoch(r, false);
    if (w->json) {
        json_t *o = json_object();
        json_object_set_new(o, "event", json_string("end"));
        json_object_set_new(o, "status", json_string(mdr_train_status_name(r->status)));
        mdr_report_json_epoch(o, best >= 0 ? &r->epoch[best] : NULL);
        json_object_set_new(o, "chance", mdr_report_real(w->levels.chance));
        json_object_set_new(o, "ceiling", mdr_report_real(w->levels.ceiling));
        json_object_set_new(o, "chance_macro", mdr_report_real(w->levels.chance_macro));
        json_object_set_new(o, "ceiling_macro", mdr_report_real(w->levels.ceiling_macro));
        json_object_set_new(o, "seconds", mdr_report_real(r->seconds));
        return mdr_cli_print_json(o, JSON_COMPACT);
    }
    Text line = {0};
    mdr_text_printf(&line, "\n%s after %lld steps", mdr_train_status_name(r->status), (long long)steps);
    if (best >= 0)
        mdr_text_printf(&line, "; epoch %d is the best on validation\n%-14s %8s %8s\n%-14s %8.4f %8.4f\n%-14s %8.4f %8.4f\n%-14s %8.4f %8.4f",
                        r->epoch[best].epoch, "", "macro", "plain", "test accuracy", r->epoch[best].test.acc_macro, r->epoch[best].test.acc,
                        "chance", w->levels.chance_macro, w->levels.chance, "ceiling", w->levels.ceiling_macro, w->levels.ceiling);
    mdr_text_printf(&line, "\n");
    Err *e = mdr_cli_print(mdr_text_str(&line));
    mdr_text_free(&line);
    return e;
}

/* The format of trace viewers: an array of complete events, times in microseconds; training and evaluation are two processes. */
static Err *write_trace(Trainer *t, const char *path)
{
    Exec *part[2] = {mdr_train_exec(t), mdr_train_eval_exec(t)};
    int64_t all_lost = 0;
    Text out = {0};
    mdr_text_printf(&out, "{\"traceEvents\":[\n"
                          "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":0,\"args\":{\"name\":\"training\"}},\n"
                          "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"evaluation\"}}");
    for (int k = 0; k < 2; k++) {
        const TraceEvent *ev;
        int64_t lost, n = mdr_exec_trace_read(part[k], &ev, &lost);
        all_lost += lost;
        for (int64_t i = 0; i < n; i++) {
            mdr_text_printf(&out, ",\n{\"name\":\"%s", ev[i].phase);
            if (ev[i].lane >= 0) mdr_text_printf(&out, " %d", ev[i].lane);
            mdr_text_printf(&out, "\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}", k, ev[i].worker, ev[i].begin * 1e6,
                            (ev[i].end - ev[i].begin) * 1e6);
        }
    }
    mdr_text_printf(&out, "\n]}\n");
    if (all_lost) mdr_cli_note("the trace holds the first events of the run; %lld later ones are not in it", (long long)all_lost);
    Err *e = mdr_file_write_atomic(path, out.s, out.n);
    mdr_text_free(&out);
    return mdr_err_wrap(e, "trace");
}

static Err *stopped(Err *e, const Trainer *t, const TrainWatch *watch, int64_t total)
{
    if (watch->checkpoint || mdr_err_code(e) != MDR_STOPPED) return e;
    mdr_err_free(e);
    return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped at step %lld of %lld; nothing of it is kept: with --checkpoint FILE the same "
                       "command would go on", (long long)mdr_train_steps_done(t), (long long)total);
}

/* What would fail after an hour is found out before: the folder of a file that is to be written. */
static Err *can_write(const OptionValue *v)
{
    if (!v->given) return NULL;
    const char *slash = strrchr(v->text, '/');
    Text dir = {0};
    if (slash) mdr_text_add(&dir, v->text, slash == v->text ? 1 : (size_t)(slash - v->text));
    bool ok = access(slash ? mdr_text_str(&dir) : ".", W_OK | X_OK) == 0;
    int code = errno;
    mdr_text_free(&dir);
    return ok ? NULL : MDR_ERR_USER("cannot write %s: %s", v->text, strerror(code));
}

static Err *run_trial(const Args *a, const TrialSpec *spec)
{
    const char *trace = mdr_cli_option(a, "trace")->text;
    Watch w = {.spec = spec, .json = mdr_cli_option(a, "json")->given, .total = mdr_train_total_steps(spec), .begin = mdr_clock(), .from = -1};
    TrainWatch watch = {&w, on_step, on_epoch, mdr_cli_option(a, "checkpoint")->text, mdr_cli_option(a, "every")->number};
    Pool *pool = NULL;
    Trainer *t = NULL;
    spec->task->levels(&spec->setting, &w.levels);
    Err *e = mdr_train_check(spec);
    if (!e) e = can_write(mdr_cli_option(a, "checkpoint"));
    if (!e) e = can_write(mdr_cli_option(a, "trace"));
    if (!e) e = mdr_cli_pool(a, &pool);
    if (!e) e = mdr_train_open(&spec, 1, pool, &t);
    if (!e) e = print_start(&w);
    if (!e && trace) {
        mdr_exec_trace(mdr_train_exec(t), true);
        mdr_exec_trace(mdr_train_eval_exec(t), true);
    }
    mdr_cli_catch_stop();
    if (!e) e = stopped(mdr_train_run(t, &watch), t, &watch, w.total);
    mdr_cli_progress_end();
    if (w.err) { mdr_err_free(e); e = w.err; }
    if (t && trace && (!e || mdr_err_code(e) == MDR_STOPPED)) {
        Err *te = write_trace(t, trace);
        if (!e) e = te;
        else mdr_err_free(te);
    }
    if (!e) on_epoch(&w, t);                       /* epochs that were in the checkpoint of a finished trial              */
    if (!e) e = w.err ? w.err : print_end(&w, mdr_train_result(t, 0), mdr_train_steps_done(t));
    mdr_train_close(t);
    mdr_pool_close(pool);
    return e;
}

/* ---- on a GPU: a queue of one ---- */
static bool on_tick(void *ctx, const QueueProgress *p)
{
    Watch *w = ctx;
    mdr_cli_progress((double)p->member_steps, (double)w->total, p->seconds, "step %lld of %lld, loss %.4f", (long long)p->member_steps,
                     (long long)w->total, p->loss);
    return !mdr_cli_stop_asked() && !w->err;
}
static void on_queue_epoch(void *ctx, int32_t trial, const TrialResult *r) { (void)trial, print_epochs(ctx, r); }
static Err *on_done(void *ctx, int32_t trial, const TrialResult *r)
{
    Watch *w = ctx;
    (void)trial;
    mdr_cli_progress_end();
    print_epochs(w, r);
    if (w->err) return NULL;
    return print_end(w, r, r->n_epoch ? r->epoch[r->n_epoch - 1].step : 0);
}

static Err *run_on_gpu(const Args *a, const TrialSpec *spec, Accel *accel)
{
    static const char *const refused[] = {"checkpoint", "trace", "plan", "threads"};
    Watch w = {.spec = spec, .json = mdr_cli_option(a, "json")->given, .total = mdr_train_total_steps(spec), .begin = mdr_clock()};
    QueueWatch watch = {.ctx = &w, .tick = on_tick, .done = on_done, .epoch = on_queue_epoch};
    for (int i = 0; i < MDR_COUNT(refused); i++)
        if (mdr_cli_option(a, refused[i])->given) return MDR_ERR_USER("--%s does not go with a GPU: it wants --device cpu", refused[i]);
    spec->task->levels(&spec->setting, &w.levels);
    MDR_TRY(mdr_train_check(spec));
    MDR_TRY(print_start(&w));
    mdr_cli_catch_stop();
    Err *e = mdr_train_queue(&spec, 1, accel, &watch);
    mdr_cli_progress_end();
    if (w.err) { mdr_err_free(e); return w.err; }
    return e;
}

static const char *const not_with_plan[] = {"checkpoint", "trace", "json"};

static Err *run(const Args *a)
{
    const OptionValue *task = mdr_cli_option(a, "task"), *arch = mdr_cli_option(a, "arch"), *layers = mdr_cli_option(a, "layers");
    if (a->n_word) return MDR_ERR_USER("train takes no operand, got \"%s\"; the architecture goes after --arch", a->word[0]);
    if (!task->given) return MDR_ERR_USER("train wants --task TASK; see madras list tasks");
    if (arch->given && layers->given) return MDR_ERR_USER("--arch and --layers exclude each other");
    if (!arch->given && !layers->given) return MDR_ERR_USER("train wants an architecture: --arch '(mh-attention swiglu)*2' or --layers a b c d");
    if (mdr_cli_option(a, "every")->given && !mdr_cli_option(a, "checkpoint")->given) return MDR_ERR_USER("--every wants --checkpoint FILE beside it");
    if (mdr_cli_option(a, "plan")->given)
        for (int i = 0; i < MDR_COUNT(not_with_plan); i++)
            if (mdr_cli_option(a, not_with_plan[i])->given) return MDR_ERR_USER("--plan trains nothing: --%s does not go with it", not_with_plan[i]);
    if (strchr(task->text, ',')) return MDR_ERR_USER("train runs one task, got \"%s\"; madras bench runs several", task->text);
    Protocol *p = NULL;
    ArchList archs = {0};
    TrialSpec *spec = NULL;
    Accel *accel = NULL;
    int32_t n = 0;
    Err *e = mdr_cli_settle(a, true, task->text, "madras", &p);
    if (!e) e = mdr_cli_device(a, p, &accel);
    if (!e) e = mdr_cli_archs(p, &arch->text, arch->given ? 1 : 0, layers, &archs);
    if (!e && archs.n != 1) e = MDR_ERR_USER("train runs one architecture, \"%s\" names %d; madras bench runs several", arch->text, archs.n);
    if (!e) mdr_study_trials(p, archs.arch[0], &n, &spec);
    if (!e && n != 1) e = MDR_ERR_MACHINE("train settled to %d trials", n);
    if (!e) {
        const OptionValue *seed = mdr_cli_option(a, "seed");
        if (seed->given) spec[0].seed = (uint64_t)seed->number;
        spec[0].composed = mdr_cli_option(a, "composed")->given;
        e = accel ? run_on_gpu(a, &spec[0], accel) : mdr_cli_option(a, "plan")->given ? mdr_cli_print_plan(a, &spec[0]) : run_trial(a, &spec[0]);
    }
    mdr_accel_close(accel);
    mdr_free(spec);
    mdr_model_archs_free(&archs);
    mdr_study_protocol_free(p);
    return e;
}

const CommandDef mdr_commands_train[] = {
    {"train", "--task TASK --arch ARCH [options]", "train one architecture on one task, loss and accuracy as it goes",
     "Values are settled in this order: protocol, config file, --set, parameters in\n"
     "the architecture. Keys of --set: madras list tasks, list model, list training.\n"
     "`epochs` of a later file or of --set replaces `steps` unless given beside it.\n"
     "With --json one object a line: start, epoch..., end.\n"
     "With --plan what the architecture became: every op with shapes, phase and the\n"
     "layer it is of, then the instructions with the places of their values.\n"
     "Example: madras train --task in-context-recall --arch '(mh-attention swiglu)*2'\n"
     "         --set vocab_size=8 --set seq_len=32 --set epochs=10 --set lr=0.002\n",
     options, run},
    {0}};
