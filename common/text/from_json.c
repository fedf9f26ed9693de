/* from_json.c - reads a tokenizer.json. The vocabulary and the merges, a million values, are pulled straight from the
 * text; everything else is small, and read through json.h. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/json_pull.h"
#include "common/text/tokenizer_parts.h"

enum { STR_MAX = BY_PIECE_BYTES_MAX * 6 };

static const struct by_json_limits small_limits = {.bytes_max = 64 << 20, .depth_max = 32};

/* Slices of the file, read in the order that they need each other. */
struct slices {
    struct by_str added, normalizer, pre_tokenizer, post_processor, decoder, model;
    struct by_str vocab, merges, model_rest;
};

/* ---- the outline ---- */

static int read_outline(struct by_str json, struct slices *s, struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch;
    struct by_str key;
    by_pull_init(&p, json);
    by_buf_init(&scratch, STR_MAX);
    by_pull_object(&p);
    while (by_pull_key(&p, &scratch, &key)) {
        struct by_str *to = by_str_eqz(key, "added_tokens")     ? &s->added
                            : by_str_eqz(key, "normalizer")     ? &s->normalizer
                            : by_str_eqz(key, "pre_tokenizer")  ? &s->pre_tokenizer
                            : by_str_eqz(key, "post_processor") ? &s->post_processor
                            : by_str_eqz(key, "decoder")        ? &s->decoder
                            : by_str_eqz(key, "model")          ? &s->model
                                                                : NULL;
        by_pull_skip(&p, to);
    }
    if (!p.is_bad && !by_pull_at_end(&p)) by_pull_fail(&p, "something behind the object");
    by_buf_release(&scratch);
    int rc = by_pull_error(&p, err);
    if (!rc && !s->model.n) rc = by_fail(err, BY_EFORMAT, "there is no \"model\"");
    return rc;
}

/* The model's own small members as one JSON object, its vocabulary and merges as slices. */
static int read_model_outline(struct slices *s, struct by_buf *rest, struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch;
    struct by_str key, raw;
    by_pull_init(&p, s->model);
    by_buf_init(&scratch, STR_MAX);
    by_buf_addc(rest, '{');
    by_pull_object(&p);
    while (by_pull_key(&p, &scratch, &key)) {
        if (by_str_eqz(key, "vocab")) {
            by_pull_skip(&p, &s->vocab);
        } else if (by_str_eqz(key, "merges")) {
            by_pull_skip(&p, &s->merges);
        } else {
            if (rest->n > 1) by_buf_addc(rest, ',');
            by_buf_add_json_str(rest, key);
            by_buf_addc(rest, ':');
            if (by_pull_skip(&p, &raw)) by_buf_add_str(rest, raw);
        }
    }
    by_buf_addc(rest, '}');
    by_buf_release(&scratch);
    if (rest->is_full) return by_fail(err, BY_ELIMIT, "model: too much beside its vocabulary");
    return by_pull_error(&p, err);
}

static int parse_small(struct by_json **out, struct by_str raw, const char *what,
                       struct by_err *err) {
    *out = NULL;
    if (!raw.n) return 0;
    int rc = by_json_parse(out, raw, &small_limits, err);
    return rc ? by_fail_prefix(err, "%s", what) : 0;
}

/* ---- vocabulary and merges ---- */

static int read_vocab_object(struct by_tokenizer *t, struct by_str raw, struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch;
    struct by_str piece;
    int rc = 0;
    by_pull_init(&p, raw);
    by_buf_init(&scratch, STR_MAX);
    by_vocab_reserve(&t->vocab, (uint32_t)BY_MIN(raw.n / 12, (size_t)BY_VOCAB_IDS_MAX));
    by_pull_object(&p);
    while (!rc && by_pull_key(&p, &scratch, &piece)) {
        int64_t id;
        if (!by_pull_i64(&p, &id)) break;
        if (id < 0 || id >= BY_VOCAB_IDS_MAX)
            rc = by_fail(
                err, BY_ELIMIT, "'" BY_STR_FMT "' has the id %lld, which is not within 0 and %d",
                BY_STR_ARG(by_str_sub(piece, 0, 100)), (long long)id, BY_VOCAB_IDS_MAX - 1);
        else
            rc = by_vocab_put(&t->vocab, (uint32_t)id, piece, true, err);
    }
    by_buf_release(&scratch);
    if (!rc) rc = by_pull_error(&p, err);
    return rc ? by_fail_prefix(err, "model.vocab") : 0;
}

