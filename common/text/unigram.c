#include "common/text/unigram.h"

#include "common/text/trie.h"
#include "common/text/unicode.h"

#include <math.h>

enum { NONE = 0xFFFFFFFFu };
static const double unk_penalty = 10.0;

/* The best way to a position. */
struct best {
    double score;
    uint32_t from; /* where its last piece begins; NONE: not reached */
    uint32_t id;
};

struct by_unigram {
    struct by_unigram_options o;
    const struct by_vocab *vocab;
    struct by_trie trie;
    double *scores;   /* [vocab->n] */
    bool is_borrowed; /* thawed: scores are not ours */
    double unk_score;
    uint32_t byte_ids[256];
    bool has_bytes;
    struct best *best; /* [cap] */
    size_t cap;
    uint32_t *path; /* [cap] ends of the pieces of the best way, last first */
};

static void find_byte_ids(struct by_unigram *u) {
    static const char hex[] = "0123456789ABCDEF";
    char name[] = "<0x00>";
    u->has_bytes = true;
    for (unsigned b = 0; b < 256; b++) {
        name[3] = hex[b >> 4];
        name[4] = hex[b & 15];
        u->byte_ids[b] = NONE;
        if (!by_vocab_find(u->vocab, by_str_of(name), &u->byte_ids[b])) u->has_bytes = false;
    }
}

int by_unigram_new(struct by_unigram **out, const struct by_vocab *vocab, const double *scores,
                   const struct by_unigram_options *o, struct by_err *err) {
    struct by_unigram *u = by_alloc(sizeof *u);
    *u = (struct by_unigram){.o = *o, .vocab = vocab};
    double min = INFINITY;
    by_trie_init(&u->trie);
    u->scores = by_alloc_array((size_t)vocab->n + 1, sizeof *u->scores);
    for (uint32_t id = 0; id < vocab->n; id++) {
        if (!by_vocab_has(vocab, id)) continue;
        u->scores[id] = scores[id];
        min = fmin(min, scores[id]);
        uint32_t found;
        struct by_str piece = by_vocab_get(vocab, id);
        if (!piece.n || !by_vocab_find(vocab, piece, &found) || found != id) continue;
        if (by_trie_put(&u->trie, piece, id)) continue;
        by_unigram_free(u);
        return by_fail(err, BY_ELIMIT, "model: the vocabulary is too large");
    }
    u->unk_score = min - unk_penalty;
    by_trie_freeze(&u->trie);
    find_byte_ids(u);
    *out = u;
    return 0;
}

void by_unigram_free(struct by_unigram *u) {
    if (!u) return;
    by_free(u->path);
    by_free(u->best);
    if (!u->is_borrowed) by_free(u->scores);
    by_trie_release(&u->trie);
    by_free(u);
}

/* ---- frozen ---- */

struct frozen {
    double unk_score;
    uint32_t byte_ids[256], unk_id;
    uint8_t has_unk, byte_fallback, has_bytes;
};

void by_unigram_freeze(const struct by_unigram *u, struct by_buf *out) {
    struct frozen f;
    memset(&f, 0, sizeof f); /* padding too */
    f.unk_score = u->unk_score;
    memcpy(f.byte_ids, u->byte_ids, sizeof f.byte_ids);
    f.unk_id = u->o.unk_id;
    f.has_unk = u->o.has_unk;
    f.byte_fallback = u->o.byte_fallback;
    f.has_bytes = u->has_bytes;
    by_freeze(out, &f, 1, sizeof f);
    by_freeze(out, u->scores, u->vocab->n, sizeof *u->scores);
    by_trie_write(&u->trie, out);
}

