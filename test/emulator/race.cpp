/* Races between threads of emulated kernels, found whatever order they happened to run in: two accesses to the same memory, one of them
 * a write, and nothing that orders them. Kernels are compiled with -fsanitize=thread, whose calls (__tsan_read4 and its like) end
 * here; libtsan itself is not linked: it forgets all but four accesses of a word, has no copies that end later, and a fiber costs it
 * milliseconds.
 *
 * Each thread has a clock that ticks when it tells others what it did: a barrier of the block, __syncwarp, give_shared. An access by thread
 * u at its clock c is ordered before what t does now if c <= the block's last barrier, the warp's last __syncwarp, or known[t][u].
 * Shuffles, votes, ldmatrix and mma order nothing. ldmatrix reads for all lanes of the warp. A copy writes from when it is asked for
 * until its thread waits: nothing is ordered with it meanwhile. Blocks of a launch are unordered; pieces of work (launches, copies,
 * fills) are ordered as streams, events and recorded graphs say (runtime.cpp). Atomics do not race with one another and order nothing.
 *
 * Every word of device and shared memory has a Cell: the last write, and who has read since; its upper half has another, used once the
 * two halves are not touched alike. */
#include "emu_inside.h"
#ifdef EMU_RACE
#include "race_report.h"
#include <algorithm>
#include <map>
#include <sys/mman.h>

namespace {
enum { MAX_THREADS = 1024, WORD = 4, CLOCK_BITS = 22, STATIC = 1 << 18, DYNAMIC = 1 << 20 };
constexpr uint32_t UNDER_WAY = (1u << CLOCK_BITS) - 1u;                /* the clock of a copy nobody has waited for */
constexpr uint32_t ATOMIC = 1u << 31;                                  /* in a write's pc */
constexpr uint32_t HALVES = 1u << 31;                                  /* in a first reader's pc: the word's upper half has a cell of its own */
constexpr size_t ARENA = (size_t)1 << 40;
/* at: thread (a write) or warp (reads) and clock. block: a serial number over all blocks that ever ran, copies and fills counting as one. */
struct Cell { uint32_t w_block, w_at, w_pc, r_block, r_at, r_mask, r_pc, r_more; };
struct Reader { uint32_t block, at, mask, pc, more; };                 /* more: the next one's index, 0: none */
struct Piece { uint32_t first; int stream; uint32_t count; };          /* first: its first block */
struct Where { Cell *cell; ptrdiff_t half; bool shared; };
/* Shared memory's cells; the device's lie in an arena of their own. */
Cell dynamic_cell[2 * DYNAMIC / WORD], static_cell[2 * STATIC / WORD];
Cell *device_cell;
char *arena;
size_t arena_used;
std::vector<Reader> pool(1);
uint32_t free_reader;

bool running;
uint32_t serial, block, piece_first;                       /* the last block there was; the running one; the first of its piece */
int threads, thread;
uint32_t bar, warp_bar[MAX_THREADS / 32], clocks[MAX_THREADS];
bool knows[MAX_THREADS];
uint32_t known[MAX_THREADS][MAX_THREADS];
std::map<const void *, std::vector<uint32_t>> given;
const char *dynamic_shared, *static_shared;
size_t dynamic_bytes, static_bytes;
std::vector<Piece> pieces;
EmuClock before, done;                                     /* done: of every stream, so many pieces have run */
bool in_line;                                              /* every piece that has run is ordered before this one */
}

