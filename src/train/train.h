/* train: trials. A trial is a pure function of its spec: architecture x setting x training values x seed (x precision and
 * instruction class, which enter its key). Members of a population are trials that share one graph and batch size; they train
 * side by side and each equals itself trained alone, bit for bit. Nothing here chooses or ranks: that is study's.
 *
 * Streams (STATISTICS): data = (task, its parameters but the numbers of examples, split, seed), example i by counter;
 * init = (architecture, setting, grid point, seed); order = (setting, seed), epoch by counter. */
#ifndef MDR_TRAIN_H
#define MDR_TRAIN_H
#include "exec/exec.h"
#include "model/model.h"
#include "task/task.h"

typedef struct TrainParams {
    double lr, weight_decay, beta1, beta2, eps, min_lr, clip;
    int32_t optimizer, scheduler, warmup_steps, epochs, steps, batch_size, early_stop, precision;
} TrainParams;
enum { PRECISION_FLOAT32, PRECISION_BF16 };
enum { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
enum { SCHEDULER_CONSTANT, SCHEDULER_COSINE, SCHEDULER_COSINE_STEP };    /* cosine: once an epoch                         */
enum { STOP_NONE, STOP_VALID, STOP_TEST };                               /* at macro accuracy > 0.999 on that split       */
MDR_API extern const Param mdr_train_params[];

typedef struct TrialSpec {
    const Arch *arch;
    const TaskDef *task;
    TaskParams setting;
    ModelParams model;
    TrainParams train;
    uint64_t seed;
    bool composed;                        /* fused ops replaced by their compositions                                    */
    const char *device_class;             /* "cuda-sm90": enters the key; NULL: this CPU's instruction class              */
} TrialSpec;
MDR_API const char *mdr_train_class(const TrialSpec *s);          /* device_class, else mdr_cpu_class()                  */
MDR_API const char *mdr_train_precision_name(const TrialSpec *s); /* "float32", "bf16"                                   */
/* The hashed spec text, one "key value" a line, every value spelled out, and the trial's key: the SHA-256 of that text with the
 * numerics version and the instruction class. */
MDR_API void mdr_train_spec_text(const TrialSpec *s, Text *t);
MDR_API void mdr_train_key(const TrialSpec *s, char hex[65]);
MDR_API Err *mdr_train_check(const TrialSpec *s);                 /* everything that can be wrong before any work          */
MDR_API int64_t mdr_train_total_steps(const TrialSpec *s);
typedef struct TrialCost { int64_t params, state, steps; double flops; } TrialCost;  /* flops: whole trial, three forwards a training step */
MDR_API Err *mdr_train_cost(const TrialSpec *s, TrialCost *c);

/* Means over the split's batches of 128, weighted by their sequences: loss over non-ignored targets; acc plain; acc_macro as
 * mad-lab's; ppl: of exp(batch loss), as mad-lab logs perplexity, not exp(loss). */
typedef struct SplitScore { double loss, acc, acc_macro, ppl; } SplitScore;
typedef struct EpochScore {
    int32_t epoch;                        /* from 1                                                                      */
    int64_t step;
    double train_loss, seconds;           /* mean over the epoch's steps; since the trial began                          */
    SplitScore valid, test;
} EpochScore;
typedef enum TrialStatus { TRIAL_DONE, TRIAL_DIVERGED, TRIAL_STOPPED_EARLY } TrialStatus;   /* early: reached the stop accuracy */
MDR_API const char *mdr_train_status_name(TrialStatus s);         /* "done", "diverged", "stopped early"                  */
typedef struct TrialResult {
    TrialStatus status;
    int32_t n_epoch;
    EpochScore *epoch;                    /* owned; free with mdr_train_result_free                                      */
    double seconds;
} TrialResult;
MDR_API void mdr_train_result_free(TrialResult *r);

/* ---- a trainer, step by step ---- */
typedef struct Trainer Trainer;
/* specs[0..n): same architecture, graph, batch size, numbers of examples, epochs and steps; else a user error. Borrowed. */
MDR_API Err *mdr_train_open(const TrialSpec *const *specs, int32_t n, Pool *pool, Trainer **t);
MDR_API void mdr_train_close(Trainer *t);
MDR_API Err *mdr_train_step(Trainer *t);                          /* one step of every member still training              */
MDR_API bool mdr_train_epoch_ends(const Trainer *t);              /* the step just made was the last of an epoch or of the budget */
MDR_API Err *mdr_train_evaluate(Trainer *t);                      /* appends an EpochScore to each member still training  */
MDR_API bool mdr_train_finished(const Trainer *t);                /* no member is left training                           */
MDR_API int64_t mdr_train_steps_done(const Trainer *t);
MDR_API double mdr_train_loss(const Trainer *t, int32_t member);  /* of the last step                                    */
MDR_API const TrialResult *mdr_train_result(const Trainer *t, int32_t member);
MDR_API Exec *mdr_train_exec(Trainer *t);                         /* for traces and profiles                              */
MDR_API Exec *mdr_train_eval_exec(Trainer *t);                     /* evaluation's: traced apart                          */
MDR_API const Plan *mdr_train_plan(const Trainer *t);
MDR_API const Graph *mdr_train_graph(const Trainer *t);           /* lowered, with its gradients: what the plan runs      */
MDR_API const Population *mdr_train_population(const Trainer *t);
/* Checkpoint: written atomically; loading one of another spec, version or a damaged file is an error and changes nothing. */
MDR_API Err *mdr_train_save(const Trainer *t, const char *path);
MDR_API Err *mdr_train_load(Trainer *t, const char *path);

/* ---- whole trials ---- */
typedef struct TrainWatch {
    void *ctx;
    bool (*step)(void *ctx, const Trainer *t);                    /* after each step; false: stop (Ctrl-C)                */
    void (*epoch)(void *ctx, const Trainer *t);                   /* after each evaluation                               */
    const char *checkpoint;                                       /* NULL: none; loaded first if it exists                */
    int64_t every;                                                /* steps between checkpoints; 0: every epoch            */
} TrainWatch;
/* Runs to the end. MDR_STOPPED when the watch said so (the checkpoint is written then). */
MDR_API Err *mdr_train_run(Trainer *t, const TrainWatch *watch);

/* ---- many trials on a GPU: a queue that keeps a population full ---- */
typedef struct QueueProgress {
    double flops, total_flops, seconds;   /* done so far, of all trials (upper bound: early stops end sooner)             */
    double busy;                          /* share of the time in which the device computed                              */
    int64_t member_steps;                 /* training steps so far, summed over trials                                   */
    int32_t running, waiting, ended;      /* trials                                                                      */
    double loss;                          /* mean of the last epochs' training losses of those running                   */
} QueueProgress;
typedef struct QueueWatch {
    void *ctx;
    bool (*tick)(void *ctx, const QueueProgress *p);              /* a few times a second; false: stop (MDR_STOPPED)      */
    Err *(*done)(void *ctx, int32_t trial, const TrialResult *r); /* as each trial ends                                   */
    void (*epoch)(void *ctx, int32_t trial, const TrialResult *r);   /* after each of its evaluations; NULL: nobody asks  */
    void (*say)(void *ctx, const char *sentence);                 /* population sizes, memory that ran out, ...           */
    int32_t most_members;                 /* of a population; 0: what fits                                               */
    int32_t most_populations;             /* side by side; 0: what keeps the device busy                                 */
} QueueWatch;
/* Runs all trials. Trials of one graph train as a population; whoever ends gives its place to the next of the same graph. Populations that
 * do not fill the device train side by side. An error of the device ends it; what had ended was handed to done(). */
MDR_API Err *mdr_train_queue(const TrialSpec *const *specs, int32_t n, Accel *accel, const QueueWatch *watch);
#endif
