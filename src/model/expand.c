/* From the tree of a text to architectures: groups unrolled, one architecture for each combination of choices. */
#include "model/internal.h"
#include <string.h>

Err *mdr_model_mixer_params(const ArchText *t, const MixerText *m, const int32_t *option, void *params) {
    mdr_params_default(m->def->params, params);
    for (int32_t i = 0; i < t->n_default; i++) {
        const LayerDefault *d = &t->defaults[i];
        if (strcmp(d->layer, m->def->name) != 0) continue;
        MDR_TRY(mdr_err_wrap(mdr_params_set(m->def->params, params, d->key, d->value, m->def->name), "the protocol's default"));
    }
    for (const Setting *s = m->setting; s; s = s->next) {
        const char *v = s->value[s->n > 1 ? option[s->choice] : 0];
        MDR_TRY(mdr_err_wrap(mdr_params_set(m->def->params, params, s->key, v, m->def->name), "architecture, column %d", m->column));
    }
    return NULL;
}

static Err *unroll(const ArchText *t, const Stack *s, const int32_t *option, Arch *a);

static Err *one_layer(const ArchText *t, const Item *it, const int32_t *option, Arch *a) {
    ArchLayer *l = &a->layer[a->n_layer];
    l->n_mixer = it->n_mixer;
    for (int32_t i = 0; i < it->n_mixer; i++) {
        l->mixer[i].def = it->mixer[i].def;
        l->mixer[i].params = mdr_arena_alloc(a->arena, it->mixer[i].def->params_size);
        MDR_TRY(mdr_model_mixer_params(t, &it->mixer[i], option, l->mixer[i].params));
    }
    a->n_layer++;
    return NULL;
}

/* The pattern once, then copies of its layers (they share their parameters) until n_layer; or fewer than once. */
static Err *one_item(const ArchText *t, const Item *it, const int32_t *option, Arch *a) {
    int32_t from = a->n_layer;
    MDR_TRY(it->n_mixer ? one_layer(t, it, option, a) : unroll(t, &it->group, option, a));
    int32_t pattern = a->n_layer - from;
    for (; a->n_layer - from < it->n_layer; a->n_layer++) a->layer[a->n_layer] = a->layer[a->n_layer - pattern];
    a->n_layer = from + it->n_layer;
    return NULL;
}
static Err *unroll(const ArchText *t, const Stack *s, const int32_t *option, Arch *a) {
    for (const Item *it = s->first; it; it = it->next) MDR_TRY(one_item(t, it, option, a));
    return NULL;
}

/* A group longer than its "@N" is unrolled in full before it is cut: room for the widest point. */
static int32_t widest(const Stack *s) {
    int32_t at = 0, most = 0;
    for (const Item *it = s->first; it; it = it->next) {
        int32_t w = it->n_mixer ? 1 : widest(&it->group);
        if (at + w > most) most = at + w;
        at += it->n_layer;
        if (at > most) most = at;
    }
    return most;
}

static Err *one_arch(const ArchText *t, const char *text, const int32_t *option, Arch **out) {
    Arena *arena = mdr_arena_new();
    Arch *a = *out = mdr_arena_alloc(arena, sizeof *a);
    a->arena = arena;
    if (t->label) a->label = mdr_arena_strdup(arena, t->label);
    a->layer = mdr_arena_alloc(arena, (size_t)widest(&t->stack) * sizeof *a->layer);
    MDR_TRY(unroll(t, &t->stack, option, a));
    a->text = mdr_arena_strdup(arena, text);
    if (t->n_arch > 1) {                                     /* what was written names several: the printed form names one */
        Text p = {0};
        mdr_model_print(a, &p);
        a->text = mdr_arena_strdup(arena, mdr_text_str(&p));
        mdr_text_free(&p);
    }
    return NULL;
}

static Err *all(const ArchText *t, const char *text, ArchList *out) {
    int32_t *option = mdr_arena_alloc(t->arena, (size_t)t->n_choice * sizeof *option), *n = option;
    if (t->n_choice) n = mdr_arena_alloc(t->arena, (size_t)t->n_choice * sizeof *n);
    int32_t k = 0;
    for (const Choice *c = t->choice; c; c = c->next) n[k++] = c->n;
    out->arch = mdr_alloc((size_t)t->n_arch * sizeof *out->arch);
    for (int32_t i = 0; i < t->n_arch; i++) {
        out->n = i + 1;
        MDR_TRY(one_arch(t, text, option, &out->arch[i]));
        for (k = t->n_choice - 1; k >= 0 && ++option[k] == n[k]; k--) option[k] = 0;
    }
    return NULL;
}

Err *mdr_model_parse(const char *text, int32_t n_default, const LayerDefault *defaults, ArchList *out) {
    *out = (ArchList){0};
    ArchText t = {.arena = mdr_arena_new(), .n_default = n_default, .defaults = defaults};
    Err *e = mdr_model_read(text, &t);
    if (!e) e = all(&t, text, out);
    mdr_arena_free(t.arena);
    if (e) mdr_model_archs_free(out);
    return e;
}

void mdr_model_archs_free(ArchList *l) {
    for (int32_t i = 0; i < l->n; i++)
        if (l->arch[i]) mdr_arena_free(l->arch[i]->arena);
    mdr_free(l->arch);
    *l = (ArchList){0};
}
