/* ir: the graph. Values over ONE sequence, the nodes that make them, and what is done to a graph: shape inference,
 * verification, lowering (composed ops replaced by their composition) and autodiff (graph to graph).
 * It deliberately knows nothing of the batch, of memory or of kernels: those are op's and exec's.
 *
 * AXES AND PHASES. Every value has a set of axes {MEMBER, SEQ}, the union of its inputs', and a phase derived from them:
 *   CONST  no axes, from `const` alone: computed once a plan
 *   STEP   parameters, and inputs without the SEQ axis, and what follows from them: once a step and member
 *   SEQ    has the SEQ axis: computed for each slice of sequences
 *   POST   behind a `sum_batch`: after the sum over the batch (gradients)
 * `sum_batch` is the only way from SEQ to POST. No SEQ node may read a POST value: what would couple sequences within a
 * step (batch normalisation, a balance loss over the batch) is refused with a sentence naming the node.
 *
 * OWNERSHIP. A Builder owns what is built on it until mdr_ir_finish, which hands everything to the Graph. The first error
 * sticks to the Builder; later calls are no-ops that return the absent value, so that layers need no error checks.
 * A Graph is immutable and owns its nodes, attributes, labels and bodies (one arena; bodies are owned by their node). */
#ifndef MDR_IR_H
#define MDR_IR_H
#include "base/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MDR_MAX_RANK = 4, MDR_MAX_IN = 32, MDR_MAX_OUT = 32 };

/* Row-major; time, if the value has it, is the first dimension; a scalar is [1]. */
typedef struct Shape { int32_t rank; int32_t d[MDR_MAX_RANK]; } Shape;
typedef enum DType {
    DT_REAL,                 /* float or double, as the plan stores it                                                */
    DT_I32,                  /* token numbers                                                                         */
    DT_SUM                   /* double: losses and counters, summed over the batch                                    */
} DType;
enum { MDR_AXIS_NONE = 0, MDR_AXIS_MEMBER = 1, MDR_AXIS_SEQ = 2 };
typedef enum Phase { PH_CONST, PH_STEP, PH_SEQ, PH_POST, PH_COUNT } Phase;
typedef struct Type { Shape shape; DType dtype; uint8_t axes, phase; } Type;
typedef struct Value { int32_t node; int32_t out; } Value;          /* an edge; node < 0 = absent                     */
#define MDR_ABSENT ((Value){-1, 0})

typedef struct Graph Graph;
typedef struct Builder Builder;
typedef struct OpDef OpDef;

typedef struct Node {
    const OpDef *op;
    const void *attr;                 /* op->attr_size bytes, zero-padded: compared and printed as bytes              */
    Value in[MDR_MAX_IN];             /* an optional input may be absent                                              */
    Type in_type[MDR_MAX_IN];         /* copies of the inputs' types, so that kernels need no graph                   */
    Type out[MDR_MAX_OUT];
    int32_t n_in, n_out;
    uint32_t sums;                    /* op->sums, unless the op's shape rule set other bits (scan_grad)              */
    const char *where;                /* "layer 3 hyena": for messages                                                */
    const Graph *body, *body_grad;    /* scan and scan_grad only                                                      */
} Node;

struct Graph {
    Arena *arena;
    Node *node;
    int32_t n_node;
    Value *output;
    int32_t n_output;
};

/* What a kernel costs for one sequence, forward only, as executed. flops: by the rules of docs/design.md ("Counting").
 * bytes: read and written once each. exps: exponentials and other transcendental functions. */
typedef struct Cost { double flops, bytes, exps; bool whole; } Cost;     /* whole: bytes has every operand, weights and sums too */

/* A test case of an op: shapes (rank 0 = absent input), attribute, the range inputs are drawn from (I32 inputs are drawn
 * from 0..hi_int-1). The registry tests run value, gradient and device comparisons over them. name == NULL ends. */
typedef struct OpCase {
    const char *name;
    const void *attr;
    int32_t n_in;
    Shape in[MDR_MAX_IN];
    uint8_t in_dtype[MDR_MAX_IN];     /* DType */
    uint8_t in_axes[MDR_MAX_IN];      /* 0 = SEQ|MEMBER (the common case), else 1 + axes                              */
    double lo, hi;
    int32_t hi_int;
} OpCase;

/* What a match found. */
typedef struct Fusion {
    int64_t attr[16];                 /* op->attr_size bytes                                                          */
    int32_t n_in;
    Value in[MDR_MAX_IN];             /* values of the graph as it was, all made before the root                       */
    Value out[MDR_MAX_OUT];           /* the value, made before the root or after it, that output i stands for; absent: nobody's */
} Fusion;
typedef struct Uses Uses;             /* who reads what, see mdr_ir_fuse                                              */

