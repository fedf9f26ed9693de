#include "router/api_vector.h"

#include "common/base/clock.h"
#include "router/api.h"
#include "router/params.h"

#include <stdio.h>

struct msg_generate api_vector_prompt(enum vector want) {
    struct params p;
    params_init(&p, 0);
    p.sampling.vector = want;
    return (struct msg_generate){.add_special_tokens = true,
                                 .clock_s = by_wall_ns() / BY_NS_PER_S,
                                 .sampling = p.sampling,
                                 .textual = p.textual,
                                 .has_max_new_tokens = true};
}

int api_vector_read_common(struct request *q, struct msg_generate *m, struct by_err *err) {
    bool is_stream = false;
    int rc = by_json_get_bool(q->body, "", "stream", &is_stream, err);
    if (!rc && is_stream)
        rc = by_fail(err, BY_EINVAL, "stream: this answer comes whole; leave it out");
    return rc ? rc : api_read_routing(q, m, err);
}

uint64_t api_vector_n_prompt(const struct request *q) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < q->n_entries; i++)
        n += q->entries[i]->n_prompt;
    return n;
}

void api_vector_write_usage(const struct request *q, struct by_buf *out) {
    unsigned long long n = api_vector_n_prompt(q);
    by_buf_addf(out, "\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}", n, n);
}

void api_vector_write_meta(const struct request *q, const struct journal_entry *e,
                           struct by_buf *out) {
    char id[96];
    snprintf(id, sizeof id, q->is_list ? "%s_%u" : "%s", q->id, e->index);
    by_buf_addz(out, ",\"meta_info\":{\"id\":");
    by_buf_add_json_str(out, by_str_of(id));
    by_buf_addf(out,
                ",\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":%u,"
                "\"cached_tokens\":%u,\"num_retractions\":%u,\"weight_version\":\"default\","
                "\"e2e_latency\":",
                e->n_prompt, e->n_cached, e->samples[0].n_retractions);
    by_buf_add_json_f64(out, (double)(by_now_ns() - q->started_ns) / 1e9);
    by_buf_addc(out, '}');
}
