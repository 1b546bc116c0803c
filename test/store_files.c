/* Files that are no store, or no sound one, each refused in one sentence and left as they are; full disks; reading
 * only. */
#include "store_harness.h"

static void refused(const char *path, bool create, ErrCode code, const char *part) {
    Store *s = (Store *)1;
    must_hold(mdr_store_open(path, create, &s), code, part);
    assert_null(s);
}
static void make_store(const char *path, int64_t n) {
    Store *s;
    remove_store(path);
    must(mdr_store_open(path, true, &s));
    for (int64_t i = 0; i < n; i++) put_number(s, i);
    mdr_store_close(s);
}
static void run_sql(const char *path, const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void foreign(void **state) {
    (void)state;
    char path[512], *text;
    size_t n;
    write_text(path_of(path, sizeof path, "text.db"),
               "This is a text that somebody may still need, long enough to be looked at as a database header......\n");
    for (int create = 0; create < 2; create++) refused(path, create, MDR_USER, "text.db: is not a store of trials");
    must(mdr_file_read(path, 1000, &text, &n));
    assert_true(n == 100 && strncmp(text, "This is", 7) == 0);
    mdr_free(text);
    path_of(path, sizeof path, "foreign.db");
    run_sql(path, "CREATE TABLE a(b); INSERT INTO a VALUES(3)");
    for (int create = 0; create < 2; create++)
        refused(path, create, MDR_USER, "foreign.db: is a database, but not a store of trials");
    run_sql(path, "PRAGMA application_id=77");
    refused(path, true, MDR_USER, "is a database, but not a store of trials");
    path_of(path, sizeof path, "newer.db");
    make_store(path, 3);
    run_sql(path, "PRAGMA user_version=3");
    for (int create = 0; create < 2; create++)
        refused(path, create, MDR_USER, "newer.db: was made by a newer madras (format 3; this one reads 2)");
    run_sql(path, "PRAGMA user_version=1");
    for (int create = 0; create < 2; create++)
        refused(path, create, MDR_USER, "newer.db: was made by an older madras (format 1; this one reads 2)");
    run_sql(path, "PRAGMA user_version=0");
    refused(path, true, MDR_MACHINE, "newer.db: is damaged (format 0)");
    refused(test_dir(), true, MDR_USER, "is not a file");
    refused("/dev/null", true, MDR_USER, "is not a file");
    path_of(path, sizeof path, "absent.db");
    refused(path, false, MDR_USER, "absent.db: there is no store yet: madras bench makes it");
    assert_int_equal(access(path, F_OK), -1);
    refused("/proc/madras/x.db", true, MDR_USER, "/proc/madras/x.db: the folder /proc/madras cannot be made");
    write_text(path_of(path, sizeof path, "empty.db"), "");
    refused(path, false, MDR_USER, "empty.db: is empty");
    Store *s;
    must(mdr_store_open(path, true, &s)); /* what a writer leaves that died at the very beginning               */
    put_number(s, 1);
    mdr_store_close(s);
}

/* Cut anywhere, or a page overwritten: opening or reading says so, nothing crashes and nothing wrong is handed out. */
static void truncated(void **state) {
    (void)state;
    char path[512], whole[512], *text;
    size_t n;
    path_of(path, sizeof path, "cut.db");
    make_store(path_of(whole, sizeof whole, "whole.db"), 60);
    must(mdr_file_read(whole, 1 << 24, &text, &n));
    Rng r = mdr_rng(20240319, 0);
    for (int i = 0; i < 60; i++) {
        size_t keep = i < 20 ? (size_t)(1 + i * 37) : 1 + mdr_rng_below(&r, (uint32_t)n - 1);
        remove_store(path);
        must(mdr_file_write_atomic(path, text, keep));
        Store *s;
        Err *e = mdr_store_open(path, i % 2, &s);
        if (!e) fail_msg("a store cut to %zu of %zu bytes was opened", keep, n);
        if (!strstr(mdr_err_text(e), "is damaged") && !strstr(mdr_err_text(e), "is not a store"))
            fail_msg("%s", mdr_err_text(e));
        mdr_err_free(e);
    }
    int noticed = 0;
    for (int i = 0; i < 60; i++) {
        char *bad = mdr_alloc(n);
        memcpy(bad, text, n);
        size_t from = mdr_rng_below(&r, (uint32_t)n), len = 1 + mdr_rng_below(&r, 4096);
        for (size_t k = from; k < from + len && k < n; k++) bad[k] = (char)mdr_rng_u32(&r);
        remove_store(path);
        must(mdr_file_write_atomic(path, bad, n));
        mdr_free(bad);
        Store *s;
        Err *e = mdr_store_open(path, false, &s);
        Arena *a = mdr_arena_new();
        if (!e) {
            int32_t count;
            StoreTrial **list;
            e = mdr_store_list(s, a, "", &count, &list);
            mdr_store_close(s);
        }
        noticed += e != NULL;
        mdr_err_free(e);
        mdr_arena_free(a);
    }
    assert_true(noticed > 30); /* a changed number in a row cannot be seen                           */
    mdr_free(text);
    path_of(path, sizeof path, "lost.db");
    make_store(path, 30);
    run_sql(path, "DELETE FROM epoch WHERE trial=6 AND n=2");
    Store *s;
    Arena *a = mdr_arena_new();
    StoreTrial *got;
    Made m;
    make_trial(&m, 5);
    must(mdr_store_open(path, false, &s));
    must_hold(mdr_store_get(s, a, m.key, &got), MDR_MACHINE, "is incomplete");
    assert_null(got);
    must_have(s, 6); /* the others are still there                                         */
    mdr_store_close(s);
    mdr_arena_free(a);
}

/* Full by SQLite's own limit; then by the kernel's on the size of files. */
static void full(void **state) {
    (void)state;
    char path[512];
    Store *s;
    Made m;
    Err *e = NULL;
    path_of(path, sizeof path, "full.db");
    make_store(path, 10);
    must(mdr_store_open(path, true, &s));
    must(mdr_store_exec(s->db, path, "PRAGMA max_page_count=20"));
    int64_t i = 10;
    for (; !e && i < 1000; i++) {
        make_trial(&m, i);
        e = mdr_store_put(s, &m.t);
    }
    must_hold(e, MDR_MACHINE, "full.db: the disk is full: the last trial was not stored, all before it are safe");
    for (int64_t k = 0; k < i - 1; k++) must_have(s, k);
    must(mdr_store_exec(s->db, path, "PRAGMA max_page_count=1000000"));
    for (int64_t k = i - 1; k < i + 20; k++) put_number(s, k); /* room again: it goes on                        */
    for (int64_t k = 0; k < i + 20; k++) must_have(s, k);
    must_be_sound(s);
    mdr_store_close(s);
}

static void no_room(void **state) {
    (void)state;
    char path[512];
    int pipe_of[2];
    path_of(path, sizeof path, "noroom.db");
    make_store(path, 1);
    assert_int_equal(pipe(pipe_of), 0);
    pid_t child = fork();
    if (child == 0) {
        Store *s;
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {300000, 300000};
        Err *e = mdr_store_open(path, true, &s);
        setrlimit(RLIMIT_FSIZE, &limit);
        int64_t i = 1;
        for (; !e && i < 5000; i++) {
            Made m;
            make_trial(&m, i);
            e = mdr_store_put(s, &m.t);
        }
        int64_t said[2] = {i - 1, e ? (int64_t)mdr_err_code(e) : 0};
        if (e && !strstr(mdr_err_text(e), "all before it are safe")) said[1] = -1;
        if (write(pipe_of[1], said, sizeof said) != sizeof said) _exit(9);
        _exit(0);
    }
    int64_t said[2] = {0, 0};
    assert_int_equal(read(pipe_of[0], said, sizeof said), sizeof said);
    int status;
    waitpid(child, &status, 0);
    close(pipe_of[0]), close(pipe_of[1]);
    assert_int_equal(said[1], MDR_MACHINE);
    assert_true(said[0] > 10 && said[0] < 4999);
    Store *s;
    must(mdr_store_open(path, true, &s));
    for (int64_t k = 0; k < said[0]; k++) must_have(s, k);
    put_number(s, said[0]);
    must_have(s, said[0]);
    must_be_sound(s);
    mdr_store_close(s);
}

/* In a child that is not root, where the folder and the file may only be read. */
static int read_as_other(const char *path) {
    Store *s;
    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 77;
    if (access(path, W_OK) == 0) return 77;
    Err *e = mdr_store_open(path, true, &s);
    if (!e || mdr_err_code(e) != MDR_USER || !strstr(mdr_err_text(e), "cannot be written to")) return 2;
    e = mdr_store_open(path, false, &s);
    if (e) return 3;
    Arena *a = mdr_arena_new();
    int32_t n;
    StoreTrial **list;
    e = mdr_store_list(s, a, "", &n, &list);
    if (e || n != 25) return 4;
    mdr_store_close(s);
    return 0;
}
static void reading_only(void **state) {
    (void)state;
    char dir[] = "/tmp/madras-ro-XXXXXX", path[64], secret[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/t.db", dir);
    snprintf(secret, sizeof secret, "%s/s?#%%.db", dir); /* signs that a URI would take for its own                */
    make_store(path, 25);
    make_store(secret, 25);
    chmod(path, 0444), chmod(secret, 0444), chmod(dir, 0555);
    int code[2];
    for (int k = 0; k < 2; k++) {
        pid_t child = fork();
        if (child == 0) _exit(read_as_other(k ? secret : path));
        int status;
        waitpid(child, &status, 0);
        code[k] = WIFEXITED(status) ? WEXITSTATUS(status) : 99;
    }
    /* a store that may not even be read */
    chmod(path, 0);
    pid_t child = fork();
    if (child == 0) {
        Store *s;
        if (getuid() == 0 && setuid(65534) != 0) _exit(77);
        Err *e = mdr_store_open(path, false, &s);
        _exit(e && mdr_err_code(e) == MDR_USER && strstr(mdr_err_text(e), "cannot be opened: Permission denied") ? 0
                                                                                                                 : 6);
    }
    int status;
    waitpid(child, &status, 0);
    chmod(dir, 0755);
    remove_store(path), remove_store(secret);
    rmdir(dir);
    if (code[0] == 77) skip();
    assert_int_equal(code[0], 0);
    assert_int_equal(code[1], 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(foreign), cmocka_unit_test(truncated), cmocka_unit_test(full),
                                       cmocka_unit_test(no_room), cmocka_unit_test(reading_only)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
