#include "router/api.h"
#include "common/base/mem.h"

/* Text service: the body goes to a tokenizer worker as it is, its answer comes back as it is. */

struct pending {
    struct conn *conn; /* NULL: the client has left */
};

static void gone(void *owner) {
    ((struct pending *)owner)->conn = NULL;
}

static void on_answer(void *ctx, int code, struct by_str json) {
    struct pending *p = ctx;
    if (p->conn) {
        conn_set_owner(p->conn, NULL, NULL, NULL);
        if (code) {
            char *text = by_strndup(json.p ? json.p : "", json.n);
            request_error(p->conn, code, text, 0);
            by_free(text);
        } else {
            conn_respond(p->conn, 200, "application/json", json, NULL);
        }
    }
    by_free(p);
}

static void ask(struct router *r, struct conn *c, const struct http1_request *req,
                const char *what) {
    struct pending *p = by_alloc(sizeof *p);
    p->conn = c;
    conn_set_owner(c, p, gone, NULL);
    uplink_ask_tokenizer(r->uplink, what, req->body, on_answer, p);
}

void api_tokenize(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "tokenize");
}

void api_detokenize(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "detokenize");
}

void api_apply_template(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "apply_template");
}
