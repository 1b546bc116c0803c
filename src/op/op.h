/* op: one file an op or a family. src/op/NAME.c holds the declaration (OpDef: shape rule, derivative, composition, cost,
 * cases) and the plain reference, ONE text compiled twice (REAL=float and REAL=double). src/op/NAME.cpu.c, where it exists,
 * holds the fast kernel (AVX2 and FMA). The tables are generated from the file names; nothing else lists ops.
 *
 * THE KERNEL CONTRACT
 *  1. run(call, unit0, unit1) computes the units [unit0, unit1) of the op. No two units touch one output element. units()
 *     depends on the node and the extent only; who runs which unit never changes a bit. units == NULL: one unit.
 *  2. A kernel cannot fail, allocate or block. Working memory: call->scratch, scratch(node, extent) bytes, 64-byte aligned.
 *  3. A slice of s sequences is one tall matrix: a value [.., cols] of s sequences has s*rows rows, row stride ld, and
 *     seq == rows*ld. seq == 0: shared by all sequences (parameters, constants). member == 0: shared by members.
 *     Only a column split or join makes ld != cols. Values of rank 1 [n] are one row of n columns a sequence.
 *  4. Reference kernels honour every stride (member, seq, ld) and so serve the test device that runs whole populations.
 *     Fast CPU kernels are called with n_member == 1 only; they honour seq and ld.
 *  5. Output i in def->sums with bit i of call->add set: out[i] += the sum over all sequences of the slice, into ONE value
 *     (its seq is 0). Without the bit an output is overwritten, one value a sequence.
 *  6. An absent optional input has data == NULL. An output nobody reads has data == NULL and must not be written.
 *  7. Same input, same bits: no dependence on addresses, on n_seq beyond what rule 5 says, on the clock.
 * Elements: DT_REAL is float (REF32, CPU) or double (REF64); DT_I32 int32_t; DT_SUM double on every device. */
#ifndef MDR_OP_H
#define MDR_OP_H
#include "ir/ir.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Extent { int32_t n_member, n_seq; } Extent;
typedef struct Arg {
    void *data;                       /* first member, first sequence; NULL = absent                                  */
    int64_t member, seq, ld;          /* strides in ELEMENTS of the value's own type                                  */
    int64_t size;                     /* bytes of an element: DT_REAL 4 or 8, on CUDA also 2 (bf16); DT_I32 4; DT_SUM 8 */
} Arg;
/* A second stream of the device; out: something was enqueued there that is not waited for yet. */
typedef struct Beside { void *stream, *event; bool out; } Beside;
typedef struct Call {
    const Node *node;
    Extent extent;
    Arg in[MDR_MAX_IN], out[MDR_MAX_OUT];
    Arg prep;                         /* what Prep.run made of input Prep.in; data == NULL without one                */
    uint32_t add;                     /* bit i: out[i] += (rule 5)                                                    */
    void *scratch;
    const int32_t *n_seq;             /* CUDA only (op/cuda.h): [members], in device memory                           */
    void *stream;                     /* CUDA only: the cudaStream_t to enqueue on                                    */
    Beside *side;                     /* CUDA only: where a last stage may go (mdr_beside in op/cuda.h), or NULL          */
    struct Images *images;            /* CUDA only: where Prep.run may leave an image of w (op/cuda_images.h), or NULL    */
} Call;
typedef void KernelFn(const Call *c, int64_t unit0, int64_t unit1);

/* A kernel may want one input (of phase CONST or STEP) brought into a layout of its own, once a step: packed weights.
 * run sees the raw input as in[Prep.in] and writes out[0] (elements() reals, member stride 0: one member a call). Where the
 * input is not of phase CONST or STEP a kernel with a Prep is not chosen. On CUDA in -1: of no input, a constant of the node. */
typedef struct Prep {
    KernelFn *run;                    /* NULL: none                                                                   */
    int32_t in;
    int64_t (*elements)(const Node *n);
    int64_t (*units)(const Node *n);
} Prep;
typedef struct Kernel {
    KernelFn *run;
    int64_t (*units)(const Node *n, Extent e);
    size_t (*scratch)(const Node *n, Extent e);
    Prep prep;
} Kernel;

typedef enum Device { DEV_REF32, DEV_REF64, DEV_CPU, DEV_CUDA, DEV_COUNT } Device;
typedef struct OpRow { const OpDef *def; Kernel ref32, ref64; } OpRow;             /* table ends with def == NULL          */
/* A row of src/op/NAME.cu. Masks: where a plan stores values of sequences as bf16, output i with its bit in full_out stays float,
 * and so does the producer's output that is read as input i with its bit in full_in. */
