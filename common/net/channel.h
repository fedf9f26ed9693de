/* channel.h - one libzmq socket with a name: a ROUTER that binds, or a DEALER that connects. The one door to libzmq.
 *
 *     DEALER "gpu-worker:0:5f3a…" ──ipc:///run/…/scheduler.sock──▶ ROUTER          bytes in, bytes out
 *
 * Always set: MAXMSGSIZE, HWM, LINGER 0, ROUTER_MANDATORY, ROUTER_HANDOVER, IMMEDIATE, libzmq's heartbeats (sent by
 * its I/O thread); over tcp:// CURVE, which binders check by zap.h. A monitor turns disconnects into events at once.
 * Knows nothing of messages or sessions.
 * Owner: one thread. Frames handed out by recv are borrowed until the next recv. */
#ifndef COMMON_NET_CHANNEL_H
#define COMMON_NET_CHANNEL_H

#include "common/base/err.h"
#include "common/base/str.h"

struct by_channel;

struct by_channel_options {
    const char *endpoint; /* ipc://… or tcp://… */
    /* routing id of a connector: role:instance:epoch:socket; <= 200 bytes. NULL for a binder */
    const char *identity;
    /* of tcp:// only, and needed there: common/net/keys.h; read anew for each socket */
    const char *key_file;
    bool is_bind;
    size_t frame_bytes_max;
    /* a peer that does not answer libzmq's heartbeat for so long is gone; 0: 5000 */
    uint32_t silence_ms;
};

enum by_channel_event {
    BY_CHANNEL_NOTHING, /* drained; wait for the fd */
    BY_CHANNEL_FRAME,   /* *peer (binder only) and *frame are set */
    /* connector: there is somebody; binder: somebody came (who: wait for the first frame) */
    BY_CHANNEL_CONNECTED,
    BY_CHANNEL_DISCONNECTED /* connector: gone; binder: somebody left: by_channel_connection says who */
};

BY_MUST_USE int by_channel_open(struct by_channel **out, const struct by_channel_options *o,
                                struct by_err *err);
void by_channel_close(struct by_channel *c);
/* Two edge-triggered fds (socket, monitor): after each wake call by_channel_recv until BY_CHANNEL_NOTHING. */
void by_channel_fds(const struct by_channel *c, int fds[2]);
enum by_channel_event by_channel_recv(struct by_channel *c, struct by_str *peer,
                                      struct by_str *frame);
/* Which connection the last recv was about: a number that no other open one has; it may be used again after
 * BY_CHANNEL_DISCONNECTED. */
int by_channel_connection(struct by_channel *c);
/* Copies the bytes. 0, BY_EAGAIN (high-water mark or not connected), BY_ENOTFOUND (no such peer any more).
 * `peer` is ignored by a connector. Never blocks. */
BY_MUST_USE int by_channel_send(struct by_channel *c, struct by_str peer, struct by_str frame);
/* Is there a frame to read? A send may have swallowed the edge that would have told: ask after sending. */
bool by_channel_has_input(const struct by_channel *c);
/* as bound: a tcp port 0 is resolved */
const char *by_channel_endpoint(const struct by_channel *c);

#endif
