/* What tests of study, store and report share: settling by a few words, results made by hand. */
#ifndef MDR_STUDY_HARNESS_H
#define MDR_STUDY_HARNESS_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>
#include "study/study.h"

static inline void must(Err *e) {
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}
static inline void must_say(Err *e, ErrCode code, const char *sentence) {
    if (!e) fail_msg("accepted, not refused with: %s", sentence);
    assert_string_equal(mdr_err_text(e), sentence);
    assert_int_equal(mdr_err_code(e), code);
    mdr_err_free(e);
}
static inline void must_hold(Err *e, ErrCode code, const char *part) {
    if (!e) fail_msg("accepted, not refused with: %s", part);
    if (!strstr(mdr_err_text(e), part)) fail_msg("`%s` is not in: %s", part, mdr_err_text(e));
    assert_int_equal(mdr_err_code(e), code);
    mdr_err_free(e);
}
/* A fresh folder of this program: the test runner's, or one under /tmp. */
static inline const char *test_dir(void) {
    static char made[64];
    const char *given = getenv("MDR_TEST_DIR");
    if (given && given[0]) return given;
    if (!made[0]) {
        strcpy(made, "/tmp/madras-test-XXXXXX");
        assert_non_null(mkdtemp(made));
    }
    return made;
}
static inline char *path_of(char *buf, size_t n, const char *name) {
    snprintf(buf, n, "%s/%s", test_dir(), name);
    return buf;
}
static inline void write_text(const char *path, const char *text) {
    must(mdr_file_write_atomic(path, text, strlen(text)));
}
#endif
