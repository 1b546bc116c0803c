/* The Builder's promises: the first error sticks and everything after it is a no-op; what a structural op cannot take is refused
 * with a sentence that names place, op and shapes; axes and phases follow from the inputs as ir.h says. */
#include "ir/ir.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = MDR_AXIS_SEQ | MDR_AXIS_MEMBER };
static const Init zero = {INIT_CONST, 0, 0, NULL};

static Value seq(Builder *b, Shape s) { return mdr_ir_input(b, "x", s, DT_REAL, BOTH); }
static Value ids(Builder *b, Shape s) { return mdr_ir_input(b, "ids", s, DT_I32, BOTH); }
static Value weight(Builder *b, Shape s) { return mdr_ir_param(b, "w", s, zero); }

/* The builder must have failed with a sentence that holds `want`; frees it. */
static void refused(Builder *b, const char *test, const char *want)
{
    Graph *g = (Graph *)(uintptr_t)1;
    bool failed = mdr_ir_failed(b);
    Err *e = mdr_ir_finish(b, &g);
    if (!e) {
        mdr_ir_graph_free(g);
        fail_msg("%s: accepted, expected `%s`", test, want);
    }
    char text[512];
    snprintf(text, sizeof text, "%s", mdr_err_text(e));
    mdr_err_free(e);
    assert_null(g);
    if (!failed) fail_msg("%s: noticed only at the end: %s", test, text);
    if (!strstr(text, want)) fail_msg("%s: `%s` does not say `%s`", test, text, want);
}

/* ---- the first error sticks ---- */
static void absent(Value v) { assert_false(mdr_ir_has(v)); }
static void first_error_sticks(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b, mdr_shape2(4, 6)), y = seq(b, mdr_shape2(5, 6)), both[2] = {x, y}, part[3] = {x, x, x};
    const int32_t size[3] = {1, 2, 3};
    const double table[2] = {1, 2};
    assert_false(mdr_ir_failed(b));
    mdr_ir_where(b, "layer 7 thing");
    absent(mdr_ir_add(b, 2, both));
    assert_true(mdr_ir_failed(b));
    const int32_t n = mdr_ir_n_node(b);
    assert_int_equal(n, 2);
    mdr_ir_where(b, "layer 8 other");
    mdr_ir_fail(b, MDR_ERR_USER("a second error"));
    absent(mdr_ir_join(b, 2, both));                           /* wrong too, and later                                     */
    absent(weight(b, mdr_shape1(3)));                          /* the rest would be right                                  */
    absent(seq(b, mdr_shape1(3)));
    absent(mdr_ir_const(b, mdr_shape1(2), table));
    absent(mdr_ir_reshape(b, x, mdr_shape1(24)));
    absent(mdr_ir_rows(b, x, 1, 2));
    absent(mdr_ir_pad_rows(b, x, 1, 9));
    absent(mdr_ir_expand(b, x, 2, true));
    absent(mdr_ir_sum_rows(b, x));
    absent(mdr_ir_sum_cols(b, x));
    absent(mdr_ir_sum_batch(b, 1, &x));
    mdr_ir_split(b, x, 3, size, part);
    for (int i = 0; i < 3; i++) absent(part[i]);
    part[0] = part[1] = x;
    mdr_ir_grad(b, 1, &x, &x, 2, both, part);
    for (int i = 0; i < 2; i++) absent(part[i]);
    absent(mdr_ir_sum_cols(b, MDR_ABSENT));                    /* what a layer does with the results                       */
    mdr_ir_output(b, MDR_ABSENT);
    assert_int_equal(mdr_ir_n_node(b), n);
    assert_int_equal(mdr_ir_type(b, MDR_ABSENT).shape.rank, 0);
    refused(b, "sticks", "layer 7 thing: add: input 1 is [5, 6], input 0 is [4, 6]");
}
/* Short cuts that make no node are no-ops too. */
static void short_cuts(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b, mdr_shape2(4, 6));
    const Value same[4] = {mdr_ir_reshape(b, x, mdr_shape2(4, 6)), mdr_ir_rows(b, x, 0, 4), mdr_ir_add(b, 1, &x), mdr_ir_join(b, 1, &x)};
    for (int i = 0; i < 4; i++) assert_true(same[i].node == x.node && same[i].out == x.out);
    assert_int_equal(mdr_ir_n_node(b), 1);
    mdr_ir_fail(b, MDR_ERR_USER("the first"));
    absent(mdr_ir_reshape(b, x, mdr_shape2(4, 6)));
    absent(mdr_ir_rows(b, x, 0, 4));
    absent(mdr_ir_add(b, 1, &x));
    absent(mdr_ir_join(b, 1, &x));
    refused(b, "short cuts", "the first");
}
static void unfinished(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    weight(b, mdr_shape1(3));
    mdr_ir_builder_free(b);
    mdr_ir_builder_free(NULL);
    mdr_ir_graph_free(NULL);
    b = mdr_ir_builder();
    mdr_ir_fail(b, MDR_ERR_USER("never read"));
    mdr_ir_builder_free(b);
}

