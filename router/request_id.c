#include "router/request_id.h"

#include <stdio.h>

static bool is_valid(struct by_str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] > '~') return false;
    }
    return s.n && s.n <= REQUEST_ID_MAX;
}

static void set(struct request_id *id, struct by_str s) {
    id->text[0] = '\0';
    if (is_valid(s)) snprintf(id->text, sizeof id->text, BY_STR_FMT, BY_STR_ARG(s));
}

void request_id_take(struct by_str header, struct request_id *out) {
    set(out, header);
    out->is_theirs = out->text[0] != '\0';
}

void request_id_name(struct request_id *id, const char *ours) {
    if (!id->is_theirs) set(id, by_str_of(ours));
}

void request_id_write(const struct request_id *id, struct by_str path, struct by_buf *out) {
    if (!id->text[0]) return;
    bool is_anthropics = by_str_starts(path, BY_STR("/v1/messages"));
    by_buf_addf(out, "%sRequest-Id: %s\r\n", is_anthropics ? "" : "X-", id->text);
}
