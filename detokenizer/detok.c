#include "detokenizer/detok.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/text/stream_decode.h"
#include "detokenizer/pieces.h"
#include "detokenizer/stop.h"

enum sample_state {
    SAMPLE_UNSEEN, /* no frame has opened it, or a replay will */
    SAMPLE_OPEN,
    SAMPLE_ENDED, /* frames for it are late, and dropped */
};

struct sample {
    enum sample_state state;
    bool no_stop_trim, wants_pieces;
    struct by_stream_decode decode;
    struct stop *stop; /* NULL: no stop strings and patterns */
    uint32_t n_ids;    /* output ids seen */
    uint64_t offset;   /* bytes of text released */
    uint32_t n_prompt, n_cached;
};

struct request {
    uint64_t key[2]; /* epoch, rid: what the map's key points to */
    struct by_list in_all, in_ended;
    uint64_t ended_ns; /* when the last sample ended */
    struct sample *samples;
    uint32_t n_samples, n_open;
    bool is_owed;  /* text was made that its router did not get */
    bool is_asked; /* a replay is on its way, and has not begun: what comes before it is dropped */
};

struct detok {
    struct detok_options o;
    struct by_strmap requests; /* name → struct request */
    struct by_list all, ended; /* ended: oldest first */
    size_t n_ended, n_open;
    uint64_t now_ns;
    struct by_buf piece, text; /* of the frame in hand */
    struct pieces pieces;      /* of the frame in hand */
};

/* ---- requests ---- */

static struct by_str key_of(const uint64_t key[2]) {
    return (struct by_str){(const char *)key, 2 * sizeof *key};
}

static struct request *find(const struct detok *d, const struct msg_name *name) {
    uint64_t key[2] = {name->epoch, name->rid}, value;
    return by_strmap_get(&d->requests, key_of(key), &value) ? (struct request *)(uintptr_t)value
                                                            : NULL;
}

static struct request *find_or_add(struct detok *d, const struct msg_name *name) {
    struct request *r = find(d, name);
    if (r) return r;
    r = by_alloc(sizeof *r);
    r->key[0] = name->epoch;
    r->key[1] = name->rid;
    by_strmap_put(&d->requests, key_of(r->key), (uint64_t)(uintptr_t)r);
    by_list_push(&d->all, &r->in_all);
    return r;
}

/* Frees what only an open sample needs. */
static void end_sample(struct detok *d, struct request *r, struct sample *s,
                       enum sample_state state) {
    bool was_open = s->state == SAMPLE_OPEN;
    s->state = state;
    if (!was_open) return;
    by_stream_decode_release(&s->decode);
    stop_free(s->stop);
    s->stop = NULL;
    r->n_open--;
    d->n_open--;
}

static void end_all(struct detok *d, struct request *r, enum sample_state state) {
    for (uint32_t i = 0; i < r->n_samples; i++)
        end_sample(d, r, &r->samples[i], state);
}

static void forget(struct detok *d, struct request *r) {
    uint64_t value;
    end_all(d, r, SAMPLE_ENDED);
    if (by_list_linked(&r->in_ended)) {
        by_list_remove(&r->in_ended);
        d->n_ended--;
    }
    by_list_remove(&r->in_all);
    bool is_known = by_strmap_remove(&d->requests, key_of(r->key), &value);
    by_assert(is_known);
    by_free(r->samples);
    by_free(r);
}

static void mark_ended(struct detok *d, struct request *r) {
    if (r->n_open || by_list_linked(&r->in_ended)) return;
    r->ended_ns = d->now_ns;
    by_list_push(&d->ended, &r->in_ended);
    if (++d->n_ended > DETOK_ENDED_MAX)
        forget(d, BY_CONTAINER_OF(by_list_first(&d->ended), struct request, in_ended));
}

/* Lets go of a request and has the scheduler replay it. It is remembered, so that the frames which are on their way
 * already are dropped instead of asking again and again. */
