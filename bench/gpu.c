/* Populations on a GPU: milliseconds of a whole training step (data, every gradient, update) for one member, for each architecture,
 * length and population; then where the time goes, kernel by kernel, beside each one's bound: its FLOPs at the datasheet's rate, or
 * its bytes (values of sequences in the precision's size) at the rate at which this GPU copies, measured here. At last populations of
 * different graphs side by side.
 *
 *   build/bench/gpu [PRECISION [beside | [ARCH L P]...]]      default: bf16, the six cases of docs/gpu-figures.txt; beside: the last part */
#include "net.h"
#include "report/report.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const double SECONDS = 1.2;

typedef struct Case { const char *arch; int32_t length; int32_t members[4]; } Case;
static const Case cases[] = {
    {"(mh-attention swiglu(dim_inner=352))*2", 128, {1, 6, 24, 64}}, {"(hyena swiglu(dim_inner=352))*2", 128, {1, 6, 24, 48}},
    {"(mamba swiglu(dim_inner=352))*2", 128, {1, 6, 24, 48}},        {"(mh-attention swiglu(dim_inner=352))*2", 1024, {1, 6, 12, 0}},
    {"(hyena swiglu(dim_inner=352))*2", 1024, {1, 6, 0, 0}},         {"(mamba swiglu(dim_inner=352))*2", 1024, {1, 6, 12, 0}}};

static void spec_of(const Arch *arch, int32_t length, int32_t precision, uint64_t seed, TrialSpec *s)
{
    *s = (TrialSpec){.arch = arch, .task = mdr_task_find("in-context-recall"), .seed = seed};
    mdr_task_defaults(s->task, &s->setting);
    mdr_params_default(mdr_model_params, &s->model);
    mdr_params_default(mdr_train_params, &s->train);
    s->model.backbone = BACKBONE_LM;
    s->setting.seq_len = length;
    s->setting.num_train_examples = 256000;
    s->train.steps = 2000;
    s->train.precision = precision;
}

/* ---- the whole step: member-steps between the first and the last word of a queue ---- */
typedef struct Pace { int64_t from, to; double begin, end, busy_begin, busy_end; int32_t members; } Pace;
static bool tick(void *ctx, const QueueProgress *p)
{
    Pace *r = ctx;
    if (r->from < 0 && p->member_steps >= 8 * r->members) {
        r->from = p->member_steps;
        r->begin = p->seconds;
        r->busy_begin = p->busy * p->seconds;
    }
    r->to = p->member_steps;
    r->end = p->seconds;
    r->busy_end = p->busy * p->seconds;
    return r->from < 0 || r->end - r->begin < SECONDS;
}
static Err *ended(void *ctx, int32_t trial, const TrialResult *r)
{
    (void)ctx, (void)trial, (void)r;
    return NULL;
}
typedef struct Mix { int32_t length, members, populations, side_by_side; } Mix;        /* side_by_side 0: as many as the queue likes */
static Err *pace(const Arch *arch, const Mix *x, int32_t precision, Accel *accel, double *ms, double *busy)
{
    const int32_t n = x->members * x->populations;
    TrialSpec *s = mdr_alloc((size_t)n * sizeof *s);
    const TrialSpec **spec = mdr_alloc((size_t)n * sizeof *spec);
    Pace r = {.from = -1, .members = n};
    QueueWatch watch = {.ctx = &r, .tick = tick, .done = ended, .most_members = x->members, .most_populations = x->side_by_side};
    for (int32_t i = 0; i < n; i++) {
        spec_of(arch, x->length, precision, (uint64_t)i + 1, &s[i]);
        s[i].setting.vocab_size += 8 * (i / x->members);              /* a graph of its own                                  */
        spec[i] = &s[i];
    }
    Err *e = mdr_train_queue(spec, n, accel, &watch);
    if (e && mdr_err_code(e) == MDR_STOPPED) {
        mdr_err_free(e);
        e = NULL;
    }
    *ms = (r.end - r.begin) / (double)(r.to - r.from) * 1e3;
    *busy = (r.busy_end - r.busy_begin) / (r.end - r.begin);
    mdr_free(spec);
    mdr_free(s);
    return e;
}

/* ---- kernel by kernel ---- */
static Err *copy_rate(Accel *accel, double *rate)
{
    const int64_t bytes = (int64_t)1 << 30;
    void *a = NULL, *b = NULL;
    double s = 1;
    Err *e = mdr_accel_alloc(accel, bytes, &a);
    if (!e) e = mdr_accel_alloc(accel, bytes, &b);
    for (int i = 0; i < 2 && !e; i++) {               /* the first warms up                                                  */
        e = mdr_accel_mark(accel, 0);
        for (int k = 0; k < 10 && !e; k++) e = mdr_accel_copy(accel, b, bytes, a, bytes, bytes, 1);
        if (!e) e = mdr_accel_mark(accel, 1);
        if (!e) e = mdr_accel_elapsed(accel, 0, 1, &s);
    }
    *rate = 2.0 * (double)bytes * 10 / s;
    mdr_accel_free(accel, a);
    mdr_accel_free(accel, b);
    return e;
}

