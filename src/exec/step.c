/* The training step over a pool of workers; the phases as drawn in exec.h. Members run one after another, each on all
 * workers; on `whole` devices all members run in one call. Which worker does what never enters the bits: units, lanes and fold
 * blocks have fixed borders and lanes are added in lane order.
 *
 * Memory: [CONST] one; [STEP], [POST] one (whole: one a member); [SLICE, scratch] one a worker; [LANE] K, or one a member. */
#include "exec/internal.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_TRACE = 1 << 20 };
typedef struct Worker { char *slice, *scratch; OpProfile *profile; double busy; } Worker;
struct Exec {
    const Plan *p;
    AccelExec *accel;                     /* devices with their own memory: everything is there                          */
    Pool *pool;
    int32_t n_worker, n_member, n_lane_max;
    char *base[PL_COUNT];                 /* CONST, STEP, POST; whole: SLICE, LANE too                                   */
    char **lane;                          /* [n_lane_max]                                                                */
    void *big[3];
    int64_t big_bytes[3];
    int32_t n_big;
    bool poison;
    Worker *worker;
    double *result;                       /* [n_member][sum of the numel of DT_SUM outputs]                              */
    int64_t *result_at, result_n;
    StepOut *out;
    double *square;                       /* partial sums of squares by fold block                                       */
    bool profiling, tracing;
    TraceEvent *trace;
    _Atomic int64_t n_trace;
    /* the step under way */
    Population *pop;
    const StepInput *input;
    int32_t n_seq, member, n_lane, n_slice;
    const Instr *instr;
    double scale;
    _Atomic int32_t next;
};

void mdr_exec_trace_add(Exec *e, int worker, int lane, const char *phase, double begin)
{
    if (!e->tracing) return;
    int64_t i = atomic_fetch_add(&e->n_trace, 1);
    if (i < MAX_TRACE) e->trace[i] = (TraceEvent){worker, lane, phase, begin, mdr_clock()};
}
static void trace(Exec *e, int worker, int lane, const char *phase, double begin)
{
    e->worker[worker].busy += mdr_clock() - begin;
    mdr_exec_trace_add(e, worker, lane, phase, begin);
}

/* A frame for member e->member (CPU), or for all (whole). */
static Frame frame(const Exec *e, int worker)
{
    const Plan *p = e->p;
    Frame f = {.input = e->input, .scratch = e->worker[worker].scratch};
    f.profile = e->profiling ? e->worker[worker].profile : NULL;
    memcpy(f.base, e->base, sizeof f.base);
    f.base[PL_PARAM] = (char *)e->pop->param + (p->whole ? 0 : (int64_t)e->member * p->stride * p->real);
    f.extent = (Extent){p->whole ? e->n_member : 1, e->n_seq};
    if (!p->whole) f.base[PL_SLICE] = e->worker[worker].slice;
    return f;
}

/* Inputs as one member sees them: on CPU devices the member stride is applied here. */
static void member_inputs(const Exec *e, StepInput *own)
{
    int32_t n = mdr_ir_inputs(e->p->graph, NULL, 0), node[MAX_INPUTS];
    mdr_ir_inputs(e->p->graph, node, MAX_INPUTS);
    for (int32_t i = 0; i < n; i++) {
        int32_t size = mdr_exec_size(e->p, e->p->graph->node[node[i]].out[0].dtype);
        own[i] = (StepInput){(const char *)e->input[i].data + (int64_t)e->member * e->input[i].member * size, 0};
    }
}

static void units_job(void *ctx, int worker)
{
    Exec *e = ctx;
    double begin = mdr_clock();
    Frame f = frame(e, worker);
    StepInput own[MAX_INPUTS];
    if (!e->p->whole) { member_inputs(e, own); f.input = own; }
    Extent one = f.extent;
    one.n_seq = 1;
    int64_t units = mdr_exec_units(e->instr, one), u0 = units * worker / e->n_worker, u1 = units * (worker + 1) / e->n_worker;
    if (u1 > u0) mdr_exec_instr(e->p, e->instr, &f, u0, u1);
    trace(e, worker, -1, e->instr->node->op->name, begin);
}

