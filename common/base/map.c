#include "common/base/map.h"

#include "common/base/mem.h"
#include "common/base/rand.h"

enum { FIRST_CAP = 16 };

/* Keys may come from outside (rids): a seed nobody can guess keeps probe chains short. */
static uint64_t mix(uint64_t key) {
    static uint64_t seed;
    if (!seed) seed = by_rand_u64() | 1;
    uint64_t state = key ^ seed;
    return by_rand_next(&state);
}

static bool is_loaded(size_t n, size_t cap) {
    return (n + 1) * 4 > cap * 3;
}

void by_map_init(struct by_map *m) {
    *m = (struct by_map){0};
}

void by_map_release(struct by_map *m) {
    by_free(m->slots);
    by_map_init(m);
}

void by_map_clear(struct by_map *m) {
    if (m->cap) memset(m->slots, 0, m->cap * sizeof *m->slots);
    m->n = 0;
}

/* The slot that holds key, or the empty one where it belongs. cap > 0. */
static size_t map_find(const struct by_map *m, uint64_t key) {
    size_t i = mix(key) & (m->cap - 1);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

static void map_resize(struct by_map *m, size_t cap) {
    struct by_map other = {.n = m->n, .cap = cap};
    other.slots = by_alloc_array(cap, sizeof *other.slots);
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].value) other.slots[map_find(&other, m->slots[i].key)] = m->slots[i];
    }
    by_free(m->slots);
    *m = other;
}

void by_map_fit(struct by_map *m) {
    size_t cap = FIRST_CAP;
    while (is_loaded(2 * m->n, cap))
        cap *= 2;
    if (cap < m->cap / 4) map_resize(m, cap);
}

void by_map_put(struct by_map *m, uint64_t key, void *value) {
    if (is_loaded(m->n, m->cap)) map_resize(m, m->cap ? m->cap * 2 : FIRST_CAP);
    struct by_map_slot *s = &m->slots[map_find(m, key)];
    m->n += s->value == NULL;
    *s = (struct by_map_slot){key, value};
}

void *by_map_get(const struct by_map *m, uint64_t key) {
    return m->cap ? m->slots[map_find(m, key)].value : NULL;
}

void *by_map_remove(struct by_map *m, uint64_t key) {
    if (!m->cap) return NULL;
    size_t hole = map_find(m, key);
    void *old = m->slots[hole].value;
    if (!old) return NULL;
    for (size_t i = hole;;) { /* shift back whoever would no longer be found */
        i = (i + 1) & (m->cap - 1);
        if (!m->slots[i].value) break;
        size_t home = mix(m->slots[i].key) & (m->cap - 1);
        if (((i - home) & (m->cap - 1)) < ((i - hole) & (m->cap - 1))) continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct by_map_slot){0};
    m->n--;
    return old;
}

bool by_map_next(const struct by_map *m, size_t *i, uint64_t *key, void **value) {
    while (*i < m->cap) {
        const struct by_map_slot *s = &m->slots[(*i)++];
        if (!s->value) continue;
        *key = s->key;
        *value = s->value;
        return true;
    }
    return false;
}

void by_strmap_init(struct by_strmap *m) {
    *m = (struct by_strmap){0};
}

void by_strmap_release(struct by_strmap *m) {
    by_free(m->slots);
    by_strmap_init(m);
}

static size_t strmap_find(const struct by_strmap *m, struct by_str key, uint64_t hash) {
    size_t i = hash & (m->cap - 1);
    while (m->slots[i].is_used && !(m->slots[i].hash == hash && by_str_eq(m->slots[i].key, key))) {
        i = (i + 1) & (m->cap - 1);
    }
    return i;
}

static void strmap_resize(struct by_strmap *m, size_t cap) {
    struct by_strmap bigger = {.n = m->n, .cap = cap};
    bigger.slots = by_alloc_array(cap, sizeof *bigger.slots);
    for (size_t i = 0; i < m->cap; i++) {
        const struct by_strmap_slot *s = &m->slots[i];
        if (s->is_used) bigger.slots[strmap_find(&bigger, s->key, s->hash)] = *s;
    }
    by_free(m->slots);
    *m = bigger;
}

void by_strmap_reserve(struct by_strmap *m, size_t n) {
    size_t cap = m->cap ? m->cap : FIRST_CAP;
    while (is_loaded(n, cap))
        cap *= 2;
    if (cap != m->cap) strmap_resize(m, cap);
}

void by_strmap_put(struct by_strmap *m, struct by_str key, uint64_t value) {
    if (is_loaded(m->n, m->cap)) strmap_resize(m, m->cap ? m->cap * 2 : FIRST_CAP);
    uint64_t hash = by_str_hash(key);
    struct by_strmap_slot *s = &m->slots[strmap_find(m, key, hash)];
    m->n += !s->is_used;
    *s = (struct by_strmap_slot){key, hash, value, true};
}

bool by_strmap_get(const struct by_strmap *m, struct by_str key, uint64_t *value) {
    if (!m->cap) return false;
    const struct by_strmap_slot *s = &m->slots[strmap_find(m, key, by_str_hash(key))];
    if (s->is_used) *value = s->value;
    return s->is_used;
}

bool by_strmap_remove(struct by_strmap *m, struct by_str key, uint64_t *value) {
    if (!m->cap) return false;
    size_t hole = strmap_find(m, key, by_str_hash(key));
    if (!m->slots[hole].is_used) return false;
    *value = m->slots[hole].value;
    for (size_t i = hole;;) {
        i = (i + 1) & (m->cap - 1);
        if (!m->slots[i].is_used) break;
        size_t home = m->slots[i].hash & (m->cap - 1);
        if (((i - home) & (m->cap - 1)) < ((i - hole) & (m->cap - 1))) continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct by_strmap_slot){0};
    m->n--;
    return true;
}
