/* SHA-256 (libmd) as text, and its first eight bytes as the seed of a stream. */
#include "base/base.h"
#include <sha256.h>
#include <string.h>

static void digest(const void *p, size_t n, uint8_t out[SHA256_DIGEST_LENGTH]) {
    SHA256_CTX c;
    SHA256Init(&c);
    if (n) SHA256Update(&c, p, n);
    SHA256Final(out, &c);
}

void mdr_sha256(const void *p, size_t n, char hex[65]) {
    static const char digit[] = "0123456789abcdef";
    uint8_t d[SHA256_DIGEST_LENGTH];
    digest(p, n, d);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digit[d[i] >> 4];
        hex[2 * i + 1] = digit[d[i] & 15];
    }
    hex[64] = 0;
}

uint64_t mdr_hash64(const char *text) {
    uint8_t d[SHA256_DIGEST_LENGTH];
    uint64_t h = 0;
    digest(text, strlen(text), d);
    for (int i = 0; i < 8; i++) h = h << 8 | d[i];
    return h;
}
