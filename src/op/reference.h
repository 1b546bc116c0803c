/* For src/op/NAME.c only: the text is compiled twice, with REAL=float MDR_F32 MDR_DECLARE and with REAL=double.
 * Rules: constants as (real)0.5; sums in acc (double in both); exp and friends as r_exp() etc. (real_math.h), so that no libm
 * decides the bits of a float kernel. Compiled with -ffp-contract=off. */
#ifndef MDR_REFERENCE_H
#define MDR_REFERENCE_H
#include "op/op.h"
#include "base/real_math.h"
#include <string.h>
typedef REAL real;
typedef double acc;
#ifdef MDR_F32
#define REF(name) name##_f32
#else
#define REF(name) name##_f64
#endif
#define MDR_REF(name)                                                                                                  \
    void name##_f32(const Call *, int64_t, int64_t);                                                                   \
    void name##_f64(const Call *, int64_t, int64_t);                                                                   \
    void REF(name)(const Call *c, int64_t unit0, int64_t unit1)
#define MDR_REFS(name) {.run = name##_f32}, {.run = name##_f64}
/* for (int m..) for (int s..): the reference's two outer loops. unit0 and unit1 are ignored (one unit). */
#define FOR_SEQUENCES(c)                                                                                               \
    (void)unit0; (void)unit1;                                                                                          \
    for (int32_t m = 0; m < (c)->extent.n_member; m++)                                                                 \
        for (int32_t s = 0; s < (c)->extent.n_seq; s++)
#define IN(type, i) ((const type *)c->in[i].data + m * c->in[i].member + s * c->in[i].seq)     /* only if data != NULL */
#define OUT(type, i) ((type *)c->out[i].data + m * c->out[i].member + s * c->out[i].seq)
#define HAS_IN(i) (c->in[i].data != NULL)
#define HAS_OUT(i) (c->out[i].data != NULL)
#define ADDS(i) ((c->add >> (i)) & 1u)        /* rule 5: accumulate; without it overwrite (zero first)                  */
#define IN_SHAPE(i) (c->node->in_type[i].shape)
#define OUT_SHAPE(i) (c->node->out[i].shape)
#define LD_IN(i) (c->in[i].ld)
#define LD_OUT(i) (c->out[i].ld)
#endif
