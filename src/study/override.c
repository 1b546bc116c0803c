/* --set key=value over everything a protocol and a config file say. A task's key is set in the baseline of every
 * selected task that has it, and the changes of that key leave the ladder (the rest of the ladder stays). lr and
 * weight_decay replace the grid; epochs without a steps beside it replaces the steps of the protocol (resolve.c). */
#include "study/internal.h"
#include <string.h>

enum { MOST_NAMES = 255 };

static int add_names(const Param *t, const char **names, int n) {
    for (; t->name && n < MOST_NAMES; t++) names[n++] = t->name;
    return n;
}

static Err *unknown(const char *key) {
    const char *names[MOST_NAMES + 1];
    int n = add_names(mdr_train_params, names, add_names(mdr_model_params, names, 0));
    for (int i = 0; mdr_task_at(i); i++) n = add_names(mdr_task_at(i)->params, names, n);
    names[n] = NULL;
    return MDR_ERR_UNKNOWN("--set: there is no key", key, names,
                           "a layer's parameters stand in the architecture, the keys of tasks, models and training in "
                           "`madras list`");
}

static Err *set_train(Draft *d, const char *key, const char *value) {
    MDR_TRY(mdr_params_set(mdr_train_params, &d->train, key, value, "--set"));
    if (strcmp(key, "lr") == 0) d->n_lr = 1, d->lr[0] = d->train.lr;
    if (strcmp(key, "weight_decay") == 0) d->n_decay = 1, d->decay[0] = d->train.weight_decay;
    for (int32_t i = 0; i < d->n_task; i++) mdr_study_train_change(d, &d->task[i], key, value);
    return NULL;
}

static void drop_change(TaskDraft *t, const char *key) {
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_change; i++)
        if (strcmp(t->change[i].key, key) != 0) t->change[n++] = t->change[i];
    t->n_change = n;
}

static Err *no_task_has(const char *key) {
    Text list = {0};
    for (int i = 0; mdr_task_at(i); i++)
        if (mdr_params_find(mdr_task_at(i)->params, key))
            mdr_text_printf(&list, "%s%s", list.n ? ", " : "", mdr_task_at(i)->name);
    Err *e = MDR_ERR_USER("--set: none of the tasks chosen has a key `%s`; it belongs to %s", key, mdr_text_str(&list));
    mdr_text_free(&list);
    return e;
}

Err *mdr_study_override(Draft *d, const char *text) {
    const char *eq = strchr(text, '=');
    if (!eq || eq == text) return MDR_ERR_USER("--set wants key=value, got `%s`", text);
    const char *key = mdr_arena_printf(d->arena, "%.*s", (int)(eq - text), text),
               *value = mdr_arena_strdup(d->arena, eq + 1);
    if (mdr_params_find(mdr_train_params, key)) return set_train(d, key, value);
    if (mdr_params_find(mdr_model_params, key)) return mdr_params_set(mdr_model_params, &d->model, key, value, "--set");
    const TaskDef *owner = NULL;
    for (int i = 0; !owner && mdr_task_at(i); i++)
        if (mdr_params_find(mdr_task_at(i)->params, key)) owner = mdr_task_at(i);
    if (!owner) return unknown(key);
    bool set = false;
    for (int32_t i = 0; i < d->n_task; i++) {
        TaskDraft *t = &d->task[i];
        if (!mdr_params_find(t->task->params, key)) continue;
        MDR_TRY(mdr_params_set(t->task->params, &t->baseline, key, value, "--set"));
        drop_change(t, key);
        set = true;
    }
    return set ? NULL : no_task_has(key);
}
