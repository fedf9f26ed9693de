/* supervise.h - child processes: started, watched, started again, stopped.
 *
 *     WAITING ─spawn─▶ STARTING ─READY=1─▶ READY ─exit─▶ (at once, or after a back-off) STARTING …
 *                         └─ exits by itself before it was ever ready ─▶ failed(child): there is no use in trying again
 *
 * A child tells that it is ready by the sd_notify protocol over a datagram socket of its own. It is started in a session
 * of its own, so that Ctrl-C reaches us alone.
 * Always: a child dies with us (BANYAN_PARENT, common/base/proc.h).
 * Back-off 0.1 to 30 s only for a child that dies within 5 s of its start without having served.
 * Owner: the cli's libuv loop, one thread. */
#ifndef DEPLOY_CLI_SUPERVISE_H
#define DEPLOY_CLI_SUPERVISE_H

#include "common/base/base.h"

#include <uv.h>

struct supervisor;
struct child;

/* A folder's bytes that leave room for the longest socket in it: a socket's path ends at 107. */
enum { SUPERVISE_DIR_MAX = 80 };

struct supervisor_options {
    uv_loop_t *loop;
    const char *run_dir;                       /* where the notify sockets lie; SUPERVISE_DIR_MAX */
    void (*ready)(void *ctx, struct child *c); /* it said READY=1; also after a restart */
    void (*status)(void *ctx, struct child *c, const char *status);
    void (*exited)(void *ctx, struct child *c, int64_t code, int signal, bool will_restart);
    /* It ended by itself before it was ever ready. Return true when it shall be started again (its argv may be changed). */
    bool (*failed)(void *ctx, struct child *c, int64_t code);
    void *ctx;
};

struct supervisor *supervisor_new(const struct supervisor_options *o);
void supervisor_free(struct supervisor *s); /* when all have stopped and the loop has run dry */
/* argv: NULL-terminated, taken over (by_options_argv_free). env: further NAME=value strings, copied; NULL: none. */
struct child *supervisor_add(struct supervisor *s, const char *name, char **argv,
                             const char *const *env);
void child_set_argv(struct child *c, char **argv, const char *const *env);
const char *child_name(const struct child *c);
const char *child_status(const struct child *c);     /* what it last said of itself; "" at first */
const char *child_last_words(const struct child *c); /* why it ends, or ended; "": it did not say */
int child_pid(const struct child *c);                /* 0: not running */
double child_seconds(const struct child *c);         /* from its start to READY=1 */
bool supervisor_all_ready(const struct supervisor *s);
bool supervisor_all_gone(const struct supervisor *s);
/* From now on nothing is started. */
void supervisor_stop_starting(struct supervisor *s);
void child_signal(struct child *c, int signal);
void supervisor_signal_all(struct supervisor *s, int signal);

#endif
