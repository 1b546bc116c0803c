/* Rows brought in and out of a scan's body (move.h). A step's rows are few: a thread an element, all members and sequences at once. */
#include "exec/move.h"
#include "op/cuda.h"
#include <string.h>

enum { MOVE_THREADS = 256, WORDS = 512 };

static __global__ void __launch_bounds__(MOVE_THREADS) move(const int32_t *n_seq, int32_t most, bool add, Arg to, Arg from, uint32_t rows, uint32_t cols)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    const uint32_t i = blockIdx.x * MOVE_THREADS + threadIdx.x, one = rows * cols, s = i / one, k = i % one, r = k / cols, c = k % cols;
    if (s >= (uint32_t)most || s >= (uint32_t)n_seq[m]) return;
    const int64_t at = arg_row(to, m, s, r) + c, of = arg_row(from, m, s, r) + c;
    if (add && to.size == 8) ((double *)to.data)[at] += ((const double *)from.data)[of];
    else if (add) arg_put(to, at, arg_get(to, at) + arg_get(from, of));
    else if (to.size == 8) ((uint64_t *)to.data)[at] = from.data ? ((const uint64_t *)from.data)[of] : 0;
    else if (to.size == 4 && from.size != 2) ((uint32_t *)to.data)[at] = from.data ? ((const uint32_t *)from.data)[of] : 0;   /* token numbers, too */
    else arg_put(to, at, from.data ? arg_get(from, of) : 0.0f);
}
extern "C" void mdr_cuda_move(void *stream, const int32_t *n_seq, Extent e, bool add, const Arg *to, const Arg *from, int64_t rows, int64_t cols)
{
    if (e.n_seq * rows * cols > 0)
        MDR_LAUNCH(move, mdr_grid(mdr_ceil_div(e.n_seq * rows * cols, MOVE_THREADS), 1, e.n_member), dim3(MOVE_THREADS), 0, stream, n_seq, e.n_seq, add, *to,
                   *from, (uint32_t)rows, (uint32_t)cols);
}

/* The words travel as an argument: a recorded step keeps them, whatever becomes of the host's memory. */
struct Words { uint32_t x[WORDS]; };
static __global__ void __launch_bounds__(WORDS) write_words(uint32_t *to, Words w, int32_t n)
{
    mdr_begin();
    if ((int32_t)threadIdx.x < n) to[threadIdx.x] = w.x[threadIdx.x];
}
extern "C" void mdr_cuda_write(void *stream, void *to, const void *from, int64_t n)
{
    for (int64_t i = 0; i < n; i += WORDS) {
        const int32_t now = (int32_t)(n - i < (int64_t)WORDS ? n - i : (int64_t)WORDS);
        Words w;
        memset(&w, 0, sizeof w);
        memcpy(w.x, (const uint32_t *)from + i, (size_t)now * 4);
        MDR_LAUNCH(write_words, dim3(1), dim3(WORDS), 0, stream, (uint32_t *)to + i, w, now);
    }
}
