/* How a layer gets its weights, and the one place that turns a step into a whole layer: scan(step). A step asks for its
 * parameters by name exactly as build does; a dry run on a scratch Builder learns which, the outer graph makes them, and the
 * body gets them as constants. */
#include "layer/binding.h"
#include <string.h>

static BoundParam *bound(LayerBinding *t, const char *name) {
    for (int32_t i = 0; i < t->n; i++)
        if (strcmp(t->param[i].name, name) == 0) return &t->param[i];
    return NULL;
}

static Value learn(LayerContext *c, const char *name, const char *full, Shape s, Init init) {
    LayerBinding *t = c->binding;
    if (!bound(t, name)) {
        if (t->n == MDR_MAX_IN) {
            mdr_ir_fail(c->b, MDR_ERR_USER("%s: more than %d parameters in a step", c->name, MDR_MAX_IN));
            return MDR_ABSENT;
        }
        if (init.table) init.table = mdr_arena_copy(t->arena, init.table, (size_t)mdr_numel(s) * sizeof *init.table);
        t->param[t->n++] = (BoundParam){mdr_arena_strdup(t->arena, name), s, init, MDR_ABSENT};
    }
    return mdr_ir_param(c->b, full, s, init);
}

Value mdr_layer_param(LayerContext *c, const char *name, Shape s, Init init) {
    if (mdr_ir_failed(c->b)) return MDR_ABSENT;
    const char *full = mdr_arena_printf(mdr_ir_arena(c->b), "%s.%s", c->name, name);
    if (!c->binding) return mdr_ir_param(c->b, full, s, init);
    if (c->binding->learning) return learn(c, name, full, s, init);
    const BoundParam *p = bound(c->binding, name);
    if (p) return p->value;
    mdr_ir_fail(c->b, MDR_ERR_MACHINE("%s: its step asks for other parameters when built twice", full));
    return MDR_ABSENT;
}

Value mdr_layer_linear(LayerContext *c, const char *name, Value x, int32_t out, bool bias) {
    int32_t in = (int32_t)mdr_cols(mdr_ir_type(c->b, x).shape);
    if (mdr_ir_failed(c->b)) return MDR_ABSENT;
    Arena *a = mdr_ir_arena(c->b);
    Value w = mdr_layer_param(c, mdr_arena_printf(a, "%s.weight", name), mdr_shape2(in, out), (Init){INIT_LINEAR, in, 0, NULL});
    Value v = MDR_ABSENT;
    if (bias) v = mdr_layer_param(c, mdr_arena_printf(a, "%s.bias", name), mdr_shape1(out), (Init){INIT_LINEAR_BIAS, in, 0, NULL});
    return mdr_op_matmul(c->b, x, w, v);
}

/* Builds the step on c->b, which belongs to a body or a scratch graph: carries, x, t, then what binding answers. */
static Value one_step(const LayerDef *def, LayerContext *c, int n_carry, const Shape *shape, Value *next) {
    const unsigned both = MDR_AXIS_SEQ | MDR_AXIS_MEMBER;
    Value carry[MDR_MAX_CARRY];
    for (int i = 0; i < n_carry; i++) {
        carry[i] = mdr_ir_input(c->b, "carry", shape[i], DT_REAL, both);
        next[i] = MDR_ABSENT;
    }
    Value x = mdr_ir_input(c->b, "x", mdr_shape2(1, c->dim), DT_REAL, both);
    Value t = mdr_ir_input(c->b, "t", mdr_shape2(1, 1), DT_REAL, both);
    for (int32_t i = 0; i < c->binding->n; i++) {
        BoundParam *p = &c->binding->param[i];
        p->value = mdr_ir_input(c->b, p->name, p->shape, DT_REAL, MDR_AXIS_MEMBER);
    }
    return def->step(c, x, mdr_ir_reshape(c->b, t, mdr_shape1(1)), carry, next);
}

static Graph *body(const LayerDef *def, const LayerContext *outer, LayerBinding *binding, int n_carry, const Shape *shape) {
    LayerContext c = *outer;
    Value next[MDR_MAX_CARRY];
    Graph *g = NULL;
    c.b = mdr_ir_builder();
    c.binding = binding;
    c.length = 1;
    mdr_ir_where(c.b, "%s", c.name);
    Value y = one_step(def, &c, n_carry, shape, next);
    for (int i = 0; i < n_carry; i++) mdr_ir_output(c.b, next[i]);
    mdr_ir_output(c.b, y);
    Err *e = mdr_ir_finish(c.b, &g);
    if (e) mdr_ir_fail(outer->b, e);
    return g;
}

static Value zeros(Builder *b, Shape s) {
    double zero = 0.0;
    Value v = mdr_ir_expand(b, mdr_ir_const(b, mdr_shape1(1), &zero), (int32_t)mdr_numel(s), false);
    return mdr_ir_reshape(b, v, s);
}

static Value positions(Builder *b, int32_t length) {
    double *t = mdr_alloc((size_t)length * sizeof *t);
    for (int32_t i = 0; i < length; i++) t[i] = i;
    Value v = mdr_ir_const(b, mdr_shape2(length, 1), t);
    mdr_free(t);
    return v;
}

Value mdr_layer_scan(const LayerDef *def, LayerContext *c, Value x) {
    if (!def->step || mdr_ir_failed(c->b)) return MDR_ABSENT;
    Shape shape[MDR_MAX_CARRY];
    int n_carry = def->carry ? def->carry(c, shape) : 0;
    LayerBinding *binding = mdr_alloc(sizeof *binding);
    binding->arena = mdr_arena_new();
    binding->learning = true;
    mdr_ir_graph_free(body(def, c, binding, n_carry, shape));     /* the dry run: only its questions matter              */
    binding->learning = false;
    if (n_carry + 2 + binding->n > MDR_MAX_IN)
        mdr_ir_fail(c->b, MDR_ERR_USER("%s: %d carries and %d parameters are more than a scan can take", c->name, n_carry, binding->n));
    Value in[MDR_MAX_IN], out[MDR_MAX_CARRY + 1] = {MDR_ABSENT}, y = MDR_ABSENT;
    if (!mdr_ir_failed(c->b)) {
        int k = 0;
        for (int i = 0; i < n_carry; i++) in[k++] = zeros(c->b, shape[i]);
        in[k++] = x;
        in[k++] = positions(c->b, c->length);
        for (int32_t i = 0; i < binding->n; i++) {
            const BoundParam *p = &binding->param[i];
            in[k++] = mdr_layer_param(c, p->name, p->shape, p->init);
        }
        Graph *g = body(def, c, binding, n_carry, shape);
        if (g) {
            mdr_ir_scan(c->b, g, (ScanAttr){.n_carry = n_carry, .n_xs = 2, .n_const = binding->n, .n_ys = 1, .length = c->length},
                        in, out);
            y = out[n_carry];
        }
    }
    mdr_arena_free(binding->arena);
    mdr_free(binding);
    return y;
}
