/* report: results -> tables a person reads and JSON a script reads; pure functions to text. */
#ifndef MDR_REPORT_H
#define MDR_REPORT_H
#include "study/study.h"
#include <jansson.h>

typedef struct ReportStyle { int32_t columns; bool colour; } ReportStyle;    /* columns: 80 unless a terminal says more   */
/* The table of a bench: one row an architecture, columns tasks, rows of chance and ceiling; caption with protocol, precision,
 * class, seeds and what may not be concluded. */
MDR_API void mdr_report_bench(const Protocol *p, const ArchScore *score, int32_t n, const ReportStyle *style, Text *out);
/* A table for each task: its settings by architectures. */
MDR_API void mdr_report_settings(const Protocol *p, const ArchScore *score, int32_t n, const ReportStyle *style, Text *out);
MDR_API Err *mdr_report_bench_json(const Protocol *p, const ArchScore *score, int32_t n, Text *out);

/* ---- JSON: real numbers with 17 digits (exact), null where there is none ---- */
MDR_API json_t *mdr_report_real(double x);                        /* null where not finite                                */
MDR_API json_t *mdr_report_json_head(const char *schema, const char *protocol);   /* {schema, madras, protocol}; NULL: null */
MDR_API void mdr_report_json_epoch(json_t *o, const EpochScore *e);               /* epoch, step, metrics; e NULL: nulls   */
MDR_API Err *mdr_report_json(json_t *o, size_t flags, Text *out); /* one object and a newline; takes o over               */

/* What one worker of this machine can do at most, measured by its own kernels: FLOP/s (a product that fits the cache), bytes/s
 * (copying within the L2 cache, where a slice's values mostly are), exponentials/s. Takes about half a second. */
typedef struct Limits { double flops, bytes, exps; } Limits;
MDR_API Err *mdr_report_limits(Limits *l);
/* Where a run's time went: one row an op and phase, worst first. bound: the time its FLOPs and exponentials, or its bytes, would
 * take at the limits, over the time it took; 0 where nothing is counted. */
typedef struct OpTime { const char *op, *phase; double seconds, share, flops, bytes, bound; } OpTime;     /* flops, bytes: a second  */
/* n rows of a profile -> at most n rows; seconds: wall clock of the profiled steps. Returns their number. */
MDR_API int32_t mdr_report_op_times(const OpProfile *p, int32_t n, double seconds, int32_t workers, const Limits *limits, OpTime *row);
MDR_API void mdr_report_ops(const OpTime *row, int32_t n, int32_t steps, Text *out);        /* as a table                    */
#endif
