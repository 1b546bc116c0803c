/* A population none of whose trials wait any more shrinks as its trials end. A member at rest is not free: each of its blocks still waits for
 * a place on a processor, where large kernels have room for one. At L 32 24 of 30 at rest took as long as the 6 at work, a quarter of a member
 * each; at L 1024 a group whose trials ended early took some 1.15 times what as many members alone would by their pace.
 *
 * The trials in the highest slots move into the free ones, and both steps are recorded anew for as many members as are left, in the same
 * memory: to give some back would wait for all lanes. What a trial gets depends on none of this. */
#include "train/queue.h"

/* Recording takes the host some milliseconds, in which it serves no lane either. It is sure to be worth that where idle slots would have
 * taken so many rows an epoch (some 36 ms on an H200, so that idling costs 9), as no trial ends sooner. Below that, epochs are so short that
 * trials would end every few milliseconds: not before a quarter idles, which happens at most nine times on the way from 30 slots to one. */
enum { LONG_EPOCH = 1 << 21 };

int32_t mdr_train_crew_fewer(const Crew *c)
{
    int64_t n = 0, steps = INT64_MAX;
    for (int32_t m = 0; m < c->n; m++) {
        if (!c->slot[m]) continue;
        if (c->slot[m]->walk.epoch_steps < steps) steps = c->slot[m]->walk.epoch_steps;
        n++;
    }
    if (n == 0 || n == c->n || c->next < c->n_trial) return c->n;
    bool worth = 4 * n <= 3 * (int64_t)c->n || (c->n - n) * c->batch * c->rows * steps >= LONG_EPOCH;
    return worth ? (int32_t)n : c->n;
}

/* The order on the device is of the epoch under way; the host's may be anything by now, and is made anew when it is next sent. */
static Err *move(Crew *c, int32_t from, int32_t to)
{
    int32_t *order = c->order + to * c->examples;
    int64_t bytes = c->examples * (int64_t)sizeof *order, ctx_bytes = c->ctx_bytes[to];
    void *ctx = c->ctx[to];
    MDR_TRY(mdr_exec_population_move(c->pop, from, to));
    MDR_TRY(mdr_accel_copy(c->accel, order, bytes, c->order + from * c->examples, bytes, bytes, 1));
    for (int k = 0; k < SPLIT_COUNT; k++) c->host_draw[k * c->n + to] = c->host_draw[k * c->n + from];
    c->host_draw[SPLIT_TRAIN * c->n + to].order = order;
    c->ctx[to] = c->ctx[from];                            /* memory stays where it is: only whose it is changes                  */
    c->ctx_bytes[to] = c->ctx_bytes[from];
    c->ctx[from] = ctx;
    c->ctx_bytes[from] = ctx_bytes;
    c->order_epoch[to] = -1;
    c->slot[to] = c->slot[from];
    c->slot[from] = NULL;
    return NULL;
}

/* Into the first n slots, as many as there are trials. */
static Err *close_up(Crew *c, int32_t n)
{
    for (int32_t to = 0, from = n; to < n; to++) {
        if (c->slot[to]) continue;
        while (!c->slot[from]) from++;
        MDR_TRY(move(c, from, to));
    }
    for (int k = 0; k < SPLIT_COUNT; k++)
        for (int32_t m = 0; m < n; m++) c->host_draw[k * n + m] = c->host_draw[k * c->n + m];
    c->n = c->pop->n = n;
    c->splits->n = 2 * n;
    return NULL;
}

Err *mdr_train_crew_shrink(Crew *c)
{
    int32_t n = mdr_train_crew_fewer(c);
    if (n == c->n || !mdr_exec_fits(c->exec, n) || !mdr_exec_fits(c->eval, 2 * n)) return NULL;
    MDR_TRY(mdr_accel_sync(c->accel));                    /* the last to sit down may have host_draw under way                   */
    MDR_TRY(close_up(c, n));
    MDR_TRY(mdr_train_crew_send_draws(c));
    MDR_TRY(mdr_exec_narrow(c->exec, n));
    MDR_TRY(mdr_exec_narrow(c->eval, 2 * n));
    return mdr_train_crew_record(c);
}
