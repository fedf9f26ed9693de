/* What control groups leave: the least of a group and all above it, pages of files not counted. */
#include "common/base/cgroup.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/test.h"

#include <stdlib.h>

static char root[] = "/tmp/banyan-cgroup-XXXXXX";

static void put(const char *folder, const char *name, const char *text) {
    struct by_err err = {0};
    char *dir = by_path_join(root, folder), *path = by_path_join(dir, name);
    if (by_dir_make(dir, 0700, &err) || by_file_write(path, by_str_of(text), &err))
        fail_msg("%s", err.text);
    by_free(path);
    by_free(dir);
}

static struct by_cgroup read_group(const char *membership) {
    struct by_cgroup g;
    put(".", "mine", membership);
    char *path = by_path_join(root, "mine");
    by_cgroup_read(&g, root, path);
    by_free(path);
    return g;
}

static int set_up(void **state) {
    (void)state;
    assert_non_null(mkdtemp(root));
    put("system.slice", "cpu.max", "250000 100000\n");
    put("system.slice", "memory.max", "9000\n");
    put("system.slice", "memory.current", "1000\n");
    put("system.slice/banyan.service", "cpu.max", "max 100000\n");
    put("system.slice/banyan.service", "memory.max", "5000\n");
    put("system.slice/banyan.service", "memory.current", "4900\n");
    put("system.slice/banyan.service", "memory.stat",
        "anon 800\nfile 4050\ninactive_file 3000\nactive_file 1000\nslab 60\n");
    return 0;
}

/* A unit's own limits were not seen: only those of the root were read. A model that had just been read from its file filled
 * the group to its limit, and no memory was left for a KV cache. */
TEST(the_least_of_a_group_and_those_above_it_counts) {
    UNUSED_STATE;
    struct by_cgroup g = read_group("9:name=systemd:/elsewhere\n0::/system.slice/banyan.service\n");
    assert_int_equal(g.n_cpus, 3);
    assert_int_equal(g.memory_max, 5000);
    assert_int_equal(g.memory_free, 5000 - 900);
    g = read_group("0::/system.slice");
    assert_int_equal(g.memory_free, 8000);
}

/* Of version 1, which older hosts and some sandboxes have, nothing was seen: a cache was planned for the whole machine's memory. */
TEST(version_1_has_a_tree_for_each_controller) {
    UNUSED_STATE;
    put("memory/docker", "memory.limit_in_bytes", "5000\n");
    put("memory/docker", "memory.usage_in_bytes", "4900\n");
    put("memory/docker", "memory.stat",
        "cache 4100\ninactive_file 1\ntotal_inactive_file 3000\ntotal_active_file 1000\n");
    put("cpu", "cpu.cfs_quota_us", "-1\n");
    put("cpu", "cpu.cfs_period_us", "100000\n");
    put("cpu/docker/abc", "cpu.cfs_quota_us", "150000\n");
    put("cpu/docker/abc", "cpu.cfs_period_us", "100000\n");
    struct by_cgroup g =
        read_group("5:cpuacct,cpu:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n");
    assert_int_equal(g.n_cpus, 2);
    assert_int_equal(g.memory_max, 5000);
    assert_int_equal(g.memory_free, 5000 - 900);
    g = read_group("5:cpuacct,cpu:/\n4:memory:/\n");
    assert_int_equal(g.n_cpus, 0);
    assert_true(g.memory_max == UINT64_MAX);
}

TEST(a_container_has_its_limits_at_the_root) {
    UNUSED_STATE;
    put(".", "memory.max", "700\n");
    put(".", "memory.current", "100\n");
    struct by_cgroup g = read_group("0::/\n");
    assert_int_equal(g.memory_free, 600);
    assert_int_equal(g.n_cpus, 0);
}

TEST(what_cannot_be_read_limits_nothing) {
    UNUSED_STATE;
    struct by_cgroup g;
    put(".", "memory.max", "max\n");
    put(".", "cpu.max", "nonsense\n");
    by_cgroup_read(&g, root, "/nowhere");
    assert_int_equal(g.n_cpus, 0);
    assert_true(g.memory_free == UINT64_MAX && g.memory_max == UINT64_MAX);
}

static int tear_down(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_least_of_a_group_and_those_above_it_counts, set_up),
        cmocka_unit_test(version_1_has_a_tree_for_each_controller),
        cmocka_unit_test(a_container_has_its_limits_at_the_root),
        cmocka_unit_test_teardown(what_cannot_be_read_limits_nothing, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
