#include "deploy/cli/hub_http.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "deploy/cli/hub_cache.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONNECT_TIMEOUT_S = 15,
    /* a connection that brings nothing for so long is dropped, and taken up again */
    SILENCE_S = 30,
    REDIRECTS_MAX = 8,
    TOKEN_MAX = 1024,
};

struct hub_http {
    CURL *curl;
    struct curl_slist *with_token, *plain;
    char *endpoint;
    bool has_token;
    char error[CURL_ERROR_SIZE];
};

/* What one transfer fills. */
struct transfer {
    struct hub_http *h;
    struct hub_reply reply;
    struct by_buf *body;
    const struct hub_sink *sink;
    uint64_t from;
    int64_t range_from; /* Content-Range's first byte; -1: none */
    bool has_begun, sink_refused;
};

/* ---- who we are ---- */

static int read_token(char *out, size_t cap, struct by_err *err) {
    const char *given = getenv("HF_TOKEN"), *path = getenv("HF_TOKEN_PATH");
    struct by_buf text;
    char *home = hub_cache_home(),
         *file = path && *path ? by_strdup(path) : by_path_join(home, "token");
    by_buf_init(&text, TOKEN_MAX);
    if (given && *given)
        by_buf_addz(&text, given);
    else if (by_file_exists(file))
        (void)!by_file_read(&text, file, NULL); /* unreadable: as if there were none */
    struct by_str token = by_str_trim(by_buf_str(&text));
    int rc = 0;
    for (size_t i = 0; i < token.n; i++) {
        if (token.p[i] <= ' ' || token.p[i] > '~' || text.is_full) rc = BY_EINVAL;
    }
    if (rc)
        by_fail(err, rc, "%s holds no token of the Hub: a token is one line of plain characters",
                given && *given ? "HF_TOKEN" : file);
    snprintf(out, cap, "%.*s", (int)token.n, token.p ? token.p : "");
    by_buf_release(&text);
    by_free(file);
    by_free(home);
    return rc;
}

static char *read_endpoint(void) {
    const char *given = getenv("HF_ENDPOINT");
    struct by_str s = by_str_of(given && *given ? given : "https://huggingface.co");
    while (s.n && s.p[s.n - 1] == '/')
        s.n--;
    return by_strndup(s.p, s.n);
}

static void set_ca(CURL *c) {
    static const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        const char *file = getenv(names[i]);
        if (!file || !*file) continue;
        curl_easy_setopt(c, CURLOPT_CAINFO, file);
        return;
    }
}

int hub_http_new(struct hub_http **out, struct by_err *err) {
    char token[TOKEN_MAX + 1], header[TOKEN_MAX + 32];
    int rc = read_token(token, sizeof token, err);
    if (rc) return rc;
    struct hub_http *h = by_alloc(sizeof *h);
    h->endpoint = read_endpoint();
    h->has_token = token[0] != 0;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) == 0) h->curl = curl_easy_init();
    if (!h->curl) {
        hub_http_free(h);
        return by_fail(err, BY_EINTERNAL, "libcurl could not be started");
    }
    h->plain = curl_slist_append(NULL, "Accept-Encoding: identity");
    h->with_token = curl_slist_append(NULL, "Accept-Encoding: identity");
    snprintf(header, sizeof header, "Authorization: Bearer %s", token);
    if (h->has_token) h->with_token = curl_slist_append(h->with_token, header);
    *out = h;
    return 0;
}

void hub_http_free(struct hub_http *h) {
    if (!h) return;
    curl_easy_cleanup(h->curl);
    curl_slist_free_all(h->with_token);
    curl_slist_free_all(h->plain);
    by_free(h->endpoint);
    by_free(h);
}

const char *hub_http_endpoint(const struct hub_http *h) {
    return h->endpoint;
}

void hub_http_escape(struct by_buf *out, struct by_str text, bool keep_slashes) {
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                        (c >= 'A' && c <= 'Z') || strchr("-_.~", c) || (c == '/' && keep_slashes);
        by_buf_addf(out, is_plain && c ? "%c" : "%%%02X", c);
    }
}

/* ---- callbacks ---- */

static void keep(char *to, size_t cap, struct by_str value) {
    snprintf(to, cap, "%.*s", (int)BY_MIN(value.n, cap - 1), value.p ? value.p : "");
}

/* W/"abc" -> abc. One that does not fit is none: it could not name a file. */
static void keep_etag(struct hub_reply *r, struct by_str v) {
    if (by_str_starts(v, BY_STR("W/"))) v = by_str_sub(v, 2, v.n);
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"') v = by_str_sub(v, 1, v.n - 2);
    r->etag[0] = 0;
    if (v.n < sizeof r->etag) keep(r->etag, sizeof r->etag, v);
}

