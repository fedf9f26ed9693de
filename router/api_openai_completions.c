#include "common/base/check.h"
#include "router/api.h"
#include "router/api_openai.h"
#include "router/params.h"

#include <math.h>

/* POST /v1/completions: text or token ids in, text out. */

#define PREFIX "cmpl"
#define OBJECT "text_completion"

/* ---- writing ---- */

struct column { /* one of the four parallel lists of the old logprobs form */
    const struct journal_entry *e;
    const struct journal_sample *s;
    uint32_t from, to;      /* output tokens */
    bool has_prompt;        /* the prompt's tokens stand before them (echo) */
    uint32_t prompt_at, at; /* the walk's: next of the flat top_logprobs */
    size_t offset;          /* the walk's: characters of the text before the token */
    size_t
        n_unsaid; /* the walk's: characters that tokens have yet to tell before the text begins */
};

/* One list: each() writes a token's entry. Returns the offset behind the last token, where each() counts it. */
static size_t write_each(const struct column *c,
                         void (*each)(struct column *c, bool is_prompt, uint32_t i,
                                      struct by_buf *out),
                         struct by_buf *out) {
    struct column walk = *c;
    size_t n_first = out->n;
    by_buf_addc(out, '[');
    for (uint32_t i = 0; c->has_prompt && i < c->e->n_prompt_ids; i++) {
        if (out->n > n_first + 1) by_buf_addc(out, ',');
        each(&walk, true, i, out);
    }
    for (uint32_t i = c->from; i < c->to; i++) {
        if (out->n > n_first + 1) by_buf_addc(out, ',');
        each(&walk, false, i, out);
    }
    by_buf_addc(out, ']');
    return walk.offset;
}

static uint32_t id_at(const struct column *c, bool is_prompt, uint32_t i) {
    return is_prompt ? c->e->prompt_ids[i] : c->s->ids[i];
}

static void write_text_of(struct column *c, bool is_prompt, uint32_t i, struct by_buf *out) {
    api_openai_write_token(c->e, id_at(c, is_prompt, i), out);
}

/* NAN, which is written as null: nothing predicts the first token. */
static float logprob_at(const struct column *c, bool is_prompt, uint32_t i) {
    if (is_prompt) return c->e->prompt_logprobs ? c->e->prompt_logprobs[i] : NAN;
    return i < c->s->n_logprobs ? c->s->logprobs[i] : NAN;
}

static void write_logprob_of(struct column *c, bool is_prompt, uint32_t i, struct by_buf *out) {
    by_buf_add_json_f32(out, logprob_at(c, is_prompt, i));
}