/* One op. Kernels stand beside it in the op room (OpRow); ir needs only this. */
struct OpDef {
    const char *name;
    const char *equation;             /* one line, ASCII                                                              */
    size_t attr_size;
    int8_t min_in, max_in, n_out;
    uint32_t optional;                /* bit i: input i may be absent                                                 */
    uint32_t sums;                    /* bit i: out[i] of stacked sequences = sum of the out[i] of each; the executor may
                                         run it with Call.add, writing += into one accumulator for the whole slice     */
    uint32_t no_grad;                 /* bit i: input i (of reals) has no derivative by declaration: counts, positions    */
    uint32_t aux;                     /* bit i: output i is a by-product for the derivative (rstd, lse): none through it   */
    uint32_t inplace;                 /* bit i: out[0] may overwrite input i (same element count, element by element)  */
    int32_t min_slice;                /* > 1: the op wants at least so many sequences in a slice (scan 16)             */
    /* Checks n->in_type and fills n->out[i].shape and .dtype (axes and phase are derived). Error: one sentence naming
     * op, argument and both shapes (use mdr_ir_shape_error). */
    Err *(*shape)(Node *n);
    /* Adds nodes for the gradient. dout[i] absent = no gradient arrives there. Leave din[i] absent where there is none.
     * din[i] must have in_type[i]'s shape; it may have MORE axes (a gradient of a weight over one sequence): autodiff then
     * sums it over the batch. NULL: the op has no derivative (integer outputs, gradient ops: first order only). */
    void (*vjp)(Builder *b, const Node *n, const Value *in, const Value *out, const Value *dout, Value *din);
    /* The same computation by other ops; NULL for a basis op. out[i] left absent = not produced by the composition. */
    void (*compose)(Builder *b, const Node *n, const Value *in, Value *out);
    Cost (*cost)(const Node *n);      /* NULL: element-wise, derived from the shapes                                   */
    const OpCase *cases;              /* NULL only for structural ops tested by name                                   */
    /* Of an op that stands for several (mdr_ir_fuse): is `root` the last node of such a pattern? Fills f, which comes zeroed with
     * every value absent. Its reference is its composition. NULL: an op that graphs are built of. */
    bool (*match)(const Builder *b, const Uses *u, int32_t root, Fusion *f);
};

/* How a parameter starts. The protocol may replace LINEAR, LINEAR_BIAS and DT_BIAS (MAD.md section 2). */
typedef enum InitKind {
    INIT_CONST,                       /* a                                                                            */
    INIT_NORMAL,                      /* N(0, a^2)                                                                    */
    INIT_UNIFORM,                     /* U(a, b)                                                                      */
    INIT_TABLE,                       /* table[0 .. numel-1]                                                          */
    INIT_LINEAR,                      /* a linear map's weight; a = fan-in: U(-1/sqrt a, 1/sqrt a) or N(0, .02^2)     */
    INIT_LINEAR_BIAS,                 /* its bias; a = fan-in; 0 in every protocol so far                             */
    INIT_DT_BIAS                      /* Mamba: softplus^-1 of a log-uniform in [a, b], or 0                          */
} InitKind;
typedef struct Init { InitKind kind; double a, b; const double *table; } Init;

/* Attributes of the structural ops (read by exec). */
typedef struct ParamAttr { const char *name; Init init; int32_t index; Shape shape; } ParamAttr;   /* index: order of creation */
typedef struct InputAttr { const char *name; int32_t index; int32_t axes; int32_t dtype; Shape shape; } InputAttr;
typedef struct ConstAttr { const double *data; Shape shape; } ConstAttr;
typedef struct ScanAttr {
    int32_t n_carry, n_xs, n_const, n_ys;
    int32_t chunk;                    /* steps between saved carries; 0 = ceil(sqrt L)                                 */
    int32_t length;                   /* L: rows of every xs and ys                                                    */
    bool reverse;                     /* time runs from L-1 down to 0                                                  */
} ScanAttr;
typedef struct SplitAttr { int32_t n; int32_t size[MDR_MAX_OUT]; } SplitAttr;
typedef struct ExpandAttr { int32_t n; bool trailing; } ExpandAttr;
typedef struct RowsAttr { int32_t start, count, total; } RowsAttr;
typedef struct ReshapeAttr { Shape shape; } ReshapeAttr;

