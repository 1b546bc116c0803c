/* layer: the computational primitives, one file each (or a small family): src/layer/NAME.c defines
 * `const LayerDef mdr_layers_NAME[]`, ended by name == NULL. A primitive declares its parameters (bounds, defaults, help), builds
 * its graph over ONE sequence [L, D] -> [L, D] and says how many scalars it must remember to go on generating.
 * It knows nothing of batches, devices, norms or residuals (the model adds those). */
#ifndef MDR_LAYER_H
#define MDR_LAYER_H
#include "op/op.h"

enum { MDR_MAX_CARRY = 4 };
typedef struct LayerBinding LayerBinding;     /* where parameters come from: new ones, or a scan body's constants         */

typedef struct LayerContext {
    Builder *b;
    int32_t dim;                  /* D                                                                                   */
    int32_t length;               /* rows of x: L in build, 1 in step                                                    */
    int32_t max_length;           /* the setting's seq_len: what filters and caches are sized for; length <= max_length  */
    const void *params;           /* the layer's own struct, defaults filled in and checked                              */
    const char *name;             /* "layer 3 hyena": prefix of parameter names and label of nodes                       */
    LayerBinding *binding;        /* NULL in build                                                                       */
} LayerContext;

typedef struct LayerDef {
    const char *name;             /* as written in an architecture                                                       */
    const char *help;             /* one line, with the paper                                                            */
    const Param *params;          /* table; may be empty (first row name == NULL)                                        */
    size_t params_size;
    bool mixes;                   /* true: a sequence mixer; false: a channel mixer (each position alone)                */
    Err *(*check)(const void *params, int32_t dim, int32_t max_length);      /* NULL: bounds suffice; heads divide dim ... */
    Value (*build)(LayerContext *c, Value x);                                /* [L, D] -> [L, D], causal                 */
    int64_t (*state)(const void *params, int32_t dim, int32_t length);       /* scalars remembered a sequence; NULL = 0  */
    /* One token and a carry, where a recurrent form exists (NULL otherwise). carry(): number of carries and their shapes, all
     * starting at zero. step: x [1, D] -> [1, D]; reads carry[], sets next[]. t [1]: the position as a real number. */
    int32_t (*carry)(const LayerContext *c, Shape *shape);
    Value (*step)(LayerContext *c, Value x, Value t, const Value *carry, Value *next);
} LayerDef;

MDR_API const LayerDef *mdr_layer_at(int i);             /* NULL past the end; sorted by name                              */
MDR_API const LayerDef *mdr_layer_find(const char *name);

/* A parameter of this layer, full name "<context name>.<name>": every weight is made through this, in build and in step alike
 * (in a step it is the same parameter, bound as a constant of the scan's body). */
MDR_API Value mdr_layer_param(LayerContext *c, const char *name, Shape s, Init init);
/* y = x W (+ b): W [in, out] INIT_LINEAR, b INIT_LINEAR_BIAS; parameters "<name>.weight", "<name>.bias". */
MDR_API Value mdr_layer_linear(LayerContext *c, const char *name, Value x, int32_t out, bool bias);
/* The layer as scan(step) over x: the recurrent form over the same parameters; absent if the layer has no step. */
MDR_API Value mdr_layer_scan(const LayerDef *def, LayerContext *c, Value x);
#endif
