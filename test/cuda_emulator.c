/* The emulated GPU that tests of CUDA kernels stand on: its own checks (test/emulator/selftest.cpp). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

int emu_selftest(char *message, int size);

static void test_emulator(void **state)
{
    (void)state;
    char message[512];
    const int failures = emu_selftest(message, (int)sizeof message);
    if (failures) fail_msg("%d failures, the first: %s", failures, message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulator)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
