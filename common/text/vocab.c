#include "common/text/vocab.h"

#include "common/base/check.h"
#include "common/base/mem.h"

/* The empty piece exists in some vocabularies; a hole is told apart by where it lies. */
enum { HOLE = 0xFFFFFFFFu };

void by_vocab_init(struct by_vocab *v) {
    *v = (struct by_vocab){0};
}

void by_vocab_release(struct by_vocab *v) {
    by_free(v->pieces);
    by_free(v->blob);
    by_free(v->slots);
    *v = (struct by_vocab){0};
}

static void grow_ids(struct by_vocab *v, uint32_t n) {
    if (n <= v->cap) return;
    uint32_t cap = BY_MAX(v->cap * 2, BY_MAX(n, 1024u));
    v->pieces = by_realloc_array(v->pieces, cap, sizeof *v->pieces);
    v->cap = cap;
}

static void grow_blob(struct by_vocab *v, size_t more) {
    if (more <= v->blob_cap - v->blob_n) return;
    v->blob_cap = BY_MAX(v->blob_cap * 2, BY_MAX(v->blob_n + more, (size_t)4096));
    v->blob = by_realloc(v->blob, v->blob_cap);
}

/* Where the piece is, or would be. */
static uint32_t slot_of(const struct by_vocab *v, struct by_str piece, uint64_t hash) {
    uint32_t mask = v->n_slots - 1, i = (uint32_t)hash & mask;
    for (; v->slots[i].id1; i = (i + 1) & mask) {
        if (v->slots[i].hash == (uint32_t)(hash >> 32) &&
            by_str_eq(by_vocab_get(v, v->slots[i].id1 - 1), piece))
            break;
    }
    return i;
}

static void grow_slots(struct by_vocab *v, uint32_t n) {
    if (n < v->n_slots / 2) return;
    uint32_t n_slots = BY_MAX(v->n_slots, 1024u);
    while (n_slots / 2 <= n)
        n_slots *= 2;
    struct by_vocab_slot *old = v->slots;
    uint32_t n_old = v->n_slots;
    v->slots = by_alloc_array(n_slots, sizeof *v->slots);
    v->n_slots = n_slots;
    for (uint32_t i = 0; i < n_old; i++) {
        if (!old[i].id1) continue;
        struct by_str piece = by_vocab_get(v, old[i].id1 - 1);
        v->slots[slot_of(v, piece, by_str_hash(piece))] = old[i];
    }
    by_free(old);
}

void by_vocab_reserve(struct by_vocab *v, uint32_t n_ids) {
    n_ids = BY_MIN(n_ids, (uint32_t)BY_VOCAB_IDS_MAX);
    grow_ids(v, n_ids);
    grow_slots(v, n_ids);
}

bool by_vocab_has(const struct by_vocab *v, uint32_t id) {
    return id < v->n && v->pieces[id].at != HOLE;
}

int by_vocab_put(struct by_vocab *v, uint32_t id, struct by_str piece, bool is_findable,
                 struct by_err *err) {
    if (id >= BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_ELIMIT, "token id %u is past the limit of %d", id, BY_VOCAB_IDS_MAX);
    if (piece.n > BY_PIECE_BYTES_MAX || v->blob_n + piece.n > BY_VOCAB_BLOB_MAX)
        return by_fail(err, BY_ELIMIT, "token %u of %zu bytes is too long", id, piece.n);
    if (by_vocab_has(v, id))
        return by_fail(err, BY_EFORMAT, "token id %u is given to two tokens", id);
    grow_ids(v, id + 1);
    for (; v->n <= id; v->n++)
        v->pieces[v->n] = (struct by_vocab_piece){.at = HOLE, .n = 0};
    grow_blob(v, piece.n);
    if (piece.n) memcpy(v->blob + v->blob_n, piece.p, piece.n);
    v->pieces[id] = (struct by_vocab_piece){.at = (uint32_t)v->blob_n, .n = (uint32_t)piece.n};
    v->blob_n += piece.n;
    v->n_pieces++;
    if (!is_findable) return 0;
    grow_slots(v, v->n_found + 1);
    uint64_t hash = by_str_hash(piece);
    uint32_t i = slot_of(v, piece, hash);
    v->n_found += v->slots[i].id1 == 0;
    v->slots[i] = (struct by_vocab_slot){id + 1, (uint32_t)(hash >> 32)};
    return 0;
}

void by_vocab_find_many(const struct by_vocab *v, const struct by_str *pieces, size_t n,
                        uint32_t *ids) {
    uint64_t hash[BY_VOCAB_MANY_MAX];
    uint32_t mask = v->n_slots - 1;
    by_assert(n <= BY_VOCAB_MANY_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = BY_VOCAB_NONE;
    if (!v->n_slots) return;
    for (size_t i = 0; i < n; i++) {
        hash[i] = by_str_hash(pieces[i]);
        __builtin_prefetch(&v->slots[(uint32_t)hash[i] & mask]);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t id1 = v->slots[(uint32_t)hash[i] & mask].id1;
        if (id1) __builtin_prefetch(&v->pieces[id1 - 1]);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t id1 = v->slots[(uint32_t)hash[i] & mask].id1;
        if (id1 && v->pieces[id1 - 1].n) __builtin_prefetch(v->blob + v->pieces[id1 - 1].at);
    }
    for (size_t i = 0; i < n; i++)
        ids[i] = v->slots[slot_of(v, pieces[i], hash[i])].id1 - 1; /* 0 - 1 is none */
}

bool by_vocab_find(const struct by_vocab *v, struct by_str piece, uint32_t *id) {
    if (!v->n_slots) return false;
    uint32_t i = slot_of(v, piece, by_str_hash(piece));
    if (!v->slots[i].id1) return false;
    *id = v->slots[i].id1 - 1;
    return true;
}
