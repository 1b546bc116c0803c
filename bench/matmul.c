/* The three products of a linear map (forward, gradient of x, gradient of w) at the sizes of a slice, beside the libraries'
 * sgemm, in one interleaved run: GFLOP/s, medians of five, and the share of R, the best any library reaches at any of three
 * comfortable sizes on this core in the same minutes. One thread, then every core with data of its own, rates added.
 *   bench/matmul [-s] [rows ...]           default 127 128 256 512 1024; -s: the summary only
 * Libraries are opened if they are there (OpenBLAS with its AVX2 kernels, BLIS); none is linked. */
#include "op/op.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

extern const CpuRow mdr_cpu_rows_matmul[], mdr_cpu_rows_matmul_tn[];

enum { ROUNDS = 5, MAX_ITEM = 1024, MAX_ROWS = 16, MAX_WORKER = 64, NO_TRANS = 111, TRANS = 112, ROW_MAJOR = 101 };
typedef void Sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                   float *c, int ldc);
typedef enum What { FORWARD, DX, DW, N_WHAT } What;
static const char *const what_name[] = {"y", "dx", "dw"};
static const int shape[][2] = {{128, 384}, {128, 128}, {128, 704}, {352, 128}, {128, 1536}, {512, 128},
                               {128, 512}, {256, 24},  {8, 256},   {256, 128}, {128, 16}};
static const int yardstick[][3] = {{1024, 1024, 1024}, {4096, 128, 128}, {384, 128, 128}};

typedef struct Item { What what; int rows, k, n; Sgemm *library; double rate[ROUNDS]; } Item;     /* library NULL: ours      */
typedef struct Data { float *x, *w, *y, *packed, *scratch; } Data;
typedef struct Bench {
    Item item[MAX_ITEM];
    int n_item, n_worker, now, round;
    Data data[MAX_WORKER];
    double rate[MAX_WORKER];
    bool failed;
} Bench;

static void call_library(const Item *i, const Data *d) {
    if (i->what == FORWARD)
        i->library(ROW_MAJOR, NO_TRANS, NO_TRANS, i->rows, i->n, i->k, 1, d->x, i->k, d->w, i->n, 0, d->y, i->n);
    else if (i->what == DX)
        i->library(ROW_MAJOR, NO_TRANS, TRANS, i->rows, i->k, i->n, 1, d->y, i->n, d->w, i->n, 0, d->x, i->k);
    else
        i->library(ROW_MAJOR, TRANS, NO_TRANS, i->k, i->n, i->rows, 1, d->x, i->k, d->y, i->n, 1, d->w, i->n);
}

/* One sequence of i->rows rows, as the engine would call it. */
static const Kernel *our_call(const Item *i, const Data *d, Node *n, Call *c) {
    static const MatmulAttr plain = {0}, turned = {1};
    const Shape x = mdr_shape2(i->rows, i->k), w = mdr_shape2(i->k, i->n), y = mdr_shape2(i->rows, i->n);
    const Arg ax = {d->x, 0, (int64_t)i->rows * i->k, i->k, 4}, aw = {d->w, 0, 0, i->n, 4}, ay = {d->y, 0, (int64_t)i->rows * i->n, i->n, 4};
    *n = (Node){.n_in = i->what == DW ? 2 : 3, .n_out = 1, .attr = i->what == DX ? &turned : &plain};
    *c = (Call){.node = n, .extent = {1, 1}, .prep = {.data = d->packed}, .scratch = d->scratch};
    n->in_type[0].shape = i->what == DX ? y : x;
    n->in_type[1].shape = i->what == DW ? y : w;
    n->out[0].shape = i->what == FORWARD ? y : i->what == DX ? x : w;
    c->in[0] = i->what == DX ? ay : ax;
    c->in[1] = i->what == DW ? ay : aw;
    c->out[0] = i->what == FORWARD ? ay : i->what == DX ? ax : aw;
    c->add = i->what == DW;
    return i->what == DW ? &mdr_cpu_rows_matmul_tn[0].kernel : &mdr_cpu_rows_matmul[0].kernel;
}

