/* Evaluating a graph once, everything as doubles: for tests and small uses. */
#include "exec/internal.h"
#include <string.h>

static void *convert(const double *x, int64_t n, DType t, int32_t real)
{
    int32_t size = t == DT_I32 ? 4 : t == DT_SUM ? 8 : real;
    char *y = mdr_alloc((size_t)(n * size) + 64);
    for (int64_t i = 0; i < n; i++) {
        if (t == DT_I32) ((int32_t *)(void *)y)[i] = (int32_t)x[i];
        else if (size == 4) ((float *)(void *)y)[i] = (float)x[i];
        else ((double *)(void *)y)[i] = x[i];
    }
    return y;
}

static double from_bf16(const void *x)
{
    uint16_t half;
    float whole;
    memcpy(&half, x, 2);
    uint32_t u = (uint32_t)half << 16;
    memcpy(&whole, &u, 4);
    return (double)whole;
}

static void read_output(const Exec *e, const Plan *p, const EvalSpec *spec, int32_t i, double **out)
{
    Value v = p->graph->output[i];
    out[i] = NULL;
    if (v.node < 0) return;
    const Type *t = &p->graph->node[v.node].out[v.out];
    int64_t n = mdr_numel(t->shape), cols = mdr_cols(t->shape);
    int32_t n_seq = (t->axes & MDR_AXIS_SEQ) ? spec->n_seq : 1;
    const Slot *s = &p->output[i];
    double *y = out[i] = mdr_alloc((size_t)(spec->n_member * n_seq * n) * sizeof *y + 8);
    for (int32_t m = 0; m < spec->n_member; m++)
        for (int32_t q = 0; q < n_seq; q++)
            for (int64_t r = 0; r < n / cols; r++)
                for (int64_t c = 0; c < cols; c++) {
                    const void *x = (const char *)mdr_exec_output(e, m, i) + (q * s->seq + r * s->ld + c) * s->size;
                    if (t->dtype == DT_I32) *y++ = *(const int32_t *)x;
                    else *y++ = s->size == 2 ? from_bf16(x) : s->size == 4 ? (double)*(const float *)x : *(const double *)x;
                }
}

static Err *eval(const Graph *g, const EvalSpec *spec, const Plan *p, Pool *pool, double **output)
{
    Population *pop = NULL;
    Exec *e = NULL;
    int32_t node[MAX_INPUTS], n_in = mdr_ir_inputs(g, node, MAX_INPUTS);
    StepInput input[MAX_INPUTS] = {{0}};
    if (n_in > MAX_INPUTS) return MDR_ERR_MACHINE("too many inputs: %d", n_in);
    MDR_TRY(mdr_exec_population_new(p, spec->accel, spec->n_member, &pop));
    const double *w = spec->param;
    double *vector = mdr_alloc((size_t)p->stride * sizeof *vector + 8);
    Err *err = NULL;
    for (int32_t m = 0; m < spec->n_member && !err; m++) {
        for (int32_t i = 0; i < p->n_param; i++)
            for (int64_t j = 0; j < mdr_numel(p->param[i]->shape); j++, w++) vector[p->param_at[i] + j] = *w;
        void *as = convert(vector, p->stride, DT_REAL, p->real);
        err = mdr_exec_population_put(pop, POP_PARAM, m, as);
        mdr_free(as);
    }
    mdr_free(vector);
    for (int32_t i = 0; i < n_in; i++) {
        const Type *t = &g->node[node[i]].out[0];
        int64_t one = mdr_numel(t->shape) * ((t->axes & MDR_AXIS_SEQ) ? spec->n_seq : 1);
        bool own = t->axes & MDR_AXIS_MEMBER;
        input[i].data = convert(spec->input[i], one * (own ? spec->n_member : 1), t->dtype, p->real);
        input[i].member = own ? one : 0;
    }
    if (!err) err = spec->accel ? mdr_exec_open_accel(p, spec->accel, spec->n_member, &e) : mdr_exec_open(p, pool, spec->n_member, &e);
    if (!err) {
        mdr_exec_poison(e, true);
        err = mdr_exec_step(e, pop, input, spec->n_seq, false);
    }
    for (int32_t i = 0; !err && i < g->n_output; i++) read_output(e, p, spec, i, output);
    for (int32_t i = 0; i < n_in; i++) mdr_free((void *)(uintptr_t)input[i].data);
    mdr_exec_close(e);
    mdr_exec_population_free(pop);
    return err;
}

Err *mdr_exec_eval(const Graph *g, const EvalSpec *spec, double **output)
{
    Plan *p = NULL;
    Pool *pool = NULL;
    DeviceDef device = *spec->device;
    device.whole = true;
    PlanSpec ps = {.device = &device, .batch = spec->n_seq, .first_grad = -1};
    for (int32_t i = 0; i < g->n_output; i++) output[i] = NULL;
    MDR_TRY(mdr_exec_plan(g, &ps, &p));
    Err *err = mdr_pool_open(1, &pool);
    if (!err) err = eval(g, spec, p, pool, output);
    mdr_pool_close(pool);
    mdr_exec_plan_free(p);
    return err;
}
