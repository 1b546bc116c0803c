/* YAML into a tree: libyaml's events, one document, plain keys. Refused with file, line and column: duplicate keys, anchors and
 * aliases, tags, several documents, NUL in text, more than DEPTH levels, NODES values or KEYS keys in a map. What a scalar
 * means (number, word) is its reader's business: its text is kept as written, so 1e-4 is no string by accident. */
#include "base/base.h"
#include <string.h>
#include <yaml.h>

enum { DEPTH = 32, NODES = 100000, KEYS = 1000 };
static const size_t MAX_BYTES = (size_t)1 << 20;

typedef struct Reader {
    yaml_parser_t parser;
    yaml_event_t event;              /* the current one; deleted by advance() and by the end                              */
    bool held;
    Arena *a;
    const char *name;
    int nodes;
} Reader;

static Err *error_at(const char *name, yaml_mark_t m, const char *what) {
    return MDR_ERR_USER("%s:%zu:%zu: %s", name, m.line + 1, m.column + 1, what);
}

static Err *here(const Reader *r, const char *what) { return error_at(r->name, r->event.start_mark, what); }

static Err *advance(Reader *r) {
    if (r->held) yaml_event_delete(&r->event);
    r->held = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (r->held) return NULL;
    const char *what = r->parser.problem ? r->parser.problem : "cannot be read";
    yaml_mark_t m = r->parser.problem_mark;
    if (r->parser.error == YAML_MEMORY_ERROR) return MDR_ERR_MACHINE("%s: not enough memory to read it", r->name);
    if (r->parser.error == YAML_READER_ERROR)        /* has no mark, only a byte                                           */
        return MDR_ERR_USER("%s: byte %zu: %s", r->name, r->parser.problem_offset, what);
    return error_at(r->name, m, what);
}

static Err *refuse_extras(const Reader *r, const yaml_char_t *anchor, const yaml_char_t *tag) {
    if (anchor) return here(r, "anchors are not read");
    if (tag) return here(r, "tags are not read");
    return NULL;
}

/* The text of the current scalar event, in the arena. */
static Err *scalar(Reader *r, const char **text) {
    MDR_TRY(refuse_extras(r, r->event.data.scalar.anchor, r->event.data.scalar.tag));
    const char *s = (const char *)r->event.data.scalar.value;
    size_t n = r->event.data.scalar.length;
    if (memchr(s, 0, n)) return here(r, "a NUL character in text");
    *text = mdr_arena_copy(r->a, s, n + 1);
    return NULL;
}

static Err *node(Reader *r, int depth, Yaml **out);

static void grow(Reader *r, Yaml *y, int32_t *cap) {
    if (y->n < *cap) return;
    int32_t n = *cap ? *cap * 2 : 4;
    Yaml **item = mdr_arena_alloc(r->a, (size_t)n * sizeof *item);
    if (y->n) memcpy(item, y->item, (size_t)y->n * sizeof *item);
    y->item = item;
    if (y->kind == MDR_YAML_MAP) {
        const char **key = mdr_arena_alloc(r->a, (size_t)n * sizeof *key);
        if (y->n) memcpy(key, y->key, (size_t)y->n * sizeof *key);
        y->key = key;
    }
    *cap = n;
}

static Err *map_key(Reader *r, Yaml *y) {
    if (r->event.type == YAML_ALIAS_EVENT) return here(r, "aliases are not read");
    if (r->event.type != YAML_SCALAR_EVENT) return here(r, "a key must be plain text");
    const char *key;
    MDR_TRY(scalar(r, &key));
    for (int32_t i = 0; i < y->n; i++)
        if (strcmp(y->key[i], key) == 0)
            return mdr_err_wrap(MDR_ERR_USER("key `%s` is given twice, first in line %d", key, y->item[i]->line), "%s:%zu:%zu",
                                r->name, r->event.start_mark.line + 1, r->event.start_mark.column + 1);
    if (y->n >= KEYS) return here(r, "more than 1000 keys in one map");
    y->key[y->n] = key;
    return NULL;
}

/* Children up to the end event; the current event is the start. */
static Err *children(Reader *r, int depth, Yaml *y, yaml_event_type_t end) {
    int32_t cap = 0;
    for (;;) {
        MDR_TRY(advance(r));
        if (r->event.type == end) return NULL;
        grow(r, y, &cap);
        if (y->kind == MDR_YAML_MAP) {
            MDR_TRY(map_key(r, y));
            MDR_TRY(advance(r));
        }
        MDR_TRY(node(r, depth + 1, &y->item[y->n]));
        y->n++;
    }
}

static Err *node(Reader *r, int depth, Yaml **out) {
    if (depth > DEPTH) return here(r, "nested more than 32 deep");
    if (++r->nodes > NODES) return here(r, "more than 100000 values");
    Yaml *y = mdr_arena_alloc(r->a, sizeof *y);
    y->line = (int32_t)r->event.start_mark.line + 1;
    y->column = (int32_t)r->event.start_mark.column + 1;
    *out = y;
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        y->kind = MDR_YAML_SCALAR;
        return scalar(r, &y->text);
    case YAML_SEQUENCE_START_EVENT:
        y->kind = MDR_YAML_SEQ;
        MDR_TRY(refuse_extras(r, r->event.data.sequence_start.anchor, r->event.data.sequence_start.tag));
        return children(r, depth, y, YAML_SEQUENCE_END_EVENT);
    case YAML_MAPPING_START_EVENT:
        y->kind = MDR_YAML_MAP;
        MDR_TRY(refuse_extras(r, r->event.data.mapping_start.anchor, r->event.data.mapping_start.tag));
        return children(r, depth, y, YAML_MAPPING_END_EVENT);
    case YAML_ALIAS_EVENT: return here(r, "aliases are not read");
    default: return here(r, "a value is missing");
    }
}

static Err *document(Reader *r, Yaml **out) {
    MDR_TRY(advance(r));                             /* stream start                                                      */
    MDR_TRY(advance(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return MDR_ERR_USER("%s: is empty", r->name);
    MDR_TRY(advance(r));                             /* past document start                                               */
    MDR_TRY(node(r, 1, out));
    MDR_TRY(advance(r));                             /* document end                                                      */
    MDR_TRY(advance(r));
    if (r->event.type != YAML_STREAM_END_EVENT) return here(r, "a second document");
    return NULL;
}

Err *mdr_yaml_parse(Arena *a, const char *text, size_t n, const char *name, Yaml **out) {
    *out = NULL;
    if (n > MAX_BYTES) return MDR_ERR_USER("%s: is larger than %zu bytes", name, MAX_BYTES);
    Reader r = {.a = a, .name = name};
    if (!yaml_parser_initialize(&r.parser)) return MDR_ERR_MACHINE("%s: not enough memory to read it", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    Yaml *tree = NULL;
    Err *e = document(&r, &tree);
    if (r.held) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (!e) *out = tree;
    return e;
}

Err *mdr_yaml_load(Arena *a, const char *path, Yaml **out) {
    char *text;
    size_t n;
    *out = NULL;
    MDR_TRY(mdr_file_read(path, MAX_BYTES, &text, &n));
    Err *e = mdr_yaml_parse(a, text, n, path, out);
    mdr_free(text);
    return e;
}

const Yaml *mdr_yaml_get(const Yaml *map, const char *key) {
    if (!map || map->kind != MDR_YAML_MAP) return NULL;
    for (int32_t i = 0; i < map->n; i++)
        if (strcmp(map->key[i], key) == 0) return map->item[i];
    return NULL;
}
