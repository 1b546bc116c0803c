/* What this machine offers: CPUs by affinity and by the container's quota, and the class of its instructions. */
#include "base/machine.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One line of a small file, without its end; NULL if there is none. */
static char *first_line(const char *path) {
    char *s;
    size_t n;
    Err *e = mdr_file_read(path, 4096, &s, &n);
    if (e) {
        mdr_err_free(e);
        return NULL;
    }
    s[strcspn(s, "\n")] = 0;
    return s;
}

static double quota_v2(const char *dir) {
    Text path = {0};
    mdr_text_printf(&path, "%s/cpu.max", dir);
    char *s = first_line(mdr_text_str(&path));
    mdr_text_free(&path);
    int64_t quota = 0, period = 100000;              /* "max 100000" or "150000 100000"                                   */
    if (s) {
        char *gap = strchr(s, ' ');
        if (gap) *gap = 0;
        if (!mdr_text_to_int(s, &quota)) quota = 0;
        if (gap && !mdr_text_to_int(gap + 1, &period)) period = 0;
    }
    mdr_free(s);
    return quota > 0 && period > 0 ? (double)quota / (double)period : 0;
}

static double quota_v1(const char *dir) {
    Text path = {0};
    int64_t v[2] = {0, 0};
    static const char *const name[2] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    for (int i = 0; i < 2; i++) {
        mdr_text_clear(&path);
        mdr_text_printf(&path, "%s/%s", dir, name[i]);
        char *s = first_line(mdr_text_str(&path));
        if (!s || !mdr_text_to_int(s, &v[i])) v[i] = 0;
        mdr_free(s);
    }
    mdr_text_free(&path);
    return v[0] > 0 && v[1] > 0 ? (double)v[0] / (double)v[1] : 0;   /* -1: no limit                                       */
}

/* The tightest limit from root/group up to root itself: in a container the path may not exist, its root then counts. */
static double tightest(const char *root, const char *group, double (*quota)(const char *)) {
    Text dir = {0};
    mdr_text_printf(&dir, "%s%s", root, group);
    size_t keep = strlen(root);
    double least = 0;
    for (;;) {
        double q = quota(mdr_text_str(&dir));
        if (q > 0 && (least == 0 || q < least)) least = q;
        if (dir.n <= keep) break;
        while (dir.n > keep && dir.s[dir.n - 1] != '/') dir.s[--dir.n] = 0;
        if (dir.n > keep) dir.s[--dir.n] = 0;        /* the slash                                                         */
    }
    mdr_text_free(&dir);
    return least;
}

/* Is `cpu` one of "cpuset", "cpu,cpuacct", ...? */
static bool has_cpu(const char *list) {
    while (*list) {
        size_t n = strcspn(list, ",");
        if (n == 3 && memcmp(list, "cpu", 3) == 0) return true;
        list += n + (list[n] == ',');
    }
    return false;
}

double mdr_machine_quota(const char *self, const char *root) {
    char *s;
    size_t n;
    Err *e = mdr_file_read(self, 1 << 16, &s, &n);
    if (e) {
        mdr_err_free(e);
        return 0;
    }
    double least = 0;
    Text base = {0};
    for (char *line = s, *next; line; line = next) { /* "0::/path" (2) or "4:cpu,cpuacct:/path" (1)                        */
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        double q = 0;
        mdr_text_clear(&base);
        if (list[1] == 0) {
            q = tightest(root, group, quota_v2);
        } else if (has_cpu(list + 1)) {
            mdr_text_printf(&base, "%s/%s", root, list + 1);
            q = tightest(mdr_text_str(&base), group, quota_v1);
            if (q == 0) {                            /* usually also mounted as .../cpu                                    */
                mdr_text_clear(&base);
                mdr_text_printf(&base, "%s/cpu", root);
                q = tightest(mdr_text_str(&base), group, quota_v1);
            }
        }
        if (q > 0 && (least == 0 || q < least)) least = q;
    }
    mdr_text_free(&base);
    mdr_free(s);
    return least;
}

static int by_affinity(void) {
#ifdef __linux__
    for (int n = 1024; n <= 1 << 16; n *= 4) {       /* the kernel refuses a set smaller than its own                      */
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set) break;
        size_t size = CPU_ALLOC_SIZE((size_t)n);
        int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < 1 << 16 ? (int)n : 1;
}

/* A quota of 2.5 CPUs counts as 2: a third worker would be throttled, and all wait for the last. */
int mdr_cpu_count(void) {
    int n = by_affinity();
    double q = mdr_machine_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    if (q > 0 && q < n) n = q < 1 ? 1 : (int)q;
    return n;
}

bool mdr_cpu_avx2(void) {
#if defined __x86_64__
    const char *wish = getenv("MADRAS_CLASS");
    if (wish && strcmp(wish, "plain") == 0) return false;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");   /* asks CPUID and, by XGETBV, the system      */
#else
    return false;
#endif
}

const char *mdr_cpu_class(void) { return mdr_cpu_avx2() ? "avx2-fma" : "plain"; }
