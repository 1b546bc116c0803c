/* The training step on an accelerator: all members in one recorded graph. The phases are step.c's; the lane is the first part of
 * POST, so nothing is folded. Everything that changes from step to step (inputs, sequences, rates) is data in device memory.
 *
 * Memory, one piece: [CONST | STEP | POST | SLICE | scratch: everybody's, of those aside, own ones | inputs | n_seq, one, ones | hypers | norms |
 * results], everything but CONST once a member. */
#include "exec/internal.h"
#include "op/cuda_images.h"
#include "op/cuda_update.h"
#include <math.h>
#include <string.h>

struct AccelExec {
    const Plan *p;
    Accel *accel;
    int32_t n;                            /* members                                                                     */
    char *memory, *base[PL_COUNT], *scratch, *aside, *own;
    int64_t bytes, poison_at, poison_end;
    int32_t n_input;
    StepInput input[MAX_INPUTS];          /* device memory                                                               */
    int64_t input_one[MAX_INPUTS];        /* elements a sequence, or a member                                            */
    Slot input_slot[MAX_INPUTS];
    bool input_seq[MAX_INPUTS], input_own[MAX_INPUTS];
    int32_t *n_seq, *one, *ones;
    Hyper *hyper;
    double *norm, *partial;
    double *result, *host;                /* [n][result_n]: DT_SUM outputs for the host, gathered there and here         */
    int64_t *result_at, result_n;
    void **mirror;                        /* [n * outputs]: other outputs fetched so far in this step                    */
    Recording *step;
    Population *pop;                      /* recorded for                                                                */
    bool update, clips, poison, profiling;
    double *seconds;                      /* [instructions + 1]: the update last                                         */
    int64_t calls, sequences;
};

static void *carve(char **at, int64_t bytes)
{
    char *p = *at;
    *at += mdr_exec_round(bytes, 256);
    return p;
}

static int64_t partials(const Plan *p) { return p->stride / MDR_FOLD_BLOCK + 1; }

/* Scratch that instruction i has for itself, since what adds it up may run beside the instructions that follow (mdr_beside); 0: shared.
 * Adding up more than that fills the device by itself. */
enum { MOST_OWN = 8 << 20 };
static int64_t own_scratch(const AccelExec *a, int32_t i)
{
    const Instr *in = &a->p->instr[i];
    if (!in->add || !in->sole || in->aside || in->prep_units || !in->scratch) return 0;
    const int64_t bytes = (int64_t)in->scratch(in->node, (Extent){a->n, a->p->slice});
    return bytes > MOST_OWN ? 0 : mdr_exec_round(bytes, 256);
}
static int64_t own_before(const AccelExec *a, int32_t i)
{
    int64_t bytes = 0;
    for (int32_t k = 0; k < i; k++) bytes += own_scratch(a, k);
    return bytes;
}

/* at NULL: only counts. */
static int64_t lay_out(AccelExec *a, char *memory)
{
    const Plan *p = a->p;
    char *at = memory;
    int64_t n = a->n;
    a->base[PL_CONST] = carve(&at, p->size[PL_CONST]);
    a->ones = carve(&at, n * 4);
    a->poison_at = at - memory;
    a->base[PL_STEP] = carve(&at, p->size[PL_STEP] * n);
    a->base[PL_POST] = a->base[PL_LANE] = carve(&at, p->size[PL_POST] * n);
    a->base[PL_SLICE] = carve(&at, p->size[PL_SLICE] * n);
    a->scratch = carve(&at, (int64_t)mdr_exec_scratch(p, false, (Extent){a->n, p->slice}));
    a->aside = carve(&at, (int64_t)mdr_exec_scratch(p, true, (Extent){a->n, p->slice}));
    a->own = carve(&at, own_before(a, p->begin[PH_COUNT]));
    a->result = carve(&at, a->result_n * n * 8);
    a->poison_end = at - memory;
    for (int32_t i = 0; i < a->n_input; i++) {
        int64_t elements = a->input_one[i] * (a->input_seq[i] ? p->spec.batch : 1);
        a->input[i] = (StepInput){carve(&at, elements * n * a->input_slot[i].size), elements};
    }
    a->n_seq = carve(&at, n * 4);
    a->one = carve(&at, n * 4);
    a->hyper = carve(&at, n * (int64_t)sizeof(Hyper));
    a->norm = carve(&at, n * 8);
    a->partial = carve(&at, n * partials(p) * 8);
    return at - memory;
}

