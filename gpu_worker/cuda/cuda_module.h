/* cuda_module.h - the door of banyan-cuda.so: what the gpu worker asks of the module that it loads at run time.
 *
 *     dlopen("banyan-cuda.so") ─▶ banyan_cuda_module() ─▶ { abi, sizes } equal? ─▶ open(device) ─▶ struct backend
 *
 * A worker on a CPU never loads it and links nothing of CUDA.
 * Always: abi goes up with every change of backend.h or of this file; a module of another build is refused by its numbers.
 * Owner: nobody; the module is never unloaded. */
#ifndef GPU_WORKER_CUDA_CUDA_MODULE_H
#define GPU_WORKER_CUDA_CUDA_MODULE_H

#include "gpu_worker/backend.h"

enum { CUDA_MODULE_ABI = 8 };

struct cuda_options {
    uint32_t device;
    bool is_deterministic; /* bits independent of batch and chunking */
    bool no_graphs;
    bool shares_device;   /* a test: ranks may have one device, and meet as if on several hosts */
    uint32_t deadline_ms; /* for what a step may take on the device */
};

struct cuda_module {
    uint32_t abi, backend_bytes;
    const char *build; /* "CUDA 13.0, cuBLASLt, NCCL 2.28.9": for people */
    int (*open)(struct backend **out, const struct cuda_options *o, struct by_err *err);
};

const struct cuda_module *banyan_cuda_module(void);

#endif
