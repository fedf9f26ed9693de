/* hub_blob.h - one file's content into the cache: taken up where it broke off, checked, then put in place.
 *
 *     blobs/<etag>.incomplete ─ bytes … cut ─ Range … whole ─▶ size, SHA-256 ─▶ blobs/<etag>
 *
 * The name of large (LFS) content is its SHA-256, which is computed as the bytes come; of small files only the size is
 * known. The one door to libsodium here.
 * Always: blobs/<etag> holds what the Hub says it holds, or is not there. A broken transfer is tried again as long as
 * each try brings bytes; content that does not match is thrown away and fetched once more.
 * Owner: the cli, one thread; the caller holds the lock of this etag. */
#ifndef DEPLOY_CLI_HUB_BLOB_H
#define DEPLOY_CLI_HUB_BLOB_H

#include "deploy/cli/hub_cache.h"
#include "deploy/cli/hub_http.h"
#include "deploy/cli/progress.h"

struct hub_blob {
    const struct hub_cache *cache;
    struct hub_http *http;
    struct progress *bar;
    struct by_str repo, name; /* for the sentences */
    const char *path;         /* of the URL */
    const char *etag;
    int64_t size; /* -1: not said */
};
BY_MUST_USE int hub_blob_fetch(const struct hub_blob *b, struct by_err *err);

/* Waits before try number i of something that failed with BY_EAGAIN. False: enough tries, or we are to stop. */
BY_MUST_USE bool hub_wait(int i);

#endif
