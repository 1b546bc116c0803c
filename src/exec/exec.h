/* exec: running graphs. A Plan fixes, for one graph, device and batch size: which nodes run, with which kernels, where every
 * value lies, how the batch is cut into slices and lanes. An Exec owns the memory and runs training steps or evaluations of a
 * population of members (same graph, other weights). Deliberately absent: autotuning, run-time measurement, layout search:
 * every choice is a function of the graph, the batch size and MDR_NUMERICS, so the same spec gives the same bits on any number
 * of workers.
 *
 * THE STEP (depth first):  inputs -> STEP nodes (all workers, by units) -> SEQ: each worker takes the next LANE, clears it and
 * takes its SLICES, in order, through the whole forward and backward graph; gradients are added into the lane -> lanes are
 * folded in lane order -> POST nodes -> update of the flat parameter vector.
 *
 *   slice:  s sequences, s = largest power of two with s*L <= MDR_SLICE_ROWS (at least 1; at least the ops' min_slice)
 *   lanes:  K = min(32, slices, 512 MiB / lane); slice i belongs to lane floor(i*K/S)
 *   lane:   [ parameters, at their offsets in the parameter vector | accumulators of STEP values | f64 sums ]
 *
 * OWNERSHIP. Graph and device must outlive the Plan, the Plan the Exec; a Pool is borrowed. Not thread-safe by itself. */
#ifndef MDR_EXEC_H
#define MDR_EXEC_H
#include "exec/accel.h"
#include "op/op.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MDR_SLICE_ROWS = 256, MDR_MAX_LANES = 32, MDR_FOLD_BLOCK = 4096, MDR_PARAM_ALIGN = 64 };

typedef struct DeviceDef {
    const char *name;
    bool real64;                          /* DT_REAL is double                                                           */
    bool whole;                           /* slice = whole batch, one lane, all members in one call (GPUs, tests)        */
    const Kernel *(*kernel)(const Node *n);      /* NULL: the device lacks the op; lowering must expand it               */
    bool accel;                           /* memory of its own: Exec and Population are opened on an Accel               */
    bool half;                            /* precision bf16: values of sequences are stored as bf16 (op/cuda.h rule 4)   */
} DeviceDef;
extern MDR_API const DeviceDef mdr_exec_cpu, mdr_exec_ref32, mdr_exec_ref64;
extern MDR_API const DeviceDef mdr_exec_cuda, mdr_exec_cuda_bf16;     /* kernels: none in a build without CUDA           */
/* A HasOp for mdr_ir_copy / mdr_model_lower; ctx = const DeviceDef *. composed: only ops without a composition are "had". */
MDR_API bool mdr_exec_has(const OpDef *op, void *device);
MDR_API bool mdr_exec_has_composed(const OpDef *op, void *device);
/* The fused ops that the device has, put where they fit: for mdr_model_lower. Without one a graph stays as it is. */
MDR_API void mdr_exec_fuse(Builder *b, void *device);

typedef struct PlanSpec {
    const DeviceDef *device;
    int32_t batch;                        /* largest number of sequences of a step                                       */
    int32_t first_grad;                   /* output first_grad + i is the gradient of parameter i; -1: evaluation only   */
    const char *update;                   /* "adamw"; NULL with first_grad < 0                                           */
    int32_t slice_rows;                   /* 0 = MDR_SLICE_ROWS; other values only for measuring and tests               */
} PlanSpec;
typedef struct Plan Plan;
MDR_API Err *mdr_exec_plan(const Graph *g, const PlanSpec *spec, Plan **plan);
MDR_API void mdr_exec_plan_free(Plan *p);
typedef struct PlanInfo {
    int32_t n_param, slice, n_slice, n_lane, n_instr;
    int64_t stride;                       /* elements of one member's parameter vector, padding included                 */
    int64_t n_weight;                     /* without padding                                                             */
    int64_t slice_bytes, lane_bytes, step_bytes, post_bytes, const_bytes, scratch_bytes;
} PlanInfo;
MDR_API PlanInfo mdr_exec_info(const Plan *p);
MDR_API int64_t mdr_exec_param_offset(const Plan *p, int32_t i);     /* in elements; parameter i in order of creation   */
MDR_API const ParamAttr *mdr_exec_param(const Plan *p, int32_t i);
MDR_API void mdr_exec_print(const Plan *p, Text *t);                 /* instructions with their places                  */

