#include "deploy/cli/hub_blob.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_hash_sha256.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 5, FIRST_WAIT_MS = 250, HEX = 64 };

/* The file as it grows. */
struct part {
    const struct hub_blob *b;
    char *path; /* blobs/<etag>.incomplete */
    int fd, error;
    uint64_t n;        /* bytes in the file */
    uint64_t n_hashed; /* of them, what the hash has seen */
    crypto_hash_sha256_state hash;
    bool is_hashed, is_too_long;
};

bool hub_wait(int i) {
    if (i + 1 >= TRIES) return false;
    long ms = (long)FIRST_WAIT_MS << i;
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
    return !by_proc_should_stop();
}

/* ---- the sink ---- */

static int cut_to_nothing(struct part *p) {
    if (ftruncate(p->fd, 0)) {
        p->error = errno;
        return -1;
    }
    progress_back(p->b->bar, p->n);
    p->n = p->n_hashed = 0;
    crypto_hash_sha256_init(&p->hash);
    return 0;
}

static int begin(void *ctx, uint64_t from) {
    struct part *p = ctx;
    if (from == p->n) return 0;
    return cut_to_nothing(p); /* this server does not know Range */
}

static int take(void *ctx, const char *bytes, size_t n) {
    struct part *p = ctx;
    if (p->b->size >= 0 && n > (uint64_t)p->b->size - p->n) {
        p->is_too_long = true;
        return -1;
    }
    if (p->is_hashed) crypto_hash_sha256_update(&p->hash, (const unsigned char *)bytes, n);
    for (size_t put = 0; put < n;) {
        ssize_t got = pwrite(p->fd, bytes + put, n - put, (off_t)(p->n + put));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            p->error = errno;
            return -1;
        }
        put += (size_t)got;
    }
    p->n += n;
    p->n_hashed += n;
    progress_add(p->b->bar, n);
    return 0;
}

/* ---- what an earlier start left ---- */

static int hash_what_is_there(struct part *p, struct by_err *err) {
    unsigned char block[65536];
    crypto_hash_sha256_init(&p->hash);
    for (p->n_hashed = 0; p->n_hashed < p->n;) {
        ssize_t got = pread(p->fd, block, sizeof block, (off_t)p->n_hashed);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return by_fail(err, BY_EIO, "%s: cannot be read: %m", p->path);
        crypto_hash_sha256_update(&p->hash, block, (unsigned long long)got);
        p->n_hashed += (uint64_t)got;
    }
    return 0;
}

static int open_part(struct part *p, struct by_err *err) {
    struct stat st;
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (p->fd < 0 || fstat(p->fd, &st))
        return by_fail(err, BY_EIO, "%s: cannot be written: %m; HF_HUB_CACHE names another folder",
                       p->path);
    p->n = (uint64_t)st.st_size;
    if (p->b->size >= 0 && p->n > (uint64_t)p->b->size) {
        if (ftruncate(p->fd, 0)) return by_fail(err, BY_EIO, "%s: %m", p->path);
        p->n = 0;
    }
    progress_skip(p->b->bar, p->n);
    return p->is_hashed ? hash_what_is_there(p, err) : 0;
}

/* ---- fetching ---- */

static int fail_disk(const struct part *p, struct by_err *err) {
    char left[24];
    progress_bytes(left, sizeof left, p->b->size < 0 ? 0 : (uint64_t)p->b->size - p->n);
    if (p->error == ENOSPC || p->error == EDQUOT || p->error == EFBIG)
        return by_fail(err, BY_EIO,
                       "%s has no room left (%s), %s of %.*s are missing; make room and start "
                       "again, or name another folder with HF_HUB_CACHE",
                       p->b->cache->root, strerror(p->error), left, (int)p->b->name.n,
                       p->b->name.p);
    return by_fail(err, BY_EIO, "%s: cannot be written: %s", p->path, strerror(p->error));
}

static int transfer(struct part *p, struct by_err *err) {
    const struct hub_sink sink = {.ctx = p, .begin = begin, .take = take};
    int rc = 0;
    for (int i = 0; p->b->size < 0 || p->n < (uint64_t)p->b->size; i++) {
        uint64_t before = p->n;
        rc = hub_http_download(p->b->http, p->b->path, p->b->repo, p->n, &sink, err);
        if (p->error) return fail_disk(p, err);
        if (p->is_too_long)
            return by_fail(err, BY_EFORMAT,
                           "%.*s: the Hub sends more than the %lld bytes it announced",
                           (int)p->b->name.n, p->b->name.p, (long long)p->b->size);
        if (!rc && p->b->size < 0) return 0;
        if (!rc && p->n < (uint64_t)p->b->size)
            rc = by_fail(err, BY_EAGAIN, "%.*s: the transfer ended early; try again",
                         (int)p->b->name.n, p->b->name.p);
        if (rc && rc != BY_EAGAIN) return rc;
        if (p->n > before) i = 0; /* it moves */
        if (rc && !hub_wait(i)) return rc;
    }
    return rc == BY_EAGAIN ? 0 : rc;
}

static bool is_right(struct part *p) {
    unsigned char digest[crypto_hash_sha256_BYTES];
    char text[HEX + 1];
    if (!p->is_hashed) return true;
    crypto_hash_sha256_final(&p->hash, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return strcmp(text, p->b->etag) == 0;
}

static int finish(struct part *p, struct by_err *err) {
    char *blob = hub_cache_blob(p->b->cache, p->b->etag, "");
    int rc = 0;
    if (fsync(p->fd) || rename(p->path, blob))
        rc = by_fail(err, BY_EIO, "%s: cannot be put in place: %m", blob);
    by_free(blob);
    return rc;
}

static bool is_sha256(const char *s) {
    return strlen(s) == HEX && strspn(s, "0123456789abcdef") == HEX;
}

int hub_blob_fetch(const struct hub_blob *b, struct by_err *err) {
    struct part p = {.b = b,
                     .path = hub_cache_blob(b->cache, b->etag, ".incomplete"),
                     .fd = -1,
                     .is_hashed = is_sha256(b->etag)};
    int rc = open_part(&p, err);
    for (int i = 0; !rc; i++) {
        rc = transfer(&p, err);
        if (rc || is_right(&p)) break;
        by_warn("%.*s does not have the SHA-256 that the Hub says", (int)b->name.n, b->name.p);
        if (cut_to_nothing(&p)) rc = fail_disk(&p, err);
        if (!rc && i == 1) {
            unlink(p.path);
            rc = by_fail(
                err, BY_EFORMAT,
                "%.*s of %.*s came broken twice: its SHA-256 is not %s; what stands between "
                "here and %s changes it",
                (int)b->name.n, b->name.p, (int)b->repo.n, b->repo.p, b->etag,
                hub_http_endpoint(b->http));
        }
    }
    if (!rc) rc = finish(&p, err);
    if (p.fd >= 0) close(p.fd);
    by_free(p.path);
    return rc;
}
