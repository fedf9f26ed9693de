#include "common/text/tokenizer.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/clean.h"
#include "common/text/tokenizer_parts.h"

struct by_tokenizer *by_tokenizer_new(void) {
    struct by_tokenizer *t = by_alloc(sizeof *t);
    t->uni = by_uni_new();
    t->added = by_added_new(t->uni);
    by_vocab_init(&t->vocab);
    by_vocab_init(&t->words);
    by_vocab_init(&t->shown);
    t->cache = by_word_cache_new();
    t->bos = t->eos = -1;
    t->kind = "";
    return t;
}

void by_tokenizer_close(struct by_tokenizer *t) {
    if (!t) return;
    if (!t->mapped.p) by_free(t->is_special);
    by_vocab_release(&t->shown);
    by_decoder_free(t->decoder);
    by_wordpiece_free(t->wordpiece);
    by_unigram_free(t->unigram);
    by_bpe_free(t->bpe);
    by_free(t->cache);
    by_pretok_free(t->pretok);
    by_normalize_free(t->normalize);
    by_added_free(t->added);
    by_vocab_release(&t->words);
    by_vocab_release(&t->vocab);
    by_uni_free(t->uni);
    for (size_t i = 0; i < BY_COUNTOF(t->parts); i++)
        by_free(t->parts[i]);
    by_file_unmap(&t->mapped);
    by_free(t);
}

int by_tokenizer_add(struct by_tokenizer *t, const struct by_added_token *token,
                     struct by_err *err) {
    struct by_added_token copy = *token;
    if (!token->content.n) return 0;
    if (!by_added_find(t->added, token->content, &copy.id) &&
        !by_vocab_find(&t->vocab, token->content, &copy.id)) {
        copy.id = t->vocab.n;
        for (uint32_t i = 0; i < by_added_n(t->added); i++)
            copy.id = BY_MAX(copy.id, by_added_at(t->added, i)->id + 1);
    }
    if (copy.id >= BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_ELIMIT,
                       "added token '" BY_STR_FMT "' has the id %u; at most %d are possible",
                       BY_STR_ARG(by_str_sub(token->content, 0, 100)), copy.id, BY_VOCAB_IDS_MAX);
    copy.pattern = copy.content;
    if (token->normalized) {
        int rc =
            by_normalize_run(t->normalize, token->content, BY_ADDED_BYTES_MAX, &copy.pattern, err);
        if (rc) return rc;
    }
    return by_added_put(t->added, &copy, err);
}

int by_tokenizer_spell_words(struct by_tokenizer *t, struct by_err *err) {
    char *bytes = by_alloc(BY_PIECE_BYTES_MAX);
    int rc = 0;
    by_vocab_reserve(&t->words, t->vocab.n);
    for (uint32_t id = 0; id < t->vocab.n && !rc; id++) {
        if (!by_vocab_has(&t->vocab, id)) continue;
        bool is_spelled;
        size_t n = by_alphabet_spell(by_vocab_get(&t->vocab, id), bytes, &is_spelled);
        if (is_spelled) rc = by_vocab_put(&t->words, id, (struct by_str){bytes, n}, true, err);
    }
    by_free(bytes);
    return rc;
}

/* Every id's piece, as Hugging Face's decode starts from it. */
static int show_pieces(struct by_tokenizer *t, struct by_err *err) {
    int rc = 0;
    uint32_t n = t->vocab.n;
    for (uint32_t i = 0; i < by_added_n(t->added); i++)
        n = BY_MAX(n, by_added_at(t->added, i)->id + 1);
    t->n_vocab = n;
    t->is_special = by_alloc_array(n + 1, 1);
    for (uint32_t i = 0; i < by_added_n(t->added) && !rc; i++) {
        const struct by_added_token *a = by_added_at(t->added, i);
        rc = by_vocab_put(&t->shown, a->id, a->pattern, false, err);
        const struct by_added_token *shown = by_added_get(t->added, a->pattern);
        t->is_special[a->id] = shown && shown->special; /* by what is shown, as the reference */
    }
    for (uint32_t id = 0; id < t->vocab.n && !rc; id++) {
        if (by_vocab_has(&t->vocab, id) && !by_vocab_has(&t->shown, id))
            rc = by_vocab_put(&t->shown, id, by_vocab_get(&t->vocab, id), false, err);
    }
    return rc;
}

