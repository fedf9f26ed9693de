#include "router/request.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/base/rand.h"
#include "router/misspelt.h"
#include "router/request_log.h"
#include "router/request_parts.h"

#include <stdio.h>
#include <string.h>

/* In the dialect's form and words. */
void request_answer_error(struct request *q, int code, const char *text, uint32_t retry_after_ms) {
    struct by_buf room;
    by_buf_init(&room, 65536);
    text = api_error_in_words(q->dialect->names, text, &room);
    api_error_send(&q->outlet, q->dialect->error, code, text, retry_after_ms);
    by_buf_release(&room);
}

struct request *request_new(struct router *r, struct conn *c, const struct dialect *d) {
    struct request *q = by_alloc(sizeof *q);
    q->router = r;
    q->caller = r->caller;
    q->outlet.conn = c;
    q->dialect = d;
    q->created_s = by_wall_ns() / BY_NS_PER_S;
    q->started_ns = by_now_ns();
    q->model = request_model_name(r);
    q->trace = *conn_trace(c);
    by_list_init(&q->held);
    by_arena_init(&q->arena, 0);
    snprintf(q->id, sizeof q->id, "%016llx%016llx", (unsigned long long)by_rand_u64(),
             (unsigned long long)by_rand_u64());
    return q;
}

void request_free(struct request *q) {
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (q->entries[i]) journal_remove(&q->router->journal, q->entries[i]);
    }
    by_free(q->entries);
    by_json_free(q->body);
    by_arena_release(&q->arena);
    by_free(q);
}

/* Ollama's pages have curl send JSON as what curl calls every body, a form; Ollama asks no further. A page in a browser may send a
 * form to anybody without having asked: its word is taken. */
static bool is_json_all_the_same(const struct http1_request *r, struct by_str type) {
    return by_str_starts(r->path, BY_STR("/api/")) && !http1_is_of_page(r) &&
           by_str_ieqz(by_str_sub(type, 0, 33), "application/x-www-form-urlencoded");
}

int request_read_body(struct by_json **out, const struct http1_request *r, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = SIZE_MAX,
                                       .depth_max = LIMIT_JSON_DEPTH,
                                       .values_max = LIMIT_JSON_VALUES,
                                       .members_max = LIMIT_JSON_MEMBERS,
                                       .refuse_duplicates = true};
    struct by_str type;
    if (http1_header(r, "content-type", &type) && type.n &&
        !by_str_ieqz(by_str_sub(type, 0, 16), "application/json") && !is_json_all_the_same(r, type))
        return by_fail(
            err, BY_EMEDIATYPE,
            "the Content-Type is '%.*s': send the header 'Content-Type: application/json'",
            (int)BY_MIN(type.n, (size_t)80), type.p);
    if (!r->body.n) return by_fail(err, BY_EINVAL, "the body is empty: send an object of JSON");
    int rc = by_json_parse(out, r->body, &lim, err);
    if (!rc && by_json_type(*out) != BY_JSON_OBJECT)
        return by_fail(err, BY_EINVAL, "the body: expected an object, got %s",
                       by_json_type_name(*out));
    if (rc == BY_EFORMAT || rc == BY_ELIMIT)
        by_fail_prefix(err, "the body is not JSON that we read");
    return rc;
}

int request_check_room(const struct router *r, struct by_err *err) {
    if (!r->held_max || by_mem_n_bytes() <= r->held_max) return 0;
    by_count(BY_M_GAVE_WAY, 1);
    return by_fail(err, BY_EFULL,
                   "the server holds as much as it may for its clients (--max-held-bytes); try "
                   "again");
}

