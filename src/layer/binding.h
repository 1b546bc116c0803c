/* Where a layer's parameters come from while its step is built: first learned from a dry run, then bound to the inputs of a
 * scan's body. The layer notices neither. */
#ifndef MDR_LAYER_BINDING_H
#define MDR_LAYER_BINDING_H
#include "layer/layer.h"

typedef struct BoundParam { const char *name; Shape shape; Init init; Value value; } BoundParam;
struct LayerBinding {
    bool learning;                    /* note what is asked for; else answer from value                                   */
    Arena *arena;                     /* of names and of initial tables                                                   */
    int32_t n;
    BoundParam param[MDR_MAX_IN];
};
#endif
