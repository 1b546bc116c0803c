/* The results database: opening, closing, what can be wrong with a file.
 *
 * INVARIANTS
 *  1. mdr_store_put returns NULL only when the trial is on the disk (WAL, synchronous=FULL: the commit is synced).
 *  2. A trial and all its epochs enter in one transaction: a reader sees all of it or nothing, at whatever moment
 *     a writer dies.
 *  3. A stored trial never changes: putting an existing key again writes nothing.
 *  4. trial.n_epoch counts the rows of epoch; a trial read back with another number is reported as damage.
 *  5. A file is a store if and only if its application_id is ours; its user_version is the format, and a store of any other
 *     format, newer or older, is refused: whoever changes the tables raises FORMAT. Both are set in the transaction that
 *     makes the tables, so a half-made store is an empty file to the next opener.
 *  6. No file is written to before it is known to be ours or empty.
 *  7. What is not finite comes back as it was: NaN is stored as NULL, infinities as themselves.
 *  8. Reading (create == false) writes nothing to the file and needs no write access to it or its folder.
 * Several processes may write to one store on one machine; they wait for each other. */
#include "store/internal.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { APPLICATION = 0x4d445253 /* "MDRS" */, FORMAT = 2, WAIT_MS = 60000, CHECK_BYTES = 32 << 20 };

static const char schema[] =
    "CREATE TABLE trial(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,"
    " architecture TEXT NOT NULL, label TEXT NOT NULL, task TEXT NOT NULL, class TEXT NOT NULL,"
    " numerics INTEGER NOT NULL, seed INTEGER NOT NULL, params INTEGER NOT NULL, state INTEGER NOT NULL, flops REAL,"
    " created INTEGER NOT NULL, status TEXT NOT NULL, seconds REAL, n_epoch INTEGER NOT NULL);"
    "CREATE TABLE epoch(trial INTEGER NOT NULL REFERENCES trial(id), n INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " step INTEGER NOT NULL, train_loss REAL, seconds REAL, valid_loss REAL, valid_acc REAL, valid_acc_macro REAL, valid_ppl REAL,"
    " test_loss REAL, test_acc REAL, test_acc_macro REAL, test_ppl REAL, PRIMARY KEY(trial, n)) WITHOUT ROWID;";

Err *mdr_store_error(sqlite3 *db, const char *path, int rc) {
    int os = db ? sqlite3_system_errno(db) : 0;
    const char *text = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    bool os_says = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN;
    if ((rc & 0xff) == SQLITE_FULL || (os_says && (os == ENOSPC || os == EDQUOT)))
        return MDR_ERR_MACHINE("%s: the disk is full: the last trial was not stored, all before it are safe", path);
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
        return MDR_ERR_MACHINE("%s: is damaged (%s): move it away, a new store is made at the next run", path, text);
    case SQLITE_NOTADB: return MDR_ERR_USER("%s: is not a store of trials", path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return MDR_ERR_MACHINE("%s: another process has kept it locked for a minute", path);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH: return MDR_ERR_USER("%s: cannot be opened: %s", path, os ? strerror(os) : text);
    case SQLITE_READONLY: return MDR_ERR_USER("%s: cannot be written to", path);
    default: break;
    }
    if ((rc & 0xff) == SQLITE_IOERR)
        return MDR_ERR_MACHINE("%s: %s%s%s: a trial that was being stored is not, all before it are safe", path, text,
                               os ? ": " : "", os ? strerror(os) : "");
    return MDR_ERR_MACHINE("%s: %s", path, text);
}

Err *mdr_store_exec(sqlite3 *db, const char *path, const char *sql) {
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? NULL : mdr_store_error(db, path, rc);
}

static Err *number(sqlite3 *db, const char *path, const char *sql, int64_t *v) {
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(q);
    Err *e = rc == SQLITE_ROW ? NULL : mdr_store_error(db, path, rc);
    if (!e) *v = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return e;
}

