/* store's own. */
#ifndef MDR_STORE_INTERNAL_H
#define MDR_STORE_INTERNAL_H
#include "store/store.h"
#include <sqlite3.h>

struct Store { sqlite3 *db; char *path; bool writable; };
Err *mdr_store_error(sqlite3 *db, const char *path, int rc); /* the last failure as one sentence             */
Err *mdr_store_exec(sqlite3 *db, const char *path, const char *sql);

/* place.c: where stores lie. */
Err *mdr_store_place(const char *path, Text *out); /* path, or the default                         */
Err *mdr_store_make_folder(const char *path);      /* all folders above the file path              */
/* Refuses network file systems, where SQLite's shared memory and locks do not hold. */
Err *mdr_store_refuse_network(const char *path);
/* By statfs's number and, for FUSE, the type in mountinfo ("fuse.sshfs"): the file system's name, or NULL if it is a
 * local one. */
const char *mdr_store_network_name(uint32_t magic, const char *type);
/* The type of the mount of device major:minor in the text of /proc/self/mountinfo; "" if none. */
void mdr_store_mount_type(const char *mountinfo, unsigned major, unsigned minor, char type[64]);
#endif
