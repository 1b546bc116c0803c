/* Files read whole and replaced atomically; a writer killed or out of room leaves the old file. */
#include "base/base.h"
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[500];

static const char *at(const char *name) {
    static char path[800];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int setup(void **state) {
    (void)state;
    const char *root = getenv("MDR_TEST_DIR");
    snprintf(dir, sizeof dir, "%s/base_file.XXXXXX", root ? root : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int entries(void) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *x; (x = readdir(d));) n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

static int teardown(void **state) {
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *x; (x = readdir(d));)
        if (strcmp(x->d_name, ".") && strcmp(x->d_name, "..")) remove(at(x->d_name));
    closedir(d);
    return rmdir(dir);
}

static void expect(const char *name, const char *want, size_t n) {
    char *s;
    size_t got;
    Err *e = mdr_file_read(at(name), 1 << 24, &s, &got);
    if (e) fail_msg("%s", mdr_err_text(e));
    assert_int_equal(got, n);
    assert_memory_equal(s, want, n);
    assert_int_equal(s[n], 0);
    mdr_free(s);
}

static void test_round_trip(void **state) {
    (void)state;
    assert_null(mdr_file_write_atomic(at("a"), "one\0two", 7));
    expect("a", "one\0two", 7);
    assert_null(mdr_file_write_atomic(at("a"), "", 0));
    expect("a", "", 0);
    char *big = mdr_alloc(1000000);
    memset(big, 'z', 1000000);
    assert_null(mdr_file_write_atomic(at("a"), big, 1000000));
    expect("a", big, 1000000);
    mdr_free(big);
    assert_int_equal(entries(), 1);                  /* no scratch file stays                                              */
    assert_int_equal(chmod(at("a"), 0640), 0);
    assert_null(mdr_file_write_atomic(at("a"), "x", 1));
    struct stat st;
    assert_int_equal(stat(at("a"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);      /* rights are kept                                                    */
    char here[600];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(dir), 0);                 /* a name without a folder                                            */
    assert_null(mdr_file_write_atomic("b", "y", 1));
    assert_int_equal(chdir(here), 0);
    expect("b", "y", 1);
    remove(at("b"));
}

static void refuse_read(const char *path, size_t max, const char *part) {
    char *s = (char *)&s;
    size_t n = 1;
    Err *e = mdr_file_read(path, max, &s, &n);
    assert_non_null(e);
    assert_null(s);
    assert_int_equal(n, 0);
    assert_non_null(strstr(mdr_err_text(e), part));
    assert_memory_equal(mdr_err_text(e), path, strlen(path));
    mdr_err_free(e);
}

static void test_refusals(void **state) {
    (void)state;
    refuse_read("/nowhere/at/all", 100, "No such file");
    refuse_read(dir, 100, "is a folder");
    assert_null(mdr_file_write_atomic(at("a"), "12345", 5));
    refuse_read(at("a"), 4, "is larger than 4 bytes");
    char *s;
    size_t n;
    assert_null(mdr_file_read(at("a"), 5, &s, &n));
    mdr_free(s);
    Err *e = mdr_file_write_atomic("/nowhere/at/all", "x", 1);
    assert_int_equal(mdr_err_code(e), MDR_MACHINE);
    mdr_err_free(e);
    e = mdr_file_write_atomic(dir, "x", 1);          /* a folder cannot be replaced by a file                              */
    assert_non_null(e);
    mdr_err_free(e);
    assert_int_equal(entries(), 1);
}

/* Invariant 3: a limit on the size of files stands for a full disk. */
static void test_full(void **state) {
    (void)state;
    assert_null(mdr_file_write_atomic(at("a"), "old", 3));
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit lim = {1000, 1000};
        signal(SIGXFSZ, SIG_IGN);
        char big[5000] = {0};
        if (setrlimit(RLIMIT_FSIZE, &lim) != 0) _exit(2);
        Err *e = mdr_file_write_atomic(at("a"), big, sizeof big);
        bool said = e && strstr(mdr_err_text(e), strerror(EFBIG));
        mdr_err_free(e);
        _exit(said ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    expect("a", "old", 3);
    assert_int_equal(entries(), 1);
}

/* Invariant 1: a writer that is killed at any moment leaves one of the two texts, whole. */
static void test_killed(void **state) {
    (void)state;
    enum { N = 300000 };
    char *text[2];
    for (int i = 0; i < 2; i++) memset(text[i] = mdr_alloc(N), 'a' + i, N);
    assert_null(mdr_file_write_atomic(at("k"), text[0], N));
    for (int round = 0; round < 15; round++) {
        pid_t pid = fork();
        if (pid == 0)
            for (int i = 0;; i++) mdr_err_free(mdr_file_write_atomic(at("k"), text[i % 2], N));
        usleep(1000u + (unsigned)round * 700u);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        char *s;
        size_t n;
        assert_null(mdr_file_read(at("k"), N, &s, &n));
        assert_int_equal(n, N);
        assert_memory_equal(s, text[s[0] - 'a' == 1], N);
        mdr_free(s);
    }
    for (int i = 0; i < 2; i++) mdr_free(text[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_full, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_killed, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
