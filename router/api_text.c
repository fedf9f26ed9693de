#include "router/api.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

/* Text service: the body goes to a tokenizer worker as it is, its answer comes back as it is. */

struct pending {
    struct conn *conn; /* NULL: the client has left */
    /* it runs, and counts, until it is answered, whether or not anybody waits */
    struct auth_key *caller;
    api_error_writer *error; /* NULL: OpenAI's form */
};

static void gone(void *owner) {
    ((struct pending *)owner)->conn = NULL;
}

static void on_answer(void *ctx, int code, struct by_str json) {
    struct pending *p = ctx;
    auth_end(p->caller, 0);
    if (p->conn) {
        conn_set_owner(p->conn, NULL, NULL, NULL);
        if (code) {
            char *text = api_error_text(code, json);
            struct outlet to = {.conn = p->conn};
            api_error_send(&to, p->error, code, text, 0);
            by_free(text);
        } else {
            conn_respond(p->conn, 200, "application/json", json, NULL);
        }
    }
    by_free(p);
}

void api_ask_tokenizer(struct router *r, struct conn *c, const char *what, struct by_str json,
                       api_error_writer *error) {
    struct by_err err = {0};
    uint32_t retry_ms = 0;
    if (auth_start(r->caller, by_now_ns(), &retry_ms, &err)) {
        struct outlet to = {.conn = c};
        api_error_send(&to, error, err.code, err.text, retry_ms);
        return;
    }
    struct pending *p = by_alloc(sizeof *p);
    *p = (struct pending){.conn = c, .caller = r->caller, .error = error};
    conn_set_owner(c, p, gone, NULL);
    uplink_ask_tokenizer(r->uplink, what, json, on_answer, p);
}

/* Read here first: what is no JSON costs no other process anything (and what is no UTF-8 would end the wire's session). */
static void ask(struct router *r, struct conn *c, const struct http1_request *req,
                const char *what) {
    struct by_json *body = NULL;
    struct by_err err = {0};
    if (request_check_room(r, &err) || request_read_body(&body, req, &err))
        api_error(c, err.code, err.text);
    else
        api_ask_tokenizer(r, c, what, req->body, NULL);
    by_json_free(body);
}

void api_tokenize(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "tokenize");
}

void api_tokenizer_info(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    api_ask_tokenizer(r, c, "tokenizer_info", BY_STR("{}"), NULL);
}

void api_detokenize(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "detokenize");
}

void api_apply_template(struct router *r, struct conn *c, const struct http1_request *req) {
    ask(r, c, req, "apply_template");
}
