/* ir's own business: the Builder. Nodes are allocated one by one in the arena, so that a `const Node *` handed to a vjp stays
 * valid while it appends more. */
#ifndef MDR_IR_INTERNAL_H
#define MDR_IR_INTERNAL_H
#include "ir/ir.h"

struct Builder {
    Arena *arena;
    Node **node;
    int32_t n_node, cap_node;
    Value *output;
    int32_t n_output, cap_output;
    int32_t n_param, n_input;
    const char *where;
    Err *err;                      /* the first one; sticks                                                            */
};

/* Derives axes and phase of n's outputs from its inputs (op-specific exceptions: param, input, const, sum_batch). */
Err *mdr_ir_derive(Node *n);
Err *mdr_ir_check_sizes(const Node *n);
Err *mdr_ir_check_arity(const Node *n);           /* number of inputs, absent ones                                     */
/* Copies g onto b; input k of g becomes bound[k] if bound is not NULL. */
void mdr_ir_copy_bound(Builder *b, const Graph *g, HasOp *has, void *ctx, const Value *bound, CopyMap *map);
Graph *mdr_ir_clone(const Graph *g);              /* node for node; NULL on a graph that holds a scan_grad               */
/* Like mdr_ir_node with bodies, which the node takes over on success and failure alike (body only for scan). */
Value mdr_ir_node_bodies(Builder *b, const OpDef *op, const void *attr, int n_in, const Value *in, const Graph *body,
                         const Graph *body_grad);
#endif
