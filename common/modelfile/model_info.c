#include "common/modelfile/model_info.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    enum by_act act;
} act_names[] = {
    {"silu", BY_ACT_SILU},
    {"swish", BY_ACT_SILU},
    {"gelu", BY_ACT_GELU},
    {"gelu_pytorch_tanh", BY_ACT_GELU_TANH},
    {"gelu_new", BY_ACT_GELU_TANH},
    {"gelu_fast", BY_ACT_GELU_TANH},
    {"relu", BY_ACT_RELU},
    {"relu2", BY_ACT_RELU2},
    {"quick_gelu", BY_ACT_QUICK_GELU},
};

bool by_act_parse(struct by_str name, enum by_act *out) {
    for (size_t i = 0; i < BY_COUNTOF(act_names); i++) {
        if (!by_str_eqz(name, act_names[i].name)) continue;
        *out = act_names[i].act;
        return true;
    }
    return false;
}

const char *by_act_name(enum by_act a) {
    for (size_t i = 0; i < BY_COUNTOF(act_names); i++) {
        if (act_names[i].act == a) return act_names[i].name;
    }
    return "?";
}

const char *by_rope_kind_name(enum by_rope_kind k) {
    static const char *const names[] = {"none", "plain",    "linear",  "llama3",
                                        "yarn", "longrope", "factors", "dynamic"};
    return (size_t)k < BY_COUNTOF(names) ? names[k] : "?";
}

void by_model_info_init(struct by_model_info *m) {
    *m = (struct by_model_info){
        .rope = {.kind = BY_ROPE_PLAIN, .factor = 1, .attention_factor = 0, .is_truncated = true},
        .embed_scale = 1,
        .residual_scale = 1,
        .logit_scale = 1,
        .norm_eps = 1e-5,
        .moe = {.n_groups = 1, .n_groups_used = 1, .routed_scale = 1},
        .bos = -1,
        .pad = -1,
    };
}

void by_model_info_add_eos(struct by_model_info *m, int64_t id) {
    if (id < 0 || id >= BY_VOCAB_MAX || m->n_eos == BY_EOS_MAX) return;
    for (uint32_t i = 0; i < m->n_eos; i++) {
        if (m->eos[i] == (uint32_t)id) return;
    }
    m->eos[m->n_eos++] = (uint32_t)id;
}

uint32_t by_model_info_n_keyed(const struct by_model_info *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
        n += !(m->layer_flags[i] & BY_LAYER_STATE);
    return n;
}

uint32_t by_model_info_conv_cols(const struct by_model_info *m) {
    const struct by_state_info *x = &m->state;
    if (x->kind == BY_STATE_SHORT_CONV) return m->hidden;
    return 2 * x->n_k_heads * x->k_dim + x->n_v_heads * x->v_dim;
}

uint32_t by_model_info_kv_layer(const struct by_model_info *m, uint32_t layer) {
    const uint32_t n_own = m->n_layers - m->n_kv_shared;
    if (layer < n_own) return layer;
    for (uint32_t i = n_own; i-- > 0;) {
        if (!((m->layer_flags[i] ^ m->layer_flags[layer]) & BY_LAYER_SLIDING)) return i;
    }
    return UINT32_MAX;
}

static int check_shared(const struct by_model_info *m, const char *where, struct by_err *err) {
    for (uint32_t i = 0; i < m->n_layers; i++) {
        if (m->n_kv_shared <= m->n_layers && by_model_info_kv_layer(m, i) != UINT32_MAX) continue;
        return by_fail(
            err, BY_EINVAL,
            "%s: the last %u of %u layers have no keys of their own, and none of the kind of "
            "layer %u before them has",
            where, m->n_kv_shared, m->n_layers, i);
    }
    return 0;
}

