/* A main for the fuzz targets of test/fuzz without libFuzzer: runs each file of the folder (or file) given, and its cut and
 * bent variants from a fixed seed, through LLVMFuzzerTestOneInput. Prints "ok N files". */
#include "base/base.h"
#include <dirent.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
enum { BENDS = 200 };

/* A copy of exactly size bytes, so that a sanitizer sees a read past the end. */
static void once(const uint8_t *data, size_t size) {
    uint8_t *copy = mdr_alloc(size ? size : 1);
    if (size) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    mdr_free(copy);
}

static void bent(const uint8_t *data, size_t size, Rng *r) {
    uint8_t *copy = mdr_alloc(size + 1);
    memcpy(copy, data, size);
    for (int i = 0; i < BENDS && size > 0; i++) {
        uint32_t at = mdr_rng_below(r, (uint32_t)size), kind = mdr_rng_below(r, 4);
        if (kind == 0) copy[at] = (uint8_t)mdr_rng_u32(r);
        else if (kind == 1) copy[at] ^= (uint8_t)(1u << mdr_rng_below(r, 8));
        else if (kind == 2) copy[at] = copy[mdr_rng_below(r, (uint32_t)size)];
        once(copy, kind == 3 ? at : size);
        if (i % 8 == 7) memcpy(copy, data, size);
    }
    mdr_free(copy);
}

static int replay(const char *path) {
    char *text;
    size_t n;
    Err *e = mdr_file_read(path, (size_t)1 << 24, &text, &n);
    if (e) {
        fprintf(stderr, "%s\n", mdr_err_text(e));
        mdr_err_free(e);
        return -1;
    }
    Rng r = mdr_rng(1, n);
    once((const uint8_t *)text, n);
    if (n < 65536) bent((const uint8_t *)text, n, &r);
    mdr_free(text);
    return 1;
}

int main(int argc, char **argv) {
    int files = 0, bad = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            if (replay(argv[i]) > 0) files++;
            else bad++;
            continue;
        }
        for (struct dirent *x; (x = readdir(d));) {
            if (x->d_name[0] == '.') continue;
            Text path = {0};
            mdr_text_printf(&path, "%s/%s", argv[i], x->d_name);
            if (replay(mdr_text_str(&path)) > 0) files++;
            else bad++;
            mdr_text_free(&path);
        }
        closedir(d);
    }
    if (files == 0 || bad > 0) return 1;
    printf("ok %d files\n", files);
    return 0;
}
