/* What parsing and expansion share: the tree of a text. A choice ("a|b" as a parameter's value) is one place in the text with
 * several values; expansion turns it like a wheel of an odometer, the last one fastest. */
#ifndef MDR_MODEL_INTERNAL_H
#define MDR_MODEL_INTERNAL_H
#include "model/model.h"

enum { MDR_MAX_NESTING = 32, MDR_MAX_LAYERS_ALL = 1 << 18 };      /* the latter: over all architectures of one text        */

typedef struct Setting { const char *key; const char **value; int32_t n, choice; struct Setting *next; } Setting;   /* choice: its number; n == 1: none */
typedef struct MixerText { const LayerDef *def; Setting *setting; int32_t column; } MixerText;
typedef struct Item Item;
typedef struct Stack { Item *first; int32_t n_layer; } Stack;
struct Item {
    int32_t n_mixer;                                              /* 0: a group                                            */
    MixerText mixer[MDR_MAX_MIXERS];
    Stack group;
    int32_t repeat, until;                                        /* *N, or 0; @N, or 0                                    */
    int32_t n_layer;
    Item *next;
};
typedef struct Choice { int32_t n; struct Choice *next; } Choice;   /* in order of the text                                */
typedef struct ArchText {
    Arena *arena;
    const char *label;                                            /* or NULL                                               */
    Stack stack;
    Choice *choice;
    int32_t n_choice, n_arch;
    int32_t n_default;
    const LayerDefault *defaults;
} ArchText;

Err *mdr_model_read(const char *text, ArchText *out);             /* arena and defaults given; the tree lives in the arena  */
/* The parameters of a mixer under the defaults; option[choice number] says which value of each choice. */
Err *mdr_model_mixer_params(const ArchText *t, const MixerText *m, const int32_t *option, void *params);
#endif
