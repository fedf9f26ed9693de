#include "gpu_worker/cpu/cpu_features.h"

#include "common/base/cgroup.h"
#include "gpu_worker/cpu/cpu_backend.h"

#include <sched.h>
#include <stdio.h>

enum { CPUS_MAX = CPU_SETSIZE };

#if defined(__x86_64__)
/* gcc's builtin asks cpuid and xgetbv. */
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

bool cpu_features_has_bf16(void) {
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#else
static bool has_avx512(void) {
    return false;
}

static bool has_avx2(void) {
    return false;
}

bool cpu_features_has_bf16(void) {
    return false;
}
#endif

enum cpu_isa cpu_isa_best(void) {
    return has_avx512() ? CPU_ISA_AVX512 : has_avx2() ? CPU_ISA_AVX2 : CPU_ISA_PORTABLE;
}

/* The first CPU that shares this one's core; itself when that is not known. */
static int first_sibling(int cpu) {
    char path[96];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (!f) return cpu;
    if (fscanf(f, "%d", &first) != 1) first = cpu;
    fclose(f);
    return first;
}

uint32_t cpu_features_n_cores(void) {
    cpu_set_t mine, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof mine, &mine)) return 1;
    for (int i = 0; i < CPUS_MAX; i++) {
        if (!CPU_ISSET(i, &mine)) continue;
        int core = first_sibling(i);
        if (core >= 0 && core < CPUS_MAX) CPU_SET(core, &cores);
    }
    struct by_cgroup group;
    by_cgroup_read(&group, BY_CGROUP_ROOT, BY_CGROUP_MINE);
    uint32_t n = (uint32_t)CPU_COUNT(&cores);
    if (group.n_cpus && group.n_cpus < n) n = group.n_cpus;
    return n ? n : 1;
}
