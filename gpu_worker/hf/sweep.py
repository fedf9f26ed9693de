#!/usr/bin/env python3
"""Which models run, in which tier, how far from transformers' own logits? Writes tests/bench/results/models.csv, from which
models_page.py makes deploy/docs/models.md.

    .venv-transformers/bin/python gpu_worker/hf/sweep.py && python3 gpu_worker/hf/models_page.py > deploy/docs/models.md
    … sweep.py Qwen3_5Text Jamba          these alone anew; the other rows stay

Every model of ../shared/data/tiny, those that the tests make from a config, and one of each class that transformers knows to
generate text, images beside it or not, and whose config can be made small: loaded as a server would, and probed.
"""

import csv
import sys
import time
from pathlib import Path

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
         "num_experts_per_tok": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "depth": 1, "num_heads": 2,
          "out_hidden_size": 64}
MLA = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 24}
_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
# What some classes have to be told besides: layers of each kind, sizes that must fit each other, names of their own.
BESIDES = {
    "BambaConfig": {"attn_layer_indices": [1, 5], **_HEADS},
    "BailingHybridConfig": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "layer_group_size": 2},
    **dict.fromkeys(("Dots3NoteTextConfig", "Inkling2LoopTextConfig"), {"num_hidden_layers": 2}),
    "CodeGenConfig": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "Dots1Config": {"n_shared_experts": 1, "routed_scaling_factor": 1.0, "first_k_dense_replace": 1},
    "GPT2Config": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "GPTBigCodeConfig": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "GPTJConfig": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "Gemma4TextConfig": {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 640, "num_kv_shared_layers": 0,
                         "global_head_dim": 32},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention"] * 4, **_HEADS},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 4, "num_dense_layers": 1},
    **dict.fromkeys(("Glm4vTextConfig", "Qwen2VLTextConfig", "Qwen2_5_VLTextConfig", "PaddleOCRTextConfig"), _MROPE),
    **dict.fromkeys(("GlmOcrTextConfig", "Glm4vMoeTextConfig"), {"head_dim": 32, **_MROPE}),
    "Mamba2Config": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16, "chunk_size": 16},
    "MptConfig": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "Qwen4ExpTextConfig": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "indexed_attention"]},
    "ZambaConfig": {"layer_types": ["mamba", "hybrid"] * 4},
}
LARGEST = 60e6  # parameters: a config that ignores SMALL's names stays the size of its defaults


def small_config(name):
    """The class's config with SMALL's values where it has such names, also in a text model's inside and what it is around."""
    config = getattr(transformers, name)
    known = config().to_dict()
    values = small_values(known)
    for part in ("text_config", "vision_config", "audio_config"):
        if isinstance(known.get(part), dict):
            small = small_values(known[part], SMALL if part == "text_config" else {**SMALL, **VISION})
            beside = BESIDES.get(type(getattr(config(), part)).__name__, {})
            values[part] = {"model_type": known[part].get("model_type"), **small, **beside}
    return config(**{**values, **BESIDES.get(name, {})})


def small_values(known, small=SMALL):
    values = {k: v for k, v in small.items() if k in known}
    if "qk_rope_head_dim" in known:
        values = {**{k: v for k, v in values.items() if k != "head_dim"}, **MLA, "num_key_value_heads": 4}
    return values


def of_class(config_name):
    config = small_config(config_name)
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


def cell(text):
    text = str(text).replace(str(models.SHARED), "../shared/data").replace("|", "/").replace("`", "'")
    return " ".join(text.split())[:160]


def row(kind, name, make):
    """One line of the table."""
    began = time.monotonic()
    line = {"kind": kind, "model": name, "tier": "not tried", "error": "", "why": ""}
    try:
        model = make()
        cls = type(model).__name__
        try:
            v = probe.choose(model)
            line.update(tier=v.way.tier, error=f"{v.error:.0e}", why=f"{cls}: {cell(v.reason)}")
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
