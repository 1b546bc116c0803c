/* A scan on a device with its own memory: the walk is loop.c's, here are its hands. Everything is only enqueued, so the whole scan
 * becomes part of the recorded step. There the lane is the first part of POST and nothing is folded. */
#include "exec/internal.h"

#ifdef MDR_CUDA
#include "exec/move.h"

static void move(const Frame *f, bool add, const Arg *to, const Arg *from, Extent e, int64_t rows, int64_t cols)
{
    mdr_cuda_move(f->stream, f->n_seq, e, add, to, from, rows, cols);
}

/* Tables of the body are written anew each time: between two runs of the scan its memory serves others. */
static void begin(const Plan *p, Frame *f, int32_t *always)
{
    static const int32_t one = 1;
    Frame all = *f;
    Arg post = {f->base[PL_POST], p->size[PL_POST] / 4, 0, p->size[PL_POST] / 4, 4};
    char *table = mdr_alloc((size_t)p->size[PL_CONST] + 1);
    mdr_exec_consts(p, table);
    for (int32_t i = 0; i < p->n_table; i++)
        mdr_cuda_write(f->stream, f->base[PL_CONST] + p->table[i].at, table + p->table[i].at, mdr_numel(p->table[i].attr->shape));
    mdr_free(table);
    mdr_cuda_write(f->stream, always, &one, 1);
    f->base[PL_LANE] = all.base[PL_LANE] = f->base[PL_POST];
    all.extent = (Extent){1, 1};
    all.n_seq = all.one = always;                     /* what all members share does not wait for the first of them           */
    mdr_exec_phase(p, PH_CONST, &all);
    mdr_exec_phase(p, PH_STEP, f);
    move(f, false, &post, &(Arg){0}, (Extent){f->extent.n_member, 1}, 1, post.ld);
}

static void fold(const Plan *p, Frame *f) { (void)p, (void)f; }

const LoopHands mdr_exec_loop_accel = {move, begin, fold};
#else
const LoopHands mdr_exec_loop_accel = {0};            /* never reached: no plan is for such a device                          */
#endif
