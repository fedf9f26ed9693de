/* from_tiktoken.c - tokens by rank: OpenAI's *.tiktoken (Qwen's, Llama 3's tokenizer.model too), Mistral's tekken.json.
 *
 *     "IQ== 0\nIg== 1\n…"                                               base64 of the bytes, and the rank
 *     {"config": {"pattern", …}, "vocab": [{"rank", "token_bytes"}, …], "special_tokens": […]}
 *
 * A .tiktoken says neither how text is split nor which special tokens there are: both follow from its name, or the
 * tokens from tokenizer_config.json where that lists them. */
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/base64.h"
#include "common/text/json_pull.h"
#include "common/text/split_patterns.h"
#include "common/text/tokenizer_parts.h"

#include <stdio.h>

enum { TOKEN_MAX = 1 << 14, SPECIALS_MAX = 1 << 16 };

/* ---- ranks ---- */

/* One token's bytes, under their names in GPT-2's alphabet. */
static int put_token(struct by_tokenizer *t, struct by_str base64, uint64_t id,
                     struct by_buf *bytes, struct by_buf *name, struct by_err *err) {
    by_buf_clear(bytes);
    by_buf_clear(name);
    if (!by_base64_decode(base64, bytes) || !bytes->n || bytes->is_full)
        return by_fail(err, BY_EFORMAT, "token %llu: bad base64, or not 1 to %d bytes",
                       (unsigned long long)id, TOKEN_MAX);
    if (id >= BY_VOCAB_IDS_MAX)
        return by_fail(err, BY_ELIMIT, "rank %llu is past the limit of %d", (unsigned long long)id,
                       BY_VOCAB_IDS_MAX);
    for (size_t i = 0; i < bytes->n; i++) {
        char c[4];
        by_buf_add(name, c, by_utf8_encode(by_alphabet_char((uint8_t)bytes->p[i]), c));
    }
    return by_vocab_put(&t->vocab, (uint32_t)id, by_buf_str(name), true, err);
}

static int read_ranks(struct by_tokenizer *t, struct by_str text, struct by_err *err) {
    struct by_buf bytes, name;
    struct by_str line, base64;
    int rc = 0;
    by_buf_init(&bytes, TOKEN_MAX);
    by_buf_init(&name, 2 * TOKEN_MAX);
    by_vocab_reserve(&t->vocab, (uint32_t)BY_MIN(text.n / 12, (size_t)BY_VOCAB_IDS_MAX));
    for (size_t n = 1; text.n && !rc; n++) {
        uint64_t rank;
        by_str_split(&text, '\n', &line);
        line = by_str_trim(line);
        if (!line.n) continue;
        if (!by_str_split(&line, ' ', &base64) || !by_str_to_u64(line, &rank))
            rc = by_fail(err, BY_EFORMAT, "line %zu: expected base64 and a rank", n);
        else
            rc = put_token(t, base64, rank, &bytes, &name, err);
    }
    by_buf_release(&name);
    by_buf_release(&bytes);
    if (!rc && !t->vocab.n) rc = by_fail(err, BY_EFORMAT, "it has no tokens");
    return rc;
}

bool by_tokenizer_is_tiktoken(struct by_str bytes) {
    struct by_str line, base64;
    uint64_t rank;
    by_str_split(&bytes, '\n', &line);
    line = by_str_trim(line);
    return by_str_split(&line, ' ', &base64) && base64.n && base64.n % 4 == 0 &&
           by_str_to_u64(line, &rank);
}

/* ---- what is known of each file ---- */

/* Names in order of their ids; "name %d" with n counts up from `first`; "" leaves ids out. */
struct special {
    const char *name;
    uint32_t n, first;
};

static const struct special gpt2_specials[] = {{"<|endoftext|>", 1, 0}, {0}};
static const struct special cl100k_specials[] = {{"", 1, 0},
                                                 {"<|endoftext|>", 1, 0},
                                                 {"<|fim_prefix|>", 1, 0},
                                                 {"<|fim_middle|>", 1, 0},
                                                 {"<|fim_suffix|>", 1, 0},
                                                 {"", 15, 0},
                                                 {"<|endofprompt|>", 1, 0},
                                                 {0}};
static const struct special o200k_specials[] = {
    {"", 1, 0}, {"<|endoftext|>", 1, 0}, {"", 18, 0}, {"<|endofprompt|>", 1, 0}, {0}};
