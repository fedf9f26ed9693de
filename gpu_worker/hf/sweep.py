#!/usr/bin/env python3
"""Writes deploy/docs/models.md: which tiny models run, in which tier, how far from transformers' own logits.

    .venv-transformers/bin/python gpu_worker/hf/sweep.py > deploy/docs/models.md

Every model of ../shared/data/tiny, those that the tests make from a config, and one of each causal class that transformers
knows and whose config can be made small: loaded as a server would, and probed.
"""

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "gpu_worker/hf"), str(ROOT / "tests/hf")]

import torch  # noqa: E402
import transformers  # noqa: E402
from banyan_hf_worker import loader, probe  # noqa: E402

import models  # noqa: E402

SMALL = {"vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 0,
         "eos_token_id": 2, "sliding_window": 8, "num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 32,
         "num_experts_per_tok": 2, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
MLA = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 24}
LARGEST = 60e6  # parameters: a config that ignores SMALL's names stays the size of its defaults


def small_config(name):
    """The class's config with SMALL's values where it has such names."""
    config = getattr(transformers, name)
    known = config().to_dict()
    values = {k: v for k, v in SMALL.items() if k in known}
    if "qk_rope_head_dim" in known:
        values = {**{k: v for k, v in values.items() if k != "head_dim"}, **MLA, "num_key_value_heads": 4}
    return config(**values)


def of_class(config_name):
    config = small_config(config_name)
    with torch.device("meta"):
        n = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if n > LARGEST:
        raise ValueError(f"its default config has {n / 1e6:.0f} M parameters, and other names than most")
    torch.manual_seed(3)
    model = models.scale_weights(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)).eval()
    loader.freeze_rope(model, 512)
    if not model.config.is_encoder_decoder:
        probe.reference_of(model, probe._two_sequences(model.config))  # what fails here, fails without us
    return model


def cell(text):
    return " ".join(str(text).replace("|", "/").replace("`", "'").split())[:160]


def row(name, make):
    began = time.monotonic()
    try:
        model = make()
        kind = type(model).__name__
    except Exception as failure:  # foreign code: whatever it raises, the model did not load here
        return "not tried", f"| {name} | – | – | {cell(str(failure) or type(failure).__name__)} |"
    try:
        v = probe.choose(model)
        how, text = v.tier, f"| {name} | {v.tier} | {v.error:.0e} | {kind}: {cell(v.reason)} |"
    except probe.Refused as refused:
        how, text = "refused", f"| {name} | refused | – | {cell(refused)} |"
    except Exception as failure:
        how, text = "refused", f"| {name} | refused | – | {kind}: {cell(failure)} |"
    print(f"{name}: {how} {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return how, text


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
    tiny = [row(n, lambda n=n: load(n)) for n in [*names, *models.MADE]]
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as known

    classes = sorted({config.__name__ for config in known})
    all_of_them = [row(n.removesuffix("Config"), lambda n=n: of_class(n)) for n in classes]
    print(f"""# Which models run, and how

Written by `gpu_worker/hf/sweep.py` with transformers {transformers.__version__} and torch {torch.__version__.split('+')[0]}. The families that the native
engine knows are in gpu_worker/models/README.md; every other model, and any with `--model-impl transformers`, goes to the
Transformers worker, which tries its tiers (gpu_worker/hf/README.md) on the model at load. The error is the largest difference of
a logit from the model's own eager attention, in float32, over chunks, a shared prefix and mixed steps. Not tried: the class
could not be made or run this small by itself, which says nothing about its real models: those are probed like all others.
""")
    for title, rows in (("Tiny models of the tests", tiny), ("Every causal class of transformers, from a small config", all_of_them)):
        counts = {how: sum(h == how for h, _ in rows) for how in ("A", "B", "C", "R", "refused", "not tried")}
        print(f"## {title}\n\n" + ", ".join(f"{how}: {n}" for how, n in counts.items() if n) + ".\n")
        print("| model | tier | error | how it was decided, or why not |\n| --- | --- | --- | --- |")
        print("\n".join(text for _, text in rows) + "\n")


if __name__ == "__main__":
    main()
