/* train's own business. */
#ifndef MDR_TRAIN_INTERNAL_H
#define MDR_TRAIN_INTERNAL_H
#include "train/train.h"

enum { MDR_EVAL_BATCH = 128 };             /* means are weighted by sequences, but perplexity depends on it                */

typedef struct Member {
    const TrialSpec *spec;
    Dataset *data[SPLIT_COUNT];
    TrialResult result;
    bool training;
    double loss, epoch_loss;              /* last step's; summed over the epoch's steps so far                           */
    uint64_t order_seed;
} Member;
typedef struct Walk { int64_t step, total, epoch_steps; } Walk;                /* steps made; of the trial; of an epoch   */
typedef struct TrainGraphs { Graph *forward, *joint, *eval; Plan *plan, *eval_plan; } TrainGraphs;   /* joint: with gradients */

struct Trainer {
    const TrialSpec *first;               /* specs agree in everything that shapes the run                               */
    int32_t n;
    Member *member;
    Pool *pool;
    TrainGraphs graphs;
    Exec *exec, *eval_exec;
    Population *pop;
    int32_t rows, batch, eval_batch;
    bool own_data;                        /* members differ in data: tokens [n][B][rows]                                  */
    int32_t *tokens, *targets, *order;    /* [n or 1][batch][rows]; order: [n or 1][examples] of the epoch under way      */
    void *inv_count;                      /* [n] float                                                                   */
    int64_t order_epoch;
    Walk walk;                            /* all members'                                                                */
    double clock_start, clock_before;     /* seconds spent before a resume                                               */
};

/* member.c: what the trainer and the queue share. */
bool mdr_train_same_graph(const TrialSpec *a, const TrialSpec *b);             /* may they be members of one population?  */
Err *mdr_train_graphs_open(const TrialSpec *s, const DeviceDef *device, int32_t eval_batch, TrainGraphs *g);
void mdr_train_graphs_close(TrainGraphs *g);                                   /* also after an error of opening          */
Err *mdr_train_member_open(Member *x, const TrialSpec *s);
void mdr_train_member_close(Member *x);
Walk mdr_train_walk(const TrialSpec *s);
void mdr_train_start(const Plan *p, const TrialSpec *s, float *param);         /* starting values into a zeroed vector    */
Hyper mdr_train_hyper(const TrainParams *p);
void mdr_train_order(uint64_t order_seed, int64_t epoch, int64_t size, int32_t *order);
void mdr_train_retire(Member *x, TrialStatus status, double seconds);
/* Appends the epoch that ends at w->step, of mean loss epoch_loss / its steps; retires the member where the rules say so. */
void mdr_train_epoch_end(Member *x, const Walk *w, double seconds, const SplitScore *valid, const SplitScore *test);

/* batch.c: fills tokens, targets and inv_count of members' rows; returns the number of sequences. */
int32_t mdr_train_batch(Trainer *t, Split split, int64_t step_in_epoch);
double mdr_train_rate(const TrainParams *p, int64_t step, int64_t total, int64_t epoch_steps);    /* schedule.c; step from 0 */
/* metrics.c: adds one batch of evaluation, its class counts [3][V] and mean loss, to the scores of a split of so many sequences. */
void mdr_train_score(const double *counts, int32_t vocab, double loss, int32_t n_seq, int64_t size, SplitScore *score);
#endif
