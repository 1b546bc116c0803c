/* matmul_tn and matmul_tn_sum of bf16 as a population runs them that fills the GPU: blocks that take a group of rows, in each of their shapes,
 * with one piece, several pieces, several groups; z of all sequences and of each. Most members rest, some have all sequences, some few:
 * what lies beyond is NaN. A member alone, whose blocks take pieces, has the same bits; both agree with sums in double. */
#include "exec/accel.h"
#include "op/op.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

typedef struct Case { int32_t inner, cols, rows, seqs, members; bool apart; } Case;       /* apart: a z of each sequence             */
static const Case cases[] = {
    {72, 136, 25, 4, 50, false},   {136, 72, 25, 4, 50, false},   {72, 264, 25, 4, 45, false},   {136, 200, 25, 4, 45, false},      /* a piece   */
    {72, 200, 33, 3, 50, false},   {72, 392, 33, 3, 45, false},
    {72, 136, 65, 8, 34, false},   {136, 72, 65, 8, 45, false},   {72, 264, 65, 8, 45, false},   {136, 200, 131, 8, 45, false},     /* pieces    */
    {72, 200, 65, 8, 34, false},   {72, 72, 65, 8, 50, false},
    {72, 72, 130, 16, 25, false},  {72, 136, 221, 12, 25, false}, {136, 72, 221, 12, 25, false},                                     /* groups    */
    {72, 72, 40, 4, 25, true},     {72, 264, 37, 4, 12, true},
};
enum { ACTIVE = 5, OTHER = 8, POOR = 0x7fc0 };                 /* members with sequences; their distance; a NaN                     */

/* Of a population on the host: x [members][seqs * rows][inner + 8], y likewise without gaps, z and s what they start from. */
typedef struct Data { uint16_t *x, *y; float *z, *s; int32_t *n_seq; int64_t x_one, y_one, z_one, s_one; } Data;
static float value(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static uint16_t random_bf16(Rng *r)
{
    const float f = (float)(2 * mdr_rng_unit(r) - 1);
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)(u >> 16);
}
static Data draw(const Case *c)
{
    const int64_t rows = (int64_t)c->rows * c->seqs, zs = c->apart ? c->seqs : 1;
    Data d = {.x_one = rows * (c->inner + 8), .y_one = rows * c->cols, .z_one = zs * c->inner * c->cols, .s_one = zs * c->cols};
    const int32_t some[ACTIVE] = {c->seqs, 1, c->seqs - 1, c->seqs, 2};
    d.x = mdr_alloc((size_t)(c->members * d.x_one) * sizeof *d.x);
    d.y = mdr_alloc((size_t)(c->members * d.y_one) * sizeof *d.y);
    d.z = mdr_alloc((size_t)(c->members * d.z_one) * sizeof *d.z);
    d.s = mdr_alloc((size_t)(c->members * d.s_one) * sizeof *d.s);
    d.n_seq = mdr_alloc((size_t)c->members * sizeof *d.n_seq);
    Rng r = mdr_rng(29, 11);
    for (int32_t m = 0; m < c->members; m++) {
        d.n_seq[m] = m % OTHER == 1 && m / OTHER < ACTIVE ? some[m / OTHER] : 0;
        const int64_t used = (int64_t)c->rows * d.n_seq[m];
        for (int64_t i = 0; i < d.x_one; i++)
            d.x[m * d.x_one + i] = i % (c->inner + 8) < c->inner && i / (c->inner + 8) < used ? random_bf16(&r) : POOR;
        for (int64_t i = 0; i < d.y_one; i++) d.y[m * d.y_one + i] = i / c->cols < used ? random_bf16(&r) : POOR;
        for (int64_t i = 0; i < d.z_one; i++) d.z[m * d.z_one + i] = (float)mdr_rng_unit(&r);
        for (int64_t i = 0; i < d.s_one; i++) d.s[m * d.s_one + i] = (float)mdr_rng_unit(&r);
    }
    return d;
}
static void data_free(Data *d)
{
    mdr_free(d->x);
    mdr_free(d->y);
    mdr_free(d->z);
    mdr_free(d->s);
    mdr_free(d->n_seq);
}

static void ok(Err *e)
{
    if (e) fail_msg("%s (%s)", mdr_err_text(e), mdr_err_born(e));
}
static void *sent(Accel *a, const void *from, int64_t bytes)
{
    void *p;
    ok(mdr_accel_alloc(a, bytes, &p));
    ok(mdr_accel_upload(a, p, from, bytes));
    return p;
}
/* Members [first, first + n): z and s as they are afterwards. */
static void run(Accel *a, const Node *node, const Case *c, const Data *d, int32_t first, int32_t n, float *z, float *s)
{
    const bool sums = node->n_out == 2;
    const Kernel *k = &mdr_op_cuda(node)->kernel;
    Call call = {.node = node, .extent = {n, c->seqs}, .add = c->apart ? 0 : sums ? 3 : 1, .stream = mdr_accel_stream(a)};
    void *x = sent(a, d->x + first * d->x_one, n * d->x_one * 2), *y = sent(a, d->y + first * d->y_one, n * d->y_one * 2);
    float *to = sent(a, d->z + first * d->z_one, n * d->z_one * 4), *to_sum = sent(a, d->s + first * d->s_one, n * d->s_one * 4);
    int32_t *n_seq = sent(a, d->n_seq + first, n * 4);
    const size_t scratch = k->scratch(node, call.extent);
    if (scratch) ok(mdr_accel_alloc(a, (int64_t)scratch, &call.scratch));
    call.n_seq = n_seq;
    call.in[0] = (Arg){x, d->x_one, (int64_t)c->rows * (c->inner + 8), c->inner + 8, 2};
    call.in[1] = (Arg){y, d->y_one, (int64_t)c->rows * c->cols, c->cols, 2};
    call.out[0] = (Arg){to, d->z_one, c->apart ? c->inner * c->cols : 0, c->cols, 4};
    if (sums) call.out[1] = (Arg){to_sum, d->s_one, c->apart ? c->cols : 0, c->cols, 4};
    k->run(&call, 0, 0);
    ok(mdr_accel_launched(a));
    ok(mdr_accel_download(a, z, to, n * d->z_one * 4));
    ok(mdr_accel_download(a, s, to_sum, n * d->s_one * 4));
    void *all[] = {x, y, to, to_sum, n_seq, call.scratch};
    for (int i = 0; i < 6; i++) mdr_accel_free(a, all[i]);
}

