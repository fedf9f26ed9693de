#include "deploy/cli/banyan.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "deploy/cli/cmd.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cmd_serve, "start a server: all processes, one model"},
    {"tokenize", cmd_tokenize, "JSON lines of text to token ids, or back"},
    {"chat-template", cmd_chat_template, "JSON lines of messages to prompts"},
    {"model", cmd_model, "what is in a model file or folder"},
    {"bench", cmd_bench, "how fast it is"},
    {"top", cmd_top, "a live view of a server: load, rates, latencies"},
    {"doctor", cmd_doctor, "what would stop this machine from serving"},
    {"config", cmd_config, "is the configuration right, and what does it set"},
    {"inspect", cmd_inspect, "what a running server does: queue, replicas, tenants, prefix tree"},
    {"trace", cmd_trace, "prints or replays what reached a scheduler"},
    {"keys", cmd_keys, "keys for processes on several hosts"},
};

bool cmd_take_word(int *argc, char **argv, const char *word) {
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], word) != 0) continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
        --*argc;
        return true;
    }
    return false;
}

int cmd_take_model(struct by_options *o, struct by_err *err) {
    if (!o->n_rest) return 0;
    if (o->model_path)
        return by_fail(err, BY_EINVAL, "two models are named: %s, and --model-path %s", o->rest[0],
                       o->model_path);
    o->model_path = by_strdup(o->rest[0]);
    return 0;
}

int cmd_fail(const char *command, const char *why) {
    bool is_named = by_str_starts(by_str_of(why), BY_STR("banyan "));
    fprintf(stderr, "%s%s%s%s\n", is_named ? "" : "banyan ", is_named ? "" : command,
            is_named ? "" : ": ", why);
    return 1;
}

static int help(FILE *to) {
    fprintf(
        to,
        "banyan %s - serves language models\n\n"
        "    banyan serve                         SmolLM2-135M-Instruct on http://127.0.0.1:30000\n"
        "    banyan serve --model-path DIR        a Hugging Face folder or a GGUF file\n"
        "    banyan serve --model-path ORG/NAME   a model of the Hub, fetched once\n"
        "    curl http://127.0.0.1:30000/v1/chat/completions -H 'Content-Type: application/json' "
        "\\\n"
        "         -d '{\"messages\": [{\"role\": \"user\", \"content\": "
        "\"Hello!\"}]}'\n\ncommands:\n",
        BANYAN_VERSION);
    for (size_t i = 0; i < BY_COUNTOF(commands); i++)
        fprintf(to, "    %-16s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n`banyan COMMAND --help` shows a command's options.\n");
    return to == stderr ? 2 : 0;
}

static int man(void) {
    printf(
        ".TH banyan 1 \"\" \"Banyan %s\" Banyan\n.SH NAME\nbanyan \\- serves language models\n.SH "
        "SYNOPSIS\n.B banyan\n\\fIcommand\\fR [options]\n.SH COMMANDS\n",
        BANYAN_VERSION);
    for (size_t i = 0; i < BY_COUNTOF(commands); i++)
        printf(".TP\n.B %s\n%s\n", commands[i].name, commands[i].help);
    printf(".SH SEE ALSO\nEach command has a page of its own: banyan\\-serve(1) and so on; the "
           "processes too: banyan\\-router(1), banyan\\-scheduler(1), "
           "banyan\\-tokenizer\\-worker(1), banyan\\-gpu\\-worker(1), banyan\\-detokenizer(1).\n");
    return 0;
}

static int fail_unknown(const char *command) {
    const char *best = NULL;
    size_t least = strlen(command) / 3 + 1;
    for (size_t i = 0; i < BY_COUNTOF(commands); i++) {
        size_t d = by_str_distance(command, commands[i].name);
        if (d < least) best = commands[i].name;
        least = BY_MIN(least, d);
    }
    fprintf(stderr, "banyan: there is no command '%s'%s%s%s; `banyan --help` lists them\n", command,
            best ? " (did you mean " : "", best ? best : "", best ? "?)" : "");
    return 2;
}

int banyan_main(int argc, char **argv) {
    if (argc < 2) return help(stderr);
    if (argc > 2 && strcmp(argv[1], "help") == 0) { /* banyan help COMMAND */
        argv[1] = argv[2];
        argv[2] = (char *)(uintptr_t) "--help";
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help(stdout);
    if (strcmp(argv[1], "--man") == 0) return man();
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("banyan %s\n", BANYAN_VERSION);
        return 0;
    }
    for (size_t i = 0; i < BY_COUNTOF(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    return fail_unknown(argv[1]);
}
