/* Where a store lies: the default path, its folders, and the file systems on which it may not lie. */
#include "store/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *variable(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

Err *mdr_store_place(const char *path, Text *out) {
    const char *state = variable("XDG_STATE_HOME"), *home = variable("HOME"), *own = variable("MADRAS_STORE");
    if (path && path[0]) mdr_text_printf(out, "%s", path);
    else if (own) mdr_text_printf(out, "%s", own);
    else if (state && state[0] == '/')
        mdr_text_printf(out, "%s/madras/trials.db", state); /* relative: void, by XDG     */
    else if (home) mdr_text_printf(out, "%s/.local/state/madras/trials.db", home);
    else
        return MDR_ERR_USER("where trials are stored is unknown: neither MADRAS_STORE nor XDG_STATE_HOME nor HOME is "
                            "set; give --store FILE");
    return NULL;
}

bool mdr_store_exists(const char *path) {
    Text place = {0};
    Err *e = mdr_store_place(path, &place);
    bool there = !e && access(mdr_text_str(&place), F_OK) == 0;
    mdr_err_free(e);
    mdr_text_free(&place);
    return there;
}

Err *mdr_store_make_folder(const char *path) {
    char *s = mdr_strdup(path);
    Err *e = NULL;
    for (char *p = strchr(s + 1, '/'); p && !e; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(s, 0777) != 0 && errno != EEXIST && errno != EISDIR) {
            int why = errno;
            struct stat st; /* a folder above may exist and refuse                                */
            if (stat(s, &st) != 0) e = MDR_ERR_USER("%s: the folder %s cannot be made: %s", path, s, strerror(why));
        }
        *p = '/';
    }
    mdr_free(s);
    return e;
}

typedef struct FileSystem { uint32_t magic; const char *name; } FileSystem;
static const FileSystem network[] = {
    {0x6969, "NFS"},       {0x517b, "SMB"},        {0xff534d42, "CIFS"},  {0xfe534d42, "SMB2"},
    {0x73757245, "Coda"},  {0x5346414f, "AFS"},    {0x6b414653, "AFS"},   {0x564c, "NCP"},
    {0x00c36400, "Ceph"},  {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},  {0x19830326, "BeeGFS"},
    {0xaad7aaea, "PanFS"}, {0x01161970, "GFS2"},   {0x7461636f, "OCFS2"}, {0x20030528, "OrangeFS"}};
static const char *const fuse[] = {
    "sshfs",     "s3fs",      "rclone",  "glusterfs", "gcsfuse",   "ceph-fuse", "ceph",  "davfs",         "davfs2",
    "curlftpfs", "beegfs",    "juicefs", "JuiceFS",   "seaweedfs", "moosefs",   "mfs",   "mountpoint-s3", "goofys",
    "blobfuse",  "blobfuse2", "afpfs",   "smbnetfs",  "nfs",       "hdfs",      "cvmfs2"};
enum { FUSE_MAGIC = 0x65735546 };

const char *mdr_store_network_name(uint32_t magic, const char *type) {
    for (int i = 0; i < MDR_COUNT(network); i++)
        if (network[i].magic == magic) return network[i].name;
    if (magic != FUSE_MAGIC || strncmp(type, "fuse.", 5) != 0) return NULL;
    for (int i = 0; i < MDR_COUNT(fuse); i++)
        if (strcmp(type + 5, fuse[i]) == 0) return fuse[i];
    return NULL;
}

/* A line: "36 35 98:0 / /mnt rw,noatime master:1 - fuse.sshfs host:/dir rw". */
void mdr_store_mount_type(const char *text, unsigned major_number, unsigned minor_number, char type[64]) {
    type[0] = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        unsigned a, b;
        size_t n = strcspn(line, "\n");
        const char *dash = strstr(line, " - ");
        if (sscanf(line, "%*u %*u %u:%u", &a, &b) != 2 || a != major_number || b != minor_number) continue;
        if (!dash || dash > line + n) continue;
        snprintf(type, 64, "%.*s", (int)strcspn(dash + 3, " \n"), dash + 3);
        return;
    }
}

Err *mdr_store_refuse_network(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? mdr_strdup(path) : mdr_strdup(".");
    if (slash) dir[slash == path ? 1 : slash - path] = 0;
    struct statfs fs;
    struct stat st;
    char type[64] = "";
    const char *name = NULL;
    if (statfs(dir, &fs) == 0) {
        char *text = NULL;
        size_t n;
        if ((uint32_t)fs.f_type == FUSE_MAGIC && stat(dir, &st) == 0) {
            Err *e = mdr_file_read("/proc/self/mountinfo", (size_t)1 << 24, &text, &n);
            if (!e) mdr_store_mount_type(text, major(st.st_dev), minor(st.st_dev), type);
            mdr_err_free(e);
            mdr_free(text);
        }
        name = mdr_store_network_name((uint32_t)fs.f_type, type);
    }
    mdr_free(dir);
    return name ? MDR_ERR_USER(
                      "%s: lies on a network file system (%s), where a store is not safe: put it on a local disk", path,
                      name)
                : NULL;
}
