#include "router/params.h"

#include "common/base/rand.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum kind { F32, U32, I32, BOOL, SEED, STOP, STOP_REGEX, IDS, BIAS, NEVER };

/* One row a name: NULL where the dialect has none. */
struct row {
    const char *native, *openai;
    enum kind kind;
    size_t at; /* offset in struct params */
    double min, max;
};

#define AT(field) offsetof(struct params, field)

static const struct row rows[] = {
    {"temperature", "temperature", F32, AT(sampling.temperature), 0, 1e6},
    {"top_p", "top_p", F32, AT(sampling.top_p), 0x1p-126, 1}, /* above 0 */
    {"top_k", "top_k", I32, AT(sampling.top_k), -1, 1 << 30},
    {"min_p", "min_p", F32, AT(sampling.min_p), 0, 1},
    {"frequency_penalty", "frequency_penalty", F32, AT(sampling.frequency_penalty), -2, 2},
    {"presence_penalty", "presence_penalty", F32, AT(sampling.presence_penalty), -2, 2},
    {"repetition_penalty", "repetition_penalty", F32, AT(sampling.repetition_penalty), 0x1p-126, 2},
    {"min_new_tokens", "min_tokens", U32, AT(sampling.min_new_tokens), 0, LIMIT_TOKENS},
    {"n", "n", U32, AT(sampling.n), 1, LIMIT_N},
    {"ignore_eos", "ignore_eos", BOOL, AT(sampling.ignore_eos), 0, 0},
    {"stop_token_ids", "stop_token_ids", IDS, AT(sampling.stop_ids), 0, LIMIT_STOP_IDS},
    {"logit_bias", "logit_bias", BIAS, 0, 0, 0},
    {"seed", "seed", SEED, 0, 0, 0},
    {"sampling_seed", NULL, SEED, 0, 0, 0},
    {"stop", "stop", STOP, 0, 0, 0},
    {"stop_regex", "stop_regex", STOP_REGEX, 0, 0, 0},
    {"skip_special_tokens", "skip_special_tokens", BOOL, AT(textual.skip_special_tokens), 0, 0},
    {"spaces_between_special_tokens", "spaces_between_special_tokens", BOOL,
     AT(textual.spaces_between_special_tokens), 0, 0},
    {"no_stop_trim", "no_stop_trim", BOOL, AT(textual.no_stop_trim), 0, 0},
    {NULL, "include_stop_str_in_output", BOOL, AT(textual.no_stop_trim), 0, 0}, /* vLLM's name */
    /* Known, and not there yet: refused by name, so that nobody takes silence for consent. */
    {"json_schema", "json_schema", NEVER, 0, 0, 0},
    {"regex", "regex", NEVER, 0, 0, 0},
    {"ebnf", "ebnf", NEVER, 0, 0, 0},
    {"structural_tag", "structural_tag", NEVER, 0, 0, 0},
    {"choice", NULL, NEVER, 0, 0, 0},
    {"beam_width", NULL, NEVER, 0, 0, 0},
    {"custom_params", "custom_params", NEVER, 0, 0, 0},
    {"watermark", NULL, NEVER, 0, 0, 0},
    {"stream_interval", NULL, NEVER, 0, 0, 0},
};
/* OpenAI's two names of max_new_tokens. */
static const char *const max_keys[] = {"max_tokens", "max_completion_tokens"};

void params_init(struct params *p, uint32_t max_new_tokens) {
    *p = (struct params){
        .sampling = {.temperature = 1,
                     .top_p = 1,
                     .repetition_penalty = 1,
                     .n = 1,
                     .logprob_start = -1,
                     .max_new_tokens = max_new_tokens},
        .textual = {.skip_special_tokens = true, .spaces_between_special_tokens = true},
        .has_max_new_tokens = max_new_tokens != 0,
    };
    by_rand_bytes(&p->sampling.seed, sizeof p->sampling.seed);
    p->sampling.seed >>= 1; /* drawn seeds fit where a client could have written one */
}

static int refuse_type(struct by_err *err, const char *key, const char *want,
                       const struct by_json *v) {
    return by_fail(err, BY_EINVAL, "%s: expected %s, got %s", key, want, by_json_type_name(v));
}

