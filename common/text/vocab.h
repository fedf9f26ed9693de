/* vocab.h - pieces by id and ids by piece.
 *
 *     piece[id] = {offset, length} into one blob          slots: power of two, linear probing, {id + 1 (0: empty), hash}
 *
 * Always: an id has at most one piece and a findable piece one id; ids <= BY_VOCAB_MAX; a hole has length 0.
 * Owner: whoever holds the struct; read-only once filled. A thawed one borrows its arrays, and nothing is put into it. */
#ifndef COMMON_TEXT_VOCAB_H
#define COMMON_TEXT_VOCAB_H

#include "common/base/err.h"
#include "common/text/frozen.h"

enum {
    BY_VOCAB_IDS_MAX = 1 << 21,    /* the largest vocabularies in use have 2^18 */
    BY_PIECE_BYTES_MAX = 1 << 16,  /* one piece */
    BY_VOCAB_BLOB_MAX = 256 << 20, /* all pieces */
    BY_VOCAB_MANY_MAX = 64,        /* lookups of one by_vocab_find_many */
};
#define BY_VOCAB_NONE UINT32_MAX

struct by_vocab_piece {
    uint32_t at, n;
};

struct by_vocab_slot {
    uint32_t id1;  /* id + 1; 0: empty */
    uint32_t hash; /* its upper half: what differs in it need not be looked up */
};

struct by_vocab {
    struct by_vocab_piece *pieces; /* [n] */
    uint32_t n, cap;               /* highest id + 1 */
    uint32_t n_pieces;             /* ids that are no holes */
    char *blob;
    size_t blob_n, blob_cap;
    struct by_vocab_slot *slots; /* [n_slots] */
    uint32_t n_slots, n_found;
    bool is_borrowed; /* thawed: the arrays are not ours */
};

void by_vocab_init(struct by_vocab *v);
void by_vocab_release(struct by_vocab *v);
void by_vocab_reserve(struct by_vocab *v, uint32_t n_ids); /* an expectation, clamped */
/* BY_EFORMAT when the id is taken or out of range, or the piece too long. is_findable: by_vocab_find will know it; of
 * two equal pieces the later has the name. */
BY_MUST_USE int by_vocab_put(struct by_vocab *v, uint32_t id, struct by_str piece, bool is_findable,
                             struct by_err *err);
BY_MUST_USE bool by_vocab_find(const struct by_vocab *v, struct by_str piece, uint32_t *id);
/* Many at a time, the memory of all asked for before the first is waited for. ids[i]: BY_VOCAB_NONE when it is not there. */
void by_vocab_find_many(const struct by_vocab *v, const struct by_str *pieces, size_t n,
                        uint32_t *ids);
bool by_vocab_has(const struct by_vocab *v, uint32_t id);

void by_vocab_shrink(struct by_vocab *v); /* no more room than its pieces need */
void by_vocab_freeze(const struct by_vocab *v, struct by_buf *out);
/* Checks all that the other functions rely on; t->is_bad when it does not hold. */
void by_vocab_thaw(struct by_vocab *v, struct by_thaw *t);

static inline struct by_str by_vocab_get(const struct by_vocab *v, uint32_t id) {
    if (id >= v->n || v->pieces[id].n == 0) return (struct by_str){"", 0};
    return (struct by_str){v->blob + v->pieces[id].at, v->pieces[id].n};
}

#endif
