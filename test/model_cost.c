/* What a model costs, counted by hand and compared exactly. The rules: a matrix product [m, k] by [k, n] is 2 m k n; attention is
 * two products over the pairs (query, position it really sees); a direct convolution one product a pair of positions and channel; an
 * FFT convolution two transforms a channel, 5 N log2 N each; a short convolution 2 a tap, channel and row; a scan 4 a row, channel
 * and state. Element-wise work and what is done once a step (filters, their spectra) do not count. L counts rows: recall tasks
 * have one row fewer than their length. */
#include "model/model.h"
#include "op/op.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { D = 128, V = 16, INNER = 352, BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };

static double product(double m, double k, double n) { return 2 * m * k * n; }

/* ---- one op at a time ---- */
static double flops_of(Builder *b, Value y)
{
    Graph *g;
    mdr_ir_output(b, y);
    Err *e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    double f = mdr_ir_cost(&g->node[y.node]).flops;
    mdr_ir_graph_free(g);
    return f;
}
static Value seq(Builder *b, Shape s) { return mdr_ir_input(b, "x", s, DT_REAL, BOTH); }
static Value weight(Builder *b, Shape s) { return mdr_ir_param(b, "w", s, (Init){INIT_CONST, 0, 0, NULL}); }
static void exactly(const char *name, double got, double want)
{
    if (!(got == want)) fail_msg("%s: %.17g flops, by hand %.17g", name, got, want);
}
/* Pairs (t, s) with s <= t and, under a window, t - s <= window: one by one. */
static double pairs(int rows, int window)
{
    double n = 0;
    for (int t = 0; t < rows; t++)
        for (int s = 0; s <= t; s++) n += window == 0 || t - s <= window;
    return n;
}
static void products(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    exactly("x W + b", flops_of(b, mdr_op_matmul(b, seq(b, mdr_shape2(7, 5)), weight(b, mdr_shape2(5, 3)), weight(b, mdr_shape1(3)))), 2 * 7 * 5 * 3);
    b = mdr_ir_builder();
    exactly("x W'", flops_of(b, mdr_op_matmul_t(b, seq(b, mdr_shape2(7, 5)), weight(b, mdr_shape2(3, 5)))), 2 * 7 * 5 * 3);
    b = mdr_ir_builder();
    exactly("x' y", flops_of(b, mdr_op_matmul_tn(b, seq(b, mdr_shape2(7, 5)), seq(b, mdr_shape2(7, 3)))), 2 * 7 * 5 * 3);
    b = mdr_ir_builder();
    exactly("three dimensions", flops_of(b, mdr_op_matmul(b, seq(b, mdr_shape3(2, 7, 5)), weight(b, mdr_shape2(5, 3)), MDR_ABSENT)), 2 * 14 * 5 * 3);
}
static void attention(void **state)
{
    (void)state;
    static const struct { int rows, heads, width, window; } at[] = {{1, 1, 4, 0}, {5, 1, 4, 0}, {9, 3, 2, 0}, {9, 3, 2, 1}, {9, 3, 2, 7}, {9, 3, 2, 8},
                                                                    {9, 3, 2, 9}, {9, 3, 2, 1000}, {127, 16, 8, 32}};
    for (int i = 0; i < MDR_COUNT(at); i++) {
        Builder *b = mdr_ir_builder();
        Shape s = mdr_shape2(at[i].rows, at[i].heads * at[i].width);
        Value y = mdr_op_attention(b, seq(b, s), seq(b, s), seq(b, s), (AttentionAttr){at[i].heads, at[i].window});
        double n = pairs(at[i].rows, at[i].window), scores = 2 * n * at[i].width * at[i].heads, values = scores;
        exactly("attention", flops_of(b, y), scores + values);
    }
    Builder *b = mdr_ir_builder();                             /* a step: one query over the 7 rows kept                    */
    Value y = mdr_op_attend_row(b, seq(b, mdr_shape2(1, 32)), seq(b, mdr_shape2(7, 32)), seq(b, mdr_shape2(7, 32)), seq(b, mdr_shape1(1)), 4);
    exactly("attend_row", flops_of(b, y), 4 * 7 * 32);
}
static void convolutions(void **state)
{
    (void)state;
    static const struct { int rows; double size; } fft[] = {{64, 64}, {257, 320}, {511, 512}, {512, 512}, {1023, 1024}};
    assert_true(log2(1024) == 10);
    for (int i = 0; i < MDR_COUNT(fft); i++) {
        Builder *b = mdr_ir_builder();
        const Shape s = mdr_shape2(fft[i].rows, 3);
        exactly("conv_fft", flops_of(b, mdr_op_conv_fft(b, seq(b, s), weight(b, s))), 3 * 2 * 5 * fft[i].size * log2(fft[i].size));
    }
    for (int rows = 1; rows < 40; rows += 19) {
        Builder *b = mdr_ir_builder();
        const Shape s = mdr_shape2(rows, 3);
        exactly("conv_direct", flops_of(b, mdr_op_conv_direct(b, seq(b, s), weight(b, s))), 2 * pairs(rows, 0) * 3);
    }
    Builder *b = mdr_ir_builder();
    exactly("conv_short, tiled", flops_of(b, mdr_op_conv_short(b, seq(b, mdr_shape2(11, 6)), weight(b, mdr_shape2(3, 24)), weight(b, mdr_shape1(24)))),
            2 * 3 * 24 * 11);
}
static void scans(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    const Shape s = mdr_shape2(11, 6), n = mdr_shape2(11, 5);
    exactly("selective_scan",
            flops_of(b, mdr_op_selective_scan(b, seq(b, s), seq(b, s), weight(b, mdr_shape2(6, 5)), seq(b, n), seq(b, n), weight(b, mdr_shape1(6)))),
            4 * 11 * 6 * 5);
    Builder *inside = mdr_ir_builder();                        /* scan: what the body does, times the steps                 */
    Value c = seq(inside, mdr_shape2(1, 6)), x = seq(inside, mdr_shape2(1, 6)), w = mdr_ir_input(inside, "w", mdr_shape2(6, 6), DT_REAL, MDR_AXIS_MEMBER);
    Value next = mdr_op_unary(inside, UN_TANH, 0, mdr_op_add(inside, mdr_op_matmul(inside, c, w, MDR_ABSENT), x));
    mdr_ir_output(inside, next);
    mdr_ir_output(inside, next);
    Graph *body;
    assert_null(mdr_ir_finish(inside, &body));
    b = mdr_ir_builder();
    Value out[2], in[3] = {seq(b, mdr_shape2(1, 6)), seq(b, s), weight(b, mdr_shape2(6, 6))};
    mdr_ir_scan(b, body, (ScanAttr){.n_carry = 1, .n_xs = 1, .n_const = 1, .n_ys = 1, .length = 11}, in, out);
    exactly("scan", flops_of(b, out[1]), 11 * product(1, 6, 6));
}
static void nothing(void **state)
{
    (void)state;
    const Shape s = mdr_shape2(7, 6);
    for (int i = 0; i < 10; i++) {
        Builder *b = mdr_ir_builder();
        Value x = seq(b, s), w = weight(b, mdr_shape1(6)), ids = mdr_ir_input(b, "ids", mdr_shape1(7), DT_I32, BOTH), one = seq(b, mdr_shape1(1)), y;
        switch (i) {
        case 0: y = mdr_op_rmsnorm(b, x, w, 1e-5); break;
        case 1: y = mdr_op_layernorm(b, x, w, w, 1e-5); break;
        case 2: y = mdr_op_swiglu_act(b, x); break;
        case 3: y = mdr_op_rope(b, x, 3, 1e4); break;
        case 4: y = mdr_op_unary(b, UN_GELU_ERF, 0, x); break;
        case 5: y = mdr_op_mul(b, x, w); break;
        case 6: y = mdr_op_gated_skip(b, x, x, w, x); break;
        case 7: y = mdr_op_gather_rows(b, weight(b, s), ids); break;
        case 8: y = mdr_op_ce(b, x, ids, one); break;
        default: y = mdr_ir_sum_rows(b, mdr_op_add(b, x, w)); break;
        }
        const char *name = mdr_ir_node_at(b, y.node)->op->name;
        exactly(name, flops_of(b, y), 0);
    }
}

