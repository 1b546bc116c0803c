/* Threads of a block as fibers, on one thread of this processor (cuda_runtime.h).
 *
 * A warp runs until each of its lanes waits at a barrier or has ended, then the next warp; when all have, the barrier opens. A
 * fiber that ends its thread goes on with the next one, so a kernel that never waits needs one fiber. Lanes that meet (shuffles,
 * votes, products) leave their arguments where the last one finds them: it does the work of all (collectives.cpp).
 * A thread that ended counts as arrived everywhere, as on the hardware. A block in which nobody can go on is reported: abort(). */
#include "emu_inside.h"
#include <link.h>
#include <mutex>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

enum { MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, STACK = 256 << 10, PAGE = 4096, MAX_SHARED = 232448, MOST_ROUNDS = 1 << 16 };

/* ---- switching stacks ---- */
#if defined __x86_64__ && !defined EMU_UCONTEXT
extern "C" void emu_switch(void **save, void *to);
extern "C" void emu_start(void);
__asm__(".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch,@function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emu_switch,.-emu_switch\n"
        ".globl emu_start\n.hidden emu_start\n.type emu_start,@function\nemu_start:\nmov %r12,%rdi\nxor %ebp,%ebp\ncall *%r13\nud2\n"
        ".size emu_start,.-emu_start\n");
typedef void *Context;
static void prepare(Context *c, char *stack, size_t size, void (*run)(void *), void *arg)
{
    void **top = (void **)(stack + size - 64);            /* 16-aligned, so that emu_start's call is aligned as the ABI wants */
    *--top = (void *)emu_start;
    *--top = nullptr;                                     /* rbp */
    *--top = nullptr;                                     /* rbx */
    *--top = arg;                                         /* r12 */
    *--top = (void *)run;                                 /* r13 */
    *--top = nullptr;
    *--top = nullptr;
    *c = top;
}
static inline void change(Context *save, Context *to) { emu_switch(save, *to); }
#else
#include <ucontext.h>
typedef ucontext_t Context;
static void start(unsigned a, unsigned b, unsigned c, unsigned d)
{
    ((void (*)(void *))(uintptr_t)((uint64_t)a << 32 | b))((void *)(uintptr_t)((uint64_t)c << 32 | d));
}
static void prepare(Context *c, char *stack, size_t size, void (*run)(void *), void *arg)
{
    const uint64_t f = (uintptr_t)run, x = (uintptr_t)arg;
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = size;
    c->uc_link = nullptr;
    makecontext(c, (void (*)())start, 4, (unsigned)(f >> 32), (unsigned)f, (unsigned)(x >> 32), (unsigned)x);
}
static inline void change(Context *save, Context *to) { swapcontext(save, to); }
#endif

/* ---- state of the running block ---- */
struct Fiber { Context at; };
/* Masks of lanes. ready: may run, those not started included; the running lane is ready. yielded: once other warps have had their turn. */
struct Warp {
    uint32_t ready, started, waiting, barrier, yielded, alive, begun;
    Fiber *fiber[32];
    EmuWait wait[32];
};
enum Order { ALTERNATE, FORWARD, BACKWARD, SHUFFLE };

static std::mutex lock;
static Warp warps[MAX_WARPS];
static uint3 place[MAX_THREADS];
static Warp *warp;                                        /* of the running thread */
static int lane, n_warps, at_warp, idle_rounds, order[MAX_WARPS];
static Order policy;
static bool late, active, closed;                         /* closed: nobody has begun, the device's memory is hidden */
static const EmuLaunch *now;
static const std::function<void()> *body;
static Context outside;
static Fiber fibers[MAX_THREADS], *idle[MAX_THREADS];
static int n_fibers, n_idle, barrier_result;
static uint64_t launches, seed;
static char *stacks, *shared_end, *shared_base, *static_shared;
static size_t static_bytes;
static struct sigaction before[3];

bool emu_running(void) { return active; }
int emu_thread(void) { return (int)(warp - warps) * 32 + lane; }
bool emu_copies_late(void) { return late; }
void *emu_shared(void) { return shared_base; }
unsigned emu_active(void) { return warp->alive; }