static const struct special harmony_specials[] = {{"<|startoftext|>", 1, 0},
                                                  {"<|endoftext|>", 1, 0},
                                                  {"<|reserved_%u|>", 2, 200000},
                                                  {"<|return|>", 1, 0},
                                                  {"<|constrain|>", 1, 0},
                                                  {"<|reserved_%u|>", 1, 200004},
                                                  {"<|channel|>", 1, 0},
                                                  {"<|start|>", 1, 0},
                                                  {"<|end|>", 1, 0},
                                                  {"<|message|>", 1, 0},
                                                  {"<|reserved_%u|>", 3, 200009},
                                                  {"<|call|>", 1, 0},
                                                  {"<|reserved_%u|>", 1075, 200013},
                                                  {0}};
static const struct special qwen_specials[] = {{"<|endoftext|>", 1, 0},
                                               {"<|im_start|>", 1, 0},
                                               {"<|im_end|>", 1, 0},
                                               {"<|extra_%u|>", 205, 0},
                                               {0}};
static const struct special llama3_specials[] = {{"<|begin_of_text|>", 1, 0},
                                                 {"<|end_of_text|>", 1, 0},
                                                 {"<|reserved_special_token_%u|>", 2, 0},
                                                 {"<|finetune_right_pad_id|>", 1, 0},
                                                 {"<|step_id|>", 1, 0},
                                                 {"<|start_header_id|>", 1, 0},
                                                 {"<|end_header_id|>", 1, 0},
                                                 {"<|eom_id|>", 1, 0},
                                                 {"<|eot_id|>", 1, 0},
                                                 {"<|python_tag|>", 1, 0},
                                                 {"<|reserved_special_token_%u|>", 245, 2},
                                                 {0}};
static const struct special no_specials[] = {{0}};

static const struct known {
    const char *part; /* of the file's name */
    const char *pattern;
    const struct special *specials; /* from the highest rank + 1 on */
    const char *normalizer;
    const char *bos, *eos;
    bool add_bos;
} knowns[] = {
    {"o200k_harmony", PAT_O200K, harmony_specials, "null", "<|startoftext|>", "<|return|>", false},
    {"o200k", PAT_O200K, o200k_specials, "null", NULL, "<|endoftext|>", false},
    {"cl100k", PAT_CL100K, cl100k_specials, "null", NULL, "<|endoftext|>", false},
    {"p50k", PAT_GPT2, no_specials, "null", NULL, "<|endoftext|>", false},
    {"r50k", PAT_GPT2, gpt2_specials, "null", NULL, "<|endoftext|>", false},
    {"gpt2", PAT_GPT2, gpt2_specials, "null", NULL, "<|endoftext|>", false},
    {"qwen", PAT_QWEN, qwen_specials, "{\"type\":\"NFC\"}", NULL, "<|endoftext|>", false},
    {"tiktoken.model", PAT_KIMI, no_specials, "null", "[BOS]", "[EOS]", false},
    {"tokenizer.model", PAT_CL100K, llama3_specials, "null", "<|begin_of_text|>", "<|end_of_text|>",
     true},
};

/* ---- special tokens ---- */

/* Unlike by_tokenizer_add, at the id that the file says. */
static int put_special(struct by_tokenizer *t, struct by_str name, uint64_t id, bool special,
                       struct by_err *err) {
    uint32_t taken;
    if (id >= BY_VOCAB_IDS_MAX || by_vocab_has(&t->vocab, (uint32_t)id))
        return by_fail(err, BY_EFORMAT,
                       "special token '" BY_STR_FMT "' has the id %llu, which a token has, or "
                       "which is too high",
                       BY_STR_ARG(by_str_sub(name, 0, 100)), (unsigned long long)id);
    if (by_added_find(t->added, name, &taken))
        return by_fail(err, BY_EFORMAT, "special token '" BY_STR_FMT "' is there twice",
                       BY_STR_ARG(by_str_sub(name, 0, 100)));
    struct by_added_token token = {
        .id = (uint32_t)id, .content = name, .pattern = name, .special = special};
    return by_added_put(t->added, &token, err);
}

static int put_specials(struct by_tokenizer *t, const struct special *s, struct by_err *err) {
    uint32_t id = t->vocab.n;
    int rc = 0;
    for (; s->name && !rc; s++) {
        if (!s->name[0]) id += s->n;
        for (uint32_t i = 0; s->name[0] && i < s->n && !rc; i++) {
            struct by_buf name;
            struct by_str rest = by_str_of(s->name), head;
            by_buf_init(&name, 128);
            bool is_counted = by_str_split(&rest, '%', &head);
            by_buf_add_str(&name, head);
            if (is_counted) { /* "%u" */
                by_buf_add_u64(&name, s->first + i);
                by_buf_add_str(&name, by_str_sub(rest, 1, rest.n));
            }
            rc = put_special(t, by_buf_str(&name), id++, true, err);
            by_buf_release(&name);
        }
    }
    return rc;
}

