/* worker.h - carries out steps: the mirror, the model's forward pass, a token for each row that wants one.
 *
 *     step ─▶ mirror ─▶ flat rows ─▶ model_forward ─▶ model_logits ─▶ sampler (rows shared by the lanes) ─▶ step_done
 *                                                  └▶ vectors.h: embeddings and scores, where no token is wanted ─┘
 *
 * On a device the two halves of a step come apart, and the next one begins in between: the last tokens stay on the device.
 *     step N ─begin─▶   step N + 1 ─begin─▶   ─collect─▶ step_done N   …
 * Always: what a step answers is a function of the mirror and the frame; a row whose logits are NaN or infinite is reported
 * in failed_slots and spoils no other row.
 * Owner: the gpu worker's main thread. After warm-up a step allocates nothing. */
#ifndef GPU_WORKER_WORKER_H
#define GPU_WORKER_WORKER_H

#include "gpu_worker/mirror.h"
#include "gpu_worker/models/model.h"
#include "gpu_worker/vectors.h"

enum { WORKER_LOGIT_ROWS = 64 }; /* rows of logits held at a time */

struct worker;

/* model and backend are borrowed. */
struct worker *worker_new(struct model *model, struct backend *backend,
                          const struct mirror_limits *limits);
/* What it makes in place of tokens, from now on; nothing until then. */
void worker_set_vectors(struct worker *w, const struct vectors_plan *plan);
void worker_free(struct worker *w);
void worker_reset(struct worker *w); /* a new session */
/* *out borrows from the worker until the next call. BY_EFORMAT: the frame contradicts the mirror; BY_EUNAVAILABLE:
 * a rank is lost. Either way the session must end. */
BY_MUST_USE int worker_step(struct worker *w, const struct msg_step *step,
                            struct msg_step_done *out, struct by_err *err);

/* ---- two steps in flight (worker_ahead.c); worker_step is for when none is ---- */
/* Can it be begun, or must worker_step do all of it at once? */
bool worker_can_begin(const struct worker *w, const struct msg_step *step);
/* Must the oldest step in flight be collected before this one is begun or done? */
bool worker_must_collect(const struct worker *w, const struct msg_step *step);
/* Hands it to the device and does not wait. Codes as worker_step. */
BY_MUST_USE int worker_begin(struct worker *w, const struct msg_step *step, struct by_err *err);
/* The answer of the oldest step in flight; *out as of worker_step. False: not there yet, which with may_wait it always is. A
 * device that failed or is late ends the process. */
bool worker_collect(struct worker *w, bool may_wait, struct msg_step_done *out);
uint32_t worker_n_flying(const struct worker *w);
uint64_t
worker_n_ahead(const struct worker *w); /* steps begun while another was in flight, so far */

#endif
