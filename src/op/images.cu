/* Images of weights for products on tensor cores (cuda_product.h): all that are on a list by one launch. Not nodes of a graph. */
#include "op/cuda_images.h"
#include "op/cuda_product.h"

static_assert(sizeof(Images) <= 4096, "the parameters of a launch");

static __global__ void __launch_bounds__(256) make_images(const Images list)             /* 32 by 32 a block of 32 x 8 */
{
    mdr_begin();
    MDR_SHARED(float, tile);                               /* [32][33]: (k, n), or (n, k) where w is turned                    */
    int32_t which = 0;
    for (int32_t i = 1; i < list.n; i++) which += (int32_t)blockIdx.x >= list.first[i];
    const ImageJob job = list.job[which];
    const int32_t ld = image_ld(job.inner);
    const uint32_t block = blockIdx.x - (uint32_t)list.first[which], across = (uint32_t)ld / 32;
    const int32_t k0 = (int32_t)(block % across) * 32, n0 = (int32_t)(block / across) * 32;
    const int32_t r0 = job.turned ? n0 : k0, c0 = job.turned ? k0 : n0;
    const int32_t rows = job.turned ? job.cols : job.inner, width = job.turned ? job.inner : job.cols;
    const float *w = job.w + blockIdx.z * job.w_member;
    bf16 *to = (bf16 *)(job.to + blockIdx.z * job.to_member);
    const int tx = (int)threadIdx.x, ty = (int)threadIdx.y;
#pragma unroll
    for (int i = 0; i < 32; i += 8) {
        const int32_t r = r0 + i + ty;
        tile[(i + ty) * 33 + tx] = r < rows && c0 + tx < width ? w[(int64_t)r * job.ld + c0 + tx] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 32; i += 8)
        put(to + (int64_t)(n0 + i + ty) * ld + k0 + tx, tile[job.turned ? (i + ty) * 33 + tx : tx * 33 + i + ty]);
}

extern "C" void mdr_cuda_images(void *stream, Images *list)
{
    if (list->n) MDR_LAUNCH(make_images, mdr_grid(list->blocks, 1, list->members), dim3(32, 8), 32 * 33 * sizeof(float), stream, *list);
    list->n = list->blocks = 0;
}
