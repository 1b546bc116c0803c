/* The devices that are always there: plain reference in float and double, and the CPU with its fast kernels. */
#include "exec/internal.h"

static const Kernel *kernel_ref32(const Node *n) { return mdr_op_kernel(n, DEV_REF32); }
static const Kernel *kernel_ref64(const Node *n) { return mdr_op_kernel(n, DEV_REF64); }
static const Kernel *kernel_cpu(const Node *n) { return mdr_op_kernel(n, DEV_CPU); }

const DeviceDef mdr_exec_cpu = {"cpu", false, false, kernel_cpu};
const DeviceDef mdr_exec_ref32 = {"ref32", false, true, kernel_ref32};
const DeviceDef mdr_exec_ref64 = {"ref64", true, true, kernel_ref64};

bool mdr_exec_storage(const OpDef *op)
{
    return op == &mdr_ir_op_param || op == &mdr_ir_op_input || op == &mdr_ir_op_const;
}

bool mdr_exec_has(const OpDef *op, void *device)
{
    if (mdr_exec_storage(op) || op == &mdr_ir_op_scan || op == &mdr_ir_op_scan_grad) return true;
    Node n = {.op = op};
    return ((const DeviceDef *)device)->kernel(&n) != NULL;
}

bool mdr_exec_has_composed(const OpDef *op, void *device) { return !op->compose && mdr_exec_has(op, device); }
