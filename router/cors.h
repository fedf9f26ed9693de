/* cors.h - which web pages may read our answers: --allowed-origins.
 *
 *     page of https://chat.example ─▶ browser ─ Origin: https://chat.example ─▶ router
 *          reads the answer        ◀─ browser ◀─ Access-Control-Allow-Origin ─ when it is in the list; else it reads nothing
 *
 * A list is origins with commas between them (https://chat.example,http://localhost:5173), or * for every page.
 * Always: without the option, no header is written and no page reads anything. It keeps out pages in browsers, never
 * programs: for these there are keys.
 * Owner: nobody; pure. */
#ifndef ROUTER_CORS_H
#define ROUTER_CORS_H

#include "common/base/buf.h"
#include "common/base/err.h"

/* Is it a list of origins? NULL is one. A trailing slash or a path, which no browser would ever send, is named. */
BY_MUST_USE int cors_check(const char *list, struct by_err *err);
bool cors_allows(const char *list, struct by_str origin); /* origin empty: the request has none */
/* The header lines of any answer to a request from there. */
void cors_write(struct by_buf *out, const char *list, struct by_str origin);
/* Those of the answer to "may I send this?" besides. */
extern const char cors_preflight[];

#endif