/* Instructions outside SEQ: split over the workers by units where there are several. */
static void wide_phase(Exec *e, Phase phase)
{
    const Plan *p = e->p;
    double begin = mdr_clock();
    bool waiting = false;
    StepInput own[MAX_INPUTS];
    for (int32_t i = p->begin[phase]; i < p->begin[phase + 1]; i++) {
        e->instr = &p->instr[i];
        if (!p->whole && e->n_worker > 1 && mdr_exec_units(e->instr, (Extent){1, 1}) > 1) {
            if (waiting) trace(e, 0, -1, phase == PH_STEP ? "step" : "post", begin);
            mdr_pool_run(e->pool, units_job, e);
            begin = mdr_clock();
            waiting = false;
        } else {
            Frame f = frame(e, 0);
            if (!p->whole) { member_inputs(e, own); f.input = own; }
            mdr_exec_instr(p, e->instr, &f, 0, -1);
            waiting = true;
        }
    }
    if (waiting) trace(e, 0, -1, phase == PH_STEP ? "step" : "post", begin);
}

static void lanes_job(void *ctx, int worker)
{
    Exec *e = ctx;
    const Plan *p = e->p;
    StepInput own[MAX_INPUTS];
    member_inputs(e, own);
    for (;;) {
        int32_t k = atomic_fetch_add(&e->next, 1);
        if (k >= e->n_lane) return;
        double begin = mdr_clock();
        Frame f = frame(e, worker);
        f.input = own;
        f.base[PL_LANE] = e->lane[k];
        memset(e->lane[k], 0, (size_t)p->size[PL_LANE]);
        /* slice i belongs to lane floor(i*K/S) */
        int32_t i0 = (int32_t)(((int64_t)k * e->n_slice + e->n_lane - 1) / e->n_lane);
        int32_t i1 = (int32_t)(((int64_t)(k + 1) * e->n_slice + e->n_lane - 1) / e->n_lane);
        for (int32_t i = i0; i < i1; i++) {
            f.first_seq = (int64_t)i * p->slice;
            f.extent.n_seq = i + 1 == e->n_slice ? e->n_seq - i * p->slice : p->slice;
            mdr_exec_phase(p, PH_SEQ, &f);
        }
        trace(e, worker, k, "lane", begin);
    }
}

static void fold_job(void *ctx, int worker)
{
    Exec *e = ctx;
    const Plan *p = e->p;
    double begin = mdr_clock();
    int64_t blocks = (p->lane_reals + MDR_FOLD_BLOCK - 1) / MDR_FOLD_BLOCK;
    int64_t b0 = blocks * worker / e->n_worker, b1 = blocks * (worker + 1) / e->n_worker;
    for (int64_t b = b0; b < b1; b++) {
        int64_t e0 = b * MDR_FOLD_BLOCK, e1 = e0 + MDR_FOLD_BLOCK < p->lane_reals ? e0 + MDR_FOLD_BLOCK : p->lane_reals;
        mdr_exec_fold_reals(p, e->lane, e->n_lane, e->base[PL_POST], e0, e1);
    }
    if (worker == 0) mdr_exec_fold_sums(p, e->lane, e->n_lane, e->base[PL_POST]);
    trace(e, worker, -1, "fold", begin);
}

static void norm_job(void *ctx, int worker)
{
    Exec *e = ctx;
    const Plan *p = e->p;
    const char *g = e->base[PL_POST] + (p->whole ? (int64_t)e->member * p->size[PL_POST] : 0);
    double begin = mdr_clock();
    int64_t blocks = (p->stride + MDR_FOLD_BLOCK - 1) / MDR_FOLD_BLOCK;
    for (int64_t b = blocks * worker / e->n_worker; b < blocks * (worker + 1) / e->n_worker; b++) {
        double sum = 0;
        for (int64_t i = b * MDR_FOLD_BLOCK; i < (b + 1) * MDR_FOLD_BLOCK && i < p->stride; i++) {
            double x = p->real == 4 ? (double)((const float *)(const void *)g)[i] : ((const double *)(const void *)g)[i];
            sum += x * x;
        }
        e->square[b] = sum;
    }
    trace(e, worker, -1, "norm", begin);
}

