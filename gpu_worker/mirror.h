/* mirror.h - the worker's mirror of its slots: what the scheduler's step frames have said so far.
 *
 *     slot 3   base 32 (from the cache)     ids  [ t32 t33 … t47 | t48 ]      n_done 48, one id to run
 *              n_pending 1: t49 is being sampled, by a step that is not back
 *              pages [ 7 2 9 4 ]            output ids count for penalties; params decide the pick
 *
 * Always: base <= n_done <= base + n_ids + n_pending; pages suffice for n_done tokens; a frame that contradicts the mirror is refused
 * with a sentence, and the session ends: the scheduler then sends everything anew, so nothing is half done for long.
 * Owner: the gpu worker's main thread. Frees nothing a step needs again: after warm-up it allocates nothing. */
#ifndef GPU_WORKER_MIRROR_H
#define GPU_WORKER_MIRROR_H

#include "common/base/arena.h"
#include "gpu_worker/sampler.h"
#include "proto/msg.h"

struct slot {
    bool is_used;
    uint32_t n_prompt; /* tokens of the original prompt */
    uint32_t base;     /* tokens that came from the cache; their ids are not here */
    /* tokens whose keys and values lie in the pages, or will, by a step in flight */
    uint32_t n_done;
    uint32_t *ids; /* tokens base, base + 1, … */
    uint32_t n_ids;
    /* tokens behind those, sampled or being sampled, which mirror_push will name */
    uint32_t n_pending;
    size_t ids_cap; /* bytes */
    uint32_t *pages;
    uint32_t n_pages;
    size_t pages_cap;           /* bytes */
    uint64_t row_step;          /* the last step it had a row in */
    struct msg_sampling params; /* its arrays lie in the arena */
    struct sampler_seq pick;
    struct by_arena arena;
};

struct mirror_limits {
    uint32_t n_slots, n_pages, page_size, n_vocab, rows_max, context_len;
    /* a sequence is more than its pages: it begins at position 0, or with one of n_kept states */
    bool has_states;
    uint32_t n_kept;
};

struct mirror {
    struct mirror_limits limits;
    struct slot *slots; /* [n_slots] */
    uint64_t last_step;
};

void mirror_init(struct mirror *m, const struct mirror_limits *limits);
void mirror_release(struct mirror *m);
void mirror_reset(struct mirror *m); /* a new session: every slot is free */
/* Frees, admits and appends of a step; then checks its rows. BY_EFORMAT: the frame contradicts the mirror. */
BY_MUST_USE int mirror_apply(struct mirror *m, const struct msg_step *step, struct by_err *err);
/* A token was sampled for this slot: the first of the pending ones, if there are any. */
void mirror_push(struct slot *s, uint32_t id);
/* Of (slot, length, last id) of every used slot: ranks of a group must agree. Never 0. */
uint32_t mirror_crc(const struct mirror *m);

#endif
