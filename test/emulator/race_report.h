/* How a race is told (race_report.cpp): once for each pair of places in the source. */
#ifndef EMU_RACE_REPORT_H
#define EMU_RACE_REPORT_H
#include "emu_inside.h"

struct RaceReport {
    const char *place;                                    /* "byte 12 of dynamic shared memory" */
    size_t bytes;
    EmuTouch what;
    const void *pc;
    int thread;
    bool wrote;                                           /* the other access */
    uint32_t other_pc;
    int other_thread, other_block;                        /* -1: this block */
    bool other_piece;                                     /* of another launch, copy or fill */
};
/* Code addresses as 31 bits from the program's start. */
extern uintptr_t race_base;
static inline uint32_t race_pc(const void *pc) { return pc ? (uint32_t)((uintptr_t)pc - race_base) & 0x7fffffffu : 0; }
void race_report_launch(const EmuLaunch *launch);
void race_report(const RaceReport &r);
#endif
