/* adamw and sgd on the GPU, and the norms that clipping wants (update.c has the formulas): the last kernels of a recorded step. Not
 * nodes of a graph. Rates are data of each member; what does not depend on the element is computed once a block, in double. */
#include "op/cuda_update.h"
#include "op/cuda.h"

enum { THREADS = 256, BLOCK = 4096 };                    /* floats a block: MDR_FOLD_BLOCK of exec.h                        */

static __device__ double power(double b, int64_t n)
{
    double r = 1.0;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1) r *= b;
    return r;
}
/* go: false for a gradient that is not finite: such a member has diverged and stays as it is. */
struct Factors { float keep, blend1, keep2, blend2, rate, root, eps, lr, decay, scale; bool go; };
static __device__ Factors factors(const Hyper *h, const double *norm)
{
    Factors f;
    f.keep = (float)(1.0 - h->lr * h->decay);
    f.blend1 = (float)(1.0 - h->beta1);
    f.keep2 = (float)h->beta2;
    f.blend2 = (float)(1.0 - h->beta2);
    f.rate = (float)(h->lr / (1.0 - power(h->beta1, h->step)));
    f.root = (float)(1.0 / sqrt(1.0 - power(h->beta2, h->step)));
    f.eps = (float)h->eps;
    f.lr = (float)h->lr;
    f.decay = (float)h->decay;
    const bool clips = norm && h->clip > 0.0;
    f.scale = clips && *norm > h->clip ? (float)(h->clip / *norm) : 1.0f;
    f.go = !clips || *norm - *norm == 0.0;
    return f;
}

struct Adamw {
    static constexpr bool STATE = true;
    static __device__ __forceinline__ void step(const Factors &f, float *p, float *m, float *v, float g)
    {
        g *= f.scale;
        *m += f.blend1 * (g - *m);
        *v = *v * f.keep2 + f.blend2 * (g * g);
        *p = *p * f.keep - f.rate * (*m / (sqrtf(*v) * f.root + f.eps));
    }
};
struct Sgd {
    static constexpr bool STATE = false;
    static __device__ __forceinline__ void step(const Factors &f, float *p, float *, float *, float g) { *p -= f.lr * (g * f.scale + f.decay * *p); }
};

template <typename Rule>
static __global__ void __launch_bounds__(THREADS)
update(const int32_t *n_seq, const Hyper *hyper, int64_t stride, float *param, float *m, float *v, const float *grad, int64_t grad_member, const double *norm)
{
    mdr_begin();
    MDR_SHARED(Factors, shared);
    const int64_t member = blockIdx.z, at = (int64_t)blockIdx.x * BLOCK;
    if (n_seq[member] == 0) return;
    if (threadIdx.x == 0) *shared = factors(hyper + member, norm ? norm + member : NULL);
    __syncthreads();
    const Factors f = *shared;
    if (!f.go) return;
#pragma unroll 2
    for (int64_t i = at + 4 * (int64_t)threadIdx.x; i < at + BLOCK && i < stride; i += 4 * THREADS) {
        const int64_t k = member * stride + i;
        const float4 g = *(const float4 *)(grad + member * grad_member + i);
        float4 p4 = *(const float4 *)(param + k), m4 = {}, v4 = {};
        if (Rule::STATE) {
            m4 = *(const float4 *)(m + k);
            v4 = *(const float4 *)(v + k);
        }
        Rule::step(f, &p4.x, &m4.x, &v4.x, g.x);
        Rule::step(f, &p4.y, &m4.y, &v4.y, g.y);
        Rule::step(f, &p4.z, &m4.z, &v4.z, g.z);
        Rule::step(f, &p4.w, &m4.w, &v4.w, g.w);
        *(float4 *)(param + k) = p4;
        if (Rule::STATE) {
            *(float4 *)(m + k) = m4;
            *(float4 *)(v + k) = v4;
        }
    }
}

/* The sum over a block in thread 0, always in the same order. */
static __device__ double block_sum(double x)
{
    MDR_SHARED(double, shared);
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0;
    for (int i = 0; threadIdx.x == 0 && i < THREADS / 32; i++) x += shared[i];
    return x;
}
static __global__ void __launch_bounds__(THREADS)
square_sums(const int32_t *n_seq, int64_t stride, const float *grad, int64_t grad_member, int64_t pitch, double *partial)
{
    mdr_begin();
    const int64_t member = blockIdx.z, at = (int64_t)blockIdx.x * BLOCK;
    if (n_seq[member] == 0) return;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = at + 4 * (int64_t)threadIdx.x; i < at + BLOCK && i < stride; i += 4 * THREADS) {
        const float4 g = *(const float4 *)(grad + member * grad_member + i);
        sum += (double)g.x * (double)g.x + (double)g.y * (double)g.y + (double)g.z * (double)g.z + (double)g.w * (double)g.w;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[member * pitch + blockIdx.x] = sum;
}
/* A member at rest has norm 0. */
static __global__ void __launch_bounds__(THREADS) norms(const int32_t *n_seq, int64_t blocks, int64_t pitch, const double *partial, double *norm)
{
    mdr_begin();
    const int64_t member = blockIdx.z;
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < blocks && n_seq[member] > 0; i += THREADS) sum += partial[member * pitch + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) norm[member] = sqrt(sum);
}

typedef void UpdateKernel(const int32_t *n_seq, const Hyper *hyper, int64_t stride, float *param, float *m, float *v, const float *grad, int64_t grad_member,
                          const double *norm);
extern "C" void mdr_cuda_update(const char *name, void *stream, int32_t n_member, const int32_t *n_seq, const Hyper *hyper, int64_t stride, float *param,
                                float *m, float *v, const float *grad, int64_t grad_member, const double *grad_norm)
{
    static const struct { const char *name; UpdateKernel *kernel; } rules[] = {{"adamw", update<Adamw>}, {"sgd", update<Sgd>}};
    const dim3 grid = mdr_grid(mdr_ceil_div(stride, BLOCK), 1, n_member);
    for (int i = 0; i < MDR_COUNT(rules); i++) {
        if (strcmp(rules[i].name, name) != 0) continue;
        UpdateKernel *const kernel = rules[i].kernel;
        MDR_LAUNCH(kernel, grid, THREADS, sizeof(Factors), stream, n_seq, hyper, stride, param, m, v, grad, grad_member, grad_norm);
    }
}

extern "C" void mdr_cuda_grad_norm(void *stream, int32_t n_member, const int32_t *n_seq, int64_t stride, const float *grad, int64_t grad_member,
                                   double *partial, double *norm)
{
    const int64_t blocks = mdr_ceil_div(stride, BLOCK), pitch = stride / BLOCK + 1;
    const size_t bytes = THREADS / 32 * sizeof(double);
    MDR_LAUNCH(square_sums, mdr_grid(blocks, 1, n_member), THREADS, bytes, stream, n_seq, stride, grad, grad_member, pitch, partial);
    MDR_LAUNCH(norms, mdr_grid(1, 1, n_member), THREADS, bytes, stream, n_seq, blocks, pitch, partial, norm);
}
