/* Learning rate at a step: constant or cosine (Loshchilov & Hutter 2017, one period), stepped once an epoch or every step,
 * with optional linear warm-up. */
#include "base/real_math.h"
#include "train/internal.h"

double mdr_train_rate(const TrainParams *p, int64_t step, int64_t total, int64_t epoch_steps)
{
    if (step < p->warmup_steps) return p->lr * (double)(step + 1) / (double)p->warmup_steps;
    if (p->scheduler == SCHEDULER_CONSTANT) return p->lr;
    double done = (double)step / (double)total;
    if (p->scheduler == SCHEDULER_COSINE) {
        int64_t epochs = (total + epoch_steps - 1) / epoch_steps;
        done = (double)(step / epoch_steps) / (double)epochs;
    }
    double sine, cosine;
    d_sincos(3.14159265358979323846 * done, &sine, &cosine);
    return p->min_lr + (p->lr - p->min_lr) * 0.5 * (1.0 + cosine);
}
