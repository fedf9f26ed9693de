#include "deploy/cli/in_python.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "deploy/cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *find_package(const char *exe_dir) {
    static const char *const places[] = {"../../deploy/python", "../share/banyan/python"};
    for (size_t i = 0; i < BY_COUNTOF(places); i++) {
        char *folder = by_path_join(exe_dir, places[i]), *package = by_path_join(folder, "banyan");
        bool is_there = by_file_is_dir(package);
        by_free(package);
        if (is_there) return folder;
        by_free(folder);
    }
    return NULL;
}

int in_python(const char *module, int argc, char **argv, int from) {
    const char *named = getenv("BANYAN_PYTHON"), *python = named && *named ? named : "python3";
    char *dir = by_proc_exe_dir(), *folder = find_package(dir),
         *banyan = by_path_join(dir, "banyan");
    if (!folder) {
        fprintf(stderr, "banyan: the Python package is neither in this checkout nor in "
                        "share/banyan/python of this installation\n");
        return 1;
    }
    char **words = by_alloc_array((size_t)argc + 4, sizeof *words);
    words[0] = by_strdup(python);
    words[1] = by_strdup("-m");
    words[2] = by_strdup(module);
    for (int i = from; i < argc; i++)
        words[i + 3 - from] = argv[i];
    setenv("PYTHONPATH", folder, 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    setenv("BANYAN_BIN", banyan, 0);
    execvp(python, words);
    fprintf(stderr, "banyan: %s: %s; BANYAN_PYTHON names another Python\n", python,
            strerror(errno));
    return 1;
}

int cmd_top(int argc, char **argv) {
    return in_python("banyan.top", argc, argv, 1);
}
