#include "router/api.h"
#include "router/api_vector.h"

#include "common/base/clock.h"

#include <math.h>

/* /v1/embeddings, SGLang's /encode and /classify, Ollama's /api/embed and /api/embeddings. */

struct embed {
    uint32_t n_dims; /* numbers to give of each vector; 0: all */
    bool is_base64;
};

/* ---- writing ---- */

/* The first n of a unit vector, made one again. */
static double scale_of(const float *v, uint32_t n, uint32_t n_all) {
    double sq = 0;
    if (n == n_all) return 1;
    for (uint32_t i = 0; i < n; i++)
        sq += (double)v[i] * (double)v[i];
    return sq > 0 ? 1 / sqrt(sq) : 1;
}

static void write_base64(struct by_buf *out, const uint8_t *p, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = by_buf_reserve(out, BY_DIV_UP(n, 3) * 4);
    if (!to) return;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t x = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *to++ = digits[x >> 18];
        *to++ = digits[x >> 12 & 63];
        *to++ = i + 1 < n ? digits[x >> 6 & 63] : '=';
        *to++ = i + 2 < n ? digits[x & 63] : '=';
    }
    out->n += BY_DIV_UP(n, 3) * 4;
}

/* The vector as little-endian f32 in base64, or as numbers that read back as the same f32. */
static void write_vector(const struct request *q, const struct journal_entry *e,
                         struct by_buf *out) {
    const struct embed *o = q->of_dialect;
    uint32_t n = o->n_dims ? BY_MIN(o->n_dims, e->n_vector) : e->n_vector;
    double scale = scale_of(e->vector, n, e->n_vector);
    by_buf_addc(out, o->is_base64 ? '"' : '[');
    for (uint32_t i = 0; i < n && !o->is_base64; i++) {
        if (i) by_buf_addc(out, ',');
        by_buf_add_json_f32(out, (float)((double)e->vector[i] * scale));
    }
    for (uint32_t i = 0; i < n && o->is_base64;) { /* 3 floats are 12 bytes: no padding between */
        uint8_t bytes[12];
        uint32_t k = 0;
        for (; k < 3 && i < n; k++, i++) {
            float x = (float)((double)e->vector[i] * scale);
            memcpy(bytes + k * sizeof x, &x, sizeof x);
        }
        write_base64(out, bytes, k * sizeof(float));
    }
    by_buf_addc(out, o->is_base64 ? '"' : ']');
}

static void openai_whole(struct request *q, struct by_buf *out) {
    by_buf_addz(out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < q->n_entries; i++) {
        by_buf_addf(out, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i ? "," : "",
                    i);
        write_vector(q, q->entries[i], out);
        by_buf_addc(out, '}');
    }
    by_buf_addc(out, ']');
    api_add_str(out, "model", q->model);
    by_buf_addc(out, ',');
    api_vector_write_usage(q, out);
    by_buf_addc(out, '}');
}

static void native_whole(struct request *q, struct by_buf *out) {
    if (q->is_list) by_buf_addc(out, '[');
    for (uint32_t i = 0; i < q->n_entries; i++) {
        by_buf_addz(out, i ? ",{\"embedding\":" : "{\"embedding\":");
        write_vector(q, q->entries[i], out);
        api_vector_write_meta(q, q->entries[i], out);
        by_buf_addc(out, '}');
    }
    if (q->is_list) by_buf_addc(out, ']');
}

static void ollama_whole(struct request *q, struct by_buf *out) {
    by_buf_addz(out, "{\"model\":");
    by_buf_add_json_str(out, q->model);
    by_buf_addz(out, ",\"embeddings\":[");
    for (uint32_t i = 0; i < q->n_entries; i++) {
        if (i) by_buf_addc(out, ',');
        write_vector(q, q->entries[i], out);
    }
    by_buf_addf(out, "],\"total_duration\":%llu,\"load_duration\":0,\"prompt_eval_count\":%llu}",
                (unsigned long long)(by_now_ns() - q->started_ns),
                (unsigned long long)api_vector_n_prompt(q));
}

static void ollama_one(struct request *q, struct by_buf *out) {
    by_buf_addz(out, "{\"embedding\":");
    write_vector(q, q->entries[0], out);
    by_buf_addc(out, '}');
}

static const char *const names[][2] = {{"input_ids", "input"}, {NULL, NULL}};
static const struct dialect openai = {.whole = openai_whole, .names = names};
static const struct dialect native = {.whole = native_whole};
static const struct dialect ollama = {.whole = ollama_whole, .error = api_ollama_write_error};
static const struct dialect ollama_first = {.whole = ollama_one, .error = api_ollama_write_error};

/* ---- reading ---- */

