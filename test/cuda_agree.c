/* The GPU's kernels, run on this processor by test/emulator: every op's cases, every primitive and both backbones agree with the double
 * reference in float32 and bf16, value and gradient, and a member alone has the bits it has among others. */
#include "model/agree.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

typedef struct Tally { int rows, cases, failed; } Tally;
static void each(void *ctx, const Agreement *a)
{
    Tally *t = ctx;
    t->rows++;
    t->cases += a->cases;
    if (!a->why[0]) return;
    print_message("  %s %s: %s\n", a->kind, a->name, a->why);
    t->failed++;
}

static void agree(const DeviceDef *device)
{
    Accel *accel = NULL;
    Tally t = {0};
    Err *e = mdr_accel_open(0, &accel);
    if (!e) e = mdr_model_agree(device, accel, each, &t);
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
    mdr_accel_close(accel);
    print_message("%d rows, %d cases\n", t.rows, t.cases);
    assert_true(t.rows > 30 && t.cases > 100);
    assert_int_equal(t.failed, 0);
}
static void float32(void **state) { (void)state, agree(&mdr_exec_cuda); }
static void bf16(void **state) { (void)state, agree(&mdr_exec_cuda_bf16); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(float32), cmocka_unit_test(bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
