/* The emulator checked against plain loops and against what it must refuse. emu_selftest(message, size): the number of failures,
 * the first one's sentence. */
#include "selftest.h"
#include <initializer_list>
#include <stdarg.h>
#include <stdio.h>

static int failures;
static char first[400];
void emu_selftest_fail(const char *file, int line, const char *format, ...)
{
    if (failures++) return;
    const int n = snprintf(first, sizeof first, "%s:%d: ", file, line);
    va_list args;
    va_start(args, format);
    vsnprintf(first + n, sizeof first - (size_t)n, format, args);
    va_end(args);
}
static float small(int i) { return (float)((i * 7919 + 13) % 31 - 15) / 8.0f; }         /* exact in bf16 */
static uint32_t two(const float *m, int64_t at, int64_t step) { return pack_bf16(m[at], m[at + step]); }

/* ---- products: fragments filled by hand as cuda_mma.h says, and through shared memory by ldmatrix ---- */
static __global__ void product_by_hand(const float *A, const float *B, float *D, int k)
{
    mdr_begin();
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const uint32_t a[4] = {two(A, g * k + 2 * t, 1), two(A, (g + 8) * k + 2 * t, 1), k == 16 ? two(A, g * k + 2 * t + 8, 1) : 0,
                           k == 16 ? two(A, (g + 8) * k + 2 * t + 8, 1) : 0};
    const uint32_t b[2] = {two(B, 2 * t * 8 + g, 8), k == 16 ? two(B, (2 * t + 8) * 8 + g, 8) : 0};
    if (k == 16) mma_16816(d, a, b);
    else mma_1688(d, a, b[0]);
    D[g * 8 + 2 * t] = d[0];
    D[g * 8 + 2 * t + 1] = d[1];
    D[(g + 8) * 8 + 2 * t] = d[2];
    D[(g + 8) * 8 + 2 * t + 1] = d[3];
}
/* A [16, 16] and B [16, 8] row major in shared memory: A's four 8x8 matrices as they are, B's two transposed. */
static __global__ void product_by_ldmatrix(const bf16 *A, const bf16 *B, float *D)
{
    mdr_begin();
    MDR_SHARED(bf16, a_tile);
    bf16 *b_tile = a_tile + 256;
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    copy_16(a_tile + 8 * lane, A + 8 * lane, true);
    if (lane < 16) copy_16(b_tile + 8 * lane, B + 8 * lane, true);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    uint32_t a[4], b[2];
    float d[4] = {};
    ldmatrix<4, false>(a, a_tile + (lane % 8 + lane / 8 % 2 * 8) * 16 + lane / 16 * 8);
    ldmatrix<2, true>(b, b_tile + lane % 16 * 8);
    mma_16816(d, a, b);
    for (int i = 0; i < 4; i++) D[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
static void test_products(void)
{
    for (int k : {8, 16}) {
        std::vector<float> a((size_t)(16 * k)), b((size_t)(k * 8));
        std::vector<bf16> a16(a.size()), b16(b.size());
        for (size_t i = 0; i < a.size(); i++) a[i] = small((int)i), put(&a16[i], a[i]);
        for (size_t i = 0; i < b.size(); i++) b[i] = small((int)i * 5 + 3), put(&b16[i], b[i]);
        Numbers<float> da(a), db(b), dd(128), de(128);
        Numbers<bf16> da16(a16), db16(b16);
        MDR_LAUNCH(product_by_hand, 1, 32, 0, nullptr, da.data, db.data, dd.data, k);
        if (k == 16) MDR_LAUNCH(product_by_ldmatrix, 1, 32, 1024, nullptr, da16.data, db16.data, de.data);
        GOOD(cudaGetLastError());
        const std::vector<float> d = dd.host(), e = de.host();
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float want = 0.0f;
                for (int c = 0; c < k; c++) want += a[(size_t)(i * k + c)] * b[(size_t)(c * 8 + j)];
                const size_t at = (size_t)(i * 8 + j);
                if (!(d[at] == want + 1.0f)) fail(__LINE__, "mma k %d [%d][%d]: %g, want %g", k, i, j, (double)d[at], (double)want + 1.0);
                if (k == 16 && !(e[at] == want)) fail(__LINE__, "ldmatrix and mma [%d][%d]: %g, want %g", i, j, (double)e[at], (double)want);
            }
    }
}
template <int N, bool TURNED> static __global__ void load_matrices(uint32_t *out)
{
    mdr_begin();
    __shared__ __align__(16) uint16_t m[N][8][8];
    const int lane = (int)threadIdx.x;
    if (lane == 0)
        for (int i = 0; i < N * 64; i++) m[i / 64][i / 8 % 8][i % 8] = (uint16_t)(1000 + i);
    __syncthreads();
    uint32_t r[N];
    ldmatrix<N, TURNED>(r, lane < 8 * N ? m[lane / 8][lane % 8] : nullptr);
    for (int i = 0; i < N; i++) out[i * 32 + lane] = r[i];
}
template <int N, bool TURNED> static void test_ldmatrix(void)
{
    Numbers<uint32_t> out(32 * N);
    MDR_LAUNCH((load_matrices<N, TURNED>), 1, 32, 0, nullptr, out.data);
    const std::vector<uint32_t> r = out.host();
    for (int i = 0; i < N; i++)
        for (int l = 0; l < 32; l++) {
            const int row = TURNED ? 2 * (l % 4) : l / 4, col = TURNED ? l / 4 : 2 * (l % 4), next = TURNED ? 8 : 1;
            const uint32_t lo = (uint32_t)(1000 + 64 * i + 8 * row + col), want = lo | (lo + (uint32_t)next) << 16;
            if (r[(size_t)(i * 32 + l)] != want) fail(__LINE__, "ldmatrix x%d turned %d lane %d: %08x, want %08x", N, TURNED, l, r[(size_t)(i * 32 + l)], want);
        }
}

/* ---- shuffles and votes ---- */
template <typename T> static __global__ void shuffles(T *out)
{
    mdr_begin();
    const int l = (int)threadIdx.x, w = l / 32, lane = l % 32;
    const T x = (T)(100 * w + lane);
    T *o = out + 9 * l;
    o[0] = __shfl_sync(0xffffffffu, x, 7);
    o[1] = __shfl_sync(0xffffffffu, x, lane + 1, 8);
    o[2] = __shfl_xor_sync(0xffffffffu, x, 5);
    o[3] = __shfl_up_sync(0xffffffffu, x, 3, 16);
    o[4] = __shfl_down_sync(0xffffffffu, x, 3, 16);
    o[5] = (T)0;
    if (lane >= 16) o[5] = __shfl_xor_sync(0xffff0000u, x, 1);
    else o[5] = __shfl_xor_sync(0x0000ffffu, x, 2);
    o[6] = (T)__ballot_sync(0xffffffffu, lane % 3 == 0 && lane < 20) + (T)__any_sync(0xffffffffu, lane == 31);
    o[7] = (T)(__all_sync(0xffffffffu, lane < 32) + 2 * __all_sync(0xffffffffu, lane < 31) + 4 * __any_sync(0xffffffffu, lane > 31));
    o[8] = (T)__reduce_add_sync(0xffffffffu, lane) + (T)__reduce_max_sync(0xffffffffu, -lane) + (T)__reduce_max_sync(0xffffffffu, 31u - (unsigned)lane);
}
template <typename T> static void test_shuffles(void)
{
    Numbers<T> out(9 * 96);
    MDR_LAUNCH(shuffles<T>, 1, 96, 0, nullptr, out.data);
    const std::vector<T> o = out.host();
    unsigned ballot = 0;
    for (int i = 0; i < 20; i += 3) ballot |= 1u << i;
    for (int l = 0; l < 96; l++) {
        const int w = l / 32 * 100, lane = l % 32;
        const T want[9] = {(T)(w + 7), (T)(w + lane / 8 * 8 + (lane + 1) % 8), (T)(w + (lane ^ 5)), (T)(w + (lane % 16 < 3 ? lane : lane - 3)),
                           (T)(w + (lane % 16 > 12 ? lane : lane + 3)), (T)(w + (lane >= 16 ? lane ^ 1 : lane ^ 2)), (T)ballot + (T)1, (T)1, (T)(496 + 0 + 31)};
        for (int i = 0; i < 9; i++)
            if (!(o[(size_t)(9 * l + i)] == want[i]))
                fail(__LINE__, "size %zu thread %d shuffle %d: %g, want %g", sizeof(T), l, i, (double)o[(size_t)(9 * l + i)], (double)want[i]);
    }
}

/* ---- barriers; threads that end early; a missing barrier must show ---- */
template <bool BARRIER> static __global__ void reversed(int *out, int n)
{
    mdr_begin();
    MDR_SHARED(int, x);
    const int t = (int)(threadIdx.x + blockDim.x * threadIdx.y);
    if (t >= n) return;
    for (int round = 0; round < 3; round++) {
        x[t] = 10 * round + t + (int)blockIdx.x;
        if (BARRIER) __syncthreads();
        const int y = x[n - 1 - t];
        if (BARRIER) __syncthreads();
        out[((int)blockIdx.x * 3 + round) * n + t] = y;
    }
}
template <bool BARRIER> static int wrong_after(const char *order, int n)
{
    if (order) setenv("MDR_EMU_ORDER", order, 1);
    Numbers<int> out((size_t)(2 * 3 * n));
    MDR_LAUNCH(reversed<BARRIER>, 2, dim3(32, 9), 4 * (size_t)n, nullptr, out.data, n);
    GOOD(cudaGetLastError());
    const std::vector<int> o = out.host();
    unsetenv("MDR_EMU_ORDER");
    int wrong = 0;
    for (int i = 0; i < 6 * n; i++) wrong += o[(size_t)i] != 10 * (i / n % 3) + n - 1 - i % n + i / n / 3;
    return wrong;
}
static __global__ void barrier_votes(int *out)
{
    mdr_begin();
    const int t = (int)threadIdx.x;
    const int n = __syncthreads_count(t % 3 == 0), a = __syncthreads_and(t < 50), b = __syncthreads_and(t < 70), o = __syncthreads_or(t == 69);
    out[t] = n + 100 * a + 1000 * b + 10000 * o;
}
static void test_barriers(void)
{
    for (const char *order : {"forward", "backward", "shuffle", (const char *)nullptr})
        for (int n : {1, 31, 32, 100, 288}) {
            const int wrong = wrong_after<true>(order, n);
            if (wrong) fail(__LINE__, "order %s, %d threads: %d wrong", order ? order : "-", n, wrong);
        }
    const Races wanted;
    CHECK(wrong_after<false>("forward", 288) > 0);
    CHECK(wrong_after<false>("backward", 288) > 0);
    CHECK(wrong_after<false>("shuffle", 288) > 0);
    Numbers<int> out(70);
    MDR_LAUNCH(barrier_votes, 1, 70, 0, nullptr, out.data);
    for (int x : out.host()) CHECK(x == 24 + 1000 + 10000);
}

/* Each warp waits for the one after it, or before it, to write its word. */
static __global__ void in_turn(int *out, bool up)
{
    mdr_begin();
    __shared__ int word[9];
    const int w = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, from = up ? w - 1 : w + 1;
    if (lane == 0) word[w] = 0;
    __syncthreads();
    int before = from < 0 || from == 9 ? 1 : 0;
    while (!before) before = take_shared(word + from);
    __syncwarp();
    if (lane == 0) give_shared(word + w, before + 1);
    out[threadIdx.x] = before;
}
static void test_turns(void)
{
    for (const char *order : {"forward", "backward", "shuffle"})
        for (const bool up : {false, true}) {
            setenv("MDR_EMU_ORDER", order, 1);
            Numbers<int> out(288);
            MDR_LAUNCH(in_turn, 1, 288, 0, nullptr, out.data, up);
            const std::vector<int> o = out.host();
            for (int t = 0; t < 288; t++) CHECK(o[(size_t)t] == 1 + (up ? t / 32 : 8 - t / 32));
        }
    unsetenv("MDR_EMU_ORDER");
}

/* ---- copies that nobody waits for must show ---- */
template <bool WAIT> static __global__ void copied(const float *from, float *to)
{
    mdr_begin();
    MDR_SHARED(float, x);
    const int t = (int)threadIdx.x;
    copy_16(x + 4 * t, from + 4 * t, t != 3);
    copy_commit();
    copy_16(x + 128 + 4 * t, from + 4 * t, true);
    copy_commit();
    if (WAIT) copy_wait<1>();
    to[t] = x[4 * t + 1];
}
static void test_copies(void)
{
    std::vector<float> v(128);
    for (int i = 0; i < 128; i++) v[(size_t)i] = (float)i;
    Numbers<float> from(v), to(32);
    for (const char *when : {"early", "late"})
        for (bool wait : {true, false}) {
            const Races wanted;
            setenv("MDR_EMU_COPY", when, 1);
            if (wait) MDR_LAUNCH(copied<true>, 1, 32, 1024, nullptr, from.data, to.data);
            else MDR_LAUNCH(copied<false>, 1, 32, 1024, nullptr, from.data, to.data);
            const std::vector<float> got = to.host();
            int wrong = 0;
            for (int t = 0; t < 32; t++) wrong += !(got[(size_t)t] == (t == 3 ? 0.0f : (float)(4 * t + 1)));
            CHECK(wrong == (!wait && !strcmp(when, "late") ? 32 : 0));
        }
    unsetenv("MDR_EMU_COPY");
}

/* ---- the runtime ---- */
static void test_recording(void)
{
    cudaStream_t s;
    cudaGraph_t graph;
    cudaGraphExec_t run;
    cudaEvent_t a, b;
    float ms = -1.0f;
    Numbers<float> x(100), y(100);
    GOOD(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    GOOD(cudaEventCreate(&a));
    GOOD(cudaEventCreate(&b));
    GOOD(cudaMemsetAsync(x.data, 0, 400, s));
    GOOD(cudaStreamSynchronize(s));
    GOOD(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    float by = 2.0f;
    MDR_LAUNCH(add, 4, 32, 0, s, x.data, by, 100);
    by = 1e9f;                                            /* the launch has its own copy */
    GOOD(cudaMemcpyAsync(y.data, x.data, 400, cudaMemcpyDeviceToDevice, s));
    GOOD(cudaMemsetAsync(y.data, 0, 4, s));
    cudaStreamCaptureStatus status;
    GOOD(cudaStreamIsCapturing(s, &status));
    CHECK(status == cudaStreamCaptureStatusActive);
    void *none;
    CHECK(cudaMalloc(&none, 16) == cudaErrorStreamCaptureUnsupported);
    GOOD(cudaStreamEndCapture(s, &graph));
    cudaGetLastError();
    GOOD(cudaGraphInstantiate(&run, graph, 0));
    GOOD(cudaGraphDestroy(graph));
    CHECK(x.host()[7] == 0.0f);
    GOOD(cudaEventRecord(a, s));
    for (int i = 0; i < 3; i++) GOOD(cudaGraphLaunch(run, s));
    GOOD(cudaEventRecord(b, s));
    GOOD(cudaStreamSynchronize(s));
    GOOD(cudaEventElapsedTime(&ms, a, b));
    CHECK(ms >= 0.0f);
    for (int i = 0; i < 100; i++) CHECK(x.host()[(size_t)i] == 6.0f && y.host()[(size_t)i] == (i ? 6.0f : 0.0f));
    GOOD(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaStreamSynchronize(s) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated && !graph);
    GOOD(cudaGraphExecDestroy(run));
    GOOD(cudaEventDestroy(a));
    GOOD(cudaEventDestroy(b));
    GOOD(cudaStreamDestroy(s));
    cudaGetLastError();
}
/* Sides that join a recording and are waited for are part of it; one that is not spoils it; outside they are streams of their own. */
static void test_sides(void)
{
    cudaStream_t s, side;
    cudaGraph_t graph;
    cudaGraphExec_t run;
    cudaEvent_t a, b;
    Numbers<float> x(100);
    GOOD(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    GOOD(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    GOOD(cudaEventCreateWithFlags(&a, cudaEventDisableTiming));
    GOOD(cudaEventCreateWithFlags(&b, cudaEventDisableTiming));
    for (int joins = 0; joins < 2; joins++) {
        GOOD(cudaMemsetAsync(x.data, 0, 400, s));
        GOOD(cudaStreamSynchronize(s));
        GOOD(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
        GOOD(cudaEventRecord(a, s));
        GOOD(cudaStreamWaitEvent(side, a, 0));
        MDR_LAUNCH(add, 4, 32, 0, side, x.data, 2.0f, 100);
        GOOD(cudaEventRecord(b, side));
        if (joins) GOOD(cudaStreamWaitEvent(s, b, 0));
        CHECK(cudaStreamEndCapture(s, &graph) == (joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined));
        cudaGetLastError();
        CHECK(x.host()[7] == 0.0f);
    }
    GOOD(cudaGraphInstantiate(&run, graph, 0));
    GOOD(cudaGraphDestroy(graph));
    GOOD(cudaGraphLaunch(run, s));
    GOOD(cudaStreamSynchronize(s));
    CHECK(x.host()[7] == 2.0f);
    MDR_LAUNCH(add, 4, 32, 0, side, x.data, 2.0f, 100);
    GOOD(cudaStreamSynchronize(side));
    CHECK(x.host()[7] == 4.0f);
    GOOD(cudaGraphExecDestroy(run));
    GOOD(cudaEventDestroy(a));
    GOOD(cudaEventDestroy(b));
    GOOD(cudaStreamDestroy(side));
    GOOD(cudaStreamDestroy(s));
}
static void test_refusals(void)
{
    Numbers<float> x(100);
    const struct { dim3 grid, block; size_t shared; bool good; } tried[] = {
        {4, 32, 0, true}, {4, 1025, 0, false}, {4, dim3(32, 33), 0, false}, {dim3(1, 1, 65536), 32, 0, false}, {0, 32, 0, false}, {4, 0, 0, false},
        {1, 32, 48 << 10, true}, {1, 32, (48 << 10) + 16, false}};
    for (const auto &t : tried) {
        MDR_LAUNCH(add, t.grid, t.block, t.shared, nullptr, x.data, 1.0f, 100);
        CHECK(cudaGetLastError() == (t.good ? cudaSuccess : cudaErrorInvalidConfiguration));
        CHECK(cudaGetLastError() == cudaSuccess);
    }
    MDR_ALLOW_SHARED(add, 232448);
    MDR_LAUNCH(add, 1, 32, 232448, nullptr, x.data, 1.0f, 100);
    GOOD(cudaGetLastError());
    MDR_LAUNCH(add, 1, 32, 232464, nullptr, x.data, 1.0f, 100);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    size_t free_bytes, all;
    void *p;
    setenv("MDR_EMU_MEMORY", "1000000", 1);
    GOOD(cudaMemGetInfo(&free_bytes, &all));
    CHECK(all == 1000000 && free_bytes <= all - 400);
    CHECK(cudaMalloc(&p, free_bytes + 1) == cudaErrorMemoryAllocation && !p && cudaGetLastError() == cudaErrorMemoryAllocation);
    GOOD(cudaMalloc(&p, free_bytes / 256 * 256));
    CHECK((uintptr_t)p % 256 == 0);
    GOOD(cudaFree(p));
    unsetenv("MDR_EMU_MEMORY");
    float here = 0.0f;
    CHECK(cudaMemcpy(&here, &here, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x.data + 99, &here, 8, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemsetAsync(x.data, 0, 401) == cudaErrorInvalidValue);
    cudaGetLastError();
}

/* Shared memory holds nothing that one may rely on. */
static __global__ void finds_nothing(int *out)
{
    mdr_begin();
    __shared__ float x[40];
    MDR_SHARED(float, y);
    out[threadIdx.x] = isnan(x[threadIdx.x]) && isnan(y[threadIdx.x]);
    __syncthreads();
    x[threadIdx.x] = y[threadIdx.x] = 1.0f;
}
static void test_numbers(void)
{
    const float nan = NAN;
    CHECK(emu_pack_bf16(1.0f, -2.0f) == 0xc0003f80u && emu_bf16(nan) == 0x7fff && emu_bf16(INFINITY) == 0x7f80 && emu_bf16(3.4e38f) == 0x7f80);
    CHECK(emu_bf16(__uint_as_float(0x3f808000u)) == 0x3f80 && emu_bf16(__uint_as_float(0x3f818000u)) == 0x3f82);
    CHECK(emu_bf16(__uint_as_float(0x3f808001u)) == 0x3f81);
    CHECK(__popc(0xf0u) == 4 && __clz(1) == 31 && __clz(0) == 32 && __ffs(8) == 4 && __ffs(0) == 0);
    CHECK(__brev(1u) == 0x80000000u && __umulhi(0x80000000u, 6u) == 3u);
    CHECK(min(3, -4) == -4 && max(3u, 4u) == 4u && max(nan, 1.0f) == 1.0f && rsqrtf(4.0f) == 0.5f);
    CHECK(__byte_perm(0x33221100u, 0x77665544u, 0x7250u) == 0x77225500u);
}

extern "C" __attribute__((visibility("default"))) int emu_selftest(char *message, int size);
extern "C" int emu_selftest(char *message, int size)
{
    failures = 0;
    first[0] = 0;
    test_numbers();
    for (int i = 0; i < 4; i++) {                         /* both orders, both kinds of copies */
        test_products();
        test_ldmatrix<1, false>();
        test_ldmatrix<2, false>();
        test_ldmatrix<4, false>();
        test_ldmatrix<1, true>();
        test_ldmatrix<2, true>();
        test_ldmatrix<4, true>();
        test_shuffles<float>();
        test_shuffles<double>();
        test_shuffles<long>();
        test_shuffles<unsigned long long>();
        MDR_LAUNCH(add, 1, 1, 0, nullptr, nullptr, 0.0f, 0);      /* shifts the turns */
    }
    test_barriers();
    test_turns();
    test_copies();
    for (int i = 0; i < 3; i++) {
        Numbers<int> out(40);
        MDR_LAUNCH(finds_nothing, 1, 40, 160, nullptr, out.data);
        for (int x : out.host()) CHECK(x == 1);
    }
    test_recording();
    test_sides();
    test_refusals();
    emu_test_deaths();
    emu_test_races();
    snprintf(message, (size_t)size, "%s", first);
    return failures;
}