static int read_number(const struct row *r, const char *key, const struct by_json *v,
                       struct params *p, struct by_err *err) {
    int64_t whole;
    if (by_json_type(v) != BY_JSON_NUMBER) return refuse_type(err, key, "a number", v);
    double x = by_json_f64(v);
    if (r->kind != F32 && !by_json_to_i64(v, &whole))
        return by_fail(err, BY_EINVAL, "%s: expected a whole number, got %.15g", key, x);
    if (!(x >= r->min && x <= r->max)) {
        bool is_above_0 = r->min == 0x1p-126;
        return by_fail(err, BY_EINVAL, "%s: %.15g is not a number %s%.0f %s %.0f", key, x,
                       is_above_0 ? "above " : "from ", is_above_0 ? 0 : r->min,
                       is_above_0 ? "and up to" : "to", r->max);
    }
    char *to = (char *)p + r->at;
    if (r->kind == F32)
        *(float *)(void *)to = (float)x;
    else if (r->kind == U32)
        *(uint32_t *)(void *)to = (uint32_t)x;
    else
        *(int32_t *)(void *)to = (int32_t)x;
    return 0;
}

int params_read_ids(const struct by_json *list, const char *key, uint32_t n_max,
                    struct by_arena *arena, struct msg_u32s *out, struct by_err *err) {
    int64_t id;
    bool is_list = by_json_type(list) == BY_JSON_ARRAY;
    size_t n = is_list ? by_json_len(list) : 1, i = 0;
    if (n > n_max)
        return by_fail(err, BY_ELIMIT, "%s: %zu token ids are over the limit of %u", key, n, n_max);
    uint32_t *ids = by_arena_get_array(arena, n, sizeof *ids);
    for (const struct by_json *it = is_list ? by_json_first(list) : list; it;
         it = is_list ? by_json_next(it) : NULL) {
        if (by_json_type(it) != BY_JSON_NUMBER)
            return refuse_type(err, key, "a list of token ids", it);
        if (!by_json_to_i64(it, &id) || id < 0 || id > UINT32_MAX)
            return by_fail(err, BY_EINVAL, "%s: %.15g is no token id", key, by_json_f64(it));
        ids[i++] = (uint32_t)id;
    }
    *out = (struct msg_u32s){ids, (uint32_t)n};
    return 0;
}

static int read_stop(const char *key, const struct by_json *v, uint32_t n_max, struct msg_strs *out,
                     struct by_arena *arena, struct by_err *err) {
    bool is_list = by_json_type(v) == BY_JSON_ARRAY;
    size_t n = is_list ? by_json_len(v) : 1, i = 0;
    if (n > n_max)
        return by_fail(err, BY_ELIMIT, "%s: %zu of them are over the limit of %u", key, n, n_max);
    struct by_str *stops = by_arena_get_array(arena, n, sizeof *stops);
    for (const struct by_json *it = is_list ? by_json_first(v) : v; it;
         it = is_list ? by_json_next(it) : NULL) {
        if (by_json_type(it) != BY_JSON_STRING)
            return refuse_type(err, key, "a string or a list of strings", it);
        struct by_str s = by_json_str(it);
        if (s.n > LIMIT_STOP_BYTES)
            return by_fail(err, BY_ELIMIT, "%s: one of %zu bytes is over the limit of %d", key, s.n,
                           LIMIT_STOP_BYTES);
        if (s.n) stops[i++] = s; /* an empty one stops nothing */
    }
    *out = (struct msg_strs){stops, (uint32_t)i};
    return 0;
}

