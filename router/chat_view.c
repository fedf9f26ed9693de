#include "router/chat_view.h"

bool chat_view_is_plain(const struct request *q) {
    return !q->tools && !q->reasoning;
}

void chat_view_read(const struct request *q, struct by_str text, bool is_end, struct chat_view *v) {
    struct by_str said;
    parse_reasoning_split(q->reasoning, text, is_end, &v->reasoning, &said);
    parse_tools_read(q->tools, said, is_end, &v->said);
    if (q->is_one_call) v->said.n_calls = BY_MIN(v->said.n_calls, (size_t)1);
}

void chat_view_release(struct chat_view *v) {
    parse_tools_release(&v->said);
}

void chat_view_write_call_id(const struct request *q, uint32_t choice, size_t call,
                             struct by_buf *out) {
    by_buf_addf(out, "\"call_%llx_%u_%zu\"", (unsigned long long)by_str_hash(by_str_of(q->id)),
                choice, call);
}