/* Members: parameters and, of a plan with an update, optimiser state, [n][stride] of float (double on real64 devices). Zeroed at birth. */
typedef struct Population {
    int32_t n;
    int64_t stride;
    int32_t real_size;                    /* 4 or 8                                                                      */
    void *param, *m, *v;                  /* m, v NULL: no update                                                        */
    Hyper *hyper;                         /* [n]; data, not arguments: may change from step to step                      */
    bool *alive;                          /* [n]; a dead member is not updated (and on CPU devices not computed)         */
    Accel *accel;                         /* whose memory param, m and v are; NULL: the host's                           */
} Population;
/* accel: of plans for a device with its own memory, else NULL. */
MDR_API Err *mdr_exec_population_new(const Plan *p, Accel *accel, int32_t n, Population **out);
/* One member's whole vector [stride], from and to the host, wherever it lies. MDR_ERR_MACHINE: the plan has no update, so no m, no v. */
typedef enum PopPart { POP_PARAM, POP_M, POP_V } PopPart;
MDR_API Err *mdr_exec_population_put(Population *pop, PopPart part, int32_t member, const void *x);
MDR_API Err *mdr_exec_population_get(const Population *pop, PopPart part, int32_t member, void *x);
MDR_API Err *mdr_exec_population_move(Population *pop, int32_t from, int32_t to);     /* all of a member; from keeps what it has */
MDR_API void mdr_exec_population_free(Population *pop);

typedef struct Exec Exec;
MDR_API Err *mdr_exec_open(const Plan *p, Pool *pool, int32_t n_member, Exec **out);
/* For devices with `accel`: all members in one recorded step. mdr_exec_step works as on any device (it uploads, replays, downloads and
 * waits); the functions below leave everything on the device. */
MDR_API Err *mdr_exec_open_accel(const Plan *p, Accel *accel, int32_t n_member, Exec **out);
MDR_API int64_t mdr_exec_accel_bytes(const Plan *p, int32_t n_member);       /* device memory such an Exec and its Population take */
MDR_API void mdr_exec_close(Exec *e);
typedef struct StepInput { const void *data; int64_t member; } StepInput;   /* SEQ: [member?][n_seq][..]; member: stride in elements, 0 = shared */
typedef struct StepOut { double grad_norm; bool finite; } StepOut;          /* norm: 0 unless the member clips    */
/* One step on n_seq <= batch sequences. update false: only outputs (evaluation plans, or gradients without an update). */
MDR_API Err *mdr_exec_step(Exec *e, Population *pop, const StepInput *input, int32_t n_seq, bool update);
/* Output i of member m after the last step: DT_SUM: double; DT_REAL: the device's real. SEQ outputs only on `whole` devices. */
MDR_API const void *mdr_exec_output(const Exec *e, int32_t member, int32_t i);
MDR_API const StepOut *mdr_exec_out(const Exec *e, int32_t member);

/* ---- steps that stay on an accelerator ----
 * Device memory that a step reads: inputs [n_member][batch][..], sequences of each member this step (0: it rests: nothing of it is
 * computed or updated) and whether it has any, which without hooks the step finds itself, hypers. */
MDR_API void *mdr_exec_accel_input(Exec *e, int32_t i, int64_t *member);      /* input i; member stride in elements              */
MDR_API int32_t *mdr_exec_accel_n_seq(Exec *e);                               /* [n_member]                                      */
MDR_API int32_t *mdr_exec_accel_one(Exec *e);                                 /* [n_member] 1 where there are sequences, else 0  */
MDR_API Hyper *mdr_exec_accel_hyper(Exec *e);                                 /* [n_member]                                      */
MDR_API const double *mdr_exec_accel_sum(const Exec *e, int32_t i, int64_t *member);   /* output i, DT_SUM, as the step left it; stride in elements */
MDR_API const double *mdr_exec_accel_norm(const Exec *e);                     /* [n_member] norms of gradients; NULL: the step being
                                                                                 recorded clips nobody                           */