static void describe(AccelExec *a)
{
    const Plan *p = a->p;
    const Graph *g = p->graph;
    int32_t node[MAX_INPUTS];
    a->n_input = mdr_ir_inputs(g, node, MAX_INPUTS);
    for (int32_t i = 0; i < a->n_input; i++) {
        const Type *t = &g->node[node[i]].out[0];
        a->input_one[i] = mdr_numel(t->shape);
        a->input_seq[i] = t->axes & MDR_AXIS_SEQ;
        a->input_own[i] = t->axes & MDR_AXIS_MEMBER;
        a->input_slot[i] = p->input[i];
    }
    a->result_at = mdr_alloc((size_t)(g->n_output + 1) * sizeof *a->result_at);
    for (int32_t i = 0; i < g->n_output; i++) {
        Value v = g->output[i];
        bool sum = v.node >= 0 && g->node[v.node].out[v.out].dtype == DT_SUM && p->output[i].place == PL_POST;
        a->result_at[i] = sum ? a->result_n : -1;
        if (sum) a->result_n += mdr_numel(g->node[v.node].out[v.out].shape);
    }
}

static Frame frame(const AccelExec *a, const Population *pop)
{
    Frame f = {.input = a->input, .scratch = a->scratch, .accel = a->accel, .stream = mdr_accel_stream(a->accel), .n_seq = a->n_seq, .one = a->one};
    memcpy(f.base, a->base, sizeof f.base);
    f.base[PL_PARAM] = pop ? pop->param : NULL;
    f.extent = (Extent){a->n, a->p->spec.batch};
    return f;
}

static Err *consts(AccelExec *a)
{
    const Plan *p = a->p;
    int32_t *one = mdr_alloc((size_t)a->n * sizeof *one);
    char *host = mdr_alloc((size_t)p->size[PL_CONST] + 1);
    for (int32_t m = 0; m < a->n; m++) one[m] = 1;
    mdr_exec_consts(p, host);
    Err *e = mdr_accel_upload(a->accel, a->base[PL_CONST], host, p->size[PL_CONST]);
    if (!e) e = mdr_accel_upload(a->accel, a->ones, one, a->n * 4);
    if (!e) e = mdr_accel_sync(a->accel);
    mdr_free(host);
    mdr_free(one);
    MDR_TRY(e);
    Frame f = frame(a, NULL);
    f.extent = (Extent){1, 1};
    f.n_seq = f.one = a->ones;
    mdr_exec_phase(p, PH_CONST, &f);
    return mdr_accel_sync(a->accel);
}

Err *mdr_exec_accel_open(const Plan *p, Accel *accel, int32_t n_member, AccelExec **out)
{
    AccelExec *a = mdr_alloc(sizeof *a);
    void *memory = NULL;
    *out = NULL;
    a->p = p;
    a->accel = accel;
    a->n = n_member;
    describe(a);
    a->host = mdr_alloc((size_t)(a->result_n * n_member + 1) * sizeof *a->host);
    a->mirror = mdr_alloc((size_t)(n_member * p->graph->n_output + 1) * sizeof *a->mirror);
    a->seconds = mdr_alloc((size_t)(p->begin[PH_COUNT] + 1) * sizeof *a->seconds);
    a->bytes = lay_out(a, NULL);
    Err *e = mdr_accel_alloc(accel, a->bytes, &memory);
    if (!e) {
        a->memory = memory;
        lay_out(a, a->memory);
        e = mdr_accel_fill(accel, a->memory, 0, a->bytes);
    }
    if (!e) e = consts(a);
    if (e) { mdr_exec_accel_close(a); return e; }
    *out = a;
    return NULL;
}

static void forget_mirrors(AccelExec *a)
{
    for (int32_t i = 0; i < a->n * a->p->graph->n_output; i++) {
        mdr_free(a->mirror[i]);
        a->mirror[i] = NULL;
    }
}

void mdr_exec_accel_close(AccelExec *a)
{
    if (!a) return;
    forget_mirrors(a);
    mdr_accel_recording_free(a->step);
    mdr_accel_free(a->accel, a->memory);
    mdr_free(a->result_at);
    mdr_free(a->host);
    mdr_free(a->mirror);
    mdr_free(a->seconds);
    mdr_free(a);
}

