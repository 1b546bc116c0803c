/* The CUDA runtime of the emulated device: memory, streams, recorded graphs, errors. What is enqueued runs at once, or is kept
 * as a closure while its stream is recorded. */
#include "emu_inside.h"
#include <chrono>
#include <memory>
#include <mutex>
#include <map>
#include <set>
#include <stdio.h>
#include <sys/mman.h>
#include <vector>

typedef std::vector<std::function<cudaError_t()>> Work;
struct EmuGraph {
    Work work;
    std::set<EmuStream *> open;                           /* streams that joined in and were not waited for since */
    std::map<EmuStream *, Work> held;                     /* what they have to do, where that happens as late as it may */
    bool late;
    std::map<EmuStream *, EmuClock> clock;                /* what is before the next piece of each, counted from the recording's beginning */
    EmuClock end;                                         /* what is before its end */
};
struct EmuGraphExec { Work work; EmuClock end, all; };    /* what is before its end; the pieces of every stream */
struct EmuStream {
    int number = streams++;
    EmuClock clock;                                       /* what is before its next piece of work */
    static int streams;
    std::shared_ptr<EmuGraph> recording;
    bool spoilt;                                          /* something that cannot be recorded came */
    EmuStream *root;                                      /* whose recording, `graph`, this stream joined by waiting for its event */
    std::shared_ptr<EmuGraph> graph;
};
int EmuStream::streams;
struct EmuEvent {
    EmuClock clock;
    double at;
    bool happened, recorded;
    int asked;                                            /* so often whether it is reached                               */
    EmuStream *from, *root;                               /* of a recorded event: its stream, and the one that is recorded */
};
struct Block {
    char *map;
    size_t map_bytes, bytes;
};
enum { PAGE = 4096, CANARY = 0xa5, MAX_SHARED = 232448, PLAIN_SHARED = 48 << 10 };

static std::recursive_mutex lock;
#define HOLD const std::lock_guard<std::recursive_mutex> hold(lock)
static std::map<const char *, Block> device;
static std::map<void *, size_t> pinned;
static std::map<const void *, size_t> allowed;
static size_t used;
static int64_t launches;
static cudaError_t last = cudaSuccess;
static bool lost;

static int64_t number(const char *name, int64_t otherwise)
{
    const char *s = getenv(name);
    return s && *s ? strtoll(s, nullptr, 0) : otherwise;
}
static size_t memory(void) { return (size_t)number("MDR_EMU_MEMORY", (int64_t)4 << 30); }

