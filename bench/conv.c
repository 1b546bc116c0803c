/* Long convolution on one core: y, du and dh of conv_direct and of conv_fft for a slice of sequences, best of many
 * rounds, each round beside a run of bare multiply-adds (the ceiling). GF counts the products made (direct: L (L+1)
 * C flops an op) or 5 M log2 M a transform as executed (fft; its `equal` column: the direct count over its time).
 * The once-a-step ops spectrum and spectrum_adj have a column of their own. Arguments: rows, channels, sequences;
 * without them a table. */
#include "op/op.h"
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 400, BIG = 2 << 20 };
typedef struct Job { Node node; Call call; const Kernel *kernel; double flops, best; } Job;

/* Two independent multiply-adds a cycle, eight lanes: what no kernel can beat. Flops a second. */
__attribute__((target("avx2,fma"))) static double ceiling(void) {
    __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    __m256 a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, k = x;
    enum { TURNS = 20000 };
    double start = mdr_clock();
    for (int n = 0; n < TURNS; n++) {
#define F(v) v = _mm256_fmadd_ps(v, x, y)
        F(a), F(b), F(c), F(d), F(e), F(f), F(g), F(h), F(i), F(k);
        __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i), "+x"(k));
    }
    double t = mdr_clock() - start;
    float out[8];
    _mm256_storeu_ps(out, a + b + c + d + e + f + g + h + i + k);
    volatile float keep = out[0];
    (void)keep;
    return 2.0 * 8 * 10 * TURNS / t;
}

static Arg value(Shape s, int32_t n_seq, Rng *r) {
    Arg a = {.seq = n_seq > 1 ? mdr_numel(s) : 0, .ld = mdr_cols(s)};
    size_t n = (size_t)(mdr_numel(s) * n_seq);
    void *p = NULL;
    Err *e = mdr_alloc_big(n * sizeof(float) + BIG, &p);      /* on huge pages, as the arenas of a plan are */
    if (e) {
        fprintf(stderr, "%s\n", mdr_err_text(e));
        exit(1);
    }
    a.data = p;
    for (size_t i = 0; i < n; i++) ((float *)p)[i] = r ? (float)(mdr_rng_unit(r) - 0.5) : 0.0f;
    return a;
}

static Job job(const char *op, const void *attr, int32_t n_seq, Arg in0, Shape shape0, const Arg *in1,
               Shape shape1, Arg out, bool add) {
    const OpRow *row = mdr_op_find(op);
    Job j = {.node = {.op = row->def, .attr = attr, .n_in = in1 ? 2 : 1, .n_out = 1}, .best = INFINITY};
    j.node.in_type[0] = (Type){.shape = shape0, .phase = PH_SEQ};
    j.node.in_type[1] = (Type){.shape = shape1, .phase = PH_SEQ};
    Err *e = row->def->shape(&j.node);
    if (e) {
        fprintf(stderr, "%s\n", mdr_err_text(e));
        exit(1);
    }
    j.kernel = mdr_op_fast(&j.node);
    j.call = (Call){.extent = {1, n_seq}, .in = {in0}, .out = {out}, .add = add};
    if (in1) j.call.in[1] = *in1;
    j.flops = row->def->cost(&j.node).flops * n_seq;
    return j;
}
static void run(Job *j) {
    j->call.node = &j->node;
    double start = mdr_clock();
    j->kernel->run(&j->call, 0, j->kernel->units(&j->node, j->call.extent));
    double t = mdr_clock() - start;
    if (t < j->best) j->best = t;
}

