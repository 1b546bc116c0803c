/* An Accel over the CUDA runtime: one GPU, one stream, recorded steps as CUDA graphs. The runtime is linked statically and finds
 * the driver itself, so nothing here is touched on a machine without one until it is asked for. */
#include "exec/accel.h"
#include "op/cuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MDR_CUDA_LEAST
#define MDR_CUDA_LEAST 90                             /* the Makefile says for which GPUs this was built                      */
#endif

struct Accel {
    int device;
    cudaStream_t stream;
    AccelInfo info;
    cudaEvent_t *mark;
    Beside side[MDR_ACCEL_SIDES];                     /* with one event for all, out: forked, not joined yet                 */
    cudaEvent_t forked, joined[MDR_ACCEL_SIDES];
};
struct Recording { cudaGraphExec_t run; int32_t launches; };

static const char *const OOM = "not enough GPU memory";

static Err *failed(cudaError_t e, const char *what, int line)
{
    if (e == cudaSuccess) return NULL;
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();                           /* the device stays usable: not an error of what comes next            */
        return mdr_err_new(MDR_MACHINE, __FILE__, line, "%s (%s)", OOM, what);
    }
    return mdr_err_new(MDR_MACHINE, __FILE__, line, "the GPU failed: %s: %s", what, cudaGetErrorString(e));
}
#define CUDA_TRY(call) MDR_TRY(failed((call), #call, __LINE__))

extern "C" bool mdr_accel_built(void) { return true; }
extern "C" bool mdr_accel_is_oom(const Err *e) { return e && strncmp(mdr_err_text(e), OOM, strlen(OOM)) == 0; }

extern "C" int32_t mdr_accel_count(char *why)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    why[0] = 0;
    if (e == cudaSuccess && n > 0) return n;
    cudaGetLastError();                               /* not an error of what comes after                                   */
    snprintf(why, 256, "%s", e == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one older than this build's CUDA" :
                             e == cudaSuccess || e == cudaErrorNoDevice ? "no NVIDIA GPU is visible" : cudaGetErrorString(e));
    return 0;
}

extern "C" Err *mdr_accel_info(int32_t device, AccelInfo *info)
{
    cudaDeviceProp p;
    size_t free_bytes = 0, all = 0;
    memset(info, 0, sizeof *info);
    CUDA_TRY(cudaGetDeviceProperties(&p, device));
    CUDA_TRY(cudaSetDevice(device));
    CUDA_TRY(cudaMemGetInfo(&free_bytes, &all));
    CUDA_TRY(cudaDriverGetVersion(&info->driver));
    CUDA_TRY(cudaRuntimeGetVersion(&info->runtime));
    CUDA_TRY(cudaDeviceGetAttribute(&info->clock_khz, cudaDevAttrClockRate, device));
    snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, p.name);
    snprintf(info->class_name, sizeof info->class_name, "cuda-sm%d%d", p.major, p.minor);
    info->memory = (int64_t)all;
    info->free = (int64_t)free_bytes;
    info->processors = p.multiProcessorCount;
    info->major = p.major;
    info->minor = p.minor;
    if (10 * p.major + p.minor < MDR_CUDA_LEAST)
        snprintf(info->why_not, sizeof info->why_not, "its compute capability is %d.%d, this build has kernels from %d.%d on (make CUDA_ARCH=%d%d)",
                 p.major, p.minor, MDR_CUDA_LEAST / 10, MDR_CUDA_LEAST % 10, p.major, p.minor);
    return NULL;
}

static void streams_free(Accel *a)
{
    for (int i = 0; i < MDR_ACCEL_SIDES; i++) {
        if (a->joined[i]) cudaEventDestroy(a->joined[i]);
        if (a->side[i].stream) cudaStreamDestroy((cudaStream_t)a->side[i].stream);
    }
    if (a->forked) cudaEventDestroy(a->forked);
    if (a->stream) cudaStreamDestroy(a->stream);
}

extern "C" Err *mdr_accel_open(int32_t device, Accel **out)
{
    char why[256];
    *out = NULL;
    int32_t n = mdr_accel_count(why);
    if (n == 0) return MDR_ERR_USER("no GPU can be used: %s", why);
    if (device < 0 || device >= n) return MDR_ERR_USER("there is no GPU %d: %d %s visible, numbered from 0", device, n, n == 1 ? "is" : "are");
    Accel *a = (Accel *)mdr_alloc(sizeof *a);
    a->device = device;
    Err *e = mdr_accel_info(device, &a->info);
    if (!e && a->info.why_not[0]) e = MDR_ERR_USER("GPU %d (%s) cannot be used: %s", device, a->info.name, a->info.why_not);
    if (!e) e = failed(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking), "a stream", __LINE__);
    for (int i = 0; !e && i < MDR_ACCEL_SIDES; i++) {
        e = failed(cudaStreamCreateWithFlags((cudaStream_t *)&a->side[i].stream, cudaStreamNonBlocking), "a stream", __LINE__);
        if (!e) e = failed(cudaEventCreateWithFlags(&a->joined[i], cudaEventDisableTiming), "an event", __LINE__);
    }
    if (!e) e = failed(cudaEventCreateWithFlags(&a->forked, cudaEventDisableTiming), "an event", __LINE__);
    if (e) { streams_free(a); mdr_free(a); return e; }
    for (int i = 0; i < MDR_ACCEL_SIDES; i++) a->side[i].event = a->forked;
    a->mark = (cudaEvent_t *)mdr_alloc(MDR_ACCEL_MARKS * sizeof *a->mark);
    *out = a;
    return NULL;
}

