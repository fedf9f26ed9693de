#include "router/api.h"
#include "router/params.h"

#include <stdlib.h>
#include <string.h>

/* What POST /generate asks for. Each of some fields is one value for all prompts, or a list of one for each. */

enum each { SAMPLING, LOGPROB, LOGPROB_START, TOP_LOGPROBS, LOGPROB_IDS, EXTRA_KEY, N_EACH };
static const char *const each_key[N_EACH] = {"sampling_params",   "return_logprob",
                                             "logprob_start_len", "top_logprobs_num",
                                             "token_ids_logprob", "extra_key"};

struct reader {
    const struct by_json *each[N_EACH]; /* of the prompt at hand: NULL: not given */
    bool is_list[N_EACH];               /* each is the next of a list */
    bool has_list;
    bool wants_text;         /* return_text_in_logprobs */
    uint32_t n;              /* samples of the first prompt: of all */
    struct msg_generate all; /* what no list changes */
};

/* Lists of token ids look like ids; a list of lists is one of each. */
static bool is_one_each(enum each what, const struct by_json *v) {
    if (by_json_type(v) != BY_JSON_ARRAY) return false;
    const struct by_json *first = by_json_first(v);
    return what != LOGPROB_IDS || (first && by_json_type(first) != BY_JSON_NUMBER);
}

static int open_reader(const struct by_json *body, size_t n_prompts, bool is_list, struct reader *r,
                       struct by_err *err) {
    for (enum each i = 0; i < N_EACH; i++) {
        r->each[i] = by_json_get(body, each_key[i]);
        if (!r->each[i] || !is_one_each(i, r->each[i])) continue;
        size_t n = by_json_len(r->each[i]);
        if (!is_list)
            return by_fail(err, BY_EINVAL, "%s: a list of them needs a list of prompts",
                           each_key[i]);
        if (n != n_prompts)
            return by_fail(err, BY_EINVAL, "%s: %zu of them for %zu prompts", each_key[i], n,
                           n_prompts);
        r->each[i] = by_json_first(r->each[i]);
        r->is_list[i] = r->has_list = true;
    }
    return 0;
}

static void next_prompt(struct reader *r) {
    for (enum each i = 0; i < N_EACH; i++) {
        if (r->is_list[i]) r->each[i] = by_json_next(r->each[i]);
    }
}

static int read_whole(const struct by_json *v, const char *key, int64_t min, int64_t max,
                      int64_t *out, struct by_err *err) {
    if (!v || by_json_type(v) == BY_JSON_NULL) return 0;
    if (by_json_type(v) != BY_JSON_NUMBER)
        return by_fail(err, BY_EINVAL, "%s: expected a whole number, got %s", key,
                       by_json_type_name(v));
    if (!by_json_to_i64(v, out) || *out < min || *out > max)
        return by_fail(err, BY_EINVAL, "%s: %.15g is not a whole number from %lld to %lld", key,
                       by_json_f64(v), (long long)min, (long long)max);
    return 0;
}

static int read_logprobs(const struct reader *r, struct by_arena *arena, struct params *p,
                         struct by_err *err) {
    const struct by_json *wants = r->each[LOGPROB], *ids = r->each[LOGPROB_IDS];
    int64_t start = -1, top = 0;
    bool is_null = !wants || by_json_type(wants) == BY_JSON_NULL;
    if (!is_null && by_json_type(wants) != BY_JSON_BOOL)
        return by_fail(err, BY_EINVAL, "%s: expected true or false, got %s", each_key[LOGPROB],
                       by_json_type_name(wants));
    int rc =
        read_whole(r->each[LOGPROB_START], each_key[LOGPROB_START], -1, LIMIT_TOKENS, &start, err);
    if (!rc)
        rc = read_whole(r->each[TOP_LOGPROBS], each_key[TOP_LOGPROBS], 0, LIMIT_TOP_LOGPROBS, &top,
                        err);
    if (!rc && ids && by_json_type(ids) != BY_JSON_NULL)
        rc = params_read_ids(ids, each_key[LOGPROB_IDS], LIMIT_LOGIT_BIAS, arena,
                             &p->sampling.logprob_ids, err);
    if (rc || is_null || !by_json_bool(wants)) {
        p->sampling.logprob_ids = (struct msg_u32s){0};
        return rc;
    }
    p->sampling.logprobs = true;
    p->sampling.logprob_start = (int32_t)start;
    p->sampling.top_logprobs = (uint32_t)top;
    return 0;
}

