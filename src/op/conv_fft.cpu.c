/* conv_fft, conv_fft_dh, spectrum and spectrum_adj with AVX2: 16 channels of one sequence (a line of the cache) are
 * a unit's work, in two halves of 8 lanes; the transform is fft.cpu.c's. A sequence is transformed alone, so its
 * bits do not depend on its neighbours. Gradients of the spectrum add up sequence by sequence in order. Equations:
 * conv_fft.c. */
#include "op/op.h"
#include "op/fft.h"

enum { SPAN = 2 * FFT_LANES };                         /* channels of a unit */

typedef struct Work { FftSize size; int32_t rows, cols; float *table, *z[4]; } Work;    /* z: FFT buffers in scratch */

static int64_t spans(Shape x) { return (x.d[1] + SPAN - 1) / SPAN; }
static Shape real_shape(const Node *n) { return n->in_type[0].shape; }
static size_t table_floats(FftSize s) { return (mdr_op_fft_floats(s) + 15) / 16 * 16; }
static size_t scratch_for(Shape x, size_t buffers) {
    FftSize s = fft_size(x.d[0]);
    return sizeof(float) * (table_floats(s) + buffers * (size_t)fft_buffer(s));
}
static Work prepare(const Call *c, Shape x, int buffers) {
    Work w = {.size = fft_size(x.d[0]), .rows = x.d[0], .cols = x.d[1], .table = c->scratch};
    for (int i = 0; i < buffers; i++) w.z[i] = w.table + table_floats(w.size) + i * fft_buffer(w.size);
    mdr_op_fft_table(w.size, w.table);
    return w;
}
static FftColumns columns(const Work *w, const Arg *a, int64_t seq, int64_t span) {
    const int32_t first = (int32_t)span * SPAN, left = w->cols - first;
    return (FftColumns){(float *)a->data + seq * a->seq + first, a->ld, left < SPAN ? left : SPAN};
}
static float *spectrum_row(const Arg *a, int64_t seq, int64_t row) {
    return (float *)a->data + seq * a->seq + row * a->ld;
}

/* unit = sequence * spans + span: neighbours are on neighbouring lines of the same rows */
static int64_t units_each(const Node *n, Extent e) { return spans(real_shape(n)) * e.n_seq; }
static void conv_fft(const Call *c, int64_t unit0, int64_t unit1) {
    const Work w = prepare(c, real_shape(c->node), 2);
    const int32_t conj = ((const FftAttr *)c->node->attr)->conj;
    const int64_t n_span = spans(real_shape(c->node));
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t span = unit % n_span, seq = unit / n_span;
        const FftColumns u = columns(&w, &c->in[0], seq, span), y = columns(&w, &c->out[0], seq, span);
        mdr_op_fft_begin(w.size, w.table, u, w.rows, w.z[0], w.z[1]);
        for (int half = 0; half * FFT_LANES < u.n; half++)
            mdr_op_fft_filter(w.size, w.table, w.z[half], spectrum_row(&c->in[1], seq, 2 * span + half), conj);
        mdr_op_fft_end(w.size, w.table, w.z[0], w.z[1], y, w.rows);
    }
}
static size_t scratch_conv(const Node *n, Extent e) {
    (void)e;
    return scratch_for(real_shape(n), 2);
}

static int64_t units_span(const Node *n, Extent e) {
    (void)e;
    return spans(real_shape(n));
}
static void conv_fft_dh(const Call *c, int64_t unit0, int64_t unit1) {
    const Work w = prepare(c, real_shape(c->node), 4);
    for (int64_t span = unit0; span < unit1; span++)
        for (int64_t seq = 0; seq < c->extent.n_seq; seq++) {
            const FftColumns u = columns(&w, &c->in[0], seq, span), dy = columns(&w, &c->in[1], seq, span);
            mdr_op_fft_begin(w.size, w.table, u, w.rows, w.z[0], w.z[1]);
            mdr_op_fft_begin(w.size, w.table, dy, w.rows, w.z[2], w.z[3]);
            for (int half = 0; half * FFT_LANES < u.n; half++)
                mdr_op_fft_correlate(w.size, w.table, w.z[half], w.z[2 + half],
                                     spectrum_row(&c->out[0], seq, 2 * span + half), c->add & 1u);
        }
}
static size_t scratch_dh(const Node *n, Extent e) {
    (void)e;
    return scratch_for(real_shape(n), 4);
}

static void spectrum(const Call *c, int64_t unit0, int64_t unit1) {
    const Work w = prepare(c, real_shape(c->node), 2);
    const float scale = (float)(1.0 / w.size.size);
    const int64_t n = (int64_t)w.size.sub * FFT_POINT, n_span = (w.cols + SPAN - 1) / SPAN;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t span = unit % n_span, seq = unit / n_span;
        const FftColumns h = columns(&w, &c->in[0], seq, span);
        mdr_op_fft_begin(w.size, w.table, h, w.rows, w.z[0], w.z[1]);
        for (int half = 0; half * FFT_LANES < h.n; half++) {
            float *to = spectrum_row(&c->out[0], seq, 2 * span + half);
            mdr_op_fft_forward(w.size, w.table, w.z[half]);
            for (int32_t k = 0; k < w.size.radix; k++)
                for (int64_t i = 0; i < n; i++) to[k * n + i] = scale * w.z[half][k * fft_part(w.size) + i];
        }
    }
}
static int64_t units_adj(const Node *n, Extent e) { return spans(n->out[0].shape) * e.n_seq; }
static void spectrum_adj(const Call *c, int64_t unit0, int64_t unit1) {
    const Work w = prepare(c, c->node->out[0].shape, 2);
    const float scale = (float)(1.0 / w.size.size);
    const int64_t n = (int64_t)w.size.sub * FFT_POINT, n_span = (w.cols + SPAN - 1) / SPAN;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const int64_t span = unit % n_span, seq = unit / n_span;
        const FftColumns h = columns(&w, &c->out[0], seq, span);
        for (int half = 0; half * FFT_LANES < h.n; half++) {
            const float *from = spectrum_row(&c->in[0], seq, 2 * span + half);
            for (int32_t k = 0; k < w.size.radix; k++)
                for (int64_t i = 0; i < n; i++) w.z[half][k * fft_part(w.size) + i] = scale * from[k * n + i];
            mdr_op_fft_inverse(w.size, w.table, w.z[half]);
        }
        mdr_op_fft_end(w.size, w.table, w.z[0], w.z[1], h, w.rows);
    }
}
static size_t scratch_adj(const Node *n, Extent e) {
    (void)e;
    return scratch_for(n->out[0].shape, 2);
}

const CpuRow mdr_cpu_rows_conv_fft[] = {
    {.op = "conv_fft", .kernel = {.run = conv_fft, .units = units_each, .scratch = scratch_conv}},
    {.op = "conv_fft_dh", .kernel = {.run = conv_fft_dh, .units = units_span, .scratch = scratch_dh}},
    {.op = "spectrum", .kernel = {.run = spectrum, .units = units_each, .scratch = scratch_conv}},
    {.op = "spectrum_adj", .kernel = {.run = spectrum_adj, .units = units_adj, .scratch = scratch_adj}},
    {0}};
