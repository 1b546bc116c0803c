/* What the emulator's own tests share: failures counted, the first one's sentence kept; numbers of the device. */
#ifndef EMU_SELFTEST_H
#define EMU_SELFTEST_H
#include "emu_inside.h"
#include "op/cuda_mma.h"
#include <vector>

void emu_selftest_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define fail(line, ...) emu_selftest_fail(__FILE_NAME__, line, __VA_ARGS__)
#define CHECK(condition) do { if (!(condition)) fail(__LINE__, "not %s", #condition); } while (0)
#define GOOD(call) do { const cudaError_t e_ = (call); if (e_ != cudaSuccess) fail(__LINE__, "%s: %s", #call, cudaGetErrorName(e_)); } while (0)

/* deaths.cpp: what must end the program, with the right words. */
void emu_test_deaths(void);
/* race_tests.cpp: what the race detector must find, if it is built in. */
#ifdef EMU_RACE
void emu_test_races(void);
#else
static inline void emu_test_races(void) {}
#endif
/* While one lives races are not told and not counted, but kept here. */
struct Races {
    std::string said;
    Races() { emu_races_to(&said); }
    ~Races() { emu_races_to(nullptr); }
};

/* n numbers of the device, from and to the host. */
template <typename T> struct Numbers {
    T *data = nullptr;
    size_t n;
    explicit Numbers(size_t count) : n(count) { GOOD(cudaMalloc(&data, n * sizeof(T))); }
    explicit Numbers(const std::vector<T> &v) : Numbers(v.size()) { GOOD(cudaMemcpy(data, v.data(), n * sizeof(T), cudaMemcpyHostToDevice)); }
    Numbers(const Numbers &) = delete;
    ~Numbers() { cudaFree(data); }
    std::vector<T> host() const
    {
        std::vector<T> v(n);
        GOOD(cudaMemcpy(v.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};
[[maybe_unused]] static __global__ void add(float *x, float by, int n)
{
    mdr_begin();
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] += by;
}
#endif
