#include "common/modelfile/hf_rope.h"

#include "common/modelfile/layer_shapes.h"

#include <math.h>
#include <string.h>

static enum by_rope_kind rope_kind(struct by_config *c, struct by_str name) {
    static const struct {
        const char *name;
        enum by_rope_kind kind;
    } kinds[] = {{"default", BY_ROPE_PLAIN},     {"linear", BY_ROPE_LINEAR},
                 {"llama3", BY_ROPE_LLAMA3},     {"yarn", BY_ROPE_YARN},
                 {"longrope", BY_ROPE_LONGROPE}, {"su", BY_ROPE_LONGROPE},
                 {"dynamic", BY_ROPE_DYNAMIC},   {"proportional", BY_ROPE_FACTORS},
                 {"mrope", BY_ROPE_PLAIN}}; /* a text's three positions are one */
    for (size_t i = 0; i < BY_COUNTOF(kinds); i++) {
        if (by_str_eqz(name, kinds[i].name)) return kinds[i].kind;
    }
    if (!c->rc) {
        c->rc =
            by_fail(c->err, BY_EUNSUPPORTED, "%s: rope of type '%.*s' is not supported natively",
                    c->where, (int)BY_MIN(name.n, (size_t)64), name.p);
    }
    return BY_ROPE_PLAIN;
}

static uint32_t read_factors(struct by_config *c, const struct by_json *j, const char *key,
                             float *out) {
    const struct by_json *list = by_json_get(j, key);
    uint32_t n = 0;
    if (!list || c->rc) return 0;
    for (const struct by_json *it = by_json_first(list); it; it = by_json_next(it)) {
        if (n == BY_ROPE_PAIRS_MAX || by_json_type(it) != BY_JSON_NUMBER) {
            by_config_fail(c, key, "a list of at most 512 numbers", it);
            return 0;
        }
        out[n++] = (float)by_json_f64(it);
    }
    return n;
}

static void read_growth(struct by_config *scaling, struct by_model_info *m) {
    m->query_growth = by_config_f64(scaling, "llama_4_scaling_beta", 0);
    if (m->query_growth != 0)
        m->query_growth_every = by_config_u32(scaling, "original_max_position_embeddings", 0);
}

/* With an alpha "dynamic" is another base at all lengths. */
static void read_alpha(struct by_config *scaling, struct by_model_info *m) {
    double alpha = by_config_f64(scaling, "alpha", 0);
    if (m->rope.kind != BY_ROPE_DYNAMIC || !(alpha > 0) || m->head_dim <= 2) return;
    m->rope.kind = BY_ROPE_PLAIN;
    m->rope.theta *= pow(alpha, (double)m->head_dim / (m->head_dim - 2));
}

/* The scaling's own keys: a reader over that object alone. */
static void read_scaling(struct by_config *c, struct by_model_info *m,
                         const struct by_json *scaling) {
    struct by_config s = {.config = scaling, .where = c->where, .err = c->err, .rc = c->rc};
    struct by_rope *rope = &m->rope;
    struct by_str name = by_config_str(&s, "rope_type|type");
    if (name.n) rope->kind = rope_kind(&s, name);
    if (by_model_is(m, "ministral3")) read_growth(&s, m);
    if (strncmp(m->family, "hunyuan_v1", 10) == 0) read_alpha(&s, m);
    if (rope->kind == BY_ROPE_PLAIN) {
        c->rc = s.rc;
        return;
    }
    rope->factor = by_config_f64(&s, "factor", 1);
    rope->low_freq = by_config_f64(&s, "low_freq_factor", 1);
    rope->high_freq = by_config_f64(&s, "high_freq_factor", 4);
    rope->beta_fast = by_config_f64(&s, "beta_fast", 32);
    rope->beta_slow = by_config_f64(&s, "beta_slow", 1);
    rope->attention_factor = by_config_f64(&s, "attention_factor", 0);
    rope->mscale = by_config_f64(&s, "mscale", 0);
    rope->mscale_all = by_config_f64(&s, "mscale_all_dim", 0);
    rope->is_truncated = by_config_bool(&s, "truncate", true);
    rope->original_context =
        by_config_u32(&s, "original_max_position_embeddings", rope->original_context);
    uint32_t n_short = read_factors(&s, scaling, "short_factor", rope->short_factors);
    rope->n_factors = read_factors(&s, scaling, "long_factor", rope->long_factors);
    if (!s.rc && n_short != rope->n_factors)
        s.rc = by_fail(s.err, BY_EINVAL, "%s: %u short and %u long rope factors", s.where, n_short,
                       rope->n_factors);
    c->rc = s.rc;
}

