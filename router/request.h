/* request.h - one client request: its prompts in the journal, its answer on the connection.
 *
 *     request_new ─ request_add_prompt … ─ request_start ─▶ news … ─▶ whole answer, or events as they come
 *                                                   any time: the client leaves, or a prompt fails ─▶ all are cancelled
 *
 * What an answer looks like is the dialect's: a table of writers. request_answer.c knows when, never what.
 * Always: a request answers exactly once, then frees itself; a slow client pauses its prompts (256 KiB wait for it). The
 * answer of one with an Idempotency-Key may outlive its connection (resume.h).
 * Owner: the loop's thread. */
#ifndef ROUTER_REQUEST_H
#define ROUTER_REQUEST_H

#include "common/base/json.h"
#include "router/api_error.h"
#include "router/auth.h"
#include "router/forms.h"
#include "router/journal.h"
#include "router/outlet.h"
#include "router/parse_reasoning.h"
#include "router/parse_tools.h"
#include "router/uplink.h"

enum {
    REQUEST_PROMPTS_MAX = 4096,
    REQUEST_SAMPLES_MAX = 16384, /* of all its prompts */
    REQUEST_ANSWER_MAX = 256 * 1024 * 1024,
    /* Of all that live, as they were asked: a tokenizer worker that comes back gets all of them at once, and its queue (wire_out.c)
     * holds half a GiB. */
    REQUEST_PENDING_BYTES = 384 * 1024 * 1024,
    REQUEST_LARGE_BYTES = 65536, /* what is no larger finds room where others find none */
    REQUEST_GROWN_BYTES =
        1024 * 1024, /* an answer that is no larger is never given up for want of room */
};

struct router { /* what every handler may see */
    uv_loop_t *loop;
    struct uplink *uplink;
    struct resume *resume;
    struct journal journal;
    uint64_t epoch, started_s;
    uint64_t started_ns;    /* by the clock that nobody sets */
    const char *model_name; /* --served-model-name, or NULL: the model's path */
    struct auth *auth;
    const struct form *asks;       /* of the route whose handler is running; NULL: nothing */
    struct by_strmap misspelt;     /* fields whose misspelling the log has told (misspelt.h) */
    struct auth_key *caller;       /* of the request whose handler is running; NULL: no key */
    uint64_t held_max;             /* --max-held-bytes */
    bool isolates_cache;           /* --isolate-cache */
    bool logs_requests, logs_text; /* --log-requests, --log-requests-text */
    bool hides_admin;              /* --admin-socket-only: the port knows no admin's route */
    bool is_by_admin_socket;       /* the request whose handler is running came in there */
    uint32_t request_timeout_ms;
    bool is_incremental;                     /* --incremental-streaming-output */
    bool has_openai_defaults;                /* --sampling-defaults openai */
    enum parse_tools tools;                  /* --tool-call-parser */
    enum parse_reasoning reasoning;          /* --reasoning-parser */
    const char *tools_name, *reasoning_name; /* the same, as they were written */
    bool is_draining;                        /* SIGTERM came */
    bool is_held;                            /* POST /drain came, and no DELETE since */
    uint32_t n_requests;                     /* in flight */
    struct by_buf scratch; /* of the event that is being written: no memory is asked for a token */
    struct by_list unwritten; /* samples of streams with news, by journal_sample.unwritten */
    bool is_writing;          /* request_write_news is at work on them */
};

struct request;

struct dialect {
    /* Appends the events for what is new of one sample (n_sent_… say what the client has). */
    void (*delta)(struct request *q, struct journal_entry *e, uint32_t sample, struct by_buf *out);
    /* the last events of a stream, [DONE] included */
    void (*end)(struct request *q, struct by_buf *out);
    /* the body of an answer that is not streamed */
    void (*whole)(struct request *q, struct by_buf *out);
    /* The body of an error, and what says it within a stream and ends that. NULL: OpenAI's. */
    api_error_writer *error, *error_event;
    bool repeats;                  /* an event tells, besides what is new, what was told before */
    const char *stream_type;       /* Content-Type; NULL: server-sent events */
    const char *const (*names)[2]; /* as api_error_in_words takes them */
};

