/* How a run is settled: protocol, config file, tasks, --set, then the settings are laid out and each is checked. */
#include "study/internal.h"
#include <string.h>

/* mad-lab's form has nothing but baseline and changes, and its file name is the task. */
static bool is_mad_lab(const Yaml *root) {
    for (int32_t i = 0; i < root->n; i++)
        if (strcmp(root->key[i], "baseline") && strcmp(root->key[i], "changes")) return false;
    return root->n > 0;
}

static Err *read_config(Draft *d, const char *path) {
    Yaml *root = NULL;
    MDR_TRY(mdr_yaml_load(d->arena, path, &root));
    Source s = {d, path, root};
    MDR_TRY(mdr_study_want(&s, root, MDR_YAML_MAP, "a config file"));
    if (!is_mad_lab(root)) return mdr_study_read(&s, false);
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path, *dot = strrchr(from, '.');
    const char *name = mdr_arena_printf(d->arena, "%.*s", (int)(dot ? dot - from : (ptrdiff_t)strlen(from)), from);
    const TaskDef *task;
    Err *e = mdr_study_find_task(name, &task);
    if (e) return mdr_err_wrap(e, "%s: a file of baseline and changes is named after its task", path);
    return mdr_study_read_one_task(&s, task);
}

static Err *not_there(const Draft *d, const char *name) {
    Text list = {0};
    for (int32_t i = 0; i < d->n_task; i++) mdr_text_printf(&list, "%s%s", i ? ", " : "", d->task[i].task->name);
    Err *e = MDR_ERR_USER("protocol `%s` has no task `%s` here; it has %s", d->name, name, mdr_text_str(&list));
    mdr_text_free(&list);
    return e;
}

/* tasks: "a,b"; they keep the order of the table of tasks. */
static Err *choose_tasks(Draft *d, const char *tasks) {
    bool chosen[MDR_MOST_TASKS] = {false};
    for (const char *from = tasks; from;) {
        const char *comma = strchr(from, ',');
        const char *name =
            mdr_arena_printf(d->arena, "%.*s", (int)(comma ? comma - from : (ptrdiff_t)strlen(from)), from);
        const TaskDef *t;
        MDR_TRY(mdr_study_find_task(name, &t));
        int32_t i = 0;
        while (i < d->n_task && d->task[i].task != t) i++;
        if (i == d->n_task) return not_there(d, name);
        chosen[i] = true;
        from = comma ? comma + 1 : NULL;
    }
    int32_t n = 0;
    for (int32_t i = 0; i < d->n_task; i++)
        if (chosen[i]) d->task[n++] = d->task[i];
    d->n_task = n;
    return NULL;
}

static Err *make_single(Draft *d) {
    if (d->n_task != 1) return MDR_ERR_USER("one task must be named: one trial is trained");
    d->task[0].n_change = 0;
    d->n_lr = d->n_decay = d->n_seed = 1;          /* of its seeds the first                                     */
    d->lr[0] = d->train.lr;
    d->decay[0] = d->train.weight_decay;
    return NULL;
}

/* The same setting twice would weigh double in its task's mean. */
static Err *check_setting(const Setting *all, const Setting *s) {
    const char *change = s->change[0] ? s->change : "baseline";
    MDR_TRY(mdr_err_wrap(mdr_task_check(s->task, &s->params), "%s", change));
    Text own = {0}, other = {0};
    mdr_task_text(s->task, &s->params, &own);
    Err *e = NULL;
    for (const Setting *o = all; !e && o < s; o++) {
        if (o->task != s->task) continue;
        mdr_text_clear(&other);
        mdr_task_text(o->task, &o->params, &other);
        if (strcmp(mdr_text_str(&own), mdr_text_str(&other)) == 0)
            e = MDR_ERR_USER("%s, %s: is the same setting as %s", s->task->name, change,
                             o->change[0] ? o->change : "the baseline");
    }
    mdr_text_free(&own);
    mdr_text_free(&other);
    return e;
}

static Err *lay_out_task(const Draft *d, const TaskDraft *t, Protocol *p) {
    Setting base = {.task = t->task, .params = t->baseline, .train = d->train, .model = d->model, .change = ""};
    for (int32_t i = 0; i < t->n_train; i++)
        MDR_TRY(mdr_params_set(mdr_train_params, &base.train, t->train[i].key, t->train[i].value, t->task->name));
    if (base.model.backbone == BACKBONE_TASK)
        base.model.backbone = strcmp(t->task->backbone, "autoencoder") == 0 ? BACKBONE_AUTOENCODER : BACKBONE_LM;
    p->setting[p->n_setting] = base;
    MDR_TRY(check_setting(p->setting, &p->setting[p->n_setting++]));
    for (int32_t i = 0; i < t->n_change; i++)
        for (int32_t k = 0; k < t->change[i].n; k++) {
            Setting *s = &p->setting[p->n_setting++];
            *s = base;
            MDR_TRY(
                mdr_params_set(t->task->params, &s->params, t->change[i].key, t->change[i].value[k], t->task->name));
            s->change = mdr_arena_printf(p->arena, "%s=%s", t->change[i].key, t->change[i].value[k]);
            MDR_TRY(check_setting(p->setting, s));
        }
    return NULL;
}

