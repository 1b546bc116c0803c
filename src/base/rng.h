/* The draws of base.h's Rng as inline text for generators that also run on a GPU (both.h); mdr_rng_* in random.c are these.
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). Key = seed; counter = index in the low two words, stream in the high two: any
 * value of any stream is had without those before it. */
#ifndef MDR_RNG_H
#define MDR_RNG_H
#include "base/base.h"
#include "base/both.h"
#include <Random123/philox.h>

MDR_BOTH void rng_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    philox4x32_ctr_t c = {{(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    c = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++) out[i] = c.v[i];
}

MDR_BOTH Rng rng_start(uint64_t seed, uint64_t stream) {
    Rng r = {seed, stream, 0, {0, 0, 0, 0}, 0};
    return r;
}

/* The next word always stands in buf[0]: an index that is only known at run time would keep the buffer out of registers. */
MDR_BOTH uint32_t rng_u32(Rng *r) {
    if (r->left == 0) {
        rng_block(r->seed, r->stream, r->index++, r->buf);
        r->left = 4;
    }
    uint32_t x = r->buf[0];
    for (int i = 0; i < 3; i++) r->buf[i] = r->buf[i + 1];
    r->left--;
    return x;
}

/* Lemire 2019: the high half of x*n, redrawn while the low half lies in the short rest, which is below n. */
MDR_BOTH uint32_t rng_below(Rng *r, uint32_t n) {
    for (;;) {
        uint64_t m = (uint64_t)rng_u32(r) * n;
        if ((uint32_t)m >= n || (uint32_t)m >= (0u - n) % n) return (uint32_t)(m >> 32);
    }
}

MDR_BOTH double rng_unit(Rng *r) { return (double)rng_u32(r) * 0x1p-32; }
#endif
