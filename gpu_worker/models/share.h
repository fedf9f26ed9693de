/* share.h - what one rank of a tensor-parallel group computes: some heads, some columns of each feed-forward.
 *
 *     heads    kv   | 0 | 1 | 2 |        9 query and 3 key-value heads on 2 ranks: rank 0 has key-value head 0 with queries
 *              q    |012|345|678|        0 … 2, rank 1 has the rest: groups stay whole while there are enough of them
 *     1 kv head, 2 ranks: each has that head, and half of its queries
 *
 *     rows of q, k, v, gate and up and columns of o and down are cut; what the ranks then hold are parts of a sum (tp.h)
 *
 * Always: the shares of all ranks together are the whole, each query head and each column once. A rank of one has it all.
 *     rows of the output matrix are cut in sixteens; ranks then gather each other's logits
 *
 * Owner: plain values. Norms, routers and embeddings are every rank's. */
#ifndef GPU_WORKER_MODELS_SHARE_H
#define GPU_WORKER_MODELS_SHARE_H

#include "common/base/err.h"
#include "common/modelfile/model_info.h"

struct cut { /* columns first … first + n - 1 */
    uint32_t first, n;
};

struct share {
    uint32_t rank, world;
    struct cut q, kv, full_kv; /* heads; full_kv: of layers without a window */
    /* columns of a dense layer, of one that shares keys, of an expert, of the shared experts */
    struct cut ffn, shared_ffn, expert, shared;
    struct cut vocab;        /* logits; from a multiple of 16 on. All: every rank computes all */
    bool is_attention_whole; /* every rank computes all of attention: there is no sum behind it */
};

/* qk_whole: q and k are normed over all heads at once, so heads cannot be parted. Fails with the numbers when there are
 * more ranks than heads or columns. */
BY_MUST_USE int share_make(struct share *out, const struct by_model_info *m, bool qk_whole,
                           uint32_t rank, uint32_t world, struct by_err *err);
struct cut share_logits(const struct share *s, uint32_t vocab, uint32_t rank); /* of any rank */
uint32_t share_logits_max(const struct share *s, uint32_t vocab); /* of the rank with most */
/* The model as this rank sees it: fewer heads, narrower feed-forwards. */
void share_apply(const struct share *s, struct by_model_info *m);

#endif
