/* Fusing: where some nodes together are what one op computes, that op takes their place. It comes last, after lowering and autodiff, so
 * layers and derivatives know nothing of it. An op says by `match` (ir.h) which nodes it stands for, given the last of them.
 *   1. matches are looked for in the graph as it is;
 *   2. the nodes are put in order anew, each fused node where its root stood, the last one, or earlier, where the first reader of an output
 *      wants it and its inputs are there; whoever comes later reads the fused node;
 *   3. what nobody reads any more goes.
 * A reader of a replaced value before that place keeps the old nodes: more work, the same result but for rounding. */
#include "ir/internal.h"
#include <string.h>

struct Uses {
    const Builder *b;
    int32_t *first;               /* [node x MDR_MAX_OUT + 1]: where a value's readers begin in reader; the next value's end them */
    int32_t *reader;              /* node numbers, ascending; a graph output counts as reader INT32_MAX                    */
    bool *live;
};

static size_t at(Value v) { return (size_t)v.node * MDR_MAX_OUT + (size_t)v.out; }
int32_t mdr_ir_n_users(const Uses *u, Value v) { return v.node < 0 ? 0 : u->first[at(v) + 1] - u->first[at(v)]; }
int32_t mdr_ir_user(const Uses *u, Value v, int32_t k) { return u->reader[u->first[at(v)] + k]; }
int32_t mdr_ir_only_user(const Uses *u, Value v)
{
    return mdr_ir_n_users(u, v) == 1 && mdr_ir_user(u, v, 0) != INT32_MAX ? mdr_ir_user(u, v, 0) : -1;
}
bool mdr_ir_is(const Builder *b, Value v, const char *op) { return v.node >= 0 && strcmp(b->node[v.node]->op->name, op) == 0; }
int32_t mdr_ir_found(const Builder *b, const Uses *u, Value v, const char *op, int32_t k)
{
    for (int32_t i = 0; i < mdr_ir_n_users(u, v); i++) {
        int32_t r = mdr_ir_user(u, v, i);
        if (r == INT32_MAX || strcmp(b->node[r]->op->name, op) != 0 || k >= b->node[r]->n_in) continue;
        if (b->node[r]->in[k].node == v.node && b->node[r]->in[k].out == v.out) return r;
    }
    return -1;
}

static bool *alive(const Builder *b)
{
    bool *live = mdr_alloc((size_t)b->n_node * sizeof *live + 1);
    for (int32_t i = 0; i < b->n_output; i++)
        if (b->output[i].node >= 0) live[b->output[i].node] = true;
    for (int32_t i = b->n_node - 1; i >= 0; i--) {
        const Node *n = b->node[i];
        /* Parameters and inputs are counted by number; a scan lends its body to its gradient. They stay. */
        if (n->op == &mdr_ir_op_param || n->op == &mdr_ir_op_input || n->body) live[i] = true;
        for (int k = 0; live[i] && k < n->n_in; k++)
            if (n->in[k].node >= 0) live[n->in[k].node] = true;
    }
    return live;
}

/* Two passes over all readings: counted, then written. */
static Uses uses(const Builder *b)
{
    size_t n_value = (size_t)b->n_node * MDR_MAX_OUT, n = (size_t)b->n_output;
    Uses u = {b, mdr_alloc((n_value + 2) * sizeof *u.first), NULL, alive(b)};
    for (int32_t i = 0; i < b->n_node; i++)
        for (int k = 0; u.live[i] && k < b->node[i]->n_in; k++)
            if (b->node[i]->in[k].node >= 0) { u.first[at(b->node[i]->in[k]) + 2]++; n++; }
    for (int32_t i = 0; i < b->n_output; i++)
        if (b->output[i].node >= 0) u.first[at(b->output[i]) + 2]++;
    for (size_t i = 2; i < n_value + 2; i++) u.first[i] += u.first[i - 1];
    u.reader = mdr_alloc(n * sizeof *u.reader + 1);
    for (int32_t i = 0; i < b->n_node; i++)
        for (int k = 0; u.live[i] && k < b->node[i]->n_in; k++)
            if (b->node[i]->in[k].node >= 0) u.reader[u.first[at(b->node[i]->in[k]) + 1]++] = i;
    for (int32_t i = 0; i < b->n_output; i++)
        if (b->output[i].node >= 0) u.reader[u.first[at(b->output[i]) + 1]++] = INT32_MAX;
    return u;
}

/* The numbers of values change as nodes join and go: now[old value]. */
typedef struct Moved { Value (*now)[MDR_MAX_OUT]; } Moved;
static Value moved(const Moved *m, Value v) { return v.node < 0 ? MDR_ABSENT : m->now[v.node][v.out]; }

static void keep_node(Builder *b, Moved *m, int32_t i, Node *n)
{
    for (int k = 0; k < n->n_in; k++) n->in[k] = moved(m, n->in[k]);
    for (int k = 0; k < n->n_out; k++)
        if (m->now[i][k].node == 0) m->now[i][k] = (Value){b->n_node, k};      /* else a fused node made it ahead            */
    b->node[b->n_node++] = n;
}

