/* from_gguf.c - a tokenizer out of a GGUF file's keys.
 *
 *     tokenizer.ggml.model   "gpt2": byte-level BPE, split as tokenizer.ggml.pre says; "llama": SentencePiece BPE by
 *                            scores; "gemma4": the same by merges; "t5": Unigram; "bert": WordPiece
 *     tokenizer.ggml.tokens, .token_type (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte), .merges,
 *     .scores, .bos_token_id, .eos_token_id, .add_bos_token, .add_eos_token */
#include "common/base/utf8.h"
#include "common/text/gguf_splits.h"
#include "common/text/tokenizer_parts.h"

enum token_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static int read_tokens(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_gguf_array tokens;
    struct by_str piece;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.tokens", BY_GGUF_STR, &tokens, err);
    if (rc) return rc;
    if (!tokens.n || tokens.n > BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_EFORMAT, "tokenizer.ggml.tokens has %llu tokens",
                       (unsigned long long)tokens.n);
    by_vocab_reserve(&t->vocab, (uint32_t)tokens.n);
    for (uint32_t id = 0; !rc && by_gguf_next_str(&tokens, &piece); id++) {
        if (!by_utf8_valid(piece.p, piece.n))
            rc = by_fail(err, BY_EFORMAT, "tokenizer.ggml.tokens: token %u is not UTF-8", id);
        else
            rc = by_vocab_put(&t->vocab, id, piece, true, err);
    }
    return rc;
}

static int read_types(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_gguf_array types;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.token_type", BY_GGUF_I64, &types, err);
    for (uint32_t id = 0; !rc && id < types.n && id < t->vocab.n; id++) {
        int64_t type = by_gguf_at_i64(&types, id);
        if (type != UNKNOWN && type != CONTROL && type != USER_DEFINED) continue;
        struct by_added_token token = {
            .id = id, .content = by_vocab_get(&t->vocab, id), .special = type != USER_DEFINED};
        rc = by_tokenizer_add(t, &token, err);
    }
    return rc;
}

static int read_merges(struct by_tokenizer *t, const struct by_gguf *g,
                       const struct by_bpe_options *o, struct by_err *err) {
    struct by_gguf_array merges;
    struct by_str pair, left;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.merges", BY_GGUF_STR, &merges, err);
    if (rc) return rc;
    if (merges.n > BY_MERGES_MAX)
        return by_fail(err, BY_ELIMIT, "tokenizer.ggml.merges has %llu merges",
                       (unsigned long long)merges.n);
    t->bpe = by_bpe_new(&t->vocab, o->is_byte_level ? &t->words : &t->vocab, o, (uint32_t)merges.n);
    while (!rc && by_gguf_next_str(&merges, &pair)) {
        if (!by_str_split(&pair, ' ', &left) || !pair.n)
            rc = by_fail(err, BY_EFORMAT, "tokenizer.ggml.merges: a merge is two pieces");
        else
            rc = by_bpe_add_merge(t->bpe, left, pair, err);
    }
    return rc ? rc : by_bpe_end_merges(t->bpe, err);
}

static int read_byte_level(struct by_tokenizer *t, const struct by_gguf *g, bool *add_bos,
                           struct by_err *err) {
    struct by_str pre = BY_STR("gpt-2");
    int rc = by_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc) return rc;
    const struct by_gguf_split *split = by_gguf_split_find(pre);
    if (!split)
        return by_fail(err, BY_EUNSUPPORTED,
                       "tokenizer.ggml.pre '" BY_STR_FMT "' is not known: give the folder of the "
                       "original tokenizer with --tokenizer-path",
                       BY_STR_ARG(pre));
    rc = by_tokenizer_set_parts(t, split->normalizer, split->pre_tokenizer,
                                "{\"type\":\"ByteLevel\"}", err);
    if (!rc) rc = read_tokens(t, g, err);
    if (!rc) rc = read_types(t, g, err);
    if (rc) return rc;
    struct by_bpe_options o = {.is_byte_level = by_pretok_is_byte_level(t->pretok),
                               .ignore_merges = split->ignore_merges};
    if (o.ignore_merges) rc = by_tokenizer_spell_words(t, err);
    *add_bos = split->add_bos;
    t->kind = "BPE";
    return rc ? rc : read_merges(t, g, &o, err);
}