static int check_sizes(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct {
        const char *name;
        uint64_t value, max;
    } sizes[] = {
        {"number of layers", m->n_layers, BY_LAYERS_MAX},
        {"hidden size", m->hidden, BY_HIDDEN_MAX},
        {"number of attention heads", m->n_heads, BY_HEADS_MAX},
        {"number of key-value heads", m->n_kv_heads, BY_HEADS_MAX},
        {"head size", m->head_dim, BY_HEAD_DIM_MAX},
        {"number of key-value heads of full layers", m->full_kv_heads, BY_HEADS_MAX},
        {"head size of full layers", m->full_head_dim, BY_HEAD_DIM_MAX},
        {"feed-forward size", m->moe.n_experts ? m->moe.ffn : m->ffn, BY_FFN_MAX},
        {"vocabulary size", m->vocab, BY_VOCAB_MAX},
    };
    for (size_t i = 0; i < BY_COUNTOF(sizes); i++) {
        if (sizes[i].value > 0 && sizes[i].value <= sizes[i].max) continue;
        return by_fail(err, BY_EINVAL, "%s: the %s is %" PRIu64 "; 1 to %" PRIu64 " is possible",
                       where, sizes[i].name, sizes[i].value, sizes[i].max);
    }
    const uint32_t kv_heads[] = {m->n_kv_heads, m->full_kv_heads};
    for (size_t i = 0; i < BY_COUNTOF(kv_heads); i++) {
        if (m->n_heads % kv_heads[i] == 0) continue;
        return by_fail(err, BY_EINVAL, "%s: %u attention heads cannot share %u key-value heads",
                       where, m->n_heads, kv_heads[i]);
    }
    const uint64_t wide = BY_MAX(m->ffn, m->shared_ffn),
                   token = (uint64_t)m->per_layer * m->n_layers;
    if (wide <= BY_FFN_MAX && token <= BY_FFN_MAX) return 0;
    return by_fail(err, BY_EINVAL,
                   "%s: a feed-forward of %" PRIu64 ", %" PRIu64 " numbers of a token; "
                   "at most %d are possible",
                   where, wide, token, BY_FFN_MAX);
}

static int check_moe(const struct by_moe_info *x, const char *where, struct by_err *err) {
    if (x->n_experts == 0) return 0;
    if (x->n_experts > BY_EXPERTS_MAX || x->n_groups > BY_EXPERT_GROUPS_MAX)
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: %u experts in %u groups are not supported natively (at most %d in %d)",
                       where, x->n_experts, x->n_groups, BY_EXPERTS_MAX, BY_EXPERT_GROUPS_MAX);
    if (x->n_used == 0 || x->n_used > x->n_experts) {
        return by_fail(err, BY_EINVAL, "%s: %u of %u experts a token is not possible", where,
                       x->n_used, x->n_experts);
    }
    if (x->n_groups == 0 || x->n_experts % x->n_groups != 0 || x->n_groups_used == 0 ||
        x->n_groups_used > x->n_groups) {
        return by_fail(err, BY_EINVAL,
                       "%s: %u experts do not divide into %u groups of which %u are used", where,
                       x->n_experts, x->n_groups, x->n_groups_used);
    }
    if (x->n_used > x->n_experts / x->n_groups * x->n_groups_used) {
        return by_fail(err, BY_EINVAL, "%s: %u experts a token are more than %u groups hold", where,
                       x->n_used, x->n_groups_used);
    }
    return 0;
}

static int check_mla(const struct by_mla_info *x, const char *where, struct by_err *err) {
    if (x->kv_rank == 0) return 0;
    bool fits = x->kv_rank <= BY_HEAD_DIM_MAX && x->q_rank <= BY_HIDDEN_MAX && x->rope_dim > 0 &&
                x->rope_dim % 2 == 0 && x->v_dim > 0 && x->v_dim <= BY_HEAD_DIM_MAX &&
                x->nope_dim <= BY_HEAD_DIM_MAX && x->nope_dim + x->rope_dim <= BY_HEAD_DIM_MAX;
    if (fits) return 0;
    return by_fail(
        err, BY_EINVAL,
        "%s: latent attention with rank %u and head parts %u + %u and %u is not possible", where,
        x->kv_rank, x->nope_dim, x->rope_dim, x->v_dim);
}

