/* Arenas: many small pieces, freed together. Chunks are zeroed when made and never reused, so a piece needs no clearing. */
#include "base/base.h"
#include <stdarg.h>
#include <string.h>

enum { FIRST = 4096, LARGEST = 1 << 18, ALIGN = 16 };
typedef struct Chunk Chunk;
struct Chunk {
    Chunk *next;
    size_t used, size;               /* of the bytes behind the head                                                      */
};
#define HEAD ((sizeof(Chunk) + ALIGN - 1) / ALIGN * ALIGN)
struct Arena { Chunk *chunk; };

Arena *mdr_arena_new(void) { return mdr_alloc(sizeof(Arena)); }

void mdr_arena_free(Arena *a) {
    if (!a) return;
    for (Chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        mdr_free(c);
    }
    mdr_free(a);
}

static Chunk *new_chunk(size_t size) {
    Chunk *c = mdr_alloc(HEAD + size);
    c->size = size;
    return c;
}

void *mdr_arena_alloc(Arena *a, size_t bytes) {
    if (bytes > SIZE_MAX / 2) return mdr_alloc(bytes);                  /* cannot succeed: ends in the handler             */
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (need == 0) need = ALIGN;
    Chunk *c = a->chunk;
    if (!c || c->size - c->used < need) {
        size_t size = c ? (c->size * 2 > LARGEST ? (size_t)LARGEST : c->size * 2) : (size_t)FIRST;
        if (c && need > size / 4) {                                     /* a big piece gets its own chunk, behind          */
            Chunk *own = new_chunk(need);
            own->used = need;
            own->next = c->next;
            c->next = own;
            return (char *)own + HEAD;
        }
        Chunk *n = new_chunk(size < need ? need : size);
        n->next = c;
        a->chunk = c = n;
    }
    void *p = (char *)c + HEAD + c->used;
    c->used += need;
    return p;
}

void *mdr_arena_copy(Arena *a, const void *p, size_t bytes) {
    void *q = mdr_arena_alloc(a, bytes);
    if (bytes) memcpy(q, p, bytes);
    return q;
}

char *mdr_arena_strdup(Arena *a, const char *s) { return mdr_arena_copy(a, s, strlen(s) + 1); }

char *mdr_arena_printf(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return mdr_arena_strdup(a, fmt);
    char *s = mdr_arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}
