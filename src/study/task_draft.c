/* The tasks of a protocol:   tasks: {NAME: {baseline: {...}, changes: {key: [...]}, train: {...}}}
 *
 * The tasks listed are the tasks there are. A task's baseline starts from the base protocol's (else from the task's
 * defaults). If it says anything of its own, its ladder is what its `changes` list (none: the baseline alone); if it
 * says nothing, all is the base's. Each value of a change is one setting, the rest baseline. mad-lab's
 * configs/tasks/NAME.yml is the inside of one NAME. */
#include "study/internal.h"
#include <string.h>

Err *mdr_study_find_task(const char *name, const TaskDef **t) {
    *t = mdr_task_find(name);
    int n_same = 0;
    for (int i = 0; mdr_task_at(i); i++) n_same += strcmp(mdr_task_at(i)->name, name) == 0;
    if (n_same > 1) return MDR_ERR_USER("two files of src/task define a task `%s`: give one of them another .name and build again", name);
    if (*t) return NULL;
    const char *names[MDR_MOST_TASKS + 1];
    int n = 0;
    for (; n < MDR_MOST_TASKS && mdr_task_at(n); n++) names[n] = mdr_task_at(n)->name;
    names[n] = NULL;
    return MDR_ERR_UNKNOWN("there is no task", name, names, NULL);
}

void mdr_study_train_change(Draft *d, TaskDraft *t, const char *key, const char *value) {
    TrainChange *all = mdr_arena_alloc(d->arena, (size_t)(t->n_train + 1) * sizeof *all);
    if (t->n_train) memcpy(all, t->train, (size_t)t->n_train * sizeof *all);
    all[t->n_train++] = (TrainChange){key, value};
    t->train = all;
}

static Err *read_values(const Source *s, const Yaml *y, TaskDraft *t) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "baseline"));
    for (int32_t i = 0; i < y->n; i++) {
        const char *what = mdr_arena_printf(s->d->arena, "%s: %s", mdr_study_where(s, y->item[i]), t->task->name);
        MDR_TRY(mdr_study_want(s, y->item[i], MDR_YAML_SCALAR, y->key[i]));
        MDR_TRY(mdr_params_set(t->task->params, &t->baseline, y->key[i], y->item[i]->text, what));
    }
    return NULL;
}

static Err *read_changes(const Source *s, const Yaml *y, TaskDraft *t) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "changes"));
    t->change = mdr_arena_alloc(s->d->arena, (size_t)(y->n + 1) * sizeof *t->change);
    for (int32_t i = 0; i < y->n; i++) {
        const Yaml *list = y->item[i];
        Change *c = &t->change[t->n_change++];
        MDR_TRY(mdr_study_want(s, list, MDR_YAML_SEQ, y->key[i]));
        *c = (Change){y->key[i], list->n, mdr_arena_alloc(s->d->arena, (size_t)(list->n + 1) * sizeof *c->value)};
        for (int32_t k = 0; k < list->n; k++) {
            TaskParams scratch = t->baseline;
            const char *what =
                mdr_arena_printf(s->d->arena, "%s: %s", mdr_study_where(s, list->item[k]), t->task->name);
            MDR_TRY(mdr_study_want(s, list->item[k], MDR_YAML_SCALAR, y->key[i]));
            MDR_TRY(mdr_params_set(t->task->params, &scratch, y->key[i], list->item[k]->text, what));
            c->value[k] = list->item[k]->text;
        }
    }
    return NULL;
}

static Err *read_train(const Source *s, const Yaml *y, TaskDraft *t) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "train"));
    for (int32_t i = 0; i < y->n; i++) {
        TrainParams scratch = s->d->train;
        const char *what = mdr_arena_printf(s->d->arena, "%s: %s", mdr_study_where(s, y->item[i]), t->task->name);
        if (!strcmp(y->key[i], "lr") || !strcmp(y->key[i], "weight_decay"))
            return MDR_ERR_USER("%s: %s is of the grid, which all tasks share", what, y->key[i]);
        MDR_TRY(mdr_study_want(s, y->item[i], MDR_YAML_SCALAR, y->key[i]));
        MDR_TRY(mdr_params_set(mdr_train_params, &scratch, y->key[i], y->item[i]->text, what));
        mdr_study_train_change(s->d, t, y->key[i], y->item[i]->text);
    }
    if (mdr_yaml_get(y, "epochs") && !mdr_yaml_get(y, "steps")) mdr_study_train_change(s->d, t, "steps", "0");
    return NULL;
}

/* y: {baseline, changes, train}, or blank. t holds what the base has. */
static Err *read_task(const Source *s, const Yaml *y, TaskDraft *t) {
    if (mdr_study_blank(y)) return NULL;
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, t->task->name));
    for (int32_t i = 0; i < y->n; i++)
        if (strcmp(y->key[i], "baseline") && strcmp(y->key[i], "changes") && strcmp(y->key[i], "train"))
            return MDR_ERR_USER("%s: %s: a task has baseline, changes and train, not `%s`",
                                mdr_study_where(s, y->item[i]), t->task->name, y->key[i]);
    const Yaml *baseline = mdr_yaml_get(y, "baseline"), *changes = mdr_yaml_get(y, "changes"),
               *train = mdr_yaml_get(y, "train");
    if (baseline || changes) t->n_change = 0;
    if (baseline && !mdr_study_blank(baseline)) MDR_TRY(read_values(s, baseline, t));
    if (changes && !mdr_study_blank(changes)) MDR_TRY(read_changes(s, changes, t));
    if (train && !mdr_study_blank(train)) MDR_TRY(read_train(s, train, t));
    return NULL;
}

static TaskDraft begin(const Draft *d, const TaskDef *task) {
    for (int32_t i = 0; i < d->n_task; i++)
        if (d->task[i].task == task) return d->task[i];
    TaskDraft t = {.task = task};
    mdr_task_defaults(task, &t.baseline);
    return t;
}

Err *mdr_study_read_tasks(const Source *s, const Yaml *y) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "tasks"));
    const TaskDef *found;
    for (int32_t i = 0; i < y->n; i++)
        MDR_TRY(mdr_err_wrap(mdr_study_find_task(y->key[i], &found), "%s", mdr_study_where(s, y->item[i])));
    TaskDraft *list = mdr_arena_alloc(s->d->arena, sizeof s->d->task);
    int32_t n = 0;
    for (int i = 0; i < MDR_MOST_TASKS && mdr_task_at(i); i++) {
        const TaskDef *task = mdr_task_at(i);
        const Yaml *own = mdr_yaml_get(y, task->name);
        if (!own) continue;
        list[n] = begin(s->d, task);
        MDR_TRY(read_task(s, own, &list[n]));
        n++;
    }
    memcpy(s->d->task, list, sizeof s->d->task);
    s->d->n_task = n;
    return NULL;
}

Err *mdr_study_read_one_task(const Source *s, const TaskDef *task) {
    TaskDraft t = begin(s->d, task);
    MDR_TRY(read_task(s, s->root, &t));
    s->d->task[0] = t;
    s->d->n_task = 1;
    return NULL;
}
