/* --tool-call-parser auto, --reasoning-parser auto: what real templates say. */
#include "common/base/file.h"
#include "deploy/cli/choose_parsers.h"
#include "router/parse_reasoning.h"
#include "router/parse_tools.h"
#include "tests/unit/test.h"

static void check(const char *template, const char *tools, const char *reasoning) {
    struct by_str s = by_str_of(template);
    assert_string_equal(choose_tool_parser(s), tools);
    assert_string_equal(choose_reasoning_parser(s), reasoning);
    bool is_none = strcmp(tools, "none") == 0;
    assert_int_equal(parse_tools_of(tools) == PARSE_TOOLS_NONE, is_none);
    is_none = strcmp(reasoning, "none") == 0;
    assert_int_equal(parse_reasoning_of(reasoning) == PARSE_REASONING_NONE, is_none);
}

TEST(marks_of_each_form) {
    UNUSED_STATE;
    check("", "none", "none");
    check("{{ messages[0].content }}", "none", "none");
    check("{% if tools %}<tool_call>{% endif %}", "hermes", "none");
    check("{{ '[TOOL_CALLS]' }}", "mistral", "none");
    check("{{ '<|python_tag|>' }}", "llama3", "none");
    check("<|python_start|>{% if add_generation_prompt %}", "pythonic", "none");
    check("<｜tool▁call▁begin｜>{% if add_generation_prompt %}<｜Assistant｜><think>\\n",
          "deepseekv3", "deepseek-r1");
    check("{{ x.split('</think>')[-1] }}{% if add_generation_prompt %}a{% endif %}", "none",
          "qwen3");
    check(
        "<tool_call>{% if add_generation_prompt %}{% if not enable_thinking %}<think>\n\n</think>",
        "hermes", "qwen3");
}

static void check_file(const char *name, const char *tools, const char *reasoning) {
    struct by_buf b;
    struct by_err err;
    char path[512];
    by_buf_init(&b, 1 << 20);
    snprintf(path, sizeof path, TEST_VECTORS "/templates/%s/template.jinja", name);
    if (by_file_read(&b, path, &err)) fail_msg("%s", err.text);
    check(b.p, tools, reasoning);
    by_buf_release(&b);
}

TEST(real_templates) {
    UNUSED_STATE;
    check_file("mistral-nemo", "mistral", "none");
    check_file("qwen3", "hermes", "qwen3");
    check_file("smollm2-chatml", "none", "none");
    check_file("zephyr", "none", "none");
}

TESTS(RUN(marks_of_each_form), RUN(real_templates));
