/* Layout: which value lies where. Dead nodes are dropped; views become aliases; the parts of a join are written in place by
 * their producers; summing ops that feed a sum_batch add straight into the lane; what is left gets storage by its phase, and
 * SEQ values share the slice arena by liveness (lowest free gap, in node order). */
#include "exec/internal.h"
#include <string.h>

typedef struct Val {
    int32_t uses;                 /* live consumers, graph outputs included                                              */
    int32_t root;                 /* value number whose storage this is part of; itself: owns storage                    */
    int64_t shift;                /* elements from the root's first                                                       */
    int64_t ld;
    int32_t last;                 /* of a root: the node that reads or writes it last                                     */
    int64_t accum;                /* >= 0: added into the lane at this byte; else -1                                      */
    bool sole;                    /* by it alone, for POST                                                                */
    bool pinned;
    bool full;                    /* of a root: float even where values of sequences are bf16                             */
    Slot slot;
} Val;
typedef struct Block { int64_t at, end; int32_t root; } Block;
typedef struct Layout {
    Plan *p;
    const Graph *g;
    Val *val;
    bool *live;
    Block *block;                 /* slice arena in use, sorted by offset                                                 */
    int32_t n_block;
} Layout;

static int32_t vid(Value v) { return v.node * MDR_MAX_OUT + v.out; }
static Value of_vid(int32_t i) { return (Value){i / MDR_MAX_OUT, i % MDR_MAX_OUT}; }
static const Type *type_of(const Layout *l, Value v) { return &l->g->node[v.node].out[v.out]; }
/* Bytes of an element. Precision bf16 stores values of sequences in two, but for what a kernel wants whole and for sums. */
static int32_t size_of(const Layout *l, Value v)
{
    const Type *t = type_of(l, v);
    const Val *r = &l->val[l->val[vid(v)].root];
    bool half = l->p->spec.device->half && t->dtype == DT_REAL && (t->axes & MDR_AXIS_SEQ) && !r->full && r->accum < 0;
    return half ? 2 : mdr_exec_size(l->p, t->dtype);
}
static int64_t bytes_of(const Layout *l, Value v) { return mdr_numel(type_of(l, v)->shape) * size_of(l, v); }

/* After aliasing: what kernels want whole (op.h, CudaRow); a view and what it is of have one size. */
static void mark_full(Layout *l)
{
    for (int32_t i = 0; i < l->g->n_node; i++) {
        const Node *n = &l->g->node[i];
        const CudaRow *row = mdr_op_cuda(n);
        bool scan = n->op == &mdr_ir_op_scan || n->op == &mdr_ir_op_scan_grad;
        for (int k = 0; l->live[i] && k < n->n_out; k++)
            if (scan || (row && ((row->full_out >> k) & 1u))) l->val[l->val[vid((Value){i, k})].root].full = true;
        for (int k = 0; l->live[i] && row && k < n->n_in; k++)
            if (n->in[k].node >= 0 && ((row->full_in >> k) & 1u)) l->val[l->val[vid(n->in[k])].root].full = true;
    }
}

static void mark_live(Layout *l)
{
    for (int32_t i = 0; i < l->g->n_output; i++) {
        Value v = l->g->output[i];
        if (v.node < 0) continue;
        l->live[v.node] = true;
        l->val[vid(v)].uses++;
        l->val[vid(v)].pinned = true;
    }
    for (int32_t i = l->g->n_node - 1; i >= 0; i--) {
        if (!l->live[i]) continue;
        const Node *n = &l->g->node[i];
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k].node >= 0) { l->live[n->in[k].node] = true; l->val[vid(n->in[k])].uses++; }
    }
}

/* A node that a kernel computes (and that may therefore write anywhere): not storage, not a view. */
static bool computed(const Layout *l, Value v)
{
    const OpDef *op = l->g->node[v.node].op;
    return !mdr_exec_storage(op) && op != &mdr_ir_op_reshape && op != &mdr_ir_op_split && op != &mdr_ir_op_rows &&
           op != &mdr_ir_op_sum_batch && op != &mdr_ir_op_scan && op != &mdr_ir_op_scan_grad;
}

static bool owns(const Layout *l, Value v) { return l->val[vid(v)].root == vid(v) && l->val[vid(v)].accum < 0; }