/* "a b" in older files, ["a", "b"] in newer ones. */
static int read_merges(struct by_tokenizer *t, struct by_str raw, struct by_err *err) {
    struct by_pull p;
    struct by_buf a, b;
    int rc = 0;
    by_pull_init(&p, raw);
    by_buf_init(&a, STR_MAX);
    by_buf_init(&b, STR_MAX);
    by_pull_array(&p);
    while (!rc && by_pull_item(&p)) {
        struct by_str left, right = {0};
        if (by_pull_peek(&p) == '[') {
            bool is_pair = by_pull_array(&p) && by_pull_item(&p) && by_pull_str(&p, &a, &left) &&
                           by_pull_item(&p) && by_pull_str(&p, &b, &right) && !by_pull_item(&p);
            if (!is_pair) by_pull_fail(&p, "a merge is a pair of strings");
        } else if (by_pull_str(&p, &a, &right)) {
            if (!by_str_split(&right, ' ', &left) || memchr(right.p, ' ', right.n))
                by_pull_fail(&p, "a merge is two pieces with one space between");
        }
        if (p.is_bad) break;
        rc = by_bpe_add_merge(t->bpe, left, right, err);
    }
    by_buf_release(&a);
    by_buf_release(&b);
    if (!rc) rc = by_pull_error(&p, err);
    if (!rc) rc = by_bpe_end_merges(t->bpe, err);
    return rc ? by_fail_prefix(err, "model.merges") : 0;
}

/* Is there a piece for every byte? */
static bool has_alphabet(const struct by_tokenizer *t) {
    uint32_t id;
    for (unsigned byte = 0; byte < 256; byte++) {
        char c[4];
        struct by_str letter = {c, by_utf8_encode(by_alphabet_char((uint8_t)byte), c)};
        if (!by_vocab_find(&t->vocab, letter, &id)) return false;
    }
    return true;
}

static int read_bpe(struct by_tokenizer *t, const struct by_json *model, struct slices *s,
                    struct by_err *err) {
    struct by_bpe_options o = {.is_byte_level = by_pretok_is_byte_level(t->pretok)};
    struct by_str unk = {0};
    int rc = read_vocab_object(t, s->vocab, err);
    if (!rc) rc = by_json_get_bool(model, "model", "ignore_merges", &o.ignore_merges, err);
    if (!rc) rc = by_json_get_bool(model, "model", "byte_fallback", &o.byte_fallback, err);
    if (!rc) rc = by_json_get_bool(model, "model", "fuse_unk", &o.fuse_unk, err);
    if (!rc) rc = by_json_get_str(model, "model", "unk_token", &unk, err);
    if (!rc) rc = by_json_get_str(model, "model", "continuing_subword_prefix", &o.prefix, err);
    if (!rc) rc = by_json_get_str(model, "model", "end_of_word_suffix", &o.suffix, err);
    double dropout = 0;
    if (!rc) rc = by_json_get_f64(model, "model", "dropout", 0, 1, &dropout, err);
    if (rc) return rc;
    if (dropout > 0) return by_fail(err, BY_EUNSUPPORTED, "model: dropout is not supported");
    if (unk.p && !by_vocab_find(&t->vocab, unk, &o.unk_id))
        return by_fail(err, BY_EFORMAT,
                       "model: unk_token '" BY_STR_FMT "' is not in the vocabulary",
                       BY_STR_ARG(unk));
    o.has_unk = unk.p != NULL;
    if (o.is_byte_level && (o.prefix.n || o.suffix.n || (o.byte_fallback && !has_alphabet(t)))) {
        by_pretok_spell(t->pretok); /* its symbols are the alphabet's letters, not bytes */
        o.is_byte_level = false;
    }
    if (o.is_byte_level && o.ignore_merges) rc = by_tokenizer_spell_words(t, err);
    if (rc) return rc;
    t->kind = "BPE";
    t->bpe = by_bpe_new(&t->vocab, o.is_byte_level ? &t->words : &t->vocab, &o,
                        (uint32_t)BY_MIN(s->merges.n / 12, (size_t)BY_MERGES_MAX));
    return s->merges.n ? read_merges(t, s->merges, err) : 0;
}

