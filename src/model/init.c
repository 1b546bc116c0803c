/* Starting values of parameters. Each parameter has its own stream of random numbers, named by its name: a layer added in front
 * or a wider neighbour changes nothing in it. Two rules (MAD's code as released, and of its paper's time), see mdr_model_params. */
#include "model/model.h"
#include "base/real_math.h"

/* Mamba's: x with softplus(x) = exp(uniform between ln a and ln b). */
static double draw_dt(Rng *r, double a, double b) {
    double dt = d_exp(d_log(a) + (d_log(b) - d_log(a)) * mdr_rng_unit(r));
    return d_log(d_exp(dt) - 1.0);
}

void mdr_model_init(const ParamAttr *p, Shape s, int32_t init_rule, int32_t backbone, uint64_t seed, double *out) {
    const Init *in = &p->init;
    bool narrow = init_rule == INIT_PAPER || backbone == BACKBONE_AUTOENCODER;      /* every linear map N(0, .02^2)         */
    double reach = in->kind == INIT_LINEAR ? 1.0 / sqrt(in->a) : 0.0;
    Rng r = mdr_rng(seed, mdr_hash64(p->name));
    for (int64_t i = 0, n = mdr_numel(s); i < n; i++) switch (in->kind) {
        case INIT_CONST: out[i] = in->a; break;
        case INIT_NORMAL: out[i] = in->a * mdr_rng_normal(&r); break;
        case INIT_UNIFORM: out[i] = in->a + (in->b - in->a) * mdr_rng_unit(&r); break;
        case INIT_TABLE: out[i] = in->table[i]; break;
        case INIT_LINEAR: out[i] = narrow ? 0.02 * mdr_rng_normal(&r) : reach * (2.0 * mdr_rng_unit(&r) - 1.0); break;
        case INIT_LINEAR_BIAS: out[i] = 0.0; break;
        case INIT_DT_BIAS: out[i] = narrow ? 0.0 : draw_dt(&r, in->a, in->b); break;
        }
}
