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
        {"<｜tool▁call▁begin｜>", "deepseekv3"},
        {"[TOOL_CALLS]", "mistral"},
        {"<tool_call>", "hermes"},
        {"<|python_start|>", "pythonic"},
        {"[func_name1(", "pythonic"}, /* Llama 3.2's and 4's words for it */
        {"<|python_tag|>", "llama3"},
        {"\"parameters\": dictionary", "llama3"},
    };
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (has(template, rows[i].mark)) return rows[i].parser;
    }
    return "none";
}

/* A template that ends its prompt with <think> has opened it for the model. */
const char *choose_reasoning_parser(struct by_str template) {
    if (!has(template, "<think>") && !has(template, "</think>")) return "none";
    if (has(template, "enable_thinking")) return "qwen3";
    const struct by_str prompt = BY_STR("add_generation_prompt");
    size_t last = SIZE_MAX;
    for (size_t at = by_str_find(template, prompt, 0); at != SIZE_MAX;
         at = by_str_find(template, prompt, at + 1))
        last = at;
    bool opens = last != SIZE_MAX && has(by_str_sub(template, last, template.n), "<think>");
    return opens ? "deepseek-r1" : "qwen3";
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
    set(&o->reasoning_parser, "--reasoning-parser", choose_reasoning_parser(source));
    by_chat_template_free(t);
    by_model_dir_close(dir);
}