static void update_job(void *ctx, int worker)
{
    Exec *e = ctx;
    const Plan *p = e->p;
    double begin = mdr_clock();
    const UpdateDef *u = mdr_op_update(p->spec.update);
    UpdateFn *run = p->real == 8 ? u->ref64 : (p->spec.device == &mdr_exec_cpu && u->fast && mdr_cpu_avx2()) ? u->fast : u->ref32;
    const char *g = e->base[PL_POST] + (p->whole ? (int64_t)e->member * p->size[PL_POST] : 0);
    int64_t at = (int64_t)e->member * p->stride, blocks = (p->stride + MDR_FOLD_BLOCK - 1) / MDR_FOLD_BLOCK;
    int64_t i0 = blocks * worker / e->n_worker * MDR_FOLD_BLOCK, i1 = blocks * (worker + 1) / e->n_worker * MDR_FOLD_BLOCK;
    if (i1 > p->stride) i1 = p->stride;
    if (i1 > i0)
        run(&e->pop->hyper[e->member], e->scale, i1 - i0, (char *)e->pop->param + (at + i0) * p->real,
            (char *)e->pop->m + (at + i0) * p->real, (char *)e->pop->v + (at + i0) * p->real, g + i0 * p->real);
    trace(e, worker, -1, "update", begin);
}

/* Gradients that POST nodes made, to their place in the flat vector. */
static void copy_gradients(Exec *e)
{
    const Plan *p = e->p;
    for (int32_t i = 0; i < p->n_copy; i++) {
        Frame f = frame(e, 0);
        Arg a = mdr_exec_arg(p, &f, &p->copy[i].from);
        for (int32_t m = 0; m < (p->whole ? e->n_member : 1); m++)
            memcpy(e->base[PL_POST] + m * p->size[PL_POST] + p->copy[i].offset * p->real,
                   (const char *)a.data + m * a.member * p->real, (size_t)(p->copy[i].numel * p->real));
    }
}

static void keep_outputs(Exec *e)
{
    const Plan *p = e->p;
    for (int32_t i = 0; i < p->graph->n_output; i++) {
        if (e->result_at[i] < 0) continue;
        Value v = p->graph->output[i];
        int64_t n = mdr_numel(p->graph->node[v.node].out[v.out].shape);
        Frame f = frame(e, 0);
        Arg a = mdr_exec_arg(p, &f, &p->output[i]);
        for (int32_t m = p->whole ? 0 : e->member; m <= (p->whole ? e->n_member - 1 : e->member); m++) {
            const double *x = (const double *)a.data + m * a.member;
            double *y = e->result + m * e->result_n + e->result_at[i];
            memcpy(y, x, (size_t)n * 8);
            for (int64_t j = 0; j < n; j++) e->out[m].finite = e->out[m].finite && isfinite(y[j]);
        }
    }
}

static void finish_member(Exec *e, bool update)
{
    const Plan *p = e->p;
    const Hyper *h = &e->pop->hyper[e->member];
    StepOut *out = &e->out[e->member];
    if (!update) return;
    e->scale = 1;
    if (h->clip > 0) {
        mdr_pool_run(e->pool, norm_job, e);
        double sum = 0;
        for (int64_t b = 0; b < (p->stride + MDR_FOLD_BLOCK - 1) / MDR_FOLD_BLOCK; b++) sum += e->square[b];
        out->grad_norm = sqrt(sum);
        if (out->grad_norm > h->clip) e->scale = h->clip / out->grad_norm;
        out->finite = out->finite && isfinite(out->grad_norm);
    }
    if (out->finite) mdr_pool_run(e->pool, update_job, e);
}

