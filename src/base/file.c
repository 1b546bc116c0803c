/* Files: read one whole, replace one atomically.
 * INVARIANTS of mdr_file_write_atomic: 1. at every moment the path holds the old file or the new one, whole. 2. When it returns
 * without an error the new one is on the disk, its name too. 3. On an error the old file is untouched and no scratch stays. */
#include "base/base.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Err *mdr_file_read(const char *path, size_t max, char **text, size_t *n) {
    *text = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return MDR_ERR_USER("%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return MDR_ERR_USER("%s: is a folder, not a file", path);
    }
    size_t cap = 4096, have = 0;
    char *s = mdr_alloc(cap + 1);
    for (;;) {                                       /* sizes lie for pipes and /proc: read until the end                  */
        ssize_t got = read(fd, s + have, cap - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 || have + (size_t)got > max) {
            Err *e = got < 0 ? MDR_ERR_MACHINE("%s: cannot be read: %s", path, strerror(errno))
                             : MDR_ERR_USER("%s: is larger than %zu bytes", path, max);
            close(fd);
            mdr_free(s);
            return e;
        }
        if (got == 0) break;
        have += (size_t)got;
        if (have == cap) s = mdr_realloc(s, (cap *= 2) + 1);
    }
    close(fd);
    s[have] = 0;
    *text = s;
    *n = have;
    return NULL;
}

static int write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

/* A new file beside path, with the rights path has or a new file would get. */
static int open_beside(const char *path, Text *name) {
    struct stat st;
    bool was = stat(path, &st) == 0;
    for (int i = 0; i < 100; i++) {
        mdr_text_clear(name);
        mdr_text_printf(name, "%s.%ld-%d.new", path, (long)getpid(), i);
        int fd = open(mdr_text_str(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 && was && fchmod(fd, st.st_mode & 07777) != 0) return fd;   /* rights are a courtesy                    */
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

static int sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    Text dir = {0};
    if (!slash) mdr_text_add(&dir, ".", 1);
    else mdr_text_add(&dir, path, slash == path ? 1 : (size_t)(slash - path));
    int fd = open(mdr_text_str(&dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mdr_text_free(&dir);
    if (fd < 0) return -1;
    int rc = fsync(fd);
    if (rc != 0 && (errno == EINVAL || errno == EROFS)) rc = 0;         /* a file system without the notion                */
    int keep = errno;
    close(fd);
    errno = keep;
    return rc;
}

Err *mdr_file_write_atomic(const char *path, const void *p, size_t n) {
    Text name = {0};
    Err *e = NULL;
    int fd = open_beside(path, &name);
    if (fd < 0) {
        e = MDR_ERR_MACHINE("%s: cannot be written: %s", path, strerror(errno));
        mdr_text_free(&name);
        return e;
    }
    bool bad = write_all(fd, p, n) != 0 || fsync(fd) != 0;
    int why = errno;
    if (close(fd) != 0 && !bad) bad = true, why = errno;
    if (!bad && rename(mdr_text_str(&name), path) != 0) bad = true, why = errno;
    if (bad) {
        unlink(mdr_text_str(&name));
        e = MDR_ERR_MACHINE("%s: cannot be written: %s", path, strerror(why));
    } else if (sync_folder(path) != 0) {
        e = MDR_ERR_MACHINE("%s: is written, but its folder cannot be synchronised: %s", path, strerror(errno));
    }
    mdr_text_free(&name);
    return e;
}
