/* The text of an architecture: what it means, how it is printed, and what is refused with which sentence. */
#include "model/model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static ArchList parse(const char *text) {
    ArchList l;
    Err *e = mdr_model_parse(text, 0, NULL, &l);
    if (e) fail_msg("%s: %s", text, mdr_err_text(e));
    return l;
}
static void printed_as(const Arch *a, const char *want) {
    Text t = {0};
    mdr_model_print(a, &t);
    assert_string_equal(mdr_text_str(&t), want);
    mdr_text_free(&t);
}
static void hashed_as(const Arch *a, const char *want) {
    Text t = {0};
    mdr_model_hashed(a, &t);
    assert_string_equal(mdr_text_str(&t), want);
    mdr_text_free(&t);
}

static void prints(void **state) {
    (void)state;
    static const char *const pair[][2] = {
        {"mlp", "mlp"},
        {" \t mlp\n", "mlp"},
        {"mlp()", "mlp"},
        {"(mh-attention swiglu)*2", "mh-attention swiglu mh-attention swiglu"},
        {"(mh-attention swiglu) * 2", "mh-attention swiglu mh-attention swiglu"},
        {"((hyena swiglu)*2 mh-attention)@7", "hyena swiglu hyena swiglu mh-attention hyena swiglu"},
        {"(mlp swiglu mamba)@2", "mlp swiglu"},
        {"(mlp (swiglu mamba)*9)@3 mlp", "mlp swiglu mamba mlp"},
        {"mlp@3 swiglu*1", "mlp mlp mlp swiglu"},
        {"mamba+mlp*2", "mamba+mlp mamba+mlp"},
        {"mamba + mlp", "mamba+mlp"},
        {"mh-attention(n_heads=8)", "mh-attention(n_heads=8)"},
        {"mh-attention(n_heads=16, base=1e4)", "mh-attention"},
        {"mamba( d_state = 8 , d_conv=2 )", "mamba(d_conv=2,d_state=8)"},
        {"attention(base=2e+0)", "attention(base=2)"},
        {"attention(base=1e5,bias=no)", "attention(base=100000,bias=false)"},
        {"attention(base=12_345.5)", "attention(base=12345.5)"},
        {"H3A.x-1 = mlp", "H3A.x-1=mlp"},
        {"mlp=mlp", "mlp=mlp"},
        {"swiglu(dim_inner=352)", "swiglu(dim_inner=352)"}};
    for (int i = 0; i < MDR_COUNT(pair); i++) {
        ArchList l = parse(pair[i][0]);
        assert_int_equal(l.n, 1);
        printed_as(l.arch[0], pair[i][1]);
        assert_string_equal(l.arch[0]->text, pair[i][0]);
        ArchList again = parse(pair[i][1]);                    /* the law: parse(print(x)) = x                             */
        printed_as(again.arch[0], pair[i][1]);
        assert_int_equal(again.arch[0]->n_layer, l.arch[0]->n_layer);
        Text t = {0};
        mdr_model_hashed(l.arch[0], &t);
        hashed_as(again.arch[0], mdr_text_str(&t));
        mdr_text_free(&t);
        mdr_model_archs_free(&l);
        mdr_model_archs_free(&again);
    }
}

static void hashes(void **state) {
    (void)state;
    ArchList l = parse("x=mh-attention+mamba(d_state=8) swiglu");
    hashed_as(l.arch[0], "mh-attention(base=10000,bias=true,n_heads=16)+mamba(d_conv=4,d_state=8,dt_rank=0,expand=2) "
                         "swiglu(bias=false,dim_inner=0)");
    mdr_model_archs_free(&l);
}

static void choices_multiply(void **state) {
    (void)state;
    ArchList l = parse("s=(mamba(d_state=2|4 | 8) swiglu(dim_inner=16|32))*2");
    static const char *const want[6] = {
        "s=mamba(d_state=2) swiglu(dim_inner=16) mamba(d_state=2) swiglu(dim_inner=16)",
        "s=mamba(d_state=2) swiglu(dim_inner=32) mamba(d_state=2) swiglu(dim_inner=32)",
        "s=mamba swiglu(dim_inner=16) mamba swiglu(dim_inner=16)",
        "s=mamba swiglu(dim_inner=32) mamba swiglu(dim_inner=32)",
        "s=mamba(d_state=8) swiglu(dim_inner=16) mamba(d_state=8) swiglu(dim_inner=16)",
        "s=mamba(d_state=8) swiglu(dim_inner=32) mamba(d_state=8) swiglu(dim_inner=32)"};
    assert_int_equal(l.n, 6);
    for (int i = 0; i < 6; i++) {
        printed_as(l.arch[i], want[i]);
        assert_string_equal(l.arch[i]->text, want[i]);
        assert_string_equal(l.arch[i]->label, "s");
    }
    mdr_model_archs_free(&l);
}

