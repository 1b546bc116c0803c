/* What the race detector (race.cpp) must find, and what it must let be: each kernel with and without what orders its threads. */
#include "selftest.h"
#ifdef EMU_RACE

/* ---- in a block ---- */
enum Order { NOTHING, SHUFFLE, WARP, BLOCK };
template <Order ORDER> static __device__ void order(void)
{
    if (ORDER == SHUFFLE) __shfl_sync(0xffffffffu, 1, 0);
    if (ORDER == WARP) __syncwarp();
    if (ORDER == BLOCK) __syncthreads();
}
/* What the thread `away` from this one wrote. */
template <Order ORDER> static __global__ void neighbour(int *out, int away)
{
    mdr_begin();
    __shared__ int x[64];
    x[threadIdx.x] = (int)threadIdx.x;
    order<ORDER>();
    out[64 * blockIdx.x + threadIdx.x] = x[(int)threadIdx.x ^ away];
}
/* Read by all, then written. */
template <Order ORDER> static __global__ void read_then_written(int *out, int by)
{
    mdr_begin();
    __shared__ int x;
    out[threadIdx.x] = x;
    order<ORDER>();
    if ((int)threadIdx.x == by) x = 1;
}
/* Lanes of `mask` meet the one that writes, those who read are all. */
static __global__ void some_meet(int *out, unsigned mask)
{
    mdr_begin();
    __shared__ int x;
    out[threadIdx.x] = x;
    if (mask >> threadIdx.x & 1u) __syncwarp(mask);
    if (threadIdx.x == 31) x = 1;
}
template <Order ORDER> static __global__ void matrix(uint32_t *out)
{
    mdr_begin();
    __shared__ __align__(16) uint32_t x[8][4];
    x[threadIdx.x / 4][threadIdx.x % 4] = threadIdx.x;
    order<ORDER>();
    ldmatrix<1, false>(out + threadIdx.x, x[threadIdx.x % 8]);
}
/* A lane takes over the row that ldmatrix read; products and shuffles do not order that. */
template <Order ORDER> static __global__ void matrix_then_written(uint32_t *out)
{
    mdr_begin();
    __shared__ __align__(16) uint32_t x[8][4];
    uint32_t r;
    ldmatrix<1, false>(&r, x[threadIdx.x % 8]);
    order<ORDER>();
    x[threadIdx.x / 4][threadIdx.x % 4] = r;
    out[threadIdx.x] = r;
}
static __global__ void same_place(int *out, int same)
{
    mdr_begin();
    __shared__ int x;
    x = same ? 7 : (int)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = x;
}
template <Order ORDER> static __global__ void halves(int *out)
{
    mdr_begin();
    __shared__ int x[32];
    ((bf16 *)x)[threadIdx.x].u = (uint16_t)threadIdx.x;
    order<ORDER>();
    if (threadIdx.x < 32) out[threadIdx.x] = x[threadIdx.x];
}
/* Warp 0 writes and tells; warp 1 waits for the word, or only looks at it. */
template <bool TOLD, bool GIVEN_LATER> static __global__ void told(int *out)
{
    mdr_begin();
    __shared__ int word, x[32];
    if (threadIdx.x == 0) word = 0;
    __syncthreads();
    const int lane = (int)threadIdx.x % 32;
    if (threadIdx.x < 32) {
        if (GIVEN_LATER) x[lane] = lane;
        __syncwarp();
        if (lane == 0) give_shared(&word, 1);
        if (!GIVEN_LATER) x[lane] = lane;
        return;
    }
    if (TOLD)
        while (!take_shared(&word)) {}
    out[lane] = x[lane ^ 1];
}

