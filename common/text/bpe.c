#include "common/text/bpe.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/bpe_parts.h"

enum {
    SHORT_MAX = 40,  /* symbols up to which scanning beats the heap */
    OVERLAP_DIV = 4, /* of a window: a quarter is merged again by the next one */
};

/* ---- a word's first symbols ---- */

static void reserve_symbols(struct by_bpe_symbols *s, size_t n) {
    if (n <= s->cap) return;
    s->cap = BY_MAX(s->cap * 2, BY_MAX(n, (size_t)64));
    s->id = by_realloc_array(s->id, s->cap, sizeof(uint32_t));
    s->rank = by_realloc_array(s->rank, s->cap, sizeof(uint32_t));
    s->merged = by_realloc_array(s->merged, s->cap, sizeof(uint32_t));
    s->prev = by_realloc_array(s->prev, s->cap, sizeof(uint32_t));
    s->next = by_realloc_array(s->next, s->cap, sizeof(uint32_t));
}

static size_t split_bytes(const struct by_bpe *b, struct by_str word, uint32_t *id) {
    size_t n = 0;
    for (size_t i = 0; i < word.n; i++) {
        uint32_t one = b->byte_ids[(uint8_t)word.p[i]];
        if (one == NONE) {
            if (!b->o.has_unk) continue;
            one = b->o.unk_id;
            if (b->o.fuse_unk && n && id[n - 1] == one) continue;
        }
        id[n++] = one;
    }
    return n;
}

/* The token of one character, with the marks of its place in the word around it. */
static bool find_char(const struct by_bpe *b, struct by_str c, bool is_first, bool is_last,
                      uint32_t *id) {
    struct by_str prefix = is_first ? (struct by_str){"", 0} : b->o.prefix;
    struct by_str suffix = is_last ? b->o.suffix : (struct by_str){"", 0};
    if (!prefix.n && !suffix.n) return by_vocab_find(b->vocab, c, id);
    char name[256];
    size_t n = prefix.n + c.n + suffix.n;
    if (n > sizeof name) return false;
    if (prefix.n) memcpy(name, prefix.p, prefix.n);
    memcpy(name + prefix.n, c.p, c.n);
    if (suffix.n) memcpy(name + prefix.n + c.n, suffix.p, suffix.n);
    return by_vocab_find(b->vocab, (struct by_str){name, n}, id);
}

/* Hugging Face falls back byte by byte over the name that it looked for, marks included. */
static bool fall_back(const struct by_bpe *b, struct by_str c, uint32_t *id, size_t *n) {
    if (!b->o.byte_fallback) return false;
    for (size_t i = 0; i < c.n; i++) {
        if (b->byte_ids[(uint8_t)c.p[i]] == NONE) return false;
    }
    for (size_t i = 0; i < c.n; i++)
        id[(*n)++] = b->byte_ids[(uint8_t)c.p[i]];
    return true;
}

static size_t split_chars(const struct by_bpe *b, struct by_str word, uint32_t *id) {
    size_t n = 0;
    bool is_unk_due = false;
    for (size_t i = 0, len; i < word.n; i += len) {
        by_utf8_decode(word.p + i, word.n - i, &len);
        struct by_str c = {word.p + i, len};
        uint32_t one;
        if (find_char(b, c, i == 0, i + len == word.n, &one)) {
            if (is_unk_due) id[n++] = b->o.unk_id;
            is_unk_due = false;
            id[n++] = one;
            continue;
        }
        if (fall_back(b, c, id, &n)) continue;
        if (!b->o.has_unk) continue;
        if (is_unk_due && !b->o.fuse_unk) id[n++] = b->o.unk_id;
        is_unk_due = true;
    }
    if (is_unk_due) id[n++] = b->o.unk_id;
    return n;
}

/* ---- merging ---- */

/* The pairs of a word whose symbols are single bytes, or any. */
static void find_pairs(struct by_bpe *b, struct by_str word, size_t n) {
    uint32_t *id = b->s.id, *rank = b->s.rank, *merged = b->s.merged;
    if (b->byte_pairs) {
        for (size_t i = 0; i + 1 < n; i++) {
            const struct by_bpe_pair *p =
                &b->byte_pairs[(size_t)(uint8_t)word.p[i] << 8 | (uint8_t)word.p[i + 1]];
            rank[i] = p->rank;
            merged[i] = p->id;
        }
        return;
    }
    for (size_t i = 0; i + 1 < n; i++) /* asked for all at once: memory answers them together */
        __builtin_prefetch(&b->merges[by_bpe_home(b, id[i], id[i + 1])]);
    for (size_t i = 0; i + 1 < n; i++)
        by_bpe_find(b, id[i], id[i + 1], &rank[i], &merged[i]);
}

static size_t merge_short(struct by_bpe *b, struct by_str word, size_t n) {
    uint32_t *id = b->s.id, *rank = b->s.rank, *merged = b->s.merged;
    find_pairs(b, word, n);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NONE) break;
        id[best] = merged[best];
        if (best + 2 < n) __builtin_prefetch(&b->merges[by_bpe_home(b, id[best], id[best + 2])]);
        if (best > 0) __builtin_prefetch(&b->merges[by_bpe_home(b, id[best - 1], id[best])]);
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        memmove(rank + best + 1, rank + best + 2, (n - best - 1) * sizeof *rank);
        memmove(merged + best + 1, merged + best + 2, (n - best - 1) * sizeof *merged);
        if (best + 1 < n)
            by_bpe_find(b, id[best], id[best + 1], &rank[best], &merged[best]);
        else
            rank[best] = NONE;
        if (best > 0) by_bpe_find(b, id[best - 1], id[best], &rank[best - 1], &merged[best - 1]);
    }
    return n;
}

