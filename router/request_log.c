#include "router/request_log.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "router/api.h"
#include "router/request.h"

enum { REQUEST_LINE_MAX = 64 * 1024 * 1024 };

static void add_seconds(struct by_buf *out, const char *key, uint64_t from_ns, uint64_t to_ns) {
    by_buf_addf(out, ",\"%s\":", key);
    by_buf_add_json_f64(out, (double)(to_ns - from_ns) / 1e9);
}

static void add_counts(const struct request *q, struct by_buf *out) {
    uint64_t n_prompt = 0, n_cached = 0, n_output = 0, n_samples = 0;
    const char *reason = NULL;
    for (uint32_t i = 0; i < q->n_entries; i++) {
        const struct journal_entry *e = q->entries[i];
        if (!e) continue;
        n_prompt += e->n_prompt;
        n_cached += e->n_cached;
        for (uint32_t k = 0; k < e->n_samples; k++, n_samples++) {
            n_output += e->samples[k].finish ? e->samples[k].n_output : e->samples[k].n_ids;
            if (!reason) reason = request_finish_reason(&e->samples[k]);
        }
    }
    if (reason) api_add_str(out, "finish_reason", by_str_of(reason));
    by_buf_addf(
        out,
        ",\"samples\":%llu,\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"output_tokens\":%llu",
        (unsigned long long)n_samples, (unsigned long long)n_prompt, (unsigned long long)n_cached,
        (unsigned long long)n_output);
}

static void add_text(const struct request *q, struct by_buf *out) {
    by_buf_addz(out, ",\"texts\":[");
    for (uint32_t i = 0; i < q->n_entries; i++) {
        const struct journal_entry *e = q->entries[i];
        if (!e) continue;
        by_buf_addz(out, i ? ",{\"prompt\":" : "{\"prompt\":");
        by_buf_add_json_str(out, e->request.chat.n ? e->request.chat : e->request.text);
        by_buf_addz(out, ",\"outputs\":[");
        for (uint32_t k = 0; k < e->n_samples; k++) {
            if (k) by_buf_addc(out, ',');
            by_buf_add_json_str(out, by_buf_str(&e->samples[k].text));
        }
        by_buf_addz(out, "]}");
    }
    by_buf_addc(out, ']');
}

void request_log(const struct request *q, int code) {
    struct by_buf out;
    if (!q->router->logs_requests) return;
    uint64_t now_ns = by_now_ns();
    by_buf_init(&out, REQUEST_LINE_MAX);
    by_buf_addz(&out, ",\"rid\":");
    by_buf_add_json_str(&out, by_str_of(q->id));
    for (uint32_t i = 0; i < q->n_rids; i++) {
        by_buf_addz(&out, i ? "," : ",\"rids\":[");
        by_buf_add_json_str(&out, q->rids[i]);
    }
    if (q->n_rids) by_buf_addc(&out, ']');
    api_add_str(&out, "route", q->route);
    if (q->caller && *q->caller->name) api_add_str(&out, "key", by_str_of(q->caller->name));
    by_buf_addf(&out, ",\"status\":%d,\"stream\":%s", code ? by_err_http(code) : 200,
                q->is_stream ? "true" : "false");
    if (code) api_add_str(&out, "error", by_str_of(by_err_type(code)));
    add_counts(q, &out);
    if (q->first_ns) add_seconds(&out, "ttft_s", q->started_ns, q->first_ns);
    add_seconds(&out, "e2e_s", q->started_ns, now_ns);
    if (q->their_id.n) api_add_str(&out, "x_request_id", q->their_id);
    if (q->trace.text[0]) api_add_str(&out, "traceparent", by_str_of(q->trace.text));
    if (q->router->logs_text) add_text(q, &out);
    by_log_members("request", by_buf_str(&out));
    by_buf_release(&out);
}