/* ---- copies ---- */
enum Wait { NO_WAIT, NO_BARRIER, WAITED };
template <Wait WAIT> static __global__ void copied(const float *from, float *to, int away)
{
    mdr_begin();
    MDR_SHARED(float, x);
    const int t = (int)threadIdx.x;
    copy_16(x + 4 * t, from + 4 * t, true);
    copy_commit();
    if (WAIT != NO_WAIT) copy_wait<0>();
    if (WAIT != NO_BARRIER) __syncthreads();
    to[t] = x[4 * (t ^ away)];
}
/* The next copy takes the place of what others still read. */
template <bool BARRIER> static __global__ void copied_again(const float *from, float *to)
{
    mdr_begin();
    MDR_SHARED(float, x);
    const int t = (int)threadIdx.x;
    float sum = 0.0f;
    for (int i = 0; i < 2; i++) {
        copy_16(x + 4 * t, from + 4 * t, true);
        copy_commit();
        copy_wait<0>();
        __syncthreads();
        sum += x[4 * (t ^ 40)];
        if (BARRIER) __syncthreads();
    }
    to[t] = sum;
}

/* ---- between blocks, between launches ---- */
static __global__ void blocks_write(int *out, int apart) { mdr_begin(); out[(int)blockIdx.x * apart] = 1; }
static __global__ void blocks_count(int *out, int plain)
{
    mdr_begin();
    if (plain && blockIdx.x == 1) out[0] = 1;
    else atomicAdd(out, 1);
}
static __global__ void blocks_read(int *out, int where)
{
    mdr_begin();
    if (out[0] < 0) out[1] = 1;
    if ((int)blockIdx.x == where) out[0] = 1;
}

static void wanted(int line, const char *words, const std::string &said)
{
    if (!words && !said.empty()) fail(line, "found where there is nothing: %.300s", said.c_str());
    else if (words && said.find(words) == std::string::npos) fail(line, "wanted a race '%s', got '%.300s'", words, said.c_str());
}
/* words: part of what must be said; nullptr: nothing may be. In both orders. */
template <typename F> static void races(int line, const char *words, F run)
{
    for (const char *o : {"forward", "backward"}) {
        setenv("MDR_EMU_ORDER", o, 1);
        const Races found;
        run();
        wanted(line, words, found.said);
    }
    unsetenv("MDR_EMU_ORDER");
}
#define RACES(words, kernel, grid, threads, ...) races(__LINE__, words, [&]() { MDR_LAUNCH((kernel), grid, threads, 2048, nullptr, __VA_ARGS__); })

