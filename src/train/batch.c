/* Batches: drawn afresh for every step from counter-based streams, by all workers, so that nothing is stored. The order of an
 * epoch is a shuffle of the example numbers, a function of (order stream, epoch). */
#include "train/internal.h"

typedef struct Draw { Trainer *t; Split split; int64_t first; int32_t n; int32_t stride; } Draw;

static void shuffle_epoch(Trainer *t, int64_t epoch)
{
    int64_t size = mdr_task_size(t->member[0].data[SPLIT_TRAIN]);
    if (t->order_epoch == epoch) return;
    for (int32_t m = 0; m < (t->own_data ? t->n : 1); m++) mdr_train_order(t->member[m].order_seed, epoch, size, t->order + m * size);
    t->order_epoch = epoch;
}

static void draw_job(void *ctx, int worker)
{
    Draw *d = ctx;
    Trainer *t = d->t;
    double begin = mdr_clock();
    int32_t copies = t->own_data ? t->n : 1, all = copies * d->n, w = mdr_pool_size(t->pool);
    for (int32_t i = (int32_t)((int64_t)all * worker / w); i < (int64_t)all * (worker + 1) / w; i++) {
        int32_t m = i / d->n, k = i % d->n;
        const Dataset *data = t->member[m].data[d->split];
        int64_t example = d->first + k;
        if (d->split == SPLIT_TRAIN) example = t->order[m * mdr_task_size(data) + example];
        int64_t at = ((int64_t)m * d->stride + k) * t->rows;
        mdr_task_example(data, example, t->tokens + at, t->targets + at);
    }
    mdr_exec_trace_add(d->split == SPLIT_TRAIN ? t->exec : t->eval_exec, worker, -1, "data", begin);
}

int32_t mdr_train_batch(Trainer *t, Split split, int64_t index)
{
    int32_t batch = split == SPLIT_TRAIN ? t->batch : t->eval_batch;
    int64_t size = mdr_task_size(t->member[0].data[split]), first = index * batch;
    if (split == SPLIT_TRAIN) shuffle_epoch(t, t->walk.step / t->walk.epoch_steps);
    Draw d = {t, split, first, (int32_t)(size - first < batch ? size - first : batch), batch};
    mdr_pool_run(t->pool, draw_job, &d);
    float *inv = t->inv_count;
    for (int32_t m = 0; m < (t->own_data ? t->n : 1); m++) {
        int64_t wanted = 0, at = (int64_t)m * batch * t->rows;
        for (int64_t i = 0; i < (int64_t)d.n * t->rows; i++) wanted += t->targets[at + i] >= 0;
        inv[m] = wanted ? (float)(1.0 / (double)wanted) : 0.0f;
    }
    for (int32_t m = 1; !t->own_data && m < t->n; m++) inv[m] = inv[0];
    return d.n;
}