static void protocol_defaults(void **state) {
    (void)state;
    const LayerDefault d[] = {{"swiglu", "dim_inner", "512"}, {"mamba", "d_state", "2"}};
    ArchList l;
    Err *e = mdr_model_parse("swiglu swiglu(dim_inner=64) mamba(d_state=4)", 2, d, &l);
    assert_null(e);
    printed_as(l.arch[0], "swiglu(dim_inner=512) swiglu(dim_inner=64) mamba");
    mdr_model_archs_free(&l);
    const LayerDefault bad[] = {{"swiglu", "width", "512"}};
    e = mdr_model_parse("swiglu", 1, bad, &l);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "protocol"));
    mdr_err_free(e);
    e = mdr_model_parse("mlp", 1, bad, &l);                      /* not this layer's: not looked at                       */
    assert_null(e);
    mdr_model_archs_free(&l);
}

static void refuses(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"", "column 1: an architecture needs at least one layer"},
        {"   ", "at least one layer"},
        {"()", "column 2: an empty group"},
        {"mlp hyna", "column 5: unknown layer `hyna`; did you mean `hyena`?"},
        {"zzzzzz", "`madras list layers`"},
        {"mlp, swiglu", "column 4: commas never separate layers"},
        {"mlp | swiglu", "`|` stands between values"},
        {"(mlp swiglu", "column 1: this parenthesis is never closed"},
        {"mlp)", "column 4: this parenthesis closes nothing"},
        {"mamba(d_state=2", "column 16: expected `,`, `|` or `)` after a value, found the end"},
        {"mamba(", "column 6: this parenthesis is never closed"},
        {"mamba(d_stat=2)", "column 7: mamba: unknown parameter `d_stat`; did you mean `d_state`?"},
        {"mamba(d_state=2,d_state=3)", "column 17: `d_state` is given twice"},
        {"mamba(d_state)", "expected key=value"},
        {"mamba(d_state=)", "expected a value of `d_state`"},
        {"mamba(d_state=2|)", "expected a value of `d_state`"},
        {"mamba(d_state=0)", "column 15: mamba: `d_state` must be 1..1024, got 0"},
        {"mamba(d_state=2|x)", "column 17: mamba: `d_state` must be a whole number, got `x`"},
        {"mamba(d_state=2 d_conv=3)", "expected `,`, `|` or `)`"},
        {"attention(base=nan)", "must be a finite decimal number"},
        {"attention(bias=maybe)", "must be true or false"},
        {"mlp*0", "column 5: expected a number from 1 to 4096 after `*`, found 0"},
        {"mlp*", "after `*`, found the end"},
        {"mlp@4097", "column 5"},
        {"mlp*-2", "after `*`, found -2"},
        {"mlp*2*3", "a second count"},
        {"mlp*2@3", "a second count"},
        {"((mlp*64)*64)*2", "more than 4096 layers"},
        {"mlp*4096 mlp", "column 10: more than 4096 layers"},
        {"mlp*2(mlp)", "expected a space between layers"},
        {"(mlp)mlp", "expected a space between layers"},
        {"mlp+(mlp)", "`+` joins layers, not groups"},
        {"(mlp)+mlp", "`+` joins layers, not groups"},
        {"mlp+", "column 5: expected a layer, found the end"},
        {"mlp+mlp+mlp+mlp+mlp+mlp+mlp+mlp+mlp", "more than 8 mixers"},
        {"=mlp", "expected a label"},
        {"a b=mlp", "column 1: unknown layer `a`"},
        {"mlp x=mlp", "unknown layer `x`"},
        {"mlp(bias=true)=x", "a label stands once"},
        {"mlp=x=mlp", "unknown layer `x`"},
        {"a/b=mlp", "column 2: a label is made of"},
        {"my/ema.lua", "Lua are not possible yet"},
        {"my/ema.lua(rank=16)", "Lua are not possible yet"},
        {"split(mh-attention,mamba)", "`split` (mixers that share the channels out) is not possible yet"},
        {"mlp(dim_inner=mamba)", "layers as values"},
        {"mlp(dim_inner=foo(x=1))", "layers as values"},
        {"mlp\x01", "found `?`"},
        {"ml\xc3\xa9", "unknown layer `ml`"}};
    for (int i = 0; i < MDR_COUNT(bad); i++) {
        ArchList l;
        Err *e = mdr_model_parse(bad[i][0], 0, NULL, &l);
        if (!e) fail_msg("`%s` was accepted", bad[i][0]);
        if (!strstr(mdr_err_text(e), bad[i][1])) fail_msg("`%s`: got \"%s\", wanted \"%s\"", bad[i][0], mdr_err_text(e), bad[i][1]);
        assert_int_equal(mdr_err_code(e), MDR_USER);
        assert_int_equal(l.n, 0);
        mdr_err_free(e);
    }
}