/* ---- SentencePiece ---- */

static int read_scores(const struct by_gguf *g, uint32_t n, double **out, struct by_err *err) {
    struct by_gguf_array scores;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.scores", BY_GGUF_F64, &scores, err);
    if (rc) return rc;
    if (scores.n != n)
        return by_fail(err, BY_EFORMAT, "tokenizer.ggml.scores has %llu scores for %u tokens",
                       (unsigned long long)scores.n, n);
    *out = by_alloc_array((size_t)n + 1, sizeof **out);
    for (uint32_t id = 0; id < n; id++)
        (*out)[id] = by_gguf_at_f64(&scores, id);
    return 0;
}

static int read_charsmap(const struct by_gguf *g, struct by_buf *out, struct by_err *err) {
    struct by_gguf_array bytes;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.precompiled_charsmap", BY_GGUF_I64, &bytes, err);
    for (uint64_t i = 0; !rc && i < bytes.n; i++)
        by_buf_addc(out, (char)by_gguf_at_i64(&bytes, i));
    return rc;
}

/* unknown, control and user defined tokens are found in the text, whatever the model makes of it */
static int read_spm(struct by_tokenizer *t, const struct by_gguf *g, bool is_unigram,
                    struct by_err *err) {
    struct by_spm s = {.style = is_unigram ? BY_SPM_T5 : BY_SPM_LLAMA,
                       .is_unigram = is_unigram,
                       .byte_fallback = !is_unigram,
                       .add_dummy_prefix = true,
                       .unk_id = is_unigram ? 2 : 0};
    struct by_buf charsmap;
    by_buf_init(&charsmap, 8 << 20);
    int rc = read_tokens(t, g, err);
    if (!rc) rc = read_scores(g, t->vocab.n, &s.scores, err);
    if (!rc) rc = by_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &s.add_dummy_prefix, err);
    if (!rc)
        rc = by_gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces",
                              &s.remove_extra_whitespaces, err);
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.unknown_token_id", 0, t->vocab.n - 1, &s.unk_id,
                             err);
    if (!rc && is_unigram) rc = read_charsmap(g, &charsmap, err);
    s.charsmap = by_buf_str(&charsmap);
    if (!rc && s.unk_id >= t->vocab.n) s.unk_id = -1;
    if (!rc) rc = by_tokenizer_from_scores(t, &s, err);
    if (!rc) rc = read_types(t, g, err);
    by_buf_release(&charsmap);
    by_free(s.scores);
    return rc;
}

static int read_gemma4(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_bpe_options o = {.byte_fallback = true, .fuse_unk = true};
    int64_t unk = -1;
    int rc = by_tokenizer_set_parts(
        t, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}",
        "null",
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}",
        err);
    if (!rc) rc = read_tokens(t, g, err);
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.unknown_token_id", 0, t->vocab.n - 1, &unk, err);
    o.has_unk = unk >= 0;
    o.unk_id = (uint32_t)BY_MAX(unk, 0);
    if (!rc) rc = read_types(t, g, err);
    t->kind = "BPE";
    return rc ? rc : read_merges(t, g, &o, err);
}

/* ---- BERT ---- */

