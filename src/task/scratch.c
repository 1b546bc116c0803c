/* Memory that lives as long as the drawing of one example: a piece of the caller's stack, or the heap for long
 * sequences. */
#include "task/internal.h"

int32_t *mdr_scratch_take(Scratch *s, int64_t n) {
    s->far = n > MDR_COUNT(s->fixed) ? mdr_alloc((size_t)n * sizeof(int32_t)) : NULL;
    return s->far ? s->far : s->fixed;
}

void mdr_scratch_drop(Scratch *s) { mdr_free(s->far); }
