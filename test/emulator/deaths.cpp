/* What must end the program, with the right words: kernels that hang, touch what is not theirs or forget to begin, each in a child. */
#include "selftest.h"
#include <initializer_list>
#include <signal.h>
#include <stdio.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

static __global__ void stuck_barrier(int *)
{
    mdr_begin();
    if (threadIdx.x < 40) __syncthreads();
    else if (threadIdx.x < 50) __syncwarp(0xffffffffu);
}
static __global__ void stuck_shuffle(int *out)
{
    mdr_begin();
    if (threadIdx.x != 5) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    else __syncthreads();
}
static __global__ void never_told(int *)
{
    mdr_begin();
    __shared__ volatile int word;
    word = 0;
    while (!word) emu_yield();
}
static __global__ void mixed_up(int *out)
{
    mdr_begin();
    out[threadIdx.x] = threadIdx.x % 2 ? (int)__ballot_sync(0xffffffffu, 1) : __any_sync(0xffffffffu, 1);
}
static __global__ void no_warp(int *)
{
    mdr_begin();
    float d[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    mma_16816(d, a, b);
}
static __global__ void crooked(int *)
{
    mdr_begin();
    MDR_SHARED(bf16, x);
    uint32_t r[4];
    ldmatrix<4, false>(r, x + threadIdx.x);
}
static __global__ void not_shared(int *out)
{
    mdr_begin();
    uint32_t r[1];
    ldmatrix<1, false>(r, out);
}
static __global__ void write_at(int *out, int64_t at)
{
    mdr_begin();
    out[at] = 1;
}
static __global__ void write_shared(int *, int64_t at)
{
    mdr_begin();
    MDR_SHARED(char, x);
    x[at] = 1;
}
#ifndef __SANITIZE_ADDRESS__
static __global__ void misaligned(int *out)
{
    mdr_begin();
    const int2 *two = (const int2 *)(out + 1 + 2 * threadIdx.x);
    out[0] = two->x + two->y;
}
#endif
static __global__ void takes_arg(Arg) {}
static __global__ void no_mask(int *out)
{
    mdr_begin();
    out[threadIdx.x] = __shfl_sync(0xfffffffeu, 1, 0);
}
static __global__ void never_begins(int *out) { (void)out; }
static __global__ void some_begin(int *out)
{
    if (threadIdx.x < 40) mdr_begin();
    if (threadIdx.x < 40) out[threadIdx.x] = 1;
}
static __global__ void begins_twice(int *)
{
    mdr_begin();
    mdr_begin();
}
#ifndef __SANITIZE_ADDRESS__
static __global__ void begins_late(int *out)
{
    int x = out[threadIdx.x];
    mdr_begin();
    out[threadIdx.x] = x + 1;
}
#endif
template <typename F> static void must_die(int line, const char *with, F run)
{
    int pipes[2];
    if (pipe(pipes)) return fail(line, "no pipe");
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        alarm(20);
        for (int x : {SIGSEGV, SIGBUS, SIGILL, SIGABRT}) signal(x, SIG_DFL);      /* not the test program's */
        emu_watch();
        run();
        _exit(0);
    }
    close(pipes[1]);
    std::string said;
    char buffer[512];
    for (ssize_t n; (n = read(pipes[0], buffer, sizeof buffer)) > 0;) said.append(buffer, (size_t)n);
    close(pipes[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail(line, "nobody noticed: %s", with);
    else if (said.find(with) == std::string::npos) fail(line, "wanted '%s', got '%.200s'", with, said.c_str());
}
#define MUST_DIE(with, kernel, threads, shared, ...)                                                                   \
    must_die(__LINE__, with, [=]() { MDR_LAUNCH(kernel, 1, threads, shared, nullptr, out __VA_OPT__(, ) __VA_ARGS__); })
static void test_deaths(void)
{
    Numbers<int> memory(100);
    int *out = memory.data;
    MUST_DIE("40 threads wait in __syncthreads (mask ffffffff) at ", stuck_barrier, 64, 0);
    MUST_DIE("31 threads wait in __shfl_xor_sync", stuck_shuffle, 32, 0);
    MUST_DIE("32 threads wait in emu_yield", never_told, 32, 0);
    MUST_DIE("meet in __", mixed_up, 32, 0);
    MUST_DIE("mma wants all 32 lanes", no_warp, 16, 0);
    MUST_DIE("not a multiple of 16", crooked, 32, 1024);
    MUST_DIE("not in shared memory", not_shared, 32, 0);
    MUST_DIE("lane 0 is not in its mask", no_mask, 32, 0);
    MUST_DIE("of an allocation of 400 bytes was written", write_at, 1, 0, 100);
    MUST_DIE("a thread ends that has not begun", never_begins, 32, 0);
    MUST_DIE("a thread ends that has not begun", some_begin, 64, 0);
    MUST_DIE("a thread begins twice", begins_twice, 32, 0);
    int here = 0;
    int *host = &here;
    must_die(__LINE__, "which is not the device's", [=]() { MDR_LAUNCH(no_mask, 1, 32, 0, nullptr, host); });
    const Arg arg = {&here, 0, 0, 0, 4};
    must_die(__LINE__, "which is not the device's", [=]() { MDR_LAUNCH(takes_arg, 1, 32, 0, nullptr, arg); });
    MUST_DIE("of 1000 bytes of dynamic shared memory was written", write_shared, 1, 1000, 1000);
#ifndef __SANITIZE_ADDRESS__
    MUST_DIE("of an allocation of 400 bytes before mdr_begin", begins_late, 1, 0);
    MUST_DIE("not a multiple of its type's size", misaligned, 1, 0);
    MUST_DIE("access to byte 512 of an allocation of 400 bytes", write_at, 1, 0, 128);
    must_die(__LINE__, "the host touches memory of the device, byte 4 of an allocation of 400 bytes", [=]() { *(volatile int *)(out + 1) = 1; });
    MUST_DIE("in kernel write_at launched at", write_at, 1, 0, 128);
    MUST_DIE("access to byte 1024 of 1000 bytes of dynamic shared memory", write_shared, 1, 1000, 1024);
#endif
}
/* In a child: a device that failed stays so. */
static void test_failing_device(void)
{
    must_die(__LINE__, "as it should", []() {
        Numbers<float> x(100);
        MDR_LAUNCH(add, 1, 32, 0, nullptr, x.data, 1.0f, 32);
        bool good = cudaGetLastError() == cudaSuccess;
        setenv("MDR_EMU_FAIL_AFTER", std::to_string(emu_launches() + 2).c_str(), 1);
        MDR_LAUNCH(add, 1, 32, 0, nullptr, x.data, 1.0f, 32);
        good = good && cudaGetLastError() == cudaSuccess;
        MDR_LAUNCH(add, 1, 32, 0, nullptr, x.data, 1.0f, 32);
        void *p;
        float host;
        for (int i = 0; i < 2; i++) good = good && cudaGetLastError() == cudaErrorLaunchFailure;
        good = good && cudaMalloc(&p, 16) == cudaErrorLaunchFailure && !p && cudaDeviceSynchronize() == cudaErrorLaunchFailure;
        good = good && cudaMemcpy(&host, x.data, 4, cudaMemcpyDeviceToHost) == cudaErrorLaunchFailure;
        fprintf(stderr, good ? "as it should" : "otherwise");
        _exit(1);
    });
}

void emu_test_deaths(void)
{
    test_deaths();
    test_failing_device();
}
