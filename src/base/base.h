/* base: what every room stands on: errors as values, arenas, text, counter-based random numbers, hashing, parameter tables,
 * YAML reading, clock, worker pool. It knows nothing of graphs or models.
 *
 * ERRORS. A function that can fail returns Err * (NULL = success). The caller owns it: return it (MDR_TRY), wrap it
 * (mdr_err_wrap) or free it. An Err holds its code, the source line where it was born and one sentence for the user.
 * MEMORY. Big data (arenas of a plan, batches) is asked for with mdr_alloc_big and its failure is an Err. Small descriptions
 * (nodes, strings) come from arenas and mdr_alloc; when those fail, the process ends through one handler that says so. */
#ifndef MDR_BASE_H
#define MDR_BASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MDR_API __attribute__((visibility("default")))
#define MDR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MDR_COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors ---- */
typedef struct Err Err;
typedef enum ErrCode { MDR_OK = 0, MDR_MACHINE = 1, MDR_USER = 2, MDR_STOPPED = 130 } ErrCode;   /* = exit codes          */
MDR_API Err *mdr_err_new(ErrCode code, const char *file, int line, const char *fmt, ...) MDR_PRINTF(4, 5);
#define MDR_ERR_USER(...) mdr_err_new(MDR_USER, __FILE__, __LINE__, __VA_ARGS__)          /* the user's input             */
#define MDR_ERR_MACHINE(...) mdr_err_new(MDR_MACHINE, __FILE__, __LINE__, __VA_ARGS__)    /* ours or the machine's        */
MDR_API Err *mdr_err_wrap(Err *e, const char *fmt, ...) MDR_PRINTF(2, 3);   /* "<fmt>: <old sentence>"; NULL stays NULL   */
MDR_API const char *mdr_err_text(const Err *e);
MDR_API ErrCode mdr_err_code(const Err *e);
MDR_API const char *mdr_err_born(const Err *e);                            /* "src/ir/grad.c:123"                        */
MDR_API void mdr_err_free(Err *e);
#define MDR_TRY(call) do { Err *mdr_e_ = (call); if (mdr_e_) return mdr_e_; } while (0)

/* ---- memory ---- */
typedef struct Arena Arena;                                  /* many small pieces, freed together                        */
MDR_API Arena *mdr_arena_new(void);
MDR_API void mdr_arena_free(Arena *a);                       /* NULL is fine                                             */
MDR_API void *mdr_arena_alloc(Arena *a, size_t bytes);       /* zeroed, 16-byte aligned                                  */
MDR_API char *mdr_arena_strdup(Arena *a, const char *s);
MDR_API char *mdr_arena_printf(Arena *a, const char *fmt, ...) MDR_PRINTF(2, 3);
MDR_API void *mdr_arena_copy(Arena *a, const void *p, size_t bytes);
MDR_API void *mdr_alloc(size_t bytes);                       /* zeroed; never NULL; free with mdr_free                   */
MDR_API void *mdr_realloc(void *p, size_t bytes);            /* never NULL                                               */
MDR_API char *mdr_strdup(const char *s);
MDR_API void mdr_free(void *p);
MDR_API Err *mdr_alloc_big(size_t bytes, void **out);        /* 64-byte aligned (huge pages where possible), not touched  */
MDR_API void mdr_free_big(void *p);
MDR_API void mdr_set_oom_handler(void (*f)(size_t bytes));   /* must not return                                          */

/* ---- text ---- */
typedef struct Text { char *s; size_t n, cap; } Text;        /* growing string, always terminated; {0} is empty          */
MDR_API void mdr_text_printf(Text *t, const char *fmt, ...) MDR_PRINTF(2, 3);
MDR_API void mdr_text_add(Text *t, const char *s, size_t n);
MDR_API void mdr_text_clear(Text *t);
MDR_API void mdr_text_free(Text *t);
MDR_API const char *mdr_text_str(const Text *t);             /* "" when empty                                            */
/* The nearest of names (NULL-terminated) by edit distance, or NULL if none is near. */
MDR_API const char *mdr_text_nearest(const char *word, const char *const *names);
/* The user's name is none of names: "<what> `name`; did you mean `near`?", and where none is near "<what> `name`; <see>". see NULL:
 * "there are a, b, c"; "": nothing. */
#define MDR_ERR_UNKNOWN(...) mdr_err_unknown(__FILE__, __LINE__, __VA_ARGS__)
MDR_API Err *mdr_err_unknown(const char *file, int line, const char *what, const char *name, const char *const *names, const char *see);
MDR_API bool mdr_text_to_int(const char *s, int64_t *v);     /* whole string, decimal; "1e3" and "12_800" are accepted   */
MDR_API bool mdr_text_to_real(const char *s, double *v);     /* whole string; finite; locale is never used                */
MDR_API const char *mdr_text_real(double v, char buf[32]);   /* shortest text that reads back to v: "0.0005", "1e-06"     */