/* ---- what each op refuses: one wrong call each, at the place "layer 3 odd" ---- */
typedef void Wrong(Builder *b);
#define WRONG(name, ...) static void name(Builder *b) { __VA_ARGS__; }
static const int32_t uneven[2] = {2, 3}, none[2] = {6, 0}, ones[40] = {1};
WRONG(w_param, weight(b, mdr_shape2(3, 0)))
WRONG(w_param_negative, weight(b, mdr_shape2(-3, -2)))
WRONG(w_param_huge, weight(b, mdr_shape3(65536, 65536, 2)))
WRONG(w_param_overflow, weight(b, (Shape){4, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}}))
WRONG(w_input, seq(b, mdr_shape1(0)))
WRONG(w_reshape, mdr_ir_reshape(b, seq(b, mdr_shape2(4, 6)), mdr_shape2(5, 5)))
WRONG(w_reshape_negative, mdr_ir_reshape(b, seq(b, mdr_shape2(4, 6)), mdr_shape2(-4, -6)))
WRONG(w_split, Value v[2]; mdr_ir_split(b, seq(b, mdr_shape2(4, 6)), 2, uneven, v))
WRONG(w_split_none, Value v[2]; mdr_ir_split(b, seq(b, mdr_shape2(4, 6)), 2, none, v))
WRONG(w_split_many, Value v[40]; mdr_ir_split(b, seq(b, mdr_shape2(4, 40)), 40, ones, v))
WRONG(w_join, Value v[2]; v[0] = seq(b, mdr_shape2(4, 6)); v[1] = seq(b, mdr_shape2(5, 6)); mdr_ir_join(b, 2, v))
WRONG(w_join_rank, Value v[2]; v[0] = seq(b, mdr_shape2(1, 6)); v[1] = seq(b, mdr_shape1(6)); mdr_ir_join(b, 2, v))
WRONG(w_join_dtype, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = ids(b, mdr_shape1(6)); mdr_ir_join(b, 2, v))
WRONG(w_join_many, Value v[33]; for (int i = 0; i < 33; i++) v[i] = seq(b, mdr_shape1(6)); mdr_ir_join(b, 33, v))
WRONG(w_join_none, mdr_ir_join(b, 0, NULL))
WRONG(w_rows_end, mdr_ir_rows(b, seq(b, mdr_shape2(4, 6)), 2, 3))
WRONG(w_rows_start, mdr_ir_rows(b, seq(b, mdr_shape2(4, 6)), -1, 2))
WRONG(w_rows_none, mdr_ir_rows(b, seq(b, mdr_shape2(4, 6)), 1, 0))
WRONG(w_rows_far, mdr_ir_rows(b, seq(b, mdr_shape2(4, 6)), INT32_MAX, INT32_MAX))
WRONG(w_pad_end, mdr_ir_pad_rows(b, seq(b, mdr_shape2(4, 6)), 2, 5))
WRONG(w_pad_start, mdr_ir_pad_rows(b, seq(b, mdr_shape2(4, 6)), -1, 9))
WRONG(w_expand_rank, mdr_ir_expand(b, seq(b, (Shape){4, {1, 2, 3, 4}}), 2, true))
WRONG(w_expand_none, mdr_ir_expand(b, seq(b, mdr_shape1(6)), 0, false))
WRONG(w_expand_negative, mdr_ir_expand(b, seq(b, mdr_shape1(6)), -2, true))
WRONG(w_expand_huge, mdr_ir_expand(b, seq(b, mdr_shape2(65536, 2)), 65536, true))
WRONG(w_add, Value v[3]; v[0] = v[1] = seq(b, mdr_shape2(4, 6)); v[2] = seq(b, mdr_shape1(4)); mdr_ir_add(b, 3, v))
WRONG(w_add_larger, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = seq(b, mdr_shape2(4, 6)); mdr_ir_add(b, 2, v))
WRONG(w_add_dtype, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = ids(b, mdr_shape1(6)); mdr_ir_add(b, 2, v))
WRONG(w_add_absent, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = MDR_ABSENT; mdr_ir_add(b, 2, v))
WRONG(w_add_unknown, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = (Value){99, 0}; mdr_ir_add(b, 2, v))
WRONG(w_add_out, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = (Value){v[0].node, 1}; mdr_ir_add(b, 2, v))
WRONG(w_sum_rows, mdr_ir_sum_rows(b, MDR_ABSENT))
WRONG(w_sum_cols, mdr_ir_sum_cols(b, MDR_ABSENT))
WRONG(w_batch_shape, Value v[2]; v[0] = seq(b, mdr_shape2(4, 6)); v[1] = seq(b, mdr_shape1(6)); mdr_ir_sum_batch(b, 2, v))
WRONG(w_batch_dtype, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = ids(b, mdr_shape1(6)); mdr_ir_sum_batch(b, 2, v))
WRONG(w_batch_param, Value v = weight(b, mdr_shape1(6)); mdr_ir_sum_batch(b, 1, &v))
WRONG(w_batch_post, Value v = seq(b, mdr_shape1(6)); v = mdr_ir_sum_batch(b, 1, &v); mdr_ir_sum_batch(b, 1, &v))
WRONG(w_couple, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = mdr_ir_sum_batch(b, 1, v); mdr_ir_add(b, 2, v))
WRONG(w_couple_far, Value v[2]; v[0] = seq(b, mdr_shape1(6)); v[1] = mdr_ir_sum_cols(b, mdr_ir_sum_batch(b, 1, v)); mdr_ir_add(b, 2, v))

