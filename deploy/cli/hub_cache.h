/* hub_cache.h - the Hub's cache folder, shared with Python's huggingface_hub.
 *
 *     $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub
 *       models--org--name/refs/main                   "<commit>"
 *       models--org--name/blobs/<etag>                content; <etag>.incomplete while it comes
 *       models--org--name/snapshots/<commit>/<file>   ─▶ ../../blobs/<etag>
 *       .locks/models--org--name/<etag>.lock          held (flock) by whoever fetches that content
 *
 * Always: a blob appears under its name only when it is whole; a link appears by rename. Names have been checked
 * (hub_name_is_safe) before they come here.
 * Owner: the cli, one thread; other processes write to the same folder. */
#ifndef DEPLOY_CLI_HUB_CACHE_H
#define DEPLOY_CLI_HUB_CACHE_H

#include "common/base/err.h"
#include "common/base/str.h"

struct hub_cache {
    char *root;  /* …/hub */
    char *model; /* …/hub/models--org--name */
};

BY_MUST_USE char *hub_cache_home(void); /* $HF_HOME and what stands for it; yours */
void hub_cache_init(struct hub_cache *c, struct by_str repo);
void hub_cache_release(struct hub_cache *c);

enum { HUB_COMMIT_CHARS = 40 };
/* The commit that a revision stood for when it was last fetched; a commit stands for itself. */
BY_MUST_USE bool hub_cache_commit(const struct hub_cache *c, struct by_str revision,
                                  char commit[HUB_COMMIT_CHARS + 1]);
BY_MUST_USE int hub_cache_set_commit(const struct hub_cache *c, struct by_str revision,
                                     const char *commit, struct by_err *err);

BY_MUST_USE char *hub_cache_snapshot(const struct hub_cache *c, const char *commit); /* yours */
/* yours */
BY_MUST_USE char *hub_cache_blob(const struct hub_cache *c, const char *etag, const char *suffix);
/* Makes snapshots/<commit>/<name> point to the blob. */
BY_MUST_USE int hub_cache_link(const struct hub_cache *c, const char *commit, struct by_str name,
                               const char *etag, struct by_err *err);
/* Takes the lock of an open file, once whoever has it gives it back. BY_ECANCELLED: we are to stop. */
BY_MUST_USE int hub_cache_wait(int fd, const char *path, struct by_err *err);
/* The lock of this content, as above. *fd is closed to give it back. */
BY_MUST_USE int hub_cache_lock(const struct hub_cache *c, const char *etag, int *fd,
                               struct by_err *err);

#endif