static int set_split(struct by_tokenizer *t, const char *normalizer, struct by_str pattern_json,
                     struct by_err *err) {
    struct by_buf pre;
    by_buf_init(&pre, 1 << 17);
    by_buf_addz(&pre, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                      "{\"Regex\":");
    by_buf_add_str(&pre, pattern_json);
    by_buf_addz(&pre, "},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
                      "\"add_prefix_space\":false,\"use_regex\":false}]}");
    int rc = pre.is_full
                 ? by_fail(err, BY_ELIMIT, "the split pattern is too long")
                 : by_tokenizer_set_parts(t, normalizer, pre.p, "{\"type\":\"ByteLevel\"}", err);
    by_buf_release(&pre);
    return rc;
}

static void name_ends(struct by_tokenizer *t, const char *bos, const char *eos) {
    uint32_t id;
    if (bos && by_tokenizer_find(t, by_str_of(bos), &id)) t->bos = id;
    if (eos && by_tokenizer_find(t, by_str_of(eos), &id)) t->eos = id;
}

int by_tokenizer_from_tiktoken(struct by_tokenizer *t, struct by_str bytes, const char *file,
                               const struct by_text_config *c, struct by_err *err) {
    const struct known *k = NULL;
    for (size_t i = 0; i < BY_COUNTOF(knowns) && !k; i++) {
        if (by_str_find(by_str_of(file), by_str_of(knowns[i].part), 0) != SIZE_MAX) k = &knowns[i];
    }
    if (!k)
        return by_fail(err, BY_EUNSUPPORTED,
                       "how this file's text is split is not known by its name (known: cl100k, "
                       "o200k, o200k_harmony, p50k, r50k, gpt2, qwen): rename it, or save a "
                       "tokenizer.json");
    struct by_buf pattern;
    by_buf_init(&pattern, 4096);
    by_buf_addf(&pattern, "\"%s\"", k->pattern);
    int rc = set_split(t, k->normalizer, by_buf_str(&pattern), err);
    by_buf_release(&pattern);
    if (!rc) rc = read_ranks(t, bytes, err);
    if (!rc) rc = by_tokenizer_from_ranks(t, err);
    if (rc) return rc;
    bool is_listed = c->added || by_json_get(c->tokenizer, "added_tokens_decoder");
    bool add_bos = k->add_bos;
    if (!is_listed) rc = put_specials(t, k->specials, err);
    /* p50k has a hole among its ranks, where this one lies */
    if (!rc && !is_listed && k->specials == no_specials && !by_vocab_has(&t->vocab, 50256) &&
        t->vocab.n > 50256)
        rc = put_special(t, BY_STR("<|endoftext|>"), 50256, true, err);
    if (!rc) name_ends(t, k->bos, k->eos);
    if (!rc) rc = by_tokenizer_add_config(t, c, err);
    if (!rc)
        rc =
            by_json_get_bool(c->tokenizer, "tokenizer_config.json", "add_bos_token", &add_bos, err);
    if (!rc) by_tokenizer_frame(t, add_bos ? t->bos : -1, -1);
    return rc;
}

/* ---- tekken.json ---- */

struct tekken {
    struct by_str config, vocab, specials;
    int64_t n_vocab, n_special; /* all ids; those of special tokens, which come first */
};

static int read_outline(struct tekken *k, struct by_str json, struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch;
    struct by_str key;
    by_pull_init(&p, json);
    by_buf_init(&scratch, 1 << 16);
    by_pull_object(&p);
    while (by_pull_key(&p, &scratch, &key)) {
        struct by_str *to = by_str_eqz(key, "config")           ? &k->config
                            : by_str_eqz(key, "vocab")          ? &k->vocab
                            : by_str_eqz(key, "special_tokens") ? &k->specials
                                                                : NULL;
        by_pull_skip(&p, to);
    }
    by_buf_release(&scratch);
    int rc = by_pull_error(&p, err);
    if (!rc && (!k->config.n || !k->vocab.n))
        rc = by_fail(err, BY_EFORMAT, "there is no \"config\" or no \"vocab\"");
    return rc;
}

