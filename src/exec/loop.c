/* Running scan and scan_grad: the plan of the body, once a time step, inside the node's scratch. Nothing here knows what the
 * body computes. Works for any number of members and sequences (strides), so all devices use it; where scratch is not the host's
 * memory LoopHands do what touches it.
 *
 * Scratch of a scan:       [ body's STEP | SLICE | LANE | POST | carries A | carries B | gathered xs | consts ]
 * Scratch of a scan_grad:  [ forward body's places | gradient body's places | carries of one chunk (C + 1) | dcarries A, B |
 *                            gathered xs, dys | consts ]
 * (and for each body a word for LoopHands.begin). Every body input is dense: xs rows and strided consts are gathered. All pieces are
 * [member][sequence][numel]. */
#include "exec/internal.h"
#include <string.h>

typedef struct Carver { char *at; size_t used; int64_t align; } Carver;       /* at NULL: only measures                    */
static char *carve(Carver *c, int64_t bytes)
{
    char *p = c->at ? c->at + c->used : NULL;
    c->used += (size_t)mdr_exec_round(bytes, c->align);
    return p;
}

/* ---- hands on the host ---- */
static void add_row(char *to, const char *from, int64_t n, int64_t size)
{
    if (size == 4) for (int64_t i = 0; i < n; i++) ((float *)(void *)to)[i] += ((const float *)(const void *)from)[i];
    else for (int64_t i = 0; i < n; i++) ((double *)(void *)to)[i] += ((const double *)(const void *)from)[i];
}
static void move_host(const Frame *f, bool add, const Arg *to, const Arg *from, Extent e, int64_t rows, int64_t cols)
{
    size_t bytes = (size_t)(cols * to->size);
    (void)f;
    for (int32_t m = 0; m < e.n_member; m++)
        for (int32_t s = 0; s < e.n_seq; s++)
            for (int64_t r = 0; r < rows; r++) {
                char *y = (char *)to->data + (m * to->member + s * to->seq + r * to->ld) * to->size;
                const char *x = (const char *)from->data + (m * from->member + s * from->seq + r * from->ld) * to->size;
                if (!from->data) memset(y, 0, bytes);
                else if (add) add_row(y, x, cols, to->size);
                else memcpy(y, x, bytes);
            }
}
static void begin_host(const Plan *p, Frame *f, int32_t *always)
{
    (void)always;
    mdr_exec_consts(p, f->base[PL_CONST]);
    mdr_exec_phase(p, PH_CONST, f);
    mdr_exec_phase(p, PH_STEP, f);
    memset(f->base[PL_LANE], 0, (size_t)(p->size[PL_LANE] * f->extent.n_member));
}
static void fold_host(const Plan *p, Frame *f)
{
    for (int32_t m = 0; m < f->extent.n_member; m++) {
        char *lane = f->base[PL_LANE] + m * p->size[PL_LANE], *post = f->base[PL_POST] + m * p->size[PL_POST];
        mdr_exec_fold_reals(p, &lane, 1, post, 0, p->lane_reals);
        mdr_exec_fold_sums(p, &lane, 1, post);
    }
}
static const LoopHands host = {move_host, begin_host, fold_host};
static const LoopHands *hands_of(const Plan *p) { return p->spec.device->accel ? &mdr_exec_loop_accel : &host; }

/* A dense piece of n elements for each of the extent's members and sequences. */
typedef struct Piece { char *data; int64_t n; int32_t size; bool seq; } Piece;
static Piece piece(Carver *c, int64_t n, int32_t size, bool seq, Extent e)
{
    return (Piece){carve(c, (int64_t)e.n_member * (seq ? e.n_seq : 1) * n * size), n, size, seq};
}
/* From its element `at` on, in rows of cols. */
static Arg piece_arg(const Piece *p, Extent e, int64_t at, int64_t cols)
{
    return (Arg){p->data + at * p->size, p->n * (p->seq ? e.n_seq : 1), p->seq ? p->n : 0, cols, p->size};
}
static Arg from_row(Arg a, int64_t row)
{
    a.data = (char *)a.data + row * a.ld * a.size;
    return a;
}