int by_tokenizer_finish(struct by_tokenizer *t, struct by_err *err) {
    by_added_finish(t->added);
    if (t->bpe && by_bpe_is_literal(t->bpe)) by_pretok_split_between(t->pretok, &t->vocab);
    if (t->bpe) by_bpe_finish(t->bpe);
    int rc = show_pieces(t, err);
    if (!rc) rc = by_decoder_set_pieces(t->decoder, &t->shown, err);
    for (uint32_t i = 0; i < t->frame.n_before && !rc; i++) {
        if (t->frame.before[i] >= t->n_vocab)
            rc = by_fail(err, BY_EFORMAT, "post_processor: no token %u", t->frame.before[i]);
    }
    for (uint32_t i = 0; i < t->frame.n_behind && !rc; i++) {
        if (t->frame.behind[i] >= t->n_vocab)
            rc = by_fail(err, BY_EFORMAT, "post_processor: no token %u", t->frame.behind[i]);
    }
    const struct by_pair_part *parts[] = {&t->pair.before, &t->pair.between, &t->pair.behind};
    for (uint32_t k = 0; k < BY_COUNTOF(parts); k++) {
        for (uint32_t i = 0; i < parts[k]->n && !rc; i++) {
            if (parts[k]->ids[i] >= t->n_vocab)
                rc = by_fail(err, BY_EFORMAT, "post_processor: no token %u", parts[k]->ids[i]);
        }
    }
    return rc;
}

int by_tokenizer_parse(struct by_tokenizer **out, struct by_str json, const char *name,
                       struct by_err *err) {
    struct by_tokenizer *t = by_tokenizer_new();
    int rc = by_tokenizer_from_json(t, json, err);
    if (!rc) rc = by_tokenizer_finish(t, err);
    if (rc) {
        by_tokenizer_close(t);
        return by_fail_prefix(err, "%s", name);
    }
    *out = t;
    return 0;
}

/* ---- encode ---- */

struct encoding {
    struct by_tokenizer *t;
    struct by_ids *out;
};

static int ask_model(struct by_tokenizer *t, struct by_str word, struct by_ids *out,
                     struct by_err *err) {
    if (t->bpe) {
        by_bpe_encode(t->bpe, word, out);
        return 0;
    }
    return t->unigram ? by_unigram_encode(t->unigram, word, out, err)
                      : by_wordpiece_encode(t->wordpiece, word, out, err);
}

static int encode_word(void *ctx, struct by_str word, struct by_err *err) {
    struct encoding *e = ctx;
    if (e->out->is_full)
        return by_fail(err, BY_ELIMIT, "the text has more than %zu tokens", e->out->max);
    struct by_cached_word *slot = by_word_cache_slot(e->t->cache, word);
    if (slot && by_word_cache_hit(slot, word)) {
        for (unsigned i = 0; i < slot->n_ids; i++)
            by_ids_add(e->out, slot->ids[i]);
        return 0;
    }
    size_t from = e->out->n;
    int rc = ask_model(e->t, word, e->out, err);
    if (slot && !rc && !e->out->is_full)
        by_word_cache_put(slot, word, e->out->p + from, e->out->n - from);
    return rc;
}

/* No Unicode form makes more than eleven bytes of one; a chain of replacements that makes hundreds is a bomb. */
static size_t normalized_max(size_t n) {
    return BY_MIN(2 * (size_t)BY_TEXT_BYTES_MAX, 32 * n + 65536);
}

/* Text without tokens of the first kind: normalized, then without those of the second. */
static int encode_plain(struct encoding *e, struct by_str text, bool is_first, bool allow_special,
                        struct by_err *err) {
    int rc = by_normalize_run(e->t->normalize, text, normalized_max(text.n), &text, err);
    struct by_added_search s = {.in_normalized = true, .allow_special = allow_special};
    struct by_added_part part;
    while (!rc && by_added_next(e->t->added, text, &s, &part)) {
        if (part.token)
            by_ids_add(e->out, part.token->id);
        else
            rc = by_pretok_run(e->t->pretok, by_str_sub(text, part.from, part.to - part.from),
                               is_first && part.from == 0, encode_word, e, err);
    }
    return rc;
}

static int encode_text(struct encoding *e, struct by_str text, const struct by_encode_options *o,
                       struct by_err *err) {
    const uint8_t *marks = o->user_marks;
    struct by_added_search s = {
        .in_normalized = false, .allow_special = o->allow_special, .user_marks = marks};
    struct by_added_part part;
    int rc = 0;
    while (!rc && by_added_next(e->t->added, text, &s, &part)) {
        if (part.token)
            by_ids_add(e->out, part.token->id);
        else { /* normalizing moves bytes: a part with a mark has no special tokens at all from here on */
            size_t n = part.to - part.from;
            bool is_clear = !marks || by_added_is_clear(marks + part.from, n);
            rc = encode_plain(e, by_str_sub(text, part.from, n), part.from == 0,
                              o->allow_special && is_clear, err);
        }
    }
    return rc;
}

static void add_ids(struct by_ids *out, const uint32_t *ids, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        by_ids_add(out, ids[i]);
}

