/* Members' parameters and optimiser state: flat vectors with one offset table. */
#include "exec/internal.h"
#include <string.h>

static Err *take(const Population *pop, size_t bytes, void **out)
{
    if (pop->accel) {
        MDR_TRY(mdr_accel_alloc(pop->accel, (int64_t)bytes, out));
        return mdr_accel_fill(pop->accel, *out, 0, (int64_t)bytes);
    }
    MDR_TRY(mdr_alloc_big(bytes, out));
    memset(*out, 0, bytes);
    return NULL;
}
static void give(const Population *pop, void *p)
{
    if (pop->accel) mdr_accel_free(pop->accel, p);
    else mdr_free_big(p);
}

int32_t mdr_exec_vectors(const Plan *p) { return p->spec.update ? 3 : 1; }
Err *mdr_exec_population_new(const Plan *p, Accel *accel, int32_t n, Population **out)
{
    Population *pop = mdr_alloc(sizeof *pop);
    size_t bytes = (size_t)(p->stride * p->real) * (size_t)n;
    *out = NULL;
    pop->n = n;
    pop->accel = accel;
    pop->stride = p->stride;
    pop->real_size = p->real;
    pop->hyper = mdr_alloc((size_t)n * sizeof *pop->hyper);
    pop->alive = mdr_alloc((size_t)n * sizeof *pop->alive);
    for (int32_t i = 0; i < n; i++) pop->alive[i] = true;
    void **part[] = {&pop->param, &pop->m, &pop->v};
    for (int i = 0; i < mdr_exec_vectors(p); i++) {
        Err *e = take(pop, bytes + 64, part[i]);
        if (e) { mdr_exec_population_free(pop); return accel ? e : mdr_err_wrap(e, "%d members of %lld parameters", n, (long long)p->stride); }
    }
    *out = pop;
    return NULL;
}

void mdr_exec_population_free(Population *pop)
{
    if (!pop) return;
    give(pop, pop->param);
    give(pop, pop->m);
    give(pop, pop->v);
    mdr_free(pop->hyper);
    mdr_free(pop->alive);
    mdr_free(pop);
}

static char *vector(const Population *pop, PopPart part, int32_t member, int64_t *bytes)
{
    void *const of[] = {[POP_PARAM] = pop->param, [POP_M] = pop->m, [POP_V] = pop->v};
    *bytes = pop->stride * pop->real_size;
    return (char *)of[part] + member * *bytes;
}

static Err *has_part(const Population *pop, PopPart part)
{
    return part == POP_PARAM || pop->m ? NULL : MDR_ERR_MACHINE("a population without optimiser state: its plan has no update");
}

Err *mdr_exec_population_put(Population *pop, PopPart part, int32_t member, const void *x)
{
    int64_t bytes;
    MDR_TRY(has_part(pop, part));
    char *to = vector(pop, part, member, &bytes);
    if (pop->accel) return mdr_accel_upload(pop->accel, to, x, bytes);
    memcpy(to, x, (size_t)bytes);
    return NULL;
}

Err *mdr_exec_population_move(Population *pop, int32_t from, int32_t to)
{
    for (int part = POP_PARAM; part <= (pop->m ? POP_V : POP_PARAM); part++) {
        int64_t bytes;
        char *x = vector(pop, (PopPart)part, from, &bytes), *y = vector(pop, (PopPart)part, to, &bytes);
        if (pop->accel) MDR_TRY(mdr_accel_copy(pop->accel, y, bytes, x, bytes, bytes, 1));
        else memcpy(y, x, (size_t)bytes);
    }
    pop->hyper[to] = pop->hyper[from];
    pop->alive[to] = pop->alive[from];
    return NULL;
}

Err *mdr_exec_population_get(const Population *pop, PopPart part, int32_t member, void *x)
{
    int64_t bytes;
    MDR_TRY(has_part(pop, part));
    const char *from = vector(pop, part, member, &bytes);
    if (pop->accel) return mdr_accel_download(pop->accel, x, from, bytes);
    memcpy(x, from, (size_t)bytes);
    return NULL;
}