/* One body: its plan, its memory, its frame; inputs are set before each step. */
typedef struct Body { const Plan *p; Frame f; StepInput input[MDR_MAX_IN * 2]; int32_t *always; } Body;
static void body_carve(Body *b, const Plan *p, Carver *c, Extent e)
{
    *b = (Body){.p = p};
    b->f.extent = e;
    static const Place own[] = {PL_STEP, PL_SLICE, PL_LANE, PL_POST};
    for (int i = 0; i < MDR_COUNT(own); i++) b->f.base[own[i]] = carve(c, p->size[own[i]] * e.n_member);
    b->f.base[PL_CONST] = carve(c, p->size[PL_CONST]);
    b->f.scratch = carve(c, (int64_t)mdr_exec_scratch(p, false, e));
    b->always = (int32_t *)(void *)carve(c, (int64_t)sizeof *b->always);
}
/* The node's own Call and Frame say for which sequences and on which stream. */
static void body_begin(Body *b, const Call *c, const Frame *outer)
{
    b->f.input = b->input;
    b->f.accel = outer->accel;
    b->f.stream = outer->stream;
    b->f.n_seq = c->n_seq;
    b->f.one = outer->one;
    hands_of(b->p)->begin(b->p, &b->f, b->always);
}
static void body_feed(Body *b, int32_t k, const Piece *x)
{
    b->input[k] = (StepInput){x->data, piece_arg(x, b->f.extent, 0, 1).member};
}

typedef struct Scan {
    const LoopHands *hands;
    const Node *n;
    const ScanAttr *a;
    Extent e;
    Body fwd, bwd;
    Piece carry[MDR_MAX_IN], next[MDR_MAX_IN];            /* the two buffers of each carry                                 */
    Piece x[MDR_MAX_IN];                                  /* xs_t and consts, by input number                              */
    Piece hist[MDR_MAX_IN];                               /* scan_grad: carries of a chunk, C + 1 in a row                 */
    Piece dcarry[MDR_MAX_IN], dnext[MDR_MAX_IN], dy[MDR_MAX_IN], dx[MDR_MAX_IN];
    int64_t xcols[MDR_MAX_IN];
} Scan;

static const Type *body_input(const Scan *z, int32_t k)
{
    int32_t node[MDR_MAX_IN];
    mdr_ir_inputs(z->n->body, node, MDR_MAX_IN);
    return &z->n->body->node[node[k]].out[0];
}
static Shape body_output(const Scan *z, int32_t k)
{
    Value v = z->n->body->output[k];
    return z->n->body->node[v.node].out[v.out].shape;
}

/* The outer plan's bodies in scratch; c->at NULL: only the size. */
static void scan_carve(Scan *z, const Instr *in, Carver *c, Extent e)
{
    bool grad = in->body_grad != NULL;
    *z = (Scan){.n = in->node, .a = in->node->attr, .e = e, .hands = hands_of(in->body)};
    const ScanAttr *a = z->a;
    int32_t n_state = a->n_carry + a->n_xs + a->n_const;
    c->align = mdr_exec_align(in->body);
    body_carve(&z->fwd, in->body, c, e);
    if (grad) body_carve(&z->bwd, in->body_grad, c, e);
    for (int32_t k = 0; k < n_state; k++) {
        const Type *t = body_input(z, k);
        int64_t n = mdr_numel(t->shape);
        int32_t size = mdr_exec_size(in->body, t->dtype);
        z->xcols[k] = mdr_cols(t->shape);
        bool seq = t->axes & MDR_AXIS_SEQ;
        if (k < a->n_carry) {
            z->carry[k] = piece(c, n, size, true, e);
            z->next[k] = piece(c, n, size, true, e);
            if (!grad) continue;
            z->hist[k] = piece(c, n * (a->chunk + 1), size, true, e);
            z->dcarry[k] = piece(c, n, size, true, e);
            z->dnext[k] = piece(c, n, size, true, e);
        } else {
            z->x[k] = piece(c, n, size, seq, e);
            if (grad) z->dx[k] = piece(c, n, size, seq, e);
        }
    }
    for (int32_t k = 0; grad && k < a->n_ys; k++) z->dy[k] = piece(c, mdr_numel(body_output(z, a->n_carry + k)), in->body->real, true, e);
}

