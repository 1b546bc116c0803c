/* Memory that lives as long as the drawing of one example: a piece of the caller's stack, or the heap for long
 * sequences; and the table of motifs shown so far, which lives in it. Its cost is O(pairs of the sequence), whatever
 * the vocabulary. */
#include "task/internal.h"
#include <string.h>

int32_t *mdr_scratch_take(Scratch *s, size_t n) {
    s->far = n > (size_t)MDR_COUNT(s->fixed) ? mdr_alloc(n * sizeof(int32_t)) : NULL;
    return s->far ? s->far : s->fixed;
}

void mdr_scratch_drop(Scratch *s) { mdr_free(s->far); }

size_t mdr_shown_slots(int64_t keys, int64_t pairs) {
    size_t n = 1;
    /* single symbols hash to themselves: no more slots than keys */
    int64_t most = keys < 2 * pairs ? keys : 2 * pairs;
    while ((int64_t)n < most) n *= 2;
    return n;
}

void mdr_shown_clear(ShownTable *t, void *memory, size_t slots) {
    t->slot = memory;
    t->mask = (uint32_t)(slots - 1);
    memset(memory, 0, slots * sizeof(Shown));
}

Shown *mdr_shown_find(const ShownTable *t, const int32_t *sequence, const int32_t *key, int32_t key_len) {
    uint32_t h = (uint32_t)key[0];
    for (int32_t i = 1; i < key_len; i++) h = (h ^ (h >> 15)) * 0x2c1b3c6du + (uint32_t)key[i];
    for (;; h++) {
        Shown *s = &t->slot[h & t->mask];
        if (s->at == 0) return s;
        if (s->key_len == key_len && memcmp(sequence + s->at - 1, key, (size_t)key_len * sizeof *key) == 0) return s;
    }
}
