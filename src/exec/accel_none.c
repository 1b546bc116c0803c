/* What a build without CUDA has instead of accel.cu: it says so. */
#include "exec/internal.h"
#ifndef MDR_CUDA
#include "op/cuda_images.h"
#include "op/cuda_update.h"
#include <stdio.h>
#include <string.h>

static Err *none(void) { return MDR_ERR_USER("this madras was built without CUDA (install the CUDA toolkit, then `make CUDA=yes`)"); }

bool mdr_accel_built(void) { return false; }
int32_t mdr_accel_count(char *why) { snprintf(why, 256, "this madras was built without CUDA"); return 0; }
Err *mdr_accel_info(int32_t device, AccelInfo *info) { (void)device; memset(info, 0, sizeof *info); return none(); }
Err *mdr_accel_open(int32_t device, Accel **a) { (void)device; *a = NULL; return none(); }
Err *mdr_accel_beside(const Accel *a, Accel **another) { (void)a; *another = NULL; return none(); }
void mdr_accel_close(Accel *a) { (void)a; }
const AccelInfo *mdr_accel_about(const Accel *a) { (void)a; return NULL; }
void *mdr_accel_stream(const Accel *a) { (void)a; return NULL; }
int64_t mdr_accel_free_memory(const Accel *a) { (void)a; return 0; }
Err *mdr_accel_alloc(Accel *a, int64_t bytes, void **out) { (void)a, (void)bytes; *out = NULL; return none(); }
bool mdr_accel_is_oom(const Err *e) { (void)e; return false; }
void mdr_accel_free(Accel *a, void *p) { (void)a, (void)p; }
Err *mdr_accel_upload(Accel *a, void *device, const void *host, int64_t bytes) { (void)a, (void)device, (void)host, (void)bytes; return none(); }
Err *mdr_accel_download(Accel *a, void *host, const void *device, int64_t bytes) { (void)a, (void)host, (void)device, (void)bytes; return none(); }
Err *mdr_accel_fill(Accel *a, void *device, int byte, int64_t bytes) { (void)a, (void)device, (void)byte, (void)bytes; return none(); }
Err *mdr_accel_clear(Accel *a, int32_t side, void *device, int64_t bytes) { (void)a, (void)side, (void)device, (void)bytes; return none(); }
Err *mdr_accel_copy(Accel *a, void *to, int64_t to_pitch, const void *from, int64_t from_pitch, int64_t bytes, int64_t rows)
{
    (void)a, (void)to, (void)to_pitch, (void)from, (void)from_pitch, (void)bytes, (void)rows;
    return none();
}
Err *mdr_accel_ones(Accel *a, int32_t n, const int32_t *n_seq, int32_t *one) { (void)a, (void)n, (void)n_seq, (void)one; return none(); }
Err *mdr_accel_sync(Accel *a) { (void)a; return none(); }
Err *mdr_accel_launched(Accel *a) { (void)a; return none(); }
Err *mdr_accel_record_begin(Accel *a) { (void)a; return none(); }
Err *mdr_accel_record_end(Accel *a, Recording **r) { (void)a; *r = NULL; return none(); }
int32_t mdr_accel_launches(const Recording *r) { (void)r; return 0; }
Err *mdr_accel_replay(Accel *a, Recording *r) { (void)a, (void)r; return none(); }
void mdr_accel_recording_free(Recording *r) { (void)r; }
Err *mdr_accel_fork(Accel *a, int32_t i) { (void)a, (void)i; return none(); }
Err *mdr_accel_meet(Accel *a, int32_t i) { (void)a, (void)i; return none(); }
void *mdr_accel_side(const Accel *a, int32_t i) { (void)a, (void)i; return NULL; }
struct Beside *mdr_accel_aside(Accel *a, int32_t i) { (void)a, (void)i; return NULL; }
Err *mdr_accel_join(Accel *a, int32_t i) { (void)a, (void)i; return none(); }
Err *mdr_accel_mark(Accel *a, int32_t i) { (void)a, (void)i; return none(); }
bool mdr_accel_reached(Accel *a, int32_t i) { (void)a, (void)i; return true; }
Err *mdr_accel_elapsed(Accel *a, int32_t from, int32_t to, double *seconds) { (void)a, (void)from, (void)to; *seconds = 0; return none(); }

/* Never reached: without an Accel there is no step on one. */
void mdr_cuda_update(const char *name, void *stream, int32_t n_member, const int32_t *n_seq, const Hyper *hyper, int64_t stride, float *param,
                     float *m, float *v, const float *grad, int64_t grad_member, const double *grad_norm)
{
    (void)name, (void)stream, (void)n_member, (void)n_seq, (void)hyper, (void)stride, (void)param, (void)m, (void)v, (void)grad;
    (void)grad_member, (void)grad_norm;
}
void mdr_cuda_grad_norm(void *stream, int32_t n_member, const int32_t *n_seq, int64_t stride, const float *grad, int64_t grad_member,
                        double *partial, double *norm)
{
    (void)stream, (void)n_member, (void)n_seq, (void)stride, (void)grad, (void)grad_member, (void)partial, (void)norm;
}
void mdr_cuda_images(void *stream, Images *list) { (void)stream, (void)list; }
#else
typedef int mdr_accel_is_in_accel_cu;                 /* ISO C wants a declaration in every file                             */
#endif