size_t mdr_exec_scan_scratch(const Instr *in, Extent e)
{
    Scan z;
    Carver c = {0};
    scan_carve(&z, in, &c, e);
    return c.used;
}

/* ---- moving: all sequences of a piece, or its one value ---- */
static void move(const Scan *z, bool add, const Arg *to, const Arg *from, bool seq, int64_t rows, int64_t cols)
{
    z->hands->move(&z->fwd.f, add, to, from, (Extent){z->e.n_member, seq ? z->e.n_seq : 1}, rows, cols);
}
/* Rows [row, ..) of a strided argument, as many as the piece has, into the piece or out of it. */
static void gather(const Scan *z, const Arg *from, const Piece *to, int64_t row, int64_t cols)
{
    Arg x = from_row(*from, row), y = piece_arg(to, z->e, 0, cols);
    move(z, false, &y, &x, to->seq, to->n / cols, cols);
}
static void scatter(const Scan *z, bool add, const Arg *to, const Piece *from, int64_t row, int64_t cols)
{
    Arg y = from_row(*to, row), x = piece_arg(from, z->e, 0, cols);
    move(z, add, &y, &x, from->seq, from->n / cols, cols);
}
static void zero(const Scan *z, const Piece *p)
{
    Arg y = piece_arg(p, z->e, 0, p->n);
    move(z, false, &y, &(Arg){0}, p->seq, 1, p->n);
}
/* Output i of a body into a piece, or added to it. */
static void body_read(const Scan *z, const Body *b, int32_t i, bool add, const Piece *to, int64_t cols)
{
    Arg x = mdr_exec_arg(b->p, &b->f, &b->p->output[i]), y = piece_arg(to, z->e, 0, cols);
    move(z, add, &y, &x, to->seq, to->n / cols, cols);
}
/* Between the carries and step i of a chunk's history. */
static void remember(const Scan *z, int32_t k, int32_t i, bool recall)
{
    const int64_t n = z->carry[k].n;
    Arg now = piece_arg(&z->carry[k], z->e, 0, n), then = piece_arg(&z->hist[k], z->e, i * n, n);
    move(z, false, recall ? &now : &then, recall ? &then : &now, true, 1, n);
}
static void swap(Piece *a, Piece *b) { Piece p = *a; *a = *b; *b = p; }

static void gather_consts(const Scan *z, const Call *c)
{
    for (int32_t k = z->a->n_carry + z->a->n_xs; k < z->a->n_carry + z->a->n_xs + z->a->n_const; k++)
        gather(z, &c->in[k], &z->x[k], 0, z->xcols[k]);
}
static void gather_xs(const Scan *z, const Call *c, int32_t t)
{
    for (int32_t k = z->a->n_carry; k < z->a->n_carry + z->a->n_xs; k++) gather(z, &c->in[k], &z->x[k], t * (z->x[k].n / z->xcols[k]), z->xcols[k]);
}
static void feed_state(const Scan *z, Body *b, const Piece *carry)
{
    int32_t n_state = z->a->n_carry + z->a->n_xs + z->a->n_const;
    for (int32_t k = 0; k < n_state; k++) body_feed(b, k, k < z->a->n_carry ? &carry[k] : &z->x[k]);
}
/* One forward step: carry -> next, then the two change places. */
static void step_forward(Scan *z)
{
    feed_state(z, &z->fwd, z->carry);
    mdr_exec_phase(z->fwd.p, PH_SEQ, &z->fwd.f);
    for (int32_t k = 0; k < z->a->n_carry; k++) body_read(z, &z->fwd, k, false, &z->next[k], z->xcols[k]);
    for (int32_t k = 0; k < z->a->n_carry; k++) swap(&z->carry[k], &z->next[k]);
}