/* The text's own ids behind what out has; with n_max no more than leave room for n_behind of those that follow. */
static int encode_own(struct by_tokenizer *t, struct by_str text, const struct by_encode_options *o,
                      size_t from, uint32_t n_behind, struct by_ids *out, struct by_err *err) {
    if (text.n > BY_TEXT_BYTES_MAX)
        return by_fail(err, BY_ELIMIT, "the text has %zu bytes: at most %d", text.n,
                       BY_TEXT_BYTES_MAX);
    if (!text.p) text.p = "";
    if (!by_utf8_valid(text.p, text.n)) return by_fail(err, BY_EFORMAT, "the text is not UTF-8");
    struct encoding e = {.t = t, .out = out};
    size_t n_before = out->n;
    by_normalize_begin(t->normalize);
    by_pretok_begin(t->pretok);
    int rc = encode_text(&e, text, o, err);
    if (o->n_max && !rc && !out->is_full && out->n - from + n_behind > o->n_max) {
        size_t end = from + (o->n_max > n_behind ? o->n_max - n_behind : 0);
        out->n = BY_MAX(end, n_before);
    }
    return rc;
}

int by_tokenizer_encode(struct by_tokenizer *t, struct by_str text,
                        const struct by_encode_options *o, struct by_ids *out, struct by_err *err) {
    bool special = o->add_special_tokens;
    size_t from = out->n;
    if (special) add_ids(out, t->frame.before, t->frame.n_before);
    int rc = encode_own(t, text, o, from, special ? t->frame.n_behind : 0, out, err);
    if (special) add_ids(out, t->frame.behind, t->frame.n_behind);
    if (!rc && out->is_full)
        rc = by_fail(err, BY_ELIMIT, "the text has more than %zu tokens", out->max);
    return rc;
}

int by_tokenizer_encode_pair(struct by_tokenizer *t, struct by_str first, struct by_str second,
                             const struct by_encode_options *o, struct by_ids *out,
                             uint32_t *pair_at, struct by_err *err) {
    const struct by_pair *p = &t->pair;
    struct by_encode_options whole = *o; /* of the first text nothing is cut */
    size_t from = out->n;
    whole.n_max = 0;
    if (!p->is_known)
        return by_fail(err, BY_EUNSUPPORTED, "the tokenizer does not say how it joins two texts");
    add_ids(out, p->before.ids, p->before.n);
    int rc = encode_own(t, first, &whole, from, 0, out, err);
    *pair_at = p->has_types ? (uint32_t)(out->n - from) + p->n_first : 0;
    add_ids(out, p->between.ids, p->between.n);
    if (!rc) rc = encode_own(t, second, o, from, p->behind.n, out, err);
    add_ids(out, p->behind.ids, p->behind.n);
    if (!rc && out->is_full)
        rc = by_fail(err, BY_ELIMIT, "the texts have more than %zu tokens", out->max);
    return rc;
}

/* ---- decode ---- */

bool by_tokenizer_cleans(const struct by_tokenizer *t, const struct by_decode_options *o) {
    return t->clean_up && !t->bpe && !o->keep_spaces;
}

static void add_cleaned(struct by_buf *out, struct by_str bytes) {
    struct by_clean clean;
    struct by_buf plain;
    by_clean_init(&clean);
    by_buf_init(&plain, SIZE_MAX / 2);
    by_decoder_add_lossy(&plain, bytes);
    by_clean_push(&clean, by_buf_str(&plain), out);
    by_clean_finish(&clean, out);
    by_buf_release(&plain);
    by_clean_release(&clean);
}

void by_tokenizer_decode(const struct by_tokenizer *t, const uint32_t *ids, size_t n,
                         const struct by_decode_options *o, struct by_buf *out) {
    struct by_buf text;
    struct by_decoder_state s;
    by_buf_init(&text, SIZE_MAX / 2);
    by_decoder_start(t->decoder, &s);
    for (size_t i = 0; i < n; i++) {
        if (o->skip_special_tokens && by_tokenizer_is_special(t, ids[i])) continue;
        by_decoder_push(t->decoder, &s, ids[i], &text);
    }
    by_decoder_finish(t->decoder, &s, &text);
    if (by_tokenizer_cleans(t, o))
        add_cleaned(out, by_buf_str(&text));
    else
        by_decoder_add_lossy(out, by_buf_str(&text));
    by_buf_release(&text);
}

/* ---- facts ---- */

uint32_t by_tokenizer_n_vocab(const struct by_tokenizer *t) {
    return t->n_vocab;
}

struct by_str by_tokenizer_piece(const struct by_tokenizer *t, uint32_t id) {
    return by_vocab_get(&t->shown, id);
}

struct by_str by_tokenizer_bytes(const struct by_tokenizer *t, uint32_t id) {
    return by_decoder_bytes(t->decoder, id);
}

bool by_tokenizer_find(const struct by_tokenizer *t, struct by_str piece, uint32_t *id) {
    return by_added_find(t->added, piece, id) || by_vocab_find(&t->vocab, piece, id);
}

bool by_tokenizer_is_special(const struct by_tokenizer *t, uint32_t id) {
    return id < t->n_vocab && t->is_special[id];
}

int64_t by_tokenizer_bos(const struct by_tokenizer *t) {
    return t->bos;
}

int64_t by_tokenizer_eos(const struct by_tokenizer *t) {
    return t->eos;
}

const char *by_tokenizer_kind(const struct by_tokenizer *t) {
    return t->kind;
}