static int read_dimensions(const struct request *q, struct embed *o, struct by_err *err) {
    const struct msg_model *model = &uplink_state(q->router->uplink)->model;
    int64_t n = 0;
    int rc = by_json_get_i64(q->body, "", "dimensions", 1, INT64_C(1) << 53, &n, err);
    if (!rc && model->n_embed && n > model->n_embed)
        rc = by_fail(err, BY_EINVAL,
                     "dimensions: %lld are more than the %u of the model's embeddings",
                     (long long)n, model->n_embed);
    o->n_dims = (uint32_t)BY_MIN(n, (int64_t)UINT32_MAX);
    return rc;
}

static int read_encoding(const struct request *q, struct embed *o, struct by_err *err) {
    struct by_str word = BY_STR("float");
    int rc = by_json_get_str(q->body, "", "encoding_format", &word, err);
    o->is_base64 = by_str_eqz(word, "base64");
    if (!rc && !o->is_base64 && !by_str_eqz(word, "float"))
        rc = by_fail(err, BY_EINVAL, "encoding_format: '%.*s' is neither float nor base64",
                     (int)BY_MIN(word.n, (size_t)40), word.p);
    return rc;
}

/* The inputs under `key`; may_cut: whether "truncate" is true when nothing is said of it. */
static int read_inputs(struct request *q, const char *key, unsigned allowed, bool may_cut,
                       enum vector want, struct by_err *err) {
    struct msg_generate m = api_vector_prompt(want);
    const struct by_json *input = by_json_get(q->body, key);
    m.truncate = may_cut;
    int rc = api_vector_read_common(q, &m, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "truncate", &m.truncate, err);
    if (!rc && (!input || by_json_type(input) == BY_JSON_NULL))
        rc = by_fail(err, BY_EINVAL, "%s: it is needed", key);
    return rc ? rc : api_add_prompts(q, input, key, allowed, &m, err);
}

static struct embed *embed_new(struct request *q) {
    struct embed *o = by_arena_get(&q->arena, sizeof *o);
    *o = (struct embed){0};
    q->of_dialect = o;
    return o;
}

static int read_openai(struct request *q, struct by_err *err) {
    struct embed *o = embed_new(q);
    int rc = read_encoding(q, o, err);
    if (!rc) rc = read_dimensions(q, o, err);
    const struct by_json *input = by_json_get(q->body, "input"), *first = by_json_first(input);
    bool is_list =
        first && by_json_type(input) == BY_JSON_ARRAY && by_json_type(first) != BY_JSON_NUMBER;
    if (!rc && is_list && by_json_len(input) > VECTOR_INPUTS_MAX)
        rc = by_fail(err, BY_ELIMIT, "input: %zu inputs are over the limit of %d",
                     by_json_len(input), VECTOR_INPUTS_MAX);
    return rc ? rc : read_inputs(q, "input", API_TEXT | API_IDS, false, VECTOR_EMBEDDING, err);
}

void api_embeddings(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &openai), req, read_openai);
}

static int read_native(struct request *q, enum vector want, struct by_err *err) {
    struct embed *o = embed_new(q);
    const struct by_json *text = by_json_get(q->body, "text"),
                         *ids = by_json_get(q->body, "input_ids");
    bool has_text = text && by_json_type(text) != BY_JSON_NULL,
         has_ids = ids && by_json_type(ids) != BY_JSON_NULL;
    int rc = want == VECTOR_EMBEDDING ? read_dimensions(q, o, err) : 0;
    if (!rc && has_text == has_ids)
        rc = by_fail(err, BY_EINVAL, "text: exactly one of text and input_ids is needed");
    return rc ? rc
              : read_inputs(q, has_text ? "text" : "input_ids", has_text ? API_TEXT : API_IDS,
                            false, want, err);
}

static int read_encode(struct request *q, struct by_err *err) {
    return read_native(q, VECTOR_EMBEDDING, err);
}

static int read_classify(struct request *q, struct by_err *err) {
    return read_native(q, VECTOR_SCORES, err);
}

void api_encode(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &native), req, read_encode);
}

void api_classify(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &native), req, read_classify);
}

/* Ollama cuts what is too long, unless it is told not to. */
static int read_ollama(struct request *q, struct by_err *err) {
    int rc = read_dimensions(q, embed_new(q), err);
    return rc ? rc : read_inputs(q, "input", API_TEXT, true, VECTOR_EMBEDDING, err);
}

void api_ollama_embed(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &ollama), req, read_ollama);
}

static int read_ollama_first(struct request *q, struct by_err *err) {
    embed_new(q);
    int rc = read_inputs(q, "prompt", API_TEXT, true, VECTOR_EMBEDDING, err);
    if (!rc && q->is_list) rc = by_fail(err, BY_EINVAL, "prompt: one text; /api/embed takes many");
    return rc;
}

void api_ollama_embeddings(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &ollama_first), req, read_ollama_first);
}
