/* Trials made by number, so that a reader can tell whether one is whole. */
#ifndef MDR_STORE_HARNESS_H
#define MDR_STORE_HARNESS_H
#include "study_harness.h"
#include "store/internal.h"
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

typedef struct Made { StoreTrial t; char key[65], spec[64]; EpochScore epoch[64]; } Made;

static inline double part(int64_t i, int k) { return (double)(i * 31 + k * 7 % 13) / 1024; }
/* Trial i: its number of epochs and every value follow from i. */
static inline void make_trial(Made *m, int64_t i) {
    char name[32];
    *m = (Made){.key = ""};
    snprintf(name, sizeof name, "trial %lld", (long long)i);
    mdr_sha256(name, strlen(name), m->key);
    snprintf(m->spec, sizeof m->spec, "architecture mlp()\nseed %lld\n", (long long)i);
    int32_t n = (int32_t)(i % 40);
    for (int32_t k = 0; k < n; k++)
        m->epoch[k] = (EpochScore){k + 1,
                                   i * 100 + k,
                                   part(i, k),
                                   part(i, k + 1),
                                   {part(i, k + 2), part(i, k + 3), part(i, k + 4), part(i, k + 8)},
                                   {part(i, k + 5), part(i, k + 6), part(i, k + 7), part(i, k + 9)}};
    m->t = (StoreTrial){.key = m->key,
                        .spec = m->spec,
                        .architecture = "mlp",
                        .label = i % 2 ? "x" : "",
                        .task = "memorization",
                        .class_name = "plain",
                        .numerics = 1,
                        .seed = i,
                        .params = 7 * i,
                        .state = i,
                        .flops = 1e9 + (double)i,
                        .created = 1000 + i,
                        .result = {(TrialStatus)(i % 3), n, m->epoch, .25 * (double)i}};
}
/* NaN equals NaN. */
static inline bool same_real(double a, double b) { return a == b || (a != a && b != b); }
static inline bool same_trial(const StoreTrial *a, const StoreTrial *b) {
    const TrialResult *x = &a->result, *y = &b->result;
    bool same = !strcmp(a->key, b->key) && !strcmp(a->spec, b->spec) && !strcmp(a->architecture, b->architecture) &&
                !strcmp(a->label, b->label) && !strcmp(a->task, b->task) && !strcmp(a->class_name, b->class_name) &&
                a->numerics == b->numerics && a->seed == b->seed && a->params == b->params && a->state == b->state &&
                same_real(a->flops, b->flops) && a->created == b->created && x->status == y->status &&
                x->n_epoch == y->n_epoch && same_real(x->seconds, y->seconds);
    for (int32_t k = 0; same && k < x->n_epoch; k++) {
        const EpochScore *e = &x->epoch[k], *f = &y->epoch[k];
        same = e->epoch == f->epoch && e->step == f->step && same_real(e->train_loss, f->train_loss) &&
               same_real(e->seconds, f->seconds) && same_real(e->valid.loss, f->valid.loss) &&
               same_real(e->valid.acc, f->valid.acc) && same_real(e->valid.acc_macro, f->valid.acc_macro) &&
               same_real(e->test.loss, f->test.loss) && same_real(e->test.acc, f->test.acc) &&
               same_real(e->test.acc_macro, f->test.acc_macro) && same_real(e->valid.ppl, f->valid.ppl) &&
               same_real(e->test.ppl, f->test.ppl);
    }
    return same;
}
static inline void must_have(Store *s, int64_t i) {
    Made m;
    StoreTrial *got;
    Arena *a = mdr_arena_new();
    make_trial(&m, i);
    must(mdr_store_get(s, a, m.key, &got));
    if (!got) fail_msg("trial %lld is lost", (long long)i);
    if (!same_trial(&m.t, got)) fail_msg("trial %lld came back changed", (long long)i);
    mdr_arena_free(a);
}
static inline void put_number(Store *s, int64_t i) {
    Made m;
    make_trial(&m, i);
    must(mdr_store_put(s, &m.t));
}
static inline void must_be_sound(Store *s) {
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_prepare_v2(s->db, "PRAGMA integrity_check", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(q, 0), "ok");
    sqlite3_finalize(q);
}
static inline void remove_store(const char *path) {
    static const char *const end[] = {"", "-wal", "-shm", "-journal"};
    char name[600];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", path, end[i]);
        unlink(name);
    }
}
#endif
