/* device.h - from --device to a backend: the CPU, which is linked in, or a GPU, whose module is loaded when asked for.
 *
 *     cpu ─▶ cpu_backend_new          cuda[:N] ─▶ dlopen lib/banyan-cuda.so ─▶ banyan_cuda_module ─▶ open
 *
 * Each worker of a host takes device N + its number there: --local-rank, or where one host has all, replica * tp_size + rank.
 * Always: what keeps a device from being used is one sentence in err: no module, another build's, no driver, no device.
 * Owner: the gpu worker's main thread. A module stays loaded. */
#ifndef GPU_WORKER_DEVICE_H
#define GPU_WORKER_DEVICE_H

#include "common/base/options.h"
#include "gpu_worker/backend.h"

BY_MUST_USE int device_open(struct backend **out, const struct by_options *o, struct by_err *err);

#endif
