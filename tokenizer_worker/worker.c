#include "tokenizer_worker/worker.h"

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/modelfile/model_dir.h"
#include "common/template/chat_template.h"
#include "common/text/pattern.h"
#include "common/text/tokenizer.h"

#include <stdio.h>

enum {
    STOP_IDS_MAX = LIMIT_STOP_IDS + BY_EOS_MAX + 1,
    NONE_WITHIN = 24,  /* bytes behind "content": `message['content'] is not none` */
    IDS_BEYOND = 1024, /* of a prompt over the context: then nobody reads on only to refuse it */
};

struct worker {
    struct by_tokenizer *tokenizer;
    struct by_chat_template *chat; /* NULL: the model has none, or a broken one … */
    char no_chat[BY_ERR_TEXT_MAX]; /* … and this is why */
    bool knows_none;               /* the template asks whether a content is none */
    uint32_t n_vocab, context_len;
    /* where a text that may be cut is: the context, or what sentence-transformers says */
    uint32_t cut_len;
    uint32_t eos[BY_EOS_MAX + 1], n_eos;
    /* the answer in hand */
    struct by_ids ids;        /* of the text service, and of what may be cut */
    struct by_ids prompt_ids; /* full a little beyond the context */
    struct by_chat_prompt prompt;
    struct by_buf json;
    struct by_err err;
    uint32_t stop_ids[STOP_IDS_MAX];
};

/* ---- opening ---- */

static void add_eos(struct worker *w, int64_t id) {
    if (id < 0 || w->n_eos == BY_COUNTOF(w->eos)) return;
    for (uint32_t i = 0; i < w->n_eos; i++) {
        if (w->eos[i] == (uint32_t)id) return;
    }
    w->eos[w->n_eos++] = (uint32_t)id;
}

