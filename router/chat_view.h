/* chat_view.h - what a chat answer is made of: reasoning, words, tool calls; every chat dialect writes these.
 *
 *     text so far ─ parse_reasoning ─▶ reasoning · rest ─ parse_tools ─▶ content · calls
 *
 * Always: a view of a text begins the view of any longer one, so a stream sends the difference of two views.
 * Owner: the caller; chat_…_read fills, chat_…_release frees. Slices borrow from the text. */
#ifndef ROUTER_CHAT_VIEW_H
#define ROUTER_CHAT_VIEW_H

#include "router/request.h"

struct chat_view {
    struct by_str reasoning;
    struct parse_tools_result said;
    bool is_borrowed; /* said belongs to the sample's progress */
};

/* What a sample has to say since its last event. */
struct chat_news {
    struct chat_view was, now;
    struct by_str reasoning, content; /* what `now` has and `was` has not */
    bool has_calls;                   /* so with calls: those from was.said.n_calls on */
};

bool chat_view_is_plain(const struct request *q); /* the text is the content */
void chat_view_read(const struct request *q, struct by_str text, bool is_end, struct chat_view *v);
void chat_view_release(struct chat_view *v);
/* For a stream. Reads each text once: goes on where the last news of this sample ended. `was` has counts alone; `now` borrows
 * until the next one. */
void chat_news_read(const struct request *q, struct journal_sample *s, struct chat_news *n);
void chat_news_release(struct chat_news *n);
void chat_progress_free(struct chat_progress *p); /* NULL is fine */
/* Output tokens of the sample that are reasoning, its end mark included. They are told apart by the texts of tokens, which
 * are asked for with a reasoning parser. */
uint32_t chat_view_n_reasoning(const struct request *q, const struct journal_entry *e,
                               const struct journal_sample *s);
/* A call's id, made of what a replay repeats: call_… */
void chat_view_write_call_id(const struct request *q, uint32_t choice, size_t call,
                             struct by_buf *out);

#endif
