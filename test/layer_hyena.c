/* hyena against the same thing written out here from the original's description: tiling, order of the three parts, filter from
 * the table of positions, window, bias, and the filter's length when fewer rows than the longest are given. */
#include "exec/exec.h"
#include "layer/layer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { D = 4, ROWS = 6, LONGEST = 9, FACTOR = 4, C = FACTOR * D, GROUPS = 4, IN = 3 * C / GROUPS, TAPS = 3, S = 4, MOST = 32, SEED = 3 };

typedef struct Weights { const char *name[MOST]; const double *at[MOST]; int n; } Weights;
static const double *get(const Weights *w, const char *name) {
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->name[i], name) == 0) return w->at[i];
    fail_msg("no parameter `%s`", name);
    return NULL;
}

static void filter(const Weights *w, double h[ROWS][C]) {
    static const char *const weight[3] = {"l.filter.map1.weight", "l.filter.map2.weight", "l.filter.map3.weight"};
    static const char *const bias[3] = {"l.filter.map1.bias", "l.filter.map2.bias", "l.filter.map3.bias"};
    const double *freq = get(w, "l.filter.freq"), *last = get(w, "l.filter.out.weight");
    for (int t = 0; t < ROWS; t++) {
        double z[S], y[S];
        int n = 3;
        for (int i = 0; i < 3; i++) z[i] = get(w, "l.filter.positions")[t * 3 + i];
        for (int k = 0; k < 3; k++, n = S) {
            for (int j = 0; j < S; j++) {
                y[j] = get(w, bias[k])[j];
                for (int i = 0; i < n; i++) y[j] += z[i] * get(w, weight[k])[i * S + j];
            }
            for (int j = 0; j < S; j++) z[j] = sin(freq[j] * y[j]);
        }
        for (int c = 0; c < C; c++) {
            double slow = log(0.01) / 1.5, fast = log(0.01) / 0.3, delta = slow + (fast - slow) * c / (C - 1);
            h[t][c] = 0;
            for (int i = 0; i < S; i++) h[t][c] += z[i] * last[i * C + c];
            h[t][c] *= exp(-(double)t / (LONGEST - 1) * fabs(delta));
        }
    }
}

static void by_hand(const Weights *w, const double *x, double *out) {
    double u[ROWS][3 * C], z[ROWS][3 * C], h[ROWS][C];
    filter(w, h);
    for (int t = 0; t < ROWS; t++)
        for (int c = 0; c < 3 * C; c++) {
            int k = c % IN;                                    /* the in-projection, repeated                             */
            u[t][c] = get(w, "l.in.bias")[k];
            for (int i = 0; i < D; i++) u[t][c] += x[t * D + i] * get(w, "l.in.weight")[i * IN + k];
        }
    for (int t = 0; t < ROWS; t++)
        for (int c = 0; c < 3 * C; c++) {                      /* as conv1d pads: the last tap meets the newest row        */
            z[t][c] = get(w, "l.short.bias")[c];
            for (int j = 0; j < TAPS; j++)
                if (t - (TAPS - 1) + j >= 0) z[t][c] += get(w, "l.short.weight")[j * 3 * C + c] * u[t - (TAPS - 1) + j][c];
        }
    for (int t = 0; t < ROWS; t++) {
        double y[C];
        for (int c = 0; c < C; c++) {                          /* x[0], x[1], v side by side                              */
            y[c] = z[t][2 * C + c] * z[t][C + c] * get(w, "l.bias")[c];
            for (int s = 0; s <= t; s++) y[c] += h[t - s][c] * z[s][2 * C + c] * z[s][C + c];
            y[c] *= z[t][c];
        }
        for (int i = 0; i < D; i++) {
            out[t * D + i] = get(w, "l.out.bias")[i];
            for (int c = 0; c < C; c++) out[t * D + i] += y[c] * get(w, "l.out.weight")[c * D + i];
        }
    }
}

static void like_the_original(void **state) {
    (void)state;
    const LayerDef *def = mdr_layer_find("hyena");
    assert_non_null(def);
    void *params = mdr_alloc(def->params_size);
    mdr_params_default(def->params, params);
    Builder *b = mdr_ir_builder();
    LayerContext c = {.b = b, .dim = D, .length = ROWS, .max_length = LONGEST, .params = params, .name = "l"};
    mdr_ir_output(b, def->build(&c, mdr_ir_input(b, "x", mdr_shape2(ROWS, D), DT_REAL, MDR_AXIS_SEQ | MDR_AXIS_MEMBER)));
    Graph *layer, *g;
    Err *e = mdr_ir_finish(b, &layer);
    if (e) fail_msg("%s", mdr_err_text(e));
    CopyMap map = {mdr_alloc((size_t)layer->n_node * sizeof *map.out)};
    b = mdr_ir_builder();
    mdr_ir_copy(b, layer, mdr_exec_has, (void *)(uintptr_t)&mdr_exec_ref64, &map);
    mdr_ir_output(b, mdr_ir_copied(&map, layer->output[0]));
    e = mdr_ir_finish(b, &g);
    if (e) fail_msg("%s", mdr_err_text(e));
    mdr_free(map.out);
    mdr_ir_graph_free(layer);
    double *weight = mdr_alloc(1 << 16), *at = weight, x[ROWS * D], want[ROWS * D], *got[1];
    Weights w = {.n = 0};
    int32_t node[MOST];
    Rng r = mdr_rng(SEED, 0);
    w.n = mdr_ir_params(g, node, MOST);
    for (int i = 0; i < w.n; i++) {
        const ParamAttr *a = g->node[node[i]].attr;
        w.name[i] = a->name;
        w.at[i] = at;
        if (strcmp(a->name, "l.filter.positions") == 0) {      /* how the table starts                                    */
            assert_int_equal(a->init.kind, INIT_TABLE);
            for (int t = 0; t < LONGEST; t++) {
                double angle = 1e-4 * 2 * acos(-1) * t / LONGEST;
                assert_float_equal(a->init.table[3 * t], (double)t / (LONGEST - 1), 1e-15);
                assert_float_equal(a->init.table[3 * t + 1], cos(angle), 1e-15);
                assert_float_equal(a->init.table[3 * t + 2], -sin(angle), 1e-15);
            }
        }
        for (int64_t k = 0; k < mdr_numel(a->shape); k++) *at++ = mdr_rng_normal(&r);
    }
    for (int i = 0; i < ROWS * D; i++) x[i] = mdr_rng_normal(&r);
    const double *in[1] = {x};
    EvalSpec spec = {.device = &mdr_exec_ref64, .n_member = 1, .n_seq = 1, .input = in, .param = weight};
    e = mdr_exec_eval(g, &spec, got);
    if (e) fail_msg("%s", mdr_err_text(e));
    by_hand(&w, x, want);
    for (int i = 0; i < ROWS * D; i++)
        if (!(fabs(got[0][i] - want[i]) <= 1e-10 * (1 + fabs(want[i])))) fail_msg("element %d: %.12g, by hand %.12g", i, got[0][i], want[i]);
    mdr_free(got[0]);
    mdr_free(weight);
    mdr_free(params);
    mdr_ir_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(like_the_original)};
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