/* ---- errors ---- */
static const struct { cudaError_t e; const char *name, *text; } errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "the capture was not initiated in this stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"}};
const char *cudaGetErrorString(cudaError_t e)
{
    for (const auto &x : errors)
        if (x.e == e) return x.text;
    return "unknown error";
}
const char *cudaGetErrorName(cudaError_t e)
{
    for (const auto &x : errors)
        if (x.e == e) return x.name;
    return "cudaErrorUnknown";
}
static cudaError_t result(cudaError_t e)
{
    if (lost) e = cudaErrorLaunchFailure;
    if (e != cudaSuccess) last = e;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { HOLD; return lost ? cudaErrorLaunchFailure : last; }
cudaError_t cudaGetLastError(void)
{
    HOLD;
    const cudaError_t e = cudaPeekAtLastError();
    last = cudaSuccess;
    return e;
}

/* ---- devices ---- */
cudaError_t cudaGetDeviceCount(int *n)
{
    HOLD;
    *n = (int)number("MDR_EMU_DEVICES", 1);
    return result(*n > 0 ? cudaSuccess : cudaErrorNoDevice);
}
static bool is_device(int i) { return i >= 0 && i < number("MDR_EMU_DEVICES", 1); }
cudaError_t cudaGetDevice(int *i) { HOLD; *i = 0; return result(cudaSuccess); }
cudaError_t cudaSetDevice(int i) { HOLD; return result(is_device(i) ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i)
{
    HOLD;
    if (!is_device(i)) return result(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated GPU");
    p->totalGlobalMem = memory();
    p->sharedMemPerBlock = PLAIN_SHARED;
    p->sharedMemPerBlockOptin = MAX_SHARED;
    p->sharedMemPerMultiprocessor = MAX_SHARED + 1024;
    p->totalConstMem = 64 << 10;
    p->major = 9;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = INT_MAX;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsPerMultiProcessor = 2048;
    p->regsPerBlock = 65536;
    p->l2CacheSize = 1 << 20;
    p->memoryBusWidth = 64;
    return result(cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr a, int i)
{
    HOLD;
    if (!is_device(i)) return result(cudaErrorInvalidDevice);
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrClockRate: *value = 1000000; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMemoryClockRate: *value = 1000000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = 64; break;
    case cudaDevAttrL2CacheSize: *value = 1 << 20; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = MAX_SHARED; break;
    default: return result(cudaErrorInvalidValue);
    }
    return result(cudaSuccess);
}
cudaError_t cudaDriverGetVersion(int *v) { *v = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return cudaSuccess; }

/* ---- whose memory it is: the host cannot touch the device's, unless there is so much that hiding it takes long ---- */
struct Access {                                           /* while one lives the device, and with it everybody, can */
    static int depth;
    static bool hidden;
    static void show(bool on)
    {
        for (const auto &b : device) mprotect(b.second.map + PAGE, b.second.map_bytes - 2 * PAGE, on ? PROT_READ | PROT_WRITE : PROT_NONE);
        hidden = !on;
    }
    Access()
    {
        if (depth++ == 0 && hidden) show(true);
    }
    static bool hides(void) { return number("MDR_EMU_HIDE", used <= 64 << 20) != 0; }
    ~Access()
    {
        if (--depth || !hides()) return;
        show(false);
        emu_watch();
    }
};
int Access::depth;
bool Access::hidden;
void emu_hide_device(bool hide)
{
    if (hide ? Access::hides() : Access::hidden) Access::show(!hide);
}
bool emu_name_device(const void *p, char *text, size_t size)
{
    for (const auto &b : device) {
        const char *a = (const char *)p;
        if (a < b.second.map || a >= b.second.map + b.second.map_bytes) continue;
        snprintf(text, size, "byte %td of an allocation of %zu bytes", a - b.first, b.second.bytes);
        return true;
    }
    return false;
}

/* ---- what is ordered before what (race.cpp) ---- */
static EmuClock host, issued;                             /* what the host has waited for; pieces each stream was given */
static EmuClock base, top;                                /* of the graph that runs: before it; issued before it */
static int depth;                                         /* graphs inside of graphs: one piece of work */
/* A recording's clock where it runs. */
static EmuClock placed(const EmuClock &c)
{
    EmuClock x = base;
    for (size_t i = 0; i < c.size(); i++)
        if (c[i]) element(x, (int)i) = element(top, (int)i) + c[i];
    return x;
}

/* ---- what can be enqueued ---- */
static EmuStream plain_stream;
static int recordings, begun;                             /* streams that are recorded now; ever */
/* The stream itself, or the one whose recording it takes part in. */
static EmuStream *stream_of(cudaStream_t s)
{
    if (!s) return &plain_stream;
    if (s->recording || !s->root) return s;
    if (s->root->recording == s->graph) return s->root;
    s->root = nullptr;
    s->graph.reset();
    return s;
}
static cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work)
{
    if (lost) return result(cudaErrorLaunchFailure);
    EmuStream *s = stream_of(stream), *self = stream ? stream : &plain_stream;
    const int number = self->number;
    if (!s->recording) {
        const Access access;
        join(self->clock, host);
        element(self->clock, number) = ++element(issued, number);
        emu_race_piece(number, self->clock);
        return result(work());
    }
    if (s->spoilt) return result(cudaErrorStreamCaptureInvalidated);
    const bool side = stream && stream != s;
    EmuClock &clock = s->recording->clock[self];
    element(clock, number)++;
    (side && s->recording->late ? s->recording->held[stream] : s->recording->work).push_back([number, clock, work = std::move(work)]() {
        if (depth == 1) emu_race_piece(number, placed(clock));
        return work();
    });
    if (side) s->recording->open.insert(stream);
    return result(cudaSuccess);
}
/* Not while this stream is recorded. */
static bool spoils(cudaStream_t stream)
{
    EmuStream *s = stream_of(stream);
    s->spoilt = s->recording != nullptr;
    return s->spoilt;
}

/* ---- memory: each piece ends at an inaccessible page ---- */
static bool found(const void *p, size_t bytes, bool whole)
{
    const char *a = (const char *)p;
    auto i = device.upper_bound(a);
    if (i != device.begin()) {
        auto before = std::prev(i);
        const char *end = before->first + before->second.bytes;
        if (whole ? a + bytes <= end : a < end) return true;
    }
    return !whole && i != device.end() && i->first < a + bytes;
}
bool emu_touches_device(const void *p, size_t bytes) { return found(p, bytes, false); }
bool emu_within_device(const void *p, size_t bytes) { return found(p, bytes, true); }
void emu_check_device(void)
{
    for (const auto &b : device)
        for (const char *p = b.first + b.second.bytes; p < b.second.map + b.second.map_bytes - PAGE; p++)
            if (*p != (char)CANARY) emu_die(__FILE__, __LINE__, "byte %td of an allocation of %zu bytes was written", p - b.first, b.second.bytes);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all)
{
    HOLD;
    *all = memory();
    *free_bytes = *all > used ? *all - used : 0;
    return result(cudaSuccess);
}
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    HOLD;
    *p = nullptr;
    if (lost || !bytes) return result(cudaSuccess);
    if (recordings) return result(cudaErrorStreamCaptureUnsupported);
    const size_t rounded = (bytes + 255) / 256 * 256, map_bytes = (rounded + PAGE - 1) / PAGE * PAGE + 2 * PAGE;
    if (rounded < bytes || used + rounded > memory()) return result(cudaErrorMemoryAllocation);
    void *place = emu_race_place(map_bytes);
    char *map = (char *)mmap(place, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (place ? MAP_FIXED : 0), -1, 0);
    if (map == MAP_FAILED) return result(cudaErrorMemoryAllocation);
    const Access access;
    mprotect(map, PAGE, PROT_NONE);
    mprotect(map + map_bytes - PAGE, PAGE, PROT_NONE);
    char *start = map + map_bytes - PAGE - rounded;
    memset(start, 0xff, bytes);                           /* NaN, whatever its size */
    memset(start + bytes, CANARY, rounded - bytes);
    device[start] = Block{map, map_bytes, bytes};
    used += rounded;
    *p = start;
    return result(cudaSuccess);
}
cudaError_t cudaFree(void *p)
{
    HOLD;
    if (!p) return result(cudaSuccess);
    auto i = device.find((const char *)p);
    if (i == device.end()) return result(cudaErrorInvalidValue);
    const Access access;
    emu_check_device();
    used -= (i->second.bytes + 255) / 256 * 256;
    if (!emu_race_gone(i->second.map, i->second.map_bytes)) munmap(i->second.map, i->second.map_bytes);
    device.erase(i);
    return result(cudaSuccess);
}
cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    HOLD;
    *p = nullptr;
    if (lost || !bytes) return result(cudaSuccess);
    *p = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!*p) return result(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    pinned[*p] = bytes;
    return result(cudaSuccess);
}
cudaError_t cudaFreeHost(void *p)
{
    HOLD;
    if (!p) return result(cudaSuccess);
    if (!pinned.erase(p)) return result(cudaErrorInvalidValue);
    free(p);
    return result(cudaSuccess);
}
/* Which of the two is the device's; a pointer of the wrong kind would be a fault on a GPU. */
static cudaError_t copies_well(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (!bytes || kind == cudaMemcpyDefault) return cudaSuccess;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, from_device = kind >= cudaMemcpyDeviceToHost;
    const bool good = (to_device ? emu_within_device(to, bytes) : !emu_touches_device(to, bytes)) &&
                      (from_device ? emu_within_device(from, bytes) : !emu_touches_device(from, bytes));
    return good ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t bytes, size_t rows,
                              cudaMemcpyKind kind, cudaStream_t stream)
{
    HOLD;
    if (rows && (rows > 1 && (to_pitch < bytes || from_pitch < bytes))) return result(cudaErrorInvalidValue);
    if (bytes && rows)
        if (cudaError_t e = copies_well(to, from, bytes, kind)) return result(e);
    if (bytes && rows)
        if (cudaError_t e = copies_well((char *)to + (rows - 1) * to_pitch, (const char *)from + (rows - 1) * from_pitch, bytes, kind)) return result(e);
    return enqueue(stream, [=]() {
        for (size_t i = 0; i < rows; i++) {
            memmove((char *)to + i * to_pitch, (const char *)from + i * from_pitch, bytes);
            emu_race_moved((const char *)from + i * from_pitch, bytes, EMU_READ);
            emu_race_moved((char *)to + i * to_pitch, bytes, EMU_WRITE);
        }
        return cudaSuccess;
    });
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
    HOLD;
    if (bytes && !emu_within_device(to, bytes)) return result(cudaErrorInvalidValue);
    return enqueue(stream, [=]() {
        if (bytes) memset(to, byte, bytes);
        emu_race_moved(to, bytes, EMU_WRITE);
        return cudaSuccess;
    });
}
cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t bytes, size_t rows, cudaMemcpyKind kind)
{
    HOLD;
    if (recordings) return result(cudaErrorStreamCaptureUnsupported);
    const cudaError_t e = cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, rows, kind, nullptr);
    join(host, plain_stream.clock);
    return e;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) { return cudaMemcpy2D(to, bytes, from, bytes, bytes, 1, kind); }
