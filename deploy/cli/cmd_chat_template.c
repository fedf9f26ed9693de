#include "deploy/cli/cmd.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/template/chat_template.h"
#include "deploy/cli/fetch_model.h"
#include "deploy/cli/json_lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* banyan chat-template --model-path DIR [--now SECONDS] < lines:
 *     {"messages", "tools"?, "add_generation_prompt"?, "continue_final_message"?, "kwargs"?} -> {"prompt"} or {"error"} */

struct tool {
    struct by_chat_template *template;
    struct by_chat_prompt prompt;
    uint64_t now_s; /* 0: the clock */
};

static int render(void *ctx, struct by_str line, const struct by_json *args, struct by_buf *out,
                  struct by_err *err) {
    struct tool *t = ctx;
    (void)args;
    int rc = by_chat_template_render(
        t->template, line, t->now_s ? t->now_s : by_wall_ns() / BY_NS_PER_S, &t->prompt, err);
    if (rc) return rc;
    by_buf_addz(out, "{\"prompt\":");
    by_buf_add_json_str(out, by_buf_str(&t->prompt.text));
    by_buf_addc(out, '}');
    return 0;
}

/* --now SECONDS or --now=SECONDS, since 1970. */
static int take_now(int *argc, char **argv, uint64_t *out, struct by_err *err) {
    for (int i = 1; i < *argc; i++) {
        bool has_value = strncmp(argv[i], "--now=", 6) == 0;
        if (!has_value && strcmp(argv[i], "--now") != 0) continue;
        const char *value = has_value ? argv[i] + 6 : i + 1 < *argc ? argv[i + 1] : "";
        int n = has_value ? 1 : 2;
        if (!by_str_to_u64(by_str_of(value), out))
            return by_fail(err, BY_EINVAL, "--now: seconds since 1970 are needed, got '%s'", value);
        memmove(&argv[i], &argv[i + n], (size_t)(*argc - i - n + 1) * sizeof *argv);
        *argc -= n;
        return 0;
    }
    return 0;
}

int cmd_chat_template(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan chat-template",
        .who = BY_FOR_TOOL,
        .summary = "reads JSON lines {\"messages\", \"tools\"?, \"add_generation_prompt\"?, …} and "
                   "writes {\"prompt\"} or {\"error\"}; "
                   "--now SECONDS fixes the clock",
        .usage = "[MODEL-PATH] [--now SECONDS] < LINES",
        .n_words = 1};
    struct by_options o;
    struct by_err err = {0};
    struct by_model_dir *dir = NULL;
    struct tool t = {0};
    int rc = take_now(&argc, argv, &t.now_s, &err);
    if (!rc) rc = by_options_parse(&o, &program, argc, argv, &err);
    char *path = NULL;
    if (!rc) rc = cmd_take_model(&o, &err);
    if (!rc)
        rc = fetch_model(o.tokenizer_path ? o.tokenizer_path : o.model_path, &o, FETCH_TEXT, &path,
                         &err);
    if (!rc) rc = by_model_dir_open_text(&dir, path, &err);
    by_free(path);
    if (!rc) rc = by_chat_template_open(&t.template, dir, o.chat_template, &err);
    by_model_dir_close(dir);
    if (rc) return cmd_fail("chat-template", err.text);
    by_chat_prompt_init(&t.prompt);
    int status = json_lines_run(render, &t);
    by_chat_prompt_release(&t.prompt);
    by_chat_template_free(t.template);
    by_options_release(&o);
    return status;
}
