/* The limits that kernels are held against, from this machine's own best: a chain of products of 384 x 128 by 128 x 128, copies
 * within L2, a chain of exponentials in L1; one worker, best of many. */
#include "report/report.h"
#include <string.h>

enum { CHAIN = 16, COPY = 256 << 10 };

static double copy_rate(void)
{
    char *a = mdr_alloc(COPY), *b = mdr_alloc(COPY);
    double best = 0;
    for (int i = 0; i < 200; i++) {
        double t = mdr_clock();
        for (int k = 0; k < 8; k++) memcpy(k & 1 ? a : b, k & 1 ? b : a, COPY);
        t = 8 * 2.0 * COPY / (mdr_clock() - t);
        if (t > best) best = t;
    }
    mdr_free(a);
    mdr_free(b);
    return best;
}

/* Shortest time of CHAIN products, or exponentials, of a [rows, cols] value. */
static Err *chain(int32_t rows, int32_t cols, bool product, double *seconds)
{
    Builder *b = mdr_ir_builder();
    Value x = mdr_ir_input(b, "x", mdr_shape2(rows, cols), DT_REAL, MDR_AXIS_SEQ), y = x;
    Value w = mdr_ir_param(b, "w", mdr_shape2(cols, cols), (Init){0});
    for (int k = 0; k < CHAIN; k++) y = product ? mdr_op_matmul(b, y, w, MDR_ABSENT) : mdr_op_unary(b, UN_EXP, 0, y);
    Value s = mdr_ir_sum_rows(b, y);
    mdr_ir_output(b, mdr_ir_sum_batch(b, 1, &s));
    Graph *g = NULL;
    Plan *p = NULL;
    Pool *pool = NULL;
    Exec *e = NULL;
    Population *pop = NULL;
    float *data = mdr_alloc((size_t)rows * (size_t)cols * sizeof *data);
    StepInput in = {data, 0};
    PlanSpec ps = {.device = &mdr_exec_cpu, .batch = 1, .first_grad = -1};
    Err *err = mdr_ir_finish(b, &g);
    if (!err) err = mdr_exec_plan(g, &ps, &p);
    if (!err) err = mdr_pool_open(1, &pool);
    if (!err) err = mdr_exec_open(p, pool, 1, &e);
    if (!err) err = mdr_exec_population_new(p, NULL, 1, &pop);
    *seconds = 1e30;
    for (int k = 0; !err && k < 100; k++) {
        double t = mdr_clock();
        err = mdr_exec_step(e, pop, &in, 1, false);
        t = mdr_clock() - t;
        if (t < *seconds) *seconds = t;
    }
    mdr_exec_population_free(pop);
    mdr_exec_close(e);
    mdr_pool_close(pool);
    mdr_exec_plan_free(p);
    mdr_ir_graph_free(g);
    mdr_free(data);
    return err;
}

Err *mdr_report_limits(Limits *l)
{
    double product, exps;
    MDR_TRY(chain(384, 128, true, &product));
    MDR_TRY(chain(64, 64, false, &exps));
    *l = (Limits){CHAIN * 2.0 * 384 * 128 * 128 / product, copy_rate(), CHAIN * 64.0 * 64 / exps};
    return NULL;
}
