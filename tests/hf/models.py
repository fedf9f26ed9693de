"""Tiny models for the tests: those of ../shared/data, and some of families that are not there, made from a config.

Their weights are scaled so that attention is far from uniform: with the usual start of 0.02 a broken mask would pass.
"""

import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import transformers
from banyan_hf_worker import loader

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
TOKENIZER = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"
N_VOCAB = 640
IS_4 = transformers.__version__.startswith("4.")

# name -> tier with transformers 5
SHARED_TIERS = {
    "cohere": "A", "deepseek-v2-lite": "A", "deepseek-v3": "A", "falcon-mqa": "B", "falcon-newarch": "B", "gemma": "A",
    "gemma2": "A", "gemma3-text": "A", "glm4": "A", "gpt-neox": "A", "gpt-oss": "A", "gpt2": "A", "granite": "A",
    "helium": "A", "llama-gqa": "A", "llama-mqa-bias-headdim": "A", "llama-rope-llama3": "A", "llama-rope-yarn": "A",
    "mistral-swa": "A", "mixtral": "A", "olmo2": "A", "opt": "A", "phi3": "A", "phi3-longrope": "A", "qwen2": "A",
    "qwen2-moe": "A", "qwen3": "A", "qwen3-moe": "A", "smollm3": "A", "stablelm": "B", "starcoder2": "A",
}
TIERS_4 = {"falcon-h1": "D", "granite4": "D", "gptj": "B", "jamba": "D", "lfm2": "D", "mamba": "D", "opt": "B", "roberta-decoder": "B", "qwen2-moe": "B"}  # where transformers 4 differs

