#include "common/base/file.h"

#include "common/base/mem.h"
#include "common/base/rand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_sys(struct by_err *err, const char *verb, const char *path) {
    int e = errno;
    return by_fail(err, e == ENOENT ? BY_ENOTFOUND : BY_EIO, "%s: cannot %s: %s", path, verb,
                   strerror(e));
}

/* An open regular file, and what it is. */
static int open_regular(const char *path, int *fd, struct stat *st, struct by_err *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo would wait for its writer */
    if (*fd < 0) return fail_sys(err, "open", path);
    int rc = 0;
    if (fstat(*fd, st) != 0)
        rc = fail_sys(err, "stat", path);
    else if (!S_ISREG(st->st_mode))
        rc = by_fail(err, BY_EFORMAT, "%s: is not a regular file", path);
    if (rc) close(*fd);
    return rc;
}

int by_file_map(struct by_mapped *out, const char *path, struct by_err *err) {
    int fd;
    struct stat st;
    *out = (struct by_mapped){0};
    int rc = open_regular(path, &fd, &st, err);
    if (rc) return rc;
    size_t n = (size_t)st.st_size;
    if (n) {
        void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = fail_sys(err, "map", path);
        else
            *out = (struct by_mapped){p, n};
    }
    close(fd);
    return rc;
}

void by_file_unmap(struct by_mapped *m) {
    if (m->p) munmap((void *)(uintptr_t)m->p, m->n);
    *m = (struct by_mapped){0};
}

/* Closes fd. */
static int read_open(struct by_buf *out, int fd, const char *path, struct by_err *err) {
    int rc = 0;
    while (rc == 0) { /* until read says the end: files under /proc have no size */
        char block[65536];
        ssize_t got = read(fd, block, sizeof block);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) rc = fail_sys(err, "read", path);
        if (got <= 0) break;
        by_buf_add(out, block, (size_t)got);
        if (out->is_full) {
            rc = by_fail(err, BY_ELIMIT, "%s: is larger than %zu bytes", path, out->max);
        }
    }
    close(fd);
    return rc;
}

int by_file_read(struct by_buf *out, const char *path, struct by_err *err) {
    int fd;
    struct stat st;
    int rc = open_regular(path, &fd, &st, err);
    return rc ? rc : read_open(out, fd, path, err);
}

int by_file_read_secret(struct by_buf *out, const char *path, struct by_err *err) {
    int fd;
    struct stat st;
    int rc = open_regular(path, &fd, &st, err);
    if (rc) return rc;
    if (!(st.st_mode & (S_IROTH | S_IWOTH))) return read_open(out, fd, path, err);
    close(fd);
    return by_fail(err, BY_EFORBIDDEN, "%s: every user of this machine can %s it; chmod 600 it",
                   path, st.st_mode & S_IROTH ? "read" : "write");
}

static int write_all(int fd, struct by_str s) {
    while (s.n) {
        ssize_t put = write(fd, s.p, s.n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        s = by_str_sub(s, (size_t)put, s.n);
    }
    return 0;
}

int by_file_write(const char *path, struct by_str bytes, struct by_err *err) {
    struct by_buf tmp;
    by_buf_init(&tmp, 8192);
    /* another process may write it too, and in another container it may have our pid */
    by_buf_addf(&tmp, "%s.%016llx.tmp", path, (unsigned long long)by_rand_u64());
    int rc = 0;
    int fd = open(tmp.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = fail_sys(err, "create", tmp.p);
        goto done;
    }
    if (write_all(fd, bytes) != 0 || fsync(fd) != 0) rc = fail_sys(err, "write", tmp.p);
    if (close(fd) != 0 && !rc) rc = fail_sys(err, "write", tmp.p);
    if (!rc && rename(tmp.p, path) != 0) rc = fail_sys(err, "rename to", path);
    if (rc) unlink(tmp.p);
done:
    by_buf_release(&tmp);
    return rc;
}

bool by_file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool by_file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int by_dir_make(const char *path, unsigned mode, struct by_err *err) {
    if (by_file_is_dir(path)) return 0;
    char *copy = by_strdup(path);
    int rc = 0;
    for (char *p = copy + 1; *p && !rc; p++) {
        if (*p != '/') continue;
        *p = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST) rc = fail_sys(err, "make folder", copy);
        *p = '/';
    }
    if (!rc && mkdir(copy, mode) != 0 && errno != EEXIST) rc = fail_sys(err, "make folder", copy);
    by_free(copy);
    return rc;
}

int by_dir_lock(const char *path, struct by_err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_sys(err, "open folder", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return 0; /* fd stays open: it is the lock */
    int rc = errno == EWOULDBLOCK
                 ? by_fail(err, BY_EAGAIN, "%s: another server is using this folder", path)
                 : fail_sys(err, "lock folder", path);
    close(fd);
    return rc;
}

void by_dir_remove(const char *path) {
    /* in /tmp a link of this name may be another user's, to a folder that is ours */
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) return;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.') continue;
        unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
    rmdir(path);
}

char *by_path_join(const char *dir, const char *name) {
    struct by_buf b;
    by_buf_init(&b, 65536);
    size_t n = strlen(dir);
    by_buf_addf(&b, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return by_buf_take(&b, NULL);
}

char *by_path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return by_strdup(".");
    return by_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

const char *by_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A service has no HOME; in /tmp anybody could have put there what we are to find. */
const char *by_path_home(void) {
    const char *said = getenv("HOME");
    if (said && *said) return said;
    const struct passwd *user = getpwuid(getuid());
    return user ? user->pw_dir : "/nonexistent";
}

char *by_path_cache(void) {
    const char *own = getenv("BANYAN_CACHE");
    const char *xdg = getenv("XDG_CACHE_HOME");
    if (own && *own) return by_strdup(own);
    if (xdg && *xdg) return by_path_join(xdg, "banyan");
    return by_path_join(by_path_home(), ".cache/banyan");
}
