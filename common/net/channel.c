#include "common/net/channel.h"

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/keys.h"
#include "common/net/zap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum {
    HIGH_WATER = 100000, /* frames a peer; wire.c's credit bounds the bytes */
    SILENCE_MS = 5000,
    RECONNECT_MS = 20, /* a restarted process is found again at once; the wait doubles up to … */
    RECONNECT_MAX_MS = 500,
    HANDSHAKE_MS = 5000,
    EVENTS = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED,
};

struct by_channel {
    void *socket, *monitor;
    bool is_bind, is_bound;
    zmq_msg_t peer, frame; /* of the last recv */
    int connection;        /* of the last event; -1: the last recv gave a frame */
    char endpoint[256];
};

/* One context a process, never ended: ending it would wait for sockets, and the process ends anyway. */
static void *context(void) {
    static void *ctx;
    if (!ctx) ctx = zmq_ctx_new();
    if (!ctx) by_die("libzmq cannot start: %s", zmq_strerror(errno));
    return ctx;
}

static void set_int(void *socket, int option, int value) {
    int rc = zmq_setsockopt(socket, option, &value, sizeof value);
    by_assert(rc == 0);
}

static void set_options(void *socket, const struct by_channel_options *o) {
    int silence = o->silence_ms ? (int)o->silence_ms : SILENCE_MS;
    int64_t frame_max = (int64_t)o->frame_bytes_max;
    int rc = zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max);
    by_assert(rc == 0);
    set_int(socket, ZMQ_SNDHWM, HIGH_WATER);
    set_int(socket, ZMQ_RCVHWM, HIGH_WATER);
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_IMMEDIATE, 1);
    set_int(socket, ZMQ_HEARTBEAT_IVL, silence / 3);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, silence);
    set_int(socket, ZMQ_HEARTBEAT_TTL, silence);
    set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    if (o->is_bind) {
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
        set_int(socket, ZMQ_ROUTER_HANDOVER, 1);
        return;
    }
    set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    rc = zmq_setsockopt(socket, ZMQ_ROUTING_ID, o->identity, strlen(o->identity));
    by_assert(rc == 0);
}

static int start_zap(const struct by_keys *keys, struct by_err *err) {
    static bool is_started;
    int rc = is_started ? 0 : by_zap_start(context(), keys, err);
    is_started = rc == 0;
    return rc;
}

/* Nothing goes over a network in the clear, and nobody comes in without a key of ours. */
static int set_keys(void *socket, const struct by_channel_options *o, struct by_err *err) {
    struct by_keys k;
    if (strncmp(o->endpoint, "tcp://", 6) != 0) return 0;
    if (!o->key_file)
        return by_fail(err, BY_EINVAL,
                       "%s: tcp:// needs --curve-key-file; `banyan keys FILE` makes one",
                       o->endpoint);
    int rc = by_keys_read(&k, o->key_file, err);
    if (!rc && o->is_bind) rc = start_zap(&k, err);
    if (rc) return rc;
    set_int(socket, ZMQ_IPV6, strchr(o->endpoint, '[') != NULL);
    if (o->is_bind) {
        set_int(socket, ZMQ_CURVE_SERVER, 1);
        rc = zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "banyan", 6);
    } else {
        set_int(socket, ZMQ_CONNECT_TIMEOUT, HANDSHAKE_MS);
        rc = zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, k.server_key, BY_KEYS_Z85);
        by_assert(rc == 0);
        rc = zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, k.public_key, BY_KEYS_Z85);
    }
    by_assert(rc == 0);
    rc = zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k.secret_key, BY_KEYS_Z85);
    by_assert(rc == 0);
    explicit_bzero(&k, sizeof k);
    return 0;
}

static int open_monitor(struct by_channel *c, struct by_err *err) {
    static unsigned n;
    char name[64];
    snprintf(name, sizeof name, "inproc://monitor-%u", n++);
    c->monitor = zmq_socket(context(), ZMQ_PAIR);
    if (!c->monitor || zmq_socket_monitor(c->socket, name, EVENTS) ||
        zmq_connect(c->monitor, name)) {
        return by_fail(err, BY_EIO, "%s: libzmq's monitor does not start: %s", c->endpoint,
                       zmq_strerror(errno));
    }
    set_int(c->monitor, ZMQ_LINGER, 0);
    return 0;
}

int by_channel_open(struct by_channel **out, const struct by_channel_options *o,
                    struct by_err *err) {
    by_assert(o->is_bind || (o->identity && strlen(o->identity) <= 200));
    struct by_channel *c = by_alloc(sizeof *c);
    c->is_bind = o->is_bind;
    zmq_msg_init(&c->peer);
    zmq_msg_init(&c->frame);
    snprintf(c->endpoint, sizeof c->endpoint, "%s", o->endpoint);
    c->socket = zmq_socket(context(), o->is_bind ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!c->socket) {
        by_channel_close(c);
        return by_fail(err, BY_EIO, "%s: no socket: %s", o->endpoint, zmq_strerror(errno));
    }
    set_options(c->socket, o);
    int rc = set_keys(c->socket, o, err);
    if (!rc) rc = open_monitor(c, err);
    if (!rc && (o->is_bind ? zmq_bind : zmq_connect)(c->socket, o->endpoint)) {
        rc = by_fail(err, BY_EIO, "cannot %s %s: %s", o->is_bind ? "listen on" : "connect to",
                     o->endpoint, zmq_strerror(errno));
    }
    if (rc) {
        by_channel_close(c);
        return rc;
    }
    size_t n = sizeof c->endpoint;
    c->is_bound = o->is_bind;
    if (o->is_bind) (void)zmq_getsockopt(c->socket, ZMQ_LAST_ENDPOINT, c->endpoint, &n);
    *out = c;
    return 0;
}

