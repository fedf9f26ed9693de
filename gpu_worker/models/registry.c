#include "common/modelfile/native.h"
#include "gpu_worker/models/arch.h"
#include "gpu_worker/models/family.h"

#include <stdio.h>
#include <string.h>

static const struct family *const families[] = {
#define FAMILY(name) &family_##name,
#include "gpu_worker/models/families.def"
#undef FAMILY
};

/* Llama's names, which most families share, and GGUF's, which all do. */
static const struct {
    const char *hf, *gguf;
} usual[N_ROLES] = {
    [ROLE_EMBED] = {"model.embed_tokens", "token_embd"},
    [ROLE_POSITIONS] = {NULL, "position_embd"},
    [ROLE_TYPES] = {NULL, "token_types"},
    [ROLE_EMBED_NORM] = {NULL, "token_embd_norm"},
    [ROLE_TOKEN_LAYERS] = {NULL, "per_layer_token_embd"},
    [ROLE_TOKEN_LAYERS_PROJ] = {NULL, "per_layer_model_proj"},
    [ROLE_TOKEN_LAYERS_NORM] = {NULL, "per_layer_proj_norm"},
    [ROLE_FINAL_NORM] = {"model.norm", "output_norm"},
    [ROLE_OUTPUT] = {"lm_head", "output"},
    [ROLE_POOLER] = {NULL, "cls"},
    [ROLE_SCORES] = {NULL, "cls.output"},
    [ROLE_ATTN_NORM] = {"input_layernorm", "attn_norm"},
    [ROLE_Q] = {"self_attn.q_proj", "attn_q"},
    [ROLE_K] = {"self_attn.k_proj", "attn_k"},
    [ROLE_V] = {"self_attn.v_proj", "attn_v"},
    [ROLE_QKV] = {NULL, "attn_qkv"},
    [ROLE_Q_NORM] = {NULL, "attn_q_norm"},
    [ROLE_K_NORM] = {NULL, "attn_k_norm"},
    [ROLE_SINKS] = {NULL, "attn_sinks"},
    [ROLE_O] = {"self_attn.o_proj", "attn_output"},
    [ROLE_POST_ATTN_NORM] = {NULL, "post_attention_norm"},
    [ROLE_FFN_NORM] = {"post_attention_layernorm", "ffn_norm"},
    [ROLE_GATE] = {"mlp.gate_proj", "ffn_gate"},
    [ROLE_UP] = {"mlp.up_proj", "ffn_up"},
    [ROLE_GATE_UP] = {NULL, "ffn_up"},
    [ROLE_DOWN] = {"mlp.down_proj", "ffn_down"},
    [ROLE_POST_FFN_NORM] = {NULL, "post_ffw_norm"},
    [ROLE_TOKEN_GATE] = {NULL, "inp_gate"},
    [ROLE_TOKEN_OUT] = {NULL, "proj"},
    [ROLE_POST_TOKEN_NORM] = {NULL, "post_norm"},
    [ROLE_LAYER_SCALE] = {NULL, "layer_output_scale.weight"},
    [ROLE_ROUTER] = {"mlp.gate", "ffn_gate_inp"},
    [ROLE_ROUTER_BIAS] = {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
    [ROLE_ROUTER_SCALE] = {NULL, "ffn_gate_inp.scale"},
    [ROLE_EXPERT_SCALE] = {NULL, "ffn_down_exps.scale"},
    [ROLE_EXPERT_NORM] = {NULL, "pre_ffw_norm_2"},
    [ROLE_POST_EXPERT_NORM] = {NULL, "post_ffw_norm_2"},
    [ROLE_POST_DENSE_NORM] = {NULL, "post_ffw_norm_1"},
    [ROLE_EXPERT_GATE] = {"mlp.experts.@.gate_proj", "ffn_gate_exps"},
    [ROLE_EXPERT_UP] = {"mlp.experts.@.up_proj", "ffn_up_exps"},
    [ROLE_EXPERT_GATE_UP] = {NULL, "ffn_gate_up_exps"},
    [ROLE_EXPERT_DOWN] = {"mlp.experts.@.down_proj", "ffn_down_exps"},
    [ROLE_EXPERT_DOWN_ALL] = {NULL, "ffn_down_exps"},
    [ROLE_SHARED_GATE] = {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    [ROLE_SHARED_UP] = {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    [ROLE_SHARED_DOWN] = {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
    [ROLE_SHARED_GATE_UP] = {NULL, NULL},
    [ROLE_SHARED_SCORE] = {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
    [ROLE_Q_A] = {"self_attn.q_a_proj", "attn_q_a"},
    [ROLE_Q_A_NORM] = {"self_attn.q_a_layernorm", "attn_q_a_norm"},
    [ROLE_Q_B] = {"self_attn.q_b_proj", "attn_q_b"},
    [ROLE_KV_A] = {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    [ROLE_KV_A_NORM] = {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
    [ROLE_KV_B] = {"self_attn.kv_b_proj", "attn_kv_b"},
    [ROLE_STATE_IN] = {NULL, "ssm_in"},
    [ROLE_STATE_CONV] = {"linear_attn.conv1d", "ssm_conv1d"},
    [ROLE_STATE_LOG_A] = {"linear_attn.A_log", "ssm_a"},
    [ROLE_STATE_DT] = {"linear_attn.dt_bias", "ssm_dt.bias"},
    [ROLE_STATE_SKIP] = {NULL, "ssm_d"},
    [ROLE_STATE_NORM] = {"linear_attn.norm", "ssm_norm"},
    [ROLE_STATE_OUT] = {"linear_attn.out_proj", "ssm_out"},
    [ROLE_DELTA_QKV] = {"linear_attn.in_proj_qkv", "attn_qkv"},
    [ROLE_DELTA_Z] = {"linear_attn.in_proj_z", "attn_gate"},
    [ROLE_DELTA_QKVZ] = {"linear_attn.in_proj_qkvz", "ssm_in"},
    [ROLE_DELTA_B] = {"linear_attn.in_proj_b", "ssm_beta"},
    [ROLE_DELTA_A] = {"linear_attn.in_proj_a", "ssm_alpha"},
    [ROLE_DELTA_BA] = {"linear_attn.in_proj_ba", "ssm_ba"},
};

const struct family *family_find(struct by_str name) {
    for (size_t i = 0; i < BY_COUNTOF(families); i++) {
        if (by_str_eqz(name, families[i]->name)) return families[i];
    }
    return NULL;
}

const struct family *family_at(size_t i) {
    return i < BY_COUNTOF(families) ? families[i] : NULL;
}

static enum act_kind act_of(enum by_act a) {
    static const enum act_kind of[] = {
        [BY_ACT_SILU] = ACT_SILU, [BY_ACT_GELU] = ACT_GELU,   [BY_ACT_GELU_TANH] = ACT_GELU_TANH,
        [BY_ACT_RELU] = ACT_RELU, [BY_ACT_RELU2] = ACT_RELU2, [BY_ACT_QUICK_GELU] = ACT_QUICK_GELU,
    };
    return of[a];
}

/* Roles are those that the safetensors files have; a GGUF has the same ones under its own names. */
static void set_names(struct arch *a, const struct family *f, bool is_gguf) {
    for (uint32_t r = 0; r < N_ROLES; r++)
        a->names[r] = usual[r].hf;
    for (uint32_t i = 0; i < FAMILY_NAMES_MAX && f->names[i].name; i++)
        a->names[f->names[i].role] = f->names[i].name[0] ? f->names[i].name : NULL;
    a->layer_prefix = f->layer_prefix ? f->layer_prefix : "model.layers.#.";
    if (!is_gguf) return;
    a->layer_prefix = "blk.#.";
    for (uint32_t r = 0; r < N_ROLES; r++)
        a->names[r] = a->names[r] ? usual[r].gguf : NULL;
    for (uint32_t i = 0; i < FAMILY_NAMES_MAX && f->gguf[i].name; i++)
        a->names[f->gguf[i].role] = f->gguf[i].name[0] ? f->gguf[i].name : NULL;
}

int arch_make(struct arch *out, const struct by_model_info *m, const struct by_json *config,
              struct by_err *err) {
    int rc = by_native_check(m, config, err);
    if (rc) return rc;
    const struct family *f = family_find(by_str_of(m->family));
    if (!f)
        return by_fail(err, BY_EINTERNAL, "the family '%s' has no file in gpu_worker/models",
                       m->family);
    *out = (struct arch){
        .family = f,
        .norm = f->norm,
        .act = act_of(m->act),
        .is_ungated = f->is_ungated,
        .is_parallel = m->is_parallel,
        .is_post_ln = f->is_post_ln,
        .qk_whole = f->qk_whole,
        .qk_norm_is_last = f->qk_norm_is_last,
        .has_v_norm = f->has_v_norm,
        .is_encoder = f->is_encoder,
        .ffn_norm_is_attn_norm = f->ffn_norm_is_attn_norm,
    };
    if (!m->is_gguf) out->layout = f->layout;
    set_names(out, f, m->is_gguf);
    if (!m->has_qk_norm) out->names[ROLE_Q_NORM] = out->names[ROLE_K_NORM] = NULL;
    if (f->adjust) f->adjust(out, m, config);
    return 0;
}

const char *arch_expand(const struct arch *a, enum role role, const char *name, uint32_t layer,
                        uint32_t expert, char *out, size_t cap) {
    const char *parts[] = {role >= ROLE_LAYER_FIRST ? a->layer_prefix : "", name};
    size_t n = 0;
    for (size_t i = 0; i < BY_COUNTOF(parts); i++) {
        for (const char *p = parts[i]; *p; p++) {
            bool is_number = *p == '#' || *p == '@';
            int k = is_number ? snprintf(out + n, cap - n, "%u", *p == '#' ? layer : expert)
                              : snprintf(out + n, cap - n, "%c", *p);
            if (k < 0 || (size_t)k >= cap - n) return NULL;
            n += (size_t)k;
        }
    }
    return out;
}

const char *arch_name(const struct arch *a, enum role role, uint32_t layer, uint32_t expert,
                      char *out, size_t cap) {
    return a->names[role] ? arch_expand(a, role, a->names[role], layer, expert, out, cap) : NULL;
}
