#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "deploy/cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* banyan trace: a front door; the scheduler itself reads what it wrote (scheduler/trace.h). */

int cmd_trace(int argc, char **argv) {
    bool replays = cmd_take_word(&argc, argv, "--replay");
    bool is_help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    if (argc != 2 || (argv[1][0] == '-' && argv[1][1])) {
        fprintf(
            is_help ? stdout : stderr,
            "banyan trace FILE             prints what reached the scheduler, a line each\n"
            "banyan trace --replay FILE    puts it into a scheduler again: the same frames come "
            "out\n\nA trace is written by `banyan serve --trace-file FILE`. It holds prompts, "
            "but does not print them.\n");
        return is_help ? 0 : 2;
    }
    char *dir = by_proc_exe_dir(), *scheduler = by_path_join(dir, "banyan-scheduler");
    char *words[] = {scheduler, replays ? "--replay" : "--print-trace", argv[1], NULL};
    execv(scheduler, words);
    fprintf(stderr, "banyan trace: %s: %s\n", scheduler, strerror(errno));
    by_free(scheduler);
    by_free(dir);
    return 1;
}
