/* A protocol's YAML, key by key, over what its base has set. The rules a reader of such a file needs:
 *   base    a shipped protocol or a file; everything not said here is its
 *   help    one line
 *   mean    true: a mean over tasks may be printed
 *   select  valid | test: the split that chooses epoch and grid point
 *   device  auto | cpu | cuda | cuda:N: where trials run unless --device says so
 *   train   keys and values. `epochs` without `steps` beside it takes the place of the steps given before, of each task's
 *           too; else steps above 0 count, whatever the epochs
 *   model, layers   keys and values; layers: {swiglu: {dim_inner: 512}} are defaults under what an
 *           architecture says
 *   grid    {lr: [...], weight_decay: [...]}: every combination is tried. A run without a grid takes train's lr and
 *           weight_decay if this file gives them, else the first of the grid. lr under train alone replaces the grid
 *           of the base.
 *   seeds   a number n (seeds 1 ... n) or a list
 *   tasks   see task_draft.c */
#include "study/internal.h"
#include <string.h>

void mdr_study_draft_init(Draft *d) {
    mdr_params_default(mdr_train_params, &d->train);
    mdr_params_default(mdr_model_params, &d->model);
    d->help = "";
    d->n_lr = d->n_decay = d->n_seed = 1;
    d->lr[0] = d->train.lr;
    d->decay[0] = d->train.weight_decay;
    d->seed[0] = 1;
}

const char *mdr_study_where(const Source *s, const Yaml *y) {
    return mdr_arena_printf(s->d->arena, "%s:%d:%d", s->name, y->line, y->column);
}

Err *mdr_study_want(const Source *s, const Yaml *y, YamlKind kind, const char *key) {
    static const char *const text[] = {"one value", "a list", "a map of keys and values"};
    return y->kind == kind ? NULL : MDR_ERR_USER("%s: %s must be %s", mdr_study_where(s, y), key, text[kind]);
}

bool mdr_study_blank(const Yaml *y) {
    return y->kind == MDR_YAML_SCALAR && (!strcmp(y->text, "") || !strcmp(y->text, "~") || !strcmp(y->text, "null"));
}

static Err *read_help(const Source *s, const Yaml *y) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, "help"));
    s->d->help = y->text;
    return NULL;
}

static Err *read_device(const Source *s, const Yaml *y) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, "device"));
    return mdr_err_wrap(mdr_study_device(y->text, &s->d->device, &s->d->gpu), "%s", mdr_study_where(s, y));
}

/* The two words as a table of one row: its messages are those of every other parameter. */
static Err *read_choice(const Source *s, const Yaml *y, const Param *row, bool *out) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, row->name));
    int32_t v = 0;
    MDR_TRY(mdr_params_set(row, &v, row->name, y->text, mdr_study_where(s, y)));
    *out = v != 0;
    return NULL;
}
static Err *read_mean(const Source *s, const Yaml *y) {
    static const Param row[] = {{"mean", MDR_BOOL, 0, 0, 0, 1, NULL, ""}, {0}};
    return read_choice(s, y, row, &s->d->mean_allowed);
}
static Err *read_select(const Source *s, const Yaml *y) {
    static const Param row[] = {{"select", MDR_WORD, 0, 0, 0, 1, "valid|test", ""}, {0}};
    return read_choice(s, y, row, &s->d->select_on_test);
}

static Err *read_table(const Source *s, const Yaml *y, const char *key, const Param *table, void *dst) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, key));
    for (int32_t i = 0; i < y->n; i++) {
        MDR_TRY(mdr_study_want(s, y->item[i], MDR_YAML_SCALAR, y->key[i]));
        MDR_TRY(mdr_params_set(table, dst, y->key[i], y->item[i]->text, mdr_study_where(s, y->item[i])));
    }
    return NULL;
}
static Err *read_model(const Source *s, const Yaml *y) {
    return read_table(s, y, "model", mdr_model_params, &s->d->model);
}
static Err *read_train(const Source *s, const Yaml *y) {
    Draft *d = s->d;
    MDR_TRY(read_table(s, y, "train", mdr_train_params, &d->train));
    if (mdr_yaml_get(y, "epochs") && !mdr_yaml_get(y, "steps")) {
        d->train.steps = 0;
        for (int32_t i = 0; i < d->n_task; i++) mdr_study_train_change(d, &d->task[i], "steps", "0");
    }
    if (mdr_yaml_get(y, "lr")) d->n_lr = 1, d->lr[0] = d->train.lr;
    if (mdr_yaml_get(y, "weight_decay")) d->n_decay = 1, d->decay[0] = d->train.weight_decay;
    return NULL;
}

static Err *read_axis(const Source *s, const Yaml *y, const char *key, double *value, int32_t *n) {
    TrainParams scratch = s->d->train;
    const Param *row = mdr_params_find(mdr_train_params, key);
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SEQ, key));
    if (y->n < 1 || y->n > MDR_MOST_GRID)
        return MDR_ERR_USER("%s: %s must have 1..%d values", mdr_study_where(s, y), key, (int)MDR_MOST_GRID);
    for (int32_t i = 0; i < y->n; i++) {
        const Yaml *v = y->item[i];
        MDR_TRY(mdr_study_want(s, v, MDR_YAML_SCALAR, key));
        MDR_TRY(mdr_params_set(mdr_train_params, &scratch, key, v->text, mdr_study_where(s, v)));
        value[i] = mdr_params_get(row, &scratch);
        for (int32_t k = 0; k < i; k++)
            if (value[k] == value[i])
                return MDR_ERR_USER("%s: %s %s stands twice in the grid", mdr_study_where(s, v), key, v->text);
    }
    *n = y->n;
    return NULL;
}
static Err *read_grid(const Source *s, const Yaml *y) {
    Draft *d = s->d;
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "grid"));
    const Yaml *train = mdr_yaml_get(s->root, "train");
    for (int32_t i = 0; i < y->n; i++) {
        bool lr = strcmp(y->key[i], "lr") == 0;
        if (!lr && strcmp(y->key[i], "weight_decay") != 0)
            return MDR_ERR_USER("%s: a grid has lr and weight_decay, not `%s`", mdr_study_where(s, y->item[i]),
                                y->key[i]);
        MDR_TRY(read_axis(s, y->item[i], y->key[i], lr ? d->lr : d->decay, lr ? &d->n_lr : &d->n_decay));
        if (mdr_yaml_get(train, y->key[i])) continue;
        if (lr) d->train.lr = d->lr[0];
        else d->train.weight_decay = d->decay[0];
    }
    return NULL;
}

