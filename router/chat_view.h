/* chat_view.h - what a chat answer is made of: reasoning, words, tool calls; every chat dialect writes these.
 *
 *     text so far ─ parse_reasoning ─▶ reasoning · rest ─ parse_tools ─▶ content · calls
 *
 * Always: a view of a text begins the view of any longer one, so a stream sends the difference of two views.
 * Owner: the caller; chat_view_read fills, chat_view_release frees. Slices borrow from the text. */
#ifndef ROUTER_CHAT_VIEW_H
#define ROUTER_CHAT_VIEW_H

#include "router/request.h"

struct chat_view {
    struct by_str reasoning;
    struct parse_tools_result said;
};

bool chat_view_is_plain(const struct request *q); /* the text is the content */
void chat_view_read(const struct request *q, struct by_str text, bool is_end, struct chat_view *v);
void chat_view_release(struct chat_view *v);
/* A call's id, made of what a replay repeats: call_… */
void chat_view_write_call_id(const struct request *q, uint32_t choice, size_t call,
                             struct by_buf *out);

#endif