/* [["<unk>", 0.0], ["▁the", -3.2], …]: the id is the place. */
static int read_scored_vocab(struct by_tokenizer *t, struct by_str raw, double **scores,
                             struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch;
    size_t cap = 0;
    int rc = 0;
    by_pull_init(&p, raw);
    by_buf_init(&scratch, STR_MAX);
    by_pull_array(&p);
    for (uint32_t id = 0; !rc && by_pull_item(&p); id++) {
        struct by_str piece;
        double score = 0;
        bool is_pair = by_pull_array(&p) && by_pull_item(&p) && by_pull_str(&p, &scratch, &piece) &&
                       by_pull_item(&p) && by_pull_f64(&p, &score) && !by_pull_item(&p);
        if (!is_pair) by_pull_fail(&p, "expected [piece, score]");
        if (p.is_bad) break;
        if (id >= cap) {
            cap = BY_MAX(cap * 2, (size_t)1024);
            *scores = by_realloc_array(*scores, cap, sizeof **scores);
        }
        (*scores)[id] = score;
        rc = by_vocab_put(&t->vocab, id, piece, true, err);
    }
    by_buf_release(&scratch);
    if (!rc) rc = by_pull_error(&p, err);
    return rc ? by_fail_prefix(err, "model.vocab") : 0;
}

static int read_unigram(struct by_tokenizer *t, const struct by_json *model, struct slices *s,
                        struct by_err *err) {
    struct by_unigram_options o = {.has_unk = false};
    int64_t unk = -1;
    double *scores = NULL;
    int rc = read_scored_vocab(t, s->vocab, &scores, err);
    if (!rc) rc = by_json_get_i64(model, "model", "unk_id", 0, (int64_t)t->vocab.n - 1, &unk, err);
    if (!rc) rc = by_json_get_bool(model, "model", "byte_fallback", &o.byte_fallback, err);
    o.has_unk = unk >= 0;
    o.unk_id = (uint32_t)BY_MAX(unk, 0);
    t->kind = "Unigram";
    if (!rc) rc = by_unigram_new(&t->unigram, &t->vocab, scores, &o, err);
    by_free(scores);
    return rc;
}

static int read_wordpiece(struct by_tokenizer *t, const struct by_json *model, bool is_whole_words,
                          struct slices *s, struct by_err *err) {
    struct by_wordpiece_options o = {.is_whole_words = is_whole_words};
    struct by_str unk = BY_STR("[UNK]");
    int64_t max_chars = 100;
    if (is_whole_words) unk = BY_STR("<unk>");
    if (!is_whole_words) o.prefix = BY_STR("##");
    int rc = read_vocab_object(t, s->vocab, err);
    if (!rc) rc = by_json_get_str(model, "model", "unk_token", &unk, err);
    if (!rc && !is_whole_words)
        rc = by_json_get_str(model, "model", "continuing_subword_prefix", &o.prefix, err);
    if (!rc)
        rc = by_json_get_i64(model, "model", "max_input_chars_per_word", 0, 1 << 20, &max_chars,
                             err);
    if (rc) return rc;
    o.max_chars = (uint32_t)max_chars;
    o.has_unk = by_vocab_find(&t->vocab, unk, &o.unk_id);
    t->kind = is_whole_words ? "WordLevel" : "WordPiece";
    return by_wordpiece_new(&t->wordpiece, &t->vocab, &o, err);
}

