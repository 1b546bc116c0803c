/* Running instructions: slots + a frame's bases = arguments; folding lanes. */
#include "exec/internal.h"
#include <string.h>

Arg mdr_exec_arg(const Plan *p, const Frame *f, const Slot *s)
{
    switch (s->place) {
    case PL_NONE:
        return (Arg){0};
    case PL_INPUT: {
        const StepInput *in = &f->input[s->input];
        return (Arg){(char *)(uintptr_t)in->data + s->at + f->first_seq * s->seq * s->size, in->member, s->seq, s->ld, s->size};
    }
    case PL_PARAM:
        return (Arg){f->base[PL_PARAM] + s->at, p->stride, 0, s->ld, s->size};
    case PL_CONST:
        return (Arg){f->base[PL_CONST] + s->at, 0, 0, s->ld, s->size};
    default: {
        Place of = s->place == PL_LANE && p->spec.device->accel ? PL_POST : s->place;      /* there the lane is POST's first part */
        return (Arg){f->base[s->place] + s->at, p->whole ? p->size[of] / s->size : 0, s->seq, s->ld, s->size};
    }
    }
}

int64_t mdr_exec_units(const Instr *in, Extent e)
{
    return in->prep_units ? in->prep_units : in->units ? in->units(in->node, e) : 1;
}

size_t mdr_exec_scratch(const Plan *p, bool aside, Extent e)
{
    size_t most = 0;
    for (int32_t i = 0; i < p->begin[PH_COUNT]; i++) {
        const Instr *in = &p->instr[i];
        if (in->aside != aside) continue;
        size_t n = in->prep_units ? 0 : in->body ? mdr_exec_scan_scratch(in, e) : in->scratch ? in->scratch(in->node, e) : 0;
        if (n > most) most = n;
    }
    return most;
}

/* A Prep sees one member a call and writes out[0]; on an accelerator it sees all (op/cuda.h rule 6). */
static void run_prep(const Plan *p, const Instr *in, const Frame *f, int64_t u0, int64_t u1)
{
    Call c;
    c.node = in->node;
    c.extent = (Extent){f->accel ? f->extent.n_member : 1, 1};
    c.add = 0;
    c.scratch = f->scratch;
    c.prep = (Arg){0};
    c.stream = f->stream;
    c.side = NULL;
    c.images = f->images;
    c.n_seq = f->one;
    if (f->accel) {
        for (int k = 0; k < in->node->n_in; k++) c.in[k] = mdr_exec_arg(p, f, &in->in[k]);
        c.out[0] = mdr_exec_arg(p, f, &in->prep);
        in->run(&c, 0, 0);
        return;
    }
    const Arg raw = mdr_exec_arg(p, f, &in->in[in->prep_in]), made = mdr_exec_arg(p, f, &in->prep);
    for (int32_t m = 0; m < f->extent.n_member; m++) {
        c.in[in->prep_in] = raw;
        c.in[in->prep_in].data = (char *)raw.data + m * raw.member * p->real;
        c.out[0] = made;
        c.out[0].data = (char *)made.data + m * made.member * p->real;
        in->run(&c, u0, u1);
    }
}

void mdr_exec_instr(const Plan *p, const Instr *in, const Frame *f, int64_t u0, int64_t u1)
{
    double begin = f->profile ? mdr_clock() : 0;
    Phase phase = in->node->out[0].phase;
    Extent e = f->extent;
    if (phase != PH_SEQ && !(in->node->op == &mdr_ir_op_sum_batch)) e.n_seq = 1;
    if (phase == PH_CONST) e.n_member = 1;
    if (u1 < 0) u1 = mdr_exec_units(in, e);
    if (in->prep_units) {
        Frame one = *f;
        if (in->prep.place == PL_CONST) one.extent.n_member = 1;
        run_prep(p, in, &one, u0, u1);
    } else {
        Call c;
        c.node = in->node;
        c.extent = e;
        c.add = in->add;
        c.scratch = f->scratch;
        c.stream = f->stream;
        c.side = f->side;
        c.images = NULL;
        c.n_seq = phase == PH_SEQ || in->node->op == &mdr_ir_op_sum_batch ? f->n_seq : f->one;
        c.prep = mdr_exec_arg(p, f, &in->prep);
        for (int k = 0; k < in->node->n_in; k++) c.in[k] = mdr_exec_arg(p, f, &in->in[k]);
        for (int k = 0; k < in->node->n_out; k++) c.out[k] = mdr_exec_arg(p, f, &in->out[k]);
        if (in->body) mdr_exec_scan(in, &c, f);
        else in->run(&c, u0, u1);
    }
    if (f->profile) {
        OpProfile *o = &f->profile[in - p->instr];
        o->seconds += mdr_clock() - begin;
        if (u0 == 0) { o->calls++; o->sequences += e.n_seq; }
    }
}

void mdr_exec_phase(const Plan *p, Phase phase, const Frame *f)
{
    for (int32_t i = p->begin[phase]; i < p->begin[phase + 1]; i++) mdr_exec_instr(p, &p->instr[i], f, 0, -1);
}

void mdr_exec_consts(const Plan *p, char *base)
{
    for (int32_t i = 0; i < p->n_table; i++) {
        const ConstAttr *a = p->table[i].attr;
        char *to = base + p->table[i].at;
        for (int64_t j = 0; j < mdr_numel(a->shape); j++) {
            if (p->real == 8) ((double *)(void *)to)[j] = a->data[j];
            else ((float *)(void *)to)[j] = (float)a->data[j];
        }
    }
}

void mdr_exec_fold_reals(const Plan *p, char *const *lane, int32_t n_lane, char *to, int64_t e0, int64_t e1)
{
    if (p->real == 4) {
        float *restrict y = (float *)(void *)to;
        memcpy(y + e0, lane[0] + e0 * 4, (size_t)(e1 - e0) * 4);
        for (int32_t k = 1; k < n_lane; k++) {
            const float *restrict x = (const float *)(const void *)lane[k];
            for (int64_t i = e0; i < e1; i++) y[i] += x[i];
        }
    } else {
        double *y = (double *)(void *)to;
        memcpy(y + e0, lane[0] + e0 * 8, (size_t)(e1 - e0) * 8);
        for (int32_t k = 1; k < n_lane; k++) {
            const double *x = (const double *)(const void *)lane[k];
            for (int64_t i = e0; i < e1; i++) y[i] += x[i];
        }
    }
}

void mdr_exec_fold_sums(const Plan *p, char *const *lane, int32_t n_lane, char *to)
{
    int64_t at = p->lane_reals * p->real;
    double *y = (double *)(void *)(to + at);
    for (int64_t i = 0; i < p->lane_sums; i++) {
        double sum = 0;
        for (int32_t k = 0; k < n_lane; k++) sum += ((const double *)(const void *)(lane[k] + at))[i];
        y[i] = sum;
    }
}
