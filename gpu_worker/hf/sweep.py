#!/usr/bin/env python3
"""Which models run, in which tier, how far from transformers' own logits? Writes tests/bench/results/models.csv, from which
models_page.py makes deploy/docs/models.md.

    .venv-transformers/bin/python gpu_worker/hf/sweep.py && python3 gpu_worker/hf/models_page.py > deploy/docs/models.md
    … sweep.py Qwen3_5Text "Bert as decoder"          these alone anew; the other rows stay

Every model of ../shared/data/tiny, those that the tests make from a config, and one of each class that transformers knows to
generate text, images beside it or not, and whose config can be made small: loaded as a server would, and probed.
"""

import copy
import csv
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "gpu_worker/hf"), str(ROOT / "tests/hf")]

import torch  # noqa: E402
import transformers  # noqa: E402
from banyan_hf_worker import loader, probe  # noqa: E402

import models  # noqa: E402
from models_page import TABLE  # noqa: E402

SMALL = {"vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 0,
         "eos_token_id": 2, "sliding_window": 8, "num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 32,
         "num_experts_per_tok": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
         "index_topk": 16, "index_head_dim": 16, "index_n_heads": 16}
# The same by other names.
SMALL |= {**dict.fromkeys(("d_model", "n_embd", "emb_dim", "embed_dim", "word_embed_proj_dim"), 64),
          **dict.fromkeys(("n_layer", "n_layers", "layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
          **dict.fromkeys(("n_head", "n_heads", "num_heads", "attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 4),
          **dict.fromkeys(("ffn_dim", "d_inner", "dff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 96)}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "depth": 1, "num_heads": 2,
          "out_hidden_size": 64, "text_hidden_size": 64, "base_channels": 32, "num_embeddings": 64, "codebook_size": 64}
MLA = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 24}
_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_MROPE = {"rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}}
_LINEAR = {"linear_head_dim": 16, "linear_num_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
           "linear_num_key_heads": 2, "linear_num_value_heads": 4}
_TWO = {"num_hidden_layers": 2}
_SAM = {"output_channels": 32, "downsample_channels": [32, 64], "mlp_dim": 48, "global_attn_indexes": [0]}
# What some classes have to be told besides: layers of each kind, sizes that must fit each other, names of their own.
BESIDES = {
    "Apertus1p5Config": {"image_token_offset": 200, "audio_token_offset": 264},
    "Apertus1p5VisionTokenizerConfig": {"base_channels": 32, "codebook_size": 64},
    "BambaConfig": {"attn_layer_indices": [1, 5], **_HEADS},
    "BailingHybridConfig": {**_TWO, "layer_types": ["linear_attention", "full_attention"], "layer_group_size": 2},
    "BltConfig": {"encoder_hash_byte_group_vocab": 500},
    **dict.fromkeys(("BltGlobalTransformerConfig", "BltPatcherConfig"), {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}),
    **dict.fromkeys(("BltLocalEncoderConfig", "BltLocalDecoderConfig"), {"hidden_size_global": 64, "num_key_value_heads": 2}),
    "ChameleonConfig": {"vocabulary_map": {"<image>": 9, "IMGIMGA": 10}},
    **dict.fromkeys(("CodeGenConfig", "GPTJConfig"), {"rotary_dim": 8}),
    "CohereCompassTextConfig": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "Cosmos3EdgeTextConfig": _MROPE,
    "DbrxConfig": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "ffn_config": {"ffn_hidden_size": 32, "moe_top_k": 2}},
    "CLIPVisionConfig": {"hidden_size": 64},
    "DeepseekOcr2SamVisionConfig": _SAM,
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", *["sparse"] * 7]},
    "DoryConfig": {"n_input_layers": 2, "n_output_layers": 1},
    "Dots1Config": {"n_shared_experts": 1, "routed_scaling_factor": 1.0, "first_k_dense_replace": 1},
    **dict.fromkeys(("Dots3NoteTextConfig", "Inkling2LoopTextConfig"), _TWO),
    "Dots3NoteAudioConfig": {"adapter_input_size": 32, "adapter_out_dim": 64},
    "Dots3NoteVisionConfig": {"adapter_in_dim": 32, "adapter_out_dim": 64, "num_hidden_layers": 42},
    "Ernie4_5_VLMoeTextConfig": {"rope_parameters": {**_ROPE, "mrope_section": [2, 2, 4]}, "moe_intermediate_size": [32, 16], "moe_num_experts": 4, "moe_k": 2},
    "FalconH1Config": {"mamba_d_ssm": 128, **_HEADS},
    "Gemma3nTextConfig": {"num_kv_shared_layers": 2, "vocab_size_per_layer_input": 640, "hidden_size_per_layer_input": 16, "laurel_rank": 8},
    "Gemma4TextConfig": {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 640, "num_kv_shared_layers": 0,
                         "global_head_dim": 32},
    "Glm5NextTextConfig": {**_TWO, "layer_types": ["linear_attention", "indexed_attention"], "qk_rope_head_dim": 0, **_LINEAR},
    "Granite4VisionConfig": {"deepstack_layer_map": [], "downsample_rate": "4/8"},
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]]},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention"] * 4, **_HEADS},
    "HunYuanVLTextConfig": _MROPE,
    "HYV4VLTextConfig": {"rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}},
    "KimiLinearConfig": {"num_experts_per_token": 2, **_LINEAR},
    "Lfm2Config": {"layer_types": ["conv", "full_attention"] * 4},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 4, "num_dense_layers": 1},
    "LongcatFlashConfig": {"head_dim": 8, "expert_ffn_hidden_size": 32, "zero_expert_num": 2, "moe_topk": 2},
    **dict.fromkeys(("Glm4vTextConfig", "Qwen2VLTextConfig", "Qwen2_5_VLTextConfig", "PaddleOCRTextConfig", "Qwen2_5OmniTextConfig",
                     "GlmOcrTextConfig"), _MROPE),
    "Glm4vMoeTextConfig": {"head_dim": 32, **_MROPE},
    "Mamba2Config": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16, "chunk_size": 16},
    "Molmo2AdapterConfig": {"vision_feature_layer": [0]},
    "MuseSparkConfig": {"out_hidden_size": 64, "projector_hidden_size": 64},
    "MuseSparkAudioConfig": {"num_hidden_layers": 4, "hidden_sizes": [16, 16, 16, 16]},
    "Qwen4ExpTextConfig": {**_TWO, "layer_types": ["linear_attention", "indexed_attention"], "indexer_budget": 16, "indexer_compress_ratio": 4,
                           "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "partial_rotary_factor": 0.5},
    "RadioConfig": {"video_temporal_patch_size": 2},
    "ReformerConfig": {"attn_layers": ["local"] * 2, "local_attn_chunk_length": 16, "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [32, 32]},
    "TimmWrapperConfig": {"model_args": {"embed_dim": 32}},
    "UnlimitedOcrTextConfig": {"num_key_value_heads": 4},
    "WavTokenizerEncoderConfig": {"codebook_dim": 32},
    "ZambaConfig": {"layer_types": ["mamba", "hybrid"] * 4},
    "Zamba2Config": {"layers_block_type": ["linear_attention", "hybrid"] * 4},
    "XmodConfig": {"default_language": "en_XX"},
    "xLSTMConfig": {"hidden_size": 256},
    "ZayaConfig": {"num_experts_per_tok": 1},
}
TEXTS = ("text_config", "decoder")  # the others read images or sound
AS_DECODER = {"is_decoder": True, "is_encoder_decoder": False, "causal": True}
LARGEST = 60e6  # parameters: a config that ignores SMALL's names stays the size of its defaults


def small_config(name, besides=None):
    """The class's config with SMALL's values where it has such names, and so the configs inside of it."""
    cls = getattr(transformers, name)
    return cls(**{**small_values(cls(), SMALL), **(besides or {})})


def small_values(config, small):
    """What to make a config of its class of, given one with its defaults."""
    known = config.to_dict()
    values = {k: v for k, v in small.items() if k in known}
    if "qk_rope_head_dim" in known:
        values = {**{k: v for k, v in values.items() if k != "head_dim"}, **MLA, "num_key_value_heads": 4}
    for name, part in vars(config).items():
        if isinstance(part, transformers.PreTrainedConfig) and part.model_type:
            values[name] = {"model_type": part.model_type, **small_values(part, SMALL if name in TEXTS else {**SMALL, **VISION})}
    return copy.deepcopy({**values, **BESIDES.get(type(config).__name__, {})})  # configs write into what they are given


def of_class(config_name, as_decoder=False):
    """as_decoder: of a class that is an encoder, or has one, the decoder that it may be."""
    cls = getattr(transformers, config_name)
    besides = {k: v for k, v in AS_DECODER.items() if hasattr(cls, k)} if as_decoder else {}
    refuse_class(cls, **besides)
    config = small_config(config_name, besides)
    with torch.device("meta"):
        n = sum(p.numel() for p in loader.auto_class(config).from_config(config).parameters())
    if n > LARGEST:
        raise ValueError(f"its default config has {n / 1e6:.0f} M parameters, and other names than most")
    torch.manual_seed(3)
    model = models.scale_weights(loader.auto_class(config).from_config(config, dtype=torch.float32)).eval()
    loader.freeze_rope(model, 512)
    if not model.config.is_encoder_decoder:
        probe.reference_of(model, probe._two_sequences(model.config))  # what fails here, fails without us
    return model


def may_be_decoder(config_name):
    """Is it an encoder, or has one, unless its config says otherwise?"""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as known

    cls = getattr(transformers, config_name)
    try:
        refuse_class(cls)
        return getattr(cls, "causal", None) is False
    except probe.Refused:
        return cls in known and hasattr(cls, "is_decoder")


def refuse_class(cls, **besides):
    said = {name: getattr(cls, name, False) for name in ("model_type", "is_encoder_decoder", "is_decoder")}
    probe.refuse_what_is_not_causal(SimpleNamespace(**{**said, **besides}))


def cell(text):
    text = str(text).replace(str(models.SHARED), "../shared/data").replace("|", "/").replace("`", "'")
    return " ".join(text.split())[:160]


def reuse(verdict):
    """What a request can start from that begins as another one did."""
    if not verdict.way.keeps_states:
        return "pages" if verdict.way.reuses_prefixes else ""
    return "" if verdict.state_bytes is None else "states" if not verdict.shapes else "pages, states"


def row(kind, name, make):
    """One line of the table."""
    began = time.monotonic()
    line = {"kind": kind, "model": name, "tier": "not tried", "error": "", "prefix": "", "why": ""}
    try:
        model = make()
        cls = type(model).__name__
        try:
            v = probe.choose(model)
            line.update(tier=v.way.tier, error=f"{v.error:.0e}", prefix=reuse(v), why=f"{cls}: {cell(v.reason)}")
        except probe.Refused:
            raise
        except Exception as failure:
            line.update(tier="refused", why=f"{cls}: {cell(failure)}")
    except probe.Refused as refused:
        line.update(tier="refused", why=cell(refused))
    except Exception as failure:  # foreign code: whatever it raises, the model did not load here
        line["why"] = cell(str(failure) or type(failure).__name__)
    print(f"{name}: {line['tier']} {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return line


def main():
    torch.set_num_threads(1)
    loader.quiet()
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    load = lambda name: loader.load(models.path_of(name), dtype="float32", trust_remote_code=True, allow_pickle=True)  # noqa: E731
    folder = models.SHARED / "tiny"
    names = [p.name for p in sorted(folder.iterdir()) if (p / "config.json").exists()] if folder.exists() else []
    sources = [("tiny", n, lambda n=n: load(n)) for n in [*names, *models.MADE]]
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    classes = sorted({config.__name__ for known in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING) for config in known})
    sources += [("class", n.removesuffix("Config"), lambda n=n: of_class(n)) for n in classes]
    sources += [("class", f"{n.removesuffix('Config')} as decoder", lambda n=n: of_class(n, True)) for n in classes if may_be_decoder(n)]
    sources.sort(key=lambda s: (s[0] == "class", s[1].lower() if s[0] == "class" else ""))
    only = sys.argv[1:]
    before = {(r["kind"], r["model"]): r for r in csv.DictReader(TABLE.read_text().splitlines()[1:])} if only else {}
    rows = [row(*s) if not only or s[1] in only or s[:2] not in before else before[s[:2]] for s in sources]
    with open(TABLE, "w", newline="") as table:
        table.write(f"# transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}\n")
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
