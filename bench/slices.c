/* How many rows a slice should hold (one constant of the numerics version): the same training step planned with slices of 128, 256 and
 * 512 rows, steps taken in turns so that the machine's moods meet all three alike; medians.
 *
 *   build/bench/slices [threads [steps]] */
#include "net.h"
#include <stdlib.h>

enum { MOST_STEPS = 101, N_ROWS = 3 };
static const int32_t slice_rows[N_ROWS] = {128, 256, 512};

typedef double Times[MOST_STEPS];

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Err *take_turns(const Net *net, Times *ms, const StepInput *in, int steps)
{
    for (int s = -1; s < steps; s++)                                /* the first warms up                                   */
        for (int k = 0; k < N_ROWS; k++) {
            double begin = mdr_clock();
            MDR_TRY(mdr_exec_step(net[k].exec, net[k].pop, in, BATCH, true));
            if (s >= 0) ms[k][s] = (mdr_clock() - begin) * 1e3;
        }
    return NULL;
}

static Err *one(const char *text, int32_t length, int steps, Pool *pool)
{
    ArchList a = {0};
    Net net[N_ROWS] = {{0}};
    Times ms[N_ROWS];
    TaskParams p;
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
    Err *e = net_batch(task, &p, x);
    for (int k = 0; k < N_ROWS && !e; k++) e = net_open(&net[k], &m, &mdr_exec_cpu, slice_rows[k], 1, pool, NULL);
    if (!e) e = take_turns(net, ms, in, steps);
    if (!e) {
        printf("%-40s %5d", text, length);
        for (int k = 0; k < N_ROWS; k++) {
            qsort(ms[k], (size_t)steps, sizeof *ms[k], by_value);
            printf(" %10.1f", ms[k][steps / 2]);
        }
        printf("\n");
        fflush(stdout);
    }
    for (int k = 0; k < N_ROWS; k++) net_close(&net[k]);
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
