/* exec's own business. A Plan holds places, offsets and strides, never pointers; a Frame supplies the bases they are added to,
 * so one Plan runs for any worker, lane, member or device memory. Plans of scan bodies are Plans like any other. */
#ifndef MDR_EXEC_INTERNAL_H
#define MDR_EXEC_INTERNAL_H
#include "exec/exec.h"

enum { MAX_INPUTS = 64 };                 /* of a graph                                                                  */
typedef enum Place { PL_NONE, PL_INPUT, PL_PARAM, PL_CONST, PL_STEP, PL_SLICE, PL_LANE, PL_POST, PL_COUNT } Place;
typedef struct Slot {
    Place place;
    int32_t input;                        /* PL_INPUT: which                                                             */
    int64_t at;                           /* bytes from the place's base                                                 */
    int64_t seq, ld;                      /* strides in elements of the value's type; seq 0: shared by sequences          */
    int32_t size;                         /* bytes of an element                                                         */
} Slot;

typedef struct Instr {
    const Node *node;
    int32_t index;                        /* of the node in the graph                                                    */
    KernelFn *run;
    int64_t (*units)(const Node *, Extent);
    int64_t prep_units;                   /* > 0: this instruction makes a kernel's Prep; in[prep_in] -> prep; -1: of none */
    int32_t prep_in;
    uint32_t add;
    bool sole;                            /* whatever it adds to, nobody else does, nor reads before POST                  */
    bool aside;                           /* makes only such sums, and what it reads stays: an accelerator may run it beside */
    Slot in[MDR_MAX_IN], out[MDR_MAX_OUT], prep;
    Plan *body, *body_grad;               /* scan, scan_grad                                                             */
    size_t (*scratch)(const Node *, Extent);
} Instr;

typedef struct ConstTable { const ConstAttr *attr; int64_t at; } ConstTable;   /* at: bytes in PL_CONST                    */
typedef struct GradCopy { Slot from; int64_t offset, numel; } GradCopy;  /* a POST gradient into the flat vector          */

struct Plan {
    const Graph *graph;
    PlanSpec spec;
    bool whole;
    int32_t real;                         /* bytes of DT_REAL                                                            */
    int32_t slice;                        /* sequences in a slice                                                        */
    Instr *instr;
    int32_t begin[PH_COUNT + 1];          /* instructions by phase                                                       */
    int64_t size[PL_COUNT];               /* bytes: STEP, POST, LANE, SLICE per member; CONST once                       */
    int64_t lane_reals, lane_sums;        /* elements: the two sections of a lane                                        */
    int64_t stride;                       /* elements of the parameter vector                                            */
    int32_t n_param;
    int64_t *param_at;                    /* [n_param] elements                                                          */
    const ParamAttr **param;
    GradCopy *copy;
    int32_t n_copy;
    ConstTable *table;
    int32_t n_table;
    Slot *output;                         /* [graph->n_output]; PL_NONE: absent                                          */
    Slot *input;                          /* [inputs], in their order                                                    */
    Arena *arena;
};

/* Where the Plan's places are, for one run over one slice. */
typedef struct Frame {
    char *base[PL_COUNT];
    const StepInput *input;
    int64_t first_seq;                    /* of the slice, into SEQ inputs                                               */
    Extent extent;
    void *scratch;
    OpProfile *profile;                   /* [instructions] of this worker, or NULL                                      */
    Accel *accel;                         /* devices with their own memory; NULL else                                    */
    void *stream;
    Beside *side;                         /* Call.side                                                                   */
    struct Images *images;                /* Call.images of a Prep                                                       */
    const int32_t *n_seq, *one;           /* accel: [members], in device memory: sequences now; 1, or 0 for a member at rest */
} Frame;