/* The structural ops, known to ir because autodiff and the executor treat them specially. Their kernels, where they have
 * one, stand in src/op/structural.c; param, input and const are storage; split, rows and reshape are aliases. */
extern MDR_API const OpDef mdr_ir_op_param, mdr_ir_op_input, mdr_ir_op_const, mdr_ir_op_reshape, mdr_ir_op_split,
    mdr_ir_op_join, mdr_ir_op_rows, mdr_ir_op_pad_rows, mdr_ir_op_expand, mdr_ir_op_add, mdr_ir_op_sum_rows,
    mdr_ir_op_sum_cols, mdr_ir_op_sum_batch, mdr_ir_op_scan, mdr_ir_op_scan_grad;

/* ---- building ---------------------------------------------------------------------------------------------------- */
MDR_API Builder *mdr_ir_builder(void);
MDR_API void mdr_ir_builder_free(Builder *b);                        /* only if mdr_ir_finish was never reached         */
MDR_API Arena *mdr_ir_arena(Builder *b);                             /* lives as long as the graph: for tables          */
MDR_API void mdr_ir_where(Builder *b, const char *fmt, ...) MDR_PRINTF(2, 3);   /* label of the nodes that follow        */
MDR_API void mdr_ir_fail(Builder *b, Err *e);                        /* takes e; the first sticks                       */
MDR_API bool mdr_ir_failed(const Builder *b);
MDR_API Type mdr_ir_type(const Builder *b, Value v);                 /* absent: all zero                                */
MDR_API int32_t mdr_ir_n_node(const Builder *b);
MDR_API const Node *mdr_ir_node_at(const Builder *b, int32_t i);

/* A node; in[0..n_in-1]; its outputs are (node, 0..n_out-1). Returns output 0. attr is copied (op->attr_size bytes). */
MDR_API Value mdr_ir_node(Builder *b, const OpDef *op, const void *attr, int n_in, const Value *in);
static inline Value mdr_ir_out(Value v, int out) { v.out = v.node < 0 ? 0 : out; return v; }
static inline bool mdr_ir_has(Value v) { return v.node >= 0; }
static inline bool mdr_ir_same(Value a, Value b) { return a.node == b.node && a.out == b.out; }

MDR_API Value mdr_ir_param(Builder *b, const char *name, Shape s, Init init);               /* MEMBER, STEP             */
MDR_API Value mdr_ir_input(Builder *b, const char *name, Shape s, DType t, unsigned axes);
MDR_API Value mdr_ir_const(Builder *b, Shape s, const double *data);                       /* copies numel(s) doubles   */
MDR_API Value mdr_ir_reshape(Builder *b, Value x, Shape s);          /* same elements, same order                       */
MDR_API void mdr_ir_split(Builder *b, Value x, int n, const int32_t *size, Value *out);    /* columns (last dimension)  */
MDR_API Value mdr_ir_join(Builder *b, int n, const Value *in);       /* columns side by side                            */
MDR_API Value mdr_ir_rows(Builder *b, Value x, int32_t start, int32_t count);              /* x[start .. start+count)   */
MDR_API Value mdr_ir_pad_rows(Builder *b, Value x, int32_t start, int32_t total);          /* zeros around: its adjoint */
MDR_API Value mdr_ir_expand(Builder *b, Value x, int32_t n, bool trailing); /* leading: [n, shape]; trailing: [shape, n] */
MDR_API Value mdr_ir_add(Builder *b, int n, const Value *in);        /* same shapes, or a trailing-shape broadcast of in[1..] */
MDR_API Value mdr_ir_sum_rows(Builder *b, Value x);                  /* [.., D] -> [D]                                  */
MDR_API Value mdr_ir_sum_cols(Builder *b, Value x);                  /* [.., D] -> [..]; rank 1 -> [1]                  */
MDR_API Value mdr_ir_sum_batch(Builder *b, int n, const Value *in);  /* SEQ -> POST: one accumulator, n contributors     */
/* scan: in = carry[n_carry], xs[n_xs] (each [L, ..] with body input [1, ..]), consts[n_const]. body's inputs in that order,
 * its outputs = carry', then ys_t ([1, ..] each; n_ys). The body is handed to the node. out: final carries, then ys [L, ..]. */
MDR_API void mdr_ir_scan(Builder *b, Graph *body, ScanAttr a, const Value *in, Value *out);

MDR_API void mdr_ir_output(Builder *b, Value v);                     /* appends to the graph's outputs                   */
/* Verifies and hands over. On error the builder is freed and *g is NULL. */
MDR_API Err *mdr_ir_finish(Builder *b, Graph **g);
MDR_API void mdr_ir_graph_free(Graph *g);                            /* NULL is fine                                     */
/* Checks every invariant of a graph: SSA order, types re-derived, phases, outputs. Run between passes. */
MDR_API Err *mdr_ir_verify(const Graph *g);

