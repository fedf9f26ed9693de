#include "common/text/vocab.h"

#include "common/base/check.h"
#include "common/base/mem.h"

/* The empty piece exists in some vocabularies; a hole is told apart by where it lies. */
enum { HOLE = 0xFFFFFFFFu };

void by_vocab_init(struct by_vocab *v) {
    *v = (struct by_vocab){0};
}

void by_vocab_release(struct by_vocab *v) {
    if (!v->is_borrowed) {
        by_free(v->pieces);
        by_free(v->blob);
        by_free(v->slots);
    }
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

static void make_slots(struct by_vocab *v, uint32_t n_slots) {
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

static void grow_slots(struct by_vocab *v, uint32_t n) {
    if (n < v->n_slots / 2) return;
    uint32_t n_slots = BY_MAX(v->n_slots, 1024u);
    while (n_slots / 2 <= n)
        n_slots *= 2;
    make_slots(v, n_slots);
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
    by_assert(!v->is_borrowed);
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
    /* 0 - 1 is none */
    for (size_t i = 0; i < n; i++)
        ids[i] = v->slots[slot_of(v, pieces[i], hash[i])].id1 - 1;
}

bool by_vocab_find(const struct by_vocab *v, struct by_str piece, uint32_t *id) {
    if (!v->n_slots) return false;
    uint32_t i = slot_of(v, piece, by_str_hash(piece));
    if (!v->slots[i].id1) return false;
    *id = v->slots[i].id1 - 1;
    return true;
}

/* ---- frozen ---- */

void by_vocab_shrink(struct by_vocab *v) {
    uint32_t n_slots = v->n_slots;
    while (n_slots / 4 > v->n_found && n_slots > 1024)
        n_slots /= 2;
    if (n_slots < v->n_slots) make_slots(v, n_slots);
}

void by_vocab_freeze(const struct by_vocab *v, struct by_buf *out) {
    uint32_t counts[2] = {v->n_pieces, v->n_found};
    by_freeze(out, counts, 1, sizeof counts);
    by_freeze(out, v->pieces, v->n, sizeof *v->pieces);
    by_freeze(out, v->blob, v->blob_n, 1);
    by_freeze(out, v->slots, v->n_slots, sizeof *v->slots);
}

static bool is_sound(const struct by_vocab *v) {
    uint32_t n_pieces = 0, n_used = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        const struct by_vocab_piece *p = &v->pieces[id];
        if (p->n && (p->at > v->blob_n || p->n > v->blob_n - p->at || p->n > BY_PIECE_BYTES_MAX))
            return false;
        n_pieces += p->at != HOLE;
    }
    for (uint32_t i = 0; i < v->n_slots; i++) {
        if (v->slots[i].id1 > v->n) return false;
        n_used += v->slots[i].id1 != 0;
    }
    bool is_power = (v->n_slots & (v->n_slots - 1)) == 0; /* an empty slot ends every search */
    return n_pieces == v->n_pieces && n_used == v->n_found && is_power &&
           (!v->n_slots || n_used < v->n_slots);
}

void by_vocab_thaw(struct by_vocab *v, struct by_thaw *t) {
    uint32_t counts[2];
    size_t n, n_slots;
    by_thaw_one(t, counts, sizeof counts);
    *v = (struct by_vocab){.n_pieces = counts[0], .n_found = counts[1], .is_borrowed = true};
    /* only read from here on: is_borrowed */
    v->pieces = (void *)(uintptr_t)by_thaw(t, sizeof *v->pieces, &n);
    v->blob = (void *)(uintptr_t)by_thaw(t, 1, &v->blob_n);
    v->slots = (void *)(uintptr_t)by_thaw(t, sizeof *v->slots, &n_slots);
    if (n > BY_VOCAB_IDS_MAX || n_slots > 4u * BY_VOCAB_IDS_MAX) t->is_bad = true;
    v->n = v->cap = t->is_bad ? 0 : (uint32_t)n;
    v->n_slots = t->is_bad ? 0 : (uint32_t)n_slots;
    if (!t->is_bad && !is_sound(v)) t->is_bad = true;
}