int64_t mdr_exec_accel_bytes(const Plan *p, int32_t n_member)
{
    AccelExec a = {.p = p, .n = n_member};
    describe(&a);
    int64_t bytes = lay_out(&a, NULL);
    mdr_free(a.result_at);
    return bytes + mdr_exec_vectors(p) * p->stride * p->real * n_member;
}

/* ---- fewer members ---- */
bool mdr_exec_accel_fits(const AccelExec *a, int32_t n_member)
{
    AccelExec fewer = *a;
    fewer.n = n_member;
    return lay_out(&fewer, NULL) <= a->bytes;
}
/* As opening leaves it: what a step does not write (sequences beyond a member's) is zero. Clearing takes less than a step, which writes it all. */
Err *mdr_exec_accel_narrow(AccelExec *a, int32_t n_member)
{
    forget_mirrors(a);
    mdr_accel_recording_free(a->step);
    a->step = NULL;
    a->n = n_member;
    int64_t bytes = lay_out(a, a->memory);
    return mdr_accel_fill(a->accel, a->memory + a->poison_at, 0, bytes - a->poison_at);
}

/* ---- enqueueing ---- */
/* Of a recorded step: the batch is taken on a side, beside what weights alone want, and there the next is drawn, beside the rest: one thread
 * draws a sequence, which takes long and hardly any of the device. On the other side are sums for which nobody waits: whole instructions
 * (Instr.aside) and the last stages of others (mdr_beside). */
enum { SUMS_SIDE, DATA_SIDE };

static Err *run_instr(AccelExec *a, int32_t i, const Frame *f)
{
    const Instr *in = &a->p->instr[i];
    Frame own = *f;
    if (in->aside) own.scratch = a->aside;
    if (a->profiling) {
        MDR_TRY(mdr_accel_mark(a->accel, i));
    } else if (in->aside) {
        MDR_TRY(mdr_accel_fork(a->accel, SUMS_SIDE));
        own.stream = mdr_accel_side(a->accel, SUMS_SIDE);
    } else if (own_scratch(a, i) > 0) {
        own.scratch = a->own + own_before(a, i);
        own.side = mdr_accel_aside(a->accel, SUMS_SIDE);
    }
    mdr_exec_instr(a->p, in, &own, 0, -1);
    return NULL;
}
static Err *run_instrs(AccelExec *a, int32_t from, int32_t to, const Frame *f)
{
    for (int32_t i = from; i < to; i++) MDR_TRY(run_instr(a, i, f));
    return NULL;
}
static Err *run_phase(AccelExec *a, Phase phase, const Frame *f) { return run_instrs(a, a->p->begin[phase], a->p->begin[phase + 1], f); }

/* What STEP prepares for later phases comes last in it. Images of weights, small and many, are gathered and made by one launch; a
 * profile counts it with the last of the list. */
static Err *run_preps(AccelExec *a, int32_t from, int32_t to, const Frame *f)
{
    Images images = {0};
    Frame lent = *f;
    lent.images = &images;
    MDR_TRY(run_instrs(a, from, to, &lent));
    mdr_cuda_images(f->stream, &images);
    return NULL;
}
/* data: until the side is met nobody may ask which members have sequences. */
static Err *run_step(AccelExec *a, const Frame *f, bool data)
{
    const int32_t from = a->p->begin[PH_STEP], to = a->p->begin[PH_STEP + 1];
    int32_t preps = to;
    while (preps > from && a->p->instr[preps - 1].prep_units) preps--;
    bool early = data && preps > from;
    for (int32_t i = preps; i < to; i++) early = early || (data && a->p->instr[i].in[a->p->instr[i].prep_in].place == PL_INPUT);
    if (early) MDR_TRY(mdr_accel_meet(a->accel, DATA_SIDE));
    MDR_TRY(run_instrs(a, from, preps, f));
    MDR_TRY(run_preps(a, preps, to, f));
    return data && !early ? mdr_accel_meet(a->accel, DATA_SIDE) : NULL;
}