/* ---- what is ordered ---- */
static uint32_t pack(uint32_t who, uint32_t clock) { return who << CLOCK_BITS | clock; }
static uint32_t clock_of(uint32_t at) { return at & UNDER_WAY; }
static bool seen(uint32_t u, uint32_t c, uint32_t t)
{
    if (c <= bar) return true;
    if (c == UNDER_WAY) return false;
    return u == t || (u / 32 == t / 32 && c <= warp_bar[u / 32]) || (knows[t] && c <= known[t][u]);
}
/* Of another block. */
static bool ended(uint32_t other)
{
    if (other >= piece_first) return false;
    if (in_line) return true;
    const auto p = std::upper_bound(pieces.begin(), pieces.end(), other, [](uint32_t b, const Piece &x) { return b < x.first; }) - 1;
    return p->count <= ((size_t)p->stream < before.size() ? before[(size_t)p->stream] : 0);
}
static bool all_seen(uint32_t at, uint32_t mask, uint32_t t)
{
    const uint32_t w = at >> CLOCK_BITS, c = clock_of(at);
    if (c <= bar || (w == t / 32 && c <= warp_bar[w])) return true;
    for (; mask; mask &= mask - 1)
        if (!seen(w * 32 + (uint32_t)__builtin_ctz(mask), c, t)) return false;
    return true;
}

