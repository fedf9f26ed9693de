#include "deploy/cli/json_lines.h"

#include <stdio.h>
#include <stdlib.h>

enum { LINE_MAX_BYTES = 64 << 20 };

static int answer_line(int (*answer)(void *, struct by_str, const struct by_json *, struct by_buf *,
                                     struct by_err *),
                       void *ctx, struct by_str line, struct by_buf *out) {
    const struct by_json_limits lim = {.bytes_max = LINE_MAX_BYTES, .depth_max = 64};
    struct by_json *args = NULL;
    struct by_err err = {0};
    int rc = by_json_parse(&args, line, &lim, &err);
    if (!rc && by_json_type(args) != BY_JSON_OBJECT)
        rc = by_fail(&err, BY_EINVAL, "a line holds one JSON object");
    if (!rc) rc = answer(ctx, line, args, out, &err);
    by_json_free(args);
    if (!rc && out->is_full) rc = by_fail(&err, BY_ELIMIT, "the answer is too long");
    if (!rc) return 0;
    by_buf_clear(out);
    by_buf_addz(out, "{\"error\":");
    by_buf_add_json_str(out, by_str_of(err.text));
    by_buf_addc(out, '}');
    return rc;
}

int json_lines_run(int (*answer)(void *, struct by_str, const struct by_json *, struct by_buf *,
                                 struct by_err *),
                   void *ctx) {
    char *line = NULL;
    size_t cap = 0;
    int status = 0;
    struct by_buf out;
    by_buf_init(&out, 4 * (size_t)LINE_MAX_BYTES);
    for (ssize_t n; (n = getline(&line, &cap, stdin)) >= 0;) {
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (!n) continue;
        by_buf_clear(&out);
        if (answer_line(answer, ctx, (struct by_str){line, (size_t)n}, &out)) status = 1;
        by_buf_addc(&out, '\n');
        fwrite(out.p, 1, out.n, stdout);
        fflush(stdout);
    }
    free(line); /* getline's own */
    by_buf_release(&out);
    return status;
}
