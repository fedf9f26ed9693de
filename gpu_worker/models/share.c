#include "gpu_worker/models/share.h"

/* Part `rank` of n things in `world` parts. */
static struct cut part(uint32_t n, uint32_t rank, uint32_t world) {
    uint32_t from = (uint32_t)((uint64_t)n * rank / world),
             to = (uint32_t)((uint64_t)n * (rank + 1) / world);
    return (struct cut){from, to - from};
}

/* The same in whole blocks of a weight's type, the largest that leave every rank one. */
static int columns(struct cut *out, uint32_t n, uint32_t rank, uint32_t world, const char *what,
                   struct by_err *err) {
    uint32_t unit = 256;
    while (unit > 1 && (n % unit || n / unit < world))
        unit /= 2;
    *out = part(n / unit, rank, world);
    out->first *= unit;
    out->n *= unit;
    if (out->n || n == 0) return 0;
    return by_fail(err, BY_EINVAL, "--tp-size %u: the %s has %u columns", world, what, n);
}

static int part_heads(const struct share *s, uint32_t n_heads, uint32_t n_kv, struct cut *q,
                      struct cut *kv, struct by_err *err) {
    uint32_t group = n_heads / n_kv;
    if (s->world > n_heads)
        return by_fail(err, BY_EINVAL, "--tp-size %u: the model has %u attention heads", s->world,
                       n_heads);
    if (s->world <= n_kv) {
        *kv = part(n_kv, s->rank, s->world);
        *q = (struct cut){kv->first * group, kv->n * group};
        return 0;
    }
    /* Several ranks to a key-value head: they part its queries. */
    uint32_t own = (uint32_t)((uint64_t)s->rank * n_kv / s->world);
    uint32_t first = (uint32_t)BY_DIV_UP((uint64_t)own * s->world, n_kv),
             end = (uint32_t)BY_DIV_UP((uint64_t)(own + 1) * s->world, n_kv);
    *kv = (struct cut){own, 1};
    *q = part(group, s->rank - first, end - first);
    q->first += own * group;
    if (q->n) return 0;
    return by_fail(err, BY_EINVAL, "--tp-size %u: %u query heads share %u key-value heads",
                   s->world, n_heads, n_kv);
}

static int heads(struct share *s, const struct by_model_info *m, struct by_err *err) {
    const bool is_mla = m->mla.kv_rank > 0;
    struct cut q;
    int rc = part_heads(s, m->n_heads, is_mla ? 1 : m->n_kv_heads, &s->q, &s->kv, err);
    if (!rc) rc = part_heads(s, m->n_heads, is_mla ? 1 : m->full_kv_heads, &q, &s->full_kv, err);
    if (rc || (q.first == s->q.first && q.n == s->q.n)) return rc;
    return by_fail(
        err, BY_EINVAL,
        "--tp-size %u: %u query heads share %u key-value heads in layers with a window and "
        "%u in the others, which would part them differently",
        s->world, m->n_heads, m->n_kv_heads, m->full_kv_heads);
}

enum { LOGITS_UNIT = 16 }; /* rows of a weight that a backend keeps together */

/* Each rank's logits; all of them where there are not enough to go round. */
static struct cut logits(uint32_t vocab, uint32_t rank, uint32_t world) {
    struct cut c = part(BY_DIV_UP(vocab, LOGITS_UNIT), rank, world);
    if (vocab < LOGITS_UNIT * world) return (struct cut){0, vocab};
    c.first *= LOGITS_UNIT;
    c.n = BY_MIN(c.n * LOGITS_UNIT, vocab - c.first);
    return c;
}

uint32_t share_logits_max(const struct share *s, uint32_t vocab) {
    return BY_DIV_UP(BY_DIV_UP(vocab, LOGITS_UNIT), s->world) * LOGITS_UNIT;
}

struct cut share_logits(const struct share *s, uint32_t vocab, uint32_t rank) {
    return logits(vocab, rank, s->world);
}

int share_make(struct share *out, const struct by_model_info *m, bool qk_whole, uint32_t rank,
               uint32_t world, struct by_err *err) {
    *out = (struct share){.rank = rank, .world = world, .vocab = logits(m->vocab, rank, world)};
    int rc = 0;
    if (qk_whole || world == 1) {
        out->is_attention_whole = true;
        out->q = (struct cut){0, m->n_heads};
        out->kv = (struct cut){0, m->n_kv_heads};
        out->full_kv = (struct cut){0, m->full_kv_heads};
    } else {
        rc = heads(out, m, err);
    }
    if (!rc) rc = columns(&out->ffn, m->ffn, rank, world, "feed-forward", err);
    if (!rc) rc = columns(&out->shared_ffn, m->shared_ffn, rank, world, "feed-forward", err);
    if (!rc) rc = columns(&out->expert, m->moe.ffn, rank, world, "feed-forward of an expert", err);
    if (!rc) rc = columns(&out->shared, m->moe.shared_ffn, rank, world, "shared expert", err);
    return rc;
}

void share_apply(const struct share *s, struct by_model_info *m) {
    m->n_heads = s->q.n;
    if (!m->mla.kv_rank) m->n_kv_heads = s->kv.n, m->full_kv_heads = s->full_kv.n;
    m->ffn = s->ffn.n;
    m->shared_ffn = s->shared_ffn.n;
    m->moe.ffn = s->expert.n;
    m->moe.shared_ffn = s->shared.n;
}