/* All pairs at once: cheaper than one after the other. */
static void queue_all(struct by_bpe_symbols *s, size_t n) {
    by_rank_heap_reserve(&s->heap, n);
    s->heap.n = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->rank[i] != NONE) s->heap.key[s->heap.n++] = (uint64_t)s->rank[i] << 32 | i;
    }
    by_rank_heap_order(&s->heap);
}

/* Works out the pair that begins at `at`, and queues it. */
static void queue_pair(struct by_bpe *b, uint32_t at) {
    struct by_bpe_symbols *s = &b->s;
    s->rank[at] = NONE;
    if (s->next[at] == NONE) return;
    by_bpe_find(b, s->id[at], s->id[s->next[at]], &s->rank[at], &s->merged[at]);
    if (s->rank[at] != NONE) by_rank_heap_push(&s->heap, (uint64_t)s->rank[at] << 32 | at);
}

/* Leaves the tokens of id[0..n) as a list that begins at 0; a token begins where its first symbol stood. */
static void merge_list(struct by_bpe *b, struct by_str word, size_t n) {
    struct by_bpe_symbols *s = &b->s;
    for (size_t i = 0; i < n; i++) {
        s->prev[i] = i ? (uint32_t)i - 1 : NONE;
        s->next[i] = i + 1 < n ? (uint32_t)i + 1 : NONE;
    }
    find_pairs(b, word, n);
    s->rank[n - 1] = NONE;
    queue_all(s, n);
    while (s->heap.n) {
        uint64_t top = by_rank_heap_pop(&s->heap);
        uint32_t at = (uint32_t)top;
        if (s->rank[at] != (uint32_t)(top >> 32)) continue; /* stale: the pair has changed since */
        uint32_t gone = s->next[at];
        s->id[at] = s->merged[at];
        s->next[at] = s->next[gone];
        if (s->next[gone] != NONE) s->prev[s->next[gone]] = at;
        s->rank[gone] = NONE;
        uint32_t before = s->prev[at], behind = s->next[at];
        if (behind != NONE)
            __builtin_prefetch(&b->merges[by_bpe_home(b, s->id[at], s->id[behind])]);
        if (before != NONE)
            __builtin_prefetch(&b->merges[by_bpe_home(b, s->id[before], s->id[at])]);
        queue_pair(b, at);
        if (before != NONE) queue_pair(b, before);
    }
}

/* Tokens of all[0..n), a window after the other. False where a seam does not hold: a wider window may.
 *
 *     ── from ─────────────────── at ──────┐ window        Why this is exact: tokens are those of the whole word if each
 *                                 at ──────┼──────── …     two neighbours, alone, stay two; for the first merge across a
 *                                 seam                     border would be made of these two alone as well. A window's own
 * are such neighbours. At the seam they are if both windows have the same token there, which is a neighbour on either side. */
static bool merge_windows(struct by_bpe *b, const uint32_t *all, struct by_str word, size_t n,
                          size_t window, struct by_ids *out) {
    struct by_bpe_symbols *s = &b->s;
    uint32_t seam_id = NONE, seam_n = 0;
    reserve_symbols(s, window);
    for (size_t from = 0, before = 0, len_before = 0;;) {
        size_t len = BY_MIN(n - from, window);
        bool is_last = from + len == n;
        uint32_t at = 0, next, end = (uint32_t)(is_last ? len : len - window / OVERLAP_DIV);
        if (!from || len != len_before || memcmp(all + from, all + before, len * sizeof *all)) {
            memcpy(s->id, all + from, len * sizeof *s->id);
            merge_list(b, by_str_sub(word, from, from + len), len);
        } /* else it is the window before once more, as in a run of blanks, and its list still stands */
        before = from;
        len_before = len;
        for (;; at = next) {
            next = s->next[at] == NONE ? (uint32_t)len : s->next[at];
            if (at == 0 && from && (s->id[0] != seam_id || next != seam_n)) return false;
            if (next > end) break;
            by_ids_add(out, s->id[at]);
            if (next == n - from) return true;
        }
        if (at == 0) return false;
        seam_id = s->id[at];
        seam_n = next - at;
        from += at;
    }
}

/* A word longer than a window. */
static void encode_long(struct by_bpe *b, struct by_str word, struct by_ids *out) {
    uint32_t *all = by_alloc_array(word.n + 1, sizeof *all);
    size_t n = b->o.is_byte_level ? split_bytes(b, word, all) : split_chars(b, word, all);
    size_t from = out->n;
    for (size_t window = b->window; n && !merge_windows(b, all, word, n, window, out); window *= 2)
        out->n = from;
    by_free(all);
}

void by_bpe_set_window(struct by_bpe *b, size_t window) {
    b->window = window;
}

void by_bpe_encode(struct by_bpe *b, struct by_str word, struct by_ids *out) {
    struct by_bpe_symbols *s = &b->s;
    uint32_t whole;
    if (b->o.ignore_merges && by_vocab_find(b->words, word, &whole)) {
        by_ids_add(out, whole);
        return;
    }
    if (word.n > b->window) {
        encode_long(b, word, out);
        return;
    }
    reserve_symbols(s, word.n + 1);
    size_t n = b->o.is_byte_level ? split_bytes(b, word, s->id) : split_chars(b, word, s->id);
    if (n > SHORT_MAX) {
        merge_list(b, word, n);
        for (uint32_t at = 0; at != NONE; at = s->next[at])
            by_ids_add(out, s->id[at]);
        return;
    }
    n = merge_short(b, word, n);
    for (size_t i = 0; i < n; i++)
        by_ids_add(out, s->id[i]);
}
