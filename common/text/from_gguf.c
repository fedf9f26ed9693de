/* from_gguf.c - a tokenizer out of a GGUF file's keys.
 *
 *     tokenizer.ggml.model   "gpt2": byte-level BPE, split as tokenizer.ggml.pre says
 *     tokenizer.ggml.tokens, .token_type (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte), .merges,
 *     .scores, .bos_token_id, .eos_token_id, .add_bos_token, .add_eos_token */
#include "common/base/utf8.h"
#include "common/text/tokenizer_parts.h"

enum token_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

/* How llama.cpp's names for splitting are spelled in tokenizer.json. */
static const struct {
    const char *names; /* separated by spaces */
    const char *normalizer, *pre_tokenizer;
    bool ignore_merges;
} splits[] = {
    {"smollm starcoder refact command-r", "null",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}",
     false},
    {"gpt-2 phi-2 jina-es jina-de mpt olmo jais gigachat", "null",
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}", false},
    {"llama3 llama-v3 llama-bpe falcon3 dbrx smaug-bpe lfm2", "null",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
     "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"
     "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
     "\"behavior\":\"Isolated\",\"invert\":false},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}",
     true},
    {"qwen2 stablelm2 megrez hunyuan deepseek-r1-qwen", "{\"type\":\"NFC\"}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
     "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
     "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
     "\"behavior\":\"Isolated\",\"invert\":false},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}",
     false},
};

static bool has_name(const char *names, struct by_str name) {
    struct by_str rest = by_str_of(names), one;
    bool is_more = true;
    while (is_more) {
        is_more = by_str_split(&rest, ' ', &one);
        if (by_str_eq(one, name)) return true;
    }
    return false;
}

static const struct by_json_limits json_limits = {.bytes_max = 1 << 16, .depth_max = 16};

static int set_part(struct by_json **j, const char *text, struct by_err *err) {
    return by_json_parse(j, by_str_of(text), &json_limits, err);
}

static int read_parts(struct by_tokenizer *t, const char *normalizer, const char *pre_tokenizer,
                      const char *decoder, struct by_err *err) {
    struct by_json *a = NULL, *b = NULL, *c = NULL;
    int rc = set_part(&a, normalizer, err);
    if (!rc) rc = set_part(&b, pre_tokenizer, err);
    if (!rc) rc = set_part(&c, decoder, err);
    if (!rc) rc = by_normalize_parse(&t->normalize, a, t->uni, err);
    if (!rc) rc = by_pretok_parse(&t->pretok, b, t->uni, err);
    if (!rc) rc = by_decoder_parse(&t->decoder, c, err);
    by_json_free(c);
    by_json_free(b);
    by_json_free(a);
    return rc;
}

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
        if (type != CONTROL && type != USER_DEFINED) continue;
        struct by_added_token token = {
            .id = id, .content = by_vocab_get(&t->vocab, id), .special = type == CONTROL};
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

static int read_byte_level(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_str pre = BY_STR("gpt-2");
    int rc = by_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err);
    if (rc) return rc;
    size_t i = 0;
    while (i < BY_COUNTOF(splits) && !has_name(splits[i].names, pre))
        i++;
    if (i == BY_COUNTOF(splits))
        return by_fail(err, BY_EUNSUPPORTED,
                       "tokenizer.ggml.pre '" BY_STR_FMT "' is not known: give the folder of the "
                       "original tokenizer with --tokenizer-path",
                       BY_STR_ARG(pre));
    rc = read_parts(t, splits[i].normalizer, splits[i].pre_tokenizer, "{\"type\":\"ByteLevel\"}",
                    err);
    if (!rc) rc = read_tokens(t, g, err);
    if (!rc) rc = read_types(t, g, err);
    struct by_bpe_options o = {.is_byte_level = true, .ignore_merges = splits[i].ignore_merges};
    if (!rc && o.ignore_merges) rc = by_tokenizer_spell_words(t, err);
    t->kind = "BPE";
    return rc ? rc : read_merges(t, g, &o, err);
}

int by_tokenizer_from_gguf(struct by_tokenizer *t, const struct by_gguf *g, struct by_err *err) {
    struct by_str model = {0};
    bool add_bos = false, add_eos = false;
    int rc = by_gguf_get_str(g, "tokenizer.ggml.model", &model, err);
    if (rc) return rc;
    if (!model.n)
        return by_fail(err, BY_ENOTFOUND, "the file has no tokenizer (no tokenizer.ggml.model)");
    if (by_str_eqz(model, "gpt2"))
        rc = read_byte_level(t, g, err);
    else
        rc = by_fail(err, BY_EUNSUPPORTED, "tokenizer.ggml.model '" BY_STR_FMT "' is not supported",
                     BY_STR_ARG(model));
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.bos_token_id", 0, t->vocab.n - 1, &t->bos, err);
    if (!rc)
        rc = by_gguf_get_i64(g, "tokenizer.ggml.eos_token_id", 0, t->vocab.n - 1, &t->eos, err);
    if (!rc) rc = by_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &add_bos, err);
    if (!rc) rc = by_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &add_eos, err);
    if (rc) return rc;
    if (add_bos && t->bos >= 0) t->before[t->n_before++] = (uint32_t)t->bos;
    if (add_eos && t->eos >= 0) t->behind[t->n_behind++] = (uint32_t)t->eos;
    return 0;
}