static void run_scan(Scan *z, const Call *c, const Frame *f)
{
    const ScanAttr *a = z->a;
    gather_consts(z, c);
    feed_state(z, &z->fwd, z->carry);
    body_begin(&z->fwd, c, f);
    for (int32_t k = 0; k < a->n_carry; k++) gather(z, &c->in[k], &z->carry[k], 0, z->xcols[k]);
    for (int32_t i = 0; i < a->length; i++) {
        int32_t t = a->reverse ? a->length - 1 - i : i;
        for (int32_t k = 0; k < a->n_carry && i % a->chunk == 0; k++) {
            const Arg *saved = &c->out[a->n_carry + a->n_ys + k];
            if (saved->data) scatter(z, false, saved, &z->carry[k], i / a->chunk, z->carry[k].n);
        }
        gather_xs(z, c, t);
        step_forward(z);
        for (int32_t k = 0; k < a->n_ys; k++) {
            const Arg *y = &c->out[a->n_carry + k];
            if (!y->data) continue;
            Arg from = mdr_exec_arg(z->fwd.p, &z->fwd.f, &z->fwd.p->output[a->n_carry + k]);
            Shape s = body_output(z, a->n_carry + k);
            Arg to = from_row(*y, t * mdr_rows(s));
            move(z, false, &to, &from, true, mdr_rows(s), mdr_cols(s));
        }
    }
    for (int32_t k = 0; k < a->n_carry; k++)
        if (c->out[k].data) scatter(z, false, &c->out[k], &z->carry[k], 0, z->xcols[k]);
}

/* The carries at every step of chunk q, recomputed from its saved start. */
static void rebuild_chunk(Scan *z, const Call *c, int32_t first, int32_t count)
{
    const ScanAttr *a = z->a;
    int32_t saved = a->n_carry + a->n_xs + a->n_const;
    for (int32_t k = 0; k < a->n_carry; k++) gather(z, &c->in[saved + k], &z->carry[k], first / a->chunk, z->carry[k].n);
    for (int32_t i = 0; i < count; i++) {
        for (int32_t k = 0; k < a->n_carry; k++) remember(z, k, i, false);
        if (i + 1 == count) break;
        gather_xs(z, c, a->reverse ? a->length - 1 - (first + i) : first + i);
        step_forward(z);
    }
}

static void step_backward(Scan *z, const Call *c, int32_t t, int32_t in_chunk)
{
    const ScanAttr *a = z->a;
    int32_t n_state = a->n_carry + a->n_xs + a->n_const, d = n_state + a->n_carry;     /* first of d(carry), d(ys) inputs    */
    for (int32_t k = 0; k < a->n_carry; k++) remember(z, k, in_chunk, true);
    gather_xs(z, c, t);
    for (int32_t k = 0; k < a->n_ys; k++) {
        const Arg *dy = &c->in[d + a->n_carry + k];
        Shape s = body_output(z, a->n_carry + k);
        if (dy->data) gather(z, dy, &z->dy[k], t * mdr_rows(s), mdr_cols(s));
    }
    feed_state(z, &z->bwd, z->carry);
    for (int32_t k = 0; k < a->n_carry; k++) body_feed(&z->bwd, n_state + k, &z->dcarry[k]);
    for (int32_t k = 0; k < a->n_ys; k++) body_feed(&z->bwd, n_state + a->n_carry + k, &z->dy[k]);
    mdr_exec_phase(z->bwd.p, PH_SEQ, &z->bwd.f);
    for (int32_t k = 0; k < n_state; k++) {
        bool there = z->bwd.p->output[k].place != PL_NONE;
        if (k < a->n_carry) {
            if (there) body_read(z, &z->bwd, k, false, &z->dnext[k], z->xcols[k]);
            else zero(z, &z->dnext[k]);
        } else if (k < a->n_carry + a->n_xs) {
            if (!c->out[k].data || !there) continue;
            body_read(z, &z->bwd, k, false, &z->dx[k], z->xcols[k]);
            scatter(z, false, &c->out[k], &z->dx[k], t * (z->dx[k].n / z->xcols[k]), z->xcols[k]);
        } else if (there && z->dx[k].seq) {
            body_read(z, &z->bwd, k, true, &z->dx[k], z->xcols[k]);
        }
    }
    for (int32_t k = 0; k < a->n_carry; k++) swap(&z->dcarry[k], &z->dnext[k]);
}

