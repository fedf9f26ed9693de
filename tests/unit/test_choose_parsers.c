/* --tool-call-parser auto, --reasoning-parser auto: what real templates say. */
#include "common/base/file.h"
#include "common/template/chat_template.h"
#include "deploy/cli/choose_parsers.h"
#include "router/parse_reasoning.h"
#include "router/parse_tools.h"
#include "tests/unit/test.h"

static void check(const char *template, const char *tools, const char *reasoning) {
    struct by_chat_template *t = NULL;
    struct by_err err;
    struct by_str s = by_str_of(template);
    if (by_chat_template_parse(&t, s, BY_STR(""), &err)) fail_msg("%s", err.text);
    assert_string_equal(choose_tool_parser(s), tools);
    assert_string_equal(choose_reasoning_parser(t), reasoning);
    by_chat_template_free(t);
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
    check("<|python_start|>{% if add_generation_prompt %}{% endif %}", "pythonic", "none");
    check("<｜tool▁call▁begin｜>{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
          "deepseekv3", "deepseek-r1");
    check("{{ x.split('</think>')[-1] }}{% if add_generation_prompt %}a{% endif %}", "none",
          "qwen3");
    check("<tool_call>{% if add_generation_prompt and not enable_thinking %}<think>\n\n</think>{% "
          "endif %}",
          "hermes", "qwen3");
    check("{{ '<|tool_call>call:' }}<|channel>thought\n<channel|>", "gemma4", "gemma4");
    check("<tool_call>{{ '<function=' }}", "qwen3_coder", "none");
    check("{{ '<function=' }}", "none", "none");
    check("<tool_call><arg_key>", "glm45", "none");
    check("<minimax:tool_call>", "minimax-m2", "none");
    check("<seed:tool_call>", "seed_oss", "none");
    check("<｜DSML｜", "deepseekv32", "none");
    check("{{ '<|tool_call_begin|>' }}", "kimi_k2", "none");
    check("{{ '<|tool_call_start|>' }}", "lfm2", "none");
    check("{{ '<|tool_list_start|>' }}", "lfm2", "none");
    check("{{ 'List of tools: [' }}", "lfm2", "none");
    check("<function_calls>", "olmo3", "none");
    check("{{ '<|tool_call|>' }}", "granite", "none");
    check("<tool_calls>", "hunyuan", "none");
    check("<start_function_call>", "functiongemma", "none");
    check("<seed:think>", "none", "seed_oss");
    check("{{ '[THINK]' }}", "none", "mistral");
    check("<think></think><answer>", "none", "hunyuan");
    check("<think></think> and <response></response>", "none", "granite");
}

/* Qwen 3.5 opens the thought unless it is told not to. By its enable_thinking it was taken for Qwen 3, which leaves that to the model:
 * all of the thought came as content, its end mark within. */
TEST(who_opens_the_thought_is_seen_by_rendering) {
    UNUSED_STATE;
    check("{% if add_generation_prompt %}{% if enable_thinking is defined and enable_thinking is "
          "false %}"
          "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}",
          "none", "deepseek-r1");
    check("{% if add_generation_prompt %}{{ '<think>' if thinking else '</think>' }}{% endif %}",
          "none", "deepseek-v3");
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

TESTS(RUN(marks_of_each_form), RUN(who_opens_the_thought_is_seen_by_rendering),
      RUN(real_templates));