/* ---- cells ---- */
static inline Where find(const void *p)
{
    const size_t a = (size_t)((const char *)p - arena);
    if (a < ARENA) return Where{device_cell + a / WORD, ARENA / WORD, false};
    const size_t d = (size_t)((const char *)p - dynamic_shared);
    if (d < dynamic_bytes) return Where{dynamic_cell + d / WORD, DYNAMIC / WORD, true};
    const size_t s = (size_t)((const char *)p - static_shared);
    if (s < static_bytes) return Where{static_cell + s / WORD, STATIC / WORD, true};
    return Where{nullptr, 0, false};
}
static void forget(Cell *c)
{
    while (c->r_more) {
        const uint32_t next = pool[c->r_more].more;
        pool[c->r_more].more = free_reader;
        free_reader = c->r_more;
        c->r_more = next;
    }
    c->r_block = 0;
}
static uint32_t new_reader(const Reader &r)
{
    uint32_t i = free_reader;
    if (i) free_reader = pool[i].more;
    else i = (uint32_t)pool.size(), pool.emplace_back();
    pool[i] = r;
    return i;
}
static void split(Cell *c, Cell *half)
{
    forget(half);
    *half = *c;
    half->r_more = 0;
    for (uint32_t i = c->r_more; i; i = pool[i].more) half->r_more = new_reader(Reader{pool[i].block, pool[i].at, pool[i].mask, pool[i].pc, half->r_more});
    c->r_pc |= HALVES;
}
/* f(cell) for what lies in [p, p + bytes) of memory at w. */
template <typename F> static inline void each_cell(const Where &w, const void *p, size_t bytes, bool writes, F f)
{
    const size_t from = (size_t)p % WORD, to = from + bytes;
    Cell *c = w.cell;
    for (size_t at = 0; at < to; at += WORD, c++) {
        const bool low = from < at + WORD / 2, high = to > at + WORD / 2;
        if (!(low && high) && !(c->r_pc & HALVES)) split(c, c + w.half);
        if (low) f(c);
        if (high && c->r_pc & HALVES) f(c + w.half);
        if (low && high && writes) c->r_pc &= ~HALVES;
    }
}
static void report(const Where &where, const void *p, size_t bytes, EmuTouch what, const void *pc, bool wrote, uint32_t other, uint32_t who, uint32_t other_pc)
{
    char place[100];
    if (!where.shared) emu_name_device(p, place, sizeof place);
    else if ((size_t)((const char *)p - dynamic_shared) < dynamic_bytes)
        snprintf(place, sizeof place, "byte %td of dynamic shared memory", (const char *)p - dynamic_shared);
    else snprintf(place, sizeof place, "byte %td of static shared memory", (const char *)p - static_shared);
    race_report(RaceReport{place, bytes, what, pc, thread, wrote, other_pc & ~ATOMIC, (int)who, other == block ? -1 : (int)(other - piece_first),
                           other != block && other < piece_first});
}
/* Is the last write ordered before thread t's access? */
static inline bool after_write(const Cell *c, bool shared, uint32_t t, bool atomic)
{
    if (c->w_block == block) return seen(c->w_at >> CLOCK_BITS, clock_of(c->w_at), t) || (atomic && c->w_pc & ATOMIC);
    return shared || !c->w_block || ended(c->w_block) || (atomic && c->w_pc & ATOMIC);
}
static inline bool wrote_before_warp(const Cell *c, bool shared, uint32_t w)
{
    if (c->w_block != block) return shared || !c->w_block;
    const uint32_t u = c->w_at >> CLOCK_BITS, clock = clock_of(c->w_at);
    return clock <= bar || (u / 32 == w && clock <= warp_bar[w]);
}
static bool reader_gone(bool shared, uint32_t its, uint32_t at, uint32_t mask)
{
    return its == block ? all_seen(at, mask, (uint32_t)thread) : shared || !its || ended(its);
}
/* The one that reads often comes first. */
static void swap_readers(Cell *c, uint32_t i)
{
    const Reader r = pool[i];
    pool[i] = Reader{c->r_block, c->r_at, c->r_mask, c->r_pc & ~HALVES, r.more};
    c->r_block = r.block, c->r_at = r.at, c->r_mask = r.mask, c->r_pc = r.pc | (c->r_pc & HALVES);
}
/* Readers that are ordered before this one need not be kept; of blocks that are not, two will do: whoever writes is not one of them. */
static void add_reader(Cell *c, bool shared, uint32_t at, uint32_t mask, uint32_t pc)
{
    if (c->r_block == block && c->r_at == at) {
        c->r_mask |= mask;
        return;
    }
    if (!c->r_more && reader_gone(shared, c->r_block, c->r_at, c->r_mask)) {
        c->r_block = block, c->r_at = at, c->r_mask = mask, c->r_pc = pc | (c->r_pc & HALVES);
        return;
    }
    if (shared && c->r_block != block) forget(c);
    uint32_t one = 0;
    if (c->r_block && c->r_block != block && c->r_block >= piece_first) one = c->r_block;
    for (uint32_t *link = &c->r_more; *link;) {
        Reader *r = &pool[*link];
        if (r->block == block && r->at == at) {
            r->mask |= mask;
            swap_readers(c, *link);
            return;
        }
        if (r->block != block && r->block >= piece_first) {
            if (one && r->block != one) return;
            one = r->block;
        }
        if (reader_gone(shared, r->block, r->at, r->mask)) {
            const uint32_t gone = *link;
            *link = r->more;
            r->more = free_reader;
            free_reader = gone;
        } else {
            link = &r->more;
        }
    }
    if (reader_gone(shared, c->r_block, c->r_at, c->r_mask)) {
        c->r_block = block, c->r_at = at, c->r_mask = mask, c->r_pc = pc | (c->r_pc & HALVES);
        return;
    }
    const uint32_t i = new_reader(Reader{block, at, mask, pc, c->r_more});
    c->r_more = i;
    swap_readers(c, i);
}
/* A reader that this write comes neither after nor from: its index, 0 for the first; -1: none. */
static bool unordered(bool shared, uint32_t its, uint32_t at, uint32_t mask, uint32_t *who)
{
    if (its != block) {
        *who = 0;
        return !shared && its && !ended(its);
    }
    if (all_seen(at, mask, (uint32_t)thread)) return false;
    for (; mask; mask &= mask - 1) {
        *who = (at >> CLOCK_BITS) * 32 + (uint32_t)__builtin_ctz(mask);
        if (!seen(*who, clock_of(at), (uint32_t)thread)) return true;
    }
    return false;
}
static bool race_with_readers(const Cell *c, const Where &w, const void *p, size_t bytes, EmuTouch what, const void *pc)
{
    uint32_t who;
    if (c->r_block && unordered(w.shared, c->r_block, c->r_at, c->r_mask, &who)) {
        report(w, p, bytes, what, pc, false, c->r_block, who, c->r_pc & ~HALVES);
        return true;
    }
    for (uint32_t i = c->r_more; i; i = pool[i].more)
        if (unordered(w.shared, pool[i].block, pool[i].at, pool[i].mask, &who)) {
            report(w, p, bytes, what, pc, false, pool[i].block, who, pool[i].pc);
            return true;
        }
    return false;
}
/* Lanes of a warp may store the same to the same place by one instruction: it is one of them, whichever. What they store is seen later:
 * when the thread stops, or writes again. */
