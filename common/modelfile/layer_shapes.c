#include "common/modelfile/layer_shapes.h"

static void refuse(struct by_config *c, const char *what) {
    if (!c->rc)
        c->rc = by_fail(c->err, BY_EUNSUPPORTED,
                        "%s: per_layer_config: %s is not supported natively", c->where, what);
}

static uint32_t n_full(const struct by_model_info *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
        n += !(m->layer_flags[i] & BY_LAYER_SLIDING);
    return n;
}

/* The number of a layer, as the key of an object; UINT32_MAX: it is none. */
static uint32_t layer_of(struct by_str key) {
    uint32_t n = 0;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9' || n > BY_LAYERS_MAX) return UINT32_MAX;
        n = 10 * n + (uint32_t)(key.p[i] - '0');
    }
    return key.n ? n : UINT32_MAX;
}

/* One layer's own keys. */
static void read_layer(struct by_config *c, struct by_model_info *m, const struct by_json *own,
                       bool is_first) {
    struct by_config o = {.config = own, .where = c->where, .err = c->err, .rc = c->rc};
    uint32_t dim = by_config_u32(&o, "head_dim", m->head_dim),
             kv = by_config_u32(&o, "num_key_value_heads", m->n_kv_heads);
    c->rc = o.rc;
    for (const struct by_json *it = by_json_first(own); it; it = by_json_next(it)) {
        if (!by_str_eqz(by_json_key(it), "head_dim") &&
            !by_str_eqz(by_json_key(it), "num_key_value_heads"))
            refuse(c, "a layer with another key of its own than head_dim and num_key_value_heads");
    }
    if (!is_first && (dim != m->full_head_dim || kv != m->full_kv_heads))
        refuse(c, "a layer without a window with other heads than the other ones");
    m->full_head_dim = dim;
    m->full_kv_heads = kv;
}

/* As transformers 5 saves it: an object for each layer that differs. */
static void read_each(struct by_config *c, struct by_model_info *m, const struct by_json *layers) {
    uint32_t n = 0;
    for (const struct by_json *it = by_json_first(layers); it; it = by_json_next(it), n++) {
        uint32_t layer = layer_of(by_json_key(it));
        if (layer >= m->n_layers || layer >= BY_LAYERS_MAX)
            refuse(c, "a layer that there is not");
        else if (m->layer_flags[layer] & BY_LAYER_SLIDING)
            refuse(c, "a layer with a window whose heads are not those of the others");
        else
            read_layer(c, m, it, n == 0);
    }
    if (n && n != n_full(m))
        refuse(c, "a layer without a window with other heads than the other ones");
}

static void read_shared(struct by_config *c, struct by_model_info *m) {
    m->n_kv_shared = by_config_u32(c, "num_kv_shared_layers", 0);
    if (m->n_kv_shared && by_config_bool(c, "use_double_wide_mlp", false) && m->ffn <= BY_FFN_MAX)
        m->shared_ffn = 2 * m->ffn;
}

static void read_per_layer(struct by_config *c, struct by_model_info *m) {
    m->per_layer = by_config_u32(c, "hidden_size_per_layer_input", 0);
    uint32_t rows = by_config_u32(c, "vocab_size_per_layer_input", 0);
    if (m->per_layer && rows != m->vocab && !c->rc)
        c->rc =
            by_fail(c->err, BY_EUNSUPPORTED,
                    "%s: vocab_size_per_layer_input %u is not the vocabulary's %u, which is not "
                    "supported natively",
                    c->where, rows, m->vocab);
}

void by_layer_shapes_read(struct by_config *c, struct by_model_info *m) {
    if (!c->defaults || !by_json_get(c->defaults, "global_head_dim")) return;
    /* transformers makes the last layer see everything. */
    if (m->n_layers && m->n_layers <= BY_LAYERS_MAX)
        m->layer_flags[m->n_layers - 1] &= (uint8_t)~BY_LAYER_SLIDING;
    m->k_is_v = by_config_bool(c, "attention_k_eq_v", false);
    const struct by_json *layers = by_config_find(c, "per_layer_config");
    if (layers && by_json_type(layers) == BY_JSON_OBJECT) {
        read_each(c, m, layers);
    } else {
        m->full_head_dim = by_config_u32(c, "global_head_dim", m->head_dim);
        if (m->k_is_v) m->full_kv_heads = by_config_u32(c, "num_global_key_value_heads", 0);
    }
    read_shared(c, m);
    read_per_layer(c, m);
}

void by_layer_shapes_fill_proportional(struct by_rope *r, double part) {
    const uint32_t n_turning = (uint32_t)(part * r->n_rot / 2);
    if (r->n_rot > BY_HEAD_DIM_MAX) return; /* refused later */
    r->n_factors = r->n_rot / 2;
    for (uint32_t i = 0; i < r->n_factors; i++)
        r->long_factors[i] = i < n_turning ? (float)r->factor : 1e30f;
}
