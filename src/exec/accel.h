/* The few things exec needs of an accelerator: memory of its own, a stream, recorded steps. accel.cu implements them over the CUDA
 * runtime; accel_none.c where no CUDA was built in. One Accel is one GPU with one stream. Errors are sentences; after an error
 * of the device itself (mdr_accel_lost) nothing on it can be used again in this process. */
#ifndef MDR_ACCEL_H
#define MDR_ACCEL_H
#include "op/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct AccelInfo {
    char name[128], class_name[32];       /* "NVIDIA H200"; "cuda-sm90": enters keys                                    */
    int64_t memory, free;                 /* bytes                                                                       */
    int32_t processors, major, minor, driver, runtime, clock_khz;
    char why_not[256];                    /* "" = usable                                                                 */
} AccelInfo;
MDR_API bool mdr_accel_built(void);                                   /* was CUDA built in?                              */
/* Number of GPUs the driver shows; 0 with a sentence in why (size 256) when none is usable or there is no driver. */
MDR_API int32_t mdr_accel_count(char *why);
MDR_API Err *mdr_accel_info(int32_t device, AccelInfo *info);

typedef struct Accel Accel;
MDR_API Err *mdr_accel_open(int32_t device, Accel **a);
MDR_API Err *mdr_accel_beside(const Accel *a, Accel **another);        /* the same GPU, a stream of its own               */
MDR_API void mdr_accel_close(Accel *a);                               /* NULL is fine                                    */
MDR_API const AccelInfo *mdr_accel_about(const Accel *a);
MDR_API void *mdr_accel_stream(const Accel *a);                       /* cudaStream_t                                    */
MDR_API int64_t mdr_accel_free_memory(const Accel *a);
/* Out of memory: *out NULL and an Err for which mdr_accel_is_oom() is true; the device stays usable. Aligned to 256 bytes. */
MDR_API Err *mdr_accel_alloc(Accel *a, int64_t bytes, void **out);
MDR_API bool mdr_accel_is_oom(const Err *e);
MDR_API void mdr_accel_free(Accel *a, void *p);
/* Ordered with the stream, for which download waits. The host's memory of an upload may be reused after the next wait for the stream. */
MDR_API Err *mdr_accel_upload(Accel *a, void *device, const void *host, int64_t bytes);
MDR_API Err *mdr_accel_download(Accel *a, void *host, const void *device, int64_t bytes);
MDR_API Err *mdr_accel_fill(Accel *a, void *device, int byte, int64_t bytes);            /* recorded while recording      */
MDR_API Err *mdr_accel_clear(Accel *a, int32_t side, void *device, int64_t bytes);       /* with zeros, on a side (below) */
/* rows pieces of `bytes` bytes, pitches in bytes; device to device; recorded while recording. */
MDR_API Err *mdr_accel_copy(Accel *a, void *to, int64_t to_pitch, const void *from, int64_t from_pitch, int64_t bytes, int64_t rows);
/* one[m] = n_seq[m] > 0; recorded while recording. */
MDR_API Err *mdr_accel_ones(Accel *a, int32_t n, const int32_t *n_seq, int32_t *one);
MDR_API Err *mdr_accel_sync(Accel *a);                                /* waits; returns what went wrong on the device     */
MDR_API Err *mdr_accel_launched(Accel *a);                            /* did an enqueue fail? no waiting                  */

/* Recording: what is enqueued between begin and end becomes one graph that replay enqueues at once. */
typedef struct Recording Recording;
MDR_API Err *mdr_accel_record_begin(Accel *a);
MDR_API Err *mdr_accel_record_end(Accel *a, Recording **r);
MDR_API int32_t mdr_accel_launches(const Recording *r);               /* kernels and copies that it holds                  */
MDR_API Err *mdr_accel_replay(Accel *a, Recording *r);
MDR_API void mdr_accel_recording_free(Recording *r);

/* Pieces of work that do not depend on one another run side by side: after fork, side i (cudaStream_t) sees what was enqueued before it;
 * after meet, the stream sees what the side was given so far, and the side goes on; join does so for the last time. */
enum { MDR_ACCEL_SIDES = 2 };
MDR_API Err *mdr_accel_fork(Accel *a, int32_t i);
MDR_API Err *mdr_accel_meet(Accel *a, int32_t i);
MDR_API Err *mdr_accel_join(Accel *a, int32_t i);                     /* nothing where it was not forked                  */
MDR_API void *mdr_accel_side(const Accel *a, int32_t i);
MDR_API struct Beside *mdr_accel_aside(Accel *a, int32_t i);            /* side i for kernels that fork it themselves, as often as they like */

/* Times on the device: mark() notes a moment, reached() asks whether it is over (true too where the device failed: who waits learns
 * why), elapsed() waits for both and gives seconds between them. */
enum { MDR_ACCEL_MARKS = 4096 };
MDR_API Err *mdr_accel_mark(Accel *a, int32_t i);
MDR_API bool mdr_accel_reached(Accel *a, int32_t i);
MDR_API Err *mdr_accel_elapsed(Accel *a, int32_t from, int32_t to, double *seconds);
#ifdef __cplusplus
}
#endif
#endif
