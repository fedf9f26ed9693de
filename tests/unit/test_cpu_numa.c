/* Memory spread over nodes is memory like any other, on machines of one node too. */
#include "gpu_worker/cpu/cpu_numa.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/test.h"

enum { BYTES = 8 << 20, MPOL_INTERLEAVE = 3, MPOL_F_ADDR = 1 << 1 }; /* as in set_mempolicy(2) */

static void need_nodes(void) {
    if (!cpu_numa_nodes()) skip(); /* a container may forbid to ask */
}

TEST(nodes_are_some_of_those_that_are_online) {
    UNUSED_STATE;
    need_nodes();
    FILE *f = fopen("/sys/devices/system/node/online", "re");
    unsigned first, last;
    if (!f) skip();
    int n = fscanf(f, "%u-%u", &first, &last);
    fclose(f);
    if (n == 1) last = first;
    if (n < 1 || last > 63) skip();
    uint64_t nodes = cpu_numa_nodes();
    for (unsigned i = 0; i < 64; i++) {
        if (i < first || i > last) assert_int_equal(nodes >> i & 1, 0);
    }
}

TEST(spread_memory_has_the_policy_and_keeps_what_is_written) {
    UNUSED_STATE;
    need_nodes();
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int policy = -1;
    assert_true(p != MAP_FAILED);
    if (!cpu_numa_spread(p, BYTES, cpu_numa_nodes())) {
        munmap(p, BYTES);
        skip();
    }
    assert_int_equal(syscall(SYS_get_mempolicy, &policy, NULL, 0ul, p, (unsigned long)MPOL_F_ADDR),
                     0);
    assert_int_equal(policy, MPOL_INTERLEAVE);
    for (size_t i = 0; i < BYTES; i += 1000)
        p[i] = (uint8_t)(i / 1000);
    for (size_t i = 0; i < BYTES; i += 1000)
        assert_int_equal(p[i], (uint8_t)(i / 1000));
    munmap(p, BYTES);
}

TEST(no_nodes_are_refused) {
    UNUSED_STATE;
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_false(cpu_numa_spread(p, BYTES, 0));
    p[BYTES - 1] = 7;
    assert_int_equal(p[BYTES - 1], 7);
    munmap(p, BYTES);
}

TESTS(RUN(nodes_are_some_of_those_that_are_online),
      RUN(spread_memory_has_the_policy_and_keeps_what_is_written), RUN(no_nodes_are_refused));
