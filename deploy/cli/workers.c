#include "deploy/cli/workers.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENV_VALUE_MAX = 4096 };

/* The tree of this checkout or installation: where gpu_worker/hf lies. NULL: it is not there. Yours. */
static char *find_tree(const char *exe_dir) {
    static const char *const places[] = {"../..", "../share/banyan"};
    for (size_t i = 0; i < BY_COUNTOF(places); i++) {
        char *root = by_path_join(exe_dir, places[i]),
             *package = by_path_join(root, "gpu_worker/hf/banyan_hf_worker");
        bool is_there = by_file_is_dir(package);
        by_free(package);
        if (is_there) return root;
        by_free(root);
    }
    return NULL;
}

static char *find_python(const char *root) {
    const char *named = getenv("BANYAN_PYTHON");
    char *venv = by_path_join(root, ".venv-transformers/bin/python");
    if (named && *named) {
        by_free(venv);
        return by_strdup(named);
    }
    if (by_file_exists(venv)) return venv;
    by_free(venv);
    return NULL;
}

/* Which worker is number i: its flags, and its name among the processes. */
static char **flags_of(struct workers *w, uint32_t i) {
    char instance[32];
    uint32_t tp = (uint32_t)w->o.tp_size;
    w->o.dp_rank = i / tp;
    w->o.tp_rank = i % tp;
    w->o.local_rank = i; /* one host has them all */
    if (tp > 1)
        snprintf(instance, sizeof instance, "%u.%u", i / tp, i % tp);
    else
        snprintf(instance, sizeof instance, "%u", i);
    w->o.instance = instance;
    const char *named = getenv("BANYAN_GPU_WORKER"); /* a stand-in of the tests */
    char *path = named && *named ? by_strdup(named) : by_path_join(w->exe_dir, "banyan-gpu-worker");
    char **argv = by_options_argv(&w->o, path, BY_FOR_WORKER);
    by_free(path);
    return argv;
}

static struct child *add(struct workers *w, uint32_t i, char **argv, const char *const *env) {
    char name[64] = "gpu-worker";
    uint32_t tp = (uint32_t)w->o.tp_size;
    if (tp > 1)
        snprintf(name, sizeof name, "gpu-worker-%u.%u", i / tp, i % tp);
    else if (w->n > 1)
        snprintf(name, sizeof name, "gpu-worker-%u", i);
    return supervisor_add(w->supervisor, name, argv, env);
}

/* A checkout has a script that brings it; an installation has the list of what is needed. */
static int fail_no_transformers(const char *root, struct by_err *err) {
    char *script = root ? by_path_join(root, "deploy/setup.sh") : NULL;
    bool is_checkout = !root || by_file_exists(script);
    by_free(script);
    if (is_checkout)
        return by_fail(err, BY_ENOTFOUND,
                       "the transformers library is not installed for Banyan; run deploy/setup.sh "
                       "--transformers");
    char real[PATH_MAX];
    if (realpath(root, real)) root = real; /* without the .. of places[] */
    return by_fail(
        err, BY_ENOTFOUND,
        "the transformers library is not installed for Banyan; make it: python3 -m venv "
        "%s/.venv-transformers && %s/.venv-transformers/bin/pip install -r "
        "%s/gpu_worker/hf/requirements.txt (or name a Python that has it by BANYAN_PYTHON)",
        root, root, root);
}

/* python -m banyan_hf_worker with the flags of a gpu worker. */
static int use_transformers(struct workers *w, uint32_t i, struct by_err *err) {
    char *root = find_tree(w->exe_dir), *python = root ? find_python(root) : NULL,
         env[3][ENV_VALUE_MAX];
    const char *path = getenv("PYTHONPATH");
    if (!python) {
        int rc = fail_no_transformers(root, err);
        by_free(root);
        return rc;
    }
    char **flags = flags_of(w, i);
    size_t n = 0;
    while (flags[n])
        n++;
    char **argv = by_alloc_array(n + 3, sizeof *argv);
    argv[0] = by_strdup(python);
    argv[1] = by_strdup("-m");
    argv[2] = by_strdup("banyan_hf_worker");
    for (size_t k = 1; k < n; k++)
        argv[k + 2] = by_strdup(flags[k]);
    by_options_argv_free(flags);
    snprintf(env[0], sizeof env[0], "PYTHONPATH=%s/gpu_worker/hf%s%s", root, path ? ":" : "",
             path ? path : "");
    snprintf(env[1], sizeof env[1], "BANYAN_KERNELS=%s/../lib/libbanyan_kernels.so", w->exe_dir);
    snprintf(env[2], sizeof env[2], "PYTHONUNBUFFERED=1");
    const char *const extra[] = {env[0], env[1], env[2], NULL};
    w->children[i].is_transformers = true;
    if (w->children[i].child)
        child_set_argv(w->children[i].child, argv, extra);
    else
        w->children[i].child = add(w, i, argv, extra);
    by_free(root);
    by_free(python);
    return 0;
}

int workers_start(struct workers *w, struct supervisor *s, const struct by_options *o,
                  const char *exe_dir, struct by_err *err) {
    *w = (struct workers){
        .supervisor = s, .o = *o, .exe_dir = exe_dir, .n = (uint32_t)(o->dp_size * o->tp_size)};
    w->children = by_alloc_array(w->n, sizeof *w->children);
    if (!o->threads && w->n > 1) w->o.threads = BY_MAX(1u, by_proc_n_cpus() / w->n);
    /* On one host each takes its share of what is free; a GPU each has to itself. */
    if (w->n > 1 && strncmp(o->device, "cuda", 4) != 0)
        w->o.mem_fraction_static =
            BY_MAX((o->mem_fraction_static > 0 ? o->mem_fraction_static : 0.5) / w->n, 0.01);
    for (uint32_t i = 0; i < w->n; i++) {
        if (strcmp(o->model_impl, "transformers") == 0) {
            int rc = use_transformers(w, i, err);
            if (rc) return rc;
        } else {
            w->children[i].child = add(w, i, flags_of(w, i), NULL);
        }
    }
    return 0;
}

void workers_release(struct workers *w) {
    by_free(w->children);
    *w = (struct workers){0};
}

bool workers_hand_over(struct workers *w, struct child *c, struct by_err *err) {
    if (strcmp(w->o.model_impl, "auto") != 0) return false;
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->children[i].child != c || w->children[i].is_transformers) continue;
        by_info("the native engine does not know this model; transformers takes over for %s",
                child_name(c));
        return use_transformers(w, i, err) == 0;
    }
    return false;
}
