/* journal.h - what each client is owed: the request as it was sent, and all that has come back of it.
 *
 *     entry ── sample 0: ids [ … ]  text "…"  logprobs   finish
 *           └─ sample 1: …          journal_take(text frame) ─▶ what is new of it, or a gap
 *
 * Frames carry positions; what is there already is skipped, what would leave a hole is refused: exactly once for the
 * client, whoever died in between. journal_fill_resume puts together what a replay has to say (proto/README.md).
 * Pure: no socket, no clock, no file. Always: the ids of a sample number as many as its logprobs, if it has any; nothing
 * is taken after a sample's finish.
 * Owner: the router's thread. */
#ifndef ROUTER_JOURNAL_H
#define ROUTER_JOURNAL_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/list.h"
#include "common/base/map.h"
#include "proto/msg.h"

/* [n_positions, n_each] log probabilities beside ids, as a top record has them; n_each may differ by position. */
struct journal_tops {
    uint32_t *n_each; /* one a position */
    uint32_t *ids;
    float *logprobs;
    uint32_t n, n_flat, cap, cap_flat;
};

struct journal_entry;
struct chat_progress;
struct journal_sample {
    struct by_list unwritten; /* the writer's: what is new has not been sent to the client */
    struct journal_entry *entry;
    uint32_t *ids;
    float *logprobs; /* when asked for */
    uint32_t n_ids, n_logprobs, cap;
    struct by_buf text;
    struct journal_tops tops, id_logprobs;
    uint32_t n_seen; /* the writer's: ids whose times have been observed, and when the last came */
    uint64_t seen_ns;
    bool is_begun;       /* the writer's: something of it has been written … */
    size_t n_event;      /* … last an event of so many bytes */
    uint32_t n_sent_ids; /* the writer's: what the client has of ids and text */
    size_t n_sent_text;
    size_t n_sent_chars;            /* completions' logprobs: characters up to there */
    struct chat_progress *progress; /* chat_view's: how far the text was parsed */
    uint32_t finish;                /* enum finish */
    uint32_t matched_id;
    struct by_buf matched_text;
    uint32_t n_output, n_retractions;
    uint32_t replica;  /* that computed the last of it */
    uint64_t first_ns; /* the writer's: when its first token came */
};

struct journal_entry {
    uint64_t rid;
    struct by_list in_order;     /* of rid */
    struct msg_generate request; /* in the arena; replayed as it is */
    struct by_arena arena;
    size_t n_asked_bytes; /* of the request's copy */
    struct journal_sample *samples;
    uint32_t n_samples, n_finished;
    uint32_t *prompt_ids; /* once the first text frame has told them */
    uint32_t n_prompt_ids, n_prompt, n_cached;
    uint64_t queue_us;      /* how long the scheduler let it wait */
    float *prompt_logprobs; /* [n_prompt]; position 0 and what was not asked for is NaN */
    struct journal_tops prompt_tops, prompt_id_logprobs;
    uint32_t prompt_logprob_start, prompt_logprob_end; /* known positions: from … up to */
    float *vector; /* what was asked for in place of tokens; comes with the finish */
    uint32_t n_vector;
    /* id + 1 → struct by_str, what it adds to a text, with textual.wants_pieces */
    struct by_map pieces;
    bool has_text;       /* a text frame has come: the scheduler knows it */
    uint32_t n_sent;     /* carry's: copies; some scheduler may have accepted one */
    bool is_read;        /* carry's: a tokenizer worker has read it, and lived */
    bool is_being_read;  /* carry's: the one that has it has begun to */
    uint32_t n_lost;     /* carry's: that were lost with it, unread */
    uint32_t n_killed;   /* carry's: of those, that had begun to read it */
    bool is_unsent;      /* carry's: no tokenizer worker was there to take it */
    bool is_paused;      /* carry's: the client reads too slowly */
    bool is_asked_again; /* carry's: a replay is on its way; cleared by news */
    /* carry's: the link that took it and from which nothing came yet; 0: none */
    uint32_t tokenizer;
    void *owner;      /* the client request */
    uint32_t index;   /* which prompt of it */
    bool is_id_taken; /* another entry has its routing.client_id, and keeps it */
};

struct journal {
    struct by_map entries;       /* rid -> entry */
    struct by_list in_order;     /* the same, as they came: so they are sent again in that order */
    struct by_strmap client_ids; /* routing.client_id -> rid */
    uint64_t epoch, next_rid;
    size_t n_asked_bytes; /* of all entries */
};

void journal_init(struct journal *j, uint64_t epoch);
void journal_release(struct journal *j);
/* Copies the request, names it, gives it n_samples samples. If it brings a client_id, that is its own until it is removed,
 * unless another has it. */
struct journal_entry *journal_add(struct journal *j, const struct msg_generate *request,
                                  void *owner, uint32_t index);
void journal_remove(struct journal *j, struct journal_entry *e); /* frees e */
/* NULL: not ours, or over */
struct journal_entry *journal_find(const struct journal *j, struct msg_name name);

enum journal_result { JOURNAL_NEWS, JOURNAL_OLD, JOURNAL_GAP };
/* Adds what is new. GAP: ids or text are missing before it; the sender must replay. */
enum journal_result journal_take(struct journal_entry *e, const struct msg_text *t);
size_t journal_n_bytes(const struct journal_entry *e); /* that it holds, about */
/* The bytes of a token; NULL: not told. */
const struct by_str *journal_piece(const struct journal_entry *e, uint32_t id);
/* request + resume, in memory of the arena: what a replay sends. */
void journal_fill_resume(const struct journal_entry *e, struct by_arena *arena,
                         struct msg_generate *out);
bool journal_check(const struct journal *j);

#endif
