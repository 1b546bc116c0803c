/* Trials to rows and back (invariants 1 - 4 and 7 of store.c). */
#include "store/internal.h"
#include <math.h>
#include <string.h>
#include <time.h>

static const char insert_trial[] = "INSERT INTO trial(key, spec, architecture, label, task, class, numerics, seed, "
                                   "params, state, flops, created, status, seconds, n_epoch)"
                                   " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(key) DO NOTHING";
static const char insert_epoch[] = "INSERT INTO epoch VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
static const char columns[] =
    "SELECT id, key, spec, architecture, label, task, class, numerics, seed, params, state, flops, created, status,"
    " seconds, n_epoch FROM trial";
static const char select_epochs[] = "SELECT epoch, step, train_loss, seconds, valid_loss, valid_acc, valid_acc_macro, "
                                    "valid_ppl, test_loss, test_acc, test_acc_macro, test_ppl"
                                    " FROM epoch WHERE trial=? ORDER BY n";

static Err *prepare(Store *s, const char *sql, sqlite3_stmt **q) {
    int rc = sqlite3_prepare_v2(s->db, sql, -1, q, NULL);
    return rc == SQLITE_OK ? NULL : mdr_store_error(s->db, s->path, rc);
}

/* Binding fails only for want of memory, which the step that follows reports as a missing value never could: NOT NULL
 * catches it. */
static void text(sqlite3_stmt *q, int *at, const char *v) {
    sqlite3_bind_text(q, ++*at, v ? v : "", -1, SQLITE_STATIC);
}
static void whole(sqlite3_stmt *q, int *at, int64_t v) { sqlite3_bind_int64(q, ++*at, v); }
static void real(sqlite3_stmt *q, int *at, double v) { sqlite3_bind_double(q, ++*at, v); } /* NaN becomes NULL        */

static Err *put_trial(Store *s, const StoreTrial *t) {
    sqlite3_stmt *q = NULL;
    int at = 0;
    MDR_TRY(prepare(s, insert_trial, &q));
    text(q, &at, t->key), text(q, &at, t->spec), text(q, &at, t->architecture), text(q, &at, t->label),
        text(q, &at, t->task);
    text(q, &at, t->class_name), whole(q, &at, t->numerics), whole(q, &at, t->seed), whole(q, &at, t->params),
        whole(q, &at, t->state);
    real(q, &at, t->flops), whole(q, &at, t->created ? t->created : (int64_t)time(NULL)),
        text(q, &at, mdr_train_status_name(t->result.status));
    real(q, &at, t->result.seconds), whole(q, &at, t->result.n_epoch);
    int rc = sqlite3_step(q);
    Err *e = rc == SQLITE_DONE ? NULL : mdr_store_error(s->db, s->path, rc);
    sqlite3_finalize(q);
    return e;
}

static Err *put_epochs(Store *s, const TrialResult *r) {
    sqlite3_stmt *q = NULL;
    int64_t id = sqlite3_last_insert_rowid(s->db);
    Err *e = prepare(s, insert_epoch, &q);
    for (int32_t i = 0; !e && i < r->n_epoch; i++) {
        const EpochScore *x = &r->epoch[i];
        const SplitScore *a = &x->valid, *b = &x->test;
        const double v[] = {x->train_loss, x->seconds, a->loss, a->acc, a->acc_macro, a->ppl, b->loss, b->acc, b->acc_macro, b->ppl};
        int at = 0;
        whole(q, &at, id), whole(q, &at, i), whole(q, &at, x->epoch), whole(q, &at, x->step);
        for (int k = 0; k < MDR_COUNT(v); k++) real(q, &at, v[k]);
        int rc = sqlite3_step(q);
        if (rc != SQLITE_DONE) e = mdr_store_error(s->db, s->path, rc);
        sqlite3_reset(q);
    }
    sqlite3_finalize(q);
    return e;
}

Err *mdr_store_put(Store *s, const StoreTrial *t) {
    if (!s->writable) return MDR_ERR_MACHINE("%s: is open for reading only", s->path);
    if (strlen(t->key) != 64) return MDR_ERR_MACHINE("a trial's key has 64 digits, not %zu", strlen(t->key));
    MDR_TRY(mdr_store_exec(s->db, s->path, "BEGIN IMMEDIATE"));
    Err *e = put_trial(s, t);
    if (!e && sqlite3_changes(s->db) == 1) e = put_epochs(s, &t->result);
    if (!e) e = mdr_store_exec(s->db, s->path, "COMMIT");
    if (e) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL); /* may have happened by itself                          */
    return e;
}

static double real_of(sqlite3_stmt *q, int column) {
    return sqlite3_column_type(q, column) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(q, column);
}
static const char *text_of(sqlite3_stmt *q, Arena *a, int column) {
    const char *v = (const char *)sqlite3_column_text(q, column);
    return mdr_arena_strdup(a, v ? v : "");
}

static Err *damaged(const Store *s, const char *key) {
    return MDR_ERR_MACHINE(
        "%s: is damaged (trial %.12s is incomplete): move it away, a new store is made at the next run", s->path, key);
}

