#include "router/request.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/base/rand.h"
#include "router/request_log.h"

#include <stdio.h>
#include <string.h>

enum {
    PENDING_PAUSE = 256 * 1024, /* bytes that wait for a slow client before its request pauses … */
    PENDING_GO_ON = 64 * 1024,  /* … and goes on */
    SCRATCH_KEPT = 1024 * 1024,
    ACK_EVERY = 32, /* tokens; the scheduler keeps its log until the final one anyway */
};

/* In the dialect's form and words. */
static void answer_error(struct request *q, int code, const char *text, uint32_t retry_after_ms) {
    struct by_buf room;
    by_buf_init(&room, 65536);
    text = api_error_in_words(q->dialect->names, text, &room);
    api_error_send(&q->outlet, q->dialect->error, code, text, retry_after_ms);
    by_buf_release(&room);
}

/* ---- life ---- */

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
    int rc = by_json_parse(out, r->body, &lim, err);
    if (!rc && by_json_type(*out) != BY_JSON_OBJECT)
        return by_fail(err, BY_EINVAL, "the body: expected an object, got %s",
                       by_json_type_name(*out));
    if (rc == BY_EFORMAT || rc == BY_ELIMIT)
        by_fail_prefix(err, "the body is not JSON that we read");
    return rc;
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
    if (!rc) rc = request_read_body(&q->body, r, &err);
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

/* What the caller's key is charged with. */
static void add_tokens(struct request *q, const struct journal_entry *e) {
    q->n_tokens += e->n_prompt;
    for (uint32_t k = 0; k < e->n_samples; k++)
        q->n_tokens += e->samples[k].n_ids;
}

static void forget_entry(struct request *q, struct journal_entry *e) {
    add_tokens(q, e);
    q->entries[e->index] = NULL;
    journal_remove(&q->router->journal, e);
}

/* The request is over before its time: every prompt is cancelled. */
static void drop_all(struct request *q) {
    for (uint32_t i = 0; i < q->n_entries; i++) {
        struct journal_entry *e = q->entries[i];
        if (!e) continue;
        if (e->n_finished < e->n_samples)
            uplink_cancel(q->router->uplink, e);
        else
            uplink_ack(q->router->uplink, e, 0, true);
        forget_entry(q, e);
    }
}

static void end_request(struct request *q) {
    q->router->n_requests--;
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (q->entries[i]) forget_entry(q, q->entries[i]);
    }
    auth_end(q->caller, q->n_tokens);
    request_free(q);
}

static void on_gone(void *owner) {
    struct request *q = owner;
    by_count(BY_M_ABORTED, 1);
    request_log(q, BY_ECANCELLED);
    drop_all(q);
    end_request(q);
}

static void set_paused(struct request *q, bool is_paused) {
    if (q->is_paused == is_paused) return;
    q->is_paused = is_paused;
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (q->entries[i]) uplink_pause(q->router->uplink, q->entries[i], is_paused);
    }
}

/* Until a pause has come through to the scheduler tokens still come, and each event may repeat the whole text: for a
 * client that lags none is written any more; what it missed becomes one event when it has read what waits for it. */
static bool lags(const struct request *q) {
    return q->is_paused && outlet_n_pending(&q->outlet) > PENDING_GO_ON;
}

static void release_held(struct request *q) {
    for (struct by_list *node; (node = by_list_first(&q->held)) != NULL;) {
        by_list_remove(node);
        by_list_push(&q->router->unwritten, node);
    }
}

static void on_drained(void *owner) {
    struct request *q = owner;
    struct router *r = q->router;
    if (outlet_n_pending(&q->outlet) > PENDING_GO_ON) return;
    set_paused(q, false);
    release_held(q);
    request_write_news(r); /* may be the end of q */
}

