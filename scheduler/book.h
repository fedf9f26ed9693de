/* book.h - which request names are live, over, or never heard of.
 *
 *     life (one router epoch):  rid 41 ─▶ req      live
 *                               rid 40 ─▶ †        over: a tombstone, for 10 minutes or a million names
 *                               rid 12             below the low water: over, long ago
 *     ended epochs              [ … ]              their names are over, too
 *
 * A copy of a request that arrives late must not run twice; and its router, if it asks again, must hear how it failed.
 * Always: a rid of a life is live, over, or new; a live one is in exactly one map.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_BOOK_H
#define SCHEDULER_BOOK_H

#include "common/base/list.h"
#include "common/base/map.h"
#include "proto/msg.h"

struct req;

struct life {            /* one router's epoch */
    struct by_list link; /* in book.lives */
    struct by_list reqs; /* its live requests, by req.in_life */
    struct by_map names; /* rid -> struct req or tombstone; key 0 is rid 0 */
    uint64_t epoch;
    uint64_t low_water; /* rids below that are not in the map are over */
    /* no session with this router: its requests end then; 0: there is one */
    uint64_t orphan_due_ns;
    uint32_t peer; /* 0: no session */
};

enum { BOOK_ENDED_KEPT = 64 };
struct tomb {
    uint64_t epoch, rid, due_ns;
};
struct book {
    struct by_list lives;
    struct tomb *tombs; /* ring, oldest first; gives room back as they expire */
    uint32_t n_tombs, first_tomb, tombs_cap;
    uint64_t ended[BOOK_ENDED_KEPT]; /* ring */
    uint32_t n_ended;
    struct by_strmap client_ids; /* routing.client_id -> struct req, the latest that claims it */
};

enum book_state {
    BOOK_NEW,
    BOOK_LIVE,
    BOOK_OVER,
    BOOK_FORGOTTEN /* over so long ago that its tombstone is gone */
};

void book_init(struct book *b);
void book_release(struct book *b);                           /* no request may be live */
struct life *book_life(struct book *b, uint64_t epoch);      /* NULL when there is none */
struct life *book_life_open(struct book *b, uint64_t epoch); /* makes it, or brings it back */
/* The router is gone for good: its names are over. No request of it may be live. */
void book_life_end(struct book *b, struct life *life);

enum book_state book_find(struct book *b, const struct msg_name *name, struct req **req);
void book_add(struct life *life, struct req *req);
/* The name is as if never heard of: its router may send it again. */
void book_forget(struct req *req);
/* The name, not live any more or never heard of, is over: a tombstone stands for it until due_ns. It bears the error that
 * ended it, or 0: its router may not have heard. */
void book_bury(struct book *b, struct life *life, uint64_t rid, uint64_t due_ns, int code);
int book_epitaph(struct book *b, const struct msg_name *name); /* of one that is over; 0: none */
void book_expire(struct book *b, uint64_t now_ns);
/* What clients call their requests. A router sees to it that its own differ, and it alone knows when one is over; so only
 * another router's live request makes an id taken. */
bool book_is_taken(const struct book *b, const struct msg_name *name, struct by_str client_id);
void book_claim(struct book *b, struct req *req);
void book_unclaim(struct book *b, const struct req *req);
bool book_check(const struct book *b);

#endif
