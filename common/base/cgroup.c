#include "common/base/cgroup.h"

#include "common/base/buf.h"
#include "common/base/file.h"

#include <stdio.h>
#include <string.h>

enum { FILE_MAX = 65536, PATH_CAP = 4096 };

/* The text of a group's file, "" when there is none; release it. */
static struct by_str read_file(struct by_buf *text, const char *folder, const char *name) {
    char path[PATH_CAP];
    by_buf_init(text, FILE_MAX);
    int n = snprintf(path, sizeof path, "%s%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof path || by_file_read(text, path, NULL)) by_buf_clear(text);
    return by_str_trim(by_buf_str(text));
}

/* A file of one number; UINT64_MAX: "max", or no such file. */
static uint64_t read_number(const char *folder, const char *name) {
    struct by_buf text;
    uint64_t n;
    if (!by_str_to_u64(read_file(&text, folder, name), &n)) n = UINT64_MAX;
    by_buf_release(&text);
    return n;
}

/* "max 100000" or "200000 100000": microseconds a period. */
static uint32_t read_cpus(const char *folder) {
    struct by_buf text;
    struct by_str rest = read_file(&text, folder, "/cpu.max"), head;
    uint64_t quota, period;
    by_str_split(&rest, ' ', &head);
    bool is_set = by_str_to_u64(head, &quota) && by_str_to_u64(rest, &period) && period > 0;
    by_buf_release(&text);
    return is_set ? (uint32_t)BY_MIN(BY_DIV_UP(BY_MAX(quota, (uint64_t)1), period), UINT32_MAX) : 0;
}

/* Of memory.stat's lines "name number", those of pages that files have. */
static uint64_t read_cached(const char *folder) {
    struct by_buf text;
    struct by_str rest = read_file(&text, folder, "/memory.stat"), line, name;
    uint64_t sum = 0, n;
    for (bool has_more = true; has_more;) {
        has_more = by_str_split(&rest, '\n', &line);
        by_str_split(&line, ' ', &name);
        bool is_file = by_str_eqz(name, "active_file") || by_str_eqz(name, "inactive_file");
        if (is_file && by_str_to_u64(line, &n)) sum += n;
    }
    by_buf_release(&text);
    return sum;
}

static void add_limits(struct by_cgroup *out, const char *folder) {
    uint32_t n_cpus = read_cpus(folder);
    if (n_cpus && (!out->n_cpus || n_cpus < out->n_cpus)) out->n_cpus = n_cpus;
    uint64_t max = read_number(folder, "/memory.max"),
             used = read_number(folder, "/memory.current");
    if (max == UINT64_MAX || used == UINT64_MAX) return;
    uint64_t cached = read_cached(folder), held = used > cached ? used - cached : 0;
    out->memory_max = BY_MIN(out->memory_max, max);
    out->memory_free = BY_MIN(out->memory_free, max > held ? max - held : 0);
}

/* The path behind "0::" of the line of version 2; "" when there is none. */
static void my_group(char *out, size_t cap, const char *membership) {
    struct by_buf text;
    struct by_str rest = read_file(&text, membership, ""), line;
    *out = '\0';
    for (bool has_more = true; has_more;) {
        has_more = by_str_split(&rest, '\n', &line);
        if (line.n < 4 || memcmp(line.p, "0::/", 4) != 0) continue;
        snprintf(out, cap, "%.*s", (int)BY_MIN(line.n - 3, cap - 1), line.p + 3);
    }
    by_buf_release(&text);
}

void by_cgroup_read(struct by_cgroup *out, const char *root, const char *membership) {
    char group[PATH_CAP / 2], folder[PATH_CAP];
    *out = (struct by_cgroup){.memory_max = UINT64_MAX, .memory_free = UINT64_MAX};
    my_group(group, sizeof group, membership);
    for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
        *end = '\0';
        snprintf(folder, sizeof folder, "%.1024s%s", root, group);
        add_limits(out, folder);
    }
}
