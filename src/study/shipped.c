/* Protocols by name: those compiled in (src/study/protocols, through scripts/tables.sh), files, and what a protocol is
 * based on. A base is a shipped name or a file beside the one that names it. */
#include "study/internal.h"
#include <string.h>
#include <unistd.h>

extern const ProtocolFile mdr_protocol_files[]; /* ends with name == NULL                                             */
enum { DEEPEST = 8 };                           /* protocols on protocols: deeper is a circle                         */

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
    Text list = {0};
    for (; mdr_protocol_files[n].name && n < 64; n++) {
        names[n] = mdr_protocol_files[n].name;
        mdr_text_printf(&list, "%s%s", n ? ", " : "", names[n]);
    }
    names[n] = NULL;
    const char *near = mdr_text_nearest(name, names);
    Err *e = near ? MDR_ERR_USER("there is no protocol `%s`, nor a file of that name; did you mean `%s`?", name, near)
                  : MDR_ERR_USER("there is no protocol `%s`, nor a file of that name; shipped are %s", name,
                                 mdr_text_str(&list));
    mdr_text_free(&list);
    return e;
}

/* "a/b/paper.yml" -> "paper". */
static const char *stem(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path, *dot = strrchr(from, '.');
    return mdr_arena_printf(a, "%.*s", (int)(dot && dot > from ? dot - from : (ptrdiff_t)strlen(from)), from);
}

/* path: what name means as a file. The innermost base is read first. depth counts bases. */
static Err *load(Draft *d, const char *name, const char *path, int depth);

static Err *load_base(const Source *s, const Yaml *y, int depth) {
    MDR_TRY(mdr_study_want(s, y, MDR_YAML_SCALAR, "base"));
    const char *slash = strrchr(s->name, '/');
    const char *path = slash && y->text[0] != '/'
                           ? mdr_arena_printf(s->d->arena, "%.*s/%s", (int)(slash - s->name), s->name, y->text)
                           : y->text;
    return mdr_err_wrap(load(s->d, y->text, path, depth + 1), "%s", mdr_study_where(s, y));
}

static Err *load(Draft *d, const char *name, const char *path, int depth) {
    if (depth > DEEPEST)
        return MDR_ERR_USER("protocols are based on each other more than %d deep, or in a circle", (int)DEEPEST);
    const ProtocolFile *f = find(name);
    Yaml *root = NULL;
    Source s = {d, path, NULL};
    if (f) {
        s.name = mdr_arena_printf(d->arena, "%s.yml", f->name);
        MDR_TRY(mdr_yaml_parse(d->arena, f->text, strlen(f->text), s.name, &root));
    } else {
        if (access(path, F_OK) != 0) return unknown(name);
        MDR_TRY(mdr_yaml_load(d->arena, path, &root));
    }
    s.root = root;
    MDR_TRY(mdr_study_want(&s, root, MDR_YAML_MAP, "a protocol"));
    const Yaml *base = mdr_yaml_get(root, "base");
    if (base) MDR_TRY(load_base(&s, base, depth));
    MDR_TRY(mdr_study_read(&s, true));
    d->name = f ? f->name : stem(d->arena, path);
    return NULL;
}

Err *mdr_study_find_protocol(Draft *d, const char *name) { return load(d, name, name, 0); }
