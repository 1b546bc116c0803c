/* Reading the text of an architecture into a tree, by recursive descent:
 *   model = [ label "=" ] stack       stack = item { SPACE item }      item  = unit [ "*" N | "@" N ]
 *   unit  = layer | "(" stack ")"     layer = mixer { "+" mixer }      mixer = name [ "(" key "=" value { "," .. } ")" ]
 *   value = (number | word) { "|" value }   *N repeats, @N repeats until N layers; "(" straight after a name opens parameters
 * Every error names the column, counted in bytes from 1. What is not possible yet (Lua files, split, mixers as values) is
 * refused here, each with its own sentence. */
#include "model/internal.h"
#include <string.h>

enum { LONGEST_WORD = 64 };

typedef struct Reader {
    const char *text, *at;
    ArchText *out;
    Choice **last_choice;
    int32_t depth;
} Reader;

static Err *stack(Reader *r, Stack *s);

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
/* What ends a word: signs of the grammar, and every byte a terminal might obey or a message could not show. */
static bool is_special(char c) { return c <= ' ' || c >= 127 || strchr("()*@+|,=", c) != NULL; }
static void skip(Reader *r) { while (is_space(*r->at)) r->at++; }
static int column(const Reader *r, const char *at) { return (int)(at - r->text) + 1; }

/* A run of characters that mean nothing to the grammar; "" if there is none. */
static const char *word(Reader *r) {
    const char *from = r->at;
    while (!is_special(*r->at)) r->at++;
    return mdr_arena_printf(r->out->arena, "%.*s", (int)(r->at - from), from);
}
/* A value may be a number with a sign in its exponent: 1e+16. */
static const char *value_word(Reader *r) {
    const char *from = r->at;
    bool number = (*from >= '0' && *from <= '9') || *from == '.' || *from == '-';
    while (!is_special(*r->at) || (number && *r->at == '+' && (r->at[-1] == 'e' || r->at[-1] == 'E'))) r->at++;
    return mdr_arena_printf(r->out->arena, "%.*s", (int)(r->at - from), from);
}
/* For messages: short and printable. */
static const char *shown(Reader *r, const char *s) {
    char buf[64];
    int n = 0;
    for (; *s && n < 40; s++) buf[n++] = *s > ' ' && *s < 127 ? *s : '?';
    return mdr_arena_printf(r->out->arena, "%.*s%s", n, buf, *s ? "..." : "");
}
static const char *found(Reader *r) {
    if (!*r->at) return "the end";
    char one[2] = {*r->at, 0};
    return mdr_arena_printf(r->out->arena, "`%s`", shown(r, one));
}
#define FAIL(r, at, ...) fail(r, at, mdr_arena_printf((r)->out->arena, __VA_ARGS__))
static Err *fail(const Reader *r, const char *at, const char *what) {
    return MDR_ERR_USER("architecture, column %d: %s", column(r, at), what);
}

static Err *unknown_layer(Reader *r, const char *at, const char *name) {
    enum { MOST = 512 };
    const char *names[MOST + 1] = {NULL};
    for (int i = 0; i < MOST && mdr_layer_at(i); i++) names[i] = mdr_layer_at(i)->name;
    const char *what = mdr_arena_printf(r->out->arena, "architecture, column %d: unknown layer", column(r, at));
    return MDR_ERR_UNKNOWN(what, shown(r, name), names, "`madras list layers` names them all");
}

/* value { "|" value } */
static Err *values(Reader *r, const LayerDef *def, Setting *s) {
    const Param *p = mdr_params_find(def->params, s->key);
    int32_t cap = 0;
    do {
        skip(r);
        const char *at = r->at, *v = value_word(r);
        if (strlen(v) > LONGEST_WORD) return FAIL(r, at, "`%s`: too long for a value", shown(r, v));
        if (!*v && *r->at != '(') return FAIL(r, at, "expected a value of `%s`, found %s", s->key, found(r));
        const char *after = r->at;
        skip(r);
        bool mixer = *r->at == '(' || *r->at == '+' || (mdr_layer_find(v) && !(p && p->type == MDR_WORD));
        if (mixer) return FAIL(r, at, "`%s` is given a layer; layers as values of parameters are not possible yet", s->key);
        if (*r->at != '|' && *r->at != ',' && *r->at != ')')
            return FAIL(r, after, "expected `,`, `|` or `)` after a value, found %s", found(r));
        if (s->n == MDR_MAX_CHOICES) return FAIL(r, at, "more than %d choices", MDR_MAX_CHOICES);
        if (s->n == cap) {
            const char **more = mdr_arena_alloc(r->out->arena, 2 * (size_t)(cap + 1) * sizeof *more);
            if (cap) memcpy(more, s->value, (size_t)cap * sizeof *more);
            s->value = more;
            cap = 2 * (cap + 1);
        }
        s->value[s->n++] = v;
        void *scratch = mdr_alloc(def->params_size + 1);
        Err *e = mdr_params_set(def->params, scratch, s->key, v, def->name);
        mdr_free(scratch);
        if (e) return mdr_err_wrap(e, "architecture, column %d", column(r, at));
    } while (*r->at == '|' && r->at++);
    return NULL;
}

