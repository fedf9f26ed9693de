/* states.h - numbers of the states that a worker keeps beside its slots, for models whose layers carry one along.
 *
 *     free [ 4 1 |>      being kept: 3      filed, by last use: 0 - 2 - 5      of chats: 6 - 7
 *
 *     a run of the tree  [ p p p p p p p ]      a state stands behind `end` pages of its run: another sequence of
 *     its states                 2     0        these ids can start there
 *
 * Pages alone are no prefix for such a model: what its layers carry along is a function of all ids before, and lies in no page.
 * One prompt that nobody says more of leaves states that look like a chat's. What comes back tells: who starts from a state that
 * nobody else has used is a chat's next turn, and what it leaves is better kept than the rest, up to a quarter of all.
 * Always: a number is free, being kept (a step under way will tell), or filed behind a page that the tree holds; of a run the
 * furthest comes first, and no two stand behind the same page.
 * Owner: the scheduler core, one thread; the runs are the tree's. What lies behind a number only gpu_worker knows. */
#ifndef SCHEDULER_STATES_H
#define SCHEDULER_STATES_H

#include "common/base/base.h"

enum { STATES_NONE = UINT32_MAX };

struct states;
struct state;
struct states_run {
    struct state *first; /* NULL: none */
};

struct states *states_new(uint32_t n);
void states_free(struct states *st); /* NULL is fine; the runs are not looked at */
/* A number to keep a state under: a free one, or that of the filed one which was not used for longest, chats' last. STATES_NONE: all
 * are being kept just now. */
uint32_t states_take(struct states *st);
void states_give(struct states *st, uint32_t number); /* one that was taken: nothing was kept */
/* The state is there. One that stands behind the same page already stays, and this number is free again. */
void states_file(struct states *st, uint32_t number, struct states_run *run, uint32_t end,
                 bool is_chat);
/* Its new stamp; 0: it was used before. */
uint64_t states_use(struct states *st, uint32_t number);
void states_pass_on(struct states *st, uint32_t number); /* a later one does for it: it goes next */
/* Changes whenever its state does or is used; 0: none is filed under it. */
uint64_t states_stamp(const struct states *st, uint32_t number);
void states_drop(struct states *st, uint32_t number); /* a filed one */

/* Of a run: how many pages lie before its furthest state, of those behind at most n_pages; 0: there is none. */
uint32_t states_end(const struct states_run *run, uint32_t n_pages);
uint32_t states_behind(const struct states *st, const struct states_run *run, uint32_t end);
void states_cut(struct states *st, struct states_run *run,
                uint32_t n_pages); /* those behind more */
/* The first k pages of `low` become a run of their own, `up`, which has no states yet. */
void states_split(struct states_run *low, struct states_run *up, uint32_t k);

uint32_t states_n(const struct states *st);
uint32_t states_n_filed(const struct states *st);
uint32_t states_n_taken(const struct states *st);
bool states_check(const struct states *st);
/* Adds how many there are to *n; false: the run does not hold together. */
bool states_run_check(const struct states_run *run, uint32_t n_pages, uint32_t *n);

#endif
