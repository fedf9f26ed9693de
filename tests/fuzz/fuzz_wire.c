/* Any sequence of events from two peers, through the session layer, over a socket that is this file.
 *     event: op, length, bytes.  op & 7: 0 raw frame; 1 connected; 2 disconnected; 3 the socket is full; 4… kind, number of
 *     fields and fields, behind the session and sequence number that are due.  op & 8: which peer */
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/net/channel.h"
#include "proto/wire.h"
#include "tests/fuzz/fuzz.h"

#include <sys/eventfd.h>

static struct by_str script;
static char text[2 + 9 + 9 + 256];
static bool is_full;
static struct wire_peer *peers[2];
static uint64_t seq_out;
static int connection;

int by_channel_open(struct by_channel **out, const struct by_channel_options *o,
                    struct by_err *err) {
    (void)o, (void)err;
    *out = NULL;
    return 0;
}
void by_channel_close(struct by_channel *c) {
    (void)c;
}
void by_channel_fds(const struct by_channel *c, int fds[2]) {
    static int fd = -1;
    (void)c;
    if (fd < 0) fd = eventfd(0, EFD_NONBLOCK);
    fds[0] = fds[1] = fd;
}
bool by_channel_has_input(const struct by_channel *c) {
    (void)c;
    return script.n > 0;
}
const char *by_channel_endpoint(const struct by_channel *c) {
    (void)c;
    return "fuzz";
}
int by_channel_connection(struct by_channel *c) {
    (void)c;
    return connection;
}
int by_channel_send(struct by_channel *c, struct by_str peer, struct by_str frame) {
    (void)c, (void)peer, (void)frame;
    return is_full ? BY_EAGAIN : 0;
}

/* [kind, session, seq, fields…] */
static struct by_str stamped(struct by_str bytes, const struct wire_peer *p) {
    char head[] = {(char)0xdc, 0, (char)(3 + (bytes.p[1] & 31)), bytes.p[0] & 0x7f, (char)0xcf};
    uint64_t numbers[2] = {__builtin_bswap64(p ? p->session : 0), __builtin_bswap64(++seq_out)};
    memcpy(text, head, 5);
    memcpy(text + 5, &numbers[0], 8);
    text[13] = (char)0xcf;
    memcpy(text + 14, &numbers[1], 8);
    memcpy(text + 22, bytes.p + 2, bytes.n - 2);
    return (struct by_str){text, 22 + bytes.n - 2};
}

enum by_channel_event by_channel_recv(struct by_channel *c, struct by_str *peer,
                                      struct by_str *frame) {
    (void)c;
    if (script.n < 4) {
        script.n = 0;
        return BY_CHANNEL_NOTHING;
    }
    uint8_t op = (uint8_t)script.p[0], n = (uint8_t)script.p[1];
    struct by_str bytes = by_str_sub(script, 2, BY_MAX(n, 2));
    script = by_str_sub(script, 2 + bytes.n, script.n);
    is_full = (op & 7) == 3;
    connection = op >> 3 & 1;
    *peer = op & 8 ? BY_STR("gpu-worker:1:1") : BY_STR("router:0:2");
    *frame = (op & 7) == 0 ? bytes : stamped(bytes, peers[op >> 3 & 1]);
    if ((op & 7) == 1) return BY_CHANNEL_CONNECTED;
    return (op & 7) == 2 ? BY_CHANNEL_DISCONNECTED : BY_CHANNEL_FRAME;
}

static void on_up(void *ctx, struct wire_peer *p) {
    struct wire_peer **slot = &peers[p->role == ROLE_GPU_WORKER];
    *slot = p;
    seq_out = 0;
    p->user = ctx; /* each up has its down */
}
static void on_msg(void *ctx, struct wire_peer *p, const struct msg *m) {
    by_assert(p->user == ctx);
    wire_send(p, m);
}
static void on_down(void *ctx, struct wire_peer *p, const char *why) {
    by_assert(p->user == ctx && why[0]);
    for (int i = 0; i < 2; i++)
        if (peers[i] == p) peers[i] = NULL;
    p->user = NULL;
}
static void on_refused(void *ctx, const char *why) {
    (void)ctx;
    by_assert(why[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct wire_options o = {.endpoint = "fuzz",
                             .role = ROLE_SCHEDULER,
                             .epoch = 1,
                             .up = on_up,
                             .msg = on_msg,
                             .down = on_down,
                             .refused = on_refused,
                             .ctx = &script};
    by_log_init(&(struct by_log_options){.process = "fuzz", .level = BY_LOG_ERROR});
    for (int is_bind = 0; is_bind < 2; is_bind++) {
        struct wire *w = NULL;
        script = fuzz_bytes(data, size);
        o.is_bind = is_bind;
        peers[0] = peers[1] = NULL;
        seq_out = 0;
        by_assert(wire_open(&w, &o, NULL) == 0);
        wire_pump(w, 1000000);
        wire_pump(w, 9000000000);
        wire_close(w);
    }
    return 0;
}