/* What comes after the step reads norms, not what is updated: it runs beside that. */
static Err *finish(AccelExec *a, Population *pop, bool update, Exec *exec, const ExecHooks *hooks)
{
    const Plan *p = a->p;
    void *stream = mdr_accel_stream(a->accel);
    const float *grad = (const float *)(const void *)a->base[PL_POST];
    int64_t member = p->size[PL_POST] / p->real;
    if (update && a->clips) mdr_cuda_grad_norm(stream, a->n, a->n_seq, p->stride, grad, member, a->partial, a->norm);
    if (hooks) {
        MDR_TRY(mdr_accel_fork(a->accel, DATA_SIDE));
        MDR_TRY(hooks->after(hooks->ctx, exec, mdr_accel_side(a->accel, DATA_SIDE)));
    }
    if (update)
        mdr_cuda_update(p->spec.update, stream, a->n, a->n_seq, a->hyper, p->stride, pop->param, pop->m, pop->v, grad, member,
                        a->clips ? a->norm : NULL);
    return NULL;
}

static Err *enqueue(AccelExec *a, Population *pop, bool update, Exec *exec, const ExecHooks *hooks)
{
    const Plan *p = a->p;
    Frame f = frame(a, pop);
    int32_t last = p->begin[PH_COUNT];
    void *side = mdr_accel_side(a->accel, DATA_SIDE);
    if (hooks) MDR_TRY(mdr_accel_fork(a->accel, DATA_SIDE));
    MDR_TRY(hooks ? hooks->before(hooks->ctx, exec, side) : mdr_accel_ones(a->accel, a->n, a->n_seq, a->one));
    MDR_TRY(mdr_accel_fork(a->accel, SUMS_SIDE));
    if (p->size[PL_POST] > 0) MDR_TRY(mdr_accel_clear(a->accel, SUMS_SIDE, a->base[PL_POST], p->size[PL_POST] * a->n));
    MDR_TRY(run_step(a, &f, hooks != NULL));
    MDR_TRY(mdr_accel_join(a->accel, SUMS_SIDE));
    if (hooks) MDR_TRY(hooks->ahead(hooks->ctx, exec, side));
    MDR_TRY(run_phase(a, PH_SEQ, &f));
    MDR_TRY(mdr_accel_join(a->accel, SUMS_SIDE));
    MDR_TRY(run_phase(a, PH_POST, &f));
    if (a->profiling) MDR_TRY(mdr_accel_mark(a->accel, last));
    for (int32_t i = 0; i < p->n_copy; i++) {
        Arg x = mdr_exec_arg(p, &f, &p->copy[i].from);
        MDR_TRY(mdr_accel_copy(a->accel, a->base[PL_POST] + p->copy[i].offset * p->real, p->size[PL_POST], x.data, x.member * p->real,
                               p->copy[i].numel * p->real, a->n));
    }
    MDR_TRY(finish(a, pop, update, exec, hooks));
    if (a->profiling) MDR_TRY(mdr_accel_mark(a->accel, last + 1));
    MDR_TRY(mdr_accel_join(a->accel, DATA_SIDE));
    return mdr_accel_launched(a->accel);
}

static Err *record(AccelExec *a, Population *pop, bool update, Exec *exec, const ExecHooks *hooks)
{
    mdr_accel_recording_free(a->step);
    a->step = NULL;
    a->pop = pop;
    a->update = update;
    a->clips = false;
    for (int32_t m = 0; m < pop->n; m++) a->clips = a->clips || pop->hyper[m].clip > 0;
    MDR_TRY(mdr_accel_record_begin(a->accel));
    Err *e = enqueue(a, pop, update, exec, hooks);
    Err *ended = mdr_accel_record_end(a->accel, &a->step);
    if (!e) return ended;
    mdr_err_free(ended);
    return e;
}

/* Times of the instructions between their marks. */
static Err *read_marks(AccelExec *a, int32_t n_seq)
{
    int32_t last = a->p->begin[PH_COUNT];
    for (int32_t i = a->p->begin[PH_STEP]; i <= last; i++) {
        double s;
        MDR_TRY(mdr_accel_elapsed(a->accel, i, i + 1, &s));
        a->seconds[i] += s;
    }
    a->calls += a->n;                                     /* as on a CPU: a call is one member's                         */
    a->sequences += (int64_t)n_seq * a->n;
    return NULL;
}