static void measure(int32_t rows, int32_t cols, int32_t n_seq) {
    Rng r = mdr_rng(1, (uint64_t)rows);
    const Shape x = mdr_shape2(rows, cols);
    static const int32_t off = 0, on = 1;
    const int32_t rows_cols[2] = {rows, cols};
    Arg u = value(x, n_seq, &r), h = value(x, 1, &r), dy = value(x, n_seq, &r);
    Arg y = value(x, n_seq, NULL), dh = value(x, 1, NULL);
    u.seq = dy.seq = y.seq = mdr_numel(x);
    Job probe = job("spectrum", NULL, 1, h, x, NULL, x, h, false);
    const Shape z = probe.node.out[0].shape;
    Arg H = value(z, 1, NULL), dH = value(z, 1, NULL);
    Job j[8] = {
        job("conv_direct", &off, n_seq, u, x, &h, x, y, false), job("conv_direct", &on, n_seq, dy, x, &h, x, y, false),
        job("conv_direct_dh", NULL, n_seq, u, x, &dy, x, dh, true), job("spectrum", NULL, 1, h, x, NULL, x, H, false),
        job("conv_fft", &off, n_seq, u, x, &H, z, y, false), job("conv_fft", &on, n_seq, dy, x, &H, z, y, false),
        job("conv_fft_dh", NULL, n_seq, u, x, &dy, x, dH, true),
        job("spectrum_adj", rows_cols, 1, dH, z, NULL, x, dh, false)};
    void *scratch = NULL;
    size_t bytes = 0;
    for (int i = 0; i < 8; i++) {
        size_t n = j[i].kernel->scratch(&j[i].node, j[i].call.extent);
        if (n > bytes) bytes = n;
    }
    Err *e = mdr_alloc_big(bytes, &scratch);
    if (e) exit(1);
    double top = 0, spent = mdr_clock();
    int round = 0;
    for (; round < MAX_ROUNDS && (round < 5 || mdr_clock() - spent < 1.5); round++) {
        double now = ceiling();
        if (now > top) top = now;
        for (int i = 0; i < 8; i++) {
            j[i].call.scratch = scratch;
            run(&j[i]);
        }
    }
    double direct = j[0].best + j[1].best + j[2].best, fft = j[4].best + j[5].best + j[6].best;
    double direct_flops = j[0].flops + j[1].flops + j[2].flops, fft_flops = j[4].flops + j[5].flops + j[6].flops;
    printf("%5d %4d %3d | %8.1f %8.1f %8.1f %6.1f %5.2f | %8.1f %8.1f %8.1f %6.1f %6.1f %8.1f | %5.2f %6.1f\n", rows,
           cols, n_seq, 1e6 * j[0].best / n_seq, 1e6 * j[1].best / n_seq, 1e6 * j[2].best / n_seq,
           1e-9 * direct_flops / direct, direct_flops / direct / top, 1e6 * j[4].best / n_seq,
           1e6 * j[5].best / n_seq, 1e6 * j[6].best / n_seq,
           1e-9 * fft_flops / fft, 1e-9 * direct_flops / fft, 1e6 * (j[3].best + j[7].best), direct / fft, 1e-9 * top);
    fflush(stdout);
    void *const all[] = {u.data, h.data, dy.data, y.data, dh.data, H.data, dH.data, scratch};
    for (int i = 0; i < MDR_COUNT(all); i++) mdr_free_big(all[i]);
}

int main(int argc, char **argv) {
    if (!mdr_cpu_avx2()) {
        puts("this machine has no AVX2: nothing to measure");
        return 0;
    }
    mdr_fp_enter();
    puts("             | direct, us a sequence                  "
         "| fft, us a sequence                         us a step| direct   FMA\n"
         " rows chan seq|       y       du       dh     GF  of FMA"
         "|       y       du       dh     GF  equal spectrum|   /fft     GF");
    if (argc == 4) {
        measure(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]));
        return 0;
    }
    static const int32_t rows[] = {64, 127, 128, 192, 255, 256, 320, 384, 511, 512, 1023, 1024, 1280, 2048, 4096};
    for (int i = 0; i < MDR_COUNT(rows); i++) measure(rows[i], 512, rows[i] <= 512 ? 4 : 1);
    measure(128, 512, 1);
    measure(128, 128, 4);
    measure(1024, 128, 4);
    measure(1024, 500, 2);
    return 0;
}