static int read_bias(const char *key, const struct by_json *v, struct params *p,
                     struct by_arena *arena, struct by_err *err) {
    if (by_json_type(v) != BY_JSON_OBJECT)
        return refuse_type(err, key, "an object of token ids and numbers", v);
    size_t n = by_json_len(v), i = 0;
    if (n > LIMIT_LOGIT_BIAS)
        return by_fail(err, BY_ELIMIT, "%s: %zu entries are over the limit of %d", key, n,
                       LIMIT_LOGIT_BIAS);
    uint32_t *ids = by_arena_get_array(arena, n, sizeof *ids);
    float *values = by_arena_get_array(arena, n, sizeof *values);
    for (const struct by_json *it = by_json_first(v); it; it = by_json_next(it), i++) {
        uint64_t id = 0;
        struct by_str name = by_json_key(it);
        if (!by_str_to_u64(name, &id) || id > UINT32_MAX)
            return by_fail(err, BY_EINVAL, "%s: '%.*s' is no token id", key,
                           (int)BY_MIN(name.n, (size_t)40), name.p);
        if (by_json_type(it) != BY_JSON_NUMBER || !(fabs(by_json_f64(it)) <= 1e6))
            return refuse_type(err, key, "numbers", it);
        ids[i] = (uint32_t)id;
        values[i] = (float)by_json_f64(it);
    }
    p->sampling.bias_ids = (struct msg_u32s){ids, (uint32_t)n};
    p->sampling.bias_values = (struct msg_f32s){values, (uint32_t)n};
    return 0;
}

static int read_seed(const char *key, const struct by_json *v, struct params *p,
                     struct by_err *err) {
    int64_t seed;
    if (by_json_type(v) != BY_JSON_NUMBER) return refuse_type(err, key, "a whole number", v);
    /* clients draw up to 2^63 - 1, which JSON's doubles round up */
    if (by_json_f64(v) == 0x1p63)
        seed = INT64_MAX;
    else if (!by_json_to_i64(v, &seed))
        return by_fail(err, BY_EINVAL, "%s: %.15g is not a whole number of 64 bits", key,
                       by_json_f64(v));
    p->sampling.seed = (uint64_t)seed;
    p->has_seed = true;
    return 0;
}

static int read_row(const struct row *r, const char *key, const struct by_json *v, struct params *p,
                    struct by_arena *arena, struct by_err *err) {
    if (by_json_type(v) == BY_JSON_NULL) return 0;
    switch (r->kind) {
    case F32:
    case U32:
    case I32:
        return read_number(r, key, v, p, err);
    case BOOL:
        if (by_json_type(v) != BY_JSON_BOOL) return refuse_type(err, key, "true or false", v);
        *(bool *)(void *)((char *)p + r->at) = by_json_bool(v);
        return 0;
    case SEED:
        return read_seed(key, v, p, err);
    case STOP:
        return read_stop(key, v, LIMIT_STOP_STRINGS, &p->textual.stop, arena, err);
    case STOP_REGEX:
        return read_stop(key, v, LIMIT_STOP_REGEXES, &p->textual.stop_regex, arena, err);
    case IDS:
        return params_read_ids(v, key, LIMIT_STOP_IDS, arena, &p->sampling.stop_ids, err);
    case BIAS:
        return read_bias(key, v, p, arena, err);
    default:
        break;
    }
    /* an empty grammar is none */
    if (by_json_type(v) == BY_JSON_STRING && !by_json_str(v).n) return 0;
    return by_fail(err, BY_EUNSUPPORTED, "%s: it is not supported yet; leave it out", key);
}

static int read_max(const struct by_json *v, const char *key, struct params *p,
                    struct by_err *err) {
    int64_t n;
    if (by_json_type(v) == BY_JSON_NULL) {
        p->has_max_new_tokens = false;
        p->sampling.max_new_tokens = 0;
        return 0;
    }
    if (by_json_type(v) != BY_JSON_NUMBER) return refuse_type(err, key, "a whole number", v);
    if (!by_json_to_i64(v, &n) || n < 0 || n > LIMIT_TOKENS)
        return by_fail(err, BY_EINVAL, "%s: %.15g is not a whole number from 0 to %d", key,
                       by_json_f64(v), LIMIT_TOKENS);
    p->has_max_new_tokens = true;
    p->sampling.max_new_tokens = (uint32_t)n;
    return 0;
}

/* What only makes sense together. */
static int finish(struct params *p, const char *max_key, struct by_err *err) {
    struct msg_sampling *s = &p->sampling;
    s->top_k = BY_MAX(s->top_k, 0); /* -1 means all too */
    if (p->has_max_new_tokens && s->min_new_tokens > s->max_new_tokens)
        return by_fail(err, BY_EINVAL, "min_new_tokens: %u is more than %s, %u", s->min_new_tokens,
                       max_key, s->max_new_tokens);
    return 0;
}

