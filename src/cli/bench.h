/* madras bench: what its two files share. bench.c settles what is asked for and prints; bench_run.c runs. */
#ifndef MDR_CLI_BENCH_H
#define MDR_CLI_BENCH_H
#include "cli/internal.h"

typedef struct Job {                              /* everything of one architecture                                        */
    const Arch *arch;
    TrialSpec *spec;
    TrialCost *cost;                              /* [n]                                                                   */
    TrialResult *result;
    const TrialResult **done;                     /* [n]: NULL until its result is known                                   */
    int32_t n;
} Job;
typedef struct Bench {
    const Protocol *p;
    Job *job;
    int32_t n_job;
    Store *store;
    Pool *pool;                                   /* on the CPU                                                            */
    Accel *accel;                                 /* on a GPU; else NULL                                                   */
    Arena *arena;
    double total, finished, begin;                /* FLOPs to run now, done so far                                         */
    const TrialSpec *now;
    TrialCost now_cost;
    int32_t left, stored;
} Bench;

const char *mdr_cli_bench_name(const Arch *a);    /* its label, else its text                                              */
Err *mdr_cli_bench_look_up(Bench *b, Job *j, int32_t k);
Err *mdr_cli_bench_gpu_rate(Bench *b, double *rate);   /* FLOP/s of what is left, by running a little of it          */
Err *mdr_cli_bench_run(Bench *b);                 /* every trial that is not done; each is stored as it ends                */
#endif
