/* train's own business. */
#ifndef MDR_TRAIN_INTERNAL_H
#define MDR_TRAIN_INTERNAL_H
#include "train/train.h"

typedef struct Member {
    const TrialSpec *spec;
    Dataset *data[SPLIT_COUNT];
    TrialResult result;
    bool training;
    double loss, epoch_loss;              /* last step's; summed over the epoch's steps so far                           */
    uint64_t order_seed;
} Member;

struct Trainer {
    const TrialSpec *first;               /* specs agree in everything that shapes the run                               */
    int32_t n;
    Member *member;
    Pool *pool;
    Graph *forward, *joint, *eval;
    Plan *plan, *eval_plan;
    Exec *exec, *eval_exec;
    Population *pop;
    int32_t rows, batch, eval_batch;
    bool own_data;                        /* members differ in data: tokens [n][B][rows]                                  */
    int32_t *tokens, *targets, *order;    /* [n or 1][batch][rows]; order: [n or 1][examples] of the epoch under way      */
    void *inv_count;                      /* [n] float                                                                   */
    int64_t order_epoch, step, total, epoch_steps;
    double clock_start, clock_before;     /* seconds spent before a resume                                               */
};

/* batch.c: fills tokens, targets and inv_count of members' rows; returns the number of sequences. */
int32_t mdr_train_batch(Trainer *t, Split split, int64_t step_in_epoch);
double mdr_train_rate(const TrainParams *p, int64_t step, int64_t total, int64_t epoch_steps);    /* schedule.c; step from 0 */
/* metrics.c: one batch's class counts [3][V] -> plain and macro accuracy. */
void mdr_train_accuracy(const double *counts, int32_t vocab, double *plain, double *macro);
#endif
