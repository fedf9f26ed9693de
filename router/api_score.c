#include "router/api.h"
#include "router/api_vector.h"
#include "router/params.h"

#include <math.h>
#include <stdlib.h>

/* /v1/rerank: how well documents answer a query, by a cross-encoder, as SGLang tells it; /rerank and /v2/rerank: as Cohere
 * does, and with it vLLM. /v1/score: how likely the model holds some tokens to be next, after a query and an item. */

/* ---- /v1/rerank, /rerank, /v2/rerank ---- */

struct rerank {
    uint32_t top_n; /* 0: all */
    bool hides_documents;
};

struct rank {
    float score;
    uint32_t index;
};

/* The best first; of equals the one that came first. */
static int by_score(const void *a, const void *b) {
    const struct rank *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

typedef void write_rank(const struct request *q, const struct rank *r, struct by_buf *out);

static void write_ranks(struct request *q, write_rank *write, struct by_buf *out) {
    const struct rerank *o = q->of_dialect;
    struct rank *ranks = by_arena_get_array(&q->arena, q->n_entries, sizeof *ranks);
    for (uint32_t i = 0; i < q->n_entries; i++)
        ranks[i] = (struct rank){q->entries[i]->vector[0], i};
    qsort(ranks, q->n_entries, sizeof *ranks, by_score);
    uint32_t n = o->top_n ? BY_MIN(o->top_n, q->n_entries) : q->n_entries;
    by_buf_addc(out, '[');
    for (uint32_t i = 0; i < n; i++) {
        if (i) by_buf_addc(out, ',');
        write(q, &ranks[i], out);
    }
    by_buf_addc(out, ']');
}

static void write_sglangs(const struct request *q, const struct rank *r, struct by_buf *out) {
    const struct rerank *o = q->of_dialect;
    by_buf_addz(out, "{\"score\":");
    by_buf_add_json_f32(out, r->score);
    if (!o->hides_documents) api_add_str(out, "document", q->entries[r->index]->request.pair);
    by_buf_addf(out, ",\"index\":%u", r->index);
    api_vector_write_meta(q, q->entries[r->index], out);
    by_buf_addc(out, '}');
}

static void rerank_whole(struct request *q, struct by_buf *out) {
    write_ranks(q, write_sglangs, out);
}

static const struct dialect rerank = {.whole = rerank_whole};

static void write_coheres(const struct request *q, const struct rank *r, struct by_buf *out) {
    const struct rerank *o = q->of_dialect;
    by_buf_addf(out, "{\"index\":%u,\"relevance_score\":", r->index);
    by_buf_add_json_f32(out, r->score);
    if (!o->hides_documents) {
        by_buf_addz(out, ",\"document\":{\"text\":");
        by_buf_add_json_str(out, q->entries[r->index]->request.pair);
        by_buf_addc(out, '}');
    }
    by_buf_addc(out, '}');
}

static void cohere_whole(struct request *q, struct by_buf *out) {
    by_buf_addz(out, "{\"id\":");
    by_buf_add_json_str(out, by_str_of(q->id));
    api_add_str(out, "model", q->model);
    by_buf_addz(out, ",\"results\":");
    write_ranks(q, write_coheres, out);
    by_buf_addc(out, ',');
    api_vector_write_usage(q, out);
    by_buf_addc(out, '}');
}

static const struct dialect cohere = {.whole = cohere_whole};

static int check_labels(const struct request *q, struct by_err *err) {
    uint32_t n = uplink_state(q->router->uplink)->model.n_labels;
    return n > 1 ? by_fail(err, BY_EUNSUPPORTED,
                           "the model has %u labels; documents are ranked by models with one "
                           "(POST /classify gives all of a text)",
                           n)
                 : 0;
}

static int add_documents(struct request *q, const struct by_json *list, struct msg_generate *m,
                         struct by_err *err) {
    size_t n = by_json_len(list);
    uint32_t i = 0;
    if (!n) return by_fail(err, BY_EINVAL, "documents: at least one is needed");
    if (n > VECTOR_INPUTS_MAX)
        return by_fail(err, BY_ELIMIT, "documents: %zu are over the limit of %d", n,
                       VECTOR_INPUTS_MAX);
    for (const struct by_json *it = by_json_first(list); it; it = by_json_next(it), i++) {
        const struct by_json *text =
            by_json_type(it) == BY_JSON_OBJECT ? by_json_get(it, "text") : it;
        if (!text || by_json_type(text) != BY_JSON_STRING)
            return by_fail(err, BY_EINVAL, "documents[%u]: expected a text, got %s", i,
                           text ? by_json_type_name(text) : "an object without text");
        m->pair = by_json_str(text);
        request_add_prompt(q, m);
    }
    return 0;
}

static int read_rerank(struct request *q, struct by_err *err) {
    struct rerank *o = by_arena_get(&q->arena, sizeof *o);
    struct msg_generate m = api_vector_prompt(VECTOR_SCORES);
    const struct by_json *list = NULL;
    int64_t top_n = 0;
    bool shows = true;
    *o = (struct rerank){0};
    q->of_dialect = o;
    q->is_list = true;
    int rc = api_vector_read_common(q, &m, err);
    if (!rc) rc = by_json_get_str(q->body, "", "query", &m.text, err);
    if (!rc && !m.text.n) rc = by_fail(err, BY_EINVAL, "query: a text is needed");
    if (!rc) rc = by_json_get_array(q->body, "", "documents", &list, err);
    if (!rc && !list) rc = by_fail(err, BY_EINVAL, "documents: a list of texts is needed");
    if (!rc) rc = by_json_get_i64(q->body, "", "top_n", 1, INT64_C(1) << 53, &top_n, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "return_documents", &shows, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "truncate", &m.truncate, err);
    if (!rc) rc = check_labels(q, err);
    o->top_n = (uint32_t)BY_MIN(top_n, (int64_t)UINT32_MAX);
    o->hides_documents = !shows;
    m.is_pair = true;
    return rc ? rc : add_documents(q, list, &m, err);
}

void api_rerank(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &rerank), req, read_rerank);
}

