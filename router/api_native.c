#include "router/api.h"
#include "common/base/clock.h"
#include "router/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* POST /generate: SGLang's own form. Streams are cumulative unless --incremental-streaming-output. */

static void write_finish(const struct journal_sample *s, struct by_buf *out) {
    switch (s->finish) {
    case FINISH_NONE:
        by_buf_addz(out, "null");
        break;
    case FINISH_LENGTH:
        by_buf_addf(out, "{\"type\":\"length\",\"length\":%u}", s->n_output);
        break;
    case FINISH_STOP_ID:
        by_buf_addf(out, "{\"type\":\"stop\",\"matched\":%u}", s->matched_id);
        break;
    case FINISH_STOP_TEXT:
        by_buf_addz(out, "{\"type\":\"stop\",\"matched\":");
        by_buf_add_json_str(out, by_buf_str(&s->matched_text));
        by_buf_addc(out, '}');
        break;
    default:
        by_buf_addz(out, "{\"type\":\"abort\",\"message\":\"the request was aborted\"}");
    }
}

/* [logprob, id, null], or its text under return_text_in_logprobs. */
static void write_triple(const struct journal_entry *e, struct by_buf *out, double logprob,
                         uint32_t id) {
    const struct by_str *piece = journal_piece(e, id);
    by_buf_addc(out, '[');
    by_buf_add_json_f64(out, logprob); /* NaN becomes null: the first prompt token has no logprob */
    by_buf_addf(out, ",%u,", id);
    if (piece)
        by_buf_add_json_str(out, *piece);
    else
        by_buf_addz(out, "null");
    by_buf_addc(out, ']');
}

static void write_tops(const struct journal_entry *e, struct by_buf *out,
                       const struct journal_tops *t, uint32_t n_before) {
    uint32_t at = 0;
    by_buf_addc(out, '[');
    for (uint32_t i = 0; i < n_before; i++)
        by_buf_addf(out, "%snull", i ? "," : "");
    for (uint32_t i = 0; i < t->n; i++) {
        if (i || n_before) by_buf_addc(out, ',');
        by_buf_addc(out, '[');
        for (uint32_t k = 0; k < t->n_each[i]; k++, at++) {
            if (k) by_buf_addc(out, ',');
            write_triple(e, out, (double)t->logprobs[at], t->ids[at]);
        }
        by_buf_addc(out, ']');
    }
    by_buf_addc(out, ']');
}

static void write_prompt_logprobs(const struct journal_entry *e, struct by_buf *out) {
    int32_t asked = e->request.sampling.logprob_start;
    uint32_t start = asked < 0 ? e->n_prompt : (uint32_t)asked;
    by_buf_addz(out, ",\"input_token_logprobs\":[");
    for (uint32_t i = start; i < e->n_prompt && i < e->n_prompt_ids; i++) {
        if (i > start) by_buf_addc(out, ',');
        write_triple(e, out, e->prompt_logprobs ? (double)e->prompt_logprobs[i] : (double)NAN,
                     e->prompt_ids[i]);
    }
    by_buf_addc(out, ']');
    uint32_t n_null = asked == 0 ? 1 : 0;
    if (e->request.sampling.top_logprobs) {
        by_buf_addz(out, ",\"input_top_logprobs\":");
        write_tops(e, out, &e->prompt_tops, n_null);
    }
    if (e->request.sampling.logprob_ids.n) {
        by_buf_addz(out, ",\"input_token_ids_logprobs\":");
        write_tops(e, out, &e->prompt_id_logprobs, n_null);
    }
}

static void write_logprobs(const struct journal_entry *e, const struct journal_sample *s,
                           struct by_buf *out) {
    if (!e->request.sampling.logprobs) return;
    write_prompt_logprobs(e, out);
    by_buf_addz(out, ",\"output_token_logprobs\":[");
    for (uint32_t i = 0; i < s->n_output && i < s->n_logprobs; i++) {
        if (i) by_buf_addc(out, ',');
        write_triple(e, out, (double)s->logprobs[i], s->ids[i]);
    }
    by_buf_addf(out, "],\"output_token_logprobs_length\":%u", BY_MIN(s->n_output, s->n_logprobs));
    if (e->request.sampling.top_logprobs) {
        by_buf_addz(out, ",\"output_top_logprobs\":");
        write_tops(e, out, &s->tops, 0);
    }
    if (e->request.sampling.logprob_ids.n) {
        by_buf_addz(out, ",\"output_token_ids_logprobs\":");
        write_tops(e, out, &s->id_logprobs, 0);
    }
}

