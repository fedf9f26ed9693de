"""Does the native engine read a config.json as transformers does? Each family's options drawn at random, unusual but legal
ones too, some left out, in the spelling of transformers 4 or 5; a tiny model of it through both, logits compared.

    BANYAN_CONFIGS=500 pytest tests/hf/test_configs.py -k llama       more of them
    BANYAN_SEED=17 BANYAN_CONFIGS=1 …                                 the one that failed

A config that the native engine refuses as unsupported is right too: the Transformers worker takes it. Each family has to be run
natively now and then, all the same.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import models

BUILD = Path(os.environ.get("BANYAN_BUILD", Path(__file__).resolve().parents[2] / "build"))
PROGRAM = BUILD / "tests/model-logits"
EXIT_UNSUPPORTED = 79
SEED, N_CONFIGS = int(os.environ.get("BANYAN_SEED", 0)), int(os.environ.get("BANYAN_CONFIGS", 12))
N_IDS, N_VOCAB = 45, 97
IS_4 = transformers.__version__.startswith("4.")
FLAG = [True, False]
ACTS = ["silu", "silu", "gelu", "gelu_pytorch_tanh", "relu", "gelu_new"]
EPS = [1e-6, 1e-5, 1e-2]
WINDOW = [None, 4, 9, 4096]


def layer_types(r, n):
    return r.choice([None, [r.choice(["sliding_attention", "full_attention"]) for _ in range(n)]])


def subset(r, n):
    return [i for i in range(n) if r.random() < 0.3]


def llama3(r):
    return {"factor": r.choice([2.0, 8.0]), "low_freq_factor": 1.0, "high_freq_factor": r.choice([2.0, 4.0]),
            "original_max_position_embeddings": r.choice([16, 64])}


def yarn(r):
    more = {"beta_fast": r.choice([8, 32]), "beta_slow": r.choice([1, 2]), "attention_factor": r.choice([0.7, 1.3]),
            "mscale": r.choice([0.7, 1.0]), "mscale_all_dim": r.choice([0.5, 1.0]), "truncate": r.choice(FLAG)}
    return {"factor": r.choice([2.0, 4.0, 40.0]), "original_max_position_embeddings": r.choice([16, 32, 64]),
            **{k: v for k, v in more.items() if r.random() < 0.3}}


SCALINGS = {
    "default": lambda r: {},
    "linear": lambda r: {"factor": r.choice([2.0, 3.5])},
    "dynamic": lambda r: {"factor": 2.0},
    "llama3": llama3,
    "yarn": yarn,
}


def rope(r, partial=False, kinds=tuple(SCALINGS)):
    """rope_theta and a scaling, as transformers 4 or 5 spells them."""
    out = {}
    if r.random() < 0.7:
        out["rope_theta"] = r.choice([10000.0, 500.0, 1e6])
    if partial and r.random() < 0.7:
        out["partial_rotary_factor"] = r.choice([0.25, 0.5, 1.0])
    kind = r.choice(["default", *kinds])
    scaling = SCALINGS[kind](r)
    if IS_4 or r.random() < 0.5:
        if kind != "default" or r.random() < 0.2:
            return {**out, "rope_scaling": {r.choice(["type", "rope_type"]): kind, **scaling}}
        return {**out, **({"rope_scaling": None} if r.random() < 0.3 else {})}
    if "rope_theta" not in out and r.random() < 0.5:
        return {}
    return {"rope_parameters": {**out, "rope_type": kind, **scaling}}


def base(r, eps="rms_norm_eps", kv=True, dims=(8, 16, 20, 24), given=True):
    """Sizes that always stand in the file."""
    heads = r.choice([1, 2, 4, 6])
    dim = r.choice(dims)
    v = {"hidden_size": heads * dim, "intermediate_size": r.choice([40, 96]), "num_hidden_layers": r.randint(1, 5),
         "num_attention_heads": heads, "vocab_size": N_VOCAB, "max_position_embeddings": r.choice([64, 128, 512]),
         eps: r.choice(EPS), "tie_word_embeddings": r.choice(FLAG), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    if kv:
        v["num_key_value_heads"] = r.choice([k for k in range(1, heads + 1) if heads % k == 0])
    if given:
        v["head_dim"] = r.choice([dim, dim, 16, 32])
    return v


def llama(r):
    return {**base(r), **rope(r), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def mistral(r):
    return {**base(r), **rope(r), "sliding_window": r.choice(WINDOW), "hidden_act": r.choice(ACTS)}


def ministral(r):
    v = mistral(r)
    return {**v, "layer_types": layer_types(r, v["num_hidden_layers"])} if v["sliding_window"] else v


def ministral3(r):
    v = {**base(r), "sliding_window": r.choice(WINDOW), "hidden_act": r.choice(ACTS)}
    kind, length = r.choice(["yarn", "yarn", "default"]), r.choice([8, 16, 64])
    turns = {"rope_type": kind, "rope_theta": r.choice([10000.0, 1e6]), **(yarn(r) if kind == "yarn" else {})}
    return {**v, "rope_parameters": {**turns, "original_max_position_embeddings": length, "llama_4_scaling_beta": r.choice([0.1, 1.5])}}


def mixtral(r):
    n = r.choice([2, 5, 8])
    return {**mistral(r), "num_local_experts": n, "num_experts_per_tok": r.randint(1, min(n, 3))}


def windows(r, v):
    """layer_types without a window are an error to one transformers, and nothing to the other."""
    out = {"use_sliding_window": r.choice(FLAG), "sliding_window": r.choice(WINDOW), "max_window_layers": r.randint(0, 5)}
    if out["use_sliding_window"] and out["sliding_window"]:
        out["layer_types"] = layer_types(r, v["num_hidden_layers"])
    return out


def qwen2(r):
    v = base(r, given=False)
    return {**v, **rope(r), **windows(r, v), "hidden_act": r.choice(ACTS)}


def qwen3(r):
    v = base(r)
    return {**v, **rope(r), **windows(r, v), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def qwen_moe(r, v):
    n = r.choice([3, 4, 8])
    return {"num_experts": n, "num_experts_per_tok": r.randint(1, 3), "moe_intermediate_size": r.choice([24, 40]),
            "norm_topk_prob": r.choice(FLAG), "decoder_sparse_step": r.choice([1, 1, 2, 3]),
            "mlp_only_layers": subset(r, v["num_hidden_layers"])}


def qwen2_moe(r):
    v = qwen2(r)
    return {**v, **qwen_moe(r, v), "shared_expert_intermediate_size": r.choice([24, 40]), "qkv_bias": r.choice(FLAG)}


def qwen3_moe(r):
    v = qwen3(r)
    v.pop("layer_types", 0), v.pop("max_window_layers")
    return {**v, **qwen_moe(r, v)}


def hybrid(r):
    """Gated delta nets and attention with a gate, in any order; more value than key heads, any convolution."""
    v = base(r)
    n_key = r.choice([1, 2, 3])
    kinds = [r.choice(["linear_attention", "linear_attention", "full_attention"]) for _ in range(v["num_hidden_layers"])]
    return {**v, **rope(r, partial=True), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS),
            "layer_types": r.choice([None, kinds]), "full_attention_interval": r.choice([2, 3, 4]), "linear_num_key_heads": n_key,
            "linear_num_value_heads": n_key * r.choice([1, 2, 3]), "linear_key_head_dim": r.choice([5, 8, 16, 24]),
            "linear_value_head_dim": r.choice([6, 8, 16, 24, 40]), "linear_conv_kernel_dim": r.choice([1, 2, 3, 4, 4, 5, 7])}


def qwen3_5_text(r):
    return hybrid(r)


def hybrid_moe(r):
    n = r.choice([3, 4, 8])
    return {**hybrid(r), "num_experts": n, "num_experts_per_tok": r.randint(1, 3), "moe_intermediate_size": r.choice([24, 40]),
            "shared_expert_intermediate_size": r.choice([24, 40])}


def qwen3_5_moe_text(r):
    v = hybrid_moe(r)
    return {**v, **qwen_moe(r, v)}  # of which it does not know the last three keys


def qwen3_next(r):
    v = hybrid_moe(r)
    act = {"hidden_act": "silu"} if IS_4 else {}  # its convolution takes that one, whatever the config says
    return {**v, **qwen_moe(r, v), **act}


GEMMA_ACTS = ["gelu_pytorch_tanh", "gelu", "silu"]


def gemma(r):
    v = base(r)
    acts = [a for a in ACTS if a != "gelu" or not IS_4]  # it takes the word for what it says
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(acts), "hidden_activation": r.choice([None, *GEMMA_ACTS])}


def gemma2(r):
    v = base(r)
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_activation": r.choice(GEMMA_ACTS),
            "query_pre_attn_scalar": r.choice([16, 144]), "sliding_window": r.choice([4, 9, 4096]),
            "final_logit_softcapping": r.choice([None, 3.0]), "attn_logit_softcapping": r.choice([None, 2.0]),
            "layer_types": layer_types(r, v["num_hidden_layers"])}


def vaultgemma(r):
    return gemma2(r)


def gemma3_text(r):
    v = gemma2(r)
    v["sliding_window_pattern"] = r.choice([2, 3])
    if "type" in (v.get("rope_scaling") or {}):  # transformers 5 looks for the other spelling here
        v["rope_scaling"]["rope_type"] = v["rope_scaling"].pop("type")
    p = v.pop("rope_parameters", None)
    if p:
        p.pop("truncate", 0)  # which transformers 5 looks for outside of it
        local = {"rope_type": "default", "rope_theta": r.choice([10000.0, 700.0])}
        v["rope_parameters"] = {"full_attention": p, "sliding_attention": local}
    else:
        v["rope_local_base_freq"] = r.choice([10000.0, 700.0])
    return v


def gemma4_unified_text(r):
    """Layers of two shapes, some of which share keys; the last one sees everything, whatever its type says."""
    v = base(r)
    n, heads = v["num_hidden_layers"], v["num_attention_heads"]
    kinds = layer_types(r, n)
    n_shared = r.choice([0, r.randint(0, n - 1)]) if kinds else 0
    turns = {} if r.random() < 0.3 else {"rope_parameters": {
        "full_attention": r.choice([{"rope_type": "proportional", "partial_rotary_factor": r.choice([0.25, 0.5, 1.0]), "factor": r.choice([1.0, 4.0])},
                                    {"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}, {"rope_type": "yarn", **yarn(r)}]),
        "sliding_attention": {"rope_type": "default", "rope_theta": r.choice([10000.0, 700.0])}}}
    if turns:
        turns["rope_parameters"]["full_attention"] |= {"rope_theta": r.choice([1e6, 3000.0])}
        turns["rope_parameters"]["full_attention"].pop("truncate", 0)
    full = {"global_head_dim": r.choice([16, 24, 32]), "num_global_key_value_heads": r.choice([k for k in range(1, heads + 1) if heads % k == 0])}
    if r.random() < 0.3 and kinds:
        own = {"head_dim": full["global_head_dim"], "num_key_value_heads": full["num_global_key_value_heads"]}
        full = {"per_layer_config": {str(i): own for i, kind in enumerate(kinds[:-1] + ["full_attention"]) if kind == "full_attention"}}
    return {**v, **turns, **full, "attention_bias": r.choice(FLAG), "hidden_activation": r.choice(GEMMA_ACTS), "layer_types": kinds,
            "sliding_window": r.choice([4, 9, 4096]), "final_logit_softcapping": r.choice([None, 3.0]), "attention_k_eq_v": r.choice(FLAG),
            "num_kv_shared_layers": n_shared, "use_double_wide_mlp": r.choice(FLAG)}


def gemma4_text(r):
    v = {**gemma4_unified_text(r), "hidden_size_per_layer_input": r.choice([0, 8, 24]), "vocab_size_per_layer_input": N_VOCAB}
    if r.random() < 0.6:
        return v
    return {**v, "enable_moe_block": True, "num_experts": r.choice([3, 4, 8]), "top_k_experts": r.randint(1, 3), "moe_intermediate_size": r.choice([24, 40])}


def helium(r):
    v = base(r, given=False)
    v["head_dim"] = v["hidden_size"] // v["num_attention_heads"]
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def smollm3(r):
    v = base(r, given=False)
    n = v["num_hidden_layers"]
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS),
            "no_rope_layers": r.choice([None, [r.randint(0, 1) for _ in range(n)]]), "no_rope_layer_interval": r.choice([2, 4]),
            **windows(r, v)}


def granite(r):
    return {**llama(r), "embedding_multiplier": r.choice([1.0, 12.0]), "logits_scaling": r.choice([1.0, 8.0, 0.5]),
            "residual_multiplier": r.choice([1.0, 0.22]), "attention_multiplier": r.choice([1.0, 0.0625])}


def hunyuan_v1_dense(r):
    v = {**llama(r), "num_experts": 1}
    v.pop("mlp_bias")
    alpha = {"type" if IS_4 else "rope_type": "dynamic", "alpha": r.choice([2.0, 1000.0])}
    for key in ("rope_parameters", "rope_scaling"):
        if v.get(key) and r.random() < 0.6:
            v[key] = {**({"rope_theta": v[key]["rope_theta"]} if "rope_theta" in v[key] else {}), **alpha}
    return v


def hyperclovax(r):
    return {**granite(r), "use_post_norm": r.choice(FLAG)}


def seed_oss(r):
    return {**llama(r), "attention_out_bias": r.choice(FLAG)}


def ernie4_5(r):
    v = {**llama(r), "use_bias": r.choice(FLAG)}
    v.pop("attention_bias"), v.pop("mlp_bias")
    return v


def arcee(r):
    return {**llama(r), "hidden_act": r.choice([*ACTS, "relu2"])}


def olmo2(r):
    v = base(r, given=False)
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def olmo3(r):
    """Where the base stands beside a scaling, transformers 5 has its own in the layers with a window."""
    v = base(r, given=False)
    turns = rope(r)
    full, scaling = turns.pop("rope_parameters", None), turns.get("rope_scaling") or {}
    if not IS_4:  # as for gemma3_text
        (full or scaling).pop("truncate", 0)
    if full:
        local = {"rope_type": "default", "rope_theta": r.choice([10000.0, 700.0])}
        turns["rope_parameters"] = {"full_attention": {"rope_theta": 500000.0, **full}, "sliding_attention": local}
    elif not IS_4:
        turns["rope_theta"] = 500000.0
        if "type" in scaling:
            scaling["rope_type"] = scaling.pop("type")
    return {**v, **turns, "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS), "sliding_window": r.choice([4, 9, 4096]),
            "layer_types": layer_types(r, v["num_hidden_layers"])}


def exaone(r):
    v = llama(r)
    for new, old in (("num_hidden_layers", "num_layers"), ("rms_norm_eps", "layer_norm_epsilon"), ("hidden_act", "activation_function")):
        v[old] = v.pop(new)
    return v


def exaone4(r):
    v = {**base(r), **rope(r), "hidden_act": r.choice(ACTS), "sliding_window": r.choice(WINDOW)}
    if not v["sliding_window"]:
        return {**v, "sliding_window_pattern": None, "layer_types": ["full_attention"] * v["num_hidden_layers"]}
    kinds = layer_types(r, v["num_hidden_layers"])
    return {**v, "layer_types": kinds, "sliding_window_pattern": r.choice([2, 3] if not kinds else [4, "LLLG"])}


def cohere2(r):
    v = cohere(r)
    v.pop("use_qk_norm")
    return {**v, "sliding_window": r.choice([4, 9, 4096]), "layer_types": layer_types(r, v["num_hidden_layers"]),
            "sliding_window_pattern": r.choice([2, 3, 4])}


def cohere(r):
    v = base(r, "layer_norm_eps", given=False)
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS), "logit_scale": r.choice([0.0625, 2.0]),
            "use_qk_norm": r.choice([False, False, True])}


def glm(r):
    v = base(r)
    return {**v, **rope(r, partial=True), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def glm4(r):
    v = base(r)
    return {**v, **rope(r, partial=True), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def phi3(r):
    v = base(r, given=False)
    v = {**v, **rope(r, partial=True, kinds=()), "sliding_window": r.choice(WINDOW), "hidden_act": r.choice(ACTS),
         "original_max_position_embeddings": r.choice([32, v["max_position_embeddings"]])}  # not between N_IDS and the context
    if r.random() < 0.5:
        v.pop("rope_parameters", 0)
        n_rot = int(v["hidden_size"] // v["num_attention_heads"] * v.get("partial_rotary_factor", 1.0)) // 2
        factors = [[round(r.uniform(1, 4), 2) for _ in range(n_rot)] for _ in range(2)]
        v["rope_scaling"] = {"type": "longrope", "short_factor": factors[0], "long_factor": factors[1]}
    return v


def stablelm(r):
    v = base(r, "layer_norm_eps", given=False)
    return {**v, **rope(r, partial=True), "use_qkv_bias": r.choice(FLAG), "qk_layernorm": r.choice([False, False, True]),
            "use_parallel_residual": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def phi(r):
    v = base(r, "layer_norm_eps", given=False)
    return {**v, **rope(r, partial=True), "qk_layernorm": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def nemotron(r):
    v = base(r, "norm_eps")
    kinds = () if IS_4 else tuple(SCALINGS)  # transformers 4 does not look at them
    return {**v, **rope(r, True, kinds), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice([*ACTS, "relu2"])}


def jais2(r):
    v = base(r, "layer_norm_eps")
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice([*ACTS, "relu2"])}


def starcoder2(r):
    v = base(r, "norm_epsilon", given=False)
    return {**v, **rope(r), "use_bias": r.choice(FLAG), "sliding_window": r.choice(WINDOW), "hidden_act": r.choice(ACTS)}


def gpt2(r):
    heads = r.choice([1, 2, 4])
    return {"n_embd": heads * 16, "n_head": heads, "n_layer": r.randint(1, 4), "n_positions": r.choice([64, 128]),
            "n_inner": r.choice([None, 40, 96]), "vocab_size": N_VOCAB, "activation_function": r.choice(ACTS),
            "layer_norm_epsilon": r.choice(EPS), "tie_word_embeddings": r.choice(FLAG), "scale_attn_weights": r.choice([True, True, False]),
            "scale_attn_by_inverse_layer_idx": r.choice([False, False, True]), "bos_token_id": 0, "eos_token_id": 1}


def gpt_bigcode(r):
    v = gpt2(r)
    v.pop("scale_attn_by_inverse_layer_idx")
    return {**v, "multi_query": r.choice(FLAG)}


def gpt_neox(r):
    v = base(r, "layer_norm_eps", kv=False, given=False)
    out = {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS), "use_parallel_residual": r.choice(FLAG)}
    if "rope_theta" in out:
        out["rotary_emb_base"] = out.pop("rope_theta")
    if "rope_parameters" not in out and r.random() < 0.7:
        out["rotary_pct"] = r.choice([0.25, 0.5, 1.0])
    return out


def opt(r):
    v = base(r, "layer_norm_eps", kv=False, given=False)
    v.pop("layer_norm_eps")
    v["ffn_dim"] = v.pop("intermediate_size")
    return {**v, "activation_function": r.choice(ACTS), "enable_bias": r.choice(FLAG), "layer_norm_elementwise_affine": r.choice([True, True, False]),
            "do_layer_norm_before": r.choice([True, True, False]), "_remove_final_layer_norm": r.choice([False, False, True]),
            "word_embed_proj_dim": r.choice([v["hidden_size"], v["hidden_size"], 24])}


def falcon(r):
    v = base(r, "layer_norm_epsilon", kv=False, given=False)
    v.pop("intermediate_size")
    heads = v["num_attention_heads"]
    return {**v, **rope(r), "bias": r.choice(FLAG), "alibi": r.choice([False, False, True]), "multi_query": r.choice(FLAG),
            "parallel_attn": r.choice(FLAG), "new_decoder_architecture": r.choice(FLAG), "activation": r.choice(["gelu", "silu"]),
            "num_kv_heads": r.choice([k for k in range(1, heads + 1) if heads % k == 0]),
            "num_ln_in_parallel_attn": r.choice([None, 1, 2]), "ffn_hidden_size": r.choice([None, 40])}


def deepseek(r):
    v = base(r, given=False)
    v["num_key_value_heads"] = v["num_attention_heads"]
    n, n_groups, n_used = r.choice([(4, 1, 3), (8, 1, 3), (8, 2, 3), (8, 4, 2), (4, 2, 1)])
    return {**v, **rope(r), "attention_bias": r.choice([False, False, True]), "hidden_act": r.choice(ACTS), "kv_lora_rank": r.choice([16, 24]),
            "q_lora_rank": r.choice([None, 24]), "qk_nope_head_dim": r.choice([8, 16]), "qk_rope_head_dim": r.choice([8, 16]),
            "v_head_dim": r.choice([8, 16]), "n_routed_experts": n, "num_experts_per_tok": n_used,
            "n_shared_experts": r.choice([1, 2]), "moe_intermediate_size": r.choice([24, 40]), "first_k_dense_replace": r.randint(0, 3),
            "routed_scaling_factor": r.choice([1.0, 2.5]), "norm_topk_prob": r.choice(FLAG), "n_group": n_groups,
            "topk_group": r.randint((n_groups + 1) // 2, n_groups)}


def deepseek_v2(r):
    return {**deepseek(r), "topk_method": r.choice(["greedy", "group_limited_greedy"])}


def deepseek_v3(r):
    return {**deepseek(r), "rope_interleave": r.choice([True, True, False]), "topk_method": "noaux_tc", "scoring_func": "sigmoid"}


def olmoe(r):
    n = r.choice([3, 4, 8])
    return {**olmo2(r), "num_experts": n, "num_experts_per_tok": r.randint(1, 3), "norm_topk_prob": r.choice(FLAG),
            "clip_qkv": r.choice([None, None, 0.7])}


def flex_olmo(r):
    v = olmoe(r)
    v.pop("clip_qkv")
    return v


def granitemoe(r):
    n = r.choice([3, 4, 8])
    v = {**granite(r), "num_local_experts": n, "num_experts_per_tok": r.randint(1, 3)}
    v.pop("mlp_bias")
    return v


def granitemoeshared(r):
    return {**granitemoe(r), "shared_intermediate_size": r.choice([0, 24, 40])}


def hunyuan_v1_moe(r):
    v = hunyuan_v1_dense(r)
    n, used = r.choice([1, 4, 8]), r.randint(1, 3)
    used = min(n, used)
    for scaling in filter(None, (v.get("rope_parameters"), v.get("rope_scaling"))):
        if "alpha" in scaling:
            scaling["factor"] = 1.0
    return {**v, "num_experts": n, "moe_topk": r.choice([used, [used] * v["num_hidden_layers"]]),
            "moe_intermediate_size": [v["intermediate_size"]] * v["num_hidden_layers"]}


def ernie4_5_moe(r):
    v = {**ernie4_5(r), "use_bias": r.choice([False, False, True])}
    n = r.choice([3, 4, 8])
    return {**v, "moe_num_experts": n, "moe_k": r.randint(1, 3), "moe_num_shared_experts": r.choice([0, 1, 2]),
            "moe_intermediate_size": r.choice([24, 40]), "moe_layer_start_index": r.randint(0, 2), "moe_layer_end_index": r.choice([-1, 1, 2]),
            "moe_layer_interval": r.choice([1, 1, 2])}


def minimax_m2(r):
    v = base(r)
    n = r.choice([3, 4, 8])
    out = {**v, **rope(r, partial=True), "hidden_act": r.choice(ACTS), "num_local_experts": n, "num_experts_per_tok": r.randint(1, 3)}
    return {**out, "rotary_dim": r.choice([4, 8])} if r.random() < 0.5 else out


def exaone_moe(r):
    v = exaone4(r)
    n = v["num_hidden_layers"]
    out = {**v, **corrected_moe(r), "num_experts": 8, "num_shared_experts": r.choice([1, 2]), "first_k_dense_replace": r.randint(0, 3),
           "mlp_layer_types": mlp_types(r, n)}
    out.pop("n_shared_experts"), out.pop("n_routed_experts")
    return out


def corrected_moe(r):
    """DeepSeek V3's choice of experts, as others took it over."""
    n, n_groups, n_used = r.choice([(4, 1, 3), (8, 1, 3), (8, 2, 3), (8, 4, 2), (4, 2, 1)])
    return {"n_routed_experts": n, "num_experts_per_tok": n_used, "n_shared_experts": r.choice([1, 2]),
            "moe_intermediate_size": r.choice([24, 40]), "routed_scaling_factor": r.choice([1.0, 2.5]), "norm_topk_prob": r.choice(FLAG),
            "n_group": n_groups, "topk_group": r.randint((n_groups + 1) // 2, n_groups), "num_nextn_predict_layers": 1}


def glm4_moe(r):
    v = base(r)
    return {**v, **rope(r, partial=True), **corrected_moe(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS),
            "use_qk_norm": r.choice(FLAG), "first_k_dense_replace": r.randint(0, 3)}


def solar_open(r):
    v = base(r)
    v.pop("intermediate_size")
    return {**v, **rope(r), **corrected_moe(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS)}


def mlp_types(r, n):
    return r.choice([None, [r.choice(["dense", "sparse"]) for _ in range(n)]])


def glm4_moe_lite(r):
    v = deepseek_v3(r)
    v.pop("first_k_dense_replace")
    return {**v, **corrected_moe(r), "mlp_layer_types": mlp_types(r, v["num_hidden_layers"])}


def dots1(r):
    v = base(r)
    out = {**v, **rope(r), **corrected_moe(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS),
           "first_k_dense_replace": r.randint(0, 3), "sliding_window": r.choice(WINDOW), "max_window_layers": r.randint(0, 5),
           "use_sliding_window": r.choice(FLAG), "scoring_func": "noaux_tc"}
    return {**out, "layer_types": layer_types(r, v["num_hidden_layers"])} if out["sliding_window"] else out


def youtu(r):
    v = {**deepseek(r), "rope_interleave": r.choice([True, True, False])}
    for key in ("n_routed_experts", "num_experts_per_tok", "n_shared_experts", "moe_intermediate_size", "first_k_dense_replace",
                "routed_scaling_factor", "norm_topk_prob", "n_group", "topk_group"):
        v.pop(key)
    return v


def minicpm3(r):
    v = youtu(r)
    v.pop("rope_interleave")
    if r.random() < 0.5:
        v.pop("rope_parameters", 0)
        factors = [[round(r.uniform(1, 4), 2) for _ in range(v["qk_rope_head_dim"] // 2)] for _ in range(2)]
        v["rope_scaling"] = {"type": "longrope", "short_factor": factors[0], "long_factor": factors[1],
                             "original_max_position_embeddings": v["max_position_embeddings"]}
    return {**v, "v_head_dim": r.choice([None, 8, 16]), "scale_emb": r.choice([1, 12]), "scale_depth": r.choice([None, 1.4]),
            "dim_model_base": r.choice([None, 32])}


def gpt_oss(r):
    v = base(r, dims=(16,))
    n = r.choice([4, 8])
    turns = {k: x for k, x in rope(r).items() if x}  # null is yarn to transformers 5, none to 4
    return {**v, **turns, "sliding_window": r.choice([4, 9]), "num_local_experts": n, "num_experts_per_tok": r.randint(1, 3),
            "layer_types": layer_types(r, v["num_hidden_layers"]), "attention_bias": r.choice([True, True, False]),
            "swiglu_limit": r.choice([7.0, 7.0, 1.0])}


def iquestcoder(r):
    return llama(r)


def cwm(r):
    v = base(r)
    kind = r.choice(["default", "llama3", "llama3", "yarn", "linear"])
    return {**v, "sliding_window": r.choice([4, 9, 4096]), "layer_types": layer_types(r, v["num_hidden_layers"]), "mlp_bias": r.choice(FLAG),
            "hidden_act": r.choice(ACTS), "rope_parameters": {"rope_type": kind, "rope_theta": r.choice([500.0, 1e6]), **SCALINGS[kind](r)}}


def mellum(r):
    v, n = base(r), r.choice([3, 4, 8])
    kind = r.choice(["default", "llama3", "yarn", "linear"])
    turns = {"full_attention": {"rope_type": kind, "rope_theta": r.choice([500.0, 1e6]), **SCALINGS[kind](r)},
             "sliding_attention": {"rope_type": "default", "rope_theta": r.choice([10000.0, 700.0])}}
    turns["full_attention"].pop("truncate", None)  # transformers looks for it outside of both
    return {**v, "num_experts": n, "num_experts_per_tok": r.randint(1, 3), "moe_intermediate_size": r.choice([24, 40]), "norm_topk_prob": r.choice(FLAG),
            "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS), "sliding_window": r.choice([4, 9, 4096]), "rope_parameters": turns,
            "layer_types": layer_types(r, v["num_hidden_layers"]), "mlp_layer_types": mlp_types(r, v["num_hidden_layers"])}


def hy_v3(r):
    v = base(r)
    return {**v, **rope(r), "attention_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS), "num_experts": 8, "num_experts_per_tok": r.randint(1, 3),
            "num_shared_experts": r.choice([1, 2]), "moe_intermediate_size": r.choice([24, 40]), "router_scaling_factor": r.choice([1.0, 2.5]),
            "mlp_layer_types": mlp_types(r, v["num_hidden_layers"])}


def mamba(r, v):
    """v with Mamba-2 beside its attention: any heads, states and groups (whose norms are one in transformers 4) of the same width."""
    n = r.choice([2, 4, 6])
    v["hidden_size"] = r.choice([24, 48, 96])
    return {**v, "mamba_n_heads": n, "mamba_d_head": r.choice(["auto", v["hidden_size"] * 2 // n]), "mamba_n_groups": 1 if IS_4 else r.choice([1, 1, 2]),
            "mamba_d_state": r.choice([5, 8, 16, 24]), "mamba_d_conv": r.choice([1, 2, 3, 4, 4, 5]), "mamba_expand": 2,
            "mamba_conv_bias": r.choice(FLAG), "mamba_proj_bias": r.choice(FLAG), "mamba_chunk_size": r.choice([16, 64, 256])}


def granitemoehybrid(r):
    v = granitemoe(r)
    if IS_4:
        v.pop("head_dim")  # which its heads do not ask
    v = mamba(r, v)
    if IS_4:
        v["num_attention_heads"] = v["num_key_value_heads"] = 2
    kinds = [r.choice(["attention", "mamba"] if IS_4 else ["full_attention", "attention", "mamba", "mamba", "linear_attention"])
             for _ in range(v["num_hidden_layers"])]
    return {**v, "num_local_experts": r.choice([0, 0, v["num_local_experts"]]), "shared_intermediate_size": r.choice([24, 40]),
            "position_embedding_type": r.choice(["rope", "rope", None]), "layer_types": kinds}


def bamba(r):
    return {**mamba(r, base(r)), **rope(r), "attention_bias": r.choice(FLAG), "mlp_bias": r.choice(FLAG), "hidden_act": r.choice(ACTS),
            "attn_layer_indices": r.choice([None, subset(r, 5)])}


def lfm2(r):
    """Heads divide the width, but where head_dim says otherwise; the feed-forward is two thirds of what is said."""
    v = base(r, "norm_eps", given=r.choice(FLAG))
    n = v["num_hidden_layers"]
    v[r.choice(["tie_embedding", "tie_word_embeddings"])] = v.pop("tie_word_embeddings")
    if r.random() < 0.5:
        v["block_ff_dim"], v["intermediate_size"] = v["intermediate_size"], 31
    kinds = {"layer_types": [r.choice(["conv", "conv", "full_attention"]) for _ in range(n)]}
    return {**v, **rope(r), **r.choice([kinds, kinds, {"full_attn_idxs": subset(r, n)}, {}]), "conv_bias": r.choice(FLAG),
            "conv_L_cache": r.choice([2, 3, 3, 4, 5]), "block_auto_adjust_ff_dim": r.choice(FLAG), "block_multiple_of": r.choice([1, 16, 24]),
            "block_ffn_dim_multiplier": r.choice([1.0, 1.3, 0.7, None])}


def lfm2_moe(r):
    v, n = base(r, "norm_eps", given=r.choice(FLAG)), r.choice([3, 4, 8])
    kinds = [r.choice(["conv", "conv", "full_attention"]) for _ in range(v["num_hidden_layers"])]
    return {**v, **rope(r), "layer_types": kinds, "conv_bias": r.choice(FLAG), "conv_L_cache": r.choice([2, 3, 3, 4]), "num_experts": n,
            "num_experts_per_tok": r.randint(1, 3), "moe_intermediate_size": r.choice([24, 40]), "num_dense_layers": r.choice([0, 1, 2]),
            "use_expert_bias": r.choice(FLAG), "routed_scaling_factor": r.choice([1.0, 2.5]), "norm_topk_prob": r.choice(FLAG)}


FAMILIES = {f.__name__: f for f in (
    llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, qwen3_moe, qwen3_5_text, qwen3_5_moe_text, qwen3_next, gemma, gemma2, gemma3_text,
    gemma4_text, gemma4_unified_text, helium, smollm3, granite, olmo2,
    cohere, glm4, phi3, stablelm, starcoder2, gpt2, gpt_neox, opt, falcon, deepseek_v2, deepseek_v3, gpt_oss,
    hunyuan_v1_moe, ernie4_5_moe, minimax_m2, exaone_moe, olmoe, flex_olmo, granitemoe, granitemoeshared, glm4_moe, glm4_moe_lite, solar_open, dots1,
    glm, seed_oss, ernie4_5, arcee, cohere2, olmo3, exaone4, ministral, vaultgemma,
    phi, nemotron, jais2, gpt_bigcode, hyperclovax, ministral3, hunyuan_v1_dense,
    exaone, minicpm3, youtu, iquestcoder, cwm, mellum, hy_v3, granitemoehybrid, bamba, lfm2, lfm2_moe)}
# What no file may leave out, or transformers would make a model of its default size.
KEPT = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "head_dim",
        "max_position_embeddings", "moe_intermediate_size", "shared_expert_intermediate_size", "n_embd", "n_head", "n_layer",
        "n_positions", "ffn_dim", "word_embed_proj_dim", "num_experts", "num_local_experts", "n_routed_experts", "pad_token_id",
        "bos_token_id", "eos_token_id", "num_experts_per_tok", "n_shared_experts", "moe_num_experts", "moe_k", "moe_topk", "moe_num_shared_experts",
        "num_shared_experts", "shared_intermediate_size", "n_group", "topk_group", "use_sliding_window", "sliding_window",
        "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
        "top_k_experts", "global_head_dim", "per_layer_config", "hidden_size_per_layer_input", "vocab_size_per_layer_input",
        "mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_expand"}


def draw(family, seed):
    """What an author could have written."""
    r = random.Random(f"{family}:{seed}")
    v = FAMILIES[family](r)
    share = r.choice([0, 0.3, 0.7])
    v = {"model_type": family, **{k: x for k, x in v.items() if k in KEPT or r.random() >= share}}
    if family == "cohere" and "rope_parameters" not in v:  # whose default is not the same in transformers 4 and 5
        v.setdefault("rope_theta", 8e6)
    if family == "olmo3" and "rope_parameters" not in v:  # nor here
        v.setdefault("rope_theta", 500000.0)
    return v


def make(config, path, seed):
    """The model of it as transformers has it, saved; and what it says of some ids."""
    (path / "config.json").write_text(json.dumps(config))
    read = transformers.AutoConfig.from_pretrained(path)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(read, attn_implementation="eager", dtype=torch.float32).eval()
    less_one = config["model_type"].startswith(("gemma", "vaultgemma", "nemotron", "qwen3_5", "qwen3_next")) and "gemma4" not in config["model_type"]
    buffers = ((n, b) for n, b in model.named_buffers() if n.endswith(("correction_bias", "layer_scalar")))
    for name, p in [*model.named_parameters(), *buffers]:
        if p.dim() > 1:
            p.data.normal_(0, 1.3 * max(p.shape[-1], 1) ** -0.5)
        else:
            is_norm = name.endswith(("weight", "layer_scalar")) and not less_one
            p.data.normal_(float(is_norm), 0.3)
        if IS_4 and name.endswith("correction_bias"):  # to it, an expert below 0 is worse than those of other groups
            p.data.abs_()
    model.save_pretrained(path)
    (path / "config.json").write_text(json.dumps(config))
    ids = torch.randint(2, N_VOCAB, (1, N_IDS))
    with torch.inference_mode():
        return ids[0].tolist(), model(input_ids=ids, use_cache=False).logits[0].numpy()


def native(path, ids, chunk):
    """Its logits, or why it does not run natively."""
    run = subprocess.run([PROGRAM, path, str(chunk), *map(str, ids)], capture_output=True, timeout=60)
    if run.returncode == EXIT_UNSUPPORTED:
        return run.stderr.decode()
    assert run.returncode == 0, f"exit {run.returncode}: {run.stderr.decode()}"
    return np.frombuffer(run.stdout, np.float32).reshape(len(ids), -1)


def difference(config, seed, folder):
    """Of all logits, as a share of their spread; or why it does not run natively; None: transformers takes no such config."""
    try:
        ids, want = make(config, folder, seed)
    except Exception:  # whatever its validators and models raise
        return None
    got = native(folder, ids, random.Random(seed).choice([1, 7, N_IDS]))
    return got if isinstance(got, str) else np.abs(got - want).max() / want.std()


@pytest.mark.both_lines
@pytest.mark.parametrize("family", [f for f in FAMILIES if not IS_4 or f in transformers.CONFIG_MAPPING])
def test_a_config_is_read_as_transformers_reads_it(family, tmp_path):
    n_native = 0
    for seed in range(SEED, SEED + N_CONFIGS):
        config = draw(family, seed)
        found = difference(config, seed, tmp_path)
        if found is None or isinstance(found, str):
            continue
        n_native += 1
        assert found < 2e-3, f"seed {seed}: logits differ by {found:.2g} of their spread: {json.dumps(config)}"
    assert n_native, "none of them ran natively"


def described(config, folder):
    (folder / "config.json").write_text(json.dumps(config))
    out = subprocess.run([BUILD / "bin/banyan", "model", folder], capture_output=True, text=True, check=True).stdout
    return out[out.index("family"):].replace(f"({config.get('architectures', [''])[0]})", "")


UNUSABLE = {  # defaults that make no model
    "deepseek_v2": {"num_experts_per_tok": 2}, "glm4_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6}}


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text"])
def test_what_a_config_leaves_out_is_transformers_default(family, tmp_path):
    """The text_config of Gemma 3 4B is five keys long."""
    full = transformers.CONFIG_MAPPING[family]().to_dict()
    full = {k: v for k, v in full.items() if not k.endswith("_token_id") and k not in ("architectures", "time_step_limit")}
    must = {"model_type": family, **UNUSABLE.get(family, {})}
    assert described(must, tmp_path) == described({**full, **must}, tmp_path)


VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
QWEN_VISION = {"hidden_size": 32, "intermediate_size": 48, "depth": 1, "num_heads": 2, "out_hidden_size": 32}
GEMMA4_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
AROUND = {  # config class: model_type of the text, what the outer config has besides
    "Gemma3": ("gemma3_text", {"vision_config": {**VISION, "model_type": "siglip_vision_model"}, "mm_tokens_per_image": 4}),
    "Gemma4": ("gemma4_text", {"vision_config": GEMMA4_VISION, "tie_word_embeddings": True}),
    "Gemma4Unified": ("gemma4_unified_text", {"tie_word_embeddings": True}),
    "Llava": ("llama", {"vision_config": {**VISION, "model_type": "clip_vision_model"}, "tie_word_embeddings": True}),
    "Mistral3": ("mistral", {"vision_config": {**VISION, "model_type": "pixtral", "head_dim": 16}}),
    "Mistral3 of Ministral3": ("ministral3", {"vision_config": {**VISION, "model_type": "pixtral", "head_dim": 16}}),
    "InternVL": ("qwen2", {"vision_config": {**VISION, "model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [14, 14]}}),
    "Idefics3": ("llama", {"vision_config": VISION}),
    "Qwen2VL": ("qwen2_vl_text", {"vision_config": QWEN_VISION}),
    "Qwen2_5_VL": ("qwen2_5_vl_text", {"vision_config": QWEN_VISION, "tie_word_embeddings": True}),
    "Qwen3VL": ("qwen3_vl_text", {"vision_config": {**QWEN_VISION, "deepstack_visual_indexes": [0]}}),
    "Qwen3VLMoe": ("qwen3_vl_moe_text", {"vision_config": {**QWEN_VISION, "deepstack_visual_indexes": [0]}, "tie_word_embeddings": False}),
    "Qwen3_5": ("qwen3_5_text", {"vision_config": QWEN_VISION}),
    "Qwen3_5Moe": ("qwen3_5_moe_text", {"vision_config": QWEN_VISION}),
    "Lfm2Vl": ("lfm2", {"vision_config": {**VISION, "model_type": "siglip2_vision_model", "num_patches": 4}, "projector_hidden_size": 32}),
    "Voxtral": ("llama", {"audio_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}}),
}


def agrees(path, ids, want):
    got = native(path, ids[0].tolist(), 7)
    assert not isinstance(got, str), got
    assert np.abs(got - want).max() < 2e-3 * want.std()


def fuse_experts(path, text):
    w = safetensors.torch.load_file(path)
    for i in range(text["num_hidden_layers"]):
        at = f"model.language_model.layers.{i}.mlp.experts."
        each = {part: torch.stack([w.pop(f"{at}{e}.{part}_proj.weight") for e in range(text["num_experts"])]) for part in ("gate", "up", "down")}
        w[at + "gate_up_proj"], w[at + "down_proj"] = torch.cat([each["gate"], each["up"]], 1), each["down"]
    safetensors.torch.save_file(w, path)


def one_by_one(tensors):
    """A tensor an expert, as quantised files have them, out of [n, in, out] for all."""
    out = {}
    for name, w in tensors.items():
        stem = name.rsplit(".", 1)[0]
        for e, x in enumerate(w.transpose(1, 2) if ".mlp.experts." in name else []):
            parts = {"gate_proj": x[:len(x) // 2], "up_proj": x[len(x) // 2:]} if name.endswith("gate_up_proj") else {"down_proj": x}
            out |= {f"{stem}.{e}.{part}.weight": y.contiguous() for part, y in parts.items()}
        if ".mlp.experts." not in name:
            out[name] = w
    return out


@pytest.mark.parametrize("name", AROUND)
def test_the_text_model_inside_another_is_found(name, tmp_path):
    """Under its prefix, and tied to its embedding by the outer config where that says so: Mistral 3's has true as default."""
    kind, more = AROUND[name]
    text = {"model_type": kind, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": N_VOCAB, "max_position_embeddings": 128}
    if not kind.startswith("qwen2"):
        text["head_dim"] = 16
    elif kind != "qwen2":
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    if kind.startswith("gemma4"):
        text |= {"layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 24, "num_global_key_value_heads": 2, "sliding_window": 4}
    if kind == "gemma4_text":
        text |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": N_VOCAB}
    if kind == "lfm2":
        text |= {"layer_types": ["conv", "full_attention"]}
    if kind.startswith("qwen3_5"):
        text |= {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                 "linear_key_head_dim": 16, "linear_value_head_dim": 8}
        if "moe" in kind:
            text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24}
    elif "moe" in kind:
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [1], "num_hidden_layers": 3}
    name = name.split()[0]
    config = getattr(transformers, f"{name}Config")(text_config=text, **more)
    config._attn_implementation = "eager"
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval().float()
    models.scale_weights(model).save_pretrained(tmp_path)
    ids = torch.randint(10, N_VOCAB, (1, N_IDS))
    with torch.inference_mode():
        want = model(input_ids=ids).logits[0].numpy()
    configs = [json.loads((tmp_path / "config.json").read_text())]
    if "rope_parameters" in text:  # transformers 4 wrote the text's keys beside the vision's
        flat = {**text, "model_type": kind.removesuffix("_text"), "rope_theta": 10000.0, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
        configs.append({**configs[0], **{k: v for k, v in flat.items() if k != "rope_parameters"}})
        del configs[1]["text_config"]
    for config in configs:
        (tmp_path / "config.json").write_text(json.dumps(config))
        agrees(tmp_path, ids, want)
    if name == "Qwen3_5Moe":  # the files on the hub have a layer's experts in one tensor, transformers saves them one by one
        fuse_experts(tmp_path / "model.safetensors", text)
        agrees(tmp_path, ids, want)
    if name == "Qwen3VLMoe":  # the files on the hub have their experts transposed, those that transformers 5 saves do not
        path = tmp_path / "model.safetensors"
        turned = {k: w.transpose(1, 2).contiguous() if ".mlp.experts." in k else w for k, w in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(turned, path)
        agrees(tmp_path, ids, want)
        safetensors.torch.save_file(one_by_one(turned), path)
        agrees(tmp_path, ids, want)