void api_cohere_rerank(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &cohere), req, read_rerank);
}

/* ---- /v1/score ---- */

struct score {
    bool is_softmax; /* over the labels; else probabilities among all tokens */
};

/* e^x of the labels' log probabilities, or their shares among each other. */
static void write_scores(const struct journal_entry *e, bool is_softmax, struct by_buf *out) {
    const float *l = e->samples[0].id_logprobs.logprobs;
    uint32_t n = e->samples[0].id_logprobs.n_flat;
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = BY_MAX(max, (double)l[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)l[i] - max);
    by_buf_addc(out, '[');
    for (uint32_t i = 0; i < n; i++) {
        if (i) by_buf_addc(out, ',');
        by_buf_add_json_f64(out, is_softmax ? exp((double)l[i] - max) / sum : exp((double)l[i]));
    }
    by_buf_addc(out, ']');
}

static void write_labels(const struct journal_entry *e, struct by_buf *out) {
    for (uint32_t i = 0; i < e->n_vector; i++) {
        by_buf_addc(out, i ? ',' : '[');
        by_buf_add_json_f32(out, e->vector[i]);
    }
    by_buf_addc(out, ']');
}

static void score_whole(struct request *q, struct by_buf *out) {
    const struct score *o = q->of_dialect;
    by_buf_addz(out, "{\"object\":\"scoring\",\"scores\":[");
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (i) by_buf_addc(out, ',');
        if (q->entries[i]->n_vector)
            write_labels(q->entries[i], out);
        else
            write_scores(q->entries[i], o->is_softmax, out);
    }
    by_buf_addc(out, ']');
    api_add_str(out, "model", q->model);
    by_buf_addc(out, ',');
    api_vector_write_usage(q, out);
    by_buf_addc(out, '}');
}

static const struct dialect score = {.whole = score_whole};

/* label_token_ids become the ids whose log probabilities come with the next token. A classifier has labels of its own. */
static int read_labels(struct request *q, struct msg_sampling *s, struct by_err *err) {
    uint32_t n_vocab = uplink_state(q->router->uplink)->model.n_vocab;
    const struct by_json *ids = by_json_get(q->body, "label_token_ids");
    bool is_given = ids && by_json_type(ids) != BY_JSON_NULL;
    double temperature = 1;
    int rc = by_json_get_f64(q->body, "", "temperature", 0x1p-20, 1e6, &temperature, err);
    if (!rc && s->vector)
        return is_given ? by_fail(err, BY_EINVAL,
                                  "label_token_ids: the model is a classifier, with labels of its "
                                  "own; leave them out")
                        : 0;
    if (!rc && (!is_given || by_json_type(ids) != BY_JSON_ARRAY || !by_json_first(ids)))
        rc = by_fail(err, BY_EINVAL, "label_token_ids: a list of token ids is needed");
    if (!rc)
        rc = params_read_ids(ids, "label_token_ids", LIMIT_LOGIT_BIAS, &q->arena, &s->logprob_ids,
                             err);
    for (uint32_t i = 0; !rc && n_vocab && i < s->logprob_ids.n; i++) {
        if (s->logprob_ids.p[i] >= n_vocab)
            rc = by_fail(err, BY_EINVAL,
                         "label_token_ids: Token ID %u is out of vocabulary (it has %u)",
                         s->logprob_ids.p[i], n_vocab);
    }
    s->temperature = (float)temperature;
    s->max_new_tokens = 1;
    s->ignore_eos = true;
    return rc;
}

