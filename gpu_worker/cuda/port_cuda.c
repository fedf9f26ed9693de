/* The CUDA runtime as a device (port.h). The one file that calls it. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "gpu_worker/cuda/port.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    SHARED_PLAIN = 48 << 10, /* more of it a kernel must be allowed first */
    POLL_NS = 20000,         /* between two looks at an event, once it is late */
    SPIN_NS = 200000,        /* so long without sleeping: most steps end within */
};

struct port_graph {
    cudaGraphExec_t exec;
};

struct port {
    cudaStream_t stream;
    cudaEvent_t marks[PORT_MARKS];
    cudaEvent_t from, to; /* of port_time */
    bool overlaps, knows_kernels;
    char error[256];
};

/* A library that asks for the last error is not to find one that was seen to. */
static cudaError_t seen(cudaError_t e) {
    if (e != cudaSuccess) (void)cudaGetLastError();
    return e;
}

static int check(struct port *p, cudaError_t e, const char *what) {
    if (seen(e) == cudaSuccess) return 0;
    snprintf(p->error, sizeof p->error, "%s: %s (%s)", what, cudaGetErrorString(e),
             cudaGetErrorName(e));
    return -1;
}

const char *port_error(const struct port *p) {
    return p->error;
}

int port_fail(struct port *p, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    if (!*p->error) vsnprintf(p->error, sizeof p->error, fmt, args);
    va_end(args);
    return -1;
}

/* The sentence for a machine that cannot: no driver, one that is too old, no device. */
static int no_device(cudaError_t e, struct by_err *err) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return by_fail(err, BY_EUNAVAILABLE,
                       "--device cuda: no CUDA driver is loaded here (nvidia-smi says more); use "
                       "--device cpu, or install the driver");
    if (e == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000)
        return by_fail(err, BY_EUNAVAILABLE,
                       "--device cuda: the driver knows CUDA %d.%d, this build needs %d.%d; update "
                       "the driver",
                       driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return by_fail(err, BY_EUNAVAILABLE, "--device cuda: no device: %s",
                   e == cudaSuccess ? "none is visible (CUDA_VISIBLE_DEVICES?)"
                                    : cudaGetErrorString(e));
}

static int describe(uint32_t index, struct port_device *d, struct by_err *err) {
    struct cudaDeviceProp prop;
    size_t free_bytes, total_bytes;
    cudaError_t e = cudaGetDeviceProperties(&prop, (int)index);
    if (e == cudaSuccess) e = cudaMemGetInfo(&free_bytes, &total_bytes);
    if (e != cudaSuccess)
        return by_fail(err, BY_EUNAVAILABLE, "--device cuda:%u: %s", index, cudaGetErrorString(e));
    *d = (struct port_device){.free_bytes = free_bytes,
                              .total_bytes = total_bytes,
                              .n_processors = (uint32_t)prop.multiProcessorCount,
                              .major = (uint32_t)prop.major,
                              .minor = (uint32_t)prop.minor};
    snprintf(d->name, sizeof d->name, "%.90s", prop.name);
    static_assert(sizeof d->uuid == sizeof prop.uuid.bytes, "NVIDIA's");
    memcpy(d->uuid, prop.uuid.bytes, sizeof d->uuid);
    if (d->major >= 8) return 0;
    return by_fail(err, BY_EUNAVAILABLE,
                   "--device cuda:%u: %s is sm_%u%u; kernels need sm_80 or later", index, d->name,
                   d->major, d->minor);
}

int port_open(struct port **out, uint32_t index, struct port_device *device, struct by_err *err) {
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n < 1) return no_device(e, err);
    if (index >= (uint32_t)n)
        return by_fail(err, BY_EINVAL,
                       "--device cuda:%u: there are %d devices, numbered from 0 (which is a "
                       "worker's: --local-rank)",
                       index, n);
    e = cudaSetDevice((int)index);
    if (e != cudaSuccess)
        return by_fail(err, BY_EUNAVAILABLE, "--device cuda:%u: %s", index, cudaGetErrorString(e));
    int rc = describe(index, device, err);
    if (rc) return rc;
    struct port *p = by_alloc(sizeof *p);
    e = cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking);
    for (int i = 0; i < PORT_MARKS && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&p->marks[i], cudaEventDisableTiming);
    if (e == cudaSuccess) e = cudaEventCreate(&p->from);
    if (e == cudaSuccess) e = cudaEventCreate(&p->to);
    if (e != cudaSuccess) {
        port_close(p);
        return by_fail(err, BY_EUNAVAILABLE, "--device cuda:%u: %s", index, cudaGetErrorString(e));
    }
    *out = p;
    return 0;
}

void port_close(struct port *p) {
    if (!p) return;
    for (int i = 0; i < PORT_MARKS; i++) {
        if (p->marks[i]) cudaEventDestroy(p->marks[i]);
    }
    if (p->from) cudaEventDestroy(p->from);
    if (p->to) cudaEventDestroy(p->to);
    if (p->stream) cudaStreamDestroy(p->stream);
    by_free(p);
}

