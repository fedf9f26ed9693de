#include "common/text/wordpiece.h"

#include "common/base/utf8.h"
#include "common/text/trie.h"

struct by_wordpiece {
    struct by_wordpiece_options o;
    const struct by_vocab *vocab;
    struct by_trie trie;
    uint32_t middle; /* the node behind the prefix */
    bool has_middle;
};

int by_wordpiece_new(struct by_wordpiece **out, const struct by_vocab *vocab,
                     const struct by_wordpiece_options *o, struct by_err *err) {
    struct by_wordpiece *w = by_alloc(sizeof *w);
    *w = (struct by_wordpiece){.o = *o, .vocab = vocab};
    by_trie_init(&w->trie);
    for (uint32_t id = 0; id < vocab->n && !o->is_whole_words; id++) {
        struct by_str piece = by_vocab_get(vocab, id);
        uint32_t found;
        if (!by_vocab_find(vocab, piece, &found) || found != id) continue;
        if (by_trie_put(&w->trie, piece, id)) continue;
        by_wordpiece_free(w);
        return by_fail(err, BY_ELIMIT, "model: the vocabulary is too large");
    }
    by_trie_freeze(&w->trie);
    w->middle = by_trie_walk(&w->trie, o->prefix);
    w->has_middle = w->middle || !o->prefix.n;
    *out = w;
    return 0;
}

void by_wordpiece_free(struct by_wordpiece *w) {
    if (!w) return;
    by_trie_release(&w->trie);
    by_free(w);
}

static int add_unknown(const struct by_wordpiece *w, struct by_ids *out, struct by_err *err) {
    if (!w->o.has_unk)
        return by_fail(
            err, BY_EFORMAT,
            "the text has a word that the tokenizer does not know, and no token for that");
    by_ids_add(out, w->o.unk_id);
    return 0;
}

int by_wordpiece_encode(const struct by_wordpiece *w, struct by_str word, struct by_ids *out,
                        struct by_err *err) {
    uint32_t id;
    if (w->o.is_whole_words) {
        if (!by_vocab_find(w->vocab, word, &id)) return add_unknown(w, out, err);
        by_ids_add(out, id);
        return 0;
    }
    /* A character has four bytes at most: count only what may be too long. */
    if (word.n > w->o.max_chars && by_utf8_count(word.p, word.n) > w->o.max_chars)
        return add_unknown(w, out, err);
    size_t n_before = out->n;
    for (size_t i = 0, n; i < word.n; i += n) {
        n = i && !w->has_middle ? 0
                                : by_trie_longest(&w->trie, i ? w->middle : 0,
                                                  by_str_sub(word, i, word.n - i), &id);
        if (!n) {
            out->n = n_before;
            return add_unknown(w, out, err);
        }
        by_ids_add(out, id);
    }
    return 0;
}
