/* The forms that write each argument between marks, as XML does, but nothing in it is escaped: a value goes up to its end mark.
 *
 *     <tool_call> │ <function=get> <parameter=city>Paris</parameter> </function> │ </tool_call>        Qwen 3 Coder, Seed
 *     <tool_call> │ get <arg_key>city</arg_key><arg_value>Paris</arg_value>      │ </tool_call>        GLM 4.5 */
#include "common/base/json.h"
#include "proto/limits.h"
#include "router/parse_tools_form.h"

/* A block's state: what comes next at its `at`; its depth counts the calls behind it. */
enum { CALL, NAME, ARGUMENT, KEY, VALUE_MARK, VALUE, DONE };

struct marks {
    struct by_str call, name_ends,
        call_ends; /* call: may be empty, then there is one, and the block's end is its own */
    struct by_str key, key_ends, value, value_ends; /* value: may be empty */
    struct by_str ends;                             /* of the block */
    bool has_lines;                                 /* a value has lines of its own */
};

/* Where the calls of a block go when it is whole; until then it is only looked at. */
struct sink {
    struct parse_tools_result *out;
    struct by_buf args;
    struct by_str name;
    unsigned types;
    bool is_full;
};

/* name="x" string="true" has the name between quotes; others have it bare. */
static struct by_str unquoted(struct by_str raw) {
    struct by_str rest = by_str_trim(raw), name;
    if (!by_str_starts(rest, BY_STR("\""))) return rest;
    rest = by_str_sub(rest, 1, SIZE_MAX);
    (void)by_str_split(&rest, '"', &name);
    return name;
}

static void begin_call(struct sink *k, struct by_str raw) {
    k->name = unquoted(raw);
    by_buf_clear(&k->args);
    by_buf_addc(&k->args, '{');
}

static void add_key(struct sink *k, struct by_str raw) {
    struct by_str key = unquoted(raw);
    if (k->args.n > 1) by_buf_addz(&k->args, ", ");
    by_buf_add_json_str(&k->args, key);
    by_buf_addz(&k->args, ": ");
    k->types = parse_tools_types_of(k->out->types, k->name, key);
    if (by_str_find(raw, BY_STR("string=\"true\""), 0) != SIZE_MAX) k->types = 1U << BY_JSON_STRING;
}

static void add_value(struct sink *k, struct by_str value, bool has_lines) {
    if (has_lines && value.n && *value.p == '\n') value = by_str_sub(value, 1, SIZE_MAX);
    if (has_lines && value.n && value.p[value.n - 1] == '\n') value.n--;
    parse_tools_types_add(&k->args, value, k->types);
}

static void end_call(struct sink *k) {
    by_buf_addc(&k->args, '}');
    k->is_full |= k->args.is_full || !parse_tools_push(k->out, k->name, by_buf_str(&k->args));
}

/* Up to `mark`, or what is too long for a name. False: it is none, or not yet whole, which *is_open says. */
static bool read_name(struct by_str s, struct parse_tools_block *b, struct by_str mark,
                      bool *is_open, struct by_str *raw) {
    struct by_str near = by_str_sub(s, 0, b->at + PARSE_TOOLS_NAME_MAX);
    size_t end = by_str_find(near, mark, b->at);
    *is_open = end == SIZE_MAX && near.n == s.n;
    if (end == SIZE_MAX) return false;
    *raw = by_str_sub(s, b->at, end - b->at);
    b->at = end + mark.n;
    return unquoted(*raw).n > 0;
}

/* A mark, blanks before it. False: it is not there, or not yet whole, which *is_open says. */
static bool read_mark(struct by_str s, struct parse_tools_block *b, struct by_str mark,
                      bool *is_open) {
    size_t at = parse_tools_skip_blanks(s, b->at);
    struct by_str here = by_str_sub(s, at, mark.n);
    if (mark.n && by_str_eq(here, mark)) {
        b->at = at + mark.n;
        return true;
    }
    *is_open |= here.n < mark.n && by_str_starts(mark, here);
    return false;
}

/* The call's or a key's name: where the block goes on; or as before, when there is none. */
static uint8_t read_head(const struct marks *m, struct by_str s, struct parse_tools_block *b,
                         bool *is_open, struct sink *k) {
    bool is_call = b->state == NAME, is_alone = !m->call.n;
    struct by_str raw;
    if (!read_name(s, b, is_call ? m->name_ends : m->key_ends, is_open, &raw)) return b->state;
    if (is_call && !parse_tools_is_name(unquoted(raw))) return b->state;
    if (is_call && is_alone) b->at -= m->name_ends.n; /* which begins what follows */
    if (k) (is_call ? begin_call : add_key)(k, raw);
    return is_call ? ARGUMENT : m->value.n ? VALUE_MARK : VALUE;
}

