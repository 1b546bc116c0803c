/* Arenas, small and big memory, the handler for its end. */
#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void test_arena(void **state) {
    (void)state;
    Arena *a = mdr_arena_new();
    enum { N = 2000 };
    unsigned char *piece[N];
    size_t size[N];
    for (int i = 0; i < N; i++) {                    /* pieces are zero, aligned, and do not overlap                       */
        size[i] = (size_t)(i % 7 == 0 ? i * 13 : i % 50);
        piece[i] = mdr_arena_alloc(a, size[i]);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 16, 0);
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(piece[i][k], 0);
        memset(piece[i], i % 251 + 1, size[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(piece[i][k], i % 251 + 1);
    char *big = mdr_arena_alloc(a, (size_t)3 << 20);
    big[((size_t)3 << 20) - 1] = 1;
    assert_string_equal(mdr_arena_strdup(a, "hyena"), "hyena");
    assert_string_equal(mdr_arena_strdup(a, ""), "");
    assert_string_equal(mdr_arena_printf(a, "%s-%d", "layer", 3), "layer-3");
    int v[3] = {1, 2, 3};
    assert_memory_equal(mdr_arena_copy(a, v, sizeof v), v, sizeof v);
    mdr_arena_free(a);
    mdr_arena_free(NULL);
}

static void test_small(void **state) {
    (void)state;
    unsigned char *p = mdr_alloc(100);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
    p[99] = 7;
    p = mdr_realloc(p, 5000);
    assert_int_equal(p[99], 7);
    mdr_free(p);
    mdr_free(NULL);
    void *none = mdr_alloc(0);
    assert_non_null(none);
    mdr_free(none);
    char *s = mdr_strdup("swiglu");
    assert_string_equal(s, "swiglu");
    mdr_free(s);
}

static void test_big(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4096, 100000, (size_t)1 << 21, ((size_t)5 << 20) + 3};
    for (int i = 0; i < MDR_COUNT(sizes); i++) {
        void *p = NULL;
        assert_null(mdr_alloc_big(sizes[i], &p));
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        if (sizes[i]) {
            ((char *)p)[0] = 1;
            ((char *)p)[sizes[i] - 1] = 2;
        }
        mdr_free_big(p);
    }
    mdr_free_big(NULL);
}

static void test_big_refused(void **state) {
    (void)state;
    void *p = &p;
    Err *e = mdr_alloc_big(SIZE_MAX / 4, &p);
    assert_non_null(e);
    assert_null(p);
    assert_int_equal(mdr_err_code(e), MDR_MACHINE);
    assert_non_null(strstr(mdr_err_text(e), "not enough memory"));
    mdr_err_free(e);
    e = mdr_alloc_big(SIZE_MAX, &p);
    assert_non_null(e);
    mdr_err_free(e);
}

static void handler(size_t bytes) { _exit(bytes == (size_t)1 << 40 ? 77 : 78); }

/* A child whose address space is small asks for a TiB: with the handler 77, without it the exit code of the machine. */
static int child(void (*f)(size_t)) {
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit lim = {(rlim_t)1 << 30, (rlim_t)1 << 30};
        if (freopen("/dev/null", "w", stderr) == NULL || setrlimit(RLIMIT_AS, &lim) != 0) _exit(79);
        if (f) mdr_set_oom_handler(f);
        mdr_alloc((size_t)1 << 40);
        _exit(80);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
static void test_oom(void **state) {
    (void)state;
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip();                                          /* the sanitizers' allocators end the process themselves              */
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    if (getenv("MDR_TEST_VALGRIND")) skip();
    assert_int_equal(child(handler), 77);
    assert_int_equal(child(NULL), MDR_MACHINE);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_arena), cmocka_unit_test(test_small), cmocka_unit_test(test_big),
                                       cmocka_unit_test(test_big_refused), cmocka_unit_test(test_oom)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