/* transformers 5 puts all of rope into rope_parameters, for some families one object a kind of layer. */
static const struct by_json *rope_object(struct by_config *c, struct by_model_info *m) {
    const struct by_json *p = by_config_find(c, "rope_parameters|rope_scaling");
    if (!p && by_model_is_gemma4(m)) p = by_json_get(c->defaults, "rope_parameters"); /* null */
    if (!p) return NULL;
    const struct by_json *full = by_json_get(p, "full_attention"),
                         *local = by_json_get(p, "sliding_attention");
    if (!local) return full ? full : p;
    struct by_config o = {.config = local, .where = c->where, .err = c->err, .rc = c->rc};
    struct by_str kind = by_config_str(&o, "rope_type|type");
    m->rope.theta_local = by_config_f64(&o, "rope_theta", m->rope.theta_local);
    if (kind.n && !by_str_eqz(kind, "default") && !o.rc)
        o.rc = by_fail(c->err, BY_EUNSUPPORTED,
                       "%s: rope of type '%.*s' in layers with a window is not supported natively",
                       c->where, (int)BY_MIN(kind.n, (size_t)64), kind.p);
    c->rc = o.rc;
    return full ? full : p;
}

void by_hf_rope_read(struct by_config *c, struct by_model_info *m, const struct by_family *family) {
    struct by_rope *rope = &m->rope;
    rope->is_interleaved =
        by_config_bool(c, "rope_interleave", family && family->is_interleaved_hf);
    rope->theta = by_config_f64(c, "rope_theta|rotary_emb_base", 10000);
    rope->theta_local = by_config_f64(c, "rope_local_base_freq", 0);
    rope->original_context = by_config_u32(c, "original_max_position_embeddings", m->context);
    bool is_unsaid = by_config_knows(c, "position_embedding_type") &&
                     !by_str_eqz(by_config_str(c, "position_embedding_type"), "rope");
    if (is_unsaid || by_config_bool(c, "_no_rope", false) ||
        (by_model_is(m, "falcon") && by_config_bool(c, "alibi", false))) {
        rope->kind = BY_ROPE_NONE;
        return;
    }
    double part = 1;
    if (by_config_knows(c, "rotary_dim") && m->head_dim)
        part = (double)by_config_u32(c, "rotary_dim", m->head_dim) / m->head_dim;
    part = by_config_f64(c, "partial_rotary_factor|rotary_pct", part);
    const struct by_json *object = rope_object(c, m);
    if (object) {
        struct by_config o = {.config = object, .where = c->where, .err = c->err, .rc = c->rc};
        rope->theta = by_config_f64(&o, "rope_theta", rope->theta);
        part = by_config_f64(&o, "partial_rotary_factor", part);
        c->rc = o.rc;
        read_scaling(c, m, object);
    }
    if (!rope->theta_local && by_config_bool(c, "_local_unscaled", false))
        rope->theta_local = rope->theta;
    uint32_t room = m->mla.kv_rank     ? m->mla.rope_dim
                    : m->full_head_dim ? m->full_head_dim
                                       : m->head_dim;
    bool is_partial = part < 1 && part > 0 && !by_model_is_gemma4(m);
    rope->n_rot = is_partial ? (uint32_t)((double)room * part) : room;
    if (by_model_is_gemma4(m)) rope->n_rot_local = m->head_dim;
    if (rope->kind == BY_ROPE_FACTORS) by_layer_shapes_fill_proportional(rope, part);
    /* longrope's factor is how much longer the context became; the file gives it by the two lengths. */
    if (rope->kind == BY_ROPE_LONGROPE && rope->factor <= 1 && rope->original_context)
        rope->factor = BY_MAX(1.0, (double)m->context / (double)rope->original_context);
}

/* ---- layers that do not turn ---- */

void by_hf_rope_mark_no_rope(struct by_config *c, struct by_model_info *m) {
    int64_t uses_rope;
    const struct by_json *list =
        by_config_find(c, "no_rope_layers"); /* 1: the layer does use rope */
    uint32_t every = by_config_u32(c, "no_rope_layer_interval", 0), i = 0;
    if (list && by_json_type(list) == BY_JSON_ARRAY) {
        for (const struct by_json *it = by_json_first(list); it && i < BY_LAYERS_MAX;
             it = by_json_next(it), i++) {
            if (by_json_to_i64(it, &uses_rope) && !uses_rope) m->layer_flags[i] |= BY_LAYER_NO_ROPE;
        }
        return;
    }
    for (i = 0; every && i < m->n_layers && i < BY_LAYERS_MAX; i++)
        m->layer_flags[i] |= (i + 1) % every ? 0 : BY_LAYER_NO_ROPE;
}

/* Cohere 2 and EXAONE 4: where there are windows, the other layers do not turn. */
void by_hf_rope_mark_in_windows(struct by_config *c, struct by_model_info *m) {
    if (!m->sliding_window || !by_config_bool(c, "_rope_in_windows", false)) return;
    for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
        m->layer_flags[i] |= m->layer_flags[i] & BY_LAYER_SLIDING ? 0 : BY_LAYER_NO_ROPE;
}