/* All parts of a join written in place, or none. */
static void alias_join(Layout *l, int32_t i)
{
    const Node *n = &l->g->node[i];
    for (int k = 0; k < n->n_in; k++) {
        Value v = n->in[k];
        const Val *x = &l->val[vid(v)];
        const Type *t = type_of(l, v);
        if (l->g->node[v.node].op == &mdr_ir_op_join) return;         /* its own parts already point at it                   */
        if (!computed(l, v) || x->uses != 1 || !owns(l, v) || t->phase != n->out[0].phase || t->axes != n->out[0].axes) return;
    }
    int64_t ld = mdr_cols(n->out[0].shape), at = 0;
    for (int k = 0; k < n->n_in; k++) {
        Val *x = &l->val[vid(n->in[k])];
        x->root = vid((Value){i, 0});
        x->shift = at;
        x->ld = ld;
        at += mdr_cols(type_of(l, n->in[k])->shape);
    }
}

static bool alias_view(Layout *l, int32_t i)
{
    const Node *n = &l->g->node[i];
    Value x = n->in[0];
    const Val *v = &l->val[vid(x)];
    const Type *t = type_of(l, x);
    int64_t shift = 0;
    if (n->op == &mdr_ir_op_reshape && v->ld != mdr_cols(t->shape) && mdr_rows(t->shape) != 1) return false;
    if (n->op == &mdr_ir_op_rows) {
        if (t->axes & MDR_AXIS_SEQ) return false;          /* would break seq == rows*ld                                  */
        const RowsAttr *a = n->attr;
        shift = t->shape.rank == 1 ? a->start : mdr_rows(t->shape) / t->shape.d[0] * a->start * v->ld;
    }
    for (int k = 0; k < n->n_out; k++) {
        Val *y = &l->val[vid((Value){i, k})];
        y->root = v->root;
        y->shift = v->shift + shift;
        y->ld = n->op == &mdr_ir_op_reshape ? mdr_cols(n->out[0].shape) : v->ld;
        if (n->op == &mdr_ir_op_split) shift += mdr_cols(n->out[k].shape);
    }
    return true;
}

/* Is in[k] of a sum_batch made by a summing op for it alone (perhaps through reshapes)? Then its producer's value. */
static bool summed_by_producer(const Layout *l, Value v, Value *made)
{
    while (l->g->node[v.node].op == &mdr_ir_op_reshape && l->val[vid(v)].uses == 1) v = l->g->node[v.node].in[0];
    const Node *n = &l->g->node[v.node];
    *made = v;
    return ((n->sums >> v.out) & 1u) && l->val[vid(v)].uses == 1 && n->op != &mdr_ir_op_sum_batch;
}

/* Accumulators: the gradient of parameter i at the parameter's own offset, others behind. */
static void place_accumulators(Layout *l)
{
    Plan *p = l->p;
    int64_t reals = p->stride, sums = 0;
    int32_t *grad_of = mdr_alloc((size_t)l->g->n_node * sizeof *grad_of + 1);
    for (int32_t i = 0; i < p->n_param && p->spec.first_grad >= 0; i++) {
        Value v = l->g->output[p->spec.first_grad + i];
        if (v.node >= 0 && l->g->node[v.node].op == &mdr_ir_op_sum_batch && !grad_of[v.node]) grad_of[v.node] = i + 1;
    }
    for (int32_t i = 0; i < l->g->n_node; i++) {
        const Node *n = &l->g->node[i];
        if (!l->live[i] || n->op != &mdr_ir_op_sum_batch || n->out[0].dtype != DT_REAL) continue;
        Val *x = &l->val[vid((Value){i, 0})];
        x->accum = grad_of[i] ? p->param_at[grad_of[i] - 1] : reals;
        if (!grad_of[i]) reals += mdr_exec_round(mdr_numel(n->out[0].shape), p->spec.device->accel ? 64 : 16);
        x->accum *= p->real;
    }
    p->lane_reals = mdr_exec_round(reals, 64);
    for (int32_t i = 0; i < l->g->n_node; i++) {
        const Node *n = &l->g->node[i];
        if (!l->live[i] || n->op != &mdr_ir_op_sum_batch || n->out[0].dtype == DT_REAL) continue;
        l->val[vid((Value){i, 0})].accum = p->lane_reals * p->real + sums * 8;
        sums += mdr_numel(n->out[0].shape);
    }
    p->lane_sums = sums;
    p->size[PL_LANE] = mdr_exec_round(p->lane_reals * p->real + sums * 8, mdr_exec_align(p));
    mdr_free(grad_of);
    for (int32_t i = 0; i < l->g->n_node; i++) {          /* producers that write into them                                */
        const Node *n = &l->g->node[i];
        if (!l->live[i] || n->op != &mdr_ir_op_sum_batch) continue;
        for (int k = 0; k < n->n_in; k++) {
            Value made;
            if (!summed_by_producer(l, n->in[k], &made)) continue;
            l->val[vid(made)].accum = l->val[vid((Value){i, 0})].accum;
            l->val[vid(made)].sole = n->n_in == 1 && n->out[0].phase == PH_POST;
        }
    }
}

