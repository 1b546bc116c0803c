/* What kernels call (cuda_runtime.h): barriers, shuffles, votes, tensor-core products and copies, arithmetic. Whatever waits for
 * other threads carries its place in the source, so that a thread that waits in vain can be named. */
#ifndef EMU_DEVICE_H
#define EMU_DEVICE_H
#include "emu_types.h"

enum EmuKind { EMU_SYNCTHREADS, EMU_SYNCTHREADS_COUNT, EMU_SYNCTHREADS_AND, EMU_SYNCTHREADS_OR, EMU_SYNCWARP, EMU_SHFL, EMU_SHFL_UP,
               EMU_SHFL_DOWN, EMU_SHFL_XOR, EMU_BALLOT, EMU_ANY, EMU_ALL, EMU_REDUCE_ADD, EMU_REDUCE_MIN, EMU_REDUCE_MAX,
               EMU_REDUCE_UMIN, EMU_REDUCE_UMAX, EMU_MMA, EMU_LDMATRIX, EMU_YIELD };
int emu_barrier(int kind, int predicate, const char *file, int line);
uint64_t emu_shuffle(int kind, unsigned mask, uint64_t bits, int by, int width, const char *file, int line);
unsigned emu_vote(int kind, unsigned mask, unsigned x, const char *file, int line);
unsigned emu_active(void);
/* Before a thread looks again at what another warp is to write: the other warps go on first. */
void emu_yield(const char *file = __builtin_FILE(), int line = __builtin_LINE());
/* take_shared, give_shared. */
int emu_take(const int *at, const char *file = __builtin_FILE(), int line = __builtin_LINE());
void emu_give(int *at, int x);
/* An atomic is about to do its work. */
void emu_atomic(const void *at, size_t bytes);
/* A kernel's first statement; until its first thread is here, nobody can touch device memory. */
void emu_begin(void);
void emu_mma(float *d, const uint32_t *a, const uint32_t *b, int k, const char *file = __builtin_FILE(), int line = __builtin_LINE());
void emu_ldmatrix(uint32_t *r, const void *row, int n, bool transposed, const char *file = __builtin_FILE(), int line = __builtin_LINE());
/* Copies end at once, or (MDR_EMU_COPY) when the thread waits for their group. */
void emu_copy_16(void *to, const void *from, bool there, const char *file = __builtin_FILE(), int line = __builtin_LINE());
void emu_copy_commit(void);
void emu_copy_wait(int groups);
void *emu_shared(void);
[[noreturn]] void emu_die(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Round to nearest even; a NaN stays one. */
static inline uint32_t emu_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
static inline uint32_t emu_pack_bf16(float lo, float hi) { return emu_bf16(lo) | emu_bf16(hi) << 16; }

#define EMU_HERE const char *emu_file = __builtin_FILE(), int emu_line = __builtin_LINE()
static inline void __syncthreads(EMU_HERE) { emu_barrier(EMU_SYNCTHREADS, 0, emu_file, emu_line); }
static inline int __syncthreads_count(int p, EMU_HERE) { return emu_barrier(EMU_SYNCTHREADS_COUNT, p, emu_file, emu_line); }
static inline int __syncthreads_and(int p, EMU_HERE) { return emu_barrier(EMU_SYNCTHREADS_AND, p, emu_file, emu_line); }
static inline int __syncthreads_or(int p, EMU_HERE) { return emu_barrier(EMU_SYNCTHREADS_OR, p, emu_file, emu_line); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_HERE) { emu_vote(EMU_SYNCWARP, mask, 0, emu_file, emu_line); }
static inline unsigned __ballot_sync(unsigned mask, int p, EMU_HERE) { return emu_vote(EMU_BALLOT, mask, p != 0, emu_file, emu_line); }
static inline int __any_sync(unsigned mask, int p, EMU_HERE) { return (int)emu_vote(EMU_ANY, mask, p != 0, emu_file, emu_line); }
static inline int __all_sync(unsigned mask, int p, EMU_HERE) { return (int)emu_vote(EMU_ALL, mask, p != 0, emu_file, emu_line); }
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x, EMU_HERE) { return emu_vote(EMU_REDUCE_ADD, mask, x, emu_file, emu_line); }
static inline int __reduce_add_sync(unsigned mask, int x, EMU_HERE) { return (int)emu_vote(EMU_REDUCE_ADD, mask, (unsigned)x, emu_file, emu_line); }
static inline unsigned __reduce_min_sync(unsigned mask, unsigned x, EMU_HERE) { return emu_vote(EMU_REDUCE_UMIN, mask, x, emu_file, emu_line); }
static inline int __reduce_min_sync(unsigned mask, int x, EMU_HERE) { return (int)emu_vote(EMU_REDUCE_MIN, mask, (unsigned)x, emu_file, emu_line); }
static inline unsigned __reduce_max_sync(unsigned mask, unsigned x, EMU_HERE) { return emu_vote(EMU_REDUCE_UMAX, mask, x, emu_file, emu_line); }
static inline int __reduce_max_sync(unsigned mask, int x, EMU_HERE) { return (int)emu_vote(EMU_REDUCE_MAX, mask, (unsigned)x, emu_file, emu_line); }
static inline unsigned __activemask(void) { return emu_active(); }

