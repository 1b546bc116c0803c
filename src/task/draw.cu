/* Draws batches (draw.h). Each draw of a sequence waits for those before it, so one thread writes a sequence, in shared memory where a
 * few sequences fit; its warp then copies it out and counts the wanted targets. */
#include "op/cuda.h"
#include "task/compression.gen.h"
#include "task/draw.h"
#include "task/fuzzy_recall.gen.h"
#include "task/memorization.gen.h"
#include "task/recall.gen.h"
#include "task/selective_copying.gen.h"

/* Sequences of one warp take different paths, one after another, and a population has fewer sequences than the GPU has places for warps:
 * few to each, and each its own as long as a processor gets no more than some eight. */
enum { TOGETHER = 4, MOST_ALONE = 1024, MOST_SHARED = 112 * 1024 };

/* Working memory of a sequence: the most that any task of so many rows asks for, as the members are not known here. Recall has
 * (rows + 1)/2 pairs at most; fuzzy recall's table is no larger than one of that many. */
static int64_t work_of(int32_t rows)
{
    int64_t pairs = (rows + 1) / 2;
    return shown_slots(INT64_MAX, pairs) + pairs;
}

/* Shared memory of a sequence in numbers (odd: neighbours stand in different banks), 0: too long. */
static int64_t shared_of(int32_t rows)
{
    int64_t n = (work_of(rows) + 2 * (int64_t)rows) | 1;
    return n * TOGETHER * (int64_t)sizeof(int32_t) <= MOST_SHARED ? n : 0;
}

static __device__ __forceinline__ void generate(const DrawMember *member, int64_t at, int32_t *work, int32_t *tokens, int32_t *targets)
{
    const DrawMember d = *member;
    Rng r = rng_start(d.seed, (uint64_t)(d.order ? d.order[at] : at));
    switch (d.generator) {
    case DRAW_COMPRESSION: compression_generate(&d.params, d.ctx, d.split, &r, work, tokens, targets); break;
    case DRAW_FUZZY_RECALL: fuzzy_generate(&d.params, d.ctx, d.split, &r, work, tokens, targets); break;
    case DRAW_MEMORIZATION: memorization_generate(&d.params, d.ctx, d.split, &r, work, tokens, targets); break;
    case DRAW_RECALL: recall_generate(&d.params, d.ctx, d.split, &r, work, tokens, targets); break;
    case DRAW_SELECTIVE_COPYING: selective_copying_generate(&d.params, d.ctx, d.split, &r, work, tokens, targets); break;
    }
}

/* A warp draws `together` sequences. wanted [n_member][batch]. shared 0: work holds what else is in shared memory. */
static __global__ void draw(int32_t batch, int32_t rows, const DrawMember *members, const int32_t *first, const int32_t *n_seq, int32_t *tokens,
                            int32_t *targets, int32_t *wanted, int32_t *work, int32_t work_size, int32_t shared, int32_t together)
{
    mdr_begin();
    MDR_SHARED(int32_t, room);
    const int64_t m = blockIdx.z;
    const int32_t begin = (int32_t)blockIdx.x * together, end = min(begin + together, n_seq[m]), lane = (int32_t)threadIdx.x;
    if (begin >= end) return;
    tokens += (m * batch + begin) * rows;
    targets += (m * batch + begin) * rows;
    if (begin + lane < end) {
        int32_t *mine = shared ? room + lane * shared : work + (m * batch + begin + lane) * work_size;
        int32_t *x = shared ? mine + work_size : tokens + (int64_t)lane * rows, *y = shared ? x + rows : targets + (int64_t)lane * rows;
        generate(members + m, (int64_t)first[m] + begin + lane, mine, x, y);
    }
    __syncwarp();
    for (int32_t k = 0; k < end - begin; k++, tokens += rows, targets += rows) {
        const int32_t *x = shared ? room + k * shared + work_size : tokens, *y = shared ? x + rows : targets;
        int32_t n = 0;
        for (int32_t i = lane; i < rows; i += 32) {
            n += y[i] >= 0;
            if (!shared) continue;
            tokens[i] = x[i];
            targets[i] = y[i];
        }
        n = __reduce_add_sync(0xffffffffu, n);
        if (lane == 0) wanted[m * batch + begin + k] = n;
    }
}

/* A warp a member. */
static __global__ void count(int32_t batch, const int32_t *n_seq, const int32_t *wanted, float *inv_count, int32_t *drawn)
{
    mdr_begin();
    const int64_t m = blockIdx.z;
    int32_t n = 0;
    for (int32_t k = (int32_t)threadIdx.x; k < n_seq[m]; k += 32) n += wanted[m * batch + k];
    n = __reduce_add_sync(0xffffffffu, n);
    if (threadIdx.x != 0) return;
    inv_count[m] = n ? (float)(1.0 / (double)n) : 0.0f;
    drawn[m] = n_seq[m];
}

extern "C" int64_t mdr_cuda_draw_work(int32_t n_member, int32_t batch, int32_t rows)
{
    return (int64_t)n_member * batch * (1 + (shared_of(rows) ? 0 : work_of(rows))) * (int64_t)sizeof(int32_t);
}

extern "C" void mdr_cuda_draw(void *stream, int32_t n_member, int32_t batch, int32_t rows, const DrawMember *members, const int32_t *first,
                              const int32_t *n_seq, DrawBatch out, int32_t *work)
{
    const int32_t together = (int64_t)n_member * batch <= MOST_ALONE ? 1 : TOGETHER;
    int64_t shared = shared_of(rows), bytes = shared * together * (int64_t)sizeof(int32_t);
    int32_t *wanted = work;
    MDR_ALLOW_SHARED(draw, MOST_SHARED);
    MDR_DIVIDE_AS_LARGE(draw);
    MDR_DIVIDE_AS_LARGE(count);
    MDR_LAUNCH(draw, mdr_grid(mdr_ceil_div(batch, together), 1, n_member), dim3(32), (size_t)bytes, stream, batch, rows, members, first, n_seq,
               out.tokens, out.targets, wanted, work + (int64_t)n_member * batch, (int32_t)work_of(rows), (int32_t)shared, together);
    MDR_LAUNCH(count, mdr_grid(1, 1, n_member), dim3(32), 0, stream, batch, n_seq, wanted, out.inv_count, out.n_seq);
}
