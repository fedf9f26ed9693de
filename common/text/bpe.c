#include "common/text/bpe.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/rank_heap.h"

enum {
    NONE = 0xFFFFFFFFu, /* no such pair, no such symbol */
    SHORT_MAX = 40,     /* symbols up to which scanning beats the heap */
    WINDOW = 1024,      /* symbols that are merged at once: heap and lists stay in the cache */
    OVERLAP_DIV = 4,    /* of a window: a quarter is merged again by the next one */
};

struct merge {
    uint32_t left, right, rank, id; /* left == NONE: an empty slot */
};

/* What two symbols become: a merge without its key. */
struct pair {
    uint32_t rank, id; /* rank NONE: no such merge */
};

/* Merges that wait to be looked up together: two pieces each. */
struct pending {
    struct by_buf text;
    size_t end[BY_VOCAB_MANY_MAX]; /* of each piece in text */
    size_t n;
};

struct symbols {
    uint32_t *id;          /* [n] */
    uint32_t *rank;        /* [n] of the pair (i, next[i]); NONE: no such pair */
    uint32_t *merged;      /* [n] what that pair becomes */
    uint32_t *prev, *next; /* [n] NONE at the ends */
    size_t cap;
    struct by_rank_heap heap; /* rank << 32 | position */
};

struct by_bpe {
    const struct by_vocab *vocab, *words;
    struct by_bpe_options o;
    struct merge *merges; /* [1 << bits] */
    unsigned bits;
    uint32_t n_merges, next_rank, last_joined;
    /* the token of one byte: alphabet, or <0xNN> with byte_fallback; NONE */
    uint32_t byte_ids[256];
    uint32_t byte_id_min, byte_id_max; /* of those; NONE, 0 without any */
    bool has_all_bytes, merges_bytes;  /* a merge takes a byte's token */
    bool is_borrowed;                  /* thawed: merges are not ours */
    struct symbols s;
    size_t window;
    struct pending pending;
    struct pair *byte_pairs; /* [256 * 256] of the tokens of two bytes; NULL: not byte level */
    char *joined;            /* room for two pieces */
    size_t joined_cap;
};

/* ---- merges ---- */

static uint32_t home_of(const struct by_bpe *b, uint32_t left, uint32_t right) {
    uint64_t key = (uint64_t)left << 32 | right;
    return (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> (64 - b->bits));
}

static uint32_t slot_of(const struct by_bpe *b, uint32_t left, uint32_t right) {
    uint32_t mask = (1u << b->bits) - 1, i = home_of(b, left, right);
    while (b->merges[i].left != NONE && (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & mask;
    return i;
}

static void find_merge(const struct by_bpe *b, uint32_t left, uint32_t right, uint32_t *rank,
                       uint32_t *id) {
    const struct merge *m = &b->merges[slot_of(b, left, right)];
    *rank = m->left == NONE ? NONE : m->rank;
    *id = m->id;
}

static void make_table(struct by_bpe *b, unsigned bits) {
    struct merge *old = b->merges;
    size_t n_old = old ? (size_t)1 << b->bits : 0;
    b->bits = bits;
    b->merges = by_alloc_array((size_t)1 << bits, sizeof *b->merges);
    for (size_t i = 0; i < (size_t)1 << bits; i++)
        b->merges[i].left = NONE;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].left != NONE) b->merges[slot_of(b, old[i].left, old[i].right)] = old[i];
    }
    by_free(old);
}

/* Byte tokens lie side by side in the vocabularies that have them; another one between them only costs speed. */
static bool is_byte_id(const struct by_bpe *b, uint32_t id) {
    return id >= b->byte_id_min && id <= b->byte_id_max;
}

void by_bpe_put_merge(struct by_bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t id) {
    by_assert(left != NONE && rank != NONE && !b->is_borrowed);
    if ((uint64_t)b->n_merges * 3 >= (uint64_t)2 << b->bits) make_table(b, b->bits + 1);
    struct merge *m = &b->merges[slot_of(b, left, right)];
    b->n_merges += m->left == NONE;
    b->merges_bytes |= is_byte_id(b, left) || is_byte_id(b, right);
    *m = (struct merge){.left = left, .right = right, .rank = rank, .id = id};
}

/* Most vocabularies count their pieces in the order of the merges: the next one is where the last one was, or behind it. */
static bool find_joined(const struct by_bpe *b, struct by_str joined, uint32_t *id) {
    bool all_differ = b->vocab->n_found == b->vocab->n_pieces;
    for (uint32_t k = 0; all_differ && k < 2; k++) {
        *id = b->last_joined + k;
        if (by_str_eq(by_vocab_get(b->vocab, *id), joined)) return true;
    }
    return by_vocab_find(b->vocab, joined, id);
}