static unsigned chance(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 32);
}

void emu_die(const char *file, int line, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "emulator: %s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (active)
        fprintf(stderr, "\n  in kernel %s launched at %s:%d, block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of (%u, %u, %u)", now->name, now->file,
                now->line, blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, threadIdx.x, threadIdx.y, threadIdx.z, blockDim.x, blockDim.y,
                blockDim.z);
    fputc('\n', stderr);
    abort();
}

static bool waits(int t) { return (warps[t / 32].waiting | warps[t / 32].barrier | warps[t / 32].yielded) >> t % 32 & 1u; }
/* Who waits for whom, one line for each place. */
static void report_stuck(void)
{
    fflush(stdout);
    fprintf(stderr, "emulator: deadlock in kernel %s launched at %s:%d, block (%u, %u, %u):\n", now->name, now->file, now->line,
            blockIdx.x, blockIdx.y, blockIdx.z);
    for (int done = 0; done < n_warps * 32; done++) {
        const EmuWait &a = warps[done / 32].wait[done % 32];
        int n = 0, before = 0;
        for (int t = 0; t < n_warps * 32; t++) {
            const EmuWait &b = warps[t / 32].wait[t % 32];
            if (!waits(t) || a.kind != b.kind || a.line != b.line || strcmp(a.file, b.file) || a.mask != b.mask) continue;
            n++;
            before += t < done;
        }
        if (!waits(done) || before) continue;
        fprintf(stderr, "  %d threads wait in %s (mask %08x) at %s:%d, the first is thread %d\n", n, emu_kind_name[a.kind], a.mask, a.file, a.line, done);
    }
    int ended = 0;
    for (int w = 0; w < n_warps; w++) ended += 32 - __builtin_popcount(warps[w].alive);
    fprintf(stderr, "  %d threads have ended or never were\n", ended);
    abort();
}