static Err *marks(sqlite3 *db, const char *path, int64_t *application, int64_t *format, int64_t *tables) {
    MDR_TRY(number(db, path, "PRAGMA application_id", application));
    MDR_TRY(number(db, path, "PRAGMA user_version", format));
    return number(db, path, "SELECT count(*) FROM sqlite_master", tables);
}

/* Ours, foreign or empty (fresh). All marks are of one moment: another process may be making the store just now. */
static Err *identify(sqlite3 *db, const char *path, bool *fresh) {
    int64_t application = 0, format = 0, tables = 0;
    bool alone = sqlite3_get_autocommit(db) != 0;
    if (alone) MDR_TRY(mdr_store_exec(db, path, "BEGIN"));
    Err *e = marks(db, path, &application, &format, &tables);
    if (alone) sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (e) return e;
    *fresh = application == 0 && format == 0 && tables == 0;
    struct stat st; /* SQLite takes a file of a few bytes for an empty one               */
    if (*fresh && stat(path, &st) == 0 && st.st_size > 0 && st.st_size < 512)
        return MDR_ERR_MACHINE("%s: is damaged (%lld bytes long)", path, (long long)st.st_size);
    if (*fresh) return NULL;
    if (application != APPLICATION) return MDR_ERR_USER("%s: is a database, but not a store of trials", path);
    if (format > FORMAT)
        return MDR_ERR_USER("%s: was made by a newer madras (format %lld; this one reads %d)", path, (long long)format,
                            (int)FORMAT);
    if (format > 0 && format < FORMAT)
        return MDR_ERR_USER("%s: was made by an older madras (format %lld; this one reads %d): move it away, a new store "
                            "is made at the next bench", path, (long long)format, (int)FORMAT);
    return format == FORMAT ? NULL : MDR_ERR_MACHINE("%s: is damaged (format %lld)", path, (long long)format);
}

/* Damage is found early where that is cheap; in larger stores by the query that meets it. */
static Err *check_pages(sqlite3 *db, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size > CHECK_BYTES) return NULL;
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &q, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(q);
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
    Err *e = !text ? mdr_store_error(db, path, rc)
             : strcmp(text, "ok") == 0
                 ? NULL
                 : MDR_ERR_MACHINE("%s: is damaged (%.*s): move it away, a new store is made at the next run", path,
                                   (int)strcspn(text, "\n"), text);
    sqlite3_finalize(q);
    return e;
}

/* Two processes may make the same store: the change to WAL wants the file alone and does not wait by itself. */
static Err *use_wal(sqlite3 *db, const char *path) {
    int rc = SQLITE_BUSY;
    for (int i = 0; i < WAIT_MS / 10 && (rc & 0xff) == SQLITE_BUSY; i++) {
        if (i) nanosleep(&(struct timespec){0, 10000000}, NULL);
        sqlite3_stmt *q = NULL;
        rc = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &q, NULL);
        if (rc == SQLITE_OK) rc = sqlite3_step(q);
        const char *mode = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        bool wal = mode && strcmp(mode, "wal") == 0;
        sqlite3_finalize(q);
        if (wal) return mdr_store_exec(db, path, "PRAGMA synchronous=FULL");
        if (rc == SQLITE_ROW)
            return MDR_ERR_MACHINE("%s: its file system cannot hold a store (no write-ahead log there)", path);
    }
    return mdr_store_error(db, path, rc);
}

static Err *make_tables(sqlite3 *db, const char *path) {
    bool fresh = false;
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", (int)APPLICATION,
             (int)FORMAT);
    MDR_TRY(mdr_store_exec(db, path, "BEGIN IMMEDIATE"));
    Err *e = identify(db, path, &fresh); /* another process may have been faster                              */
    if (!e && fresh) e = mdr_store_exec(db, path, schema);
    if (!e) e = mdr_store_exec(db, path, fresh ? sql : "COMMIT");
    if (e) sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

