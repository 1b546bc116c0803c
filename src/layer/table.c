/* The table of primitives, sorted by name, from the array that scripts/tables.sh makes of src/layer's files. */
#include "layer/layer.h"
#include <string.h>

extern const LayerDef *const mdr_layer_files[];       /* one array a file; ends with NULL                                  */

/* How many primitives come before one: its place. Of two with one name (a copied file) the one whose file comes first. */
static int place(const LayerDef *of) {
    int n = 0;
    bool behind = false;
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++) {
            int order = strcmp(d->name, of->name);
            behind = behind || d == of;
            if (order < 0 || (order == 0 && !behind)) n++;
        }
    return n;
}

const LayerDef *mdr_layer_at(int i) {
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++)
            if (place(d) == i) return d;
    return NULL;
}

const LayerDef *mdr_layer_find(const char *name) {
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++)
            if (strcmp(d->name, name) == 0) return d;
    return NULL;
}