/* Query and item, one behind the other. */
static int add_item(struct request *q, const struct by_json *query, const struct by_json *item,
                    unsigned i, bool item_first, struct msg_generate *m, struct by_err *err) {
    const struct by_json *both[] = {item_first ? item : query, item_first ? query : item};
    char key[32];
    snprintf(key, sizeof key, "items[%u]", i);
    if (by_json_type(item) != by_json_type(query))
        return by_fail(err, BY_EINVAL, "%s: expected %s as the query is, got %s", key,
                       by_json_type_name(query), by_json_type_name(item));
    if (by_json_type(query) == BY_JSON_STRING && m->sampling.vector) {
        m->is_pair = true;
        m->text = by_json_str(both[0]);
        m->pair = by_json_str(both[1]);
    } else if (by_json_type(query) == BY_JSON_STRING) {
        struct by_str a = by_json_str(both[0]), b = by_json_str(both[1]);
        char *text = by_arena_get(&q->arena, a.n + b.n + 1);
        if (a.n) memcpy(text, a.p, a.n);
        if (b.n) memcpy(text + a.n, b.p, b.n);
        m->text = (struct by_str){text, a.n + b.n};
    } else if (m->sampling.vector) {
        return by_fail(err, BY_EINVAL, "query: this model judges pairs of texts, not token ids");
    } else {
        struct msg_u32s a, b;
        int rc =
            params_read_ids(both[0], item_first ? key : "query", LIMIT_TOKENS, &q->arena, &a, err);
        if (!rc)
            rc = params_read_ids(both[1], item_first ? "query" : key, LIMIT_TOKENS - a.n, &q->arena,
                                 &b, err);
        if (rc) return rc;
        uint32_t *ids = by_arena_get_array(&q->arena, (size_t)a.n + b.n, sizeof *ids);
        if (a.n) memcpy(ids, a.p, a.n * sizeof *ids);
        if (b.n) memcpy(ids + a.n, b.p, b.n * sizeof *ids);
        m->ids = (struct msg_u32s){ids, a.n + b.n};
    }
    if (!m->text.n && !m->ids.n && !m->is_pair)
        return by_fail(err, BY_EINVAL, "%s: with the query it is empty", key);
    request_add_prompt(q, m);
    return 0;
}

static int add_items(struct request *q, bool item_first, struct msg_generate *m,
                     struct by_err *err) {
    const struct by_json *query = by_json_get(q->body, "query"),
                         *items = by_json_get(q->body, "items");
    enum by_json_type type = query ? by_json_type(query) : BY_JSON_NULL;
    if (type != BY_JSON_STRING && type != BY_JSON_ARRAY)
        return by_fail(err, BY_EINVAL, "query: a text or token ids are needed");
    if (items && by_json_type(items) == BY_JSON_STRING)
        return add_item(q, query, items, 0, item_first, m, err);
    if (!items || by_json_type(items) != BY_JSON_ARRAY || !by_json_first(items))
        return by_fail(err, BY_EINVAL, "items: a list of texts or of token ids is needed");
    if (by_json_len(items) > VECTOR_INPUTS_MAX)
        return by_fail(err, BY_ELIMIT, "items: %zu are over the limit of %d", by_json_len(items),
                       VECTOR_INPUTS_MAX);
    unsigned i = 0;
    int rc = 0;
    for (const struct by_json *it = by_json_first(items); it && !rc; it = by_json_next(it))
        rc = add_item(q, query, it, i++, item_first, m, err);
    return rc;
}

static int read_score(struct request *q, struct by_err *err) {
    bool is_classifier = uplink_state(q->router->uplink)->model.n_labels > 0, item_first = false;
    struct score *o = by_arena_get(&q->arena, sizeof *o);
    struct msg_generate m = api_vector_prompt(is_classifier ? VECTOR_SCORES : VECTOR_NONE);
    *o = (struct score){0};
    q->of_dialect = o;
    int rc = api_vector_read_common(q, &m, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "apply_softmax", &o->is_softmax, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "item_first", &item_first, err);
    if (!rc) rc = read_labels(q, &m.sampling, err);
    return rc ? rc : add_items(q, item_first, &m, err);
}

void api_score(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &score), req, read_score);
}