static struct { const char *p; char was[16]; size_t bytes; Where where; uint32_t who, pc; int thread; const void *at; } doubt;
static void settle(void)
{
    if (!doubt.p) return;
    const int was = thread;
    thread = doubt.thread;
    if (memcmp(doubt.p, doubt.was, doubt.bytes)) report(doubt.where, doubt.p, doubt.bytes, EMU_WRITE, doubt.at, true, block, doubt.who, doubt.pc);
    thread = was;
    doubt.p = nullptr;
}
static bool may_be_same(const Cell *c, const Where &w, const void *p, size_t bytes, const void *pc, uint32_t t, uint32_t clock)
{
    const uint32_t who = c->w_at >> CLOCK_BITS;
    if (!w.shared || c->w_block != block || who / 32 != t / 32 || clock_of(c->w_at) != clock || clock == UNDER_WAY || c->w_pc != race_pc(pc) || bytes > 16)
        return false;
    doubt = {(const char *)p, {}, bytes, w, who, c->w_pc, (int)t, pc};
    memcpy(doubt.was, p, bytes);
    return true;
}
struct Access { const void *p; size_t bytes; EmuTouch what; const void *pc; uint32_t clock; Where where; bool told; };
static inline void look(Access &a, Cell *c)
{
    const bool atomic = a.what >= EMU_ATOMIC_READ, writes = a.what == EMU_WRITE || a.what == EMU_ATOMIC_WRITE, shared = a.where.shared;
    const uint32_t t = (uint32_t)thread, pc = race_pc(a.pc);
    if (!a.told && !after_write(c, shared, t, atomic)) {
        a.told = a.what != EMU_WRITE || !may_be_same(c, a.where, a.p, a.bytes, a.pc, t, a.clock);
        if (a.told) report(a.where, a.p, a.bytes, a.what, a.pc, true, c->w_block, c->w_at >> CLOCK_BITS, c->w_pc);
    }
    if (!writes) {
        if (!atomic) add_reader(c, shared, pack(t / 32, a.clock), 1u << t % 32, pc);
        return;
    }
    if (c->r_block || c->r_more) {
        if (!a.told) a.told = race_with_readers(c, a.where, a.p, a.bytes, a.what, a.pc);
        forget(c);
    }
    c->w_block = block, c->w_at = pack(t, a.clock), c->w_pc = pc | (atomic ? ATOMIC : 0);
}
static inline void touch(const void *p, size_t bytes, EmuTouch what, const void *pc, uint32_t clock)
{
    const Where w = find(p);
    if (!w.cell) return;
    if (what != EMU_READ && doubt.p) settle();
    Access a = {p, bytes, what, pc, clock, w, false};
    each_cell(w, p, bytes, what == EMU_WRITE || what == EMU_ATOMIC_WRITE, [&](Cell *c) { look(a, c); });
}
void emu_race_touch(const void *p, size_t bytes, EmuTouch what, const void *pc)
{
    if (running) touch(p, bytes, what, pc, clocks[thread]);
}
/* Every lane of the warp reads: all at once where they stand alike, as they mostly do. */
void emu_race_warp_reads(int warp, const void *p, size_t bytes, const void *pc)
{
    const int was = thread, first = warp * 32;
    const Where w = find(p);
    const uint32_t clock = clocks[first];
    if (!w.cell) return;
    bool told = false, alike = true;
    for (int l = 1; l < 32; l++) alike = alike && clocks[first + l] == clock;
    thread = first;
    each_cell(w, p, bytes, false, [&](Cell *c) {
        for (thread = first; thread < first + 32 && !told && !wrote_before_warp(c, w.shared, (uint32_t)warp); thread++)
            if (!after_write(c, w.shared, (uint32_t)thread, false)) {
                report(w, p, bytes, EMU_READ, pc, true, c->w_block, c->w_at >> CLOCK_BITS, c->w_pc);
                told = true;
            }
        for (thread = first; thread < first + (alike ? 1 : 32); thread++)
            add_reader(c, w.shared, pack((uint32_t)warp, clocks[thread]), alike ? 0xffffffffu : 1u << thread % 32, race_pc(pc));
    });
    thread = was;
}
/* From now on nobody may touch `to`, what others did there must be over; `from` is read. */
void emu_race_copy(const void *to, const void *from, const void *pc)
{
    if (from) touch(from, 16, EMU_READ, pc, clocks[thread]);
    touch(to, 16, EMU_WRITE, pc, UNDER_WAY);
}
void emu_race_copied(const void *to)
{
    const Where w = find(to);
    each_cell(w, to, 16, false, [](Cell *c) {
        if (c->w_block == block && c->w_at == pack((uint32_t)thread, UNDER_WAY)) c->w_at = pack((uint32_t)thread, clocks[thread]);
    });
}

