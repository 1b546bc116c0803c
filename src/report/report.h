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
#endif
