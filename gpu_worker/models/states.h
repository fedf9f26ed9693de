/* states.h - layers with a state a slot instead of keys and values in pages: gated delta nets, Mamba-2, gated
 * short convolutions.
 *
 *     W norm(x) ─▶ qkv buffer: [columns of the convolution | what else the kind has] ─conv over the last tokens─▶ … ─out─▶ +
 *
 *     memory of a layer   [slot 0 … n_slots - 1 | those that are kept: n_slots … + n_kept - 1]
 *                         each: the window of the convolution (its last inputs), and the heads' matrices if the kind has some
 *     a step in rounds    copies into slots ─▶ rows up to the next place where their sequence is kept ─▶ copies ─▶ rows …
 *
 * A state goes on from row to row of its sequence, and begins with zeroes at position 0, or with a copy of one that was kept.
 * Always: token by token, in one order of sums: a state's bits depend on its sequence's tokens alone (DESIGN D6). All layers with
 * states that a model has are of one kind (by_state_info), which has a file: its columns, its round, its weights.
 * Owner: decoder.c; every rank of a group has the whole of it. */
#ifndef GPU_WORKER_MODELS_STATES_H
#define GPU_WORKER_MODELS_STATES_H

#include "gpu_worker/models/bind.h"

/* How wide all projections are in the qkv buffer, and the output. */
struct state_cols {
    uint32_t all, out;
};
struct state_cols states_cols(const struct by_model_info *m); /* 0 without such layers */

/* Once a step, for all layers: d->rounds. */
void states_plan(struct decoder *d, const struct model_step *s);
void states_new_rounds(struct decoder *d); /* nothing, of a model without states */
void states_free_rounds(struct decoder *d);
/* For all rows of the step; their projections are in the qkv buffer, the output goes to attn. */
void states_run(const struct pass *p, const struct layer *l);
/* For the rows in hand, of all rounds: what comes before the way out. */
void states_finish(const struct pass *p, const struct layer *l);

/* For the kinds: the convolution over the first columns of the qkv buffer, in place. */
void states_conv(const struct pass *p, const struct state_layer *x, const struct seq_rows *seqs,
                 uint32_t n_seqs);

BY_MUST_USE int states_bind(struct binder *b, struct layer *l, uint32_t layer);
/* For the kinds: a number a head, of which ggml's files have a column where the heads are Mamba's; x->conv; x->decay and x->dt. */
struct bind_vector states_by_head(const struct by_model_info *m, enum role role, uint32_t layer);
BY_MUST_USE int states_bind_conv(struct binder *b, struct state_layer *x, uint32_t layer);
BY_MUST_USE int states_bind_decay(struct binder *b, struct state_layer *x, uint32_t layer);
void states_release(struct decoder *d, struct state_layer *x); /* NULL is fine, here and below */

size_t states_bytes(const struct by_model_info *m); /* of a slot in one layer */
/* Of d->n_slots slots and d->n_kept to keep. False: not enough memory. */
BY_MUST_USE bool states_new(struct decoder *d, struct state_layer *x);
void states_free(struct decoder *d, struct state_layer *x);

#endif
