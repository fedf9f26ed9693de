/* url.h - what a URL's path and query stand for: escapes undone, segments that climb taken out.
 *
 *     /v1/%6dodels/../chat//x  ─unescape─▶  /v1/models/../chat//x  ─remove_dots─▶  /v1/chat/x
 *
 * Always: both write no more than they read, so that they may write over it; nothing they give holds a NUL.
 * Owner: nobody; pure. */
#ifndef ROUTER_URL_H
#define ROUTER_URL_H

#include "common/base/str.h"

/* Percent-decodes s into out; bytes written. SIZE_MAX for a broken escape or an escaped NUL. */
size_t url_unescape(struct by_str s, char *out, bool plus_is_blank);
/* Drops empty, "." and ".." segments in place; the new length, at least that of "/". A path never climbs above the root. */
size_t url_remove_dots(char *path, size_t n);

#endif
