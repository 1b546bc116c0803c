/* Times the fast kernels of selective_scan (ns for a token and channel) and of conv_short (GFLOP/s), one thread. Beside every
 * figure stands what this core could do at most, measured in the same rounds: multiply-adds of eight floats in registers,
 * and a copy of as many bytes as the kernel reads and writes. Best of many interleaved rounds: the machine may be shared. */
#include "op/op.h"
#include <stdlib.h>
#include <string.h>
#if defined __x86_64__
#include <immintrin.h>

enum { ROUNDS = 40, WARM = 3, MAX_JOBS = 16 };

typedef struct Job {
    char name[64];
    Graph *graph;
    Call call;
    const Kernel *kernel;
    int64_t units, repeat;
    double best, work;                         /* seconds of one run; token-channels or flops of one run                    */
    double bytes;
} Job;

static void must(Err *e) {
    if (!e) return;
    fprintf(stderr, "%s\n", mdr_err_text(e));
    exit(1);
}
/* Pieces of one big arena, as a plan has them: addresses that do not agree in their low 12 bits (those cost a load that
 * follows a store to a row of the same place half its speed). */
typedef struct Memory { char *p; size_t at, size; } Memory;
static void *piece(Memory *m, size_t bytes) {
    void *p = m->p + m->at;
    m->at += (bytes + 63) / 64 * 64 + 7 * 64;
    if (m->at > m->size) { fprintf(stderr, "the arena is too small\n"); exit(1); }
    return p;
}
static float *buffer(Memory *m, int64_t n, double lo, double hi) {
    float *p = piece(m, (size_t)n * sizeof(float));
    Rng r = mdr_rng(1, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) p[i] = (float)(lo + (hi - lo) * mdr_rng_unit(&r));
    return p;
}

/* One node of the op over n_seq sequences, all values dense; input i is drawn from [lo[i], hi[i]). */
static Job job(Memory *m, const char *op, const void *attr, int n_in, const Shape *shape, const double *lo,
               const double *hi, uint32_t shared, uint32_t add) {
    Job j = {.best = 1e30};
    Builder *b = mdr_ir_builder();
    Value in[MDR_MAX_IN];
    for (int i = 0; i < n_in; i++)
        in[i] = mdr_ir_input(b, "x", shape[i], DT_REAL, (shared >> i) & 1u ? MDR_AXIS_MEMBER : MDR_AXIS_SEQ);
    mdr_ir_output(b, mdr_ir_node(b, mdr_op_find(op)->def, attr, n_in, in));
    must(mdr_ir_finish(b, &j.graph));
    const Node *n = &j.graph->node[n_in];
    j.kernel = mdr_op_fast(n);
    if (!j.kernel) { fprintf(stderr, "%s: no fast kernel\n", op); exit(1); }
    j.call = (Call){.node = n, .extent = {1, 1}, .add = add};
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        Shape s = i < n->n_in ? n->in_type[i].shape : n->out[i - n->n_in].shape;
        Arg a = {.data = i < n->n_in ? buffer(m, mdr_numel(s), lo[i], hi[i]) : buffer(m, mdr_numel(s), 0, 0),
                 .ld = mdr_cols(s), .seq = mdr_numel(s)};
        if (i < n->n_in) j.call.in[i] = a;
        else j.call.out[i - n->n_in] = a;
    }
    if (j.kernel->scratch) j.call.scratch = piece(m, j.kernel->scratch(n, j.call.extent));
    j.units = j.kernel->units ? j.kernel->units(n, j.call.extent) : 1;
    j.bytes = mdr_ir_cost(n).bytes;
    return j;
}
/* ---- the limits ---- */
__attribute__((target("avx2,fma"))) static double fma_rate(void) {                     /* flops a second                */
    enum { N = 200000 };
    __m256 a[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    double t = mdr_clock();
    for (int k = 0; k < N; k++) {
#define STEP(i) a[i] = _mm256_fmadd_ps(a[i], x, y);
        STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
    }
    t = mdr_clock() - t;
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    volatile float keep = _mm_cvtss_f32(_mm256_castps256_ps128(a[0]));
    (void)keep;
    return 12.0 * 16.0 * N / t;
}
static double copy_seconds(float *from, float *to, double bytes) {                       /* bytes: read and written together */
    const size_t n = (size_t)(bytes / 2);
    const int repeat = 1 + (int)(4e6 / bytes);
    double t = mdr_clock();
    for (int i = 0; i < repeat; i++) {
        memcpy(to, from, n);
        __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
    }
    return (mdr_clock() - t) / repeat;
}

static double once(const Job *j) {
    double t = mdr_clock();
    for (int64_t i = 0; i < j->repeat; i++) j->kernel->run(&j->call, 0, j->units);
    return (mdr_clock() - t) / (double)j->repeat;
}
/* All jobs and the limits in turn, many times; keeps the best of each. */
static double rounds(Memory *m, Job *jobs, int n, double *copy) {
    double rate = 0, most = 0;
    for (int k = 0; k < n; k++) {
        jobs[k].repeat = 1;
        double t = 1e30;
        for (int i = 0; i < WARM; i++) { double x = once(&jobs[k]); if (x < t) t = x; }
        jobs[k].repeat = 1 + (int64_t)(2e-3 / t);
        copy[k] = 1e30;
        if (jobs[k].bytes > most) most = jobs[k].bytes;
    }
    float *from = buffer(m, (int64_t)(most / 8) + 16, 0, 1), *to = buffer(m, (int64_t)(most / 8) + 16, 0, 1);
    for (int r = 0; r < ROUNDS; r++) {
        double f = fma_rate();
        if (f > rate) rate = f;
        for (int k = 0; k < n; k++) {
            double t = once(&jobs[k]), c = copy_seconds(from, to, jobs[k].bytes);
            if (t < jobs[k].best) jobs[k].best = t;
            if (c < copy[k]) copy[k] = c;
        }
    }
    return rate;
}

static void scans(Memory *m) {
    static const int32_t rows[] = {128, 1024}, states[] = {4, 16};
    Job jobs[MAX_JOBS];
    double copy[MAX_JOBS];
    int n = 0;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            const int32_t l = rows[i], c = 256, s = states[k];
            const Shape in[8] = {mdr_shape2(l, c), mdr_shape2(l, c), mdr_shape2(c, s), mdr_shape2(l, s), mdr_shape2(l, s),
                                 mdr_shape1(c), mdr_shape2((l + 15) / 16, c * s), mdr_shape2(l, c)};
            static const double lo[8] = {-1, 0.001, -16, -1, -1, 1, -0.1, -1}, hi[8] = {1, 0.1, -1, 1, 1, 1, 0.1, 1};
            for (int grad = 0; grad < 2; grad++) {
                jobs[n] = job(m, grad ? "selective_scan_grad" : "selective_scan", NULL, grad ? 8 : 6, in, lo, hi,
                              1u << 2 | 1u << 5, 0);
                jobs[n].work = (double)l * c;
                snprintf(jobs[n++].name, sizeof jobs[0].name, "N %2d, L %4d, %s", s, l, grad ? "backward" : "forward");
            }
        }
    double rate = rounds(m, jobs, n, copy);
    printf("selective_scan, C 256: ns for a token and channel (%.0f GFLOP/s multiply-add)\n", rate * 1e-9);
    for (int i = 0; i < n; i++) {
        printf("  %-26s %6.2f   copy of the bytes %5.2f\n", jobs[i].name, jobs[i].best / jobs[i].work * 1e9,
               copy[i] / jobs[i].work * 1e9);
        mdr_ir_graph_free(jobs[i].graph);
    }
}

