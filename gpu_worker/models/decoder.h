/* decoder.h - what one forward pass needs: weights by layer, buffers, KV memory; and the pass itself.
 *
 *     ids ─embed─▶ x ─▶ [ norm q k v ─▶ pages ─▶ attention ─o─▶ + ─▶ norm gate up ─▶ down ─▶ + ] x n_layers ─▶ norm ─▶ logits
 *
 *     long steps   each lane takes up to 96 rows through a layer and through q, k, v of the next; a barrier a layer
 *     short steps  all lanes share each op
 *
 * Always: which way is taken changes no bit (backend.h). A pointer that is NULL means the family has no such thing.
 * Owner: model.c; filled by weights.c, run on the gpu worker's main thread. */
#ifndef GPU_WORKER_MODELS_DECODER_H
#define GPU_WORKER_MODELS_DECODER_H

#include "gpu_worker/models/arch.h"
#include "gpu_worker/models/model.h"
#include "gpu_worker/models/share.h"
#include "gpu_worker/tp.h"

enum {
    /* of a lane at a time in a long step, at most: weights come from memory once for so many */
    CHUNK_ROWS = 96,
    FINE_POSITIONS = 64, /* a sequence's first tokens, see is_fine */
    APART_ROWS = 32,     /* rows a lane from which on lanes go apart */
};

/* A linear layer whose parts could not be put into one matrix (their types differ): at most q, k and v. */
struct linears {
    struct weight *w[3];
    uint32_t y_col[3], n;
};

struct moe {
    struct weight *router, *shared_gate_up, *shared_down, *shared_score;
    struct weight **gate_up, **down; /* [n_experts] */
    const float *choice_bias;
    const float *weight_scale; /* [n_experts], or NULL */
    /* w NULL: the feed-forward's */
    struct norm router_norm, norm;
    /* of experts beside a feed-forward: norms of what each of the two adds */
    struct norm post_norm, dense_post_norm;
};

struct mla {
    struct weight *q_a, *q_b, *kv_a;
    struct norm q_a_norm, kv_a_norm;
    /* [n_heads]: [kv_rank, nope_dim], the query's way into the latent space */
    struct weight **key_in;
    struct weight **value_out; /* [n_heads]: [v_dim, kv_rank] */
};

/* A layer with a state; its matrices are the layer's qkv and o. */
struct state_layer {
    const float *conv, *conv_bias; /* [size, columns], [columns] or NULL */
    const float *decay, *dt;       /* [n_v_heads] */
    const float *skip;             /* [n_v_heads] Mamba-2 */
    struct norm norm;              /* of a head's output, or of all heads' */
    float *windows, *states; /* by slot, then those that are kept: see op_conv, op_delta, op_ssm */
};

/* A step as layers with states see it: a round ends where some sequence's state is to be kept. Made by states_plan. */
struct rounds {
    struct seq_rows *seqs; /* [2 * rows_max] those of round 0, those of round 1 … */
    struct state_copy
        *copies; /* [2 * rows_max] those before round 0, then likewise after their round */
    uint32_t *n_seqs, *n_copies; /* [rows_max + 1] by round */
    uint32_t n, n_starts;
};

/* The heads of a layer as this rank has them. Those of layers without a window may be others. */
struct heads {
    uint32_t n_kv_all; /* of all ranks; those of this one: */
    struct cut cut;
    struct kv_shape kv;
    /* of the qkv buffer: queries, their gates, keys, values, one after the other */
    uint32_t q_cols, gate_cols, k_cols, v_cols;
    /* with latent attention the values are the keys' first columns */
    uint32_t k_col, v_col;
    uint32_t rot_col; /* first column of a head that turns */
};

/* What a layer takes of the token itself (Gemma 4): x += norm(out (act(gate x) * its part of decoder.token_layers)) */
struct token_part {
    struct weight *gate, *out; /* NULL: nothing */
    struct norm post_norm;
};

struct layer {
    /* w NULL: none; v_norm: its w is decoder.ones */
    struct norm attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, q_norm, k_norm, v_norm;
    const struct heads *heads;
    uint32_t kv_layer;  /* whose keys and values it attends to: its own number, or one before */
    struct linears qkv; /* without k and v where they are another layer's; without v where v is k */
    float scale;        /* what x is multiplied by at the end */
    struct token_part token;
    struct weight *o, *up, *down; /* up: gate and up, unless the family has no gate */
    struct moe *moe;              /* instead of up and down, or beside them */
    struct mla *mla;              /* instead of qkv */
    struct state_layer *state;    /* instead of attention */
    const float *sinks;
    const struct rope_table *rope;
    uint32_t window;
    void *kv;
};

