/* trie.h - strings by their beginnings: which known strings does this text start with?
 *
 *     put "he" 1, "hello" 2, "hi" 3:      root ─h─▶ · ─e─▶ 1 ─l─▶ · ─l─▶ · ─o─▶ 2
 *                                                  └─i─▶ 3
 *     frozen: a node's children lie side by side, their bytes in one array, so that memchr finds the next step
 *
 * Always: node 0 is the root, and no child; values are below BY_TRIE_NONE. 9 bytes a node once frozen.
 * Owner: whoever holds the struct; read-only once frozen. */
#ifndef COMMON_TEXT_TRIE_H
#define COMMON_TEXT_TRIE_H

#include "common/text/frozen.h"

#include <string.h>

enum { BY_TRIE_NONE = 0xFFFFFFFFu, BY_TRIE_NODES_MAX = 1 << 26 };

struct by_trie {
    uint32_t n;                  /* nodes */
    uint8_t *byte;               /* [n] the step that leads to it */
    uint32_t *first;             /* [n + 1] its children are first[i] … first[i + 1] - 1 */
    uint32_t *value;             /* [n] of the string that ends here, or BY_TRIE_NONE */
    struct by_trie_loose *loose; /* before it is frozen */
    uint32_t n_loose, loose_cap;
    bool is_borrowed; /* thawed: the arrays are not ours */
};

void by_trie_init(struct by_trie *t);
void by_trie_release(struct by_trie *t);
/* A string put again takes the new value. False: the trie is full. */
BY_MUST_USE bool by_trie_put(struct by_trie *t, struct by_str s, uint32_t value);
void by_trie_freeze(struct by_trie *t);

void by_trie_write(const struct by_trie *t, struct by_buf *out); /* frozen before */
/* Values below n_values; else, and when it is no trie, from->is_bad. */
void by_trie_thaw(struct by_trie *t, struct by_thaw *from, uint32_t n_values);

/* The child of `node` by this byte; 0: there is none. */
static inline uint32_t by_trie_child(const struct by_trie *t, uint32_t node, uint8_t byte) {
    uint32_t from = t->first[node], n = t->first[node + 1] - from;
    const uint8_t *at = n ? memchr(t->byte + from, byte, n) : NULL;
    return at ? (uint32_t)(at - t->byte) : 0;
}
/* The longest known string that s begins with, from `node` on: its length, and its value; 0 and NONE when none. */
size_t by_trie_longest(const struct by_trie *t, uint32_t node, struct by_str s, uint32_t *value);
/* The node at the end of s from the root; 0 when there is none (or s is empty). */
uint32_t by_trie_walk(const struct by_trie *t, struct by_str s);

#endif