static int fail_unknown(const struct by_bpe *b, struct by_str piece, struct by_err *err) {
    return by_fail(err, BY_EFORMAT, "merge %u: '" BY_STR_FMT "' is not in the vocabulary",
                   b->next_rank, BY_STR_ARG(by_str_sub(piece, 0, 100)));
}

static int add_merge(struct by_bpe *b, const struct by_str *piece, const uint32_t *ids,
                     struct by_err *err) {
    struct by_str left = piece[0], right = piece[1], tail = right;
    uint32_t id;
    if (b->next_rank >= BY_MERGES_MAX)
        return by_fail(err, BY_ELIMIT, "more than %d merges", BY_MERGES_MAX);
    if (ids[0] == BY_VOCAB_NONE) return fail_unknown(b, left, err);
    if (ids[1] == BY_VOCAB_NONE) return fail_unknown(b, right, err);
    if (b->o.prefix.n && by_str_starts(right, b->o.prefix))
        tail = by_str_sub(right, b->o.prefix.n, right.n);
    size_t n = left.n + tail.n;
    if (n > b->joined_cap) {
        b->joined_cap = n * 2;
        b->joined = by_realloc(b->joined, b->joined_cap);
    }
    if (left.n) memcpy(b->joined, left.p, left.n);
    if (tail.n) memcpy(b->joined + left.n, tail.p, tail.n);
    struct by_str joined = {b->joined, n};
    if (!find_joined(b, joined, &id)) return fail_unknown(b, joined, err);
    b->last_joined = id;
    by_bpe_put_merge(b, ids[0], ids[1], b->next_rank++, id);
    return 0;
}

int by_bpe_end_merges(struct by_bpe *b, struct by_err *err) {
    struct pending *p = &b->pending;
    struct by_str pieces[BY_VOCAB_MANY_MAX];
    uint32_t ids[BY_VOCAB_MANY_MAX];
    size_t from = 0;
    for (size_t i = 0; i < p->n; from = p->end[i++])
        pieces[i] = (struct by_str){p->text.p + from, p->end[i] - from};
    by_vocab_find_many(b->vocab, pieces, p->n, ids);
    for (size_t i = 0; i < p->n; i += 2)
        __builtin_prefetch(&b->merges[home_of(b, ids[i], ids[i + 1])]);
    int rc = 0;
    for (size_t i = 0; i < p->n && !rc; i += 2)
        rc = add_merge(b, pieces + i, ids + i, err);
    p->n = 0;
    by_buf_clear(&p->text);
    return rc;
}

int by_bpe_add_merge(struct by_bpe *b, struct by_str left, struct by_str right,
                     struct by_err *err) {
    struct pending *p = &b->pending;
    by_buf_add_str(&p->text, left);
    p->end[p->n++] = p->text.n;
    by_buf_add_str(&p->text, right);
    p->end[p->n++] = p->text.n;
    if (p->text.is_full)
        return by_fail(err, BY_ELIMIT, "merge %u: its pieces are too long", b->next_rank);
    return p->n == BY_VOCAB_MANY_MAX ? by_bpe_end_merges(b, err) : 0;
}

bool by_bpe_is_literal(const struct by_bpe *b) {
    return !b->o.is_byte_level && !b->o.ignore_merges && b->o.byte_fallback && b->has_all_bytes &&
           !b->merges_bytes && !b->o.prefix.n && !b->o.suffix.n;
}

uint32_t by_bpe_n_merges(const struct by_bpe *b) {
    return b->n_merges;
}

static void find_byte_ids(struct by_bpe *b) {
    static const char hex[] = "0123456789ABCDEF";
    b->has_all_bytes = true;
    b->byte_id_min = NONE;
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        size_t n;
        if (b->o.is_byte_level) {
            n = by_utf8_encode(by_alphabet_char((uint8_t)byte), name);
        } else {
            memcpy(name, "<0x00>", 6);
            name[3] = hex[byte >> 4];
            name[4] = hex[byte & 15];
            n = 6;
        }
        if (!by_vocab_find(b->vocab, (struct by_str){name, n}, &b->byte_ids[byte])) {
            b->byte_ids[byte] = NONE;
            b->has_all_bytes = false;
            continue;
        }
        b->byte_id_min = BY_MIN(b->byte_id_min, b->byte_ids[byte]);
        b->byte_id_max = BY_MAX(b->byte_id_max, b->byte_ids[byte]);
    }
}

