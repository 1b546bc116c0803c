/* Architectures as text: the printed form (to read, and to be parsed again) and the hashed form (what makes a trial's key). */
#include "model/model.h"
#include <string.h>

enum { MOST_PARAMS = 64 };

/* Rows of a table in order of their names; returns how many. */
static int sorted(const Param *t, const Param **row) {
    int n = 0;
    for (; t->name && n < MOST_PARAMS; t++) {
        int i = n++;
        for (; i > 0 && strcmp(row[i - 1]->name, t->name) > 0; i--) row[i] = row[i - 1];
        row[i] = t;
    }
    return n;
}

static void print_mixer(const ArchMixer *m, bool every, Text *t) {
    const Param *row[MOST_PARAMS];
    int n = sorted(m->def->params, row), written = 0;
    mdr_text_printf(t, "%s", m->def->name);
    for (int i = 0; i < n; i++) {
        if (!every && mdr_params_get(row[i], m->params) == row[i]->def) continue;
        mdr_text_printf(t, "%s%s=", written++ ? "," : "(", row[i]->name);
        mdr_params_text(row[i], m->params, t);
    }
    if (written) mdr_text_printf(t, ")");
}

static void print_layers(const Arch *a, bool every, Text *t) {
    for (int32_t i = 0; i < a->n_layer; i++)
        for (int32_t k = 0; k < a->layer[i].n_mixer; k++) {
            mdr_text_printf(t, "%s", k ? "+" : i ? " " : "");
            print_mixer(&a->layer[i].mixer[k], every, t);
        }
}

void mdr_model_print(const Arch *a, Text *t) {
    if (a->label) mdr_text_printf(t, "%s=", a->label);
    print_layers(a, false, t);
}

void mdr_model_hashed(const Arch *a, Text *t) { print_layers(a, true, t); }   /* a label changes no trial                  */