static Err *add_choice(Reader *r, const char *at, Setting *s) {
    if (s->n < 2) return NULL;
    ArchText *t = r->out;
    if ((int64_t)t->n_arch * s->n > MDR_MAX_CHOICES)
        return FAIL(r, at, "the choices make more than %d architectures", MDR_MAX_CHOICES);
    t->n_arch *= s->n;
    s->choice = t->n_choice++;
    Choice *c = mdr_arena_alloc(t->arena, sizeof *c);
    c->n = s->n;
    *r->last_choice = c;
    r->last_choice = &c->next;
    return NULL;
}

/* Behind the "(" of a mixer's parameters. */
static Err *settings(Reader *r, MixerText *m) {
    Setting **last = &m->setting;
    const char *open = r->at - 1;
    for (;;) {
        skip(r);
        if (*r->at == ')' && !m->setting) break;
        const char *at = r->at;
        Setting *s = mdr_arena_alloc(r->out->arena, sizeof *s);
        s->key = word(r);
        skip(r);
        if (!*r->at && !*s->key) return FAIL(r, open, "this parenthesis is never closed");
        if (*r->at != '=') return FAIL(r, at, "expected key=value for `%s`, found %s", m->def->name, *s->key ? shown(r, s->key) : found(r));
        r->at++;
        if (!mdr_params_find(m->def->params, s->key)) {
            Err *e = mdr_params_set(m->def->params, NULL, shown(r, s->key), "", m->def->name);
            return mdr_err_wrap(e, "architecture, column %d", column(r, at));
        }
        for (const Setting *o = m->setting; o; o = o->next)
            if (strcmp(o->key, s->key) == 0) return FAIL(r, at, "`%s` is given twice", s->key);
        MDR_TRY(values(r, m->def, s));
        MDR_TRY(add_choice(r, at, s));
        *last = s;
        last = &s->next;
        if (*r->at == ')') break;
        r->at++;
    }
    r->at++;
    return NULL;
}

/* A file that began as a copy of another and kept its name would change what every command means by that name. */
static bool is_twice(const char *name) {
    int n = 0;
    for (int i = 0; mdr_layer_at(i); i++) n += strcmp(mdr_layer_at(i)->name, name) == 0;
    return n > 1;
}

static Err *mixer(Reader *r, MixerText *m) {
    const char *at = r->at, *name = word(r);
    size_t n = strlen(name);
    m->column = column(r, at);
    if (n == 0 && *at == '|') return FAIL(r, at, "`|` stands between values of a parameter only; give two architectures instead");
    if (n == 0 && *at == ',') return FAIL(r, at, "commas never separate layers; put a space");
    if (n == 0 && *at == '=') return FAIL(r, at, "a label stands once, before everything else: label=...");
    if (n == 0) return FAIL(r, at, "expected a layer, found %s", found(r));
    if (n > 4 && strcmp(name + n - 4, ".lua") == 0)
        return FAIL(r, at, "`%s`: layers written in Lua are not possible yet; docs/adding-a-primitive.md shows how to add one in C", shown(r, name));
    if (strcmp(name, "split") == 0) return FAIL(r, at, "`split` (mixers that share the channels out) is not possible yet");
    m->def = mdr_layer_find(name);
    if (!m->def) return unknown_layer(r, at, name);
    if (is_twice(name)) return FAIL(r, at, "two files of src/layer define a layer `%s`: give one of them another .name and build again", name);
    if (*r->at != '(') return NULL;
    r->at++;
    return settings(r, m);
}

static Err *layer(Reader *r, Item *it) {
    for (;;) {
        if (it->n_mixer == MDR_MAX_MIXERS) return FAIL(r, r->at, "more than %d mixers side by side", MDR_MAX_MIXERS);
        if (*r->at == '(') return FAIL(r, r->at, "`+` joins layers, not groups");
        MDR_TRY(mixer(r, &it->mixer[it->n_mixer]));
        it->n_mixer++;
        skip(r);
        if (*r->at != '+') return NULL;
        r->at++;
        skip(r);
    }
}