/* Makes only sums that nobody waits for, as the gradient of a weight: on an accelerator it runs beside the instructions that follow. Not in
 * the body of a scan (a plan without gradients) and not the walk over it, which is many instructions. */
static bool aside(const Layout *l, int32_t i)
{
    const Node *n = &l->g->node[i];
    bool any = false;
    if (!l->p->spec.device->accel || l->p->spec.first_grad < 0 || !l->live[i] || n->op == &mdr_ir_op_scan_grad) return false;
    for (int k = 0; k < n->n_out; k++) {
        const Val *x = &l->val[vid((Value){i, k})];
        if (x->accum >= 0 && x->sole) any = true;
        else if (x->uses > 0) return false;
    }
    return any;
}

static void lifetimes(Layout *l)
{
    for (int32_t i = 0; i < l->g->n_node; i++) {
        const Node *n = &l->g->node[i];
        if (!l->live[i]) continue;
        for (int k = 0; k < n->n_out; k++) {
            Val *r = &l->val[l->val[vid((Value){i, k})].root];
            if (r->last < i) r->last = i;
            if (l->val[vid((Value){i, k})].pinned) r->last = INT32_MAX;
        }
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k].node < 0) continue;
            Val *r = &l->val[l->val[vid(n->in[k])].root];
            if (r->last < i) r->last = i;
            if (aside(l, i)) r->last = INT32_MAX;
        }
    }
}

static void block_add(Layout *l, int32_t root, int64_t bytes)
{
    int64_t at = 0;
    int32_t k = 0;
    for (; k < l->n_block; k++) {
        if (l->block[k].at - at >= bytes) break;
        at = l->block[k].end;
    }
    memmove(l->block + k + 1, l->block + k, (size_t)(l->n_block - k) * sizeof *l->block);
    l->block[k] = (Block){at, at + bytes, root};
    l->n_block++;
    l->val[root].slot.at = at;
    if (at + bytes > l->p->size[PL_SLICE]) l->p->size[PL_SLICE] = at + bytes;
}
static void block_free(Layout *l, int32_t node)
{
    int32_t k = 0;
    for (int32_t i = 0; i < l->n_block; i++)
        if (l->val[l->block[i].root].last > node) l->block[k++] = l->block[i];
    l->n_block = k;
}

/* No other input of n is a different view of input k's storage: writing over k would change what that one still has to read. */
static bool sole_view(const Layout *l, const Node *n, int k)
{
    const Val *x = &l->val[vid(n->in[k])];
    for (int j = 0; j < n->n_in; j++) {
        if (j == k || n->in[j].node < 0) continue;
        const Val *y = &l->val[vid(n->in[j])];
        if (y->root == x->root && (y->shift != x->shift || !mdr_shape_equal(n->in_type[j].shape, n->in_type[k].shape))) return false;
    }
    return true;
}

/* May output 0 of node i take over the storage of one of its inputs? Then that input's root. */
static int32_t inplace_root(const Layout *l, int32_t i)
{
    const Node *n = &l->g->node[i];
    for (int k = 0; k < n->n_in; k++) {
        if (!((n->op->inplace >> k) & 1u) || n->in[k].node < 0 || !sole_view(l, n, k)) continue;
        const Val *x = &l->val[vid(n->in[k])], *r = &l->val[x->root];
        if (x->root == vid(n->in[k]) && r->slot.place == PL_SLICE && r->last == i && !r->pinned &&
            mdr_shape_equal(n->in_type[k].shape, n->out[0].shape) && n->in_type[k].dtype == n->out[0].dtype &&
            size_of(l, n->in[k]) == size_of(l, (Value){i, 0}))
            return x->root;
    }
    return -1;
}

