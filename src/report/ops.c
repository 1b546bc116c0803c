/* Where the time of a training step went: rows by op and phase, worst first, each beside its bound. */
#include "report/report.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int worst_first(const void *a, const void *b)
{
    const OpTime *x = a, *y = b;
    return x->seconds != y->seconds ? (x->seconds < y->seconds ? 1 : -1) : strcmp(x->op, y->op);
}

/* Bytes that move once a call, however many sequences it has: operands without the sequence axis, sums over the sequences. */
static double bytes_a_call(const Node *n)
{
    double numbers = 0;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i].node >= 0 && !(n->in_type[i].axes & MDR_AXIS_SEQ)) numbers += (double)mdr_numel(n->in_type[i].shape);
    for (int i = 0; i < n->n_out; i++)
        if ((n->op->sums >> i & 1u) || !(n->out[i].axes & MDR_AXIS_SEQ)) numbers += (double)mdr_numel(n->out[i].shape);
    return 4 * numbers;
}

int32_t mdr_report_op_times(const OpProfile *p, int32_t n, double seconds, int32_t workers, const Limits *limits, OpTime *row)
{
    static const char *const phase[] = {"const", "step", "seq", "post"};
    double *exps = mdr_alloc((size_t)(n + 1) * sizeof *exps);
    int32_t n_row = 0;
    for (int32_t i = 0; i < n; i++) {                    /* sums first: FLOPs, bytes, exponentials                           */
        int32_t k = 0;
        while (k < n_row && (strcmp(row[k].op, p[i].op) != 0 || row[k].phase != phase[p[i].phase])) k++;
        if (k == n_row) row[n_row++] = (OpTime){.op = p[i].op, .phase = phase[p[i].phase]};
        bool counted = p[i].node && strcmp(p[i].op, "(prepare)") != 0;      /* an update on a GPU is no node               */
        Cost c = counted ? mdr_ir_cost(p[i].node) : (Cost){0};
        double calls = (double)p[i].calls, times = p[i].phase == PH_SEQ ? (double)p[i].sequences : calls;
        double once = counted && c.whole && p[i].phase == PH_SEQ ? fmin(bytes_a_call(p[i].node), c.bytes) : 0;
        row[k].seconds += p[i].seconds;
        row[k].flops += c.flops * times;
        row[k].bytes += (c.bytes - once) * times + once * calls;
        exps[k] += c.exps * times;
    }
    for (int32_t k = 0; k < n_row; k++) {                /* then rates                                                       */
        OpTime *r = &row[k];
        double compute = r->flops / limits->flops + exps[k] / limits->exps, memory = r->bytes / limits->bytes;
        if (!(r->seconds > 0)) continue;
        r->share = r->seconds / seconds / workers;
        r->bound = (compute > memory ? compute : memory) / r->seconds;
        r->flops /= r->seconds;
        r->bytes /= r->seconds;
    }
    qsort(row, (size_t)n_row, sizeof *row, worst_first);
    mdr_free(exps);
    return n_row;
}

void mdr_report_ops(const OpTime *row, int32_t n, int32_t steps, Text *out)
{
    mdr_text_printf(out, "  %-22s %-5s %8s %7s %9s %8s %13s\n", "op", "phase", "ms/step", "share", "GFLOP/s", "GB/s", "of its bound");
    for (int32_t k = 0; k < n; k++) {
        if (row[k].share < 0.0005) continue;
        mdr_text_printf(out, "  %-22s %-5s %8.2f %6.1f%% %9.1f %8.1f %12.0f%%\n", row[k].op, row[k].phase, row[k].seconds / steps * 1e3, 100 * row[k].share,
                        row[k].flops / 1e9, row[k].bytes / 1e9, 100 * row[k].bound);
    }
}