/* Seconds of the recorded step, and of as many launches that do nothing: what of a step can at most lie between kernels. */
enum { REPLAYS = 20 };
static Err *replayed(Accel *accel, Recording *r, double *seconds)
{
    Err *e = mdr_accel_replay(accel, r);
    if (!e) e = mdr_accel_mark(accel, 0);
    for (int i = 0; i < REPLAYS && !e; i++) e = mdr_accel_replay(accel, r);
    if (!e) e = mdr_accel_mark(accel, 1);
    if (!e) e = mdr_accel_elapsed(accel, 0, 1, seconds);
    *seconds /= REPLAYS;
    return e;
}
static Err *nothing(Accel *accel, int32_t launches, double *seconds)
{
    void *count = NULL;
    Recording *r = NULL;
    Err *e = mdr_accel_alloc(accel, 2 * sizeof(int32_t), &count);
    if (!e) e = mdr_accel_fill(accel, count, 0, 2 * sizeof(int32_t));
    if (!e) e = mdr_accel_record_begin(accel);
    for (int32_t i = 0; i < launches && !e; i++) e = mdr_accel_ones(accel, 1, count, (int32_t *)count + 1);
    if (!e) e = mdr_accel_record_end(accel, &r);
    if (!e) e = replayed(accel, r, seconds);
    mdr_accel_recording_free(r);
    mdr_accel_free(accel, count);
    return e;
}
static Err *between(const Net *n, Accel *accel, int32_t members)
{
    double empty = 0, step = 0;
    Err *e = nothing(accel, mdr_exec_launches(n->exec), &empty);
    if (!e) e = mdr_accel_mark(accel, 2);
    for (int i = 0; i < REPLAYS && !e; i++) e = mdr_exec_replay(n->exec);
    if (!e) e = mdr_accel_mark(accel, 3);
    if (!e) e = mdr_accel_elapsed(accel, 2, 3, &step);
    step /= REPLAYS;
    if (!e) printf("  %d members: %d launches, %.3f ms a step; as many empty launches %.3f ms: between kernels at most %.1f %%\n", members,
                   mdr_exec_launches(n->exec), step * 1e3, empty * 1e3, 100 * empty / step);
    return e;
}

static Err *kernels(const Arch *arch, int32_t length, int32_t precision, int32_t members, Accel *accel, double copy)
{
    enum { STEPS = 5 };
    TrialSpec s;
    Net n = {0};
    spec_of(arch, length, precision, 1, &s);
    int32_t rows = s.task->rows(&s.setting);
    int32_t *x = mdr_alloc((size_t)BATCH * (size_t)rows * 2 * sizeof *x), *y = x + BATCH * rows;
    const DeviceDef *device = precision == PRECISION_BF16 ? &mdr_exec_cuda_bf16 : &mdr_exec_cuda;
    ModelSpec m = {s.arch, s.model, s.setting.vocab_size, rows, s.setting.seq_len};
    float *inv = mdr_alloc((size_t)members * sizeof *inv);
    for (int32_t k = 0; k < members; k++) inv[k] = 1.0f / (float)(BATCH * rows);
    StepInput in[3] = {{x, 0}, {y, 0}, {inv, 1}};
    Err *e = net_open(&n, &m, device, 0, members, NULL, accel);
    if (!e) e = net_batch(s.task, &s.setting, x);
    if (!e) e = mdr_exec_step(n.exec, n.pop, in, BATCH, true);
    if (!e) e = between(&n, accel, members);
    if (!e) mdr_exec_profile(n.exec, true);
    for (int i = 0; i < STEPS && !e; i++) e = mdr_exec_step(n.exec, n.pop, in, BATCH, true);
    if (!e) {
        int32_t n_row = mdr_exec_profile_read(n.exec, NULL, 0);
        OpProfile *p = mdr_alloc((size_t)n_row * sizeof *p);
        OpTime *row = mdr_alloc((size_t)n_row * sizeof *row);
        Text t = {0};
        double total = 0;
        bool half = precision == PRECISION_BF16;
        Limits limits = {.flops = half ? 989e12 : 67e12, .bytes = half ? 2 * copy : copy, .exps = 132 * 16 * 1.98e9};
        mdr_exec_profile_read(n.exec, p, n_row);
        for (int32_t i = 0; i < n_row; i++) total += p[i].seconds;
        int32_t n_op = mdr_report_op_times(p, n_row, total, 1, &limits, row);
        mdr_report_ops(row, n_op, STEPS * members, &t);
        printf("\n%s, L %d, %d members, one kernel after another: %.3f ms a member and step\n%s", arch->text, length, members,
               total / STEPS / members * 1e3, mdr_text_str(&t));
        mdr_text_free(&t);
        mdr_free(p);
        mdr_free(row);
    }
    mdr_free(inv);
    mdr_free(x);
    net_close(&n);
    return e;
}

