/* The queue's own business, shared by its files: queue_groups.c (which trials train together, in which order, how many at a time), queue.c
 * (populations side by side), queue_crew.c (one population: memory, recorded steps, who sits where), queue_round.c (training and evaluating
 * it), queue_shrink.c (what becomes of it when slots idle for good). */
#ifndef MDR_TRAIN_QUEUE_H
#define MDR_TRAIN_QUEUE_H
#include "task/draw.h"
#include "train/device_metrics.h"
#include "train/internal.h"
#include "train/queue_device.h"

/* Most steps without the host; most populations side by side; rows of a step that fill a GPU (64 members of 128 x 128). */
enum { MDR_QUEUE_ROUND = 512, MDR_QUEUE_LANES = 8, MDR_QUEUE_FULL = 1 << 20 };

#define MDR_QUEUE_TICK 0.25               /* seconds between looks at the watch                                          */

typedef struct QueueTrial {
    const TrialSpec *spec;
    Member x;                             /* open while it sits in a slot                                                */
    Walk walk;
    double began, step_flops;             /* on the clock; of one training step with its share of evaluations             */
    int32_t index, group;
    bool ended;
} QueueTrial;

/* A population of trials of one graph. A slot holds a trial or nothing; whoever ends gives its slot to the next at a border. Memory is laid
 * out for as many slots as there were at first; what lies in it goes by those there are. */
typedef struct Crew {
    struct Queue *q;
    Accel *accel;                         /* its own stream                                                              */
    const TrainGraphs *graphs;
    QueueTrial **trial;                   /* those to run, in the order in which they start                              */
    int32_t n_trial, next;
    int32_t n, n_first;                   /* slots; at first                                                             */
    QueueTrial **slot;                    /* [n], NULL: free                                                             */
    int32_t rows, batch, vocab;
    int64_t examples;                     /* most a trial has in an epoch                                                */
    Population *pop, *splits;             /* [n]; [2][n] the same parameters, evaluated on valid and test                 */
    Exec *exec, *eval;                    /* of n and 2 n members                                                         */
    void *memory;                         /* the device's: what follows                                                  */
    QueueState *state, *eval_state;       /* [n], [2][n]                                                                  */
    double *rate;                         /* [MDR_QUEUE_ROUND][n]                                                        */
    QueueNext to_draw, eval_to_draw;      /* [n], [2][n] to be drawn; one memory                                          */
    DrawBatch drawn;                      /* for the next step                                                           */
    int32_t *order, *work;                /* [n][examples]; of drawing                                                   */
    DrawMember *draw, *eval_draw;         /* [n], [2][n]                                                                  */
    int64_t *size;                        /* [2][n] examples of a split                                                   */
    SplitScore *score;                    /* [2][n]                                                                       */
    QueueState *host_state;               /* the host's: the same                                                        */
    double *host_rate;
    int32_t *host_order;                  /* of epoch order_epoch[m] of slot m's trial                                   */
    int64_t *order_epoch;
    DrawMember *host_draw;                /* [SPLIT_COUNT][n]                                                            */
    SplitScore *host_score;               /* [2][n]                                                                       */
    int64_t *host_size;
    void **ctx;                           /* [n_first] the device's: what a task was set up with                         */
    int64_t *ctx_bytes;
    int32_t left;                         /* steps until the next tick, by the pace so far                               */
    bool evaluates;                       /* what is under way: an evaluation, or so many steps; when it began           */
    int64_t steps;
    double begun;
} Crew;

/* Trials of one graph. at_once: slots of its population, 0: not chosen yet; bytes: of all slots that it wants, 0: not known yet. */
typedef enum GroupState { GROUP_WAITS, GROUP_RUNS, GROUP_ENDED } GroupState;
typedef struct Group { QueueTrial **trial; int32_t n, at_once; int64_t bytes; double flops; GroupState state; } Group;

typedef struct Lane { Group *group; TrainGraphs graphs; Accel *accel; Crew crew; } Lane;       /* group NULL: free             */

typedef struct Queue {
    int32_t n, n_group;
    QueueTrial *trial;
    Group *group;                         /* in the order in which they start                                            */
    Lane lane[MDR_QUEUE_LANES];
    Accel *accel;
    const QueueWatch *watch;
    Pool *pool;                           /* the host's part: starting values                                            */
    QueueProgress now;
    double begin, device, covered, ticked;/* clock; seconds the device worked, known up to this clock; clock of the last tick */
    int32_t taken, turn;                  /* lanes; the one to be asked first                                            */
    bool tight;                           /* no memory for one more population                                           */
    bool outside;                         /* the error is the watch's, not the device's                                  */
} Queue;

/* queue_groups.c */
void mdr_train_groups_open(Queue *q);
void mdr_train_groups_close(Queue *q);
void mdr_train_group_drop_ended(Group *g);
/* Slots for a group: as many as keep the device busy, or as fit. rows: of a step, if they are as many as it wants. room: bytes that
 * populations may take now. */
int32_t mdr_train_group_slots(const Queue *q, const TrainGraphs *graphs, Group *g);
int64_t mdr_train_group_rows(const Queue *q, const Group *g);
int64_t mdr_train_group_room(const Queue *q);
void mdr_train_group_say(const Queue *q, const TrainGraphs *graphs, const Group *g, int32_t slots);
/* queue_crew.c */
int64_t mdr_train_crew_bytes(const TrainGraphs *g, const TrialSpec *s, int32_t n, int64_t examples);   /* of the device   */
Err *mdr_train_crew_open(Queue *q, Accel *a, const TrainGraphs *g, QueueTrial **trial, int32_t n_trial, int32_t n, Crew *c);
void mdr_train_crew_close(Crew *c);                                                     /* unfinished trials go back      */
Err *mdr_train_crew_record(Crew *c);                                                    /* both steps, for n slots       */
Err *mdr_train_crew_admit(Crew *c);                                                     /* fills free slots              */
Err *mdr_train_crew_send_draws(Crew *c);                                                /* host_draw                     */
void mdr_train_crew_order(Crew *c, int32_t slot, int64_t epoch);                        /* host_order                    */
Err *mdr_train_crew_send_order(Crew *c, int32_t slot);
/* Enqueued before the first step of a round, or of an evaluation: draws its batch. */
Err *mdr_train_crew_begin_round(Crew *c);
Err *mdr_train_crew_begin_splits(Crew *c);
Err *mdr_train_crew_leave(Crew *c, int32_t slot);                                       /* its trial has ended           */
/* queue_shrink.c. At a border: gives up slots that idle for good, if it is worth it. fewer: how many there should be. */
int32_t mdr_train_crew_fewer(const Crew *c);
Err *mdr_train_crew_shrink(Crew *c);
/* queue_round.c. start: enqueues the first steps. go_on: takes what was enqueued (waits for it) and enqueues what follows; over once no slot
 * is taken. reached: would go_on not wait? */
Err *mdr_train_crew_start(Crew *c);
Err *mdr_train_crew_go_on(Crew *c);
bool mdr_train_crew_reached(const Crew *c);
bool mdr_train_crew_over(const Crew *c);
/* queue.c. tick: looks at the watch, if it is time. say frees t. */
Err *mdr_train_queue_tick(Queue *q);
void mdr_train_queue_say(const Queue *q, Text *t);
#endif
