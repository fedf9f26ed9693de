/* frozen.h - arrays written one after the other into a file, and read back in place from a mapping.
 *
 *     u64 n │ padding to 64 │ n elements │ u64 n │ …            by_freeze and by_thaw in the same order
 *
 * Always: what by_thaw gives lies inside the bytes and is aligned to 64; the first array that does not fit sets is_bad, and
 * from then on every array is empty, so that the caller asks once. What the elements say is the caller's to check.
 * Owner: the caller; thawed arrays live as long as the bytes. */
#ifndef COMMON_TEXT_FROZEN_H
#define COMMON_TEXT_FROZEN_H

#include "common/base/buf.h"

struct by_thaw {
    struct by_str bytes; /* aligned to 64 */
    size_t at;
    bool is_bad;
};

void by_freeze(struct by_buf *out, const void *p, size_t n, size_t each);
/* *n elements; never NULL. */
const void *by_thaw(struct by_thaw *t, size_t each, size_t *n);
/* The same when just so many are right; else is_bad, and room for none. */
const void *by_thaw_n(struct by_thaw *t, size_t each, size_t n);
struct by_str by_thaw_str(struct by_thaw *t);
/* A struct by value, or zeros. */
void by_thaw_one(struct by_thaw *t, void *out, size_t size);

#endif
