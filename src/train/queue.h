/* The queue's own business, shared by its files: queue.c (which trials, in which order, how many at a time), queue_crew.c (one
 * population: memory, recorded steps, who sits where), queue_round.c (training and evaluating it). */
#ifndef MDR_TRAIN_QUEUE_H
#define MDR_TRAIN_QUEUE_H
#include "task/draw.h"
#include "train/device_metrics.h"
#include "train/internal.h"
#include "train/queue_device.h"

enum { MDR_QUEUE_ROUND = 512 };           /* most steps without the host                                                 */

typedef struct QueueTrial {
    const TrialSpec *spec;
    Member x;                             /* open while it sits in a slot                                                */
    Walk walk;
    double began, step_flops;             /* on the clock; of one training step with its share of evaluations             */
    int32_t index, group;
    bool ended;
} QueueTrial;

typedef struct Queue {
    int32_t n;
    QueueTrial *trial;
    Accel *accel;
    const QueueWatch *watch;
    Pool *pool;                           /* the host's part: starting values                                            */
    QueueProgress now;
    double begin, device, ticked;         /* clock; seconds the device worked; clock of the last tick                    */
    bool outside;                         /* the error is the watch's, not the device's                                  */
} Queue;

/* A population of trials of one graph. A slot holds a trial or nothing; whoever ends gives its slot to the next at a border. */
typedef struct Crew {
    Queue *q;
    const TrainGraphs *graphs;
    QueueTrial **trial;                   /* those to run, in the order in which they start                              */
    int32_t n_trial, next;
    int32_t n;                            /* slots                                                                       */
    QueueTrial **slot;                    /* [n], NULL: free                                                             */
    int32_t rows, batch, vocab;
    int64_t examples;                     /* most a trial has in an epoch                                                */
    Population *pop;
    Exec *exec, *eval;
    void *memory;                         /* the device's: what follows                                                  */
    QueueState *state;                    /* [n]                                                                         */
    double *rate;                         /* [MDR_QUEUE_ROUND][n]                                                        */
    int32_t *first, *order, *work;        /* [n]; [n][examples]; of drawing                                              */
    DrawMember *draw, *eval_draw;         /* [n]                                                                         */
    int64_t *size;                        /* [n] examples of the split being evaluated                                   */
    SplitScore *score;                    /* [n]                                                                         */
    QueueState *host_state;               /* the host's: the same                                                        */
    double *host_rate;
    int32_t *host_order;                  /* of epoch order_epoch[m] of slot m's trial                                   */
    int64_t *order_epoch;
    DrawMember *host_draw;                /* [SPLIT_COUNT][n]                                                            */
    SplitScore *host_score;               /* [2][n]: valid, test                                                         */
    int64_t *host_size;
    void **ctx;                           /* [n] the device's: what a task was set up with                               */
    int64_t *ctx_bytes;
    int32_t left;                         /* steps until the next tick, by the pace so far                               */
} Crew;

/* queue_crew.c */
int64_t mdr_train_crew_bytes(const TrainGraphs *g, const TrialSpec *s, int32_t n, int64_t examples);   /* of the device   */
Err *mdr_train_crew_open(Queue *q, const TrainGraphs *g, QueueTrial **trial, int32_t n_trial, int32_t n, Crew *c);
void mdr_train_crew_close(Crew *c);                                                     /* unfinished trials go back      */
Err *mdr_train_crew_admit(Crew *c);                                                     /* fills free slots              */
void mdr_train_crew_order(Crew *c, int32_t slot, int64_t epoch);                        /* host_order                    */
Err *mdr_train_crew_send_order(Crew *c, int32_t slot);
Err *mdr_train_crew_leave(Crew *c, int32_t slot);                                       /* its trial has ended           */
/* queue_round.c: until every trial has ended. */
Err *mdr_train_crew_run(Crew *c);
#endif