static void refuse(struct request *q, const struct by_err *err, uint32_t retry_ms) {
    answer_error(q, err->code, err->text, retry_ms);
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

void request_start(struct request *q) {
    struct router *r = q->router;
    const struct uplink_state *state = uplink_state(r->uplink);
    struct by_err err = {0};
    uint32_t retry_ms = 0;
    if (r->is_draining || r->is_held)
        (void)by_fail(&err, BY_EDRAINING, "%s", request_why_draining(r));
    else if (!state->is_ready)
        (void)by_fail(&err, BY_EUNAVAILABLE, "the server is not ready: %s", state->why_not);
    else if (!check_ids(q, &err))
        (void)!check_abilities(q, &state->model, &err);
    if (err.code || auth_start(q->caller, by_now_ns(), &retry_ms, &err)) {
        refuse(q, &err, retry_ms);
        return;
    }
    r->n_requests++;
    by_count(BY_M_REQUESTS, q->n_entries);
    if (q->http && resume_wanted(r->resume, q->http))
        q->outlet.answer = resume_begin(r->resume, q->http, q->caller);
    q->http = NULL;
    if (q->outlet.answer) resume_follow(q->outlet.answer, q->outlet.conn);
    outlet_set_owner(&q->outlet, q, on_gone, on_drained);
    for (uint32_t i = 0; i < q->n_entries; i++)
        uplink_submit(r->uplink, q->entries[i]);
}

/* ---- answering ---- */

static void write_stream(struct request *q, struct by_buf *out) {
    if (!out->n) return;
    if (!q->has_begun) {
        const char *type = q->dialect->stream_type;
        outlet_stream_begin(&q->outlet, type ? type : "text/event-stream");
        q->has_begun = true;
    }
    outlet_stream_write(&q->outlet, by_buf_str(out));
}

/* An aborted one: of a vector there is no half. */
static bool lacks_vector(const struct request *q) {
    for (uint32_t i = 0; i < q->n_entries; i++) {
        const struct journal_entry *e = q->entries[i];
        if (e->request.sampling.vector && !e->n_vector) return true;
    }
    return false;
}

static void finish_request(struct request *q) {
    struct by_buf out;
    by_buf_init(&out, REQUEST_ANSWER_MAX);
    outlet_set_owner(&q->outlet, NULL, NULL, NULL);
    for (uint32_t i = 0; i < q->n_entries; i++)
        uplink_ack(q->router->uplink, q->entries[i], 0, true);
    if (q->is_stream) {
        q->dialect->end(q, &out);
        write_stream(q, &out);
        outlet_stream_end(&q->outlet, false);
    } else if (lacks_vector(q)) {
        answer_error(q, BY_ECANCELLED, "the request was aborted", 0);
    } else {
        q->dialect->whole(q, &out);
        outlet_respond(&q->outlet, 200, "application/json", by_buf_str(&out), NULL);
    }
    by_buf_release(&out);
    by_observe(BY_M_E2E, (double)(by_now_ns() - q->started_ns) / 1e9);
    request_log(q, 0);
    end_request(q);
}

static void count_finished(const struct journal_entry *e, const struct journal_sample *s) {
    by_count(BY_M_GENERATED_TOKENS, s->n_output);
    if (s != e->samples) return;
    by_count(BY_M_PROMPT_TOKENS, e->n_prompt);
    by_count(BY_M_CACHED_TOKENS, e->n_cached);
}

/* Sends what is new of one sample. False: the client turned out to be gone, and with it the request. */
static bool write_news(struct request *q, struct journal_sample *s) {
    struct router *r = q->router;
    struct journal_entry *e = s->entry;
    const struct msg_name name = e->request.name;
    uint32_t n_acked = s->n_sent_ids;
    struct by_buf *out = &r->scratch;
    by_buf_clear(out);
    q->dialect->delta(q, e, (uint32_t)(s - e->samples), out);
    s->is_begun |= out->n > 0;
    s->n_sent_ids = s->n_ids;
    s->n_sent_text = s->text.n;
    if (n_acked / ACK_EVERY != s->n_ids / ACK_EVERY)
        uplink_ack(r->uplink, e, (uint32_t)(s - e->samples), false);
    write_stream(q, out); /* on_gone frees q at once if the client is gone */
    if (out->cap > SCRATCH_KEPT) {
        by_buf_release(out);
        by_buf_init(out, REQUEST_ANSWER_MAX);
    }
    if (!journal_find(&r->journal, name)) return false;
    if (outlet_n_pending(&q->outlet) > PENDING_PAUSE) set_paused(q, true);
    return true;
}

static void close_sample(struct request *q, const struct journal_sample *s) {
    if (s->finish && --q->n_open == 0) finish_request(q);
}

/* When tokens came; a frame may bring several. */
static void observe_times(struct request *q, struct journal_sample *s) {
    if (s->n_ids == s->n_seen) return;
    uint64_t now_ns = by_now_ns();
    uint32_t n_new = s->n_ids - s->n_seen;
    if (!s->n_seen) s->first_ns = now_ns;
    if (s->n_seen) {
        by_observe_many(BY_M_ITL, (double)(now_ns - s->seen_ns) / 1e9 / n_new, n_new);
    } else if (!q->first_ns) {
        q->first_ns = now_ns;
        by_observe(BY_M_TTFT, (double)(now_ns - q->started_ns) / 1e9);
    }
    s->n_seen = s->n_ids;
    s->seen_ns = now_ns;
}

void request_on_news(void *router, struct journal_entry *e, uint32_t sample) {
    struct router *r = router;
    struct request *q = e->owner;
    struct journal_sample *s = &e->samples[sample];
    observe_times(q, s);
    if (s->finish) count_finished(e, s);
    if (!q->is_stream)
        close_sample(q, s);
    else if (!by_list_linked(&s->unwritten))
        by_list_push(&r->unwritten, &s->unwritten);
}

void request_write_news(void *router) {
    struct router *r = router;
    /* a client that left made room for others: their news come in their turn */
    if (r->is_writing) return;
    r->is_writing = true;
    for (struct by_list *node; (node = by_list_first(&r->unwritten)) != NULL;) {
        struct journal_sample *s = BY_CONTAINER_OF(node, struct journal_sample, unwritten);
        struct request *q = s->entry->owner;
        by_list_remove(node);
        if (lags(q))
            by_list_push(&q->held, node);
        else if (write_news(q, s))
            close_sample(q, s);
    }
    r->is_writing = false;
}

void request_on_failed(void *router, struct journal_entry *e, const struct msg_failed *f) {
    struct router *r = router;
    struct request *q = e->owner;
    char text[BY_ERR_TEXT_MAX];
    int code = by_err_known(f->code) && f->code ? f->code : BY_EINTERNAL;
    q->is_paused = false;
    release_held(q);
    request_write_news(r); /* what came before the error goes out before it */
    if (!journal_find(&r->journal, f->name)) return;
    snprintf(text, sizeof text, "%.*s", (int)BY_MIN(f->text.n, sizeof text - 1),
             f->text.p ? f->text.p : by_err_sentence(code));
    /* a mistake of ours: the id is what a person looks for in the logs */
    if (by_err_http(code) == 500) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, " (request %s)", q->id);
    }
    request_log(q, code);
    forget_entry(q, e);
    outlet_set_owner(&q->outlet, NULL, NULL, NULL);
    drop_all(q);
    if (q->has_begun) { /* the status has gone out: the error is an event */
        struct by_buf out;
        by_buf_init(&out, 65536);
        (q->dialect->error_event ? q->dialect->error_event : api_error_write_event)(&out, code,
                                                                                    text);
        outlet_stream_write(&q->outlet, by_buf_str(&out));
        outlet_stream_end(&q->outlet, true);
        by_buf_release(&out);
    } else {
        answer_error(q, code, text, f->retry_after_ms);
    }
    end_request(q);
}

