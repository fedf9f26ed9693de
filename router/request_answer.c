#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "router/http_write.h"
#include "router/request_log.h"
#include "router/request_parts.h"

#include <stdio.h>
#include <string.h>

/* A request's answer: when to write what is new, how it ends, and who ends it before its time. */

enum {
    PENDING_PAUSE = 256 * 1024, /* bytes that wait for a slow client before its request pauses … */
    PENDING_GO_ON = 64 * 1024,  /* … and goes on */
    SCRATCH_KEPT = 1024 * 1024,
    ACK_EVERY = 32, /* tokens; the scheduler keeps its log until the final one anyway */
    EVENT_BYTES_A_TOKEN = 65536,
};

static const char too_large[] =
    "the answer is larger than 268435456 bytes: ask for fewer samples or log probabilities at once";
static_assert(REQUEST_ANSWER_MAX == 268435456, "as too_large says");
static const char no_room[] =
    "the server holds as much as it may for its clients (--max-held-bytes), and "
    "this answer grew large; try again";

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

void request_on_gone(void *owner) {
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

/* Events that repeat what was told before may repeat megabytes, such as the prompt's log probabilities: the next one waits for a
 * token for each 64 KiB that the last one had, or for the end. So a stream's bytes grow with its tokens. */
static bool is_too_soon(const struct request *q, const struct journal_sample *s) {
    return q->dialect->repeats && !s->finish &&
           s->n_ids - s->n_sent_ids < s->n_event / EVENT_BYTES_A_TOKEN;
}

/* All that has come goes out, whatever it repeats. */
static void write_all(struct request *q) {
    for (uint32_t i = 0; q->is_stream && i < q->n_entries; i++) {
        struct journal_entry *e = q->entries[i];
        for (uint32_t k = 0; e && k < e->n_samples; k++) {
            struct journal_sample *s = &e->samples[k];
            if (s->n_sent_ids == s->n_ids) continue;
            s->n_event = 0;
            if (!by_list_linked(&s->unwritten)) by_list_push(&q->router->unwritten, &s->unwritten);
        }
    }
    request_write_news(q->router);
}

static void release_held(struct request *q) {
    for (struct by_list *node; (node = by_list_first(&q->held)) != NULL;) {
        by_list_remove(node);
        by_list_push(&q->router->unwritten, node);
    }
}

void request_on_drained(void *owner) {
    struct request *q = owner;
    struct router *r = q->router;
    if (outlet_n_pending(&q->outlet) > PENDING_GO_ON) return;
    set_paused(q, false);
    release_held(q);
    request_write_news(r); /* may be the end of q */
}

static void write_stream(struct request *q, struct by_buf *out) {
    if (!out->n) return;
    if (!q->has_begun) {
        const char *type = q->dialect->stream_type;
        outlet_stream_begin(&q->outlet, type ? type : SSE_TYPE);
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
    int code = 0;
    by_buf_init(&out, REQUEST_ANSWER_MAX);
    outlet_set_owner(&q->outlet, NULL, NULL, NULL);
    for (uint32_t i = 0; i < q->n_entries; i++)
        uplink_ack(q->router->uplink, q->entries[i], 0, true);
    if (q->is_stream) {
        q->dialect->end(q, &out);
        write_stream(q, &out);
        outlet_stream_end(&q->outlet, false);
    } else if (lacks_vector(q)) {
        request_answer_error(q, BY_ECANCELLED, "the request was aborted", 0);
    } else {
        q->dialect->whole(q, &out);
        code = out.is_full ? BY_ELIMIT : 0;
        if (code)
            request_answer_error(q, code, too_large, 0);
        else
            outlet_respond(&q->outlet, 200, "application/json", by_buf_str(&out), NULL);
    }
    by_buf_release(&out);
    by_observe(BY_M_E2E, (double)(by_now_ns() - q->started_ns) / 1e9);
    request_log(q, code);
    end_request(q);
}

static void count_finished(const struct journal_entry *e, const struct journal_sample *s) {
    by_count(BY_M_GENERATED_TOKENS, s->n_output);
    if (s->finish != FINISH_ABORT && s->seen_ns > s->first_ns)
        by_observe(BY_M_TPOT, (double)(s->seen_ns - s->first_ns) / 1e9 / (s->n_seen - 1));
    if (s != e->samples) return;
    by_count(BY_M_PROMPT_TOKENS, e->n_prompt);
    by_count(BY_M_CACHED_TOKENS, e->n_cached);
}

/* It cannot go on: too large for an event, or for the room that there is. */
static void give_up(struct request *q, struct journal_entry *e, int code, const char *why) {
    const struct msg_failed f = {.name = e->request.name, .code = code, .text = by_str_of(why)};
    uplink_cancel(q->router->uplink, e);
    request_on_failed(q->router, e, &f);
}

/* Log probabilities of long prompts are hundreds of megabytes before any of it can be written. */
static bool has_outgrown(const struct router *r, const struct journal_entry *e) {
    return r->held_max && by_mem_n_bytes() > r->held_max &&
           journal_n_bytes(e) > e->n_asked_bytes + REQUEST_GROWN_BYTES;
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
    if (out->is_full) {
        by_buf_release(out);
        give_up(q, e, BY_ELIMIT, too_large);
        return false;
    }
    s->is_begun |= out->n > 0;
    s->n_event = out->n;
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
    const struct journal_entry *e = s->entry;
    bool has_run = s->n_ids || (s->finish && s->finish != FINISH_ABORT);
    if (!s->n_seen && has_run && s == e->samples)
        by_observe(BY_M_QUEUE_TIME, (double)e->queue_us / 1e6);
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
    if (has_outgrown(r, e)) {
        by_count(BY_M_GAVE_WAY, 1);
        give_up(q, e, BY_EFULL, no_room);
        return;
    }
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
        else if (!is_too_soon(q, s) && write_news(q, s))
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
    write_all(q); /* what came before the error goes out before it */
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
        request_answer_error(q, code, text, f->retry_after_ms);
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
