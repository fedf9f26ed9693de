#include "router/chat_view.h"

#include "common/base/mem.h"

#include <string.h>

bool chat_view_is_plain(const struct request *q) {
    return !q->tools && !q->reasoning;
}

static void split(const struct request *q, struct by_str text, bool is_end,
                  struct parse_reasoning_parts *p) {
    parse_reasoning_split(q->reasoning, text, is_end, p);
    if (q->hides_reasoning) p->reasoning = (struct by_str){0};
}

void chat_view_read(const struct request *q, struct by_str text, bool is_end, struct chat_view *v) {
    struct parse_reasoning_parts parts = {0};
    v->is_borrowed = false;
    split(q, text, is_end, &parts);
    v->reasoning = parts.reasoning;
    parse_tools_read(q->tools, &q->tool_types, parts.content, is_end, &v->said);
    if (q->is_one_call) v->said.n_calls = BY_MIN(v->said.n_calls, (size_t)1);
}

void chat_view_release(struct chat_view *v) {
    if (!v->is_borrowed) parse_tools_release(&v->said);
}

/* ---- a stream ---- */

struct chat_progress {
    struct parse_reasoning_parts parts;
    struct parse_tools_result said;
    size_t n_text;                          /* of the sample's text, read so far */
    size_t n_reasoning, n_content, n_calls; /* as the last view had them */
    bool is_done;
};

static struct chat_progress *begin(const struct request *q) {
    struct chat_progress *p = by_alloc(sizeof *p);
    parse_tools_init(&p->said, &q->tool_types);
    return p;
}

void chat_progress_free(struct chat_progress *p) {
    if (!p) return;
    parse_tools_release(&p->said);
    by_free(p);
}

/* The counts of a view, without its text. */
static void show_counts(const struct chat_progress *p, struct chat_view *v) {
    memset(v, 0, sizeof *v);
    v->is_borrowed = true;
    v->reasoning.n = p->n_reasoning;
    v->said.content.n = p->n_content;
    v->said.n_calls = p->n_calls;
}

static void advance(const struct request *q, struct chat_progress *p, struct by_str text,
                    bool is_end, struct by_str *reasoning) {
    split(q, text, is_end, &p->parts);
    *reasoning = p->parts.reasoning;
    if (!p->is_done) parse_tools_advance(q->tools, p->parts.content, is_end, &p->said);
    p->is_done |= is_end;
    p->n_text = text.n;
    p->n_reasoning = reasoning->n;
    p->n_content = p->said.content.n;
    p->n_calls = q->is_one_call ? BY_MIN(p->said.n_calls, (size_t)1) : p->said.n_calls;
}

void chat_news_read(const struct request *q, struct journal_sample *s, struct chat_news *n) {
    struct by_str text = by_buf_str(&s->text), reasoning;
    if (!s->progress || s->progress->n_text != s->n_sent_text) {
        chat_progress_free(s->progress);
        s->progress = begin(q);
        if (s->n_sent_text)
            advance(q, s->progress, by_str_sub(text, 0, s->n_sent_text), false, &reasoning);
    }
    show_counts(s->progress, &n->was);
    advance(q, s->progress, text, s->finish != FINISH_NONE, &reasoning);
    n->now =
        (struct chat_view){.reasoning = reasoning, .said = s->progress->said, .is_borrowed = true};
    n->now.said.n_calls = s->progress->n_calls;
    n->reasoning = by_str_sub(reasoning, n->was.reasoning.n, SIZE_MAX);
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
    struct parse_reasoning_parts parts = {0};
    parse_reasoning_split(q->reasoning, text, true, &parts);
    if (!parts.reasoning.n) return 0;
    size_t n = parts.content.n ? (size_t)(parts.content.p - text.p) : text.n;
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