static void keep_size(int64_t *to, struct by_str v) {
    uint64_t n;
    *to = by_str_to_u64(v, &n) && n <= INT64_MAX ? (int64_t)n : -1;
}

static void take_header(struct transfer *t, struct by_str name, struct by_str value) {
    struct hub_reply *r = &t->reply;
    if (by_str_ieqz(name, "etag") && !r->is_linked) keep_etag(r, value);
    if (by_str_ieqz(name, "content-length") && !r->is_linked) keep_size(&r->size, value);
    if (by_str_ieqz(name, "x-linked-etag")) {
        r->is_linked = true;
        keep_etag(r, value);
    }
    if (by_str_ieqz(name, "x-linked-size")) keep_size(&r->size, value);
    if (by_str_ieqz(name, "x-error-code")) keep(r->why, sizeof r->why, value);
    if (by_str_ieqz(name, "location")) keep(r->location, sizeof r->location, value);
    if (by_str_ieqz(name, "content-range") && by_str_starts(value, BY_STR("bytes "))) {
        struct by_str rest = by_str_sub(value, 6, value.n), first;
        by_str_split(&rest, '-', &first);
        keep_size(&t->range_from, first);
    }
}

static size_t on_header(char *p, size_t each, size_t n, void *ctx) {
    struct transfer *t = ctx;
    struct by_str line = by_str_trim((struct by_str){p, each * n}), value = line, name;
    if (by_str_starts(line, BY_STR("HTTP/"))) { /* the next answer of a chain of redirects */
        t->reply = (struct hub_reply){.size = -1};
        t->range_from = -1;
    } else if (by_str_split(&value, ':', &name)) {
        take_header(t, name, by_str_trim(value));
    }
    return each * n;
}

static bool begin(struct transfer *t) {
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    bool goes_on = status == 206 && t->range_from == (int64_t)t->from;
    if (status == 206 && !goes_on) return false;
    t->has_begun = true;
    return t->sink->begin(t->sink->ctx, goes_on ? t->from : 0) == 0;
}

static size_t on_body(char *p, size_t each, size_t n, void *ctx) {
    struct transfer *t = ctx;
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->body) by_buf_add(t->body, p, each * n);
    if (!t->sink || status >= 300) return each * n; /* an error's own words */
    if ((!t->has_begun && !begin(t)) || t->sink->take(t->sink->ctx, p, each * n)) {
        t->sink_refused = true;
        return 0;
    }
    return each * n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)ctx, (void)a, (void)b, (void)c, (void)d;
    return by_proc_should_stop();
}

/* ---- one transfer ---- */

static void set_options(struct hub_http *h, const char *url, bool follows, struct transfer *t) {
    CURL *c = h->curl;
    bool is_ours = by_str_starts(by_str_of(url), by_str_of(h->endpoint)) &&
                   strchr("/?", url[strlen(h->endpoint)]);
    bool is_tls = by_str_starts(by_str_of(url), BY_STR("https:"));
    curl_easy_reset(c); /* connections stay */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, is_ours ? h->with_token : h->plain);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "banyan/" BANYAN_VERSION);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, is_tls ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, follows ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->error);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    set_ca(c);
}

static int fail_transport(struct hub_http *h, CURLcode code, struct by_err *err) {
    const char *words = h->error[0] ? h->error : curl_easy_strerror(code);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return by_fail(err, BY_EUNAVAILABLE,
                       "cannot reach %s (%s); check the network and https_proxy, or name another "
                       "Hub with HF_ENDPOINT",
                       h->endpoint, words);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return by_fail(err, BY_EIO,
                       "%s: its certificate is not trusted here (%s); behind a proxy that brings "
                       "its own, name the file with SSL_CERT_FILE",
                       h->endpoint, words);
    case CURLE_ABORTED_BY_CALLBACK:
        return by_fail(err, BY_ECANCELLED,
                       "stopped; what was fetched is kept, and the next start goes on from there");
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return by_fail(err, BY_EINVAL, "HF_ENDPOINT %s is no http or https address (%s)",
                       h->endpoint, words);
    case CURLE_TOO_MANY_REDIRECTS:
        return by_fail(err, BY_EIO, "%s redirects in circles", h->endpoint);
    default:
        return by_fail(err, BY_EAGAIN, "%s: the connection broke (%s); try again", h->endpoint,
                       words);
    }
}

static bool is(const struct hub_reply *r, const char *why) {
    return strcmp(r->why, why) == 0;
}