/* Activations [rows_max, ld], backend memory. */
struct buffer {
    float *p;
    uint32_t ld;
};

struct decoder {
    struct backend *b;
    struct by_model_info full, info; /* info: as this rank sees it */
    struct share share;
    struct tp *tp; /* NULL: a rank of one */
    int tp_rc;     /* not 0: a rank is lost, sums are void */
    struct arch arch;
    uint32_t context_len, rows_max, logit_rows_max;
    struct heads windowed_heads, full_heads; /* of layers with a window, and of the others */
    const float *ones;                       /* [head size]: weights of a norm that has none */

    struct weight *token_layers, *token_layers_proj; /* NULL: none */
    struct norm token_layers_norm;
    struct weight *embed, *positions, *types, *output;
    struct weight *pooler, *scores; /* of a classifier */
    struct norm embed_norm, final_norm;
    struct layer *layers; /* [info.n_layers] */
    struct rope_table *rope, *rope_local;

    /* [rows_max], of the step in hand: rows whose activations int8 would round too much. They are the first tokens of their
     * sequence: every later one attends to them, most of all to the very first ("attention sinks", Xiao et al. 2023), so an
     * error there is in every answer; and short prompts are all first tokens. */
    uint8_t *is_fine;
    uint32_t *order, *common; /* [rows_max], of the step in hand: see shared_prefix.h */
    uint32_t n_order;         /* 0: no two sequences share anything */
    struct rounds rounds;
    uint32_t n_slots, n_kept;             /* states of each layer that has some */
    struct buffer x, qkv, attn, ffn, out; /* out: what a sublayer adds, when a norm comes between */
    struct buffer token;                  /* [rows_max, n_layers * per_layer] */
    struct buffer logits, hidden;         /* hidden: made when first asked for */
    struct buffer own_logits;             /* [logit_rows_max, share_logits_max]: of this rank */
    float *all_logits; /* of a host: [world, share_logits_max], a row's from every rank */
    uint32_t logit_starts[TP_RANKS_MAX + 1]; /* rank k's: from column k on, up to k + 1's */
    struct buffer pooled, labels;            /* [logit_rows_max, …] */
    struct {
        struct buffer logits, weights, gate, scratch,
            out;           /* out: of experts beside a feed-forward */
        uint32_t *experts; /* [rows_max, n_used] */
    } moe;
    struct {
        struct buffer q_a, q, latent; /* latent: attention's result before value_out */
    } mla;
};

/* One lane's part of a step. */
struct pass {
    struct decoder *d;
    const struct model_step *s;
    struct lane *lane;
    uint32_t first, n; /* rows in hand */
};

/* BY_EUNAVAILABLE: a rank of the group is lost. */
BY_MUST_USE int decoder_forward(struct decoder *d, const struct model_step *s);
/* x += f, or x += norm(f), or x = norm(x + f): f is in d->out unless it has been added already. */
void decoder_add(const struct pass *p, const struct norm *post);
/* d->out of the rows in hand becomes the sum over ranks, then is added to x as the layer says (post: or NULL). */
void decoder_sum(const struct pass *p, const struct norm *post);
/* A buffer's rows in hand become their sums over ranks. */
void decoder_sum_rows(const struct pass *p, const struct buffer *b);
/* Does the part that comes now only hold a share of its result? */
static inline bool decoder_is_part(const struct decoder *d, bool is_attention) {
    return d->share.world > 1 && !(is_attention && d->share.is_attention_whole);
}
/* Into d->logits, in this order. BY_EUNAVAILABLE: a rank of the group is lost. */
BY_MUST_USE int decoder_logits(struct decoder *d, const uint32_t *rows, uint32_t n);
void decoder_scores(struct decoder *d, const uint32_t *rows, uint32_t n); /* into d->labels */
/* the first n_rows, normed, into d->hidden */
void decoder_hidden(struct decoder *d, uint32_t n_rows);

static inline const struct norm *decoder_norm(const struct norm *n) { /* NULL when there is none */
    return n->w ? n : NULL;
}

#endif