_TEXT = {"vocab_size": N_VOCAB, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
_USUAL = {**_TEXT, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 512}
# name -> (config class, what it is given, tier)
MADE = {
    "bloom": ("BloomConfig", {**_TEXT, "hidden_size": 64, "n_layer": 2, "n_head": 4}, "B"),
    "gptj": ("GPTJConfig", {**_TEXT, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 512}, "A"),
    "mpt": ("MptConfig", {**_TEXT, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}, "B"),
    "llama4-text": ("Llama4TextConfig", {**_USUAL, "num_hidden_layers": 4, "head_dim": 16, "attention_chunk_size": 8,
                    "intermediate_size_mlp": 96, "num_local_experts": 4, "interleave_moe_layer_step": 2}, "A"),
    "lfm2": ("Lfm2Config", {**_USUAL, "num_hidden_layers": 4, "block_ff_dim": 96, "block_multiple_of": 16,
             "layer_types": ["conv", "full_attention", "conv", "full_attention"]}, "C"),
    "qwen3_5-text": ("Qwen3_5TextConfig", {**_USUAL, "num_hidden_layers": 4, "head_dim": 16, "linear_key_head_dim": 32,
                     "linear_value_head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4}, "C"),
    "granite4": ("GraniteMoeHybridConfig", {**_USUAL, "num_hidden_layers": 4, "mamba_n_heads": 4, "mamba_d_state": 16, "mamba_chunk_size": 16,
                 "shared_intermediate_size": 96, "num_local_experts": 4, "num_experts_per_tok": 2,
                 "layer_types": ["mamba", "attention", "mamba", "mamba"]}, "C"),
    "falcon-h1": ("FalconH1Config", {**_USUAL, "num_hidden_layers": 2, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8,
                  "mamba_d_state": 16, "mamba_chunk_size": 16}, "C"),
    "jamba": ("JambaConfig", {**_USUAL, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4,
              "mamba_d_state": 8, "mamba_dt_rank": 8, "use_mamba_kernels": False}, "C"),
    "mamba": ("MambaConfig", {**_TEXT, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 8}, "C"),
    "minimax": ("MiniMaxConfig", {**_USUAL, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"],
                "num_local_experts": 4, "block_size": 8}, "D"),
    "rwkv": ("RwkvConfig", {**_TEXT, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "context_length": 512}, "D"),
    "qwen3-vl": ("Qwen3VLConfig", {"text_config": {
                 **_USUAL, "head_dim": 16, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}}, "vision_config": {
                 "hidden_size": 32, "intermediate_size": 48, "depth": 1, "num_heads": 2, "out_hidden_size": 64,
                 "deepstack_visual_indexes": [0]}}, "A"),
    "bart-decoder": ("BartConfig", {**_TEXT, "d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 96,
                     "max_position_embeddings": 512, "is_decoder": True, "is_encoder_decoder": False}, "B"),
    "roberta-decoder": ("RobertaConfig", {**_TEXT, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "max_position_embeddings": 514, "pad_token_id": 1, "is_decoder": True}, "A"),
    "deepseek-v32": ("DeepseekV32Config", {**_USUAL, "num_key_value_heads": 4, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
                     "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 24, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                     "num_experts_per_tok": 2, "moe_intermediate_size": 32, "index_topk": 16, "index_head_dim": 16,
                     "index_n_heads": 16}, "B"),
    "dory": ("DoryConfig", {**_USUAL, "num_hidden_layers": 4, "head_dim": 16, "n_input_layers": 1, "n_output_layers": 1,
             "n_recurrent_loops": 3, "sliding_window": 8}, "B"),
    "nemotron-h": ("NemotronHConfig", {**_USUAL, "head_dim": 16, "layers_block_type": ["linear_attention", "full_attention", "mlp"],
                   "ssm_state_size": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1, "chunk_size": 16}, "C"),
    "llama-dynamic": ("LlamaConfig", {**_USUAL, "max_position_embeddings": 64,
                      "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "A"),
}


def tier_of(name):
    tier = SHARED_TIERS.get(name) or MADE[name][2]
    return TIERS_4.get(name, tier) if IS_4 else tier


def path_of(name):
    """The folder of a model; the test is skipped when it is one of ../shared/data, and that is not there."""
    if name in MADE:
        return make(name)
    path = SHARED / "tiny" / name
    if not path.exists():
        pytest.skip("no ../shared/data")
    return path


@lru_cache(None)
def _folder():
    import atexit

    folder = tempfile.mkdtemp(prefix="banyan-models-")
    atexit.register(shutil.rmtree, folder, True)
    return Path(folder)


@lru_cache(None)
def make(name):
    """A Hugging Face folder with the model and a tokenizer, made anew in each run."""
    cls, values, _ = MADE[name]
    if not hasattr(transformers, cls):
        pytest.skip(f"transformers {transformers.__version__} has no {cls}")
    path = _folder() / name
    config = getattr(transformers, cls)(**values)
    torch.manual_seed(3)  # of what scale_weights leaves as it is: where two tokens are nearly as likely must not vary
    save(loader.auto_class(config).from_config(config), path)
    return path


def scale_weights(model, seed=11):
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            fan_in = parameter.shape[-1] if parameter.dim() == 2 else parameter[0].numel() // parameter.shape[-1]
            parameter.data.normal_(0, 1.3 * max(fan_in, 1) ** -0.5, generator=random)
    return model


def save(model, path):
    scale_weights(model).save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (TOKENIZER / file).exists():
            shutil.copy(TOKENIZER / file, path / file)
    return path


@lru_cache(4)
def load(name, dtype="float32"):
    return loader.load(path_of(name), dtype=dtype, trust_remote_code=True)


def golden(name):
    return json.loads((path_of(name) / "golden.json").read_text())


def default_gguf():
    """SmolLM2-135M-Instruct, fetched by `banyan` itself when no test before this one did."""
    import subprocess

    from harness import BIN

    path = Path.home() / ".cache/banyan/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        subprocess.run([BIN / "banyan", "tokenize"], input='{"text":"x"}\n', text=True, check=True, capture_output=True)
    return path
