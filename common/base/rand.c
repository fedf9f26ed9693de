#include "common/base/rand.h"

#include "common/base/check.h"

#include <errno.h>
#include <sys/random.h>

enum { ROUNDS = 10 };

void by_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0];
        uint64_t b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
        for (int j = 0; j < 4; j++)
            c[j] = next[j];
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (int j = 0; j < 4; j++)
        out[j] = c[j];
}

uint64_t by_rand_word(uint64_t seed, uint32_t position, uint32_t sample, uint32_t purpose) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {position, sample, purpose, 0};
    uint32_t out[4];
    by_philox(counter, key, out);
    return (uint64_t)out[0] << 32 | out[1];
}

void by_rand_bytes(void *out, size_t n) {
    char *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) by_die("the system gives no random bytes (getrandom failed)");
        p += got;
        n -= (size_t)got;
    }
}

uint64_t by_rand_u64(void) {
    uint64_t v;
    by_rand_bytes(&v, sizeof v);
    return v;
}