static void refusals(void **state)
{
    (void)state;
    static const struct { const char *name; Wrong *make; const char *want, *also; } bad[] = {
        {"param", w_param, "param: ", "[3, 0]"}, {"param, negative", w_param_negative, "param: ", "[-3, -2]"},
        {"param, 2^33", w_param_huge, "param: ", "[65536, 65536, 2]"},
        {"param, 2^124", w_param_overflow, "param: ", "[2147483647, 2147483647, 2147483647, 2147483647]"},
        {"input", w_input, "input: ", "[0]"},
        {"reshape", w_reshape, "reshape: ", "cannot view [4, 6] as [5, 5]"}, {"reshape, negative", w_reshape_negative, "reshape: ", "[-4, -6]"},
        {"split", w_split, "split: ", "5 columns together, [4, 6] has 6"}, {"split, empty part", w_split_none, "split: ", "part 1 has 0 columns"},
        {"split, 40 parts", w_split_many, "split: ", "40 parts"},
        {"join", w_join, "join: ", "input 1 is [5, 6], input 0 is [4, 6]"}, {"join, rank", w_join_rank, "join: ", "input 1 is [6], input 0 is [1, 6]"},
        {"join, dtype", w_join_dtype, "join: ", "input 1"}, {"join, 33", w_join_many, "join: ", "33 inputs"}, {"join, 0", w_join_none, "join: ", "got 0"},
        {"rows, end", w_rows_end, "rows: ", "rows 2 to 5 of [4, 6]"}, {"rows, start", w_rows_start, "rows: ", "rows -1 to 1 of [4, 6]"},
        {"rows, none", w_rows_none, "rows: ", "rows 1 to 1 of [4, 6]"}, {"rows, far", w_rows_far, "rows: ", "of [4, 6]"},
        {"pad_rows, end", w_pad_end, "pad_rows: ", "[4, 6] at row 2 does not fit 5 rows"},
        {"pad_rows, start", w_pad_start, "pad_rows: ", "[4, 6] at row -1 does not fit 9 rows"},
        {"expand, rank", w_expand_rank, "expand: ", "rank 4"}, {"expand, 0", w_expand_none, "expand: ", "[0, 6]"},
        {"expand, -2", w_expand_negative, "expand: ", "[6, -2]"}, {"expand, 2^33", w_expand_huge, "expand: ", "[65536, 2, 65536]"},
        {"add", w_add, "add: ", "input 2 is [4], input 0 is [4, 6]"}, {"add, larger", w_add_larger, "add: ", "input 1 is [4, 6], input 0 is [6]"},
        {"add, dtype", w_add_dtype, "add: ", "input 1"}, {"add, absent", w_add_absent, "add: ", "input 1 is absent"},
        {"add, unknown", w_add_unknown, "add: ", "input 1 names a value that does not exist"},
        {"add, no such output", w_add_out, "add: ", "input 1 names a value that does not exist"},
        {"sum_rows", w_sum_rows, "sum_rows: ", "input 0 is absent"}, {"sum_cols", w_sum_cols, "sum_cols: ", "input 0 is absent"},
        {"sum_batch", w_batch_shape, "sum_batch: ", "input 1 is [6], input 0 is [4, 6]"}, {"sum_batch, dtype", w_batch_dtype, "sum_batch: ", "input 1"},
        {"sum_batch, STEP", w_batch_param, "sum_batch: ", "input 0 is not a value of each sequence"},
        {"sum_batch, POST", w_batch_post, "sum_batch: ", "input 0 is not a value of each sequence"},
        {"SEQ reads POST", w_couple, "add: ", "batch"}, {"SEQ reads POST, later", w_couple_far, "add: ", "batch"}};
    int n_bad = 0;
    for (int i = 0; i < MDR_COUNT(bad); i++) {                 /* all are tried before the verdict                          */
        Builder *b = mdr_ir_builder();
        mdr_ir_where(b, "layer %d %s", 3, "odd");
        bad[i].make(b);
        Graph *g;
        Err *e = mdr_ir_finish(b, &g);
        const char *text = e ? mdr_err_text(e) : "accepted";
        char start[64];
        snprintf(start, sizeof start, "layer 3 odd: %s", bad[i].want);
        if (!e || strncmp(text, start, strlen(start)) != 0 || !strstr(text, bad[i].also)) {
            print_error("%s: %s (expected `%s.. %s`)\n", bad[i].name, text, start, bad[i].also);
            n_bad++;
        }
        mdr_err_free(e);
        mdr_ir_graph_free(g);
    }
    assert_int_equal(n_bad, 0);
}
static void no_place(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    mdr_ir_reshape(b, seq(b, mdr_shape1(4)), mdr_shape1(5));
    refused(b, "no place", "reshape: cannot view [4] as [5]");
}

