#include "deploy/cli/hub_cache.h"
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "deploy/cli/hub_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES_MAX = 4096, LOCK_POLL_MS = 100 };

/* ---- where ---- */

static char *env_path(const char *name) {
    const char *v = getenv(name);
    return v && *v ? by_strdup(v) : NULL;
}

char *hub_cache_home(void) {
    char *home = env_path("HF_HOME"), *base = NULL;
    if (home) return home;
    base = env_path("XDG_CACHE_HOME");
    if (!base) base = by_path_join(by_path_home(), ".cache");
    home = by_path_join(base, "huggingface");
    by_free(base);
    return home;
}

static char *hub_root(void) {
    char *root = env_path("HF_HUB_CACHE");
    if (root) return root;
    char *home = hub_cache_home();
    root = by_path_join(home, "hub");
    by_free(home);
    return root;
}

/* org/name -> models--org--name */
static char *model_folder(struct by_str repo) {
    struct by_buf b;
    struct by_str name = repo, org;
    by_str_split(&name, '/', &org);
    by_buf_init(&b, PATH_BYTES_MAX);
    by_buf_addf(&b, "models--" BY_STR_FMT "--" BY_STR_FMT, BY_STR_ARG(org), BY_STR_ARG(name));
    return by_buf_take(&b, NULL);
}

void hub_cache_init(struct hub_cache *c, struct by_str repo) {
    char *folder = model_folder(repo);
    c->root = hub_root();
    c->model = by_path_join(c->root, folder);
    by_free(folder);
}

void hub_cache_release(struct hub_cache *c) {
    by_free(c->root);
    by_free(c->model);
    *c = (struct hub_cache){0};
}

BY_PRINTF(2, 3) static char *below(const struct hub_cache *c, const char *fmt, ...) {
    char rest[PATH_BYTES_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rest, sizeof rest, fmt, ap);
    va_end(ap);
    return by_path_join(c->model, rest);
}

static int make_parent(const char *path, struct by_err *err) {
    char *dir = by_path_dir(path);
    int rc = by_dir_make(dir, 0755, err);
    by_free(dir);
    return rc ? by_fail_prefix(err,
                               "the Hub's cache cannot be written (HF_HUB_CACHE names another)")
              : 0;
}

/* ---- refs ---- */

bool hub_cache_commit(const struct hub_cache *c, struct by_str revision,
                      char commit[HUB_COMMIT_CHARS + 1]) {
    struct by_buf text;
    char *path = below(c, "refs/" BY_STR_FMT, BY_STR_ARG(revision));
    by_buf_init(&text, 4096);
    struct by_str found = revision;
    if (!hub_is_commit(revision))
        found = by_file_read(&text, path, NULL) ? BY_STR("") : by_str_trim(by_buf_str(&text));
    bool ok = hub_is_commit(found);
    if (ok) {
        memcpy(commit, found.p, HUB_COMMIT_CHARS);
        commit[HUB_COMMIT_CHARS] = 0;
    }
    by_buf_release(&text);
    by_free(path);
    return ok;
}

int hub_cache_set_commit(const struct hub_cache *c, struct by_str revision, const char *commit,
                         struct by_err *err) {
    if (hub_is_commit(revision)) return 0;
    char *path = below(c, "refs/" BY_STR_FMT, BY_STR_ARG(revision));
    int rc = make_parent(path, err);
    if (!rc) rc = by_file_write(path, by_str_of(commit), err);
    by_free(path);
    return rc;
}

/* ---- snapshots and blobs ---- */

char *hub_cache_snapshot(const struct hub_cache *c, const char *commit) {
    return below(c, "snapshots/%s", commit);
}

char *hub_cache_blob(const struct hub_cache *c, const char *etag, const char *suffix) {
    return below(c, "blobs/%s%s", etag, suffix);
}

int hub_cache_link(const struct hub_cache *c, const char *commit, struct by_str name,
                   const char *etag, struct by_err *err) {
    struct by_buf target;
    char *path = below(c, "snapshots/%s/" BY_STR_FMT, commit, BY_STR_ARG(name)),
         *fresh =
             below(c, "snapshots/%s/" BY_STR_FMT ".%d", commit, BY_STR_ARG(name), (int)getpid());
    by_buf_init(&target, PATH_BYTES_MAX);
    by_buf_addz(&target, "../../");
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '/') by_buf_addz(&target, "../");
    by_buf_addf(&target, "blobs/%s", etag);
    int rc = make_parent(path, err);
    unlink(fresh);
    if (!rc && (symlink(target.p, fresh) || rename(fresh, path)))
        rc = by_fail(err, BY_EIO, "%s: cannot be made: %s", path, strerror(errno));
    by_buf_release(&target);
    by_free(fresh);
    by_free(path);
    return rc;
}

/* Asked again and again: what stops us would not wake who sleeps in flock (SA_RESTART). */
int hub_cache_wait(int fd, const char *path, struct by_err *err) {
    const struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000};
    for (bool is_told = false; flock(fd, LOCK_EX | LOCK_NB); nanosleep(&pause, NULL)) {
        if (errno != EWOULDBLOCK) return by_fail(err, BY_EIO, "%s: %s", path, strerror(errno));
        if (by_proc_should_stop())
            return by_fail(err, BY_ECANCELLED, "stopped while another process fetched the model");
        if (!is_told) by_info("another process is fetching this; waiting for it");
        is_told = true;
    }
    return 0;
}

int hub_cache_lock(const struct hub_cache *c, const char *etag, int *fd, struct by_err *err) {
    struct by_buf b;
    by_buf_init(&b, PATH_BYTES_MAX);
    by_buf_addf(&b, "%s/.locks/%s/%s.lock", c->root, by_path_base(c->model), etag);
    int rc = make_parent(b.p, err);
    *fd = rc ? -1 : open(b.p, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (!rc && *fd < 0) rc = by_fail(err, BY_EIO, "%s: %s", b.p, strerror(errno));
    if (!rc) rc = hub_cache_wait(*fd, b.p, err);
    if (rc && *fd >= 0) close(*fd);
    by_buf_release(&b);
    return rc;
}
