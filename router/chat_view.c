#include "router/chat_view.h"

#include <string.h>

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

/* Bytes of the text, from its beginning, that are not content: blanks behind the end mark belong to neither. */
static size_t reasoning_end(const struct request *q, struct by_str text) {
    struct by_str reasoning, content;
    parse_reasoning_split(q->reasoning, text, true, &reasoning, &content);
    if (!reasoning.n) return 0;
    size_t n = content.n ? (size_t)(content.p - text.p) : text.n;
    while (n && strchr(" \n\t\r", text.p[n - 1]))
        n--;
    return n;
}

uint32_t chat_view_n_reasoning(const struct request *q, const struct journal_entry *e,
                               const struct journal_sample *s) {
    struct by_buf text;
    uint32_t n_ids = s->finish ? BY_MIN(s->n_output, s->n_ids) : s->n_ids, n = 0;
    if (!q->reasoning) return 0;
    by_buf_init(&text, LIMIT_STR_BYTES);
    for (uint32_t i = 0; i < n_ids; i++) {
        const struct by_str *piece = journal_piece(e, s->ids[i]);
        if (piece) by_buf_add_str(&text, *piece);
    }
    size_t end = reasoning_end(q, by_buf_str(&text)), at = 0;
    for (; n < n_ids && at < end; n++) {
        const struct by_str *piece = journal_piece(e, s->ids[n]);
        at += piece ? piece->n : 0;
    }
    by_buf_release(&text);
    return n;
}
