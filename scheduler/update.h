/* update.h - other weights for all workers, between two steps, without losing a request.
 *
 *     ask ─▶ LOADING: no step goes out; every worker loads beside what it has ─all answered─▶ SWITCHING: every worker switches
 *              │ one could not, or was lost: the others drop what they loaded                      │ all answered, or lost
 *              ▼                                                                                   ▼
 *            NONE: all goes on as before                     NONE: their sessions end, so the tree is empty; they come back with
 *                                                            the new weights, and running requests are prefilled with them
 *
 * What has been delivered stays; the tokens behind it are the new weights'.
 * Always: the weights in force are the same everywhere: a worker that comes with others (it was started again) is told to load
 * them before it gets a place.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_UPDATE_H
#define SCHEDULER_UPDATE_H

#include "common/base/err.h"
#include "proto/msg.h"

struct core;
struct core_peer;

enum { UPDATE_PATH_BYTES = 4096, UPDATE_ID_BYTES = 64 };
enum update_state { UPDATE_NONE, UPDATE_LOADING, UPDATE_SWITCHING };

struct update {
    enum update_state state;
    uint64_t id, ask_id;
    uint32_t asker;
    uint32_t n_waiting; /* workers that have not answered */
    uint32_t n_paused;  /* requests that were live when it began */
    char path[UPDATE_PATH_BYTES];
    char weights_id[UPDATE_ID_BYTES]; /* as the first answer says, and all must */
    int code;                         /* why it will fail */
    char text[BY_ERR_TEXT_MAX];
    /* in force since the last update; "": what the workers came with */
    char path_now[UPDATE_PATH_BYTES];
    char weights_id_now[UPDATE_ID_BYTES];
};

/* {"model_path": …}: answered once it is over. */
void update_ask(struct core *c, struct core_peer *from, const struct msg_ask *m);
void update_answered(struct core *c, struct core_peer *from, const struct msg_updated *m);
void update_lost(struct core *c, struct core_peer *worker); /* its session is over */
/* Does it come with weights that are in force no more? */
bool update_is_stale(const struct core *c, const struct msg_model *model);
void update_catch_up(struct core *c, struct core_peer *worker);

#endif