static void store_value(Layout *l, Value v)
{
    Plan *p = l->p;
    Val *x = &l->val[vid(v)];
    const Node *n = &l->g->node[v.node];
    const Type *t = type_of(l, v);
    static const Place by_phase[PH_COUNT] = {PL_CONST, PL_STEP, PL_SLICE, PL_POST};
    if (x->slot.place != PL_NONE || x->accum >= 0) return;
    if (n->op == &mdr_ir_op_input) { x->slot = (Slot){.place = PL_INPUT, .input = ((const InputAttr *)n->attr)->index}; return; }
    if (n->op == &mdr_ir_op_param) {
        x->slot = (Slot){.place = PL_PARAM, .at = p->param_at[((const ParamAttr *)n->attr)->index] * p->real};
        return;
    }
    x->slot.place = by_phase[t->phase];
    if (x->slot.place == PL_SLICE) {
        int32_t r = v.out == 0 ? inplace_root(l, v.node) : -1;
        if (r >= 0) {
            for (int32_t b = 0; b < l->n_block; b++)
                if (l->block[b].root == r) l->block[b].root = vid(v);
            x->slot.at = l->val[r].slot.at;
        } else {
            block_add(l, vid(v), mdr_exec_round(bytes_of(l, v) * p->slice, mdr_exec_align(p)));
        }
    } else {
        x->slot.at = p->size[x->slot.place];
        p->size[x->slot.place] += mdr_exec_round(bytes_of(l, v), mdr_exec_align(p));
    }
}

static void store_all(Layout *l)
{
    for (int32_t i = 0; i < l->g->n_node; i++) {
        if (!l->live[i]) continue;
        const Node *n = &l->g->node[i];
        for (int k = 0; k < n->n_out; k++) {
            Value v = {i, k};
            if (l->val[vid(v)].accum >= 0) continue;
            Value r = of_vid(l->val[vid(v)].root);
            /* outputs nobody reads get no storage: their kernels see NULL */
            if (r.node == i && r.out == k && l->val[vid(v)].uses == 0 && !mdr_exec_storage(n->op)) continue;
            store_value(l, r);
        }
        block_free(l, i);
    }
    l->p->size[PL_SLICE] = mdr_exec_round(l->p->size[PL_SLICE], mdr_exec_align(l->p));
}

static Slot slot_of(const Layout *l, Value v)
{
    if (v.node < 0) return (Slot){0};
    const Val *x = &l->val[vid(v)];
    const Type *t = type_of(l, v);
    Slot s = l->val[x->root].slot;
    s.size = size_of(l, v);
    s.ld = x->ld;
    Value r = of_vid(x->root);
    if (l->val[x->root].accum >= 0) {                 /* read after the fold (POST mirrors the lane) or written in the lane  */
        s.place = type_of(l, r)->phase == PH_POST ? PL_POST : PL_LANE;
        s.at = l->val[x->root].accum + x->shift * s.size;
        s.seq = 0;
        return s;
    }
    if (s.place == PL_NONE) return (Slot){0};
    s.at += x->shift * s.size;
    s.seq = !(t->axes & MDR_AXIS_SEQ) ? 0 : mdr_numel(type_of(l, r)->shape);
    return s;
}

static Err *emit(Layout *l, int32_t i, Instr *in)
{
    Plan *p = l->p;
    const Node *n = &l->g->node[i];
    *in = (Instr){.node = n, .index = i, .sole = true};
    for (int k = 0; k < n->n_in; k++) in->in[k] = slot_of(l, n->in[k]);
    for (int k = 0; k < n->n_out; k++) {
        in->out[k] = slot_of(l, (Value){i, k});
        if (l->val[vid((Value){i, k})].accum < 0 || n->out[k].phase != PH_SEQ) continue;
        in->add |= 1u << k;
        in->sole = in->sole && l->val[vid((Value){i, k})].sole;
    }
    in->aside = aside(l, i);
    if (n->op == &mdr_ir_op_sum_batch) {              /* only the inputs that their producers did not add themselves         */
        for (int k = 0; k < n->n_in; k++) {
            Value made;
            if (summed_by_producer(l, n->in[k], &made)) in->in[k] = (Slot){0};
        }
        in->out[0].place = PL_LANE;
        in->add = 1;
    }
    if (n->op == &mdr_ir_op_scan || n->op == &mdr_ir_op_scan_grad) {
        MDR_TRY(mdr_exec_plan_body(n->body, p, &in->body));
        if (n->op == &mdr_ir_op_scan_grad) MDR_TRY(mdr_exec_plan_body(n->body_grad, p, &in->body_grad));
        return NULL;
    }
    const Kernel *k = p->spec.device->kernel(n);
    if (!k) return mdr_ir_shape_error(n, "device %s has no kernel for it", p->spec.device->name);
    in->run = k->run;
    in->units = k->units;
    in->scratch = k->scratch;
    return NULL;
}