static size_t n_chars(struct by_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

/* A token's place in the text, in characters: a byte that begins none counts for the one before it. */
static void write_offset_of(struct column *c, bool is_prompt, uint32_t i, struct by_buf *out) {
    const struct by_str *piece = journal_piece(c->e, id_at(c, is_prompt, i));
    size_t n = piece ? n_chars(*piece) : 0, n_unsaid = BY_MIN(n, c->n_unsaid);
    by_buf_add_u64(out, c->offset);
    c->n_unsaid -= n_unsaid;
    c->offset += n - n_unsaid;
}

/* The id's name and number, unless one of its row before it, likelier, has the same name: an object has each once. */
static void write_top(const struct journal_entry *e, const uint32_t *ids, uint32_t k, uint32_t id,
                      float logprob, struct by_buf *out) {
    const struct by_str *piece = journal_piece(e, id);
    for (uint32_t i = 0; i < k; i++) {
        const struct by_str *other = journal_piece(e, ids[i]);
        if (ids[i] == id || (piece && piece->n && other && by_str_eq(*piece, *other))) return;
    }
    if (k) by_buf_addc(out, ',');
    api_openai_write_token(e, id, out);
    by_buf_addc(out, ':');
    by_buf_add_json_f32(out, logprob);
}

/* The likeliest, and the token itself where it is none of them. */
static void write_top_of(struct column *c, bool is_prompt, uint32_t i, struct by_buf *out) {
    const struct journal_tops *t = is_prompt ? &c->e->prompt_tops : &c->s->tops;
    uint32_t *at = is_prompt ? &c->prompt_at : &c->at, row = is_prompt ? i - 1 : i;
    if (is_prompt && !i) {
        by_buf_addz(out, "null");
        return;
    }
    const uint32_t n = row < t->n ? t->n_each[row] : 0, *ids = t->ids + *at;
    by_buf_addc(out, '{');
    for (uint32_t k = 0; k < n; k++)
        write_top(c->e, ids, k, ids[k], t->logprobs[*at + k], out);
    write_top(c->e, ids, n, id_at(c, is_prompt, i), logprob_at(c, is_prompt, i), out);
    by_buf_addc(out, '}');
    *at += n;
}

/* What the prompt's tokens say, one after the other. */
static void add_pieces(const struct journal_entry *e, struct by_buf *out) {
    for (uint32_t i = 0; i < e->n_prompt_ids; i++) {
        const struct by_str *piece = journal_piece(e, e->prompt_ids[i]);
        if (piece) by_buf_add_str(out, *piece);
    }
}

/* Characters that the prompt's tokens say before its text begins: a special token's, a blank of the tokenizer's. */
static size_t n_unsaid(const struct journal_entry *e) {
    struct by_buf pieces;
    by_buf_init(&pieces, 2 * (size_t)LIMIT_STR_BYTES);
    if (e->request.text.n) add_pieces(e, &pieces);
    size_t at = by_str_find(by_buf_str(&pieces), e->request.text, 0);
    size_t n = at == SIZE_MAX ? 0 : n_chars(by_str_sub(by_buf_str(&pieces), 0, at));
    by_buf_release(&pieces);
    return n;
}

static void write_logprobs(const struct request *q, const struct journal_entry *e,
                           struct journal_sample *s, uint32_t from, struct by_buf *out) {
    if (!e->request.sampling.logprobs || q->hides_logprobs) {
        by_buf_addz(out, "\"logprobs\":null");
        return;
    }
    struct column c = {.e = e,
                       .s = s,
                       .from = from,
                       .to = s->finish ? BY_MIN(s->n_output, s->n_ids) : s->n_ids,
                       .has_prompt = q->is_echo && !s->is_begun,
                       .offset = s->n_sent_chars};
    if (c.has_prompt) c.n_unsaid = n_unsaid(e);
    for (uint32_t i = 0; i < from && i < s->tops.n; i++)
        c.at += s->tops.n_each[i];
    by_buf_addz(out, "\"logprobs\":{\"tokens\":");
    write_each(&c, write_text_of, out);
    by_buf_addz(out, ",\"token_logprobs\":");
    write_each(&c, write_logprob_of, out);
    by_buf_addz(out, ",\"top_logprobs\":");
    if (e->request.sampling.top_logprobs)
        write_each(&c, write_top_of, out);
    else
        by_buf_addz(out, "null");
    by_buf_addz(out, ",\"text_offset\":");
    s->n_sent_chars = write_each(&c, write_offset_of, out);
    by_buf_addc(out, '}');
}

/* The prompt as it was written, or, given as ids, what they add to a text; and what was said after it. */
static void add_echo(const struct journal_entry *e, struct by_str said, struct by_buf *out) {
    struct by_buf text;
    by_buf_init(&text, 2 * (size_t)LIMIT_STR_BYTES + said.n);
    by_buf_add_str(&text, e->request.text);
    if (!e->request.text.n) add_pieces(e, &text);
    by_buf_add_str(&text, said);
    by_buf_add_json_str(out, by_buf_str(&text));
    by_buf_release(&text);
}

/* What the client does not have yet: all of it, when the answer is whole. */
static void write_choice(const struct request *q, const struct journal_entry *e, uint32_t sample,
                         uint32_t index, struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct by_str said = by_str_sub(by_buf_str(&s->text), s->n_sent_text, SIZE_MAX);
    by_buf_addf(out, "{\"index\":%u,\"text\":", index);
    if (q->is_echo && !s->is_begun)
        add_echo(e, said, out);
    else
        by_buf_add_json_str(out, said);
    by_buf_addc(out, ',');
    write_logprobs(q, e, s, s->n_sent_ids, out);
    by_buf_addc(out, ',');
    api_openai_write_finish(s, NULL, out);
    by_buf_addc(out, '}');
}

static void completions_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                              struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    if (!s->finish && s->text.n == s->n_sent_text &&
        !(e->request.sampling.logprobs && s->n_ids > s->n_sent_ids))
        return;
    by_buf_addz(out, "data: ");
    api_openai_write_head(q, PREFIX, OBJECT, out);
    by_buf_addz(out, ",\"choices\":[");
    write_choice(q, e, sample, api_openai_choice(e, sample), out);
    by_buf_addc(out, ']');
    if (q->wants_usage_always) {
        by_buf_addc(out, ',');
        api_write_usage(q, out);
    }
    by_buf_addz(out, "}\n\n");
}

static void completions_end(struct request *q, struct by_buf *out) {
    api_openai_write_usage_event(q, PREFIX, OBJECT, out);
    by_buf_addz(out, "data: [DONE]\n\n");
}