typedef struct CudaRow { const char *op; Kernel kernel; bool (*applies)(const Node *n); uint32_t full_in, full_out; } CudaRow;
typedef struct CpuRow { const char *op; Kernel kernel; bool (*applies)(const Node *n); } CpuRow;   /* ends with op == NULL; applies NULL = always */

MDR_API const OpRow *mdr_op_at(int i);                               /* NULL past the end; sorted by file name          */
MDR_API const OpRow *mdr_op_find(const char *name);
/* The kernel for a node on a device: CPU = the fast one if this machine has the instructions and it applies, else ref32. */
MDR_API const Kernel *mdr_op_kernel(const Node *n, Device d);
MDR_API const Kernel *mdr_op_fast(const Node *n);                    /* the fast kernel whatever the machine, or NULL   */
MDR_API const CudaRow *mdr_op_cuda(const Node *n);                   /* NULL: built without CUDA, or no kernel for it   */
MDR_API bool mdr_op_has_cuda(const OpDef *op);                       /* some kernel for some of its nodes               */

/* The declaration of an op that exists: for compositions and patterns. */
static inline const OpDef *mdr_op_def(const char *op) { return mdr_op_find(op)->def; }

/* ---- writing reference kernels (src/op/NAME.c) -------------------------------------------------------------------
 *   #include "op/reference.h"
 *   MDR_REF(rmsnorm) { FOR_SEQUENCES(c) { const real *x = IN(real, 0); ... } }         compiled as float and as double
 *   #ifdef MDR_DECLARE  ... OpDef, builders, const OpRow mdr_op_rows_NAME[] = { { &def, MDR_REFS(rmsnorm) }, {0} }; #endif */

/* ---- attributes and builders: what layers call. Shapes are for one sequence. --------------------------------------- */
/* y = x W (+ b). x [.., K]; w [K, N], or [N, K] with transposed; b [N] or absent. Gradient of w: matmul_tn. */
typedef struct MatmulAttr { int32_t transposed; } MatmulAttr;
MDR_API Value mdr_op_matmul(Builder *b, Value x, Value w, Value bias);
MDR_API Value mdr_op_matmul_t(Builder *b, Value x, Value w);         /* x W^T, w [N, K]                                 */
MDR_API Value mdr_op_matmul_tn(Builder *b, Value x, Value y);        /* x^T y: [.., K], [.., N] -> [K, N]; sums            */

typedef enum UnaryKind {
    UN_NEG, UN_EXP, UN_LOG, UN_SIN, UN_COS, UN_SIGMOID, UN_TANH, UN_RELU, UN_SQRT, UN_RECIP, UN_SOFTPLUS, UN_SILU,
    UN_GELU_TANH, UN_GELU_ERF, UN_SQUARE, UN_SCALE /* a*x */, UN_SHIFT /* x+a */, UN_COUNT
} UnaryKind;
typedef struct UnaryAttr { int32_t kind; int32_t pad; double a; } UnaryAttr;
MDR_API Value mdr_op_unary(Builder *b, UnaryKind kind, double a, Value x);
/* The node that makes v, if it is this function of its input; else NULL. */
static inline const Node *mdr_op_unary_of(const Builder *b, Value v, UnaryKind kind)
{
    const Node *n = mdr_ir_is(b, v, "unary") ? mdr_ir_node_at(b, v.node) : NULL;
    return n && ((const UnaryAttr *)n->attr)->kind == (int32_t)kind ? n : NULL;
}
/* Element-wise with broadcasting of y: same shape, the trailing dimensions of x, or [1]. */
typedef enum BinaryKind { BIN_SUB, BIN_MUL, BIN_DIV, BIN_COUNT } BinaryKind;
typedef struct BinaryAttr { int32_t kind; } BinaryAttr;
MDR_API Value mdr_op_binary(Builder *b, BinaryKind kind, Value x, Value y);
static inline Value mdr_op_mul(Builder *b, Value x, Value y) { return mdr_op_binary(b, BIN_MUL, x, y); }
static inline Value mdr_op_add(Builder *b, Value x, Value y) { Value v[2] = {x, y}; return mdr_ir_add(b, 2, v); }

typedef struct NormAttr { double eps; } NormAttr;
MDR_API Value mdr_op_rmsnorm(Builder *b, Value x, Value gain, double eps);            /* outs: y, rstd [rows]            */
MDR_API Value mdr_op_layernorm(Builder *b, Value x, Value gain, Value bias, double eps);   /* outs: y, mean, rstd        */
MDR_API Value mdr_op_swiglu_act(Builder *b, Value gate_up);          /* [L, 2I] = gate|up -> silu(gate)*up [L, I]       */
/* Rotary embedding over each whole head in halves: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), angle t*base^(-2i/d).
 * sign -1 is the inverse (and the gradient). Su et al. 2021. */
