/* model: from the text of an architecture (GRAMMAR.md) to a graph: parsing and printing, backbones (language model,
 * autoencoder), initialisation, cost report. It knows nothing of training or tasks. */
#ifndef MDR_MODEL_H
#define MDR_MODEL_H
#include "layer/layer.h"

enum { MDR_MAX_LAYERS = 4096, MDR_MAX_MIXERS = 8, MDR_MAX_CHOICES = 4096 };
typedef struct ArchMixer { const LayerDef *def; void *params; } ArchMixer;          /* params: checked for bounds          */
typedef struct ArchLayer { int32_t n_mixer; ArchMixer mixer[MDR_MAX_MIXERS]; } ArchLayer;   /* side by side, added        */
typedef struct Arch { Arena *arena; const char *label; const char *text; int32_t n_layer; ArchLayer *layer; } Arch;
typedef struct ArchList { int32_t n; Arch **arch; } ArchList;

/* A protocol's defaults for layers' parameters ("swiglu", "dim_inner", "512"); applied before what the text says. */
typedef struct LayerDefault { const char *layer, *key, *value; } LayerDefault;
/* One text may name several architectures ("|"). Errors name the column and the nearest known name. Free with
 * mdr_model_archs_free. Lua paths, `split` and mixers as values are refused with a sentence (not yet). */
MDR_API Err *mdr_model_parse(const char *text, int32_t n_default, const LayerDefault *defaults, ArchList *out);
MDR_API void mdr_model_archs_free(ArchList *l);
MDR_API void mdr_model_print(const Arch *a, Text *t);    /* printed form: groups expanded, defaults (of the layer's own table)
                                                            dropped, keys sorted; parse(print(x)) = x                     */
MDR_API void mdr_model_hashed(const Arch *a, Text *t);   /* hashed form: every parameter spelled out                      */

typedef struct ModelParams { int32_t dim, backbone, norm, init, tied; } ModelParams;
enum { BACKBONE_TASK, BACKBONE_LM, BACKBONE_AUTOENCODER };      /* words: task|language-model|autoencoder                */
enum { NORM_RMS, NORM_LAYER };                                  /* rmsnorm|layernorm                                     */
enum { INIT_MAD_LAB, INIT_PAPER };                              /* mad-lab|paper (MAD.md section 2)                      */
MDR_API extern const Param mdr_model_params[];                  /* keys dim backbone norm init tied                      */

typedef struct ModelSpec {
    const Arch *arch;
    ModelParams params;           /* backbone resolved: not BACKBONE_TASK                                                */
    int32_t vocab, rows, max_length;
} ModelSpec;
/* The forward graph. Inputs, in order: "tokens" I32 [rows] SEQ|MEMBER, "targets" the same, "inv_count" REAL [1] MEMBER.
 * Outputs: 0 loss (sum over the batch of ce * inv_count), 1 class counts [3, V]: both DT_SUM, POST.
 * Language model: embed, layers x + mixer(norm x), norm, linear with bias to V. Autoencoder: MAD.md section 3, compression. */
MDR_API Err *mdr_model_graph(const ModelSpec *s, Graph **forward);
/* Lowered for the device (`has`), with gradients: outputs: 0 loss, then d<param i> in parameter order; then its fused ops, if it has any
 * (`fuse`; NULL: as it is). with_grad false: the forward's outputs. */
typedef void FuseOps(Builder *b, void *ctx);
MDR_API Err *mdr_model_lower(const Graph *forward, HasOp *has, FuseOps *fuse, void *ctx, bool with_grad, Graph **out);
/* Starting values of one parameter: numel doubles, a function of (attr, rule, seed) only. */
MDR_API void mdr_model_init(const ParamAttr *a, Shape s, int32_t init_rule, int32_t backbone, uint64_t seed, double *out);

typedef struct ModelCost { int64_t params, state; double flops; } ModelCost;    /* flops: forward, one sequence, from the graph */
MDR_API Err *mdr_model_cost(const ModelSpec *s, ModelCost *c);
#endif