static void write_meta(const struct request *q, const struct journal_entry *e,
                       const struct journal_sample *s, struct by_buf *out) {
    uint32_t sample = (uint32_t)(s - e->samples);
    by_buf_addz(out, "\"meta_info\":{\"id\":");
    if (q->n_rids && e->n_samples == 1) {
        by_buf_add_json_str(out, q->rids[e->index]);
    } else if (q->n_rids) {
        char id[96];
        snprintf(id, sizeof id, "%.*s_%u", (int)q->rids[e->index].n, q->rids[e->index].p, sample);
        by_buf_add_json_str(out, by_str_of(id));
    } else if (q->is_list || e->n_samples > 1) {
        char id[96];
        snprintf(id, sizeof id, "%s_%u", q->id, e->index * e->n_samples + sample);
        by_buf_add_json_str(out, by_str_of(id));
    } else {
        by_buf_add_json_str(out, by_str_of(q->id));
    }
    by_buf_addz(out, ",\"finish_reason\":");
    write_finish(s, out);
    by_buf_addf(out,
                ",\"prompt_tokens\":%u,\"completion_tokens\":%u,\"cached_tokens\":%u,\"reasoning_"
                "tokens\":0",
                e->n_prompt, s->n_output, e->n_cached);
    by_buf_addf(out, ",\"num_retractions\":%u,\"weight_version\":\"default\",\"dp_rank\":0",
                s->n_retractions);
    if (s->finish) {
        by_buf_addz(out, ",\"e2e_latency\":");
        by_buf_add_json_f64(out, (double)(by_now_ns() - q->started_ns) / 1e9);
    }
    write_logprobs(e, s, out);
    by_buf_addc(out, '}');
}

static void write_ids(struct by_buf *out, const uint32_t *ids, uint32_t n) {
    by_buf_addc(out, '[');
    for (uint32_t i = 0; i < n; i++) {
        if (i) by_buf_addc(out, ',');
        by_buf_add_u64(out, ids[i]);
    }
    by_buf_addc(out, ']');
}

/* text and ids from what the client has on; a finished sample's ids are those that count. */
static void write_sample(const struct request *q, const struct journal_entry *e,
                         const struct journal_sample *s, uint32_t from_id, size_t from_text,
                         struct by_buf *out) {
    uint32_t n_ids = s->finish ? BY_MIN(s->n_output, s->n_ids) : s->n_ids;
    by_buf_addz(out, "{\"text\":");
    by_buf_add_json_str(out, by_str_sub(by_buf_str(&s->text), from_text, SIZE_MAX));
    by_buf_addz(out, ",\"output_ids\":");
    write_ids(out, s->ids + BY_MIN(from_id, n_ids), n_ids - BY_MIN(from_id, n_ids));
    by_buf_addc(out, ',');
    write_meta(q, e, s, out);
}

static void native_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                         struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    bool is_delta = q->router->is_incremental;
    if (!s->finish && s->n_ids == s->n_sent_ids) return;
    by_buf_addz(out, "data: ");
    write_sample(q, e, s, is_delta ? s->n_sent_ids : 0, is_delta ? s->n_sent_text : 0, out);
    if (q->is_list || e->n_samples > 1)
        by_buf_addf(out, ",\"index\":%u", e->index * e->n_samples + sample);
    by_buf_addz(out, "}\n\n");
}

static void native_end(struct request *q, struct by_buf *out) {
    (void)q;
    by_buf_addz(out, "data: [DONE]\n\n");
}

