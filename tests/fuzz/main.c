/* main.c - runs a fuzzer over files and folders, without libFuzzer: fuzz_x CORPUS… Fails when there was no input. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_MAX = 16 << 20 };

static int run_file(const char *path) {
    struct by_buf bytes;
    struct by_err err = {0};
    by_buf_init(&bytes, INPUT_MAX);
    int rc = by_file_read(&bytes, path, &err);
    /* A copy of just this size: a sanitizer sees the first byte read past it. */
    uint8_t *exact = malloc(bytes.n ? bytes.n : 1);
    if (!rc && exact) {
        if (bytes.n) memcpy(exact, bytes.p, bytes.n);
        LLVMFuzzerTestOneInput(exact, bytes.n);
    } else {
        fprintf(stderr, "%s\n", err.text);
    }
    free(exact);
    by_buf_release(&bytes);
    return rc;
}

static size_t run_path(const char *path) {
    DIR *dir = opendir(path);
    size_t n = 0;
    if (!dir) return run_file(path) == 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        char *file = by_path_join(path, e->d_name);
        if (!by_file_is_dir(file)) n += run_file(file) == 0;
        by_free(file);
    }
    closedir(dir);
    return n;
}

int main(int argc, char **argv) {
    size_t n = 0;
    for (int i = 1; i < argc; i++)
        n += run_path(argv[i]);
    printf("%zu inputs\n", n);
    return n ? 0 : 1;
}
