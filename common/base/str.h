/* str.h - borrowed slices of bytes: {pointer, length}, not terminated, not owned.
 *
 *     struct by_str s = BY_STR("n=16");   by_str_split(&s, '=', &head) -> head "n", s "16"
 *
 * Always: n == 0 allows p == NULL. A slice lives as long as what it was cut from.
 * Owner: whoever owns the bytes. Number parsers take the whole slice or refuse: no blanks, no trailing text. */
#ifndef COMMON_BASE_STR_H
#define COMMON_BASE_STR_H

#include "common/base/base.h"

#include <string.h>

struct by_str {
    const char *p;
    size_t n;
};

#define BY_STR(literal) ((struct by_str){"" literal, sizeof(literal) - 1})
#define BY_STR_FMT "%.*s" /* printf("…" BY_STR_FMT, BY_STR_ARG(s)) */
#define BY_STR_ARG(s) (int)(s).n, (s).p

static inline struct by_str by_str_of(const char *z) {
    return (struct by_str){z, z ? strlen(z) : 0};
}
bool by_str_eq(struct by_str a, struct by_str b);
bool by_str_eqz(struct by_str a, const char *z);
bool by_str_ieqz(struct by_str a, const char *z); /* ASCII case ignored */
int by_str_cmp(struct by_str a, struct by_str b); /* by bytes, then length */
bool by_str_starts(struct by_str s, struct by_str prefix);
bool by_str_ends(struct by_str s, struct by_str suffix);
struct by_str by_str_sub(struct by_str s, size_t from, size_t n); /* clamped */
struct by_str by_str_trim(struct by_str s);                       /* ASCII blanks off both ends */
/* First position of needle at or after from; SIZE_MAX when it is not there. */
size_t by_str_find(struct by_str s, struct by_str needle, size_t from);
/* Bytes at the end of s with which `mark` begins, fewer than all of it: what may yet become it. */
size_t by_str_overlap(struct by_str s, struct by_str mark);
/* Cuts rest at the first sep: head gets what is before it, rest what is after. False (head = all) without a sep. */
bool by_str_split(struct by_str *rest, char sep, struct by_str *head);

BY_MUST_USE bool by_str_to_u64(struct by_str s, uint64_t *out);
BY_MUST_USE bool by_str_to_i64(struct by_str s, int64_t *out);
/* The n hexadecimal digits (at most 8) of s from `at` on; false when they are not all there. */
BY_MUST_USE bool by_str_hex(struct by_str s, size_t at, size_t n, uint32_t *out);
/* decimal, finite; locale does not matter */
BY_MUST_USE bool by_str_to_f64(struct by_str s, double *out);
BY_MUST_USE bool by_str_to_bool(struct by_str s, bool *out); /* true/false, 1/0, yes/no, on/off */
/* How many letters to put in, take out or change make one of the other; of b the first 64 count. For "did you mean". */
unsigned by_str_distance(const char *a, const char *b);
uint64_t by_str_hash(struct by_str s); /* xxh3; not stable across versions */

#endif
