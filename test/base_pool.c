/* The worker pool: each worker once a round, all done on return, denormals flushed and the caller's state restored. */
#include "base/base.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { MOST = 9 };
typedef struct Round {
    int n;
    int hits[MOST];                                  /* plain: a race would be seen by the thread sanitizer                */
    long work;
    atomic_int total;
} Round;

static void count(void *ctx, int worker) {
    Round *r = ctx;
    r->hits[worker]++;
    atomic_fetch_add(&r->total, 1);
}

static void test_rounds(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, MOST};
    for (int k = 0; k < MDR_COUNT(sizes); k++) {
        Pool *p;
        assert_null(mdr_pool_open(sizes[k], &p));
        assert_int_equal(mdr_pool_size(p), sizes[k]);
        Round r = {0};
        int rounds = sizes[k] > 3 ? 500 : 3000;
        for (int i = 1; i <= rounds; i++) {
            mdr_pool_run(p, count, &r);
            assert_int_equal(atomic_load(&r.total), i * sizes[k]);
            for (int w = 0; w < MOST; w++) assert_int_equal(r.hits[w], w < sizes[k] ? i : 0);
            if (i % 1000 == 0) nanosleep(&(struct timespec){0, 3000000}, NULL);   /* long enough for all to fall asleep    */
        }
        mdr_pool_close(p);
    }
    mdr_pool_close(NULL);
}

/* Workers that finish long after the caller, and a caller long after the workers. */
static void uneven(void *ctx, int worker) {
    Round *r = ctx;
    if ((worker == 0) == (r->work != 0)) nanosleep(&(struct timespec){0, 2000000}, NULL);
    r->hits[worker]++;
}
static void test_uneven(void **state) {
    (void)state;
    Pool *p;
    assert_null(mdr_pool_open(4, &p));
    Round r = {0};
    for (int i = 1; i <= 40; i++) {
        r.work = i % 2;
        mdr_pool_run(p, uneven, &r);
        for (int w = 0; w < 4; w++) assert_int_equal(r.hits[w], i);
    }
    mdr_pool_close(p);
}

static float half(volatile float *x) { return *x * 0.5f; }
static void denormal(void *ctx, int worker) {
    volatile float tiny = 1.1754944e-38f, in = 1e-40f;               /* the smallest normal, and a denormal input          */
    float a = half(&tiny), b = in * 1e10f;
    ((int *)ctx)[worker] = a == 0.0f && b == 0.0f;
}
static void test_denormals(void **state) {
    (void)state;
#if defined __x86_64__ || defined __aarch64__
    if (getenv("MDR_TEST_VALGRIND")) skip();         /* valgrind computes denormals whatever the register says             */
    volatile float tiny = 1.1754944e-38f;
    int flushed[3] = {0};
    Pool *p;
    assert_null(mdr_pool_open(3, &p));
    assert_true(half(&tiny) > 0);
    for (int i = 0; i < 3; i++) {
        mdr_pool_run(p, denormal, flushed);
        for (int w = 0; w < 3; w++) assert_int_equal(flushed[w], 1);
        assert_true(half(&tiny) > 0);                /* the caller has its own state back                                  */
        memset(flushed, 0, sizeof flushed);
    }
    mdr_pool_close(p);
    uint32_t outer = mdr_fp_enter(), inner = mdr_fp_enter();         /* nested                                             */
    assert_true(half(&tiny) == 0);
    mdr_fp_leave(inner);
    assert_true(half(&tiny) == 0);
    mdr_fp_leave(outer);
    assert_true(half(&tiny) > 0);
#else
    skip();
#endif
}

static void masks(void *ctx, int worker) {
    sigset_t s;
    sigemptyset(&s);
    pthread_sigmask(SIG_SETMASK, NULL, &s);
    ((int *)ctx)[worker] = sigismember(&s, SIGINT);
}
static void test_signals(void **state) {
    (void)state;
    int blocked[2] = {-1, -1};
    Pool *p;
    assert_null(mdr_pool_open(2, &p));
    mdr_pool_run(p, masks, blocked);
    assert_int_equal(blocked[0], 0);
    assert_int_equal(blocked[1], 1);
    mdr_pool_close(p);
}

static void test_refusals(void **state) {
    (void)state;
    static const int sizes[] = {0, -1, 1025};
    for (int i = 0; i < MDR_COUNT(sizes); i++) {
        Pool *p = (Pool *)&i;
        Err *e = mdr_pool_open(sizes[i], &p);
        assert_non_null(e);
        assert_null(p);
        assert_int_equal(mdr_err_code(e), MDR_USER);
        assert_non_null(strstr(mdr_err_text(e), "1..1024"));
        mdr_err_free(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds), cmocka_unit_test(test_uneven), cmocka_unit_test(test_denormals),
                                       cmocka_unit_test(test_signals), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