/* ---- a step with everything given by the host ---- */
/* Host inputs are dense with the host's member stride; floats become bf16 where the plan stores them so. */
static Err *send_input(AccelExec *a, int32_t i, const StepInput *from, int32_t n_seq)
{
    int64_t n = a->input_one[i] * (a->input_seq[i] ? n_seq : 1);
    int32_t to_size = a->input_slot[i].size, size = to_size == 2 ? 4 : to_size;
    uint16_t *half = to_size == 2 ? mdr_alloc((size_t)n * sizeof *half + 1) : NULL;
    Err *e = NULL;
    for (int32_t m = 0; m < a->n && !e; m++) {
        const char *x = (const char *)from->data + m * from->member * size;
        for (int64_t k = 0; half && k < n; k++) {
            uint32_t u;
            memcpy(&u, x + k * 4, 4);
            half[k] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 64u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
        }
        e = mdr_accel_upload(a->accel, (char *)(uintptr_t)a->input[i].data + m * a->input[i].member * to_size, half ? (const void *)half : x, n * to_size);
        if (half && !e) e = mdr_accel_sync(a->accel);
    }
    mdr_free(half);
    return e;
}

static Err *send(AccelExec *a, Population *pop, const StepInput *input, int32_t n_seq)
{
    int32_t *count = mdr_alloc((size_t)a->n * sizeof *count);
    Err *e = NULL;
    for (int32_t i = 0; i < a->n_input && !e; i++) e = send_input(a, i, &input[i], n_seq);
    for (int32_t m = 0; m < a->n; m++) count[m] = pop->alive[m] ? n_seq : 0;
    if (!e) e = mdr_accel_upload(a->accel, a->n_seq, count, a->n * 4);
    if (!e) e = mdr_accel_upload(a->accel, a->hyper, pop->hyper, a->n * (int64_t)sizeof(Hyper));
    if (!e) e = mdr_accel_sync(a->accel);
    mdr_free(count);
    return e;
}

/* Not part of the recorded step: who stays on the device reads them where they lie. */
static Err *gather_results(AccelExec *a)
{
    const Frame f = frame(a, NULL);
    for (int32_t i = 0; i < a->p->graph->n_output; i++) {
        if (a->result_at[i] < 0) continue;
        Value v = a->p->graph->output[i];
        Arg x = mdr_exec_arg(a->p, &f, &a->p->output[i]);
        int64_t n = mdr_numel(a->p->graph->node[v.node].out[v.out].shape);
        MDR_TRY(mdr_accel_copy(a->accel, a->result + a->result_at[i], a->result_n * 8, x.data, x.member * 8, n * 8, a->n));
    }
    return NULL;
}

static Err *fetch(AccelExec *a, StepOut *out)
{
    double *norm = mdr_alloc((size_t)a->n * sizeof *norm);
    Err *e = gather_results(a);
    if (!e) e = mdr_accel_download(a->accel, a->host, a->result, a->result_n * a->n * 8);
    if (!e && a->clips && a->update) e = mdr_accel_download(a->accel, norm, a->norm, a->n * 8);
    for (int32_t m = 0; m < a->n && !e; m++) {
        out[m] = (StepOut){norm[m], isfinite(norm[m])};
        for (int64_t k = 0; k < a->result_n; k++) out[m].finite = out[m].finite && isfinite(a->host[m * a->result_n + k]);
    }
    mdr_free(norm);
    return e;
}

Err *mdr_exec_accel_step(AccelExec *a, Population *pop, const StepInput *input, int32_t n_seq, bool update, StepOut *out)
{
    forget_mirrors(a);
    if (a->poison) MDR_TRY(mdr_accel_fill(a->accel, a->memory + a->poison_at, 0xff, a->poison_end - a->poison_at));
    MDR_TRY(send(a, pop, input, n_seq));
    if (a->profiling) {
        MDR_TRY(enqueue(a, pop, update, NULL, NULL));
        MDR_TRY(mdr_accel_sync(a->accel));
        MDR_TRY(read_marks(a, n_seq));
    } else {
        if (!a->step || a->pop != pop || a->update != update) MDR_TRY(record(a, pop, update, NULL, NULL));
        MDR_TRY(mdr_accel_replay(a->accel, a->step));
    }
    MDR_TRY(mdr_accel_sync(a->accel));
    return fetch(a, out);
}

