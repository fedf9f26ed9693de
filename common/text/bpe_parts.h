/* bpe_parts.h - the merges, and the room to merge in: between bpe_merges.c, which makes them, and bpe.c, which merges.
 *
 *     "u g" ─bpe_merges.c─▶ merges[by_bpe_slot(u, g)] = {u, g, rank 0, ug} ─bpe.c─▶ a word's ids
 *
 * Always: a slot in three is empty, so a search ends; ids are below vocab->n.
 * Owner: bpe.c, whose innermost loop by_bpe_find is; nobody else includes this. */
#ifndef COMMON_TEXT_BPE_PARTS_H
#define COMMON_TEXT_BPE_PARTS_H

#include "common/base/buf.h"
#include "common/text/bpe.h"
#include "common/text/rank_heap.h"

enum {
    NONE = 0xFFFFFFFFu, /* no such pair, no such symbol */
    WINDOW = 1024,      /* symbols that are merged at once: heap and lists stay in the cache */
};

struct by_bpe_merge {
    uint32_t left, right, rank, id; /* left == NONE: an empty slot */
};

/* What two symbols become: a merge without its key. */
struct by_bpe_pair {
    uint32_t rank, id; /* rank NONE: no such merge */
};

/* Merges that wait to be looked up together: two pieces each. */
struct by_bpe_pending {
    struct by_buf text;
    size_t end[BY_VOCAB_MANY_MAX]; /* of each piece in text */
    size_t n;
};

struct by_bpe_symbols {
    uint32_t *id;          /* [n] */
    uint32_t *rank;        /* [n] of the pair (i, next[i]); NONE: no such pair */
    uint32_t *merged;      /* [n] what that pair becomes */
    uint32_t *prev, *next; /* [n] NONE at the ends */
    size_t cap;
    struct by_rank_heap heap; /* rank << 32 | position */
};

struct by_bpe {
    const struct by_vocab *vocab, *words;
    struct by_bpe_options o;
    struct by_bpe_merge *merges; /* [1 << bits] */
    unsigned bits;
    uint32_t n_merges, next_rank, last_joined;
    /* the token of one byte: alphabet, or <0xNN> with byte_fallback; NONE */
    uint32_t byte_ids[256];
    uint32_t byte_id_min, byte_id_max; /* of those; NONE, 0 without any */
    bool has_all_bytes, merges_bytes;  /* a merge takes a byte's token */
    bool is_borrowed;                  /* thawed: merges are not ours */
    struct by_bpe_symbols s;
    size_t window;
    struct by_bpe_pending pending;
    struct by_bpe_pair *byte_pairs; /* [256 * 256] of two bytes; NULL: not byte level */
    char *joined;                   /* room for two pieces */
    size_t joined_cap;
};

static inline uint32_t by_bpe_home(const struct by_bpe *b, uint32_t left, uint32_t right) {
    uint64_t key = (uint64_t)left << 32 | right;
    return (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> (64 - b->bits));
}

static inline uint32_t by_bpe_slot(const struct by_bpe *b, uint32_t left, uint32_t right) {
    uint32_t mask = (1u << b->bits) - 1, i = by_bpe_home(b, left, right);
    while (b->merges[i].left != NONE && (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & mask;
    return i;
}

static inline void by_bpe_find(const struct by_bpe *b, uint32_t left, uint32_t right,
                               uint32_t *rank, uint32_t *id) {
    const struct by_bpe_merge *m = &b->merges[by_bpe_slot(b, left, right)];
    *rank = m->left == NONE ? NONE : m->rank;
    *id = m->id;
}

#endif