extern "C" Err *mdr_accel_beside(const Accel *a, Accel **another) { return mdr_accel_open(a->device, another); }
extern "C" void mdr_accel_close(Accel *a)
{
    if (!a) return;
    for (int i = 0; i < MDR_ACCEL_MARKS; i++)
        if (a->mark[i]) cudaEventDestroy(a->mark[i]);
    streams_free(a);
    mdr_free(a->mark);
    mdr_free(a);
}

extern "C" const AccelInfo *mdr_accel_about(const Accel *a) { return &a->info; }
extern "C" void *mdr_accel_stream(const Accel *a) { return a->stream; }
extern "C" int64_t mdr_accel_free_memory(const Accel *)
{
    size_t free_bytes = 0, all = 0;
    return cudaMemGetInfo(&free_bytes, &all) == cudaSuccess ? (int64_t)free_bytes : 0;
}

extern "C" Err *mdr_accel_alloc(Accel *, int64_t bytes, void **out)
{
    *out = NULL;
    cudaError_t e = cudaMalloc(out, (size_t)(bytes > 0 ? bytes : 1));
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return MDR_ERR_MACHINE("%s for %lld bytes", OOM, (long long)bytes);
    }
    return failed(e, "memory", __LINE__);
}
extern "C" void mdr_accel_free(Accel *, void *p) { if (p) cudaFree(p); }

/* The host's memory is pageable: as a rule such a copy is staged before the call returns, but nobody promises it. */
extern "C" Err *mdr_accel_upload(Accel *a, void *device, const void *host, int64_t bytes)
{
    CUDA_TRY(cudaMemcpyAsync(device, host, (size_t)bytes, cudaMemcpyHostToDevice, a->stream));
    return NULL;
}
extern "C" Err *mdr_accel_download(Accel *a, void *host, const void *device, int64_t bytes)
{
    CUDA_TRY(cudaMemcpyAsync(host, device, (size_t)bytes, cudaMemcpyDeviceToHost, a->stream));
    CUDA_TRY(cudaStreamSynchronize(a->stream));
    return NULL;
}
extern "C" Err *mdr_accel_fill(Accel *a, void *device, int byte, int64_t bytes)
{
    CUDA_TRY(cudaMemsetAsync(device, byte, (size_t)bytes, a->stream));
    return NULL;
}
extern "C" Err *mdr_accel_clear(Accel *a, int32_t side, void *device, int64_t bytes)
{
    CUDA_TRY(cudaMemsetAsync(device, 0, (size_t)bytes, (cudaStream_t)a->side[side].stream));
    return NULL;
}
extern "C" Err *mdr_accel_copy(Accel *a, void *to, int64_t to_pitch, const void *from, int64_t from_pitch, int64_t bytes, int64_t rows)
{
    CUDA_TRY(cudaMemcpy2DAsync(to, (size_t)to_pitch, from, (size_t)from_pitch, (size_t)bytes, (size_t)rows, cudaMemcpyDeviceToDevice, a->stream));
    return NULL;
}
static __global__ void ones(int32_t n, const int32_t *n_seq, int32_t *one)
{
    mdr_begin();
    int32_t m = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (m < n) one[m] = n_seq[m] > 0;
}
extern "C" Err *mdr_accel_ones(Accel *a, int32_t n, const int32_t *n_seq, int32_t *one)
{
    MDR_LAUNCH(ones, dim3((unsigned)mdr_ceil_div(n, 128)), dim3(128), 0, a->stream, n, n_seq, one);
    CUDA_TRY(cudaGetLastError());
    return NULL;
}
extern "C" Err *mdr_accel_sync(Accel *a)
{
    CUDA_TRY(cudaStreamSynchronize(a->stream));
    CUDA_TRY(cudaGetLastError());
    return NULL;
}
extern "C" Err *mdr_accel_launched(Accel *)
{
    CUDA_TRY(cudaGetLastError());
    return NULL;
}

extern "C" void *mdr_accel_side(const Accel *a, int32_t i) { return a->side[i].stream; }
extern "C" Beside *mdr_accel_aside(Accel *a, int32_t i) { return &a->side[i]; }
extern "C" Err *mdr_accel_fork(Accel *a, int32_t i)
{
    CUDA_TRY(cudaEventRecord(a->forked, a->stream));
    CUDA_TRY(cudaStreamWaitEvent((cudaStream_t)a->side[i].stream, a->forked, 0));
    a->side[i].out = true;
    return NULL;
}
extern "C" Err *mdr_accel_meet(Accel *a, int32_t i)
{
    CUDA_TRY(cudaEventRecord(a->joined[i], (cudaStream_t)a->side[i].stream));
    CUDA_TRY(cudaStreamWaitEvent(a->stream, a->joined[i], 0));
    return NULL;
}
extern "C" Err *mdr_accel_join(Accel *a, int32_t i)
{
    if (!a->side[i].out) return NULL;
    a->side[i].out = false;
    return mdr_accel_meet(a, i);
}