/* Do the outputs have the types of what they stand for? Axes are the union of all inputs', so a fused op's may be more. */
static bool stands(Node *const *old, const Node *n, const Fusion *f)
{
    for (int k = 0; k < n->n_out; k++) {
        if (!mdr_ir_has(f->out[k])) continue;
        const Type *a = &old[f->out[k].node]->out[f->out[k].out], *t = &n->out[k];
        if (!mdr_shape_equal(a->shape, t->shape) || a->dtype != t->dtype || a->axes != t->axes || a->phase != t->phase) return false;
    }
    return true;
}
/* The fused node; not where its shapes refuse, its types differ or the device has no kernel for it. */
static void put_fused(Builder *b, Node *const *old, Moved *m, const OpDef *op, const Fusion *f, const char *where, bool (*accept)(const Node *))
{
    Value in[MDR_MAX_IN];
    for (int k = 0; k < f->n_in; k++) {
        in[k] = moved(m, f->in[k]);
        if (in[k].node == 0 && f->in[k].node > 0) return;  /* its maker, fused, was refused, and the plain one comes later           */
    }
    b->where = where;
    Value made = mdr_ir_node(b, op, f->attr, f->n_in, in);
    mdr_err_free(b->err);
    b->err = NULL;
    if (!mdr_ir_has(made) || !stands(old, b->node[made.node], f) || !accept(b->node[made.node])) return;
    for (int k = 0; k < op->n_out; k++)
        if (mdr_ir_has(f->out[k])) m->now[f->out[k].node][f->out[k].out] = mdr_ir_out(made, k);
}

static void outputs(Builder *b, const Moved *m)
{
    for (int32_t i = 0; i < b->n_output; i++) b->output[i] = moved(m, b->output[i]);
}

/* Nodes that nobody reads go. */
static void drop_dead(Builder *b)
{
    bool *live = alive(b);
    int32_t n = b->n_node;
    Moved m = {mdr_alloc((size_t)n * sizeof *m.now + 1)};
    b->n_node = 0;
    for (int32_t i = 0; i < n; i++)
        if (live[i]) keep_node(b, &m, i, b->node[i]);
    outputs(b, &m);
    mdr_free(m.now);
    mdr_free(live);
}

typedef struct Found { const OpDef *op; Fusion f; int32_t root, place; } Found;         /* place: the node behind which it comes  */

/* In front of the first reader, but behind all inputs; at the root at last. fused[value]: 1 + the place of the fused node found to make it. */
static int32_t place(const Uses *u, const Found *x, const int32_t *fused)
{
    int32_t first = x->root + 1, input = -1;
    for (int k = 0; k < x->op->n_out; k++)
        if (mdr_ir_n_users(u, x->f.out[k]) > 0 && mdr_ir_user(u, x->f.out[k], 0) < first) first = mdr_ir_user(u, x->f.out[k], 0);
    for (int k = 0; k < x->f.n_in; k++) {
        if (!mdr_ir_has(x->f.in[k])) continue;
        const int32_t made = fused[at(x->f.in[k])] ? fused[at(x->f.in[k])] - 1 : x->f.in[k].node;
        if (made > input) input = made;
    }
    const int32_t to = input > first - 1 ? input : first - 1;
    return to < x->root ? to : x->root;
}
/* Sorted by place; of one place, in order of roots. */
static void insert(Found *found, int32_t n, const Found *x)
{
    for (; n > 0 && found[n - 1].place > x->place; n--) found[n] = found[n - 1];
    found[n] = *x;
}

static int32_t find_all(const Builder *b, int n_rule, const OpDef *const *rule, Found **found)
{
    int32_t n = 0, room = 0;
    Uses u = uses(b);
    int32_t *fused = mdr_alloc(((size_t)b->n_node * MDR_MAX_OUT + 1) * sizeof *fused);
    *found = NULL;
    for (int32_t i = 0; i < b->n_node; i++)
        for (int r = 0; u.live[i] && r < n_rule; r++) {
            Found x = {.op = rule[r], .root = i};
            for (int k = 0; k < MDR_MAX_IN; k++) x.f.in[k] = MDR_ABSENT;
            for (int k = 0; k < MDR_MAX_OUT; k++) x.f.out[k] = MDR_ABSENT;
            if (!rule[r]->match(b, &u, i, &x.f)) continue;
            if (n == room) *found = mdr_realloc(*found, (size_t)(room = 2 * room + 16) * sizeof **found);
            x.place = place(&u, &x, fused);
            for (int k = 0; k < x.op->n_out; k++)
                if (mdr_ir_has(x.f.out[k])) fused[at(x.f.out[k])] = x.place + 1;
            insert(*found, n++, &x);
        }
    mdr_free(fused);
    mdr_free(u.first);
    mdr_free(u.reader);
    mdr_free(u.live);
    return n;
}

void mdr_ir_fuse(Builder *b, int n_rule, const OpDef *const *rule, bool (*accept)(const Node *))
{
    if (b->err) return;
    Found *found;
    int32_t n_found = find_all(b, n_rule, rule, &found), n = b->n_node, next = 0;
    Node **old = b->node;
    Moved m = {mdr_alloc((size_t)n * sizeof *m.now + 1)};
    b->node = mdr_alloc((size_t)(n + n_found + 1) * sizeof *b->node);
    b->cap_node = n + n_found + 1;
    b->n_node = 0;
    for (int32_t i = 0; i < n; i++) {
        keep_node(b, &m, i, old[i]);
        for (; next < n_found && found[next].place == i; next++)
            put_fused(b, old, &m, found[next].op, &found[next].f, old[found[next].root]->where, accept);
    }
    outputs(b, &m);
    mdr_free(m.now);
    mdr_free(old);
    mdr_free(found);
    drop_dead(b);
}