static Err *count(Reader *r, int32_t *n, char sign) {
    skip(r);
    const char *at = r->at, *w = word(r);
    int64_t v;
    if (!mdr_text_to_int(w, &v) || v < 1 || v > MDR_MAX_LAYERS)
        return FAIL(r, at, "expected a number from 1 to %d after `%c`, found %s", MDR_MAX_LAYERS, sign, *w ? shown(r, w) : found(r));
    *n = (int32_t)v;
    return NULL;
}

static Err *item(Reader *r, Item *it) {
    const char *at = r->at;
    bool group = *at == '(';
    if (group) {
        if (r->depth == MDR_MAX_NESTING) return FAIL(r, at, "groups are nested deeper than %d", MDR_MAX_NESTING);
        r->depth++;
        r->at++;
        MDR_TRY(stack(r, &it->group));
        r->depth--;
        if (*r->at != ')') return FAIL(r, at, "this parenthesis is never closed");
        r->at++;
        it->n_layer = it->group.n_layer;
    } else {
        MDR_TRY(layer(r, it));
        it->n_layer = 1;
    }
    const char *end = r->at;
    skip(r);
    if (group && *r->at == '+') return FAIL(r, r->at, "`+` joins layers, not groups");
    if (*r->at == '*' || *r->at == '@') {
        char sign = *r->at++;
        MDR_TRY(count(r, sign == '*' ? &it->repeat : &it->until, sign));
        end = r->at;
        int64_t n = it->until ? it->until : (int64_t)it->n_layer * it->repeat;
        if (n > MDR_MAX_LAYERS) return FAIL(r, at, "more than %d layers", MDR_MAX_LAYERS);
        it->n_layer = (int32_t)n;
        skip(r);
    }
    if (*r->at == '*' || *r->at == '@') return FAIL(r, r->at, "a second count; put the first one into parentheses");
    if (*r->at && *r->at != ')' && end == r->at && (r->at[-1] == ')' || it->repeat || it->until) && !strchr(",|=", *r->at))
        return FAIL(r, r->at, "expected a space between layers, found %s", found(r));
    return NULL;
}

static Err *stack(Reader *r, Stack *s) {
    Item **last = &s->first;
    const char *from = r->at;
    for (skip(r); *r->at && *r->at != ')'; skip(r)) {
        const char *at = r->at;
        Item *it = mdr_arena_alloc(r->out->arena, sizeof *it);
        MDR_TRY(item(r, it));
        if (it->n_layer > MDR_MAX_LAYERS - s->n_layer) return FAIL(r, at, "more than %d layers", MDR_MAX_LAYERS);
        s->n_layer += it->n_layer;
        *last = it;
        last = &it->next;
    }
    if (!s->first) return FAIL(r, from, r->depth ? "an empty group" : "an architecture needs at least one layer");
    return NULL;
}

static bool in_label(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}
/* label "=" : known by the "=" behind the first word. */
static Err *label(Reader *r) {
    skip(r);
    const char *at = r->at, *w = word(r);
    skip(r);
    if (*r->at != '=') {
        r->at = at;
        return NULL;
    }
    if (!*w) return FAIL(r, at, "expected a label before `=`");
    for (const char *c = w; *c; c++)
        if (!in_label(*c)) return FAIL(r, at + (c - w), "a label is made of letters, digits, `.`, `_` and `-`");
    r->at++;
    r->out->label = w;
    return NULL;
}

Err *mdr_model_read(const char *text, ArchText *out) {
    Reader r = {.text = text, .at = text, .out = out, .last_choice = &out->choice};
    out->n_arch = 1;
    if (strlen(text) > 1 << 20) return MDR_ERR_USER("architecture: longer than a million characters");
    MDR_TRY(label(&r));
    MDR_TRY(stack(&r, &out->stack));
    if (*r.at == ')') return FAIL(&r, r.at, "this parenthesis closes nothing");
    if ((int64_t)out->n_arch * out->stack.n_layer > MDR_MAX_LAYERS_ALL)
        return MDR_ERR_USER("architecture: %d choices of %d layers each are too many for one text (%d layers in all)", out->n_arch,
                            out->stack.n_layer, MDR_MAX_LAYERS_ALL);
    return NULL;
}
