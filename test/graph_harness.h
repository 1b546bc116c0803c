/* Checking graphs by laws: directional derivatives with sign, one device against another. The tolerance is one function of the
 * type and of how much was summed; NaN fails. */
#ifndef GRAPH_HARNESS_H
#define GRAPH_HARNESS_H
#include "exec/exec.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A graph under test: values x[] (inputs or parameters) that may be varied, outputs y[], and their gradient for seeds w[]. */
typedef struct Probe {
    Graph *g;                             /* outputs: y[n_y], then dx[n_x] (absent where no gradient)                     */
    int n_y, n_x, n_in, n_param;
    int64_t y_n[MDR_MAX_OUT], x_n[64];    /* elements over all sequences                                                 */
    bool x_param[64];                     /* x[i] is parameter or input x_index[i]                                       */
    int x_index[64];
    double *w[MDR_MAX_OUT];               /* seed of y[i]: an input, so that every sequence has its own                    */
    double *input[64];
    int64_t input_n[64];
    double *param;
    int64_t param_at[64], param_total;
    int n_seq;
} Probe;

static inline double tol_sum(double eps, int64_t n) { return 8.0 * eps * sqrt((double)n + 16.0); }

static inline void probe_free(Probe *p)
{
    mdr_ir_graph_free(p->g);
    for (int i = 0; i < p->n_in; i++) mdr_free(p->input[i]);
    mdr_free(p->param);
}

/* Call with a Builder holding the forward graph and its output values; takes the gradient and finishes it. Data is drawn from
 * [lo, hi) (I32: 0..hi_int-1). Returns an error text or NULL. */
static inline Err *probe_make(Builder *b, int n_y, const Value *y, int n_seq, double lo, double hi, int hi_int, Rng *r, Probe *p)
{
    memset(p, 0, sizeof *p);
    p->n_seq = n_seq;
    p->n_y = n_y;
    Value x[64], dx[64], dy[MDR_MAX_OUT];
    int n_node = mdr_ir_n_node(b);
    for (int i = 0; i < n_node; i++) {
        const Node *n = mdr_ir_node_at(b, i);
        int64_t numel = mdr_numel(n->out[0].shape);
        if (n->op == &mdr_ir_op_input) {
            int64_t all = numel * ((n->out[0].axes & MDR_AXIS_SEQ) ? n_seq : 1);
            p->input[p->n_in] = mdr_alloc((size_t)all * 8);
            p->input_n[p->n_in] = all;
            for (int64_t k = 0; k < all; k++)
                p->input[p->n_in][k] = n->out[0].dtype == DT_I32 ? (double)mdr_rng_below(r, (uint32_t)hi_int) : lo + (hi - lo) * mdr_rng_unit(r);
            if (n->out[0].dtype == DT_REAL) {
                p->x_n[p->n_x] = all;
                p->x_index[p->n_x] = p->n_in;
                x[p->n_x++] = (Value){i, 0};
            }
            p->n_in++;
        } else if (n->op == &mdr_ir_op_param) {
            p->param_at[p->n_param] = p->param_total;
            p->param_total += numel;
            p->param = mdr_realloc(p->param, (size_t)p->param_total * 8);
            for (int64_t k = 0; k < numel; k++) p->param[p->param_at[p->n_param] + k] = lo + (hi - lo) * mdr_rng_unit(r);
            p->x_n[p->n_x] = numel;
            p->x_param[p->n_x] = true;
            p->x_index[p->n_x] = p->n_param++;
            x[p->n_x++] = (Value){i, 0};
        }
    }
    for (int i = 0; i < n_y; i++) {
        Type t = mdr_ir_type(b, y[i]);
        bool seq = t.axes & MDR_AXIS_SEQ;
        p->y_n[i] = mdr_numel(t.shape) * (seq ? n_seq : 1);
        mdr_ir_output(b, y[i]);
        dy[i] = MDR_ABSENT;
        if (t.dtype == DT_I32) continue;
        dy[i] = mdr_ir_input(b, "seed", t.shape, DT_REAL, MDR_AXIS_MEMBER | (seq ? (unsigned)MDR_AXIS_SEQ : 0u));
        p->w[i] = p->input[p->n_in++] = mdr_alloc((size_t)p->y_n[i] * 8 + 8);
        for (int64_t k = 0; k < p->y_n[i]; k++) p->w[i][k] = 2 * mdr_rng_unit(r) - 1;
    }
    mdr_ir_grad(b, n_y, y, dy, p->n_x, x, dx);
    for (int i = 0; i < p->n_x; i++) mdr_ir_output(b, dx[i]);
    return mdr_ir_finish(b, &p->g);
}

