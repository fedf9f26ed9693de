#include "router/api_error.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_BYTES_MAX = 65536 };

static struct by_str param_of(const char *text) {
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || (text[n] && strchr("_.[]", text[n])))
        n++;
    return text[n] == ':' ? (struct by_str){text, n} : (struct by_str){0};
}

void api_error_write(struct by_buf *out, int code, const char *text) {
    struct by_str param = param_of(text);
    by_buf_addz(out, "{\"error\":{\"message\":");
    by_buf_add_json_str(out, by_str_of(text));
    by_buf_addf(out, ",\"type\":\"%s\",\"param\":", by_err_type(code));
    if (param.n)
        by_buf_add_json_str(out, param);
    else
        by_buf_addz(out, "null");
    /* those that OpenAI's clients know by a word: who is told of a context goes on with a shorter one */
    const char *word = code == BY_ENOMODEL   ? "model_not_found"
                       : code == BY_ETOOLONG ? "context_length_exceeded"
                                             : NULL;
    if (word)
        by_buf_addf(out, ",\"code\":\"%s\"}}", word);
    else
        by_buf_addf(out, ",\"code\":%d}}", by_err_http(code));
}

void api_error_write_event(struct by_buf *out, int code, const char *text) {
    by_buf_addz(out, "data: ");
    api_error_write(out, code, text);
    by_buf_addz(out, "\n\ndata: [DONE]\n\n");
}

void api_error_send(struct outlet *to, api_error_writer *write, int code, const char *text,
                    uint32_t retry_after_ms) {
    struct by_buf body;
    char extra[128] = "";
    int status = by_err_http(code);
    if (!retry_after_ms && (status == 429 || status == 503)) retry_after_ms = 1000;
    if (retry_after_ms)
        snprintf(extra, sizeof extra, "Retry-After: %u\r\nretry-after-ms: %u\r\n",
                 BY_DIV_UP(retry_after_ms, 1000), retry_after_ms);
    else if (status == 401) /* which has to say how (RFC 9110, 15.5.2) */
        snprintf(extra, sizeof extra, "WWW-Authenticate: Bearer\r\n");
    by_buf_init(&body, ERROR_BYTES_MAX);
    (write ? write : api_error_write)(&body, code, text);
    outlet_respond(to, status, "application/json", by_buf_str(&body), extra);
    by_buf_release(&body);
}

void api_error(struct conn *c, int code, const char *text) {
    struct outlet to = {.conn = c};
    api_error_send(&to, NULL, code, text, 0);
}

const char *api_error_in_words(const char *const (*names)[2], const char *text,
                               struct by_buf *room) {
    for (size_t i = 0; names && names[i][0]; i++) {
        const char *rest = text + strlen(names[i][0]);
        if (!by_str_starts(by_str_of(text), by_str_of(names[i][0])) || !strchr(":[.", *rest))
            continue;
        by_buf_addz(room, names[i][1]);
        by_buf_addz(room, rest);
        return room->p;
    }
    return text;
}

char *api_error_text(int code, struct by_str said) {
    const struct by_json_limits lim = {.bytes_max = 65536, .depth_max = 8};
    struct by_json *body = NULL;
    struct by_str text = said;
    if (said.n && said.p[0] == '{' && !by_json_parse(&body, said, &lim, NULL))
        text = by_json_str(by_json_get(body, "error"));
    if (!text.n) text = by_str_of(by_err_sentence(code));
    char *copy = by_strndup(text.p, text.n);
    by_json_free(body);
    return copy;
}
