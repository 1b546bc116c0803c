/* report: results -> tables a person reads and JSON a script reads; pure functions to text. */
#ifndef MDR_REPORT_H
#define MDR_REPORT_H
#include "study/study.h"

typedef struct ReportStyle { int32_t columns; bool colour; } ReportStyle;    /* columns: 80 unless a terminal says more   */
/* The table of a bench: one row an architecture, columns tasks, rows of chance and ceiling; caption with protocol, precision,
 * class, seeds and what may not be concluded. */
MDR_API void mdr_report_bench(const Protocol *p, const ArchScore *score, int32_t n, const ReportStyle *style, Text *out);
MDR_API void mdr_report_bench_json(const Protocol *p, const ArchScore *score, int32_t n, Text *out);
/* A plain table: first row is the header; right-aligned where every cell of a column is a number. cells[rows][cols]. */
MDR_API void mdr_report_table(const char *const *cells, int32_t rows, int32_t cols, const ReportStyle *style, Text *out);

/* What one worker of this machine can do at most: FLOP/s, bytes/s, exponentials/s. */
typedef struct Limits { double flops, bytes, exps; } Limits;
/* Where a run's time went: one row an op and phase, worst first. seconds: wall clock of the profiled steps; limits NULL: without
 * the column "share of its bound" (the largest of FLOPs, bytes and exponentials at the machine's limits over the time). */
MDR_API void mdr_report_ops(const OpProfile *p, int32_t n, double seconds, int32_t steps, int32_t workers, const Limits *limits, Text *out);
#endif