/* ---- what orders threads ---- */
static void tick(uint32_t *clock)
{
    if (++*clock >= UNDER_WAY) emu_die(__FILE__, __LINE__, "more barriers than a clock has ticks");
}
static uint32_t *row(int t)
{
    if (!knows[t]) memset(known[t], 0, (size_t)threads * sizeof known[t][0]);
    knows[t] = true;
    return known[t];
}
void emu_race_thread(int t)
{
    settle();
    thread = t;
}
void emu_race_barrier(void)
{
    for (int t = 0; t < threads; t++) bar = std::max(bar, clocks[t]);
    uint32_t next = bar;
    tick(&next);
    std::fill(clocks, clocks + threads, next);
    std::fill(knows, knows + threads, false);
    given.clear();
}
/* mask: who meets, those included that have ended. */
void emu_race_syncwarp(int warp, unsigned mask)
{
    const int first = warp * 32, end = std::min(first + 32, threads);
    const unsigned everybody = end - first == 32 ? 0xffffffffu : (1u << (end - first)) - 1u, lanes = mask & everybody;
    bool some = false;
    for (int t = first; t < end; t++) some = some || knows[t];
    std::vector<uint32_t> all;
    if (some || lanes != everybody) {
        all.resize((size_t)threads);
        for (unsigned m = lanes; m; m &= m - 1) {
            const int t = first + __builtin_ctz(m);
            if (knows[t])
                for (int u = 0; u < threads; u++) all[(size_t)u] = std::max(all[(size_t)u], known[t][u]);
            all[(size_t)t] = clocks[t];
        }
        for (unsigned m = lanes; m; m &= m - 1) std::copy(all.begin(), all.end(), row(first + __builtin_ctz(m)));
    }
    if (lanes == everybody) {
        uint32_t next = *std::max_element(clocks + first, clocks + end);
        warp_bar[warp] = next;
        tick(&next);
        std::fill(clocks + first, clocks + end, next);
    } else {
        for (unsigned m = lanes; m; m &= m - 1) tick(&clocks[first + __builtin_ctz(m)]);
    }
}
/* What the giver knows, its own warp's __syncwarp included, becomes what every taker knows. */
void emu_race_give(const void *word, const void *pc)
{
    emu_race_touch(word, 4, EMU_ATOMIC_WRITE, pc);
    if (!running) return;
    std::vector<uint32_t> &g = given[word];
    g.resize((size_t)threads);
    for (int u = 0; u < threads; u++) {
        const uint32_t c = knows[thread] ? known[thread][u] : 0;
        g[(size_t)u] = u / 32 == thread / 32 ? std::max(c, warp_bar[u / 32]) : c;
    }
    g[(size_t)thread] = clocks[thread];
    tick(&clocks[thread]);
}
void emu_race_take(const void *word, const void *pc)
{
    emu_race_touch(word, 4, EMU_ATOMIC_READ, pc);
    const auto g = given.find(word);
    if (!running || g == given.end()) return;
    uint32_t *mine = row(thread);
    for (int u = 0; u < threads; u++) mine[u] = std::max(mine[u], g->second[(size_t)u]);
}

