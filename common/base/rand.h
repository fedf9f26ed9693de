/* rand.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC11). The same (seed, position, sample) gives the same numbers on any rank, thread or machine.
 *
 *     key = seed (64 bit)      counter = { position, sample, purpose, 0 }
 *
 * Always: no state. by_rand_bytes is the system's randomness, for epochs and seeds.
 * Owner: nobody. */
#ifndef COMMON_BASE_RAND_H
#define COMMON_BASE_RAND_H

#include "common/base/base.h"

void by_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* 64 random bits for token `position` of sample `sample`: the first two words, the first one high. */
uint64_t by_rand_word(uint64_t seed, uint32_t position, uint32_t sample, uint32_t purpose);
void by_rand_bytes(void *out, size_t n);
uint64_t by_rand_u64(void);

/* For tests and simulation: splitmix64, state in one word. */
static inline uint64_t by_rand_next(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

#endif