static const struct row *native_row(struct by_str key) {
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (rows[i].native && by_str_eqz(key, rows[i].native)) return &rows[i];
    }
    return NULL;
}

bool params_is_native(struct by_str key) {
    return by_str_eqz(key, "max_new_tokens") || native_row(key);
}

/* max_new_token: max_new_tokens; NULL: none is near. */
static const char *nearest(struct by_str key) {
    char text[64];
    const char *best = NULL;
    if (key.n >= sizeof text) return NULL;
    snprintf(text, sizeof text, BY_STR_FMT, BY_STR_ARG(key));
    unsigned least = (unsigned)BY_MIN(key.n / 4, (size_t)3) + 1;
    for (size_t i = 0; i <= BY_COUNTOF(rows); i++) {
        const char *name = i < BY_COUNTOF(rows) ? rows[i].native : "max_new_tokens";
        if (!name || (i < BY_COUNTOF(rows) && rows[i].kind == NEVER)) continue;
        unsigned d = by_str_distance(text, name);
        if (d >= least) continue;
        least = d;
        best = name;
    }
    return best;
}

/* Who comes from OpenAI's API knows some of them by other names. */
static int refuse_unknown(struct by_str key, struct by_err *err) {
    const char *meant = NULL;
    if (by_str_eqz(key, "max_tokens") || by_str_eqz(key, "max_completion_tokens"))
        meant = "max_new_tokens";
    for (size_t i = 0; i < BY_COUNTOF(rows) && !meant; i++) {
        if (rows[i].openai && by_str_eqz(key, rows[i].openai)) meant = rows[i].native;
    }
    int n = (int)BY_MIN(key.n, (size_t)80);
    const char *near = meant ? NULL : nearest(key);
    if (near)
        return by_fail(err, BY_EINVAL, "sampling_params: unknown field '%.*s' (did you mean %s?)",
                       n, key.p, near);
    if (meant)
        return by_fail(err, BY_EINVAL, "sampling_params: unknown field '%.*s'; here it is %s", n,
                       key.p, meant);
    return by_fail(err, BY_EINVAL,
                   "sampling_params: unknown field '%.*s'; GET /openapi.json has the known ones, "
                   "as SamplingParams",
                   n, key.p);
}

int params_read_native(struct params *p, const struct by_json *obj, struct by_arena *arena,
                       struct by_err *err) {
    int rc = 0;
    if (by_json_type(obj) != BY_JSON_OBJECT)
        return refuse_type(err, "sampling_params", "an object", obj);
    for (const struct by_json *it = by_json_first(obj); it && !rc; it = by_json_next(it)) {
        struct by_str key = by_json_key(it);
        const struct row *found = native_row(key);
        if (by_str_eqz(key, "max_new_tokens"))
            rc = read_max(it, "max_new_tokens", p, err);
        else if (found)
            rc = read_row(found, found->native, it, p, arena, err);
        else
            rc = refuse_unknown(key, err);
    }
    return rc ? rc : finish(p, "max_new_tokens", err);
}

static int read_openai_logprobs(struct params *p, const struct by_json *body, bool is_chat,
                                struct by_err *err) {
    const struct by_json *v = by_json_get(body, "logprobs");
    int64_t top = 0;
    bool is_asked = v && by_json_type(v) != BY_JSON_NULL;
    if (is_asked && is_chat && by_json_type(v) != BY_JSON_BOOL)
        return refuse_type(err, "logprobs", "true or false", v);
    if (!is_chat) { /* completions: logprobs is the number of alternatives */
        int rc = by_json_get_i64(body, "", "logprobs", 0, LIMIT_TOP_LOGPROBS, &top, err);
        p->sampling.logprobs = is_asked;
        p->sampling.top_logprobs = (uint32_t)top;
        return rc;
    }
    p->sampling.logprobs = is_asked && by_json_bool(v);
    int rc = by_json_get_i64(body, "", "top_logprobs", 0, LIMIT_TOP_LOGPROBS, &top, err);
    if (!rc && top && !p->sampling.logprobs)
        return by_fail(err, BY_EINVAL, "top_logprobs: it needs logprobs: true");
    p->sampling.top_logprobs = (uint32_t)top;
    return rc;
}