struct request {
    struct router *router;
    struct auth_key *caller; /* NULL: no key */
    struct outlet outlet;
    const struct http1_request *http; /* until it has been started */
    const struct dialect *dialect;
    struct by_arena arena;          /* lives as long as the request */
    struct by_json *body;           /* until it has been started */
    struct journal_entry **entries; /* one a prompt */
    uint32_t n_entries;
    uint32_t n_open; /* samples whose end the client has not been sent */
    bool is_stream, has_begun, is_paused;
    struct by_list held;     /* samples whose news wait for a slow client, as unwritten */
    bool is_list;            /* the prompt was a list: so is the native answer */
    bool wants_usage;        /* stream_options.include_usage */
    bool wants_usage_always; /* stream_options.continuous_usage_stats */
    bool is_echo;
    uint32_t n_best;        /* completions: of all samples of a prompt, so many are told; 0: all */
    bool hides_logprobs;    /* they were asked for to choose by */
    bool has_seed;          /* the client's, for all prompts */
    bool tells_prompt_ids;  /* /generate: return_prompt_token_ids */
    bool is_one_call;       /* parallel_tool_calls: false */
    bool hides_reasoning;   /* include_reasoning: false */
    enum parse_tools tools; /* chat's: how the answer is read */
    struct parse_tools_types tool_types; /* in the arena */
    enum parse_reasoning reasoning;
    char id[64];
    struct by_str their_id;    /* X-Request-Id, when one came; in the arena */
    const struct by_str *rids; /* /generate's: one for each prompt, in place of id; in the arena */
    uint32_t n_rids;
    bool has_own_id;     /* id is the client's choice: no two live requests have the same */
    struct by_str model; /* as the client wrote it, or our name */
    uint64_t created_s, started_ns;
    uint64_t first_ns;   /* its first token came; 0: none yet */
    struct by_str route; /* the path; in the arena */
    struct trace_context trace;
    uint64_t n_tokens; /* of prompts that are over: what the caller's key is charged with */
    uint32_t n_events; /* responses: written so far */
    void *of_dialect;  /* what it read of the body, in the arena */
};

struct request *request_new(struct router *r, struct conn *c, const struct dialect *d);
void request_free(struct request *q); /* before it has been started, or when it is over */
/* The body as a JSON object, which is the caller's to free also when it is refused. */
BY_MUST_USE int request_read_body(struct by_json **out, const struct http1_request *r,
                                  struct by_err *err);
/* May the router take one more? Not while it holds as much as it may. */
BY_MUST_USE int request_check_room(const struct router *r, struct by_err *err);
/* The same into q; answers itself and returns false when it is none (4xx), or when the answer is here already, by
 * Last-Event-ID or Idempotency-Key. */
BY_MUST_USE bool request_parse(struct request *q, const struct http1_request *r);
void request_add_prompt(struct request *q, const struct msg_generate *m); /* copied */
void request_start(struct request *q);
void request_refuse(struct request *q, const struct by_err *err); /* answers, frees */

/* Ends requests of the caller (an admin: of anyone) whose id starts with `prefix` (or all), or those prompts of one whose
 * own ids do: their clients get what is there, finished by "abort". */
void request_abort(struct router *r, struct by_str prefix, bool all);

/* The uplink's handlers. What is new of a stream is written when all frames at hand have been taken: a client that
 * lags, or a router that does, gets fewer and larger events. */
void request_on_news(void *router, struct journal_entry *e, uint32_t sample);
void request_write_news(void *router);
void request_on_failed(void *router, struct journal_entry *e, const struct msg_failed *f);

const char *request_why_draining(const struct router *r);
/* "stop", "length", "abort"; NULL while it runs */
const char *request_finish_reason(const struct journal_sample *s);
struct by_str request_model_name(const struct router *r);

#endif
