/* The training step beside the machine: for each architecture and length the time of a whole step (data, every gradient,
 * update), its rate in counted FLOPs and the ratio to R, the best library sgemm of the same run and threads; a table per op;
 * how busy the workers were; resident memory. link: openblas
 *
 *   build/bench/train [threads [ARCH L]...]      default: 2 threads, the six cases */
#include "report/report.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

void openblas_set_num_threads(int n);
enum { BATCH = 128, STEPS = 5 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

/* GFLOP/s of one product on all workers: median of five. */
typedef struct Gemm { int m, n, k; float *a, *b, *c; } Gemm;
static void gemm_job(void *ctx, int w)
{
    const Gemm *g = ctx;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, g->m, g->n, g->k, 1, g->a + (size_t)w * (size_t)(g->m * g->k), g->k, g->b, g->n, 0,
                g->c + (size_t)w * (size_t)(g->m * g->n), g->n);
}
static double gemm_rate(Pool *pool, int m, int n, int k)
{
    int w = mdr_pool_size(pool);
    Gemm g = {m, n, k, calloc((size_t)(m * k) * (size_t)w, 4), calloc((size_t)(k * n), 4), calloc((size_t)(m * n) * (size_t)w, 4)};
    double flops = 2.0 * m * n * k, v[5];
    int reps = (int)(1.5e10 / flops) + 1;
    for (int i = 0; i < 5; i++) {
        double t = mdr_clock();
        for (int r = 0; r < reps; r++) mdr_pool_run(pool, gemm_job, &g);
        v[i] = flops * reps * w / (mdr_clock() - t) / 1e9;
    }
    free(g.a);
    free(g.b);
    free(g.c);
    return median(v, 5);
}
static double library_rate(Pool *pool)
{
    double r = 0;
    static const int shape[3][3] = {{1024, 1024, 1024}, {4096, 128, 128}, {384, 128, 128}};
    openblas_set_num_threads(1);
    for (int i = 0; i < 3; i++) {
        double x = gemm_rate(pool, shape[i][0], shape[i][1], shape[i][2]);
        if (x > r) r = x;
    }
    return r;
}

static Err *one(const char *text, int32_t length, Pool *pool)
{
    ArchList archs = {0};
    MDR_TRY(mdr_model_parse(text, 0, NULL, &archs));
    TrialSpec s = {.arch = archs.arch[0], .task = mdr_task_find("in-context-recall"), .seed = 1};
    mdr_task_defaults(s.task, &s.setting);
    mdr_params_default(mdr_model_params, &s.model);
    mdr_params_default(mdr_train_params, &s.train);
    s.model.backbone = BACKBONE_LM;
    s.setting.seq_len = length;
    const TrialSpec *spec = &s;
    Trainer *t = NULL;
    TrialCost cost;
    MDR_TRY(mdr_train_cost(&s, &cost));
    MDR_TRY(mdr_train_open(&spec, 1, pool, &t));
    int64_t per_epoch = s.setting.num_train_examples / BATCH;
    double evals = 2.0 * s.setting.num_test_examples, epochs = (double)cost.steps / (double)per_epoch;
    double step_flops = cost.flops / (3.0 * epochs * s.setting.num_train_examples + epochs * evals) * 3.0 * BATCH, v[STEPS];
    for (int i = 0; i < 2; i++) MDR_TRY(mdr_train_step(t));
    mdr_exec_profile(mdr_train_exec(t), true);
    double before = library_rate(pool), begin = mdr_clock();
    for (int i = 0; i < STEPS; i++) {
        double t0 = mdr_clock();
        MDR_TRY(mdr_train_step(t));
        v[i] = mdr_clock() - t0;
    }
    double total = mdr_clock() - begin, after = library_rate(pool), r = before > after ? before : after, m = median(v, STEPS);
    PlanInfo info = mdr_exec_info(mdr_train_plan(t));
    printf("\n%s  L %d: %.1f ms a step, %.1f GFLOP/s = %.2f R (R %.1f)\n", text, length, m * 1e3, step_flops / m / 1e9, step_flops / m / 1e9 / r, r);
    printf("  slice %d, %d slices, %d lanes; slice %.1f MB, lane %.1f MB, step %.1f MB; busy", info.slice, info.n_slice, info.n_lane,
           (double)info.slice_bytes / 1e6, (double)info.lane_bytes / 1e6, (double)info.step_bytes / 1e6);
    for (int w = 0; w < mdr_pool_size(pool); w++) printf(" %.3f", mdr_exec_busy(mdr_train_exec(t), w) / total);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("; peak resident %.0f MiB\n", (double)u.ru_maxrss / 1024);
    OpProfile *p = calloc((size_t)info.n_instr, sizeof *p);
    OpTime *row = calloc((size_t)info.n_instr, sizeof *row);
    Limits limits;
    MDR_TRY(mdr_report_limits(&limits));
    mdr_exec_profile_read(mdr_train_exec(t), p, info.n_instr);
    Text table = {0};
    mdr_report_ops(row, mdr_report_op_times(p, info.n_instr, total, mdr_pool_size(pool), &limits, row), STEPS, &table);
    printf("%s", mdr_text_str(&table));
    mdr_text_free(&table);
    free(row);
    free(p);
    mdr_train_close(t);
    mdr_model_archs_free(&archs);
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct { const char *arch; int32_t length; } cases[] = {
        {"(mh-attention swiglu(dim_inner=352))*2", 128}, {"(mh-attention swiglu(dim_inner=352))*2", 1024},
        {"(hyena swiglu(dim_inner=352))*2", 128}, {"(hyena swiglu(dim_inner=352))*2", 1024},
        {"(mamba swiglu(dim_inner=352))*2", 128}, {"(mamba swiglu(dim_inner=352))*2", 1024}};
    Pool *pool = NULL;
    Err *e = mdr_pool_open(argc > 1 ? atoi(argv[1]) : 2, &pool);
    for (int i = 0; !e && argc <= 2 && i < MDR_COUNT(cases); i++) e = one(cases[i].arch, cases[i].length, pool);
    for (int i = 2; !e && i + 1 < argc; i += 2) e = one(argv[i], atoi(argv[i + 1]), pool);
    if (e) { fprintf(stderr, "%s (%s)\n", mdr_err_text(e), mdr_err_born(e)); return 1; }
    mdr_pool_close(pool);
    return 0;
}