static Err *lay_out(const Draft *d, Protocol *p) {
    size_t n = 0;
    for (int32_t i = 0; i < d->n_task; i++) {
        n++;
        for (int32_t k = 0; k < d->task[i].n_change; k++) n += (size_t)d->task[i].change[k].n;
    }
    *p = (Protocol){.arena = d->arena, .name = d->name, .help = d->help, .device = d->device, .gpu = d->gpu, .mean_allowed = d->mean_allowed,
                    .select_on_test = d->select_on_test, .n_lr = d->n_lr, .n_decay = d->n_decay, .n_seed = d->n_seed,
                    .n_default = d->n_default, .layer_default = d->layer_default};
    memcpy(p->lr, d->lr, sizeof p->lr);
    memcpy(p->decay, d->decay, sizeof p->decay);
    memcpy(p->seed, d->seed, sizeof p->seed);
    p->setting = mdr_arena_alloc(p->arena, n * sizeof *p->setting);
    for (int32_t i = 0; i < d->n_task; i++) MDR_TRY(lay_out_task(d, &d->task[i], p));
    return NULL;
}

static bool has_set(const SettleSpec *s, const char *key) {
    size_t n = strlen(key);
    for (int32_t i = 0; i < s->n_set; i++)
        if (strncmp(s->set[i], key, n) == 0 && s->set[i][n] == '=') return true;
    return false;
}

static Err *settle(Draft *d, const SettleSpec *s, Protocol *p) {
    mdr_study_draft_init(d);
    MDR_TRY(mdr_study_find_protocol(d, s->protocol ? s->protocol : "madras"));
    if (s->config) MDR_TRY(read_config(d, s->config));
    if (d->n_task == 0) return MDR_ERR_USER("protocol `%s` has no tasks", d->name);
    if (s->tasks) MDR_TRY(choose_tasks(d, s->tasks));
    for (int32_t i = 0; i < s->n_set; i++) MDR_TRY(mdr_study_override(d, s->set[i]));
    if (has_set(s, "epochs") && !has_set(s, "steps")) MDR_TRY(mdr_study_override(d, "steps=0"));
    if (s->single) MDR_TRY(make_single(d));
    if (s->seeds > MDR_MOST_SEEDS) return MDR_ERR_USER("at most %d seeds, got %d", (int)MDR_MOST_SEEDS, s->seeds);
    if (s->seeds > 0 && s->seeds != d->n_seed) { /* as many as the protocol has: the protocol's own */
        d->n_seed = s->seeds;
        for (int32_t i = 0; i < s->seeds; i++) d->seed[i] = (uint64_t)i + 1;
    }
    return lay_out(d, p);
}

Err *mdr_study_settle(const SettleSpec *s, Protocol **out) {
    *out = NULL;
    Arena *a = mdr_arena_new();
    Draft *d = mdr_arena_alloc(a, sizeof *d);
    Protocol *p = mdr_arena_alloc(a, sizeof *p);
    d->arena = a;
    Err *e = settle(d, s, p);
    if (e) mdr_arena_free(a);
    else *out = p;
    return e;
}

void mdr_study_protocol_free(Protocol *p) {
    if (p) mdr_arena_free(p->arena);
}

void mdr_study_trials(const Protocol *p, const Arch *a, int32_t *n, TrialSpec **specs) {
    int32_t count = p->n_setting * p->n_lr * p->n_decay * p->n_seed;
    TrialSpec *t = mdr_alloc((size_t)count * sizeof *t + 1), *next = t;
    for (int32_t s = 0; s < p->n_setting; s++)
        for (int32_t i = 0; i < p->n_lr; i++)
            for (int32_t k = 0; k < p->n_decay; k++)
                for (int32_t r = 0; r < p->n_seed; r++) {
                    const Setting *x = &p->setting[s];
                    *next = (TrialSpec){.arch = a, .task = x->task, .setting = x->params, .model = x->model, .train = x->train,
                                        .seed = p->seed[r], .device_class = p->device_class};
                    next->train.lr = p->lr[i];
                    next->train.weight_decay = p->decay[k];
                    next++;
                }
    *n = count;
    *specs = t;
}
