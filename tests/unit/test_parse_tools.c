#include "router/parse_tools.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "router/parse_reasoning.h"
#include "tests/unit/test.h"

/* A result as one line: content|name(arguments)… */
static void show(struct by_buf *out, const struct parse_tools_result *r) {
    by_buf_add_str(out, by_buf_str(&r->content));
    for (size_t i = 0; i < r->n_calls; i++) {
        by_buf_addc(out, '|');
        by_buf_add_str(out, r->calls[i].name);
        by_buf_addc(out, '(');
        by_buf_add_str(out, r->calls[i].arguments);
        by_buf_addc(out, ')');
    }
}

static void check_begins(const struct parse_tools_result *a, const struct parse_tools_result *b) {
    assert_true(by_str_starts(by_buf_str(&b->content), by_buf_str(&a->content)));
    assert_true(a->n_calls <= b->n_calls);
    for (size_t i = 0; i < a->n_calls; i++) {
        assert_true(by_str_eq(a->calls[i].name, b->calls[i].name));
        assert_true(by_str_eq(a->calls[i].arguments, b->calls[i].arguments));
    }
}

/* get(city: string, n: integer, o: object, b: boolean or null, s: string or number) */
static const struct parse_tools_types *types_of_get(void) {
    enum { TEXT = 1U << BY_JSON_STRING };
    static struct parse_tools_type rows[] = {
        {BY_STR("get"), BY_STR("b"), 1U << BY_JSON_BOOL | 1U << BY_JSON_NULL},
        {BY_STR("get"), BY_STR("city"), TEXT},
        {BY_STR("get"), BY_STR("n"), 1U << BY_JSON_NUMBER},
        {BY_STR("get"), BY_STR("o"), 1U << BY_JSON_OBJECT},
        {BY_STR("get"), BY_STR("s"), TEXT | 1U << BY_JSON_NUMBER}};
    static const struct parse_tools_types types = {rows, BY_COUNTOF(rows)};
    return &types;
}

/* In three pieces, cut at i and j, it comes to the same as at once, and on the way too. */
static void check_pieces(enum parse_tools kind, struct by_str s, size_t i, size_t j,
                         const struct parse_tools_result *r) {
    struct parse_tools_result steps;
    const size_t ends[] = {i, j, s.n + 1};
    parse_tools_init(&steps, types_of_get());
    for (size_t k = 0; k < BY_COUNTOF(ends); k++) {
        parse_tools_advance(kind, by_str_sub(s, 0, ends[k]), ends[k] > s.n, &steps);
        check_begins(&steps, &r[ends[k]]);
        check_begins(&r[ends[k]], &steps);
    }
    parse_tools_release(&steps);
}

/* The whole gives `expected`; and for any two splits, what the shorter gives is a beginning of what the longer gives. */
static void check_tools(const char *form, const char *text, const char *expected) {
    enum parse_tools kind = parse_tools_of(form);
    struct by_str s = by_str_of(text);
    struct by_buf line;
    struct parse_tools_result *r = by_alloc_array(s.n + 2, sizeof *r);
    assert_true(kind != PARSE_TOOLS_NONE);
    for (size_t n = 0; n <= s.n + 1; n++) {
        parse_tools_read(kind, types_of_get(), by_str_sub(s, 0, n), n > s.n, &r[n]);
        if (n) check_begins(&r[n - 1], &r[n]);
    }
    for (size_t i = 0; i <= s.n; i++) {
        for (size_t j = i; j <= s.n; j++)
            check_pieces(kind, s, i, j, r);
    }
    for (size_t n = 0; n <= s.n; n++) { /* an end at any place, as max_tokens makes it */
        struct parse_tools_result cut;
        parse_tools_read(kind, types_of_get(), by_str_sub(s, 0, n), true, &cut);
        for (size_t i = 0; i <= n; i++)
            check_begins(&r[i], &cut);
        parse_tools_release(&cut);
    }
    by_buf_init(&line, 65536);
    show(&line, &r[s.n + 1]);
    by_buf_addc(&line, '\0');
    assert_string_equal(line.p, expected);
    by_buf_release(&line);
    for (size_t n = 0; n <= s.n + 1; n++)
        parse_tools_release(&r[n]);
    by_free(r);
}