/* ---- random numbers: Philox4x32-10 (Salmon et al. 2011): value = f(seed, stream, index) ---- */
typedef struct Rng { uint64_t seed, stream, index; uint32_t buf[4]; int32_t left; } Rng;
MDR_API void mdr_rng_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
MDR_API Rng mdr_rng(uint64_t seed, uint64_t stream);
MDR_API uint32_t mdr_rng_u32(Rng *r);
MDR_API uint32_t mdr_rng_below(Rng *r, uint32_t n);          /* uniform in 0..n-1, unbiased (rejection); n >= 1           */
MDR_API double mdr_rng_unit(Rng *r);                         /* [0, 1), 32 bits                                          */
MDR_API double mdr_rng_normal(Rng *r);                       /* Box-Muller in double by our own log, cos: same bits everywhere */
MDR_API void mdr_rng_shuffle(Rng *r, int32_t *v, int32_t n); /* Fisher-Yates                                             */

/* ---- hashing ---- */
MDR_API void mdr_sha256(const void *p, size_t n, char hex[65]);
MDR_API uint64_t mdr_hash64(const char *text);               /* first 8 bytes of the SHA-256, big endian: seeds of streams */

/* ---- parameter tables: one row feeds parser, help, defaults, canonical text and bounds ---- */
typedef enum ParamType { MDR_INT, MDR_REAL, MDR_BOOL, MDR_WORD } ParamType;   /* stored as int32_t, double, int32_t, int32_t */
typedef struct Param {
    const char *name;
    ParamType type;
    size_t offset;                                           /* of the field in the struct                                */
    double def, lo, hi;                                      /* bounds inclusive; WORD: def = index                       */
    const char *words;                                       /* WORD: "a|b|c", value = index                              */
    const char *help;                                        /* one line                                                  */
} Param;                                                     /* a table ends with name == NULL                            */
MDR_API void mdr_params_default(const Param *t, void *dst);
MDR_API const Param *mdr_params_find(const Param *t, const char *name);
/* Sets one field from text. what: the owner in messages ("layer 3 `hyena`"). Errors: unknown key (nearest named), not a
 * number, out of bounds (bounds named). */
MDR_API Err *mdr_params_set(const Param *t, void *dst, const char *key, const char *value, const char *what);
MDR_API void mdr_params_text(const Param *p, const void *src, Text *t);       /* value only, canonical                    */
MDR_API double mdr_params_get(const Param *p, const void *src);

/* ---- YAML (libyaml), read into a tree; line and column count from 1 ---- */
typedef enum YamlKind { MDR_YAML_SCALAR, MDR_YAML_SEQ, MDR_YAML_MAP } YamlKind;
typedef struct Yaml {
    YamlKind kind;
    const char *text;                                        /* scalar                                                    */
    int32_t n;                                               /* children                                                  */
    const char **key;                                        /* map: n keys, duplicates refused                            */
    struct Yaml **item;                                      /* n                                                         */
    int32_t line, column;
} Yaml;
MDR_API Err *mdr_yaml_parse(Arena *a, const char *text, size_t n, const char *name, Yaml **out); /* name: for messages    */
MDR_API Err *mdr_yaml_load(Arena *a, const char *path, Yaml **out);
MDR_API const Yaml *mdr_yaml_get(const Yaml *map, const char *key);            /* NULL if none                             */

/* ---- files ---- */
MDR_API Err *mdr_file_read(const char *path, size_t max, char **text, size_t *n);   /* free with mdr_free; NUL added      */
MDR_API Err *mdr_file_write_atomic(const char *path, const void *p, size_t n);      /* temp, fsync, rename, fsync dir     */

/* ---- clock, machine, workers ---- */
MDR_API double mdr_clock(void);                              /* seconds, monotonic                                        */
MDR_API int mdr_cpu_count(void);                             /* by affinity and the container's CPU quota (cgroup v1, v2), >= 1 */
MDR_API bool mdr_cpu_avx2(void);                             /* AVX2 and FMA; MADRAS_CLASS=plain turns it off             */
MDR_API const char *mdr_cpu_class(void);                     /* "avx2-fma" or "plain": enters every key                   */
typedef struct Pool Pool;                                    /* n workers, the caller is worker 0                         */
MDR_API Err *mdr_pool_open(int n, Pool **p);
MDR_API int mdr_pool_size(const Pool *p);
/* Runs job(ctx, worker) once on every worker and returns when all have. Denormals are flushed in each for its duration.
 * Waits by spinning briefly, then sleeping. Not reentrant. */
MDR_API void mdr_pool_run(Pool *p, void (*job)(void *ctx, int worker), void *ctx);
MDR_API void mdr_pool_close(Pool *p);
MDR_API uint32_t mdr_fp_enter(void);                         /* flush denormals on this thread; returns the old state     */
MDR_API void mdr_fp_leave(uint32_t state);

#define MDR_NUMERICS 5                                       /* version of everything that fixes bits; enters every key    */
#define MDR_VERSION "0.1.0"
#ifdef __cplusplus
}
#endif
#endif
