/* What is put is what is got: all fields, NaN and infinities, order, prefixes, and an existing key stays as it is. */
#include "store_harness.h"

static void round_trip(void **state) {
    (void)state;
    char path[512];
    Store *s;
    must(mdr_store_open(path_of(path, sizeof path, "rows/deep/trials.db"), true, &s)); /* folders are made */
    assert_string_equal(mdr_store_path(s), path);
    for (int64_t i = 0; i < 100; i++) put_number(s, i);
    for (int64_t i = 0; i < 100; i++) must_have(s, i);
    mdr_store_close(s);
    must(mdr_store_open(path, true, &s));
    for (int64_t i = 0; i < 100; i++) must_have(s, i);
    Arena *a = mdr_arena_new();
    StoreTrial *none = (StoreTrial *)a, **list;
    int32_t n;
    must(mdr_store_get(s, a, "00", &none));
    assert_null(none);
    must(mdr_store_list(s, a, "", &n, &list));
    assert_int_equal(n, 100);
    for (int32_t i = 0; i < n; i++) assert_int_equal(list[i]->seed, i); /* oldest first                 */
    /* prefixes: each trial is under its own, and the sixteen digits divide them */
    int32_t sum = 0;
    for (int k = 0; k < 16; k++) {
        char digit[2] = {"0123456789abcdef"[k], 0};
        must(mdr_store_list(s, a, digit, &n, &list));
        for (int32_t i = 0; i < n; i++) assert_int_equal(list[i]->key[0], digit[0]);
        sum += n;
    }
    assert_int_equal(sum, 100);
    Made m;
    make_trial(&m, 42);
    must(mdr_store_list(s, a, m.key, &n, &list));
    assert_int_equal(n, 1);
    must(mdr_store_list(s, a, "%", &n, &list));
    assert_int_equal(n, 0);
    mdr_arena_free(a);
    mdr_store_close(s);
}

static void not_finite(void **state) {
    (void)state;
    char path[512];
    Store *s;
    Made m;
    StoreTrial *got;
    Arena *a = mdr_arena_new();
    double nan = (double)NAN, inf = (double)INFINITY;
    make_trial(&m, 5);
    m.t.flops = nan;
    m.t.result.seconds = inf;
    m.t.seed = INT64_MAX;
    m.epoch[0] = (EpochScore){1, 1, nan, nan, {nan, nan, nan, nan}, {nan, nan, nan, nan}};
    m.epoch[1] = (EpochScore){2, 2, inf, -inf, {5e-324, 1.7976931348623157e308, -0.0, inf}, {.1, 1. / 3, inf, nan}};
    m.t.result.status = TRIAL_DIVERGED;
    must(mdr_store_open(path_of(path, sizeof path, "nan.db"), true, &s));
    must(mdr_store_put(s, &m.t));
    mdr_store_close(s);
    must(mdr_store_open(path, false, &s));
    must(mdr_store_get(s, a, m.key, &got));
    assert_true(got && same_trial(&m.t, got));
    assert_true(isnan(got->result.epoch[0].test.acc) && isnan(got->flops) && isinf(got->result.epoch[1].train_loss));
    mdr_store_close(s);
    mdr_arena_free(a);
}

static void never_changes(void **state) {
    (void)state;
    char path[512];
    Store *s;
    Made m;
    must(mdr_store_open(path_of(path, sizeof path, "same.db"), true, &s));
    put_number(s, 7);
    put_number(s, 8);
    make_trial(&m, 7);
    m.t.result.n_epoch = 3;
    m.t.architecture = "hyena";
    m.epoch[0].test.acc = 1;
    must(mdr_store_put(s, &m.t));
    must_have(s, 7);
    must_have(s, 8);
    must_be_sound(s);
    mdr_store_close(s);
    must(mdr_store_open(path, false, &s));
    must_hold(mdr_store_put(s, &m.t), MDR_MACHINE, "is open for reading only");
    mdr_store_close(s);
    /* no time given: now */
    must(mdr_store_open(path, true, &s));
    make_trial(&m, 9);
    m.t.created = 0;
    must(mdr_store_put(s, &m.t));
    Arena *a = mdr_arena_new();
    StoreTrial *got;
    must(mdr_store_get(s, a, m.key, &got));
    assert_true(got->created > 1700000000);
    m.t.key = "abc";
    must_say(mdr_store_put(s, &m.t), MDR_MACHINE, "a trial's key has 64 digits, not 3");
    mdr_arena_free(a);
    mdr_store_close(s);
}

