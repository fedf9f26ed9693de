"""Writes the seeds of the binary fuzzers into corpora/: run it when messages.def changes.

    .venv/bin/python tests/fuzz/make_seeds.py

One frame of each message kind, a GGUF file with a tiny tokenizer, a safetensors file, and conversations for the wire.
The seeds of the text fuzzers were written by hand; inputs that once failed were added beside them.
"""

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "proto"))
import messages  # noqa: E402


def seed(fuzzer, name, data):
    folder = HERE / "corpora" / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def filled(cls, depth=0):
    """A message with something in every field."""
    some = {"bool": True, "str": "größe", "bin": b"\xff\x00", "f32": 0.5, "f64": 1.25, "strs": ["a", ""],
            "u32s": [1, 2, 3], "f32s": [0.25], "u32": 7, "u64": 2**40, "i32": -7, "i64": -(2**40)}
    values = {}
    for field in cls.FIELDS:
        one = filled(field.of, depth + 1) if field.of else some[field.kind]
        values[field.name] = [one] if field.is_list else one
    return cls(**values)


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf(keys, tensors, align=32):
    """keys: (name, type, payload); tensors: (name, dims, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, kind, payload in keys:
        head += string(name) + struct.pack("<I", kind) + payload
    data = b""
    for name, dims, kind, content in tensors:
        head += string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % align)
    return head + b"\0" * (-len(head) % align) + data


def strings(values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(string(v) for v in values)


def ints(values):
    return struct.pack("<IQ", 5, len(values)) + b"".join(struct.pack("<i", v) for v in values)


def floats(values):
    return struct.pack("<IQ", 6, len(values)) + b"".join(struct.pack("<f", v) for v in values)


def u32(value):
    return struct.pack("<I", value)


def llama_keys(tokenizer):
    numbers = {"block_count": 1, "embedding_length": 32, "feed_forward_length": 32, "attention.head_count": 2,
               "attention.head_count_kv": 1, "context_length": 64, "rope.dimension_count": 16, "vocab_size": 8}
    keys = [("general.architecture", 8, string("llama"))]
    keys += [(f"llama.{k}", 4, u32(v)) for k, v in numbers.items()]
    keys += [("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5))]
    return keys + tokenizer


def bpe():
    return [("tokenizer.ggml.model", 8, string("gpt2")), ("tokenizer.ggml.pre", 8, string("smollm")),
            ("tokenizer.ggml.tokens", 9, strings(["<s>", "</s>", "H", "e", "l", "o", "ll", "Ġ"])),
            ("tokenizer.ggml.token_type", 9, ints([3, 3, 1, 1, 1, 1, 1, 1])),
            ("tokenizer.ggml.merges", 9, strings(["l l"])), ("tokenizer.ggml.bos_token_id", 4, u32(0)),
            ("tokenizer.ggml.eos_token_id", 4, u32(1)), ("tokenizer.chat_template", 8, string("{{ messages }}"))]


def spm():
    return [("tokenizer.ggml.model", 8, string("llama")),
            ("tokenizer.ggml.tokens", 9, strings(["<unk>", "<s>", "</s>", "<0x48>", "▁", "e", "l", "el"])),
            ("tokenizer.ggml.scores", 9, floats([0, 0, 0, 0, -1, -2, -3, -4])),
            ("tokenizer.ggml.token_type", 9, ints([2, 3, 3, 6, 1, 1, 1, 1])),
            ("tokenizer.ggml.add_bos_token", 7, b"\1")]


def safetensors(entries, data):
    head = json.dumps(entries).encode()
    return struct.pack("<Q", len(head)) + head + data


def event(op, data):
    return bytes([op, len(data)]) + data


def record(what, peer, data=b""):
    return bytes([what, peer - 1]) + struct.pack("<H", len(data)) + data


def said(peer, message):
    return record(0, peer, messages.encode(message, 0, 0))


def life_of_a_scheduler():
    """Requests, results, acks, a pause, a finish, questions, a worker's second life: for fuzz_core."""
    m = messages
    name = [m.Name(epoch=1, rid=rid) for rid in range(5)]
    out = b"".join(said(2, m.Tokenized(name=name[rid], ids=list(range(3, 20 + rid)), sampling=m.Sampling(
        n=1 + rid % 2, max_new_tokens=8, logprob_start=-1))) for rid in range(1, 5))
    out += record(3, 4, b"abc") * 6 + said(1, m.Ack(name=name[1], n_tokens=2)) + said(1, m.Pause(name=name[2]))
    out += record(3, 4) * 3 + said(1, m.Unpause(name=name[2])) + said(3, m.Finish(name=name[3], n_output=1, reason=2))
    out += said(3, m.Cancel(name=name[4], code=-22)) + said(1, m.Ask(id=1, what="dump", json="{}"))
    out += said(1, m.Ask(id=2, what="flush", json="{}")) + record(2, 4)
    out += said(4, m.Hello(version=1, role=m.ROLE_GPU_WORKER, instance="0", epoch=9,
                           model=m.Model(n_vocab=100, context_len=256),
                           capacity=m.Capacity(page_size=4, n_pages=48, n_slots=8, step_tokens_max=32, world=1)))
    return out + record(3, 4) * 8 + record(1, 1, bytes(200)) + record(2, 3) + record(2, 1)


