/* Options: one description feeds the parser, --help and the man page (help.c). Accepted: --name VALUE, --name=VALUE, flags,
 * "--" ends options. Unknown options name the nearest. */
#include "cli/internal.h"
#include <string.h>

const OptionDef mdr_cli_common[] = {
    {"help", OPT_FLAG, NULL, "print this help", 0, 0, false},
    {0}};

static int find(const OptionDef *t, const char *name, size_t n)
{
    for (int i = 0; t[i].name; i++)
        if (strlen(t[i].name) == n && strncmp(t[i].name, name, n) == 0) return i;
    return -1;
}

static Err *unknown(const CommandDef *c, const Args *a, const char *word, int n)
{
    Arena *arena = mdr_arena_new();
    const char *names[64];
    int k = 0;
    for (; a->option[k].name && k < 63; k++) names[k] = mdr_arena_printf(arena, "--%s", a->option[k].name);
    names[k] = NULL;
    Err *e = MDR_ERR_UNKNOWN(mdr_arena_printf(arena, "%s has no option", c->name), mdr_arena_printf(arena, "--%.*s", n, word), names,
                             mdr_arena_printf(arena, "see madras %s --help", c->name));
    mdr_arena_free(arena);
    return e;
}

static Err *set(const OptionDef *o, OptionValue *v, const char *text)
{
    if (v->given && o->type != OPT_LIST) return MDR_ERR_USER("--%s is given twice", o->name);
    v->given = true;
    v->text = text;
    if (o->type == OPT_INT) {
        if (!mdr_text_to_int(text, &v->number)) return MDR_ERR_USER("--%s wants a whole number, got \"%s\"", o->name, text);
        if (!((double)v->number >= o->lo && (double)v->number <= o->hi))
            return MDR_ERR_USER("--%s must be %.0f to %.0f, got %s", o->name, o->lo, o->hi, text);
    }
    if (o->type == OPT_LIST) {
        v->list = mdr_realloc(v->list, (size_t)(v->n + 1) * sizeof *v->list);
        v->list[v->n++] = text;
    }
    return NULL;
}

static Err *parse_option(const CommandDef *c, Args *a, int *i, int argc, char **argv)
{
    const char *word = argv[*i] + 2, *eq = strchr(word, '=');
    size_t n = eq ? (size_t)(eq - word) : strlen(word);
    int k = find(a->option, word, n);
    if (k < 0) return unknown(c, a, word, (int)n);
    const OptionDef *o = &a->option[k];
    if (o->type == OPT_FLAG) {
        if (eq) return MDR_ERR_USER("--%s takes no value", o->name);
        return set(o, &a->value[k], "");
    }
    if (eq) return set(o, &a->value[k], eq + 1);
    if (*i + 1 >= argc) return MDR_ERR_USER("--%s wants %s after it", o->name, o->value);
    do MDR_TRY(set(o, &a->value[k], argv[++*i]));
    while (o->takes_rest && *i + 1 < argc && strncmp(argv[*i + 1], "--", 2) != 0);
    return NULL;
}

Err *mdr_cli_parse(const CommandDef *c, int argc, char **argv, Args *a)
{
    int n_own = 0, n_common = 0;
    while (c->options && c->options[n_own].name) n_own++;
    while (mdr_cli_common[n_common].name) n_common++;
    OptionDef *all = mdr_alloc((size_t)(n_own + n_common + 1) * sizeof *all);
    for (int i = 0; i < n_own; i++) all[i] = c->options[i];
    for (int i = 0; i < n_common; i++) all[n_own + i] = mdr_cli_common[i];
    *a = (Args){.option = all, .value = mdr_alloc((size_t)(n_own + n_common + 1) * sizeof *a->value)};
    a->word = mdr_alloc((size_t)(argc + 1) * sizeof *a->word);
    bool only_words = false;
    for (int i = 0; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) { only_words = true; continue; }
        if (!only_words && strcmp(argv[i], "-h") == 0) { a->value[find(all, "help", 4)].given = true; continue; }
        if (!only_words && argv[i][0] == '-' && argv[i][1] == '-') MDR_TRY(parse_option(c, a, &i, argc, argv));
        else if (!only_words && argv[i][0] == '-' && argv[i][1])
            return MDR_ERR_USER("%s has no option %s; options begin with --, see madras %s --help", c->name, argv[i], c->name);
        else a->word[a->n_word++] = argv[i];
    }
    return NULL;
}

void mdr_cli_args_free(Args *a)
{
    for (int i = 0; a->option && a->option[i].name; i++) mdr_free(a->value[i].list);
    mdr_free((void *)(uintptr_t)a->option);
    mdr_free(a->value);
    mdr_free(a->word);
}

const OptionValue *mdr_cli_option(const Args *a, const char *name)
{
    static const OptionValue none = {0};
    int k = find(a->option, name, strlen(name));
    return k < 0 ? &none : &a->value[k];
}