/* What is there is the answer to this prompt; the request goes on with the others. */
static void abort_entry(struct router *r, struct journal_entry *e) {
    uplink_cancel(r->uplink, e);
    for (uint32_t k = 0, n = e->n_samples, n_left = n - e->n_finished; k < n && n_left; k++) {
        struct journal_sample *s = &e->samples[k];
        if (s->finish) continue;
        s->finish = FINISH_ABORT;
        s->n_output = s->n_ids;
        e->n_finished++;
        n_left--;
        request_on_news(r, e, k); /* the last one may end the request */
    }
}

static bool is_called(const struct request *q, const struct journal_entry *e,
                      struct by_str prefix) {
    char id[96];
    if (q->n_rids) return by_str_starts(q->rids[e->index], prefix);
    if (by_str_starts(by_str_of(q->id), prefix)) return true;
    if (!q->is_list || e->n_samples > 1) return false;
    snprintf(id, sizeof id, "%s_%u", q->id, e->index);
    return by_str_starts(by_str_of(id), prefix);
}

void request_abort(struct router *r, struct by_str prefix, bool all) {
    request_write_news(r);
    for (bool again = true;
         again;) { /* ending one may change the journal: look again from the start */
        size_t at = 0;
        uint64_t rid;
        void *p;
        again = false;
        while (!again && by_map_next(&r->journal.entries, &at, &rid, &p)) {
            struct journal_entry *e = p;
            struct request *q = e->owner;
            if (e->n_finished == e->n_samples || (!all && !is_called(q, e, prefix))) continue;
            if (r->caller && !r->caller->is_admin && q->caller != r->caller) continue;
            abort_entry(r, e);
            again = true;
        }
    }
    request_write_news(r);
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