extern "C" Err *mdr_accel_record_begin(Accel *a)
{
    for (int i = 0; i < MDR_ACCEL_SIDES; i++) a->side[i].out = false;      /* of a recording that failed           */
    CUDA_TRY(cudaStreamBeginCapture(a->stream, cudaStreamCaptureModeThreadLocal));
    return NULL;
}
/* Where in a recorded step a kernel follows one kernel, alone or with one or two beside it, its blocks are let in as the earlier one's last
 * leaves, and wait there until what that wrote can be seen (mdr_begin): launching them takes less time of its own. Letting them in sooner
 * (launch_dependents) was slower. Forks, joins, copies and fills stay strict. */
#if defined CUDART_VERSION && CUDART_VERSION >= 13000     /* where these calls know of kinds of edges                           */
static bool is_kernel(cudaGraphNode_t node)
{
    cudaGraphNodeType type;
    return cudaGraphNodeGetType(node, &type) == cudaSuccess && type == cudaGraphNodeTypeKernel;
}
static cudaError_t let_in(cudaGraph_t graph, cudaGraphNode_t node)
{
    static const cudaGraphEdgeData early = {cudaGraphKernelNodePortProgrammatic, 0, cudaGraphDependencyTypeProgrammatic, {0}};
    cudaGraphNode_t from, to[4];
    cudaGraphEdgeData how[4];
    size_t before = 0, after = 4;
    cudaError_t e = cudaGraphNodeGetDependencies(node, NULL, NULL, &before);
    if (e != cudaSuccess || before != 1 || !is_kernel(node)) return e;
    e = cudaGraphNodeGetDependencies(node, &from, NULL, &before);
    if (e == cudaSuccess) e = cudaGraphNodeGetDependentNodes(from, to, how, &after);
    if (e != cudaSuccess || after > 3 || !is_kernel(from)) return e;
    e = cudaGraphRemoveDependencies(graph, &from, &node, NULL, 1);
    return e == cudaSuccess ? cudaGraphAddDependencies(graph, &from, &node, &early, 1) : e;
}
static cudaError_t overlap(cudaGraph_t graph)
{
    size_t n = 0;
    cudaError_t e = cudaGraphGetNodes(graph, NULL, &n);
    cudaGraphNode_t *node = (cudaGraphNode_t *)mdr_alloc((n + 1) * sizeof *node);
    if (e == cudaSuccess) e = cudaGraphGetNodes(graph, node, &n);
    for (size_t i = 0; i < n && e == cudaSuccess; i++) e = let_in(graph, node[i]);
    mdr_free(node);
    return e;
}
#else
static cudaError_t overlap(cudaGraph_t) { return cudaSuccess; }
#endif

extern "C" Err *mdr_accel_record_end(Accel *a, Recording **r)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t run = NULL;
    *r = NULL;
    CUDA_TRY(cudaStreamEndCapture(a->stream, &graph));
    size_t launches = 0;
    cudaError_t e = cudaGraphGetNodes(graph, NULL, &launches);
    if (e == cudaSuccess) e = overlap(graph);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&run, graph, 0);
    cudaGraphDestroy(graph);
    MDR_TRY(failed(e, "recording a step", __LINE__));
    *r = (Recording *)mdr_alloc(sizeof **r);
    (*r)->run = run;
    (*r)->launches = (int32_t)launches;
    return NULL;
}
extern "C" int32_t mdr_accel_launches(const Recording *r) { return r->launches; }
extern "C" Err *mdr_accel_replay(Accel *a, Recording *r)
{
    CUDA_TRY(cudaGraphLaunch(r->run, a->stream));
    return NULL;
}
extern "C" void mdr_accel_recording_free(Recording *r)
{
    if (!r) return;
    cudaGraphExecDestroy(r->run);
    mdr_free(r);
}

extern "C" Err *mdr_accel_mark(Accel *a, int32_t i)
{
    if (!a->mark[i]) CUDA_TRY(cudaEventCreate(&a->mark[i]));
    CUDA_TRY(cudaEventRecord(a->mark[i], a->stream));
    return NULL;
}
extern "C" bool mdr_accel_reached(Accel *a, int32_t i)
{
    if (cudaEventQuery(a->mark[i]) != cudaErrorNotReady) return true;
    cudaGetLastError();                               /* "not ready" would be taken for the error of what comes next          */
    return false;
}
extern "C" Err *mdr_accel_elapsed(Accel *a, int32_t from, int32_t to, double *seconds)
{
    float ms = 0;
    CUDA_TRY(cudaEventSynchronize(a->mark[to]));
    CUDA_TRY(cudaEventElapsedTime(&ms, a->mark[from], a->mark[to]));
    *seconds = (double)ms * 1e-3;
    return NULL;
}