/* Files written before the type was: Hugging Face tries one after the other. */
static struct by_str guess_type(const struct by_json *model, const struct slices *s) {
    if (s->merges.n) return BY_STR("BPE");
    if (s->vocab.n && s->vocab.p[0] == '[') return BY_STR("Unigram");
    return by_json_get(model, "max_input_chars_per_word") ? BY_STR("WordPiece")
                                                          : BY_STR("WordLevel");
}

static int read_model(struct by_tokenizer *t, struct slices *s, struct by_err *err) {
    struct by_buf rest;
    struct by_json *model = NULL;
    struct by_str type = {0};
    by_buf_init(&rest, 1 << 20);
    int rc = read_model_outline(s, &rest, err);
    if (!rc) rc = parse_small(&model, by_buf_str(&rest), "model", err);
    if (!rc) rc = by_json_get_str(model, "model", "type", &type, err);
    if (rc) goto done;
    if (!type.n) type = guess_type(model, s);
    if (by_pretok_is_byte_level(t->pretok) && !by_str_eqz(type, "BPE")) by_pretok_spell(t->pretok);
    if (by_str_eqz(type, "BPE"))
        rc = read_bpe(t, model, s, err);
    else if (by_str_eqz(type, "Unigram"))
        rc = read_unigram(t, model, s, err);
    else if (by_str_eqz(type, "WordPiece") || by_str_eqz(type, "WordLevel"))
        rc = read_wordpiece(t, model, by_str_eqz(type, "WordLevel"), s, err);
    else
        rc = by_fail(err, BY_EUNSUPPORTED, "model '" BY_STR_FMT "' is not supported",
                     BY_STR_ARG(type));
done:
    by_json_free(model);
    by_buf_release(&rest);
    return rc;
}

/* ---- added tokens ---- */

static int read_added(struct by_tokenizer *t, struct by_str raw, struct by_err *err) {
    struct by_json *list = NULL;
    int rc = parse_small(&list, raw, "added_tokens", err);
    if (!rc && list && by_json_type(list) != BY_JSON_ARRAY && by_json_type(list) != BY_JSON_NULL)
        rc = by_fail(err, BY_EFORMAT, "added_tokens: expected an array, got %s",
                     by_json_type_name(list));
    for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it)) {
        struct by_added_token token = {0};
        int64_t id = 0;
        rc = by_json_get_str(it, "added_tokens", "content", &token.content, err);
        if (!rc) rc = by_json_get_i64(it, "added_tokens", "id", 0, BY_VOCAB_IDS_MAX, &id, err);
        if (!rc) rc = by_json_get_bool(it, "added_tokens", "single_word", &token.single_word, err);
        if (!rc) rc = by_json_get_bool(it, "added_tokens", "lstrip", &token.lstrip, err);
        if (!rc) rc = by_json_get_bool(it, "added_tokens", "rstrip", &token.rstrip, err);
        if (!rc) rc = by_json_get_bool(it, "added_tokens", "normalized", &token.normalized, err);
        if (!rc) rc = by_json_get_bool(it, "added_tokens", "special", &token.special, err);
        token.id = (uint32_t)id;
        if (!rc) rc = by_tokenizer_add(t, &token, err);
    }
    by_json_free(list);
    return rc;
}

int by_tokenizer_from_json(struct by_tokenizer *t, struct by_str json, struct by_err *err) {
    struct slices s = {0};
    struct by_json *post = NULL;
    int rc = read_outline(json, &s, err);
    if (!rc) rc = parse_small(&post, s.post_processor, "post_processor", err);
    if (!rc) rc = by_tokenizer_parse_parts(t, s.normalizer, s.pre_tokenizer, s.decoder, err);
    if (!rc) rc = read_model(t, &s, err);
    if (!rc) rc = read_added(t, s.added, err);
    if (!rc) rc = by_post_read(&t->frame, &t->pair, post, err);
    by_json_free(post);
    return rc;
}
