/* report's own. */
#ifndef MDR_REPORT_INTERNAL_H
#define MDR_REPORT_INTERNAL_H
#include "report/report.h"

int32_t mdr_report_width(const char *s); /* columns of UTF-8 text: its code points                       */
void mdr_report_pad(Text *out, const char *s, int32_t width, bool right);
/* What n architectures are called in a table: label, else the text if it has at most `room` columns, else a letter; a letter too where
 * two would have one name (a sweep under a label). */
const char **mdr_report_names(const ArchScore *score, int32_t n, int32_t room, Arena *a);
void mdr_report_count(Text *out, int64_t n); /* 1,234,567                                                    */
/* Words of s on lines of at most `columns`, the first after `first` columns already written, the others indented by
 * `indent`. */
void mdr_report_wrap(Text *out, const char *s, int32_t columns, int32_t first, int32_t indent);
#endif