/* ---- whole models, width 128, 16 symbols ---- */
static ModelCost cost(const char *text, int32_t dim, int32_t vocab, int32_t rows, int32_t length, int32_t backbone, int32_t tied)
{
    ArchList l;
    ModelCost c;
    Err *e = mdr_model_parse(text, 0, NULL, &l);
    if (e) fail_msg("%s: %s", text, mdr_err_text(e));
    ModelSpec s = {.arch = l.arch[0], .vocab = vocab, .rows = rows, .max_length = length};
    mdr_params_default(mdr_model_params, &s.params);
    s.params.dim = dim;
    s.params.backbone = backbone;
    s.params.tied = tied;
    e = mdr_model_cost(&s, &c);
    if (e) fail_msg("%s: %s", text, mdr_err_text(e));
    mdr_model_archs_free(&l);
    return c;
}
typedef struct Count { double flops; int64_t params, state; } Count;
static Count plus(Count a, Count b) { return (Count){a.flops + b.flops, a.params + b.params, a.state + b.state}; }
static Count times(int n, Count a) { return (Count){n * a.flops, n * a.params, n * a.state}; }

/* Every layer with the gain of the norm before it. */
static Count attention_layer(int rows, int length, int window)
{
    double qkv = product(rows, D, 3 * D), scores = 2 * pairs(rows, window) * D, values = scores, out = product(rows, D, D);
    return (Count){qkv + scores + values + out, D + (D * 3 * D + 3 * D) + (D * D + D), 2 * (int64_t)(window ? window : length) * D};
}
static Count swiglu_layer(int rows)
{
    return (Count){product(rows, D, 2 * INNER) + product(rows, INNER, D), D + 3 * D * INNER, 0};
}
static Count hyena_layer(int rows, int length)
{
    enum { C = 4 * D, PROJ = 3 * C / 4, TAPS = 3, S = 4 };     /* long channels; in-projection, tiled 4 times to 3 C         */
    double n_fft = 1024, log2_n = 10;                          /* transforms of 1,023 rows are of size 1,024                 */
    double filter = rows < 256 ? 2 * (rows * (rows + 1.0) / 2) * C : 2 * (5 * n_fft * log2_n) * C;
    double flops = product(rows, D, PROJ) + 2.0 * TAPS * 3 * C * rows + filter + product(rows, C, D);
    int64_t network = (3 * S + S) + 2 * (S * S + S) + S * C + S;       /* three maps with bias, one without, the frequencies  */
    int64_t params = (D * PROJ + PROJ) + (TAPS + 1) * 3 * C + 3 * (int64_t)length + network + C + (C * D + D);
    if (length == 128) assert_int_equal(params, 124348);
    return (Count){flops, D + params, C * S};
}
static Count mamba_layer(int rows)
{
    enum { C = 2 * D, N = 4, TAPS = 4, RANK = D / 16 };
    double flops = product(rows, D, 2 * C) + 2.0 * TAPS * C * rows + product(rows, C, RANK + 2 * N) + product(rows, RANK, C) + 4.0 * rows * C * N +
                   product(rows, C, D);
    int64_t params = D * 2 * C + (TAPS + 1) * C + C * (RANK + 2 * N) + (RANK + 1) * C + C * N + C + C * D;
    assert_int_equal(params, 107264);
    return (Count){flops, D + params, C * N};
}
static Count head(int rows)                                    /* embedding (rows are looked up), norm, unembedding         */
{
    return (Count){product(rows, D, V), V * D + D + D * V + V, 0};
}
static void is(const char *text, int rows, ModelCost got, Count want)
{
    if (!(got.flops == want.flops) || got.params != want.params || got.state != want.state)
        fail_msg("%s, %d rows: %.17g flops, %lld parameters, state %lld; by hand %.17g, %lld, %lld", text, rows, got.flops, (long long)got.params,
                 (long long)got.state, want.flops, (long long)want.params, (long long)want.state);
}
static void models(void **state)
{
    (void)state;
    static const char *const text[] = {"(mh-attention swiglu(dim_inner=352))*2", "(hyena swiglu(dim_inner=352))*2", "mamba*4", "sliding-attention",
                                       "(mh-sliding-attention swiglu)*2"};
    for (int rows = 127; rows <= 1023; rows += 896) {
        const int length = rows + 1;
        const Count glu = swiglu_layer(rows), sliding = attention_layer(rows, length, 32);
        const Count want[] = {times(2, plus(attention_layer(rows, length, 0), glu)), times(2, plus(hyena_layer(rows, length), glu)),
                              times(4, mamba_layer(rows)), sliding, times(2, plus(sliding, glu))};
        for (int i = 0; i < MDR_COUNT(text); i++)
            is(text[i], rows, cost(text[i], D, V, rows, length, BACKBONE_LM, 0), plus(want[i], head(rows)));
    }
}
/* Rows, not length; a tied unembedding has no matrix of its own; the autoencoder's head has two more maps of the width. */
static void variants(void **state)
{
    (void)state;
    const Count glu = swiglu_layer(32);
    is("swiglu, longer", 32, cost("swiglu", D, V, 32, 999, BACKBONE_LM, 0), plus(glu, head(32)));
    Count want = plus(glu, head(32));
    want.params -= D * V;
    is("swiglu, tied", 32, cost("swiglu", D, V, 32, 32, BACKBONE_LM, 1), want);
    Count two = times(2, (Count){product(32, D, D), D + D * D + D, 0});
    is("swiglu, autoencoder", 32, cost("swiglu", D, V, 32, 32, BACKBONE_AUTOENCODER, 0), plus(plus(glu, head(32)), two));
    Count both = plus(mamba_layer(32), attention_layer(32, 32, 0));
    both.params -= D;                                          /* side by side: one norm                                     */
    is("mamba+attention", 32, cost("mamba+attention", D, V, 32, 32, BACKBONE_LM, 0), plus(both, head(32)));
}