/* ---- types ---- */
static void is(const Builder *b, Value v, Shape s, DType dtype, unsigned axes, Phase phase)
{
    char p[64], q[64];
    Type t = mdr_ir_type(b, v);
    if (!mdr_shape_equal(t.shape, s) || t.dtype != dtype || t.axes != axes || t.phase != phase)
        fail_msg("node %d: %s dtype %d axes %d phase %d, expected %s %d %d %d", v.node, mdr_shape_text(t.shape, p), t.dtype, t.axes, t.phase,
                 mdr_shape_text(s, q), (int)dtype, (int)axes, (int)phase);
}
static void shapes(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    Value x = seq(b, mdr_shape2(4, 6)), k = ids(b, mdr_shape1(5)), bias = weight(b, mdr_shape1(6)), one = weight(b, mdr_shape1(1)), part[3];
    const int32_t size[3] = {1, 2, 3};
    mdr_ir_split(b, x, 3, size, part);
    for (int i = 0; i < 3; i++) is(b, part[i], mdr_shape2(4, size[i]), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_join(b, 3, part), mdr_shape2(4, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_reshape(b, x, mdr_shape3(2, 3, 4)), mdr_shape3(2, 3, 4), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_rows(b, k, 1, 3), mdr_shape1(3), DT_I32, BOTH, PH_SEQ);
    is(b, mdr_ir_rows(b, x, 3, 1), mdr_shape2(1, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_pad_rows(b, x, 2, 9), mdr_shape2(9, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_pad_rows(b, x, 0, 4), mdr_shape2(4, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_expand(b, x, 5, false), mdr_shape3(5, 4, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_expand(b, x, 5, true), mdr_shape3(4, 6, 5), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_add(b, 3, (Value[]){x, bias, one}), mdr_shape2(4, 6), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_sum_rows(b, mdr_ir_reshape(b, x, mdr_shape3(2, 3, 4))), mdr_shape1(4), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_sum_cols(b, mdr_ir_reshape(b, x, mdr_shape3(2, 3, 4))), mdr_shape2(2, 3), DT_REAL, BOTH, PH_SEQ);
    is(b, mdr_ir_sum_cols(b, bias), mdr_shape1(1), DT_REAL, MDR_AXIS_MEMBER, PH_STEP);
    mdr_ir_builder_free(b);
}
static void phases(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    const Shape s = mdr_shape1(6);
    double table[6] = {1, 2, 3, 4, 5, 6};
    Value c = mdr_ir_const(b, s, table), w = weight(b, s), r = mdr_ir_input(b, "rate", s, DT_REAL, MDR_AXIS_MEMBER),
          n = mdr_ir_input(b, "count", s, DT_REAL, MDR_AXIS_NONE), x = seq(b, s), k = mdr_ir_input(b, "shared", s, DT_REAL, MDR_AXIS_SEQ);
    table[0] = 9;                                              /* the table was copied                                     */
    assert_true(((const ConstAttr *)mdr_ir_node_at(b, c.node)->attr)->data[0] == 1);
    is(b, c, s, DT_REAL, MDR_AXIS_NONE, PH_CONST);
    is(b, w, s, DT_REAL, MDR_AXIS_MEMBER, PH_STEP);
    is(b, r, s, DT_REAL, MDR_AXIS_MEMBER, PH_STEP);
    is(b, n, s, DT_REAL, MDR_AXIS_NONE, PH_STEP);
    is(b, x, s, DT_REAL, BOTH, PH_SEQ);
    is(b, k, s, DT_REAL, MDR_AXIS_SEQ, PH_SEQ);
    const struct { Value x, y; unsigned axes; Phase phase; } pair[] = {
        {c, c, MDR_AXIS_NONE, PH_CONST}, {c, w, MDR_AXIS_MEMBER, PH_STEP}, {n, c, MDR_AXIS_NONE, PH_STEP}, {n, w, MDR_AXIS_MEMBER, PH_STEP},
        {r, w, MDR_AXIS_MEMBER, PH_STEP}, {k, c, MDR_AXIS_SEQ, PH_SEQ}, {w, k, BOTH, PH_SEQ}, {c, x, BOTH, PH_SEQ}, {k, n, MDR_AXIS_SEQ, PH_SEQ}};
    for (int i = 0; i < MDR_COUNT(pair); i++) {
        is(b, mdr_ir_add(b, 2, (Value[]){pair[i].x, pair[i].y}), s, DT_REAL, pair[i].axes, pair[i].phase);
        is(b, mdr_ir_add(b, 2, (Value[]){pair[i].y, pair[i].x}), s, DT_REAL, pair[i].axes, pair[i].phase);
    }
    Value p = mdr_ir_sum_batch(b, 2, (Value[]){x, k}), q = mdr_ir_sum_batch(b, 1, &k);
    is(b, p, s, DT_REAL, MDR_AXIS_MEMBER, PH_POST);
    is(b, q, s, DT_REAL, MDR_AXIS_NONE, PH_POST);
    is(b, mdr_ir_add(b, 3, (Value[]){q, c, w}), s, DT_REAL, MDR_AXIS_MEMBER, PH_POST);
    is(b, mdr_ir_add(b, 2, (Value[]){w, p}), s, DT_REAL, MDR_AXIS_MEMBER, PH_POST);
    is(b, mdr_ir_expand(b, q, 3, false), mdr_shape2(3, 6), DT_REAL, MDR_AXIS_NONE, PH_POST);
    const Node *at = mdr_ir_node_at(b, p.node);
    assert_int_equal(at->sums, 1);
    assert_int_equal(at->n_in, 2);
    assert_int_equal(at->in_type[1].axes, MDR_AXIS_SEQ);
    mdr_ir_output(b, p);
    mdr_ir_output(b, MDR_ABSENT);
    Graph *g;
    assert_null(mdr_ir_finish(b, &g));
    assert_int_equal(g->n_output, 2);
    assert_true(g->output[0].node == p.node && g->output[1].node < 0);
    mdr_ir_graph_free(g);
}
static void lists(void **state)
{
    (void)state;
    Builder *b = mdr_ir_builder();
    char name[3][8] = {"w0", "w1", "w2"};
    int32_t w[3], x[2], node[4] = {-7, -7, -7, -7};
    const double start[2] = {5, 6};
    w[0] = mdr_ir_param(b, name[0], mdr_shape1(2), (Init){INIT_TABLE, 0, 0, start}).node;
    x[0] = mdr_ir_input(b, "x0", mdr_shape1(2), DT_REAL, BOTH).node;
    w[1] = mdr_ir_param(b, name[1], mdr_shape1(2), zero).node;
    x[1] = mdr_ir_input(b, "x1", mdr_shape1(2), DT_I32, MDR_AXIS_SEQ).node;
    mdr_ir_where(b, "layer %d", 2);
    w[2] = mdr_ir_param(b, name[2], mdr_shape1(2), zero).node;
    memset(name, '?', sizeof name);                            /* names and tables were copied                             */
    Graph *g;
    assert_null(mdr_ir_finish(b, &g));
    assert_int_equal(mdr_ir_params(g, NULL, 0), 3);
    assert_int_equal(mdr_ir_params(g, node, 2), 3);            /* fills only what there is room for                        */
    assert_int_equal(node[2], -7);
    assert_int_equal(mdr_ir_params(g, node, 4), 3);
    for (int i = 0; i < 3; i++) {
        const ParamAttr *a = g->node[node[i]].attr;
        char want[4] = {'w', (char)('0' + i), 0};
        assert_int_equal(node[i], w[i]);
        assert_int_equal(a->index, i);
        assert_string_equal(a->name, want);
        assert_string_equal(g->node[node[i]].where, i == 2 ? "layer 2" : "");
    }
    const ParamAttr *first = g->node[w[0]].attr;
    assert_true(first->init.table != start && first->init.table[1] == 6);
    assert_int_equal(mdr_ir_inputs(g, node, 4), 2);
    for (int i = 0; i < 2; i++) {
        const InputAttr *a = g->node[node[i]].attr;
        assert_int_equal(node[i], x[i]);
        assert_int_equal(a->index, i);
        assert_int_equal(g->node[node[i]].out[0].dtype, i ? DT_I32 : DT_REAL);
    }
    mdr_ir_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_error_sticks), cmocka_unit_test(short_cuts), cmocka_unit_test(unfinished),
                                       cmocka_unit_test(refusals), cmocka_unit_test(no_place), cmocka_unit_test(shapes), cmocka_unit_test(phases),
                                       cmocka_unit_test(lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
