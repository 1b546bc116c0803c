/* Planning: slices and lanes from the graph and the batch size alone, offsets of the parameters, then the layout. */
#include "exec/internal.h"
#include <string.h>

static const int64_t LANE_BUDGET = (int64_t)512 << 20;

/* Rows of a sequence: the first dimension of the sequence inputs. */
static int32_t rows_of(const Graph *g)
{
    int32_t rows = 1;
    for (int32_t i = 0; i < g->n_node; i++) {
        const Node *n = &g->node[i];
        if (n->op == &mdr_ir_op_input && (n->out[0].axes & MDR_AXIS_SEQ) && n->out[0].shape.d[0] > rows) rows = n->out[0].shape.d[0];
    }
    return rows;
}

static int32_t slice_of(const Plan *p)
{
    int32_t rows = rows_of(p->graph), s = 1, least = 1, limit = p->spec.slice_rows ? p->spec.slice_rows : MDR_SLICE_ROWS;
    for (int32_t i = 0; i < p->graph->n_node; i++)
        if (p->graph->node[i].op->min_slice > least && p->graph->node[i].out[0].phase == PH_SEQ) least = p->graph->node[i].op->min_slice;
    while ((int64_t)2 * s * rows <= limit) s *= 2;
    if (s < least) s = least;
    return s > p->spec.batch ? p->spec.batch : s;
}

static void params(Plan *p)
{
    p->n_param = mdr_ir_params(p->graph, NULL, 0);
    int32_t *node = mdr_alloc((size_t)(p->n_param + 1) * sizeof *node);
    mdr_ir_params(p->graph, node, p->n_param);
    p->param_at = mdr_arena_alloc(p->arena, (size_t)(p->n_param + 1) * sizeof *p->param_at);
    p->param = mdr_arena_alloc(p->arena, (size_t)(p->n_param + 1) * sizeof *p->param);
    for (int32_t i = 0; i < p->n_param; i++) {
        p->param[i] = p->graph->node[node[i]].attr;
        p->param_at[i] = p->stride;
        p->stride += mdr_exec_round(mdr_numel(p->param[i]->shape), MDR_PARAM_ALIGN);
    }
    mdr_free(node);
}

static Err *plan(const Graph *g, const PlanSpec *spec, bool whole, Plan **out)
{
    Arena *a = mdr_arena_new();
    Plan *p = mdr_arena_alloc(a, sizeof *p);
    *out = NULL;
    p->arena = a;
    p->graph = g;
    p->spec = *spec;
    p->whole = whole;
    p->real = spec->device->real64 ? 8 : 4;
    params(p);
    p->slice = whole ? spec->batch : slice_of(p);
    Err *e = mdr_exec_layout(p);
    if (e) { mdr_exec_plan_free(p); return e; }
    *out = p;
    return NULL;
}

Err *mdr_exec_plan(const Graph *g, const PlanSpec *spec, Plan **out)
{
    *out = NULL;
    if (spec->batch < 1) return MDR_ERR_USER("a batch of %d sequences: at least 1 is needed", spec->batch);
    if (spec->first_grad >= 0 && spec->first_grad + mdr_ir_params(g, NULL, 0) > g->n_output)
        return MDR_ERR_MACHINE("the graph has %d outputs, too few for its gradients", g->n_output);
    if (spec->update && !mdr_op_update(spec->update)) return MDR_ERR_USER("unknown optimizer \"%s\"", spec->update);
    if (mdr_ir_inputs(g, NULL, 0) > MAX_INPUTS) return MDR_ERR_MACHINE("the graph has over %d inputs", MAX_INPUTS);
    MDR_TRY(mdr_ir_verify(g));
    return plan(g, spec, spec->device->whole, out);
}

Err *mdr_exec_plan_body(const Graph *g, const Plan *outer, Plan **out)
{
    /* carries of bodies are float: a state rounded at every step would drift */
    PlanSpec spec = {.device = outer->spec.device->half ? &mdr_exec_cuda : outer->spec.device, .batch = outer->slice, .first_grad = -1};
    return plan(g, &spec, true, out);
}

void mdr_exec_plan_free(Plan *p)
{
    if (!p) return;
    for (int32_t i = 0; p->instr && i < p->begin[PH_COUNT]; i++) {
        if (p->instr[i].prep_units) continue;            /* shares its user's bodies: has none                             */
        mdr_exec_plan_free(p->instr[i].body);
        mdr_exec_plan_free(p->instr[i].body_grad);
    }
    mdr_arena_free(p->arena);
}

static int32_t slices_of(const Plan *p, int32_t n_seq) { return (n_seq + p->slice - 1) / p->slice; }

int32_t mdr_exec_lanes(const Plan *p, int32_t n_seq)
{
    int32_t s = slices_of(p, n_seq), k = 1;
    if (p->whole) return 1;
    while (2 * k <= MDR_MAX_LANES && (int64_t)2 * k * p->size[PL_LANE] <= LANE_BUDGET) k *= 2;
    return k < s ? k : s;
}

PlanInfo mdr_exec_info(const Plan *p)
{
    PlanInfo i = {.n_param = p->n_param, .slice = p->slice, .n_slice = slices_of(p, p->spec.batch),
                  .n_lane = mdr_exec_lanes(p, p->spec.batch), .n_instr = p->begin[PH_COUNT], .stride = p->stride,
                  .slice_bytes = p->size[PL_SLICE], .lane_bytes = p->size[PL_LANE], .step_bytes = p->size[PL_STEP],
                  .post_bytes = p->size[PL_POST], .const_bytes = p->size[PL_CONST],
                  .scratch_bytes = (int64_t)mdr_exec_scratch(p, false, (Extent){1, p->slice})};
    for (int32_t k = 0; k < p->n_param; k++) i.n_weight += mdr_numel(p->param[k]->shape);
    return i;
}
int64_t mdr_exec_param_offset(const Plan *p, int32_t i) { return p->param_at[i]; }
const ParamAttr *mdr_exec_param(const Plan *p, int32_t i) { return p->param[i]; }

void mdr_exec_print(const Plan *p, Text *t)
{
    static const char *const phase[] = {"const", "step", "seq", "post"}, *const place[] = {"-", "input", "param", "const", "step",
                                                                                         "slice", "lane", "post"};
    for (int ph = 0; ph < PH_COUNT; ph++)
        for (int32_t i = p->begin[ph]; i < p->begin[ph + 1]; i++) {
            const Instr *in = &p->instr[i];
            mdr_text_printf(t, "%-5s %-16s", phase[ph], in->prep_units ? "(prepare)" : in->node->op->name);
            for (int k = 0; k < in->node->n_out; k++)
                mdr_text_printf(t, " %s%s@%lld", (in->add >> k) & 1u ? "+=" : "", place[in->out[k].place], (long long)in->out[k].at);
            mdr_text_printf(t, " <-");
            for (int k = 0; k < in->node->n_in; k++) mdr_text_printf(t, " %s@%lld", place[in->in[k].place], (long long)in->in[k].at);
            mdr_text_printf(t, "  (%s)\n", in->node->where);
        }
}
