/* Where the time of a training step went: rows by op and phase, worst first, each beside its bound. */
#include "report/report.h"
#include <stdlib.h>
#include <string.h>

typedef struct Row { const char *op; uint8_t phase; double seconds; Cost cost; } Row;

static int worst_first(const void *a, const void *b)
{
    const Row *x = a, *y = b;
    return x->seconds != y->seconds ? (x->seconds < y->seconds ? 1 : -1) : strcmp(x->op, y->op);
}

void mdr_report_ops(const OpProfile *p, int32_t n, double seconds, int32_t steps, int32_t workers, const Limits *limits, Text *out)
{
    static const char *const phase[] = {"const", "step", "seq", "post"};
    Row *row = mdr_alloc((size_t)(n + 1) * sizeof *row);
    int32_t n_row = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t k = 0;
        while (k < n_row && (strcmp(row[k].op, p[i].op) != 0 || row[k].phase != p[i].phase)) k++;
        if (k == n_row) row[n_row++] = (Row){.op = p[i].op, .phase = p[i].phase};
        Cost c = mdr_ir_cost(p[i].node);
        double times = p[i].phase == PH_SEQ ? (double)p[i].sequences : (double)p[i].calls;
        row[k].seconds += p[i].seconds;
        if (strcmp(p[i].op, "(prepare)") == 0) c = (Cost){0};
        row[k].cost.flops += c.flops * times;
        row[k].cost.bytes += c.bytes * times;
        row[k].cost.exps += c.exps * times;
    }
    qsort(row, (size_t)n_row, sizeof *row, worst_first);
    mdr_text_printf(out, "  %-22s %-5s %8s %7s %9s %7s%s\n", "op", "phase", "ms/step", "share", "GFLOP/s", "GB/s", limits ? "  of its bound" : "");
    for (int32_t k = 0; k < n_row; k++) {
        const Row *r = &row[k];
        if (r->seconds / seconds / workers < 0.0005) continue;
        mdr_text_printf(out, "  %-22s %-5s %8.2f %6.1f%% %9.1f %7.1f", r->op, phase[r->phase], r->seconds / steps * 1e3, 100 * r->seconds / seconds / workers,
                        r->cost.flops / r->seconds / 1e9, r->cost.bytes / r->seconds / 1e9);
        if (limits) {
            double bound = r->cost.flops / limits->flops + r->cost.exps / limits->exps, bytes = r->cost.bytes / limits->bytes;
            if (bytes > bound) bound = bytes;
            if (bound > 0) mdr_text_printf(out, " %12.0f%%", 100 * bound / r->seconds);
        }
        mdr_text_printf(out, "\n");
    }
    mdr_free(row);
}