static int check_state(const struct by_state_info *x, const char *where, struct by_err *err) {
    if (x->kind == BY_STATE_NONE) return 0;
    if (x->kind == BY_STATE_SHORT_CONV) {
        if (x->conv > 1 && x->conv <= BY_CONV_MAX) return 0;
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: a short convolution of %u inputs is not supported natively (2 to %d)",
                       where, x->conv, BY_CONV_MAX);
    }
    bool fits = x->n_k_heads > 0 && x->n_k_heads <= BY_HEADS_MAX && x->n_v_heads <= BY_HEADS_MAX &&
                x->n_v_heads % x->n_k_heads == 0 && x->k_dim > 0 && x->k_dim <= BY_HEAD_DIM_MAX &&
                x->v_dim > 0 && x->v_dim <= BY_HEAD_DIM_MAX && x->conv > 0 &&
                x->conv <= BY_CONV_MAX;
    if (fits && (uint64_t)x->n_v_heads * x->k_dim * x->v_dim <= BY_STATE_NUMBERS_MAX) return 0;
    return by_fail(err, BY_EINVAL,
                   "%s: linear attention with %u key heads of %u, %u value heads of %u and a "
                   "convolution of %u is not possible",
                   where, x->n_k_heads, x->k_dim, x->n_v_heads, x->v_dim, x->conv);
}

static int check_rope(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct by_rope *r = &m->rope;
    if (r->kind == BY_ROPE_NONE) return 0;
    const struct {
        uint32_t n_rot, room;
    } turns[] = {{r->n_rot, m->mla.kv_rank ? m->mla.rope_dim : m->full_head_dim},
                 {r->n_rot_local, m->head_dim}};
    for (size_t i = 0; i < (r->theta_local > 0 ? 2u : 1u); i++) {
        if (turns[i].n_rot && turns[i].n_rot % 2 == 0 && turns[i].n_rot <= turns[i].room) continue;
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: rope over %u dimensions of a head of %u; an even number up to the head "
                       "is needed",
                       where, turns[i].n_rot, turns[i].room);
    }
    if (!(r->theta >= 1 && r->theta <= 1e15) || !(r->theta_local == 0 || r->theta_local >= 1)) {
        return by_fail(err, BY_EINVAL, "%s: rope base %g (local %g); at least 1 is needed", where,
                       r->theta, r->theta_local);
    }
    if (!(r->factor > 0 && r->factor <= 1e6) || !isfinite(r->attention_factor)) {
        return by_fail(err, BY_EINVAL, "%s: rope factor %g with attention factor %g", where,
                       r->factor, r->attention_factor);
    }
    bool needs_original =
        r->kind == BY_ROPE_LLAMA3 || r->kind == BY_ROPE_YARN || r->kind == BY_ROPE_LONGROPE;
    if (needs_original && (r->original_context == 0 || r->original_context > BY_CONTEXT_MAX)) {
        return by_fail(err, BY_EINVAL, "%s: rope kind %s needs the original context length", where,
                       by_rope_kind_name(r->kind));
    }
    if (r->kind == BY_ROPE_LLAMA3 && !(r->low_freq > 0 && r->high_freq > r->low_freq)) {
        return by_fail(err, BY_EINVAL, "%s: rope frequency factors %g and %g must grow", where,
                       r->low_freq, r->high_freq);
    }
    bool needs_factors = r->kind == BY_ROPE_LONGROPE || r->kind == BY_ROPE_FACTORS;
    if (needs_factors && r->n_factors != r->n_rot / 2) {
        return by_fail(err, BY_EINVAL, "%s: %u rope factors for %u pairs of dimensions", where,
                       r->n_factors, r->n_rot / 2);
    }
    for (uint32_t i = 0; needs_factors && i < r->n_factors; i++) {
        bool fits = r->long_factors[i] > 0 && isfinite(r->long_factors[i]) &&
                    (r->kind == BY_ROPE_FACTORS ||
                     (r->short_factors[i] > 0 && isfinite(r->short_factors[i])));
        if (!fits) return by_fail(err, BY_EINVAL, "%s: rope factor %u is not above 0", where, i);
    }
    return 0;
}

