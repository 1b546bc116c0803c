/* Does a device with its own memory compute what the double reference computes? Every op's cases, every primitive, both backbones, odd models:
 * values and gradients of two members at once, and each member alone with the bits it has among others. */
#ifndef MDR_AGREE_H
#define MDR_AGREE_H
#include "exec/exec.h"
#include "model/model.h"

typedef struct Agreement {
    const char *kind, *name;              /* "op", "primitive", "backbone", "model"; borrowed                             */
    int32_t cases;
    double worst;                         /* largest error of an output as a share of what is allowed                     */
    const char *at;                       /* the case where that was                                                     */
    char why[256];                        /* "": agrees                                                                  */
} Agreement;
typedef void AgreeFn(void *ctx, const Agreement *a);
/* Calls `each` for everything in turn. device: &mdr_exec_cuda or &mdr_exec_cuda_bf16. What is allowed: 8 e sqrt(n + 16) with e the
 * rounding of the type and n the longest sum (float), 2 e sqrt(n + 16) for bf16, whose e bounds every value once stored: the largest
 * error over the largest value. And root mean square over root mean square: 64 e, and 8 e for bf16; for whole models
 * half as much again. */
MDR_API Err *mdr_model_agree(const DeviceDef *device, Accel *accel, AgreeFn *each, void *ctx);
#endif
