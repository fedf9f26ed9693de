#include "deploy/cli/cmd.h"
#include "common/base/base.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "deploy/cli/fetch_model.h"
#include "deploy/cli/in_python.h"

#include <errno.h>
#include <stdio.h>
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
    if (rc) return cmd_fail("bench", err.text);
    by_free(o.model_path);
    o.model_path = path;
    if (!o.one_batch) o.one_batch = by_strdup(SHAPES);
    char *dir = by_proc_exe_dir(), *worker = by_path_join(dir, "banyan-gpu-worker");
    char **words = by_options_argv(&o, worker, BY_FOR_WORKER);
    execv(worker, words);
    fprintf(stderr, "banyan bench: %s: %s\n", worker, strerror(errno));
    return 1;
}

static int bench_server(int argc, char **argv) {
    return in_python("banyan.bench", argc, argv, 0);
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"serve", bench_server, "a server over HTTP: latencies, rates, cache hits; beside another one"},
    {"offline", bench_server, "the Python Engine: all requests at once"},
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
