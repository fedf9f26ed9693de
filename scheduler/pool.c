#include "scheduler/pool.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <string.h>

static uint32_t class_of(size_t n) {
    uint32_t k = 0;
    while (((size_t)POOL_LEAST << k) < n)
        k++;
    return k;
}

void pool_init(struct pool *p) {
    *p = (struct pool){0};
}

void pool_release(struct pool *p) {
    for (uint32_t k = 0; k < POOL_CLASSES; k++) {
        while (p->kept[k]) {
            void *block = p->kept[k];
            memcpy(&p->kept[k], block, sizeof(void *));
            by_free(block);
        }
    }
}

void *pool_get(struct pool *p, size_t n, size_t *cap) {
    uint32_t k = class_of(n);
    *cap = (size_t)POOL_LEAST << k;
    if (k >= POOL_CLASSES || !p->kept[k]) return by_alloc(*cap);
    void *block = p->kept[k];
    memcpy(&p->kept[k], block, sizeof(void *));
    p->n_kept -= *cap;
    return block;
}

void pool_put(struct pool *p, void *block, size_t cap) {
    if (!block) return;
    uint32_t k = class_of(cap);
    by_assert(cap == (size_t)POOL_LEAST << k);
    if (k >= POOL_CLASSES) {
        by_free(block);
        return;
    }
    memcpy(block, &p->kept[k], sizeof(void *));
    p->kept[k] = block;
    p->n_kept += cap;
}

void *pool_grow(struct pool *p, void *block, size_t used, size_t n, size_t *cap) {
    if (n <= *cap) return block;
    size_t new_cap;
    void *bigger = pool_get(p, n, &new_cap);
    if (used) memcpy(bigger, block, used);
    pool_put(p, block, *cap);
    *cap = new_cap;
    return bigger;
}