const void *mdr_exec_accel_output(AccelExec *a, int32_t member, int32_t i)
{
    const Plan *p = a->p;
    if (a->result_at[i] >= 0) return a->host + member * a->result_n + a->result_at[i];
    void **mirror = &a->mirror[member * p->graph->n_output + i];
    if (*mirror) return *mirror;
    Value v = p->graph->output[i];
    Frame f = frame(a, a->pop);
    Arg x = mdr_exec_arg(p, &f, &p->output[i]);
    if (!x.data) return NULL;
    const Type *t = &p->graph->node[v.node].out[v.out];
    int64_t rows = mdr_rows(t->shape), n = (rows - 1) * x.ld + mdr_cols(t->shape);
    if (t->axes & MDR_AXIS_SEQ) n += (p->spec.batch - 1) * x.seq;
    *mirror = mdr_alloc((size_t)(n * x.size) + 1);
    Err *e = mdr_accel_download(a->accel, *mirror, (const char *)x.data + member * x.member * x.size, n * x.size);
    if (!e) return *mirror;
    mdr_err_free(e);
    return NULL;
}

/* ---- steps that stay on the device: exec.h ---- */
void mdr_exec_accel_poison(AccelExec *a, bool on) { a->poison = on; }
void mdr_exec_accel_profile(AccelExec *a, bool on)
{
    a->profiling = on;
    a->calls = a->sequences = 0;
    memset(a->seconds, 0, (size_t)(a->p->begin[PH_COUNT] + 1) * sizeof *a->seconds);
}
int32_t mdr_exec_accel_profile_read(const AccelExec *a, OpProfile *out, int32_t max)
{
    int32_t n = a->p->begin[PH_COUNT];
    for (int32_t i = 0; i <= n && i < max; i++) {
        if (i == n) {                                     /* gradients' last copies and the update                               */
            out[i] = (OpProfile){a->p->spec.update ? a->p->spec.update : "(results)", "", NULL, a->seconds[i], a->calls, a->sequences, PH_POST};
            break;
        }
        const Instr *in = &a->p->instr[i];
        out[i] = (OpProfile){in->prep_units ? "(prepare)" : in->node->op->name, in->node->where, in->node, a->seconds[i], a->calls, a->sequences,
                             in->node->out[0].phase};
        if (in->prep_units) out[i].phase = in->prep.place == PL_CONST ? PH_CONST : PH_STEP;
    }
    return n + 1;
}

void *mdr_exec_accel_input(Exec *e, int32_t i, int64_t *member)
{
    AccelExec *a = mdr_exec_of_accel(e);
    *member = a->input[i].member;
    return (void *)(uintptr_t)a->input[i].data;
}
int32_t *mdr_exec_accel_n_seq(Exec *e) { return mdr_exec_of_accel(e)->n_seq; }
int32_t *mdr_exec_accel_one(Exec *e) { return mdr_exec_of_accel(e)->one; }
Hyper *mdr_exec_accel_hyper(Exec *e) { return mdr_exec_of_accel(e)->hyper; }
const double *mdr_exec_accel_sum(const Exec *e, int32_t i, int64_t *member)
{
    const AccelExec *a = mdr_exec_of_accel(e);
    const Frame f = frame(a, NULL);
    const Arg x = mdr_exec_arg(a->p, &f, &a->p->output[i]);
    *member = x.member;
    return a->result_at[i] < 0 ? NULL : x.data;
}
const double *mdr_exec_accel_norm(const Exec *e)
{
    const AccelExec *a = mdr_exec_of_accel(e);
    return a->clips && a->update ? a->norm : NULL;
}
Err *mdr_exec_record(Exec *e, Population *pop, bool update, const ExecHooks *hooks)
{
    MDR_TRY(mdr_exec_opened_for(e, pop));
    return record(mdr_exec_of_accel(e), pop, update, e, hooks);
}
Err *mdr_exec_replay(Exec *e)
{
    AccelExec *a = mdr_exec_of_accel(e);
    return mdr_accel_replay(a->accel, a->step);
}
int32_t mdr_exec_launches(const Exec *e)
{
    const AccelExec *a = mdr_exec_of_accel(e);
    return a->step ? mdr_accel_launches(a->step) : 0;
}