/* sentence_bert_config.json: an embedding model may have been made for less than it has positions. */
static void read_cut_len(struct worker *w, const struct by_model_dir *dir) {
    const struct by_json_limits lim = {.bytes_max = 65536, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *config = NULL;
    struct by_buf text;
    int64_t n = 0;
    by_buf_init(&text, lim.bytes_max);
    if (!by_model_dir_read(dir, "sentence_bert_config.json", &text, NULL) &&
        !by_json_parse(&config, by_buf_str(&text), &lim, NULL) &&
        !by_json_get_i64(config, "", "max_seq_length", 1, LIMIT_TOKENS, &n, NULL))
        w->cut_len = (uint32_t)n;
    by_json_free(config);
    by_buf_release(&text);
}

static bool asks_for_none(struct by_str source) {
    struct by_str word = by_str_of("content");
    for (size_t at = by_str_find(source, word, 0); at < source.n;
         at = by_str_find(source, word, at + word.n)) {
        struct by_str behind = by_str_sub(source, at + word.n, NONE_WITHIN);
        if (by_str_find(behind, by_str_of("none"), 0) < behind.n ||
            by_str_find(behind, by_str_of("None"), 0) < behind.n)
            return true;
    }
    return false;
}

static int open_model(struct worker *w, const struct worker_options *o, struct by_err *err) {
    struct by_model_dir *model = NULL, *text = NULL;
    int rc = by_model_dir_open_text(&model, o->model_path, err);
    if (!rc && o->tokenizer_path) rc = by_model_dir_open_text(&text, o->tokenizer_path, err);
    if (rc) goto done;
    const struct by_model_dir *dir = text ? text : model;
    const struct by_model_info *info = by_model_dir_info(model);
    rc = by_tokenizer_open_cached(&w->tokenizer, dir, err);
    if (rc) goto done;
    w->n_vocab = by_tokenizer_n_vocab(w->tokenizer);
    if (info) {
        w->n_vocab = BY_MAX(w->n_vocab, info->vocab);
        w->context_len = info->context;
        for (uint32_t i = 0; i < info->n_eos; i++)
            add_eos(w, info->eos[i]);
    }
    add_eos(w, by_tokenizer_eos(w->tokenizer));
    read_cut_len(w, model);
    struct by_err why = {0};
    int no_chat = by_chat_template_open(&w->chat, dir, o->chat_template, &why);
    if (no_chat && o->chat_template) {
        *err = why; /* asked for by name: a mistake of the operator's */
        rc = no_chat;
    }
    snprintf(w->no_chat, sizeof w->no_chat, "%s", why.text);
    w->knows_none = w->chat && asks_for_none(by_chat_template_source(w->chat));
done:
    by_model_dir_close(text);
    by_model_dir_close(model);
    return rc;
}

int worker_open(struct worker **out, const struct worker_options *o, struct by_err *err) {
    struct worker *w = by_alloc(sizeof *w);
    by_ids_init(&w->ids, LIMIT_TOKENS);
    by_chat_prompt_init(&w->prompt);
    by_buf_init(&w->json, LIMIT_STR_BYTES);
    int rc = open_model(w, o, err);
    if (o->context_len) w->context_len = o->context_len;
    if (!w->context_len) w->context_len = LIMIT_TOKENS;
    by_ids_init(&w->prompt_ids, BY_MIN((size_t)w->context_len + IDS_BEYOND, (size_t)LIMIT_TOKENS));
    w->cut_len = w->cut_len ? BY_MIN(w->cut_len, w->context_len) : w->context_len;
    if (rc) {
        worker_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

void worker_close(struct worker *w) {
    if (!w) return;
    by_chat_template_free(w->chat);
    by_tokenizer_close(w->tokenizer);
    by_chat_prompt_release(&w->prompt);
    by_ids_release(&w->ids);
    by_ids_release(&w->prompt_ids);
    by_buf_release(&w->json);
    by_free(w);
}

uint32_t worker_n_vocab(const struct worker *w) {
    return w->n_vocab;
}

bool worker_has_template(const struct worker *w) {
    return w->chat != NULL;
}

/* ---- generate ---- */

/* OpenAI's clients send content: null beside tool calls. A template that speaks of none gets it as it is, since some know a call
 * by it; others would write "None" or fail, and get an empty text. */
static int render(struct worker *w, struct by_str chat, uint64_t clock_s, struct by_err *err) {
    struct by_err second = {0};
    if (!w->chat) return by_fail(err, BY_EUNSUPPORTED, "%s", w->no_chat);
    int rc = by_chat_prompt_read(&w->prompt, chat, err);
    if (!rc && !w->knows_none) by_chat_prompt_fill(&w->prompt, false);
    if (!rc) rc = by_chat_prompt_render(&w->prompt, w->chat, clock_s, err);
    if (rc != BY_EINVAL || !by_chat_prompt_fill(&w->prompt, true)) return rc;
    return by_chat_prompt_render(&w->prompt, w->chat, clock_s, &second) ? rc : 0;
}

static int encode_chat(struct worker *w, struct by_ids *out, struct by_err *err) {
    bool has_user = w->prompt.marks.n == w->prompt.text.n && w->prompt.marks.n;
    struct by_encode_options o = {
        .allow_special = true, .user_marks = has_user ? (const uint8_t *)w->prompt.marks.p : NULL};
    return by_tokenizer_encode(w->tokenizer, by_buf_str(&w->prompt.text), &o, out, err);
}

static int check_ids(const struct worker *w, struct msg_u32s ids, const char *what,
                     struct by_err *err) {
    for (uint32_t i = 0; i < ids.n; i++) {
        if (ids.p[i] >= w->n_vocab)
            return by_fail(err, BY_EINVAL, "%s: token id %u is not in the vocabulary of %u", what,
                           ids.p[i], w->n_vocab);
    }
    return 0;
}

/* The prompt as ids: in the frame, or in w->ids. */
static int find_ids(struct worker *w, const struct msg_generate *m, struct msg_u32s *out,
                    uint32_t *pair_at, struct by_err *err) {
    int rc;
    struct by_ids *ids = m->truncate ? &w->ids : &w->prompt_ids;
    by_ids_clear(ids);
    if (m->ids.n) {
        *out = m->ids;
        if (m->truncate) out->n = BY_MIN(out->n, w->cut_len);
        return check_ids(w, m->ids, "input_ids", err);
    }
    if (m->chat.n) {
        rc = render(w, m->chat, m->clock_s, err);
        if (!rc) rc = encode_chat(w, ids, err);
    } else {
        struct by_encode_options o = {.add_special_tokens = m->add_special_tokens,
                                      .allow_special = true,
                                      .n_max = m->truncate ? w->cut_len : 0};
        rc = m->is_pair
                 ? by_tokenizer_encode_pair(w->tokenizer, m->text, m->pair, &o, ids, pair_at, err)
                 : by_tokenizer_encode(w->tokenizer, m->text, &o, ids, err);
    }
    if (rc && ids->is_full && !m->truncate)
        rc = by_fail(err, BY_ETOOLONG,
                     "the input (more than %zu tokens) is longer than the model's context length "
                     "(%u tokens)",
                     ids->max, w->context_len);
    if (!rc && !ids->n) rc = by_fail(err, BY_EINVAL, "the prompt is empty: it has no tokens");
    *out = (struct msg_u32s){ids->p, (uint32_t)ids->n};
    return rc;
}

static int fit_lengths(const struct worker *w, const struct msg_generate *m, uint32_t n_prompt,
                       struct msg_sampling *s, struct by_err *err) {
    if (n_prompt >= w->context_len + (s->vector != VECTOR_NONE)) /* no token follows a vector's */
        return by_fail(
            err, BY_ETOOLONG,
            "the input (%u tokens) is longer than the model's context length (%u tokens)", n_prompt,
            w->context_len);
    if (s->logprobs && s->logprob_start > (int64_t)n_prompt)
        return by_fail(err, BY_EINVAL,
                       "logprob_start_len: %d is behind the end of the prompt, which has %u tokens",
                       s->logprob_start, n_prompt);
    uint32_t room = w->context_len - n_prompt;
    s->max_new_tokens = m->has_max_new_tokens ? BY_MIN(s->max_new_tokens, room) : room;
    s->min_new_tokens = BY_MIN(s->min_new_tokens, s->max_new_tokens);
    return 0;
}

static int complete_stops(struct worker *w, struct msg_sampling *s, struct by_err *err) {
    uint32_t n = 0;
    int rc = check_ids(w, s->stop_ids, "stop_token_ids", err);
    if (!rc) rc = check_ids(w, s->bias_ids, "logit_bias", err);
    if (!rc) rc = check_ids(w, s->logprob_ids, "token_ids_logprob", err);
    if (rc) return rc;
    for (uint32_t i = 0; i < s->stop_ids.n && i < LIMIT_STOP_IDS; i++)
        w->stop_ids[n++] = s->stop_ids.p[i];
    for (uint32_t i = 0; i < w->n_eos; i++)
        w->stop_ids[n++] = w->eos[i];
    s->stop_ids = (struct msg_u32s){w->stop_ids, n};
    return 0;
}

/* The detokenizer makes them anew for each sample; here is who can still refuse them. */
static int check_patterns(struct msg_strs patterns, struct by_err *err) {
    for (uint32_t i = 0; i < patterns.n; i++) {
        struct by_pattern *p = NULL;
        int rc = by_pattern_new(&p, patterns.p[i], err);
        by_pattern_free(p);
        if (rc) return by_fail_prefix(err, "stop_regex");
    }
    return 0;
}

void worker_generate(struct worker *w, const struct msg_generate *m, struct msg *out) {
    struct msg_u32s ids = {0};
    struct msg_sampling s = m->sampling;
    w->err = (struct by_err){0};
    int rc = find_ids(w, m, &ids, &s.pair_at, &w->err);
    if (!rc) rc = fit_lengths(w, m, ids.n, &s, &w->err);
    if (!rc) rc = complete_stops(w, &s, &w->err);
    if (!rc) rc = check_patterns(m->textual.stop_regex, &w->err);
    if (rc) {
        *out =
            (struct msg){.kind = MSG_failed,
                         .failed = {.name = m->name, .code = rc, .text = by_str_of(w->err.text)}};
        return;
    }
    *out = (struct msg){.kind = MSG_tokenized,
                        .tokenized = {.name = m->name,
                                      .ids = ids,
                                      .sampling = s,
                                      .textual = m->textual,
                                      .routing = m->routing}};
    out->tokenized.resume.p = m->resume.p;
    out->tokenized.resume.n = m->resume.n;
}

/* ---- text service ---- */

static int add_ids(struct worker *w, struct by_str text, const struct by_encode_options *o,
                   struct by_err *err) {
    by_ids_clear(&w->ids);
    int rc = by_tokenizer_encode(w->tokenizer, text, o, &w->ids, err);
    for (size_t i = 0; !rc && i < w->ids.n; i++) {
        by_buf_addc(&w->json, i ? ',' : '[');
        by_buf_add_u64(&w->json, w->ids.p[i]);
    }
    by_buf_addz(&w->json, w->ids.n ? "]" : "[]");
    return rc;
}

/* {"tokens": ids, "count": n} of a text; of a list of texts, lists of both. */
static int answer_tokenize(struct worker *w, const struct by_json *args, struct by_err *err) {
    struct by_encode_options o = {.add_special_tokens = true, .allow_special = true};
    const struct by_json *given = by_json_get(args, "prompt");
    struct by_buf counts;
    if (!given) given = by_json_get(args, "text");
    bool is_list = given && by_json_type(given) == BY_JSON_ARRAY;
    int rc = by_json_get_bool(args, "", "add_special_tokens", &o.add_special_tokens, err);
    by_buf_init(&counts, LIMIT_STR_BYTES);
    by_buf_addz(&w->json, is_list ? "{\"tokens\":[" : "{\"tokens\":");
    for (const struct by_json *it = is_list ? by_json_first(given) : given; !rc && it;
         it = is_list ? by_json_next(it) : NULL) {
        if (by_json_type(it) != BY_JSON_STRING) {
            rc = by_fail(err, BY_EINVAL, "prompt: expected a text or a list of texts, got %s",
                         by_json_type_name(it));
            break;
        }
        if (counts.n) by_buf_addc(&w->json, ',');
        rc = add_ids(w, by_json_str(it), &o, err);
        by_buf_addf(&counts, counts.n ? ",%zu" : "%zu", w->ids.n);
    }
    if (!rc && !given)
        rc = by_fail(err, BY_EINVAL, "prompt: a text is needed%s",
                     by_json_get(args, "messages") ? "; POST /apply_template makes one of messages"
                                                   : "");
    by_buf_addf(&w->json,
                is_list ? "],\"count\":[%.*s],\"max_model_len\":%u}"
                        : ",\"count\":%.*s,\"max_model_len\":%u}",
                (int)counts.n, counts.n ? counts.p : "", w->context_len);
    by_buf_release(&counts);
    return rc;
}

static int add_text(struct worker *w, const struct by_json *list, const struct by_decode_options *o,
                    struct by_err *err) {
    struct by_buf text;
    int64_t id;
    by_ids_clear(&w->ids);
    for (const struct by_json *it = by_json_first(list); it; it = by_json_next(it)) {
        if (by_json_type(it) != BY_JSON_NUMBER)
            return by_fail(err, BY_EINVAL, "tokens: expected token ids, got %s",
                           by_json_type_name(it));
        if (!by_json_to_i64(it, &id) || id < 0 || id >= (int64_t)w->n_vocab)
            return by_fail(err, BY_EINVAL, "tokens: %.17g is not in the vocabulary of %u",
                           by_json_f64(it), w->n_vocab);
        by_ids_add(&w->ids, (uint32_t)id);
    }
    by_buf_init(&text, LIMIT_STR_BYTES);
    by_tokenizer_decode(w->tokenizer, w->ids.p, w->ids.n, o, &text);
    by_buf_add_json_str(&w->json, by_buf_str(&text));
    int rc = text.is_full ? by_fail(err, BY_ELIMIT, "tokens: their text is too long") : 0;
    by_buf_release(&text);
    return rc;
}

/* {"text": …} of a list of ids; of a list of such lists, a list of texts. */
static int answer_detokenize(struct worker *w, const struct by_json *args, struct by_err *err) {
    const struct by_json *list = NULL;
    struct by_decode_options o = {.skip_special_tokens = true};
    int rc = by_json_get_array(args, "", "tokens", &list, err);
    if (!rc && !list) rc = by_fail(err, BY_EINVAL, "tokens: a list of token ids is needed");
    if (!rc) rc = by_json_get_bool(args, "", "skip_special_tokens", &o.skip_special_tokens, err);
    if (rc) return rc;
    const struct by_json *first = by_json_first(list);
    by_buf_addz(&w->json, "{\"text\":");
    if (!first || by_json_type(first) != BY_JSON_ARRAY) {
        rc = add_text(w, list, &o, err);
        by_buf_addc(&w->json, '}');
        return rc;
    }
    for (const struct by_json *it = first; !rc && it; it = by_json_next(it)) {
        by_buf_addc(&w->json, it == first ? '[' : ',');
        if (by_json_type(it) != BY_JSON_ARRAY)
            return by_fail(err, BY_EINVAL,
                           "tokens: expected a list of lists of token ids, got %s in it",
                           by_json_type_name(it));
        rc = add_text(w, it, &o, err);
    }
    by_buf_addz(&w->json, "]}");
    return rc;
}

static int answer_template(struct worker *w, struct by_str chat, struct by_err *err) {
    int rc = render(w, chat, by_wall_ns() / BY_NS_PER_S, err);
    if (rc) return rc;
    by_buf_addz(&w->json, "{\"prompt\":");
    by_buf_add_json_str(&w->json, by_buf_str(&w->prompt.text));
    by_buf_addc(&w->json, '}');
    return 0;
}

static void add_piece(struct worker *w, const char *key, int64_t id) {
    by_buf_addf(&w->json, ",\"%s\":", key);
    if (id < 0)
        by_buf_addz(&w->json, "null");
    else
        by_buf_add_json_str(&w->json, by_tokenizer_piece(w->tokenizer, (uint32_t)id));
}

/* What a client must know to make prompts and ids of its own. */
static int answer_info(struct worker *w) {
    const struct by_tokenizer *t = w->tokenizer;
    by_buf_addf(&w->json, "{\"kind\":\"%s\",\"vocab_size\":%u,\"max_model_len\":%u",
                by_tokenizer_kind(t), by_tokenizer_n_vocab(t), w->context_len);
    add_piece(w, "bos_token", by_tokenizer_bos(t));
    add_piece(w, "eos_token", by_tokenizer_eos(t));
    by_buf_addz(&w->json, ",\"eos_token_ids\":[");
    for (uint32_t i = 0; i < w->n_eos; i++)
        by_buf_addf(&w->json, i ? ",%u" : "%u", w->eos[i]);
    by_buf_addz(&w->json, "],\"chat_template\":");
    if (w->chat)
        by_buf_add_json_str(&w->json, by_chat_template_source(w->chat));
    else
        by_buf_addz(&w->json, "null");
    by_buf_addc(&w->json, '}');
    return 0;
}

/* How long the prompt of a chat is. */
static int answer_count(struct worker *w, struct by_str chat, struct by_err *err) {
    int rc = render(w, chat, by_wall_ns() / BY_NS_PER_S, err);
    if (!rc) rc = encode_chat(w, &w->ids, err);
    if (!rc) by_buf_addf(&w->json, "{\"input_tokens\":%zu}", w->ids.n);
    return rc;
}

static int answer(struct worker *w, const struct msg_text_ask *m, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = LIMIT_STR_BYTES, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *args = NULL;
    int rc = by_json_parse(&args, m->json, &lim, err);
    if (!rc && by_json_type(args) != BY_JSON_OBJECT)
        rc = by_fail(err, BY_EINVAL, "the body: an object is needed");
    if (!rc) {
        if (by_str_eqz(m->what, "tokenize"))
            rc = answer_tokenize(w, args, err);
        else if (by_str_eqz(m->what, "detokenize"))
            rc = answer_detokenize(w, args, err);
        else if (by_str_eqz(m->what, "apply_template"))
            rc = answer_template(w, m->json, err);
        else if (by_str_eqz(m->what, "tokenizer_info"))
            rc = answer_info(w);
        else if (by_str_eqz(m->what, "count_tokens"))
            rc = answer_count(w, m->json, err);
        else
            rc = by_fail(err, BY_EUNSUPPORTED, "a tokenizer worker does not know '%.*s'",
                         (int)BY_MIN(m->what.n, (size_t)40), m->what.p);
    }
    by_json_free(args);
    return rc;
}

void worker_text_ask(struct worker *w, const struct msg_text_ask *m, struct msg *out) {
    w->err = (struct by_err){0};
    by_ids_clear(&w->ids);
    by_buf_clear(&w->json);
    int rc = answer(w, m, &w->err);
    if (!rc && w->json.is_full) rc = by_fail(&w->err, BY_ELIMIT, "the answer is too long");
    *out = (struct msg){.kind = MSG_text_answer, .text_answer = {.id = m->id, .code = rc}};
    if (rc)
        out->text_answer.error = by_str_of(w->err.text);
    else
        out->text_answer.json = by_buf_str(&w->json);
}