/* ---- blocks, launches, memory ---- */
void emu_race_block(int n, const void *shared, size_t bytes)
{
    threads = n;
    block = ++serial;
    bar = 0;
    std::fill(clocks, clocks + n, 1u);
    std::fill(knows, knows + n, false);
    std::fill(warp_bar, warp_bar + MAX_THREADS / 32, 0u);
    given.clear();
    dynamic_shared = (const char *)shared;
    dynamic_bytes = bytes;
}
void emu_race_kernel(const EmuLaunch *launch, const void *its_static, size_t bytes)
{
    settle();
    running = launch != nullptr;
    static_shared = (const char *)its_static;
    static_bytes = std::min(bytes, (size_t)STATIC);
    if (running) race_report_launch(launch);
}
void emu_race_piece(int stream, const EmuClock &seen_before)
{
    before = seen_before;
    done.resize(std::max(done.size(), before.size()));
    in_line = true;
    for (size_t i = 0; i < done.size(); i++) in_line = in_line && done[i] <= (i < before.size() ? before[i] : 0);
    done[(size_t)stream] = std::max(done[(size_t)stream], before[(size_t)stream]);
    piece_first = serial + 1;
    pieces.push_back(Piece{piece_first, stream, before[(size_t)stream]});
}
void emu_race_moved(const void *p, size_t bytes, EmuTouch what)
{
    const EmuLaunch move = {what == EMU_READ ? "a copy from here" : "a copy or a fill", "", 0, nullptr, 1, 1, 0, nullptr};
    if (serial < piece_first) emu_race_block(1, nullptr, 0);
    emu_race_kernel(&move, nullptr, 0);
    thread = 0;
    emu_race_touch(p, bytes, what, nullptr);
    emu_race_kernel(nullptr, nullptr, 0);
}
static void *reserve(size_t bytes, int rights)
{
    void *p = mmap(nullptr, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) emu_die(__FILE__, __LINE__, "no room for the race detector");
    return p;
}
void *emu_race_place(size_t bytes)
{
    if (!arena) {
        arena = (char *)reserve(ARENA, PROT_NONE);
        device_cell = (Cell *)reserve(2 * ARENA / WORD * sizeof(Cell), PROT_READ | PROT_WRITE);
    }
    if (arena_used + bytes > ARENA) emu_die(__FILE__, __LINE__, "the race detector has no more addresses");
    arena_used += bytes;
    return arena + arena_used - bytes;
}
bool emu_race_gone(void *map, size_t bytes)
{
    Cell *cell = find(map).cell;
    for (int half = 0; half < 2; half++) madvise(cell + half * (ARENA / WORD), bytes / WORD * sizeof *cell, MADV_DONTNEED);
    return mmap(map, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == map;
}

/* ---- what -fsanitize=thread calls ---- */
extern "C" {
#define ENTRY __attribute__((visibility("default"), noinline))
#define ENTRIES(n)                                                                                                     \
    ENTRY void __tsan_read##n(void *p) { emu_race_touch(p, n, EMU_READ, EMU_CALLER); }                                 \
    ENTRY void __tsan_write##n(void *p) { emu_race_touch(p, n, EMU_WRITE, EMU_CALLER); }                               \
    ENTRY void __tsan_unaligned_read##n(void *p) { emu_race_touch(p, n, EMU_READ, EMU_CALLER); }                       \
    ENTRY void __tsan_unaligned_write##n(void *p) { emu_race_touch(p, n, EMU_WRITE, EMU_CALLER); }
ENTRIES(1)
ENTRIES(2)
ENTRIES(4)
ENTRIES(8)
ENTRIES(16)
ENTRY void __tsan_read_range(void *p, size_t n) { emu_race_touch(p, n, EMU_READ, EMU_CALLER); }
ENTRY void __tsan_write_range(void *p, size_t n) { emu_race_touch(p, n, EMU_WRITE, EMU_CALLER); }
ENTRY void __tsan_vptr_update(void **, void *) {}
ENTRY void __tsan_vptr_read(void **) {}
ENTRY void __tsan_func_entry(void *) {}
ENTRY void __tsan_func_exit(void) {}
ENTRY void __tsan_init(void) {}
}
#endif