/* ---- who runs next ---- */
/* If all lanes that lane l waits for have come, does what they do together and lets them run. */
static bool complete(Warp *w, int l)
{
    const EmuWait &mine = w->wait[l];
    const uint32_t need = mine.mask & w->alive;
    if ((w->waiting & need) != need) return false;
    for (uint32_t m = need; m; m &= m - 1) {
        const EmuWait &other = w->wait[__builtin_ctz(m)];
        if (other.kind != mine.kind || other.mask != mine.mask)
            emu_die(mine.file, mine.line, "lanes %d and %d of a warp meet in %s (mask %08x) and %s (mask %08x, %s:%d)", l,
                    __builtin_ctz(m), emu_kind_name[mine.kind], mine.mask, emu_kind_name[other.kind], other.mask, other.file, other.line);
    }
    if (mine.kind == EMU_SYNCWARP) emu_race_syncwarp((int)(w - warps), mine.mask);
    emu_together(mine.kind, need, w->wait);
    idle_rounds = 0;
    w->waiting &= ~need;
    w->ready |= need;
    return true;
}
static void mix_order(void)
{
    for (int i = 0; i < n_warps; i++) order[i] = policy == BACKWARD ? n_warps - 1 - i : i;
    for (int i = n_warps - 1; policy == SHUFFLE && i > 0; i--) {
        const int j = (int)(chance() % (unsigned)(i + 1)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}
/* Each warp is at the end of its way: those that yielded have another turn. False: there are none. */
static bool take_turns(void)
{
    bool any = false;
    for (int i = 0; i < n_warps; i++) any = any || warps[i].yielded;
    if (!any) return false;
    if (++idle_rounds > MOST_ROUNDS) report_stuck();
    for (int i = 0; i < n_warps; i++) {
        warps[i].ready |= warps[i].yielded;
        warps[i].yielded = 0;
    }
    at_warp = 0;
    warp = &warps[order[0]];
    return true;
}
/* Each warp is at the end of its way: opens the barrier. False where all threads have ended. */
static bool open_barrier(void)
{
    const EmuWait *first = nullptr;
    int live = 0, yes = 0;
    for (int i = 0; i < n_warps; i++)
        if (warps[i].barrier != warps[i].alive) report_stuck();
    for (int i = 0; i < n_warps; i++) {
        for (uint32_t m = warps[i].barrier; m; m &= m - 1) {
            const EmuWait *w = &warps[i].wait[__builtin_ctz(m)];
            if (!first) first = w;
            if (w->kind != first->kind)
                emu_die(w->file, w->line, "%s meets %s of %s:%d", emu_kind_name[w->kind], emu_kind_name[first->kind], first->file, first->line);
            live++;
            yes += w->arg != nullptr;
        }
        warps[i].ready = warps[i].barrier;
        warps[i].barrier = 0;
    }
    if (!live) return false;
    emu_race_barrier();
    barrier_result = first->kind == EMU_SYNCTHREADS_COUNT ? yes : first->kind == EMU_SYNCTHREADS_AND ? yes == live : yes > 0;
    at_warp = 0;
    if (policy == SHUFFLE) mix_order();
    warp = &warps[order[0]];
    return true;
}
/* Sets warp and lane to the thread that runs next; false: the block has ended. */
static bool pick(void)
{
    while (!warp->ready) {
        bool moved = false;
        for (uint32_t m = warp->waiting; m && !moved; m &= m - 1) moved = complete(warp, __builtin_ctz(m));
        if (moved) break;
        if (++at_warp < n_warps) warp = &warps[order[at_warp]];
        else if (!take_turns() && !open_barrier()) return false;
    }
    const uint32_t ready = warp->ready;
    if (policy == FORWARD) {
        lane = __builtin_ctz(ready);
    } else if (policy == BACKWARD) {
        lane = 31 - __builtin_clz(ready);
    } else {
        const unsigned turn = chance() & 31u;
        lane = (int)(((unsigned)__builtin_ctz(ready >> turn | ready << (-turn & 31u)) + turn) & 31u);
    }
    threadIdx = place[(int)(warp - warps) * 32 + lane];
    emu_race_thread((int)(warp - warps) * 32 + lane);
    return true;
}

/* ---- fibers ---- */
static void fiber_main(void *arg);
static Fiber *take_fiber(void)
{
    if (n_idle) return idle[--n_idle];
    const int i = n_fibers++;
    const size_t pitch = STACK + 3 * PAGE;                /* odd in pages: stacks do not share cache sets */
    if (!stacks) {
        stacks = (char *)mmap(nullptr, pitch * MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) emu_die(__FILE__, __LINE__, "no memory for stacks");
    }
    char *stack = stacks + (size_t)i * pitch;
    mprotect(stack, PAGE, PROT_NONE);
#ifdef VALGRIND_STACK_REGISTER
    VALGRIND_STACK_REGISTER(stack + PAGE, stack + pitch);
#endif
    prepare(&fibers[i].at, stack + PAGE, STACK + PAGE - (size_t)(i % 32) * 128, fiber_main, &fibers[i]);
    return &fibers[i];
}
/* Goes on as the thread that pick() chose. */
static void enter(Context *save)
{
    const uint32_t bit = 1u << lane;
    Fiber *to = warp->started & bit ? warp->fiber[lane] : take_fiber();
    warp->started |= bit;
    warp->fiber[lane] = to;
    change(save, &to->at);
}
static void fiber_main(void *arg)
{
    Fiber *self = (Fiber *)arg;
    for (;;) {
        (*body)();
        if (!(warp->begun >> lane & 1u)) emu_die(now->file, now->line, "a thread ends that has not begun");
        warp->alive &= ~(1u << lane);
        warp->ready &= ~(1u << lane);
        const bool more = pick();
        if (more && !(warp->started & 1u << lane)) {
            warp->started |= 1u << lane;
            warp->fiber[lane] = self;
            continue;
        }
        idle[n_idle++] = self;
        change(&self->at, more ? &warp->fiber[lane]->at : &outside);
    }
}
/* The running thread cannot go on before others. */
static void suspend(void)
{
    Warp *w = warp;
    const int l = lane;
    pick();
    if (warp != w || lane != l) enter(&w->fiber[l]->at);
}

void emu_meet(int kind, unsigned mask, void *arg, bool whole_warp, const char *file, int line)
{
    if (!active) emu_die(file, line, "%s outside of a kernel", emu_kind_name[kind]);
    if (!(mask >> lane & 1u)) emu_die(file, line, "%s: lane %d is not in its mask %08x", emu_kind_name[kind], lane, mask);
    if (whole_warp && warp->alive != 0xffffffffu) emu_die(file, line, "%s wants all 32 lanes, alive are %08x", emu_kind_name[kind], warp->alive);
    warp->wait[lane] = EmuWait{kind, mask, arg, file, line};
    warp->ready &= ~(1u << lane);
    warp->waiting |= 1u << lane;
    complete(warp, lane);
    suspend();
}
void emu_yield(const char *file, int line)
{
    if (!active) emu_die(file, line, "%s outside of a kernel", emu_kind_name[EMU_YIELD]);
    warp->wait[lane] = EmuWait{EMU_YIELD, 0xffffffffu, nullptr, file, line};
    warp->ready &= ~(1u << lane);
    warp->yielded |= 1u << lane;
    suspend();
}
void emu_begin(void)
{
    if (warp->begun >> lane & 1u) emu_die(now->file, now->line, "a thread begins twice");
    warp->begun |= 1u << lane;
    if (!closed) return;
    closed = false;
    emu_hide_device(false);
}
int emu_barrier(int kind, int predicate, const char *file, int line)
{
    if (!active) emu_die(file, line, "%s outside of a kernel", emu_kind_name[kind]);
    static char yes;
    warp->wait[lane] = EmuWait{kind, 0xffffffffu, predicate ? &yes : nullptr, file, line};
    warp->ready &= ~(1u << lane);
    warp->barrier |= 1u << lane;
    suspend();
    return barrier_result;
}

/* ---- shared memory ---- */
enum { CANARY = 0xa5 };
/* Dynamic shared memory ends at an inaccessible page; each block finds it full of NaN. */
static void place_shared(size_t bytes)
{
    if (!shared_end) {
        const size_t room = 1 << 20;
        char *p = (char *)mmap(nullptr, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) emu_die(__FILE__, __LINE__, "no memory");
        shared_end = p + room;
        mprotect(shared_end, PAGE, PROT_NONE);
    }
    shared_base = shared_end - (bytes + 127) / 128 * 128;
    memset(shared_base - 128, CANARY, 128);
    memset(shared_base + bytes, CANARY, (size_t)(shared_end - shared_base) - bytes);
}
static void check_shared(size_t bytes)
{
    for (const char *p = shared_base - 128; p < shared_end; p++) {
        if (p == shared_base) p += bytes;
        if (p < shared_end && *p != (char)CANARY)
            emu_die(now->file, now->line, "byte %td of %zu bytes of dynamic shared memory was written", p - shared_base, bytes);
    }
}
/* __shared__ variables are this thread's copy of the program's thread-local ones. */
static int find_static(struct dl_phdr_info *info, size_t, void *)
{
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data) {
            static_shared = (char *)info->dlpi_tls_data;
            static_bytes = info->dlpi_phdr[i].p_memsz;
            if (!info->dlpi_phdr[i].p_filesz) memset(static_shared, 0xff, static_bytes);
        }
    return 1;                                             /* the program itself comes first */
}
bool emu_is_shared(const void *p, size_t bytes)
{
    const char *a = (const char *)p;
    return (a >= shared_base && a + bytes <= shared_base + now->shared) || (a >= static_shared && a + bytes <= static_shared + static_bytes);
}

/* ---- a launch ---- */
static void run_block(void)
{
    const int threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    for (int w = 0; w < n_warps; w++) {
        const int left = threads - 32 * w;
        warps[w].ready = warps[w].alive = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
        warps[w].started = warps[w].waiting = warps[w].barrier = warps[w].yielded = warps[w].begun = 0;
    }
    memset(shared_base, 0xff, now->shared);
    idle_rounds = 0;
    emu_copies_begin_block(threads);
    emu_race_block(threads, shared_base, now->shared);
    at_warp = 0;
    mix_order();
    warp = &warps[order[0]];
    pick();
    enter(&outside);
    check_shared(now->shared);
}

/* ---- faults: say which kernel touched what ---- */
static void on_fault(int signal, siginfo_t *info, void *)
{
    const char *p = (const char *)info->si_addr;
    char text[100];
    if (active && signal == SIGILL) emu_die(now->file, now->line, "an address is not a multiple of its type's size");
    const bool in_device = emu_name_device(p, text, sizeof text);
    if (active && p >= shared_base - PAGE && p < shared_end + PAGE)
        emu_die(now->file, now->line, "access to byte %td of %zu bytes of dynamic shared memory", p - shared_base, now->shared);
    if (active && p >= stacks && p < stacks + (STACK + 3 * PAGE) * (ptrdiff_t)MAX_THREADS) emu_die(now->file, now->line, "a thread's stack is full");
    if (active) emu_die(now->file, now->line, "access to %s%s", in_device ? text : "memory of nobody", in_device && closed ? " before mdr_begin" : "");
    if (in_device) fprintf(stderr, "emulator: the host touches memory of the device, %s\n", text);
    const int slot = signal == SIGSEGV ? 0 : signal == SIGBUS ? 1 : 2;
    sigaction(signal, &before[slot], nullptr);            /* and now again, for whoever was asked before us */
}
void emu_watch(void)
{
#ifdef __SANITIZE_ADDRESS__
    (void)on_fault, (void)before;
#else
    static const int signals[3] = {SIGSEGV, SIGBUS, SIGILL};
    for (int i = 0; i < 3; i++) {
        struct sigaction old, mine = {};
        mine.sa_sigaction = on_fault;
        mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(signals[i], &mine, &old);
        if (!(old.sa_flags & SA_SIGINFO) || old.sa_sigaction != on_fault) before[i] = old;
    }
#endif
}

static void choose(void)
{
    const char *o = getenv("MDR_EMU_ORDER"), *c = getenv("MDR_EMU_COPY");
    policy = o && !strcmp(o, "forward") ? FORWARD : o && !strcmp(o, "backward") ? BACKWARD : o && !strcmp(o, "shuffle") ? SHUFFLE : ALTERNATE;
    if (policy == ALTERNATE) policy = launches & 1 ? BACKWARD : FORWARD;
    late = c && !strcmp(c, "early") ? false : c && !strcmp(c, "late") ? true : (launches >> 1 & 1) == 0;
    launches++;
    seed = launches * 0x9e3779b97f4a7c15u | 1u;
}
void emu_run(const EmuLaunch &launch, const std::function<void()> &thread)
{
    const std::lock_guard<std::mutex> hold(lock);
    choose();
    now = &launch;
    body = &thread;
    gridDim = launch.grid;
    if (launch.block.x != blockDim.x || launch.block.y != blockDim.y || launch.block.z != blockDim.z || !n_warps) {
        blockDim = launch.block;
        const unsigned n = blockDim.x * blockDim.y * blockDim.z;
        n_warps = (int)((n + 31) / 32);
        for (unsigned t = 0; t < n; t++) place[t] = make_uint3(t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y);
    }
    place_shared(launch.shared);
    dl_iterate_phdr(find_static, nullptr);
    static char stack[64 << 10];                          /* for faults of full stacks */
    stack_t mine = {}, old_stack;
    mine.ss_sp = stack;
    mine.ss_size = sizeof stack;
    sigaltstack(&mine, &old_stack);
    emu_watch();
    active = closed = true;
    emu_race_kernel(&launch, static_shared, static_bytes);
    emu_hide_device(true);
    const uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z, turn = seed % blocks;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t b = policy == BACKWARD ? blocks - 1 - i : policy == SHUFFLE ? (i + turn) % blocks : i;
        blockIdx = make_uint3((unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y), (unsigned)(b / gridDim.x / gridDim.y));
        run_block();
    }
    emu_race_kernel(nullptr, nullptr, 0);
    emu_check_device();
    active = false;
    sigaltstack(&old_stack, nullptr);
}