uint64_t port_free_bytes(struct port *p) {
    size_t free_bytes = 0, total_bytes = 0;
    if (check(p, cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo")) return 0;
    return free_bytes;
}

bool port_is_checked(const struct port *p) {
    (void)p;
    return false;
}

void *port_stream(struct port *p) {
    return p->stream;
}

/* ---- memory ---- */

/* What there is no memory for is the caller's to tell: the device is as good as before. */
void *port_malloc(struct port *p, size_t n) {
    (void)p;
    void *at = NULL;
    return seen(cudaMalloc(&at, n)) ? NULL : at;
}

void port_free(struct port *p, void *at) {
    if (at) (void)check(p, cudaFree(at), "cudaFree"); /* waits for what uses it */
}

void *port_pinned(struct port *p, size_t n) {
    (void)p;
    void *at = NULL;
    return seen(cudaHostAlloc(&at, n, cudaHostAllocDefault)) ? NULL : at;
}

void port_pinned_free(struct port *p, void *at) {
    if (at) (void)check(p, cudaFreeHost(at), "cudaFreeHost");
}

int port_load(struct port *p, void *device, const void *host, size_t n) {
    cudaError_t e = cudaMemcpyAsync(device, host, n, cudaMemcpyHostToDevice, p->stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(p->stream); /* only while loading */
    return check(p, e, "copying to the device");
}

int port_to_device(struct port *p, void *device, const void *host, size_t n) {
    return check(p, cudaMemcpyAsync(device, host, n, cudaMemcpyHostToDevice, p->stream),
                 "copying to the device");
}

int port_to_host(struct port *p, void *host, const void *device, size_t n) {
    return check(p, cudaMemcpyAsync(host, device, n, cudaMemcpyDeviceToHost, p->stream),
                 "copying from the device");
}

int port_zero(struct port *p, void *device, size_t n) {
    return check(p, cudaMemsetAsync(device, 0, n, p->stream), "clearing memory");
}

/* ---- commands ---- */

void port_overlap(struct port *p) {
    p->overlaps = true;
}

/* Code made of PTX for older devices does not wait itself; all kernels are of one kind. */
static bool waits_itself(struct port *p, const void *kernel) {
    struct cudaFuncAttributes a;
    if (p->overlaps && !p->knows_kernels) {
        p->overlaps = seen(cudaFuncGetAttributes(&a, kernel)) == cudaSuccess && a.ptxVersion >= 90;
        p->knows_kernels = true;
    }
    return p->overlaps;
}

int port_run(struct port *p, const struct port_launch *l, const void *args) {
    union { /* the runtime's prototype takes the argument's address as not const; it only reads it */
        const void *in;
        void *out;
    } one = {.in = args};
    void *all[] = {one.out};
    cudaLaunchAttribute early = {.id = cudaLaunchAttributeProgrammaticStreamSerialization};
    early.val.programmaticStreamSerializationAllowed = 1;
    const struct cudaLaunchConfig_st config = {.gridDim = {l->grid[0], l->grid[1], l->grid[2]},
                                               .blockDim = {l->block, 1, 1},
                                               .dynamicSmemBytes = l->shared_bytes,
                                               .stream = p->stream,
                                               .attrs = &early,
                                               .numAttrs = waits_itself(p, l->kernel)};
    cudaError_t e = cudaSuccess;
    if (l->shared_bytes > SHARED_PLAIN)
        e = cudaFuncSetAttribute(l->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)l->shared_bytes);
    if (e == cudaSuccess) e = cudaLaunchKernelExC(&config, l->kernel, all);
    return check(p, e, "starting a kernel");
}

int port_record(struct port *p) {
    return check(p, cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeThreadLocal),
                 "recording a graph");
}

int port_recorded(struct port *p, struct port_graph **out) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    *out = NULL;
    cudaError_t e = cudaStreamEndCapture(p->stream, &graph);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (seen(e) == cudaErrorMemoryAllocation) return 0;
    if (check(p, e, "recording a graph")) return -1;
    *out = by_alloc(sizeof **out);
    (*out)->exec = exec;
    return 0;
}

int port_graph_run(struct port *p, struct port_graph *g) {
    return check(p, cudaGraphLaunch(g->exec, p->stream), "starting a graph");
}

void port_graph_free(struct port *p, struct port_graph *g) {
    if (!g) return;
    (void)check(p, cudaGraphExecDestroy(g->exec), "cudaGraphExecDestroy");
    by_free(g);
}

/* ---- waiting ---- */

int port_mark(struct port *p, uint32_t mark) {
    return check(p, cudaEventRecord(p->marks[mark], p->stream), "recording an event");
}

/* Never a blocking call: a kernel that spins for a dead peer would hold it for ever. */
static int wait_for(struct port *p, cudaEvent_t event, uint32_t deadline_ms) {
    uint64_t from = by_now_ns(), waited = 0;
    while (waited < (uint64_t)deadline_ms * 1000000) {
        cudaError_t e = seen(cudaEventQuery(event));
        if (e != cudaErrorNotReady) return check(p, e, "a step");
        if (waited > SPIN_NS) nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        waited = by_now_ns() - from;
    }
    snprintf(p->error, sizeof p->error, "a step is not done after %u ms", deadline_ms);
    return -1;
}

int port_wait(struct port *p, uint32_t mark, uint32_t deadline_ms) {
    return wait_for(p, p->marks[mark], deadline_ms);
}

int port_reached(struct port *p, uint32_t mark) {
    cudaError_t e = seen(cudaEventQuery(p->marks[mark]));
    if (e == cudaErrorNotReady) return 0;
    return check(p, e, "a step") ? -1 : 1;
}

int port_time(struct port *p, int (*fn)(void *ctx), void *ctx, uint32_t deadline_ms, float *ms) {
    *ms = INFINITY;
    if (check(p, cudaEventRecord(p->from, p->stream), "recording an event")) return -1;
    if (fn(ctx)) return 1;
    if (check(p, cudaEventRecord(p->to, p->stream), "recording an event")) return -1;
    if (wait_for(p, p->to, deadline_ms)) return -1;
    return check(p, cudaEventElapsedTime(ms, p->from, p->to), "timing");
}