/* A sum over the slice that nobody accumulates stands at its first sequence; the others' share of it is zero. */
static void zero_other_sequences(const Scan *z, const Arg *out, const Piece *p, int64_t cols)
{
    Arg first = piece_arg(p, z->e, 0, cols), all = *out;
    if (!out->seq) return;
    move(z, false, &all, &(Arg){0}, true, p->n / cols, cols);
    move(z, false, &all, &first, false, p->n / cols, cols);
}

/* After the last step: accumulators shared by the sequences lie in the gradient body's lane; fold, POST, read. */
static void finish_grad(Scan *z, const Call *c)
{
    const ScanAttr *a = z->a;
    const Plan *p = z->bwd.p;
    z->hands->fold(p, &z->bwd.f);
    mdr_exec_phase(p, PH_POST, &z->bwd.f);
    for (int32_t k = 0; k < a->n_carry; k++)
        if (c->out[k].data) scatter(z, false, &c->out[k], &z->dcarry[k], 0, z->xcols[k]);
    for (int32_t k = a->n_carry + a->n_xs; k < a->n_carry + a->n_xs + a->n_const; k++) {
        const Arg *out = &c->out[k];
        bool add = (c->add >> k) & 1u;
        if (!out->data || p->output[k].place == PL_NONE) continue;
        if (!z->dx[k].seq) body_read(z, &z->bwd, k, false, &z->dx[k], z->xcols[k]);
        if (add || z->dx[k].seq) scatter(z, add, out, &z->dx[k], 0, z->xcols[k]);
        else if (out->seq) zero_other_sequences(z, out, &z->dx[k], z->xcols[k]);
        else scatter(z, false, out, &z->dx[k], 0, z->xcols[k]);
    }
}

static void run_scan_grad(Scan *z, const Call *c, const Frame *f)
{
    const ScanAttr *a = z->a;
    int32_t n_state = a->n_carry + a->n_xs + a->n_const, d = n_state + a->n_carry;
    gather_consts(z, c);
    feed_state(z, &z->fwd, z->carry);
    feed_state(z, &z->bwd, z->carry);
    body_begin(&z->fwd, c, f);
    body_begin(&z->bwd, c, f);
    for (int32_t k = 0; k < a->n_carry; k++) {
        if (c->in[d + k].data) gather(z, &c->in[d + k], &z->dcarry[k], 0, z->xcols[k]);
        else zero(z, &z->dcarry[k]);
    }
    for (int32_t k = 0; k < a->n_ys; k++)
        if (!c->in[d + a->n_carry + k].data) zero(z, &z->dy[k]);
    for (int32_t k = a->n_carry + a->n_xs; k < n_state; k++) zero(z, &z->dx[k]);
    for (int32_t first = (a->length - 1) / a->chunk * a->chunk; first >= 0; first -= a->chunk) {
        int32_t count = a->length - first < a->chunk ? a->length - first : a->chunk;
        rebuild_chunk(z, c, first, count);
        for (int32_t i = count - 1; i >= 0; i--) step_backward(z, c, a->reverse ? a->length - 1 - (first + i) : first + i, i);
    }
    finish_grad(z, c);
}

void mdr_exec_scan(const Instr *in, const Call *c, const Frame *f)
{
    Scan z;
    Carver carver = {.at = f->scratch};
    scan_carve(&z, in, &carver, c->extent);
    z.fwd.f.stream = f->stream;                       /* what is moved before the body begins goes the same way              */
    z.fwd.f.n_seq = c->n_seq;
    if (in->body_grad) run_scan_grad(&z, c, f);
    else run_scan(&z, c, f);
}
