/* wire_out.c - what a peer is sent: in order, as far as its credit and the socket go; the rest waits. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/net/channel.h"
#include "proto/wire_parts.h"

#include <string.h>

enum {
    /* more waiting than this: the peer is not keeping up, start over */
    QUEUE_BYTES_MAX = 512 * 1024 * 1024,
};

/* A frame that waits for credit or for the socket. */
struct waiting {
    struct by_list node;
    size_t n;
    enum msg_kind kind;
    char bytes[];
};

/* 0, or BY_EAGAIN: the socket is full. A peer that is gone ends its session. */
static int put_on_socket(struct peer *p, enum msg_kind kind, char *frame, size_t n) {
    struct wire *w = p->face.wire;
    msg_stamp_seq(frame, p->seq_out + 1);
    int rc = by_channel_send(w->channel, wire_identity_of(p), (struct by_str){frame, n});
    if (rc == BY_ENOTFOUND) {
        wire_lose(p, "it is gone");
        return 0;
    }
    if (rc) {
        /* DISCONNECTED is on its way; down will tell */
        if (!w->is_connected && !w->o.is_bind) return 0;
        return rc;
    }
    p->seq_out++;
    if (msg_is_data(kind)) p->credit -= n;
    by_count(BY_M_FRAMES_OUT, 1);
    return 0;
}

static bool may_go(const struct peer *p, enum msg_kind kind, size_t n) {
    return !msg_is_data(kind) || p->credit >= n;
}

void wire_drop_queue(struct peer *p) {
    for (struct by_list *node; (node = by_list_first(&p->queue)) != NULL;) {
        by_list_remove(node);
        by_free(BY_CONTAINER_OF(node, struct waiting, node));
    }
    p->queue_bytes = 0;
}

void wire_flush(struct peer *p, uint64_t now) {
    for (struct by_list *node; !p->is_ending && (node = by_list_first(&p->queue)) != NULL;) {
        struct waiting *f = BY_CONTAINER_OF(node, struct waiting, node);
        if (!may_go(p, f->kind, f->n)) return;
        if (put_on_socket(p, f->kind, f->bytes, f->n)) {
            p->face.wire->retry_due_ns = now + WIRE_RETRY_MS * BY_NS_PER_MS;
            return;
        }
        by_list_remove(node);
        p->queue_bytes -= f->n;
        by_free(f);
    }
}

static void enqueue(struct peer *p, enum msg_kind kind, struct by_str frame) {
    if (p->queue_bytes + frame.n > QUEUE_BYTES_MAX) {
        wire_end_session(p, "it takes nothing and its queue is full");
        return;
    }
    struct waiting *f = by_alloc(sizeof *f + frame.n);
    f->n = frame.n;
    f->kind = kind;
    memcpy(f->bytes, frame.p, frame.n);
    by_list_push(&p->queue, &f->node);
    p->queue_bytes += f->n;
    p->face.wire->retry_due_ns = by_now_ns() + WIRE_RETRY_MS * BY_NS_PER_MS;
    wire_wake(p->face.wire);
}

static bool encode(struct wire *w, const struct msg *m) {
    by_buf_clear(&w->out);
    msg_encode(m, &w->out);
    if (w->out.is_full)
        by_error("a %s frame is over the limit and was not sent", msg_kind_name(m->kind));
    return !w->out.is_full;
}

/* Frames keep their order; only credit overtakes, or two full queues would wait for each other. */
void wire_send(struct wire_peer *face, const struct msg *m) {
    struct peer *p = wire_peer_of(face);
    struct wire *w = face->wire;
    if (!p->is_up || p->is_ending) return;
    struct msg stamped = *m;
    stamped.session = face->session;
    if (!encode(w, &stamped)) {
        wire_end_session(p, "a frame was over the limit");
        return;
    }
    bool must_wait = !by_list_empty(&p->queue) && m->kind != MSG_credit;
    if (must_wait || !may_go(p, m->kind, w->out.n) ||
        put_on_socket(p, m->kind, w->out.p, w->out.n)) {
        enqueue(p, m->kind, by_buf_str(&w->out));
    }
    if (!w->is_pumping && by_channel_has_input(w->channel)) wire_wake(w);
}

int wire_send_plain(struct wire *w, struct by_str identity, const struct msg *m) {
    if (!encode(w, m)) return BY_ELIMIT;
    return by_channel_send(w->channel, identity, by_buf_str(&w->out));
}
