/* The table of ops: finds declarations and kernels in the arrays that scripts/tables.sh makes from the file names. It decides
 * which kernel serves a node; it knows nothing of plans or memory. */
#include "op/op.h"
#include <string.h>

extern const OpRow *const mdr_op_files[];            /* one array a file of src/op, sorted by file name; ends with NULL     */
extern const CpuRow *const mdr_cpu_files[];          /* likewise *.cpu.c; empty where the compiler's target is not x86-64   */
extern const CudaRow *const mdr_cuda_files[];        /* likewise *.cu; empty in a build without CUDA                        */

const OpRow *mdr_op_at(int i) {
    if (i < 0) return NULL;
    for (const OpRow *const *f = mdr_op_files; *f; f++)
        for (const OpRow *r = *f; r->def; r++)
            if (i-- == 0) return r;
    return NULL;
}

const OpRow *mdr_op_find(const char *name) {
    for (const OpRow *const *f = mdr_op_files; *f; f++)
        for (const OpRow *r = *f; r->def; r++)
            if (strcmp(r->def->name, name) == 0) return r;
    return NULL;
}

/* A kernel that wants an input prepared once a step can only be had where that input is the same for a whole step. */
static bool can_prepare(const Kernel *k, const Node *n) {
    if (!k->prep.run || k->prep.in < 0) return true;
    if (k->prep.in >= n->n_in || n->in[k->prep.in].node < 0) return false;
    uint8_t phase = n->in_type[k->prep.in].phase;
    return phase == PH_CONST || phase == PH_STEP;
}

const Kernel *mdr_op_fast(const Node *n) {
    for (const CpuRow *const *f = mdr_cpu_files; *f; f++)
        for (const CpuRow *r = *f; r->op; r++)
            if (strcmp(r->op, n->op->name) == 0 && (!r->applies || r->applies(n)) && can_prepare(&r->kernel, n))
                return &r->kernel;
    return NULL;
}

const CudaRow *mdr_op_cuda(const Node *n) {
    for (const CudaRow *const *f = mdr_cuda_files; *f; f++)
        for (const CudaRow *r = *f; r->op; r++)
            if (strcmp(r->op, n->op->name) == 0 && (!r->applies || r->applies(n)) && can_prepare(&r->kernel, n)) return r;
    return NULL;
}

bool mdr_op_has_cuda(const OpDef *op) {
    for (const CudaRow *const *f = mdr_cuda_files; *f; f++)
        for (const CudaRow *r = *f; r->op; r++)
            if (strcmp(r->op, op->name) == 0) return true;
    return false;
}

const Kernel *mdr_op_kernel(const Node *n, Device d) {
    if (d == DEV_CUDA) {
        const CudaRow *cuda = mdr_op_cuda(n);
        return cuda ? &cuda->kernel : NULL;
    }
    if (d == DEV_CPU && mdr_cpu_avx2()) {
        const Kernel *fast = mdr_op_fast(n);
        if (fast) return fast;
    }
    const OpRow *r = mdr_op_find(n->op->name);
    if (!r) return NULL;
    const Kernel *k = d == DEV_REF64 ? &r->ref64 : &r->ref32;
    return k->run ? k : NULL;
}