TEST(hermes) {
    UNUSED_STATE;
    check_tools("hermes", "Hello  ", "Hello  ");
    check_tools(
        "qwen25",
        "I look.\n<tool_call>\n{\"name\": \"get\", \"arguments\": {\"x\": 1}}\n</tool_call>",
        "I look.|get({\"x\": 1})");
    check_tools("hermes",
                "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>\n"
                "<tool_call>{\"arguments\":{\"s\":\"}\\\"{\"},\"name\":\"b\"}</tool_call>\nDone.",
                "Done.|a({})|b({\"s\":\"}\\\"{\"})");
}

TEST(hermes_of_models_that_err) {
    UNUSED_STATE;
    check_tools("hermes", "a < b <tool", "a < b <tool");
    /* never closed */
    check_tools("hermes", "<tool_call>{\"name\":\"a\",\"arguments\":{}}", "|a({})");
    check_tools("hermes", "x <tool_call>{\"nome\":1}</tool_call> y",
                "x <tool_call>{\"nome\":1}</tool_call> y");
    check_tools("hermes", "<tool_call>{\"name\":</tool_call> y",
                "<tool_call>{\"name\":</tool_call> y");
    check_tools("hermes", "<tool_call>hm</tool_call>{\"", "<tool_call>hm</tool_call>{\"");
    check_tools("hermes", "<tool_call>{\"name\":\"a\"}</tool_call>", "|a({})");
    check_tools("hermes", "<tool_call>{\"name\":\"a\",\"arguments\":\"{a\"}</tool_call>",
                "|a(\"{a\")"); /* no JSON within: the string is the argument */
    check_tools("hermes", "<tool_call>{\"name\":\"a\",\"arguments\":\"\"}</tool_call>", "|a({})");
    check_tools("hermes", "<tool_call>{\"name\":\"a\",\"arguments\":\"{\\\"x\\\":2}\"}</tool_call>",
                "|a({\"x\":2})");
    check_tools("hermes",
                "<tool_call>{\"name\":\"a\",\"arguments\":{\"s\":\"</tool_call>\"}}</tool_call>",
                "|a({\"s\":\"</tool_call>\"})");
}

TEST(numbers_keep_their_digits) {
    UNUSED_STATE;
    check_tools("hermes",
                "<tool_call>{\"name\":\"a\",\"arguments\":{\"id\":12345678901234567890, "
                "\"f\":1.10}}</tool_call>",
                "|a({\"id\":12345678901234567890, \"f\":1.10})");
}

TEST(llama3) {
    UNUSED_STATE;
    /* a blank behind a mark that was none may stand before one that is */
    check_tools("llama3", "a<|python_tag|> <|python_tag|>{\"name\": \"f\"}",
                "a<|python_tag|>|f({})");
    check_tools("llama3", "{\"name\": \"f\", \"parameters\": {\"q\": [1, 2]}}",
                "|f({\"q\": [1, 2]})");
    check_tools(
        "llama3",
        "<|python_tag|>{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{}}",
        "|f({})|g({})");
    check_tools("llama3", "{\"name\":\"f\"} ; ;{\"name\":\"g\"};{\"a\": 1};",
                "{\"a\": 1};|f({})|g({})");
    check_tools("llama3", "{\"answer\": 42}", "{\"answer\": 42}");
    check_tools("llama3", "{\"name\": \"f\"", "{\"name\": \"f\"");
    check_tools("llama3", "no {\"name\":\"f\"}", "no {\"name\":\"f\"}");
    check_tools("llama3", "<|python_tag|>print(1) ", "<|python_tag|>print(1) ");
}