struct by_unigram *by_unigram_thaw(struct by_thaw *t, const struct by_vocab *vocab) {
    struct frozen f;
    by_thaw_one(t, &f, sizeof f);
    struct by_unigram *u = by_alloc(sizeof *u);
    *u = (struct by_unigram){
        .o = {.has_unk = f.has_unk, .unk_id = f.unk_id, .byte_fallback = f.byte_fallback},
        .vocab = vocab,
        .unk_score = f.unk_score,
        .has_bytes = f.has_bytes,
        .is_borrowed = true};
    memcpy(u->byte_ids, f.byte_ids, sizeof f.byte_ids);
    u->scores = (void *)(uintptr_t)by_thaw_n(t, sizeof *u->scores, vocab->n);
    by_trie_thaw(&u->trie, t, vocab->n);
    for (size_t i = 0; i < 256; i++) {
        if (f.byte_ids[i] >= vocab->n && (f.byte_ids[i] != NONE || f.has_bytes)) t->is_bad = true;
    }
    if (f.has_unk && f.unk_id >= vocab->n) t->is_bad = true;
    if (!t->is_bad) return u;
    by_unigram_free(u);
    return NULL;
}

/* ---- */

static void reach(struct best *to, double score, size_t from, uint32_t id) {
    if (to->from != NONE && !(score > to->score)) return;
    *to = (struct best){.score = score, .from = (uint32_t)from, .id = id};
}

static void find_best(struct by_unigram *u, struct by_str word) {
    for (size_t i = 0; i <= word.n; i++)
        u->best[i] = (struct best){.from = NONE};
    for (size_t i = 0, len; i < word.n; i += len) {
        double here = u->best[i].score;
        bool has_single = false;
        uint32_t node = 0;
        by_uni_next(word.p + i, &len);
        for (size_t k = i; k < word.n;) {
            node = by_trie_child(&u->trie, node, (uint8_t)word.p[k]);
            if (!node) break;
            k++;
            uint32_t id = u->trie.value[node];
            if (id == BY_TRIE_NONE) continue;
            reach(&u->best[k], u->scores[id] + here, i, id);
            has_single |= k - i == len;
        }
        if (!has_single) reach(&u->best[i + len], u->unk_score + here, i, NONE);
    }
}

/* Text that the best way leaves unknown, as long as it goes. */
static int add_unknown(struct by_unigram *u, struct by_str text, struct by_ids *out,
                       struct by_err *err) {
    uint32_t id;
    if (by_vocab_find(u->vocab, text, &id)) { /* the run as a whole may have a name */
        by_ids_add(out, id);
        return 0;
    }
    bool can_fall_back = u->o.byte_fallback;
    for (size_t i = 0; i < text.n && can_fall_back && !u->has_bytes; i++)
        can_fall_back = u->byte_ids[(uint8_t)text.p[i]] != NONE;
    if (can_fall_back) {
        for (size_t i = 0; i < text.n; i++)
            by_ids_add(out, u->byte_ids[(uint8_t)text.p[i]]);
        return 0;
    }
    if (!u->o.has_unk)
        return by_fail(
            err, BY_EFORMAT,
            "the text has a character that the tokenizer does not know, and no token for "
            "that");
    by_ids_add(out, u->o.unk_id);
    return 0;
}

int by_unigram_encode(struct by_unigram *u, struct by_str word, struct by_ids *out,
                      struct by_err *err) {
    if (word.n + 1 > u->cap) {
        u->cap = BY_MAX(u->cap * 2, BY_MAX(word.n + 1, (size_t)256));
        u->best = by_realloc_array(u->best, u->cap, sizeof *u->best);
        u->path = by_realloc_array(u->path, u->cap, sizeof *u->path);
    }
    find_best(u, word);
    size_t n = 0;
    for (size_t end = word.n; end > 0; end = u->best[end].from)
        u->path[n++] = (uint32_t)end;
    while (n > 0) {
        const struct best *b = &u->best[u->path[--n]];
        bool is_unk = b->id == NONE || (u->o.has_unk && b->id == u->o.unk_id);
        if (!is_unk) {
            by_ids_add(out, b->id);
            continue;
        }
        size_t from = b->from, to = u->path[n];
        while (n > 0) {
            b = &u->best[u->path[n - 1]];
            if (b->id != NONE && !(u->o.has_unk && b->id == u->o.unk_id)) break;
            to = u->path[--n];
        }
        int rc = add_unknown(u, by_str_sub(word, from, to - from), out, err);
        if (rc) return rc;
    }
    return 0;
}
