"""Tiny models of families that the data beside the project has none of: random bf16 weights, and what transformers computes of
them in f32. `python make_models.py` in .venv-transformers writes them anew, for README.md."""

import json
import sys
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).parent
N_GREEDY, LENGTHS = 12, (1, 17, 130)
WINDOWED, FULL = "sliding_attention", "full_attention"
GEMMA4 = {
    "model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], "vocab_size": 160, "vocab_size_per_layer_input": 160,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True, "layer_types": [WINDOWED, FULL, WINDOWED, WINDOWED, FULL], "sliding_window": 24, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512, "final_logit_softcapping": 30.0, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    "rope_parameters": {FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
                        WINDOWED: {"rope_type": "default", "rope_theta": 1e4}}}
GEMMA4_MOE = GEMMA4 | {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2,
                       "moe_intermediate_size": 16, "num_hidden_layers": 3, "layer_types": [WINDOWED, WINDOWED, FULL]}
MODELS = {"gemma4": GEMMA4, "gemma4-moe": GEMMA4_MOE}


def numbers(values):
    return [float(f"{v:.8g}") for v in values]


def case(model, ids):
    """The prompt's logits, then greedy ids, each after a full computation."""
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    of_ids = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0] if len(ids) > 1 else []
    text, greedy, margins = list(ids), [], []
    for _ in range(N_GREEDY):
        best = model(input_ids=torch.tensor([text])).logits[0, -1].topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        text.append(greedy[-1])
    return {"prompt_ids": ids, "last_logits": numbers(logits[-1]), "argmax_all": logits.argmax(-1).tolist(),
            "prompt_logprobs": [None, *numbers(of_ids)], "greedy_ids": greedy, "greedy_margins": numbers(margins)}


def make(name, config):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    torch.manual_seed(7)
    read = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(read, attn_implementation="eager", dtype=torch.float32).eval()
    for key, p in [*model.named_parameters(), *((k, b) for k, b in model.named_buffers() if k.endswith("layer_scalar"))]:
        p.data.normal_(0, 1.3 * p.shape[-1] ** -0.5) if p.dim() > 1 else p.data.normal_(1, 0.2)
    model.bfloat16().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")  # as the hub has it, not as transformers 5 saves it
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    draw = torch.Generator().manual_seed(11)
    with torch.inference_mode():
        cases = {f"len{n}": case(model, torch.randint(2, config["vocab_size"], (n,), generator=draw).tolist()) for n in LENGTHS}
        std = model(input_ids=torch.tensor([cases["len130"]["prompt_ids"]])).logits.std().item()
    golden = {"transformers": transformers.__version__, "logits_std": std, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


for name in sys.argv[1:] or MODELS:
    make(name, MODELS[name])
