/* What lanes of a warp do together, done by the last one that comes (emulator.cpp), and copies of 16 bytes.
 * Products sum in float from k = 0 up, then add to d; the hardware's order is its own and not documented. */
#include "emu_inside.h"
#include <vector>

const char *const emu_kind_name[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or", "__syncwarp", "__shfl_sync",
                                     "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync", "__any_sync", "__all_sync",
                                     "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_min_sync", "__reduce_max_sync",
                                     "mma", "ldmatrix", "emu_yield"};

/* ---- shuffles, votes ---- */
uint64_t emu_shuffle(int kind, unsigned mask, uint64_t bits, int by, int width, const char *file, int line)
{
    if (width < 1 || width > 32 || (width & (width - 1))) emu_die(file, line, "%s: width %d", emu_kind_name[kind], width);
    EmuShuffle s = {bits, by, width};
    emu_meet(kind, mask, &s, false, file, line);
    return s.bits;
}
unsigned emu_vote(int kind, unsigned mask, unsigned x, const char *file, int line)
{
    EmuVote v = {x};
    emu_meet(kind, mask, &v, false, file, line);
    return v.x;
}
static void shuffle(int kind, unsigned lanes, EmuWait *wait)
{
    uint64_t was[32];
    for (int l = 0; l < 32; l++) was[l] = lanes >> l & 1u ? ((EmuShuffle *)wait[l].arg)->bits : UINT64_MAX;       /* not there: a NaN */
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1u)) continue;
        EmuShuffle *s = (EmuShuffle *)wait[l].arg;
        const int first = l & ~(s->width - 1), last = first + s->width - 1;
        int from = kind == EMU_SHFL ? first + (s->by & (s->width - 1)) : kind == EMU_SHFL_UP ? l - s->by : kind == EMU_SHFL_DOWN ? l + s->by : l ^ s->by;
        if (from > last || (kind == EMU_SHFL_UP && from < first) || from < 0) from = l;
        s->bits = was[from];
    }
}
static void vote(int kind, unsigned lanes, EmuWait *wait)
{
    bool first = true;
    unsigned all = kind == EMU_ALL;
    for (unsigned m = lanes; m; m &= m - 1, first = false) {
        const int l = __builtin_ctz(m);
        const unsigned x = ((EmuVote *)wait[l].arg)->x;
        switch (kind) {
        case EMU_BALLOT: all |= x << l; break;
        case EMU_ANY: all |= x; break;
        case EMU_ALL: all &= x; break;
        case EMU_REDUCE_ADD: all += x; break;
        case EMU_REDUCE_MIN: all = first || (int)x < (int)all ? x : all; break;
        case EMU_REDUCE_MAX: all = first || (int)x > (int)all ? x : all; break;
        case EMU_REDUCE_UMIN: all = first || x < all ? x : all; break;
        case EMU_REDUCE_UMAX: all = first || x > all ? x : all; break;
        default: break;
        }
    }
    for (unsigned m = lanes; m; m &= m - 1) ((EmuVote *)wait[__builtin_ctz(m)].arg)->x = all;
}

