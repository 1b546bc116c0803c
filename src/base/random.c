/* Random numbers by counter. The draws themselves stand in rng.h; here they get names that other rooms can call, and
 * what only the CPU draws: normal numbers and orders. */
#include "base/rng.h"
#include "base/real_math.h"

void mdr_rng_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) { rng_block(seed, stream, index, out); }
Rng mdr_rng(uint64_t seed, uint64_t stream) { return rng_start(seed, stream); }
uint32_t mdr_rng_u32(Rng *r) { return rng_u32(r); }
uint32_t mdr_rng_below(Rng *r, uint32_t n) { return rng_below(r, n); }
double mdr_rng_unit(Rng *r) { return rng_unit(r); }

/* Two words a number, the sine is thrown away: number i of a stream stands at a fixed place. |x| < 6.8. */
double mdr_rng_normal(Rng *r) {
    double u = ((double)mdr_rng_u32(r) + 0.5) * 0x1p-32, a = mdr_rng_unit(r) * 6.283185307179586, sn, cs;
    d_sincos(a, &sn, &cs);
    return sqrt(-2.0 * d_log(u)) * cs;
}

void mdr_rng_shuffle(Rng *r, int32_t *v, int32_t n) {
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)mdr_rng_below(r, (uint32_t)i + 1), t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}
