"""A llama of two layers with weights out of a seed, as a folder: what a test needs that wants other weights of one shape."""

import array
import json
import random
import shutil
import struct

from harness import TINY

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCAB = 64, 128, 2, 4, 2, 640
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
          "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
          "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
          "tie_word_embeddings": False, "bos_token_id": 636, "eos_token_id": 639, "torch_dtype": "float32"}


def shapes(layers):
    kv = HIDDEN // HEADS * KV_HEADS
    yield from (("model.embed_tokens.weight", [VOCAB, HIDDEN]), ("model.norm.weight", [HIDDEN]), ("lm_head.weight", [VOCAB, HIDDEN]))
    for i in range(layers):
        for name, shape in {"input_layernorm": [HIDDEN], "post_attention_layernorm": [HIDDEN], "mlp.gate_proj": [INNER, HIDDEN],
                            "mlp.up_proj": [INNER, HIDDEN], "mlp.down_proj": [HIDDEN, INNER], "self_attn.q_proj": [HIDDEN, HIDDEN],
                            "self_attn.k_proj": [kv, HIDDEN], "self_attn.v_proj": [kv, HIDDEN], "self_attn.o_proj": [HIDDEN, HIDDEN]}.items():
            yield f"model.layers.{i}.{name}.weight", shape


def write(folder, seed, layers=LAYERS):
    """The folder's path, as text."""
    rng = random.Random(seed)
    head, data = {}, b""
    for name, shape in shapes(layers):
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * n if len(shape) == 1 else [rng.uniform(-0.3, 0.3) for _ in range(n)]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * n]}
        data += array.array("f", values).tobytes()
    text = json.dumps(head).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    shutil.copy(TINY / "tokenizer.json", folder / "tokenizer.json")
    return str(folder)
