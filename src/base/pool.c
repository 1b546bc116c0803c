/* Workers: n - 1 threads that live as long as the pool, and the caller. A round: the caller stores the job, raises `round` and
 * works too; each thread that sees the new round works and lowers `left`; the last one wakes the caller.
 * Waiting: a brief spin (a step's phases follow each other within microseconds), then sleep. Where there are more workers than
 * CPUs nobody spins: a spinner would hold the CPU that the other needs.
 * No wake-up is lost: the sleeper announces itself and then looks again; the waker changes the state and then looks for
 * sleepers (all sequentially consistent), so one of the two sees the other. */
#include "base/base.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

enum { MAX_WORKERS = 1024, SPINS = 4000 };
typedef struct Seat { Pool *pool; pthread_t thread; int worker; } Seat;
struct Pool {
    int n, spins;
    void (*job)(void *ctx, int worker);
    void *ctx;
    bool quit;                                       /* written before `round` is raised, read after                       */
    _Alignas(64) _Atomic uint64_t round;
    _Alignas(64) atomic_int left;
    _Alignas(64) atomic_int sleepers;                /* threads asleep                                                     */
    atomic_int waiting;                              /* the caller is asleep                                               */
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    Seat seat[];
};

static void relax(void) {
#if defined __x86_64__
    _mm_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

uint32_t mdr_fp_enter(void) {
#if defined __x86_64__
    uint32_t old = _mm_getcsr();
    _mm_setcsr(old | 0x8040u);                       /* FTZ, DAZ                                                           */
    return old;
#elif defined __aarch64__
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | (UINT64_C(1) << 24)));
    return (uint32_t)old;
#else
    return 0;
#endif
}

void mdr_fp_leave(uint32_t state) {
#if defined __x86_64__
    _mm_setcsr(state);
#elif defined __aarch64__
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)state));
#else
    (void)state;
#endif
}

static void work(Pool *p, int worker) {
    uint32_t fp = mdr_fp_enter();
    p->job(p->ctx, worker);
    mdr_fp_leave(fp);
}

/* Returns the new round. */
static uint64_t await_round(Pool *p, uint64_t seen) {
    uint64_t now;
    for (int i = 0; i < p->spins; i++) {
        now = atomic_load_explicit(&p->round, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while ((now = atomic_load(&p->round)) == seen) pthread_cond_wait(&p->start, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *thread_main(void *arg) {
    Seat *s = arg;
    Pool *p = s->pool;
    for (uint64_t seen = 0;;) {
        seen = await_round(p, seen);
        if (p->quit) return NULL;
        work(p, s->worker);
        if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->waiting)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void raise_round(Pool *p) {
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->start);
        pthread_mutex_unlock(&p->lock);
    }
}

static void await_all(Pool *p) {
    for (int i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(&p->left, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->left) != 0) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->lock);
}

void mdr_pool_run(Pool *p, void (*job)(void *ctx, int worker), void *ctx) {
    p->job = job;
    p->ctx = ctx;
    if (p->n > 1) {
        atomic_store(&p->left, p->n - 1);
        raise_round(p);
    }
    work(p, 0);
    if (p->n > 1) await_all(p);
}

int mdr_pool_size(const Pool *p) { return p->n; }

/* Ends the first `threads` threads and frees the pool. */
static void shut(Pool *p, int threads) {
    p->quit = true;
    raise_round(p);
    for (int i = 1; i <= threads; i++) pthread_join(p->seat[i].thread, NULL);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    mdr_free_big(p);
}

void mdr_pool_close(Pool *p) {
    if (p) shut(p, p->n - 1);
}

Err *mdr_pool_open(int n, Pool **out) {
    *out = NULL;
    if (n < 1 || n > MAX_WORKERS) return MDR_ERR_USER("the number of threads must be 1..%d, got %d", MAX_WORKERS, n);
    void *mem;
    MDR_TRY(mdr_alloc_big(sizeof(Pool) + (size_t)n * sizeof(Seat), &mem));   /* aligned to cache lines, and zero            */
    Pool *p = mem;
    p->n = n;
    p->spins = n <= mdr_cpu_count() ? SPINS : 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    sigset_t all, old;                               /* signals are the caller's: workers block them                       */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int made = 0, rc = 0;
    for (int i = 1; i < n && rc == 0; i++) {
        p->seat[i] = (Seat){.pool = p, .worker = i};
        rc = pthread_create(&p->seat[i].thread, NULL, thread_main, &p->seat[i]);
        if (rc == 0) made++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        shut(p, made);
        return MDR_ERR_MACHINE("only %d of %d threads could be started: %s", made + 1, n, strerror(rc));
    }
    *out = p;
    return NULL;
}