static void default_place(void **state) {
    (void)state;
    char dir[512], want[600], own[600];
    Text t = {0};
    path_of(dir, sizeof dir, "home");
    setenv("MADRAS_STORE", path_of(own, sizeof own, "own.db"), 1);
    setenv("XDG_STATE_HOME", dir, 1);
    setenv("HOME", "/h", 1);
    must(mdr_store_place(NULL, &t));
    assert_string_equal(mdr_text_str(&t), own);
    mdr_text_clear(&t);
    must(mdr_store_place("given.db", &t));
    assert_string_equal(mdr_text_str(&t), "given.db");
    mdr_text_clear(&t);
    setenv("MADRAS_STORE", "", 1);
    must(mdr_store_place(NULL, &t));
    snprintf(want, sizeof want, "%s/madras/trials.db", dir);
    assert_string_equal(mdr_text_str(&t), want);
    mdr_text_clear(&t);
    Store *s;
    must(mdr_store_open(NULL, true, &s));
    assert_string_equal(mdr_store_path(s), want);
    mdr_store_close(s);
    setenv("XDG_STATE_HOME", "relative", 1);
    must(mdr_store_place(NULL, &t));
    assert_string_equal(mdr_text_str(&t), "/h/.local/state/madras/trials.db");
    unsetenv("HOME");
    must_hold(mdr_store_place(NULL, &t), MDR_USER, "give --store FILE");
    mdr_text_free(&t);
    unsetenv("XDG_STATE_HOME");
    unsetenv("MADRAS_STORE");
}

static void network(void **state) {
    (void)state;
    assert_string_equal(mdr_store_network_name(0x6969, ""), "NFS");
    assert_string_equal(mdr_store_network_name(0xff534d42, ""), "CIFS");
    assert_string_equal(mdr_store_network_name(0xfe534d42, ""), "SMB2");
    assert_string_equal(mdr_store_network_name(0x65735546, "fuse.sshfs"), "sshfs");
    assert_null(mdr_store_network_name(0x65735546, "fuse.ntfs-3g"));
    assert_null(mdr_store_network_name(0x65735546, "fuseblk"));
    assert_null(mdr_store_network_name(0x65735546, ""));
    assert_null(mdr_store_network_name(0x01021997, "9p"));
    assert_null(mdr_store_network_name(0xef53, "ext4"));
    assert_null(mdr_store_network_name(0x01021994, "fuse.sshfs")); /* the number decides           */
    static const char text[] =
        "21 28 0:20 / /sys rw - sysfs sysfs rw\n36 35 0:45 / /mnt/a\\040b rw,noatime master:1 - fuse.sshfs h:/d rw\n"
        "37 35 8:1 / / rw - ext4 /dev/sda1 rw\n38 35 0:47 / /broken rw\n39 35 0:48 / /e rw - tmpfs";
    char type[64];
    mdr_store_mount_type(text, 0, 45, type);
    assert_string_equal(type, "fuse.sshfs");
    mdr_store_mount_type(text, 8, 1, type);
    assert_string_equal(type, "ext4");
    mdr_store_mount_type(text, 0, 47, type);
    assert_string_equal(type, "");
    mdr_store_mount_type(text, 0, 48, type);
    assert_string_equal(type, "tmpfs");
    mdr_store_mount_type(text, 9, 9, type);
    assert_string_equal(type, "");
    mdr_store_mount_type("", 0, 0, type);
    assert_string_equal(type, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(never_changes), cmocka_unit_test(default_place),
                                       cmocka_unit_test(network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