TEST(pythonic) {
    UNUSED_STATE;
    check_tools("pythonic", "[get(city=\"Paris\", days=[1, -2.50], dry=True)]",
                "|get({\"city\": \"Paris\", \"days\": [1, -2.50], \"dry\": true})");
    check_tools("pythonic", "Sure: [a(), b.c(x=None,)] done", "Sure:done|a({})|b.c({\"x\": null})");
    check_tools("pythonic", "<|python_start|>[f(d={'k': (1, 2), \"l\": {}})]<|python_end|>",
                "|f({\"d\": {\"k\": [1, 2], \"l\": {}}})");
    check_tools("pythonic", "[f(s='it\\'s \\n \\u00e9 \\ud83d\\ude00 \\q', t='''a\"\n''', u=\"\")]",
                "|f({\"s\": \"it's \\n \xC3\xA9 \xF0\x9F\x98\x80 \\\\q\", \"t\": \"a\\\"\\n\", "
                "\"u\": \"\"})");
    check_tools("pythonic", "[f(a=.5, b=1_000, c=+1, d=2., e=1e-3, g=-0)]",
                "|f({\"a\": 0.5, \"b\": 1000, \"c\": 1, \"d\": 2.0, \"e\": 1e-3, \"g\": -0})");
}

TEST(pythonic_of_models_that_err) {
    UNUSED_STATE;
    static const char *const texts[] = {"a[0] and [1, 2]",
                                        "[f(x=1]",
                                        "[f(1)]",
                                        "[f(x=g())]",
                                        "[f(x=1) g()]",
                                        "[]",
                                        "[f(x=007)]",
                                        "[f(x='a\nb')]",
                                        "[f(x=1",
                                        "[f",
                                        "[f()",
                                        "[f(x=1),]",
                                        "[f(x=inf)]",
                                        "[f(x={1: 2})]",
                                        "[f(x='\\xZZ')]",
                                        "[[[[f(x=[[["};
    for (size_t i = 0; i < BY_COUNTOF(texts); i++)
        check_tools("pythonic", texts[i], texts[i]);
    check_tools("pythonic", "see [1]: [f()]", "see [1]:|f({})");
}

TEST(json) {
    UNUSED_STATE;
    check_tools("json", "{\"name\": \"f\", \"arguments\": {\"q\": [1, 2]}}", "|f({\"q\": [1, 2]})");
    check_tools("json",
                " [{\"name\": \"f\", \"parameters\": {}}, {\"name\":\"g\",\"arguments\":{}}] ",
                "|f({})|g({})");
    check_tools("json", "[1, 2]", "[1, 2]");
    check_tools("json", "Hello [x](y) {z}", "Hello [x](y) {z}");
    check_tools("json", "{\"name\": \"f\"", "{\"name\": \"f\"");
}

TEST(mistral) {
    UNUSED_STATE;
    check_tools("mistral",
                "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, "
                "{\"name\":\"g\",\"arguments\":{}}]",
                "|f({\"a\": 1})|g({})");
    check_tools("mistral", "So: [TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g[ARGS]{}",
                "So:|f({\"a\": 1})|g({})");
    check_tools("mistral", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, 5]",
                "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, 5]");
    check_tools("mistral", "[TOOL_CALLS] see the {\"a\": 1}", "[TOOL_CALLS] see the {\"a\": 1}");
    check_tools("mistral", "[TOOL", "[TOOL");
}

TEST(deepseek) {
    UNUSED_STATE;
    check_tools("deepseekv3",
                "Well.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```"
                "json\n{\"x\": 1}\n```"
                "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>put\n```json\n{}"
                "\n```<｜tool▁call▁end｜>"
                "<｜tool▁calls▁end｜>",
                "Well.|get({\"x\": 1})|put({})");
    check_tools(
        "deepseekv31",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜>",
        "|get({\"x\": 1})");
    check_tools("deepseekv3", "<｜tool▁call▁begin｜>function<｜tool▁call▁end｜>",
                "<｜tool▁call▁begin｜>function<｜tool▁call▁end｜>");
}

TEST(gemma4) {
    UNUSED_STATE;
    check_tools("gemma4",
                "I look.<|tool_call>call:get{city:<|\"|>Paris, {\"x\"}\n]<|\"|>,days:[1,-2.5],"
                "dry:true,unit:None}<tool_call|>",
                "I look.|get({\"city\": \"Paris, {\\\"x\\\"}\\n]\", \"days\": [1, -2.5], "
                "\"dry\": true, \"unit\": null})");
    check_tools(
        "gemma4",
        "<|tool_call>call:a.b-c{}<tool_call|><|tool_call>call:f{o:{k:{},<|\"|>l m<|\"|>:[]},"
        "id:12345678901234567890}<tool_call|>",
        "|a.b-c({})|f({\"o\": {\"k\": {}, \"l m\": []}, \"id\": 12345678901234567890})");
    check_tools("functiongemma",
                "<start_function_call>call:get{x:<escape>a}b<escape>,n:2}<end_function_call>",
                "|get({\"x\": \"a}b\", \"n\": 2})");
}