static void ask_again(struct detok *d, const struct msg_name *name) {
    struct request *r = find_or_add(d, name);
    bool was_asked = r->is_asked;
    end_all(d, r, SAMPLE_UNSEEN);
    r->is_owed = false;
    r->is_asked = true;
    mark_ended(d, r);
    if (was_asked) return; /* the replay has not begun yet: one is enough */
    struct msg m = {.kind = MSG_cancel, .cancel = {.name = *name, .code = BY_EAGAIN}};
    d->o.to_scheduler(d->o.ctx, &m);
}

struct detok *detok_new(const struct detok_options *o) {
    struct detok *d = by_alloc(sizeof *d);
    d->o = *o;
    by_strmap_init(&d->requests);
    by_list_init(&d->all);
    by_list_init(&d->ended);
    by_buf_init(&d->piece, LIMIT_STR_BYTES);
    by_buf_init(&d->text, LIMIT_STR_BYTES);
    pieces_init(&d->pieces, o->t);
    return d;
}

void detok_reset(struct detok *d) {
    for (struct by_list *node; (node = by_list_first(&d->all)) != NULL;)
        forget(d, BY_CONTAINER_OF(node, struct request, in_all));
}

void detok_free(struct detok *d) {
    if (!d) return;
    detok_reset(d);
    pieces_release(&d->pieces);
    by_buf_release(&d->text);
    by_buf_release(&d->piece);
    by_strmap_release(&d->requests);
    by_free(d);
}

/* ---- a sample's life ---- */

static struct sample *open_sample(struct detok *d, const struct msg_tokens *m) {
    struct request *r = find_or_add(d, &m->name);
    r->is_asked = false;
    if (m->sample >= r->n_samples) {
        r->samples = by_realloc_array(r->samples, m->sample + 1, sizeof *r->samples);
        memset(r->samples + r->n_samples, 0, (m->sample + 1 - r->n_samples) * sizeof *r->samples);
        r->n_samples = m->sample + 1;
    }
    struct sample *s = &r->samples[m->sample];
    end_sample(d, r, s, SAMPLE_UNSEEN);
    if (by_list_linked(&r->in_ended)) {
        by_list_remove(&r->in_ended);
        d->n_ended--;
    }
    *s = (struct sample){.state = SAMPLE_OPEN,
                         .no_stop_trim = m->textual.no_stop_trim,
                         .wants_pieces = m->textual.wants_pieces,
                         .n_prompt = m->n_prompt,
                         .n_cached = m->n_cached};
    struct by_decode_options o = {.skip_special_tokens = m->textual.skip_special_tokens};
    by_stream_decode_init(&s->decode, d->o.t, &o);
    s->stop = stop_new(&(struct stop_wants){.strings = m->textual.stop.p,
                                            .n_strings = m->textual.stop.n,
                                            .regexes = m->textual.stop_regex.p,
                                            .n_regexes = m->textual.stop_regex.n});
    r->n_open++;
    d->n_open++;
    return s;
}

/* Text that the decoder let go of goes through the stop strings into d->text. True: one was found. */
static bool release_text(struct detok *d, struct sample *s) {
    if (!s->stop) {
        by_buf_add_str(&d->text, by_buf_str(&d->piece));
        return false;
    }
    return stop_feed(s->stop, by_buf_str(&d->piece), s->no_stop_trim, &d->text);
}

static bool push_id(struct detok *d, struct sample *s, uint32_t id) {
    by_buf_clear(&d->piece);
    by_stream_decode_push(&s->decode, id, &d->piece);
    return d->piece.n && release_text(d, s);
}

/* The end of the ids: all that was held back comes out. */
static bool push_end(struct detok *d, struct sample *s) {
    by_buf_clear(&d->piece);
    by_stream_decode_finish(&s->decode, &d->piece);
    bool is_stopped = d->piece.n && release_text(d, s);
    if (s->stop && !is_stopped) is_stopped = stop_finish(s->stop, s->no_stop_trim, &d->text);
    return is_stopped;
}

/* What a frame did to its sample. */
struct outcome {
    uint32_t n_ids; /* of the frame, up to the stop */
    enum finish finish;
    struct by_str matched; /* borrowed from the sample's stop */
    uint64_t sent_offset;  /* offset of the text that goes out … */
    size_t sent_from;      /* … and where that begins in d->text */
    uint32_t sent_ids;     /* ids of the frame before the first that goes out */
};