/* One for all samples of a prompt, but as many of each prompt: the answer is flat. */
static int check_n(struct reader *r, uint32_t n, bool is_first, struct by_err *err) {
    static const enum each logprobs[] = {LOGPROB, LOGPROB_START, TOP_LOGPROBS, LOGPROB_IDS};
    if (is_first) r->n = n;
    if (n != r->n)
        return by_fail(err, BY_EINVAL, "n: it is %u for one prompt and %u for another", r->n, n);
    for (size_t i = 0; n > 1 && i < BY_COUNTOF(logprobs); i++) {
        if (r->is_list[logprobs[i]])
            return by_fail(err, BY_EINVAL, "%s: with n over 1 it must be the same for all prompts",
                           each_key[logprobs[i]]);
    }
    return 0;
}

/* The prompt at hand, without its text. */
static int read_prompt(struct request *q, struct reader *r, bool is_first, struct msg_generate *m,
                       struct by_err *err) {
    enum { DEFAULT_NEW_TOKENS = 128 };
    struct params p;
    params_init(&p, DEFAULT_NEW_TOKENS);
    const struct by_json *sampling = r->each[SAMPLING];
    *m = r->all;
    int rc = sampling && by_json_type(sampling) != BY_JSON_NULL
                 ? params_read_native(&p, sampling, &q->arena, err)
                 : 0;
    if (!rc) rc = read_logprobs(r, &q->arena, &p, err);
    if (!rc) rc = check_n(r, p.sampling.n, is_first, err);
    if (!rc) rc = api_read_namespace(q, r->each[EXTRA_KEY], &m->routing.extra_key, err);
    m->sampling = p.sampling;
    m->textual = p.textual;
    m->textual.wants_pieces = r->wants_text && p.sampling.logprobs;
    m->has_max_new_tokens = p.has_max_new_tokens;
    q->has_seed = p.has_seed;
    return rc;
}

static int read_prompts(struct request *q, struct reader *r, struct by_err *err) {
    const struct by_json *text = by_json_get(q->body, "text"),
                         *ids = by_json_get(q->body, "input_ids");
    bool has_text = text && by_json_type(text) != BY_JSON_NULL,
         has_ids = ids && by_json_type(ids) != BY_JSON_NULL;
    struct msg_generate m;
    if (has_text == has_ids)
        return by_fail(err, BY_EINVAL, "text: exactly one of text and input_ids is needed");
    const struct by_json *prompt = has_text ? text : ids, *it;
    const char *key = has_text ? "text" : "input_ids";
    unsigned allowed = has_text ? API_TEXT : API_IDS;
    bool is_list = api_is_list_of_prompts(prompt);
    int rc = open_reader(q->body, is_list ? by_json_len(prompt) : 1, is_list, r, err);
    if (!rc) rc = read_prompt(q, r, true, &m, err);
    if (rc || !r->has_list) return rc ? rc : api_add_prompts(q, prompt, key, allowed, &m, err);
    q->is_list = true;
    if (by_json_len(prompt) > REQUEST_PROMPTS_MAX)
        return by_fail(err, BY_ELIMIT, "%s: %zu prompts are over the limit of %d", key,
                       by_json_len(prompt), REQUEST_PROMPTS_MAX);
    for (it = by_json_first(prompt); it && !rc; it = by_json_next(it)) {
        if (it != by_json_first(prompt)) rc = read_prompt(q, r, false, &m, err);
        if (!rc) rc = api_add_prompt(q, it, key, allowed, &m, err);
        next_prompt(r);
    }
    return rc;
}