/* At width 128, vocabulary 16, length 128, one layer: what the original's modules count. */
static void known_sizes(void **state)
{
    (void)state;
    static const struct { const char *text; int64_t params, state; } known[] = {
        {"attention", 66048, 32768}, {"mh-attention", 66048, 32768}, {"sliding-attention", 66048, 8192},
        {"mh-sliding-attention(window=16)", 66048, 4096}, {"mh-attention(bias=false)", 65536, 32768},
        {"hyena", 124348, 2048}, {"mamba", 107264, 1024}, {"mlp", 131072, 0}, {"mlp(bias=true)", 131712, 0}, {"swiglu", 135168, 0},
        {"swiglu(dim_inner=512)", 196608, 0}, {"mamba+mlp", 107264 + 131072, 1024}};
    const int64_t rest = 16 * 128 + 128 * 16 + 16 + 128 + 128;        /* embeddings, unembedding, two norms                 */
    for (int i = 0; i < MDR_COUNT(known); i++) {
        ModelCost c = cost(known[i].text, 128, 16, 128, 128, BACKBONE_LM, 0);
        if (c.params - rest != known[i].params || c.state != known[i].state)
            fail_msg("%s: %lld parameters, state %lld", known[i].text, (long long)(c.params - rest), (long long)c.state);
    }
    assert_int_equal(cost("swiglu", 64, 16, 8, 8, BACKBONE_LM, 0).params - 64 * 34 - 16, 3 * 64 * 176);     /* 170.7 rounded up to 16 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(attention), cmocka_unit_test(convolutions), cmocka_unit_test(scans),
                                       cmocka_unit_test(nothing), cmocka_unit_test(models), cmocka_unit_test(variants), cmocka_unit_test(known_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
