/* The table of primitives, sorted by name, from the array that scripts/tables.sh makes of src/layer's files. */
#include "layer/layer.h"
#include <string.h>

extern const LayerDef *const mdr_layer_files[];       /* one array a file; ends with NULL                                  */

/* How many primitives come before name: its place. */
static int place(const char *name) {
    int n = 0;
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++)
            if (strcmp(d->name, name) < 0) n++;
    return n;
}

const LayerDef *mdr_layer_at(int i) {
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++)
            if (place(d->name) == i) return d;
    return NULL;
}

const LayerDef *mdr_layer_find(const char *name) {
    for (const LayerDef *const *f = mdr_layer_files; *f; f++)
        for (const LayerDef *d = *f; d->name; d++)
            if (strcmp(d->name, name) == 0) return d;
    return NULL;
}
