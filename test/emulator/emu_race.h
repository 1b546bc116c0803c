/* What the emulator tells the race detector (race.cpp), which only EMU_RACE builds have: who runs, what orders threads, what is touched
 * other than by the kernels' own loads and stores (the compiler's -fsanitize=thread calls it at those). */
#ifndef EMU_RACE_H
#define EMU_RACE_H
#include "cuda_runtime.h"
#include <string>
#include <vector>

typedef std::vector<uint32_t> EmuClock;                   /* element i: so many pieces of work of stream i are done before this one */
static inline uint32_t &element(EmuClock &c, int i)
{
    if (c.size() <= (size_t)i) c.resize((size_t)i + 1);
    return c[(size_t)i];
}
static inline void join(EmuClock &a, const EmuClock &b)
{
    for (size_t i = 0; i < b.size(); i++)
        if (element(a, (int)i) < b[i]) a[i] = b[i];
}
enum EmuTouch { EMU_READ, EMU_WRITE, EMU_ATOMIC_READ, EMU_ATOMIC_WRITE };
#define EMU_CALLER __builtin_return_address(0)

#ifdef EMU_RACE
void *emu_race_place(size_t bytes);                       /* where the next memory of the device lies, never used before */
bool emu_race_gone(void *map, size_t bytes);              /* it is freed: by us */
void emu_race_piece(int stream, const EmuClock &before);  /* a launch, a copy, a fill of this stream begins, after these */
void emu_race_moved(const void *p, size_t bytes, EmuTouch what);          /* by a copy or a fill */
void emu_race_kernel(const EmuLaunch *launch, const void *static_shared, size_t bytes);         /* nullptr: it has ended */
void emu_race_block(int threads, const void *shared, size_t bytes);
void emu_race_thread(int thread);                         /* runs from now on */
void emu_race_barrier(void);                              /* all threads have met */
void emu_race_syncwarp(int warp, unsigned mask);
void emu_race_touch(const void *p, size_t bytes, EmuTouch what, const void *pc);
void emu_race_warp_reads(int warp, const void *p, size_t bytes, const void *pc);
void emu_race_copy(const void *to, const void *from, const void *pc);     /* is asked for */
void emu_race_copied(const void *to);                     /* and has been waited for */
void emu_race_give(const void *word, const void *pc);
void emu_race_take(const void *word, const void *pc);
#else
static inline void *emu_race_place(size_t) { return nullptr; }
static inline bool emu_race_gone(void *, size_t) { return false; }
static inline void emu_race_piece(int, const EmuClock &) {}
static inline void emu_race_moved(const void *, size_t, EmuTouch) {}
static inline void emu_race_kernel(const EmuLaunch *, const void *, size_t) {}
static inline void emu_race_block(int, const void *, size_t) {}
static inline void emu_race_thread(int) {}
static inline void emu_race_barrier(void) {}
static inline void emu_race_syncwarp(int, unsigned) {}
static inline void emu_race_touch(const void *, size_t, EmuTouch, const void *) {}
static inline void emu_race_warp_reads(int, const void *, size_t, const void *) {}
static inline void emu_race_copy(const void *, const void *, const void *) {}
static inline void emu_race_copied(const void *) {}
static inline void emu_race_give(const void *, const void *) {}
static inline void emu_race_take(const void *, const void *) {}
#endif
/* Races found in this process; while a text is given (tests), they are written there and do not count. */
int emu_races(void);
void emu_races_to(std::string *text);
#endif