cudaError_t cudaMemset(void *to, int byte, size_t bytes)
{
    HOLD;
    if (recordings) return result(cudaErrorStreamCaptureUnsupported);
    return cudaMemsetAsync(to, byte, bytes, nullptr);
}

/* ---- streams and events ---- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    HOLD;
    *s = lost ? nullptr : new EmuStream();
    return result(cudaSuccess);
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    HOLD;
    if (s && s->recording) recordings--;
    delete s;
    return result(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    HOLD;
    join(host, (s ? s : &plain_stream)->clock);
    return result(spoils(s) ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaDeviceSynchronize(void) { HOLD; join(host, issued); return result(recordings ? cudaErrorStreamCaptureUnsupported : cudaSuccess); }
cudaError_t cudaDeviceReset(void) { HOLD; return result(cudaSuccess); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    HOLD;
    *e = lost ? nullptr : new EmuEvent();
    return result(cudaSuccess);
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { HOLD; delete e; return result(cudaSuccess); }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    HOLD;
    if (!e) return result(cudaErrorInvalidResourceHandle);
    e->root = stream_of(stream);
    e->from = stream ? stream : &plain_stream;
    e->recorded = e->root->recording != nullptr;
    e->clock = e->recorded ? e->root->recording->clock[e->from] : e->from->clock;
    if (e->recorded || lost) return result(cudaSuccess);
    e->at = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    e->asked = !(e->happened = true);
    return result(cudaSuccess);
}
/* Waiting for an event of a recording joins it; the recorded stream's waiting for a side lets that side go. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    HOLD;
    if (!s || !e) return result(cudaErrorInvalidResourceHandle);
    if (!e->recorded) {
        join(s->clock, e->clock);
        return result(stream_of(s)->recording ? cudaErrorStreamCaptureIsolation : cudaSuccess);
    }
    if (!e->root->recording || (s->recording && s != e->root)) return result(cudaErrorCapturedEvent);
    EmuGraph *g = e->root->recording.get();
    Work held;
    held.swap(g->held[e->from]);
    g->work.insert(g->work.end(), held.begin(), held.end());
    join(g->clock[s], e->clock);
    if (s == e->root) {
        g->open.erase(e->from);
    } else {
        s->root = e->root;
        s->graph = e->root->recording;
        s->graph->open.insert(s);
    }
    return result(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    HOLD;
    if (e && !e->recorded) join(host, e->clock);
    return result(!e ? cudaErrorInvalidResourceHandle : e->recorded ? cudaErrorCapturedEvent : cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t e)                 /* the first two find it not reached, and leave that as the last error */
{
    return e && !e->recorded && !lost && e->asked++ < 2 ? result(cudaErrorNotReady) : cudaEventSynchronize(e);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    HOLD;
    if (!from || !to || !from->happened || !to->happened || from->recorded || to->recorded) return result(cudaErrorInvalidResourceHandle);
    *ms = (float)((to->at - from->at) * 1e3);
    return result(cudaSuccess);
}