static void test_blocks(int *out)
{
    RACES("static shared memory", neighbour<NOTHING>, 1, 64, out, 1);
    RACES("neighbour<", neighbour<SHUFFLE>, 1, 64, out, 1);
    RACES("race", neighbour<WARP>, 1, 64, out, 32);
    RACES(nullptr, neighbour<WARP>, 3, 64, out, 1);
    RACES(nullptr, neighbour<BLOCK>, 1, 64, out, 33);
    RACES("race", read_then_written<NOTHING>, 1, 64, out, 5);
    RACES("race", read_then_written<WARP>, 1, 64, out, 5);
    RACES(nullptr, read_then_written<WARP>, 1, 32, out, 5);
    RACES(nullptr, read_then_written<BLOCK>, 1, 64, out, 5);
    RACES("thread 0 read", some_meet, 1, 32, out, 0xfffffffeu);
    RACES("thread 30 read", some_meet, 1, 32, out, 0xbfffffffu);
    RACES(nullptr, some_meet, 1, 32, out, 0xffffffffu);
    RACES("reads 16 bytes", matrix<NOTHING>, 1, 32, (uint32_t *)out);
    RACES("reads 16 bytes", matrix<SHUFFLE>, 1, 32, (uint32_t *)out);
    RACES(nullptr, matrix<WARP>, 1, 32, (uint32_t *)out);
    RACES("writes 4 bytes", matrix_then_written<NOTHING>, 1, 32, (uint32_t *)out);
    RACES(nullptr, matrix_then_written<WARP>, 1, 32, (uint32_t *)out);
    RACES("race", same_place, 1, 32, out, 0);
    RACES(nullptr, same_place, 1, 32, out, 1);
    RACES("race", same_place, 1, 64, out, 1);
    RACES("race", halves<NOTHING>, 1, 64, out);
    RACES(nullptr, halves<BLOCK>, 1, 64, out);
    RACES(nullptr, (told<true, true>), 1, 64, out);
    RACES("race", (told<true, false>), 1, 64, out);
    RACES("race", (told<false, true>), 1, 64, out);
}
static void test_copies(const float *from, float *to)
{
    RACES("copied<", copied<NO_WAIT>, 1, 64, from, to, 0);
    RACES("wrote:", copied<NO_WAIT>, 1, 64, from, to, 1);
    RACES(nullptr, copied<NO_BARRIER>, 1, 64, from, to, 0);
    RACES("race", copied<NO_BARRIER>, 1, 64, from, to, 1);
    RACES(nullptr, copied<WAITED>, 1, 64, from, to, 33);
    RACES("writes 16 bytes", copied_again<false>, 1, 64, from, to);
    RACES(nullptr, copied_again<true>, 1, 64, from, to);
}
static void test_grids(int *out)
{
    RACES("another block", blocks_write, 4, 1, out, 0);
    RACES(nullptr, blocks_write, 4, 1, out, 1);
    RACES("race", blocks_count, 3, 32, out, 1);
    RACES(nullptr, blocks_count, 3, 32, out, 0);
    RACES("another block", blocks_read, 4, 1, out, 2);
    RACES(nullptr, blocks_read, 4, 1, out, 5);
}
/* Two streams, as they are or ordered by an event, at once or recorded. */
static void test_streams(int *out)
{
    cudaStream_t s, side;
    cudaEvent_t a, b;
    GOOD(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    GOOD(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    GOOD(cudaEventCreateWithFlags(&a, cudaEventDisableTiming));
    GOOD(cudaEventCreateWithFlags(&b, cudaEventDisableTiming));
    for (const int ordered : {0, 1}) {
        const Races found;
        MDR_LAUNCH(blocks_write, 1, 1, 0, s, out, 0);
        GOOD(cudaEventRecord(a, s));
        if (ordered) GOOD(cudaStreamWaitEvent(side, a, 0));
        GOOD(cudaMemsetAsync(out, 0, 4, side));
        GOOD(cudaStreamSynchronize(side));
        MDR_LAUNCH(blocks_write, 1, 1, 0, s, out, 0);
        GOOD(cudaDeviceSynchronize());
        wanted(__LINE__, ordered ? nullptr : "an earlier launch or copy that nothing orders before wrote", found.said);
    }
    for (const char *late : {"0", "1"})
        for (const int joined : {0, 1}) {                 /* the main stream writes before it joins its side, or after */
            cudaGraph_t graph;
            cudaGraphExec_t run;
            const Races found;
            setenv("MDR_EMU_LATE_SIDES", late, 1);
            GOOD(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
            MDR_LAUNCH(blocks_write, 1, 1, 0, s, out, 0);
            GOOD(cudaEventRecord(a, s));
            GOOD(cudaStreamWaitEvent(side, a, 0));
            MDR_LAUNCH(blocks_write, 1, 1, 0, side, out, 0);
            GOOD(cudaEventRecord(b, side));
            if (joined) GOOD(cudaStreamWaitEvent(s, b, 0));
            MDR_LAUNCH(blocks_write, 1, 1, 0, s, out, 0);
            if (!joined) GOOD(cudaStreamWaitEvent(s, b, 0));
            GOOD(cudaStreamEndCapture(s, &graph));
            GOOD(cudaGraphInstantiate(&run, graph, 0));
            for (int i = 0; i < 2; i++) GOOD(cudaGraphLaunch(run, s));
            GOOD(cudaStreamSynchronize(s));
            wanted(__LINE__, joined ? nullptr : "race in kernel blocks_write", found.said);
            GOOD(cudaGraphDestroy(graph));
            GOOD(cudaGraphExecDestroy(run));
        }
    unsetenv("MDR_EMU_LATE_SIDES");
    GOOD(cudaEventDestroy(a));
    GOOD(cudaEventDestroy(b));
    GOOD(cudaStreamDestroy(side));
    GOOD(cudaStreamDestroy(s));
}

void emu_test_races(void)
{
    Numbers<int> out(192);
    Numbers<float> from(256), to(64);
    test_blocks(out.data);
    test_copies(from.data, to.data);
    test_grids(out.data);
    test_streams(out.data);
}
#endif
