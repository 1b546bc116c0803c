/* What emulator.cpp (threads), collectives.cpp (what they do together) and runtime.cpp (memory, streams) share. */
#ifndef EMU_INSIDE_H
#define EMU_INSIDE_H
#include "emu_race.h"

/* A lane that waits for the other lanes of its mask; arg: what it brings, on its own stack. */
struct EmuWait {
    int kind;
    unsigned mask;
    void *arg;
    const char *file;
    int line;
};
extern const char *const emu_kind_name[];
struct EmuShuffle { uint64_t bits; int by, width; };
struct EmuVote { unsigned x; };
struct EmuMma { float *d; const uint32_t *a, *b; int k; };
struct EmuLdmatrix { uint32_t *r; const void *row; int n; bool transposed; const void *pc; };

/* Waits for the lanes of mask; the last of them has emu_together done for all, which finds what lane i brought in wait[i].arg. */
void emu_meet(int kind, unsigned mask, void *arg, bool whole_warp, const char *file, int line);
void emu_together(int kind, unsigned lanes, EmuWait *wait);

bool emu_running(void);                                   /* is this code of a kernel?                                    */
int emu_thread(void);                                     /* index in its block                                           */
bool emu_copies_late(void);
bool emu_is_shared(const void *p, size_t bytes);
void emu_watch(void);                                     /* names who touches memory that he must not                    */
void emu_run(const EmuLaunch &launch, const std::function<void()> &thread);
void emu_copies_begin_block(int threads);
/* "byte 12 of an allocation of 400 bytes" */
bool emu_name_device(const void *p, char *text, size_t size);
/* Is any of these bytes device memory? All of them? */
bool emu_touches_device(const void *p, size_t bytes);
bool emu_within_device(const void *p, size_t bytes);
void emu_hide_device(bool hide);                          /* from kernels                                                 */
void emu_check_device(void);                              /* were bytes behind an allocation written?                     */
#endif
