/* Arenas of device memory, scratch of a step, tables of weights. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "gpu_worker/cuda/cuda.h"

enum { ALIGN = 256, CHUNK_MIN = 64 << 20 };

/* One allocation of the device. Big arrays have their own; small ones share, and it goes with the last of them. */
struct chunk {
    struct chunk *next;
    uint8_t *base;
    size_t cap, n_used;
    uint32_t n_live;
};

static struct chunk *chunk_new(struct cuda *c, size_t cap) {
    uint8_t *base = port_malloc(c->port, cap);
    if (!base) return NULL;
    struct chunk *k = by_alloc(sizeof *k);
    *k = (struct chunk){.base = base, .cap = cap};
    return k;
}

void *cuda_alloc(struct cuda *c, size_t bytes, enum cuda_purpose what) {
    if (bytes > SIZE_MAX / 2) return NULL;
    bool is_alone = port_is_checked(c->port) || bytes >= CHUNK_MIN / 4;
    size_t n = BY_MAX(bytes, (size_t)1);
    if (!is_alone) n = BY_ALIGN_UP(n, (size_t)ALIGN);
    struct chunk *k = c->chunks[what];
    if (is_alone || !k || k->cap - k->n_used < n) {
        k = chunk_new(c, is_alone ? n : CHUNK_MIN);
        if (!k) return NULL;
        bool is_behind = is_alone && c->chunks[what]; /* the one that still has room stays first */
        struct chunk **at = is_behind ? &c->chunks[what]->next : &c->chunks[what];
        k->next = *at;
        *at = k;
    }
    uint8_t *p = k->base + k->n_used;
    if (port_zero(c->port, p, n)) return NULL;
    k->n_used += n;
    k->n_live++;
    c->n_bytes[what] += n;
    return p;
}

static void chunk_free(struct cuda *c, struct chunk *k) {
    port_free(c->port, k->base);
    by_free(k);
}

void cuda_free(struct cuda *c, void *p) {
    if (!p) return;
    for (int what = 0; what < 3; what++) {
        for (struct chunk **at = &c->chunks[what]; *at; at = &(*at)->next) {
            struct chunk *k = *at;
            if ((uint8_t *)p < k->base || (uint8_t *)p >= k->base + k->cap) continue;
            if (--k->n_live > 0) return;
            *at = k->next;
            c->n_bytes[what] -= k->n_used;
            chunk_free(c, k);
            return;
        }
    }
}

void cuda_free_all(struct cuda *c) {
    for (int what = 0; what < 3; what++) {
        while (c->chunks[what]) {
            struct chunk *k = c->chunks[what];
            c->chunks[what] = k->next;
            chunk_free(c, k);
        }
    }
}

bool cuda_reserve(struct cuda *c, uint32_t k_pad) {
    if (!c->parts) c->parts = cuda_alloc(c, c->part_bytes, CUDA_MEM_OTHER);
    if (k_pad <= c->prepared_pad) return c->parts;
    cuda_free(c, c->prepared);
    size_t bytes = (size_t)CUDA_BLOCK_ROWS * k_pad * sizeof(float);
    c->prepared = cuda_alloc(c, bytes, CUDA_MEM_OTHER);
    c->prepared_pad = c->prepared ? k_pad : 0;
    return c->prepared && c->parts;
}

float *cuda_get(struct cuda *c, const float *p, size_t n, size_t n_more) {
    if (n > SIZE_MAX / sizeof *p - n_more) return NULL;
    size_t bytes = n * sizeof *p, room = (n + n_more) * sizeof *p;
    if (room > c->host_bytes) { /* an earlier sum may still be on its way from there */
        if (c->host && queue_wait(c->queue, c->options.deadline_ms)) return NULL;
        port_pinned_free(c->port, c->host);
        c->host = port_pinned(c->port, room);
        c->host_bytes = c->host ? room : 0;
    }
    if (!c->host) return NULL;
    queue_begin(c->queue);
    queue_fetch(c->queue, c->host, p, bytes);
    if (queue_end(c->queue) || queue_wait(c->queue, c->options.deadline_ms)) return NULL;
    return c->host;
}

static const void **table_of(struct cuda *c, const struct weight *const *w, uint32_t n,
                             bool is_bias) {
    for (uint32_t i = 0; i < c->n_tables; i++) {
        const struct cuda_table *t = &c->tables[i];
        if (t->key == w && t->n == n && t->is_bias == is_bias) return t->at;
    }
    by_assert(c->n_tables < CUDA_TABLES_MAX);
    size_t bytes = n * sizeof(void *);
    const void **at = cuda_alloc(c, bytes, CUDA_MEM_OTHER);
    const void **host = by_alloc_array(n, sizeof *host);
    for (uint32_t i = 0; i < n; i++)
        if (w[i]->format != w[0]->format)
            by_die("experts of one layer have weights of two types; --device cpu takes them");
    for (uint32_t i = 0; i < n; i++)
        host[i] = is_bias ? (const void *)w[i]->bias : (const void *)w[i]->rows;
    if (!at || port_load(c->port, at, host, bytes)) by_die("no device memory for %zu bytes", bytes);
    by_free(host);
    c->tables[c->n_tables++] = (struct cuda_table){w, at, n, is_bias};
    return at;
}

const uint8_t *const *cuda_weights(struct cuda *c, const struct weight *const *w, uint32_t n) {
    return (const uint8_t *const *)table_of(c, w, n, false);
}

const float *const *cuda_biases(struct cuda *c, const struct weight *const *w, uint32_t n) {
    return w[0]->bias ? (const float *const *)table_of(c, w, n, true) : NULL;
}
