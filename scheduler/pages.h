/* pages.h - hands out KV cache page numbers of one replica.
 *
 *     free stack: [ 7 3 9 |>        refs: page 0:2  1:1  2:0 ...
 *
 * A page has one ref for each sequence that lists it and one if the tree holds it; the last one to give it back
 * frees it.
 * Always: n_free + (pages with refs > 0) == n_pages; a page on the stack has 0 refs and is there once.
 * Owner: the scheduler core, one thread. What memory lies behind a number only gpu_worker knows. */
#ifndef SCHEDULER_PAGES_H
#define SCHEDULER_PAGES_H

#include "common/base/base.h"

struct pages;
struct pages *pages_new(uint32_t n_pages);
void pages_free(struct pages *p); /* NULL is fine */
/* Fill out[] with n page numbers, one ref each. All or nothing: false when fewer are free. */
BY_MUST_USE bool pages_take(struct pages *p, uint32_t n, uint32_t *out);
void pages_share(struct pages *p, const uint32_t *ids, uint32_t n); /* one more ref each */
void pages_give(struct pages *p, const uint32_t *ids, uint32_t n);  /* one ref less each */
uint32_t pages_n(const struct pages *p);
uint32_t pages_n_free(const struct pages *p);
uint32_t pages_refs(const struct pages *p, uint32_t id);
bool pages_check(const struct pages *p);

#endif