int params_read_openai(struct params *p, const struct by_json *body, bool is_chat,
                       struct by_arena *arena, struct by_err *err) {
    int rc = 0;
    for (size_t i = 0; i < BY_COUNTOF(rows) && !rc; i++) {
        const struct by_json *v = rows[i].openai ? by_json_get(body, rows[i].openai) : NULL;
        if (v) rc = read_row(&rows[i], rows[i].openai, v, p, arena, err);
    }
    for (size_t i = 0; i < BY_COUNTOF(max_keys) && !rc; i++) {
        const struct by_json *v = by_json_get(body, max_keys[i]);
        if (v && by_json_type(v) != BY_JSON_NULL) rc = read_max(v, max_keys[i], p, err);
    }
    if (!rc) rc = read_openai_logprobs(p, body, is_chat, err);
    return rc ? rc : finish(p, "max_tokens", err);
}

/* ---- as JSON Schema ---- */

static void write_range(const struct row *r, struct by_buf *out) {
    by_buf_addf(out, "{\"type\":[\"%s\",\"null\"],", r->kind == F32 ? "number" : "integer");
    if (r->min == 0x1p-126)
        by_buf_addz(out, "\"exclusiveMinimum\":0");
    else
        by_buf_addf(out, "\"minimum\":%.0f", r->min);
    by_buf_addf(out, ",\"maximum\":%.0f", r->max);
    by_buf_addc(out, '}');
}

static void write_row(const struct row *r, struct by_buf *out) {
    switch (r->kind) {
    case F32:
    case U32:
    case I32:
        write_range(r, out);
        return;
    case BOOL:
        by_buf_addz(out, "{\"type\":[\"boolean\",\"null\"]}");
        return;
    case SEED:
        by_buf_addz(out, "{\"type\":[\"integer\",\"null\"]}");
        return;
    case STOP:
    case STOP_REGEX:
        by_buf_addf(out,
                    "{\"anyOf\":[{\"type\":[\"string\",\"null\"],\"maxLength\":%d},{\"type\":"
                    "\"array\",\"maxItems\":%d,\"items\":{\"type\":\"string\",\"maxLength\":%d}}]}",
                    LIMIT_STOP_BYTES, r->kind == STOP ? LIMIT_STOP_STRINGS : LIMIT_STOP_REGEXES,
                    LIMIT_STOP_BYTES);
        return;
    case IDS:
        by_buf_addf(
            out,
            "{\"anyOf\":[{\"type\":[\"integer\",\"null\"],\"minimum\":0},{\"type\":\"array\","
            "\"maxItems\":%d,\"items\":{\"type\":\"integer\",\"minimum\":0}}]}",
            LIMIT_STOP_IDS);
        return;
    case BIAS:
        by_buf_addf(
            out,
            "{\"type\":[\"object\",\"null\"],\"maxProperties\":%d,\"additionalProperties\":{"
            "\"type\":\"number\",\"minimum\":-1000000,\"maximum\":1000000},"
            "\"propertyNames\":{\"pattern\":\"^[0-9]+$\"}}",
            LIMIT_LOGIT_BIAS);
        return;
    case NEVER:
        by_buf_addz(out, "{\"enum\":[null,\"\"],\"description\":\"not supported yet\"}");
        return;
    }
}

const char *params_openai_name(size_t i) {
    if (i < BY_COUNTOF(rows)) return rows[i].openai ? rows[i].openai : "";
    i -= BY_COUNTOF(rows);
    return i < BY_COUNTOF(max_keys) ? max_keys[i] : NULL;
}

void params_write_schema(bool is_openai, struct by_buf *out) {
    const size_t n_max = is_openai ? BY_COUNTOF(max_keys) : 1;
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        const char *name = is_openai ? rows[i].openai : rows[i].native;
        if (!name) continue;
        by_buf_addf(out, "\"%s\":", name);
        write_row(&rows[i], out);
        by_buf_addc(out, ',');
    }
    for (size_t i = 0; i < n_max; i++)
        by_buf_addf(out, "%s\"%s\":{\"type\":[\"integer\",\"null\"],\"minimum\":0,\"maximum\":%d}",
                    i ? "," : "", is_openai ? max_keys[i] : "max_new_tokens", LIMIT_TOKENS);
}