/* The JSON keeps borrowing from nothing: cJSON copies; the arena holds what params made. */
bool request_parse(struct request *q, const struct http1_request *r) {
    struct by_err err = {0};
    int rc = resume_join(q->router->resume, q->outlet.conn, r, q->caller, &err);
    q->http = r;
    q->route = by_arena_copy(&q->arena, r->path);
    if (rc > 0) { /* another request's answer serves */
        request_free(q);
        return false;
    }
    struct request_id *id = conn_id(q->outlet.conn);
    if (id->is_theirs) q->their_id = by_arena_copy(&q->arena, by_str_of(id->text));
    request_id_name(id, q->id);
    if (!rc) rc = request_check_room(q->router, &err);
    if (!rc) rc = request_read_body(&q->body, r, &err);
    if (!rc && q->router->asks)
        misspelt_tell(q->router->asks, q->body, r->path, &q->router->misspelt);
    if (!rc) return true;
    request_refuse(q, &err);
    return false;
}

/* Its share of the machine goes by the key's name, its priority as far as the key may; under --isolate-cache its prefixes
 * are its own. */
static void mark_caller(struct request *q, struct msg_routing *routing) {
    struct by_buf key;
    if (!q->caller) return;
    routing->tenant = by_str_of(q->caller->name);
    routing->priority = BY_MIN(routing->priority, q->caller->priority_max);
    if (!q->router->isolates_cache) return;
    by_buf_init(&key, 3 * LIMIT_CONTROL_STR_BYTES); /* a name and the longest extra_key */
    /* no name has a line's end, no key's prefix is another's */
    by_buf_addf(&key, "%s\n", q->caller->name);
    by_buf_add_str(&key, routing->extra_key);
    routing->extra_key = by_arena_copy(&q->arena, by_buf_str(&key));
    by_buf_release(&key);
}

/* What the client calls this prompt; nobody who has another key can tell, or take, its ids. */
static void name_prompt(struct request *q, struct msg_generate *m) {
    struct by_buf id;
    uint32_t i = q->n_entries;
    if (!q->has_own_id && !q->n_rids) return;
    by_buf_init(&id, LIMIT_CONTROL_STR_BYTES);
    by_buf_addf(&id, "%s\n", q->caller ? q->caller->name : "");
    if (q->n_rids && i < q->n_rids)
        by_buf_add_str(&id, q->rids[i]);
    else
        by_buf_addz(&id, q->id);
    if (!q->n_rids && q->is_list) by_buf_addf(&id, "_%u", i * BY_MAX(m->sampling.n, 1u));
    m->routing.client_id = by_arena_copy(&q->arena, by_buf_str(&id));
    by_buf_release(&id);
}

void request_add_prompt(struct request *q, const struct msg_generate *m) {
    by_assert(q->n_entries < REQUEST_PROMPTS_MAX);
    if ((q->n_entries & (q->n_entries - 1)) == 0) /* full at each power of two */
        q->entries = by_realloc_array(q->entries, BY_MAX(2 * q->n_entries, 1u), sizeof *q->entries);
    struct msg_generate limited = *m;
    uint32_t *limit = &limited.routing.run_timeout_ms, server = q->router->request_timeout_ms;
    if (server && (!*limit || server < *limit)) *limit = server;
    mark_caller(q, &limited.routing);
    name_prompt(q, &limited);
    q->entries[q->n_entries] = journal_add(&q->router->journal, &limited, q, q->n_entries);
    q->n_open += q->entries[q->n_entries]->n_samples;
    q->n_entries++;
}

static void refuse(struct request *q, const struct by_err *err, uint32_t retry_ms) {
    request_answer_error(q, err->code, err->text, retry_ms);
    request_log(q, err->code);
    request_free(q);
}

void request_refuse(struct request *q, const struct by_err *err) {
    refuse(q, err, 0);
}

/* "text and embeddings (POST /v1/chat/completions, POST /v1/embeddings)" */
static void add_abilities(struct by_buf *out, const struct msg_model *m) {
    const struct {
        bool can;
        enum vector what;
        const char *path;
    } all[] = {{!m->is_encoder, VECTOR_NONE, "/v1/chat/completions"},
               {m->n_embed > 0, VECTOR_EMBEDDING, "/v1/embeddings"},
               {m->n_labels > 0, VECTOR_SCORES, "/v1/rerank"}};
    unsigned n = 0;
    for (size_t i = 0; i < BY_COUNTOF(all); i++) {
        if (all[i].can)
            by_buf_addf(out, "%s%s (POST %s)", n++ ? " and " : "", vector_text(all[i].what),
                        all[i].path);
    }
}