static Err *one(const Case *c, int32_t precision, Accel *accel, double copy)
{
    ArchList a = {0};
    int32_t best = 0;
    MDR_TRY(mdr_model_parse(c->arch, 0, NULL, &a));
    Err *e = NULL;
    for (int i = 0; i < MDR_COUNT(c->members) && c->members[i] > 0 && !e; i++) {
        double ms, busy;
        e = pace(a.arch[0], &(Mix){c->length, c->members[i], 1, 1}, precision, accel, &ms, &busy);
        if (e) break;
        printf("%-40s %5d %8d %10.3f %7.2f\n", c->arch, c->length, c->members[i], ms, busy);
        fflush(stdout);
        if (best == 0 || c->members[i] <= 24) best = c->members[i];
    }
    if (!e) e = kernels(a.arch[0], c->length, precision, best, accel, copy);
    fflush(stdout);
    mdr_model_archs_free(&a);
    return e;
}

/* Populations of different graphs, as a protocol has them: one after another, and side by side as the queue does it. */
static Err *beside(int32_t precision, Accel *accel)
{
    static const Mix mixes[] = {{32, 1, 8, 0},  {32, 6, 8, 0},  {128, 1, 8, 0}, {128, 6, 3, 0}, {128, 24, 2, 0},
                                {256, 6, 2, 0}, {512, 6, 2, 0}, {1024, 1, 2, 0}, {1024, 3, 2, 0}};
    ArchList a = {0};
    MDR_TRY(mdr_model_parse(cases[0].arch, 0, NULL, &a));
    Err *e = NULL;
    printf("\npopulations of %s, ms a member and step\n%5s %12s %8s %18s %13s %7s\n", cases[0].arch, "L", "populations", "members", "one after another",
           "side by side", "busy");
    for (int i = 0; i < MDR_COUNT(mixes) && !e; i++) {
        Mix x = mixes[i];
        double alone, ms, busy;
        x.side_by_side = 1;
        e = pace(a.arch[0], &x, precision, accel, &alone, &busy);
        if (!e) e = pace(a.arch[0], &mixes[i], precision, accel, &ms, &busy);
        if (!e) printf("%5d %12d %8d %18.3f %13.3f %7.2f\n", x.length, x.populations, x.members, alone, ms, busy);
        fflush(stdout);
    }
    mdr_model_archs_free(&a);
    return e;
}

int main(int argc, char **argv)
{
    Accel *accel = NULL;
    double copy = 0;
    int32_t precision = argc > 1 && strcmp(argv[1], "float32") == 0 ? PRECISION_FLOAT32 : PRECISION_BF16;
    const bool all = argc <= 2, last = argc == 3 && strcmp(argv[2], "beside") == 0;
    time_t now = time(NULL);
    char date[32];
    Err *e = mdr_accel_open(0, &accel);
    if (!e) e = copy_rate(accel, &copy);
    if (!e) {
        const AccelInfo *g = mdr_accel_about(accel);
        strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime(&now));
        printf("%s, %d processors at up to %.0f MHz, driver CUDA %d, runtime %d; copies %.2f TB/s; %s; %s\n\n", g->name, g->processors,
               g->clock_khz / 1e3, g->driver, g->runtime, copy / 1e12, precision == PRECISION_BF16 ? "bf16" : "float32", date);
        if (!last) printf("%-40s %5s %8s %10s %7s\n", "batch 128, width 128", "L", "members", "ms/member", "busy");
    }
    if (!all && !last)
        for (int i = 2; i + 2 < argc && !e; i += 3) {
            Case c = {argv[i], atoi(argv[i + 1]), {atoi(argv[i + 2])}};
            e = one(&c, precision, accel, copy);
        }
    if (all)
        for (int i = 0; i < MDR_COUNT(cases) && !e; i++) e = one(&cases[i], precision, accel, copy);
    if (!e && (all || last)) e = beside(precision, accel);
    mdr_accel_close(accel);
    if (e) {
        fprintf(stderr, "%s (%s)\n", mdr_err_text(e), mdr_err_born(e));
        return 1;
    }
    return 0;
}
