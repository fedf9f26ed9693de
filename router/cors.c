#include "router/cors.h"

/* A page names all that it sends, each client library other headers. Authorization is never among *. */
const char cors_preflight[] = "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE\r\n"
                              "Access-Control-Allow-Headers: Authorization, *\r\n"
                              "Access-Control-Max-Age: 7200\r\n";

static const struct by_str all = {"*", 1};

/* The next origin of a list; false when there is none. */
static bool next(struct by_str *rest, struct by_str *origin) {
    if (!rest->n) return false;
    (void)!by_str_split(rest, ',', origin);
    *origin = by_str_trim(*origin);
    return true;
}

/* scheme://host[:port], as a browser writes it: small letters, nothing behind it. */
static bool is_origin(struct by_str s) {
    size_t at = by_str_find(s, BY_STR("://"), 0);
    if (by_str_eq(s, all)) return true;
    if (!at || at == SIZE_MAX || at + 3 == s.n) return false;
    for (size_t i = 0; i < s.n; i++) {
        bool is_ours = i > at && i < at + 3; /* the two slashes */
        if (s.p[i] <= ' ' || s.p[i] > '~' || (s.p[i] >= 'A' && s.p[i] <= 'Z')) return false;
        if (!is_ours && strchr("/\"'\\*?#@", s.p[i])) return false;
    }
    return true;
}

int cors_check(const char *list, struct by_err *err) {
    struct by_str rest = by_str_of(list ? list : ""), origin;
    while (next(&rest, &origin)) {
        if (is_origin(origin)) continue;
        return by_fail(err, BY_EINVAL,
                       "--allowed-origins: '%.*s' is no origin; * is every page, else write "
                       "scheme://host[:port] in small letters, nothing behind it, commas between",
                       (int)BY_MIN(origin.n, (size_t)100), origin.p);
    }
    return 0;
}

bool cors_allows(const char *list, struct by_str origin) {
    struct by_str rest = by_str_of(list ? list : ""), one;
    while (origin.n && next(&rest, &one)) {
        if (by_str_eq(one, all) || by_str_eq(one, origin)) return true;
    }
    return false;
}

void cors_write(struct by_buf *out, const char *list, struct by_str origin) {
    if (!list) return;
    bool is_for_all = cors_allows(list, all);
    if (!is_for_all) by_buf_addz(out, "Vary: Origin\r\n");
    if (!cors_allows(list, origin)) return;
    by_buf_addf(out, "Access-Control-Allow-Origin: %.*s\r\n", is_for_all ? 1 : (int)origin.n,
                is_for_all ? "*" : origin.p);
    by_buf_addz(out, "Access-Control-Expose-Headers: Retry-After, retry-after-ms, traceparent, "
                     "X-Request-Id, Request-Id\r\n");
}
