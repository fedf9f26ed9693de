/* map.h - open addressing hash maps: u64 -> pointer, and bytes -> u64.
 *
 *     slots: power of two, linear probing, backward-shift deletion (no tombstones), load <= 3/4
 *
 * Always: n == number of keys; iteration order is not specified. by_map keys hash by a mixer that outside bytes
 * cannot aim at (a per-process seed).
 * Owner: one thread. by_strmap borrows its keys: they must outlive the map. */
#ifndef COMMON_BASE_MAP_H
#define COMMON_BASE_MAP_H

#include "common/base/str.h"

struct by_map_slot {
    uint64_t key;
    void *value; /* NULL marks an empty slot */
};
struct by_map {
    struct by_map_slot *slots;
    size_t n, cap;
};
void by_map_init(struct by_map *m);
void by_map_release(struct by_map *m);
void by_map_put(struct by_map *m, uint64_t key, void *value); /* value != NULL; replaces */
void *by_map_get(const struct by_map *m, uint64_t key);       /* NULL when it is not there */
void *by_map_remove(struct by_map *m, uint64_t key);          /* the old value or NULL */
void by_map_clear(struct by_map *m);
/* Gives room back when it has less than about a twentieth of its slots in use. */
void by_map_fit(struct by_map *m);
/* size_t i = 0; while (by_map_next(&m, &i, &key, &value)) …   do not change the map meanwhile */
bool by_map_next(const struct by_map *m, size_t *i, uint64_t *key, void **value);

struct by_strmap_slot {
    struct by_str key;
    uint64_t hash;
    uint64_t value;
    bool is_used;
};
struct by_strmap {
    struct by_strmap_slot *slots;
    size_t n, cap;
};
void by_strmap_init(struct by_strmap *m);
void by_strmap_release(struct by_strmap *m);
void by_strmap_reserve(struct by_strmap *m, size_t n);
void by_strmap_put(struct by_strmap *m, struct by_str key, uint64_t value);
BY_MUST_USE bool by_strmap_get(const struct by_strmap *m, struct by_str key, uint64_t *value);
BY_MUST_USE bool by_strmap_remove(struct by_strmap *m, struct by_str key, uint64_t *value);

#endif