static double yarn_mscale(double factor, double m) {
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The formulas of transformers' modeling_rope_utils. */
static void fill_rope(struct by_model_info *m) {
    struct by_rope *r = &m->rope;
    uint32_t room = m->mla.kv_rank ? m->mla.rope_dim : m->full_head_dim;
    if (r->kind == BY_ROPE_NONE) return;
    if (r->n_rot == 0) r->n_rot = room;
    if (r->n_rot_local == 0) r->n_rot_local = BY_MIN(r->n_rot, m->head_dim);
    if (r->attention_factor != 0) return;
    r->attention_factor = 1;
    if (r->kind == BY_ROPE_YARN) {
        r->attention_factor =
            r->mscale != 0 && r->mscale_all != 0
                ? yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all)
                : yarn_mscale(r->factor, 1);
    }
    if (r->kind == BY_ROPE_LONGROPE && r->factor > 1 && r->original_context > 1)
        r->attention_factor = sqrt(1 + log(r->factor) / log((double)r->original_context));
}

static void fill_attention(struct by_model_info *m) {
    if (m->n_kv_heads == 0) m->n_kv_heads = m->n_heads;
    if (m->mla.kv_rank && m->mla.nope_dim <= BY_HEAD_DIM_MAX && m->mla.rope_dim <= BY_HEAD_DIM_MAX)
        m->head_dim = m->mla.nope_dim + m->mla.rope_dim;
    if (m->head_dim == 0 && m->n_heads) m->head_dim = m->hidden / m->n_heads;
    if (m->full_kv_heads == 0) m->full_kv_heads = m->n_kv_heads;
    if (m->full_head_dim == 0) m->full_head_dim = m->head_dim;
    if (m->attn_scale != 0 || m->head_dim == 0) return;
    m->attn_scale = 1 / sqrt((double)m->head_dim);
    if (m->mla.kv_rank && m->rope.kind == BY_ROPE_YARN && m->rope.mscale_all != 0) {
        double s = yarn_mscale(m->rope.factor, m->rope.mscale_all);
        m->attn_scale *= s * s;
    }
}

static int check_scales(const struct by_model_info *m, const char *where, struct by_err *err) {
    const struct {
        const char *name;
        double value;
    } scales[] = {
        {"attention scale", m->attn_scale},    {"embedding scale", m->embed_scale},
        {"residual scale", m->residual_scale}, {"logit scale", m->logit_scale},
        {"expert scale", m->moe.routed_scale}, {"growth of queries", m->query_growth},
    };
    for (size_t i = 0; i < BY_COUNTOF(scales); i++) {
        if (isfinite(scales[i].value) && fabs(scales[i].value) <= 1e6) continue;
        return by_fail(err, BY_EINVAL, "%s: the %s is %g", where, scales[i].name, scales[i].value);
    }
    if (!(m->norm_eps >= 0 && m->norm_eps <= 1))
        return by_fail(err, BY_EINVAL, "%s: the norm's epsilon is %g", where, m->norm_eps);
    if (!(m->attn_softcap >= 0) || !(m->final_softcap >= 0))
        return by_fail(err, BY_EINVAL, "%s: a softcap is below 0", where);
    return 0;
}

int by_model_info_finish(struct by_model_info *m, const char *where, struct by_err *err) {
    fill_attention(m);
    fill_rope(m);
    if (m->moe.n_experts && m->moe.ffn == 0) m->moe.ffn = m->ffn;
    int rc = check_sizes(m, where, err);
    if (!rc) rc = check_shared(m, where, err);
    if (!rc) rc = check_moe(&m->moe, where, err);
    if (!rc) rc = check_mla(&m->mla, where, err);
    if (!rc) rc = check_state(&m->state, where, err);
    if (!rc) rc = check_rope(m, where, err);
    if (!rc) rc = check_scales(m, where, err);
    return rc;
}
