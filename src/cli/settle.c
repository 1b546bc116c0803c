/* The options that say what is run: protocol -> config -> --set; and the architectures. */
#include "cli/internal.h"
#include <string.h>

Err *mdr_cli_settle(const Args *a, bool single, const char *tasks, const char *default_protocol, Protocol **p)
{
    const OptionValue *protocol = mdr_cli_option(a, "protocol"), *config = mdr_cli_option(a, "config"), *set = mdr_cli_option(a, "set");
    const OptionValue *seeds = mdr_cli_option(a, "seeds"), *precision = mdr_cli_option(a, "precision");
    Text text = {0};
    const char **all = mdr_alloc((size_t)(set->n + 1) * sizeof *all);
    int32_t n_set = set->n;
    for (int32_t i = 0; i < n_set; i++) all[i] = set->list[i];
    if (precision->given) {
        mdr_text_printf(&text, "precision=%s", precision->text);
        all[n_set++] = mdr_text_str(&text);
    }
    SettleSpec s = {.protocol = protocol->given ? protocol->text : default_protocol, .config = config->given ? config->text : NULL,
                    .tasks = tasks, .set = all, .n_set = n_set, .seeds = seeds->given ? (int32_t)seeds->number : 0, .single = single};
    Err *e = mdr_study_settle(&s, p);
    mdr_free(all);
    mdr_text_free(&text);
    return e;
}

Err *mdr_cli_archs(const Protocol *p, const char *const *word, int32_t n_word, const OptionValue *layers, ArchList *out)
{
    *out = (ArchList){0};
    Text line = {0};
    for (int32_t i = 0; i < layers->n; i++) mdr_text_printf(&line, i ? " %s" : "%s", layers->list[i]);
    Err *e = NULL;
    for (int32_t i = 0; !e && i < n_word + (layers->n > 0); i++) {
        ArchList one = {0};
        e = mdr_model_parse(i < n_word ? word[i] : mdr_text_str(&line), p->n_default, p->layer_default, &one);
        if (e) break;
        out->arch = mdr_realloc(out->arch, (size_t)(out->n + one.n) * sizeof *out->arch);
        for (int32_t k = 0; k < one.n; k++) out->arch[out->n++] = one.arch[k];
        mdr_free(one.arch);                       /* the architectures moved to the list                                  */
    }
    mdr_text_free(&line);
    if (e) mdr_model_archs_free(out);
    return e;
}