static void step_cpu(Exec *e, bool update)
{
    for (e->member = 0; e->member < e->pop->n; e->member++) {
        if (!e->pop->alive[e->member]) continue;
        e->out[e->member] = (StepOut){0, true};
        wide_phase(e, PH_STEP);
        atomic_store(&e->next, 0);
        mdr_pool_run(e->pool, lanes_job, e);
        mdr_pool_run(e->pool, fold_job, e);
        wide_phase(e, PH_POST);
        copy_gradients(e);
        keep_outputs(e);
        finish_member(e, update);
    }
}

static void step_whole(Exec *e, bool update)
{
    const Plan *p = e->p;
    e->member = 0;
    for (int32_t m = 0; m < e->n_member; m++) e->out[m] = (StepOut){0, true};
    wide_phase(e, PH_STEP);
    memset(e->base[PL_LANE], 0, (size_t)(p->size[PL_LANE] * e->n_member));
    Frame f = frame(e, 0);
    mdr_exec_phase(p, PH_SEQ, &f);
    for (int32_t m = 0; m < e->n_member; m++) {
        char *lane = e->base[PL_LANE] + m * p->size[PL_LANE], *post = e->base[PL_POST] + m * p->size[PL_POST];
        mdr_exec_fold_reals(p, &lane, 1, post, 0, p->lane_reals);
        mdr_exec_fold_sums(p, &lane, 1, post);
    }
    wide_phase(e, PH_POST);
    copy_gradients(e);
    keep_outputs(e);
    for (e->member = 0; e->member < e->n_member; e->member++)
        if (e->pop->alive[e->member]) finish_member(e, update);
}

Err *mdr_exec_opened_for(const Exec *e, const Population *pop)
{
    if (pop->stride == e->p->stride && (e->p->whole ? pop->n == e->n_member : pop->n <= e->n_member)) return NULL;
    return MDR_ERR_MACHINE("a population of %d x %lld, opened for %d x %lld", pop->n, (long long)pop->stride, e->n_member, (long long)e->p->stride);
}

Err *mdr_exec_step(Exec *e, Population *pop, const StepInput *input, int32_t n_seq, bool update)
{
    if (n_seq < 1 || n_seq > e->p->spec.batch) return MDR_ERR_MACHINE("a step of %d sequences, planned for 1 to %d", n_seq, e->p->spec.batch);
    MDR_TRY(mdr_exec_opened_for(e, pop));
    if (update && !e->p->spec.update) return MDR_ERR_MACHINE("the plan has no update");
    if (e->accel) return mdr_exec_accel_step(e->accel, pop, input, n_seq, update, e->out);
    e->pop = pop;
    e->input = input;
    e->n_seq = n_seq;
    e->n_slice = (n_seq + e->p->slice - 1) / e->p->slice;
    e->n_lane = mdr_exec_lanes(e->p, n_seq);
    for (int32_t i = 0; e->poison && i < e->n_big; i++) {        /* CONST lies first in the first block                         */
        int64_t keep = i == 0 ? mdr_exec_round(e->p->size[PL_CONST], 4096) : 0;
        memset((char *)e->big[i] + keep, 0xff, (size_t)(e->big_bytes[i] - keep));
    }
    uint32_t fp = mdr_fp_enter();
    if (e->p->whole) step_whole(e, update);
    else step_cpu(e, update);
    mdr_fp_leave(fp);
    return NULL;
}

/* ---- opening and closing ---- */
static Err *big(Exec *e, int64_t bytes, char **out)
{
    void *p = NULL;
    MDR_TRY(mdr_alloc_big((size_t)bytes + 64, &p));
    e->big_bytes[e->n_big] = bytes;
    e->big[e->n_big++] = p;
    *out = p;
    return NULL;
}