static void native_whole(struct request *q, struct by_buf *out) {
    bool is_array = q->is_list || q->entries[0]->n_samples > 1, is_first = true;
    if (is_array) by_buf_addc(out, '[');
    for (uint32_t i = 0; i < q->n_entries; i++) {
        for (uint32_t k = 0; k < q->entries[i]->n_samples; k++) {
            if (!is_first) by_buf_addc(out, ',');
            is_first = false;
            write_sample(q, q->entries[i], &q->entries[i]->samples[k], 0, 0, out);
            by_buf_addc(out, '}');
        }
    }
    if (is_array) by_buf_addc(out, ']');
}

static const struct dialect native = {
    .delta = native_delta, .end = native_end, .whole = native_whole};

/* ---- reading ---- */

static int read_logprobs(struct request *q, struct params *p, struct by_err *err) {
    bool wants = false;
    int64_t start = -1, top = 0;
    int rc = by_json_get_bool(q->body, "", "return_logprob", &wants, err);
    if (!rc) rc = by_json_get_i64(q->body, "", "logprob_start_len", -1, LIMIT_TOKENS, &start, err);
    if (!rc)
        rc = by_json_get_i64(q->body, "", "top_logprobs_num", 0, LIMIT_TOP_LOGPROBS, &top, err);
    const struct by_json *ids = by_json_get(q->body, "token_ids_logprob");
    if (!rc && ids && by_json_type(ids) != BY_JSON_NULL)
        rc = params_read_ids(ids, "token_ids_logprob", LIMIT_LOGIT_BIAS, &q->arena,
                             &p->sampling.logprob_ids, err);
    if (rc || !wants) {
        p->sampling.logprob_ids = (struct msg_u32s){0};
        return rc;
    }
    p->sampling.logprobs = true;
    p->sampling.logprob_start = (int32_t)start;
    p->sampling.top_logprobs = (uint32_t)top;
    return 0;
}

static int read_prompts(struct request *q, struct msg_generate *m, struct by_err *err) {
    const struct by_json *text = by_json_get(q->body, "text"),
                         *ids = by_json_get(q->body, "input_ids");
    bool has_text = text && by_json_type(text) != BY_JSON_NULL,
         has_ids = ids && by_json_type(ids) != BY_JSON_NULL;
    if (has_text == has_ids)
        return by_fail(err, BY_EINVAL, "text: exactly one of text and input_ids is needed");
    return has_text ? api_add_prompts(q, text, "text", API_TEXT, m, err)
                    : api_add_prompts(q, ids, "input_ids", API_IDS, m, err);
}

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
        rids[i] = by_json_str(it);
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

static int read_generate(struct request *q, struct by_err *err) {
    enum { DEFAULT_NEW_TOKENS = 128 };
    struct params p;
    params_init(&p, DEFAULT_NEW_TOKENS);
    const struct by_json *sampling = by_json_get(q->body, "sampling_params");
    int rc = sampling && by_json_type(sampling) != BY_JSON_NULL
                 ? params_read_native(&p, sampling, &q->arena, err)
                 : 0;
    if (!rc) rc = by_json_get_bool(q->body, "", "stream", &q->is_stream, err);
    if (!rc) rc = read_logprobs(q, &p, err);
    if (rc) return rc;
    struct msg_generate m = {.add_special_tokens = true,
                             .clock_s = q->created_s,
                             .sampling = p.sampling,
                             .textual = p.textual,
                             .has_max_new_tokens = p.has_max_new_tokens};
    rc = read_rids(q, err);
    if (!rc) rc = api_read_routing(q, &m, err);
    if (!rc)
        rc = by_json_get_bool(q->body, "", "return_text_in_logprobs", &m.textual.wants_pieces, err);
    m.textual.wants_pieces &= p.sampling.logprobs;
    if (!rc) rc = read_prompts(q, &m, err);
    if (!rc && q->n_rids && q->n_rids != q->n_entries)
        return by_fail(err, BY_EINVAL, "rid: %u ids for %u prompts", q->n_rids, q->n_entries);
    return rc;
}

void api_generate(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_err err = {0};
    struct request *q = request_new(r, c, &native);
    if (!request_parse(q, req)) return;
    if (read_generate(q, &err))
        request_refuse(q, &err);
    else
        request_start(q);
}
