#include "router/api.h"
#include "common/base/clock.h"

#include <math.h>
#include <stdio.h>
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
        by_buf_addz(out, "{\"type\":\"abort\",\"message\":\"the request was aborted\","
                         "\"status_code\":null,\"err_type\":null}");
    }
}

/* [logprob, id, null], or its text under return_text_in_logprobs. */
static void write_triple(const struct journal_entry *e, struct by_buf *out, float logprob,
                         uint32_t id) {
    const struct by_str *piece = journal_piece(e, id);
    by_buf_addc(out, '[');
    by_buf_add_json_f32(out, logprob); /* NaN becomes null: the first prompt token has no logprob */
    by_buf_addc(out, ',');
    by_buf_add_u64(out, id);
    by_buf_addc(out, ',');
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
            write_triple(e, out, t->logprobs[at], t->ids[at]);
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
        write_triple(e, out, e->prompt_logprobs ? e->prompt_logprobs[i] : NAN, e->prompt_ids[i]);
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
        write_triple(e, out, s->logprobs[i], s->ids[i]);
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

/* ,"key":0.001234 as whole numbers: a shortest double took a fifth of the router's time for tiny requests. */
static void add_seconds(struct by_buf *out, const char *key, uint64_t ns) {
    char digits[8] = ".000000";
    uint32_t us = (uint32_t)(ns / 1000 % 1000000);
    by_buf_addz(out, ",\"");
    by_buf_addz(out, key);
    by_buf_addz(out, "\":");
    by_buf_add_u64(out, ns / BY_NS_PER_S);
    for (int i = 6; i > 0; i--, us /= 10)
        digits[i] = (char)('0' + us % 10);
    by_buf_addz(out, digits);
}

/* Of a sample that is over: points in time by the wall clock, the others as they passed. */
static void write_times(const struct request *q, const struct journal_entry *e,
                        const struct journal_sample *s, struct by_buf *out) {
    uint64_t now_ns = by_now_ns(), sent_ns = by_wall_ns(),
             received_ns = sent_ns - (now_ns - q->started_ns),
             last_ns = s->first_ns ? BY_MAX(s->seen_ns, s->first_ns) : now_ns,
             decoding_ns = s->first_ns ? last_ns - s->first_ns : 0;
    add_seconds(out, "e2e_latency", now_ns - q->started_ns);
    add_seconds(out, "queue_time", e->queue_us * 1000);
    if (s->first_ns)
        add_seconds(out, "first_token_latency", s->first_ns - q->started_ns);
    else
        by_buf_addz(out, ",\"first_token_latency\":null");
    by_buf_addz(out, ",\"decode_throughput\":");
    if (decoding_ns && s->n_output > 1)
        by_buf_add_u64(out, (s->n_output - 1) * BY_NS_PER_S / decoding_ns);
    else
        by_buf_addz(out, "null");
    add_seconds(out, "request_received_ts", received_ns);
    add_seconds(out, "request_finished_ts", received_ns + (last_ns - q->started_ns));
    add_seconds(out, "response_sent_to_client_ts", sent_ns);
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
    by_buf_addf(out,
                ",\"cached_tokens_details\":{\"device\":%u,\"host\":0},\"num_retractions\":%u,"
                "\"weight_version\":\"default\",\"dp_rank\":%u",
                e->n_cached, s->n_retractions, s->replica);
    if (s->finish) write_times(q, e, s, out);
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
    if (q->tells_prompt_ids) {
        by_buf_addz(out, "\"prompt_token_ids\":");
        write_ids(out, e->prompt_ids, e->n_prompt_ids);
        by_buf_addc(out, ',');
    }
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
    .delta = native_delta, .end = native_end, .whole = native_whole, .repeats = true};

void api_generate(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &native), req, api_generate_read);
}