static int read_tekken_config(struct by_tokenizer *t, struct tekken *k, struct by_err *err) {
    static const struct by_json_limits limits = {.bytes_max = 1 << 20, .depth_max = 16};
    struct by_json *j = NULL;
    struct by_buf pattern;
    struct by_str text = {0};
    by_buf_init(&pattern, 1 << 17);
    k->n_vocab = -1;
    int rc = by_json_parse(&j, k->config, &limits, err);
    if (!rc) rc = by_json_get_str(j, "config", "pattern", &text, err);
    if (!rc)
        rc = by_json_get_i64(j, "config", "default_vocab_size", 1, BY_VOCAB_IDS_MAX, &k->n_vocab,
                             err);
    if (!rc)
        rc = by_json_get_i64(j, "config", "default_num_special_tokens", 0, SPECIALS_MAX,
                             &k->n_special, err);
    if (!rc && (!text.n || k->n_vocab <= k->n_special))
        rc = by_fail(err, BY_EFORMAT,
                     "config: no pattern, or no default_vocab_size above the "
                     "number of special tokens");
    if (!rc) {
        by_buf_add_json_str(&pattern, text);
        rc = set_split(t, "null", by_buf_str(&pattern), err);
    }
    by_buf_release(&pattern);
    by_json_free(j);
    return rc;
}

static int read_tekken_vocab(struct by_tokenizer *t, const struct tekken *k, struct by_err *err) {
    struct by_pull p;
    struct by_buf scratch, base64, bytes, name;
    struct by_str key, s;
    int rc = 0;
    by_buf_init(&scratch, 1 << 16);
    by_buf_init(&base64, 1 << 16);
    by_buf_init(&bytes, TOKEN_MAX);
    by_buf_init(&name, 2 * TOKEN_MAX);
    by_pull_init(&p, k->vocab);
    by_pull_array(&p);
    while (!rc && by_pull_item(&p)) {
        int64_t rank = -1;
        by_buf_clear(&base64);
        by_pull_object(&p);
        while (by_pull_key(&p, &scratch, &key)) {
            if (by_str_eqz(key, "rank")) {
                by_pull_i64(&p, &rank);
            } else if (by_str_eqz(key, "token_bytes")) {
                if (by_pull_str(&p, &scratch, &s)) by_buf_add_str(&base64, s);
            } else {
                by_pull_skip(&p, NULL);
            }
        }
        if (p.is_bad) break;
        if (rank < 0)
            rc = by_fail(err, BY_EFORMAT, "vocab: a token without a rank");
        else if (rank < k->n_vocab - k->n_special)
            rc = put_token(t, by_buf_str(&base64), (uint64_t)(rank + k->n_special), &bytes, &name,
                           err);
    }
    by_buf_release(&name);
    by_buf_release(&bytes);
    by_buf_release(&base64);
    by_buf_release(&scratch);
    if (!rc) rc = by_pull_error(&p, err);
    return rc;
}

static int read_tekken_specials(struct by_tokenizer *t, const struct tekken *k,
                                struct by_err *err) {
    static const struct by_json_limits limits = {.bytes_max = 16 << 20, .depth_max = 16};
    static const char *const first[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    struct by_json *j = NULL;
    uint64_t n = 0;
    int rc = k->specials.n ? by_json_parse(&j, k->specials, &limits, err) : 0;
    for (const struct by_json *it = j ? by_json_first(j) : NULL; it && !rc; it = by_json_next(it)) {
        int64_t rank = (int64_t)n;
        struct by_str name = {0};
        rc = by_json_get_i64(it, "special_tokens", "rank", 0, k->n_special - 1, &rank, err);
        if (!rc) rc = by_json_get_str(it, "special_tokens", "token_str", &name, err);
        if (!rc && (uint64_t)rank != n)
            rc = by_fail(err, BY_EFORMAT, "special_tokens: rank %lld where %llu is due",
                         (long long)rank, (unsigned long long)n);
        if (!rc) rc = put_special(t, name, n++, true, err);
    }
    if (!j) {
        for (; n < BY_COUNTOF(first) && n < (uint64_t)k->n_special && !rc; n++)
            rc = put_special(t, by_str_of(first[n]), n, true, err);
    }
    for (; n < (uint64_t)k->n_special && !rc; n++) { /* the rest is numbered */
        char name[40];
        int len = snprintf(name, sizeof name, "<SPECIAL_%llu>", (unsigned long long)n);
        rc = put_special(t, (struct by_str){name, (size_t)len}, n, true, err);
    }
    by_json_free(j);
    return rc;
}

int by_tokenizer_from_tekken(struct by_tokenizer *t, struct by_str json, struct by_err *err) {
    struct tekken k = {.n_special = 0};
    int rc = read_outline(&k, json, err);
    if (!rc) rc = read_tekken_config(t, &k, err);
    if (!rc) rc = read_tekken_vocab(t, &k, err);
    if (!rc) rc = by_tokenizer_from_ranks(t, err);
    if (!rc) rc = read_tekken_specials(t, &k, err);
    if (rc) return rc;
    name_ends(t, "<s>", "</s>");
    by_tokenizer_frame(t, t->bos, -1);
    return 0;
}
