/* port.h - the few things that the backend asks of a device; everything else of this room is written over it.
 *
 *     port_cuda.c   the CUDA runtime                    tests/cuda/port_emu.cc   the SIMT emulator: "device memory" is
 *                                                                                host memory, a launch is a loop
 *
 *     one stream:  port_to_device ─▶ port_launch … ─▶ port_to_host ─▶ port_mark ─▶ port_wait
 *
 * Always: work is done in the order in which it was given; only port_wait waits, and not past its deadline. A call that
 * returns non-zero has put the reason into port_error, and the device is of no more use.
 * Owner: the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_PORT_H
#define GPU_WORKER_CUDA_PORT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "common/base/err.h"

struct port;
struct port_graph; /* commands recorded once, started as one */

struct port_device {
    char name[96];
    uint8_t uuid[16]; /* no other device has it, on any host */
    uint64_t free_bytes, total_bytes;
    uint32_t n_processors, major, minor; /* compute capability */
};

/* Commands are launched with one struct as their only argument. */
struct port_launch {
    const void *kernel; /* CUDA: the kernel's host symbol; emulator: a function that unpacks args */
    uint32_t grid[3], block, shared_bytes;
    uint32_t n_args; /* bytes */
};

BY_MUST_USE int port_open(struct port **out, uint32_t index, struct port_device *device,
                          struct by_err *err);
void port_close(struct port *p); /* NULL is fine */
const char *port_error(const struct port *p);
/* Keeps a reason that a library gave, if there is none yet; returns -1. */
BY_PRINTF(2, 3) int port_fail(struct port *p, const char *fmt, ...);
uint64_t port_free_bytes(struct port *p);
/* Is every allocation better made alone? The emulator says so: the sanitizer then sees its ends. */
bool port_is_checked(const struct port *p);
void *port_stream(struct port *p); /* cudaStream_t, for libraries that want one */

void *port_malloc(struct port *p, size_t n); /* device memory, 256-byte aligned; NULL: none */
void port_free(struct port *p, void *at);
/* host memory that copies need not stage; NULL: none */
void *port_pinned(struct port *p, size_t n);
void port_pinned_free(struct port *p, void *at);

/* Enqueued. The host side is pinned memory, and stays as it is until the work is done. */
BY_MUST_USE int port_to_device(struct port *p, void *device, const void *host, size_t n);
BY_MUST_USE int port_to_host(struct port *p, void *host, const void *device, size_t n);
BY_MUST_USE int port_zero(struct port *p, void *device, size_t n);
BY_MUST_USE int port_run(struct port *p, const struct port_launch *l, const void *args);
/* From now on a kernel may come up before the one before it is done, and waits itself (begin, device.cuh); where the device
 * has that. */
void port_overlap(struct port *p);
/* Any host memory, at once: for loading. */
BY_MUST_USE int port_load(struct port *p, void *device, const void *host, size_t n);

/* What is given between the two is recorded and not done. *out NULL with 0: there is no memory for one more graph. */
BY_MUST_USE int port_record(struct port *p);
BY_MUST_USE int port_recorded(struct port *p, struct port_graph **out);
BY_MUST_USE int port_graph_run(struct port *p, struct port_graph *g);
void port_graph_free(struct port *p, struct port_graph *g);

/* Marks 0 … PORT_MARKS - 1; a mark not yet set counts as reached. */
enum { PORT_MARKS = 4 };
BY_MUST_USE int port_mark(struct port *p, uint32_t mark);
BY_MUST_USE int port_wait(struct port *p, uint32_t mark, uint32_t deadline_ms);
/* Without waiting: 1 when the mark is reached, 0 when it is not yet, -1 when the device failed. */
BY_MUST_USE int port_reached(struct port *p, uint32_t mark);

/* How long what fn enqueues takes on the device, once all before it is done. fn returns non-zero: it could not be enqueued, and
 * so does this, with *ms infinite; the device is as good as before. At load: waits. */
BY_MUST_USE int port_time(struct port *p, int (*fn)(void *ctx), void *ctx, uint32_t deadline_ms,
                          float *ms);

#ifdef __cplusplus
}
#endif
#endif