def main():
    seed("core", "life", life_of_a_scheduler())
    for kind, cls in messages.BY_KIND.items():
        seed("msg", cls.NAME, messages.encode(filled(cls), 1, 2))
        seed("msg", f"{cls.NAME}-empty", messages.encode(cls(), 1, 2))
    one = [("token_embd.weight", [32, 8], 0, bytes(4 * 32 * 8)), ("output_norm.weight", [32], 0, bytes(128))]
    q8 = [("token_embd.weight", [32, 8], 8, bytes(34 * 8)), ("output_norm.weight", [32], 0, bytes(128))]
    seed("gguf", "bpe", gguf(llama_keys(bpe()), one))
    seed("gguf", "spm", gguf(llama_keys(spm()), q8))
    seed("gguf", "bare", gguf([], []))
    f32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    bf16 = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}
    seed("safetensors", "two", safetensors({"__metadata__": {"format": "pt"}, "a": f32, "b": bf16}, bytes(32)))
    seed("safetensors", "empty", safetensors({}, b""))
    worker, router = messages.ROLE_GPU_WORKER, messages.ROLE_ROUTER
    hello = messages.encode(messages.Hello(version=1, build="x", role=worker, instance="1", epoch=1, attempt=1), 0, 0)
    other = messages.encode(messages.Hello(version=1, build="x", role=router, instance="0", epoch=2, attempt=1), 0, 0)
    wrong = messages.encode(messages.Hello(version=9, build="y", role=router, instance="0", epoch=2, attempt=1), 0, 0)
    credit, beat = bytes([messages.Credit.KIND, 1, 0xCD, 1, 0]), bytes([messages.Heartbeat.KIND, 0])
    ack = bytes([messages.Ack.KIND, 4, 0x92, 1, 1, 0, 7, 0xC2])
    seed("wire", "talk", event(1, b"\0\0") + event(8, hello) + event(0, other) + event(12, ack) + event(4, credit)
         + event(4, beat) + event(3, ack) + event(12, ack) + event(2, b"\0\0") + event(8, hello) + event(12, beat))
    seed("wire", "refused", event(0, wrong) + event(0, b"\xc1\xc1") + event(4, ack))
    welcome = messages.encode(messages.Welcome(version=1, build="x", role=messages.ROLE_SCHEDULER, instance="0", epoch=5,
                                               attempt=1, session=3, credit=4096), 0, 0)
    seed("wire", "welcome", event(1, b"\0\0") + event(0, welcome) + event(4, ack) + event(12, credit) + event(1, b"\0\0"))


if __name__ == "__main__":
    main()