typedef Err *ExecHook(void *ctx, Exec *e, void *stream);                      /* enqueues on the stream (cudaStream_t), nothing else */
typedef struct ExecHooks {
    ExecHook *before;                         /* writes inputs, n_seq, one, hypers                                               */
    ExecHook *ahead;                          /* then, beside the step: what the next step's `before` reads                       */
    ExecHook *after;                          /* reads results, norms, n_seq, hypers; not parameters: it runs beside the update   */
    void *ctx;
} ExecHooks;
/* Records before, ahead beside the step, after beside its update as one graph; replay enqueues it once and does not wait. Recording again
 * replaces it. hooks may be NULL: the host has written everything. */
MDR_API Err *mdr_exec_record(Exec *e, Population *pop, bool update, const ExecHooks *hooks);
MDR_API Err *mdr_exec_replay(Exec *e);
/* Fewer members in the memory that is there, laid out anew: pointers into it (inputs, hypers, results) change, what they held and the recorded
 * step are gone. fits: would it hold them? A kernel may want more scratch for fewer members. */
MDR_API bool mdr_exec_fits(const Exec *e, int32_t n_member);
MDR_API Err *mdr_exec_narrow(Exec *e, int32_t n_member);
MDR_API int32_t mdr_exec_launches(const Exec *e);                             /* kernels and copies of the recorded step; 0: none  */

/* Before every step all working memory is filled with NaNs, so that a kernel that reads what was not written shows. mdr_exec_eval
 * always does it. */
MDR_API void mdr_exec_poison(Exec *e, bool on);

/* ---- measuring: off unless asked for ---- */
typedef struct TraceEvent { int32_t worker, lane; const char *phase; double begin, end; } TraceEvent;   /* lane -1: none   */
MDR_API void mdr_exec_trace(Exec *e, bool on);
/* Adds what a job of the caller's did, from begin until now; a no-op while tracing is off. */
MDR_API void mdr_exec_trace_add(Exec *e, int worker, int lane, const char *phase, double begin);
/* Events kept; *lost: those beyond the first 2^20. */
MDR_API int64_t mdr_exec_trace_read(const Exec *e, const TraceEvent **events, int64_t *lost);
typedef struct OpProfile { const char *op, *where; const Node *node; double seconds; int64_t calls, sequences; uint8_t phase; } OpProfile;
MDR_API void mdr_exec_profile(Exec *e, bool on);                     /* clears                                           */
MDR_API int32_t mdr_exec_profile_read(const Exec *e, OpProfile *out, int32_t max);    /* one row an instruction         */
MDR_API double mdr_exec_busy(const Exec *e, int worker);             /* seconds inside jobs since profile was switched on */

/* ---- evaluating a graph once: for tests and small uses. All data as doubles, converted to the device's types. ---- */
typedef struct EvalSpec {
    const DeviceDef *device;              /* taken as `whole`; CPU kernels need n_member 1                              */
    int32_t n_member, n_seq;
    const double *const *input;           /* [inputs in order]: SEQ [n_member?][n_seq][numel]; else [n_member?][numel]; the member axis
                                             is there iff the input has it                                               */
    const double *param;                  /* [n_member][all parameters in order, no padding]                             */
    Accel *accel;                         /* of devices with their own memory                                            */
} EvalSpec;
/* output[i]: mdr_alloc'ed [n_member][n_seq][numel] for SEQ outputs, [n_member][numel] otherwise; absent outputs NULL. */
MDR_API Err *mdr_exec_eval(const Graph *g, const EvalSpec *spec, double **output);
#ifdef __cplusplus
}
#endif
#endif
