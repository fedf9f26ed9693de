#include "common/base/clock.h"

#include <stdatomic.h>
#include <time.h>

static atomic_uint_fast64_t frozen;

static uint64_t read_ns(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * BY_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t by_now_ns(void) {
    uint64_t f = atomic_load_explicit(&frozen, memory_order_relaxed);
    return f ? f : read_ns(CLOCK_MONOTONIC);
}

uint64_t by_wall_ns(void) {
    return read_ns(CLOCK_REALTIME);
}

void by_clock_set_ns(uint64_t now) {
    atomic_store(&frozen, now);
}