/* accel_step.c */
typedef struct AccelExec AccelExec;
Err *mdr_exec_accel_open(const Plan *p, Accel *accel, int32_t n_member, AccelExec **out);
void mdr_exec_accel_close(AccelExec *a);
bool mdr_exec_accel_fits(const AccelExec *a, int32_t n_member);
Err *mdr_exec_accel_narrow(AccelExec *a, int32_t n_member);
Err *mdr_exec_accel_step(AccelExec *a, Population *pop, const StepInput *input, int32_t n_seq, bool update, StepOut *out);
const void *mdr_exec_accel_output(AccelExec *a, int32_t member, int32_t i);
void mdr_exec_accel_poison(AccelExec *a, bool on);
void mdr_exec_accel_profile(AccelExec *a, bool on);
int32_t mdr_exec_accel_profile_read(const AccelExec *a, OpProfile *out, int32_t max);
AccelExec *mdr_exec_of_accel(const Exec *e);              /* step.c: NULL on devices that share the host's memory            */

/* layout.c: which value lies where. Fills instr slots, sizes, outputs, copies. */
Err *mdr_exec_layout(Plan *p);
bool mdr_exec_storage(const OpDef *op);                   /* param, input, const: no instruction                         */
Err *mdr_exec_plan_body(const Graph *g, const Plan *outer, Plan **out);

Arg mdr_exec_arg(const Plan *p, const Frame *f, const Slot *s);
/* Runs the units [u0, u1) of one instruction; u1 < 0: all. */
void mdr_exec_instr(const Plan *p, const Instr *in, const Frame *f, int64_t u0, int64_t u1);
void mdr_exec_phase(const Plan *p, Phase phase, const Frame *f);         /* all instructions of a phase, on this thread    */
int64_t mdr_exec_units(const Instr *in, Extent e);
void mdr_exec_consts(const Plan *p, char *base);                         /* writes const tables                           */
/* Adds lanes [K][members][lane] into `to` in lane order, elements [e0, e1) of member m's reals. */
void mdr_exec_fold_reals(const Plan *p, char *const *lane, int32_t n_lane, char *to, int64_t e0, int64_t e1);
void mdr_exec_fold_sums(const Plan *p, char *const *lane, int32_t n_lane, char *to);

int32_t mdr_exec_vectors(const Plan *p);                 /* parameters' size that a member takes: with m and v 3, else 1  */
size_t mdr_exec_scratch(const Plan *p, bool aside, Extent e);            /* bytes: the largest of its instructions, of those aside or the others */
Err *mdr_exec_opened_for(const Exec *e, const Population *pop);          /* MDR_ERR_MACHINE: not for this population             */
int32_t mdr_exec_lanes(const Plan *p, int32_t n_seq);

/* loop.c: the walk of a scan, one text for every device; what it does beside the instructions of its body goes through these. */
typedef struct LoopHands {
    /* rows x cols of every member and sequence of e: to = from, with add to += from; zeros where from->data is NULL */
    void (*move)(const Frame *f, bool add, const Arg *to, const Arg *from, Extent e, int64_t rows, int64_t cols);
    void (*begin)(const Plan *p, Frame *f, int32_t *always);    /* a body's CONST and STEP, an empty lane; always: a word of scratch */
    void (*fold)(const Plan *p, Frame *f);                      /* a body's lane into its POST                                   */
} LoopHands;
extern const LoopHands mdr_exec_loop_accel;                     /* loop_accel.c                                                  */
size_t mdr_exec_scan_scratch(const Instr *in, Extent e);
void mdr_exec_scan(const Instr *in, const Call *c, const Frame *f);

static inline int64_t mdr_exec_round(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
/* Where values begin: a cache line; a GPU's kernels want 16 bytes a thread and whole sectors for every member. */
static inline int64_t mdr_exec_align(const Plan *p) { return p->spec.device->accel ? 256 : 64; }
static inline int32_t mdr_exec_size(const Plan *p, DType t) { return t == DT_REAL ? p->real : t == DT_I32 ? 4 : 8; }
#endif