void by_channel_close(struct by_channel *c) {
    if (!c) return;
    zmq_msg_close(&c->frame);
    zmq_msg_close(&c->peer);
    if (c->monitor) {
        zmq_socket_monitor(c->socket, NULL, 0);
        zmq_close(c->monitor);
    }
    if (c->socket) zmq_close(c->socket);
    /* libzmq's own thread would do it too, if the process lived long enough. */
    if (c->is_bound && strncmp(c->endpoint, "ipc://", 6) == 0) unlink(c->endpoint + 6);
    by_free(c);
}

static int fd_of(void *socket) {
    int fd = -1;
    size_t n = sizeof fd;
    int rc = zmq_getsockopt(socket, ZMQ_FD, &fd, &n);
    by_assert(rc == 0);
    return fd;
}

void by_channel_fds(const struct by_channel *c, int fds[2]) {
    fds[0] = fd_of(c->socket);
    fds[1] = fd_of(c->monitor);
}

bool by_channel_has_input(const struct by_channel *c) {
    int events = 0;
    size_t n = sizeof events;
    int rc = zmq_getsockopt(c->socket, ZMQ_EVENTS, &events, &n);
    return rc == 0 && (events & ZMQ_POLLIN);
}

/* An error that is not meant to come. Going on would lose a frame, and when it was the last for a while nobody would miss it:
 * both sides would wait. */
BY_NORETURN static void give_up(const char *what) {
    by_die("libzmq cannot %s: %s", what, zmq_strerror(errno));
}

static bool receive(void *socket, zmq_msg_t *part) {
    int rc;
    do {
        rc = zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno != EAGAIN) give_up("receive");
    return rc >= 0;
}

/* Reads and forgets the rest of a message that has more parts than we speak. */
static bool drop_rest(struct by_channel *c) {
    if (!zmq_msg_more(&c->frame)) return false;
    zmq_msg_t rest;
    zmq_msg_init(&rest);
    while (receive(c->socket, &rest) && zmq_msg_more(&rest)) {
    }
    zmq_msg_close(&rest);
    by_warn_limited("a message of several parts was dropped endpoint=%s", c->endpoint);
    return true;
}

static bool receive_frame(struct by_channel *c) {
    for (;;) {
        if (c->is_bind && !receive(c->socket, &c->peer)) return false;
        /* an identity alone: no Banyan sends that */
        if (c->is_bind && !zmq_msg_more(&c->peer)) continue;
        if (!receive(c->socket, &c->frame)) return false;
        if (!drop_rest(c)) return true;
    }
}

/* A monitor message is two parts: event number and value, then the address. */
static enum by_channel_event receive_event(struct by_channel *c) {
    zmq_msg_t part;
    uint16_t event = 0;
    uint32_t value = 0; /* the connection's file descriptor */
    zmq_msg_init(&part);
    bool got = receive(c->monitor, &part);
    if (got && zmq_msg_size(&part) >= sizeof event + sizeof value) {
        memcpy(&event, zmq_msg_data(&part), sizeof event);
        memcpy(&value, (const char *)zmq_msg_data(&part) + sizeof event, sizeof value);
    }
    while (got && zmq_msg_more(&part) && receive(c->monitor, &part)) {
    }
    zmq_msg_close(&part);
    if (!got) return BY_CHANNEL_NOTHING;
    c->connection = (int)value;
    return event == ZMQ_EVENT_DISCONNECTED ? BY_CHANNEL_DISCONNECTED : BY_CHANNEL_CONNECTED;
}

/* Frames first: what a peer sent before it left still counts. */
enum by_channel_event by_channel_recv(struct by_channel *c, struct by_str *peer,
                                      struct by_str *frame) {
    if (receive_frame(c)) {
        c->connection = -1;
        *peer = c->is_bind ? (struct by_str){zmq_msg_data(&c->peer), zmq_msg_size(&c->peer)}
                           : (struct by_str){0};
        *frame = (struct by_str){zmq_msg_data(&c->frame), zmq_msg_size(&c->frame)};
        return BY_CHANNEL_FRAME;
    }
    return receive_event(c);
}

int by_channel_connection(struct by_channel *c) {
    return c->connection >= 0 ? c->connection : zmq_msg_get(&c->frame, ZMQ_SRCFD);
}

static int send_part(void *socket, struct by_str s, int flags) {
    int rc;
    do {
        rc = zmq_send(socket, s.p, s.n, flags | ZMQ_DONTWAIT);
    } while (rc < 0 && errno == EINTR);
    if (rc >= 0) return 0;
    if (errno != EHOSTUNREACH && errno != EAGAIN) give_up("send");
    return errno == EHOSTUNREACH ? BY_ENOTFOUND : BY_EAGAIN;
}

int by_channel_send(struct by_channel *c, struct by_str peer, struct by_str frame) {
    if (c->is_bind) {
        int rc = send_part(c->socket, peer, ZMQ_SNDMORE);
        if (rc) return rc;
    }
    return send_part(c->socket, frame, 0);
}

const char *by_channel_endpoint(const struct by_channel *c) {
    return c->endpoint;
}