static double measure(const Item *i, const Data *d) {
    Node n;
    Call c;
    const Kernel *k = our_call(i, d, &n, &c);
    if (!i->library && k->prep.run) {
        Call prep = c;
        prep.out[0] = (Arg){.data = d->packed};
        k->prep.run(&prep, 0, k->prep.units(&n));
    }
    const int64_t units = i->library ? 0 : k->units(&n, c.extent);
    double best = 1e30, spent = 0;
    for (int reps = 1; spent < 2e-3; reps *= 2) {             /* the last, longest stretch counts                           */
        const double begin = mdr_clock();
        for (int r = 0; r < reps; r++) {
            if (i->library) call_library(i, d);
            else k->run(&c, 0, units);
        }
        spent = mdr_clock() - begin;
        best = spent / reps;
    }
    return 2e-9 * i->rows * i->k * i->n / best;
}

static void job(void *ctx, int worker) {
    Bench *b = ctx;
    b->rate[worker] = measure(&b->item[b->now], &b->data[worker]);
}

/* Values small enough that a thousand accumulations of dw stay finite. */
static void allocate(void *ctx, int worker) {
    Bench *b = ctx;
    enum { PART = 4096 * 128 > 1024 * 1536 ? 4096 * 128 : 1024 * 1536 };
    void *p;
    Err *e = mdr_alloc_big((size_t)PART * 5 * sizeof(float), &p);
    if (e) { mdr_err_free(e); b->failed = true; return; }
    Rng rng = mdr_rng(1, (uint64_t)worker);
    float *f = p;
    for (int i = 0; i < 5 * PART; i++) f[i] = (float)(1e-3 * (mdr_rng_unit(&rng) - 0.5));
    b->data[worker] = (Data){f, f + PART, f + 2 * PART, f + 3 * PART, f + 4 * PART};
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(const Item *i) {
    double r[ROUNDS];
    memcpy(r, i->rate, sizeof r);
    qsort(r, ROUNDS, sizeof *r, by_value);
    return r[ROUNDS / 2];
}

static Err *run(Bench *b, int n_worker) {
    Pool *pool;
    MDR_TRY(mdr_pool_open(n_worker, &pool));
    mdr_pool_run(pool, allocate, b);
    for (b->round = 0; b->round < ROUNDS && !b->failed; b->round++)
        for (b->now = 0; b->now < b->n_item; b->now++) {
            mdr_pool_run(pool, job, b);
            double sum = 0;
            for (int w = 0; w < n_worker; w++) sum += b->rate[w];
            b->item[b->now].rate[b->round] = sum;
        }
    mdr_pool_close(pool);
    for (int w = 0; w < n_worker; w++) mdr_free_big(b->data[w].x);
    return b->failed ? MDR_ERR_MACHINE("not enough memory for %d workers", n_worker) : NULL;
}

static void report(const Bench *b, int n_worker, int n_library, const char *const *name, bool summary) {
    const int n_yard = MDR_COUNT(yardstick) * n_library;
    double top = 0, flops = 0, ours_time = 0;
    printf("\n%d thread%s\n", n_worker, n_worker > 1 ? "s, rates added" : "");
    for (int i = 0; i < n_yard; i++) {
        const Item *it = &b->item[i];
        if (median(it) > top) top = median(it);
        printf("  yardstick %-9s %4d x %4d x %4d %7.1f\n", name[i % n_library], it->rows, it->n, it->k, median(it));
    }
    printf("  R = %.1f GFLOP/s\n", top);
    if (!summary) {
        printf("  %-4s %4s %4s %4s %9s", "", "rows", "K", "N", "ours");
        for (int l = 0; l < n_library; l++) printf(" %9s", name[l]);
        printf("   ours/R   best\n");
    }
    double log_sum[N_WHAT] = {0};
    int count[N_WHAT] = {0};
    for (int i = n_yard; i < b->n_item; i += 1 + n_library) {
        const Item *it = &b->item[i];
        double best = 0, work = 2e-9 * it->rows * it->k * it->n;
        for (int r = 0; r < ROUNDS; r++) best = it->rate[r] > best ? it->rate[r] : best;
        flops += work;
        ours_time += work / median(it);
        log_sum[it->what] += median(it) / top;
        count[it->what]++;
        if (summary) continue;
        printf("  %-4s %4d %4d %4d", what_name[it->what], it->rows, it->k, it->n);
        for (int l = 0; l <= n_library; l++) printf(" %9.1f", median(it + l));
        printf("   %6.3f %6.1f\n", top > 0 ? median(it) / top : 0, best);
    }
    for (int w = 0; w < N_WHAT; w++) printf("  %-4s mean of ours/R %.3f\n", what_name[w], log_sum[w] / count[w]);
    printf("  all  flops/time %.1f GFLOP/s = %.3f R\n", flops / ours_time, flops / ours_time / top);
}

static int open_libraries(Sgemm **f, const char **name) {
    static const char *const file[][2] = {{"openblas", "libopenblas.so.0"}, {"blis", "libblis.so.4"}};
    int n = 0;
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("OPENBLAS_CORETYPE", "Haswell", 0);               /* the AVX2 kernels: the faster ones on AMD                   */
    setenv("BLIS_NUM_THREADS", "1", 1);
    for (int i = 0; i < MDR_COUNT(file); i++) {
        void *lib = dlopen(file[i][1], RTLD_NOW | RTLD_LOCAL), *sym = lib ? dlsym(lib, "cblas_sgemm") : NULL;
        if (!sym) { printf("%s is not here\n", file[i][1]); continue; }
        memcpy(&f[n], &sym, sizeof sym);
        name[n++] = file[i][0];
    }
    return n;
}

int main(int argc, char **argv) {
    static Bench b;
    int rows[MAX_ROWS] = {127, 128, 256, 512, 1024}, n_rows = 5, given = 0;
    bool summary = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-s") == 0) { summary = true; continue; }
        int64_t v;
        if (!mdr_text_to_int(argv[i], &v) || v < 1 || v > 1024 || given == MAX_ROWS) return fprintf(stderr, "rows: 1 to 1024\n"), 2;
        rows[given++] = (int)v;
    }
    if (given) n_rows = given;
    if (!mdr_cpu_avx2()) return fprintf(stderr, "this machine has no AVX2\n"), 1;
    Sgemm *library[2];
    const char *name[2];
    const int n_library = open_libraries(library, name);
    for (int y = 0; y < MDR_COUNT(yardstick); y++)
        for (int l = 0; l < n_library; l++)
            b.item[b.n_item++] = (Item){FORWARD, yardstick[y][0], yardstick[y][2], yardstick[y][1], library[l], {0}};
    for (int r = 0; r < n_rows; r++)
        for (int s = 0; s < MDR_COUNT(shape); s++)
            for (int w = 0; w < N_WHAT; w++)
                for (int l = -1; l < n_library; l++)
                    b.item[b.n_item++] = (Item){(What)w, rows[r], shape[s][0], shape[s][1], l < 0 ? NULL : library[l], {0}};
    const int cores = mdr_cpu_count() < MAX_WORKER ? mdr_cpu_count() : MAX_WORKER;
    for (int t = 1; t <= cores; t = t == 1 && cores > 1 ? cores : cores + 1) {
        Err *e = run(&b, t);
        if (e) return fprintf(stderr, "%s\n", mdr_err_text(e)), mdr_err_free(e), 1;
        report(&b, t, n_library, name, summary);
    }
    return 0;
}
