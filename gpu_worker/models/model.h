/* model.h - a loaded model: weights, KV memory, and one step of its forward pass. What worker.c sees of the engine.
 *
 *     model_open(dir) ─▶ model_plan(how many pages?) ─▶ model_kv_new(n_pages, n_slots) ─▶ model_forward, model_logits … ─▶ model_close
 *
 * Always: the logits of a row depend on the ids before it in its sequence and nothing else (DESIGN D6).
 * Owner: the gpu worker's main thread. */
#ifndef GPU_WORKER_MODELS_MODEL_H
#define GPU_WORKER_MODELS_MODEL_H

#include "common/base/err.h"
#include "common/modelfile/model_dir.h"
#include "gpu_worker/backend.h"

struct model;

struct model_options {
    uint32_t page_size; /* tokens */
    enum kv_dtype kv_dtype;
    uint32_t rows_max;       /* of one step */
    uint32_t logit_rows_max; /* of one model_logits: its buffer is [logit_rows_max, n_vocab] f32 */
    uint32_t context_len;    /* 0: the model's own */
    uint32_t rank, world;    /* tensor parallel; world 0 or 1: alone */
    enum by_dtype quantize;  /* BY_DTYPE_NONE: weights as they are */
    /* Progress of the load, 0 … 1, from the loading thread; NULL: not wanted. */
    void (*progress)(void *ctx, double share);
    void *progress_ctx;
};

/* Reads, checks and packs the weights. BY_EUNSUPPORTED: a family, feature or dtype the native engine does not know, by
 * name (transformers may). dir is not needed afterwards. */
BY_MUST_USE int model_open(struct model **out, const struct by_model_dir *dir, struct backend *b,
                           const struct model_options *o, struct by_err *err);
void model_close(struct model *m); /* NULL is fine */

/* The group that sums are made with, from now on; borrowed. Ranks of several need one before their first step. */
struct tp;
void model_set_group(struct model *m, struct tp *tp);
bool model_has_group(const struct model *m); /* false too where devices sum by themselves */

const char *model_family(const struct model *m);
uint32_t model_n_vocab(const struct model *m);
uint32_t model_context_len(const struct model *m); /* longest sequence */
size_t model_kv_page_bytes(const struct model *m); /* of all layers */
/* of a sequence, whose slot has a state in some layers; 0: it has none, and pages are all that is known of a text */
size_t model_state_bytes(const struct model *m);
/* Pages, and states: one for each slot and n_kept to start others from. BY_ENOMEM names what is needed and what there is. */
BY_MUST_USE int model_kv_new(struct model *m, uint32_t n_pages, uint32_t n_slots, uint32_t n_kept,
                             struct by_err *err);

/* Once n rows of sequence seq (of the step's) are done, its state is kept under this number. */
struct state_keep {
    uint32_t seq, n, to;
};

/* One step: rows in order, grouped by sequence. */
struct model_step {
    const uint32_t *ids, *positions; /* [n_rows] */
    const uint32_t *last;            /* of op_embed */
    uint32_t n_rows;
    const struct seq_rows *seqs; /* [n_seqs], rows ascending, none empty */
    uint32_t n_seqs;
    const uint32_t *types; /* [n_rows] BERT's token types; NULL: all 0 */
    /* Rows whose last hidden state will be asked for, ascending; NULL: perhaps all. The last layer may skip others. */
    const uint32_t *wanted;
    uint32_t n_wanted;
    const struct state_copy *starts; /* from: a kept state; to: a slot. Before anything else */
    const struct state_keep *keeps;
    uint32_t n_starts, n_keeps;
};
/* Computes the step: keys and values are in the pages afterwards, and the last hidden state of each row is kept.
 * BY_EUNAVAILABLE: a rank of the group is lost, and with it the step. */
BY_MUST_USE int model_forward(struct model *m, const struct model_step *s);
/* Logits of some rows of the step just computed: [n, model_n_vocab] in host memory of the model, yours to change and
 * valid until the next call. n <= logit_rows_max: who wants more (prompt logprobs) asks again. NULL, here and below: the
 * device failed, and its backend's wait says how; on a host, a rank of the group is lost. */
float *model_logits(struct model *m, const uint32_t *rows, uint32_t n);
/* The same, left where the backend has them. */
float *model_logits_there(struct model *m, const uint32_t *rows, uint32_t n);
/* The same rows after the last norm: [n, model_hidden_size]. n <= rows_max. */
const float *model_hidden(struct model *m, const uint32_t *rows, uint32_t n);
uint32_t model_hidden_size(const struct model *m);
/* What a classifier says of sequences that begin at these rows: [n, model_n_labels]. n <= logit_rows_max. */
const float *model_scores(struct model *m, const uint32_t *rows, uint32_t n);
uint32_t model_n_labels(const struct model *m); /* 0: it is no classifier */
/* An encoder's rows see the whole of their sequence: all of it must be in one step. It has no logits. */
bool model_is_encoder(const struct model *m);
/* The same before it is opened; false also of what cannot be. */
bool model_dir_is_encoder(const struct by_model_dir *dir);

#endif