TEST(gemma4_of_models_that_err) {
    UNUSED_STATE;
    static const char *const texts[] = {"<|tool_call>",
                                        "<|tool_call>call",
                                        "<|tool_call>get{}<tool_ca",
                                        "<|tool_call>call:two words{}",
                                        "<|tool_call>call:{}",
                                        "<|tool_call>call:f{a:1",
                                        "<|tool_call>call:f{a:<|\"|>b",
                                        "<|tool_call>call:f{a:[1}",
                                        "<|tool_call>call:f{a}",
                                        "<|tool_call>call:f{a:1 {b}}",
                                        "<|tool_call>call:f{:1}",
                                        "<|tool_call>call:f{a:b<|\"|>c<|\"|>}"};
    for (size_t i = 0; i < BY_COUNTOF(texts); i++)
        check_tools("gemma4", texts[i], texts[i]);
    /* not closed, but whole; words without their marks; a number that JSON does not know; a comma too many */
    check_tools("gemma4", "<|tool_call>call:f{a:San Jose,b:007,c:\"x\",\"d\":1,}",
                "|f({\"a\": \"San Jose\", \"b\": \"007\", \"c\": \"x\", \"d\": 1})");
    check_tools("gemma4", "<|tool_call>call:f{a:}<tool_call|> so", "so|f({\"a\": \"\"})");
    check_tools("gemma4", "<|tool_call>no <|tool_call>call:f{}<tool_call|>",
                "<|tool_call>no|f({})");
}

TEST(qwen3_coder) {
    UNUSED_STATE;
    check_tools("qwen3_coder",
                "I look.\n<tool_call>\n<function=get>\n<parameter=city>\n<b>\"P\"\n</tool_call>\n"
                "</parameter>\n<parameter=n>\n5\n</parameter>\n</function>\n</tool_call>",
                "I look.|get({\"city\": \"<b>\\\"P\\\"\\n</tool_call>\", \"n\": 5})");
    check_tools("step3p5",
                "<tool_call><function=f></function></tool_call>\n<tool_call>\n<function=g>\n"
                "<parameter=x>5</parameter></function>\n<function=h></function></tool_call>Done",
                "Done|f({})|g({\"x\": 5})|h({})");
    check_tools("seed_oss",
                "<seed:tool_call>\n<function=get>\n<parameter=city>5</parameter>\n</function>\n"
                "</seed:tool_call>",
                "|get({\"city\": \"5\"})");
}

TEST(values_are_what_the_schema_says) {
    UNUSED_STATE;
    static const char *const values[][3] = {
        {"city", "5", "\"5\""},          {"n", "5", "5"},
        {"n", "five", "\"five\""},       {"o", "{\"a\": 1}", "{\"a\": 1}"},
        {"b", "True", "true"},           {"b", "None", "null"},
        {"b", "false", "false"},         {"s", "5", "5"},
        {"s", "\"5\"", "\"\\\"5\\\"\""}, {"city", "", "\"\""},
        {"any", "1.5", "1.5"},           {"any", "007", "\"007\""},
        {"any", "[1, 2]", "[1, 2]"},     {"any", "a b", "\"a b\""},
        {"any", "True", "\"True\""}};
    for (size_t i = 0; i < BY_COUNTOF(values); i++) {
        char text[256], expected[256];
        snprintf(text, sizeof text,
                 "<tool_call>get<arg_key>%s</arg_key><arg_value>%s</arg_value></tool_call>",
                 values[i][0], values[i][1]);
        snprintf(expected, sizeof expected, "|get({\"%s\": %s})", values[i][0], values[i][2]);
        check_tools("glm47", text, expected);
    }
}

