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

void chat_news_read(const struct request *q, const struct journal_sample *s, struct chat_news *n) {
    struct by_str text = by_buf_str(&s->text);
    chat_view_read(q, by_str_sub(text, 0, s->n_sent_text), false, &n->was);
    chat_view_read(q, text, s->finish != FINISH_NONE, &n->now);
    n->reasoning = by_str_sub(n->now.reasoning, n->was.reasoning.n, SIZE_MAX);
    n->content = by_str_sub(by_buf_str(&n->now.said.content), n->was.said.content.n, SIZE_MAX);
    n->has_calls = n->now.said.n_calls > n->was.said.n_calls;
}

void chat_news_release(struct chat_news *n) {
    chat_view_release(&n->was);
    chat_view_release(&n->now);
}

void chat_view_write_call_id(const struct request *q, uint32_t choice, size_t call,
                             struct by_buf *out) {
    by_buf_addf(out, "\"call_%llx_%u_%zu\"", (unsigned long long)by_str_hash(by_str_of(q->id)),
                choice, call);
}
