#include "deploy/cli/cmd.h"
#include "common/base/base.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "deploy/cli/fetch_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* banyan bench one-batch: the engine alone. It runs in the gpu worker, whose options it takes: this is the front door. */

#define SHAPES "1x128x1,1x512x1,1x2048x1,1x160x64,8x160x64,32x160x64"

static int one_batch(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan bench one-batch",
        .who = BY_FOR_WORKER,
        .summary =
            "prefill and decode speed of the engine alone, without HTTP; medians of three rounds",
        .usage = "[--one-batch SEQUENCESxINPUTxOUTPUT[+SHARED],…] [options]"};
    struct by_options o;
    struct by_err err = {0};
    char *path = NULL;
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    if (!rc) rc = fetch_model(o.model_path, &o, FETCH_ALL, &path, &err);
    if (rc) {
        fprintf(stderr, "banyan bench: %s\n", err.text);
        return 1;
    }
    by_free(o.model_path);
    o.model_path = path;
    if (!o.one_batch) o.one_batch = by_strdup(SHAPES);
    char *dir = by_proc_exe_dir(), *worker = by_path_join(dir, "banyan-gpu-worker");
    char **words = by_options_argv(&o, worker, BY_FOR_WORKER);
    execv(worker, words);
    fprintf(stderr, "banyan bench: %s: %s\n", worker, strerror(errno));
    return 1;
}

/* banyan bench serve, offline: a client of the server, and so in Python (deploy/python/banyan/bench). argv[0] is its name. */

static char *find_package(const char *exe_dir) {
    static const char *const places[] = {"../../deploy/python", "../share/banyan/python"};
    for (size_t i = 0; i < BY_COUNTOF(places); i++) {
        char *folder = by_path_join(exe_dir, places[i]),
             *bench = by_path_join(folder, "banyan/bench");
        bool is_there = by_file_is_dir(bench);
        by_free(bench);
        if (is_there) return folder;
        by_free(folder);
    }
    return NULL;
}

static int in_python(int argc, char **argv) {
    const char *named = getenv("BANYAN_PYTHON"), *python = named && *named ? named : "python3";
    char *dir = by_proc_exe_dir(), *folder = find_package(dir),
         *banyan = by_path_join(dir, "banyan");
    if (!folder) {
        fprintf(stderr, "banyan bench: the Python package is neither in this checkout nor in "
                        "share/banyan/python of this installation\n");
        return 1;
    }
    char **words = by_alloc_array((size_t)argc + 4, sizeof *words);
    words[0] = by_strdup(python);
    words[1] = by_strdup("-m");
    words[2] = by_strdup("banyan.bench");
    for (int i = 0; i < argc; i++)
        words[i + 3] = argv[i];
    setenv("PYTHONPATH", folder, 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    setenv("BANYAN_BIN", banyan, 0);
    execvp(python, words);
    fprintf(stderr, "banyan bench: %s: %s; BANYAN_PYTHON names another Python\n", python,
            strerror(errno));
    return 1;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"serve", in_python, "a server over HTTP: latencies, rates, cache hits; beside another one"},
    {"offline", in_python, "the Python Engine: all requests at once"},
    {"one-batch", one_batch, "the engine alone: prefill and decode by batch and length"},
};

int cmd_bench(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < BY_COUNTOF(benches); i++) {
        if (strcmp(argv[1], benches[i].name) == 0) return benches[i].run(argc - 1, argv + 1);
    }
    bool is_help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    FILE *to = is_help ? stdout : stderr;
    fprintf(to, "banyan bench - measures; one of:\n\n");
    for (size_t i = 0; i < BY_COUNTOF(benches); i++)
        fprintf(to, "    banyan bench %-12s %s\n", benches[i].name, benches[i].help);
    return is_help ? 0 : 2;
}