TEST(glm45) {
    UNUSED_STATE;
    check_tools(
        "glm45",
        "\n<tool_call>get\n<arg_key>city</arg_key>\n<arg_value>New York</arg_value>\n"
        "<arg_key>n</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>f\n</tool_call>",
        "|get({\"city\": \"New York\", \"n\": 2})|f({})");
}

TEST(minimax_m2_and_deepseekv32) {
    UNUSED_STATE;
    check_tools("minimax-m2",
                "Two:\n<minimax:tool_call>\n<invoke name=\"get\">\n<parameter "
                "name=\"city\">a\nb</parameter>\n"
                "<parameter name=\"n\">7</parameter>\n</invoke>\n<invoke name=\"f\">\n</invoke>\n"
                "</minimax:tool_call>",
                "Two:|get({\"city\": \"a\\nb\", \"n\": 7})|f({})");
    check_tools(
        "deepseekv32",
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
        "string=\"true\">5</｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" string=\"false\">5"
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "|f({\"a\": \"5\", \"b\": 5})");
}

/* What a limit of tokens has cut is no call, or half a command would be run; but for the mark behind the last one. */
TEST(marked_of_models_that_err) {
    UNUSED_STATE;
    static const char *const texts[] = {
        "<tool_call>",
        "<tool_call>hm</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call><function=f",
        "<tool_call><function=f>",
        "<tool_call><function=f><parameter=a>rm -rf /",
        "<tool_call><function=f><parameter=a>1</parameter>",
        "<tool_call><function=f><parameter=a>1</parameter></tool_call>",
        "<tool_call><function=two words></function></tool_call>",
        "<tool_call><function=f>so</function></tool_call>",
        "<tool_call><function=></function></tool_call>",
        "<tool_call><function=f></function>so</tool_call>"};
    for (size_t i = 0; i < BY_COUNTOF(texts); i++)
        check_tools("qwen3_coder", texts[i], texts[i]);
    check_tools("qwen3_coder", "<tool_call>\n<function=f>\n</function>\n", "|f({})");
    check_tools("qwen3_coder", "a <tool_call> is <tool_call><function=f></function></tool_call>",
                "a <tool_call> is|f({})");
    check_tools("glm45", "<tool_call>f<arg_key>a</arg_key>", "<tool_call>f<arg_key>a</arg_key>");
    check_tools("glm45", "<tool_call>two words</tool_call>", "<tool_call>two words</tool_call>");
}

TEST(kimi_k2) {
    UNUSED_STATE;
    check_tools("kimi_k2",
                "So.<|tool_calls_section_begin|><|tool_call_begin|>functions.get:0"
                "<|tool_call_argument_begin|>{\"x\": 1}<|tool_call_end|><|tool_call_begin|>f:x"
                "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
                "So.|get({\"x\": 1})|f:x({})");
}

TEST(lfm2_and_olmo3) {
    UNUSED_STATE;
    check_tools("lfm2", "<|tool_call_start|>[get(x=\"a]\"), f()]<|tool_call_end|>Done [1].",
                "Done [1].|get({\"x\": \"a]\"})|f({})");
    check_tools("lfm2", "<|tool_call_start|>f()", "<|tool_call_start|>f()");
    check_tools("olmo3", "<function_calls>\nget(x=\"</a>\")\nf(n=1)\n</function_calls>",
                "|get({\"x\": \"</a>\"})|f({\"n\": 1})");
    check_tools("olmo3", "<function_calls>f() so</function_calls>",
                "<function_calls>f() so</function_calls>");
    check_tools("olmo3", "<function_calls>f()</func", "<function_calls>f()</func");
}

TEST(lists_behind_a_mark) {
    UNUSED_STATE;
    check_tools("granite",
                "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\":\"g\"}]",
                "|f({\"a\": 1})|g({})");
    check_tools("granite", "<|tool_call|> {\"name\": \"f\"}", "|f({})");
    check_tools("granite", "<|tool_call|>none", "<|tool_call|>none");
    check_tools("hunyuan", "<tool_calls>[{\"name\": \"f\", \"arguments\": {}}]</tool_calls>",
                "|f({})");
}

