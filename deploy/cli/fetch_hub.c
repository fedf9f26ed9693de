#include "deploy/cli/fetch_hub.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "deploy/cli/hub_blob.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { INFO_BYTES_MAX = 32 << 20, INDEX_BYTES_MAX = 256 << 20, JSON_DEPTH_MAX = 32 };

struct fetch {
    const struct hub_id *id;
    const struct hub_wants *wants;
    struct hub_cache cache;
    struct hub_http *http;
    char commit[HUB_COMMIT_CHARS + 1];
    struct by_json *info, *index;
    struct hub_files all, files; /* borrow from info and index, or from names */
    struct by_buf names;         /* of a folder of the cache */
    struct progress bar;
};

/* ---- what is here ---- */

static char *file_path(const struct fetch *f, struct by_str name) {
    char *dir = hub_cache_snapshot(&f->cache, f->commit), *z = by_strndup(name.p, name.n),
         *path = by_path_join(dir, z);
    by_free(z);
    by_free(dir);
    return path;
}

static bool has(const struct fetch *f, struct by_str name) {
    char *path = file_path(f, name);
    bool found = by_file_exists(path); /* of a link: what it points to */
    by_free(path);
    return found;
}

static int read_index(struct fetch *f, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = INDEX_BYTES_MAX, .depth_max = JSON_DEPTH_MAX};
    struct by_buf text;
    char *path = file_path(f, BY_STR("model.safetensors.index.json"));
    by_buf_init(&text, INDEX_BYTES_MAX);
    by_json_free(f->index);
    f->index = NULL;
    int rc = by_file_read(&text, path, err);
    if (!rc && by_json_parse(&f->index, by_buf_str(&text), &lim, err))
        rc = by_fail_prefix(err, "%s", path);
    if (!rc) rc = hub_files_add_shards(&f->files, &f->all, f->index, err);
    by_buf_release(&text);
    by_free(path);
    return rc;
}

/* The names of a snapshot's top folder, into f->all. */
static void list_snapshot(struct fetch *f) {
    char *path = hub_cache_snapshot(&f->cache, f->commit);
    DIR *dir = opendir(path);
    size_t at = 0;
    by_buf_clear(&f->names);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        by_buf_addz(&f->names, e->d_name);
        by_buf_addc(&f->names, '\0');
    }
    if (dir) closedir(dir);
    while (at < f->names.n && f->all.n < HUB_FILES_MAX) {
        struct by_str name = by_str_of(f->names.p + at);
        at += name.n + 1;
        if (has(f, name)) hub_files_add(&f->all, name, -1);
    }
    by_free(path);
}

/* Is the whole model in the cache, as it was when it was fetched? */
static bool is_cached(struct fetch *f) {
    if (!hub_cache_commit(&f->cache, f->id->revision, f->commit)) return false;
    list_snapshot(f);
    if (hub_files_choose(&f->files, &f->all, f->id->repo, f->wants, NULL)) return false;
    if (f->files.has_index && read_index(f, NULL)) return false;
    for (size_t i = 0; i < f->files.n; i++)
        if (!has(f, f->files.at[i].name)) return false;
    return f->files.n > 0;
}

static bool is_offline(void) {
    static const char *const names[] = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        const char *v = getenv(names[i]);
        bool on;
        if (v && by_str_to_bool(by_str_of(v), &on) && on) return true;
    }
    return false;
}

static int from_cache(struct fetch *f, struct by_err *err) {
    if (is_cached(f)) return 0;
    return by_fail(err, BY_ENOTFOUND,
                   "HF_HUB_OFFLINE is set, and " BY_STR_FMT "@" BY_STR_FMT
                   " is not whole in %s; fetch it once without HF_HUB_OFFLINE",
                   BY_STR_ARG(f->id->repo), BY_STR_ARG(f->id->revision), f->cache.root);
}

/* ---- what the Hub has ---- */