static void limits(void **state) {
    (void)state;
    Text t = {0};
    for (int depth = 32; depth <= 33; depth++) {
        mdr_text_clear(&t);
        for (int i = 0; i < depth; i++) mdr_text_printf(&t, "(");
        mdr_text_printf(&t, "mlp");
        for (int i = 0; i < depth; i++) mdr_text_printf(&t, ")");
        ArchList l;
        Err *e = mdr_model_parse(mdr_text_str(&t), 0, NULL, &l);
        assert_true((e != NULL) == (depth == 33));
        if (e) assert_non_null(strstr(mdr_err_text(e), "column 33: groups are nested deeper than 32"));
        mdr_err_free(e);
        mdr_model_archs_free(&l);
    }
    mdr_text_clear(&t);
    for (int i = 0; i < 13; i++) mdr_text_printf(&t, "mlp(bias=true|false) ");
    ArchList l;
    Err *e = mdr_model_parse(mdr_text_str(&t), 0, NULL, &l);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "more than 4096 architectures"));
    mdr_err_free(e);
    t.n -= strlen("mlp(bias=true|false) ");
    t.s[t.n] = 0;
    l = parse(mdr_text_str(&t));
    assert_int_equal(l.n, 4096);
    mdr_model_archs_free(&l);
    mdr_text_printf(&t, "mlp*4000");
    e = mdr_model_parse(mdr_text_str(&t), 0, NULL, &l);
    assert_non_null(e);
    assert_non_null(strstr(mdr_err_text(e), "too many for one text"));
    mdr_err_free(e);
    l = parse("(mlp swiglu)*2048");
    assert_int_equal(l.arch[0]->n_layer, 4096);
    mdr_model_archs_free(&l);
    mdr_text_free(&t);
}

/* Random texts by the grammar itself: what is printed reads back to itself. */
static void grow(Rng *r, Text *t, int depth) {
    static const char *const leaf[] = {"mlp", "swiglu(dim_inner=48)", "mamba(d_state=2|4)", "hyena(filter_order=3)",
                                       "mh-attention(base=123.25,n_heads=4)", "mamba+mlp(bias=true)"};
    for (uint32_t i = 0, n = 1 + mdr_rng_below(r, 3); i < n; i++) {
        mdr_text_printf(t, "%s", i ? " " : "");
        bool group = depth < 4 && mdr_rng_below(r, 3) == 0;
        if (group) {
            mdr_text_printf(t, "(");
            grow(r, t, depth + 1);
            mdr_text_printf(t, ")");
        } else mdr_text_printf(t, "%s", leaf[mdr_rng_below(r, MDR_COUNT(leaf))]);
        uint32_t count = mdr_rng_below(r, 4);
        if (count > 1) mdr_text_printf(t, "%c%u", count == 2 ? '*' : '@', 1 + mdr_rng_below(r, 4));
    }
}
static void random_texts(void **state) {
    (void)state;
    Rng r = mdr_rng(7, 1);
    int tried = 0;
    for (int i = 0; i < 300; i++) {
        Text t = {0}, p = {0};
        grow(&r, &t, 0);
        ArchList l, again;
        Err *e = mdr_model_parse(mdr_text_str(&t), 0, NULL, &l);
        if (!e) {
            const Arch *last = l.arch[l.n - 1];
            mdr_model_print(last, &p);
            again = parse(mdr_text_str(&p));
            assert_int_equal(again.n, 1);
            printed_as(again.arch[0], mdr_text_str(&p));
            assert_int_equal(again.arch[0]->n_layer, last->n_layer);
            mdr_model_archs_free(&again);
            tried++;
        } else assert_non_null(strstr(mdr_err_text(e), "architectures"));   /* the only thing that can be wrong with it   */
        mdr_err_free(e);
        mdr_model_archs_free(&l);
        mdr_text_free(&t);
        mdr_text_free(&p);
    }
    assert_true(tried > 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(prints), cmocka_unit_test(hashes), cmocka_unit_test(choices_multiply),
                                       cmocka_unit_test(protocol_defaults), cmocka_unit_test(refuses), cmocka_unit_test(limits),
                                       cmocka_unit_test(random_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
