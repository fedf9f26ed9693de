/* resume.h - answers that outlive their connection: those of requests with an Idempotency-Key.
 *
 *     request ─events─▶ [ id T-7 | id T-8 | id T-9 ] ─▶ followers: none, one or many connections
 *                          ▲ Last-Event-ID: T-7 joins behind it       Idempotency-Key: K joins at the beginning
 *
 *     LIVE ─ends─▶ DONE ─grace─▶ forgotten          LIVE ─nobody follows for the grace─▶ the request is cancelled
 *
 * T is random and of this process alone. The newest events are kept, up to bytes_max; what nobody has been sent yet counts
 * as pending, so that the request pauses before any of it is lost.
 * Always: only the API key that began an answer joins it; a failed request is never joined by its Idempotency-Key; what
 * is kept stays under total_max, the oldest answers that are over go first.
 * Owner: the loop's thread. An answer belongs to `resume`; its request holds it until it has ended it or was told `gone`. */
#ifndef ROUTER_RESUME_H
#define ROUTER_RESUME_H

#include "router/auth.h"
#include "router/conn.h"

enum {
    RESUME_KEY_BYTES_MAX = 255,
    RESUME_FOLLOWERS_MAX = 16,
    RESUME_ANSWERS_MAX = 16384,
    RESUME_TOTAL_BYTES = 256 * 1024 * 1024, /* no total_max is more */
};

struct resume;
struct resume_answer;

/* bytes_max: of an answer's events; total_max: of all */
struct resume *resume_new(uv_loop_t *loop, uint64_t grace_ms, size_t bytes_max, size_t total_max);
void resume_free(struct resume *r); /* cancels nothing: for a loop that has ended, and tests */

/* Does req name an answer that is here? 1: the connection follows it now, or has it whole. 0: no, go on. Below 0: refuse. */
BY_MUST_USE int resume_join(struct resume *r, struct conn *c, const struct http1_request *req,
                            const struct auth_key *caller, struct by_err *err);
/* Is this a request whose answer shall outlive its connection? */
bool resume_wanted(const struct resume *r, const struct http1_request *req);
/* The answer to it, with no follower yet. NULL when there are too many: it is answered without. */
struct resume_answer *resume_begin(struct resume *r, const struct http1_request *req,
                                   const struct auth_key *caller);
void resume_follow(struct resume_answer *a, struct conn *c); /* the connection that asked */

/* As a connection: who is told when nobody has come back for the grace, or when room has been made. */
void resume_set_owner(struct resume_answer *a, void *owner, void (*gone)(void *owner),
                      void (*drained)(void *owner));
void resume_stream_begin(struct resume_answer *a, const char *content_type);
void resume_stream_write(struct resume_answer *a, struct by_str events); /* whole events */
/* These two end the request's part: it may not touch the answer any more. */
void resume_stream_end(struct resume_answer *a, bool has_failed);
void resume_respond(struct resume_answer *a, int status, const char *content_type,
                    struct by_str body, const char *extra);
size_t resume_n_pending(const struct resume_answer *a);

#endif
