/* The motifs shown so far in a sequence: open addressing on the symbols, which stay in the sequence itself. Its memory is the
 * caller's and costs O(pairs of the sequence), whatever the vocabulary. Text for both C and CUDA (base/both.h). */
#ifndef MDR_SHOWN_H
#define MDR_SHOWN_H
#include "base/base.h"
#include "base/both.h"

/* at: 1 + index of the key in the sequence; 0 = empty slot. One word: clearing and probing are what drawing waits for. */
typedef struct Shown { uint32_t at : 20, key_len : 6, value_len : 6; } Shown;
typedef struct ShownTable { Shown *slot; uint32_t mask; } ShownTable;

/* A power of two that keeps probing short; a slot is one int32_t of memory. */
MDR_BOTH int64_t shown_slots(int64_t keys, int64_t pairs) {
    /* single symbols hash to themselves: no more slots than keys */
    int64_t n = 1, most = keys < 2 * pairs ? keys : 2 * pairs;
    while (n < most) n *= 2;
    return n;
}

MDR_BOTH ShownTable shown_clear(int32_t *memory, int64_t slots) {
    ShownTable t = {(Shown *)memory, (uint32_t)(slots - 1)};
    const Shown none = {0, 0, 0};
    for (int64_t i = 0; i < slots; i++) t.slot[i] = none;
    return t;
}

MDR_BOTH bool same_symbols(const int32_t *a, const int32_t *b, int32_t n) {
    MDR_ROLLED for (int32_t i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

/* The slot of this key, or the empty slot where it belongs. */
MDR_BOTH Shown *shown_find(const ShownTable *t, const int32_t *sequence, const int32_t *key, int32_t key_len) {
    uint32_t h = (uint32_t)key[0];
    MDR_ROLLED for (int32_t i = 1; i < key_len; i++) h = (h ^ (h >> 15)) * 0x2c1b3c6du + (uint32_t)key[i];
    for (;; h++) {
        Shown *s = &t->slot[h & t->mask];
        if (s->at == 0) return s;
        if ((int32_t)s->key_len == key_len && same_symbols(sequence + s->at - 1, key, key_len)) return s;
    }
}

MDR_BOTH void shown_put(Shown *s, int32_t at, int32_t key_len, int32_t value_len) {
    s->at = (uint32_t)at & 0xfffff;
    s->key_len = (uint32_t)key_len & 63;
    s->value_len = (uint32_t)value_len & 63;
}
#endif