static Err *open_memory(Exec *e)
{
    const Plan *p = e->p;
    int64_t members = p->whole ? e->n_member : 1, at = 0;
    static const Place shared[] = {PL_CONST, PL_STEP, PL_POST, PL_SLICE, PL_LANE};
    int n_shared = p->whole ? 5 : 3;
    for (int i = 0; i < n_shared; i++) at += mdr_exec_round(p->size[shared[i]] * (shared[i] == PL_CONST ? 1 : members), 4096);
    char *all;
    MDR_TRY(big(e, at, &all));
    for (int i = 0; i < n_shared; i++) {
        e->base[shared[i]] = all;
        all += mdr_exec_round(p->size[shared[i]] * (shared[i] == PL_CONST ? 1 : members), 4096);
    }
    size_t scratch = mdr_exec_scratch(p, false, (Extent){(int32_t)members, p->slice});
    int64_t own = (p->whole ? 0 : mdr_exec_round(p->size[PL_SLICE], 4096)) + mdr_exec_round((int64_t)scratch, 4096);
    MDR_TRY(big(e, own * e->n_worker + 64, &all));
    for (int32_t w = 0; w < e->n_worker; w++) {
        e->worker[w].slice = all + w * own;
        e->worker[w].scratch = all + (w + 1) * own - mdr_exec_round((int64_t)scratch, 4096);
        e->worker[w].profile = mdr_alloc((size_t)(p->begin[PH_COUNT] + 1) * sizeof(OpProfile));
    }
    e->lane = mdr_alloc((size_t)e->n_lane_max * sizeof *e->lane);
    if (p->whole) return NULL;
    int64_t lane = mdr_exec_round(p->size[PL_LANE], 64);
    MDR_TRY(big(e, lane * e->n_lane_max, &all));
    for (int32_t k = 0; k < e->n_lane_max; k++) e->lane[k] = all + k * lane;
    return NULL;
}

Err *mdr_exec_open(const Plan *p, Pool *pool, int32_t n_member, Exec **out)
{
    Exec *e = mdr_alloc(sizeof *e);
    *out = NULL;
    e->p = p;
    e->pool = pool;
    e->n_worker = mdr_pool_size(pool);
    e->n_member = n_member;
    e->n_lane_max = mdr_exec_lanes(p, p->spec.batch);
    e->worker = mdr_alloc((size_t)e->n_worker * sizeof *e->worker);
    e->out = mdr_alloc((size_t)n_member * sizeof *e->out);
    e->square = mdr_alloc((size_t)(p->stride / MDR_FOLD_BLOCK + 2) * sizeof *e->square);
    e->result_at = mdr_alloc((size_t)(p->graph->n_output + 1) * sizeof *e->result_at);
    for (int32_t i = 0; i < p->graph->n_output; i++) {
        Value v = p->graph->output[i];
        bool sum = v.node >= 0 && p->graph->node[v.node].out[v.out].dtype == DT_SUM && p->output[i].place == PL_POST;
        e->result_at[i] = sum ? e->result_n : -1;
        if (sum) e->result_n += mdr_numel(p->graph->node[v.node].out[v.out].shape);
    }
    e->result = mdr_alloc((size_t)(e->result_n * n_member + 1) * sizeof *e->result);
    Err *err = open_memory(e);
    if (err) { mdr_exec_close(e); return mdr_err_wrap(err, "memory for a training step"); }
    mdr_exec_consts(p, e->base[PL_CONST]);
    Frame f = {.extent = {1, 1}, .scratch = e->worker[0].scratch};
    memcpy(f.base, e->base, sizeof f.base);
    uint32_t fp = mdr_fp_enter();
    mdr_exec_phase(p, PH_CONST, &f);
    mdr_fp_leave(fp);
    *out = e;
    return NULL;
}

Err *mdr_exec_open_accel(const Plan *p, Accel *accel, int32_t n_member, Exec **out)
{
    Exec *e = mdr_alloc(sizeof *e);
    *out = NULL;
    e->p = p;
    e->n_member = n_member;
    e->out = mdr_alloc((size_t)n_member * sizeof *e->out);
    Err *err = mdr_exec_accel_open(p, accel, n_member, &e->accel);
    if (err) { mdr_exec_close(e); return err; }
    *out = e;
    return NULL;
}
AccelExec *mdr_exec_of_accel(const Exec *e) { return e->accel; }

