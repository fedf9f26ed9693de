/* worker_state.h - what the files of the worker share.
 *
 *     worker.c   rows of a step, the answer          worker_picks.c   logits to tokens, here or on the device
 *     worker_ahead.c   steps in flight:  turns[0] is asked for its answer while turns[1] is being computed
 *
 * Always: a turn owns all that its answer is made of, so that the next step may be laid down before it is read; the answer
 * itself (tokens …) lies in the worker, one at a time.
 * Owner: as worker.h. */
#ifndef GPU_WORKER_WORKER_STATE_H
#define GPU_WORKER_WORKER_STATE_H

#include "gpu_worker/worker.h"

/* Of a group's answers from a device: 64 rows with 128 likeliest ids and 64 chosen ones each. */
enum { ANSWER_WORDS = WORKER_LOGIT_ROWS * (SAMPLE_WORDS + 2 * LIMIT_TOP_LOGPROBS + 64) };
enum { WORKER_TURNS = 2 }; /* steps in flight */

/* One row of logits that somebody waits for: a token to pick, or a prompt token to score. */
struct want {
    uint32_t row; /* of the step */
    uint32_t slot;
    uint32_t pick; /* index among the sampled rows; UINT32_MAX: score `id` */
    uint32_t id;
    uint32_t prompt; /* scoring: index of its record in prompts … */
    uint32_t at;     /* … and of its position there */
};

/* What one lane needs to sample on its own; what it finds lies in its arena until the next step. */
struct picker {
    struct sampler *sampler;
    struct by_arena arena;
};

/* One step, from its rows to its answer. */
struct turn {
    uint64_t step, from_ns;
    uint32_t *slots; /* [n_slots] of its sequences */
    bool *samples;   /* [n_slots] */
    uint32_t n_seqs;
    struct want *wants; /* in order of rows */
    uint32_t n_wants, wants_cap, n_picks;
    struct msg_prompt_logprobs *prompts; /* [n_slots] */
    uint32_t n_prompts;
    struct state_copy *starts; /* in the arena, as keeps */
    struct state_keep *keeps;
    uint32_t n_starts, n_keeps;
    struct by_arena arena;
    /* Of a step in flight: what was asked of the device, the answers as it fills them in, and when they are there. */
    struct sample_row *asks; /* [n_slots] */
    uint32_t *words;         /* [ANSWER_WORDS] */
    uint64_t point;
};

struct worker {
    struct model *model;
    struct backend *backend;
    struct mirror mirror;
    struct vectors *vectors; /* for those that want no tokens */
    struct picker *pickers;  /* [n_lanes] */
    struct turn turns[WORKER_TURNS];
    uint32_t oldest, n_flying; /* turns in flight: from `oldest` on, round */
    struct turn *turn;         /* in hand */
    uint64_t n_ahead;          /* steps begun while another was in flight */
    uint64_t collected_ns;     /* when the last answer was */

    /* Flat rows of the step: [rows_max], [n_slots]. */
    uint32_t *ids, *positions, *types;
    bool has_types; /* some row is of a pair's second text */
    struct seq_rows *seqs;
    uint32_t n_rows;

    /* The answer. */
    uint32_t *tokens; /* [n_slots] each, by pick */
    float *logprobs;
    struct msg_top *tops, *chosen;
    bool *is_broken; /* [n_slots] by slot */
    uint32_t *failed;
    struct msg_slot_vector *found; /* in the turn's arena */
    uint32_t n_found;

    /* The group of logits in hand. */
    const struct want *group;
    float *logits;
    uint32_t n_group;

    /* Of a device that samples. */
    struct op_sample ask;
    struct sample_row sample_rows[WORKER_LOGIT_ROWS];
    uint32_t *answers; /* [ANSWER_WORDS] backend memory */
    /* [n_slots] backend memory: the last token of each slot; NULL: no steps in flight here */
    uint32_t *last;
};

/* ---- worker.c ---- */
/* Takes the frame into the mirror and lays it down as w->turn. */
BY_MUST_USE int worker_lay(struct worker *w, const struct msg_step *step, struct by_err *err);
/* The model's part of it; 0 or BY_EUNAVAILABLE. wanted: the rows of its wants. */
BY_MUST_USE int worker_forward(struct worker *w, const uint32_t *wanted);
void worker_answer(struct worker *w, struct msg_step_done *out);
/* A device that has failed once gives no step any more: the process ends, and a new one starts with a clean device. What was
 * under way is computed anew from the token log (DESIGN D5). */
BY_NORETURN void worker_device_failed(struct backend *b);

/* ---- worker_picks.c ---- */
/* Logits of the turn's wants, and what is picked of them. BY_EUNAVAILABLE: a rank is lost. */
BY_MUST_USE int worker_pick(struct worker *w);
/* What the device is to be asked for x; its answer begins at word `at`. */
void worker_ask(struct worker *w, const struct want *x, uint32_t i_row, uint32_t at,
                struct sample_row *out);
/* w->ask for rows, whose logits are w->logits, as one op of the device. */
void worker_sample_there(struct worker *w, const struct sample_row *rows, uint32_t n);
/* The device's answer for x. */
void worker_take(struct worker *w, const struct want *x, const struct sample_row *row,
                 uint32_t *words);

/* ---- worker_ahead.c ---- */
void worker_ahead_init(struct worker *w);
void worker_ahead_release(struct worker *w);

#endif
