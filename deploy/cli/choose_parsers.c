#include "deploy/cli/choose_parsers.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/template/chat_template.h"

static bool has(struct by_str s, const char *what) {
    return by_str_find(s, by_str_of(what), 0) != SIZE_MAX;
}

const char *choose_tool_parser(struct by_str template) {
    static const struct {
        const char *mark, *parser;
    } rows[] = {
        {"｜DSML｜", "deepseekv32"},
        {"<｜tool▁call▁begin｜>", "deepseekv3"},
        {"[TOOL_CALLS]", "mistral"},
        {"<|tool_call>call:", "gemma4"},
        {"<start_function_call>", "functiongemma"},
        {"<minimax:tool_call>", "minimax-m2"},
        {"<seed:tool_call>", "seed_oss"},
        {"<arg_key>", "glm45"},
        {"<function=", "qwen3_coder"}, /* within <tool_call>, which Hermes has, too */
        {"<tool_call>", "hermes"},
        {"<|tool_call_begin|>", "kimi_k2"},
        {"<|tool_call_start|>", "lfm2"},
        {"<|tool_list_start|>", "lfm2"}, /* its older templates do not write calls again … */
        {"List of tools: [", "lfm2"},    /* … and those of LFM2.5 have no marks at all */
        {"<function_calls>", "olmo3"},
        {"<|tool_call|>", "granite"},
        {"<tool_calls>", "hunyuan"},
        {"<|python_start|>", "pythonic"},
        {"[func_name1(", "pythonic"}, /* Llama 3.2's and 4's words for it */
        {"<|python_tag|>", "llama3"},
        {"\"parameters\": dictionary", "llama3"},
    };
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        bool is_whole = strcmp(rows[i].mark, "<function=") != 0 || has(template, "<tool_call>");
        if (has(template, rows[i].mark) && is_whole) return rows[i].parser;
    }
    return "none";
}

/* Does the prompt of a short chat end with an open <think>? */
static bool opens(const struct by_chat_template *t, const char *kwargs) {
    struct by_chat_prompt prompt;
    struct by_err err = {0};
    struct by_buf chat;
    by_chat_prompt_init(&prompt);
    by_buf_init(&chat, 1024);
    by_buf_addf(
        &chat,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"add_generation_prompt\":true,"
        "\"kwargs\":{%s}}",
        kwargs);
    int rc = by_chat_template_render(t, by_buf_str(&chat), 0, &prompt, &err);
    bool is_open = !rc && by_str_ends(by_str_trim(by_buf_str(&prompt.text)), BY_STR("<think>"));
    by_buf_release(&chat);
    by_chat_prompt_release(&prompt);
    return is_open;
}

const char *choose_reasoning_parser(const struct by_chat_template *t) {
    static const struct {
        const char *mark, *parser;
    } rows[] = {
        {"<|channel>", "gemma4"},
        {"<seed:think>", "seed_oss"},
        {"[THINK]", "mistral"},
    };
    struct by_str source = by_chat_template_source(t);
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (has(source, rows[i].mark)) return rows[i].parser;
    }
    if (!has(source, "<think>") && !has(source, "</think>")) return "none";
    if (opens(t, "")) return "deepseek-r1";
    if (opens(t, "\"thinking\":true")) return "deepseek-v3";
    if (has(source, "<answer>")) return "hunyuan";
    return has(source, "<response></response>") ? "granite" : "qwen3";
}

static bool is_auto(const char *name) {
    return name && strcmp(name, "auto") == 0;
}

static void set(char **option, const char *flag, const char *name) {
    if (!is_auto(*option)) return;
    by_info("%s auto: the chat template says %s", flag, name);
    by_free(*option);
    *option = by_strdup(name);
}

void choose_parsers(struct by_options *o) {
    if (!is_auto(o->tool_call_parser) && !is_auto(o->reasoning_parser)) return;
    struct by_model_dir *dir = NULL;
    struct by_chat_template *t = NULL;
    struct by_err err = {0};
    const char *path = o->tokenizer_path ? o->tokenizer_path : o->model_path;
    int rc = path ? by_model_dir_open_text(&dir, path, &err) : 0;
    if (!rc && path) rc = by_chat_template_open(&t, dir, o->chat_template, &err);
    if (rc) by_warn("no chat template to choose parsers by: %s", err.text);
    struct by_str source = t ? by_chat_template_source(t) : (struct by_str){"", 0};
    set(&o->tool_call_parser, "--tool-call-parser", choose_tool_parser(source));
    set(&o->reasoning_parser, "--reasoning-parser", t ? choose_reasoning_parser(t) : "none");
    by_chat_template_free(t);
    by_model_dir_close(dir);
}
