/* scan.h - well-known split patterns as hand-written scanners.
 *
 *     "Hello  world's 42\n"  ─gpt2─▶  [Hello][ ][ world]['s][ 42][\n]
 *
 * A scanner looks at the text's start and says how long the first piece is. These patterns match at every character,
 * so calling it again behind each piece cuts the whole text, in one pass, without backtracking.
 * Always: 1 <= result <= n; pieces end on characters. The table names the regular expression that each one stands for;
 * test_scan compares them on random text.
 * Owner: no state. */
#ifndef COMMON_TEXT_SCAN_H
#define COMMON_TEXT_SCAN_H

#include "common/text/unicode.h"

/* p: n >= 1 bytes of valid UTF-8. What lies behind p + n does not exist. */
typedef size_t by_scan_fn(const struct by_uni *u, const char *p, size_t n);

struct by_scan {
    const char *name;
    by_scan_fn *fn;
    const char *pattern; /* as tokenizer.json spells it, in Oniguruma's syntax */
};

const struct by_scan *by_scan_find(struct by_str pattern); /* NULL: none of ours */
const struct by_scan *by_scan_at(size_t i); /* the table, for tests; NULL at its end */

by_scan_fn by_scan_gpt2;
/* Digits(individual) and then GPT-2's pattern on what lies between (SmolLM, StarCoder2). */
by_scan_fn by_scan_digits_gpt2;
/* DeepSeek-V3's three Splits, Isolated all: numbers, Chinese and kana, and a pattern for what lies between these. */
by_scan_fn by_scan_deepseek_v3;
extern const char *const by_scan_deepseek_v3_steps[3];

#endif
