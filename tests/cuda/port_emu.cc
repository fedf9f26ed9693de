/* The emulator as a device (port.h). Work is kept until somebody waits for it, or looks: each look carries out a few commands. Host
 * memory is read only then: who forgets to wait, or changes memory too early, computes with poison.
 *
 *     BANYAN_EMU_BYTES=n     memory of the device            BANYAN_EMU_FAIL=n     command n fails, as an illegal address does
 *     BANYAN_EMU_HANG=n      command n never ends            BANYAN_EMU_REVERSE=1  the last lane first
 *     BANYAN_EMU_GRAPHS=n    there is memory for n graphs; n@d: of device d
 *     BANYAN_EMU_FAIL_FILE=f as FAIL, with the number in file f, which is removed then: the next device does not fail */
#include "tests/cuda/emu.h"

#include "gpu_worker/cuda/port.h"
#include "tests/cuda/port_emu.h"

#include <deque>
#include <functional>
#include <map>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <vector>

enum { COMMANDS_A_LOOK = 16 }; /* as far as this device gets between two looks at it */
/* Bytes behind an allocation that stay as they are. */
#if defined(__SANITIZE_ADDRESS__)
enum { GUARD = 0 }; /* it has its own */
#else
enum { GUARD = 256 };
#endif

struct command {
    struct port_launch launch;
    std::vector<uint8_t> args;
    std::function<void()> other; /* instead of a kernel */
    int mark;                    /* -1: none */
};

struct port_graph {
    std::vector<command> commands;
};

struct port {
    std::deque<command> pending;
    std::vector<command> recorded;
    std::map<void *, size_t> sizes;
    uint64_t limit, used, n_done, fail_at, hang_at, n_graphs;
    uint32_t n_pending_marks[PORT_MARKS];
    bool is_recording, has_failed, hangs;
    char error[160];
};

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t number_in(const char *path) {
    unsigned long long n = 0;
    FILE *f = path ? fopen(path, "r") : NULL;
    if (f && fscanf(f, "%llu", &n) != 1) n = 0;
    if (f) fclose(f);
    return n;
}

static uint64_t graphs_of(uint32_t device) {
    const char *text = getenv("BANYAN_EMU_GRAPHS"), *at = text ? strchr(text, '@') : NULL;
    bool is_meant = text && (!at || strtoul(at + 1, NULL, 10) == device);
    return is_meant ? strtoull(text, NULL, 10) : UINT64_MAX;
}

static pid_t opener; /* CUDA's devices are no child's */

