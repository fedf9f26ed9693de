#include "gpu_worker/cuda/gemm_choices.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    BYTES_MAX = 1 << 20, /* of a file: some thousand shapes; a longer one is begun anew */
    CHOICES_MAX = 4096,
    LINE_MAX_BYTES = 320,
};

struct gemm_choices {
    char *path, *maker;
    struct gemm_choice *all;
    uint32_t n;
    bool is_full; /* the file: it is replaced by the next line */
};

/* All of a line but its checksum. */
static void write_line(const struct gemm_choice *x, char out[LINE_MAX_BYTES]) {
    int n = snprintf(out, LINE_MAX_BYTES, "%x %x %x %x %x", x->kind, x->m, x->n_out, x->n_in,
                     x->y_align);
    for (int i = 0; i < GEMM_ALGO_WORDS; i++)
        n += snprintf(out + n, LINE_MAX_BYTES - (size_t)n, " %" PRIx64, x->algo[i]);
}

static uint64_t checksum(const struct gemm_choices *c, const char *line) {
    char all[LINE_MAX_BYTES + 256];
    int n = snprintf(all, sizeof all, "%.200s\n%s", c->maker, line);
    return by_str_hash((struct by_str){all, (size_t)n});
}

/* What is not as write_line writes it has another checksum than the line that is written of what was read. */
static bool read_line(const struct gemm_choices *c, struct by_str line, struct gemm_choice *x) {
    char text[LINE_MAX_BYTES], again[LINE_MAX_BYTES];
    uint64_t sum;
    int at = 0;
    *x = (struct gemm_choice){0};
    if (line.n >= sizeof text || memchr(line.p, '\0', line.n)) return false;
    memcpy(text, line.p, line.n);
    text[line.n] = '\0';
    if (sscanf(text, "%16" SCNx64 " %8x %8x %8x %8x %8x%n", &sum, &x->kind, &x->m, &x->n_out,
               &x->n_in, &x->y_align, &at) != 6)
        return false;
    for (int i = 0; i < GEMM_ALGO_WORDS; i++) {
        int n = 0;
        if (sscanf(text + at, " %16" SCNx64 "%n", &x->algo[i], &n) != 1) return false;
        at += n;
    }
    write_line(x, again);
    return checksum(c, again) == sum;
}

static void keep(struct gemm_choices *c, const struct gemm_choice *x) {
    if (c->n < CHOICES_MAX && !gemm_choices_find(c, x)) c->all[c->n++] = *x;
}

struct gemm_choices *gemm_choices_new(const char *path, const char *maker) {
    struct gemm_choices *c = by_alloc(sizeof *c);
    struct by_buf text;
    struct by_err err;
    c->path = path ? by_strdup(path) : NULL;
    c->maker = by_strdup(maker);
    c->all = by_alloc_array(CHOICES_MAX, sizeof *c->all);
    by_buf_init(&text, BYTES_MAX);
    if (path && by_file_exists(path)) {
        c->is_full = by_file_read(&text, path, &err) != 0;
        struct by_str rest = by_buf_str(&text), line;
        struct gemm_choice x;
        while (!c->is_full && by_str_split(&rest, '\n', &line)) /* a line without an end is torn */
            if (read_line(c, line, &x)) keep(c, &x);
    }
    by_buf_release(&text);
    return c;
}

void gemm_choices_free(struct gemm_choices *c) {
    if (!c) return;
    by_free(c->path);
    by_free(c->maker);
    by_free(c->all);
    by_free(c);
}

uint32_t gemm_choices_count(const struct gemm_choices *c) {
    return c->n;
}

const struct gemm_choice *gemm_choices_find(const struct gemm_choices *c,
                                            const struct gemm_choice *like) {
    for (uint32_t i = 0; i < c->n; i++) {
        const struct gemm_choice *x = &c->all[i];
        if (x->kind == like->kind && x->m == like->m && x->n_out == like->n_out &&
            x->n_in == like->n_in && x->y_align == like->y_align)
            return x;
    }
    return NULL;
}

static int append(const struct gemm_choices *c, const char *text, size_t n) {
    char *dir = by_path_dir(c->path);
    struct by_err err;
    int rc = by_dir_make(dir, 0700, &err);
    by_free(dir);
    if (rc) return -1;
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (c->is_full ? O_TRUNC : 0);
    int fd = open(c->path, flags, 0600);
    if (fd < 0) return -1;
    bool is_whole = write(fd, text, n) == (ssize_t)n;
    return close(fd) || !is_whole ? -1 : 0;
}

void gemm_choices_add(struct gemm_choices *c, const struct gemm_choice *x) {
    char line[LINE_MAX_BYTES], text[LINE_MAX_BYTES + 24];
    keep(c, x);
    if (!c->path) return;
    write_line(x, line);
    /* A line break first: what lies behind a torn line is not lost with it. */
    int n = snprintf(text, sizeof text, "\n%016" PRIx64 " %s\n", checksum(c, line), line);
    if (append(c, text, (size_t)n) == 0) {
        c->is_full = false;
        return;
    }
    by_debug("%s: the choice of a product cannot be kept: %m", c->path);
    by_free(c->path); /* not tried again */
    c->path = NULL;
}
