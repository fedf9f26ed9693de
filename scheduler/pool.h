/* pool.h - memory blocks in powers of two, kept for the next user: what makes a warm step allocate nothing.
 *
 *     class 0: 64 B  [] -> []          a block is got with its capacity and put back with the same capacity
 *     class 1: 128 B []
 *     class 2: 256 B [] -> [] -> []    from 1 MiB up, blocks go straight back to the system
 *
 * Always: a block's capacity is 64 << class; contents are not cleared.
 * Owner: the scheduler core, one thread. Blocks must be put back before pool_release, or they leak. */
#ifndef SCHEDULER_POOL_H
#define SCHEDULER_POOL_H

#include "common/base/base.h"

enum { POOL_CLASSES = 15, POOL_LEAST = 64 };

struct pool {
    void *kept[POOL_CLASSES]; /* the first bytes of a kept block point to the next one */
    size_t n_kept;            /* bytes of all of them */
};

void pool_init(struct pool *p);
void pool_release(struct pool *p);
/* At least n bytes; *cap is how many. */
BY_MUST_USE void *pool_get(struct pool *p, size_t n, size_t *cap);
void pool_put(struct pool *p, void *block, size_t cap); /* NULL is fine */
/* A block of at least n bytes with the first `used` bytes of the old one, which is put back. NULL with *cap 0 is an
 * empty old block. */
BY_MUST_USE void *pool_grow(struct pool *p, void *block, size_t used, size_t n, size_t *cap);

#endif
