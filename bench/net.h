/* A model's training step without a trainer, for programs that time it: graph, plan, members with starting values, memory. */
#ifndef MDR_BENCH_NET_H
#define MDR_BENCH_NET_H
#include "exec/exec.h"
#include "model/model.h"
#include "task/task.h"

enum { BATCH = 128 };
typedef struct Net { Graph *forward, *joint; Plan *plan; Population *pop; Exec *exec; } Net;

static inline Err *net_start(const Net *n)
{
    float *w = mdr_alloc((size_t)n->pop->stride * sizeof *w);
    Err *e = NULL;
    for (int32_t m = 0; m < n->pop->n && !e; m++) {
        for (int32_t i = 0; i < mdr_exec_info(n->plan).n_param; i++) {
            const ParamAttr *a = mdr_exec_param(n->plan, i);
            double *x = mdr_alloc((size_t)mdr_numel(a->shape) * sizeof *x);
            mdr_model_init(a, a->shape, INIT_MAD_LAB, BACKBONE_LM, (uint64_t)m + 1, x);
            for (int64_t k = 0; k < mdr_numel(a->shape); k++) w[mdr_exec_param_offset(n->plan, i) + k] = (float)x[k];
            mdr_free(x);
        }
        n->pop->hyper[m] = (Hyper){1e-3, 0, 0.9, 0.999, 1e-8, 0, 1};
        e = mdr_exec_population_put(n->pop, POP_PARAM, m, w);
    }
    mdr_free(w);
    return e;
}

/* On the CPU a pool, on a GPU its Accel. slice_rows: of PlanSpec. */
static inline Err *net_open(Net *n, const ModelSpec *m, const DeviceDef *device, int32_t slice_rows, int32_t members, Pool *pool, Accel *accel)
{
    PlanSpec ps = {.device = device, .batch = BATCH, .first_grad = 1, .update = "adamw", .slice_rows = slice_rows};
    MDR_TRY(mdr_model_graph(m, &n->forward));
    MDR_TRY(mdr_model_lower(n->forward, mdr_exec_has, mdr_exec_fuse, (void *)(uintptr_t)device, true, &n->joint));
    MDR_TRY(mdr_exec_plan(n->joint, &ps, &n->plan));
    MDR_TRY(mdr_exec_population_new(n->plan, accel, members, &n->pop));
    if (accel) MDR_TRY(mdr_exec_open_accel(n->plan, accel, members, &n->exec));
    else MDR_TRY(mdr_exec_open(n->plan, pool, members, &n->exec));
    return net_start(n);
}
static inline void net_close(Net *n)
{
    mdr_exec_close(n->exec);
    mdr_exec_population_free(n->pop);
    mdr_exec_plan_free(n->plan);
    mdr_ir_graph_free(n->joint);
    mdr_ir_graph_free(n->forward);
}

/* One batch of a setting, shared by all members: tokens, then targets, [BATCH][rows] each. */
static inline Err *net_batch(const TaskDef *task, const TaskParams *p, int32_t *tokens)
{
    int32_t rows = task->rows(p);
    Dataset *d = NULL;
    MDR_TRY(mdr_task_open(task, p, SPLIT_TRAIN, 1, &d));
    for (int32_t i = 0; i < BATCH; i++) mdr_task_example(d, i, tokens + i * rows, tokens + (BATCH + i) * rows);
    mdr_task_close(d);
    return NULL;
}
#endif
