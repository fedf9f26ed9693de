/* jops.h - what Python's operators do to values: truth, order, arithmetic, indexing, iteration.
 *
 *     7 // -2 -> -4    7 % -2 -> -1    1 / 2 -> 0.5    "ab" * 2 -> "abab"    [1, 2, 3][::-1] -> [3, 2, 1]
 *
 * Always: a mistake of types fails the run with Python's sentence; a size is checked before anything is allocated.
 * Owner: the run. */
#ifndef COMMON_TEMPLATE_JOPS_H
#define COMMON_TEMPLATE_JOPS_H

#include "common/template/jast.h"
#include "common/template/jmethod.h"

bool by_jops_truth(const struct by_jval *v);
bool by_jops_is_number(const struct by_jval *v); /* bool counts, as in Python */
double by_jops_number(const struct by_jval *v);  /* of such a value */
/* a < b: -1, a == b: 0, a > b: 1; 2: unordered (NaN). Fails the run for types without an order between them. */
int by_jops_order(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b,
                  const char *op);
bool by_jops_contains(struct by_jrun *r, const struct by_jval *in, const struct by_jval *what);
bool by_jops_compare(struct by_jrun *r, enum by_jcmp op, const struct by_jval *a,
                     const struct by_jval *b);
struct by_jval by_jops_binary(struct by_jrun *r, enum by_jop op, const struct by_jval *a,
                              const struct by_jval *b);
struct by_jval by_jops_negate(struct by_jrun *r, const struct by_jval *a, bool keep);
int64_t by_jops_len(struct by_jrun *r, const struct by_jval *v); /* Python's len(); -1: failed */

/* obj.name: the method or attribute first, then the item. obj[key]: the other way round. Missing: undefined.
 * attr: what by_jmethod_find says of the name. */
struct by_jval by_jops_attr(struct by_jrun *r, const struct by_jval *obj,
                            const struct by_jval *name, const struct by_jattr *attr);
struct by_jval by_jops_item_named(struct by_jrun *r, const struct by_jval *obj,
                                  const struct by_jval *key, const struct by_jattr *attr);
struct by_jval by_jops_item(struct by_jrun *r, const struct by_jval *obj,
                            const struct by_jval *key);
/* start, stop, step: NONE when left out. */
struct by_jval by_jops_slice(struct by_jrun *r, const struct by_jval *obj,
                             const struct by_jval part[3]);
/* All items, as iterating gives them: characters of a str, keys of a dict. The list is new or may not be changed.
 * NULL: the run has failed. An iterator is used up. */
struct by_jlist *by_jops_iterate(struct by_jrun *r, const struct by_jval *v);

#endif