TEST(types_are_read_from_schemas) {
    UNUSED_STATE;
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{\"properties\":{"
        "\"a\":{\"type\":\"string\"},\"b\":{\"type\":[\"integer\",\"null\"]},"
        "\"c\":{\"anyOf\":[{\"type\":\"array\"},{\"oneOf\":[{\"type\":\"boolean\"}]}]},"
        "\"d\":{\"enum\":[\"x\",1]},\"e\":{},\"f\":5}}}},5,{},"
        "{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":\"number\"}}"
        "}}}]";
    static const struct {
        const char *function, *key;
        unsigned types;
    } rows[] = {{"g", "a", 1U << BY_JSON_STRING},
                {"g", "b", 1U << BY_JSON_NUMBER | 1U << BY_JSON_NULL},
                {"g", "c", 1U << BY_JSON_ARRAY | 1U << BY_JSON_BOOL},
                {"g", "d", 1U << BY_JSON_STRING | 1U << BY_JSON_NUMBER},
                {"g", "e", 0},
                {"g", "f", 0},
                {"f", "a", 1U << BY_JSON_NUMBER},
                {"f", "b", 0},
                {"h", "a", 0}};
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 64};
    struct parse_tools_types types;
    struct by_json *j = NULL;
    struct by_arena arena;
    struct by_err err;
    by_arena_init(&arena, 0);
    assert_int_equal(by_json_parse(&j, by_str_of(tools), &lim, &err), 0);
    parse_tools_types_read(&types, j, &arena);
    by_json_free(j);
    for (size_t i = 0; i < BY_COUNTOF(rows); i++)
        assert_int_equal(
            parse_tools_types_of(&types, by_str_of(rows[i].function), by_str_of(rows[i].key)),
            rows[i].types);
    parse_tools_types_read(&types, NULL, &arena);
    assert_int_equal(parse_tools_types_of(&types, BY_STR("g"), BY_STR("a")), 0);
    by_arena_release(&arena);
}

TEST(more_calls_than_there_may_be_stay_text) {
    UNUSED_STATE;
    struct by_buf text;
    struct parse_tools_result r;
    by_buf_init(&text, 65536);
    for (int i = 0; i < PARSE_TOOLS_MAX + 2; i++)
        by_buf_addz(&text, "<tool_call>{\"name\":\"a\"}</tool_call>");
    parse_tools_read(PARSE_TOOLS_HERMES, NULL, by_buf_str(&text), true, &r);
    assert_int_equal(r.n_calls, PARSE_TOOLS_MAX);
    assert_int_equal(r.content.n, 2 * strlen("<tool_call>{\"name\":\"a\"}</tool_call>"));
    parse_tools_release(&r);
    by_buf_release(&text);
}

static void check_reasoning(const char *name, const char *text, const char *reasoning,
                            const char *content) {
    enum parse_reasoning kind = parse_reasoning_of(name);
    struct by_str s = by_str_of(text), r = {0}, c = {0};
    struct parse_reasoning_parts steps = {0};
    for (size_t n = 0; n <= s.n + 1; n++) {
        struct parse_reasoning_parts at_once = {0};
        parse_reasoning_split(kind, by_str_sub(s, 0, n), n > s.n, &at_once);
        parse_reasoning_split(kind, by_str_sub(s, 0, n), n > s.n, &steps);
        assert_true(by_str_eq(steps.reasoning, at_once.reasoning));
        assert_true(by_str_eq(steps.content, at_once.content));
        assert_true(by_str_starts(steps.reasoning, r) && by_str_starts(steps.content, c));
        r = steps.reasoning;
        c = steps.content;
    }
    assert_true(by_str_eqz(r, reasoning));
    assert_true(by_str_eqz(c, content));
}

