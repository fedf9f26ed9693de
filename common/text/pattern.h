/* pattern.h - regular expressions as automata, for text that comes in pieces: no backtracking, one step a character.
 *
 *     "(END|\d+%)"  ─parse─▶  nodes: set, split, assertion, match  ─▶  steps over sets of nodes, each remembered (a lazy DFA)
 *
 *     text  a  1  2  %          threads: for each node the earliest place that a match through it may have begun at;
 *                └──┘           the end that comes first wins, and of its matches the one that began first
 *
 * The syntax is Python's re without what an automaton cannot do: back references, look-around, atomic groups and bare $
 * are refused by name, as are patterns that match no character at all.
 * Always: a step costs at most a pass over the nodes; what is remembered is bounded, and dropped when it is full. A match
 * longer than BY_PATTERN_MATCH_MAX bytes is not found, so no more than that is ever in doubt.
 * Owner: one thread, one text at a time. */
#ifndef COMMON_TEXT_PATTERN_H
#define COMMON_TEXT_PATTERN_H

#include "common/base/err.h"
#include "common/base/str.h"

enum {
    BY_PATTERN_BYTES_MAX = 1024,     /* of its text */
    BY_PATTERN_NODES_MAX = 2000,     /* with its repetitions written out */
    BY_PATTERN_SETS_MAX = 128,       /* kinds of characters that it tells apart */
    BY_PATTERN_MATCH_MAX = 64 << 10, /* bytes */
};

struct by_pattern;

BY_MUST_USE int by_pattern_new(struct by_pattern **out, struct by_str text, struct by_err *err);
void by_pattern_free(struct by_pattern *p); /* NULL is fine */

/* One character of `len` bytes. True: a match has ended, [*start, *end) in bytes of the whole text; nothing may be fed
 * afterwards. It ends here or, where the pattern looks ahead (\b, \Z, (?m)$), before this character. */
BY_MUST_USE bool by_pattern_step(struct by_pattern *p, uint32_t cp, size_t len, uint64_t *start,
                                 uint64_t *end);
/* The text has ended. */
BY_MUST_USE bool by_pattern_finish(struct by_pattern *p, uint64_t *start, uint64_t *end);
/* Bytes at the end of what was fed that a match may yet take. */
uint64_t by_pattern_n_held(const struct by_pattern *p);

/* For pattern.c's other half (pattern_parse.c). */
enum by_pattern_op { BY_PATTERN_SET, BY_PATTERN_SPLIT, BY_PATTERN_ASSERT, BY_PATTERN_MATCH };
enum by_pattern_assert {
    BY_AT_START,      /* \A and ^ */
    BY_AT_LINE_START, /* (?m)^ */
    BY_AT_END,        /* \Z */
    BY_AT_LINE_END,   /* (?m)$ */
    BY_AT_WORD,       /* \b */
    BY_AT_NO_WORD,    /* \B */
};
enum { BY_PATTERN_NONE = 0xFFFF };
struct by_pattern_node {
    uint8_t op;
    uint8_t arg;   /* the set, or the assertion */
    uint16_t a, b; /* where it goes on; b of a SPLIT only, may be BY_PATTERN_NONE */
};
enum by_pattern_class { BY_CLASS_WORD = 1, BY_CLASS_DIGIT = 2, BY_CLASS_SPACE = 4 };
struct by_pattern_range {
    uint32_t low, high;
};
struct by_pattern_set {
    bool is_negated, ignores_case;
    uint8_t has, has_not; /* enum by_pattern_class: \w in it, \W in it */
    uint32_t first, n;    /* ranges */
};
struct by_pattern_code {
    struct by_pattern_node nodes[BY_PATTERN_NODES_MAX];
    uint32_t n_nodes, start;
    struct by_pattern_set sets[BY_PATTERN_SETS_MAX];
    uint32_t n_sets;
    struct by_pattern_range *ranges;
    uint32_t n_ranges, cap_ranges;
};
BY_MUST_USE int by_pattern_parse(struct by_pattern_code *c, struct by_str text, struct by_err *err);

#endif
