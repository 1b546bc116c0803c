/* conv_direct and conv_direct_dh on CUDA: cuda_conv.h. There they are what conv_long expands to where compositions are asked for. */
#include "op/cuda_conv.h"

static void conv_direct(const Call *c, int64_t, int64_t) { run_direct(c); }
static void conv_direct_dh(const Call *c, int64_t, int64_t) { run_direct_dh(c); }

extern "C" const CudaRow mdr_cuda_rows_conv_direct[] = {
    {"conv_direct", {conv_direct, NULL, NULL, {}}, NULL, 0, 0}, {"conv_direct_dh", {conv_direct_dh, NULL, direct_dh_scratch, {}}, NULL, 0, 0}, {}};
