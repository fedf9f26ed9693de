/* carry.h - which tokenizer worker has each request, and who is asked again when a process is lost.
 *
 *     journal entry ── is_unsent: waits for a tokenizer worker
 *                   ── tokenizer = 3: link 3 took it
 *
 *     link down ─▶ what it had goes to another       scheduler up ─▶ all live requests go out again
 *               ─▶ one that it had begun to read, for the third time: refused
 *     text with a gap ─▶ asked for again             text for nobody ─▶ cancel
 *
 * Text comes by way of the detokenizer, so a request can end while no session with the scheduler stands: its end is told in
 * the next one.
 *
 * Poison (DESIGN D5): what a lost worker had not read, as far as is known, goes out again with n_lost; of such a request the
 * next worker asks before it reads it, and says when it has. So a death names its one request, whatever stood before and behind.
 * A connection may break while a request is being read; three times over with the same one is taken for proof.
 *
 * Pure: frames and sessions in, frames out; the simulator runs it as it is (tests/sim). A copy too many is harmless: the
 * scheduler answers it with a replay (proto/README.md); one too few would leave a client waiting for ever.
 * Always: a live entry is unsent, or with one link that is up; n_entries of a link counts what it has.
 * Owner: uplink.c, the loop's thread. */
#ifndef ROUTER_CARRY_H
#define ROUTER_CARRY_H

#include "common/base/list.h"
#include "router/journal.h"

enum {
    CARRY_SCHEDULER = 0, /* in place of a link's number */
    CARRY_KILLED_MAX = 3,
    CARRY_UNTOLD_MAX = 65536 /* more ends than that between two sessions are not to be expected */
};

struct carry_options {
    struct journal *journal;
    void (*send)(void *ctx, uint32_t link, const struct msg *m);       /* m is borrowed */
    void (*news)(void *ctx, struct journal_entry *e, uint32_t sample); /* may remove e */
    /* must remove e */
    void (*failed)(void *ctx, struct journal_entry *e, const struct msg_failed *f);
    void *ctx;
};

struct carry_end { /* a request that is over, and the scheduler does not know */
    uint64_t rid;
    bool is_cancel;
};
struct carry {
    struct carry_options o;
    struct by_list links; /* those that are up */
    bool has_scheduler;
    struct carry_end *untold; /* in the next session */
    uint32_t n_untold, untold_cap;
};

void carry_init(struct carry *c, const struct carry_options *o);
void carry_release(struct carry *c);

/* Sessions with tokenizer workers and detokenizers; id is the caller's number for it, not 0. */
void carry_link_up(struct carry *c, uint32_t id, enum role role);
/* is_gone: by all that is seen its process may have died; else it lives, or the link was let go. */
void carry_link_down(struct carry *c, uint32_t id, bool is_gone);
void carry_scheduler_up(struct carry *c);
void carry_scheduler_down(struct carry *c);
bool carry_has(const struct carry *c, enum role role);
uint32_t carry_tokenizer(const struct carry *c); /* the least busy one that is up; 0: none */
/* text, failed, cancel, reading */
void carry_on_message(struct carry *c, uint32_t link, const struct msg *m);

void carry_submit(struct carry *c, struct journal_entry *e);
/* The client left; remove the entry afterwards. */
void carry_cancel(struct carry *c, struct journal_entry *e);
/* final: remove the entry afterwards */
void carry_ack(struct carry *c, struct journal_entry *e, uint32_t sample, bool is_final);
void carry_pause(struct carry *c, struct journal_entry *e, bool is_paused);
bool carry_check(const struct carry *c);

#endif
