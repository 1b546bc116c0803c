/* The devices: plain reference in float and double, the CPU with its fast kernels, and CUDA in its two precisions. */
#include "exec/internal.h"

static const Kernel *kernel_ref32(const Node *n) { return mdr_op_kernel(n, DEV_REF32); }
static const Kernel *kernel_ref64(const Node *n) { return mdr_op_kernel(n, DEV_REF64); }
static const Kernel *kernel_cpu(const Node *n) { return mdr_op_kernel(n, DEV_CPU); }
static const Kernel *kernel_cuda(const Node *n) { return mdr_op_kernel(n, DEV_CUDA); }

const DeviceDef mdr_exec_cpu = {.name = "cpu", .kernel = kernel_cpu};
const DeviceDef mdr_exec_ref32 = {.name = "ref32", .whole = true, .kernel = kernel_ref32};
const DeviceDef mdr_exec_ref64 = {.name = "ref64", .real64 = true, .whole = true, .kernel = kernel_ref64};
const DeviceDef mdr_exec_cuda = {.name = "cuda", .whole = true, .kernel = kernel_cuda, .accel = true};
const DeviceDef mdr_exec_cuda_bf16 = {.name = "cuda", .whole = true, .kernel = kernel_cuda, .accel = true, .half = true};

bool mdr_exec_storage(const OpDef *op)
{
    return op == &mdr_ir_op_param || op == &mdr_ir_op_input || op == &mdr_ir_op_const;
}

bool mdr_exec_has(const OpDef *op, void *device)
{
    const DeviceDef *d = device;
    if (mdr_exec_storage(op) || op == &mdr_ir_op_scan || op == &mdr_ir_op_scan_grad) return true;
    Node n = {.op = op};
    if (op->match && !d->half) return false;               /* fused ops: of the one device that has kernels for them          */
    return d->accel ? mdr_op_has_cuda(op) : d->kernel(&n) != NULL;
}

bool mdr_exec_has_composed(const OpDef *op, void *device) { return !op->compose && mdr_exec_has(op, device); }

static bool has_kernel(const Node *n) { return mdr_op_cuda(n) != NULL; }
void mdr_exec_fuse(Builder *b, void *device)
{
    const DeviceDef *d = device;
    int n = 0, all = 0;
    while (mdr_op_at(all)) all++;
    const OpDef **rule = mdr_alloc((size_t)(all + 1) * sizeof *rule);
    for (int i = 0; d->half && i < all; i++) {
        const OpDef *op = mdr_op_at(i)->def;
        if (op->match && mdr_op_has_cuda(op)) rule[n++] = op;
    }
    if (n > 0) mdr_ir_fuse(b, n, rule, has_kernel);
    mdr_free(rule);
}
