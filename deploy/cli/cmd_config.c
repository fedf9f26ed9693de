#include "deploy/cli/cmd.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/options_meant.h"
#include "common/net/keys.h"
#include "common/template/builtin.h"
#include "proto/endpoint.h"

#include <stdio.h>
#include <string.h>

/* banyan config check: the file, the environment and the flags as all the programs would read them, without starting one. */

/* What a program would only find while it starts. */
static int check_files(const struct by_options *o, struct by_err *err) {
    struct endpoint at;
    struct by_options any_dir = *o;
    if (!any_dir.run_dir) any_dir.run_dir = (char *)(uintptr_t) "/run"; /* banyan serve makes one */
    int rc = endpoint_read(&at, &any_dir, "detokenizer", err);
    const char *const paths[][2] = {{"--chat-template", o->chat_template},
                                    {"--api-key-file", o->api_key_file}};
    for (size_t i = 0; !rc && i < BY_COUNTOF(paths); i++) {
        bool is_name = i == 0 && paths[i][1] && by_builtin_template_named(by_str_of(paths[i][1]));
        if (paths[i][1] && !is_name && !by_file_exists(paths[i][1]))
            rc = by_fail(err, BY_ENOTFOUND, "%s: there is no %s", paths[i][0], paths[i][1]);
    }
    bool is_tcp = strncmp(at.scheduler, "tcp://", 6) == 0 || strncmp(at.mine, "tcp://", 6) == 0;
    if (!rc && is_tcp && !o->curve_key_file)
        rc = by_fail(err, BY_EINVAL, "tcp:// needs --curve-key-file; `banyan keys FILE` makes one");
    if (!rc && o->curve_key_file) {
        struct by_keys keys;
        rc = by_keys_read(&keys, o->curve_key_file, err);
        explicit_bzero(&keys, sizeof keys);
    }
    return rc;
}

/* As --name value pairs made for a child, which are those that differ from the defaults. */
static void show(const struct by_options *o) {
    char **argv = by_options_argv(o, "", BY_FOR_ALL);
    if (o->config) printf("read %s\n", o->config);
    if (o->api_key) printf("  %-34s%s\n", "api-key", "(set)");
    if (o->admin_api_key) printf("  %-34s%s\n", "admin-api-key", "(set)");
    if (!argv[1] && !o->api_key && !o->admin_api_key) printf("all defaults\n");
    for (size_t i = 1; argv[i]; i++) {
        const char *value = argv[i + 1] && strncmp(argv[i + 1], "--", 2) != 0 ? argv[i + 1] : NULL;
        printf("  %-34s%s\n", argv[i] + 2, value ? value : "yes");
        i += value != NULL;
    }
    by_options_argv_free(argv);
}

static void tell(const char *text) {
    printf("note: %s\n", text);
}

static int check(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan config check",
        .who = BY_FOR_ALL,
        .n_words = 1,
        .summary = "reads the configuration as all programs would, and says what is wrong or set"};
    struct by_options o;
    struct by_err err = {0};
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    if (!rc && o.n_rest == 1 && !o.config) { /* banyan config check FILE */
        char **words = by_alloc_array((size_t)argc + 2, sizeof *words);
        int n = 0;
        for (int i = 0; i < argc; i++) {
            if (argv[i] == o.rest[0]) words[n++] = (char *)(uintptr_t) "--config";
            words[n++] = argv[i];
        }
        by_options_release(&o);
        rc = check(n, words);
        by_free(words);
        return rc;
    }
    if (!rc && o.n_rest) rc = by_fail(&err, BY_EINVAL, "'%s' is no option", o.rest[0]);
    if (!rc) rc = check_files(&o, &err);
    if (rc) return cmd_fail("config check", err.text);
    show(&o);
    by_options_strange_env(tell);
    by_options_release(&o);
    return 0;
}

int cmd_config(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "check") == 0) return check(argc - 1, argv + 1);
    bool is_help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    fprintf(is_help ? stdout : stderr,
            "banyan config - the configuration, as all programs read it:\n\n"
            "    banyan config check [FILE] [options]    says what is wrong, or what is set\n");
    return is_help ? 0 : 2;
}
