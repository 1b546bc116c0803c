/* Images of weights (op/cuda_images.h): of every shape and both ways round, of several members, made alone, and by one launch for as many as
 * its list takes, more of them, or few. Each is the transpose of w in bf16, zeros around it, and nothing beside it is touched. */
#include "exec/accel.h"
#include "op/cuda_images.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const int32_t sizes[][2] = {{1, 1}, {64, 32}, {5, 33}, {70, 96}, {100, 31}, {31, 100}, {33, 65}, {128, 352}, {65, 64}};   /* inner, cols */
enum { SIZES = MDR_COUNT(sizes), MOST = 2 * MDR_IMAGES + 7, MEMBERS = 3, GAP = 8, UNTOUCHED = 0x5b };

/* Image i: a product of [.., inner] by w at w_at of a member's weights, made at to_at (floats) of a member's images. */
typedef struct Product { Node node; MatmulAttr attr; int32_t inner, cols, ld; int64_t w_at, to_at; } Product;
typedef struct Made { Product p[MOST]; int64_t w_one, to_one; float *w; uint16_t *want; void *device_w, *device_to; Accel *accel; } Made;

static void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}
static uint16_t nearest(float x)                               /* x is a number                                                     */
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static void describe(Made *a)
{
    const uint8_t all = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    for (int32_t i = 0; i < MOST; i++) {
        Product *p = &a->p[i];
        p->inner = sizes[i % SIZES][0];
        p->cols = sizes[i % SIZES][1];
        p->attr.transposed = i / SIZES % 2;
        const int32_t rows = p->attr.transposed ? p->cols : p->inner, width = p->attr.transposed ? p->inner : p->cols;
        p->ld = width + i % 3;
        p->node = (Node){.op = mdr_op_def("matmul"), .attr = &p->attr, .in = {{0, 0}, {1, 0}}, .n_in = 2, .n_out = 1};
        p->node.in_type[0] = (Type){mdr_shape2(4, p->inner), DT_REAL, all, PH_SEQ};
        p->node.in_type[1] = (Type){mdr_shape2(rows, width), DT_REAL, MDR_AXIS_MEMBER, PH_STEP};
        ok(p->node.op->shape(&p->node));
        p->w_at = a->w_one;
        p->to_at = a->to_one;
        a->w_one += (int64_t)rows * p->ld + i % 5;
        a->to_one += mdr_op_cuda(&p->node)->kernel.prep.elements(&p->node) + GAP;
    }
}
/* What lies between weights is a NaN, between images what was there. */
static void draw(Made *a)
{
    Rng r = mdr_rng(7, 3);
    a->w = mdr_alloc((size_t)(MEMBERS * a->w_one) * sizeof *a->w);
    a->want = mdr_alloc((size_t)(MEMBERS * a->to_one) * 4);
    for (int64_t i = 0; i < MEMBERS * a->w_one; i++) a->w[i] = NAN;
    memset(a->want, UNTOUCHED, (size_t)(MEMBERS * a->to_one) * 4);
    for (int32_t m = 0; m < MEMBERS; m++)
        for (int32_t i = 0; i < MOST; i++) {
            const Product *p = &a->p[i];
            const int32_t rows = (p->cols + 31) / 32 * 32, ld = (p->inner + 63) / 64 * 64;
            float *w = a->w + m * a->w_one + p->w_at;
            uint16_t *to = a->want + 2 * (m * a->to_one + p->to_at);
            memset(to, 0, (size_t)rows * (size_t)ld * 2);
            for (int32_t n = 0; n < p->cols; n++)
                for (int32_t k = 0; k < p->inner; k++) {
                    const float x = (float)(2 * mdr_rng_unit(&r) - 1);
                    w[p->attr.transposed ? n * p->ld + k : k * p->ld + n] = x;
                    to[n * ld + k] = nearest(x);
                }
        }
    ok(mdr_accel_alloc(a->accel, MEMBERS * a->w_one * 4, &a->device_w));
    ok(mdr_accel_alloc(a->accel, MEMBERS * a->to_one * 4, &a->device_to));
    ok(mdr_accel_upload(a->accel, a->device_w, a->w, MEMBERS * a->w_one * 4));
}

static void prepare(const Made *a, int32_t from, int32_t to, Images *list)
{
    for (int32_t i = from; i < to; i++) {
        const Product *p = &a->p[i];
        Call c = {.node = &p->node, .extent = {MEMBERS, 1}, .stream = mdr_accel_stream(a->accel), .images = list};
        c.in[0].size = 2;
        c.in[1] = (Arg){(float *)a->device_w + p->w_at, a->w_one, 0, p->ld, 4};
        c.out[0] = (Arg){(float *)a->device_to + p->to_at, a->to_one, 0, 0, 4};
        mdr_op_cuda(&p->node)->kernel.prep.run(&c, 0, 0);
    }
}
/* Images [from, to) are made, in so many launches; the list's of a recording, which a replay must not ask for again. */
static void check(Made *a, int32_t from, int32_t to, bool listed, int32_t launches)
{
    Images list = {0};
    Recording *r = NULL;
    uint16_t *got = mdr_alloc((size_t)(MEMBERS * a->to_one) * 4), *want = mdr_alloc((size_t)(MEMBERS * a->to_one) * 4);
    memset(want, UNTOUCHED, (size_t)(MEMBERS * a->to_one) * 4);
    for (int32_t m = 0; m < MEMBERS; m++)
        for (int32_t i = from; i < to; i++) {
            const int64_t at = 2 * (m * a->to_one + a->p[i].to_at), n = mdr_op_cuda(&a->p[i].node)->kernel.prep.elements(&a->p[i].node);
            memcpy(want + at, a->want + at, (size_t)n * 4);
        }
    ok(mdr_accel_fill(a->accel, a->device_to, UNTOUCHED, MEMBERS * a->to_one * 4));
    ok(mdr_accel_record_begin(a->accel));
    prepare(a, from, to, listed ? &list : NULL);
    mdr_cuda_images(mdr_accel_stream(a->accel), &list);
    assert_int_equal(list.n, 0);
    ok(mdr_accel_launched(a->accel));
    ok(mdr_accel_record_end(a->accel, &r));
    assert_int_equal(mdr_accel_launches(r), launches);
    memset(&list, UNTOUCHED, sizeof list);
    ok(mdr_accel_replay(a->accel, r));
    ok(mdr_accel_download(a->accel, got, a->device_to, MEMBERS * a->to_one * 4));
    for (int64_t i = 0; i < 2 * MEMBERS * a->to_one; i++)
        if (got[i] != want[i]) fail_msg("images %d to %d: number %lld is %04x, wanted %04x", from, to, (long long)i, (unsigned)got[i], (unsigned)want[i]);
    mdr_accel_recording_free(r);
    mdr_free(got);
    mdr_free(want);
}

static void images(void **state)
{
    (void)state;
    Made *a = mdr_alloc(sizeof *a);
    ok(mdr_accel_open(0, &a->accel));
    describe(a);
    draw(a);
    check(a, 0, 2 * SIZES, false, 2 * SIZES);
    check(a, 0, 2 * SIZES, true, 1);
    check(a, 3, 4, true, 1);
    check(a, 0, 0, true, 0);
    check(a, 5, 5 + MDR_IMAGES, true, 1);
    check(a, 0, MOST, true, 3);
    mdr_accel_free(a->accel, a->device_w);
    mdr_accel_free(a->accel, a->device_to);
    mdr_accel_close(a->accel);
    mdr_free(a->w);
    mdr_free(a->want);
    mdr_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(images)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
