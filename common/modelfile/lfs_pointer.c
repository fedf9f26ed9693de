#include "common/modelfile/lfs_pointer.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { POINTER_BYTES_MAX = 1024 };

static bool is_pointer(const char *path) {
    static const char begins[] = "version https://git-lfs.github.com/spec/";
    char text[sizeof begins - 1];
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || st.st_size >= POINTER_BYTES_MAX) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0) close(fd);
    return n == (ssize_t)sizeof text && memcmp(text, begins, sizeof text) == 0;
}

static bool is_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".bin", ".gguf", ".pt", ".pth"};
    for (size_t i = 0; i < BY_COUNTOF(ends); i++) {
        if (by_str_ends(by_str_of(name), by_str_of(ends[i]))) return true;
    }
    return false;
}

static int refuse(const char *path, struct by_err *err) {
    return by_fail(
        err, BY_EFORMAT,
        "%s: it is a Git LFS pointer, and the file that it stands for was not fetched; run "
        "`git lfs pull` there, or give the Hub's org/name",
        path);
}

int by_lfs_pointer_refuse(const char *path, bool with_weights, struct by_err *err) {
    DIR *d = opendir(path);
    int rc = !d && is_pointer(path) ? refuse(path, err) : 0;
    for (struct dirent *e; d && !rc && (e = readdir(d)) != NULL;) {
        if (!with_weights && is_weights(e->d_name)) continue;
        char *file = by_path_join(path, e->d_name);
        if (is_pointer(file)) rc = refuse(file, err);
        by_free(file);
    }
    if (d) closedir(d);
    return rc;
}
