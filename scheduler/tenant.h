/* tenant.h - whose requests they are: a fair share for each (VTC), and a ledger of what each has used.
 *
 *     counter = prompt tokens computed + 2 x tokens generated                     (Sheng et al., "Fairness in Serving
 *     the waiting tenant with the least counter goes next                          Large Language Models", OSDI 24)
 *     of equals the one with fewer running
 *
 * A tenant that begins to wait starts at the least counter of those who want something, or of who did last: neither idling
 * nor a single long stream earns credit.
 * Cached tokens cost nothing; what is computed again after a retraction or a lost worker is not charged again.
 * Always: a tenant is in a heap exactly while it has waiting sequences, and in another while it has any that wait or run;
 * counters only grow, and start at zero with the scheduler.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_TENANT_H
#define SCHEDULER_TENANT_H

#include "common/base/heap.h"
#include "common/base/list.h"
#include "common/base/map.h"

enum { TENANTS_MAX = 10000, TENANT_NAME_MAX = 256 };

struct tenant {
    struct by_list link;            /* in tenants.busy or tenants.idle */
    struct by_heap_node in_heap;    /* by tenant_before, while somebody waits */
    struct by_heap_node in_wanting; /* by least, while somebody waits or runs */
    double least;                   /* its counter as of then: it is mended when it comes first */
    struct by_list waiting;         /* by seq.in_tenant, in order of arrival */
    struct by_str name;             /* owned */
    double counter;
    uint32_t n_reqs;    /* live ones */
    uint32_t n_queued;  /* of those: not admitted yet */
    uint32_t n_waiting; /* sequences */
    uint32_t n_running; /* sequences */
    /* the ledger */
    uint64_t n_requests, prompt_tokens, cached_tokens, output_tokens;
    uint64_t queue_ns; /* from arrival to first admission */
    double compute_us; /* its share of the steps, by tokens */
};

struct tenants {
    struct by_strmap by_name;
    struct by_list busy, idle; /* with live requests; without, the longest idle first */
    struct by_heap heap;       /* who waits */
    struct by_heap wanting;    /* who waits or runs */
    const struct tenant *last; /* to stop waiting; NULL: it is forgotten */
    double last_counter;       /* its counter, running on while it is served */
    uint32_t n;
};

void tenants_init(struct tenants *t);
void tenants_release(struct tenants *t); /* no request may be live */
/* The tenant of that name, one more live request. Beyond TENANTS_MAX the longest idle one makes room. */
struct tenant *tenants_take(struct tenants *t, struct by_str name);
void tenants_give(struct tenants *t, struct tenant *tenant); /* one request less */
void tenants_wait(struct tenants *t, struct tenant *tenant); /* one more of its sequences waits */
void tenants_unwait(struct tenants *t, struct tenant *tenant);
void tenants_run(struct tenants *t, struct tenant *tenant); /* one more of its sequences runs */
void tenants_unrun(struct tenants *t, struct tenant *tenant);
void tenants_charge(struct tenants *t, struct tenant *tenant, uint32_t n_prompt, uint32_t n_output);
/* May a tenant of that name have one more in a queue of `queue_max` places, n_queued of which are taken? Whoever has a name
 * leaves a fifth of them free at least, and the fewer are free the less is theirs: a flood fills no one else's place. */
bool tenants_may_queue(const struct tenants *t, struct by_str name, uint32_t n_queued,
                       uint32_t queue_max);
/* Does a go before b? Less used; then fewer running. */
bool tenant_before(const struct tenant *a, const struct tenant *b);
bool tenants_check(const struct tenants *t);

#endif