static int ask(struct fetch *f, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = INFO_BYTES_MAX, .depth_max = JSON_DEPTH_MAX};
    struct by_buf path, body;
    struct by_str commit = {0};
    int rc;
    by_buf_init(&path, 8192);
    by_buf_init(&body, INFO_BYTES_MAX);
    by_buf_addz(&path, "/api/models/");
    hub_http_escape(&path, f->id->repo, true);
    by_buf_addz(&path, "/revision/");
    hub_http_escape(&path, f->id->revision, false);
    by_buf_addz(&path, "?blobs=true");
    for (int i = 0;; i++) {
        by_buf_clear(&body);
        rc = hub_http_get(f->http, path.p, f->id->repo, &body, err);
        if (rc != BY_EAGAIN || !hub_wait(i)) break;
    }
    if (rc) goto done;
    rc = by_json_parse(&f->info, by_buf_str(&body), &lim, err);
    if (!rc) rc = by_json_get_str(f->info, "", "sha", &commit, err);
    if (!rc && !hub_is_commit(commit)) rc = by_fail(err, BY_EFORMAT, "sha is no commit");
    if (!rc) rc = hub_files_read(&f->all, f->info, err);
    if (rc) {
        rc = by_fail_prefix(err, "%s answers nonsense about " BY_STR_FMT,
                            hub_http_endpoint(f->http), BY_STR_ARG(f->id->repo));
        goto done;
    }
    memcpy(f->commit, commit.p, HUB_COMMIT_CHARS);
    rc = hub_files_choose(&f->files, &f->all, f->id->repo, f->wants, err);
done:
    by_buf_release(&path);
    by_buf_release(&body);
    return rc;
}

/* ---- one file ---- */

static int head(struct fetch *f, const char *path, struct by_str name, struct hub_reply *reply,
                struct by_err *err) {
    int rc;
    for (int i = 0;; i++) {
        rc = hub_http_head(f->http, path, f->id->repo, reply, err);
        if (rc != BY_EAGAIN || !hub_wait(i)) break;
    }
    struct by_str etag = by_str_of(reply->etag);
    if (!rc && (!hub_name_is_safe(etag) || by_str_find(etag, BY_STR("/"), 0) != SIZE_MAX))
        rc = by_fail(err, BY_EFORMAT, "%s gives " BY_STR_FMT " no usable ETag: it is no Hub",
                     hub_http_endpoint(f->http), BY_STR_ARG(name));
    return rc;
}

static int fetch_content(struct fetch *f, const struct hub_blob *b, struct by_err *err) {
    int fd = -1;
    char *blob = hub_cache_blob(&f->cache, b->etag, "");
    int rc = hub_cache_lock(&f->cache, b->etag, &fd, err);
    if (!rc && by_file_exists(blob)) /* of another revision, or of another process */
        progress_skip(&f->bar, (uint64_t)BY_MAX(b->size, 0));
    else if (!rc)
        rc = hub_blob_fetch(b, err);
    if (!rc) rc = hub_cache_link(&f->cache, f->commit, b->name, b->etag, err);
    if (fd >= 0) close(fd);
    by_free(blob);
    return rc;
}

static int fetch_file(struct fetch *f, const struct hub_file *file, struct by_err *err) {
    struct hub_reply reply = {0};
    struct by_buf path;
    if (has(f, file->name)) {
        progress_skip(&f->bar, (uint64_t)BY_MAX(file->size, 0));
        return 0;
    }
    by_buf_init(&path, 8192);
    by_buf_addc(&path, '/');
    hub_http_escape(&path, f->id->repo, true);
    by_buf_addf(&path, "/resolve/%s/", f->commit);
    hub_http_escape(&path, file->name, true);
    progress_name(&f->bar, file->name.p, file->name.n);
    int rc = head(f, path.p, file->name, &reply, err);
    struct hub_blob b = {.cache = &f->cache,
                         .http = f->http,
                         .bar = &f->bar,
                         .repo = f->id->repo,
                         .name = file->name,
                         .path = path.p,
                         .etag = reply.etag,
                         .size = reply.size};
    if (!rc) rc = fetch_content(f, &b, err);
    by_buf_release(&path);
    return rc;
}

/* ---- all of them ---- */

