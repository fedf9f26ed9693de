/* hub_http.h - the Hub's HTTP interface: three verbs and what its answers mean. The one door to libcurl.
 *
 *     hub_http_get       a JSON answer, redirects followed
 *     hub_http_head      what a file is: name of its content (ETag), size; redirects to a storage host are not followed
 *     hub_http_download  its bytes from an offset on; the sink hears where they begin (a server may not know Range)
 *
 *     HF_ENDPOINT  HF_TOKEN | HF_TOKEN_PATH | $HF_HOME/token  SSL_CERT_FILE  https_proxy …
 *
 * Always: the token goes to the endpoint's own host and nowhere else; http and https only, and never from https to http;
 * what fails becomes one sentence with the remedy. BY_EAGAIN: worth another try. BY_EUNAVAILABLE: no way to the Hub.
 * Owner: the cli, one thread. May block as long as bytes come; gives up a connection silent for 30 s. */
#ifndef DEPLOY_CLI_HUB_HTTP_H
#define DEPLOY_CLI_HUB_HTTP_H

#include "common/base/buf.h"
#include "common/base/err.h"

struct hub_http;

BY_MUST_USE int hub_http_new(struct hub_http **out, struct by_err *err);
void hub_http_free(struct hub_http *h);
const char *hub_http_endpoint(const struct hub_http *h); /* no slash at its end */

struct hub_reply {
    long status;
    int64_t size;   /* -1: not said */
    char etag[132]; /* without quotes; empty: none */
    char why[64];   /* X-Error-Code: RepoNotFound, RevisionNotFound, GatedRepo, EntryNotFound … */
    char location[2048];
    bool is_linked; /* etag and size are of the file behind a redirect (X-Linked-…) */
};

/* `path` begins with a slash and is escaped (hub_http_escape). `repo` is for the sentences. */
BY_MUST_USE int hub_http_get(struct hub_http *h, const char *path, struct by_str repo,
                             struct by_buf *body, struct by_err *err);
BY_MUST_USE int hub_http_head(struct hub_http *h, const char *path, struct by_str repo,
                              struct hub_reply *reply, struct by_err *err);

struct hub_sink {
    void *ctx;
    /* before the first byte: from is what was asked for, or 0 */
    int (*begin)(void *ctx, uint64_t from);
    /* not 0 ends the download; whoever did it knows why */
    int (*take)(void *ctx, const char *p, size_t n);
};
BY_MUST_USE int hub_http_download(struct hub_http *h, const char *path, struct by_str repo,
                                  uint64_t from, const struct hub_sink *sink, struct by_err *err);

void hub_http_escape(struct by_buf *out, struct by_str text, bool keep_slashes);

#endif