static Err *connect(const char *name, int flags, sqlite3 **db, const char *path) {
    int rc = sqlite3_open_v2(name, db, flags | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc != SQLITE_OK) return mdr_store_error(*db, path, rc);
    sqlite3_extended_result_codes(*db, 1);
    sqlite3_busy_timeout(*db, WAIT_MS);
    return NULL;
}

static Err *open_to_write(Store *s) {
    bool fresh = false;
    MDR_TRY(connect(s->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &s->db, s->path));
    if (sqlite3_db_readonly(s->db, "main") == 1) return MDR_ERR_USER("%s: cannot be written to", s->path);
    MDR_TRY(identify(s->db, s->path, &fresh));
    MDR_TRY(use_wal(s->db, s->path));
    return fresh ? make_tables(s->db, s->path) : check_pages(s->db, s->path);
}

/* "file:...?immutable=1": for a folder where SQLite can make no shared memory. It must be known that no log is waiting.
 */
static Err *connect_immutable(Store *s) {
    Text name = {0};
    struct stat st;
    mdr_text_printf(&name, "%s-wal", s->path);
    if (stat(mdr_text_str(&name), &st) == 0 && st.st_size > 0) {
        mdr_text_free(&name);
        return MDR_ERR_USER("%s: was not closed and cannot be put in order in a folder that cannot be written to: copy "
                            "it with its -wal file",
                            s->path);
    }
    mdr_text_clear(&name);
    mdr_text_printf(&name, "file:");
    for (const char *p = s->path; *p; p++)
        mdr_text_printf(&name, strchr("?#%", *p) ? "%%%02x" : "%c", (unsigned char)*p);
    mdr_text_printf(&name, "?immutable=1");
    Err *e = connect(mdr_text_str(&name), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, &s->db, s->path);
    mdr_text_free(&name);
    return e;
}

static Err *open_to_read(Store *s) {
    bool fresh = false;
    if (access(s->path, F_OK) != 0 && errno == ENOENT)
        return MDR_ERR_USER("%s: there is no store yet: madras bench makes it", s->path);
    if (access(s->path, R_OK) != 0) return MDR_ERR_USER("%s: cannot be opened: %s", s->path, strerror(errno));
    MDR_TRY(connect(s->path, SQLITE_OPEN_READONLY, &s->db, s->path));
    int64_t ignored;
    Err *e = number(s->db, s->path, "SELECT count(*) FROM sqlite_master", &ignored);
    int rc = sqlite3_errcode(s->db) & 0xff;
    if (e && (rc == SQLITE_CANTOPEN || rc == SQLITE_READONLY)) {
        mdr_err_free(e);
        sqlite3_close(s->db);
        s->db = NULL;
        e = connect_immutable(s);
    }
    if (!e) e = identify(s->db, s->path, &fresh);
    if (!e && fresh) e = MDR_ERR_USER("%s: is empty: no trial was ever stored in it", s->path);
    return e ? e : check_pages(s->db, s->path);
}

Err *mdr_store_open(const char *path, bool create, Store **out) {
    *out = NULL;
    Text place = {0};
    Err *e = mdr_store_place(path, &place);
    if (!e && create) e = mdr_store_make_folder(mdr_text_str(&place));
    struct stat st;
    if (!e && stat(mdr_text_str(&place), &st) == 0 && !S_ISREG(st.st_mode))
        e = MDR_ERR_USER("%s: is not a file", mdr_text_str(&place));
    if (!e) e = mdr_store_refuse_network(mdr_text_str(&place));
    if (e) {
        mdr_text_free(&place);
        return e;
    }
    Store *s = mdr_alloc(sizeof *s);
    s->path = place.s;
    s->writable = create;
    e = create ? open_to_write(s) : open_to_read(s);
    if (e) mdr_store_close(s);
    else *out = s;
    return e;
}

void mdr_store_close(Store *s) {
    if (!s) return;
    sqlite3_close(s->db);
    mdr_free(s->path);
    mdr_free(s);
}

const char *mdr_store_path(const Store *s) { return s->path; }
