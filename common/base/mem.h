/* mem.h - the one door to malloc.
 *
 * by_alloc & co never return NULL: when the machine is out of memory the process ends with one line and recovery
 * (DESIGN D5) takes over. Sizes that came from outside are bounded first and use by_try_alloc, which returns NULL.
 *
 * Always: by_mem_n_live() == allocations not yet freed. What happens when there is none tests find out from outside (fail_nth.c).
 * Owner: whoever called alloc. Thread safe (counters are atomic). */
#ifndef COMMON_BASE_MEM_H
#define COMMON_BASE_MEM_H

#include "common/base/base.h"

/* zeroed; n == 0 gives a unique pointer */
BY_MUST_USE void *by_alloc(size_t n);
/* zeroed; an overflow ends the process */
BY_MUST_USE void *by_alloc_array(size_t n, size_t each);
BY_MUST_USE void *by_realloc(void *p, size_t n); /* new bytes are not zeroed */
BY_MUST_USE void *by_realloc_array(void *p, size_t n, size_t each);
BY_MUST_USE void *by_try_alloc(size_t n); /* not zeroed; NULL when there is none */
BY_MUST_USE void *by_try_alloc_aligned(size_t align, size_t n); /* not zeroed; free with by_free */
BY_MUST_USE char *by_strdup(const char *s);                     /* NULL gives NULL */
BY_MUST_USE char *by_strndup(const char *s, size_t n);          /* copies n bytes and adds a NUL */
BY_MUST_USE void *by_memdup(const void *p, size_t n);
void by_free(void *p); /* NULL is fine */

uint64_t by_mem_n_live(void);   /* allocations alive now … */
uint64_t by_mem_n_bytes(void);  /* … and the bytes that the heap gave for them */
uint64_t by_mem_n_allocs(void); /* allocations ever made: tests hold steps to 0 */
/* One heap for all threads; before there are any. With one each, what libzmq's thread had at its worst moment helps nobody else. */
void by_mem_one_heap(void);
/* What is free goes back to the machine, from between what is in use too. Reads the whole free list: after a peak, not in a step. */
void by_mem_give_back(void);

#endif