/* The text of a stop id is left out, unless no_stop_trim. */
static bool is_trimmed(const struct sample *s, const struct msg_tokens *m, uint32_t i) {
    return m->finish == FINISH_STOP_ID && i + 1 == m->ids.n && m->ids.p[i] == m->matched_id &&
           !s->no_stop_trim;
}

static struct outcome take_ids(struct detok *d, struct sample *s, const struct msg_tokens *m) {
    struct outcome o = {.n_ids = m->ids.n, .finish = (enum finish)m->finish};
    bool is_stopped = false;
    by_buf_clear(&d->text);
    o.sent_ids = BY_MIN(s->n_ids - m->pos, m->ids.n);
    for (uint32_t i = o.sent_ids; i < m->ids.n && !is_stopped; i++) {
        if (m->pos + i < m->n_delivered) o.sent_ids = i + 1;
        if (!is_trimmed(s, m, i)) is_stopped = push_id(d, s, m->ids.p[i]);
        s->n_ids++;
        o.n_ids = i + 1;
        if (m->pos + i < m->n_delivered) o.sent_from = d->text.n;
    }
    bool is_end = m->finish != FINISH_NONE;
    if (is_end && !is_stopped) is_stopped = push_end(d, s);
    if (is_stopped) {
        o.finish = FINISH_STOP_TEXT;
        o.matched = stop_matched(s->stop);
    }
    o.sent_ids = BY_MIN(o.sent_ids, o.n_ids);
    o.sent_offset = s->offset + o.sent_from;
    s->offset += d->text.n;
    return o;
}

static struct msg text_message(const struct detok *d, const struct sample *s,
                               const struct msg_tokens *m, const struct outcome *o) {
    uint32_t from = o->sent_ids, n = o->n_ids - from;
    struct msg t = {.kind = MSG_text,
                    .text = {.name = m->name,
                             .sample = m->sample,
                             .pos = m->pos + from,
                             .ids = {m->ids.p + from, n},
                             .offset = o->sent_offset,
                             .text = by_str_sub(by_buf_str(&d->text), o->sent_from, d->text.n),
                             .finish = o->finish,
                             .matched_id = o->finish == FINISH_STOP_ID ? m->matched_id : 0,
                             .matched_text = o->matched,
                             .n_prompt = s->n_prompt,
                             .n_cached = s->n_cached,
                             .n_output = m->pos + o->n_ids,
                             .prompt_ids = m->prompt_ids,
                             .prompts = {m->prompts.p, m->prompts.n},
                             .n_retractions = m->n_retractions,
                             .vector = m->vector,
                             .replica = m->replica,
                             .queue_us = m->queue_us}};
    if (m->logprobs.n == m->ids.n) t.text.logprobs = (struct msg_f32s){m->logprobs.p + from, n};
    if (m->tops.n == m->ids.n) {
        t.text.tops.p = m->tops.p + from;
        t.text.tops.n = n;
    }
    if (m->id_logprobs.n == m->ids.n) {
        t.text.id_logprobs.p = m->id_logprobs.p + from;
        t.text.id_logprobs.n = n;
    }
    return t;
}

/* Tells the scheduler of an end that it does not know of. */
static void tell_finish(struct detok *d, const struct msg_tokens *m, const struct outcome *o) {
    if (o->finish == (enum finish)m->finish && o->n_ids == m->ids.n) return;
    struct msg f = {.kind = MSG_finish,
                    .finish = {.name = m->name,
                               .sample = m->sample,
                               .n_output = m->pos + o->n_ids,
                               .reason = o->finish}};
    d->o.to_scheduler(d->o.ctx, &f);
}

/* The sample that m continues, or NULL when m is to be dropped. */
static struct sample *sample_for(struct detok *d, const struct msg_tokens *m) {
    if (m->sample >= LIMIT_N || m->pos > LIMIT_TOKENS) {
        by_warn_limited("dropped tokens of an impossible sample sample=%u pos=%u", m->sample,
                        m->pos);
        return NULL;
    }
    if (m->is_open && m->pos == 0) return open_sample(d, m);
    struct request *r = find(d, &m->name);
    struct sample *s = r && m->sample < r->n_samples ? &r->samples[m->sample] : NULL;
    enum sample_state state = s ? s->state : SAMPLE_UNSEEN;
    if (state == SAMPLE_ENDED) return NULL; /* its end has crossed this frame */
    if (state == SAMPLE_OPEN && m->pos <= s->n_ids) return s;
    if (state == SAMPLE_UNSEEN && r && r->is_asked) return NULL;
    ask_again(d, &m->name);
    return NULL;
}