static Err *read_seeds(const Source *s, const Yaml *y) {
    Draft *d = s->d;
    bool list = y->kind == MDR_YAML_SEQ;
    int64_t n = y->n;
    if (!list) {
        MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, "seeds"));
        if (!mdr_text_to_int(y->text, &n))
            return MDR_ERR_USER("%s: seeds must be a number or a list, got `%s`", mdr_study_where(s, y), y->text);
    }
    if (n < 1 || n > MDR_MOST_SEEDS)
        return MDR_ERR_USER("%s: there must be 1..%d seeds", mdr_study_where(s, y), (int)MDR_MOST_SEEDS);
    for (int32_t i = 0; i < (int32_t)n; i++) {
        int64_t v = i + 1;
        if (list) {
            MDR_TRY(mdr_study_want(s, y->item[i], MDR_YAML_SCALAR, "a seed"));
            if (!mdr_text_to_int(y->item[i]->text, &v) || v < 0)
                return MDR_ERR_USER("%s: a seed must be a whole number from 0, got `%s`",
                                    mdr_study_where(s, y->item[i]), y->item[i]->text);
        }
        for (int32_t k = 0; k < i; k++)
            if (d->seed[k] == (uint64_t)v)
                return MDR_ERR_USER("%s: seed %lld stands twice", mdr_study_where(s, y), (long long)v);
        d->seed[i] = (uint64_t)v;
    }
    d->n_seed = (int32_t)n;
    return NULL;
}

static Err *unknown_layer(const Source *s, const Yaml *y, const char *name) {
    const char *names[257];
    int n = 0;
    for (; n < 256 && mdr_layer_at(n); n++) names[n] = mdr_layer_at(n)->name;
    names[n] = NULL;
    const char *what = mdr_arena_printf(s->d->arena, "%s: there is no layer", mdr_study_where(s, y));
    return MDR_ERR_UNKNOWN(what, name, names, "see `madras list layers`");
}
static void set_default(Draft *d, const char *layer, const char *key, const char *value) {
    for (int32_t i = 0; i < d->n_default; i++)
        if (!strcmp(d->layer_default[i].layer, layer) && !strcmp(d->layer_default[i].key, key)) {
            d->layer_default[i].value = value;
            return;
        }
    LayerDefault *all = mdr_arena_alloc(d->arena, (size_t)(d->n_default + 1) * sizeof *all);
    if (d->n_default) memcpy(all, d->layer_default, (size_t)d->n_default * sizeof *all);
    all[d->n_default++] = (LayerDefault){layer, key, value};
    d->layer_default = all;
}
static Err *read_layers(const Source *s, const Yaml *y) {
    Draft *d = s->d;
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_MAP, "layers"));
    for (int32_t i = 0; i < y->n; i++) {
        const LayerDef *layer = mdr_layer_find(y->key[i]);
        if (!layer) return unknown_layer(s, y->item[i], y->key[i]);
        void *scratch = mdr_arena_alloc(d->arena, layer->params_size + 1);
        MDR_TRY(read_table(s, y->item[i], layer->name, layer->params, scratch)); /* names, bounds                    */
        for (int32_t k = 0; k < y->item[i]->n; k++)
            set_default(d, layer->name, y->item[i]->key[k], y->item[i]->item[k]->text);
    }
    return NULL;
}

/* In this order whatever the order in the file. */
typedef struct Field { const char *key; Err *(*read)(const Source *s, const Yaml *y); } Field;
static const Field field[] = {{"base", NULL},          {"help", read_help},
                              {"device", read_device}, {"mean", read_mean},     {"select", read_select},
                              {"model", read_model},   {"train", read_train},
                              {"grid", read_grid},     {"seeds", read_seeds},
                              {"layers", read_layers}, {"tasks", mdr_study_read_tasks}};

Err *mdr_study_read(const Source *s, bool may_have_base) {
    const char *names[MDR_COUNT(field) + 1] = {NULL};
    for (int i = 0; i < MDR_COUNT(field); i++) names[i] = field[i].key;
    for (int32_t i = 0; i < s->root->n; i++) {
        const char *key = s->root->key[i];
        bool known = false;
        for (int k = 0; k < MDR_COUNT(field); k++) known = known || strcmp(key, field[k].key) == 0;
        if (known) continue;
        const char *where = mdr_study_where(s, s->root->item[i]);
        return MDR_ERR_UNKNOWN(mdr_arena_printf(s->d->arena, "%s: unknown key", where), key, names, NULL);
    }
    for (int i = 0; i < MDR_COUNT(field); i++) {
        const Yaml *y = mdr_yaml_get(s->root, field[i].key);
        if (y && !field[i].read && !may_have_base)
            return MDR_ERR_USER("%s: base belongs to a protocol: give this file as --protocol instead",
                                mdr_study_where(s, y));
        if (y && field[i].read) MDR_TRY(field[i].read(s, y));
    }
    return NULL;
}