/* ---- graph to graph ---------------------------------------------------------------------------------------------- */
/* Copies g's nodes onto b; ops for which has() is false are replaced by their composition (recursively). map[node]: the
 * value of output 0 in b; read it with mdr_ir_copied. An op that is neither had nor composed is an error. */
typedef struct CopyMap { Value (*out)[MDR_MAX_OUT]; } CopyMap;
typedef bool HasOp(const OpDef *op, void *ctx);
MDR_API void mdr_ir_copy(Builder *b, const Graph *g, HasOp *has, void *ctx, CopyMap *map);
MDR_API Value mdr_ir_copied(const CopyMap *map, Value v);

/* Puts the ops of `rule` where their patterns stand, if accept(the new node) agrees, and drops what nobody reads any more. After
 * the gradient, right before mdr_ir_finish: numbers of nodes change. */
MDR_API void mdr_ir_fuse(Builder *b, int n_rule, const OpDef *const *rule, bool (*accept)(const Node *));
/* For matches. Readers are live nodes, in order; a graph output counts as one, its number is INT32_MAX. */
MDR_API int32_t mdr_ir_n_users(const Uses *u, Value v);
MDR_API int32_t mdr_ir_user(const Uses *u, Value v, int32_t k);
MDR_API int32_t mdr_ir_only_user(const Uses *u, Value v);            /* the one node that reads v, or -1                 */
MDR_API bool mdr_ir_is(const Builder *b, Value v, const char *op);   /* v is made by such an op                          */
/* A reader of v that is such an op and has v as its input k, or -1. */
MDR_API int32_t mdr_ir_found(const Builder *b, const Uses *u, Value v, const char *op, int32_t k);

/* Reverse-mode autodiff. Given dy[i] for y[i] (absent = none), appends nodes for the gradient of sum_i <y_i, dy_i> and sets
 * dx[j] for x[j] (absent where nothing depends). A value that lacks an axis which its gradient has gets `sum_batch`. A seed that
 * is the same for all sequences must meet a value of each sequence on its way (as the loss's seed 1 does in ce's derivative);
 * where it would reach a weight untouched, its sum over the batch cannot be known here and that is an error. */
MDR_API void mdr_ir_grad(Builder *b, int n_y, const Value *y, const Value *dy, int n_x, const Value *x, Value *dx);

/* ---- reading ------------------------------------------------------------------------------------------------------ */
MDR_API int32_t mdr_ir_params(const Graph *g, int32_t *node, int32_t max);   /* nodes of parameters in order; returns count */
MDR_API int32_t mdr_ir_inputs(const Graph *g, int32_t *node, int32_t max);
MDR_API Cost mdr_ir_cost(const Node *n);                             /* op->cost or element-wise default                 */
MDR_API void mdr_ir_print(const Graph *g, Text *t);                  /* one line a node                                  */
MDR_API void mdr_ir_digest(const Graph *g, char hex[65]);            /* SHA-256 of all that decides what it computes     */

static inline int64_t mdr_numel(Shape s) { int64_t n = 1; for (int i = 0; i < s.rank; i++) n *= s.d[i]; return s.rank ? n : 0; }
static inline int64_t mdr_cols(Shape s) { return s.rank ? s.d[s.rank - 1] : 0; }
static inline int64_t mdr_rows(Shape s) { return s.rank ? mdr_numel(s) / (mdr_cols(s) ? mdr_cols(s) : 1) : 0; }
MDR_API bool mdr_shape_equal(Shape a, Shape b);
static inline Shape mdr_shape1(int32_t a) { Shape s = {1, {a, 0, 0, 0}}; return s; }
static inline Shape mdr_shape2(int32_t a, int32_t b) { Shape s = {2, {a, b, 0, 0}}; return s; }
static inline Shape mdr_shape3(int32_t a, int32_t b, int32_t c) { Shape s = {3, {a, b, c, 0}}; return s; }
MDR_API const char *mdr_shape_text(Shape s, char buf[64]);           /* "[127, 384]"                                     */
/* "layer 3 hyena: matmul: input 1 is [128, 384], expected [352, ..]" : user error with place, op and shapes. */
MDR_API Err *mdr_ir_shape_error(const Node *n, const char *fmt, ...) MDR_PRINTF(2, 3);
#ifdef __cplusplus
}
#endif
#endif