bool mdr_exec_fits(const Exec *e, int32_t n_member) { return mdr_exec_accel_fits(e->accel, n_member); }
Err *mdr_exec_narrow(Exec *e, int32_t n_member)
{
    e->n_member = n_member;
    return mdr_exec_accel_narrow(e->accel, n_member);
}

void mdr_exec_close(Exec *e)
{
    if (!e) return;
    mdr_exec_accel_close(e->accel);
    for (int32_t i = 0; i < e->n_big; i++) mdr_free_big(e->big[i]);
    for (int32_t w = 0; w < e->n_worker; w++) mdr_free(e->worker[w].profile);
    mdr_free(e->worker);
    mdr_free(e->lane);
    mdr_free(e->out);
    mdr_free(e->square);
    mdr_free(e->result_at);
    mdr_free(e->result);
    mdr_free(e->trace);
    mdr_free(e);
}

const void *mdr_exec_output(const Exec *e, int32_t member, int32_t i)
{
    if (e->accel) return mdr_exec_accel_output(e->accel, member, i);
    if (e->result_at[i] >= 0) return e->result + member * e->result_n + e->result_at[i];
    Frame f = frame(e, 0);
    Arg a = mdr_exec_arg(e->p, &f, &e->p->output[i]);
    return a.data ? (const char *)a.data + member * a.member * e->p->output[i].size : NULL;
}
const StepOut *mdr_exec_out(const Exec *e, int32_t member) { return &e->out[member]; }

void mdr_exec_poison(Exec *e, bool on)
{
    e->poison = on;
    if (e->accel) mdr_exec_accel_poison(e->accel, on);
}

/* ---- measuring ---- */
void mdr_exec_trace(Exec *e, bool on)
{
    if (on && !e->trace) e->trace = mdr_alloc((size_t)MAX_TRACE * sizeof *e->trace);
    if (on) atomic_store(&e->n_trace, 0);
    e->tracing = on;
}
int64_t mdr_exec_trace_read(const Exec *e, const TraceEvent **events, int64_t *lost)
{
    int64_t n = atomic_load(&e->n_trace);
    *events = e->trace;
    *lost = n > MAX_TRACE ? n - MAX_TRACE : 0;
    return n - *lost;
}
void mdr_exec_profile(Exec *e, bool on)
{
    e->profiling = on;
    if (e->accel) mdr_exec_accel_profile(e->accel, on);
    for (int32_t w = 0; on && w < e->n_worker; w++) {
        e->worker[w].busy = 0;
        memset(e->worker[w].profile, 0, (size_t)e->p->begin[PH_COUNT] * sizeof(OpProfile));
    }
}
int32_t mdr_exec_profile_read(const Exec *e, OpProfile *out, int32_t max)
{
    if (e->accel) return mdr_exec_accel_profile_read(e->accel, out, max);
    int32_t n = e->p->begin[PH_COUNT];
    for (int32_t i = 0; i < n && i < max; i++) {
        const Instr *in = &e->p->instr[i];
        out[i] = (OpProfile){in->prep_units ? "(prepare)" : in->node->op->name, in->node->where, in->node, 0, 0, 0, in->node->out[0].phase};
        if (in->prep_units) out[i].phase = in->prep.place == PL_CONST ? PH_CONST : PH_STEP;
        for (int32_t w = 0; w < e->n_worker; w++) {
            out[i].seconds += e->worker[w].profile[i].seconds;
            out[i].calls += e->worker[w].profile[i].calls;
            out[i].sequences += e->worker[w].profile[i].sequences;
        }
    }
    return n;
}
double mdr_exec_busy(const Exec *e, int worker) { return e->worker[worker].busy; }
