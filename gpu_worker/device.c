#include "gpu_worker/device.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "common/base/str.h"
#include "gpu_worker/cpu/cpu_backend.h"
#include "gpu_worker/cuda/cuda_module.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICES_MAX = 1024,
    STEP_MS = 60000, /* a step that takes longer on a GPU will never end */
};

static int open_cpu(struct backend **out, const struct by_options *o, struct by_err *err) {
    struct cpu_options c = {.n_threads = (uint32_t)o->threads,
                            .isa = cpu_isa_best(),
                            .exact_bf16 = strcmp(o->cpu_bf16, "exact") == 0,
                            .exact_activations = getenv("BANYAN_TEST_EXACT") != NULL};
    if (strcmp(o->cpu_isa, "portable") == 0) c.isa = CPU_ISA_PORTABLE;
    if (strcmp(o->cpu_isa, "avx2") == 0) c.isa = BY_MIN(c.isa, CPU_ISA_AVX2);
    return cpu_backend_new(out, &c, err);
}

/* lib/ beside the folder of the programs, in a build as in an installation; tests name another one. */
static char *module_path(void) {
    const char *other = getenv("BANYAN_CUDA_MODULE");
    if (other) return by_strdup(other);
    char *dir = by_proc_exe_dir(), *path = by_path_join(dir, "../lib/banyan-cuda.so");
    by_free(dir);
    return path;
}

static int load_module(const struct cuda_module **out, const char *path, struct by_err *err) {
    const struct cuda_module *(*module)(void) = NULL;
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL), *symbol = NULL;
    if (!lib)
        return by_fail(
            err, BY_EUNAVAILABLE,
            "--device cuda: the CUDA backend is not there (%s); build with a CUDA compiler at hand "
            "(deploy/setup.sh --cuda), or use --device cpu",
            dlerror());
    symbol = dlsym(lib, "banyan_cuda_module");
    memcpy(&module, &symbol, sizeof module); /* POSIX: a function's address in a data pointer */
    *out = module ? module() : NULL;
    if (*out && (*out)->abi == CUDA_MODULE_ABI && (*out)->backend_bytes == sizeof(struct backend))
        return 0;
    return by_fail(err, BY_EUNAVAILABLE,
                   "--device cuda: %s is of another build (its interface is %u, %u is needed); "
                   "build both together",
                   path, *out ? (*out)->abi : 0, (unsigned)CUDA_MODULE_ABI);
}

/* Which of its host's workers this is. */
static uint32_t local_rank(const struct by_options *o) {
    return (uint32_t)(o->local_rank >= 0 ? o->local_rank : o->dp_rank * o->tp_size + o->tp_rank);
}

static int open_cuda(struct backend **out, const struct by_options *o, uint32_t first,
                     struct by_err *err) {
    const struct cuda_module *m = NULL;
    const bool is_shared = getenv("BANYAN_TEST_ONE_DEVICE") != NULL;
    const struct cuda_options c = {
        .device = first + (is_shared ? 0 : local_rank(o)),
        .shares_device = is_shared,
        .is_deterministic = o->deterministic,
        .no_graphs = o->disable_cuda_graph,
        .deadline_ms = STEP_MS,
    };
    char *path = module_path();
    int rc = load_module(&m, path, err);
    by_free(path);
    return rc ? rc : m->open(out, &c, err);
}

int device_open(struct backend **out, const struct by_options *o, struct by_err *err) {
    struct by_str kind, rest = by_str_of(o->device);
    uint64_t first = 0;
    bool has_number = by_str_split(&rest, ':', &kind);
    if (!has_number && by_str_eqz(kind, "cpu")) return open_cpu(out, o, err);
    if (by_str_eqz(kind, "cuda") &&
        (!has_number || (by_str_to_u64(rest, &first) && first < DEVICES_MAX)))
        return open_cuda(out, o, (uint32_t)first, err);
    return by_fail(err, BY_EINVAL, "--device %s: there are cpu, cuda and cuda:N", o->device);
}