/* What an interrupted fetch left is room that is taken already. */
static uint64_t incomplete_bytes(const struct fetch *f) {
    char *path = hub_cache_blob(&f->cache, "", "");
    DIR *dir = opendir(path);
    uint64_t n = 0;
    struct stat st;
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        if (by_str_ends(by_str_of(e->d_name), BY_STR(".incomplete")) &&
            fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
            n += (uint64_t)st.st_size;
    }
    if (dir) closedir(dir);
    by_free(path);
    return n;
}

/* A disk without room is told of before the first byte. */
static int check_room(struct fetch *f, uint64_t need, struct by_err *err) {
    struct statvfs fs;
    char text[24], room[24], *blobs = hub_cache_blob(&f->cache, "", "");
    int rc = by_dir_make(blobs, 0755, err);
    if (rc) {
        by_fail_prefix(err, "the Hub's cache cannot be written (HF_HUB_CACHE names another)");
    } else if (statvfs(blobs, &fs) == 0) {
        uint64_t n = (uint64_t)fs.f_bavail * fs.f_frsize;
        progress_bytes(text, sizeof text, need);
        progress_bytes(room, sizeof room, n);
        if (need > n + incomplete_bytes(f))
            rc = by_fail(err, BY_EIO,
                         BY_STR_FMT " needs %s, and %s has %s left; make room, or name another "
                                    "folder with HF_HUB_CACHE",
                         BY_STR_ARG(f->id->repo), text, f->cache.root, room);
    }
    by_free(blobs);
    return rc;
}

static int announce(struct fetch *f, size_t from, struct by_err *err) {
    uint64_t need = 0;
    size_t n = 0;
    char text[24];
    for (size_t i = from; i < f->files.n; i++) {
        if (has(f, f->files.at[i].name)) continue;
        need += (uint64_t)BY_MAX(f->files.at[i].size, 0);
        n++;
    }
    f->bar.total += need;
    if (!n) return 0;
    progress_bytes(text, sizeof text, need);
    by_info("fetching " BY_STR_FMT "@" BY_STR_FMT " (%.8s): %zu files, %s, into %s",
            BY_STR_ARG(f->id->repo), BY_STR_ARG(f->id->revision), f->commit, n, text,
            f->cache.root);
    return check_room(f, need, err);
}

static int fetch_from(struct fetch *f, size_t from, struct by_err *err) {
    int rc = announce(f, from, err);
    for (size_t i = from; i < f->files.n && !rc; i++)
        rc = fetch_file(f, &f->files.at[i], err);
    return rc;
}

static int from_hub(struct fetch *f, struct by_err *err) {
    int rc = hub_http_new(&f->http, err);
    if (!rc) rc = ask(f, err);
    if (rc) return rc;
    progress_start(&f->bar, 0);
    rc = fetch_from(f, 0, err);
    size_t n = f->files.n;
    if (!rc && f->files.has_index) rc = read_index(f, err);
    if (!rc) rc = fetch_from(f, n, err);
    progress_end(&f->bar);
    return rc ? rc : hub_cache_set_commit(&f->cache, f->id->revision, f->commit, err);
}

static void forget_lists(struct fetch *f) {
    hub_files_release(&f->all);
    hub_files_release(&f->files);
}

static void release(struct fetch *f) {
    forget_lists(f);
    by_json_free(f->info);
    by_json_free(f->index);
    by_buf_release(&f->names);
    hub_http_free(f->http);
    hub_cache_release(&f->cache);
}

int fetch_hub(const struct hub_id *id, const struct hub_wants *wants, char **out,
              struct by_err *err) {
    struct fetch f = {.id = id, .wants = wants};
    hub_cache_init(&f.cache, id->repo);
    by_buf_init(&f.names, INFO_BYTES_MAX);
    int rc = is_offline() ? from_cache(&f, err) : from_hub(&f, err);
    if (rc == BY_EUNAVAILABLE || rc == BY_EAGAIN) {
        forget_lists(&f);
        if (is_cached(&f)) {
            by_warn("%s; going on with what the cache has", err->text);
            rc = 0;
        }
    }
    if (!rc)
        *out = f.files.is_gguf ? file_path(&f, f.files.at[0].name)
                               : hub_cache_snapshot(&f.cache, f.commit);
    release(&f);
    return rc;
}
