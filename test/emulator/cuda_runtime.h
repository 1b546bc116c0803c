/* Enough of CUDA for our .cu files, on one thread of this processor: compile with
 *     g++ -x c++ -std=c++20 -DMDR_CUDA -DMDR_CUDA_EMULATED -Itest/emulator
 * emu_types.h   qualifiers, vector types, threadIdx and its like
 * emu_device.h  what kernels call: barriers, shuffles, votes, matrix products, arithmetic
 * emu_host.h    what the host calls: memory, streams, recorded graphs, launches
 * Threads of a block are fibers (emulator.cpp), blocks run one after another, everything enqueued runs at once. Device memory is
 * host memory between inaccessible pages. Each thread of a kernel must call mdr_begin() once; until the first one does, a launch cannot
 * touch device memory. Environment:
 *     MDR_EMU_ORDER=forward|backward|shuffle   order of blocks, warps and lanes between barriers; else forward and backward by turns
 *     MDR_EMU_COPY=early|late                  copy_16 takes effect at once, or only in copy_wait; else by turns
 *     MDR_EMU_LATE_SIDES=0|1                   in a recorded graph a forked stream's work waits until it is joined; else in every other one
 *     MDR_EMU_MEMORY=bytes                     device memory (4 GiB)
 *     MDR_EMU_DEVICES=n                        number of devices (1)
 *     MDR_EMU_HIDE=0|1                         the host cannot touch device memory; else up to 64 MiB of it
 *     MDR_EMU_FAIL_AFTER=n                     the n-th launch fails and with it everything after
 * Not here: more than one stream at a time, textures, cooperative groups, atomics of floats, spinning on memory without emu_yield (it would hang). */
#ifndef EMU_CUDA_RUNTIME_H
#define EMU_CUDA_RUNTIME_H
#include "emu_types.h"
#include "emu_device.h"
#include "emu_host.h"
#endif
