/* Protocols by name: those compiled in (src/study/protocols, through scripts/tables.sh), files, and what a protocol is
 * based on. A base is a shipped name or a file beside the one that names it. */
#include "study/internal.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

extern const ProtocolFile mdr_protocol_files[]; /* ends with name == NULL                                             */

const ProtocolFile *mdr_study_protocol_at(int i) {
    for (int k = 0; mdr_protocol_files[k].name; k++)
        if (k == i) return &mdr_protocol_files[k];
    return NULL;
}

static const ProtocolFile *find(const char *name) {
    for (int i = 0; mdr_protocol_files[i].name; i++)
        if (strcmp(mdr_protocol_files[i].name, name) == 0) return &mdr_protocol_files[i];
    return NULL;
}

static Err *unknown(const char *name) {
    const char *names[65];
    int n = 0;
    for (; mdr_protocol_files[n].name && n < 64; n++) names[n] = mdr_protocol_files[n].name;
    names[n] = NULL;
    return MDR_ERR_UNKNOWN("there is no file and no protocol", name, names, NULL);
}

/* "a/b/paper.yml" -> "paper". */
static const char *stem(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path, *dot = strrchr(from, '.');
    return mdr_arena_printf(a, "%.*s", (int)(dot && dot > from ? dot - from : (ptrdiff_t)strlen(from)), from);
}

/* The files being read, innermost first: each is the base of the next. Told apart by what they are, not by how their
 * paths are spelt. */
typedef struct Chain { dev_t device; ino_t inode; const struct Chain *next; } Chain;

static bool on_chain(const Chain *c, const struct stat *st) {
    for (; c; c = c->next)
        if (c->device == st->st_dev && c->inode == st->st_ino) return true;
    return false;
}

/* path: what name means as a file. The innermost base is read first. */
static Err *load(Draft *d, const char *name, const char *path, const Chain *above);

static Err *load_base(const Source *s, const Yaml *y, const Chain *above) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, "base"));
    const char *slash = strrchr(s->name, '/');
    const char *path = slash && y->text[0] != '/'
                           ? mdr_arena_printf(s->d->arena, "%.*s/%s", (int)(slash - s->name), s->name, y->text)
                           : y->text;
    return mdr_err_wrap(load(s->d, y->text, path, above), "%s", mdr_study_where(s, y));
}

static Err *load(Draft *d, const char *name, const char *path, const Chain *above) {
    const ProtocolFile *f = find(name);
    Yaml *root = NULL;
    Source s = {d, path, NULL};
    Chain own = {.next = above};
    if (f) {
        s.name = mdr_arena_printf(d->arena, "%s.yml", f->name);
        MDR_TRY(mdr_yaml_parse(d->arena, f->text, strlen(f->text), s.name, &root));
    } else {
        struct stat st;
        if (stat(path, &st) != 0 && errno == ENOENT) return unknown(name);
        if (stat(path, &st) == 0) {
            if (on_chain(above, &st)) return MDR_ERR_USER("protocol `%s` is its own base", name);
            own.device = st.st_dev, own.inode = st.st_ino;
        }
        MDR_TRY(mdr_yaml_load(d->arena, path, &root));
    }
    s.root = root;
    MDR_TRY(mdr_study_want(&s, root, MDR_YAML_MAP, "a protocol"));
    const Yaml *base = mdr_yaml_get(root, "base");
    if (base) MDR_TRY(load_base(&s, base, &own));
    MDR_TRY(mdr_study_read(&s, true));
    d->name = f ? f->name : stem(d->arena, path);
    return NULL;
}

Err *mdr_study_find_protocol(Draft *d, const char *name) { return load(d, name, name, NULL); }