TEST(reasoning) {
    UNUSED_STATE;
    check_reasoning("qwen3", "<think>\nfirst, I\n</think>\n\nHello <b>", "first, I", "Hello <b>");
    check_reasoning("qwen3", "<thing> Hello", "", "<thing> Hello");
    check_reasoning("qwen3", "<thi", "", "<thi");
    check_reasoning("qwen3", "<think>a </thi", "a </thi", "");
    check_reasoning("qwen3", "<think>\n\n</think>\n\nHi", "", "Hi");
    check_reasoning("deepseek-r1", "hm </think>Hi", "hm", "Hi");
    check_reasoning("deepseek-r1", "<think>hm</think>Hi ", "hm", "Hi ");
    check_reasoning("qwen3-thinking", "never done ", "never done", "");
    check_reasoning("qwen3", "\n <think> \n</think>\n", "", "");
    check_reasoning("gemma4", "<|channel>thought\nhm <b>\n<channel|>Hi", "hm <b>", "Hi");
    check_reasoning("gemma4", "<|channel>thought\n<channel|>Hi", "", "Hi");
    check_reasoning("gemma4", "<|channel>thou", "thou", "");
    check_reasoning("gemma4", "thought\n<channel|>Hi", "", "thought\n<channel|>Hi");
    check_reasoning("seed_oss", "<seed:think>hm</seed:think>Hi", "hm", "Hi");
    check_reasoning("mistral", "[THINK]hm[/THINK]Hi", "hm", "Hi");
    check_reasoning("hunyuan", "<think>\nhm\n</think>\n<answer>\nHi <b>\n</answer>", "hm",
                    "Hi <b>");
    check_reasoning("hunyuan", "<think>hm</think>\n\nHi\n", "hm", "Hi\n");
    check_reasoning("hunyuan", "<answer>Hi</answer> ", "", "Hi");
    check_reasoning("granite", "<think>hm</think><response>never done ", "hm", "never done");
    check_reasoning("ernie45", "hm\n</think>\n\n<response>\nHi\n</response>\n", "hm", "Hi");
    check_reasoning("none", "<think>a</think>b", "", "<think>a</think>b");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LONG = 10000, STREAM = 20000 }; /* their memmem checks all of the text at each call */
#else
enum { LONG = 400000, STREAM = 1000000 };
#endif

static struct by_buf repeated(const char *unit, size_t n) {
    struct by_buf text;
    by_buf_init(&text, 1 << 24);
    while (n--)
        by_buf_addz(&text, unit);
    return text;
}

/* n of them have no call in them, and so many bytes of content. */
static void check_long(enum parse_tools kind, const char *unit, size_t n, size_t n_content) {
    struct parse_tools_result r;
    struct by_buf text = repeated(unit, n);
    parse_tools_read(kind, types_of_get(), by_buf_str(&text), true, &r);
    assert_int_equal(r.n_calls, 0);
    assert_int_equal(r.content.n, n_content);
    parse_tools_release(&r);
    by_buf_release(&text);
}

/* For each block that was none all text before it was copied, or the rest searched for another mark or for its object's end; for each
 * blank before a call all behind it was looked at. Megabytes, as models in a loop write them, kept the router for minutes. */