void detok_on_tokens(struct detok *d, const struct msg_tokens *m, uint64_t now_ns) {
    d->now_ns = now_ns;
    struct sample *s = sample_for(d, m);
    if (!s) return;
    struct request *r = find(d, &m->name);
    struct outcome o = take_ids(d, s, m);
    struct msg t = text_message(d, s, m, &o);
    if (s->wants_pieces) pieces_fill(&d->pieces, &t.text);
    bool is_news =
        t.text.ids.n || t.text.text.n || t.text.finish || t.text.prompts.n || t.text.prompt_ids.n;
    if (is_news && !d->o.to_router(d->o.ctx, m->name.epoch, &t)) r->is_owed = true;
    by_count(BY_M_GENERATED_TOKENS, t.text.ids.n);
    tell_finish(d, m, &o);
    if (o.finish == FINISH_NONE) return;
    end_sample(d, r, s, SAMPLE_ENDED);
    mark_ended(d, r);
}

void detok_on_reading(struct detok *d, const struct msg_reading *m) {
    const struct request *r = find(d, &m->name);
    bool is_done = !r || (!r->is_owed && !r->is_asked);
    struct msg out = {.kind = MSG_reading, .reading = {.name = m->name, .is_done = is_done}};
    d->o.to_scheduler(d->o.ctx, &out);
}

void detok_on_cancel(struct detok *d, const struct msg_name *name) {
    struct request *r = find(d, name);
    if (r) forget(d, r);
}

void detok_on_router_cancel(struct detok *d, const struct msg_cancel *m) {
    struct request *r = find(d, &m->name);
    if (!r) return;
    if (m->code == BY_EAGAIN) {
        ask_again(d, &m->name);
        return;
    }
    end_all(d, r, SAMPLE_ENDED);
    mark_ended(d, r);
}

/* ---- routers come and go ---- */

void detok_router_down(struct detok *d, uint64_t epoch) {
    for (BY_LIST_EACH(node, &d->all)) {
        struct request *r = BY_CONTAINER_OF(node, struct request, in_all);
        if (r->key[0] == epoch) r->is_owed = true;
    }
}

void detok_router_up(struct detok *d, uint64_t epoch) {
    for (BY_LIST_EACH(node, &d->all)) {
        struct request *r = BY_CONTAINER_OF(node, struct request, in_all);
        if (r->key[0] == epoch)
            ask_again(d, &(struct msg_name){.epoch = r->key[0], .rid = r->key[1]});
    }
}

void detok_tick(struct detok *d, uint64_t now_ns) {
    d->now_ns = now_ns;
    for (struct by_list *node; (node = by_list_first(&d->ended)) != NULL;) {
        struct request *r = BY_CONTAINER_OF(node, struct request, in_ended);
        if (now_ns < r->ended_ns + DETOK_ENDED_S * BY_NS_PER_S) return;
        forget(d, r);
    }
}

/* ---- checks ---- */

size_t detok_n_open(const struct detok *d) {
    return d->n_open;
}

size_t detok_n_requests(const struct detok *d) {
    return d->requests.n;
}

bool detok_check(const struct detok *d) {
    size_t n = 0, n_open = 0, n_ended = 0;
    for (BY_LIST_EACH(node, &d->all)) {
        const struct request *r = BY_CONTAINER_OF(node, struct request, in_all);
        uint32_t here = 0;
        for (uint32_t i = 0; i < r->n_samples; i++)
            here += r->samples[i].state == SAMPLE_OPEN;
        if (here != r->n_open) return false;
        if ((here == 0) != by_list_linked(&r->in_ended)) return false;
        n++;
        n_open += here;
        n_ended += here == 0;
    }
    return n == d->requests.n && n_open == d->n_open && n_ended == d->n_ended;
}
