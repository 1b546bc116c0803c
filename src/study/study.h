/* study: what is made of many trials: protocols (YAML, shipped ones compiled in), the trials they ask for, selection and scores
 * with their intervals (STATISTICS). Pure functions of specs and results; running is the caller's. */
#ifndef MDR_STUDY_H
#define MDR_STUDY_H
#include "store/store.h"

typedef struct ProtocolFile { const char *name; const char *text; } ProtocolFile;
MDR_API const ProtocolFile *mdr_study_protocol_at(int i);         /* shipped ones; NULL past the end                      */

/* Where trials run. auto: the CPU for float32, a GPU for precisions that need one. */
typedef enum StudyDevice { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA } StudyDevice;
MDR_API Err *mdr_study_device(const char *text, StudyDevice *device, int32_t *gpu);   /* "auto", "cpu", "cuda", "cuda:1"         */

typedef struct Setting {
    const TaskDef *task;
    TaskParams params;
    TrainParams train;                    /* of this task: the protocol's, with the task's own changes                    */
    ModelParams model;                    /* backbone settled                                                             */
    const char *change;                   /* "" (baseline) or "vocab_size=32"                                             */
} Setting;
typedef struct Protocol {
    Arena *arena;
    const char *name, *help;
    bool mean_allowed;                    /* may print a task mean and the MAD mean (mad-lab, paper, madras)              */
    bool select_on_test;                  /* mad-lab: epoch and grid point by the test split                              */
    StudyDevice device;                   /* what the protocol or configuration asks for                                  */
    int32_t gpu;
    const char *device_class;             /* of the device that was chosen, set by the caller; NULL: this CPU's            */
    int32_t n_setting, n_lr, n_decay, n_seed, n_default;
    Setting *setting;                     /* in order of tasks, baseline first                                            */
    double lr[16], decay[16];             /* the grid; at least one each                                                  */
    uint64_t seed[64];
    LayerDefault *layer_default;
} Protocol;
/* How a run is settled: protocol (name or file) -> config file -> --set key=value in order. tasks: comma-separated names or NULL
 * for all the protocol has; one task only and no ladder (baseline settings) when single. A task's YAML of mad-lab's
 * (configs/tasks/NAME.yml: baseline, changes) is accepted as a config file. Unknown keys name their nearest neighbours. */
typedef struct SettleSpec {
    const char *protocol, *config, *tasks;
    const char *const *set;               /* "key=value"                                                                  */
    int32_t n_set;
    int32_t seeds;                        /* > 0: replicates, overriding the protocol                                     */
    bool single;                          /* train: one setting, no grid (lr and weight_decay from the values), first seed */
} SettleSpec;
MDR_API Err *mdr_study_settle(const SettleSpec *s, Protocol **p);
MDR_API void mdr_study_protocol_free(Protocol *p);

/* The precision all trials share, or a user error: one table never mixes them. */
MDR_API Err *mdr_study_precision(const Protocol *p, int32_t *precision);
MDR_API const char *mdr_study_class(const Protocol *p);           /* device_class, else the CPU's                         */
MDR_API const char *mdr_study_precision_name(const Protocol *p);  /* of the first setting                                 */

/* The trials of one architecture: settings x lr x decay x seeds, in that order. specs: mdr_alloc'ed; borrow arch and protocol. */
MDR_API void mdr_study_trials(const Protocol *p, const Arch *a, int32_t *n, TrialSpec **specs);

/* One score with its spread. n replicates; half < 0: no interval (fewer than 3). df: Satterthwaite. n_diverged: (setting,
 * replicate) pairs counted as chance because every grid point diverged. Nothing to score: value NaN, n 0. */
typedef struct Score { double value, half, df; int32_t n, n_diverged; } Score;
typedef struct SettingScore { const Setting *setting; Score macro; } SettingScore;   /* left out: value NaN            */
typedef struct TaskScore {
    const TaskDef *task;
    SettingScore *setting;                /* n_setting + n_left_out, in the protocol's order                              */
    Score macro, plain;                   /* at the selected epoch and grid point                                         */
    TaskLevels levels;                    /* means over the task's settings                                               */
    bool at_chance;                       /* not told apart from chance                                                   */
    int32_t n_setting, n_left_out;        /* scored; with a trial not run                                                 */
} TaskScore;
/* mean, mad_lab (selected on test, unclamped): NaN where the protocol allows no mean or a task has nothing to score. params, state: of
 * the first trial's model. */
typedef struct ArchScore { const Arch *arch; TaskScore *task; int32_t n_task; Score mean; double mad_lab; int64_t params, state; } ArchScore;
/* results[i] belongs to specs[i] of mdr_study_trials(p, a); NULL result: not run (its setting is then left out and said so). */
MDR_API void mdr_study_score(const Protocol *p, const Arch *a, const TrialSpec *specs, const TrialResult *const *results, int32_t n,
                             Arena *arena, ArchScore *out);
/* The epoch a selection rule picks. Validation: highest macro accuracy, ties by lower loss, then earlier. Test: mad-lab's rule, lowest
 * perplexity, ties by accuracy, then earlier. -1: none with finite values. */
MDR_API int32_t mdr_study_select_epoch(const TrialResult *r, bool on_test);
MDR_API double mdr_study_t_quantile(double df, double p);        /* inverse of Student's t distribution                  */
#endif