struct by_bpe *by_bpe_new(const struct by_vocab *vocab, const struct by_vocab *words,
                          const struct by_bpe_options *o, uint32_t n_merges) {
    struct by_bpe *b = by_alloc(sizeof *b);
    *b = (struct by_bpe){.vocab = vocab, .words = words, .o = *o, .window = WINDOW};
    b->o.prefix.p = o->prefix.n ? by_strndup(o->prefix.p, o->prefix.n) : NULL;
    b->o.suffix.p = o->suffix.n ? by_strndup(o->suffix.p, o->suffix.n) : NULL;
    unsigned bits = 10;
    while ((uint64_t)n_merges * 3 >= (uint64_t)2 << bits)
        bits++;
    make_table(b, bits);
    find_byte_ids(b);
    by_buf_init(&b->pending.text, (size_t)BY_VOCAB_MANY_MAX * BY_PIECE_BYTES_MAX);
    return b;
}

void by_bpe_free(struct by_bpe *b) {
    if (!b) return;
    by_buf_release(&b->pending.text);
    by_free(b->byte_pairs);
    by_free(b->joined);
    by_free(b->s.heap.key);
    by_free(b->s.next);
    by_free(b->s.prev);
    by_free(b->s.merged);
    by_free(b->s.rank);
    by_free(b->s.id);
    if (!b->is_borrowed) {
        by_free(b->merges);
        by_free((char *)b->o.prefix.p);
        by_free((char *)b->o.suffix.p);
    }
    by_free(b);
}

/* ---- frozen ---- */

/* All but tables and text. */
struct frozen {
    uint32_t byte_ids[256], byte_id_min, byte_id_max;
    uint32_t bits, n_merges, unk_id;
    uint8_t is_byte_level, ignore_merges, byte_fallback, fuse_unk, has_unk, has_all_bytes,
        merges_bytes;
};

/* Every word begins with these, and a table of half a megabyte is nearer than the merges. */
void by_bpe_finish(struct by_bpe *b) {
    if (!b->o.is_byte_level || !b->has_all_bytes || b->byte_pairs) return;
    b->byte_pairs = by_alloc_array(256 * 256, sizeof *b->byte_pairs);
    for (uint32_t i = 0; i < 256 * 256; i++)
        find_merge(b, b->byte_ids[i >> 8], b->byte_ids[i & 255], &b->byte_pairs[i].rank,
                   &b->byte_pairs[i].id);
}

void by_bpe_shrink(struct by_bpe *b) {
    unsigned bits = 10;
    while ((uint64_t)b->n_merges * 3 >= (uint64_t)2 << bits)
        bits++;
    if (bits < b->bits) make_table(b, bits);
}

void by_bpe_freeze(const struct by_bpe *b, struct by_buf *out) {
    struct frozen f;
    memset(&f, 0, sizeof f); /* padding too: the same tokenizer, the same bytes */
    memcpy(f.byte_ids, b->byte_ids, sizeof f.byte_ids);
    f.byte_id_min = b->byte_id_min;
    f.byte_id_max = b->byte_id_max;
    f.bits = b->bits;
    f.n_merges = b->n_merges;
    f.unk_id = b->o.unk_id;
    f.is_byte_level = b->o.is_byte_level;
    f.ignore_merges = b->o.ignore_merges;
    f.byte_fallback = b->o.byte_fallback;
    f.fuse_unk = b->o.fuse_unk;
    f.has_unk = b->o.has_unk;
    f.has_all_bytes = b->has_all_bytes;
    f.merges_bytes = b->merges_bytes;
    by_freeze(out, &f, 1, sizeof f);
    by_freeze(out, b->o.prefix.p, b->o.prefix.n, 1);
    by_freeze(out, b->o.suffix.p, b->o.suffix.n, 1);
    by_freeze(out, b->merges, (size_t)1 << b->bits, sizeof *b->merges);
}

static bool is_sound(const struct by_bpe *b) {
    uint32_t n = b->vocab->n, n_used = 0;
    for (size_t i = 0; i < (size_t)1 << b->bits; i++) {
        const struct merge *m = &b->merges[i];
        if (m->left == NONE) continue;
        if (m->left >= n || m->right >= n || m->id >= n || m->rank == NONE) return false;
        n_used++;
    }
    for (size_t i = 0; i < 256; i++) {
        if (b->byte_ids[i] >= n && b->byte_ids[i] != NONE) return false;
    }
    return n_used == b->n_merges && n_used < 1u << b->bits && (!b->o.has_unk || b->o.unk_id < n);
}

