/* study's own: a protocol while it is being settled. Every layer (base, protocol, config file, --set) changes the
 * draft; the settings are laid out only at the end. */
#ifndef MDR_STUDY_INTERNAL_H
#define MDR_STUDY_INTERNAL_H
#include "study/study.h"

enum { MDR_MOST_TASKS = 64, MDR_MOST_GRID = 16, MDR_MOST_SEEDS = 64 };

typedef struct Change {
    const char *key;
    int32_t n;
    const char **value;
} Change; /* one rung of settings a value     */
typedef struct TrainChange { const char *key, *value; } TrainChange;
typedef struct TaskDraft {
    const TaskDef *task;
    TaskParams baseline;
    int32_t n_change, n_train;
    Change *change;
    TrainChange *train; /* this task's own, over the protocol's, in order                               */
} TaskDraft;
typedef struct Draft {
    Arena *arena;
    const char *name, *help;
    bool mean_allowed, select_on_test;
    StudyDevice device;
    int32_t gpu;
    TrainParams train; /* lr and weight_decay: the single values, for a run without a grid             */
    ModelParams model;
    int32_t n_lr, n_decay, n_seed, n_default, n_task;
    double lr[MDR_MOST_GRID], decay[MDR_MOST_GRID];
    uint64_t seed[MDR_MOST_SEEDS];
    LayerDefault *layer_default;
    TaskDraft task[MDR_MOST_TASKS]; /* in the order of mdr_task_at                                                  */
} Draft;

typedef struct Source { /* where a piece of YAML stands, for messages                                   */
    Draft *d;
    const char *name;
    const Yaml *root;
} Source;
const char *mdr_study_where(const Source *s, const Yaml *y); /* "taste.yml:3:7"                              */
Err *mdr_study_want(const Source *s, const Yaml *y, YamlKind kind, const char *key);
bool mdr_study_blank(const Yaml *y); /* "key:" with nothing, ~ or null               */

/* shipped.c */
Err *mdr_study_find_protocol(Draft *d, const char *name); /* shipped name or file                         */
/* draft.c: everything but base; a config file may not have base or change the name. */
void mdr_study_draft_init(Draft *d);
Err *mdr_study_read(const Source *s, bool may_have_base);
/* task_draft.c: the map under tasks:, and mad-lab's own form (baseline, changes) for one task. */
Err *mdr_study_read_tasks(const Source *s, const Yaml *y);
Err *mdr_study_read_one_task(const Source *s, const TaskDef *t);
Err *mdr_study_find_task(const char *name, const TaskDef **t);
void mdr_study_train_change(Draft *d, TaskDraft *t, const char *key, const char *value);
/* override.c */
Err *mdr_study_override(Draft *d, const char *text);
#endif