/* One element is off by no more than its sum may be; `all` is the sum of magnitudes. */
static void near(double got, double want, double all, const char *what, int32_t m, int64_t at)
{
    if (!(fabs(got - want) <= 4e-6 * (all + 1))) fail_msg("%s of member %d, element %lld: %.9g, wanted %.9g", what, m, (long long)at, got, want);
}
static void reference(const Case *c, const Data *d, int32_t m, const float *z, const float *s, bool sums)
{
    const uint16_t *x = d->x + m * d->x_one, *y = d->y + m * d->y_one;
    const int64_t rows = (int64_t)c->rows * d->n_seq[m], each = c->apart ? c->rows : rows;
    for (int64_t at = 0; at * each < rows; at++) {
        const int64_t from = at * each;
        for (int64_t col = 0; col < c->cols; col++) {
            double all = 0, sum = c->apart ? 0 : (double)d->s[m * d->s_one + col];
            for (int64_t r = from; r < from + each; r++) {
                sum += (double)value(y[r * c->cols + col]);
                all += fabs((double)value(y[r * c->cols + col]));
            }
            if (sums) near((double)s[at * c->cols + col], sum, all, "sum", m, col);
            for (int64_t k = col % 5; k < c->inner; k += 5) {                  /* some of them                                     */
                sum = c->apart ? 0 : (double)d->z[m * d->z_one + k * c->cols + col];
                for (int64_t r = from; r < from + each; r++) sum += (double)value(x[r * (c->inner + 8) + k]) * (double)value(y[r * c->cols + col]);
                near((double)z[(at * c->inner + k) * c->cols + col], sum, all, "z", m, k * c->cols + col);
            }
        }
    }
}

static void check(Accel *a, const Case *c, const char *op)
{
    Builder *b = mdr_ir_builder();
    const Value in[2] = {mdr_ir_input(b, "x", mdr_shape2(c->rows, c->inner), DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER),
                         mdr_ir_input(b, "y", mdr_shape2(c->rows, c->cols), DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER)};
    const Value v = mdr_ir_node(b, mdr_op_def(op), NULL, 2, in);
    mdr_ir_output(b, v);
    Graph *g = NULL;
    ok(mdr_ir_finish(b, &g));
    const Node *node = &g->node[g->output[0].node];
    const bool sums = node->n_out == 2;
    Data d = draw(c);
    float *z = mdr_alloc((size_t)(c->members * d.z_one) * sizeof *z), *s = mdr_alloc((size_t)(c->members * d.s_one) * sizeof *s);
    float *one = mdr_alloc((size_t)d.z_one * sizeof *one), *one_sum = mdr_alloc((size_t)d.s_one * sizeof *one_sum);
    run(a, node, c, &d, 0, c->members, z, s);
    for (int32_t m = 0; m < c->members; m++) {
        const float *mine = z + m * d.z_one, *my_sum = s + m * d.s_one;
        if (d.n_seq[m]) {
            reference(c, &d, m, mine, my_sum, sums);
            run(a, node, c, &d, m, 1, one, one_sum);
        }
        const float *want = d.n_seq[m] ? one : d.z + m * d.z_one, *want_sum = d.n_seq[m] ? one_sum : d.s + m * d.s_one;
        if (memcmp(mine, want, (size_t)d.z_one * sizeof *z) != 0) fail_msg("%s %dx%d, %d rows: member %d has other bits", op, c->inner, c->cols, c->rows, m);
        if (memcmp(my_sum, want_sum, (size_t)d.s_one * sizeof *s) != 0) fail_msg("%s %dx%d: member %d has other sums", op, c->inner, c->cols, m);
    }
    mdr_free(z);
    mdr_free(s);
    mdr_free(one);
    mdr_free(one_sum);
    data_free(&d);
    mdr_ir_graph_free(g);
}
static void all(const char *op)
{
    Accel *a = NULL;
    ok(mdr_accel_open(0, &a));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(a, &cases[i], op);
    mdr_accel_close(a);
}
static void products(void **state) { (void)state, all("matmul_tn"); }
static void products_and_sums(void **state) { (void)state, all("matmul_tn_sum"); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(products_and_sums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
