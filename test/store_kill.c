/* A writer killed at random moments: every trial it acknowledged is there, whole, and the file is sound. And several
 * writers at once: nothing is lost, nothing is doubled. */
#include "store_harness.h"
#include <time.h>

enum { SEED = 20240320, KILLS = 90, WRITERS = 4, EACH = 60 };

/* Puts trials from `from` on, and acknowledges each on fd. Never returns. */
static void write_on(const char *path, int64_t from, int fd) {
    Store *s;
    if (mdr_store_open(path, true, &s)) _exit(3);
    for (int64_t i = from;; i++) {
        Made m;
        make_trial(&m, i);
        if (mdr_store_put(s, &m.t)) _exit(4);
        if (write(fd, &i, sizeof i) != sizeof i) _exit(5);
    }
}

static void killed(void **state) {
    (void)state;
    char path[512];
    int64_t acknowledged = 0, next = 0;
    Rng r = mdr_rng(SEED, 0);
    remove_store(path_of(path, sizeof path, "kill.db"));
    for (int k = 0; k < KILLS; k++) {
        int fd[2];
        if (k % 30 == 0) remove_store(path), next = 0; /* also while it is being made                   */
        assert_int_equal(pipe(fd), 0);
        pid_t child = fork();
        if (child == 0) write_on(path, next, fd[1]);
        close(fd[1]);
        int64_t i;
        if (k % 30 >= 8) /* once it is at work, however slow the machine                       */
            for (uint32_t m = mdr_rng_below(&r, 12); m > 0 && read(fd[0], &i, sizeof i) == sizeof i; m--) {
                assert_int_equal(i, next);
                next = i + 1;
                acknowledged++;
            }
        nanosleep(&(struct timespec){0, (long)mdr_rng_below(&r, k % 30 < 8 ? 12000000 : 3000000)}, NULL);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status)); /* it did not fail by itself                                          */
        while (read(fd[0], &i, sizeof i) == sizeof i) {
            assert_int_equal(i, next);
            next = i + 1;
            acknowledged++;
        }
        close(fd[0]);
        Store *s;
        Arena *a = mdr_arena_new();
        StoreTrial **list;
        int32_t n;
        must(mdr_store_open(path, true, &s));
        must_be_sound(s);
        must(mdr_store_list(s, a, "", &n, &list));
        /* one more may be on the disk: killed between commit and acknowledgement */
        if (n != next && n != next + 1) fail_msg("%d trials, %lld acknowledged", n, (long long)next);
        for (int64_t j = k % 10 == 9 ? 0 : next > 20 ? next - 20 : 0; j < n; j++) must_have(s, j);
        next = n;
        mdr_arena_free(a);
        mdr_store_close(s);
    }
    print_message("seed %d: %d kills, %lld trials acknowledged, none lost\n", (int)SEED, (int)KILLS,
                  (long long)acknowledged);
    assert_true(acknowledged > KILLS);
}

/* All open a store that is not there yet, and their trials overlap by half. */
static void together(void **state) {
    (void)state;
    char path[512];
    pid_t child[WRITERS];
    remove_store(path_of(path, sizeof path, "together.db"));
    for (int w = 0; w < WRITERS; w++) {
        child[w] = fork();
        if (child[w] != 0) continue;
        Store *s;
        Err *e = mdr_store_open(path, true, &s);
        if (e) print_error("%s\n", mdr_err_text(e)), _exit(3);
        for (int64_t i = w * EACH / 2; i < w * EACH / 2 + EACH; i++) {
            Made m;
            make_trial(&m, i);
            if (mdr_store_put(s, &m.t)) _exit(4);
        }
        mdr_store_close(s);
        _exit(0);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status;
        waitpid(child[w], &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    Store *s;
    Arena *a = mdr_arena_new();
    StoreTrial **list;
    int32_t n, want = (WRITERS - 1) * EACH / 2 + EACH;
    must(mdr_store_open(path, false, &s));
    must(mdr_store_list(s, a, "", &n, &list));
    assert_int_equal(n, want);
    for (int64_t i = 0; i < want; i++) must_have(s, i);
    must_be_sound(s);
    mdr_store_close(s);
    mdr_arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed), cmocka_unit_test(together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
