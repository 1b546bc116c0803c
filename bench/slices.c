/* How many rows a slice should hold (one constant of the numerics version): the same training step planned with slices of 128, 256 and
 * 512 rows, steps taken in turns so that the machine's moods meet all three alike; medians.
 *
 *   build/bench/slices [threads [steps]] */
#include "task/task.h"
#include "model/model.h"
#include "exec/exec.h"
#include <stdlib.h>

enum { BATCH = 128, MOST_STEPS = 101, N_ROWS = 3 };
static const int32_t slice_rows[N_ROWS] = {128, 256, 512};

typedef struct Net { Graph *forward, *joint; Plan *plan; Population *pop; Exec *exec; double ms[MOST_STEPS]; } Net;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Err *net_open(const ModelSpec *m, int32_t rows, Pool *pool, Net *n)
{
    void *cpu = (void *)(uintptr_t)&mdr_exec_cpu;
    PlanSpec ps = {.device = &mdr_exec_cpu, .batch = BATCH, .first_grad = 2, .update = "adamw", .slice_rows = rows};
    MDR_TRY(mdr_model_graph(m, &n->forward));
    MDR_TRY(mdr_model_lower(n->forward, mdr_exec_has, cpu, true, &n->joint));
    MDR_TRY(mdr_exec_plan(n->joint, &ps, &n->plan));
    MDR_TRY(mdr_exec_population_new(n->plan, NULL, 1, &n->pop));
    MDR_TRY(mdr_exec_open(n->plan, pool, 1, &n->exec));
    for (int32_t i = 0; i < mdr_exec_info(n->plan).n_param; i++) {
        const ParamAttr *a = mdr_exec_param(n->plan, i);
        double *x = mdr_alloc((size_t)mdr_numel(a->shape) * sizeof *x);
        mdr_model_init(a, a->shape, INIT_MAD_LAB, BACKBONE_LM, 1, x);
        float *to = (float *)n->pop->param + mdr_exec_param_offset(n->plan, i);
        for (int64_t k = 0; k < mdr_numel(a->shape); k++) to[k] = (float)x[k];
        mdr_free(x);
    }
    n->pop->hyper[0] = (Hyper){1e-3, 0, 0.9, 0.999, 1e-8, 0, 1};
    return NULL;
}
static void net_close(Net *n)
{
    mdr_exec_close(n->exec);
    mdr_exec_population_free(n->pop);
    mdr_exec_plan_free(n->plan);
    mdr_ir_graph_free(n->joint);
    mdr_ir_graph_free(n->forward);
}

static Err *take_turns(Net *net, const StepInput *in, int steps)
{
    for (int s = -1; s < steps; s++)                                /* the first warms up                                   */
        for (int k = 0; k < N_ROWS; k++) {
            double begin = mdr_clock();
            MDR_TRY(mdr_exec_step(net[k].exec, net[k].pop, in, BATCH, true));
            if (s >= 0) net[k].ms[s] = (mdr_clock() - begin) * 1e3;
        }
    return NULL;
}

static Err *one(const char *text, int32_t length, int steps, Pool *pool)
{
    ArchList a = {0};
    Net net[N_ROWS] = {{0}};
    TaskParams p;
    Dataset *d = NULL;
    const TaskDef *task = mdr_task_find("in-context-recall");
    MDR_TRY(mdr_model_parse(text, 0, NULL, &a));
    mdr_task_defaults(task, &p);
    p.seq_len = length;
    int32_t rows = task->rows(&p), *x = mdr_alloc((size_t)BATCH * (size_t)rows * 2 * sizeof *x), *y = x + BATCH * rows;
    float inv = 1.0f / (float)(BATCH * rows);
    StepInput in[3] = {{x, 0}, {y, 0}, {&inv, 0}};
    ModelSpec m = {.arch = a.arch[0], .vocab = p.vocab_size, .rows = rows, .max_length = length};
    mdr_params_default(mdr_model_params, &m.params);
    m.params.backbone = BACKBONE_LM;
    Err *e = mdr_task_open(task, &p, SPLIT_TRAIN, 1, &d);
    for (int32_t i = 0; !e && i < BATCH; i++) mdr_task_example(d, i, x + i * rows, y + i * rows);
    for (int k = 0; k < N_ROWS && !e; k++) e = net_open(&m, slice_rows[k], pool, &net[k]);
    if (!e) e = take_turns(net, in, steps);
    if (!e) {
        printf("%-40s %5d", text, length);
        for (int k = 0; k < N_ROWS; k++) {
            qsort(net[k].ms, (size_t)steps, sizeof *net[k].ms, by_value);
            printf(" %10.1f", net[k].ms[steps / 2]);
        }
        printf("\n");
        fflush(stdout);
    }
    for (int k = 0; k < N_ROWS; k++) net_close(&net[k]);
    mdr_task_close(d);
    mdr_free(x);
    mdr_model_archs_free(&a);
    return e;
}

int main(int argc, char **argv)
{
    Pool *pool = NULL;
    int steps = argc > 2 ? atoi(argv[2]) : 7;
    if (steps < 1 || steps > MOST_STEPS) steps = MOST_STEPS;
    Err *e = mdr_pool_open(argc > 1 ? atoi(argv[1]) : mdr_cpu_count(), &pool);
    printf("milliseconds a training step, batch %d\n%-40s %5s %10s %10s %10s\n", BATCH, "rows of a slice", "L", "128", "256", "512");
    if (!e) e = one("(mh-attention swiglu(dim_inner=352))*2", 128, steps, pool);
    if (!e) e = one("(hyena swiglu(dim_inner=352))*2", 128, steps, pool);
    if (!e) e = one("(mamba swiglu(dim_inner=352))*2", 128, steps, pool);
    mdr_pool_close(pool);
    if (e) { fprintf(stderr, "%s (%s)\n", mdr_err_text(e), mdr_err_born(e)); return 1; }
    return 0;
}