struct by_bpe *by_bpe_thaw(struct by_thaw *t, const struct by_vocab *vocab,
                           const struct by_vocab *words) {
    struct frozen f;
    by_thaw_one(t, &f, sizeof f);
    struct by_str prefix = by_thaw_str(t), suffix = by_thaw_str(t);
    if (f.bits > 24) t->is_bad = true;
    const void *merges = by_thaw_n(t, sizeof(struct merge), (size_t)1 << (f.bits & 31));
    if (t->is_bad) return NULL;
    struct by_bpe *b = by_alloc(sizeof *b);
    *b = (struct by_bpe){.vocab = vocab,
                         .words = f.is_byte_level ? words : vocab,
                         .o = {.is_byte_level = f.is_byte_level,
                               .ignore_merges = f.ignore_merges,
                               .byte_fallback = f.byte_fallback,
                               .fuse_unk = f.fuse_unk,
                               .has_unk = f.has_unk,
                               .unk_id = f.unk_id,
                               .prefix = prefix,
                               .suffix = suffix},
                         .merges = (void *)(uintptr_t)merges, /* only read: is_borrowed */
                         .bits = f.bits,
                         .window = WINDOW,
                         .n_merges = f.n_merges,
                         .byte_id_min = f.byte_id_min,
                         .byte_id_max = f.byte_id_max,
                         .has_all_bytes = f.has_all_bytes,
                         .merges_bytes = f.merges_bytes,
                         .is_borrowed = true};
    memcpy(b->byte_ids, f.byte_ids, sizeof f.byte_ids);
    by_buf_init(&b->pending.text, 1);
    if (is_sound(b)) return b;
    by_bpe_free(b);
    t->is_bad = true;
    return NULL;
}

/* ---- a word's first symbols ---- */

static void reserve_symbols(struct symbols *s, size_t n) {
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
            const struct pair *p =
                &b->byte_pairs[(size_t)(uint8_t)word.p[i] << 8 | (uint8_t)word.p[i + 1]];
            rank[i] = p->rank;
            merged[i] = p->id;
        }
        return;
    }
    for (size_t i = 0; i + 1 < n; i++) /* asked for all at once: memory answers them together */
        __builtin_prefetch(&b->merges[home_of(b, id[i], id[i + 1])]);
    for (size_t i = 0; i + 1 < n; i++)
        find_merge(b, id[i], id[i + 1], &rank[i], &merged[i]);
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
        if (best + 2 < n) __builtin_prefetch(&b->merges[home_of(b, id[best], id[best + 2])]);
        if (best > 0) __builtin_prefetch(&b->merges[home_of(b, id[best - 1], id[best])]);
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        memmove(rank + best + 1, rank + best + 2, (n - best - 1) * sizeof *rank);
        memmove(merged + best + 1, merged + best + 2, (n - best - 1) * sizeof *merged);
        if (best + 1 < n)
            find_merge(b, id[best], id[best + 1], &rank[best], &merged[best]);
        else
            rank[best] = NONE;
        if (best > 0) find_merge(b, id[best - 1], id[best], &rank[best - 1], &merged[best - 1]);
    }
    return n;
}

/* All pairs at once: cheaper than one after the other. */
static void queue_all(struct symbols *s, size_t n) {
    by_rank_heap_reserve(&s->heap, n);
    s->heap.n = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->rank[i] != NONE) s->heap.key[s->heap.n++] = (uint64_t)s->rank[i] << 32 | i;
    }
    by_rank_heap_order(&s->heap);
}

/* Works out the pair that begins at `at`, and queues it. */
static void queue_pair(struct by_bpe *b, uint32_t at) {
    struct symbols *s = &b->s;
    s->rank[at] = NONE;
    if (s->next[at] == NONE) return;
    find_merge(b, s->id[at], s->id[s->next[at]], &s->rank[at], &s->merged[at]);
    if (s->rank[at] != NONE) by_rank_heap_push(&s->heap, (uint64_t)s->rank[at] << 32 | at);
}

/* Leaves the tokens of id[0..n) as a list that begins at 0; a token begins where its first symbol stood. */
static void merge_list(struct by_bpe *b, struct by_str word, size_t n) {
    struct symbols *s = &b->s;
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
        if (behind != NONE) __builtin_prefetch(&b->merges[home_of(b, s->id[at], s->id[behind])]);
        if (before != NONE) __builtin_prefetch(&b->merges[home_of(b, s->id[before], s->id[at])]);
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
    struct symbols *s = &b->s;
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
    struct symbols *s = &b->s;
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
