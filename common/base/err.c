#include "common/base/err.h"

#include "common/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    int code;
    int http;
    const char *name;
    const char *type;
    const char *sentence;
};

static const struct err_row rows[] = {
#define ERROR(name, code, http, type, sentence) {code, http, #name, type, sentence},
#include "common/base/errors.def"
#undef ERROR
};

static const struct err_row *find(int code) {
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (rows[i].code == code) return &rows[i];
    }
    return NULL;
}

/* vsnprintf may cut a character in two; a cut sentence must still be valid UTF-8 on the wire. */
static void close_text(char *text) {
    text[by_utf8_clean_len(text, strlen(text))] = '\0';
}

int by_fail(struct by_err *err, int code, const char *fmt, ...) {
    if (!err) return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    close_text(err->text);
    err->code = code;
    return code;
}

int by_fail_prefix(struct by_err *err, const char *fmt, ...) {
    if (!err) return BY_EINTERNAL;
    char lower[BY_ERR_TEXT_MAX];
    memcpy(lower, err->text, sizeof lower);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text) {
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", lower);
    }
    close_text(err->text);
    return err->code;
}

const char *by_err_name(int code) {
    const struct err_row *r = find(code);
    return r ? r->name : "BY_E?";
}

const char *by_err_sentence(int code) {
    const struct err_row *r = find(code);
    return r ? r->sentence : "an unknown error";
}

const char *by_err_type(int code) {
    const struct err_row *r = find(code);
    return r ? r->type : "server_error";
}

int by_err_http(int code) {
    const struct err_row *r = find(code);
    return r ? r->http : 500;
}

bool by_err_known(int code) {
    return find(code) != NULL;
}