/* Reads on, up to the block's end. TEXT: at `at` stands what does not belong there; UNSURE: the text ends before. */
static enum parse_tools_verdict read_on(const struct marks *m, struct by_str s,
                                        struct parse_tools_block *b, struct sink *k) {
    while (b->state != DONE) {
        bool is_open = false;
        uint8_t was = b->state;
        size_t from = b->at;
        if (was == CALL) {
            if (read_mark(s, b, m->call, &is_open))
                b->state = NAME;
            else if (b->depth && read_mark(s, b, m->ends, &is_open))
                b->state = DONE;
        } else if (was == NAME || was == KEY) {
            b->state = read_head(m, s, b, &is_open, k);
        } else if (was == ARGUMENT) {
            if (read_mark(s, b, m->key, &is_open)) {
                b->state = KEY;
            } else if (read_mark(s, b, m->call_ends, &is_open)) {
                if (k) end_call(k);
                b->depth++;
                b->state = m->call.n ? CALL : DONE;
            }
        } else if (was == VALUE_MARK) {
            if (read_mark(s, b, m->value, &is_open)) b->state = VALUE;
        } else {
            size_t end = parse_tools_find(s, m->value_ends, b);
            if (end == SIZE_MAX) return PARSE_TOOLS_UNSURE;
            if (k) add_value(k, by_str_sub(s, from, end - from), m->has_lines);
            b->at = end + m->value_ends.n;
            b->state = ARGUMENT;
        }
        if (b->state == was) return is_open ? PARSE_TOOLS_UNSURE : PARSE_TOOLS_TEXT;
    }
    return PARSE_TOOLS_CALL;
}

static enum parse_tools_verdict read_block(const struct marks *m, struct by_str s, size_t at,
                                           bool is_end, struct parse_tools_result *out,
                                           size_t *end) {
    struct parse_tools_block *b = parse_tools_block_at(out, at);
    size_t n_before = out->n_calls;
    if (b->at == at && !m->call.n) b->state = NAME;
    enum parse_tools_verdict v = read_on(m, s, b, NULL);
    bool is_unclosed = v == PARSE_TOOLS_UNSURE && b->state == CALL && b->depth;
    if (v == PARSE_TOOLS_UNSURE && !is_end) return v;
    *end = v == PARSE_TOOLS_UNSURE ? s.n : b->at;
    if (v != PARSE_TOOLS_CALL && !is_unclosed) return PARSE_TOOLS_TEXT;
    struct parse_tools_block again = {.from = at, .at = at, .state = m->call.n ? CALL : NAME};
    struct sink k = {.out = out};
    by_buf_init(&k.args, LIMIT_STR_BYTES);
    (void)read_on(m, s, &again, &k);
    by_buf_release(&k.args);
    if (k.is_full) out->n_calls = n_before;
    return k.is_full ? PARSE_TOOLS_TEXT : PARSE_TOOLS_CALL;
}

/* Qwen 3 Coder's; Seed's end otherwise. */
static const struct marks functions = {.call = BY_STR("<function="),
                                       .name_ends = BY_STR(">"),
                                       .call_ends = BY_STR("</function>"),
                                       .key = BY_STR("<parameter="),
                                       .key_ends = BY_STR(">"),
                                       .value_ends = BY_STR("</parameter>"),
                                       .ends = BY_STR("</tool_call>"),
                                       .has_lines = true};

enum parse_tools_verdict parse_tools_qwen3_coder(struct by_str s, size_t at, bool is_end,
                                                 size_t *end, struct parse_tools_result *out) {
    return read_block(&functions, s, at, is_end, out, end);
}

enum parse_tools_verdict parse_tools_seed_oss(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out) {
    struct marks m = functions;
    m.ends = BY_STR("</seed:tool_call>");
    return read_block(&m, s, at, is_end, out, end);
}

enum parse_tools_verdict parse_tools_minimax_m2(struct by_str s, size_t at, bool is_end,
                                                size_t *end, struct parse_tools_result *out) {
    static const struct marks m = {.call = BY_STR("<invoke name="),
                                   .name_ends = BY_STR(">"),
                                   .call_ends = BY_STR("</invoke>"),
                                   .key = BY_STR("<parameter name="),
                                   .key_ends = BY_STR(">"),
                                   .value_ends = BY_STR("</parameter>"),
                                   .ends = BY_STR("</minimax:tool_call>"),
                                   .has_lines = true};
    return read_block(&m, s, at, is_end, out, end);
}

enum parse_tools_verdict parse_tools_deepseekv32(struct by_str s, size_t at, bool is_end,
                                                 size_t *end, struct parse_tools_result *out) {
    static const struct marks m = {.call = BY_STR("<｜DSML｜invoke name="),
                                   .name_ends = BY_STR(">"),
                                   .call_ends = BY_STR("</｜DSML｜invoke>"),
                                   .key = BY_STR("<｜DSML｜parameter name="),
                                   .key_ends = BY_STR(">"),
                                   .value_ends = BY_STR("</｜DSML｜parameter>"),
                                   .ends = BY_STR("</｜DSML｜function_calls>")};
    return read_block(&m, s, at, is_end, out, end);
}

enum parse_tools_verdict parse_tools_glm45(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out) {
    static const struct marks m = {.name_ends = BY_STR("<"),
                                   .call_ends = BY_STR("</tool_call>"),
                                   .key = BY_STR("<arg_key>"),
                                   .key_ends = BY_STR("</arg_key>"),
                                   .value = BY_STR("<arg_value>"),
                                   .value_ends = BY_STR("</arg_value>")};
    return read_block(&m, s, at, is_end, out, end);
}
