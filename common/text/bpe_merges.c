/* bpe_merges.c - how a by_bpe comes to be: its merges one by one, the tokens of bytes, its frozen form. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/bpe_parts.h"

/* ---- merges ---- */

static void make_table(struct by_bpe *b, unsigned bits) {
    struct by_bpe_merge *old = b->merges;
    size_t n_old = old ? (size_t)1 << b->bits : 0;
    b->bits = bits;
    b->merges = by_alloc_array((size_t)1 << bits, sizeof *b->merges);
    for (size_t i = 0; i < (size_t)1 << bits; i++)
        b->merges[i].left = NONE;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].left != NONE) b->merges[by_bpe_slot(b, old[i].left, old[i].right)] = old[i];
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
    struct by_bpe_merge *m = &b->merges[by_bpe_slot(b, left, right)];
    b->n_merges += m->left == NONE;
    b->merges_bytes |= is_byte_id(b, left) || is_byte_id(b, right);
    *m = (struct by_bpe_merge){.left = left, .right = right, .rank = rank, .id = id};
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
    struct by_bpe_pending *p = &b->pending;
    struct by_str pieces[BY_VOCAB_MANY_MAX];
    uint32_t ids[BY_VOCAB_MANY_MAX];
    size_t from = 0;
    for (size_t i = 0; i < p->n; from = p->end[i++])
        pieces[i] = (struct by_str){p->text.p + from, p->end[i] - from};
    by_vocab_find_many(b->vocab, pieces, p->n, ids);
    for (size_t i = 0; i < p->n; i += 2)
        __builtin_prefetch(&b->merges[by_bpe_home(b, ids[i], ids[i + 1])]);
    int rc = 0;
    for (size_t i = 0; i < p->n && !rc; i += 2)
        rc = add_merge(b, pieces + i, ids + i, err);
    p->n = 0;
    by_buf_clear(&p->text);
    return rc;
}

int by_bpe_add_merge(struct by_bpe *b, struct by_str left, struct by_str right,
                     struct by_err *err) {
    struct by_bpe_pending *p = &b->pending;
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

/* Every word begins with these, and a table of half a megabyte is nearer than the merges. */
void by_bpe_finish(struct by_bpe *b) {
    if (!b->o.is_byte_level || !b->has_all_bytes || b->byte_pairs) return;
    b->byte_pairs = by_alloc_array(256 * 256, sizeof *b->byte_pairs);
    for (uint32_t i = 0; i < 256 * 256; i++)
        by_bpe_find(b, b->byte_ids[i >> 8], b->byte_ids[i & 255], &b->byte_pairs[i].rank,
                    &b->byte_pairs[i].id);
}

void by_bpe_shrink(struct by_bpe *b) {
    unsigned bits = 10;
    while ((uint64_t)b->n_merges * 3 >= (uint64_t)2 << bits)
        bits++;
    if (bits < b->bits) make_table(b, bits);
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
        const struct by_bpe_merge *m = &b->merges[i];
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
    if (f.bits < 1 || f.bits > 24) t->is_bad = true; /* by_bpe_home shifts by 64 - bits */
    const void *merges = by_thaw_n(t, sizeof(struct by_bpe_merge), (size_t)1 << (f.bits & 31));
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
