/* Seconds on a clock that is never set back. */
#include "base/base.h"
#include <time.h>

double mdr_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