static Err *get_epochs(Store *s, sqlite3_stmt *q, int64_t id, Arena *a, StoreTrial *t) {
    int32_t n = 0, want = t->result.n_epoch;
    if (want < 0 || want > 100000000) return damaged(s, t->key);
    t->result.epoch = mdr_arena_alloc(a, (size_t)want * sizeof *t->result.epoch + 1);
    sqlite3_reset(q);
    sqlite3_bind_int64(q, 1, id);
    int rc;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
        if (n == want) return damaged(s, t->key);
        t->result.epoch[n++] = (EpochScore){sqlite3_column_int(q, 0),
                                            sqlite3_column_int64(q, 1),
                                            real_of(q, 2),
                                            real_of(q, 3),
                                            {real_of(q, 4), real_of(q, 5), real_of(q, 6), real_of(q, 7)},
                                            {real_of(q, 8), real_of(q, 9), real_of(q, 10), real_of(q, 11)}};
    }
    if (rc != SQLITE_DONE) return mdr_store_error(s->db, s->path, rc);
    return n == want ? NULL : damaged(s, t->key);
}

static Err *get_row(Store *s, sqlite3_stmt *q, sqlite3_stmt *epochs, Arena *a, StoreTrial **out) {
    StoreTrial *t = mdr_arena_alloc(a, sizeof *t);
    *t = (StoreTrial){.key = text_of(q, a, 1),
                      .spec = text_of(q, a, 2),
                      .architecture = text_of(q, a, 3),
                      .label = text_of(q, a, 4),
                      .task = text_of(q, a, 5),
                      .class_name = text_of(q, a, 6),
                      .numerics = sqlite3_column_int64(q, 7),
                      .seed = sqlite3_column_int64(q, 8),
                      .params = sqlite3_column_int64(q, 9),
                      .state = sqlite3_column_int64(q, 10),
                      .flops = real_of(q, 11),
                      .created = sqlite3_column_int64(q, 12)};
    const char *status = text_of(q, a, 13);
    int k = 0;
    while (k <= TRIAL_STOPPED_EARLY && strcmp(status, mdr_train_status_name((TrialStatus)k))) k++;
    if (k > TRIAL_STOPPED_EARLY) return damaged(s, t->key);
    t->result.status = (TrialStatus)k;
    t->result.seconds = real_of(q, 14);
    t->result.n_epoch = sqlite3_column_int(q, 15);
    *out = t;
    return get_epochs(s, epochs, sqlite3_column_int64(q, 0), a, t);
}

/* One read transaction, so that trials and their epochs are of one moment. */
static Err *query(Store *s, Arena *a, const char *where, const char *value, int32_t *n, StoreTrial ***list) {
    sqlite3_stmt *q = NULL, *epochs = NULL;
    int32_t cap = 0;
    int rc = SQLITE_DONE;
    char sql[512];
    snprintf(sql, sizeof sql, "%s %s ORDER BY id", columns, where);
    *n = 0;
    *list = NULL;
    MDR_TRY(mdr_store_exec(s->db, s->path, "BEGIN"));
    Err *e = prepare(s, sql, &q);
    if (!e) e = prepare(s, select_epochs, &epochs);
    if (!e) sqlite3_bind_text(q, 1, value, -1, SQLITE_STATIC);
    StoreTrial **found = NULL;
    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        if (*n == cap) found = mdr_realloc(found, (size_t)(cap = cap ? 2 * cap : 16) * sizeof(StoreTrial *));
        e = get_row(s, q, epochs, a, &found[*n]);
        if (!e) ++*n;
    }
    if (!e && rc != SQLITE_DONE) e = mdr_store_error(s->db, s->path, rc);
    sqlite3_finalize(q);
    sqlite3_finalize(epochs);
    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (e) *n = 0;
    else if (found) *list = mdr_arena_copy(a, found, (size_t)*n * sizeof(StoreTrial *));
    mdr_free(found);
    return e;
}

Err *mdr_store_get(Store *s, Arena *a, const char *key, StoreTrial **t) {
    int32_t n;
    StoreTrial **list;
    *t = NULL;
    MDR_TRY(query(s, a, "WHERE key=?1", key, &n, &list));
    if (n > 0) *t = list[0];
    return NULL;
}

/* The next digit of a key is below 'g'. */
Err *mdr_store_list(Store *s, Arena *a, const char *prefix, int32_t *n, StoreTrial ***t) {
    return query(s, a, "WHERE key>=?1 AND key<?1||'g'", prefix, n, t);
}

Err *mdr_store_classes(Store *s, Arena *a, const char *prefix, int32_t *n, const char ***name) {
    enum { MOST = 16 };
    sqlite3_stmt *q = NULL;
    int rc = SQLITE_DONE;
    *n = 0;
    *name = mdr_arena_alloc(a, MOST * sizeof **name);
    MDR_TRY(prepare(s, "SELECT DISTINCT class FROM trial WHERE substr(class, 1, length(?1)) = ?1 ORDER BY class", &q));
    sqlite3_bind_text(q, 1, prefix, -1, SQLITE_STATIC);
    while (*n < MOST && (rc = sqlite3_step(q)) == SQLITE_ROW) (*name)[(*n)++] = text_of(q, a, 0);
    sqlite3_finalize(q);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? NULL : mdr_store_error(s->db, s->path, rc);
}

Err *mdr_store_outdated(Store *s, const char *architecture, const char *class_name, int32_t *n, int64_t *latest) {
    sqlite3_stmt *q = NULL;
    MDR_TRY(prepare(s, "SELECT count(*), max(numerics) FROM trial WHERE architecture = ?1 AND class = ?2 AND numerics <> ?3", &q));
    sqlite3_bind_text(q, 1, architecture, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, class_name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 3, MDR_NUMERICS);
    int rc = sqlite3_step(q);
    *n = rc == SQLITE_ROW ? sqlite3_column_int(q, 0) : 0;
    *latest = rc == SQLITE_ROW ? sqlite3_column_int64(q, 1) : 0;
    sqlite3_finalize(q);
    return rc == SQLITE_ROW ? NULL : mdr_store_error(s->db, s->path, rc);
}
