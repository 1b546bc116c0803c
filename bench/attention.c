/* Attention's kernels alone, one core: GFLOP/s forward, backward and both, counting only pairs that are seen (op.h's
 * cost), at
 * model width 128, q, k, v as columns of one packed buffer as in a step. Each figure is the best of ROUNDS rounds,
 * the machine's
 * FMA ceiling measured in the same rounds. Times include packing of the inputs. rope is given as microseconds.
 *   bench/attention [L ...]          default 128 1024 */
#include "op/op.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 60, WIDTH = 128, MAX_LEN = 8 };
/* Time of this thread alone: other programs on the machine cost nothing but what they push out of the caches. */
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#if defined __x86_64__
typedef float Eight __attribute__((vector_size(32)));
#define TWELVE(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)
#define START(i) Eight a##i = x;
#define STEP(i) __asm__ volatile("vfmadd213ps %2, %1, %0" : "+x"(a##i) : "x"(m), "x"(x));
/* GFLOP/s of independent FMAs of eight floats; 0 where the machine has none. */
__attribute__((target("avx2,fma"))) static double ceiling(void) {
    enum { STEPS = 50000 };
    const Eight m = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f}, x = m;
    TWELVE(START)
    const double t0 = seconds();
    for (int s = 0; s < STEPS; s++) { TWELVE(STEP) }
    return STEPS * 12 * 16.0 / (seconds() - t0) * 1e-9;
}
#else
static double ceiling(void) { return 0; }
#endif

typedef struct Job { Node n; AttentionAttr attr; RopeAttr rope; Call c; double best; } Job;

static Arg columns(float *data, int64_t rows, int64_t ld) { return (Arg){data, 0, rows * ld, ld, sizeof *data}; }
static float *numbers(Rng *r, int64_t n) {
    float *p = aligned_alloc(64, ((size_t)n * sizeof *p + 63) / 64 * 64);
    for (int64_t i = 0; i < n; i++) p[i] = (float)mdr_rng_normal(r);
    return p;
}
/* The node of op with its inputs' shapes, and a Call of one sequence. */
static void prepare(Job *j, const char *op, const void *attr, int n_in, int32_t rows, int32_t heads) {
    j->n = (Node){.op = mdr_op_find(op)->def, .attr = attr, .n_in = n_in, .n_out = mdr_op_find(op)->def->n_out,
        .where = "bench"};
    for (int i = 0; i < n_in; i++) j->n.in_type[i].shape = mdr_shape2(rows, i == 4 ? heads : WIDTH);
    /* no gradient of lse */
    for (int i = n_in == 7 ? 6 : n_in; i < MDR_MAX_IN; i++) j->n.in[i] = MDR_ABSENT;
    Err *e = j->n.op->shape(&j->n);
    if (e) {
        fprintf(stderr, "%s\n", mdr_err_text(e));
        exit(1);
    }
    j->c = (Call){.node = &j->n, .extent = {1, 1}};
    const Kernel *k = mdr_op_kernel(&j->n, DEV_CPU);
    j->c.scratch = aligned_alloc(64, (k->scratch ? k->scratch(&j->n, j->c.extent) + 63 : 64) / 64 * 64);
    j->best = INFINITY;
}
static void measure(Job *j) {
    const Kernel *k = mdr_op_kernel(&j->n, DEV_CPU);
    const int64_t units = k->units ? k->units(&j->n, j->c.extent) : 1;
    int n = 0;
    const double t0 = seconds();
    double t;
    do { k->run(&j->c, 0, units); n++; } while ((t = seconds() - t0) < 0.002);
    if (t / n < j->best) j->best = t / n;
}

static void one_line(int32_t d, int32_t rows) {
    const int32_t heads = WIDTH / d;
    Rng r = mdr_rng(1, 1);
    float *qkv = numbers(&r, (int64_t)rows * 3 * WIDTH), *dqkv = numbers(&r, (int64_t)rows * 3 * WIDTH);
    float *y = numbers(&r, (int64_t)rows * WIDTH), *dy = numbers(&r, (int64_t)rows * WIDTH), *lse = numbers(&r,
        (int64_t)rows * heads);
    Job f = {.attr = {heads, 0}}, g = {.attr = {heads, 0}}, o = {.rope = {heads, 1, 10000.0}};
    prepare(&f, "attention", &f.attr, 3, rows, heads);
    prepare(&g, "attention_grad", &g.attr, 7, rows, heads);
    prepare(&o, "rope", &o.rope, 1, rows, heads);
    for (int i = 0; i < 3; i++) {
        f.c.in[i] = g.c.in[i] = columns(qkv + i * WIDTH, rows, 3 * WIDTH);
        g.c.out[i] = columns(dqkv + i * WIDTH, rows, 3 * WIDTH);
    }
    f.c.out[0] = g.c.in[3] = columns(y, rows, WIDTH);
    f.c.out[1] = g.c.in[4] = columns(lse, rows, heads);
    g.c.in[5] = columns(dy, rows, WIDTH);
    o.c.in[0] = f.c.in[0];
    o.c.out[0] = columns(dqkv, rows, WIDTH);
    double top = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const double now = mdr_cpu_avx2() ? ceiling() : 0;
        if (now > top) top = now;
        measure(&f);
        measure(&g);
        measure(&o);
    }
    const double flops = f.n.op->cost(&f.n).flops;
    printf("%4d %5d   %6.1f %6.1f %6.1f   %5.1f   %8.1f us %8.1f us   rope %6.2f us\n", d, rows, flops / f.best * 1e-9,
           2 * flops / g.best * 1e-9, 3 * flops / (f.best + g.best) * 1e-9, top, f.best * 1e6, g.best * 1e6,
               o.best * 1e6);
    fflush(stdout);
    free(qkv); free(dqkv); free(y); free(dy); free(lse);
    free(f.c.scratch); free(g.c.scratch); free(o.c.scratch);
}

int main(int argc, char **argv) {
    static const int32_t size[] = {8, 16, 32, 64};
    int32_t len[MAX_LEN] = {128, 1024}, n_len = 2;
    for (int i = 1; i < argc && i <= MAX_LEN; i++) {
        int64_t v;
        if (!mdr_text_to_int(argv[i], &v) || v < 1 || v > 65536) {
            fprintf(stderr, "usage: attention [L ...]   lengths from 1 to 65536, not '%s'\n", argv[i]);
            return 2;
        }
        len[i - 1] = (int32_t)v;
        n_len = i;
    }
    printf("# kernels: %s; GFLOP/s of pairs seen, one core\n"
           "   d     L      fwd    bwd   both   top     fwd           bwd\n", mdr_cpu_class());
    const uint32_t fp = mdr_fp_enter();
    for (int i = 0; i < MDR_COUNT(size); i++)
        for (int32_t k = 0; k < n_len; k++) one_line(size[i], len[k]);
    mdr_fp_leave(fp);
    return 0;
}
