/* Clock, CPUs, the container's quota from made-up trees, the class of instructions. */
#include "base/machine.h"
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static char root[400];
static int setup(void **state) {
    (void)state;
    const char *dir = getenv("MDR_TEST_DIR");
    snprintf(root, sizeof root, "%s/base_machine.XXXXXX", dir ? dir : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}
static int teardown(void **state) {
    (void)state;
    char cmd[500];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
    return system(cmd);
}

static void put(const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0777);
        *p = '/';
    }
    Err *e = mdr_file_write_atomic(path, text, strlen(text));
    if (e) fail_msg("%s", mdr_err_text(e));
}
static double quota(const char *cgroup) {
    char self[500];
    snprintf(self, sizeof self, "%s/self", root);
    put("self", cgroup);
    return mdr_machine_quota(self, root);
}

static void test_v2(void **state) {
    (void)state;
    assert_true(mdr_machine_quota("/nowhere", root) == 0);
    assert_true(quota("0::/a/b\n") == 0);                            /* nothing there                                      */
    put("a/b/cpu.max", "max 100000\n");
    assert_true(quota("0::/a/b\n") == 0);
    put("a/b/cpu.max", "400000 100000\n");
    assert_true(quota("0::/a/b\n") == 4);
    put("a/cpu.max", "150000 100000\n");                             /* the level above is tighter                         */
    assert_true(quota("0::/a/b\n") == 1.5);
    put("cpu.max", "100000 200000\n");
    assert_true(quota("0::/a/b\n") == 0.5);
    assert_true(quota("0::/gone/in/a/container\n") == 0.5);          /* the root counts                                    */
    put("cpu.max", "nonsense\n");
    assert_true(quota("0::/\n") == 0);
    put("cpu.max", "100000 0\n");
    assert_true(quota("0::/\n") == 0);
    assert_true(quota("garbage\n\n::\n0:\n") == 0);
}

static void test_v1(void **state) {
    (void)state;
    const char *self = "5:cpuset:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/x\n";
    assert_true(quota(self) == 0);
    put("cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    assert_true(quota(self) == 0);
    put("cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n");
    assert_true(quota(self) == 2.5);
    put("cpu/cpu.cfs_quota_us", "300000\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    assert_true(quota("4:cpuacct,cpu:/y\n") == 3);                   /* found through the link .../cpu                     */
    assert_true(quota("4:cpuset:/y\n") == 0);
}

static void test_count(void **state) {
    (void)state;
    int n = mdr_cpu_count();
    assert_true(n >= 1 && n <= 1 << 16);
    pid_t pid = fork();
    if (pid == 0) {                                  /* bound to one CPU, one is counted                                   */
        cpu_set_t set, one;
        CPU_ZERO(&one);
        if (sched_getaffinity(0, sizeof set, &set) != 0) _exit(3);
        for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
            if (CPU_ISSET(i, &set)) CPU_SET(i, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0) _exit(3);
        _exit(mdr_cpu_count() == 1 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_class(void **state) {
    (void)state;
    unsetenv("MADRAS_CLASS");
    assert_string_equal(mdr_cpu_class(), mdr_cpu_avx2() ? "avx2-fma" : "plain");
    FILE *f = fopen("/proc/cpuinfo", "r");           /* the kernel's own opinion                                           */
    assert_non_null(f);
    char line[8192];
    bool seen = false;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "flags", 5) == 0 && strstr(line, " avx2 ") && strstr(line, " fma ")) seen = true;
    fclose(f);
    assert_int_equal(mdr_cpu_avx2(), seen);
    setenv("MADRAS_CLASS", "plain", 1);
    assert_false(mdr_cpu_avx2());
    assert_string_equal(mdr_cpu_class(), "plain");
    unsetenv("MADRAS_CLASS");
}

static void test_clock(void **state) {
    (void)state;
    double last = mdr_clock();
    for (int i = 0; i < 10000; i++) {
        double now = mdr_clock();
        assert_true(now >= last);
        last = now;
    }
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    double slept = mdr_clock() - last;
    assert_true(slept >= 0.019 && slept < 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_v2, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_v1, setup, teardown), cmocka_unit_test(test_count),
                                       cmocka_unit_test(test_class), cmocka_unit_test(test_clock)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