extern "C" {

int port_open(struct port **out, uint32_t index, struct port_device *device, struct by_err *err) {
    if (index > 1)
        return by_fail(err, BY_EINVAL, "--device cuda:%u: this machine has 2 emulated devices",
                       index);
    if (!opener) opener = getpid();
    if (opener != getpid())
        return by_fail(err, BY_EUNAVAILABLE,
                       "--device cuda:%u: initialization error (forked from a process that has a "
                       "device, emulated)",
                       index);
    struct port *p = new port();
    p->limit = number("BANYAN_EMU_BYTES", UINT64_C(8) << 30);
    p->fail_at = number("BANYAN_EMU_FAIL", 0);
    p->hang_at = number("BANYAN_EMU_HANG", 0);
    p->n_graphs = graphs_of(index);
    if (!p->fail_at) p->fail_at = number_in(getenv("BANYAN_EMU_FAIL_FILE"));
    emu_order(number("BANYAN_EMU_REVERSE", 0));
    memset(device, 0, sizeof *device);
    snprintf(device->name, sizeof device->name, "SIMT emulator");
    device->uuid[15] = (uint8_t)index;
    device->free_bytes = device->total_bytes = p->limit;
    device->n_processors = 2;
    device->major = 9;
    *out = p;
    return 0;
}

void port_close(struct port *p) {
    if (p && !p->sizes.empty()) {
        fprintf(stderr, "emulator: %zu device allocations were never freed\n", p->sizes.size());
        abort();
    }
    delete p;
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

void port_overlap(struct port *) {
}

uint64_t port_free_bytes(struct port *p) {
    return p->limit - p->used;
}

bool port_is_checked(const struct port *) {
    return true;
}

void *port_stream(struct port *p) {
    return p;
}

/* ---- carrying out ---- */

static void drop(struct port *p, const char *why) {
    const char *once = getenv("BANYAN_EMU_FAIL_FILE");
    if (once) unlink(once);
    p->has_failed = true;
    snprintf(p->error, sizeof p->error, "%s", why);
}

/* At exit a driver may wait for the device. */
static void hold(void) {
    while (true)
        pause();
}

static void carry_out(struct port *p, const command &c) {
    if (c.mark >= 0) {
        p->n_pending_marks[c.mark]--;
        return;
    }
    p->n_done++;
    if (p->n_done == p->fail_at) drop(p, "an illegal memory access was encountered (emulated)");
    if (p->n_done == p->hang_at) {
        p->hangs = true;
        atexit(hold);
    }
    if (p->has_failed || p->hangs) return;
    if (c.other)
        c.other();
    else
        emu_run(c.launch.kernel, c.launch.grid, c.launch.block, c.launch.shared_bytes,
                c.args.data());
}

/* While a graph is recorded CUDA takes work for the stream and little else: what allocates, waits or looks spoils it. */
static void not_recorded(const struct port *p, const char *what) {
    if (!p->is_recording) return;
    fprintf(stderr, "emulator: %s while a graph is recorded\n", what);
    abort();
}

static void advance(struct port *p) {
    command c = std::move(p->pending.front());
    p->pending.pop_front();
    carry_out(p, c);
}

static void drain(struct port *p) {
    while (!p->pending.empty())
        advance(p);
}

static int give(struct port *p, command c) {
    if (p->has_failed) return -1;
    if (p->is_recording)
        p->recorded.push_back(std::move(c));
    else
        p->pending.push_back(std::move(c));
    return 0;
}

static command other(std::function<void()> fn) {
    command c = {};
    c.other = std::move(fn);
    c.mark = -1;
    return c;
}

} /* extern "C" */

bool emu_is_recording(void *stream) {
    return ((struct port *)stream)->is_recording;
}

/* For what stands in for a library: fn in its turn; false: it never ends. */
void emu_later(void *stream, std::function<bool()> fn) {
    struct port *p = (struct port *)stream;
    (void)give(p, other([=] {
                   if (!fn()) p->hangs = true;
               }));
}

extern "C" {

/* ---- memory ---- */

static const std::vector<uint8_t> guard(GUARD, 0x5a);

void *port_malloc(struct port *p, size_t n) {
    not_recorded(p, "memory is asked for");
    if (n > p->limit - p->used) return NULL;
    void *at = aligned_alloc(256, (n + GUARD + 255) / 256 * 256);
    if (!at) return NULL;
    memset(at, 0xff, n);
    memcpy((uint8_t *)at + n, guard.data(), GUARD);
    p->sizes[at] = n;
    p->used += n;
    return at;
}

void port_free(struct port *p, void *at) {
    if (!at) return;
    not_recorded(p, "memory is freed");
    drain(p);
    if (memcmp((uint8_t *)at + p->sizes.at(at), guard.data(), GUARD)) {
        fprintf(stderr, "emulator: something wrote behind an allocation of %zu bytes\n",
                p->sizes.at(at));
        abort();
    }
    p->used -= p->sizes.at(at);
    p->sizes.erase(at);
    free(at);
}

void *port_pinned(struct port *p, size_t n) {
    not_recorded(p, "pinned memory is asked for");
    void *at = aligned_alloc(64, (n + 63) / 64 * 64);
    if (at) memset(at, 0xff, n);
    return at;
}

void port_pinned_free(struct port *p, void *at) {
    not_recorded(p, "pinned memory is freed");
    drain(p);
    free(at);
}

int port_load(struct port *p, void *device, const void *host, size_t n) {
    not_recorded(p, "something is loaded");
    drain(p);
    if (n) memcpy(device, host, n);
    return p->has_failed ? -1 : 0;
}

int port_to_device(struct port *p, void *device, const void *host, size_t n) {
    return give(p, other([=] { memcpy(device, host, n); }));
}

int port_to_host(struct port *p, void *host, const void *device, size_t n) {
    return give(p, other([=] { memcpy(host, device, n); }));
}

int port_zero(struct port *p, void *device, size_t n) {
    return give(p, other([=] { memset(device, 0, n); }));
}

int port_run(struct port *p, const struct port_launch *l, const void *args) {
    command c = {};
    c.launch = *l;
    c.args.assign((const uint8_t *)args, (const uint8_t *)args + l->n_args);
    c.mark = -1;
    return give(p, std::move(c));
}

/* ---- graphs and marks ---- */

int port_record(struct port *p) {
    p->is_recording = true;
    p->recorded.clear();
    return 0;
}

int port_recorded(struct port *p, struct port_graph **out) {
    p->is_recording = false;
    *out = p->n_graphs ? new port_graph{p->recorded} : NULL;
    p->n_graphs -= p->n_graphs > 0;
    p->recorded.clear();
    return 0;
}

int port_graph_run(struct port *p, struct port_graph *g) {
    for (const command &c : g->commands)
        if (give(p, c)) return -1;
    return 0;
}

void port_graph_free(struct port *p, struct port_graph *g) {
    if (!g) return;
    drain(p);
    delete g;
    p->n_graphs++;
}

int port_mark(struct port *p, uint32_t mark) {
    not_recorded(p, "a mark is set");
    command c = {};
    c.mark = (int)mark;
    p->n_pending_marks[mark]++;
    return give(p, std::move(c));
}

/* A millisecond a command: what takes more of them is slower. */
int port_time(struct port *p, int (*fn)(void *), void *ctx, uint32_t, float *ms) {
    *ms = INFINITY;
    not_recorded(p, "time is taken");
    drain(p);
    uint64_t before = p->n_done;
    if (fn(ctx)) return 1;
    drain(p);
    *ms = (float)(p->n_done - before);
    return p->has_failed || p->hangs ? -1 : 0;
}

int port_reached(struct port *p, uint32_t mark) {
    not_recorded(p, "a mark is looked at");
    for (int i = 0; i < COMMANDS_A_LOOK && p->n_pending_marks[mark]; i++)
        advance(p);
    if (p->hangs) return port_wait(p, mark, 0);
    if (p->has_failed) return -1;
    return p->n_pending_marks[mark] == 0;
}

int port_wait(struct port *p, uint32_t mark, uint32_t deadline_ms) {
    not_recorded(p, "a mark is waited for");
    if (p->n_pending_marks[mark]) drain(p);
    if (p->hangs) {
        snprintf(p->error, sizeof p->error, "not done after %u ms (emulated)", deadline_ms);
        p->has_failed = true;
    }
    return p->has_failed ? -1 : 0;
}
}