/* ---- its name ---- */

static int compare_rids(const void *a, const void *b) {
    const struct by_str *x = a, *y = b;
    int by_bytes = memcmp(x->p, y->p, BY_MIN(x->n, y->n));
    return by_bytes ? by_bytes : (x->n > y->n) - (x->n < y->n);
}

/* A list of ids: one a prompt, no two alike. */
static int read_rids(struct request *q, struct by_err *err) {
    const struct by_json *list = by_json_get(q->body, "rid");
    if (by_json_type(list) != BY_JSON_ARRAY) return 0;
    size_t n = by_json_len(list), i = 0;
    if (!n || n > REQUEST_PROMPTS_MAX)
        return by_fail(err, BY_ELIMIT, "rid: %zu ids are not between 1 and %d", n,
                       REQUEST_PROMPTS_MAX);
    struct by_str *rids = by_arena_get_array(&q->arena, n, sizeof *rids),
                  *sorted = by_arena_get_array(&q->arena, n, sizeof *rids);
    for (const struct by_json *it = by_json_first(list); it; it = by_json_next(it), i++) {
        rids[i] = by_arena_copy(&q->arena, by_json_str(it));
        if (!rids[i].n || rids[i].n >= sizeof q->id)
            return by_fail(err, BY_EINVAL, "rid: strings of 1 to %zu bytes are possible",
                           sizeof q->id - 1);
    }
    memcpy(sorted, rids, n * sizeof *rids);
    qsort(sorted, n, sizeof *sorted, compare_rids);
    for (i = 1; i < n; i++) {
        if (compare_rids(&sorted[i - 1], &sorted[i]) == 0)
            return by_fail(err, BY_EINVAL, "rid: '%.*s' is given twice", (int)sorted[i].n,
                           sorted[i].p);
    }
    q->rids = rids;
    q->n_rids = (uint32_t)n;
    return 0;
}

/* ---- all of it ---- */

/* What would change the answer, and is not there, or not where it is looked for. */
static int refuse_unknown(const struct by_json *body, struct by_err *err) {
    static const char *const refused[] = {"input_embeds",
                                          "image_data",
                                          "video_data",
                                          "audio_data",
                                          "lora_path",
                                          "session_params",
                                          "session_id",
                                          "return_entropy",
                                          "return_hidden_states",
                                          "return_bytes",
                                          "bootstrap_room",
                                          "custom_logit_processor",
                                          "max_thinking_tokens",
                                          "routed_dp_rank",
                                          "data_parallel_rank",
                                          "return_routed_experts",
                                          "return_sampling_mask",
                                          "mm_hashes",
                                          "positional_embed_overrides"};
    int rc = api_refuse(body, refused, BY_COUNTOF(refused), err);
    for (const struct by_json *it = by_json_first(body); it && !rc; it = by_json_next(it)) {
        struct by_str key = by_json_key(it);
        if (params_is_native(key) && by_json_type(it) != BY_JSON_NULL)
            rc = by_fail(err, BY_EINVAL, BY_STR_FMT ": it belongs into sampling_params",
                         BY_STR_ARG(key));
    }
    return rc;
}

int api_generate_read(struct request *q, struct by_err *err) {
    struct reader r = {.all = {.add_special_tokens = true, .clock_s = q->created_s}};
    int rc = refuse_unknown(q->body, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "stream", &q->is_stream, err);
    if (!rc)
        rc = by_json_get_bool(q->body, "", "return_prompt_token_ids", &q->tells_prompt_ids, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "return_text_in_logprobs", &r.wants_text, err);
    if (!rc) rc = read_rids(q, err);
    if (!rc) rc = api_read_limits(q, &r.all, err);
    if (!rc) rc = read_prompts(q, &r, err);
    if (!rc && q->n_rids && q->n_rids != q->n_entries)
        return by_fail(err, BY_EINVAL, "rid: %u ids for %u prompts", q->n_rids, q->n_entries);
    return rc;
}