static void convs(Memory *m) {
    static const struct { const char *name; int32_t rows, cols_x, cols, taps; } size[] = {
        {"hyena", 128, 384, 1536, 3}, {"mamba", 128, 256, 256, 4}};
    static const char *const op[] = {"conv_short", "conv_short_dx", "conv_short_dw"};
    static const double lo[3] = {-1, -1, -1}, hi[3] = {1, 1, 1};
    Job jobs[MAX_JOBS];
    double copy[MAX_JOBS];
    int n = 0;
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int k = 0; k < 3; k++) {
            const int32_t l = size[i].rows, attr = k == 1 ? size[i].cols_x : size[i].taps;
            const Shape x = mdr_shape2(l, size[i].cols_x), y = mdr_shape2(l, size[i].cols);
            const Shape w = mdr_shape2(size[i].taps, size[i].cols);
            const Shape in[3] = {k == 1 ? y : x, k == 2 ? y : w, mdr_shape1(size[i].cols)};
            jobs[n] = job(m, op[k], &attr, k ? 2 : 3, in, lo, hi, k < 2 ? 1u << 1 | 1u << 2 : 0, 0);
            jobs[n].work = mdr_ir_cost(jobs[n].call.node).flops;
            snprintf(jobs[n++].name, sizeof jobs[0].name, "%s %s", size[i].name, op[k]);
        }
    double rate = rounds(m, jobs, n, copy);
    printf("conv_short, L 128: GFLOP/s (%.0f by multiply-adds; by copying the bytes: second column)\n", rate * 1e-9);
    for (int i = 0; i < n; i++) {
        printf("  %-26s %6.1f   %6.1f   %6.1f us\n", jobs[i].name, jobs[i].work / jobs[i].best * 1e-9,
               jobs[i].work / copy[i] * 1e-9, jobs[i].best * 1e6);
        mdr_ir_graph_free(jobs[i].graph);
    }
}

int main(void) {
    if (!mdr_cpu_avx2()) { puts("no AVX2 here: nothing to time"); return 0; }
    uint32_t fp = mdr_fp_enter();
    Memory m = {.size = (size_t)1 << 27};
    void *p = NULL;
    must(mdr_alloc_big(m.size, &p));
    m.p = p;
    scans(&m);
    convs(&m);
    mdr_free_big(p);
    mdr_fp_leave(fp);
    return 0;
}
#else
int main(void) { puts("no AVX2 here: nothing to time"); return 0; }
#endif