/* ---- d [16, 8] += a [16, k] b [k, 8] of bf16, fragments as cuda_mma.h has them ---- */
typedef float Eight __attribute__((vector_size(32)));
static inline float low(uint32_t word) { return __uint_as_float(word << 16); }
static inline float high(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
static __forceinline__ void multiply(int k, const float (*a)[16], const Eight *b, Eight *d)
{
    for (int g = 0; g < 16; g += 4) {
        Eight sum[4] = {};
        for (int i = 0; i < k; i++)
            for (int r = 0; r < 4; r++) sum[r] += a[g + r][i] * b[i];
        for (int r = 0; r < 4; r++) d[g + r] = sum[r];
    }
}
#ifdef __x86_64__
#ifndef __clang__
__attribute__((optimize("O3")))
#endif
__attribute__((target("avx2"))) static void multiply_avx2(int k, const float (*a)[16], const Eight *b, Eight *d) { multiply(k, a, b, d); }
static const bool has_avx2 = __builtin_cpu_supports("avx2");
#endif
static void mma(EmuWait *wait)
{
    const int k = ((EmuMma *)wait[0].arg)->k;
    float a[16][16];
    Eight b[16], sum[16];
    for (int l = 0; l < 32; l++) {
        const EmuMma *m = (EmuMma *)wait[l].arg;
        const int g = l / 4, t = l % 4;
        if (m->k != k) emu_die(wait[l].file, wait[l].line, "mma of k %d meets mma of k %d", m->k, k);
        for (int half = 0; half < k / 8; half++) {
            for (int down = 0; down < 2; down++) {
                const uint32_t word = m->a[2 * half + down];
                a[g + 8 * down][8 * half + 2 * t] = low(word);
                a[g + 8 * down][8 * half + 2 * t + 1] = high(word);
            }
            b[8 * half + 2 * t][g] = low(m->b[half]);
            b[8 * half + 2 * t + 1][g] = high(m->b[half]);
        }
    }
#ifdef __x86_64__
    if (has_avx2) multiply_avx2(k, a, b, sum);
    else multiply(k, a, b, sum);
#else
    multiply(k, a, b, sum);
#endif
    for (int l = 0; l < 32; l++) {
        float *d = ((EmuMma *)wait[l].arg)->d;
        const int g = l / 4, t = l % 4;
        d[0] += sum[g][2 * t];
        d[1] += sum[g][2 * t + 1];
        d[2] += sum[g + 8][2 * t];
        d[3] += sum[g + 8][2 * t + 1];
    }
}
void emu_mma(float *d, const uint32_t *a, const uint32_t *b, int k, const char *file, int line)
{
    EmuMma m = {d, a, b, k};
    emu_meet(EMU_MMA, 0xffffffffu, &m, true, file, line);
}

/* ---- 8x8 matrices of bf16 from shared memory ---- */
static void ldmatrix(EmuWait *wait)
{
    const int n = ((EmuLdmatrix *)wait[0].arg)->n;
    const bool transposed = ((EmuLdmatrix *)wait[0].arg)->transposed;
    uint16_t m[4][8][8];
    for (int l = 0; l < 32; l++) {
        const EmuLdmatrix *x = (EmuLdmatrix *)wait[l].arg;
        if (x->n != n || x->transposed != transposed) emu_die(wait[l].file, wait[l].line, "different ldmatrix meet");
        if (l >= 8 * n) continue;
        if ((uintptr_t)x->row % 16) emu_die(wait[l].file, wait[l].line, "ldmatrix: the address %p of lane %d is not a multiple of 16", x->row, l);
        if (!emu_is_shared(x->row, 16)) emu_die(wait[l].file, wait[l].line, "ldmatrix: the address %p of lane %d is not in shared memory", x->row, l);
        emu_race_warp_reads(emu_thread() / 32, x->row, 16, x->pc);
        memcpy(m[l / 8][l % 8], x->row, 16);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < n; i++) {
            const int g = l / 4, t = 2 * (l % 4);
            const uint32_t lo = transposed ? m[i][t][g] : m[i][g][t], hi = transposed ? m[i][t + 1][g] : m[i][g][t + 1];
            ((EmuLdmatrix *)wait[l].arg)->r[i] = lo | hi << 16;
        }
}
void emu_ldmatrix(uint32_t *r, const void *row, int n, bool transposed, const char *file, int line)
{
    EmuLdmatrix x = {r, row, n, transposed, EMU_CALLER};
    emu_meet(EMU_LDMATRIX, 0xffffffffu, &x, true, file, line);
}

void emu_together(int kind, unsigned lanes, EmuWait *wait)
{
    if (kind == EMU_MMA || kind == EMU_LDMATRIX) {
        const EmuWait &w = wait[__builtin_ctz(lanes)];
        if (lanes != 0xffffffffu) emu_die(w.file, w.line, "%s without all 32 lanes (%08x)", emu_kind_name[kind], lanes);
        if (kind == EMU_MMA) mma(wait);
        else ldmatrix(wait);
    } else if (kind >= EMU_SHFL && kind <= EMU_SHFL_XOR) {
        shuffle(kind, lanes, wait);
    } else {
        vote(kind, lanes, wait);
    }
}

void emu_atomic(const void *at, size_t bytes) { emu_race_touch(at, bytes, EMU_ATOMIC_WRITE, EMU_CALLER); }

/* ---- words between warps ---- */
int emu_take(const int *at, const char *file, int line)
{
    emu_yield(file, line);
    emu_race_take(at, EMU_CALLER);
    return *at;
}
void emu_give(int *at, int x)
{
    emu_race_give(at, EMU_CALLER);
    *at = x;
}

/* ---- copies: those of a thread in the order it asked for them ---- */
struct Copy { void *to; const void *from; int group; bool done; };
struct Copies {
    std::vector<Copy> todo;
    size_t done;
    int group;                                            /* the one that is being filled */
};
static std::vector<Copies> copies;

void emu_copies_begin_block(int threads)
{
    if ((int)copies.size() < threads) copies.resize((size_t)threads);
    for (int i = 0; i < threads; i++) {                   /* nobody waited for what is left: it may never land */
        copies[(size_t)i].todo.clear();
        copies[(size_t)i].done = 0;
        copies[(size_t)i].group = 0;
    }
}
static void copy(const Copy &c)
{
    if (c.done) return;
    if (c.from) memcpy(c.to, c.from, 16);
    else memset(c.to, 0, 16);
}
void emu_copy_16(void *to, const void *from, bool there, const char *file, int line)
{
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) emu_die(file, line, "copy_16 from %p to %p: not multiples of 16", from, to);
    if (!emu_is_shared(to, 16)) emu_die(file, line, "copy_16 to %p, which is not shared memory", to);
    if (there && !emu_within_device(from, 16)) emu_die(file, line, "copy_16 from %p, which is not within device memory", from);
    Copies &mine = copies[(size_t)emu_thread()];
    const Copy c = {to, there ? from : nullptr, mine.group, false};
    emu_race_copy(c.to, c.from, EMU_CALLER);
    if (!emu_copies_late()) copy(c);
    mine.todo.push_back(c);
    mine.todo.back().done = !emu_copies_late();
}
void emu_copy_commit(void) { copies[(size_t)emu_thread()].group++; }
void emu_copy_wait(int groups)
{
    Copies &mine = copies[(size_t)emu_thread()];
    for (; mine.done < mine.todo.size() && mine.todo[mine.done].group < mine.group - groups; mine.done++) {
        copy(mine.todo[mine.done]);
        emu_race_copied(mine.todo[mine.done].to);
    }
    if (mine.done && mine.done == mine.todo.size()) {
        mine.todo.clear();
        mine.done = 0;
    }
}