static int fail_status(const struct hub_http *h, const struct hub_reply *r, struct by_str repo,
                       struct by_err *err) {
    int n = (int)repo.n;
    const char *m = repo.p, *at = h->endpoint;
    if (is(r, "GatedRepo") || (r->status == 403 && h->has_token))
        return by_fail(
            err, BY_EFORBIDDEN,
            h->has_token ? "%.*s is gated: ask for access at %s/%.*s with the account of your token"
                         : "%.*s is gated: ask for access at %s/%.*s, then set HF_TOKEN",
            n, m, at, n, m);
    if (is(r, "RevisionNotFound"))
        return by_fail(err, BY_ENOTFOUND, "%.*s has no such revision at %s; see %s/%.*s/tree/main",
                       n, m, at, at, n, m);
    if (is(r, "EntryNotFound"))
        return by_fail(err, BY_ENOTFOUND, "%.*s: a file that it lists is not there at %s", n, m,
                       at);
    if (r->status == 401 && h->has_token && !is(r, "RepoNotFound"))
        return by_fail(err, BY_EAUTH,
                       "%s does not accept your token; put a valid one into HF_TOKEN", at);
    if (r->status == 401 || r->status == 403 || r->status == 404)
        return by_fail(
            err, BY_ENOTFOUND,
            "%s knows no model %.*s%s, and there is no such file or folder here either", at, n, m,
            h->has_token ? " that your token may see" : "; if it is private, set HF_TOKEN");
    if (r->status == 429 || r->status >= 500)
        return by_fail(err, BY_EAGAIN, "%s answers %ld: it is too busy or broken; try again later",
                       at, r->status);
    return by_fail(err, BY_EIO, "%s answers %ld to a question about %.*s", at, r->status, n, m);
}

static int perform(struct hub_http *h, struct transfer *t, struct by_err *err) {
    h->error[0] = 0;
    CURLcode code = curl_easy_perform(h->curl);
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &t->reply.status);
    if (code == CURLE_WRITE_ERROR && t->sink_refused)
        return by_fail(err, BY_EIO, "the bytes could not be kept");
    return code == CURLE_OK ? 0 : fail_transport(h, code, err);
}

static char *url_of(const struct hub_http *h, const char *path) {
    struct by_buf url;
    by_buf_init(&url, 16384);
    by_buf_addf(&url, "%s%s", h->endpoint, path);
    return by_buf_take(&url, NULL);
}

int hub_http_get(struct hub_http *h, const char *path, struct by_str repo, struct by_buf *body,
                 struct by_err *err) {
    struct transfer t = {.h = h, .body = body, .reply.size = -1};
    char *url = url_of(h, path);
    set_options(h, url, true, &t);
    int rc = perform(h, &t, err);
    if (!rc && t.reply.status != 200) rc = fail_status(h, &t.reply, repo, err);
    if (!rc && body->is_full)
        rc = by_fail(err, BY_ELIMIT, "%s: its answer is longer than %zu bytes", h->endpoint,
                     body->max);
    by_free(url);
    return rc;
}

int hub_http_head(struct hub_http *h, const char *path, struct by_str repo, struct hub_reply *reply,
                  struct by_err *err) {
    struct transfer t = {.h = h};
    char *url = url_of(h, path), *next = NULL;
    int rc = 0;
    for (int i = 0;; i++) {
        set_options(h, url, false, &t);
        curl_easy_setopt(h->curl, CURLOPT_NOBODY, 1L);
        rc = perform(h, &t, err);
        if (rc || t.reply.status < 300 || t.reply.status >= 400 || t.reply.is_linked) break;
        curl_easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &next);
        if (!next || i == REDIRECTS_MAX) {
            rc = by_fail(err, BY_EIO, "%s redirects to nowhere", h->endpoint);
            break;
        }
        char *copy = by_strdup(next); /* libcurl's own lives until the next transfer */
        by_free(url);
        url = copy;
    }
    by_free(url);
    if (!rc && t.reply.status >= 400) rc = fail_status(h, &t.reply, repo, err);
    *reply = t.reply;
    return rc;
}

int hub_http_download(struct hub_http *h, const char *path, struct by_str repo, uint64_t from,
                      const struct hub_sink *sink, struct by_err *err) {
    struct transfer t = {.h = h, .sink = sink, .from = from, .range_from = -1};
    char *url = url_of(h, path), range[32];
    set_options(h, url, true, &t);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)from);
    if (from) curl_easy_setopt(h->curl, CURLOPT_RANGE, range);
    int rc = perform(h, &t, err);
    if (!rc && t.reply.status >= 400) rc = fail_status(h, &t.reply, repo, err);
    if (!rc && !t.has_begun && sink->begin(sink->ctx, 0)) /* an empty file has no first byte */
        rc = by_fail(err, BY_EIO, "the bytes could not be kept");
    by_free(url);
    return rc;
}
