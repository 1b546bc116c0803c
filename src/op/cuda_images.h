/* Images of weights (op/cuda_product.h) that one launch makes. A step prepares many small ones, each too short for a launch of its own:
 * where exec lends a list (Call.images) Prep.run leaves its image there, and exec has the list made before anything reads them. */
#ifndef MDR_CUDA_IMAGES_H
#define MDR_CUDA_IMAGES_H
#include "op/op.h"

#ifdef __cplusplus
extern "C" {
#endif
/* The image of w [inner, cols], or [cols, inner] where turned. Strides between members in floats. */
typedef struct ImageJob {
    const float *w;
    float *to;
    int64_t w_member, to_member;
    int32_t ld, inner, cols, turned;
} ImageJob;
/* A launch's parameters, which 4 KB hold; all images are of as many members. Begins as zeros. */
enum { MDR_IMAGES = 64 };
typedef struct Images {
    int32_t n, members, blocks;
    int32_t first[MDR_IMAGES];            /* block of the grid of each image                                                     */
    ImageJob job[MDR_IMAGES];
} Images;
/* Enqueues the making of what is on the list, and empties it. */
MDR_API void mdr_cuda_images(void *stream, Images *list);
#ifdef __cplusplus
}
#endif
#endif