typedef struct RopeAttr { int32_t n_heads, sign; double base; } RopeAttr;
MDR_API Value mdr_op_rope(Builder *b, Value x, int32_t n_heads, double base);
/* Causal softmax attention, heads side by side in the columns: q, k, v [L, H*d] -> y [L, H*d], lse [L, H]. window w > 0:
 * position t sees t-w .. t; 0: all before. Scores are scaled by d^-1/2. */
typedef struct AttentionAttr { int32_t n_heads, window; } AttentionAttr;
/* Of the fused rope_attention and its gradient: q and k come unrotated. */
typedef struct RopeAttentionAttr { AttentionAttr attention; double base; } RopeAttentionAttr;
MDR_API Value mdr_op_attention(Builder *b, Value q, Value k, Value v, AttentionAttr a);
/* Attention of one new position over kept rows, the newest last: q [1, H*d], k, v [W, H*d], t [1]: as a real number, how many
 * rows came before it (of which the last W-1 are kept): rows older than that are not seen. -> y [1, H*d], weights [W, H]. */
typedef struct AttendRowAttr { int32_t n_heads; } AttendRowAttr;
MDR_API Value mdr_op_attend_row(Builder *b, Value q, Value k, Value v, Value t, int32_t n_heads);
MDR_API Value mdr_op_gather_rows(Builder *b, Value table, Value ids); /* [V, D], I32 [L] -> [L, D]                      */
/* Cross entropy of one sequence: sum over rows with target >= 0 of -log softmax(logits)[target], times inv_count [1].
 * Target < 0 is ignored. out 0: loss, SUM [1], in sums. Differentiable in logits. */
MDR_API Value mdr_op_ce(Builder *b, Value logits, Value targets, Value inv_count);
/* Counts for accuracies, SUM [3, V], in sums: wanted, predicted, hit per class; ignored rows count nowhere; the prediction
 * is the first largest logit. */
MDR_API Value mdr_op_class_counts(Builder *b, Value logits, Value targets);
/* Depthwise causal convolution, taps <= 8: y[t,c] = b[c] + sum_j w[taps-1-j, c] x[t-j, c mod Cx]. x [L, Cx], w [taps, C],
 * b [C] or absent; C a multiple of Cx ("tiled"). */
MDR_API Value mdr_op_conv_short(Builder *b, Value x, Value w, Value bias);
/* Causal long convolution by direct products: y[t,c] = sum_{s<=t} h[t-s, c] u[s, c]. u, h [L, C]. anticausal: the transpose. */
typedef struct ConvAttr { int32_t anticausal; } ConvAttr;
MDR_API Value mdr_op_conv_direct(Builder *b, Value u, Value h);
/* The same by FFT: spectrum of h (once a step), then the product (conv_fft.c says the layout). */
MDR_API Value mdr_op_conv_fft(Builder *b, Value u, Value h);
/* The long convolution a layer calls: on GPUs a kernel of its own, elsewhere composed: direct below MDR_CONV_FFT_FROM rows, FFT from there. */
enum { MDR_CONV_FFT_FROM = 256 };
MDR_API Value mdr_op_conv_long(Builder *b, Value u, Value h);
/* y = (c + bias u) x: the skip and gate behind Hyena's convolution. c, u, x [L, C]; bias [C]. */
MDR_API Value mdr_op_gated_skip(Builder *b, Value c, Value u, Value bias, Value x);
/* Selective scan (Gu and Dao 2023): h[t] = exp(delta[t] a) h[t-1] + delta[t] B[t] u[t]; y[t] = C[t] . h[t] + d u[t].
 * u, delta [L, C]; a [C, N]; B, C [L, N]; d [C]. delta is positive (softplus is applied before, by the layer). compose: a scan. */
MDR_API Value mdr_op_selective_scan(Builder *b, Value u, Value delta, Value a, Value bm, Value cm, Value d);

/* ---- updates: on flat vectors, not nodes of a graph ------------------------------------------------------------------ */
typedef struct Hyper { double lr, decay, beta1, beta2, eps, clip; int64_t step; } Hyper;   /* step counts from 1; clip is the executor's */
/* Update of param[0..n) by grad[0..n) * scale; m, v are state. Element by element: any cut of the range gives the same bits. */
typedef void UpdateFn(const Hyper *h, double scale, int64_t n, void *param, void *m, void *v, const void *grad);
typedef struct UpdateDef { const char *name; int32_t n_state; UpdateFn *ref32, *ref64, *fast; } UpdateDef;   /* fast may be NULL */
MDR_API const UpdateDef *mdr_op_update(const char *name);            /* "adamw", "sgd"; NULL if unknown                 */
#ifdef __cplusplus
}
#endif
#endif