/* The mean of its tokens' logprobs; a sample without tokens comes last. */
static double likelihood(const struct journal_sample *s) {
    uint32_t n = BY_MIN(s->n_output, s->n_logprobs);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)s->logprobs[i];
    return n ? sum / n : -1e300;
}

/* best_of: the likeliest first, equals as they were drawn. Without it: as they were drawn. */
static uint32_t choose(const struct request *q, const struct journal_entry *e,
                       uint32_t order[LIMIT_N]) {
    by_assert(e->n_samples <= LIMIT_N);
    for (uint32_t i = 0; i < e->n_samples; i++) {
        uint32_t at = i;
        for (; q->n_best && at > 0; at--) {
            if (likelihood(&e->samples[order[at - 1]]) >= likelihood(&e->samples[i])) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return q->n_best ? q->n_best : e->n_samples;
}

static void completions_whole(struct request *q, struct by_buf *out) {
    uint32_t order[LIMIT_N], index = 0;
    api_openai_write_head(q, PREFIX, OBJECT, out);
    by_buf_addz(out, ",\"choices\":[");
    for (uint32_t i = 0; i < q->n_entries; i++) {
        uint32_t n = choose(q, q->entries[i], order);
        for (uint32_t k = 0; k < n; k++, index++) {
            if (index) by_buf_addc(out, ',');
            write_choice(q, q->entries[i], order[k], index, out);
        }
    }
    by_buf_addz(out, "],");
    api_write_usage(q, out);
    by_buf_addc(out, '}');
}

static const char *const names[][2] = {
    {"min_new_tokens", "min_tokens"}, {"input_ids", "prompt"}, {NULL, NULL}};
static const struct dialect completions = {
    .delta = completions_delta, .end = completions_end, .whole = completions_whole, .names = names};

/* ---- reading ---- */

/* So many samples are drawn, and the n likeliest told. */
static int read_best_of(struct request *q, uint32_t best_of, struct params *p, struct by_err *err) {
    if (best_of < p->sampling.n)
        return by_fail(err, BY_EINVAL, "best_of: %u is less than n, %u", best_of, p->sampling.n);
    if (best_of == p->sampling.n) return 0;
    if (q->is_stream)
        return by_fail(err, BY_EINVAL,
                       "best_of: which are best is known at the end; it cannot be streamed unless "
                       "it is n");
    q->n_best = p->sampling.n;
    q->hides_logprobs = !p->sampling.logprobs;
    p->sampling.n = best_of;
    p->sampling.logprobs = true;
    return 0;
}

static int read_completions(struct request *q, uint32_t default_new_tokens, struct by_err *err) {
    struct params p;
    struct msg_generate m = {.add_special_tokens = true, .clock_s = q->created_s};
    int64_t best_of = 0;
    api_openai_init(q, &p, default_new_tokens);
    const struct by_json *prompt = by_json_get(q->body, "prompt");
    if (!prompt || by_json_type(prompt) == BY_JSON_NULL)
        return by_fail(err, BY_EINVAL, "prompt: a prompt is needed%s",
                       by_json_get(q->body, "messages") ? "; messages go to /v1/chat/completions"
                                                        : "");
    int rc = params_read_openai(&p, q->body, false, &q->arena, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "echo", &q->is_echo, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "add_special_tokens", &m.add_special_tokens, err);
    if (!rc) rc = by_json_get_i64(q->body, "", "best_of", 1, LIMIT_N, &best_of, err);
    if (!rc) rc = api_openai_read_common(q, &m, err);
    if (rc) return rc;
    if (best_of) rc = read_best_of(q, (uint32_t)best_of, &p, err);
    if (rc) return rc;
    if (q->is_echo && p.sampling.logprobs && !q->hides_logprobs) p.sampling.logprob_start = 0;
    api_openai_fill(&m, &p);
    q->has_seed = p.has_seed;
    m.textual.wants_pieces |= q->is_echo; /* the prompt may be ids */
    return api_add_prompts(q, prompt, "prompt", API_TEXT | API_IDS, &m, err);
}

int api_completions_read_as(struct request *q, const struct by_buf *body, struct by_err *err) {
    int rc = api_replace_body(q, body, "prompt", err);
    return rc ? rc : read_completions(q, 0, err);
}

static int read_openai(struct request *q, struct by_err *err) {
    enum { DEFAULT_NEW_TOKENS = 16 };
    return read_completions(q, DEFAULT_NEW_TOKENS, err);
}

void api_completions(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &completions), req, read_openai);
}
