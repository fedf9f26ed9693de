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

/* A quota and its period, in microseconds; 0: none. */
static uint32_t cpus_of(uint64_t quota, uint64_t period) {
    if (quota == UINT64_MAX || !period || period == UINT64_MAX) return 0;
    return (uint32_t)BY_MIN(BY_DIV_UP(BY_MAX(quota, (uint64_t)1), period), UINT32_MAX);
}

static void add_cpus(struct by_cgroup *out, uint32_t n) {
    if (n && (!out->n_cpus || n < out->n_cpus)) out->n_cpus = n;
}

/* Of memory.stat's lines "name number", those of pages that files have. */
static uint64_t read_cached(const char *folder, const char *active, const char *inactive) {
    struct by_buf text;
    struct by_str rest = read_file(&text, folder, "/memory.stat"), line, name;
    uint64_t sum = 0, n;
    for (bool has_more = true; has_more;) {
        has_more = by_str_split(&rest, '\n', &line);
        by_str_split(&line, ' ', &name);
        bool is_file = by_str_eqz(name, active) || by_str_eqz(name, inactive);
        if (is_file && by_str_to_u64(line, &n)) sum += n;
    }
    by_buf_release(&text);
    return sum;
}

static void add_memory(struct by_cgroup *out, uint64_t max, uint64_t used, uint64_t cached) {
    uint64_t held = used > cached ? used - cached : 0;
    if (max == UINT64_MAX || used == UINT64_MAX) return;
    out->memory_max = BY_MIN(out->memory_max, max);
    out->memory_free = BY_MIN(out->memory_free, max > held ? max - held : 0);
}

/* cpu.max: "max 100000" or "200000 100000". */
static void add_v2(struct by_cgroup *out, const char *folder) {
    struct by_buf text;
    struct by_str rest = read_file(&text, folder, "/cpu.max"), head;
    uint64_t quota = UINT64_MAX, period = 0;
    by_str_split(&rest, ' ', &head);
    if (by_str_to_u64(head, &quota) && by_str_to_u64(rest, &period))
        add_cpus(out, cpus_of(quota, period));
    by_buf_release(&text);
    add_memory(out, read_number(folder, "/memory.max"), read_number(folder, "/memory.current"),
               read_cached(folder, "active_file", "inactive_file"));
}

static void add_v1_cpu(struct by_cgroup *out, const char *folder) {
    add_cpus(out, cpus_of(read_number(folder, "/cpu.cfs_quota_us"), /* -1: none */
                          read_number(folder, "/cpu.cfs_period_us")));
}

static void add_v1_memory(struct by_cgroup *out, const char *folder) {
    add_memory(out, read_number(folder, "/memory.limit_in_bytes"),
               read_number(folder, "/memory.usage_in_bytes"),
               read_cached(folder, "total_active_file", "total_inactive_file"));
}

/* The path of the line "N:controller,…:/path", of version 2 "0::/path"; "" when there is none. */
static void my_group(char *out, size_t cap, const char *membership, const char *controller) {
    struct by_buf text;
    struct by_str rest = read_file(&text, membership, ""), line, number, all, one;
    *out = '\0';
    for (bool has_more = true; has_more;) {
        has_more = by_str_split(&rest, '\n', &line);
        by_str_split(&line, ':', &number);
        by_str_split(&line, ':', &all);
        for (bool has_one = true, is_it = false; has_one && !is_it;) {
            has_one = by_str_split(&all, ',', &one);
            is_it = by_str_eqz(one, controller) && by_str_starts(line, BY_STR("/"));
            if (is_it) snprintf(out, cap, "%.*s", (int)BY_MIN(line.n, cap - 1), line.p);
        }
    }
    by_buf_release(&text);
}

typedef void add_limits(struct by_cgroup *out, const char *folder);

/* Mine and all above it. A container's own is the root of what it sees, wherever its membership says that it lies. */
static void add_all(struct by_cgroup *out, const char *root, const char *tree,
                    const char *membership, add_limits *add) {
    char group[PATH_CAP / 2], folder[PATH_CAP];
    my_group(group, sizeof group, membership, tree);
    for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
        *end = '\0';
        snprintf(folder, sizeof folder, "%.1024s/%s%s", root, tree, group);
        add(out, folder);
    }
}

void by_cgroup_read(struct by_cgroup *out, const char *root, const char *membership) {
    *out = (struct by_cgroup){.memory_max = UINT64_MAX, .memory_free = UINT64_MAX};
    add_all(out, root, "", membership, add_v2);
    add_all(out, root, "cpu", membership, add_v1_cpu);
    add_all(out, root, "memory", membership, add_v1_memory);
}
