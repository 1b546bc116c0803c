/* What a model costs: parameters, state (scalars remembered a sequence while generating, MAD's measure), and flops forward for
 * one sequence, summed over the graph. What is done once a step whatever the batch (Hyena's filter) is left out. */
#include "model/model.h"

Err *mdr_model_cost(const ModelSpec *s, ModelCost *c) {
    Graph *g;
    *c = (ModelCost){0};
    MDR_TRY(mdr_model_graph(s, &g));
    for (int32_t i = 0; i < g->n_node; i++) {
        if (g->node[i].op == &mdr_ir_op_param) c->params += mdr_numel(g->node[i].out[0].shape);
        if (g->node[i].out[0].phase == PH_SEQ) c->flops += mdr_ir_cost(&g->node[i]).flops;
    }
    mdr_ir_graph_free(g);
    for (int32_t i = 0; i < s->arch->n_layer; i++)
        for (int32_t k = 0; k < s->arch->layer[i].n_mixer; k++) {
            const ArchMixer *m = &s->arch->layer[i].mixer[k];
            if (m->def->state) c->state += m->def->state(m->params, s->params.dim, s->max_length);
        }
    return NULL;
}