/* Does the model make what is asked for? */
static int check_abilities(const struct request *q, const struct msg_model *m, struct by_err *err) {
    uint32_t want = q->n_entries ? q->entries[0]->request.sampling.vector : VECTOR_NONE;
    bool can = want == VECTOR_NONE        ? !m->is_encoder
               : want == VECTOR_EMBEDDING ? m->n_embed > 0
                                          : m->n_labels > 0;
    struct by_buf what;
    if (can) return 0;
    by_buf_init(&what, 512);
    add_abilities(&what, m);
    int rc =
        by_fail(err, BY_EUNSUPPORTED,
                "the model (" BY_STR_FMT ", " BY_STR_FMT ") makes no %s; it makes " BY_STR_FMT,
                BY_STR_ARG(by_str_sub(m->type, 0, 64)), BY_STR_ARG(by_str_sub(m->impl, 0, 100)),
                vector_text(want), BY_STR_ARG(by_buf_str(&what)));
    by_buf_release(&what);
    return rc;
}

static int check_ids(const struct request *q, struct by_err *err) {
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (q->entries[i]->is_id_taken)
            return by_fail(err, BY_EINUSE, "%s", by_err_sentence(BY_EINUSE));
    }
    return 0;
}

/* A quarter is kept for small ones. */
static int check_pending(const struct request *q, struct by_err *err) {
    size_t n = 0;
    for (uint32_t i = 0; i < q->n_entries; i++)
        n += q->entries[i]->n_asked_bytes;
    size_t max = n > REQUEST_LARGE_BYTES ? REQUEST_PENDING_BYTES / 4 * 3 : REQUEST_PENDING_BYTES;
    if (q->router->journal.n_asked_bytes <= BY_MAX(max, n)) return 0;
    return by_fail(err, BY_EFULL,
                   "the prompts that wait and run are as large as they may be; try again");
}

/* The journal has what was asked: the JSON that said it takes up to twenty times as much. A name that is not of there may be of
 * the uplink's state, which is another's after an update. */
static void let_go_of_body(struct request *q) {
    q->model = by_arena_copy(&q->arena, q->model);
    by_json_free(q->body);
    q->body = NULL;
}

void request_start(struct request *q) {
    struct router *r = q->router;
    const struct uplink_state *state = uplink_state(r->uplink);
    struct by_err err = {0};
    uint32_t retry_ms = 0;
    if (r->is_draining || r->is_held)
        (void)by_fail(&err, BY_EDRAINING, "%s", request_why_draining(r));
    else if (!state->is_ready)
        (void)by_fail(&err, BY_EUNAVAILABLE, "the server is not ready: %s", state->why_not);
    else if (!check_ids(q, &err) && !check_abilities(q, &state->model, &err))
        (void)!check_pending(q, &err);
    if (err.code || auth_start(q->caller, by_now_ns(), &retry_ms, &err)) {
        refuse(q, &err, retry_ms);
        return;
    }
    r->n_requests++;
    by_count(BY_M_REQUESTS, q->n_entries);
    if (q->http && resume_wanted(r->resume, q->http))
        q->outlet.answer = resume_begin(r->resume, q->http, q->caller);
    q->http = NULL;
    let_go_of_body(q);
    if (q->outlet.answer) resume_follow(q->outlet.answer, q->outlet.conn);
    outlet_set_owner(&q->outlet, q, request_on_gone, request_on_drained);
    for (uint32_t i = 0; i < q->n_entries; i++)
        uplink_submit(r->uplink, q->entries[i]);
}

const char *request_why_draining(const struct router *r) {
    return r->is_draining ? "the server is shutting down"
                          : "the server takes no new requests (POST /drain)";
}

const char *request_finish_reason(const struct journal_sample *s) {
    return s->finish ? finish_text(s->finish) : NULL;
}

struct by_str request_model_name(const struct router *r) {
    if (r->model_name) return by_str_of(r->model_name);
    struct by_str path = uplink_state(r->uplink)->model.path;
    return path.n ? path : BY_STR("banyan");
}
