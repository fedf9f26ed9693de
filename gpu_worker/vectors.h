/* vectors.h - what a prompt comes to when no token is wanted: an embedding, or a classifier's scores.
 *
 *     last hidden state of each row ─▶ last | first (cls) | mean of all ─▶ / its length ─▶ embedding [hidden]
 *     first row ─▶ pooler, classifier ─▶ sigmoid | softmax | as it is ─▶ scores [n_labels]
 *
 * Which of them is the model's own affair: sentence-transformers' modules.json and 1_Pooling/config.json, a GGUF's
 * pooling_type, config.json's problem_type; --pooling wins.
 * Always: a vector depends on its own prompt only. A mean is summed in order of position, in doubles, so how the prompt was
 * cut into chunks changes no bit; it needs every position computed, so none may come from the cache (pools_all).
 * Owner: worker.c, the main thread. */
#ifndef GPU_WORKER_VECTORS_H
#define GPU_WORKER_VECTORS_H

#include "common/base/arena.h"
#include "gpu_worker/models/model.h"
#include "proto/msg.h"

enum pooling { POOLING_LAST, POOLING_CLS, POOLING_MEAN };
enum score_kind { SCORE_AS_IS, SCORE_SIGMOID, SCORE_SOFTMAX };

struct vectors_plan {
    uint32_t n_embed;  /* 0: no embeddings */
    uint32_t n_labels; /* 0: no scores */
    enum pooling pooling;
    enum score_kind score;
};

/* word: --pooling. BY_EUNSUPPORTED: the folder asks for a pooling that is not here; of a decoder that is only a warning,
 * for its text is none the worse. */
BY_MUST_USE int vectors_plan(struct vectors_plan *out, const struct by_model_dir *dir,
                             const struct model *m, const char *word, struct by_err *err);
const char *vectors_pooling_name(enum pooling p);

struct vectors;
struct vectors *vectors_new(struct model *m, const struct vectors_plan *plan, uint32_t n_slots,
                            uint32_t rows_max);
void vectors_free(struct vectors *v); /* NULL is fine */

/* A sequence's rows in the step that is laid down: the n from first_row on are its positions from `position` on. */
struct vectors_rows {
    uint32_t slot, want; /* enum vector */
    uint32_t first_row, position, n;
    bool is_last; /* of the prompt */
};
void vectors_begin(struct vectors *v); /* a new step */
void vectors_add(struct vectors *v, const struct vectors_rows *rows);
/* After model_forward: what has ended in this step; *out and its values lie in the arena. is_broken[slot] becomes true
 * where a number is NaN or infinite. False: the device failed. */
BY_MUST_USE bool vectors_compute(struct vectors *v, struct by_arena *arena, bool *is_broken,
                                 struct msg_slot_vector **out, uint32_t *n_out);
bool vectors_any(const struct vectors *v); /* does this step's answer need hidden states? */

#endif
