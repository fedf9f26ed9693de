/* pretok_parts.h - the steps of a pre-tokenizer: between pretok.c, which runs them, and pretok_parse.c, which reads them.
 *
 *     {"type": "Split", "pattern": {"Regex": …}} ─pretok_parse.c─▶ struct by_pretok_step {REGEX, …} ─pretok.c─▶ words
 *
 * Always: n <= BY_PRETOK_STEPS_MAX once the file is read; two more may be put behind.
 * Owner: pretok.c; nobody else includes this. */
#ifndef COMMON_TEXT_PRETOK_PARTS_H
#define COMMON_TEXT_PRETOK_PARTS_H

#include "common/text/metaspace.h"
#include "common/text/pretok.h"
#include "common/text/regex.h"
#include "common/text/scan.h"

enum by_pretok_kind {
    SCAN,      /* a hand-written scanner: every piece is a word */
    REGEX,     /* split at matches of a regular expression */
    LITERAL,   /* split at a string */
    CHARS,     /* split at characters of a kind */
    RUNS,      /* Whitespace: words are runs of \w and runs of neither \w nor \s */
    METASPACE, /* ' ' becomes ▁, one may be put before */
    PREFIX,    /* ByteLevel's add_prefix_space */
    SPELL,     /* bytes as GPT-2's alphabet writes them */
    FIXED,     /* FixedLength */
    PAIRS,     /* by_pretok_split_between */
};
enum by_pretok_behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
typedef bool by_pretok_char_fn(const struct by_uni *u, uint32_t cp, uint32_t arg);

struct by_pretok_step {
    enum by_pretok_kind kind;
    enum by_pretok_behavior behavior;
    bool is_inverted;
    by_scan_fn *scan;
    struct by_regex *regex;
    by_pretok_char_fn *is_char;
    uint32_t arg; /* of is_char; FixedLength's length */
    char *text;   /* the literal, Metaspace's replacement; ours */
    size_t text_n;
    enum by_metaspace_scheme scheme;
    uint64_t *pairs;       /* [1 << PAIR_BITS] bits; ours */
    bool is_borrowed;      /* thawed: pairs are not */
    struct by_buf scratch; /* the rewritten text */
};

enum {
    PAIR_BITS = 21
}; /* 256 KiB: some 200,000 pairs of a large vocabulary leave nine of ten bits clear */

struct by_pretok {
    const struct by_uni *u;
    /* those of the file, by_pretok_spell, by_pretok_split_between */
    struct by_pretok_step steps[BY_PRETOK_STEPS_MAX + 2];
    unsigned n;
    bool is_byte_level, is_spelled;
};

void by_pretok_release_step(struct by_pretok_step *s);

#endif
