/* store: the results database (SQLite, WAL, synchronous=FULL). Trials are content-addressed by their key; a stored trial is
 * finished and never changes. Invariants are numbered in store.c. It knows nothing of protocols or scores. */
#ifndef MDR_STORE_H
#define MDR_STORE_H
#include "train/train.h"

typedef struct StoreTrial {
    const char *key;                      /* 64 hex digits                                                                */
    const char *spec;                     /* the hashed spec text                                                         */
    const char *architecture;             /* printed form                                                                 */
    const char *label;                    /* or ""                                                                        */
    const char *task;
    const char *class_name;               /* instruction class                                                            */
    int64_t numerics, seed;
    int64_t params, state;
    double flops;
    int64_t created;                      /* seconds since 1970; 0: now                                                   */
    TrialResult result;
} StoreTrial;

typedef struct Store Store;
/* NULL path: $MADRAS_STORE, else $XDG_STATE_HOME/madras/trials.db, else ~/.local/state/madras/trials.db; folders are made.
 * Refused, each with one sentence: not a store, one of another format, damaged, unreadable, on a network file system. */
MDR_API Err *mdr_store_open(const char *path, bool create, Store **s);
MDR_API bool mdr_store_exists(const char *path);                 /* is there a file at the place mdr_store_open would use */
MDR_API void mdr_store_close(Store *s);
MDR_API const char *mdr_store_path(const Store *s);
MDR_API Err *mdr_store_put(Store *s, const StoreTrial *t);        /* one durable transaction; an existing key is left as it is */
MDR_API Err *mdr_store_get(Store *s, Arena *a, const char *key, StoreTrial **t);   /* NULL if absent; lives in the arena   */
/* All trials whose key starts with prefix ("" = all), oldest first. */
MDR_API Err *mdr_store_list(Store *s, Arena *a, const char *prefix, int32_t *n, StoreTrial ***t);
/* The classes of its trials that start with prefix, in alphabetical order; at most 16. */
MDR_API Err *mdr_store_classes(Store *s, Arena *a, const char *prefix, int32_t *n, const char ***name);
/* Trials of an architecture (printed form) and class that other versions of numerics made, which no key of this program finds; latest: of
 * those versions. */
MDR_API Err *mdr_store_outdated(Store *s, const char *architecture, const char *class_name, int32_t *n, int64_t *latest);
#endif
