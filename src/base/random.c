/* Random numbers by counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). Key = seed; counter = index in the low two words,
 * stream in the high two: any value of any stream is had without those before it. */
#include "base/base.h"
#include "base/real_math.h"
#include <Random123/philox.h>

void mdr_rng_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    philox4x32_ctr_t c = {{(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++) out[i] = r.v[i];
}

Rng mdr_rng(uint64_t seed, uint64_t stream) { return (Rng){.seed = seed, .stream = stream}; }

uint32_t mdr_rng_u32(Rng *r) {
    if (r->left == 0) {
        mdr_rng_block(r->seed, r->stream, r->index++, r->buf);
        r->left = 4;
    }
    return r->buf[4 - r->left--];
}

/* Lemire 2019: the high half of x*n, redrawn while the low half lies in the short rest. */
uint32_t mdr_rng_below(Rng *r, uint32_t n) {
    uint64_t m = (uint64_t)mdr_rng_u32(r) * n;
    if ((uint32_t)m < n) {
        uint32_t rest = (0u - n) % n;
        while ((uint32_t)m < rest) m = (uint64_t)mdr_rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

double mdr_rng_unit(Rng *r) { return (double)mdr_rng_u32(r) * 0x1p-32; }

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