TEST(what_is_long_is_looked_at_once) {
    UNUSED_STATE;
    struct parse_tools_result r;
    check_long(PARSE_TOOLS_HERMES, "<tool_call>f</tool_call>", LONG, LONG * 24);
    check_long(PARSE_TOOLS_HERMES, "<tool_call>{</tool_call>", LONG, LONG * 24);
    check_long(PARSE_TOOLS_PYTHONIC, "[f]", 8 * LONG, 8 * LONG * 3);
    check_long(PARSE_TOOLS_PYTHONIC, "<|python_end|>", 2 * LONG, 0);
    struct by_buf text = repeated("\n", 10 * LONG);
    by_buf_addz(&text, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>");
    parse_tools_init(&r, NULL);
    for (size_t n = 0; n < text.n; n += LONG)
        parse_tools_advance(PARSE_TOOLS_HERMES, by_str_sub(by_buf_str(&text), 0, n), false, &r);
    parse_tools_advance(PARSE_TOOLS_HERMES, by_buf_str(&text), true, &r);
    assert_true(r.n_calls == 1 && r.content.n == 0);
    parse_tools_release(&r);
    by_buf_release(&text);
}

/* A stream of short pieces: `open`, then many of `unit`. */
static void check_stream(const char *form, const char *open, const char *unit) {
    struct parse_tools_result r;
    struct by_buf text;
    enum parse_tools kind = parse_tools_of(form);
    size_t step = strlen(unit);
    by_buf_init(&text, 1 << 24);
    by_buf_addz(&text, open);
    while (text.n < STREAM)
        by_buf_addz(&text, unit);
    parse_tools_init(&r, NULL);
    for (size_t n = strlen(open); n < text.n; n += step)
        parse_tools_advance(kind, by_str_sub(by_buf_str(&text), 0, n), false, &r);
    parse_tools_advance(kind, by_buf_str(&text), true, &r);
    assert_int_equal(r.n_calls, 0);
    parse_tools_release(&r);
    by_buf_release(&text);
}

/* What is open was read from its beginning for each token that may have ended it, and the blanks at the end for each that came: minutes
 * for what a model in a loop writes in one answer. */
TEST(a_stream_is_looked_at_once) {
    UNUSED_STATE;
    static const struct {
        const char *form, *open, *unit;
    } streams[] = {
        {"hermes", "", "\n"},
        {"hermes", "<tool_call>{\"name\": \"", "}"},
        {"hermes", "<tool_call>{}", ">"},
        {"llama3", "{\"name\": \"", "}"},
        {"mistral", "[TOOL_CALLS]f{\"a\": \"", "]"},
        {"mistral", "[TOOL_CALLS]f", ">"},
        {"deepseekv3", "<｜tool▁call▁begin｜>", ">"},
        {"pythonic", "[f(x=\"", ")"},
        {"pythonic", "[f(x=[", "{},"},
        {"json", "[{\"name\": \"", "]"},
        {"gemma4", "<|tool_call>call:f{a:<|\"|>", "}"},
        {"gemma4", "<|tool_call>call:f{a:[", "[],"},
        {"qwen3_coder", "<tool_call><function=f><parameter=a>", "</parameter"},
        {"qwen3_coder", "<tool_call><function=f><parameter=a>", "</parameter><parameter=a>"},
        {"minimax-m2", "<minimax:tool_call>", "<invoke name=\"f\"></invoke>"},
        {"glm45", "<tool_call>f<arg_key>k</arg_key>", ">"},
        {"kimi_k2", "<|tool_call_begin|>", ">"},
        {"lfm2", "<|tool_call_start|>[f(x=\"", "''"},
        {"olmo3", "<function_calls>", "f()\n"},
        {"olmo3", "<function_calls>f(x=\"", "<>"},
        {"granite", "<|tool_call|>[", "{},"},
        {"functiongemma", "<start_function_call>call:f{a:<escape>", ">"},
    };
    for (size_t i = 0; i < BY_COUNTOF(streams); i++)
        check_stream(streams[i].form, streams[i].open, streams[i].unit);
}

TEST(reasoning_in_a_stream_is_looked_at_once) {
    UNUSED_STATE;
    static const char *const units[] = {"\n", "<", "</think", "a "};
    for (size_t i = 0; i < BY_COUNTOF(units); i++) {
        struct parse_reasoning_parts parts = {0};
        struct by_buf text = repeated(units[i], STREAM / strlen(units[i]));
        for (size_t n = 0; n <= text.n; n += strlen(units[i]))
            parse_reasoning_split(PARSE_REASONING_ALWAYS, by_str_sub(by_buf_str(&text), 0, n),
                                  false, &parts);
        assert_true(parts.reasoning.n + 1024 > text.n && !parts.content.n);
        by_buf_release(&text);
    }
}

TESTS(RUN(qwen3_coder), RUN(values_are_what_the_schema_says), RUN(glm45),
      RUN(minimax_m2_and_deepseekv32), RUN(marked_of_models_that_err), RUN(kimi_k2),
      RUN(lfm2_and_olmo3), RUN(lists_behind_a_mark), RUN(types_are_read_from_schemas), RUN(gemma4),
      RUN(gemma4_of_models_that_err), RUN(a_stream_is_looked_at_once),
      RUN(reasoning_in_a_stream_is_looked_at_once), RUN(what_is_long_is_looked_at_once),
      RUN(pythonic), RUN(pythonic_of_models_that_err), RUN(json), RUN(hermes),
      RUN(hermes_of_models_that_err), RUN(numbers_keep_their_digits), RUN(llama3), RUN(mistral),
      RUN(deepseek), RUN(more_calls_than_there_may_be_stay_text), RUN(reasoning));