static inline Err *probe_run(const Probe *p, const DeviceDef *d, double **out)
{
    EvalSpec s = {.device = d, .n_member = 1, .n_seq = p->n_seq, .input = (const double *const *)p->input, .param = p->param};
    return mdr_exec_eval(p->g, &s, out);
}
static inline void outs_free(const Probe *p, double **out)
{
    for (int i = 0; i < p->n_y + p->n_x; i++) mdr_free(out[i]);
}
static inline double probe_f(const Probe *p, double **out)
{
    double f = 0;
    for (int i = 0; i < p->n_y; i++)
        for (int64_t k = 0; p->w[i] && k < p->y_n[i]; k++) f += p->w[i][k] * out[i][k];
    return f;
}
static inline double *probe_x(Probe *p, int i) { return p->x_param[i] ? p->param + p->param_at[p->x_index[i]] : p->input[p->x_index[i]]; }

/* Central difference along a random direction of x[i] alone (step h), against the gradient. Returns NULL or a complaint. */
static inline const char *probe_direction(Probe *p, int i, Rng *r, double h, double tol, char buf[256])
{
    double *out[MDR_MAX_OUT + 64], *x = probe_x(p, i), slope = 0, norm = 0, f[2];
    int64_t n = p->x_n[i];
    double *dir = mdr_alloc((size_t)n * 8), *keep = mdr_alloc((size_t)n * 8);
    memcpy(keep, x, (size_t)n * 8);
    for (int64_t k = 0; k < n; k++) { dir[k] = 2 * mdr_rng_unit(r) - 1; norm += dir[k] * dir[k]; }
    Err *e = probe_run(p, &mdr_exec_ref64, out);
    if (e) { snprintf(buf, 256, "%s", mdr_err_text(e)); mdr_err_free(e); mdr_free(dir); mdr_free(keep); return buf; }
    if (!out[p->n_y + i]) {
        outs_free(p, out);
        mdr_free(dir);
        mdr_free(keep);
        snprintf(buf, 256, "x[%d] has no gradient", i);
        return buf;
    }
    for (int64_t k = 0; k < n; k++) slope += out[p->n_y + i][k] * dir[k];
    double scale = fabs(probe_f(p, out)) + fabs(slope) + sqrt(norm);
    outs_free(p, out);
    for (int side = 0; side < 2; side++) {
        for (int64_t k = 0; k < n; k++) x[k] = keep[k] + (side ? -h : h) * dir[k];
        e = probe_run(p, &mdr_exec_ref64, out);
        f[side] = probe_f(p, out);
        outs_free(p, out);
    }
    memcpy(x, keep, (size_t)n * 8);
    mdr_free(dir);
    mdr_free(keep);
    double measured = (f[0] - f[1]) / (2 * h);
    if (!(fabs(measured - slope) <= tol * scale)) {
        snprintf(buf, 256, "slope along x[%d]: gradient says %.12g, difference %.12g (tolerance %.3g)", i, slope, measured, tol * scale);
        return buf;
    }
    return NULL;
}

/* Largest difference of two runs' outputs relative to the largest value of each output; NaN gives infinity. */
static inline double outs_differ(const Probe *p, double **a, double **b, int from, int to)
{
    double worst = 0;
    for (int i = from; i < to; i++) {
        int64_t n = i < p->n_y ? p->y_n[i] : p->x_n[i - p->n_y];
        if (!a[i] || !b[i]) { if (a[i] != b[i]) return INFINITY; continue; }
        double big = 1e-30, diff = 0;
        for (int64_t k = 0; k < n; k++) {
            double d = fabs(a[i][k] - b[i][k]);
            if (!(d <= 1e300)) return INFINITY;
            if (d > diff) diff = d;
            if (fabs(b[i][k]) > big) big = fabs(b[i][k]);
        }
        if (diff / big > worst) worst = diff / big;
    }
    return worst;
}
#endif