/* A sum_batch whose inputs were all added by their producers needs no instruction; views and storage never do. */
static bool needs_instr(const Layout *l, int32_t i)
{
    const Node *n = &l->g->node[i];
    if (!l->live[i] || mdr_exec_storage(n->op)) return false;
    if (n->op == &mdr_ir_op_sum_batch) {
        Value made;
        for (int k = 0; k < n->n_in; k++)
            if (!summed_by_producer(l, n->in[k], &made)) return true;
        return false;
    }
    if (n->op == &mdr_ir_op_join) return l->val[vid(n->in[0])].root != vid((Value){i, 0});
    return l->val[vid((Value){i, 0})].root == vid((Value){i, 0}) || computed(l, (Value){i, 0});
}

static Phase prep_phase(const Node *n, int32_t in) { return in < 0 ? PH_CONST : n->in_type[in].phase; }
static void emit_prep(Plan *p, const Kernel *k, Instr *user, Instr *prep)
{
    Phase phase = prep_phase(user->node, k->prep.in);
    Place place = phase == PH_CONST ? PL_CONST : PL_STEP;
    user->prep = (Slot){.place = place, .at = p->size[place], .size = p->real};
    p->size[place] += mdr_exec_round(k->prep.elements(user->node) * p->real, mdr_exec_align(p));
    *prep = *user;
    prep->run = k->prep.run;
    prep->units = NULL;
    prep->prep_units = k->prep.units ? k->prep.units(user->node) : 1;
    prep->prep_in = k->prep.in;
    prep->add = 0;
    prep->aside = false;
    prep->scratch = NULL;
}

/* A Prep runs in the phase of its input (CONST or STEP; of none: CONST): right before its user where that is of the same phase, else behind
 * the phase's last instruction. */
static void add_preps(Plan *p, const Instr *all, int32_t n)
{
    Instr *late = mdr_arena_alloc(p->arena, (size_t)(n + 1) * sizeof *late), prep;
    p->instr = mdr_arena_alloc(p->arena, (size_t)(2 * n + 1) * sizeof *p->instr);
    int32_t m = 0, old[PH_COUNT + 1], n_late = 0;
    memcpy(old, p->begin, sizeof old);
    /* Users of later phases first ask for theirs; those of the same phase are placed in the second pass. */
    Instr *user = mdr_arena_alloc(p->arena, (size_t)(n + 1) * sizeof *user);
    memcpy(user, all, (size_t)n * sizeof *user);
    for (int phase = PH_STEP; phase < PH_COUNT; phase++)
        for (int32_t i = old[phase]; i < old[phase + 1]; i++) {
            const Kernel *k = user[i].run ? p->spec.device->kernel(user[i].node) : NULL;
            if (k && k->prep.run && (int)prep_phase(user[i].node, k->prep.in) < phase) emit_prep(p, k, &user[i], &late[n_late++]);
        }
    for (int phase = 0; phase < PH_COUNT; phase++) {
        p->begin[phase] = m;
        for (int32_t i = old[phase]; i < old[phase + 1]; i++) {
            const Kernel *k = user[i].run ? p->spec.device->kernel(user[i].node) : NULL;
            bool now = k && k->prep.run && (int)prep_phase(user[i].node, k->prep.in) == phase;
            if (now) { emit_prep(p, k, &user[i], &prep); p->instr[m++] = prep; }
            p->instr[m++] = user[i];
        }
        for (int32_t i = 0; i < n_late; i++)
            if ((int)prep_phase(late[i].node, late[i].prep_in) == phase) p->instr[m++] = late[i];
    }
    p->begin[PH_COUNT] = m;
}