/* ---- recorded graphs ---- */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    HOLD;
    if (lost) return result(cudaErrorLaunchFailure);
    if (!s) return result(cudaErrorStreamCaptureUnsupported);
    if (s->recording) return result(cudaErrorIllegalState);
    s->recording = std::make_shared<EmuGraph>();
    s->recording->late = number("MDR_EMU_LATE_SIDES", begun++ % 2) != 0;
    s->spoilt = false;
    recordings++;
    return result(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    HOLD;
    *graph = nullptr;
    if (!s || !s->recording) return result(cudaErrorIllegalState);
    const bool good = !s->spoilt && !lost, joined = s->recording->open.empty();
    if (good && joined) *graph = new EmuGraph(*s->recording);
    if (*graph) (*graph)->end = s->recording->clock[s];
    s->recording.reset();
    s->spoilt = false;
    recordings--;
    return result(!good ? cudaErrorStreamCaptureInvalidated : joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    HOLD;
    const EmuStream *s = stream_of(stream);
    *status = !s->recording ? cudaStreamCaptureStatusNone : s->spoilt ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return result(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    HOLD;
    *exec = nullptr;
    if (!graph) return result(cudaErrorInvalidValue);
    if (lost) return result(cudaSuccess);
    *exec = new EmuGraphExec{graph->work, graph->end, {}};
    for (const auto &c : graph->clock) join((*exec)->all, c.second);
    return result(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    HOLD;
    if (!exec) return result(cudaErrorInvalidValue);
    const auto run = [](const Work &work) {
        const Access access;
        cudaError_t e = cudaSuccess;
        depth++;
        for (size_t i = 0; i < work.size() && e == cudaSuccess; i++) e = work[i]();
        depth--;
        return e;
    };
    if (!stream_of(stream)->recording) {
        EmuClock &clock = (stream ? stream : &plain_stream)->clock;
        join(clock, host);
        base = clock;
        top = issued;
        clock = placed(exec->end);
        for (size_t i = 0; i < exec->all.size(); i++) element(issued, (int)i) += exec->all[i];
        return result(lost ? cudaErrorLaunchFailure : run(exec->work));
    }
    return enqueue(stream, [run, copy = exec->work]() { return run(copy); });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) { HOLD; return result(exec ? cudaSuccess : cudaErrorInvalidValue); }
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void *, size_t *n)
{
    *n = graph ? graph->work.size() : 0;
    return result(graph ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { HOLD; delete graph; return result(cudaSuccess); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { HOLD; delete exec; return result(cudaSuccess); }

/* ---- launches ---- */
void emu_allow_shared(const void *kernel, size_t bytes)
{
    HOLD;
    if (allowed[kernel] < bytes) allowed[kernel] = bytes;
}
void emu_check_pointer(const EmuLaunch &l, const void *p)
{
    HOLD;
    if (!p || emu_within_device(p, 0)) return;
    for (const auto &x : pinned)
        if (x.first <= p && p < (char *)x.first + x.second) return;
    emu_die(l.file, l.line, "kernel %s is given the pointer %p, which is not the device's", l.name, p);
}
static bool can_launch(const EmuLaunch &l)
{
    const uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z;
    if (!threads || threads > 1024 || l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64) return false;
    if (!l.grid.x || !l.grid.y || !l.grid.z || l.grid.x > INT_MAX || l.grid.y > 65535 || l.grid.z > 65535) return false;
    const auto more = allowed.find(l.kernel);
    return l.shared <= MAX_SHARED && (l.shared <= PLAIN_SHARED || (more != allowed.end() && l.shared <= more->second));
}
void emu_enqueue(const EmuLaunch &launch, std::function<void()> thread)
{
    HOLD;
    if (!can_launch(launch)) {
        result(cudaErrorInvalidConfiguration);
        return;
    }
    enqueue(launch.stream, [launch, thread = std::move(thread)]() {
        const int64_t fail = number("MDR_EMU_FAIL_AFTER", 0);
        if (++launches == fail) lost = true;
        if (lost) return cudaErrorLaunchFailure;
        emu_run(launch, thread);
        return cudaSuccess;
    });
}
int64_t emu_launches(void) { HOLD; return launches; }
