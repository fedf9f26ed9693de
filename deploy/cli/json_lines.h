/* json_lines.h - one JSON object a line in, one out: the shape of `banyan tokenize` and `banyan chat-template`.
 *
 * Always: a line that fails gives {"error": …} on its own line and the next one goes on; the exit status says whether
 * any failed. Lines end at 64 MiB.
 * Owner: the command, one thread. */
#ifndef DEPLOY_CLI_JSON_LINES_H
#define DEPLOY_CLI_JSON_LINES_H

#include "common/base/json.h"

/* answer: appends the object for one line, or returns a code and fills err. `line` is the text, `args` the parsed object. */
int json_lines_run(int (*answer)(void *ctx, struct by_str line, const struct by_json *args,
                                 struct by_buf *out, struct by_err *err),
                   void *ctx);

#endif