static Err *emit_all(Layout *l)
{
    Plan *p = l->p;
    int32_t cap = 2 * l->g->n_node + 1, n = 0;
    Instr *all = mdr_arena_alloc(p->arena, (size_t)cap * sizeof *all);
    for (int phase = 0; phase < PH_COUNT; phase++) {
        p->begin[phase] = n;
        for (int32_t i = 0; i < l->g->n_node; i++) {
            const Node *x = &l->g->node[i];
            /* a sum_batch runs where its inputs are: in SEQ */
            int at = x->op == &mdr_ir_op_sum_batch ? PH_SEQ : x->out[0].phase;
            if (at == phase && needs_instr(l, i)) MDR_TRY(emit(l, i, &all[n++]));
        }
    }
    p->begin[PH_COUNT] = n;
    add_preps(p, all, n);
    return NULL;
}

static void tables(Layout *l)
{
    Plan *p = l->p;
    p->table = mdr_arena_alloc(p->arena, (size_t)l->g->n_node * sizeof *p->table + 1);
    for (int32_t i = 0; i < l->g->n_node; i++)
        if (l->live[i] && l->g->node[i].op == &mdr_ir_op_const)
            p->table[p->n_table++] = (ConstTable){l->g->node[i].attr, slot_of(l, (Value){i, 0}).at};
}

static void outputs(Layout *l)
{
    Plan *p = l->p;
    p->output = mdr_arena_alloc(p->arena, (size_t)l->g->n_output * sizeof *p->output + 1);
    for (int32_t i = 0; i < l->g->n_output; i++) p->output[i] = slot_of(l, l->g->output[i]);
    int32_t node[MAX_INPUTS], n_input = mdr_ir_inputs(l->g, node, MAX_INPUTS);
    p->input = mdr_arena_alloc(p->arena, (size_t)(n_input + 1) * sizeof *p->input);
    for (int32_t i = 0; i < n_input; i++) p->input[i] = (Slot){.place = PL_INPUT, .input = i, .size = size_of(l, (Value){node[i], 0})};
    if (p->spec.first_grad < 0) return;
    p->copy = mdr_arena_alloc(p->arena, (size_t)p->n_param * sizeof *p->copy + 1);
    for (int32_t i = 0; i < p->n_param; i++) {
        Value v = l->g->output[p->spec.first_grad + i];
        int64_t at = p->param_at[i];
        if (v.node < 0) continue;
        const Slot *s = &p->output[p->spec.first_grad + i];
        if (s->place == PL_POST && s->at == at * p->real) continue;
        p->copy[p->n_copy++] = (GradCopy){*s, at, mdr_numel(p->param[i]->shape)};
    }
}

Err *mdr_exec_layout(Plan *p)
{
    Layout l = {.p = p, .g = p->graph};
    int32_t n = p->graph->n_node;
    l.val = mdr_alloc((size_t)n * MDR_MAX_OUT * sizeof *l.val + 1);
    l.live = mdr_alloc((size_t)n + 1);
    l.block = mdr_alloc(((size_t)n * MDR_MAX_OUT + 1) * sizeof *l.block);
    for (int32_t i = 0; i < n; i++)
        for (int k = 0; k < p->graph->node[i].n_out; k++) {
            Val *x = &l.val[vid((Value){i, k})];
            x->root = vid((Value){i, k});
            x->ld = mdr_cols(p->graph->node[i].out[k].shape);
            x->last = -1;
            x->accum = -1;
        }
    mark_live(&l);
    place_accumulators(&l);
    for (int32_t i = 0; i < n; i++) {
        const OpDef *op = p->graph->node[i].op;
        if (!l.live[i]) continue;
        if (op == &mdr_ir_op_reshape || op == &mdr_ir_op_split || op == &mdr_ir_op_rows) alias_view(&l, i);
        if (op == &mdr_ir_op_join) alias_join(&l, i);
    }
    if (p->spec.device->half) mark_full(&l);
    lifetimes(&l);
    p->size[PL_POST] = p->size[PL_LANE];
    store_all(&l);
    Err *e = emit_all(&l);
    if (!e) { tables(&l); outputs(&l); }
    mdr_free(l.val);
    mdr_free(l.live);
    mdr_free(l.block);
    return e;
}
