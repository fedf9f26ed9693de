/* word_cache.h - remembers what words became, since most words of a text were met before.
 *
 *     hash(word) ─▶ one slot of 64 bytes: n_word, n_ids, word[38], ids[6]        a new word takes the slot over
 *
 * Always: a hit compares all bytes; a word too long for the slot, or of too many ids, is never kept.
 * Owner: one tokenizer, one thread. 2 MiB, and no allocation after the first. */
#ifndef COMMON_TEXT_WORD_CACHE_H
#define COMMON_TEXT_WORD_CACHE_H

#include "common/base/str.h"

#include <string.h>

#ifndef BY_CACHED_BITS
#define BY_CACHED_BITS 15 /* fewer for fuzzing, whose tokenizers live for a text or two */
#endif
enum { BY_CACHED_BYTES = 38, BY_CACHED_IDS = 6 };

struct by_cached_word {
    uint8_t n_word; /* 0: empty */
    uint8_t n_ids;
    char word[BY_CACHED_BYTES];
    uint32_t ids[BY_CACHED_IDS];
};
static_assert(sizeof(struct by_cached_word) == 64, "one cache line");

static inline struct by_cached_word *by_word_cache_new(void) {
    return by_alloc_array((size_t)1 << BY_CACHED_BITS, sizeof(struct by_cached_word));
}

static inline uint64_t by_word_mix(uint64_t h, uint64_t part) {
    h = (h ^ part) * UINT64_C(0x9FB21C651E98DF25);
    return h ^ h >> 32;
}

/* The word's slot; NULL when it is too long for one. */
static inline struct by_cached_word *by_word_cache_slot(struct by_cached_word *cache,
                                                        struct by_str word) {
    if (word.n > BY_CACHED_BYTES) return NULL;
    uint64_t h = word.n, part;
    size_t i = 0;
    for (; i + 8 <= word.n; i += 8) {
        memcpy(&part, word.p + i, 8);
        h = by_word_mix(h, part);
    }
    if (i < word.n) {
        part = 0;
        memcpy(&part, word.p + i, word.n - i);
        h = by_word_mix(h, part);
    }
    return &cache[(h * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - BY_CACHED_BITS)];
}

static inline bool by_word_cache_hit(const struct by_cached_word *slot, struct by_str word) {
    return slot->n_word == word.n && memcmp(slot->word, word.p, word.n) == 0;
}

static inline void by_word_cache_put(struct by_cached_word *slot, struct by_str word,
                                     const uint32_t *ids, size_t n) {
    if (n > BY_CACHED_IDS || !word.n) return;
    slot->n_word = (uint8_t)word.n;
    slot->n_ids = (uint8_t)n;
    memcpy(slot->word, word.p, word.n);
    if (n) memcpy(slot->ids, ids, n * sizeof *ids);
}

#endif
