/* Memory. Small pieces never fail: the process ends through one handler. Big ones are mapped, so that their pages are touched
 * first by the worker that uses them, aligned for vectors and laid on huge pages where the system has them; their failure is
 * an error value. The size of a big piece stands in a header of its own page run, one alignment before what is handed out. */
#include "base/base.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 64, HUGE_PAGE = 1 << 21 };
typedef struct BigHead { void *map; size_t mapped; } BigHead;

/* The one writable global of base: set once by cli before anything is allocated. */
static _Atomic(void (*)(size_t)) oom_handler;

void mdr_set_oom_handler(void (*f)(size_t bytes)) { atomic_store(&oom_handler, f); }

static _Noreturn void out_of_memory(size_t bytes) {
    void (*f)(size_t) = atomic_load(&oom_handler);
    if (f) f(bytes);
    static const char line[] = "madras: out of memory\n";   /* no handler, or it returned: nothing may be allocated here    */
    if (write(STDERR_FILENO, line, sizeof line - 1) < 0) _exit(MDR_MACHINE);
    _exit(MDR_MACHINE);
}

void *mdr_alloc(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

void *mdr_realloc(void *p, size_t bytes) {
    void *q = realloc(p, bytes ? bytes : 1);
    if (!q) out_of_memory(bytes);
    return q;
}

char *mdr_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(mdr_alloc(n), s, n);
}

void mdr_free(void *p) { free(p); }

Err *mdr_alloc_big(size_t bytes, void **out) {
    *out = NULL;
    size_t page = bytes >= HUGE_PAGE ? (size_t)HUGE_PAGE : (size_t)ALIGN;
    if (bytes > SIZE_MAX - 2 * (size_t)HUGE_PAGE) return MDR_ERR_MACHINE("not enough memory: %zu bytes were asked for", bytes);
    size_t mapped = bytes + 2 * page;                /* room for the header and for sliding to the alignment              */
    char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return MDR_ERR_MACHINE("not enough memory: %.1f MiB were asked for", (double)bytes / 1048576.0);
    uintptr_t at = ((uintptr_t)map + sizeof(BigHead) + page - 1) / page * page;
    char *p = map + (at - (uintptr_t)map);
#ifdef MADV_HUGEPAGE
    if (page == HUGE_PAGE) (void)madvise(p, bytes, MADV_HUGEPAGE);   /* advice: a kernel without it is no error           */
#endif
    BigHead head = {map, mapped};
    memcpy(p - sizeof head, &head, sizeof head);
    *out = p;
    return NULL;
}

void mdr_free_big(void *p) {
    if (!p) return;
    BigHead head;
    memcpy(&head, (char *)p - sizeof head, sizeof head);
    munmap(head.map, head.mapped);
}