/* llama.cpp writes "▁un", "aff", "able" where the vocabulary had "un", "##aff", "##able". */
static int read_bert_tokens(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    static const struct by_str mark = {"\xE2\x96\x81", 3};
    struct by_gguf_array tokens, types;
    struct by_str piece;
    struct by_buf name;
    int rc = by_gguf_get_array(g, "tokenizer.ggml.tokens", BY_GGUF_STR, &tokens, err);
    if (!rc) rc = by_gguf_get_array(g, "tokenizer.ggml.token_type", BY_GGUF_I64, &types, err);
    if (rc) return rc;
    if (!tokens.n || tokens.n > BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_EFORMAT, "tokenizer.ggml.tokens has %llu tokens",
                       (unsigned long long)tokens.n);
    by_buf_init(&name, BY_PIECE_BYTES_MAX);
    by_vocab_reserve(&t->vocab, (uint32_t)tokens.n);
    for (uint32_t id = 0; !rc && by_gguf_next_str(&tokens, &piece); id++) {
        bool is_control = id < types.n && by_gguf_at_i64(&types, id) == CONTROL;
        bool is_name = piece.n > 2 && piece.p[0] == '[' && piece.p[piece.n - 1] == ']';
        by_buf_clear(&name);
        if (by_str_starts(piece, mark)) {
            piece = by_str_sub(piece, mark.n, piece.n);
        } else if (!is_control && !is_name) {
            by_buf_addz(&name, "##");
            by_buf_add_str(&name, piece);
            piece = by_buf_str(&name);
        }
        rc = by_utf8_valid(piece.p, piece.n)
                 ? by_vocab_put(&t->vocab, id, piece, true, err)
                 : by_fail(err, BY_EFORMAT, "tokenizer.ggml.tokens: token %u is not UTF-8", id);
    }
    by_buf_release(&name);
    return rc;
}

static int read_bert(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_wordpiece_options o = {.prefix = BY_STR("##"), .max_chars = 100};
    int64_t cls = -1, sep = -1, unk = -1;
    int rc = by_tokenizer_set_parts(
        t,
        "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
        "\"strip_accents\":null,\"lowercase\":true}",
        "{\"type\":\"BertPreTokenizer\"}",
        "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", err);
    if (!rc) rc = read_bert_tokens(t, g, err);
    int64_t last = (int64_t)t->vocab.n - 1;
    if (!rc) rc = by_gguf_get_i64(g, "tokenizer.ggml.unknown_token_id", 0, last, &unk, err);
    if (!rc) rc = by_gguf_get_i64(g, "tokenizer.ggml.cls_token_id", 0, last, &cls, err);
    if (!rc && cls < 0) rc = by_gguf_get_i64(g, "tokenizer.ggml.bos_token_id", 0, last, &cls, err);
    if (!rc) rc = by_gguf_get_i64(g, "tokenizer.ggml.seperator_token_id", 0, last, &sep, err);
    if (!rc) rc = read_types(t, g, err);
    if (rc) return rc;
    o.has_unk = unk >= 0;
    o.unk_id = (uint32_t)BY_MAX(unk, 0);
    t->kind = "WordPiece";
    by_tokenizer_frame(t, cls, sep);
    return by_wordpiece_new(&t->wordpiece, &t->vocab, &o, err);
}

int by_tokenizer_from_gguf(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_str model = {0};
    bool add_bos = false, add_eos = false; /* what the file need not say */
    int rc = by_gguf_get_str(g, "tokenizer.ggml.model", &model, err);
    if (rc) return rc;
    if (!model.n)
        return by_fail(err, BY_ENOTFOUND, "the file has no tokenizer (no tokenizer.ggml.model)");
    if (by_str_eqz(model, "gpt2"))
        rc = read_byte_level(t, g, &add_bos, err);
    else if (by_str_eqz(model, "llama") || by_str_eqz(model, "t5"))
        rc = read_spm(t, g, by_str_eqz(model, "t5"), err);
    else if (by_str_eqz(model, "gemma4"))
        rc = read_gemma4(t, g, err);
    else if (by_str_eqz(model, "bert"))
        rc = read_bert(t, g, err);
    else
        rc = by_fail(err, BY_EUNSUPPORTED, "tokenizer.ggml.model '" BY_STR_FMT "' is not supported",
                     BY_STR_ARG(model));
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.bos_token_id", 0, t->vocab.n - 1, &t->bos, err);
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.eos_token_id", 0, t->vocab.n - 1, &t->eos, err);
    bool is_spm = by_str_eqz(model, "llama") || by_str_eqz(model, "gemma4");
    bool is_t5 = by_str_eqz(model, "t5");
    bool is_bert = by_str_eqz(model, "bert"); /* its frame is set */
    add_bos |= is_spm;
    add_eos = is_t5;
    if (!rc) rc = by_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &add_bos, err);
    if (!rc) rc = by_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &add_eos, err);
    if (!rc && !is_bert) by_tokenizer_frame(t, add_bos ? t->bos : -1, add_eos ? t->eos : -1);
    return rc;
}