#define EMU_SHUFFLE(T, name, kind)                                                                                     \
    static inline T name(unsigned mask, T x, int by, int width = 32, EMU_HERE)                                         \
    {                                                                                                                  \
        uint64_t bits = 0;                                                                                             \
        memcpy(&bits, &x, sizeof x);                                                                                   \
        bits = emu_shuffle(kind, mask, bits, by, width, emu_file, emu_line);                                           \
        memcpy(&x, &bits, sizeof x);                                                                                   \
        return x;                                                                                                      \
    }
#define EMU_SHUFFLES(T)                                                                                                \
    EMU_SHUFFLE(T, __shfl_sync, EMU_SHFL)                                                                              \
    EMU_SHUFFLE(T, __shfl_up_sync, EMU_SHFL_UP)                                                                        \
    EMU_SHUFFLE(T, __shfl_down_sync, EMU_SHFL_DOWN)                                                                    \
    EMU_SHUFFLE(T, __shfl_xor_sync, EMU_SHFL_XOR)
EMU_SHUFFLES(int)
EMU_SHUFFLES(unsigned)
EMU_SHUFFLES(long)
EMU_SHUFFLES(unsigned long)
EMU_SHUFFLES(long long)
EMU_SHUFFLES(unsigned long long)
EMU_SHUFFLES(float)
EMU_SHUFFLES(double)
#undef EMU_SHUFFLES
#undef EMU_SHUFFLE

static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}
static inline void __threadfence_system(void) {}
#define __trap() emu_die(__FILE__, __LINE__, "__trap()")

/* One thread at a time: an atomic is what it says. None for floats, as the contract has it. */
#define EMU_UNSEEN __attribute__((no_sanitize("thread")))              /* these loads and stores are no races */
template <typename T> concept EmuInteger = __is_same(T, int) || __is_same(T, unsigned) || __is_same(T, unsigned long long);
template <typename T> struct EmuSame { typedef T type; };
#define EMU_ATOMIC(name, expression)                                                                                   \
    template <EmuInteger T> static inline EMU_UNSEEN T name(T *at, typename EmuSame<T>::type x)                        \
    {                                                                                                                  \
        emu_atomic(at, sizeof *at);                                                                                    \
        const T old = *at;                                                                                             \
        *at = (expression);                                                                                            \
        return old;                                                                                                    \
    }
EMU_ATOMIC(atomicAdd, old + x)
EMU_ATOMIC(atomicSub, old - x)
EMU_ATOMIC(atomicExch, x)
EMU_ATOMIC(atomicMin, x < old ? x : old)
EMU_ATOMIC(atomicMax, x > old ? x : old)
EMU_ATOMIC(atomicAnd, old & x)
EMU_ATOMIC(atomicOr, old | x)
EMU_ATOMIC(atomicXor, old ^ x)
#undef EMU_ATOMIC
template <EmuInteger T> static inline EMU_UNSEEN T atomicCAS(T *at, typename EmuSame<T>::type compare, typename EmuSame<T>::type x)
{
    emu_atomic(at, sizeof *at);
    const T old = *at;
    if (old == compare) *at = x;
    return old;
}

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldlu(const T *p) { return *p; }
template <typename T> static inline T __ldcv(const T *p) { return *p; }
template <typename T> static inline void __stwb(T *p, T x) { *p = x; }
template <typename T> static inline void __stcg(T *p, T x) { *p = x; }
template <typename T> static inline void __stcs(T *p, T x) { *p = x; }
template <typename T> static inline void __stwt(T *p, T x) { *p = x; }

#include "emu_math.h"
#endif
