/* Members' parameters and optimiser state: flat vectors with one offset table. */
#include "exec/internal.h"
#include <string.h>

Err *mdr_exec_population_new(const Plan *p, int32_t n, Population **out)
{
    Population *pop = mdr_alloc(sizeof *pop);
    size_t bytes = (size_t)(p->stride * p->real) * (size_t)n;
    *out = NULL;
    pop->n = n;
    pop->stride = p->stride;
    pop->real_size = p->real;
    pop->hyper = mdr_alloc((size_t)n * sizeof *pop->hyper);
    pop->alive = mdr_alloc((size_t)n * sizeof *pop->alive);
    for (int32_t i = 0; i < n; i++) pop->alive[i] = true;
    void **part[] = {&pop->param, &pop->m, &pop->v};
    for (int i = 0; i < MDR_COUNT(part); i++) {
        Err *e = mdr_alloc_big(bytes + 64, part[i]);
        if (e) { mdr_exec_population_free(pop); return mdr_err_wrap(e, "%d members of %lld parameters", n, (long long)p->stride); }
        memset(*part[i], 0, bytes + 64);
    }
    *out = pop;
    return NULL;
}

void mdr_exec_population_free(Population *pop)
{
    if (!pop) return;
    mdr_free_big(pop->param);
    mdr_free_big(pop->m);
    mdr_free_big(pop->v);
    mdr_free(pop->hyper);
    mdr_free(pop->alive);
    mdr_free(pop);
}
